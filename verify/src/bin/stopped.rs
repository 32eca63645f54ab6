//! Explores every public call against every other, one of them stopped for ever at each of its steps.

#[cfg(not(all(loom, not(crossbeam_loom))))]
fn main() -> std::process::ExitCode {
    eprintln!("the models need `--cfg loom`: run ci/verify stopped");
    std::process::ExitCode::from(2)
}

#[cfg(all(loom, not(crossbeam_loom)))]
fn main() -> std::process::ExitCode {
    explore::main()
}

#[cfg(all(loom, not(crossbeam_loom)))]
mod explore {
    use std::collections::{BTreeMap, HashMap};
    use std::process::ExitCode;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::time::{Duration, Instant};

    use clap::{Parser, ValueEnum};
    use upager::sync::stopped::Steps;
    use upager_verify::cell::Start;
    use upager_verify::crew::{explore_all, said};
    use upager_verify::stopped::{Call, Stop};

    /// Explores every public call against every other, one of them stopped for ever before each of its
    /// steps. The other must end, and both must come to what they may.
    #[derive(Parser)]
    struct Args {
        /// Only those whose name contains this.
        #[arg(long, default_value = "")]
        filter: String,
        /// Calls that the race matrix does not have: from a few states only.
        #[arg(long)]
        short: bool,
        /// Before which steps to stop.
        #[arg(long, value_enum, default_value_t = Before::Changes)]
        before: Before,
        /// Preemptions besides the stop.
        #[arg(long, default_value_t = 0)]
        bound: usize,
        /// A file that names some, one a line: explore these only, in this order.
        #[arg(long)]
        models: Option<std::path::PathBuf>,
        /// Explore no more after one that fails.
        #[arg(long)]
        fail_fast: bool,
        /// Say which one comes next, for a run that may end at any moment.
        #[arg(long)]
        announce: bool,
        /// How many to explore at a time.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        /// Write the record of the run to this file, as JSON.
        #[arg(long)]
        json: Option<std::path::PathBuf>,
    }

    #[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
    enum Before {
        /// Stores and read-modify-writes.
        Changes,
        /// Loads too.
        All,
    }

    /// The states that `--short` begins with where a call is none of the matrix's.
    const FEW: [Start; 4] = [Start::RequestedUndelivered, Start::Evicting, Start::AwaitingClean, Start::TrapAsked];
    /// A call that takes more steps waits for somebody.
    const STEPS: usize = 5_000;

    enum Explored {
        Skipped(&'static str),
        Passed { stops: usize, executions: u64 },
        Failed(String),
    }

    impl Explored {
        /// Why it failed, if it did.
        fn failure(&self) -> Option<&str> {
            match self {
                Self::Failed(why) => Some(why),
                Self::Skipped(_) | Self::Passed { .. } => None,
            }
        }
    }

    pub(crate) fn main() -> ExitCode {
        let args = Args::parse();
        let chosen = |stop: &Stop| {
            let short = !args.short || stop.is_a_cell() || FEW.contains(&stop.start);
            short && stop.to_string().contains(&args.filter)
        };
        let mut all: Vec<Stop> = Stop::all().into_iter().filter(chosen).collect();
        if let Some(file) = &args.models {
            let named = match std::fs::read_to_string(file) {
                Ok(named) => named,
                Err(error) => {
                    eprintln!("cannot read {}: {error}", file.display());
                    return ExitCode::from(2);
                }
            };
            let by_name: HashMap<String, Stop> = all.into_iter().map(|stop| (stop.to_string(), stop)).collect();
            all = named.lines().filter_map(|name| by_name.get(name).copied()).collect();
        }
        let begun = Instant::now();
        std::panic::set_hook(Box::new(|_| {})); // a failure is printed once, with its name
        let one = |_, stop: &Stop| {
            if args.announce && stop.skipped().is_none() {
                eprintln!("exploring {stop}");
            }
            explore(*stop, &args)
        };
        let results = explore_all(all, args.jobs, args.fail_fast, one, Explored::failure);
        if let Some(file) = &args.json
            && let Err(error) = std::fs::write(file, json(&results, begun.elapsed(), &args).to_string())
        {
            eprintln!("cannot write {}: {error}", file.display());
            return ExitCode::from(2);
        }
        totals(&results, begun.elapsed())
    }

