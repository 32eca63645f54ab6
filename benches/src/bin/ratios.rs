//! Compares what the benchmarks found: one line a goal, ours against the floor or the peer that the
//! goal names, from the medians of one run.
//!
//! `cargo bench -p upager-benches`, then `cargo run -p upager-benches --bin ratios`. With `--check`
//! it fails if a goal is missed, or was not measured.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::Value;

/// What a ratio must be.
enum Limit {
    /// Ours costs at most this many times the floor.
    AtMost(f64),
    /// The peer costs at least this many times ours.
    AtLeast(f64),
}
use Limit::{AtLeast, AtMost};

struct Goal {
    group: &'static str,
    ours: &'static str,
    other: &'static str,
    limit: Limit,
}

const fn goal(group: &'static str, ours: &'static str, other: &'static str, limit: Limit) -> Goal {
    Goal { group, ours, other, limit }
}

const GOALS: [Goal; 4] = [
    goal("resident/random", "pinned", "flat", AtMost(2.0)),
    goal("resident/random", "own_pin", "flat", AtMost(4.0)),
    goal("resident/random", "pinned", "dashmap", AtLeast(5.0)),
    goal("missing/scattered", "upager", "dashmap_channel_condvar", AtLeast(2.5)),
];

/// Nanoseconds an element, by group and function.
type Medians = BTreeMap<(String, String), f64>;

/// Where criterion puts its results.
fn results() -> PathBuf {
    let target = || std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let workspace = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let criterion = || target().unwrap_or_else(workspace).join("criterion");
    std::env::var_os("CRITERION_HOME").map_or_else(criterion, PathBuf::from)
}

/// Adds the results found in a folder `new`, and in all folders below any other.
fn collect(folder: &Path, medians: &mut Medians) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten().map(|entry| entry.path()).filter(|entry| entry.is_dir()) {
        if entry.ends_with("new") {
            medians.extend(read(&entry));
        } else {
            collect(&entry, medians);
        }
    }
}

fn read(folder: &Path) -> Option<((String, String), f64)> {
    let json = |name| serde_json::from_str::<Value>(&fs::read_to_string(folder.join(name)).ok()?).ok();
    let (about, estimates) = (json("benchmark.json")?, json("estimates.json")?);
    let name = |key: &str| about[key].as_str().map(str::to_owned);
    let elements = about["throughput"]["Elements"].as_f64()?;
    let median = estimates["median"]["point_estimate"].as_f64()?;
    Some(((name("group_id")?, name("function_id")?), median / elements))
}

impl Goal {
    fn median(&self, function: &str, medians: &Medians) -> Option<f64> {
        medians.get(&(self.group.to_owned(), function.to_owned())).copied()
    }

    /// Prints the goal's line. False: it is missed.
    fn report(&self, medians: &Medians) -> bool {
        let Self { group, ours, other, .. } = self;
        let (Some(our_ns), Some(other_ns)) = (self.median(ours, medians), self.median(other, medians)) else {
            println!("{group}: {ours} against {other} was not measured");
            return false;
        };
        let (ratio, goal, reached) = match self.limit {
            AtMost(limit) => (our_ns / other_ns, format!("at most {limit}"), our_ns <= limit * other_ns),
            AtLeast(limit) => (other_ns / our_ns, format!("at least {limit}"), other_ns >= limit * our_ns),
        };
        let verdict = if reached { "reached" } else { "missed" };
        println!("{group:18} {ours:8} {our_ns:7.2} {other:16} {other_ns:7.2} {ratio:7.2}  {goal:14} {verdict}");
        reached
    }
}

fn main() -> ExitCode {
    let check = std::env::args().any(|argument| argument == "--check");
    let mut medians = Medians::new();
    collect(&results(), &mut medians);
    println!("Each result, ns an element");
    for ((group, function), ns) in &medians {
        println!("{group:18} {function:24} {ns:7.2}");
    }
    println!("\n{:18} {:8} {:>7} {:16} {:>7} {:>7}  goal", "group", "ours", "ns", "other", "ns", "ratio");
    let missed = GOALS.iter().filter(|goal| !goal.report(&medians)).count();
    if check && missed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
