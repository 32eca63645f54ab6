//! Zeros that share a word, divided by one thread while another changes them.
//!
//! Threads: one writes a page of eight that are zeros and share words; another writes a page beside it,
//! writes all back, or makes all zeros once more.
//!
//! Danger: the two make the same node, and one of them works on the one that is thrown away; a page of
//! the new node is not what the word was; the counts forget the dirty pages, or keep some for ever.
//!
//! Must hold: each byte written is dirty or has been replaced, the rest is what the other thread made it,
//! and the counts come back to nothing.
#![cfg(loom)]

use upager::{ByteRange, DirtyRange, PAGE_SIZE, Writeback};
use upager_verify::race::{Depth, explore_pages, settled};
use upager_verify::world::World;

const PAGES: u64 = 8;
const ALL: ByteRange = ByteRange::new(0, PAGES * PAGE_SIZE);

/// Dirty pages that are stored, and zeros, as a query shows them.
fn dirty(world: &World) -> (u64, u64) {
    let mut runs = [DirtyRange::default(); 8];
    let found = world.pager.query_dirty_ranges(&world.vmo, ALL, &mut runs).expect("pages of the VMO");
    let pages = |options| {
        let runs = runs[..found.available].iter().filter(|run| run.options == options);
        runs.map(|run| run.length / PAGE_SIZE).sum()
    };
    (pages(0), pages(DirtyRange::ZERO))
}

/// Writes everything back, and checks that nothing is left to count.
fn all_goes(world: World) {
    world.pager.writeback_begin(&world.vmo, ALL, Writeback::All).expect("memory");
    world.pager.writeback_end(&world.vmo, ALL).expect("memory");
    let counts = world.vmo.counts();
    assert_eq!((counts.dirty.0, counts.zero.0, dirty(&world)), (0, 0, (0, 0)));
    world.end_of_the_world();
}

#[test]
fn two_writes_divide_the_same_zeros() {
    explore_pages("write against write in zeros", Depth::Bounded, PAGES, |world: World| {
        world.zero(0, PAGES).expect("memory");
        let other = world.spawn(|world| settled(world.write(1, 2)));
        assert_eq!(world.write(0, 1).poll(), Some(Ok(1)));
        assert_eq!(other.join().expect("the other ends").now(), Some(Ok(2)));
        assert_eq!(dirty(&world), (2, PAGES - 2));
        assert_eq!((world.read(0).poll(), world.read(1).poll()), (Some(Ok(1)), Some(Ok(2))));
        all_goes(world);
    });
}

#[test]
fn a_write_divides_zeros_that_are_written_back() {
    explore_pages("write against END of zeros", Depth::Whole, PAGES, |world: World| {
        world.zero(0, PAGES).expect("memory");
        world.pager.writeback_begin(&world.vmo, ALL, Writeback::ZeroRanges).expect("memory");
        let writer = world.spawn(|world| settled(world.write(0, 1)));
        world.pager.writeback_end(&world.vmo, ALL).expect("memory");
        let write = writer.join().expect("the writer ends");
        match write.now() {
            Some(Ok(1)) => assert_eq!((dirty(&world), world.read(0).poll()), ((1, 0), Some(Ok(1)))),
            // The zeros had been written back: the writer asks for the page.
            None => assert_eq!((dirty(&world), world.vmo.counts().in_flight), ((0, 0), 1)),
            other => panic!("{other:?}"),
        }
        drop(write);
        all_goes(world);
    });
}

#[test]
fn zeros_are_made_where_one_is_written() {
    explore_pages("write against zero", Depth::Whole, PAGES, |world: World| {
        world.zero(0, PAGES).expect("memory");
        let zeroer = world.spawn(|world| world.zero(0, PAGES));
        assert_eq!(world.write(0, 1).poll(), Some(Ok(1)));
        zeroer.join().expect("the other ends").expect("memory");
        match world.read(0).poll() {
            Some(Ok(1)) => assert_eq!(dirty(&world), (1, PAGES - 1)),
            Some(Ok(0)) => {
                // Stored zeros are left where the page was replaced before the write stored it.
                let (stored, zeros) = dirty(&world);
                assert_eq!(stored + zeros, PAGES);
            }
            other => panic!("{other:?}"),
        }
        all_goes(world);
    });
}
