//! Memory for the pager's own tables that cannot be had: each allocation that a fault or a supply
//! makes fails once, and the call must say so and change nothing.
//!
//! This file has an allocator of its own, which fails on demand in the thread that demands it, and counts what
//! each thread has.
//! Creating a VMO of a pager is not in it: that shares the VMO between pager and port, and the standard
//! library's shared pointers end the program when there is no memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use upager::{Access, Event, HeapPlatform, Packet, PageCount, PageIndex, Platform, Status, Vmo, Watch, WatchLimits};
use upager_tests::{Task, World, at, pages, read_packet};

thread_local! {
    /// How many more allocations of this thread succeed before one fails. None: all succeed.
    static LEFT: Cell<Option<u64>> = const { Cell::new(None) };
    /// Bytes that this thread has allocated, without those that it has given back.
    static HELD: Cell<isize> = const { Cell::new(0) };
}

struct Failing;

#[global_allocator]
static ALLOCATOR: Failing = Failing;

// SAFETY: memory comes from the system's allocator or not at all.
unsafe impl GlobalAlloc for Failing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match LEFT.get() {
            Some(0) => {
                LEFT.set(None);
                return std::ptr::null_mut();
            }
            Some(left) => LEFT.set(Some(left - 1)),
            None => {}
        }
        HELD.set(HELD.get() + layout.size().cast_signed());
        // SAFETY: the caller's promise is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        HELD.set(HELD.get() - layout.size().cast_signed());
        // SAFETY: as above; what we hand out is the system's.
        unsafe { System.dealloc(memory, layout) };
    }
}

/// Makes the call with its allocation number `nth` failing. False: it made fewer.
fn with_failure<T>(nth: u64, call: impl FnOnce() -> T) -> (T, bool) {
    LEFT.set(Some(nth));
    let result = call();
    (result, LEFT.replace(None).is_none())
}

/// Warms up what a thread allocates once: its place in the epoch.
fn warm(world: &World) {
    drop(world.platform.pin());
}

#[test]
fn a_fault_whose_allocation_fails_says_so_and_leaves_no_request() {
    for first in [0, 5] {
        let mut failures = 0;
        for nth in 0.. {
            let world = World::new();
            warm(&world);
            let vmo = world.vmo(1 << 30); // three levels of table
            // Waiters that are there already, so that pools have to grow.
            let mut waiters: Vec<_> =
                (0..7).map(|n| Task::pending(vmo.fault(PageIndex(n * 2), Access::Read))).collect();
            world.packets();
            let page = PageIndex((1 << 29) + first);
            let mut task = Task::new(vmo.fault(page, Access::Read));
            let waker = upager_tests::Wakes::new().waker();
            let before = vmo.counts();
            let (outcome, failed) = with_failure(nth, || task.poll_with(&waker));
            if !failed {
                assert_eq!(outcome, None);
                break;
            }
            failures += 1;
            assert_eq!(outcome, Some(Err(Status::NoMemory)), "allocation {nth}");
            assert_eq!(vmo.counts(), before);
            assert_eq!(world.packets(), []);
            // And the next one, with memory, is a fault like any other.
            waiters.push(Task::pending(vmo.fault(page, Access::Read)));
            assert_eq!(world.packets(), [read_packet(page.0, 1)]);
            world.supply(&vmo, page.0, 1).unwrap();
            assert_eq!(waiters.pop().unwrap().woken_with(), Ok(()));
        }
        assert!(failures >= 3, "a request and nodes of the table: {failures}");
    }
}

#[test]
fn a_join_whose_allocation_fails_says_so_and_harms_nobody() {
    let mut failures = 0;
    for waiting in 1..20 {
        let world = World::new();
        warm(&world);
        let vmo = world.vmo(1);
        let waiters: Vec<_> = (0..waiting).map(|_| Task::pending(vmo.fault(PageIndex(0), Access::Read))).collect();
        let mut task = Task::new(vmo.fault(PageIndex(0), Access::Read));
        let waker = upager_tests::Wakes::new().waker();
        let (outcome, failed) = with_failure(0, || task.poll_with(&waker));
        if failed {
            failures += 1;
            assert_eq!(outcome, Some(Err(Status::NoMemory)));
            assert_eq!(vmo.counts().joins, waiting - 1);
        }
        world.supply(&vmo, 0, 1).unwrap();
        for waiter in waiters {
            assert_eq!(waiter.woken_with(), Ok(()));
        }
    }
    assert!(failures > 0, "the pool never had to grow");
}

