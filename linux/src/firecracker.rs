//! The handler that Firecracker wants for the memory of a snapshot that it resumes.
//!
//! With `"backend_type": "Uffd"` Firecracker connects to a Unix socket, and sends its userfaultfd, and beside it where its
//! guest's memory lies: a JSON array of regions, each with its address, its size, and where in the snapshot it begins.
//! Whoever has accepted brings in what the guest touches. [`Guest::accept`] takes the handshake, and [`Guest::serve`] does that,
//! from a VMO: so guests of one snapshot share its pages in this process, ask for each once, and memory is
//! kept under the limit of the service. `upager serve --firecracker` is such a handler.
//!
//! A page that cannot be had is poisoned: the guest's processor gets SIGBUS, and does not wait for ever. Pages that the guest
//! gives back, by a balloon, are zeros from then on.
//!
//! Firecracker has its descriptor still when this process dies, and its guest waits then. It is not ours to detach; see to it
//! that one of the two does not outlive the other.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_io::{Async, Timer};
use futures_util::future::{Either, select};
use futures_util::stream::{FuturesUnordered, StreamExt};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::process::{PidfdFlags, pidfd_open};
use serde::Deserialize;
use upager::{ByteOffset, PAGE_SIZE, Status, Vmo};

use crate::error::{Error, Result};
use crate::platform::LinuxPlatform;
use crate::source::PageBuf;
use crate::uffd::{Message, Uffd};

/// How long Firecracker may take to say all that it has to say.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };
/// The longest that it may be.
const LONGEST: usize = 1 << 20;
/// Bytes that are brought in with a page that is touched: the block of this size around it.
const BLOCK: usize = 64 << 10;
/// How soon it is tried again what met a change of the guest's address space.
const SOON: Duration = Duration::from_micros(50);

/// A part of a guest's memory.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[non_exhaustive]
pub struct GuestRegion {
    /// Where it begins, in the memory of Firecracker.
    pub base_host_virt_addr: u64,
    /// Bytes.
    pub size: u64,
    /// Where it begins in the snapshot.
    pub offset: u64,
    /// Bytes of a page: 4096, or those of a huge page. Older Firecrackers do not send it.
    #[serde(default)]
    pub page_size: u64,
    /// What they send instead. It is bytes, whatever its name.
    #[serde(default)]
    page_size_kib: u64,
}

/// Figures of a [`Guest`] that was served.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct GuestCounts {
    /// Times that the guest stopped at a page.
    pub faults: u64,
    /// Bytes that were filled from the snapshot.
    pub copied: u64,
    /// Pages that were filled with zeros, since the guest had given them back.
    pub zeroed: u64,
    /// Pages that could not be had.
    pub poisoned: u64,
}

/// A Firecracker that has connected.
#[derive(Debug)]
pub struct Guest {
    uffd: Uffd,
    regions: Vec<GuestRegion>,
    /// Its process, by a pidfd; without one, the socket tells.
    life: OwnedFd,
    _socket: UnixStream,
}

/// What is known of a page of the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Page {
    Untouched,
    Coming,
    /// It was filled. If it is touched again, it has been dropped.
    Filled,
    /// The guest has given it back.
    Removed,
}

/// Pages of a region that were read.
struct Run {
    region: usize,
    pages: Range<usize>,
    /// The one that was touched.
    touched: usize,
    /// Those that are in their place, from the first on.
    done: usize,
    bytes: Result<PageBuf, Status>,
}

