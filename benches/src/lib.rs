//! Fixtures that the benchmarks share: a platform without memory, a VMO in a steady state, and the
//! pager that a user would build from parts.
//!
//! The measurements are in `benches/`, a file a path; `ratios` compares what they found.

mod numbers;
mod stack;
mod wakes;
mod world;

pub use numbers::Numbers;
pub use stack::{Sleeper, Stack};
pub use wakes::Wakes;
pub use world::World;

/// All pages below `pages`, in an order that is random and always the same.
#[must_use]
pub fn shuffled(pages: u32) -> Vec<u32> {
    let mut order: Vec<u32> = (0..pages).collect();
    fastrand::Rng::with_seed(1).shuffle(&mut order);
    order
}
