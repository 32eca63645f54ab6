//! One request in flight: who waits for it, and how it ends.
//!
//! A request's life is one word, its *fate*:
//!
//! ```text
//!   free --open--> open(kind) --resolve--> sealed(outcome) --last reference--> free, next generation
//!                   |  ^
//!                   +--+ join, depart (not the last)
//! ```
//!
//! Sealing is one compare-and-swap, so of supply, failure, withdrawal and detach exactly one
//! decides the outcome. In the same word stand the references: while the request is open they are
//! its waiters, and the one who takes the last of them away seals it as withdrawn; after that they
//! are whoever has not finished with it yet.
//!
//! The waiters hang in a list that can be sealed: a push succeeds until the list is sealed, and
//! sealing leaves everything pushed before it in place. The seal is that the request's own waiter, the
//! first, is woken ([`wake`](crate::wake)). Whoever seals the fate seals the list and
//! wakes what is in it. Walking the list again is harmless, since each waker can be taken once: so
//! a detach, which meets every request, also brings home the waiters of a request whose resolver
//! was stopped half-way.
//!
//! A request and a waiter are the same kind of entry of one pool: the first waiter of a request is
//! the request itself, so a missing fault claims one entry, and joining claims one. An entry is
//! never freed while its source lives. A stale [`RequestId`] is recognised by its generation, 36
//! bits: a thread would have to sleep between two instructions while this one entry is used 2^36
//! times, and wake at that very use, to mistake it.

use core::task::Waker;

use crate::packet::Command;
use crate::pool::Pool;
use crate::queue::Entries;
use crate::status::{Result, Status};
#[cfg(accounting)]
use crate::sync::accounting::Lines;
use crate::sync::{AcqRel, Acquire, AtomicU32, AtomicU64, Hint, Relaxed, Release};
use crate::units::PageRange;
use crate::wake::{Fired, NIL, WakerCell};

/// The most pages in one request: 32 GiB. What the span has room for.
pub(crate) const MAX_RUN: u64 = (1 << RUN_BITS) - 1;
const RUN_BITS: u32 = 23;
const SPAN_START: u32 = 24;

const GENERATION_BITS: u32 = 36;
const COUNT_BITS: u32 = 64 - GENERATION_BITS;

/// The name of one request: an entry of the pool, in one of its lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RequestId {
    index: u32,
    generation: u64,
}

impl RequestId {
    pub(crate) const fn new(index: u32, generation: u64) -> Self {
        Self { index, generation }
    }

    pub(crate) const fn index(self) -> u32 {
        self.index
    }

    pub(crate) const fn generation(self) -> u64 {
        self.generation
    }
}

/// What a request is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Content of pages.
    Read,
    /// Leave to make pages dirty.
    Dirty,
    /// Not asked of the service, but its answer to DIRTY, from the moment it is given until it has
    /// taken effect: see [`trap`](crate::trap). No queue holds it.
    Permit,
}

impl Kind {
    /// What the service is sent for it.
    pub(crate) const fn command(self) -> Command {
        match self {
            Self::Read => Command::Read,
            Self::Dirty | Self::Permit => Command::Dirty,
        }
    }
}

/// How a request ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// Every page of it arrived, or may be dirty. Look again: it may have changed since.
    Supplied,
    /// Of a permit: its pages are dirty, whether their words say so yet or not.
    Granted,
    /// The last waiter had left. Who joined too late asks anew.
    Withdrawn,
    /// It will not be answered.
    Failed(Status),
}

/// One waiter's place in a request. Holds a reference to it; ends in [`Requests::depart`], that of a permit in
/// [`Requests::retire`].
#[derive(Debug)]
pub(crate) struct Wait<'a> {
    id: RequestId,
    request: &'a Request,
    /// The entry it waits in: that of the request, for its first waiter.
    place: &'a Request,
}

impl Wait<'_> {
    pub(crate) const fn id(&self) -> RequestId {
        self.id
    }

    /// How the request ended, if it did.
    #[inline]
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        self.request.fate().outcome()
    }

    /// Has a waiter that sleeps woken through `waker` from now on. False: it was woken already.
    pub(crate) fn rearm(&self, waker: &Waker) -> bool {
        let Some(old) = self.place.waker.disarm() else { return false };
        let waker = if old.will_wake(waker) { old } else { waker.clone() };
        // SAFETY: the cell is ours: our Wait keeps the entry, and we have just disarmed it.
        unsafe { self.place.waker.arm(waker) }
    }
}

