//! Reclamation as a model: what an epoch promises, and nothing of how it does it.
//!
//! The promise: a closure handed to [`Guard::defer`] runs after every guard that was live at that
//! moment has been dropped. Here it runs at the first instant at which that is so, which is the
//! hardest case for the code under test: whatever still needs the object finds it gone. Real
//! epochs run later, never sooner.
//!
//! The bookkeeping is a `std` mutex that the explorer does not see, so it adds no step to explore. What it
//! must not add either is silence: a real epoch orders everything before the `defer` before the
//! closure, and the end of a guard before the closure, and the closure before every later pin. One
//! explored atomic carries that order: each unpin and defer writes it, each pin reads it. A pin that
//! loom lets read an old value is a branch that the real one excludes (its fence does): it reads
//! again by a write, which is never old, and that branch, a double of another, is not explored
//! further. So two pins commute, and everything else about guards is a step to explore.

use alloc::boxed::Box;
use alloc::vec::Vec;
extern crate std;
use std::sync::{Arc, Mutex};

use super::explorer::sync::atomic::{AtomicUsize, Ordering};

type Deferred = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    next: u64,
    steps: usize,
    live: Vec<u64>,
    /// Each with the guards it still waits for.
    deferred: Vec<(Vec<u64>, Deferred)>,
}

struct Shared {
    state: Mutex<State>,
    order: AtomicUsize,
}

/// Stands for a `crossbeam_epoch::Collector`: made inside a model, shared by its threads.
#[derive(Clone)]
pub struct Collector(Arc<Shared>);

/// Stands for a `crossbeam_epoch::LocalHandle`.
pub struct LocalHandle(Collector);

/// Stands for a `crossbeam_epoch::Guard`.
pub struct Guard {
    collector: Collector,
    id: u64,
}

impl core::fmt::Debug for Guard {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Guard").field("id", &self.id).finish_non_exhaustive()
    }
}

impl core::fmt::Debug for Collector {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Collector").finish_non_exhaustive()
    }
}

impl core::fmt::Debug for LocalHandle {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("LocalHandle").finish_non_exhaustive()
    }
}

impl Default for Collector {
    fn default() -> Self {
        Self::new()
    }
}

impl Collector {
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Shared { state: Mutex::new(State::default()), order: AtomicUsize::new(0) }))
    }

    #[must_use]
    pub fn register(&self) -> LocalHandle {
        LocalHandle(self.clone())
    }

    /// How many closures have not run yet. A model that ends with any has leaked.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.lock().deferred.len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A step that others see.
    fn order(&self) {
        #[cfg(loom)]
        super::stopped::before_change();
        self.0.order.fetch_add(1, Ordering::AcqRel);
        self.lock().steps += 1;
    }

    /// A step that sees the others'.
    fn follow(&self) {
        let seen = self.0.order.load(Ordering::Acquire);
        if seen != self.lock().steps {
            #[cfg(loom)]
            loom::skip_branch();
            self.0.order.fetch_add(0, Ordering::AcqRel);
        }
    }
}

impl LocalHandle {
    #[must_use]
    pub fn pin(&self) -> Guard {
        self.0.follow();
        let mut state = self.0.lock();
        let id = state.next;
        state.next += 1;
        state.live.push(id);
        drop(state);
        Guard { collector: self.0.clone(), id }
    }
}

impl Guard {
    /// Runs `f` once no guard that is live now is left.
    pub fn defer<F: FnOnce() -> R + Send + 'static, R>(&self, f: F) {
        self.collector.order();
        let mut state = self.collector.lock();
        let waits = state.live.clone();
        state.deferred.push((waits, Box::new(move || drop(f()))));
    }

    pub fn flush(&self) {}
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.collector.order();
        let mut state = self.collector.lock();
        state.live.retain(|id| *id != self.id);
        for (waits, _) in &mut state.deferred {
            waits.retain(|id| *id != self.id);
        }
        let (ready, rest) = core::mem::take(&mut state.deferred).into_iter().partition(|(waits, _)| waits.is_empty());
        state.deferred = rest;
        drop(state);
        let ready: Vec<(Vec<u64>, Deferred)> = ready;
        for (_, f) in ready {
            f();
        }
    }
}
