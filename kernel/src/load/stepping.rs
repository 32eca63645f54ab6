//! An interrupt at each instruction of the pager, one after the other.
//!
//! The processor is told to trap after each instruction while it evicts. At the chosen one the handler does
//! the same to another VMO, by the traps' own epoch handle, as an interrupt might that struck there. Afterwards
//! each frame must have come back, once. With one handle for both it does not.

use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicBool, AtomicU64};

use upager::{ByteRange, Evict, OwnedFrame, PAGE_SIZE, PageCount, Platform};
use x86_64::registers::rflags::{self, RFlags};

use super::{View, World, world};
use crate::machine::boot;
use crate::machine::trap::Saved;

/// Pages that come and go.
const COUNT: usize = 2;
/// From one instruction that is tried to the next, if nothing else is asked for. The first depends on the seed.
const STRIDE: u64 = 97;

/// How often the grace period is pushed along; it takes three times at least.
const PUSHES: usize = 16;

/// Instructions until the chosen one.
static LEFT: AtomicU64 = AtomicU64::new(0);
/// Whether it has come.
static STRUCK: AtomicBool = AtomicBool::new(false);

/// Tries the instructions, before anything else runs. The frames that are lost, or came back twice, are in
/// the tally.
pub(crate) fn run(world: &'static World, seed: u64) {
    let stride = boot::option("stride").unwrap_or(STRIDE);
    for instruction in (1 + seed % stride..).step_by(stride as usize) {
        STRUCK.store(false, Relaxed); // Relaxed, all: this processor only
        LEFT.store(instruction, Relaxed);
        supply(&world.views[0]);
        step(true);
        evict(&world.views[0]);
        step(false);
        for _ in 0..PUSHES {
            world.board.pin().flush();
        }
        world.tally.stepped_interrupts.add(1);
        if world.board.frames.used() != 0 {
            world.tally.frames_lost_by_interrupts.add(1);
            return; // what comes after would tell nothing more
        }
        if !STRUCK.load(Relaxed) {
            return;
        }
    }
}

/// Has the processor trap after each instruction, or not any more.
fn step(on: bool) {
    let mut flags = rflags::read();
    flags.set(RFlags::TRAP_FLAG, on);
    // SAFETY: the traps are handled, and change nothing of what they strike.
    unsafe { rflags::write(flags) };
}

/// Called by the trap handler after each instruction.
pub(crate) fn on_step(saved: &mut Saved) {
    let left = LEFT.load(Relaxed).saturating_sub(1);
    LEFT.store(left, Relaxed);
    // Where interrupts are off none strikes: it waits.
    if left > 0 || !saved.could_be_interrupted() {
        return;
    }
    saved.stop_stepping();
    STRUCK.store(true, Relaxed);
    if let Some(world) = world() {
        supply(&world.views[1]);
        evict(&world.views[1]);
    }
}

fn supply(view: &View) {
    let world = view.world();
    let frames: [_; COUNT] =
        core::array::from_fn(|_| OwnedFrame::new(&*world.board).expect("nothing else uses frames"));
    let range = ByteRange::new(0, COUNT as u64 * PAGE_SIZE);
    let supplied = world.pager.supply_frames(&view.vmo, range, frames);
    world.tally.unexpected_errors.add(supplied.is_err().into());
}

fn evict(view: &View) {
    let evicted = view.vmo.evict(PageCount(COUNT as u64), Evict::Any);
    view.world().tally.unexpected_errors.add((evicted != PageCount(COUNT as u64)).into());
    view.world().board.pin().flush();
}
