//! Access to pages that may not be there: fault, read, write.
//!
//! # The path of one fault
//!
//! 1. [`Fault::poll`] looks at the page. Resident: done.
//! 2. Otherwise it joins the request in flight for the page, or opens one: an entry of the
//!    source's pool, which the page's word then names, and which the queue takes.
//! 3. The port hands it to the service; the service supplies; with the last of its pages the
//!    request is sealed, and its waiters are woken, each once.
//! 4. The woken fault looks at the page again, from 1: it may have been evicted meanwhile. It has
//!    had the page marked as accessed for it, so the evictor's hand passes it once.
//!
//! A write goes the same way once more where dirtying is trapped and the page is not dirty: it asks
//! DIRTY, and the service's answer is in [`trap`](crate::trap).
//!
//! Dropping the future is how a thread that is killed or runs out of time leaves. The last one
//! to leave withdraws the request.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

use crate::platform::Platform;
use crate::request::{Kind, Outcome, Wait};
use crate::source::Asked;
use crate::status::{Result, Status};
use crate::units::{ByteOffset, ByteRange, PageCount, PageIndex};
use crate::vmo::{Access, Hold, Readable, Vmo, Writable};

/// Waits until a page can be accessed. See [`Vmo::fault`].
#[must_use = "a fault does nothing until it is polled"]
pub struct Fault<'v, P: Platform> {
    vmo: &'v Vmo<P>,
    page: PageIndex,
    /// How many pages from `page` on a request for it may cover.
    run: PageCount,
    wants: Wants,
    wait: Option<Wait<'v>>,
}

/// What an access wants of the page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wants {
    /// Bytes: zeros need not be stored.
    Bytes,
    /// A frame to map.
    Frame,
    /// A frame that is dirty.
    Dirty,
}

impl<P: Platform> fmt::Debug for Fault<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fault")
            .field("page", &self.page)
            .field("wants", &self.wants)
            .field("waiting", &self.wait.is_some())
            .finish_non_exhaustive()
    }
}

