//! A waiter who joins a request against the supply of its page.
//!
//! Threads: one reader joins a request for which two wait; the page is supplied. Or there is a third, who asks for
//! another page.
//!
//! Danger: the supplier finds the joiner at the head of the list, and not the one behind him. A joiner who comes too
//! late takes his waker back from an entry that is another's by then, or leaves it there for ever.
//!
//! Must hold: all of them come home with the page, and nobody keeps a waker of theirs.
#![cfg(loom)]

use upager_verify::race::{Depth, explore, explore_pages, settled};
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

#[test]
fn a_join_that_comes_too_late_against_the_next_owner_of_its_entry() {
    explore_pages("a late join against the next owner of its entry", Depth::Bounded, 2, |world: World| {
        let mut opener = world.read(0);
        assert_eq!(opener.poll(), None);
        let joiner = world.spawn(|world| settled(world.read(0)));
        let other = world.spawn(|world| settled(world.read(1)));
        assert_eq!(world.supply(0, 5), Ok(()));
        let read = joiner.join().expect("the joiner ends");
        let asked = other.join().expect("the other reader ends");
        assert_eq!((read.now(), opener.settle(), asked.now()), (Some(Ok(5)), Some(Ok(5)), None));
        assert!(read.is_forgotten() && opener.is_forgotten(), "somebody keeps a waker");
        assert_eq!(world.supply(1, 6), Ok(()));
        let asked = asked.again();
        assert_eq!(asked.now(), Some(Ok(6)), "his own page has come");
        drop((opener, read, asked));
        world.end_of_the_world();
    });
}
