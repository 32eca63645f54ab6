//! The state of one page, in one word. The only module that knows its bits.
//!
//! ```text
//!               request                    supply
//!   Empty ------------------> Requested -----------+
//!     ^  <------------------      |                |
//!     |       withdraw            | request        |
//!     |                           v (of a dead one)|
//!     |  supply               Requested            |
//!     +---------------------------------------+    |
//!     |                                       v    v       begin_write, mark_dirty
//!     |  reclaim               evict        Clean ------------------------> Dirty <--+ begin_write,
//!     +----------- Evicting <---------------  ^                             | ^  |   | end_write
//!                     |  |      rescue        |  writeback_end              | |  +---+
//!                     |  +--------------------+------------- AwaitingClean <+ |
//!                     |                                         |   writeback_begin (no writers)
//!                     |        begin_write, mark_dirty          |             |
//!                     +-----------------------------------------+-------------+
//! ```
//!
//! Every arrow is one method and one compare-and-swap. The method belongs to the state that the
//! arrow leaves, so an arrow that is not in the chart does not compile. A compare-and-swap that
//! fails returns what the page is now, and its caller decides anew.
//!
//! # The word
//!
//! | bits | in `Requested` | in `Dirty` | in the other states with a frame |
//! | --- | --- | --- | --- |
//! | 0..4 | tag | tag | tag |
//! | 4 | 0 | accessed | accessed; in `Evicting`: condemned, an access has failed on it |
//! | 5 | reclaim pending | reclaim pending | reclaim pending |
//! | 6..23 | index of the request | writers that hold the page | index of the DIRTY request, where there is one; in `AwaitingClean`: refused, a write has failed on it |
//! | 23 | 0 | always needed | always needed |
//! | 24..64 | generation of the request (36 bits) | frame | frame |
//!
//! *Reclaim pending* says that an earlier eviction, from which the page was rescued, has left a
//! reclaim that will still run. It makes "how many reclaims are on their way for this page" part
//! of the state: one if the page is `Evicting` or has the bit, else none. Without it a page that
//! was rescued and evicted again would be freed by the first reclaim, inside the grace period of
//! the second.
//!
//! *Always needed* is a hint that was given for the page ([`hints`](crate::hints)). Every arrow between
//! states with a frame keeps it; it goes with the frame.
//!
//! A request is *dead* when its generation has passed or its outcome is known
//! ([`request`](crate::request)). `Requested` by a dead request means `Empty`: whoever failed the
//! request turns its pages back, but nobody has to wait for that.
//!
//! Where dirtying is trapped, a page that is clean or awaiting clean may besides be under a DIRTY
//! request, or under a permit that is about to answer one; [`trap`](crate::trap) tells how:
//!
//! ```text
//!   Clean <--withdraw-- DirtyRequested --grant--> Dirty          withdraw: also to AwaitingClean,
//!         --request_dirty-->    |  ^                             where the page came from there
//!   AwaitingClean --request_dirty-+                              writeback_end: the page is clean
//!                               +--evict--> Evicting             underneath from then on
//! ```
//!
//! Any page may be replaced by zeros that are not stored, or by nothing:
//!
//! ```text
//!   (any) --replace--> Zero --store--> Dirty, AwaitingClean      writeback_begin: Zero awaits clean
//!   (any) --replace--> Empty           Zero --writeback_end--> Empty
//! ```
//!
//! The frame of a replaced page is freed after a grace period without the page's doing, so the page may
//! have another one at once. A reclaim that was on its way for it finds the bit, in every state.
//!
//! In an anonymous VMO ([`anonymous`](crate::anonymous)) a page is `Empty`, which reads as zeros, or
//! `Dirty`, held or not:
//!
//! ```text
//!   Empty --commit--> Dirty <--+ begin_write, end_write
//!     ^                |  |    |
//!     +------take------+  +----+            take: no writers
//! ```
//!
//! Two bits of a tag say what a lookup asks: content of the VMO's own (dirty, awaiting clean), and
//! content that the service has too, which detach hides.

use core::ops::ControlFlow;

use crate::counts::Kind;
use crate::platform::Frame;
use crate::request::RequestId;
use crate::sync::{AcqRel, Acquire, AtomicU64, Relaxed, Release};

const TAG: u64 = 0xf;
const ACCESSED: u64 = 1 << 4;
const RECLAIM: u64 = 1 << 5;
const INDEX_BITS: u32 = 17;
const INDEX_AT: u32 = 6;
const PIN: u64 = 1 << INDEX_AT;
const PINS: u64 = ((1 << INDEX_BITS) - 1) << INDEX_AT;
const ALWAYS_NEEDED: u64 = 1 << 23;
const FRAME_AT: u32 = 24;
const FRAME: u64 = u64::MAX << FRAME_AT;
/// What belongs to the frame, and not to the state: every arrow between states with a frame keeps it.
const CARRIED: u64 = FRAME | RECLAIM | ALWAYS_NEEDED;
const KEPT: u64 = CARRIED | ACCESSED;

/// In the word of `AwaitingClean`: a write has failed on the page.
const REFUSED: u64 = 1 << INDEX_AT;
/// In the word of `Zero`: the zeros are being written back.
const ZEROS_AWAITING: u64 = 1 << INDEX_AT;

const EMPTY: u64 = 0;
const REQUESTED: u64 = 1;
const EVICTING: u64 = 2;
const ZERO: u64 = 3;
const CLEAN: u64 = 4;
const CLEAN_DIRTY_REQUESTED: u64 = 5;
const DIRTY: u64 = 8;
const AWAITING_CLEAN: u64 = 9;
const AWAITING_DIRTY_REQUESTED: u64 = 10;

/// In the tags of content that may be read whatever the VMO's source is.
pub(crate) const OWN: u64 = 8;
/// In the tags of content that the service has too: of clean pages, which detach drops.
pub(crate) const OF_PAGER: u64 = 4;

/// In a tag of each page that is dirty or awaits clean, stored or not; and in that of `Evicting`.
const DIRTIES: u64 = OWN | 2;

/// Slots on one line of memory.
const LINE: usize = 8;

/// The word of one page.
#[derive(Debug)]
pub(crate) struct Slot(AtomicU64);

/// What a scan looks for. It may be shown others besides, but no `Empty` page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wanted {
    /// Dirty and awaiting clean, stored or not.
    Dirty,
    /// Clean, dirty and awaiting clean.
    Resident,
    /// Clean, which is some of what is resident.
    Clean,
    /// Whatever has, or may have, a frame.
    Any,
}

impl Wanted {
    /// All that is counted as one of this kind.
    pub(crate) const fn of(kind: Kind) -> Self {
        match kind {
            Kind::Dirty => Self::Dirty,
            Kind::Resident => Self::Resident,
        }
    }

    /// One of these bits is in the word of every page that is wanted.
    const fn mask(self) -> u64 {
        match self {
            Self::Dirty => DIRTIES,
            Self::Resident => OWN | OF_PAGER,
            Self::Clean => OF_PAGER,
            Self::Any => TAG,
        }
    }

