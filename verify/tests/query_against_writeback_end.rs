//! A query of dirty ranges, and of the figures, against the end of a writeback.
//!
//! Threads: one writes a page's byte to the store, and ends the writeback; one asks what is dirty.
//!
//! Danger: the query is told that nothing is dirty, and whoever asked reads the store, and finds what was
//! there before.
//!
//! Must hold: who is told that a page is not dirty any more sees what was done before the END that cleaned it.
#![cfg(loom)]

use loom::sync::atomic::{AtomicU8, Ordering::Relaxed};
use upager::sync::Arc;
use upager::{DirtyRange, PAGE_SIZE};
use upager_verify::race::{Depth, explore, explore_resizable, leave};
use upager_verify::world::{World, page};

/// `asks` says how many pages it was told are dirty. It is in the thread that is spawned: loom finds nothing to
/// explore where it is the first.
fn asked_against_end(world: World, asks: fn(&World) -> u64) {
    let store = Arc::new(AtomicU8::new(1));
    let (asker, stored) = (world.clone(), store.clone());
    let asking = loom::thread::spawn(move || {
        let dirty = asks(&asker);
        if dirty == 0 {
            assert_eq!(stored.load(Relaxed), 2, "the page is clean, and the store has the old byte");
        }
        drop(asker);
        leave();
        dirty
    });
    store.store(2, Relaxed);
    world.end(0).expect("a page of the VMO");
    assert!(asking.join().expect("who asks ends") <= 1);
    world.end_of_the_world();
}

fn query(world: &World) -> u64 {
    let mut runs = [DirtyRange::default()];
    let found = world.pager.query_dirty_ranges(&world.vmo, page(0), &mut runs).expect("a page of the VMO");
    if found.actual != 0 {
        assert_eq!(runs[0].length, PAGE_SIZE);
    }
    found.actual as u64
}

/// In a VMO that may have shrunk the figures come from the pages' words.
fn figures(world: &World) -> u64 {
    let counts = world.vmo.counts();
    counts.dirty.0 + counts.zero.0
}

#[test]
fn figures_against_end_of_a_page() {
    explore_resizable("figures against END", Depth::Whole, 1, |world: World| {
        world.supply(0, 1).expect("attached");
        assert_eq!(world.write(0, 2).poll(), Some(Ok(2)));
        world.begin(0).expect("a page of the VMO");
        asked_against_end(world, figures);
    });
}

#[test]
fn query_against_end_of_a_page() {
    explore("query against END", Depth::Whole, |world: World| {
        world.supply(0, 1).expect("attached");
        assert_eq!(world.write(0, 2).poll(), Some(Ok(2)));
        world.begin(0).expect("a page of the VMO");
        asked_against_end(world, query);
    });
}

#[test]
fn query_against_end_of_zeros() {
    explore("query against END of zeros", Depth::Whole, |world: World| {
        world.zero(0, 1).expect("memory");
        world.begin(0).expect("a page of the VMO");
        asked_against_end(world, query);
    });
}
