//! Requests in flight: who joins, who leaves, what a range asks for, and who is woken when.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};

use upager::{Access, HeapPlatform, PageCount, PageIndex, Pager, Port, Status, Vmo, VmoOptions};
use upager_tests::{Random, Task, Wakes, World, at, now, pages, pattern, read_packet};

#[test]
fn a_second_faulter_joins_and_causes_no_packet() {
    let world = World::new();
    let vmo = world.vmo(2);
    let first = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    assert_eq!(world.packets(), [read_packet(0, 1)]);
    let second = Task::pending(vmo.fault(PageIndex(0), Access::Write));
    assert_eq!(world.packets(), []);
    let counts = vmo.counts();
    assert_eq!((counts.requests, counts.joins, counts.in_flight), (1, 1, 1));
    world.supply(&vmo, 0, 1).unwrap();
    assert_eq!(first.woken_with(), Ok(()));
    assert_eq!(second.woken_with(), Ok(()));
    assert_eq!(vmo.counts().in_flight, 0);
}

#[test]
fn joining_before_the_packet_is_taken_causes_none_either() {
    let world = World::new();
    let vmo = world.vmo(1);
    let waiters: Vec<_> = (0..100).map(|_| Task::pending(vmo.fault(PageIndex(0), Access::Read))).collect();
    assert_eq!(world.packets(), [read_packet(0, 1)]);
    world.supply(&vmo, 0, 1).unwrap();
    for waiter in waiters {
        assert_eq!(waiter.woken_with(), Ok(()));
    }
}

#[test]
fn a_faulter_joins_in_the_middle_of_a_run() {
    let world = World::new();
    let vmo = world.vmo(8);
    let run = Task::pending(vmo.fault_run(PageIndex(2), PageCount(4), Access::Read));
    let joiners: Vec<_> = (2..6).map(|page| Task::pending(vmo.fault(PageIndex(page), Access::Read))).collect();
    assert_eq!(world.packets(), [read_packet(2, 4)]);
    world.supply(&vmo, 2, 4).unwrap();
    assert_eq!(run.woken_with(), Ok(()));
    for joiner in joiners {
        assert_eq!(joiner.woken_with(), Ok(()));
    }
}

#[test]
fn when_the_last_waiter_leaves_an_undelivered_packet_is_never_delivered() {
    let world = World::new();
    let vmo = world.vmo(8);
    let first = Task::pending(vmo.fault(PageIndex(3), Access::Read));
    let second = Task::pending(vmo.fault(PageIndex(3), Access::Read));
    drop(first);
    assert_eq!(vmo.counts().in_flight, 1);
    drop(second);
    assert_eq!(vmo.counts().in_flight, 0);
    assert_eq!(world.packets(), []);
    drop(Task::pending(vmo.fault_run(PageIndex(0), PageCount(8), Access::Write)));
    assert_eq!(world.packets(), []);
}

#[test]
fn a_withdrawal_in_the_middle_of_the_queue_leaves_the_others_in_order() {
    let world = World::new();
    let vmo = world.vmo(20);
    let mut waiters: Vec<_> = (0..10).map(|n| Some(Task::pending(vmo.fault(PageIndex(2 * n), Access::Read)))).collect();
    for n in [0, 3, 4, 9] {
        waiters[n] = None;
    }
    assert_eq!(world.packets(), [1, 2, 5, 6, 7, 8].map(|n| read_packet(2 * n, 1)));
}

/// More requests than there are entries, some dead, and taken many at a time.
#[test]
fn what_was_taken_gives_its_entry_back() {
    const AT_A_TIME: u64 = 16;
    let world = World::new();
    let vmo = world.vmo(2 * AT_A_TIME);
    for _ in 0..(1 << 18) / AT_A_TIME {
        let waiters: Vec<_> =
            (0..AT_A_TIME).map(|n| Task::pending(vmo.fault(PageIndex(2 * n), Access::Read))).collect();
        assert_eq!(world.packets().len() as u64, AT_A_TIME);
        drop(waiters);
    }
    assert_eq!(vmo.counts().in_flight, 0);
}

