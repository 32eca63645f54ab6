//! Anonymous VMOs: zeros until they are written. Their pages supply others by moving there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use proptest::prelude::*;
use upager::{
    Access, AnonymousVmo, ByteOffset, ByteRange, Evict, HeapPlatform, MAX_VMO_SIZE, PAGE_SIZE, PageCount, PageIndex,
    Pager, Platform, Port, Result, Status, Vmo, VmoOptions, Writeback,
};
use upager_tests::{
    Hooked, KEY, Random, SetOnDrop, Task, World, at, complete_packet, dirty_ranges, now, pages, pattern, read_packet,
};
use upager_verify::anonymous::Anonymous;
use upager_verify::spec::{Page, Spec};

const PAGE: usize = 4096;

/// Writes these pages, each its pattern.
fn fill<P: Platform>(aux: &AnonymousVmo<P>, first: u64, count: u64) {
    for page in first..first + count {
        aux.write(at(page, 0), &pattern(page)).expect("memory");
    }
}

/// The bytes of a page.
fn bytes<P: Platform>(aux: &AnonymousVmo<P>, page: u64) -> Vec<u8> {
    let mut bytes = vec![0xee; PAGE];
    aux.read(at(page, 0), &mut bytes).expect("in range");
    bytes
}

/// The first byte of a page.
fn byte<P: Platform>(aux: &AnonymousVmo<P>, page: u64) -> u8 {
    bytes(aux, page)[0]
}

fn committed<P: Platform>(aux: &AnonymousVmo<P>) -> u64 {
    aux.committed().0
}

/// Ranges that do not lie in a VMO of four pages, though they begin and end on a page.
fn outside() -> [ByteRange; 6] {
    let last = u64::MAX - (PAGE_SIZE - 1);
    [
        pages(4, 1),
        pages(0, 5),
        pages(3, 2),
        pages(5, 0),
        ByteRange::new(last, PAGE_SIZE),
        ByteRange::new(PAGE_SIZE, last),
    ]
}

/// Ranges that do not begin and end on a page.
const CROOKED: [ByteRange; 4] =
    [ByteRange::new(1, PAGE_SIZE), ByteRange::new(0, 1), ByteRange::new(PAGE_SIZE - 1, 1), ByteRange::new(1, u64::MAX)];

#[test]
fn a_page_that_was_never_written_reads_as_zeros_and_stores_nothing() {
    let world = World::new();
    let aux = AnonymousVmo::new(world.platform.clone(), MAX_VMO_SIZE).unwrap();
    for page in [0, 1 << 20, (MAX_VMO_SIZE / PAGE_SIZE) - 1] {
        assert_eq!(bytes(&aux, page), [0; PAGE]);
    }
    assert_eq!((committed(&aux), world.platform.frames()), (0, PageCount(0)));
    aux.write(ByteOffset(MAX_VMO_SIZE - 1), b"x").unwrap();
    assert_eq!((committed(&aux), world.platform.frames()), (1, PageCount(1)));
    drop(aux);
    world.end();
}

#[test]
fn what_is_written_is_read_and_the_rest_of_its_pages_is_zeros() {
    let world = World::new();
    let aux = world.aux(3);
    aux.write(at(0, 4090), &[7; 4110]).unwrap();
    let mut all = vec![1; 3 * PAGE];
    aux.read(ByteOffset(0), &mut all).unwrap();
    assert!(all[..4090].iter().all(|byte| *byte == 0));
    assert!(all[4090..8200].iter().all(|byte| *byte == 7));
    assert!(all[8200..].iter().all(|byte| *byte == 0));
    assert_eq!(committed(&aux), 3);
    aux.write(at(2, 4095), b"e").unwrap();
    let mut end = [0];
    aux.read(at(2, 4095), &mut end).unwrap();
    assert_eq!(&end, b"e");
    drop(aux);
    world.end();
}

#[test]
fn the_size_is_rounded_up_to_pages_and_has_a_limit() {
    let platform = Arc::new(HeapPlatform::new());
    for (asked, got) in [(0, 0), (1, 4096), (4096, 4096), (4097, 8192), (MAX_VMO_SIZE, MAX_VMO_SIZE)] {
        assert_eq!(AnonymousVmo::new(platform.clone(), asked).unwrap().size(), got);
    }
    for size in [MAX_VMO_SIZE + 1, u64::MAX] {
        assert_eq!(AnonymousVmo::new(platform.clone(), size).err(), Some(Status::OutOfRange));
    }
    let empty = AnonymousVmo::new(platform, 0).unwrap();
    assert_eq!(empty.read(ByteOffset(0), &mut []), Ok(()));
    assert_eq!(empty.write(ByteOffset(0), b"x"), Err(Status::OutOfRange));
    assert_eq!(empty.commit(pages(0, 0)), Ok(()));
}

