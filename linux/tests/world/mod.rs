//! A pager with a service of its own, for tests that touch memory.
#![allow(clippy::cast_possible_truncation, clippy::cast_ptr_alignment, dead_code, unreachable_pub)] // each test uses its part

use std::collections::HashMap;
use std::io::Write;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use upager::{
    ByteOffset, ByteRange, Command, DirtyRange, OwnedFrame, PAGE_SIZE, Packet, PageCount, PageIndex, Pager, Platform,
    Port, Status, Vmo, VmoOptions, Writeback, block_on,
};
use upager_linux::{LinuxPlatform, Mapper, MapperOptions, Mapping, Protection};

pub const PAGE: usize = PAGE_SIZE as usize;

/// A mapper, or the reason why this machine has none, which is printed: the test has nothing to do then.
pub fn mapper_with(options: MapperOptions) -> Option<Mapper> {
    match Mapper::with(options) {
        Ok(mapper) => Some(mapper),
        Err(error) => {
            let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            println!("skipped: {error}: {source}");
            None
        }
    }
}

pub fn mapper() -> Option<Mapper> {
    mapper_with(MapperOptions::default())
}

/// What the service does with a READ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reads {
    Supply,
    /// Supplies after a while.
    Late(Duration),
    Fail(Status),
    Ignore,
}

/// What the service has.
pub struct Store {
    pages: Mutex<HashMap<u64, Box<[u8; PAGE]>>>,
    pub reads: Mutex<Reads>,
    stop: AtomicBool,
}

