//! Detach against a fault.
//!
//! Threads: one detaches, one reads an absent page.
//!
//! Danger: the fault has put its request on the page when detach walks the requests, and appends
//! it after; or it finds the VMO attached, and appends to a queue that is sealed. Either way it
//! could sleep for ever, or its packet could follow COMPLETE.
//!
//! Must hold: the reader gets BAD_STATE, and is woken once if it slept; COMPLETE is the last packet.
#![cfg(loom)]

use upager::Status;
use upager_verify::race::{Depth, explore, settled};
use upager_verify::world::World;

#[test]
fn detach_against_fault() {
    explore("detach against fault", Depth::Bounded, |world: World| {
        let reader = world.spawn(|world| settled(world.read(0)));
        world.pager.detach_vmo(&world.vmo).expect("the pager's own VMO");
        let read = reader.join().expect("the reader ends");
        assert_eq!(read.now(), Some(Err(Status::BadState)));
        world.check_complete_is_last();
        world.end_of_the_world();
    });
}
