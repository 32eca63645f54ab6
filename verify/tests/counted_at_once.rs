//! Two pages that are counted together, and change at once.
//!
//! Threads: two write, or clean, a page each, of two that share a count; one of them, or a third thread, asks what is
//! dirty.
//!
//! Danger: a count becomes one only after its parent has counted it, and the parent forgets it only after it became
//! zero. Who finds it at one already relies on what another thread did to the parent; who takes it to zero speaks for
//! those who lowered it before. If he does not take over what they did, a page that is dirty is passed over, or one
//! is said to be clean to somebody who does not see what was done before that.
//!
//! Must hold: who has made a page dirty finds it dirty; who is told that none is dirty sees what was done before each
//! END. And in the end every count is exact (`table::exact` checks that).
#![cfg(loom)]

use loom::sync::atomic::{AtomicU8, Ordering::Relaxed};
use upager::sync::Arc;
use upager::{ByteRange, DirtyRange, PAGE_SIZE};
use upager_verify::race::{Depth, explore_pages, leave};
use upager_verify::world::World;

/// How many of the two pages are dirty.
fn dirty(world: &World) -> u64 {
    let mut runs = [DirtyRange::default(); 2];
    let both = ByteRange::new(0, 2 * PAGE_SIZE);
    let found = world.pager.query_dirty_ranges(&world.vmo, both, &mut runs).expect("pages of the VMO");
    runs[..found.actual].iter().map(|run| run.length / PAGE_SIZE).sum()
}

#[test]
fn two_pages_become_dirty() {
    explore_pages("two pages become dirty", Depth::Bounded, 2, |world: World| {
        for page in 0..2 {
            world.supply(page, 1).expect("attached");
        }
        let other = world.spawn(|world| world.write(1, 2).poll());
        let asker = world.spawn(|world| {
            // As for a mapping: a write of bytes has a fence at its end, which would take over all that there is.
            assert_eq!(world.mapped_write(0).poll(), Some(Ok(0)));
            let dirty = dirty(&world);
            assert!((1..=2).contains(&dirty), "the page that was written is not dirty");
        });
        asker.join().expect("who asks ends");
        assert_eq!(other.join().expect("the other writer ends"), Some(Ok(2)));
        assert_eq!(dirty(&world), 2);
        world.end_of_the_world();
    });
}

#[test]
fn two_pages_become_clean() {
    explore_pages("two pages become clean", Depth::Bounded, 2, |world: World| {
        let store = Arc::new([AtomicU8::new(1), AtomicU8::new(1)]);
        for page in 0..2 {
            world.supply(page, 1).expect("attached");
            assert_eq!(world.write(page, 2).poll(), Some(Ok(2)));
            world.begin(page).expect("a page of the VMO");
        }
        let cleaners = [(0, 0), (1, 1)].map(|(page, place): (u64, usize)| {
            let store = store.clone();
            world.spawn(move |world| {
                store[place].store(2, Relaxed);
                world.end(page).expect("a page of the VMO");
            })
        });
        let (asker, stored) = (world.clone(), store.clone());
        let asking = loom::thread::spawn(move || {
            if dirty(&asker) == 0 {
                let bytes = [0, 1].map(|page: usize| stored[page].load(Relaxed));
                assert_eq!(bytes, [2, 2], "both are clean, and the store has an old byte");
            }
            drop(asker);
            leave();
        });
        asking.join().expect("who asks ends");
        for cleaner in cleaners {
            cleaner.join().expect("a cleaner ends");
        }
        assert_eq!(dirty(&world), 0);
        drop(store);
        world.end_of_the_world();
    });
}