impl<P: Platform> Vmo<P> {
    /// Brings a page in, and makes it dirty for [`Access::Write`], with the service's leave where the
    /// VMO traps dirtying.
    ///
    /// Ready with `Ok` says that the page was there at that moment; it may be evicted in the next.
    /// To use its frame, pin and [`lookup`](Self::lookup), and fault again if it has gone. To map it for
    /// writing, [`hold`](Self::hold) it besides.
    ///
    /// Zeros that are not stored are stored, so that there is a frame to map.
    ///
    /// Units: the page. Errors: [`OutOfRange`](Status::OutOfRange) past the end;
    /// [`BadState`](Status::BadState) when the pager is needed and detached or closed;
    /// [`NoMemory`](Status::NoMemory) and [`NoResources`](Status::NoResources) when no request can
    /// be made; and what the service failed the request with.
    ///
    /// Polling is lock-free. Resident: no store but the mark of access. Missing: claims one entry
    /// of a pool, swaps the page's word, appends, and wakes a service thread if one sleeps.
    ///
    /// ```
    /// # use upager::*;
    /// # use std::sync::Arc;
    /// # let platform = Arc::new(HeapPlatform::new());
    /// # let (pager, port) = (Pager::new(platform.clone()), Port::new(platform.clone()));
    /// # let vmo = pager.create_vmo(&port, 1, VmoOptions::NONE, 4096)?;
    /// # pager.supply_frames(&vmo, ByteRange::new(0, 4096), [OwnedFrame::new(&*platform)?])?;
    /// upager::block_on(vmo.fault(PageIndex(0), Access::Write))?;
    /// assert_eq!(vmo.counts().dirty, PageCount(1));
    /// # Ok::<(), Status>(())
    /// ```
    pub fn fault(&self, page: PageIndex, access: Access) -> Fault<'_, P> {
        self.fault_run(page, PageCount(1), access)
    }

    /// As [`fault`](Self::fault), for an access that goes on: a request for the page covers the
    /// absent pages after it too, up to `run` in all. Only the first page is waited for by
    /// the access; the request as a whole is what wakes it.
    pub fn fault_run(&self, page: PageIndex, run: PageCount, access: Access) -> Fault<'_, P> {
        let wants = match access {
            Access::Read => Wants::Frame,
            Access::Write => Wants::Dirty,
        };
        self.wait_for(page, run, wants)
    }

    const fn wait_for(&self, page: PageIndex, run: PageCount, wants: Wants) -> Fault<'_, P> {
        Fault { vmo: self, page, run, wants, wait: None }
    }

    /// Reads `to.len()` bytes from `offset` on, page by page; what is absent is requested in as
    /// few requests as it takes.
    ///
    /// Errors: those of [`fault`](Self::fault). A failed read has filled a prefix of `to`.
    ///
    /// Cost: one pin and one copy a run of resident pages.
    pub async fn read(&self, offset: ByteOffset, to: &mut [u8]) -> Result<()> {
        self.check(offset, to.len())?;
        let mut done = 0;
        loop {
            done += self.read_resident(ByteOffset(offset.0 + done as u64), &mut to[done..]);
            if done == to.len() {
                return Ok(());
            }
            let (page, run) = pages_left(offset, to.len(), done);
            self.wait_for(page, run, Wants::Bytes).await?;
        }
    }

    /// Writes the bytes of `from` at `offset` on, page by page. The pages become dirty.
    ///
    /// Errors: those of [`fault`](Self::fault). A failed write has written a prefix of `from`.
    ///
    /// Cost: two atomic additions and one copy a resident page.
    pub async fn write(&self, offset: ByteOffset, from: &[u8]) -> Result<()> {
        self.check(offset, from.len())?;
        let mut done = 0;
        loop {
            done += self.write_resident(ByteOffset(offset.0 + done as u64), &from[done..])?;
            if done == from.len() {
                return Ok(());
            }
            let (page, run) = pages_left(offset, from.len(), done);
            // Brings it in only, where nobody must be asked: the write itself makes it dirty, and holds
            // it while it copies.
            let wants = if self.inner().traps { Wants::Dirty } else { Wants::Bytes };
            self.wait_for(page, run, wants).await?;
        }
    }

    fn check(&self, offset: ByteOffset, len: usize) -> Result<()> {
        ByteRange::new(offset.0, len as u64).pages_touched(self.inner().pages()).map(drop)
    }

    /// Copies out of resident pages until one is not resident. Returns how many bytes.
    fn read_resident(&self, offset: ByteOffset, to: &mut [u8]) -> usize {
        let inner = self.inner();
        let _guard = inner.platform.pin();
        let mut done = 0;
        while done < to.len() {
            let at = ByteOffset(offset.0 + done as u64);
            let (within, n) = at.part_of_page(to.len() - done);
            let part = &mut to[done..done + n];
            match self.read_access(at.page()) {
                // SAFETY: the guard, from before the lookup, keeps the frame allocated; the part lies
                // within the page.
                Readable::Frame(frame) => unsafe { inner.platform.copy_out(frame, within, part) },
                Readable::Zeros => part.fill(0),
                Readable::Absent => break,
            }
            done += n;
        }
        done
    }

    /// Copies into resident pages until one is not resident. Returns how many bytes.
    fn write_resident(&self, offset: ByteOffset, from: &[u8]) -> Result<usize> {
        let mut done = 0;
        let stopped = self.copy_to_resident(offset, from, &mut done);
        if done > 0 {
            self.inner().figures.written(); // after the bytes, and also if a later page refused
        }
        stopped.map(|()| done)
    }

    #[inline]
    fn copy_to_resident(&self, offset: ByteOffset, from: &[u8], done: &mut usize) -> Result<()> {
        let inner = self.inner();
        // So that a page whose content is replaced while we copy keeps its frame for us.
        let guard = inner.platform.pin();
        while *done < from.len() {
            let at = ByteOffset(offset.0 + *done as u64);
            let (within, n) = at.part_of_page(from.len() - *done);
            let Writable::Dirty(place, frame) = self.write_access(&guard, at.page(), Hold::Copying)? else { break };
            // SAFETY: the page is dirty and held, so its frame is not evicted; if it is replaced, the
            // guard, from before the page was found, keeps it allocated; the part lies within the page.
            unsafe { inner.platform.copy_in(frame, within, &from[*done..*done + n]) };
            place.slot().end_write(frame);
            *done += n;
        }
        Ok(())
    }
}

