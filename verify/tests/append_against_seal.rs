//! An append against the seal, with a taker.
//!
//! Threads: one reads an absent page, one detaches, one takes what the port has.
//!
//! Danger: a packet after COMPLETE; COMPLETE twice, or never; a request that is in the queue and
//! lost to the taker.
//!
//! Must hold: whoever takes, and whenever, COMPLETE comes once, and last.
#![cfg(loom)]

use upager::Status;
use upager_verify::race::{Depth, explore, settled};
use upager_verify::world::World;

#[test]
fn append_against_seal() {
    explore("append against seal", Depth::Bounded, |world: World| {
        let reader = world.spawn(|world| settled(world.read(0)));
        let taker = world.spawn(|world| world.take_all());
        world.pager.detach_vmo(&world.vmo).expect("the pager's own VMO");
        let mut packets = taker.join().expect("the taker ends");
        packets.extend(world.take_all());
        World::check_complete_is_last_of(&packets);
        let read = reader.join().expect("the reader ends");
        assert_eq!(read.now(), Some(Err(Status::BadState)));
        world.end_of_the_world();
    });
}
