//! Who reads one page after the other: how far a fault should read ahead.
//!
//! A region remembers where its last few faults would go on. A fault that is there goes on with a window twice as
//! large; any other takes the oldest memory's place, with a window of one page. Losing an update costs a guess.
//!
//! What comes after the window is to be brought near meanwhile: as much again while the windows grow, and [`WINDOWS_AHEAD`]
//! windows when they have come to their full size. Each page of it is told of once.
//!
//! A reader may be faster than the loop that maps its window, and fault within it. Such faults do not push out the memory of
//! the sequence that they are part of.

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};

use upager::PageIndex;

const STREAMS: usize = 8;
const WINDOW_BITS: u32 = 16;

/// Windows of the full size that are on their way while one is read. The rate of a source that is far away is what is on its
/// way over the time that it takes.
pub(crate) const WINDOWS_AHEAD: u64 = 3;

/// A sequence of a region.
#[derive(Debug, Default)]
struct Stream {
    /// The page that comes next (48 bits), and the window that it then gets (16 bits).
    next: AtomicU64,
    /// The page before which everything has been told of.
    told: AtomicU64,
}

#[derive(Debug, Default)]
pub(crate) struct Sequences {
    streams: [Stream; STREAMS],
    oldest: AtomicUsize,
}

/// What a fault is to bring in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Wish {
    /// The page.
    Alone,
    /// So many pages, from it on; and those of the range are to be brought near.
    Window(u64, Range<u64>),
    /// The page, which is one of a window; if it is not there, what of the window is not there either, up to so many pages.
    Within(u64),
}

const fn stream(next: u64, window: u64) -> u64 {
    next << WINDOW_BITS | window
}

impl Sequences {
    /// What a fault of this page should bring in: at most `most` pages at a time, and with what comes after them `in_all`, or two
    /// windows.
    pub(crate) fn wish(&self, page: PageIndex, most: u64, in_all: u64) -> Wish {
        // Relaxed throughout: a guess
        let most = most.clamp(1, (1 << WINDOW_BITS) - 1);
        // The stream, its window, and what is left of that.
        let mut part_of: Option<(usize, u64, u64)> = None;
        for (n, memory) in self.streams.iter().enumerate() {
            let seen = memory.next.load(Relaxed);
            let (next, window) = (seen >> WINDOW_BITS, (seen & ((1 << WINDOW_BITS) - 1)).min(most));
            if window > 0 && next == page.0 {
                let after = page.0 + window;
                let goes_on = stream(after, (window * 2).min(most));
                let _ = memory.next.compare_exchange(seen, goes_on, Relaxed, Relaxed);
                let ahead = if window == most { window * WINDOWS_AHEAD } else { window };
                let until = after + ahead.min(in_all.saturating_sub(window)).max(window);
                let from = memory.told.load(Relaxed).clamp(after, until);
                memory.told.store(until, Relaxed);
                return if window == 1 { Wish::Alone } else { Wish::Window(window, from..until) };
            }
            // The window that it is in is the last one, at least half as large as the next.
            let within = window > 0 && (page.0..=page.0 + window).contains(&next);
            if within && part_of.is_none_or(|(_, largest, _)| window > largest) {
                part_of = Some((n, window, next - page.0));
            }
        }
        let mut oldest = self.oldest.fetch_add(1, Relaxed) % STREAMS;
        if part_of.is_some_and(|(n, ..)| n == oldest) {
            oldest = self.oldest.fetch_add(1, Relaxed) % STREAMS;
        }
        self.streams[oldest].told.store(0, Relaxed);
        self.streams[oldest].next.store(stream(page.0 + 1, 2.min(most)), Relaxed);
        part_of.map_or(Wish::Alone, |(.., rest)| Wish::Within(rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(wish: &Wish) -> u64 {
        if let Wish::Window(pages, _) = wish { *pages } else { 1 }
    }

    #[test]
    fn a_sequence_doubles_its_window_and_others_do_not_disturb_it() {
        let sequences = Sequences::default();
        let mut page = 0;
        let mut windows = Vec::new();
        for other in 0..6 {
            assert_eq!(sequences.wish(PageIndex(1_000_000 + other * 1000), 16, u64::MAX), Wish::Alone);
            let window = window(&sequences.wish(PageIndex(page), 16, u64::MAX));
            windows.push(window);
            page += window;
        }
        assert_eq!(windows, [1, 2, 4, 8, 16, 16]);
    }

    #[test]
    fn what_is_ahead_is_told_once_and_reaches_further_when_the_windows_are_large() {
        let sequences = Sequences::default();
        let (mut page, mut told) = (0, 0);
        for n in 0..8 {
            match sequences.wish(PageIndex(page), 8, u64::MAX) {
                Wish::Window(window, ahead) => {
                    page += window;
                    assert_eq!(ahead.start, page.max(told), "without a gap, and nothing twice");
                    told = ahead.end;
                    let windows = if window == 8 { WINDOWS_AHEAD } else { 1 };
                    assert_eq!(told, page + windows * window);
                }
                alone => {
                    assert_eq!((n, &alone), (0, &Wish::Alone));
                    page += 1;
                }
            }
        }
        assert_eq!(page, 1 + 2 + 4 + 5 * 8);
    }

    #[test]
    fn what_is_ahead_has_a_bound_where_memory_has_one() {
        for (in_all, ahead) in [(0, 8), (16, 8), (24, 16), (31, 23), (100, 24)] {
            let sequences = Sequences::default();
            let mut page = 0;
            let mut last = 0..0;
            for _ in 0..6 {
                if let Wish::Window(window, ahead) = sequences.wish(PageIndex(page), 8, in_all) {
                    (page, last) = (page + window, ahead);
                } else {
                    page += 1;
                }
            }
            assert_eq!(last.end, page + ahead, "{in_all}");
        }
    }

    #[test]
    fn faults_within_a_window_do_not_end_its_sequence() {
        let sequences = Sequences::default();
        let mut page = 0;
        let mut windows = Vec::new();
        for _ in 0..8 {
            let window = window(&sequences.wish(PageIndex(page), 32, u64::MAX));
            // Every other page of it, which no sequence goes on with.
            for within in (2..window).step_by(2) {
                assert_eq!(sequences.wish(PageIndex(page + within), 32, u64::MAX), Wish::Within(window - within));
            }
            windows.push(window);
            page += window;
        }
        assert_eq!(windows, [1, 2, 4, 8, 16, 32, 32, 32]);
    }

    #[test]
    fn without_read_ahead_a_window_is_one_page() {
        let sequences = Sequences::default();
        assert!((0..20).all(|page| sequences.wish(PageIndex(page), 1, u64::MAX) == Wish::Alone));
    }
}
