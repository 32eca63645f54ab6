//! What the pager tells a person or a program of its own accord: events, and who hears of them.
//!
//! An [`Observer`] is fixed when what it observes is made. With `std` a [`SwapObserver`] stands in
//! for others, which can be exchanged while it runs; with the feature `tracing` the ready
//! `TracingObserver` passes events on to that crate.

#[cfg(feature = "std")]
extern crate std;

#[cfg(feature = "std")]
use alloc::boxed::Box;
#[cfg(feature = "std")]
use core::fmt;
use core::time::Duration;

#[cfg(feature = "std")]
use arc_swap::ArcSwap;

use crate::packet::Command;
use crate::platform::VmoId;
use crate::units::ByteRange;

/// A request that the service takes long to answer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct SlowRequest {
    /// The VMO, as its [`id`](crate::Vmo::id) names it.
    pub vmo: VmoId,
    /// The key of its packets.
    pub key: u64,
    /// What is asked for.
    pub command: Command,
    /// The bytes it is asked for, answered ones included.
    pub range: ByteRange,
    /// How long it has been seen in flight. It may be older by the time between two looks.
    pub age: Duration,
}

/// Something that somebody should hear of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A request has been in flight for [`warn_after`](crate::WatchLimits::warn_after). It still is.
    Slow(SlowRequest),
    /// A request has been in flight for [`time_out`](crate::WatchLimits::time_out). Its waiters got
    /// [`TimedOut`](crate::Status::TimedOut).
    TimedOut(SlowRequest),
}

/// Hears of events. Every `Fn(&Event)` is one.
///
/// ```
/// use std::sync::{Arc, Mutex};
/// use upager::{Event, Observer};
///
/// let slow = Arc::new(Mutex::new(Vec::new()));
/// let observer: Box<dyn Observer> = Box::new({
///     let slow = slow.clone();
///     move |event: &Event| {
///         if let Event::Slow(request) = event {
///             slow.lock().unwrap().push(request.key);
///         }
///     }
/// });
/// # let _ = observer;
/// ```
pub trait Observer: Send + Sync + 'static {
    /// The event happened. Called by the thread that found it, which waits for the return; no
    /// request, no access and no other call of the pager does.
    fn event(&self, event: &Event);
}

impl<F: Fn(&Event) + Send + Sync + 'static> Observer for F {
    fn event(&self, event: &Event) {
        self(event);
    }
}

/// An observer that passes events on to another one, which can be exchanged while it runs. Its
/// clones are one and the same.
///
/// Whoever passes an event on finds the other one without a lock and without a store that others
/// wait for (crate `arc-swap`; its atomics are its own and not `sync`'s, since this exists with
/// `std` only and is no part of the models).
///
/// ```
/// use upager::*;
/// # use std::sync::Arc;
/// # let platform = Arc::new(HeapPlatform::new());
/// # let pager = Pager::new(platform);
/// let observer = SwapObserver::new(|_: &Event| {});
/// let watch = Watch::new(&pager, WatchLimits::default(), Box::new(observer.clone()));
/// observer.swap(|event: &Event| eprintln!("{event:?}"));
/// # drop(watch);
/// ```
#[cfg(feature = "std")]
#[derive(Clone)]
pub struct SwapObserver(std::sync::Arc<ArcSwap<Box<dyn Observer>>>);

#[cfg(feature = "std")]
impl fmt::Debug for SwapObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SwapObserver").finish_non_exhaustive()
    }
}

#[cfg(feature = "std")]
impl SwapObserver {
    /// One that passes on to `observer`.
    pub fn new(observer: impl Observer) -> Self {
        Self(std::sync::Arc::new(ArcSwap::from_pointee(Box::new(observer))))
    }

    /// From now on events go to `observer`. The other one may be in the middle of an event still;
    /// it is dropped after that.
    pub fn swap(&self, observer: impl Observer) {
        self.0.store(std::sync::Arc::new(Box::new(observer)));
    }
}

#[cfg(feature = "std")]
impl Observer for SwapObserver {
    fn event(&self, event: &Event) {
        self.0.load().event(event);
    }
}

/// Passes events on to `tracing`: slow requests as warnings, timed-out ones as errors.
///
/// ```
/// # use upager::*;
/// # use std::sync::Arc;
/// # let platform = Arc::new(HeapPlatform::new());
/// # let pager = Pager::new(platform);
/// let watch = Watch::new(&pager, WatchLimits::default(), Box::new(TracingObserver));
/// # drop(watch);
/// ```
#[cfg(feature = "tracing")]
#[derive(Clone, Copy, Debug, Default)]
pub struct TracingObserver;

#[cfg(feature = "tracing")]
impl Observer for TracingObserver {
    fn event(&self, event: &Event) {
        macro_rules! say {
            ($level:ident, $request:ident, $text:literal) => {
                tracing::$level!(
                    target: "upager",
                    vmo = ?$request.vmo,
                    key = $request.key,
                    command = ?$request.command,
                    offset = $request.range.offset,
                    length = $request.range.length,
                    age = ?$request.age,
                    $text
                )
            };
        }
        match event {
            Event::Slow(request) => say!(warn, request, "the service has not answered a page request"),
            Event::TimedOut(request) => say!(error, request, "a page request timed out"),
        }
    }
}
