//! The evictor's scan, over a VMO of 64 Ki pages; time by page evicted, or passed.
//!
//! | group | what the hand meets |
//! | --- | --- |
//! | `evict/all` | clean pages, all of which go, in one call |
//! | `evict/second_chance` | clean pages, all accessed: one turn ages them, the next takes them |
//! | `evict/some` | 64 of 64 Ki clean pages, in one call; by page evicted |
//! | `evict/among_dirty` | one clean page in 64, the others dirty: by page evicted |
//!
//! What a grace period later frees the frames is not measured: it is the epoch's.
//!
//! `flat_clock`, the floor, is a hand over an array of words, which swaps each word whose page is to
//! go. The peers: `dashmap_retain` keeps or drops every entry, and has no order of its own;
//! `quick_cache` and `moka` evict as they insert, which no bench of a scan can be set against.

use std::pin::Pin;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use dashmap::DashMap;
use foldhash::fast::FixedState;
use upager::{Access, ByteRange, Evict, OwnedFrame, PAGE_SIZE, PageCount, PageIndex};
use upager_benches::{Numbers, Path, World, config, timed};

const PAGES: u32 = 1 << 16;

const CLEAN: u64 = 1;
const ACCESSED: u64 = 2;
const DIRTY: u64 = 4;

/// What there is before a round, and what is asked.
#[derive(Clone, Copy)]
struct Case {
    state: fn(u32) -> u64,
    evict: u32,
    which: Evict,
}

fn fault(world: &World, page: u32, access: Access) {
    let mut fault = world.vmo.fault(PageIndex(page.into()), access);
    assert_eq!(Future::poll(Pin::new(&mut fault), &mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(())));
}

fn frame(platform: &Numbers) -> OwnedFrame<'_, Numbers> {
    OwnedFrame::new(platform).expect("frames are numbers")
}

/// As it is before each round: what is absent is supplied, what is to be dirty is dirty.
fn restore(world: &World, case: Case) {
    // All at once: pages that are there stay as they are.
    let all = ByteRange::new(0, u64::from(PAGES) * PAGE_SIZE);
    let frames: Vec<_> = (0..PAGES).map(|_| frame(&world.platform)).collect();
    assert_eq!(world.pager.supply_frames(&world.vmo, all, frames), Ok(()));
    for page in 0..PAGES {
        match (case.state)(page) {
            DIRTY => fault(world, page, Access::Write),
            ACCESSED => fault(world, page, Access::Read),
            _ => {}
        }
    }
}

fn upager(world: &World, case: Case) -> Duration {
    restore(world, case);
    let (evicted, elapsed) = timed(|| world.vmo.evict(PageCount(case.evict.into()), case.which));
    assert_eq!(evicted, PageCount(case.evict.into()));
    elapsed
}

fn flat(words: &[AtomicU64], hand: &mut usize, case: Case) -> Duration {
    for (page, word) in (0..).zip(words) {
        word.store((case.state)(page), std::sync::atomic::Ordering::Relaxed); // Relaxed: one thread
    }
    let ((), elapsed) = timed(|| {
        let mut left = case.evict;
        while left > 0 {
            let word = &words[*hand];
            *hand = (*hand + 1) % words.len();
            // Acquire, and AcqRel: as a pager's must be
            let (from, to) = match word.load(Acquire) {
                CLEAN => (CLEAN, 0),
                ACCESSED => (ACCESSED, CLEAN),
                _ => continue,
            };
            if word.compare_exchange(from, to, AcqRel, Acquire).is_ok() && to == 0 {
                left -= 1;
            }
        }
    });
    elapsed
}

fn group(criterion: &mut Criterion, name: &str, case: Case) {
    let mut path = Path::new(criterion, name, case.evict.into());
    let words = || (0..PAGES).map(|_| AtomicU64::new(0)).collect::<Box<[_]>>();
    path.measure("flat_clock", || (words(), 0), |(words, hand)| flat(words, hand, case));
    path.measure("upager", || World::empty(PAGES), |world| upager(world, case));
    if case.evict == PAGES || case.evict == PAGES / 64 {
        let map = || DashMap::<u32, u64, FixedState>::with_capacity_and_hasher(PAGES as usize, FixedState::default());
        path.measure("dashmap_retain", map, |map| {
            (0..PAGES).for_each(|page| drop(map.entry(page).or_insert((case.state)(page))));
            timed(|| map.retain(|_, state| *state == DIRTY)).1
        });
    }
}

fn evict(criterion: &mut Criterion) {
    group(criterion, "evict/all", Case { state: |_| CLEAN, evict: PAGES, which: Evict::Any });
    group(criterion, "evict/second_chance", Case { state: |_| ACCESSED, evict: PAGES, which: Evict::Unused });
    group(criterion, "evict/some", Case { state: |_| CLEAN, evict: 64, which: Evict::Any });
    let among = |page: u32| if page.is_multiple_of(64) { CLEAN } else { DIRTY };
    group(criterion, "evict/among_dirty", Case { state: among, evict: PAGES / 64, which: Evict::Any });
}

criterion_group! {
    name = evictions;
    config = config();
    targets = evict
}
criterion_main!(evictions);
