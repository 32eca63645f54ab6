//! A supply of all pages of a leaf that is not there yet, which comes by one swap, against everything.
//!
//! Threads: one supplies both pages of a leaf, another looks, reads, supplies the same or the leaf beside it, makes
//! zeros, sets the size, evicts or detaches.
//!
//! Danger: a page is seen and its bytes are not; a page is there and not counted, so that a scan passes it over; two
//! leaves of which one is lost, with its frames; a waiter in a leaf that was made meanwhile is never told; pages that
//! a detach or a shrink did not meet stay.
//!
//! Must hold: each page is what the calls in some order make it, every frame is freed once, and whoever waits
//! comes home.
#![cfg(loom)]

use upager::{ByteRange, OwnedFrame, PAGE_SIZE, PageCount, Result, Status};
use upager_verify::race::{Depth, explore_pages, explore_resizable, settled};
use upager_verify::world::World;

/// The pages of a leaf, in a model.
const LEAF: u64 = 2;

/// Supplies a whole leaf from page `at` on, with `byte` and the numbers after it.
fn supply_leaf(world: &World, at: u64, byte: u8) -> Result<()> {
    let frame = |byte| {
        let frame = OwnedFrame::new(&*world.platform)?;
        frame.write(0, &[byte])?;
        Ok::<_, Status>(frame)
    };
    let range = ByteRange::new(at * PAGE_SIZE, LEAF * PAGE_SIZE);
    world.pager.supply_frames(&world.vmo, range, [frame(byte)?, frame(byte + 1)?])
}

#[test]
fn supply_of_a_leaf_against_a_lookup() {
    explore_pages("supply of a leaf against a lookup", Depth::Whole, LEAF, |world: World| {
        let supplier = world.spawn(|world| supply_leaf(&world, 0, 5));
        match world.look_up(1) {
            None => {}
            Some(6) => assert_eq!(world.vmo.counts().resident, PageCount(LEAF), "a page is there and not counted"),
            Some(byte) => panic!("a byte of before: {byte}"),
        }
        supplier.join().expect("the supplier ends").expect("attached");
        assert_eq!((world.look_up(0), world.look_up(1)), (Some(5), Some(6)));
        assert_eq!(world.vmo.counts().resident, PageCount(LEAF));
        world.end_of_the_world();
    });
}

#[test]
fn supply_of_a_leaf_against_a_fault() {
    explore_pages("supply of a leaf against a fault", Depth::Whole, LEAF, |world: World| {
        let reader = world.spawn(|world| settled(world.read(1)));
        supply_leaf(&world, 0, 5).expect("attached");
        let read = reader.join().expect("the reader ends");
        assert_eq!(read.now(), Some(Ok(6)), "the reader is home");
        let counts = world.vmo.counts();
        assert_eq!((counts.resident, counts.in_flight), (PageCount(LEAF), 0));
        drop(read);
        world.end_of_the_world();
    });
}

#[test]
fn supply_of_a_leaf_against_supply_of_it() {
    explore_pages("supply of a leaf against supply of it", Depth::Whole, LEAF, |world: World| {
        let other = world.spawn(|world| supply_leaf(&world, 0, 7));
        supply_leaf(&world, 0, 5).expect("attached");
        let seen = world.look_up(0);
        other.join().expect("the other ends").expect("attached");
        assert!(matches!(seen, Some(5 | 7)), "{seen:?}");
        assert_eq!((world.look_up(0), world.look_up(1)), (seen, seen.map(|byte| byte + 1)));
        assert_eq!(world.platform.frames(), 2, "the frames of the second are freed");
        assert_eq!(world.vmo.counts().resident, PageCount(LEAF));
        world.end_of_the_world();
    });
}

