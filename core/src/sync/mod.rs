//! The one facade: every atomic, fence, pin and interior cell of the crate comes from here.
//!
//! An ordinary build gets `core::sync::atomic` and `crossbeam-epoch`. Under `--cfg loom` the same
//! names are loom's, so that the models in `verify/` explore the shipped source and not a copy of
//! it. Reclamation has two forms there: the modelled one (`model.rs`), small enough to explore
//! without bound and quick to notice a use after free, and, with `--cfg crossbeam_loom` besides,
//! the real crossbeam-epoch. Under `--cfg shuttle` they are shuttle's, for random schedules of many
//! threads, with the modelled reclamation. Under loom a thread may be stopped for ever at any step
//! (`stopped.rs`).
//!
//! Under `--cfg accounting` they count who accesses which word how often (`accounting.rs`).
//!
//! No other module names `loom` or `shuttle`.

#[cfg(all(crossbeam_loom, not(loom)))]
compile_error!("--cfg crossbeam_loom needs --cfg loom: without it the epoch would be modelled and the pager would not");

#[cfg(all(loom, shuttle))]
compile_error!("--cfg loom and --cfg shuttle are different models: choose one");

#[cfg(all(accounting, any(loom, shuttle)))]
compile_error!("--cfg accounting counts what an ordinary build does: it does not go with loom or shuttle");

#[cfg(loom)]
pub use loom as explorer;
#[cfg(shuttle)]
pub use shuttle as explorer;

#[cfg(accounting)]
pub mod accounting;
#[cfg(any(all(loom, not(crossbeam_loom)), shuttle))]
pub mod model;
#[cfg(loom)]
pub mod stopped;

#[cfg(not(any(all(loom, not(crossbeam_loom)), shuttle)))]
pub use crossbeam_epoch::{Collector, Guard, LocalHandle};
#[cfg(any(all(loom, not(crossbeam_loom)), shuttle))]
pub use model::{Collector, Guard, LocalHandle};

#[cfg(not(loom))]
use AtomicUsize as HintWord; // under shuttle too
#[cfg(accounting)]
use accounting::AtomicUsize;
#[cfg(accounting)]
pub(crate) use accounting::{AtomicPtr, AtomicU16, AtomicU32, AtomicU64, Cell};
#[cfg(not(accounting))]
use core::sync::atomic::AtomicUsize; // under loom and shuttle too: see `Tally`
#[cfg(not(any(loom, shuttle)))]
pub(crate) use core::sync::atomic::fence;
#[cfg(not(any(loom, shuttle, accounting)))]
pub(crate) use core::sync::atomic::{AtomicPtr, AtomicU16, AtomicU32, AtomicU64};
#[cfg(loom)]
use explorer::sync::atomic::AtomicUsize as HintWord;
#[cfg(any(loom, shuttle))]
pub(crate) use explorer::sync::atomic::fence;
#[cfg(shuttle)]
pub(crate) use explorer::sync::atomic::{AtomicPtr, AtomicU16, AtomicU32, AtomicU64};
#[cfg(loom)]
pub(crate) use stopped::{AtomicPtr, AtomicU16, AtomicU32, AtomicU64};

pub(crate) use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};

#[cfg(not(loom))]
pub use alloc::sync::Arc;
#[cfg(loom)]
pub use loom::sync::Arc;

/// Sizes that only the speed and the memory of a build depend on, never its meaning.
///
/// Loom pays for every atomic that exists, so a model's tables are as small as they can be while
/// each level, group and segment still occurs. Random schedules meet more of them with the same sizes.
#[cfg(not(any(loom, shuttle)))]
pub(crate) mod size {
    /// log2 of the slots in a leaf: 512 slots are 2 MiB of pages and one 4 KiB leaf.
    pub(crate) const LEAF_BITS: u32 = 9;
    /// log2 of the children of an inner node.
    pub(crate) const NODE_BITS: u32 = 6;
    /// log2 of the most children that the root may have: 4096 leaves, 8 GiB, under one root.
    pub(crate) const ROOT_BITS: u32 = 12;
    /// log2 of the slots that share one counter.
    pub(crate) const GROUP_BITS: u32 = 6;
    /// log2 of the entries in a pool's first segment; each further segment doubles.
    pub(crate) const POOL_BITS: u32 = 3;
}
#[cfg(any(loom, shuttle))]
pub(crate) mod size {
    pub(crate) const LEAF_BITS: u32 = 1;
    pub(crate) const NODE_BITS: u32 = 1;
    pub(crate) const ROOT_BITS: u32 = 1;
    pub(crate) const GROUP_BITS: u32 = 1;
    pub(crate) const POOL_BITS: u32 = 2;
}

/// A number that steers where a search begins, or whether there is one. Losing or tearing an update costs time,
/// never an answer.
///
/// On a line of its own: it may be written often, and what lies beside it is mostly read, by lookups too.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Hint(HintWord);

impl Hint {
    #[inline]
    pub(crate) fn get(&self) -> usize {
        self.0.load(Relaxed) // Relaxed: any value is right, see the type
    }

    #[inline]
    pub(crate) fn set(&self, value: usize) {
        self.0.store(value, Relaxed); // Relaxed: as above
    }

    /// Counts one event.
    #[inline]
    pub(crate) fn count(&self) {
        self.0.fetch_add(1, Relaxed); // Relaxed: as above
    }

    /// Counts one event less.
    #[inline]
    pub(crate) fn uncount(&self) {
        self.0.fetch_sub(1, Relaxed); // Relaxed: as above
    }
}

/// Counts events, for statistics. What it comes to decides nothing, so it is not modelled.
///
/// On a line of its own, as a [`Hint`].
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Tally(AtomicUsize);

impl Tally {
    #[inline]
    pub(crate) fn get(&self) -> usize {
        self.0.load(Relaxed) // Relaxed: a statistic orders nothing
    }

    /// A number that no other call gets, until they have all been given.
    pub(crate) fn number(&self) -> usize {
        self.0.fetch_add(1, Relaxed) // Relaxed: that the numbers differ is the atomicity's doing
    }

    /// Counts one event.
    #[inline]
    pub(crate) fn count(&self) {
        self.add(1);
    }

    /// Counts so many events.
    #[inline]
    pub(crate) fn add(&self, events: usize) {
        self.0.fetch_add(events, Relaxed); // Relaxed: as above
    }
}

/// Has the processor fetch what `at` names, if it can be told to. Changes nothing.
#[inline]
pub(crate) fn prefetch<T>(at: &T) {
    #[cfg(all(target_arch = "x86_64", target_feature = "sse"))]
    // SAFETY: a prefetch accesses nothing, and the instruction is part of SSE, checked above.
    unsafe {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(core::ptr::from_ref(at).cast());
    }
    #[cfg(not(all(target_arch = "x86_64", target_feature = "sse")))]
    let _ = at;
}

/// `UnsafeCell` with loom's interface: the pointer is lent to a closure, so that loom can check
/// that no two accesses overlap.
#[cfg(not(any(loom, accounting)))]
#[derive(Debug, Default)]
pub(crate) struct Cell<T>(core::cell::UnsafeCell<T>);

#[cfg(not(any(loom, accounting)))]
impl<T> Cell<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(core::cell::UnsafeCell::new(value))
    }

    #[inline]
    pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        f(self.0.get())
    }

    #[inline]
    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}
#[cfg(loom)]
#[allow(clippy::unsafe_removed_from_name)] // the same name as in an ordinary build
pub(crate) use loom::cell::UnsafeCell as Cell;
