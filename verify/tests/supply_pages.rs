//! Supply of pages out of an anonymous VMO, the aux, which others read and write meanwhile.
//!
//! Threads: one supplies a page out of the aux, and in some races then writes to it through the VMO that
//! owns it now; the other reads the aux, writes to it, supplies the same page, or detaches.
//!
//! Danger: a reader of the aux returns a byte that was written through the other VMO. A writer's byte
//! lands in a page that the other VMO owns already, or is lost between the two. A frame comes into two
//! pages, or is freed under a reader because the VMO did not want it. A page that comes after a detach
//! keeps its frame. A page is there that is not counted, so that whoever scans passes it over.
//!
//! Must hold: a reader gets the byte that was there, or zero once it has moved. A writer's byte moves with
//! the page or is in the aux. Each frame is in one page, and all are freed in the end.
#![cfg(loom)]

use upager::Status;
use upager_verify::race::{Depth, explore, explore_pages, settled};
use upager_verify::world::{Aux, World};

#[test]
fn a_reader_of_the_aux_does_not_see_what_is_written_after_the_move() {
    explore("reader of the aux against supply and write", Depth::Whole, |world: World| {
        let aux = world.aux(1);
        aux.write(0, 1).expect("memory");
        let reader = world.spawn({
            let aux = aux.clone();
            move |_| aux.read(0)
        });
        world.supply_pages(0, 1, &aux, 0).expect("nobody holds it");
        assert_eq!(world.write(0, 2).poll(), Some(Ok(2)));
        let read = reader.join().expect("the reader ends");
        assert!(matches!(read, 0 | 1), "{read} was written after the page had left the aux");
        assert_eq!((aux.read(0), world.read(0).poll()), (0, Some(Ok(2))));
        drop(aux);
        world.end_of_the_world();
    });
}

/// The VMO has the page already, and the aux's frame is freed.
#[test]
fn a_reader_of_the_aux_keeps_a_frame_that_nobody_wants() {
    explore("reader of the aux against supply of a page that is there", Depth::Whole, |world: World| {
        let aux = world.aux(1);
        aux.write(0, 1).expect("memory");
        world.supply(0, 5).expect("attached");
        let reader = world.spawn({
            let aux = aux.clone();
            move |_| aux.read(0)
        });
        world.supply_pages(0, 1, &aux, 0).expect("nobody holds it");
        world.turn_epoch();
        let read = reader.join().expect("the reader ends");
        assert!(matches!(read, 0 | 1), "{read}");
        assert_eq!((aux.read(0), world.read(0).poll()), (0, Some(Ok(5))));
        drop(aux);
        world.end_of_the_world();
    });
}

#[test]
fn what_a_writer_of_the_aux_writes_moves_with_the_page_or_stays() {
    explore("writer of the aux against supply", Depth::Whole, |world: World| {
        let aux = world.aux(1);
        aux.write(0, 1).expect("memory");
        let writer = world.spawn({
            let aux = aux.clone();
            move |_| aux.write(0, 2)
        });
        let supplied = world.supply_pages(0, 1, &aux, 0);
        let moved = world.read(0).poll();
        writer.join().expect("the writer ends").expect("memory");
        let now = (aux.read(0), world.read(0).poll());
        match supplied {
            // The write came before the move, or after it, into a page of its own.
            Ok(()) => {
                assert!(matches!(now, (0, Some(Ok(2))) | (2, Some(Ok(1)))), "{now:?}");
                assert_eq!(moved, now.1, "nobody writes to the page once it has moved");
            }
            // The page was being written.
            Err(status) => {
                assert_eq!((status, now), (Status::BadState, (2, None)));
                assert_eq!(world.supply_pages(0, 1, &aux, 0), Ok(()), "it is not any more");
                assert_eq!(world.read(0).poll(), Some(Ok(2)));
            }
        }
        drop(aux);
        world.end_of_the_world();
    });
}

/// The page is not committed: the writer commits it, while the supply supplies zeros or the page.
fn first_write_against_supply(name: &'static str, prepare: impl Fn(&Aux) + Send + Sync + 'static) {
    explore(name, Depth::Whole, move |world: World| {
        let aux = world.aux(1);
        prepare(&aux);
        // In this order of threads: loom does not try a load after another thread's store to what it read.
        let mover = world.spawn({
            let aux = aux.clone();
            move |world| world.supply_pages(0, 1, &aux, 0)
        });
        aux.write(0, 2).expect("memory");
        let supplied = mover.join().expect("the mover ends");
        let now = (aux.read(0), world.read(0).poll());
        match supplied {
            Ok(()) => assert!(matches!(now, (0, Some(Ok(2))) | (2, Some(Ok(0)))), "{now:?}"),
            Err(status) => assert_eq!((status, now), (Status::BadState, (2, None))),
        }
        drop(aux);
        world.end_of_the_world();
    });
}

