//! The reference page of `zx_pager_detach_vmo()`, a test a sentence.
//!
//! Each test is named after its sentence; its comment says in our words what the sentence says.
//! Where a sentence promises more than one thing, its tests share the first words of the name.
//! The sentences about handles cannot be broken in Rust: the types rule it out, and the doc tests
//! of this package's library show that such calls do not compile. What is left of them is tested
//! here.

use std::pin::pin;
use std::task::{Context, Poll};

use upager::{
    Access, ByteRange, Command, DirtyRange, Evict, MAX_VMO_SIZE, PAGE_SIZE, Packet, PageCount, PageIndex, Pager,
    Status, VmoOptions, Writeback,
};
use upager_tests::{
    Task, Wakes, World, at, bytes_of, complete_packet, dirty_packet, dirty_ranges, now, pages, pattern, read_packet,
};

// Summary

/// It takes a VMO away from its pager.
#[test]
fn summary_detaches_a_vmo_from_a_pager() {
    let world = World::new();
    let vmo = world.vmo(2);
    let other = world.vmo_with_key(2, 2);
    world.supply(&vmo, 0, 1).unwrap();
    world.supply(&other, 0, 1).unwrap();
    world.pager.detach_vmo(&vmo).unwrap();
    // The link is cut from both ends: the VMO does not ask, and the pager does not supply.
    assert_eq!(now(vmo.read(at(1, 0), &mut [0])), Err(Status::BadState));
    assert_eq!(world.supply(&vmo, 1, 1), Err(Status::BadState));
    // Another VMO of the same pager keeps its link.
    assert_eq!(world.contents(&other, 0), pattern(0));
    drop(Task::pending(other.fault(PageIndex(1), Access::Read)));
}

// Description

/// After it, the VMO queues no more page requests.
#[test]
fn detaching_causes_the_kernel_to_stop_queuing_page_requests() {
    let world = World::new();
    let vmo = world.vmo(8);
    world.supply(&vmo, 0, 2).unwrap();
    world.make_dirty(&vmo, 2, 1, 1);
    world.pager.detach_vmo(&vmo).unwrap();
    assert_eq!(world.packets(), [complete_packet()]);
    let before = vmo.counts().requests;
    for page in 0..8 {
        let _ = now(vmo.fault(PageIndex(page), Access::Read));
        let _ = now(vmo.fault(PageIndex(page), Access::Write));
        let _ = now(vmo.read(at(page, 0), &mut [0]));
        let _ = now(vmo.write(at(page, 0), &[0]));
    }
    assert_eq!(world.packets(), []);
    assert_eq!(vmo.counts().requests, before);
}

/// An access that would have asked for a page now fails.
#[test]
fn subsequent_accesses_that_would_have_generated_page_requests_fail() {
    let world = World::new();
    let vmo = world.vmo(4);
    world.pager.detach_vmo(&vmo).unwrap();
    assert_eq!(now(vmo.read(at(0, 0), &mut [0])), Err(Status::BadState));
    assert_eq!(now(vmo.write(at(1, 0), &[0])), Err(Status::BadState));
    assert_eq!(now(vmo.fault(PageIndex(2), Access::Read)), Err(Status::BadState));
    assert_eq!(now(vmo.fault(PageIndex(3), Access::Write)), Err(Status::BadState));
    assert_eq!(now(vmo.fault_run(PageIndex(0), PageCount(4), Access::Read)), Err(Status::BadState));
    assert_eq!(world.packets(), [complete_packet()]);
}

/// Clean pages went with the detach, so an access to one of them would ask too, and fails.
#[test]
fn subsequent_accesses_to_pages_that_were_clean_fail_alike() {
    let world = World::new();
    let vmo = world.vmo(2);
    world.supply(&vmo, 0, 2).unwrap();
    assert_eq!(world.contents(&vmo, 0), pattern(0));
    world.pager.detach_vmo(&vmo).unwrap();
    assert_eq!(now(vmo.read(at(0, 0), &mut [0])), Err(Status::BadState));
    assert_eq!(now(vmo.write(at(1, 0), &[0])), Err(Status::BadState));
    assert_eq!(world.resident(&vmo, 2), []);
}

