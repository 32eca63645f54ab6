//! Each public call, each way to call it wrongly: the error, and that nothing changed.

use std::time::Instant;

use upager::{
    Access, AnonymousVmo, ByteOffset, ByteRange, DirtyRange, HeapPlatform, MAX_USER_PACKETS, MAX_VMO_SIZE, OwnedFrame,
    PACKET_TYPE_PAGE_REQUEST, PAGE_SIZE, Packet, PageCount, PageIndex, Pager, PagerOp, Status, Vmo, VmoCounts,
    VmoOptions, Writeback,
};
use upager_tests::{KEY, Task, World, at, dirty_packet, dirty_ranges, now, pages, pattern, read_packet};

const PAGES: u64 = 8;
const SIZE: u64 = PAGES * PAGE_SIZE;

/// A VMO with a page of each kind: 0 clean, 1 dirty, 2 awaiting clean, 3 requested and delivered,
/// 5 requested and queued, the others absent. Where it traps dirtying, a writer waits for page 0.
struct Scene {
    world: World,
    vmo: Vmo<HeapPlatform>,
    traps: bool,
}

/// All that a caller can see of the VMO without changing it.
#[derive(Debug, PartialEq)]
struct Seen {
    counts: VmoCounts,
    dirty: Vec<(u64, u64)>,
    resident: Vec<u64>,
    contents: Vec<Vec<u8>>,
    frames: PageCount,
}

impl Scene {
    fn new() -> Self {
        Self::with(VmoOptions::NONE)
    }

    fn trapping() -> Self {
        Self::with(VmoOptions::TRAP_DIRTY)
    }

    fn with(options: VmoOptions) -> Self {
        let world = World::new();
        let vmo = world.vmo_with(options, PAGES);
        let scene = Self { world, vmo, traps: options == VmoOptions::TRAP_DIRTY };
        scene.world.supply(&scene.vmo, 0, 3).unwrap();
        for page in [1, 2] {
            scene.write(page);
        }
        scene.world.pager.writeback_begin(&scene.vmo, pages(2, 1), Writeback::All).unwrap();
        scene
    }

    /// Writes a page that is there, with leave where that is needed.
    fn write(&self, page: u64) {
        if self.traps {
            self.world.let_dirty(&self.vmo, page, 1).unwrap();
        }
        now(self.vmo.write(at(page, 0), &[0xdd])).unwrap();
    }

    fn waiters(&self) -> Vec<Task<'_, Result<(), Status>>> {
        let mut waiters = vec![Task::pending(self.vmo.fault(PageIndex(3), Access::Read))];
        assert_eq!(self.world.packets(), [read_packet(3, 1)]);
        waiters.push(Task::pending(self.vmo.fault(PageIndex(5), Access::Write)));
        if self.traps {
            waiters.push(Task::pending(self.vmo.fault(PageIndex(0), Access::Write)));
        }
        waiters
    }

    fn seen(&self) -> Seen {
        let resident = self.world.resident(&self.vmo, PAGES);
        Seen {
            counts: self.vmo.counts(),
            dirty: dirty_ranges(&self.world.pager, &self.vmo),
            contents: resident.iter().map(|page| self.world.contents(&self.vmo, *page)).collect(),
            frames: self.world.platform.frames(),
            resident,
        }
    }

    /// Makes the call, which must fail so, and checks that it changed nothing: not the VMO, not
    /// the requests, not what the service gets.
    fn fails<T>(&self, expected: Status, call: impl FnOnce(&World, &Vmo<HeapPlatform>) -> Result<T, Status>) {
        let mut waiters = self.waiters();
        let before = self.seen();
        assert_eq!(call(&self.world, &self.vmo).map(drop), Err(expected));
        assert_eq!(self.seen(), before);
        for waiter in &mut waiters {
            assert_eq!(waiter.wakes(), 0);
            assert_eq!(waiter.poll(), None);
        }
        let mut queued = vec![read_packet(5, 1)];
        if self.traps {
            queued.push(dirty_packet(0, 1));
        }
        assert_eq!(self.world.packets(), queued, "what was queued is still queued, and no more");
        // The page awaiting clean is still that: END cleans it. Put it back after.
        self.world.pager.writeback_end(&self.vmo, pages(2, 1)).unwrap();
        assert_eq!(dirty_ranges(&self.world.pager, &self.vmo), [(1, 1)]);
        self.write(2);
        self.world.pager.writeback_begin(&self.vmo, pages(2, 1), Writeback::All).unwrap();
    }
}

