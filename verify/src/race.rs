//! How a named race is explored.
//!
//! The races in `tests/` run with either reclamation: modelled, or, with `--cfg crossbeam_loom`, the
//! real crossbeam-epoch, which costs more steps. `RACE_BOUND=4` sets another preemption bound than the
//! race's own, `RACE_BOUND=+1` raises it, `RACE_BOUND=2-` lets none go beyond 2, and `RACE_BOUND=none`
//! explores without one. `RACE_LIMIT=1000` gives a race up after so many executions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use upager::sync::stopped::{Steps, over, resume, stop_before};
use upager::{Result, VmoOptions};

use crate::world::{Waiting, World, leave_epoch};

/// Ends a thread's part in the epoch, where it was not made by [`World::spawn`].
pub fn leave() {
    leave_epoch();
}

/// An access that was polled as far as it got in its own thread.
#[allow(missing_debug_implementations)] // as for `Waiting`
pub struct Settled {
    waiting: Waiting,
    result: Option<Result<u8>>,
}

/// Polls an access once. When its thread [comes home](Racer::join) it is polled again if it has been
/// woken meanwhile.
#[must_use]
pub fn settled(mut waiting: Waiting) -> Settled {
    let result = waiting.poll();
    Settled { waiting, result }
}

impl Settled {
    /// What the access has come to, now that the other threads have ended. `None`: it waits, and
    /// has not been woken.
    ///
    /// # Panics
    /// When it was woken more often than it waited.
    #[must_use]
    pub fn now(&self) -> Option<Result<u8>> {
        self.result
    }

    /// Whether nobody keeps its waker.
    #[must_use]
    pub fn is_forgotten(&self) -> bool {
        self.waiting.is_forgotten()
    }

    /// Polls it once more, if it has been woken meanwhile.
    #[must_use]
    pub fn again(self) -> Self {
        self.wake()
    }

    fn wake(mut self) -> Self {
        if self.result.is_none() {
            self.result = self.waiting.settle();
        }
        self
    }
}

/// A thread of a race.
#[allow(missing_debug_implementations)] // as for `Waiting`
pub struct Racer<T>(loom::thread::JoinHandle<T>);

/// What a thread brings home.
pub trait Home {
    /// What an executor would do for it after the race.
    #[must_use]
    fn home(self) -> Self;
}

impl Home for Settled {
    fn home(self) -> Self {
        self.wake()
    }
}

macro_rules! as_it_is {
    ($($t:ty),*) => {$(
        impl Home for $t {
            fn home(self) -> Self {
                self
            }
        }
    )*};
}
as_it_is!(bool, usize, u8, Option<Result<u8>>, Result<()>, Vec<upager::Packet>, ());

impl World {
    /// Runs a thread of the race.
    pub fn spawn<T: Home + 'static>(&self, f: impl FnOnce(Self) -> T + 'static) -> Racer<T> {
        let world = self.clone();
        Racer(loom::thread::spawn(move || {
            let home = f(world);
            leave_epoch();
            home
        }))
    }
}

/// A thread of a race that stops before one of its changes, until it is told to go on.
#[allow(missing_debug_implementations)] // as for `Waiting`
pub struct Stopping<T> {
    racer: Racer<T>,
    /// It has not begun by the time it is told to go on: it stops no more.
    is_late: Arc<AtomicBool>,
}

/// Runs a thread that stops before its change number `step`, where it is not to have the whole [`World`]. Whether it has
/// stopped is noted in the end.
pub fn spawn_stopping<T: Home + 'static>(
    step: usize,
    has_stopped: &Arc<AtomicBool>,
    f: impl FnOnce() -> T + 'static,
) -> Stopping<T> {
    let is_late = Arc::new(AtomicBool::new(false));
    let (late, has_stopped) = (is_late.clone(), has_stopped.clone());
    let thread = loom::thread::spawn(move || {
        if !late.load(Ordering::Relaxed) {
            stop_before(step, Steps::Changes);
        }
        let home = f();
        has_stopped.fetch_or(over(), Ordering::Relaxed);
        leave_epoch();
        home
    });
    Stopping { racer: Racer(thread), is_late }
}

/// Explores a race with a thread that stops before its first change, with one that stops before its second, and so on, until
/// it has no more. `race` is told before which, and where to note whether it has stopped: see [`spawn_stopping`].
///
/// # Panics
/// It has no more than `more_than` changes.
pub fn at_every_step(more_than: usize, race: impl Fn(usize, Arc<AtomicBool>)) {
    let stops_before = |step: &usize| {
        let has_stopped = Arc::new(AtomicBool::new(false));
        race(*step, has_stopped.clone());
        has_stopped.load(Ordering::Relaxed)
    };
    let steps = (0..100).take_while(stops_before).count();
    assert!(steps > more_than, "it has {steps} steps");
}

impl World {
    /// Runs a thread of the race that stops before its change number `step`. As [`spawn_stopping`].
    pub fn spawn_stopping<T: Home + 'static>(
        &self,
        step: usize,
        has_stopped: &Arc<AtomicBool>,
        f: impl FnOnce(&Self) -> T + 'static,
    ) -> Stopping<T> {
        let world = self.clone();
        spawn_stopping(step, has_stopped, move || f(&world))
    }

    /// Runs a detach that stops when it has made its mark, its first change.
    #[must_use]
    pub fn spawn_stopping_detach(&self) -> Stopping<Result<()>> {
        self.spawn_stopping(1, &Arc::default(), |world| world.pager.detach_vmo(&world.vmo).map(drop))
    }
}

