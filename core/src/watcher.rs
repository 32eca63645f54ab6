//! The ready thread that drives a [`Watch`], for programs with `std`.
//!
//! One channel carries new limits to the thread, and its closing is the order to stop. The counts
//! come back over a sequence lock (crate `seqlock`), so that those of one look stay together. Neither
//! touches a path of the pager.

extern crate std;

use core::fmt;
use core::time::Duration;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use seqlock::SeqLock;

use crate::platform::Platform;
use crate::status::{Result, Status};
use crate::watch::{Watch, WatchCounts, WatchLimits};

/// A thread that looks at the requests in flight. Dropping it stops the thread and waits for it.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use upager::*;
///
/// let platform = Arc::new(HeapPlatform::new());
/// let (pager, port) = (Pager::new(platform.clone()), Port::new(platform.clone()));
/// let vmo = pager.create_vmo(&port, 7, VmoOptions::NONE, PAGE_SIZE)?;
///
/// let limits = WatchLimits { time_out: Some(Duration::from_millis(10)), ..WatchLimits::default() };
/// let watch = Watch::new(&pager, limits, Box::new(|_: &Event| {}));
/// let watcher = watch.spawn(Duration::from_millis(1))?;
/// // Nobody serves this VMO.
/// assert_eq!(block_on(vmo.read(ByteOffset(0), &mut [0])), Err(Status::TimedOut));
/// drop(watcher);
/// # Ok::<(), Status>(())
/// ```
pub struct Watcher {
    /// `None` only while it is dropped.
    limits: Option<Sender<WatchLimits>>,
    thread: Option<JoinHandle<()>>,
    counts: Arc<SeqLock<WatchCounts>>,
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

impl<P: Platform> Watch<P> {
    /// Has a thread of its own look at once and then every `period`. The period is also what a
    /// request may be older than its age: choose a part of the smallest limit.
    ///
    /// An observer that panics ends the thread.
    ///
    /// Errors: [`InvalidArgs`](Status::InvalidArgs): the period is 0;
    /// [`NoResources`](Status::NoResources): the system gives no thread.
    pub fn spawn(self, period: Duration) -> Result<Watcher> {
        if period.is_zero() {
            return Err(Status::InvalidArgs);
        }
        let (limits, settings) = mpsc::channel();
        let counts = Arc::new(SeqLock::new(self.counts()));
        let board = counts.clone();
        let thread = thread::Builder::new().name("upager-watch".into());
        let thread = thread.spawn(move || run(self, period, &settings, &board)).map_err(|_| Status::NoResources)?;
        Ok(Watcher { limits: Some(limits), thread: Some(thread), counts })
    }
}

fn run<P: Platform>(
    mut watch: Watch<P>,
    period: Duration,
    settings: &Receiver<WatchLimits>,
    board: &SeqLock<WatchCounts>,
) {
    let start = Instant::now();
    let mut last = Duration::ZERO;
    loop {
        watch.look(last);
        *board.lock_write() = watch.counts();
        loop {
            let elapsed = start.elapsed();
            // After a look that took longer than a period the next one still waits its time.
            let left = period.saturating_sub(elapsed.saturating_sub(last));
            match settings.recv_timeout(left) {
                Ok(limits) => watch.set_limits(limits),
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
        last = start.elapsed();
    }
}

impl Watcher {
    /// Has the next look act by these limits.
    pub fn set_limits(&self, limits: WatchLimits) {
        if let Some(sender) = &self.limits {
            let _ = sender.send(limits); // failing: the thread has ended, by a panic of its observer
        }
    }

    /// What the thread has found so far, all of one look.
    #[must_use]
    pub fn counts(&self) -> WatchCounts {
        self.counts.read()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        drop(self.limits.take());
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != thread::current().id()
        // The observer may drop the watcher, and cannot wait for itself.
        {
            let _ = thread.join(); // failing: the observer has panicked, and that was told
        }
    }
}
