//! Hints on ranges (`zx_vmo_op_range`): commit, prefetch, always needed, not needed; and eviction over
//! all VMOs of a pager, which they steer.

use upager::{Access, ByteRange, Evict, HeapPlatform, PAGE_SIZE, PageCount, PageIndex, Status, Vmo, VmoOp, VmoOptions};
use upager_tests::{Task, World, complete_packet, dirty_ranges, now, pages, pattern, read_packet};

const ALL: PageCount = PageCount(u64::MAX);

/// Supplies pages of zeros: quicker than a pattern, where there are many.
fn supply_zeros(world: &World, vmo: &Vmo<HeapPlatform>, first: u64, count: u64) {
    let frames: Vec<_> = (0..count).map(|_| world.frame()).collect();
    world.pager.supply_frames(vmo, pages(first, count), frames).unwrap();
}

/// Pages 1 and 4 of six are there: three runs are not.
fn three_runs(world: &World) -> Vmo<HeapPlatform> {
    let vmo = world.vmo(6);
    world.supply(&vmo, 1, 1).unwrap();
    world.supply(&vmo, 4, 1).unwrap();
    vmo
}

#[test]
fn commit_asks_for_every_run_before_it_waits() {
    let world = World::new();
    let vmo = three_runs(&world);
    let commit = Task::pending(vmo.commit(pages(0, 6)));
    assert_eq!(world.packets(), [read_packet(0, 1), read_packet(2, 2), read_packet(5, 1)]);
    assert_eq!(vmo.counts().requests, 3);
    drop(commit);
}

#[test]
fn commit_is_done_when_the_last_page_has_come_in_whatever_order() {
    let world = World::new();
    let vmo = three_runs(&world);
    let mut commit = Task::pending(vmo.commit(pages(0, 6)));
    world.supply(&vmo, 5, 1).unwrap();
    world.supply(&vmo, 3, 1).unwrap();
    assert_eq!(commit.wakes(), 0, "only the run in front wakes");
    world.supply(&vmo, 0, 1).unwrap();
    assert_eq!((commit.wakes(), commit.poll()), (1, None), "page 2 has not come");
    world.supply(&vmo, 2, 1).unwrap();
    assert_eq!((commit.wakes(), commit.poll()), (2, Some(Ok(()))));
    assert_eq!(vmo.counts().requests, 3, "nothing was asked for twice");
    assert_eq!((vmo.counts().resident, vmo.counts().dirty), (PageCount(6), PageCount(0)));
}

#[test]
fn commit_of_what_is_there_is_done_at_once() {
    let world = World::new();
    let vmo = world.vmo(3);
    world.supply(&vmo, 0, 3).unwrap();
    assert_eq!(now(vmo.commit(pages(0, 3))), Ok(()));
    assert_eq!((world.packets(), vmo.counts().requests), (vec![], 0));
}

#[test]
fn commit_joins_what_is_in_flight() {
    let world = World::new();
    let vmo = world.vmo(6);
    let first = Task::pending(vmo.fault_run(PageIndex(1), PageCount(3), Access::Read));
    let mut commit = Task::pending(vmo.commit(pages(0, 6)));
    assert_eq!((vmo.counts().requests, vmo.counts().joins), (3, 1), "0, and 4 to 5, and one join");
    world.supply(&vmo, 0, 6).unwrap();
    assert_eq!(first.woken_with(), Ok(()));
    assert_eq!(commit.poll(), Some(Ok(())));
}

#[test]
fn commit_rounds_out_to_pages() {
    let world = World::new();
    let vmo = world.vmo(4);
    let commit = Task::pending(vmo.commit(ByteRange::new(PAGE_SIZE - 1, 2)));
    assert_eq!(world.packets(), [read_packet(0, 2)]);
    drop(commit);
}

#[test]
fn an_empty_range_does_nothing() {
    let world = World::new();
    let vmo = world.vmo(2);
    world.supply(&vmo, 0, 1).unwrap();
    for offset in [0, 100, 2 * PAGE_SIZE] {
        let range = ByteRange::new(offset, 0);
        for op in [VmoOp::Commit, VmoOp::AlwaysNeed, VmoOp::Prefetch, VmoOp::DontNeed] {
            assert_eq!(now(vmo.op_range(op, range)), Ok(()), "{op:?} at {offset}");
        }
    }
    assert_eq!(world.packets(), []);
    assert_eq!(vmo.evict(PageCount(1), Evict::Unused), PageCount(1), "not always needed");
}

#[test]
fn commit_fails_with_the_first_failure_and_leaves_the_rest() {
    let world = World::new();
    let vmo = three_runs(&world);
    let mut commit = Task::pending(vmo.commit(pages(0, 6)));
    world.pager.fail_range(&vmo, pages(5, 1), Status::NoSpace).unwrap();
    assert_eq!(commit.wakes(), 0);
    world.pager.fail_range(&vmo, pages(3, 1), Status::Io).unwrap();
    world.supply(&vmo, 0, 1).unwrap();
    assert_eq!(commit.wakes(), 1);
    assert_eq!(commit.poll(), Some(Err(Status::Io)), "the first in the order of the range");
    assert_eq!(vmo.counts().in_flight, 0);
    assert_eq!(commit.poll(), Some(Ok(())), "it is over: another poll asks for nothing");
    assert_eq!(vmo.counts().requests, 3);
}

