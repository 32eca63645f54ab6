//! Entries that are never moved once the pool is shared, and never freed while it lives, claimed and
//! released by number.
//!
//! The pool of a page source holds its requests, that of a port its VMOs, that of a pager the VMOs
//! it made. In each the same fact is used twice: *the bits that say which entries are taken are
//! also the set to walk* when all of them must be failed, closed or woken. So nothing has to be
//! linked into a second list, or found in one.
//!
//! # The rule of the walk
//!
//! [`claim`](Pool::claim) sets an entry's bit by a read-modify-write, and
//! [`for_each_claimed`](Pool::for_each_claimed) reads the bits by one; so they do with the word that
//! says whether a segment is there. The two are ordered: either
//! the claim comes first and the walk meets the entry, or the walk comes first and the claimer
//! sees whatever the walker did before it walked. Detach lives on this: it marks the VMO, then
//! walks; a faulter claims, then looks at the mark. One of the two notices the other.
//!
//! An entry is type-stable: a stale number leads to some entry of the same type, never to freed
//! memory. What it means is for the entry's own generation to say.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ptr;

use crate::status::{Result, Status};
#[cfg(accounting)]
use crate::sync::accounting::Lines;
use crate::sync::size::POOL_BITS;
use crate::sync::{AcqRel, Acquire, AtomicPtr, AtomicU64, Hint, Relaxed, Release};

/// Segments double from `1 << POOL_BITS` entries; together they stay below 2^17, the numbers that
/// the page word has room for.
const SEGMENTS: usize = 17 - POOL_BITS as usize;
const WORD: usize = 64;

#[derive(Debug)]
pub(crate) struct Pool<T> {
    /// The first segment, which is enough for most.
    first: Segment<[Words; words_of(0)], [T; entries_of(0)]>,
    /// The others.
    further: [AtomicPtr<Further<T>>; SEGMENTS - 1],
    /// The first entry of a word that is likely to have a free one.
    hint: Hint,
}

/// Entries, and the words of their bits.
#[derive(Clone, Copy, Debug)]
struct Segment<W, E> {
    words: W,
    entries: E,
}

type Further<T> = Segment<Box<[Words]>, Box<[T]>>;
type Seen<'a, T> = Segment<&'a [Words], &'a [T]>;

/// One bit an entry, in each. On a line of their own, since whoever claims or marks writes them: they
/// would else share one with whatever lies next to them.
#[derive(Debug)]
#[repr(align(64))]
struct Words {
    /// Also set for those that there are not.
    claimed: AtomicU64,
    /// Of [`MARKED`] entries each: their bits, and a version, which every change makes another.
    marks: [AtomicU64; WORD / MARKED],
}

/// Entries whose marks share a word. The version has the other bits: it would have to come round while a
/// thread sleeps between two instructions.
const MARKED: usize = 16;
const MARKS: u64 = (1 << MARKED) - 1;
const VERSION: u64 = 1 << MARKED;

/// An entry that was found marked, and the word of its mark then.
#[derive(Debug)]
pub(crate) struct Marked<'a, T> {
    pub(crate) index: u32,
    pub(crate) spot: Spot<'a, T>,
    seen: u64,
}

impl Words {
    fn new(segment: usize) -> Self {
        Self { claimed: AtomicU64::new(!mask_of(segment)), marks: core::array::from_fn(|_| AtomicU64::new(0)) }
    }

    /// The first marked bit of those in `mask`, and the word that has it.
    #[inline]
    fn marked(&self, mask: u64) -> Option<(u32, u64)> {
        // Most words of a large pool have none, and this tells by one test. Acquire: as below
        if mask == u64::MAX && self.marks.iter().fold(0, |all, word| all | word.load(Acquire)) & MARKS == 0 {
            return None;
        }
        let mut rest = mask;
        while rest != 0 {
            let nth = rest.trailing_zeros() as usize / MARKED;
            let first = (nth * MARKED) as u32;
            let seen = self.marks[nth].load(Acquire); // Acquire: pairs with every `mark` that came before
            let marked = seen & MARKS & rest >> first;
            if marked != 0 {
                return Some((first + marked.trailing_zeros(), seen));
            }
            rest &= !(MARKS << first);
        }
        None
    }
}

/// A word of a segment: which segment, which word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Place {
    segment: usize,
    word: usize,
}

const fn entries_of(segment: usize) -> usize {
    1 << (POOL_BITS as usize + segment)
}

const fn words_of(segment: usize) -> usize {
    entries_of(segment).div_ceil(WORD)
}

