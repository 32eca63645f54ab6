//! Statistics: what a service asks about a VMO, what a VMO counts, and the board that shows it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use upager::{
    Access, Evict, PageCount, PageIndex, Pager, Platform, StatsBoard, Status, VmoCounts, VmoStats, VmoStatsOptions,
    Writeback,
};
use upager_tests::{Hooked, SetOnDrop, Task, World, at, dirty_ranges, now, pages, pattern};

use VmoStatsOptions::{Keep, Reset};

fn modified<P: Platform>(world: &World<P>, vmo: &upager::Vmo<P>, options: VmoStatsOptions) -> bool {
    world.pager.query_vmo_stats(vmo, options).expect("the pager's own VMO").is_modified()
}

#[test]
fn the_stats_have_zircons_layout_and_values() {
    assert_eq!((size_of::<VmoStats>(), align_of::<VmoStats>()), (4, 4));
    let world = World::new();
    let vmo = world.vmo(1);
    assert_eq!(world.pager.query_vmo_stats(&vmo, Keep), Ok(VmoStats { modified: 0 }));
    world.make_dirty(&vmo, 0, 1, 1);
    assert_eq!(world.pager.query_vmo_stats(&vmo, Keep), Ok(VmoStats { modified: 1 }));
}

#[test]
fn options_have_zircons_bits_and_no_others() {
    assert_eq!(VmoStatsOptions::from_bits(0), Ok(Keep));
    assert_eq!(VmoStatsOptions::from_bits(1), Ok(Reset));
    for bits in [2, 3, 4, 1 << 31, u32::MAX] {
        assert_eq!(VmoStatsOptions::from_bits(bits), Err(Status::InvalidArgs), "{bits:#x}");
    }
    assert_eq!(VmoStatsOptions::default(), Keep);
}

#[test]
fn another_pagers_vmo_is_refused_and_nothing_is_reset() {
    let world = World::new();
    let vmo = world.vmo(1);
    world.make_dirty(&vmo, 0, 1, 1);
    let other = Pager::new(world.platform.clone());
    for options in [Keep, Reset] {
        assert_eq!(other.query_vmo_stats(&vmo, options), Err(Status::InvalidArgs));
    }
    assert!(modified(&world, &vmo, Keep));
}

#[test]
fn a_reset_reports_and_clears_in_one_step_and_a_query_without_it_clears_nothing() {
    let world = World::new();
    let vmo = world.vmo(2);
    world.make_dirty(&vmo, 0, 1, 1);
    assert!(modified(&world, &vmo, Keep));
    assert!(modified(&world, &vmo, Keep));
    assert!(modified(&world, &vmo, Reset));
    assert!(!modified(&world, &vmo, Keep));
    assert!(!modified(&world, &vmo, Reset));
    now(vmo.write(at(0, 9), &[2])).unwrap();
    assert!(modified(&world, &vmo, Reset), "a page that was dirty already counts too");
}

#[test]
fn writes_set_it_and_nothing_else_does() {
    let world = World::new();
    let vmo = world.vmo(8);
    world.supply(&vmo, 0, 4).unwrap();
    world.contents(&vmo, 0);
    now(vmo.fault(PageIndex(1), Access::Read)).unwrap();
    now(vmo.write(at(0, 0), &[])).unwrap();
    let waiter = Task::pending(vmo.fault(PageIndex(6), Access::Write));
    vmo.evict(PageCount(1), Evict::Any);
    assert!(!modified(&world, &vmo, Keep), "supply, reads, no bytes, a write fault that waits");
    drop(waiter);

    now(vmo.write(at(2, 0), &[1])).unwrap();
    assert!(modified(&world, &vmo, Reset));
    world.write_back(&vmo, 2, 1);
    assert!(!modified(&world, &vmo, Keep), "writeback");
    world.pager.detach_vmo(&vmo).unwrap();
    assert!(!modified(&world, &vmo, Keep), "detach");
}

#[test]
fn a_mapped_write_sets_it_when_it_faults() {
    let world = World::new();
    let vmo = world.vmo(2);
    let mut waiter = Task::pending(vmo.fault(PageIndex(0), Access::Write));
    world.supply(&vmo, 0, 1).unwrap();
    assert!(!modified(&world, &vmo, Keep));
    assert_eq!(waiter.poll(), Some(Ok(())));
    assert!(modified(&world, &vmo, Reset));
    // After BEGIN the page is write-protected, and the next store faults.
    world.pager.writeback_begin(&vmo, pages(0, 1), Writeback::All).unwrap();
    now(vmo.fault(PageIndex(0), Access::Write)).unwrap();
    assert!(modified(&world, &vmo, Reset));
    now(vmo.fault(PageIndex(0), Access::Write)).unwrap();
    assert!(modified(&world, &vmo, Reset), "so does one on a dirty page");
}

