//! Anonymous VMOs: memory that no pager stands behind.
//!
//! A page that was never written reads as zeros and stores nothing. A write, a
//! [commit](AnonymousVmo::commit) or a [pin](AnonymousVmo::pin) gives it a frame, and a
//! [decommit](AnonymousVmo::decommit) takes that away again. Nothing here waits for a service, so every call
//! returns what it came to. What such a VMO is for is [`Pager::supply_pages`](crate::Pager::supply_pages):
//! the service reads its file into one, and the pages move from there.
//!
//! It is a type of its own, and not a [`Vmo`](crate::Vmo) without a source: it cannot be detached, supplied
//! to, evicted or written back, and the types say so.
//!
//! # A page
//!
//! Two states of [`slot`](crate::slot): `Empty`, and `Dirty` with a frame and a count of those that hold it,
//! who write to it or have pinned it. Three rules are all there is to the races:
//!
//! 1. **A frame leaves a page only while nobody holds it**, by one swap (`take`). So a writer's bytes are in
//!    the page before it moves or goes, or he finds the page empty and writes to a new one. They are never
//!    lost in between, and never land in a page that another VMO owns already.
//! 2. **A frame that has left is freed after a grace period**, here or by the VMO that it moved to. A reader
//!    is pinned, so the frame he copies from is there; and since it is not allocated again meanwhile, it does
//!    not come back to the page either.
//! 3. **A reader looks again after he has copied, and that look is a step in the page's history**
//!    (`still_has`). A frame that has moved may be written to through its new VMO, and the reader must not
//!    return those bytes. If the page still has the frame, the look comes before the swap that takes it. That
//!    swap reads from the look's release sequence; so the copy happens before the move, and whatever was
//!    written after the move the copy cannot have read. If the page has lost the frame, he reads anew.
//!
//! A plain load for the look would not do. The bytes are copied without order, and the writer through the
//! other VMO stores his without a fence: a reader could see the new byte and then the old word. A look that
//! took hold of the page would do too; but then a mere read would make a supply fail.

use core::fmt;
use core::ops::ControlFlow;

use crate::counts::Kind;
use crate::freeing::Freeing;
use crate::platform::{Frame, OwnedFrame, Platform};
use crate::slot::{Empty, State, Wanted};
use crate::status::{Result, Status};
use crate::sync::Arc;
use crate::table::{At, Table};
use crate::units::{ByteOffset, ByteRange, MAX_VMO_SIZE, PAGE_SIZE, PageCount, PageIndex, PageRange};

/// A VMO whose pages are zeros until they are written, and that no pager stands behind
/// (`zx_vmo_create()`).
///
/// Share it in an `Arc`. Its size is fixed.
///
/// ```
/// # use upager::*;
/// # use std::sync::Arc;
/// let platform = Arc::new(HeapPlatform::new());
/// let vmo = AnonymousVmo::new(platform.clone(), 1 << 40)?;
/// vmo.write(ByteOffset(4094), b"across")?;
/// let mut bytes = [1; 8];
/// vmo.read(ByteOffset(4094), &mut bytes)?;
/// assert_eq!(&bytes, b"across\0\0");
/// assert_eq!(vmo.committed(), PageCount(2));
/// # Ok::<(), Status>(())
/// ```
pub struct AnonymousVmo<P: Platform> {
    table: Table,
    platform: Arc<P>,
    pages: PageCount,
}

/// Keeps pages of an [`AnonymousVmo`] committed, in the frames they have, until it is dropped: for a device
/// that reads or writes them by address (`zx_bti_pin()`). See [`AnonymousVmo::pin`].
#[must_use = "pages are pinned only while this lives"]
pub struct Pinned<'a, P: Platform> {
    vmo: &'a AnonymousVmo<P>,
    pages: PageRange,
}

/// What [`AnonymousVmo::take`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Taken {
    /// The page's frame, the caller's from now on. Readers may still be in it.
    Frame(Frame),
    /// No frame.
    Zeros,
    /// A frame that somebody holds: it stays.
    Held,
}

impl<P: Platform> fmt::Debug for AnonymousVmo<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnonymousVmo")
            .field("size", &self.size())
            .field("committed", &self.committed())
            .finish_non_exhaustive()
    }
}

impl<P: Platform> fmt::Debug for Pinned<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pinned").field("range", &self.range()).finish_non_exhaustive()
    }
}

