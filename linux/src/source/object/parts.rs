//! Many objects of one size, that can be written.

use std::ops::Range;
use std::sync::Arc;

use futures_util::stream;
use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};
use tokio::sync::Mutex;
use upager::{PAGE_SIZE, PageCount, PageIndex};

use super::{AT_ONCE, Absent, CONCURRENCY, GET, Store, cut, failed};
use crate::source::{Capabilities, ErrorKind, Operation, PageBuf, PageSource, SourceError, SourceFuture, Span};

/// A writable source in a store: objects `PREFIX/0`, `PREFIX/1`, ..., each with so many bytes of it, the last one with what is left, and
/// `PREFIX/parts`, which says how many. A part that is not there is zeros, so a new source costs one object.
///
/// Each part is replaced as a whole, in one step: after a crash it has its old bytes or its new ones. A write
/// of less than a part reads it first; other writes of that part wait meanwhile, those of other parts do not.
/// What was written is as safe as the store makes it when it answers, so [`sync`](PageSource::sync) has nothing to
/// do (a directory's store must be made `with_fsync(true)` for that).
///
/// One process at a time may write: nothing here keeps a second one out.
///
/// ```
/// use std::sync::Arc;
/// use object_store::{memory::InMemory, path::Path};
/// use upager::{PageCount, PageIndex, block_on};
/// use upager_linux::source::{PageBuf, PageSource, Parts};
/// # use upager_linux::source::object_store;
/// block_on(async {
///     let store = Arc::new(InMemory::new());
///     let source = Parts::create(store.clone(), Path::from("vmo"), 1 << 40, PageCount(1024)).await?;
///     source.write_pages(PageIndex(5), Arc::new(PageBuf::new(PageCount(1)))).await?;
///     assert_eq!(Parts::open(store, Path::from("vmo")).await?.len(), 1 << 40);
///     Ok::<(), upager_linux::source::SourceError>(())
/// })?;
/// # Ok::<(), upager_linux::source::SourceError>(())
/// ```
#[derive(Debug)]
pub struct Parts {
    store: Store,
    shape: Shape,
    /// Held by whoever replaces a part: the one of its number's remainder.
    locks: Arc<[Mutex<()>]>,
}

/// Where the bytes lie. It does not change.
#[derive(Clone, Debug)]
struct Shape {
    prefix: Path,
    len: u64,
    /// Bytes of a part: whole pages.
    part: u64,
}

/// Parts that can be replaced at once, if their numbers fall so.
const LOCKS: u64 = 64;

/// The first line of the object that says what the others are.
const MAGIC: &str = "upager parts 1";

/// The largest part. An object store takes 5 GB at once; the memory for a part is had while it is written.
const LARGEST_PART: PageCount = PageCount((1 << 30) / PAGE_SIZE);

impl Parts {
    /// Makes a new one of `len` zeros, in parts of `part` pages. A write costs a part, a part costs a request:
    /// 1024 pages, 4 MiB, are a fair middle.
    ///
    /// # Errors
    ///
    /// `Unsupported`: parts of no pages, or over 1 GiB. `Io`: there is one already. Others as the store says.
    pub async fn create(
        store: Arc<dyn ObjectStore>,
        prefix: Path,
        len: u64,
        part: PageCount,
    ) -> Result<Self, SourceError> {
        if part < PageCount(1) || part > LARGEST_PART {
            return Err(unsupported("a part has 1 to 262144 pages"));
        }
        let store = Store::new(store)?;
        let shape = Shape { prefix, len, part: part.0 * PAGE_SIZE };
        let text = format!("{MAGIC}\nbytes {len}\npart {}\n", shape.part);
        let put = {
            let (store, path) = (store.store.clone(), shape.description());
            async move {
                let put = store.put_opts(&path, text.into_bytes().into(), PutMode::Create.into()).await;
                put.map_err(|error| failed(error, Operation::Open, None))
            }
        };
        store.run(Operation::Open, None, put).await?;
        Ok(Self::new(store, shape))
    }

    /// Opens one that was made.
    ///
    /// # Errors
    ///
    /// `Gone`: there is none. `Unsupported`: its description is not of this format. Others as the store says.
    pub async fn open(store: Arc<dyn ObjectStore>, prefix: Path) -> Result<Self, SourceError> {
        let store = Store::new(store)?;
        let mut shape = Shape { prefix, len: 0, part: 0 };
        let get = {
            let (store, path) = (store.store.clone(), shape.description());
            async move {
                let get = async { store.get(&path).await?.bytes().await };
                get.await.map_err(|error| failed(error, Operation::Open, None))
            }
        };
        let text = store.run(Operation::Open, None, get).await?;
        let Some((len, part)) = std::str::from_utf8(&text).ok().and_then(parse) else {
            return Err(unsupported("the description of the parts is not of this format"));
        };
        (shape.len, shape.part) = (len, part);
        Ok(Self::new(store, shape))
    }

    fn new(store: Store, shape: Shape) -> Self {
        Self { store, shape, locks: (0..LOCKS).map(|_| Mutex::new(())).collect() }
    }
}

fn unsupported(why: &str) -> SourceError {
    SourceError::new(ErrorKind::Unsupported, Operation::Open, None).because(why)
}