fn odd(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

impl GuestRegion {
    /// Makes the page size what it is.
    fn settle(mut self) -> io::Result<Self> {
        self.page_size = match (self.page_size, self.page_size_kib) {
            (0, 0) => PAGE_SIZE,
            (0, kib) if kib < PAGE_SIZE => kib << 10,
            (0, bytes) | (bytes, _) => bytes,
        };
        let page = self.page_size;
        let whole = page.is_power_of_two() && (PAGE_SIZE..=1 << 30).contains(&page);
        let aligned = whole && (self.base_host_virt_addr | self.size).is_multiple_of(page);
        if !aligned || self.size == 0 || !self.offset.is_multiple_of(PAGE_SIZE) {
            return Err(odd(format!("a region that is not of whole pages: {self:?}")));
        }
        if self.base_host_virt_addr.checked_add(self.size).is_none() || self.offset.checked_add(self.size).is_none() {
            return Err(odd(format!("a region past the end of memory: {self:?}")));
        }
        Ok(self)
    }

    fn addresses(&self) -> Range<usize> {
        let at = self.base_host_virt_addr as usize;
        at..at + self.size as usize
    }
}

/// Reads until the JSON is whole. The descriptor may come with any part of it.
fn shake_hands(socket: &UnixStream) -> io::Result<(Vec<GuestRegion>, OwnedFd)> {
    let (mut said, mut descriptor) = (Vec::new(), None);
    let mut part = vec![0; 16 << 10];
    loop {
        if poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&PATIENCE))? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let bytes = match rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut part)], &mut ancillary, flags) {
            Err(Errno::INTR | Errno::AGAIN) => continue,
            received => received?.bytes,
        };
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                descriptor = descriptor.or(descriptors.into_iter().next());
            }
        }
        said.extend_from_slice(&part[..bytes]);
        match serde_json::from_slice::<Vec<GuestRegion>>(&said) {
            Ok(regions) => {
                let regions = regions.into_iter().map(GuestRegion::settle).collect::<io::Result<Vec<_>>>()?;
                let descriptor = descriptor.ok_or_else(|| odd("no userfaultfd came with the regions"))?;
                return Ok((regions, descriptor));
            }
            Err(error) if error.is_eof() && bytes > 0 && said.len() < LONGEST => {}
            Err(error) => return Err(odd(format!("no array of regions: {error}"))),
        }
    }
}

impl Guest {
    /// Takes the handshake of a Firecracker that has connected.
    ///
    /// Errors: [`Error::System`]: it says something else, or does not say it in 10 s.
    pub fn accept(socket: UnixStream) -> Result<Self> {
        let failed = Error::system("taking the handshake of a Firecracker");
        let (mut regions, descriptor) = shake_hands(&socket).map_err(&failed)?;
        regions.sort_by_key(|region| region.base_host_virt_addr);
        if regions.is_empty() || regions.windows(2).any(|two| two[0].addresses().end > two[1].addresses().start) {
            return Err(failed(odd("regions that overlap, or none")));
        }
        let process = socket_peercred(&socket).and_then(|peer| pidfd_open(peer.pid, PidfdFlags::empty()));
        let life = match process {
            Ok(process) => process,
            Err(_) => OwnedFd::from(socket.try_clone().map_err(&failed)?), // of another namespace, say
        };
        Ok(Self { uffd: Uffd::of_another(descriptor), regions, life, _socket: socket })
    }

    /// Its memory.
    #[must_use]
    pub fn regions(&self) -> &[GuestRegion] {
        &self.regions
    }

    /// Brings in what the guest touches, from a VMO of the snapshot's memory, until its process ends.
    ///
    /// Errors: [`OutOfRange`](Status::OutOfRange): the VMO is shorter than the guest's memory. [`Error::System`]: the userfaultfd does not do what
    /// it is for; what was not brought in is poisoned then, so that the guest does not wait.
    pub fn serve(self, vmo: &Arc<Vmo<LinuxPlatform>>) -> Result<GuestCounts> {
        if self.regions.iter().any(|region| region.offset + region.size > vmo.size()) {
            return Err(Status::OutOfRange.into());
        }
        let mut server = Server {
            pages: self.regions.iter().map(|of| vec![Page::Untouched; (of.size / of.page_size) as usize]).collect(),
            guest: self,
            vmo,
            read: VecDeque::new(),
            zeros: VecDeque::new(),
            counts: GuestCounts::default(),
        };
        match async_io::block_on(server.run()) {
            Ok(()) => Ok(server.counts),
            Err(error) => {
                server.give_up();
                Err(Error::system("serving the memory of a Firecracker")(error))
            }
        }
    }
}

struct Server<'a> {
    guest: Guest,
    vmo: &'a Arc<Vmo<LinuxPlatform>>,
    pages: Vec<Vec<Page>>,
    /// What was read, and is to be put in its place.
    read: VecDeque<Run>,
    /// Pages that are to be zeros.
    zeros: VecDeque<(usize, usize)>,
    counts: GuestCounts,
}

/// What became of a step.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Did {
    All,
    /// The guest's address space is changing: messages first.
    Later,
    /// There is no such process any more.
    Gone,
}

/// Reads pages of the snapshot.
async fn fetch(vmo: Arc<Vmo<LinuxPlatform>>, at: ByteOffset, bytes: u64, mut run: Run) -> Run {
    let mut buffer = PageBuf::new(upager::PageCount(bytes / PAGE_SIZE));
    run.bytes = vmo.read(at, &mut buffer).await.map(|()| buffer);
    run
}

