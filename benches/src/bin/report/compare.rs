//! Two revisions, run in turn: what changed beyond noise.
//!
//! A change counts if every round of the one is beyond every round of the other, and if the medians
//! differ by more than both spreads together, and by more than 2 %.

use serde_json::{Value, json};

use crate::page::{percent, three_digits};
use crate::records::Records;

/// What counts as no change, whatever the spread.
const LEAST: f64 = 0.02;

#[derive(Debug)]
pub(crate) struct Change {
    group: String,
    function: String,
    old: f64,
    new: f64,
    noise: f64,
    /// Whether some round of the one was within those of the other.
    overlap: bool,
}

impl Change {
    fn by(&self) -> f64 {
        self.new / self.old - 1.0
    }

    fn is_beyond_noise(&self) -> bool {
        !self.overlap && self.by().abs() > self.noise.max(LEAST)
    }

    fn verdict(&self) -> &'static str {
        match self.by() {
            _ if !self.is_beyond_noise() => "",
            by if by > 0.0 => "slower",
            _ => "faster",
        }
    }
}

/// Every function of ours that both have measured.
pub(crate) fn changes(old: &Records, new: &Records) -> Vec<Change> {
    let mut changes = Vec::new();
    for group in new.groups() {
        for function in new.functions(group).filter(|function| function.starts_with("upager")) {
            if let (Some(before), Some(after)) = (old.figure(group, function), new.figure(group, function)) {
                changes.push(Change {
                    group: group.to_owned(),
                    function: function.to_owned(),
                    old: before.median,
                    new: after.median,
                    noise: before.spread() + after.spread(),
                    overlap: before.least <= after.most && after.least <= before.most,
                });
            }
        }
    }
    changes
}

pub(crate) fn print(changes: &[Change], old: &str) {
    println!("{:26} {:15} {:>9} {:>9} {:>8} {:>8}", "ns", "", "then", "now", "change", "noise");
    for change in changes {
        let Change { group, function, old, new, noise, .. } = change;
        let (by, noise, verdict) = (percent(change.by()), percent(*noise), change.verdict());
        let (old, new) = (three_digits(*old), three_digits(*new));
        println!("{group:26} {function:15} {old:>9} {new:>9} {by:>8} {noise:>8} {verdict}");
    }
    let count = |verdict| changes.iter().filter(|change| change.verdict() == verdict).count();
    let (faster, slower) = (count("faster"), count("slower"));
    println!("\nagainst {old}: {faster} faster, {slower} slower, {} the same or within noise", count(""));
}

pub(crate) fn to_json(changes: &[Change], old: &str) -> Value {
    let change = |change: &Change| {
        json!({
            "group": change.group, "function": change.function, "then_ns": change.old, "now_ns": change.new,
            "change": change.by(), "noise": change.noise, "verdict": change.verdict(),
        })
    };
    json!({ "against": old, "changes": changes.iter().map(change).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_within_the_spread_is_none() {
        let change = |new, noise, overlap| {
            let (group, function) = (String::new(), String::new());
            Change { group, function, old: 100.0, new, noise, overlap }
        };
        assert_eq!(change(120.0, 0.25, false).verdict(), "");
        assert_eq!(change(120.0, 0.15, false).verdict(), "slower");
        assert_eq!(change(120.0, 0.15, true).verdict(), "");
        assert_eq!(change(80.0, 0.15, false).verdict(), "faster");
        assert_eq!(change(101.0, 0.0, false).verdict(), "");
    }
}