#[test]
fn a_failure_leaves_what_is_still_in_flight() {
    let world = World::new();
    let vmo = three_runs(&world);
    let commit = Task::pending(vmo.commit(pages(0, 6)));
    let other = Task::pending(vmo.fault(PageIndex(5), Access::Read));
    assert_eq!(vmo.counts().in_flight, 3);
    world.pager.fail_range(&vmo, pages(0, 1), Status::Io).unwrap();
    assert_eq!(commit.woken_with(), Err(Status::Io));
    assert_eq!(vmo.counts().in_flight, 1, "only the one that another waits for");
    assert_eq!(world.packets(), [read_packet(5, 1)]);
    world.supply(&vmo, 5, 1).unwrap();
    assert_eq!(other.woken_with(), Ok(()));
}

#[test]
fn a_dropped_commit_leaves_all_its_requests() {
    let world = World::new();
    let vmo = three_runs(&world);
    drop(Task::pending(vmo.commit(pages(0, 6))));
    assert_eq!((world.packets(), vmo.counts().in_flight), (vec![], 0));
}

#[test]
fn commit_needs_no_more_than_that_a_page_came() {
    let world = World::new();
    let vmo = world.vmo(2);
    let commit = Task::pending(vmo.commit(pages(0, 2)));
    world.supply(&vmo, 0, 2).unwrap();
    world.evict_now(&vmo, 0);
    assert_eq!(commit.woken_with(), Ok(()));
    assert_eq!(vmo.counts().requests, 1);
}

#[test]
fn more_runs_than_may_be_in_flight_at_once_come_in_turn() {
    let world = World::new();
    let count = 3 * 2048;
    let vmo = world.vmo(2 * count);
    for page in 0..count {
        supply_zeros(&world, &vmo, 2 * page, 1);
    }
    let mut commit = Task::pending(vmo.commit(pages(0, 2 * count)));
    assert_eq!(vmo.counts().in_flight, 2048);
    for round in 1..=3 {
        assert_eq!(world.packets().len(), 2048, "round {round}");
        for page in (round - 1) * 2048..round * 2048 {
            supply_zeros(&world, &vmo, 2 * page + 1, 1);
        }
        let ready = commit.poll();
        assert_eq!(ready, (round == 3).then_some(Ok(())), "round {round}");
    }
    assert_eq!(vmo.counts().requests, count);
}

#[test]
fn runs_that_there_is_no_room_for_are_asked_for_later() {
    let world = World::new();
    let vmo = world.vmo(5);
    world.supply(&vmo, 1, 1).unwrap();
    world.supply(&vmo, 3, 1).unwrap();
    // All but one of the VMO's places for waiters are taken.
    let mut waiters = Vec::new();
    loop {
        let mut task = Task::new(vmo.fault(PageIndex(0), Access::Read));
        if task.poll().is_some() {
            break;
        }
        waiters.push(task);
    }
    waiters.pop();
    // The one that left had joined page 0's request, and only there can its place be taken. So page 0 is
    // joined, and the rest has no room yet.
    let mut commit = Task::pending(vmo.commit(pages(0, 5)));
    assert_eq!(world.packets(), [read_packet(0, 1)]);
    world.supply(&vmo, 0, 1).unwrap();
    assert_eq!((commit.wakes(), commit.poll()), (1, None));
    // The request for page 0 keeps its many places until the port hands out another.
    assert_eq!(world.packets(), [read_packet(2, 1)]);
    drop(waiters);
    world.supply(&vmo, 2, 1).unwrap();
    assert_eq!((commit.wakes(), commit.poll()), (2, None));
    assert_eq!(world.packets(), [read_packet(4, 1)]);
    world.supply(&vmo, 4, 1).unwrap();
    assert_eq!((commit.wakes(), commit.poll()), (3, Some(Ok(()))));
}

#[test]
fn after_detach_commit_fails_where_a_page_is_absent() {
    let world = World::new();
    let vmo = world.vmo(3);
    world.make_dirty(&vmo, 0, 1, 1);
    world.supply(&vmo, 1, 1).unwrap();
    let commit = Task::pending(vmo.commit(pages(0, 3)));
    world.pager.detach_vmo(&vmo).unwrap();
    assert_eq!(commit.woken_with(), Err(Status::BadState));
    assert_eq!(world.packets(), [complete_packet()]);
    assert_eq!(now(vmo.commit(pages(0, 1))), Ok(()), "the dirty page is there");
    for range in [pages(0, 2), pages(1, 1), pages(2, 1)] {
        assert_eq!(now(vmo.commit(range)), Err(Status::BadState));
        assert_eq!(now(vmo.always_need(range)), Err(Status::BadState));
        assert_eq!(now(vmo.prefetch(range)), Ok(()));
        assert_eq!(vmo.dont_need(range), Ok(()));
    }
}

