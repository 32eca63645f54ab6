//! The pager as a sequential program: what every call does when nothing else is under way.
//!
//! Plain code and plain collections. A page's content is one byte. An access that must wait
//! becomes a [`Waiter`]; [`Spec::resume`] is what its thread does when it has been woken.
//!
//! Four calls of the pager are more than one step here, because they promise no more:
//! an eviction ([`evict`](Spec::evict), later [`reclaim`](Spec::reclaim), and in between the page
//! can be rescued), an access to several pages, which goes page by page, and, for who looks while
//! it is under way, a [`detach`](Spec::detach) and a [`dirty`](Spec::dirty). After a `dirty` and an
//! `evict`, and after a [`zero`](Spec::zero), those who wait to write are [told](Spec::tell).

use std::collections::BTreeMap;

use upager::{Command, Status};

/// What a page is. `Requested` is not a state of the page here but a fact about a request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Page {
    Absent,
    Clean(u8),
    /// Evicted, and not gone yet.
    Evicting(u8),
    Dirty(u8),
    AwaitingClean(u8),
    /// Zeros, dirty, that no page holds.
    Zero,
    /// The same, being written back.
    ZeroAwaiting,
}

/// The VMO's link to its pager.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Link {
    Attached,
    Detached,
    /// The pager is gone. Clean pages stay, unless the VMO had been detached.
    Closed {
        detached: bool,
    },
}

/// A request in flight.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Request {
    /// READ or DIRTY.
    command: Command,
    start: u64,
    end: u64,
    /// Pages that have not arrived, or may not be dirty yet.
    missing: Vec<u64>,
    waiters: usize,
    delivered: bool,
}

/// An access that waits.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Waiter {
    page: u64,
    run: u64,
    write: Option<u8>,
    /// The hint that waits, if it is one.
    hint: Option<Hint>,
    request: usize,
}

/// A hint that brings a page in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Hint {
    Commit,
    Prefetch,
    AlwaysNeed,
}

/// What an access comes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Access {
    Done(u8),
    Failed(Status),
    Waits(Waiter),
}

/// A packet: command, first page, number of pages.
pub type Packet = (Command, u64, u64);

/// One VMO, its pager and its port.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Spec {
    pages: Vec<Page>,
    /// Which pages are always needed. Means nothing for a page that is absent; zeros never are.
    kept: Vec<bool>,
    link: Link,
    /// Whether the service is asked before a page becomes dirty.
    traps: bool,
    /// By number; the numbers ascend in the order in which the requests were made.
    requests: BTreeMap<usize, Request>,
    /// How those ended that are not in flight any more, for the waiters that have not looked yet.
    outcomes: BTreeMap<usize, Result<(), Status>>,
    made: usize,
    complete: Complete,
    /// Whether the port is closed: what would be delivered is lost.
    port_is_closed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Complete {
    NotYet,
    Queued,
    Over,
}

impl Spec {
    /// A VMO of so many pages, all absent.
    #[must_use]
    pub fn new(pages: usize) -> Self {
        Self {
            pages: vec![Page::Absent; pages],
            kept: vec![false; pages],
            link: Link::Attached,
            traps: false,
            requests: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            made: 0,
            complete: Complete::NotYet,
            port_is_closed: false,
        }
    }

    /// As [`new`](Self::new), of a VMO that traps dirtying.
    #[must_use]
    pub fn trapping(pages: usize) -> Self {
        Self { traps: true, ..Self::new(pages) }
    }

    /// The same without its past: the outcomes and the numbers of requests that nobody waits for any
    /// more. `None`: a request is in flight.
    #[must_use]
    pub fn at_rest(self) -> Option<Self> {
        self.requests.is_empty().then(|| Self { outcomes: BTreeMap::new(), made: 0, ..self })
    }

    /// The state of a page.
    #[must_use]
    pub fn page(&self, page: u64) -> Page {
        usize::try_from(page).ok().and_then(|page| self.pages.get(page)).copied().unwrap_or(Page::Absent)
    }

    fn state(&mut self, page: u64) -> &mut Page {
        let page = usize::try_from(page).unwrap_or(usize::MAX);
        &mut self.pages[page]
    }

    fn request_of(&self, page: u64) -> Option<usize> {
        self.requests.iter().find(|(_, request)| request.missing.contains(&page)).map(|(id, _)| *id)
    }

