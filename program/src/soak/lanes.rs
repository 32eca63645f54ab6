//! Who writes where, and what a page must hold: so that no lock is needed to know it.
//!
//! Each worker has a word of eight bytes in every page, its *lane*. Two more words of a page, the
//! first and the last, are one lane each of the worker whose number the page before, or this one,
//! has modulo the number of workers: so writes can span pages. One word is written by nobody. A worker
//! has one write to a lane under way at a time, and numbers them; what it writes is the number with a
//! check of the VMO, the page and the lane. Number 0 is what the store holds at first.
//!
//! # The rule
//!
//! SPEC: a write that returned `OK` is in the VMO; one that failed "has written a prefix", page by page, so
//! a write to one lane that failed or was given up has written nothing, and one that spans two pages perhaps
//! the first. Eviction takes clean pages only, and END cleans a page only if nothing was written since
//! BEGIN; so what the store holds of a page that is absent is what was last written to it. Only zeroing
//! and shrinking take bytes away, and they leave zeros (or no page). Hence:
//!
//! - *At any time* a lane is zero, and some zeroing or shrinking of its page has begun, or it has a number
//!   that was drawn for it, and not an older one than the last whose write had returned when the read
//!   began. (A lookup may find a page past the end of a VMO that was shrunk, which is older.)
//! - *When nobody is at work* the number is that of the last write that returned `OK`, or, if later
//!   ones that span pages failed, perhaps theirs. It is zero only if some wipe, a zeroing or shrinking,
//!   was not over when that write began. And it is zero if a wipe that covers the whole page began after
//!   that write had ended, and returned `OK`.

use std::ops::Range;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64};

use upager::PAGE_SIZE;

use crate::store::PAGE;

/// Bytes of a lane. The heap copies such words in one piece.
pub(crate) const WORD: usize = 8;
/// Bits of the check in a stamp.
const CHECK_BITS: u32 = 20;

/// Two numbers into one that looks like neither (the finaliser of splitmix64).
pub(crate) fn mix(a: u64, b: u64) -> u64 {
    let mut z = a.wrapping_add(b.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// All lanes of a VMO. SeqCst throughout: it is about before and after, between threads.
pub(crate) struct Lanes {
    key: u64,
    workers: u64,
    pages: Vec<Page>,
}

struct Page {
    /// Wipes that began, and that are over.
    begun: AtomicU64,
    over: AtomicU64,
    /// One more than the number of the latest wipe of the whole page that returned `OK`.
    certain: AtomicU64,
    lanes: Vec<Lane>,
}

struct Lane {
    busy: AtomicBool,
    drawn: AtomicU64,
    /// The last number whose write returned `OK`.
    sure: AtomicU64,
    /// Whether a later one may have been written.
    unsure: AtomicBool,
    /// Wipes that were over when the write began, and that had begun when it ended.
    over_before: AtomicU64,
    begun_by: AtomicU64,
}

/// A write to a lane that is under way. Dropped without [`done`](Self::done): it failed, or was given up.
pub(crate) struct Writing<'l> {
    page: &'l Page,
    lane: &'l Lane,
    number: u64,
    stamp: u64,
    over_before: u64,
    /// Whether a write that fails may have come this far.
    may_be_written: bool,
}

/// A wipe that is under way.
pub(crate) struct Wipe<'l> {
    lanes: &'l Lanes,
    pages: Range<u64>,
    numbers: Vec<u64>,
}

impl Lanes {
    /// For a VMO that has `size` pages, and can have as many as `most`.
    pub(crate) fn new(key: u64, workers: u64, size: u64, most: u64) -> Self {
        let page = |page| {
            let wiped = u64::from(page >= size); // it comes to be as zeros
            let lane = |_| Lane {
                busy: AtomicBool::new(false),
                drawn: AtomicU64::new(0),
                sure: AtomicU64::new(0),
                unsure: AtomicBool::new(false),
                over_before: AtomicU64::new(0),
                begun_by: AtomicU64::new(0),
            };
            let [begun, over, certain] = [wiped; 3].map(AtomicU64::new);
            Page { begun, over, certain, lanes: (0..workers + 3).map(lane).collect() }
        };
        Self { key, workers, pages: (0..most).map(page).collect() }
    }

    /// The lane of a worker, in every page.
    pub(crate) const fn own(worker: u64) -> u64 {
        worker + 1
    }

    /// The lane at the end of a page, and that at the beginning of the next: those of a write that spans
    /// the two. Worker `page % workers` writes it.
    pub(crate) fn span(&self) -> (u64, u64) {
        (self.workers + 2, 0)
    }

    /// How many there are in a page.
    pub(crate) fn in_a_page(&self) -> usize {
        self.workers as usize + 3
    }

    /// Where in its page a lane begins.
    pub(crate) fn place(&self, lane: u64) -> usize {
        if lane == self.workers + 2 { PAGE - WORD } else { lane as usize * WORD }
    }

