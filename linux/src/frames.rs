//! Frames: what the pager moves about, and where the bytes of each are.
//!
//! To the pager a frame is a page of memory that may become any page of any VMO. A page that is mapped
//! is not free like that: its bytes must be at its place in the VMO's memfd. So a frame here is a
//! number, and a *record* tells where its bytes are:
//!
//! ```text
//!   free --allocate--> staged --begin_move--> moving --end_move--> home --depose--> gone
//!    |                   ^                      |                  ^  |               |
//!    |                   +------ a writer ------+                  |  +---> free <----+
//!    +---------------------- arrive ------------------> arriving --+ settle
//! ```
//!
//! - *staged*: in memory of our own ([`Stage`]). So it is from the start.
//! - *moving*: they are being copied to the page's place, because somebody wants to map the page.
//! - *home*: at the page's place.
//! - *arriving*: at the place of a page that it is about to be supplied to. As home, but nobody deposes it: it has
//!   not been in the page yet, or not surely.
//! - *gone*: the frame has left its page, whose next frame has taken the place. Nobody finds the frame any
//!   more; who found it before may still read, and reads what the page has now; what he writes is dropped,
//!   since its page's content was replaced before his bytes came.
//!
//! A writer of bytes counts himself in while he copies. One who meets a frame that is moving sends it
//! back to staged, and the move fails, and is tried again: nobody waits for anybody. A frame with writers does not
//! begin to move, and is not deposed.
//!
//! # The word
//!
//! `state` (3 bits), `writers` (29 bits), `life` (32 bits). Every change is one compare-and-swap. Records are
//! never freed, so reading one that has begun another life is no error; the life tells it apart, and so a
//! compare-and-swap from a word of an earlier life fails.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize};

use crossbeam_queue::SegQueue;
use upager::{Frame, PageCount, PageIndex, Status};

use crate::bytes::{self, PAGE};
use crate::runs;
use crate::space::Space;
use crate::stage::{Stage, Staged};

const STATE: u64 = 7;
const FREE: u64 = 0;
const STAGED: u64 = 1;
const MOVING: u64 = 2;
const HOME: u64 = 3;
const GONE: u64 = 4;
const ARRIVING: u64 = 5;
const WRITER: u64 = 1 << 3;
const WRITERS: u64 = ((1 << 29) - 1) << 3;
const LIFE: u64 = 1 << 32;

/// log2 of the records in the first segment; each further segment doubles.
const FIRST_BITS: u32 = 8;
/// Enough for the 2^40 numbers that a frame may have.
const SEGMENTS: usize = 40 - FIRST_BITS as usize + 1;

/// Where the bytes of a frame are.
#[derive(Debug, Default)]
pub(crate) struct Record {
    word: AtomicU64,
    /// Its page of the stage, in this life.
    staged: AtomicPtr<u8>,
    /// Its home: the space, of which it has a reference, and the page. Written by who moves it there,
    /// read by who sees it home or gone.
    space: AtomicPtr<Space>,
    page: AtomicU64,
}

/// What a record was when it was looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// Its bytes are in the stage, and nobody is writing to it.
    Staged(Seen),
    /// Its bytes are at their place, and nobody is writing to it.
    Home(Seen),
    /// Its page's next frame has its place, or is about to.
    Gone,
    /// A writer is in it, or another thread is moving it, or supplying it.
    Busy,
}

/// A record's word, for a compare-and-swap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Seen(u64);

const fn with_state(word: u64, state: u64) -> u64 {
    (word & !STATE) | state
}

impl Record {
    pub(crate) fn state(&self) -> State {
        let word = self.word.load(Acquire); // Acquire: pairs with `end_move`, for the home and its bytes
        match (word & STATE, word & WRITERS) {
            (STAGED, 0) => State::Staged(Seen(word)),
            (HOME, 0) => State::Home(Seen(word)),
            (GONE, _) => State::Gone,
            _ => State::Busy,
        }
    }

    /// Whether its bytes are at their place, written to or not.
    pub(crate) fn is_home(&self) -> bool {
        matches!(self.word.load(Acquire) & STATE, HOME | ARRIVING) // Acquire: as in `state`
    }

