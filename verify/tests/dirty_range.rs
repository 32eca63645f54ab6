//! Leave to dirty several pages against everything that can take one of them away.
//!
//! Threads: the service lets two pages become dirty; another thread evicts one, detaches, writes,
//! ends a writeback, or lets them become dirty too.
//!
//! Danger: one page becomes dirty and the other does not; the service is told that none did, and one
//! does; a writer is woken twice, or never; a page is cleaned by a writeback that its dirtying
//! overtook; a permit of an earlier call is taken for one that is not decided; a page goes on naming
//! the entry of a request that ended while it was being made, and becomes dirty with what that entry
//! is next.
//!
//! Must hold: all or none, as the result says, and every writer goes on.
#![cfg(loom)]

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use loom::thread;
use upager::{PAGE_SIZE, Platform, Status};
use upager_verify::race::{
    Depth, Settled, at_every_step, explore_trapping, explore_trapping_resizable, leave, settled,
};
use upager_verify::world::{Waiting, World};

fn clean_pages(world: &World, count: u64) {
    for page in 0..count {
        world.supply(page, 1).expect("attached");
    }
}

fn dirty_pages(world: &World) -> u64 {
    world.vmo.counts().dirty.0
}

#[test]
fn dirty_range_against_evict() {
    explore_trapping("dirty range against evict", Depth::Bounded, 2, |world: World| {
        clean_pages(&world, 2);
        let evictor = world.spawn(|world| {
            world.evict();
        });
        let result = world.dirty(0, 2);
        evictor.join().expect("the evictor ends");
        match result {
            Ok(()) => assert_eq!(dirty_pages(&world), 2),
            Err(Status::NotFound) => assert_eq!(dirty_pages(&world), 0),
            Err(other) => panic!("{other}"),
        }
        world.end_of_the_world();
    });
}

#[test]
fn dirty_range_against_detach() {
    explore_trapping("dirty range against detach", Depth::Bounded, 2, |world: World| {
        clean_pages(&world, 2);
        let detacher = world.spawn(|world| world.pager.detach_vmo(&world.vmo).map(drop));
        let result = world.dirty(0, 2);
        detacher.join().expect("the detacher ends").expect("the pager's own VMO");
        let counts = world.vmo.counts();
        match result {
            Ok(()) => assert_eq!((counts.resident.0, counts.dirty.0), (2, 2)),
            Err(Status::BadState) => assert_eq!((counts.resident.0, counts.dirty.0), (0, 0)),
            Err(other) => panic!("{other}"),
        }
        world.check_complete_is_last();
        world.end_of_the_world();
    });
}

#[test]
fn dirty_range_against_a_read_in_a_detached_vmo() {
    explore_trapping("dirty range against detach and read", Depth::Bounded, 2, |world: World| {
        clean_pages(&world, 2);
        let detacher = world.spawn(|world| world.pager.detach_vmo(&world.vmo).map(drop));
        let reader = world.spawn(|world| settled(world.read(1)));
        let result = world.dirty(0, 2);
        detacher.join().expect("the detacher ends").expect("the pager's own VMO");
        let read = reader.join().expect("the reader ends");
        let counts = world.vmo.counts();
        match (result, read.now()) {
            (Ok(()), Some(Ok(1))) => assert_eq!((counts.resident.0, counts.dirty.0), (2, 2)),
            (Err(Status::BadState), Some(Ok(1) | Err(Status::BadState))) => {
                assert_eq!((counts.resident.0, counts.dirty.0), (0, 0));
            }
            other => panic!("{other:?}"),
        }
        drop(read);
        world.end_of_the_world();
    });
}

#[test]
fn dirty_range_against_dirty_range() {
    explore_trapping("dirty range against dirty range", Depth::Bounded, 2, |world: World| {
        clean_pages(&world, 2);
        let other = world.spawn(|world| world.dirty(0, 2));
        assert_eq!(world.dirty(0, 2), Ok(()));
        assert_eq!(other.join().expect("the other ends"), Ok(()));
        assert_eq!(dirty_pages(&world), 2);
        world.end_of_the_world();
    });
}

