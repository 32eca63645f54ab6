//! Lookups of resident pages, of which there are 1 Mi.
//!
//! | group | what is looked up |
//! | --- | --- |
//! | `resident/in_order` | one page after the other |
//! | `resident/random` | all pages, in one random order |
//! | `resident/hot` | 4 Ki pages among the 1 Mi, over and over, in a random order |
//! | `resident/chain` | the frame of a page is the number of the next: each lookup waits for the one before |
//! | `resident/two_threads` | as random, by two threads at once; the time of one thread's lookups |
//! | `resident/mix` | as two threads, but one access in 20 changes the state of its page |
//! | `resident/churn` | as random, by one thread, while another changes pages as fast as it can |
//! | `resident/beside_faults` | as random, while another thread faults on a missing page of the same VMO, takes the request and fails it, as fast as it can |
//!
//! `upager_pinned` and `upager_own_pin` are ours, `flat` is the floor, the others are what a user
//! would pick. A lookup's page and its result pass through `black_box`, so that each is a lookup of
//! its own, as in a fault handler: the compiler must not merge the flat array's into one loop of
//! loads. A round goes on where the one before it stopped, so that all 1 Mi pages take part.
//!
//! Unfair, to the peers' advantage: in the mix and the churn a change of theirs is one store under
//! their lock, and one of ours is a write, the begin and the end of a writeback: three changes of a
//! page and its counts. And to their disadvantage: they can hold any key.

use std::hint::black_box;
use std::pin::Pin;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use upager::{Access, Evict, Frame, Packet, PageCount, PageIndex, Platform, Status};
use upager_benches::{
    Flat, Maps, OwnPin, Pages, Path, Pinned, Visit, World, circle, config, in_step, shuffled, timed, visit_maps,
};

const PAGES: u32 = 1 << 20;
const HOT: usize = 1 << 12;

/// How the pages are accessed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Alone,
    Chain,
    TwoThreads,
    Mix,
    Churn,
}

impl How {
    /// Accesses a round, by each thread.
    const fn accesses(self) -> usize {
        match self {
            Self::Alone | Self::TwoThreads | Self::Mix => 1 << 16,
            Self::Chain | Self::Churn => 1 << 14,
        }
    }
}

/// Lookups while another thread does all that a missing fault and its service do, but for a supply.
fn beside_faults(criterion: &mut Criterion, order: &[u32]) {
    let accesses = How::Churn.accesses();
    let mut path = Path::new(criterion, "resident/beside_faults", accesses as u64);
    let mut at = 0;
    let world = || {
        let world = World::resident(PAGES);
        assert_eq!(world.vmo.evict(PageCount(1), Evict::Any), PageCount(1)); // the first
        while world.platform.frames() == PageCount(PAGES.into()) {
            world.platform.pin().flush();
        }
        world
    };
    path.measure("upager_pinned", world, |world| {
        at = (at + accesses) % order.len();
        let (started, stop) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut packets = [Packet::default()];
                let mut task = Context::from_waker(Waker::noop());
                while !stop.load(Acquire) {
                    let mut fault = world.vmo.fault(PageIndex(0), Access::Read);
                    assert_eq!(Pin::new(&mut fault).poll(&mut task), Poll::Pending);
                    assert_eq!(world.port.take(&mut packets), 1);
                    assert_eq!(world.pager.fail_range(&world.vmo, packets[0].range(), Status::Io), Ok(()));
                    started.store(true, Release);
                }
            });
            while !started.load(Acquire) {
                std::hint::spin_loop();
            }
            let guard = world.platform.pin();
            let read = |page: u32| world.vmo.lookup(&guard, PageIndex(page.max(1).into())).map(Frame::number);
            let elapsed = timed(|| pass(&order[at..][..accesses], &read)).1;
            stop.store(true, Release);
            elapsed
        })
    });
}

struct Lookups<'a> {
    path: Path<'a>,
    how: How,
    order: &'a [u32],
}

