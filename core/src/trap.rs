//! Trapped dirtying: the service is asked before a page becomes dirty, and may say no.
//!
//! In a VMO made with [`VmoOptions::TRAP_DIRTY`](crate::VmoOptions::TRAP_DIRTY) a write to a page
//! that is clean, or awaits clean, raises a DIRTY request and waits. The service answers with
//! [`Pager::dirty_range`], when it has made sure that it can take the page back, or fails it.
//!
//! # What a page names
//!
//! The word of a page under a DIRTY request has room for the request's entry but not for its
//! generation. So it must never name an entry that lives for something else by now:
//!
//! - Whoever ends a DIRTY request holds its entry until he has turned its pages back; and its opener
//!   holds it until he has seen, after his last claim and by a read-modify-write of the same word,
//!   that it was not ended before. So one of the two turns back each page.
//! - A word may be swapped by someone who read it long ago, when it named the entry in an earlier
//!   life. To take a page from a live request by such a mistake does no harm, because *whoever moves a
//!   page on from a request asks whether the request has any left*, and resolves it if not: its
//!   waiters look again.
//!
//! # Permits: all or nothing
//!
//! The service may count on `dirty_range` having dirtied nothing when it fails, and everything when it
//! does not. So a call for several pages first puts each under a *permit*, an entry of the same pool, and then
//! decides it by one compare-and-swap of its fate. Before that, the pages are what they were; from
//! then on they are dirty, whatever their words say: who meets one moves it on. If a page is missing,
//! the permit is refused, and the pages are what they were.
//!
//! A page under a permit stays: evictors pass it over; a detach, which may not wait, refuses the
//! permit, as whoever fails an access to such a page in a detached VMO does first.
//!
//! To take a *granted* page for dirty on the word of a permit's earlier life would be a mistake that
//! nothing mends. So the opener's reference goes only after a grace period that begins when no page
//! names the permit any more, and whoever goes from a page to its permit is pinned meanwhile.

use crate::counts::Kind as Count;
use crate::pager::Pager;
use crate::platform::Platform;
use crate::request::{Kind, Named, Outcome, RequestId};
use crate::slot::{DirtyRequested, State, Unstored};
use crate::status::{Result, Status};
use crate::supply::look_again;
use crate::sync::{Arc, Guard};
use crate::table::{At, Look};
use crate::units::{ByteRange, PageIndex, PageRange};
use crate::vmo::{Inner, Vmo};

/// A page whose dirtying is not decided.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Trapped {
    /// The service has been asked.
    Asked(DirtyRequested, RequestId),
    /// The service is answering.
    Permitted(DirtyRequested, RequestId),
}

impl Trapped {
    /// Whose end to wait for.
    pub(crate) const fn id(self) -> RequestId {
        match self {
            Self::Asked(_, id) | Self::Permitted(_, id) => id,
        }
    }
}

/// What a call does to a page.
#[derive(Clone, Copy)]
enum To {
    /// Makes it dirty at once.
    Dirty,
    /// Puts it under a permit.
    Permit(u32),
}

/// Why a permit did not come to be.
enum Refused {
    /// For good.
    Because(Status),
    /// Another call for the same pages was quicker.
    Outrun,
}

/// The requests that a permit has taken pages from, to be told of it in the end. More than these are
/// told at once, and only wake their waiters early.
#[derive(Default)]
struct Robbed {
    indices: [u32; 8],
    len: usize,
}

impl<P: Platform> Inner<P> {
    /// What a page under a DIRTY request or a permit waits for. `None`: nothing, look again; if the
    /// request or permit was over, the page has been moved on.
    pub(crate) fn trapped(&self, at: At<'_>) -> Option<Trapped> {
        // From before the word is read until it is swapped: see "permits".
        let _guard = self.platform.pin();
        let State::DirtyRequested(seen) = at.slot().load() else { return None };
        let (named, _) = self.source.requests.named(seen.index());
        match named {
            Named::Request(_) | Named::Permit(_) if at.slot().load() != State::DirtyRequested(seen) => None,
            Named::Request(id) => Some(Trapped::Asked(seen, id)),
            Named::Permit(id) => Some(Trapped::Permitted(seen, id)),
            Named::Granted => {
                let _: bool = Self::grant(at, seen); // false: somebody else has
                None
            }
            Named::Over => {
                if seen.withdraw(at.slot()).is_ok() {
                    self.source.left(&self.table, seen.index());
                }
                None
            }
        }
    }