/// The length and the part's size, out of the description.
fn parse(text: &str) -> Option<(u64, u64)> {
    let mut lines = text.lines();
    let magic = lines.next()?;
    let mut number = |name: &str| -> Option<u64> { lines.next()?.strip_prefix(name)?.parse().ok() };
    let (len, part) = (number("bytes ")?, number("part ")?);
    let fits = part.is_multiple_of(PAGE_SIZE) && (1..=LARGEST_PART.0).contains(&(part / PAGE_SIZE));
    (magic == MAGIC && fits).then_some((len, part))
}

/// Bytes of one part that a call is about.
#[derive(Clone, Debug)]
struct Portion {
    number: u64,
    /// Within the part.
    range: Range<u64>,
    /// Where they are in the buffer.
    at: usize,
}

impl Shape {
    fn description(&self) -> Path {
        self.prefix.clone().join("parts")
    }

    fn path(&self, number: u64) -> Path {
        self.prefix.clone().join(number.to_string())
    }

    /// Bytes of that part.
    fn size(&self, number: u64) -> u64 {
        self.part.min(self.len - number * self.part)
    }

    /// The parts that have what is stored of the span.
    fn portions(&self, span: Span) -> impl Iterator<Item = Portion> + use<> {
        let (part, end) = (self.part, span.offset.saturating_add(span.stored as u64));
        let mut start = span.offset;
        std::iter::from_fn(move || {
            (start < end).then(|| {
                let number = start / part;
                let stop = end.min((number + 1) * part);
                let range = start - number * part..stop - number * part;
                let at = (start - span.offset) as usize;
                start = stop;
                Portion { number, range, at }
            })
        })
    }
}

/// Replaces a part by one with those bytes of the buffer in it.
async fn replace(
    store: Store,
    shape: Shape,
    locks: Arc<[Mutex<()>]>,
    portion: Portion,
    from: Arc<PageBuf>,
    span: Span,
) -> Result<(), SourceError> {
    let size = shape.size(portion.number);
    let path = shape.path(portion.number);
    let new = &from[portion.at..][..(portion.range.end - portion.range.start) as usize];
    let _alone = locks[(portion.number % LOCKS) as usize].lock().await;
    let bytes = if portion.range == (0..size) {
        new.to_vec()
    } else {
        let failed = |error| failed(error, Operation::Write, Some(span.range()));
        let mut bytes = match store.store.get(&path).await {
            Ok(got) => got.bytes().await.map_err(failed)?.to_vec(),
            Err(object_store::Error::NotFound { .. }) => vec![0; size as usize],
            Err(error) => return Err(failed(error)),
        };
        if bytes.len() as u64 != size {
            return Err(SourceError::new(ErrorKind::Corrupt, Operation::Write, span.range())
                .because(format!("{path} has {} bytes and not {size}", bytes.len())));
        }
        bytes[portion.range.start as usize..portion.range.end as usize].copy_from_slice(new);
        bytes
    };
    drop(from); // the caller may want it as soon as the last part is put
    match store.store.put(&path, bytes.into()).await {
        Ok(_) => Ok(()),
        Err(error) => Err(failed(error, Operation::Write, Some(span.range()))),
    }
}

impl PageSource for Parts {
    fn len(&self) -> u64 {
        self.shape.len
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            writable: true,
            preferred_read: PageCount(self.shape.part.min(GET) / PAGE_SIZE),
            preferred_write: PageCount(self.shape.part / PAGE_SIZE),
            concurrency: CONCURRENCY,
        }
    }

    fn read_pages(&self, first: PageIndex, into: PageBuf) -> SourceFuture<'_, PageBuf> {
        Box::pin(async move {
            let span = Span::new(self.shape.len, first, &into);
            let mut pieces = Vec::new();
            for Portion { number, range, at } in self.shape.portions(span) {
                pieces.extend(cut(&self.shape.path(number), None, range, at));
            }
            let work = self.store.clone().fill(pieces, Absent::Zeros, span, into);
            self.store.run(Operation::Read, Some(span.range()), work).await
        })
    }

    fn write_pages(&self, first: PageIndex, from: Arc<PageBuf>) -> SourceFuture<'_, ()> {
        Box::pin(async move {
            let span = Span::of_write(self.shape.len, first, &from)?;
            let (store, shape, locks) = (self.store.clone(), self.shape.clone(), self.locks.clone());
            let work = async move {
                let portions = shape.portions(span);
                let puts = portions
                    .map(|portion| replace(store.clone(), shape.clone(), locks.clone(), portion, from.clone(), span));
                stream::iter(puts).buffer_unordered(AT_ONCE).try_collect::<()>().await
            };
            self.store.run(Operation::Write, Some(span.range()), work).await
        })
    }

    fn sync(&self) -> SourceFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_is_read_only_as_it_is_written() {
        assert_eq!(parse("upager parts 1\nbytes 100\npart 8192\n"), Some((100, 8192)));
        for wrong in [
            "",
            "upager parts 2\nbytes 100\npart 8192\n",
            "upager parts 1\nbytes 100\n",
            "upager parts 1\nbytes 100\npart 0\n",
            "upager parts 1\nbytes 100\npart 100\n",
            "upager parts 1\nbytes -1\npart 8192\n",
            "upager parts 1\nbytes 100\npart 18446744073709547520\n",
        ] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }
}
