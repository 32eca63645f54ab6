//! The service's answers: pages for a READ, or for any request a reason why not. Leave, for a DIRTY,
//! is in [`trap`](crate::trap).

use crate::counts::Kind;
use crate::pager::Pager;
use crate::platform::{Frame, OwnedFrame, Platform};
use crate::reclaim::Retired;
use crate::request::RequestId;
use crate::slot::{Slot, State, Unstored};
use crate::status::{Result, Status};
use crate::sync::{Arc, SeqCst, fence};
use crate::table::{FreshLeaf, Look, group_end, leaf_of};
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
    /// Lock-free. One swap a page, one atomic addition for up to 64 pages, one step a request, one wake a
    /// waiter. Of 512 pages, from a multiple of 512 on, where nothing ever was: one swap for all of them.
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
    mut frames: impl Iterator<Item = OwnedFrame<'p, P>>,
) -> Result<()> {
    let mut arrivals = Arrivals::new(vmo);
    let mut start = pages.start;
    while start < pages.end {
        let leaf = leaf_of(PageIndex(start));
        let is_whole = leaf.start == start && leaf.end <= pages.end;
        let fresh = if is_whole { vmo.table.fresh_leaf(PageIndex(start))? } else { None };
        start = match fresh {
            Some(fresh) => supply_leaf(vmo, leaf, fresh, &mut frames, &mut arrivals)?,
            None => supply_group(vmo, PageRange { start, end: pages.end }, &mut frames, &mut arrivals)?,
        };
    }
    Ok(())
}

/// A leaf that is being filled. As an iterator, the frames of one that could not be published.
struct Filling<'a, P: Platform> {
    vmo: &'a Inner<P>,
    leaf: FreshLeaf<'a>,
}

impl<'a, P: Platform> Iterator for Filling<'a, P> {
    type Item = OwnedFrame<'a, P>;

    fn next(&mut self) -> Option<OwnedFrame<'a, P>> {
        // SAFETY: what was put there belongs to the platform, and was passed on to the leaf, which nobody
        // else knows, and which gives it out once.
        self.leaf.take_back().map(|frame| unsafe { OwnedFrame::of(&*self.vmo.platform, frame) })
    }
}

/// What was not published is freed.
impl<P: Platform> Drop for Filling<'_, P> {
    fn drop(&mut self) {
        self.for_each(drop);
    }
}

/// Supplies all pages of a leaf that is not there yet: it is filled where nobody sees it, and published by one
/// swap, so that its pages come at the same instant and by no step of their own. If somebody has made the leaf
/// meanwhile, to ask for a page, say, then page by page as any other.
fn supply_leaf<'p, P: Platform>(
    vmo: &Arc<Inner<P>>,
    pages: PageRange,
    leaf: FreshLeaf<'_>,
    frames: &mut impl Iterator<Item = OwnedFrame<'p, P>>,
    arrivals: &mut Arrivals<'_, P>,
) -> Result<u64> {
    let mut filling = Filling { vmo, leaf };
    let mut result = Ok(pages.end);
    for _ in pages.start..pages.end {
        let Some(frame) = frames.next() else { break };
        if !frame.belongs_to(&vmo.platform) {
            result = Err(Status::InvalidArgs);
            break;
        }
        filling.leaf.put(frame.into_frame());
    }
    let end = pages.start + filling.leaf.len();
    if !filling.leaf.publish() {
        let mut start = pages.start;
        while start < end {
            start = supply_group(vmo, PageRange { start, end }, &mut filling, arrivals)?;
        }
    }
    result
}

