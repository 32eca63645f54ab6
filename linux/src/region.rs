//! One mapping of pages of a VMO, as those see it who change how its pages are mapped.
//!
//! Two kinds of threads do so. Whoever takes a page back from the mappings (eviction, BEGIN, zeros) only
//! ever unmaps and protects, at any time. The fault loops map, lift the protection, and poison; for one page,
//! one of them at a time does, who has [claimed](Region::claim) it. A claim that fails is tried again later.
//!
//! # What is mapped when
//!
//! - A loop that is about to map pages [says so](Claim::mapping), and only then looks whether the pager's word of each still has
//!   the frame that it found. Whoever takes a page out of its word, and then out of every mapping, first waits until no loop
//!   says so of that page. So either the loop sees that the page has left, and does not map it; or its mapping is there
//!   before it is taken away. After that nobody loads what the page was.
//! - A page is mapped for writing while it is [held](upager::Vmo::hold) dirty, and while its frame counts us as
//!   a writer, so that its place is not another frame's meanwhile.
//! - So whatever is not dirty is write-protected in every mapping, but for the moment within a BEGIN of
//!   which [`Vmo::hold`](upager::Vmo::hold) tells.
//!
//! The wait is for look-ups and system calls of one loop, which in between waits for nobody. It is what a kernel does when it
//! waits for the other processors to forget a translation; and the call that then takes the page away takes the kernel's lock of the page
//! table, as the loop's does. There is no call that maps a page on a condition.
//!
//! # The end of the addresses
//!
//! Threads that look at a region may be late, and an address that the process has meanwhile put to other use must
//! not be changed. So when a mapping is closed, its addresses are not given back but made to raise SIGBUS,
//! and they are given back with the last reference to the region: to the system, or to the reservation that they are a part of. So it is
//! with a part of a mapping that is [cut](Region::cut) out: it raises SIGBUS, and is given back with the rest.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64, fence};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};
use upager::{Frame, Guard, PageCount, PageIndex, Platform, Status, Vmo};

use crate::bytes::PAGE;
use crate::error::{Error, Result};
use crate::platform::LinuxPlatform;
use crate::reservation::Taken;
use crate::sequence::Sequences;
use crate::space::{Hindrance, Space};
use crate::stage::page_at;
use crate::uffd::{Stopped, Stores, Uffd, Wake};

/// How often a thread looks whether a loop has mapped a page before it sleeps in between, and how long then.
const LOOKS: u32 = 1000;
const NAP: Duration = Duration::from_micros(50);

#[derive(Debug)]
pub(crate) struct Region {
    /// First: what was mapped goes before what it was of.
    place: Place,
    space: Arc<Space>,
    vmo: Arc<Vmo<LinuxPlatform>>,
    uffd: Arc<Uffd>,
    first: PageIndex,
    /// Addresses that were cut out.
    cuts: ArcSwap<Vec<Range<usize>>>,
    /// Pages whose mapping a loop is changing, by their number modulo 64.
    claimed: AtomicU64,
    /// Those of them that it may be mapping at this moment.
    mapping: AtomicU64,
    closed: AtomicBool,
    pub(crate) sequences: Sequences,
}

/// Addresses that are the region's.
#[derive(Debug)]
enum Place {
    /// Of the system.
    Own(Range<usize>),
    /// Of a reservation.
    Part(Taken),
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Self::Own(addresses) = self {
            let at = std::ptr::with_exposed_provenance_mut(addresses.start);
            // SAFETY: the addresses are the region's, and nobody has it any more.
            let unmapped = unsafe { munmap(at, addresses.len()) };
            debug_assert!(unmapped.is_ok(), "a mapping of ours: {unmapped:?}");
        }
    }
}

/// The right to change how pages are mapped, but for taking them back.
pub(crate) struct Claim<'a> {
    region: &'a Region,
    bits: u64,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.region.claimed.fetch_and(!self.bits, Release); // Release: our changes come before the next claim
    }
}