/// The bits of a word that stand for entries.
const fn mask_of(segment: usize) -> u64 {
    if entries_of(segment) >= WORD { u64::MAX } else { (1 << entries_of(segment)) - 1 }
}

const fn first_of(segment: usize) -> usize {
    entries_of(segment) - entries_of(0)
}

impl Place {
    const FIRST: Self = Self { segment: 0, word: 0 };

    #[inline]
    const fn index(self, bit: u32) -> u32 {
        (first_of(self.segment) + self.word * WORD) as u32 + bit
    }

    #[inline]
    const fn of(index: u32) -> (Self, u32) {
        if (index as usize) < entries_of(0) {
            return (Self::FIRST, index); // as below, and most are
        }
        let position = index as usize + entries_of(0);
        let segment = position.ilog2() as usize - POOL_BITS as usize;
        let offset = position - entries_of(segment);
        (Self { segment, word: offset / WORD }, (offset % WORD) as u32)
    }
}

/// An entry, and its mark.
#[derive(Debug)]
pub(crate) struct Spot<'a, T> {
    pub(crate) entry: &'a T,
    marks: &'a AtomicU64,
    bit: u64,
}

impl<T> Spot<'_, T> {
    /// Sets the mark; if it is set, anew. Lock-free: it tries again only when another thread has set or cleared
    /// the mark of a neighbour.
    #[inline]
    pub(crate) fn mark(&self) {
        let mut seen = self.marks.load(Relaxed); // Relaxed: only a guess, the swap decides
        loop {
            let marked = (seen | self.bit).wrapping_add(VERSION);
            // Release shows what was done before the mark to whoever finds it, by this mark or by a later one:
            // every change of the word is a read-modify-write. Relaxed besides: nothing is taken over.
            match self.marks.compare_exchange(seen, marked, Release, Relaxed) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }
}

impl<T> Marked<'_, T> {
    /// Clears the mark that was found, unless it was set anew. (Or that of a neighbour was: then it stays set for
    /// nothing, until the next one comes by.)
    #[inline]
    pub(crate) fn unmark(&self) {
        let cleared = (self.seen & !self.spot.bit).wrapping_add(VERSION);
        // Relaxed: whoever found the mark has taken over what came before it, and what comes after is marked anew
        let _ = self.spot.marks.compare_exchange(self.seen, cleared, Relaxed, Relaxed);
    }
}

impl<'a, T> Seen<'a, T> {
    #[inline]
    fn entry(&self, place: Place, bit: u32) -> Option<&'a T> {
        self.entries.get(place.word * WORD + bit as usize)
    }

    #[inline]
    fn spot(&self, place: Place, bit: u32) -> Option<Spot<'a, T>> {
        let marks = &self.words.get(place.word)?.marks[bit as usize / MARKED];
        Some(Spot { entry: self.entry(place, bit)?, marks, bit: 1 << (bit as usize % MARKED) })
    }

    /// Takes the first free entry of one word.
    #[inline]
    fn claim(&self, place: Place) -> Option<(u32, &'a T)> {
        let word = &self.words.get(place.word)?.claimed;
        let mut seen = word.load(Relaxed); // Relaxed: only a guess, the read-modify-write below decides
        loop {
            let bit = (!seen).trailing_zeros();
            if bit == u64::BITS {
                return None;
            }
            // AcqRel: Acquire takes over the entry from `release`, and the walker's mark from
            // `for_each_claimed`; Release shows the claim to the walker ("the rule of the walk").
            seen = word.fetch_or(1 << bit, AcqRel);
            if seen & (1 << bit) == 0 {
                return Some((place.index(bit), self.entry(place, bit)?));
            }
        }
    }

    /// The first marked entry of those of one word that are in `mask`.
    #[inline]
    fn marked(&self, place: Place, mask: u64) -> Option<Marked<'a, T>> {
        let (bit, seen) = self.words.get(place.word)?.marked(mask & mask_of(place.segment))?;
        Some(Marked { index: place.index(bit), spot: self.spot(place, bit)?, seen })
    }

    /// Calls `f` for the entries of one word whose bits are set.
    fn visit(&self, place: Place, bits: u64, f: &mut impl FnMut(u32, &T)) {
        let mut bits = bits & mask_of(place.segment);
        while bits != 0 {
            let bit = bits.trailing_zeros();
            bits &= bits - 1;
            f(place.index(bit), &self.entries[place.word * WORD + bit as usize]);
        }
    }
}

