//! The place of a VMO's pages: a memfd, in which page p is at offset p.
//!
//! Every mapping of the VMO is a mapping of this file, so a page that is mapped anywhere has its bytes
//! here, and they are the same for all mappings and for the pager, which has the whole file in a *view* of
//! its own that is not registered with userfaultfd.
//!
//! # One frame at a time
//!
//! A place has one page of the file, and the pager may have two frames for a page at once: one that it has, and
//! one that has left the page and is freed later, after a grace period. A late free must not punch
//! the hole in the next one's bytes. So each place has an *owner*, in one word:
//!
//! ```text
//!   free --claim--> moving in --settle--> owned --vacate--> punching --> free
//!                   ^  ^  |               |                  ^
//!                   |  |  +----> left ----|------------------+
//!                   |  +---claim---+      |
//!                   +--- claim by the page's next frame, which deposes the owner
//! ```
//!
//! 1. To move frame F to page p, a thread that is pinned and found F in the pager's word of p claims the place. Then
//!    it *looks the page up once more*, and only goes on if it still has F.
//! 2. So an owner E was in the page's word when it had the claim. If the word has F now, E has left it, and
//!    for good: a frame leaves a page's word once, to be freed. E is free for F to depose, but for one who is writing
//!    to it, or mapping it, at this moment; then F's move is tried again. So it is while E is *arriving*: see below.
//! 3. Who frees E takes the place from E by a compare-and-swap, which fails when E was deposed. Then there is
//!    nothing to punch. Otherwise nobody can claim the place until the hole is punched.
//! 4. The number of E is not used again before that compare-and-swap. So who read E as the owner, then
//!    E's record, and then E as the owner again, has read the record of that life.
//!
//! Before F's bytes are written over those of E, the page is taken out of every mapping: the call
//! that is to do that for E may be on its way still.
//!
//! If F does not settle after all, the place is *left*. There may be a reader who found E before E left the page, and
//! he must not find a hole: it would be zeros, which the page never had. So the hole is punched after a grace period, unless
//! the place is claimed before that. Where there was no owner there is no such reader, and it is punched at once.
//!
//! # Pages that arrive
//!
//! What a source has read for a page that is mapped need not go by the stage: if the place is free, it is written there
//! at once, and the frame gets into the page's word after that, or not, if that has another content by then. Until this is
//! known the frame counts as *arriving*, and is not deposed: rule 2 does not hold for it.
//!
//! Nobody waits for a place. A claim that meets another thread's claim, or its punching, is refused and tried again by
//! whoever needs the page mapped; bytes are read and written through the pager all the while.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicPtr, AtomicU64, fence};
use std::sync::{Arc, Weak};
use std::{io, iter, ptr};

use arc_swap::ArcSwap;
use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, ftruncate, memfd_create};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};
use upager::{Frame, Guard, PAGE_SIZE, PageCount, PageIndex, Status, Vmo};

use crate::bytes::PAGE;
use crate::error::{Error, Result};
use crate::frames::{Frames, Record, Seen, State};
use crate::platform::LinuxPlatform;
use crate::region::Region;
use crate::stage::Staged;
use crate::uffd::Stores;

/// A VMO that grows after it was first mapped can be mapped up to here, or to twice its size then.
const ROOM: u64 = 64 << 30;

const FREE: u64 = 0;
const MOVING_IN: u64 = 1;
const OWNED: u64 = 2;
const PUNCHING: u64 = 3;
const LEFT: u64 = 4;
const STATE: u64 = 7;
const STATE_BITS: u32 = 3;

/// `number` is that of a frame, or of a time that a place was left.
const fn word(state: u64, number: u64) -> u64 {
    number << STATE_BITS | state
}

/// Pages that are moved by one call.
const MOVED_AT_ONCE: usize = 256;

const CHUNK: usize = 512;
type Chunk = [AtomicU64; CHUNK];

/// The owner of each place.
#[derive(Debug)]
struct Owners(Box<[AtomicPtr<Chunk>]>);

impl Owners {
    fn new(pages: u64) -> Self {
        Self(iter::repeat_with(AtomicPtr::default).take((pages as usize).div_ceil(CHUNK)).collect())
    }

    fn get(&self, page: PageIndex) -> Option<&AtomicU64> {
        let chunk = self.0.get(page.0 as usize / CHUNK)?.load(Acquire); // Acquire: pairs with `make`
        // SAFETY: published by `make`, and freed with `self`.
        unsafe { chunk.as_ref() }.map(|chunk| &chunk[page.0 as usize % CHUNK])
    }