    fn stamp(&self, page: u64, lane: u64, number: u64) -> u64 {
        let check = mix(mix(self.key, page), mix(lane, number)) | 1; // 0 is what a wipe leaves
        number << CHECK_BITS | check & ((1 << CHECK_BITS) - 1)
    }

    /// A page as the store has it at first.
    pub(crate) fn fresh(&self, page: u64) -> Box<[u8; PAGE]> {
        let mut bytes = Box::new([0xa5; PAGE]);
        for lane in 0..self.workers + 3 {
            let place = self.place(lane);
            bytes[place..place + WORD].copy_from_slice(&self.stamp(page, lane, 0).to_ne_bytes());
        }
        bytes
    }

    fn at(&self, page: u64, lane: u64) -> Option<(&Page, &Lane)> {
        let page = self.pages.get(page as usize)?;
        Some((page, page.lanes.get(lane as usize)?))
    }

    /// Begins a write. `None`: one is under way, or there is no such page.
    pub(crate) fn begin(&self, page: u64, lane: u64, may_be_written: bool) -> Option<Writing<'_>> {
        let (of, at) = self.at(page, lane)?;
        if at.busy.swap(true, SeqCst) {
            return None;
        }
        let over_before = of.over.load(SeqCst);
        let number = at.drawn.fetch_add(1, SeqCst) + 1;
        Some(Writing { page: of, lane: at, number, stamp: self.stamp(page, lane, number), over_before, may_be_written })
    }

    /// Begins a wipe of these pages, or of parts of them.
    pub(crate) fn wipe(&self, pages: Range<u64>) -> Wipe<'_> {
        let pages = pages.start..pages.end.min(self.pages.len() as u64).max(pages.start);
        let numbers = pages.clone().map(|page| self.pages[page as usize].begun.fetch_add(1, SeqCst)).collect();
        Wipe { lanes: self, pages, numbers }
    }

    /// What is sure of each lane of these pages now: for [`judge`](Self::judge), before the read.
    pub(crate) fn sure(&self, pages: Range<u64>) -> Vec<u64> {
        let pages = self.pages.iter().skip(pages.start as usize).take((pages.end - pages.start) as usize);
        pages.flat_map(|page| page.lanes.iter().map(|lane| lane.sure.load(SeqCst))).collect()
    }

    /// Looks at what was read from `offset` on. `sure`: of the pages touched, before the read; `None`: it may
    /// be old. Returns how many lanes it saw.
    pub(crate) fn judge(&self, offset: u64, bytes: &[u8], sure: Option<&[u64]>) -> Result<u64, String> {
        let mut seen = 0;
        let first = offset / PAGE_SIZE;
        for page in first..(offset + bytes.len() as u64).div_ceil(PAGE_SIZE) {
            for lane in 0..self.workers + 3 {
                let Some((of, at)) = self.at(page, lane) else { continue };
                let Some(place) = (page * PAGE_SIZE + self.place(lane) as u64).checked_sub(offset) else { continue };
                let Some(value) = word(bytes, place as usize) else { continue };
                let least = sure.map_or(0, |sure| sure[((page - first) * (self.workers + 3) + lane) as usize]);
                seen += 1;
                if value == 0 {
                    if of.begun.load(SeqCst) == 0 {
                        return Err(format!("page {page}, lane {lane}: zero, and nobody wiped it"));
                    }
                    continue;
                }
                let number = self.number(page, lane, value)?;
                let drawn = at.drawn.load(SeqCst);
                if number < least || number > drawn {
                    return Err(format!(
                        "page {page}, lane {lane}: write {number} was read; {least} was over before, {drawn} is the last"
                    ));
                }
            }
        }
        Ok(seen)
    }

    /// Looks at a whole page when nobody is at work.
    pub(crate) fn judge_finally(&self, page: u64, bytes: &[u8]) -> Result<(), String> {
        for lane in 0..self.workers + 3 {
            let (Some((of, at)), Some(value)) = (self.at(page, lane), word(bytes, self.place(lane))) else { continue };
            let (sure, unsure) = (at.sure.load(SeqCst), at.unsure.load(SeqCst));
            if value == 0 {
                if of.begun.load(SeqCst) == at.over_before.load(SeqCst) {
                    return Err(format!(
                        "page {page}, lane {lane}: write {sure} is lost: zero, and no wipe came after"
                    ));
                }
                continue;
            }
            let number = self.number(page, lane, value)?;
            if number != sure && !(unsure && number > sure && number <= at.drawn.load(SeqCst)) {
                return Err(format!("page {page}, lane {lane}: write {number} is left, and {sure} was the last"));
            }
            if of.certain.load(SeqCst) > at.begun_by.load(SeqCst) {
                return Err(format!("page {page}, lane {lane}: write {number} is left, and was wiped"));
            }
        }
        Ok(())
    }

    fn number(&self, page: u64, lane: u64, value: u64) -> Result<u64, String> {
        let number = value >> CHECK_BITS;
        if self.stamp(page, lane, number) == value {
            Ok(number)
        } else {
            Err(format!("page {page}, lane {lane}: {value:#x}, which nobody wrote there"))
        }
    }
}

