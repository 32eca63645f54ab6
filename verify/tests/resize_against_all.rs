//! A change of size against a request, a hint, a supply, and another change.
//!
//! Threads: one sets the size; another faults on several pages, commits or supplies them, or sets the size
//! too.
//!
//! Danger: a request for a page that is gone is never answered; one that straddles the end waits for
//! pages that cannot come, or tells a commit that they have; a request in the entry of one that did is cut for it, and
//! the service is never asked for what was cut; a page that was supplied late shows up in what the VMO grows by.
//!
//! Must hold: the waiter comes home, and a commit of pages that are gone fails; what was added is zeros;
//! only one size is set at a time.
#![cfg(loom)]

use upager::{OwnedFrame, PAGE_SIZE, Status};
use upager_verify::race::{Depth, explore_resizable, explore_trapping_resizable, settled};
use upager_verify::world::{Waiting, World, page};

#[test]
fn shrink_against_a_fault_that_straddles_the_end() {
    explore_resizable("shrink against a straddling fault", Depth::Bounded, 2, |world: World| {
        let reader = world.spawn(|world| settled(Waiting::fault_run(world.vmo.clone(), 0, 2)));
        world.vmo.set_size(PAGE_SIZE).expect("nobody else resizes");
        let mut read = reader.join().expect("the reader ends");
        assert_eq!(read.now(), None, "the first page is not there yet");
        let pages: u64 = world.take_all().iter().map(|packet| packet.page_request.length / PAGE_SIZE).sum();
        assert_eq!(pages, 1, "nobody asks for the page that is gone");
        world.supply(0, 5).expect("attached");
        read = read.again();
        assert_eq!(read.now(), Some(Ok(0)), "the reader is home");
        assert_eq!(world.vmo.counts().in_flight, 0);
        drop(read);
        world.end_of_the_world();
    });
}

#[test]
fn shrink_against_a_commit_that_straddles_the_end() {
    explore_resizable("shrink against a straddling commit", Depth::Bounded, 2, |world: World| {
        let commit = world.spawn(|world| settled(Waiting::commit(world.vmo.clone(), 0, 2)));
        world.vmo.set_size(PAGE_SIZE).expect("nobody else resizes");
        let mut commit = commit.join().expect("the commit ends");
        if commit.now().is_none() {
            world.supply(0, 5).expect("attached");
            commit = commit.again();
        }
        assert_eq!(commit.now(), Some(Err(Status::OutOfRange)), "the second page has not come");
        assert_eq!(world.vmo.counts().in_flight, 0);
        drop(commit);
        world.end_of_the_world();
    });
}

/// A page that is supplied as the end comes before it, and is under a request for leave with another that stays: the
/// supplier takes his page back, and the request goes on.
#[test]
fn shrink_against_a_supply_of_a_page_whose_leave_is_asked() {
    explore_trapping_resizable("shrink against a supply, and leave asked", Depth::Bounded, 2, |world: World| {
        world.supply(0, 5).expect("attached");
        let writer = world.spawn(|world| {
            let write = settled(Waiting::dirty_run(world.vmo.clone(), 0, 2));
            world.vmo.set_size(PAGE_SIZE).expect("nobody else resizes");
            write
        });
        let _: Result<(), Status> = world.supply(1, 5);
        let write = writer.join().expect("the writer ends");
        assert_eq!(write.now(), None, "nobody has refused it");
        assert_eq!(world.dirty(0, 1), Ok(()));
        assert_eq!(write.again().now(), Some(Ok(0)));
        world.end_of_the_world();
    });
}

/// The request that the shrink has met ends, and its entry is that of another, before the shrink cuts it.
#[test]
fn shrink_against_the_next_life_of_a_request() {
    explore_resizable("shrink against a request's next life", Depth::Bounded, 4, |world: World| {
        let mut straddles = Waiting::fault_run(world.vmo.clone(), 1, 2);
        assert_eq!(straddles.poll(), None);
        let reader = world.spawn(move |world| {
            assert_eq!(straddles.leave(), 0, "nobody has answered");
            let mut further = world.read(0); // with it the queue lets go of the one before
            assert_eq!(further.poll(), None);
            let _: Vec<upager::Packet> = world.take();
            drop(further);
            settled(Waiting::fault_run(world.vmo.clone(), 0, 2))
        });
        world.vmo.set_size(2 * PAGE_SIZE).expect("nobody else resizes");
        let mut read = reader.join().expect("the reader ends");
        assert_eq!(read.now(), None, "nothing has come");
        for packet in world.take_all() {
            let asked = packet.page_request;
            for page in asked.offset / PAGE_SIZE..(asked.offset + asked.length) / PAGE_SIZE {
                world.supply(page, 5).expect("attached");
            }
        }
        read = read.again();
        assert_eq!(read.now(), Some(Ok(0)), "the service was asked for all that the reader waits for");
        drop(read);
        world.end_of_the_world();
    });
}

