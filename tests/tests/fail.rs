//! The service's other answer: a failure.

use upager::{Access, PageCount, PageIndex, PagerOp, Status, Writeback};
use upager_tests::{Task, World, at, dirty_ranges, now, pages, pattern, read_packet};

#[test]
fn each_reason_reaches_the_waiter_as_it_is() {
    let world = World::new();
    let vmo = world.vmo(1);
    for status in [Status::Io, Status::IoDataIntegrity, Status::BadState, Status::NoSpace, Status::BufferTooSmall] {
        let mut byte = [0];
        let tasks = [
            Task::pending(vmo.fault(PageIndex(0), Access::Read)),
            Task::pending(vmo.fault(PageIndex(0), Access::Write)),
            Task::pending(vmo.read(at(0, 0), &mut byte)),
            Task::pending(vmo.write(at(0, 0), &[0])),
        ];
        world.pager.op_range(&vmo, PagerOp::Fail(status), pages(0, 1)).unwrap();
        for task in tasks {
            assert_eq!(task.woken_with(), Err(status));
        }
    }
}

#[test]
fn resident_pages_are_not_touched() {
    let world = World::new();
    let vmo = world.vmo(4);
    world.supply(&vmo, 0, 1).unwrap();
    world.make_dirty(&vmo, 1, 2, 0xd1);
    world.pager.writeback_begin(&vmo, pages(2, 1), Writeback::All).unwrap();
    let waiter = Task::pending(vmo.fault(PageIndex(3), Access::Read));
    let before = vmo.counts();
    world.pager.fail_range(&vmo, pages(0, 4), Status::Io).unwrap();
    assert_eq!(waiter.woken_with(), Err(Status::Io));
    assert_eq!(world.resident(&vmo, 4), [0, 1, 2]);
    assert_eq!((vmo.counts().resident, vmo.counts().dirty), (before.resident, before.dirty));
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(1, 2)]);
    assert_eq!(world.contents(&vmo, 0), pattern(0));
    world.pager.writeback_end(&vmo, pages(1, 2)).unwrap();
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(1, 1)], "and the writeback under way goes on");
}

#[test]
fn without_a_request_there_is_nothing_to_fail() {
    let world = World::new();
    let vmo = world.vmo(4);
    assert_eq!(world.pager.fail_range(&vmo, pages(0, 4), Status::Io), Ok(()));
    assert_eq!(world.pager.fail_range(&vmo, pages(2, 0), Status::Io), Ok(()));
    let waiter = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    assert_eq!(world.packets(), [read_packet(0, 1)], "a failure is no state of the page");
    world.supply(&vmo, 0, 1).unwrap();
    assert_eq!(waiter.woken_with(), Ok(()));
}

#[test]
fn everyone_who_joined_gets_the_error_once() {
    let world = World::new();
    let vmo = world.vmo(1);
    let waiters: Vec<_> = (0..50).map(|_| Task::pending(vmo.fault(PageIndex(0), Access::Read))).collect();
    world.pager.fail_range(&vmo, pages(0, 1), Status::NoSpace).unwrap();
    world.pager.fail_range(&vmo, pages(0, 1), Status::Io).unwrap();
    for waiter in waiters {
        assert_eq!(waiter.woken_with(), Err(Status::NoSpace));
    }
}

#[test]
fn a_failure_of_any_part_fails_the_request() {
    let world = World::new();
    for part in 0..4 {
        let vmo = world.vmo(4);
        let waiter = Task::pending(vmo.fault_run(PageIndex(0), PageCount(4), Access::Read));
        assert_eq!(world.packets(), [read_packet(0, 4)]);
        world.pager.fail_range(&vmo, pages(part, 1), Status::Io).unwrap();
        assert_eq!(waiter.woken_with(), Err(Status::Io));
        assert_eq!(vmo.counts().in_flight, 0);
        world.pager.detach_vmo(&vmo).unwrap();
        world.packets();
    }
}