/// The fate word: generation, references, whether the queue holds the entry, and a code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Fate(u64);

const CODE: u64 = 0x7f;
const QUEUED: u64 = 1 << 7;
const REFERENCE: u64 = 1 << 8;
const REFERENCES: u64 = ((1 << 20) - 1) << 8;

/// Also of a further waiter.
const FREE: u64 = 0;
const OPEN_READ: u64 = 1;
const OPEN_DIRTY: u64 = 2;
const OPEN_PERMIT: u64 = 3;
const SUPPLIED: u64 = 4;
const WITHDRAWN: u64 = 5;
const GRANTED: u64 = 6;
/// Failed, with the negated status in the low six bits.
const FAILED: u64 = 0x40;

impl Fate {
    const fn generation(self) -> u64 {
        self.0 >> COUNT_BITS
    }

    const fn code(self) -> u64 {
        self.0 & CODE
    }

    /// What it is about, while it is open.
    #[inline]
    const fn open_kind(self) -> Option<Kind> {
        match self.code() {
            OPEN_READ => Some(Kind::Read),
            OPEN_DIRTY => Some(Kind::Dirty),
            OPEN_PERMIT => Some(Kind::Permit),
            _ => None,
        }
    }

    /// The same, if it is in this life.
    #[inline]
    fn open_kind_in(self, generation: u64) -> Option<Kind> {
        self.open_kind().filter(|_| self.generation() == generation)
    }

    #[inline]
    fn is_open(self, id: RequestId) -> bool {
        self.open_kind_in(id.generation).is_some()
    }

    #[inline]
    fn outcome(self) -> Option<Outcome> {
        match self.code() {
            SUPPLIED => Some(Outcome::Supplied),
            WITHDRAWN => Some(Outcome::Withdrawn),
            GRANTED => Some(Outcome::Granted),
            code if code & FAILED != 0 => {
                let status = Status::from_raw(-((code & !FAILED) as i32)).unwrap_or(Status::Internal);
                Some(Outcome::Failed(status))
            }
            _ => None,
        }
    }

    const fn sealed(self, outcome: Outcome) -> Self {
        let code = match outcome {
            Outcome::Supplied => SUPPLIED,
            Outcome::Withdrawn => WITHDRAWN,
            Outcome::Granted => GRANTED,
            Outcome::Failed(status) => FAILED | (status as i32).unsigned_abs() as u64,
        };
        Self((self.0 & !CODE) | code)
    }

    const fn is_sealed(self) -> bool {
        self.code() >= SUPPLIED
    }

    /// Sealed, and nobody refers to it.
    const fn is_spent(self) -> bool {
        self.is_sealed() && self.0 & (QUEUED | REFERENCES) == 0
    }

    /// The same entry, free for its next life.
    const fn freed(self) -> Self {
        Self((self.0 >> COUNT_BITS).wrapping_add(1) << COUNT_BITS | FREE)
    }
}

/// An entry of the pool: a request, or a further waiter of one.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Request {
    fate: AtomicU64,
    /// The next entry of the queue; see [`queue`](crate::queue).
    link: AtomicU64,
    /// Generation, and the pages that have not arrived yet.
    remaining: AtomicU64,
    /// First page, and number of pages.
    span: AtomicU64,
    /// Its own waiter, and the newest entry of the wait list, which is sealed when the waiter is woken.
    waker: WakerCell,
    /// As a waiter: the next older one.
    older: AtomicU32,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            fate: AtomicU64::new(FREE),
            link: AtomicU64::new(0),
            remaining: AtomicU64::new(0),
            span: AtomicU64::new(0),
            waker: WakerCell::default(),
            older: AtomicU32::new(NIL),
        }
    }
}

impl Request {
    #[inline]
    fn fate(&self) -> Fate {
        Fate(self.fate.load(Acquire)) // Acquire: pairs with `Requests::open` and `change`
    }

    #[inline]
    fn change(&self, from: Fate, to: Fate) -> Result<(), Fate> {
        // AcqRel: Release publishes what the caller did for or with the request; Acquire takes
        // over what the others did. The last reference thereby comes after all the others.
        self.fate.compare_exchange(from.0, to.0, AcqRel, Acquire).map(drop).map_err(Fate)
    }

