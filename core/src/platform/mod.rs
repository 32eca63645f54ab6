//! What an embedder provides: frames, copies, mappings and the epoch's pin. Nothing else.

#[cfg(feature = "std")]
mod heap;

#[cfg(feature = "std")]
pub use heap::HeapPlatform;

use crate::status::{Result, Status};
use crate::sync::Guard;
use crate::units::{PAGE_SIZE, PageCount, PageIndex};

/// A page of memory, by number. 40 bits, so that page-sized frames reach 2^52 bytes; what the
/// number means is the platform's affair (a physical page number, an offset in a file, ...).
///
/// ```
/// use upager::Frame;
/// assert_eq!(Frame::new(7).map(Frame::number), Some(7));
/// assert_eq!(Frame::new(1 << 40), None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Frame(u64);

impl Frame {
    /// The frame with this number, if it is below 2^40.
    #[must_use]
    pub const fn new(number: u64) -> Option<Self> {
        if number < 1 << 40 { Some(Self(number)) } else { None }
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub(crate) const fn to_bits(self) -> u64 {
        self.0
    }
}

/// A VMO as the platform is told of it: the same for one VMO's life, different from every other's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct VmoId(pub(crate) usize);

/// The embedder's side.
///
/// All calls may come from any thread, at once, and from inside [`pin`](Self::pin)ned sections.
/// None may block on the progress of another thread that uses the pager: the pager's own
/// guarantees are only as good as these calls.
///
/// Programs with `std` have [`HeapPlatform`]. A kernel implements the trait over its page
/// allocator and keeps one `LocalHandle` of one `Collector` for each processor.
pub trait Platform: Send + Sync + 'static {
    /// Pins the calling thread: frames retired from now on stay until the guard is dropped.
    ///
    /// With `std` this is `crossbeam_epoch::pin()`. A kernel pins the `LocalHandle` of the
    /// processor, and must not let an interrupt that faults use the same handle.
    fn pin(&self) -> Guard;

    /// A frame of zeros.
    ///
    /// # Errors
    /// [`NoMemory`](Status::NoMemory).
    fn allocate(&self) -> Result<Frame>;

    /// Takes a frame back.
    ///
    /// It may leave the last step, that the memory is there for others, to [`freed`](Self::freed).
    ///
    /// # Safety
    /// The frame came from [`allocate`](Self::allocate) of this platform, has not been freed
    /// since, and nobody uses it any more.
    unsafe fn free(&self, frame: Frame);

    /// Comes after a run of calls of [`free`](Self::free), from the same thread: for a platform that gives pages back
    /// together at less cost. A platform whose `free` leaves nothing over has nothing to do.
    fn freed(&self) {}

    /// Copies bytes of the frame, from byte `offset` on. Writers may be at work in the same bytes:
    /// the copy may mix old and new then, and must not do worse.
    ///
    /// # Safety
    /// The frame is allocated, and `offset + to.len()` is at most [`PAGE_SIZE`].
    unsafe fn copy_out(&self, frame: Frame, offset: usize, to: &mut [u8]);

    /// Copies bytes into the frame, from byte `offset` on. Readers and writers may be at work in
    /// the same bytes.
    ///
    /// # Safety
    /// As for [`copy_out`](Self::copy_out).
    unsafe fn copy_in(&self, frame: Frame, offset: usize, from: &[u8]);

    /// Removes the page from every mapping. Called when its eviction begins; the frame is freed
    /// after a grace period. A platform that maps nothing has nothing to do.
    ///
    /// It may leave the last step, that no processor goes through the mapping any more, to
    /// [`unmapped`](Self::unmapped).
    fn unmap(&self, vmo: VmoId, page: PageIndex) {
        let _ = (vmo, page);
    }

    /// Comes after a run of calls of [`unmap`](Self::unmap), from the same thread. When it returns, nobody goes
    /// through a mapping that they removed. The frames are still there, and the pages have no other content
    /// yet. A platform whose `unmap` leaves nothing over has nothing to do.
    fn unmapped(&self) {}

    /// Takes write access to the page from every mapping. When it returns, no store goes through that
    /// did not fault after. Called before the beginning of a writeback returns; a page may be named that
    /// is protected already. A platform that maps nothing has nothing to do.
    fn write_protect(&self, vmo: VmoId, page: PageIndex) {
        let _ = (vmo, page);
    }

    /// As [`write_protect`](Self::write_protect), of `count` pages from `first` on: for a platform that
    /// can do them in one step.
    fn write_protect_run(&self, vmo: VmoId, first: PageIndex, count: PageCount) {
        for page in first.0..first.0 + count.0 {
            self.write_protect(vmo, PageIndex(page));
        }
    }
}

/// A frame on its way to [`Pager::supply_frames`](crate::Pager::supply_frames): filled by the
/// service, freed if it never gets there.
///
/// ```
/// use upager::{HeapPlatform, OwnedFrame, Status};
/// let platform = HeapPlatform::new();
/// let frame = OwnedFrame::new(&platform)?;
/// frame.write(4092, b"tail")?;
/// assert_eq!(frame.write(4093, b"tail"), Err(Status::OutOfRange));
/// # Ok::<(), Status>(())
/// ```
#[derive(Debug)]
pub struct OwnedFrame<'p, P: Platform> {
    platform: &'p P,
    frame: Frame,
}

impl<'p, P: Platform> OwnedFrame<'p, P> {
    /// A frame of zeros.
    ///
    /// # Errors
    /// [`NoMemory`](Status::NoMemory), from the platform.
    pub fn new(platform: &'p P) -> Result<Self> {
        Ok(Self { platform, frame: platform.allocate()? })
    }

    /// A frame that was filled by other means than [`write`](Self::write).
    ///
    /// # Safety
    /// The frame came from this platform, and the caller owns it, and passes it on by this.
    pub const unsafe fn of(platform: &'p P, frame: Frame) -> Self {
        Self { platform, frame }
    }

    /// Copies `bytes` in, from byte `offset` of the frame on.
    ///
    /// # Errors
    /// [`OutOfRange`](Status::OutOfRange): they do not fit. Nothing is written then.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        match offset.checked_add(bytes.len()) {
            Some(end) if end as u64 <= PAGE_SIZE => {}
            _ => return Err(Status::OutOfRange),
        }
        // SAFETY: the frame is ours and allocated; the bounds were checked above.
        unsafe { self.platform.copy_in(self.frame, offset, bytes) };
        Ok(())
    }

    /// The frame, still owned by `self`.
    #[must_use]
    pub const fn frame(&self) -> Frame {
        self.frame
    }

    pub(crate) fn belongs_to(&self, platform: &P) -> bool {
        core::ptr::eq(self.platform, platform)
    }

    /// Passes the ownership on.
    pub(crate) fn into_frame(self) -> Frame {
        let frame = self.frame;
        core::mem::forget(self);
        frame
    }
}

impl<P: Platform> Drop for OwnedFrame<'_, P> {
    fn drop(&mut self) {
        // SAFETY: allocated by this platform, owned by `self`, and not passed on.
        unsafe { self.platform.free(self.frame) };
        self.platform.freed();
    }
}