impl<T: Home> Stopping<T> {
    /// Lets it go on, and waits for its end: what it came to.
    ///
    /// # Errors
    /// The thread panicked.
    pub fn go_on(self) -> std::thread::Result<T> {
        self.is_late.store(true, Ordering::Relaxed);
        resume();
        self.racer.join()
    }
}

impl<T: Home> Racer<T> {
    /// What the thread came to.
    ///
    /// # Errors
    /// The thread panicked.
    pub fn join(self) -> std::thread::Result<T> {
        self.0.join().map(Home::home)
    }
}

/// How far a race is explored with reclamation modelled. With the real epoch, which takes more steps, each goes to
/// preemption bound 2.
#[derive(Clone, Copy, Debug)]
pub enum Depth {
    /// To its end, which comes within seconds.
    Whole,
    /// To preemption bound 3.
    Bounded,
}

impl Depth {
    /// The bound to explore to, as `RACE_BOUND` has it.
    fn bound(self) -> Option<usize> {
        let own = match self {
            _ if cfg!(crossbeam_loom) => Some(2),
            Self::Whole => None,
            Self::Bounded => Some(3),
        };
        let Ok(asked) = std::env::var("RACE_BOUND") else { return own };
        let number = |text: &str| text.parse::<usize>().expect("RACE_BOUND is a number, +number, number-, or none");
        match (asked.strip_prefix('+'), asked.strip_suffix('-')) {
            _ if asked == "none" => None,
            (Some(more), _) => own.map(|own| own + number(more)),
            (None, Some(most)) => Some(own.map_or(number(most), |own| own.min(number(most)))),
            (None, None) => Some(number(&asked)),
        }
    }
}

/// Explores every execution of a race on a VMO of one page, and says how many there were.
pub fn explore(name: &'static str, depth: Depth, race: impl Fn(World) + Send + Sync + 'static) {
    explore_pages(name, depth, 1, race);
}

/// As [`explore`], on a VMO of so many pages.
pub fn explore_pages(name: &'static str, depth: Depth, pages: u64, race: impl Fn(World) + Send + Sync + 'static) {
    explore_in(name, depth, move || World::new(pages), race);
}

/// As [`explore_pages`], on a VMO that traps dirtying.
pub fn explore_trapping(name: &'static str, depth: Depth, pages: u64, race: impl Fn(World) + Send + Sync + 'static) {
    explore_in(name, depth, move || World::trapping(pages), race);
}

/// As [`explore_pages`], on a VMO that can be resized.
pub fn explore_resizable(name: &'static str, depth: Depth, pages: u64, race: impl Fn(World) + Send + Sync + 'static) {
    explore_in(name, depth, move || World::with(VmoOptions::RESIZABLE, pages), race);
}

/// As [`explore_resizable`], on a VMO that traps dirtying too.
pub fn explore_trapping_resizable(
    name: &'static str,
    depth: Depth,
    pages: u64,
    race: impl Fn(World) + Send + Sync + 'static,
) {
    explore_in(name, depth, move || World::with(VmoOptions::RESIZABLE | VmoOptions::TRAP_DIRTY, pages), race);
}

/// Has the model stop after so many executions. One that comes to that number has not ended, as far as anybody knows.
pub fn stop_after(model: &mut loom::model::Builder, executions: Option<usize>) {
    if let Some(executions) = executions {
        // Loom looks before the execution of that number, and only at multiples of the other.
        model.max_permutations = Some(executions + 1);
        model.checkpoint_interval = 1;
    }
}

/// Says in which execution a race failed.
struct Verdict {
    name: &'static str,
    executions: Arc<AtomicU64>,
}

impl Drop for Verdict {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("race {}: failed in execution {}", self.name, self.executions.load(Ordering::Relaxed));
        }
    }
}

fn explore_in(
    name: &'static str,
    depth: Depth,
    world: impl Fn() -> World + Send + Sync + 'static,
    race: impl Fn(World) + Send + Sync + 'static,
) {
    let bound = depth.bound();
    let executions = Arc::new(AtomicU64::new(0));
    let counter = executions.clone();
    let _verdict = Verdict { name, executions: executions.clone() };
    let parts = Arc::new((world, race));
    let begun = Instant::now();
    let mut model = loom::model::Builder::new();
    model.preemption_bound = bound;
    model.max_branches = 100_000;
    let limit = std::env::var("RACE_LIMIT").ok().map(|limit| limit.parse().expect("RACE_LIMIT is a number"));
    stop_after(&mut model, limit);
    model.check(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        if cfg!(crossbeam_loom) {
            // The real epoch runs what was deferred inside what it runs, and needs room: 128 KiB, in
            // words. Loom's own stacks have a quarter of that.
            let parts = parts.clone();
            let roomy = loom::thread::Builder::new().stack_size(0x4000);
            let race = roomy.spawn(move || parts.1(parts.0())).expect("loom has room for a thread");
            race.join().expect("the race ends");
        } else {
            parts.1(parts.0());
        }
    });
    if limit.is_some_and(|limit: usize| executions.load(Ordering::Relaxed) >= limit as u64) {
        println!("race {name}: gave up");
    }
    let bound = bound.map_or_else(|| "no bound".to_string(), |bound| format!("bound {bound}"));
    let reclamation = if cfg!(crossbeam_loom) { "real epoch" } else { "modelled" };
    println!(
        "race {name}: {} executions, {bound}, {reclamation}, {:.1} s",
        executions.load(Ordering::Relaxed),
        begun.elapsed().as_secs_f64()
    );
}
