//! What a VMO notes about itself: whether it was modified, and how many pages left or came back.
//!
//! # No modification is lost
//!
//! *Modified* is one word, which a write sets and a query may clear. For every write one of two
//! things holds of every query that clears:
//!
//! - a later query, or this one, finds the word set by the write; or
//! - this query or an earlier one said that the VMO was modified, and whoever reads the VMO after
//!   that query sees the write.
//!
//! So after the last answer "modified" there is nothing that its asker cannot see.
//!
//! **The word is set after the write, not before it.** Set before, it could be taken by a query
//! before the bytes change: the query says "modified" of bytes that are still the old ones, the
//! next one says "not modified" of the new ones, and the write is never reported. Set after, it
//! can be missed only by a query that began before the write returned, and the next one finds it.
//!
//! **A write looks first, and writes the word only if it is clear**, so that writers do not
//! pass its line round. What it sees may be old: set, though a query is just clearing it. Then that
//! query said "modified", and its asker must see the bytes. This is the store-buffering shape, so
//! each side has a `SeqCst` fence between its two steps:
//!
//! ```text
//!   write:  bytes, fence, look at the word         query:  clear the word, fence, later reads
//! ```
//!
//! If the write looked before the clearing, its fence comes first, and later reads see the bytes. If
//! the query's fence comes first, the write sees the word clear, and sets it. `verify/` has the
//! race (`reset_against_write`).
//!
//! **A mapped writer needs no fence.** Its bytes come after its fault, and a query can know only of
//! the fault. Who wants to hear of what is written after a query begins a writeback after it: that
//! protects the page, so the next store faults, and the page's word, which BEGIN has changed,
//! orders that fault after the query.

use crate::pager::Pager;
use crate::platform::Platform;
use crate::status::{Result, Status};
#[cfg(accounting)]
use crate::sync::accounting::Lines;
use crate::sync::{Acquire, AtomicU32, Relaxed, Release, SeqCst, Tally, fence};
use crate::vmo::Vmo;

/// What the service can ask about a VMO (`zx_pager_vmo_stats_t`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(C)]
pub struct VmoStats {
    /// 1 (`ZX_PAGER_VMO_STATS_MODIFIED`) if the VMO was modified since it was created, or since
    /// the last query that [reset](VmoStatsOptions::Reset) it; else 0.
    pub modified: u32,
}

impl VmoStats {
    /// Whether the VMO was modified.
    #[must_use]
    pub const fn is_modified(self) -> bool {
        self.modified != 0
    }
}

/// What a query of the statistics does to them (`options` of `zx_pager_query_vmo_stats()`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum VmoStatsOptions {
    /// They stay as they are.
    #[default]
    Keep,
    /// They are cleared in the same step (`ZX_PAGER_RESET_VMO_STATS`).
    Reset,
}

impl VmoStatsOptions {
    /// The option with these bits.
    ///
    /// Errors: [`InvalidArgs`](Status::InvalidArgs) for a bit that means nothing.
    ///
    /// ```
    /// use upager::{Status, VmoStatsOptions};
    /// assert_eq!(VmoStatsOptions::from_bits(1), Ok(VmoStatsOptions::Reset));
    /// assert_eq!(VmoStatsOptions::from_bits(2), Err(Status::InvalidArgs));
    /// ```
    pub const fn from_bits(bits: u32) -> Result<Self> {
        match bits {
            0 => Ok(Self::Keep),
            1 => Ok(Self::Reset),
            _ => Err(Status::InvalidArgs),
        }
    }
}

/// The figures that a VMO keeps. Its pages and requests are counted elsewhere.
#[derive(Debug)]
pub(crate) struct Figures {
    /// See the module's text.
    modified: AtomicU32,
    /// Clean pages that began to leave.
    pub(crate) evictions: Tally,
    /// Pages that an access or a supply kept from leaving.
    pub(crate) rescues: Tally,
}

impl Figures {
    pub(crate) fn new() -> Self {
        Self { modified: AtomicU32::new(0), evictions: Tally::default(), rescues: Tally::default() }
    }

    /// Bytes were written.
    #[inline]
    pub(crate) fn written(&self) {
        fence(SeqCst); // pairs with the fence in `query`: see the module's text
        self.mapped_write();
    }

    /// A mapped writer may write from now on.
    #[inline]
    pub(crate) fn mapped_write(&self) {
        // Relaxed: the fence in `written` orders it, or the page's word
        if self.modified.load(Relaxed) == 0 {
            // Release: who is told of the write sees it; pairs with `query`. An exchange, since it
            // is rare, and the models order it with the query's.
            self.modified.swap(1, Release);
        }
    }

    fn query(&self, options: VmoStatsOptions) -> u32 {
        match options {
            VmoStatsOptions::Keep => self.modified.load(Acquire), // Acquire: pairs with `mapped_write`
            VmoStatsOptions::Reset => {
                // Acquire, as above. A swap reads the newest value, so no store is passed over.
                let modified = self.modified.swap(0, Acquire);
                fence(SeqCst); // pairs with the fence in `written`
                modified
            }
        }
    }
}

#[cfg(accounting)]
impl Figures {
    pub(crate) fn lines(&self, lines: &mut Lines) {
        lines.add(&self.modified, "mark of modification", "nobody, until a query clears it");
        lines.add(&self.evictions, "count of evictions", "the evictors of this VMO");
        lines.add(&self.rescues, "count of rescues", "who brings back a page that is on its way out");
    }
}

impl<P: Platform> Pager<P> {
    /// Whether the VMO was modified (`zx_pager_query_vmo_stats()`).
    ///
    /// Writes of bytes, and faults for [`Access::Write`](crate::Access::Write), modify a VMO; supply
    /// and writeback do not. A write that returned before this call is reported by it, or was by an
    /// earlier call that reset the statistics. A write that races with a reset is seen by whoever
    /// reads the VMO after the reset, or the next call reports it, or both.
    ///
    /// What is written through a mapping is reported when it faults. After a reset, a page that is
    /// dirty already faults again once its writeback has [begun](Self::writeback_begin).
    ///
    /// Errors: [`InvalidArgs`](Status::InvalidArgs): the VMO is not this pager's.
    ///
    /// Wait-free. Works in every state of the VMO.
    ///
    /// ```
    /// # use upager::*;
    /// # use std::sync::Arc;
    /// # let platform = Arc::new(HeapPlatform::new());
    /// # let (pager, port) = (Pager::new(platform.clone()), Port::new(platform.clone()));
    /// # let vmo = pager.create_vmo(&port, 1, VmoOptions::NONE, 4096)?;
    /// pager.supply_frames(&vmo, ByteRange::new(0, 4096), [OwnedFrame::new(&*platform)?])?;
    /// assert!(!pager.query_vmo_stats(&vmo, VmoStatsOptions::Keep)?.is_modified());
    /// block_on(vmo.write(ByteOffset(0), b"new"))?;
    /// assert!(pager.query_vmo_stats(&vmo, VmoStatsOptions::Reset)?.is_modified());
    /// assert!(!pager.query_vmo_stats(&vmo, VmoStatsOptions::Keep)?.is_modified());
    /// # Ok::<(), Status>(())
    /// ```
    pub fn query_vmo_stats(&self, vmo: &Vmo<P>, options: VmoStatsOptions) -> Result<VmoStats> {
        self.owns(vmo)?;
        Ok(VmoStats { modified: vmo.inner().figures.query(options) })
    }
}
