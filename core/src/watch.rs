//! The watch on the service: which requests it leaves unanswered, and for how long.
//!
//! # It costs the faults nothing
//!
//! A fault reads no clock and notes no time. The watch comes by now and then, walks the requests in
//! flight of all VMOs of its pager, and remembers when it *first saw* each. A request's age is
//! counted from then, so it may be older by the time between two looks, and is warned of or timed
//! out later by as much; never sooner.
//!
//! ```text
//!   opened ... first seen ---- warn_after ----> Event::Slow ---- ... ----> Event::TimedOut
//!              |<------------------- time_out ------------------------------>|
//! ```
//!
//! A request is remembered by its VMO's number, its entry in the VMO's pool, and the entry's
//! generation. None of the three together is ever used again, so a new request is not taken for an
//! old one, and what has gone is forgotten at the next look.
//!
//! # Timing out is one more way to resolve
//!
//! To time a request out is what the service does when it fails one, with another status: it is
//! sealed by one compare-and-swap, its pages are absent again, its waiters wake. So it races with
//! supply, failure, withdrawal and detach as those do with each other: one of them decides, and
//! each waiter wakes once. A timed-out request that was not delivered is not delivered later; one
//! that was may still be answered, and then its pages become resident. `verify/` has the races
//! (`time_out_against_supply`, `time_out_against_detach`).
//!
//! Who drives the watch is the embedder's choice: a timer of a kernel, a task, or with `std` the
//! ready thread of [`Watcher`](crate::Watcher).

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use hashbrown::HashMap;

use crate::observer::{Event, Observer, SlowRequest};
use crate::pager::{Pager, Shared};
use crate::platform::Platform;
use crate::request::{Kind, RequestId};
use crate::sync::Arc;
use crate::units::{ByteRange, PAGE_SIZE, PageRange};
use crate::vmo::Inner;

/// When a [`Watch`] acts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct WatchLimits {
    /// At what age of a request to warn, once. `None`: never. 20 seconds by default, as Zircon
    /// (`kernel.userpager.overtime_wait_seconds`).
    pub warn_after: Option<Duration>,
    /// At what age to fail a request. `None`, the default: never.
    pub time_out: Option<Duration>,
}

impl Default for WatchLimits {
    fn default() -> Self {
        Self { warn_after: Some(Duration::from_secs(20)), time_out: None }
    }
}

/// What a [`Watch`] has found.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub struct WatchCounts {
    /// Requests in flight after the last look.
    pub in_flight: u64,
    /// The age of the oldest of them.
    pub oldest: Duration,
    /// Requests that were warned of, since the watch was made.
    pub slow: u64,
    /// Requests that were timed out, since the watch was made.
    pub timed_out: u64,
}

/// Watches the requests in flight of all VMOs of one pager. See [`look`](Self::look).
///
/// ```
/// # use std::future::Future;
/// # use std::pin::pin;
/// # use std::sync::Arc;
/// # use std::task::{Context, Poll, Waker};
/// use std::time::Duration;
/// use upager::*;
///
/// # let platform = Arc::new(HeapPlatform::new());
/// # let (pager, port) = (Pager::new(platform.clone()), Port::new(platform.clone()));
/// # let vmo = pager.create_vmo(&port, 7, VmoOptions::NONE, PAGE_SIZE)?;
/// let limits = WatchLimits {
///     warn_after: Some(Duration::from_secs(5)),
///     time_out: Some(Duration::from_secs(60)),
/// };
/// let mut watch = Watch::new(&pager, limits, Box::new(|event: &Event| println!("{event:?}")));
///
/// let mut fault = pin!(vmo.fault(PageIndex(0), Access::Read));
/// # let mut cx = Context::from_waker(Waker::noop());
/// assert!(fault.as_mut().poll(&mut cx).is_pending()); // and nobody answers
///
/// watch.look(Duration::from_secs(100)); // the time since any fixed moment
/// watch.look(Duration::from_secs(105));
/// assert_eq!(watch.counts().slow, 1);
/// watch.look(Duration::from_secs(160));
/// assert_eq!(watch.counts().timed_out, 1);
/// assert_eq!(fault.as_mut().poll(&mut cx), Poll::Ready(Err(Status::TimedOut)));
/// # Ok::<(), Status>(())
/// ```
pub struct Watch<P: Platform> {
    pager: Arc<Shared<P>>,
    limits: WatchLimits,
    observer: Box<dyn Observer>,
    memory: Memory,
    counts: WatchCounts,
}

/// VMO's number, entry in its pool, generation.
type Name = (u64, u32, u64);

/// What the watch remembers from look to look.
#[derive(Default)]
struct Memory {
    requests: HashMap<Name, Seen>,
    /// Found in this look, and not told yet.
    events: Vec<Event>,
    /// The number of this look.
    look: u64,
}

