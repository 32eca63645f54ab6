//! Reads the records of a run and says what they mean. `ci/bench` calls it; by itself:
//!
//! ```text
//! report page RECORDS [--about TEXT] [--docs FOLDER] [--json] [--check]
//! report compare OLD NEW [--name REVISION] [--json]
//! ```
//!
//! `page` writes PERFORMANCE.md and its plots into FOLDER, and prints the table, or with `--json` all
//! rows. With `--check` it fails if a goal is missed or was not measured. `compare` prints what
//! changed from the records OLD to NEW.

mod compare;
mod page;
mod plot;
mod records;
mod rows;

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::page::Page;
use crate::records::Records;
use crate::rows::ROWS;

type Outcome = Result<ExitCode, Box<dyn Error>>;

/// Arguments: those that begin with `--`, some of which have a value, and the others.
struct Arguments {
    plain: Vec<String>,
    options: Vec<(String, String)>,
}

impl Arguments {
    fn read() -> Self {
        let mut arguments = std::env::args().skip(1);
        let (mut plain, mut options) = (Vec::new(), Vec::new());
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--about" | "--docs" | "--name" => options.push((argument, arguments.next().unwrap_or_default())),
                option if option.starts_with("--") => options.push((argument, String::new())),
                _ => plain.push(argument),
            }
        }
        Self { plain, options }
    }

    fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().find(|option| option.0 == name).map(|option| option.1.as_str())
    }
}

fn records(folder: &str) -> Result<Records, Box<dyn Error>> {
    let records = Records::read(Path::new(folder));
    if records.is_empty() { Err(format!("no records in {folder}").into()) } else { Ok(records) }
}

/// A figure that another program left beside the records. Null: it did not run.
fn beside(folder: &str, name: &str) -> Value {
    let text = fs::read_to_string(Path::new(folder).join(name));
    text.ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or(Value::Null)
}

fn write_page(folder: &str, arguments: &Arguments) -> Outcome {
    let records = records(folder)?;
    let found = page::found(&records);
    if let Some(docs) = arguments.option("--docs") {
        let docs = Path::new(docs);
        let plots = plot::all(&records, &docs.join("performance"))?;
        let (accounting, instructions) = (beside(folder, "accounting.json"), beside(folder, "instructions.json"));
        let about = arguments.option("--about").unwrap_or("");
        let page =
            Page { records: &records, about, plots: &plots, accounting: &accounting, instructions: &instructions };
        fs::write(docs.join("PERFORMANCE.md"), page.text())?;
    }
    if arguments.option("--json").is_some() {
        println!("{:#}", json!({ "rows": found.iter().map(page::Found::to_json).collect::<Vec<_>>() }));
    } else {
        println!("{}", page::terminal(&found));
    }
    let goals = ROWS.iter().filter(|row| !row.goals.is_empty()).count();
    let met = found.iter().filter(|found| found.is_met() == Some(true)).count();
    let fails = arguments.option("--check").is_some() && met < goals;
    Ok(if fails { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn compare(old: &str, new: &str, arguments: &Arguments) -> Outcome {
    let changes = compare::changes(&records(old)?, &records(new)?);
    let name = arguments.option("--name").unwrap_or("the other");
    if arguments.option("--json").is_some() {
        println!("{:#}", compare::to_json(&changes, name));
    } else {
        compare::print(&changes, name);
    }
    Ok(ExitCode::SUCCESS)
}

fn main() -> ExitCode {
    let arguments = Arguments::read();
    let plain: Vec<&str> = arguments.plain.iter().map(String::as_str).collect();
    let outcome = match plain[..] {
        ["page", folder] => write_page(folder, &arguments),
        ["compare", old, new] => compare(old, new, &arguments),
        _ => Err("report page RECORDS, or report compare OLD NEW".into()),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("report: {error}");
        ExitCode::FAILURE
    })
}
