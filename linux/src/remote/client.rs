//! The client's side: a source whose pages another process has.
//!
//! One thread takes the answers, and watches the pager's life. A request is in the table of calls from before it is sent until
//! it is answered or the pager is gone; whichever takes it out of the table tells who waits. So no call is
//! told twice, and none is left.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use async_lock::{Semaphore, SemaphoreGuardArc};
use crossbeam_queue::SegQueue;
use event_listener::Event;
use futures_channel::oneshot;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::net::{Shutdown, SocketAddrUnix};
use upager::{ByteRange, PAGE_SIZE, PageCount, PageIndex};

use super::server::socket;
use super::wire::{
    self, Hello, MAGIC, READ, Received, Reply, Request, SLOT_PAGES, SLOTS, SYNC, VERSION, WRITE, Welcome,
};
use crate::error::{Error, Result};
use crate::source::{Capabilities, ErrorKind, Operation, PageBuf, PageSource, SourceError, SourceFuture, Span};

/// How long a pager may take to answer the first message.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// Pages that another process has. [The module](super) tells how it works.
///
/// When that process ends, or [`hang_up`](Self::hang_up) is called, what is in flight fails with
/// [`Gone`](ErrorKind::Gone), and so does everything later.
#[derive(Debug)]
pub struct Remote {
    line: Arc<Line>,
    len: u64,
    capabilities: Capabilities,
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

/// What the callers and the thread share.
#[derive(Debug)]
struct Line {
    socket: OwnedFd,
    /// In which the slots are.
    memory: File,
    calls: Mutex<Calls>,
    /// Who has leave takes a slot.
    leave: Arc<Semaphore>,
    slots: SegQueue<u32>,
    ended: Event,
}

#[derive(Debug, Default)]
struct Calls {
    next: u64,
    waiting: HashMap<u64, Call>,
    /// The pager is gone, and why that is known. No call is added any more.
    gone: Option<&'static str>,
}

/// A request that was not answered yet. It has its slot, also if nobody waits any more: the pager may use it still.
#[derive(Debug)]
struct Call {
    slot: Slot,
    answer: oneshot::Sender<(Reply, Slot)>,
}

#[derive(Debug)]
struct Slot {
    number: u32,
    line: Arc<Line>,
    _leave: SemaphoreGuardArc,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.line.slots.push(self.number); // before the leave is given back, below
    }
}

impl Slot {
    fn offset(&self) -> u64 {
        u64::from(self.number) * SLOT_PAGES * PAGE_SIZE
    }
}

impl Line {
    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn slot(self: &Arc<Self>) -> Slot {
        let leave = self.leave.acquire_arc().await;
        let number = self.slots.pop().unwrap_or_else(|| unreachable!("as many as there are leaves"));
        Slot { number, line: self.clone(), _leave: leave }
    }

    /// Sends a request, and waits for the answer.
    async fn call(&self, slot: Slot, operation: u32, first: u64, pages: u64) -> Result<Slot, (ErrorKind, String)> {
        let (answer, answered) = oneshot::channel();
        {
            let mut calls = self.calls();
            if let Some(why) = calls.gone {
                return Err((ErrorKind::Gone, why.into()));
            }
            let id = calls.next;
            calls.next += 1;
            let request = Request { id, operation, slot: slot.number, first, pages };
            calls.waiting.insert(id, Call { slot, answer });
            // Under the lock: an answer finds the call, and the end of the pager too.
            if let Err(error) = wire::send(&self.socket, &request, None) {
                calls.waiting.remove(&id);
                let full = error.kind() == io::ErrorKind::WouldBlock;
                let kind = if full { ErrorKind::Unavailable } else { ErrorKind::Gone };
                return Err((kind, error.to_string()));
            }
        }
        match answered.await {
            Ok((reply, slot)) => reply.outcome().map(|()| slot),
            Err(oneshot::Canceled) => Err((ErrorKind::Gone, "the pager has ended".into())),
        }
    }

