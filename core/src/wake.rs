//! One place for one waker, which is woken once or not at all.
//!
//! ```text
//!   empty --arm--> armed --fire--> fired
//!     |             |  ^
//!     |      disarm |  | arm
//!     +-----fire    +--+
//! ```
//!
//! The owner arms the cell with a waker, and may take it out again; the resolver fires the cell.
//! Each arrow is one read-modify-write, so exactly one of the two gets the waker: it is never woken
//! twice, and never both woken and dropped. A cell that was fired stays so: an owner who comes to
//! arm it learns that there is nothing to wait for any more.

use core::task::Waker;

use crate::sync::{AcqRel, Acquire, AtomicU32, Cell, Relaxed};

const EMPTY: u32 = 0;
const ARMED: u32 = 1;
const FIRED: u32 = 2;

#[derive(Debug)]
pub(crate) struct WakerCell {
    state: AtomicU32,
    waker: Cell<Option<Waker>>,
}

// SAFETY: the cell inside is touched only by the owner while it is not armed, and by whoever took
// it out of that state; `state` hands it from the one to the other with AcqRel. A Waker is Send.
unsafe impl Send for WakerCell {}
// SAFETY: as for Send.
unsafe impl Sync for WakerCell {}

impl Default for WakerCell {
    fn default() -> Self {
        Self { state: AtomicU32::new(EMPTY), waker: Cell::new(None) }
    }
}

impl WakerCell {
    /// Makes a cell of an earlier life empty.
    pub(crate) fn reset(&self) {
        self.state.store(EMPTY, Relaxed); // Relaxed: published with the entry that the cell is in
    }

    /// Puts a waker in. False: the cell was fired, and nothing will be woken.
    ///
    /// # Safety
    /// The caller owns the cell (nobody else may arm it) and it is not armed.
    pub(crate) unsafe fn arm(&self, waker: Waker) -> bool {
        // SAFETY: not armed, so by the type's rule only the owner, who is the caller, touches it:
        // `fire` does only if it finds it armed.
        self.waker.with_mut(|cell| unsafe { *cell = Some(waker) });
        // AcqRel: Release hands the waker to `fire`; Acquire, on failure, shows what led to it
        if self.state.compare_exchange(EMPTY, ARMED, AcqRel, Acquire).is_ok() {
            return true;
        }
        // SAFETY: as above; it did not become armed.
        self.waker.with_mut(|cell| drop(unsafe { (*cell).take() }));
        false
    }

    /// The owner takes the waker out. `None`: it was not armed, or was fired.
    pub(crate) fn disarm(&self) -> Option<Waker> {
        // AcqRel: Acquire, on failure, shows what led to the firing; on success the cell stays ours
        self.state.compare_exchange(ARMED, EMPTY, AcqRel, Acquire).ok()?;
        self.take()
    }

    /// The resolver takes the waker out, to wake it, and nobody will wait here any more.
    pub(crate) fn fire(&self) -> Option<Waker> {
        // AcqRel: Acquire takes the waker over from `arm`; Release shows what led here to an owner
        // who comes to arm it
        if self.state.swap(FIRED, AcqRel) == ARMED { self.take() } else { None }
    }

    /// Only for the one whose read-modify-write took the cell out of `armed`.
    fn take(&self) -> Option<Waker> {
        // SAFETY: this call's caller took the cell out of `armed`. After `disarm` only the owner,
        // who is the caller, touches it. After `fire` nobody else does, until the entry's next
        // life, which begins when the resolver has let go of the entry.
        self.waker.with_mut(|cell| unsafe { (*cell).take() })
    }
}