    fn explore(stop: Stop, args: &Args) -> Explored {
        if let Some(reason) = stop.skipped() {
            return Explored::Skipped(reason);
        }
        let steps = match args.before {
            Before::Changes => Steps::Changes,
            Before::All => Steps::All,
        };
        let executions = Arc::new(AtomicU64::new(0));
        let allowed = Arc::new(stop.allowed());
        for number in 0.. {
            let stopped = Arc::new(AtomicBool::new(false));
            let (counter, allowed, has_stopped) = (executions.clone(), allowed.clone(), stopped.clone());
            let ran = std::panic::catch_unwind(move || {
                let mut model = loom::model::Builder::new();
                model.preemption_bound = Some(args.bound);
                model.max_branches = STEPS;
                model.check(move || {
                    counter.fetch_add(1, Ordering::Relaxed);
                    has_stopped.fetch_or(stop.run((number, steps), &allowed), Ordering::Relaxed);
                });
            });
            if let Err(panic) = ran {
                return Explored::Failed(format!("before step {number}: {}", said(&*panic)));
            }
            if !stopped.load(Ordering::Relaxed) {
                return Explored::Passed { stops: number, executions: load(&executions) };
            }
        }
        unreachable!("a call ends")
    }

    fn load(count: &AtomicU64) -> u64 {
        count.load(Ordering::Relaxed)
    }

    fn json(results: &[(Stop, Explored)], elapsed: Duration, args: &Args) -> serde_json::Value {
        let one = |(stop, explored): &(Stop, Explored)| {
            let mut value = serde_json::json!({
                "start": format!("{:?}", stop.start),
                "stopped": stop.stopped.to_string(),
                "other": stop.other.to_string(),
            });
            match explored {
                Explored::Skipped(reason) => value["skipped"] = (*reason).into(),
                Explored::Failed(why) => value["failed"] = why.as_str().into(),
                Explored::Passed { stops, executions } => {
                    value["stops"] = (*stops).into();
                    value["executions"] = (*executions).into();
                }
            }
            value
        };
        serde_json::json!({
            "elapsed_s": elapsed.as_secs_f64(), "bound": args.bound, "before": format!("{:?}", args.before),
            "short": args.short, "cells": results.iter().map(one).collect::<Vec<_>>(),
        })
    }

    fn totals(results: &[(Stop, Explored)], elapsed: Duration) -> ExitCode {
        let (mut passed, mut failed, mut skipped, mut unchanging, mut stops, mut executions) = (0, 0, 0, 0, 0, 0);
        let mut most: BTreeMap<String, usize> = BTreeMap::new();
        for (stop, explored) in results {
            match explored {
                Explored::Skipped(_) => skipped += 1,
                Explored::Failed(_) => failed += 1,
                Explored::Passed { stops: now, executions: made } => {
                    passed += 1;
                    unchanging += usize::from(*now == 0);
                    stops += now;
                    executions += made;
                    let most = most.entry(stop.stopped.to_string()).or_default();
                    *most = (*most).max(*now);
                }
            }
        }
        println!("the most places at which each call was stopped");
        for (call, most) in &most {
            println!("{call:>17} {most}");
        }
        let missing: Vec<String> =
            Call::all().map(|call| call.to_string()).filter(|call| !most.contains_key(call)).collect();
        if !missing.is_empty() {
            println!("not stopped: {}", missing.join(", "));
        }
        println!("\n{stops} stops, {executions} executions in {:.0} s", elapsed.as_secs_f64());
        println!("{passed} passed, {failed} failed, {skipped} skipped");
        println!("in {unchanging} of those that passed the call changes nothing, and was not stopped");
        ExitCode::from(u8::from(failed > 0 || passed == 0))
    }
}
