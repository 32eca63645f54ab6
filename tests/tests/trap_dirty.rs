//! Trapped dirtying: DIRTY requests, who waits for them, and how the service answers.

use std::sync::Arc;

use upager::{
    Access, ByteRange, Command, DirtyRange, Evict, HeapPlatform, MAX_VMO_SIZE, PAGE_SIZE, PageCount, PageIndex, Pager,
    PagerOp, Port, Status, Vmo, VmoOptions, Writeback,
};
use upager_tests::{Hooked, Task, World, at, complete_packet, dirty_packet, dirty_ranges, now, pages, read_packet};

/// A writer that waits, of one byte of the page.
fn writer<'a>(vmo: &'a Vmo<HeapPlatform>, page: u64, byte: &'a [u8]) -> Task<'a, Result<(), Status>> {
    Task::pending(vmo.write(at(page, 0), byte))
}

/// Has the page awaiting clean, in a VMO that traps.
fn await_clean(world: &World, vmo: &Vmo<HeapPlatform>, page: u64) {
    world.let_dirty(vmo, page, 1).unwrap();
    world.pager.writeback_begin(vmo, pages(page, 1), Writeback::All).unwrap();
}

// Writers ask.

#[test]
fn a_write_to_a_clean_page_raises_one_dirty_packet_and_waits() {
    let world = World::new();
    let vmo = world.trapping(2);
    let mut writer = writer(&vmo, 1, &[7]);
    assert_eq!(world.packets(), [dirty_packet(1, 1)]);
    assert_eq!(writer.poll(), None);
    assert_eq!(world.packets(), [], "asked once");
    assert_eq!(dirty_ranges(&world.pager, &vmo), []);
    let counts = vmo.counts();
    assert_eq!((counts.resident, counts.dirty, counts.in_flight), (PageCount(2), PageCount(0), 1));
    world.let_dirty(&vmo, 1, 1).unwrap();
    assert_eq!(writer.woken_with(), Ok(()));
    assert_eq!(world.contents(&vmo, 1)[0], 7);
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(1, 1)]);
    assert_eq!(vmo.counts().in_flight, 0);
}

#[test]
fn a_write_to_an_absent_page_asks_read_first_and_then_dirty() {
    let world = World::new();
    let vmo = world.vmo_with(VmoOptions::TRAP_DIRTY, 2);
    let mut writer = writer(&vmo, 0, &[7]);
    assert_eq!(world.packets(), [read_packet(0, 1)]);
    world.supply(&vmo, 0, 1).unwrap();
    assert_eq!((writer.wakes(), writer.poll()), (1, None));
    assert_eq!(world.packets(), [dirty_packet(0, 1)]);
    world.let_dirty(&vmo, 0, 1).unwrap();
    assert_eq!((writer.wakes(), writer.poll()), (2, Some(Ok(()))));
    assert_eq!(world.packets(), []);
}

#[test]
fn a_write_that_joins_a_read_asks_dirty_after_it() {
    let world = World::new();
    let vmo = world.vmo_with(VmoOptions::TRAP_DIRTY, 1);
    let reader = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    let mut writer = writer(&vmo, 0, &[7]);
    assert_eq!(world.packets(), [read_packet(0, 1)]);
    world.supply(&vmo, 0, 1).unwrap();
    assert_eq!(reader.woken_with(), Ok(()));
    assert_eq!(writer.poll(), None);
    assert_eq!(world.packets(), [dirty_packet(0, 1)]);
}

#[test]
fn a_write_to_a_dirty_page_asks_nobody() {
    let world = World::new();
    let vmo = world.trapping(1);
    world.let_dirty(&vmo, 0, 1).unwrap();
    now(vmo.write(at(0, 0), &[7])).unwrap();
    now(vmo.fault(PageIndex(0), Access::Write)).unwrap();
    assert_eq!(world.packets(), []);
}

#[test]
fn a_vmo_that_does_not_trap_raises_no_dirty() {
    let world = World::new();
    let vmo = world.vmo(2);
    world.supply(&vmo, 0, 1).unwrap();
    now(vmo.write(at(0, 0), &[7])).unwrap();
    let _writer = writer(&vmo, 1, &[7]);
    assert_eq!(world.packets(), [read_packet(1, 1)]);
}

#[test]
fn a_second_writer_joins_the_dirty_and_causes_no_packet() {
    let world = World::new();
    let vmo = world.trapping(1);
    let first = writer(&vmo, 0, &[7]);
    assert_eq!(world.packets(), [dirty_packet(0, 1)]);
    let second = Task::pending(vmo.write(at(0, 1), &[8]));
    let third = Task::pending(vmo.fault(PageIndex(0), Access::Write));
    assert_eq!(world.packets(), []);
    let counts = vmo.counts();
    assert_eq!((counts.joins, counts.in_flight), (2, 1));
    world.let_dirty(&vmo, 0, 1).unwrap();
    assert_eq!(first.woken_with(), Ok(()));
    assert_eq!(second.woken_with(), Ok(()));
    assert_eq!(third.woken_with(), Ok(()));
    assert_eq!(world.contents(&vmo, 0)[..2], [7, 8]);
}

