//! The service's answers: pages for a READ, or for any request a reason why not. Leave, for a DIRTY,
//! is in [`trap`](crate::trap).

use crate::counts::Kind;
use crate::pager::Pager;
use crate::platform::{Frame, OwnedFrame, Platform};
use crate::reclaim::Retired;
use crate::request::RequestId;
use crate::slot::{State, Unstored};
use crate::status::{Result, Status};
use crate::sync::{Arc, SeqCst, fence};
use crate::table::Look;
use crate::units::{ByteRange, PageIndex, PageRange};
use crate::vmo::{Inner, Vmo};

/// Pages that have arrived for one request and are not reported to it yet: a run of them is one
/// step on the request, not one a page. And so with the pages that it rescued.
pub(crate) struct Arrivals<'a, P: Platform> {
    vmo: &'a Inner<P>,
    run: Option<(RequestId, u64)>,
    rescued: usize,
}

impl<'a, P: Platform> Arrivals<'a, P> {
    pub(crate) const fn new(vmo: &'a Inner<P>) -> Self {
        Self { vmo, run: None, rescued: 0 }
    }

    pub(crate) fn add(&mut self, id: RequestId) {
        match &mut self.run {
            Some((same, pages)) if *same == id => *pages += 1,
            _ => {
                self.report();
                self.run = Some((id, 1));
            }
        }
    }

    fn report(&mut self) {
        if let Some((id, pages)) = self.run.take() {
            self.vmo.source.requests.arrived(id, pages);
        }
    }
}

impl<P: Platform> Drop for Arrivals<'_, P> {
    fn drop(&mut self) {
        self.report();
        if self.rescued > 0 {
            self.vmo.figures.rescues.add(self.rescued);
        }
    }
}

impl<P: Platform> Pager<P> {
    /// Gives the VMO the pages of `range`, one frame each, by moving them in. Pages that it has
    /// already stay as they are, and the frame offered for them is freed.
    ///
    /// Requests resolve as their last missing page arrives. Pages that nobody asked for are
    /// welcome too.
    ///
    /// Errors: [`InvalidArgs`](Status::InvalidArgs): the VMO is not this pager's, the range is not
    /// aligned to pages, or there are more or fewer frames than pages;
    /// [`OutOfRange`](Status::OutOfRange): the range does not lie inside the VMO;
    /// [`BadState`](Status::BadState): the VMO is detached. After these checks:
    /// [`InvalidArgs`](Status::InvalidArgs) at a frame of another platform, and
    /// [`NoMemory`](Status::NoMemory) where a table node could not be made; the pages before
    /// are supplied then. In every case the frames are used up
    /// (`zx_pager_supply_pages()`).
    ///
    /// A supply that began before a detach may still succeed; the pages are gone then, as all
    /// clean pages are.
    ///
    /// Lock-free. Two atomic additions a page, one step a request, one wake a waiter.
    pub fn supply_frames<'p, I>(&self, vmo: &Vmo<P>, range: ByteRange, frames: I) -> Result<()>
    where
        I: IntoIterator<Item = OwnedFrame<'p, P>>,
        I::IntoIter: ExactSizeIterator,
    {
        self.owns(vmo)?;
        let inner = vmo.inner();
        let pages = range.pages_exact(inner.pages())?;
        let frames = frames.into_iter();
        if frames.len() as u64 != pages.end - pages.start {
            return Err(Status::InvalidArgs);
        }
        if inner.source.is_detached() {
            return Err(Status::BadState);
        }
        let supplied = supply(inner, pages, frames);
        look_again(inner, pages);
        supplied
    }

