//! A VMO: pages, the table that finds them, and the source that supplies them.
//!
//! This file has the object and the access to one page; the calls stand by their subject:
//! [`fault`](crate::fault) reads, writes and waits, [`supply`](crate::supply) and
//! [`writeback`](crate::writeback) are the service's side, [`reclaim`](crate::reclaim) evicts, and
//! [`pager`](crate::pager) detaches.
//!
//! # What detach means for a page
//!
//! In a detached VMO a clean page *counts as absent*, from the moment of the mark on. Detach drops
//! them all; but whoever meets one that it has not reached, or that a supply which began earlier
//! puts there later, drops it himself and fails like everyone else. A page on its way out is
//! condemned the same way before an access fails on it. So the mark is the one instant at which all
//! clean pages go, and no page that failed an access after it can come back: the access that failed
//! has changed its word, and whoever saw the VMO attached before finds his compare-and-swap fail; or,
//! where there was nothing to change, has written the word as it was, and whoever finds what is put
//! there later sees the mark with it.

use core::fmt;
use core::ops::ControlFlow;

use crate::counts::Kind;
use crate::pager;
use crate::platform::{Frame, Platform, VmoId};
use crate::reclaim::Retired;
use crate::resize::Extent;
use crate::slot::{Clean, Evicting, Slot, State, Unstored, Wanted};
use crate::source::Source;
use crate::stats::Figures;
use crate::status::{Result, Status};
use crate::supply::look_again;
#[cfg(accounting)]
use crate::sync::accounting::Lines;
use crate::sync::{Arc, Guard, Hint, prefetch};
use crate::table::{At, Item, Look, Partly, Table};
use crate::units::{PAGE_SIZE, PageCount, PageIndex, PageRange};

/// What an access wants of a page.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Access {
    /// The page must be resident.
    Read,
    /// The page must be resident and dirty.
    Write,
}

/// A virtual memory object backed by a pager.
///
/// Made by [`Pager::create_vmo`](crate::Pager::create_vmo). Share it in an `Arc`. When it is
/// dropped, the service gets COMPLETE, unless detach sent it.
///
/// Accesses: [`lookup`](Self::lookup) for a page that is resident, [`fault`](Self::fault) for one
/// that may not be, [`read`](Self::read) and [`write`](Self::write) for bytes.
pub struct Vmo<P: Platform> {
    inner: Arc<Inner<P>>,
}

/// What the port, the pager and deferred reclaims hold of a VMO; it may outlive the handle.
pub(crate) struct Inner<P: Platform> {
    pub(crate) table: Table,
    pub(crate) source: Source<P>,
    pub(crate) platform: Arc<P>,
    pub(crate) extent: Extent,
    /// Whether the service is asked before a page becomes dirty.
    pub(crate) traps: bool,
    /// Where the next eviction begins.
    pub(crate) hand: Hint,
    /// The last pass over all of the pager's VMOs for which this one had nothing more.
    pub(crate) dry: Hint,
    pub(crate) figures: Figures,
    pub(crate) pager: Arc<pager::Shared<P>>,
    /// The VMO's entry in the pager.
    pub(crate) entry: u32,
    /// Which of its pager's VMOs it is, in the order of their making. Never that of another.
    pub(crate) number: u64,
}

/// Figures of one VMO at about one time. Reading them stops nobody.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct VmoCounts {
    /// Pages with content: clean, dirty, and awaiting clean. In a detached VMO the clean ones are
    /// gone, whether their frames are freed already or not.
    pub resident: PageCount,
    /// Pages that are dirty, or are being written back. At most `resident`.
    pub dirty: PageCount,
    /// Pages that are being written back and were not written to since. At most `dirty`.
    pub awaiting: PageCount,
    /// Pages of zeros that are not stored, and that the service has not got.
    pub zero: PageCount,
    /// Requests in flight: queued, or delivered and not answered.
    pub in_flight: u64,
    /// Requests made since the VMO was created.
    pub requests: u64,
    /// Faults that joined a request which another fault had made.
    pub joins: u64,
    /// Clean pages that began to leave: evicted, or dropped because the VMO is detached.
    pub evictions: u64,
    /// Evicted pages that an access or a supply kept after all, in the grace period.
    pub rescues: u64,
}

