//! How pages become dirty, and how they are written back.

use std::sync::Arc;

use upager::{
    Access, Evict, PageCount, PageIndex, Pager, PagerOp, Platform, Vmo, VmoOptions, VmoStatsOptions, Writeback,
};
use upager_tests::{Hooked, World, at, dirty_ranges, now, pages, pattern};

#[test]
fn the_first_write_makes_a_clean_page_dirty() {
    let world = World::new();
    let vmo = world.vmo(2);
    world.supply(&vmo, 0, 2).unwrap();
    now(vmo.write(at(1, 0), &[1])).unwrap();
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(1, 1)]);
    now(vmo.write(at(1, 0), &[2])).unwrap();
    assert_eq!((vmo.counts().dirty, vmo.counts().resident), (PageCount(1), PageCount(2)));
}

#[test]
fn reads_lookups_and_read_faults_do_not_dirty() {
    let world = World::new();
    let vmo = world.vmo(1);
    world.supply(&vmo, 0, 1).unwrap();
    world.contents(&vmo, 0);
    world.is_resident(&vmo, 0);
    now(vmo.fault(PageIndex(0), Access::Read)).unwrap();
    assert_eq!(dirty_ranges(&world.pager, &vmo), []);
}

#[test]
fn begin_and_end_take_a_page_from_dirty_to_clean() {
    let world = World::new();
    let vmo = world.vmo(1);
    world.make_dirty(&vmo, 0, 1, 9);
    world.pager.writeback_begin(&vmo, pages(0, 1), Writeback::All).unwrap();
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(0, 1)], "being written back is still dirty");
    assert_eq!(vmo.counts().dirty, PageCount(1));
    assert_eq!(world.contents(&vmo, 0)[0], 9, "and still readable");
    world.pager.writeback_end(&vmo, pages(0, 1)).unwrap();
    assert_eq!(dirty_ranges(&world.pager, &vmo), []);
    assert_eq!((vmo.counts().dirty, vmo.counts().resident), (PageCount(0), PageCount(1)));
    assert_eq!(world.contents(&vmo, 0)[0], 9, "clean, and still there");
}

#[test]
fn op_range_begins_and_ends_alike() {
    let world = World::new();
    let vmo = world.vmo(2);
    world.make_dirty(&vmo, 0, 2, 9);
    world.pager.op_range(&vmo, PagerOp::WritebackBegin(Writeback::All), pages(0, 2)).unwrap();
    world.pager.op_range(&vmo, PagerOp::WritebackEnd, pages(1, 1)).unwrap();
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(0, 1)]);
}

#[test]
fn a_page_that_was_cleaned_becomes_dirty_again_by_the_next_write() {
    let world = World::new();
    let vmo = world.vmo(1);
    for round in 0..5 {
        world.make_dirty(&vmo, 0, 1, round);
        assert_eq!(dirty_ranges(&world.pager, &vmo), [(0, 1)]);
        world.write_back(&vmo, 0, 1);
        assert_eq!(dirty_ranges(&world.pager, &vmo), []);
        assert_eq!(world.contents(&vmo, 0)[0], round);
    }
}

#[test]
fn a_write_between_begin_and_end_leaves_the_page_dirty() {
    let world = World::new();
    let vmo = world.vmo(3);
    world.make_dirty(&vmo, 0, 3, 1);
    world.pager.writeback_begin(&vmo, pages(0, 3), Writeback::All).unwrap();
    now(vmo.write(at(0, 0), &[2])).unwrap();
    now(vmo.fault(PageIndex(2), Access::Write)).unwrap();
    world.pager.writeback_end(&vmo, pages(0, 3)).unwrap();
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(0, 1), (2, 1)]);
    world.pager.writeback_end(&vmo, pages(0, 3)).unwrap();
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(0, 1), (2, 1)], "nor by a second END");
    world.write_back(&vmo, 0, 3);
    assert_eq!(dirty_ranges(&world.pager, &vmo), []);
    assert_eq!(world.contents(&vmo, 0)[0], 2);
}