#[test]
fn a_mapped_write_fault_asks_and_joins_like_a_write() {
    let world = World::new();
    let vmo = world.vmo_with(VmoOptions::TRAP_DIRTY, 4);
    let mut fault = Task::pending(vmo.fault(PageIndex(2), Access::Write));
    assert_eq!(world.packets(), [read_packet(2, 1)]);
    world.supply(&vmo, 0, 4).unwrap();
    assert_eq!(fault.poll(), None);
    assert_eq!(world.packets(), [dirty_packet(2, 1)]);
    let run = Task::pending(vmo.fault_run(PageIndex(0), PageCount(4), Access::Write));
    assert_eq!(world.packets(), [dirty_packet(0, 2)], "up to the page that is asked for already");
    world.let_dirty(&vmo, 0, 4).unwrap();
    assert_eq!(run.woken_with(), Ok(()));
    assert_eq!(fault.poll(), Some(Ok(())));
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(0, 4)]);
}

#[test]
fn reads_go_on_under_a_dirty_request() {
    let world = World::new();
    let vmo = world.trapping(1);
    let writer = writer(&vmo, 0, &[7]);
    let before = world.contents(&vmo, 0);
    assert_ne!(before[0], 7);
    now(vmo.fault(PageIndex(0), Access::Read)).unwrap();
    assert!(world.is_resident(&vmo, 0));
    assert_eq!(world.packets(), [dirty_packet(0, 1)]);
    world.let_dirty(&vmo, 0, 1).unwrap();
    assert_eq!(world.contents(&vmo, 0), before, "dirty, and not written yet");
    assert_eq!(writer.woken_with(), Ok(()));
    assert_eq!(world.contents(&vmo, 0)[0], 7);
}

#[test]
fn a_supply_under_a_dirty_request_is_kept_out_and_answers_nothing() {
    let world = World::new();
    let vmo = world.trapping(1);
    let mut writer = writer(&vmo, 0, &[7]);
    let before = world.contents(&vmo, 0);
    world.pager.supply_frames(&vmo, pages(0, 1), [world.frame()]).unwrap();
    assert_eq!(world.contents(&vmo, 0), before);
    assert_eq!((writer.wakes(), writer.poll()), (0, None));
    world.frames_become(1);
}

// What one packet covers.

#[test]
fn one_dirty_covers_the_run_of_clean_pages_that_a_write_wants() {
    let world = World::new();
    let vmo = world.trapping(8);
    world.let_dirty(&vmo, 5, 1).unwrap();
    let bytes = vec![7; 6 * 4096];
    let mut writer = Task::pending(vmo.write(at(1, 0), &bytes));
    assert_eq!(world.packets(), [dirty_packet(1, 4)], "up to the dirty page");
    world.let_dirty(&vmo, 1, 4).unwrap();
    assert_eq!((writer.wakes(), writer.poll()), (1, None));
    assert_eq!(world.packets(), [dirty_packet(6, 1)], "and after it, but no further than the write goes");
    world.let_dirty(&vmo, 6, 1).unwrap();
    assert_eq!(writer.poll(), Some(Ok(())));
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(1, 6)]);
}

#[test]
fn a_run_takes_clean_pages_and_those_awaiting_clean_alike() {
    let world = World::new();
    let vmo = world.trapping(4);
    await_clean(&world, &vmo, 1);
    let _writer = Task::pending(vmo.fault_run(PageIndex(0), PageCount(4), Access::Write));
    assert_eq!(world.packets(), [dirty_packet(0, 4)]);
}

#[test]
fn a_run_of_clean_pages_ends_before_an_absent_one() {
    let world = World::new();
    let vmo = world.vmo_with(VmoOptions::TRAP_DIRTY, 6);
    world.supply(&vmo, 0, 2).unwrap();
    world.supply(&vmo, 4, 2).unwrap();
    let mut writer = Task::pending(vmo.fault_run(PageIndex(0), PageCount(6), Access::Write));
    assert_eq!(world.packets(), [dirty_packet(0, 2)]);
    world.let_dirty(&vmo, 0, 2).unwrap();
    assert_eq!(writer.poll(), Some(Ok(())), "the access waits for its first page only");
}

#[test]
fn adjacent_dirty_requests_go_in_one_packet() {
    let world = World::new();
    let vmo = world.trapping(8);
    let writers: Vec<_> = (2..6).map(|page| writer(&vmo, page, &[7])).collect();
    assert_eq!(vmo.counts().in_flight, 4);
    assert_eq!(world.packets(), [dirty_packet(2, 4)]);
    world.let_dirty(&vmo, 2, 4).unwrap();
    for writer in writers {
        assert_eq!(writer.woken_with(), Ok(()));
    }
}

#[test]
fn dirty_requests_are_never_merged_with_reads() {
    let world = World::new();
    let vmo = world.vmo_with(VmoOptions::TRAP_DIRTY, 6);
    for page in [1, 4] {
        world.supply(&vmo, page, 1).unwrap();
    }
    let _writers: Vec<_> = (0..6).map(|page| writer(&vmo, page, &[7])).collect();
    assert_eq!(
        world.packets(),
        [read_packet(0, 1), dirty_packet(1, 1), read_packet(2, 2), dirty_packet(4, 1), read_packet(5, 1)]
    );
}

#[test]
fn a_write_that_meets_another_dirty_waits_for_that_and_then_goes_on() {
    let world = World::new();
    let vmo = world.trapping(4);
    let other = writer(&vmo, 1, &[1]);
    assert_eq!(world.packets(), [dirty_packet(1, 1)]);
    let bytes = vec![7; 4 * 4096];
    let mut writer = Task::pending(vmo.write(at(0, 0), &bytes));
    assert_eq!(world.packets(), [dirty_packet(0, 1)]);
    world.let_dirty(&vmo, 0, 1).unwrap();
    assert_eq!(writer.poll(), None);
    assert_eq!(world.packets(), [], "it waits for the request in flight first");
    world.let_dirty(&vmo, 1, 1).unwrap();
    assert_eq!(other.woken_with(), Ok(()));
    assert_eq!(writer.poll(), None);
    assert_eq!(world.packets(), [dirty_packet(2, 2)]);
    world.let_dirty(&vmo, 2, 2).unwrap();
    assert_eq!(writer.poll(), Some(Ok(())));
    assert_eq!(writer.wakes(), 3);
}

