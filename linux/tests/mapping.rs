//! Mapped pages: that touching them gives their bytes, through every mapping.

#![cfg(target_arch = "x86_64")] // where there are guards
#![allow(clippy::cast_possible_truncation)] // 64 bits

mod world;

use std::sync::Arc;

use upager::{ByteOffset, ByteRange, PAGE_SIZE, PageCount, Status, block_on};
use upager_linux::{Error, Mapping, Protection};
use world::{PAGE, World, come_home, evict_all, load, mapper, pages, pattern, resident, store, try_load, until};

/// Again and again, for what the loop brings near meanwhile: it is on its way beyond the pages that were read.
fn evict_until_all_are_freed(world: &World) {
    until("all are freed", || {
        evict_all(world);
        world.settle();
        world.platform.counts().frames == PageCount(0)
    });
}

#[test]
fn a_touch_brings_a_page_in() {
    let Some(mapper) = mapper() else { return };
    let world = World::new(64);
    let mapping = world.map(&mapper);
    for page in [3, 0, 63, 17] {
        assert_eq!(load(&mapping, page, 5), pattern(page));
    }
    assert!(resident(&world, 17));
    assert_eq!(world.vmo.counts().dirty, PageCount(0));
    assert!(mapper.counts().faults >= 4);
    assert_eq!(mapper.counts().failed, 0);
}

#[test]
fn a_store_is_seen_through_every_mapping_and_by_the_pager() {
    let Some(mapper) = mapper() else { return };
    let world = World::new(8);
    let mappings: Vec<_> = (0..3).map(|_| world.map(&mapper)).collect();
    store(&mappings[0], 2, 1, 42);
    assert_eq!(world.vmo.counts().dirty, PageCount(1));
    for mapping in &mappings {
        assert_eq!(load(mapping, 2, 1), 42);
        assert_eq!(load(mapping, 2, 0), pattern(2));
    }
    let mut bytes = [0; 8];
    block_on(world.vmo.read(ByteOffset(2 * PAGE_SIZE + 8), &mut bytes)).unwrap();
    assert_eq!(u64::from_ne_bytes(bytes), 42);
    block_on(world.vmo.write(ByteOffset(2 * PAGE_SIZE + 16), &43_u64.to_ne_bytes())).unwrap();
    assert_eq!(load(&mappings[1], 2, 2), 43);
    store(&mappings[2], 2, 3, 44);
    assert_eq!(load(&mappings[0], 2, 3), 44);
    assert_eq!(world.vmo.counts().dirty, PageCount(1));
}

#[test]
fn a_part_of_a_vmo_is_mapped_at_its_place() {
    let Some(mapper) = mapper() else { return };
    let world = World::new(16);
    let part = mapper.map(&world.vmo, pages(4, 3), Protection::ReadOnly).unwrap();
    assert_eq!((part.len(), part.range()), (3 * PAGE, pages(4, 3)));
    let whole = world.map(&mapper);
    for page in 0..3 {
        assert_eq!(load(&part, page, 9), pattern(page + 4));
    }
    store(&whole, 5, 9, 7);
    assert_eq!(load(&part, 1, 9), 7);
}

#[test]
fn mappings_of_several_mappers_and_loops_see_the_same() {
    let Some(first) = mapper() else { return };
    let Some(second) = world::mapper_with(upager_linux::MapperOptions::default().loops(2)) else { return };
    let world = World::new(256);
    let mappings = Arc::new([world.map(&first), world.map(&second), world.map(&second)]);
    let threads = (0..6)
        .map(|n| {
            let mappings = mappings.clone();
            std::thread::spawn(move || {
                for step in 0..256 {
                    let page = (step * 37 + n * 41) % 256;
                    let mapping: &Mapping = &mappings[(step + n) as usize % 3];
                    assert_eq!(load(mapping, page, 0), pattern(page));
                    store(mapping, page, 1 + n as usize, step);
                    assert_eq!(load(&mappings[(step + n + 1) as usize % 3], page, 1 + n as usize), step);
                }
            })
        })
        .collect();
    come_home(threads);
}

#[test]
fn bytes_are_read_and_written_with_a_result() {
    let Some(mapper) = mapper() else { return };
    let world = World::new(8);
    let mapping = mapper.map(&world.vmo, pages(2, 4), Protection::ReadWrite).unwrap();
    let other = world.map(&mapper);
    mapping.write(PAGE - 3, b"across").unwrap();
    let mut bytes = [0; 6];
    mapping.read(PAGE - 3, &mut bytes).unwrap();
    assert_eq!(&bytes, b"across");
    mapping.copy_to(PAGE - 3, &other, 7 * PAGE, 6).unwrap();
    other.read(7 * PAGE, &mut bytes).unwrap();
    assert_eq!(&bytes, b"across");
    assert!(matches!(mapping.read(4 * PAGE - 5, &mut bytes), Err(Error::Pager(Status::OutOfRange))));
    world.pager.detach_vmo(&world.vmo).unwrap();
    assert!(matches!(mapping.read(3 * PAGE, &mut bytes), Err(Error::Pager(Status::BadState))), "never there");
    mapping.read(PAGE, &mut bytes).unwrap();
    mapping.close();
    assert!(matches!(mapping.read(PAGE, &mut bytes), Err(Error::Pager(Status::BadState))));
}