/// The page that an access of `len` bytes at `offset` has come to after `done`, and how many pages
/// it still wants from there on.
fn pages_left(offset: ByteOffset, len: usize, done: usize) -> (PageIndex, PageCount) {
    let page = ByteOffset(offset.0 + done as u64).page();
    let last = ByteOffset(offset.0 + len as u64 - 1).page();
    (page, PageCount(last.0 - page.0 + 1))
}

impl<P: Platform> Fault<'_, P> {
    /// What the pager has to be asked for, if the page does not lie past the end. `None`: nothing, the
    /// page is here.
    #[inline]
    fn lacks(&self) -> Result<Option<Kind>> {
        Ok(match self.wants {
            Wants::Bytes | Wants::Frame => match self.vmo.read_access(self.page) {
                Readable::Frame(_) => None,
                Readable::Absent => Some(Kind::Read),
                Readable::Zeros if self.wants == Wants::Bytes => None,
                Readable::Zeros => self.vmo.inner().store_page(self.page)?.then_some(Kind::Read),
            },
            Wants::Dirty => {
                let lacks = if self.vmo.is_dirty(self.page) {
                    None
                } else {
                    match self.vmo.write_access(&self.vmo.inner().platform.pin(), self.page, Hold::Mapped)? {
                        Writable::Dirty(..) => None,
                        Writable::Absent => Some(Kind::Read),
                        Writable::Trapped => Some(Kind::Dirty),
                    }
                };
                if lacks.is_none() {
                    self.vmo.inner().figures.mapped_write();
                }
                lacks
            }
        })
    }

    /// The outcome of the request that is waited for, when there is one.
    #[inline]
    fn outcome(&mut self, cx: &Context<'_>) -> Option<Outcome> {
        let wait = self.wait.as_ref()?;
        let mut outcome = wait.outcome();
        if outcome.is_none() && !wait.rearm(cx.waker()) {
            outcome = wait.outcome(); // woken in between: the outcome is there
        }
        let outcome = outcome?;
        self.leave();
        Some(outcome)
    }

    fn leave(&mut self) {
        if let Some(wait) = self.wait.take() {
            self.vmo.inner().source.leave(&self.vmo.inner().table, wait);
        }
    }
}

impl<P: Platform> Future for Fault<'_, P> {
    type Output = Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            if this.wait.is_some() {
                match this.outcome(cx) {
                    None => return Poll::Pending,
                    Some(Outcome::Failed(status)) => return Poll::Ready(Err(status)),
                    Some(Outcome::Supplied | Outcome::Granted | Outcome::Withdrawn) => {}
                }
            }
            let kind = match this.lacks() {
                Ok(Some(kind)) => kind,
                Ok(None) => return Poll::Ready(Ok(())),
                Err(status) => return Poll::Ready(Err(status)),
            };
            let inner = this.vmo.inner();
            // In each turn anew: the VMO may have shrunk.
            let pages = inner.pages();
            if this.page.0 >= pages.0 {
                return Poll::Ready(Err(Status::OutOfRange));
            }
            let run = this.run.0.min(pages.0 - this.page.0);
            match inner.source.ask(inner, kind, this.page, run, cx.waker()) {
                Ok(Asked::Asleep(wait)) => {
                    this.wait = Some(wait);
                    return Poll::Pending;
                }
                Ok(Asked::Resolved(wait)) => this.wait = Some(wait),
                Ok(Asked::Moved) => {}
                Err(status) => return Poll::Ready(Err(status)),
            }
        }
    }
}

impl<P: Platform> Drop for Fault<'_, P> {
    #[inline]
    fn drop(&mut self) {
        // Asked here, so that one that has nothing to leave carries none of it.
        if self.wait.is_some() {
            self.leave();
        }
    }
}
