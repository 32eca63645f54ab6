//! Detach against a fault.
//!
//! Threads: one detaches, one reads an absent page, for the first time or after the entry of its request has had
//! another life.
//!
//! Danger: the fault has put its request on the page when detach walks the requests, and appends
//! it after; or it finds the VMO attached, and appends to a queue that is sealed. Either way it
//! could sleep for ever, or its packet could follow COMPLETE. Or the walk takes the entry for what it was before, and
//! leaves the request to its opener; and whoever joins waits for him.
//!
//! Must hold: the reader gets BAD_STATE, and is woken once if it slept; COMPLETE is the last packet. Who reads after
//! the detach is told at once.
#![cfg(loom)]

use upager::{Packet, Result, Status};
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

#[test]
fn detach_against_a_fault_in_an_entry_of_before() {
    explore("detach against a fault in an entry of before", Depth::Bounded, |world: World| {
        let reader = world.spawn(|world| {
            let mut first = world.read(0);
            let _: Option<Result<u8>> = first.poll();
            let _: usize = first.leave();
            let _: Vec<Packet> = world.take(); // with it the queue lets go of the entry that it had first
            settled(world.read(0))
        });
        world.pager.detach_vmo(&world.vmo).expect("the pager's own VMO");
        assert_eq!(world.read(0).poll(), Some(Err(Status::BadState)), "told at once");
        let read = reader.join().expect("the reader ends");
        assert_eq!(read.now(), Some(Err(Status::BadState)));
        world.end_of_the_world();
    });
}
