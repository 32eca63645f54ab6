//! A mapped writer against BEGIN, END and eviction, and against zeros.
//!
//! Threads: one stores to a page that it has mapped, twice, and the pager does not see it; its faults are
//! answered by holding the page while the protection is lifted. The other begins a writeback, reads the
//! page as the service does, ends the writeback, and evicts.
//!
//! Danger: the protection is lifted for a page that was dirty a moment ago, and is being written back by
//! now. The store then goes into a page that becomes clean, and is lost.
//!
//! Where the page's content is replaced by zeros, a store may go to the frame that it had, until the platform has ended
//! the run that unmaps it. If the frame is freed before, the store goes to whatever it has become.
//!
//! Must hold: the last byte is in what the service read, or the page is dirty and has it. No store goes to a frame that
//! is free.
#![cfg(loom)]

use upager::{PageIndex, Platform};
use upager_verify::race::{Depth, explore};
use upager_verify::world::{Waiting, World};

#[test]
fn mapped_write_against_writeback_and_evict() {
    explore("mapped write against writeback and evict", Depth::Whole, |world: World| {
        world.supply(0, 1).expect("attached");
        assert_eq!(Waiting::dirty_run(world.vmo.clone(), 0, 1).poll(), Some(Ok(0)));
        let guard = world.platform.pin();
        let frame = world.vmo.lookup(&guard, PageIndex(0)).expect("it is resident");
        drop(guard);
        world.map();
        let writer =
            world.spawn(move |world| usize::from(world.store(0, frame, 2)) + usize::from(world.store(0, frame, 3)));
        world.begin(0).expect("a page of the VMO");
        let written_back = world.read(0).poll();
        world.end(0).expect("a page of the VMO");
        world.evict();
        // Without a store, the page had gone before it came.
        let last = [1, 2, 3][writer.join().expect("the writer ends")];
        let kept = world.vmo.counts().dirty.0 == 1 && world.read(0).poll() == Some(Ok(last));
        assert!(kept || written_back == Some(Ok(last)), "the byte {last} is lost: written back {written_back:?}");
        world.end_of_the_world();
    });
}

#[test]
fn mapped_write_against_zero() {
    explore("mapped write against zero", Depth::Whole, |world: World| {
        world.supply(0, 1).expect("attached");
        assert_eq!(Waiting::dirty_run(world.vmo.clone(), 0, 1).poll(), Some(Ok(0)));
        let frame = world.look_up_unpinned(0).expect("it is resident");
        world.map();
        let writer = world.spawn(move |world| world.access_mapped(frame));
        world.zero(0, 1).expect("a page of the VMO");
        world.turn_epoch();
        writer.join().expect("the writer ends");
        world.end_of_the_world();
    });
}
