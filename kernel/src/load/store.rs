//! What the pager task supplies from: the image that was compressed when the kernel was built, and over it
//! the pages that were written back. And what must be there in the end, as the writers know it.

use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicU32, AtomicU64};

use alloc::boxed::Box;

use super::plan::{self, PAGES, WORDS};
use crate::machine::memory::PAGE;

static IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/image.lz4"));
static ENDS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/image.ends"));

/// Where the page with this number ends in the image.
fn end(page: usize) -> usize {
    let bytes = ENDS[page * 4..].first_chunk().expect("an end for each page");
    u32::from_le_bytes(*bytes) as usize
}

/// One VMO's pages as they were written back. A page's bytes are written by one writeback at a time, while no
/// supply reads them: the page is resident then.
pub(crate) struct Copy {
    vmo: usize,
    words: &'static [AtomicU64],
    /// Bit by bit, whether a page was written back.
    present: Box<[AtomicU64]>,
}

impl Copy {
    pub(crate) fn new(vmo: usize, words: &'static [AtomicU64]) -> Self {
        Self { vmo, words, present: (0..PAGES.div_ceil(64)).map(|_| AtomicU64::new(0)).collect() }
    }

    fn of(&self, page: u64) -> &[AtomicU64] {
        &self.words[(page * WORDS) as usize..((page + 1) * WORDS) as usize]
    }

    pub(crate) fn read(&self, page: u64, to: &mut [u8; PAGE]) {
        // Acquire: pairs with `write`, for the words
        if self.present[(page / 64) as usize].load(Acquire) & 1 << (page % 64) == 0 {
            let page = self.vmo * PAGES as usize + page as usize;
            let start = page.checked_sub(1).map_or(0, end);
            let size = lz4_flex::block::decompress_into(&IMAGE[start..end(page)], to);
            assert!(size.is_ok_and(|size| size == PAGE), "page {page} of the image");
            return;
        }
        for (word, bytes) in self.of(page).iter().zip(to.chunks_exact_mut(8)) {
            bytes.copy_from_slice(&word.load(Relaxed).to_le_bytes()); // Relaxed: `present` orders it
        }
    }

    pub(crate) fn write(&self, page: u64, from: &[u8]) {
        for (word, bytes) in self.of(page).iter().zip(from.chunks_exact(8)) {
            word.store(u64::from_le_bytes(*bytes.first_chunk().expect("eight")), Relaxed); // Relaxed: as in `read`
        }
        self.present[(page / 64) as usize].fetch_or(1 << (page % 64), AcqRel); // AcqRel: pairs with `read`
    }
}

/// The number of the last stamp of each word that has an owner; 0: none.
pub(crate) struct Shadow(Box<[AtomicU32]>);

impl Shadow {
    pub(crate) fn new() -> Self {
        Self((0..plan::OWNED * WORDS).map(|_| AtomicU32::new(0)).collect())
    }

    fn at(&self, n: u64, word: u64) -> &AtomicU32 {
        &self.0[(n * WORDS + word) as usize]
    }

    pub(crate) fn set(&self, n: u64, word: u64, number: u32) {
        self.at(n, word).store(number, Release); // Release: the writer is home before it is compared
    }

    /// What the word must be.
    pub(crate) fn word(&self, vmo: usize, n: u64, word: u64) -> u64 {
        match self.at(n, word).load(Acquire) {
            0 => plan::original(vmo, plan::owned(n), word),
            number => plan::stamp(vmo, plan::owned(n), word, number),
        }
    }
}
