//! Short histories of real threads, each explained by some order of the specification's steps.
//!
//! Two to four threads make a few calls each on one or two pages. A counter stamps the beginning
//! and the end of each call. A search (Wing and Gong, 1993, with the states that it has seen kept)
//! then looks for an order of steps that keeps to the stamps and gives every result and the end.
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
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

use upager::{
    Command, Evict, Frame, Guard, HeapPlatform, OwnedFrame, PAGE_SIZE, Packet, PageCount, PageIndex, Platform, Result,
    Status, Vmo, VmoId, VmoOptions, Writeback,
};
use upager_tests::{Random, Task, World, at, pages};
use upager_verify::spec::{Access, Page, Spec, Waiter};

/// A call. Bytes are different in each supply and write of a history.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Op {
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
enum Came {
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
struct Event {
    op: Op,
    came: Came,
    called: u64,
    returned: u64,
}

impl Event {
    /// The page that an access or a supply is about.
    fn touches(&self) -> Option<u64> {
        match self.op {
            Op::Read(page) | Op::Write(page, _) | Op::Supply(page, _) => Some(page),
            _ => None,
        }
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.called < other.returned && other.called < self.returned
    }
}

/// Events in the order of their ends, and what there is when all threads have ended.
#[derive(Clone, Debug)]
struct History {
    traps: bool,
    events: Vec<Event>,
    /// Resident, dirty, in flight.
    counts: (u64, u64, u64),
    bytes: Vec<Option<u8>>,
    /// What the port still had.
    packets: Vec<Packet>,
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

    /// Whether there is an order that explains it.
    fn is_linearizable(&self) -> bool {
        let progress = vec![Progress::Begun; self.events.len()];
        let spec = if self.traps { Spec::trapping(self.bytes.len()) } else { Spec::new(self.bytes.len()) };
        let begin = State { spec, progress };
        self.search(begin, &mut HashSet::new())
    }

