//! The size of a VMO, and how it changes.
//!
//! To grow, the pages past the end become dirty zeros first, and then the size is set: so nobody finds
//! a page there that is anything else. To shrink, the size is set first, and then what lies beyond goes:
//! its requests fail with OUT_OF_RANGE, those that straddle the end are cut, its content is dropped,
//! dirty or not.
//!
//! # Who is late
//!
//! Every call looks at the size, and then at pages. One that looked before a shrink may be late:
//!
//! - A faulter claims a request and then looks at the size; the shrink sets the size and then walks the
//!   requests. By the rule of the walk ([`pool`](crate::pool)) one of the two notices the other.
//! - A supply that put pages past the end looks at the size once more before it returns, and drops them.
//!   Until then only a [lookup](crate::Vmo::lookup) can use them: every access looks at the size again
//!   after it has seen the page. If the shrink dropped what was there before, the supply's swap read the
//!   shrink's, so whoever sees the page sees the size. If the page was absent all the time, what the supply
//!   brought is what it would have been before the shrink; should the access miss the size, it came before.
//! - A page that such a supply put there may be made dirty before it is dropped: where dirtying is trapped, by a leave
//!   that looked before the shrink too; on a weak memory model, by a write that reads the size as it was. The supply passes
//!   it over then: it is counted, and a lookup finds it, until the next resize or the end of the VMO. No access and no
//!   query does.
//! - A page that was on its way out could be brought back: so the shrink drops these too, by a swap, and
//!   whoever read the word before fails.
//! - Zeros may be put past the end. Nobody finds them there, and they are gone at the latest with the next
//!   resize, or with the VMO: growing makes zeros of whatever it meets.
//!
//! # One at a time
//!
//! Two resizes of one VMO exclude each other: the second is told so, and changes nothing. It is the one
//! place where a thread that is stopped keeps others from something, and all that it keeps them from is
//! resizing this VMO; docs/DECISIONS.md says why. Faults, supply, writeback, eviction and detach go on.

use core::cmp::Ordering;

use crate::platform::Platform;
use crate::status::{Result, Status};
use crate::sync::{Acquire, Arc, AtomicU32, AtomicU64, Relaxed, Release, SeqCst, fence};
use crate::units::{MAX_VMO_SIZE, PAGE_SIZE, PageCount, PageRange};
use crate::vmo::{Inner, Vmo};
use crate::zero::{drop_pages, zero_pages};

/// The size of a VMO.
pub(crate) struct Extent {
    pages: AtomicU64,
    state: AtomicU32,
}

const FIXED: u32 = 0;
const IDLE: u32 = 1;
const CHANGING: u32 = 2;

impl Extent {
    pub(crate) fn new(pages: PageCount, resizable: bool) -> Self {
        let state = if resizable { IDLE } else { FIXED };
        Self { pages: AtomicU64::new(pages.0), state: AtomicU32::new(state) }
    }

    #[inline]
    pub(crate) fn pages(&self) -> PageCount {
        PageCount(self.pages.load(Acquire)) // Acquire: pairs with `set`, for the zeros of a growth
    }

    #[inline]
    pub(crate) fn is_resizable(&self) -> bool {
        self.state.load(Relaxed) != FIXED // Relaxed: it never changes from or to this
    }

    fn set(&self, pages: PageCount) {
        self.pages.store(pages.0, Release); // Release: publishes the zeros of a growth to `pages`
    }

    /// Begins a change.
    fn begin(&self) -> Result<()> {
        // Acquire takes over what the last change did, from its end. Relaxed: who is refused does nothing.
        match self.state.compare_exchange(IDLE, CHANGING, Acquire, Relaxed) {
            Ok(_) => Ok(()),
            Err(FIXED) => Err(Status::Unavailable),
            Err(_) => Err(Status::ShouldWait),
        }
    }

    fn end(&self) {
        self.state.store(IDLE, Release); // Release: pairs with `begin`
    }
}

fn shrink<P: Platform>(vmo: &Arc<Inner<P>>, to: PageCount) -> Result<()> {
    vmo.extent.set(to);
    // Pairs with the fence in `supply_frames`: either it sees our size, or we see its pages.
    fence(SeqCst);
    vmo.source.shrink(&vmo.table, to.0);
    drop_pages(vmo, to.0)
}