/// Of one page besides, by the usual way, so that the leaf is made meanwhile.
#[test]
fn supply_of_a_leaf_against_supply_of_a_page() {
    explore_pages("supply of a leaf against supply of a page", Depth::Whole, LEAF, |world: World| {
        let other = world.spawn(|world| world.supply(1, 9));
        supply_leaf(&world, 0, 5).expect("attached");
        let seen = world.look_up(1);
        other.join().expect("the other ends").expect("attached");
        assert!(matches!(seen, Some(6 | 9)), "{seen:?}");
        assert_eq!((world.look_up(0), world.look_up(1)), (Some(5), seen));
        assert_eq!(world.platform.frames(), 2, "the frame that came second is freed");
        assert_eq!(world.vmo.counts().resident, PageCount(LEAF));
        world.end_of_the_world();
    });
}

/// Both make the nodes above their leaves.
#[test]
fn supply_of_a_leaf_against_supply_of_the_next() {
    explore_pages("supply of a leaf against supply of the next", Depth::Whole, 4 * LEAF, |world: World| {
        let other = world.spawn(|world| supply_leaf(&world, LEAF, 7));
        supply_leaf(&world, 0, 5).expect("attached");
        other.join().expect("the other ends").expect("attached");
        let bytes = [0, 1, 2, 3].map(|page| world.look_up(page));
        assert_eq!(bytes, [5, 6, 7, 8].map(Some));
        assert_eq!(world.vmo.counts().resident, PageCount(2 * LEAF));
        world.end_of_the_world();
    });
}

#[test]
fn supply_of_a_leaf_against_detach() {
    explore_pages("supply of a leaf against detach", Depth::Whole, LEAF, |world: World| {
        let supplier = world.spawn(|world| supply_leaf(&world, 0, 5));
        world.pager.detach_vmo(&world.vmo).expect("the pager's own VMO");
        let came = supplier.join().expect("the supplier ends");
        assert!(matches!(came, Ok(()) | Err(Status::BadState)), "{came:?}");
        assert_eq!((world.look_up(0), world.look_up(1)), (None, None));
        world.turn_epoch();
        assert_eq!(world.platform.frames(), 0, "a frame lingers");
        world.end_of_the_world();
    });
}

#[test]
fn supply_of_a_leaf_against_zero() {
    explore_pages("supply of a leaf against zero", Depth::Whole, LEAF, |world: World| {
        let zeroer = world.spawn(|world| world.zero(0, LEAF));
        supply_leaf(&world, 0, 5).expect("attached");
        zeroer.join().expect("the other ends").expect("memory");
        let counts = world.vmo.counts();
        assert_eq!((counts.zero, counts.resident), (PageCount(LEAF), PageCount(0)));
        world.turn_epoch();
        assert_eq!(world.platform.frames(), 0, "what was replaced, or came too late, is freed");
        world.end_of_the_world();
    });
}

#[test]
fn supply_of_a_leaf_against_a_shrink() {
    explore_resizable("supply of a leaf against a shrink", Depth::Whole, LEAF, |world: World| {
        let supplier = world.spawn(|world| supply_leaf(&world, 0, 5));
        world.vmo.set_size(PAGE_SIZE).expect("nobody else resizes");
        let came = supplier.join().expect("the supplier ends");
        assert!(matches!(came, Ok(()) | Err(Status::OutOfRange)), "{came:?}");
        world.turn_epoch();
        assert_eq!(world.platform.frames(), usize::from(came.is_ok()), "a page past the end");
        world.vmo.set_size(2 * PAGE_SIZE).expect("nobody else resizes");
        assert_eq!(world.read(1).poll(), Some(Ok(0)), "what it grows by is zeros");
        world.end_of_the_world();
    });
}

#[test]
fn supply_of_a_leaf_against_evict() {
    explore_pages("supply of a leaf against evict", Depth::Whole, LEAF, |world: World| {
        let evictor = world.spawn(|world| {
            world.evict();
        });
        supply_leaf(&world, 0, 5).expect("attached");
        evictor.join().expect("the evictor ends");
        world.turn_epoch();
        let count = [0, 1].into_iter().filter(|page| world.look_up(*page).is_some()).count();
        assert_eq!((world.platform.frames(), world.vmo.counts().resident), (count, PageCount(count as u64)));
        world.end_of_the_world();
    });
}
