//! upager: the part of a kernel that asks a user-space pager for pages.
//!
//! Threads fault on a [`Vmo`]; the [`Port`] carries the request to a service; the service supplies
//! the page through the [`Pager`], and writes dirty pages back; and at any instant somebody may
//! [detach](Pager::detach_vmo) the VMO from its pager. Nothing then hangs, no dirty byte is lost,
//! and no thread is woken twice or never.
//!
//! There is no lock. Every event in a page's life is one compare-and-swap on its word; every
//! request in flight is an entry of one pool, in a queue that can be sealed; detach seals the
//! queue and walks the pool. `verify/` explores the races between all of these with loom.
//!
//! # Progress
//!
//! Every call is lock-free, and a lookup of a resident page is wait-free: a thread that is stopped
//! anywhere inside a call delays no other thread's fault, supply, writeback or detach. What waits
//! for it is memory: frames are freed when no thread that may hold them is pinned any more. Two
//! waits are in the nature of the thing: a fault waits for the service, and the waiters of a
//! request whose supplier is stopped between answering and waking wait until it goes on, or until
//! detach or close brings them home.
//!
//! # Embedding
//!
//! Without the feature `std` the crate needs `alloc` only. The embedder implements [`Platform`];
//! waiting is a [`Future`], so a kernel wakes its threads through a
//! [`Waker`](core::task::Waker) of its own.
//!
//! Calls name pages by [`PageIndex`] and bytes by [`ByteOffset`] and [`ByteRange`]. Errors are
//! [`Status`], with Zircon's values. No call panics, whatever its arguments.

#![no_std]
#![deny(missing_docs)]
#![allow(clippy::cast_possible_truncation)] // indices fit usize and counts fit their fields by construction, said where it is not plain

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

#[cfg(feature = "std")]
mod block;
mod counts;
mod fault;
mod hints;
mod packet;
mod pager;
mod platform;
mod pool;
mod port;
mod queue;
mod reclaim;
mod request;
mod slot;
mod source;
mod status;
mod supply;
#[doc(hidden)]
pub mod sync;
mod table;
mod trap;
mod units;
mod vmo;
mod wake;
mod writeback;

#[cfg(feature = "std")]
pub use block::{block_on, block_on_until};
pub use fault::Fault;
pub use hints::{Commit, VmoOp};
pub use packet::{Command, PACKET_TYPE_PAGE_REQUEST, Packet, PageRequest};
pub use pager::{Detached, Pager, PagerOp, VmoOptions};
#[cfg(feature = "std")]
pub use platform::HeapPlatform;
pub use platform::{Frame, OwnedFrame, Platform, VmoId};
pub use port::{Port, Wait};
pub use reclaim::Evict;
pub use status::{Result, Status};
pub use sync::{Collector, Guard, LocalHandle};
pub use units::{ByteOffset, ByteRange, MAX_VMO_SIZE, PAGE_SIZE, PageCount, PageIndex};
pub use vmo::{Access, Vmo, VmoCounts};
pub use writeback::{DirtyRange, DirtyRanges, Writeback};

#[cfg(doc)]
use core::future::Future;
