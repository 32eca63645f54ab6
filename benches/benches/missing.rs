//! Missing faults and their answers: processor time, with nobody asleep.
//!
//! A burst of pages is faulted, each by a task of its own; the service takes all requests, answers
//! each, and thereby wakes the tasks; each task finds its page. All on one thread, so that what is
//! measured is the pager's work and not the scheduler's.
//!
//! - `missing/scattered`: bursts of 64 pages that are nowhere adjacent: 64 packets.
//! - `missing/adjacent`: bursts of 64 adjacent pages in order: their READs are taken as one packet.
//! - `missing/one`: one page at a time.
//!
//! The VMO has 64 Ki pages. Of these 4 Ki are missing when a round begins, and the others are
//! resident. A round faults the missing ones once, in bursts; between rounds, not measured, they
//! are made absent again. Frames are allocated before the round.
//!
//! `dashmap_channel` does the same work with the [`Stack`] that a user would build, and has the
//! same waker woken; `dashmap_channel_condvar` signals a condition variable for each request
//! instead, as threads without an executor would.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};
use upager::{Access, OwnedFrame, PAGE_SIZE, Packet, PageIndex};
use upager_benches::{Sleeper, Stack, Wakes, World, shuffled};

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

        let start = Instant::now();
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
        let elapsed = start.elapsed();

        assert_eq!(woken.take(), self.missing.len());
        world.evict(self.missing.len());
        elapsed
    }

    /// One round of the stack's.
    fn stack<S: Sleeper>(&self, stack: &Stack<S>, waker: &Waker) -> Duration {
        let mut frames = (u64::from(PAGES)..).take(self.missing.len());
        let mut faults = Vec::with_capacity(self.burst);
        let mut requests = Vec::with_capacity(self.burst);

        let start = Instant::now();
        for burst in self.missing.chunks(self.burst) {
            for page in burst {
                let request = stack.fault(page.0, waker).expect_err("the page is absent");
                assert_eq!(request.frame(), None);
                faults.push(request);
            }
            requests.extend(stack.take());
            for (request, frame) in requests.drain(..).zip(frames.by_ref()) {
                stack.supply(&request, frame);
            }
            for fault in faults.drain(..) {
                assert!(fault.frame().is_some());
            }
        }
        let elapsed = start.elapsed();

        for page in &self.missing {
            stack.evict(page.0);
        }
        elapsed
    }

    fn is_missing(&self) -> impl Fn(u64) -> bool {
        let mut missing = vec![false; PAGES as usize];
        for page in &self.missing {
            missing[usize::try_from(page.0).expect("a page of the VMO")] = true;
        }
        move |page| usize::try_from(page).is_ok_and(|page| missing[page])
    }
}

fn measure<F: FnMut() -> Duration>(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, mut round: F) {
    group.bench_function(name, |bencher| bencher.iter_custom(|rounds| (0..rounds).map(|_| round()).sum()));
}

fn rounds(criterion: &mut Criterion, name: &str, round: &Round) {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(MISSING.into()));
    let woken = Wakes::new();
    let waker = woken.waker();

    let world = World::absent(PAGES, &round.missing);
    measure(&mut group, "upager", || round.upager(&world, &woken));
    drop(world);

    let is_missing = round.is_missing();
    let resident = || (0..PAGES.into()).filter(|page| !is_missing(*page));
    let stack = Stack::<Waker>::new(resident());
    measure(&mut group, "dashmap_channel", || round.stack(&stack, &waker));
    drop(stack);

    let stack = Stack::<Condvar>::new(resident());
    measure(&mut group, "dashmap_channel_condvar", || round.stack(&stack, &waker));
}

fn scattered(criterion: &mut Criterion) {
    rounds(criterion, "missing/scattered", &Round::scattered(BURST as usize));
}

fn adjacent(criterion: &mut Criterion) {
    rounds(criterion, "missing/adjacent", &Round::adjacent());
}

fn one(criterion: &mut Criterion) {
    rounds(criterion, "missing/one", &Round::scattered(1));
}

criterion_group! {
    name = missing;
    config = Criterion::default().sample_size(50).warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2)).without_plots();
    targets = scattered, adjacent, one
}
criterion_main!(missing);
