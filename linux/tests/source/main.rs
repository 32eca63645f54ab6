//! Page sources: every kind against one contract, then what each has of its own.

#![allow(clippy::cast_possible_truncation)] // page numbers of sources that lie in memory fit usize
#![allow(clippy::large_stack_arrays)] // a few pages

mod ahead;
mod conformance;
mod file;
mod injector;
mod kinds;
mod merge;
#[cfg(feature = "object-store")]
mod object;
mod properties;
mod retry;
mod seekable;

use std::sync::Arc;

use upager::{PageCount, PageIndex, block_on};
use upager_linux::source::{PageBuf, PageSource, SourceError};

/// Bytes of a page.
const PAGE: usize = PageBuf::PAGE;

/// Bytes that differ from page to page and within a page.
fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bytes = vec![0; len];
    random.fill(&mut bytes);
    bytes
}

/// Whole pages with these bytes, and zeros to the end of the last.
fn buffer(bytes: &[u8]) -> PageBuf {
    let mut buffer = PageBuf::new(PageCount(bytes.len().div_ceil(PAGE) as u64));
    buffer[..bytes.len()].copy_from_slice(bytes);
    buffer
}

/// Reads pages into a buffer full of rubbish.
fn read(source: &dyn PageSource, first: u64, pages: u64) -> Result<PageBuf, SourceError> {
    let mut buffer = PageBuf::new(PageCount(pages));
    buffer.fill(0xAA);
    block_on(source.read_pages(PageIndex(first), buffer))
}

/// Writes pages.
fn write(source: &dyn PageSource, first: u64, bytes: &[u8]) -> Result<(), SourceError> {
    block_on(source.write_pages(PageIndex(first), Arc::new(buffer(bytes))))
}

/// All its bytes.
fn contents(source: &dyn PageSource) -> Vec<u8> {
    let pages = source.len().div_ceil(PAGE as u64);
    let buffer = read(source, 0, pages).unwrap();
    buffer[..usize::try_from(source.len()).unwrap()].to_vec()
}