#[test]
fn after_the_pager_closed_commit_fails_where_a_page_is_absent() {
    let World { platform, pager, port } = World::new();
    let world = World { platform: platform.clone(), pager, port };
    let vmo = world.vmo(2);
    world.supply(&vmo, 0, 1).unwrap();
    let commit = Task::pending(vmo.commit(pages(0, 2)));
    drop(world.pager);
    assert_eq!(commit.woken_with(), Err(Status::BadState));
    assert_eq!(now(vmo.commit(pages(0, 1))), Ok(()));
    assert_eq!(now(vmo.commit(pages(0, 2))), Err(Status::BadState));
}

#[test]
fn prefetch_does_not_fail_for_what_the_service_fails() {
    let world = World::new();
    let vmo = three_runs(&world);
    let mut prefetch = Task::pending(vmo.prefetch(pages(0, 6)));
    assert_eq!(world.packets(), [read_packet(0, 1), read_packet(2, 2), read_packet(5, 1)]);
    world.pager.fail_range(&vmo, pages(0, 3), Status::Io).unwrap();
    assert_eq!((prefetch.wakes(), prefetch.poll()), (1, None), "the last run may still come");
    world.supply(&vmo, 5, 1).unwrap();
    assert_eq!((prefetch.wakes(), prefetch.poll()), (2, Some(Ok(()))));
    assert_eq!(world.resident(&vmo, 6), [1, 4, 5]);
}

#[test]
fn prefetch_ends_with_a_detach() {
    let world = World::new();
    let vmo = three_runs(&world);
    let prefetch = Task::pending(vmo.prefetch(pages(0, 6)));
    world.pager.detach_vmo(&vmo).unwrap();
    assert_eq!(prefetch.woken_with(), Ok(()));
}

#[test]
fn always_needed_pages_are_brought_in_and_are_not_evicted_as_unused() {
    let world = World::new();
    let vmo = three_runs(&world);
    let mut hint = Task::pending(vmo.always_need(pages(0, 3)));
    assert_eq!(world.packets(), [read_packet(0, 1), read_packet(2, 1)]);
    world.supply(&vmo, 0, 4).unwrap();
    assert_eq!(hint.poll(), Some(Ok(())));
    for _ in 0..3 {
        vmo.evict(ALL, Evict::Unused);
    }
    world.frames_become(3);
    assert_eq!(world.resident(&vmo, 6), [0, 1, 2]);
}

#[test]
fn any_takes_always_needed_pages_last() {
    let world = World::new();
    let vmo = world.vmo(10);
    world.supply(&vmo, 0, 10).unwrap();
    now(vmo.always_need(pages(0, 3))).unwrap();
    now(vmo.always_need(pages(7, 1))).unwrap();
    for left in (4..10).rev() {
        assert_eq!(vmo.evict(PageCount(1), Evict::Any), PageCount(1));
        world.frames_become(left);
    }
    assert_eq!(world.resident(&vmo, 10), [0, 1, 2, 7]);
    assert_eq!(vmo.evict(PageCount(3), Evict::Any), PageCount(3));
    world.frames_become(1);
    assert_eq!(vmo.evict(ALL, Evict::Any), PageCount(1));
    world.frames_become(0);
    world.supply(&vmo, 0, 10).unwrap();
    assert_eq!(vmo.evict(ALL, Evict::Unused), PageCount(10), "the mark went with the pages");
}

#[test]
fn any_takes_unmarked_and_marked_pages_in_one_call() {
    let world = World::new();
    let vmo = world.vmo(4);
    world.supply(&vmo, 0, 4).unwrap();
    now(vmo.always_need(pages(0, 2))).unwrap();
    assert_eq!(vmo.evict(PageCount(3), Evict::Any), PageCount(3));
    world.frames_become(1);
    assert!(world.resident(&vmo, 4).iter().all(|page| *page < 2));
}

#[test]
fn dont_need_takes_always_needed_back() {
    let world = World::new();
    let vmo = world.vmo(3);
    world.supply(&vmo, 0, 3).unwrap();
    now(vmo.always_need(pages(0, 3))).unwrap();
    vmo.dont_need(pages(1, 1)).unwrap();
    assert_eq!(vmo.evict(ALL, Evict::Unused), PageCount(1));
    world.frames_become(2);
    assert_eq!(world.resident(&vmo, 3), [0, 2]);
}

#[test]
fn the_mark_outlives_writing_and_writing_back() {
    let world = World::new();
    let vmo = world.vmo(2);
    world.supply(&vmo, 0, 2).unwrap();
    now(vmo.always_need(pages(0, 1))).unwrap();
    for round in 0..3 {
        world.make_dirty(&vmo, 0, 2, round);
        assert_eq!(dirty_ranges(&world.pager, &vmo), [(0, 2)]);
        world.write_back(&vmo, 0, 2);
    }
    assert_eq!(vmo.evict(ALL, Evict::Unused), PageCount(1));
    world.frames_become(1);
    assert_eq!(world.resident(&vmo, 2), [0]);
}

