//! Writeback.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use upager::{ByteRange, PAGE_SIZE, PageCount, Status, block_on};
use upager_linux::Error;
use upager_linux::service::{Service, WritebackPolicy, Writes};
use upager_linux::source::{ErrorKind, Fault, Injector, Operation, Rule, Zero};

use crate::sources::{Noting, patterns, word_of};
use crate::world::{come_home, load, mapper, pattern, store, try_load, try_store, until};
use crate::{eager, map, quick, quiet, set_word, when_flushed, word};

#[test]
fn what_is_stored_is_written_back_at_its_age() {
    let Some(mapper) = mapper() else { return };
    let service = eager().start().unwrap();
    let source = Noting::new(16);
    let vmo = service.open(source.clone(), Writes::WriteBack).unwrap();
    let mapping = map(&mapper, &vmo);
    store(&mapping, 3, 0, 33);
    store(&mapping, 9, 0, 99);
    until("they are clean", || vmo.counts().dirty == PageCount(0));
    assert_eq!((word_of(&source.memory, 3), word_of(&source.memory, 9)), (33, 99));
    store(&mapping, 3, 0, 34);
    until("it is seen again", || word_of(&source.memory, 3) == 34);
    assert_eq!(word_of(&source.memory, 4), pattern(4));
}

#[test]
fn a_round_begins_when_many_pages_are_dirty() {
    let writeback =
        WritebackPolicy { age: Duration::from_secs(3600), amount: PageCount(10), ..WritebackPolicy::default() };
    let service = Service::builder().writeback(writeback).start().unwrap();
    let vmo = service.open(Noting::new(64), Writes::WriteBack).unwrap();
    for page in 0..9 {
        set_word(&vmo, page, 1).unwrap();
    }
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(vmo.counts().dirty, PageCount(9), "not yet");
    set_word(&vmo, 63, 1).unwrap();
    until("all are written", || vmo.counts().dirty == PageCount(0));
}

#[test]
fn rounds_keep_to_the_rate() {
    let age = Duration::from_millis(1);
    let writeback = WritebackPolicy { age, rate: Some(1 << 20), ..WritebackPolicy::default() };
    let service = Service::builder().writeback(writeback).start().unwrap();
    let vmo = service.open(patterns(128), Writes::WriteBack).unwrap();
    let begun = Instant::now();
    for page in 0..128 {
        set_word(&vmo, page, 5).unwrap();
    }
    until("all are written", || vmo.counts().dirty == PageCount(0));
    // Half a megabyte, of which the last piece, a quarter at most, is not waited for.
    assert!(begun.elapsed() > Duration::from_millis(200), "{:?}", begun.elapsed());
    assert_eq!(service.counts().written, 128);

    // Who waits for it does not wait for the rate, nor for a round that does.
    let writeback = WritebackPolicy { age, rate: Some(1 << 16), ..WritebackPolicy::default() };
    let service = Service::builder().writeback(writeback).start().unwrap();
    let source = Noting::new(1024);
    let vmo = service.open(source.clone(), Writes::WriteBack).unwrap();
    block_on(vmo.commit(ByteRange::new(0, vmo.size()))).unwrap();
    for page in 0..1024 {
        set_word(&vmo, page, 6).unwrap();
    }
    until("a round is under way", || source.writes() > 0);
    let begun = Instant::now();
    assert!(block_on(service.flush(&vmo)).unwrap().1.is_empty());
    assert!(begun.elapsed() < Duration::from_secs(10), "it would be a minute: {:?}", begun.elapsed());
    assert!([0, 511, 1023].iter().all(|page| word_of(&source.memory, *page) == 6));
}

#[test]
fn a_page_is_clean_only_when_it_is_safe() {
    let service = quiet().start().unwrap();
    let source = Noting::new(16);
    let injector = Arc::new(Injector::new(source.clone(), 1));
    let vmo = service.open(injector.clone(), Writes::WriteBack).unwrap();
    set_word(&vmo, 2, 22).unwrap();
    injector.add(Rule { operation: Some(Operation::Sync), ..Rule::always(Fault::Error(ErrorKind::Io)) });
    let (written, unwritten) = block_on(service.flush(&vmo)).unwrap();
    assert_eq!((written, unwritten.len(), unwritten[0].range), (PageCount(0), 1, ByteRange::new(2 * PAGE_SIZE, 4096)));
    assert_eq!(unwritten[0].error.as_ref().unwrap().kind(), ErrorKind::Io);
    assert_eq!((source.writes(), source.syncs(), vmo.counts().dirty), (1, 0, PageCount(1)), "written, and dirty still");
    injector.clear();
    let (written, unwritten) = block_on(service.flush(&vmo)).unwrap();
    assert_eq!((written, unwritten.len(), source.writes()), (PageCount(1), 0, 2), "it was written again");
    assert_eq!(*source.done.lock().unwrap(), [Some(2), Some(2), None]);
    assert_eq!(vmo.counts().dirty, PageCount(0));
}

#[test]
fn syncs_can_be_left_to_the_flush() {
    let service = Service::builder().writeback(when_flushed(Duration::from_millis(10))).start().unwrap();
    let source = Noting::new(16);
    let vmo = service.open(source.clone(), Writes::WriteBack).unwrap();
    set_word(&vmo, 1, 1).unwrap();
    until("it is clean", || vmo.counts().dirty == PageCount(0));
    assert_eq!((source.writes(), source.syncs()), (1, 0));
    assert!(block_on(service.flush(&vmo)).unwrap().1.is_empty());
    assert_eq!((source.writes(), source.syncs()), (1, 1));
    assert!(block_on(service.flush(&vmo)).unwrap().1.is_empty());
    assert_eq!(source.syncs(), 1, "there was nothing to make safe");
}

