//! Which pages are dirty.

use upager::{ByteRange, DirtyRange, MAX_VMO_SIZE, PAGE_SIZE, Writeback};
use upager_tests::{World, at, dirty_ranges, now, pages};

/// An entry for these pages.
fn run(first: u64, count: u64) -> DirtyRange {
    DirtyRange { offset: first * PAGE_SIZE, length: count * PAGE_SIZE, options: 0 }
}

#[test]
fn an_entry_has_zircons_layout() {
    assert_eq!((size_of::<DirtyRange>(), align_of::<DirtyRange>()), (24, 8));
    assert_eq!(std::mem::offset_of!(DirtyRange, offset), 0);
    assert_eq!(std::mem::offset_of!(DirtyRange, length), 8);
    assert_eq!(std::mem::offset_of!(DirtyRange, options), 16);
    assert_eq!(run(2, 3).range(), pages(2, 3));
}

#[test]
fn runs_come_in_ascending_order_and_merged() {
    let world = World::new();
    let vmo = world.vmo(100);
    for page in [50, 3, 51, 99, 4, 0, 52, 2] {
        world.make_dirty(&vmo, page, 1, 1);
    }
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(0, 1), (2, 3), (50, 3), (99, 1)]);
}

#[test]
fn stored_runs_have_no_options() {
    let world = World::new();
    let vmo = world.vmo(8);
    world.make_dirty(&vmo, 1, 2, 0);
    let mut buffer = [DirtyRange { offset: 9, length: 9, options: 9 }; 2];
    let found = world.pager.query_dirty_ranges(&vmo, pages(0, 8), &mut buffer).unwrap();
    assert_eq!((found.actual, found.available), (1, 1));
    assert_eq!(buffer, [run(1, 2), DirtyRange { offset: 9, length: 9, options: 9 }], "the rest is left alone");
}

#[test]
fn dirty_and_awaiting_clean_are_one_run() {
    let world = World::new();
    let vmo = world.vmo(8);
    world.make_dirty(&vmo, 2, 4, 1);
    world.pager.writeback_begin(&vmo, pages(3, 2), Writeback::All).unwrap();
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(2, 4)]);
}

#[test]
fn clean_and_absent_pages_are_in_no_run() {
    let world = World::new();
    let vmo = world.vmo(8);
    world.supply(&vmo, 0, 8).unwrap();
    assert_eq!(dirty_ranges(&world.pager, &vmo), []);
    assert_eq!(dirty_ranges(&world.pager, &world.vmo(8)), []);
    assert_eq!(dirty_ranges(&world.pager, &world.vmo(0)), []);
}

#[test]
fn runs_merge_across_the_borders_of_the_table() {
    let world = World::new();
    let vmo = world.vmo(2000);
    world.make_dirty(&vmo, 62, 4, 1);
    world.make_dirty(&vmo, 510, 4, 1);
    world.make_dirty(&vmo, 1000, 1000, 1);
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(62, 4), (510, 4), (1000, 1000)]);
}

#[test]
fn a_small_buffer_gets_the_first_runs_and_the_number_of_all() {
    let world = World::new();
    let vmo = world.vmo(40);
    for page in (0..40).step_by(4) {
        world.make_dirty(&vmo, page, 2, 1);
    }
    for room in 0..=12 {
        let mut buffer = vec![DirtyRange::default(); room];
        let found = world.pager.query_dirty_ranges(&vmo, pages(0, 40), &mut buffer).unwrap();
        assert_eq!((found.actual, found.available), (room.min(10), 10));
        for (n, entry) in (0..).zip(&buffer[..found.actual]) {
            assert_eq!(*entry, run(4 * n, 2));
        }
    }
}

