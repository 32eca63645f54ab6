//! From page number to page word.
//!
//! ```text
//!   top: one child for each 2 MiB, up to 8 GiB     (larger, or grown: nodes between)
//!     |
//!     +-> leaf: 512 slots, 8 pairs of counts
//! ```
//!
//! A resident lookup loads the child pointer and then the slot: two dependent loads, no store.
//! The first top is as large as the VMO needs, so up to 8 GiB there is no level between. A VMO that
//! grows past its top gets another one, whose first child is the old one; nothing moves.
//!
//! # One word says it
//!
//! Where a child is not made, its word says what all pages below are: absent, zeros that are dirty, or
//! zeros that are being written back. So *the state of a page is in one word, the lowest there is on
//! its way*, and every change of it is one compare-and-swap, however many pages it is about. A child
//! that is made has the same state in each of its words as its own word had; so making it changes
//! nothing, and two threads may race to do it. Or it is a leaf that comes with the content of pages that were
//! absent: then the swap that shows it is the arrow of each of them.
//!
//! Nodes are made when a page of theirs comes to differ from the others below the same word. They are
//! published once, and live as long as the table. So a reference into the table needs no pin;
//! what needs one is the frame that a slot names.
//!
//! Memory: a leaf is 4096 bytes of slots and 64 of counts, its entry in a node 12, so a
//! dense range costs 8.15 bytes a page; a lone page costs a leaf, and zeros cost where they begin and
//! end.

#[cfg(loom)]
mod exact;

use alloc::boxed::Box;
use core::ops::ControlFlow;
use core::ptr;

use crate::counts::{Counts, Kind};
use crate::platform::Frame;
use crate::pool::{try_box, try_boxed};
use crate::slot::{Slot, State, Unstored, Wanted};
use crate::status::Result;
#[cfg(accounting)]
use crate::sync::accounting::Lines;
use crate::sync::size::{GROUP_BITS, LEAF_BITS, NODE_BITS, ROOT_BITS};
use crate::sync::{AcqRel, Acquire, AtomicPtr, Relaxed, Release};
use crate::units::{PageCount, PageIndex, PageRange};

const LEAF: usize = 1 << LEAF_BITS;
const GROUP: usize = 1 << GROUP_BITS;
const GROUPS: usize = LEAF / GROUP;
/// Children of which one test tells that there is nothing below them. Most of a large VMO have nothing.
const MANY: usize = 16;

/// The pages of this one's leaf.
#[inline]
pub(crate) const fn leaf_of(page: PageIndex) -> PageRange {
    let start = page.0 >> LEAF_BITS << LEAF_BITS;
    PageRange { start, end: start + LEAF as u64 }
}

/// The page after the last one that is counted together with this one.
#[inline]
pub(crate) const fn group_end(page: PageIndex) -> u64 {
    ((page.0 >> GROUP_BITS) + 1) << GROUP_BITS
}

#[derive(Debug)]
pub(crate) struct Table {
    /// Where a walk begins.
    top: AtomicPtr<Node>,
    /// The children of the first top, if they are leaves, else nothing: the whole of the usual lookup.
    leaves: Leaves,
}

/// A second way to the words of a node whose children are leaves.
#[derive(Debug)]
struct Leaves(ptr::NonNull<[AtomicPtr<()>]>);

// SAFETY: only followed to shared data that the table keeps alive, see `Leaves::get`.
unsafe impl Send for Leaves {}
// SAFETY: as for Send.
unsafe impl Sync for Leaves {}

impl Leaves {
    #[inline]
    fn get(&self, leaf: u64) -> Option<&AtomicPtr<()>> {
        // SAFETY: the words are boxed by the first top, which the table that has `self` keeps, as its
        // top or below it, and never replaces.
        unsafe { self.0.as_ref() }.get(leaf as usize)
    }
}

#[derive(Debug)]
struct Node {
    /// log2 of the pages below one child. Children are leaves if it is that of a leaf.
    shift: u32,
    /// Nodes or leaves, or what all pages below are. A power of two of them, but for a top that never
    /// grows.
    children: Box<[AtomicPtr<()>]>,
    counts: Box<[Counts]>,
    above: Above,
}

/// Aligned, so that a group's slots are whole lines, and the counts, which writers of any of them write,
/// share none with a slot.
#[derive(Debug)]
#[repr(C, align(64))]
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

/// What a child's word says.
#[derive(Clone, Copy)]
enum Word<'a> {
    /// No child: all pages below are this.
    All(Unstored),
    Node(&'a Node),
    Leaf(&'a Leaf),
}

/// A page's place in the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At<'a> {
    leaf: &'a Leaf,
    slot: usize,
}

/// Where a page's state is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Look<'a> {
    /// In its slot.
    At(At<'a>),
    /// In a word above, with that of its neighbours.
    Unstored(Unstored),
}