    /// Whether its home is this one. Asked of a frame that is home.
    pub(crate) fn is_at(&self, space: &Arc<Space>, page: PageIndex) -> bool {
        // Relaxed: `is_home`, before, has acquired them
        ptr::eq(self.space.load(Relaxed), Arc::as_ptr(space)) && self.page.load(Relaxed) == page.0
    }

    /// Where it is staged. Asked of a frame that is moving, by who moves it.
    pub(crate) fn staged(&self) -> Option<Staged> {
        Staged::from_ptr(self.staged.load(Relaxed)) // Relaxed: written before the frame was anybody's
    }

    /// The caller moves it now. False: it is not what it was.
    pub(crate) fn begin_move(&self, seen: Seen) -> bool {
        // AcqRel: Acquire takes over the bytes of the last writer
        self.word.compare_exchange(seen.0, with_state(seen.0, MOVING), AcqRel, Relaxed).is_ok()
    }

    /// Its bytes are at their place. False: a writer came, and it is staged still. `seen` is that of
    /// `begin_move`.
    pub(crate) fn end_move(&self, seen: Seen, space: &Arc<Space>, page: PageIndex) -> bool {
        self.space.store(Arc::into_raw(space.clone()).cast_mut(), Relaxed); // Relaxed: published by the swap below
        self.page.store(page.0, Relaxed); // Relaxed: as above
        let (from, to) = (with_state(seen.0, MOVING), with_state(seen.0, HOME));
        // Release: publishes the home, and the bytes that were copied there
        let moved = self.word.compare_exchange(from, to, AcqRel, Relaxed).is_ok();
        if !moved {
            drop(self.leave_home());
        }
        moved
    }

    /// The move is given up.
    pub(crate) fn stop_move(&self, seen: Seen) {
        // Failing: a writer has done it already.
        let _: Result<u64, u64> = self.word.compare_exchange(with_state(seen.0, MOVING), seen.0, AcqRel, Relaxed);
    }

    /// Its bytes are at the place of a page that it is to be supplied to. Only for a frame that is the caller's.
    fn arrive(&self, space: &Arc<Space>, page: PageIndex) -> Seen {
        // Relaxed, all: the record is the caller's, and goes to others with the frame
        self.staged.store(ptr::null_mut(), Relaxed);
        self.space.store(Arc::into_raw(space.clone()).cast_mut(), Relaxed);
        self.page.store(page.0, Relaxed);
        let word = with_state(self.word.load(Relaxed), ARRIVING);
        self.word.store(word, Release); // Release: for who looks at it as a frame of an earlier life
        Seen(word)
    }

    /// It has been supplied, or has been freed: then this is another life, and nothing is done.
    fn settle(&self, seen: Seen) {
        let mut word = seen.0;
        // AcqRel: Release, so that who deposes it knows that it was supplied
        while let Err(now) = self.word.compare_exchange_weak(word, with_state(word, HOME), AcqRel, Relaxed) {
            if now & !WRITERS != seen.0 {
                return;
            }
            word = now; // with writers in it
        }
    }

    /// Its page's next frame takes its place. False: it is not what it was.
    pub(crate) fn depose(&self, seen: Seen) -> bool {
        // AcqRel: Acquire puts the last writer's bytes before those of the next frame
        self.word.compare_exchange(seen.0, with_state(seen.0, GONE), AcqRel, Relaxed).is_ok()
    }

    /// Counts a writer in. The answer is where the bytes are to go; none: nowhere, and he is not counted.
    pub(crate) fn begin_write(&self) -> Option<*mut u8> {
        let mut word = self.word.load(Acquire); // Acquire: as in `state`
        loop {
            let to = match word & STATE {
                GONE => return None,
                MOVING => with_state(word, STAGED) + WRITER,
                _ => word + WRITER,
            };
            // AcqRel: Release, so that a move that fails by this sees why; Acquire as above
            match self.word.compare_exchange_weak(word, to, AcqRel, Acquire) {
                Ok(_) => return Some(self.at(to)),
                Err(now) => word = now,
            }
        }
    }