/// The word that a page has at first, all over.
pub fn pattern(page: u64) -> u64 {
    (page + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1
}

impl Store {
    pub fn read(&self, page: u64) -> [u8; PAGE] {
        if let Some(bytes) = self.pages.lock().unwrap().get(&page) {
            return **bytes;
        }
        let mut bytes = [0; PAGE];
        for word in bytes.chunks_exact_mut(8) {
            word.copy_from_slice(&pattern(page).to_ne_bytes());
        }
        bytes
    }

    pub fn word(&self, page: u64, word: usize) -> u64 {
        u64::from_ne_bytes(self.read(page)[word * 8..][..8].try_into().unwrap())
    }

    pub fn write(&self, page: u64, bytes: &[u8]) {
        self.pages.lock().unwrap().insert(page, Box::new(bytes.try_into().unwrap()));
    }
}

pub struct World {
    pub platform: Arc<LinuxPlatform>,
    pub pager: Arc<Pager<LinuxPlatform>>,
    pub port: Arc<Port<LinuxPlatform>>,
    pub vmo: Arc<Vmo<LinuxPlatform>>,
    pub store: Arc<Store>,
    service: Vec<JoinHandle<()>>,
}

pub fn pages(first: u64, count: u64) -> ByteRange {
    ByteRange::new(first * PAGE_SIZE, count * PAGE_SIZE)
}

impl World {
    pub fn new(pages: u64) -> Self {
        Self::with(pages, VmoOptions::NONE, 1)
    }

    pub fn with(count: u64, options: VmoOptions, service_threads: usize) -> Self {
        let platform = Arc::new(LinuxPlatform::new());
        let pager = Arc::new(Pager::new(platform.clone()));
        let port = Arc::new(Port::new(platform.clone()));
        let vmo = Arc::new(pager.create_vmo(&port, 7, options, count * PAGE_SIZE).unwrap());
        let store =
            Arc::new(Store { pages: Mutex::default(), reads: Mutex::new(Reads::Supply), stop: AtomicBool::new(false) });
        let mut world = Self { platform, pager, port, vmo, store, service: Vec::new() };
        for _ in 0..service_threads {
            let (platform, pager, port) = (world.platform.clone(), world.pager.clone(), world.port.clone());
            let (vmo, store) = (Arc::downgrade(&world.vmo), world.store.clone());
            world.service.push(std::thread::spawn(move || {
                let mut packets = [Packet::default(); 16];
                while !store.stop.load(SeqCst) {
                    let soon = Instant::now() + Duration::from_millis(5);
                    let Ok(taken) = port.wait_until(Some(soon), &mut packets) else { continue };
                    for packet in &packets[..taken] {
                        let Some(vmo) = vmo.upgrade() else { return };
                        answer(&platform, &pager, &vmo, &store, packet);
                    }
                }
            }));
        }
        world
    }

    pub fn map(&self, mapper: &Mapper) -> Mapping {
        mapper.map(&self.vmo, ByteRange::new(0, self.vmo.size()), Protection::ReadWrite).unwrap()
    }

    pub fn supply(&self, first: u64, count: u64) {
        supply(&self.platform, &self.pager, &self.vmo, &self.store, first, count).unwrap();
    }

    /// One round of writeback of everything that is dirty. Returns how many pages.
    pub fn write_back(&self) -> u64 {
        let mut ranges = [DirtyRange::default(); 64];
        let size = self.vmo.size();
        let (mut from, mut written) = (0, 0);
        let mut bytes = [0; PAGE];
        while from < size {
            let found =
                self.pager.query_dirty_ranges(&self.vmo, ByteRange::new(from, size - from), &mut ranges).unwrap();
            for range in &ranges[..found.actual] {
                self.pager.writeback_begin(&self.vmo, range.range(), Writeback::All).unwrap();
                let first = range.offset / PAGE_SIZE;
                for page in first..first + range.length / PAGE_SIZE {
                    block_on(self.vmo.read(ByteOffset(page * PAGE_SIZE), &mut bytes)).unwrap();
                    self.store.write(page, &bytes);
                    written += 1;
                }
                self.pager.writeback_end(&self.vmo, range.range()).unwrap();
                from = range.offset + range.length;
            }
            if found.actual == found.available {
                break;
            }
        }
        written
    }

    /// Writes back until nothing is dirty, when nobody stores any more. One round may not do: a fault that was answered
    /// together with another one of its page is on its way still, perhaps, and has the page become dirty once more.
    pub fn write_back_all(&self) {
        until("all is written back", || {
            self.write_back();
            self.vmo.counts().dirty == PageCount(0)
        });
    }

    /// Lets grace periods end.
    pub fn settle(&self) {
        for _ in 0..64 {
            self.platform.pin().flush();
            std::thread::yield_now();
        }
    }

    /// Ends the service, and everything but the mappings.
    pub fn end(mut self) {
        self.stop_service();
    }

    pub fn stop_service(&mut self) {
        self.store.stop.store(true, SeqCst);
        for thread in self.service.drain(..) {
            thread.join().unwrap();
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.store.stop.store(true, SeqCst);
    }
}

fn supply(
    platform: &Arc<LinuxPlatform>,
    pager: &Pager<LinuxPlatform>,
    vmo: &Vmo<LinuxPlatform>,
    store: &Store,
    first: u64,
    count: u64,
) -> upager::Result<()> {
    let mut frames = Vec::new();
    for page in first..first + count {
        let frame = OwnedFrame::new(&**platform)?;
        frame.write(0, &store.read(page))?;
        frames.push(frame);
    }
    pager.supply_frames(vmo, pages(first, count), frames)
}

fn answer(
    platform: &Arc<LinuxPlatform>,
    pager: &Pager<LinuxPlatform>,
    vmo: &Vmo<LinuxPlatform>,
    store: &Store,
    packet: &Packet,
) {
    let (first, count) = (packet.range().offset / PAGE_SIZE, packet.range().length / PAGE_SIZE);
    match packet.command() {
        Some(Command::Read) => {
            let reads = *store.reads.lock().unwrap();
            match reads {
                Reads::Ignore => return,
                Reads::Fail(status) => return pager.fail_range(vmo, packet.range(), status).unwrap(),
                Reads::Late(by) => std::thread::sleep(by),
                Reads::Supply => {}
            }
            match supply(platform, pager, vmo, store, first, count) {
                Ok(()) | Err(Status::BadState | Status::OutOfRange) => {} // detached, or shrunk, meanwhile
                Err(status) => panic!("{status}"),
            }
        }
        Some(Command::Dirty) => {
            let reads = *store.reads.lock().unwrap();
            if let Reads::Fail(status) = reads {
                return pager.fail_range(vmo, packet.range(), status).unwrap();
            }
            let _ = pager.dirty_range(vmo, packet.range()); // failing: it was evicted, and the writer asks anew
        }
        _ => {}
    }
}

/// The address of a word.
pub fn word_at(mapping: &Mapping, page: u64, word: usize) -> *mut u64 {
    assert!((page as usize) < mapping.len() / PAGE && word < PAGE / 8);
    mapping.as_ptr().wrapping_add(page as usize * PAGE + word * 8).cast()
}

/// Loads a word by touching it.
pub fn load(mapping: &Mapping, page: u64, word: usize) -> u64 {
    // SAFETY: within the mapping, which lives; stores beside it are of whole words.
    unsafe { word_at(mapping, page, word).read_volatile() }
}

/// Stores a word by touching it.
pub fn store(mapping: &Mapping, page: u64, word: usize, value: u64) {
    // SAFETY: as above.
    unsafe { word_at(mapping, page, word).write_volatile(value) }
}

/// Loads a word; `None` if that raises SIGBUS.
pub fn try_load(mapping: &Mapping, page: u64, word: usize) -> Option<u64> {
    let at = word_at(mapping, page, word);
    // SAFETY: one load, of a word within.
    unsafe { mapping.guard(|_| at.read_volatile()) }.ok()
}

/// Stores a word; false if that raises SIGBUS.
pub fn try_store(mapping: &Mapping, page: u64, word: usize, value: u64) -> bool {
    let at = word_at(mapping, page, word);
    // SAFETY: one store, of a word within.
    unsafe { mapping.guard(|_| at.write_volatile(value)) }.is_ok()
}

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// Ends the test program, which has failed. A panic would do for one thread: in a scope it waits for the others, which wait for
/// what does not come.
pub fn give_up(why: &str) -> ! {
    // Not by `eprintln`, of which the harness shows nothing if it does not live to see the end.
    let _ = writeln!(std::io::stderr(), "gave up: {why}");
    std::process::exit(101)
}

/// Waits for threads, and says if they hang.
pub fn come_home<T>(threads: Vec<JoinHandle<T>>) -> Vec<T> {
    let deadline = Instant::now() + PATIENCE;
    while threads.iter().any(|thread| !thread.is_finished()) {
        if Instant::now() > deadline {
            give_up(&format!("{} threads hang", threads.iter().filter(|thread| !thread.is_finished()).count()));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

/// Waits until something is so.
pub fn until(what: &str, is: impl FnMut() -> bool) {
    until_after(PATIENCE, what, is);
}

/// The same, with another patience.
pub fn until_after(patience: Duration, what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !is() {
        if Instant::now() > deadline {
            give_up(&format!("not in time: {what}"));
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

pub fn evict_all(world: &World) -> u64 {
    evict_vmo(&world.vmo)
}

pub fn evict_vmo(vmo: &Vmo<LinuxPlatform>) -> u64 {
    vmo.evict(PageCount(u64::MAX), upager::Evict::Any).0
}

pub fn resident(world: &World, page: u64) -> bool {
    world.vmo.lookup(&world.platform.pin(), PageIndex(page)).is_some()
}