/// What a reader finds.
pub(crate) enum Readable {
    /// The page's frame.
    Frame(Frame),
    /// Zeros that are not stored.
    Zeros,
    /// Nothing: ask for it.
    Absent,
}

/// What a writer finds.
pub(crate) enum Writable<'a> {
    /// The page is dirty now.
    Dirty(At<'a>, Frame),
    /// The page is not there: ask for it.
    Absent,
    /// The page is there, and the service must be asked before it becomes dirty.
    Trapped,
}

/// How a page is held by who becomes its writer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    /// Until [`end_write`](crate::slot::Slot::end_write): bytes are about to be copied.
    Copying,
    /// Not at all: whoever maps the page holds it for that ([`hold`](crate::hold)).
    Mapped,
}

impl<P: Platform> fmt::Debug for Vmo<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vmo").field("size", &self.size()).field("counts", &self.counts()).finish_non_exhaustive()
    }
}

impl<P: Platform> Vmo<P> {
    pub(crate) const fn new(inner: Arc<Inner<P>>) -> Self {
        Self { inner }
    }

    pub(crate) const fn inner(&self) -> &Arc<Inner<P>> {
        &self.inner
    }

    /// Whether the VMO was created by this pager.
    pub(crate) fn is_of(&self, pager: &Arc<pager::Shared<P>>) -> bool {
        Arc::ptr_eq(&self.inner.pager, pager)
    }

    /// The size in bytes, a multiple of [`PAGE_SIZE`] (`zx_vmo_get_size()`).
    #[must_use]
    pub fn size(&self) -> u64 {
        self.inner.pages().0 * PAGE_SIZE
    }

    /// The key that its packets carry.
    #[must_use]
    pub fn key(&self) -> u64 {
        self.inner.source.key()
    }

    /// The VMO as the platform is told of it.
    #[must_use]
    pub fn id(&self) -> VmoId {
        self.inner.id()
    }

    /// The platform that the pager was made with.
    #[must_use]
    pub fn platform(&self) -> &Arc<P> {
        &self.inner.platform
    }

    /// The frame of a resident page, which stays allocated while `guard` lives. `None`: the page
    /// is not resident, or is on its way out, or lies outside; [`fault`](Self::fault) tells.
    ///
    /// The guard must come from [`Platform::pin`] of the VMO's platform.
    ///
    /// Wait-free: two dependent loads up to 8 GiB, no store.
    ///
    /// ```
    /// # use upager::*;
    /// # use std::sync::Arc;
    /// # let platform = Arc::new(HeapPlatform::new());
    /// # let (pager, port) = (Pager::new(platform.clone()), Port::new(platform.clone()));
    /// # let vmo = pager.create_vmo(&port, 1, VmoOptions::NONE, 4096)?;
    /// let guard = platform.pin();
    /// assert_eq!(vmo.lookup(&guard, PageIndex(0)), None);
    /// pager.supply_frames(&vmo, ByteRange::new(0, 4096), [OwnedFrame::new(&*platform)?])?;
    /// assert!(vmo.lookup(&guard, PageIndex(0)).is_some());
    /// # Ok::<(), Status>(())
    /// ```
    #[must_use]
    #[inline]
    pub fn lookup(&self, guard: &Guard, page: PageIndex) -> Option<Frame> {
        let _ = guard;
        let inner = &*self.inner;
        inner.table.with_slot(page, |slot| slot.resident(|| inner.source.shown()))
    }

