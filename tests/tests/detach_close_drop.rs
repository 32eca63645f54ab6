//! Detach, close, and who may still act: the table of the contract, row by row.
//!
//! The rows are: detached, pager closed, last reference to the VMO dropped, port closed. Each row
//! says what reads and writes of resident pages do, what an access that needs the pager does, what
//! the service's calls do, and which packets come.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use upager::{
    Access, Evict, HeapPlatform, PAGE_SIZE, Packet, PageCount, PageIndex, Pager, Platform, Port, Status, Vmo,
    VmoOptions, Writeback,
};
use upager_tests::{
    Hooked, KEY, Task, Wakes, World, at, complete_packet, dirty_ranges, now, pages, pattern, read_packet, soon,
};

/// A pager that can be closed apart from the rest of its world.
struct Closable {
    pager: Pager<HeapPlatform>,
    vmo: Vmo<HeapPlatform>,
}

impl Closable {
    fn new(world: &World, size: u64) -> Self {
        let pager = Pager::new(world.platform.clone());
        let vmo = pager.create_vmo(&world.port, KEY, VmoOptions::NONE, size * PAGE_SIZE).unwrap();
        Self { pager, vmo }
    }

    fn supply(&self, world: &World, first: u64, count: u64) {
        self.pager.supply_frames(&self.vmo, pages(first, count), world.frames(first, count)).unwrap();
    }
}

// Detached

#[test]
fn detached_reads_and_writes_of_dirty_pages_go_on() {
    let world = World::new();
    let vmo = world.vmo(3);
    world.make_dirty(&vmo, 0, 2, 1);
    world.pager.writeback_begin(&vmo, pages(1, 1), Writeback::All).unwrap();
    world.pager.detach_vmo(&vmo).unwrap();
    for page in [0, 1] {
        now(vmo.write(at(page, 1), &[2])).unwrap();
        assert_eq!(world.contents(&vmo, page)[..2], [1, 2]);
        assert_eq!(now(vmo.fault(PageIndex(page), Access::Read)), Ok(()));
        assert_eq!(now(vmo.fault(PageIndex(page), Access::Write)), Ok(()));
        assert!(world.is_resident(&vmo, page));
    }
}

#[test]
fn detached_clean_pages_are_gone_at_once() {
    let world = World::new();
    let vmo = world.vmo(700);
    world.supply(&vmo, 0, 700).unwrap();
    world.make_dirty(&vmo, 600, 1, 1);
    let guard = upager::Platform::pin(&*world.platform); // even though no frame can be freed yet
    world.pager.detach_vmo(&vmo).unwrap();
    assert_eq!(vmo.counts().resident, PageCount(1));
    assert_eq!(world.resident(&vmo, 700), [600]);
    for page in [0, 300, 699] {
        assert_eq!(now(vmo.read(at(page, 0), &mut [0])), Err(Status::BadState));
        assert_eq!(now(vmo.write(at(page, 0), &[0])), Err(Status::BadState));
    }
    drop(guard);
    world.frames_become(1);
}

#[test]
fn detached_pages_on_their_way_out_are_not_rescued() {
    let world = World::new();
    let vmo = world.vmo(2);
    world.supply(&vmo, 0, 2).unwrap();
    let guard = upager::Platform::pin(&*world.platform);
    vmo.evict(PageCount(2), Evict::Any);
    world.pager.detach_vmo(&vmo).unwrap();
    assert_eq!(now(vmo.read(at(0, 0), &mut [0])), Err(Status::BadState));
    assert_eq!(now(vmo.write(at(1, 0), &[0])), Err(Status::BadState));
    drop(guard);
    world.frames_become(0);
}

#[test]
fn detached_accesses_that_need_the_pager_are_bad_state() {
    let world = World::new();
    let vmo = world.vmo(3);
    world.make_dirty(&vmo, 0, 1, 1);
    world.supply(&vmo, 1, 1).unwrap();
    world.pager.detach_vmo(&vmo).unwrap();
    for page in [1, 2] {
        for access in [Access::Read, Access::Write] {
            assert_eq!(now(vmo.fault(PageIndex(page), access)), Err(Status::BadState));
        }
        assert_eq!(now(vmo.read(at(page - 1, 4095), &mut [0, 0])), Err(Status::BadState));
        assert_eq!(now(vmo.write(at(page - 1, 4095), &[0, 0])), Err(Status::BadState));
    }
}