#[test]
fn a_supply_whose_allocation_fails_says_so_and_frees_the_frames() {
    let mut failures = 0;
    for nth in 0.. {
        let world = World::new();
        warm(&world);
        let vmo = world.vmo(1 << 30);
        let first = (1 << 29) + 510;
        let frames = world.frames(first, 4); // the last two lie in another leaf
        let (supplied, failed) = with_failure(nth, || world.pager.supply_frames(&vmo, pages(first, 4), frames));
        if !failed {
            assert_eq!(supplied, Ok(()));
            break;
        }
        failures += 1;
        assert_eq!(supplied, Err(Status::NoMemory));
        let there = (first..first + 4).filter(|page| world.is_resident(&vmo, *page)).count() as u64;
        assert!(there == 0 || there == 2, "the pages before the missing node: {there}");
        world.frames_become(there);
        assert_eq!(vmo.counts().resident.0, there);
        world.supply(&vmo, first, 4).unwrap();
        world.frames_become(4);
    }
    assert!(failures >= 3, "{failures}");
}

#[test]
fn a_supply_of_pages_whose_allocation_fails_says_so_and_leaves_nothing_in_the_aux() {
    let mut failures = 0;
    for nth in 0.. {
        let world = World::new();
        warm(&world);
        let (vmo, aux) = (world.vmo(1 << 30), world.aux(4));
        let first = (1 << 29) + 510; // the last two lie in another leaf
        aux.write(at(0, 0), &[1; 3 * 4096]).unwrap(); // and the last is a frame of zeros
        let supply = || world.pager.supply_pages(&vmo, pages(first, 4), &aux, at(0, 0));
        let (supplied, failed) = with_failure(nth, supply);
        assert_eq!(aux.committed(), PageCount(0));
        if !failed {
            assert_eq!(supplied, Ok(()));
            break;
        }
        failures += 1;
        assert_eq!(supplied, Err(Status::NoMemory));
        let there = (first..first + 4).filter(|page| world.is_resident(&vmo, *page)).count() as u64;
        assert!([0, 2, 3].contains(&there), "the pages before the missing node or frame: {there}");
        world.frames_become(there);
        assert_eq!(vmo.counts().resident.0, there);
        world.supply(&vmo, first, 4).unwrap();
        world.frames_become(4);
    }
    assert!(failures >= 4, "{failures}");
}

#[test]
fn an_anonymous_page_whose_allocation_fails_says_so_and_is_not_there() {
    let mut failures = 0;
    for nth in 0.. {
        let world = World::new();
        let aux = world.aux(1 << 30);
        let page = 1 << 29;
        let (came, failed) = with_failure(nth, || match nth % 3 {
            0 => aux.write(at(page, 0), b"x"),
            1 => aux.commit(pages(page, 1)),
            _ => aux.pin(pages(page, 1)).map(drop),
        });
        if !failed {
            assert_eq!((came, aux.committed()), (Ok(()), PageCount(1)));
            break;
        }
        failures += 1;
        assert_eq!(
            (came, aux.committed(), world.platform.frames()),
            (Err(Status::NoMemory), PageCount(0), PageCount(0))
        );
        assert_eq!(aux.write(at(page, 0), b"x"), Ok(()));
    }
    assert!(failures >= 4, "nodes of the table, and the frame: {failures}");
}

#[test]
fn a_user_packet_whose_allocation_fails_says_so_and_is_not_queued() {
    let packets = [1, 2].map(|key| Packet::user(key, [7; 32]));
    for already in [0, 7] {
        let mut failures = 0;
        for nth in 0.. {
            let world = World::new();
            warm(&world);
            let vmo = world.vmo(1);
            for _ in 0..already {
                world.port.queue(&packets[0]).unwrap(); // so that the pool has to grow
            }
            let (queued, failed) = with_failure(nth, || world.port.queue(&packets[1]));
            if !failed {
                assert_eq!(queued, Ok(()));
                break;
            }
            failures += 1;
            assert_eq!(queued, Err(Status::NoMemory), "allocation {nth}");
            assert_eq!(world.port.cancel(2), Err(Status::NotFound));
            // And the next one, with memory, is queued.
            world.port.queue(&packets[1]).unwrap();
            let _waiter = Task::pending(vmo.fault(PageIndex(0), Access::Read));
            assert_eq!(world.packets().len(), already + 2);
        }
        assert!(failures >= 2, "a segment of the pool has two parts and a head: {failures}");
    }
}