/// Ranges that are not made of pages.
fn misaligned() -> [ByteRange; 4] {
    [
        ByteRange::new(1, PAGE_SIZE),
        ByteRange::new(0, PAGE_SIZE - 1),
        ByteRange::new(PAGE_SIZE / 2, PAGE_SIZE / 2),
        ByteRange::new(u64::MAX, u64::MAX),
    ]
}

/// Ranges of whole pages that do not lie inside the VMO, or have no end.
fn outside() -> [ByteRange; 6] {
    [
        pages(0, PAGES + 1),
        pages(PAGES, 1),
        pages(PAGES + 1, 0),
        pages(PAGES - 1, 2),
        ByteRange::new(PAGE_SIZE, u64::MAX - PAGE_SIZE + 1), // ends at 2^64
        ByteRange::new(u64::MAX - PAGE_SIZE + 1, u64::MAX - PAGE_SIZE + 1),
    ]
}

#[test]
fn status_values_are_zircons() {
    let values = [
        (Status::Internal, -1),
        (Status::NotSupported, -2),
        (Status::NoResources, -3),
        (Status::NoMemory, -4),
        (Status::InvalidArgs, -10),
        (Status::BadHandle, -11),
        (Status::WrongType, -12),
        (Status::OutOfRange, -14),
        (Status::BufferTooSmall, -15),
        (Status::BadState, -20),
        (Status::TimedOut, -21),
        (Status::ShouldWait, -22),
        (Status::Canceled, -23),
        (Status::NotFound, -25),
        (Status::AlreadyExists, -26),
        (Status::Unavailable, -28),
        (Status::AccessDenied, -30),
        (Status::Io, -40),
        (Status::IoDataIntegrity, -42),
        (Status::NoSpace, -54),
    ];
    for (status, value) in values {
        assert_eq!(status as i32, value);
        assert_eq!(Status::from_raw(value), Some(status));
        assert!(!status.to_string().is_empty());
    }
    let known = (-100..=100).filter(|raw| Status::from_raw(*raw).is_some()).count();
    assert_eq!(known, values.len());
    assert_eq!(Status::from_raw(0), None);
    assert_eq!(Status::from_raw(i32::MIN), None);
}

#[test]
fn create_vmo_refuses_a_size_beyond_the_largest() {
    let world = World::new();
    for size in [MAX_VMO_SIZE + 1, u64::MAX] {
        let made = world.pager.create_vmo(&world.port, 1, VmoOptions::NONE, size);
        assert_eq!(made.map(drop), Err(Status::OutOfRange));
    }
    assert_eq!(world.packets(), [], "no VMO, so no COMPLETE either");
}

#[test]
fn detach_vmo_refuses_another_pagers_vmo() {
    let scene = Scene::new();
    let other = Pager::new(scene.world.platform.clone());
    scene.fails(Status::InvalidArgs, |_, vmo| other.detach_vmo(vmo));
}

#[test]
fn supply_refuses_another_pagers_vmo() {
    let scene = Scene::new();
    let other = Pager::new(scene.world.platform.clone());
    scene.fails(Status::InvalidArgs, |world, vmo| other.supply_frames(vmo, pages(3, 1), world.frames(3, 1)));
}

#[test]
fn supply_refuses_a_range_that_is_not_aligned() {
    let scene = Scene::new();
    for range in misaligned() {
        scene.fails(Status::InvalidArgs, |world, vmo| world.pager.supply_frames(vmo, range, world.frames(0, 1)));
    }
}

#[test]
fn supply_refuses_a_range_outside_the_vmo() {
    let scene = Scene::new();
    for range in outside() {
        scene.fails(Status::OutOfRange, |world, vmo| world.pager.supply_frames(vmo, range, world.frames(0, 1)));
    }
    scene.fails(Status::OutOfRange, |world, vmo| world.supply(vmo, 3, PAGES - 2));
}

#[test]
fn supply_refuses_more_or_fewer_frames_than_pages() {
    let scene = Scene::new();
    for frames in [0, 1, 3] {
        scene.fails(Status::InvalidArgs, |world, vmo| {
            world.pager.supply_frames(vmo, pages(3, 2), world.frames(3, frames))
        });
    }
}

