//! Lookups of resident pages, 1 Mi of them, in order and in one random order.
//!
//! - `pinned`: [`Vmo::lookup`](upager::Vmo::lookup) inside a pin that the caller holds.
//! - `own_pin`: [`Vmo::pin_lookup`](upager::Vmo::pin_lookup), a pin for each lookup.
//!
//! Against them: `flat`, an array of words indexed by page, is the floor: nothing that finds a page
//! does less. `dashmap`, `papaya` and `rwlock_hashbrown` are the maps that a user would reach for,
//! all with the same fast hash; papaya is pinned once, as `pinned` is.
//!
//! Each looks up every page once, and is checked by the sum of what it finds. A lookup's page and its
//! result pass through `black_box`, so that each is a lookup of its own, as in a fault handler: the
//! compiler must not merge the flat array's into one loop of loads.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use dashmap::DashMap;
use foldhash::fast::FixedState;
use upager::{Frame, PageIndex, Platform};
use upager_benches::{World, shuffled};

const PAGES: u32 = 1 << 20;

/// Looks up all pages in each order, and measures it.
struct Lookups<'a> {
    group: BenchmarkGroup<'a, WallTime>,
    order: &'a [u32],
}

impl Lookups<'_> {
    fn measure(&mut self, name: &str, mut lookup: impl FnMut(u32) -> Option<u64>) {
        let expected = u64::from(PAGES) * (u64::from(PAGES) - 1) / 2;
        self.group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let found = |page: &u32| black_box(lookup(black_box(*page)).unwrap_or(0));
                assert!(self.order.iter().map(found).sum::<u64>() == expected);
            });
        });
    }
}

fn in_order(criterion: &mut Criterion) {
    let order: Vec<u32> = (0..PAGES).collect();
    lookups(criterion, "resident/in_order", &order);
}

fn random(criterion: &mut Criterion) {
    lookups(criterion, "resident/random", &shuffled(PAGES));
}

fn lookups(criterion: &mut Criterion, name: &str, order: &[u32]) {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(u64::from(PAGES)));
    let mut lookups = Lookups { group, order };

    let flat: Box<[AtomicU64]> = (0..u64::from(PAGES)).map(AtomicU64::new).collect();
    lookups.measure("flat", |page| {
        flat.get(page as usize).map(|word| word.load(Ordering::Acquire)) // Acquire: as a pager's load must be
    });
    drop(flat);

    let world = World::resident(PAGES);
    let vmo = &world.vmo;
    {
        let guard = world.platform.pin();
        lookups.measure("pinned", |page| vmo.lookup(&guard, PageIndex(page.into())).map(Frame::number));
    }
    lookups.measure("own_pin", |page| vmo.pin_lookup(PageIndex(page.into())).map(|(_guard, frame)| frame.number()));
    drop(world);

    let pages = || (0..PAGES).map(|page| (page, u64::from(page)));
    let dashmap: DashMap<u32, u64, FixedState> = pages().collect();
    lookups.measure("dashmap", |page| dashmap.get(&page).map(|frame| *frame));
    drop(dashmap);

    let papaya: papaya::HashMap<u32, u64, FixedState> = pages().collect();
    {
        let papaya = papaya.pin();
        lookups.measure("papaya", |page| papaya.get(&page).copied());
    }
    drop(papaya);

    let hashbrown: hashbrown::HashMap<u32, u64, FixedState> = pages().collect();
    let hashbrown = RwLock::new(hashbrown);
    lookups.measure("rwlock_hashbrown", |page| {
        hashbrown.read().unwrap_or_else(PoisonError::into_inner).get(&page).copied()
    });
}

criterion_group! {
    name = resident;
    config = Criterion::default().sample_size(30).warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2)).without_plots();
    targets = in_order, random
}
criterion_main!(resident);