impl<P: Platform> AnonymousVmo<P> {
    /// A VMO of `size` bytes, rounded up to pages, all zeros.
    ///
    /// Errors: [`OutOfRange`](Status::OutOfRange): larger than [`MAX_VMO_SIZE`];
    /// [`NoMemory`](Status::NoMemory).
    ///
    /// Memory: 12 bytes for each 2 MiB up to 8 GiB.
    pub fn new(platform: Arc<P>, size: u64) -> Result<Self> {
        if size > MAX_VMO_SIZE {
            return Err(Status::OutOfRange);
        }
        let pages = PageCount(size.div_ceil(PAGE_SIZE));
        Ok(Self { table: Table::new(pages)?, platform, pages })
    }

    /// The size in bytes, a multiple of [`PAGE_SIZE`] (`zx_vmo_get_size()`).
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.pages.0 * PAGE_SIZE
    }

    /// How many pages have a frame, or had one a moment ago.
    ///
    /// Wait-free. Costs the groups of 64 pages that are not empty.
    #[must_use]
    pub fn committed(&self) -> PageCount {
        self.table.count(Kind::Resident, self.all())
    }

    /// The platform that its frames come from.
    #[must_use]
    pub const fn platform(&self) -> &Arc<P> {
        &self.platform
    }

    /// Reads `to.len()` bytes from `offset` on, page by page. Pages that are not committed are zeros
    /// (`zx_vmo_read()`).
    ///
    /// Errors: [`OutOfRange`](Status::OutOfRange): past the end, and nothing is read.
    ///
    /// Lock-free. One pin; a copy and one read-modify-write a committed page.
    pub fn read(&self, offset: ByteOffset, to: &mut [u8]) -> Result<()> {
        self.check(offset, to.len())?;
        let _guard = self.platform.pin();
        let mut done = 0;
        while done < to.len() {
            let at = ByteOffset(offset.0 + done as u64);
            let (within, n) = at.part_of_page(to.len() - done);
            self.read_page(at.page(), within, &mut to[done..done + n]);
            done += n;
        }
        Ok(())
    }

    /// Reads a part of one page. The caller is pinned.
    fn read_page(&self, page: PageIndex, within: usize, to: &mut [u8]) {
        while let Some(slot) = self.table.slot(page)
            && let State::Dirty(stored) = slot.load()
        {
            // SAFETY: the caller was pinned before the page was found, so the frame stays allocated; the
            // part lies within the page.
            unsafe { self.platform.copy_out(stored.frame(), within, to) };
            if slot.still_has(stored.frame()) {
                return;
            }
            // The frame has left the page: the bytes may be another VMO's, and are overwritten.
        }
        to.fill(0);
    }

    /// Writes the bytes of `from` at `offset` on, page by page (`zx_vmo_write()`).
    ///
    /// Errors: [`OutOfRange`](Status::OutOfRange): past the end, and nothing is written.
    /// [`NoMemory`](Status::NoMemory), [`NoResources`](Status::NoResources): 2^17 - 1 others write or pin a
    /// page. A prefix of `from` is written then, which ends with a page.
    ///
    /// Lock-free. Two atomic additions and one copy a page, one more for a page that is committed by it.
    pub fn write(&self, offset: ByteOffset, from: &[u8]) -> Result<()> {
        self.check(offset, from.len())?;
        let mut done = 0;
        while done < from.len() {
            let at = ByteOffset(offset.0 + done as u64);
            let (within, n) = at.part_of_page(from.len() - done);
            let (place, frame) = self.hold(at.page())?;
            // SAFETY: the page is held, so it keeps this frame, allocated; the part lies within the page.
            unsafe { self.platform.copy_in(frame, within, &from[done..done + n]) };
            place.slot().end_write(frame);
            done += n;
        }
        Ok(())
    }

    /// Gives every page of `range`, rounded out to pages, a frame (`zx_vmo_op_range()`,
    /// `ZX_VMO_OP_COMMIT`).
    ///
    /// Errors: [`OutOfRange`](Status::OutOfRange), and nothing has changed; [`NoMemory`](Status::NoMemory),
    /// and the pages before are committed.
    ///
    /// Lock-free.
    pub fn commit(&self, range: ByteRange) -> Result<()> {
        let pages = range.pages_touched(self.pages)?;
        for page in pages.start..pages.end {
            let at = self.table.find_or_make(PageIndex(page))?;
            while let State::Empty(empty) = at.slot().load() {
                self.commit_page(at, empty)?;
            }
        }
        Ok(())
    }

    /// Takes the frames of the pages of `range` away: they read as zeros again (`zx_vmo_op_range()`,
    /// `ZX_VMO_OP_DECOMMIT`).
    ///
    /// Errors: [`InvalidArgs`](Status::InvalidArgs): the range is not aligned to pages;
    /// [`OutOfRange`](Status::OutOfRange); [`BadState`](Status::BadState): a page is
    /// [pinned](Self::pin) or being written. Nothing has changed then, unless somebody took hold of the page
    /// only while this call was under way: then the other pages are decommitted.
    ///
    /// Lock-free. Costs the pages that have slots.
    pub fn decommit(&self, range: ByteRange) -> Result<()> {
        let pages = range.pages_exact(self.pages)?;
        if self.has_held(pages) {
            return Err(Status::BadState);
        }
        self.drop_pages(pages, &mut Freeing::new(&self.platform))
    }

    /// Makes the bytes of `range` zeros (`zx_vmo_op_range()`, `ZX_VMO_OP_ZERO`). Whole pages lose their frames;
    /// zeros are written to those that are [pinned](Self::pin) or being written, and where the range begins or
    /// ends within a page that is committed.
    ///
    /// Errors: [`OutOfRange`](Status::OutOfRange), and nothing has changed; those of [`write`](Self::write),
    /// and a part of the range is zeros.
    ///
    /// Lock-free. Costs the pages that have slots.
    pub fn zero(&self, range: ByteRange) -> Result<()> {
        range.pages_touched(self.pages)?;
        let end = range.offset + range.length;
        let whole = PageRange { start: range.offset.div_ceil(PAGE_SIZE), end: end / PAGE_SIZE };
        let before = end.min(whole.start * PAGE_SIZE);
        let after = before.max(whole.end * PAGE_SIZE);
        self.write_zeros(range.offset, before)?;
        let mut freeing = Freeing::new(&self.platform);
        let flow = self.table.scan_pages(Wanted::Resident, whole, |page, at, _| {
            match Self::take_at(at) {
                Taken::Frame(frame) => freeing.push(frame),
                Taken::Zeros => {}
                Taken::Held => {
                    let start = page.offset().0;
                    if let Err(status) = self.write_zeros(start, start + PAGE_SIZE) {
                        return ControlFlow::Break(status);
                    }
                }
            }
            ControlFlow::Continue(())
        });
        if let ControlFlow::Break(status) = flow {
            return Err(status);
        }
        self.write_zeros(after, end)
    }

    /// Writes zeros to a part of a page, if it is committed.
    fn write_zeros(&self, from: u64, to: u64) -> Result<()> {
        const ZEROS: [u8; PAGE_SIZE as usize] = [0; PAGE_SIZE as usize];
        let from = ByteOffset(from);
        let slot = self.table.slot(from.page());
        if from.0 < to && slot.is_some_and(|slot| matches!(slot.load(), State::Dirty(_))) {
            self.write(from, &ZEROS[..(to - from.0) as usize])?;
        }
        Ok(())
    }

    /// Commits the pages of `range`, and keeps them committed and where they are until the guard is
    /// dropped. Others may read and write them; a decommit and a supply out of them fail with
    /// [`BadState`](Status::BadState).
    ///
    /// Errors: [`InvalidArgs`](Status::InvalidArgs): the range is not aligned to pages;
    /// [`OutOfRange`](Status::OutOfRange); and nothing has changed. [`NoMemory`](Status::NoMemory),
    /// [`NoResources`](Status::NoResources): 2^17 - 1 others write or pin a page. Nothing is pinned then, but
    /// pages before may have been committed.
    ///
    /// Lock-free. Costs the pages of the range; so does the guard's drop.
    ///
    /// ```
    /// # use upager::*;
    /// # use std::sync::Arc;
    /// let vmo = AnonymousVmo::new(Arc::new(HeapPlatform::new()), 8192)?;
    /// let pinned = vmo.pin(ByteRange::new(0, 4096))?;
    /// assert!(pinned.frame(PageIndex(0)).is_some());
    /// assert_eq!(vmo.decommit(ByteRange::new(0, 8192)), Err(Status::BadState));
    /// drop(pinned);
    /// assert_eq!(vmo.decommit(ByteRange::new(0, 8192)), Ok(()));
    /// # Ok::<(), Status>(())
    /// ```
    pub fn pin(&self, range: ByteRange) -> Result<Pinned<'_, P>> {
        let pages = range.pages_exact(self.pages)?;
        let mut pinned = Pinned { vmo: self, pages: PageRange { start: pages.start, end: pages.start } };
        while pinned.pages.end < pages.end {
            self.hold(PageIndex(pinned.pages.end))?; // failing: those before are let go by the guard
            pinned.pages.end += 1;
        }
        Ok(pinned)
    }

    const fn all(&self) -> PageRange {
        PageRange { start: 0, end: self.pages.0 }
    }

    pub(crate) const fn pages(&self) -> PageCount {
        self.pages
    }

    /// Whether this is the platform that the frames come from.
    pub(crate) fn is_on(&self, platform: &Arc<P>) -> bool {
        Arc::ptr_eq(&self.platform, platform)
    }

    fn check(&self, offset: ByteOffset, len: usize) -> Result<()> {
        ByteRange::new(offset.0, len as u64).pages_touched(self.pages).map(drop)
    }

    /// Gives an empty page a frame. Returning says: look again.
    fn commit_page(&self, at: At<'_>, empty: Empty) -> Result<()> {
        let frame = OwnedFrame::new(&*self.platform)?;
        at.raise(Kind::Resident);
        if empty.commit(at.slot(), frame.frame()).is_ok() {
            let _: Frame = frame.into_frame(); // the slot owns it now
        } else {
            at.lower(Kind::Resident);
        }
        Ok(())
    }

    /// Takes hold of a page, committing it.
    fn hold(&self, page: PageIndex) -> Result<(At<'_>, Frame)> {
        let at = self.table.find_or_make(page)?;
        loop {
            match at.slot().load() {
                State::Empty(empty) => self.commit_page(at, empty)?,
                State::Dirty(stored) => match stored.begin_write(at.slot()) {
                    None => return Err(Status::NoResources),
                    Some(Ok(())) => return Ok((at, stored.frame())),
                    Some(Err(_)) => {}
                },
                _ => return Err(Status::Internal), // no arrow of this module leads there
            }
        }
    }

    /// Whether somebody holds a page of the range.
    pub(crate) fn has_held(&self, range: PageRange) -> bool {
        let held = self.table.scan_pages(Wanted::Resident, range, |_, _, state| match state {
            State::Dirty(stored) if stored.has_writers() => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        });
        held.is_break()
    }

    /// Takes a page's frame out.
    pub(crate) fn take(&self, page: PageIndex) -> Taken {
        self.table.find(page).map_or(Taken::Zeros, Self::take_at)
    }

    fn take_at(at: At<'_>) -> Taken {
        while let State::Dirty(stored) = at.slot().load() {
            if stored.has_writers() {
                return Taken::Held;
            }
            if let Ok(frame) = stored.take(at.slot()) {
                at.lower(Kind::Resident);
                return Taken::Frame(frame);
            }
        }
        Taken::Zeros
    }

    /// Frees the frames of the range.
    ///
    /// # Errors
    /// `BadState`: somebody holds some of the pages. These stay as they are.
    pub(crate) fn drop_pages(&self, range: PageRange, freeing: &mut Freeing<'_, P>) -> Result<()> {
        let mut dropped = Ok(());
        let _: ControlFlow<()> = self.table.scan_pages(Wanted::Resident, range, |_, at, _| {
            match Self::take_at(at) {
                Taken::Frame(frame) => freeing.push(frame),
                Taken::Zeros => {}
                Taken::Held => dropped = Err(Status::BadState),
            }
            ControlFlow::Continue(())
        });
        dropped
    }
}

