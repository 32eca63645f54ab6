//! Memory under a limit.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use upager::{PAGE_SIZE, PageCount};
use upager_linux::service::{MemoryLimit, Writes};

use crate::sources::{patterns, word_of};
use crate::world::{come_home, load, mapper, pattern, store, until};
use crate::{eager, map, quiet, set_word, word};

/// The most frames there were, seen by somebody who looks often.
fn watched<T>(service: &upager_linux::service::Service, work: impl FnOnce() -> T) -> (T, u64) {
    let (done, most) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|s| {
        s.spawn(|| {
            while !done.load(SeqCst) {
                most.fetch_max(service.platform().counts().frames.0, SeqCst);
                std::thread::sleep(Duration::from_micros(50));
            }
        });
        let answer = work();
        done.store(true, SeqCst);
        (answer, most.load(SeqCst))
    })
}

#[test]
fn readers_of_much_more_than_the_limit_stay_under_it() {
    const PAGES: u64 = 8192;
    const LIMIT: u64 = 1024;
    let Some(mapper) = mapper() else { return };
    let service = quiet().memory(MemoryLimit::bytes(LIMIT * PAGE_SIZE)).start().unwrap();
    let vmo = service.open(patterns(PAGES), Writes::WriteBack).unwrap();
    let mapping = Arc::new(map(&mapper, &vmo));
    let ((), most) = watched(&service, || {
        let readers = (0..3_u64)
            .map(|n| {
                let mapping = mapping.clone();
                std::thread::spawn(move || {
                    for step in 0..PAGES {
                        let page = if n == 2 { (step * 2_654_435_761) % PAGES } else { (step + n * 4000) % PAGES };
                        assert_eq!(load(&mapping, page, 0), pattern(page));
                    }
                })
            })
            .collect();
        come_home(readers);
    });
    println!("most {most}, {:?}", service.counts());
    assert!(most <= LIMIT, "{most}");
    assert_eq!(service.counts().over_limit, 0);
    assert!(service.counts().evicted > PAGES / 2);
}

#[test]
fn writers_of_much_more_than_the_limit_are_written_back_in_time() {
    const PAGES: u64 = 4096;
    const LIMIT: u64 = 512;
    let Some(mapper) = mapper() else { return };
    let service = quiet().memory(MemoryLimit { high: LIMIT * PAGE_SIZE, low: LIMIT * PAGE_SIZE / 2 }).start().unwrap();
    let source = Arc::new(patterns(PAGES));
    let vmo = service.open(source.clone(), Writes::WriteBack).unwrap();
    let mapping = map(&mapper, &vmo);
    let ((), most) = watched(&service, || {
        for page in 0..PAGES {
            store(&mapping, page, 0, page ^ 0xabcd);
        }
    });
    println!("most {most}, {:?}", service.counts());
    assert!(most <= LIMIT, "{most}");
    assert!(service.shutdown(Duration::from_secs(20)).unwritten.is_empty());
    let bytes = source.to_vec();
    for page in 0..PAGES {
        let at = (page * PAGE_SIZE) as usize;
        assert_eq!(u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap()), page ^ 0xabcd);
    }
}

#[test]
fn all_vmos_share_the_limit() {
    let service = quiet().memory(MemoryLimit::bytes(256 * PAGE_SIZE)).start().unwrap();
    let vmos: Vec<_> = (0..4).map(|_| service.open(patterns(200), Writes::WriteBack).unwrap()).collect();
    for page in 0..200 {
        for vmo in &vmos {
            assert_eq!(word(vmo, page), Ok(pattern(page)));
        }
    }
    until("it is under it", || service.platform().counts().frames <= PageCount(256));
    assert!(vmos.iter().all(|vmo| vmo.counts().resident < PageCount(200)));
}

/// What must stay in memory may exceed the limit; nobody waits for ever.
#[test]
fn what_cannot_be_evicted_hangs_nobody() {
    let service = eager().memory(MemoryLimit::bytes(16 * PAGE_SIZE)).start().unwrap();
    let source = Arc::new(patterns(20));
    let vmo = service.open(source.clone(), Writes::Keep).unwrap();
    for page in 0..20 {
        set_word(&vmo, page, page).unwrap();
    }
    assert_eq!(vmo.counts().dirty, PageCount(20));
    assert!(service.counts().over_limit > 0);
    assert!((0..20).all(|page| word(&vmo, page) == Ok(page)));
    assert_eq!(word_of(&source, 3), pattern(3));
}
