//! Touching mapped memory: a missing page against a bare handler, reading in order against page by page and against the kernel's
//! own mapping of a file, pages here and there, and a store of objects 5 ms away.
//!
//! `cargo bench -p upager-linux --features object-store --bench touch [-- GROUP]`. `UPAGER_BENCH_BYTES` is the size of what is
//! read in order, 1 GiB by default; `UPAGER_BENCH_DIR` says where files go. LLNL's UMap and other such handlers are not built
//! here: the bare handler is the least that they can do.

#![allow(clippy::cast_possible_truncation, clippy::cast_ptr_alignment)] // 64 bits; whole pages

use std::fs;
use std::hint::black_box;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, ftruncate, memfd_create};
use rustix::ioctl::{Opcode, Updater, opcode};
use rustix::mm::{Advice, MapFlags, ProtFlags, UserfaultfdFlags, madvise, mmap, munmap, userfaultfd};
use tempfile::TempDir;
use upager::{ByteRange, Command, OwnedFrame, PAGE_SIZE, Packet, PageCount, Pager, Port, Vmo, VmoOptions, block_on};
use upager_linux::service::{Builder, MemoryLimit, Service, Writes};
use upager_linux::source::{File, Injector, Memory, PageBuf, PageSource, Zero};
use upager_linux::{LinuxPlatform, Mapper, MapperOptions, Mapping, Protection};

const PAGE: usize = PageBuf::PAGE;
/// Pages of a round of single faults.
const SINGLE: usize = 4096;
/// What a handler does before it sleeps, ours and the bare one.
const SPIN: Duration = Duration::from_micros(50);

fn folder() -> TempDir {
    let parent = std::env::var_os("UPAGER_BENCH_DIR").map_or(PathBuf::from(env!("CARGO_TARGET_TMPDIR")), Into::into);
    TempDir::new_in(parent).unwrap()
}

fn in_order_bytes() -> u64 {
    std::env::var("UPAGER_BENCH_BYTES").map_or(1 << 30, |bytes| bytes.parse().unwrap())
}

/// A file of so many bytes that is in the page cache.
fn file(folder: &TempDir, bytes: u64) -> PathBuf {
    let path = folder.path().join("file");
    let file = fs::File::create(&path).unwrap();
    let mut part = vec![0; 1 << 20];
    let mut random = fastrand::Rng::with_seed(1);
    for at in (0..bytes).step_by(part.len()) {
        random.fill(&mut part);
        file.write_all_at(&part, at).unwrap();
    }
    file.sync_all().unwrap();
    path
}

/// The pages of a range, each once, in no order.
fn shuffled(pages: usize) -> Vec<usize> {
    let mut order: Vec<_> = (0..pages).collect();
    fastrand::Rng::with_seed(3).shuffle(&mut order);
    order
}

/// Loads a word of a page.
fn touch(at: *mut u8, page: usize) {
    // SAFETY: within a mapping, by the callers, which lives.
    black_box(unsafe { at.add(page * PAGE).cast::<u64>().read_volatile() });
}

/// Loads every word of a range, as who uses it does.
fn sum(at: *mut u8, bytes: usize) -> u64 {
    let mut sum = 0_u64;
    for word in 0..bytes / 8 {
        // SAFETY: as in `touch`.
        sum = sum.wrapping_add(unsafe { at.cast::<u64>().add(word).read_volatile() });
    }
    sum
}

// A bare handler: one event, one UFFDIO_COPY. ---------------------------------------------------------------------

