//! Growing and shrinking.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use upager::{
    Access, ByteRange, Command, DirtyRange, MAX_VMO_SIZE, OwnedFrame, PAGE_SIZE, Packet, PageCount, PageIndex, Status,
    Vmo, VmoOptions, VmoStatsOptions, Writeback,
};
use upager_tests::{Hooked, KEY, Task, World, at, now, pages, read_packet};

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

/// Frames that a supply takes one by one, with something done before each.
struct Slowly<'p, F> {
    frames: std::vec::IntoIter<OwnedFrame<'p, Hooked>>,
    taken: usize,
    before: F,
}

impl<'p, F: FnMut(usize)> Iterator for Slowly<'p, F> {
    type Item = OwnedFrame<'p, Hooked>;

    fn next(&mut self) -> Option<Self::Item> {
        (self.before)(self.taken);
        self.taken += 1;
        self.frames.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.frames.size_hint()
    }
}

impl<F: FnMut(usize)> ExactSizeIterator for Slowly<'_, F> {}

type Shared = Arc<(upager::Pager<Hooked>, Vmo<Hooked>)>;

/// A VMO of six pages, of which 3 is clean and 4 was written to; and an access to 3 and 4 that is stopped in
/// page 3 while the VMO shrinks to four pages, beside a supply of 4 and 5 that began before. The access goes
/// on when the supply has put page 4 past the end, and the supply when the access is over.
fn access_that_is_late<T>(
    hook: impl FnOnce(&Hooked, Box<dyn FnOnce() + Send>),
    access: impl FnOnce(&Vmo<Hooked>) -> T,
) -> (T, Shared) {
    let world = World::on(Hooked::default());
    let pager = upager::Pager::new(world.platform.clone());
    let vmo = pager.create_vmo(&world.port, KEY, VmoOptions::RESIZABLE, 6 * PAGE_SIZE).unwrap();
    let shared = Arc::new((pager, vmo));
    let (pager, vmo) = &*shared;
    pager.supply_frames(vmo, pages(3, 2), world.frames(3, 2)).unwrap();
    now(vmo.write(at(4, 0), b"new")).unwrap();

    let (put, is_put) = mpsc::channel();
    let (over, is_over) = mpsc::channel();
    let supply = {
        let (shared, platform) = (shared.clone(), world.platform.clone());
        move || {
            let (pager, vmo) = &*shared;
            let frames: Vec<_> = (0..2).map(|_| OwnedFrame::new(&*platform).unwrap()).collect();
            let before = |taken| {
                if taken == 0 {
                    vmo.set_size(4 * PAGE_SIZE).unwrap();
                } else if taken == 1 {
                    put.send(()).unwrap();
                    is_over.recv_timeout(Duration::from_secs(20)).unwrap();
                }
            };
            let _ = pager.supply_frames(vmo, pages(4, 2), Slowly { frames: frames.into_iter(), taken: 0, before });
        }
    };
    let (started, running) = mpsc::channel();
    let stop = move || {
        started.send(thread::spawn(supply)).unwrap();
        is_put.recv_timeout(Duration::from_secs(20)).unwrap();
    };
    hook(&world.platform, Box::new(stop));
    let came = access(vmo);
    over.send(()).unwrap();
    running.recv().unwrap().join().unwrap();
    (came, shared)
}

#[test]
fn a_read_that_is_late_does_not_find_what_was_overwritten_before_the_shrink() {
    let read = |vmo: &Vmo<Hooked>| {
        let mut bytes = vec![0; 2 * 4096];
        now(vmo.read(at(3, 0), &mut bytes)).map(|()| bytes[4096..4099].to_vec())
    };
    let (came, _) = access_that_is_late(Hooked::before_copy_out, read);
    // Before the shrink, or after it. Not what the supply put there.
    assert!(matches!(came.as_deref(), Ok(b"new") | Err(Status::OutOfRange)), "{came:?}");
}

#[test]
fn a_write_that_is_late_leaves_no_dirty_page_past_the_end() {
    let write = |vmo: &Vmo<Hooked>| now(vmo.write(at(3, 4095), b"ab"));
    let (came, shared) = access_that_is_late(Hooked::before_copy_in, write);
    assert!(matches!(came, Ok(()) | Err(Status::OutOfRange)), "{came:?}");
    let counts = shared.1.counts();
    assert_eq!((counts.resident, counts.dirty), (PageCount(1), PageCount(1)), "page 3");
}

