//! Reading a range in order, with several reads in flight.

use std::num::NonZeroUsize;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::stream::{FuturesOrdered, Stream};
use upager::{ByteRange, PAGE_SIZE, PageCount, PageIndex};

use super::{PageBuf, PageSource, SourceError, SourceFuture};

/// The pages of a range, in order, read ahead: up to so many reads in flight, each of so many pages. It keeps nothing else.
///
/// A [`Stream`] of the first page's number and the pages. The reads go on only while somebody polls it. An error is an
/// item like any other, in its place; the stream goes on after it. The last read may be shorter.
///
/// The rate is bytes in flight over the time of one read: for 500 MB/s from a store that takes 5 ms, 2.5 MB in flight.
///
/// ```
/// use futures_lite::StreamExt;
/// use upager::{ByteRange, PageIndex, block_on};
/// use upager_linux::source::{ReadAhead, Zero};
/// let source = Zero::new(1 << 20);
/// let mut pages = ReadAhead::new(&source, ByteRange::new(0, 1 << 20));
/// let mut read = 0;
/// while let Some(item) = block_on(pages.next()) {
///     let (first, buffer) = item?;
///     assert_eq!(first.offset().0, read);
///     read += buffer.len() as u64;
///     pages.recycle(buffer);
/// }
/// assert_eq!(read, 1 << 20);
/// # Ok::<(), upager_linux::source::SourceError>(())
/// ```
pub struct ReadAhead<'a, S: ?Sized> {
    source: &'a S,
    next: u64,
    end: u64,
    chunk: u64,
    in_flight: usize,
    reads: FuturesOrdered<SourceFuture<'a, (PageIndex, PageBuf)>>,
    spare: Vec<PageBuf>,
}

impl<'a, S: PageSource + ?Sized> ReadAhead<'a, S> {
    /// Reads the pages that the range touches, in reads of the source's
    /// [preferred size](super::Capabilities::preferred_read), as many in flight as it
    /// [has a use for](super::Capabilities::concurrency).
    #[must_use]
    pub fn new(source: &'a S, range: ByteRange) -> Self {
        let capabilities = source.capabilities();
        Self {
            source,
            next: range.offset / PAGE_SIZE,
            end: range.offset.saturating_add(range.length).div_ceil(PAGE_SIZE),
            chunk: capabilities.preferred_read.0.max(1),
            in_flight: capabilities.concurrency.get(),
            reads: FuturesOrdered::new(),
            spare: Vec::new(),
        }
    }

    /// The same with reads of so many pages (at least one), and so many in flight.
    #[must_use]
    pub fn with_window(self, chunk: PageCount, in_flight: NonZeroUsize) -> Self {
        Self { chunk: chunk.0.max(1), in_flight: in_flight.get(), ..self }
    }

    /// Takes a buffer back, to read into it again.
    pub fn recycle(&mut self, buffer: PageBuf) {
        self.spare.push(buffer);
    }

    /// Begins reads until so many are in flight, or none are left.
    fn fill(&mut self) {
        while self.reads.len() < self.in_flight && self.next < self.end {
            let first = PageIndex(self.next);
            // To the next multiple of the chunk: what the source likes.
            let stop = self.end.min(self.next - self.next % self.chunk + self.chunk);
            let pages = PageCount(stop - self.next);
            self.next = stop;
            let buffer = match self.spare.pop() {
                Some(mut buffer) => {
                    buffer.resize(pages);
                    buffer
                }
                None => PageBuf::new(pages),
            };
            let source = self.source;
            self.reads.push_back(Box::pin(async move { Ok((first, source.read_pages(first, buffer).await?)) }));
        }
    }
}

impl<S: PageSource + ?Sized> Stream for ReadAhead<'_, S> {
    type Item = Result<(PageIndex, PageBuf), SourceError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.fill();
        Pin::new(&mut self.reads).poll_next(cx)
    }
}

impl<S: PageSource + ?Sized> std::fmt::Debug for ReadAhead<'_, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadAhead")
            .field("source", &self.source)
            .field("next", &self.next)
            .field("end", &self.end)
            .field("in_flight", &self.reads.len())
            .finish_non_exhaustive()
    }
}