    /// The page is not missing any more to the request that waits for it.
    fn arrived(&mut self, page: u64) {
        if let Some(id) = self.request_of(page) {
            self.arrived_for(id, page);
        }
    }

    /// The page is not missing any more to this request, if it has not ended.
    pub fn arrived_for(&mut self, id: usize, page: u64) {
        if let Some(request) = self.requests.get_mut(&id) {
            request.missing.retain(|missing| *missing != page);
            if request.missing.is_empty() {
                self.end_request(id, Ok(()));
            }
        }
    }

    /// Reads a page, of an access that goes on for `run` pages.
    pub fn read(&mut self, page: u64, run: u64) -> Access {
        self.access(page, run, None)
    }

    /// Writes a page, of an access that goes on for `run` pages.
    pub fn write(&mut self, page: u64, run: u64, byte: u8) -> Access {
        self.access(page, run, Some(byte))
    }

    fn access(&mut self, page: u64, run: u64, write: Option<u8>) -> Access {
        if page >= self.pages.len() as u64 {
            return Access::Failed(Status::OutOfRange);
        }
        let traps = self.traps;
        let state = self.state(page);
        match (*state, write) {
            (Page::Absent, _) => self.ask(Command::Read, page, run, write),
            (Page::Clean(_) | Page::AwaitingClean(_), Some(_)) if traps => self.ask(Command::Dirty, page, run, write),
            (Page::Evicting(kept), Some(_)) if traps => {
                *state = Page::Clean(kept); // rescued
                self.ask(Command::Dirty, page, run, write)
            }
            (Page::ZeroAwaiting, Some(_)) if traps => {
                *state = Page::AwaitingClean(0); // stored, and then asked for
                self.ask(Command::Dirty, page, run, write)
            }
            (_, Some(byte)) => {
                *state = Page::Dirty(byte);
                Access::Done(byte)
            }
            (Page::Zero | Page::ZeroAwaiting, None) => Access::Done(0),
            (Page::Clean(byte) | Page::Evicting(byte), None) => {
                *state = Page::Clean(byte); // evicting: rescued
                Access::Done(byte)
            }
            (Page::Dirty(byte) | Page::AwaitingClean(byte), None) => Access::Done(byte),
        }
    }

    /// Brings a page in. Done with byte 0.
    pub fn commit(&mut self, page: u64) -> Access {
        self.hint(page, Hint::Commit)
    }

    /// Brings a page in, if it can be. Done with byte 0.
    pub fn prefetch(&mut self, page: u64) -> Access {
        if page < self.size() { self.hint(page, Hint::Prefetch) } else { Access::Failed(Status::OutOfRange) }
    }

    /// Brings a page in, and has it always needed from then on, if it is stored. Done with byte 0.
    pub fn always_need(&mut self, page: u64) -> Access {
        self.hint(page, Hint::AlwaysNeed)
    }

    fn hint(&mut self, page: u64, hint: Hint) -> Access {
        match self.access(page, 1, None) {
            Access::Done(_) => {
                if hint == Hint::AlwaysNeed && !matches!(self.page(page), Page::Zero | Page::ZeroAwaiting) {
                    self.keep(page, true);
                }
                Access::Done(0)
            }
            Access::Waits(waiter) => Access::Waits(Waiter { hint: Some(hint), ..waiter }),
            Access::Failed(_) if hint == Hint::Prefetch => Access::Done(0),
            failed @ Access::Failed(_) => failed,
        }
    }

    /// The page is not always needed, and next to go.
    pub fn dont_need(&mut self, page: u64) {
        self.keep(page, false);
    }

    fn keep(&mut self, page: u64, keep: bool) {
        let page = usize::try_from(page).unwrap_or(usize::MAX);
        self.kept[page] = keep;
    }

    /// Whether evictors that take only what is unused pass a clean page by, whenever it was used.
    #[must_use]
    pub fn is_spared(&self, page: u64) -> bool {
        let kept = usize::try_from(page).is_ok_and(|page| self.kept.get(page) == Some(&true));
        matches!(self.page(page), Page::Clean(_)) && (kept || self.is_asked(page))
    }

