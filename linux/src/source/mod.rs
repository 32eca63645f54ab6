//! Where pages come from, and where dirty ones go: [`PageSource`], its kinds, and what can be laid over them.
//!
//! | kind | reads | writes | for |
//! | --- | --- | --- | --- |
//! | [`Zero`] | zeros | no | anonymous memory |
//! | [`Memory`] | its own bytes | yes | tests, small images |
//! | [`File`] | by io_uring or threads, through the page cache or past it | yes | files, block devices |
//! | [`SeekableZstd`] | frames of a compressed image, in any other source | no | snapshots |
//! | `Object`, `Parts` (feature `object-store`) | ranges of objects | `Parts` | more than one machine holds |
//!
//! [`Retry`] tries again what may pass by itself, [`Injector`] makes the faults that tests need,
//! [`ReadAhead`] keeps several reads in flight, [`merge_ranges`] makes few long reads out of many short ones.
//!
//! # The contract
//!
//! - **All or nothing is answered, not done.** `Ok` means that every page was read or written. After
//!   an error the source may hold any part of what was to be written, page by page old or new; a writer that
//!   needs an answer writes again. There are no short reads: an implementation goes on until the buffer is full.
//! - **The end.** A source has [`len`](PageSource::len) bytes, as long as it lives. What is read past them is
//!   zeros: the rest of the last page, and any page after it, just as the VMO has them. A write drops what
//!   lies past the end in the last page, as a shared mapping of a file does, and fails with
//!   [`PastEnd`](ErrorKind::PastEnd), having written nothing, if it has a whole page past it.
//!   An empty buffer is read and written without looking.
//! - **Order.** A write that was answered is seen by every read begun after. A page is not read or written while it is being
//!   written: a page under writeback is resident, and so not asked for, and is written back once at a
//!   time. Where a source gets both at once, each page is read old, new or mixed. *Neighbours* may be
//!   read and written at any time, also where the source stores them together.
//! - **Durability.** What was written is safe from a crash when a [`sync`](PageSource::sync) begun after the answer has been answered.
//! - **Cancelling.** A future does nothing before it is first polled. Dropped after that, its operation may still run
//!   to its end in the background: a write may or may not happen, and may do so later. That is why buffers
//!   are handed over, and not borrowed. So nobody may write the page again until the source is dropped
//!   or the write was answered; a service waits for its writes.
//! - **Runtime.** The futures need none: they can be polled by anything, on any thread. Polling does not wait for a device.
//! - **Retries.** A source does not retry, but for interrupted system calls. [`Retry`] does, and only what
//!   [`is_transient`](SourceError::is_transient).
//!
//! ```
//! use std::sync::Arc;
//! use upager::{PageCount, PageIndex, block_on};
//! use upager_linux::source::{Memory, PageBuf, PageSource};
//!
//! block_on(async {
//!     let source: Arc<dyn PageSource> = Arc::new(Memory::new(b"hello".to_vec()));
//!     let page = source.read_pages(PageIndex(0), PageBuf::new(PageCount(1))).await?;
//!     assert_eq!(&page[..8], b"hello\0\0\0");
//!     source.write_pages(PageIndex(0), Arc::new(page)).await?;
//!     source.sync().await
//! })?;
//! # Ok::<(), upager_linux::source::SourceError>(())
//! ```

#![allow(clippy::cast_possible_truncation)] // an index and a length of bytes in memory fit usize, which has 64 bits: below

mod ahead;
mod buffer;
mod error;
mod file;
mod inject;
mod memory;
mod merge;
#[cfg(feature = "object-store")]
mod object;
mod retry;
mod seekable;
mod zero;

use std::fmt::Debug;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;

use upager::{ByteRange, PageCount, PageIndex};

pub use ahead::ReadAhead;
pub use buffer::PageBuf;
pub use error::{ErrorKind, Operation, SourceError};
pub use file::{Caching, Engine, File, FileOptions};
pub use inject::{Fault, Injector, Rule};
pub use memory::Memory;
pub use merge::merge_ranges;
#[cfg(feature = "object-store")]
pub use object::{Object, Parts};
#[cfg(feature = "object-store")]
pub use object_store;
pub use retry::{Retry, RetryPolicy};
pub use seekable::{PackOptions, Packed, SeekableZstd, pack};
pub use zero::Zero;

const _: () = assert!(usize::BITS == 64, "files are as long as memory is wide");

/// What a source's calls return: boxed, so that sources of any kind can stand behind one `dyn PageSource`.
pub type SourceFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, SourceError>> + Send + 'a>>;

