//! Eviction, its grace period, and rescue.

use std::collections::BTreeSet;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use upager::{Access, Evict, PageCount, PageIndex, Platform, Writeback};
use upager_tests::{Hooked, Task, World, at, dirty_ranges, now, pages, pattern, read_packet};

const ALL: PageCount = PageCount(u64::MAX);

#[test]
fn clean_pages_go_and_must_be_asked_for_again() {
    let world = World::new();
    let vmo = world.vmo(3);
    world.supply(&vmo, 0, 3).unwrap();
    assert_eq!(vmo.evict(ALL, Evict::Any), PageCount(3));
    assert_eq!(vmo.counts().resident, PageCount(0));
    world.frames_become(0);
    assert_eq!(world.resident(&vmo, 3), []);
    let waiter = Task::pending(vmo.fault_run(PageIndex(0), PageCount(3), Access::Read));
    assert_eq!(world.packets(), [read_packet(0, 3)]);
    world.supply(&vmo, 0, 3).unwrap();
    assert_eq!(waiter.woken_with(), Ok(()));
    assert_eq!(world.contents(&vmo, 2), pattern(2));
}

#[test]
fn dirty_pages_and_those_awaiting_clean_never_go() {
    let world = World::new();
    let vmo = world.vmo(4);
    world.supply(&vmo, 0, 4).unwrap();
    world.make_dirty(&vmo, 1, 2, 0xd1);
    world.pager.writeback_begin(&vmo, pages(2, 1), Writeback::All).unwrap();
    for which in [Evict::Unused, Evict::Any, Evict::Any, Evict::Unused] {
        vmo.evict(ALL, which);
    }
    world.frames_become(2);
    assert_eq!(world.resident(&vmo, 4), [1, 2]);
    assert_eq!([world.contents(&vmo, 1)[0], world.contents(&vmo, 2)[0]], [0xd1, 0xd1]);
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(1, 2)]);
}

#[test]
fn a_page_that_was_written_back_may_go() {
    let world = World::new();
    let vmo = world.vmo(1);
    world.make_dirty(&vmo, 0, 1, 1);
    assert_eq!(vmo.evict(ALL, Evict::Any), PageCount(0));
    world.write_back(&vmo, 0, 1);
    assert_eq!(vmo.evict(ALL, Evict::Any), PageCount(1));
    world.frames_become(0);
}

#[test]
fn absent_and_requested_pages_are_not_evicted() {
    let world = World::new();
    let vmo = world.vmo(4);
    let waiter = Task::pending(vmo.fault(PageIndex(1), Access::Read));
    assert_eq!(vmo.evict(ALL, Evict::Any), PageCount(0));
    world.supply(&vmo, 1, 1).unwrap();
    assert_eq!(waiter.woken_with(), Ok(()));
}

#[test]
fn no_more_go_than_were_asked_for() {
    let world = World::new();
    let vmo = world.vmo(10);
    world.supply(&vmo, 0, 10).unwrap();
    assert_eq!(vmo.evict(PageCount(0), Evict::Any), PageCount(0));
    let mut left = 10;
    for ask in [1, 3, 2, 10] {
        let went = vmo.evict(PageCount(ask), if ask == 3 { Evict::Unused } else { Evict::Any });
        assert_eq!(went, PageCount(ask.min(left)));
        left -= went.0;
        assert_eq!(vmo.counts().resident, PageCount(left));
        world.frames_become(left);
    }
}

#[test]
fn the_hand_goes_round_all_pages() {
    let world = World::new();
    let vmo = world.vmo(7);
    world.supply(&vmo, 0, 7).unwrap();
    let mut gone = BTreeSet::new();
    for n in 1..=7 {
        assert_eq!(vmo.evict(PageCount(1), Evict::Any), PageCount(1));
        world.frames_become(7 - n);
        gone.extend((0..7).filter(|page| !world.is_resident(&vmo, *page)));
        assert_eq!(gone.len() as u64, n, "each page once");
    }
    // And again from where it stands.
    world.supply(&vmo, 0, 7).unwrap();
    assert_eq!(vmo.evict(PageCount(6), Evict::Any), PageCount(6));
    assert_eq!(vmo.evict(PageCount(6), Evict::Any), PageCount(1));
}

#[test]
fn the_hand_goes_on_where_it_has_stopped() {
    let world = World::new();
    let vmo = world.vmo(4);
    world.supply(&vmo, 0, 4).unwrap();
    assert_eq!(vmo.evict(PageCount(2), Evict::Any), PageCount(2));
    world.frames_become(2);
    world.supply(&vmo, 0, 2).unwrap();
    assert_eq!(vmo.evict(PageCount(2), Evict::Any), PageCount(2));
    assert_eq!(world.resident(&vmo, 4), [0, 1], "those that are back are the last");
}

