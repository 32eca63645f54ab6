//! A waiter who joins a request against the supply of its page.
//!
//! Threads: one reader joins a request for which two wait; the page is supplied.
//!
//! Danger: the supplier finds the joiner at the head of the list, and not the one behind him.
//!
//! Must hold: all of them come home with the page.
#![cfg(loom)]

use upager_verify::race::{Depth, explore, settled};
use upager_verify::world::World;

#[test]
fn join_against_supply() {
    explore("join against supply", Depth::Whole, |world: World| {
        let (mut opener, mut other) = (world.read(0), world.read(0));
        assert_eq!((opener.poll(), other.poll()), (None, None));
        let joiner = world.spawn(|world| settled(world.read(0)));
        assert_eq!(world.supply(0, 5), Ok(()));
        let read = joiner.join().expect("the joiner ends");
        assert_eq!((read.now(), opener.settle(), other.settle()), (Some(Ok(5)), Some(Ok(5)), Some(Ok(5))));
        drop((opener, other, read));
        world.end_of_the_world();
    });
}
