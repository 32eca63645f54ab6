//! Growing and shrinking.

use upager::{
    Access, ByteRange, Command, DirtyRange, MAX_VMO_SIZE, PAGE_SIZE, Packet, PageCount, PageIndex, Status, Vmo,
    VmoOptions, VmoStatsOptions,
};
use upager_tests::{KEY, Task, World, at, pages, read_packet};

fn resizable(world: &World, pages: u64) -> Vmo<upager::HeapPlatform> {
    world.vmo_with(VmoOptions::RESIZABLE, pages)
}

fn dirty(world: &World, vmo: &Vmo<upager::HeapPlatform>) -> Vec<(u64, u64, u64)> {
    let mut buffer = [DirtyRange::default(); 16];
    let found = world.pager.query_dirty_ranges(vmo, ByteRange::new(0, vmo.size()), &mut buffer).expect("in range");
    let run = |run: &DirtyRange| (run.offset / PAGE_SIZE, run.length / PAGE_SIZE, run.options);
    buffer[..found.available].iter().map(run).collect()
}

#[test]
fn growing_adds_dirty_zeros() {
    let world = World::new();
    let vmo = resizable(&world, 2);
    world.supply(&vmo, 0, 2).unwrap();
    vmo.set_size(5 * PAGE_SIZE - 1).unwrap();
    assert_eq!(vmo.size(), 5 * PAGE_SIZE, "rounded up");
    assert_eq!(dirty(&world, &vmo), [(2, 3, DirtyRange::ZERO)]);
    let mut bytes = [1; 8];
    assert_eq!(Task::new(vmo.read(at(4, 4088), &mut bytes)).poll(), Some(Ok(())));
    assert_eq!(bytes, [0; 8]);
    assert_eq!(world.packets(), []);
}

#[test]
fn shrinking_drops_pages_dirty_ones_too_and_frees_their_frames() {
    let world = World::new();
    let vmo = resizable(&world, 6);
    world.supply(&vmo, 0, 6).unwrap();
    world.make_dirty(&vmo, 3, 2, 9);
    world.pager.writeback_begin(&vmo, pages(4, 1), upager::Writeback::All).unwrap();
    vmo.set_size(2 * PAGE_SIZE).unwrap();
    let counts = vmo.counts();
    assert_eq!((counts.resident, counts.dirty), (PageCount(2), PageCount(0)));
    world.frames_become(2);
    let mut byte = [0];
    assert_eq!(Task::new(vmo.read(at(2, 0), &mut byte)).poll(), Some(Err(Status::OutOfRange)));
    assert_eq!(Task::new(vmo.write(at(2, 0), &byte)).poll(), Some(Err(Status::OutOfRange)));
    assert_eq!(Task::new(vmo.fault(PageIndex(2), Access::Write)).poll(), Some(Err(Status::OutOfRange)));
    assert_eq!(world.supply(&vmo, 1, 2), Err(Status::OutOfRange));
}

#[test]
fn what_comes_back_after_shrinking_and_growing_is_zeros() {
    let world = World::new();
    let vmo = resizable(&world, 4);
    world.make_dirty(&vmo, 0, 4, 9);
    vmo.set_size(PAGE_SIZE).unwrap();
    vmo.set_size(4 * PAGE_SIZE).unwrap();
    assert_eq!(dirty(&world, &vmo), [(0, 1, 0), (1, 3, DirtyRange::ZERO)]);
    let mut byte = [1];
    assert_eq!(Task::new(vmo.read(at(3, 0), &mut byte)).poll(), Some(Ok(())));
    assert_eq!(byte, [0]);
}

#[test]
fn requests_beyond_the_end_fail_and_are_not_delivered() {
    let world = World::new();
    let vmo = resizable(&world, 8);
    let mut delivered = Task::pending(vmo.fault(PageIndex(6), Access::Read));
    assert_eq!(world.packets(), [read_packet(6, 1)]);
    let mut queued = Task::pending(vmo.fault(PageIndex(4), Access::Read));
    vmo.set_size(4 * PAGE_SIZE).unwrap();
    for task in [&mut delivered, &mut queued] {
        assert_eq!(task.wakes(), 1);
        assert_eq!(task.poll(), Some(Err(Status::OutOfRange)));
    }
    assert_eq!(world.packets(), []);
    assert_eq!(vmo.counts().in_flight, 0);
}

#[test]
fn a_request_that_straddles_the_end_is_cut_and_its_rest_resolves() {
    let world = World::new();
    let vmo = resizable(&world, 8);
    let mut task = Task::pending(vmo.fault_run(PageIndex(2), PageCount(5), Access::Read));
    vmo.set_size(4 * PAGE_SIZE).unwrap();
    assert_eq!(task.wakes(), 0);
    assert_eq!(world.packets(), [read_packet(2, 2)], "the packet asks for what is left");
    world.supply(&vmo, 2, 2).unwrap();
    assert_eq!(task.wakes(), 1);
    assert_eq!(task.poll(), Some(Ok(())));
}

#[test]
fn a_request_whose_rest_had_arrived_resolves_with_the_cut() {
    let world = World::new();
    let vmo = resizable(&world, 8);
    let mut task = Task::pending(vmo.fault_run(PageIndex(2), PageCount(4), Access::Read));
    world.supply(&vmo, 2, 2).unwrap();
    assert_eq!(task.wakes(), 0);
    vmo.set_size(4 * PAGE_SIZE).unwrap();
    assert_eq!(task.wakes(), 1);
    assert_eq!(task.poll(), Some(Ok(())));
}