    /// As [`begin_write`](Self::begin_write), for who lets stores through a mapping: only of a frame that is home.
    pub(crate) fn begin_map(&self) -> bool {
        let mut word = self.word.load(Acquire); // Acquire: as in `state`
        while matches!(word & STATE, HOME | ARRIVING) {
            match self.word.compare_exchange_weak(word, word + WRITER, AcqRel, Acquire) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    /// The writer's bytes are in.
    pub(crate) fn end_write(&self) {
        self.word.fetch_sub(WRITER, Release); // Release: the bytes come before a move or a deposal
    }

    /// Where the bytes are that a word tells of.
    fn at(&self, word: u64) -> *mut u8 {
        if matches!(word & STATE, HOME | ARRIVING | GONE) {
            // SAFETY: the word was acquired and says home or gone, so the pointer is that of a space of
            // which the record has a reference; and it has it until the frame is freed, which is not
            // before the caller, who uses the frame, is done.
            let space = unsafe { &*self.space.load(Relaxed) }; // Relaxed: acquired with the word
            return space.bytes(PageIndex(self.page.load(Relaxed))); // Relaxed: as above
        }
        self.staged.load(Relaxed) // Relaxed: written before the frame was anybody's
    }

    /// Takes the record's reference to its home.
    fn leave_home(&self) -> Option<Arc<Space>> {
        let space = self.space.swap(ptr::null_mut(), Relaxed); // Relaxed: only the one who frees or moves it is here
        // SAFETY: from `Arc::into_raw` in `end_move`, and taken once, by the swap.
        (!space.is_null()).then(|| unsafe { Arc::from_raw(space.cast_const()) })
    }
}

/// All frames of a platform.
#[derive(Debug)]
pub(crate) struct Frames {
    segments: [AtomicPtr<Record>; SEGMENTS],
    /// Records that were ever used.
    made: AtomicU64,
    free: SegQueue<u64>,
    stage: Stage,
    limit: Option<usize>,
    allocated: AtomicUsize,
    home: AtomicUsize,
}

/// In which segment a record is, and where.
const fn place(number: u64) -> (usize, usize) {
    let shifted = number + (1 << FIRST_BITS);
    let top = shifted.ilog2();
    ((top - FIRST_BITS) as usize, (shifted - (1 << top)) as usize)
}

const fn layout(segment: usize) -> Layout {
    match Layout::array::<Record>(1 << (FIRST_BITS as usize + segment)) {
        Ok(layout) => layout,
        Err(_) => panic!("at most 2^40 records"),
    }
}

impl Frames {
    pub(crate) fn new(limit: Option<usize>) -> Self {
        Self {
            segments: std::array::from_fn(|_| AtomicPtr::default()),
            made: AtomicU64::new(0),
            free: SegQueue::new(),
            stage: Stage::default(),
            limit,
            allocated: AtomicUsize::new(0),
            home: AtomicUsize::new(0),
        }
    }

    /// Frames that are allocated now, and those of them that are at their place in a memfd.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.allocated.load(Relaxed), self.home.load(Relaxed)) // Relaxed: figures, they order nothing
    }

    /// The record of a frame that was allocated here, once or now.
    pub(crate) fn record(&self, frame: Frame) -> &Record {
        let (segment, at) = place(frame.number());
        let records = self.segments[segment].load(Acquire); // Acquire: pairs with `make`
        // SAFETY: the frame's number came from `allocate`, which made the segment; a segment lives as
        // long as `self`.
        unsafe { &*records.add(at) }
    }

    /// Makes sure that the record with this number is there.
    fn make(&self, number: u64) -> Result<(), Status> {
        let (segment, _) = place(number);
        if !self.segments[segment].load(Acquire).is_null() {
            return Ok(());
        }
        #[allow(clippy::cast_ptr_alignment)] // the layout has the alignment
        // SAFETY: the layout is not of size zero. A record of zeros is a free one.
        let records = unsafe { alloc_zeroed(layout(segment)) }.cast::<Record>();
        if records.is_null() {
            return Err(Status::NoMemory);
        }
        // AcqRel: Release publishes the zeros
        let put = self.segments[segment].compare_exchange(ptr::null_mut(), records, AcqRel, Acquire);
        if put.is_err() {
            // SAFETY: allocated above, and not published.
            unsafe { dealloc(records.cast(), layout(segment)) };
        }
        Ok(())
    }

    pub(crate) fn allocate(&self) -> Result<Frame, Status> {
        self.counted(|| self.new_frame())
    }

    /// Makes a frame, if there may be one more.
    fn counted(&self, make: impl FnOnce() -> Result<Frame, Status>) -> Result<Frame, Status> {
        // Relaxed: it counts, it orders nothing
        let before = self.allocated.fetch_add(1, Relaxed);
        let frame = if self.limit.is_none_or(|limit| before < limit) { make() } else { Err(Status::NoMemory) };
        frame.inspect_err(|_| self.gone(PageCount(1)))
    }

    /// A frame without memory, for a place that the caller claims for it. It [arrives](Self::arrive) there, or is
    /// [given up](Self::give_up).
    pub(crate) fn allocate_for_a_place(&self) -> Result<Frame, Status> {
        self.counted(|| self.new_number())
    }

    /// The frame's bytes are at their place, which it owns. After its supply it is [settled](Self::settle), or was freed.
    pub(crate) fn arrive(&self, frame: Frame, space: &Arc<Space>, page: PageIndex) -> Seen {
        self.home.fetch_add(1, Relaxed); // Relaxed: a figure
        self.record(frame).arrive(space, page)
    }

    /// Says that a frame which has arrived was supplied, if it was. It can be deposed from now on.
    pub(crate) fn settle(&self, frame: Frame, seen: Seen) {
        self.record(frame).settle(seen);
    }

    /// Takes a frame back that had no memory.
    pub(crate) fn give_up(&self, frame: Frame) {
        self.free.push(frame.number());
        self.gone(PageCount(1));
    }

    /// A frame whose record says nothing yet.
    fn new_number(&self) -> Result<Frame, Status> {
        let number = self.free.pop().unwrap_or_else(|| self.made.fetch_add(1, Relaxed)); // Relaxed: only uniqueness matters
        let made = Frame::new(number).ok_or(Status::NoMemory).and_then(|frame| self.make(number).map(|()| frame));
        made.inspect_err(|_| {
            if number < 1 << 40 {
                self.free.push(number);
            }
        })
    }

    fn new_frame(&self) -> Result<Frame, Status> {
        let staged = self.stage.take()?;
        let frame = self.new_number().inspect_err(|_| {
            // SAFETY: taken above, and not passed on.
            unsafe { self.stage.give(staged) };
        })?;
        let record = self.record(frame);
        // Relaxed, both: the record is ours, and goes to others with the frame
        record.staged.store(staged.as_ptr(), Relaxed);
        let life = record.word.load(Relaxed);
        record.word.store(with_state(life, STAGED), Release); // Release: for who looks at it as a frame of an earlier life
        Ok(frame)
    }

    /// # Safety
    /// As for [`upager::Platform::free`].
    pub(crate) unsafe fn free(self: &Arc<Self>, frame: Frame) {
        let record = self.record(frame);
        let word = record.word.load(Acquire); // Acquire: the last writer's bytes come before the next use
        let mut vacated = None;
        if matches!(word & STATE, ARRIVING | HOME | GONE) {
            self.home.fetch_sub(1, Relaxed); // Relaxed: a figure
            let page = PageIndex(record.page.load(Relaxed)); // Relaxed: acquired with the word
            // The page of the stage, if there was one, went when the frame had moved: see `moved`.
            vacated = record.leave_home().filter(|space| space.begin_vacating(page, frame)).map(|space| (space, page));
        } else if let Some(staged) = record.staged() {
            // SAFETY: taken in `allocate` for this life of the frame, which nobody uses any more.
            unsafe { self.stage.give(staged) };
        }
        // The next life. Not before the space has forgotten the frame: who finds its number there reads the
        // word, and must not find a later life's.
        record.word.store((word & !(LIFE - 1)).wrapping_add(LIFE) | FREE, Release); // Release: as in `new_frame`
        self.free.push(frame.number());
        match vacated {
            Some((space, page)) => runs::empty(self, &space, page), // it counts until its memory has gone
            None => self.gone(PageCount(1)),
        }
    }

    /// The memory of so many frames has gone.
    pub(crate) fn gone(&self, count: PageCount) {
        self.allocated.fetch_sub(count.0 as usize, Relaxed); // Relaxed: a figure
    }

    /// Notes that frames have moved home. `emptied`: their pages of the stage.
    pub(crate) fn moved(self: &Arc<Self>, emptied: Vec<Staged>, guard: &upager::Guard) {
        self.home.fetch_add(emptied.len(), Relaxed); // Relaxed: a figure
        let frames = self.clone();
        guard.defer(move || {
            for page in emptied {
                // SAFETY: taken in `allocate` for a frame that is home now: who saw it staged, to read it,
                // was pinned, and has unpinned since; writers were not in it, and go home.
                unsafe { frames.stage.give(page) };
            }
        });
    }

    /// # Safety
    /// As for [`upager::Platform::copy_out`].
    pub(crate) unsafe fn copy_out(&self, frame: Frame, offset: usize, to: &mut [u8]) {
        let record = self.record(frame);
        let at = record.at(record.word.load(Acquire)); // Acquire: pairs with `end_move`
        debug_assert!(offset + to.len() <= PAGE, "within the page, by the contract");
        // SAFETY: a page of the stage, which the caller's pin keeps if the frame moves meanwhile, or the
        // page's place in the view of its space, which the record keeps.
        unsafe { bytes::copy_out(at.add(offset), to) };
    }

    /// # Safety
    /// As for [`upager::Platform::copy_in`].
    pub(crate) unsafe fn copy_in(&self, frame: Frame, offset: usize, from: &[u8]) {
        let record = self.record(frame);
        let Some(at) = record.begin_write() else { return };
        debug_assert!(offset + from.len() <= PAGE, "within the page, by the contract");
        // SAFETY: as in `copy_out`; besides, a frame with a writer in it does not move.
        unsafe { bytes::copy_in(at.add(offset), from) };
        record.end_write();
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        for (segment, records) in self.segments.iter_mut().enumerate() {
            let records = *records.get_mut();
            if !records.is_null() {
                // SAFETY: allocated in `make` with this layout. Records hold nothing to drop: those of
                // frames that were freed have left their homes.
                unsafe { dealloc(records.cast(), layout(segment)) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(limit: Option<usize>) -> Arc<Frames> {
        Arc::new(Frames::new(limit))
    }

    #[test]
    fn every_number_has_a_place_of_its_own() {
        assert_eq!(place(0), (0, 0));
        assert_eq!(place(255), (0, 255));
        assert_eq!(place(256), (1, 0));
        assert_eq!(place(767), (1, 511));
        assert_eq!(place(768), (2, 0));
        assert!(place((1 << 40) - 1).0 < SEGMENTS);
    }

    #[test]
    fn frames_are_zeros_and_keep_what_is_written() {
        let frames = shared(Some(2));
        let first = frames.allocate().unwrap();
        let second = frames.allocate().unwrap();
        assert_eq!(frames.allocate(), Err(Status::NoMemory));
        let mut bytes = [1; 8];
        // SAFETY: both are allocated, and the parts lie within.
        unsafe {
            frames.copy_in(first, 4090, b"middle");
            frames.copy_out(second, 4088, &mut bytes);
            assert_eq!(bytes, [0; 8]);
            frames.copy_out(first, 4088, &mut bytes);
            assert_eq!(bytes, *b"\0\0middle");
            frames.free(first);
        }
        let again = frames.allocate().unwrap();
        // SAFETY: as above.
        unsafe { frames.copy_out(again, 4088, &mut bytes) };
        assert_eq!(bytes, [0; 8]);
        assert_eq!(frames.counts(), (2, 0));
        // SAFETY: allocated, and not used any more.
        unsafe {
            frames.free(again);
            frames.free(second);
        }
        assert_eq!(frames.counts(), (0, 0));
    }

    #[test]
    fn a_writer_stops_a_move_and_a_mapping_in_progress_prevents_a_deposal() {
        let frames = shared(None);
        let frame = frames.allocate().unwrap();
        let record = frames.record(frame);
        let State::Staged(seen) = record.state() else { panic!() };
        assert!(record.begin_move(seen));
        assert_eq!(record.state(), State::Busy);
        // SAFETY: allocated, and within.
        unsafe { frames.copy_in(frame, 0, b"x") };
        assert_eq!(record.state(), State::Staged(seen), "back where it was");
        assert!(!record.begin_map(), "it is not home");
        // SAFETY: allocated, and not used any more.
        unsafe { frames.free(frame) };
        assert!(!record.begin_move(seen), "another life");
    }
}
