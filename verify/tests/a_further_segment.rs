//! Faults that need an entry when a pool's first segment is full.
//!
//! Threads: two fault on a page each, and both make the second segment; or one faults, and the VMO is detached, or
//! shrinks so that the page is gone.
//!
//! Danger: each makes a segment of its own, and two requests share an entry; one uses the other's segment before what
//! is in it; the detach, or the shrink, sees no second segment, and the faulter, who makes it, does not see what it did
//! before.
//!
//! Must hold: the detach brings everybody home, and the shrink the one whose page is gone.
#![cfg(loom)]

use upager::{PAGE_SIZE, Status};
use upager_verify::race::{Depth, explore_pages, explore_resizable, settled};
use upager_verify::world::{FULL, Waiting, World};

fn all_are_home(waiting: Vec<Waiting>) {
    for mut read in waiting {
        assert_eq!(read.settle(), Some(Err(Status::BadState)));
    }
}

#[test]
fn two_faults_make_a_segment() {
    explore_pages("two faults make a segment", Depth::Bounded, FULL + 2, |world: World| {
        let waiting = world.reads_that_wait(FULL);
        let readers = [FULL, FULL + 1].map(|page| world.spawn(move |world| settled(world.read(page))));
        let reads = readers.map(|reader| reader.join().expect("a reader ends"));
        assert_eq!(world.vmo.counts().in_flight, FULL + 2);
        world.pager.detach_vmo(&world.vmo).expect("the pager's own VMO");
        for read in reads {
            assert_eq!(read.again().now(), Some(Err(Status::BadState)));
        }
        all_are_home(waiting);
        world.end_of_the_world();
    });
}

#[test]
fn a_fault_makes_a_segment_against_detach() {
    explore_pages("a fault makes a segment against detach", Depth::Bounded, FULL + 1, |world: World| {
        let waiting = world.reads_that_wait(FULL);
        let reader = world.spawn(|world| settled(world.read(FULL)));
        world.pager.detach_vmo(&world.vmo).expect("the pager's own VMO");
        let read = reader.join().expect("a reader ends");
        assert_eq!(read.now(), Some(Err(Status::BadState)));
        all_are_home(waiting);
        world.end_of_the_world();
    });
}

#[test]
fn a_fault_makes_a_segment_against_shrink() {
    explore_resizable("a fault makes a segment against shrink", Depth::Bounded, FULL + 1, |world: World| {
        let waiting = world.reads_that_wait(FULL);
        let reader = world.spawn(|world| settled(world.read(FULL)));
        world.vmo.set_size(FULL * PAGE_SIZE).expect("nobody else resizes");
        let read = reader.join().expect("a reader ends");
        assert_eq!(read.now(), Some(Err(Status::OutOfRange)));
        world.pager.detach_vmo(&world.vmo).expect("the pager's own VMO");
        all_are_home(waiting);
        world.end_of_the_world();
    });
}