#[test]
fn end_without_begin_cleans_nothing() {
    let world = World::new();
    let vmo = world.vmo(3);
    world.make_dirty(&vmo, 0, 1, 1);
    world.supply(&vmo, 1, 1).unwrap();
    world.pager.writeback_end(&vmo, pages(0, 3)).unwrap();
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(0, 1)]);
    assert_eq!(world.resident(&vmo, 3), [0, 1]);
}

#[test]
fn begin_changes_only_dirty_pages() {
    let world = World::new();
    let vmo = world.vmo(3);
    world.supply(&vmo, 1, 1).unwrap();
    world.pager.writeback_begin(&vmo, pages(0, 3), Writeback::All).unwrap();
    assert_eq!(dirty_ranges(&world.pager, &vmo), []);
    // A page that becomes dirty after BEGIN is not covered by it.
    now(vmo.write(at(1, 0), &[1])).unwrap();
    world.pager.writeback_end(&vmo, pages(0, 3)).unwrap();
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(1, 1)]);
}

#[test]
fn a_second_begin_changes_nothing() {
    let world = World::new();
    let vmo = world.vmo(1);
    world.make_dirty(&vmo, 0, 1, 1);
    for _ in 0..3 {
        world.pager.writeback_begin(&vmo, pages(0, 1), Writeback::All).unwrap();
        assert_eq!(dirty_ranges(&world.pager, &vmo), [(0, 1)]);
    }
    world.pager.writeback_end(&vmo, pages(0, 1)).unwrap();
    assert_eq!(dirty_ranges(&world.pager, &vmo), []);
}

#[test]
fn begin_and_end_keep_to_their_ranges() {
    let world = World::new();
    let vmo = world.vmo(1200);
    world.make_dirty(&vmo, 500, 200, 1);
    world.pager.writeback_begin(&vmo, pages(510, 100), Writeback::All).unwrap();
    world.pager.writeback_end(&vmo, pages(0, 600)).unwrap();
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(500, 10), (600, 100)]);
    world.pager.writeback_end(&vmo, pages(605, 1)).unwrap();
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(500, 10), (600, 5), (606, 94)]);
    world.pager.writeback_begin(&vmo, pages(0, 0), Writeback::All).unwrap();
    world.pager.writeback_end(&vmo, pages(1200, 0)).unwrap();
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(500, 10), (600, 5), (606, 94)]);
}

#[test]
fn begin_of_zero_ranges_leaves_stored_pages_dirty() {
    let world = World::new();
    let vmo = world.vmo(2);
    world.make_dirty(&vmo, 0, 2, 1);
    world.pager.writeback_begin(&vmo, pages(0, 1), Writeback::All).unwrap();
    world.pager.writeback_begin(&vmo, pages(0, 2), Writeback::ZeroRanges).unwrap();
    world.pager.writeback_end(&vmo, pages(0, 2)).unwrap();
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(1, 1)]);
}

#[test]
fn the_bytes_between_begin_and_end_are_those_that_become_clean() {
    let world = World::new();
    let vmo = world.vmo(1);
    world.make_dirty(&vmo, 0, 1, 0x77);
    world.pager.writeback_begin(&vmo, pages(0, 1), Writeback::All).unwrap();
    let written = world.contents(&vmo, 0);
    world.pager.writeback_end(&vmo, pages(0, 1)).unwrap();
    assert_eq!(world.contents(&vmo, 0), written);
    let mut expected = pattern(0);
    expected[0] = 0x77;
    assert_eq!(written, expected);
}

#[test]
fn other_vmos_are_not_touched() {
    let world = World::new();
    let (vmo, other) = (world.vmo(2), world.vmo(2));
    world.make_dirty(&vmo, 0, 2, 1);
    world.make_dirty(&other, 0, 2, 1);
    world.write_back(&vmo, 0, 2);
    assert_eq!(dirty_ranges(&world.pager, &vmo), []);
    assert_eq!(dirty_ranges(&world.pager, &other), [(0, 2)]);
}

/// A pager and a VMO on a platform that calls back in the middle of a copy.
struct Watched {
    world: World<Hooked>,
    shared: Arc<(Pager<Hooked>, Vmo<Hooked>)>,
}