/// Supplies the first of the pages, as far as they are counted together. Returns the page to go on with.
///
/// They are counted before the first is there: one addition, not one a page. Those that did not come
/// to be there are discounted at the end; until then the count is above the truth, as it may be.
#[inline]
fn supply_group<'p, P: Platform>(
    vmo: &Arc<Inner<P>>,
    pages: PageRange,
    frames: &mut impl Iterator<Item = OwnedFrame<'p, P>>,
    arrivals: &mut Arrivals<'_, P>,
) -> Result<u64> {
    let first = match vmo.table.look(PageIndex(pages.start)) {
        Look::At(at) => at,
        Look::Unstored(Unstored::Absent) => vmo.table.find_or_make(PageIndex(pages.start))?,
        Look::Unstored(Unstored::Zero | Unstored::ZeroAwaiting) => {
            drop(frames.next()); // the VMO has it already
            return Ok(pages.start + 1);
        }
    };
    let end = group_end(PageIndex(pages.start)).min(pages.end);
    let counted = (end - pages.start) as u16; // a group at most
    let mut resident = 0;
    let mut result = Ok(end);
    first.raise_by(Kind::Resident, counted);
    for (slot, frame) in first.slots(counted).zip(frames) {
        if !frame.belongs_to(&vmo.platform) {
            result = Err(Status::InvalidArgs);
            break;
        }
        match come(slot, arrivals, || Ok(frame.frame())) {
            Ok(Came::In) => {
                resident += 1;
                let _: Frame = frame.into_frame(); // the slot owns it now
            }
            Ok(Came::Rescued) => resident += 1,
            Ok(Came::Not) | Err(_) => {}
        }
    }
    if resident < counted {
        first.lower_by(Kind::Resident, counted - resident);
    }
    result
}

/// What became of a frame that was offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Came {
    /// The page has it.
    In,
    /// The page was on its way out, and keeps its own.
    Rescued,
    /// The page had content already, and keeps it.
    Not,
}

/// Moves a frame into the page of the slot, if it has no content. The page is counted already. `frame` is
/// asked only where it is wanted; asked more than once, it answers the same.
///
/// # Errors
/// What `frame` says. The page is what it was.
#[inline]
fn come<P: Platform>(
    slot: &Slot,
    arrivals: &mut Arrivals<'_, P>,
    mut frame: impl FnMut() -> Result<Frame>,
) -> Result<Came> {
    let mut state = slot.load();
    loop {
        let change = match state {
            State::Empty(empty) => empty.supply(slot, frame()?),
            State::Requested(requested) => requested.supply(slot, frame()?),
            // The page is still here: keeping it is as if the eviction had passed it over. Not if an access has failed on it.
            State::Evicting(evicting) if !evicting.is_condemned() => match evicting.rescue(slot) {
                Ok(()) => {
                    arrivals.rescued += 1;
                    return Ok(Came::Rescued);
                }
                Err(now) => Err(now),
            },
            _ => return Ok(Came::Not),
        };
        match change {
            Ok(()) => {
                if let State::Requested(requested) = state {
                    arrivals.add(requested.id());
                }
                return Ok(Came::In);
            }
            Err(now) => state = now,
        }
    }
}

/// As [`come`], of a page that has perhaps no slot, and is not counted.
///
/// # Errors
/// `NoMemory`, where a table node could not be made, and what `frame` says. The page is what it was.
pub(crate) fn move_in<P: Platform>(
    vmo: &Inner<P>,
    page: PageIndex,
    arrivals: &mut Arrivals<'_, P>,
    frame: impl FnMut() -> Result<Frame>,
) -> Result<Came> {
    let at = match vmo.table.look(page) {
        Look::At(at) => at,
        Look::Unstored(Unstored::Absent) => vmo.table.find_or_make(page)?,
        Look::Unstored(Unstored::Zero | Unstored::ZeroAwaiting) => return Ok(Came::Not), // it has it already
    };
    at.raise(Kind::Resident);
    let came = come(at.slot(), arrivals, frame);
    if !matches!(came, Ok(Came::In | Came::Rescued)) {
        at.lower(Kind::Resident);
    }
    came
}

/// What a supply does last, and whoever rescues a clean page: pages that came too late, after a detach or past a new end, go again.
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
