//! Who reads one page after the other: how far a fault should read ahead.
//!
//! A region remembers where its last few faults would go on. A fault that is there goes on with a window twice as
//! large; any other takes the oldest memory's place, with a window of one page. Losing an update costs a guess.
//!
//! A reader may be faster than the loop that maps its window, and fault within it. Such faults do not push out the memory of
//! the sequence that they are part of.

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
        let mut part_of: Option<(usize, u64)> = None;
        for (n, memory) in self.streams.iter().enumerate() {
            let seen = memory.load(Relaxed);
            let window = (seen & ((1 << WINDOW_BITS) - 1)).min(most);
            if window > 0 && seen >> WINDOW_BITS == page.0 {
                let _ =
                    memory.compare_exchange(seen, stream(page.0 + window, (window * 2).min(most)), Relaxed, Relaxed);
                return window;
            }
            // The window that it is in is the last one, at least half as large as the next.
            let within = (page.0..=page.0 + window).contains(&(seen >> WINDOW_BITS));
            if within && part_of.is_none_or(|(_, largest)| window > largest) {
                part_of = Some((n, window));
            }
        }
        let mut oldest = self.oldest.fetch_add(1, Relaxed) % STREAMS;
        if part_of.is_some_and(|(n, _)| n == oldest) {
            oldest = self.oldest.fetch_add(1, Relaxed) % STREAMS;
        }
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
    fn faults_within_a_window_do_not_end_its_sequence() {
        let sequences = Sequences::default();
        let mut page = 0;
        let mut windows = Vec::new();
        for _ in 0..8 {
            let window = sequences.window(PageIndex(page), 32);
            // Every other page of it, which no sequence goes on with.
            for within in (2..window).step_by(2) {
                assert_eq!(sequences.window(PageIndex(page + within), 32), 1);
            }
            windows.push(window);
            page += window;
        }
        assert_eq!(windows, [1, 2, 4, 8, 16, 32, 32, 32]);
    }

    #[test]
    fn without_read_ahead_a_window_is_one_page() {
        let sequences = Sequences::default();
        assert!((0..20).all(|page| sequences.window(PageIndex(page), 1) == 1));
    }
}
