//! Fixtures for the tests of upager's public behaviour.
//!
//! The tests themselves are in `tests/`, a file an area of the contract; `README.md` leads from
//! each line of the contract to the tests that hold it.
//!
//! Most tests poll futures by hand, with a waker that counts. Nothing in them sleeps, and what
//! happens first is decided by the order of the lines. `real_threads.rs` and parts of `ports.rs`
//! use threads; each wait there has a deadline, so that a lost wake-up fails the test and does not
//! hang it.
//!
//! # What the types rule out
//!
//! In C a caller can pass a number that is no handle, or a handle of another kind. In Rust the
//! call does not compile. A VMO is no pager:
//!
//! ```compile_fail,E0599
//! fn detach(vmo: &upager::Vmo<upager::HeapPlatform>) {
//!     let _ = vmo.detach_vmo(vmo);
//! }
//! ```
//!
//! A pager is no VMO, and neither is a port:
//!
//! ```compile_fail,E0308
//! fn detach(pager: &upager::Pager<upager::HeapPlatform>) {
//!     let _ = pager.detach_vmo(pager);
//! }
//! ```
//! ```compile_fail,E0308
//! fn detach(pager: &upager::Pager<upager::HeapPlatform>, port: &upager::Port<upager::HeapPlatform>) {
//!     let _ = pager.detach_vmo(port);
//! }
//! ```
//!
//! An anonymous VMO has no pager, so it can be neither detached nor supplied to:
//!
//! ```compile_fail,E0308
//! fn detach(pager: &upager::Pager<upager::HeapPlatform>, vmo: &upager::AnonymousVmo<upager::HeapPlatform>) {
//!     let _ = pager.detach_vmo(vmo);
//! }
//! ```
//! ```compile_fail,E0308
//! fn supply(pager: &upager::Pager<upager::HeapPlatform>, vmo: &upager::AnonymousVmo<upager::HeapPlatform>) {
//!     let _ = pager.supply_pages(vmo, upager::ByteRange::new(0, 4096), vmo, upager::ByteOffset(0));
//! }
//! ```
//!
//! And a VMO that has one is no source of pages:
//!
//! ```compile_fail,E0308
//! fn supply(pager: &upager::Pager<upager::HeapPlatform>, vmo: &upager::Vmo<upager::HeapPlatform>) {
//!     let _ = pager.supply_pages(vmo, upager::ByteRange::new(0, 4096), vmo, upager::ByteOffset(0));
//! }
//! ```
//!
//! What is pinned cannot be dropped:
//!
//! ```compile_fail,E0505
//! fn pin(vmo: upager::AnonymousVmo<upager::HeapPlatform>) {
//!     let pinned = vmo.pin(upager::ByteRange::new(0, 4096));
//!     drop(vmo);
//!     drop(pinned);
//! }
//! ```
//!
//! A pager or VMO that was closed cannot be named any more:
//!
//! ```compile_fail,E0382
//! fn detach(pager: upager::Pager<upager::HeapPlatform>, vmo: upager::Vmo<upager::HeapPlatform>) {
//!     drop(pager);
//!     let _ = pager.detach_vmo(&vmo);
//! }
//! ```
//! ```compile_fail,E0382
//! fn detach(pager: upager::Pager<upager::HeapPlatform>, vmo: upager::Vmo<upager::HeapPlatform>) {
//!     drop(vmo);
//!     let _ = pager.detach_vmo(&vmo);
//! }
//! ```
//!
//! A number is neither:
//!
//! ```compile_fail,E0308
//! fn detach(pager: &upager::Pager<upager::HeapPlatform>) {
//!     let _ = pager.detach_vmo(0);
//! }
//! ```
//!
//! And this is the call that the ones above fall short of:
//!
//! ```
//! fn detach(pager: upager::Pager<upager::HeapPlatform>, vmo: upager::Vmo<upager::HeapPlatform>) {
//!     let _ = pager.detach_vmo(&vmo);
//! }
//! ```

#![allow(clippy::missing_panics_doc, reason = "a fixture fails its test by a panic")]
#![allow(clippy::must_use_candidate, reason = "these are called for their result or for their checks")]

mod calls;
mod hooked;
mod own_epoch;
mod random;
mod task;
mod threads;
mod world;

pub use calls::{Call, SCENE, make_calls};
pub use hooked::{Hooked, Runs};
pub use own_epoch::OwnEpoch;
pub use random::Random;
pub use task::{Task, Wakes, now};
pub use threads::{Threads, threads};
pub use world::{
    KEY, SetOnDrop, World, at, bytes_of, complete_packet, dirty_packet, dirty_ranges, pages, pattern, read_packet, soon,
};

/// The example of the project's README, as a test.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
