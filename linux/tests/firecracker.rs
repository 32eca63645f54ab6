//! The handler for the memory of a snapshot, with a process that does what Firecracker does.

#![allow(clippy::cast_possible_truncation, clippy::cast_ptr_alignment)] // 64 bits; pages

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::ioctl::{Updater, opcode};
use rustix::mm::{Advice, MapFlags, ProtFlags, UserfaultfdFlags, madvise, mmap_anonymous, munmap, userfaultfd};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{Signal, set_parent_process_death_signal};
use upager::{ByteRange, PAGE_SIZE};
use upager_linux::firecracker::{Guest, GuestCounts};
use upager_linux::service::{MemoryLimit, Service, Writes};
use upager_linux::source::{ErrorKind, Fault, Injector, Memory, Operation, Rule};

const PAGE: usize = PAGE_SIZE as usize;
/// The regions of the guest, in pages: where each begins in the snapshot, and how long it is.
const REGIONS: [(usize, usize); 2] = [(0, 700), (800, 300)];
/// Pages of the snapshot, and the one that cannot be read.
const PAGES: usize = 1100;
const BAD: usize = 1050;

/// A huge page, and the guest that has them: where its memory begins in the snapshot, and how many it has.
const HUGE: usize = 2 << 20;
const HUGE_FIRST: usize = HUGE;
const HUGE_PAGES: usize = 4;
/// Of the snapshot that it has. The page that cannot be read is of its last huge page.
const HUGE_SNAPSHOT: usize = HUGE_FIRST + HUGE_PAGES * HUGE;
const HUGE_BAD: usize = HUGE_SNAPSHOT - 7 * PAGE;

fn word(page: usize) -> u64 {
    (page as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1
}

// What Firecracker does. ------------------------------------------------------------------------------------------

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

const REGISTER: rustix::ioctl::Opcode = opcode::read_write::<Register>(0xaa, 0x00);

/// A userfaultfd as Firecracker has it.
fn open_uffd() -> OwnedFd {
    const EVENT_REMOVE: u64 = 1 << 3;
    let flags = UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK | UserfaultfdFlags::from_bits_retain(1);
    // SAFETY: only memory of its own is registered with it.
    let uffd = unsafe { userfaultfd(flags) }.unwrap();
    let mut api = Api { version: 0xaa, features: EVENT_REMOVE, ioctls: 0 };
    // SAFETY: `uffdio_api`.
    unsafe { rustix::ioctl::ioctl(&uffd, Updater::<{ opcode::read_write::<Api>(0xaa, 0x3f) }, _>::new(&mut api)) }
        .unwrap();
    uffd
}

/// Memory of the guest, which a handler is to fill. The error: there are no such pages.
fn guest_region(uffd: &OwnedFd, bytes: usize, kind: MapFlags) -> rustix::io::Result<*mut u8> {
    let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | kind);
    // SAFETY: a new mapping.
    let at = unsafe { mmap_anonymous(std::ptr::null_mut(), bytes, prot, flags) }?;
    let mut register = Register { start: at.addr() as u64, len: bytes as u64, mode: 1, ioctls: 0 };
    // SAFETY: `uffdio_register`, of memory that nobody uses yet.
    unsafe { rustix::ioctl::ioctl(uffd, Updater::<REGISTER, _>::new(&mut register)) }.unwrap();
    Ok(at.cast())
}

/// A guest with memory of huge pages.
fn huge_guest() -> rustix::io::Result<(OwnedFd, *mut u8)> {
    let uffd = open_uffd();
    let at = guest_region(&uffd, HUGE_PAGES * HUGE, MapFlags::HUGETLB | MapFlags::HUGE_2MB)?;
    Ok((uffd, at))
}

fn guest_memory() -> (OwnedFd, Vec<*mut u8>) {
    let uffd = open_uffd();
    let map = |(_, pages): &(usize, usize)| guest_region(&uffd, pages * PAGE, MapFlags::NORESERVE).unwrap();
    let regions = REGIONS.iter().map(map).collect();
    (uffd, regions)
}

