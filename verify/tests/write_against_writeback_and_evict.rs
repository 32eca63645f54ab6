//! A write against BEGIN, END and eviction.
//!
//! Threads: one writes to a page, which is dirty, clean, on its way out or awaits clean; the other begins its
//! writeback, reads it as the service does, and ends the writeback. In the first two it then evicts.
//!
//! Danger: the write marks the page dirty before BEGIN and copies its byte after END, into a frame
//! that is clean, or freed. The easiest way to lose data here.
//!
//! Must hold: the byte is in what the service read, or the page is dirty and has it.
#![cfg(loom)]

use upager::{Platform, Status};
use upager_verify::race::{Depth, explore, settled};
use upager_verify::world::World;

#[test]
fn write_against_writeback_and_evict() {
    explore("write against writeback and evict", Depth::Whole, |world: World| {
        world.supply(0, 1).expect("attached");
        assert_eq!(world.write(0, 2).poll(), Some(Ok(2)));
        let writer = world.spawn(|world| settled(world.write(0, 3)));
        world.begin(0).expect("a page of the VMO");
        let written_back = world.read(0).poll();
        world.end(0).expect("a page of the VMO");
        let evicted = world.evict();
        let write = writer.join().expect("the writer ends");
        if write.now() == Some(Ok(3)) {
            let kept = world.vmo.counts().dirty.0 == 1 && world.read(0).poll() == Some(Ok(3));
            assert!(kept || written_back == Some(Ok(3)), "the byte is lost: written back {written_back:?}");
        } else {
            // The page had gone before the write came: it waits for the service.
            assert_eq!((write.now(), evicted), (None, 1));
            assert_eq!(written_back, Some(Ok(2)));
        }
        drop(write);
        world.end_of_the_world();
    });
}

#[test]
fn write_to_a_clean_page_against_writeback_and_evict() {
    explore("write to a clean page against writeback and evict", Depth::Whole, |world: World| {
        world.supply(0, 1).expect("attached");
        let writer = world.spawn(|world| settled(world.write(0, 3)));
        world.begin(0).expect("a page of the VMO");
        let written_back = world.read(0).poll();
        world.end(0).expect("a page of the VMO");
        world.evict();
        let write = writer.join().expect("the writer ends");
        if write.now() == Some(Ok(3)) {
            let kept = world.vmo.counts().dirty.0 == 1 && world.read(0).poll() == Some(Ok(3));
            assert!(kept || written_back == Some(Ok(3)), "the byte is lost: written back {written_back:?}");
        }
        assert!(!matches!(write.now(), Some(Err(Status::BadState))));
        drop(write);
        world.end_of_the_world();
    });
}

/// The writer holds the page, whatever it was before: else its writeback ends between the mark and the byte.
fn write_against_the_service(world: &World) {
    let service = world.spawn(|world| {
        world.begin(0).expect("a page of the VMO");
        let written_back = world.read(0).poll();
        world.end(0).expect("a page of the VMO");
        written_back
    });
    let write = settled(world.write(0, 3));
    let written_back = service.join().expect("the service ends");
    assert_eq!(write.now(), Some(Ok(3)));
    let kept = world.vmo.counts().dirty.0 == 1 && world.read(0).poll() == Some(Ok(3));
    assert!(kept || written_back == Some(Ok(3)), "the byte is lost: written back {written_back:?}");
}

#[test]
fn write_to_a_clean_page_against_writeback() {
    explore("write to a clean page against writeback", Depth::Whole, |world: World| {
        world.supply(0, 1).expect("attached");
        write_against_the_service(&world);
        world.end_of_the_world();
    });
}

#[test]
fn rescuing_write_against_writeback() {
    explore("rescuing write against writeback", Depth::Whole, |world: World| {
        world.supply(0, 1).expect("attached");
        let guard = world.platform.pin();
        assert_eq!(world.evict(), 1);
        write_against_the_service(&world);
        drop(guard); // here the grace period ends
        world.end_of_the_world();
    });
}

#[test]
fn write_to_a_page_that_awaits_clean_against_writeback() {
    explore("write to a page that awaits clean against writeback", Depth::Whole, |world: World| {
        world.supply(0, 1).expect("attached");
        assert_eq!(world.write(0, 2).poll(), Some(Ok(2)));
        world.begin(0).expect("a page of the VMO");
        write_against_the_service(&world);
        world.end_of_the_world();
    });
}
