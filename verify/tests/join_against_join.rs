//! A waiter who joins a request against another one, where a waiter of a second request has left his place.
//!
//! Threads: two readers join the request of a page. The entry of the first of them has been in a list before, behind the
//! place that was left.
//!
//! Danger: the second one goes along the list by the link of the entry's earlier life, takes the place in the other
//! request, and waits for that.
//!
//! Must hold: both come home with their page.
#![cfg(loom)]

use upager_verify::race::{Depth, explore_pages, settled};
use upager_verify::world::World;

#[test]
fn join_against_join() {
    explore_pages("join against join", Depth::Bounded, 4, |world: World| {
        let mut earlier = [world.read(0), world.read(0), world.read(0)];
        assert!(earlier.iter_mut().all(|read| read.poll().is_none()));
        assert_eq!(world.supply(0, 5), Ok(()));
        assert!(earlier.iter_mut().all(|read| read.settle() == Some(Ok(5))));
        drop(earlier);
        // Each take has the queue let go of the entry before. With that of the request go those of its waiters.
        assert_eq!(world.take_all(), []);
        let mut opener = world.read(1);
        assert_eq!((opener.poll(), world.take_all().len()), (None, 1));
        let (mut other, mut leaver) = (world.read(2), world.read(2));
        assert_eq!((other.poll(), leaver.poll()), (None, None));
        assert_eq!(leaver.leave(), 0);

        let joiner = world.spawn(|world| settled(world.read(1)));
        let mut second = world.read(1);
        assert_eq!(second.poll(), None);
        let first = joiner.join().expect("the joiner ends");
        assert_eq!(world.supply(1, 6), Ok(()));
        let first = first.again();
        assert_eq!((opener.settle(), first.now(), second.settle()), (Some(Ok(6)), Some(Ok(6)), Some(Ok(6))));
        drop((opener, first, second, other));
        world.end_of_the_world();
    });
}
