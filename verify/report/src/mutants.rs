//! The table of mutants: what was made, and who noticed.

use std::collections::BTreeMap;

use maud::{Markup, html};
use serde_json::Value;

use crate::records::{Record, grouped, text};

/// What a mutant came to, in the order of the columns.
const OUTCOMES: [&str; 6] = ["killed", "accepted", "not compiled", "survived", "timed out", "open"];

fn outcome(mutant: &Value) -> &'static str {
    let accepted = mutant["accepted"].as_bool().unwrap_or(false);
    match text(mutant, "outcome") {
        "killed" => OUTCOMES[0],
        "survived" | "timed out" | "open" if accepted => OUTCOMES[1],
        "not compiled" => OUTCOMES[2],
        "survived" => OUTCOMES[3],
        "timed out" => OUTCOMES[4],
        _ => OUTCOMES[5],
    }
}

pub(crate) fn section(record: &Record) -> Markup {
    let mutants = record.list("mutants");
    let mut files: BTreeMap<&str, [u64; 6]> = BTreeMap::new();
    let mut totals = [0; 6];
    let mut killers: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for mutant in mutants {
        let column = OUTCOMES.iter().position(|name| *name == outcome(mutant)).unwrap_or_default();
        files.entry(text(mutant, "file")).or_default()[column] += 1;
        totals[column] += 1;
        if outcome(mutant) == "killed" {
            killers.entry(text(mutant, "by")).or_default().push(mutant);
        }
    }
    let mut killers: Vec<(&str, Vec<&Value>)> = killers.into_iter().collect();
    killers.sort_by_key(|(name, killed)| (usize::MAX - killed.len(), *name));
    let open: Vec<&Value> = mutants.iter().filter(|mutant| OUTCOMES[3..].contains(&outcome(mutant))).collect();
    html! {
        p { (grouped(mutants.len() as u64)) " mutants. An accepted one is no mistake: verify/EQUIVALENT.md has the argument." }
        table {
            thead { tr { th { "file" } @for name in OUTCOMES { th.number { (name) } } } }
            tbody {
                @for (file, counts) in &files {
                    tr { td { code { (file) } } @for count in counts { td.number { @if *count > 0 { (count) } } } }
                }
                tr.total { td { "all" } @for count in totals { td.number { (count) } } }
            }
        }
        h3 { "What nobody noticed" }
        @if open.is_empty() { p { "Nothing." } } @else { (listed(&open, true)) }
        (models(record))
        h3 { "Who noticed what" }
        @for (name, killed) in &killers {
            details {
                summary { span.count { (killed.len()) } " " (name) }
                (listed(killed, false))
            }
        }
    }
}

/// Whether each model notices something.
fn models(record: &Record) -> Markup {
    let mut kinds: BTreeMap<&str, [u64; 2]> = BTreeMap::new();
    let mut silent = Vec::new();
    for model in record.list("models_that_notice") {
        let name = text(model, "model");
        let counts = kinds.entry(name.split_once(' ').map_or(name, |(kind, _)| kind)).or_default();
        counts[1] += 1;
        if model["notices"].is_string() { counts[0] += 1 } else { silent.push(name) }
    }
    html! {
        h3 { "Does each model notice something" }
        p { "Each was shown mistakes that spoil no set-up, until it noticed one." }
        ul {
            @for (kind, [some, all]) in &kinds { li { (grouped(*some)) " of " (grouped(*all)) " " (kind) "s do" } }
        }
        @if !silent.is_empty() {
            details {
                summary { span.count { (silent.len()) } " do not" }
                ul { @for name in &silent { li { (name) } } }
            }
        }
    }
}

fn listed(mutants: &[&Value], with_outcome: bool) -> Markup {
    html! {
        ul.mutants {
            @for mutant in mutants {
                li {
                    code { (text(mutant, "id")) }
                    @if with_outcome { " " (outcome(mutant)) }
                    @if let Some(why) = mutant["why"].as_str() { span.why { " " (why.chars().take(120).collect::<String>()) } }
                    pre { "- " (text(mutant, "before")) "\n+ " (text(mutant, "after")) }
                }
            }
        }
    }
}
