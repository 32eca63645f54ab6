//! User packets: what [`Port::queue`](crate::Port::queue) puts beside the page requests.
//!
//! They stand in a [queue](crate::queue) of their own, and that queue has an entry in the port's
//! registry like a VMO's: so it is marked, visited and served in turn as one more VMO.
//!
//! # Delivered or withdrawn
//!
//! The state of a packet is one word: the generation of its entry, and what holds the entry.
//!
//! ```text
//!   free --queue--> WAITING, LINKED --take--> HELD, LINKED --copied out--> LINKED --+
//!                        |                                                          |
//!                        +-----------cancel-----------> LINKED --left the queue--> free
//! ```
//!
//! Clearing `WAITING` is one compare-and-swap of the whole word, so exactly one taker or canceller
//! decides what becomes of a packet. `LINKED` is cleared by whoever moved the head of the queue past
//! the entry, `HELD` by the taker when it has copied the packet; either may be the earlier. Whoever
//! clears the last of the three frees the entry, and its generation ends.
//!
//! A packet that was withdrawn stays linked until it is the first, and is then passed over.

use alloc::boxed::Box;
use core::ptr;

use crate::packet::{PACKET_TYPE_USER, Packet, PageRequest};
use crate::pool::{Pool, try_box};
use crate::queue::{Entries, Queue, Taken};
use crate::status::{Result, Status};
use crate::sync::{AcqRel, Acquire, AtomicPtr, AtomicU32, AtomicU64, Cell, Relaxed, Release};

/// How many user packets may wait at one port (Zircon's `kMaxPendingPacketCountPerPort`, in
/// `zircon/kernel/object/port_dispatcher.cc`).
pub const MAX_USER_PACKETS: u32 = 2048;

/// Neither delivered nor withdrawn yet.
const WAITING: u64 = 1;
/// The queue holds the entry.
const LINKED: u64 = 2;
/// A taker copies the packet.
const HELD: u64 = 4;
const HOLDS: u64 = WAITING | LINKED | HELD;
const GENERATION: u64 = HOLDS + 1;

/// What a user chooses in a packet besides the key.
#[derive(Clone, Copy, Default)]
struct Body {
    status: i32,
    payload: PageRequest,
}

/// An entry of the pool: one user packet.
#[repr(align(64))]
struct Entry {
    state: AtomicU64,
    /// The next entry of the queue.
    link: AtomicU64,
    /// Besides the body, since a canceller reads it of packets that are not its own.
    key: AtomicU64,
    body: Cell<Body>,
}

// SAFETY: the body is written by the one who has claimed the entry, before WAITING is set, and read
// by the one who swapped WAITING for HELD, before it clears HELD. The entry is not claimed anew in
// between, since it is freed by whoever clears its last hold; and all of these are AcqRel or
// stronger pairs on `state` and on the pool's bits.
unsafe impl Sync for Entry {}

impl Default for Entry {
    fn default() -> Self {
        let (state, link, key) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        Self { state, link, key, body: Cell::new(Body::default()) }
    }
}

/// The packets of one port that wait, and the entries that the queue still holds.
struct Packets {
    pool: Pool<Entry>,
    /// How many wait, or are being queued.
    waiting: AtomicU32,
}

impl Packets {
    /// A place among the packets that wait.
    fn reserve(&self) -> Result<()> {
        let mut waiting = self.waiting.load(Relaxed); // Relaxed: as below
        loop {
            if waiting >= MAX_USER_PACKETS {
                return Err(Status::ShouldWait);
            }
            // Relaxed: a number that guards nothing; the packet is handed on by `state`
            match self.waiting.compare_exchange(waiting, waiting + 1, Relaxed, Relaxed) {
                Ok(_) => return Ok(()),
                Err(now) => waiting = now,
            }
        }
    }

    /// Gives the place up.
    fn unreserve(&self) {
        self.waiting.fetch_sub(1, Relaxed); // Relaxed: as in `reserve`
    }

    /// An entry that waits for nobody, and that the queue holds: its first dummy.
    fn dummy(&self) -> Result<u32> {
        let (index, entry) = self.pool.claim()?;
        entry.state.store(LINKED, Relaxed); // Relaxed: published with the queue
        Ok(index)
    }

