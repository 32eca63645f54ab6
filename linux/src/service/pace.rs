//! Not more than so many bytes a second.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_io::Timer;
use event_listener::Event;
use futures_util::future::select;

/// Hands out times: each that of the one before, and as long after it as that one's bytes take.
#[derive(Debug)]
pub(super) struct Pace {
    /// Bytes a second.
    rate: Option<u64>,
    next: Mutex<Instant>,
    /// Those who wait for a round: as long as there is one, nobody waits for the rate.
    hurried: AtomicUsize,
    hurry: Event,
}

/// Somebody waits for a round, until it is dropped.
#[derive(Debug)]
pub(super) struct Hurry<'a>(&'a Pace);

impl Drop for Hurry<'_> {
    fn drop(&mut self) {
        self.0.hurried.fetch_sub(1, SeqCst); // SeqCst: as in `hurry`
    }
}

impl Pace {
    pub(super) fn new(rate: Option<u64>) -> Self {
        Self { rate, next: Mutex::new(Instant::now()), hurried: AtomicUsize::new(0), hurry: Event::new() }
    }

    /// Has nobody wait, until the answer is dropped.
    pub(super) fn hurry(&self) -> Hurry<'_> {
        self.hurried.fetch_add(1, SeqCst); // SeqCst: with the event's own fence, who is about to wait sees it or is notified
        self.hurry.notify(usize::MAX);
        Hurry(self)
    }

    /// Waits until so many bytes may be written.
    pub(super) async fn take(&self, bytes: u64) {
        let wait = self.wait(bytes, Instant::now());
        let hurry = self.hurry.listen();
        if !wait.is_zero() && self.hurried.load(SeqCst) == 0 {
            drop(select(hurry, Timer::after(wait)).await);
        }
    }

    fn wait(&self, bytes: u64, now: Instant) -> Duration {
        let Some(rate) = self.rate else { return Duration::ZERO };
        #[allow(clippy::cast_precision_loss)] // a time
        let takes = Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let at = now.max(*next);
        *next = at + takes;
        at - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_spread_over_time() {
        let pace = Pace::new(Some(1000));
        let now = Instant::now() + Duration::from_secs(1);
        let waits: Vec<_> = [500, 500, 1000, 1].iter().map(|bytes| pace.wait(*bytes, now).as_millis()).collect();
        assert_eq!(waits, [0, 500, 1000, 2000]);
        assert_eq!(pace.wait(1, now + Duration::from_secs(60)), Duration::ZERO, "what was not used is not saved up");
        assert_eq!(Pace::new(None).wait(1 << 40, now), Duration::ZERO);
    }
}