#[test]
fn dirty_range_against_a_writer() {
    explore_trapping("dirty range against a writer", Depth::Bounded, 2, |world: World| {
        clean_pages(&world, 2);
        let writer = world.spawn(|world| settled(world.write(0, 3)));
        assert_eq!(world.dirty(0, 2), Ok(()));
        let write = writer.join().expect("the writer ends");
        assert_eq!(write.now(), Some(Ok(3)), "the writer went on");
        assert_eq!((dirty_pages(&world), world.vmo.counts().in_flight), (2, 0));
        drop(write);
        world.end_of_the_world();
    });
}

#[test]
fn refused_range_against_a_writer() {
    explore_trapping("refused range against a writer", Depth::Bounded, 2, |world: World| {
        world.supply(0, 1).expect("attached");
        let writer = world.spawn(|world| settled(world.write(0, 3)));
        assert_eq!(world.dirty(0, 2), Err(Status::NotFound), "the second page is absent");
        let write = writer.join().expect("the writer ends");
        assert_eq!(write.now(), None, "nobody has allowed it");
        assert_eq!((dirty_pages(&world), world.vmo.counts().in_flight), (0, 1));
        assert_eq!(world.dirty(0, 1), Ok(()));
        drop(write);
        world.end_of_the_world();
    });
}

#[test]
fn dirty_range_against_the_end_of_a_writeback() {
    explore_trapping("dirty range against END", Depth::Bounded, 2, |world: World| {
        clean_pages(&world, 2);
        assert_eq!(world.dirty(0, 1), Ok(()));
        world.begin(0).expect("a page of the VMO");
        let writeback = world.spawn(|world| world.end(0));
        assert_eq!(world.dirty(0, 2), Ok(()));
        writeback.join().expect("the writeback ends").expect("a page of the VMO");
        assert_eq!(dirty_pages(&world), 2);
        world.end_of_the_world();
    });
}

/// Leave for one page is given in one step, unless the page awaits clean: a write that fails leaves nothing in
/// such a page that would make the step fail.
#[test]
fn dirty_of_a_page_that_awaits_clean_against_detach_and_then_a_write() {
    explore_trapping(
        "dirty of a page that awaits clean against detach, then write",
        Depth::Bounded,
        1,
        |world: World| {
            world.supply(0, 1).expect("attached");
            assert_eq!(world.dirty(0, 1), Ok(()));
            world.begin(0).expect("a page of the VMO");
            let detacher = world.spawn(|world| {
                world.pager.detach_vmo(&world.vmo).expect("the pager's own VMO");
                settled(world.write(0, 3))
            });
            let result = world.dirty(0, 1);
            let write = detacher.join().expect("the detacher ends");
            let awaiting = world.vmo.counts().awaiting.0;
            match (result, write.now()) {
                (Ok(()), Some(Ok(3))) => assert_eq!(awaiting, 0),
                (Err(Status::BadState), Some(Err(Status::BadState))) => assert_eq!(awaiting, 1),
                other => panic!("{other:?}"),
            }
            drop(write);
            world.end_of_the_world();
        },
    );
}

/// The same, and then the writeback ends: for a moment the page is clean, and on its way out, though a write has failed
/// on it.
#[test]
fn dirty_of_a_page_that_awaits_clean_against_detach_write_and_end() {
    explore_trapping(
        "dirty of a page that awaits clean against detach, write and END",
        Depth::Bounded,
        1,
        |world: World| {
            world.supply(0, 1).expect("attached");
            assert_eq!(world.dirty(0, 1), Ok(()));
            world.begin(0).expect("a page of the VMO");
            let detacher = world.spawn(|world| {
                world.pager.detach_vmo(&world.vmo).expect("the pager's own VMO");
                let write = settled(world.write(0, 3));
                world.end(0).expect("a page of the VMO");
                write
            });
            let result = world.dirty(0, 1);
            let write = detacher.join().expect("the detacher ends");
            match (result, write.now()) {
                (Ok(()), Some(Ok(3))) => assert_eq!(dirty_pages(&world), 1),
                (Err(Status::BadState), Some(Err(Status::BadState))) => assert_eq!(dirty_pages(&world), 0),
                other => panic!("{other:?}"),
            }
            drop(write);
            world.end_of_the_world();
        },
    );
}

