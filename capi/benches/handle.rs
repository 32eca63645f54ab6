//! What a handle costs: calls of the C library against the Rust calls that they come down to.
//!
//! | group | what is called |
//! | --- | --- |
//! | `size` | `zx_vmo_get_size()`, `Vmo::size()`: next to nothing but the handle |
//! | `read` | 8 bytes of a page that is there |
//! | `write` | 8 bytes of a page that is dirty already |
//! | `stats` | `zx_pager_query_vmo_stats()`: two handles |
//! | `poll` | `zx_port_wait()` of an empty port, with a deadline that is past |
//! | `close` | a port made and closed, by which its last handle goes; a handle duplicated and closed, which leaves one |
//! | `close_beside_a_thread` | the same while another thread of the process runs |
//! | `lookup` | `zx_vmo_get_size()` by one thread; by two at once, each with a VMO of its own, or both with one handle. The time is that of one thread's call |
//!
//! `direct` is the Rust call, `linked` the C call from this program, `shared` the C call in the shared library, through a
//! pointer, as a C program makes it. Every round calls each of them in turn, so compare within a run.

use std::env;
use std::ffi::{CStr, CString, c_void};
use std::hint::{self, black_box};
use std::mem::transmute_copy;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main};
use upager::{
    ByteOffset, ByteRange, OwnedFrame, PAGE_SIZE, Packet, Pager, Port, Vmo, VmoOptions, VmoStatsOptions, block_on,
};
use upager_capi::calls;
use upager_capi::types::{
    ZX_RIGHT_SAME_RIGHTS, zx_handle_t, zx_pager_vmo_stats_t, zx_port_packet_t, zx_rights_t, zx_status_t, zx_time_t,
};
use upager_linux::LinuxPlatform;

/// The C calls that are measured, and those that set them up.
#[derive(Clone, Copy)]
struct Library {
    port_create: unsafe extern "C" fn(u32, *mut zx_handle_t) -> zx_status_t,
    pager_create: unsafe extern "C" fn(u32, *mut zx_handle_t) -> zx_status_t,
    create_vmo: unsafe extern "C" fn(zx_handle_t, u32, zx_handle_t, u64, u64, *mut zx_handle_t) -> zx_status_t,
    vmo_create: unsafe extern "C" fn(u64, u32, *mut zx_handle_t) -> zx_status_t,
    supply: extern "C" fn(zx_handle_t, zx_handle_t, u64, u64, zx_handle_t, u64) -> zx_status_t,
    get_size: unsafe extern "C" fn(zx_handle_t, *mut u64) -> zx_status_t,
    read: unsafe extern "C" fn(zx_handle_t, *mut c_void, u64, usize) -> zx_status_t,
    write: unsafe extern "C" fn(zx_handle_t, *const c_void, u64, usize) -> zx_status_t,
    stats: unsafe extern "C" fn(zx_handle_t, zx_handle_t, u32, *mut c_void, usize) -> zx_status_t,
    wait: unsafe extern "C" fn(zx_handle_t, zx_time_t, *mut zx_port_packet_t) -> zx_status_t,
    duplicate: unsafe extern "C" fn(zx_handle_t, zx_rights_t, *mut zx_handle_t) -> zx_status_t,
    close: extern "C" fn(zx_handle_t) -> zx_status_t,
}

impl Library {
    fn linked() -> Self {
        Self {
            port_create: calls::port::zx_port_create,
            pager_create: calls::pager::zx_pager_create,
            create_vmo: calls::pager::zx_pager_create_vmo,
            vmo_create: calls::vmo::zx_vmo_create,
            supply: calls::pager::zx_pager_supply_pages,
            get_size: calls::vmo::zx_vmo_get_size,
            read: calls::vmo::zx_vmo_read,
            write: calls::vmo::zx_vmo_write,
            stats: calls::pager::zx_pager_query_vmo_stats,
            wait: calls::port::zx_port_wait,
            duplicate: calls::handle::zx_handle_duplicate,
            close: calls::handle::zx_handle_close,
        }
    }

    /// That which cargo has built beside this program.
    fn shared() -> Self {
        let at = env::current_exe().unwrap().with_file_name("libupager_capi.so");
        let name = CString::new(at.to_str().unwrap()).unwrap();
        // SAFETY: a library of ours, which does nothing as it is loaded.
        let library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        assert!(!library.is_null(), "{} is not there", at.display());
        // SAFETY: the types are those of the functions of the same names, see `linked`.
        unsafe {
            Self {
                port_create: find(library, c"zx_port_create"),
                pager_create: find(library, c"zx_pager_create"),
                create_vmo: find(library, c"zx_pager_create_vmo"),
                vmo_create: find(library, c"zx_vmo_create"),
                supply: find(library, c"zx_pager_supply_pages"),
                get_size: find(library, c"zx_vmo_get_size"),
                read: find(library, c"zx_vmo_read"),
                write: find(library, c"zx_vmo_write"),
                stats: find(library, c"zx_pager_query_vmo_stats"),
                wait: find(library, c"zx_port_wait"),
                duplicate: find(library, c"zx_handle_duplicate"),
                close: find(library, c"zx_handle_close"),
            }
        }
    }
}