#[test]
fn past_the_end_nothing_is_read_or_written() {
    let world = World::new();
    let aux = world.aux(2);
    fill(&aux, 0, 1);
    for offset in [at(1, 4095), at(2, 0), at(2, 1), ByteOffset(u64::MAX), ByteOffset(u64::MAX - 1)] {
        let mut two = [9; 2];
        assert_eq!(aux.read(offset, &mut two), Err(Status::OutOfRange));
        assert_eq!(two, [9; 2]);
        assert_eq!(aux.write(offset, &[1; 2]), Err(Status::OutOfRange));
    }
    assert_eq!(aux.read(at(2, 0), &mut []), Ok(()), "no bytes, at the end");
    assert_eq!(aux.write(at(2, 1), &[]), Err(Status::OutOfRange), "no bytes, past the end");
    assert_eq!((committed(&aux), bytes(&aux, 0), bytes(&aux, 1)), (1, pattern(0), vec![0; PAGE]));
}

#[test]
fn a_write_without_memory_has_written_a_prefix() {
    let world = World::on(HeapPlatform::new().with_limit(PageCount(2)));
    let aux = world.aux(4);
    assert_eq!(aux.write(at(0, 100), &vec![5; 4 * PAGE - 100]), Err(Status::NoMemory));
    assert_eq!((byte(&aux, 1), byte(&aux, 2), committed(&aux)), (5, 0, 2));
    assert_eq!(aux.write(at(1, 0), b"over what is there"), Ok(()), "which takes no memory");
    drop(aux);
    world.end();
}

#[test]
fn commit_gives_frames_to_pages_that_have_none() {
    let world = World::new();
    let aux = world.aux(4);
    fill(&aux, 1, 1);
    aux.commit(ByteRange::new(4095, 4098)).unwrap(); // the pages that it touches
    assert_eq!((committed(&aux), world.platform.frames()), (3, PageCount(3)));
    assert_eq!((bytes(&aux, 0), bytes(&aux, 1), bytes(&aux, 2)), (vec![0; PAGE], pattern(1), vec![0; PAGE]));
    aux.commit(pages(0, 3)).unwrap();
    assert_eq!(world.platform.frames(), PageCount(3), "again is nothing");
    for range in outside() {
        assert_eq!(aux.commit(range), Err(Status::OutOfRange), "{range:?}");
    }
    assert_eq!(committed(&aux), 3);
    drop(aux);
    world.end();
}

#[test]
fn a_commit_without_memory_has_committed_the_pages_before() {
    let world = World::on(HeapPlatform::new().with_limit(PageCount(2)));
    let aux = world.aux(4);
    fill(&aux, 3, 1);
    assert_eq!(aux.commit(pages(0, 4)), Err(Status::NoMemory));
    assert_eq!((committed(&aux), bytes(&aux, 3)), (2, pattern(3)));
    drop(aux);
    world.end();
}

#[test]
fn decommit_frees_and_the_pages_are_zeros_again() {
    let world = World::new();
    let aux = world.aux(1200);
    fill(&aux, 0, 2);
    fill(&aux, 511, 2);
    aux.decommit(pages(1, 511)).unwrap();
    assert_eq!(committed(&aux), 2);
    assert_eq!((bytes(&aux, 0), bytes(&aux, 1)), (pattern(0), vec![0; PAGE]));
    assert_eq!((bytes(&aux, 511), bytes(&aux, 512)), (vec![0; PAGE], pattern(512)));
    world.frames_become(2);
    aux.write(at(1, 1), b"y").unwrap();
    assert_eq!(bytes(&aux, 1)[..3], *b"\0y\0", "a new frame is of zeros");
    aux.decommit(pages(0, 1200)).unwrap();
    aux.decommit(pages(0, 1200)).unwrap();
    assert_eq!(committed(&aux), 0);
    drop(aux);
    world.end();
}

#[test]
fn decommit_refuses_what_is_crooked_or_outside_and_changes_nothing() {
    let world = World::new();
    let aux = world.aux(4);
    fill(&aux, 0, 4);
    for range in CROOKED {
        assert_eq!(aux.decommit(range), Err(Status::InvalidArgs), "{range:?}");
    }
    for range in outside() {
        assert_eq!(aux.decommit(range), Err(Status::OutOfRange), "{range:?}");
    }
    assert_eq!(aux.decommit(pages(4, 0)), Ok(()), "nothing, at the end");
    assert_eq!(committed(&aux), 4);
}