/// Says what Firecracker says; in two parts, to be nasty.
fn say(socket: &UnixStream, uffd: &OwnedFd, regions: &[*mut u8]) {
    let region = |(at, (first, pages)): (&*mut u8, &(usize, usize))| {
        format!(
            r#"{{"base_host_virt_addr":{},"size":{},"offset":{},"page_size":4096,"page_size_kib":4096}}"#,
            at.addr(),
            pages * PAGE,
            first * PAGE
        )
    };
    say_this(socket, uffd, &format!("[{}]", regions.iter().zip(&REGIONS).map(region).collect::<Vec<_>>().join(",")));
}

fn say_this(socket: &UnixStream, uffd: &OwnedFd, said: &str) {
    let (first, rest) = said.as_bytes().split_at(said.len() / 2);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [uffd.as_fd()];
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)));
    sendmsg(socket, &[IoSlice::new(first)], &mut ancillary, SendFlags::empty()).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    (&mut &*socket).write_all(rest).unwrap();
}

#[derive(Clone, Copy)]
struct Words(*mut u8);

// SAFETY: an address of memory that lives as long as the process.
unsafe impl Send for Words {}
// SAFETY: as for Send; it is used by whole words.
unsafe impl Sync for Words {}

impl Words {
    fn at(self, page: usize, word: usize) -> *mut u64 {
        self.0.wrapping_add(page * PAGE + word * 8).cast()
    }

    fn load(self, page: usize, word: usize) -> u64 {
        // SAFETY: within the region, by the callers.
        unsafe { self.at(page, word).read_volatile() }
    }

    fn store(self, page: usize, word: usize, value: u64) {
        // SAFETY: as above.
        unsafe { self.at(page, word).write_volatile(value) }
    }

    fn drop_pages(self, first: usize, count: usize) {
        // SAFETY: pages of the region, that are to be zeros now.
        unsafe { madvise(self.at(first, 0).cast(), count * PAGE, Advice::LinuxDontNeed) }.unwrap();
    }
}

/// Not a test of its own: the Firecracker of the others.
#[test]
fn firecracker_process() {
    let (Some(socket), Some(manner)) = (std::env::var_os("UPAGER_TEST_SOCKET"), std::env::var_os("UPAGER_TEST_MANNER"))
    else {
        return;
    };
    set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    let socket = UnixStream::connect(socket).unwrap();
    if manner.to_string_lossy().starts_with("huge") {
        return be_huge(&socket, manner == "huge bad page");
    }
    let (uffd, regions) = guest_memory();
    say(&socket, &uffd, &regions);
    let [first, second] = [Words(regions[0]), Words(regions[1])];
    if manner == "bad page" {
        assert_eq!(second.load(BAD - 801, 0), word(BAD - 1), "its neighbour, of the same block");
        second.load(BAD - 800, 0);
        unreachable!("it was had");
    }
    // Four processors touch all of it, each in its order, and write.
    std::thread::scope(|s| {
        for processor in 0..4_usize {
            s.spawn(move || {
                for n in 0..700 {
                    let page = (n * 37 + processor * 175) % 700;
                    assert_eq!(first.load(page, 0), word(page), "page {page}");
                    first.store(page, 1 + processor, n as u64);
                    assert_eq!(first.load(page, 1 + processor), n as u64);
                }
            });
        }
        // A balloon takes pages meanwhile: touched ones, and others.
        s.spawn(move || {
            for page in (0..200).step_by(10) {
                assert_eq!(second.load(page, 0), word(800 + page));
                second.drop_pages(page, 5);
                for page in page..page + 5 {
                    assert_eq!(second.load(page, 0), 0, "page {page} was given back");
                }
                assert_eq!(second.load(page + 5, 0), word(805 + page));
            }
        });
    });
    for processor in 0..4 {
        for n in 0..700 {
            assert_eq!(first.load((n * 37 + processor * 175) % 700, 1 + processor), n as u64);
        }
    }
    println!("all is well");
}