    #[inline]
    fn pages(&self) -> PageRange {
        // Acquire: pairs with `set_pages`. Who was late, and reads the pages of the entry's next request, sees that
        // the last one is over.
        let span = self.span.load(Acquire);
        let start = span >> SPAN_START;
        PageRange { start, end: start + (span & MAX_RUN) }
    }

    #[inline]
    fn set_pages(&self, start: u64, run: u64) {
        self.span.store((start << SPAN_START) | run, Release); // Release: pairs with `pages`
    }

    /// Leaves at most so many pages. Two threads may do it at once, and the shorter one counts.
    fn narrow(&self, run: u64) {
        let shorter = |span: u64| (span & MAX_RUN > run).then_some(span & !MAX_RUN | run);
        let _ = self.span.fetch_update(Relaxed, Relaxed, shorter); // Relaxed: as in `set_pages`
    }
}

/// What came of joining a request.
pub(crate) enum Joined<'a> {
    /// The waker is in place.
    Waits(Wait<'a>),
    /// The request is dead: look at the page again.
    TooLate,
    /// There is no entry to wait in. Nobody may be left who waits, and then the request is the
    /// caller's to settle.
    Refused(Status, Option<Resolving<'a>>),
}

/// A request as its opener has it, who is its first waiter and still awake.
#[derive(Debug)]
pub(crate) struct Opened<'a> {
    wait: Wait<'a>,
}

impl<'a> Opened<'a> {
    pub(crate) const fn id(&self) -> RequestId {
        self.wait.id
    }

    /// What the queue links.
    pub(crate) const fn entry(&self) -> &'a Request {
        self.wait.request
    }

    /// Stays awake.
    pub(crate) fn wait(self) -> Wait<'a> {
        self.wait
    }

    /// Has the waiter woken through `waker` from now on. `Err`: the request was resolved before, and
    /// nobody was or will be woken for it.
    #[inline]
    pub(crate) fn fall_asleep(self, waker: &Waker) -> Result<Wait<'a>, Wait<'a>> {
        // SAFETY: the cell is ours: the entry was opened for this Wait, and its cell emptied; it is armed
        // here first, since this uses `self` up.
        let sleeps = unsafe { self.wait.request.waker.arm(waker.clone()) };
        if sleeps { Ok(self.wait) } else { Err(self.wait) }
    }
}

/// What the entry is that a page under a DIRTY request names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Named {
    /// A DIRTY request in flight.
    Request(RequestId),
    /// A permit that is not decided.
    Permit(RequestId),
    /// A permit that has taken effect.
    Granted,
    /// Something that has ended, and has left the page as it was.
    Over,
}

/// A waiter's place in a wait list.
enum Place<'a> {
    /// In this entry.
    In(&'a Request),
    /// The request was resolved first.
    TooLate,
}

/// The requests of one page source.
#[derive(Debug)]
pub(crate) struct Requests {
    pool: Pool<Request>,
    /// About how many waiters have left requests that are still open. Not 0: a joiner looks for the
    /// place of one, so that a request which outlives many waiters does not use up the pool.
    left: Hint,
}

/// The duty of who sealed a request: settle its pages, then [`wake`](Self::wake) its waiters.
#[must_use]
#[derive(Debug)]
pub(crate) struct Resolving<'a> {
    requests: &'a Requests,
    id: RequestId,
    request: &'a Request,
}

impl Resolving<'_> {
    pub(crate) const fn id(&self) -> RequestId {
        self.id
    }

    /// The pages the request asked for.
    #[inline]
    pub(crate) fn pages(&self) -> PageRange {
        self.request.pages()
    }

    /// Seals the wait list and wakes everyone in it.
    #[inline]
    pub(crate) fn wake(self) {
        self.requests.wake_all(self.id.index, self.request);
        self.requests.let_go(self.id.index, self.request, REFERENCE);
    }
}

impl Requests {
    pub(crate) fn new() -> Self {
        Self { pool: Pool::new(), left: Hint::default() }
    }

    /// A spent entry that the queue holds: its first dummy.
    pub(crate) fn dummy(&self) -> Result<u32> {
        let (index, request) = self.pool.claim()?;
        request.fate.store(WITHDRAWN | QUEUED, Relaxed); // Relaxed: published with the source
        Ok(index)
    }

