//! Dirty pages: marking them, finding them, writing them back.
//!
//! | group | what is done, among 1 Mi resident pages |
//! | --- | --- |
//! | `dirty/mark` | clean pages become dirty, 64 Ki of them in a random order |
//! | `dirty/again` | pages that are dirty are marked again, in a random order |
//! | `dirty/begin_end` | the begin and the end of a writeback of 64 Ki dirty pages in one run; by page |
//! | `dirty/enumerate_dense` | all 1 Mi are dirty, one run; by page |
//! | `dirty/enumerate_runs` | 2048 runs of 16; by run |
//! | `dirty/enumerate_isolated` | 32 Ki pages, each alone; by run |
//! | `dirty/enumerate_few` | 64 pages, anywhere; by run |
//!
//! `flat_bitmap` is the floor: one bit a page, set by an atomic `or`, and found by looking at every
//! word. `roaring` is the bitmap that a user would pick, behind a mutex, since it is for one thread. What
//! they find is put into a buffer of runs, as ours is. They know only which pages are dirty: no
//! frames, no writers, no second state for pages that are being written back; that is a second
//! bitmap here.

use std::pin::Pin;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Waker};

use criterion::{Criterion, criterion_group, criterion_main};
use roaring::RoaringBitmap;
use upager::{Access, ByteRange, DirtyRange, PAGE_SIZE, PageIndex, Writeback};
use upager_benches::{Path, World, config, shuffled, timed};

const PAGES: u32 = 1 << 20;
/// Pages that are marked, or written back, in a round.
const SOME: u32 = 1 << 16;

fn mark(world: &World, page: u32) {
    let mut fault = world.vmo.fault(PageIndex(page.into()), Access::Write);
    let done = Future::poll(Pin::new(&mut fault), &mut Context::from_waker(Waker::noop()));
    assert!(done.is_ready());
}

fn clean(world: &World, range: ByteRange) {
    let begun = world.pager.writeback_begin(&world.vmo, range, Writeback::All);
    assert_eq!(begun.and_then(|()| world.pager.writeback_end(&world.vmo, range)), Ok(()));
}

/// A bit a page.
struct Bitmap(Box<[AtomicU64]>);

impl Bitmap {
    fn of(dirty: &[u32]) -> Self {
        let bitmap = Self((0..PAGES / 64).map(|_| AtomicU64::new(0)).collect());
        for page in dirty {
            bitmap.mark(*page);
        }
        bitmap
    }

    fn mark(&self, page: u32) {
        let word = &self.0[page as usize / 64];
        let bit = 1 << (page % 64);
        // Relaxed: who finds it set need not set it
        if word.load(Relaxed) & bit == 0 {
            word.fetch_or(bit, AcqRel); // AcqRel: as a pager's mark must be
        }
    }

    fn runs(&self, runs: &mut Vec<DirtyRange>) {
        let mut open = None;
        for (first, word) in (0..).step_by(64).zip(&self.0) {
            let word = word.load(Acquire); // Acquire: pairs with `mark`
            if word == 0 && open.is_none() || word == u64::MAX && open.is_some() {
                continue;
            }
            let mut bit = 0;
            while bit < 64 {
                let rest = if open.is_some() { !word >> bit } else { word >> bit };
                if rest == 0 {
                    break;
                }
                bit += rest.trailing_zeros();
                match open.take() {
                    None => open = Some(first + u64::from(bit)),
                    Some(start) => push(runs, start, first + u64::from(bit)),
                }
            }
        }
        if let Some(start) = open {
            push(runs, start, PAGES.into());
        }
    }
}

fn push(runs: &mut Vec<DirtyRange>, start: u64, end: u64) {
    runs.push(DirtyRange { offset: start * PAGE_SIZE, length: (end - start) * PAGE_SIZE, options: 0 });
}

fn lock(bitmap: &Mutex<RoaringBitmap>) -> std::sync::MutexGuard<'_, RoaringBitmap> {
    bitmap.lock().unwrap_or_else(PoisonError::into_inner)
}

fn marks(criterion: &mut Criterion) {
    let order = &shuffled(PAGES)[..SOME as usize];
    let all = ByteRange::new(0, u64::from(PAGES) * PAGE_SIZE);

    let mut path = Path::new(criterion, "dirty/mark", SOME.into());
    path.measure(
        "flat_bitmap",
        || (),
        |()| {
            let bitmap = Bitmap::of(&[]);
            timed(|| order.iter().for_each(|page| bitmap.mark(*page))).1
        },
    );
    path.measure(
        "upager",
        || World::resident(PAGES),
        |world| {
            let elapsed = timed(|| order.iter().for_each(|page| mark(world, *page))).1;
            clean(world, all);
            elapsed
        },
    );
    path.measure(
        "roaring",
        || (),
        |()| {
            let bitmap = Mutex::new(RoaringBitmap::new());
            timed(|| order.iter().for_each(|page| assert!(lock(&bitmap).insert(*page)))).1
        },
    );
    drop(path);

    let mut path = Path::new(criterion, "dirty/again", SOME.into());
    path.measure(
        "flat_bitmap",
        || Bitmap::of(order),
        |bitmap| timed(|| order.iter().for_each(|page| bitmap.mark(*page))).1,
    );
    let dirty = || {
        let world = World::resident(PAGES);
        for page in order {
            mark(&world, *page);
        }
        world
    };
    path.measure("upager", dirty, |world| timed(|| order.iter().for_each(|page| mark(world, *page))).1);
    path.measure(
        "roaring",
        || Mutex::new(order.iter().copied().collect()),
        |bitmap| timed(|| order.iter().for_each(|page| assert!(!lock(bitmap).insert(*page)))).1,
    );
}