/// A Firecracker whose guest has huge pages.
fn be_huge(socket: &UnixStream, bad: bool) {
    let (uffd, at) = huge_guest().unwrap();
    let (address, bytes) = (at.addr(), HUGE_PAGES * HUGE);
    let said = format!(
        r#"[{{"base_host_virt_addr":{address},"size":{bytes},"offset":{HUGE_FIRST},"page_size":{HUGE},"page_size_kib":{HUGE}}}]"#
    );
    say_this(socket, &uffd, &said);
    let memory = Words(at);
    let (first, a_huge_page) = (HUGE_FIRST / PAGE, HUGE / PAGE);
    if bad {
        assert_eq!(memory.load(0, 0), word(first));
        memory.load((HUGE_PAGES - 1) * a_huge_page, 0);
        unreachable!("it was had");
    }
    let pages = (HUGE_PAGES - 1) * a_huge_page;
    std::thread::scope(|s| {
        for processor in 0..4_usize {
            s.spawn(move || {
                for n in 0..pages {
                    let page = (n * 37 + processor * 175) % pages;
                    assert_eq!(memory.load(page, 0), word(first + page), "page {page}");
                    memory.store(page, 1 + processor, n as u64 + 1);
                }
            });
        }
    });
    for processor in 0..4 {
        for n in 0..pages {
            assert_eq!(memory.load((n * 37 + processor * 175) % pages, 1 + processor), n as u64 + 1);
        }
    }
    // Given back: one that was touched.
    memory.drop_pages(a_huge_page, a_huge_page);
    for page in a_huge_page..2 * a_huge_page {
        assert_eq!((memory.load(page, 0), memory.load(page, 1)), (0, 0), "page {page} was given back");
    }
    assert_eq!(memory.load(2 * a_huge_page, 0), word(first + 2 * a_huge_page));
    println!("all is well");
}

// The handler. ----------------------------------------------------------------------------------------------------

struct World {
    service: Service,
    vmo: Arc<upager::Vmo<upager_linux::LinuxPlatform>>,
}

fn world() -> World {
    world_of(PAGES, BAD, 256)
}

/// A snapshot of so many pages, one of which cannot be read, in memory for so many.
fn world_of(pages: usize, bad: usize, limit: u64) -> World {
    let mut bytes = vec![0; pages * PAGE];
    for page in 0..pages {
        bytes[page * PAGE..][..8].copy_from_slice(&word(page).to_ne_bytes());
    }
    let source = Injector::new(Memory::new(bytes), 1).with_latency(Duration::ZERO, Duration::from_micros(200));
    let range = Some(ByteRange::new((bad * PAGE) as u64, PAGE_SIZE));
    source.add(Rule { operation: Some(Operation::Read), range, ..Rule::always(Fault::Error(ErrorKind::Io)) });
    let service = Service::builder().memory(MemoryLimit::bytes(limit * PAGE_SIZE)).start().unwrap();
    let vmo = service.open(source, Writes::Refuse).unwrap();
    World { service, vmo }
}

