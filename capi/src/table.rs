//! The handle table: from a value to an object and the rights to it, without locks.
//!
//! # A slot
//!
//! ```text
//!          reserve (swap)              publish (store)
//!   Free g ---------------> Reserved g ---------------> Live g, rights
//!     ^                         | give up                   |
//!     |                         v                           |
//!   Free g+1 <---------------------------- close (swap) ----+
//! ```
//!
//! One word has the state, the rights, and the generation, of 30 bits, of which a [value](crate::value) has the
//! low 12. Whoever wins the swap that closes has the handle: one of two threads that close the same one gets
//! BAD_HANDLE. The object's address is in a second word, written while the slot is reserved.
//!
//! # A lookup
//!
//! It reads the word and the address, notes the address in the thread's [record](crate::in_use), and reads the word
//! again. Nothing that others write to is written. If the word is the same, the handle was there after the record was seen by
//! everyone, and the object stays until the call leaves.
//!
//! # Which slot is next
//!
//! Slots are taken in turn, each where the last search ended, and the table spreads over four times as many as
//! there are handles: a slot that was closed comes again when all the others have been passed. There is no
//! list of free ones, and nothing to go wrong with it. At most half of the window is live, until it is as
//! large as it can be, so a search is short.

use core::ptr;

use crate::in_use::{MOST, Node, Record, Records};
use crate::sync::size::{INDEX_BITS, SEGMENT_BITS, WINDOW_BITS};
use crate::sync::{AcqRel, Acquire, AtomicPtr, AtomicU64, AtomicUsize, Relaxed, Release, SeqCst};
use crate::value::{Scramble, is_of};

/// The most handles at a time (Zircon's limit too).
pub(crate) const MAX_HANDLES: usize = 1 << INDEX_BITS;

const SEGMENT: usize = 1 << SEGMENT_BITS;
const RESERVED: u64 = 1 << 32;
const LIVE: u64 = 1 << 33;
const GENERATION: u32 = 34;

struct Slot<T> {
    word: AtomicU64,
    object: AtomicPtr<Node<T>>,
}

type Segment<T> = [Slot<T>; SEGMENT];

/// A handle is not one, or not any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BadHandle;

/// There are [`MAX_HANDLES`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Full;

pub(crate) struct Table<T> {
    scramble: Scramble,
    segments: Box<[AtomicPtr<Segment<T>>]>,
    /// Slots that are reserved or live.
    used: AtomicUsize,
    /// log2 of the slots among which new handles go.
    window: AtomicUsize,
    /// Where the next search begins.
    turn: AtomicUsize,
    records: Records<T>,
}

/// A slot that is to have a handle. Dropped, it is given back.
pub(crate) struct Place<'t, T> {
    table: &'t Table<T>,
    slot: &'t Slot<T>,
    index: usize,
    generation: u64,
}

/// A call, with the objects that it has found by its handles. They stay until it is dropped.
pub(crate) struct Call<'t, T, const N: usize> {
    record: &'t Record<T>,
    found: [(*mut Node<T>, u32); N],
}

