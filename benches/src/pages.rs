//! What a lookup is measured on: upager's two, the floor, and by [`maps`](crate::maps) the peers.

use std::pin::Pin;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::task::{Context, Waker};

use upager::{Access, ByteRange, Frame, PAGE_SIZE, PageIndex, Platform, Writeback};

use crate::World;

/// Pages that are all resident.
pub trait Pages: Sync {
    /// The page with number n has `frames[n]`.
    fn of(frames: &[u64]) -> Self;

    /// A reader, which holds for all its lookups whatever it may hold.
    fn reader(&self) -> impl Fn(u32) -> Option<u64>;

    /// A writer, which changes the state of a page. The page stays resident.
    fn writer(&self) -> impl Fn(u32);
}

/// The floor: an array of words indexed by page. Nothing that finds a page does less.
#[derive(Debug)]
pub struct Flat(pub Box<[AtomicU64]>);

impl Pages for Flat {
    fn of(frames: &[u64]) -> Self {
        Self(frames.iter().map(|frame| AtomicU64::new(*frame)).collect())
    }

    fn reader(&self) -> impl Fn(u32) -> Option<u64> {
        |page| self.0.get(page as usize).map(|word| word.load(Acquire)) // Acquire: as a pager's load must be
    }

    fn writer(&self) -> impl Fn(u32) {
        |page| {
            if let Some(word) = self.0.get(page as usize) {
                word.store(word.load(Acquire), Release); // Release: as a pager's store must be
            }
        }
    }
}

/// [`Vmo::lookup`](upager::Vmo::lookup) inside a pin that the caller holds.
#[derive(Debug)]
pub struct Pinned(pub World);

/// [`Vmo::pin_lookup`](upager::Vmo::pin_lookup), a pin for each lookup.
#[derive(Debug)]
pub struct OwnPin(pub World);

impl Pages for Pinned {
    fn of(frames: &[u64]) -> Self {
        Self(World::with_frames(frames))
    }

    fn reader(&self) -> impl Fn(u32) -> Option<u64> {
        let guard = self.0.platform.pin();
        move |page| self.0.vmo.lookup(&guard, PageIndex(page.into())).map(Frame::number)
    }

    fn writer(&self) -> impl Fn(u32) {
        move |page| dirty_and_clean(&self.0, page)
    }
}

impl Pages for OwnPin {
    fn of(frames: &[u64]) -> Self {
        Self(World::with_frames(frames))
    }

    fn reader(&self) -> impl Fn(u32) -> Option<u64> {
        |page| self.0.vmo.pin_lookup(PageIndex(page.into())).map(|(_guard, frame)| frame.number())
    }

    fn writer(&self) -> impl Fn(u32) {
        move |page| dirty_and_clean(&self.0, page)
    }
}

/// Three changes of the page's word, and the counts that go with them.
fn dirty_and_clean(world: &World, page: u32) {
    let mut fault = world.vmo.fault(PageIndex(page.into()), Access::Write);
    let dirtied = Future::poll(Pin::new(&mut fault), &mut Context::from_waker(Waker::noop()));
    assert!(dirtied.is_ready());
    let range = ByteRange::new(u64::from(page) * PAGE_SIZE, PAGE_SIZE);
    let begun = world.pager.writeback_begin(&world.vmo, range, Writeback::All);
    assert_eq!(begun.and_then(|()| world.pager.writeback_end(&world.vmo, range)), Ok(()));
}
