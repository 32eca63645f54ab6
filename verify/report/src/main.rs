//! Turns the records that `ci/verify` leaves into one page.
//!
//! A record is `NAME.json`, as its command wrote it, and `NAME.run.json`: of which commit it is, when and
//! where. The page has what there is; what was not run is named as such.

mod map;
mod mutants;
mod page;
mod races;
mod records;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Turns the records of ci/verify into one page.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Writes the page.
    Page {
        /// Where the records are.
        records: PathBuf,
        /// The page.
        page: PathBuf,
    },
    /// Prints what the named races have said, as JSON.
    Races {
        /// Their output.
        said: PathBuf,
    },
}

fn main() -> ExitCode {
    let done = match Args::parse().what {
        What::Page { records, page } => page::write(&records, &page).map(|()| println!("{}", page.display())),
        What::Races { said } => std::fs::read_to_string(&said)
            .map(|said| println!("{}", races::parse(&said)))
            .map_err(|error| format!("{}: {error}", said.display())),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
    }
}