impl<T> Slot<T> {
    fn free() -> Self {
        Self { word: AtomicU64::new(0), object: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Ends the handle of this word, and returns its object. `None`: somebody else has.
    fn end(&self, word: u64) -> Option<*mut Node<T>> {
        // Before the swap: after it the slot may be another handle's. Relaxed: the load that saw the word has
        // acquired the address, and it stays as long as the word does.
        let node = self.object.load(Relaxed);
        // AcqRel: what was done with the handle is done, and the address is read, before it is free
        self.word.compare_exchange(word, after(word), AcqRel, Relaxed).ok()?;
        Some(node)
    }
}

/// The word of a free slot, of the next generation.
const fn after(word: u64) -> u64 {
    ((word >> GENERATION) + 1) << GENERATION
}

impl<T> Table<T> {
    /// An empty table. `seed` makes its values.
    pub(crate) fn new(seed: u64) -> Self {
        let segments = (0..MAX_HANDLES / SEGMENT).map(|_| AtomicPtr::new(ptr::null_mut())).collect();
        Self {
            scramble: Scramble::new(seed),
            segments,
            used: AtomicUsize::new(0),
            window: AtomicUsize::new(WINDOW_BITS as usize),
            turn: AtomicUsize::new(0),
            records: Records::new(),
        }
    }

    pub(crate) fn records(&self) -> &Records<T> {
        &self.records
    }

    #[inline]
    fn slot(&self, index: usize) -> Option<&Slot<T>> {
        // Acquire: pairs with the publication in `slot_or_new`
        let segment = self.segments.get(index / SEGMENT)?.load(Acquire);
        // SAFETY: a segment is published whole, and freed only with the table.
        unsafe { segment.as_ref() }?.get(index % SEGMENT)
    }

    fn slot_or_new(&self, index: usize) -> &Slot<T> {
        if let Some(slot) = self.slot(index) {
            return slot;
        }
        let place = &self.segments[index / SEGMENT];
        let fresh = Box::into_raw(Box::new(core::array::from_fn(|_| Slot::free())));
        // AcqRel: the segment is made before it is found; the other thread's was too
        let segment = match place.compare_exchange(ptr::null_mut(), fresh, AcqRel, Acquire) {
            Ok(_) => fresh,
            Err(first) => {
                // SAFETY: made just now, and nobody else has it.
                drop(unsafe { Box::from_raw(fresh) });
                first
            }
        };
        // SAFETY: as in `slot`.
        let segment: &Segment<T> = unsafe { &*segment };
        &segment[index % SEGMENT]
    }

    /// The slot of a value, and its word, if it has the handle.
    #[inline]
    fn look(&self, value: u32) -> Option<(&Slot<T>, u64)> {
        let (index, part) = self.scramble.parts(value)?;
        let slot = self.slot(index)?;
        let word = slot.word.load(Acquire); // Acquire: pairs with `publish`, the address is there
        (word & LIVE != 0 && is_of(part, word >> GENERATION)).then_some((slot, word))
    }

    /// Begins a call with these handles. Those that are none are not found.
    ///
    /// The record is the calling thread's, and is not in a call.
    #[inline]
    pub(crate) fn call<'t, const N: usize>(&'t self, record: &'t Record<T>, values: [u32; N]) -> Call<'t, T, N> {
        const { assert!(N <= MOST) };
        let seen = values.map(|value| self.look(value));
        // Acquire: of a later handle's address, pairs with `publish`: the second look finds that it is not ours
        let objects = seen.map(|seen| seen.map_or(ptr::null_mut(), |(slot, _)| slot.object.load(Acquire)));
        record.enter(objects);
        let mut nth = 0;
        let found = seen.map(|seen| {
            let object = objects[nth];
            nth += 1;
            match seen {
                // SeqCst: after the swap in `enter`, see there. The same word is the same handle: generations
                // come again only after 2^30 of them.
                Some((slot, word)) if slot.word.load(SeqCst) == word => (object, word as u32),
                _ => (ptr::null_mut(), 0),
            }
        });
        Call { record, found }
    }

    /// A place for a new handle.
    pub(crate) fn reserve(&self) -> Result<Place<'_, T>, Full> {
        let used = self.used.fetch_add(1, Relaxed) + 1; // Relaxed: a limit, it orders nothing
        if used > MAX_HANDLES {
            self.used.fetch_sub(1, Relaxed); // Relaxed: as above
            return Err(Full);
        }
        let window = self.window(used);
        for _ in 0..2 * MAX_HANDLES {
            let index = self.turn.fetch_add(1, Relaxed) & (window - 1); // Relaxed: any order of the slots will do
            let slot = self.slot_or_new(index);
            let word = slot.word.load(Relaxed); // Relaxed: the swap decides
            if word & (LIVE | RESERVED) != 0 {
                continue;
            }
            // Acquire: whoever closed it has read the address that was there, see `end`
            if slot.word.compare_exchange(word, word | RESERVED, Acquire, Relaxed).is_ok() {
                return Ok(Place { table: self, slot, index, generation: word >> GENERATION });
            }
        }
        // As many threads close and reserve at once as there are handles, always ahead of this one.
        self.used.fetch_sub(1, Relaxed); // Relaxed: as above
        Err(Full)
    }

    /// How many slots new handles go among, if so many are used: at least twice as many, if there are.
    fn window(&self, used: usize) -> usize {
        let now = self.window.load(Relaxed); // Relaxed: a size, any one seen is one that there was
        if used * 2 <= 1 << now || now == INDEX_BITS as usize {
            return 1 << now;
        }
        self.window.fetch_max(now + 1, Relaxed); // Relaxed: as above
        1 << (now + 1)
    }

    /// Closes a handle.
    pub(crate) fn close(&self, value: u32) -> Result<(), BadHandle> {
        let (slot, word) = self.look(value).ok_or(BadHandle)?;
        let node = slot.end(word).ok_or(BadHandle)?;
        self.used.fetch_sub(1, Relaxed); // Relaxed: see `reserve`
        // SAFETY: the handle was this slot's, and is this call's since its swap.
        unsafe { self.records.remove_handle(node) };
        Ok(())
    }

    /// Closes a handle, and makes another one to its object if `rights` says of the old ones what it has.
    pub(crate) fn replace<E: From<BadHandle> + From<Full>>(
        &self,
        value: u32,
        rights: impl FnOnce(u32) -> Result<u32, E>,
    ) -> Result<u32, E> {
        let (slot, word) = self.look(value).ok_or(BadHandle)?;
        let node = slot.end(word).ok_or(BadHandle)?;
        self.used.fetch_sub(1, Relaxed); // Relaxed: see `reserve`
        match rights(word as u32).and_then(|rights| Ok((self.reserve()?, rights))) {
            Ok((place, rights)) => Ok(place.publish(node, rights)),
            Err(error) => {
                // SAFETY: as in `close`.
                unsafe { self.records.remove_handle(node) };
                Err(error)
            }
        }
    }
}

impl<'t, T> Place<'t, T> {
    /// Makes a handle to a new object.
    pub(crate) fn fill(self, value: T, rights: u32) -> u32 {
        self.publish(Box::into_raw(Box::new(Node::new(value))), rights)
    }

