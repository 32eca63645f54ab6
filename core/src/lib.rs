//! upager: the part of a kernel that asks a user-space pager for pages.
//!
//! Threads fault on a [`Vmo`]; the [`Port`] carries the request to a service; the service supplies
//! the page through the [`Pager`], and writes dirty pages back. It may have itself
//! [asked](VmoOptions::TRAP_DIRTY) before a page becomes dirty. At any instant somebody may
//! [detach](Pager::detach_vmo) the VMO from its pager. Nothing then hangs, no dirty byte is lost,
//! and no thread is woken twice or never.
//!
//! There is no lock. Every event in a page's life is one compare-and-swap on its word; every
//! request in flight is an entry of one pool, in a queue that can be sealed; detach seals the
//! queue and walks the pool. `verify/` explores the races between all of these with loom.
//!
//! # Progress
//!
//! Every call is lock-free, but for [leave](Pager::dirty_range) for several pages while another call
//! gives leave for some of the same; and a lookup of a resident page is wait-free: a thread that is stopped
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

mod anonymous;
#[cfg(feature = "std")]
mod block;
#[cfg(feature = "std")]
mod board;
mod counts;
mod fault;
mod freeing;
mod hints;
mod hold;
mod observer;
mod packet;
mod pager;
mod platform;
mod pool;
mod port;
mod queue;
mod reclaim;
mod request;
mod resize;
mod sleep;
mod slot;
mod source;
mod stats;
mod status;
mod supply;
mod supply_pages;
#[doc(hidden)]
pub mod sync;
mod table;
mod trap;
mod units;
mod user;
mod vmo;
mod wake;
mod watch;
#[cfg(feature = "std")]
mod watcher;
mod writeback;
mod zero;

pub use anonymous::{AnonymousVmo, Pinned};
#[cfg(feature = "std")]
pub use block::{block_on, block_on_until};
#[cfg(feature = "std")]
pub use board::StatsBoard;
pub use fault::Fault;
pub use hints::{Commit, VmoOp};
pub use hold::Held;
#[cfg(feature = "std")]
pub use observer::SwapObserver;
#[cfg(feature = "tracing")]
pub use observer::TracingObserver;
pub use observer::{Event, Observer, SlowRequest};
pub use packet::{Command, PACKET_TYPE_PAGE_REQUEST, PACKET_TYPE_USER, Packet, PageRequest};
pub use pager::{Detached, Pager, PagerOp, VmoOptions};
#[cfg(feature = "std")]
pub use platform::HeapPlatform;
pub use platform::{Frame, OwnedFrame, Platform, VmoId};
pub use port::{Port, Wait};
pub use reclaim::Evict;
pub use stats::{VmoStats, VmoStatsOptions};
pub use status::{Result, Status};
pub use sync::{Collector, Guard, LocalHandle};
pub use units::{ByteOffset, ByteRange, MAX_VMO_SIZE, PAGE_SIZE, PageCount, PageIndex};
pub use user::MAX_USER_PACKETS;
pub use vmo::{Access, Vmo, VmoCounts};
pub use watch::{Watch, WatchCounts, WatchLimits};
#[cfg(feature = "std")]
pub use watcher::Watcher;
pub use writeback::{DirtyRange, DirtyRanges, Writeback};

#[cfg(doc)]
use core::future::Future;
