//! How much memory the pager's own tables take. This file has an allocator of its own, which counts.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use upager::{Access, ByteOffset, DirtyRange, PAGE_SIZE, PageIndex, VmoOptions};
use upager_tests::{Task, World, at};

thread_local! {
    /// Bytes that this thread has allocated and not freed, but for frames.
    static HELD: Cell<isize> = const { Cell::new(0) };
}

/// The alignment of a frame, and of nothing else.
const PAGE: usize = 4096;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Frames are the content, not the tables.
fn count(layout: Layout, sign: isize) {
    if layout.align() != PAGE {
        HELD.set(HELD.get() + sign * layout.size().cast_signed());
    }
}

// SAFETY: all of it is the system's allocator's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout, 1);
        // SAFETY: the caller's promise is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(layout, -1);
        // SAFETY: as above; what we hand out is the system's.
        unsafe { System.dealloc(memory, layout) };
    }
}

#[test]
fn a_large_sparse_vmo_that_has_grown_twice_holds_less_than_64_kib() {
    const TIB: u64 = 1 << 40;
    let world = World::new();
    drop(upager::Platform::pin(&*world.platform)); // the thread's place in the epoch
    let before = HELD.get();
    let vmo = world.vmo_with(VmoOptions::RESIZABLE, TIB / PAGE_SIZE);
    for page in [0, TIB / PAGE_SIZE / 2, TIB / PAGE_SIZE - 1] {
        world.supply(&vmo, page, 1).unwrap();
    }
    // To sizes that no node of the table ends at.
    vmo.set_size(TIB + 5 * PAGE_SIZE).unwrap();
    vmo.set_size(2 * TIB + 777 * PAGE_SIZE).unwrap();
    let held = HELD.get() - before;
    println!("1 TiB, 3 pages resident, grown twice: {held} bytes");
    assert!(held < 64 << 10, "{held} bytes");
    let mut dirty = [DirtyRange::default(); 4];
    let found = world.pager.query_dirty_ranges(&vmo, upager::ByteRange::new(0, vmo.size()), &mut dirty).unwrap();
    assert_eq!(found.available, 1);
    assert_eq!(dirty[0].length, TIB + 777 * PAGE_SIZE);
}

#[test]
fn a_dense_vmo_holds_less_than_8_and_a_half_bytes_a_page() {
    const PAGES: u32 = 1 << 16;
    let world = World::new();
    drop(upager::Platform::pin(&*world.platform));
    let before = HELD.get();
    let vmo = world.vmo(PAGES.into());
    for page in (0..u64::from(PAGES)).step_by(512) {
        // One page makes the leaf, and the others would not change it.
        world.supply(&vmo, page, 1).unwrap();
    }
    let held = HELD.get() - before;
    println!("{PAGES} pages: {held} bytes");
    assert!(held.unsigned_abs() * 2 < 17 * PAGES as usize, "{held} bytes");
}

#[test]
fn growing_by_a_tebibyte_is_as_cheap_as_growing_by_a_mebibyte() {
    let world = World::new();
    drop(upager::Platform::pin(&*world.platform));
    let grown = |by: u64| {
        let vmo = world.vmo_with(VmoOptions::RESIZABLE, 1);
        let before = HELD.get();
        vmo.set_size(by).unwrap();
        let held = HELD.get() - before;
        let mut byte = [1];
        assert_eq!(Task::new(vmo.read(ByteOffset(by - 1), &mut byte)).poll(), Some(Ok(())));
        assert_eq!(Task::new(vmo.fault(PageIndex(0), Access::Read)).poll(), None);
        assert_eq!(Task::new(vmo.write(at(1, 0), &byte)).poll(), Some(Ok(())));
        held
    };
    let (small, large) = (grown(1 << 20), grown(1 << 40));
    println!("grown by 1 MiB: {small} bytes, by 1 TiB: {large} bytes");
    assert!(large < 16 << 10, "{large} bytes");
}