    /// Moves a page that may be dirty on to that. False: it has moved by itself.
    fn grant(at: At<'_>, seen: DirtyRequested) -> bool {
        if seen.is_awaiting() {
            return seen.grant(at.slot()).is_ok(); // it is counted as dirty already
        }
        at.raise(Count::Dirty);
        let granted = seen.grant(at.slot()).is_ok();
        if !granted {
            at.lower(Count::Dirty);
        }
        granted
    }

    /// Ends, in a detached VMO, what a page's dirtying waits for, as the detach is about to: unless it is granted
    /// the page is then as it was, clean and to be dropped, or awaiting clean.
    pub(crate) fn turn_back(&self, at: At<'_>) {
        match self.trapped(at) {
            None => {}
            Some(Trapped::Asked(_, id)) => self.source.refuse(&self.table, id),
            Some(Trapped::Permitted(_, permit)) => self.refuse(permit, Status::BadState),
        }
    }

    /// Refuses a permit that is not decided.
    pub(crate) fn refuse(&self, permit: RequestId, status: Status) {
        if let Some(refused) = self.source.requests.resolve(permit, Outcome::Failed(status)) {
            refused.wake();
        }
    }

    /// Makes one page dirty, or puts it under a permit. The guard is for what it is for in
    /// [`write_access`](Vmo::write_access).
    fn take(&self, guard: &Guard, page: PageIndex, to: To, robbed: &mut Robbed) -> Result<()> {
        let _ = guard;
        let at = match self.table.look(page) {
            Look::At(at) => at,
            Look::Unstored(Unstored::Absent) => return Err(Status::NotFound),
            Look::Unstored(Unstored::Zero) => return Ok(()), // dirty already
            Look::Unstored(Unstored::ZeroAwaiting) => self.table.find_or_make(page)?,
        };
        let slot = at.slot();
        loop {
            let state = slot.load();
            let taken = match state {
                State::Dirty(_) => true,
                State::Zero(zeros) if !zeros.is_awaiting() => true,
                State::Zero(zeros) => {
                    self.store_zeros(at, zeros)?; // the same to the service, and the page can be put under a permit
                    false
                }
                State::DirtyRequested(_) => self.take_trapped(at, to, robbed)?,
                _ => {
                    // After the word was read: whoever changes it, or fails on the page, after the mark of a detach has the
                    // swaps below fail, or shows us the mark.
                    self.source.attached()?;
                    self.take_untrapped(at, page, state, to)?
                }
            };
            if taken {
                return Ok(());
            }
        }
    }

    /// As [`take`](Self::take), of a page that nobody has asked to dirty. False: look again.
    fn take_untrapped(&self, at: At<'_>, page: PageIndex, state: State, to: To) -> Result<bool> {
        let slot = at.slot();
        Ok(match (state, to) {
            (State::Clean(clean), To::Dirty) => {
                at.raise(Count::Dirty);
                let dirtied = clean.mark_dirty(slot).is_ok();
                if !dirtied {
                    at.lower(Count::Dirty);
                }
                dirtied
            }
            (State::AwaitingClean(awaiting), To::Dirty) => awaiting.mark_dirty(slot).is_ok(),
            (State::Clean(clean), To::Permit(permit)) => clean.request_dirty(slot, permit).is_ok(),
            (State::AwaitingClean(awaiting), To::Permit(permit)) => awaiting.request_dirty(slot, permit).is_ok(),
            (State::Evicting(evicting), To::Dirty) if !evicting.is_condemned() && page.0 < self.pages().0 => {
                at.raise(Count::Resident);
                at.raise(Count::Dirty);
                let dirtied = evicting.mark_dirty(slot).is_ok();
                if dirtied {
                    self.figures.rescues.count();
                } else {
                    at.lower(Count::Dirty);
                    at.lower(Count::Resident);
                }
                dirtied
            }
            (State::Evicting(evicting), To::Permit(_)) if !evicting.is_condemned() && page.0 < self.pages().0 => {
                self.rescue(at, evicting);
                false // look again: now it can be put under the permit
            }
            // Pages are dropped by a shrink too.
            _ if page.0 < self.pages().0 => return Err(Status::NotFound),
            _ => return Err(Status::OutOfRange),
        })
    }