#[test]
fn supply_to_a_detached_vmo_is_refused_and_its_frames_are_freed() {
    let world = World::new();
    let vmo = world.vmo(4);
    world.make_dirty(&vmo, 0, 1, 1);
    world.pager.detach_vmo(&vmo).unwrap();
    let before = vmo.counts();
    assert_eq!(world.supply(&vmo, 0, 4), Err(Status::BadState));
    assert_eq!(vmo.counts(), before);
    assert_eq!(world.contents(&vmo, 0)[0], 1);
    world.frames_become(1);
}

#[test]
fn supply_stops_at_a_frame_of_another_platform() {
    let world = World::new();
    let vmo = world.vmo(4);
    let elsewhere = HeapPlatform::new();
    let frames = [world.frame(), OwnedFrame::new(&elsewhere).unwrap(), world.frame()];
    assert_eq!(world.pager.supply_frames(&vmo, pages(0, 3), frames), Err(Status::InvalidArgs));
    assert_eq!(world.resident(&vmo, 4), [0], "the pages before it are supplied");
    assert_eq!((world.platform.frames(), elsewhere.frames()), (PageCount(1), PageCount(0)), "the rest is freed");
    assert_eq!(vmo.counts().resident, PageCount(1));
}

#[test]
fn fail_range_refuses_another_pagers_vmo() {
    let scene = Scene::new();
    let other = Pager::new(scene.world.platform.clone());
    scene.fails(Status::InvalidArgs, |_, vmo| other.fail_range(vmo, pages(0, PAGES), Status::Io));
}

#[test]
fn fail_range_refuses_a_status_that_a_service_may_not_give() {
    let scene = Scene::new();
    let allowed = [Status::Io, Status::IoDataIntegrity, Status::BadState, Status::NoSpace, Status::BufferTooSmall];
    for raw in -60..0 {
        let Some(status) = Status::from_raw(raw).filter(|status| !allowed.contains(status)) else { continue };
        assert!(!status.may_fail_a_request());
        scene.fails(Status::InvalidArgs, |world, vmo| world.pager.fail_range(vmo, pages(0, PAGES), status));
    }
    assert!(allowed.iter().all(|status| status.may_fail_a_request()));
}

#[test]
fn fail_range_refuses_a_range_that_is_not_aligned_or_lies_outside() {
    let scene = Scene::new();
    for range in misaligned() {
        scene.fails(Status::InvalidArgs, |world, vmo| world.pager.fail_range(vmo, range, Status::Io));
    }
    for range in outside() {
        scene.fails(Status::OutOfRange, |world, vmo| world.pager.fail_range(vmo, range, Status::Io));
    }
}

#[test]
fn op_range_reports_what_its_operations_report() {
    for scene in [Scene::new(), Scene::trapping()] {
        let other = Pager::new(scene.world.platform.clone());
        let operations = [
            PagerOp::Fail(Status::Io),
            PagerOp::Dirty,
            PagerOp::WritebackBegin(Writeback::All),
            PagerOp::WritebackBegin(Writeback::ZeroRanges),
            PagerOp::WritebackEnd,
        ];
        for op in operations {
            scene.fails(Status::InvalidArgs, |_, vmo| other.op_range(vmo, op, pages(0, PAGES)));
            let untrapped = op == PagerOp::Dirty && !scene.traps;
            let (misalignment, end) = if untrapped {
                (Status::NotSupported, Status::NotSupported)
            } else {
                (Status::InvalidArgs, Status::OutOfRange)
            };
            for range in misaligned() {
                scene.fails(misalignment, |world, vmo| world.pager.op_range(vmo, op, range));
            }
            for range in outside() {
                scene.fails(end, |world, vmo| world.pager.op_range(vmo, op, range));
            }
        }
        scene.fails(Status::InvalidArgs, |world, vmo| {
            world.pager.op_range(vmo, PagerOp::Fail(Status::NoMemory), pages(0, 8))
        });
    }
}

