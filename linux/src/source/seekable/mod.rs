//! A compressed image as a source.
//!
//! A read finds the frames that it needs in the [seek table](table), reads them from the source beneath as one range, and
//! decompresses them on a thread that may take its time.

mod pack;
mod table;

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use upager::{ByteRange, PAGE_SIZE, PageCount, PageIndex};

use self::table::{Defect, Footer, Frame, Table};
use super::{Capabilities, ErrorKind, Operation, PageBuf, PageSource, SourceError, SourceFuture, Span, read_only};

pub use pack::{PackOptions, Packed, pack};

/// A read-only image in zstd's seekable format, in another source: a file, or an object.
///
/// [`pack`] makes one; so does any other writer of the format. What does not
/// decompress to its length and checksum is [`Corrupt`](ErrorKind::Corrupt). It keeps no decompressed frames: the pager's memory is
/// the cache. So ask for whole frames, which is what it [prefers](Capabilities::preferred_read).
///
/// ```
/// use upager::{PageCount, PageIndex, block_on};
/// use upager_linux::source::{Memory, PackOptions, PageBuf, PageSource, SeekableZstd, pack};
/// let mut image = Vec::new();
/// pack(&[7; 10_000][..], &mut image, PackOptions::default())?;
/// let source = block_on(SeekableZstd::open(Memory::new(image)))?;
/// let page = block_on(source.read_pages(PageIndex(2), PageBuf::new(PageCount(1))))?;
/// assert_eq!((source.len(), page[0], page[10_000 - 8192]), (10_000, 7, 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct SeekableZstd<S> {
    packed: S,
    table: Table,
}

impl<S: PageSource> SeekableZstd<S> {
    /// Reads the seek table, which stays in memory: 24 bytes a frame.
    ///
    /// # Errors
    ///
    /// `Unsupported`: not of this format, or of a later version. `Corrupt`: it ends like one, but the table is wrong. And those of the source beneath.
    pub async fn open(packed: S) -> Result<Self, SourceError> {
        let image = packed.len();
        let Some(footer) = image.checked_sub(Footer::SIZE as u64) else {
            return Err(refused(Defect::NoTable));
        };
        let bytes = read_bytes(&packed, footer..image).await?;
        let footer = Footer::parse(bytes.get()).map_err(refused)?;
        let Some(start) = image.checked_sub(footer.table_size()) else {
            return Err(refused(Defect::TableTooLarge));
        };
        let bytes = read_bytes(&packed, start..image).await?;
        let table = Table::parse(footer, bytes.get(), image).map_err(refused)?;
        Ok(Self { packed, table })
    }

    /// The source of the compressed image.
    #[must_use]
    pub const fn get_ref(&self) -> &S {
        &self.packed
    }
}

fn refused(defect: Defect) -> SourceError {
    let kind = match defect {
        Defect::NoTable | Defect::Later => ErrorKind::Unsupported,
        _ => ErrorKind::Corrupt,
    };
    SourceError::new(kind, Operation::Open, None).because(defect)
}

/// Bytes of a source that begin and end anywhere.
struct Bytes {
    pages: PageBuf,
    within: Range<usize>,
}

impl Bytes {
    fn get(&self) -> &[u8] {
        &self.pages[self.within.clone()]
    }
}

/// Reads bytes that the source has.
async fn read_bytes(source: &impl PageSource, range: Range<u64>) -> Result<Bytes, SourceError> {
    let first = range.start / PAGE_SIZE;
    let pages = PageBuf::new(PageCount(range.end.div_ceil(PAGE_SIZE).saturating_sub(first)));
    let pages = source.read_pages(PageIndex(first), pages).await?;
    let at = |offset: u64| (offset - first * PAGE_SIZE) as usize;
    Ok(Bytes { pages, within: at(range.start)..at(range.end) })
}

/// Fills the buffer, whose first byte is the image's at `span.offset`, from frames that are next to each other.
fn unpack(frames: &[Frame], packed: &Bytes, span: Span, into: &mut PageBuf) -> Result<(), SourceError> {
    let wanted = span.offset..span.offset + span.stored as u64;
    let first = frames.first().map_or(0, |frame| frame.packed.start);
    for frame in frames {
        let source = &packed.get()[(frame.packed.start - first) as usize..(frame.packed.end - first) as usize];
        let shared = frame.bytes.start.max(wanted.start)..frame.bytes.end.min(wanted.end);
        let to = &mut into[(shared.start - wanted.start) as usize..(shared.end - wanted.start) as usize];
        if shared == frame.bytes {
            unpack_frame(frame, source, to)?;
        } else {
            let mut scratch = vec![0; (frame.bytes.end - frame.bytes.start) as usize];
            unpack_frame(frame, source, &mut scratch)?;
            to.copy_from_slice(&scratch[(shared.start - frame.bytes.start) as usize..][..to.len()]);
        }
    }
    into[span.stored..].fill(0);
    Ok(())
}

/// Fills `to` with all that the frame decompresses to.
fn unpack_frame(frame: &Frame, source: &[u8], to: &mut [u8]) -> Result<(), SourceError> {
    thread_local! {
        /// Making one costs more than decompressing a small frame.
        static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
    }
    let corrupt = || {
        let range = ByteRange::new(frame.bytes.start, frame.bytes.end - frame.bytes.start);
        SourceError::new(ErrorKind::Corrupt, Operation::Read, range)
    };
    let written = DECOMPRESSOR.with_borrow_mut(|decompressor| {
        let decompressor = match decompressor {
            Some(decompressor) => decompressor,
            None => decompressor.insert(
                zstd::bulk::Decompressor::new().map_err(|error| SourceError::io(error, Operation::Read, None))?,
            ),
        };
        decompressor.decompress_to_buffer(source, to).map_err(|error| corrupt().because(error))
    })?;
    if written != to.len() {
        return Err(corrupt().because("a frame is shorter than the seek table says"));
    }
    if frame.checksum.is_some_and(|checksum| checksum != table::checksum(to)) {
        return Err(corrupt().because("a frame's checksum is wrong"));
    }
    Ok(())
}

impl<S: PageSource> PageSource for SeekableZstd<S> {
    fn len(&self) -> u64 {
        self.table.len()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            writable: false,
            preferred_read: PageCount(u64::from(self.table.largest()).div_ceil(PAGE_SIZE).max(1)),
            preferred_write: PageCount(1),
            concurrency: self.packed.capabilities().concurrency,
        }
    }

    fn read_pages(&self, first: PageIndex, mut into: PageBuf) -> SourceFuture<'_, PageBuf> {
        Box::pin(async move {
            let span = Span::new(self.len(), first, &into);
            let frames: Vec<Frame> = if span.stored == 0 {
                Vec::new()
            } else {
                self.table.frames(span.offset..span.offset + span.stored as u64).collect()
            };
            let (Some(from), Some(to)) = (frames.first(), frames.last()) else {
                into.fill(0);
                return Ok(into);
            };
            let packed = read_bytes(&self.packed, from.packed.start..to.packed.end).await?;
            blocking::unblock(move || {
                unpack(&frames, &packed, span, &mut into)?;
                Ok(into)
            })
            .await
        })
    }

    fn write_pages(&self, first: PageIndex, from: Arc<PageBuf>) -> SourceFuture<'_, ()> {
        read_only(first, &from)
    }

    fn sync(&self) -> SourceFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}