#[test]
fn a_first_write_to_the_aux_moves_or_stays() {
    first_write_against_supply("first write to the aux against supply", |_| {});
}

#[test]
fn a_write_to_a_decommitted_page_of_the_aux_moves_or_stays() {
    first_write_against_supply("write to a decommitted page of the aux against supply", |aux| {
        aux.write(0, 1).expect("memory");
        aux.decommit(0).expect("nobody holds it");
    });
}

#[test]
fn two_supplies_out_of_one_page_do_not_share_its_frame() {
    explore_pages("supply against supply out of one page", Depth::Whole, 2, |world: World| {
        let aux = world.aux(1);
        aux.write(0, 1).expect("memory");
        let other = world.spawn({
            let aux = aux.clone();
            move |world| world.supply_pages(1, 1, &aux, 0)
        });
        world.supply_pages(0, 1, &aux, 0).expect("nobody holds it");
        other.join().expect("the other ends").expect("nobody holds it");
        let read = (world.read(0).poll(), world.read(1).poll());
        assert!(matches!(read, (Some(Ok(1)), Some(Ok(0))) | (Some(Ok(0)), Some(Ok(1)))), "{read:?}");
        assert_eq!((aux.read(0), aux.committed(), world.vmo.counts().resident.0), (0, 0, 2));
        drop(aux);
        world.end_of_the_world();
    });
}

/// Both for one page, with somebody waiting. One gets the content, and the page is what came first.
#[test]
fn two_supplies_of_one_page_out_of_one_page() {
    explore("supply against supply of one page out of one page", Depth::Whole, |world: World| {
        let aux = world.aux(1);
        aux.write(0, 1).expect("memory");
        let mut waiter = world.read(0);
        assert_eq!(waiter.poll(), None);
        let other = world.spawn({
            let aux = aux.clone();
            move |world| world.supply_pages(0, 1, &aux, 0)
        });
        world.supply_pages(0, 1, &aux, 0).expect("nobody holds it");
        let seen = world.read(0).poll();
        other.join().expect("the other ends").expect("nobody holds it");
        assert_eq!(waiter.wakes(), 1);
        let read = waiter.poll();
        assert!(matches!(read, Some(Ok(0 | 1))), "{read:?}");
        assert_eq!(seen, read, "the page is what it was supplied with first");
        drop((waiter, aux));
        world.end_of_the_world();
    });
}

#[test]
fn supply_pages_against_detach() {
    explore("supply of pages against detach", Depth::Bounded, |world: World| {
        let aux = world.aux(1);
        aux.write(0, 1).expect("memory");
        let mut waiter = world.read(0);
        assert_eq!(waiter.poll(), None);
        let detacher = world.spawn(|world| world.pager.detach_vmo(&world.vmo).map(drop));
        let supplied = world.supply_pages(0, 1, &aux, 0);
        detacher.join().expect("the detacher ends").expect("it is the pager's");
        // Before anybody looks at the page, who would drop it himself.
        world.turn_epoch();
        let left = usize::from(supplied.is_err());
        assert!(cfg!(crossbeam_loom) || world.platform.frames() == left, "a frame lingers in a detached VMO");
        assert_eq!(waiter.wakes(), 1);
        let read = waiter.poll();
        match supplied {
            // It woke the waiter or it did not: either way the page went with the detach.
            Ok(()) => assert_eq!((read, aux.read(0)), (Some(Err(Status::BadState)), 0)),
            Err(status) => assert_eq!((status, read, aux.read(0)), (Status::BadState, Some(Err(Status::BadState)), 1)),
        }
        assert_eq!(world.read(0).poll(), Some(Err(Status::BadState)));
        drop((waiter, aux));
        world.end_of_the_world();
    });
}

/// A thread that reads the VMO while the page moves in.
#[test]
fn a_moved_page_has_its_bytes() {
    explore("supply of pages against read", Depth::Whole, |world: World| {
        let aux = world.aux(1);
        aux.write(0, 1).expect("memory");
        let reader = world.spawn(|world| settled(world.read(0)));
        world.supply_pages(0, 1, &aux, 0).expect("nobody holds it");
        let read = reader.join().expect("the reader ends");
        assert_eq!(read.now(), Some(Ok(1)));
        drop((read, aux));
        world.end_of_the_world();
    });
}

/// Who looks it up by its word, and then at the count that leads a scan to it.
#[test]
fn a_moved_page_is_counted_before_it_is_there() {
    explore("supply of pages against counts", Depth::Whole, |world: World| {
        let aux = world.aux(1);
        aux.write(0, 1).expect("memory");
        let asker = world.spawn(|world| {
            if world.look_up(0).is_some() {
                assert_eq!(world.vmo.counts().resident.0, 1, "the page is there and not counted");
            }
        });
        world.supply_pages(0, 1, &aux, 0).expect("nobody holds it");
        asker.join().expect("who asks ends");
        drop(aux);
        world.end_of_the_world();
    });
}
