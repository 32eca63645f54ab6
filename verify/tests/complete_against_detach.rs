//! COMPLETE against the detach that sends it.
//!
//! Threads: one detaches; the service takes packets, and supplies a page and reads when it has seen COMPLETE.
//!
//! Danger: COMPLETE is there before the VMO is detached, and the service is not held to what it was told.
//!
//! Must hold: who has taken COMPLETE finds the VMO detached.
#![cfg(loom)]

use upager::{Command, Packet, Status};
use upager_verify::race::{Depth, explore};
use upager_verify::world::World;

#[test]
fn complete_against_detach() {
    explore("complete against detach", Depth::Whole, |world: World| {
        let detacher = world.spawn(|world| world.pager.detach_vmo(&world.vmo).map(drop));
        if world.take().last().and_then(Packet::command) == Some(Command::Complete) {
            assert_eq!(world.supply(0, 5), Err(Status::BadState));
            assert_eq!(world.read(0).poll(), Some(Err(Status::BadState)));
        }
        detacher.join().expect("the detacher ends").expect("the pager's own VMO");
        world.end_of_the_world();
    });
}