#[test]
fn detached_accesses_past_the_end_are_still_out_of_range() {
    let world = World::new();
    let vmo = world.vmo(1);
    world.pager.detach_vmo(&vmo).unwrap();
    assert_eq!(now(vmo.read(at(1, 0), &mut [0])), Err(Status::OutOfRange));
    assert_eq!(now(vmo.fault(PageIndex(1), Access::Read)), Err(Status::OutOfRange));
    assert_eq!(world.supply(&vmo, 1, 1), Err(Status::OutOfRange), "the range is looked at before the state");
}

#[test]
fn detached_requests_in_flight_fail_each_waiter_once() {
    let world = World::new();
    let vmo = world.vmo(100);
    let waiters: Vec<_> = (0..200).map(|n| Task::pending(vmo.fault(PageIndex(n % 100), Access::Read))).collect();
    let mut some = [Packet::default(); 10];
    assert!(world.port.take(&mut some) > 0);
    assert_eq!(world.pager.detach_vmo(&vmo).unwrap().failed_requests, 100);
    world.pager.detach_vmo(&vmo).unwrap();
    for waiter in waiters {
        assert_eq!(waiter.woken_with(), Err(Status::BadState));
    }
}

#[test]
fn detached_a_waiter_that_was_served_before_but_did_not_run_yet_fails() {
    let world = World::new();
    let vmo = world.vmo(1);
    let mut byte = [0];
    let reader = Task::pending(vmo.read(at(0, 0), &mut byte));
    world.supply(&vmo, 0, 1).unwrap();
    world.pager.detach_vmo(&vmo).unwrap();
    assert_eq!(reader.woken_with(), Err(Status::BadState), "its page was clean, and went");
}

#[test]
fn detached_supply_is_bad_state_and_changes_nothing() {
    let world = World::new();
    let vmo = world.vmo(2);
    world.make_dirty(&vmo, 0, 1, 1);
    world.pager.detach_vmo(&vmo).unwrap();
    for page in [0, 1] {
        assert_eq!(world.supply(&vmo, page, 1), Err(Status::BadState));
    }
    assert_eq!(world.resident(&vmo, 2), [0]);
    assert_eq!(world.contents(&vmo, 0)[0], 1);
    world.frames_become(1);
}

#[test]
fn detached_begin_end_and_query_work() {
    let world = World::new();
    let vmo = world.vmo(4);
    world.make_dirty(&vmo, 1, 2, 1);
    world.pager.detach_vmo(&vmo).unwrap();
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(1, 2)]);
    world.pager.writeback_begin(&vmo, pages(0, 2), Writeback::All).unwrap();
    now(vmo.write(at(2, 0), &[2])).unwrap();
    world.pager.writeback_end(&vmo, pages(0, 4)).unwrap();
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(2, 1)]);
    assert_eq!(now(vmo.read(at(1, 0), &mut [0])), Err(Status::BadState), "cleaned, so gone");
    world.write_back(&vmo, 0, 4);
    assert_eq!(vmo.counts().resident, PageCount(0));
    world.frames_become(0);
}

#[test]
fn detached_complete_comes_once_and_last() {
    let world = World::new();
    let vmo = world.vmo(4);
    let delivered = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    assert_eq!(world.packets(), [read_packet(0, 1)]);
    let queued = Task::pending(vmo.fault(PageIndex(2), Access::Read));
    world.pager.detach_vmo(&vmo).unwrap();
    let packets = world.packets();
    assert_eq!(packets.last(), Some(&complete_packet()));
    assert!(packets.iter().rev().skip(1).all(|packet| *packet == read_packet(2, 1)), "{packets:?}");
    world.pager.detach_vmo(&vmo).unwrap();
    drop((delivered, queued));
    drop(vmo);
    assert_eq!(world.packets(), []);
}

#[test]
fn detached_a_supply_that_began_before_leaves_no_page() {
    let world = World::on(Hooked::default());
    let vmo = world.vmo(2);
    let waiter = Task::pending(vmo.fault_run(PageIndex(0), PageCount(2), Access::Read));
    // Page 0 is supplied, and while the service makes the next frame, somebody detaches.
    let frames = (0..2usize).map(|page| {
        if page == 1 {
            world.pager.detach_vmo(&vmo).unwrap();
        }
        world.frame()
    });
    let supplied = world.pager.supply_frames(&vmo, pages(0, 2), frames);
    assert!(matches!(supplied, Ok(()) | Err(Status::BadState)), "{supplied:?}");
    assert_eq!(waiter.woken_with(), Err(Status::BadState));
    assert_eq!(world.resident(&vmo, 2), []);
    assert_eq!(vmo.counts().resident, PageCount(0));
    // Before anybody touches the page: nobody may ever do.
    let deadline = upager_tests::soon();
    while world.platform.frames() != PageCount(0) {
        upager::Platform::pin(&*world.platform).flush();
        assert!(std::time::Instant::now() < deadline, "the late page leaked");
    }
    for page in 0..2 {
        assert_eq!(now(vmo.read(at(page, 0), &mut [0])), Err(Status::BadState));
    }
}