#[test]
fn zeros_are_written_back_too() {
    let service = quiet().start().unwrap();
    let source = Arc::new(patterns(200));
    let vmo = service.open(source.clone(), Writes::WriteBack).unwrap();
    block_on(vmo.zero(ByteRange::new(0, 150 * PAGE_SIZE))).unwrap();
    assert_eq!(block_on(service.flush(&vmo)).unwrap().0, PageCount(150));
    assert!(source.to_vec()[..150 * 4096].iter().all(|byte| *byte == 0));
    assert_eq!((word_of(&source, 150), vmo.counts().zero), (pattern(150), PageCount(0)));
    assert_eq!(word(&vmo, 149), Ok(0));
}

#[test]
fn a_write_that_fails_leaves_its_page_dirty_and_is_made_again_later() {
    let service = eager().retry(quick()).start().unwrap();
    let memory = Arc::new(patterns(256));
    let source = Arc::new(Injector::new(memory.clone(), 1));
    let range = Some(ByteRange::new(64 * PAGE_SIZE, 64 * PAGE_SIZE));
    source.add(Rule { operation: Some(Operation::Write), range, ..Rule::always(Fault::Half(ErrorKind::NoSpace)) });
    let vmo = service.open(source.clone(), Writes::WriteBack).unwrap();
    for page in 0..256 {
        set_word(&vmo, page, page).unwrap();
    }
    until("the others are written", || vmo.counts().dirty == PageCount(64));
    until("it has been tried more than once", || service.counts().write_errors > 1);
    assert_eq!(service.last_error(&vmo).unwrap().kind(), ErrorKind::NoSpace);
    source.clear();
    until("all are written", || vmo.counts().dirty == PageCount(0));
    assert!((0..256).all(|page| word_of(&memory, page) == page));
}

#[test]
fn writes_may_be_kept_or_refused() {
    let Some(mapper) = mapper() else { return };
    let service = eager().start().unwrap();
    assert!(matches!(service.open(Zero::new(4096), Writes::WriteBack), Err(Error::Pager(Status::NotSupported))));

    let source = Noting::new(8);
    let kept = service.open(source.clone(), Writes::Keep).unwrap();
    let mapping = map(&mapper, &kept);
    store(&mapping, 1, 0, 11);
    let refused = service.open(source.clone(), Writes::Refuse).unwrap();
    let other = map(&mapper, &refused);
    assert_eq!(load(&other, 1, 0), pattern(1));
    assert!(!try_store(&other, 1, 0, 12));
    assert_eq!(set_word(&refused, 2, 1), Err(Status::BadState));
    until("it can be read again", || try_load(&other, 1, 0) == Some(pattern(1)));
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!((load(&mapping, 1, 0), source.writes()), (11, 0));
    assert_eq!(kept.counts().dirty, PageCount(1));
    assert!(service.shutdown(Duration::from_secs(5)).unwritten.is_empty(), "it was not to be written");
}

#[test]
fn a_vmo_that_nobody_has_is_written_back_and_goes() {
    let service = quiet().start().unwrap();
    let source = Arc::new(patterns(8));
    let vmo = service.open(source.clone(), Writes::WriteBack).unwrap();
    set_word(&vmo, 5, 55).unwrap();
    let gone = Arc::downgrade(&vmo);
    drop(vmo);
    until("it goes", || gone.upgrade().is_none());
    assert_eq!(word_of(&source, 5), 55);
    until("so does its source", || Arc::strong_count(&source) == 1);
}

/// Stores by mapped threads, beside rounds all the time, with sources that fail now and then: what was stored before a
/// flush that said that all is written is in the source.
#[test]
fn what_a_flush_says_is_written_is_written() {
    const PAGES: u64 = 32;
    let Some(mapper) = mapper() else { return };
    let service = Service::builder()
        .writeback(WritebackPolicy { age: Duration::from_millis(1), ..WritebackPolicy::default() })
        .retry(quick())
        .start()
        .unwrap();
    let memory = Arc::new(patterns(PAGES));
    let source = Arc::new(Injector::new(memory.clone(), 7));
    for kind in [Fault::Half(ErrorKind::Unavailable), Fault::Error(ErrorKind::Io), Fault::Unheard(ErrorKind::Io)] {
        source.add(Rule { probability: 0.02, operation: Some(Operation::Write), ..Rule::always(kind) });
    }
    source.add(Rule {
        probability: 0.02,
        operation: Some(Operation::Sync),
        ..Rule::always(Fault::Error(ErrorKind::Io))
    });
    let vmo = service.open(source.clone(), Writes::WriteBack).unwrap();
    let mapping = Arc::new(map(&mapper, &vmo));
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..2_u64)
        .map(|n| {
            let (mapping, stop) = (mapping.clone(), stop.clone());
            std::thread::spawn(move || {
                let mut count = 1;
                while !stop.load(SeqCst) {
                    store(&mapping, (count * 7 + n) % PAGES, 2 + n as usize, count);
                    count += 1;
                }
            })
        })
        .collect();
    let mut all_written = 0;
    for round in 1..=300_u64 {
        let page = round % PAGES;
        store(&mapping, page, 0, round);
        let (_, unwritten) = block_on(service.flush(&vmo)).unwrap();
        if unwritten.is_empty() {
            all_written += 1;
            assert_eq!(word_of(&memory, page), round);
        }
        vmo.evict(PageCount(4), upager::Evict::Any);
        assert_eq!(load(&mapping, page, 0), round);
    }
    stop.store(true, SeqCst);
    come_home(writers);
    assert!(all_written > 50, "{all_written} of 300");
}