/// A leaf whose pages come with their content, while only its maker knows it.
pub(crate) struct FreshLeaf<'a> {
    node: &'a Node,
    child: usize,
    /// `None`: it is published.
    leaf: Option<Box<Leaf>>,
    /// Its pages that have a frame: so many from the first on, without those that were taken back.
    full: core::ops::Range<usize>,
}

/// Zeros that share one word.
#[derive(Clone, Copy)]
pub(crate) struct Zeros<'a> {
    node: &'a Node,
    child: usize,
    /// Those of the pages that the scan is about.
    pub(crate) pages: PageRange,
}

/// What a scan meets.
pub(crate) enum Item<'a> {
    /// Pages with slots of their own, of which some may be of the kind.
    Group(Group<'a>),
    /// Dirty zeros.
    Zeros(Zeros<'a>),
}

/// What a dirty page has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Content {
    /// A frame.
    Stored,
    /// Zeros that are not stored.
    Zeros,
}

/// Pages of a leaf that are counted together: those of them that the scan is about.
#[derive(Clone, Copy)]
pub(crate) struct Group<'a> {
    leaf: &'a Leaf,
    /// The page of the leaf's first slot.
    base: u64,
    first: usize,
    end: usize,
}

/// What a scan does with zeros that lie only partly in its range.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Partly {
    /// Shows the part.
    Show,
    /// Divides them, so that the part can be changed.
    Divide,
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
            node.raise(child, kind, 1);
        }
    }

    #[inline]
    fn lower(self, kind: Kind) {
        if let Some((node, child)) = self.node() {
            node.lower(child, kind, 1);
        }
    }
}

/// A word for pages that share it. Small numbers, where no node can be.
const fn shared_word(all: Unstored) -> *mut () {
    ptr::without_provenance_mut(match all {
        Unstored::Absent => 0,
        Unstored::Zero => 1,
        Unstored::ZeroAwaiting => 2,
    })
}
const FIRST_POINTER: usize = 3;

impl Node {
    fn new(shift: u32, children: usize, above: Above, all: Unstored) -> Result<Box<Self>> {
        let counted = u16::from(all != Unstored::Absent);
        try_box(Self {
            shift,
            children: try_boxed(children, || AtomicPtr::new(shared_word(all)))?,
            counts: try_boxed(children, || Counts::of_dirty(counted))?,
            above,
        })
    }

    #[inline]
    fn raise(&self, child: usize, kind: Kind, by: u16) {
        self.counts[child].raise(kind, by, || self.above.raise(kind), || self.above.lower(kind));
    }

    #[inline]
    fn lower(&self, child: usize, kind: Kind, by: u16) {
        self.counts[child].lower(kind, by, || self.above.lower(kind));
    }

    #[inline]
    fn decode(&self, word: *mut ()) -> Word<'_> {
        match word.addr() {
            0 => Word::All(Unstored::Absent),
            1 => Word::All(Unstored::Zero),
            2 => Word::All(Unstored::ZeroAwaiting),
            // SAFETY: a child of a node with this shift is a Leaf; published ones live as long as the
            // table.
            _ if self.shift == LEAF_BITS => Word::Leaf(unsafe { &*word.cast::<Leaf>() }),
            // SAFETY: a child of any other is a Node; as above.
            _ => Word::Node(unsafe { &*word.cast::<Self>() }),
        }
    }

    #[inline]
    fn child(&self, child: usize) -> Word<'_> {
        match self.children.get(child) {
            Some(word) => self.decode(word.load(Acquire)), // Acquire: pairs with `swap`, for the child's words
            None => Word::All(Unstored::Absent),
        }
    }

    fn swap(&self, child: usize, from: Unstored, to: *mut ()) -> Result<(), Word<'_>> {
        // AcqRel: Release publishes a new node; Acquire, on failure, takes over that of another thread
        match self.children[child].compare_exchange(shared_word(from), to, AcqRel, Acquire) {
            Ok(_) => Ok(()),
            Err(now) => Err(self.decode(now)),
        }
    }

    /// Whether none of [`MANY`] children, from this one on, has a page of this kind.
    fn many_have_none(&self, kind: Kind, first: usize) -> bool {
        let counts = self.counts.get(first..).and_then(|counts| counts.first_chunk::<MANY>());
        counts.is_some_and(|counts| counts.iter().fold(0, |all, counts| all | counts.get(kind)) == 0)
    }

    /// Changes what all pages below a child are. False: they are something else already.
    fn set_all(&self, child: usize, from: Unstored, to: Unstored) -> bool {
        let (was, is) = (from != Unstored::Absent, to != Unstored::Absent);
        if !was && is {
            self.raise(child, Kind::Dirty, 1); // before they are: see `counts`
        }
        let set = self.swap(child, from, shared_word(to)).is_ok();
        if (was && !is && set) || (!was && is && !set) {
            self.lower(child, Kind::Dirty, 1);
        }
        set
    }

    /// Makes the child of pages that share a word. Returns the child there is: perhaps another
    /// thread's, perhaps none, if the word has changed.
    fn make(&self, child: usize, all: Unstored) -> Result<Word<'_>> {
        let above = Above { parent: self, child };
        let counted = |children: usize| if all == Unstored::Absent { 0 } else { children as u16 };
        if self.shift == LEAF_BITS {
            return Ok(self.publish(child, all, Leaf::new(above, all)?, counted(GROUPS)));
        }
        let shift = LEAF_BITS + (self.shift - LEAF_BITS - 1) / NODE_BITS * NODE_BITS;
        let children = 1 << (self.shift - shift);
        Ok(self.publish(child, all, Self::new(shift, children, above, all)?, counted(children)))
    }

    fn publish<T>(&self, child: usize, all: Unstored, fresh: Box<T>, counted: u16) -> Word<'_> {
        let fresh = Box::into_raw(fresh);
        // The new child's counts stand for the one of its word.
        if counted > 0 {
            self.raise(child, Kind::Dirty, counted);
        }
        match self.swap(child, all, fresh.cast()) {
            Ok(()) => {
                if counted > 0 {
                    self.lower(child, Kind::Dirty, 1);
                }
                self.decode(fresh.cast())
            }
            Err(theirs) => {
                if counted > 0 {
                    self.lower(child, Kind::Dirty, counted);
                }
                // SAFETY: from Box::into_raw above, and not published.
                drop(unsafe { Box::from_raw(fresh) });
                theirs
            }
        }
    }

    /// The pages below a child of a node whose first page is `base`.
    #[inline]
    fn pages_of(&self, base: u64, child: usize) -> PageRange {
        let start = base + ((child as u64) << self.shift);
        PageRange { start, end: start + (1 << self.shift) }
    }

    /// The children below which there are pages of the range.
    #[inline]
    fn children_in(&self, base: u64, range: PageRange) -> core::ops::Range<usize> {
        let end = base + ((self.children.len() as u64) << self.shift);
        let within = range.intersect(PageRange { start: base, end });
        if within.is_empty() {
            return 0..0;
        }
        ((within.start - base) >> self.shift) as usize..((within.end - 1 - base) >> self.shift) as usize + 1
    }
}

