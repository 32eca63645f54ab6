//! A pager that is killed under load, again and again.
//!
//! Writers have a word of their own in every page, and know what they stored there last; so every store that did
//! not fail must be found again: in the file, if the page was clean when the pager died, or in what was moved to the next one.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use upager::{ByteRange, PAGE_SIZE, Status, block_on};
use upager_linux::service::{MemoryLimit, Writes};
use upager_linux::{Mapper, MapperOptions, Mapping, Protection};

use crate::eager;
use crate::process::{PagerProcess, connect};
use crate::world::{PAGE, come_home, mapper_with, pattern, try_load, try_store, until};

const PAGES: u64 = 256;
const WRITERS: usize = 3;
const READERS: usize = 3;

/// Kills: 10, or as the environment says.
fn kills() -> u64 {
    std::env::var("UPAGER_KILLS").map_or(10, |kills| kills.parse().unwrap())
}

fn make_file(path: &Path) {
    let mut bytes = vec![0; PAGES as usize * PAGE];
    for page in 0..PAGES {
        bytes[page as usize * PAGE..][..8].copy_from_slice(&pattern(page).to_ne_bytes());
    }
    std::fs::write(path, bytes).unwrap();
}

struct Load {
    mapping: RwLock<Arc<Mapping>>,
    stop: AtomicBool,
    /// Accesses of each thread that did not fail.
    done: Vec<AtomicU64>,
    failed: AtomicU64,
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % end
    }
}

impl Load {
    fn mapping(&self) -> Arc<Mapping> {
        self.mapping.read().unwrap().clone()
    }

    fn note(&self, thread: usize, good: bool) {
        if good {
            self.done[thread].fetch_add(1, SeqCst);
        } else {
            self.failed.fetch_add(1, SeqCst);
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// Stores counts to its word of each page, and finds again what it stored. Returns what it stored last.
    fn write(&self, number: usize) -> Vec<u64> {
        let mut last = vec![0; PAGES as usize];
        let mut random = Random(number as u64 + 1);
        for count in 1.. {
            if self.stop.load(SeqCst) {
                break;
            }
            let (mapping, page) = (self.mapping(), random.below(PAGES));
            if let Some(loaded) = try_load(&mapping, page, 1 + number) {
                assert_eq!(loaded, last[page as usize], "writer {number}, page {page}");
            }
            let stored = try_store(&mapping, page, 1 + number, count);
            if stored {
                last[page as usize] = count;
            }
            self.note(number, stored);
        }
        last
    }

    /// No word is ever older than it was.
    fn read(&self, number: usize) -> Vec<u64> {
        let mut seen = vec![[0; WRITERS]; PAGES as usize];
        let mut random = Random(number as u64 + 100);
        while !self.stop.load(SeqCst) {
            let (mapping, page) = (self.mapping(), random.below(PAGES));
            let writer = random.below(WRITERS as u64) as usize;
            let first = try_load(&mapping, page, 0);
            assert!(first.is_none() || first == Some(pattern(page)), "page {page}: {first:?}");
            let loaded = try_load(&mapping, page, 1 + writer);
            if let Some(loaded) = loaded {
                let before = std::mem::replace(&mut seen[page as usize][writer], loaded);
                assert!(before <= loaded, "reader {number}, page {page}, writer {writer}: {loaded} after {before}");
            }
            self.note(WRITERS + number, loaded.is_some());
        }
        Vec::new()
    }

    /// Waits until every thread has had an access that did not fail.
    fn goes_on(&self) {
        let before: Vec<_> = self.done.iter().map(|done| done.load(SeqCst)).collect();
        until("everyone goes on", || {
            self.done.iter().zip(&before).all(|(done, before)| done.load(SeqCst) > *before + 5)
        });
    }
}

fn start(load: &Arc<Load>) -> Vec<JoinHandle<Vec<u64>>> {
    (0..WRITERS + READERS)
        .map(|number| {
            let load = load.clone();
            std::thread::spawn(move || if number < WRITERS { load.write(number) } else { load.read(number - WRITERS) })
        })
        .collect()
}

fn map(mapper: &Mapper, vmo: &Arc<upager::Vmo<upager_linux::LinuxPlatform>>) -> Arc<Mapping> {
    Arc::new(mapper.map(vmo, ByteRange::new(0, vmo.size()), Protection::ReadWrite).unwrap())
}

#[test]
fn a_pager_may_be_killed_at_any_instant() {
    let Some(mapper) = mapper_with(MapperOptions::default().loops(2)) else { return };
    let folder = tempfile::tempdir().unwrap();
    let (socket, file) = (folder.path().join("pager"), folder.path().join("file"));
    make_file(&file);
    let mut pager = PagerProcess::start(&socket, &file);
    let service = eager().memory(MemoryLimit::bytes(100 * PAGE_SIZE)).start().unwrap();
    let mut vmo = service.open(connect(&socket), Writes::WriteBack).unwrap();
    let load = Arc::new(Load {
        mapping: RwLock::new(map(&mapper, &vmo)),
        stop: AtomicBool::new(false),
        done: (0..WRITERS + READERS).map(|_| AtomicU64::new(0)).collect(),
        failed: AtomicU64::new(0),
    });
    let threads = start(&load);
    let (mut random, mut longest, mut moved) = (Random(7), Duration::ZERO, 0);
    for kill in 0..kills() {
        load.goes_on();
        std::thread::sleep(Duration::from_micros(random.below(30_000)));
        pager.kill();
        let killed = Instant::now();
        // By itself: a page that is not there is refused, and who waited has come home.
        until("the client has seen it", || {
            let absent = (0..PAGES).find(|page| vmo.pin_lookup(upager::PageIndex(*page)).is_none());
            let Some(page) = absent else { return false };
            let read = block_on(vmo.read(upager::ByteOffset(page * PAGE_SIZE), &mut [0; 8]));
            read == Err(Status::BadState) && vmo.counts().in_flight == 0
        });
        longest = longest.max(killed.elapsed());
        moved += vmo.counts().dirty.0;
        pager = PagerProcess::start(&socket, &file);
        let next = service.reopen(&vmo, connect(&socket)).unwrap();
        assert_eq!(vmo.counts().dirty.0, 0, "kill {kill}: all has moved");
        *load.mapping.write().unwrap() = map(&mapper, &next);
        vmo = next;
    }
    load.goes_on();
    load.stop.store(true, SeqCst);
    let last = come_home(threads);
    let (_, unwritten) = block_on(service.flush(&vmo)).unwrap();
    assert!(unwritten.is_empty(), "{unwritten:?}");
    // As nobody stores any more, all is in the file.
    pager.kill();
    let file = File::open(file).unwrap();
    for (writer, last) in last.iter().enumerate().take(WRITERS) {
        for page in 0..PAGES {
            let mut word = [0; 8];
            file.read_exact_at(&mut word, page * PAGE_SIZE + 8 * (1 + writer as u64)).unwrap();
            assert_eq!(u64::from_ne_bytes(word), last[page as usize], "writer {writer}, page {page}");
        }
    }
    let done: u64 = load.done.iter().map(|done| done.load(SeqCst)).sum();
    assert!(load.failed.load(SeqCst) > 0 && moved > 0, "the kills were felt");
    println!(
        "{} kills, {done} accesses, {} failed, {moved} dirty pages moved; detached {longest:?} after a kill at the latest",
        kills(),
        load.failed.load(SeqCst)
    );
}
