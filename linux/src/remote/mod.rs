//! A pager in another process: it has the file, or whatever the pages come from, and this process has the VMO.
//!
//! The pager's side [listens](Listener), and [serves](Connection::serve) a [`PageSource`](crate::source::PageSource). The client's side is a
//! [`Remote`], which is a `PageSource` itself: open it in a [`Service`](crate::service::Service), and map the VMO.
//! `upager serve` and `upager attach` are such programs.
//!
//! # Who has what
//!
//! Page states, requests, mappings and the userfaultfd stay in the process whose threads touch the memory. Only bytes
//! cross the border, by requests over a socket and a memfd that both have. So a pager that is killed
//! takes with it nothing that a thread could wait for: the client sees its end, and detaches the VMO, as if the
//! pager had done so itself. Threads that wait get SIGBUS, or an error; so does who comes later, but for the
//! pages that are dirty. These stay, and [`Service::reopen`](crate::service::Service::reopen) moves them into a VMO of the next pager.
//!
//! What the pager has acknowledged is in its source, whatever becomes of it: END comes after the answer, and by default
//! after that of a sync.
//!
//! # The end of a pager
//!
//! It is seen by the socket, which hangs up, and by a pidfd of the pager, since a child of it may have the socket still. A
//! pager that lives and does not answer is not gone: a [watch](crate::service::Builder::watch) tells of it, and [`Remote::hang_up`]
//! ends it for this client. It may carry out later what it was told before: end its process before
//! you attach to another one with the same pages.
//!
//! # The protocol
//!
//! A Unix socket of packets (`SOCK_SEQPACKET`), each one structure in the byte order of the machine: remote/wire.rs has them. The client
//! says hello, with the memfd; the pager answers with what it can do, and its pidfd. From then on each request
//! names a *slot* of the memfd, which is the request's until it is answered: the pager puts there what was read, and takes from
//! there what is to be written. Neither side maps the memfd; so neither can be hurt by what the other one does to it.
//!
//! ```no_run
//! use std::sync::Arc;
//! use upager_linux::remote::Remote;
//! use upager_linux::service::{Service, Writes};
//!
//! let service = Service::builder().start()?;
//! let vmo = service.open(Remote::connect("/run/pager")?, Writes::WriteBack)?;
//! // ... the pager is killed, and another one started:
//! let vmo = service.reopen(&vmo, Remote::connect("/run/pager")?)?; // with what was dirty
//! # Ok::<(), upager_linux::Error>(())
//! ```

mod client;
mod server;
mod wire;

pub use client::Remote;
pub use server::{Connection, Listener, Traffic, TrafficCounts};