    fn search(&self, state: State, seen: &mut HashSet<State>) -> bool {
        if seen.contains(&state) {
            return false;
        }
        let over = |progress: &Progress| *progress == Progress::Over;
        if state.progress.iter().all(over) && self.ends_with(&state.spec) {
            return true;
        }
        let mut next = Vec::new();
        for (number, event) in self.events.iter().enumerate() {
            // Whatever ended before this began is over.
            let before = |(other, progress): (&Event, &Progress)| event.called < other.returned || over(progress);
            if self.events.iter().zip(&state.progress).all(before) {
                self.steps(&state, number, &mut next);
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
            if told != state {
                next.push(told);
            }
        }
        seen.insert(state);
        next.into_iter().any(|state| self.search(state, seen))
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
        let mut after = state.with(number, Progress::Range(left, evicted));
        match op {
            Op::Fail => {
                if self.events.iter().any(|other| other.op == Op::Dirty && other.overlaps(event)) {
                    next.push(after.clone());
                }
                after.spec.fail(page, page + 1, Status::Io);
            }
            Op::Begin if held() => {}
            Op::Begin => after.spec.writeback_begin(page),
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
    /// returned. DIRTY likewise, for a page that a write had asked for, where dirtying is trapped. COMPLETE: once if there was a detach, not before, and nothing after it.
    fn check_packets(&self) -> Result<(), &'static str> {
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

// Real threads.

/// A heap on which threads are often interrupted in the middle of a call.
#[derive(Default)]
struct Unsteady {
    heap: HeapPlatform,
    calls: AtomicUsize,
}

impl Unsteady {
    fn stumble(&self) {
        if self.calls.fetch_add(1, Ordering::Relaxed).is_multiple_of(3) {
            thread::yield_now();
        }
    }
}

impl Platform for Unsteady {
    fn pin(&self) -> Guard {
        self.stumble();
        self.heap.pin()
    }

    fn allocate(&self) -> Result<Frame> {
        self.heap.allocate()
    }

    unsafe fn free(&self, frame: Frame) {
        // SAFETY: the caller's promise is the heap's, which allocated the frame.
        unsafe { self.heap.free(frame) };
    }

    unsafe fn copy_out(&self, frame: Frame, offset: usize, to: &mut [u8]) {
        self.stumble();
        // SAFETY: the caller's promise is the heap's.
        unsafe { self.heap.copy_out(frame, offset, to) };
    }

    unsafe fn copy_in(&self, frame: Frame, offset: usize, from: &[u8]) {
        self.stumble();
        // SAFETY: the caller's promise is the heap's.
        unsafe { self.heap.copy_in(frame, offset, from) };
    }

    fn unmap(&self, _: VmoId, _: PageIndex) {
        self.stumble();
    }

    fn write_protect(&self, _: VmoId, _: PageIndex) {
        self.stumble();
    }
}

/// The first byte of a page that a lookup finds.
fn byte_of(world: &World<Unsteady>, vmo: &Vmo<Unsteady>, page: u64) -> Option<u8> {
    let guard = world.platform.pin();
    let frame = vmo.lookup(&guard, PageIndex(page))?;
    let mut byte = [0];
    // SAFETY: the guard, from before the lookup, keeps the frame allocated; one byte lies within.
    unsafe { world.platform.copy_out(frame, 0, &mut byte) };
    Some(byte[0])
}

fn call(world: &World<Unsteady>, vmo: &Vmo<Unsteady>, op: Op) -> Came {
    let World { platform, pager, .. } = world;
    let all = pages(0, vmo.size() / PAGE_SIZE);
    let access =
        |polled: Option<Result<u8>>| polled.map_or(Came::Waited, |came| came.map_or_else(Came::Failed, Came::Byte));
    match op {
        Op::Read(page) => access(
            Task::new(async {
                let mut byte = [0];
                vmo.read(at(page, 0), &mut byte).await.map(|()| byte[0])
            })
            .poll(),
        ),
        Op::Write(page, byte) => {
            access(Task::new(async { vmo.write(at(page, 0), &[byte]).await.map(|()| byte) }).poll())
        }
        Op::Supply(page, byte) => {
            let frame = OwnedFrame::new(&**platform).expect("a frame");
            frame.write(0, &[byte]).expect("fits");
            pager.supply_frames(vmo, pages(page, 1), [frame]).into()
        }
        Op::Fail => pager.fail_range(vmo, all, Status::Io).into(),
        Op::Dirty => pager.dirty_range(vmo, all).into(),
        Op::Begin => pager.writeback_begin(vmo, all, Writeback::All).into(),
        Op::End => pager.writeback_end(vmo, all).into(),
        Op::Evict => Came::Evicted(vmo.evict(PageCount(8), Evict::Any).0),
        Op::Detach => pager.detach_vmo(vmo).map(drop).into(),
        Op::Take => Came::Packets(world.packets()),
    }
}

fn random_op(random: &mut Random, traps: bool, pages: u64, byte: u8) -> Op {
    let page = random.below(pages);
    match random.below(if traps { 24 } else { 20 }) {
        0..=3 => Op::Read(page),
        4..=7 => Op::Write(page, byte),
        8..=10 => Op::Supply(page, byte),
        11 => Op::Fail,
        12..=13 => Op::Begin,
        14..=15 => Op::End,
        16..=17 => Op::Evict,
        18 => Op::Detach,
        19 => Op::Take,
        _ => Op::Dirty,
    }
}

/// One history: some calls that come first, then threads.
fn record(random: &mut Random, options: VmoOptions) -> History {
    let world = World::on(Unsteady::default());
    let size = 1 + random.below(2);
    let vmo = world.vmo_with(options, size);
    let traps = options == VmoOptions::TRAP_DIRTY;
    let mut bytes = 1..=u8::MAX;
    let mut some = |random: &mut Random, least, most| -> Vec<Op> {
        let count = least + random.below(most - least + 1);
        (0..count).map(|_| random_op(random, traps, size, bytes.next().expect("few calls"))).collect()
    };
    let first = some(random, 0, 4);
    let scripts: Vec<Vec<Op>> = (0..2 + random.below(3)).map(|_| some(random, 2, 4)).collect();

    let clock = AtomicU64::new(0);
    let events = Mutex::new(Vec::new());
    let run = |script: &[Op]| {
        let timed = |op: &Op| {
            let called = clock.fetch_add(1, Ordering::SeqCst);
            let came = call(&world, &vmo, *op);
            let returned = clock.fetch_add(1, Ordering::SeqCst);
            Event { op: *op, came, called, returned }
        };
        let mine: Vec<Event> = script.iter().map(timed).collect();
        events.lock().expect("no thread panics").extend(mine);
    };
    run(&first);
    let here = AtomicUsize::new(0);
    thread::scope(|scope| {
        for script in &scripts {
            let (run, here, threads) = (&run, &here, scripts.len());
            scope.spawn(move || {
                here.fetch_add(1, Ordering::SeqCst);
                while here.load(Ordering::SeqCst) < threads {
                    thread::yield_now();
                }
                run(script);
            });
        }
    });
    let mut events = events.into_inner().expect("no thread panics");
    events.sort_by_key(|event| event.returned);
    let counts = vmo.counts();
    History {
        traps,
        events,
        counts: (counts.resident.0, counts.dirty.0, counts.in_flight),
        bytes: (0..size).map(|page| byte_of(&world, &vmo, page)).collect(),
        packets: world.packets(),
    }
}

const HISTORIES: usize = 6000;

fn every_history_is_explained(options: VmoOptions) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut calls, mut overlapping) = (0, 0);
    for _ in 0..HISTORIES {
        let history = record(&mut random, options);
        assert!(history.is_linearizable(), "no order explains {history:#?}");
        assert_eq!(history.check_packets(), Ok(()), "{history:#?}");
        calls += history.events.len();
        let overlaps = |event: &&Event| history.events.iter().filter(|other| event.overlaps(other)).count() > 1;
        overlapping += history.events.iter().filter(overlaps).count();
    }
    println!("{HISTORIES} histories, {calls} calls, {overlapping} of them beside another");
    assert!(overlapping * 20 > calls, "the threads hardly met: {overlapping} of {calls} calls");
}

#[test]
fn every_history_of_real_threads_has_an_order_that_explains_it() {
    every_history_is_explained(VmoOptions::NONE);
}

#[test]
fn every_history_of_a_vmo_that_traps_dirtying_has_one_too() {
    every_history_is_explained(VmoOptions::TRAP_DIRTY);
}

// The checker itself.

/// A history from calls with their stamps.
fn told(events: &[(Op, Came, [u64; 2])], counts: (u64, u64, u64), bytes: &[Option<u8>]) -> History {
    let event = |(op, came, [called, returned]): &(Op, Came, [u64; 2])| Event {
        op: *op,
        came: came.clone(),
        called: *called,
        returned: *returned,
    };
    let mut events: Vec<Event> = events.iter().map(event).collect();
    events.sort_by_key(|event| event.returned);
    History { traps: false, events, counts, bytes: bytes.to_vec(), packets: Vec::new() }
}

#[test]
fn a_write_without_leave_and_leave_for_a_part_are_refused() {
    let history = |dirtied: Came, dirty: [u64; 2], wrote: Came, count: u64| {
        let events = [
            (Op::Supply(0, 1), Came::Done, [0, 1]),
            (Op::Dirty, dirtied, dirty),
            (Op::Write(0, 2), wrote.clone(), [4, 6]),
        ];
        let byte = if wrote == Came::Byte(2) { 2 } else { 1 };
        History { traps: true, ..told(&events, (1, count, 0), &[Some(byte), None][..]) }
    };
    let one_page = |history: History| History { bytes: history.bytes[..1].to_vec(), ..history };
    assert!(one_page(history(Came::Done, [2, 3], Came::Byte(2), 1)).is_linearizable());
    assert!(one_page(history(Came::Done, [5, 7], Came::Waited, 1)).is_linearizable());
    assert!(one_page(history(Came::Done, [5, 7], Came::Byte(2), 1)).is_linearizable(), "leave came while it waited");
    assert!(!one_page(history(Came::Done, [8, 9], Came::Byte(2), 1)).is_linearizable(), "nobody had given leave");
    assert!(!one_page(history(Came::Done, [2, 3], Came::Waited, 1)).is_linearizable(), "it had leave, and waits");
    let refused = Came::Failed(Status::NotFound);
    assert!(history(refused.clone(), [2, 3], Came::Waited, 0).is_linearizable());
    assert!(!history(refused.clone(), [2, 3], Came::Waited, 1).is_linearizable(), "one page is dirty all the same");
    assert!(!history(refused, [2, 3], Came::Byte(2), 1).is_linearizable());
    assert!(!history(Came::Done, [2, 3], Came::Waited, 0).is_linearizable(), "the second page was absent");
}

#[test]
fn a_byte_that_was_never_supplied_is_refused() {
    let history = |byte| {
        let events = [(Op::Supply(0, 1), Came::Done, [0, 2]), (Op::Read(0), Came::Byte(byte), [1, 3])];
        told(&events, (1, 0, 0), &[Some(1)])
    };
    assert!(history(1).is_linearizable());
    assert!(!history(2).is_linearizable());
}

#[test]
fn a_page_that_comes_back_after_a_detach_is_refused() {
    let history = |failed: Came| {
        let events = [
            (Op::Supply(0, 1), Came::Done, [0, 1]),
            (Op::Write(0, 2), Came::Byte(2), [2, 9]),
            (Op::Detach, Came::Done, [3, 4]),
            (Op::Read(0), failed, [5, 6]),
        ];
        told(&events, (1, 1, 0), &[Some(2)])
    };
    assert!(history(Came::Byte(1)).is_linearizable(), "the write has begun before the detach");
    assert!(!history(Came::Failed(Status::BadState)).is_linearizable());
}

#[test]
fn real_time_is_kept() {
    let history = |read: [u64; 2]| {
        let supply = (Op::Supply(0, 1), Came::Done, [2, 4]);
        told(&[supply, (Op::Read(0), Came::Waited, read)], (1, 0, 0), &[Some(1)])
    };
    assert!(history([0, 1]).is_linearizable());
    assert!(history([3, 5]).is_linearizable());
    assert!(!history([5, 6]).is_linearizable(), "supplied by then, and waits");
}

#[test]
fn a_lost_write_is_refused() {
    let history = |write: [u64; 2], dirty| {
        let events = [
            (Op::Supply(0, 1), Came::Done, [0, 1]),
            (Op::Write(0, 2), Came::Byte(2), [2, 3]),
            (Op::Begin, Came::Done, [4, 5]),
            (Op::Write(0, 3), Came::Byte(3), write),
            (Op::End, Came::Done, [8, 9]),
        ];
        told(&events, (1, dirty, 0), &[Some(3)])
    };
    assert!(history([6, 7], 1).is_linearizable());
    assert!(!history([6, 7], 0).is_linearizable(), "cleaned with a write between BEGIN and END");
}

#[test]
fn begin_may_pass_over_a_page_while_its_writer_holds_it_and_only_then() {
    let history = |end_of_write| {
        let events = [
            (Op::Supply(0, 1), Came::Done, [0, 1]),
            (Op::Write(0, 2), Came::Byte(2), [2, end_of_write]),
            (Op::Read(0), Came::Byte(2), [3, 4]),
            (Op::Begin, Came::Done, [6, 7]),
            (Op::End, Came::Done, [8, 9]),
        ];
        told(&events, (1, 1, 0), &[Some(2)])
    };
    assert!(history(10).is_linearizable());
    assert!(!history(5).is_linearizable());
}

#[test]
fn a_failure_needs_a_request_and_a_cause() {
    let history = |fail: [u64; 2], status| {
        let events = [(Op::Fail, Came::Done, fail), (Op::Read(0), Came::Failed(status), [2, 5])];
        told(&events, (0, 0, 0), &[None])
    };
    assert!(history([3, 4], Status::Io).is_linearizable());
    assert!(!history([0, 1], Status::Io).is_linearizable(), "nobody had asked");
    assert!(!history([3, 4], Status::BadState).is_linearizable());
}

#[test]
fn an_eviction_of_what_is_not_clean_is_refused() {
    let history = |write: [u64; 2], evicted, resident, byte| {
        let events = [
            (Op::Supply(0, 1), Came::Done, [0, 1]),
            (Op::Write(0, 2), Came::Byte(2), write),
            (Op::Evict, Came::Evicted(evicted), [4, 5]),
        ];
        told(&events, (resident, resident, 0), &[byte])
    };
    assert!(history([2, 3], 0, 1, Some(2)).is_linearizable());
    assert!(!history([2, 3], 1, 0, None).is_linearizable());
    assert!(history([3, 6], 1, 1, Some(2)).is_linearizable(), "evicted, then rescued");
    assert!(!history([3, 6], 1, 0, None).is_linearizable(), "a dirty page is gone");
}

#[test]
fn packets_out_of_order_are_refused() {
    let read = upager_tests::read_packet(0, 1);
    let complete = upager_tests::complete_packet();
    let history = |packets: &[Packet], later: &[Packet]| {
        let events = [
            (Op::Read(0), Came::Waited, [0, 1]),
            (Op::Detach, Came::Done, [2, 5]),
            (Op::Take, Came::Packets(packets.to_vec()), [3, 4]),
        ];
        History { packets: later.to_vec(), ..told(&events, (0, 0, 0), &[None]) }
    };
    assert_eq!(history(&[read, complete], &[]).check_packets(), Ok(()));
    assert_eq!(history(&[read], &[complete]).check_packets(), Ok(()));
    assert!(history(&[complete, read], &[]).check_packets().is_err());
    assert!(history(&[complete], &[complete]).check_packets().is_err());
    assert!(history(&[complete], &[read]).check_packets().is_err());
    assert!(history(&[], &[read, complete]).check_packets().is_err(), "READ after detach");
    assert!(history(&[read], &[]).check_packets().is_err(), "COMPLETE is missing");
    assert!(history(&[upager_tests::read_packet(1, 1)], &[complete]).check_packets().is_err());
}
