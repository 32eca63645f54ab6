//! Eviction against a fault: the rescue.
//!
//! Threads: one evicts a clean page and lets the epoch move on, one reads it.
//!
//! Danger: the reader copies from a frame that is freed under it; or a page that was rescued and
//! evicted again is freed by the first eviction's reclaim, inside the second's grace period, or before it is
//! unmapped; or a page that is rescued as a detach passes it by keeps its frame, though nobody can use it.
//!
//! Must hold: the reader gets the byte, or waits for the service because the page had gone. After a detach no
//! frame of a clean page is left.
#![cfg(loom)]

use upager::{PageIndex, Platform, Status};
use upager_verify::race::{Depth, explore, explore_trapping, leave, settled};
use upager_verify::world::{Waiting, World};

#[test]
fn evict_against_fault() {
    explore("evict against fault", Depth::Whole, |world: World| {
        world.supply(0, 5).expect("attached");
        let reader = world.spawn(|world| settled(world.read(0)));
        world.evict();
        world.turn_epoch();
        let read = reader.join().expect("the reader ends");
        assert!(matches!(read.now(), None | Some(Ok(5))), "{:?}", read.now());
        drop(read);
        world.end_of_the_world();
    });
}

/// A lookup that pins by itself: its guard is there before it looks, and lasts as long as its frame is used.
#[test]
fn evict_against_a_lookup_with_its_own_pin() {
    explore("evict against a lookup with its own pin", Depth::Whole, |world: World| {
        world.supply(0, 5).expect("attached");
        let reader = world.spawn(|world| {
            let (guard, frame) = world.vmo.pin_lookup(PageIndex(0))?;
            let byte = world.copy_out(frame);
            drop(guard);
            Some(Ok(byte))
        });
        world.evict();
        world.turn_epoch();
        let read = reader.join().expect("the reader ends");
        assert!(matches!(read, None | Some(Ok(5))), "{read:?}");
        world.end_of_the_world();
    });
}

/// The page was evicted and rescued before, and the first eviction's reclaim is still to come.
#[test]
fn evict_again_after_a_rescue_against_fault() {
    explore("evict again after a rescue, against fault", Depth::Whole, |world: World| {
        world.supply(0, 5).expect("attached");
        let guard = world.platform.pin();
        assert_eq!(world.evict(), 1);
        assert_eq!(world.read(0).poll(), Some(Ok(5)));
        let reader = world.spawn(|world| settled(world.read(0)));
        world.evict();
        drop(guard); // here the first eviction's grace period ends
        world.turn_epoch();
        let read = reader.join().expect("the reader ends");
        assert!(matches!(read.now(), None | Some(Ok(5))), "{:?}", read.now());
        drop(read);
        world.end_of_the_world();
    });
}

/// The same, of a page that somebody has mapped meanwhile: it is unmapped before its frame is freed.
#[test]
fn evict_again_after_a_rescue_while_mapped() {
    explore("evict again after a rescue, while mapped", Depth::Whole, |world: World| {
        world.supply(0, 5).expect("attached");
        let guard = world.platform.pin();
        let frame = world.vmo.lookup(&guard, PageIndex(0)).expect("it is resident");
        assert_eq!(world.evict(), 1);
        assert_eq!(world.read(0).poll(), Some(Ok(5)));
        world.map();
        let evictor = world.spawn(|world| usize::from(world.evict() > 0));
        drop(guard); // here the first eviction's grace period ends
        world.turn_epoch();
        world.access_mapped(frame);
        evictor.join().expect("the evictor ends");
        world.end_of_the_world();
    });
}

/// The same, of a page that a writer has asked leave for.
#[test]
fn evict_what_is_asked_for_after_a_rescue_while_mapped() {
    explore_trapping("evict what is asked for, after a rescue, while mapped", Depth::Bounded, 1, |world: World| {
        world.supply(0, 5).expect("attached");
        let guard = world.platform.pin();
        let frame = world.vmo.lookup(&guard, PageIndex(0)).expect("it is resident");
        assert_eq!(world.evict(), 1);
        let mut write = world.write(0, 7);
        assert_eq!(write.poll(), None);
        world.map();
        let evictor = world.spawn(|world| usize::from(world.evict() > 0));
        drop(guard); // here the first eviction's grace period ends
        world.turn_epoch();
        world.access_mapped(frame);
        assert_eq!(evictor.join().expect("the evictor ends"), 1);
        drop(write);
        world.end_of_the_world();
    });
}

/// The same, of a dirty page that goes with its VMO.
#[test]
fn drop_after_a_rescue_while_mapped() {
    explore("drop after a rescue, while mapped", Depth::Whole, |world: World| {
        world.supply(0, 5).expect("attached");
        let guard = world.platform.pin();
        let frame = world.vmo.lookup(&guard, PageIndex(0)).expect("it is resident");
        assert_eq!(world.evict(), 1);
        assert_eq!(world.write(0, 7).poll(), Some(Ok(7)));
        world.map();
        let World { platform, pager, port, vmo } = world;
        let dropper = loom::thread::spawn(move || {
            drop(vmo);
            leave();
        });
        drop(guard); // here the first eviction's grace period ends
        platform.turn_epoch();
        platform.access_mapped(frame);
        dropper.join().expect("the dropper ends");
        drop((pager, port));
        platform.check_nothing_left();
    });
}

