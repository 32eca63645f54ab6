//! Pages that the service gives, asked for or not.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use upager::{Access, OwnedFrame, PageCount, PageIndex, Platform, Status, Writeback};
use upager_tests::{Task, World, at, dirty_ranges, now, pages, pattern, read_packet};

#[test]
fn supply_moves_the_frame_and_does_not_copy_it() {
    let world = World::new();
    let vmo = world.vmo(3);
    let frames = world.frames(0, 3);
    let numbers: Vec<_> = frames.iter().map(OwnedFrame::frame).collect();
    world.pager.supply_frames(&vmo, pages(0, 3), frames).unwrap();
    let guard = world.platform.pin();
    for (page, number) in (0..3).zip(numbers) {
        assert_eq!(vmo.lookup(&guard, PageIndex(page)), Some(number));
    }
    assert_eq!(world.platform.frames(), PageCount(3));
}

#[test]
fn a_supplied_page_is_clean() {
    let world = World::new();
    let vmo = world.vmo(2);
    world.supply(&vmo, 0, 2).unwrap();
    assert_eq!(dirty_ranges(&world.pager, &vmo), []);
    assert_eq!((vmo.counts().resident, vmo.counts().dirty), (PageCount(2), PageCount(0)));
}

#[test]
fn pages_that_nobody_asked_for_are_welcome() {
    let world = World::new();
    let vmo = world.vmo(1024);
    for page in [0, 511, 512, 1023] {
        world.supply(&vmo, page, 1).unwrap();
        assert_eq!(world.contents(&vmo, page), pattern(page));
    }
    assert_eq!(vmo.counts().requests, 0);
    assert_eq!(world.packets(), []);
}

#[test]
fn supplying_nothing_does_nothing() {
    let world = World::new();
    let vmo = world.vmo(2);
    for page in 0..=2 {
        assert_eq!(world.supply(&vmo, page, 0), Ok(()));
    }
    assert_eq!(vmo.counts().resident, PageCount(0));
}

#[test]
fn a_clean_page_is_kept_and_the_supplied_frame_freed() {
    let world = World::new();
    let vmo = world.vmo(3);
    world.supply(&vmo, 1, 1).unwrap();
    let zeros = [world.frame(), world.frame(), world.frame()];
    world.pager.supply_frames(&vmo, pages(0, 3), zeros).unwrap();
    assert_eq!(world.contents(&vmo, 1), pattern(1));
    assert_eq!(world.contents(&vmo, 0), vec![0; 4096]);
    assert_eq!(world.contents(&vmo, 2), vec![0; 4096]);
    assert_eq!(world.platform.frames(), PageCount(3));
    assert_eq!(vmo.counts().resident, PageCount(3));
}

#[test]
fn a_dirty_page_and_one_awaiting_clean_are_kept() {
    let world = World::new();
    let vmo = world.vmo(2);
    world.make_dirty(&vmo, 0, 2, 0xd0);
    world.pager.writeback_begin(&vmo, pages(1, 1), Writeback::All).unwrap();
    world.supply(&vmo, 0, 2).unwrap();
    assert_eq!([world.contents(&vmo, 0)[0], world.contents(&vmo, 1)[0]], [0xd0, 0xd0]);
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(0, 2)]);
    assert_eq!(world.platform.frames(), PageCount(2));
    // Each is still what it was: END cleans the second only.
    world.pager.writeback_end(&vmo, pages(0, 2)).unwrap();
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(0, 1)]);
}

#[test]
fn a_request_resolves_as_its_last_missing_page_arrives() {
    let world = World::new();
    let vmo = world.vmo(4);
    let mut waiter = Task::pending(vmo.fault_run(PageIndex(0), PageCount(4), Access::Read));
    assert_eq!(world.packets(), [read_packet(0, 4)]);
    for page in [2, 0, 3] {
        world.supply(&vmo, page, 1).unwrap();
        assert_eq!(waiter.wakes(), 0, "page {page} is not the last");
        assert_eq!(waiter.poll(), None, "not even when it looks");
    }
    world.supply(&vmo, 1, 1).unwrap();
    assert_eq!(waiter.woken_with(), Ok(()));
    assert_eq!(world.packets(), []);
}

#[test]
fn a_page_supplied_twice_counts_once() {
    let world = World::new();
    let vmo = world.vmo(2);
    let waiter = Task::pending(vmo.fault_run(PageIndex(0), PageCount(2), Access::Read));
    world.supply(&vmo, 0, 1).unwrap();
    world.supply(&vmo, 0, 1).unwrap();
    assert_eq!(waiter.wakes(), 0);
    world.supply(&vmo, 1, 1).unwrap();
    assert_eq!(waiter.woken_with(), Ok(()));
}

#[test]
fn a_supply_wider_than_the_request_resolves_it() {
    let world = World::new();
    let vmo = world.vmo(8);
    let waiter = Task::pending(vmo.fault_run(PageIndex(3), PageCount(2), Access::Read));
    world.supply(&vmo, 0, 8).unwrap();
    assert_eq!(waiter.woken_with(), Ok(()));
    assert_eq!(world.resident(&vmo, 8), (0..8).collect::<Vec<_>>());
}