#[test]
fn detached_clean_pages_that_the_detach_has_not_reached_yet_are_gone_too() {
    let world = World::on(Hooked::default());
    let vmo = std::sync::Arc::new(world.vmo(1000));
    world.supply(&vmo, 0, 1000).unwrap();
    let (inside, looks) = (vmo.clone(), std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0)));
    let looked = looks.clone();
    world.platform.before_unmap(move || {
        // The detach is at its first page. Whichever that is, all of them are gone.
        for page in [0, 1, 500, 998, 999] {
            let found = inside.lookup(&upager::Platform::pin(&**inside.platform()), PageIndex(page));
            assert_eq!(found, None);
            assert_eq!(now(inside.read(at(page, 0), &mut [0])), Err(Status::BadState));
            assert_eq!(now(inside.write(at(page, 0), &[0])), Err(Status::BadState));
            assert_eq!(now(inside.fault(PageIndex(page), Access::Write)), Err(Status::BadState));
        }
        looked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    });
    world.pager.detach_vmo(&vmo).unwrap();
    assert_eq!(looks.load(std::sync::atomic::Ordering::SeqCst), 1);
    assert_eq!(dirty_ranges(&world.pager, &vmo), []);
    assert_eq!(vmo.counts().resident, PageCount(0));
}

// Pager closed

#[test]
fn closed_reads_and_writes_of_resident_pages_go_on_clean_ones_too() {
    let world = World::new();
    let Closable { pager, vmo } = {
        let closable = Closable::new(&world, 3);
        closable.supply(&world, 0, 2);
        closable
    };
    now(vmo.write(at(1, 0), &[1])).unwrap();
    drop(pager);
    assert_eq!(world.resident(&vmo, 3), [0, 1], "nothing is dropped");
    assert_eq!(world.contents(&vmo, 0), pattern(0));
    now(vmo.write(at(1, 1), &[2])).unwrap();
    now(vmo.write(at(0, 0), &[3])).unwrap();
    assert_eq!(world.contents(&vmo, 1)[..2], [1, 2]);
    assert_eq!(world.contents(&vmo, 0)[0], 3);
    assert_eq!(now(vmo.fault(PageIndex(0), Access::Write)), Ok(()));
    assert_eq!(vmo.counts().dirty, PageCount(2));
}

#[test]
fn closed_accesses_that_need_the_pager_are_bad_state() {
    let world = World::new();
    let Closable { pager, vmo } = Closable::new(&world, 2);
    drop(pager);
    assert_eq!(now(vmo.read(at(0, 0), &mut [0])), Err(Status::BadState));
    assert_eq!(now(vmo.write(at(1, 0), &[0])), Err(Status::BadState));
    assert_eq!(now(vmo.fault(PageIndex(0), Access::Read)), Err(Status::BadState));
}

#[test]
fn closed_requests_in_flight_fail_at_once() {
    let world = World::new();
    let Closable { pager, vmo } = Closable::new(&world, 4);
    let delivered = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    assert_eq!(world.packets(), [read_packet(0, 1)]);
    let queued = Task::pending(vmo.fault(PageIndex(2), Access::Write));
    let joined = Task::pending(vmo.fault(PageIndex(2), Access::Read));
    drop(pager);
    for waiter in [delivered, queued, joined] {
        assert_eq!(waiter.woken_with(), Err(Status::BadState));
    }
    assert_eq!(vmo.counts().in_flight, 0);
}

#[test]
fn closed_no_packet_comes_any_more_and_queued_ones_are_withdrawn() {
    let world = World::new();
    let Closable { pager, vmo } = Closable::new(&world, 8);
    let waiters = [0, 2, 4].map(|page| Task::pending(vmo.fault(PageIndex(page), Access::Read)));
    drop(pager);
    assert_eq!(world.packets(), []);
    drop(waiters);
    drop(vmo);
    assert_eq!(world.packets(), [], "COMPLETE included");
}