    /// A new request for `run` pages from `start` on, with its first waiter, who is still awake. Unless
    /// it is a permit, the queue is taken to hold it from now on: [`unqueue`](Entries::unqueue) it if it
    /// is not appended after all.
    #[inline]
    pub(crate) fn open(&self, kind: Kind, start: u64, run: u64) -> Result<Opened<'_>> {
        let (index, request) = self.pool.claim()?;
        let generation = request.fate().generation();
        request.set_pages(start, run);
        // Relaxed, all of these: published by the swap of the fate below
        request.remaining.store((generation << COUNT_BITS) | run, Relaxed);
        request.older.store(NIL, Relaxed);
        request.waker.reset(index);
        let opened = match kind {
            Kind::Read => OPEN_READ | QUEUED,
            Kind::Dirty => OPEN_DIRTY | QUEUED,
            Kind::Permit => OPEN_PERMIT,
        };
        let fate = (generation << COUNT_BITS) | REFERENCE | opened;
        // AcqRel: Release publishes the fields above to whoever joins; Acquire, by a swap and not a
        // store, takes over the mark of a walker who came by before: see `fail_all`
        request.fate.swap(fate, AcqRel);
        Ok(Opened { wait: Wait { id: RequestId::new(index, generation), request, place: request } })
    }

    /// Waits for a request that another faulter opened.
    pub(crate) fn join(&self, id: RequestId, waker: &Waker) -> Joined<'_> {
        let Some(request) = self.get(id.index) else { return Joined::TooLate };
        if !Self::hold(request, id) {
            return Joined::TooLate;
        }
        // From here on the reference keeps the request and its list.
        match self.take_place(request, waker).map_or_else(|| self.add_place(request, waker), Ok) {
            Ok(Place::In(place)) => Joined::Waits(Wait { id, request, place }),
            Ok(Place::TooLate) => {
                self.let_go(id.index, request, REFERENCE);
                Joined::TooLate
            }
            Err(status) => Joined::Refused(status, self.one_less(id, request)),
        }
    }

    /// Takes a reference to a request, to be given up by [`one_less`](Self::one_less). False: it is not open any more.
    fn hold(request: &Request, id: RequestId) -> bool {
        let mut fate = request.fate();
        while fate.is_open(id) {
            match request.change(fate, Fate(fate.0 + REFERENCE)) {
                Ok(()) => return true,
                Err(now) => fate = now,
            }
        }
        false
    }

    /// Takes the place of a waiter that has left.
    fn take_place(&self, request: &Request, waker: &Waker) -> Option<Place<'_>> {
        if self.left.get() == 0 {
            return None;
        }
        let mut node = request.waker.list();
        while node != NIL {
            let entry = self.get(node)?;
            if entry.waker.take_over() {
                self.left.uncount();
                // SAFETY: taken over, so the cell is ours, and not armed.
                let sleeps = unsafe { entry.waker.arm(waker.clone()) };
                return Some(if sleeps { Place::In(entry) } else { Place::TooLate });
            }
            node = entry.older.load(Relaxed); // Relaxed: ordered by the load of the list
        }
        None
    }

    /// Adds an entry to the wait list.
    fn add_place(&self, request: &Request, waker: &Waker) -> Result<Place<'_>> {
        // Its fate stays that of a free entry: nobody refers to a waiter by it, and a walk passes it by.
        let (node, waiter) = self.pool.claim()?;
        // SAFETY: the entry is claimed and in no list, so only we know of the cell.
        unsafe { waiter.waker.reset_armed(waker.clone()) };
        // Relaxed: published by the push
        if request.waker.push(node, |newest| waiter.older.store(newest, Relaxed)) {
            return Ok(Place::In(waiter));
        }
        drop(waiter.waker.disarm());
        self.pool.release(node);
        Ok(Place::TooLate)
    }

    /// The waiter leaves, woken or not. If it was the last one of an open request, that is
    /// withdrawn, and the caller settles its pages.
    #[inline]
    #[allow(clippy::needless_pass_by_value)] // the place is used up: no copy of it may depart again
    pub(crate) fn depart<'a>(&'a self, wait: Wait<'a>) -> Option<Resolving<'a>> {
        if wait.place.waker.abandon() {
            self.left.count();
        }
        self.one_less(wait.id, wait.request)
    }

    /// Gives up the opener's reference to a permit, which is decided.
    pub(crate) fn retire(&self, permit: RequestId) {
        if let Some(request) = self.get(permit.index) {
            self.let_go(permit.index, request, REFERENCE);
        }
    }

    /// One waiter less.
    #[inline]
    fn one_less<'a>(&'a self, id: RequestId, request: &'a Request) -> Option<Resolving<'a>> {
        let mut fate = request.fate();
        while fate.open_kind().is_some() {
            let last = fate.0 & REFERENCES == REFERENCE;
            // The last waiter's reference becomes that of the one who withdraws.
            let to = if last { fate.sealed(Outcome::Withdrawn) } else { Fate(fate.0 - REFERENCE) };
            match request.change(fate, to) {
                Ok(()) if last => return Some(Resolving { requests: self, id, request }),
                Ok(()) => return None,
                Err(now) => fate = now,
            }
        }
        self.let_go(id.index, request, REFERENCE);
        None
    }

    /// Takes back a request that no page refers to and that was not appended.
    pub(crate) fn abandon(&self, opened: Opened<'_>) {
        self.unqueue(opened.id().index, opened.entry());
        if let Some(withdrawn) = self.depart(opened.wait) {
            withdrawn.wake();
        }
    }

    /// Decides the outcome, unless somebody has.
    #[inline]
    pub(crate) fn resolve(&self, id: RequestId, outcome: Outcome) -> Option<Resolving<'_>> {
        let request = self.get(id.index)?;
        self.seal(request, id, request.fate(), outcome).ok()
    }

    /// As [`resolve`](Self::resolve), from the fate that was seen; if it is decided, its fate now.
    #[inline]
    fn seal<'a>(
        &'a self,
        request: &'a Request,
        id: RequestId,
        seen: Fate,
        outcome: Outcome,
    ) -> Result<Resolving<'a>, Fate> {
        let mut fate = seen;
        while fate.is_open(id) {
            match request.change(fate, Fate(fate.sealed(outcome).0 + REFERENCE)) {
                Ok(()) => return Ok(Resolving { requests: self, id, request }),
                Err(now) => fate = now,
            }
        }
        Err(fate)
    }

    /// `pages` of the request's pages have arrived, or were never part of it. With the last of
    /// them it resolves.
    #[inline]
    pub(crate) fn arrived(&self, id: RequestId, pages: u64) {
        let Some(request) = self.get(id.index) else { return };
        let mut remaining = request.remaining.load(Acquire); // Acquire: as on failure, below
        loop {
            let count = remaining & ((1 << COUNT_BITS) - 1);
            if remaining >> COUNT_BITS != id.generation || pages > count {
                return;
            }
            if pages == count {
                break; // the last ones: nobody else counts any more
            }
            // Release: the last arrival, which acquires, comes after all the others, so the waiter finds each
            // page. Who is not the last needs to see nothing of the others.
            match request.remaining.compare_exchange(remaining, remaining - pages, Release, Acquire) {
                Ok(_) => return,
                Err(now) => remaining = now,
            }
        }
        if let Ok(resolving) = self.seal(request, id, request.fate(), Outcome::Supplied) {
            resolving.wake();
        }
    }

    /// Cuts a request that was opened for `run` pages and has not been appended yet down to those that
    /// it could claim.
    pub(crate) fn shorten(&self, id: RequestId, run: u64, to: u64) {
        let Some(request) = self.get(id.index) else { return };
        request.narrow(to);
        self.arrived(id, run - to);
    }

    /// Leaves the request its first `run` pages, of which `gone` others did not arrive and will not. If all its
    /// waiters left meanwhile, it is withdrawn, and the caller settles its pages.
    pub(crate) fn cut(&self, id: RequestId, run: u64, gone: u64) -> Option<Resolving<'_>> {
        let request = self.get(id.index)?;
        // The span has no generation: the entry must not become another request's before it is narrowed.
        if !Self::hold(request, id) {
            return None;
        }
        request.narrow(run);
        if gone > 0 {
            self.arrived(id, gone);
        }
        self.one_less(id, request)
    }

    /// Whether the request still waits for an answer.
    #[inline]
    pub(crate) fn is_open(&self, id: RequestId) -> bool {
        self.open_kind(id).is_some()
    }

    /// As [`is_open`](Self::is_open), for the opener, by a read-modify-write: if it was not ended
    /// before, then whoever ends it sees what the opener did before.
    pub(crate) fn is_open_after(&self, id: RequestId) -> bool {
        // AcqRel: Release shows the claims to whoever ends it; Acquire takes over the end
        self.get(id.index).is_some_and(|request| Fate(request.fate.fetch_or(0, AcqRel)).is_open(id))
    }

    /// What the request is about, while it waits for an answer.
    #[inline]
    pub(crate) fn open_kind(&self, id: RequestId) -> Option<Kind> {
        self.get(id.index)?.fate().open_kind_in(id.generation)
    }

    /// What has become of the entry that a page under a DIRTY request names, and its pages.
    pub(crate) fn named(&self, index: u32) -> (Named, PageRange) {
        let none = (Named::Over, PageRange { start: 0, end: 0 });
        let Some(request) = self.get(index) else { return none };
        let fate = request.fate();
        let id = RequestId::new(index, fate.generation());
        match fate.code() {
            OPEN_DIRTY => (Named::Request(id), request.pages()),
            OPEN_PERMIT => (Named::Permit(id), request.pages()),
            GRANTED => (Named::Granted, request.pages()),
            _ => none,
        }
    }

    /// Subtracts from the fate what the caller held of it, and frees the entry after the last.
    #[inline]
    fn let_go(&self, index: u32, request: &Request, held: u64) {
        let mut fate = request.fate();
        loop {
            let left = Fate(fate.0 - held);
            let spent = left.is_spent();
            match request.change(fate, if spent { left.freed() } else { left }) {
                Ok(()) if spent => return self.free(index, request),
                Ok(()) => return,
                Err(now) => fate = now,
            }
        }
    }

    /// Gives a spent request and its waiters back to the pool. Only the one who freed its fate
    /// comes here, so the list is its own.
    fn free(&self, index: u32, request: &Request) {
        // The pushes came before: whoever pushed has let go of the request, and the last one acquired that.
        // The last of them is the request itself.
        let newest = request.waker.list();
        if newest == index {
            return self.pool.release(index);
        }
        self.pool.release_all(self.waiters(index, newest).map(|(node, _)| node).chain([index]));
    }

    /// The waiters of a list from this one on, without the request itself, which comes last.
    #[inline]
    fn waiters(&self, index: u32, newest: u32) -> impl Iterator<Item = (u32, &Request)> {
        let mut node = newest;
        core::iter::from_fn(move || {
            if node == NIL || node == index {
                return None;
            }
            let (this, waiter) = (node, self.get(node)?);
            node = waiter.older.load(Relaxed); // Relaxed: ordered by the list
            Some((this, waiter))
        })
    }

    #[inline]
    fn wake_all(&self, index: u32, request: &Request) {
        // Its own waiter first: his cell is the seal, so who walks the list again would not find him.
        let newest = self.fire(request);
        self.waiters(index, newest).for_each(|(_, waiter)| {
            self.fire(waiter);
        });
    }

    /// Returns the list that hangs on the cell.
    #[inline]
    fn fire(&self, waiter: &Request) -> u32 {
        let (whom, list) = waiter.waker.fire();
        match whom {
            Fired::Sleeper(waker) => waker.wake(),
            Fired::Left => self.left.uncount(),
            Fired::Nobody => {}
        }
        list
    }

    /// Fails every open request, hands it to `settle`, and brings home the waiters of those that somebody else sealed
    /// but has not finished waking. Returns how many it failed.
    ///
    /// The fate of an entry that is not open yet is read by a read-modify-write, as `open` writes it by one:
    /// so a request that is claimed but not open yet when the walk comes by sees, once it opens, what the
    /// walker did before it walked. With the rule of the walk that leaves no gap between claim and open. Sealing
    /// is a read-modify-write itself, and who has sealed came after the opening.
    pub(crate) fn fail_all(&self, status: Status, mut settle: impl FnMut(Kind, Resolving<'_>)) -> u64 {
        let mut failed = 0;
        self.pool.for_each_claimed(|index, request| {
            let mut fate = request.fate();
            if fate.code() == FREE {
                fate = Fate(request.fate.fetch_or(0, AcqRel)); // AcqRel: see above
            }
            let id = RequestId::new(index, fate.generation());
            match self.seal(request, id, fate, Outcome::Failed(status)) {
                Ok(resolving) => {
                    let kind = fate.open_kind().unwrap_or(Kind::Read); // open, or it would not have been sealed
                    failed += u64::from(kind != Kind::Permit);
                    settle(kind, resolving);
                }
                Err(fate) => self.help(request, id, fate),
            }
        });
        failed
    }

    /// Wakes the waiters of a request that is sealed and not spent.
    fn help(&self, request: &Request, id: RequestId, seen: Fate) {
        let mut fate = seen;
        while fate.is_sealed() && fate.generation() == id.generation && fate.0 & REFERENCES != 0 {
            match request.change(fate, Fate(fate.0 + REFERENCE)) {
                Ok(()) => return Resolving { requests: self, id, request }.wake(),
                Err(now) => fate = now,
            }
        }
    }

    /// As [`for_each_open`](Self::for_each_open), by the rule of the walk, as in
    /// [`fail_all`](Self::fail_all): every request that is not met sees what was done before.
    pub(crate) fn walk_open(&self, mut f: impl FnMut(RequestId, Kind, PageRange)) {
        self.pool.for_each_claimed(|index, request| {
            let fate = Fate(request.fate.fetch_or(0, AcqRel)); // AcqRel: see `fail_all`
            if let Some(kind @ (Kind::Read | Kind::Dirty)) = fate.open_kind() {
                f(RequestId::new(index, fate.generation()), kind, request.pages());
            }
        });
    }

    /// Calls `f` with every open request and its pages. Permits are none.
    pub(crate) fn for_each_open(&self, mut f: impl FnMut(RequestId, Kind, PageRange)) {
        self.pool.glance(|index, request| {
            let fate = request.fate();
            if let Some(kind @ (Kind::Read | Kind::Dirty)) = fate.open_kind() {
                f(RequestId::new(index, fate.generation()), kind, request.pages());
            }
        });
    }
}

