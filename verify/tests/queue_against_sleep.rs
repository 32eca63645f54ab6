//! A user packet being queued, against a service that goes to sleep.
//!
//! Threads: one queues a packet; the other begins to wait for one, or, of two that wait already, one
//! gives up.
//!
//! Danger: the sleeper does not see the packet and the queuer does not see the sleeper; the wake-up
//! goes to the one who leaves, and is lost with it.
//!
//! Must hold: who still waits is woken, and finds the packet.
#![cfg(loom)]

use upager_verify::race::{Bounds, explore, settled};
use upager_verify::world::World;

#[test]
fn queue_against_sleep() {
    explore("queue against sleep", Bounds::TWO_THREADS, |world: World| {
        let service = world.spawn(|world| settled(world.packet()));
        world.queue(1).expect("there is room");
        let service = service.join().expect("the service ends");
        assert_eq!(service.now(), Some(Ok(1)));
        drop(service);
        world.end_of_the_world();
    });
}

#[test]
fn queue_against_leave() {
    explore("queue against leave", Bounds::TWO_THREADS, |world: World| {
        let mut services = [world.packet(), world.packet()];
        for service in &mut services {
            assert_eq!(service.poll(), None);
        }
        let [leaves, mut stays] = services;
        let queuer = world.spawn(|world| world.queue(1));
        let _ = leaves.leave(); // it may have been woken: then it passes that on
        queuer.join().expect("the queuer ends").expect("there is room");
        assert_eq!(stays.settle(), Some(Ok(1)), "woken {} times", stays.wakes());
        drop(stays);
        world.end_of_the_world();
    });
}