    /// Writes a packet into an entry of its own, which the queue is taken to hold from now on.
    fn write(&self, packet: &Packet) -> Result<(u32, &Entry)> {
        let (index, entry) = self.pool.claim()?;
        let body = Body { status: packet.status, payload: packet.page_request };
        // SAFETY: claimed, and no hold is set: by the type's rule only we touch the body.
        entry.body.with_mut(|cell| unsafe { *cell = body });
        entry.key.store(packet.key, Relaxed); // Relaxed: published by the store of the state
        let generation = entry.state.load(Relaxed); // Relaxed: ours; the claim came after its free
        // Release: publishes the packet to `collect` and `withdraw`
        entry.state.store(generation | WAITING | LINKED, Release);
        Ok((index, entry))
    }

    /// Swaps the state; `to` without a hold frees the entry.
    fn change(&self, index: u32, entry: &Entry, from: u64, to: u64) -> Result<(), u64> {
        let free = to & HOLDS == 0;
        let to = if free { to.wrapping_add(GENERATION) } else { to };
        // AcqRel: Acquire takes over the packet from `write`, and what the other holders did;
        // Release passes on to the last of them what we did
        entry.state.compare_exchange(from, to, AcqRel, Acquire)?;
        if free {
            self.pool.release(index);
        }
        Ok(())
    }

    /// Lets go of what the caller holds of the entry.
    fn let_go(&self, index: u32, entry: &Entry, hold: u64) {
        let mut state = entry.state.load(Acquire); // Acquire: as on failure, in `change`
        while let Err(now) = self.change(index, entry, state, state & !hold) {
            state = now;
        }
    }

    /// Ends the wait of a packet that has this key. False: it does not wait, or has another.
    fn withdraw(&self, index: u32, entry: &Entry, key: u64) -> bool {
        let mut state = entry.state.load(Acquire); // Acquire: pairs with `write`, for the key
        while state & WAITING != 0 {
            // Relaxed: of the life that `state` names if the swap below succeeds. The key of a later
            // life is written after that swap, and so cannot be what was read before it.
            if entry.key.load(Relaxed) != key {
                return false;
            }
            match self.change(index, entry, state, state & !WAITING) {
                Ok(()) => {
                    self.unreserve();
                    return true;
                }
                Err(now) => state = now,
            }
        }
        false
    }
}

/// In a model, in the end, as many packets are counted as wait, and each entry that is claimed is held for something.
#[cfg(loom)]
impl Drop for Packets {
    fn drop(&mut self) {
        let mut waiting = 0;
        self.pool.glance(|_, entry| {
            let state = entry.state.load(Relaxed); // Relaxed: `&mut self` comes after all
            assert_eq!(state & HOLDS & !WAITING, LINKED, "an entry was not given back");
            waiting += u32::from(state & WAITING != 0);
        });
        assert_eq!(self.waiting.load(Relaxed), waiting, "packets that wait"); // Relaxed: as above
    }
}

impl Entries for Packets {
    type Entry = Entry;
    /// The state.
    type Seen = u64;
    type Item = Packet;

    fn get(&self, index: u32) -> Option<&Entry> {
        self.pool.get(index)
    }

    fn link(entry: &Entry) -> &AtomicU64 {
        &entry.link
    }

    fn see(entry: &Entry) -> u64 {
        entry.state.load(Acquire) // Acquire: pairs with `write` and `change`
    }

    fn is_live(seen: u64) -> bool {
        seen & WAITING != 0
    }

    fn collect(&self, index: u32, entry: &Entry, seen: u64) -> Option<Packet> {
        let mut state = seen;
        // Of the same life, and still waiting; only LINKED may have changed.
        while state & WAITING != 0 && state | HOLDS == seen | HOLDS {
            let Err(now) = self.change(index, entry, state, (state & !WAITING) | HELD) else {
                self.unreserve();
                let key = entry.key.load(Relaxed); // Relaxed: ordered by the state; ours while HELD
                // SAFETY: we swapped WAITING for HELD: nobody writes the body until we let go.
                let body = entry.body.with(|cell| unsafe { *cell });
                self.let_go(index, entry, HELD);
                let Body { status, payload } = body;
                return Some(Packet { key, packet_type: PACKET_TYPE_USER, status, page_request: payload });
            };
            state = now;
        }
        None
    }

