//! The page.

use std::collections::HashMap;
use std::path::Path;

use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::Value;

use crate::map::{Cell, Map, Square, legend};
use crate::mutants;
use crate::records::{Record, duration, grouped, text};

/// Of one kind of record: its name on disk, what it is called, and what it counts.
struct Kind {
    name: &'static str,
    title: &'static str,
    count: fn(&Record) -> String,
}

const KINDS: [Kind; 16] = [
    Kind { name: "matrix", title: "race matrix", count: cells },
    Kind { name: "matrix-slow", title: "race matrix, slow cells without a bound", count: cells },
    Kind { name: "triples", title: "race matrix with a detach besides", count: cells },
    Kind { name: "triples-deep", title: "the same to bound 3", count: cells },
    Kind { name: "sequels", title: "race matrix after a detach", count: cells },
    Kind { name: "sequels-deep", title: "the same to bound 3", count: cells },
    Kind { name: "stopped", title: "a thread that stops", count: stops },
    Kind { name: "stopped-deep", title: "the same before loads too, with a preemption", count: stops },
    Kind { name: "races", title: "named races", count: races },
    Kind { name: "races-deep", title: "named races, one preemption more", count: races },
    Kind { name: "mutants", title: "mutants", count: |record| format!("{} mutants", record.list("mutants").len()) },
    Kind { name: "schedules", title: "schedules", count: schedules },
    Kind { name: "schedules-deep", title: "schedules, long", count: schedules },
    Kind { name: "stress-thread", title: "stress under ThreadSanitizer", count: stress },
    Kind { name: "stress-address", title: "stress under AddressSanitizer", count: stress },
    Kind { name: "stress-leak", title: "stress under LeakSanitizer", count: stress },
];

fn sum(record: &Record, list: &str, key: &str) -> u64 {
    record.list(list).iter().filter_map(|one| one[key].as_u64()).sum()
}

fn explored(record: &Record) -> usize {
    record.list("cells").iter().filter(|cell| cell["skipped"].is_null()).count()
}

fn cells(record: &Record) -> String {
    format!("{} cells, {} executions", grouped(explored(record) as u64), grouped(sum(record, "cells", "executions")))
}

fn stops(record: &Record) -> String {
    format!(
        "{} pairs of calls, {} stops, {} executions",
        grouped(explored(record) as u64),
        grouped(sum(record, "cells", "stops")),
        grouped(sum(record, "cells", "executions"))
    )
}

fn races(record: &Record) -> String {
    let passed = record.list("races").iter().filter(|race| race["executions"].is_u64()).count();
    format!("{passed} races, {} executions", grouped(sum(record, "races", "executions")))
}

fn schedules(record: &Record) -> String {
    let number = |key: &str| grouped(record.value[key].as_u64().unwrap_or_default());
    format!("{} seeds, {} executions, {} calls", number("seeds"), number("executions"), number("calls"))
}

fn stress(record: &Record) -> String {
    record.value["operations"].as_u64().map_or_else(String::new, |calls| format!("{} calls", grouped(calls)))
}

pub(crate) fn write(folder: &Path, page: &Path) -> Result<(), String> {
    let mut all = Vec::new();
    for kind in &KINDS {
        all.push((kind, Record::read(folder, kind.name)?));
    }
    let found = |name: &str| all.iter().find(|(kind, _)| kind.name == name).and_then(|(_, record)| record.as_ref());
    let whole = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "upager: what was verified" }
                style { (PreEscaped(include_str!("page.css"))) }
            }
            body {
                h1 { "upager: what was verified" }
                p { "The claim is that detach can race anything. This page is made by " code { "ci/verify report" }
                    " from the records of the programs that check it; verify/README.md says what each does, and docs/PROOF.md why it is enough." }
                (overview(&all))
                @if let Some(record) = found("matrix") {
                    (maps(record, "The race matrix", "Two threads, one call each, from each state of a page. A square is a pair; its colour is the number of executions that were explored, and each of them came to what the specification gives for some order of the calls."))
                }
                @if let Some(record) = found("triples-deep").or(found("triples")) {
                    (maps(record, "With a detach besides", "A third thread detaches the VMO at the same time."))
                }
                @if let Some(record) = found("stopped") { (stopped(record)) }
                @if let Some(record) = found("races") { (race_table(record)) }
                @if let Some(record) = found("mutants") {
                    h2 { "Mutants" }
                    (mutants::section(record))
                }
            }
        }
    };
    std::fs::write(page, whole.into_string()).map_err(|error| format!("{}: {error}", page.display()))
}

fn overview(all: &[(&Kind, Option<Record>)]) -> Markup {
    let mut machines: Vec<String> = all.iter().filter_map(|(_, record)| Some(record.as_ref()?.machine())).collect();
    machines.sort();
    machines.dedup();
    html! {
        table {
            thead { tr { th { "what" } th { "came to" } th { "explored" } th.number { "took" } th { "commit" } th { "ended" } } }
            tbody {
                @for (kind, record) in all {
                    @match record {
                        Some(record) => tr {
                            td { (kind.title) }
                            td { @if record.passed() { "passed" } @else { strong.failed { "failed" } } }
                            td { ((kind.count)(record)) }
                            td.number { (record.seconds().map_or_else(|| "-".to_string(), duration)) }
                            td { code { (record.commit()) } }
                            td { (record.ended()) }
                        },
                        None => tr.missing { td { (kind.title) } td colspan="5" { "not run" } },
                    }
                }
            }
        }
        @for machine in machines { p { "On " (machine) "." } }
    }
}

