//! Missing faults and their answers: processor time, with nobody asleep.
//!
//! A burst of pages is faulted, each by a task of its own; the service takes all requests, answers
//! each, and thereby wakes the tasks; each task finds its page. All on one thread, so that what is
//! measured is the pager's work and not the scheduler's.
//!
//! | group | what is faulted |
//! | --- | --- |
//! | `missing/one` | one page at a time, anywhere |
//! | `missing/scattered` | bursts of 64 pages that are nowhere adjacent: 64 packets |
//! | `missing/adjacent` | bursts of 64 adjacent pages in order: their READs are taken as one packet |
//! | `missing/join` | one page by so many tasks, which all wait for one request; time by task |
//!
//! The VMO has 64 Ki pages. Of these 4 Ki are missing when a round begins, and the others are
//! resident. A round faults the missing ones once; between rounds, not measured, they are made absent
//! again. Frames are allocated before the round.
//!
//! `dashmap_channel` and `btreemap_mpsc` are the [pagers from parts](upager_benches::Misses). Of the
//! first there are two: its faulters are tasks with the same waker that upager's have, or each has a
//! condition variable, as threads without an executor would. `moka` and `quick_cache` load a missing
//! value in the faulting thread, one thread for each key: they have no queue and no service, and so
//! no burst. `mmap` is the kernel's own fault on a file that is in the page cache: a trap into the
//! kernel and back, which none of the others has, and no service. Both are unlike ours; they are here
//! because one might use them instead.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use foldhash::fast::FixedState;
use upager::{Access, OwnedFrame, PAGE_SIZE, Packet, PageIndex};
use upager_benches::{Locked, Misses, Path, Stack, Wakes, World, config, shuffled, timed};

const PAGES: u32 = 1 << 16;
/// Pages missing when a round begins.
const MISSING: u32 = 1 << 12;
const BURST: u32 = 64;

/// The missing pages, in the order of the faults, and how many are faulted at a time.
struct Round {
    missing: Vec<PageIndex>,
    burst: usize,
}

impl Round {
    /// No page next to another, in a random order.
    fn scattered(burst: usize) -> Self {
        let missing = shuffled(MISSING).iter().map(|nth| PageIndex((nth * (PAGES / MISSING)).into())).collect();
        Self { missing, burst }
    }

    /// Runs of as many pages as a burst has, the runs in a random order.
    fn adjacent() -> Self {
        let runs = shuffled(MISSING / BURST);
        let missing = runs.iter().flat_map(|run| {
            let first = run * BURST * (PAGES / MISSING);
            (first..first + BURST).map(|page| PageIndex(page.into()))
        });
        Self { missing: missing.collect(), burst: BURST as usize }
    }

    /// One round of upager's.
    fn upager(&self, world: &World, woken: &Arc<Wakes>) -> Duration {
        let waker = woken.waker();
        let mut task = Context::from_waker(&waker);
        let frames: Vec<_> =
            self.missing.iter().map(|_| OwnedFrame::new(&*world.platform).expect("frames are numbers")).collect();
        let mut frames = frames.into_iter();
        let mut faults = Vec::with_capacity(self.burst);
        let mut packets = vec![Packet::default(); self.burst];

        let ((), elapsed) = timed(|| {
            for burst in self.missing.chunks(self.burst) {
                for page in burst {
                    let mut fault = world.vmo.fault(*page, Access::Read);
                    assert_eq!(Pin::new(&mut fault).poll(&mut task), Poll::Pending);
                    faults.push(fault);
                }
                let taken = world.port.take(&mut packets);
                for packet in &packets[..taken] {
                    let pages = usize::try_from(packet.page_request.length / PAGE_SIZE).expect("a burst at most");
                    let supplied = world.pager.supply_frames(&world.vmo, packet.range(), frames.by_ref().take(pages));
                    assert_eq!(supplied, Ok(()));
                }
                for mut fault in faults.drain(..) {
                    assert_eq!(Pin::new(&mut fault).poll(&mut task), Poll::Ready(Ok(())));
                }
            }
        });

        assert_eq!(woken.take(), self.missing.len());
        world.evict(self.missing.len());
        elapsed
    }