    /// As [`take`](Self::take), of a page under a DIRTY request or another permit. False: look again.
    fn take_trapped(&self, at: At<'_>, to: To, robbed: &mut Robbed) -> Result<bool> {
        let Some(trapped) = self.trapped(at) else { return Ok(false) };
        self.source.attached()?; // as in `take`
        match (trapped, to) {
            (Trapped::Asked(seen, _) | Trapped::Permitted(seen, _), To::Dirty) => {
                let granted = Self::grant(at, seen);
                if granted {
                    robbed.note(self, seen.index());
                }
                Ok(granted)
            }
            (Trapped::Asked(seen, _), To::Permit(permit)) => {
                let claimed = seen.request_dirty(at.slot(), permit).is_ok();
                if claimed {
                    robbed.note(self, seen.index());
                }
                Ok(claimed)
            }
            (Trapped::Permitted(_, other), To::Permit(_)) => {
                if let Some(outrun) = self.source.requests.resolve(other, Outcome::Withdrawn) {
                    outrun.wake();
                }
                Ok(false)
            }
        }
    }

    /// Moves the pages that name the permit on, as it was decided.
    fn release(&self, pages: PageRange, permit: u32, granted: bool) {
        for page in pages.start..pages.end {
            let Some(at) = self.table.find(PageIndex(page)) else { continue };
            while let State::DirtyRequested(seen) = at.slot().load()
                && seen.index() == permit
            {
                if granted {
                    let _: bool = Self::grant(at, seen); // false: look again
                } else {
                    let _: Result<(), State> = seen.withdraw(at.slot()); // failing: look again
                }
            }
        }
    }

    fn try_dirty(
        &self,
        guard: &Guard,
        pages: PageRange,
        robbed: &mut Robbed,
    ) -> Result<(RequestId, Result<(), Refused>)> {
        let requests = &self.source.requests;
        let wait = requests.open(Kind::Permit, pages.start, 0)?.wait();
        let permit = wait.id();
        // After the claim of the entry, by the rule of the walk: a detach meets the permit, or we see
        // the mark.
        let claimed = self.source.attached().and_then(|()| {
            let mut pages = pages.start..pages.end;
            pages.try_for_each(|page| self.take(guard, PageIndex(page), To::Permit(permit.index()), robbed))
        });
        let outcome = if claimed.is_ok() { Outcome::Granted } else { Outcome::Withdrawn };
        // The one step that decides.
        let decided = requests.resolve(permit, outcome);
        let result = match (claimed, &decided) {
            (Err(status), _) => Err(Refused::Because(status)),
            (Ok(()), Some(_)) => Ok(()),
            (Ok(()), None) => match wait.outcome() {
                Some(Outcome::Failed(status)) => Err(Refused::Because(status)),
                _ => Err(Refused::Outrun),
            },
        };
        self.release(pages, permit.index(), result.is_ok());
        if let Some(decided) = decided {
            decided.wake();
        }
        Ok((permit, result))
    }
}

impl Robbed {
    fn note<P: Platform>(&mut self, vmo: &Inner<P>, index: u32) {
        if self.indices[..self.len].contains(&index) {
            return;
        }
        if let Some(place) = self.indices.get_mut(self.len) {
            *place = index;
            self.len += 1;
        } else {
            vmo.source.left(&vmo.table, index);
        }
    }