#[test]
fn closed_a_complete_that_was_queued_is_withdrawn() {
    let world = World::new();
    let Closable { pager, vmo } = Closable::new(&world, 1);
    pager.detach_vmo(&vmo).unwrap();
    drop(pager);
    assert_eq!(world.packets(), []);
}

#[test]
fn closed_the_complete_of_a_vmo_that_ended_before_is_withdrawn() {
    let world = World::new();
    let Closable { pager, vmo } = Closable::new(&world, 1);
    drop(vmo);
    drop(pager);
    assert_eq!(world.packets(), []);
}

#[test]
fn closed_after_detach_clean_pages_stay_gone_and_dirty_ones_stay() {
    let world = World::new();
    let closable = Closable::new(&world, 2);
    closable.supply(&world, 0, 2);
    let Closable { pager, vmo } = closable;
    now(vmo.write(at(1, 0), &[1])).unwrap();
    pager.detach_vmo(&vmo).unwrap();
    drop(pager);
    assert_eq!(now(vmo.read(at(0, 0), &mut [0])), Err(Status::BadState));
    assert_eq!(world.contents(&vmo, 1)[0], 1);
    now(vmo.write(at(1, 0), &[2])).unwrap();
    drop(vmo);
    world.frames_become(0);
}

#[test]
fn closed_clean_pages_may_be_evicted_and_are_then_lost() {
    let world = World::new();
    let closable = Closable::new(&world, 1);
    closable.supply(&world, 0, 1);
    let Closable { pager, vmo } = closable;
    drop(pager);
    world.evict_now(&vmo, 0);
    assert_eq!(now(vmo.read(at(0, 0), &mut [0])), Err(Status::BadState));
}

#[test]
fn closed_the_port_forgets_the_vmo_at_the_next_take() {
    let World { platform, pager, port } = World::new();
    let vmo = pager.create_vmo(&port, KEY, VmoOptions::NONE, PAGE_SIZE).unwrap();
    drop(pager);
    assert_eq!(port.take(&mut [Packet::default()]), 0);
    drop(vmo);
    // Ours, and the port's. The VMO's and its pager's go after a grace period.
    let deadline = soon();
    while Arc::strong_count(&platform) > 2 {
        platform.pin().flush();
        assert!(Instant::now() < deadline, "the port keeps the VMO");
        thread::yield_now();
    }
}

#[test]
fn closed_other_pagers_on_the_port_go_on() {
    let world = World::new();
    let vmo = world.vmo(1);
    let waiter = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    let Closable { pager, vmo: theirs } = Closable::new(&world, 1);
    let failed = Task::pending(theirs.fault(PageIndex(0), Access::Read));
    drop(pager);
    assert_eq!(failed.woken_with(), Err(Status::BadState));
    assert_eq!(world.packets(), [read_packet(0, 1)], "ours");
    world.supply(&vmo, 0, 1).unwrap();
    assert_eq!(waiter.woken_with(), Ok(()));
}

#[test]
fn closed_every_vmo_of_the_pager_is_closed() {
    let world = World::new();
    let pager = Pager::new(world.platform.clone());
    let vmos: Vec<_> =
        (0..300).map(|key| pager.create_vmo(&world.port, key, VmoOptions::NONE, PAGE_SIZE).unwrap()).collect();
    let waiters: Vec<_> = vmos.iter().map(|vmo| Task::pending(vmo.fault(PageIndex(0), Access::Read))).collect();
    drop(pager);
    for waiter in waiters {
        assert_eq!(waiter.woken_with(), Err(Status::BadState));
    }
    assert_eq!(world.packets(), []);
}

// Last VMO reference dropped

#[test]
fn dropped_the_service_gets_complete_once() {
    let world = World::new();
    let vmo = world.vmo(2);
    world.supply(&vmo, 0, 1).unwrap();
    let waiter = Task::pending(vmo.fault(PageIndex(1), Access::Read));
    assert_eq!(world.packets(), [read_packet(1, 1)]);
    drop(waiter);
    drop(vmo);
    assert_eq!(world.packets(), [complete_packet()]);
    assert_eq!(world.packets(), []);
}

#[test]
fn dropped_no_second_complete_when_detach_sent_it() {
    let world = World::new();
    for taken_between in [true, false] {
        let vmo = world.vmo(1);
        world.pager.detach_vmo(&vmo).unwrap();
        if taken_between {
            assert_eq!(world.packets(), [complete_packet()]);
        }
        drop(vmo);
        assert_eq!(world.packets().len(), usize::from(!taken_between));
    }
}

