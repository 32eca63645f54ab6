//! What the pager must do, and the proof that it does.
//!
//! - [`spec`]: the pager as a sequential program, one screen a call. The oracle for everything else.
//! - [`anonymous`]: the same of an anonymous VMO, and of supply out of it.
//! - [`history`]: whether calls that overlapped have an order that explains them.
//! - [`crew`], [`progress`]: many models, some at a time, and how far they are.
//! - `world`, `cell`, `stopped`, `race` (under `--cfg loom`): models of the shipped core, explored exhaustively.
//! - `schedule` (under `--cfg shuttle`): long histories of many threads, in random schedules.

#![cfg_attr(
    any(loom, shuttle),
    allow(
        clippy::missing_panics_doc,         // a model's panic is its verdict
        clippy::cast_possible_truncation,   // numbers of a handful of frames
        clippy::trivially_copy_pass_by_ref, // a cell is passed as the thing it is
        clippy::similar_names               // pager and page
    )
)]

pub mod anonymous;
#[cfg(loom)]
pub mod cell;
pub mod crew;
pub mod history;
pub mod progress;
#[cfg(loom)]
pub mod race;
#[cfg(shuttle)]
pub mod schedule;
pub mod spec;
#[cfg(all(loom, not(crossbeam_loom)))]
pub mod stopped;
#[cfg(any(loom, shuttle))]
pub mod world;
