//! Explores the race matrix, and prints it.
//!
//! Each cell is explored without a preemption bound. One that takes longer than `--seconds`, or more
//! executions than `--executions`, is explored again with the bound of `--bound`, and the report says so.

#[cfg(not(loom))]
fn main() -> std::process::ExitCode {
    eprintln!("the models need `--cfg loom`: run ci/full, or see verify/README.md");
    std::process::ExitCode::from(2)
}

#[cfg(loom)]
fn main() -> std::process::ExitCode {
    explore::main()
}

#[cfg(loom)]
#[allow(clippy::trivially_copy_pass_by_ref)] // as in the library
mod explore {
    use std::collections::{BTreeMap, HashMap, HashSet};
    use std::process::ExitCode;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::{Duration, Instant};

    use clap::Parser;
    use upager_verify::cell::{Cell, Op, Start};
    use upager_verify::crew::{explore_all, said};
    use upager_verify::race::stop_after;

    /// Explores every pair of operations from every state of a page, or every pair and a detach, or every
    /// operation beside a detach and what comes after it, and holds each execution to the specification.
    #[derive(Parser)]
    #[allow(clippy::struct_excessive_bools)] // the switches of a command
    struct Args {
        /// Three operations in each cell: every pair, and a detach.
        #[arg(long)]
        triples: bool,
        /// Two threads in each cell: an operation, and a detach with an operation after it.
        #[arg(long, conflicts_with = "triples")]
        sequels: bool,
        /// Only cells whose name contains this.
        #[arg(long, default_value = "")]
        filter: String,
        /// How long a cell may take without a bound. 0: as long as it takes.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// How many executions a cell may have without a bound. 0: as many as it has.
        #[arg(long, default_value_t = 0)]
        executions: usize,
        /// The preemption bound of the cells that take longer.
        #[arg(long, default_value_t = 4)]
        bound: usize,
        /// A file that names cells, one a line, which are known to take longer: they are explored
        /// with the bound of `--bound` at once.
        #[arg(long)]
        slow: Option<std::path::PathBuf>,
        /// Explore only the cells that `--slow` names, without a bound.
        #[arg(long, requires = "slow")]
        only_slow: bool,
        /// Explore every cell with this bound at once, but for those that `--slow` names.
        #[arg(long)]
        only_bound: Option<usize>,
        /// A file that names cells, one a line: explore these only, in this order.
        #[arg(long)]
        cells: Option<std::path::PathBuf>,
        /// Explore no more cells after one that fails.
        #[arg(long)]
        fail_fast: bool,
        /// Give a cell with a bound up after so many executions, and say so. It counts as neither passed
        /// nor failed.
        #[arg(long)]
        give_up: Option<usize>,
        /// Say which cell comes next, for a run that may end at any moment.
        #[arg(long)]
        announce: bool,
        /// How many cells to explore at a time.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        /// Write the record of the run to this file, as JSON.
        #[arg(long)]
        json: Option<std::path::PathBuf>,
    }

    enum Explored {
        Skipped(&'static str),
        Passed { executions: u64, bound: Option<usize>, seconds: f64 },
        GaveUp { executions: u64, bound: Option<usize> },
        Failed(String),
    }

    impl Explored {
        /// Why it failed, if it did.
        fn failure(&self) -> Option<&str> {
            match self {
                Self::Failed(why) => Some(why),
                Self::Skipped(_) | Self::Passed { .. } | Self::GaveUp { .. } => None,
            }
        }
    }

