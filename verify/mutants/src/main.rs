//! Makes mistakes in the core, one at a time, and shows each to the models.
//!
//! A model that cannot fail proves nothing, and neither does an ordering that no model needs. So: every
//! atomic order is weakened, every compare-and-swap divided, every fence, seal, mark, re-check, pin and
//! `defer` left out or exchanged with its neighbour, every tag in a transition of the page word replaced, every public call that
//! can fail refused.
//! What no model notices is a hole in the models, or needless in the core, or no mistake;
//! verify/EQUIVALENT.md lists the last kind with its arguments, and the run fails on the others.
//!
//! The record of each mutant is kept, so a run that was stopped goes on where it was.

mod equivalent;
mod failure;
mod hash;
mod make;
mod model;
mod models;
mod record;
mod run;
mod source;
mod together;
mod tree;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use serde_json::json;

use failure::Failure;
use make::Mutant;
use model::Model;
use record::{Outcome, Record, Run, Versions};
use tree::Tree;

/// Makes mistakes in the core, one at a time, and checks that a model notices.
#[derive(Parser)]
#[allow(clippy::struct_excessive_bools)] // the switches of a command
struct Args {
    /// Only list the mutants.
    #[arg(long)]
    list: bool,
    /// Only mutants whose name contains this. Several: any of them.
    #[arg(long)]
    filter: Vec<String>,
    /// Only one in so many, spread over all.
    #[arg(long, default_value_t = 1)]
    sample: u64,
    /// Show what the mutant does: its line, before and after.
    #[arg(long)]
    show: bool,
    /// Run mutants that are on record again: those that survived or timed out, or all.
    #[arg(long, value_enum, default_value_t = Again::None)]
    again: Again,
    /// Show each only to the models that are likely to notice it, to the first round of the others and to the tests:
    /// what they do not notice is open, and a run without this goes on with it.
    #[arg(long)]
    quick: bool,
    /// Instead show each model the mistakes that some model has noticed, until it notices one. Those that spoil its mere set-up do
    /// not count.
    #[arg(long)]
    models: bool,
    /// Run none: report what is on record.
    #[arg(long)]
    recorded: bool,
    /// Write what has noticed each mutant to verify/noticed.tsv: a run without a record tries that first.
    #[arg(long, conflicts_with_all = ["filter", "sample"])]
    keep: bool,
    /// How many to build and run at a time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Write the results to this file, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Again {
    None,
    Survivors,
    All,
}

fn main() -> ExitCode {
    match mutants(&Args::parse()) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(2)
        }
    }
}