/// The page was evicted, and while the reclaim is on its way it gets another frame, is cleaned and evicted by
/// a thread that is not pinned. The reclaim of the first eviction sees to the second one's too, and frees a
/// frame of which only the page's word has told it.
#[test]
fn reclaim_against_other_content() {
    explore("reclaim against other content", Depth::Whole, |world: World| {
        world.supply(0, 5).expect("attached");
        let guard = world.platform.pin();
        assert_eq!(world.evict(), 1);
        let other = world.spawn(|world| {
            world.zero(0, 1).expect("memory");
            assert_eq!(world.mapped_write(0).poll(), Some(Ok(0)));
            world.begin(0).expect("a page of the VMO");
            world.end(0).expect("a page of the VMO");
            world.evict();
        });
        drop(guard); // here the first eviction's grace period ends
        world.turn_epoch();
        other.join().expect("the other ends");
        world.end_of_the_world();
    });
}

/// A page that was being evicted when a detach came, and an access that may rescue it. Afterwards nobody can use
/// it, and its frame goes with the grace period.
fn leaves_no_frame(world: World, access: impl Fn(&World) -> Waiting + Send + 'static) {
    world.supply(0, 5).expect("attached");
    let guard = world.platform.pin();
    assert_eq!(world.evict(), 1);
    let accessor = world.spawn(move |world| settled(access(&world)));
    world.pager.detach_vmo(&world.vmo).expect("the pager's own VMO");
    let access = accessor.join().expect("the accessor ends");
    assert!(matches!(access.now(), Some(Ok(5) | Err(Status::BadState))), "{:?}", access.now());
    drop(access);
    drop(guard);
    world.turn_epoch();
    world.turn_epoch(); // a page that was rescued, and evicted again, is reclaimed again
    assert_eq!(world.platform.frames(), 0, "a page that nobody can use has a frame");
    world.end_of_the_world();
}

#[test]
fn a_read_that_rescues_against_detach() {
    explore("a read that rescues against detach", Depth::Whole, |world| leaves_no_frame(world, |world| world.read(0)));
}

#[test]
fn a_write_that_rescues_and_asks_against_detach() {
    explore_trapping("a write that rescues and asks against detach", Depth::Bounded, 1, |world| {
        leaves_no_frame(world, |world| world.write(0, 7));
    });
}

/// Leave to dirty the page rescues it too.
#[test]
fn leave_that_rescues_against_detach() {
    explore_trapping("leave that rescues against detach", Depth::Bounded, 2, |world: World| {
        world.supply(0, 5).expect("attached");
        world.supply(1, 5).expect("attached");
        let guard = world.platform.pin();
        world.evict();
        let pager = world.spawn(|world| world.dirty(0, 2));
        world.pager.detach_vmo(&world.vmo).expect("the pager's own VMO");
        let dirtied = pager.join().expect("the service ends");
        drop(guard);
        world.turn_epoch();
        world.turn_epoch();
        let left = if dirtied.is_ok() { 2 } else { 0 };
        assert_eq!(world.platform.frames(), left, "{dirtied:?}");
        world.end_of_the_world();
    });
}

/// The twin that must fail: a reader that does not stay pinned while it copies. If the model did
/// not free frames in time, it would not notice, and the tests above would prove nothing. Loom comes first
/// to a copy that is made before the free, but not ordered before it.
///
/// Modelled only: with the real epoch it is not found within bound 2. That the real one frees in time
/// when nobody is pinned, the next test shows in one thread.
#[test]
#[cfg_attr(crossbeam_loom, ignore = "not found within bound 2")]
#[should_panic(expected = "Causality violation: Concurrent read and write")]
fn evict_against_a_reader_that_is_not_pinned() {
    explore("evict against a reader that is not pinned (must fail)", Depth::Whole, |world: World| {
        world.supply(0, 5).expect("attached");
        let reader = world.spawn(|world| world.read_unpinned(0));
        world.evict();
        world.turn_epoch();
        reader.join().expect("the reader ends");
        world.end_of_the_world();
    });
}

/// What the twin needs: when nobody is pinned, a few turns free the frame, with either epoch.
#[test]
fn an_evicted_frame_is_freed_in_time() {
    explore("an evicted frame is freed in time", Depth::Whole, |world: World| {
        world.supply(0, 5).expect("attached");
        let frame = world.look_up_unpinned(0).expect("it is resident");
        world.evict();
        assert!(!cfg!(crossbeam_loom) || world.platform.is_allocated(frame));
        world.turn_epoch();
        assert!(!world.platform.is_allocated(frame));
        world.end_of_the_world();
    });
}
