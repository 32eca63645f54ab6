//! One run, from the first thread to the verdict.
//!
//! 1. Readers and writers load a VMO that is paged from FILE; service threads, writeback and the
//!    evictor do their work ([`reader`], [`writer`], [`service`], [`writeback`], [`evictor`]).
//! 2. At its time the detach comes, while requests are in flight and everyone goes on as before.
//!    Accesses that need the pager fail from then on; those on dirty pages must go on.
//! 3. When the time is over, everyone goes home, under watch ([`crew`]).
//! 4. The packets that are left are taken, what is still dirty is written back, and the copy is
//!    compared with the shadow ([`verdict`]). The VMO is dropped, which without a detach sends
//!    COMPLETE.
//!
//! A failure in any thread ends step 1 or 2 early, through [`Engine::fail`]; everyone still goes home.

mod crew;
mod engine;
mod evictor;
mod progress;
mod reader;
mod service;
mod signals;
mod tally;
pub(crate) mod touch;
mod verdict;
mod writeback;
mod writer;

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use upager::{TracingObserver, Watch, WatchLimits, Watcher};

use crate::args::Config;
use crate::failure::Failure;
use crate::report::{Report, Times};
use crate::run::crew::Crew;
use crate::run::engine::Engine;
use crate::run::progress::Progress;
use crate::run::service::Role;
use crate::watch::post::Post;

pub(crate) use service::BATCH_PAGES;
pub(crate) use tally::{Count, Tally};

/// How often the main thread looks after FILE and the progress line.
const TICK: Duration = Duration::from_millis(50);
/// How long the main thread tries to have a request in flight before it detaches all the same.
const TRY_FOR: Duration = Duration::from_secs(2);

/// Runs, and reports what was seen.
///
/// Errors: the run was not carried to its end.
pub(crate) fn run(config: &Config) -> Result<Report, Failure> {
    let engine = Arc::new(Engine::new(config)?);
    let mut helpers = Crew::default();
    let mut workers = Crew::default();
    start(config, &engine, &mut helpers, &mut workers)?;
    let slow_requests = watch_service(config, &engine)?;
    let post = config.figures.as_deref().map(|path| Post::start(path, engine.clone())).transpose()?;

    let started = Instant::now();
    let progress = Progress::new(config, started);
    let mut times = Times::default();
    let mut detached = None;
    if let Some(after) = config.detach_after {
        watch(&engine, &progress, started + after);
        times.attached = started.elapsed();
        detached = detach(&engine, workers.len())?;
    }
    watch(&engine, &progress, started + config.time);
    progress.end();
    if detached.is_none() {
        times.attached = started.elapsed();
    }

    engine.signals.workers_stop.raise();
    let mut hung = workers.come_home(&engine);
    engine.signals.helpers_stop.raise();
    engine.throttle.want_writeback(); // so that the thread sees the flag
    hung += helpers.come_home(&engine);
    times.total = started.elapsed();
    drop((slow_requests, post));
    verdict::reach(engine, config, times, detached, hung)
}

fn start(config: &Config, engine: &Arc<Engine>, helpers: &mut Crew, workers: &mut Crew) -> Result<(), Failure> {
    for n in 0..config.service_threads {
        let role = if n == 0 { Role::Holds } else { Role::GoesOn };
        helpers.start(engine, format!("service {n}"), move |engine| service::run(engine, role))?;
    }
    helpers.start(engine, "writeback".into(), writeback::run)?;
    helpers.start(engine, "evictor".into(), evictor::run)?;
    let mut seeds = SmallRng::seed_from_u64(config.seed);
    for n in 0..config.readers {
        let seed = seeds.next_u64();
        workers.start(engine, format!("reader {n}"), move |engine| reader::run(engine, seed))?;
    }
    for n in 0..config.writers {
        let seed = seeds.next_u64();
        workers.start(engine, format!("writer {n}"), move |engine| writer::run(engine, n.into(), seed))?;
    }
    Ok(())
}

/// Has a thread tell, through `tracing`, of page requests that are not answered.
fn watch_service(config: &Config, engine: &Engine) -> Result<Watcher, Failure> {
    let limits = WatchLimits { warn_after: Some(config.warn_after), time_out: None };
    let watch = Watch::new(&engine.pager, limits, Box::new(TracingObserver));
    let no_thread = |status| Failure::Thread { name: "watch".into(), source: io::Error::other(status) };
    watch.spawn((config.warn_after / 4).max(TICK)).map_err(no_thread)
}

/// Waits, and looks after FILE, whose tail perhaps nobody reads.
fn watch(engine: &Engine, progress: &Progress, until: Instant) {
    while !engine.has_failed() && Instant::now() < until {
        if let Err(failure) = engine.file.check_size() {
            engine.fail(failure);
        }
        progress.show(engine);
        thread::sleep(TICK.min(until.saturating_duration_since(Instant::now())));
    }
}

/// Detaches while requests are in flight. Returns what the detach found; `None` if the run failed
/// before.
fn detach(engine: &Engine, workers: usize) -> Result<Option<upager::Detached>, Failure> {
    engine.signals.hold.ask();
    let give_up = Instant::now() + TRY_FOR;
    thread::sleep(Duration::from_millis(1));
    while engine.signals.hold.held() == 0 && workers > 0 && Instant::now() < give_up && !engine.has_failed() {
        evictor::evict_all(engine); // perhaps everything that is looked at is resident
        thread::sleep(Duration::from_millis(1));
    }
    if engine.has_failed() {
        engine.signals.hold.end();
        return Ok(None);
    }
    engine.signals.detaching.raise();
    let detached = engine.pager.detach_vmo(&engine.vmo);
    engine.signals.detached.raise();
    engine.tally.dirty_at_detach.add(engine.vmo.counts().dirty.0);
    engine.signals.hold.end(); // what it held is answered too late now, which must do no harm
    detached.map(Some).map_err(Failure::pager("detaching"))
}