#[test]
fn while_one_waiter_stays_the_request_stays() {
    for leaver in [0, 1, 2] {
        let world = World::new();
        let vmo = world.vmo(1);
        let mut waiters: Vec<_> = (0..3).map(|_| Task::pending(vmo.fault(PageIndex(0), Access::Read))).collect();
        drop(waiters.remove(leaver));
        assert_eq!(world.packets(), [read_packet(0, 1)]);
        drop(waiters.remove(0));
        world.supply(&vmo, 0, 1).unwrap();
        assert_eq!(waiters.remove(0).woken_with(), Ok(()));
    }
}

#[test]
fn one_who_left_is_not_woken() {
    let world = World::new();
    let vmo = world.vmo(1);
    let gone = Wakes::new();
    let mut leaver = Task::new(vmo.fault(PageIndex(0), Access::Read));
    assert_eq!(leaver.poll_with(&gone.waker()), None);
    let stayer = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    drop(leaver);
    world.supply(&vmo, 0, 1).unwrap();
    assert_eq!(gone.count(), 0);
    assert_eq!(stayer.woken_with(), Ok(()));
}

#[test]
fn a_supply_after_everyone_left_makes_the_page_resident() {
    let world = World::new();
    let vmo = world.vmo(4);
    let waiter = Task::pending(vmo.fault_run(PageIndex(0), PageCount(4), Access::Read));
    assert_eq!(world.packets(), [read_packet(0, 4)]);
    drop(waiter);
    world.supply(&vmo, 0, 4).unwrap();
    assert_eq!(world.resident(&vmo, 4), [0, 1, 2, 3]);
    assert_eq!(world.contents(&vmo, 3), pattern(3));
}

#[test]
fn a_failure_after_everyone_left_finds_nothing() {
    let world = World::new();
    let vmo = world.vmo(1);
    drop(Task::pending(vmo.fault(PageIndex(0), Access::Read)));
    world.pager.fail_range(&vmo, pages(0, 1), Status::Io).unwrap();
    let waiter = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    world.supply(&vmo, 0, 1).unwrap();
    assert_eq!(waiter.woken_with(), Ok(()));
}

#[test]
fn after_a_withdrawal_the_page_may_be_asked_for_anew() {
    let world = World::new();
    let vmo = world.vmo(2);
    for _ in 0..100 {
        drop(Task::pending(vmo.fault(PageIndex(0), Access::Read)));
    }
    let waiter = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    assert_eq!(world.packets(), [read_packet(0, 1)]);
    drop(waiter); // delivered, and withdrawn
    let again = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    assert_eq!(world.packets(), [read_packet(0, 1)]);
    world.supply(&vmo, 0, 1).unwrap();
    assert_eq!(again.woken_with(), Ok(()));
}

#[test]
fn an_old_answer_serves_the_new_request_for_the_page() {
    let world = World::new();
    let vmo = world.vmo(2);
    let old = Task::pending(vmo.fault_run(PageIndex(0), PageCount(2), Access::Read));
    let asked = world.packets();
    drop(old);
    let new = Task::pending(vmo.fault(PageIndex(1), Access::Read));
    world.pager.supply_frames(&vmo, asked[0].range(), world.frames(0, 2)).unwrap();
    assert_eq!(new.woken_with(), Ok(()));
}

#[test]
fn a_range_asks_for_the_longest_run_of_absent_pages() {
    let world = World::new();
    let vmo = world.vmo(20);
    world.supply(&vmo, 5, 1).unwrap();
    let mut bytes = vec![0; 20 * 4096];
    let _reader = Task::pending(vmo.read(at(0, 100), &mut bytes[..19 * 4096]));
    assert_eq!(world.packets(), [read_packet(0, 5)], "up to the first page that is there");
    let _fault = Task::pending(vmo.fault_run(PageIndex(6), PageCount(3), Access::Read));
    assert_eq!(world.packets(), [read_packet(6, 3)], "and no further than it was asked");
}

