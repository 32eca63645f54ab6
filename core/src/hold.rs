//! A page held dirty, while it is being mapped for a writer.
//!
//! A mapped writer does not tell the pager of its stores. What the pager knows is that the page is
//! dirty as long as it is mapped for writing anywhere. Two steps keep that so, from its two sides:
//!
//! - Whoever maps a page for writing, or lifts its write-protection, *holds* it meanwhile, as a writer
//!   of bytes does. A page that is held stays dirty: BEGIN passes over it, and eviction does.
//! - BEGIN first moves the page's state, and then [protects](crate::Platform::write_protect_run) the
//!   page, before it returns ([`writeback`](crate::writeback)).
//!
//! So a mapping that was made before the state moved is protected by BEGIN, and one that is made after
//! it has taken the page back to dirty first. A store that falls between BEGIN's two steps is in the
//! page before BEGIN returns, and the service reads the page after that.
//!
//! Protecting first would not do. A mapping that was protected, and was lifted for a page that was still
//! dirty, would be missed by the step that then moves the state: nothing in the page's word tells that a
//! hold has come and gone.

use core::fmt;

use crate::platform::{Frame, Platform};
use crate::status::Result;
use crate::sync::Guard;
use crate::table::At;
use crate::units::PageIndex;
use crate::vmo::{Hold, Vmo, Writable};

/// A page that stays dirty while this lives. See [`Vmo::hold`].
#[must_use = "the page is held only as long as this lives"]
pub struct Held<'a> {
    at: At<'a>,
    frame: Frame,
    _guard: &'a Guard,
}

impl fmt::Debug for Held<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("frame", &self.frame).finish_non_exhaustive()
    }
}

impl Held<'_> {
    /// The frame of the page.
    #[must_use]
    pub const fn frame(&self) -> Frame {
        self.frame
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.at.slot().end_write(self.frame);
    }
}

impl<P: Platform> Vmo<P> {
    /// Makes a resident page dirty, and keeps it so until the answer is dropped: for whoever maps it
    /// for writing, or lifts its write-protection, to do so in between. `None`: it is not resident, or
    /// the service must be asked first; [`fault`](Self::fault) for [`Access::Write`](crate::Access::Write) waits for that.
    ///
    /// Hold it briefly: a page that is held is not written back. Its content may still be
    /// replaced, by zeros or by a change of size, and is then [unmapped](crate::Platform::unmap): look the
    /// frame up once more after mapping it, and take the mapping back if it has changed.
    ///
    /// Errors: [`NoResources`](crate::Status::NoResources): too many writers hold the page;
    /// [`NoMemory`](crate::Status::NoMemory): zeros cannot be stored.
    ///
    /// Lock-free.
    ///
    /// ```
    /// # use upager::*;
    /// # use std::sync::Arc;
    /// # let platform = Arc::new(HeapPlatform::new());
    /// # let (pager, port) = (Pager::new(platform.clone()), Port::new(platform.clone()));
    /// # let vmo = pager.create_vmo(&port, 1, VmoOptions::NONE, 4096)?;
    /// let page = ByteRange::new(0, 4096);
    /// pager.supply_frames(&vmo, page, [OwnedFrame::new(&*platform)?])?;
    /// let guard = platform.pin();
    /// let held = vmo.hold(&guard, PageIndex(0))?.expect("it is resident");
    /// pager.writeback_begin(&vmo, page, Writeback::All)?;
    /// assert_eq!(vmo.counts().awaiting, PageCount(0)); // BEGIN has passed over it
    /// drop(held);
    /// pager.writeback_begin(&vmo, page, Writeback::All)?;
    /// assert_eq!(vmo.counts().awaiting, PageCount(1));
    /// # Ok::<(), Status>(())
    /// ```
    pub fn hold<'a>(&'a self, guard: &'a Guard, page: PageIndex) -> Result<Option<Held<'a>>> {
        if page.0 >= self.inner().pages().0 {
            return Ok(None);
        }
        match self.write_access(guard, page, Hold::Copying)? {
            Writable::Dirty(at, frame) => {
                self.inner().figures.mapped_write();
                Ok(Some(Held { at, frame, _guard: guard }))
            }
            Writable::Absent | Writable::Trapped => Ok(None),
        }
    }
}
