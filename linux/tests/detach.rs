//! Detach and close under mapped threads: everyone comes home, with SIGBUS or with data, and nobody reads zeros.

#![cfg(target_arch = "x86_64")] // where there are guards
#![allow(clippy::cast_possible_truncation)] // 64 bits

mod world;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use upager::{ByteRange, PageCount, Status, VmoOptions};
use upager_linux::MapperOptions;
use world::{Reads, World, come_home, load, mapper, mapper_with, pattern, store, try_load, try_store, until};

#[test]
fn hundreds_of_stopped_threads_come_home_at_detach() {
    const THREADS: u64 = 400;
    let Some(mapper) = mapper_with(MapperOptions::default().loops(2)) else { return };
    let world = World::new(THREADS);
    *world.store.reads.lock().unwrap() = Reads::Ignore;
    let mapping = Arc::new(world.map(&mapper));
    let threads: Vec<_> = (0..THREADS)
        .map(|n| {
            let mapping = mapping.clone();
            // Some pages are waited for by several, some for writing.
            let page = n / 2 * 2;
            std::thread::Builder::new()
                .stack_size(64 << 10)
                .spawn(move || {
                    if n % 3 == 0 { try_store(&mapping, page, 0, 1).then_some(1) } else { try_load(&mapping, page, 0) }
                })
                .unwrap()
        })
        .collect();
    until("all are stopped", || mapper.counts().faults >= THREADS);
    until("the requests are made", || world.vmo.counts().in_flight >= THREADS / 2);
    std::thread::sleep(Duration::from_millis(10));
    world.pager.detach_vmo(&world.vmo).unwrap();
    assert!(come_home(threads).iter().all(Option::is_none), "nobody gets data, or zeros");
    for page in 0..THREADS {
        assert_eq!(try_load(&mapping, page, 0), None, "later touches fail too");
    }
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(try_load(&mapping, 0, 0), None, "and after the page was allowed to ask again");
    assert!(!try_store(&mapping, 1, 0, 1));
}

#[test]
fn dirty_pages_stay_and_clean_ones_go() {
    let Some(mapper) = mapper() else { return };
    let world = World::new(8);
    let mapping = world.map(&mapper);
    let second = world.map(&mapper);
    for page in 0..8 {
        load(&mapping, page, 0);
    }
    store(&mapping, 2, 0, 22);
    store(&mapping, 5, 0, 55);
    let detached = world.pager.detach_vmo(&world.vmo).unwrap();
    assert_eq!(detached.dropped_pages, PageCount(6));
    for page in 0..8 {
        let expected = match page {
            2 => Some(22),
            5 => Some(55),
            _ => None,
        };
        assert_eq!(try_load(&mapping, page, 0), expected, "page {page}");
        assert_eq!(try_load(&second, page, 0), expected, "page {page}, through the other mapping");
    }
    store(&second, 2, 1, 23);
    assert_eq!(world.write_back(), 2);
    assert_eq!((world.store.word(2, 0), world.store.word(2, 1), world.store.word(5, 0)), (22, 23, 55));
    assert_eq!(try_load(&mapping, 2, 0), None, "written back, it goes");
    assert!(!try_store(&second, 5, 0, 1));
}

/// Under load, with eviction and writeback going on: reads give the page's word or fail, before and after.
#[test]
fn detach_in_the_middle_of_everything() {
    let Some(mapper) = mapper_with(MapperOptions::default().loops(2)) else { return };
    for round in 0..30 {
        let world = Arc::new(World::with(128, VmoOptions::NONE, 2));
        let mappings = Arc::new([world.map(&mapper), world.map(&mapper)]);
        let stop = Arc::new(AtomicBool::new(false));
        let detached = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for n in 0..6 {
            let (mappings, stop, detached) = (mappings.clone(), stop.clone(), detached.clone());
            threads.push(std::thread::spawn(move || {
                let mut page = n * 29;
                let (mut served, mut refused) = (0_u64, 0_u64);
                while !stop.load(SeqCst) {
                    page = (page * 5 + 17 + n) % 128;
                    let mapping = &mappings[(page % 2) as usize];
                    let after = detached.load(SeqCst);
                    // Word 0 is never written to, so it is the pattern; the others are zero only by mistake.
                    match try_load(mapping, page, 0) {
                        Some(loaded) => {
                            assert_eq!(loaded, pattern(page), "page {page}");
                            served += 1;
                        }
                        None => refused += 1,
                    }
                    if n % 2 == 0 {
                        try_store(mapping, page, 1 + n as usize, served + 1);
                    }
                    if after && n % 2 == 1 && refused > 1000 {
                        break;
                    }
                }
                (served, refused)
            }));
        }
        let helper = {
            let (world, stop) = (world.clone(), stop.clone());
            std::thread::spawn(move || {
                while !stop.load(SeqCst) {
                    world.vmo.evict(PageCount(16), upager::Evict::Any);
                    world.write_back();
                }
                (1, 0)
            })
        };
        threads.push(helper);
        std::thread::sleep(Duration::from_millis(10 + round % 7 * 5));
        world.pager.detach_vmo(&world.vmo).unwrap();
        detached.store(true, SeqCst);
        std::thread::sleep(Duration::from_millis(10));
        stop.store(true, SeqCst);
        let ended = come_home(threads);
        assert!(ended.iter().any(|(served, _)| *served > 0));
        world.write_back_all();
        for page in 0..128 {
            assert_eq!(try_load(&mappings[0], page, 0), None, "round {round}, page {page}");
        }
    }
}

