//! The page source: a VMO's link to its pager and to the port of the service.
//!
//! ```text
//!   attached --detach--> detached --pager closed--> detached and closed
//!      +----pager closed--> closed
//! ```
//!
//! Never back. What each means for the pages is in [`vmo`](crate::vmo); what it means for the
//! requests is here.
//!
//! # How a request cannot be left behind
//!
//! Detach and close first mark the source, then seal the queue, then walk all requests and fail
//! them. A faulter first claims its request, then looks at the mark, and only then lets a page
//! refer to it. By the rule of the walk ([`pool`](crate::pool)) either the walk meets the request
//! or the faulter sees the mark: so every request that a page refers to, and that anyone can wait
//! for, is failed, whatever its opener does next, even nothing. That the opener's append fails as
//! well, the queue being sealed, is what keeps its packet from following COMPLETE.

use core::task::Waker;

use crate::packet::{Command, Packet};
use crate::platform::Platform;
use crate::port::Shared as Port;
use crate::queue::{Entries, Queue, Seal, Taken};
use crate::request::{Joined, Kind, MAX_RUN, Named, Outcome, RequestId, Requests, Resolving, Wait};
use crate::slot::{OF_PAGER, OWN, Slot, State, Unstored};
use crate::status::{Result, Status};
#[cfg(accounting)]
use crate::sync::accounting::Lines;
use crate::sync::{AcqRel, Acquire, Arc, AtomicU32, AtomicU64, Guard, SeqCst, Tally, fence};
use crate::table::{Look, Table};
use crate::trap::Trapped;
use crate::units::{PAGE_SIZE, PageIndex, PageRange};
use crate::vmo::Inner;

/// What an attached VMO shows, see [`Slot::resident`]. A detached one
/// shows its own content only.
const ATTACHED: u64 = OWN | OF_PAGER;
const DETACHED: u64 = OWN;

const CLOSED: u32 = 1;
/// The VMO's handle is gone. Not a state of the link, only of what is left to do for it.
const ENDED: u32 = 2;

pub(crate) struct Source<P: Platform> {
    /// [`ATTACHED`] or [`DETACHED`]. A word of its own, since every lookup reads it.
    shown: AtomicU64,
    state: AtomicU32,
    pub(crate) requests: Requests,
    queue: Queue,
    joins: Tally,
    key: u64,
    port: Arc<Port<P>>,
    /// The VMO's entry in the port.
    entry: u32,
}