#[test]
fn asking_on_after_the_last_entry_finds_every_run() {
    let world = World::new();
    let vmo = world.vmo(200);
    let expected: Vec<_> = (0..50).map(|n| run(4 * n + 1, 1 + n % 3)).collect();
    for entry in &expected {
        world.make_dirty(&vmo, entry.offset / PAGE_SIZE, entry.length / PAGE_SIZE, 1);
    }
    let mut all = Vec::new();
    let mut from = 0;
    loop {
        let mut some = [DirtyRange::default(); 7];
        let found = world.pager.query_dirty_ranges(&vmo, ByteRange::new(from, vmo.size() - from), &mut some).unwrap();
        all.extend_from_slice(&some[..found.actual]);
        let Some(last) = some[..found.actual].last() else { break };
        from = last.offset + last.length;
    }
    assert_eq!(all, expected);
}

#[test]
fn a_range_clips_the_runs() {
    let world = World::new();
    let vmo = world.vmo(20);
    world.make_dirty(&vmo, 5, 10, 1);
    let query = |range| {
        let mut buffer = [DirtyRange::default(); 2];
        let found = world.pager.query_dirty_ranges(&vmo, range, &mut buffer).unwrap();
        buffer[..found.actual].to_vec()
    };
    assert_eq!(query(pages(0, 20)), [run(5, 10)]);
    assert_eq!(query(pages(7, 3)), [run(7, 3)]);
    assert_eq!(query(pages(0, 6)), [run(5, 1)]);
    assert_eq!(query(pages(14, 6)), [run(14, 1)]);
    assert_eq!(query(pages(15, 5)), []);
    assert_eq!(query(pages(0, 5)), []);
    assert_eq!(query(pages(20, 0)), []);
}

#[test]
fn bounds_are_rounded_out_to_pages() {
    let world = World::new();
    let vmo = world.vmo(6);
    world.make_dirty(&vmo, 0, 6, 1);
    let mut buffer = [DirtyRange::default(); 1];
    for (range, expected) in [
        (ByteRange::new(PAGE_SIZE + 1, 1), run(1, 1)),
        (ByteRange::new(2 * PAGE_SIZE - 1, 2), run(1, 2)),
        (ByteRange::new(2 * PAGE_SIZE - 1, 1), run(1, 1)),
        (ByteRange::new(3, 6 * PAGE_SIZE - 4), run(0, 6)),
    ] {
        assert_eq!(world.pager.query_dirty_ranges(&vmo, range, &mut buffer).unwrap().actual, 1);
        assert_eq!(buffer[0], expected, "{range:?}");
    }
}

#[test]
fn what_was_dirtied_before_the_call_is_in_the_buffer_or_after_its_last_entry() {
    let world = World::new();
    let vmo = world.vmo(64);
    let mut dirtied = Vec::new();
    for step in 0..64u64 {
        let page = step * 37 % 64;
        world.make_dirty(&vmo, page, 1, 1);
        dirtied.push(page);
        for room in [0, 1, 3] {
            let mut buffer = vec![DirtyRange::default(); room];
            let found = world.pager.query_dirty_ranges(&vmo, pages(0, 64), &mut buffer).unwrap();
            let entries = &buffer[..found.actual];
            let end = entries.last().map_or(0, |last| last.offset + last.length);
            for page in &dirtied {
                let position = page * PAGE_SIZE;
                let inside = |entry: &DirtyRange| (entry.offset..entry.offset + entry.length).contains(&position);
                assert!(position >= end || entries.iter().any(inside), "page {page} is passed over");
            }
        }
    }
}

#[test]
fn the_ends_of_the_largest_vmo_are_found() {
    let world = World::new();
    let vmo = world.vmo(MAX_VMO_SIZE / PAGE_SIZE);
    let last = MAX_VMO_SIZE / PAGE_SIZE - 1;
    for page in [0, last] {
        world.make_dirty(&vmo, page, 1, 1);
    }
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(0, 1), (last, 1)]);
}

#[test]
fn it_works_in_a_detached_vmo_and_changes_nothing() {
    let world = World::new();
    let vmo = world.vmo(4);
    world.make_dirty(&vmo, 1, 2, 1);
    world.pager.detach_vmo(&vmo).unwrap();
    for _ in 0..3 {
        assert_eq!(dirty_ranges(&world.pager, &vmo), [(1, 2)]);
    }
    now(vmo.write(at(1, 0), &[2])).unwrap();
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(1, 2)]);
}