#[test]
fn zero_takes_whole_pages_away_and_writes_to_parts() {
    let world = World::new();
    let aux = world.aux(4);
    fill(&aux, 0, 4);
    aux.zero(ByteRange::new(4000, PAGE_SIZE + 196)).unwrap();
    assert_eq!(committed(&aux), 3);
    assert_eq!(bytes(&aux, 0)[..4000], pattern(0)[..4000]);
    assert_eq!(bytes(&aux, 0)[4000..], [0; 96]);
    assert_eq!(bytes(&aux, 1), [0; PAGE]);
    assert_eq!(bytes(&aux, 2)[..100], [0; 100]);
    assert_eq!(bytes(&aux, 2)[100..], pattern(2)[100..]);
    aux.zero(ByteRange::new(3 * PAGE_SIZE + 10, 20)).unwrap();
    assert_eq!(bytes(&aux, 3)[..10], pattern(3)[..10]);
    assert_eq!(bytes(&aux, 3)[10..30], [0; 20]);
    assert_eq!(bytes(&aux, 3)[30..], pattern(3)[30..]);
    aux.zero(ByteRange::new(PAGE_SIZE + 1, 10)).unwrap();
    aux.zero(ByteRange::new(PAGE_SIZE, 10)).unwrap();
    assert_eq!(committed(&aux), 3, "zeros are not stored to write zeros to them");
    for range in outside() {
        assert_eq!(aux.zero(range), Err(Status::OutOfRange));
    }
    assert_eq!((committed(&aux), aux.zero(pages(0, 4)), committed(&aux)), (3, Ok(()), 0));
    drop(aux);
    world.end();
}

#[test]
fn pinned_pages_are_committed_and_keep_their_frames() {
    let world = World::new();
    let aux = world.aux(4);
    fill(&aux, 1, 1);
    let pinned = aux.pin(pages(1, 2)).unwrap();
    assert_eq!((committed(&aux), pinned.range()), (2, pages(1, 2)));
    let frames = [1, 2].map(|page| pinned.frame(PageIndex(page)).expect("pinned"));
    assert_eq!([0, 3, 4, u64::MAX].map(|page| pinned.frame(PageIndex(page))), [None; 4]);

    assert_eq!(aux.decommit(pages(0, 4)), Err(Status::BadState));
    assert_eq!(bytes(&aux, 1), pattern(1), "nothing has changed");
    aux.write(at(2, 0), b"a device would see this").unwrap();
    aux.zero(pages(0, 4)).unwrap();
    assert_eq!((bytes(&aux, 1), bytes(&aux, 2), committed(&aux)), (vec![0; PAGE], vec![0; PAGE], 2), "in their frames");
    assert_eq!([1, 2].map(|page| pinned.frame(PageIndex(page)).expect("pinned")), frames);
    aux.write(at(0, 0), b"x").unwrap();
    assert_eq!((aux.decommit(pages(0, 1)), aux.decommit(pages(3, 1)), committed(&aux)), (Ok(()), Ok(()), 2));

    let again = aux.pin(pages(2, 1)).unwrap();
    drop(pinned);
    assert_eq!(aux.decommit(pages(1, 2)), Err(Status::BadState), "one of two pins is left");
    assert_eq!(aux.decommit(pages(1, 1)), Ok(()));
    drop(again);
    assert_eq!((aux.decommit(pages(0, 4)), committed(&aux)), (Ok(()), 0));
    drop(aux);
    world.end();
}

#[test]
fn pin_refuses_what_is_crooked_or_outside_and_changes_nothing() {
    let world = World::new();
    let aux = world.aux(4);
    for range in CROOKED {
        assert_eq!(aux.pin(range).err(), Some(Status::InvalidArgs), "{range:?}");
    }
    for range in outside() {
        assert_eq!(aux.pin(range).err(), Some(Status::OutOfRange), "{range:?}");
    }
    assert_eq!(committed(&aux), 0);
    let nothing = aux.pin(pages(4, 0)).unwrap();
    assert_eq!(nothing.frame(PageIndex(0)), None);
}

#[test]
fn a_pin_without_memory_pins_nothing() {
    let world = World::on(HeapPlatform::new().with_limit(PageCount(2)));
    let aux = world.aux(4);
    assert_eq!(aux.pin(pages(0, 4)).err(), Some(Status::NoMemory));
    assert_eq!((committed(&aux), aux.decommit(pages(0, 4))), (2, Ok(())));
    drop(aux);
    world.end();
}

#[test]
fn a_page_that_as_many_hold_as_can_be_counted_is_written_by_nobody_else() {
    let world = World::new();
    let aux = world.aux(2);
    let pins: Vec<_> = (0..(1 << 17) - 1).map(|_| aux.pin(pages(1, 1)).unwrap()).collect();
    assert_eq!(aux.pin(pages(0, 2)).err(), Some(Status::NoResources));
    assert_eq!(aux.write(at(0, 0), &[1; 2 * PAGE]), Err(Status::NoResources));
    assert_eq!((byte(&aux, 0), byte(&aux, 1)), (1, 0), "a prefix");
    assert_eq!(aux.decommit(pages(0, 1)), Ok(()), "the pin that failed has let the page before go");
    drop(pins);
    assert_eq!((aux.write(at(1, 0), b"x"), aux.decommit(pages(1, 1))), (Ok(()), Ok(())));
    drop(aux);
    world.end();
}

