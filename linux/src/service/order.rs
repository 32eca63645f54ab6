//! Reads and writes of one VMO's source that are under way, so that no read brings back what a write has replaced.
//!
//! Danger: a page is being read, slowly. Whoever asked for it gives up, and it is asked for anew; the second read is
//! quick, the page is written to, written back, and evicted. Now the first read ends, and if its bytes came into the
//! VMO, the write would be lost. The same may befall a neighbour that is read along with a page.
//!
//! So a read that overlaps a write in time and in pages is *void*: what it brought is dropped, and it is made again.
//! A read that began after the write was answered has seen it (the contract of sources), and one that has been supplied before
//! the write began is in a page that the VMO has.

use std::sync::{Mutex, MutexGuard, PoisonError};

use event_listener::{Event, EventListener};
use upager::ByteRange;

#[derive(Debug)]
struct Read {
    number: u64,
    range: ByteRange,
    void: bool,
}

#[derive(Debug, Default)]
struct UnderWay {
    reads: Vec<Read>,
    writes: Vec<ByteRange>,
    next: u64,
}

/// The reads and writes of one source.
#[derive(Debug, Default)]
pub(super) struct Order {
    under_way: Mutex<UnderWay>,
    written: Event,
}

/// A read that is under way. Dropping it without [`end`](Self::end) gives it up.
#[derive(Debug)]
pub(super) struct Reading<'a> {
    order: &'a Order,
    number: u64,
}

/// A write that is under way, until it is dropped.
#[derive(Debug)]
pub(super) struct Writing<'a> {
    order: &'a Order,
    range: ByteRange,
}

const fn overlap(a: ByteRange, b: ByteRange) -> bool {
    a.offset < b.offset + b.length && b.offset < a.offset + a.length
}

impl Order {
    fn lock(&self) -> MutexGuard<'_, UnderWay> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A read begins. The error is what ends with the next write: one that it overlaps is under way.
    pub(super) fn begin_read(&self, range: ByteRange) -> Result<Reading<'_>, EventListener> {
        let mut under_way = self.lock();
        if under_way.writes.iter().any(|write| overlap(*write, range)) {
            return Err(self.written.listen()); // under the lock, so that its end is not missed
        }
        let number = under_way.next;
        under_way.next += 1;
        under_way.reads.push(Read { number, range, void: false });
        Ok(Reading { order: self, number })
    }

    /// A write begins: reads of its pages are void.
    pub(super) fn begin_write(&self, range: ByteRange) -> Writing<'_> {
        let mut under_way = self.lock();
        for read in under_way.reads.iter_mut().filter(|read| overlap(read.range, range)) {
            read.void = true;
        }
        under_way.writes.push(range);
        Writing { order: self, range }
    }
}

impl Reading<'_> {
    /// Supplies what was read, by `supply`, which must not wait. `None`: it is void.
    pub(super) fn end<T>(self, supply: impl FnOnce() -> T) -> Option<T> {
        let under_way = self.order.lock();
        let valid = under_way.reads.iter().any(|read| read.number == self.number && !read.void);
        // Under the lock: a write that begins later finds the pages supplied.
        let supplied = valid.then(supply);
        drop(under_way);
        supplied
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.order.lock().reads.retain(|read| read.number != self.number);
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let mut under_way = self.order.lock();
        if let Some(at) = under_way.writes.iter().position(|write| *write == self.range) {
            under_way.writes.swap_remove(at);
        }
        drop(under_way);
        self.order.written.notify(usize::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn pages(first: u64, count: u64) -> ByteRange {
        ByteRange::new(first * 4096, count * 4096)
    }

    #[test]
    fn a_write_makes_overlapping_reads_void_and_no_others() {
        let order = Order::default();
        let (first, second) = (order.begin_read(pages(0, 4)).unwrap(), order.begin_read(pages(4, 4)).unwrap());
        let early = order.begin_read(pages(3, 1)).unwrap();
        assert_eq!(early.end(|| 1), Some(1), "it was over before the write");
        let write = order.begin_write(pages(3, 1));
        assert!(order.begin_read(pages(2, 2)).is_err());
        assert!(order.begin_read(pages(4, 1)).is_ok());
        drop(write);
        assert_eq!(first.end(|| 1), None);
        assert_eq!(second.end(|| 1), Some(1));
        assert_eq!(order.begin_read(pages(3, 1)).unwrap().end(|| 1), Some(1));
        let left = order.lock();
        assert!(left.reads.is_empty() && left.writes.is_empty());
    }
}