// The service answers.

#[test]
fn op_dirty_of_a_part_resolves_when_the_rest_is_there() {
    let world = World::new();
    let vmo = world.trapping(6);
    let bytes = vec![7; 6 * 4096];
    let writer = Task::pending(vmo.write(at(0, 0), &bytes));
    for (first, count) in [(4, 2), (0, 1), (2, 2)] {
        world.let_dirty(&vmo, first, count).unwrap();
        assert_eq!((writer.wakes(), vmo.counts().in_flight), (0, 1));
    }
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(0, 1), (2, 4)]);
    world.let_dirty(&vmo, 1, 1).unwrap();
    assert_eq!(writer.woken_with(), Ok(()));
    assert_eq!(vmo.counts().in_flight, 0);
}

#[test]
fn op_dirty_of_more_than_was_asked_for_dirties_it_all() {
    let world = World::new();
    let vmo = world.trapping(6);
    let writers = [2, 4].map(|page| writer(&vmo, page, &[7]));
    world.let_dirty(&vmo, 0, 6).unwrap();
    for writer in writers {
        assert_eq!(writer.woken_with(), Ok(()));
    }
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(0, 6)]);
}

#[test]
fn op_dirty_unasked_dirties_clean_pages_and_those_awaiting_clean() {
    let world = World::new();
    let vmo = world.trapping(3);
    await_clean(&world, &vmo, 1);
    world.let_dirty(&vmo, 0, 3).unwrap();
    world.pager.writeback_end(&vmo, pages(0, 3)).unwrap();
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(0, 3)], "none of them was awaiting clean any more");
    assert_eq!(world.packets(), []);
}

#[test]
fn op_dirty_of_dirty_pages_changes_nothing() {
    let world = World::new();
    let vmo = world.trapping(3);
    world.let_dirty(&vmo, 0, 3).unwrap();
    now(vmo.write(at(1, 0), &[7])).unwrap();
    let before = (vmo.counts(), world.contents(&vmo, 1));
    for (first, count) in [(0, 3), (1, 1), (0, 0)] {
        world.let_dirty(&vmo, first, count).unwrap();
    }
    assert_eq!((vmo.counts(), world.contents(&vmo, 1)), before);
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(0, 3)]);
}

#[test]
fn op_dirty_is_all_or_nothing() {
    for missing in 0..4 {
        let world = World::new();
        let vmo = world.vmo_with(VmoOptions::TRAP_DIRTY, 5);
        world.supply(&vmo, 0, missing).unwrap();
        world.supply(&vmo, missing + 1, 4 - missing).unwrap();
        let other = (missing + 1) % 4;
        await_clean(&world, &vmo, 4);
        assert_eq!(world.let_dirty(&vmo, 0, 5), Err(Status::NotFound));
        assert_eq!(dirty_ranges(&world.pager, &vmo), [(4, 1)]);
        let writer = writer(&vmo, other, &[7]);
        assert_eq!(world.packets(), [dirty_packet(other, 1)], "it is still clean");
        drop(writer);
        world.pager.writeback_end(&vmo, pages(0, 5)).unwrap();
        assert_eq!(dirty_ranges(&world.pager, &vmo), [], "and the last one still awaited clean");
        world.supply(&vmo, missing, 1).unwrap();
        world.let_dirty(&vmo, 0, 5).unwrap();
        assert_eq!(dirty_ranges(&world.pager, &vmo), [(0, 5)]);
    }
}

#[test]
fn op_dirty_of_an_absent_or_requested_page_is_not_found() {
    let world = World::new();
    let vmo = world.vmo_with(VmoOptions::TRAP_DIRTY, 2);
    assert_eq!(world.let_dirty(&vmo, 0, 1), Err(Status::NotFound));
    let mut reader = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    assert_eq!(world.let_dirty(&vmo, 0, 1), Err(Status::NotFound));
    assert_eq!(world.let_dirty(&vmo, 0, 2), Err(Status::NotFound));
    assert_eq!((reader.wakes(), reader.poll()), (0, None), "a READ is not what it answers");
    assert_eq!(world.packets(), [read_packet(0, 1)]);
}

#[test]
fn when_op_dirty_fails_its_waiters_look_again_and_ask_again() {
    let world = World::new();
    let vmo = world.vmo_with(VmoOptions::TRAP_DIRTY, 4);
    world.supply(&vmo, 0, 2).unwrap();
    world.supply(&vmo, 3, 1).unwrap();
    let bytes = vec![7; 2 * 4096];
    let mut within = Task::pending(vmo.write(at(0, 0), &bytes));
    let mut beside = writer(&vmo, 3, &[7]);
    assert_eq!(world.packets(), [dirty_packet(0, 2), dirty_packet(3, 1)]);
    assert_eq!(world.let_dirty(&vmo, 1, 2), Err(Status::NotFound));
    assert_eq!(dirty_ranges(&world.pager, &vmo), []);
    assert_eq!((within.wakes(), within.poll()), (1, None));
    assert_eq!((beside.wakes(), beside.poll()), (0, None), "outside the range");
    assert_eq!(world.packets(), [dirty_packet(0, 2)]);
    world.let_dirty(&vmo, 0, 2).unwrap();
    assert_eq!((within.wakes(), within.poll()), (2, Some(Ok(()))));
}

