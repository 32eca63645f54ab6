//! The end of a writeback against detach.
//!
//! Threads: one ends the writeback of a page, one detaches.
//!
//! Danger: the detach has passed the page by, since it awaited clean, and END makes it clean and does not see the
//! mark: its frame stays, though nobody can use it.
//!
//! Must hold: afterwards the page is gone, and its frame with the grace period, also if nobody comes by to meet it.
#![cfg(loom)]

use upager::Status;
use upager_verify::race::{Depth, explore};
use upager_verify::world::World;

#[test]
fn end_against_detach() {
    explore("END against detach", Depth::Whole, |world: World| {
        world.supply(0, 5).expect("attached");
        assert_eq!(world.write(0, 7).poll(), Some(Ok(7)));
        world.begin(0).expect("a page of the VMO");
        let service = world.spawn(|world| world.end(0));
        world.pager.detach_vmo(&world.vmo).expect("the pager's own VMO");
        assert_eq!(service.join().expect("the service ends"), Ok(()));
        world.turn_epoch();
        world.turn_epoch();
        assert_eq!(world.platform.frames(), 0, "a page that nobody can use has a frame");
        assert_eq!(world.read(0).poll(), Some(Err(Status::BadState)));
        world.end_of_the_world();
    });
}