#[test]
fn what_cannot_be_mapped_is_refused() {
    let Some(mapper) = mapper() else { return };
    let world = World::new(4);
    for (offset, length, status) in [
        (0, 0, Status::InvalidArgs),
        (1, PAGE_SIZE, Status::InvalidArgs),
        (0, 5 * PAGE_SIZE, Status::OutOfRange),
        (PAGE_SIZE, u64::MAX - 4095, Status::OutOfRange),
    ] {
        let refused = mapper.map(&world.vmo, ByteRange::new(offset, length), Protection::ReadOnly);
        assert!(matches!(refused, Err(Error::Pager(is)) if is == status), "{offset} {length}");
    }
}

#[test]
fn zeros_that_are_not_stored_can_be_touched() {
    let Some(mapper) = mapper() else { return };
    let world = World::new(8);
    let mapping = world.map(&mapper);
    store(&mapping, 1, 0, 5);
    block_on(world.vmo.zero(pages(0, 4))).unwrap();
    assert_eq!((load(&mapping, 1, 0), load(&mapping, 3, 0)), (0, 0));
    store(&mapping, 1, 0, 6);
    assert_eq!(load(&mapping, 1, 0), 6);
    assert_eq!(load(&mapping, 4, 0), pattern(4));
}

#[test]
fn evicted_pages_come_back_and_their_memory_goes() {
    let Some(mapper) = mapper() else { return };
    let world = World::new(64);
    let mapping = world.map(&mapper);
    let sum: u64 = (0..64).map(|page| load(&mapping, page, 0)).fold(0, u64::wrapping_add);
    assert_eq!(sum, (0..64).map(pattern).fold(0, u64::wrapping_add));
    world::until("all are home", || world.platform.counts().at_home == PageCount(64));
    assert_eq!(evict_all(&world), 64);
    evict_until_all_are_freed(&world);
    assert_eq!(load(&mapping, 9, 0), pattern(9));
    assert!(resident(&world, 9));
}

#[test]
fn a_mapping_may_change_its_protection() {
    let Some(mapper) = mapper() else { return };
    let world = World::new(4);
    let mapping = mapper.map(&world.vmo, pages(0, 4), Protection::ReadOnly).unwrap();
    assert_eq!(load(&mapping, 1, 0), pattern(1));
    mapping.protect(Protection::ReadWrite).unwrap();
    store(&mapping, 1, 0, 3);
    mapping.protect(Protection::ReadOnly).unwrap();
    assert_eq!(world.write_back(), 1);
    assert_eq!(world.store.word(1, 0), 3);
    mapping.protect(Protection::ReadWrite).unwrap();
    store(&mapping, 1, 0, 4);
    assert_eq!(world.vmo.counts().dirty, PageCount(1));
}

#[test]
fn the_mapper_lives_as_long_as_its_mappings() {
    let Some(mapper) = mapper() else { return };
    let world = World::new(4);
    let mapping = world.map(&mapper);
    drop(mapper);
    assert_eq!(load(&mapping, 2, 0), pattern(2));
    assert_eq!(try_load(&mapping, 3, 0), Some(pattern(3)));
    let vmo = Arc::downgrade(&world.vmo);
    world.end();
    assert_eq!(load(&mapping, 2, 0), pattern(2), "what is there stays, without a pager");
    drop(mapping);
    world::until("the VMO goes with its last mapping", || vmo.upgrade().is_none());
}

#[test]
fn reading_on_brings_in_more_and_more_by_one_request() {
    let Some(mapper) = mapper() else { return };
    let world = World::new(1024);
    let mapping = world.map(&mapper);
    for page in 0..1024 {
        assert_eq!(load(&mapping, page, 0), pattern(page));
    }
    assert!(world.vmo.counts().requests < 64, "{:?}", world.vmo.counts());
    // More where the reader is faster than the loop, and faults within a window that it is at work on.
    assert!(mapper.counts().faults < 128, "{:?}", mapper.counts());
}

/// A window of a sequence, of which pages were taken away: the first of them that is touched has all of them brought in.
#[test]
fn a_page_that_is_not_there_asks_for_the_rest_of_its_window() {
    let Some(mapper) = world::mapper_with(upager_linux::MapperOptions::default().read_ahead(PageCount(16))) else {
        return;
    };
    let world = World::new(128);
    let mapping = world.map(&mapper);
    // All is there, so each fault maps its window by one call, and the reader is not faster than that.
    world.supply(0, 128);
    // Windows of 1, 2, 4, 8 and 16 pages.
    for page in 0..31 {
        assert_eq!(load(&mapping, page, 5), pattern(page));
    }
    assert_eq!(mapper.counts().faults, 5);
    // A page that is on its way out needs no request.
    evict_until_all_are_freed(&world);
    let before = mapper.counts();
    assert_eq!(load(&mapping, 20, 5), pattern(20));
    assert!((20..31).all(|page| resident(&world, page)) && !resident(&world, 31) && !resident(&world, 19));
    for page in 21..31 {
        assert_eq!(load(&mapping, page, 5), pattern(page));
    }
    assert_eq!((mapper.counts().asked - before.asked, mapper.counts().faults - before.faults), (1, 1));
}
