//! The watch's time-out against the supply that comes just then.
//!
//! Threads: one looks at the requests in flight and times out the only one; one supplies its page.
//!
//! Danger: both resolve the request, and its waiter is woken twice or gets both answers; the
//! time-out turns the page that has just arrived back to absent; or the packet, which was not
//! delivered, is delivered though nobody waits.
//!
//! Must hold: the waiter is woken once, with the byte, or with TIMED_OUT if and only if the watch
//! says that it timed the request out. The page is resident in either case, and nothing is
//! delivered any more.
#![cfg(loom)]

use upager::Status;
use upager_verify::race::{Depth, explore};
use upager_verify::world::World;

fn race(world: World, delivered: bool) {
    let mut waiter = world.read(0);
    assert_eq!(waiter.poll(), None);
    if delivered {
        assert_eq!(world.take_all().len(), 1);
    }
    let watch = world.spawn(|world| world.time_out_all());
    world.supply(0, 5).expect("attached");
    let timed_out = watch.join().expect("the watch ends");
    assert_eq!(waiter.wakes(), 1);
    let expected = if timed_out == 1 { Err(Status::TimedOut) } else { Ok(5) };
    assert_eq!(waiter.poll(), Some(expected), "{timed_out} timed out");
    assert_eq!(world.read(0).poll(), Some(Ok(5)));
    let counts = world.vmo.counts();
    assert_eq!((counts.resident.0, counts.in_flight), (1, 0));
    assert_eq!(world.take_all(), []);
    drop(waiter);
    world.end_of_the_world();
}

#[test]
fn time_out_against_supply_of_what_was_delivered() {
    explore("time-out against supply", Depth::Whole, |world| race(world, true));
}

#[test]
fn time_out_against_supply_of_what_was_not() {
    explore("time-out against supply, not delivered", Depth::Whole, |world| race(world, false));
}
