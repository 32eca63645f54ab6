//! A platform whose frames are numbers with no memory behind them, so that a VMO of any size can be
//! resident and only the pager is measured.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use upager::{Frame, Guard, PageCount, Platform, Result, Status};

/// Frames without memory. Copies do nothing.
#[derive(Debug, Default)]
pub struct Numbers {
    /// Frames allocated since the platform was made.
    allocated: AtomicU64,
    freed: AtomicU64,
}

impl Numbers {
    /// How many frames are allocated now, those included that wait for a grace period.
    #[must_use]
    pub fn frames(&self) -> PageCount {
        // Relaxed: figures, they order nothing. The freed are read first: fewer than allocated.
        let freed = self.freed.load(Relaxed);
        PageCount(self.allocated.load(Relaxed) - freed)
    }
}

impl Platform for Numbers {
    #[inline]
    fn pin(&self) -> Guard {
        crossbeam_epoch::pin()
    }

    fn allocate(&self) -> Result<Frame> {
        Frame::new(self.allocated.fetch_add(1, Relaxed)).ok_or(Status::NoMemory) // Relaxed: only unique
    }

    unsafe fn free(&self, _frame: Frame) {
        self.freed.fetch_add(1, Relaxed); // Relaxed: a figure
    }

    unsafe fn copy_out(&self, _frame: Frame, _offset: usize, _to: &mut [u8]) {}

    unsafe fn copy_in(&self, _frame: Frame, _offset: usize, _from: &[u8]) {}
}
