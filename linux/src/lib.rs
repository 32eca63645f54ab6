//! upager for programs on Linux: VMOs in real memory, and [where their pages come from](source).
//!
//! A program maps a VMO, of a file, a snapshot or anything else, and its threads fault by touching it.
//! Whoever has the pager supplies pages, writes them back and evicts them while they are mapped, and may
//! detach the VMO at any instant: then whoever waits for a page, and whoever comes later, gets SIGBUS, which
//! [`Mapping::guard`] turns into an error; nobody hangs, and nobody reads zeros.
//!
//! Needs Linux 6.6 or later, and no privileges; without them a *system call* that is given memory which is not
//! there fails with `EFAULT` instead of waiting for it ([`Mapper::privilege`]).
//!
//! # How it hangs together
//!
//! [`LinuxPlatform`] has the frames. A [`Mapper`] has a userfaultfd and the threads that serve it; it maps
//! VMOs, each [`Mapping`] a region of addresses. A page that is mapped has its bytes at its place in a memfd
//! of its VMO, so all mappings and the pager's own calls see the same bytes. A [`PageSource`](source::PageSource) is
//! where pages come from and go back to: a file, a compressed image, an object store, [another process](remote). A
//! [`Service`](service::Service) is a pager that serves VMOs from such sources. [`firecracker`] serves the memory of
//! guests that are processes of their own.
//!
//! ```no_run
//! use std::sync::Arc;
//! use upager::*;
//! use upager_linux::{LinuxPlatform, Mapper, Protection};
//!
//! let platform = Arc::new(LinuxPlatform::new());
//! let pager = Pager::new(platform.clone());
//! let port = Port::new(platform.clone());
//! let vmo = Arc::new(pager.create_vmo(&port, 7, VmoOptions::NONE, PAGE_SIZE)?);
//! let mapper = Mapper::new()?;
//! let mapping = mapper.map(&vmo, ByteRange::new(0, PAGE_SIZE), Protection::ReadWrite)?;
//! std::thread::scope(|s| {
//!     s.spawn(|| {
//!         let mut packets = [Packet::default(); 8];
//!         port.wait_until(None, &mut packets)?; // READ: a thread has touched the page
//!         let frame = OwnedFrame::new(&*platform)?;
//!         frame.write(0, b"hello")?;
//!         pager.supply_frames(&vmo, packets[0].range(), [frame])
//!     });
//!     // SAFETY: the address lies in the mapping, which lives; nobody else writes to it.
//!     assert_eq!(unsafe { mapping.as_ptr().read_volatile() }, b'h');
//! });
//! # Ok::<(), upager_linux::Error>(())
//! ```

#![cfg(target_os = "linux")]
#![deny(missing_docs)]
#![deny(unsafe_op_in_unsafe_fn)]
#![allow(clippy::cast_possible_truncation)] // 64 bits: pages and bytes of what is mapped fit usize

mod address_map;
#[cfg(target_arch = "x86_64")]
mod bus;
mod bytes;
mod error;
mod fault_loop;
pub mod firecracker;
mod frames;
mod latency;
mod mapper;
mod mapping;
mod platform;
mod region;
pub mod remote;
mod reservation;
mod runs;
mod sequence;
pub mod service;
pub mod source;
mod space;
mod stage;
mod task;
mod uffd;
mod wakers;

#[cfg(target_arch = "x86_64")]
pub use bus::BusError;
pub use error::{Error, Result};
pub use latency::{LatencyWatch, Stage, StageLatency};
pub use mapper::{Mapper, MapperCounts, MapperOptions};
pub use mapping::{Mapping, Protection};
pub use platform::{LinuxPlatform, PlatformCounts};
pub use reservation::Reservation;
pub use uffd::Privilege;