/// An access that asks for nothing does not fail: dirty pages are there.
#[test]
fn subsequent_accesses_that_generate_no_request_go_on() {
    let world = World::new();
    let vmo = world.vmo(2);
    world.make_dirty(&vmo, 0, 1, 0xd1);
    world.pager.detach_vmo(&vmo).unwrap();
    assert_eq!(world.contents(&vmo, 0)[..1], [0xd1]);
    now(vmo.write(at(0, 1), &[0xd2])).unwrap();
    assert_eq!(world.contents(&vmo, 0)[..2], [0xd1, 0xd2]);
    assert_eq!(now(vmo.read(at(1, 0), &mut [])), Ok(()), "no byte, no page, no request");
}

/// A range that needs the pager for one of its pages fails, though the others are dirty.
#[test]
fn subsequent_accesses_over_a_dirty_and_an_absent_page_fail() {
    let world = World::new();
    let vmo = world.vmo(2);
    world.make_dirty(&vmo, 0, 1, 0xd1);
    world.pager.detach_vmo(&vmo).unwrap();
    let mut two_pages = vec![0; 8192];
    assert_eq!(now(vmo.read(at(0, 0), &mut two_pages)), Err(Status::BadState));
    assert_eq!(now(vmo.write(at(0, 4095), &[1, 2])), Err(Status::BadState));
}

/// READ and DIRTY requests are not made any more once detach returned, whether the VMO traps dirtying
/// or not.
#[test]
fn no_new_read_and_dirty_requests_will_be_generated_after_detaching() {
    for options in [VmoOptions::NONE, VmoOptions::TRAP_DIRTY] {
        let world = World::new();
        let vmo = world.vmo_with(options, 64);
        world.supply(&vmo, 0, 16).unwrap();
        if options == VmoOptions::TRAP_DIRTY {
            world.let_dirty(&vmo, 8, 8).unwrap();
        }
        for page in 8..16 {
            now(vmo.write(at(page, 0), &[1])).unwrap();
        }
        world.pager.detach_vmo(&vmo).unwrap();
        for page in 0..64 {
            for access in [Access::Read, Access::Write] {
                let made = now(vmo.fault(PageIndex(page), access));
                assert_eq!(made.is_ok(), (8..16).contains(&page));
            }
        }
        let commands: Vec<_> = world.packets().iter().map(Packet::command).collect();
        assert_eq!(commands, [Some(Command::Complete)]);
        assert_eq!(vmo.counts().in_flight, 0);
    }
}

/// A page that is being written back needs leave to become dirty again, and there is nobody to give it.
#[test]
fn no_new_read_and_dirty_requests_are_generated_for_pages_awaiting_clean() {
    let world = World::new();
    let vmo = world.trapping(2);
    world.let_dirty(&vmo, 0, 2).unwrap();
    world.pager.writeback_begin(&vmo, pages(1, 1), Writeback::All).unwrap();
    world.pager.detach_vmo(&vmo).unwrap();
    world.pager.writeback_begin(&vmo, pages(0, 1), Writeback::All).unwrap();
    for page in 0..2 {
        assert_eq!(now(vmo.write(at(page, 0), &[1])), Err(Status::BadState));
        now(vmo.read(at(page, 0), &mut [0])).unwrap();
    }
    assert_eq!(world.packets(), [complete_packet()]);
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(0, 2)], "what was written is not lost");
}

/// Requests may be in flight when detach comes: some delivered, some not.
#[test]
fn some_requests_may_still_be_in_flight() {
    let world = World::new();
    let vmo = world.vmo(8);
    let delivered = Task::pending(vmo.fault(PageIndex(1), Access::Read));
    assert_eq!(world.packets(), [read_packet(1, 1)]);
    let queued = Task::pending(vmo.fault(PageIndex(5), Access::Write));
    assert_eq!(vmo.counts().in_flight, 2);
    let detached = world.pager.detach_vmo(&vmo).unwrap();
    assert_eq!(detached.failed_requests, 2);
    assert_eq!(vmo.counts().in_flight, 0);
    assert_eq!(delivered.woken_with(), Err(Status::BadState));
    assert_eq!(queued.woken_with(), Err(Status::BadState));
}

