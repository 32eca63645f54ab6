//! A failed request against the one whom it is told, who looks before he is woken.
//!
//! Threads: the service notes something down and fails a page; its waiter is polled.
//!
//! Danger: the waiter is told of the failure, and does not see what led to it.
//!
//! Must hold: who is told sees what was done before.
#![cfg(loom)]

use upager::Status;
use upager::sync::explorer::sync::Arc;
use upager::sync::explorer::sync::atomic::{AtomicU8, Ordering};
use upager_verify::race::{Depth, explore};
use upager_verify::world::World;

#[test]
fn fail_against_poll() {
    explore("fail against poll", Depth::Whole, |world: World| {
        let mut waiter = world.read(0);
        assert_eq!(waiter.poll(), None);
        let note = Arc::new(AtomicU8::new(0));
        let noted = note.clone();
        let service = world.spawn(move |world| {
            noted.store(1, Ordering::Relaxed);
            world.fail(0, Status::Io)
        });
        let told = waiter.poll();
        if told.is_some() {
            assert_eq!((told, note.load(Ordering::Relaxed)), (Some(Err(Status::Io)), 1));
        }
        service.join().expect("the service ends").expect("a page of the VMO");
        if told.is_none() {
            assert_eq!((waiter.wakes(), waiter.poll()), (1, Some(Err(Status::Io))));
        }
        drop(waiter);
        world.end_of_the_world();
    });
}
