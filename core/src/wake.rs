//! One place for one waker, which is woken once or not at all.
//!
//! ```text
//!   empty --arm--> armed --fire--> fired
//!     ^   <-disarm-  |
//!     |              | abandon
//!     +--take_over- left
//! ```
//!
//! A cell that is empty or left is fired too, with nobody to wake.
//!
//! The owner arms the cell with a waker, and may take it out again; the resolver fires the cell.
//! Each arrow is one read-modify-write, so exactly one of the two gets the waker: it is never woken
//! twice, and never both woken and dropped. A cell that was fired stays so: an owner who comes to
//! arm it learns that there is nothing to wait for any more.

use core::task::Waker;

use crate::sync::{AcqRel, Acquire, AtomicU32, Cell, Relaxed, Release};

const EMPTY: u32 = 0;
const ARMED: u32 = 1;
const FIRED: u32 = 2;
const LEFT: u32 = 3;

/// Whom a [`fire`](WakerCell::fire) found.
pub(crate) enum Fired {
    /// One to wake.
    Sleeper(Waker),
    /// The place of one that had left.
    Left,
    /// Nobody: not asleep yet, or fired before.
    Nobody,
}

#[derive(Debug)]
pub(crate) struct WakerCell {
    state: AtomicU32,
    waker: Cell<Option<Waker>>,
}

// SAFETY: the cell inside is touched only by the owner while it is not armed, and by whoever took
// it out of that state; `state` hands it from the one to the other (Release, Acquire). A Waker is Send.
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
    #[inline]
    pub(crate) fn reset(&self) {
        self.state.store(EMPTY, Relaxed); // Relaxed: published with the entry that the cell is in
    }

    /// Puts a waker in. False: the cell was fired, and nothing will be woken.
    ///
    /// # Safety
    /// The caller owns the cell (nobody else may arm it) and it is not armed.
    #[inline]
    pub(crate) unsafe fn arm(&self, waker: Waker) -> bool {
        // SAFETY: not armed, so by the type's rule only the owner, who is the caller, touches it:
        // `fire` does only if it finds it armed.
        self.waker.with_mut(|cell| unsafe { *cell = Some(waker) });
        // Release hands the waker to `fire`; Acquire, on failure, shows what led to it. The empty cell was
        // the owner's own doing, so there is nothing to take over.
        if self.state.compare_exchange(EMPTY, ARMED, Release, Acquire).is_ok() {
            return true;
        }
        // SAFETY: as above; it did not become armed.
        self.waker.with_mut(|cell| drop(unsafe { (*cell).take() }));
        false
    }

    /// The owner takes the waker out. `None`: it was not armed, or was fired.
    #[inline]
    pub(crate) fn disarm(&self) -> Option<Waker> {
        // Acquire, on failure, shows what led to the firing. Relaxed besides: the cell stays ours, and nobody
        // reads it for having found it empty.
        self.state.compare_exchange(ARMED, EMPTY, Relaxed, Acquire).ok()?;
        self.take()
    }

    /// The owner leaves. True if the cell may be [taken over](Self::take_over) by another.
    #[inline]
    pub(crate) fn abandon(&self) -> bool {
        // Relaxed: a cell that was fired stays so, and there is nothing left to take or to see
        if self.state.load(Relaxed) != ARMED {
            return false;
        }
        // Release leaves the cell to whoever takes it over, once `disarm` is done with it; so first out of
        // `armed`, then to `left`. Relaxed, on failure: as above.
        if self.disarm().is_none() {
            return false;
        }
        self.state.compare_exchange(EMPTY, LEFT, Release, Relaxed).is_ok()
    }

    /// Becomes the owner of a cell that was left. False: it was not.
    pub(crate) fn take_over(&self) -> bool {
        // Acquire takes the cell over from `abandon`; a failure says nothing but that it was not left
        self.state.compare_exchange(LEFT, EMPTY, Acquire, Relaxed).is_ok()
    }

    /// The resolver ends the wait: nobody will wait here any more.
    #[inline]
    pub(crate) fn fire(&self) -> Fired {
        // AcqRel: Acquire takes the waker over from `arm`; Release shows what led here to an owner
        // who comes to arm it
        match self.state.swap(FIRED, AcqRel) {
            ARMED => self.take().map_or(Fired::Nobody, Fired::Sleeper),
            LEFT => Fired::Left,
            _ => Fired::Nobody,
        }
    }

    /// Only for the one whose read-modify-write took the cell out of `armed`.
    #[inline]
    fn take(&self) -> Option<Waker> {
        // SAFETY: this call's caller took the cell out of `armed`. After `disarm` only the owner,
        // who is the caller, touches it. After `fire` nobody else does, until the entry's next
        // life, which begins when the resolver has let go of the entry.
        self.waker.with_mut(|cell| unsafe { (*cell).take() })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use alloc::sync::Arc;
    use alloc::task::Wake;
    use core::task::Waker;

    use super::{Fired, WakerCell};

    struct Nobody;

    impl Wake for Nobody {
        fn wake(self: Arc<Self>) {}
    }

    #[test]
    fn no_waker_is_kept_that_will_not_be_woken() {
        let (cell, kept) = (WakerCell::default(), Arc::new(Nobody));
        let waker = Waker::from(kept.clone());
        // SAFETY: the cell is ours, and not armed; so it is below.
        assert!(unsafe { cell.arm(waker.clone()) });
        assert!(matches!(cell.fire(), Fired::Sleeper(_)));
        // SAFETY: as above, since it was fired.
        assert!(!unsafe { cell.arm(waker.clone()) }, "it was fired");
        assert!(cell.disarm().is_none() && !cell.abandon());
        drop(waker);
        assert_eq!(Arc::strong_count(&kept), 1);
    }

    #[test]
    fn a_cell_that_was_left_is_taken_over_once() {
        let cell = WakerCell::default();
        assert!(!cell.take_over(), "it is empty");
        // SAFETY: the cell is ours, and not armed.
        assert!(unsafe { cell.arm(Waker::noop().clone()) });
        assert!(!cell.take_over() && cell.abandon());
        assert!(cell.take_over() && !cell.take_over());
        assert!(matches!(cell.fire(), Fired::Nobody));
    }
}
