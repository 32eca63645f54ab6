//! A supply of a page that nobody asked for, against a detach.
//!
//! Threads: one supplies a page; one detaches; another may write it, and another read it after the mark.
//!
//! Danger: the detach sweeps before the page is there, and the supply looks at the mark as it was before: the page's
//! frame lingers in the detached VMO, where nobody can use it. Where somebody waits for the page, his request's end
//! orders the two; here only the fences do. Or a read fails after the mark, since there is no page yet, and the writer
//! who finds what is supplied then looks at the mark as it was before, and makes it dirty.
//!
//! Must hold: in the end the page is gone, and its frame is free; but for one that was written before the detach, which the
//! read finds.
#![cfg(loom)]

use upager::Status;
use upager_verify::race::{Depth, explore, explore_pages};
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

/// The detach stops after its mark, and the reader knows of it by no more than that a clean page is gone.
#[test]
fn supply_and_write_against_a_stopped_detach_and_a_read() {
    explore_pages("supply and write against a stopped detach and a read", Depth::Bounded, 2, |world: World| {
        world.supply(1, 1).expect("attached");
        let detacher = world.spawn_stopping_detach();
        let supplier = world.spawn(|world| world.supply(0, 5));
        let writer = world.spawn(|world| world.mapped_write(0).poll());
        let read = world.look_up_unpinned(1).is_none().then(|| world.read(0).poll()).flatten();
        let write = writer.join().expect("the writer ends");
        let answer = supplier.join().expect("the supplier ends");
        detacher.go_on().expect("the detacher ends").expect("it is the pager's");
        assert!(matches!(answer, Ok(()) | Err(Status::BadState)), "{answer:?}");
        assert!(!(read == Some(Err(Status::BadState)) && write == Some(Ok(0))), "the page is back");
        world.end_of_the_world();
    });
}