#[test]
fn dropped_every_frame_is_freed_whatever_state_its_page_was_in() {
    let world = World::new();
    let vmo = world.vmo(600);
    world.supply(&vmo, 0, 100).unwrap();
    world.make_dirty(&vmo, 100, 100, 1);
    world.make_dirty(&vmo, 500, 100, 1);
    world.pager.writeback_begin(&vmo, pages(550, 50), Writeback::All).unwrap();
    let guard = upager::Platform::pin(&*world.platform);
    vmo.evict(PageCount(10), Evict::Any);
    drop(vmo);
    drop(guard);
    world.frames_become(0);
}

/// What it deferred is not its thread's own.
#[test]
fn dropped_vmos_are_freed_though_the_thread_that_took_complete_does_nothing_more() {
    let world = World::new();
    let references = || Arc::strong_count(&world.platform);
    let before = references();
    let vmo = world.vmo(1);
    assert!(references() > before, "the VMO has one");
    let ((taken, has_taken), (over, is_over)) = (mpsc::channel(), mpsc::channel::<()>());
    thread::scope(|scope| {
        let over = over; // gone with this closure, whatever comes of it
        let world = &world;
        scope.spawn(move || {
            drop(vmo);
            assert_eq!(world.packets(), [complete_packet()]);
            taken.send(()).unwrap();
            let _ = is_over.recv();
        });
        has_taken.recv().unwrap();
        let freed = (0..5000).any(|_| {
            world.platform.pin().flush();
            thread::sleep(Duration::from_millis(1));
            references() == before
        });
        drop(over);
        assert!(freed, "{} references to the platform, {before} before", references());
    });
}

/// With COMPLETE the service, and whoever maps the VMO, may forget it.
#[test]
fn dropped_every_page_is_unmapped_before_complete_comes() {
    let world = World::on(Hooked::default());
    let port = Arc::new(Port::new(world.platform.clone()));
    let vmo = world.pager.create_vmo(&port, KEY, VmoOptions::NONE, 2 * PAGE_SIZE).unwrap();
    world.make_dirty(&vmo, 0, 1, 1);
    world.supply(&vmo, 1, 1).unwrap();
    let service = port.clone();
    world.platform.at_each_unmapped(move || assert_eq!(service.take(&mut [Packet::default()]), 0, "not yet"));
    drop(vmo);
    assert_eq!(world.platform.unmapped().len(), 2);
    world.platform.at_each_unmapped(|| ());
    let mut packets = [Packet::default(); 2];
    assert_eq!((port.take(&mut packets), packets[0]), (1, complete_packet()));
}

#[test]
fn dropped_while_shared_the_last_reference_counts() {
    let world = World::new();
    let vmo = std::sync::Arc::new(world.vmo(1));
    let other = vmo.clone();
    drop(vmo);
    assert_eq!(world.packets(), []);
    drop(other);
    assert_eq!(world.packets(), [complete_packet()]);
}

#[test]
fn dropped_wakes_a_waiting_service() {
    let world = World::new();
    let vmo = world.vmo(1);
    let mut packets = [Packet::default()];
    let service = Task::pending(world.port.wait(&mut packets));
    drop(vmo);
    assert_eq!(service.woken_with(), 1);
    assert_eq!(packets[0], complete_packet());
}

#[test]
fn dropped_vmos_make_room_for_others() {
    let world = World::new();
    for _ in 0..2000 {
        let vmo = world.vmo(1);
        drop(vmo);
    }
    assert_eq!(world.packets(), vec![complete_packet(); 2000]);
    world.end();
}

// Port closed

#[test]
fn port_closed_resident_pages_and_the_services_calls_go_on() {
    let world = World::new();
    let port = Port::new(world.platform.clone());
    let vmo = world.pager.create_vmo(&port, 1, VmoOptions::NONE, 4 * PAGE_SIZE).unwrap();
    world.supply(&vmo, 0, 1).unwrap();
    drop(port);
    assert_eq!(world.contents(&vmo, 0), pattern(0));
    now(vmo.write(at(0, 0), &[1])).unwrap();
    world.supply(&vmo, 1, 1).unwrap();
    assert_eq!(world.contents(&vmo, 1), pattern(1));
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(0, 1)]);
    world.write_back(&vmo, 0, 1);
    assert_eq!(dirty_ranges(&world.pager, &vmo), []);
}