#[test]
fn dirty_range_refuses_what_is_not_its_own_or_not_there() {
    let scene = Scene::trapping();
    let other = Pager::new(scene.world.platform.clone());
    scene.fails(Status::InvalidArgs, |_, vmo| other.dirty_range(vmo, pages(0, 3)));
    for range in misaligned() {
        scene.fails(Status::InvalidArgs, |world, vmo| world.pager.dirty_range(vmo, range));
    }
    for range in outside() {
        scene.fails(Status::OutOfRange, |world, vmo| world.pager.dirty_range(vmo, range));
    }
    // Nobody waits to write these: whoever does is woken, to look again.
    for (first, count) in [(3, 1), (4, 1), (5, 1), (1, 3), (2, 4), (3, 5)] {
        scene.fails(Status::NotFound, |world, vmo| world.let_dirty(vmo, first, count));
    }
}

#[test]
fn detach_and_supply_and_failure_of_a_vmo_that_traps_refuse_wrong_arguments() {
    let scene = Scene::trapping();
    let other = Pager::new(scene.world.platform.clone());
    scene.fails(Status::InvalidArgs, |_, vmo| other.detach_vmo(vmo));
    scene.fails(Status::InvalidArgs, |_, vmo| other.fail_range(vmo, pages(0, PAGES), Status::Io));
    scene.fails(Status::InvalidArgs, |world, vmo| world.pager.fail_range(vmo, pages(0, PAGES), Status::NotFound));
    scene.fails(Status::InvalidArgs, |world, vmo| world.pager.supply_frames(vmo, pages(0, 1), world.frames(0, 2)));
    scene.fails(Status::OutOfRange, |_, vmo| now(vmo.write(ByteOffset(SIZE), &[1])));
}

#[test]
fn op_dirty_needs_a_vmo_that_traps_dirtying() {
    let scene = Scene::new();
    for page in 0..PAGES {
        scene.fails(Status::NotSupported, |world, vmo| world.pager.op_range(vmo, PagerOp::Dirty, pages(page, 1)));
    }
}

#[test]
fn raw_operations_are_checked_with_their_data() {
    let data = |status: i32| i64::from(status).cast_unsigned();
    for (raw, status) in [
        (-40, Status::Io),
        (-42, Status::IoDataIntegrity),
        (-20, Status::BadState),
        (-54, Status::NoSpace),
        (-15, Status::BufferTooSmall),
    ] {
        assert_eq!(PagerOp::from_raw(1, data(raw)), Ok(PagerOp::Fail(status)));
        let not_extended = u64::from(raw.cast_unsigned());
        assert_eq!(PagerOp::from_raw(1, not_extended), Err(Status::InvalidArgs), "{raw} is not sign-extended");
    }
    for raw in [0, 1, -1, -2, -4, -10, -14, -21, -100, i32::MIN] {
        assert_eq!(PagerOp::from_raw(1, data(raw)), Err(Status::InvalidArgs), "{raw}");
    }
    assert_eq!(PagerOp::from_raw(2, 0), Ok(PagerOp::Dirty));
    assert_eq!(PagerOp::from_raw(3, 0), Ok(PagerOp::WritebackBegin(Writeback::All)));
    assert_eq!(PagerOp::from_raw(3, 1), Ok(PagerOp::WritebackBegin(Writeback::ZeroRanges)));
    assert_eq!(PagerOp::from_raw(4, 0), Ok(PagerOp::WritebackEnd));
    for (op, data) in [(2, 1), (3, 2), (3, u64::MAX), (4, 1), (2, u64::MAX)] {
        assert_eq!(PagerOp::from_raw(op, data), Err(Status::InvalidArgs));
    }
    for op in [0, 5, 6, 100, u32::MAX] {
        assert_eq!(PagerOp::from_raw(op, 0), Err(Status::NotSupported));
        assert_eq!(PagerOp::from_raw(op, 1), Err(Status::NotSupported), "the operation is looked at first");
    }
}

#[test]
fn writeback_begin_and_end_refuse_what_is_not_theirs() {
    let scene = Scene::new();
    let other = Pager::new(scene.world.platform.clone());
    for which in [Writeback::All, Writeback::ZeroRanges] {
        scene.fails(Status::InvalidArgs, |_, vmo| other.writeback_begin(vmo, pages(0, PAGES), which));
        for range in misaligned() {
            scene.fails(Status::InvalidArgs, |world, vmo| world.pager.writeback_begin(vmo, range, which));
        }
        for range in outside() {
            scene.fails(Status::OutOfRange, |world, vmo| world.pager.writeback_begin(vmo, range, which));
        }
    }
    scene.fails(Status::InvalidArgs, |_, vmo| other.writeback_end(vmo, pages(0, PAGES)));
    for range in misaligned() {
        scene.fails(Status::InvalidArgs, |world, vmo| world.pager.writeback_end(vmo, range));
    }
    for range in outside() {
        scene.fails(Status::OutOfRange, |world, vmo| world.pager.writeback_end(vmo, range));
    }
}

