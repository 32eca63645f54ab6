//! The pager's side: answers what clients ask, from a source.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use async_io::Async;
use futures_util::future::{Either, select};
use futures_util::stream::{FuturesUnordered, StreamExt};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{PidfdFlags, getpid, pidfd_open};
use upager::{PAGE_SIZE, PageCount, PageIndex};

use super::wire::{self, Hello, MAGIC, READ, Received, Reply, Request, SYNC, VERSION, WRITE, Welcome};
use crate::error::{Error, Result};
use crate::source::{ErrorKind, PageBuf, PageSource, SourceError};

/// The longest slot and the most slots that a client may have.
const LONGEST: u64 = 1 << 14;
const MOST: u32 = 1 << 10;

/// Where clients connect to.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    path: PathBuf,
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path); // best effort: the next one takes over what is left
    }
}

pub(super) fn socket() -> rustix::io::Result<OwnedFd> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

impl Listener {
    /// Listens at a path. A socket that a pager has left there which is no more is replaced.
    ///
    /// Errors: [`Error::System`]; `EADDRINUSE`: there is something at the path, and it is not such a socket.
    pub fn bind(path: impl AsRef<Path>) -> Result<Self> {
        let failed = Error::system("listening at a socket");
        let path = path.as_ref().to_owned();
        let address = SocketAddrUnix::new(&path).map_err(&failed)?;
        let mut bound = socket().and_then(|socket| rustix::net::bind(&socket, &address).map(|()| socket));
        if matches!(bound, Err(Errno::ADDRINUSE)) {
            let alive = socket().and_then(|probe| rustix::net::connect(&probe, &address));
            if matches!(alive, Err(Errno::CONNREFUSED)) {
                std::fs::remove_file(&path)
                    .map_err(Error::system("replacing the socket of a pager that is no more"))?;
                bound = socket().and_then(|socket| rustix::net::bind(&socket, &address).map(|()| socket));
            }
        }
        let socket = bound.map_err(&failed)?;
        rustix::net::listen(&socket, 64).map_err(&failed)?;
        Ok(Self { socket, path })
    }

    /// Waits for the next client.
    ///
    /// Errors: [`Error::System`].
    pub fn accept(&self) -> Result<Connection> {
        loop {
            match rustix::net::accept_with(&self.socket, SocketFlags::CLOEXEC) {
                Ok(socket) => return Ok(Connection { socket }),
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(errno) => return Err(Error::system("accepting a client")(errno)),
            }
        }
    }
}

/// What was done for a client, or for all of them.
#[derive(Debug, Default)]
pub struct Traffic {
    read: AtomicU64,
    written: AtomicU64,
    syncs: AtomicU64,
    errors: AtomicU64,
}

/// Figures of a [`Traffic`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct TrafficCounts {
    /// Pages that were read.
    pub read: u64,
    /// Pages that were written.
    pub written: u64,
    /// Syncs.
    pub syncs: u64,
    /// Requests that failed.
    pub errors: u64,
}

impl Traffic {
    /// What was done so far.
    #[must_use]
    pub fn counts(&self) -> TrafficCounts {
        let get = |figure: &AtomicU64| figure.load(Relaxed); // Relaxed, all: figures
        TrafficCounts {
            read: get(&self.read),
            written: get(&self.written),
            syncs: get(&self.syncs),
            errors: get(&self.errors),
        }
    }
}

/// A client that has connected.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
}

/// The client's memfd.
struct Arena {
    file: std::fs::File,
    slots: u32,
    slot_pages: u64,
}

impl Arena {
    fn offset(&self, slot: u32) -> u64 {
        u64::from(slot) * self.slot_pages * PAGE_SIZE
    }

    fn has(&self, request: &Request) -> bool {
        request.slot < self.slots && request.pages <= self.slot_pages
    }
}

fn said(source: &SourceError) -> String {
    let mut said = source.to_string();
    let mut cause = std::error::Error::source(source);
    while let Some(why) = cause {
        said = format!("{said}: {why}");
        cause = why.source();
    }
    said
}

impl Connection {
    /// Answers what the client asks, until it hangs up. Several requests are in flight at once, as many as the
    /// source has a use for. What was begun is brought to its end before this returns.
    ///
    /// Errors: [`Error::System`]: the client does not keep to the protocol, or the socket fails.
    pub fn serve(self, source: &dyn PageSource, traffic: &Traffic) -> Result<()> {
        let served = async_io::block_on(async {
            let socket = Async::new(self.socket)?;
            match arena(&socket, source).await? {
                Some(arena) => answer(&socket, &arena, source, traffic).await,
                None => Ok(()), // it was only looking whether we live
            }
        });
        served.map_err(Error::system("serving a client"))
    }
}