    /// Joins the request in flight, or makes one for the longest run of pages that need the same.
    fn ask(&mut self, command: Command, page: u64, run: u64, write: Option<u8>) -> Access {
        if self.link != Link::Attached {
            return Access::Failed(Status::BadState);
        }
        let request = if let Some(id) = self.request_of(page) {
            if let Some(request) = self.requests.get_mut(&id) {
                request.waiters += 1;
            }
            id
        } else {
            let last = (page + run).min(self.pages.len() as u64);
            let free = |p: &u64| {
                let needs = match command {
                    Command::Dirty => matches!(self.page(*p), Page::Clean(_) | Page::AwaitingClean(_)),
                    _ => self.page(*p) == Page::Absent,
                };
                needs && self.request_of(*p).is_none()
            };
            let missing: Vec<u64> = (page..last).take_while(free).collect();
            let end = page + missing.len() as u64;
            let request = Request { command, start: page, end, missing, waiters: 1, delivered: false };
            self.requests.insert(self.made, request);
            self.made += 1;
            self.made - 1
        };
        Access::Waits(Waiter { page, run, write, hint: None, request })
    }

    /// Whether the waiter has been woken.
    #[must_use]
    pub fn is_woken(&self, waiter: &Waiter) -> bool {
        self.outcomes.contains_key(&waiter.request)
    }

    /// What a waiter does when it has been woken: fail, or look again.
    pub fn resume(&mut self, waiter: Waiter) -> Access {
        match (self.outcomes.get(&waiter.request), waiter.hint) {
            (None, _) => Access::Waits(waiter),
            (Some(_), Some(Hint::Prefetch)) => Access::Done(0),
            (Some(Err(status)), _) => Access::Failed(*status),
            // That it came is enough, whether it was evicted since or not.
            (Some(Ok(())), Some(Hint::Commit)) if waiter.page < self.size() => Access::Done(0),
            (Some(Ok(())), Some(Hint::Commit)) => Access::Failed(Status::OutOfRange),
            (Some(Ok(())), Some(Hint::AlwaysNeed)) => self.always_need(waiter.page),
            (Some(Ok(())), None) => self.access(waiter.page, waiter.run, waiter.write),
        }
    }

    /// A waiter leaves. With the last one goes the request.
    pub fn leave(&mut self, waiter: &Waiter) {
        if let Some(request) = self.requests.get_mut(&waiter.request) {
            request.waiters -= 1;
            if request.waiters == 0 {
                self.requests.remove(&waiter.request);
            }
        }
    }

    fn end_request(&mut self, id: usize, outcome: Result<(), Status>) {
        self.requests.remove(&id);
        self.outcomes.insert(id, outcome);
    }

    /// Supplies one page.
    ///
    /// # Errors
    /// `BadState` when detached.
    pub fn supply(&mut self, page: u64, byte: u8) -> Result<(), Status> {
        if let Some(request) = self.place(page, byte)? {
            self.arrived_for(request, page);
        }
        Ok(())
    }

    /// The first half of a [`supply`](Self::supply): the page is there. Returns the request that
    /// waits for it, and is to be [told](Self::arrived_for).
    ///
    /// # Errors
    /// As for `supply`.
    pub fn place(&mut self, page: u64, byte: u8) -> Result<Option<usize>, Status> {
        if self.is_detached() {
            return Err(Status::BadState);
        }
        let state = self.state(page);
        match *state {
            Page::Absent => {
                *state = Page::Clean(byte);
                self.keep(page, false);
            }
            Page::Evicting(kept) => *state = Page::Clean(kept),
            _ => return Ok(None),
        }
        Ok(self.request_of(page))
    }

    /// Lets the pages of `start..end` become dirty: all or none.
    ///
    /// # Errors
    /// `NotSupported`, `BadState`, and `NotFound` when one is absent.
    pub fn dirty(&mut self, start: u64, end: u64) -> Result<(), Status> {
        if !self.traps {
            return Err(Status::NotSupported);
        }
        if self.link != Link::Attached {
            return Err(Status::BadState);
        }
        for page in start..end {
            match *self.state(page) {
                Page::Evicting(kept) => *self.state(page) = Page::Clean(kept), // rescued
                Page::ZeroAwaiting => *self.state(page) = Page::AwaitingClean(0), // stored
                Page::Absent => {
                    let asked = |(_, request): &(&usize, &Request)| {
                        request.command == Command::Dirty && request.start < end && start < request.end
                    };
                    for id in self.requests.iter().filter(asked).map(|(id, _)| *id).collect::<Vec<_>>() {
                        self.end_request(id, Ok(()));
                    }
                    return Err(Status::NotFound);
                }
                _ => {}
            }
        }
        for page in start..end {
            let state = self.state(page);
            if let Page::Clean(byte) | Page::AwaitingClean(byte) = *state {
                *state = Page::Dirty(byte);
            }
        }
        Ok(())
    }

