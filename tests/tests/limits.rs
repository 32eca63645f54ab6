//! What happens at the limits: no frames, failing allocations, the largest sizes, the most waiters.

use std::collections::BTreeSet;

use upager::{
    Access, ByteOffset, Evict, HeapPlatform, MAX_VMO_SIZE, OwnedFrame, PAGE_SIZE, PageCount, PageIndex, Status,
    Writeback,
};
use upager_tests::{Task, World, at, dirty_ranges, now, pages, pattern, read_packet};

#[test]
fn at_the_frame_limit_the_service_hears_no_memory_and_goes_on_after_an_eviction() {
    let world = World::on(HeapPlatform::new().with_limit(PageCount(4)));
    let vmo = world.vmo(100);
    world.supply(&vmo, 0, 4).unwrap();
    let mut waiter = Task::pending(vmo.fault(PageIndex(9), Access::Read));
    assert_eq!(OwnedFrame::new(&*world.platform).map(drop), Err(Status::NoMemory));
    assert_eq!((waiter.wakes(), waiter.poll()), (0, None), "the request is still open");
    assert_eq!(vmo.evict(PageCount(1), Evict::Any), PageCount(1));
    world.frames_become(3);
    world.supply(&vmo, 9, 1).unwrap();
    assert_eq!(waiter.woken_with(), Ok(()));
    assert_eq!(world.contents(&vmo, 9), pattern(9));
}

#[test]
fn a_vmo_larger_than_memory_is_read_and_written_through() {
    const PAGES: u64 = 64;
    let world = World::on(HeapPlatform::new().with_limit(PageCount(8)));
    let vmo = world.vmo(PAGES);
    let mut store: Vec<Vec<u8>> = (0..PAGES).map(pattern).collect();
    for round in 0..2u8 {
        for page in 0..PAGES {
            let bytes = [round, 0x5a];
            let mut writer = Task::new(vmo.write(at(page, 7), &bytes));
            if writer.poll().is_none() {
                assert_eq!(world.packets(), [read_packet(page, 1)]);
                let frame = OwnedFrame::new(&*world.platform).unwrap();
                frame.write(0, &store[usize::try_from(page).unwrap()]).unwrap();
                world.pager.supply_frames(&vmo, pages(page, 1), [frame]).unwrap();
                assert_eq!(writer.woken_with(), Ok(()));
            }
            if world.platform.frames() == PageCount(8) {
                for (first, count) in dirty_ranges(&world.pager, &vmo) {
                    world.pager.writeback_begin(&vmo, pages(first, count), Writeback::All).unwrap();
                    for page in first..first + count {
                        store[usize::try_from(page).unwrap()] = world.contents(&vmo, page);
                    }
                    world.pager.writeback_end(&vmo, pages(first, count)).unwrap();
                }
                world.evict_now(&vmo, 0);
            }
        }
    }
    world.evict_now(&vmo, vmo.counts().dirty.0);
    for (page, stored) in (0..PAGES).zip(store) {
        let now_is = if world.is_resident(&vmo, page) { world.contents(&vmo, page) } else { stored };
        let mut expected = pattern(page);
        expected[7..9].copy_from_slice(&[1, 0x5a]);
        assert_eq!(now_is, expected, "page {page}");
    }
}

