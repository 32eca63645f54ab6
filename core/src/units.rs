//! Pages and bytes, kept apart by type.

use crate::status::{Result, Status};

/// Bytes in a page. Zircon's and x86-64's base page.
pub const PAGE_SIZE: u64 = 4096;

/// The largest VMO, in bytes: 2^52, which is 2^40 pages, as many as a 52-bit physical address
/// can name.
pub const MAX_VMO_SIZE: u64 = 1 << 52;

/// The number of a page in a VMO.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct PageIndex(pub u64);

/// A number of pages.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct PageCount(pub u64);

/// A position in a VMO, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ByteOffset(pub u64);

impl PageIndex {
    /// The position of the page's first byte.
    ///
    /// ```
    /// use upager::{ByteOffset, PageIndex};
    /// assert_eq!(PageIndex(2).offset(), ByteOffset(8192));
    /// ```
    #[must_use]
    pub const fn offset(self) -> ByteOffset {
        ByteOffset(self.0.saturating_mul(PAGE_SIZE))
    }
}

impl ByteOffset {
    /// The page that this byte lies in.
    #[must_use]
    pub const fn page(self) -> PageIndex {
        PageIndex(self.0 / PAGE_SIZE)
    }

    /// Where in its page the position lies, and how many of `len` bytes from there lie in the page.
    pub(crate) fn part_of_page(self, len: usize) -> (usize, usize) {
        let within = (self.0 % PAGE_SIZE) as usize;
        (within, len.min(PAGE_SIZE as usize - within))
    }
}

/// A range of bytes of a VMO, as the pager's calls take it.
///
/// ```
/// use upager::ByteRange;
/// let second_page = ByteRange::new(4096, 4096);
/// assert_eq!(second_page, ByteRange { offset: 4096, length: 4096 });
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct ByteRange {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

impl ByteRange {
    /// `length` bytes from `offset` on.
    #[must_use]
    pub const fn new(offset: u64, length: u64) -> Self {
        Self { offset, length }
    }

    /// The pages of a range that must begin and end on a page.
    #[inline]
    pub(crate) fn pages_exact(self, size: PageCount) -> Result<PageRange> {
        if !self.offset.is_multiple_of(PAGE_SIZE) || !self.length.is_multiple_of(PAGE_SIZE) {
            return Err(Status::InvalidArgs);
        }
        self.pages_touched(size)
    }

    /// The pages of a range whose ends are rounded out to pages.
    #[inline]
    pub(crate) fn pages_touched(self, size: PageCount) -> Result<PageRange> {
        let end = self.offset.checked_add(self.length).ok_or(Status::OutOfRange)?;
        if end > size.0 * PAGE_SIZE {
            return Err(Status::OutOfRange);
        }
        Ok(PageRange { start: self.offset / PAGE_SIZE, end: end.div_ceil(PAGE_SIZE) })
    }
}

/// A run of pages, `start..end`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PageRange {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

impl PageRange {
    pub(crate) const ALL: Self = Self { start: 0, end: MAX_VMO_SIZE / PAGE_SIZE };

    pub(crate) const fn bytes(self) -> ByteRange {
        ByteRange::new(self.start * PAGE_SIZE, (self.end - self.start) * PAGE_SIZE)
    }

    #[inline]
    pub(crate) const fn is_empty(self) -> bool {
        self.start >= self.end
    }

    #[inline]
    pub(crate) fn intersect(self, other: Self) -> Self {
        Self { start: self.start.max(other.start), end: self.end.min(other.end) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alignment_is_checked_before_bounds() {
        let size = PageCount(2);
        assert_eq!(ByteRange::new(1, u64::MAX).pages_exact(size), Err(Status::InvalidArgs));
        assert_eq!(ByteRange::new(PAGE_SIZE, u64::MAX - 4095).pages_exact(size), Err(Status::OutOfRange));
        assert_eq!(ByteRange::new(0, 3 * PAGE_SIZE).pages_exact(size), Err(Status::OutOfRange));
        assert_eq!(ByteRange::new(0, 2 * PAGE_SIZE).pages_exact(size), Ok(PageRange { start: 0, end: 2 }));
    }

    #[test]
    fn touched_pages_are_rounded_out() {
        assert_eq!(ByteRange::new(4095, 2).pages_touched(PageCount(2)), Ok(PageRange { start: 0, end: 2 }));
        assert!(ByteRange::new(8192, 0).pages_touched(PageCount(2)).unwrap().is_empty());
    }
}
