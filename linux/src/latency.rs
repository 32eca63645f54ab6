//! How long things take, stage by stage, for who wants to know.
//!
//! While nobody watches, a stage costs one load of a word that nobody writes to. While somebody does, two looks at the
//! clock, and a short lock of the stage's histogram.

use std::fmt;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// What takes time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Stage {
    /// A mapper: a touch of a page, from when a fault loop has taken it until the thread goes on, or gets SIGBUS.
    Fault,
    /// A mapper: the part of it that waits for the pager.
    Request,
    /// A service: a read of a source, with its retries.
    Read,
    /// A service: a write of a source, with its retries.
    Write,
    /// A service: a sync of a source.
    Sync,
}

impl Stage {
    /// All of them, in the order in which [`LatencyWatch::read`] gives them.
    pub const ALL: [Self; 5] = [Self::Fault, Self::Request, Self::Read, Self::Write, Self::Sync];
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fault => "fault",
            Self::Request => "request",
            Self::Read => "read",
            Self::Write => "write",
            Self::Sync => "sync",
        })
    }
}

/// How long a stage took. Times are right to 1 %.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct StageLatency {
    /// Which.
    pub stage: Stage,
    /// How often it was passed while it was watched.
    pub count: u64,
    /// Half of them took no longer.
    pub median: Duration,
    /// 99 of 100 took no longer.
    pub p99: Duration,
    /// 999 of 1,000 took no longer.
    pub p999: Duration,
    /// The longest.
    pub longest: Duration,
}

/// The longest that is told apart: an hour, in nanoseconds.
const LONGEST: u64 = 3_600_000_000_000;

/// The histograms of a mapper or a service, in nanoseconds.
pub(crate) struct Latencies {
    watchers: AtomicUsize,
    stages: Vec<(Stage, Mutex<Histogram<u64>>)>,
}

impl fmt::Debug for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Latencies").field("watchers", &self.watchers).finish_non_exhaustive()
    }
}

impl Latencies {
    pub(crate) fn new(stages: &[Stage]) -> Arc<Self> {
        let histogram = |stage: &Stage| {
            let empty = Histogram::new_with_bounds(1, LONGEST, 2);
            let empty = empty.unwrap_or_else(|_| unreachable!("bounds apart, and two digits"));
            (*stage, Mutex::new(empty))
        };
        Arc::new(Self { watchers: AtomicUsize::new(0), stages: stages.iter().map(histogram).collect() })
    }

    /// A stage begins. `None`: nobody watches.
    pub(crate) fn begin(&self) -> Option<Instant> {
        (self.watchers.load(Relaxed) > 0).then(Instant::now) // Relaxed: a figure more or less
    }

    /// A stage ends that began then.
    pub(crate) fn end(&self, stage: Stage, begun: Option<Instant>) {
        let Some(begun) = begun else { return };
        let took = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        if let Some((_, histogram)) = self.stages.iter().find(|(this, _)| *this == stage) {
            histogram.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(took);
        }
    }
}

/// Somebody watches, until it is dropped. What was seen is kept for the next one who does.
#[derive(Debug)]
pub struct LatencyWatch(Arc<Latencies>);

impl LatencyWatch {
    pub(crate) fn new(of: &Arc<Latencies>) -> Self {
        of.watchers.fetch_add(1, Relaxed); // Relaxed: it orders nothing
        Self(of.clone())
    }

    /// What was seen so far.
    #[must_use]
    pub fn read(&self) -> Vec<StageLatency> {
        let read = |(stage, histogram): &(Stage, Mutex<Histogram<u64>>)| {
            let seen = histogram.lock().unwrap_or_else(PoisonError::into_inner);
            let at = |quantile| Duration::from_nanos(seen.value_at_quantile(quantile));
            StageLatency {
                stage: *stage,
                count: seen.len(),
                median: at(0.5),
                p99: at(0.99),
                p999: at(0.999),
                longest: Duration::from_nanos(seen.max()),
            }
        };
        self.0.stages.iter().map(read).collect()
    }
}

impl Drop for LatencyWatch {
    fn drop(&mut self) {
        self.0.watchers.fetch_sub(1, Relaxed); // Relaxed: as in `new`
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_watched_is_seen_and_nothing_else() {
        let latencies = Latencies::new(&[Stage::Read, Stage::Write]);
        assert_eq!(latencies.begin(), None);
        let watch = LatencyWatch::new(&latencies);
        let begun = latencies.begin();
        assert!(begun.is_some());
        std::thread::sleep(Duration::from_millis(2));
        latencies.end(Stage::Read, begun);
        latencies.end(Stage::Read, None);
        latencies.end(Stage::Sync, begun);
        let seen = watch.read();
        assert_eq!(
            seen.iter().map(|seen| (seen.stage, seen.count)).collect::<Vec<_>>(),
            [(Stage::Read, 1), (Stage::Write, 0)]
        );
        assert!(seen[0].median >= Duration::from_millis(2) && seen[0].longest >= seen[0].median, "{seen:?}");
        drop(watch);
        assert_eq!(latencies.begin(), None);
    }
}
