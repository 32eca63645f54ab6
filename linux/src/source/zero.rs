//! The source without content.

use std::num::NonZeroUsize;
use std::sync::Arc;

use upager::{PageCount, PageIndex};

use super::{Capabilities, PageBuf, PageSource, SourceFuture, read_only};

/// Zeros, as many as wanted. It cannot keep what is written.
///
/// ```
/// use upager::{PageCount, PageIndex, block_on};
/// use upager_linux::source::{PageBuf, PageSource, Zero};
/// let page = block_on(Zero::new(1 << 40).read_pages(PageIndex(7), PageBuf::new(PageCount(1))))?;
/// assert!(page.iter().all(|byte| *byte == 0));
/// # Ok::<(), upager_linux::source::SourceError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Zero {
    len: u64,
}

impl Zero {
    /// `len` bytes of zero.
    #[must_use]
    pub const fn new(len: u64) -> Self {
        Self { len }
    }
}

impl PageSource for Zero {
    fn len(&self) -> u64 {
        self.len
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            writable: false,
            preferred_read: PageCount(1),
            preferred_write: PageCount(1),
            concurrency: NonZeroUsize::MIN,
        }
    }

    fn read_pages(&self, _first: PageIndex, mut into: PageBuf) -> SourceFuture<'_, PageBuf> {
        Box::pin(async move {
            into.fill(0);
            Ok(into)
        })
    }

    fn write_pages(&self, first: PageIndex, from: Arc<PageBuf>) -> SourceFuture<'_, ()> {
        read_only(first, &from)
    }

    fn sync(&self) -> SourceFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}
