//! Mapped writers beside writeback, eviction and refault: no store is lost.

#![cfg(target_arch = "x86_64")] // where there are guards
#![allow(clippy::cast_possible_truncation)] // 64 bits

mod world;

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use upager::{ByteRange, PAGE_SIZE, PageCount, Status, VmoOptions};
use upager_linux::MapperOptions;
use world::{PAGE, Reads, World, come_home, load, mapper, mapper_with, pattern, store, try_load, try_store, until};

#[test]
fn a_page_is_dirty_from_its_first_store_to_its_writeback() {
    let Some(mapper) = mapper() else { return };
    let world = World::new(4);
    let (first, second) = (world.map(&mapper), world.map(&mapper));
    load(&second, 1, 0);
    assert_eq!(world.write_back(), 0);
    store(&first, 1, 0, 5);
    store(&second, 1, 1, 6);
    assert_eq!(world.write_back(), 1);
    assert_eq!((world.store.word(1, 0), world.store.word(1, 1)), (5, 6));
    assert_eq!(world.write_back(), 0);
    for (mapping, value) in [(&first, 7), (&second, 8), (&first, 9)] {
        store(mapping, 1, 0, value);
        assert_eq!(world.write_back(), 1, "the store of {value} is seen");
        assert_eq!(world.store.word(1, 0), value);
    }
}

/// Each writer counts up in words of its own, through changing mappings, and at the end what was written back
/// must be what it stored last; so must what is loaded, at any time.
fn writers_against_writeback(loops: usize, seconds: u64, evict: bool, byte_writers: bool) {
    const PAGES: u64 = 48;
    let Some(mapper) = mapper_with(MapperOptions::default().loops(loops)) else { return };
    let world = Arc::new(World::with(PAGES, VmoOptions::NONE, 2));
    let mappings = Arc::new([world.map(&mapper), world.map(&mapper), world.map(&mapper)]);
    let stop = Arc::new(AtomicBool::new(false));
    let stores = Arc::new(AtomicU64::new(0));
    let writers: Vec<_> = (0..4_usize)
        .map(|n| {
            let (mappings, stop, stores) = (mappings.clone(), stop.clone(), stores.clone());
            std::thread::spawn(move || {
                let mut last = [0_u64; PAGES as usize];
                let mut count = 0_u64;
                let mut random = n as u64 + 1;
                while !stop.load(SeqCst) {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let page = (random >> 33) % PAGES;
                    let own = 8 + n;
                    let mapping = &mappings[(random >> 20) as usize % 3];
                    let before = load(mapping, page, own);
                    let expected = if last[page as usize] == 0 { pattern(page) } else { last[page as usize] };
                    assert_eq!(before, expected, "page {page}, word {own}: a store is lost");
                    count += 1;
                    if byte_writers && count.is_multiple_of(3) {
                        mapping.write(page as usize * PAGE + own * 8, &count.to_ne_bytes()).unwrap();
                    } else {
                        // Several in a row, so that some meet the page in the middle of a writeback.
                        for _ in 0..8 {
                            count += 1;
                            store(mapping, page, own, count);
                        }
                    }
                    last[page as usize] = count;
                    stores.fetch_add(1, SeqCst);
                }
                last
            })
        })
        .collect();
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let (mut rounds, mut evicted) = (0_u64, 0);
    while Instant::now() < deadline {
        world.write_back();
        if evict {
            evicted += world::evict_all(&world);
            world.platform_turn();
        }
        rounds += 1;
    }
    stop.store(true, SeqCst);
    let last = come_home(writers);
    assert!(rounds > 2000, "{rounds} rounds");
    world.write_back_all();
    for (n, last) in last.iter().enumerate() {
        for page in 0..PAGES {
            let expected = if last[page as usize] == 0 { pattern(page) } else { last[page as usize] };
            assert_eq!(world.store.word(page, 8 + n), expected, "page {page} of writer {n}");
            assert_eq!(load(&mappings[0], page, 8 + n), expected);
        }
    }
    println!("{} batches of stores, {rounds} rounds, {evicted} evictions, {:?}", stores.load(SeqCst), mapper.counts());
}

#[test]
fn no_store_is_lost_beside_writeback() {
    writers_against_writeback(1, 4, false, false);
}

#[test]
fn no_store_is_lost_beside_writeback_with_two_loops() {
    writers_against_writeback(2, 4, false, true);
}

#[test]
fn no_store_is_lost_beside_writeback_and_eviction() {
    writers_against_writeback(1, 4, true, false);
}

#[test]
fn no_store_is_lost_beside_writeback_and_eviction_with_two_loops_and_writers_of_bytes() {
    writers_against_writeback(2, 6, true, true);
}