fn begin_end(criterion: &mut Criterion) {
    let run = ByteRange::new(0, u64::from(SOME) * PAGE_SIZE);
    let pages: Vec<u32> = (0..SOME).collect();
    let mut path = Path::new(criterion, "dirty/begin_end", SOME.into());
    path.measure(
        "flat_bitmap",
        || Bitmap::of(&[]),
        |awaiting| {
            let dirty = Bitmap::of(&pages);
            timed(|| {
                let words = || dirty.0.iter().zip(&awaiting.0).take(pages.len() / 64);
                words().for_each(|(dirty, awaiting)| awaiting.store(dirty.load(Acquire), Release));
                words().for_each(|(dirty, awaiting)| {
                    dirty.fetch_and(!awaiting.swap(0, AcqRel), AcqRel);
                });
            })
            .1
        },
    );
    path.measure(
        "upager",
        || World::resident(PAGES),
        |world| {
            for page in &pages {
                mark(world, *page);
            }
            timed(|| clean(world, run)).1
        },
    );
    path.measure(
        "roaring",
        || Mutex::new(RoaringBitmap::new()),
        |dirty| {
            lock(dirty).insert_range(0..SOME);
            timed(|| {
                let mut awaiting = RoaringBitmap::new();
                awaiting.insert_range(0..SOME);
                awaiting &= &*lock(dirty);
                *lock(dirty) -= awaiting;
            })
            .1
        },
    );
}

fn enumerate(criterion: &mut Criterion, name: &str, dirty: &[u32], elements: usize, repeat: usize) {
    let mut path = Path::new(criterion, name, (elements * repeat) as u64);
    let mut sorted = dirty.to_vec();
    sorted.sort_unstable();
    let runs = sorted.chunk_by(|page, next| page + 1 == *next).count();

    let check = |found: &[DirtyRange]| assert_eq!(std::hint::black_box(found).len(), runs);
    path.measure(
        "flat_bitmap",
        || (Bitmap::of(dirty), Vec::with_capacity(runs)),
        |(bitmap, found)| {
            timed(|| {
                for _ in 0..repeat {
                    found.clear();
                    bitmap.runs(found);
                    check(found);
                }
            })
            .1
        },
    );
    let world = || {
        let world = World::resident(PAGES);
        for page in dirty {
            mark(&world, *page);
        }
        (world, vec![DirtyRange::default(); runs])
    };
    path.measure("upager", world, |(world, found)| {
        timed(|| {
            for _ in 0..repeat {
                let all = ByteRange::new(0, world.vmo.size());
                let result = world.pager.query_dirty_ranges(&world.vmo, all, found).expect("it is ours");
                assert_eq!(result.available, runs);
                check(found);
            }
        })
        .1
    });
    let roaring = || (Mutex::new(dirty.iter().copied().collect::<RoaringBitmap>()), Vec::with_capacity(runs));
    path.measure("roaring", roaring, |(bitmap, found)| {
        timed(|| {
            for _ in 0..repeat {
                found.clear();
                let bitmap = lock(bitmap);
                let mut pages = bitmap.iter();
                while let Some(run) = pages.next_range() {
                    push(found, (*run.start()).into(), u64::from(*run.end()) + 1);
                }
                check(found);
            }
        })
        .1
    });
}

fn enumerations(criterion: &mut Criterion) {
    let all: Vec<u32> = (0..PAGES).collect();
    let in_runs: Vec<u32> = (0..2048).flat_map(|run| run * 512..run * 512 + 16).collect();
    let isolated: Vec<u32> = (0..PAGES).step_by(32).collect();
    let few: Vec<u32> = shuffled(PAGES / 2)[..64].iter().map(|page| page * 2).collect();
    enumerate(criterion, "dirty/enumerate_dense", &all, all.len(), 1);
    enumerate(criterion, "dirty/enumerate_runs", &in_runs, 2048, 1);
    enumerate(criterion, "dirty/enumerate_isolated", &isolated, isolated.len(), 1);
    enumerate(criterion, "dirty/enumerate_few", &few, few.len(), 16);
}

criterion_group! {
    name = dirty;
    config = config();
    targets = marks, begin_end, enumerations
}
criterion_main!(dirty);