#[test]
fn query_refuses_and_leaves_the_buffer_alone() {
    let scene = Scene::new();
    let other = Pager::new(scene.world.platform.clone());
    let untouched = DirtyRange { offset: 1, length: 2, options: 3 };
    let mut buffer = [untouched; 4];
    scene.fails(Status::InvalidArgs, |_, vmo| other.query_dirty_ranges(vmo, pages(0, PAGES), &mut buffer));
    let ranges = [
        ByteRange::new(0, SIZE + 1),
        ByteRange::new(SIZE, 1),
        ByteRange::new(SIZE + 1, 0),
        ByteRange::new(1, u64::MAX),
        ByteRange::new(u64::MAX, u64::MAX),
    ];
    for range in ranges {
        scene.fails(Status::OutOfRange, |world, vmo| world.pager.query_dirty_ranges(vmo, range, &mut buffer));
    }
    assert_eq!(buffer, [untouched; 4]);
}

#[test]
fn read_and_write_refuse_what_lies_past_the_end() {
    let scene = Scene::new();
    let cases =
        [(SIZE, 1), (SIZE - 1, 2), (SIZE + 1, 0), (u64::MAX, 1), (u64::MAX, 0), (0, SIZE + 1), (PAGE_SIZE, SIZE)];
    for (offset, len) in cases {
        let mut bytes = vec![0xaa; usize::try_from(len).unwrap()];
        scene.fails(Status::OutOfRange, |_, vmo| now(vmo.read(ByteOffset(offset), &mut bytes)));
        assert!(bytes.iter().all(|byte| *byte == 0xaa), "nothing was read");
        scene.fails(Status::OutOfRange, |_, vmo| now(vmo.write(ByteOffset(offset), &bytes)));
    }
}

#[test]
fn zero_refuses_what_lies_past_the_end() {
    let scene = Scene::new();
    for (offset, len) in [(SIZE, 1), (SIZE - 1, 2), (u64::MAX, 1), (u64::MAX - 1, u64::MAX), (0, u64::MAX)] {
        scene.fails(Status::OutOfRange, |_, vmo| now(vmo.zero(ByteRange::new(offset, len))));
        let aux = AnonymousVmo::new(scene.world.platform.clone(), SIZE).unwrap();
        assert_eq!(aux.zero(ByteRange::new(offset, len)), Err(Status::OutOfRange));
    }
}

#[test]
fn fault_refuses_a_page_past_the_end() {
    let scene = Scene::new();
    for page in [PAGES, PAGES + 1, MAX_VMO_SIZE / PAGE_SIZE, u64::MAX] {
        for access in [Access::Read, Access::Write] {
            scene.fails(Status::OutOfRange, |_, vmo| now(vmo.fault(PageIndex(page), access)));
            scene.fails(Status::OutOfRange, |_, vmo| now(vmo.fault_run(PageIndex(page), PageCount(u64::MAX), access)));
        }
    }
}

#[test]
fn a_run_that_reaches_past_the_end_asks_for_what_there_is() {
    let world = World::new();
    let vmo = world.vmo(4);
    let _waiter = Task::pending(vmo.fault_run(PageIndex(2), PageCount(u64::MAX), Access::Read));
    assert_eq!(world.packets(), [read_packet(2, 2)]);
    let _other = Task::pending(vmo.fault_run(PageIndex(0), PageCount(0), Access::Read));
    assert_eq!(world.packets(), [read_packet(0, 1)], "no run is shorter than its page");
}

#[test]
fn lookup_past_the_end_finds_nothing() {
    let world = World::new();
    let vmo = world.vmo(1);
    let guard = upager::Platform::pin(&*world.platform);
    for page in [0, 1, 511, 512, MAX_VMO_SIZE / PAGE_SIZE, u64::MAX] {
        assert_eq!(vmo.lookup(&guard, PageIndex(page)), None);
    }
}