/// What a source can do, and how it likes to be asked. Constant for its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capabilities {
    /// Whether [`write_pages`](PageSource::write_pages) can succeed.
    pub writable: bool,
    /// Pages that are read for about the price of one, if the read begins at a multiple of this. At least one.
    pub preferred_read: PageCount,
    /// Pages that are best written together, beginning at a multiple of this. At least one. A shorter write may cost a read as well.
    pub preferred_write: PageCount,
    /// Operations in flight, of the preferred size, beyond which more are of no use.
    pub concurrency: NonZeroUsize,
}

/// Pages outside the VMO. [The module](self) has the contract.
///
/// It is object-safe; `Arc<S>` and `Box<S>` are sources if `S` is, also `Arc<dyn PageSource>`.
pub trait PageSource: Debug + Send + Sync {
    /// Bytes. The VMO for it has this rounded up to pages.
    fn len(&self) -> u64;

    /// Whether it has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What it can do, and how it likes to be asked.
    fn capabilities(&self) -> Capabilities;

    /// Fills `into` with the pages from `first` on, as many as it has, and gives it back. On an error, and when
    /// the future is dropped, the buffer is lost. What was in it does not matter.
    ///
    /// # Errors
    ///
    /// [`ErrorKind`] lists them; reading gives all but `NoSpace`, `PastEnd` and `ReadOnly`.
    fn read_pages(&self, first: PageIndex, into: PageBuf) -> SourceFuture<'_, PageBuf>;

    /// Writes the pages from `first` on. The buffer is shared, so that it can be written again after an error;
    /// after `Ok` the source holds it no more, and [`Arc::into_inner`] gives it back for another use.
    ///
    /// # Errors
    ///
    /// [`ErrorKind`] lists them. A source that is not [`writable`](Capabilities::writable) answers `ReadOnly`, always.
    fn write_pages(&self, first: PageIndex, from: Arc<PageBuf>) -> SourceFuture<'_, ()>;

    /// Makes all writes that were answered before this call safe from a crash. A source without writes has nothing to do.
    ///
    /// # Errors
    ///
    /// [`ErrorKind`] lists them. After one, nothing is known of any write since the last `Ok`: write the
    /// pages again. (Linux may drop dirty pages of its cache whose writing failed.)
    fn sync(&self) -> SourceFuture<'_, ()>;
}

macro_rules! pointer_to_source {
    ($pointer:ident) => {
        impl<S: PageSource + ?Sized> PageSource for $pointer<S> {
            fn len(&self) -> u64 {
                (**self).len()
            }

            fn capabilities(&self) -> Capabilities {
                (**self).capabilities()
            }

            fn read_pages(&self, first: PageIndex, into: PageBuf) -> SourceFuture<'_, PageBuf> {
                (**self).read_pages(first, into)
            }

            fn write_pages(&self, first: PageIndex, from: Arc<PageBuf>) -> SourceFuture<'_, ()> {
                (**self).write_pages(first, from)
            }

            fn sync(&self) -> SourceFuture<'_, ()> {
                (**self).sync()
            }
        }
    };
}

pointer_to_source!(Arc);
pointer_to_source!(Box);

/// Where in a source a buffer lies: the one place that knows the rules of the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Span {
    /// First byte. Saturated: a page that no 64-bit offset reaches lies past every end.
    offset: u64,
    /// Bytes of the buffer that the source has.
    stored: usize,
    /// Bytes of the buffer.
    length: usize,
}

impl Span {
    fn new(len: u64, first: PageIndex, buffer: &PageBuf) -> Self {
        let (offset, length) = (first.offset().0, buffer.len());
        let left = len.saturating_sub(offset) as usize;
        Self { offset, stored: length.min(left), length }
    }

    /// The same for a write: fails if a whole page lies past the end.
    fn of_write(len: u64, first: PageIndex, buffer: &PageBuf) -> Result<Self, SourceError> {
        let span = Self::new(len, first, buffer);
        if span.length - span.stored >= PageBuf::PAGE {
            return Err(SourceError::new(ErrorKind::PastEnd, Operation::Write, span.range()));
        }
        Ok(span)
    }

    fn range(self) -> ByteRange {
        ByteRange::new(self.offset, self.length as u64)
    }
}

/// The answer of a source that has no writes.
fn read_only<'a>(first: PageIndex, from: &PageBuf) -> SourceFuture<'a, ()> {
    let range = ByteRange::new(first.offset().0, from.len() as u64);
    Box::pin(async move { Err(SourceError::new(ErrorKind::ReadOnly, Operation::Write, range)) })
}
