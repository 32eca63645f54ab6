//! Explores the race matrix, and prints it.
//!
//! Each cell is explored without a preemption bound. One that takes longer than `--seconds` is
//! explored again with the bound of `--bound`, and the report says so.

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
    use std::collections::BTreeMap;
    use std::process::ExitCode;
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};
    use std::time::{Duration, Instant};

    use clap::Parser;
    use upager_verify::cell::{Cell, Op, Start};

    /// Explores every pair of operations from every state of a page, or every pair and a detach, and
    /// holds each execution to the specification.
    #[derive(Parser)]
    struct Args {
        /// Three operations in each cell: every pair, and a detach.
        #[arg(long)]
        triples: bool,
        /// Only cells whose name contains this.
        #[arg(long, default_value = "")]
        filter: String,
        /// How long a cell may take without a bound. 0: as long as it takes.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
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
        /// How many cells to explore at a time.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        /// Write the record of the run to this file, as JSON.
        #[arg(long)]
        json: Option<std::path::PathBuf>,
    }

    #[derive(Clone)]
    enum Explored {
        Skipped(&'static str),
        Passed { executions: u64, bound: Option<usize>, seconds: f64 },
        Failed(String),
    }

    pub(crate) fn main() -> ExitCode {
        let args = Args::parse();
        let cells = if args.triples { Cell::triples(Op::Detach) } else { Cell::pairs() };
        let cells: Vec<Cell> = cells.into_iter().filter(|cell| cell.to_string().contains(&args.filter)).collect();
        let slow = match args.slow.as_ref().map(std::fs::read_to_string).transpose() {
            Ok(slow) => slow.unwrap_or_default(),
            Err(error) => {
                eprintln!("cannot read the list of slow cells: {error}");
                return ExitCode::from(2);
            }
        };
        let is_slow = |cell: &Cell| slow.lines().any(|line| line == cell.to_string());
        let cells: Vec<Cell> = cells.into_iter().filter(|cell| !args.only_slow || is_slow(cell)).collect();
        let begun = Instant::now();
        let next = AtomicUsize::new(0);
        let done: Mutex<BTreeMap<usize, Explored>> = Mutex::default();
        std::panic::set_hook(Box::new(|_| {})); // a failure is printed once, with its cell
        std::thread::scope(|scope| {
            for _ in 0..args.jobs {
                scope.spawn(|| {
                    loop {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        let Some(cell) = cells.get(at) else { return };
                        let bounded = !args.only_slow && is_slow(cell);
                        let explored = explore(cell, &args, bounded);
                        if let Explored::Failed(why) = &explored {
                            eprintln!("FAILED {cell}\n{why}");
                        }
                        if let Explored::Passed { seconds, .. } = &explored
                            && *seconds > 10.0
                        {
                            eprintln!("{at}/{}: {cell} took {seconds:.0} s", cells.len());
                        }
                        done.lock().expect("no panic while held").insert(at, explored);
                    }
                });
            }
        });
        let done: Vec<Explored> = done.into_inner().expect("no panic while held").into_values().collect();
        let results: Vec<(Cell, Explored)> = cells.into_iter().zip(done).collect();
        print(&results, args.triples);
        if let Some(file) = &args.json
            && let Err(error) = std::fs::write(file, json(&results, begun.elapsed()))
        {
            eprintln!("cannot write {}: {error}", file.display());
            return ExitCode::from(2);
        }
        totals(&results, begun.elapsed())
    }

    fn explore(cell: &Cell, args: &Args, bounded: bool) -> Explored {
        if let Some(reason) = cell.skipped() {
            return Explored::Skipped(reason);
        }
        if let Some(bound) = bounded.then_some(args.bound).or(args.only_bound) {
            return check(cell, Some(bound), None).unwrap_or_else(|explored| explored);
        }
        let limit = (args.seconds > 0).then(|| Duration::from_secs(args.seconds));
        match check(cell, None, limit) {
            Err(Explored::Passed { .. }) => check(cell, Some(args.bound), None).unwrap_or_else(|explored| explored),
            Ok(explored) | Err(explored) => explored,
        }
    }

    /// Explores a cell. `Err` with `Passed`: time ran out.
    fn check(cell: &Cell, bound: Option<usize>, limit: Option<Duration>) -> Result<Explored, Explored> {
        let executions = Arc::new(AtomicU64::new(0));
        let (cell, counter) = (*cell, executions.clone());
        let begun = Instant::now();
        let ran = std::panic::catch_unwind(move || {
            let allowed = cell.allowed();
            let mut model = loom::model::Builder::new();
            model.preemption_bound = bound;
            model.max_branches = 100_000;
            model.max_duration = limit;
            model.check(move || {
                counter.fetch_add(1, Ordering::Relaxed);
                cell.run(&allowed);
            });
        });
        let executions = executions.load(Ordering::Relaxed);
        if let Err(panic) = ran {
            let why = panic.downcast_ref::<String>().cloned();
            let why = why.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            return Err(Explored::Failed(format!("in execution {executions}: {}", why.unwrap_or_default())));
        }
        let seconds = begun.elapsed().as_secs_f64();
        let passed = Explored::Passed { executions, bound, seconds };
        if limit.is_some_and(|limit| begun.elapsed() >= limit) { Err(passed) } else { Ok(passed) }
    }

    fn print(results: &[(Cell, Explored)], triples: bool) {
        println!(
            "Executions of each cell. 'b4': explored to preemption bound 4, without a bound otherwise. '-': skipped."
        );
        for start in Start::ALL {
            let of_start: Vec<_> = results.iter().filter(|(cell, _)| cell.start == start).collect();
            if of_start.iter().all(|(_, explored)| matches!(explored, Explored::Skipped(_))) {
                continue;
            }
            println!("\nfrom {start:?}{}", if triples { ", with a detach besides" } else { "" });
            print!("{:>15}", "");
            for op in Op::ALL {
                print!(" {:>15}", format!("{op:?}"));
            }
            println!();
            for a in Op::ALL {
                print!("{:>15}", format!("{a:?}"));
                for b in Op::ALL {
                    let found = of_start.iter().find(|(cell, _)| cell.ops[..2] == [a, b]);
                    let text = match found {
                        None => String::new(),
                        Some((_, Explored::Skipped(_))) => "-".to_string(),
                        Some((_, Explored::Failed(_))) => "FAILED".to_string(),
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
        let (mut passed, mut bounded, mut skipped, mut failed, mut all) = (0, 0, 0, 0, 0);
        for (_, explored) in results {
            match explored {
                Explored::Skipped(_) => skipped += 1,
                Explored::Failed(_) => failed += 1,
                Explored::Passed { executions, bound, .. } => {
                    passed += 1;
                    bounded += usize::from(bound.is_some());
                    all += executions;
                }
            }
        }
        println!("\n{all} executions in {:.0} s; {bounded} cells explored with a bound", elapsed.as_secs_f64());
        println!("{passed} passed, {failed} failed, {skipped} skipped");
        ExitCode::from(u8::from(failed > 0 || passed == 0))
    }
}
