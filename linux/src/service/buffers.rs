//! Buffers that reads have filled and that are used again: in a new one the kernel zeroes each page, and the thread faults
//! for it.

use std::array;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crossbeam_queue::SegQueue;
use upager::PageCount;

use super::served::LONGEST;
use crate::source::PageBuf;

/// By the logarithm of their pages, rounded up.
const SIZES: usize = LONGEST.ilog2() as usize + 1;
/// The most pages that are kept: 8 MiB, or a sixteenth of the memory limit.
const MOST: u64 = 2048;

#[derive(Debug)]
pub(super) struct Buffers {
    sizes: [SegQueue<PageBuf>; SIZES],
    kept: AtomicU64,
    most: u64,
}

/// In which of the queues a buffer is. None: it is longer than a read.
fn size(pages: PageCount) -> Option<usize> {
    Some(pages.0.checked_next_power_of_two()?.ilog2() as usize).filter(|size| *size < SIZES)
}

impl Buffers {
    /// With as much memory as is right for a limit of so many pages.
    pub(super) fn new(limit: Option<PageCount>) -> Self {
        let most = limit.map_or(MOST, |limit| MOST.min(limit.0 / 16));
        Self { sizes: array::from_fn(|_| SegQueue::new()), kept: AtomicU64::new(0), most }
    }

    /// One of so many pages, with anything in it.
    pub(super) fn take(&self, pages: PageCount) -> PageBuf {
        let Some(mut buffer) = size(pages).and_then(|size| self.sizes[size].pop()) else { return PageBuf::new(pages) };
        self.kept.fetch_sub(buffer.pages().0, Relaxed); // Relaxed: a figure
        buffer.resize(pages);
        buffer
    }

    /// Takes one back.
    pub(super) fn give(&self, buffer: PageBuf) {
        let Some(size) = size(buffer.pages()) else { return };
        let pages = buffer.pages().0;
        // Relaxed, both: a figure
        if self.kept.fetch_add(pages, Relaxed) + pages > self.most {
            self.kept.fetch_sub(pages, Relaxed);
        } else {
            self.sizes[size].push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_used_again_and_no_more_are_kept_than_is_right() {
        let buffers = Buffers::new(Some(PageCount(1024)));
        let (first, second) = (buffers.take(PageCount(50)), buffers.take(PageCount(33)));
        buffers.give(first);
        buffers.give(second); // 83 pages would be more than 64
        assert_eq!(buffers.kept.load(Relaxed), 50);
        let again = buffers.take(PageCount(64));
        assert_eq!((again.pages(), buffers.kept.load(Relaxed)), (PageCount(64), 0));
        buffers.give(again);
        let shorter = buffers.take(PageCount(40));
        assert_eq!(shorter.pages(), PageCount(40));
        assert!(buffers.sizes.iter().all(SegQueue::is_empty));
        buffers.give(PageBuf::new(PageCount(LONGEST + 1)));
        assert_eq!(buffers.kept.load(Relaxed), 0);
    }
}