/// DIRTY requests too, beside READs.
#[test]
fn some_requests_may_still_be_in_flight_of_them_dirty() {
    let world = World::new();
    let vmo = world.vmo_with(VmoOptions::TRAP_DIRTY, 4);
    world.supply(&vmo, 0, 2).unwrap();
    let delivered = Task::pending(vmo.write(at(0, 0), &[1]));
    assert_eq!(world.packets(), [dirty_packet(0, 1)]);
    let queued = Task::pending(vmo.write(at(1, 0), &[1]));
    let read = Task::pending(vmo.write(at(2, 0), &[1]));
    let detached = world.pager.detach_vmo(&vmo).unwrap();
    assert_eq!((detached.failed_requests, detached.dropped_pages), (3, PageCount(2)));
    for writer in [delivered, queued, read] {
        assert_eq!(writer.woken_with(), Err(Status::BadState));
    }
    assert_eq!(vmo.counts().in_flight, 0);
    assert_eq!(dirty_ranges(&world.pager, &vmo), [], "no write that failed has made its page dirty");
    assert_eq!(world.packets(), [complete_packet()]);
}

/// The service need not answer what was in flight: the threads that asked are woken, and get an
/// error, each once.
#[test]
fn the_pager_service_is_free_to_ignore_these_requests() {
    let world = World::new();
    let vmo = world.vmo(4);
    let mut buffer = [0; 2];
    let reader = Task::pending(vmo.read(at(0, 0), &mut buffer));
    let writer = Task::pending(vmo.write(at(0, 0), &[1]));
    let joiner = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    assert_eq!(world.packets(), [read_packet(0, 1)]);
    assert_eq!(world.pager.detach_vmo(&vmo).unwrap().failed_requests, 1);
    // The service ignores the request. Nothing else happens.
    assert_eq!(reader.woken_with(), Err(Status::BadState));
    assert_eq!(writer.woken_with(), Err(Status::BadState));
    assert_eq!(joiner.woken_with(), Err(Status::BadState));
}

/// Nor does a late answer do harm: a supply is refused and a failure finds nothing.
#[test]
fn the_pager_service_is_free_to_answer_these_requests_late() {
    let world = World::new();
    let vmo = world.vmo(4);
    let waiter = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    let request = world.packets()[0];
    world.pager.detach_vmo(&vmo).unwrap();
    let before = vmo.counts();
    assert_eq!(world.pager.supply_frames(&vmo, request.range(), world.frames(0, 1)), Err(Status::BadState));
    assert_eq!(world.pager.fail_range(&vmo, request.range(), Status::Io), Ok(()));
    assert_eq!(vmo.counts(), before);
    assert_eq!(waiter.woken_with(), Err(Status::BadState), "the error of the detach, not of the late answer");
    world.frames_become(0);
}

/// Nor does leave that comes too late: nothing becomes dirty with it.
#[test]
fn the_pager_service_is_free_to_answer_dirty_requests_late() {
    let world = World::new();
    let vmo = world.trapping(2);
    let writer = Task::pending(vmo.fault_run(PageIndex(0), PageCount(2), Access::Write));
    let request = world.packets()[0];
    assert_eq!(request, dirty_packet(0, 2));
    world.pager.detach_vmo(&vmo).unwrap();
    let before = vmo.counts();
    assert_eq!(world.pager.dirty_range(&vmo, request.range()), Err(Status::BadState));
    assert_eq!(world.pager.fail_range(&vmo, request.range(), Status::NoSpace), Ok(()));
    assert_eq!(vmo.counts(), before);
    assert_eq!(writer.woken_with(), Err(Status::BadState), "the error of the detach, not of the late answer");
    world.frames_become(0);
}

/// A DIRTY request fails as a whole, though some of its pages may be dirty; those stay.
#[test]
fn the_threads_that_generated_these_requests_fault_though_part_was_let_dirty() {
    let world = World::new();
    let vmo = world.trapping(3);
    let writer = Task::pending(vmo.fault_run(PageIndex(0), PageCount(3), Access::Write));
    world.let_dirty(&vmo, 1, 1).unwrap();
    world.pager.detach_vmo(&vmo).unwrap();
    assert_eq!(writer.woken_with(), Err(Status::BadState));
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(1, 1)]);
}

