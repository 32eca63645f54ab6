//! From page number to page word.
//!
//! ```text
//!   root: one child for each 2 MiB, up to 8 GiB     (larger: 512-way nodes between)
//!     |
//!     +-> leaf: 512 slots, 8 pairs of counts
//! ```
//!
//! A resident lookup loads the child pointer and then the slot: two dependent loads, no store.
//! The root is as large as the VMO needs, so up to 8 GiB there is no level between.
//!
//! Nodes are made when a page of theirs is first requested or supplied, are published once by a
//! compare-and-swap, and live as long as the table. So a reference into the table needs no pin;
//! what needs one is the frame that a slot names.
//!
//! Memory: a leaf is 4096 bytes of slots and less than 64 of counts, its entry in a node 12, so a
//! dense range costs 8.15 bytes a page; a lone page costs a leaf.

use alloc::boxed::Box;
use core::ops::ControlFlow;
use core::ptr;

use crate::counts::{Counts, Kind};
use crate::pool::{try_box, try_boxed};
use crate::slot::Slot;
use crate::status::Result;
use crate::sync::size::{GROUP_BITS, LEAF_BITS, NODE_BITS, ROOT_BITS};
use crate::sync::{AcqRel, Acquire, AtomicPtr};
use crate::units::{PageCount, PageIndex, PageRange};

const LEAF: usize = 1 << LEAF_BITS;
const GROUP: usize = 1 << GROUP_BITS;
const GROUPS: usize = LEAF / GROUP;

#[derive(Debug)]
pub(crate) struct Table {
    root: Box<Node>,
    /// Nodes on the way to a leaf, the root included.
    height: u32,
    /// The root's children if they are leaves, else nothing: the whole of the usual lookup.
    leaves: Leaves,
}

/// A second way to the words of a root whose children are leaves.
#[derive(Debug)]
struct Leaves(ptr::NonNull<[AtomicPtr<()>]>);

// SAFETY: only followed to shared data that the table keeps alive, see `Leaves::get`.
unsafe impl Send for Leaves {}
// SAFETY: as for Send.
unsafe impl Sync for Leaves {}

impl Leaves {
    #[inline]
    fn get(&self, leaf: u64) -> Option<&AtomicPtr<()>> {
        // SAFETY: the words are boxed by the root, which the table that has `self` owns and never
        // replaces.
        unsafe { self.0.as_ref() }.get(leaf as usize)
    }
}

#[derive(Debug)]
struct Node {
    /// Nodes, or leaves below the lowest level.
    children: Box<[AtomicPtr<()>]>,
    counts: Box<[Counts]>,
    above: Above,
}

#[derive(Debug)]
#[repr(C)]
struct Leaf {
    slots: [Slot; LEAF],
    counts: [Counts; GROUPS],
    above: Above,
}

/// The place of a node or leaf in its parent.
#[derive(Clone, Copy, Debug)]
struct Above {
    parent: *const Node,
    child: usize,
}

// SAFETY: the pointer is only followed to shared data that the table keeps alive, see `Above::raise`.
unsafe impl Send for Above {}
// SAFETY: as for Send.
unsafe impl Sync for Above {}

/// A page's place in the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At<'a> {
    leaf: &'a Leaf,
    slot: usize,
}

impl Above {
    const ROOT: Self = Self { parent: ptr::null(), child: 0 };

    fn node(self) -> Option<(&'static Node, usize)> {
        // SAFETY: a parent is made before its children and freed after them, with the table, and
        // it does not move: it is boxed. The reference does not outlive the calls below, which
        // are made through a reference into the same table.
        unsafe { self.parent.as_ref() }.map(|node| (node, self.child))
    }

    #[inline]
    fn raise(self, kind: Kind) {
        if let Some((node, child)) = self.node() {
            node.counts[child].raise(kind, || node.above.raise(kind), || node.above.lower(kind));
        }
    }

    #[inline]
    fn lower(self, kind: Kind) {
        if let Some((node, child)) = self.node() {
            node.counts[child].lower(kind, || node.above.lower(kind));
        }
    }
}