    /// Makes one more handle to an object that a call has found.
    pub(crate) fn duplicate<const N: usize>(
        self,
        call: &Call<'t, T, N>,
        nth: usize,
        rights: u32,
    ) -> Result<u32, BadHandle> {
        let node = call.found[nth].0;
        // SAFETY: what a call has found lives as long as it.
        let has_handle = unsafe { node.as_ref() }.is_some_and(Node::add_handle);
        if has_handle { Ok(self.publish(node, rights)) } else { Err(BadHandle) }
    }

    fn publish(self, node: *mut Node<T>, rights: u32) -> u32 {
        // Release: who reads this address beside an older word, and then the word, finds the slot reserved
        self.slot.object.store(node, Release);
        let word = self.generation << GENERATION | LIVE | u64::from(rights);
        self.slot.word.store(word, Release); // Release: the object and its address are there
        let value = self.table.scramble.value(self.index, self.generation);
        core::mem::forget(self);
        value
    }
}

impl<T> Drop for Place<'_, T> {
    fn drop(&mut self) {
        // Release: as a close, for who reserves it next. Nobody has seen the generation.
        self.slot.word.store(self.generation << GENERATION, Release);
        self.table.used.fetch_sub(1, Relaxed); // Relaxed: see `reserve`
    }
}

impl<T, const N: usize> Call<'_, T, N> {
    /// What the nth handle names, and the rights it gives.
    #[inline]
    pub(crate) fn get(&self, nth: usize) -> Result<(&T, u32), BadHandle> {
        let (node, rights) = self.found[nth];
        // SAFETY: what a call has found is not freed before it leaves: the handle was there after the record
        // said so, so whoever closed the last one found the record, and let the call owe the object.
        let node = unsafe { node.as_ref() }.ok_or(BadHandle)?;
        Ok((&node.value, rights))
    }
}

impl<T, const N: usize> Drop for Call<'_, T, N> {
    #[inline]
    fn drop(&mut self) {
        self.record.leave();
    }
}

impl<T> Drop for Table<T> {
    fn drop(&mut self) {
        for place in &self.segments {
            let segment = place.load(Relaxed); // Relaxed: nobody else has the table any more
            if segment.is_null() {
                continue;
            }
            // SAFETY: made by `Box::into_raw`, and nobody else has it.
            let segment = unsafe { Box::from_raw(segment) };
            for slot in &*segment {
                let word = slot.word.load(Relaxed); // Relaxed: as above
                if word & LIVE != 0
                    && let Some(node) = slot.end(word)
                {
                    // SAFETY: as in `close`.
                    unsafe { self.records.remove_handle(node) };
                }
            }
        }
    }
}

// SAFETY: a table hands out references to its objects in any thread, and drops them in any: `T: Send + Sync`.
// The pointers in records and slots are to objects, which it owns.
unsafe impl<T: Send + Sync> Sync for Table<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Send for Table<T> {}
// SAFETY: its state and addresses are atomics; `next` is written before it is published.
unsafe impl<T: Send + Sync> Sync for Record<T> {}

#[cfg(all(test, loom))]
mod model;
#[cfg(all(test, not(loom)))]
mod tests;
