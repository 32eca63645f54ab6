//! Runs the whole pager in random schedules, for a time, and prints how to run one that fails again.

#[cfg(not(shuttle))]
fn main() -> std::process::ExitCode {
    eprintln!("the schedules need `--cfg shuttle`: run ci/verify schedules");
    std::process::ExitCode::from(2)
}

#[cfg(shuttle)]
fn main() -> std::process::ExitCode {
    run::main()
}

#[cfg(shuttle)]
mod run {
    use std::process::ExitCode;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::sync::{Arc, Mutex};
    use std::time::{Duration, Instant};

    use clap::{Parser, ValueEnum};
    use shuttle::scheduler::{PctScheduler, RandomScheduler};
    use shuttle::{Config, FailurePersistence, MaxSteps, Runner};
    use upager_verify::crew::said;
    use upager_verify::progress::Progress;
    use upager_verify::schedule::{Random, Scenario};

    /// Runs the whole pager with 4 to 8 threads in random schedules, and holds it to the specification.
    #[derive(Parser)]
    struct Args {
        /// For how long.
        #[arg(long, default_value_t = 30)]
        seconds: u64,
        /// The first seed; the following ones are tried after it.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// About how many calls an execution makes.
        #[arg(long, default_value_t = 1000)]
        calls: u64,
        /// Only this seed, with this scheduler.
        #[arg(long, value_enum)]
        replay: Option<Scheduler>,
        /// How many seeds to try at a time.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        /// Write the record of the run to this file, as JSON.
        #[arg(long)]
        json: Option<std::path::PathBuf>,
    }

    #[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
    enum Scheduler {
        /// Each step by any thread that can.
        Random,
        /// Few preemptions, at random steps (Burckhardt et al., 2010).
        Pct,
    }

    impl Scheduler {
        const fn of(seed: u64) -> Self {
            if seed.is_multiple_of(2) { Self::Pct } else { Self::Random }
        }
    }

    /// More steps than that in one execution are taken for a loop without an end.
    const STEPS: usize = 20_000_000;
    /// Preemptions of an execution under PCT: one for so many calls, or up to as many times more.
    const CALLS: u64 = 100;
    const TIMES: u64 = 32;
    /// PCT learns in its first execution how long one is.
    const PCT_EXECUTIONS: usize = 4;

    #[derive(Default)]
    struct Totals {
        executions: AtomicU64,
        calls: AtomicU64,
        seeds: AtomicU64,
        failures: Mutex<Vec<String>>,
    }

    pub(crate) fn main() -> ExitCode {
        let args = Args::parse();
        let totals = Arc::new(Totals::default());
        let begun = Instant::now();
        std::panic::set_hook(Box::new(|_| {})); // a failure is printed once, with its seed
        if let Some(scheduler) = args.replay {
            one(args.seed, scheduler, args.calls, &totals);
        } else {
            let next = AtomicU64::new(args.seed);
            let over = AtomicBool::new(false);
            let seconds = usize::try_from(args.seconds).unwrap_or(usize::MAX);
            let progress = Progress::new(seconds);
            std::thread::scope(|scope| {
                for _ in 0..args.jobs {
                    scope.spawn(|| {
                        while begun.elapsed() < Duration::from_secs(args.seconds) && !over.load(Ordering::Relaxed) {
                            let seed = next.fetch_add(1, Ordering::Relaxed);
                            if !one(seed, Scheduler::of(seed), args.calls, &totals) {
                                over.store(true, Ordering::Relaxed);
                            }
                            let elapsed = usize::try_from(begun.elapsed().as_secs()).unwrap_or(usize::MAX);
                            progress.reached(elapsed.min(seconds));
                        }
                    });
                }
            });
        }
        report(&args, &totals, begun.elapsed())
    }

    /// Runs one seed. False: it failed.
    fn one(seed: u64, scheduler: Scheduler, calls: u64, totals: &Arc<Totals>) -> bool {
        let scenario = Scenario::of(seed, calls);
        let counted = totals.clone();
        let ran = std::panic::catch_unwind(move || {
            let mut config = Config::new();
            config.silence_warnings = true;
            config.failure_persistence = FailurePersistence::None;
            config.max_steps = MaxSteps::FailAfter(STEPS);
            config.stack_size = 0x40_000;
            let execution = move || {
                let calls = scenario.run();
                counted.calls.fetch_add(calls, Ordering::Relaxed);
                counted.executions.fetch_add(1, Ordering::Relaxed);
            };
            match scheduler {
                Scheduler::Random => Runner::new(RandomScheduler::new_from_seed(seed, 1), config).run(execution),
                Scheduler::Pct => {
                    let depth = (calls / CALLS + 1) * (1 + Random::new(seed).below(TIMES));
                    let depth = usize::try_from(depth).unwrap_or(usize::MAX);
                    let scheduler = PctScheduler::new_from_seed(seed, depth, PCT_EXECUTIONS);
                    Runner::new(scheduler, config).run(execution)
                }
            }
        });
        totals.seeds.fetch_add(1, Ordering::Relaxed);
        let Err(panic) = ran else { return true };
        let why = said(&*panic);
        let name = format!("{scheduler:?}").to_lowercase();
        let again = format!("ci/verify schedules --replay {name} --seed {seed} --calls {calls}");
        eprintln!("FAILED seed {seed}, {scenario:?}, {scheduler:?}: {why}\nagain: {again}");
        totals.failures.lock().expect("no panic while held").push(format!("{again}: {why}"));
        false
    }

    fn report(args: &Args, totals: &Totals, elapsed: Duration) -> ExitCode {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (seeds, executions, calls) = (load(&totals.seeds), load(&totals.executions), load(&totals.calls));
        let failures = totals.failures.lock().expect("no panic while held");
        println!(
            "{executions} executions of {seeds} seeds from {}, {calls} calls, in {:.0} s",
            args.seed,
            elapsed.as_secs_f64()
        );
        println!("{} passed, {} failed", seeds - failures.len() as u64, failures.len());
        if let Some(file) = &args.json {
            let record = serde_json::json!({
                "elapsed_s": elapsed.as_secs_f64(), "first_seed": args.seed, "seeds": seeds, "executions": executions,
                "calls": calls, "failures": *failures,
            });
            if let Err(error) = std::fs::write(file, record.to_string()) {
                eprintln!("cannot write {}: {error}", file.display());
                return ExitCode::from(2);
            }
        }
        ExitCode::from(u8::from(!failures.is_empty() || seeds == 0))
    }
}
