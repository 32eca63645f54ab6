//! The mapper: maps VMOs, and has the threads that answer their faults.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};
use upager::{ByteRange, PAGE_SIZE, PageCount, PageIndex, Status, Vmo};

use crate::address_map::AddressMap;
use crate::bytes::PAGE;
use crate::error::{Error, Result};
use crate::fault_loop::{FaultLoop, Figures, Help, Shared};
use crate::latency::{Latencies, LatencyWatch, Stage};
use crate::mapping::{Mapping, Protection};
use crate::platform::LinuxPlatform;
use crate::region::Region;
use crate::reservation::{Reservation, Taken};
use crate::service::Service;
use crate::uffd::{Privilege, Uffd};
use crate::wakers::Bell;

/// How a [`Mapper`] works.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct MapperOptions {
    /// Threads that answer faults. More than there are processors are of no use. By default one: a
    /// loop never blocks on a fault.
    pub loops: usize,
    /// How long a thread looks for work before it sleeps. A wake across processors takes longer than most
    /// faults. By default 50 us, and nothing where there is one processor.
    pub spin: Duration,
    /// The most pages that one fault brings in when a region is read one page after the other. As many more are brought
    /// near meanwhile, and three times as many when a fault has come to bring in so many. Under a [limit](crate::service::MemoryLimit) it is not
    /// more than a sixteenth of that, and with what is ahead an eighth, by each who reads. 1: each page by itself. By default 512, two MiB.
    pub read_ahead: PageCount,
    /// How long the touches of a page fail after its fault has failed, before one asks the pager again.
    /// By default 20 ms.
    pub heal_after: Duration,
}

impl Default for MapperOptions {
    fn default() -> Self {
        let alone = thread::available_parallelism().map_or(1, usize::from) == 1;
        Self {
            loops: 1,
            spin: if alone { Duration::ZERO } else { Duration::from_micros(50) },
            read_ahead: PageCount(512),
            heal_after: Duration::from_millis(20),
        }
    }
}

impl MapperOptions {
    /// With so many threads.
    #[must_use]
    pub const fn loops(mut self, loops: usize) -> Self {
        self.loops = loops;
        self
    }

    /// With so long a look before each sleep.
    #[must_use]
    pub const fn spin(mut self, spin: Duration) -> Self {
        self.spin = spin;
        self
    }

    /// With so much read-ahead at most.
    #[must_use]
    pub const fn read_ahead(mut self, read_ahead: PageCount) -> Self {
        self.read_ahead = read_ahead;
        self
    }

    /// With so long a time before a page that failed is asked for again.
    #[must_use]
    pub const fn heal_after(mut self, heal_after: Duration) -> Self {
        self.heal_after = heal_after;
        self
    }
}

/// Figures of a [`Mapper`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct MapperCounts {
    /// Times a thread stopped at a page.
    pub faults: u64,
    /// Times a page was not there and the pager had to be asked.
    pub asked: u64,
    /// Pages that were mapped, or whose protection was lifted.
    pub mapped: u64,
    /// Pages that were failed.
    pub failed: u64,
    /// Times that a fault met another thread at work on its page, and was tried again.
    pub again: u64,
}

/// Maps VMOs into the process, and answers the faults of who touches them.
///
/// One userfaultfd serves all its mappings. Its threads end with the last mapping and the mapper itself: as
/// long as there is a mapping, somebody answers. Should one of them panic, all its mappings are
/// [closed](Mapping::close).
#[derive(Clone)]
pub struct Mapper {
    crew: Arc<Crew>,
}

/// The threads, and what they share.
pub(crate) struct Crew {
    pub(crate) shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl fmt::Debug for Mapper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapper").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Crew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Crew").field("threads", &self.threads.len()).finish_non_exhaustive()
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.shared.end(); // the loops see it, at the latest after their nap
        for thread in self.threads.drain(..) {
            let _: thread::Result<()> = thread.join(); // a panic has been told of, and the loops' mappings closed
        }
    }
}

impl Mapper {
    /// With the default options.
    ///
    /// Errors: [`Error::System`] where there is no userfaultfd, or one older than Linux 6.6.
    pub fn new() -> Result<Self> {
        Self::with(MapperOptions::default())
    }

    /// With these options.
    ///
    /// Errors: as for [`new`](Self::new).
    pub fn with(options: MapperOptions) -> Result<Self> {
        Self::start(options, Vec::new)
    }

    /// With these options, and with threads that do the work of a service too, as long as it lives: a page that the service's source
    /// has at once is then supplied by the thread that has taken the fault, and no other one is woken. Best with a service that has
    /// [no threads of its own](crate::service::Builder::threads).
    ///
    /// A source whose calls block, against their contract, holds up the faults of all mappings of this mapper.
    ///
    /// Errors: as for [`new`](Self::new).
    pub fn serving(options: MapperOptions, service: &Service) -> Result<Self> {
        Self::start(options, || service.helps())
    }

