//! A write that rescues an evicted page, against detach and an access after it.
//!
//! Threads: one writes to a page in its grace period, one detaches and then reads it.
//!
//! Danger: the writer sees the VMO attached; detach passes over the page, since it is on its way
//! out; the reader fails on it; and then the writer's rescue succeeds, and the page is back.
//!
//! Must hold: once an access has failed on the page, every later one fails.
#![cfg(loom)]

use upager::{Platform, Status};
use upager_verify::race::{Depth, explore, settled};
use upager_verify::world::World;

#[test]
fn rescuing_write_against_detach() {
    explore("rescuing write against detach", Depth::Whole, |world: World| {
        world.supply(0, 1).expect("attached");
        let guard = world.platform.pin();
        assert_eq!(world.evict(), 1);
        let writer = world.spawn(|world| settled(world.write(0, 3)));
        world.pager.detach_vmo(&world.vmo).expect("the pager's own VMO");
        let read = world.read(0).poll();
        let write = writer.join().expect("the writer ends");
        if read == Some(Err(Status::BadState)) {
            let after = world.read(0).poll();
            assert_eq!(after, Some(Err(Status::BadState)), "the page came back; write {:?}", write.now());
        }
        drop(write);
        drop(guard);
        world.end_of_the_world();
    });
}