#[test]
fn a_zeroing_that_is_late_leaves_nothing_past_the_end_that_is_counted() {
    let world = World::on(Hooked::default());
    let pager = upager::Pager::new(world.platform.clone());
    let vmo = pager.create_vmo(&world.port, KEY, VmoOptions::RESIZABLE, 6 * PAGE_SIZE).unwrap();
    let shared = Arc::new((pager, vmo));
    let (pager, vmo) = &*shared;
    pager.supply_frames(vmo, pages(0, 4), world.frames(0, 4)).unwrap();
    let also = shared.clone();
    world.platform.before_unmap(move || also.1.set_size(4 * PAGE_SIZE).unwrap()); // when page 3 has been zeroed
    now(vmo.zero(pages(3, 3))).unwrap();
    let mut runs = [DirtyRange::default(); 4];
    let found = pager.query_dirty_ranges(vmo, pages(0, 4), &mut runs).unwrap();
    assert_eq!((found.available, runs[0].range(), runs[0].options), (1, pages(3, 1), DirtyRange::ZERO));
    let counts = vmo.counts();
    assert_eq!((counts.resident.0, counts.dirty.0, counts.zero.0), (3, 0, 1));
}

/// A supply of a page under a permit, with leave for it half given and a shrink half done: all that takes pages back past the end
/// refuses the permit, and goes on.
#[test]
fn a_supply_that_takes_its_page_back_does_not_wait_for_leave_that_is_being_given() {
    let world = World::on(Hooked::default());
    let pager = upager::Pager::new(world.platform.clone());
    let options = VmoOptions::RESIZABLE | VmoOptions::TRAP_DIRTY;
    let vmo = pager.create_vmo(&world.port, KEY, options, 4 * PAGE_SIZE).unwrap();
    let shared = Arc::new((pager, vmo));
    let (pager, vmo) = &*shared;
    // Page 1 is dirty. For page 3, zeros that await clean, the leave needs a frame.
    pager.supply_frames(vmo, pages(0, 3), world.frames(0, 3)).unwrap();
    pager.dirty_range(vmo, pages(1, 1)).unwrap();
    now(vmo.zero(pages(3, 1))).unwrap();
    pager.writeback_begin(vmo, pages(3, 1), Writeback::ZeroRanges).unwrap();
    let frames = world.frames(2, 1);
    let stop = || {
        let ((stopped, has_stopped), (goes_on, go_on)) = (mpsc::channel(), mpsc::channel());
        let stop = move || {
            stopped.send(()).unwrap();
            go_on.recv_timeout(Duration::from_secs(10)).is_ok()
        };
        (stop, has_stopped, goes_on)
    };
    let (stop_leave, leave_has_stopped, leave_goes_on) = stop();
    let (stop_shrink, shrink_has_stopped, shrink_goes_on) = stop();
    let (told, leave_was_let_go) = mpsc::channel();
    world.platform.before_allocate(move || told.send(stop_leave()).unwrap());
    world.platform.before_unmap(move || assert!(stop_shrink(), "let go")); // of page 1
    let mut threads = None;
    let before = |_| {
        let [ours, theirs] = [(); 2].map(|()| shared.clone());
        let leave = thread::spawn(move || ours.0.dirty_range(&ours.1, pages(0, 4)));
        leave_has_stopped.recv().unwrap();
        let shrink = thread::spawn(move || theirs.1.set_size(PAGE_SIZE));
        shrink_has_stopped.recv().unwrap();
        threads = Some((leave, shrink));
    };
    let supplied = pager.supply_frames(vmo, pages(2, 1), Slowly { frames: frames.into_iter(), taken: 0, before });
    let let_go = [leave_goes_on.send(()), shrink_goes_on.send(())];
    assert!(leave_was_let_go.recv().unwrap(), "the supply waits for it");
    assert_eq!(let_go, [Ok(()); 2]);
    let (leave, shrink) = threads.unwrap();
    assert_eq!((supplied, leave.join().unwrap()), (Ok(()), Err(Status::OutOfRange)));
    assert_eq!((shrink.join().unwrap(), vmo.size()), (Ok(()), PAGE_SIZE));
    assert_eq!((vmo.counts().resident, vmo.counts().dirty), (PageCount(1), PageCount(0)));
}