impl Server<'_> {
    async fn run(&mut self) -> io::Result<()> {
        let ready = Async::new(self.guest.uffd.try_clone()?)?;
        let life = Async::new_nonblocking(self.guest.life.try_clone()?)?;
        let mut coming = FuturesUnordered::new();
        let mut wanted = Vec::new();
        loop {
            self.take_messages(&mut wanted)?;
            let did = self.put(&mut wanted)?;
            if did == Did::Gone {
                return Ok(());
            }
            coming.extend(wanted.drain(..).map(|run| {
                let region = &self.guest.regions[run.region];
                let at = ByteOffset(region.offset + run.pages.start as u64 * region.page_size);
                fetch(self.vmo.clone(), at, run.pages.len() as u64 * region.page_size, run)
            }));
            let soon = if did == Did::Later { Timer::after(SOON) } else { Timer::never() };
            let (message, ended) = (pin!(ready.readable()), pin!(life.readable()));
            let event = select(message, select(ended, soon));
            let event = if coming.is_empty() {
                event.await
            } else {
                match select(event, coming.next()).await {
                    Either::Left((event, _)) => event,
                    Either::Right((run, _)) => {
                        self.read.extend(run);
                        continue;
                    }
                }
            };
            match event {
                Either::Left((message, _)) => message?,
                Either::Right((Either::Left((ended, _)), _)) => return ended,
                Either::Right((Either::Right(_), _)) => {}
            }
        }
    }

    /// The page at an address of the guest.
    fn find(&self, address: usize) -> Option<(usize, usize)> {
        let region = self.guest.regions.iter().position(|region| region.addresses().contains(&address))?;
        let of = &self.guest.regions[region];
        Some((region, (address - of.addresses().start) / of.page_size as usize))
    }

    fn addresses(&self, region: usize, pages: &Range<usize>) -> Range<usize> {
        let (start, size) =
            (self.guest.regions[region].addresses().start, self.guest.regions[region].page_size as usize);
        start + pages.start * size..start + pages.end * size
    }

    fn take_messages(&mut self, wanted: &mut Vec<Run>) -> io::Result<()> {
        let mut messages = [Message::default(); 64];
        let taken = self.guest.uffd.read(&mut messages)?;
        for message in &messages[..taken] {
            if let Some(gone) = message.removed() {
                for region in 0..self.pages.len() {
                    let of = &self.guest.regions[region];
                    let (addresses, size) = (of.addresses(), of.page_size as usize);
                    let (start, end) = (gone.start.max(addresses.start), gone.end.min(addresses.end));
                    if start < end {
                        let pages = (start - addresses.start) / size..(end - addresses.start).div_ceil(size);
                        self.pages[region][pages].fill(Page::Removed);
                    }
                }
            } else if let Some((address, _)) = message.page_fault()
                && let Some((region, page)) = self.find(address)
            {
                self.counts.faults += 1;
                match self.pages[region][page] {
                    Page::Untouched => wanted.push(self.want(region, page)),
                    Page::Coming => {}
                    Page::Filled | Page::Removed => self.zeros.push_back((region, page)),
                }
            }
        }
        Ok(())
    }

    /// What is brought in with a page: those of its block that nobody has touched.
    fn want(&mut self, region: usize, page: usize) -> Run {
        let a_block = (BLOCK / self.guest.regions[region].page_size as usize).max(1);
        let first = page - page % a_block;
        let states = &mut self.pages[region];
        let last = (first + a_block).min(states.len());
        let start = (first..page).rev().take_while(|page| states[*page] == Page::Untouched).last().unwrap_or(page);
        let end = (page..last).take_while(|page| states[*page] == Page::Untouched).last().unwrap_or(page) + 1;
        states[start..end].fill(Page::Coming);
        Run { region, pages: start..end, touched: page, done: 0, bytes: Err(Status::ShouldWait) }
    }

    /// Puts everything that is there in its place.
    fn put(&mut self, wanted: &mut Vec<Run>) -> io::Result<Did> {
        while let Some(mut run) = self.read.pop_front() {
            let did = match &run.bytes {
                Ok(_) => self.put_bytes(&mut run)?,
                Err(_) if run.pages.len() > 1 => {
                    // One of them cannot be had. The others, whoever waits for them, are asked for by themselves.
                    self.pages[run.region][run.pages.clone()].fill(Page::Untouched);
                    self.guest.uffd.wake(&self.addresses(run.region, &run.pages));
                    self.pages[run.region][run.touched] = Page::Coming;
                    wanted.push(Run { pages: run.touched..run.touched + 1, ..run });
                    continue;
                }
                Err(_) if self.pages[run.region][run.touched] == Page::Removed => {
                    self.zeros.push_back((run.region, run.touched));
                    continue;
                }
                Err(_) => {
                    let did = self.fill(run.region, run.touched, Uffd::try_poison)?;
                    self.counts.poisoned += u64::from(did == Did::All);
                    did
                }
            };
            if did != Did::All {
                self.read.push_front(run);
                return Ok(did);
            }
        }
        while let Some((region, page)) = self.zeros.pop_front() {
            let huge = self.guest.regions[region].page_size > PAGE_SIZE;
            let did = if huge {
                // Which the kernel does not make by itself.
                let zeros = PageBuf::new(upager::PageCount(self.guest.regions[region].page_size / PAGE_SIZE));
                self.fill(region, page, |uffd, range| uffd.copy(range.start, &zeros))?
            } else {
                self.fill(region, page, Uffd::zero)?
            };
            if did != Did::All {
                self.zeros.push_front((region, page));
                return Ok(did);
            }
            self.counts.zeroed += 1;
        }
        Ok(Did::All)
    }

    /// Copies those of a run that the guest has not given back meanwhile.
    fn put_bytes(&mut self, run: &mut Run) -> io::Result<Did> {
        let Ok(bytes) = &run.bytes else { return Ok(Did::All) };
        let size = self.guest.regions[run.region].page_size as usize;
        while run.done < run.pages.len() {
            let page = run.pages.start + run.done;
            if self.pages[run.region][page] != Page::Coming {
                self.zeros.push_back((run.region, page));
                run.done += 1;
                continue;
            }
            let states = &self.pages[run.region][page..run.pages.end];
            let count = states.iter().take_while(|state| **state == Page::Coming).count();
            let range = self.addresses(run.region, &(page..page + count));
            let filled = match self.guest.uffd.copy(range.start, &bytes[run.done * size..(run.done + count) * size]) {
                Ok(bytes) => {
                    self.counts.copied += bytes as u64;
                    bytes / size
                }
                Err(errno) => match self.settle(run.region, page, errno)? {
                    Did::All => 1,
                    other => return Ok(other),
                },
            };
            self.pages[run.region][page..page + filled].fill(Page::Filled);
            run.done += filled;
        }
        Ok(Did::All)
    }

    /// Fills one page.
    fn fill(
        &mut self,
        region: usize,
        page: usize,
        how: impl FnOnce(&Uffd, &Range<usize>) -> Result<usize, Errno>,
    ) -> io::Result<Did> {
        match how(&self.guest.uffd, &self.addresses(region, &(page..page + 1))) {
            Ok(_) => Ok(Did::All),
            Err(errno) => self.settle(region, page, errno),
        }
    }

    /// What an error means that a page could not be filled with.
    fn settle(&self, region: usize, page: usize, errno: Errno) -> io::Result<Did> {
        match errno {
            Errno::EXIST => {
                self.guest.uffd.wake(&self.addresses(region, &(page..page + 1)));
                Ok(Did::All)
            }
            Errno::AGAIN | Errno::INTR => Ok(Did::Later),
            Errno::SRCH => Ok(Did::Gone),
            Errno::NOENT => Ok(Did::All), // unmapped: nobody waits there
            errno => Err(errno.into()),
        }
    }

    /// Has whoever waits, and whoever comes, get SIGBUS.
    fn give_up(&self) {
        for region in 0..self.pages.len() {
            let (mut at, end) = (0, self.pages[region].len());
            let size = self.guest.regions[region].page_size as usize;
            while at < end {
                match self.guest.uffd.try_poison(&self.addresses(region, &(at..end))) {
                    Ok(bytes) => at += (bytes / size).max(1),
                    Err(Errno::EXIST) => at += 1,
                    // Nobody but us takes messages.
                    Err(Errno::AGAIN | Errno::INTR) => {
                        let _ = self.guest.uffd.read(&mut [Message::default(); 64]);
                        std::thread::sleep(SOON);
                    }
                    Err(_) => break,
                }
            }
        }
    }
}
