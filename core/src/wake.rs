//! One place for one waker, which is woken once or not at all.
//!
//! The owner arms the cell with a waker; after that whoever disarms it has the waker: the one who
//! resolves, to wake it, or the owner, to leave. Disarming is one read-modify-write that exactly
//! one of them wins, so a waker is never woken twice and never both woken and dropped.
//!
//! Both sides write the word. So if the resolver comes to an unarmed cell, the owner who arms it
//! later sees everything the resolver did before, and looks at the outcome instead of sleeping.

use core::task::Waker;

use crate::sync::{AcqRel, AtomicU32, Cell};

const ARMED: u32 = 1;

#[derive(Debug)]
pub(crate) struct WakerCell {
    state: AtomicU32,
    waker: Cell<Option<Waker>>,
}

// SAFETY: the cell inside is touched only by the owner while it is not armed, and by whoever
// disarmed it; `state` hands it from the one to the other with AcqRel. A Waker is Send.
unsafe impl Send for WakerCell {}
// SAFETY: as for Send.
unsafe impl Sync for WakerCell {}

impl Default for WakerCell {
    fn default() -> Self {
        Self { state: AtomicU32::new(0), waker: Cell::new(None) }
    }
}

impl WakerCell {
    /// Puts a waker in.
    ///
    /// # Safety
    /// The caller owns the cell (nobody else may arm it) and it is not armed.
    pub(crate) unsafe fn arm(&self, waker: Waker) {
        // SAFETY: not armed, so by the type's rule only the owner, who is the caller, touches it.
        self.waker.with_mut(|cell| unsafe { *cell = Some(waker) });
        // AcqRel: Release hands the waker to `disarm`; Acquire makes a resolver who came before
        // visible, whose outcome the owner then looks at.
        self.state.swap(ARMED, AcqRel);
    }

    /// Takes the waker out, if the cell is armed.
    pub(crate) fn disarm(&self) -> Option<Waker> {
        // AcqRel: Acquire takes the waker over from `arm`; Release, even when there is nothing to
        // take, shows what came before to an owner who arms later.
        if self.state.swap(0, AcqRel) != ARMED {
            return None;
        }
        // SAFETY: this call disarmed the cell, so until it is armed again only we touch it, and
        // the owner arms it again only after it has seen that it is disarmed and we are done: it
        // is told so by the return of its own `disarm`, or never arms this cell again.
        self.waker.with_mut(|cell| unsafe { (*cell).take() })
    }
}
