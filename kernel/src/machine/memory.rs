//! The heap, and the frames that the pager gets.
//!
//! Frames are a stack of numbers, without a lock: an interrupt that allocates or frees may strike in the
//! middle of either. The heap has a lock, which is held with interrupts off, and never across a fault.

use alloc::boxed::Box;
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use core::sync::atomic::{AtomicU32, AtomicU64};

use linked_list_allocator::LockedHeap;
use upager::Frame;
use x86_64::instructions::interrupts::without_interrupts;

use super::{boot, cpu};

pub(crate) const PAGE: usize = 4096;
/// A freed frame is full of these.
const POISON: u64 = 0xdead_dead_dead_dead;

struct Heap {
    heap: LockedHeap,
    /// Allocations made while a page fault was handled.
    in_faults: AtomicU64,
}

#[global_allocator]
static HEAP: Heap = Heap { heap: LockedHeap::empty(), in_faults: AtomicU64::new(0) };

// SAFETY: as of the heap inside.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if cpu::set_up().is_some_and(|cpu| cpu.in_fault.get()) {
            self.in_faults.fetch_add(1, Relaxed); // Relaxed: a figure
        }
        let allocated = without_interrupts(|| self.heap.lock().allocate_first_fit(layout));
        allocated.map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        let Some(at) = NonNull::new(at) else { return };
        // SAFETY: by the contract, allocated here with this layout.
        without_interrupts(|| unsafe { self.heap.lock().deallocate(at, layout) });
    }
}

/// Gives the heap the memory behind the kernel.
pub(crate) fn init() {
    let (start, end) = boot::memory_behind_kernel();
    assert!(end > start + (48 << 20), "too little memory: {start:#x} to {end:#x}");
    // SAFETY: the loader says that it is memory, the kernel ends before it, and this is done once. A loader's
    // tables are at its end or below 1 MiB: that end is left out.
    unsafe { HEAP.heap.lock().init(ptr::with_exposed_provenance_mut(start), end - start - (1 << 20)) };
}

pub(crate) fn allocations_in_faults() -> u64 {
    HEAP.in_faults.load(Relaxed)
}

/// Pages of zeros, never given back, at an address that is theirs.
pub(crate) fn pages(count: usize) -> &'static [AtomicU64] {
    let layout = Layout::from_size_align(count * PAGE, PAGE).expect("a layout");
    // SAFETY: the layout is not of size zero.
    let memory = unsafe { alloc::alloc::alloc_zeroed(layout) };
    memory.expose_provenance();
    assert!(!memory.is_null(), "no memory for {count} pages");
    // SAFETY: allocated with this size, zeroed, and never given back.
    unsafe { core::slice::from_raw_parts(memory.cast(), count * PAGE / 8) }
}

/// The words of a frame.
pub(crate) fn words(frame: Frame) -> *mut u64 {
    ptr::with_exposed_provenance_mut(frame.number() as usize * PAGE)
}

/// Frames of the pager: consecutive ones, of which those that are free form a stack (Treiber, 1986).
pub(crate) struct Frames {
    first: u64,
    /// For each, the next on the stack, by its place from 1 on.
    next: Box<[AtomicU32]>,
    /// The first on the stack, and above it how often the stack has changed, so that a swap that has slept
    /// does not succeed.
    head: AtomicU64,
    used: AtomicU64,
}

impl Frames {
    pub(crate) fn new(count: u32) -> Self {
        let first = pages(count as usize).as_ptr().addr() / PAGE;
        let next = (0..count).map(AtomicU32::new).collect();
        Self { first: first as u64, next, head: AtomicU64::new(count.into()), used: AtomicU64::new(0) }
    }

    pub(crate) fn count(&self) -> u64 {
        self.next.len() as u64
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Relaxed) // Relaxed: a figure
    }

    /// A frame of zeros.
    pub(crate) fn take(&self) -> Option<Frame> {
        let mut head = self.head.load(Acquire); // Acquire: pairs with `give`, for the link
        loop {
            let place = (head & 0xffff_ffff).checked_sub(1)?;
            let next = self.next[place as usize].load(Relaxed); // Relaxed: if it is stale the swap fails
            let changed = ((head >> 32) + 1) << 32 | u64::from(next);
            // AcqRel: takes the frame over from who gave it
            match self.head.compare_exchange_weak(head, changed, AcqRel, Acquire) {
                Ok(_) => {
                    self.used.fetch_add(1, Relaxed); // Relaxed: a figure
                    let frame = Frame::new(self.first + place)?;
                    // SAFETY: the frame is ours alone.
                    unsafe { ptr::write_bytes(words(frame), 0, PAGE / 8) };
                    return Some(frame);
                }
                Err(now) => head = now,
            }
        }
    }

    /// Takes a frame back that nobody uses.
    pub(crate) fn give(&self, frame: Frame) {
        let place = frame.number() - self.first;
        // SAFETY: nobody uses the frame, by the caller's word. Who does nevertheless finds this.
        unsafe { core::slice::from_raw_parts_mut(words(frame), PAGE / 8) }.fill(POISON);
        let mut head = self.head.load(Relaxed); // Relaxed: only its bits are used
        loop {
            self.next[place as usize].store(head as u32, Relaxed); // Relaxed: the swap publishes it
            let changed = ((head >> 32) + 1) << 32 | (place + 1);
            // AcqRel: hands frame and link to `take`
            match self.head.compare_exchange_weak(head, changed, AcqRel, Relaxed) {
                Ok(_) => break,
                Err(now) => head = now,
            }
        }
        self.used.fetch_sub(1, Relaxed); // Relaxed: a figure
    }
}
