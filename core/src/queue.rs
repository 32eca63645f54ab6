//! The page-request queue: first in, first out, until it is sealed.
//!
//! A Michael-Scott list through the `link` words of the requests. Each link, and the head and tail,
//! is an index and a tag; a tag never repeats, so a compare-and-swap that read an older list fails.
//! The first entry is a dummy: it was delivered already, and is kept because the list must not be
//! empty.
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

use crate::request::{Kind, RequestId, Requests};
use crate::status::{Result, Status};
use crate::sync::{AcqRel, Acquire, AtomicU64, Release};
use crate::units::PageRange;

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
    /// As many requests as were asked for. There may be more.
    Some,
    /// All there was.
    All,
    /// All there was, and COMPLETE: nothing follows.
    Complete,
    /// Nothing is there, and nothing follows.
    Closed,
}

/// On lines of its own: faults and the service write it, and must not slow down lookups, which
/// read what lies beside it.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Queue {
    head: AtomicU64,
    tail: AtomicU64,
}

/// How many entries one swap of the head takes at most.
const BATCH: usize = 16;

impl Queue {
    /// An empty queue, over an entry of `requests` that becomes its dummy.
    pub(crate) fn new(requests: &Requests) -> Result<Self> {
        let dummy = requests.dummy()?;
        let entry = requests.get(dummy).ok_or(Status::Internal)?;
        entry.link.store(Link::new(NIL, 0).0, Release); // Release: before the queue is shared
        let first = Link::new(dummy, 0).0;
        Ok(Self { head: AtomicU64::new(first), tail: AtomicU64::new(first) })
    }

    #[inline]
    fn load(word: &AtomicU64) -> Link {
        Link(word.load(Acquire)) // Acquire: pairs with `swap`, for the entry that the link names
    }

    #[inline]
    fn swap(word: &AtomicU64, from: Link, to: Link) -> bool {
        // AcqRel: Release publishes the entry linked, and passes on what was read on the way to
        // it; Acquire, on failure, is the load of the next turn.
        word.compare_exchange(from.0, to.0, AcqRel, Acquire).is_ok()
    }

    /// The last entry's link, and the tail that led there. Moves a tail that is behind.
    #[inline]
    fn last<'a>(&self, requests: &'a Requests) -> (&'a AtomicU64, Link, Link) {
        loop {
            let tail = Self::load(&self.tail);
            let Some(entry) = requests.get(tail.index()) else { continue };
            let link = Self::load(&entry.link);
            // Tags never repeat: if the tail is still the same, the entry was in the list when its
            // link was read. If the entry had been freed and used anew, reading that link would
            // have ordered this load after the tail that moved on.
            if Self::load(&self.tail) != tail {
                continue;
            }
            if link.index() == NIL || link.is_seal() {
                return (&entry.link, link, tail);
            }
            Self::swap(&self.tail, tail, tail.to(link.index()));
        }
    }

    /// Puts a request at the end. Fails when the queue is sealed. Lock-free.
    #[inline]
    pub(crate) fn append(&self, requests: &Requests, id: RequestId) -> Result<(), Seal> {
        let Some(entry) = requests.get(id.index()) else { return Err(Seal::Silent) };
        let own = Self::load(&entry.link).to(NIL);
        entry.link.store(own.0, Release); // Release: published again by the swap below
        loop {
            let (word, link, tail) = self.last(requests);
            match link.index() {
                COMPLETE => return Err(Seal::Complete),
                SILENT => return Err(Seal::Silent),
                _ => {}
            }
            if Self::swap(word, link, link.to(id.index())) {
                Self::swap(&self.tail, tail, tail.to(id.index()));
                return Ok(());
            }
        }
    }

    /// Makes every later append fail, in one step. True for the one call that did it.
    pub(crate) fn seal(&self, requests: &Requests, seal: Seal) -> bool {
        let index = match seal {
            Seal::Complete => COMPLETE,
            Seal::Silent => SILENT,
        };
        loop {
            let (word, link, _) = self.last(requests);
            if link.is_seal() {
                return false;
            }
            if Self::swap(word, link, link.to(index)) {
                return true;
            }
        }
    }

    /// Seals the queue silently, and has nothing delivered from it any more, COMPLETE included.
    pub(crate) fn close(&self, requests: &Requests) {
        self.seal(requests, Seal::Silent);
        loop {
            let head = Self::load(&self.head);
            if head.index() == CLOSED || Self::swap(&self.head, head, head.to(CLOSED)) {
                return;
            }
        }
    }

    /// Takes up to `limit` requests and hands those that are still open to `deliver`, in order.
    /// Lock-free; each turn takes up to [`BATCH`] with one swap.
    pub(crate) fn take(&self, requests: &Requests, limit: usize, mut deliver: impl FnMut(Kind, PageRange)) -> Taken {
        let mut left = limit;
        loop {
            let head = Self::load(&self.head);
            if head.index() == CLOSED {
                return Taken::Closed;
            }
            let tail = Self::load(&self.tail);
            let Some(dummy) = requests.get(head.index()) else { continue };
            let link = Self::load(&dummy.link);
            if Self::load(&self.head) != head {
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
                    if Self::swap(&self.head, head, head.to(CLOSED)) {
                        return Taken::Complete;
                    }
                    continue;
                }
                _ if left == 0 => return Taken::Some,
                first if head.index() == tail.index() => {
                    // The head must not pass the tail.
                    Self::swap(&self.tail, tail, tail.to(first));
                    continue;
                }
                _ => {}
            }
            let mut batch = [(RequestId::new(0, 0), PageRange { start: 0, end: 0 }); BATCH];
            let mut taken = 0;
            let mut next = link.index();
            // Entries read here are in the list if the swap below succeeds: nothing between the
            // old and the new head can have left it.
            while taken < left.min(BATCH) {
                let Some(entry) = requests.get(next) else { break };
                batch[taken] = entry.snapshot(next);
                taken += 1;
                let following = Self::load(&entry.link);
                if next == tail.index() || following.index() >= CLOSED {
                    break;
                }
                next = following.index();
            }
            let batch = &batch[..taken];
            let Some((last, _)) = batch.last() else { continue };
            if !Self::swap(&self.head, head, head.to(last.index())) {
                continue;
            }
            for (id, pages) in batch {
                // Only now: a request withdrawn before the swap was never delivered.
                if let Some(kind) = requests.open_kind(*id) {
                    left -= 1;
                    deliver(kind, *pages);
                }
            }
            requests.unqueue(head.index());
            for (id, _) in &batch[..taken - 1] {
                requests.unqueue(id.index());
            }
        }
    }

    /// How many requests have been appended since the queue was made.
    pub(crate) fn appended(&self) -> u64 {
        Self::load(&self.tail).tag()
    }
}
