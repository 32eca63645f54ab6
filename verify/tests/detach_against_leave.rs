//! Detach against the last waiter's leaving.
//!
//! Threads: one detaches, one drops the future of the only fault.
//!
//! Danger: both seal the request, or the entry is freed under the one by the other.
//!
//! Must hold: nothing is in flight afterwards, and the waker is woken at most once.
#![cfg(loom)]

use upager::Status;
use upager_verify::race::{Depth, explore};
use upager_verify::world::World;

#[test]
fn detach_against_leave() {
    explore("detach against leave", Depth::Whole, |world: World| {
        let mut waiter = world.read(0);
        assert_eq!(waiter.poll(), None);
        let leaver = world.spawn(move |_| waiter.leave());
        world.pager.detach_vmo(&world.vmo).expect("the pager's own VMO");
        assert!(leaver.join().expect("the leaver ends") <= 1);
        assert_eq!(world.vmo.counts().in_flight, 0);
        assert_eq!(world.read(0).poll(), Some(Err(Status::BadState)));
        world.check_complete_is_last();
        world.end_of_the_world();
    });
}