async fn next<T: bytemuck::Pod>(socket: &Async<OwnedFd>) -> io::Result<Received<T>> {
    socket.read_with(|socket| wire::receive(socket)).await
}

fn not_spoken(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

async fn arena(socket: &Async<OwnedFd>, source: &dyn PageSource) -> io::Result<Option<Arena>> {
    let (hello, memfd) = match next::<Hello>(socket).await? {
        Received::Message(hello, memfd) => (hello, memfd),
        Received::End(_) => return Ok(None),
    };
    if hello.magic != MAGIC {
        return Err(not_spoken("the client speaks another language"));
    }
    let can = source.capabilities();
    let welcome = Welcome {
        magic: MAGIC,
        version: VERSION,
        writable: can.writable.into(),
        len: source.len(),
        preferred_read: can.preferred_read.0,
        preferred_write: can.preferred_write.0,
        concurrency: can.concurrency.get() as u64,
    };
    let ourselves = pidfd_open(getpid(), PidfdFlags::empty()).ok();
    wire::send(socket, &welcome, ourselves.as_ref().map(AsFd::as_fd))?;
    if hello.version != VERSION {
        return Err(not_spoken("the client speaks another version"));
    }
    let file = memfd.ok_or_else(|| not_spoken("the client sends no memory"))?.into();
    if hello.slots > MOST || hello.slot_pages > LONGEST {
        return Err(not_spoken("the client has too many slots"));
    }
    Ok(Some(Arena { file, slots: hello.slots, slot_pages: hello.slot_pages }))
}

async fn answer(socket: &Async<OwnedFd>, arena: &Arena, source: &dyn PageSource, traffic: &Traffic) -> io::Result<()> {
    let mut work = FuturesUnordered::new();
    let most = source.capabilities().concurrency.get().saturating_mul(2).max(4);
    let ended = loop {
        if work.len() >= most {
            work.next().await;
            continue;
        }
        let request = {
            let message = pin!(next::<Request>(socket));
            if work.is_empty() {
                message.await
            } else {
                match select(message, work.next()).await {
                    Either::Left((message, _)) => message,
                    Either::Right(_) => continue,
                }
            }
        };
        match request {
            Ok(Received::Message(request, _)) if arena.has(&request) => work.push(async move {
                let reply = match carry_out(&request, arena, source, traffic).await {
                    Ok(()) => Reply::done(request.id),
                    Err(error) => {
                        traffic.errors.fetch_add(1, Relaxed); // Relaxed: a figure
                        Reply::failed(request.id, error.kind(), &said(&error))
                    }
                };
                // Failing: it has hung up, which the next message tells.
                let _: io::Result<()> = socket.write_with(|socket| wire::send(socket, &reply, None)).await;
            }),
            Ok(Received::Message(..)) => break Err(not_spoken("the client names a slot that it does not have")),
            Ok(Received::End("it has hung up")) => break Ok(()),
            Ok(Received::End(why)) => break Err(not_spoken(why)),
            Err(error) => break Err(error),
        }
    };
    // A write that goes on behind the client's back might come after one of its next life.
    while work.next().await.is_some() {}
    ended
}

async fn carry_out(
    request: &Request,
    arena: &Arena,
    source: &dyn PageSource,
    traffic: &Traffic,
) -> Result<(), SourceError> {
    let (first, pages) = (PageIndex(request.first), PageCount(request.pages));
    let offset = arena.offset(request.slot);
    match request.operation {
        READ => {
            let buffer = source.read_pages(first, PageBuf::new(pages)).await?;
            arena.file.write_all_at(&buffer, offset).map_err(|error| memory(error, crate::source::Operation::Read))?;
            traffic.read.fetch_add(pages.0, Relaxed); // Relaxed: a figure
        }
        WRITE => {
            let mut buffer = PageBuf::new(pages);
            let taken = arena.file.read_exact_at(&mut buffer, offset);
            taken.map_err(|error| memory(error, crate::source::Operation::Write))?;
            source.write_pages(first, Arc::new(buffer)).await?;
            traffic.written.fetch_add(pages.0, Relaxed); // Relaxed: a figure
        }
        SYNC => {
            source.sync().await?;
            traffic.syncs.fetch_add(1, Relaxed); // Relaxed: a figure
        }
        _ => {
            let why = "the pager does not know the operation";
            return Err(SourceError::new(ErrorKind::Unsupported, crate::source::Operation::Open, None).because(why));
        }
    }
    Ok(())
}

/// The memfd could not be used.
fn memory(error: io::Error, operation: crate::source::Operation) -> SourceError {
    SourceError::new(ErrorKind::Io, operation, None).because(error)
}
