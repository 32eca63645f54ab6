//! Leave to dirty one page, which needs no permit, against everything else that happens to it.
//!
//! Threads: the service lets a page become dirty, which is clean, on its way out, or asked for by a writer; others
//! write and ask what is dirty, read, or detach.
//!
//! Danger: a page is dirty before it is counted, and who wrote to it finds nothing to write back; one that did not
//! become dirty after all stays counted; one comes back on which an access has failed.
//!
//! Must hold: what has been written is found dirty; at rest the figures are what the pages are; once an access has
//! failed on the page in a detached VMO, it stays away.
#![cfg(loom)]

use upager::{Platform, Status};
use upager_verify::race::{Depth, explore_trapping, settled};
use upager_verify::world::World;

/// The page is there, and clean.
fn of_a_clean_page(name: &'static str, race: fn(&World)) {
    explore_trapping(name, Depth::Bounded, 1, move |world: World| {
        world.supply(0, 1).expect("attached");
        race(&world);
        world.end_of_the_world();
    });
}

/// The page is on its way out, and in its grace period as long as the race lasts.
fn of_an_evicting_page(name: &'static str, race: fn(&World)) {
    explore_trapping(name, Depth::Bounded, 1, move |world: World| {
        world.supply(0, 1).expect("attached");
        let guard = world.platform.pin();
        assert_eq!(world.evict(), 1);
        race(&world);
        drop(guard);
        world.end_of_the_world();
    });
}

fn figures(world: &World) -> (u64, u64) {
    let counts = world.vmo.counts();
    (counts.resident.0, counts.dirty.0)
}

/// Once it is written back the page is clean, and counted so: what a figure is too high by is cut while it is dirty.
fn is_clean_in_the_end(world: &World) {
    world.begin(0).expect("a page of the VMO");
    world.end(0).expect("a page of the VMO");
    assert_eq!(figures(world), (1, 0));
}

fn against_a_writer_who_asks(world: &World) {
    let writer = world.spawn(|world| {
        let write = settled(world.write(0, 3));
        if write.now() == Some(Ok(3)) {
            assert_eq!(figures(&world), (1, 1), "what was written is to be written back");
        }
        write
    });
    assert_eq!(world.dirty(0, 1), Ok(()));
    let write = writer.join().expect("the writer ends");
    assert_eq!(write.now(), Some(Ok(3)), "the writer went on");
    assert_eq!(figures(world), (1, 1));
    is_clean_in_the_end(world);
}

#[test]
fn a_clean_page_against_a_writer_who_asks_what_is_dirty() {
    of_a_clean_page("dirty of a clean page against a writer", against_a_writer_who_asks);
}

#[test]
fn a_page_that_is_asked_for_against_a_writer_who_asks_what_is_dirty() {
    of_a_clean_page("dirty of a page that is asked for against a writer", |world| {
        let mut asks = world.write(0, 2);
        assert_eq!(asks.poll(), None);
        against_a_writer_who_asks(world);
    });
}

#[test]
fn an_evicting_page_against_a_writer_who_asks_what_is_dirty() {
    of_an_evicting_page("dirty of an evicting page against a writer", against_a_writer_who_asks);
}

#[test]
fn an_evicting_page_against_a_read() {
    of_an_evicting_page("dirty of an evicting page against a read", |world| {
        let reader = world.spawn(|world| settled(world.read(0)));
        assert_eq!(world.dirty(0, 1), Ok(()));
        let read = reader.join().expect("the reader ends");
        assert_eq!((read.now(), figures(world)), (Some(Ok(1)), (1, 1)));
        is_clean_in_the_end(world);
    });
}

fn against_a_detach_and_a_read(world: &World) {
    let detacher = world.spawn(|world| world.pager.detach_vmo(&world.vmo).map(drop));
    let reader = world.spawn(|world| settled(world.read(0)));
    let result = world.dirty(0, 1);
    detacher.join().expect("the detacher ends").expect("the pager's own VMO");
    let read = reader.join().expect("the reader ends");
    match (result, read.now()) {
        (Ok(()), Some(Ok(1))) => assert_eq!(figures(world), (1, 1)),
        (Err(Status::BadState), Some(Ok(1) | Err(Status::BadState))) => assert_eq!(figures(world), (0, 0)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_clean_page_against_a_detach_and_a_read() {
    of_a_clean_page("dirty of a clean page against detach and read", against_a_detach_and_a_read);
}

#[test]
fn an_evicting_page_against_a_detach_and_a_read() {
    of_an_evicting_page("dirty of an evicting page against detach and read", against_a_detach_and_a_read);
}

/// Zeros are stored before they can be put under leave. They are dirty, or gone, as the writeback of them ended after
/// or before.
#[test]
fn zeros_that_await_clean_against_the_end_of_their_writeback() {
    explore_trapping("dirty of zeros that await clean against END", Depth::Bounded, 1, |world: World| {
        world.zero(0, 1).expect("memory");
        world.begin(0).expect("a page of the VMO");
        let writeback = world.spawn(|world| world.end(0));
        let result = world.dirty(0, 1);
        writeback.join().expect("the writeback ends").expect("a page of the VMO");
        let counts = world.vmo.counts();
        match result {
            Ok(()) => assert_eq!((counts.dirty.0, counts.zero.0, counts.awaiting.0), (1, 0, 0)),
            Err(Status::NotFound) => assert_eq!((counts.dirty.0, counts.zero.0), (0, 0)),
            Err(other) => panic!("{other}"),
        }
        world.end_of_the_world();
    });
}
