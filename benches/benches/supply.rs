//! Supply: pages that nobody has asked for yet, so many a call, into a VMO of 64 Ki pages.
//!
//! `supply/1`, `supply/64`, `supply/512` and `supply/65536`, by page. A round supplies all 64 Ki, in
//! ascending order. Nothing is resident when it begins: between rounds, not measured, all is evicted.
//! The table has its leaves already. Frames are allocated before the round.
//!
//! `supply/new_512`: the same, 512 a call, into a new VMO in each round, whose table has nothing. The maps are
//! new too, with room for all.
//!
//! The floor is `flat`, a store for each page. The maps insert each page; one that has guards
//! holds one for as many pages as a call has.

use std::sync::atomic::Ordering::Release;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use upager::{ByteRange, OwnedFrame, PAGE_SIZE};
use upager_benches::{Flat, Maps, Pages, Path, Visit, World, config, timed, visit_maps};

const PAGES: u32 = 1 << 16;

struct Supplies<'a> {
    path: Path<'a>,
    /// Pages in a call.
    batch: u32,
    /// Each round has a new one.
    anew: bool,
}

impl Supplies<'_> {
    fn measure<T>(&mut self, name: &str, mut make: impl FnMut() -> T, mut round: impl FnMut(&mut T) -> Duration) {
        if self.anew {
            self.path.measure(name, || (), |()| round(&mut make()));
        } else {
            self.path.measure(name, make, round);
        }
    }
}

fn upager(world: &World, batch: u32) -> Duration {
    let frames: Vec<_> = (0..PAGES).map(|_| OwnedFrame::new(&*world.platform).expect("frames are numbers")).collect();
    let mut frames = frames.into_iter();
    let ((), elapsed) = timed(|| {
        for first in (0..PAGES).step_by(batch as usize) {
            let range = ByteRange::new(u64::from(first) * PAGE_SIZE, u64::from(batch) * PAGE_SIZE);
            let supplied = world.pager.supply_frames(&world.vmo, range, frames.by_ref().take(batch as usize));
            assert_eq!(supplied, Ok(()));
        }
    });
    world.evict(PAGES as usize);
    elapsed
}

impl Visit for Supplies<'_> {
    fn visit<M: Maps>(&mut self, name: &'static str) {
        let batch = self.batch;
        self.measure(
            name,
            || M::with_room(PAGES as usize),
            |map: &mut M| {
                let ((), elapsed) = timed(|| {
                    for first in (0..PAGES).step_by(batch as usize) {
                        let supply = map.supplier();
                        (first..first + batch).for_each(|page| supply(page, page.into()));
                    }
                });
                map.empty(PAGES);
                elapsed
            },
        );
    }
}

fn supply(criterion: &mut Criterion) {
    let old = [1, 64, 512, PAGES].map(|batch| (batch.to_string(), batch, false));
    for (name, batch, anew) in old.into_iter().chain([("new_512".to_owned(), 512, true)]) {
        let path = Path::new(criterion, &format!("supply/{name}"), PAGES.into());
        let mut supplies = Supplies { path, batch, anew };
        supplies.measure(
            "flat",
            || Flat::of(&vec![0; PAGES as usize]),
            |flat| {
                timed(|| {
                    for (page, word) in (0..).zip(&flat.0) {
                        word.store(std::hint::black_box(page), Release); // Release: as a pager's store must be
                    }
                })
                .1
            },
        );
        supplies.measure(
            "upager",
            || if anew { World::empty(PAGES) } else { World::resident(PAGES) },
            |world| {
                if world.platform.frames().0 > 0 {
                    world.evict(PAGES as usize); // what made the leaves
                }
                upager(world, batch)
            },
        );
        visit_maps(&mut supplies);
    }
}

criterion_group! {
    name = supplies;
    config = config();
    targets = supply
}
criterion_main!(supplies);
