//! Parts of mappings, and mappings at places of the caller's choice.

#![cfg(target_arch = "x86_64")] // where there are guards
#![allow(clippy::cast_possible_truncation)] // 64 bits

mod world;

use std::time::Duration;

use upager::{ByteRange, DirtyRange, PAGE_SIZE, PageCount, Status, VmoOptions};
use upager_linux::{Error, Protection, Reservation};
use world::{PAGE, World, evict_all, load, mapper, pages, pattern, store, try_load, until};

const SOON: Duration = Duration::from_secs(20);

/// The dirty runs: first page, and how many.
fn dirty(world: &World) -> Vec<(u64, u64)> {
    let mut ranges = [DirtyRange::default(); 8];
    let all = ByteRange::new(0, world.vmo.size());
    let found = world.pager.query_dirty_ranges(&world.vmo, all, &mut ranges).unwrap();
    ranges[..found.actual].iter().map(|range| (range.offset / PAGE_SIZE, range.length / PAGE_SIZE)).collect()
}

fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> Status {
    match result {
        Err(Error::Pager(status)) => status,
        other => panic!("{other:?}"),
    }
}

/// The kernel maps no two pages by one call that differ in what may be done to them.
#[test]
fn pages_on_both_sides_of_a_border_of_protection_are_brought_in_together() {
    let Some(mapper) = mapper() else { return };
    let world = World::new(64);
    let mapping = world.map(&mapper);
    world.supply(0, 64);
    for page in (1..64).step_by(4) {
        mapping.protect_part(page * PAGE, 2 * PAGE, Protection::ReadOnly).unwrap();
    }
    for page in 0..64 {
        assert_eq!(load(&mapping, page, 5), pattern(page));
    }
    // By fewer faults than there are pages, and no loop goes on trying what the kernel does not do.
    let counts = mapper.counts();
    assert!(counts.faults < 64, "{counts:?}");
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(mapper.counts().again, counts.again);
    for page in [0, 3, 4, 60, 63] {
        store(&mapping, page, 1, 1);
    }
    mapping.protect_part(PAGE, PAGE, Protection::ReadWrite).unwrap();
    store(&mapping, 1, 1, 1);
    assert_eq!(dirty(&world), [(0, 2), (3, 2), (60, 1), (63, 1)]);
    let part = |offset, len| refusal(mapping.protect_part(offset, len, Protection::ReadOnly));
    assert_eq!(part(64 * PAGE, PAGE), Status::OutOfRange);
    assert_eq!(part(0, 0), Status::InvalidArgs);
    assert_eq!(part(1, PAGE), Status::InvalidArgs);
}

/// The calls that take pages back go over the part that is not there any more.
#[test]
fn pages_beside_a_part_that_was_cut_out_are_protected_and_evicted_as_ever() {
    let Some(mapper) = mapper() else { return };
    let world = World::new(8);
    let (mapping, other) = (world.map(&mapper), world.map(&mapper));
    for page in 0..8 {
        store(&mapping, page, 1, 100 + page);
    }
    mapping.cut(3 * PAGE, 2 * PAGE).unwrap();
    mapping.cut(3 * PAGE, 2 * PAGE).unwrap();
    assert!(try_load(&mapping, 3, 1).is_none() && try_load(&mapping, 4, 1).is_none());
    assert_eq!(load(&other, 3, 1), 103);
    world.write_back_all();
    assert_eq!(dirty(&world), []);
    // On both sides the first store must fault, or it would be lost.
    for page in [2, 5, 7] {
        store(&mapping, page, 1, 200 + page);
    }
    assert_eq!(dirty(&world), [(2, 1), (5, 1), (7, 1)]);
    world.write_back_all();
    evict_all(&world);
    for page in [0, 2, 5, 6, 7] {
        assert_eq!(load(&mapping, page, 0), pattern(page));
    }
    assert_eq!(try_load(&mapping, 4, 1), None);
}

#[test]
fn who_waits_in_a_part_that_is_cut_out_gets_sigbus_and_who_waits_beside_it_the_page() {
    let Some(mapper) = mapper() else { return };
    let world = World::with(4, VmoOptions::NONE, 0);
    let mapping = world.map(&mapper);
    std::thread::scope(|s| {
        let (inside, beside) = (s.spawn(|| try_load(&mapping, 1, 0)), s.spawn(|| try_load(&mapping, 2, 0)));
        until("both are stopped", || mapper.counts().faults >= 2);
        mapping.cut(PAGE, PAGE).unwrap();
        assert_eq!(inside.join().unwrap(), None);
        assert!(!beside.is_finished());
        world.supply(0, 4);
        assert_eq!(beside.join().unwrap(), Some(pattern(2)));
        assert!(world.vmo.counts().dirty == PageCount(0));
    });
}

#[test]
fn a_place_of_a_reservation_is_one_mappings_until_it_is_free_again() {
    let Some(mapper) = mapper() else { return };
    let world = World::new(8);
    let reservation = Reservation::new(8 * PAGE).unwrap();
    let at = |page: usize| reservation.addresses().start + page * PAGE;
    let map = |page: usize, first: u64, count: u64| {
        mapper.map_at(&reservation, at(page), &world.vmo, pages(first, count), Protection::ReadWrite)
    };
    for round in 0..20 {
        let first = map(2, 0, 3).unwrap();
        assert_eq!(first.addresses(), &(at(2)..at(5)));
        assert_eq!(refusal(map(4, 0, 1)), Status::AlreadyExists);
        assert_eq!(refusal(map(7, 0, 2)), Status::OutOfRange);
        let second = map(5, 5, 1).unwrap();
        assert_eq!((load(&first, 1, 0), load(&second, 0, 0)), (pattern(1), pattern(5)));
        store(&first, 2, 1, round);
        drop((first, second));
        assert!(reservation.wait_until_free(reservation.addresses(), SOON), "round {round}");
    }
    assert_eq!(
        refusal(mapper.map_at(&reservation, at(0) + 1, &world.vmo, pages(0, 1), Protection::ReadOnly)),
        Status::InvalidArgs
    );
    let last = map(0, 0, 8).unwrap();
    drop(reservation); // the mapping keeps it
    assert_eq!(load(&last, 2, 1), 19);
}

/// What is mapped at a place has nothing of what was there before, nor of threads that were at work there.
#[test]
fn another_vmo_at_the_same_place_has_its_own_pages() {
    let Some(mapper) = mapper() else { return };
    let (one, other) = (World::new(64), World::new(64));
    let reservation = Reservation::new(64 * PAGE).unwrap();
    for round in 0..30_u64 {
        let world = if round % 2 == 0 { &one } else { &other };
        assert!(reservation.wait_until_free(reservation.addresses(), SOON));
        let whole =
            mapper.map_at(&reservation, reservation.addresses().start, &world.vmo, pages(0, 64), Protection::ReadWrite);
        let whole = whole.unwrap();
        std::thread::scope(|s| {
            for part in 0..3_u64 {
                let whole = &whole;
                s.spawn(move || {
                    for page in (part..64).step_by(3) {
                        let before = load(whole, page, 1);
                        assert!(before == pattern(page) || before % 2 == round % 2, "of the other VMO");
                        store(whole, page, 1, 2 * page + round % 2);
                    }
                });
            }
        });
    }
}