/// A request that spans pages, of which some were supplied, fails as a whole.
#[test]
fn the_threads_that_generated_these_requests_fault_though_part_was_supplied() {
    let world = World::new();
    let vmo = world.vmo(2);
    let mut buffer = vec![0; 8192];
    let reader = Task::pending(vmo.read(at(0, 0), &mut buffer));
    assert_eq!(world.packets(), [read_packet(0, 2)]);
    world.supply(&vmo, 0, 1).unwrap();
    world.pager.detach_vmo(&vmo).unwrap();
    assert_eq!(reader.woken_with(), Err(Status::BadState));
}

/// The last packet of the VMO is COMPLETE.
#[test]
fn the_final_request_the_pager_service_will_receive_is_complete() {
    let world = World::new();
    let vmo = world.vmo(8);
    let waiters: Vec<_> =
        [0, 3, 6].into_iter().map(|page| Task::pending(vmo.fault(PageIndex(page), Access::Read))).collect();
    let mut first = [Packet::default()];
    assert_eq!(world.port.take(&mut first), 1);
    assert_eq!(first[0].command(), Some(Command::Read));
    world.pager.detach_vmo(&vmo).unwrap();
    let rest = world.packets();
    assert_eq!(rest.last(), Some(&complete_packet()));
    assert_eq!(rest.iter().filter(|packet| packet.command() == Some(Command::Complete)).count(), 1);
    drop(waiters);
    drop(vmo);
    assert_eq!(world.packets(), [], "nothing follows, not even when the VMO ends");
}

/// A second detach sends no second COMPLETE.
#[test]
fn the_final_request_is_sent_once_however_often_the_vmo_is_detached() {
    let world = World::new();
    let vmo = world.vmo(1);
    world.pager.detach_vmo(&vmo).unwrap();
    world.pager.detach_vmo(&vmo).unwrap();
    assert_eq!(world.packets(), [complete_packet()]);
    world.pager.detach_vmo(&vmo).unwrap();
    assert_eq!(world.packets(), []);
}

/// A service that waits for packets is woken for COMPLETE.
#[test]
fn the_final_request_wakes_the_service() {
    let world = World::new();
    let vmo = world.vmo(1);
    let mut packets = [Packet::default()];
    let service = Task::pending(world.port.wait(&mut packets));
    world.pager.detach_vmo(&vmo).unwrap();
    assert_eq!(service.woken_with(), 1);
    assert_eq!(packets, [complete_packet()]);
}

/// Clean pages of a detached VMO may go, and go.
#[test]
fn the_kernel_is_free_to_evict_clean_pages_from_detached_vmos() {
    let world = World::new();
    let vmo = world.vmo(1000);
    world.supply(&vmo, 0, 1000).unwrap();
    let detached = world.pager.detach_vmo(&vmo).unwrap();
    assert_eq!(detached.dropped_pages, PageCount(1000));
    assert_eq!(vmo.counts().resident, PageCount(0), "as soon as it returns");
    world.frames_become(0);
}

/// Dirty pages of a detached VMO stay, whatever the evictor wants.
#[test]
fn but_will_retain_any_dirty_pages() {
    let world = World::new();
    let vmo = world.vmo(6);
    world.supply(&vmo, 0, 6).unwrap();
    world.make_dirty(&vmo, 1, 2, 0xd1);
    world.make_dirty(&vmo, 4, 1, 0xd4);
    world.pager.writeback_begin(&vmo, pages(4, 1), Writeback::All).unwrap();
    let detached = world.pager.detach_vmo(&vmo).unwrap();
    assert_eq!(detached.dropped_pages, PageCount(3));
    assert_eq!(vmo.evict(PageCount(MAX_VMO_SIZE), Evict::Any), PageCount(0));
    world.frames_become(3);
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(1, 2), (4, 1)]);
    assert_eq!(world.resident(&vmo, 6), [1, 2, 4]);
    for (page, first) in [(1, 0xd1), (2, 0xd1), (4, 0xd4)] {
        let contents = world.contents(&vmo, page);
        assert_eq!(contents[0], first);
        assert_eq!(contents[1..], pattern(page)[1..]);
    }
}

