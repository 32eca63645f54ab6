//! What was done before a detach, or the end of the pager, for who knows of it by what he is told of a page.
//!
//! Threads: one brings a page, or makes it dirty, and then detaches or closes the pager; another finds that a page is gone or
//! cannot be asked for, and looks at the first. Or a third one brings the page, and who detaches or closes has only seen it.
//!
//! Danger: the mark orders nothing, and the other does not see what came before it. What brings a page ends with a fence, which
//! would do instead of the mark's order, and so would a guard's beginning with the real epoch; who has only looked, under a guard
//! that lasts, has neither.
//!
//! Must hold: he sees it.
#![cfg(loom)]

use loom::thread;
use upager::{PageIndex, Platform, Status};
use upager_verify::race::{Depth, explore_pages, leave, settled};
use upager_verify::world::{Waiting, World};

#[test]
fn a_dirty_page_before_a_detach() {
    explore_pages("a dirty page before a detach", Depth::Whole, 2, |world: World| {
        world.supply(1, 1).expect("attached");
        let detacher = world.spawn(|world| {
            world.supply(0, 5).expect("attached");
            assert_eq!(world.write(0, 3).poll(), Some(Ok(3)));
            assert_eq!(world.write(0, 4).poll(), Some(Ok(4)));
            world.pager.detach_vmo(&world.vmo).map(drop)
        });
        if world.look_up_unpinned(1).is_none() {
            assert_eq!(world.read(0).poll(), Some(Ok(4)), "written before the detach");
        }
        detacher.join().expect("the detacher ends").expect("the pager's own VMO");
        world.end_of_the_world();
    });
}

#[test]
fn a_page_before_the_end_of_the_pager() {
    explore_pages("a page before the end of the pager", Depth::Bounded, 2, |world: World| {
        let (platform, vmo, port) = (world.platform.clone(), world.vmo.clone(), world.port.clone());
        let reader = thread::spawn({
            let vmo = vmo.clone();
            move || {
                let absent = settled(Waiting::read(vmo.clone(), 0));
                if absent.now() == Some(Err(Status::BadState)) {
                    assert_eq!(Waiting::read(vmo, 1).poll(), Some(Ok(5)), "it is there since before the end");
                }
                leave();
                absent
            }
        });
        world.supply(1, 5).expect("attached");
        drop(world);
        let absent = reader.join().expect("the reader ends").again();
        assert_eq!(absent.now(), Some(Err(Status::BadState)));
        drop((absent, vmo, port));
        platform.check_nothing_left();
    });
}

#[test]
fn what_the_detacher_has_seen() {
    explore_pages("what the detacher has seen", Depth::Bounded, 3, |world: World| {
        world.supply(0, 5).expect("attached");
        world.supply(2, 1).expect("attached");
        let detacher = world.spawn(|world| {
            let guard = world.platform.pin();
            if world.vmo.lookup(&guard, PageIndex(1)).is_some() {
                world.pager.detach_vmo(&world.vmo).expect("the pager's own VMO");
            }
        });
        let reader = world.spawn(|world| {
            let guard = world.platform.pin();
            if world.vmo.lookup(&guard, PageIndex(2)).is_none() {
                assert!(world.vmo.lookup(&guard, PageIndex(0)).is_some(), "dirty before the detacher looked");
            }
        });
        assert_eq!(world.write(0, 3).poll(), Some(Ok(3)));
        let supplied = world.supply(1, 7);
        detacher.join().expect("the detacher ends");
        reader.join().expect("the reader ends");
        assert_eq!(supplied, Ok(()), "nobody detaches before");
        world.end_of_the_world();
    });
}

#[test]
fn what_the_closer_has_seen() {
    explore_pages("what the closer has seen", Depth::Bounded, 2, |world: World| {
        let (platform, vmo, port) = (world.platform.clone(), world.vmo.clone(), world.port.clone());
        let reader = thread::spawn({
            let (platform, vmo) = (platform.clone(), vmo.clone());
            move || {
                let guard = platform.pin();
                let absent = settled(Waiting::read(vmo.clone(), 1));
                if absent.now() == Some(Err(Status::BadState)) {
                    assert!(vmo.lookup(&guard, PageIndex(0)).is_some(), "there before the pager's last owner let go");
                }
                drop(guard);
                leave();
                absent
            }
        });
        let closer = world.spawn(|world| {
            let guard = world.platform.pin();
            drop(world);
            drop(guard);
        });
        world.supply(0, 5).expect("attached");
        drop(world);
        closer.join().expect("the closer ends");
        let absent = reader.join().expect("the reader ends").again();
        assert_eq!(absent.now(), Some(Err(Status::BadState)));
        drop((absent, vmo, port));
        platform.check_nothing_left();
    });
}
