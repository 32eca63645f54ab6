//! `upager`: runs the pager over a file, detaches it in the middle, and checks that no thread
//! hangs, no byte is wrong and no dirty byte is lost.
//!
//! `upager run` works without arguments; [`args`] has the rest. The story of a run is told in
//! [`run`]. `upager soak` does everything at once, on many VMOs, and has its story in [`soak`].
//! `upager serve` is a pager process, `upager attach` a client of one, and `upager top` shows what they do:
//! [`serve`], [`attach`], [`watch`]. `upager bench scale` measures how throughput grows with threads: [`scale`].
//!
//! Exit status: 0, the run held; 1, it did not ([`Report::holds`](report::Report::holds)), or the
//! pager did what it must not; 2, the arguments or FILE are no good, or a resource is missing.

#![expect(clippy::cast_possible_truncation, reason = "lengths in memory and page numbers of a file fit a 64-bit usize")]

#[cfg(not(target_pointer_width = "64"))]
compile_error!("upager casts file positions to usize, which must have 64 bits");

mod args;
mod attach;
mod failure;
mod plan;
mod report;
mod run;
mod scale;
mod serve;
mod soak;
mod store;
mod watch;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use crate::args::{BenchCommand, Cli, Command, Config, ScaleConfig, SoakConfig};
use crate::failure::Failure;

fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    let ended = match cli.command {
        Command::Run(args) => {
            let json = args.json;
            Config::new(args).and_then(|config| run::run(&config)).map(|report| {
                print(&if json { report.json() } else { report.table() }, &report.findings);
                report.holds()
            })
        }
        Command::Soak(args) => {
            let json = args.json;
            SoakConfig::new(&args).and_then(|config| soak::soak(&config)).map(|report| {
                print(&if json { report.json() } else { report.table() }, report.findings());
                report.holds()
            })
        }
        Command::Serve(args) => serve::serve(&args).map(|()| true),
        Command::Attach(args) => attach::attach(&args).map(|looked| {
            print(&if args.json { looked.json() } else { looked.table() }, &looked.findings());
            looked.holds()
        }),
        Command::Top(args) => watch::top::top(&args).map(|()| true),
        Command::Bench(BenchCommand::Scale(args)) => {
            ScaleConfig::new(&args).and_then(|config| scale::scale(&config)).and_then(|report| {
                print(&if args.json { report.json() } else { report.table() }, &[]);
                args.svg.map_or(Ok(()), |file| report.plot(&file))?;
                Ok(true)
            })
        }
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(failure) => {
            complain(&failure);
            ExitCode::from(failure.exit_status())
        }
    }
}

/// Writes the report to stdout. A reader that has gone away is no reason to fail the run.
fn print(text: &str, findings: &[String]) {
    let _ = writeln!(io::stdout().lock(), "{text}");
    for finding in findings {
        let _ = writeln!(io::stderr().lock(), "upager: {finding}");
    }
}

fn complain(failure: &Failure) {
    let _ = writeln!(io::stderr().lock(), "upager: {failure}");
}
