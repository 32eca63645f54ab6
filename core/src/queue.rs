//! The queue: first in, first out, until it is sealed. Page requests stand in one for each VMO, user
//! packets in one for each port.
//!
//! A Michael-Scott list through the link words of pooled [`Entries`]. Each link, and the head and
//! tail, is an index and a tag; a tag never repeats, so a compare-and-swap that read an older list
//! fails. The tags of head and tail count the entries that have passed them. The first entry is a
//! dummy: it was delivered already, and is kept because the list must not be empty.
//!
//! An entry may die while it stands in the queue: its request is withdrawn, its packet cancelled.
//! It is then passed over, and costs a taker no place in its buffer.
//!
//! The last link says why nothing follows:
//!
//! | last link | meaning | append | take |
//! | --- | --- | --- | --- |
//! | `NIL` | nothing yet | puts the entry there | nothing to take |
//! | `COMPLETE` | sealed by detach, or by the end of the VMO | fails | COMPLETE, once |
//! | `SILENT` | sealed by the close of the pager | fails | never anything again |
//!
//! An append and a seal are compare-and-swaps on the same word, the last link. So nothing can be
//! appended after the seal, and COMPLETE comes last, by construction. "Once" is a compare-and-swap
//! on the head, which moves to `CLOSED` when COMPLETE is taken.
//!
//! Nobody waits for anybody: who finds the tail behind moves it on; a taker stopped in the middle
//! has taken what its one swap of the head covers, and nothing else.

use crate::status::{Result, Status};
#[cfg(accounting)]
use crate::sync::accounting::Lines;
use crate::sync::{Acquire, AtomicU64, Relaxed, Release};

const INDEX_BITS: u32 = 20;
const NIL: u32 = (1 << INDEX_BITS) - 1;
const COMPLETE: u32 = NIL - 1;
const SILENT: u32 = NIL - 2;
const CLOSED: u32 = NIL - 3;

/// An index, or one of the four words above, and a tag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Link(u64);

impl Link {
    const fn new(index: u32, tag: u64) -> Self {
        Self((tag << INDEX_BITS) | index as u64)
    }

    const fn index(self) -> u32 {
        (self.0 & NIL as u64) as u32
    }

    const fn tag(self) -> u64 {
        self.0 >> INDEX_BITS
    }

    /// The next value of the same word.
    const fn to(self, index: u32) -> Self {
        Self::new(index, self.tag() + 1)
    }

    const fn is_seal(self) -> bool {
        matches!(self.index(), COMPLETE | SILENT)
    }
}

/// What a queue links: the entries of a pool.
///
/// An entry belongs to the queue from before its [`append`](Queue::append) until
/// [`unqueue`](Self::unqueue). It must not be used for anything else meanwhile, dead or not.
pub(crate) trait Entries {
    /// What the queue links.
    type Entry;
    /// An entry as a taker saw it, in one of its lives.
    type Seen: Copy;
    /// What is delivered of it.
    type Item;

    /// The entry with this index.
    fn get(&self, index: u32) -> Option<&Self::Entry>;

    /// The word through which the entry is linked. Only the queue touches it.
    fn link(entry: &Self::Entry) -> &AtomicU64;

    /// Looks at an entry that may have left the queue meanwhile.
    fn see(entry: &Self::Entry) -> Self::Seen;

    /// Whether it was to be delivered when it was seen. Who is dead stays dead.
    fn is_live(seen: Self::Seen) -> bool;

    /// What to deliver of an entry that the caller has taken. `None`: it has died.
    fn collect(&self, index: u32, entry: &Self::Entry, seen: Self::Seen) -> Option<Self::Item>;

    /// The queue holds the entry no longer.
    fn unqueue(&self, index: u32, entry: &Self::Entry);
}

/// Why a queue was sealed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Seal {
    /// The service gets COMPLETE.
    Complete,
    /// Nobody is left to get anything.
    Silent,
}

/// What [`Queue::take`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Taken {
    /// As many entries as were asked for. There may be more.
    Some,
    /// All there was.
    All,
    /// All there was, and COMPLETE: nothing follows.
    Complete,
    /// Nothing is there, and nothing follows.
    Closed,
}