#[test]
fn a_closed_pager_leaves_what_is_there() {
    let Some(mapper) = mapper_with(MapperOptions::default().read_ahead(PageCount(1))) else { return };
    let mut world = World::new(4);
    let mapping = Arc::new(world.map(&mapper));
    load(&mapping, 1, 0);
    store(&mapping, 2, 0, 9);
    *world.store.reads.lock().unwrap() = Reads::Ignore;
    let waiter = {
        let mapping = mapping.clone();
        std::thread::spawn(move || try_load(&mapping, 3, 0))
    };
    until("it is stopped", || world.vmo.counts().in_flight == 1);
    world.stop_service();
    // The last reference closes it.
    world.pager = Arc::new(upager::Pager::new(world.platform.clone()));
    assert_eq!(come_home(vec![waiter]), [None]);
    assert_eq!((try_load(&mapping, 1, 0), try_load(&mapping, 2, 0)), (Some(pattern(1)), Some(9)));
    assert!(try_store(&mapping, 1, 0, 8), "a clean page may be written to: nobody need be asked");
    assert_eq!(try_load(&mapping, 0, 0), None);
    assert_eq!(world.vmo.counts().resident, PageCount(2));
}

#[test]
fn failed_requests_raise_sigbus_and_may_be_asked_again() {
    let Some(mapper) = mapper_with(MapperOptions::default().heal_after(Duration::from_millis(5))) else { return };
    let world = World::new(8);
    let mapping = world.map(&mapper);
    *world.store.reads.lock().unwrap() = Reads::Fail(Status::Io);
    assert_eq!(try_load(&mapping, 3, 0), None);
    assert!(!try_store(&mapping, 3, 0, 1));
    let mut bytes = [0; 8];
    let read = mapping.read(3 * world::PAGE, &mut bytes);
    assert!(matches!(read, Err(upager_linux::Error::Pager(Status::Io))), "{read:?}");
    *world.store.reads.lock().unwrap() = Reads::Supply;
    until("the page can be had again", || try_load(&mapping, 3, 0) == Some(pattern(3)));
    store(&mapping, 3, 0, 5);
    assert_eq!(load(&mapping, 3, 0), 5);
    assert_eq!(load(&mapping, 4, 0), pattern(4), "its neighbours were never failed");
}

#[test]
fn what_is_cut_off_raises_sigbus() {
    let Some(mapper) = mapper_with(MapperOptions::default().heal_after(Duration::from_millis(5))) else { return };
    let world = World::with(16, VmoOptions::RESIZABLE, 1);
    let mapping = Arc::new(world.map(&mapper));
    for page in 0..16 {
        store(&mapping, page, 0, page);
    }
    *world.store.reads.lock().unwrap() = Reads::Ignore;
    evict_clean_page(&world, 12);
    let waiter = {
        let mapping = mapping.clone();
        std::thread::spawn(move || try_load(&mapping, 12, 0))
    };
    until("it is stopped", || world.vmo.counts().in_flight == 1);
    world.vmo.set_size(8 * upager::PAGE_SIZE).unwrap();
    assert_eq!(come_home(vec![waiter]), [None]);
    for page in 0..16 {
        assert_eq!(try_load(&mapping, page, 0), (page < 8).then_some(page), "page {page}");
    }
    world.vmo.set_size(16 * upager::PAGE_SIZE).unwrap();
    until("the pages are zeros now", || (8..16).all(|page| try_load(&mapping, page, 0) == Some(0)));
    store(&mapping, 9, 0, 90);
    assert_eq!(load(&mapping, 9, 0), 90);
    assert_eq!(load(&mapping, 7, 0), 7);
}

fn evict_clean_page(world: &World, page: u64) {
    let range: ByteRange = world::pages(page, 1);
    world.pager.writeback_begin(&world.vmo, range, upager::Writeback::All).unwrap();
    world.pager.writeback_end(&world.vmo, range).unwrap();
    assert_eq!(world::evict_all(world), 1);
    until("the grace period is over", || {
        world.settle();
        world.platform.counts().frames == PageCount(15)
    });
}