impl<T: Default> Pool<T> {
    pub(crate) fn new() -> Self {
        Self {
            first: Segment {
                words: core::array::from_fn(|_| Words::new(0)),
                entries: core::array::from_fn(|_| T::default()),
            },
            further: core::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
            hint: Hint::default(),
        }
    }

    #[inline]
    fn segment(&self, segment: usize) -> Option<Seen<'_, T>> {
        let Some(further) = segment.checked_sub(1) else {
            return Some(Segment { words: &self.first.words, entries: &self.first.entries });
        };
        // Acquire: pairs with the publication in `grow`
        let at = self.further.get(further)?.load(Acquire);
        // SAFETY: a segment, once published, is freed only by Drop, which has the pool to itself.
        unsafe { at.as_ref() }.map(|segment| Segment { words: &*segment.words, entries: &*segment.entries })
    }

    /// Makes a further segment, unless it is there.
    fn grow(&self, segment: usize) -> Result<()> {
        let fresh = try_box(Segment {
            words: try_boxed(words_of(segment), || Words::new(segment))?,
            entries: try_boxed(entries_of(segment), T::default)?,
        })?;
        let fresh = Box::into_raw(fresh);
        // Release publishes the new entries to `segment`. That load, by whoever it may be, also takes over what a walker
        // did before it found the gap: this exchange goes on with the release of the walker's. Relaxed, on failure:
        // nothing is used of the segment of another thread.
        if self.further[segment - 1].compare_exchange(ptr::null_mut(), fresh, Release, Relaxed).is_err() {
            // SAFETY: `fresh` came from Box::into_raw above and was not published.
            drop(unsafe { Box::from_raw(fresh) });
        }
        Ok(())
    }

    /// The entry with a number that [`claim`](Self::claim) has returned at some time.
    #[inline]
    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        let (place, bit) = Place::of(index);
        self.segment(place.segment)?.entry(place, bit)
    }

    /// Takes a free entry: its number, and the entry. Lock-free: it tries again only when another thread
    /// has claimed one.
    #[inline]
    pub(crate) fn claim(&self) -> Result<(u32, &T)> {
        let (mut hint, _) = Place::of(self.hint.get() as u32);
        if self.segment(hint.segment).is_none() {
            hint = Place::FIRST; // its segment is new, and not to be seen yet
        }
        match self.segment(hint.segment).and_then(|segment| segment.claim(hint)) {
            Some(claimed) => Ok(claimed),
            None => self.claim_elsewhere(hint),
        }
    }

    /// Takes an entry where this word, which is there, had none: of the next word that has one; if there is none, of a
    /// further segment.
    #[cold]
    fn claim_elsewhere(&self, full: Place) -> Result<(u32, &T)> {
        loop {
            // Before the words: if none is missing, there are no others.
            let missing = (1..SEGMENTS).find(|segment| self.segment(*segment).is_none());
            for (place, segment) in self.ring(full) {
                if let Some(claimed) = segment.claim(place) {
                    self.steer(place);
                    return Ok(claimed);
                }
            }
            let missing = missing.ok_or(Status::NoResources)?;
            if self.segment(missing).is_none() {
                self.grow(missing)?;
            }
        }
    }

    /// The next claim looks into this word first. Written only when it is another one, so that the line
    /// stays with all who read it.
    #[inline]
    fn steer(&self, place: Place) {
        let first = place.index(0) as usize;
        if self.hint.get() != first {
            self.hint.set(first);
        }
    }

    /// Gives an entry back. The caller must have claimed it, and not released it since.
    #[inline]
    pub(crate) fn release(&self, index: u32) {
        let (place, bit) = Place::of(index);
        self.release_bits(Some((place, 1 << bit)));
    }

    /// As [`release`](Self::release), of several: neighbours are one step.
    #[inline]
    pub(crate) fn release_all(&self, indices: impl Iterator<Item = u32>) {
        let mut run: Option<(Place, u64)> = None;
        for index in indices {
            let (place, bit) = Place::of(index);
            match &mut run {
                Some((same, bits)) if *same == place => *bits |= 1 << bit,
                _ => {
                    self.release_bits(run);
                    run = Some((place, 1 << bit));
                }
            }
        }
        self.release_bits(run);
    }

    #[inline]
    fn release_bits(&self, run: Option<(Place, u64)>) {
        if let Some((place, bits)) = run
            && let Some(segment) = self.segment(place.segment)
        {
            // Release: what the last owners did with the entries comes before their next `claim`
            segment.words[place.word].claimed.fetch_and(!bits, Release);
            self.steer(place);
        }
    }

    /// As [`get`](Self::get), for who marks the entry.
    #[inline]
    pub(crate) fn spot(&self, index: u32) -> Option<Spot<'_, T>> {
        let (place, bit) = Place::of(index);
        self.segment(place.segment)?.spot(place, bit)
    }

    /// The first entry at or after `from`, and around, that has a mark.
    #[inline]
    pub(crate) fn next_marked<'a>(&'a self, from: u32) -> Option<Marked<'a, T>> {
        // After the last entry that there is comes the first.
        let (from, bit) = Place::of(from);
        let (start, after) =
            if self.segment(from.segment).is_some() { (from, u64::MAX << bit) } else { (Place::FIRST, u64::MAX) };
        let mut ring = self.ring(start);
        let around =
            |(place, segment): (_, Seen<'a, T>)| segment.marked(place, if place == start { after } else { u64::MAX });
        ring.find_map(around).or_else(|| self.segment(start.segment)?.marked(start, !after))
    }

    /// Whether another entry than this one, which is there, has a mark.
    pub(crate) fn has_other_marked(&self, index: u32) -> bool {
        let (own, bit) = Place::of(index);
        let others = |place| if place == own { !(1 << bit) } else { u64::MAX };
        self.ring(own).any(|(place, segment)| segment.marked(place, others(place)).is_some())
    }

    /// The words that there are, each once, from this one on, which must be there: then those after the last come back to it,
    /// for whoever sees a segment sees those before it.
    #[inline]
    fn ring(&self, start: Place) -> impl Iterator<Item = (Place, Seen<'_, T>)> {
        let first = self.segment(start.segment).map(|segment| (start, segment));
        core::iter::successors(first, move |at| self.word_after(*at).filter(|(place, _)| *place != start))
    }

    /// The word after this one; after the last that there is, the first.
    #[inline]
    fn word_after<'a>(&'a self, (place, segment): (Place, Seen<'a, T>)) -> Option<(Place, Seen<'a, T>)> {
        let word = place.word + 1;
        if word < segment.words.len() {
            return Some((Place { word, ..place }, segment));
        }
        let next = place.segment + 1;
        match self.segment(next) {
            Some(further) => Some((Place { segment: next, word: 0 }, further)),
            None => Some((Place::FIRST, self.segment(0)?)),
        }
    }

    /// Calls `f` for every entry that is seen claimed: each that was claimed before the caller came
    /// to know of it, and perhaps others. Unlike the walk it orders nothing and writes nothing.
    pub(crate) fn glance(&self, mut f: impl FnMut(u32, &T)) {
        for segment in 0..SEGMENTS {
            let Some(entries) = self.segment(segment) else { return };
            for word in 0..words_of(segment) {
                let claimed = entries.words[word].claimed.load(Acquire); // Acquire: pairs with `claim`
                entries.visit(Place { segment, word }, claimed, &mut f);
            }
        }
    }

    /// Calls `f` for every entry that was claimed when the walk came by. See "the rule of the walk".
    pub(crate) fn for_each_claimed(&self, mut f: impl FnMut(u32, &T)) {
        for segment in 0..SEGMENTS {
            if let Some(further) = segment.checked_sub(1) {
                // Segments are published in order, so the first gap is the end: if it is one in the
                // order of the word's writes. AcqRel: whoever makes the segment later takes over from
                // this exchange what we did before, as from the words below ("the rule of the walk").
                let (gap, word) = (ptr::null_mut(), &self.further[further]);
                if word.compare_exchange(gap, gap, AcqRel, Acquire).is_ok() {
                    return;
                }
            }
            let Some(entries) = self.segment(segment) else { return };
            for word in 0..words_of(segment) {
                // AcqRel on a write that changes nothing: see "the rule of the walk"
                let claimed = entries.words[word].claimed.fetch_or(0, AcqRel);
                entries.visit(Place { segment, word }, claimed, &mut f);
            }
        }
    }
}

