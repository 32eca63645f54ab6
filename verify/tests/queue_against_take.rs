//! A user packet being queued, against a take.
//!
//! Threads: one queues, once or twice, the other takes; or both queue the first packet that the port
//! ever has; or one queues while the other has the end of the queue pass on, and come back in a later life.
//!
//! Danger: a packet that is in the queue but not marked, and so never taken; one that is taken twice;
//! one whose entry is used anew while it is still copied; packets in the wrong order; two queues of
//! which one is lost.
//!
//! Must hold: every packet comes once, whole, and in the order of its queuer.
#![cfg(loom)]

use upager::Packet;
use upager_verify::race::{Depth, explore};
use upager_verify::world::{World, user_packet};

#[test]
fn queue_against_take() {
    explore("queue against take", Depth::Bounded, |world: World| {
        world.queue(1).expect("there is room");
        let taker = world.spawn(|world| world.take_all());
        world.queue(2).expect("there is room");
        world.queue(3).expect("there is room");
        let mut packets = taker.join().expect("the taker ends");
        packets.extend(world.take_all());
        assert_eq!(packets, [1, 2, 3].map(user_packet));
        world.end_of_the_world();
    });
}

#[test]
fn queue_against_queue() {
    explore("queue against queue", Depth::Bounded, |world: World| {
        let other = world.spawn(|world| world.queue(1));
        world.queue(2).expect("there is room");
        let mut packets = world.take_all();
        other.join().expect("the other ends").expect("there is room");
        packets.extend(world.take_all());
        packets.sort_by_key(|packet| packet.key);
        assert_eq!(packets, [1, 2].map(user_packet));
        world.end_of_the_world();
    });
}

/// Two takers, one packet each: so that an entry leaves the queue before who took it has copied it.
/// The other one then queues, into the entry that was freed last.
#[test]
fn queue_against_two_takes() {
    explore("queue against two takes", Depth::Bounded, |world: World| {
        world.queue(1).expect("there is room");
        world.queue(2).expect("there is room");
        let taker = world.spawn(|world| take_one(&world));
        let mut packets = take_one(&world);
        world.queue(3).expect("there is room");
        packets.extend(taker.join().expect("the taker ends"));
        assert_eq!(packets.len(), 2, "there is one for each");
        packets.extend(world.take_all());
        packets.sort_by_key(|packet| packet.key);
        assert_eq!(packets, [1, 2, 3].map(user_packet));
        world.end_of_the_world();
    });
}

/// One looks at the tail, and stops. The other has it move on, and queues again into the entry that it named:
/// whose link then says for a while that nothing follows, though it is in no queue. Who moves the tail on is
/// a third, so that nothing but that link brings the news: the other's own fence would.
#[test]
fn queue_against_an_old_tail() {
    explore("queue against an old tail", Depth::Bounded, |world: World| {
        world.queue(1).expect("there is room");
        assert_eq!(world.take_all(), [user_packet(1)]);
        let other = world.spawn(|world| {
            let third = world.spawn(|world| world.queue(3));
            third.join().expect("the third ends").expect("there is room");
            let taken = take_one(&world);
            world.queue(4).expect("there is room");
            taken
        });
        world.queue(2).expect("there is room");
        world.queue(5).expect("there is room");
        let mut packets = other.join().expect("the other ends");
        packets.extend(world.take_all());
        let place = |key| packets.iter().position(|packet| *packet == user_packet(key));
        assert!(place(2) < place(5), "what was queued first comes after: {packets:?}");
        packets.sort_by_key(|packet| packet.key);
        assert_eq!(packets, [2, 3, 4, 5].map(user_packet));
        world.end_of_the_world();
    });
}

fn take_one(world: &World) -> Vec<Packet> {
    let mut packets = [Packet::default()];
    let taken = world.port.take(&mut packets);
    packets[..taken].to_vec()
}