    /// Takes the answers that are there. The error tells that the pager is gone.
    fn take_answers(&self) -> Result<(), &'static str> {
        loop {
            match wire::receive::<Reply>(&self.socket) {
                Ok(Received::Message(reply, _)) => {
                    let call = self.calls().waiting.remove(&reply.id).ok_or("it answers what was not asked")?;
                    let _unwanted = call.answer.send((reply, call.slot)); // nobody waits: the slot is free
                }
                Ok(Received::End(why)) => return Err(why),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(_) => return Err("the socket has failed"),
            }
        }
    }

    /// The pager is gone: nobody waits for it any more.
    fn end(&self, why: &'static str) {
        let waiting = {
            let mut calls = self.calls();
            calls.gone.get_or_insert(why);
            std::mem::take(&mut calls.waiting)
        };
        drop(waiting); // not under the lock: who waits is woken by it
        self.ended.notify(usize::MAX);
    }

    /// Takes answers until the pager is gone, or nobody wants them any more.
    fn watch(&self, pager: Option<&OwnedFd>, stop: &OwnedFd) {
        let why = loop {
            let mut on = vec![PollFd::new(&self.socket, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
            on.extend(pager.map(|pager| PollFd::new(pager, PollFlags::IN)));
            match poll(&mut on, None) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => break "its life cannot be watched",
            }
            let [answers, stopped, dead] = [0, 1, 2].map(|n| on.get(n).is_some_and(|on| !on.revents().is_empty()));
            if stopped {
                break "nobody asks any more";
            }
            // What it has answered counts, also if it has ended since.
            if (answers || dead)
                && let Err(why) = self.take_answers()
            {
                break why;
            }
            if dead {
                break "its process has ended";
            }
        };
        self.end(why);
    }
}

impl Remote {
    /// Connects to a pager that listens at this path.
    ///
    /// Errors: [`Error::System`]: nobody listens there, it does not answer in 10 s, or it is no pager of this kind.
    pub fn connect(path: impl AsRef<Path>) -> Result<Self> {
        let address = SocketAddrUnix::new(path.as_ref()).map_err(Error::system("connecting to a pager"))?;
        let socket = socket().and_then(|socket| rustix::net::connect(&socket, &address).map(|()| socket));
        let socket = socket.map_err(Error::system("connecting to a pager"))?;
        let memory = memfd_create(c"upager-remote", MemfdFlags::CLOEXEC).map_err(Error::system("creating a memfd"))?;
        let size = u64::from(SLOTS) * SLOT_PAGES * PAGE_SIZE;
        ftruncate(&memory, size).map_err(Error::system("sizing a memfd"))?;
        let (welcome, pager) = greet(&socket, &memory).map_err(Error::system("making the acquaintance of a pager"))?;
        let line = Arc::new(Line {
            socket,
            memory: memory.into(),
            calls: Mutex::default(),
            leave: Arc::new(Semaphore::new(SLOTS as usize)),
            slots: SegQueue::new(),
            ended: Event::new(),
        });
        (0..SLOTS).for_each(|slot| line.slots.push(slot));
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).map_err(Error::system("creating an eventfd"))?);
        let watch = {
            let (line, stop) = (line.clone(), stop.clone());
            move || line.watch(pager.as_ref(), &stop)
        };
        let thread = thread::Builder::new().name("upager-remote".into()).spawn(watch);
        let most = SLOTS as usize;
        let capabilities = Capabilities {
            writable: welcome.writable != 0,
            preferred_read: PageCount(welcome.preferred_read.clamp(1, SLOT_PAGES)),
            preferred_write: PageCount(welcome.preferred_write.clamp(1, SLOT_PAGES)),
            concurrency: NonZeroUsize::new((welcome.concurrency as usize).min(most)).unwrap_or(NonZeroUsize::MIN),
        };
        let thread = Some(thread.map_err(Error::system("starting a thread"))?);
        Ok(Self { line, len: welcome.len, capabilities, stop, thread })
    }

    /// Gives the pager up: as if it had ended.
    pub fn hang_up(&self) {
        // Failing: it has hung up already.
        let _: rustix::io::Result<()> = rustix::net::shutdown(&self.line.socket, Shutdown::Both);
    }

    /// Why it is known that the pager is gone. `None`: it is there.
    #[must_use]
    pub fn gone(&self) -> Option<&'static str> {
        self.line.calls().gone
    }

    /// Does an operation on a part, which fits a slot.
    async fn part(
        &self,
        operation: Operation,
        first: PageIndex,
        pages: u64,
        write: Option<&[u8]>,
    ) -> Result<Slot, SourceError> {
        let failed = |(kind, why): (ErrorKind, String)| {
            let range = (pages > 0).then(|| ByteRange::new(first.offset().0, pages * PAGE_SIZE));
            SourceError::new(kind, operation, range).because(why)
        };
        let slot = self.line.slot().await;
        let number = match operation {
            Operation::Write => WRITE,
            Operation::Sync => SYNC,
            _ => READ,
        };
        if let Some(bytes) = write {
            self.line
                .memory
                .write_all_at(bytes, slot.offset())
                .map_err(|error| failed((ErrorKind::of(&error), error.to_string())))?;
        }
        self.line.call(slot, number, first.0, pages).await.map_err(failed)
    }
}