#[test]
fn supply_moves_the_frame_and_does_not_copy_it() {
    let world = World::new();
    let (vmo, aux) = (world.vmo(4), world.aux(4));
    fill(&aux, 1, 2);
    let pinned = aux.pin(pages(1, 2)).unwrap();
    let frames = [1, 2].map(|page| pinned.frame(PageIndex(page)));
    drop(pinned);
    world.pager.supply_pages(&vmo, pages(2, 2), &aux, at(1, 0)).unwrap();
    let guard = world.platform.pin();
    assert_eq!([2, 3].map(|page| vmo.lookup(&guard, PageIndex(page))), frames);
    drop(guard);
    assert_eq!((world.contents(&vmo, 2), world.contents(&vmo, 3)), (pattern(1), pattern(2)));
    assert_eq!((committed(&aux), world.platform.frames()), (0, PageCount(2)));
    assert_eq!((bytes(&aux, 1), dirty_ranges(&world.pager, &vmo)), (vec![0; PAGE], vec![]), "the pages are clean");
    drop((vmo, aux));
    world.end();
}

#[test]
fn the_aux_serves_again_and_what_is_written_there_stays_there() {
    let world = World::new();
    let (vmo, aux) = (world.vmo(8), world.aux(1));
    for page in 0..8 {
        aux.write(at(0, 0), &pattern(page)).unwrap();
        world.pager.supply_pages(&vmo, pages(page, 1), &aux, at(0, 0)).unwrap();
    }
    aux.write(at(0, 0), &[1; PAGE]).unwrap();
    now(vmo.write(at(7, 0), b"z")).unwrap();
    assert!((0..7).all(|page| world.contents(&vmo, page) == pattern(page)));
    assert_eq!(bytes(&aux, 0), [1; PAGE]);
    drop(aux);
    assert_eq!(world.contents(&vmo, 0), pattern(0), "the page does not go with the VMO that it came from");
    drop(vmo);
    world.end();
}

#[test]
fn a_request_resolves_as_its_last_missing_page_arrives() {
    let world = World::new();
    let (vmo, aux) = (world.vmo(4), world.aux(4));
    let mut waiter = Task::pending(vmo.fault_run(PageIndex(0), PageCount(4), Access::Read));
    assert_eq!(world.packets(), [read_packet(0, 4)]);
    fill(&aux, 0, 4);
    world.pager.supply_pages(&vmo, pages(1, 3), &aux, at(1, 0)).unwrap();
    assert_eq!((waiter.wakes(), waiter.poll()), (0, None), "partial supply is fine");
    world.pager.supply_pages(&vmo, pages(0, 1), &aux, at(0, 0)).unwrap();
    assert_eq!(waiter.woken_with(), Ok(()));
    assert!((0..4).all(|page| world.contents(&vmo, page) == pattern(page)));
}

#[test]
fn pages_that_are_not_committed_supply_zeros() {
    let world = World::new();
    let (vmo, aux) = (world.vmo(1 << 20), world.aux(1 << 20));
    fill(&aux, 1, 1);
    let mut byte = [1];
    let mut reader = Task::pending(vmo.read(at(2, 5), &mut byte));
    world.pager.supply_pages(&vmo, pages(0, 3), &aux, at(0, 0)).unwrap();
    assert_eq!(reader.poll(), Some(Ok(())));
    drop(reader);
    assert_eq!(byte, [0]);
    assert_eq!((world.contents(&vmo, 0), world.contents(&vmo, 1)), (vec![0; PAGE], pattern(1)));
    assert_eq!(dirty_ranges(&world.pager, &vmo), [], "the service has them");
    assert_eq!((vmo.counts().resident, vmo.counts().zero), (PageCount(3), PageCount(0)));
    drop((vmo, aux));
    world.end();
}

#[test]
fn pages_that_the_vmo_holds_stay_as_they_are_and_the_frames_offered_are_freed() {
    let world = World::new();
    let (vmo, aux) = (world.vmo(8), world.aux(8));
    world.supply(&vmo, 0, 1).unwrap(); // clean
    world.make_dirty(&vmo, 1, 2, 0xd0); // dirty, and awaiting clean
    world.pager.writeback_begin(&vmo, pages(2, 1), Writeback::All).unwrap();
    now(vmo.zero(pages(3, 1))).unwrap(); // zeros that are not stored
    aux.write(at(0, 0), &vec![9; 8 * PAGE]).unwrap();
    aux.decommit(pages(5, 1)).unwrap();
    world.pager.supply_pages(&vmo, pages(0, 6), &aux, at(0, 0)).unwrap();
    assert_eq!(world.contents(&vmo, 0), pattern(0));
    assert_eq!([1, 2, 3, 4, 5].map(|page| world.contents(&vmo, page)[0]), [0xd0, 0xd0, 0, 9, 0]);
    assert_eq!((committed(&aux), byte(&aux, 6)), (2, 9), "those beyond the range stay");
    world.frames_become(5 + 2);
    drop((vmo, aux));
    world.end();
}