    /// Fails every request in flight that still waits for a page of `range`: its waiters get
    /// `status`. Resident pages are not touched. Without such a request, or after detach, it
    /// does nothing.
    ///
    /// Errors: [`InvalidArgs`](Status::InvalidArgs): the VMO is not this pager's, the range is not
    /// aligned, or the status is not one that a service may give
    /// ([`Status::may_fail_a_request`]); [`OutOfRange`](Status::OutOfRange)
    /// (`zx_pager_op_range()`, `ZX_PAGER_OP_FAIL`).
    ///
    /// Lock-free. Costs the requests in flight.
    pub fn fail_range(&self, vmo: &Vmo<P>, range: ByteRange, status: Status) -> Result<()> {
        self.owns(vmo)?;
        let inner = vmo.inner();
        if !status.may_fail_a_request() {
            return Err(Status::InvalidArgs);
        }
        let pages = range.pages_exact(inner.pages())?;
        inner.source.fail(&inner.table, pages, status);
        Ok(())
    }
}

fn supply<'p, P: Platform>(
    vmo: &Arc<Inner<P>>,
    pages: PageRange,
    frames: impl Iterator<Item = OwnedFrame<'p, P>>,
) -> Result<()> {
    let mut arrivals = Arrivals::new(vmo);
    for (page, frame) in (pages.start..pages.end).zip(frames) {
        if !frame.belongs_to(&vmo.platform) {
            return Err(Status::InvalidArgs);
        }
        if move_in(vmo, PageIndex(page), &mut arrivals, || Ok(frame.frame()))? == Moved::In {
            let _: Frame = frame.into_frame(); // the slot owns it now
        }
    }
    Ok(())
}

/// What became of a frame that was offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Moved {
    /// The page has it.
    In,
    /// The page had content already, and keeps it.
    Not,
}

/// Moves a frame into the page, if it has no content. `frame` is asked only then; asked more than once, it
/// answers the same.
///
/// # Errors
/// `NoMemory`, where a table node could not be made, and what `frame` says. The page is what it was.
#[inline]
pub(crate) fn move_in<P: Platform>(
    vmo: &Inner<P>,
    page: PageIndex,
    arrivals: &mut Arrivals<'_, P>,
    mut frame: impl FnMut() -> Result<Frame>,
) -> Result<Moved> {
    let at = match vmo.table.look(page) {
        Look::At(at) => at,
        Look::Unstored(Unstored::Absent) => vmo.table.find_or_make(page)?,
        Look::Unstored(Unstored::Zero | Unstored::ZeroAwaiting) => return Ok(Moved::Not), // it has it already
    };
    let slot = at.slot();
    let mut state = slot.load();
    at.raise(Kind::Resident);
    let moved = loop {
        let change = match state {
            State::Empty(empty) => frame().map(|frame| empty.supply(slot, frame)),
            State::Requested(requested) => frame().map(|frame| requested.supply(slot, frame)),
            // The page is still here: keeping it is as if the eviction had passed it over.
            State::Evicting(evicting) => match evicting.rescue(slot) {
                Ok(()) => {
                    arrivals.rescued += 1;
                    return Ok(Moved::Not);
                }
                Err(now) => Ok(Err(now)),
            },
            _ => break Ok(Moved::Not),
        };
        match change {
            Ok(Ok(())) => {
                if let State::Requested(requested) = state {
                    arrivals.add(requested.id());
                }
                return Ok(Moved::In);
            }
            Ok(Err(now)) => state = now,
            Err(status) => break Err(status),
        }
    };
    at.lower(Kind::Resident);
    moved
}

/// What a supply does last: pages that came too late, after a detach or past a new end, go again.
pub(crate) fn look_again<P: Platform>(vmo: &Arc<Inner<P>>, pages: PageRange) {
    // Pairs with the fence in `detach_vmo`: either we see its mark here, or it sees our pages.
    // Nobody can use them in either case; this is so that their frames do not linger.
    fence(SeqCst);
    if vmo.source.is_detached() {
        Retired::new(vmo).evict_clean(pages);
    }
    // The same fence pairs with that of a shrink: pages past the end must not stay either.
    let size = vmo.pages().0;
    if pages.end > size {
        Retired::new(vmo).evict_clean(PageRange { start: size, end: pages.end });
    }
}