fn word(bytes: &[u8], place: usize) -> Option<u64> {
    let word = bytes.get(place..place.checked_add(WORD)?)?;
    word.try_into().ok().map(u64::from_ne_bytes)
}

impl Writing<'_> {
    pub(crate) fn bytes(&self) -> [u8; WORD] {
        self.stamp.to_ne_bytes()
    }

    /// The write has returned `OK`.
    pub(crate) fn done(mut self) {
        self.may_be_written = false;
        self.lane.over_before.store(self.over_before, SeqCst);
        self.lane.begun_by.store(self.page.begun.load(SeqCst), SeqCst);
        self.lane.unsure.store(false, SeqCst);
        self.lane.sure.store(self.number, SeqCst);
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        if self.may_be_written {
            self.lane.unsure.store(true, SeqCst);
            self.lane.begun_by.store(self.page.begun.load(SeqCst), SeqCst);
        }
        self.lane.busy.store(false, SeqCst);
    }
}

impl Wipe<'_> {
    /// It has returned `OK`, and covered these pages wholly.
    pub(crate) fn done(self, wholly: &Range<u64>) {
        for (page, number) in self.pages.clone().zip(&self.numbers) {
            if wholly.contains(&page) {
                self.lanes.pages[page as usize].certain.fetch_max(number + 1, SeqCst);
            }
        }
    }
}

impl Drop for Wipe<'_> {
    fn drop(&mut self) {
        for page in self.pages.clone() {
            self.lanes.pages[page as usize].over.fetch_add(1, SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two workers, two pages.
    fn lanes() -> Lanes {
        Lanes::new(7, 2, 2, 2)
    }

    fn with(lanes: &Lanes, lane: u64, word: [u8; WORD]) -> Box<[u8; PAGE]> {
        let mut page = lanes.fresh(0);
        let place = lanes.place(lane);
        page[place..place + WORD].copy_from_slice(&word);
        page
    }

    #[test]
    fn what_was_written_last_must_be_there() {
        let lanes = lanes();
        let own = Lanes::own(1);
        let first = lanes.begin(0, own, false).expect("free");
        assert!(lanes.begin(0, own, false).is_none(), "one at a time");
        let old = with(&lanes, own, first.bytes());
        first.done();
        assert_eq!(lanes.judge_finally(0, &*old), Ok(()));
        let second = lanes.begin(0, own, false).expect("free");
        let new = with(&lanes, own, second.bytes());
        assert_eq!(lanes.judge(0, &*old, Some(&lanes.sure(0..1))), Ok(5));
        assert_eq!(lanes.judge(0, &*new, Some(&lanes.sure(0..1))), Ok(5));
        second.done();
        assert!(lanes.judge(0, &*old, Some(&lanes.sure(0..1))).is_err(), "old");
        assert_eq!(lanes.judge(0, &*old, None), Ok(5), "may be old");
        assert!(lanes.judge_finally(0, &*old).is_err());
        assert!(lanes.judge_finally(0, &*lanes.fresh(0)).is_err());
        assert!(lanes.judge_finally(1, &*new).is_err(), "of another page");
        assert!(lanes.judge_finally(0, &*with(&lanes, own, [0; WORD])).is_err(), "zero");
    }

    #[test]
    fn a_write_of_one_lane_that_failed_is_not_there_and_one_that_spans_may_be() {
        let lanes = lanes();
        let failed = with(&lanes, 1, lanes.begin(0, 1, false).expect("free").bytes());
        assert!(lanes.judge_finally(0, &*failed).is_err());
        let (end, _) = lanes.span();
        let failed = with(&lanes, end, lanes.begin(0, end, true).expect("free").bytes());
        assert_eq!(lanes.judge_finally(0, &*failed), Ok(()));
        assert_eq!(lanes.judge_finally(0, &*lanes.fresh(0)), Ok(()));
    }

    #[test]
    fn a_wipe_after_the_write_leaves_zeros_and_one_beside_it_may() {
        let lanes = lanes();
        let zero = [0; PAGE];
        let writing = lanes.begin(0, 1, false).expect("free");
        let written = with(&lanes, 1, writing.bytes());
        assert!(lanes.judge(0, &zero, None).is_err());
        let beside = lanes.wipe(0..1);
        assert_eq!(lanes.judge(0, &zero, None), Ok(5));
        writing.done();
        beside.done(&(0..1));
        let mut page = Box::new(zero);
        let place = lanes.place(1);
        page[place..place + WORD].copy_from_slice(&written[place..place + WORD]);
        assert_eq!(lanes.judge_finally(0, &*page), Ok(()));
        lanes.wipe(0..1).done(&(0..1));
        assert!(lanes.judge_finally(0, &*page).is_err(), "was wiped");
        assert_eq!(lanes.judge_finally(0, &zero), Ok(()));
        lanes.begin(0, 1, false).expect("free").done();
        assert!(lanes.judge_finally(0, &zero).is_err(), "written after all wipes");
    }
}
