//! A supply of a page that nobody asked for, against a detach.
//!
//! Threads: one supplies a page; one detaches.
//!
//! Danger: the detach sweeps before the page is there, and the supply looks at the mark as it was before: the page's
//! frame lingers in the detached VMO, where nobody can use it. Where somebody waits for the page, his request's end
//! orders the two; here only the fences do.
//!
//! Must hold: in the end the page is gone, and its frame is free.
#![cfg(loom)]

use upager::Status;
use upager_verify::race::{Depth, explore};
use upager_verify::world::World;

#[test]
fn supply_unasked_against_detach() {
    explore("supply unasked against detach", Depth::Whole, |world: World| {
        let detacher = world.spawn(|world| world.pager.detach_vmo(&world.vmo).map(drop));
        let supplied = world.supply(0, 5);
        detacher.join().expect("the detacher ends").expect("it is the pager's");
        assert!(matches!(supplied, Ok(()) | Err(Status::BadState)), "{supplied:?}");
        // Before anybody looks at the page, who would drop it himself.
        world.turn_epoch();
        assert!(cfg!(crossbeam_loom) || world.platform.frames() == 0, "a frame lingers in a detached VMO");
        assert_eq!(world.read(0).poll(), Some(Err(Status::BadState)));
        world.end_of_the_world();
    });
}
