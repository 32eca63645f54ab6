//! Where bytes lie outside the VMO: FILE, and pages laid over it.

mod file;
mod overlay;

pub(crate) use file::SourceFile;
pub(crate) use overlay::Overlay;

/// The size of a page, where a `usize` is needed.
pub(crate) const PAGE: usize = upager::PAGE_SIZE as usize;