    fn make(&self, page: PageIndex) -> Option<&AtomicU64> {
        let place = self.0.get(page.0 as usize / CHUNK)?;
        if place.load(Acquire).is_null() {
            let fresh = Box::into_raw(Box::new([const { AtomicU64::new(FREE) }; CHUNK]));
            // AcqRel: Release publishes the words
            if place.compare_exchange(ptr::null_mut(), fresh, AcqRel, Acquire).is_err() {
                // SAFETY: from `Box::into_raw` above, and not published.
                drop(unsafe { Box::from_raw(fresh) });
            }
        }
        self.get(page)
    }
}

impl Drop for Owners {
    fn drop(&mut self) {
        for chunk in &mut self.0 {
            let chunk = *chunk.get_mut();
            if !chunk.is_null() {
                // SAFETY: from `Box::into_raw` in `make`, and nobody else has `self`.
                drop(unsafe { Box::from_raw(chunk) });
            }
        }
    }
}

/// The pager's own mapping of the file.
#[derive(Debug)]
struct View {
    at: *mut u8,
    len: usize,
}

// SAFETY: an address range of this object's own, accessed as `bytes` does, from any thread.
unsafe impl Send for View {}
// SAFETY: as for Send.
unsafe impl Sync for View {}

impl Drop for View {
    fn drop(&mut self) {
        // SAFETY: mapped in `Space::new` with this length; who has an address in it has the space.
        let unmapped = unsafe { munmap(self.at.cast(), self.len) };
        debug_assert!(unmapped.is_ok(), "a mapping of ours: {unmapped:?}");
    }
}

#[derive(Debug)]
pub(crate) struct Space {
    /// The VMO, to tell it from a later one with the same id.
    vmo: Weak<Vmo<LinuxPlatform>>,
    file: OwnedFd,
    view: View,
    owners: Owners,
    /// Times that a place was left, to tell them apart.
    times_left: AtomicU64,
    /// The mappings there are.
    regions: ArcSwap<Vec<Arc<Region>>>,
}

/// Why pages could not be brought home.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Hindrance {
    /// Another thread is at work there: try again.
    Busy,
    /// The page does not have the frame any more: look again.
    Moved,
    /// There is no memory.
    NoMemory,
    /// The frame has another home: it was mapped as another page before it became this one.
    Elsewhere,
}

/// A page on its way home.
struct Mover<'a> {
    page: PageIndex,
    frame: Frame,
    record: &'a Record,
    seen: Seen,
    staged: Staged,
    owner: &'a AtomicU64,
    /// What the owner's word was.
    was: u64,
}

enum Claimed<'a> {
    AtHome,
    Moving(Mover<'a>),
}

