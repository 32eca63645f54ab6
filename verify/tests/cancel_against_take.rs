//! A cancel against a take.
//!
//! Threads: one withdraws what is queued under a key, the other takes. What is queued is user packets
//! of two keys, or a READ, or COMPLETE; and besides, a new packet of the same key comes meanwhile, or one of another
//! key in the entry of the first.
//!
//! Danger: a packet is both withdrawn and delivered, or neither; one of another key goes with it, or for it; an
//! entry is freed while somebody copies it; a request is lost together with its packet.
//!
//! Must hold: a packet is delivered once, or the cancel says that it withdrew it, and never both. A
//! request whose packet was withdrawn is still in flight.
#![cfg(loom)]

use upager::{Command, PAGE_SIZE, Packet, Status};
use upager_verify::race::{Depth, explore};
use upager_verify::world::{KEY, World, user_packet};

#[test]
fn cancel_against_take() {
    explore("cancel against take", Depth::Whole, |world: World| {
        world.queue(1).expect("there is room");
        world.queue(2).expect("there is room");
        let taker = world.spawn(|world| world.take_all());
        let withdrawn = world.port.cancel(1);
        let mut packets = taker.join().expect("the taker ends");
        packets.extend(world.take_all());
        match withdrawn {
            Ok(()) => assert_eq!(packets, [user_packet(2)]),
            Err(status) => assert_eq!((status, packets), (Status::NotFound, [1, 2].map(user_packet).to_vec())),
        }
        assert_eq!(world.port.cancel(1), Err(Status::NotFound));
        world.end_of_the_world();
    });
}

#[test]
fn cancel_against_take_and_queue() {
    explore("cancel against take and queue", Depth::Whole, |world: World| {
        world.queue(1).expect("there is room");
        let canceller = world.spawn(|world| world.port.cancel(1));
        let mut packets = world.take_all();
        world.queue(1).expect("there is room");
        let withdrawn = canceller.join().expect("the canceller ends");
        packets.extend(world.take_all());
        let expected = if withdrawn.is_ok() { 0..=1 } else { 2..=2 };
        assert!(expected.contains(&packets.len()), "{withdrawn:?} with {packets:?}");
        assert!(packets.iter().all(|packet| *packet == user_packet(1)), "{packets:?}");
        // The entries are as good as new.
        world.queue(3).expect("there is room");
        assert_eq!(world.take_all(), [user_packet(3)]);
        world.end_of_the_world();
    });
}

/// Who takes goes on, until another packet has the entry: then the key that was read may be that of the first.
#[test]
fn cancel_against_the_next_life_of_a_packet() {
    explore("cancel against a packet's next life", Depth::Bounded, |world: World| {
        world.queue(1).expect("there is room");
        let taker = world.spawn(|world| {
            let mut packets = world.take();
            world.queue(3).expect("there is room");
            packets.extend(world.take()); // with it the queue lets go of the first one's entry
            world.queue(2).expect("there is room");
            packets
        });
        let withdrawn = world.port.cancel(1);
        let mut packets = taker.join().expect("the taker ends");
        packets.extend(world.take_all());
        match withdrawn {
            Ok(()) => assert_eq!(packets, [3, 2].map(user_packet)),
            Err(status) => assert_eq!((status, packets), (Status::NotFound, [1, 3, 2].map(user_packet).to_vec())),
        }
        world.end_of_the_world();
    });
}

#[test]
fn cancel_against_take_of_a_request() {
    explore("cancel against take of a request", Depth::Whole, |world: World| {
        let mut waiter = world.read(0);
        assert_eq!(waiter.poll(), None);
        let taker = world.spawn(|world| world.take_all());
        let withdrawn = world.port.cancel(KEY);
        let mut packets = taker.join().expect("the taker ends");
        packets.extend(world.take_all());
        let read = Packet::page_request(KEY, Command::Read, 0, PAGE_SIZE);
        assert_eq!(packets, if withdrawn.is_ok() { vec![] } else { vec![read] });
        world.supply(0, 5).expect("attached");
        assert_eq!(waiter.settle(), Some(Ok(5)), "in flight all the while");
        drop(waiter);
        world.end_of_the_world();
    });
}

#[test]
fn cancel_against_take_of_complete() {
    explore("cancel against take of complete", Depth::Whole, |world: World| {
        world.pager.detach_vmo(&world.vmo).expect("the pager's own VMO");
        let taker = world.spawn(|world| world.take_all());
        let withdrawn = world.port.cancel(KEY);
        let mut packets = taker.join().expect("the taker ends");
        packets.extend(world.take_all());
        let complete = Packet::page_request(KEY, Command::Complete, 0, 0);
        assert_eq!(packets, if withdrawn.is_ok() { vec![] } else { vec![complete] });
        world.end_of_the_world();
    });
}