#[test]
fn a_write_that_failed_behind_its_first_page_has_modified_that_page() {
    let world = World::new();
    let vmo = world.vmo(2);
    world.supply(&vmo, 0, 1).unwrap();
    let write = Task::pending(vmo.write(at(0, 4000), &[7; 200]));
    world.pager.fail_range(&vmo, pages(1, 1), Status::Io).unwrap();
    assert!(modified(&world, &vmo, Keep));
    assert_eq!(write.woken_with(), Err(Status::Io));
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(0, 1)]);
}

#[test]
fn a_reset_in_the_middle_of_a_write_does_not_lose_it() {
    let world = World::on(Hooked::default());
    let vmo = Arc::new(world.vmo(1));
    world.make_dirty(&vmo, 0, 1, 1);
    let world = Arc::new(world);
    let (w, v) = (world.clone(), vmo.clone());
    world.platform.before_copy_in(move || assert!(modified(&w, &v, Reset)));
    now(vmo.write(at(0, 0), &[2])).unwrap();
    assert!(modified(&world, &vmo, Reset), "the bytes came after the reset");
}

#[test]
fn it_works_when_detached_and_a_write_to_a_page_that_stayed_sets_it() {
    let world = World::new();
    let vmo = world.vmo(2);
    world.make_dirty(&vmo, 0, 1, 1);
    world.pager.detach_vmo(&vmo).unwrap();
    assert!(modified(&world, &vmo, Reset));
    assert_eq!(now(vmo.write(at(1, 0), &[1])), Err(Status::BadState));
    assert!(!modified(&world, &vmo, Reset));
    now(vmo.write(at(0, 0), &[2])).unwrap();
    assert!(modified(&world, &vmo, Reset));
}

#[test]
fn vmos_are_modified_each_for_itself() {
    let world = World::new();
    let (one, other) = (world.vmo(1), world.vmo_with_key(1, 2));
    world.make_dirty(&one, 0, 1, 1);
    assert!(!modified(&world, &other, Keep));
    assert!(modified(&world, &one, Keep));
}

#[test]
fn every_write_of_many_threads_is_reported_or_seen() {
    // Writers count up, each in its page. The service takes what it sees after each reset that says
    // "modified"; at the end it has seen the last count of each.
    const WRITERS: usize = 2;
    const WRITES: u64 = 20_000;
    let world = World::new();
    let vmo = world.vmo(WRITERS as u64);
    world.supply(&vmo, 0, WRITERS as u64).unwrap();
    let count_of = |page| {
        let mut bytes = [0; 8];
        now(vmo.read(at(page, 0), &mut bytes)).unwrap();
        u64::from_le_bytes(bytes)
    };
    let seen = thread::scope(|s| {
        let writers: Vec<_> = (0..WRITERS as u64)
            .map(|page| {
                let vmo = &vmo;
                s.spawn(move || {
                    for n in 1..=WRITES {
                        now(vmo.write(at(page, 0), &n.to_le_bytes())).unwrap();
                    }
                })
            })
            .collect();
        let mut seen = [0; WRITERS];
        loop {
            let over = writers.iter().all(thread::ScopedJoinHandle::is_finished);
            if modified(&world, &vmo, Reset) {
                seen = std::array::from_fn(|page| count_of(page as u64));
            } else if over {
                return seen;
            }
        }
    });
    assert_eq!(seen, [WRITES; WRITERS]);
}

#[test]
fn awaiting_pages_are_counted_among_the_dirty_ones() {
    let world = World::new();
    let vmo = world.vmo(8);
    let figures = || {
        let counts = vmo.counts();
        (counts.resident.0, counts.dirty.0, counts.awaiting.0)
    };
    world.make_dirty(&vmo, 0, 4, 1);
    world.supply(&vmo, 6, 1).unwrap();
    assert_eq!(figures(), (5, 4, 0));
    world.pager.writeback_begin(&vmo, pages(0, 3), Writeback::All).unwrap();
    assert_eq!(figures(), (5, 4, 3));
    now(vmo.write(at(1, 0), &[2])).unwrap();
    assert_eq!(figures(), (5, 4, 2));
    world.pager.writeback_end(&vmo, pages(0, 8)).unwrap();
    assert_eq!(figures(), (5, 2, 0));
    world.pager.writeback_begin(&vmo, pages(0, 8), Writeback::All).unwrap();
    world.pager.detach_vmo(&vmo).unwrap();
    assert_eq!(figures(), (2, 2, 2));
    world.pager.writeback_end(&vmo, pages(0, 8)).unwrap();
    assert_eq!(figures(), (0, 0, 0));
}

#[test]
fn evictions_are_counted_also_those_of_detach() {
    let world = World::new();
    let vmo = world.vmo(100);
    world.supply(&vmo, 0, 100).unwrap();
    assert_eq!(vmo.evict(PageCount(70), Evict::Any), PageCount(70));
    assert_eq!((vmo.counts().evictions, vmo.counts().rescues), (70, 0));
    let detached = world.pager.detach_vmo(&vmo).unwrap();
    assert_eq!(detached.dropped_pages, PageCount(30));
    assert_eq!((vmo.counts().evictions, vmo.counts().rescues), (100, 0));
}