#[test]
fn accesses_of_a_detached_vmo_fail_and_change_nothing() {
    let world = World::new();
    let vmo = world.vmo(4);
    world.make_dirty(&vmo, 0, 1, 5);
    world.supply(&vmo, 1, 1).unwrap();
    world.pager.detach_vmo(&vmo).unwrap();
    assert_eq!(world.packets().len(), 1);
    world.frames_become(1);
    let before = (vmo.counts(), dirty_ranges(&world.pager, &vmo), world.contents(&vmo, 0));
    for page in 1..4 {
        assert_eq!(now(vmo.read(at(page, 0), &mut [0])), Err(Status::BadState));
        assert_eq!(now(vmo.write(at(page, 0), &[1])), Err(Status::BadState));
        assert_eq!(now(vmo.fault(PageIndex(page), Access::Read)), Err(Status::BadState));
        assert_eq!(now(vmo.fault(PageIndex(page), Access::Write)), Err(Status::BadState));
    }
    assert_eq!((vmo.counts(), dirty_ranges(&world.pager, &vmo), world.contents(&vmo, 0)), before);
    assert_eq!(world.packets(), []);
}

#[test]
fn a_frame_refuses_bytes_that_do_not_fit_and_keeps_what_it_had() {
    let world = World::new();
    let vmo = world.vmo(1);
    let frame = world.frames(0, 1).remove(0);
    let long = vec![0; 4097];
    for (offset, len) in [(0, 4097), (1, 4096), (4096, 1), (4097, 0), (usize::MAX, 1), (usize::MAX, 4097)] {
        assert_eq!(frame.write(offset, &long[..len]), Err(Status::OutOfRange));
    }
    assert_eq!(frame.write(4096, &[]), Ok(()));
    world.pager.supply_frames(&vmo, pages(0, 1), [frame]).unwrap();
    assert_eq!(world.contents(&vmo, 0), pattern(0));
}

#[test]
fn a_wait_with_a_deadline_that_passed_times_out_and_takes_nothing() {
    let scene = Scene::new();
    let world = World::new();
    let mut packets = [Packet::default()];
    assert_eq!(world.port.wait_until(Some(Instant::now()), &mut packets), Err(Status::TimedOut));
    assert_eq!(packets, [Packet::default()]);
    // What is there is taken, even after the deadline.
    let _waiter = Task::pending(scene.vmo.fault(PageIndex(7), Access::Read));
    assert_eq!(scene.world.port.wait_until(Some(Instant::now()), &mut packets), Ok(1));
    assert_eq!(packets, [read_packet(7, 1)]);
}

#[test]
fn queue_refuses_packets_of_other_types() {
    for packet_type in [1, 2, 6, 7, PACKET_TYPE_PAGE_REQUEST, u32::MAX] {
        let packet = Packet { packet_type, ..Packet::user(1, [1; 32]) };
        Scene::new().fails(Status::InvalidArgs, |world, _| world.port.queue(&packet));
    }
    Scene::new().fails(Status::InvalidArgs, |world, _| world.port.queue(&read_packet(1, 1)));
}

#[test]
fn queue_refuses_more_than_may_wait() {
    let world = World::new();
    let vmo = world.vmo(1);
    for n in 0..MAX_USER_PACKETS {
        world.port.queue(&Packet::user(n.into(), [1; 32])).unwrap();
    }
    let one_more = Packet::user(u64::MAX, [2; 32]);
    assert_eq!(world.port.queue(&one_more), Err(Status::ShouldWait));
    // Another type is worse than too many.
    assert_eq!(world.port.queue(&read_packet(1, 1)), Err(Status::InvalidArgs));
    let _waiter = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    let packets = world.packets();
    assert_eq!(packets.len(), MAX_USER_PACKETS as usize + 1, "the request came, the packet too many did not");
    assert!(!packets.contains(&one_more));
}

#[test]
fn cancel_of_a_key_with_nothing_queued_is_not_found() {
    Scene::new().fails(Status::NotFound, |world, _| world.port.cancel(KEY ^ 1));
    let scene = Scene::new();
    scene.world.port.queue(&Packet::user(1, [1; 32])).unwrap();
    assert_eq!(scene.world.packets(), [Packet::user(1, [1; 32])]);
    scene.fails(Status::NotFound, |world, _| world.port.cancel(1));
    assert_eq!(scene.world.port.cancel(KEY), Err(Status::NotFound), "delivered, though in flight");
}
