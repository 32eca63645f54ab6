//! A write against detach.
//!
//! Threads: one writes to a clean page, one detaches.
//!
//! Danger: the write succeeds and detach drops the page, which it saw clean: a dirty byte is lost.
//! Or the page goes and comes back.
//!
//! Must hold: if the write succeeded the page is dirty and has its byte; otherwise it failed with
//! BAD_STATE and the page is gone.
#![cfg(loom)]

use upager::Status;
use upager_verify::race::{Depth, explore, settled};
use upager_verify::world::World;

#[test]
fn write_against_detach() {
    explore("write against detach", Depth::Whole, |world: World| {
        world.supply(0, 1).expect("attached");
        let writer = world.spawn(|world| settled(world.write(0, 3)));
        world.pager.detach_vmo(&world.vmo).expect("the pager's own VMO");
        let write = writer.join().expect("the writer ends");
        match write.now() {
            Some(Ok(3)) => {
                assert_eq!(world.vmo.counts().dirty.0, 1);
                assert_eq!(world.read(0).poll(), Some(Ok(3)));
            }
            Some(Err(Status::BadState)) => {
                assert_eq!(world.vmo.counts().resident.0, 0);
                assert_eq!(world.read(0).poll(), Some(Err(Status::BadState)));
            }
            other => panic!("{other:?}"),
        }
        world.check_complete_is_last();
        world.end_of_the_world();
    });
}