impl Node {
    fn new(children: usize, above: Above) -> Result<Box<Self>> {
        try_box(Self {
            children: try_boxed(children, || AtomicPtr::new(ptr::null_mut()))?,
            counts: try_boxed(children, Counts::new)?,
            above,
        })
    }

    /// The child with this number, if it was made.
    fn child(&self, child: usize) -> *mut () {
        match self.children.get(child) {
            Some(word) => word.load(Acquire), // Acquire: pairs with `publish`, for the child's words
            None => ptr::null_mut(),
        }
    }

    /// Makes `fresh` the child, unless another thread made one first. Returns the child there is.
    fn publish<T>(&self, child: usize, fresh: Box<T>) -> *mut () {
        let fresh = Box::into_raw(fresh);
        // AcqRel: Release publishes the new node; Acquire, on failure, takes over the other one
        match self.children[child].compare_exchange(ptr::null_mut(), fresh.cast(), AcqRel, Acquire) {
            Ok(_) => fresh.cast(),
            Err(theirs) => {
                // SAFETY: from Box::into_raw above, and not published.
                drop(unsafe { Box::from_raw(fresh) });
                theirs
            }
        }
    }
}

impl Leaf {
    fn new(above: Above) -> Result<Box<Self>> {
        try_box(Self {
            slots: core::array::from_fn(|_| Slot::new()),
            counts: core::array::from_fn(|_| Counts::new()),
            above,
        })
    }
}

/// Pages below one child of a node at this level; level 0 has leaves for children.
const fn span_bits(level: u32) -> u32 {
    LEAF_BITS + level * NODE_BITS
}

impl Table {
    pub(crate) fn new(pages: PageCount) -> Result<Self> {
        let mut height = 1;
        while pages.0.div_ceil(1 << span_bits(height - 1)) > 1 << ROOT_BITS {
            height += 1;
        }
        let children = pages.0.div_ceil(1 << span_bits(height - 1)) as usize;
        let root = Node::new(children, Above::ROOT)?;
        let leaves: &[AtomicPtr<()>] = if height == 1 { &root.children } else { &[] };
        let leaves = Leaves(ptr::NonNull::from(leaves));
        Ok(Self { root, height, leaves })
    }

    /// The page's slot, if its leaf was made. Wait-free.
    #[inline]
    pub(crate) fn slot(&self, page: PageIndex) -> Option<&Slot> {
        let leaf = self.leaf(page)?;
        Some(&leaf.slots[page.0 as usize % LEAF])
    }