#[test]
fn a_dirty_page_can_be_hinted_at() {
    let world = World::new();
    let vmo = world.vmo(1);
    world.make_dirty(&vmo, 0, 1, 1);
    now(vmo.always_need(pages(0, 1))).unwrap();
    world.write_back(&vmo, 0, 1);
    assert_eq!(vmo.evict(ALL, Evict::Unused), PageCount(0));
    world.make_dirty(&vmo, 0, 1, 2);
    vmo.dont_need(pages(0, 1)).unwrap();
    assert_eq!(vmo.evict(ALL, Evict::Any), PageCount(0), "it is dirty");
    world.write_back(&vmo, 0, 1);
    assert_eq!(vmo.evict(ALL, Evict::Unused), PageCount(1));
}

#[test]
fn a_rescued_page_is_still_always_needed() {
    let world = World::new();
    let vmo = world.vmo(1);
    world.supply(&vmo, 0, 1).unwrap();
    now(vmo.always_need(pages(0, 1))).unwrap();
    let guard = upager::Platform::pin(&*world.platform);
    assert_eq!(vmo.evict(ALL, Evict::Any), PageCount(1));
    assert_eq!(world.contents(&vmo, 0), pattern(0));
    assert_eq!(vmo.evict(ALL, Evict::Unused), PageCount(0));
    assert_eq!(vmo.evict(ALL, Evict::Any), PageCount(1));
    vmo.dont_need(pages(0, 1)).unwrap(); // in the middle of its eviction
    assert_eq!(world.contents(&vmo, 0), pattern(0));
    assert_eq!(vmo.evict(ALL, Evict::Unused), PageCount(1), "the mark did not come back");
    drop(guard);
    world.frames_become(0);
}

#[test]
fn always_need_asks_again_for_a_page_that_went_before_it_was_marked() {
    let world = World::new();
    let vmo = world.vmo(3);
    let mut hint = Task::pending(vmo.always_need(pages(0, 3)));
    for _ in 0..3 {
        assert_eq!(world.packets(), [read_packet(0, 3)]);
        world.supply(&vmo, 0, 3).unwrap();
        world.evict_now(&vmo, 0);
        assert_eq!(hint.poll(), None);
    }
    // Now the middle one is there, and the others become two requests.
    assert_eq!(world.packets(), [read_packet(0, 3)]);
    world.supply(&vmo, 0, 3).unwrap();
    world.evict_now(&vmo, 0);
    world.supply(&vmo, 1, 1).unwrap();
    assert_eq!(hint.poll(), None);
    assert_eq!(world.packets(), [read_packet(0, 1)]);
    world.supply(&vmo, 0, 1).unwrap();
    assert_eq!(hint.poll(), None);
    assert_eq!(world.packets(), [read_packet(2, 1)]);
    world.supply(&vmo, 2, 1).unwrap();
    assert_eq!(hint.poll(), Some(Ok(())));
    assert_eq!(vmo.evict(ALL, Evict::Unused), PageCount(0));
    assert_eq!(world.resident(&vmo, 3), [0, 1, 2]);
}

#[test]
fn always_need_fails_as_commit_does_and_keeps_what_it_marked() {
    let world = World::new();
    let vmo = world.vmo(2);
    world.supply(&vmo, 0, 1).unwrap();
    let hint = Task::pending(vmo.always_need(pages(0, 2)));
    world.pager.fail_range(&vmo, pages(1, 1), Status::IoDataIntegrity).unwrap();
    assert_eq!(hint.woken_with(), Err(Status::IoDataIntegrity));
    assert_eq!(vmo.evict(ALL, Evict::Unused), PageCount(0));
}

#[test]
fn detach_drops_always_needed_pages_that_are_clean() {
    let world = World::new();
    let vmo = world.vmo(2);
    world.make_dirty(&vmo, 0, 1, 1);
    world.supply(&vmo, 1, 1).unwrap();
    now(vmo.always_need(pages(0, 2))).unwrap();
    assert_eq!(world.pager.detach_vmo(&vmo).unwrap().dropped_pages, PageCount(1));
    world.frames_become(1);
    world.write_back(&vmo, 0, 1);
    world.frames_become(0);
}

#[test]
fn pages_not_needed_go_first() {
    let world = World::new();
    let vmo = world.vmo(100);
    world.supply(&vmo, 0, 100).unwrap();
    vmo.dont_need(pages(10, 5)).unwrap();
    vmo.dont_need(ByteRange::new(60 * PAGE_SIZE + 1, PAGE_SIZE)).unwrap(); // pages 60 and 61
    for which in [Evict::Unused, Evict::Any] {
        assert_eq!(vmo.evict(PageCount(1), which), PageCount(1));
    }
    let left = |world: &World| world.resident(&vmo, 100);
    assert_eq!(left(&world).len(), 98);
    assert!(!left(&world).contains(&60) && !left(&world).contains(&61));
    assert_eq!(vmo.evict(PageCount(5), Evict::Unused), PageCount(5));
    assert!(left(&world).iter().all(|page| !(10..15).contains(page)), "then those hinted at before");
}

