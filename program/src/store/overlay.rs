//! FILE with some pages replaced: a sparse temporary file, and a bit for each page that is in it.
//!
//! A run has two. The *copy* takes what is written back, and is what the service supplies from; the
//! *shadow* takes what the writers know they wrote. In the end they must be equal.
//!
//! Invariants: a page's bytes are written before its bit is set, and a bit is never cleared. At any
//! time at most one thread writes a given page, and none reads it meanwhile: in the copy because a
//! page that is being written back is resident, and so not asked for; in the shadow because only
//! the page's owner touches it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};

use upager::{PAGE_SIZE, PageIndex};

use crate::failure::Failure;
use crate::store::{PAGE, SourceFile};

const BITS: u64 = u64::BITS as u64;

pub(crate) struct Overlay {
    file: Arc<SourceFile>,
    pages: File,
    present: Box<[AtomicU64]>,
}

impl Overlay {
    /// FILE as it is.
    pub(crate) fn new(file: Arc<SourceFile>) -> Result<Self, Failure> {
        let size = file.pages() * PAGE_SIZE;
        let pages = tempfile::tempfile().and_then(|pages| pages.set_len(size).map(|()| pages)).map_err(temporary)?;
        let present = (0..file.pages().div_ceil(BITS)).map(|_| AtomicU64::new(0)).collect();
        Ok(Self { file, pages, present })
    }

    fn bit(&self, page: PageIndex) -> (&AtomicU64, u64) {
        let word = &self.present[(page.0 / BITS) as usize];
        (word, 1 << (page.0 % BITS))
    }

    /// Whether the page has been replaced.
    pub(crate) fn holds(&self, page: PageIndex) -> bool {
        let (word, bit) = self.bit(page);
        word.load(Acquire) & bit != 0 // Acquire: pairs with `write`, for the bytes
    }

    /// Fills `to`, a multiple of pages, from `first` on.
    pub(crate) fn read(&self, first: PageIndex, to: &mut [u8]) -> Result<(), Failure> {
        let replaced = |n: usize| self.holds(PageIndex(first.0 + n as u64));
        if !(0..to.len() / PAGE).all(replaced) {
            self.file.read(first.offset().0, to)?;
        }
        for (n, bytes) in to.chunks_exact_mut(PAGE).enumerate().filter(|(n, _)| replaced(*n)) {
            self.pages.read_exact_at(bytes, first.offset().0 + (n * PAGE) as u64).map_err(temporary)?;
        }
        Ok(())
    }

    /// Replaces one whole page.
    pub(crate) fn write(&self, page: PageIndex, bytes: &[u8]) -> Result<(), Failure> {
        self.pages.write_all_at(bytes, page.offset().0).map_err(temporary)?;
        let (word, bit) = self.bit(page);
        word.fetch_or(bit, Release); // Release: pairs with `holds`
        Ok(())
    }

    /// Replaces bytes of one page, from byte `within` of it on.
    pub(crate) fn patch(&self, page: PageIndex, within: usize, bytes: &[u8]) -> Result<(), Failure> {
        if self.holds(page) {
            return self.pages.write_all_at(bytes, page.offset().0 + within as u64).map_err(temporary);
        }
        let mut whole = [0; PAGE];
        self.read(page, &mut whole)?;
        whole[within..within + bytes.len()].copy_from_slice(bytes);
        self.write(page, &whole)
    }

    /// The pages that have been replaced in this one or in the other, in ascending order.
    pub(crate) fn pages_of_either<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = PageIndex> + 'a {
        (0..self.file.pages()).map(PageIndex).filter(|page| self.holds(*page) || other.holds(*page))
    }
}

fn temporary(source: io::Error) -> Failure {
    Failure::Temporary { path: std::env::temp_dir(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn replaced_pages_are_read_from_the_overlay_and_the_rest_from_the_file() {
        let mut base = tempfile::NamedTempFile::new().unwrap();
        base.write_all(&[1; 2 * PAGE + 100]).unwrap();
        let file = Arc::new(SourceFile::open(base.path().to_owned()).unwrap());
        let overlay = Overlay::new(file.clone()).unwrap();
        let other = Overlay::new(file).unwrap();
        overlay.patch(PageIndex(1), 8, &[2; 16]).unwrap();
        overlay.patch(PageIndex(1), 16, &[3; 16]).unwrap();
        other.write(PageIndex(2), &[4; PAGE]).unwrap();

        let mut bytes = vec![0xff; 3 * PAGE];
        overlay.read(PageIndex(0), &mut bytes).unwrap();
        assert_eq!(bytes[..PAGE + 8], [1; PAGE + 8]);
        assert_eq!(bytes[PAGE + 8..PAGE + 16], [2; 8]);
        assert_eq!(bytes[PAGE + 16..PAGE + 32], [3; 16]);
        assert_eq!(bytes[2 * PAGE..2 * PAGE + 100], [1; 100]);
        assert_eq!(bytes[2 * PAGE + 100..], [0; PAGE - 100]);
        assert!(overlay.pages_of_either(&other).eq([PageIndex(1), PageIndex(2)]));
    }
}
