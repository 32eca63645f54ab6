//! Short histories of real threads, each explained by some order of the specification's steps.
//!
//! Two to four threads make a few calls each on one or two pages. A counter stamps the beginning
//! and the end of each call. [`upager_verify::history`] then looks for an order that explains them, and
//! tells what is more than one step.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

use upager::{
    Evict, Frame, Guard, HeapPlatform, OwnedFrame, PAGE_SIZE, Packet, PageCount, PageIndex, Platform, Result, Status,
    Vmo, VmoId, VmoOptions, Writeback,
};
use upager_tests::{Random, Task, World, at, pages};
use upager_verify::history::{Came, Event, History, Op};

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