struct Seen {
    first: Duration,
    /// The last look that saw it.
    look: u64,
    warned: bool,
}

impl<P: Platform> fmt::Debug for Watch<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("limits", &self.limits).field("counts", &self.counts).finish_non_exhaustive()
    }
}

impl<P: Platform> Watch<P> {
    /// A watch that has not looked yet. It keeps neither the pager nor its VMOs from their end.
    #[must_use]
    pub fn new(pager: &Pager<P>, limits: WatchLimits, observer: Box<dyn Observer>) -> Self {
        let (memory, counts) = (Memory::default(), WatchCounts::default());
        Self { pager: pager.shared().clone(), limits, observer, memory, counts }
    }

    /// Has the next look act by these limits. What was warned of is not warned of again.
    pub fn set_limits(&mut self, limits: WatchLimits) {
        self.limits = limits;
    }

    /// What it has found so far.
    #[must_use]
    pub fn counts(&self) -> WatchCounts {
        self.counts
    }

    /// Looks at every request in flight. Tells the observer, once, of each whose age has reached
    /// [`warn_after`](WatchLimits::warn_after), and fails each whose age has reached
    /// [`time_out`](WatchLimits::time_out) with [`TimedOut`](crate::Status::TimedOut).
    ///
    /// `now` is the time since any fixed moment, by a clock that does not go back; if it does, ages
    /// are counted as 0 until it has caught up.
    ///
    /// Lock-free, but for the observer and the allocator. Costs the VMOs and the requests in flight.
    /// Without memory for what it has to remember or to tell, it leaves a request to the next look.
    pub fn look(&mut self, now: Duration) {
        let Self { pager, limits, observer, memory, counts } = self;
        memory.look += 1;
        (counts.in_flight, counts.oldest) = (0, Duration::ZERO);
        let guard = pager.pin();
        pager.for_each_vmo(&guard, |vmo| {
            vmo.source.requests.for_each_open(|id, kind, pages| {
                let Some(age) = memory.look_at(vmo, (id, kind), pages, limits, now) else { return };
                counts.in_flight += 1;
                counts.oldest = counts.oldest.max(age);
            });
        });
        drop(guard); // an observer that takes its time keeps no frame from being freed
        let look = memory.look;
        memory.requests.retain(|_, seen| seen.look == look);
        for event in memory.events.drain(..) {
            match event {
                Event::Slow(_) => counts.slow += 1,
                Event::TimedOut(_) => counts.timed_out += 1,
            }
            observer.event(&event);
        }
    }
}

impl Memory {
    /// Looks at one request. Returns its age, unless it is in flight no longer.
    fn look_at<P: Platform>(
        &mut self,
        vmo: &Inner<P>,
        (id, kind): (RequestId, Kind),
        pages: PageRange,
        limits: &WatchLimits,
        now: Duration,
    ) -> Option<Duration> {
        let reached = |limit: Option<Duration>, age| limit.is_some_and(|limit| age >= limit);
        let name = (vmo.number, id.index(), id.generation());
        if !self.requests.contains_key(&name) && self.requests.try_reserve(1).is_err() {
            return Some(Duration::ZERO);
        }
        let seen = self.requests.entry(name).or_insert(Seen { first: now, look: 0, warned: false });
        seen.look = self.look;
        let age = now.saturating_sub(seen.first);
        let slow = |pages: PageRange| SlowRequest {
            vmo: vmo.id(),
            key: vmo.source.key(),
            command: kind.command(),
            range: ByteRange::new(pages.start * PAGE_SIZE, (pages.end - pages.start) * PAGE_SIZE),
            age,
        };
        let is_slow = reached(limits.warn_after, age) && !seen.warned;
        let is_over = reached(limits.time_out, age);
        // Room first, so that nothing is done that cannot be told.
        if (is_slow || is_over) && self.events.try_reserve(2).is_err() {
            return Some(age);
        }
        if is_over {
            // It is over now, whoever ended it: forgotten with this look.
            let timed_out = vmo.source.time_out(&vmo.table, id);
            self.requests.remove(&name);
            let pages = timed_out?;
            if is_slow {
                self.events.push(Event::Slow(slow(pages)));
            }
            self.events.push(Event::TimedOut(slow(pages)));
            return None;
        }
        if is_slow {
            // Its pages were read after it was seen open. If it has ended since, they may be those of
            // the next request in its entry; then it is not open any more, and nobody's concern.
            if !vmo.source.requests.is_open(id) {
                return None;
            }
            seen.warned = true;
            self.events.push(Event::Slow(slow(pages)));
        }
        Some(age)
    }
}