impl World {
    fn platform_turn(&self) {
        use upager::Platform;
        for _ in 0..4 {
            self.platform.pin().flush();
        }
    }
}

/// Pages are made zeros, and the VMO shrinks and grows, while they are written to and written back: each page's
/// frames follow one another at its place.
#[test]
fn a_place_is_handed_from_frame_to_frame_under_load() {
    const PAGES: u64 = 24;
    let Some(mapper) = mapper_with(MapperOptions::default().loops(2).heal_after(Duration::from_micros(200))) else {
        return;
    };
    let world = Arc::new(World::with(PAGES, VmoOptions::RESIZABLE, 2));
    let mappings = Arc::new([world.map(&mapper), world.map(&mapper)]);
    let stop = Arc::new(AtomicBool::new(false));
    let mut threads = Vec::new();
    for n in 0..3_u64 {
        let (mappings, stop) = (mappings.clone(), stop.clone());
        threads.push(std::thread::spawn(move || {
            let (mut random, mut done) = (n + 7, 0_u64);
            while !stop.load(SeqCst) {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let page = (random >> 33) % PAGES;
                let mapping = &mappings[(random >> 20) as usize % 2];
                // What a word may be: the service's, zero, or this writer's; never another page's.
                let value = page << 32 | n << 24 | (done & 0xff_ffff);
                if try_store(mapping, page, 1 + n as usize, value)
                    && let Some(now) = try_load(mapping, page, 1 + n as usize)
                {
                    let ours = now >> 24 == value >> 24;
                    assert!(now == 0 || now == pattern(page) || ours, "page {page}: {now:#x}");
                }
                done += 1;
            }
            done
        }));
    }
    {
        let (world, stop) = (world.clone(), stop.clone());
        threads.push(std::thread::spawn(move || {
            let mut done = 0;
            while !stop.load(SeqCst) {
                upager::block_on(world.vmo.zero(ByteRange::new(done % 8 * PAGE_SIZE, 4 * PAGE_SIZE))).unwrap();
                done += 1;
            }
            done
        }));
    }
    {
        let (world, stop) = (world.clone(), stop.clone());
        threads.push(std::thread::spawn(move || {
            let mut done = 0;
            while !stop.load(SeqCst) {
                let size = if done % 2 == 0 { PAGES - 8 } else { PAGES };
                match world.vmo.set_size(size * PAGE_SIZE) {
                    Ok(()) | Err(Status::ShouldWait) => {}
                    Err(status) => panic!("{status}"),
                }
                done += 1;
            }
            world.vmo.set_size(PAGES * PAGE_SIZE).unwrap();
            done
        }));
    }
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut evicted = 0;
    while Instant::now() < deadline {
        // Sizes change: what is asked about may lie outside by now.
        let range = ByteRange::new(0, (PAGES - 8) * PAGE_SIZE);
        world.pager.writeback_begin(&world.vmo, range, upager::Writeback::All).unwrap();
        world.pager.writeback_end(&world.vmo, range).unwrap();
        evicted += world::evict_all(&world);
        world.platform_turn();
    }
    stop.store(true, SeqCst);
    println!("{:?}, {evicted} evicted, {:?}", come_home(threads), mapper.counts());
    drop(mappings);
    let platform = world.platform.clone();
    Arc::into_inner(world).expect("the threads are home").end();
    until("every frame comes back", || {
        use upager::Platform;
        platform.pin().flush();
        platform.counts().frames == PageCount(0)
    });
    assert_eq!(platform.counts().at_home, PageCount(0));
}

#[test]
fn a_trapped_page_is_written_to_when_the_service_allows_it() {
    let Some(mapper) = mapper_with(MapperOptions::default().heal_after(Duration::from_millis(2))) else { return };
    let world = World::with(8, VmoOptions::TRAP_DIRTY, 1);
    let mapping = world.map(&mapper);
    assert_eq!(load(&mapping, 3, 0), pattern(3));
    store(&mapping, 3, 0, 4);
    store(&mapping, 4, 0, 5);
    assert_eq!(world.vmo.counts().dirty, PageCount(2));
    assert_eq!(world.write_back(), 2);
    *world.store.reads.lock().unwrap() = Reads::Fail(Status::NoSpace);
    assert!(!try_store(&mapping, 3, 0, 6));
    until("it can be read", || try_load(&mapping, 3, 0) == Some(4));
    *world.store.reads.lock().unwrap() = Reads::Supply;
    until("it can be written to", || try_store(&mapping, 3, 0, 6));
    assert_eq!(load(&mapping, 3, 0), 6);
}
