//! Detach against a fault and a supply.
//!
//! Threads: one detaches, one reads an absent page, one supplies it, asked or not.
//!
//! Danger: the request is resolved twice, or by neither; the page that the supply puts in stays
//! readable in a detached VMO; its frame is leaked.
//!
//! Must hold: the reader gets the byte or BAD_STATE, the supply OK or BAD_STATE; afterwards the page
//! is gone, and nothing is in flight.
#![cfg(loom)]

use upager::Status;
use upager_verify::race::{Depth, explore, settled};
use upager_verify::world::World;

#[test]
fn detach_against_fault_and_supply() {
    explore("detach against fault and supply", Depth::Bounded, |world: World| {
        let reader = world.spawn(|world| settled(world.read(0)));
        let supplier = world.spawn(|world| world.supply(0, 5));
        world.pager.detach_vmo(&world.vmo).expect("the pager's own VMO");
        assert!(matches!(supplier.join().expect("the supplier ends"), Ok(()) | Err(Status::BadState)));
        let read = reader.join().expect("the reader ends");
        assert!(matches!(read.now(), Some(Ok(5) | Err(Status::BadState))), "the reader is home");
        let counts = world.vmo.counts();
        assert_eq!((counts.resident.0, counts.in_flight), (0, 0));
        assert_eq!(world.read(0).poll(), Some(Err(Status::BadState)));
        world.check_complete_is_last();
        world.end_of_the_world();
    });
}
