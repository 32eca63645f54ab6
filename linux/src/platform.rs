//! The platform: what the pager asks of Linux.
//!
//! Frames are in [`frames`](crate::frames); where the pages of a VMO that is mapped have their place is in
//! [`space`](crate::space).

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use upager::{Frame, Guard, OwnedFrame, PageCount, PageIndex, Platform, Status, Vmo, VmoId};

use crate::bytes::PAGE;
use crate::error::Result;
use crate::frames::{Frames, Seen};
use crate::runs;
use crate::space::Space;

/// Frames in memory of this process, and VMOs that can be [mapped](crate::Mapper::map).
///
/// As long as nobody maps a VMO it is like [`HeapPlatform`](upager::HeapPlatform). A page that is mapped moves to its
/// place in a memfd of its VMO, once.
///
/// ```
/// use std::sync::Arc;
/// use upager::*;
/// use upager_linux::LinuxPlatform;
///
/// let platform = Arc::new(LinuxPlatform::new().with_limit(PageCount(1)));
/// let frame = OwnedFrame::new(&*platform)?;
/// assert!(OwnedFrame::new(&*platform).is_err());
/// assert_eq!(platform.counts().frames, PageCount(1));
/// # drop(frame);
/// # Ok::<(), Status>(())
/// ```
pub struct LinuxPlatform {
    frames: Arc<Frames>,
    /// The places of VMOs that were ever mapped, by what the pager calls the VMO.
    spaces: ArcSwap<HashMap<VmoId, Weak<Space>>>,
    /// The most pages that are read ahead in one window: where memory is short, more would be evicted before they are used.
    most_ahead: AtomicU64,
}

/// Figures of a [`LinuxPlatform`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct PlatformCounts {
    /// Frames that are allocated, those included that wait for a grace period.
    pub frames: PageCount,
    /// Those of them that are at their place in a memfd.
    pub at_home: PageCount,
}

/// Frames that are to be supplied.
pub(crate) struct Filled<'p> {
    pub(crate) frames: Vec<OwnedFrame<'p, LinuxPlatform>>,
    /// To be dropped after the frames are supplied, or dropped.
    pub(crate) arrivals: Arrivals<'p>,
}

/// The end of frames' arriving.
pub(crate) struct Arrivals<'p> {
    frames: &'p Frames,
    arrived: Vec<(Frame, Seen)>,
}

impl Drop for Arrivals<'_> {
    fn drop(&mut self) {
        for (frame, seen) in &self.arrived {
            self.frames.settle(*frame, *seen);
        }
    }
}

impl Default for LinuxPlatform {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for LinuxPlatform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinuxPlatform").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

impl LinuxPlatform {
    /// Without a limit.
    #[must_use]
    pub fn new() -> Self {
        Self { frames: Arc::new(Frames::new(None)), spaces: ArcSwap::default(), most_ahead: AtomicU64::new(u64::MAX) }
    }

    /// Lets at most `limit` frames be allocated at a time.
    #[must_use]
    pub fn with_limit(self, limit: PageCount) -> Self {
        let limit = usize::try_from(limit.0).unwrap_or(usize::MAX);
        Self { frames: Arc::new(Frames::new(Some(limit))), ..self }
    }

    /// How many frames there are.
    #[must_use]
    pub fn counts(&self) -> PlatformCounts {
        let (frames, at_home) = self.frames.counts();
        PlatformCounts { frames: PageCount(frames as u64), at_home: PageCount(at_home as u64) }
    }

    pub(crate) fn most_ahead(&self) -> PageCount {
        PageCount(self.most_ahead.load(Relaxed)) // Relaxed: a hint, about nothing but itself
    }

    pub(crate) fn set_most_ahead(&self, pages: PageCount) {
        self.most_ahead.store(pages.0, Relaxed); // Relaxed: as above
    }

    pub(crate) const fn frames(&self) -> &Arc<Frames> {
        &self.frames
    }

