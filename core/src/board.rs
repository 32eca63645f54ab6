//! A board of a VMO's figures: one side refreshes it, any thread reads it, and no reader touches
//! the VMO.
//!
//! [`Vmo::counts`](crate::Vmo::counts) walks tables, and needs the VMO. A monitor that is asked
//! often reads a board instead, and keeps no VMO from its end.
//!
//! The board is a sequence lock (crate `seqlock`): a reader copies the figures, and copies them
//! again if they changed meanwhile, so it stores nothing and sees one refresh, whole. This is not
//! lock-free: who is stopped in the middle of a refresh stops the readers of this board. So the pager
//! itself never uses one. Its atomics are the crate's own and not [`sync`](crate::sync)'s, since
//! boards exist with `std` only and are no part of the models.

use core::fmt;

use seqlock::SeqLock;

use crate::vmo::VmoCounts;

/// A place where figures of a VMO are posted, for threads that have no VMO at hand.
///
/// ```
/// use std::sync::Arc;
/// use upager::*;
///
/// let platform = Arc::new(HeapPlatform::new());
/// let (pager, port) = (Pager::new(platform.clone()), Port::new(platform.clone()));
/// let vmo = pager.create_vmo(&port, 7, VmoOptions::NONE, PAGE_SIZE)?;
/// let board = Arc::new(StatsBoard::new());
///
/// pager.supply_frames(&vmo, ByteRange::new(0, PAGE_SIZE), [OwnedFrame::new(&*platform)?])?;
/// board.post(vmo.counts()); // now and then, by whoever has the VMO
///
/// let monitor = std::thread::spawn({
///     let board = board.clone();
///     move || board.read().resident
/// });
/// assert_eq!(monitor.join().unwrap(), PageCount(1));
/// # Ok::<(), Status>(())
/// ```
#[derive(Default)]
pub struct StatsBoard {
    figures: SeqLock<VmoCounts>,
}

impl fmt::Debug for StatsBoard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatsBoard").field("figures", &self.read()).finish()
    }
}

impl StatsBoard {
    /// An empty one: all figures are 0.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the figures. Those who post at once do so one after the other.
    ///
    /// Waits for others who post, not for readers.
    pub fn post(&self, counts: VmoCounts) {
        *self.figures.lock_write() = counts;
    }

    /// The figures that were posted last, all of the same post.
    ///
    /// Waits for a post that is under way: a copy of a few words.
    #[must_use]
    pub fn read(&self) -> VmoCounts {
        self.figures.read()
    }
}
