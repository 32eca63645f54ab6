//! One pager, one port, and the service's usual moves.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use upager::{
    AnonymousVmo, ByteOffset, ByteRange, Command, DirtyRange, Evict, HeapPlatform, MAX_VMO_SIZE, OwnedFrame, PAGE_SIZE,
    Packet, PageCount, PageIndex, Pager, Platform, Port, Result, Vmo, VmoOptions, Writeback,
};

use crate::task::now;

/// The key of the VMOs that [`World::vmo`] makes.
pub const KEY: u64 = 0x5eed;

/// A platform, a pager on it, and a port for its VMOs.
#[derive(Debug)]
pub struct World<P: Platform = HeapPlatform> {
    pub platform: Arc<P>,
    pub pager: Pager<P>,
    pub port: Port<P>,
}

/// Sets a flag when it is dropped, so that a test that panics ends the threads that look at it.
#[derive(Debug)]
pub struct SetOnDrop<'a>(pub &'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A deadline for what should take no time at all.
pub fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// `count` pages from `first` on, in bytes.
pub fn pages(first: u64, count: u64) -> ByteRange {
    ByteRange::new(first * PAGE_SIZE, count * PAGE_SIZE)
}

/// The position of byte `within` of a page.
pub fn at(page: u64, within: u64) -> ByteOffset {
    ByteOffset(page * PAGE_SIZE + within)
}

/// The byte at a position of a VMO whose pages all hold the pattern.
fn byte_at(position: u64) -> u8 {
    let page = position / PAGE_SIZE;
    let word = page.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (position % PAGE_SIZE).wrapping_mul(0x0100_0193);
    word.to_le_bytes().into_iter().fold(0, u8::wrapping_add)
}

/// The bytes of the pattern at these positions.
pub fn bytes_of(range: Range<u64>) -> Vec<u8> {
    range.map(byte_at).collect()
}

/// What [`World::supply`] puts in a page: different in each page, and in each place of it.
pub fn pattern(page: u64) -> Vec<u8> {
    bytes_of(page * PAGE_SIZE..(page + 1) * PAGE_SIZE)
}

/// A READ for these pages of a VMO made by [`World::vmo`].
pub fn read_packet(first: u64, count: u64) -> Packet {
    Packet::page_request(KEY, Command::Read, first * PAGE_SIZE, count * PAGE_SIZE)
}

/// A DIRTY for these pages of a VMO made by [`World::vmo_with`].
pub fn dirty_packet(first: u64, count: u64) -> Packet {
    Packet::page_request(KEY, Command::Dirty, first * PAGE_SIZE, count * PAGE_SIZE)
}

/// The COMPLETE of a VMO made by [`World::vmo`].
pub fn complete_packet() -> Packet {
    Packet::page_request(KEY, Command::Complete, 0, 0)
}

/// The dirty runs of the whole VMO, as (first page, pages).
pub fn dirty_ranges<P: Platform>(pager: &Pager<P>, vmo: &Vmo<P>) -> Vec<(u64, u64)> {
    let mut buffer = vec![DirtyRange::default(); 1024];
    let found = pager.query_dirty_ranges(vmo, ByteRange::new(0, vmo.size()), &mut buffer).expect("in range");
    assert_eq!(found.actual, found.available, "the buffer has room");
    buffer[..found.actual].iter().map(|run| (run.offset / PAGE_SIZE, run.length / PAGE_SIZE)).collect()
}

impl World {
    /// On a heap without limit.
    pub fn new() -> Self {
        Self::on(HeapPlatform::new())
    }

    /// Waits until so many frames are left: what was retired is freed after a grace period.
    pub fn frames_become(&self, frames: u64) {
        let deadline = soon();
        while self.platform.frames() != PageCount(frames) {
            self.platform.pin().flush();
            assert!(Instant::now() < deadline, "{:?} are left, not {frames}", self.platform.frames());
            thread::yield_now();
        }
    }

    /// Evicts all clean pages of the VMO, and waits until they are absent. `left` frames are then
    /// left on the platform.
    pub fn evict_now(&self, vmo: &Vmo<HeapPlatform>, left: u64) {
        vmo.evict(PageCount(MAX_VMO_SIZE), Evict::Any);
        self.frames_become(left);
    }

