//! Single paths for counting instructions, which do not vary with what else the machine does.
//!
//! `paths NAME COUNT` runs one of them COUNT times. Run it twice under callgrind, with two counts, and
//! the difference is that of the path alone, whatever the set-up cost. `ci/bench` does.

use std::hint::black_box;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use upager::{
    Access, ByteOffset, ByteRange, DirtyRange, Evict, OwnedFrame, PAGE_SIZE, Packet, PageCount, PageIndex, Platform,
    Writeback,
};

use crate::{Flat, Numbers, Pages, World};

/// A path: its name, and what runs it so many times.
pub type Path = (&'static str, fn(u64));

/// All there are.
pub const PATHS: &[Path] = &[
    ("lookup_flat_array", lookup_flat),
    ("lookup_pinned", lookup_pinned),
    ("lookup_own_pin", lookup_own_pin),
    ("pin", pin),
    ("fault_resident", fault_resident),
    ("read_64_bytes", read),
    ("write_64_bytes", write),
    ("mark_dirty_again", mark_again),
    ("mark_dirty_begin_end", mark_begin_end),
    ("missing_fault", missing_fault),
    ("missing_fault_failed", missing_fault_failed),
    ("join", join),
    ("supply_page", supply_page),
    ("supply_64_pages", supply_64),
    ("evict_page", evict),
    ("query_64_pages", query),
    ("query_64_adjacent", query_adjacent),
    ("take_nothing", take_nothing),
    ("detach_with_64", detach),
    ("create_and_drop", create),
];

/// Pages of the VMO: few, so that every one is in the cache.
const PAGES: u32 = 1 << 12;

fn poll(world: &World, page: u64, access: Access) -> Poll<upager::Result<()>> {
    let mut fault = world.vmo.fault(PageIndex(page), access);
    Future::poll(Pin::new(&mut fault), &mut Context::from_waker(Waker::noop()))
}

fn pages(count: u64) -> impl Iterator<Item = u64> {
    (0..count).map(|nth| black_box(nth % u64::from(PAGES)))
}

fn one(page: u64) -> ByteRange {
    ByteRange::new(page * PAGE_SIZE, PAGE_SIZE)
}

/// The floor of a lookup.
fn lookup_flat(count: u64) {
    let flat = Flat::of(&vec![1; PAGES as usize]);
    let read = flat.reader();
    pages(count).for_each(|page| assert!(black_box(read(u32::try_from(page).unwrap_or(0))).is_some()));
}

fn lookup_pinned(count: u64) {
    let world = World::resident(PAGES);
    let guard = world.platform.pin();
    pages(count).for_each(|page| assert!(black_box(world.vmo.lookup(&guard, PageIndex(page))).is_some()));
}

fn lookup_own_pin(count: u64) {
    let world = World::resident(PAGES);
    pages(count).for_each(|page| assert!(black_box(world.vmo.pin_lookup(PageIndex(page))).is_some()));
}

fn pin(count: u64) {
    let world = World::resident(1);
    pages(count).for_each(|_| drop(black_box(world.platform.pin())));
}

fn fault_resident(count: u64) {
    let world = World::resident(PAGES);
    pages(u64::from(PAGES)).for_each(|page| assert!(poll(&world, page, Access::Read).is_ready()));
    pages(count).for_each(|page| assert!(poll(&world, page, Access::Read).is_ready()));
}

fn read(count: u64) {
    let world = World::resident(PAGES);
    let mut bytes = [0; 64];
    pages(count).for_each(|page| {
        let read = std::pin::pin!(world.vmo.read(ByteOffset(page * PAGE_SIZE), &mut bytes));
        assert!(read.poll(&mut Context::from_waker(Waker::noop())).is_ready());
    });
}

fn write(count: u64) {
    let world = World::resident(PAGES);
    pages(u64::from(PAGES)).for_each(|page| assert!(poll(&world, page, Access::Write).is_ready()));
    pages(count).for_each(|page| {
        let write = std::pin::pin!(world.vmo.write(ByteOffset(page * PAGE_SIZE), &[1; 64]));
        assert!(write.poll(&mut Context::from_waker(Waker::noop())).is_ready());
    });
}

fn mark_again(count: u64) {
    let world = World::resident(PAGES);
    pages(u64::from(PAGES)).for_each(|page| assert!(poll(&world, page, Access::Write).is_ready()));
    pages(count).for_each(|page| assert!(poll(&world, page, Access::Write).is_ready()));
}

/// Marks one page of a range dirty and writes it back.
fn mark_begin_end(count: u64) {
    let world = World::resident(PAGES);
    pages(count).for_each(|page| {
        assert!(poll(&world, page, Access::Write).is_ready());
        assert_eq!(world.pager.writeback_begin(&world.vmo, one(page), Writeback::All), Ok(()));
        assert_eq!(world.pager.writeback_end(&world.vmo, one(page)), Ok(()));
    });
}

/// A fault, its packet, its page, and the second look; and the page's share of the table.
fn missing_fault(count: u64) {
    let world = World::empty(u32::try_from(count).expect("pages of a VMO"));
    (0..count).for_each(|page| {
        let (fault, range) = taken_fault(&world, page);
        let frame = OwnedFrame::new(&*world.platform).expect("frames are numbers");
        assert_eq!(world.pager.supply_frames(&world.vmo, range, [frame]), Ok(()));
        assert_eq!(second_look(fault), Poll::Ready(Ok(())));
    });
    std::mem::forget(world); // its end would cost by the page too
}

/// The same, answered by a failure.
fn missing_fault_failed(count: u64) {
    let world = World::resident(1);
    world.evict(1);
    pages(count).for_each(|_| {
        let (fault, range) = taken_fault(&world, 0);
        assert_eq!(world.pager.fail_range(&world.vmo, range, upager::Status::Io), Ok(()));
        assert!(second_look(fault).is_ready());
    });
}

/// A fault that waits, and the range of its packet.
fn taken_fault(world: &World, page: u64) -> (upager::Fault<'_, Numbers>, ByteRange) {
    let mut fault = world.vmo.fault(PageIndex(page), Access::Read);
    let mut task = Context::from_waker(Waker::noop());
    assert_eq!(Pin::new(&mut fault).poll(&mut task), Poll::Pending);
    let mut packets = [Packet::default()];
    assert_eq!(world.port.take(&mut packets), 1);
    (fault, packets[0].range())
}

fn second_look(mut fault: upager::Fault<'_, Numbers>) -> Poll<upager::Result<()>> {
    Pin::new(&mut fault).poll(&mut Context::from_waker(Waker::noop()))
}

/// A second fault for a page that is in flight, and its leaving.
fn join(count: u64) {
    let world = World::empty(1);
    let mut first = world.vmo.fault(PageIndex(0), Access::Read);
    let mut task = Context::from_waker(Waker::noop());
    assert_eq!(Pin::new(&mut first).poll(&mut task), Poll::Pending);
    pages(count).for_each(|_| {
        let mut fault = world.vmo.fault(PageIndex(0), Access::Read);
        assert_eq!(Pin::new(&mut fault).poll(&mut task), Poll::Pending);
    });
}

fn supply_page(count: u64) {
    let world = World::empty(u32::try_from(count).expect("pages of a VMO"));
    (0..count).for_each(|page| {
        let frame = OwnedFrame::new(&*world.platform).expect("frames are numbers");
        assert_eq!(world.pager.supply_frames(&world.vmo, one(page), [frame]), Ok(()));
    });
    std::mem::forget(world); // as above
}

fn supply_64(count: u64) {
    let world = World::empty(u32::try_from(count * 64).expect("pages of a VMO"));
    (0..count).for_each(|call| {
        let range = ByteRange::new(call * 64 * PAGE_SIZE, 64 * PAGE_SIZE);
        let frames: [_; 64] = std::array::from_fn(|_| OwnedFrame::new(&*world.platform).expect("frames are numbers"));
        assert_eq!(world.pager.supply_frames(&world.vmo, range, frames), Ok(()));
    });
    std::mem::forget(world); // as above
}

fn evict(count: u64) {
    let world = World::resident(1 << 16);
    assert_eq!(world.vmo.evict(PageCount(count), Evict::Any), PageCount(count));
    std::mem::forget(world); // as above
}

/// A query that finds 64 dirty pages, each alone, among [`PAGES`].
fn query(count: u64) {
    query_apart(64, count);
}

/// A query that finds 64 dirty pages in one run, among [`PAGES`].
fn query_adjacent(count: u64) {
    query_apart(1, count);
}

fn query_apart(apart: u64, count: u64) {
    let world = World::resident(PAGES);
    (0..64).for_each(|nth| assert!(poll(&world, nth * apart, Access::Write).is_ready()));
    let mut runs = [DirtyRange::default(); 64];
    pages(count).for_each(|_| {
        let found = world.pager.query_dirty_ranges(&world.vmo, ByteRange::new(0, world.vmo.size()), &mut runs);
        assert_eq!(found.map(|found| found.available), Ok(if apart == 1 { 1 } else { 64 }));
    });
}

fn take_nothing(count: u64) {
    let world = World::empty(1);
    let mut packets = [Packet::default()];
    pages(count).for_each(|_| assert_eq!(world.port.take(black_box(&mut packets)), 0));
}

/// A VMO is made, faulted on 64 times and detached.
fn detach(count: u64) {
    let world = World::empty(1);
    pages(count).for_each(|_| {
        let vmo = world.pager.create_vmo(&world.port, 1, upager::VmoOptions::NONE, 64 * PAGE_SIZE);
        let vmo = vmo.expect("memory for a VMO");
        let mut faults: [_; 64] = std::array::from_fn(|page| vmo.fault(PageIndex(page as u64), Access::Read));
        let mut task = Context::from_waker(Waker::noop());
        for fault in &mut faults {
            assert!(Pin::new(fault).poll(&mut task).is_pending());
        }
        assert_eq!(world.pager.detach_vmo(&vmo).map(|detached| detached.failed_requests), Ok(64));
        drop(faults);
        while world.port.take(&mut [Packet::default(); 64]) > 0 {}
    });
}

fn create(count: u64) {
    let world = World::empty(1);
    pages(count).for_each(|_| {
        let vmo = world.pager.create_vmo(&world.port, 1, upager::VmoOptions::NONE, PAGE_SIZE);
        drop(vmo.expect("memory for a VMO"));
        assert_eq!(world.port.take(&mut [Packet::default()]), 1);
    });
}