/// After COMPLETE the service asks what is dirty, and writes it back with BEGIN and END.
#[test]
fn upon_receiving_complete_the_pager_service_queries_and_writes_back() {
    let world = World::new();
    let vmo = world.vmo(10);
    world.make_dirty(&vmo, 2, 3, 0xd2);
    world.make_dirty(&vmo, 7, 1, 0xd7);
    world.pager.detach_vmo(&vmo).unwrap();
    assert_eq!(world.packets(), [complete_packet()]);

    let mut runs = [DirtyRange::default(); 4];
    let found = world.pager.query_dirty_ranges(&vmo, ByteRange::new(0, vmo.size()), &mut runs).unwrap();
    assert_eq!((found.actual, found.available), (2, 2));
    let mut store = vec![0; 10 * 4096];
    for run in &runs[..2] {
        world.pager.writeback_begin(&vmo, run.range(), Writeback::All).unwrap();
        let place = usize::try_from(run.offset).unwrap()..usize::try_from(run.offset + run.length).unwrap();
        now(vmo.read(upager::ByteOffset(run.offset), &mut store[place])).unwrap();
        world.pager.writeback_end(&vmo, run.range()).unwrap();
    }
    assert_eq!(dirty_ranges(&world.pager, &vmo), []);
    for (page, first) in [(2u64, 0xd2), (3, 0xd2), (4, 0xd2), (7, 0xd7)] {
        let start = usize::try_from(page * PAGE_SIZE).unwrap();
        assert_eq!(store[start], first);
        assert_eq!(store[start + 1..start + 4096], bytes_of(page * PAGE_SIZE + 1..(page + 1) * PAGE_SIZE));
    }
}

/// A write that lands in a detached VMO during writeback is not lost: the page stays dirty, and
/// goes with the next writeback.
#[test]
fn upon_receiving_complete_a_write_between_begin_and_end_keeps_the_page() {
    let world = World::new();
    let vmo = world.vmo(1);
    world.make_dirty(&vmo, 0, 1, 1);
    world.pager.detach_vmo(&vmo).unwrap();
    world.pager.writeback_begin(&vmo, pages(0, 1), Writeback::All).unwrap();
    now(vmo.write(at(0, 0), &[2])).unwrap();
    world.pager.writeback_end(&vmo, pages(0, 1)).unwrap();
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(0, 1)]);
    assert_eq!(world.contents(&vmo, 0)[0], 2);
    world.write_back(&vmo, 0, 1);
    assert_eq!(dirty_ranges(&world.pager, &vmo), []);
}

/// What was written back is clean, may be evicted, and in a detached VMO is.
#[test]
fn once_they_have_been_written_back_these_pages_become_clean_again() {
    let world = World::new();
    let vmo = world.vmo(4);
    world.make_dirty(&vmo, 0, 4, 9);
    world.pager.detach_vmo(&vmo).unwrap();
    world.frames_become(4);
    world.write_back(&vmo, 1, 2);
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(0, 1), (3, 1)]);
    assert_eq!(vmo.counts().resident, PageCount(2));
    assert_eq!(now(vmo.read(at(1, 0), &mut [0])), Err(Status::BadState), "gone like every clean page");
    world.frames_become(2);
    world.write_back(&vmo, 0, 4);
    world.frames_become(0);
}

// Rights

/// The first argument must be a pager. The type says so (see the doc tests of the library); any
/// pager will do for the type, and the pager itself must be this VMO's.
#[test]
fn pager_must_be_of_type_pager() {
    let world = World::new();
    let vmo = world.vmo(1);
    let pager: &Pager<_> = &world.pager;
    assert!(pager.detach_vmo(&vmo).is_ok());
}

/// The second argument must be a VMO. The type says so (see the doc tests of the library); it may
/// be of any size, even empty.
#[test]
fn vmo_must_be_of_type_vmo() {
    let world = World::new();
    for pages in [0, 1, 1 << 20, MAX_VMO_SIZE / PAGE_SIZE] {
        let vmo = world.vmo(pages);
        assert!(world.pager.detach_vmo(&vmo).is_ok());
        assert_eq!(world.packets(), [complete_packet()]);
    }
}