    /// The page's place, if its leaf was made. Wait-free.
    #[inline]
    pub(crate) fn find(&self, page: PageIndex) -> Option<At<'_>> {
        Some(At { leaf: self.leaf(page)?, slot: page.0 as usize % LEAF })
    }

    #[inline]
    fn leaf(&self, page: PageIndex) -> Option<&Leaf> {
        let Some(child) = self.leaves.get(page.0 >> LEAF_BITS) else { return self.leaf_below(page) };
        // Acquire: pairs with `publish`, for the leaf's words
        // SAFETY: a child at level 0 is a Leaf; published ones live as long as the table.
        unsafe { child.load(Acquire).cast::<Leaf>().as_ref() }
    }

    #[cold]
    fn leaf_below(&self, page: PageIndex) -> Option<&Leaf> {
        let mut node = &*self.root;
        let mut child = (page.0 >> span_bits(self.height - 1)) as usize;
        for level in (0..self.height - 1).rev() {
            // SAFETY: a child above level 0 is a Node; published ones live as long as the table.
            node = unsafe { node.child(child).cast::<Node>().as_ref() }?;
            child = (page.0 >> span_bits(level)) as usize % (1 << NODE_BITS);
        }
        // SAFETY: a child at level 0 is a Leaf; published ones live as long as the table.
        unsafe { node.child(child).cast::<Leaf>().as_ref() }
    }

    /// The page's place, making what is missing on the way. Lock-free.
    #[inline]
    pub(crate) fn find_or_make(&self, page: PageIndex) -> Result<At<'_>> {
        if let Some(at) = self.find(page) {
            return Ok(at);
        }
        let mut node = &*self.root;
        let mut child = (page.0 >> span_bits(self.height - 1)) as usize;
        for level in (0..self.height - 1).rev() {
            let mut next = node.child(child);
            if next.is_null() {
                next = node.publish(child, Node::new(1 << NODE_BITS, Above { parent: node, child })?);
            }
            // SAFETY: a child above level 0 is a Node; published ones live as long as the table.
            node = unsafe { &*next.cast::<Node>() };
            child = (page.0 >> span_bits(level)) as usize % (1 << NODE_BITS);
        }
        let mut leaf = node.child(child);
        if leaf.is_null() {
            leaf = node.publish(child, Leaf::new(Above { parent: node, child })?);
        }
        // SAFETY: a child at level 0 is a Leaf; published ones live as long as the table.
        Ok(At { leaf: unsafe { &*leaf.cast::<Leaf>() }, slot: page.0 as usize % LEAF })
    }

    /// Calls `f` with every page of the range in whose group there may be a page of this kind, in
    /// ascending order, until it breaks. Costs what the counts say is there. `None`: every page whose
    /// leaf was made, whatever the counts say; costs the leaves.
    pub(crate) fn scan<B>(
        &self,
        kind: impl Into<Option<Kind>>,
        range: PageRange,
        mut f: impl FnMut(PageIndex, At<'_>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        Self::scan_node(&self.root, self.height - 1, 0, kind.into(), range, &mut f)
    }

    fn scan_node<B>(
        node: &Node,
        level: u32,
        base: u64,
        kind: Option<Kind>,
        range: PageRange,
        f: &mut impl FnMut(PageIndex, At<'_>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let span = 1 << span_bits(level);
        let within = range.intersect(PageRange { start: base, end: base + span * node.children.len() as u64 });
        if within.is_empty() {
            return ControlFlow::Continue(());
        }
        let first = ((within.start - base) / span) as usize;
        let last = ((within.end - 1 - base) / span) as usize;
        for child in first..=last {
            if kind.is_some_and(|kind| node.counts[child].get(kind) == 0) {
                continue;
            }
            let base = base + child as u64 * span;
            let at = node.child(child);
            if at.is_null() {
                continue;
            }
            if level > 0 {
                // SAFETY: a child above level 0 is a Node; published ones live as long as the table.
                Self::scan_node(unsafe { &*at.cast::<Node>() }, level - 1, base, kind, within, f)?;
            } else {
                // SAFETY: a child at level 0 is a Leaf; published ones live as long as the table.
                Self::scan_leaf(unsafe { &*at.cast::<Leaf>() }, base, kind, within, f)?;
            }
        }
        ControlFlow::Continue(())
    }

    fn scan_leaf<B>(
        leaf: &Leaf,
        base: u64,
        kind: Option<Kind>,
        range: PageRange,
        f: &mut impl FnMut(PageIndex, At<'_>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        for (group, counts) in leaf.counts.iter().enumerate() {
            let first = base + (group * GROUP) as u64;
            let within = range.intersect(PageRange { start: first, end: first + GROUP as u64 });
            if within.is_empty() || kind.is_some_and(|kind| counts.get(kind) == 0) {
                continue;
            }
            for page in within.start..within.end {
                f(PageIndex(page), At { leaf, slot: (page - base) as usize })?;
            }
        }
        ControlFlow::Continue(())
    }

    /// The sum of the counts: how many pages of this kind there are, or were a moment ago.
    /// Reads every group that is not empty.
    pub(crate) fn count(&self, kind: Kind) -> PageCount {
        let mut sum = 0;
        let mut last = None;
        // One page of each group leads to the group's count.
        let _: ControlFlow<()> = self.scan(kind, PageRange::ALL, |page, at| {
            let group = page.0 >> GROUP_BITS;
            if last != Some(group) {
                last = Some(group);
                sum += u64::from(at.counts().get(kind));
            }
            ControlFlow::Continue(())
        });
        PageCount(sum)
    }

    fn free(node: &Node, level: u32) {
        for child in 0..node.children.len() {
            let at = node.child(child);
            if at.is_null() {
                continue;
            }
            if level > 0 {
                // SAFETY: published from Box<Node> at this level, and `drop` has the table to itself.
                let node = unsafe { Box::from_raw(at.cast::<Node>()) };
                Self::free(&node, level - 1);
            } else {
                // SAFETY: published from Box<Leaf> at level 0, and `drop` has the table to itself.
                drop(unsafe { Box::from_raw(at.cast::<Leaf>()) });
            }
        }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        Self::free(&self.root, self.height - 1);
    }
}

impl<'a> At<'a> {
    #[inline]
    pub(crate) fn slot(self) -> &'a Slot {
        &self.leaf.slots[self.slot]
    }

    #[inline]
    fn counts(self) -> &'a Counts {
        &self.leaf.counts[self.slot / GROUP]
    }

    /// The page is about to enter the state. See [`counts`](crate::counts).
    #[inline]
    pub(crate) fn raise(self, kind: Kind) {
        self.counts().raise(kind, || self.leaf.above.raise(kind), || self.leaf.above.lower(kind));
    }

    /// The page has left the state, or did not enter it after all.
    #[inline]
    pub(crate) fn lower(self, kind: Kind) {
        self.counts().lower(kind, || self.leaf.above.lower(kind));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_size_finds_its_first_and_last_page() {
        for pages in [1, 511, 512, 513, 1 << 18, 1 << 21, (1 << 21) + 1, 1 << 28, 1 << 40] {
            let table = Table::new(PageCount(pages)).unwrap();
            for page in [0, pages / 2, pages - 1] {
                let page = PageIndex(page);
                let slot: *const Slot = table.find_or_make(page).unwrap().slot();
                assert!(ptr::eq(slot, table.slot(page).unwrap()), "{pages} {page:?}");
            }
        }
    }

    #[test]
    fn a_gibibyte_is_two_loads_away() {
        assert_eq!(Table::new(PageCount(1 << 18)).unwrap().height, 1);
        assert_eq!(Table::new(PageCount(1 << 21)).unwrap().height, 1);
        assert!(size_of::<Leaf>() <= 4096 + 64);
    }

    #[test]
    fn pages_beyond_the_table_are_not_found() {
        let table = Table::new(PageCount(1)).unwrap();
        assert!(table.slot(PageIndex(1 << 39)).is_none());
    }

    #[test]
    fn a_scan_goes_where_the_counts_lead_and_nowhere_else() {
        let table = Table::new(PageCount(1 << 28)).unwrap();
        let pages = [3, 70, 1 << 20, (1 << 28) - 1];
        for page in pages {
            table.find_or_make(PageIndex(page)).unwrap().raise(Kind::Dirty);
            table.find_or_make(PageIndex(page ^ 4096)).unwrap(); // made, but not counted
        }
        let groups = |table: &Table| {
            let mut seen = alloc::vec::Vec::new();
            let _: ControlFlow<()> = table.scan(Kind::Dirty, PageRange::ALL, |page, _| {
                seen.push(page.0 >> GROUP_BITS);
                ControlFlow::Continue(())
            });
            seen.dedup();
            seen
        };
        assert_eq!(groups(&table), pages.map(|page| page >> GROUP_BITS));
        assert_eq!(table.count(Kind::Dirty), PageCount(4));
        assert_eq!(table.count(Kind::Resident), PageCount(0));
        table.find(PageIndex(70)).unwrap().lower(Kind::Dirty);
        assert_eq!(groups(&table).len(), 3);
        for page in [3, 1 << 20, (1 << 28) - 1] {
            table.find(PageIndex(page)).unwrap().lower(Kind::Dirty);
        }
        assert!(groups(&table).is_empty());
        assert!(table.root.counts.iter().all(|count| count.get(Kind::Dirty) == 0));
    }

    #[test]
    fn a_scan_keeps_to_its_range() {
        let table = Table::new(PageCount(2048)).unwrap();
        for page in 0..2048 {
            table.find_or_make(PageIndex(page)).unwrap().raise(Kind::Resident);
        }
        let mut seen = alloc::vec::Vec::new();
        let _: ControlFlow<()> = table.scan(Kind::Resident, PageRange { start: 500, end: 530 }, |page, _| {
            seen.push(page.0);
            ControlFlow::Continue(())
        });
        assert_eq!(seen, (500..530).collect::<alloc::vec::Vec<_>>());
    }
}