#[test]
fn a_range_stops_before_a_page_that_was_requested_already() {
    let world = World::new();
    let vmo = world.vmo(10);
    let other = Task::pending(vmo.fault(PageIndex(4), Access::Read));
    assert_eq!(world.packets(), [read_packet(4, 1)]);
    let mut bytes = vec![0; 10 * 4096];
    let mut reader = Task::new(vmo.read(at(0, 0), &mut bytes));
    assert_eq!(reader.poll(), None);
    assert_eq!(world.packets(), [read_packet(0, 4)]);
    world.supply(&vmo, 0, 4).unwrap();
    assert_eq!(reader.poll(), None);
    assert_eq!(world.packets(), [], "it waits for the request in flight first");
    world.supply(&vmo, 4, 1).unwrap();
    assert_eq!(other.woken_with(), Ok(()));
    assert_eq!(reader.poll(), None);
    assert_eq!(world.packets(), [read_packet(5, 5)], "then goes on");
    world.supply(&vmo, 5, 5).unwrap();
    assert_eq!(reader.poll(), Some(Ok(())));
    assert_eq!(reader.wakes(), 3);
}

#[test]
fn a_range_that_begins_in_a_request_in_flight_joins_it_first() {
    let world = World::new();
    let vmo = world.vmo(6);
    let other = Task::pending(vmo.fault_run(PageIndex(0), PageCount(3), Access::Read));
    assert_eq!(world.packets(), [read_packet(0, 3)]);
    let mut bytes = vec![0; 5 * 4096];
    let mut reader = Task::pending(vmo.read(at(1, 0), &mut bytes));
    assert_eq!(world.packets(), []);
    drop(other); // the reader keeps the request
    world.supply(&vmo, 0, 3).unwrap();
    assert_eq!(reader.wakes(), 1);
    assert_eq!(reader.poll(), None);
    assert_eq!(world.packets(), [read_packet(3, 3)]);
    world.supply(&vmo, 3, 3).unwrap();
    assert_eq!(reader.poll(), Some(Ok(())));
}

#[test]
fn overlapping_ranges_ask_for_each_page_once() {
    let world = World::new();
    let vmo = world.vmo(12);
    let mut asked = vec![0; 12];
    let waiters: Vec<_> = [(2, 3), (0, 6), (4, 8), (5, 1), (0, 12)]
        .map(|(first, run)| Task::pending(vmo.fault_run(PageIndex(first), PageCount(run), Access::Read)))
        .into();
    for packet in world.packets() {
        let first = usize::try_from(packet.page_request.offset / 4096).unwrap();
        let count = usize::try_from(packet.page_request.length / 4096).unwrap();
        for page in &mut asked[first..first + count] {
            *page += 1;
        }
    }
    assert!(asked.iter().all(|times| *times <= 1), "{asked:?}");
    world.supply(&vmo, 0, 12).unwrap();
    for mut waiter in waiters {
        assert_eq!(waiter.poll(), Some(Ok(())));
    }
}

#[test]
fn a_request_may_be_answered_in_parts_and_out_of_order() {
    let world = World::new();
    let vmo = world.vmo(9);
    let waiter = Task::pending(vmo.fault_run(PageIndex(0), PageCount(9), Access::Read));
    for (first, count) in [(6, 2), (0, 3), (5, 1), (8, 1)] {
        world.supply(&vmo, first, count).unwrap();
        assert_eq!(waiter.wakes(), 0);
    }
    world.supply(&vmo, 3, 2).unwrap();
    assert_eq!(waiter.woken_with(), Ok(()));
}

#[test]
fn one_who_joins_a_request_half_answered_waits_for_the_rest_of_it_only() {
    let world = World::new();
    let vmo = world.vmo(2);
    let first = Task::pending(vmo.fault_run(PageIndex(0), PageCount(2), Access::Read));
    world.supply(&vmo, 0, 1).unwrap();
    assert_eq!(now(vmo.fault(PageIndex(0), Access::Read)), Ok(()), "its page is there: no wait");
    let second = Task::pending(vmo.fault(PageIndex(1), Access::Read));
    world.supply(&vmo, 1, 1).unwrap();
    assert_eq!(first.woken_with(), Ok(()));
    assert_eq!(second.woken_with(), Ok(()));
}