/// The first page is rescued for the leave, which fails for want of the second one, as the detach passes by.
#[test]
fn dirty_of_an_evicting_page_and_an_absent_one_against_detach() {
    explore_trapping(
        "dirty of an evicting page and an absent one against detach",
        Depth::Bounded,
        4,
        |world: World| {
            world.supply(1, 1).expect("attached");
            let guard = world.platform.pin();
            assert_eq!(world.evict(), 1);
            let detacher = world.spawn(|world| world.pager.detach_vmo(&world.vmo).map(drop));
            let result = world.dirty(1, 2);
            assert!(matches!(result, Err(Status::NotFound | Status::BadState)), "{result:?}");
            detacher.join().expect("the detacher ends").expect("the pager's own VMO");
            drop(guard);
            assert!(cfg!(crossbeam_loom) || world.platform.frames() == 0, "a frame lingers in a detached VMO");
            world.end_of_the_world();
        },
    );
}

/// Who waits for a permit that a shrink refuses is woken by that: its opener does not know of him.
#[test]
fn dirty_range_against_a_writer_and_a_shrink() {
    explore_trapping_resizable("dirty range against a writer and a shrink", Depth::Bounded, 2, |world: World| {
        clean_pages(&world, 2);
        let writer = world.spawn(|world| settled(world.write(1, 3)));
        let shrinker = world.spawn(|world| world.vmo.set_size(PAGE_SIZE));
        let result = world.dirty(0, 2);
        shrinker.join().expect("the shrinker ends").expect("nobody else resizes");
        let write = writer.join().expect("the writer ends");
        assert!(matches!(write.now(), Some(Ok(3) | Err(Status::OutOfRange))), "the writer is home: {:?}", write.now());
        match result {
            Ok(()) => assert_eq!(dirty_pages(&world), 1),
            Err(Status::OutOfRange) => assert_eq!(dirty_pages(&world), 0),
            Err(other) => panic!("{other}"),
        }
        drop(write);
        world.end_of_the_world();
    });
}

/// The page names a request that has failed and is about to turn it back. Then it names another one, in the same entry.
#[test]
fn dirty_of_a_page_against_the_next_life_of_the_request_that_it_names() {
    explore_trapping("dirty against a request's next life", Depth::Bounded, 2, |world: World| {
        clean_pages(&world, 2);
        let (mut first, mut other) = (world.write(0, 2), world.write(1, 2));
        assert_eq!((first.poll(), other.poll()), (None, None));
        assert_eq!(world.take_all().len(), 1, "of two pages"); // the queue keeps the entry of the second
        let service = world.spawn(move |world| {
            world.fail(0, Status::Io).expect("a page of the VMO");
            let _: Option<_> = first.settle(); // failed; or leave came first, and has not been told yet
            drop(first);
            settled(world.write(0, 3))
        });
        assert_eq!(world.dirty(0, 1), Ok(()));
        let write = service.join().expect("the service ends");
        assert_eq!(world.dirty(0, 1), Ok(()));
        let write = write.again();
        assert_eq!(write.now(), Some(Ok(3)), "the writer went on");
        drop((write, other));
        world.end_of_the_world();
    });
}