#[cfg(accounting)]
impl<T: Default> Pool<T> {
    /// `names`: of its pointers to segments, its hint, its bits and its entries, each with who contends.
    pub(crate) fn lines(&self, lines: &mut Lines, names: [(&'static str, &'static str); 4]) {
        let [segments, hint, bits, entries] = names;
        lines.add(&self.further, segments.0, segments.1);
        lines.add(&self.hint, hint.0, hint.1);
        for segment in (0..SEGMENTS).map_while(|segment| self.segment(segment)) {
            lines.add(segment.words, bits.0, bits.1);
            lines.add(segment.entries, entries.0, entries.1);
        }
    }
}

impl<T> Drop for Pool<T> {
    fn drop(&mut self) {
        for segment in &self.further {
            let at = segment.load(Relaxed); // Relaxed: `&mut self` comes after every `grow`
            if !at.is_null() {
                // SAFETY: published by `grow` from Box::into_raw; `&mut self` says nobody looks.
                drop(unsafe { Box::from_raw(at) });
            }
        }
    }
}

/// `Box::new` that reports failure instead of aborting.
pub(crate) fn try_box<T>(value: T) -> Result<Box<T>> {
    let boxed = try_boxed_from(1, core::iter::once(value))?;
    let raw = Box::into_raw(boxed).cast::<T>();
    // SAFETY: a boxed slice of one T has the layout of a boxed T, and `raw` owns it.
    Ok(unsafe { Box::from_raw(raw) })
}

