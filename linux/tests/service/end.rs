//! The end of a service, or of a part of it, at any instant.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use upager::{ByteOffset, ByteRange, PAGE_SIZE, PageCount, Status, block_on};
use upager_linux::service::{MemoryLimit, Writes};
use upager_linux::source::{ErrorKind, Fault, Injector, Operation, Rule};

use crate::sources::{Bad, Badness, patterns, word_of};
use crate::world::{come_home, load, mapper, mapper_with, pattern, store, try_load, try_store, until};
use crate::{eager, map, quick, quiet, set_word, word};

#[test]
fn a_shutdown_writes_back_what_is_dirty() {
    let Some(mapper) = mapper() else { return };
    let service = quiet().start().unwrap();
    let sources: Vec<_> = (0..3).map(|_| Arc::new(patterns(100))).collect();
    let vmos: Vec<_> = sources.iter().map(|source| service.open(source.clone(), Writes::WriteBack).unwrap()).collect();
    let mappings: Vec<_> = vmos.iter().map(|vmo| map(&mapper, vmo)).collect();
    for (n, mapping) in mappings.iter().enumerate() {
        for page in 0..50 {
            store(mapping, page * 2, 0, page + n as u64);
        }
    }
    let end = service.shutdown(Duration::from_secs(20));
    assert_eq!((end.written, end.unwritten.len()), (PageCount(150), 0));
    for (n, source) in sources.iter().enumerate() {
        assert!((0..50).all(|page| word_of(source, page * 2) == page + n as u64));
        assert_eq!(try_load(&mappings[n], 2, 0), None, "the pager is gone");
    }
}

#[test]
fn a_shutdown_says_what_it_could_not_write() {
    let service = quiet().retry(quick()).start().unwrap();
    let memory = Arc::new(patterns(256));
    let source = Arc::new(Injector::new(memory.clone(), 1));
    let vmo = service.open(source.clone(), Writes::WriteBack).unwrap();
    for page in 0..256 {
        set_word(&vmo, page, 1000 + page).unwrap();
    }
    let range = Some(ByteRange::new(70 * PAGE_SIZE, 1));
    source.add(Rule { operation: Some(Operation::Write), range, ..Rule::always(Fault::Error(ErrorKind::NoSpace)) });
    let end = service.shutdown(Duration::from_secs(20));
    assert_eq!((end.written, end.unwritten.len()), (PageCount(192), 1));
    let unwritten = &end.unwritten[0];
    assert_eq!(unwritten.range, ByteRange::new(64 * PAGE_SIZE, 64 * PAGE_SIZE));
    assert_eq!(unwritten.error.as_ref().unwrap().kind(), ErrorKind::NoSpace);
    // It is there still, for whoever wants to save it.
    let mut bytes = [0; 8];
    block_on(unwritten.vmo.read(ByteOffset(70 * PAGE_SIZE), &mut bytes)).unwrap();
    assert_eq!(u64::from_ne_bytes(bytes), 1070);
    assert_eq!(word(&vmo, 5), Err(Status::BadState), "what was written is gone");
    assert_eq!((word_of(&memory, 5), word_of(&memory, 70)), (1005, pattern(70)));
}

#[test]
fn a_shutdown_does_not_wait_longer_than_it_may() {
    let service = quiet().start().unwrap();
    let source = Arc::new(Injector::new(patterns(8), 1));
    let vmo = service.open(source.clone(), Writes::WriteBack).unwrap();
    set_word(&vmo, 3, 4).unwrap();
    source.add(Rule { operation: Some(Operation::Write), ..Rule::always(Fault::Stall) });
    let begun = Instant::now();
    let end = service.shutdown(Duration::from_millis(100));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!((end.unwritten.len(), end.unwritten[0].range), (1, ByteRange::new(3 * PAGE_SIZE, PAGE_SIZE)));
    assert!(end.unwritten[0].error.is_none(), "there was no time");
}

#[test]
fn a_detached_vmo_is_written_back() {
    let Some(mapper) = mapper() else { return };
    let service = quiet().start().unwrap();
    let source = Arc::new(patterns(8));
    let (vmo, other) =
        (service.open(source.clone(), Writes::WriteBack).unwrap(), service.open(patterns(8), Writes::Keep).unwrap());
    let mapping = map(&mapper, &vmo);
    store(&mapping, 1, 0, 11);
    service.detach(&vmo).unwrap();
    until("it is written back", || word_of(&source, 1) == 11);
    until("it is gone", || try_load(&mapping, 1, 0).is_none());
    assert_eq!(word(&other, 1), Ok(pattern(1)), "the others go on");
}

