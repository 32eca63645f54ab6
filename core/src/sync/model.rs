//! Reclamation as a model: what an epoch promises, and nothing of how it does it.
//!
//! The promise: a closure handed to [`Guard::defer`] runs after every guard that was live at that
//! moment has been dropped. Here it runs at the first instant at which that is so, which is the
//! hardest case for the code under test: whatever still needs the object finds it gone. Real
//! epochs run later, never sooner.
//!
//! What a real epoch orders, this orders, and no more: everything before the `defer`, and the end of each
//! guard that was there or had been before, happens before the closure; what was retired before a pin happens
//! before it. Each pin, each `defer` and each end of a guard is a step to explore, of which loom knows which can
//! change places (`loom::sync::Grace`, in `verify/loom`). Under shuttle each is a step besides all others.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
extern crate std;
use std::sync::{Arc, Mutex};

#[cfg(loom)]
use loom::sync as grace;
#[cfg(shuttle)]
mod grace;

use grace::{Grace, Name};

type Deferred = Box<dyn FnOnce() + Send>;

struct Shared {
    grace: Grace,
    /// What waits, by its name. A `std` mutex that the explorer does not see, so it adds no step.
    deferred: Mutex<BTreeMap<Name, Deferred>>,
}

/// Stands for a `crossbeam_epoch::Collector`: made inside a model, shared by its threads.
#[derive(Clone)]
pub struct Collector(Arc<Shared>);

/// Stands for a `crossbeam_epoch::LocalHandle`.
pub struct LocalHandle(Collector);

/// Stands for a `crossbeam_epoch::Guard`.
pub struct Guard {
    collector: Collector,
    guard: grace::Guard,
}

impl core::fmt::Debug for Guard {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Guard").field("guard", &self.guard).finish_non_exhaustive()
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
        Self(Arc::new(Shared { grace: Grace::new(), deferred: Mutex::default() }))
    }

    #[must_use]
    pub fn register(&self) -> LocalHandle {
        LocalHandle(self.clone())
    }

    /// How many closures have not run yet. A model that ends with any has leaked.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.deferred().len()
    }

    fn deferred(&self) -> std::sync::MutexGuard<'_, BTreeMap<Name, Deferred>> {
        self.0.deferred.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl LocalHandle {
    #[must_use]
    pub fn pin(&self) -> Guard {
        Guard { collector: self.0.clone(), guard: self.0.0.grace.pin() }
    }
}

impl Guard {
    /// Runs `f` once no guard that is live now is left.
    pub fn defer<F: FnOnce() -> R + Send + 'static, R>(&self, f: F) {
        #[cfg(loom)]
        super::stopped::before_change();
        let name = self.collector.0.grace.defer();
        self.collector.deferred().insert(name, Box::new(move || drop(f())));
    }

    pub fn flush(&self) {}
}

impl Drop for Guard {
    fn drop(&mut self) {
        #[cfg(loom)]
        super::stopped::before_change();
        for name in self.collector.0.grace.unpin(&self.guard) {
            let f = self.collector.deferred().remove(&name).expect("it was deferred by this name");
            f();
        }
    }
}