/// In a model every entry has been given back in the end, but for those that the queue holds, and their waiters.
#[cfg(loom)]
impl Drop for Requests {
    fn drop(&mut self) {
        let (mut claimed, mut held) = (0, 0);
        self.pool.glance(|index, request| {
            claimed += 1;
            if request.fate().0 & (QUEUED | REFERENCES) == QUEUED {
                held += 1;
                held += self.waiters(index, request.waker.list()).count();
            }
        });
        assert_eq!(claimed, held, "an entry was not given back");
    }
}

#[cfg(accounting)]
impl Requests {
    pub(crate) fn lines(&self, lines: &mut Lines) {
        lines.add(&self.left, "count of waiters that left", "who leaves a request that is open, or joins one");
        let names = [
            ("requests' segments", "nobody: written when there are more in flight than ever"),
            (
                "requests' hint",
                "who makes, joins or ends a request whose entry is not among the 8 to 64 of the last one",
            ),
            ("requests' bits", "the same, for 64 requests in flight each"),
            ("request", "the faulters that wait for it, its service thread, and who appends the next"),
        ];
        self.pool.lines(lines, names);
    }
}

impl Entries for Requests {
    type Entry = Request;
    type Seen = Fate;
    type Item = (Kind, PageRange);

    #[inline]
    fn get(&self, index: u32) -> Option<&Request> {
        self.pool.get(index)
    }

    #[inline]
    fn link(request: &Request) -> &AtomicU64 {
        &request.link
    }

    #[inline]
    fn see(request: &Request) -> Fate {
        request.fate()
    }

    #[inline]
    fn is_live(seen: Fate) -> bool {
        seen.open_kind().is_some()
    }

    #[inline]
    fn collect(&self, _: u32, request: &Request, seen: Fate) -> Option<(Kind, PageRange)> {
        // The pages only now: a shrink may have cut them. And before the fate: the newest of a batch may be another's request
        // already, and who has read the pages of that sees that this one is over.
        let pages = request.pages();
        let kind = request.fate().open_kind_in(seen.generation())?;
        Some((kind, pages))
    }

    #[inline]
    fn unqueue(&self, index: u32, request: &Request) {
        self.let_go(index, request, QUEUED);
    }
}
