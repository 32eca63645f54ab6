//! How far a run is, and how long it takes yet: a line now and then, for whoever watches.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

/// A line at most so often, in seconds: seldom into a log.
const OFTEN: u64 = 2;
const SELDOM: u64 = 30;

/// Counts parts that are done.
#[derive(Debug)]
pub struct Progress {
    all: usize,
    done: AtomicUsize,
    begun: Instant,
    /// When a line is due, in seconds since it began.
    due: AtomicU64,
    every: u64,
}

impl Progress {
    /// Of so many parts.
    #[must_use]
    pub fn new(all: usize) -> Self {
        let every = if std::io::stderr().is_terminal() { OFTEN } else { SELDOM };
        Self { all, done: AtomicUsize::new(0), begun: Instant::now(), due: AtomicU64::new(every), every }
    }

    /// One more is done.
    pub fn one(&self) {
        self.say(self.done.fetch_add(1, Ordering::Relaxed) + 1);
    }

    /// So many are done.
    pub fn reached(&self, done: usize) {
        self.done.store(done, Ordering::Relaxed);
        self.say(done);
    }

    fn say(&self, done: usize) {
        let elapsed = self.begun.elapsed().as_secs();
        let due = self.due.load(Ordering::Relaxed);
        if elapsed < due {
            return;
        }
        // Whoever moves it says the line.
        let moved = self.due.compare_exchange(due, elapsed + self.every, Ordering::Relaxed, Ordering::Relaxed);
        if moved.is_ok() {
            eprintln!("{}", self.line(done, elapsed));
        }
    }

    fn line(&self, done: usize, elapsed: u64) -> String {
        let left = elapsed * (self.all.saturating_sub(done)) as u64 / done.max(1) as u64;
        format!("{done}/{} in {elapsed} s, about {left} s left", self.all)
    }
}

#[cfg(test)]
mod tests {
    use super::Progress;

    #[test]
    fn what_is_left_goes_by_what_is_done() {
        let progress = Progress::new(40);
        assert_eq!(progress.line(10, 30), "10/40 in 30 s, about 90 s left");
        assert_eq!(progress.line(40, 120), "40/40 in 120 s, about 0 s left");
    }
}