/// Says hello, and waits for the answer: what the pager can do, and its pidfd.
fn greet(socket: &OwnedFd, memory: &OwnedFd) -> io::Result<(Welcome, Option<OwnedFd>)> {
    let hello = Hello { magic: MAGIC, version: VERSION, slots: SLOTS, slot_pages: SLOT_PAGES };
    wire::send(socket, &hello, Some(memory.as_fd()))?;
    if poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&PATIENCE))? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let no = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    match wire::receive::<Welcome>(socket)? {
        Received::Message(welcome, _) if welcome.magic != MAGIC => Err(no("it speaks another language".into())),
        Received::Message(welcome, _) if welcome.version != VERSION => {
            Err(no(format!("it speaks version {} of the protocol, and this is version {VERSION}", welcome.version)))
        }
        Received::Message(welcome, pager) => Ok((welcome, pager)),
        Received::End(why) => Err(no(why.into())),
    }
}

/// Parts of at most a slot.
fn parts(first: PageIndex, bytes: usize) -> impl Iterator<Item = (PageIndex, u64, std::ops::Range<usize>)> {
    const PART: usize = SLOT_PAGES as usize * PageBuf::PAGE;
    (0..bytes).step_by(PART).map(move |at| {
        let end = bytes.min(at + PART);
        (PageIndex(first.0.saturating_add((at / PageBuf::PAGE) as u64)), ((end - at) / PageBuf::PAGE) as u64, at..end)
    })
}

impl PageSource for Remote {
    fn len(&self) -> u64 {
        self.len
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn read_pages(&self, first: PageIndex, mut into: PageBuf) -> SourceFuture<'_, PageBuf> {
        Box::pin(async move {
            for (first, pages, bytes) in parts(first, into.len()) {
                let slot = self.part(Operation::Read, first, pages, None).await?;
                let taken = self.line.memory.read_exact_at(&mut into[bytes], slot.offset());
                taken.map_err(|error| SourceError::io(error, Operation::Read, None))?;
            }
            Ok(into)
        })
    }

    fn write_pages(&self, first: PageIndex, from: Arc<PageBuf>) -> SourceFuture<'_, ()> {
        Box::pin(async move {
            if !self.capabilities.writable {
                let range = ByteRange::new(first.offset().0, from.len() as u64);
                return Err(SourceError::new(ErrorKind::ReadOnly, Operation::Write, range));
            }
            Span::of_write(self.len, first, &from)?; // all of it or nothing, also where it is written in parts
            for (first, pages, bytes) in parts(first, from.len()) {
                self.part(Operation::Write, first, pages, Some(&from[bytes])).await?;
            }
            Ok(())
        })
    }

    fn sync(&self) -> SourceFuture<'_, ()> {
        Box::pin(async { self.part(Operation::Sync, PageIndex(0), 0, None).await.map(drop) })
    }

    fn ended(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            loop {
                let ended = self.line.ended.listen();
                if self.gone().is_some() {
                    return;
                }
                ended.await;
            }
        })
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        let told = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes());
        debug_assert!(told.is_ok(), "a count far from its limit: {told:?}");
        if let Some(thread) = self.thread.take() {
            let _: thread::Result<()> = thread.join(); // it does not wait for the pager
        }
    }
}