#[test]
fn shrink_and_grow_against_a_supply() {
    explore_resizable("shrink and grow against a supply", Depth::Whole, 2, |world: World| {
        let supplier = world.spawn(|world| world.supply(1, 5));
        world.vmo.set_size(PAGE_SIZE).expect("nobody else resizes");
        world.vmo.set_size(2 * PAGE_SIZE).expect("nobody else resizes");
        assert!(matches!(supplier.join().expect("the supplier ends"), Ok(()) | Err(Status::OutOfRange)));
        assert_eq!(world.read(1).poll(), Some(Ok(0)), "what the VMO grew by is zeros");
        assert_eq!(world.vmo.counts().zero.0, 1);
        world.end_of_the_world();
    });
}

/// The second of the threads, the one that makes the zeros, may have looked at the size before.
#[test]
fn shrink_against_zero() {
    explore_resizable("shrink against zero", Depth::Whole, 2, |world: World| {
        world.supply(0, 5).expect("attached");
        let shrink = world.spawn(|world| world.vmo.set_size(PAGE_SIZE));
        let zeroed = world.zero(1, 1);
        assert_eq!(shrink.join().expect("the shrink ends"), Ok(()));
        assert!(matches!(zeroed, Ok(()) | Err(Status::OutOfRange)));
        let counts = world.vmo.counts();
        assert_eq!((counts.resident.0, counts.dirty.0, counts.zero.0), (1, 0, 0), "nothing past the end is counted");
        world.vmo.set_size(2 * PAGE_SIZE).expect("nobody else resizes");
        assert_eq!(world.vmo.counts().zero.0, 1, "what the VMO grows by, once");
        world.end_of_the_world();
    });
}

/// A page that was written to goes with a shrink, and a supply that began before puts it past the end, beside an access that
/// began before too.
fn against_a_late_supply(name: &'static str, byte: u8, access: fn(&World) -> Waiting) {
    explore_resizable(name, Depth::Bounded, 2, move |world: World| {
        world.supply(1, 5).expect("attached");
        assert_eq!(world.write(1, 6).poll(), Some(Ok(6)));
        let accessor = world.spawn(move |world| settled(access(&world)));
        let late = std::iter::once_with(|| {
            world.vmo.set_size(PAGE_SIZE).expect("nobody else resizes");
            OwnedFrame::new(&*world.platform).expect("a frame")
        });
        world.pager.supply_frames(&world.vmo, page(1), late).expect("attached");
        let came = accessor.join().expect("the accessor ends").now();
        assert!(
            came == Some(Ok(byte)) || came == Some(Err(Status::OutOfRange)),
            "before the shrink or after: {came:?}"
        );
        world.turn_epoch();
        world.turn_epoch();
        assert_eq!(world.platform.frames(), 0, "a page past the end has a frame");
        world.end_of_the_world();
    });
}

#[test]
fn shrink_and_a_late_supply_against_a_read() {
    against_a_late_supply("shrink and a late supply against a read", 6, |world| world.read(1));
}

#[test]
fn shrink_and_a_late_supply_against_a_write() {
    against_a_late_supply("shrink and a late supply against a write", 7, |world| world.write(1, 7));
}

/// Who sees the size sees what the VMO has grown by.
#[test]
fn grow_against_figures() {
    explore_resizable("grow against figures", Depth::Whole, 2, |world: World| {
        let asker = world.spawn(|world| {
            if world.vmo.size() == 4 * PAGE_SIZE {
                assert_eq!(world.vmo.counts().zero.0, 2);
            }
        });
        world.vmo.set_size(4 * PAGE_SIZE).expect("nobody else resizes");
        asker.join().expect("who asks ends");
        world.end_of_the_world();
    });
}

#[test]
fn two_changes_exclude_each_other() {
    explore_resizable("resize against resize", Depth::Whole, 2, |world: World| {
        let other = world.spawn(|world| world.vmo.set_size(4 * PAGE_SIZE));
        let ours = world.vmo.set_size(0);
        let theirs = other.join().expect("the other ends");
        let pages = world.vmo.size() / PAGE_SIZE;
        match (ours, theirs) {
            (Ok(()), Ok(())) => assert!(pages == 0 || pages == 4),
            (Ok(()), Err(Status::ShouldWait)) => assert_eq!(pages, 0),
            (Err(Status::ShouldWait), Ok(())) => assert_eq!(pages, 4),
            other => panic!("{other:?}"),
        }
        let zeros = world.vmo.counts().zero.0;
        assert!(zeros == pages || (zeros == 2 && pages == 4), "{zeros} zeros of {pages} pages");
        world.end_of_the_world();
    });
}

/// What a growth adds begins where the VMO ends when it has kept others from resizing, not where it ended before.
#[test]
fn a_growth_begins_at_the_end_that_a_shrink_has_left() {
    explore_resizable("a growth begins at the end that a shrink has left", Depth::Bounded, 2, |world: World| {
        world.supply(1, 5).expect("attached");
        let shrinks = world.spawn(|world| world.vmo.set_size(PAGE_SIZE));
        let grown = world.vmo.set_size(3 * PAGE_SIZE);
        let shrunk = shrinks.join().expect("the other ends");
        if world.vmo.size() == 3 * PAGE_SIZE {
            let second = if shrunk.is_ok() { 0 } else { 5 };
            assert_eq!(world.read(1).poll(), Some(Ok(second)), "{shrunk:?}, {grown:?}");
            assert_eq!(world.read(2).poll(), Some(Ok(0)));
        }
        world.end_of_the_world();
    });
}