#[test]
fn op_dirty_as_a_raw_operation_is_the_same_call() {
    let world = World::new();
    let vmo = world.trapping(1);
    let op = PagerOp::from_raw(2, 0).unwrap();
    let writer = writer(&vmo, 0, &[7]);
    world.pager.op_range(&vmo, op, pages(0, 1)).unwrap();
    assert_eq!(writer.woken_with(), Ok(()));
}

#[test]
fn op_dirty_works_over_large_ranges() {
    const PAGES: u64 = 3000;
    let world = World::new();
    let vmo = world.trapping(PAGES);
    let run = Task::pending(vmo.fault_run(PageIndex(0), PageCount(PAGES), Access::Write));
    assert_eq!(world.packets(), [dirty_packet(0, PAGES)]);
    world.let_dirty(&vmo, 0, PAGES - 1).unwrap();
    assert_eq!(run.wakes(), 0);
    world.let_dirty(&vmo, 0, PAGES).unwrap();
    assert_eq!(run.woken_with(), Ok(()));
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(0, PAGES)]);
    world.write_back(&vmo, 0, PAGES);
    world.evict_now(&vmo, 0);
    assert_eq!(world.let_dirty(&vmo, 0, PAGES), Err(Status::NotFound));
    drop(vmo);
    world.end();
}

#[test]
fn a_run_of_a_hundred_thousand_pages_is_refused_for_the_one_that_is_absent() {
    const PAGES: u64 = 100_000;
    let world = World::new();
    let vmo = world.vmo_with(VmoOptions::TRAP_DIRTY, PAGES);
    world.supply(&vmo, 0, 3).unwrap();
    let mut writer = writer(&vmo, 2, &[7]);
    assert_eq!(world.let_dirty(&vmo, 0, PAGES), Err(Status::NotFound));
    assert_eq!((writer.wakes(), writer.poll()), (1, None));
    assert_eq!(world.packets(), [dirty_packet(2, 1)]);
    assert_eq!(dirty_ranges(&world.pager, &vmo), []);
}

#[test]
fn one_op_dirty_answers_any_number_of_requests() {
    for count in [7, 8, 9, 10, 40] {
        for asked in [1, 3] {
            let world = World::new();
            let vmo = world.trapping(count * asked);
            let writers: Vec<_> = (0..count)
                .map(|n| Task::pending(vmo.fault_run(PageIndex(n * asked), PageCount(asked), Access::Write)))
                .collect();
            assert_eq!(vmo.counts().in_flight, count);
            world.let_dirty(&vmo, 0, count * asked).unwrap();
            for writer in writers {
                assert_eq!(writer.woken_with(), Ok(()));
            }
            assert_eq!(vmo.counts().in_flight, 0);
            assert_eq!(world.packets(), [], "none was taken before its answer");
        }
    }
}

#[test]
fn one_op_dirty_that_fails_has_any_number_of_writers_look_again() {
    for count in [7, 8, 9, 40] {
        let world = World::new();
        let vmo = world.vmo_with(VmoOptions::TRAP_DIRTY, count + 1);
        world.supply(&vmo, 0, count).unwrap();
        let mut writers: Vec<_> = (0..count).map(|page| writer(&vmo, page, &[7])).collect();
        assert_eq!(world.packets(), [dirty_packet(0, count)]);
        assert_eq!(world.let_dirty(&vmo, 0, count + 1), Err(Status::NotFound));
        assert_eq!(dirty_ranges(&world.pager, &vmo), []);
        for writer in &mut writers {
            assert_eq!((writer.wakes(), writer.poll()), (1, None));
        }
        assert_eq!(world.packets(), [dirty_packet(0, count)]);
        world.let_dirty(&vmo, 0, count).unwrap();
        for mut writer in writers {
            assert_eq!((writer.wakes(), writer.poll()), (2, Some(Ok(()))));
        }
    }
}

// Writeback.

#[test]
fn a_write_between_begin_and_end_asks_again() {
    let world = World::new();
    let vmo = world.trapping(1);
    await_clean(&world, &vmo, 0);
    let writer = writer(&vmo, 0, &[7]);
    assert_eq!(world.packets(), [dirty_packet(0, 1)]);
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(0, 1)]);
    assert_eq!(vmo.evict(PageCount(1), Evict::Any), PageCount(0), "the service has not written it yet");
    world.let_dirty(&vmo, 0, 1).unwrap();
    assert_eq!(writer.woken_with(), Ok(()));
    world.pager.writeback_end(&vmo, pages(0, 1)).unwrap();
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(0, 1)], "END does not clean what was written since");
}

#[test]
fn end_cleans_the_page_under_a_dirty_request_which_stays_in_flight() {
    let world = World::new();
    let vmo = world.trapping(1);
    await_clean(&world, &vmo, 0);
    let mut writer = writer(&vmo, 0, &[7]);
    world.pager.writeback_end(&vmo, pages(0, 1)).unwrap();
    assert_eq!(dirty_ranges(&world.pager, &vmo), []);
    assert_eq!(vmo.counts().dirty, PageCount(0));
    assert_eq!((writer.wakes(), writer.poll(), vmo.counts().in_flight), (0, None, 1));
    assert_eq!(world.packets(), [dirty_packet(0, 1)]);
    world.let_dirty(&vmo, 0, 1).unwrap();
    assert_eq!(writer.woken_with(), Ok(()));
    assert_eq!(vmo.counts().dirty, PageCount(1));
}

