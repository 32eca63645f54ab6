//! What the pager must do, and the proof that it does.
//!
//! - [`spec`]: the pager as a sequential program, one screen a call. The oracle for everything else.
//! - `world`, `cell` (under `--cfg loom`): models of the shipped core, explored exhaustively.

#[cfg(loom)]
pub mod cell;
#[cfg(loom)]
pub mod race;
pub mod spec;
#[cfg(loom)]
pub mod world;