// Return value

/// OK for success, and OK again: a second detach has nothing to do.
#[test]
fn returns_ok_on_success() {
    let world = World::new();
    let vmo = world.vmo(3);
    world.supply(&vmo, 0, 2).unwrap();
    let waiter = Task::pending(vmo.fault(PageIndex(2), Access::Read));
    let first = world.pager.detach_vmo(&vmo).unwrap();
    assert_eq!((first.failed_requests, first.dropped_pages), (1, PageCount(2)));
    let second = world.pager.detach_vmo(&vmo).unwrap();
    assert_eq!((second.failed_requests, second.dropped_pages), (0, PageCount(0)));
    assert_eq!(waiter.woken_with(), Err(Status::BadState));
}

/// One of the listed errors for failure. A detach that fails changes nothing.
#[test]
fn or_one_of_the_following_error_codes_on_failure() {
    let world = World::new();
    let vmo = world.vmo(3);
    world.supply(&vmo, 0, 1).unwrap();
    world.make_dirty(&vmo, 1, 1, 1);
    let mut waiter = Task::pending(vmo.fault(PageIndex(2), Access::Read));
    let before = vmo.counts();
    let stranger = Pager::new(world.platform.clone());
    assert_eq!(stranger.detach_vmo(&vmo).map(drop), Err(Status::InvalidArgs));
    assert_eq!(vmo.counts(), before);
    assert_eq!(world.contents(&vmo, 0), pattern(0));
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(1, 1)]);
    assert_eq!(waiter.poll(), None);
    assert_eq!(waiter.wakes(), 0);
    assert_eq!(world.packets(), [read_packet(2, 1)]);
    world.supply(&vmo, 2, 1).unwrap();
    assert_eq!(waiter.woken_with(), Ok(()));
}

// Errors

/// A handle that is not valid. A closed pager or VMO cannot be named in Rust (doc tests of the
/// library); what remains is the value of the error, and that closing the pager right before does
/// to the VMO's users what the reference says of a pager that is gone.
#[test]
fn bad_handle_pager_or_vmo_is_not_a_valid_handle() {
    assert_eq!(Status::BadHandle as i32, -11);
    let World { platform, pager, port } = World::new();
    let world = World { platform: platform.clone(), pager: Pager::new(platform), port };
    let vmo = pager.create_vmo(&world.port, 1, VmoOptions::NONE, 4096).unwrap();
    drop(pager);
    assert_eq!(world.pager.detach_vmo(&vmo).map(drop), Err(Status::InvalidArgs), "no other pager can stand in");
    assert_eq!(now(vmo.read(at(0, 0), &mut [0])), Err(Status::BadState));
}

/// A handle of another kind. The types rule it out (doc tests of the library); what remains is
/// the value of the error.
#[test]
fn wrong_type_pager_is_not_a_pager_handle_or_vmo_is_not_a_vmo_handle() {
    assert_eq!(Status::WrongType as i32, -12);
}

/// A VMO that another pager created is refused, in either direction, detached or not.
#[test]
fn invalid_args_vmo_is_not_a_vmo_created_from_pager() {
    let world = World::new();
    let other = Pager::new(world.platform.clone());
    let ours = world.vmo(1);
    let theirs = other.create_vmo(&world.port, 2, VmoOptions::NONE, 4096).unwrap();
    assert_eq!(world.pager.detach_vmo(&theirs).map(drop), Err(Status::InvalidArgs));
    assert_eq!(other.detach_vmo(&ours).map(drop), Err(Status::InvalidArgs));
    assert_eq!(world.packets(), []);
    world.pager.detach_vmo(&ours).unwrap();
    assert_eq!(other.detach_vmo(&ours).map(drop), Err(Status::InvalidArgs));
    // The refused VMO is still attached.
    let mut fault = pin!(theirs.fault(PageIndex(0), Access::Read));
    let wakes = Wakes::new();
    assert_eq!(fault.as_mut().poll(&mut Context::from_waker(&wakes.waker())), Poll::Pending);
    other.detach_vmo(&theirs).unwrap();
    assert_eq!(wakes.count(), 1);
}
