//! A taker who is held up at the request that he took last, against the next life of its entry.
//!
//! Threads: one takes; the other gives up what the request was for, takes what comes after it, by which the queue lets go of the
//! entry, and asks for a page that has the entry next.
//!
//! Danger: the taker has seen the request open, and delivers it with the pages of the next one: of that the service is told twice.
//!
//! Must hold: each request comes once, and the one that was withdrawn once or not at all.
#![cfg(loom)]

use upager::{PAGE_SIZE, Packet};
use upager_verify::race::{Depth, explore_pages};
use upager_verify::world::World;

#[test]
fn take_against_the_next_life() {
    explore_pages("take against the next life", Depth::Bounded, 3, |world: World| {
        let mut gone = world.read(0);
        assert_eq!(gone.poll(), None);
        let taker = world.spawn(|world| world.take());
        let _: usize = gone.leave();
        let (mut second, mut third) = (world.read(1), world.read(2));
        assert_eq!(second.poll(), None);
        let mut packets = world.take();
        assert_eq!(third.poll(), None);
        packets.extend(taker.join().expect("the taker ends"));
        packets.extend(world.take_all());
        let times = |page| packets.iter().filter(|packet| pages(packet).contains(&page)).count();
        assert!(times(0) <= 1 && times(1) == 1 && times(2) == 1, "{packets:?}");
        drop((second, third));
        world.end_of_the_world();
    });
}

fn pages(packet: &Packet) -> std::ops::Range<u64> {
    let range = packet.range();
    range.offset / PAGE_SIZE..(range.offset + range.length) / PAGE_SIZE
}
