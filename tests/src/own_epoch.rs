//! The heap, with an epoch that a test has to itself.

use std::fmt;

use upager::{Frame, Guard, HeapPlatform, PageCount, Platform, Result};

type Pin = Box<dyn Fn() -> Guard + Send + Sync>;

/// The heap, pinned as the test says: so what was deferred is run by the thread that tests, when it says so.
pub struct OwnEpoch {
    heap: HeapPlatform,
    pin: Pin,
}

impl fmt::Debug for OwnEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnEpoch").field("heap", &self.heap).finish_non_exhaustive()
    }
}

impl OwnEpoch {
    pub fn new(pin: impl Fn() -> Guard + Send + Sync + 'static) -> Self {
        Self { heap: HeapPlatform::new(), pin: Box::new(pin) }
    }

    /// How many frames there are.
    pub fn frames(&self) -> PageCount {
        self.heap.frames()
    }
}

impl Platform for OwnEpoch {
    fn pin(&self) -> Guard {
        (self.pin)()
    }

    fn allocate(&self) -> Result<Frame> {
        self.heap.allocate()
    }

    unsafe fn free(&self, frame: Frame) {
        // SAFETY: the caller's promise is the heap's, which allocated the frame.
        unsafe { self.heap.free(frame) };
    }

    unsafe fn copy_out(&self, frame: Frame, offset: usize, to: &mut [u8]) {
        // SAFETY: as above.
        unsafe { self.heap.copy_out(frame, offset, to) };
    }

    unsafe fn copy_in(&self, frame: Frame, offset: usize, from: &[u8]) {
        // SAFETY: as above.
        unsafe { self.heap.copy_in(frame, offset, from) };
    }
}