    /// Pins, and looks a page up: for the caller who looks up one. The frame stays allocated while
    /// the guard lives.
    ///
    /// The slot is on its way to the processor while it pins, so this is faster than the two calls.
    ///
    /// Wait-free but for the platform's pin.
    ///
    /// ```
    /// # use upager::*;
    /// # use std::sync::Arc;
    /// # let platform = Arc::new(HeapPlatform::new());
    /// # let (pager, port) = (Pager::new(platform.clone()), Port::new(platform.clone()));
    /// # let vmo = pager.create_vmo(&port, 1, VmoOptions::NONE, 4096)?;
    /// assert!(vmo.pin_lookup(PageIndex(0)).is_none());
    /// pager.supply_frames(&vmo, ByteRange::new(0, 4096), [OwnedFrame::new(&*platform)?])?;
    /// let (_guard, frame) = vmo.pin_lookup(PageIndex(0)).expect("it is resident");
    /// # let _ = frame;
    /// # Ok::<(), Status>(())
    /// ```
    #[must_use]
    #[inline]
    pub fn pin_lookup(&self, page: PageIndex) -> Option<(Guard, Frame)> {
        let inner = &*self.inner;
        // The table needs no pin, only the frame does. All of this inside the closure would be too much for it to be inlined.
        let slot = inner.table.with_slot(page, Some)?;
        prefetch(slot);
        let guard = inner.platform.pin();
        let frame = slot.resident(|| inner.source.shown())?;
        Some((guard, frame))
    }

    /// Figures of the VMO.
    ///
    /// Of pages, `awaiting <= dirty <= resident <=` the size, in each answer. While pages move, the
    /// three are not of the same instant, and pages may be counted that are about to come and then do
    /// not, up to 64 of a supply: the smaller is cut to the larger. When nothing moves they are exact.
    /// Who is told that no page is dirty, stored or zeros, sees what was done before the calls that
    /// cleaned them.
    ///
    /// Wait-free. Costs the groups of 64 pages that are not empty, the words of the pages in
    /// those that hold a dirty one, and the requests.
    #[must_use]
    pub fn counts(&self) -> VmoCounts {
        let inner = &self.inner;
        let all = PageRange { start: 0, end: inner.pages().0 };
        // The most fleeting state first: its pages are in the larger figures still, mostly.
        let (mut awaiting, mut zero) = (0, 0);
        let _: Result<ControlFlow<()>> = inner.table.scan(Kind::Dirty, all, Partly::Show, |item| match item {
            Item::Zeros(zeros) => {
                zero += zeros.pages.end - zeros.pages.start;
                ControlFlow::Continue(())
            }
            Item::Group(group) => group.each(Wanted::Dirty, |_, _, state| {
                match state {
                    State::AwaitingClean(_) => awaiting += 1,
                    State::DirtyRequested(trapped) => awaiting += u64::from(trapped.is_awaiting()),
                    State::Zero(_) => zero += 1,
                    _ => {}
                }
                ControlFlow::Continue(())
            }),
        });
        let count = |kind| {
            let may_have_shrunk = inner.extent.is_resizable();
            if may_have_shrunk { inner.table.count_within(kind, all) } else { inner.table.count(kind, all) }
        };
        let mut dirty = PageCount(count(Kind::Dirty).0.saturating_sub(zero));
        let resident = if inner.source.is_detached() { dirty } else { count(Kind::Resident) };
        let resident = resident.min(PageCount(all.end)); // one that is about to come to a page that is there
        dirty = dirty.min(resident);
        let awaiting = PageCount(awaiting).min(dirty);
        let mut in_flight = 0;
        inner.source.requests.for_each_open(|_, _, _| in_flight += 1);
        let (requests, joins) = inner.source.totals();
        let (evictions, rescues) = (inner.figures.evictions.get() as u64, inner.figures.rescues.get() as u64);
        VmoCounts { resident, dirty, awaiting, zero: PageCount(zero), in_flight, requests, joins, evictions, rescues }
    }
}

#[cfg(accounting)]
impl<P: Platform> Vmo<P> {
    /// The names of the words of the VMO, its source and its port.
    #[doc(hidden)]
    #[must_use]
    pub fn lines(&self) -> Lines {
        let mut lines = Lines::default();
        let inner = &*self.inner;
        inner.table.lines(&mut lines);
        inner.source.lines(&mut lines);
        inner.figures.lines(&mut lines);
        lines.add(&inner.extent, "VMO's size", "nobody: written by a resize");
        lines.add(&inner.hand, "evictor's hand", "the evictors of this VMO");
        lines
    }
}

impl<P: Platform> Drop for Vmo<P> {
    fn drop(&mut self) {
        // Nobody else has the VMO: no access, no fault and no service's call is under way.
        let inner = &self.inner;
        Retired::new(inner).discard_all();
        if !inner.source.end() {
            inner.forget(); // nobody will take COMPLETE
        }
    }
}

