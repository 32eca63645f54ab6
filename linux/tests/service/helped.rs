//! A service without threads, whose work the fault loops do.

use std::sync::Arc;
use std::time::Duration;

use upager::{ByteRange, PAGE_SIZE, PageCount, Status, block_on};
use upager_linux::service::{MemoryLimit, Writes};
use upager_linux::source::Injector;
use upager_linux::{Mapper, MapperOptions};

use crate::sources::{Bad, Badness, patterns, word_of};
use crate::world::{come_home, load, pattern, store, try_load, until};
use crate::{eager, map, quiet, word};

/// A mapper that helps, or the reason why there is none.
fn serving(service: &upager_linux::service::Service, loops: usize) -> Option<Mapper> {
    let mapper = Mapper::serving(MapperOptions::default().loops(loops), service);
    mapper.map_err(|error| println!("skipped: {error}")).ok()
}

#[test]
fn the_loops_supply_write_back_and_evict() {
    for loops in [1, 2] {
        let service = eager().threads(0).memory(MemoryLimit::bytes(64 * PAGE_SIZE)).start().unwrap();
        let Some(mapper) = serving(&service, loops) else { return };
        let memory = Arc::new(patterns(512));
        let slow = Injector::new(memory.clone(), 1).with_latency(Duration::ZERO, Duration::from_micros(200));
        let vmo = service.open(slow, Writes::WriteBack).unwrap();
        let mapping = Arc::new(map(&mapper, &vmo));
        let threads: Vec<_> = (0..4_u64)
            .map(|thread| {
                let mapping = mapping.clone();
                std::thread::spawn(move || {
                    for page in (0..512).map(|n| (n * 37 + thread * 128) % 512) {
                        assert_eq!(load(&mapping, page, 0), pattern(page));
                        if page % 4 == thread {
                            store(&mapping, page, 1 + thread as usize, page + 1);
                        }
                    }
                })
            })
            .collect();
        come_home(threads);
        until("all is written back, by the loops", || vmo.counts().dirty == PageCount(0));
        let bytes = memory.to_vec();
        for page in 0..512 {
            let at = page * 4096 + 8 * (1 + page % 4);
            assert_eq!(u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap()), page as u64 + 1);
        }
        assert!(service.counts().evicted > 0 && service.counts().written > 0);
    }
}

#[test]
fn nobody_hangs_when_it_ends_or_is_detached_or_its_source_panics() {
    let service = quiet().threads(0).start().unwrap();
    let Some(mapper) = serving(&service, 1) else { return };
    let bad = service.open(Bad::new(Badness::Panic), Writes::WriteBack).unwrap();
    let broken = Arc::new(map(&mapper, &bad));
    let waiters: Vec<_> = (100..120)
        .map(|page| {
            let broken = broken.clone();
            std::thread::spawn(move || try_load(&broken, page, 0))
        })
        .collect();
    assert!(come_home(waiters).iter().all(Option::is_none));

    let memory = Arc::new(patterns(16));
    let vmo = service.open(memory.clone(), Writes::WriteBack).unwrap();
    let mapping = map(&mapper, &vmo);
    assert_eq!(load(&mapping, 3, 0), pattern(3), "the loop lives");
    store(&mapping, 4, 0, 44);
    service.detach(&vmo).unwrap();
    assert_eq!(try_load(&mapping, 5, 0), None);
    until("what is dirty is written", || word_of(&memory, 4) == 44);
    let other = service.open(patterns(16), Writes::Keep).unwrap();
    let kept = map(&mapper, &other);
    store(&kept, 1, 0, 7);
    drop(service);
    assert_eq!((try_load(&kept, 1, 0), try_load(&kept, 2, 0)), (Some(7), None));
}

#[test]
fn a_shutdown_needs_no_help() {
    let service = quiet().threads(0).start().unwrap();
    let memory = Arc::new(patterns(8));
    let vmo = service.open(memory.clone(), Writes::WriteBack).unwrap();
    block_on(vmo.zero(ByteRange::new(0, PAGE_SIZE))).unwrap();
    let end = service.shutdown(Duration::from_secs(10));
    assert!(end.unwritten.is_empty());
    assert_eq!((word_of(&memory, 0), word(&vmo, 3)), (0, Err(Status::BadState)));
}
