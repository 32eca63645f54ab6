//! The pager's platform: frames by their physical number, mapped where the kernel is (memory is mapped to
//! itself), and the windows.

use alloc::sync::Arc;
use core::ptr;
use core::sync::atomic::Ordering::SeqCst;
use core::sync::atomic::fence;

use once_cell::race::OnceBox;
use upager::{Frame, Guard, PageCount, PageIndex, Platform, Result, Status, Vmo, VmoId};

use crate::machine::cpu::cpu;
use crate::machine::memory::{self, Frames};
use crate::machine::tlb;
use crate::machine::window::{self, Window};

pub(crate) struct Board<const WINDOWS: usize> {
    pub(crate) frames: Frames,
    pub(crate) windows: [Window; WINDOWS],
    /// Whose windows they are.
    ids: OnceBox<[VmoId; WINDOWS]>,
}

impl<const WINDOWS: usize> Board<WINDOWS> {
    pub(crate) fn new(frames: u32, pages: usize) -> Arc<Self> {
        let windows = window::make(pages);
        Arc::new(Self { frames: Frames::new(frames), windows, ids: OnceBox::new() })
    }

    /// Has each VMO seen through the window of its place. Before that they have no pages.
    pub(crate) fn open(&self, vmos: [&Vmo<Self>; WINDOWS]) {
        let _ = self.ids.set(vmos.map(Vmo::id).into());
    }

    fn window(&self, vmo: VmoId) -> Option<&Window> {
        let place = self.ids.get()?.iter().position(|id| *id == vmo)?;
        Some(&self.windows[place])
    }
}

impl<const WINDOWS: usize> Platform for Board<WINDOWS> {
    #[inline]
    fn pin(&self) -> Guard {
        cpu().pin()
    }

    fn allocate(&self) -> Result<Frame> {
        self.frames.take().ok_or(Status::NoMemory)
    }

    unsafe fn free(&self, frame: Frame) {
        self.frames.give(frame);
    }

    unsafe fn copy_out(&self, frame: Frame, offset: usize, to: &mut [u8]) {
        // SAFETY: within the frame, by the contract. Stores of mapped writers may come in between; the copy is
        // trap.s's memcpy, of which the compiler knows nothing, and copies aligned words whole.
        unsafe { ptr::copy_nonoverlapping(memory::words(frame).cast::<u8>().add(offset), to.as_mut_ptr(), to.len()) };
    }

    unsafe fn copy_in(&self, frame: Frame, offset: usize, from: &[u8]) {
        // SAFETY: as in `copy_out`.
        unsafe { ptr::copy_nonoverlapping(from.as_ptr(), memory::words(frame).cast::<u8>().add(offset), from.len()) };
    }

    fn unmap(&self, vmo: VmoId, page: PageIndex) {
        // Pairs with the swap in `Window::map` and the look that follows it: either that sees that the page
        // has moved, or we see the mapping.
        fence(SeqCst);
        if let Some(window) = self.window(vmo) {
            window.unmap(page);
        }
    }

    fn unmapped(&self) {
        tlb::shoot_down();
    }

    fn write_protect(&self, vmo: VmoId, page: PageIndex) {
        self.write_protect_run(vmo, page, PageCount(1));
    }

    fn write_protect_run(&self, vmo: VmoId, first: PageIndex, count: PageCount) {
        fence(SeqCst); // as in `unmap`
        if let Some(window) = self.window(vmo) {
            window.protect(first, count.0);
            tlb::shoot_down();
        }
    }
}