/// In a model every count is exact in the end.
#[cfg(loom)]
impl<P: Platform> Drop for Inner<P> {
    fn drop(&mut self) {
        self.table.check_counts(&[Kind::Resident, Kind::Dirty]);
    }
}

impl<P: Platform> Inner<P> {
    /// The size, now.
    #[inline]
    pub(crate) fn pages(&self) -> PageCount {
        self.extent.pages()
    }

    /// Keeps a page that is on its way out. False: it has moved by itself.
    pub(crate) fn rescue(&self, at: At<'_>, evicting: Evicting) -> bool {
        at.raise(Kind::Resident);
        let rescued = evicting.rescue(at.slot()).is_ok();
        if rescued {
            self.figures.rescues.count();
        } else {
            at.lower(Kind::Resident);
        }
        rescued
    }

    pub(crate) fn id(&self) -> VmoId {
        VmoId(core::ptr::from_ref(self).addr())
    }

    /// Has the port and the pager forget a VMO that will not have another packet.
    pub(crate) fn forget(&self) {
        let guard = self.platform.pin();
        self.source.forget(self, &guard);
        self.pager.forget(self.entry, self, &guard);
        guard.flush();
    }
}

impl<P: Platform> Vmo<P> {
    /// What of a page can be read, rescuing it if it is on its way out. A frame stays allocated as
    /// long as the caller, who must be pinned before to use it, stays pinned.
    #[inline]
    pub(crate) fn read_access(&self, index: PageIndex) -> Readable {
        let at = match self.inner.table.look(index) {
            Look::At(at) => at,
            Look::Unstored(Unstored::Absent) => return Readable::Absent,
            // Zeros past the end: see "Who is late" in `resize`.
            Look::Unstored(_) if index.0 >= self.inner.pages().0 => return Readable::Absent,
            Look::Unstored(Unstored::Zero | Unstored::ZeroAwaiting) => return Readable::Zeros,
        };
        loop {
            let state = at.slot().load();
            if index.0 >= self.inner.pages().0 {
                return Readable::Absent; // see "Who is late" in `resize`
            }
            match state {
                State::Clean(clean) if self.inner.source.is_detached() => self.drop_clean(index, at, clean),
                State::Clean(clean) => {
                    if !clean.accessed() {
                        let _ = clean.touch(at.slot()); // failing: the page moved, and was touched or goes
                    }
                    return Readable::Frame(clean.frame());
                }
                State::Dirty(dirty) => return Readable::Frame(dirty.frame()),
                State::AwaitingClean(awaiting) => return Readable::Frame(awaiting.frame()),
                State::Evicting(evicting) if evicting.is_condemned() => return Readable::Absent,
                State::Evicting(evicting) => {
                    if self.inner.source.is_detached() {
                        let _ = evicting.condemn(at.slot()); // failing: look again
                        continue;
                    }
                    if self.rescue(index, at, evicting) {
                        return Readable::Frame(evicting.frame());
                    }
                }
                State::DirtyRequested(page) if !page.is_awaiting() && self.inner.source.is_detached() => {
                    self.inner.turn_back(at);
                }
                State::DirtyRequested(page) => return Readable::Frame(page.frame()),
                State::Zero(_) => return Readable::Zeros,
                State::Empty(_) | State::Requested(_) => return Readable::Absent,
            }
        }
    }

    /// Whether a page is dirty, seen without a pin: then [`write_access`](Self::write_access) for one who maps it would
    /// change nothing.
    #[inline]
    pub(crate) fn is_dirty(&self, index: PageIndex) -> bool {
        let state = self.inner.table.slot(index).map(Slot::load);
        // The size after the state: see "Who is late" in `resize`.
        matches!(state, Some(State::Dirty(_))) && index.0 < self.inner.pages().0
    }

