//! A supply against a supply of the same page, with somebody waiting for it.
//!
//! Threads: two service threads, which both supply the page.
//!
//! Danger: the page is counted as arrived twice, and the request of two pages resolves with one
//! of them; the frame of the loser is leaked, or the winner's is replaced under a reader.
//!
//! Must hold: the waiter gets one of the two bytes, is woken once, and the page never changes after.
#![cfg(loom)]

use upager::Status;
use upager_verify::race::{Threads, explore};
use upager_verify::world::World;

#[test]
fn supply_against_supply() {
    explore("supply against supply", Threads::Two, |world: World| {
        let mut waiter = world.read(0);
        assert_eq!(waiter.poll(), None);
        let other = world.spawn(|world| {
            world.supply(0, 6).expect("attached");
            world.read(0).poll()
        });
        world.supply(0, 5).expect("attached");
        let seen = world.read(0).poll();
        let seen_by_other = other.join().expect("the other ends");
        assert_eq!(waiter.wakes(), 1);
        let read = waiter.poll();
        assert!(matches!(read, Some(Ok(5 | 6))), "{read:?}");
        assert_eq!((seen, seen_by_other), (read, read), "the page is what it was supplied with first");
        assert_ne!(read, Some(Err(Status::BadState)));
        drop(waiter);
        world.end_of_the_world();
    });
}