/// Looks up the pages, one after the other.
fn pass(pages: &[u32], read: &impl Fn(u32) -> Option<u64>) {
    const MISSING: u64 = 1 << 40;
    let found = pages.iter().map(|page| black_box(read(black_box(*page)).unwrap_or(MISSING)));
    assert!(found.sum::<u64>() < MISSING);
}

impl Lookups<'_> {
    fn measure<P: Pages>(&mut self, name: &str) {
        let (how, order) = (self.how, self.order);
        let frames = || if how == How::Chain { circle(PAGES) } else { (0..u64::from(PAGES)).collect() };
        let mut at = 0;
        self.path.measure(
            name,
            || P::of(&frames()),
            |pages| {
                at = (at + how.accesses()) % order.len();
                round(pages, how, order, at)
            },
        );
    }
}

/// `at` is where the round begins in the order, of which every thread's part is a whole one.
fn round<P: Pages>(pages: &P, how: How, order: &[u32], at: usize) -> Duration {
    let accesses = how.accesses();
    let part = |thread: usize| &order[(at + thread * order.len() / 2) % order.len()..][..accesses];
    match how {
        How::Alone => {
            let read = pages.reader();
            timed(|| pass(part(0), &read)).1
        }
        How::Chain => {
            let read = pages.reader();
            let follow = |page, _| read(page).and_then(|next| u32::try_from(next).ok()).expect("a page number");
            timed(|| black_box((0..accesses).fold(order[at], follow))).1
        }
        How::TwoThreads => in_step(2, |thread| {
            let read = pages.reader();
            pass(part(thread), &read);
        }),
        How::Mix => in_step(2, |thread| {
            let (read, write) = (pages.reader(), pages.writer());
            for (turn, page) in part(thread).iter().enumerate() {
                if turn % 20 == 19 {
                    write(black_box(*page));
                } else {
                    assert!(black_box(read(black_box(*page))).is_some());
                }
            }
        }),
        How::Churn => {
            let (started, stop) = (AtomicBool::new(false), AtomicBool::new(false));
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let write = pages.writer();
                    for pages in order.chunks_exact(64).rev().cycle() {
                        for page in pages {
                            write(*page);
                        }
                        started.store(true, Release);
                        if stop.load(Acquire) {
                            break;
                        }
                    }
                });
                while !started.load(Acquire) {
                    std::hint::spin_loop();
                }
                let read = pages.reader();
                let elapsed = timed(|| pass(part(0), &read)).1;
                stop.store(true, Release);
                elapsed
            })
        }
    }
}

impl Visit for Lookups<'_> {
    fn visit<M: Maps>(&mut self, name: &'static str) {
        self.measure::<M>(name);
    }
}

fn group(criterion: &mut Criterion, name: &str, how: How, order: &[u32]) {
    let path = Path::new(criterion, name, how.accesses() as u64);
    let mut lookups = Lookups { path, how, order };
    lookups.measure::<Flat>("flat");
    lookups.measure::<Pinned>("upager_pinned");
    lookups.measure::<OwnPin>("upager_own_pin");
    visit_maps(&mut lookups);
}

fn resident(criterion: &mut Criterion) {
    let in_order: Vec<u32> = (0..PAGES).collect();
    let random = shuffled(PAGES);
    let hot: Vec<u32> = random[..HOT].repeat(How::Alone.accesses() / HOT);
    group(criterion, "resident/in_order", How::Alone, &in_order);
    group(criterion, "resident/random", How::Alone, &random);
    group(criterion, "resident/hot", How::Alone, &hot);
    group(criterion, "resident/chain", How::Chain, &random);
    group(criterion, "resident/two_threads", How::TwoThreads, &random);
    group(criterion, "resident/mix", How::Mix, &random);
    group(criterion, "resident/churn", How::Churn, &random);
    beside_faults(criterion, &random);
}

criterion_group! {
    name = lookups;
    config = config();
    targets = resident
}
criterion_main!(lookups);
