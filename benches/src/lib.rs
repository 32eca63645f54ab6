//! What the benchmarks share: how a path is measured, a platform without memory, a VMO in a steady
//! state, and what a user would otherwise pick.
//!
//! The measurements are in `benches/`, a file a path. [`paths`](../paths/index.html) runs single paths, for counting
//! instructions; `report` makes docs/PERFORMANCE.md from the records of a run. `ci/bench` does all of
//! it.

pub mod instructions;
mod maps;
mod measure;
mod numbers;
mod pages;
mod stack;
mod threads;
mod wakes;
mod world;

pub use maps::{Maps, Visit, visit_maps};
pub use measure::{Path, config, record_folder, record_single, timed};
pub use numbers::Numbers;
pub use pages::{Flat, OwnPin, Pages, Pinned};
pub use stack::{Locked, Misses, Sleeper, Stack};
pub use threads::{Processor, in_step};
pub use wakes::Wakes;
pub use world::World;

/// All pages below `pages`, in an order that is random and always the same.
#[must_use]
pub fn shuffled(pages: u32) -> Vec<u32> {
    let mut order: Vec<u32> = (0..pages).collect();
    fastrand::Rng::with_seed(1).shuffle(&mut order);
    order
}

/// For each page another one, so that all of them form one circle in a random order.
#[must_use]
pub fn circle(pages: u32) -> Vec<u64> {
    let order = shuffled(pages);
    let mut next = vec![0; order.len()];
    for (nth, page) in order.iter().enumerate() {
        next[*page as usize] = order[(nth + 1) % order.len()].into();
    }
    next
}
