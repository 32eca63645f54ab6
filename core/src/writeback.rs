//! How dirty pages leave: query them, begin, write them out, end. Works after detach too.
//!
//! # No write is lost
//!
//! A page is cleaned only if no write fell between BEGIN and END: a write takes it back to dirty,
//! and END leaves a dirty page alone. A write that is still copying when BEGIN comes holds the
//! page, and BEGIN passes over it. So the bytes that a page has when it becomes clean are the
//! bytes it had when BEGIN took it, and the service, which reads them in between, reads those.
//!
//! A mapped writer is not seen writing. So BEGIN takes write access from every mapping, after the
//! state has moved and before it returns; [`hold`](crate::hold) tells why in that order. It does so for pages too
//! that another BEGIN has taken, since that one may not have come to it yet.
//!
//! Writebacks that overlap are told apart no further than Zircon does: after BEGIN, write, BEGIN,
//! an END cleans the page whichever BEGIN it was meant for. A service that writes the same range
//! back from two threads at once must keep its own order.

use core::ops::ControlFlow;

use crate::counts::Kind;
use crate::pager::Pager;
use crate::platform::Platform;
use crate::reclaim::Retired;
use crate::slot::{State, Unstored, Wanted};
use crate::status::Result;
use crate::sync::{SeqCst, fence};
use crate::table::{Content, Item, Left, Partly};
use crate::units::{ByteRange, PAGE_SIZE, PageCount, PageIndex, PageRange};
use crate::vmo::{Inner, Vmo};

/// A run of dirty pages (`zx_vmo_dirty_range_t`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(C)]
pub struct DirtyRange {
    /// First byte; a multiple of the page size.
    pub offset: u64,
    /// Bytes; a multiple of the page size.
    pub length: u64,
    /// 0: stored pages. [`ZERO`](Self::ZERO): zeros that are not stored.
    pub options: u64,
}

impl DirtyRange {
    /// In [`options`](Self::options): the bytes are zeros, and no page holds them
    /// (`ZX_VMO_DIRTY_RANGE_IS_ZERO`).
    pub const ZERO: u64 = 1;

    /// The bytes of the run.
    #[must_use]
    pub const fn range(&self) -> ByteRange {
        ByteRange::new(self.offset, self.length)
    }
}

/// What a query found.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct DirtyRanges {
    /// Entries written to the buffer.
    pub actual: usize,
    /// Entries there were. More than `actual`: the buffer was too small.
    pub available: usize,
}

/// Which dirty pages a writeback is about (`data` of `ZX_PAGER_OP_WRITEBACK_BEGIN`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Writeback {
    /// All of the range.
    #[default]
    All,
    /// Only ranges of zeros that are not stored. Stored dirty pages stay dirty: the service is
    /// about to write zeros.
    ZeroRanges,
}

/// Pages that have begun to be written back and are not write-protected yet: a run of them is one step
/// of the platform's. When it is dropped, all are.
struct Protect<'a, P: Platform> {
    vmo: &'a Inner<P>,
    run: Option<PageRange>,
}

impl<P: Platform> Protect<'_, P> {
    fn add(&mut self, page: PageIndex) {
        match &mut self.run {
            Some(run) if run.end == page.0 => run.end += 1,
            _ => {
                self.protect();
                self.run = Some(PageRange { start: page.0, end: page.0 + 1 });
            }
        }
    }

    fn protect(&mut self) {
        if let Some(run) = self.run.take() {
            let count = PageCount(run.end - run.start);
            self.vmo.platform.write_protect_run(self.vmo.id(), PageIndex(run.start), count);
        }
    }
}

impl<P: Platform> Drop for Protect<'_, P> {
    fn drop(&mut self) {
        self.protect();
    }
}

impl<P: Platform> Pager<P> {
    /// Writes the dirty runs of `range` to `buffer`, in ascending order and merged, those being
    /// written back included, and runs of zeros apart. The ends of `range` are rounded out to pages.
    ///
    /// A page that was dirty before the call is in the buffer, or begins after the last entry in
    /// it. Who finds a page clean sees what was done before the END that cleaned it. Works in every state of the VMO.
    ///
    /// Errors: [`InvalidArgs`](crate::Status::InvalidArgs): the VMO is not this pager's;
    /// [`OutOfRange`](crate::Status::OutOfRange) (`zx_pager_query_dirty_ranges()`).
    ///
    /// Wait-free. Costs the groups of 64 pages that hold a dirty one.
    pub fn query_dirty_ranges(&self, vmo: &Vmo<P>, range: ByteRange, buffer: &mut [DirtyRange]) -> Result<DirtyRanges> {
        self.owns(vmo)?;
        let inner = vmo.inner();
        let pages = range.pages_touched(inner.pages())?;
        let mut found = DirtyRanges::default();
        let mut run: Option<(PageRange, Content)> = None;
        let mut emit = |run: Option<(PageRange, Content)>| {
            let Some((pages, content)) = run else { return };
            if let Some(entry) = buffer.get_mut(found.available) {
                let (offset, length) = (pages.start * PAGE_SIZE, (pages.end - pages.start) * PAGE_SIZE);
                let options = if content == Content::Zeros { DirtyRange::ZERO } else { 0 };
                *entry = DirtyRange { offset, length, options };
                found.actual += 1;
            }
            found.available += 1;
        };
        let mut add = |pages: PageRange, content| match &mut run {
            Some((before, same)) if before.end == pages.start && *same == content => before.end = pages.end,
            _ => emit(run.replace((pages, content))),
        };
        let _: Result<ControlFlow<()>> = inner.table.scan(Kind::Dirty, pages, Partly::Show, |item| {
            match item {
                Item::Zeros(zeros) => add(zeros.pages, Content::Zeros),
                Item::Group(group) => group.dirty_runs(&mut add),
            }
            ControlFlow::Continue(())
        });
        emit(run);
        Ok(found)
    }