    /// Makes a page dirty, and holds it as asked. The guard keeps the frame that is found from being another page's until the
    /// swap of the word: so a word that is the same has been the same. (If a supply rescues the page meanwhile, no access has
    /// failed on it.)
    ///
    /// # Errors
    /// [`NoResources`](Status::NoResources): 2^17 - 1 writers hold the page;
    /// [`NoMemory`](Status::NoMemory): zeros cannot be stored.
    pub(crate) fn write_access(&self, guard: &Guard, index: PageIndex, hold: Hold) -> Result<Writable<'_>> {
        let _ = guard;
        let at = match self.inner.table.look(index) {
            Look::At(at) => at,
            Look::Unstored(Unstored::Absent) => return Ok(Writable::Absent),
            Look::Unstored(_) if index.0 >= self.inner.pages().0 => return Ok(Writable::Absent), // as above
            Look::Unstored(Unstored::Zero | Unstored::ZeroAwaiting) => self.inner.table.find_or_make(index)?,
        };
        let slot = at.slot();
        loop {
            let state = slot.load();
            if index.0 >= self.inner.pages().0 {
                return Ok(Writable::Absent); // see "Who is late" in `resize`
            }
            match state {
                State::Clean(clean) if self.inner.source.is_detached() => self.drop_clean(index, at, clean),
                State::AwaitingClean(awaiting)
                    if self.inner.traps && !awaiting.is_refused() && self.inner.source.attached().is_err() =>
                {
                    let _ = awaiting.refuse(slot); // failing: look again
                }
                State::Clean(_) | State::AwaitingClean(_) if self.inner.traps => return Ok(Writable::Trapped),
                State::DirtyRequested(_) if self.inner.source.is_detached() => self.inner.turn_back(at),
                State::DirtyRequested(_) => {
                    if self.inner.trapped(at).is_some() {
                        return Ok(Writable::Trapped);
                    }
                }
                State::Clean(clean) => {
                    at.raise(Kind::Dirty);
                    let done = match hold {
                        Hold::Copying => clean.begin_write(slot),
                        Hold::Mapped => clean.mark_dirty(slot),
                    };
                    if done.is_ok() {
                        return Ok(Writable::Dirty(at, clean.frame()));
                    }
                    at.lower(Kind::Dirty);
                }
                State::Evicting(evicting) if evicting.is_condemned() => return Ok(Writable::Absent),
                State::Evicting(evicting) => {
                    if self.inner.source.is_detached() {
                        let _ = evicting.condemn(slot); // failing: look again
                        continue;
                    }
                    if self.inner.traps {
                        self.rescue(index, at, evicting); // false: look again, as after true
                        continue;
                    }
                    at.raise(Kind::Resident);
                    at.raise(Kind::Dirty);
                    let done = match hold {
                        Hold::Copying => evicting.begin_write(slot),
                        Hold::Mapped => evicting.mark_dirty(slot),
                    };
                    if done.is_ok() {
                        self.inner.figures.rescues.count();
                        return Ok(Writable::Dirty(at, evicting.frame()));
                    }
                    at.lower(Kind::Dirty);
                    at.lower(Kind::Resident);
                }
                State::Dirty(dirty) => match hold {
                    Hold::Mapped => return Ok(Writable::Dirty(at, dirty.frame())),
                    Hold::Copying => match dirty.begin_write(slot) {
                        None => return Err(Status::NoResources),
                        Some(Ok(())) => return Ok(Writable::Dirty(at, dirty.frame())),
                        Some(Err(_)) => {}
                    },
                },
                State::AwaitingClean(awaiting) => {
                    let done = match hold {
                        Hold::Copying => awaiting.begin_write(slot),
                        Hold::Mapped => awaiting.mark_dirty(slot),
                    };
                    if done.is_ok() {
                        return Ok(Writable::Dirty(at, awaiting.frame()));
                    }
                }
                State::Zero(zeros) => self.inner.store_zeros(at, zeros)?,
                State::Empty(_) | State::Requested(_) => return Ok(Writable::Absent),
            }
        }
    }

    /// As [`Inner::rescue`], and lets the page go again if a detach has passed it by.
    #[cold]
    fn rescue(&self, page: PageIndex, at: At<'_>, evicting: Evicting) -> bool {
        let rescued = self.inner.rescue(at, evicting);
        if rescued {
            look_again(&self.inner, PageRange { start: page.0, end: page.0 + 1 });
        }
        rescued
    }

    /// Drops a clean page that was met in a detached VMO.
    fn drop_clean(&self, page: PageIndex, at: At<'_>, clean: Clean) {
        Retired::new(&self.inner).evict(page, at, clean);
    }
}
