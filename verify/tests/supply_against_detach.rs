//! A supply of a page that nobody asked for, against a detach.
//!
//! Threads: one supplies a page; one detaches, and perhaps reads the page; another may write it.
//!
//! Danger: the detach sweeps before the page is there, and the supply looks at the mark as it was before: the page's
//! frame lingers in the detached VMO, where nobody can use it. Where somebody waits for the page, his request's end
//! orders the two; here only the fences do. Or a read fails after the detach, since there is no page yet, and the writer
//! who finds what is supplied then looks at the mark as it was before, and makes it dirty.
//!
//! Must hold: in the end the page is gone, and its frame is free; but for one that was written before the detach, which the
//! read finds.
#![cfg(loom)]

use upager::Status;
use upager_verify::race::{Depth, explore, settled};
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

#[test]
fn supply_and_write_against_detach_and_a_read() {
    explore("supply and write against detach, then read", Depth::Bounded, |world: World| {
        let supplier = world.spawn(|world| world.supply(0, 5));
        let writer = world.spawn(|world| settled(world.write(0, 3)));
        world.pager.detach_vmo(&world.vmo).expect("it is the pager's");
        let read = world.read(0).poll();
        let write = writer.join().expect("the writer ends").now();
        let supplied = supplier.join().expect("the supplier ends");
        assert!(matches!(supplied, Ok(()) | Err(Status::BadState)), "{supplied:?}");
        match (read, write) {
            (Some(Ok(3 | 5)), Some(Ok(3))) | (Some(Err(Status::BadState)), Some(Err(Status::BadState))) => {}
            other => panic!("{other:?}"),
        }
        world.end_of_the_world();
    });
}