#[test]
fn a_page_not_needed_that_is_used_again_has_its_second_chance() {
    let world = World::new();
    let vmo = world.vmo(3);
    world.supply(&vmo, 0, 3).unwrap();
    vmo.dont_need(pages(0, 2)).unwrap();
    world.contents(&vmo, 0);
    assert_eq!(vmo.evict(PageCount(1), Evict::Unused), PageCount(1));
    assert_eq!(world.resident(&vmo, 3), [0, 2]);
}

#[test]
fn dont_need_of_no_page_leaves_the_next_one_to_evict_as_it_is() {
    let world = World::new();
    let vmo = world.vmo(2);
    world.supply(&vmo, 0, 2).unwrap();
    vmo.dont_need(pages(1, 0)).unwrap();
    assert_eq!(vmo.evict(PageCount(1), Evict::Unused), PageCount(1));
    assert_eq!(world.resident(&vmo, 2), [1]);
}

#[test]
fn dont_need_of_what_is_not_there_costs_what_is_there() {
    let world = World::new();
    let vmo = world.vmo((1 << 40) / PAGE_SIZE);
    world.supply(&vmo, 12_345_678, 1).unwrap();
    for _ in 0..100 {
        assert_eq!(vmo.dont_need(ByteRange::new(0, vmo.size())), Ok(()));
    }
    assert_eq!((world.packets(), vmo.counts().resident), (vec![], PageCount(1)));
}

#[test]
fn decommit_is_not_supported_whatever_the_range() {
    let world = World::new();
    let vmo = world.vmo(1);
    world.supply(&vmo, 0, 1).unwrap();
    for range in [pages(0, 1), pages(5, 1), ByteRange::new(1, u64::MAX)] {
        assert_eq!(now(vmo.op_range(VmoOp::Decommit, range)), Err(Status::NotSupported));
    }
    assert_eq!(world.resident(&vmo, 1), [0]);
}

#[test]
fn raw_operations_have_zircons_numbers() {
    let known = [
        (1, VmoOp::Commit),
        (2, VmoOp::Decommit),
        (10, VmoOp::Zero),
        (12, VmoOp::DontNeed),
        (13, VmoOp::AlwaysNeed),
        (14, VmoOp::Prefetch),
    ];
    for (raw, op) in known {
        assert_eq!(VmoOp::from_raw(raw), Ok(op));
    }
    for raw in [0, 3, 4, 6, 9, 11, 15, 1 << 31, u32::MAX] {
        assert_eq!(VmoOp::from_raw(raw), Err(Status::InvalidArgs), "{raw}");
    }
}

#[test]
fn a_range_outside_is_refused_and_changes_nothing() {
    let world = World::new();
    let vmo = world.vmo(4);
    world.supply(&vmo, 0, 2).unwrap();
    let outside = [pages(0, 5), pages(4, 1), ByteRange::new(4 * PAGE_SIZE, 1), ByteRange::new(1, u64::MAX)];
    for range in outside {
        for op in [VmoOp::Commit, VmoOp::Zero, VmoOp::Prefetch, VmoOp::AlwaysNeed, VmoOp::DontNeed] {
            assert_eq!(now(vmo.op_range(op, range)), Err(Status::OutOfRange), "{op:?} {range:?}");
        }
    }
    assert_eq!((world.packets(), vmo.counts().requests), (vec![], 0));
    assert_eq!(vmo.evict(ALL, Evict::Unused), PageCount(2), "none was marked");
}

// Zeros, sizes that change, and trapped dirtying.

#[test]
fn zeros_need_nothing_and_every_hint_leaves_them_as_they_are() {
    let world = World::new();
    let vmo = world.vmo(6);
    now(vmo.op_range(VmoOp::Zero, pages(1, 4))).unwrap();
    let dirty = dirty_ranges(&world.pager, &vmo);
    for op in [VmoOp::Commit, VmoOp::Prefetch, VmoOp::AlwaysNeed, VmoOp::DontNeed] {
        assert_eq!(now(vmo.op_range(op, pages(1, 4))), Ok(()), "{op:?}");
    }
    world.pager.writeback_begin(&vmo, pages(2, 1), upager::Writeback::All).unwrap();
    assert_eq!(now(vmo.always_need(pages(1, 4))), Ok(()), "awaiting clean or not");
    assert_eq!((world.packets(), vmo.counts().requests), (vec![], 0));
    assert_eq!((vmo.counts().resident, vmo.counts().zero), (PageCount(0), PageCount(4)), "none is stored");
    assert_eq!(dirty_ranges(&world.pager, &vmo), dirty);
    // Around them there is something to ask for.
    let commit = Task::pending(vmo.commit(pages(0, 6)));
    assert_eq!(world.packets(), [read_packet(0, 1), read_packet(5, 1)]);
    drop(commit);
}