    /// Closes everything, and checks that no frame is left.
    pub fn end(self) {
        let Self { platform, pager, port } = self;
        drop(pager);
        drop(port);
        let deadline = soon();
        while platform.frames() != PageCount(0) {
            platform.pin().flush();
            assert!(Instant::now() < deadline, "{:?} leaked", platform.frames());
            thread::yield_now();
        }
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl<P: Platform> World<P> {
    /// On this platform.
    pub fn on(platform: P) -> Self {
        let platform = Arc::new(platform);
        Self { pager: Pager::new(platform.clone()), port: Port::new(platform.clone()), platform }
    }

    /// A VMO of so many pages.
    pub fn vmo(&self, pages: u64) -> Vmo<P> {
        self.vmo_with_key(pages, KEY)
    }

    /// As [`vmo`](Self::vmo), with a key of its own.
    pub fn vmo_with_key(&self, pages: u64, key: u64) -> Vmo<P> {
        self.pager.create_vmo(&self.port, key, VmoOptions::NONE, pages * PAGE_SIZE).expect("a VMO")
    }

    /// As [`vmo`](Self::vmo), with options.
    pub fn vmo_with(&self, options: VmoOptions, pages: u64) -> Vmo<P> {
        self.pager.create_vmo(&self.port, KEY, options, pages * PAGE_SIZE).expect("a VMO")
    }

    /// A VMO of so many pages, all clean, that traps dirtying.
    pub fn trapping(&self, pages: u64) -> Vmo<P> {
        let vmo = self.vmo_with(VmoOptions::TRAP_DIRTY, pages);
        self.supply(&vmo, 0, pages).expect("attached");
        vmo
    }

    /// An anonymous VMO of so many pages.
    pub fn aux(&self, pages: u64) -> AnonymousVmo<P> {
        AnonymousVmo::new(self.platform.clone(), pages * PAGE_SIZE).expect("a VMO")
    }

    /// Lets these pages become dirty.
    pub fn let_dirty(&self, vmo: &Vmo<P>, first: u64, count: u64) -> Result<()> {
        self.pager.dirty_range(vmo, pages(first, count))
    }

    /// Everything that is there to take now.
    pub fn packets(&self) -> Vec<Packet> {
        let mut all = Vec::new();
        let mut some = [Packet::default(); 64];
        loop {
            match self.port.take(&mut some) {
                0 => return all,
                taken => all.extend_from_slice(&some[..taken]),
            }
        }
    }

    /// A frame of zeros.
    pub fn frame(&self) -> OwnedFrame<'_, P> {
        OwnedFrame::new(&*self.platform).expect("a frame")
    }

    /// Frames that hold the pattern of these pages.
    pub fn frames(&self, first: u64, count: u64) -> Vec<OwnedFrame<'_, P>> {
        (first..first + count)
            .map(|page| {
                let frame = self.frame();
                frame.write(0, &pattern(page)).expect("fits");
                frame
            })
            .collect()
    }

    /// Supplies these pages with their pattern.
    pub fn supply(&self, vmo: &Vmo<P>, first: u64, count: u64) -> Result<()> {
        self.pager.supply_frames(vmo, pages(first, count), self.frames(first, count))
    }

    /// Supplies these pages and makes them dirty. Their first byte is then `byte`.
    pub fn make_dirty(&self, vmo: &Vmo<P>, first: u64, count: u64, byte: u8) {
        self.supply(vmo, first, count).expect("attached");
        for page in first..first + count {
            now(vmo.write(at(page, 0), &[byte])).expect("resident");
        }
    }

    /// Begins and ends writeback of these pages, with nothing between.
    pub fn write_back(&self, vmo: &Vmo<P>, first: u64, count: u64) {
        self.pager.writeback_begin(vmo, pages(first, count), Writeback::All).expect("in range");
        self.pager.writeback_end(vmo, pages(first, count)).expect("in range");
    }

    /// The bytes of a page that can be read without waiting.
    pub fn contents(&self, vmo: &Vmo<P>, page: u64) -> Vec<u8> {
        let mut bytes = vec![0; pattern(page).len()];
        now(vmo.read(at(page, 0), &mut bytes)).expect("resident");
        bytes
    }

    /// Whether a lookup finds the page, which changes nothing about it.
    pub fn is_resident(&self, vmo: &Vmo<P>, page: u64) -> bool {
        vmo.lookup(&self.platform.pin(), PageIndex(page)).is_some()
    }

    /// Which of the VMO's first pages are resident.
    pub fn resident(&self, vmo: &Vmo<P>, of: u64) -> Vec<u64> {
        (0..of).filter(|page| self.is_resident(vmo, *page)).collect()
    }
}
