//! A take against a VMO that comes where another has gone.
//!
//! Threads: one takes the COMPLETE of a VMO, so that its entry in the port is free, makes another VMO,
//! which gets the entry, and reads; the other takes too, and may be stopped with its hand on the entry.
//!
//! Danger: who found nothing in the entry, or the end of a VMO that is gone, clears the mark that the new one has
//! set since: its request stays queued without a mark, and nobody comes for it.
//!
//! Must hold: the request is delivered to one of those who take, or to who takes after them.
#![cfg(loom)]

use std::future::Future;

use upager::{Access, Command, PAGE_SIZE, Packet, PageIndex, VmoOptions};
use upager_verify::race::{Depth, explore};
use upager_verify::world::{KEY, World};

#[test]
fn take_against_a_new_vmo() {
    explore("take against a new vmo", Depth::Bounded, |world: World| {
        world.pager.detach_vmo(&world.vmo).expect("the pager's own VMO");
        let taker = world.spawn(|world| world.take());
        let mut packets = world.take();
        let next = world.pager.create_vmo(&world.port, KEY + 1, VmoOptions::NONE, PAGE_SIZE).expect("there is room");
        let waker = core::task::Waker::noop();
        let mut fault = next.fault(PageIndex(0), Access::Read);
        let asked = core::pin::Pin::new(&mut fault).poll(&mut core::task::Context::from_waker(waker));
        assert!(asked.is_pending());
        packets.extend(taker.join().expect("the taker ends"));
        packets.extend(world.take_all());
        let of = |key, command, length| Packet::page_request(key, command, 0, length);
        let mut expected = vec![of(KEY, Command::Complete, 0), of(KEY + 1, Command::Read, PAGE_SIZE)];
        packets.sort_by_key(|packet| packet.key);
        expected.sort_by_key(|packet| packet.key);
        assert_eq!(packets, expected);
        drop(fault);
        drop(next);
        assert_eq!(world.take_all(), [of(KEY + 1, Command::Complete, 0)]);
        world.end_of_the_world();
    });
}
