//! Who reads one page after the other: how far a fault should read ahead.
//!
//! A region remembers where its last few faults would go on. A fault that is there goes on with a window twice as
//! large; any other takes the oldest memory's place, with a window of one page. Losing an update costs a guess.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};

use upager::PageIndex;

const STREAMS: usize = 8;
const WINDOW_BITS: u32 = 16;

/// Streams of a region, each the page that comes next (48 bits) and the window it then gets (16 bits).
#[derive(Debug, Default)]
pub(crate) struct Sequences {
    streams: [AtomicU64; STREAMS],
    oldest: AtomicUsize,
}

const fn stream(next: u64, window: u64) -> u64 {
    next << WINDOW_BITS | window
}

impl Sequences {
    /// How many pages from this one on a fault should bring in, at most `most`.
    pub(crate) fn window(&self, page: PageIndex, most: u64) -> u64 {
        // Relaxed throughout: a guess
        let most = most.clamp(1, (1 << WINDOW_BITS) - 1);
        for memory in &self.streams {
            let seen = memory.load(Relaxed);
            let window = (seen & ((1 << WINDOW_BITS) - 1)).min(most);
            if window > 0 && seen >> WINDOW_BITS == page.0 {
                let _ =
                    memory.compare_exchange(seen, stream(page.0 + window, (window * 2).min(most)), Relaxed, Relaxed);
                return window;
            }
        }
        let oldest = self.oldest.fetch_add(1, Relaxed) % STREAMS;
        self.streams[oldest].store(stream(page.0 + 1, 2.min(most)), Relaxed);
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_doubles_its_window_and_others_do_not_disturb_it() {
        let sequences = Sequences::default();
        let mut page = 0;
        let mut windows = Vec::new();
        for other in 0..6 {
            assert_eq!(sequences.window(PageIndex(1_000_000 + other * 1000), 16), 1);
            let window = sequences.window(PageIndex(page), 16);
            windows.push(window);
            page += window;
        }
        assert_eq!(windows, [1, 2, 4, 8, 16, 16]);
    }

    #[test]
    fn without_read_ahead_a_window_is_one_page() {
        let sequences = Sequences::default();
        assert!((0..20).all(|page| sequences.window(PageIndex(page), 1) == 1));
    }
}