#[test]
fn a_permit_is_not_taken_for_an_earlier_one() {
    explore_trapping("a permit and its entry's earlier life", Depth::Bounded, 3, |world: World| {
        clean_pages(&world, 2);
        let evictor = world.spawn(|world| {
            world.evict();
        });
        if world.dirty(0, 2) == Ok(()) {
            world.begin(0).expect("a page of the VMO");
            world.end(0).expect("a page of the VMO");
            assert_eq!(world.dirty(0, 3), Err(Status::NotFound), "the third page is absent");
            // Counted only now: a count may be above the truth while somebody is at work.
            evictor.join().expect("the evictor ends");
            assert_eq!(dirty_pages(&world), 1, "the first page became dirty without leave");
        } else {
            evictor.join().expect("the evictor ends");
        }
        world.end_of_the_world();
    });
}

/// The request for two pages is failed by its first, perhaps before its opener has claimed the second.
/// Then its entry becomes a permit for two others, which stays granted while somebody is pinned.
#[test]
fn a_page_does_not_name_a_request_that_ended_before_its_claim() {
    explore_trapping("a claim after the request's end", Depth::Bounded, 4, |world: World| {
        for page in 0..4 {
            world.supply(page, 1).expect("attached");
        }
        let failer = world.spawn(|world| world.fail(0, Status::Io));
        let mut writer = Waiting::dirty_run(world.vmo.clone(), 0, 2);
        let _: Option<_> = writer.poll();
        failer.join().expect("the failer ends").expect("a page of the VMO");
        let _: usize = writer.leave();
        // The queue keeps its last entry until another comes.
        let mut other = world.write(0, 1);
        assert_eq!(other.poll(), None);
        assert_eq!(world.take_all().len(), 1);
        let guard = world.platform.pin();
        assert_eq!(world.dirty(2, 2), Ok(()));
        assert_eq!(dirty_pages(&world), 2);
        let mut late = world.write(1, 3);
        assert_eq!(late.poll(), None, "nobody has allowed it");
        assert_eq!(dirty_pages(&world), 2);
        drop((guard, late, other));
        world.end_of_the_world();
    });
}

/// Leave for two pages of one request, given by two: whoever comes last tells the writer, and one of them must know that
/// he is.
#[test]
fn dirty_of_one_page_against_dirty_of_the_next() {
    explore_trapping("dirty of one page against dirty of the next", Depth::Bounded, 2, |world: World| {
        clean_pages(&world, 2);
        let mut writer = Waiting::dirty_run(world.vmo.clone(), 0, 2);
        assert_eq!(writer.poll(), None);
        let other = world.spawn(|world| world.dirty(1, 1));
        assert_eq!(world.dirty(0, 1), Ok(()));
        assert_eq!(other.join().expect("the other ends"), Ok(()));
        assert_eq!(writer.settle(), Some(Ok(0)), "both have been let");
        assert_eq!((dirty_pages(&world), world.vmo.counts().in_flight), (2, 0));
        drop(writer);
        world.end_of_the_world();
    });
}

/// The request that is about the page ends, and its entry is that of another page's, before the failure looks at it.
#[test]
fn fail_of_a_page_against_the_next_life_of_its_request() {
    explore_trapping("fail against a request's next life", Depth::Bounded, 4, |world: World| {
        clean_pages(&world, 3);
        let (mut first, mut other) = (world.write(0, 2), world.write(2, 2));
        assert_eq!((first.poll(), other.poll()), (None, None));
        assert_eq!(world.take_all().len(), 2); // the queue keeps the entry of the second
        let writer = world.spawn(move |world| {
            let _: usize = first.leave();
            settled(world.write(1, 3))
        });
        world.fail(0, Status::Io).expect("a page of the VMO");
        let write = writer.join().expect("the writer ends");
        assert_eq!(write.now(), None, "nobody has failed his page");
        assert_eq!(world.dirty(1, 1), Ok(()));
        let write = write.again();
        assert_eq!(write.now(), Some(Ok(3)));
        drop((write, other));
        world.end_of_the_world();
    });
}

