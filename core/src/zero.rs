//! Zeros that are not stored: content that no page holds, and the service has not got.
//!
//! [`Vmo::zero`] makes them. A reader of bytes reads zeros; a writer, and a fault that wants a frame,
//! first stores a page of zeros, which is dirty as the zeros were. Writeback sees them apart from
//! stored pages: the service can write zeros, or punch a hole, without reading a page.
//!
//! They cost no memory but for the table's nodes where they begin and end ([`table`](crate::table)).
//!
//! # What they replace
//!
//! A page's content is replaced by one swap of its word, whatever the page is, and its frame is freed
//! after a grace period. A writer whose bytes are on their way into it comes before: they go with it.
//! A READ in flight for the page is answered. Dirtying is not asked for, even where it is trapped: there
//! is nothing that the service would have to make room for.

use crate::counts::Kind as Count;
use crate::freeing::Freeing;
use crate::platform::{Frame, OwnedFrame, Platform};
use crate::slot::{State, Unstored, Zero};
use crate::status::{Result, Status};
use crate::supply::Arrivals;
use crate::sync::Arc;
use crate::table::At;
use crate::trap::Trapped;
use crate::units::{ByteOffset, ByteRange, PAGE_SIZE, PageIndex, PageRange};
use crate::vmo::{Inner, Vmo};

/// Where the frames of replaced pages go.
struct Replaced<'a, P: Platform> {
    vmo: &'a Arc<Inner<P>>,
    freeing: Freeing<'a, P>,
}

impl<P: Platform> Replaced<'_, P> {
    fn push(&mut self, page: PageIndex, frame: Frame) {
        self.vmo.platform.unmap(self.vmo.id(), page);
        self.vmo.platform.unmapped();
        self.freeing.push(frame);
    }
}

impl<P: Platform> Inner<P> {
    /// Stores a page of zeros in place of those that are not stored. Returning says: look again.
    pub(crate) fn store_zeros(&self, at: At<'_>, zeros: Zero) -> Result<()> {
        let frame = OwnedFrame::new(&*self.platform)?;
        at.raise(Count::Resident);
        if zeros.store(at.slot(), frame.frame()).is_ok() {
            let _: Frame = frame.into_frame(); // the slot owns it now
        } else {
            at.lower(Count::Resident);
        }
        Ok(())
    }

    /// Has a page that was seen to be zeros stored. True: it is none, and absent.
    pub(crate) fn store_page(&self, page: PageIndex) -> Result<bool> {
        let at = self.table.find_or_make(page)?;
        loop {
            match at.slot().load() {
                State::Zero(zeros) => self.store_zeros(at, zeros)?,
                State::Empty(_) | State::Requested(_) => return Ok(true),
                _ => return Ok(false),
            }
        }
    }
}

/// Replaces one page by dirty zeros, or by nothing.
fn replace<P: Platform>(
    page: PageIndex,
    at: At<'_>,
    with: Unstored,
    replaced: &mut Replaced<'_, P>,
    arrivals: &mut Arrivals<'_, P>,
) {
    let vmo = replaced.vmo;
    let becomes_dirty = with != Unstored::Absent;
    loop {
        let seen = at.slot().load();
        // Whether the page counts as dirty, and as resident, before.
        let (dirty, resident) = match seen {
            State::Zero(zeros) if becomes_dirty && !zeros.is_awaiting() => return,
            State::Zero(_) => (true, false),
            // Requests are cut, or failed, before.
            State::Empty(_) | State::Requested(_) if !becomes_dirty => return,
            State::Empty(_) | State::Requested(_) | State::Evicting(_) => (false, false),
            State::Clean(_) => (false, true),
            State::Dirty(_) | State::AwaitingClean(_) => (true, true),
            State::DirtyRequested(trapped) => match vmo.trapped(at) {
                Some(Trapped::Permitted(_, permit)) if !becomes_dirty => {
                    vmo.refuse(permit, Status::OutOfRange);
                    continue;
                }
                // To a permit, a page of zeros is dirty.
                Some(Trapped::Asked(..) | Trapped::Permitted(..)) => (trapped.is_awaiting(), true),
                None => continue,
            },
        };
        if !dirty && becomes_dirty {
            at.raise(Count::Dirty);
        }
        match seen.replace(at.slot(), with) {
            Ok(frame) => {
                if dirty && !becomes_dirty {
                    at.lower(Count::Dirty);
                }
                if resident {
                    at.lower(Count::Resident);
                }
                if let Some(frame) = frame {
                    replaced.push(page, frame);
                }
                match seen {
                    State::Requested(requested) => arrivals.add(requested.id()),
                    State::DirtyRequested(trapped) => vmo.source.left(&vmo.table, trapped.index()),
                    _ => {}
                }
                return;
            }
            Err(_) => {
                if !dirty && becomes_dirty {
                    at.lower(Count::Dirty);
                }
            }
        }
    }
}

