//! A detach, or the end of the pager, against a fault that stops on its way, and somebody who comes later.
//!
//! Threads: one faults, and stops for ever before one of its steps; one detaches, or closes the pager; after that a third
//! reads the page.
//!
//! Danger: the walk of the other does not meet the request, nor its opener see the mark, and lets the page refer to it.
//! He would find out when he appends it; but he does not get there, and whoever joins the request waits for him.
//!
//! Must hold: who reads after the detach is told at once, wherever the other has stopped. When that one goes on, so is
//! he.
#![cfg(loom)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use loom::thread;
use upager::sync::stopped::{Steps, over, resume, stop_before};
use upager::{Result, Status};
use upager_verify::race::{Depth, explore, leave, settled};
use upager_verify::world::{Waiting, World};

/// How the pager goes away.
type Parting = fn(World) -> Result<()>;

/// False: the fault never has so many steps.
fn stops_before(step: usize, name: &'static str, parting: Parting) -> bool {
    let has_stopped = Arc::new(AtomicBool::new(false));
    let stops = has_stopped.clone();
    explore(name, Depth::Bounded, move |world: World| {
        let (stops, late) = (stops.clone(), Arc::new(AtomicBool::new(false)));
        let (is_late, vmo, port) = (late.clone(), world.vmo.clone(), world.port.clone());
        let platform = world.platform.clone();
        let faulted = vmo.clone();
        let fault = thread::spawn(move || {
            if !is_late.load(Ordering::Relaxed) {
                stop_before(step, Steps::Changes);
            }
            let read = settled(Waiting::read(faulted, 0));
            stops.fetch_or(over(), Ordering::Relaxed);
            leave();
            read
        });
        let parts = thread::spawn(move || {
            let parted = parting(world);
            leave();
            parted
        });
        parts.join().expect("the pager goes").expect("the pager's own VMO");
        assert_eq!(Waiting::read(vmo.clone(), 0).poll(), Some(Err(Status::BadState)), "told at once");
        late.store(true, Ordering::Relaxed);
        resume();
        let read = fault.join().expect("the fault ends").again();
        assert_eq!(read.now(), Some(Err(Status::BadState)));
        drop((read, vmo, port));
        platform.check_nothing_left();
    });
    has_stopped.load(Ordering::Relaxed)
}

fn at_every_step(name: &'static str, parting: Parting) {
    let steps = (0..100).take_while(|step| stops_before(*step, name, parting)).count();
    assert!(steps > 10, "it has {steps} steps");
}

#[test]
fn detach_against_a_stopped_fault() {
    at_every_step("detach against a stopped fault", |world| world.pager.detach_vmo(&world.vmo).map(drop));
}

#[test]
fn pager_close_against_a_stopped_fault() {
    at_every_step("pager close against a stopped fault", |world| {
        drop(world);
        Ok(())
    });
}