    fn start(options: MapperOptions, helps: impl Fn() -> Vec<Help>) -> Result<Self> {
        let uffd = Arc::new(Uffd::open()?);
        let nothing =
            memfd_create(c"upager-nothing", MemfdFlags::CLOEXEC).map_err(Error::system("creating a memfd"))?;
        let loops = options.loops.max(1);
        let shared = Arc::new(Shared {
            uffd,
            nothing,
            regions: AddressMap::default(),
            options,
            bells: (0..loops).map(|_| Bell::new()).collect::<Result<_>>()?,
            stop: AtomicBool::new(false),
            closed: AtomicU64::new(0),
            figures: Figures::default(),
            latencies: Latencies::new(&[Stage::Fault, Stage::Request]),
        });
        let mut crew = Crew { shared, threads: Vec::new() };
        for number in 0..loops {
            let fault_loop = FaultLoop::new(&crew.shared, number, helps())?;
            let thread = thread::Builder::new().name(format!("upager-{number}")).spawn(move || fault_loop.run());
            crew.threads.push(thread.map_err(Error::system("starting a thread"))?);
        }
        Ok(Self { crew: Arc::new(crew) })
    }

    pub(crate) const fn of(crew: Arc<Crew>) -> Self {
        Self { crew }
    }

    #[cfg(test)]
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.crew.shared
    }

    /// Whether system calls may be given memory that is not there yet.
    #[must_use]
    pub fn privilege(&self) -> Privilege {
        self.crew.shared.uffd.privilege()
    }

    /// What has been done so far.
    #[must_use]
    pub fn counts(&self) -> MapperCounts {
        let figures = &self.crew.shared.figures;
        MapperCounts {
            faults: figures.messages.load(Relaxed), // Relaxed, all: figures
            asked: figures.asked.load(Relaxed),
            mapped: figures.mapped.load(Relaxed),
            failed: figures.failed.load(Relaxed),
            again: figures.again.load(Relaxed),
        }
    }

    /// Has it be measured how long faults take, as long as the answer lives.
    #[must_use]
    pub fn watch_latencies(&self) -> LatencyWatch {
        LatencyWatch::new(&self.crew.shared.latencies)
    }

    /// Maps whole pages of a VMO. Nothing is brought in: that is what touching it does.
    ///
    /// A VMO may be mapped any number of times, by any mappers. Children of the process do not get the mapping
    /// (`MADV_DONTFORK`): they would read zeros where pages are not there.
    ///
    /// Errors: [`InvalidArgs`](Status::InvalidArgs): the range is empty or not aligned to pages;
    /// [`OutOfRange`](Status::OutOfRange): it does not lie inside the VMO, or the VMO has grown beyond the room that was
    /// kept for it when it was first mapped, the larger of 64 GiB and twice its size;
    /// [`BadState`](Status::BadState): a thread of the mapper has panicked; [`Error::System`].
    pub fn map(&self, vmo: &Arc<Vmo<LinuxPlatform>>, range: ByteRange, protection: Protection) -> Result<Mapping> {
        self.make(vmo, range, protection, |_| Ok(None))
    }

    /// Maps whole pages of a VMO at an address of a reservation, which is then a mapping's until that has ended and the last
    /// thread of the mapper has done with it: see [`Reservation::wait_until_free`].
    ///
    /// ```no_run
    /// # use std::sync::Arc;
    /// # use upager::{ByteRange, PAGE_SIZE, Vmo};
    /// # use upager_linux::{LinuxPlatform, Mapper, Protection, Reservation, Result};
    /// # fn f(mapper: &Mapper, vmo: &Arc<Vmo<LinuxPlatform>>) -> Result<()> {
    /// let reservation = Reservation::new(1 << 20)?;
    /// let at = reservation.addresses().start + (64 << 10);
    /// let mapping = mapper.map_at(&reservation, at, vmo, ByteRange::new(0, PAGE_SIZE), Protection::ReadOnly)?;
    /// assert_eq!(mapping.addresses().start, at);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Errors: [`AlreadyExists`](Status::AlreadyExists): a mapping is there, or was; [`OutOfRange`](Status::OutOfRange): not all of it lies
    /// inside the reservation; [`InvalidArgs`](Status::InvalidArgs): the address is no page's; and those of [`map`](Self::map).
    pub fn map_at(
        &self,
        reservation: &Arc<Reservation>,
        address: usize,
        vmo: &Arc<Vmo<LinuxPlatform>>,
        range: ByteRange,
        protection: Protection,
    ) -> Result<Mapping> {
        self.make(vmo, range, protection, |len| {
            if !address.is_multiple_of(PAGE) {
                return Err(Status::InvalidArgs.into());
            }
            let end = address.checked_add(len).ok_or(Status::OutOfRange)?;
            reservation.take(address..end).map(Some)
        })
    }

    fn make(
        &self,
        vmo: &Arc<Vmo<LinuxPlatform>>,
        range: ByteRange,
        protection: Protection,
        part: impl FnOnce(usize) -> Result<Option<Taken>>,
    ) -> Result<Mapping> {
        if range.length == 0 || !range.offset.is_multiple_of(PAGE_SIZE) || !range.length.is_multiple_of(PAGE_SIZE) {
            return Err(Status::InvalidArgs.into());
        }
        if range.offset.checked_add(range.length).is_none_or(|end| end > vmo.size()) {
            return Err(Status::OutOfRange.into());
        }
        let (first, count) = (PageIndex(range.offset / PAGE_SIZE), PageCount(range.length / PAGE_SIZE));
        let part = part(range.length as usize)?;
        let region = Region::new(vmo, &self.crew.shared.uffd, first, count, protection.flags(), part)?;
        self.crew.shared.regions.add(&region);
        let mapping = Mapping::new(region, self.crew.clone());
        // After it was added: either we see that there are no loops any more, or their end sees the region.
        if self.crew.shared.stop.load(SeqCst) { Err(Status::BadState.into()) } else { Ok(mapping) }
    }
}