/// A VMO of 20 clean pages that traps, and as many writers as asked for.
fn with_writers(world: &World, waiting: u64, test: impl FnOnce(&Vmo<HeapPlatform>) -> bool) -> bool {
    warm(world);
    let vmo = world.trapping(20);
    let writers: Vec<_> = (0..waiting).map(|page| Task::pending(vmo.fault(PageIndex(page), Access::Write))).collect();
    let failed = test(&vmo);
    world.let_dirty(&vmo, 0, 20).unwrap();
    for writer in writers {
        assert_eq!(writer.woken_with(), Ok(()));
    }
    failed
}

/// The epoch's own allocations, when leave was given, end the program as an eviction's do. So leave is
/// tried only where the pool has to grow, which comes first.
#[test]
fn a_dirty_request_and_leave_for_a_range_whose_allocation_fails_say_so_and_dirty_nothing() {
    let mut failures = 0;
    for waiting in 0..19 {
        let grows = with_writers(&World::new(), waiting, |vmo| {
            let mut task = Task::new(vmo.fault(PageIndex(19), Access::Write));
            let waker = upager_tests::Wakes::new().waker();
            let before = vmo.counts();
            let (outcome, failed) = with_failure(0, || task.poll_with(&waker));
            if failed {
                assert_eq!(outcome, Some(Err(Status::NoMemory)));
                assert_eq!(vmo.counts(), before);
            }
            failed
        });
        if grows {
            failures += 1;
            let world = World::new();
            with_writers(&world, waiting, |vmo| {
                let before = vmo.counts();
                let (result, failed) = with_failure(0, || world.let_dirty(vmo, 0, 20));
                assert!(failed);
                assert_eq!(result, Err(Status::NoMemory));
                assert_eq!(vmo.counts(), before);
                failed
            });
        }
    }
    assert!(failures > 0, "the pool never had to grow");
}

#[test]
fn a_watch_without_memory_leaves_a_request_to_its_next_look() {
    let limits = WatchLimits { warn_after: Some(Duration::ZERO), time_out: Some(Duration::ZERO) };
    let mut failures = 0;
    for nth in 0.. {
        let world = World::new();
        warm(&world);
        let vmo = world.vmo(1);
        let waiter = Task::pending(vmo.fault(PageIndex(0), Access::Read));
        let told = Arc::new(AtomicUsize::new(0));
        let observer = {
            let told = told.clone();
            move |_: &Event| {
                told.fetch_add(1, Ordering::SeqCst);
            }
        };
        let mut watch = Watch::new(&world.pager, limits, Box::new(observer));
        let ((), failed) = with_failure(nth, || watch.look(Duration::ZERO));
        if failed {
            failures += 1;
            let seen = (watch.counts().in_flight, told.load(Ordering::SeqCst), waiter.wakes());
            assert_eq!(seen, (1, 0, 0), "allocation {nth}");
            watch.look(Duration::ZERO);
        }
        assert_eq!(told.load(Ordering::SeqCst), 2, "a warning and a time-out");
        assert_eq!(waiter.woken_with(), Err(Status::TimedOut));
        if !failed {
            break;
        }
    }
    assert_eq!(failures, 2, "for what it remembers, and for what it tells");
}

#[test]
fn a_watch_remembers_no_request_that_is_over() {
    let world = World::new();
    let vmo = world.vmo(1);
    let mut watch = Watch::new(&world.pager, WatchLimits::default(), Box::new(|_: &Event| {}));
    let mut after = |rounds| {
        for _ in 0..rounds {
            let waiter = Task::pending(vmo.fault(PageIndex(0), Access::Read));
            assert_eq!(world.packets().len(), 1);
            watch.look(Duration::ZERO);
            world.pager.fail_range(&vmo, pages(0, 1), Status::Io).unwrap();
            assert_eq!(waiter.woken_with(), Err(Status::Io));
            world.platform.pin().flush(); // what other tests have left, not to be taken for ours
        }
        HELD.get()
    };
    let before = after(200);
    let more = after(2000) - before;
    assert!(more < 8192, "{more} bytes more than before, after 2000 requests");
}