#[test]
fn a_waiter_for_a_page_that_was_cut_away_is_told() {
    let world = World::new();
    let vmo = resizable(&world, 8);
    let first = Task::pending(vmo.fault_run(PageIndex(2), PageCount(4), Access::Read));
    let mut joiner = Task::pending(vmo.fault(PageIndex(5), Access::Read));
    vmo.set_size(4 * PAGE_SIZE).unwrap();
    world.supply(&vmo, 2, 2).unwrap();
    assert_eq!(joiner.poll(), Some(Err(Status::OutOfRange)));
    drop(first);
}

#[test]
fn dirty_requests_beyond_the_end_fail_and_those_that_straddle_it_go_on() {
    let world = World::new();
    let options = VmoOptions::from_bits(2 | 8).unwrap();
    let vmo = world.vmo_with(options, 6);
    world.supply(&vmo, 0, 6).unwrap();
    let mut straddles = Task::pending(vmo.fault_run(PageIndex(1), PageCount(2), Access::Write));
    let mut beyond = Task::pending(vmo.fault(PageIndex(4), Access::Write));
    vmo.set_size(2 * PAGE_SIZE).unwrap();
    assert_eq!(beyond.poll(), Some(Err(Status::OutOfRange)));
    assert_eq!(world.pager.dirty_range(&vmo, pages(1, 1)), Ok(()));
    assert_eq!(straddles.poll(), Some(Ok(())));
    assert_eq!(world.pager.dirty_range(&vmo, pages(1, 2)), Err(Status::OutOfRange));
    let _: Vec<Packet> = world.packets();
}

#[test]
fn only_a_resizable_vmo_changes_its_size() {
    let world = World::new();
    let fixed = world.vmo(2);
    for size in [0, PAGE_SIZE, 2 * PAGE_SIZE, 3 * PAGE_SIZE, u64::MAX] {
        assert_eq!(fixed.set_size(size), Err(Status::Unavailable));
    }
    let vmo = resizable(&world, 2);
    for size in [MAX_VMO_SIZE + 1, u64::MAX] {
        assert_eq!(vmo.set_size(size), Err(Status::OutOfRange));
    }
    assert_eq!(vmo.size(), 2 * PAGE_SIZE);
    assert_eq!(vmo.set_size(MAX_VMO_SIZE), Ok(()));
    let mut byte = [1];
    assert_eq!(Task::new(vmo.read(at(MAX_VMO_SIZE / PAGE_SIZE - 1, 4095), &mut byte)).poll(), Some(Ok(())));
    assert_eq!(vmo.set_size(0), Ok(()));
    assert_eq!(dirty(&world, &vmo), []);
}

#[test]
fn a_resize_is_a_modification_and_the_same_size_again_too() {
    let world = World::new();
    let vmo = resizable(&world, 2);
    let modified = || world.pager.query_vmo_stats(&vmo, VmoStatsOptions::Reset).unwrap().modified;
    assert_eq!(modified(), 0);
    vmo.set_size(PAGE_SIZE).unwrap();
    assert_eq!(modified(), 1);
    vmo.set_size(3 * PAGE_SIZE).unwrap();
    assert_eq!(modified(), 1);
    assert_eq!(modified(), 0);
}

#[test]
fn a_vmo_is_resized_after_detach_and_close() {
    let World { platform, pager, port } = World::new();
    let vmo = pager.create_vmo(&port, KEY, VmoOptions::RESIZABLE, 2 * PAGE_SIZE).unwrap();
    pager.detach_vmo(&vmo).unwrap();
    vmo.set_size(4 * PAGE_SIZE).unwrap();
    let mut byte = [1];
    assert_eq!(Task::new(vmo.read(at(3, 0), &mut byte)).poll(), Some(Ok(())));
    assert_eq!(Task::new(vmo.read(at(1, 0), &mut byte)).poll(), Some(Err(Status::BadState)), "absent as before");
    drop(pager);
    vmo.set_size(PAGE_SIZE).unwrap();
    vmo.set_size(2 * PAGE_SIZE).unwrap();
    assert_eq!(Task::new(vmo.read(at(1, 0), &mut byte)).poll(), Some(Ok(())), "zeros now");
    let mut packets = [Packet::default(); 4];
    let taken = port.take(&mut packets);
    assert!(packets[..taken].iter().all(|packet| packet.command() != Some(Command::Read)));
    drop((vmo, port, platform));
}

#[test]
fn a_table_grows_over_many_levels_and_loses_nothing() {
    let world = World::new();
    let vmo = resizable(&world, 1);
    world.make_dirty(&vmo, 0, 1, 7);
    let mut size = 1;
    while size < 1 << 39 {
        let last = size - 1;
        if last > 0 {
            assert_eq!(Task::new(vmo.write(at(last, 0), &[7])).poll(), Some(Ok(())));
        }
        size *= 8;
        vmo.set_size(size * PAGE_SIZE).unwrap();
    }
    let mut byte = [0];
    for page in (0..13).map(|power| (1u64 << (3 * power)) - 1) {
        assert_eq!(Task::new(vmo.read(at(page, 0), &mut byte)).poll(), Some(Ok(())));
        assert_eq!(byte, [7], "page {page}");
    }
    let counts = vmo.counts();
    assert_eq!(counts.dirty, PageCount(13));
    assert_eq!(counts.zero.0, size - 13);
}