/// What became of asking for a page.
pub(crate) enum Asked<'a> {
    /// There is a request, and the waker will be woken when it resolves.
    Asleep(Wait<'a>),
    /// There was a request, and it has resolved.
    Resolved(Wait<'a>),
    /// The page is not absent any more: look again.
    Moved,
}

impl<P: Platform> Source<P> {
    pub(crate) fn new(port: Arc<Port<P>>, entry: u32, key: u64) -> Result<Self> {
        let requests = Requests::new();
        let queue = Queue::new(&requests, requests.dummy()?)?;
        let (shown, state) = (AtomicU64::new(ATTACHED), AtomicU32::new(0));
        Ok(Self { shown, state, requests, queue, joins: Tally::default(), key, port, entry })
    }

    pub(crate) const fn key(&self) -> u64 {
        self.key
    }

    /// Requests appended so far, and waiters that joined one.
    pub(crate) fn totals(&self) -> (u64, u64) {
        (self.queue.appended(), self.joins.get() as u64)
    }

    fn state(&self) -> u32 {
        self.state.load(Acquire) // Acquire: pairs with `mark`; see the module's text
    }

    fn mark(&self, mark: u32) {
        self.state.fetch_or(mark, AcqRel); // AcqRel: Release comes before the walk that follows
    }

    /// For [`Slot::resident`].
    #[inline]
    pub(crate) fn shown(&self) -> u64 {
        self.shown.load(Acquire) // Acquire: pairs with `detach`; see the module's text
    }

    /// Whether detach has begun: clean pages count as absent.
    #[inline]
    pub(crate) fn is_detached(&self) -> bool {
        self.shown() == DETACHED
    }

    /// Whether the service can be asked.
    ///
    /// # Errors
    /// [`BadState`](Status::BadState): detached, or the pager is closed.
    #[inline]
    pub(crate) fn attached(&self) -> Result<()> {
        if self.shown() == ATTACHED && self.state() & CLOSED == 0 { Ok(()) } else { Err(Status::BadState) }
    }

    /// Marks the VMO detached, has COMPLETE delivered last, and fails what is in flight. Returns
    /// how many requests this call failed. Detaching again finishes what a detacher that was
    /// stopped half-way left.
    pub(crate) fn detach(&self, table: &Table) -> u64 {
        self.shown.swap(DETACHED, AcqRel); // AcqRel: as in `mark`
        self.complete();
        self.fail_all(table)
    }

    /// Fails what is in flight. Returns how many requests this call failed.
    fn fail_all(&self, table: &Table) -> u64 {
        self.requests.fail_all(Status::BadState, |kind, resolving| {
            // Pages that name a READ by its generation need not be turned back: see `withdraw`.
            if kind == Kind::Dirty {
                withdraw(table, resolving.id(), resolving.pages());
            }
            resolving.wake();
        })
    }

    /// Seals the queue with COMPLETE, unless it is sealed.
    pub(crate) fn complete(&self) {
        self.queue.seal(&self.requests, Seal::Complete);
        self.announce();
    }

    /// The queue has something. At a closed port it is dropped, so that nothing piles up.
    #[inline]
    fn announce(&self) {
        if !self.port.ready(self.entry) {
            self.discard();
        }
    }

    /// The VMO is gone. False: so is the port, and COMPLETE with it.
    pub(crate) fn end(&self) -> bool {
        self.mark(ENDED);
        // It announces COMPLETE, with a fence after the mark (`Sleepers::looked_for`) that pairs with that in
        // Port's Drop: either we see the port closed, or it sees the mark.
        self.complete();
        !self.port.is_closed()
    }

    /// Whether the VMO is gone.
    pub(crate) fn has_ended(&self) -> bool {
        self.state() & ENDED != 0
    }

    /// Gives up the VMO's entry in the port.
    pub(crate) fn forget(&self, vmo: &Inner<P>, guard: &Guard) {
        self.port.forget(self.entry, vmo, guard);
    }

    /// The pager is gone: nothing is delivered any more, and what is in flight fails.
    pub(crate) fn close(&self, table: &Table) {
        self.mark(CLOSED);
        self.queue.close(&self.requests);
        self.fail_all(table);
        self.port.ready(self.entry); // so that the port forgets the VMO
    }

    /// The request in flight that a waiter for the page has to join.
    #[inline]
    fn in_flight(vmo: &Inner<P>, kind: Kind, page: PageIndex) -> Option<RequestId> {
        let at = vmo.table.find(page)?;
        match (kind, at.slot().load()) {
            (Kind::Read, State::Requested(page)) => Some(page.id()),
            (Kind::Dirty, State::DirtyRequested(_)) => vmo.trapped(at).map(Trapped::id),
            _ => None,
        }
    }

    /// Whether the page, in a VMO whose service cannot be asked any more, lacks what one would ask for. The access is about to
    /// fail then, and the page must not come back: who brings it after this, and had seen the VMO attached, sees the mark when he
    /// looks again, and so does who finds what he brings.
    #[cold]
    fn lacks(vmo: &Inner<P>, kind: Kind, page: PageIndex) -> bool {
        let at = match vmo.table.look_last(page) {
            Look::At(at) => at,
            Look::Unstored(unstored) => return unstored == Unstored::Absent,
        };
        match (kind, at.slot().load_last()) {
            (_, State::Empty(_) | State::Requested(_)) => kind == Kind::Read,
            (_, State::Evicting(evicting)) => kind == Kind::Read && evicting.is_condemned(),
            (Kind::Dirty, State::Clean(_)) => true,
            (Kind::Dirty, State::AwaitingClean(awaiting)) => awaiting.is_refused(),
            (Kind::Dirty, State::DirtyRequested(_)) => vmo.trapped(at).is_some(),
            _ => false,
        }
    }

    /// Waits for the page, or for leave to make it dirty: joins the request that covers it, or opens
    /// one for it and for as many pages after it as need the same, up to `run`. `vmo` is the one that
    /// has this source.
    #[inline(never)] // so that a fault that need not ask carries none of it
    pub(crate) fn ask(
        &self,
        vmo: &Inner<P>,
        kind: Kind,
        page: PageIndex,
        run: u64,
        waker: &Waker,
    ) -> Result<Asked<'_>> {
        let table = &vmo.table;
        if let Some(id) = Self::in_flight(vmo, kind, page) {
            match self.requests.join(id, waker) {
                Joined::Waits(wait) => {
                    self.joins.count();
                    return Ok(Asked::Asleep(wait));
                }
                Joined::TooLate => {}
                Joined::Refused(status, left) => {
                    Self::settle(table, left);
                    return Err(status);
                }
            }
        }
        let run = run.clamp(1, MAX_RUN);
        let opened = self.requests.open(kind, page.0, run)?;
        let id = opened.id();
        // After the claim: see "How a request cannot be left behind".
        // The size first: a page that a shrink has dropped is past the end, in a detached VMO too.
        let inside = if page.0 < vmo.pages().0 { Ok(()) } else { Err(Status::OutOfRange) };
        let claimed = inside.and_then(|()| self.attached()).and_then(|()| match kind {
            Kind::Read => self.claim_run(table, page, run, id),
            Kind::Dirty | Kind::Permit => Ok(Self::claim_dirty(vmo, page, run, id.index())),
        });
        match claimed {
            Err(status) => {
                self.requests.abandon(opened);
                // What the page had was seen before the mark. If it has got content since, it is no
                // matter that nobody can be asked.
                let moved = status == Status::BadState && !Self::lacks(vmo, kind, page);
                return if moved { Ok(Asked::Moved) } else { Err(status) };
            }
            Ok(0) => {
                self.requests.abandon(opened);
                return Ok(Asked::Moved);
            }
            Ok(claimed) => {
                if claimed < run {
                    self.requests.shorten(id, run, claimed);
                }
                if kind == Kind::Dirty && !self.requests.is_open_after(id) {
                    // Ended before the last claim: whoever ended it may have missed some of them.
                    withdraw(table, id, PageRange { start: page.0, end: page.0 + claimed });
                }
                if kind == Kind::Read && vmo.extent.is_resizable() {
                    // The walk of a shrink has met the request, and found it without these pages; or, by
                    // this step, the walk is still to come, or we see the new size.
                    let _: bool = self.requests.is_open_after(id);
                    self.cut(table, id, PageRange { start: page.0, end: page.0 + claimed }, vmo.pages().0);
                }
            }
        }
        if let Ok(()) = self.queue.append(&self.requests, id.index(), opened.entry()) {
            self.announce();
        } else {
            self.requests.unqueue(id.index(), opened.entry());
            Self::settle(table, self.requests.resolve(id, Outcome::Failed(Status::BadState)));
        }
        // Last of all: whatever happened to the request so far has woken nobody needlessly.
        Ok(opened.fall_asleep(waker).map_or_else(Asked::Resolved, Asked::Asleep))
    }

    /// Makes absent pages refer to the request, from `first` on, until one is not absent.
    #[inline]
    fn claim_run(&self, table: &Table, first: PageIndex, run: u64, id: RequestId) -> Result<u64> {
        for claimed in 0..run {
            let page = PageIndex(first.0 + claimed);
            let found = match table.look(page) {
                Look::At(at) => Ok(at),
                Look::Unstored(Unstored::Absent) => table.find_or_make(page),
                Look::Unstored(Unstored::Zero | Unstored::ZeroAwaiting) => return Ok(claimed),
            };
            let at = match found {
                Ok(at) => at,
                Err(status) if claimed == 0 => return Err(status),
                Err(_) => return Ok(claimed),
            };
            let mut state = at.slot().load();
            loop {
                let request = match state {
                    State::Empty(page) => page.request(at.slot(), id),
                    State::Requested(page) if !self.requests.is_open(page.id()) => page.request(at.slot(), id),
                    _ => return Ok(claimed),
                };
                match request {
                    Ok(()) => break,
                    Err(now) => state = now,
                }
            }
        }
        Ok(run)
    }

    /// Puts resident pages that are not dirty under the DIRTY request, from `first` on, until one is
    /// something else.
    fn claim_dirty(vmo: &Inner<P>, first: PageIndex, run: u64, index: u32) -> u64 {
        for claimed in 0..run {
            let Some(at) = vmo.table.find(PageIndex(first.0 + claimed)) else { return claimed };
            loop {
                let claim = match at.slot().load() {
                    State::Clean(clean) => clean.request_dirty(at.slot(), index),
                    // One on which an access has failed is not asked for: the mark of that would be lost.
                    State::AwaitingClean(awaiting) if !awaiting.is_refused() => {
                        awaiting.request_dirty(at.slot(), index)
                    }
                    State::DirtyRequested(_) if vmo.trapped(at).is_none() => continue,
                    _ => return claimed,
                };
                if claim.is_ok() {
                    break;
                }
            }
        }
        run
    }

    /// A page has moved on from the DIRTY request that it named. With its last page the request
    /// resolves, and its waiters look again.
    pub(crate) fn left(&self, table: &Table, index: u32) {
        // Of two callers who each moved one of the last pages, one comes first in the order of the
        // fences, and the other sees both gone.
        fence(SeqCst);
        let (Named::Request(id), pages) = self.requests.named(index) else { return };
        // From the end, because a service answers from the beginning: one page tells.
        let names = |page: u64| {
            let slot = table.slot(PageIndex(page));
            matches!(slot.map(Slot::load), Some(State::DirtyRequested(page)) if page.index() == index)
        };
        if !(pages.start..pages.end).rev().any(names) {
            Self::settle(table, self.requests.resolve(id, Outcome::Supplied));
        }
    }

    /// Has the waiters of the DIRTY requests for pages of the range look again.
    pub(crate) fn look_again(&self, table: &Table, range: PageRange) {
        self.requests.for_each_open(|id, kind, pages| {
            if kind == Kind::Dirty && !pages.intersect(range).is_empty() {
                Self::settle(table, self.requests.resolve(id, Outcome::Supplied));
            }
        });
    }

    /// Cuts a READ down to the pages before `end`: those after it are absent again.
    fn cut(&self, table: &Table, id: RequestId, pages: PageRange, end: u64) {
        if pages.end <= end {
            return;
        }
        let mut gone = 0;
        for page in end.max(pages.start)..pages.end {
            let Some(slot) = table.slot(PageIndex(page)) else { continue };
            if let State::Requested(requested) = slot.load()
                && requested.id() == id
                && requested.withdraw(slot).is_ok()
            {
                gone += 1;
            }
        }
        Self::settle(table, self.requests.cut(id, end.saturating_sub(pages.start), gone));
    }

    /// The VMO ends at `end` from now on. Requests that lie beyond fail, others are cut.
    pub(crate) fn shrink(&self, table: &Table, end: u64) {
        self.requests.walk_open(|id, kind, pages| {
            if pages.start >= end {
                Self::settle(table, self.requests.resolve(id, Outcome::Failed(Status::OutOfRange)));
            } else if kind == Kind::Read {
                self.cut(table, id, pages, end);
            }
            // A DIRTY request is told as its pages go.
        });
    }

    /// The waiter leaves; the last one withdraws the request.
    #[inline]
    pub(crate) fn leave(&self, table: &Table, wait: Wait<'_>) {
        Self::settle(table, self.requests.depart(wait));
    }

    /// Fails every open request that still waits for a page of the range.
    pub(crate) fn fail(&self, table: &Table, range: PageRange, status: Status) {
        self.requests.for_each_open(|id, _, pages| {
            let within = pages.intersect(range);
            let waits = |page| match table.slot(PageIndex(page)).map(Slot::load) {
                Some(State::Requested(page)) => page.id() == id,
                Some(State::DirtyRequested(page)) => page.index() == id.index(),
                _ => false,
            };
            if (within.start..within.end).any(waits) {
                Self::settle(table, self.requests.resolve(id, Outcome::Failed(status)));
            }
        });
    }

    /// Fails a request that was not answered in time. Returns its pages; `None`: it ended otherwise.
    pub(crate) fn time_out(&self, table: &Table, id: RequestId) -> Option<PageRange> {
        let resolving = self.requests.resolve(id, Outcome::Failed(Status::TimedOut))?;
        let pages = resolving.pages();
        Self::settle(table, Some(resolving));
        Some(pages)
    }

    /// Fails a request because the VMO is detached.
    pub(crate) fn refuse(&self, table: &Table, id: RequestId) {
        Self::settle(table, self.requests.resolve(id, Outcome::Failed(Status::BadState)));
    }

    /// Ends a request that failed or was withdrawn: its pages are absent again, its waiters wake.
    #[inline]
    fn settle(table: &Table, sealed: Option<Resolving<'_>>) {
        if let Some(resolving) = sealed {
            withdraw(table, resolving.id(), resolving.pages());
            resolving.wake();
        }
    }

    /// Fills `packets` from the queue, adjacent requests of one kind as one packet, and takes at most
    /// as many requests as `packets` has room for. COMPLETE comes last.
    pub(crate) fn take(&self, packets: &mut [Packet]) -> (usize, Taken) {
        let mut filled = 0;
        let mut end = None;
        let mut taken = self.queue.take(&self.requests, packets.len(), |(kind, pages)| {
            let length = (pages.end - pages.start) * PAGE_SIZE;
            if end == Some((kind, pages.start)) {
                packets[filled - 1].page_request.length += length;
            } else {
                packets[filled] = Packet::page_request(self.key, kind.command(), pages.start * PAGE_SIZE, length);
                filled += 1;
            }
            end = Some((kind, pages.end));
        });
        if taken == Taken::Complete {
            packets[filled] = Packet::page_request(self.key, Command::Complete, 0, 0);
            filled += 1;
            taken = Taken::Closed;
        }
        (filled, taken)
    }

    /// Takes what is in the queue now, COMPLETE too, and delivers it to nobody. Returns how many
    /// requests and COMPLETEs that were. The requests stay in flight.
    #[cold]
    pub(crate) fn discard(&self) -> (usize, Taken) {
        let mut discarded = 0;
        let limit = self.queue.len(&self.requests) as usize + 1; // one for COMPLETE
        let taken = self.queue.take(&self.requests, limit, |_| discarded += 1);
        if taken == Taken::Complete { (discarded + 1, Taken::Closed) } else { (discarded, taken) }
    }
}

