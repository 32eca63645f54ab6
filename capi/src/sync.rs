//! The one place where atomics come from: the processor's, or loom's in a model.

pub(crate) use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, fence};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, fence};

/// Completes an order that a `SeqCst` read-modify-write has begun: no later `SeqCst` load is before it.
///
/// By the language's model the two accesses are enough, and on x86 the locked instruction is. Loom takes
/// `SeqCst` accesses for `AcqRel` ones, so a model has the fence.
#[inline]
pub(crate) fn after_seq_cst_rmw() {
    #[cfg(loom)]
    fence(SeqCst);
}

/// Sizes on which only speed and memory depend. A model's are as small as they can be.
#[cfg(not(loom))]
pub(crate) mod size {
    /// log2 of the slots in a segment.
    pub(crate) const SEGMENT_BITS: u32 = 9;
    /// log2 of the most handles.
    pub(crate) const INDEX_BITS: u32 = 18;
    /// log2 of the slots over which the first handles are spread.
    pub(crate) const WINDOW_BITS: u32 = 14;
}
#[cfg(loom)]
pub(crate) mod size {
    pub(crate) const SEGMENT_BITS: u32 = 1;
    pub(crate) const INDEX_BITS: u32 = 1;
    pub(crate) const WINDOW_BITS: u32 = 1;
}
