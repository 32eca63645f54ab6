//! Counts that say where not to look.
//!
//! Every group of slots counts its resident and its dirty pages; every inner node counts, for each
//! child, how many of that child's counts are not zero. A scan goes down only where the count is
//! not zero, so it costs what it finds and not the size of the VMO.
//!
//! # The axiom
//!
//! *A count is never below the truth.* A page is counted before it enters the state, and
//! discounted after it left, by whoever moved it. Upwards the same: a count becomes one only after
//! its parent counted it, and its parent forgets it only after it became zero. Every arrow into
//! the state is thus preceded by a path of counts that are not zero, and the compare-and-swap of
//! the arrow publishes them. A scan may look in vain; it never passes over a page that was there
//! before it began.
//!
//! Only the change between zero and one touches the parent, so dirtying a second page near a
//! first writes no line that the whole VMO shares. (The idea is that of scalable non-zero
//! indicators, Ellen et al., PODC 2007; theirs answers for one bit, ours for a tree of them.)

use crate::sync::{AcqRel, Acquire, AtomicU16, Relaxed};

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Clean, dirty and awaiting clean: what has a frame and is not on its way out.
    Resident,
    /// Dirty and awaiting clean.
    Dirty,
}

/// One count of each kind, for the slots of a group or a child of a node.
#[derive(Debug)]
pub(crate) struct Counts {
    resident: AtomicU16,
    dirty: AtomicU16,
}

impl Counts {
    /// Of a child that does not report to its parent: it may have anything.
    pub(crate) fn unknown() -> Self {
        Self { resident: AtomicU16::new(1), dirty: AtomicU16::new(1) }
    }

    /// Of something new, with so many resident already.
    pub(crate) fn of_resident(resident: u16) -> Self {
        Self { resident: AtomicU16::new(resident), dirty: AtomicU16::new(0) }
    }

    /// Of something new, with so many dirty already.
    pub(crate) fn of_dirty(dirty: u16) -> Self {
        Self { resident: AtomicU16::new(0), dirty: AtomicU16::new(dirty) }
    }

    #[inline]
    fn of(&self, kind: Kind) -> &AtomicU16 {
        match kind {
            Kind::Resident => &self.resident,
            Kind::Dirty => &self.dirty,
        }
    }

    /// How many there may be. An upper bound at the time of the call.
    #[inline]
    pub(crate) fn get(&self, kind: Kind) -> u16 {
        self.of(kind).load(Acquire) // Acquire: pairs with `raise`, for the counts below
    }

    /// Counts `by` more, before they enter the state. `raise_parent` runs before a count that was zero
    /// becomes one, `lower_parent` if another thread was faster.
    #[inline]
    pub(crate) fn raise(&self, kind: Kind, by: u16, raise_parent: impl Fn(), lower_parent: impl Fn()) {
        let count = self.of(kind);
        let mut seen = count.load(Relaxed); // Relaxed: only a guess, the exchange below decides
        loop {
            if seen == 0 {
                raise_parent();
            }
            // AcqRel: Release shows the parent's count to whoever sees this one; Acquire takes
            // over the path that another thread raised, since this one relies on it. Relaxed on failure: as above.
            match count.compare_exchange(seen, seen.saturating_add(by), AcqRel, Relaxed) {
                Ok(_) => return,
                Err(now) => {
                    if seen == 0 {
                        lower_parent();
                    }
                    seen = now;
                }
            }
        }
    }

    /// Counts `by` less, after they have left.
    #[inline]
    pub(crate) fn lower(&self, kind: Kind, by: u16, lower_parent: impl Fn()) {
        // AcqRel: Release, the page left before; Acquire, who takes it to zero speaks to the parent for all who lowered it
        if self.of(kind).fetch_sub(by, AcqRel) == by {
            lower_parent();
        }
    }
}
