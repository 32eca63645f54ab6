//! One object, read by ranges.

use std::sync::Arc;

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use upager::{PAGE_SIZE, PageCount, PageIndex};

use super::{Absent, CONCURRENCY, GET, Store, cut, failed};
use crate::source::{Capabilities, Operation, PageBuf, PageSource, SourceError, SourceFuture, Span, read_only};

/// An object of a store, read-only.
///
/// Where the store tells versions apart by ETags, all reads are of the version that was opened; once it is replaced, they fail
/// with [`Gone`](crate::source::ErrorKind::Gone). A compressed image in an object is a
/// [`SeekableZstd`](crate::source::SeekableZstd) over this.
///
/// A read is cut into GETs of at most 1 MiB, up to 16 at a time, and joined again; nothing is kept. Short reads cost as
/// much as long ones here: ask for [`preferred_read`](Capabilities::preferred_read) pages, several at
/// once ([`ReadAhead`](crate::source::ReadAhead)): four in flight give over 500 MB/s at 5 ms.
///
/// The work is done on a tokio runtime, since that is what stores need: the one that a source was opened in, or else
/// one of its own with two threads, which all such sources share. Whoever polls need not be on it. The features of
/// `object_store` (`aws`, `gcp`, `azure`, `http`) are the embedder's to turn on, in his own dependency on it.
///
/// ```
/// use std::sync::Arc;
/// use object_store::{ObjectStoreExt, memory::InMemory, path::Path};
/// use upager::{PageCount, PageIndex, block_on};
/// use upager_linux::source::{Object, PageBuf, PageSource};
/// # use upager_linux::source::object_store;
/// block_on(async {
///     let store = Arc::new(InMemory::new());
///     store.put(&Path::from("image"), vec![7; 10_000].into()).await?;
///     let source = Object::open(store, Path::from("image")).await?;
///     let page = source.read_pages(PageIndex(2), PageBuf::new(PageCount(1))).await?;
///     assert_eq!((source.len(), page[0], page[10_000 - 8192]), (10_000, 7, 0));
///     Ok::<(), Box<dyn std::error::Error>>(())
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Object {
    store: Store,
    path: Path,
    len: u64,
    version: Option<String>,
}

impl Object {
    /// Asks the store for the object's length and version.
    ///
    /// # Errors
    ///
    /// `Gone`: it is not there, or may not be read. Others as the store says.
    pub async fn open(store: Arc<dyn ObjectStore>, path: Path) -> Result<Self, SourceError> {
        let store = Store::new(store)?;
        let head = {
            let (store, path) = (store.store.clone(), path.clone());
            async move { store.head(&path).await.map_err(|error| failed(error, Operation::Open, None)) }
        };
        let meta = store.run(Operation::Open, None, head).await?;
        Ok(Self { store, path, len: meta.size, version: meta.e_tag })
    }
}

impl PageSource for Object {
    fn len(&self) -> u64 {
        self.len
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            writable: false,
            preferred_read: PageCount(GET / PAGE_SIZE),
            preferred_write: PageCount(1),
            concurrency: CONCURRENCY,
        }
    }

    fn read_pages(&self, first: PageIndex, into: PageBuf) -> SourceFuture<'_, PageBuf> {
        Box::pin(async move {
            let span = Span::new(self.len, first, &into);
            let range = span.offset..span.offset.saturating_add(span.stored as u64);
            let pieces = cut(&self.path, self.version.as_deref(), range, 0).collect();
            let work = self.store.clone().fill(pieces, Absent::Error, span, into);
            self.store.run(Operation::Read, Some(span.range()), work).await
        })
    }

    fn write_pages(&self, first: PageIndex, from: Arc<PageBuf>) -> SourceFuture<'_, ()> {
        read_only(first, &from)
    }

    fn sync(&self) -> SourceFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}