#[test]
fn begin_leaves_a_dirty_request_in_flight() {
    let world = World::new();
    let vmo = world.trapping(2);
    await_clean(&world, &vmo, 1);
    let writers = [0, 1].map(|page| writer(&vmo, page, &[7]));
    world.pager.writeback_begin(&vmo, pages(0, 2), Writeback::All).unwrap();
    assert_eq!(writers.each_ref().map(Task::wakes), [0, 0]);
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(1, 1)]);
    world.let_dirty(&vmo, 0, 2).unwrap();
    for writer in writers {
        assert_eq!(writer.woken_with(), Ok(()));
    }
}

#[test]
fn after_its_writeback_a_page_is_asked_for_anew() {
    let world = World::new();
    let vmo = world.trapping(1);
    for byte in 0..20 {
        let byte = [byte];
        let writer = writer(&vmo, 0, &byte);
        assert_eq!(world.packets(), [dirty_packet(0, 1)]);
        world.let_dirty(&vmo, 0, 1).unwrap();
        assert_eq!(writer.woken_with(), Ok(()));
        world.write_back(&vmo, 0, 1);
    }
    assert_eq!(vmo.counts().requests, 20);
}

// Eviction.

#[test]
fn a_page_evicted_under_its_dirty_request_is_retried_through_read() {
    let world = World::new();
    let vmo = world.trapping(1);
    let mut writer = writer(&vmo, 0, &[7]);
    assert_eq!(world.packets(), [dirty_packet(0, 1)]);
    world.evict_now(&vmo, 0);
    assert_eq!((vmo.counts().resident, vmo.counts().in_flight), (PageCount(0), 0));
    assert_eq!((writer.wakes(), writer.poll()), (1, None));
    assert_eq!(world.packets(), [read_packet(0, 1)]);
    assert_eq!(world.let_dirty(&vmo, 0, 1), Err(Status::NotFound), "the answer to the old request comes too late");
    assert_eq!((writer.wakes(), writer.poll()), (1, None), "and finds no request of its kind");
    world.supply(&vmo, 0, 1).unwrap();
    assert_eq!(writer.poll(), None);
    assert_eq!(world.packets(), [dirty_packet(0, 1)]);
    world.let_dirty(&vmo, 0, 1).unwrap();
    assert_eq!(writer.poll(), Some(Ok(())));
    assert_eq!(writer.wakes(), 3);
}

#[test]
fn a_dirty_request_outlives_the_eviction_of_some_of_its_pages() {
    let world = World::new();
    let vmo = world.trapping(3);
    let mut writer = Task::pending(vmo.fault_run(PageIndex(0), PageCount(3), Access::Write));
    assert_eq!(vmo.evict(PageCount(2), Evict::Any), PageCount(2));
    assert_eq!((writer.wakes(), vmo.counts().in_flight), (0, 1));
    assert_eq!(vmo.counts().resident, PageCount(1));
    world.let_dirty(&vmo, 2, 1).unwrap();
    assert_eq!((writer.wakes(), vmo.counts().in_flight), (1, 0), "the last page it had");
    world.frames_become(1);
    assert_eq!(writer.poll(), None);
    assert_eq!(world.packets(), [read_packet(0, 2)]);
}

#[test]
fn evict_unused_passes_over_a_page_that_a_writer_waits_for() {
    let world = World::new();
    let vmo = world.trapping(2);
    let writer = writer(&vmo, 0, &[7]);
    for _ in 0..3 {
        vmo.evict(PageCount(MAX_VMO_SIZE), Evict::Unused);
    }
    world.frames_become(1);
    assert_eq!(world.resident(&vmo, 2), [0]);
    assert_eq!(writer.wakes(), 0);
    world.let_dirty(&vmo, 0, 1).unwrap();
    assert_eq!(writer.woken_with(), Ok(()));
}

#[test]
fn a_page_that_is_being_evicted_is_rescued_by_its_writer() {
    let world = World::new();
    let vmo = world.trapping(1);
    let guard = upager::Platform::pin(&*world.platform);
    assert_eq!(vmo.evict(PageCount(1), Evict::Any), PageCount(1));
    let writer = writer(&vmo, 0, &[7]);
    assert_eq!(world.packets(), [dirty_packet(0, 1)], "the grace period is not over, so it is there");
    drop(guard);
    world.let_dirty(&vmo, 0, 1).unwrap();
    assert_eq!(writer.woken_with(), Ok(()));
    world.frames_become(1);
}

#[test]
fn a_page_that_is_being_evicted_is_rescued_by_op_dirty() {
    for count in [1, 2] {
        let world = World::new();
        let vmo = world.trapping(2);
        let guard = upager::Platform::pin(&*world.platform);
        assert_eq!(vmo.evict(PageCount(2), Evict::Any), PageCount(2));
        world.let_dirty(&vmo, 0, count).unwrap();
        drop(guard);
        world.frames_become(count);
        assert_eq!(dirty_ranges(&world.pager, &vmo), [(0, count)]);
        assert_eq!(vmo.counts().resident, PageCount(count));
    }
}

// Failure.

