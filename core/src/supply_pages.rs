//! Supply of pages out of an anonymous VMO: frames move from page to page, and no byte is copied.
//!
//! Each page leaves the one VMO before it comes into the other, so no two pages ever have one frame. Who
//! looks in between finds it in neither, as with a frame that a service holds in its hand; and a thread that
//! is stopped in between holds up that page alone, which is waiting for its service anyway.
//!
//! What makes it safe that the aux is read and written meanwhile is told in
//! [`anonymous`](crate::anonymous).

use crate::anonymous::{AnonymousVmo, Taken};
use crate::freeing::Freeing;
use crate::pager::Pager;
use crate::platform::{Frame, OwnedFrame, Platform};
use crate::status::{Result, Status};
use crate::supply::{Arrivals, Came, look_again, move_in};
use crate::units::{ByteOffset, ByteRange, PAGE_SIZE, PageIndex, PageRange};
use crate::vmo::{Inner, Vmo};

impl<P: Platform> Pager<P> {
    /// Gives the VMO the pages of `range` by moving them out of `aux`, from `aux_offset` on
    /// (`zx_pager_supply_pages()`). Pages that it has already stay as they are. Pages that are not committed
    /// in `aux` supply zeros: a frame of zeros each, where the VMO has no page.
    ///
    /// Afterwards the range of `aux` is not committed any more, whatever the VMO took, and also if the call
    /// failed after its checks.
    ///
    /// Requests resolve as their last missing page arrives. Pages that nobody asked for are
    /// welcome too.
    ///
    /// Errors, of checks, after which nothing has changed: [`InvalidArgs`](Status::InvalidArgs): the VMO is
    /// not this pager's, `aux` is not on the pager's platform, or the range or `aux_offset` is not aligned to
    /// pages; [`OutOfRange`](Status::OutOfRange): the range does not lie inside the VMO, or not inside `aux`;
    /// [`BadState`](Status::BadState): the VMO is detached, or a page of `aux` is
    /// [pinned](AnonymousVmo::pin) or being written.
    ///
    /// After the checks: [`NoMemory`](Status::NoMemory): a frame of zeros or a table node could not be made;
    /// [`BadState`](Status::BadState): somebody took hold of a page of `aux` after the check. The pages
    /// before are supplied then. A page that is held stays in `aux` as it is.
    ///
    /// Two calls at once for one page of `aux`: one gets its content, the other zeros. If both are for the
    /// same page of the VMO, either may come first.
    ///
    /// A supply that began before a detach may still succeed; the pages are gone then, as all
    /// clean pages are.
    ///
    /// Lock-free. Four atomic read-modify-writes a page, one step a request, one wake a waiter.
    ///
    /// ```
    /// # use upager::*;
    /// # use std::sync::Arc;
    /// # let platform = Arc::new(HeapPlatform::new());
    /// # let (pager, port) = (Pager::new(platform.clone()), Port::new(platform.clone()));
    /// # let vmo = pager.create_vmo(&port, 1, VmoOptions::NONE, 8192)?;
    /// let aux = AnonymousVmo::new(platform.clone(), 8192)?;
    /// aux.write(ByteOffset(0), b"from a file")?;
    /// pager.supply_pages(&vmo, ByteRange::new(0, 8192), &aux, ByteOffset(0))?;
    ///
    /// let mut text = [0; 11];
    /// block_on(vmo.read(ByteOffset(0), &mut text))?;
    /// assert_eq!(&text, b"from a file");
    /// assert_eq!(aux.committed(), PageCount(0)); // the page has moved
    /// # Ok::<(), Status>(())
    /// ```
    pub fn supply_pages(
        &self,
        vmo: &Vmo<P>,
        range: ByteRange,
        aux: &AnonymousVmo<P>,
        aux_offset: ByteOffset,
    ) -> Result<()> {
        self.owns(vmo)?;
        let inner = vmo.inner();
        if !aux.is_on(&inner.platform) || !aux_offset.0.is_multiple_of(PAGE_SIZE) {
            return Err(Status::InvalidArgs);
        }
        let pages = range.pages_exact(inner.pages())?;
        let from = ByteRange::new(aux_offset.0, range.length).pages_exact(aux.pages())?;
        if inner.source.is_detached() || aux.has_held(from) {
            return Err(Status::BadState);
        }
        let mut freeing = Freeing::new(&inner.platform);
        let mut rest = from;
        let supplied = supply(inner, pages, aux, &mut rest, &mut freeing);
        let _: Result<()> = aux.drop_pages(rest, &mut freeing); // failing: what is held stays
        look_again(inner, pages);
        supplied
    }
}

/// `rest` becomes what of the aux was not come to.
fn supply<P: Platform>(
    vmo: &Inner<P>,
    pages: PageRange,
    aux: &AnonymousVmo<P>,
    rest: &mut PageRange,
    freeing: &mut Freeing<'_, P>,
) -> Result<()> {
    let mut arrivals = Arrivals::new(vmo);
    for page in pages.start..pages.end {
        let (page, from) = (PageIndex(page), PageIndex(rest.start));
        rest.start += 1;
        match aux.take(from) {
            Taken::Frame(frame) => {
                let came = move_in(vmo, page, &mut arrivals, || Ok(frame));
                if came != Ok(Came::In) {
                    freeing.push(frame); // not at once: readers of the aux may be in it
                }
                came?;
            }
            Taken::Zeros => {
                let mut zeros: Option<OwnedFrame<'_, P>> = None;
                let came = move_in(vmo, page, &mut arrivals, || match &zeros {
                    Some(frame) => Ok(frame.frame()),
                    None => Ok(zeros.insert(OwnedFrame::new(&*vmo.platform)?).frame()),
                })?;
                if came == Came::In {
                    let _: Option<Frame> = zeros.map(OwnedFrame::into_frame); // the slot owns it now
                }
            }
            Taken::Held => return Err(Status::BadState),
        }
    }
    Ok(())
}