impl Claim<'_> {
    /// Says that the pages may be mapped from here on, until the answer is dropped. The caller looks now whether they are still what he
    /// found, and until the drop waits for nobody.
    fn mapping(&self) -> MappingNow<'_> {
        self.region.mapping.fetch_or(self.bits, Relaxed); // Relaxed: the fence orders it
        // Pairs with the fence in `Space::unmap`: either it sees us, or we see that the page has left.
        fence(SeqCst);
        MappingNow(self)
    }
}

/// Pages may be mapped at this moment: who takes them away waits for the end of that.
struct MappingNow<'a>(&'a Claim<'a>);

impl Drop for MappingNow<'_> {
    fn drop(&mut self) {
        self.0.region.mapping.fetch_and(!self.0.bits, Release); // Release: the mapping is there for who has waited
    }
}

/// The bits of pages.
const fn bits(first: PageIndex, count: u64) -> u64 {
    if count >= 64 { u64::MAX } else { ((1 << count) - 1_u64).rotate_left((first.0 % 64) as u32) }
}

/// What became of mapping pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mapped {
    /// So many are mapped, from the first on.
    Pages(u64),
    /// The first is not there: the pager must be asked.
    Absent,
    /// Another thread is at work there: try again.
    Busy,
    /// It cannot be.
    Failed(Status),
    /// The mapping is gone.
    Gone,
}

impl Region {
    /// Maps `count` pages of a VMO from `first` on, at an address of the system's choice or in a part of a reservation, of
    /// that length. Nobody knows the addresses but the caller.
    pub(crate) fn new(
        vmo: &Arc<Vmo<LinuxPlatform>>,
        uffd: &Arc<Uffd>,
        first: PageIndex,
        count: PageCount,
        prot: ProtFlags,
        part: Option<Taken>,
    ) -> Result<Arc<Self>> {
        let space = vmo.platform().space(vmo)?;
        if first.0 + count.0 > space.pages().0 {
            return Err(Status::OutOfRange.into());
        }
        let len = count.0 as usize * PAGE;
        let (wish, fixed) = match &part {
            Some(part) => (std::ptr::with_exposed_provenance_mut(part.addresses().start), MapFlags::FIXED),
            None => (std::ptr::null_mut(), MapFlags::empty()),
        };
        debug_assert!(part.as_ref().is_none_or(|part| part.addresses().len() == len), "as long as the pages");
        let flags = MapFlags::SHARED | MapFlags::NORESERVE | fixed;
        // SAFETY: a new mapping at an address of the system's choice touches no other; nor does one in a part that
        // was taken for it.
        let at = unsafe { mmap(wish, len, prot, flags, space.file(), first.offset().0) };
        let at = at.map_err(Error::system("mapping a VMO"))?.expose_provenance();
        let region = Self {
            space,
            vmo: vmo.clone(),
            uffd: uffd.clone(),
            place: part.map_or_else(|| Place::Own(at..at + len), Place::Part),
            first,
            cuts: ArcSwap::default(),
            claimed: AtomicU64::new(0),
            mapping: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            sequences: Sequences::default(),
        };
        // From here on the region's drop gives the addresses back.
        region
            .advise(region.addresses(), Advice::LinuxDontFork)
            .map_err(Error::system("keeping a mapping from children"))?;
        // SAFETY: a shared mapping of a memfd, ours alone.
        unsafe { uffd.register(region.addresses()) }?;
        let region = Arc::new(region);
        region.space.add(&region);
        Ok(region)
    }

    pub(crate) const fn vmo(&self) -> &Arc<Vmo<LinuxPlatform>> {
        &self.vmo
    }

    pub(crate) const fn addresses(&self) -> &Range<usize> {
        match &self.place {
            Place::Own(addresses) => addresses,
            Place::Part(taken) => taken.addresses(),
        }
    }

