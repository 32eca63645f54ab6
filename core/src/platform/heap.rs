//! The platform for ordinary programs: frames from the heap, a limit on how many, and failures on
//! demand for tests.

extern crate std;

use alloc::alloc::{Layout, alloc_zeroed, dealloc};
use alloc::boxed::Box;
use core::fmt;
use core::sync::atomic::AtomicU64 as Word;
use core::sync::atomic::AtomicUsize;

use super::{Frame, Platform};
use crate::status::{Result, Status};
use crate::sync::{Guard, Relaxed};
use crate::units::{PAGE_SIZE, PageCount};

const PAGE: usize = PAGE_SIZE as usize;
const WORD: usize = size_of::<u64>();
const LAYOUT: Layout = match Layout::from_size_align(PAGE, PAGE) {
    Ok(layout) => layout,
    Err(_) => unreachable!(),
};

type Injector = Box<dyn Fn(usize) -> bool + Send + Sync>;

/// Frames from the heap.
///
/// Concurrent copies of the same bytes are atomic by words of eight bytes, so a reader beside a
/// writer sees each aligned word old or new.
///
/// ```
/// use upager::{HeapPlatform, PageCount, Platform, Status};
/// let platform = HeapPlatform::new().with_limit(PageCount(1));
/// let frame = platform.allocate()?;
/// assert_eq!(platform.allocate(), Err(Status::NoMemory));
/// assert_eq!(platform.frames(), PageCount(1));
/// // SAFETY: allocated above, and not used any more.
/// unsafe { platform.free(frame) };
/// # Ok::<(), Status>(())
/// ```
#[derive(Default)]
pub struct HeapPlatform {
    limit: Option<usize>,
    frames: AtomicUsize,
    attempts: AtomicUsize,
    injector: Option<Injector>,
}

impl fmt::Debug for HeapPlatform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeapPlatform")
            .field("limit", &self.limit)
            .field("frames", &self.frames())
            .finish_non_exhaustive()
    }
}

impl HeapPlatform {
    /// Without a limit.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets at most `limit` frames be allocated at a time.
    #[must_use]
    pub fn with_limit(mut self, limit: PageCount) -> Self {
        self.limit = Some(usize::try_from(limit.0).unwrap_or(usize::MAX));
        self
    }

    /// Has each allocation for which `fails` says so fail. It is given the number of the attempt,
    /// from 0 on.
    #[must_use]
    pub fn with_failures(mut self, fails: impl Fn(usize) -> bool + Send + Sync + 'static) -> Self {
        self.injector = Some(Box::new(fails));
        self
    }

    /// How many frames are allocated now, those included that wait for a grace period.
    #[must_use]
    pub fn frames(&self) -> PageCount {
        PageCount(self.frames.load(Relaxed) as u64) // Relaxed: a figure, it orders nothing
    }

    fn words(frame: Frame) -> *const Word {
        core::ptr::with_exposed_provenance((frame.number() as usize) << PAGE_SIZE.trailing_zeros())
    }
}

impl Platform for HeapPlatform {
    #[inline]
    fn pin(&self) -> Guard {
        crossbeam_epoch::pin()
    }

    fn allocate(&self) -> Result<Frame> {
        // Relaxed, all of these: they count, they order nothing
        let attempt = self.attempts.fetch_add(1, Relaxed);
        if self.injector.as_ref().is_some_and(|fails| fails(attempt)) {
            return Err(Status::NoMemory);
        }
        let before = self.frames.fetch_add(1, Relaxed);
        if self.limit.is_none_or(|limit| before < limit) {
            // SAFETY: the layout is not of size zero.
            let memory = unsafe { alloc_zeroed(LAYOUT) };
            let number = (memory.expose_provenance() >> PAGE_SIZE.trailing_zeros()) as u64;
            if let (false, Some(frame)) = (memory.is_null(), Frame::new(number)) {
                return Ok(frame);
            }
            if !memory.is_null() {
                // SAFETY: allocated just now with this layout. (No user address is this high.)
                unsafe { dealloc(memory, LAYOUT) };
            }
        }
        self.frames.fetch_sub(1, Relaxed);
        Err(Status::NoMemory)
    }

