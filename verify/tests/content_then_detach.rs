//! A page that gets content of its own, and then a detach or the end of the pager, against an access.
//!
//! Threads: one makes the page zeros, or lets it become dirty, and then detaches, or closes the pager; the other reads or
//! writes the page.
//!
//! Danger: the other saw nothing of that in the page, comes too late to ask, and does not see it when he looks again
//! either: he fails on a page that has content.
//!
//! Must hold: he reads the zeros, or writes.
#![cfg(loom)]

use loom::thread::{self, JoinHandle};
use upager_verify::race::{Depth, Settled, explore, explore_trapping, leave, settled};
use upager_verify::world::{Waiting, World};

/// Makes the access in a thread that does not keep the pager.
fn beside(access: Waiting) -> JoinHandle<Settled> {
    thread::spawn(move || {
        let access = settled(access);
        leave();
        access
    })
}

#[allow(clippy::needless_pass_by_value)] // as `close` has it
fn detach(world: World, access: JoinHandle<Settled>) -> Settled {
    world.pager.detach_vmo(&world.vmo).expect("the pager's own VMO");
    access.join().expect("the access ends").again()
}

fn close(world: World, access: JoinHandle<Settled>) -> Settled {
    let World { platform: _, pager, port, vmo } = world;
    drop(pager);
    let access = access.join().expect("the access ends").again();
    drop((vmo, port));
    access
}

fn zeros_against_read(name: &'static str, part: fn(World, JoinHandle<Settled>) -> Settled) {
    explore(name, Depth::Bounded, move |world: World| {
        let platform = world.platform.clone();
        let reader = beside(world.read(0));
        world.zero(0, 1).expect("a page of the VMO");
        let read = part(world, reader);
        assert_eq!(read.now(), Some(Ok(0)), "it was there before");
        drop(read);
        platform.check_nothing_left();
    });
}

fn leave_against_write(name: &'static str, part: fn(World, JoinHandle<Settled>) -> Settled) {
    explore_trapping(name, Depth::Bounded, 1, move |world: World| {
        let platform = world.platform.clone();
        world.supply(0, 5).expect("attached");
        let writer = beside(world.write(0, 3));
        world.dirty(0, 1).expect("a page that is there");
        let write = part(world, writer);
        assert_eq!(write.now(), Some(Ok(3)), "it was let before");
        drop(write);
        platform.check_nothing_left();
    });
}

#[test]
fn zero_then_detach_against_read() {
    zeros_against_read("zero, then detach, against read", detach);
}

#[test]
fn zero_then_pager_close_against_read() {
    zeros_against_read("zero, then pager close, against read", close);
}

#[test]
fn dirty_then_detach_against_write() {
    leave_against_write("dirty, then detach, against write", detach);
}

#[test]
fn dirty_then_pager_close_against_write() {
    leave_against_write("dirty, then pager close, against write", close);
}
