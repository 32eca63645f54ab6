//! A user packet being queued, against a service that goes to sleep.
//!
//! Threads: one queues a packet; the other begins to wait for one, or, of two that wait already, one
//! gives up, or the other queues too. Or two begin to wait at once, or one begins as another gives up.
//!
//! Danger: the sleeper does not see the packet and the queuer does not see the sleeper; the wake-up
//! goes to the one who leaves, and is lost with it; the one who is woken takes what the other queuer was going to wake
//! somebody for, and nobody comes for the rest.
//!
//! Or one of two who come and go at once is not counted any more, and no later packet wakes him; or who leaves takes the
//! waker of the one that has his place.
//!
//! Must hold: who still waits is woken, and finds the packet. In the end no sleeper is counted and no place is left
//! (`sleep` checks that).
#![cfg(loom)]

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use upager::Packet;
use upager_verify::race::{Depth, explore, settled};
use upager_verify::world::{Waiting, World, user_packet};

#[test]
fn queue_against_sleep() {
    explore("queue against sleep", Depth::Whole, |world: World| {
        let service = world.spawn(|world| settled(world.packet()));
        world.queue(1).expect("there is room");
        let service = service.join().expect("the service ends");
        assert_eq!(service.now(), Some(Ok(1)));
        drop(service);
        world.end_of_the_world();
    });
}

/// He was about to sleep and found a packet: his wait is over, though he keeps it.
#[test]
fn queue_against_one_who_keeps_a_wait_that_is_over() {
    explore("queue against one who keeps a wait that is over", Depth::Whole, |world: World| {
        let queuer = world.spawn(|world| world.queue(1));
        let (port, mut packets) = (world.port.clone(), [Packet::default()]);
        let mut over = port.wait(&mut packets);
        let taken = Pin::new(&mut over).poll(&mut Context::from_waker(Waker::noop()));
        queuer.join().expect("the queuer ends").expect("there is room");
        if taken == Poll::Ready(1) {
            let mut service = world.packet();
            assert_eq!(service.poll(), None);
            world.queue(2).expect("there is room");
            assert_eq!(service.settle(), Some(Ok(2)), "woken {} times", service.wakes());
            drop(service);
        }
        drop(over);
        drop(port);
        world.end_of_the_world();
    });
}

#[test]
fn queue_against_leave() {
    explore("queue against leave", Depth::Whole, |world: World| {
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

#[test]
fn sleep_against_sleep() {
    explore("sleep against sleep", Depth::Whole, |world: World| {
        let other = world.spawn(|world| settled(world.packet()));
        let mut service = world.packet();
        assert_eq!(service.poll(), None);
        let other = other.join().expect("the other ends");
        assert_eq!(other.now(), None);
        for key in [1, 2] {
            world.queue(key).expect("there is room");
        }
        let other = other.again();
        let mut keys = [service.settle(), other.now()].map(|got| got.expect("each packet wakes one").expect("its key"));
        keys.sort_unstable();
        assert_eq!(keys, [1, 2]);
        drop((service, other));
        world.end_of_the_world();
    });
}

#[test]
fn sleep_against_wake_up() {
    explore("sleep against wake-up", Depth::Whole, |world: World| {
        let mut service = world.packet();
        assert_eq!(service.poll(), None);
        let other = world.spawn(|world| settled(world.packet()));
        world.queue(1).expect("there is room");
        let other = other.join().expect("the other ends");
        // Whoever of them did not get it sleeps.
        let first = service.settle();
        assert_ne!(first.is_some(), other.now().is_some(), "one of them has it");
        world.queue(2).expect("there is room");
        let (second, other) = if first.is_some() {
            let other = other.again();
            (other.now(), other)
        } else {
            (service.settle(), other)
        };
        assert_eq!(second, Some(Ok(2)), "the next one wakes the other");
        drop((service, other));
        world.end_of_the_world();
    });
}

/// The place of one who gives up, and the next one who sleeps in it.
#[test]
fn sleep_against_leave() {
    explore("sleep against leave", Depth::Whole, |world: World| {
        let mut leaves = world.packet();
        assert_eq!(leaves.poll(), None);
        let service = world.spawn(|world| settled(world.packet()));
        assert_eq!(leaves.leave(), 0, "there was nothing");
        let service = service.join().expect("the service ends");
        assert_eq!(service.now(), None);
        world.queue(1).expect("there is room");
        let service = service.again();
        assert_eq!(service.now(), Some(Ok(1)));
        drop(service);
        world.end_of_the_world();
    });
}

/// One who queues is stopped on his way, before anybody has been woken for his packet. Who is woken for the next one
/// takes it, and has the other woken.
#[test]
fn queue_against_queue_and_two_who_sleep() {
    explore("queue against queue and two who sleep", Depth::Bounded, |world: World| {
        world.queue(3).expect("there is room");
        assert_eq!(world.take_all(), [user_packet(3)]);
        let mut services = [world.packet(), world.packet()];
        for service in &mut services {
            assert_eq!(service.poll(), None);
        }
        let queuer = world.spawn(|world| world.queue(1));
        world.queue(2).expect("there is room");
        let mut got = services.each_mut().map(Waiting::settle);
        assert!(got.contains(&Some(Ok(2))), "wherever the other is: {got:?}");
        queuer.join().expect("the queuer ends").expect("there is room");
        for (got, service) in got.iter_mut().zip(&mut services) {
            *got = got.or_else(|| service.settle());
        }
        assert!(got.contains(&Some(Ok(1))) && got.contains(&Some(Ok(2))), "{got:?}");
        drop(services);
        world.end_of_the_world();
    });
}

/// One who goes to sleep finds a packet in his second look, and is woken for the next one before he gets up: he has the other
/// woken, who sleeps meanwhile.
#[test]
fn queue_against_two_who_go_to_sleep() {
    explore("queue against two who go to sleep", Depth::Bounded, |world: World| {
        let first = world.spawn(|world| settled(world.packet()));
        world.queue(1).expect("there is room");
        let mut second = world.packet();
        let got = second.poll();
        world.queue(2).expect("there is room");
        let first = first.join().expect("the first ends").again();
        let got = got.or_else(|| second.settle());
        let mut keys = [first.now(), got].map(|got| got.expect("each packet wakes one").expect("its key"));
        keys.sort_unstable();
        assert_eq!(keys, [1, 2]);
        drop((first, second));
        world.end_of_the_world();
    });
}

/// One who begins to sleep is counted before he can be woken: else the count of sleepers falls below none for a moment when
/// the only other one leaves, and the port looks closed to who brings something then.
#[test]
fn a_request_against_one_who_begins_to_sleep_and_one_who_leaves() {
    explore("a request against one who begins to sleep and one who leaves", Depth::Bounded, |world: World| {
        let mut leaves = world.packet();
        assert_eq!(leaves.poll(), None);
        let service = world.spawn(|world| settled(world.packet()));
        let queuer = world.spawn(|world| world.queue(1));
        let reader = world.spawn(|world| settled(world.read(0)));
        let _ = leaves.leave();
        queuer.join().expect("the queuer ends").expect("there is room");
        let read = reader.join().expect("the reader ends");
        let service = service.join().expect("the service ends");
        let taken = usize::from(service.now().is_some()) + world.take_all().len();
        assert_eq!(taken, 2, "the packet and the request");
        drop((service, read));
        world.end_of_the_world();
    });
}