    pub(crate) fn main() -> ExitCode {
        let args = Args::parse();
        let (cells, what) = match (args.triples, args.sequels) {
            (true, _) => (Cell::triples(Op::Detach), ", with a detach besides"),
            (_, true) => (Cell::sequels(Op::Detach), ", beside a detach and then what the column says"),
            _ => (Cell::pairs(), ""),
        };
        let mut cells: Vec<Cell> = cells.into_iter().filter(|cell| cell.to_string().contains(&args.filter)).collect();
        let read = |file: &Option<std::path::PathBuf>| file.as_ref().map(std::fs::read_to_string).transpose();
        let (slow, named) = match (read(&args.slow), read(&args.cells)) {
            (Ok(slow), Ok(named)) => (slow.unwrap_or_default(), named),
            (Err(error), _) | (_, Err(error)) => {
                eprintln!("cannot read a list of cells: {error}");
                return ExitCode::from(2);
            }
        };
        if let Some(named) = named {
            let by_name: HashMap<String, Cell> = cells.into_iter().map(|cell| (cell.to_string(), cell)).collect();
            cells = named.lines().filter_map(|name| by_name.get(name).copied()).collect();
        }
        let slow: HashSet<&str> = slow.lines().collect();
        let is_slow = |cell: &Cell| slow.contains(cell.to_string().as_str());
        cells.retain(|cell| !args.only_slow || is_slow(cell));
        let begun = Instant::now();
        let all = cells.len();
        let one = |at, cell: &Cell| {
            if args.announce && cell.skipped().is_none() {
                eprintln!("exploring {cell}");
            }
            let bound = if is_slow(cell) && !args.only_slow { Some(args.bound) } else { args.only_bound };
            let explored = explore(cell, &args, bound);
            if let Explored::Passed { seconds, .. } = &explored
                && *seconds > 10.0
            {
                eprintln!("{at}/{all}: {cell} took {seconds:.0} s");
            }
            explored
        };
        std::panic::set_hook(Box::new(|_| {})); // a failure is printed once, with its name
        let results = explore_all(cells, args.jobs, args.fail_fast, one, Explored::failure);
        print(&results, what);
        if let Some(file) = &args.json
            && let Err(error) = std::fs::write(file, json(&results, begun.elapsed()))
        {
            eprintln!("cannot write {}: {error}", file.display());
            return ExitCode::from(2);
        }
        totals(&results, begun.elapsed())
    }

    /// `bound`: the one to explore with at once.
    fn explore(cell: &Cell, args: &Args, bound: Option<usize>) -> Explored {
        if let Some(reason) = cell.skipped() {
            return Explored::Skipped(reason);
        }
        let bounded_check = |bound| match check(cell, Some(bound), Limit { executions: args.give_up, time: None }) {
            Err(Explored::Passed { executions, bound, .. }) => Explored::GaveUp { executions, bound },
            Ok(explored) | Err(explored) => explored,
        };
        if let Some(bound) = bound {
            return bounded_check(bound);
        }
        let limit = Limit {
            executions: (args.executions > 0).then_some(args.executions),
            time: (args.seconds > 0).then(|| Duration::from_secs(args.seconds)),
        };
        match check(cell, None, limit) {
            Err(Explored::Passed { .. }) => bounded_check(args.bound),
            Ok(explored) | Err(explored) => explored,
        }
    }

    /// When to stop, if ever.
    #[derive(Clone, Copy)]
    struct Limit {
        executions: Option<usize>,
        time: Option<Duration>,
    }

    /// Explores a cell. `Err` with `Passed`: the limit came first.
    fn check(cell: &Cell, bound: Option<usize>, limit: Limit) -> Result<Explored, Explored> {
        let executions = Arc::new(AtomicU64::new(0));
        let (cell, counter) = (*cell, executions.clone());
        let begun = Instant::now();
        let ran = std::panic::catch_unwind(move || {
            let allowed = cell.allowed();
            let mut model = loom::model::Builder::new();
            model.preemption_bound = bound;
            model.max_branches = 100_000;
            model.max_duration = limit.time;
            model.checkpoint_interval = 500; // how often it looks at the time
            stop_after(&mut model, limit.executions);
            model.check(move || {
                counter.fetch_add(1, Ordering::Relaxed);
                cell.run(&allowed);
            });
        });
        let executions = executions.load(Ordering::Relaxed);
        if let Err(panic) = ran {
            return Err(Explored::Failed(format!("in execution {executions}: {}", said(&*panic))));
        }
        let seconds = begun.elapsed().as_secs_f64();
        let passed = Explored::Passed { executions, bound, seconds };
        let over = limit.time.is_some_and(|time| begun.elapsed() >= time)
            || limit.executions.is_some_and(|limit| executions >= limit as u64);
        if over { Err(passed) } else { Ok(passed) }
    }

