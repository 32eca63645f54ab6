//! An anonymous VMO as a sequential program, and supply of pages out of it.
//!
//! As in [`spec`](crate::spec), a page's content is one byte. Here a supply is one step. In the core each page
//! is two: it leaves the one VMO, and then it comes into the other.

use upager::Status;

use crate::spec::Spec;

/// A page.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
struct Page {
    /// Its byte, if it has a frame.
    stored: Option<u8>,
    /// How many pins hold it.
    pins: u32,
}

/// An anonymous VMO.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Anonymous {
    pages: Vec<Page>,
}

impl Anonymous {
    /// Of so many pages, all zeros.
    #[must_use]
    pub fn new(pages: usize) -> Self {
        Self { pages: vec![Page::default(); pages] }
    }

    fn range(&mut self, first: usize, count: usize) -> &mut [Page] {
        &mut self.pages[first..first + count]
    }

    fn is_pinned(&self, first: usize, count: usize) -> bool {
        self.pages[first..first + count].iter().any(|page| page.pins > 0)
    }

    /// Reads a page.
    #[must_use]
    pub fn read(&self, page: usize) -> u8 {
        self.pages[page].stored.unwrap_or(0)
    }

    /// Writes a page.
    pub fn write(&mut self, page: usize, byte: u8) {
        self.pages[page].stored = Some(byte);
    }

    /// Gives pages frames.
    pub fn commit(&mut self, first: usize, count: usize) {
        for page in self.range(first, count) {
            page.stored.get_or_insert(0);
        }
    }

    /// Takes frames away.
    ///
    /// # Errors
    /// `BadState`: one of the pages is pinned.
    pub fn decommit(&mut self, first: usize, count: usize) -> Result<(), Status> {
        if self.is_pinned(first, count) {
            return Err(Status::BadState);
        }
        self.range(first, count).fill(Page::default());
        Ok(())
    }

    /// Makes pages zeros. Those that are pinned keep their frames.
    pub fn zero(&mut self, first: usize, count: usize) {
        for page in self.range(first, count) {
            page.stored = (page.pins > 0).then_some(0);
        }
    }

    /// Commits and pins pages.
    pub fn pin(&mut self, first: usize, count: usize) {
        self.commit(first, count);
        for page in self.range(first, count) {
            page.pins += 1;
        }
    }

    /// Ends a pin.
    pub fn unpin(&mut self, first: usize, count: usize) {
        for page in self.range(first, count) {
            page.pins -= 1;
        }
    }

    /// How many pages have frames.
    #[must_use]
    pub fn committed(&self) -> usize {
        self.pages.iter().filter(|page| page.stored.is_some()).count()
    }

    /// Supplies `count` pages of the VMO from `to` on out of those from `from` on.
    ///
    /// # Errors
    /// `BadState`: the VMO is detached, or one of the pages is pinned.
    pub fn supply(&mut self, from: usize, count: usize, vmo: &mut Spec, to: u64) -> Result<(), Status> {
        if vmo.is_detached() || self.is_pinned(from, count) {
            return Err(Status::BadState);
        }
        for (page, to) in self.range(from, count).iter_mut().zip(to..) {
            vmo.supply(to, page.stored.take().unwrap_or(0))?;
        }
        Ok(())
    }
}