impl Leaf {
    fn new(above: Above, all: Unstored) -> Result<Box<Self>> {
        let counted = if all == Unstored::Absent { 0 } else { GROUP as u16 };
        try_box(Self {
            slots: core::array::from_fn(|_| Slot::new(all)),
            counts: core::array::from_fn(|_| Counts::of_dirty(counted)),
            above,
        })
    }
}

impl Table {
    /// For a VMO of so many pages, all absent.
    pub(crate) fn new(pages: PageCount) -> Result<Self> {
        let mut shift = LEAF_BITS;
        while pages.0.div_ceil(1 << shift) > 1 << ROOT_BITS {
            shift += NODE_BITS;
        }
        Self::with_top(shift, pages.0.div_ceil(1 << shift) as usize)
    }

    /// For a VMO of so many pages, all absent, that may grow.
    pub(crate) fn growing(pages: PageCount) -> Result<Self> {
        let mut shift = LEAF_BITS;
        while pages.0.div_ceil(1 << shift) > 1 << ROOT_BITS {
            shift += NODE_BITS;
        }
        let children = pages.0.div_ceil(1 << shift).next_power_of_two() as usize;
        Self::with_top(shift, children.max(1 << NODE_BITS))
    }

    /// Makes room for so many pages, in a table made by [`growing`](Self::growing). Only one thread at
    /// a time may call it.
    pub(crate) fn grow(&self, pages: PageCount) -> Result<()> {
        loop {
            let top = self.top();
            let shift = top.shift + top.children.len().trailing_zeros();
            if pages.0 <= 1 << shift {
                return Ok(());
            }
            let mut higher = Node::new(shift, 1 << NODE_BITS, Above::ROOT, Unstored::Absent)?;
            // The old top goes on counting for itself: every scan goes there.
            higher.counts[0] = Counts::unknown();
            higher.children[0] = AtomicPtr::new(self.top.load(Relaxed).cast()); // Relaxed: the one that was acquired above
            self.top.store(Box::into_raw(higher), Release); // Release: publishes the node to `top`
        }
    }

    fn with_top(shift: u32, children: usize) -> Result<Self> {
        let top = Box::into_raw(Node::new(shift, children, Above::ROOT, Unstored::Absent)?);
        // SAFETY: from Box::into_raw above; the table owns it from now on.
        let first = unsafe { &*top };
        let leaves: &[AtomicPtr<()>] = if shift == LEAF_BITS { &first.children } else { &[] };
        Ok(Self { top: AtomicPtr::new(top), leaves: Leaves(ptr::NonNull::from(leaves)) })
    }

    fn top(&self) -> &Node {
        // Acquire: pairs with the publication of a further top
        // SAFETY: a top is never freed while the table lives: a further one has it for its first child.
        unsafe { &*self.top.load(Acquire) }
    }

