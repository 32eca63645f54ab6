//! Short histories of calls that overlap, each explained by some order of the specification's steps.
//!
//! A search (Wing and Gong, 1993, with the states that it has seen kept) looks for an order of steps that
//! keeps to the stamps of the calls and gives every result and the end. The tests of real threads use it,
//! and the schedules.
//!
//! # What is more than one step
//!
//! - An access is polled once. If it has to wait it is dropped: leaving is a step of its own. If it
//!   was woken within its poll it looks again. On the way it may rescue the page.
//! - A write makes the page dirty and holds it, then copies, then lets go. BEGIN passes over a page
//!   that is held.
//! - A call on a range goes page by page.
//! - An eviction may pass over a page that an access is busy with. Its reclaim comes any time later.
//! - OP_DIRTY looks at the pages on the way: it may rescue some, and those that it finds dirty it leaves
//!   to what becomes of them. The others become dirty in one step, or none does. Evictions and failures
//!   may pass over pages that it is busy with, and those who wait are told later.
//! - A detach ends the link in one step, with all clean pages; then it fails what is in flight. In
//!   between an access may still join a request.
//!
//! Packets are no part of the search: a request is there for joiners a moment before the port shows
//! it, and a page is there a moment before its request is over. They have rules of their own, in
//! [`History::check_packets`].

use std::collections::HashSet;

use upager::{Command, PAGE_SIZE, Packet, Result, Status};

use crate::spec::{Access, Page, Spec, Waiter};

/// A call. Bytes are different in each supply and write of a history.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    Read(u64),
    Write(u64, u8),
    Supply(u64, u8),
    /// These five on all pages.
    Fail,
    Dirty,
    Begin,
    End,
    Evict,
    Detach,
    Take,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Came {
    /// What was read, or written.
    Byte(u8),
    /// It had to wait, and left.
    Waited,
    Failed(Status),
    Done,
    Evicted(u64),
    Packets(Vec<Packet>),
}

impl From<Result<()>> for Came {
    fn from(result: Result<()>) -> Self {
        result.map_or_else(Self::Failed, |()| Self::Done)
    }
}

#[derive(Clone, Debug)]
pub struct Event {
    pub op: Op,
    pub came: Came,
    pub called: u64,
    pub returned: u64,
}

impl Event {
    /// The page that an access or a supply is about.
    fn touches(&self) -> Option<u64> {
        match self.op {
            Op::Read(page) | Op::Write(page, _) | Op::Supply(page, _) => Some(page),
            _ => None,
        }
    }

    /// Whether the two were under way at the same time.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.called < other.returned && other.called < self.returned
    }
}

/// Events in the order of their ends, and what there is when all threads have ended.
#[derive(Clone, Debug)]
pub struct History {
    pub traps: bool,
    pub events: Vec<Event>,
    /// Resident, dirty, in flight.
    pub counts: (u64, u64, u64),
    pub bytes: Vec<Option<u8>>,
    /// What the port still had.
    pub packets: Vec<Packet>,
}

/// How far a call has come.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Progress {
    Begun,
    Waiting(Waiter),
    /// A write holds the page.
    Holding,
    /// It has copied, and still holds the page.
    Copied,
    /// A call on a range: the pages that are left, by bits; how many were evicted.
    Range(u64, u64),
    Detaching,
    Over,
}

/// The specification, part of the way through one order.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct State {
    spec: Spec,
    progress: Vec<Progress>,
}

impl State {
    fn with(&self, event: usize, progress: Progress) -> Self {
        let mut next = self.clone();
        next.progress[event] = progress;
        next
    }

    /// After one step of the specification.
    fn after(&self, event: usize, progress: Progress, step: impl FnOnce(&mut Spec)) -> Self {
        let mut next = self.with(event, progress);
        step(&mut next.spec);
        next
    }
}