    /// As what the pages are counted. `None`: they are in several counts, or in none.
    pub(crate) const fn counted_as(self) -> Option<Kind> {
        match self {
            Self::Dirty => Some(Kind::Dirty),
            Self::Resident | Self::Clean => Some(Kind::Resident),
            Self::Any => None,
        }
    }
}

/// What a page was when it was looked at. Each state carries the word it was seen in, and the
/// arrows that leave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// No content and no request. May be requested or supplied.
    Empty(Empty),
    /// A READ is in flight, or was: ask whether it is dead.
    Requested(Requested),
    /// Content that is on its way out, readable until the grace period is over.
    Evicting(Evicting),
    /// Content that the service has too.
    Clean(Clean),
    /// Content that the service does not have.
    Dirty(Dirty),
    /// Content that the service is writing back.
    AwaitingClean(AwaitingClean),
    /// Resident, clean or awaiting clean, and its dirtying is asked for or about to be allowed.
    DirtyRequested(DirtyRequested),
    /// Dirty zeros that are not stored.
    Zero(Zero),
}

/// What a page without a frame is, where it shares a word with its neighbours
/// ([`table`](crate::table)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unstored {
    /// `Empty`.
    Absent,
    /// `Zero`.
    Zero,
    /// `Zero`, and being written back.
    ZeroAwaiting,
}

impl Unstored {
    const fn word(self) -> u64 {
        match self {
            Self::Absent => EMPTY,
            Self::Zero => ZERO,
            Self::ZeroAwaiting => ZERO | ZEROS_AWAITING,
        }
    }
}

macro_rules! seen {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) struct $name(u64);
    )*};
}
seen! {
    /// A page seen `Empty`.
    Empty;
    /// A page seen `Requested`.
    Requested;
    /// A page seen `Evicting`.
    Evicting;
    /// A page seen `Clean`.
    Clean;
    /// A page seen `Dirty`.
    Dirty;
    /// A page seen `AwaitingClean`.
    AwaitingClean;
    /// A page seen `DirtyRequested`.
    DirtyRequested;
    /// A page seen `Zero`.
    Zero;
    /// A page seen with a frame that is not on its way out: what a hint sees of it.
    Stored;
}

/// What a reclaim did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reclaimed {
    /// The page is empty, and its frame is the caller's.
    Frame(Frame),
    /// The page was evicted again meanwhile: the caller owes it another reclaim.
    Again,
    /// The page was rescued, and owes nothing.
    Rescued,
}

const fn frame_of(word: u64) -> Frame {
    Frame::from_bits(word >> FRAME_AT)
}

const fn frame_bits(frame: Frame) -> u64 {
    frame.to_bits() << FRAME_AT
}

impl Slot {
    pub(crate) fn new(page: Unstored) -> Self {
        Self(AtomicU64::new(page.word()))
    }

    /// Of a page that comes with its content, as [`Empty::supply`] would have left it.
    #[inline]
    pub(crate) fn supplied(frame: Frame) -> Self {
        Self(AtomicU64::new(supplied_word(EMPTY, frame)))
    }

    /// The frame of one that was made by [`supplied`](Self::supplied) and was shown to nobody.
    pub(crate) fn supplied_frame(&self) -> Frame {
        frame_of(self.0.load(Relaxed)) // Relaxed: nobody else has seen it
    }

    /// What the page is.
    #[inline]
    pub(crate) fn load(&self) -> State {
        // Acquire: pairs with the Release half of `change`, so that who sees a frame sees its
        // bytes, and who sees a request sees its fields.
        decode(self.0.load(Acquire))
    }

    /// What the page is, to one who uses nothing of it. Whoever changes the word after this takes over what he has seen.
    pub(crate) fn load_last(&self) -> State {
        decode(self.0.fetch_or(0, Release)) // Release: pairs with the Acquire half of the next `change`
    }

