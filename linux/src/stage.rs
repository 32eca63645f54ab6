//! Where a page's bytes are before the page is mapped: memory of our own, a page at a time.
//!
//! Pages that were used are used again, the last ones cleaned by us; beyond a limit their memory goes
//! back to the system, which hands out zeros. Without locks; the memory is unmapped with the stage.

use std::ops::Range;
use std::ptr::{self, NonNull};

use crossbeam_queue::SegQueue;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use upager::Status;

use crate::bytes::PAGE;

/// Pages that are asked of the system at a time.
const CHUNK: usize = 64;
/// Used pages that are kept for the next use.
const KEPT: usize = 1024;

/// The address of a page of the stage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Staged(NonNull<u8>);

// SAFETY: an address. Its bytes are accessed as `bytes` does, from any thread.
unsafe impl Send for Staged {}

impl Staged {
    pub(crate) const fn as_ptr(self) -> *mut u8 {
        self.0.as_ptr()
    }

    /// The page at this address, which [`as_ptr`](Self::as_ptr) of one gave.
    pub(crate) fn from_ptr(at: *mut u8) -> Option<Self> {
        NonNull::new(at).map(Self)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Stage {
    /// Pages of zeros.
    fresh: SegQueue<Staged>,
    /// Pages of anything.
    used: SegQueue<Staged>,
    chunks: SegQueue<Staged>,
}

impl Stage {
    /// A page of zeros, the caller's until it is given back.
    pub(crate) fn take(&self) -> Result<Staged, Status> {
        if let Some(page) = self.used.pop() {
            // SAFETY: it was given back, so nobody uses it, and it was popped once.
            unsafe { ptr::write_bytes(page.as_ptr(), 0, PAGE) };
            return Ok(page);
        }
        match self.fresh.pop() {
            Some(page) => Ok(page),
            None => self.grow(),
        }
    }

    /// Takes a page back.
    ///
    /// # Safety
    /// It was taken from here, and nobody uses it any more.
    pub(crate) unsafe fn give(&self, page: Staged) {
        if self.used.len() < KEPT {
            self.used.push(page);
            return;
        }
        // SAFETY: a page of our own, unused by the caller's promise.
        let gone = unsafe { madvise(page.as_ptr().cast(), PAGE, Advice::LinuxDontNeed) };
        if gone.is_ok() { self.fresh.push(page) } else { self.used.push(page) }
    }

    fn grow(&self) -> Result<Staged, Status> {
        let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::NORESERVE);
        // SAFETY: a new mapping at an address of the system's choice touches no other.
        let chunk = unsafe { mmap_anonymous(ptr::null_mut(), CHUNK * PAGE, prot, flags) };
        let first = chunk.ok().and_then(|at| Staged::from_ptr(at.cast())).ok_or(Status::NoMemory)?;
        self.chunks.push(first);
        for page in 1..CHUNK {
            // SAFETY: within the chunk.
            let at = unsafe { first.as_ptr().add(page * PAGE) };
            if let Some(page) = Staged::from_ptr(at) {
                self.fresh.push(page);
            }
        }
        Ok(first)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        while let Some(chunk) = self.chunks.pop() {
            // SAFETY: mapped in `grow` with this length. Whoever has a page of it has the stage too.
            let unmapped = unsafe { munmap(chunk.as_ptr().cast(), CHUNK * PAGE) };
            debug_assert!(unmapped.is_ok(), "a mapping of ours: {unmapped:?}");
        }
    }
}

/// The bytes of a page at this address.
pub(crate) const fn page_at(address: usize) -> Range<usize> {
    address..address + PAGE
}