/// One of everything a service does, with a platform that may refuse frames. Returns how many
/// waiters got their page and how many an error; together they are all.
fn scenario(world: &World) -> (usize, usize) {
    let vmo = world.vmo(16);
    let (mut served, mut failed) = (0, 0);
    for round in 0..3u8 {
        let mut buffer = vec![0; 4 * 4096];
        let byte = [round];
        let waiters = [
            Task::pending(vmo.fault(PageIndex(0), Access::Read)),
            Task::pending(vmo.fault(PageIndex(0), Access::Write)),
            Task::pending(vmo.read(at(2, 0), &mut buffer)),
            Task::pending(vmo.write(at(8, 4), &byte)),
        ];
        for packet in world.packets() {
            let count = packet.page_request.length / PAGE_SIZE;
            let frames: Result<Vec<_>, _> = (0..count).map(|_| OwnedFrame::new(&*world.platform)).collect();
            match frames {
                Ok(frames) => world.pager.supply_frames(&vmo, packet.range(), frames).unwrap(),
                Err(status) => {
                    assert_eq!(status, Status::NoMemory);
                    world.pager.fail_range(&vmo, packet.range(), Status::NoSpace).unwrap();
                }
            }
        }
        for waiter in waiters {
            match waiter.woken_with() {
                Ok(()) => served += 1,
                Err(status) => {
                    assert_eq!(status, Status::NoSpace);
                    failed += 1;
                }
            }
        }
        world.write_back(&vmo, 0, 16);
        world.evict_now(&vmo, 0);
    }
    assert_eq!(vmo.counts().in_flight, 0);
    world.pager.detach_vmo(&vmo).unwrap();
    drop(vmo);
    assert_eq!(world.packets().len(), 1);
    world.frames_become(0);
    (served, failed)
}

#[test]
fn a_failure_of_any_one_allocation_leaks_nothing_and_hangs_nobody() {
    let world = World::new();
    assert_eq!(scenario(&world), (12, 0));
    let allocations = 18;
    for fails in 0..allocations {
        let world = World::on(HeapPlatform::new().with_failures(move |attempt| attempt == fails));
        let (served, failed) = scenario(&world);
        assert_eq!(served + failed, 12);
        assert!((1..=2).contains(&failed), "allocation {fails} fails one request: {failed}");
        world.end();
    }
}

#[test]
fn failing_allocations_from_some_point_on_leak_nothing_and_hang_nobody() {
    for from in 0..=18 {
        let world = World::on(HeapPlatform::new().with_failures(move |attempt| attempt >= from));
        let (served, failed) = scenario(&world);
        assert_eq!(served + failed, 12);
        assert_eq!(failed == 0, from >= 18);
        world.end();
    }
}

#[test]
fn the_largest_vmo_is_accessed_at_both_ends() {
    let world = World::new();
    let last = MAX_VMO_SIZE / PAGE_SIZE - 1;
    let vmo = world.vmo(last + 1);
    assert_eq!(vmo.size(), 1 << 52);
    for page in [0, last] {
        let mut byte = [0];
        let reader = Task::pending(vmo.read(at(page, 4095), &mut byte));
        assert_eq!(world.packets(), [read_packet(page, 1)]);
        world.supply(&vmo, page, 1).unwrap();
        assert_eq!(reader.woken_with(), Ok(()));
        assert_eq!(byte[0], pattern(page)[4095]);
        now(vmo.write(at(page, 0), &[0xee])).unwrap();
    }
    assert_eq!(now(vmo.read(ByteOffset(MAX_VMO_SIZE - 1), &mut [0, 0])), Err(Status::OutOfRange));
    assert_eq!(now(vmo.read(ByteOffset(MAX_VMO_SIZE), &mut [0])), Err(Status::OutOfRange));
    assert_eq!(now(vmo.fault(PageIndex(last + 1), Access::Read)), Err(Status::OutOfRange));
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(0, 1), (last, 1)]);
    world.write_back(&vmo, 0, last + 1);
    world.evict_now(&vmo, 0);
    let waiter = Task::pending(vmo.fault_run(PageIndex(last), PageCount(u64::MAX), Access::Write));
    assert_eq!(world.packets(), [read_packet(last, 1)]);
    assert_eq!(world.pager.detach_vmo(&vmo).unwrap().failed_requests, 1);
    assert_eq!(waiter.woken_with(), Err(Status::BadState));
}

