//! Memory for the pager's own tables that cannot be had: each allocation that a fault or a supply
//! makes fails once, and the call must say so and change nothing. And memory that must be given back.
//!
//! This file has an allocator of its own, which on demand fails, or does something else first, as another thread would
//! that came by at that moment, in the thread that demands it; and it counts what each thread has.
//! Creating a VMO of a pager is not in it: that shares the VMO between pager and port, and the standard
//! library's shared pointers end the program when there is no memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use upager::{
    Access, Collector, Event, HeapPlatform, PAGE_SIZE, Packet, PageCount, PageIndex, Pager, Platform, Port, Result,
    Status, Vmo, VmoOptions, Watch, WatchLimits,
};
use upager_tests::{KEY, OwnEpoch, Task, World, at, pages, read_packet};

type Interlude = Box<dyn FnOnce()>;

thread_local! {
    /// How many more allocations of this thread succeed before one fails. None: all succeed.
    static LEFT: Cell<Option<u64>> = const { Cell::new(None) };
    /// What comes in the middle of an allocation of this thread, and how many there are before that.
    static MIDDLE: RefCell<Option<(u64, Interlude)>> = const { RefCell::new(None) };
    /// How many allocations this thread has made, and how many bytes it has.
    static MADE: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<isize> = const { Cell::new(0) };
}

/// What is to come in the middle of this allocation.
fn interlude() -> Option<Interlude> {
    let next = MIDDLE.try_with(|middle| {
        let mut middle = middle.try_borrow_mut().ok()?;
        let (left, _) = middle.as_mut()?;
        if *left == 0 {
            return middle.take().map(|(_, interlude)| interlude);
        }
        *left -= 1;
        None
    });
    next.ok().flatten()
}

struct Failing;

#[global_allocator]
static ALLOCATOR: Failing = Failing;

// SAFETY: memory comes from the system's allocator or not at all.
unsafe impl GlobalAlloc for Failing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // First, so that this is what fails, and nothing that the interlude allocates.
        let left = LEFT.get();
        LEFT.set(left.and_then(|left| left.checked_sub(1)));
        if let Some(interlude) = interlude() {
            interlude();
        }
        if left == Some(0) {
            return std::ptr::null_mut();
        }
        MADE.set(MADE.get() + 1);
        BYTES.set(BYTES.get() + layout.size().cast_signed());
        // SAFETY: the caller's promise is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        BYTES.set(BYTES.get() - layout.size().cast_signed());
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

/// Makes the call, and `other` in the middle of its allocation number `nth`, as another thread may. False: it made
/// fewer. `other` must not panic, since an allocator must not.
fn with_another<T>(nth: u64, other: impl FnOnce() + 'static, call: impl FnOnce() -> T) -> (T, bool) {
    MIDDLE.set(Some((nth, Box::new(other))));
    let result = call();
    (result, MIDDLE.take().is_none())
}

/// Lets what was retired go, until nobody but these has the platform.
fn settle(platform: &Arc<OwnEpoch>, holders: usize) {
    for _ in 0..1000 {
        if Arc::strong_count(platform) == holders {
            return;
        }
        platform.pin().flush();
    }
    panic!("{} hold the platform, not {holders}", Arc::strong_count(platform));
}

/// Makes the calls on a new pager and port, closes both, and returns how many bytes are left.
fn left_by(calls: impl FnOnce(&Arc<OwnEpoch>, &Pager<OwnEpoch>, &Rc<Port<OwnEpoch>>)) -> isize {
    let before = BYTES.get();
    let collector = Collector::new();
    let platform = Arc::new(OwnEpoch::new(move || collector.register().pin()));
    let (pager, port) = (Pager::new(platform.clone()), Rc::new(Port::new(platform.clone())));
    calls(&platform, &pager, &port);
    drop((pager, port));
    settle(&platform, 1);
    drop(platform);
    BYTES.get() - before
}