/// Head and tail are on lines of their own: the service writes the one and faults the other, and
/// neither must slow down lookups, which read what lies beside them.
#[derive(Debug)]
pub(crate) struct Queue {
    head: End,
    tail: End,
}

/// Where entries leave or come.
#[derive(Debug)]
#[repr(align(64))]
struct End(AtomicU64);

/// How many entries one swap of the head takes at most.
const BATCH: usize = 16;

impl Queue {
    /// An empty queue, over an entry that is dead and becomes its dummy.
    pub(crate) fn new<E: Entries>(entries: &E, dummy: u32) -> Result<Self> {
        let entry = entries.get(dummy).ok_or(Status::Internal)?;
        E::link(entry).store(Link::new(NIL, 0).0, Relaxed); // Relaxed: before the queue is shared
        let first = Link::new(dummy, 0).0;
        Ok(Self { head: End(AtomicU64::new(first)), tail: End(AtomicU64::new(first)) })
    }

    #[inline]
    fn load(word: &AtomicU64) -> Link {
        Link(word.load(Acquire)) // Acquire: pairs with `swap`, for the entry that the link names
    }

    #[inline]
    fn swap(word: &AtomicU64, from: Link, to: Link) -> bool {
        // Release publishes the entry linked, and passes on what was read on the way to it. Relaxed
        // besides: whoever fails loads anew, and `from` was loaded by Acquire. A value never repeats, so
        // the swap reads the very store that the load did, and has taken over from it already.
        word.compare_exchange(from.0, to.0, Release, Relaxed).is_ok()
    }

