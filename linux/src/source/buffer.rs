//! Memory for pages on their way to or from a source.

use std::fmt;
use std::ops::{Deref, DerefMut};

use bytemuck::{Pod, Zeroable};
use upager::PageCount;

/// A page in memory, aligned as O_DIRECT wants it.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(4096))]
struct Page([u8; PageBuf::PAGE]);

/// Whole pages in memory, aligned to 4096 bytes, and so fit for O_DIRECT and for UFFDIO_COPY. It derefs to its bytes.
///
/// A source takes it and gives it back, filled. Allocating costs a zeroing, for large buffers done by the
/// kernel page by page: keep them and use them again.
///
/// ```
/// use upager::PageCount;
/// use upager_linux::source::PageBuf;
/// let mut buffer = PageBuf::new(PageCount(2));
/// buffer[4096..4101].copy_from_slice(b"hello");
/// assert_eq!(buffer.len(), 8192);
/// assert_eq!(buffer.pages(), PageCount(2));
/// ```
pub struct PageBuf(Vec<Page>);

impl PageBuf {
    /// Bytes in a page, where a `usize` is needed.
    pub const PAGE: usize = upager::PAGE_SIZE as usize;

    /// Pages of zeros.
    ///
    /// # Panics
    ///
    /// If there is no memory for them, like [`Vec`].
    #[must_use]
    pub fn new(pages: PageCount) -> Self {
        Self(bytemuck::allocation::zeroed_vec(pages.0 as usize))
    }

    /// Pages in it.
    #[must_use]
    pub fn pages(&self) -> PageCount {
        PageCount(self.0.len() as u64)
    }

    /// Makes it hold so many pages: drops the last ones, or appends pages of zeros. The memory is
    /// kept, and so not allocated again when it grows back.
    ///
    /// ```
    /// # use upager::PageCount;
    /// # use upager_linux::source::PageBuf;
    /// let mut buffer = PageBuf::new(PageCount(8));
    /// let address = buffer.as_ptr();
    /// buffer.resize(PageCount(1));
    /// buffer.resize(PageCount(8));
    /// assert_eq!((buffer.as_ptr(), buffer.len()), (address, 8 * PageBuf::PAGE));
    /// ```
    ///
    /// # Panics
    ///
    /// If there is no memory for them, like [`Vec`].
    pub fn resize(&mut self, pages: PageCount) {
        self.0.resize(pages.0 as usize, Page::zeroed());
    }
}

impl Deref for PageBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

impl DerefMut for PageBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.0)
    }
}

impl AsRef<[u8]> for PageBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for PageBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageBuf").field("pages", &self.0.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_aligned_and_zero_and_stays_so() {
        for pages in [0, 1, 3, 1000] {
            let mut buffer = PageBuf::new(PageCount(pages));
            assert_eq!(buffer.as_ptr().addr() % PageBuf::PAGE, 0);
            assert!(buffer.iter().all(|byte| *byte == 0));
            buffer.fill(7);
            buffer.resize(PageCount(pages / 2));
            buffer.resize(PageCount(pages + 1));
            assert_eq!(buffer.as_ptr().addr() % PageBuf::PAGE, 0);
            let kept = (pages / 2) as usize * PageBuf::PAGE;
            assert!(buffer[..kept].iter().all(|byte| *byte == 7) && buffer[kept..].iter().all(|byte| *byte == 0));
        }
    }
}
