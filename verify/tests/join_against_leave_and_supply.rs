//! A waiter who joins a request, against one who leaves it, and its supply.
//!
//! Threads: one reader joins a request that another one keeps in flight; another waiter leaves it; the page is supplied.
//!
//! Danger: the one who leaves offers his place after the supplier has passed by; the joiner takes it, and is never woken.
//!
//! Must hold: both readers come home with the page.
#![cfg(loom)]

use upager_verify::race::{Depth, explore, settled};
use upager_verify::world::World;

#[test]
fn join_against_leave_and_supply() {
    explore("join against leave and supply", Depth::Bounded, |world: World| {
        let (mut opener, mut gone, mut other) = (world.read(0), world.read(0), world.read(0));
        assert_eq!((opener.poll(), gone.poll(), other.poll()), (None, None, None));
        assert_eq!(gone.leave(), 0); // so that the joiner looks for places, and comes by the other's first
        // In this order, in which loom comes by where the leaver is passed by.
        let leaves = world.spawn(move |_| other.leave());
        let supplies = world.spawn(|world| world.supply(0, 5));
        let joiner = world.spawn(|world| settled(world.read(0)));
        assert_eq!(supplies.join().expect("the supplier ends"), Ok(()));
        assert!(leaves.join().expect("the leaver ends") <= 1);
        let read = joiner.join().expect("the joiner ends");
        assert_eq!(read.now(), Some(Ok(5)), "the joiner is home");
        assert_eq!(opener.settle(), Some(Ok(5)));
        assert_eq!(world.vmo.counts().in_flight, 0);
        drop((opener, read));
        world.end_of_the_world();
    });
}