impl<P: Platform> Drop for AnonymousVmo<P> {
    fn drop(&mut self) {
        #[cfg(loom)]
        self.table.check_counts(&[Kind::Resident]); // those of dirty pages are not kept here
        // At once: nobody else has the VMO, so nobody reads or writes it, and nothing is pinned.
        let _: ControlFlow<()> = self.table.scan_pages(Wanted::Resident, PageRange::ALL, |_, _, state| {
            #[cfg(loom)]
            state.check_no_writers();
            if let State::Dirty(stored) = state {
                // SAFETY: the frame came from the platform and is the page's; whoever found it there did
                // so through a reference to the VMO, in a call that has ended or a guard that is gone.
                unsafe { self.platform.free(stored.frame()) };
            }
            ControlFlow::Continue(())
        });
        self.platform.freed();
    }
}

impl<P: Platform> Pinned<'_, P> {
    /// The bytes that are pinned.
    #[must_use]
    pub const fn range(&self) -> ByteRange {
        self.pages.bytes()
    }

    /// The frame of a pinned page, which stays allocated, and the page's, while the guard lives. `None`: the
    /// page is not among the pinned ones.
    #[must_use]
    pub fn frame(&self, page: PageIndex) -> Option<Frame> {
        if page.0 < self.pages.start || page.0 >= self.pages.end {
            return None;
        }
        match self.vmo.table.slot(page)?.load() {
            State::Dirty(stored) => Some(stored.frame()),
            _ => None, // not reached: a page that is held stays as it is
        }
    }
}

impl<P: Platform> Drop for Pinned<'_, P> {
    fn drop(&mut self) {
        for page in self.pages.start..self.pages.end {
            let page = PageIndex(page);
            if let (Some(slot), Some(frame)) = (self.vmo.table.slot(page), self.frame(page)) {
                slot.end_write(frame);
            }
        }
    }
}