    unsafe fn free(&self, frame: Frame) {
        // SAFETY: by the contract, from `allocate`, with this layout, and unused.
        unsafe { dealloc(Self::words(frame).cast_mut().cast(), LAYOUT) };
        self.frames.fetch_sub(1, Relaxed); // Relaxed: as in `allocate`
    }

    unsafe fn copy_out(&self, frame: Frame, offset: usize, to: &mut [u8]) {
        let mut at = offset;
        let mut rest = to;
        while !rest.is_empty() {
            // SAFETY: the frame is allocated by the contract, and `at` is below its end, since
            // bytes are left to copy. It is only ever accessed by atomic words.
            let word = unsafe { &*Self::words(frame).add(at / WORD) };
            let bytes = word.load(Relaxed).to_ne_bytes(); // Relaxed: the page word orders the bytes
            let within = at % WORD;
            let n = rest.len().min(WORD - within);
            let (now, later) = rest.split_at_mut(n);
            now.copy_from_slice(&bytes[within..within + n]);
            rest = later;
            at += n;
        }
    }

    unsafe fn copy_in(&self, frame: Frame, offset: usize, from: &[u8]) {
        let mut at = offset;
        let mut rest = from;
        while !rest.is_empty() {
            // SAFETY: as in `copy_out`.
            let word = unsafe { &*Self::words(frame).add(at / WORD) };
            let within = at % WORD;
            let n = rest.len().min(WORD - within);
            let (now, later) = rest.split_at(n);
            if let Ok(whole) = <[u8; WORD]>::try_from(now) {
                word.store(u64::from_ne_bytes(whole), Relaxed); // Relaxed: as in `copy_out`
            } else {
                // Part of a word: another writer may be at work in the rest of it.
                let merge = |old: u64| {
                    let mut bytes = old.to_ne_bytes();
                    bytes[within..within + n].copy_from_slice(now);
                    Some(u64::from_ne_bytes(bytes))
                };
                let _ = word.fetch_update(Relaxed, Relaxed, merge); // Relaxed: as in `copy_out`
            }
            rest = later;
            at += n;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn copies_of_every_alignment_touch_what_they_name() {
        let platform = HeapPlatform::new();
        let frame = platform.allocate().unwrap();
        let mut shadow = vec![0u8; PAGE];
        for (n, (offset, len)) in
            [(0, 0), (0, 1), (1, 7), (3, 8), (5, 17), (8, 8), (4088, 8), (4095, 1), (0, 4096)].into_iter().enumerate()
        {
            let bytes = vec![n as u8 + 1; len];
            // SAFETY: allocated above, and within the page.
            unsafe { platform.copy_in(frame, offset, &bytes) };
            shadow[offset..offset + len].copy_from_slice(&bytes);
            let mut out = vec![0xff; PAGE];
            // SAFETY: as above.
            unsafe { platform.copy_out(frame, 0, &mut out) };
            assert_eq!(out, shadow);
            let mut part = vec![0; len];
            // SAFETY: as above.
            unsafe { platform.copy_out(frame, offset, &mut part) };
            assert_eq!(part, bytes);
        }
        // SAFETY: allocated above, and not used any more.
        unsafe { platform.free(frame) };
        assert_eq!(platform.frames(), PageCount(0));
    }

    #[test]
    fn the_limit_and_the_injector_refuse() {
        let platform = HeapPlatform::new().with_limit(PageCount(2)).with_failures(|attempt| attempt == 1);
        let first = platform.allocate().unwrap();
        assert_eq!(platform.allocate(), Err(Status::NoMemory));
        let second = platform.allocate().unwrap();
        assert_eq!(platform.allocate(), Err(Status::NoMemory));
        for frame in [first, second] {
            // SAFETY: allocated above, and not used any more.
            unsafe { platform.free(frame) };
        }
    }
}