    pub(crate) fn find(&self, vmo: VmoId) -> Option<Arc<Space>> {
        self.spaces.load().get(&vmo)?.upgrade()
    }

    /// Frames with these bytes, for pages of a VMO from `first` on. Where the VMO is mapped they are at their places at once.
    /// None: there is no memory.
    pub(crate) fn fill(&self, vmo: &Arc<Vmo<Self>>, first: PageIndex, bytes: &[u8]) -> Option<Filled<'_>> {
        let mut arrived = Vec::new();
        let space = self.find(vmo.id()).filter(|space| space.is_of(vmo) && space.is_mapped());
        let mut frames = Vec::with_capacity(bytes.len() / PAGE);
        let mut supplied = 0;
        while frames.len() * PAGE < bytes.len() {
            if let Some(space) = &space {
                let rest = &bytes[frames.len() * PAGE..];
                space.arrive(&self.frames, PageIndex(first.0 + frames.len() as u64), rest, &mut arrived);
                // SAFETY: of this platform, and nobody else's; each once.
                frames.extend(arrived[supplied..].iter().map(|(frame, _)| unsafe { OwnedFrame::of(self, *frame) }));
                supplied = arrived.len();
            }
            // A page whose place is not free goes by the stage.
            if let Some(page) = bytes.chunks_exact(PAGE).nth(frames.len()) {
                let frame = OwnedFrame::new(self).ok()?;
                frame.write(0, page).ok()?;
                frames.push(frame);
            }
        }
        Some(Filled { frames, arrivals: Arrivals { frames: &self.frames, arrived } })
    }

    /// The space of a VMO, made if there is none.
    pub(crate) fn space(&self, vmo: &Arc<Vmo<Self>>) -> Result<Arc<Space>> {
        let mut made = None;
        loop {
            let spaces = self.spaces.load();
            // One of another VMO, which had the same id once, lives until its last frame is freed.
            if let Some(space) = spaces.get(&vmo.id()).and_then(Weak::upgrade).filter(|space| space.is_of(vmo)) {
                return Ok(space);
            }
            let fresh = match &made {
                Some(fresh) => fresh,
                None => made.insert(Space::new(vmo)?),
            };
            let mut with: HashMap<_, _> = spaces
                .iter()
                .filter(|(_, space)| space.strong_count() > 0)
                .map(|(id, space)| (*id, space.clone()))
                .collect();
            with.insert(vmo.id(), Arc::downgrade(fresh));
            let before = self.spaces.compare_and_swap(&spaces, Arc::new(with));
            if Arc::ptr_eq(&before, &spaces) {
                return Ok(fresh.clone());
            }
        }
    }
}

impl Platform for LinuxPlatform {
    fn pin(&self) -> Guard {
        crossbeam_epoch::pin()
    }

    fn allocate(&self) -> Result<Frame, Status> {
        self.frames.allocate()
    }

    unsafe fn free(&self, frame: Frame) {
        // SAFETY: the caller's promise.
        unsafe { self.frames.free(frame) };
    }

    fn freed(&self) {
        runs::emptied();
    }

    unsafe fn copy_out(&self, frame: Frame, offset: usize, to: &mut [u8]) {
        // SAFETY: the caller's promise.
        unsafe { self.frames.copy_out(frame, offset, to) };
    }

    unsafe fn copy_in(&self, frame: Frame, offset: usize, from: &[u8]) {
        // SAFETY: the caller's promise.
        unsafe { self.frames.copy_in(frame, offset, from) };
    }

    fn unmap(&self, vmo: VmoId, page: PageIndex) {
        runs::unmap(self, vmo, page);
    }

    fn unmapped(&self) {
        runs::unmapped();
    }

    fn write_protect(&self, vmo: VmoId, page: PageIndex) {
        self.write_protect_run(vmo, page, PageCount(1));
    }

    fn write_protect_run(&self, vmo: VmoId, first: PageIndex, count: PageCount) {
        if let Some(space) = self.find(vmo) {
            space.write_protect(first, count);
        }
    }
}
