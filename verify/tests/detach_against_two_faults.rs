//! Detach against two faults on one page.
//!
//! Threads: one detaches, two read the same absent page.
//!
//! Danger: the second reader joins the request of the first at the moment at which detach fails it,
//! and is neither in the list that detach wakes nor told that the list is closed.
//!
//! Must hold: both readers get BAD_STATE, each woken at most once; COMPLETE is the last packet.
#![cfg(loom)]

use upager::Status;
use upager_verify::race::{Depth, explore, settled};
use upager_verify::world::World;

#[test]
fn detach_against_two_faults() {
    explore("detach against two faults", Depth::Bounded, |world: World| {
        let readers = [0, 1].map(|_| world.spawn(|world| settled(world.read(0))));
        world.pager.detach_vmo(&world.vmo).expect("the pager's own VMO");
        for reader in readers {
            let read = reader.join().expect("a reader ends");
            assert_eq!(read.now(), Some(Err(Status::BadState)));
        }
        world.check_complete_is_last();
        world.end_of_the_world();
    });
}