/// # Safety
/// `F` is a pointer to a function as the library has it by that name.
unsafe fn find<F>(library: *mut c_void, name: &CStr) -> F {
    // SAFETY: the library is loaded, the name ends.
    let found = unsafe { libc::dlsym(library, name.as_ptr()) };
    assert!(!found.is_null(), "{name:?}");
    // SAFETY: by the contract of this function.
    unsafe { transmute_copy(&found) }
}

/// A port, a pager, and a VMO of one page, which is there and dirty, behind handles.
#[derive(Clone, Copy)]
struct Handles {
    library: Library,
    port: zx_handle_t,
    pager: zx_handle_t,
    vmo: zx_handle_t,
}

impl Handles {
    fn new(library: Library) -> Self {
        let (mut port, mut pager, mut vmo, mut aux) = (0, 0, 0, 0);
        // SAFETY: what is written to is of the right type, here and below.
        unsafe {
            assert_eq!((library.port_create)(0, &raw mut port), 0);
            assert_eq!((library.pager_create)(0, &raw mut pager), 0);
            assert_eq!((library.create_vmo)(pager, 0, port, 1, PAGE_SIZE, &raw mut vmo), 0);
            assert_eq!((library.vmo_create)(PAGE_SIZE, 0, &raw mut aux), 0);
        }
        assert_eq!((library.supply)(pager, vmo, 0, PAGE_SIZE, aux, 0), 0);
        let handles = Self { library, port, pager, vmo };
        handles.write(&[1; 8]);
        handles
    }

    fn size(self) -> u64 {
        let mut size = 0;
        // SAFETY: as above.
        let status = unsafe { (self.library.get_size)(self.vmo, &raw mut size) };
        debug_assert_eq!(status, 0);
        size
    }

    fn read(self, to: &mut [u8; 8]) {
        // SAFETY: as above.
        let status = unsafe { (self.library.read)(self.vmo, to.as_mut_ptr().cast(), 64, 8) };
        debug_assert_eq!(status, 0);
    }

    fn write(self, from: &[u8; 8]) {
        // SAFETY: as above.
        let status = unsafe { (self.library.write)(self.vmo, from.as_ptr().cast(), 64, 8) };
        debug_assert_eq!(status, 0);
    }

    fn stats(self) -> u32 {
        let mut record = zx_pager_vmo_stats_t::default();
        let at = (&raw mut record).cast();
        // SAFETY: as above.
        let status = unsafe { (self.library.stats)(self.pager, self.vmo, 0, at, size_of_val(&record)) };
        debug_assert_eq!(status, 0);
        record.modified
    }

    fn poll(self) -> zx_status_t {
        let mut packet = Packet::default();
        // SAFETY: as above.
        unsafe { (self.library.wait)(self.port, 0, &raw mut packet) }
    }

    fn make_and_close(self) {
        let mut port = 0;
        // SAFETY: as above.
        let status = unsafe { (self.library.port_create)(0, &raw mut port) };
        debug_assert_eq!(status, 0);
        let status = (self.library.close)(port);
        debug_assert_eq!(status, 0);
    }

    fn duplicate_and_close(self) {
        let mut port = 0;
        // SAFETY: as above.
        let status = unsafe { (self.library.duplicate)(self.port, ZX_RIGHT_SAME_RIGHTS, &raw mut port) };
        debug_assert_eq!(status, 0);
        let status = (self.library.close)(port);
        debug_assert_eq!(status, 0);
    }
}

/// The same without handles.
struct Direct {
    port: Port<LinuxPlatform>,
    pager: Pager<LinuxPlatform>,
    vmo: Vmo<LinuxPlatform>,
}

impl Direct {
    fn new() -> Self {
        let platform = Arc::new(LinuxPlatform::new());
        let (pager, port) = (Pager::new(platform.clone()), Port::new(platform.clone()));
        let vmo = pager.create_vmo(&port, 1, VmoOptions::NONE, PAGE_SIZE).unwrap();
        let frame = OwnedFrame::new(&*platform).unwrap();
        pager.supply_frames(&vmo, ByteRange::new(0, PAGE_SIZE), [frame]).unwrap();
        block_on(vmo.write(ByteOffset(0), &[1; 8])).unwrap();
        Self { port, pager, vmo }
    }
}