    fn print(results: &[(Cell, Explored)], what: &str) {
        println!(
            "Executions of each cell. 'b4': explored to preemption bound 4, without a bound otherwise. '-': skipped."
        );
        for start in Start::ALL {
            let of_start: Vec<_> = results.iter().filter(|(cell, _)| cell.start == start).collect();
            if of_start.iter().all(|(_, explored)| matches!(explored, Explored::Skipped(_))) {
                continue;
            }
            println!("\nfrom {start:?}{what}");
            print!("{:>15}", "");
            for op in Op::ALL {
                print!(" {:>15}", format!("{op:?}"));
            }
            println!();
            for a in Op::ALL {
                print!("{:>15}", format!("{a:?}"));
                for b in Op::ALL {
                    let found = of_start.iter().find(|(cell, _)| cell.is_of(a, b));
                    let text = match found {
                        None => String::new(),
                        Some((_, Explored::Skipped(_))) => "-".to_string(),
                        Some((_, Explored::Failed(_))) => "FAILED".to_string(),
                        Some((_, Explored::GaveUp { .. })) => "gave up".to_string(),
                        Some((_, Explored::Passed { executions, bound, .. })) => match bound {
                            None => executions.to_string(),
                            Some(bound) => format!("{executions} b{bound}"),
                        },
                    };
                    print!(" {text:>15}");
                }
                println!();
            }
        }
        let mut reasons: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (cell, explored) in results {
            if let Explored::Skipped(reason) = explored {
                reasons.entry(reason).or_default().push(cell.to_string());
            }
        }
        println!("\nskipped, and why");
        for (reason, cells) in reasons {
            println!("  {reason}: {} cells, as {}", cells.len(), cells[0]);
        }
    }

    fn json(results: &[(Cell, Explored)], elapsed: Duration) -> String {
        let cells: Vec<_> = results
            .iter()
            .map(|(cell, explored)| {
                let mut value = serde_json::json!({
                    "start": format!("{:?}", cell.start),
                    "ops": cell.ops.iter().map(|op| format!("{op:?}")).collect::<Vec<_>>(),
                });
                match explored {
                    Explored::Skipped(reason) => value["skipped"] = (*reason).into(),
                    Explored::Failed(why) => value["failed"] = why.as_str().into(),
                    Explored::GaveUp { executions, bound } => {
                        value["gave_up"] = (*executions).into();
                        value["bound"] = (*bound).into();
                    }
                    Explored::Passed { executions, bound, seconds } => {
                        value["executions"] = (*executions).into();
                        value["bound"] = (*bound).into();
                        value["seconds"] = (*seconds).into();
                    }
                }
                value
            })
            .collect();
        serde_json::json!({ "elapsed_s": elapsed.as_secs_f64(), "cells": cells }).to_string()
    }

    fn totals(results: &[(Cell, Explored)], elapsed: Duration) -> ExitCode {
        let (mut passed, mut bounded, mut skipped, mut failed, mut gave_up, mut all) = (0, 0, 0, 0, 0, 0);
        for (_, explored) in results {
            match explored {
                Explored::Skipped(_) => skipped += 1,
                Explored::Failed(_) => failed += 1,
                Explored::GaveUp { executions, .. } => {
                    gave_up += 1;
                    all += executions;
                }
                Explored::Passed { executions, bound, .. } => {
                    passed += 1;
                    bounded += usize::from(bound.is_some());
                    all += executions;
                }
            }
        }
        println!("\n{all} executions in {:.0} s; {bounded} cells explored with a bound", elapsed.as_secs_f64());
        if gave_up > 0 {
            println!("{gave_up} cells given up");
        }
        println!("{passed} passed, {failed} failed, {skipped} skipped");
        ExitCode::from(u8::from(failed > 0 || passed == 0))
    }
}