    /// Calls `f` with the place and the state of those of the slots that are wanted, in order, until it
    /// breaks.
    #[inline]
    pub(crate) fn each<B>(
        slots: &[Self],
        wanted: Wanted,
        mut f: impl FnMut(usize, State) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let mask = wanted.mask();
        for (nth, line) in slots.chunks(LINE).enumerate() {
            if <&[Self; LINE]>::try_from(line).is_ok_and(|line| Self::has_none(line, mask)) {
                continue;
            }
            for (place, slot) in line.iter().enumerate() {
                let word = slot.0.load(Acquire); // Acquire: as in `load`, and as in `dirty` for a page that is passed over
                if word & mask != 0 {
                    f(nth * LINE + place, decode(word))?;
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// Which of the slots, 64 at most, are dirty or await clean: as bits, those that are stored, and those
    /// that are zeros.
    #[inline]
    pub(crate) fn dirty(slots: &[Self]) -> (u64, u64) {
        // Acquire: who is told that a page is not dirty sees what came before the END that cleaned it
        let word = |slot: &Self| slot.0.load(Acquire);
        let bits = |slots: &[Self]| {
            slots.iter().map(word).enumerate().fold((0, 0), |(stored, zeros), (place, word)| {
                (stored | u64::from(word & OWN != 0) << place, zeros | u64::from(word & TAG == ZERO) << place)
            })
        };
        let (lines, rest) = slots.as_chunks::<LINE>();
        let (mut stored, mut zeros) = bits(rest);
        for line in lines.iter().rev() {
            let (s, z) = if Self::has_none(line, DIRTIES) {
                (0, 0)
            } else if line.iter().fold(OWN, |all, slot| all & word(slot)) != 0 {
                ((1 << LINE) - 1, 0) // most lines of a VMO that is written all over
            } else {
                bits(line)
            };
            (stored, zeros) = (stored << LINE | s, zeros << LINE | z);
        }
        (stored, zeros)
    }

    /// True if it was seen that no word of a line has a bit of `mask`. Most lines of a scan have nothing, and
    /// this tells by one test.
    #[inline]
    fn has_none(line: &[Self; LINE], mask: u64) -> bool {
        line.iter().fold(0, |all, slot| all | slot.0.load(Acquire)) & mask == 0 // Acquire: as in `dirty`
    }

    /// The frame of a page that may be read at once. `shown` is asked after the page was looked
    /// at, for what of the VMO's content counts as there: [`OWN`], and [`OF_PAGER`] or not.
    /// The resident path: one load, no decoding of states that it does not serve.
    #[inline]
    pub(crate) fn resident(&self, shown: impl FnOnce() -> u64) -> Option<Frame> {
        let word = self.0.load(Acquire); // Acquire: pairs with `Empty::supply`, for the frame's bytes
        (word & shown() != 0).then(|| frame_of(word))
    }

    #[inline]
    fn change(&self, from: u64, to: u64) -> Result<(), State> {
        // AcqRel: Release publishes what was written before the arrow (a frame's bytes, a
        // request's fields) to `load`; Acquire, also on failure, takes over what the last arrow
        // published, since the caller goes on from it.
        match self.0.compare_exchange(from, to, AcqRel, Acquire) {
            Ok(_) => Ok(()),
            Err(now) => Err(decode(now)),
        }
    }

    /// Gives up a writer's hold on this frame of the page, after its bytes are in. The writer has been
    /// pinned since it took hold: so if the page has the frame, it is still the same content. (In an
    /// anonymous VMO a page that is held keeps its content, and nobody need be pinned for it.)
    #[inline]
    pub(crate) fn end_write(&self, frame: Frame) {
        let mut word = self.0.load(Relaxed); // Relaxed: the swap below decides
        // The page has left `Dirty` with a writer in it only if its content was replaced.
        while word & TAG == DIRTY && frame_of(word) == frame && word & PINS != 0 {
            // Release: the bytes written come before whoever next moves the page (`writeback_begin`
            // acquires), and before its frame can be read by writeback. Relaxed: as above.
            match self.0.compare_exchange(word, word - PIN, Release, Relaxed) {
                Ok(_) => return,
                Err(now) => word = now,
            }
        }
    }
}

impl Slot {
    /// Whether the page still has this frame, which it was seen to have by a reader who has been pinned
    /// since. If so, what the reader did with the frame comes before whatever happens to the frame once it
    /// has left the page: before it is written to elsewhere, too.
    #[inline]
    pub(crate) fn still_has(&self, frame: Frame) -> bool {
        // Release, and a read-modify-write: every later arrow of the page is one too, so `take` (Acquire)
        // reads from the release sequence that begins here. A load would leave the order of the copied
        // bytes to the processor.
        let word = self.0.fetch_or(0, Release);
        word & TAG == DIRTY && frame_of(word) == frame
    }
}

#[inline]
const fn decode(word: u64) -> State {
    match word & TAG {
        REQUESTED => State::Requested(Requested(word)),
        EVICTING => State::Evicting(Evicting(word)),
        CLEAN => State::Clean(Clean(word)),
        DIRTY => State::Dirty(Dirty(word)),
        AWAITING_CLEAN => State::AwaitingClean(AwaitingClean(word)),
        CLEAN_DIRTY_REQUESTED | AWAITING_DIRTY_REQUESTED => State::DirtyRequested(DirtyRequested(word)),
        ZERO => State::Zero(Zero(word)),
        _ => State::Empty(Empty(word)),
    }
}

const fn index_bits(index: u32) -> u64 {
    (index as u64) << INDEX_AT
}

/// `from` is the word before.
const fn requested_word(from: u64, id: RequestId) -> u64 {
    REQUESTED | (id.generation() << FRAME_AT) | index_bits(id.index()) | (from & RECLAIM)
}

/// `from` is the word before.
const fn supplied_word(from: u64, frame: Frame) -> u64 {
    // Accessed: a page that was asked for outlives one turn of the evictor's hand, so that who
    // asked for it can use it.
    CLEAN | frame_bits(frame) | ACCESSED | (from & RECLAIM)
}

impl State {
    const fn word(self) -> u64 {
        match self {
            Self::Empty(Empty(word))
            | Self::Requested(Requested(word))
            | Self::Evicting(Evicting(word))
            | Self::Clean(Clean(word))
            | Self::Dirty(Dirty(word))
            | Self::AwaitingClean(AwaitingClean(word))
            | Self::DirtyRequested(DirtyRequested(word))
            | Self::Zero(Zero(word)) => word,
        }
    }

    /// The content goes, whatever there is, and the page becomes zeros, or absent. Its frame, if it had
    /// one, is the caller's to free after a grace period. Writers may be in it: their bytes go with it.
    #[inline]
    pub(crate) fn replace(self, slot: &Slot, with: Unstored) -> Result<Option<Frame>, State> {
        let word = self.word();
        let tag = word & TAG;
        // The reclaim that `Evicting` stands for is still on its way, and will find the bit.
        let reclaim = if tag == EVICTING { RECLAIM } else { word & RECLAIM };
        slot.change(word, with.word() | reclaim)?;
        Ok((tag & (OWN | OF_PAGER) != 0 || tag == EVICTING).then(|| frame_of(word)))
    }
}

impl Zero {
    /// Whether the service is writing the zeros back.
    pub(crate) const fn is_awaiting(self) -> bool {
        self.0 & ZEROS_AWAITING != 0
    }

    /// A frame of zeros takes the place of those that were not stored. The page stays what it is for
    /// the service: dirty, or awaiting clean.
    #[inline]
    pub(crate) fn store(self, slot: &Slot, frame: Frame) -> Result<(), State> {
        let tag = if self.is_awaiting() { AWAITING_CLEAN } else { DIRTY };
        slot.change(self.0, tag | frame_bits(frame) | (self.0 & RECLAIM) | ACCESSED)
    }

    /// The service begins to write the zeros back.
    #[inline]
    pub(crate) fn writeback_begin(self, slot: &Slot) -> Result<(), State> {
        slot.change(self.0, self.0 | ZEROS_AWAITING)
    }

    /// The service has written the zeros back: it has them now.
    #[inline]
    pub(crate) fn writeback_end(self, slot: &Slot) -> Result<(), State> {
        slot.change(self.0, EMPTY | (self.0 & RECLAIM))
    }
}

impl Empty {
    /// A frame of zeros becomes the content of a page of an anonymous VMO.
    #[inline]
    pub(crate) fn commit(self, slot: &Slot, frame: Frame) -> Result<(), State> {
        slot.change(self.0, DIRTY | frame_bits(frame))
    }

    /// A READ now covers the page.
    #[inline]
    pub(crate) fn request(self, slot: &Slot, id: RequestId) -> Result<(), State> {
        slot.change(self.0, requested_word(self.0, id))
    }

    /// Content arrives, unasked.
    #[inline]
    pub(crate) fn supply(self, slot: &Slot, frame: Frame) -> Result<(), State> {
        slot.change(self.0, supplied_word(self.0, frame))
    }
}

impl Requested {
    pub(crate) const fn id(self) -> RequestId {
        RequestId::new(((self.0 & PINS) >> INDEX_AT) as u32, self.0 >> FRAME_AT)
    }

    /// Another READ takes the page over from a dead one.
    #[inline]
    pub(crate) fn request(self, slot: &Slot, id: RequestId) -> Result<(), State> {
        slot.change(self.0, requested_word(self.0, id))
    }

    /// The content asked for arrives.
    #[inline]
    pub(crate) fn supply(self, slot: &Slot, frame: Frame) -> Result<(), State> {
        slot.change(self.0, supplied_word(self.0, frame))
    }

    /// The request failed, or nobody waits for it any more.
    #[inline]
    pub(crate) fn withdraw(self, slot: &Slot) -> Result<(), State> {
        slot.change(self.0, EMPTY | (self.0 & RECLAIM))
    }
}

impl Evicting {
    #[inline]
    pub(crate) const fn frame(self) -> Frame {
        frame_of(self.0)
    }

    /// Whether an access has failed on the page, which is therefore beyond rescue.
    pub(crate) const fn is_condemned(self) -> bool {
        self.0 & ACCESSED != 0
    }

    /// An access to a detached VMO is about to fail on the page: whoever saw the VMO attached, and
    /// is about to rescue it, finds the word changed. Every arrow into `Evicting` clears the bit.
    #[inline]
    pub(crate) fn condemn(self, slot: &Slot) -> Result<(), State> {
        slot.change(self.0, self.0 | ACCESSED)
    }

    /// An access came before the grace period was over: the page stays.
    #[inline]
    pub(crate) fn rescue(self, slot: &Slot) -> Result<(), State> {
        slot.change(self.0, (self.0 & CARRIED) | CLEAN | RECLAIM | ACCESSED)
    }

    /// As [`rescue`](Self::rescue), by a writer, who then holds the page.
    #[inline]
    pub(crate) fn begin_write(self, slot: &Slot) -> Result<(), State> {
        slot.change(self.0, (self.0 & CARRIED) | DIRTY | RECLAIM | ACCESSED | PIN)
    }

    /// As [`rescue`](Self::rescue), by a mapped writer.
    #[inline]
    pub(crate) fn mark_dirty(self, slot: &Slot) -> Result<(), State> {
        slot.change(self.0, (self.0 & CARRIED) | DIRTY | RECLAIM | ACCESSED)
    }

    /// If it is rescued, the page is like any other.
    #[inline]
    pub(crate) fn dont_need(self, slot: &Slot) -> Result<(), State> {
        change_marks(slot, self.0, self.0 & !ALWAYS_NEEDED)
    }
}

impl Clean {
    #[inline]
    pub(crate) const fn frame(self) -> Frame {
        frame_of(self.0)
    }

    #[inline]
    pub(crate) const fn accessed(self) -> bool {
        self.0 & ACCESSED != 0
    }

    pub(crate) const fn is_always_needed(self) -> bool {
        self.0 & ALWAYS_NEEDED != 0
    }

    /// Notes that the page was used. Failing is harmless: the page moved on.
    #[inline]
    pub(crate) fn touch(self, slot: &Slot) -> Result<(), State> {
        slot.change(self.0, self.0 | ACCESSED)
    }

    /// The evictor's hand passes: the next time it finds the page unused.
    #[inline]
    pub(crate) fn age(self, slot: &Slot) -> Result<(), State> {
        slot.change(self.0, self.0 & !ACCESSED)
    }

    /// The page is on its way out. The answer says whether the caller owes it a reclaim: a page
    /// with one pending must not get a second.
    #[inline]
    pub(crate) fn evict(self, slot: &Slot) -> Result<OwesReclaim, State> {
        slot.change(self.0, (self.0 & CARRIED) | EVICTING)?;
        Ok(OwesReclaim::of(self.0))
    }

    /// The page becomes dirty, and a writer holds it until its bytes are in.
    #[inline]
    pub(crate) fn begin_write(self, slot: &Slot) -> Result<(), State> {
        slot.change(self.0, (self.0 & CARRIED) | DIRTY | ACCESSED | PIN)
    }

    /// The page becomes dirty for a mapped writer.
    #[inline]
    pub(crate) fn mark_dirty(self, slot: &Slot) -> Result<(), State> {
        slot.change(self.0, (self.0 & CARRIED) | DIRTY | ACCESSED)
    }

    /// The request, or the permit, with this index is about the page's dirtying.
    #[inline]
    pub(crate) fn request_dirty(self, slot: &Slot, index: u32) -> Result<(), State> {
        slot.change(self.0, (self.0 & KEPT) | CLEAN_DIRTY_REQUESTED | index_bits(index))
    }
}

/// Whether whoever moved a page to `Evicting` has to schedule its reclaim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwesReclaim {
    Yes,
    No,
}

impl OwesReclaim {
    const fn of(word: u64) -> Self {
        if word & RECLAIM == 0 { Self::Yes } else { Self::No }
    }
}

impl Dirty {
    #[inline]
    pub(crate) const fn frame(self) -> Frame {
        frame_of(self.0)
    }

    pub(crate) const fn has_writers(self) -> bool {
        self.0 & PINS != 0
    }

    /// One more writer holds the page. `None`: as many as the word can count hold it already.
    #[inline]
    pub(crate) fn begin_write(self, slot: &Slot) -> Option<Result<(), State>> {
        if self.0 & PINS == PINS {
            return None;
        }
        Some(slot.change(self.0, (self.0 | ACCESSED) + PIN))
    }

    /// The service begins to write the page back. Only without writers: call it on a page of
    /// which [`has_writers`](Self::has_writers) is false, any other is refused as it stands.
    #[inline]
    pub(crate) fn writeback_begin(self, slot: &Slot) -> Result<(), State> {
        if self.has_writers() {
            return Err(State::Dirty(self));
        }
        slot.change(self.0, (self.0 & KEPT) | AWAITING_CLEAN)
    }

    /// The frame leaves a page of an anonymous VMO, which is empty then. Only without writers, as for
    /// [`writeback_begin`](Self::writeback_begin).
    #[inline]
    pub(crate) fn take(self, slot: &Slot) -> Result<Frame, State> {
        if self.has_writers() {
            return Err(State::Dirty(self));
        }
        slot.change(self.0, EMPTY)?;
        Ok(self.frame())
    }

    /// The VMO is gone: no writer is left, and the content with it.
    #[inline]
    pub(crate) fn discard(self, slot: &Slot) -> Result<OwesReclaim, State> {
        slot.change(self.0, (self.0 & CARRIED) | EVICTING)?;
        Ok(OwesReclaim::of(self.0))
    }
}

impl AwaitingClean {
    #[inline]
    pub(crate) const fn frame(self) -> Frame {
        frame_of(self.0)
    }

    /// Whether a write has failed on the page.
    pub(crate) const fn is_refused(self) -> bool {
        self.0 & REFUSED != 0
    }

    /// A write is about to fail on the page, whose VMO has no service any more to allow it: whoever saw the VMO
    /// attached, and is about to allow it, finds the word changed. Every arrow to another state clears the bit.
    #[inline]
    pub(crate) fn refuse(self, slot: &Slot) -> Result<(), State> {
        slot.change(self.0, self.0 | REFUSED)
    }

    /// The service has written the page back.
    #[inline]
    pub(crate) fn writeback_end(self, slot: &Slot) -> Result<(), State> {
        slot.change(self.0, (self.0 & KEPT) | CLEAN)
    }

    /// A write came in between: what the service wrote is old.
    #[inline]
    pub(crate) fn begin_write(self, slot: &Slot) -> Result<(), State> {
        slot.change(self.0, (self.0 & CARRIED) | DIRTY | ACCESSED | PIN)
    }

    /// As [`begin_write`](Self::begin_write), by a mapped writer.
    #[inline]
    pub(crate) fn mark_dirty(self, slot: &Slot) -> Result<(), State> {
        slot.change(self.0, (self.0 & CARRIED) | DIRTY | ACCESSED)
    }

    /// As for a [clean](Clean::request_dirty) page.
    #[inline]
    pub(crate) fn request_dirty(self, slot: &Slot, index: u32) -> Result<(), State> {
        slot.change(self.0, (self.0 & KEPT) | AWAITING_DIRTY_REQUESTED | index_bits(index))
    }

    /// The VMO is gone, and the content with it.
    #[inline]
    pub(crate) fn discard(self, slot: &Slot) -> Result<OwesReclaim, State> {
        slot.change(self.0, (self.0 & CARRIED) | EVICTING)?;
        Ok(OwesReclaim::of(self.0))
    }
}

impl DirtyRequested {
    pub(crate) const fn frame(self) -> Frame {
        frame_of(self.0)
    }

    /// The entry of the request or permit.
    pub(crate) const fn index(self) -> u32 {
        ((self.0 & PINS) >> INDEX_AT) as u32
    }

    /// Whether the service is writing the page back.
    pub(crate) const fn is_awaiting(self) -> bool {
        self.0 & TAG == AWAITING_DIRTY_REQUESTED
    }

    pub(crate) const fn is_always_needed(self) -> bool {
        self.0 & ALWAYS_NEEDED != 0
    }

    /// Another request, or a permit, takes the page over.
    #[inline]
    pub(crate) fn request_dirty(self, slot: &Slot, index: u32) -> Result<(), State> {
        slot.change(self.0, (self.0 & !PINS) | index_bits(index))
    }

    /// The service allows it.
    #[inline]
    pub(crate) fn grant(self, slot: &Slot) -> Result<(), State> {
        slot.change(self.0, (self.0 & CARRIED) | DIRTY | ACCESSED)
    }

    /// The request is over, and the page is what it was before.
    #[inline]
    pub(crate) fn withdraw(self, slot: &Slot) -> Result<(), State> {
        let tag = if self.is_awaiting() { AWAITING_CLEAN } else { CLEAN };
        slot.change(self.0, (self.0 & KEPT) | tag)
    }

    /// The service has written the page back. Only for a page that awaits it, any other is refused
    /// as it stands.
    #[inline]
    pub(crate) fn writeback_end(self, slot: &Slot) -> Result<(), State> {
        if !self.is_awaiting() {
            return Err(State::DirtyRequested(self));
        }
        slot.change(self.0, (self.0 & !TAG) | CLEAN_DIRTY_REQUESTED)
    }

    /// The page is on its way out. Only for a page that the service has too, any other is refused as
    /// it stands.
    #[inline]
    pub(crate) fn evict(self, slot: &Slot) -> Result<OwesReclaim, State> {
        if self.is_awaiting() {
            return Err(State::DirtyRequested(self));
        }
        self.discard(slot)
    }

    /// The VMO is gone, and the content with it.
    #[inline]
    pub(crate) fn discard(self, slot: &Slot) -> Result<OwesReclaim, State> {
        slot.change(self.0, (self.0 & CARRIED) | EVICTING)?;
        Ok(OwesReclaim::of(self.0))
    }
}

impl State {
    /// The page, if it has a frame that is not on its way out, whatever else it is.
    pub(crate) const fn stored(self) -> Option<Stored> {
        match self {
            Self::Clean(Clean(word))
            | Self::Dirty(Dirty(word))
            | Self::AwaitingClean(AwaitingClean(word))
            | Self::DirtyRequested(DirtyRequested(word)) => Some(Stored(word)),
            Self::Empty(_) | Self::Requested(_) | Self::Evicting(_) | Self::Zero(_) => None,
        }
    }

    /// Whether the page is counted so, when nothing moves.
    #[inline]
    pub(crate) fn counts_as(self, kind: Kind) -> bool {
        match (kind, self) {
            (Kind::Resident, _) => self.stored().is_some(),
            (Kind::Dirty, Self::DirtyRequested(page)) => page.is_awaiting(),
            (Kind::Dirty, _) => matches!(self, Self::Dirty(_) | Self::AwaitingClean(_) | Self::Zero(_)),
        }
    }
}

impl Stored {
    /// The page is always needed from now on, and was used just now.
    #[inline]
    pub(crate) fn always_need(self, slot: &Slot) -> Result<(), State> {
        change_marks(slot, self.0, self.0 | ALWAYS_NEEDED | ACCESSED)
    }

    /// The page is not needed, neither always nor lately.
    #[inline]
    pub(crate) fn dont_need(self, slot: &Slot) -> Result<(), State> {
        change_marks(slot, self.0, self.0 & !(ALWAYS_NEEDED | ACCESSED))
    }
}

/// As [`Slot::change`], but without a store where the page has the marks already.
fn change_marks(slot: &Slot, from: u64, to: u64) -> Result<(), State> {
    if from == to { Ok(()) } else { slot.change(from, to) }
}

impl Slot {
    /// The grace period of an eviction is over. Called exactly once for each `Evicting` that
    /// [owed](OwesReclaim::Yes) it, and once more for each [`Reclaimed::Again`].
    #[inline]
    pub(crate) fn reclaim(&self) -> Reclaimed {
        let mut word = self.0.load(Relaxed); // Relaxed: the swap below decides
        loop {
            let (to, done) = match (word & TAG, word & RECLAIM) {
                (EVICTING, 0) => (EMPTY, Reclaimed::Frame(frame_of(word))),
                (EVICTING, _) => (word & !RECLAIM, Reclaimed::Again),
                (_, 0) => {
                    debug_assert!(false, "a reclaim that no page owes"); // see "reclaim pending" above
                    return Reclaimed::Rescued;
                }
                _ => (word & !RECLAIM, Reclaimed::Rescued),
            };
            // Acquire: the page may have had other content since, and been evicted by one who owed no reclaim
            // and was not pinned. Whoever filled that frame comes before its end by this alone. Relaxed, on
            // failure: as above.
            match self.0.compare_exchange(word, to, Acquire, Relaxed) {
                Ok(_) => return done,
                Err(now) => word = now,
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn word(slot: &Slot) -> u64 {
        slot.0.load(Acquire) // Acquire: any; there is one thread
    }

    fn clean(slot: &Slot) -> Clean {
        match slot.load() {
            State::Clean(page) => page,
            other => panic!("{other:?}"),
        }
    }

    fn dirty_frame(slot: &Slot) -> Frame {
        match slot.load() {
            State::Dirty(page) => page.frame(),
            other => panic!("{other:?}"),
        }
    }

    fn supplied(frame: u64) -> Slot {
        let slot = Slot::new(Unstored::Absent);
        let State::Empty(page) = slot.load() else { panic!() };
        page.supply(&slot, Frame::from_bits(frame)).unwrap();
        slot
    }

    #[test]
    fn the_largest_values_fit_and_do_not_touch_each_other() {
        let slot = Slot::new(Unstored::Absent);
        let State::Empty(page) = slot.load() else { panic!() };
        let id = RequestId::new((1 << INDEX_BITS) - 1, (1 << 36) - 1);
        page.request(&slot, id).unwrap();
        let State::Requested(page) = slot.load() else { panic!() };
        assert_eq!(page.id(), id);
        let frame = Frame::from_bits((1 << 40) - 1);
        page.supply(&slot, frame).unwrap();
        assert_eq!(slot.resident(|| OWN | OF_PAGER), Some(frame));
        assert_eq!(slot.resident(|| OWN), None);
    }

    #[test]
    fn a_held_page_is_not_written_back() {
        let slot = supplied(9);
        clean(&slot).begin_write(&slot).unwrap();
        let State::Dirty(page) = slot.load() else { panic!() };
        assert!(page.has_writers());
        assert_eq!(page.writeback_begin(&slot), Err(State::Dirty(page)));
        slot.end_write(dirty_frame(&slot));
        let State::Dirty(page) = slot.load() else { panic!() };
        page.writeback_begin(&slot).unwrap();
        let State::AwaitingClean(page) = slot.load() else { panic!() };
        page.writeback_end(&slot).unwrap();
        assert_eq!(clean(&slot).frame(), Frame::from_bits(9));
    }

    /// Writeback ends only what awaits it, and eviction takes only what the service has too.
    #[test]
    fn a_page_under_a_request_is_refused_what_it_is_not_fit_for() {
        for (tag, awaits) in [(CLEAN_DIRTY_REQUESTED, false), (AWAITING_DIRTY_REQUESTED, true)] {
            let word = tag | KEPT | index_bits(7);
            let (ends, evicts) = (Slot(AtomicU64::new(word)), Slot(AtomicU64::new(word)));
            let State::DirtyRequested(page) = ends.load() else { panic!() };
            let refused = Err(State::DirtyRequested(page));
            if awaits {
                page.writeback_end(&ends).unwrap();
                assert_eq!(page.evict(&evicts), refused.map(|()| OwesReclaim::No));
            } else {
                assert_eq!(page.writeback_end(&ends), refused);
                assert_eq!(page.evict(&evicts), Ok(OwesReclaim::No));
            }
            assert_eq!(ends.load() == State::DirtyRequested(page), !awaits);
            assert_eq!(evicts.load() == State::DirtyRequested(page), awaits);
        }
    }

    #[test]
    fn a_held_page_is_not_taken() {
        let slot = Slot::new(Unstored::Absent);
        let State::Empty(page) = slot.load() else { panic!() };
        page.commit(&slot, Frame::from_bits(9)).unwrap();
        let State::Dirty(page) = slot.load() else { panic!() };
        page.begin_write(&slot).unwrap().unwrap();
        let State::Dirty(held) = slot.load() else { panic!() };
        assert_eq!(held.take(&slot), Err(State::Dirty(held)));
        assert_eq!(slot.load(), State::Dirty(held));
        slot.end_write(Frame::from_bits(9));
        let State::Dirty(page) = slot.load() else { panic!() };
        assert_eq!(page.take(&slot), Ok(Frame::from_bits(9)));
    }

    #[test]
    fn the_count_of_writers_does_not_overflow_into_the_flags() {
        let slot = supplied(1);
        clean(&slot).begin_write(&slot).unwrap();
        for _ in 1..(1 << INDEX_BITS) - 1 {
            let State::Dirty(page) = slot.load() else { panic!() };
            page.begin_write(&slot).unwrap().unwrap();
        }
        let State::Dirty(page) = slot.load() else { panic!() };
        assert!(page.begin_write(&slot).is_none());
    }

    #[test]
    fn a_rescued_page_that_is_evicted_again_gets_its_whole_grace_period() {
        let slot = supplied(5);
        assert_eq!(clean(&slot).evict(&slot), Ok(OwesReclaim::Yes));
        let State::Evicting(page) = slot.load() else { panic!() };
        page.rescue(&slot).unwrap();
        assert_eq!(clean(&slot).evict(&slot), Ok(OwesReclaim::No));
        assert_eq!(slot.reclaim(), Reclaimed::Again);
        assert_eq!(slot.reclaim(), Reclaimed::Frame(Frame::from_bits(5)));
        assert!(matches!(slot.load(), State::Empty(_)));
    }

    #[test]
    fn a_reclaim_finds_a_rescued_page_in_every_later_state() {
        let slot = supplied(5);
        clean(&slot).evict(&slot).unwrap();
        let State::Evicting(page) = slot.load() else { panic!() };
        page.begin_write(&slot).unwrap();
        slot.end_write(dirty_frame(&slot));
        let State::Dirty(page) = slot.load() else { panic!() };
        page.writeback_begin(&slot).unwrap();
        assert_eq!(slot.reclaim(), Reclaimed::Rescued);
        let State::AwaitingClean(page) = slot.load() else { panic!() };
        page.writeback_end(&slot).unwrap();
        assert_eq!(clean(&slot).evict(&slot), Ok(OwesReclaim::Yes));
    }

    #[test]
    fn a_replaced_page_gives_up_its_frame_and_keeps_what_is_on_its_way() {
        let slot = supplied(5);
        clean(&slot).evict(&slot).unwrap();
        assert_eq!(slot.load().replace(&slot, Unstored::Zero), Ok(Some(Frame::from_bits(5))));
        let State::Zero(page) = slot.load() else { panic!() };
        page.store(&slot, Frame::from_bits(6)).unwrap();
        assert_eq!(dirty_frame(&slot), Frame::from_bits(6));
        // The reclaim of the eviction comes, and leaves the new content alone.
        assert_eq!(slot.reclaim(), Reclaimed::Rescued);
        assert_eq!(slot.load().replace(&slot, Unstored::Absent), Ok(Some(Frame::from_bits(6))));
        assert_eq!(slot.load().replace(&slot, Unstored::ZeroAwaiting), Ok(None));
        let State::Zero(page) = slot.load() else { panic!() };
        page.store(&slot, Frame::from_bits(7)).unwrap();
        assert!(matches!(slot.load(), State::AwaitingClean(_)));
    }

    #[test]
    fn a_writer_whose_page_was_replaced_leaves_the_next_content_alone() {
        let slot = supplied(5);
        clean(&slot).begin_write(&slot).unwrap();
        slot.load().replace(&slot, Unstored::Zero).unwrap();
        let State::Zero(page) = slot.load() else { panic!() };
        page.store(&slot, Frame::from_bits(6)).unwrap();
        let State::Dirty(page) = slot.load() else { panic!() };
        page.begin_write(&slot).unwrap().unwrap();
        slot.end_write(Frame::from_bits(5));
        let State::Dirty(page) = slot.load() else { panic!() };
        assert!(page.has_writers());
    }

    #[test]
    fn a_stale_view_changes_nothing() {
        let slot = supplied(5);
        let stale = clean(&slot);
        stale.begin_write(&slot).unwrap();
        assert!(stale.evict(&slot).is_err());
        assert!(matches!(slot.load(), State::Dirty(_)));
    }

    fn is_always_needed(slot: &Slot) -> bool {
        word(slot) & ALWAYS_NEEDED != 0
    }

    /// A page that has the mark, in each state with a frame, and its name.
    fn marked() -> Vec<(&'static str, Slot)> {
        let always = || {
            let slot = supplied((1 << 40) - 1);
            slot.load().stored().unwrap().always_need(&slot).unwrap();
            slot
        };
        let dirty = || {
            let slot = always();
            clean(&slot).mark_dirty(&slot).unwrap();
            slot
        };
        let awaiting = || {
            let slot = dirty();
            let State::Dirty(page) = slot.load() else { panic!() };
            page.writeback_begin(&slot).unwrap();
            slot
        };
        let held = always();
        clean(&held).begin_write(&held).unwrap();
        let asked = always();
        clean(&asked).request_dirty(&asked, (1 << INDEX_BITS) - 1).unwrap();
        let awaiting_asked = awaiting();
        let State::AwaitingClean(page) = awaiting_asked.load() else { panic!() };
        page.request_dirty(&awaiting_asked, (1 << INDEX_BITS) - 1).unwrap();
        let evicting = always();
        clean(&evicting).evict(&evicting).unwrap();
        Vec::from([
            ("clean", always()),
            ("dirty", dirty()),
            ("held", held),
            ("awaiting", awaiting()),
            ("asked", asked),
            ("awaiting, asked", awaiting_asked),
            ("evicting", evicting),
        ])
    }

    /// Every arrow that leaves the state and keeps the frame, by number. `None`: there are no more.
    fn arrow(slot: &Slot, number: usize) -> Option<Result<(), State>> {
        let evicted = |owes: Result<OwesReclaim, State>| owes.map(drop);
        Some(match (slot.load(), number) {
            (State::Clean(page), 0) => page.touch(slot),
            (State::Clean(page), 1) => page.age(slot),
            (State::Clean(page), 2) => evicted(page.evict(slot)),
            (State::Clean(page), 3) => page.begin_write(slot),
            (State::Clean(page), 4) => page.mark_dirty(slot),
            (State::Clean(page), 5) => page.request_dirty(slot, 7),
            (State::Dirty(page), 0) => page.begin_write(slot).unwrap(),
            (State::Dirty(page), 1) if page.has_writers() => {
                slot.end_write(page.frame());
                Ok(())
            }
            (State::Dirty(page), 1) => page.writeback_begin(slot),
            (State::Dirty(page), 2) => evicted(page.discard(slot)),
            (State::AwaitingClean(page), 0) => page.writeback_end(slot),
            (State::AwaitingClean(page), 1) => page.begin_write(slot),
            (State::AwaitingClean(page), 2) => page.mark_dirty(slot),
            (State::AwaitingClean(page), 3) => page.request_dirty(slot, 7),
            (State::AwaitingClean(page), 4) => evicted(page.discard(slot)),
            (State::AwaitingClean(page), 5) if !page.is_refused() => page.refuse(slot),
            (State::DirtyRequested(page), 0) => page.request_dirty(slot, 7),
            (State::DirtyRequested(page), 1) => page.grant(slot),
            (State::DirtyRequested(page), 2) => page.withdraw(slot),
            (State::DirtyRequested(page), 3) => evicted(page.discard(slot)),
            (State::DirtyRequested(page), 4) if page.is_awaiting() => page.writeback_end(slot),
            (State::DirtyRequested(page), 4) => evicted(page.evict(slot)),
            (State::Evicting(page), 0) => page.condemn(slot),
            (State::Evicting(page), 1) => page.rescue(slot),
            (State::Evicting(page), 2) => page.begin_write(slot),
            (State::Evicting(page), 3) => page.mark_dirty(slot),
            _ => return None,
        })
    }

    #[test]
    fn every_arrow_keeps_the_mark_and_none_makes_one() {
        let states = marked().len();
        for state in 0..states {
            for number in 0.. {
                let (name, slot) = marked().swap_remove(state);
                let Some(done) = arrow(&slot, number) else {
                    assert!(number >= 3, "{name} has its arrows");
                    break;
                };
                done.unwrap();
                assert!(is_always_needed(&slot), "{name}, arrow {number}");
                assert_eq!(frame_of(word(&slot)), Frame::from_bits((1 << 40) - 1), "{name}, arrow {number}");

                let (_, slot) = marked().swap_remove(state);
                match slot.load() {
                    State::Evicting(page) => page.dont_need(&slot).unwrap(),
                    other => other.stored().unwrap().dont_need(&slot).unwrap(),
                }
                arrow(&slot, number).unwrap().unwrap();
                assert!(!is_always_needed(&slot), "{name}, arrow {number}, without the mark");
            }
        }
    }

    fn is_used(slot: &Slot) -> bool {
        word(slot) & ACCESSED != 0
    }

    /// A clean page that nobody has used since the evictor's hand passed.
    fn aged() -> Slot {
        let slot = supplied(5);
        clean(&slot).age(&slot).unwrap();
        assert!(!is_used(&slot) && !clean(&slot).accessed());
        slot
    }

    /// Whoever uses a page has it outlive one turn of the evictor's hand, whatever it was before.
    #[test]
    fn every_use_marks_the_page_used() {
        type Use = fn(&Slot);
        type Rescue = fn(Evicting, &Slot);
        let uses: [(&str, Use); 4] = [
            ("touch", |slot| clean(slot).touch(slot).unwrap()),
            ("begin_write", |slot| clean(slot).begin_write(slot).unwrap()),
            ("mark_dirty", |slot| clean(slot).mark_dirty(slot).unwrap()),
            ("always_need", |slot| slot.load().stored().unwrap().always_need(slot).unwrap()),
        ];
        for (name, used) in uses {
            let slot = aged();
            used(&slot);
            assert!(is_used(&slot), "{name}");
        }
        // Eviction forgets the use, and a rescue is one.
        let rescues: [(&str, Rescue); 3] = [
            ("rescue", |page, slot| page.rescue(slot).unwrap()),
            ("begin_write", |page, slot| page.begin_write(slot).unwrap()),
            ("mark_dirty", |page, slot| page.mark_dirty(slot).unwrap()),
        ];
        for (name, rescued) in rescues {
            let slot = supplied(5);
            clean(&slot).evict(&slot).unwrap();
            let State::Evicting(page) = slot.load() else { panic!() };
            assert!(!page.is_condemned());
            rescued(page, &slot);
            assert!(is_used(&slot), "{name} of a page on its way out");
            assert_eq!(slot.reclaim(), Reclaimed::Rescued, "{name}");
        }
        // A page that nobody has used since it became dirty, and its later uses.
        let unused = |tag: u64| Slot(AtomicU64::new(tag | frame_bits(Frame::from_bits(5))));
        let slot = unused(DIRTY);
        let State::Dirty(page) = slot.load() else { panic!() };
        page.begin_write(&slot).unwrap().unwrap();
        assert!(is_used(&slot), "a further writer");
        let slot = unused(AWAITING_CLEAN);
        let State::AwaitingClean(page) = slot.load() else { panic!() };
        page.begin_write(&slot).unwrap();
        assert!(is_used(&slot), "a writer while it is written back");
        let slot = unused(AWAITING_CLEAN);
        let State::AwaitingClean(page) = slot.load() else { panic!() };
        page.mark_dirty(&slot).unwrap();
        assert!(is_used(&slot), "a mapped writer while it is written back");
        let slot = unused(CLEAN_DIRTY_REQUESTED);
        let State::DirtyRequested(page) = slot.load() else { panic!() };
        page.grant(&slot).unwrap();
        assert!(is_used(&slot), "leave to write");
        let slot = Slot::new(Unstored::Zero);
        let State::Zero(page) = slot.load() else { panic!() };
        page.store(&slot, Frame::from_bits(5)).unwrap();
        assert!(is_used(&slot), "zeros that are stored");
    }

    /// What is on its way for a page stays on its way, whatever becomes of the page.
    #[test]
    fn no_arrow_forgets_a_reclaim() {
        let pending = |tag: u64| Slot(AtomicU64::new(tag | RECLAIM | frame_bits(Frame::from_bits(5))));
        let owes = |slot: &Slot| word(slot) & RECLAIM != 0;
        let slot = Slot(AtomicU64::new(EMPTY | RECLAIM));
        let State::Empty(page) = slot.load() else { panic!() };
        page.request(&slot, RequestId::new(3, 4)).unwrap();
        assert!(owes(&slot), "request");
        let State::Requested(page) = slot.load() else { panic!() };
        assert_eq!(page.id(), RequestId::new(3, 4));
        page.withdraw(&slot).unwrap();
        assert_eq!(word(&slot), EMPTY | RECLAIM);
        let State::Empty(page) = slot.load() else { panic!() };
        page.supply(&slot, Frame::from_bits(6)).unwrap();
        assert!(owes(&slot), "supply");
        for tag in [CLEAN, DIRTY, AWAITING_CLEAN, CLEAN_DIRTY_REQUESTED, AWAITING_DIRTY_REQUESTED, ZERO, REQUESTED] {
            let slot = pending(tag);
            slot.load().replace(&slot, Unstored::Zero).unwrap();
            assert!(owes(&slot), "{tag} is replaced");
            let State::Zero(page) = slot.load() else { panic!() };
            page.writeback_begin(&slot).unwrap();
            let State::Zero(page) = slot.load() else { panic!() };
            assert!(page.is_awaiting() && owes(&slot), "zeros are written back");
            page.writeback_end(&slot).unwrap();
            assert_eq!(word(&slot), EMPTY | RECLAIM);
        }
    }

    #[test]
    fn hints_change_the_marks_and_nothing_else() {
        for (name, slot) in marked() {
            let before = word(&slot);
            let changes = match slot.load() {
                State::Evicting(page) => {
                    page.dont_need(&slot).unwrap();
                    ALWAYS_NEEDED
                }
                other => {
                    other.stored().unwrap().always_need(&slot).unwrap();
                    assert_eq!(word(&slot), before, "{name}");
                    other.stored().unwrap().dont_need(&slot).unwrap();
                    ALWAYS_NEEDED | ACCESSED
                }
            };
            assert_eq!(word(&slot), before & !changes, "{name}");
        }
    }

    /// Two lines and a part of one, all absent but for one page with this word.
    fn slots(place: usize, word: u64) -> Vec<Slot> {
        (0..2 * LINE + 3).map(|at| Slot(AtomicU64::new(if at == place { word } else { RECLAIM }))).collect()
    }

    #[test]
    fn a_scan_shows_what_is_wanted_wherever_it_is() {
        let without_frame = [EMPTY, REQUESTED, EVICTING, ZERO];
        let with_frame = [CLEAN, CLEAN_DIRTY_REQUESTED, DIRTY, AWAITING_CLEAN, AWAITING_DIRTY_REQUESTED];
        for tag in without_frame.into_iter().chain(with_frame) {
            for place in 0..2 * LINE + 3 {
                let (slots, state) = (slots(place, tag | KEPT), decode(tag | KEPT));
                let shown = |wanted| {
                    let mut shown = Vec::new();
                    let _: ControlFlow<()> = Slot::each(&slots, wanted, |place, state| {
                        shown.push((place, state));
                        ControlFlow::Continue(())
                    });
                    shown
                };
                let here = |wanted: bool| if wanted { Vec::from([(place, state)]) } else { Vec::new() };
                assert_eq!(shown(Wanted::Resident), here(state.counts_as(Kind::Resident)));
                assert_eq!(shown(Wanted::Clean), here([CLEAN, CLEAN_DIRTY_REQUESTED].contains(&tag)));
                assert_eq!(shown(Wanted::Dirty), here(state.counts_as(Kind::Dirty) || tag == EVICTING));
                assert_eq!(shown(Wanted::Any), here(tag != EMPTY));
                let bit = |wanted: bool| u64::from(wanted) << place;
                let stored = state.counts_as(Kind::Dirty) && tag != ZERO;
                assert_eq!(Slot::dirty(&slots), (bit(stored), bit(tag == ZERO)), "{state:?} at {place}");
            }
        }
    }

    #[test]
    fn a_query_tells_what_is_dirty_among_others_that_are() {
        let stored = [DIRTY, AWAITING_CLEAN, AWAITING_DIRTY_REQUESTED];
        let others = [EMPTY, REQUESTED, EVICTING, ZERO, CLEAN, CLEAN_DIRTY_REQUESTED];
        for (tag, place) in others.into_iter().chain(stored).flat_map(|tag| (0..2 * LINE + 3).map(move |at| (tag, at)))
        {
            let tags: Vec<u64> = (0..2 * LINE + 3).map(|at| if at == place { tag } else { stored[at % 3] }).collect();
            let slots: Vec<_> = tags.iter().map(|tag| Slot(AtomicU64::new(tag | KEPT))).collect();
            let bits = |wanted: &[u64]| {
                tags.iter().enumerate().fold(0, |bits, (at, tag)| bits | u64::from(wanted.contains(tag)) << at)
            };
            assert_eq!(Slot::dirty(&slots), (bits(&stored), bits(&[ZERO])), "{tag} at {place}");
        }
    }

    #[test]
    fn the_mark_goes_with_the_frame() {
        let (_, slot) = marked().pop().unwrap();
        assert_eq!(slot.reclaim(), Reclaimed::Frame(Frame::from_bits((1 << 40) - 1)));
        let State::Empty(page) = slot.load() else { panic!() };
        assert_eq!(word(&slot), EMPTY);
        page.supply(&slot, Frame::from_bits(3)).unwrap();
        assert!(!is_always_needed(&slot));
    }

    #[test]
    fn the_mark_goes_with_content_that_is_replaced() {
        for with in [Unstored::Absent, Unstored::Zero, Unstored::ZeroAwaiting] {
            for (name, slot) in marked() {
                slot.load().replace(&slot, with).unwrap();
                assert!(!is_always_needed(&slot), "{name}, {with:?}");
                assert!(slot.load().stored().is_none(), "{name}, {with:?}");
                match slot.load() {
                    State::Zero(page) => page.store(&slot, Frame::from_bits(3)).unwrap(),
                    State::Empty(page) => page.supply(&slot, Frame::from_bits(3)).unwrap(),
                    other => panic!("{name}: {other:?}"),
                }
                assert!(!is_always_needed(&slot), "{name}, {with:?}, and then stored");
            }
        }
    }
}