fn mutants(args: &Args) -> Result<ExitCode, Failure> {
    let workspace = std::env::current_dir().map_err(|error| Failure::file(Path::new("."), &error))?;
    if !workspace.join("core/src/lib.rs").exists() {
        return Err(Failure::new("run this at the root of the workspace".to_string()));
    }
    let sources = source::read(&workspace.join("core"))?;
    let mut all = Vec::new();
    let figures = make::figures(&sources)?;
    for source in &sources {
        all.extend(make::mutants(source, &figures)?);
    }
    let accepted = equivalent::read(&workspace.join("verify/EQUIVALENT.md"))?;
    let chosen: Vec<&Mutant> = all.iter().filter(|mutant| args.chooses(mutant)).collect();
    if args.list {
        list(&chosen, args.show);
        return Ok(ExitCode::SUCCESS);
    }
    let home = target(&workspace).join("verify/mutants");
    std::fs::create_dir_all(&home).map_err(|error| Failure::file(&home, &error))?;
    let versions = Versions {
        core: hash::of(&workspace, &["core/src", "core/Cargo.toml", "Cargo.lock"], false)?,
        models: hash::of(&workspace, &["verify/src", "verify/tests", "tests/tests", "core/src"], true)?,
        calls: hash::of(&workspace, &["verify/src"], false)?,
    };
    let noticed = workspace.join("verify/noticed.tsv");
    let record = Record::open(&home.join("record.jsonl"), &noticed, versions.clone())?;
    let begun = Instant::now();
    let mut left: Vec<(&Mutant, bool)> = chosen
        .iter()
        .filter(|mutant| !record.known(&mutant.id).is_some_and(|run| args.believes(&run)))
        .map(|mutant| (*mutant, accepted.contains(&mutant.id)))
        .collect();
    left.sort_by_key(|(_, accepted)| *accepted); // of these nothing new is expected
    eprintln!("{} mutants, {} of them on record", chosen.len(), chosen.len() - left.len());
    if args.recorded {
        left.clear();
    }
    if args.models {
        let noticed =
            |mutant: &&Mutant| matches!(record.known(&mutant.id), Some(Run { outcome: Outcome::Killed(_), .. }));
        left = chosen.iter().copied().filter(noticed).map(|mutant| (mutant, false)).collect();
    }
    let plan = home.join("plan.json");
    if !left.is_empty() {
        let trees = trees(&workspace, &home, args.jobs)?;
        let plan = run::Plan::new(&trees[0], &plan, &versions, args.jobs)?;
        eprintln!("{}", plan.describe());
        let work = run::Work { sources: &sources, plan: &plan, record: &record, mutants: &left, quick: args.quick };
        if args.models { models::each(&work, &trees)? } else { work.all(&trees)? }
    }
    let models = run::Plan::recorded(&plan, &versions).map(|plan| plan.models()).unwrap_or_default();
    let models = models.into_keys().map(|model| (record.noticed_by(&model), model)).collect();
    let runs: Vec<(&Mutant, Run)> =
        chosen.iter().filter_map(|mutant| Some((*mutant, record.known(&mutant.id)?))).collect();
    let seconds = begun.elapsed().as_secs_f64();
    let report = Report {
        runs: &runs,
        accepted: &accepted,
        models,
        chosen: chosen.len(),
        fresh: left.len(),
        is_of_models: args.models,
        seconds,
        versions,
    };
    if let Some(file) = &args.json {
        std::fs::write(file, report.json().to_string()).map_err(|error| Failure::file(file, &error))?;
    }
    if args.keep {
        std::fs::write(&noticed, record.noticed(&all)).map_err(|error| Failure::file(&noticed, &error))?;
    }
    // An entry of the list that is no mutant any more is only told from a run of all.
    let is_whole = chosen.len() == all.len();
    let names: HashSet<&str> = all.iter().map(|mutant| mutant.id.as_str()).collect();
    let stale: Vec<&String> = accepted.iter().filter(|id| is_whole && !names.contains(id.as_str())).collect();
    Ok(report.print(&stale))
}

/// What builds and models have taken, in seconds; 0 where the system does not say.
fn processor_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    // Fields 16 and 17, user and system time of children that have ended; the name is field 2.
    let ticks = after_name.split_whitespace().skip(13).take(2).filter_map(|field| field.parse::<f64>().ok());
    ticks.sum::<f64>() / 100.0
}

/// As cargo has it.
fn target(workspace: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from)
}

/// A tree for each job, built without a mistake.
fn trees(workspace: &Path, home: &Path, jobs: usize) -> Result<Vec<Tree>, Failure> {
    eprintln!("building the models without a mistake");
    let mut trees: Vec<Tree> = Vec::new();
    for number in 0..jobs.max(1) {
        let tree = Tree::new(workspace, home, number)?;
        if let Some(first) = trees.first() {
            tree.reuse(first)?;
        }
        if !tree.build()? {
            return Err(Failure::new(format!("the models do not build:\n{}", tree.build_log())));
        }
        trees.push(tree);
    }
    Ok(trees)
}

fn list(mutants: &[&Mutant], show: bool) {
    for mutant in mutants {
        println!("{}", mutant.id);
        if show {
            println!("  line {}\n  - {}\n  + {}", mutant.line, mutant.before, mutant.after);
        }
    }
    eprintln!("{} mutants", mutants.len());
}

impl Args {
    fn chooses(&self, mutant: &Mutant) -> bool {
        let named = self.filter.is_empty() || self.filter.iter().any(|part| mutant.id.contains(part));
        named && run::scattered(&mutant.id).is_multiple_of(self.sample.max(1))
    }