#[repr(C)]
struct Api {
    version: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct Register {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct Copy {
    to: u64,
    from: u64,
    len: u64,
    mode: u64,
    done: i64,
}

const API: Opcode = opcode::read_write::<Api>(0xaa, 0x3f);
const REGISTER: Opcode = opcode::read_write::<Register>(0xaa, 0x00);
const COPY: Opcode = opcode::read_write::<Copy>(0xaa, 0x03);

/// How the bare handler waits for an event.
#[derive(Clone, core::marker::Copy, PartialEq, Eq)]
enum Waits {
    InTheCall,
    /// Looks for a while, as our loops do.
    SpinsFirst,
}

struct Bare {
    at: *mut u8,
    memory: OwnedFd,
    uffd: Arc<OwnedFd>,
    stop: Arc<AtomicBool>,
    handler: Option<std::thread::JoinHandle<()>>,
}

/// What the bare handler answers a fault with.
struct Fill {
    /// So many pages, beginning at a multiple of it.
    window: usize,
    /// Read out of it first, if there is one.
    file: Option<fs::File>,
}

impl Bare {
    fn new(pages: usize, waits: Waits) -> Self {
        Self::filling(pages, waits, Fill { window: 1, file: None })
    }

    fn filling(pages: usize, waits: Waits, fill: Fill) -> Self {
        let memory = memfd_create(c"bare", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&memory, (pages * PAGE) as u64).unwrap();
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping.
        let at = unsafe { mmap(std::ptr::null_mut(), pages * PAGE, prot, MapFlags::SHARED, &memory, 0) }.unwrap();
        let flags = UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK | UserfaultfdFlags::from_bits_retain(1);
        // SAFETY: only memory of its own is registered with it.
        let uffd = Arc::new(unsafe { userfaultfd(flags) }.unwrap());
        let mut api = Api { version: 0xaa, features: 0, ioctls: 0 };
        let mut register = Register { start: at.addr() as u64, len: (pages * PAGE) as u64, mode: 1, ioctls: 0 };
        // SAFETY: the structures of the calls; memory that nobody uses yet.
        unsafe {
            rustix::ioctl::ioctl(&uffd, Updater::<API, _>::new(&mut api)).unwrap();
            rustix::ioctl::ioctl(&uffd, Updater::<REGISTER, _>::new(&mut register)).unwrap();
        }
        let stop = Arc::new(AtomicBool::new(false));
        let handler = {
            let (uffd, stop, start) = (uffd.clone(), stop.clone(), at.addr());
            std::thread::spawn(move || handle(&uffd, &stop, waits, start, &fill))
        };
        Self { at: at.cast(), memory, uffd, stop, handler: Some(handler) }
    }

    /// Takes all pages out again.
    fn empty(&self, pages: usize) {
        fallocate(&self.memory, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, (pages * PAGE) as u64)
            .unwrap();
    }
}

fn handle(uffd: &OwnedFd, stop: &AtomicBool, waits: Waits, start: usize, fill: &Fill) {
    let mut pages = PageBuf::new(PageCount(fill.window as u64));
    pages.fill(1); // or the kernel reads its page of zeros
    let mut idle_since = Instant::now();
    while !stop.load(Relaxed) {
        let mut message = [0_u64; 4];
        let taken = rustix::io::read(uffd, bytemuck::cast_slice_mut::<u64, u8>(&mut message));
        if taken.is_err() {
            if waits == Waits::SpinsFirst && idle_since.elapsed() < SPIN {
                std::hint::spin_loop();
                continue;
            }
            let timeout = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
            let _ = poll(&mut [PollFd::new(uffd, PollFlags::IN)], Some(&timeout));
            continue;
        }
        let offset = message[2] - start as u64;
        let offset = offset - offset % pages.len() as u64;
        if let Some(file) = &fill.file {
            file.read_exact_at(&mut pages, offset).unwrap();
        }
        let (to, from) = (start as u64 + offset, pages.as_ptr().addr() as u64);
        let mut copy = Copy { to, from, len: pages.len() as u64, mode: 0, done: 0 };
        // SAFETY: the structure of the call; pages of the registered mapping.
        unsafe { rustix::ioctl::ioctl(uffd, Updater::<COPY, _>::new(&mut copy)) }.unwrap();
        idle_since = Instant::now();
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        self.handler.take().unwrap().join().unwrap();
        let _ = &self.uffd;
    }
}

// Ours. -----------------------------------------------------------------------------------------------------------

/// A service's VMO, mapped.
struct Ours {
    mapping: Mapping,
    vmo: Arc<Vmo<LinuxPlatform>>,
    _mapper: Mapper,
    service: Service,
}

impl Ours {
    /// Without threads, the mapper does the service's work.
    fn new(source: impl PageSource + 'static, builder: Builder, threads: usize, options: MapperOptions) -> Self {
        let service = builder.threads(threads).start().unwrap();
        let vmo = service.open(source, Writes::Refuse).unwrap();
        let mapper = if threads == 0 { Mapper::serving(options, &service) } else { Mapper::with(options) }.unwrap();
        let mapping = mapper.map(&vmo, ByteRange::new(0, vmo.size()), Protection::ReadOnly).unwrap();
        Self { mapping, vmo, _mapper: mapper, service }
    }

    /// Takes all pages out again, and has their memory freed.
    fn empty(&self) {
        self.vmo.evict(PageCount(u64::MAX), upager::Evict::Any);
        while self.service.platform().counts().frames > PageCount(0) {
            upager::Platform::pin(&**self.service.platform()).flush();
        }
    }
}

fn one_page() -> MapperOptions {
    MapperOptions::default().read_ahead(PageCount(1)).spin(SPIN)
}

/// So many rounds of a part, of which only `timed` counts.
fn rounds(count: u64, mut timed: impl FnMut(), mut untimed: impl FnMut()) -> Duration {
    let mut total = Duration::ZERO;
    for _ in 0..count {
        let begun = Instant::now();
        timed();
        total += begun.elapsed();
        untimed();
    }
    total
}

fn missing(c: &mut Criterion) {
    let order = shuffled(SINGLE);
    let mut group = c.benchmark_group("missing page");
    group.sample_size(10).throughput(Throughput::Elements(SINGLE as u64));
    for (name, waits) in [("bare handler, blocks", Waits::InTheCall), ("bare handler, spins", Waits::SpinsFirst)] {
        let bare = Bare::new(SINGLE, waits);
        let all = || order.iter().for_each(|page| touch(bare.at, *page));
        group.bench_function(name, |b| b.iter_custom(|count| rounds(count, all, || bare.empty(SINGLE))));
    }
    for (name, threads) in [("upager, service", 2), ("upager, service in the loop", 0)] {
        let ours = Ours::new(Zero::new((SINGLE * PAGE) as u64), Service::builder(), threads, one_page());
        let all = || order.iter().for_each(|page| touch(ours.mapping.as_ptr(), *page));
        group.bench_function(name, |b| b.iter_custom(|count| rounds(count, all, || ours.empty())));
    }
    {
        // A pager of one's own: a thread that waits at the port.
        let platform = Arc::new(LinuxPlatform::new());
        let (pager, port) = (Arc::new(Pager::new(platform.clone())), Arc::new(Port::new(platform.clone())));
        let vmo = Arc::new(pager.create_vmo(&port, 1, VmoOptions::NONE, (SINGLE * PAGE) as u64).unwrap());
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let (platform, pager, port, vmo, stop) = (platform.clone(), pager.clone(), port, vmo.clone(), stop.clone());
            std::thread::spawn(move || supply(&platform, &pager, &port, &vmo, &stop))
        };
        let mapper = Mapper::with(one_page()).unwrap();
        let mapping = mapper.map(&vmo, ByteRange::new(0, vmo.size()), Protection::ReadOnly).unwrap();
        let all = || order.iter().for_each(|page| touch(mapping.as_ptr(), *page));
        let empty = || {
            vmo.evict(PageCount(u64::MAX), upager::Evict::Any);
            while platform.counts().frames > PageCount(0) {
                upager::Platform::pin(&*platform).flush();
            }
        };
        group.bench_function("upager, own pager", |b| b.iter_custom(|count| rounds(count, all, empty)));
        stop.store(true, Relaxed);
        thread.join().unwrap();
    }
    group.finish();
}

fn supply(
    platform: &Arc<LinuxPlatform>,
    pager: &Pager<LinuxPlatform>,
    port: &Port<LinuxPlatform>,
    vmo: &Vmo<LinuxPlatform>,
    stop: &AtomicBool,
) {
    let page = PageBuf::new(PageCount(1));
    let mut packets = [Packet::default(); 16];
    while !stop.load(Relaxed) {
        let soon = Instant::now() + Duration::from_millis(50);
        let Ok(taken) = port.wait_until(Some(soon), &mut packets) else { continue };
        for packet in packets[..taken].iter().filter(|packet| packet.command() == Some(Command::Read)) {
            let frames = (0..packet.range().length / PAGE_SIZE).map(|_| {
                let frame = OwnedFrame::new(&**platform).unwrap();
                frame.write(0, &page).unwrap();
                frame
            });
            pager.supply_frames(vmo, packet.range(), frames.collect::<Vec<_>>()).unwrap();
        }
    }
}

fn kernel_mapping(path: &Path, bytes: usize) -> *mut u8 {
    let file = fs::File::open(path).unwrap();
    // SAFETY: a new mapping of a file that nobody changes.
    unsafe { mmap(std::ptr::null_mut(), bytes, ProtFlags::READ, MapFlags::SHARED, &file, 0) }.unwrap().cast()
}

fn in_order(c: &mut Criterion) {
    let bytes = in_order_bytes();
    let folder = folder();
    let path = file(&folder, bytes);
    let mut group = c.benchmark_group("in order, file in the page cache");
    group.sample_size(10).warm_up_time(Duration::from_millis(1)).throughput(Throughput::Bytes(bytes));
    let at = kernel_mapping(&path, bytes as usize);
    let drop_pages = || {
        // SAFETY: the mapping is ours, and what it drops comes again.
        unsafe { madvise(at.cast(), bytes as usize, Advice::LinuxDontNeed) }.unwrap();
    };
    group.bench_function("kernel mmap", |b| {
        b.iter_custom(|count| {
            rounds(
                count,
                || {
                    black_box(sum(at, bytes as usize));
                },
                drop_pages,
            )
        });
    });
    // What userfaultfd takes by itself: a handler that knows beforehand what is read, and does nothing else.
    for (name, file) in [
        ("bare handler, 2 MiB by one copy", None),
        ("bare handler, 2 MiB by pread and one copy", Some(fs::File::open(&path).unwrap())),
    ] {
        let pages = bytes as usize / PAGE;
        let bare = Bare::filling(pages, Waits::SpinsFirst, Fill { window: 512, file });
        let all = || {
            black_box(sum(bare.at, bytes as usize));
        };
        group.bench_function(name, |b| b.iter_custom(|count| rounds(count, all, || bare.empty(pages))));
    }
    for (name, options) in [
        ("upager, page by page", one_page()),
        ("upager, read-ahead 64", MapperOptions::default().read_ahead(PageCount(64))),
        ("upager, read-ahead 512", MapperOptions::default()),
    ] {
        let ours = Ours::new(File::open(&path).unwrap(), Service::builder(), 2, options);
        let all = || {
            black_box(sum(ours.mapping.as_ptr(), bytes as usize));
        };
        group.bench_function(name, |b| b.iter_custom(|count| rounds(count, all, || ours.empty())));
    }
    {
        let ours = Ours::new(File::open(&path).unwrap(), Service::builder(), 2, MapperOptions::default());
        sum(ours.mapping.as_ptr(), bytes as usize);
        group.bench_function("upager, resident", |b| b.iter(|| sum(ours.mapping.as_ptr(), bytes as usize)));
    }
    // SAFETY: mapped above.
    unsafe { munmap(at.cast(), bytes as usize) }.unwrap();
    group.finish();
}

/// Two threads, each with every page once, in no order.
fn random(c: &mut Criterion) {
    const PAGES: usize = 16_384;
    let folder = folder();
    let path = file(&folder, (PAGES * PAGE) as u64);
    let orders =
        [shuffled(PAGES / 2), shuffled(PAGES / 2).into_iter().map(|page| page + PAGES / 2).collect::<Vec<_>>()];
    let mut group = c.benchmark_group("here and there, 2 threads");
    group.sample_size(10).throughput(Throughput::Elements(PAGES as u64));
    let both = |at: *mut u8| {
        let at = at.expose_provenance();
        std::thread::scope(|s| {
            for order in &orders {
                s.spawn(move || order.iter().for_each(|page| touch(std::ptr::with_exposed_provenance_mut(at), *page)));
            }
        });
    };
    let at = kernel_mapping(&path, PAGES * PAGE);
    let drop_pages = || {
        // SAFETY: the mapping is ours, and what it drops comes again.
        unsafe { madvise(at.cast(), PAGES * PAGE, Advice::LinuxDontNeed) }.unwrap();
    };
    group.bench_function("kernel mmap", |b| b.iter_custom(|count| rounds(count, || both(at), drop_pages)));
    for (name, waits) in [("bare handler, blocks", Waits::InTheCall), ("bare handler, spins", Waits::SpinsFirst)] {
        let bare = Bare::new(PAGES, waits);
        group.bench_function(name, |b| {
            b.iter_custom(|count| rounds(count, || both(bare.at), || bare.empty(PAGES)));
        });
    }
    let memory = Memory::new(fs::read(&path).unwrap());
    let file: Arc<dyn PageSource> = Arc::new(File::open(&path).unwrap());
    for (name, source, threads) in [
        ("upager, file", file.clone(), 2),
        ("upager, file, service in the loop", file, 0),
        ("upager, memory, service in the loop", Arc::new(memory), 0),
    ] {
        let ours = Ours::new(source, Service::builder(), threads, one_page());
        group.bench_function(name, |b| {
            b.iter_custom(|count| rounds(count, || both(ours.mapping.as_ptr()), || ours.empty()));
        });
    }
    // SAFETY: mapped above.
    unsafe { munmap(at.cast(), PAGES * PAGE) }.unwrap();
    group.finish();
}

#[cfg(feature = "object-store")]
fn objects(c: &mut Criterion) {
    use upager_linux::source::Object;
    use upager_linux::source::object_store::local::LocalFileSystem;
    use upager_linux::source::object_store::path::Path;

    const BYTES: u64 = 512 << 20;
    const RESIDENT: u64 = 64 << 20;

    let folder = folder();
    file(&folder, BYTES);
    let store = Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap());
    let mut group = c.benchmark_group("objects 5 ms away, 512 MiB in 64 MiB of memory");
    group.sample_size(10).warm_up_time(Duration::from_millis(1)).throughput(Throughput::Bytes(BYTES));
    for pages in [64, 512, 1024] {
        let object = block_on(Object::open(store.clone(), Path::from("file"))).unwrap();
        let source = Injector::new(object, 1).with_latency(Duration::from_millis(5), Duration::ZERO);
        let builder = Service::builder().memory(MemoryLimit::bytes(RESIDENT));
        let ours = Ours::new(source, builder, 2, MapperOptions::default().read_ahead(PageCount(pages)));
        let all = || {
            black_box(sum(ours.mapping.as_ptr(), BYTES as usize));
        };
        group.bench_function(format!("read-ahead {pages}"), |b| {
            b.iter_custom(|count| rounds(count, all, || ours.empty()));
        });
    }
    group.finish();
}

#[cfg(not(feature = "object-store"))]
fn objects(_: &mut Criterion) {}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
    targets = missing, in_order, random, objects
}
criterion_main!(benches);