#[test]
fn always_need_of_zeros_says_nothing_of_what_is_stored_there_later() {
    let world = World::new();
    let vmo = world.vmo(2);
    now(vmo.zero(pages(0, 2))).unwrap();
    now(vmo.always_need(pages(0, 2))).unwrap();
    world.make_dirty(&vmo, 0, 1, 7);
    assert_eq!(vmo.evict(ALL, Evict::Any), PageCount(0), "zeros and dirty pages are not evicted");
    world.write_back(&vmo, 0, 2);
    assert_eq!(vmo.counts().zero, PageCount(0), "what is written back as zeros is absent, hint or not");
    assert_eq!(vmo.evict(ALL, Evict::Unused), PageCount(1), "what is stored in their place has no mark");
}

#[test]
fn zeros_end_the_mark_of_the_page_that_they_replace() {
    let world = World::new();
    let vmo = world.vmo(1);
    world.supply(&vmo, 0, 1).unwrap();
    now(vmo.always_need(pages(0, 1))).unwrap();
    now(vmo.zero(pages(0, 1))).unwrap();
    world.make_dirty(&vmo, 0, 1, 7);
    world.write_back(&vmo, 0, 1);
    assert_eq!(vmo.evict(ALL, Evict::Unused), PageCount(1));
}

#[test]
fn a_page_that_becomes_zeros_has_come() {
    let world = World::new();
    let vmo = world.vmo(2);
    let mut commit = Task::pending(vmo.commit(pages(0, 2)));
    let mut always = Task::pending(vmo.always_need(pages(0, 2)));
    now(vmo.zero(pages(0, 2))).unwrap();
    assert_eq!((commit.poll(), always.poll()), (Some(Ok(())), Some(Ok(()))));
    assert_eq!(vmo.counts().zero, PageCount(2));
}

#[test]
fn a_hint_for_a_tebibyte_of_zeros_costs_what_they_cost() {
    let world = World::new();
    let size = (1 << 40) / PAGE_SIZE;
    let vmo = world.vmo_with(VmoOptions::RESIZABLE, 1);
    vmo.set_size(size * PAGE_SIZE).unwrap();
    world.supply(&vmo, 0, 1).unwrap();
    // Not a tebibyte: repeat it, or wait for ever.
    for _ in 0..100 {
        now(vmo.commit(pages(0, size))).unwrap();
        now(vmo.always_need(pages(0, size))).unwrap();
        vmo.dont_need(pages(0, size)).unwrap();
    }
    assert_eq!(vmo.counts().zero, PageCount(size - 1));
}

#[test]
fn a_shrink_fails_the_hints_that_wait_beyond_the_end() {
    let world = World::new();
    let vmo = world.vmo_with(VmoOptions::RESIZABLE, 4);
    let commit = Task::pending(vmo.commit(pages(2, 2)));
    let always = Task::pending(vmo.always_need(pages(2, 2)));
    let prefetch = Task::pending(vmo.prefetch(pages(2, 2)));
    vmo.set_size(PAGE_SIZE).unwrap();
    assert_eq!(commit.woken_with(), Err(Status::OutOfRange));
    assert_eq!(always.woken_with(), Err(Status::OutOfRange));
    assert_eq!(prefetch.woken_with(), Ok(()), "as far as it goes");
    assert_eq!(vmo.counts().in_flight, 0);
    for op in [VmoOp::Commit, VmoOp::Prefetch, VmoOp::AlwaysNeed, VmoOp::DontNeed] {
        assert_eq!(now(vmo.op_range(op, pages(2, 2))), Err(Status::OutOfRange), "{op:?}");
    }
}

#[test]
fn a_hint_whose_request_is_cut_by_a_shrink_fails_when_the_rest_has_come() {
    let world = World::new();
    let vmo = world.vmo_with(VmoOptions::RESIZABLE, 4);
    let commit = Task::pending(vmo.commit(pages(1, 3)));
    let always = Task::pending(vmo.always_need(pages(1, 3)));
    let prefetch = Task::pending(vmo.prefetch(pages(1, 3)));
    vmo.set_size(2 * PAGE_SIZE).unwrap();
    assert_eq!((commit.wakes(), vmo.counts().in_flight), (0, 1), "page 1 is still to come");
    world.supply(&vmo, 1, 1).unwrap();
    assert_eq!(commit.woken_with(), Err(Status::OutOfRange));
    assert_eq!(always.woken_with(), Err(Status::OutOfRange));
    assert_eq!(prefetch.woken_with(), Ok(()));
    assert_eq!(world.resident(&vmo, 4), [1]);
}