/// Runs a guest. Returns its end, and what was done for it; or why its handler failed.
fn run(world: &World, manner: &str) -> (Child, upager_linux::Result<GuestCounts>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("uffd.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "firecracker_process", "--nocapture"]).stdout(Stdio::piped());
    command.env("UPAGER_TEST_SOCKET", &path).env("UPAGER_TEST_MANNER", manner);
    let child = command.spawn().unwrap();
    let guest = Guest::accept(listener.accept().unwrap().0).unwrap();
    if manner.starts_with("huge") {
        let [region] = guest.regions() else { panic!("{guest:?}") };
        assert_eq!((region.page_size, region.size), (HUGE as u64, (HUGE_PAGES * HUGE) as u64));
        return (child, guest.serve(&world.vmo));
    }
    let regions: Vec<_> =
        guest.regions().iter().map(|region| (region.offset as usize / PAGE, region.size as usize / PAGE)).collect();
    assert!(regions.len() == 2 && REGIONS.iter().all(|region| regions.contains(region)), "{regions:?}");
    (child, guest.serve(&world.vmo))
}

#[test]
fn guests_of_one_snapshot_have_its_pages_and_their_own_writes() {
    let world = world();
    std::thread::scope(|s| {
        for guest in 0..2 {
            let world = &world;
            s.spawn(move || {
                let (mut child, counts) = run(world, "good");
                let mut told = String::new();
                child.stdout.take().unwrap().read_to_string(&mut told).unwrap();
                assert!(child.wait().unwrap().success() && told.contains("all is well"), "{told}");
                let counts = counts.unwrap();
                assert!(counts.faults > 0 && counts.copied >= 700 << 12 && counts.zeroed >= 100, "{counts:?}");
                assert_eq!(counts.poisoned, 0, "guest {guest}");
            });
        }
    });
    assert!(world.service.counts().evicted > 0, "under a limit");
}

#[test]
fn a_page_that_cannot_be_had_kills_the_guest_and_does_not_hang_it() {
    let world = world();
    let (mut child, counts) = run(&world, "bad page");
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGBUS));
    let counts = counts.unwrap();
    assert_eq!(counts.poisoned, 1);
    assert!(counts.copied > 0);
}

/// Huge pages are an administrator's to give: `sysctl vm.nr_hugepages=8`.
fn has_huge_pages() -> bool {
    match huge_guest() {
        Ok((_, at)) => {
            // SAFETY: a mapping of ours, which nobody uses.
            unsafe { munmap(at.cast(), HUGE_PAGES * HUGE) }.unwrap();
            true
        }
        Err(error) => {
            println!("skipped: no huge pages here: {error}");
            false
        }
    }
}

#[test]
fn a_guest_with_huge_pages_is_filled_by_them() {
    if !has_huge_pages() {
        return;
    }
    // In memory for less than a huge page, and for more.
    for limit in [256, 1024] {
        let world = world_of(HUGE_SNAPSHOT / PAGE, HUGE_BAD / PAGE, limit);
        let (mut child, counts) = run(&world, "huge");
        let mut told = String::new();
        child.stdout.take().unwrap().read_to_string(&mut told).unwrap();
        assert!(child.wait().unwrap().success() && told.contains("all is well"), "{told}");
        let counts = counts.unwrap();
        assert_eq!((counts.copied, counts.zeroed, counts.poisoned), (((HUGE_PAGES - 1) * HUGE) as u64, 1, 0));
    }
    let world = world_of(HUGE_SNAPSHOT / PAGE, HUGE_BAD / PAGE, 1024);
    let (mut child, counts) = run(&world, "huge bad page");
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGBUS));
    let counts = counts.unwrap();
    assert_eq!((counts.copied, counts.poisoned), (HUGE as u64, 1));
}

#[test]
fn a_snapshot_that_is_too_short_has_the_guest_refused() {
    let service = Service::builder().start().unwrap();
    let vmo = service.open(Memory::new(vec![0; PAGE]), Writes::Refuse).unwrap();
    let (mut child, served) = run(&World { service, vmo }, "bad page");
    assert!(matches!(served, Err(upager_linux::Error::Pager(upager::Status::OutOfRange))));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn who_says_something_else_is_refused() {
    for said in [&b"hello"[..], b"{}", b"[]", br#"[{"base_host_virt_addr":1,"size":4096,"offset":0}]"#, b""] {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(said).unwrap();
        drop(theirs);
        let refused = Guest::accept(ours);
        assert!(matches!(refused, Err(upager_linux::Error::System { .. })), "{said:?}: {refused:?}");
    }
}
