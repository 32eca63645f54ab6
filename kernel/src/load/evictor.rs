//! The evictor: keeps frames free. Before it evicts, it tells the pager which pages the accessed bits show
//! to be in use, since whoever has a page mapped comes back to it without a fault.

use core::task::{Context, Waker};

use core::future::Future;
use core::pin::pin;

use upager::{Access, Evict, PageCount, Platform};

use super::{WISH, World, ring};
use crate::machine::task;

const PATIENCE: u64 = 5;
const PUSHES: usize = 16;

pub(crate) fn run(world: &'static World) {
    while !world.helpers_stop.is_up() {
        let used = world.board.frames.used();
        if used <= WISH {
            task::sleep(PATIENCE);
            continue;
        }
        tell_accessed(world);
        if evict(world, used - (WISH - WISH / 16)) == 0 {
            ring(&world.writeback); // what is left is dirty, or on its way
            task::sleep(1);
        }
        free(world, WISH);
    }
}

fn tell_accessed(world: &'static World) {
    for view in &world.views {
        view.window().take_accessed(|page| {
            // A fault on a page that is resident marks it as used. On one that has just gone it would ask for
            // it; dropping it takes that back.
            let _ = pin!(view.vmo.fault(page, Access::Read)).poll(&mut Context::from_waker(Waker::noop()));
            world.tally.found_accessed.add(1);
        });
    }
}

fn evict(world: &World, pages: u64) -> u64 {
    let mut evicted = world.pager.evict(PageCount(pages), Evict::Unused);
    if evicted == PageCount(0) {
        evicted = world.pager.evict(PageCount(pages), Evict::Any);
    }
    world.tally.evicted_by_task.add(evicted.0);
    evicted.0
}

/// Evicts whatever is clean, so that the next access needs the pager.
pub(crate) fn evict_all(world: &World) {
    world.tally.evicted_by_task.add(world.pager.evict(PageCount(u64::MAX), Evict::Any).0);
}

/// Pushes the grace period along until at most `wish` frames are in use, for a while.
pub(crate) fn free(world: &World, wish: u64) {
    for _ in 0..PUSHES {
        if world.board.frames.used() <= wish {
            break;
        }
        world.board.pin().flush();
        task::yield_now();
    }
}