fn grow<P: Platform>(vmo: &Arc<Inner<P>>, from: PageCount, to: PageCount) -> Result<()> {
    vmo.table.grow(to)?;
    let zeroed = zero_pages(vmo, PageRange { start: from.0, end: to.0 });
    if zeroed.is_err() {
        let _: Result<()> = drop_pages(vmo, from.0); // failing: the next growth makes zeros of them again
        return zeroed;
    }
    vmo.extent.set(to);
    Ok(())
}

impl<P: Platform> Vmo<P> {
    /// Sets the size, in bytes, rounded up to pages. Growing adds dirty zeros; shrinking drops what lies
    /// beyond, dirty or not, and fails the requests for it with [`OutOfRange`](Status::OutOfRange). A
    /// request that straddles the end goes on for the pages before it.
    ///
    /// Works in every state of the VMO, and counts as a modification.
    ///
    /// Errors: [`Unavailable`](Status::Unavailable): the VMO is not resizable;
    /// [`OutOfRange`](Status::OutOfRange): larger than [`MAX_VMO_SIZE`];
    /// [`ShouldWait`](Status::ShouldWait): another thread is resizing it. Nothing has changed then.
    /// [`NoMemory`](Status::NoMemory): growing, nothing has changed; shrinking, the size is set, and zeros
    /// that could not be divided stay past the end, where nobody finds them (`zx_vmo_set_size()`).
    ///
    /// Waits for nobody, and others only in this call. Shrinking costs the requests in flight and the
    /// table's nodes beyond the end; growing costs its nodes at both ends of what is added. Not the size.
    ///
    /// ```
    /// # use upager::*;
    /// # use std::sync::Arc;
    /// # let platform = Arc::new(HeapPlatform::new());
    /// # let (pager, port) = (Pager::new(platform.clone()), Port::new(platform.clone()));
    /// let vmo = pager.create_vmo(&port, 1, VmoOptions::RESIZABLE, 4096)?;
    /// vmo.set_size(1 << 40)?;
    /// let mut end = [1; 8];
    /// block_on(vmo.read(ByteOffset((1 << 40) - 8), &mut end))?;
    /// assert_eq!(end, [0; 8]);
    /// vmo.set_size(0)?;
    /// assert_eq!(block_on(vmo.read(ByteOffset(0), &mut end)), Err(Status::OutOfRange));
    /// # Ok::<(), Status>(())
    /// ```
    pub fn set_size(&self, size: u64) -> Result<()> {
        let inner = self.inner();
        if !inner.extent.is_resizable() {
            return Err(Status::Unavailable);
        }
        if size > MAX_VMO_SIZE {
            return Err(Status::OutOfRange);
        }
        inner.extent.begin()?;
        let (from, to) = (inner.pages(), PageCount(size.div_ceil(PAGE_SIZE)));
        let resized = match to.cmp(&from) {
            Ordering::Greater => grow(inner, from, to),
            Ordering::Less => shrink(inner, to),
            Ordering::Equal => Ok(()),
        };
        inner.extent.end();
        if inner.pages() == to {
            inner.figures.written(); // after the change
        }
        resized
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use core::future::Future;
    use core::pin::pin;
    use core::task::{Context, Poll, Waker};

    use super::*;
    use crate::supply::look_again;
    use crate::units::{ByteRange, PageIndex};
    use crate::{Access, HeapPlatform, OwnedFrame, Pager, Port, VmoOptions};

    /// A supplier may find his page past a new end, and under a request for leave, before the shrink has come to it.
    #[test]
    fn a_page_that_is_taken_back_past_the_end_leaves_its_request_to_the_pages_before() {
        let platform = Arc::new(HeapPlatform::new());
        let (pager, port) = (Pager::new(platform.clone()), Port::new(platform.clone()));
        let options = VmoOptions::TRAP_DIRTY | VmoOptions::RESIZABLE;
        let vmo = pager.create_vmo(&port, 1, options, 2 * PAGE_SIZE).unwrap();
        let frames = [(); 2].map(|()| OwnedFrame::new(&*platform).unwrap());
        pager.supply_frames(&vmo, ByteRange::new(0, 2 * PAGE_SIZE), frames).unwrap();
        let mut write = pin!(vmo.fault_run(PageIndex(0), PageCount(2), Access::Write));
        let mut poll = || write.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(poll().is_pending());
        vmo.inner().extent.set(PageCount(1)); // a shrink's first step
        look_again(vmo.inner(), PageRange { start: 0, end: 2 });
        assert!(poll().is_pending(), "nobody has refused it");
        pager.dirty_range(&vmo, ByteRange::new(0, PAGE_SIZE)).unwrap();
        assert_eq!(poll(), Poll::Ready(Ok(())));
    }
}