#[test]
fn a_page_that_arrived_and_went_while_the_request_is_open_is_asked_for_by_its_own() {
    let world = World::new();
    let vmo = world.vmo(2);
    let mut both = Task::pending(vmo.fault_run(PageIndex(0), PageCount(2), Access::Read));
    assert_eq!(world.packets(), [read_packet(0, 2)]);
    world.supply(&vmo, 0, 1).unwrap();
    world.evict_now(&vmo, 0);
    let again = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    assert_eq!(world.packets(), [read_packet(0, 1)]);
    world.supply(&vmo, 0, 1).unwrap();
    assert_eq!(again.woken_with(), Ok(()));
    assert_eq!(both.wakes(), 0, "page 1 is still missing");
    world.supply(&vmo, 1, 1).unwrap();
    assert_eq!((both.wakes(), both.poll()), (1, Some(Ok(()))));
}

#[test]
fn polls_without_cause_change_nothing() {
    let world = World::new();
    let vmo = world.vmo(2);
    let mut waiter = Task::new(vmo.fault(PageIndex(0), Access::Read));
    for _ in 0..10 {
        assert_eq!(waiter.poll(), None);
    }
    assert_eq!(world.packets(), [read_packet(0, 1)]);
    for _ in 0..10 {
        assert_eq!(waiter.poll(), None);
    }
    assert_eq!(world.packets(), []);
    assert_eq!((vmo.counts().requests, vmo.counts().joins), (1, 0));
    world.supply(&vmo, 0, 1).unwrap();
    assert_eq!(waiter.woken_with(), Ok(()));
}

#[test]
fn the_waker_of_the_last_poll_is_the_one_that_is_woken() {
    let world = World::new();
    let vmo = world.vmo(1);
    for joiner in [false, true] {
        let opener = joiner.then(|| Task::pending(vmo.fault(PageIndex(0), Access::Read)));
        let wakes = [Wakes::new(), Wakes::new(), Wakes::new()];
        let mut waiter = Task::new(vmo.fault(PageIndex(0), Access::Read));
        for each in &wakes {
            assert_eq!(waiter.poll_with(&each.waker()), None);
        }
        assert_eq!(waiter.poll_with(&wakes[1].waker()), None);
        world.supply(&vmo, 0, 1).unwrap();
        assert_eq!(wakes.each_ref().map(|each| each.count()), [0, 1, 0]);
        drop(waiter);
        assert!(wakes.iter().all(|each| Arc::strong_count(each) == 1), "no waker is kept");
        drop(opener);
        world.evict_now(&vmo, 0);
    }
}

#[test]
fn nobody_is_woken_twice_whatever_comes_after() {
    let world = World::new();
    let vmo = world.vmo(2);
    let waiters = [Access::Read, Access::Write].map(|access| Task::pending(vmo.fault(PageIndex(0), access)));
    world.supply(&vmo, 0, 1).unwrap();
    world.supply(&vmo, 0, 1).unwrap();
    world.pager.fail_range(&vmo, pages(0, 2), Status::Io).unwrap();
    world.pager.detach_vmo(&vmo).unwrap();
    world.pager.detach_vmo(&vmo).unwrap();
    assert_eq!(waiters.each_ref().map(Task::wakes), [1, 1]);
}

#[test]
fn one_who_was_woken_may_go_without_looking() {
    let world = World::new();
    let vmo = world.vmo(1);
    let waiters: Vec<_> = (0..10).map(|_| Task::pending(vmo.fault(PageIndex(0), Access::Read))).collect();
    world.supply(&vmo, 0, 1).unwrap();
    drop(waiters);
    assert_eq!(vmo.counts().in_flight, 0);
    assert_eq!(world.contents(&vmo, 0), pattern(0));
}