/// The page has named a request that the end of the pager failed. Then its entry is another's for a moment, who finds
/// that he cannot ask: whoever still took the page for asked would wait for him.
#[test]
fn a_write_after_the_end_of_the_pager_against_another() {
    explore_trapping("two writes after the end of the pager", Depth::Bounded, 4, |world: World| {
        clean_pages(&world, 3);
        let (mut first, mut other) = (world.write(0, 2), world.write(1, 2));
        assert_eq!((first.poll(), other.poll()), (None, None));
        assert_eq!(world.take_all().len(), 1, "of two pages"); // the queue keeps the entry of the second
        let World { platform, pager, port, vmo } = world;
        drop(pager);
        assert_eq!((first.settle(), other.settle()), (Some(Err(Status::BadState)), Some(Err(Status::BadState))));
        drop((first, other));
        let asks = Waiting::write(vmo.clone(), 2, 3);
        let spawned = thread::spawn(move || {
            let write = settled(asks);
            leave();
            write
        });
        let write = settled(Waiting::write(vmo.clone(), 0, 3));
        let asked = spawned.join().expect("the other writer ends").again();
        let write = write.again();
        assert_eq!((write.now(), asked.now()), (Some(Err(Status::BadState)), Some(Err(Status::BadState))));
        drop((write, asked, vmo, port));
        platform.check_nothing_left();
    });
}

/// A write has failed after the detach: the page is not made dirty by a leave that began before, though a writer who began
/// before put it under his request meanwhile.
#[test]
fn dirty_of_a_page_that_awaits_clean_against_detach_then_a_write_and_a_writer() {
    let name = "dirty of a page that awaits clean against detach, then write, and a writer";
    explore_trapping(name, Depth::Bounded, 1, |world: World| {
        world.supply(0, 1).expect("attached");
        assert_eq!(world.dirty(0, 1), Ok(()));
        world.begin(0).expect("a page of the VMO");
        let detacher = world.spawn(|world| {
            world.pager.detach_vmo(&world.vmo).expect("the pager's own VMO");
            settled(world.write(0, 3))
        });
        let writer = world.spawn(|world| settled(world.write(0, 4)));
        let result = world.dirty(0, 1);
        let write = detacher.join().expect("the detacher ends");
        let other = writer.join().expect("the writer ends");
        match (result, write.now()) {
            (Ok(()), Some(Ok(3))) | (Err(Status::BadState), Some(Err(Status::BadState))) => {}
            other => panic!("{other:?}"),
        }
        drop((write, other));
        world.end_of_the_world();
    });
}

/// Writes to the first page if the second, a clean one, is gone: then it is after the mark of the detach.
fn write_after_the_mark(world: &World) -> Option<Result<u8, Status>> {
    if world.look_up_unpinned(1).is_some() {
        return None;
    }
    let mut write = world.write(0, 3);
    write.poll().or_else(|| write.poll()) // woken or not
}

/// As [`write_after_the_mark`]; if it fails, the writeback of the page ends.
fn write_after_the_mark_and_end(world: &World) -> Option<Result<u8, Status>> {
    let write = write_after_the_mark(world);
    if write == Some(Err(Status::BadState)) {
        world.end(0).expect("a page of the VMO");
    }
    write
}

/// If the leave was given, the write has not failed; if it was refused, so was the write.
fn assert_leave_comes_before_a_failure(leave: Result<(), Status>, write: Option<Result<u8, Status>>) {
    match (leave, write) {
        (Ok(()), None | Some(Ok(3))) | (Err(Status::BadState), None | Some(Err(Status::BadState))) => {}
        other => panic!("{other:?}"),
    }
}