    /// The page's slot, if it has one. Wait-free.
    #[inline]
    pub(crate) fn slot(&self, page: PageIndex) -> Option<&Slot> {
        self.find(page).map(At::slot)
    }

    /// What `f` makes of the page's slot, if it has one. Wait-free but for `f`.
    ///
    /// A closure, so that what is done with the slot follows its two loads without a test in between.
    #[inline]
    pub(crate) fn with_slot<'a, R>(&'a self, page: PageIndex, f: impl FnOnce(&'a Slot) -> Option<R>) -> Option<R> {
        if let Some(child) = self.leaves.get(page.0 >> LEAF_BITS) {
            let leaf = child.load(Acquire); // Acquire: pairs with `Node::swap`, for the leaf's words
            if leaf.addr() >= FIRST_POINTER {
                // SAFETY: as in `find`.
                return f(&unsafe { &*leaf.cast::<Leaf>() }.slots[page.0 as usize % LEAF]);
            }
        }
        self.find_below(page).and_then(|at| f(at.slot()))
    }

    /// The page's place, if it has a slot of its own. Wait-free.
    #[inline]
    pub(crate) fn find(&self, page: PageIndex) -> Option<At<'_>> {
        let Some(child) = self.leaves.get(page.0 >> LEAF_BITS) else { return self.find_below(page) };
        let leaf = child.load(Acquire); // Acquire: pairs with `Node::swap`, for the leaf's words
        if leaf.addr() < FIRST_POINTER {
            return None;
        }
        // SAFETY: a child of `leaves` is a Leaf; published ones live as long as the table.
        Some(At { leaf: unsafe { &*leaf.cast::<Leaf>() }, slot: page.0 as usize % LEAF })
    }

    #[cold]
    fn find_below(&self, page: PageIndex) -> Option<At<'_>> {
        match self.walk(page) {
            Look::At(at) => Some(at),
            Look::Unstored(_) => None,
        }
    }

    /// Where the page's state is. Wait-free.
    #[inline]
    pub(crate) fn look(&self, page: PageIndex) -> Look<'_> {
        let leaf = self.leaves.get(page.0 >> LEAF_BITS).map(|child| child.load(Acquire)); // Acquire: as in `find`
        match leaf {
            Some(leaf) if leaf.addr() >= FIRST_POINTER => {
                // SAFETY: as in `find`.
                Look::At(At { leaf: unsafe { &*leaf.cast::<Leaf>() }, slot: page.0 as usize % LEAF })
            }
            _ => self.walk(page),
        }
    }

    /// As [`look`](Self::look), and whoever makes the page's place, or makes zeros of it, after this takes over what the
    /// caller has seen. Lock-free: it looks again only when another thread has changed the word.
    pub(crate) fn look_last(&self, page: PageIndex) -> Look<'_> {
        loop {
            match self.walk_down(page) {
                // A swap that changes nothing. There is no word for a page past the table.
                (Look::Unstored(all), node, child)
                    if child < node.children.len() && node.swap(child, all, shared_word(all)).is_err() => {}
                (look, ..) => return look,
            }
        }
    }

    fn walk(&self, page: PageIndex) -> Look<'_> {
        self.walk_down(page).0
    }

    /// Also: the node and the child at which it ends.
    fn walk_down(&self, page: PageIndex) -> (Look<'_>, &Node, usize) {
        let mut node = self.top();
        let mut child = (page.0 >> node.shift) as usize;
        loop {
            match node.child(child) {
                Word::All(all) => return (Look::Unstored(all), node, child),
                Word::Leaf(leaf) => return (Look::At(At { leaf, slot: page.0 as usize % LEAF }), node, child),
                Word::Node(below) => {
                    node = below;
                    child = (page.0 >> node.shift) as usize % node.children.len();
                }
            }
        }
    }

    /// The page after the last of those that are zeros by the same word as this one; the page itself, if
    /// it is something else. Wait-free.
    pub(crate) fn zeros_end(&self, page: PageIndex) -> u64 {
        match self.walk_down(page) {
            (Look::Unstored(Unstored::Zero | Unstored::ZeroAwaiting), node, _) => {
                ((page.0 >> node.shift) + 1) << node.shift
            }
            _ => page.0,
        }
    }

    /// The page's place, making what is missing on the way. Lock-free.
    #[inline]
    pub(crate) fn find_or_make(&self, page: PageIndex) -> Result<At<'_>> {
        match self.find(page) {
            Some(at) => Ok(at),
            None => self.make(page),
        }
    }

    #[cold]
    fn make(&self, page: PageIndex) -> Result<At<'_>> {
        let mut node = self.top();
        let mut child = (page.0 >> node.shift) as usize;
        loop {
            let mut word = node.child(child);
            while let Word::All(all) = word {
                word = node.make(child, all)?;
            }
            match word {
                Word::All(_) => {}
                Word::Leaf(leaf) => return Ok(At { leaf, slot: page.0 as usize % LEAF }),
                Word::Node(below) => {
                    node = below;
                    child = (page.0 >> node.shift) as usize % node.children.len();
                }
            }
        }
    }

    /// Makes every page of the range the same. Those that have a slot of their own are handed to
    /// `f`, in ascending order; the others take a word for as many as share one.
    ///
    /// Lock-free. Costs the slots there are, and the words of the nodes that the range touches.
    ///
    /// # Errors
    /// `NoMemory`, when pages that share a word cannot be divided. The pages before are done.
    pub(crate) fn fill(&self, range: PageRange, with: Unstored, mut f: impl FnMut(PageIndex, At<'_>)) -> Result<()> {
        Self::fill_node(self.top(), 0, range, with, &mut f)
    }

    /// The word of this page's leaf, with the nodes above it made. `None`: it has a leaf, or its pages are zeros.
    /// Lock-free.
    fn word_of_leaf(&self, page: PageIndex) -> Result<Option<(&Node, usize)>> {
        let mut node = self.top();
        let mut child = (page.0 >> node.shift) as usize;
        loop {
            match node.child(child) {
                Word::All(Unstored::Absent) if node.shift == LEAF_BITS => return Ok(Some((node, child))),
                Word::All(Unstored::Absent) => {
                    node.make(child, Unstored::Absent)?;
                }
                Word::All(Unstored::Zero | Unstored::ZeroAwaiting) | Word::Leaf(_) => return Ok(None),
                Word::Node(below) => {
                    node = below;
                    child = (page.0 >> node.shift) as usize % node.children.len();
                }
            }
        }
    }

    /// A leaf to come, that begins with this page. `None`: there is one, or its pages are zeros.
    ///
    /// # Errors
    /// `NoMemory`.
    pub(crate) fn fresh_leaf(&self, first: PageIndex) -> Result<Option<FreshLeaf<'_>>> {
        let Some((node, child)) = self.word_of_leaf(first)? else { return Ok(None) };
        let leaf = Leaf::new(Above { parent: node, child }, Unstored::Absent)?;
        Ok(Some(FreshLeaf { node, child, leaf: Some(leaf), full: 0..0 }))
    }

    fn fill_node(
        node: &Node,
        base: u64,
        range: PageRange,
        with: Unstored,
        f: &mut impl FnMut(PageIndex, At<'_>),
    ) -> Result<()> {
        for child in node.children_in(base, range) {
            let pages = node.pages_of(base, child);
            let within = pages.intersect(range);
            let mut word = node.child(child);
            loop {
                match word {
                    Word::All(all) if all == with => break,
                    Word::All(all) if within == pages => {
                        if node.set_all(child, all, with) {
                            break;
                        }
                        word = node.child(child);
                    }
                    Word::All(all) => word = node.make(child, all)?,
                    Word::Node(below) => {
                        Self::fill_node(below, pages.start, within, with, f)?;
                        break;
                    }
                    Word::Leaf(leaf) => {
                        for page in within.start..within.end {
                            f(PageIndex(page), At { leaf, slot: (page - pages.start) as usize });
                        }
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// Calls `f` with every group of pages in the range in which there may be one of this kind, and, if
    /// the kind is dirty, with every run of zeros that share a word, in ascending order, until it
    /// breaks. Costs what the counts say is there. `None`: every group that has slots, whatever the
    /// counts say; costs the leaves.
    ///
    /// # Errors
    /// `NoMemory`, when zeros cannot be divided.
    pub(crate) fn scan<'a, B>(
        &'a self,
        kind: impl Into<Option<Kind>>,
        range: PageRange,
        partly: Partly,
        mut f: impl FnMut(Item<'a>) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>> {
        Self::scan_node(self.top(), 0, kind.into(), range, partly, &mut f)
    }

    fn scan_node<'a, B>(
        node: &'a Node,
        base: u64,
        kind: Option<Kind>,
        range: PageRange,
        partly: Partly,
        f: &mut impl FnMut(Item<'a>) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>> {
        let mut children = node.children_in(base, range);
        while let Some(child) = children.next() {
            if let Some(kind) = kind
                && node.counts[child].get(kind) == 0
            {
                if child.is_multiple_of(MANY) && child + MANY <= children.end && node.many_have_none(kind, child) {
                    children.start = child + MANY;
                }
                continue;
            }
            let pages = node.pages_of(base, child);
            let within = pages.intersect(range);
            let mut word = node.child(child);
            if let Word::All(all) = word
                && all != Unstored::Absent
                && kind == Some(Kind::Dirty)
            {
                if within == pages || partly == Partly::Show {
                    if let ControlFlow::Break(value) = f(Item::Zeros(Zeros { node, child, pages: within })) {
                        return Ok(ControlFlow::Break(value));
                    }
                    if partly == Partly::Show {
                        continue;
                    }
                    word = node.child(child); // if it was divided meanwhile, `f` has not changed all of it
                } else {
                    while let Word::All(all) = word
                        && all != Unstored::Absent
                    {
                        word = node.make(child, all)?;
                    }
                }
            }
            let flow = match word {
                Word::All(_) => continue,
                Word::Node(below) => Self::scan_node(below, pages.start, kind, within, partly, f)?,
                Word::Leaf(leaf) => Self::scan_leaf(leaf, pages.start, kind, within, f),
            };
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    #[inline]
    fn scan_leaf<'a, B>(
        leaf: &'a Leaf,
        base: u64,
        kind: Option<Kind>,
        range: PageRange,
        f: &mut impl FnMut(Item<'a>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let (from, to) = ((range.start - base) as usize, (range.end - base) as usize);
        for group in from / GROUP..to.div_ceil(GROUP) {
            if kind.is_none_or(|kind| leaf.counts[group].get(kind) > 0) {
                let (first, end) = (from.max(group * GROUP), to.min((group + 1) * GROUP));
                f(Item::Group(Group { leaf, base, first, end }))?;
            }
        }
        ControlFlow::Continue(())
    }

    /// Calls `f` with every page of the range that has a slot and is wanted, in ascending order, until it
    /// breaks.
    #[inline]
    pub(crate) fn scan_pages<'a, B>(
        &'a self,
        wanted: Wanted,
        range: PageRange,
        mut f: impl FnMut(PageIndex, At<'a>, State) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let flow = self.scan(wanted.counted_as(), range, Partly::Show, |item| match item {
            Item::Group(group) => group.each(wanted, &mut f),
            Item::Zeros(_) => ControlFlow::Continue(()),
        });
        flow.unwrap_or(ControlFlow::Continue(())) // showing zeros takes no memory
    }

    /// The sum of the counts: how many pages of this kind there are in the groups of the range, or were a
    /// moment ago.
    /// Reads every group's count that is not zero.
    pub(crate) fn count(&self, kind: Kind, range: PageRange) -> PageCount {
        self.sum(kind, range, |group| group.count(kind))
    }

    /// As [`count`](Self::count), but where a group lies only partly in the range, of its pages' states:
    /// past the end of a VMO that shrank there may be others.
    pub(crate) fn count_within(&self, kind: Kind, range: PageRange) -> PageCount {
        self.sum(kind, range, |group| if group.is_whole() { group.count(kind) } else { group.count_words(kind) })
    }

    fn sum<'a>(&'a self, kind: Kind, range: PageRange, count: impl Fn(Group<'a>) -> u64) -> PageCount {
        let mut sum = 0;
        let _: Result<ControlFlow<()>> = self.scan(kind, range, Partly::Show, |item| {
            sum += match item {
                Item::Zeros(zeros) => zeros.pages.end - zeros.pages.start,
                Item::Group(group) => count(group),
            };
            ControlFlow::Continue(())
        });
        PageCount(sum)
    }

    fn free(node: &Node) {
        for child in &node.children {
            let at = child.load(Relaxed); // Relaxed: `drop` has the table to itself, after every `Node::swap`
            if at.addr() < FIRST_POINTER {
                continue;
            }
            if node.shift == LEAF_BITS {
                // SAFETY: published from Box<Leaf> below such a node, and `drop` has the table to itself.
                drop(unsafe { Box::from_raw(at.cast::<Leaf>()) });
            } else {
                // SAFETY: published from Box<Node> below any other; as above.
                let node = unsafe { Box::from_raw(at.cast::<Node>()) };
                Self::free(&node);
            }
        }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        let top = self.top.load(Relaxed); // Relaxed: `&mut self` comes after every `grow`
        // SAFETY: from Box::into_raw in `with_top` or `grow`, and `&mut self` says nobody looks.
        let top = unsafe { Box::from_raw(top) };
        Self::free(&top);
    }
}

impl<'a> Group<'a> {
    /// Calls `f` with every page that is wanted, in ascending order, until it breaks.
    #[inline]
    pub(crate) fn each<B>(
        self,
        wanted: Wanted,
        mut f: impl FnMut(PageIndex, At<'a>, State) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let Self { leaf, base, first, end } = self;
        Slot::each(&leaf.slots[first..end], wanted, |place, state| {
            let slot = first + place;
            f(PageIndex(base + slot as u64), At { leaf, slot }, state)
        })
    }

    /// Calls `f` with every run of pages that are dirty or await clean, in ascending order: of stored pages,
    /// or of zeros that are not.
    #[inline]
    pub(crate) fn dirty_runs(self, mut f: impl FnMut(PageRange, Content)) {
        let Self { leaf, base, first, end } = self;
        let (stored, zeros) = Slot::dirty(&leaf.slots[first..end]);
        let mut rest = stored | zeros;
        while rest != 0 {
            let start = rest.trailing_zeros();
            let content = if zeros >> start & 1 == 0 { Content::Stored } else { Content::Zeros };
            let same = if content == Content::Stored { stored } else { zeros };
            let run = (same >> start).trailing_ones();
            rest &= u64::MAX.checked_shl(start + run).unwrap_or(0);
            let start = base + first as u64 + u64::from(start);
            f(PageRange { start, end: start + u64::from(run) }, content);
        }
    }

    #[inline]
    fn is_whole(self) -> bool {
        self.end - self.first == GROUP
    }

    /// How many of the kind the whole group may have.
    fn count(self, kind: Kind) -> u64 {
        self.leaf.counts[self.first / GROUP].get(kind).into()
    }

    /// How many of the kind there are, by their words.
    fn count_words(self, kind: Kind) -> u64 {
        let mut count = 0;
        let _: ControlFlow<()> = self.each(Wanted::of(kind), |_, _, state| {
            count += u64::from(state.counts_as(kind));
            ControlFlow::Continue(())
        });
        count
    }
}

impl FreshLeaf<'_> {
    /// Gives the next page its frame, if there is one left.
    #[inline]
    pub(crate) fn put(&mut self, frame: Frame) {
        if let Some(slot) = self.leaf.as_mut().and_then(|leaf| leaf.slots.get_mut(self.full.end)) {
            *slot = Slot::supplied(frame);
            self.full.end += 1;
        }
    }

    /// How many pages have a frame.
    pub(crate) fn len(&self) -> u64 {
        self.full.len() as u64
    }

    /// Shows the leaf to everyone, with its pages. False: another thread has made the leaf, or zeros of its
    /// pages, and its frames are to be [taken back](Self::take_back).
    pub(crate) fn publish(&mut self) -> bool {
        let Some(mut leaf) = self.leaf.take() else { return true };
        let counts = leaf.counts.iter_mut().zip((self.full.start..self.full.end).step_by(GROUP));
        let groups =
            counts.map(|(counts, first)| *counts = Counts::of_resident((self.full.end - first).min(GROUP) as u16));
        let groups = groups.count() as u16;
        // Before they are there: see `counts`.
        self.node.raise(self.child, Kind::Resident, groups);
        let leaf = Box::into_raw(leaf);
        if self.node.swap(self.child, Unstored::Absent, leaf.cast()).is_ok() {
            return true;
        }
        self.node.lower(self.child, Kind::Resident, groups);
        // SAFETY: from Box::into_raw above, and not published.
        self.leaf = Some(unsafe { Box::from_raw(leaf) });
        false
    }

    /// Takes a frame back out of a leaf that is not published, the first first.
    pub(crate) fn take_back(&mut self) -> Option<Frame> {
        let leaf = self.leaf.as_ref()?;
        self.full.next().map(|slot| leaf.slots[slot].supplied_frame())
    }
}

impl Zeros<'_> {
    /// Changes them all. False: they are something else, or do not share this word any more.
    pub(crate) fn set(&self, from: Unstored, to: Unstored) -> bool {
        self.node.set_all(self.child, from, to)
    }
}

impl<'a> At<'a> {
    /// The slots of this page and of those after it in its leaf, so many in all.
    #[inline]
    pub(crate) fn slots(self, pages: u16) -> impl Iterator<Item = &'a Slot> {
        self.leaf.slots[self.slot..].iter().take(usize::from(pages))
    }

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
        self.raise_by(kind, 1);
    }

    /// The page has left the state, or did not enter it after all.
    #[inline]
    pub(crate) fn lower(self, kind: Kind) {
        self.lower_by(kind, 1);
    }

    /// So many pages of this one's group are about to enter the state.
    #[inline]
    pub(crate) fn raise_by(self, kind: Kind, by: u16) {
        self.counts().raise(kind, by, || self.leaf.above.raise(kind), || self.leaf.above.lower(kind));
    }

    /// So many pages of this one's group have left the state, or did not enter it after all.
    #[inline]
    pub(crate) fn lower_by(self, kind: Kind, by: u16) {
        self.counts().lower(kind, by, || self.leaf.above.lower(kind));
    }
}

/// Pages that have left a state and are counted in it still: those of one group are one step on its
/// count, not one each.
pub(crate) struct Left<'a> {
    kind: Kind,
    group: Option<(At<'a>, u16)>,
}

impl<'a> Left<'a> {
    pub(crate) const fn new(kind: Kind) -> Self {
        Self { kind, group: None }
    }

    /// The page has left the state.
    #[inline]
    pub(crate) fn add(&mut self, at: At<'a>) {
        match &mut self.group {
            Some((one, pages)) if ptr::eq(one.counts(), at.counts()) => *pages += 1,
            _ => {
                self.discount();
                self.group = Some((at, 1));
            }
        }
    }

    /// They are counted no longer.
    #[inline]
    pub(crate) fn discount(&mut self) {
        if let Some((at, pages)) = self.group.take() {
            at.lower_by(self.kind, pages);
        }
    }
}

impl Drop for Left<'_> {
    fn drop(&mut self) {
        self.discount();
    }
}

#[cfg(accounting)]
impl Table {
    pub(crate) fn lines(&self, lines: &mut Lines) {
        lines.add(&self.top, "top of the table", "nobody: written when a resizable VMO grows");
        Self::lines_below(self.top(), lines);
    }

    fn lines_below(node: &Node, lines: &mut Lines) {
        lines.add(&*node.children, "table's node", "who makes the first page of a leaf, among 8 leaves");
        lines.add(
            &*node.counts,
            "node's counts",
            "who empties a group of 64 pages or brings it its first, among 16 leaves",
        );
        for child in 0..node.children.len() {
            match node.child(child) {
                Word::All(_) => {}
                Word::Node(below) => Self::lines_below(below, lines),
                Word::Leaf(leaf) => {
                    lines.add(&leaf.slots, "page words", "who changes one of 8 neighbouring pages");
                    lines.add(
                        &leaf.counts,
                        "leaf's counts",
                        "who supplies, dirties, cleans or evicts one of 512 neighbouring pages",
                    );
                }
            }
        }
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
        assert_eq!(Table::new(PageCount(1 << 18)).unwrap().top().shift, LEAF_BITS);
        assert_eq!(Table::new(PageCount(1 << 21)).unwrap().top().shift, LEAF_BITS);
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
            let scanned: Result<ControlFlow<()>> = table.scan(Kind::Dirty, PageRange::ALL, Partly::Show, |item| {
                let Item::Group(group) = item else { panic!("there are no zeros") };
                seen.push((group.base + group.first as u64) >> GROUP_BITS);
                ControlFlow::Continue(())
            });
            assert_eq!(scanned, Ok(ControlFlow::Continue(())));
            seen
        };
        assert_eq!(groups(&table), pages.map(|page| page >> GROUP_BITS));
        assert_eq!(table.count(Kind::Dirty, PageRange::ALL), PageCount(4));
        assert_eq!(table.count(Kind::Resident, PageRange::ALL), PageCount(0));
        table.find(PageIndex(70)).unwrap().lower(Kind::Dirty);
        assert_eq!(groups(&table).len(), 3);
        for page in [3, 1 << 20, (1 << 28) - 1] {
            table.find(PageIndex(page)).unwrap().lower(Kind::Dirty);
        }
        assert!(groups(&table).is_empty());
        assert!(table.top().counts.iter().all(|count| count.get(Kind::Dirty) == 0));
    }

    #[test]
    fn zeros_end_where_their_word_does() {
        let table = Table::new(PageCount(1 << 28)).unwrap();
        let zeros = PageRange { start: 700, end: 1 << 22 };
        let fill = |_, at: At<'_>| assert_eq!(at.slot().load().replace(at.slot(), Unstored::Zero), Ok(None));
        table.fill(zeros, Unstored::Zero, fill).unwrap();
        let end = |page| table.zeros_end(PageIndex(page));
        assert_eq!((end(699), end(700), end(1023)), (699, 700, 1023), "these have slots");
        assert_eq!((end(1024), end(1535), end(zeros.end)), (1536, 1536, zeros.end));
        let words = core::iter::successors(Some(1024), |page| Some(end(*page)));
        assert!(words.take_while(|page| *page < zeros.end).count() < 512);
    }

    #[test]
    fn a_scan_of_no_kind_meets_every_slot_and_no_zeros() {
        let table = Table::new(PageCount(1 << 28)).unwrap();
        table.find_or_make(PageIndex(5)).unwrap(); // its leaf has no page of any kind
        table.fill(PageRange { start: 1024, end: 1 << 20 }, Unstored::Zero, |_, _| {}).unwrap();
        let mut seen = 0;
        let _: Result<ControlFlow<()>> = table.scan(None, PageRange::ALL, Partly::Show, |item| {
            let Item::Group(_) = item else { panic!("they are no pages of the kind") };
            seen += GROUP;
            ControlFlow::Continue(())
        });
        assert_eq!(seen, LEAF);
    }

    #[test]
    fn a_scan_keeps_to_its_range() {
        let table = Table::new(PageCount(2048)).unwrap();
        for page in 0..2048 {
            let at = table.find_or_make(PageIndex(page)).unwrap();
            at.raise(Kind::Resident);
            let State::Empty(absent) = at.slot().load() else { panic!("it is new") };
            absent.supply(at.slot(), Frame::from_bits(page)).unwrap();
        }
        let mut seen = alloc::vec::Vec::new();
        let range = PageRange { start: 500, end: 530 };
        let _: ControlFlow<()> = table.scan_pages(Wanted::Resident, range, |page, _, _| {
            seen.push(page.0);
            ControlFlow::Continue(())
        });
        assert_eq!(seen, (500..530).collect::<alloc::vec::Vec<_>>());
    }
}