#[test]
fn no_waker_is_kept_when_all_is_over() {
    let world = World::new();
    let vmo = world.vmo(4);
    let wakes = Wakes::new();
    let counting = wakes.waker();
    let fault = |page| {
        let mut task = Task::new(vmo.fault(PageIndex(page), Access::Read));
        assert_eq!(task.poll_with(&counting), None);
        task
    };
    let (supplied, failed, left, detached) = (fault(0), fault(1), fault(2), fault(3));
    let joined = fault(3);
    drop(left);
    world.supply(&vmo, 0, 1).unwrap();
    world.pager.fail_range(&vmo, pages(1, 1), Status::Io).unwrap();
    world.pager.detach_vmo(&vmo).unwrap();
    assert_eq!(wakes.count(), 4);
    drop((supplied, failed, detached, joined));
    assert_eq!(Arc::strong_count(&wakes), 2, "ours, and the one in `counting`");
}

#[test]
fn a_waiter_that_is_polled_after_its_request_was_answered_needs_no_wake_up() {
    let world = World::new();
    let vmo = world.vmo(1);
    let mut waiter = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    world.supply(&vmo, 0, 1).unwrap();
    assert_eq!(waiter.poll_with(&Wakes::new().waker()), Some(Ok(())));
    world.evict_now(&vmo, 0);
    let mut waiter = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    world.pager.fail_range(&vmo, pages(0, 1), Status::Io).unwrap();
    assert_eq!(waiter.poll_with(&Wakes::new().waker()), Some(Err(Status::Io)));
}

/// An entry is a request in one life, a waiter of another request in the next, and then the place of one that left.
#[test]
fn who_joins_in_the_place_of_one_who_left_is_woken_by_his_own_page() {
    const PAGES: u64 = 4;
    let world = World::new();
    let vmo = world.vmo(PAGES);
    let mut random = Random(1);
    let mut waiting: Vec<Vec<Task<'_, _>>> = (0..PAGES).map(|_| Vec::new()).collect();
    for _ in 0..2_000 {
        let page = random.below(PAGES);
        let of_page = &mut waiting[usize::try_from(page).unwrap()];
        match random.below(8) {
            0..4 => of_page.push(Task::pending(vmo.fault(PageIndex(page), Access::Read))),
            4..7 if !of_page.is_empty() => {
                let leaver = of_page.swap_remove(usize::try_from(random.below(of_page.len() as u64)).unwrap());
                assert_eq!(leaver.wakes(), 0);
            }
            _ => {
                world.supply(&vmo, page, 1).unwrap();
                for waiter in of_page.drain(..) {
                    assert_eq!(waiter.woken_with(), Ok(()));
                }
                world.evict_now(&vmo, 0);
                assert!(waiting.iter().flatten().all(|waiter| waiter.wakes() == 0));
            }
        }
        if random.below(2) == 0 {
            world.packets();
        }
    }
}

#[test]
fn thousands_wait_for_one_page_and_each_is_woken_once() {
    let world = World::new();
    let vmo = world.vmo(1);
    let mut waiters: Vec<_> = (0..5000).map(|_| Task::pending(vmo.fault(PageIndex(0), Access::Read))).collect();
    let mut n = 0;
    waiters.retain(|_| {
        n += 1;
        n % 3 != 0
    });
    assert_eq!(world.packets(), [read_packet(0, 1)]);
    world.supply(&vmo, 0, 1).unwrap();
    for waiter in waiters {
        assert_eq!(waiter.woken_with(), Ok(()));
    }
}

#[test]
fn thousands_of_requests_at_once_each_get_their_answer() {
    let world = World::new();
    let vmo = world.vmo(8000);
    let waiters: Vec<_> = (0..4000).map(|n| Task::pending(vmo.fault(PageIndex(2 * n), Access::Read))).collect();
    assert_eq!(world.packets().len(), 4000);
    assert_eq!(vmo.counts().in_flight, 4000);
    for (n, waiter) in (0..4000).zip(waiters) {
        if n % 2 == 0 {
            world.pager.supply_frames(&vmo, pages(2 * n, 1), [world.frame()]).unwrap();
            assert_eq!(waiter.woken_with(), Ok(()));
        } else {
            world.pager.fail_range(&vmo, pages(2 * n, 1), Status::Io).unwrap();
            assert_eq!(waiter.woken_with(), Err(Status::Io));
        }
    }
}