/// Each name once, in the order in which they come.
fn names<'a>(all: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in all {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_string());
        }
    }
    names
}

fn what_came(cell: &Value) -> (Square, String) {
    let bound = cell["bound"].as_u64().map_or_else(|| "no bound".to_string(), |bound| format!("bound {bound}"));
    if let Some(executions) = cell["executions"].as_u64() {
        (Square::Count(executions), format!("{} executions, {bound}", grouped(executions)))
    } else if let Some(reason) = cell["skipped"].as_str() {
        (Square::Skipped, format!("nothing to explore: {reason}"))
    } else {
        (Square::Failed, cell["failed"].as_str().unwrap_or("given up").to_string())
    }
}

/// The squares of one state: each pair twice, as it has no order.
fn squares(all: &[Value], start: &str, ops: &[String]) -> Vec<Cell> {
    let mut squares = Vec::new();
    for cell in all.iter().filter(|cell| text(cell, "start") == start) {
        let op = |side: usize| cell["ops"][side].as_str().unwrap_or_default();
        let at = |side| ops.iter().position(|name| name == op(side)).unwrap_or_default();
        let mut add = |row, column| {
            let (square, came) = what_came(cell);
            squares.push(Cell { row, column, square, says: format!("{start}: {} / {}\n{came}", op(0), op(1)) });
        };
        add(at(0), at(1));
        if at(0) != at(1) {
            add(at(1), at(0));
        }
    }
    squares
}

fn maps(record: &Record, title: &str, about: &str) -> Markup {
    let all = record.list("cells");
    let most = all.iter().filter_map(|cell| cell["executions"].as_u64()).max().unwrap_or(1);
    let ops = names(all.iter().filter_map(|cell| cell["ops"][0].as_str()));
    html! {
        h2 { (title) }
        p { (about) }
        (legend("Executions", most))
        div.maps {
            @for start in names(all.iter().map(|cell| text(cell, "start"))) {
                @let squares = squares(all, &start, &ops);
                (Map { title: &format!("from {start}"), rows: &ops, columns: &ops, cells: &squares, most }.draw())
            }
        }
    }
}

fn stopped(record: &Record) -> Markup {
    let all = record.list("cells");
    let rows = names(all.iter().map(|cell| text(cell, "stopped")));
    let columns = names(all.iter().map(|cell| text(cell, "other")));
    let mut pairs: HashMap<(&str, &str), Vec<&Value>> = HashMap::new();
    for cell in all {
        pairs.entry((text(cell, "stopped"), text(cell, "other"))).or_default().push(cell);
    }
    let at = |names: &[String], name: &str| names.iter().position(|known| known == name).unwrap_or_default();
    let square = |((stopped, other), cells): (&(&str, &str), &Vec<&Value>)| {
        let ran = cells.iter().filter(|cell| cell["stops"].is_u64()).count();
        let stops: u64 = cells.iter().filter_map(|cell| cell["stops"].as_u64()).sum();
        let reason = cells.iter().find_map(|cell| cell["skipped"].as_str()).unwrap_or_default();
        let (square, came) = match cells.iter().find_map(|cell| cell["failed"].as_str()) {
            Some(why) => (Square::Failed, why.to_string()),
            None if ran == 0 => (Square::Skipped, format!("nothing to explore: {reason}")),
            None => (Square::Count(stops), format!("stopped {} times, in {ran} states", grouped(stops))),
        };
        let says = format!("{other} beside a stopped {stopped}\n{came}");
        Cell { row: at(&rows, stopped), column: at(&columns, other), square, says }
    };
    let squares: Vec<Cell> = pairs.iter().map(square).collect();
    let most =
        squares.iter().filter_map(|cell| if let Square::Count(count) = cell.square { Some(count) } else { None });
    let most = most.max().unwrap_or(1);
    html! {
        h2 { "A thread that stops" }
        p { "The call of the row is stopped for ever before each of its changes to shared memory, and the call of the column must end meanwhile. All states together; the colour is the number of stops. A call that changes nothing (it only loads, or finds nothing to do) is never stopped." }
        (legend("Stops", most))
        div.maps { (Map { title: "rows: stopped; columns: must end", rows: &rows, columns: &columns, cells: &squares, most }.draw()) }
    }
}

fn race_table(record: &Record) -> Markup {
    let all: Vec<&Value> = record.list("races").iter().filter(|race| race["executions"].is_u64()).collect();
    let by = |name: &str, reclamation: &str| {
        all.iter().find(|race| text(race, "name") == name && text(race, "reclamation") == reclamation).copied()
    };
    html! {
        h2 { "The named races" }
        p { "Each has a file in verify/tests that tells its story. Reclamation is modelled, or the real crossbeam-epoch." }
        table {
            thead {
                tr { th { "race" } th.number { "bound" } th.number { "executions, modelled" } th.number { "s" }
                     th.number { "bound" } th.number { "executions, real epoch" } th.number { "s" } }
            }
            tbody {
                @for name in names(all.iter().map(|race| text(race, "name"))) {
                    tr {
                        td { (name) }
                        @for race in [by(&name, "modelled"), by(&name, "real epoch")] {
                            @match race {
                                Some(race) => {
                                    td.number { (race["bound"].as_u64().map_or_else(|| "none".to_string(), |bound| bound.to_string())) }
                                    td.number { (grouped(race["executions"].as_u64().unwrap_or_default())) }
                                    td.number { (format!("{:.1}", race["seconds"].as_f64().unwrap_or_default())) }
                                },
                                None => { td.number colspan="3" { "-" } },
                            }
                        }
                    }
                }
            }
        }
    }
}
