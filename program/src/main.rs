//! `upager`: runs the pager over a file, detaches it in the middle, and checks that no thread
//! hangs, no byte is wrong and no dirty byte is lost.
//!
//! `upager run` works without arguments; [`args`] has the rest. The story of a run is told in
//! [`run`].
//!
//! Exit status: 0, the run held; 1, it did not ([`Report::holds`](report::Report::holds)), or the
//! pager did what it must not; 2, the arguments or FILE are no good, or a resource is missing.

#![expect(clippy::cast_possible_truncation, reason = "lengths in memory and page numbers of a file fit a 64-bit usize")]

#[cfg(not(target_pointer_width = "64"))]
compile_error!("upager casts file positions to usize, which must have 64 bits");

mod args;
mod failure;
mod plan;
mod report;
mod run;
mod store;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command, Config};
use crate::failure::Failure;
use crate::report::Report;

fn main() -> ExitCode {
    let Cli { command: Command::Run(args) } = Cli::parse();
    let json = args.json;
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    match Config::new(args).and_then(|config| run::run(&config)) {
        Ok(report) => {
            print(&report, json);
            if report.holds() { ExitCode::SUCCESS } else { ExitCode::from(1) }
        }
        Err(failure) => {
            complain(&failure);
            ExitCode::from(failure.exit_status())
        }
    }
}

/// Writes the report to stdout. A reader that has gone away is no reason to fail the run.
fn print(report: &Report, json: bool) {
    let text = if json { report.json() } else { report.table() };
    let _ = writeln!(io::stdout().lock(), "{text}");
    for finding in &report.findings {
        let _ = writeln!(io::stderr().lock(), "upager: {finding}");
    }
}

fn complain(failure: &Failure) {
    let _ = writeln!(io::stderr().lock(), "upager: {failure}");
}
