//! Bytes of metadata a resident page, by an allocator that counts.
//!
//! | group | which of 1 Mi pages are resident |
//! | --- | --- |
//! | `memory/dense` | all |
//! | `memory/one_in_64` | every 64th |
//! | `memory/clusters` | 16 in a row of every 1024 |
//!
//! Frames are numbers here, so only the structures themselves are counted. The maps are made with
//! no room and grow, as where nobody knows how many pages there will be; what they retire is freed
//! before the count. `flat` has a word for each page, resident or not. This is no criterion bench,
//! since bytes do not vary; its records are in criterion's form.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::AtomicIsize;
use std::sync::atomic::Ordering::Relaxed;

use upager::{ByteRange, OwnedFrame, PAGE_SIZE};
use upager_benches::{Flat, Maps, Pages, Visit, World, record_single, visit_maps};

/// Bytes allocated and not freed.
static HELD: AtomicIsize = AtomicIsize::new(0);

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: all of it is the system's allocator's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size().cast_signed(), Relaxed); // Relaxed: a figure
        // SAFETY: the caller's promise is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size().cast_signed(), Relaxed); // Relaxed: a figure
        // SAFETY: as above; what we hand out is the system's.
        unsafe { System.dealloc(memory, layout) };
    }
}

const PAGES: u32 = 1 << 20;

struct Group {
    name: &'static str,
    pages: Vec<u32>,
}

impl Group {
    fn record<T>(&self, function: &str, made: T, before: isize) {
        // What has been retired is freed once nobody is pinned.
        for _ in 0..4096 {
            crossbeam_epoch::pin().flush();
        }
        let held = HELD.load(Relaxed) - before; // Relaxed: one thread
        drop(made);
        #[allow(clippy::cast_precision_loss)] // far below 2^52
        let bytes = held as f64 / self.pages.len() as f64;
        println!("{} {function}: {bytes:.2} bytes a page", self.name);
        record_single(self.name, function, bytes).expect("the folder of records can be written to");
    }

    fn measure(&mut self) {
        let frames = vec![0; PAGES as usize];
        let before = HELD.load(Relaxed); // Relaxed: one thread
        self.record("flat", Flat::of(&frames), before);
        drop(frames);
        let before = HELD.load(Relaxed); // Relaxed: as above
        let world = World::empty(PAGES);
        for run in self.pages.chunk_by(|page, next| page + 1 == *next) {
            let range = ByteRange::new(u64::from(run[0]) * PAGE_SIZE, run.len() as u64 * PAGE_SIZE);
            let frames = run.iter().map(|_| OwnedFrame::new(&*world.platform).expect("frames are numbers"));
            assert_eq!(world.pager.supply_frames(&world.vmo, range, frames), Ok(()));
        }
        self.record("upager", world, before);
        visit_maps(self);
    }
}

impl Visit for Group {
    fn visit<M: Maps>(&mut self, name: &'static str) {
        let before = HELD.load(Relaxed); // Relaxed: one thread
        let map = M::with_room(0);
        {
            let supply = map.supplier();
            self.pages.iter().for_each(|page| supply(*page, (*page).into()));
        }
        self.record(name, map, before);
    }
}

fn main() {
    drop(crossbeam_epoch::pin()); // the thread's place in the epoch
    let in_cluster = |page: &u32| page % 1024 < 16;
    Group { name: "memory/dense", pages: (0..PAGES).collect() }.measure();
    Group { name: "memory/one_in_64", pages: (0..PAGES).step_by(64).collect() }.measure();
    Group { name: "memory/clusters", pages: (0..PAGES).filter(in_cluster).collect() }.measure();
}