#[test]
fn a_hint_whose_rest_has_not_been_asked_for_fails_when_that_is_gone() {
    let world = World::new();
    let vmo = world.vmo_with(VmoOptions::RESIZABLE, 8192);
    for page in (1..8192).step_by(2) {
        supply_zeros(&world, &vmo, page, 1);
    }
    let mut commit = Task::pending(vmo.commit(pages(0, 8192)));
    assert_eq!(vmo.counts().in_flight, 2048, "each other page, as far as there is room");
    vmo.set_size(4096 * PAGE_SIZE).unwrap();
    world.supply(&vmo, 0, 1).unwrap();
    assert_eq!(commit.poll(), Some(Err(Status::OutOfRange)));
    assert_eq!(vmo.counts().in_flight, 0);
}

#[test]
fn after_a_shrink_and_a_growth_there_are_zeros_and_the_hint_is_done() {
    let world = World::new();
    let vmo = world.vmo_with(VmoOptions::RESIZABLE, 4);
    let commit = Task::pending(vmo.commit(pages(0, 4)));
    let always = Task::pending(vmo.always_need(pages(0, 4)));
    vmo.set_size(2 * PAGE_SIZE).unwrap();
    vmo.set_size(4 * PAGE_SIZE).unwrap();
    world.supply(&vmo, 0, 2).unwrap();
    assert_eq!(commit.woken_with(), Ok(()));
    assert_eq!(always.woken_with(), Ok(()));
    assert_eq!((vmo.counts().resident, vmo.counts().zero), (PageCount(2), PageCount(2)));
    assert_eq!(vmo.evict(ALL, Evict::Unused), PageCount(0), "what is stored is always needed");
}

#[test]
fn a_shrink_drops_always_needed_pages_and_the_hand_stays_inside() {
    let world = World::new();
    let vmo = world.vmo_with(VmoOptions::RESIZABLE, 8);
    world.supply(&vmo, 0, 8).unwrap();
    now(vmo.always_need(pages(4, 4))).unwrap();
    vmo.dont_need(pages(6, 1)).unwrap(); // the hand is there
    vmo.set_size(2 * PAGE_SIZE).unwrap();
    assert_eq!(world.pager.evict(PageCount(1), Evict::Any), PageCount(1));
    assert_eq!(vmo.evict(ALL, Evict::Any), PageCount(1));
    world.frames_become(0);
}

#[test]
fn where_dirtying_is_trapped_hints_only_read() {
    let world = World::new();
    let vmo = world.vmo_with(VmoOptions::TRAP_DIRTY, 3);
    let commit = Task::pending(vmo.commit(pages(0, 2)));
    let always = Task::pending(vmo.always_need(pages(2, 1)));
    assert_eq!(world.packets(), [read_packet(0, 3)]);
    world.supply(&vmo, 0, 3).unwrap();
    assert_eq!((commit.woken_with(), always.woken_with()), (Ok(()), Ok(())));
    assert_eq!((world.packets(), vmo.counts().dirty), (vec![], PageCount(0)));
    // While a writer waits for leave, and after.
    let writer = Task::pending(vmo.fault(PageIndex(2), Access::Write));
    assert_eq!((now(vmo.commit(pages(2, 1))), now(vmo.always_need(pages(2, 1)))), (Ok(()), Ok(())));
    world.let_dirty(&vmo, 2, 1).unwrap();
    assert_eq!(writer.woken_with(), Ok(()));
    world.write_back(&vmo, 2, 1);
    assert_eq!(vmo.evict(ALL, Evict::Unused), PageCount(2), "leave has not lost the mark");
    assert_eq!(world.resident(&vmo, 3), [2]);
}

#[test]
fn a_page_under_a_dirty_request_goes_by_its_mark_too() {
    let world = World::new();
    let vmo = world.trapping(2);
    now(vmo.always_need(pages(0, 1))).unwrap();
    let first = Task::pending(vmo.fault(PageIndex(0), Access::Write));
    let second = Task::pending(vmo.fault(PageIndex(1), Access::Write));
    assert_eq!(vmo.evict(ALL, Evict::Unused), PageCount(0), "somebody waits to write them");
    assert_eq!(vmo.evict(PageCount(1), Evict::Any), PageCount(1));
    assert_eq!(world.resident(&vmo, 2), [0], "always needed goes last");
    assert_eq!(vmo.evict(PageCount(1), Evict::Any), PageCount(1));
    drop((first, second));
}

// Eviction over the VMOs of a pager.

/// Clean pages of each VMO.
fn residents(vmos: &[Vmo<HeapPlatform>]) -> Vec<u64> {
    vmos.iter().map(|vmo| vmo.counts().resident.0).collect()
}

fn full(world: &World, sizes: &[u64]) -> Vec<Vmo<HeapPlatform>> {
    let vmos: Vec<_> = sizes.iter().map(|size| world.vmo(*size)).collect();
    for (vmo, size) in vmos.iter().zip(sizes) {
        supply_zeros(world, vmo, 0, *size);
    }
    vmos
}

#[test]
fn eviction_over_a_pager_goes_round_its_vmos() {
    let world = World::new();
    let vmos = full(&world, &[9, 9, 9]);
    for which in [Evict::Any, Evict::Unused] {
        for _ in 0..6 {
            assert_eq!(world.pager.evict(PageCount(1), which), PageCount(1));
        }
    }
    assert_eq!(residents(&vmos), [5, 5, 5]);
    world.frames_become(15);
}