#[test]
fn a_tebibyte_with_three_pages_costs_three_pages() {
    let world = World::new();
    let vmo = world.vmo((1 << 40) / PAGE_SIZE);
    let places = [12_345, (1 << 27) + 7, (1 << 28) - 1];
    for page in places {
        world.supply(&vmo, page, 1).unwrap();
        now(vmo.write(at(page, 1), &[1])).unwrap();
    }
    assert_eq!(world.platform.frames(), PageCount(3));
    assert_eq!(dirty_ranges(&world.pager, &vmo), places.map(|page| (page, 1)));
    assert_eq!(vmo.counts().resident, PageCount(3));
    // Each of these costs what is there, not a tebibyte: repeat them, or wait for ever.
    for _ in 0..100 {
        dirty_ranges(&world.pager, &vmo);
        vmo.evict(PageCount(1), Evict::Unused);
        let _ = vmo.counts();
        world.write_back(&vmo, 5, 1);
    }
    world.write_back(&vmo, 0, (1 << 40) / PAGE_SIZE);
    assert_eq!(world.pager.detach_vmo(&vmo).unwrap().dropped_pages, PageCount(3));
    world.frames_become(0);
}

#[test]
fn a_vmo_has_room_for_so_many_waiters_and_says_so_at_the_next() {
    let world = World::new();
    let vmo = world.vmo(4);
    let fill = |page| {
        let mut waiters = Vec::new();
        let refused = loop {
            let mut task = Task::new(vmo.fault(PageIndex(page), Access::Read));
            match task.poll() {
                None => waiters.push(task),
                Some(outcome) => break outcome,
            }
            assert!(waiters.len() <= 1 << 17);
        };
        assert_eq!(refused, Err(Status::NoResources));
        assert_eq!(now(vmo.fault(PageIndex(3), Access::Read)), Err(Status::NoResources));
        waiters
    };
    let serve = |page, waiters: Vec<Task<'_, _>>| {
        assert_eq!(world.packets(), [read_packet(page, 1)]);
        world.supply(&vmo, page, 1).unwrap();
        for waiter in waiters {
            assert_eq!(waiter.woken_with(), Ok(()));
        }
    };
    let waiters = fill(0);
    let admitted = waiters.len();
    assert!(admitted > 100_000, "{admitted}");
    // Whoever was admitted is served, and then there is room again: for as many, when the next packet has been taken.
    serve(0, waiters);
    serve(1, vec![Task::pending(vmo.fault(PageIndex(1), Access::Read))]);
    let waiters = fill(2);
    assert_eq!(waiters.len(), admitted);
    serve(2, waiters);
}

#[test]
fn waiters_that_left_make_room_for_others() {
    let world = World::new();
    let vmo = world.vmo(2);
    // A slow service: one waits on, while others come and time out, again and again.
    let stays = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    for n in 0..300_000 {
        let mut leaver = Task::new(vmo.fault(PageIndex(0), Access::Read));
        assert_eq!(leaver.poll(), None, "number {n}: only one other waits");
    }
    drop(Task::pending(vmo.fault(PageIndex(1), Access::Read)));
    world.supply(&vmo, 0, 1).unwrap();
    assert_eq!(stays.woken_with(), Ok(()));
}

#[test]
fn accesses_that_fail_take_no_room() {
    let world = World::new();
    let vmo = world.vmo(1);
    world.pager.detach_vmo(&vmo).unwrap();
    for n in 0..=1 << 17 {
        assert_eq!(now(vmo.fault(PageIndex(0), Access::Read)), Err(Status::BadState), "number {n}");
    }
}

#[test]
fn a_long_run_is_one_request() {
    let world = World::new();
    let run = 1 << 18; // 1 GiB
    let vmo = world.vmo(run);
    let waiter = Task::pending(vmo.fault_run(PageIndex(0), PageCount(run), Access::Read));
    assert_eq!(world.packets(), [read_packet(0, run)]);
    world.pager.fail_range(&vmo, pages(run - 1, 1), Status::Io).unwrap();
    assert_eq!(waiter.woken_with(), Err(Status::Io));
    drop(Task::pending(vmo.fault_run(PageIndex(0), PageCount(run), Access::Read)));
    assert_eq!(world.packets(), []);
}

#[test]
fn ids_of_live_vmos_differ() {
    let world = World::new();
    let vmos: Vec<_> = (0..500).map(|_| world.vmo(1)).collect();
    let ids: BTreeSet<_> = vmos.iter().map(|vmo| format!("{:?}", vmo.id())).collect();
    assert_eq!(ids.len(), vmos.len());
}