#[test]
fn a_failure_beside_the_request_leaves_it() {
    let world = World::new();
    let vmo = world.vmo(6);
    let other = world.vmo(6);
    let mut waiter = Task::pending(vmo.fault_run(PageIndex(2), PageCount(2), Access::Read));
    world.pager.fail_range(&vmo, pages(0, 2), Status::Io).unwrap();
    world.pager.fail_range(&vmo, pages(4, 2), Status::Io).unwrap();
    world.pager.fail_range(&vmo, pages(3, 0), Status::Io).unwrap();
    world.pager.fail_range(&other, pages(0, 6), Status::Io).unwrap();
    assert_eq!((waiter.wakes(), waiter.poll()), (0, None));
    world.supply(&vmo, 2, 2).unwrap();
    assert_eq!(waiter.woken_with(), Ok(()));
}

#[test]
fn one_failure_answers_every_request_in_its_range() {
    let world = World::new();
    let vmo = world.vmo(10);
    let inside: Vec<_> =
        [2, 4, 7].into_iter().map(|page| Task::pending(vmo.fault(PageIndex(page), Access::Read))).collect();
    let mut outside = [0, 9].map(|page| Task::pending(vmo.fault(PageIndex(page), Access::Read)));
    world.pager.fail_range(&vmo, pages(2, 6), Status::Io).unwrap();
    for waiter in inside {
        assert_eq!(waiter.woken_with(), Err(Status::Io));
    }
    for waiter in &mut outside {
        assert_eq!((waiter.wakes(), waiter.poll()), (0, None));
    }
}

#[test]
fn pages_that_arrived_before_the_failure_stay() {
    let world = World::new();
    let vmo = world.vmo(3);
    let mut bytes = vec![0; 3 * 4096];
    let reader = Task::pending(vmo.read(at(0, 0), &mut bytes));
    world.supply(&vmo, 1, 1).unwrap();
    world.pager.fail_range(&vmo, pages(2, 1), Status::Io).unwrap();
    assert_eq!(reader.woken_with(), Err(Status::Io));
    assert_eq!(world.resident(&vmo, 3), [1]);
    assert_eq!(world.contents(&vmo, 1), pattern(1));
}

#[test]
fn a_failed_page_is_absent_and_may_be_asked_for_again() {
    let world = World::new();
    let vmo = world.vmo(3);
    let waiter = Task::pending(vmo.fault_run(PageIndex(0), PageCount(3), Access::Read));
    world.packets();
    world.pager.fail_range(&vmo, pages(0, 3), Status::Io).unwrap();
    assert_eq!(waiter.woken_with(), Err(Status::Io));
    let again = Task::pending(vmo.fault_run(PageIndex(0), PageCount(3), Access::Read));
    assert_eq!(world.packets(), [read_packet(0, 3)], "a packet of its own");
    world.supply(&vmo, 0, 3).unwrap();
    assert_eq!(again.woken_with(), Ok(()));
}

#[test]
fn a_supply_after_the_failure_makes_the_page_resident() {
    let world = World::new();
    let vmo = world.vmo(2);
    let waiter = Task::pending(vmo.fault_run(PageIndex(0), PageCount(2), Access::Read));
    world.supply(&vmo, 0, 1).unwrap();
    world.pager.fail_range(&vmo, pages(1, 1), Status::Io).unwrap();
    world.supply(&vmo, 1, 1).unwrap();
    assert_eq!(waiter.woken_with(), Err(Status::Io), "decided once");
    assert_eq!(world.resident(&vmo, 2), [0, 1]);
}

#[test]
fn a_failure_after_the_supply_finds_nothing() {
    let world = World::new();
    let vmo = world.vmo(1);
    let waiter = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    world.supply(&vmo, 0, 1).unwrap();
    world.pager.fail_range(&vmo, pages(0, 1), Status::Io).unwrap();
    assert_eq!(waiter.woken_with(), Ok(()), "decided once");
    assert_eq!(now(vmo.fault(PageIndex(0), Access::Read)), Ok(()));
}

#[test]
fn after_detach_it_is_ok_and_does_nothing() {
    let world = World::new();
    let vmo = world.vmo(3);
    world.make_dirty(&vmo, 0, 1, 1);
    let waiter = Task::pending(vmo.fault(PageIndex(1), Access::Read));
    world.pager.detach_vmo(&vmo).unwrap();
    let before = vmo.counts();
    assert_eq!(world.pager.fail_range(&vmo, pages(0, 3), Status::Io), Ok(()));
    assert_eq!(vmo.counts(), before);
    assert_eq!(waiter.woken_with(), Err(Status::BadState));
    assert_eq!(world.contents(&vmo, 0)[0], 1);
}