    /// Makes a page zeros, dirty. Who waits for it goes on.
    pub fn zero(&mut self, page: u64) {
        *self.state(page) = Page::Zero;
        self.keep(page, false);
        if !self.is_asked(page) {
            self.arrived(page);
        }
    }

    /// A frame takes the place of zeros: what a fault does that wants one.
    pub fn store(&mut self, page: u64) {
        let state = self.state(page);
        match *state {
            Page::Zero => *state = Page::Dirty(0),
            Page::ZeroAwaiting => *state = Page::AwaitingClean(0),
            _ => {}
        }
    }

    /// What is done when a [`dirty`](Self::dirty), a [`zero`](Self::zero) or an [`evict`](Self::evict)
    /// returns: those who wait to write the pages have been told.
    pub fn tell(&mut self, start: u64, end: u64) {
        for page in start..end {
            let is_settled = !matches!(self.page(page), Page::Clean(_) | Page::AwaitingClean(_));
            if is_settled && self.is_asked(page) {
                self.arrived(page);
            }
        }
    }

    /// Whether a DIRTY request waits for the page.
    fn is_asked(&self, page: u64) -> bool {
        self.request_of(page).is_some_and(|id| self.requests[&id].command == Command::Dirty)
    }

    /// Fails every request that still waits for a page of `start..end`.
    pub fn fail(&mut self, start: u64, end: u64, status: Status) {
        while let Some(id) = (start..end).find_map(|page| self.request_of(page)) {
            self.end_request(id, Err(status));
        }
    }