/// Drops what there is of the pages from `end` on.
pub(crate) fn drop_pages<P: Platform>(vmo: &Arc<Inner<P>>, end: u64) -> Result<()> {
    let beyond = PageRange { start: end, end: PageRange::ALL.end };
    fill(vmo, beyond, Unstored::Absent)
}

/// Makes pages zeros, dirty.
pub(crate) fn zero_pages<P: Platform>(vmo: &Arc<Inner<P>>, pages: PageRange) -> Result<()> {
    fill(vmo, pages, Unstored::Zero)
}

fn fill<P: Platform>(vmo: &Arc<Inner<P>>, pages: PageRange, with: Unstored) -> Result<()> {
    let mut replaced = Replaced { vmo, freeing: Freeing::new(&vmo.platform) };
    let mut arrivals = Arrivals::new(vmo);
    vmo.table.fill(pages, with, |page, at| replace(page, at, with, &mut replaced, &mut arrivals))
}

impl<P: Platform> Vmo<P> {
    /// Makes the bytes of `range` zeros, as [`write`](Self::write) would, without storing pages for
    /// them: whole pages become dirty zeros. Where the range begins or ends within a page, its bytes
    /// are written, and the page must be brought in for that.
    ///
    /// Works in every state of the VMO. Dirtying is not asked for, except for the pages in part.
    ///
    /// Errors: [`OutOfRange`](crate::Status::OutOfRange), and nothing has changed;
    /// [`NoMemory`](crate::Status::NoMemory) and those of [`write`](Self::write), and a part of the
    /// range is zeros (`zx_vmo_op_range()`, `ZX_VMO_OP_ZERO`).
    ///
    /// Lock-free. Costs the pages that have slots, and the table's nodes at both ends of the range.
    ///
    /// ```
    /// # use upager::*;
    /// # use std::sync::Arc;
    /// # let platform = Arc::new(HeapPlatform::new());
    /// # let (pager, port) = (Pager::new(platform.clone()), Port::new(platform.clone()));
    /// let vmo = pager.create_vmo(&port, 1, VmoOptions::NONE, 1 << 40)?;
    /// block_on(vmo.zero(ByteRange::new(0, 1 << 40)))?;
    /// let mut dirty = [DirtyRange::default(); 2];
    /// let found = pager.query_dirty_ranges(&vmo, ByteRange::new(0, 1 << 40), &mut dirty)?;
    /// assert_eq!(found.available, 1);
    /// assert_eq!(dirty[0], DirtyRange { offset: 0, length: 1 << 40, options: DirtyRange::ZERO });
    /// # Ok::<(), Status>(())
    /// ```
    pub async fn zero(&self, range: ByteRange) -> Result<()> {
        const NONE: [u8; PAGE_SIZE as usize] = [0; PAGE_SIZE as usize];
        let inner = self.inner();
        range.pages_touched(inner.pages())?;
        let end = range.offset + range.length;
        let whole = PageRange { start: range.offset.div_ceil(PAGE_SIZE), end: end / PAGE_SIZE };
        if whole.start > whole.end {
            // Within one page.
            return self.write(ByteOffset(range.offset), &NONE[..range.length as usize]).await;
        }
        let before = (whole.start * PAGE_SIZE - range.offset) as usize;
        let after = (end - whole.end * PAGE_SIZE) as usize;
        if before > 0 {
            self.write(ByteOffset(range.offset), &NONE[..before]).await?;
        }
        let zeroed = zero_pages(inner, whole);
        if whole.start < whole.end {
            inner.figures.written(); // after the pages, and also if not all could be done
        }
        zeroed?;
        if after > 0 {
            self.write(ByteOffset(whole.end * PAGE_SIZE), &NONE[..after]).await?;
        }
        Ok(())
    }
}
