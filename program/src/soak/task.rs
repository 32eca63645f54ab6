//! An access that a worker has begun, and polls when it has been woken.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

/// Marks that it was woken, and counts how often.
#[derive(Default)]
struct Wakes {
    woken: AtomicBool,
    times: AtomicU64,
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.times.fetch_add(1, SeqCst); // SeqCst, here and below: before and after, between threads
        self.woken.store(true, SeqCst);
    }
}

/// What its thread does while it waits. Most are patient: the others would hide a wake-up that is lost.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Temper {
    /// Waits until it is woken.
    Patient,
    /// Looks again without cause.
    Restless,
    /// Leaves.
    Fickle,
}

pub(crate) struct Task {
    what: String,
    future: Pin<Box<dyn Future<Output = ()>>>,
    wakes: Arc<Wakes>,
    begun: Instant,
    /// Polls that were not ready.
    pub(crate) sleeps: u64,
    pub(crate) temper: Temper,
}

impl Task {
    pub(crate) fn new(what: String, temper: Temper, future: impl Future<Output = ()> + 'static) -> Self {
        Self { what, future: Box::pin(future), wakes: Arc::default(), begun: Instant::now(), sleeps: 0, temper }
    }

    /// True: it is over.
    pub(crate) fn poll(&mut self) -> bool {
        self.wakes.woken.store(false, SeqCst);
        let waker = Waker::from(self.wakes.clone());
        let over = self.future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        self.sleeps += u64::from(!over);
        over
    }

    /// Whether it was woken since the last poll.
    pub(crate) fn is_woken(&self) -> bool {
        self.wakes.woken.load(SeqCst)
    }

    /// How often it was woken.
    pub(crate) fn wakes(&self) -> u64 {
        self.wakes.times.load(SeqCst)
    }

    pub(crate) fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    /// What it is, and how it fares.
    pub(crate) fn story(&self) -> String {
        let (age, wakes) = (self.age().as_secs_f64(), self.wakes());
        format!("{}: begun {age:.1} s ago, went to sleep {} times, was woken {wakes} times", self.what, self.sleeps)
    }
}