/// Warms up what a thread allocates once: its place in the epoch.
fn warm(world: &World) {
    drop(upager::Platform::pin(&*world.platform));
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
fn a_join_whose_allocation_fails_as_the_others_leave_ends_the_request() {
    let world = World::new();
    warm(&world);
    let vmo = Rc::new(world.vmo(100));
    let fault = |page| {
        let vmo = vmo.clone();
        async move { vmo.fault(PageIndex(page), Access::Read).await }
    };
    // The pool's first eight entries: the queue has one.
    let opener = Task::pending(fault(0));
    let _others: Vec<_> = (1..7).map(|n| Task::pending(fault(2 * n))).collect();
    let mut joiner = Task::new(fault(0));
    let waker = upager_tests::Wakes::new().waker();
    let joins = || with_failure(0, || joiner.poll_with(&waker));
    assert_eq!(with_another(0, || drop(opener), joins), ((Some(Err(Status::NoMemory)), true), true));
    assert_eq!(vmo.counts().in_flight, 6);
    assert_eq!(world.packets().len(), 6, "and the queue keeps the entry of the last");
    let mut room = Vec::new();
    loop {
        let mut task = Task::new(fault(51 + 2 * room.len() as u64));
        let (outcome, failed) = with_failure(0, || task.poll_with(&waker));
        if failed {
            assert_eq!(outcome, Some(Err(Status::NoMemory)));
            break;
        }
        room.push(task);
    }
    assert_eq!(room.len(), 2, "the entry of the request, and the one that the queue had at first");
}

#[test]
fn a_fault_that_a_detach_overtakes_gives_its_entry_back() {
    let world = Rc::new(World::new());
    warm(&world);
    let vmo = Rc::new(world.vmo(1 << 30));
    let page = PageIndex(1 << 29);
    // All but one of the pool's first eight entries, and the queue keeps them.
    let others: Vec<_> = (0..6).map(|n| Task::pending(vmo.fault(PageIndex(2 * n), Access::Read))).collect();
    let mut task = Task::new(vmo.fault(page, Access::Read));
    let waker = upager_tests::Wakes::new().waker();
    let (service, its) = (world.clone(), vmo.clone());
    let detach = move || {
        let _: Result<_> = service.pager.detach_vmo(&its); // the outcome tells
    };
    assert_eq!(with_another(0, detach, || task.poll_with(&waker)), (Some(Err(Status::BadState)), true));
    let mut next = Task::new(vmo.fault(page, Access::Read));
    let (outcome, failed) = with_failure(0, || next.poll_with(&waker));
    assert_eq!((outcome, failed), (Some(Err(Status::BadState)), false), "there is room for it");
    for other in others {
        assert_eq!(other.woken_with(), Err(Status::BadState));
    }
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
    // The place of the port's user packets; and a segment of their pool, which has two parts and a head.
    for (already, allocations) in [(0, 1), (7, 3)] {
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
        assert_eq!(failures, allocations, "after {already} packets");
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
fn what_ends_gives_its_memory_back() {
    let left = left_by(|_, pager, port| {
        let vmo = pager.create_vmo(port, KEY, VmoOptions::NONE, 100 * PAGE_SIZE).unwrap();
        let mut packets = [Packet::default()];
        drop(Task::pending(port.wait(&mut packets)));
        let _waiters: Vec<_> =
            (0..20).map(|page| Task::pending(vmo.fault(PageIndex(2 * page), Access::Read))).collect();
        for key in 0..20 {
            port.queue(&Packet::user(key, [7; 32])).unwrap();
        }
        assert_eq!(port.take(&mut packets), 1);
    });
    assert_eq!(left, 0);
}

#[test]
fn who_comes_second_with_the_same_gives_his_memory_back() {
    for nth in 0.. {
        let mut came = false;
        let left = left_by(|_, _, port| {
            let other = port.clone();
            let queue = move || {
                let _: Result<()> = other.queue(&Packet::user(1, [7; 32]));
            };
            let (queued, has_come) = with_another(nth, queue, || port.queue(&Packet::user(2, [7; 32])));
            assert_eq!(queued, Ok(()));
            assert_eq!(port.take(&mut [Packet::default(); 3]), if has_come { 2 } else { 1 });
            came = has_come;
        });
        assert_eq!(left, 0, "of two first packets, allocation {nth}");
        if !came {
            assert_eq!(nth, 1, "the queue of user packets");
            break;
        }
    }
    for nth in 0.. {
        let mut came = false;
        let left = left_by(|_, pager, port| {
            let vmo = Rc::new(pager.create_vmo(port, KEY, VmoOptions::NONE, 100 * PAGE_SIZE).unwrap());
            // As many as there is room for without another segment.
            let _waiters: Vec<_> = (0..7).map(|page| Task::pending(vmo.fault(PageIndex(page), Access::Read))).collect();
            let other = vmo.clone();
            let fault = move || {
                let _: Option<Result<()>> = Task::new(other.fault(PageIndex(50), Access::Read)).poll();
            };
            let mut task = Task::new(vmo.fault(PageIndex(40), Access::Read));
            let (outcome, has_come) = with_another(nth, fault, || task.poll());
            assert_eq!((outcome, vmo.counts().in_flight), (None, 8));
            came = has_come;
        });
        assert_eq!(left, 0, "of two requests in a further segment, allocation {nth}");
        if !came {
            assert_eq!(nth, 3, "a segment has two parts and a head");
            break;
        }
    }
}

#[test]
fn a_first_packet_that_failed_gives_its_entry_back() {
    let allocations_after = |failures| {
        let world = World::new();
        warm(&world);
        let _vmo = world.vmo(1);
        let packet = Packet::user(1, [7; 32]);
        for _ in 0..failures {
            assert_eq!(with_failure(0, || world.port.queue(&packet)), (Err(Status::NoMemory), true));
        }
        let before = MADE.get();
        world.port.queue(&packet).unwrap();
        MADE.get() - before
    };
    assert_eq!(allocations_after(20), allocations_after(0), "the port's registry did not have to grow");
}

#[test]
fn a_packet_that_finds_room_allocates_nothing() {
    let world = World::new();
    for _ in 0..20 {
        world.port.queue(&Packet::user(1, [7; 32])).unwrap();
    }
    assert_eq!(world.packets().len(), 20);
    let before = MADE.get();
    for _ in 0..20 {
        world.port.queue(&Packet::user(2, [7; 32])).unwrap();
    }
    assert_eq!(MADE.get(), before);
}

#[test]
fn vmos_that_come_and_go_take_no_more_room() {
    let left = left_by(|platform, pager, port| {
        let bytes_after = |vmos| {
            for _ in 0..vmos {
                drop(pager.create_vmo(port, KEY, VmoOptions::NONE, PAGE_SIZE).unwrap());
                assert_eq!(port.take(&mut [Packet::default()]), 1, "COMPLETE");
                settle(platform, 3); // ours, the pager's and the port's
            }
            BYTES.get()
        };
        let few = bytes_after(5);
        assert!(bytes_after(200) - few < 1000, "entries of a registry pile up");
    });
    assert_eq!(left, 0);
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
        BYTES.get()
    };
    let before = after(200);
    let more = after(2000) - before;
    assert!(more < 8192, "{more} bytes more than before, after 2000 requests");
}
