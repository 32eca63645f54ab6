//! In a model every count is exact in the end: of a group, the pages in the state; of a child, its own
//! counts that are not zero. Counts that are too high show nowhere else, and only cost the scans their time.
//! And no writer holds a page of a VMO that ends: one who had forgotten to let go would show nowhere else.

use super::{LEAF, Leaf, Node, Table, Unstored, Word};
use crate::counts::Kind;
use crate::slot::{Slot, State};
use crate::sync::size::GROUP_BITS;

impl Table {
    /// Checks all counts of these kinds. The caller has the table to himself.
    pub(crate) fn check_counts(&self, kinds: &[Kind]) {
        check(self.top(), kinds);
    }
}

impl State {
    /// Checks that no writer holds the page, when its VMO ends.
    pub(crate) fn check_no_writers(self) {
        assert!(!matches!(self, Self::Dirty(page) if page.has_writers()), "a writer has not let go");
    }
}

fn check(node: &Node, kinds: &[Kind]) {
    for (child, counts) in node.counts.iter().enumerate() {
        for &kind in kinds {
            let expected = match node.child(child) {
                Word::All(all) => Some(u16::from(kind == Kind::Dirty && all != Unstored::Absent)),
                // A top that was, and counts for itself.
                Word::Node(below) if below.above.parent.is_null() => None,
                Word::Node(below) => Some(below.counts.iter().filter(|counts| counts.get(kind) > 0).count() as u16),
                Word::Leaf(leaf) => Some(leaf.counts.iter().filter(|counts| counts.get(kind) > 0).count() as u16),
            };
            assert!(expected.is_none_or(|expected| counts.get(kind) == expected), "a node's count of {kind:?} pages");
        }
        match node.child(child) {
            Word::All(_) => {}
            Word::Node(below) => check(below, kinds),
            Word::Leaf(leaf) => check_leaf(leaf, kinds),
        }
    }
}

fn check_leaf(leaf: &Leaf, kinds: &[Kind]) {
    for &kind in kinds {
        for (group, counts) in leaf.counts.iter().enumerate() {
            let slots = &leaf.slots[group << GROUP_BITS..LEAF.min((group + 1) << GROUP_BITS)];
            let counted = slots.iter().filter(|slot| is_of(slot, kind)).count();
            assert_eq!(usize::from(counts.get(kind)), counted, "a group's count of {kind:?} pages");
        }
    }
}

fn is_of(slot: &Slot, kind: Kind) -> bool {
    match slot.load() {
        State::Empty(_) | State::Requested(_) | State::Evicting(_) => false,
        State::Clean(_) => kind == Kind::Resident,
        State::Dirty(_) | State::AwaitingClean(_) => true,
        State::DirtyRequested(asked) => kind == Kind::Resident || asked.is_awaiting(),
        State::Zero(_) => kind == Kind::Dirty,
    }
}
