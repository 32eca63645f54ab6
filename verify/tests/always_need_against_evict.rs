//! ALWAYS_NEED against eviction, against DONT_NEED, and against the events that rewrite the page word.
//!
//! Threads: one has a page always needed. The other evicts what is unused; or writes the page, writes it
//! back and evicts; or takes the hint back.
//!
//! Danger: the eviction takes the page at the instant it is marked, and the caller is told that it stays.
//! Or an arrow that rewrites the whole word loses the mark that came in between.
//!
//! Must hold: a page whose ALWAYS_NEED is done is there, and no later eviction of what is unused takes it,
//! until DONT_NEED. One that is evicted first waits for the service.
#![cfg(loom)]

use upager::Platform;
use upager_verify::race::{Depth, explore, settled};
use upager_verify::world::{Waiting, World, page};

#[test]
fn always_need_against_evict() {
    explore("always need against evict", Depth::Whole, |world: World| {
        world.supply(0, 5).expect("attached");
        let hint = world.spawn(|world| settled(Waiting::always_need(world.vmo.clone(), 0, 1)));
        let evicted = world.evict_unused();
        world.turn_epoch();
        let hint = hint.join().expect("the hint ends");
        if hint.now() == Some(Ok(0)) {
            assert_eq!((world.vmo.counts().resident.0, world.evict_unused()), (1, 0), "it stays");
        } else {
            // It had gone before: it is asked for, and marked when it comes.
            assert_eq!((hint.now(), evicted), (None, 1));
            world.supply(0, 6).expect("attached");
            let hint = hint.again();
            assert_eq!(hint.now(), Some(Ok(0)));
            assert_eq!(world.evict_unused(), 0, "it stays");
        }
        world.end_of_the_world();
    });
}

#[test]
fn always_need_against_write_and_writeback() {
    explore("always need against write and writeback", Depth::Whole, |world: World| {
        world.supply(0, 1).expect("attached");
        let hint = world.spawn(|world| settled(Waiting::always_need(world.vmo.clone(), 0, 1)));
        assert_eq!(world.write(0, 2).poll(), Some(Ok(2)));
        world.begin(0).expect("a page of the VMO");
        world.end(0).expect("a page of the VMO");
        let hint = hint.join().expect("the hint ends");
        assert_eq!(hint.now(), Some(Ok(0)));
        assert_eq!(world.evict_unused(), 0, "no arrow has lost the mark");
        assert_eq!(world.read(0).poll(), Some(Ok(2)));
        world.end_of_the_world();
    });
}

/// An always-needed page is on its way out, since nothing else was left. One thread rescues it by a read,
/// one takes the hint back.
#[test]
fn dont_need_against_a_rescue() {
    explore("dont need against a rescue", Depth::Whole, |world: World| {
        world.supply(0, 5).expect("attached");
        assert_eq!(Waiting::always_need(world.vmo.clone(), 0, 1).poll(), Some(Ok(0)));
        let guard = world.platform.pin(); // so that it can be rescued
        assert_eq!((world.evict_unused(), world.evict()), (0, 1), "whatever there is, at last");
        let reader = world.spawn(|world| settled(world.read(0)));
        world.vmo.dont_need(page(0)).expect("a page of the VMO");
        drop(guard);
        let read = reader.join().expect("the reader ends");
        // Whether the hint came before the rescue, in the middle, or after: the mark is gone.
        match read.now() {
            Some(Ok(5)) => assert_eq!(world.evict_unused(), 1, "nothing keeps it"),
            other => assert_eq!(other, None, "it had gone before the read"),
        }
        drop(read);
        world.end_of_the_world();
    });
}
