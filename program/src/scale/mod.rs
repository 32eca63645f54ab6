//! `upager bench scale`: how throughput grows with threads, for who has more processors than the authors.
//!
//! Each [load] runs with each number of threads for a while, in rounds that go through all of them, so that
//! what slows the machine down for a moment slows down each a little. A figure is the median of the
//! rounds. What it is to show is the shape: a call that writes no shared line doubles with the
//! threads, and one that does says by its curve what the line costs. Which lines these are is in
//! docs/PERFORMANCE.md, under shared memory.

mod load;
mod plot;
mod report;

use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

use crate::args::ScaleConfig;
use crate::failure::Failure;

pub(crate) use load::Load;
pub(crate) use report::ScaleReport;

use load::{Stage, Worker};
use report::Point;

/// Measures all points.
///
/// Errors: no memory for the pages, or no thread.
pub(crate) fn scale(config: &ScaleConfig) -> Result<ScaleReport, Failure> {
    let most = config.threads.iter().copied().max().unwrap_or(1);
    let stage = Stage::new(config.pages, most)?;
    let mut points: Vec<_> = (config.loads.iter())
        .flat_map(|load| config.threads.iter().map(|threads| Point::new(*load, *threads)))
        .collect();
    let rounds = u64::from(config.rounds);
    let bar = ProgressBar::new(points.len() as u64 * rounds); // hidden if stderr is no terminal
    let style = ProgressStyle::with_template("{bar:24} {pos}/{len}  {msg}  {eta} left");
    let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    for _ in 0..rounds {
        for point in &mut points {
            bar.set_message(format!("{} with {} threads", point.load.name(), point.threads));
            point.add(measure(&stage, point.load, point.threads, config)?);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(ScaleReport::new(config, &points))
}

/// What the threads are to do.
const WAIT: u8 = 0;
const WORK: u8 = 1;
const STOP: u8 = 2;

/// Operations a second, of all threads together.
fn measure(stage: &Stage, load: Load, threads: u16, config: &ScaleConfig) -> Result<f64, Failure> {
    let workers = (0..threads).map(|nth| Worker::new(stage, load, nth)).collect::<Result<Vec<_>, _>>()?;
    // Relaxed, all of it: it orders nothing, and the join does.
    let phase = &AtomicU8::new(WAIT);
    thread::scope(|scope| {
        let mut running = Vec::new();
        for (nth, mut worker) in workers.into_iter().enumerate() {
            let name = format!("worker {nth}");
            let work = move || {
                while phase.load(Relaxed) == WAIT {
                    thread::yield_now();
                }
                let mut operations = 0;
                while phase.load(Relaxed) == WORK {
                    operations += worker.turn();
                }
                operations
            };
            match thread::Builder::new().name(name.clone()).spawn_scoped(scope, work) {
                Ok(thread) => running.push((name, thread)),
                Err(source) => {
                    phase.store(STOP, Relaxed);
                    return Err(Failure::Thread { name, source });
                }
            }
        }
        phase.store(WORK, Relaxed);
        let start = Instant::now();
        thread::sleep(config.time);
        phase.store(STOP, Relaxed);
        let mut operations = 0_u64;
        for (name, thread) in running {
            operations += thread.join().map_err(|_| Failure::Panicked { name })?;
        }
        #[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 52 bits")]
        Ok(operations as f64 / start.elapsed().as_secs_f64())
    })
}
