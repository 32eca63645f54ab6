//! A source in memory.

use std::num::NonZeroUsize;
use std::sync::{Arc, PoisonError, RwLock};

use upager::{PageCount, PageIndex};

use super::{Capabilities, PageBuf, PageSource, SourceFuture, Span};

/// Bytes in memory: the model that the other sources are tested against, and a store for images that are small.
///
/// Its length is that of the bytes it was made of. Nothing survives the process.
///
/// ```
/// use std::sync::Arc;
/// use upager::{PageCount, PageIndex, block_on};
/// use upager_linux::source::{Memory, PageBuf, PageSource};
/// let source = Memory::new(vec![1; 5000]);
/// let mut page = PageBuf::new(PageCount(1));
/// page.fill(2);
/// block_on(source.write_pages(PageIndex(1), Arc::new(page)))?;
/// let bytes = source.to_vec();
/// assert_eq!((bytes.len(), bytes[4095], bytes[4096]), (5000, 1, 2));
/// # Ok::<(), upager_linux::source::SourceError>(())
/// ```
#[derive(Debug)]
pub struct Memory(RwLock<Vec<u8>>);

impl Memory {
    /// A source of these bytes.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(RwLock::new(bytes))
    }

    /// A copy of its bytes as they are now.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl PageSource for Memory {
    fn len(&self) -> u64 {
        self.0.read().unwrap_or_else(PoisonError::into_inner).len() as u64
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            writable: true,
            preferred_read: PageCount(1),
            preferred_write: PageCount(1),
            concurrency: NonZeroUsize::MIN,
        }
    }

    fn read_pages(&self, first: PageIndex, mut into: PageBuf) -> SourceFuture<'_, PageBuf> {
        Box::pin(async move {
            let bytes = self.0.read().unwrap_or_else(PoisonError::into_inner);
            let span = Span::new(bytes.len() as u64, first, &into);
            let (stored, past) = into.split_at_mut(span.stored);
            if !stored.is_empty() {
                stored.copy_from_slice(&bytes[span.offset as usize..][..span.stored]);
            }
            past.fill(0);
            drop(bytes);
            Ok(into)
        })
    }

    fn write_pages(&self, first: PageIndex, from: Arc<PageBuf>) -> SourceFuture<'_, ()> {
        Box::pin(async move {
            let mut bytes = self.0.write().unwrap_or_else(PoisonError::into_inner);
            let span = Span::of_write(bytes.len() as u64, first, &from)?;
            if span.stored > 0 {
                bytes[span.offset as usize..][..span.stored].copy_from_slice(&from[..span.stored]);
            }
            Ok(())
        })
    }

    fn sync(&self) -> SourceFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}