#[test]
fn a_failed_dirty_request_gives_its_writers_the_error_and_keeps_the_page() {
    for status in [Status::Io, Status::IoDataIntegrity, Status::NoSpace, Status::BadState, Status::BufferTooSmall] {
        let world = World::new();
        let vmo = world.trapping(1);
        let before = world.contents(&vmo, 0);
        let writers = [&[7], &[8]].map(|byte| writer(&vmo, 0, byte));
        world.pager.fail_range(&vmo, pages(0, 1), status).unwrap();
        for writer in writers {
            assert_eq!(writer.woken_with(), Err(status));
        }
        assert_eq!(world.contents(&vmo, 0), before);
        assert_eq!((vmo.counts().dirty, vmo.counts().in_flight), (PageCount(0), 0));
        let _again = writer(&vmo, 0, &[9]);
        assert_eq!(world.packets(), [dirty_packet(0, 1)], "the next writer asks");
    }
}

#[test]
fn a_failed_dirty_request_leaves_a_page_that_awaits_clean_as_it_is() {
    let world = World::new();
    let vmo = world.trapping(1);
    await_clean(&world, &vmo, 0);
    let writer = writer(&vmo, 0, &[7]);
    world.pager.fail_range(&vmo, pages(0, 1), Status::NoSpace).unwrap();
    assert_eq!(writer.woken_with(), Err(Status::NoSpace));
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(0, 1)]);
    world.pager.writeback_end(&vmo, pages(0, 1)).unwrap();
    assert_eq!(dirty_ranges(&world.pager, &vmo), []);
}

#[test]
fn a_failure_of_any_part_fails_the_dirty_request() {
    for part in 0..3 {
        let world = World::new();
        let vmo = world.trapping(3);
        let writer = Task::pending(vmo.fault_run(PageIndex(0), PageCount(3), Access::Write));
        world.pager.fail_range(&vmo, pages(part, 1), Status::Io).unwrap();
        assert_eq!(writer.woken_with(), Err(Status::Io));
        assert_eq!((vmo.counts().resident, vmo.counts().dirty), (PageCount(3), PageCount(0)));
    }
}

#[test]
fn a_failure_of_the_part_that_may_be_dirty_already_finds_nothing() {
    let world = World::new();
    let vmo = world.trapping(2);
    let writer = Task::pending(vmo.fault_run(PageIndex(0), PageCount(2), Access::Write));
    world.let_dirty(&vmo, 0, 1).unwrap();
    world.pager.fail_range(&vmo, pages(0, 1), Status::Io).unwrap();
    assert_eq!(writer.wakes(), 0);
    world.let_dirty(&vmo, 1, 1).unwrap();
    assert_eq!(writer.woken_with(), Ok(()));
}

// Leaving.

#[test]
fn when_the_last_writer_leaves_the_dirty_request_is_withdrawn_and_never_delivered() {
    let world = World::new();
    let vmo = world.trapping(2);
    let first = writer(&vmo, 0, &[7]);
    let second = writer(&vmo, 0, &[7]);
    drop(first);
    assert_eq!(vmo.counts().in_flight, 1);
    drop(second);
    assert_eq!(vmo.counts().in_flight, 0);
    assert_eq!(world.packets(), []);
    assert_eq!(vmo.counts().resident, PageCount(2));
    assert_eq!(vmo.evict(PageCount(2), Evict::Any), PageCount(2), "clean, and under no request");
}

#[test]
fn after_the_last_writer_left_a_delivered_dirty_request_may_be_answered() {
    let world = World::new();
    let vmo = world.trapping(1);
    let left = writer(&vmo, 0, &[7]);
    assert_eq!(world.packets(), [dirty_packet(0, 1)]);
    drop(left);
    let next = writer(&vmo, 0, &[8]);
    assert_eq!(world.packets(), [dirty_packet(0, 1)], "the next one asks anew");
    world.let_dirty(&vmo, 0, 1).unwrap();
    assert_eq!(next.woken_with(), Ok(()));
    assert_eq!(world.contents(&vmo, 0)[0], 8);
}

#[test]
fn while_one_writer_stays_the_dirty_request_stays() {
    for leaver in 0..3 {
        let world = World::new();
        let vmo = world.trapping(1);
        let mut writers: Vec<_> = (0..3).map(|_| writer(&vmo, 0, &[7])).collect();
        drop(writers.remove(leaver));
        assert_eq!(world.packets(), [dirty_packet(0, 1)]);
        drop(writers.remove(0));
        world.let_dirty(&vmo, 0, 1).unwrap();
        assert_eq!(writers.remove(0).woken_with(), Ok(()));
    }
}

// Detach, close, drop.

#[test]
fn detach_fails_the_dirty_requests_in_flight() {
    let world = World::new();
    let vmo = world.trapping(3);
    await_clean(&world, &vmo, 2);
    let delivered = writer(&vmo, 0, &[7]);
    assert_eq!(world.packets(), [dirty_packet(0, 1)]);
    let queued = writer(&vmo, 1, &[7]);
    let awaiting = writer(&vmo, 2, &[7]);
    let joined = writer(&vmo, 2, &[7]);
    assert_eq!(world.pager.detach_vmo(&vmo).unwrap().failed_requests, 3);
    for writer in [delivered, queued, awaiting, joined] {
        assert_eq!(writer.woken_with(), Err(Status::BadState));
    }
    assert_eq!(world.packets(), [complete_packet()]);
    assert_eq!(vmo.counts().in_flight, 0);
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(2, 1)]);
    world.frames_become(1);
    world.pager.writeback_end(&vmo, pages(0, 3)).unwrap();
    world.frames_become(0);
}