    pub(crate) const fn first(&self) -> PageIndex {
        self.first
    }

    pub(crate) const fn count(&self) -> PageCount {
        let addresses = self.addresses();
        PageCount(((addresses.end - addresses.start) / PAGE) as u64)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Acquire) // Acquire: pairs with `close`
    }

    /// Whether a page was cut out, or the mapping is closed: nobody is to be answered there.
    pub(crate) fn has_lost(&self, page: PageIndex) -> bool {
        let at = self.address_of(page);
        self.is_closed() || self.cuts.load().iter().any(|cut| cut.contains(&at))
    }

    /// The page that is mapped at an address of the region.
    pub(crate) const fn page_of(&self, address: usize) -> PageIndex {
        PageIndex(self.first.0 + ((address - self.addresses().start) / PAGE) as u64)
    }

    /// The addresses of those of the pages that the region has.
    fn range(&self, first: PageIndex, count: PageCount) -> Option<Range<usize>> {
        let start = first.0.max(self.first.0);
        let end = (first.0 + count.0).min(self.first.0 + self.count().0);
        let at = |page: u64| self.addresses().start + (page - self.first.0) as usize * PAGE;
        (start < end).then(|| at(start)..at(end))
    }

    fn address_of(&self, page: PageIndex) -> usize {
        self.addresses().start + (page.0 - self.first.0) as usize * PAGE
    }

    fn advise(&self, range: &Range<usize>, advice: Advice) -> rustix::io::Result<()> {
        debug_assert!(
            self.addresses().start <= range.start && range.end <= self.addresses().end,
            "addresses of the region"
        );
        let at = std::ptr::with_exposed_provenance_mut(range.start);
        // SAFETY: addresses of a mapping that is the region's as long as it lives. Whatever of it a page
        // loses by advice, it gets again by a fault.
        unsafe { madvise(at, range.len(), advice) }
    }

    /// Takes pages out of this mapping, if they are in it. The next access to them faults.
    pub(crate) fn unmap(&self, first: PageIndex, count: PageCount) {
        if let Some(range) = self.range(first, count) {
            let unmapped = self.advise(&range, Advice::LinuxDontNeed);
            debug_assert!(unmapped.is_ok(), "a mapping of ours: {unmapped:?}");
        }
    }

    /// Takes pages that have left the pager's words out of this mapping. The caller's fence comes in between.
    pub(crate) fn take_away(&self, first: PageIndex, count: PageCount) {
        if self.range(first, count).is_some() {
            self.wait_for_loops(bits(first, count.0));
            self.unmap(first, count);
        }
    }

    /// Waits until each of the pages was seen not to be mapped by a loop at that moment.
    fn wait_for_loops(&self, mut pages: u64) {
        for look in 0_u32.. {
            pages &= self.mapping.load(Acquire); // Acquire: pairs with the end of `MappingNow`
            match look {
                _ if pages == 0 => return,
                // About as long as the kernel takes to map some pages.
                ..LOOKS => std::hint::spin_loop(),
                // Not to yield: the loop may have a lower priority, and no other processor.
                LOOKS.. => std::thread::sleep(NAP),
            }
        }
    }

    /// Has the first store to each of the pages fault.
    pub(crate) fn protect_pages(&self, first: PageIndex, count: PageCount, stores: Stores) {
        let Some(range) = self.range(first, count) else { return };
        if self.uffd.protect(&range, stores, Wake::No).is_err() {
            // For want of memory for page tables, or a part of it was cut out, where the kernel stops. A page that is not mapped
            // faults too, and needs nothing.
            let unmapped = self.advise(&range, Advice::LinuxDontNeed);
            debug_assert!(unmapped.is_ok(), "a mapping of ours: {unmapped:?}");
        }
    }

    /// Claims pages, `None`: one of them is claimed already, or one that shares its bit.
    pub(crate) fn claim(&self, first: PageIndex, count: u64) -> Option<Claim<'_>> {
        let bits = bits(first, count);
        // Acquire: pairs with the end of the last claim
        let before = self.claimed.fetch_or(bits, Acquire);
        let claim = Claim { region: self, bits: bits & !before };
        (before & bits == 0).then_some(claim)
    }

    /// Has the threads that are stopped at pages try again.
    pub(crate) fn wake(&self, first: PageIndex, count: u64) {
        if let Some(range) = self.range(first, PageCount(count)) {
            self.uffd.wake(&range);
        }
    }

    /// Maps those of the pages from `first` on that are there, for reading, as far as they follow one another.
    pub(crate) fn map_for_reading(&self, claim: &Claim<'_>, first: PageIndex, count: u64) -> Mapped {
        let guard = self.vmo.platform().pin();
        let pages = first.0..(first.0 + count).min(self.first.0 + self.count().0);
        let found: Vec<Frame> = pages.map_while(|page| self.vmo.lookup(&guard, PageIndex(page))).collect();
        if found.is_empty() {
            return Mapped::Absent;
        }
        let (home, hindrance) = self.bring_home(&guard, first, &found);
        if home == 0 {
            return hindered(hindrance);
        }
        #[cfg(test)]
        tests::instant(tests::Instant::BeforeMapping);
        let mapping = claim.mapping();
        let stays = |page: &(u64, &Frame)| self.vmo.lookup(&guard, PageIndex(page.0)) == Some(*page.1);
        let stay = (first.0..).zip(&found[..home]).take_while(stays).count() as u64;
        if stay == 0 {
            return Mapped::Busy;
        }
        #[cfg(test)]
        tests::instant(tests::Instant::Mapping);
        let mapped = self.map(first, stay, Stores::Fault, Wake::Yes);
        #[cfg(test)]
        tests::instant(tests::Instant::AfterMapping);
        drop(mapping);
        mapped.map_or_else(|why| why, |_| Mapped::Pages(stay))
    }

    /// How many pages from `first` on, of `count`, are not there.
    pub(crate) fn absent(&self, first: PageIndex, count: u64) -> u64 {
        let guard = self.vmo.platform().pin();
        let absent = |page: &u64| self.vmo.lookup(&guard, PageIndex(*page)).is_none();
        (first.0..first.0 + count).take_while(absent).count() as u64
    }

    /// Moves those of the pages that are there to their places, as far as they follow one another, and maps none. Returns how
    /// many are at their places; fewer where another thread is at work: they are moved when they are mapped.
    pub(crate) fn bring_near(&self, first: PageIndex, count: u64) -> u64 {
        let guard = self.vmo.platform().pin();
        let pages = first.0..(first.0 + count).min(self.first.0 + self.count().0);
        let found: Vec<Frame> = pages.map_while(|page| self.vmo.lookup(&guard, PageIndex(page))).collect();
        if found.is_empty() { 0 } else { self.bring_home(&guard, first, &found).0 as u64 }
    }

    /// Maps a page for writing, or lifts its protection. It becomes dirty by that.
    pub(crate) fn map_for_writing(&self, claim: &Claim<'_>, page: PageIndex, stopped: Stopped) -> Mapped {
        let platform = self.vmo.platform();
        let guard = platform.pin();
        let held = match self.vmo.hold(&guard, page) {
            Ok(Some(held)) => held,
            Ok(None) => return Mapped::Absent,
            Err(Status::NoResources) => return Mapped::Busy, // many writers of bytes, who are about to end
            Err(status) => return Mapped::Failed(status),
        };
        let frame = held.frame();
        let (home, hindrance) = self.bring_home(&guard, page, &[frame]);
        if home == 0 {
            return hindered(hindrance);
        }
        let record = platform.frames().record(frame);
        if !record.begin_map() {
            return Mapped::Busy;
        }
        #[cfg(test)]
        tests::instant(tests::Instant::BeforeMapping);
        let mapping = claim.mapping();
        let mapped = if self.vmo.lookup(&guard, page) == Some(frame) {
            #[cfg(test)]
            tests::instant(tests::Instant::Mapping);
            let mapped = self.let_stores_through(page, stopped);
            #[cfg(test)]
            tests::instant(tests::Instant::AfterMapping);
            mapped
        } else {
            Err(Mapped::Busy)
        };
        drop(mapping);
        record.end_write();
        // Only now the thread goes on: a writeback that it begins after its store is not to find the page held.
        drop(held);
        if mapped != Err(Mapped::Busy) {
            self.wake(page, 1);
        }
        mapped.map_or_else(|why| why, |()| Mapped::Pages(1))
    }

    /// Has the threads that are stopped at a page get SIGBUS, and those that touch it later. False: the page is there
    /// now, and they try again.
    pub(crate) fn fail(&self, _: &Claim<'_>, page: PageIndex) -> bool {
        let guard = self.vmo.platform().pin();
        let range = page_at(self.address_of(page));
        // A mark of write-protection stands in the way of poison. With the page unmapped, and nobody else mapping it, to lift
        // the protection lets nothing through.
        self.unmap(page, PageCount(1));
        let lifted = self.uffd.protect(&range, Stores::GoThrough, Wake::No);
        let poisoned = lifted.and_then(|()| self.uffd.poison(&range));
        drop(guard);
        if poisoned.is_err() {
            self.uffd.wake(&range);
        }
        poisoned.is_ok()
    }

    /// Has the next touch of a page that was failed ask the pager again.
    pub(crate) fn heal(&self, _: &Claim<'_>, page: PageIndex) {
        self.unmap(page, PageCount(1));
    }

    fn bring_home(&self, guard: &Guard, first: PageIndex, found: &[Frame]) -> (usize, Option<Hindrance>) {
        self.space.bring_home(self.vmo.platform().frames(), guard, &self.vmo, first, found)
    }

    /// Maps a page that is home for writing, or lifts its protection if it is mapped. Wakes nobody.
    fn let_stores_through(&self, page: PageIndex, stopped: Stopped) -> Result<(), Mapped> {
        if stopped != Stopped::Protected && self.map(page, 1, Stores::GoThrough, Wake::No)? {
            return Ok(());
        }
        self.lift(page)
    }

    /// Maps pages that are home. Those that are mapped already stay as they are. False: some were.
    fn map(&self, first: PageIndex, count: u64, stores: Stores, wake: Wake) -> Result<bool, Mapped> {
        let mut all_new = true;
        let mut at = self.address_of(first);
        let end = at + count as usize * PAGE;
        let mut together = end - at;
        while at < end {
            match self.uffd.map(&(at..end.min(at + together)), stores, wake) {
                Ok(bytes) => at += bytes,
                // The kernel maps no pages together of which some are protected otherwise.
                Err(Errno::NOENT) if together > PAGE && !self.is_closed() => together = PAGE,
                Err(Errno::EXIST) => {
                    all_new = false;
                    if wake == Wake::Yes {
                        self.uffd.wake(&page_at(at));
                    }
                    at += PAGE;
                }
                Err(Errno::NOMEM) => return Err(Mapped::Failed(Status::NoMemory)),
                Err(_) => {
                    self.uffd.wake(&(at..end));
                    return Err(if self.has_lost(self.page_of(at)) { Mapped::Gone } else { Mapped::Busy });
                }
            }
        }
        Ok(all_new)
    }

    /// Gives write access back to a page that may be mapped. Wakes nobody.
    fn lift(&self, page: PageIndex) -> Result<(), Mapped> {
        let lifted = self.uffd.protect(&page_at(self.address_of(page)), Stores::GoThrough, Wake::No);
        lifted.map_err(|_| if self.has_lost(page) { Mapped::Gone } else { Mapped::Busy })
    }

    /// Has addresses of the region raise SIGBUS. `nothing` is an empty file.
    fn replace(&self, addresses: &Range<usize>, nothing: &OwnedFd) -> rustix::io::Result<()> {
        let own = self.addresses();
        debug_assert!(own.start <= addresses.start && addresses.end <= own.end, "addresses of the region");
        let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::FIXED);
        let at = std::ptr::with_exposed_provenance_mut(addresses.start);
        // SAFETY: the addresses are the region's, which nobody may use any more as memory: who still touches
        // them gets SIGBUS, as the file has no pages.
        unsafe { mmap(at, addresses.len(), prot, flags, nothing, 0) }.map(drop)
    }

    /// Ends the mapping: its addresses raise SIGBUS from now on, and threads that are stopped there get it too.
    /// `nothing` is an empty file.
    pub(crate) fn close(self: &Arc<Self>, nothing: &OwnedFd) {
        if self.closed.swap(true, AcqRel) {
            return; // AcqRel: one closes it
        }
        if self.replace(self.addresses(), nothing).is_err() {
            // Without memory for it. The region stays among those of the space, so that what it maps is
            // protected and unmapped as ever.
            self.closed.store(false, Relaxed); // Relaxed: as if it had not been tried
            return;
        }
        self.space.remove(self);
        self.uffd.wake(self.addresses());
    }

    /// Ends a part of the mapping in the same way.
    pub(crate) fn cut(&self, addresses: &Range<usize>, nothing: &OwnedFd) -> Result<()> {
        self.replace(addresses, nothing).map_err(Error::system("cutting a part out of a mapping"))?;
        // After that: who sees it answers nobody there, and nobody needs an answer.
        self.cuts.rcu(|cuts| {
            let mut cuts = Vec::clone(cuts);
            cuts.push(addresses.clone());
            cuts
        });
        self.uffd.wake(addresses);
        Ok(())
    }
}

