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
//!
//! In the same word stands the head of a *list* of further cells, which takes no more once the cell was
//! fired: so who fires it has the whole list, by the same step. What the list links is the caller's affair.

use core::task::Waker;

use crate::sync::{AcqRel, Acquire, AtomicU32, Cell, Relaxed, Release};

/// A waker is in. Means nothing in a cell that was fired.
const ARMED: u32 = 1 << 31;
const FIRED: u32 = 1 << 30;
/// As for `ARMED`.
const LEFT: u32 = 1 << 29;
const LIST: u32 = LEFT - 1;

/// End of a list.
pub(crate) const NIL: u32 = LIST;

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
    word: AtomicU32,
    waker: Cell<Option<Waker>>,
}

// SAFETY: the cell inside is touched only by the owner while it is not armed, and by whoever took
// it out of that state; `word` hands it from the one to the other (Release, Acquire). A Waker is Send.
unsafe impl Send for WakerCell {}
// SAFETY: as for Send.
unsafe impl Sync for WakerCell {}

impl Default for WakerCell {
    fn default() -> Self {
        Self { word: AtomicU32::new(NIL), waker: Cell::new(None) }
    }
}

impl WakerCell {
    /// Makes a cell of an earlier life empty, with this list.
    #[inline]
    pub(crate) fn reset(&self, list: u32) {
        self.word.store(list, Relaxed); // Relaxed: published with the entry that the cell is in
    }

    /// Makes a cell of an earlier life armed, with no list.
    ///
    /// # Safety
    /// Nobody else knows of the cell yet.
    #[inline]
    pub(crate) unsafe fn reset_armed(&self, waker: Waker) {
        // SAFETY: only we know of the cell, which is the caller's promise.
        self.waker.with_mut(|cell| unsafe { *cell = Some(waker) });
        self.word.store(ARMED | NIL, Relaxed); // Relaxed: as in `reset`
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
        // AcqRel: Release hands the waker to `fire`; Acquire, if it was fired, shows what led to it
        if self.word.fetch_or(ARMED, AcqRel) & FIRED == 0 {
            return true;
        }
        // SAFETY: as above; who fires it once more finds it fired.
        self.waker.with_mut(|cell| drop(unsafe { (*cell).take() }));
        false
    }

    /// The owner takes the waker out. `None`: it was not armed, or was fired.
    #[inline]
    pub(crate) fn disarm(&self) -> Option<Waker> {
        // Acquire shows what led to the firing, if it was fired. No Release: the cell stays ours, and nobody
        // reads it for having found it empty.
        if self.word.fetch_and(!ARMED, Acquire) & (ARMED | FIRED) != ARMED {
            return None;
        }
        self.take()
    }

    /// The owner leaves. True if the cell may be [taken over](Self::take_over) by another.
    #[inline]
    pub(crate) fn abandon(&self) -> bool {
        // Relaxed: a cell that was fired stays so, and there is nothing left to take or to see
        if self.word.load(Relaxed) & (ARMED | FIRED) != ARMED {
            return false;
        }
        // Release leaves the cell to whoever takes it over, once `disarm` is done with it; so first out of
        // `armed`, then to `left`.
        if self.disarm().is_none() {
            return false;
        }
        self.word.fetch_or(LEFT, Release) & FIRED == 0
    }

    /// Becomes the owner of a cell that was left. False: it was not.
    pub(crate) fn take_over(&self) -> bool {
        // Relaxed: only a guess, that saves the step
        if self.word.load(Relaxed) & (LEFT | FIRED) != LEFT {
            return false;
        }
        // Acquire takes the cell over from `abandon`
        self.word.fetch_and(!LEFT, Acquire) & (LEFT | FIRED) == LEFT
    }

    /// Puts an entry at the head of the list, which `link` is told the head of before. False: the cell was
    /// fired. Lock-free.
    #[inline]
    pub(crate) fn push(&self, entry: u32, link: impl Fn(u32)) -> bool {
        let mut seen = self.word.load(Acquire); // Acquire: what is fired comes after what led to it
        while seen & FIRED == 0 {
            link(seen & LIST);
            // Release publishes the entry to `fire`; Acquire, on failure, as above. The list before it was
            // published by those who pushed, and each later change goes on with their releases.
            match self.word.compare_exchange(seen, (seen & !LIST) | entry, Release, Acquire) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
        false
    }

    /// The head of the list.
    #[inline]
    pub(crate) fn list(&self) -> u32 {
        self.word.load(Acquire) & LIST // Acquire: pairs with `push`
    }

    /// The resolver ends the wait: nobody will wait here any more, and the list is what it is.
    #[inline]
    pub(crate) fn fire(&self) -> (Fired, u32) {
        // AcqRel: Acquire takes the waker over from `arm`, and the list from `push`; Release shows what led
        // here to an owner who comes to arm it, and to who comes to push
        let was = self.word.fetch_or(FIRED, AcqRel);
        let whom = match was & (ARMED | LEFT | FIRED) {
            ARMED => self.take().map_or(Fired::Nobody, Fired::Sleeper),
            LEFT => Fired::Left,
            _ => Fired::Nobody,
        };
        (whom, was & LIST)
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

    use super::{Fired, NIL, WakerCell};

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
        assert!(matches!(cell.fire(), (Fired::Sleeper(_), NIL)));
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
        assert!(matches!(cell.fire(), (Fired::Nobody, NIL)));
    }
}