    /// How many pages there are.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.pages.len() as u64
    }

    /// Sets how many pages there are. New ones are zeros.
    pub fn set_size(&mut self, pages: u64) {
        let size = usize::try_from(pages).unwrap_or(usize::MAX);
        self.pages.resize(size, Page::Zero);
        self.kept.resize(size, false);
        for id in self.requests.keys().copied().collect::<Vec<_>>() {
            let Some(request) = self.requests.get_mut(&id) else { continue };
            if request.start >= pages {
                self.end_request(id, Err(Status::OutOfRange));
                continue;
            }
            request.missing.retain(|page| *page < pages);
            if request.command == Command::Read {
                request.end = request.end.min(pages);
            }
            if request.missing.is_empty() {
                self.end_request(id, Ok(()));
            }
        }
    }

    /// Begins writeback of a page.
    pub fn writeback_begin(&mut self, page: u64) {
        let state = self.state(page);
        if let Page::Dirty(byte) = *state {
            *state = Page::AwaitingClean(byte);
        }
        self.writeback_begin_zeros(page);
    }

    /// Begins writeback of a page if it is zeros that are not stored.
    pub fn writeback_begin_zeros(&mut self, page: u64) {
        let state = self.state(page);
        if *state == Page::Zero {
            *state = Page::ZeroAwaiting;
        }
    }

    /// Ends writeback of a page.
    pub fn writeback_end(&mut self, page: u64) {
        let detached = self.is_detached();
        let state = self.state(page);
        match *state {
            Page::AwaitingClean(byte) => *state = if detached { Page::Absent } else { Page::Clean(byte) },
            Page::ZeroAwaiting => *state = Page::Absent,
            _ => {}
        }
    }

    /// Begins to evict a page. True: it was clean.
    pub fn evict(&mut self, page: u64) -> bool {
        let state = self.state(page);
        if let Page::Clean(byte) = *state {
            *state = Page::Evicting(byte);
            return true;
        }
        false
    }

    /// Keeps a page that is being evicted. The first thing that a writer does who then must ask.
    pub fn rescue(&mut self, page: u64) {
        let state = self.state(page);
        if let Page::Evicting(byte) = *state {
            *state = Page::Clean(byte);
        }
    }

    /// Ends an eviction, unless the page was rescued.
    pub fn reclaim(&mut self, page: u64) {
        let state = self.state(page);
        if let Page::Evicting(_) = *state {
            *state = Page::Absent;
        }
    }

    /// Detaches. True: it was not detached before.
    pub fn detach(&mut self) -> bool {
        let first = self.begin_detach();
        if first {
            self.end_detach();
        }
        first
    }

    /// The one instant of a detach: from now on nobody can ask, and the clean pages are gone. What
    /// is in flight still is. True: it was attached.
    pub fn begin_detach(&mut self) -> bool {
        if self.link != Link::Attached {
            return false;
        }
        self.link = Link::Detached;
        for state in &mut self.pages {
            if let Page::Clean(_) | Page::Evicting(_) = state {
                *state = Page::Absent;
            }
        }
        true
    }

    /// What is done when a detach returns: everything in flight has failed, and COMPLETE is there.
    pub fn end_detach(&mut self) {
        self.fail_all();
        self.complete();
    }

    pub(crate) fn fail_all(&mut self) {
        for id in self.requests.keys().copied().collect::<Vec<_>>() {
            self.end_request(id, Err(Status::BadState));
        }
    }

    pub(crate) fn complete(&mut self) {
        if self.complete == Complete::NotYet {
            self.complete = Complete::Queued;
        }
    }

    /// The pager's last handle closes.
    pub fn close_pager(&mut self) {
        self.link = Link::Closed { detached: self.is_detached() };
        self.fail_all();
        self.complete = Complete::Over;
    }

    /// The port's last handle closes. Who waits goes on waiting.
    pub fn close_port(&mut self) {
        self.port_is_closed = true;
    }

    /// The VMO's last handle closes. Nobody waits then.
    pub fn drop_vmo(&mut self) {
        self.requests.clear();
        self.complete();
        self.pages.fill(Page::Absent);
    }

    /// Everything that the port has: adjacent requests of one kind as one, COMPLETE last.
    pub fn take(&mut self) -> Vec<Packet> {
        let mut packets: Vec<Packet> = Vec::new();
        if self.port_is_closed {
            return packets;
        }
        for request in self.requests.values_mut().filter(|request| !request.delivered) {
            request.delivered = true;
            match packets.last_mut() {
                Some((command, start, pages)) if *command == request.command && *start + *pages == request.start => {
                    *pages += request.end - request.start;
                }
                _ => packets.push((request.command, request.start, request.end - request.start)),
            }
        }
        if self.complete == Complete::Queued {
            self.complete = Complete::Over;
            packets.push((Command::Complete, 0, 0));
        }
        packets
    }

    /// Runs of dirty pages: first page, number of pages, whether they are zeros that are not stored.
    #[must_use]
    pub fn dirty_runs(&self, start: u64, end: u64) -> Vec<(u64, u64, bool)> {
        let mut runs: Vec<(u64, u64, bool)> = Vec::new();
        for page in start..end.min(self.pages.len() as u64) {
            let zero = match self.page(page) {
                Page::Dirty(_) | Page::AwaitingClean(_) => false,
                Page::Zero | Page::ZeroAwaiting => true,
                _ => continue,
            };
            match runs.last_mut() {
                Some((first, pages, same)) if *first + *pages == page && *same == zero => *pages += 1,
                _ => runs.push((page, 1, zero)),
            }
        }
        runs
    }

    /// Pages of zeros that are not stored.
    #[must_use]
    pub fn zeros(&self) -> u64 {
        self.pages.iter().filter(|page| matches!(page, Page::Zero | Page::ZeroAwaiting)).count() as u64
    }

    /// Resident pages, stored dirty pages, requests in flight.
    #[must_use]
    pub fn counts(&self) -> (u64, u64, u64) {
        let dirty = |state: &&Page| matches!(state, Page::Dirty(_) | Page::AwaitingClean(_));
        let clean = |state: &&Page| matches!(state, Page::Clean(_));
        let dirty = self.pages.iter().filter(dirty).count() as u64;
        let clean = self.pages.iter().filter(clean).count() as u64;
        (clean + dirty, dirty, self.requests.len() as u64)
    }

    /// Whether detach has dropped the clean pages.
    #[must_use]
    pub fn is_detached(&self) -> bool {
        matches!(self.link, Link::Detached | Link::Closed { detached: true })
    }
}
