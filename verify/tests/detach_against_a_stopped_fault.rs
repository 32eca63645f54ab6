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
use std::sync::atomic::{AtomicBool, Ordering};

use loom::thread;
use upager::Status;
use upager::sync::stopped::{Steps, over, resume, stop_before};
use upager_verify::race::{Depth, explore_pages, leave, settled};
use upager_verify::world::{Waiting, World};

/// How the pager goes away.
type Parting = fn(World);

/// In the models a first segment has four entries, and one is the queue's.
const FULL: u64 = 3;

/// `others`: so many have faulted already, on other pages. False: the fault never has so many steps.
fn stops_before(step: usize, name: &'static str, others: u64, parting: Parting) -> bool {
    let has_stopped = Arc::new(AtomicBool::new(false));
    let stops = has_stopped.clone();
    explore_pages(name, Depth::Bounded, others + 1, move |world: World| {
        let mut waiting: Vec<Waiting> = (0..others).map(|page| world.read(page)).collect();
        assert!(waiting.iter_mut().all(|read| read.poll().is_none()));
        let (stops, late) = (stops.clone(), Arc::new(AtomicBool::new(false)));
        let (is_late, vmo, port) = (late.clone(), world.vmo.clone(), world.port.clone());
        let platform = world.platform.clone();
        let faulted = vmo.clone();
        let fault = thread::spawn(move || {
            if !is_late.load(Ordering::Relaxed) {
                stop_before(step, Steps::Changes);
            }
            let read = settled(Waiting::read(faulted, others));
            stops.fetch_or(over(), Ordering::Relaxed);
            leave();
            read
        });
        let parts = thread::spawn(move || {
            parting(world);
            leave();
        });
        parts.join().expect("the pager goes");
        assert_eq!(Waiting::read(vmo.clone(), others).poll(), Some(Err(Status::BadState)), "told at once");
        late.store(true, Ordering::Relaxed);
        resume();
        let read = fault.join().expect("the fault ends").again();
        assert_eq!(read.now(), Some(Err(Status::BadState)));
        for read in &mut waiting {
            assert_eq!(read.settle(), Some(Err(Status::BadState)));
        }
        drop((read, waiting, vmo, port));
        platform.check_nothing_left();
    });
    has_stopped.load(Ordering::Relaxed)
}

fn at_every_step(name: &'static str, others: u64, parting: Parting) {
    let steps = (0..100).take_while(|step| stops_before(*step, name, others, parting)).count();
    assert!(steps > 10, "it has {steps} steps");
}

#[test]
fn detach_against_a_stopped_fault() {
    at_every_step("detach against a stopped fault", 0, |world| {
        world.pager.detach_vmo(&world.vmo).expect("the pager's own VMO");
    });
}

#[test]
fn pager_close_against_a_stopped_fault() {
    at_every_step("pager close against a stopped fault", 0, drop);
}

/// The walk finds no segment, and no fence comes before it.
#[test]
fn pager_close_against_a_stopped_fault_that_makes_a_segment() {
    at_every_step("pager close against a stopped fault that makes a segment", FULL, drop);
}
