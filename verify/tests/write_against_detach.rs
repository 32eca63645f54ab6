//! A write against detach.
//!
//! Threads: one writes to a clean page, one detaches; another supplies it anew.
//!
//! Danger: the write succeeds and detach drops the page, which it saw clean: a dirty byte is lost.
//! Or the page goes and comes back: with the same frame, to a writer who has looked at its word before, and stops.
//!
//! Must hold: if the write succeeded the page is dirty and has its byte; otherwise it failed with
//! BAD_STATE and the page is gone.
#![cfg(loom)]

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use upager::{ByteRange, OwnedFrame, PAGE_SIZE, Platform, Status};
use upager_verify::race::{Depth, at_every_step, explore, explore_trapping, settled};
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

/// A call that makes page 0 dirty.
#[derive(Clone, Copy)]
struct Dirties {
    name: &'static str,
    /// In a VMO that traps dirtying.
    traps: bool,
    call: fn(&World) -> bool,
    /// The page was being evicted, and was rescued.
    rescued: bool,
}

/// The one who dirties the page stops before its change number `step`.
fn stops_before(step: usize, has_stopped: Arc<AtomicBool>, dirties: Dirties) {
    let race = move |world: World| {
        world.supply(0, 1).expect("attached");
        assert_eq!(world.read(0).poll(), Some(Ok(1)), "its word has the mark of access, as if it were supplied anew");
        let guard = dirties.rescued.then(|| world.platform.pin());
        if dirties.rescued {
            world.evict();
            assert_eq!(world.read(0).poll(), Some(Ok(1)), "rescued, and its word says that an eviction has not ended");
        }
        let writer = world.spawn_stopping(step, &has_stopped, dirties.call);
        let supplier = world.spawn(|world| {
            // The frame is allocated when the page is seen to be absent: then it may be the one that has gone.
            let frames = [()].into_iter().map(|()| OwnedFrame::new(&*world.platform).expect("no limit"));
            world.pager.supply_frames(&world.vmo, ByteRange::new(0, PAGE_SIZE), frames)
        });
        world.pager.detach_vmo(&world.vmo).expect("the pager's own VMO");
        let read = world.read(0).poll();
        let is_dirty = writer.go_on().expect("the writer ends");
        let answer = supplier.join().expect("the supplier ends");
        drop(guard);
        assert!(matches!(answer, Ok(()) | Err(Status::BadState)), "{answer:?}");
        assert!(!(is_dirty && read == Some(Err(Status::BadState))), "the page is back");
        world.end_of_the_world();
    };
    if dirties.traps {
        explore_trapping(dirties.name, Depth::Bounded, 1, race);
    } else {
        explore(dirties.name, Depth::Bounded, race);
    }
}

fn stops(dirties: Dirties) {
    at_every_step(1, |step, has_stopped| stops_before(step, has_stopped, dirties));
}

#[test]
fn a_stopped_write_against_detach_and_a_supply() {
    stops(Dirties {
        name: "a stopped write against detach and a supply",
        traps: false,
        call: |world| world.mapped_write(0).poll().is_some_and(|write| write.is_ok()),
        rescued: false,
    });
}

/// An eviction that goes on makes the word the same again: the supply must not rescue a page on which the read has failed.
#[test]
fn a_stopped_write_to_a_rescued_page_against_detach_and_a_supply() {
    stops(Dirties {
        name: "a stopped write to a rescued page against detach and a supply",
        traps: false,
        call: |world| world.mapped_write(0).poll().is_some_and(|write| write.is_ok()),
        rescued: true,
    });
}

#[test]
fn a_stopped_leave_against_detach_and_a_supply() {
    stops(Dirties {
        name: "a stopped leave against detach and a supply",
        traps: true,
        call: |world| world.dirty(0, 1).is_ok(),
        rescued: false,
    });
}