#[test]
fn a_large_eviction_takes_of_each_vmo_in_portions() {
    let world = World::new();
    let vmos = full(&world, &[1000, 1000, 50, 1000]);
    assert_eq!(world.pager.evict(PageCount(128 * 3 + 50), Evict::Unused), PageCount(434));
    assert_eq!(residents(&vmos), [872, 872, 0, 872]);
    assert_eq!(world.pager.evict(ALL, Evict::Unused), PageCount(872 * 3));
    assert_eq!(world.pager.evict(ALL, Evict::Any), PageCount(0));
    world.frames_become(0);
}

#[test]
fn no_page_in_use_goes_while_some_vmo_has_one_that_is_not() {
    let world = World::new();
    let vmos = full(&world, &[20, 20]);
    vmos[1].dont_need(pages(0, 20)).unwrap();
    vmos[0].dont_need(pages(0, 1)).unwrap();
    world.contents(&vmos[0], 0);
    assert_eq!(world.pager.evict(PageCount(20), Evict::Unused), PageCount(20));
    assert_eq!(residents(&vmos), [20, 0]);
}

#[test]
fn nor_in_the_later_rounds_of_a_large_eviction() {
    let world = World::new();
    let vmos = full(&world, &[20, 1000, 20]);
    vmos[1].dont_need(pages(0, 1000)).unwrap();
    assert_eq!(world.pager.evict(PageCount(900), Evict::Unused), PageCount(900));
    assert_eq!(residents(&vmos), [20, 100, 20]);
    assert_eq!(world.pager.evict(PageCount(110), Evict::Unused), PageCount(110));
    assert_eq!(residents(&vmos).iter().sum::<u64>(), 30);
}

#[test]
fn eviction_over_a_pager_begins_where_pages_are_not_needed() {
    let world = World::new();
    let vmos = full(&world, &[5, 5, 5]);
    for hinted in [2, 0, 1] {
        vmos[hinted].dont_need(pages(3, 1)).unwrap();
        assert_eq!(world.pager.evict(PageCount(1), Evict::Any), PageCount(1));
        assert_eq!(world.resident(&vmos[hinted], 5), [0, 1, 2, 4]);
    }
}

#[test]
fn always_needed_pages_go_last_of_all_the_pagers() {
    let world = World::new();
    let vmos = full(&world, &[300, 300]);
    now(vmos[0].always_need(pages(0, 300))).unwrap();
    assert_eq!(world.pager.evict(ALL, Evict::Unused), PageCount(300));
    assert_eq!(residents(&vmos), [300, 0]);
    supply_zeros(&world, &vmos[1], 0, 300);
    assert_eq!(world.pager.evict(PageCount(310), Evict::Any), PageCount(310));
    assert_eq!(residents(&vmos), [290, 0]);
    assert_eq!(world.pager.evict(ALL, Evict::Any), PageCount(290));
    world.frames_become(0);
}

#[test]
fn eviction_over_a_pager_leaves_what_must_stay() {
    let world = World::new();
    let stranger = upager::Pager::new(world.platform.clone());
    let vmos = full(&world, &[4, 4, 4]);
    world.make_dirty(&vmos[0], 0, 2, 1);
    world.make_dirty(&vmos[1], 0, 4, 1);
    world.pager.detach_vmo(&vmos[1]).unwrap();
    assert_eq!(stranger.evict(ALL, Evict::Any), PageCount(0), "not its VMOs");
    assert_eq!(world.pager.evict(PageCount(0), Evict::Any), PageCount(0));
    assert_eq!(world.pager.evict(ALL, Evict::Any), PageCount(6));
    assert_eq!(residents(&vmos), [2, 4, 0]);
    drop(vmos);
    assert_eq!(world.pager.evict(ALL, Evict::Any), PageCount(0));
    world.frames_become(0);
}

#[test]
fn threads_that_evict_hint_and_drop_vmos_at_once_leak_nothing() {
    let world = World::new();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|s| {
        let _stops = upager_tests::SetOnDrop(&stop);
        let evictors: Vec<_> = [Evict::Any, Evict::Unused]
            .into_iter()
            .map(|which| {
                let (world, stop) = (&world, &stop);
                s.spawn(move || {
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        assert!(world.pager.evict(PageCount(7), which).0 <= 7);
                    }
                })
            })
            .collect();
        for round in 0..200 {
            let vmo = world.vmo(40);
            supply_zeros(&world, &vmo, 0, 40);
            let _ = Task::new(vmo.always_need(pages(round % 20, 20))).poll();
            let _ = Task::new(vmo.write(upager_tests::at(round % 40, 0), &[1])).poll();
            vmo.dont_need(pages(0, 40)).unwrap();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        for evictor in evictors {
            evictor.join().unwrap();
        }
    });
    world.end();
}
