//! Detach against a COMMIT of two runs.
//!
//! Threads: one commits three pages, of which the middle one is dirty, so that it has two requests to
//! make and to wait for; one detaches.
//!
//! Danger: the detach comes between the two requests. The first is failed, the second refused, and the
//! commit waits for one of them for ever, or leaves one in flight.
//!
//! Must hold: the commit fails with BAD_STATE, is woken no more often than it waited, nothing is in flight,
//! and COMPLETE comes last.
#![cfg(loom)]

use upager::Status;
use upager_verify::race::{Depth, explore_pages, settled};
use upager_verify::world::{Waiting, World};

#[test]
fn detach_against_commit() {
    explore_pages("detach against a commit of two runs", Depth::Bounded, 3, |world: World| {
        world.supply(1, 5).expect("attached");
        assert_eq!(world.write(1, 6).poll(), Some(Ok(6)));
        let commit = world.spawn(|world| settled(Waiting::commit(world.vmo.clone(), 0, 3)));
        world.pager.detach_vmo(&world.vmo).expect("the pager's own VMO");
        let commit = commit.join().expect("the commit ends");
        assert_eq!(commit.now(), Some(Err(Status::BadState)));
        assert_eq!(world.vmo.counts().in_flight, 0);
        world.check_complete_is_last();
        drop(commit);
        world.end_of_the_world();
    });
}
