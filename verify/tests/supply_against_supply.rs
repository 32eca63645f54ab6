//! A supply against a supply, with somebody waiting.
//!
//! Threads: two service threads, which both supply the page; or each one page of a request for two. Or a third, who waits
//! for the two, looks at them meanwhile.
//!
//! Danger: the frame of the loser is leaked, or the winner's is replaced under a reader. A request
//! of two pages resolves with the first of them, or with neither.
//!
//! Must hold: the waiter gets one of the two bytes, is woken once, and the page never changes after.
//! Who waited for two pages finds both.
#![cfg(loom)]

use upager::Status;
use upager_verify::race::{Depth, explore, explore_pages};
use upager_verify::world::{Waiting, World};

#[test]
fn supply_against_supply() {
    explore("supply against supply", Depth::Whole, |world: World| {
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

#[test]
fn supply_of_one_page_against_supply_of_the_next() {
    explore_pages("supply of one page against supply of the next", Depth::Whole, 2, |world: World| {
        let mut waiter = Waiting::fault_run(world.vmo.clone(), 0, 2);
        assert_eq!(waiter.poll(), None);
        let other = world.spawn(|world| world.supply(1, 6));
        world.supply(0, 5).expect("attached");
        let early = waiter.poll();
        if early.is_some() {
            assert_eq!(world.read(1).poll(), Some(Ok(6)), "woken before the last page came");
        }
        other.join().expect("the other ends").expect("attached");
        // Who looked early may have seen the outcome before the wake, which then finds nobody.
        let came = early.or_else(|| {
            assert_eq!(waiter.wakes(), 1);
            waiter.poll()
        });
        assert_eq!(came, Some(Ok(0)), "both pages came");
        assert_eq!((world.read(0).poll(), world.read(1).poll()), (Some(Ok(5)), Some(Ok(6))));
        drop(waiter);
        world.end_of_the_world();
    });
}

#[test]
fn supply_of_one_page_against_supply_of_the_next_and_the_one_who_waits() {
    explore_pages("supply of two pages by two against who waits", Depth::Bounded, 2, |world: World| {
        let mut waiter = Waiting::commit(world.vmo.clone(), 0, 2);
        assert_eq!(waiter.poll(), None);
        let suppliers = [0, 1].map(|page| world.spawn(move |world| world.supply(page, 5)));
        let early = waiter.poll();
        if early.is_some() {
            assert_eq!((world.look_up(0), world.look_up(1)), (Some(5), Some(5)), "both have come");
        }
        for supplier in suppliers {
            supplier.join().expect("the supplier ends").expect("attached");
        }
        assert_eq!(early.or_else(|| waiter.poll()), Some(Ok(0)));
        drop(waiter);
        world.end_of_the_world();
    });
}