/// A boxed slice of `len` made values, or `NoMemory`.
pub(crate) fn try_boxed<T>(len: usize, make: impl FnMut() -> T) -> Result<Box<[T]>> {
    try_boxed_from(len, core::iter::repeat_with(make).take(len))
}

fn try_boxed_from<T>(len: usize, values: impl Iterator<Item = T>) -> Result<Box<[T]>> {
    let mut vec = Vec::new();
    vec.try_reserve_exact(len).map_err(|_| Status::NoMemory)?;
    vec.extend(values);
    Ok(vec.into_boxed_slice())
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_places_are_inverse() {
        for index in (0..3000).chain([(1 << 17) - 9, (1 << 17) - 10]) {
            let (place, bit) = Place::of(index);
            assert_eq!(place.index(bit), index);
        }
    }

    #[test]
    fn claims_are_distinct_and_the_walk_meets_each() {
        let pool = Pool::<u8>::new();
        let mut claimed: Vec<u32> = (0..1000).map(|_| pool.claim().unwrap().0).collect();
        claimed.sort_unstable();
        assert_eq!(claimed, (0..1000).collect::<Vec<_>>());
        for index in claimed.iter().filter(|i| *i % 3 != 0) {
            pool.release(*index);
        }
        let mut met = Vec::new();
        pool.for_each_claimed(|index, _| met.push(index));
        assert_eq!(met, (0..1000).filter(|i| i % 3 == 0).collect::<Vec<_>>());
        assert!(!pool.claim().unwrap().0.is_multiple_of(3));
    }

    #[test]
    fn marks_are_found_around_the_ring() {
        let pool = Pool::<u8>::new();
        for _ in 0..500 {
            pool.claim().unwrap();
        }
        assert!(pool.next_marked(7).is_none());
        let spot = |index| pool.spot(index).unwrap();
        let next = |from| pool.next_marked(from).map(|marked| marked.index);
        spot(9).mark();
        spot(300).mark();
        for (from, found) in [(0, 9), (9, 9), (10, 300), (300, 300), (301, 9), (499, 9)] {
            assert_eq!(next(from), Some(found), "from {from}");
        }
        pool.next_marked(300).unwrap().unmark();
        assert_eq!(next(10), Some(9));
    }

    #[test]
    fn a_mark_that_was_set_anew_stays() {
        let pool = Pool::<u8>::new();
        for _ in 0..40 {
            pool.claim().unwrap();
        }
        let spot = |index| pool.spot(index).unwrap();
        spot(30).mark();
        let found = pool.next_marked(0).unwrap();
        spot(30).mark();
        found.unmark();
        let again = pool.next_marked(0).unwrap();
        assert_eq!(again.index, 30);
        again.unmark();
        assert!(pool.next_marked(0).is_none());
        spot(30).mark();
        again.unmark();
        assert!(pool.next_marked(0).is_some(), "what was found before it was cleared");
    }

    #[test]
    fn a_full_pool_says_so() {
        let pool = Pool::<()>::new();
        let mut n = 0;
        while pool.claim().is_ok() {
            n += 1;
        }
        assert_eq!(n, (1 << 17) - (1 << POOL_BITS));
        pool.spot(n - 1).unwrap().mark();
        assert_eq!(pool.next_marked(n).unwrap().index, n - 1, "from past the last entry, around");
        assert_eq!(pool.claim(), Err(Status::NoResources));
        pool.release(17);
        assert_eq!(pool.claim(), Ok((17, &())));
        assert_eq!(pool.claim(), Err(Status::NoResources));
    }
}
