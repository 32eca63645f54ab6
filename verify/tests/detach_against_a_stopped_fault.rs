//! A detach, or the end of the pager, against a fault that stops on its way, and somebody who comes later.
//!
//! Threads: one faults, and stops for ever before one of its steps; one detaches, or closes the pager; after that a third
//! reads the page.
//!
//! Danger: the walk of the other does not meet the request, nor its opener see the mark, and lets the page refer to it.
//! He would find out when he appends it; but he does not get there, and whoever joins the request waits for him.
//!
//! Must hold: who reads after the detach is told at once, wherever the other has stopped. When that one goes on, so is
//! he. So it is too where the pool of requests has no entry for the one who stops, and he makes its second segment.
#![cfg(loom)]

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use loom::thread;
use upager::Status;
use upager_verify::race::{Depth, at_every_step, explore_pages, leave, settled, spawn_stopping};
use upager_verify::world::{FULL, Waiting, World};

/// How the pager goes away.
type Parting = fn(World);

/// `others`: so many have faulted already, on other pages. The fault stops before its change number `step`.
fn stops_before(step: usize, has_stopped: Arc<AtomicBool>, name: &'static str, others: u64, parting: Parting) {
    explore_pages(name, Depth::Bounded, others + 1, move |world: World| {
        let mut waiting = world.reads_that_wait(others);
        let (platform, vmo, port) = (world.platform.clone(), world.vmo.clone(), world.port.clone());
        let faulted = vmo.clone();
        let fault = spawn_stopping(step, &has_stopped, move || settled(Waiting::read(faulted, others)));
        let parts = thread::spawn(move || {
            parting(world);
            leave();
        });
        parts.join().expect("the pager goes");
        assert_eq!(Waiting::read(vmo.clone(), others).poll(), Some(Err(Status::BadState)), "told at once");
        let read = fault.go_on().expect("the fault ends");
        assert_eq!(read.now(), Some(Err(Status::BadState)));
        for read in &mut waiting {
            assert_eq!(read.settle(), Some(Err(Status::BadState)));
        }
        drop((read, waiting, vmo, port));
        platform.check_nothing_left();
    });
}

fn stops(name: &'static str, others: u64, parting: Parting) {
    at_every_step(10, |step, has_stopped| stops_before(step, has_stopped, name, others, parting));
}

#[test]
fn detach_against_a_stopped_fault() {
    stops("detach against a stopped fault", 0, |world| {
        world.pager.detach_vmo(&world.vmo).expect("the pager's own VMO");
    });
}

#[test]
fn pager_close_against_a_stopped_fault() {
    stops("pager close against a stopped fault", 0, drop);
}

/// The walk finds no segment, and no fence comes before it.
#[test]
fn pager_close_against_a_stopped_fault_that_makes_a_segment() {
    stops("pager close against a stopped fault that makes a segment", FULL, drop);
}