/// The same with a detach that stops between its mark and its walk, and the end of the writeback after the write that
/// failed: for a moment the page is clean, and a writer who began before the mark puts it under his request, which the walk
/// has not met. The leave, which began before too, must not be given on that.
fn against_a_stopped_detach_write_and_end(name: &'static str, pages: u64, writes_early: bool) {
    explore_trapping(name, Depth::Bounded, 2, move |world: World| {
        clean_pages(&world, 2);
        assert_eq!(world.dirty(0, 1), Ok(()));
        world.begin(0).expect("a page of the VMO");
        let detacher = world.spawn_stopping_detach();
        let early = writes_early.then(|| world.spawn(|world| settled(world.write(0, 4))));
        let write = world.spawn(|world| write_after_the_mark_and_end(&world));
        let result = world.dirty(0, pages);
        let write = write.join().expect("the writer ends");
        let early = early.map(|early| early.join().expect("the early writer ends"));
        detacher.go_on().expect("the detacher ends").expect("the pager's own VMO");
        assert_leave_comes_before_a_failure(result, write);
        if let Some(early) = early.map(Settled::again) {
            assert!(early.now().is_some(), "the early writer is home");
        }
        world.end_of_the_world();
    });
}

#[test]
fn dirty_of_a_page_that_awaits_clean_against_a_stopped_detach_write_and_end_and_a_writer() {
    let name = "dirty of a page that awaits clean against a stopped detach, write and END, and a writer";
    against_a_stopped_detach_write_and_end(name, 1, true);
}

/// A permit is put on the page while it is clean.
#[test]
fn dirty_of_two_pages_against_a_stopped_detach_write_and_end() {
    against_a_stopped_detach_write_and_end("dirty of two pages against a stopped detach, write and END", 2, false);
}

/// The detach stops before its change number `step`.
fn detach_stops_before(step: usize, has_stopped: Arc<AtomicBool>) {
    let name = "dirty of a page that awaits clean under a request against a stopped detach and a write";
    explore_trapping(name, Depth::Bounded, 2, move |world: World| {
        clean_pages(&world, 2);
        assert_eq!(world.dirty(0, 1), Ok(()));
        world.begin(0).expect("a page of the VMO");
        let mut early = world.write(0, 4);
        assert_eq!(early.poll(), None);
        let detacher = world.spawn_stopping(step, &has_stopped, |world| world.pager.detach_vmo(&world.vmo).map(drop));
        let writer = world.spawn(|world| write_after_the_mark(&world));
        let result = world.dirty(0, 1);
        let write = writer.join().expect("the writer ends");
        detacher.go_on().expect("the detacher ends").expect("the pager's own VMO");
        assert_leave_comes_before_a_failure(result, write);
        assert!(early.settle().is_some(), "the early writer is home");
        drop(early);
        world.end_of_the_world();
    });
}

/// A write that begins after the mark of a detach does not join the request that the detach is about to fail: it would be
/// told so while the page is still under it, and the leave, which began before the mark, could be given after that.
#[test]
fn dirty_of_a_page_that_awaits_clean_under_a_request_against_a_stopped_detach_and_a_write() {
    at_every_step(5, detach_stops_before);
}

/// The leave has seen the page under a request, before the mark. A write that fails after the mark ends that request, the
/// writeback ends, and a writer who began before the mark puts the page, clean for a moment, under another, which the walk has
/// not met. The leave must not be given on that.
#[test]
fn dirty_of_an_asked_page_against_a_stopped_detach_write_and_end_and_a_writer() {
    let name = "dirty of an asked page against a stopped detach, write and END, and a writer";
    explore_trapping(name, Depth::Bounded, 2, |world: World| {
        clean_pages(&world, 2);
        assert_eq!(world.dirty(0, 1), Ok(()));
        world.begin(0).expect("a page of the VMO");
        let early = world.spawn(|world| settled(world.write(0, 4)));
        thread::yield_now(); // so that he finds the page not asked for
        let asked = settled(world.write(0, 5));
        let detacher = world.spawn_stopping_detach();
        let write = world.spawn(|world| write_after_the_mark_and_end(&world));
        let result = world.dirty(0, 1);
        let write = write.join().expect("the writer ends");
        let early = early.join().expect("the early writer ends");
        detacher.go_on().expect("the detacher ends").expect("the pager's own VMO");
        assert_leave_comes_before_a_failure(result, write);
        for writer in [asked, early].map(Settled::again) {
            assert!(writer.now().is_some(), "the early writers are home");
        }
        world.end_of_the_world();
    });
}
