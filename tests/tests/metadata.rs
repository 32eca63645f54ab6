//! How much memory the pager's own tables take, and that they give it back. This file has an allocator of its own,
//! which counts, and lets a test act, or fail, where a leaf is allocated.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use upager::{Access, ByteOffset, DirtyRange, PAGE_SIZE, PageIndex, Status, VmoOptions};
use upager_tests::{Task, World, at};

thread_local! {
    /// Bytes that this thread has allocated and not freed, but for frames.
    static HELD: Cell<isize> = const { Cell::new(0) };
    /// What comes before this thread's next allocation of a leaf. False: there is no memory for it.
    static BEFORE_A_LEAF: Cell<Option<&'static dyn Fn() -> bool>> = const { Cell::new(None) };
}

/// The alignment of a leaf, and its least size.
const LEAF: (usize, usize) = (64, 4096);

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
        if layout.align() == LEAF.0
            && layout.size() >= LEAF.1
            && let Some(act) = BEFORE_A_LEAF.take()
            && !act()
        {
            return std::ptr::null_mut();
        }
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

/// An anonymous VMO is nobody else's, so its tables go with it and not after a grace period.
#[test]
fn tables_go_with_their_vmo() {
    let world = World::new();
    drop(upager::Platform::pin(&*world.platform));
    for size in [1 << 10, 1 << 30] {
        let before = HELD.get();
        let aux = world.aux(size);
        for page in [0, 700, size / 2, size - 1] {
            aux.write(at(page, 0), b"x").unwrap(); // in the large one under two levels of nodes
        }
        let held = HELD.get() - before;
        assert!(held > 2 * 4096, "{held} bytes");
        drop(aux);
        assert_eq!(HELD.get(), before, "a VMO of {size} pages");
    }
}

/// What two writes of pages that share a leaf hold, the second after the first, or as the first is about to have its leaf.
fn held_by_two_writes(beside: bool) -> isize {
    let world = World::new();
    drop(upager::Platform::pin(&*world.platform));
    let aux = Arc::new(world.aux(1 << 30));
    let other = aux.clone();
    let write: &'static dyn Fn() -> bool = Box::leak(Box::new(move || other.write(at(1, 0), b"y").is_ok()));
    let before = HELD.get();
    if beside {
        BEFORE_A_LEAF.set(Some(write));
    }
    aux.write(at(0, 0), b"x").unwrap();
    assert!(BEFORE_A_LEAF.get().is_none(), "it has a leaf");
    assert!(beside || write());
    let mut bytes = [[0]; 2];
    bytes.iter_mut().zip(0..).for_each(|(byte, page)| aux.read(at(page, 0), byte).unwrap());
    assert_eq!((bytes, aux.committed().0), ([*b"x", *b"y"], 2));
    HELD.get() - before
}

#[test]
fn a_leaf_that_was_made_in_vain_is_freed() {
    assert_eq!(held_by_two_writes(true), held_by_two_writes(false));
}

#[test]
fn a_vmo_that_cannot_grow_for_want_of_memory_stays_as_it_is() {
    let world = World::new();
    let vmo = world.vmo_with(VmoOptions::RESIZABLE, 1);
    let before = vmo.counts();
    BEFORE_A_LEAF.set(Some(&|| false));
    assert_eq!(vmo.set_size(700 * PAGE_SIZE), Err(Status::NoMemory));
    assert!(BEFORE_A_LEAF.get().is_none());
    assert_eq!((vmo.size(), vmo.counts()), (PAGE_SIZE, before));
    assert_eq!(Task::new(vmo.read(at(1, 0), &mut [0])).poll(), Some(Err(Status::OutOfRange)));
    vmo.set_size(700 * PAGE_SIZE).unwrap();
    assert_eq!((vmo.size(), vmo.counts().zero.0), (700 * PAGE_SIZE, 699));
}
