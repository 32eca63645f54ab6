//! Who writes where, and how a reader knows a written word from a wrong one.
//!
//! Every fourth page, from the first on, has an owner among the writers; the others are never
//! written to. A writer writes whole words of eight bytes. Each word is a *stamp*: a number that the
//! writer counts up, and a hash of that number, the page, the word's place in it, and the seed. So a
//! reader, who cannot know what the owner is writing at that moment, still checks exactly: a word of
//! an owned page is FILE's, or a stamp that belongs in this very place. A word of another place, of
//! another page, or torn, is neither (but for one in 2^32).

use upager::{PAGE_SIZE, PageIndex};

const OWNED_EVERY: u64 = 4;
/// Bytes of a word. The pager's heap platform copies such words in one piece.
pub(crate) const WORD: u64 = size_of::<u64>() as u64;

pub(crate) struct Plan {
    size: u64,
    writers: u64,
    seed: u64,
}

/// Bytes that are not what they must be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mismatch {
    /// Position of the first of them.
    pub(crate) offset: u64,
    /// How many.
    pub(crate) bytes: u64,
}

impl Plan {
    pub(crate) fn new(size: u64, writers: u16, seed: u64) -> Self {
        Self { size, writers: writers.into(), seed }
    }

    fn is_owned(&self, page: u64) -> bool {
        self.writers > 0 && page.is_multiple_of(OWNED_EVERY)
    }

    /// How many pages a writer owns.
    pub(crate) fn pages_of(&self, writer: u64) -> u64 {
        let owned = self.size.div_ceil(PAGE_SIZE).div_ceil(OWNED_EVERY);
        (owned + self.writers - 1 - writer) / self.writers
    }

    /// The writer's page number `n` of those it owns.
    pub(crate) fn page_of(&self, writer: u64, n: u64) -> PageIndex {
        PageIndex((n * self.writers + writer) * OWNED_EVERY)
    }

    /// How many words of the page may be written: those that lie wholly inside FILE.
    pub(crate) fn words_in(&self, page: PageIndex) -> u64 {
        (self.size - page.offset().0).min(PAGE_SIZE) / WORD
    }

    /// The bytes of `count` stamps, from word `word` of the page on.
    pub(crate) fn stamps(&self, page: PageIndex, word: u64, count: u64, number: u32) -> impl Iterator<Item = u8> {
        (word..word + count).flat_map(move |word| self.stamp(page.offset().0 + word * WORD, number).to_ne_bytes())
    }

    fn stamp(&self, offset: u64, number: u32) -> u64 {
        let hash = mix(self.seed ^ mix(offset ^ (u64::from(number) << 32)));
        (u64::from(number) << 32) | (hash >> 32)
    }

    fn is_stamp(&self, offset: u64, word: u64) -> bool {
        u32::try_from(word >> 32).is_ok_and(|number| self.stamp(offset, number) == word)
    }

    /// The range rounded out to words if it touches a page with an owner, so that it can be checked.
    pub(crate) fn checkable(&self, offset: u64, end: u64) -> (u64, u64) {
        let touches = (offset / PAGE_SIZE..end.div_ceil(PAGE_SIZE)).any(|page| self.is_owned(page));
        if touches { (offset / WORD * WORD, end.next_multiple_of(WORD)) } else { (offset, end) }
    }

    /// Compares what was read at `offset` with what FILE has there.
    pub(crate) fn check(&self, offset: u64, read: &[u8], file: &[u8]) -> Option<Mismatch> {
        if read == file {
            return None;
        }
        let mut found: Option<Mismatch> = None;
        let mut at = 0;
        while at < read.len() {
            let position = offset + at as u64;
            let piece = self.piece(position, read.len() - at);
            let (is, was) = (&read[at..at + piece], &file[at..at + piece]);
            if is != was && !self.is_stamped(position, is) {
                let bytes = is.iter().zip(was).filter(|(is, was)| is != was).count() as u64;
                found.get_or_insert(Mismatch { offset: position, bytes: 0 }).bytes += bytes;
            }
            at += piece;
        }
        found
    }

    /// How many of `left` bytes from a position on are judged together: a word of an owned page, or
    /// what is left of a page without an owner.
    fn piece(&self, position: u64, left: usize) -> usize {
        let of = if self.is_owned(position / PAGE_SIZE) { WORD } else { PAGE_SIZE };
        left.min((of - position % of) as usize)
    }

    fn is_stamped(&self, position: u64, bytes: &[u8]) -> bool {
        let word = <[u8; WORD as usize]>::try_from(bytes).map(u64::from_ne_bytes);
        word.is_ok_and(|word| self.is_owned(position / PAGE_SIZE) && self.is_stamp(position, word))
    }
}

/// Spreads every bit over all of them (the finaliser of splitmix64, Steele et al., 2014).
fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_fourth_page_has_one_owner() {
        for (pages, writers) in [(1, 1), (1, 3), (4, 1), (5, 2), (1000, 3), (1001, 7)] {
            let plan = Plan::new(pages * PAGE_SIZE, writers, 0);
            let owned: Vec<_> = (0..u64::from(writers))
                .flat_map(|writer| (0..plan.pages_of(writer)).map(move |n| (writer, n)))
                .map(|(writer, n)| plan.page_of(writer, n).0)
                .collect();
            let expected: BTreeSet<_> = (0..pages).filter(|page| plan.is_owned(*page)).collect();
            assert_eq!(owned.len(), expected.len());
            assert_eq!(owned.into_iter().collect::<BTreeSet<_>>(), expected);
        }
    }

    #[test]
    fn a_stamp_is_right_in_its_place_only() {
        let plan = Plan::new(8 * PAGE_SIZE, 1, 7);
        let file = vec![0; 2 * PAGE_SIZE as usize];
        let stamps: Vec<u8> = plan.stamps(PageIndex(4), 3, 2, 99).collect();
        let mut read = file.clone();
        read[24..40].copy_from_slice(&stamps);
        assert_eq!(plan.check(4 * PAGE_SIZE, &read, &file), None);
        assert!(plan.check(0, &read, &file).is_some(), "in another owned page");
        read[24..40].rotate_left(8);
        assert!(plan.check(4 * PAGE_SIZE, &read, &file).is_some(), "at another word");
        let mut read = file.clone();
        read[4096..4104].copy_from_slice(&stamps[..8]);
        let wrong = plan.check(4 * PAGE_SIZE, &read, &file).expect("a page without an owner is FILE's");
        assert_eq!(wrong.offset / PAGE_SIZE, 5);
        assert!((1..=8).contains(&wrong.bytes));
    }

    #[test]
    fn ranges_that_touch_an_owned_page_are_rounded_out_to_words() {
        let plan = Plan::new(8 * PAGE_SIZE, 1, 7);
        assert_eq!(plan.checkable(PAGE_SIZE + 3, PAGE_SIZE + 5), (PAGE_SIZE + 3, PAGE_SIZE + 5));
        assert_eq!(plan.checkable(3, 13), (0, 16));
        assert_eq!(Plan::new(8 * PAGE_SIZE, 0, 7).checkable(3, 13), (3, 13));
    }
}