    /// One round of a pager's from parts.
    fn misses<M: Misses>(&self, pager: &M, waker: &Waker) -> Duration {
        let mut frames = (u64::from(PAGES)..).take(self.missing.len());
        let mut faults = Vec::with_capacity(self.burst);
        let mut requests = Vec::with_capacity(self.burst);

        let ((), elapsed) = timed(|| {
            for burst in self.missing.chunks(self.burst) {
                for page in burst {
                    let request = pager.fault(page.0, waker).expect_err("the page is absent");
                    assert_eq!(request.frame(), None);
                    faults.push(request);
                }
                requests.extend(std::iter::from_fn(|| pager.take()));
                for (request, frame) in requests.drain(..).zip(frames.by_ref()) {
                    pager.supply(&request, frame);
                }
                for fault in faults.drain(..) {
                    assert!(fault.frame().is_some());
                }
            }
        });

        for page in &self.missing {
            pager.evict(page.0);
        }
        elapsed
    }

    /// One round of something that loads in place.
    fn loads(&self, load: impl Fn(u64) -> u64, evict: impl Fn(u64)) -> Duration {
        let ((), elapsed) = timed(|| {
            for page in &self.missing {
                assert_eq!(load(page.0), page.0);
            }
        });
        for page in &self.missing {
            evict(page.0);
        }
        elapsed
    }

    fn resident(&self) -> impl Iterator<Item = u64> {
        let mut missing = vec![false; PAGES as usize];
        for page in &self.missing {
            missing[usize::try_from(page.0).expect("a page of the VMO")] = true;
        }
        (0..u64::from(PAGES)).filter(move |page| !missing[usize::try_from(*page).unwrap_or(0)])
    }
}

fn rounds(criterion: &mut Criterion, name: &str, round: &Round) {
    let mut path = Path::new(criterion, name, MISSING.into());
    let woken = Wakes::new();
    let waker = woken.waker();
    path.measure("upager", || World::absent(PAGES, &round.missing), |world| round.upager(world, &woken));
    path.measure("dashmap_channel", || Stack::<Waker>::new(round.resident()), |peer| round.misses(peer, &waker));
    path.measure(
        "dashmap_channel_condvar",
        || Stack::<Condvar>::new(round.resident()),
        |peer| round.misses(peer, &waker),
    );
    path.measure("btreemap_mpsc", || Locked::new(round.resident()), |peer| round.misses(peer, &waker));
    if round.burst > 1 {
        return;
    }
    let moka = || {
        let cache = moka::sync::Cache::builder()
            .max_capacity(u64::from(PAGES) * 2)
            .initial_capacity(PAGES as usize)
            .build_with_hasher(FixedState::default());
        round.resident().for_each(|page| cache.insert(page, page));
        cache
    };
    path.measure("moka", moka, |cache| {
        round.loads(|page| cache.get_with(page, || page), |page| cache.invalidate(&page))
    });
    let quick = || {
        let cache = quick_cache::sync::Cache::<u64, u64, _, FixedState>::with(
            PAGES as usize * 2,
            u64::from(PAGES) * 2,
            quick_cache::UnitWeighter,
            FixedState::default(),
            quick_cache::sync::DefaultLifecycle::default(),
        );
        round.resident().for_each(|page| cache.insert(page, page));
        cache
    };
    path.measure("quick_cache", quick, |cache| {
        round.loads(
            |page| cache.get_or_insert_with(&page, || Ok::<_, ()>(page)).unwrap_or(0),
            |page| {
                cache.remove(&page);
            },
        )
    });
    path.measure(
        "mmap",
        || Mapped::new(PAGES as usize),
        |mapped| {
            mapped.forget();
            timed(|| round.missing.iter().for_each(|page| mapped.touch(usize::try_from(page.0).unwrap_or(0)))).1
        },
    );
}

/// A file in the page cache, mapped.
struct Mapped {
    at: *mut u8,
    bytes: usize,
}