#[test]
fn port_closed_accesses_wait_until_somebody_supplies_or_fails() {
    let world = World::new();
    let port = Port::new(world.platform.clone());
    let vmo = world.pager.create_vmo(&port, 1, VmoOptions::NONE, 4 * PAGE_SIZE).unwrap();
    let before = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    drop(port);
    let mut after = Task::pending(vmo.fault(PageIndex(1), Access::Read));
    assert_eq!((before.wakes(), after.wakes(), after.poll()), (0, 0, None));
    world.supply(&vmo, 0, 1).unwrap();
    assert_eq!(before.woken_with(), Ok(()));
    world.pager.fail_range(&vmo, pages(1, 1), Status::Io).unwrap();
    assert_eq!(after.woken_with(), Err(Status::Io));
}

#[test]
fn port_closed_accesses_end_with_detach_close_or_their_own_timeout() {
    let world = World::new();
    let port = Port::new(world.platform.clone());
    let pager = Pager::new(world.platform.clone());
    let detached = world.pager.create_vmo(&port, 1, VmoOptions::NONE, PAGE_SIZE).unwrap();
    let closed = pager.create_vmo(&port, 2, VmoOptions::NONE, PAGE_SIZE).unwrap();
    drop(port);
    let waiters = [&detached, &closed].map(|vmo| Task::pending(vmo.fault(PageIndex(0), Access::Read)));
    let leaver = upager::block_on_until(detached.fault(PageIndex(0), Access::Read), Some(std::time::Instant::now()));
    assert_eq!(leaver, None);
    world.pager.detach_vmo(&detached).unwrap();
    drop(pager);
    for waiter in waiters {
        assert_eq!(waiter.woken_with(), Err(Status::BadState));
    }
}

#[test]
fn port_closed_packets_are_dropped_and_nothing_leaks() {
    let world = World::new();
    let port = Port::new(world.platform.clone());
    let vmos: Vec<_> =
        (0..20).map(|key| world.pager.create_vmo(&port, key, VmoOptions::NONE, 4 * PAGE_SIZE).unwrap()).collect();
    for vmo in &vmos {
        world.make_dirty(vmo, 0, 1, 1);
    }
    let wakes = Wakes::new();
    let counting = wakes.waker();
    let mut waiters: Vec<_> = vmos.iter().map(|vmo| Task::new(vmo.fault(PageIndex(2), Access::Read))).collect();
    for waiter in &mut waiters {
        assert_eq!(waiter.poll_with(&counting), None);
    }
    drop(port);
    drop(waiters);
    world.pager.detach_vmo(&vmos[0]).unwrap();
    drop(vmos);
    assert_eq!(wakes.count(), 0);
    assert_eq!(Arc::strong_count(&wakes), 2, "ours, and the one in `counting`");
    assert_eq!(world.packets(), [], "none of them strays to another port");
    world.frames_become(0);
    world.end();
}

#[test]
fn whatever_goes_first_the_rest_ends_in_peace() {
    // All orders of: detach, drop of pager, port and VMO.
    for order in 0..24u32 {
        let mut left = vec![0, 1, 2, 3];
        let steps = [4, 3, 2, 1].map(|n| {
            let pick = (order / [6, 2, 1, 1][4 - n]) as usize % n;
            left.remove(pick)
        });
        let World { platform, pager, port } = World::new();
        let vmo = pager.create_vmo(&port, KEY, VmoOptions::NONE, 4 * PAGE_SIZE).unwrap();
        let world = World { platform, pager, port };
        world.supply(&vmo, 0, 2).unwrap();
        now(vmo.write(at(1, 0), &[1])).unwrap();
        drop(Task::pending(vmo.fault(PageIndex(3), Access::Read)));
        let World { platform, pager, port } = world;
        let (mut pager, mut port, mut vmo) = (Some(pager), Some(port), Some(vmo));
        for step in steps {
            match step {
                0 => {
                    if let (Some(pager), Some(vmo)) = (&pager, &vmo) {
                        pager.detach_vmo(vmo).unwrap();
                    }
                }
                1 => drop(pager.take()),
                2 => drop(port.take()),
                _ => drop(vmo.take()),
            }
            if let Some(vmo) = &vmo {
                assert_eq!(now(vmo.read(at(1, 0), &mut [0])), Ok(()), "dirty: it stays to the end");
            }
        }
        let deadline = upager_tests::soon();
        while platform.frames() != PageCount(0) {
            upager::Platform::pin(&*platform).flush();
            assert!(std::time::Instant::now() < deadline, "{steps:?} leaks");
        }
    }
}