    fn tell<P: Platform>(&mut self, vmo: &Inner<P>) {
        for index in &self.indices[..self.len] {
            vmo.source.left(&vmo.table, *index);
        }
        self.len = 0;
    }
}

/// Has those who wait for the pages look again, since leave was not given. If the VMO is detached, they are the
/// detach's to fail. What was rescued for the leave goes again, if a detach has passed it by: whatever the call failed
/// for, that may have been before it.
fn not_dirtied<P: Platform>(vmo: &Arc<Inner<P>>, pages: PageRange, status: Status) {
    look_again(vmo, pages);
    if status != Status::BadState {
        vmo.source.look_again(&vmo.table, pages);
    }
}

/// Gives up the opener's reference to a permit, after the grace period.
fn retire<P: Platform>(vmo: &Arc<Inner<P>>, permit: RequestId, guard: &Guard) {
    let vmo = vmo.clone();
    guard.defer(move || vmo.source.requests.retire(permit));
}

impl<P: Platform> Pager<P> {
    /// Lets the pages of `range` become dirty: all of them, or none. Waiters of DIRTY requests go on
    /// when the last page of theirs may be dirty.
    ///
    /// When it fails, no page has become dirty, and the waiters of the DIRTY requests in the range look
    /// again. A page that is dirty before the call may be written back and cleaned in the middle of it.
    ///
    /// Errors: [`InvalidArgs`](Status::InvalidArgs): the VMO is not this pager's, or the range is not
    /// aligned; [`OutOfRange`](Status::OutOfRange); [`NotSupported`](Status::NotSupported): the VMO does
    /// not trap dirtying; [`NotFound`](Status::NotFound): a page is not there;
    /// [`BadState`](Status::BadState): the VMO is detached; [`NoMemory`](Status::NoMemory) and
    /// [`NoResources`](Status::NoResources) as for a request
    /// (`zx_pager_op_range()`, `ZX_PAGER_OP_DIRTY`).
    ///
    /// Lock-free, except that two calls for pages in common may each make the other begin anew, and
    /// only one that is left alone is sure to end; calls for one page never do. Two swaps a page, one
    /// for a lone page.
    ///
    /// ```
    /// # use upager::*;
    /// # use std::sync::Arc;
    /// # let platform = Arc::new(HeapPlatform::new());
    /// # let (pager, port) = (Pager::new(platform.clone()), Port::new(platform.clone()));
    /// let vmo = pager.create_vmo(&port, 1, VmoOptions::TRAP_DIRTY, 4096)?;
    /// let page = ByteRange::new(0, 4096);
    /// assert_eq!(pager.dirty_range(&vmo, page), Err(Status::NotFound));
    /// pager.supply_frames(&vmo, page, [OwnedFrame::new(&*platform)?])?;
    /// pager.dirty_range(&vmo, page)?;
    /// block_on(vmo.write(ByteOffset(0), b"no need to ask"))?;
    /// # Ok::<(), Status>(())
    /// ```
    pub fn dirty_range(&self, vmo: &Vmo<P>, range: ByteRange) -> Result<()> {
        self.owns(vmo)?;
        let inner = vmo.inner();
        if !inner.traps {
            return Err(Status::NotSupported);
        }
        let pages = range.pages_exact(inner.pages())?;
        inner.source.attached()?;
        let mut robbed = Robbed::default();
        if pages.end - pages.start == 1 {
            // All or nothing by itself.
            let dirtied = inner.take(&inner.platform.pin(), PageIndex(pages.start), To::Dirty, &mut robbed);
            return dirtied.inspect(|()| robbed.tell(inner)).inspect_err(|status| not_dirtied(inner, pages, *status));
        }
        loop {
            let guard = inner.platform.pin();
            let (permit, result) = inner.try_dirty(&guard, pages, &mut robbed)?;
            retire(inner, permit, &guard);
            if let Err(Refused::Because(status)) = result {
                not_dirtied(inner, pages, status);
                return Err(status);
            }
            robbed.tell(inner);
            if result.is_ok() {
                return Ok(());
            }
        }
    }
}