impl Mapped {
    fn new(pages: usize) -> Self {
        let bytes = pages * 4096;
        // SAFETY: makes a file without a name.
        let file = unsafe { libc::memfd_create(c"upager-benches".as_ptr(), 0) };
        // SAFETY: the file is ours.
        let sized = unsafe { libc::ftruncate(file, libc::off_t::try_from(bytes).expect("a size")) };
        assert!(file >= 0 && sized == 0);
        let mode = libc::MAP_SHARED | libc::MAP_POPULATE;
        // SAFETY: a new mapping, where the kernel likes.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, mode, file, 0) };
        assert_ne!(at, libc::MAP_FAILED);
        // SAFETY: our own, used no more; the mapping keeps the file.
        unsafe { libc::close(file) };
        // Pages are mapped one by one, as ours are.
        // SAFETY: our own mapping.
        assert_eq!(unsafe { libc::madvise(at, bytes, libc::MADV_RANDOM) }, 0);
        let mapped = Self { at: at.cast(), bytes };
        (0..pages).for_each(|page| mapped.write(page));
        mapped
    }

    fn write(&self, page: usize) {
        // SAFETY: inside the mapping.
        unsafe { self.at.add(page * 4096).write_volatile(1) };
    }

    /// Unmaps the pages, which stay in the page cache.
    fn forget(&self) {
        // SAFETY: our own mapping, to which there are no references.
        assert_eq!(unsafe { libc::madvise(self.at.cast(), self.bytes, libc::MADV_DONTNEED) }, 0);
    }

    fn touch(&self, page: usize) {
        // SAFETY: inside the mapping.
        assert_eq!(unsafe { self.at.add(page * 4096).read_volatile() }, 1);
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: our own mapping, used no more.
        unsafe { libc::munmap(self.at.cast(), self.bytes) };
    }
}

fn join(criterion: &mut Criterion, tasks: u32) {
    let mut path = Path::new(criterion, &format!("missing/join_{tasks}"), tasks.into());
    let woken = Wakes::new();
    let waker = woken.waker();
    path.measure(
        "upager",
        || World::empty(1),
        |world| {
            let mut task = Context::from_waker(&waker);
            let frame = OwnedFrame::new(&*world.platform).expect("frames are numbers");
            let mut faults = Vec::with_capacity(tasks as usize);
            let mut packets = [Packet::default()];
            let ((), elapsed) = timed(|| {
                for _ in 0..tasks {
                    let mut fault = world.vmo.fault(PageIndex(0), Access::Read);
                    assert_eq!(Pin::new(&mut fault).poll(&mut task), Poll::Pending);
                    faults.push(fault);
                }
                assert_eq!(world.port.take(&mut packets), 1);
                assert_eq!(world.pager.supply_frames(&world.vmo, packets[0].range(), [frame]), Ok(()));
                for mut fault in faults.drain(..) {
                    assert_eq!(Pin::new(&mut fault).poll(&mut task), Poll::Ready(Ok(())));
                }
            });
            assert_eq!(woken.take(), tasks as usize);
            world.evict(1);
            elapsed
        },
    );
    let peer = |pager: &mut Stack<Waker>| {
        let mut faults = Vec::with_capacity(tasks as usize);
        let ((), elapsed) = timed(|| {
            for _ in 0..tasks {
                faults.push(pager.fault(0, &waker).expect_err("the page is absent"));
            }
            let request = pager.take().expect("the first fault made one");
            pager.supply(&request, 1);
            for fault in faults.drain(..) {
                assert!(fault.frame().is_some());
            }
        });
        pager.evict(0);
        elapsed
    };
    path.measure("dashmap_channel", || Stack::<Waker>::new(std::iter::empty()), peer);
}

fn missing(criterion: &mut Criterion) {
    rounds(criterion, "missing/one", &Round::scattered(1));
    rounds(criterion, "missing/scattered", &Round::scattered(BURST as usize));
    rounds(criterion, "missing/adjacent", &Round::adjacent());
    for tasks in [1, 8, 64] {
        join(criterion, tasks);
    }
}

criterion_group! {
    name = faults;
    config = config();
    targets = missing
}
criterion_main!(faults);