#[test]
fn a_source_that_panics_has_its_vmo_detached_and_no_other() {
    let Some(mapper) = mapper() else { return };
    let service = quiet().threads(1).start().unwrap();
    let vmo = service.open(Bad::new(Badness::Panic), Writes::WriteBack).unwrap();
    let mapping = Arc::new(map(&mapper, &vmo));
    assert_eq!(load(&mapping, 3, 0), pattern(3));
    store(&mapping, 3, 0, 5);
    let waiters: Vec<_> = (100..140)
        .map(|page| {
            let mapping = mapping.clone();
            std::thread::spawn(move || try_load(&mapping, page, 0))
        })
        .collect();
    assert!(come_home(waiters).iter().all(Option::is_none));
    let other = service.open(patterns(4), Writes::WriteBack).unwrap();
    assert_eq!(word(&other, 1), Ok(pattern(1)), "the thread lives");
    let end = service.shutdown(Duration::from_secs(5));
    assert_eq!((end.unwritten.len(), end.unwritten[0].range), (1, ByteRange::new(3 * PAGE_SIZE, PAGE_SIZE)));
    assert_eq!(load(&mapping, 3, 0), 5, "what is dirty is there still");
}

#[test]
fn nobody_waits_for_threads_that_are_stuck() {
    let Some(mapper) = mapper_with(upager_linux::MapperOptions::default().loops(2)) else { return };
    let service = quiet().threads(2).start().unwrap();
    let (bad, good) = (Bad::new(Badness::Block), Arc::new(patterns(1000)));
    let stuck = service.open(bad.clone(), Writes::WriteBack).unwrap();
    let vmo = service.open(good.clone(), Writes::WriteBack).unwrap();
    let (stuck, mapping) = (Arc::new(map(&mapper, &stuck)), Arc::new(map(&mapper, &vmo)));
    store(&mapping, 1, 0, 2);
    let mut waiters = Vec::new();
    for page in 0..200_u64 {
        let (stuck, mapping) = (stuck.clone(), mapping.clone());
        waiters.push(std::thread::spawn(move || match page % 2 {
            0 => try_load(&stuck, 100 + page * 4, 0),
            _ => try_load(&mapping, page * 4, 0),
        }));
    }
    until("both threads are stuck", || bad.blocked.load(SeqCst) == 2);
    let end = service.shutdown(Duration::from_secs(10));
    assert!(end.unwritten.is_empty(), "written by the one who shuts down: {end:?}");
    assert_eq!(word_of(&good, 1), 2);
    for (page, loaded) in come_home(waiters).into_iter().enumerate() {
        assert!(loaded.is_none() || loaded == Some(pattern(page as u64 * 4)), "page {page}: {loaded:?}");
    }
    bad.release();
}

/// Services that end at any instant, by a drop or a shutdown, under mapped load and failures. Everyone comes home; and what is
/// not reported as unwritten is in the source.
#[test]
fn a_service_may_end_at_any_instant() {
    const PAGES: u64 = 128;
    const WRITERS: usize = 3;
    let Some(mapper) = mapper_with(upager_linux::MapperOptions::default().loops(2)) else { return };
    for round in 0..25_u64 {
        let service = eager().memory(MemoryLimit::bytes(48 * PAGE_SIZE)).start().unwrap();
        let memory = Arc::new(patterns(PAGES));
        let source = Injector::new(memory.clone(), round).with_latency(Duration::ZERO, Duration::from_micros(300));
        source.add(Rule { probability: 0.05, ..Rule::always(Fault::Error(ErrorKind::Unavailable)) });
        source.add(Rule { probability: 0.02, ..Rule::always(Fault::Unheard(ErrorKind::Io)) });
        let vmo = service.open(source, Writes::WriteBack).unwrap();
        let mapping = Arc::new(map(&mapper, &vmo));
        let stop = Arc::new(AtomicBool::new(false));
        let threads: Vec<_> = (0..WRITERS)
            .map(|n| {
                let (mapping, stop) = (mapping.clone(), stop.clone());
                std::thread::spawn(move || {
                    let mut last = [0_u64; PAGES as usize];
                    let mut random = round * 31 + n as u64;
                    for count in 1.. {
                        if stop.load(SeqCst) {
                            break;
                        }
                        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        let page = (random >> 33) % PAGES;
                        if let Some(loaded) = try_load(&mapping, page, 1 + n) {
                            assert_eq!(loaded, last[page as usize], "round {round}, page {page}");
                        }
                        if try_store(&mapping, page, 1 + n, count) {
                            last[page as usize] = count;
                        }
                    }
                    last
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(round % 9 * 8));
        if round % 5 == 4 {
            drop(service);
            stop.store(true, SeqCst);
            come_home(threads);
            continue;
        }
        // Those who store do so until the pager is gone, and then for a while to what is left.
        let stopper = {
            let stop = stop.clone();
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(20));
                stop.store(true, SeqCst);
            })
        };
        let end = service.shutdown(Duration::from_secs(20));
        come_home(vec![stopper]);
        let last = come_home(threads);
        let bytes = memory.to_vec();
        for page in 0..PAGES {
            let at = page * PAGE_SIZE;
            if end.unwritten.iter().any(|lost| (lost.range.offset..lost.range.offset + lost.range.length).contains(&at))
            {
                continue;
            }
            for (n, last) in last.iter().enumerate() {
                let word = at as usize + 8 * (1 + n);
                let stored = u64::from_ne_bytes(bytes[word..word + 8].try_into().unwrap());
                assert_eq!(stored, last[page as usize], "round {round}, page {page}, writer {n}");
            }
        }
    }
}