impl Watched {
    fn new() -> Self {
        let world = World::on(Hooked::default());
        let pager = Pager::new(world.platform.clone());
        let vmo = pager.create_vmo(&world.port, 1, upager::VmoOptions::NONE, 4096).unwrap();
        Self { shared: Arc::new((pager, vmo)), world }
    }

    fn supply(&self) {
        let (pager, vmo) = &*self.shared;
        pager.supply_frames(vmo, pages(0, 1), self.world.frames(0, 1)).unwrap();
    }
}

#[test]
fn begin_passes_over_a_page_in_which_a_write_is_under_way() {
    let watched = Watched::new();
    watched.supply();
    let (pager, vmo) = &*watched.shared;
    let inside = watched.shared.clone();
    watched.world.platform.before_copy_in(move || {
        let (pager, vmo) = &*inside;
        assert_eq!(dirty_ranges(pager, vmo), [(0, 1)], "dirty before its bytes are in");
        pager.writeback_begin(vmo, pages(0, 1), Writeback::All).unwrap();
        pager.writeback_end(vmo, pages(0, 1)).unwrap();
        assert_eq!(dirty_ranges(pager, vmo), [(0, 1)], "not cleaned while it is written");
    });
    now(vmo.write(at(0, 0), &[5])).unwrap();
    assert_eq!(dirty_ranges(pager, vmo), [(0, 1)]);
    pager.writeback_begin(vmo, pages(0, 1), Writeback::All).unwrap();
    pager.writeback_end(vmo, pages(0, 1)).unwrap();
    assert_eq!(dirty_ranges(pager, vmo), [], "the write is over, and holds the page no longer");
}

#[test]
fn begin_does_not_take_a_page_with_a_second_writer_still_in_it() {
    let watched = Watched::new();
    watched.supply();
    let (pager, vmo) = &*watched.shared;
    let inside = watched.shared.clone();
    watched.world.platform.before_copy_in(move || {
        let (pager, vmo) = &*inside;
        now(vmo.write(at(0, 8), &[6])).unwrap(); // begins and ends inside the first
        pager.writeback_begin(vmo, pages(0, 1), Writeback::All).unwrap();
        pager.writeback_end(vmo, pages(0, 1)).unwrap();
        assert_eq!(dirty_ranges(pager, vmo), [(0, 1)]);
    });
    now(vmo.write(at(0, 0), &[5])).unwrap();
    assert_eq!(dirty_ranges(pager, vmo), [(0, 1)]);
}

#[test]
fn a_write_that_begins_after_begin_keeps_end_from_cleaning_while_it_copies() {
    let watched = Watched::new();
    watched.supply();
    let (pager, vmo) = &*watched.shared;
    now(vmo.write(at(0, 0), &[1])).unwrap();
    pager.writeback_begin(vmo, pages(0, 1), Writeback::All).unwrap();
    let inside = watched.shared.clone();
    watched.world.platform.before_copy_in(move || {
        let (pager, vmo) = &*inside;
        pager.writeback_end(vmo, pages(0, 1)).unwrap();
        assert_eq!(vmo.evict(PageCount(1), Evict::Any), PageCount(0));
        assert_eq!(dirty_ranges(pager, vmo), [(0, 1)]);
    });
    now(vmo.write(at(0, 0), &[2])).unwrap();
    assert_eq!(dirty_ranges(pager, vmo), [(0, 1)]);
}

#[test]
fn a_write_in_a_page_survives_the_detach_that_comes_while_it_copies() {
    let watched = Watched::new();
    watched.supply();
    let (pager, vmo) = &*watched.shared;
    let inside = watched.shared.clone();
    watched.world.platform.before_copy_in(move || {
        inside.0.detach_vmo(&inside.1).unwrap();
    });
    now(vmo.write(at(0, 0), &[0x42])).unwrap();
    assert_eq!(dirty_ranges(pager, vmo), [(0, 1)]);
    let mut byte = [0];
    now(vmo.read(at(0, 0), &mut byte)).unwrap();
    assert_eq!(byte, [0x42]);
}