#[test]
fn rescues_are_counted_by_read_write_fault_and_supply() {
    let world = World::new();
    let vmo = world.vmo(8);
    let guard = world.platform.pin(); // while it lives no page is gone for good
    world.supply(&vmo, 0, 8).unwrap();
    assert_eq!(vmo.evict(PageCount(8), Evict::Any), PageCount(8));
    world.contents(&vmo, 0);
    assert_eq!(vmo.counts().rescues, 1);
    now(vmo.write(at(1, 0), &[1])).unwrap();
    assert_eq!(vmo.counts().rescues, 2);
    now(vmo.fault(PageIndex(2), Access::Write)).unwrap();
    assert_eq!(vmo.counts().rescues, 3);
    world.supply(&vmo, 3, 5).unwrap();
    assert_eq!(vmo.counts().rescues, 8);
    world.contents(&vmo, 4);
    assert_eq!(vmo.counts().rescues, 8, "a page is rescued once");
    assert_eq!((vmo.counts().evictions, vmo.counts().resident), (8, PageCount(8)));
    drop(guard);
    assert_eq!(world.contents(&vmo, 5), pattern(5));
}

#[test]
fn evictions_under_a_dirty_request_and_rescues_by_op_dirty_are_counted() {
    let world = World::new();
    let vmo = world.trapping(3);
    let guard = world.platform.pin(); // while it lives no page is gone for good
    let writer = Task::pending(vmo.fault(PageIndex(0), Access::Write));
    assert_eq!(vmo.evict(PageCount(3), Evict::Any), PageCount(3));
    assert_eq!((vmo.counts().evictions, vmo.counts().rescues), (3, 0));
    world.let_dirty(&vmo, 0, 1).unwrap();
    assert_eq!(vmo.counts().rescues, 1, "one page");
    world.let_dirty(&vmo, 1, 2).unwrap();
    assert_eq!(vmo.counts().rescues, 3, "several pages");
    drop((writer, guard));
}

#[test]
fn zeros_modify_the_vmo_and_an_empty_range_of_them_does_not() {
    let world = World::new();
    let vmo = world.vmo(2);
    now(vmo.zero(pages(1, 0))).unwrap();
    assert!(!modified(&world, &vmo, Reset));
    now(vmo.zero(pages(1, 1))).unwrap();
    assert!(modified(&world, &vmo, Reset));
}

#[test]
fn counts_are_nested_in_every_answer() {
    let world = World::new();
    let vmo = world.vmo(256);
    let over = AtomicBool::new(false);
    thread::scope(|s| {
        let _over = SetOnDrop(&over);
        s.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                world.make_dirty(&vmo, 0, 256, 1);
                world.write_back(&vmo, 0, 256);
                vmo.evict(PageCount(256), Evict::Any);
                world.platform.pin().flush();
            }
        });
        for _ in 0..5000 {
            let counts = vmo.counts();
            assert!(counts.awaiting <= counts.dirty && counts.dirty <= counts.resident, "{counts:?}");
        }
    });
}

/// Figures that are all the same number.
fn all(n: u64) -> VmoCounts {
    let mut counts = VmoCounts::default();
    (counts.resident, counts.dirty, counts.awaiting) = (PageCount(n), PageCount(n), PageCount(n));
    (counts.in_flight, counts.requests, counts.joins) = (n, n, n);
    (counts.evictions, counts.rescues) = (n, n);
    counts
}

#[test]
fn a_board_shows_what_was_posted_last() {
    let world = World::new();
    let vmo = world.vmo(4);
    let board = StatsBoard::new();
    assert_eq!(board.read(), VmoCounts::default());
    world.make_dirty(&vmo, 0, 3, 1);
    board.post(vmo.counts());
    let posted = vmo.counts();
    drop(vmo);
    assert_eq!(board.read(), posted, "and needs no VMO");
    assert_eq!(posted.dirty, PageCount(3));
}

#[test]
fn no_reader_of_a_board_sees_parts_of_two_posts() {
    let board = StatsBoard::new();
    let over = AtomicBool::new(false);
    thread::scope(|s| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                s.spawn(|| {
                    let (mut last, mut changes) = (0, 0);
                    while !over.load(Ordering::SeqCst) {
                        let seen = board.read();
                        assert_eq!(seen, all(seen.requests), "torn");
                        assert!(seen.requests >= last, "older than what was read before");
                        changes += u64::from(seen.requests != last);
                        last = seen.requests;
                    }
                    changes
                })
            })
            .collect();
        let _over = SetOnDrop(&over);
        for n in 0..200_000 {
            board.post(all(n));
            if n % 1000 == 0 {
                thread::yield_now();
            }
        }
        over.store(true, Ordering::SeqCst);
        let changes: u64 = readers.into_iter().map(|reader| reader.join().expect("the reader ends")).sum();
        assert!(changes > 0, "the readers saw nothing happen");
    });
    assert_eq!(board.read(), all(199_999));
}