#[test]
fn a_page_in_use_gets_a_second_chance() {
    let world = World::new();
    let vmo = world.vmo(8);
    world.supply(&vmo, 0, 8).unwrap();
    // All were just supplied: the hand takes the marks, and on the second turn one page.
    assert_eq!(vmo.evict(PageCount(1), Evict::Unused), PageCount(1));
    world.frames_become(7);
    let used = world.resident(&vmo, 8)[0];
    world.contents(&vmo, used);
    for left in (1..7).rev() {
        assert_eq!(vmo.evict(PageCount(1), Evict::Unused), PageCount(1));
        world.frames_become(left);
        assert!(world.is_resident(&vmo, used), "{left} left: the used one goes last");
        world.contents(&vmo, used);
    }
}

#[test]
fn unused_evicts_everything_in_the_end() {
    let world = World::new();
    let vmo = world.vmo(600);
    world.supply(&vmo, 0, 600).unwrap();
    assert_eq!(vmo.evict(ALL, Evict::Unused), PageCount(600));
    world.frames_become(0);
}

#[test]
fn a_frame_that_is_looked_at_stays_until_the_guard_is_dropped() {
    let world = World::new();
    let vmo = world.vmo(1);
    world.supply(&vmo, 0, 1).unwrap();
    let guard = world.platform.pin();
    let frame = vmo.lookup(&guard, PageIndex(0)).unwrap();
    assert_eq!(vmo.evict(ALL, Evict::Any), PageCount(1));
    for _ in 0..10 {
        world.platform.pin().flush();
    }
    assert_eq!(world.platform.frames(), PageCount(1));
    assert_eq!(vmo.lookup(&guard, PageIndex(0)), None, "no new user finds it");
    let mut bytes = vec![0; 4096];
    // SAFETY: the guard, from before the lookup, keeps the frame allocated.
    unsafe { world.platform.copy_out(frame, 0, &mut bytes) };
    assert_eq!(bytes, pattern(0));
    drop(guard);
    world.frames_become(0);
}

#[test]
fn a_read_in_the_grace_period_rescues_the_page() {
    let world = World::new();
    let vmo = world.vmo(1);
    world.supply(&vmo, 0, 1).unwrap();
    let guard = world.platform.pin();
    let frame = vmo.lookup(&guard, PageIndex(0));
    assert_eq!(vmo.evict(ALL, Evict::Any), PageCount(1));
    assert_eq!(world.contents(&vmo, 0), pattern(0), "at once, without the service");
    assert_eq!(vmo.lookup(&guard, PageIndex(0)), frame);
    assert_eq!(vmo.counts().resident, PageCount(1));
    drop(guard);
    for _ in 0..200 {
        world.platform.pin().flush();
        assert_eq!(world.contents(&vmo, 0), pattern(0), "the reclaim that was on its way spares it");
    }
    assert_eq!(world.packets(), []);
    assert_eq!(vmo.evict(ALL, Evict::Any), PageCount(1), "and it may be evicted anew");
    world.frames_become(0);
}

#[test]
fn a_write_in_the_grace_period_rescues_the_page_and_dirties_it() {
    for mapped in [false, true] {
        let world = World::new();
        let vmo = world.vmo(1);
        world.supply(&vmo, 0, 1).unwrap();
        let guard = world.platform.pin();
        assert_eq!(vmo.evict(ALL, Evict::Any), PageCount(1));
        if mapped {
            now(vmo.fault(PageIndex(0), Access::Write)).unwrap();
        } else {
            now(vmo.write(at(0, 0), &pattern(0)[..1])).unwrap();
        }
        drop(guard);
        for _ in 0..200 {
            world.platform.pin().flush();
            assert_eq!(world.contents(&vmo, 0), pattern(0));
        }
        assert_eq!(dirty_ranges(&world.pager, &vmo), [(0, 1)]);
        assert_eq!((vmo.counts().resident, vmo.counts().dirty), (PageCount(1), PageCount(1)));
        assert_eq!(vmo.evict(ALL, Evict::Any), PageCount(0));
        assert_eq!(world.platform.frames(), PageCount(1));
    }
}