#[test]
fn zeros_take_no_memory_where_the_vmo_has_the_page() {
    let world = World::on(HeapPlatform::new().with_limit(PageCount(2)));
    let (vmo, aux) = (world.vmo(2), world.aux(2));
    world.supply(&vmo, 0, 2).unwrap();
    assert_eq!(world.pager.supply_pages(&vmo, pages(0, 2), &aux, at(0, 0)), Ok(()));
    assert_eq!(world.contents(&vmo, 1), pattern(1));
    drop((vmo, aux));
    world.end();
}

#[test]
fn a_page_that_is_being_evicted_is_kept() {
    let world = World::new();
    let (vmo, aux) = (world.vmo(1), world.aux(1));
    world.supply(&vmo, 0, 1).unwrap();
    aux.write(at(0, 0), b"not this").unwrap();
    let guard = world.platform.pin();
    vmo.evict(PageCount(1), Evict::Any);
    world.pager.supply_pages(&vmo, pages(0, 1), &aux, at(0, 0)).unwrap();
    drop(guard);
    world.frames_become(1);
    assert_eq!((world.contents(&vmo, 0), vmo.counts().rescues), (pattern(0), 1));
}

#[test]
fn a_vmo_that_traps_dirtying_is_supplied_alike() {
    let world = World::new();
    let (vmo, aux) = (world.vmo_with(VmoOptions::TRAP_DIRTY, 2), world.aux(2));
    fill(&aux, 0, 2);
    let mut writer = Task::pending(vmo.write(at(0, 0), b"w"));
    world.pager.supply_pages(&vmo, pages(0, 2), &aux, at(0, 0)).unwrap();
    assert_eq!(writer.poll(), None, "it asks DIRTY now");
    world.let_dirty(&vmo, 0, 1).unwrap();
    assert_eq!(writer.poll(), Some(Ok(())));
}

#[test]
fn supplying_nothing_does_nothing() {
    let world = World::new();
    let (vmo, aux) = (world.vmo(2), world.aux(2));
    fill(&aux, 0, 2);
    for (page, from) in [(0, 0), (2, 2), (0, 2), (2, 0)] {
        assert_eq!(world.pager.supply_pages(&vmo, pages(page, 0), &aux, at(from, 0)), Ok(()));
    }
    assert_eq!((committed(&aux), vmo.counts().resident), (2, PageCount(0)));
}

/// A VMO with one request in flight, and an aux, which a call that fails leaves as they are.
struct Scene {
    world: World,
    vmo: Vmo<HeapPlatform>,
    aux: AnonymousVmo<HeapPlatform>,
}

impl Scene {
    fn new() -> Self {
        let world = World::new();
        let (vmo, aux) = (world.vmo(4), world.aux(4));
        world.supply(&vmo, 3, 1).unwrap();
        fill(&aux, 0, 3);
        Self { world, vmo, aux }
    }

    fn refuses(&self, status: Status, call: impl Fn() -> Result<()>) {
        let mut waiter = Task::new(self.vmo.fault(PageIndex(0), Access::Read));
        let waits = waiter.poll().is_none();
        let before = (self.vmo.counts(), self.world.platform.frames());
        assert_eq!(call(), Err(status));
        assert_eq!((self.vmo.counts(), self.world.platform.frames()), before);
        assert_eq!((committed(&self.aux), bytes(&self.aux, 1)), (3, pattern(1)));
        assert_eq!((waiter.wakes(), waits && waiter.poll().is_some()), (0, false));
    }

    fn supply(&self, range: ByteRange, from: ByteOffset) -> Result<()> {
        self.world.pager.supply_pages(&self.vmo, range, &self.aux, from)
    }
}

#[test]
fn supply_refuses_anothers_vmo_and_frames_of_another_platform() {
    let scene = Scene::new();
    let other = Pager::new(scene.world.platform.clone());
    scene.refuses(Status::InvalidArgs, || other.supply_pages(&scene.vmo, pages(0, 1), &scene.aux, at(0, 0)));
    let elsewhere = AnonymousVmo::new(Arc::new(HeapPlatform::new()), 4 * PAGE_SIZE).unwrap();
    fill(&elsewhere, 0, 1);
    let supply = || scene.world.pager.supply_pages(&scene.vmo, pages(0, 1), &elsewhere, at(0, 0));
    scene.refuses(Status::InvalidArgs, supply);
    assert_eq!(committed(&elsewhere), 1);
}

#[test]
fn supply_refuses_what_is_crooked_before_what_is_outside() {
    let scene = Scene::new();
    for range in CROOKED {
        scene.refuses(Status::InvalidArgs, || scene.supply(range, at(0, 0)));
    }
    for from in [at(0, 1), at(0, 4095), at(9, 1), ByteOffset(u64::MAX)] {
        scene.refuses(Status::InvalidArgs, || scene.supply(pages(0, 1), from));
        scene.refuses(Status::InvalidArgs, || scene.supply(pages(9, 1), from));
    }
}