type Group<'a> = BenchmarkGroup<'a, WallTime>;

/// One kind of call, directly and by both libraries.
fn kind(
    group: &mut Group<'_>,
    libraries: &[(&str, Handles); 2],
    mut direct: impl FnMut(),
    mut by_handle: impl FnMut(Handles),
) {
    group.bench_function("direct", |bencher| bencher.iter(&mut direct));
    for (name, handles) in libraries {
        group.bench_function(*name, |bencher| bencher.iter(|| by_handle(black_box(*handles))));
    }
}

fn calls(criterion: &mut Criterion) {
    let libraries = [("linked", Handles::new(Library::linked())), ("shared", Handles::new(Library::shared()))];
    let direct = Direct::new();
    let mut bytes = [0; 8];

    let mut group = criterion.benchmark_group("size");
    kind(
        &mut group,
        &libraries,
        || {
            black_box(black_box(&direct.vmo).size());
        },
        |handles| {
            black_box(handles.size());
        },
    );
    group.finish();

    let mut group = criterion.benchmark_group("read");
    // How much it is must not be known when this is compiled: a C call does not know it either.
    let read = || block_on(black_box(&direct.vmo).read(ByteOffset(64), black_box(&mut [0; 8][..]))).unwrap();
    kind(&mut group, &libraries, read, |handles| handles.read(black_box(&mut bytes)));
    group.finish();

    let mut group = criterion.benchmark_group("write");
    let write = || block_on(black_box(&direct.vmo).write(ByteOffset(64), black_box(&[2; 8][..]))).unwrap();
    kind(&mut group, &libraries, write, |handles| handles.write(black_box(&[2; 8])));
    group.finish();

    let mut group = criterion.benchmark_group("stats");
    let stats = || {
        black_box(black_box(&direct.pager).query_vmo_stats(&direct.vmo, VmoStatsOptions::Keep)).unwrap();
    };
    kind(&mut group, &libraries, stats, |handles| {
        black_box(handles.stats());
    });
    group.finish();

    let mut group = criterion.benchmark_group("poll");
    let poll = || {
        black_box(black_box(&direct.port).take(&mut [Packet::default()]));
    };
    kind(&mut group, &libraries, poll, |handles| {
        black_box(handles.poll());
    });
    group.finish();
}

/// The last handle of an object, and one of two. Its maker is measured with it.
fn closes(group: &mut Group<'_>, handles: Handles) {
    let platform = Arc::new(LinuxPlatform::new());
    group.bench_function("last/direct", |bencher| bencher.iter(|| drop(black_box(Port::new(platform.clone())))));
    group.bench_function("last/shared", |bencher| bencher.iter(|| black_box(handles).make_and_close()));
    group.bench_function("one_of_two/shared", |bencher| bencher.iter(|| black_box(handles).duplicate_and_close()));
}

fn close(criterion: &mut Criterion) {
    let handles = Handles::new(Library::shared());
    let mut group = criterion.benchmark_group("close");
    closes(&mut group, handles);
    group.finish();
    let mut group = criterion.benchmark_group("close_beside_a_thread");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                hint::spin_loop();
            }
        });
        closes(&mut group, handles);
        done.store(true, Relaxed);
    });
    group.finish();
}

/// The time that each thread takes for so many calls, with its own of the handles, the longest of them.
fn together(handles: &[Handles], calls: u64) -> Duration {
    let barrier = Barrier::new(handles.len());
    let run = |handles: Handles| {
        black_box(handles.size()); // the thread has its record
        barrier.wait();
        let begun = Instant::now();
        for _ in 0..calls {
            black_box(black_box(handles).size());
        }
        begun.elapsed()
    };
    thread::scope(|scope| {
        let threads: Vec<_> = handles
            .iter()
            .map(|&handles| {
                scope.spawn({
                    let run = &run;
                    move || run(handles)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).max().unwrap()
    })
}

fn lookup(criterion: &mut Criterion) {
    let library = Library::shared();
    let (one, other) = (Handles::new(library), Handles::new(library));
    let mut group = criterion.benchmark_group("lookup");
    for (name, handles) in
        [("one_thread", &[one][..]), ("two_threads", &[one, other]), ("two_threads_one_handle", &[one, one])]
    {
        group.bench_function(name, |bencher| bencher.iter_custom(|calls| together(handles, calls)));
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500));
    targets = calls, close, lookup
}
criterion_main!(benches);