#[test]
fn in_a_detached_vmo_a_write_that_needs_leave_fails_and_writes_to_dirty_pages_go_on() {
    let world = World::new();
    let vmo = world.trapping(3);
    world.let_dirty(&vmo, 0, 1).unwrap();
    await_clean(&world, &vmo, 1);
    world.pager.detach_vmo(&vmo).unwrap();
    now(vmo.write(at(0, 0), &[7])).unwrap();
    now(vmo.fault(PageIndex(0), Access::Write)).unwrap();
    for page in [1, 2] {
        assert_eq!(now(vmo.write(at(page, 0), &[7])), Err(Status::BadState));
        assert_eq!(now(vmo.fault(PageIndex(page), Access::Write)), Err(Status::BadState));
    }
    assert_ne!(world.contents(&vmo, 1)[0], 7);
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(0, 2)]);
    // What was dirty is not once it has been written back begins: then it needs leave like any other.
    world.pager.writeback_begin(&vmo, pages(0, 1), Writeback::All).unwrap();
    assert_eq!(now(vmo.write(at(0, 0), &[8])), Err(Status::BadState));
    assert_eq!(world.contents(&vmo, 0)[0], 7);
    assert_eq!(world.packets(), [complete_packet()]);
}

#[test]
fn op_dirty_after_detach_is_bad_state() {
    let world = World::new();
    let vmo = world.trapping(4);
    world.let_dirty(&vmo, 0, 1).unwrap();
    await_clean(&world, &vmo, 1);
    let writer = writer(&vmo, 2, &[7]);
    world.pager.detach_vmo(&vmo).unwrap();
    let before = vmo.counts();
    for (first, count) in [(0, 1), (1, 1), (2, 1), (0, 2), (0, 4), (0, 0)] {
        assert_eq!(world.let_dirty(&vmo, first, count), Err(Status::BadState), "the answer comes too late");
    }
    assert_eq!(vmo.counts(), before);
    assert_eq!(writer.woken_with(), Err(Status::BadState));
    world.pager.writeback_end(&vmo, pages(0, 4)).unwrap();
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(0, 1)], "the other one still awaited clean");
}

/// A pager that can be closed before its port.
fn closable() -> (Arc<HeapPlatform>, Pager<HeapPlatform>, Port<HeapPlatform>, Vmo<HeapPlatform>) {
    let world = World::new();
    let vmo = world.trapping(3);
    world.let_dirty(&vmo, 0, 1).unwrap();
    await_clean(&world, &vmo, 1);
    (world.platform, world.pager, world.port, vmo)
}

#[test]
fn closing_the_pager_fails_the_dirty_requests_in_flight_and_withdraws_what_is_queued() {
    let (_platform, pager, port, vmo) = closable();
    let clean = writer(&vmo, 2, &[7]);
    let awaiting = writer(&vmo, 1, &[7]);
    drop(pager);
    assert_eq!(clean.woken_with(), Err(Status::BadState));
    assert_eq!(awaiting.woken_with(), Err(Status::BadState));
    assert_eq!(port.take(&mut [upager::Packet::default(); 4]), 0);
    let counts = vmo.counts();
    assert_eq!((counts.resident, counts.dirty, counts.in_flight), (PageCount(3), PageCount(2), 0));
}

#[test]
fn without_its_pager_a_write_that_needs_leave_fails_and_writes_to_dirty_pages_go_on() {
    let (_platform, pager, _port, vmo) = closable();
    drop(pager);
    now(vmo.write(at(0, 0), &[7])).unwrap();
    for page in [1, 2] {
        assert_eq!(now(vmo.write(at(page, 0), &[7])), Err(Status::BadState));
        assert_eq!(now(vmo.fault(PageIndex(page), Access::Write)), Err(Status::BadState));
        now(vmo.read(at(page, 0), &mut [0])).unwrap();
    }
}

#[test]
fn a_vmo_that_is_dropped_gives_back_its_pages_in_every_state() {
    let world = World::new();
    let vmo = world.trapping(6);
    world.let_dirty(&vmo, 0, 2).unwrap();
    await_clean(&world, &vmo, 1);
    await_clean(&world, &vmo, 2);
    drop([2, 3].map(|page| writer(&vmo, page, &[7])));
    vmo.evict(PageCount(1), Evict::Any);
    drop(vmo);
    assert_eq!(world.packets(), [complete_packet()]);
    world.end();
}

#[test]
fn frames_do_not_leak_however_a_dirty_request_ends() {
    let world = World::new();
    for end in 0..6 {
        let vmo = world.trapping(4);
        let writer = Task::pending(vmo.fault_run(PageIndex(0), PageCount(4), Access::Write));
        match end {
            0 => world.let_dirty(&vmo, 0, 4).unwrap(),
            1 => world.pager.fail_range(&vmo, pages(0, 4), Status::Io).unwrap(),
            2 => assert!(world.pager.detach_vmo(&vmo).is_ok()),
            3 => assert_eq!(vmo.evict(PageCount(4), Evict::Any), PageCount(4)),
            4 => {
                world.let_dirty(&vmo, 1, 2).unwrap();
                assert!(world.pager.detach_vmo(&vmo).is_ok());
                assert_eq!(vmo.counts().dirty, PageCount(2));
            }
            _ => {}
        }
        drop(writer);
        drop(vmo);
        world.frames_become(0);
    }
    world.end();
}