#[test]
fn supply_refuses_what_is_outside_either() {
    let scene = Scene::new();
    for range in outside() {
        scene.refuses(Status::OutOfRange, || scene.supply(range, at(0, 0)));
    }
    for (range, from) in [
        (pages(0, 1), at(4, 0)),
        (pages(0, 2), at(3, 0)),
        (pages(0, 0), at(5, 0)),
        (pages(0, 1), ByteOffset(u64::MAX - (PAGE_SIZE - 1))),
    ] {
        scene.refuses(Status::OutOfRange, || scene.supply(range, from));
    }
}

#[test]
fn supply_refuses_pinned_pages() {
    let scene = Scene::new();
    let pinned = scene.aux.pin(pages(1, 1)).unwrap();
    scene.refuses(Status::BadState, || scene.supply(pages(0, 3), at(0, 0)));
    assert_eq!(scene.supply(pages(0, 1), at(2, 0)), Ok(()), "beside it there is no pin");
    drop(pinned);
    assert_eq!(scene.supply(pages(1, 1), at(1, 0)), Ok(()));
}

#[test]
fn supply_refuses_a_detached_vmo() {
    let scene = Scene::new();
    scene.world.pager.detach_vmo(&scene.vmo).unwrap();
    scene.world.frames_become(3);
    scene.refuses(Status::BadState, || scene.supply(pages(0, 3), at(0, 0)));
    assert_eq!(scene.world.packets(), [complete_packet()]);
}

#[test]
fn a_closed_port_does_not_matter() {
    let Scene { world, vmo, aux } = Scene::new();
    let World { platform, pager, port } = world;
    drop(port);
    pager.supply_pages(&vmo, pages(0, 3), &aux, at(0, 0)).unwrap();
    assert_eq!(vmo.counts().resident, PageCount(4));
    drop((vmo, aux));
    World { port: Port::new(platform.clone()), platform, pager }.end();
}

#[test]
fn without_memory_the_pages_before_are_supplied_and_the_aux_is_decommitted() {
    let world = World::on(HeapPlatform::new().with_limit(PageCount(3)));
    let (vmo, aux) = (world.vmo(5), world.aux(5));
    fill(&aux, 0, 1);
    fill(&aux, 3, 1);
    let first = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    let mut last = Task::pending(vmo.fault(PageIndex(2), Access::Read));
    // One frame of zeros can be had; the second cannot.
    assert_eq!(world.pager.supply_pages(&vmo, pages(0, 4), &aux, at(0, 0)), Err(Status::NoMemory));
    assert_eq!(first.woken_with(), Ok(()));
    assert_eq!((last.wakes(), last.poll()), (0, None));
    assert_eq!(world.resident(&vmo, 5), [0, 1]);
    assert_eq!((world.contents(&vmo, 0), world.contents(&vmo, 1)), (pattern(0), vec![0; PAGE]));
    assert_eq!(committed(&aux), 0, "in any case");
    drop(last);
    world.frames_become(2);
    drop((vmo, aux));
    world.end();
}

/// A page that is being written counts as pinned: to a supply, and to a decommit.
#[test]
fn a_page_that_is_being_written_is_neither_moved_nor_decommitted() {
    let world = Arc::new(World::on(Hooked::default()));
    let (vmo, aux) = (Arc::new(world.vmo(2)), Arc::new(world.aux(2)));
    aux.write(at(1, 0), b"old").unwrap();
    let hook = {
        let (world, vmo, aux) = (world.clone(), vmo.clone(), aux.clone());
        move || {
            assert_eq!(world.pager.supply_pages(&vmo, pages(0, 2), &aux, at(0, 0)), Err(Status::BadState));
            assert_eq!(aux.decommit(pages(0, 2)), Err(Status::BadState));
            assert_eq!(world.pager.supply_pages(&vmo, pages(0, 1), &aux, at(0, 0)), Ok(()), "beside it");
        }
    };
    world.platform.before_copy_in(hook);
    aux.write(at(1, 0), b"new").unwrap();
    assert_eq!((bytes(&aux, 1)[..3].to_vec(), vmo.counts().resident), (b"new".to_vec(), PageCount(1)));
    assert_eq!(world.pager.supply_pages(&vmo, pages(1, 1), &aux, at(1, 0)), Ok(()));
    assert_eq!(world.contents(&vmo, 1)[..3], *b"new");
}

