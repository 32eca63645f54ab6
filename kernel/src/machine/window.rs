//! Windows: ranges of addresses through which tasks see a VMO.
//!
//! The entries of a window's page tables lie in one array, one a page. They are changed by atomic swaps,
//! because the processors set the accessed and dirty bits in them meanwhile.

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};

use upager::{Frame, PageIndex};
use x86_64::structures::paging::PageTableFlags;

use super::memory::{self, PAGE};
use super::tlb;

/// The second entry of the top table.
const WINDOWS: u64 = 1 << 39;
/// From one window to the next, an entry of the next table.
const APART: u64 = 1 << 30;
const IN_A_TABLE: usize = 512;

const PRESENT: u64 = PageTableFlags::PRESENT.bits();
const WRITABLE: u64 = PageTableFlags::WRITABLE.bits();
const ACCESSED: u64 = PageTableFlags::ACCESSED.bits();
const DIRTY: u64 = PageTableFlags::DIRTY.bits();

unsafe extern "C" {
    static pml4: [AtomicU64; IN_A_TABLE];
    fn window_load(address: u64, out: *mut u64) -> u32;
    fn window_store(address: u64, value: u64) -> u32;
    fn window_copy(to: *mut u64, address: u64, words: usize) -> u32;
    fn window_probe(address: u64, pattern: u64, out: *mut u64) -> u32;
}

/// Why an access to a window did not succeed, as the fault handler and the probe say it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refused {
    /// The VMO is detached.
    Detached = 1,
    /// The page has to be waited for, and the caller must not wait.
    WouldWait = 2,
    /// Another error.
    Failed = 3,
    /// The red zone was touched.
    RedZone = 100,
    /// A register was changed.
    Register = 101,
}

/// What an access to a window came to.
pub(crate) type Accessed = Result<(), Refused>;

fn accessed(code: u32) -> Accessed {
    use Refused::{Detached, Failed, RedZone, Register, WouldWait};
    match code {
        0 => Ok(()),
        code => {
            Err([Detached, WouldWait, RedZone, Register].into_iter().find(|why| *why as u32 == code).unwrap_or(Failed))
        }
    }
}

pub(crate) struct Window {
    base: u64,
    entries: &'static [AtomicU64],
}

fn link(table: &[AtomicU64], index: usize, to: &[AtomicU64]) {
    table[index].store(to.as_ptr().addr() as u64 | PRESENT | WRITABLE, Relaxed); // Relaxed: nobody uses it yet
}

/// Makes windows of `pages` pages each.
pub(crate) fn make<const N: usize>(pages: usize) -> [Window; N] {
    let middle = memory::pages(1);
    // SAFETY: boot.s's table, which is only ever accessed so.
    link(unsafe { &pml4 }, (WINDOWS / (APART * IN_A_TABLE as u64)) as usize, middle);
    core::array::from_fn(|window| {
        let directory = memory::pages(1);
        link(middle, window, directory);
        let entries = memory::pages(pages.div_ceil(IN_A_TABLE));
        for (n, table) in entries.chunks(IN_A_TABLE).enumerate() {
            link(directory, n, table);
        }
        Window { base: WINDOWS + window as u64 * APART, entries: &entries[..pages] }
    })
}

impl Window {
    /// The page of an address, if it lies in the window.
    pub(crate) fn page_of(&self, address: u64) -> Option<PageIndex> {
        let page = address.checked_sub(self.base)? / PAGE as u64;
        (page < self.entries.len() as u64).then_some(PageIndex(page))
    }

    fn address(&self, page: u64, word: u64) -> u64 {
        self.base + page * PAGE as u64 + word * 8
    }

    pub(crate) fn load(&self, page: u64, word: u64) -> Result<u64, Refused> {
        let mut value = 0;
        // SAFETY: the address lies in a window, so the fault handler deals with whatever is there.
        accessed(unsafe { window_load(self.address(page, word), &raw mut value) }).map(|()| value)
    }

    /// As [`load`](Self::load), and sees that the fault touched nothing of the interrupted code's.
    pub(crate) fn probe(&self, page: u64, word: u64, pattern: u64) -> Result<u64, Refused> {
        let mut value = 0;
        // SAFETY: as in `load`.
        accessed(unsafe { window_probe(self.address(page, word), pattern, &raw mut value) }).map(|()| value)
    }

    pub(crate) fn store(&self, page: u64, word: u64, value: u64) -> Accessed {
        // SAFETY: as in `load`. What is stored there is data of the VMO, which nobody has a reference to.
        accessed(unsafe { window_store(self.address(page, word), value) })
    }

    /// Copies a whole page out.
    pub(crate) fn copy(&self, page: u64, to: &mut [u64; PAGE / 8]) -> Accessed {
        // SAFETY: as in `load`, and the buffer has that size.
        accessed(unsafe { window_copy(to.as_mut_ptr(), self.address(page, 0), to.len()) })
    }

    /// Maps a page for reading, unless it is mapped.
    pub(crate) fn map(&self, page: PageIndex, frame: Frame) {
        let entry = (frame.number() * PAGE as u64) | PRESENT;
        // SeqCst: before the caller's second look at the page. Failing: another processor was quicker
        let _ = self.entries[page.0 as usize].compare_exchange(0, entry, SeqCst, Relaxed);
    }

    /// Maps a page for writing.
    pub(crate) fn map_writable(&self, page: PageIndex, frame: Frame) {
        let entry = (frame.number() * PAGE as u64) | PRESENT | WRITABLE;
        self.entries[page.0 as usize].swap(entry, SeqCst); // SeqCst: as in `map`
    }

    /// Removes a page, but for what the processors remember: [`tlb::shoot_down`] ends that.
    pub(crate) fn unmap(&self, page: PageIndex) {
        let was = self.entries[page.0 as usize].swap(0, SeqCst); // SeqCst: after the page's word has moved
        if was & PRESENT != 0 {
            tlb::gather(self.address(page.0, 0));
        }
    }

    /// Takes write access to pages, and the dirty bits with it, as [`unmap`](Self::unmap) does.
    pub(crate) fn protect(&self, first: PageIndex, count: u64) {
        for page in first.0..first.0 + count {
            // SeqCst: as in `unmap`
            if self.entries[page as usize].fetch_and(!(WRITABLE | DIRTY), SeqCst) & WRITABLE != 0 {
                tlb::gather(self.address(page, 0));
            }
        }
    }

    /// Calls `f` with each page that was accessed since the last call. A processor that has the translation
    /// still does not set the bit again: a page may look unused that is used, which costs a fault.
    pub(crate) fn take_accessed(&self, mut f: impl FnMut(PageIndex)) {
        for (page, entry) in self.entries.iter().enumerate() {
            // Relaxed, both: a hint
            if entry.load(Relaxed) & ACCESSED != 0 && entry.fetch_and(!ACCESSED, Relaxed) & PRESENT != 0 {
                f(PageIndex(page as u64));
            }
        }
    }

    /// Whether the page was written to since the last call, or was protected. As inexact as
    /// [`take_accessed`](Self::take_accessed).
    pub(crate) fn take_dirty(&self, page: PageIndex) -> bool {
        self.entries[page.0 as usize].fetch_and(!DIRTY, Relaxed) & DIRTY != 0 // Relaxed: a hint
    }
}