#[test]
fn a_port_that_is_closed_drops_dirty_requests_and_the_service_can_still_answer() {
    let platform = Arc::new(HeapPlatform::new());
    let (pager, port) = (Pager::new(platform.clone()), Port::new(platform.clone()));
    let vmo = pager.create_vmo(&port, 1, VmoOptions::TRAP_DIRTY, PAGE_SIZE).unwrap();
    pager.supply_frames(&vmo, pages(0, 1), [upager::OwnedFrame::new(&*platform).unwrap()]).unwrap();
    drop(port);
    let mut writer = writer(&vmo, 0, &[7]);
    assert_eq!(writer.poll(), None);
    pager.dirty_range(&vmo, pages(0, 1)).unwrap();
    assert_eq!(writer.woken_with(), Ok(()));
}

// Wrong arguments: what each of them leaves as it is, is in errors.rs.

#[test]
fn op_dirty_checks_its_arguments() {
    let world = World::new();
    let vmo = world.trapping(4);
    let other = Pager::new(world.platform.clone());
    assert_eq!(other.dirty_range(&vmo, pages(0, 1)), Err(Status::InvalidArgs));
    let plain = world.vmo(4);
    assert_eq!(world.let_dirty(&plain, 0, 1), Err(Status::NotSupported));
    assert_eq!(other.dirty_range(&plain, pages(0, 1)), Err(Status::InvalidArgs), "whose it is comes first");
    for range in [ByteRange::new(1, PAGE_SIZE), ByteRange::new(0, PAGE_SIZE - 1), ByteRange::new(0, 1)] {
        assert_eq!(world.pager.dirty_range(&vmo, range), Err(Status::InvalidArgs));
    }
    for range in [pages(0, 5), pages(4, 1), pages(5, 0)] {
        assert_eq!(world.pager.dirty_range(&vmo, range), Err(Status::OutOfRange));
    }
    assert_eq!(vmo.counts().dirty, PageCount(0));
}

// In the middle of a write.

#[test]
fn a_write_that_has_leave_keeps_it_until_its_bytes_are_in() {
    let world = World::on(Hooked::default());
    let pager = Pager::new(world.platform.clone());
    let vmo = pager.create_vmo(&world.port, 1, VmoOptions::TRAP_DIRTY, PAGE_SIZE).unwrap();
    pager.supply_frames(&vmo, pages(0, 1), world.frames(0, 1)).unwrap();
    pager.dirty_range(&vmo, pages(0, 1)).unwrap();
    let shared = Arc::new((pager, vmo));
    let inside = shared.clone();
    world.platform.before_copy_in(move || {
        let (pager, vmo) = &*inside;
        pager.writeback_begin(vmo, pages(0, 1), Writeback::All).unwrap();
        pager.writeback_end(vmo, pages(0, 1)).unwrap();
        let mut runs = [DirtyRange::default()];
        assert_eq!(pager.query_dirty_ranges(vmo, pages(0, 1), &mut runs).unwrap().actual, 1);
    });
    now(shared.1.write(at(0, 0), &[7])).unwrap();
    assert_eq!(world.packets(), []);
    assert_eq!(dirty_ranges(&shared.0, &shared.1), [(0, 1)]);
}

#[test]
fn a_page_that_traps_is_taken_from_the_mappings_when_it_goes_and_write_protected_when_it_is_written_back() {
    let world = World::on(Hooked::default());
    let vmo = world.trapping(2);
    world.let_dirty(&vmo, 0, 1).unwrap();
    world.pager.writeback_begin(&vmo, pages(0, 2), Writeback::All).unwrap();
    assert_eq!(world.platform.write_protected(), [(vmo.id(), PageIndex(0))]);
    let writer = Task::pending(vmo.fault(PageIndex(1), Access::Write));
    assert_eq!(vmo.evict(PageCount(2), Evict::Any), PageCount(1));
    assert_eq!(world.platform.unmapped(), [(vmo.id(), PageIndex(1))]);
    assert_eq!(writer.wakes(), 1);
}

/// An earlier BEGIN may not have come to it yet.
#[test]
fn begin_write_protects_a_page_that_awaits_clean_and_is_asked_for() {
    let world = World::on(Hooked::default());
    let vmo = world.trapping(1);
    world.let_dirty(&vmo, 0, 1).unwrap();
    for _ in 0..2 {
        world.pager.writeback_begin(&vmo, pages(0, 1), Writeback::All).unwrap();
        assert_eq!(world.platform.write_protected(), [(vmo.id(), PageIndex(0))]);
    }
    let writer = Task::pending(vmo.fault(PageIndex(0), Access::Write));
    world.pager.writeback_begin(&vmo, pages(0, 1), Writeback::All).unwrap();
    assert_eq!(world.platform.write_protected(), [(vmo.id(), PageIndex(0))]);
    assert_eq!(writer.wakes(), 0);
}

#[test]
fn commands_of_a_trapping_vmo_end_with_one_complete() {
    let world = World::new();
    let vmo = world.vmo_with(VmoOptions::TRAP_DIRTY, 4);
    world.supply(&vmo, 0, 2).unwrap();
    let writers: Vec<_> = (0..4).map(|page| writer(&vmo, page, &[7])).collect();
    let mut commands: Vec<_> = world.packets().iter().map(upager::Packet::command).collect();
    world.pager.detach_vmo(&vmo).unwrap();
    drop(writers);
    drop(vmo);
    commands.extend(world.packets().iter().map(upager::Packet::command));
    assert_eq!(commands, [Command::Dirty, Command::Read, Command::Complete].map(Some));
}