    /// The last entry's link, and the tail that led there. Moves a tail that is behind.
    #[inline]
    fn last<'a, E: Entries>(&self, entries: &'a E) -> (&'a AtomicU64, Link, Link) {
        loop {
            let tail = Self::load(&self.tail.0);
            let Some(word) = entries.get(tail.index()).map(E::link) else { continue };
            let link = Self::load(word);
            // Tags never repeat: if the tail is still the same, the entry was in the list when its
            // link was read. If the entry had been freed and used anew, reading that link would
            // have ordered this load after the tail that moved on.
            if Self::load(&self.tail.0) != tail {
                continue;
            }
            if link.index() == NIL || link.is_seal() {
                return (word, link, tail);
            }
            Self::swap(&self.tail.0, tail, tail.to(link.index()));
        }
    }

    /// Puts an entry at the end. Fails when the queue is sealed. Lock-free.
    #[inline]
    pub(crate) fn append<E: Entries>(&self, entries: &E, index: u32, entry: &E::Entry) -> Result<(), Seal> {
        let own = E::link(entry);
        let nothing = Self::load(own).to(NIL);
        // Release: the swap below publishes it, but one who has seen an old tail comes here earlier. He
        // must not find the tail unchanged then: see `last`.
        own.store(nothing.0, Release);
        loop {
            let (word, link, tail) = self.last(entries);
            match link.index() {
                COMPLETE => return Err(Seal::Complete),
                SILENT => return Err(Seal::Silent),
                _ => {}
            }
            if Self::swap(word, link, link.to(index)) {
                Self::swap(&self.tail.0, tail, tail.to(index));
                return Ok(());
            }
        }
    }

    /// Makes every later append fail, in one step. True for the one call that did it.
    pub(crate) fn seal(&self, entries: &impl Entries, seal: Seal) -> bool {
        let index = match seal {
            Seal::Complete => COMPLETE,
            Seal::Silent => SILENT,
        };
        loop {
            let (word, link, _) = self.last(entries);
            if link.is_seal() {
                return false;
            }
            if Self::swap(word, link, link.to(index)) {
                return true;
            }
        }
    }

    /// Seals the queue silently, and has nothing delivered from it any more, COMPLETE included.
    pub(crate) fn close(&self, entries: &impl Entries) {
        self.seal(entries, Seal::Silent);
        loop {
            let head = Self::load(&self.head.0);
            if head.index() == CLOSED || Self::swap(&self.head.0, head, head.to(CLOSED)) {
                return;
            }
        }
    }

    /// Takes up to `limit` entries that are live and hands them to `deliver`, in order, and takes
    /// the dead ones before, between and after them. Lock-free; each turn takes up to [`BATCH`] with
    /// one swap.
    pub(crate) fn take<E: Entries>(&self, entries: &E, limit: usize, mut deliver: impl FnMut(E::Item)) -> Taken {
        let mut left = limit;
        loop {
            let head = Self::load(&self.head.0);
            if head.index() == CLOSED {
                return Taken::Closed;
            }
            let tail = Self::load(&self.tail.0);
            let Some(dummy) = entries.get(head.index()) else { continue };
            let link = Self::load(E::link(dummy));
            if Self::load(&self.head.0) != head {
                continue; // as in `last`
            }
            match link.index() {
                NIL => return Taken::All,
                SILENT => return Taken::Closed,
                COMPLETE => {
                    // COMPLETE is a packet too: it needs room in the caller's buffer.
                    if left == 0 {
                        return Taken::Some;
                    }
                    if Self::swap(&self.head.0, head, head.to(CLOSED)) {
                        return Taken::Complete;
                    }
                    continue;
                }
                first if head.index() == tail.index() => {
                    // The head must not pass the tail.
                    Self::swap(&self.tail.0, tail, tail.to(first));
                    continue;
                }
                _ => {}
            }
            let (mut taken, mut room) = (0, left);
            let (mut last, mut next) = (head, link.index());
            let mut newest = None;
            let mut is_all = false;
            // Entries read here are in the list if the swap below succeeds: nothing between the
            // old and the new head can have left it.
            while taken < BATCH {
                let Some(entry) = entries.get(next) else { break };
                let seen = E::see(entry);
                if E::is_live(seen) {
                    if room == 0 {
                        break;
                    }
                    room -= 1;
                }
                newest = Some((entry, seen));
                taken += 1;
                last = last.to(next);
                let following = Self::load(E::link(entry)).index();
                is_all = following == NIL; // and it is in the list at this instant, as above
                if next == tail.index() || following >= CLOSED {
                    break;
                }
                next = following;
            }
            let Some((newest, seen)) = newest else {
                if left == 0 {
                    return Taken::Some; // the first one is live, and there is no room for it
                }
                continue;
            };
            if !Self::swap(&self.head.0, head, last) {
                continue;
            }
            // Those before the newest are ours until they are unqueued, and so are their links.
            let mut before = (head.index(), dummy);
            let mut next = link.index();
            for _ in 1..taken {
                let Some(entry) = entries.get(next) else { break };
                // Only now: an entry that died before the swap was never delivered.
                if let Some(item) = entries.collect(next, entry, E::see(entry)) {
                    left -= 1;
                    deliver(item);
                }
                let following = Self::load(E::link(entry)).index();
                entries.unqueue(before.0, before.1);
                before = (next, entry);
                next = following;
            }
            // The newest is the dummy now, and belongs to whoever takes the next: it may be in a later life.
            if let Some(item) = entries.collect(last.index(), newest, seen) {
                left -= 1;
                deliver(item);
            }
            entries.unqueue(before.0, before.1);
            if is_all {
                return Taken::All;
            }
        }
    }

    /// How many entries stand in the queue, dead ones too. What is appended during the call may
    /// count.
    pub(crate) fn len(&self, entries: &impl Entries) -> u64 {
        let head = Self::load(&self.head.0);
        let (_, _, tail) = self.last(entries);
        tail.tag().saturating_sub(head.tag())
    }

    /// How many entries have been appended since the queue was made.
    pub(crate) fn appended(&self) -> u64 {
        Self::load(&self.tail.0).tag()
    }
}

#[cfg(accounting)]
impl Queue {
    pub(crate) fn lines(&self, lines: &mut Lines) {
        lines.add(&self.head.0, "queue's head", "the service threads that take from this VMO");
        lines.add(&self.tail.0, "queue's tail", "the faulters of this VMO that make a request");
    }
}