#[test]
fn a_reader_whose_page_moves_while_it_copies_reads_anew() {
    let world = Arc::new(World::on(Hooked::default()));
    let (vmo, aux) = (Arc::new(world.vmo(1)), Arc::new(world.aux(1)));
    aux.write(at(0, 0), b"old").unwrap();
    let hook = {
        let (world, vmo, aux) = (world.clone(), vmo.clone(), aux.clone());
        move || {
            world.pager.supply_pages(&vmo, pages(0, 1), &aux, at(0, 0)).unwrap();
            now(vmo.write(at(0, 0), b"others'")).unwrap();
        }
    };
    world.platform.before_copy_out(hook);
    assert_eq!(bytes(&aux, 0), [0; PAGE], "what was written to the VMO is not the aux's");
    assert_eq!(world.contents(&vmo, 0)[..7], *b"others'");
}

#[test]
fn a_reader_whose_page_is_decommitted_while_it_copies_keeps_the_frame() {
    let world = Arc::new(World::on(Hooked::default()));
    let aux = Arc::new(world.aux(1));
    aux.write(at(0, 0), b"old").unwrap();
    let hook = {
        let (world, aux) = (world.clone(), aux.clone());
        move || {
            aux.decommit(pages(0, 1)).unwrap();
            (0..100).for_each(|_| world.platform.pin().flush());
            assert_eq!(world.platform.frames(), PageCount(1), "it is pinned");
            aux.write(at(0, 0), b"new").unwrap();
        }
    };
    world.platform.before_copy_out(hook);
    assert_eq!(bytes(&aux, 0)[..3], *b"new");
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Read(usize),
    Write(usize, u8),
    Commit(usize, usize),
    Decommit(usize, usize),
    Zero(usize, usize),
    Pin(usize, usize),
    Unpin,
    /// To a page of the VMO, from a page of the aux, so many.
    Supply(usize, usize, usize),
    /// The rest is done to the VMO.
    WriteVmo(usize, u8),
    Evict,
    ZeroVmo(usize),
    Detach,
}

const SIZE: usize = 6;

fn step() -> impl Strategy<Value = Step> {
    let range = || (0..SIZE, 0..SIZE).prop_map(|(a, b)| (a.min(b), a.abs_diff(b)));
    let page = || 0..SIZE;
    prop_oneof![
        2 => page().prop_map(Step::Read),
        4 => (page(), 1..u8::MAX).prop_map(|(page, byte)| Step::Write(page, byte)),
        1 => range().prop_map(|(first, count)| Step::Commit(first, count)),
        1 => range().prop_map(|(first, count)| Step::Decommit(first, count)),
        1 => range().prop_map(|(first, count)| Step::Zero(first, count)),
        1 => range().prop_map(|(first, count)| Step::Pin(first, count)),
        1 => Just(Step::Unpin),
        4 => (page(), page(), page()).prop_map(|(to, from, count)| Step::Supply(to, from, count.min(SIZE - to.max(from)))),
        3 => (page(), 1..u8::MAX).prop_map(|(page, byte)| Step::WriteVmo(page, byte)),
        1 => Just(Step::Evict),
        1 => page().prop_map(Step::ZeroVmo),
        1 => Just(Step::Detach),
    ]
}

fn range(first: usize, count: usize) -> ByteRange {
    pages(first as u64, count as u64)
}

/// What a page of the VMO is read as, if it can be.
fn read_vmo(vmo: &Vmo<HeapPlatform>, page: usize) -> Option<u8> {
    let mut byte = [0];
    let came = Task::new(vmo.read(at(page as u64, 0), &mut byte)).poll();
    (came == Some(Ok(()))).then_some(byte[0])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn histories_are_those_of_the_specification(steps in prop::collection::vec(step(), 1..60)) {
        let world = World::new();
        let (vmo, aux) = (world.vmo(SIZE as u64), world.aux(SIZE as u64));
        let (mut vmo_spec, mut spec) = (Spec::new(SIZE), Anonymous::new(SIZE));
        let mut pins = Vec::new();
        for step in steps {
            match step {
                Step::Read(page) => prop_assert_eq!(byte(&aux, page as u64), spec.read(page)),
                Step::Write(page, byte) => {
                    prop_assert_eq!(aux.write(at(page as u64, 0), &[byte]), Ok(()));
                    spec.write(page, byte);
                }
                Step::Commit(first, count) => {
                    prop_assert_eq!(aux.commit(range(first, count)), Ok(()));
                    spec.commit(first, count);
                }
                Step::Decommit(first, count) => {
                    prop_assert_eq!(aux.decommit(range(first, count)), spec.decommit(first, count));
                }
                Step::Zero(first, count) => {
                    prop_assert_eq!(aux.zero(range(first, count)), Ok(()));
                    spec.zero(first, count);
                }
                Step::Pin(first, count) => {
                    pins.push((aux.pin(range(first, count)).unwrap(), first, count));
                    spec.pin(first, count);
                }
                Step::Unpin => {
                    if !pins.is_empty() {
                        let (pinned, first, count) = pins.remove(0);
                        drop(pinned);
                        spec.unpin(first, count);
                    }
                }
                Step::Supply(to, from, count) => {
                    let supplied = world.pager.supply_pages(&vmo, range(to, count), &aux, at(from as u64, 0));
                    prop_assert_eq!(supplied, spec.supply(from, count, &mut vmo_spec, to as u64));
                }
                Step::WriteVmo(page, byte) => {
                    if vmo_spec.page(page as u64) != Page::Absent {
                        prop_assert_eq!(now(vmo.write(at(page as u64, 0), &[byte])), Ok(()));
                        vmo_spec.write(page as u64, 1, byte);
                    }
                }
                Step::Evict => {
                    vmo.evict(PageCount(MAX_VMO_SIZE), Evict::Any);
                    for page in 0..SIZE as u64 {
                        vmo_spec.evict(page);
                    }
                    let stored = |page: &u64| matches!(vmo_spec.page(*page), Page::Dirty(_) | Page::AwaitingClean(_));
                    world.frames_become((0..SIZE as u64).filter(stored).count() as u64 + spec.committed() as u64);
                    for page in 0..SIZE as u64 {
                        vmo_spec.reclaim(page);
                    }
                }
                Step::ZeroVmo(page) => {
                    now(vmo.zero(range(page, 1))).unwrap();
                    vmo_spec.zero(page as u64);
                }
                Step::Detach => {
                    world.pager.detach_vmo(&vmo).unwrap();
                    vmo_spec.detach();
                }
            }
            prop_assert_eq!(aux.committed(), PageCount(spec.committed() as u64));
            for page in 0..SIZE {
                prop_assert_eq!(byte(&aux, page as u64), spec.read(page));
                let expected = match vmo_spec.page(page as u64) {
                    Page::Absent => None,
                    Page::Zero | Page::ZeroAwaiting => Some(0),
                    Page::Clean(byte) | Page::Evicting(byte) | Page::Dirty(byte) | Page::AwaitingClean(byte) => Some(byte),
                };
                prop_assert_eq!(read_vmo(&vmo, page), expected);
            }
        }
        drop(pins);
        drop((vmo, aux));
        world.end();
    }
}