    /// Whether a run on record need not be repeated.
    fn believes(&self, run: &Run) -> bool {
        if matches!(run.outcome, Outcome::Open) && !self.quick && !self.recorded {
            return false;
        }
        match self.again {
            Again::None => true,
            Again::Survivors => matches!(run.outcome, Outcome::Killed(_) | Outcome::NotCompiled),
            Again::All => false,
        }
    }
}

/// What a run came to.
struct Report<'a> {
    runs: &'a [(&'a Mutant, Run)],
    accepted: &'a HashSet<String>,
    /// Each model, with a mistake that it has noticed.
    models: Vec<(Option<String>, Model)>,
    /// How many there are, run or not.
    chosen: usize,
    /// How many were run.
    fresh: usize,
    /// The run was for the models' sake: then one that notices nothing is wrong.
    is_of_models: bool,
    seconds: f64,
    versions: Versions,
}

impl Report<'_> {
    fn json(&self) -> serde_json::Value {
        let mutants = self.runs.iter().map(|(mutant, run)| {
            let mut value = run.json(mutant);
            value["accepted"] = self.accepted.contains(&mutant.id).into();
            value
        });
        let models = self.models.iter().map(|(notices, model)| json!({"model": model.to_string(), "notices": notices}));
        json!({
            "models_that_notice": models.collect::<Vec<_>>(),
            "core": self.versions.core, "models": self.versions.models, "elapsed_s": self.seconds,
            "fresh": self.fresh, "processor_s": processor_time(),
            "mutants": mutants.collect::<Vec<_>>(),
        })
    }

    /// Says who survived, and counts. The run fails if a survivor is not accepted, or an accepted mutant
    /// is none.
    fn print(&self, stale: &[&String]) -> ExitCode {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        let mut of_file: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
        let mut wrong = 0;
        for (mutant, run) in self.runs {
            let accepted = self.accepted.contains(&mutant.id);
            let name = match (&run.outcome, accepted) {
                (Outcome::Survived | Outcome::TimedOut(_) | Outcome::Open, true) => "accepted",
                (outcome, _) => outcome.name(),
            };
            *counts.entry(name).or_default() += 1;
            *of_file.entry(&mutant.file).or_default().entry(name).or_default() += 1;
            let complaint = match (&run.outcome, accepted) {
                (Outcome::Survived, false) => "survived".to_string(),
                (Outcome::Open, false) => "not noticed by the first round".to_string(),
                (Outcome::TimedOut(model), false) => format!("timed out in {model}"),
                (Outcome::Killed(kill), true) => format!("accepted, but killed by {}", kill.by),
                _ => continue,
            };
            wrong += 1;
            println!("{}, line {}: {complaint}", mutant.id, mutant.line);
            println!("  - {}\n  + {}", mutant.before, mutant.after);
        }
        for id in stale {
            println!("{id}: accepted, but there is no such mutant");
        }
        wrong += stale.len();
        let said = |counts: &BTreeMap<&str, usize>| {
            counts.iter().map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
        };
        for (file, counts) in &of_file {
            println!("{file:>20}: {}", said(counts));
        }
        println!("{} mutants: {}", self.runs.len(), said(&counts));
        let left = self.chosen - self.runs.len();
        if left > 0 {
            println!("{left} have not been run on this version");
        }
        let mut notice: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for (noticed, model) in &self.models {
            let (some, all) = notice.entry(model.kind()).or_default();
            *some += usize::from(noticed.is_some());
            *all += 1;
            if noticed.is_none() && self.is_of_models {
                println!("{model}: notices nothing");
                wrong += 1;
            }
        }
        for (kind, (some, all)) in notice {
            println!("{some} of {all} {kind} are known to notice one");
        }
        println!(
            "{} of them run now, in {:.0} s, {:.0} s of processor time",
            self.fresh,
            self.seconds,
            processor_time()
        );
        ExitCode::from(u8::from(wrong > 0 || left > 0 || self.runs.is_empty()))
    }
}