    fn unqueue(&self, index: u32, entry: &Entry) {
        self.let_go(index, entry, LINKED);
    }
}

/// The user packets of a port that has had one.
pub(crate) struct UserQueue {
    packets: Packets,
    queue: Queue,
    entry: u32,
}

impl UserQueue {
    /// An empty one, to be marked by this entry of the port's registry.
    pub(crate) fn new(entry: u32) -> Result<Self> {
        let packets = Packets { pool: Pool::new(), waiting: AtomicU32::new(0) };
        let queue = Queue::new(&packets, packets.dummy()?)?;
        Ok(Self { packets, queue, entry })
    }

    /// The entry of the port's registry that is marked when there is something.
    pub(crate) const fn entry(&self) -> u32 {
        self.entry
    }

    /// Puts a packet at the end.
    ///
    /// # Errors
    /// [`ShouldWait`](Status::ShouldWait): too many wait. [`NoMemory`](Status::NoMemory).
    pub(crate) fn append(&self, packet: &Packet) -> Result<()> {
        self.packets.reserve()?;
        let written = self.packets.write(packet).inspect_err(|_| self.packets.unreserve());
        let (index, entry) = written.map_err(|status| match status {
            Status::NoResources => Status::ShouldWait, // withdrawn packets behind one that waits fill the pool
            other => other,
        })?;
        self.queue.append(&self.packets, index, entry).map_err(|_| Status::Internal) // never: nobody seals it
    }

    /// Fills `packets` from the front.
    pub(crate) fn take(&self, packets: &mut [Packet]) -> (usize, Taken) {
        let mut filled = 0;
        let taken = self.queue.take(&self.packets, packets.len(), |packet| {
            packets[filled] = packet;
            filled += 1;
        });
        (filled, taken)
    }

    /// Withdraws the packets that wait under this key. False: there are none.
    pub(crate) fn cancel(&self, key: u64) -> bool {
        let mut found = false;
        self.packets.pool.glance(|index, entry| found |= self.packets.withdraw(index, entry, key));
        if found {
            // Takes nothing but the withdrawn ones that are first, so that they do not pile up at a
            // port that nobody serves.
            self.queue.take(&self.packets, 0, |_| ());
        }
        found
    }
}

/// The place for a [`UserQueue`]. Empty until the port has its first user packet, so that a port
/// without them allocates nothing.
pub(crate) struct UserPackets(AtomicPtr<UserQueue>);

impl UserPackets {
    pub(crate) fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    #[inline]
    pub(crate) fn get(&self) -> Option<&UserQueue> {
        let at = self.0.load(Acquire); // Acquire: pairs with `get_or_put`
        // SAFETY: once published it is freed only by Drop, which has the place to itself.
        unsafe { at.as_ref() }
    }

    /// The queue that is in place: this one, unless there is one.
    pub(crate) fn get_or_put(&self, queue: UserQueue) -> Result<&UserQueue> {
        let fresh = Box::into_raw(try_box(queue)?);
        // AcqRel: Release publishes the queue to `get`; Acquire, on failure, takes over the one that
        // another thread published
        match self.0.compare_exchange(ptr::null_mut(), fresh, AcqRel, Acquire) {
            // SAFETY: published just now, and freed only by Drop.
            Ok(_) => Ok(unsafe { &*fresh }),
            Err(theirs) => {
                // SAFETY: `fresh` came from Box::into_raw above and was not published.
                drop(unsafe { Box::from_raw(fresh) });
                // SAFETY: `theirs` is published, and freed only by Drop.
                Ok(unsafe { &*theirs })
            }
        }
    }
}

impl Drop for UserPackets {
    fn drop(&mut self) {
        let at = self.0.load(Relaxed); // Relaxed: `&mut self` comes after every `get_or_put`
        if !at.is_null() {
            // SAFETY: published by `get_or_put` from Box::into_raw; `&mut self` says nobody looks.
            drop(unsafe { Box::from_raw(at) });
        }
    }
}
