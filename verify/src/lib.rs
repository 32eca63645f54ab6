//! What the pager must do, and the proof that it does.
//!
//! - [`spec`]: the pager as a sequential program, one screen a call. The oracle for everything else.
//! - [`anonymous`]: the same of an anonymous VMO, and of supply out of it.
//! - `world`, `cell` (under `--cfg loom`): models of the shipped core, explored exhaustively.

#![cfg_attr(
    loom,
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
#[cfg(loom)]
pub mod race;
pub mod spec;
#[cfg(loom)]
pub mod world;
