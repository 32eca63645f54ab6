//! The watch's time-out against detach.
//!
//! Threads: one looks at the requests in flight and times out the only one; one detaches.
//!
//! Danger: both resolve the request, and its waiter is woken twice; or each leaves its waiter to the
//! other; or the request of which nobody waits any more comes after COMPLETE.
//!
//! Must hold: the waiter is woken once, with TIMED_OUT or BAD_STATE, as the one of the two says who
//! resolved it. COMPLETE is the only packet.
#![cfg(loom)]

use upager::{Command, Packet, Status};
use upager_verify::race::{Depth, explore};
use upager_verify::world::World;

#[test]
fn time_out_against_detach() {
    explore("time-out against detach", Depth::Whole, |world: World| {
        let mut waiter = world.read(0);
        assert_eq!(waiter.poll(), None);
        let watch = world.spawn(|world| world.time_out_all());
        let failed = world.pager.detach_vmo(&world.vmo).expect("the pager's own VMO").failed_requests;
        let timed_out = watch.join().expect("the watch ends");
        assert_eq!(waiter.wakes(), 1);
        let expected = match (failed, timed_out) {
            (1, 0) => Status::BadState,
            (0, 1) => Status::TimedOut,
            other => panic!("resolved {other:?} times"),
        };
        assert_eq!(waiter.poll(), Some(Err(expected)));
        assert_eq!(world.vmo.counts().in_flight, 0);
        let packets: Vec<_> = world.take_all().iter().map(Packet::command).collect();
        assert_eq!(packets, [Some(Command::Complete)]);
        drop(waiter);
        world.end_of_the_world();
    });
}