#[test]
fn one_supply_resolves_several_requests() {
    let world = World::new();
    let vmo = world.vmo(8);
    let waiters: Vec<_> =
        [6, 0, 3, 4].into_iter().map(|page| Task::pending(vmo.fault(PageIndex(page), Access::Read))).collect();
    world.supply(&vmo, 0, 8).unwrap();
    for waiter in waiters {
        assert_eq!(waiter.woken_with(), Ok(()));
    }
    assert_eq!(vmo.counts().in_flight, 0);
}

#[test]
fn a_supply_elsewhere_wakes_nobody() {
    let world = World::new();
    let vmo = world.vmo(8);
    let other = world.vmo(8);
    let mut waiter = Task::pending(vmo.fault(PageIndex(3), Access::Read));
    world.supply(&vmo, 0, 3).unwrap();
    world.supply(&vmo, 4, 4).unwrap();
    world.supply(&other, 3, 1).unwrap();
    assert_eq!(waiter.wakes(), 0);
    assert_eq!(waiter.poll(), None);
}

#[test]
fn an_answer_before_the_packet_was_taken_is_an_answer() {
    let world = World::new();
    let vmo = world.vmo(2);
    let waiter = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    world.supply(&vmo, 0, 1).unwrap();
    assert_eq!(waiter.woken_with(), Ok(()));
    let late = world.packets();
    assert!(late.is_empty() || late == [read_packet(0, 1)], "asked or not, and nothing else");
    // Answering it again is harmless.
    world.supply(&vmo, 0, 1).unwrap();
    assert_eq!(world.platform.frames(), PageCount(1));
}

#[test]
fn a_frame_that_is_not_supplied_is_freed() {
    let world = World::new();
    drop(world.frames(0, 5));
    assert_eq!(world.platform.frames(), PageCount(0));
}

#[test]
fn new_content_comes_in_after_an_eviction() {
    let world = World::new();
    let vmo = world.vmo(1);
    world.supply(&vmo, 0, 1).unwrap();
    world.evict_now(&vmo, 0);
    world.pager.supply_frames(&vmo, pages(0, 1), world.frames(77, 1)).unwrap();
    assert_eq!(world.contents(&vmo, 0), pattern(77));
    assert_eq!(world.platform.frames(), PageCount(1));
}

#[test]
fn a_supply_to_a_page_on_its_way_out_leaves_one_frame() {
    let world = World::new();
    let vmo = world.vmo(1);
    world.supply(&vmo, 0, 1).unwrap();
    let guard = world.platform.pin();
    assert_eq!(vmo.evict(PageCount(1), upager::Evict::Any), PageCount(1));
    world.supply(&vmo, 0, 1).unwrap();
    assert_eq!(vmo.counts().resident, PageCount(1));
    assert_eq!(world.contents(&vmo, 0), pattern(0));
    drop(guard);
    world.frames_become(1);
    assert_eq!(world.contents(&vmo, 0), pattern(0));
    assert_eq!(vmo.counts().requests, 0);
}

#[test]
fn after_the_checks_the_pages_before_the_error_are_supplied() {
    let world = World::new();
    let vmo = world.vmo(3);
    let elsewhere = upager::HeapPlatform::new();
    let waiter = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    let mut other = Task::pending(vmo.fault(PageIndex(1), Access::Read));
    let frames = [world.frame(), OwnedFrame::new(&elsewhere).unwrap()];
    assert_eq!(world.pager.supply_frames(&vmo, pages(0, 2), frames), Err(Status::InvalidArgs));
    assert_eq!(waiter.woken_with(), Ok(()), "its page is there");
    assert_eq!((other.wakes(), other.poll()), (0, None), "its page is not");
    world.supply(&vmo, 1, 1).unwrap();
    assert_eq!(other.poll(), Some(Ok(())));
}

#[test]
fn a_write_that_was_woken_by_supply_lands_in_the_supplied_frame() {
    let world = World::new();
    let vmo = world.vmo(1);
    let writer = Task::pending(vmo.write(at(0, 0), &[7]));
    let frames = world.frames(0, 1);
    let number = frames[0].frame();
    world.pager.supply_frames(&vmo, pages(0, 1), frames).unwrap();
    writer.woken_with().unwrap();
    assert_eq!(vmo.lookup(&world.platform.pin(), PageIndex(0)), Some(number));
    assert_eq!(world.contents(&vmo, 0)[0], 7);
    assert_eq!(now(vmo.fault(PageIndex(0), Access::Write)), Ok(()));
}

/// A leaf that nobody sees yet is filled from an iterator of the service's.
#[test]
fn frames_of_a_service_that_panics_while_it_gives_them_are_freed() {
    let world = World::new();
    let vmo = world.vmo(512);
    let frames = (0..512).map(|page| if page < 3 { world.frame() } else { resume_unwind(Box::new(page)) });
    let supplied = catch_unwind(AssertUnwindSafe(|| world.pager.supply_frames(&vmo, pages(0, 512), frames)));
    assert!(supplied.is_err());
    assert_eq!((world.platform.frames(), vmo.counts().resident), (PageCount(0), PageCount(0)));
    world.supply(&vmo, 0, 512).unwrap();
    assert_eq!(world.contents(&vmo, 511), pattern(511));
}