impl History {
    fn pages(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Whether there is an order that explains it, from a VMO all of whose pages are absent.
    #[must_use]
    pub fn is_linearizable(&self) -> bool {
        let spec = if self.traps { Spec::trapping(self.bytes.len()) } else { Spec::new(self.bytes.len()) };
        self.search(self.begin(spec), &mut HashSet::new())
    }

    /// What the VMO may be after it, where it was one of `begins` before: the end of every order that
    /// explains it, with no reclaim left to come.
    #[must_use]
    pub fn ends(&self, begins: &HashSet<Spec>) -> HashSet<Spec> {
        let (mut seen, mut ends) = (HashSet::new(), HashSet::new());
        let mut left: Vec<State> = begins.iter().map(|spec| self.begin(spec.clone())).collect();
        while let Some(state) = left.pop() {
            if seen.contains(&state) {
                continue;
            }
            if Self::is_end(&state) {
                let mut spec = state.spec.clone();
                (0..self.pages()).for_each(|page| spec.reclaim(page));
                if self.ends_with(&spec) {
                    ends.extend(spec.at_rest());
                }
            }
            left.extend(self.next(&state));
            seen.insert(state);
        }
        ends
    }

    fn begin(&self, spec: Spec) -> State {
        State { spec, progress: vec![Progress::Begun; self.events.len()] }
    }

    fn search(&self, state: State, seen: &mut HashSet<State>) -> bool {
        if seen.contains(&state) {
            return false;
        }
        if Self::is_end(&state) && self.ends_with(&state.spec) {
            return true;
        }
        let next = self.next(&state);
        seen.insert(state);
        next.into_iter().any(|state| self.search(state, seen))
    }

    fn is_over(progress: &Progress) -> bool {
        *progress == Progress::Over
    }

    fn is_end(state: &State) -> bool {
        state.progress.iter().all(Self::is_over)
    }

    /// The states after each step that may come next.
    fn next(&self, state: &State) -> Vec<State> {
        let over = Self::is_over;
        let mut next = Vec::new();
        for (number, event) in self.events.iter().enumerate() {
            // Whatever ended before this began is over.
            let before = |(other, progress): (&Event, &Progress)| event.called < other.returned || over(progress);
            if self.events.iter().zip(&state.progress).all(before) {
                self.steps(state, number, &mut next);
            }
        }
        for page in 0..self.pages() {
            if let Page::Evicting(_) = state.spec.page(page) {
                let mut reclaimed = state.clone();
                reclaimed.spec.reclaim(page);
                next.push(reclaimed);
            }
            let mut told = state.clone();
            told.spec.tell(page, page + 1);
            if told != *state {
                next.push(told);
            }
        }
        next
    }

    fn ends_with(&self, spec: &Spec) -> bool {
        let byte = |page| match spec.page(page) {
            Page::Clean(byte) | Page::Dirty(byte) | Page::AwaitingClean(byte) => Some(byte),
            Page::Absent | Page::Evicting(_) | Page::Zero | Page::ZeroAwaiting => None,
        };
        spec.counts() == self.counts && (0..self.pages()).map(byte).eq(self.bytes.iter().copied())
    }

    /// The states after each step that the call may take now.
    fn steps(&self, state: &State, number: usize, next: &mut Vec<State>) {
        let event = &self.events[number];
        match (&state.progress[number], event.op) {
            (Progress::Over, _) => {}
            (_, Op::Read(_) | Op::Write(..)) => self.access(state, number, next),
            (Progress::Begun, Op::Supply(page, byte)) => {
                let mut after = state.with(number, Progress::Over);
                if Came::from(after.spec.supply(page, byte)) == event.came {
                    next.push(after);
                }
            }
            (Progress::Begun, Op::Detach) => {
                next.push(state.after(number, Progress::Detaching, |spec| {
                    spec.begin_detach();
                }));
            }
            (Progress::Detaching, Op::Detach) => {
                next.push(state.after(number, Progress::Over, Spec::end_detach));
                for page in 0..self.pages() {
                    let fail = |spec: &mut Spec| spec.fail(page, page + 1, Status::BadState);
                    let failed = state.after(number, Progress::Detaching, fail);
                    if failed != *state {
                        next.push(failed);
                    }
                }
            }
            (Progress::Begun, Op::Take) => next.push(state.with(number, Progress::Over)),
            (Progress::Begun, _) => next.push(state.with(number, Progress::Range((1 << self.pages()) - 1, 0))),
            (Progress::Range(left, _), Op::Dirty) => self.dirty(state, number, *left, next),
            (Progress::Range(0, evicted), op) => {
                // A detach that comes between the evictor's look at the link and its pages may
                // hide from the specification what it takes.
                let detached = || self.events.iter().any(|other| other.op == Op::Detach && other.overlaps(event));
                if op != Op::Evict || event.came == Came::Evicted(*evicted) || detached() {
                    next.push(state.with(number, Progress::Over));
                }
            }
            (Progress::Range(left, evicted), op) => {
                for page in (0..self.pages()).filter(|page| left & 1 << page != 0) {
                    self.one_page(state, number, (op, page), (left & !(1 << page), *evicted), next);
                }
            }
            (progress, op) => unreachable!("{op:?} is never {progress:?}"),
        }
    }

    /// A step of OP_DIRTY, which has not found the pages `left` dirty.
    fn dirty(&self, state: &State, number: usize, left: u64, next: &mut Vec<State>) {
        let came = &self.events[number].came;
        let mut wanted = (0..self.pages()).filter(|page| left & 1 << page != 0);
        for page in wanted.clone() {
            match state.spec.page(page) {
                Page::Dirty(_) => next.push(state.with(number, Progress::Range(left & !(1 << page), 0))),
                Page::Evicting(_) => next.push(state.after(number, Progress::Range(left, 0), |spec| spec.rescue(page))),
                _ => {}
            }
        }
        // One or two pages, so what is left of them is a range.
        let start = wanted.next().unwrap_or(0);
        let end = wanted.next_back().unwrap_or(start) + u64::from(left != 0);
        let mut after = state.with(number, Progress::Over);
        if Came::from(after.spec.dirty(start, end)) == *came {
            next.push(after);
        } else if left == 0 && *came == Came::Done {
            next.push(state.with(number, Progress::Over)); // a detach came after the last look
        }
    }

    /// One page of a call on a range.
    fn one_page(
        &self,
        state: &State,
        number: usize,
        (op, page): (Op, u64),
        (left, evicted): (u64, u64),
        next: &mut Vec<State>,
    ) {
        let event = &self.events[number];
        let held = || {
            self.events.iter().zip(&state.progress).any(|(other, progress)| {
                other.touches() == Some(page) && matches!(progress, Progress::Holding | Progress::Copied)
            })
        };
        let dirties = || self.events.iter().any(|other| other.op == Op::Dirty && other.overlaps(event));
        let mut after = state.with(number, Progress::Range(left, evicted));
        match op {
            Op::Fail => {
                if dirties() {
                    next.push(after.clone());
                }
                after.spec.fail(page, page + 1, Status::Io);
            }
            Op::Begin if held() => {}
            Op::Begin => {
                // OP_DIRTY moves its pages one by one after it has decided, also where a detach comes between.
                if dirties() {
                    next.push(after.clone());
                }
                after.spec.writeback_begin(page);
            }
            Op::End => after.spec.writeback_end(page),
            _ => {
                if after.spec.evict(page) {
                    let busy = |other: &Event| {
                        (other.op == Op::Dirty || other.touches() == Some(page)) && other.overlaps(event)
                    };
                    if self.events.iter().any(busy) {
                        next.push(state.with(number, Progress::Range(left, evicted)));
                    }
                    after.progress[number] = Progress::Range(left, evicted + 1);
                }
            }
        }
        next.push(after);
    }

    /// A step of a read or a write.
    fn access(&self, state: &State, number: usize, next: &mut Vec<State>) {
        let event = &self.events[number];
        let (page, write) = match event.op {
            Op::Write(page, byte) => (page, Some(byte)),
            Op::Read(page) => (page, None),
            op => unreachable!("{op:?} is no access"),
        };
        let mut after = state.clone();
        let access = match (&state.progress[number], write) {
            (Progress::Holding, Some(byte)) => {
                next.push(state.after(number, Progress::Copied, |spec| {
                    spec.write(page, 1, byte);
                }));
                return;
            }
            (Progress::Copied, _) => {
                next.push(state.with(number, Progress::Over));
                return;
            }
            (Progress::Waiting(waiter), _) => {
                if event.came == Came::Waited {
                    next.push(state.after(number, Progress::Over, |spec| spec.leave(waiter)));
                }
                if !state.spec.is_woken(waiter) {
                    return;
                }
                let woken = after.spec.resume(waiter.clone());
                if !matches!(woken, Access::Failed(_)) {
                    next.push(state.with(number, Progress::Begun)); // looks again
                    return;
                }
                woken
            }
            _ => {
                let there = state.spec.page(page);
                let writable = match there {
                    Page::Dirty(old) => Some(old),
                    Page::Clean(old) | Page::Evicting(old) | Page::AwaitingClean(old) if !self.traps => Some(old),
                    _ => None,
                };
                if let (Some(byte), Some(old)) = (write, writable)
                    && event.came == Came::Byte(byte)
                {
                    next.push(state.after(number, Progress::Holding, |spec| {
                        spec.write(page, 1, old);
                    }));
                }
                match (write, there) {
                    (Some(byte), Page::Clean(_) | Page::AwaitingClean(_)) if self.traps => {
                        after.spec.write(page, 1, byte)
                    }
                    _ => after.spec.read(page, 1),
                }
            }
        };
        match access {
            Access::Done(byte) => {
                if write.is_none() && event.came == Came::Byte(byte) {
                    next.push(after.with(number, Progress::Over));
                }
                if after != *state {
                    next.push(after); // rescued it, and goes on
                }
            }
            Access::Waits(waiter) => next.push(after.with(number, Progress::Waiting(waiter))),
            Access::Failed(status) => {
                let detaching = || state.progress.contains(&Progress::Detaching);
                if event.came == Came::Failed(status) || event.came == Came::Waited && detaching() {
                    next.push(after.with(number, Progress::Over));
                }
            }
        }
    }

    /// The rules of packets.
    ///
    /// READ: only for a page that an access had asked for by then, and not after a detach has
    /// returned. DIRTY likewise, for a page that a write had asked for, where dirtying is trapped.
    /// COMPLETE: once if there was a detach, not before, and nothing after it.
    ///
    /// # Errors
    /// Which rule is broken.
    pub fn check_packets(&self) -> Result<(), &'static str> {
        let last =
            Event { op: Op::Take, came: Came::Packets(self.packets.clone()), called: u64::MAX - 1, returned: u64::MAX };
        let detaches: Vec<&Event> = self.events.iter().filter(|event| event.op == Op::Detach).collect();
        let mut completed: Option<u64> = None;
        for take in self.events.iter().chain([&last]) {
            let Came::Packets(packets) = &take.came else { continue };
            if completed.is_some_and(|completed| completed < take.called) && !packets.is_empty() {
                return Err("a packet after COMPLETE");
            }
            for (number, packet) in packets.iter().enumerate() {
                if packet.command() == Some(Command::Complete) {
                    if completed.replace(take.returned).is_some() || number + 1 != packets.len() {
                        return Err("COMPLETE is not once and last");
                    }
                    if !detaches.iter().any(|detach| detach.called < take.returned) {
                        return Err("COMPLETE before detach");
                    }
                    continue;
                }
                if detaches.iter().any(|detach| detach.returned < take.called) {
                    return Err("READ or DIRTY after detach");
                }
                let range = packet.range();
                for page in range.offset / PAGE_SIZE..(range.offset + range.length) / PAGE_SIZE {
                    let asks = |event: &Event| {
                        event.touches() == Some(page)
                            && match packet.command() {
                                Some(Command::Dirty) => self.traps && matches!(event.op, Op::Write(..)),
                                _ => !matches!(event.op, Op::Supply(..)),
                            }
                            && event.called < take.returned
                    };
                    if !self.events.iter().any(asks) {
                        return Err("READ or DIRTY that nobody asked for");
                    }
                }
            }
        }
        if completed.is_some() == detaches.is_empty() { Err("COMPLETE did not come") } else { Ok(()) }
    }
}