#[cfg(accounting)]
impl<P: Platform> Source<P> {
    pub(crate) fn lines(&self, lines: &mut Lines) {
        lines.add(&self.shown, "VMO's mark", "nobody: written by detach");
        lines.add(&self.state, "VMO's mark", "nobody: written by close");
        lines.add(&self.joins, "count of joins", "faulters of this VMO that join a request");
        self.requests.lines(lines);
        self.queue.lines(lines);
        self.port.lines(lines);
    }
}

/// Turns the pages that still refer to a request back to what they were. Not needed for anyone's
/// progress, since they are taken for that anyway once the request is dead; but a page under a DIRTY
/// request must not name its entry longer than the request lives, see [`trap`](crate::trap).
fn withdraw(table: &Table, id: RequestId, pages: PageRange) {
    for page in pages.start..pages.end {
        let Some(slot) = table.slot(PageIndex(page)) else { continue };
        match slot.load() {
            State::Requested(requested) if requested.id() == id => {
                let _ = requested.withdraw(slot); // failing: another request or a supply took it over
            }
            // Failing: an eviction, the end of a writeback or a permit came first, so look again. The
            // caller holds the entry, so nobody puts the page under it anew.
            State::DirtyRequested(mut requested) => {
                while requested.index() == id.index()
                    && let Err(State::DirtyRequested(now)) = requested.withdraw(slot)
                {
                    requested = now;
                }
            }
            _ => {}
        }
    }
}