/// A waker that uses the pager itself.
struct Reentrant {
    act: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    woken: AtomicUsize,
}

impl Wake for Reentrant {
    fn wake(self: Arc<Self>) {
        self.woken.fetch_add(1, Ordering::SeqCst);
        let act = self.act.lock().unwrap().take();
        if let Some(act) = act {
            act();
        }
    }
}

#[test]
fn a_waker_may_call_the_pager() {
    type Shared = (Arc<HeapPlatform>, Pager<HeapPlatform>, Port<HeapPlatform>, Vmo<HeapPlatform>);
    let World { platform, pager, port } = World::new();
    let vmo = pager.create_vmo(&port, 1, VmoOptions::NONE, 4 * 4096).unwrap();
    let shared: Arc<Shared> = Arc::new((platform, pager, port, vmo));
    let (_, pager, _, vmo) = &*shared;
    let inside = shared.clone();
    let reentrant = Arc::new(Reentrant {
        act: Mutex::new(Some(Box::new(move || {
            let (_, pager, _, vmo) = &*inside;
            assert_eq!(now(vmo.read(at(0, 0), &mut [0])), Ok(()));
            drop(Task::pending(vmo.fault(PageIndex(2), Access::Read)));
            pager.detach_vmo(vmo).unwrap();
        }))),
        woken: AtomicUsize::new(0),
    });
    let mut first = Task::new(vmo.fault(PageIndex(0), Access::Read));
    assert_eq!(first.poll_with(&Waker::from(reentrant.clone())), None);
    let other = Task::pending(vmo.fault(PageIndex(1), Access::Read));
    let frame = upager::OwnedFrame::new(&*shared.0).unwrap();
    pager.supply_frames(vmo, pages(0, 1), [frame]).unwrap();
    assert_eq!(reentrant.woken.load(Ordering::SeqCst), 1);
    assert_eq!(first.poll(), Some(Err(Status::BadState)), "detached by its own waker: the page is gone");
    assert_eq!(other.woken_with(), Err(Status::BadState));
}

#[test]
fn a_future_that_is_never_dropped_holds_up_nobody() {
    let world = World::new();
    let vmo = world.vmo(2);
    let mut leaked = Box::pin(vmo.fault(PageIndex(0), Access::Read));
    let waker = Wakes::new().waker();
    assert!(leaked.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending());
    std::mem::forget(leaked);
    let joiner = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    world.supply(&vmo, 0, 1).unwrap();
    assert_eq!(joiner.woken_with(), Ok(()));
    let mut leaked = Box::pin(vmo.fault(PageIndex(1), Access::Read));
    assert!(leaked.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending());
    std::mem::forget(leaked);
    drop(vmo);
    assert_eq!(world.packets().last(), Some(&upager_tests::complete_packet()));
    world.frames_become(0);
}

#[test]
fn a_waiter_takes_no_place_in_another_request() {
    let world = World::new();
    let vmo = world.vmo(4);
    let fault = |page| Task::pending(vmo.fault(PageIndex(page), Access::Read));
    // Two entries, the second in the wait list of the first; then each of them is a request.
    let earlier = [fault(0), fault(0)];
    world.supply(&vmo, 0, 1).unwrap();
    for waiter in earlier {
        assert_eq!(waiter.woken_with(), Ok(()));
    }
    assert_eq!(world.packets(), []);
    let next = fault(1);
    assert_eq!(world.packets(), [read_packet(1, 1)], "and the queue has let go of what was before");
    let (leaver, opener) = (fault(2), fault(3));
    let stays = fault(2);
    drop(leaver);
    // There is a place that was left, but not in the request for this page.
    let joiner = fault(3);
    for (page, waiters) in [(3, vec![opener, joiner]), (2, vec![stays]), (1, vec![next])] {
        world.supply(&vmo, page, 1).unwrap();
        for waiter in waiters {
            assert_eq!(waiter.woken_with(), Ok(()), "page {page}");
        }
    }
}
