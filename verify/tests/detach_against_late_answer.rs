//! Detach against a delivered request that is answered late.
//!
//! Threads: one detaches, one supplies the page of a request that was delivered before.
//!
//! Danger: both resolve the request, and its waiter is woken twice; or the late page stays.
//!
//! Must hold: the waiter is woken once, with the byte or BAD_STATE; the page is gone afterwards, and
//! a supply after that is BAD_STATE and changes nothing.
#![cfg(loom)]

use upager::Status;
use upager_verify::race::{Depth, explore};
use upager_verify::world::World;

#[test]
fn detach_against_late_answer() {
    explore("detach against a late answer", Depth::Whole, |world: World| {
        let mut waiter = world.read(0);
        assert_eq!(waiter.poll(), None);
        assert_eq!(world.take_all().len(), 1);
        let supplier = world.spawn(|world| world.supply(0, 5));
        world.pager.detach_vmo(&world.vmo).expect("the pager's own VMO");
        assert!(matches!(supplier.join().expect("the supplier ends"), Ok(()) | Err(Status::BadState)));
        assert_eq!(waiter.wakes(), 1);
        // It looks again, and by now the page has gone.
        assert_eq!(waiter.poll(), Some(Err(Status::BadState)));
        assert_eq!(world.supply(0, 6), Err(Status::BadState));
        assert_eq!(world.vmo.counts().resident.0, 0);
        world.check_complete_is_last();
        drop(waiter);
        world.end_of_the_world();
    });
}
