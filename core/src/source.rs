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
use crate::request::{Joined, MAX_RUN, Outcome, RequestId, Requests, Resolving, Wait};
use crate::slot::{OF_PAGER, OWN, Slot, State};
use crate::status::{Result, Status};
use crate::sync::{AcqRel, Acquire, Arc, AtomicU32, AtomicU64, Guard, Hint, SeqCst, fence};
use crate::table::Table;
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
    joins: Hint,
    key: u64,
    port: Arc<Port<P>>,
    /// The VMO's entry in the port.
    entry: u32,
}

/// What became of asking for a page.
pub(crate) enum Asked {
    /// There is a request, and the waker will be woken when it resolves.
    Asleep(Wait),
    /// There was a request, and it has resolved.
    Resolved(Wait),
    /// The page is not absent any more: look again.
    Moved,
}

impl<P: Platform> Source<P> {
    pub(crate) fn new(port: Arc<Port<P>>, entry: u32, key: u64) -> Result<Self> {
        let requests = Requests::new();
        let queue = Queue::new(&requests, requests.dummy()?)?;
        let (shown, state) = (AtomicU64::new(ATTACHED), AtomicU32::new(0));
        Ok(Self { shown, state, requests, queue, joins: Hint::default(), key, port, entry })
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
    pub(crate) fn detach(&self) -> u64 {
        self.shown.swap(DETACHED, AcqRel); // AcqRel: as in `mark`
        self.complete();
        self.requests.fail_all(Status::BadState)
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
        self.complete();
        // Pairs with the fence in Port's Drop: either we see the port closed, or it sees the mark.
        fence(SeqCst);
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
    pub(crate) fn close(&self) {
        self.mark(CLOSED);
        self.queue.close(&self.requests);
        self.requests.fail_all(Status::BadState);
        self.port.ready(self.entry); // so that the port forgets the VMO
    }

    /// Waits for the page: joins the request that covers it, or opens one for it and for as many
    /// absent pages after it as there are up to `run`.
    pub(crate) fn ask(&self, table: &Table, page: PageIndex, run: u64, waker: &Waker) -> Result<Asked> {
        if let Some(State::Requested(page)) = table.slot(page).map(Slot::load) {
            match self.requests.join(page.id(), waker) {
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
        let wait = self.requests.open(page.0, run)?;
        let id = wait.id();
        // After the claim: see "How a request cannot be left behind".
        let claimed = self.attached().and_then(|()| self.claim_run(table, page, run, id));
        match claimed {
            Err(status) => {
                self.requests.abandon(wait);
                return Err(status);
            }
            Ok(0) => {
                self.requests.abandon(wait);
                return Ok(Asked::Moved);
            }
            Ok(claimed) if claimed < run => self.requests.shorten(id, claimed),
            Ok(_) => {}
        }
        if let Ok(()) = self.queue.append(&self.requests, id.index()) {
            self.announce();
        } else {
            self.requests.unqueue(id.index());
            Self::settle(table, self.requests.resolve(id, Outcome::Failed(Status::BadState)));
        }
        // Last of all: whatever happened to the request so far has woken nobody needlessly.
        let sleep = self.requests.fall_asleep(&wait, waker);
        Ok(if sleep { Asked::Asleep(wait) } else { Asked::Resolved(wait) })
    }

    /// Makes absent pages refer to the request, from `first` on, until one is not absent.
    #[inline]
    fn claim_run(&self, table: &Table, first: PageIndex, run: u64, id: RequestId) -> Result<u64> {
        for claimed in 0..run {
            let at = match table.find_or_make(PageIndex(first.0 + claimed)) {
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

    /// The waiter leaves; the last one withdraws the request.
    #[inline]
    pub(crate) fn leave(&self, table: &Table, wait: Wait) {
        Self::settle(table, self.requests.depart(wait));
    }

    /// Fails every open request that still waits for a page of the range.
    pub(crate) fn fail(&self, table: &Table, range: PageRange, status: Status) {
        self.requests.for_each_open(|id, pages| {
            let within = pages.intersect(range);
            let waits = |page| {
                let slot = table.slot(PageIndex(page));
                matches!(slot.map(Slot::load), Some(State::Requested(page)) if page.id() == id)
            };
            if (within.start..within.end).any(waits) {
                Self::settle(table, self.requests.resolve(id, Outcome::Failed(status)));
            }
        });
    }

    /// Ends a request that failed or was withdrawn: its pages are absent again, its waiters wake.
    #[inline]
    fn settle(table: &Table, sealed: Option<Resolving<'_>>) {
        if let Some(resolving) = sealed {
            withdraw(table, resolving.id(), resolving.pages());
            resolving.wake();
        }
    }

    /// Fills `packets` from the queue, adjacent READs as one packet, and takes at most as many
    /// requests as `packets` has room for. COMPLETE comes last.
    pub(crate) fn take(&self, packets: &mut [Packet]) -> (usize, Taken) {
        let mut filled = 0;
        let mut end = None;
        let mut taken = self.queue.take(&self.requests, packets.len(), |pages| {
            let length = (pages.end - pages.start) * PAGE_SIZE;
            if end == Some(pages.start) {
                packets[filled - 1].page_request.length += length;
            } else {
                packets[filled] = Packet::page_request(self.key, Command::Read, pages.start * PAGE_SIZE, length);
                filled += 1;
            }
            end = Some(pages.end);
        });
        if taken == Taken::Complete {
            packets[filled] = Packet::page_request(self.key, Command::Complete, 0, 0);
            filled += 1;
            taken = Taken::Closed;
        }
        (filled, taken)
    }

    /// Whether there may be something to take.
    pub(crate) fn has_packets(&self) -> bool {
        self.queue.has_some(&self.requests)
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

/// Turns the pages that still refer to a request back to empty. Not needed for anyone's progress,
/// since they are taken for empty anyway once the request is dead.
fn withdraw(table: &Table, id: RequestId, pages: PageRange) {
    for page in pages.start..pages.end {
        let Some(slot) = table.slot(PageIndex(page)) else { continue };
        if let State::Requested(requested) = slot.load()
            && requested.id() == id
        {
            let _ = requested.withdraw(slot); // failing: another request or a supply took it over
        }
    }
}
