//! The platform of a soak: the heap, which refuses frames at random, takes its time at random, and watches
//! the frames that were freed.
//!
//! The pager calls its platform in the middle of things: a page is held while bytes are copied to it, has just
//! left when it is unmapped, is about to be written back when it is protected. A thread that lets
//! others go first there meets what it would otherwise meet once in a million times.
//!
//! A freed frame is filled with a pattern and kept for a while, so that whoever still reads it finds
//! bytes that nobody wrote, and whoever still writes to it is found when it leaves. A frame that is
//! freed twice, or was never allocated, is found at once.

use std::cell::Cell;
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use upager::{Frame, Guard, HeapPlatform, PageCount, PageIndex, Platform, Result, VmoId};

use crate::soak::books::Books;
use crate::soak::lanes::mix;
use crate::store::PAGE;

/// Freed frames that are kept.
const KEPT: usize = 512;
const SHARDS: usize = 16;
/// No stamp: its number would be larger than any that is written.
const FREED: [u8; PAGE] = [0xdb; PAGE];
/// One in so many frames is refused.
const REFUSED: u64 = 100;
/// In one of so many calls the thread lets others go first; and in one of so many of those it sleeps.
const YIELDS: u64 = 32;
const SLEEPS: u64 = 64;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

/// Lets others go first, in one of so many calls.
pub(crate) fn dawdle(one_in: u64) {
    let calls = CALLS.get() + 1;
    CALLS.set(calls);
    let drawn = mix(calls, one_in);
    if drawn.is_multiple_of(one_in * SLEEPS) {
        thread::sleep(Duration::from_micros(20));
    } else if drawn.is_multiple_of(one_in) {
        thread::yield_now();
    }
}

pub(crate) struct Memory {
    heap: HeapPlatform,
    books: Arc<Books>,
    /// Nothing is refused any more.
    calm: Arc<AtomicBool>,
    live: [Mutex<HashSet<Frame>>; SHARDS],
    freed: Mutex<VecDeque<Frame>>,
}

impl Memory {
    /// Lets `limit` frames be in use.
    pub(crate) fn new(limit: u64, seed: u64, books: Arc<Books>) -> Self {
        let calm = Arc::new(AtomicBool::new(false));
        let refuses = {
            let (calm, books) = (calm.clone(), books.clone());
            move |attempt: usize| {
                // Relaxed: a frame more or less that is refused
                let refused = mix(seed, attempt as u64).is_multiple_of(REFUSED) && !calm.load(Relaxed);
                books.figures.refused_frames.add(refused.into());
                refused
            }
        };
        let heap = HeapPlatform::new().with_limit(PageCount(limit + KEPT as u64)).with_failures(refuses);
        Self { heap, books, calm, live: Default::default(), freed: Mutex::default() }
    }

    /// Refuses nothing from now on but by the limit.
    pub(crate) fn calm_down(&self) {
        self.calm.store(true, SeqCst); // SeqCst: as all flags of the program
    }

    /// Frames in use, those included that wait for a grace period.
    pub(crate) fn frames(&self) -> u64 {
        self.live.iter().map(|shard| shard.lock().len() as u64).sum()
    }

    /// Waits until every frame has come back, and returns how many have not.
    pub(crate) fn settle(&self, patience: Duration) -> u64 {
        let deadline = Instant::now() + patience;
        while self.frames() > 0 && Instant::now() < deadline {
            self.pin().flush();
            thread::sleep(Duration::from_micros(100));
        }
        let freed: Vec<_> = self.freed.lock().drain(..).collect();
        for frame in freed {
            self.release(frame);
        }
        self.frames()
    }

    fn shard(&self, frame: Frame) -> &Mutex<HashSet<Frame>> {
        &self.live[frame.number() as usize % SHARDS]
    }

    /// Gives a frame that was freed back to the heap.
    fn release(&self, frame: Frame) {
        let mut bytes = [0; PAGE];
        // SAFETY: the heap's frame is allocated until the call below, and the copy is a page.
        unsafe { self.heap.copy_out(frame, 0, &mut bytes) };
        if bytes != FREED {
            self.books.find(format!("{frame:?} was written to after it was freed"));
        }
        // SAFETY: `free` got it from its last user, and it left `freed` just now, so this is once.
        unsafe { self.heap.free(frame) };
    }
}

impl Platform for Memory {
    fn pin(&self) -> Guard {
        self.heap.pin()
    }

    fn allocate(&self) -> Result<Frame> {
        dawdle(YIELDS);
        let frame = self.heap.allocate()?;
        self.shard(frame).lock().insert(frame);
        Ok(frame)
    }

    unsafe fn free(&self, frame: Frame) {
        if !self.shard(frame).lock().remove(&frame) {
            self.books.find(format!("{frame:?} was freed, and is not in use"));
            return;
        }
        // SAFETY: allocated, and the caller says that nobody uses it.
        unsafe { self.heap.copy_in(frame, 0, &FREED) };
        let oldest = {
            let mut freed = self.freed.lock();
            freed.push_back(frame);
            if freed.len() > KEPT { freed.pop_front() } else { None }
        };
        if let Some(oldest) = oldest {
            self.release(oldest);
        }
    }

    unsafe fn copy_out(&self, frame: Frame, offset: usize, to: &mut [u8]) {
        dawdle(YIELDS);
        // SAFETY: the caller's promise is the heap's.
        unsafe { self.heap.copy_out(frame, offset, to) };
    }

    unsafe fn copy_in(&self, frame: Frame, offset: usize, from: &[u8]) {
        dawdle(YIELDS);
        // SAFETY: the caller's promise is the heap's.
        unsafe { self.heap.copy_in(frame, offset, from) };
        dawdle(YIELDS);
    }

    fn unmap(&self, _: VmoId, _: PageIndex) {
        dawdle(YIELDS);
    }

    fn write_protect(&self, _: VmoId, _: PageIndex) {
        dawdle(YIELDS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Memory {
        let memory = Memory::new(8, 1, Arc::default());
        memory.calm_down();
        memory
    }

    #[test]
    fn a_frame_freed_twice_is_found() {
        let memory = memory();
        let frame = memory.allocate().expect("below the limit");
        // SAFETY: allocated above and not used; that the second call breaks the contract is the test.
        unsafe {
            memory.free(frame);
            memory.free(frame);
        }
        assert_eq!(memory.books.findings(), [format!("{frame:?} was freed, and is not in use")]);
    }

    #[test]
    fn a_write_after_the_free_is_found() {
        let memory = memory();
        let frame = memory.allocate().expect("below the limit");
        // SAFETY: the frame is kept, so the copy goes to memory that is ours.
        unsafe {
            memory.free(frame);
            memory.copy_in(frame, 100, &[1]);
        }
        assert_eq!(memory.settle(Duration::ZERO), 0);
        assert_eq!(memory.books.findings(), [format!("{frame:?} was written to after it was freed")]);
    }
}