#[test]
fn begin_takes_write_access_from_the_mappings_of_the_pages_it_covers() {
    let world = World::on(Hooked::default());
    let vmo = world.vmo(4);
    world.supply(&vmo, 0, 4).unwrap();
    for page in [1, 2] {
        now(vmo.fault(PageIndex(page), Access::Write)).unwrap();
    }
    world.pager.writeback_begin(&vmo, pages(0, 4), Writeback::All).unwrap();
    let told = world.platform.write_protected();
    for page in [1, 2] {
        assert!(told.contains(&(vmo.id(), PageIndex(page))), "page {page}");
    }
    assert!(told.iter().all(|(id, page)| *id == vmo.id() && [1, 2].contains(&page.0)), "{told:?}");
}

#[test]
fn begin_protects_pages_too_that_another_begin_has_taken() {
    let world = World::on(Hooked::default());
    let vmo = world.vmo(2);
    world.supply(&vmo, 0, 2).unwrap();
    now(vmo.fault(PageIndex(1), Access::Write)).unwrap();
    for _ in 0..2 {
        world.pager.writeback_begin(&vmo, pages(0, 2), Writeback::All).unwrap();
        assert_eq!(world.platform.write_protected(), [(vmo.id(), PageIndex(1))]);
    }
    world.pager.writeback_begin(&vmo, pages(0, 2), Writeback::ZeroRanges).unwrap();
    assert_eq!(world.platform.write_protected(), []);
}

/// Each page is protected once, and neighbours in one call.
#[test]
fn begin_write_protects_every_run_of_pages_that_it_takes() {
    let world = World::on(Hooked::default());
    let vmo = world.vmo(200);
    for (first, count) in [(0, 3), (5, 1), (62, 4), (130, 1)] {
        world.make_dirty(&vmo, first, count, 1);
    }
    world.pager.writeback_begin(&vmo, pages(0, 200), Writeback::All).unwrap();
    let runs = [(0, 3), (5, 1), (62, 4), (130, 1)].map(|(first, count)| (PageIndex(first), PageCount(count)));
    assert_eq!(world.platform.protected_runs(), runs);
    assert_eq!(world.platform.write_protected().len(), 9);
}

#[test]
fn a_page_that_is_held_is_dirty_and_stays_so() {
    let world = World::new();
    let vmo = world.vmo(2);
    let guard = world.platform.pin();
    assert!(vmo.hold(&guard, PageIndex(0)).unwrap().is_none(), "absent");
    assert!(vmo.hold(&guard, PageIndex(2)).unwrap().is_none(), "past the end");
    world.supply(&vmo, 0, 1).unwrap();
    let held = vmo.hold(&guard, PageIndex(0)).unwrap().unwrap();
    assert_eq!(vmo.lookup(&guard, PageIndex(0)), Some(held.frame()));
    world.pager.writeback_begin(&vmo, pages(0, 2), Writeback::All).unwrap();
    world.pager.writeback_end(&vmo, pages(0, 2)).unwrap();
    assert_eq!(vmo.evict(PageCount(2), Evict::Any), PageCount(0));
    assert_eq!(vmo.counts().dirty, PageCount(1));
    drop(held);
    world.pager.writeback_begin(&vmo, pages(0, 2), Writeback::All).unwrap();
    assert_eq!(vmo.counts().awaiting, PageCount(1));
    drop(vmo.hold(&guard, PageIndex(0)).unwrap());
    world.pager.writeback_end(&vmo, pages(0, 2)).unwrap();
    assert_eq!(vmo.counts().dirty, PageCount(1), "the hold came after BEGIN");
    assert!(world.pager.query_vmo_stats(&vmo, VmoStatsOptions::Keep).unwrap().is_modified());
}

#[test]
fn a_hold_asks_nobody_and_works_after_a_detach() {
    let world = World::new();
    let vmo = world.vmo_with(VmoOptions::TRAP_DIRTY, 1);
    world.supply(&vmo, 0, 1).unwrap();
    let guard = world.platform.pin();
    assert!(vmo.hold(&guard, PageIndex(0)).unwrap().is_none(), "the service must be asked first");
    world.pager.dirty_range(&vmo, pages(0, 1)).unwrap();
    assert!(vmo.hold(&guard, PageIndex(0)).unwrap().is_some());
    world.pager.detach_vmo(&vmo).unwrap();
    assert!(vmo.hold(&guard, PageIndex(0)).unwrap().is_some(), "dirty pages stay");
}
