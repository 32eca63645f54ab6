//! Frames that no page has any more, freed after a grace period, in batches, so that one deferral
//! serves many.

use crate::platform::{Frame, Platform};
use crate::sync::Arc;

/// Frames on their way back to the platform.
///
/// The grace period begins with the deferral, after the frame left its page: whoever is pinned later
/// has not seen it there.
pub(crate) struct Freeing<'a, P: Platform> {
    platform: &'a Arc<P>,
    frames: [Option<Frame>; BATCH],
    len: usize,
}

const BATCH: usize = 30;

impl<'a, P: Platform> Freeing<'a, P> {
    pub(crate) const fn new(platform: &'a Arc<P>) -> Self {
        Self { platform, frames: [None; BATCH], len: 0 }
    }

    /// Takes a frame whose page's word was swapped for another, and which the caller then owned.
    pub(crate) fn push(&mut self, frame: Frame) {
        self.frames[self.len] = Some(frame);
        self.len += 1;
        if self.len == BATCH {
            self.defer();
        }
    }

    fn defer(&mut self) {
        let frames = core::mem::replace(&mut self.frames, [None; BATCH]);
        if core::mem::take(&mut self.len) == 0 {
            return;
        }
        let platform = self.platform.clone();
        let guard = self.platform.pin();
        guard.defer(move || {
            for frame in frames.into_iter().flatten() {
                // SAFETY: the frame came from the platform with the page's content; the page's word
                // was swapped for another, so nobody finds it any more; and whoever found it before
                // and may still be in it was pinned, and has unpinned since.
                unsafe { platform.free(frame) };
            }
            platform.freed();
        });
        guard.flush(); // so that any thread's pin may run it, not only one of ours
    }
}

impl<P: Platform> Drop for Freeing<'_, P> {
    fn drop(&mut self) {
        self.defer();
    }
}