fn hindered(why: Option<Hindrance>) -> Mapped {
    match why {
        Some(Hindrance::NoMemory) => Mapped::Failed(Status::NoMemory),
        Some(Hindrance::Elsewhere) => Mapped::Failed(Status::NotSupported),
        Some(Hindrance::Busy | Hindrance::Moved) | None => Mapped::Busy,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::sync::atomic::AtomicBool;
    use std::thread;
    use std::time::Duration;

    use upager::{ByteOffset, ByteRange, OwnedFrame, PAGE_SIZE, Pager, Port, VmoOptions, block_on};

    use super::*;
    use crate::{Mapper, Mapping, Protection};

    /// Where a thread that maps a page may be stopped.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(super) enum Instant {
        /// It has found the page's frame.
        BeforeMapping,
        /// It has said that it may map the page, and the page still has the frame.
        Mapping,
        /// The page is mapped, and it still says so.
        AfterMapping,
    }

    type Hook = Box<dyn FnMut(Instant)>;

    thread_local! {
        static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) };
    }

    pub(super) fn instant(at: Instant) {
        HOOK.with_borrow_mut(|hook| hook.iter_mut().for_each(|hook| hook(at)));
    }

    /// A page of nines that is not mapped yet, and the mapping that it is to be in.
    struct Nines {
        mapper: Mapper,
        vmo: Arc<Vmo<LinuxPlatform>>,
        mapping: Arc<Mapping>,
        _pager: Pager<LinuxPlatform>,
    }

    const ALL: ByteRange = ByteRange::new(0, PAGE_SIZE);

    impl Nines {
        /// `None`: there is no userfaultfd here.
        fn new() -> Option<Self> {
            let Ok(mapper) = Mapper::new() else {
                println!("skipped: no userfaultfd here");
                return None;
            };
            let platform = Arc::new(LinuxPlatform::new());
            let (pager, port) = (Pager::new(platform.clone()), Port::new(platform.clone()));
            let vmo = Arc::new(pager.create_vmo(&port, 1, VmoOptions::NONE, PAGE_SIZE).unwrap());
            let frame = OwnedFrame::new(&*platform).unwrap();
            frame.write(0, &[9; PAGE]).unwrap();
            pager.supply_frames(&vmo, ALL, [frame]).unwrap();
            let mapping = Arc::new(mapper.map(&vmo, ALL, Protection::ReadWrite).unwrap());
            Some(Self { mapper, vmo, mapping, _pager: pager })
        }

        /// Maps it, for one whose access has stopped so. The `hook` is called at each instant.
        fn map(&self, stopped: Stopped, hook: impl FnMut(Instant) + 'static) -> Mapped {
            let region = self.mapper.shared().regions.load()[0].clone();
            HOOK.set(Some(Box::new(hook)));
            let claim = region.claim(PageIndex(0), 1).unwrap();
            let became = match stopped {
                Stopped::Reading => region.map_for_reading(&claim, PageIndex(0), 1),
                stopped => region.map_for_writing(&claim, PageIndex(0), stopped),
            };
            HOOK.set(None);
            became
        }
    }

    fn load(mapping: &Mapping, at: usize) -> u8 {
        // SAFETY: a byte within the mapping, which lives.
        unsafe { mapping.as_ptr().add(at).read_volatile() }
    }

    #[test]
    fn a_page_that_has_left_is_not_mapped() {
        for stopped in [Stopped::Reading, Stopped::Writing, Stopped::Protected] {
            let Some(nines) = Nines::new() else { return };
            let vmo = nines.vmo.clone();
            let became = nines.map(stopped, move |at| match at {
                Instant::BeforeMapping => block_on(vmo.zero(ALL)).unwrap(),
                Instant::Mapping | Instant::AfterMapping => panic!("{at:?}, {stopped:?}"),
            });
            assert_eq!(became, Mapped::Busy, "{stopped:?}");
            assert_eq!(load(&nines.mapping, 64), 0, "{stopped:?}");
        }
    }

    /// If it were not waited for, the load would find nines, and the store would be lost.
    #[test]
    fn zeros_wait_for_a_loop_that_maps_what_they_replace() {
        for stopped in [Stopped::Reading, Stopped::Writing] {
            let Some(nines) = Nines::new() else { return };
            let (zeroed, mut thread) = (Arc::new(AtomicBool::new(false)), None);
            let (send, threads) = std::sync::mpsc::channel();
            let (vmo, mapping) = (nines.vmo.clone(), nines.mapping.clone());
            let became = nines.map(stopped, move |at| match at {
                Instant::BeforeMapping => {}
                Instant::Mapping => {
                    let (vmo, mapping, zeroed) = (vmo.clone(), mapping.clone(), zeroed.clone());
                    thread = Some(thread::spawn(move || {
                        block_on(vmo.zero(ALL)).unwrap();
                        zeroed.store(true, SeqCst);
                        let loaded = load(&mapping, 64);
                        // SAFETY: as in `load`.
                        unsafe { mapping.as_ptr().add(64).write_volatile(77) };
                        loaded
                    }));
                }
                Instant::AfterMapping => {
                    thread::sleep(Duration::from_millis(20)); // it would be done by now
                    assert!(!zeroed.load(SeqCst), "{stopped:?}");
                    send.send(thread.take().unwrap()).unwrap();
                }
            });
            assert_eq!(became, Mapped::Pages(1), "{stopped:?}");
            assert_eq!(threads.recv().unwrap().join().unwrap(), 0, "{stopped:?}");
            let mut bytes = [1; PAGE];
            block_on(nines.vmo.read(ByteOffset(0), &mut bytes)).unwrap();
            assert_eq!((bytes[63], bytes[64], bytes[65]), (0, 77, 0), "{stopped:?}");
        }
    }
}