    /// Says that the service is about to write the dirty pages of `range` back. Each becomes
    /// awaiting clean, except those in which a write is under way at this moment, which stay
    /// dirty. Read the pages after this call, write them out, then call
    /// [`writeback_end`](Self::writeback_end).
    ///
    /// Errors: [`InvalidArgs`](crate::Status::InvalidArgs): the VMO is not this pager's, or the
    /// range is not aligned; [`OutOfRange`](crate::Status::OutOfRange);
    /// [`NoMemory`](crate::Status::NoMemory): zeros that lie partly in the range cannot be divided, and
    /// the pages before have begun
    /// (`zx_pager_op_range()`, `ZX_PAGER_OP_WRITEBACK_BEGIN`).
    ///
    /// Lock-free. Costs the groups of 64 pages that hold a dirty one.
    pub fn writeback_begin(&self, vmo: &Vmo<P>, range: ByteRange, which: Writeback) -> Result<()> {
        self.owns(vmo)?;
        let inner = vmo.inner();
        let pages = range.pages_exact(inner.pages())?;
        let mut protect = Protect { vmo: inner, run: None };
        let scanned = inner.table.scan(Kind::Dirty, pages, Partly::Divide, |item| match item {
            Item::Zeros(zeros) => {
                // False: they await it already, or are not what they were.
                zeros.set(Unstored::Zero, Unstored::ZeroAwaiting);
                ControlFlow::<()>::Continue(())
            }
            Item::Group(group) => group.each(Wanted::Dirty, |page, at, mut state| {
                loop {
                    let begun = match state {
                        State::Dirty(dirty) if which == Writeback::All && !dirty.has_writers() => {
                            let begun = dirty.writeback_begin(at.slot());
                            if begun.is_ok() {
                                protect.add(page);
                            }
                            begun
                        }
                        State::AwaitingClean(_) if which == Writeback::All => {
                            protect.add(page);
                            Ok(())
                        }
                        State::DirtyRequested(trapped) if which == Writeback::All && trapped.is_awaiting() => {
                            protect.add(page);
                            Ok(())
                        }
                        State::Zero(zeros) => zeros.writeback_begin(at.slot()),
                        _ => Ok(()),
                    };
                    match begun {
                        Ok(()) => return ControlFlow::Continue(()),
                        Err(now) => state = now,
                    }
                }
            }),
        });
        drop(protect); // before BEGIN returns
        scanned.map(drop)
    }

    /// Says that the service has written back what it [began](Self::writeback_begin) to. Pages of
    /// `range` that were not written to since become clean; in a detached VMO they go.
    ///
    /// Errors: as of [`writeback_begin`](Self::writeback_begin)
    /// (`zx_pager_op_range()`, `ZX_PAGER_OP_WRITEBACK_END`).
    ///
    /// Lock-free. Costs the groups of 64 pages that hold a dirty one.
    pub fn writeback_end(&self, vmo: &Vmo<P>, range: ByteRange) -> Result<()> {
        self.owns(vmo)?;
        let inner = vmo.inner();
        let pages = range.pages_exact(inner.pages())?;
        let mut left = Left::new(Kind::Dirty);
        let scanned = inner.table.scan(Kind::Dirty, pages, Partly::Divide, |item| match item {
            Item::Zeros(zeros) => {
                zeros.set(Unstored::ZeroAwaiting, Unstored::Absent); // false: they were made dirty anew
                ControlFlow::<()>::Continue(())
            }
            Item::Group(group) => group.each(Wanted::Dirty, |_, at, mut state| {
                loop {
                    let cleaned = match state {
                        State::AwaitingClean(awaiting) => awaiting.writeback_end(at.slot()).is_ok(),
                        // Not if a permit was granted: the page is dirty then, and `trapped` moves it on.
                        State::DirtyRequested(trapped) if trapped.is_awaiting() => {
                            inner.trapped(at).is_some() && trapped.writeback_end(at.slot()).is_ok()
                        }
                        State::Zero(zeros) if zeros.is_awaiting() => zeros.writeback_end(at.slot()).is_ok(),
                        _ => return ControlFlow::Continue(()),
                    };
                    if cleaned {
                        left.add(at);
                        return ControlFlow::Continue(());
                    }
                    state = at.slot().load();
                }
            }),
        });
        drop(left);
        // Pairs with the fence in `detach_vmo`: either we see its mark here, or it sees our pages.
        fence(SeqCst);
        if inner.source.is_detached() {
            Retired::new(inner).evict_clean(pages);
        }
        scanned.map(drop)
    }
}