/// Service threads share an aux. What each writes there carries its number; so does what is written to the
/// VMO, by other numbers. Nobody reads in the aux what was written only to the VMO.
#[test]
fn many_threads_supply_out_of_one_aux_while_others_read_and_write() {
    const PAGES: u64 = 4;
    const AUX: u64 = 0xa000_0000_0000_0000;
    const VMO: u64 = 0xb000_0000_0000_0000;
    let world = World::new();
    let aux = world.aux(PAGES);
    let over = AtomicBool::new(false);
    let moved = AtomicU64::new(0);
    for _ in 0..30 {
        let vmo = world.vmo(PAGES);
        over.store(false, Ordering::SeqCst);
        thread::scope(|s| {
            let end = SetOnDrop(&over);
            for service in 0..2 {
                let (world, aux, vmo, over, moved) = (&world, &aux, &vmo, &over, &moved);
                s.spawn(move || {
                    let mut random = Random(1 + service);
                    // On a busy machine the readers may have ended before this has moved anything.
                    while !over.load(Ordering::SeqCst) || moved.load(Ordering::Relaxed) == 0 {
                        let (to, from) = (random.below(PAGES), random.below(PAGES));
                        match world.pager.supply_pages(vmo, pages(to, 1), aux, at(from, 0)) {
                            Ok(()) => drop(moved.fetch_add(1, Ordering::Relaxed)),
                            Err(status) => assert_eq!(status, Status::BadState, "it was being written"),
                        }
                        vmo.evict(PageCount(1), Evict::Any);
                    }
                });
            }
            for writer in 0..2 {
                let (aux, vmo, over) = (&aux, &vmo, &over);
                s.spawn(move || {
                    let mut random = Random(11 + writer);
                    while !over.load(Ordering::SeqCst) {
                        let page = random.below(PAGES);
                        aux.write(at(page, 0), &(AUX | random.below(1 << 32)).to_le_bytes()).unwrap();
                        let write = (VMO | random.below(1 << 32)).to_le_bytes();
                        let came = Task::new(vmo.write(at(page, 0), &write)).poll();
                        assert!(matches!(came, None | Some(Ok(()))), "{came:?}");
                        if random.below(8) == 0 {
                            let decommitted = aux.decommit(pages(page, 1));
                            assert!(matches!(decommitted, Ok(()) | Err(Status::BadState)));
                        }
                    }
                });
            }
            let mut bytes = [0; 8];
            for round in 0..3000 {
                aux.read(at(round % PAGES, 0), &mut bytes).unwrap();
                let seen = u64::from_le_bytes(bytes);
                assert!(seen == 0 || seen >> 60 == AUX >> 60, "{seen:x} is of the VMO");
            }
            drop(end);
        });
        world.pager.detach_vmo(&vmo).unwrap();
        drop(vmo);
    }
    assert!(moved.load(Ordering::Relaxed) > 0);
    drop(aux);
    assert!(world.packets().iter().all(|packet| packet.key == KEY));
    world.end();
}