#[allow(clippy::cast_possible_wrap)] // a file is smaller than 2^63 bytes, and few parts are written at once
impl Space {
    pub(crate) fn new(vmo: &Arc<Vmo<LinuxPlatform>>) -> Result<Arc<Self>> {
        let size = vmo.size().saturating_mul(2).max(ROOM);
        let file = memfd_create(c"upager", MemfdFlags::CLOEXEC).map_err(Error::system("creating a memfd"))?;
        ftruncate(&file, size).map_err(Error::system("sizing a memfd"))?;
        let len = usize::try_from(size).map_err(|_| Status::OutOfRange)?;
        let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::NORESERVE);
        // SAFETY: a new mapping at an address of the system's choice touches no other.
        let at = unsafe { mmap(ptr::null_mut(), len, prot, flags, &file, 0) };
        let view = View { at: at.map_err(Error::system("mapping a memfd"))?.cast(), len };
        // SAFETY: a mapping of ours; the advice concerns children only, which are not to have it.
        unsafe { madvise(view.at.cast(), len, Advice::LinuxDontFork) }
            .map_err(Error::system("keeping a mapping from children"))?;
        let owners = Owners::new(size / PAGE_SIZE);
        Ok(Arc::new(Self {
            vmo: Arc::downgrade(vmo),
            file,
            view,
            owners,
            times_left: AtomicU64::new(0),
            regions: ArcSwap::default(),
        }))
    }

    pub(crate) fn is_of(&self, vmo: &Arc<Vmo<LinuxPlatform>>) -> bool {
        ptr::eq(self.vmo.as_ptr(), Arc::as_ptr(vmo))
    }

    pub(crate) const fn file(&self) -> &OwnedFd {
        &self.file
    }

    /// Pages there is room for.
    pub(crate) const fn pages(&self) -> PageCount {
        PageCount((self.view.len / PAGE) as u64)
    }

    /// Where a page's bytes are.
    pub(crate) fn bytes(&self, page: PageIndex) -> *mut u8 {
        debug_assert!(page.0 < self.pages().0, "only pages with an owner are asked for");
        self.view.at.wrapping_add(page.0 as usize * PAGE)
    }

    pub(crate) fn add(&self, region: &Arc<Region>) {
        self.regions.rcu(|regions| {
            let mut regions = Vec::clone(regions);
            regions.push(region.clone());
            regions
        });
    }

    /// Only when nothing goes through the region's addresses to the file any more.
    pub(crate) fn remove(&self, region: &Arc<Region>) {
        self.regions
            .rcu(|regions| regions.iter().filter(|other| !Arc::ptr_eq(other, region)).cloned().collect::<Vec<_>>());
    }

    /// Takes pages out of every mapping. Their bytes stay.
    pub(crate) fn unmap(&self, first: PageIndex, count: PageCount) {
        // Pairs with the fence in `Claim::mapping`: either we see its region, and it in there, or it sees that the page has left.
        fence(SeqCst);
        for region in self.regions.load().iter() {
            region.take_away(first, count);
        }
    }

    /// Takes write access to the pages from every mapping.
    pub(crate) fn write_protect(&self, first: PageIndex, count: PageCount) {
        fence(SeqCst); // as in `unmap`
        for region in self.regions.load().iter() {
            region.protect_pages(first, count, Stores::Fault);
        }
    }

    /// Claims the place of a page for a frame that it has.
    fn claim<'a>(
        self: &'a Arc<Self>,
        frames: &'a Frames,
        guard: &Guard,
        vmo: &Vmo<LinuxPlatform>,
        page: PageIndex,
        frame: Frame,
    ) -> Result<Claimed<'a>, Hindrance> {
        let record = frames.record(frame);
        if record.is_home() {
            return if record.is_at(self, page) { Ok(Claimed::AtHome) } else { Err(Hindrance::Elsewhere) };
        }
        let seen = match record.state() {
            State::Staged(seen) => seen,
            State::Gone => return Err(Hindrance::Moved),
            State::Home(_) | State::Busy => return Err(Hindrance::Busy),
        };
        let owner = self.owners.make(page).ok_or(Hindrance::Moved)?;
        let was = owner.load(Acquire); // Acquire: pairs with `settle`, for the owner's record
        match was & STATE {
            FREE | LEFT => {}
            // Another thread has brought it home since we looked. It would depose itself, and the page keep a frame without a home.
            OWNED if was >> STATE_BITS == frame.number() => return Err(Hindrance::Busy),
            OWNED => {
                let former = frames.record(Frame::new(was >> STATE_BITS).ok_or(Hindrance::Moved)?);
                let state = former.state();
                // See "one frame at a time": first this, for the life of the record; then the lookup.
                if owner.load(Acquire) != was {
                    return Err(Hindrance::Busy);
                }
                if vmo.lookup(guard, page) != Some(frame) {
                    return Err(Hindrance::Moved);
                }
                let deposed = match state {
                    State::Home(seen) => former.depose(seen),
                    State::Gone => true, // by one who has not gone on from there
                    State::Staged(_) | State::Busy => false,
                };
                if !deposed {
                    return Err(Hindrance::Busy);
                }
            }
            _ => return Err(Hindrance::Busy),
        }
        // AcqRel: Acquire takes over what was done at the place before
        if owner.compare_exchange(was, word(MOVING_IN, frame.number()), AcqRel, Relaxed).is_err() {
            return Err(Hindrance::Busy);
        }
        if was != FREE {
            self.unmap(page, PageCount(1));
        }
        let here = vmo.lookup(guard, page) == Some(frame);
        match record.staged() {
            Some(staged) if here && record.begin_move(seen) => {
                Ok(Claimed::Moving(Mover { page, frame, record, seen, staged, owner, was }))
            }
            _ => {
                self.leave(page, owner, was, guard);
                Err(if here { Hindrance::Busy } else { Hindrance::Moved })
            }
        }
    }

    /// Brings frames home that were found in the pages from `first` on, by a lookup under the guard.
    /// Returns how many are home, from the first on, and why no more.
    pub(crate) fn bring_home(
        self: &Arc<Self>,
        frames: &Arc<Frames>,
        guard: &Guard,
        vmo: &Vmo<LinuxPlatform>,
        first: PageIndex,
        found: &[Frame],
    ) -> (usize, Option<Hindrance>) {
        let mut emptied = Vec::new();
        let mut home = 0;
        let hindrance = loop {
            // Those that follow one another are moved by one call.
            let mut movers = Vec::new();
            let mut hindrance = None;
            while movers.len() < MOVED_AT_ONCE {
                let at = home + movers.len();
                let Some(frame) = found.get(at) else { break };
                match self.claim(frames, guard, vmo, PageIndex(first.0 + at as u64), *frame) {
                    Ok(Claimed::AtHome) if movers.is_empty() => home += 1,
                    Ok(Claimed::AtHome) => break,
                    Ok(Claimed::Moving(mover)) => movers.push(mover),
                    Err(why) => {
                        hindrance = Some(why);
                        break;
                    }
                }
            }
            if movers.is_empty() {
                break hindrance;
            }
            let settled = self.settle(&movers, &mut emptied, guard);
            home += settled;
            if settled < movers.len() {
                break Some(if settled == 0 && emptied.is_empty() { Hindrance::NoMemory } else { Hindrance::Busy });
            }
            if hindrance.is_some() {
                break hindrance;
            }
        };
        if !emptied.is_empty() {
            frames.moved(emptied, guard);
        }
        (home, hindrance)
    }

    /// Brings bytes to the places of pages from `first` on, as frames that are to be supplied to them. Appends to `arrived` as many as it could,
    /// from the first on: a place that is not free, or memory that is short, ends it.
    pub(crate) fn arrive(
        self: &Arc<Self>,
        frames: &Frames,
        first: PageIndex,
        bytes: &[u8],
        arrived: &mut Vec<(Frame, Seen)>,
    ) {
        let mut claimed = Vec::with_capacity(bytes.len() / PAGE);
        for n in 0..(bytes.len() / PAGE) as u64 {
            let Some(owner) = self.owners.make(PageIndex(first.0 + n)) else { break };
            if owner.load(Relaxed) != FREE {
                break; // Relaxed: only a look
            }
            let Ok(frame) = frames.allocate_for_a_place() else { break };
            // AcqRel: Acquire takes over what was done at the place before
            if owner.compare_exchange(FREE, word(MOVING_IN, frame.number()), AcqRel, Relaxed).is_err() {
                frames.give_up(frame);
                break;
            }
            claimed.push((frame, owner));
        }
        let written = self.write_bytes(first, &bytes[..claimed.len() * PAGE]);
        for (n, (frame, owner)) in claimed.into_iter().enumerate() {
            let page = PageIndex(first.0 + n as u64);
            if n < written {
                arrived.push((frame, frames.arrive(frame, self, page)));
                owner.store(word(OWNED, frame.number()), Release); // Release: as in `settle`
            } else {
                self.punch(page, PageCount(1)); // a part of it may be there
                owner.store(FREE, Release); // Release: as in `leave`
                frames.give_up(frame);
            }
        }
    }

    /// Writes bytes of pages to the file. Returns how many pages it could.
    fn write_bytes(&self, first: PageIndex, bytes: &[u8]) -> usize {
        let mut written = 0;
        while written < bytes.len() {
            match rustix::io::pwrite(&self.file, &bytes[written..], first.offset().0 + written as u64) {
                Ok(0) => break,
                Ok(count) => written += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => break,
            }
        }
        written / PAGE
    }

    /// Whether anybody has it mapped.
    pub(crate) fn is_mapped(&self) -> bool {
        !self.regions.load().is_empty()
    }

    /// Copies the bytes of pages that follow one another to their places. Returns how many are there, from the
    /// first on. `emptied` gets their pages of the stage, and those of pages further on that are there too.
    fn settle(self: &Arc<Self>, movers: &[Mover<'_>], emptied: &mut Vec<Staged>, guard: &Guard) -> usize {
        let written = self.write(movers);
        let mut settled = 0;
        for (n, mover) in movers.iter().enumerate() {
            if n < written && mover.record.end_move(mover.seen, self, mover.page) {
                mover.owner.store(word(OWNED, mover.frame.number()), Release); // Release: for `claim`, and for the next owner
                emptied.push(mover.staged);
                settled += usize::from(settled == n);
            } else {
                mover.record.stop_move(mover.seen);
                self.leave(mover.page, mover.owner, mover.was, guard);
            }
        }
        settled
    }

    /// Writes the bytes of pages that follow one another to the file. Returns how many it could.
    fn write(&self, movers: &[Mover<'_>]) -> usize {
        let Some(first) = movers.first() else { return 0 };
        let parts: Vec<_> =
            movers.iter().map(|mover| libc::iovec { iov_base: mover.staged.as_ptr().cast(), iov_len: PAGE }).collect();
        let mut written = 0;
        while written < parts.len() {
            let rest = &parts[written..];
            let offset = first.page.offset().0.cast_signed() + (written * PAGE) as i64;
            // SAFETY: the parts are pages of the stage, which belong to frames that their mover, who is
            // pinned, keeps from being freed. Writers in them are atomic, and have the move fail.
            let wrote = unsafe { libc::pwritev(self.file.as_raw_fd(), rest.as_ptr(), rest.len() as i32, offset) };
            match usize::try_from(wrote) {
                // A part of a page is written anew.
                Ok(bytes) if bytes >= PAGE => written += bytes / PAGE,
                Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => break,
            }
        }
        written
    }

    /// Leaves a place that the caller has claimed, with whatever is there. `was`: what its owner's word was before.
    fn leave(self: &Arc<Self>, page: PageIndex, owner: &AtomicU64, was: u64, guard: &Guard) {
        if was == FREE {
            // Nobody reads here. No state for the time between: the place is the caller's.
            self.punch(page, PageCount(1));
            owner.store(FREE, Release); // Release: the hole comes before the next bytes
            return;
        }
        let left = word(LEFT, self.times_left.fetch_add(1, Relaxed)); // Relaxed: only uniqueness matters
        owner.store(left, Release); // Release: as above, for our bytes
        let space = self.clone();
        guard.defer(move || space.empty(page, left));
    }

    fn punch(&self, first: PageIndex, count: PageCount) {
        let punched = loop {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            match fallocate(&self.file, flags, first.offset().0, count.0 * PAGE_SIZE) {
                Err(rustix::io::Errno::INTR) => {}
                done => break done,
            }
        };
        debug_assert!(punched.is_ok(), "pages of the file: {punched:?}");
    }

    /// The frame is freed. True: it has its place still, the page's memory is to go, and nobody claims the place before
    /// [`end_vacating`](Self::end_vacating).
    pub(crate) fn begin_vacating(&self, page: PageIndex, frame: Frame) -> bool {
        self.begin_punching(page, word(OWNED, frame.number()))
    }

    /// Punches the hole, of places that the caller vacates.
    pub(crate) fn end_vacating(&self, first: PageIndex, count: PageCount) {
        self.punch(first, count);
        for page in first.0..first.0 + count.0 {
            if let Some(owner) = self.owners.get(PageIndex(page)) {
                owner.store(FREE, Release); // Release: as in `leave`
            }
        }
    }

    /// False: the owner's word is not this one any more.
    fn begin_punching(&self, page: PageIndex, seen: u64) -> bool {
        let Some(owner) = self.owners.get(page) else { return false };
        // AcqRel: Acquire takes over what was done at the place before. Failing: it is another's now.
        owner.compare_exchange(seen, PUNCHING, AcqRel, Relaxed).is_ok()
    }

    /// Punches the hole, if the owner's word is still this one.
    fn empty(&self, page: PageIndex, seen: u64) {
        if self.begin_punching(page, seen) {
            self.end_vacating(page, PageCount(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use upager::{ByteRange, OwnedFrame, Pager, Platform, Port, VmoOptions, block_on};

    use super::*;

    /// A frame that has left its page may still be read by who found it before; also if its page's next frame has claimed
    /// its place, and then does not settle there.
    #[test]
    fn a_late_reader_finds_no_hole_where_another_frame_did_not_settle() {
        let platform = Arc::new(LinuxPlatform::new());
        let (pager, port) = (Pager::new(platform.clone()), Port::new(platform.clone()));
        let vmo = Arc::new(pager.create_vmo(&port, 1, VmoOptions::NONE, PAGE_SIZE).unwrap());
        let (space, frames) = (platform.space(&vmo).unwrap(), platform.frames().clone());
        let page = PageIndex(0);
        let supplied = OwnedFrame::new(&*platform).unwrap();
        supplied.write(0, &[7; PAGE]).unwrap();
        pager.supply_frames(&vmo, ByteRange::new(0, PAGE_SIZE), [supplied]).unwrap();

        let reader = platform.pin();
        let first = vmo.lookup(&reader, page).unwrap();
        assert_eq!(space.bring_home(&frames, &reader, &vmo, page, &[first]), (1, None));
        // The page's next frame: a page of zeros, into which a byte is written.
        block_on(vmo.zero(ByteRange::new(0, PAGE_SIZE))).unwrap();
        block_on(vmo.write(upager::ByteOffset(0), &[8])).unwrap();
        let second = vmo.lookup(&reader, page).unwrap();
        assert_ne!(first, second);
        let Ok(Claimed::Moving(mover)) = space.claim(&frames, &reader, &vmo, page, second) else {
            panic!("it is free")
        };
        assert_eq!(frames.record(first).state(), State::Gone);
        assert!(frames.record(second).begin_write().is_some(), "a writer of bytes comes in between");
        assert_eq!(space.settle(&[mover], &mut Vec::new(), &reader), 0);
        frames.record(second).end_write();

        let mut bytes = [0; 1];
        // SAFETY: found under the guard, which lives.
        unsafe { platform.copy_out(first, 0, &mut bytes) };
        assert_ne!(bytes, [0], "what the page had, before or after, and no hole");
        // The place can be had at once, and what was deferred leaves it alone.
        assert_eq!(space.bring_home(&frames, &reader, &vmo, page, &[second]), (1, None));
        drop(reader);
        while platform.counts().frames != PageCount(1) {
            platform.pin().flush();
        }
        for _ in 0..64 {
            platform.pin().flush();
        }
        block_on(vmo.read(upager::ByteOffset(0), &mut bytes)).unwrap();
        assert_eq!(bytes, [8]);
    }

    /// A frame that arrives has not been in its page. Were it deposed before it is, it would be two pages' content.
    #[test]
    fn a_frame_that_arrives_is_not_deposed_before_it_was_supplied() {
        let platform = Arc::new(LinuxPlatform::new());
        let (pager, port) = (Pager::new(platform.clone()), Port::new(platform.clone()));
        let vmo = Arc::new(pager.create_vmo(&port, 1, VmoOptions::NONE, 2 * PAGE_SIZE).unwrap());
        let (space, frames) = (platform.space(&vmo).unwrap(), platform.frames().clone());
        let (first, second) = (PageIndex(0), PageIndex(1));
        let byte = |page: PageIndex| {
            let mut bytes = [0; 1];
            block_on(vmo.read(page.offset(), &mut bytes)).unwrap();
            bytes[0]
        };
        let mut arrived = Vec::new();
        space.arrive(&frames, first, &[7; 2 * PAGE], &mut arrived);
        assert_eq!(arrived.len(), 2);
        // The first page gets another content before that.
        let other = OwnedFrame::new(&*platform).unwrap();
        other.write(0, &[8; PAGE]).unwrap();
        pager.supply_frames(&vmo, ByteRange::new(0, PAGE_SIZE), [other]).unwrap();
        let guard = platform.pin();
        let other = vmo.lookup(&guard, first).unwrap();
        assert_eq!(space.bring_home(&frames, &guard, &vmo, first, &[other]), (0, Some(Hindrance::Busy)));
        let mut more = Vec::new();
        space.arrive(&frames, first, &[9; PAGE], &mut more);
        assert!(more.is_empty(), "the place is taken");

        // SAFETY: of this platform, and nobody else's; each once.
        let owned = arrived.iter().map(|(frame, _)| unsafe { OwnedFrame::of(&*platform, *frame) });
        pager.supply_frames(&vmo, ByteRange::new(0, 2 * PAGE_SIZE), owned.collect::<Vec<_>>()).unwrap();
        for (frame, seen) in &arrived {
            frames.settle(*frame, *seen);
        }
        assert_eq!(space.bring_home(&frames, &guard, &vmo, first, &[other]), (1, None), "the one refused has gone");
        assert_eq!(vmo.lookup(&guard, second), Some(arrived[1].0));
        assert_eq!((byte(first), byte(second)), (8, 7));

        // From now on it is deposed like any other.
        block_on(vmo.zero(ByteRange::new(PAGE_SIZE, PAGE_SIZE))).unwrap();
        block_on(vmo.write(second.offset(), &[9])).unwrap();
        let next = vmo.lookup(&guard, second).unwrap();
        assert_eq!(space.bring_home(&frames, &guard, &vmo, second, &[next]), (1, None));
        assert_eq!(frames.record(arrived[1].0).state(), State::Gone);
        drop(guard);
        while platform.counts().frames != PageCount(2) {
            platform.pin().flush();
        }
        assert_eq!((byte(first), byte(second), platform.counts().at_home), (8, 9, PageCount(2)));
    }
}