#[test]
fn a_page_rescued_and_evicted_again_has_a_whole_grace_period_each_time() {
    let world = World::new();
    let vmo = world.vmo(1);
    world.supply(&vmo, 0, 1).unwrap();
    for _ in 0..20 {
        let guard = world.platform.pin();
        vmo.evict(ALL, Evict::Any);
        world.contents(&vmo, 0);
        vmo.evict(ALL, Evict::Any);
        world.contents(&vmo, 0);
        drop(guard);
        world.platform.pin().flush();
        let guard = world.platform.pin();
        let frame = vmo.lookup(&guard, PageIndex(0)).expect("rescued");
        vmo.evict(ALL, Evict::Any);
        for _ in 0..5 {
            world.platform.pin().flush();
        }
        let mut byte = [0];
        // SAFETY: the guard, from before the lookup, keeps the frame allocated.
        unsafe { world.platform.copy_out(frame, 0, &mut byte) };
        assert_eq!(byte[0], pattern(0)[0]);
        world.contents(&vmo, 0);
        drop(guard);
    }
    assert_eq!(world.platform.frames(), PageCount(1));
    assert_eq!(vmo.counts().requests, 0);
    world.evict_now(&vmo, 0);
}

#[test]
fn evicted_pages_are_taken_out_of_the_mappings() {
    let world = World::on(Hooked::default());
    let vmo = world.vmo(4);
    world.supply(&vmo, 0, 4).unwrap();
    now(vmo.write(at(2, 0), &[1])).unwrap();
    vmo.evict(ALL, Evict::Any);
    let mut told = world.platform.unmapped();
    told.sort_by_key(|(_, page)| *page);
    assert_eq!(told, [0, 1, 3].map(|page| (vmo.id(), PageIndex(page))));
}

/// What it deferred is not its thread's own.
#[test]
fn frames_go_though_the_thread_that_evicted_their_pages_does_nothing_more() {
    let world = World::new();
    let vmo = world.vmo(3);
    world.supply(&vmo, 0, 3).unwrap();
    let ((evicted, has_evicted), (over, is_over)) = (mpsc::channel(), mpsc::channel::<()>());
    thread::scope(|scope| {
        let over = over; // gone with this closure, whatever comes of it
        let (world, vmo) = (&world, &vmo);
        scope.spawn(move || {
            assert_eq!(vmo.evict(PageCount(3), Evict::Any), PageCount(3));
            evicted.send(()).unwrap();
            let _ = is_over.recv();
        });
        has_evicted.recv().unwrap();
        let freed = (0..5000).any(|_| {
            world.platform.pin().flush();
            thread::sleep(Duration::from_millis(1));
            world.platform.frames() == PageCount(0)
        });
        drop(over);
        assert!(freed, "{:?}", world.platform.frames());
    });
}

#[test]
fn a_page_may_be_evicted_while_it_is_read() {
    let world = World::on(Hooked::default());
    let vmo = std::sync::Arc::new(world.vmo(1));
    world.supply(&vmo, 0, 1).unwrap();
    let inside = vmo.clone();
    world.platform.before_copy_out(move || {
        assert_eq!(inside.evict(ALL, Evict::Any), PageCount(1));
        for _ in 0..10 {
            inside.platform().pin().flush();
        }
    });
    let mut bytes = vec![0; 4096];
    now(vmo.read(at(0, 0), &mut bytes)).unwrap();
    assert_eq!(bytes, pattern(0), "the reader is pinned: its frame stays");
}

#[test]
fn eviction_in_one_vmo_leaves_the_others() {
    let world = World::new();
    let (vmo, other) = (world.vmo(2), world.vmo(2));
    world.supply(&vmo, 0, 2).unwrap();
    world.supply(&other, 0, 2).unwrap();
    world.evict_now(&vmo, 2);
    assert_eq!(world.resident(&other, 2), [0, 1]);
}

#[test]
fn a_waiter_whose_page_was_evicted_before_it_ran_asks_again() {
    let world = World::new();
    let vmo = world.vmo(1);
    let mut bytes = vec![0; 4096];
    let mut reader = Task::pending(vmo.read(at(0, 0), &mut bytes));
    for round in 1..=10 {
        assert_eq!(world.packets(), [read_packet(0, 1)]);
        world.supply(&vmo, 0, 1).unwrap();
        assert_eq!(reader.wakes(), round);
        world.evict_now(&vmo, 0);
        assert_eq!(reader.poll(), None, "not failed, and not served: it asks again");
    }
    world.supply(&vmo, 0, 1).unwrap();
    assert_eq!(reader.poll(), Some(Ok(())));
    drop(reader);
    assert_eq!(bytes, pattern(0));
}

#[test]
fn a_waiter_that_runs_within_the_grace_period_makes_progress() {
    let world = World::new();
    let vmo = world.vmo(8);
    let mut bytes = vec![0; 8 * 4096];
    let reader = Task::pending(vmo.read(at(0, 0), &mut bytes));
    world.supply(&vmo, 0, 8).unwrap();
    let guard = world.platform.pin();
    assert_eq!(vmo.evict(ALL, Evict::Any), PageCount(8));
    assert_eq!(reader.woken_with(), Ok(()));
    drop(guard);
    assert_eq!(vmo.counts().requests, 1);
}
