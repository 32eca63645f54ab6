//! User packets beside page requests, and withdrawing either by its key.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use upager::{Access, MAX_USER_PACKETS, PACKET_TYPE_USER, PAGE_SIZE, Packet, PageIndex, PageRequest, Port, Status};
use upager_tests::{KEY, Task, Wakes, World, complete_packet, now, pages, read_packet, soon};

/// A user packet that is told from all others.
fn numbered(key: u64, n: u64) -> Packet {
    let mut payload = [0xee; 32];
    payload[..8].copy_from_slice(&n.to_le_bytes());
    Packet::user(key, payload)
}

fn number(packet: &Packet) -> u64 {
    let payload = packet.user_payload().expect("a user packet");
    u64::from_le_bytes(payload[..8].try_into().unwrap())
}

#[test]
fn key_status_and_payload_arrive_as_they_are() {
    let world = World::new();
    let payload: [u8; 32] = std::array::from_fn(|n| u8::try_from(7 * n).unwrap());
    for (key, status) in [(0, 0), (u64::MAX, -1), (KEY, i32::MAX), (1, i32::MIN)] {
        let packet = Packet { status, ..Packet::user(key, payload) };
        world.port.queue(&packet).unwrap();
        assert_eq!(world.packets(), [packet]);
        assert_eq!(packet.user_payload(), Some(payload));
    }
}

#[test]
fn the_payload_lies_where_zircon_has_it() {
    let packet = Packet::user(0, std::array::from_fn(|n| u8::try_from(n).unwrap()));
    let PageRequest { command, flags, reserved0, offset, length, reserved1 } = packet.page_request;
    let words = [offset, length, reserved1].map(u64::to_ne_bytes);
    let bytes = [&command.to_ne_bytes()[..], &flags.to_ne_bytes(), &reserved0.to_ne_bytes(), &words.concat()].concat();
    assert_eq!(bytes, (0..32).collect::<Vec<u8>>());
    assert_eq!(PACKET_TYPE_USER, 0);
}

#[test]
fn each_type_of_packet_answers_for_itself_only() {
    let request = read_packet(3, 2);
    assert_eq!((request.user_payload(), request.range()), (None, pages(3, 2)));
    let mut user = Packet::user(1, [1; 32]);
    assert_eq!((user.command(), user.range()), (None, pages(0, 0)));
    user.packet_type = 1;
    assert_eq!((user.user_payload(), user.command(), user.range()), (None, None, pages(0, 0)));
    assert_eq!(Packet::default().user_payload(), Some([0; 32]), "a packet of zeros is a user packet");
}

#[test]
fn user_packets_are_first_in_first_out() {
    let world = World::new();
    let mut next = 0;
    for round in 0..50 {
        for n in 0..round {
            world.port.queue(&numbered(n, next + n)).unwrap();
        }
        let mut some = [Packet::default(); 7];
        let mut taken = Vec::new();
        loop {
            match world.port.take(&mut some) {
                0 => break,
                n => taken.extend(some[..n].iter().map(number)),
            }
        }
        assert_eq!(taken, (next..next + round).collect::<Vec<_>>());
        next += round;
    }
}

#[test]
fn a_flood_of_user_packets_does_not_hold_up_a_request() {
    let world = World::new();
    for n in 0..1000 {
        world.port.queue(&numbered(1, n)).unwrap();
    }
    let vmo = world.vmo(1);
    let _waiter = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    let mut two = [Packet::default(); 2];
    assert_eq!(world.port.take(&mut two), 2);
    assert!(two.contains(&read_packet(0, 1)), "{two:?}");
}

#[test]
fn a_flood_of_requests_does_not_hold_up_a_user_packet() {
    let world = World::new();
    let vmo = world.vmo(20_000);
    let _waiters: Vec<_> = (0..2000).map(|n| Task::pending(vmo.fault(PageIndex(2 * n), Access::Read))).collect();
    world.port.queue(&numbered(1, 1)).unwrap();
    let mut two = [Packet::default(); 2];
    assert_eq!(world.port.take(&mut two), 2);
    assert!(two.contains(&numbered(1, 1)), "{two:?}");
}

#[test]
fn as_many_wait_as_zircon_lets_wait() {
    let world = World::new();
    let limit = u64::from(MAX_USER_PACKETS);
    assert_eq!(limit, 2048);
    for n in 0..limit {
        world.port.queue(&numbered(n % 2, n)).unwrap();
    }
    assert_eq!(world.port.queue(&numbered(0, limit)), Err(Status::ShouldWait));
    // Taking one makes room for one.
    assert_eq!(world.port.take(&mut [Packet::default()]), 1);
    world.port.queue(&numbered(0, limit)).unwrap();
    assert_eq!(world.port.queue(&numbered(0, 0)), Err(Status::ShouldWait));
    // So does withdrawing, wherever the packets stand: 1 is first, and every other one is a 1.
    world.port.cancel(0).unwrap();
    let waiting: Vec<_> = (0..limit / 2).map(|n| 2 * n + 1).collect();
    for n in 0..limit / 2 {
        world.port.queue(&numbered(2, limit + n)).unwrap();
    }
    assert_eq!(world.port.queue(&numbered(0, 0)), Err(Status::ShouldWait));
    let taken: Vec<_> = world.packets().iter().map(number).collect();
    assert_eq!(taken, [waiting, (limit..limit + limit / 2).collect()].concat());
    world.port.queue(&numbered(0, 0)).unwrap();
}

#[test]
fn withdrawn_packets_take_no_room_behind_one_that_waits() {
    let world = World::new();
    world.port.queue(&numbered(1, 1)).unwrap();
    for n in 0..3 * u64::from(MAX_USER_PACKETS) {
        world.port.queue(&numbered(2, n)).unwrap();
        world.port.cancel(2).unwrap();
    }
    world.port.queue(&numbered(3, 3)).unwrap();
    assert_eq!(world.packets(), [numbered(1, 1), numbered(3, 3)]);
    assert_eq!(world.port.cancel(2), Err(Status::NotFound));
}

#[test]
fn withdrawn_packets_take_no_room_at_a_port_that_nobody_serves() {
    let world = World::new();
    // More than there are entries in a pool: none of them may stay behind.
    for _ in 0..=(1 << 17) / MAX_USER_PACKETS {
        for n in 0..u64::from(MAX_USER_PACKETS) {
            world.port.queue(&numbered(2, n)).unwrap();
        }
        world.port.cancel(2).unwrap();
    }
    world.port.queue(&numbered(3, 3)).unwrap();
    assert_eq!(world.packets(), [numbered(3, 3)]);
}

#[test]
fn page_requests_do_not_count_as_user_packets() {
    let world = World::new();
    let vmo = world.vmo(10_000);
    let _waiters: Vec<_> = (0..3000).map(|n| Task::pending(vmo.fault(PageIndex(2 * n), Access::Read))).collect();
    for n in 0..u64::from(MAX_USER_PACKETS) {
        world.port.queue(&numbered(1, n)).unwrap();
    }
    assert_eq!(world.packets().len(), 3000 + MAX_USER_PACKETS as usize);
}

#[test]
fn cancel_withdraws_the_user_packets_of_its_key_and_no_others() {
    let world = World::new();
    for n in 0..30 {
        world.port.queue(&numbered(n % 3, n)).unwrap();
    }
    world.port.cancel(1).unwrap();
    assert_eq!(world.port.cancel(1), Err(Status::NotFound), "nothing is left to withdraw");
    let taken: Vec<_> = world.packets().iter().map(number).collect();
    assert_eq!(taken, (0..30).filter(|n| n % 3 != 1).collect::<Vec<_>>());
    assert_eq!(world.port.cancel(0), Err(Status::NotFound), "what was taken is not queued any more");
    // And the key is as good as new.
    world.port.queue(&numbered(1, 99)).unwrap();
    assert_eq!(world.packets(), [numbered(1, 99)]);
}

#[test]
fn cancel_withdraws_requests_that_stay_in_flight() {
    let world = World::new();
    let vmo = world.vmo(8);
    let other = world.vmo_with_key(8, 1);
    let delivered = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    assert_eq!(world.packets(), [read_packet(0, 1)]);
    let waiters = [2, 4].map(|page| Task::pending(vmo.fault(PageIndex(page), Access::Read)));
    let _other = Task::pending(other.fault(PageIndex(0), Access::Read));
    world.port.cancel(KEY).unwrap();
    assert_eq!(world.port.cancel(KEY), Err(Status::NotFound));
    assert_eq!(world.packets().iter().map(|packet| packet.key).collect::<Vec<_>>(), [1]);
    // As if a service had ignored them: still in flight, joined without a packet, answered by supply.
    assert!(waiters.iter().all(|waiter| waiter.wakes() == 0));
    let joiner = Task::pending(vmo.fault(PageIndex(2), Access::Read));
    assert_eq!(world.packets(), []);
    world.supply(&vmo, 0, 5).unwrap();
    for waiter in waiters.into_iter().chain([delivered, joiner]) {
        assert_eq!(waiter.woken_with(), Ok(()));
    }
    // What is asked for later comes.
    let _later = Task::pending(vmo.fault(PageIndex(7), Access::Read));
    assert_eq!(world.packets(), [read_packet(7, 1)]);
}

#[test]
fn a_request_whose_packet_was_withdrawn_fails_with_detach() {
    let world = World::new();
    let vmo = world.vmo(1);
    let waiter = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    world.port.cancel(KEY).unwrap();
    world.pager.detach_vmo(&vmo).unwrap();
    assert_eq!(waiter.woken_with(), Err(Status::BadState));
    assert_eq!(world.packets(), [complete_packet()]);
}

#[test]
fn a_request_that_was_withdrawn_by_its_waiter_is_not_found() {
    let world = World::new();
    let vmo = world.vmo(1);
    drop(Task::pending(vmo.fault(PageIndex(0), Access::Read)));
    assert_eq!(world.port.cancel(KEY), Err(Status::NotFound));
}

#[test]
fn cancel_withdraws_complete_and_it_does_not_come_again() {
    let world = World::new();
    let vmo = world.vmo(2);
    world.make_dirty(&vmo, 0, 1, 9);
    world.pager.detach_vmo(&vmo).unwrap();
    world.port.cancel(KEY).unwrap();
    assert_eq!(world.port.cancel(KEY), Err(Status::NotFound));
    world.pager.detach_vmo(&vmo).unwrap();
    assert_eq!(world.packets(), []);
    // The VMO itself is as after any detach.
    assert_eq!(world.contents(&vmo, 0)[0], 9);
    world.write_back(&vmo, 0, 1);
    drop(vmo);
    assert_eq!(world.packets(), []);
    world.end();
}

#[test]
fn a_vmo_whose_complete_was_withdrawn_is_forgotten() {
    let world = World::new();
    let before = Arc::strong_count(&world.platform);
    drop(world.vmo(2));
    assert!(Arc::strong_count(&world.platform) > before, "it is kept for its COMPLETE");
    world.port.cancel(KEY).unwrap();
    let deadline = soon();
    while Arc::strong_count(&world.platform) > before {
        upager::Platform::pin(&*world.platform).flush();
        assert!(Instant::now() < deadline, "it is there still");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn cancel_reaches_every_vmo_of_the_key_dropped_ones_too() {
    let world = World::new();
    let (vmo, gone, other) = (world.vmo(2), world.vmo(2), world.vmo_with_key(2, 1));
    drop((gone, other)); // two COMPLETEs
    let _waiter = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    world.port.queue(&numbered(KEY, 5)).unwrap();
    world.port.cancel(KEY).unwrap();
    assert_eq!(world.packets(), [Packet { key: 1, ..complete_packet() }]);
}

#[test]
fn a_wait_is_woken_by_a_user_packet() {
    let world = World::new();
    let mut packets = [Packet::default()];
    let service = Task::pending(world.port.wait(&mut packets));
    world.port.queue(&numbered(1, 1)).unwrap();
    assert_eq!(service.woken_with(), 1);
    assert_eq!(packets, [numbered(1, 1)]);
}

#[test]
fn a_wait_whose_packet_was_withdrawn_waits_on() {
    let world = World::new();
    let mut packets = [Packet::default()];
    let mut service = Task::pending(world.port.wait(&mut packets));
    world.port.queue(&numbered(1, 1)).unwrap();
    world.port.cancel(1).unwrap();
    assert_eq!((service.wakes(), service.poll()), (1, None));
    world.port.queue(&numbered(2, 2)).unwrap();
    assert_eq!(service.wakes(), 2);
    assert_eq!(service.poll(), Some(1));
    drop(service);
    assert_eq!(packets, [numbered(2, 2)]);
}

#[test]
fn each_of_several_waits_gets_a_user_packet_of_its_own() {
    let world = World::new();
    let mut buffers = vec![[Packet::default()]; 5];
    let mut services: Vec<_> = buffers.iter_mut().map(|buffer| Task::pending(world.port.wait(buffer))).collect();
    for n in 0..5 {
        world.port.queue(&numbered(1, n)).unwrap();
    }
    for service in &mut services {
        assert_eq!((service.wakes(), service.poll()), (1, Some(1)));
    }
    drop(services);
    let mut numbers: Vec<_> = buffers.iter().map(|[packet]| number(packet)).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 2, 3, 4]);
}

#[test]
fn a_wait_with_a_deadline_takes_a_user_packet_or_times_out() {
    let world = World::new();
    let mut packets = [Packet::default(); 2];
    world.port.queue(&numbered(1, 1)).unwrap();
    assert_eq!(world.port.wait_until(Some(Instant::now()), &mut packets), Ok(1));
    let deadline = Instant::now() + Duration::from_millis(20);
    assert_eq!(world.port.wait_until(Some(deadline), &mut packets), Err(Status::TimedOut));
    assert!(Instant::now() >= deadline);
    world.port.queue(&numbered(1, 2)).unwrap();
    world.port.cancel(1).unwrap();
    let deadline = Some(Instant::now() + Duration::from_millis(5));
    assert_eq!(world.port.wait_until(deadline, &mut packets), Err(Status::TimedOut), "it was withdrawn");
    thread::scope(|scope| {
        let service = scope.spawn(|| {
            let mut packets = [Packet::default()];
            world.port.wait_until(Some(soon()), &mut packets).map(|_| packets[0])
        });
        thread::sleep(Duration::from_millis(20));
        world.port.queue(&numbered(3, 3)).unwrap();
        assert_eq!(service.join().unwrap(), Ok(numbered(3, 3)));
    });
}

#[test]
fn a_port_that_closes_with_packets_leaks_nothing() {
    let World { platform, pager, port } = World::new();
    let waker = Wakes::new();
    let size = 64 * PAGE_SIZE;
    let [vmo, ended, detached] =
        std::array::from_fn(|n| pager.create_vmo(&port, n as u64, upager::VmoOptions::NONE, size).expect("a VMO"));
    let mut packets = [Packet::default()];
    let mut service = Task::new(port.wait(&mut packets));
    assert_eq!(service.poll_with(&waker.waker()), None);
    drop(service); // its waker stays until the grace period is over
    for n in 0..100 {
        port.queue(&numbered(n, n)).unwrap();
    }
    let mut waiters: Vec<_> = (0..20).map(|page| Task::new(vmo.fault(PageIndex(2 * page), Access::Read))).collect();
    for waiter in &mut waiters {
        assert_eq!(waiter.poll_with(&waker.waker()), None);
    }
    drop(ended);
    pager.detach_vmo(&detached).unwrap();
    drop(port);
    // The requests live on without packets, and are answered.
    pager.supply_frames(&vmo, pages(0, 2), (0..2).map(|_| upager::OwnedFrame::new(&*platform).unwrap())).unwrap();
    assert_eq!(waker.count(), 1);
    drop(waiters);
    drop((vmo, detached, pager));
    let deadline = soon();
    while Arc::strong_count(&platform) > 1 || Arc::strong_count(&waker) > 1 {
        upager::Platform::pin(&*platform).flush();
        assert!(
            Instant::now() < deadline,
            "{} of the platform, {} wakers",
            Arc::strong_count(&platform),
            Arc::strong_count(&waker)
        );
        thread::yield_now();
    }
    assert_eq!(platform.frames().0, 0);
}

#[test]
fn requests_of_a_closed_port_come_and_go_without_end() {
    let world = World::new();
    let closed = Port::new(world.platform.clone());
    let vmo = world.pager.create_vmo(&closed, KEY, upager::VmoOptions::NONE, PAGE_SIZE).unwrap();
    drop(Task::pending(vmo.fault(PageIndex(0), Access::Read)));
    drop(closed);
    // More than there are entries in a pool: none of them may stay behind.
    for _ in 0..300_000 {
        drop(Task::pending(vmo.fault(PageIndex(0), Access::Read)));
    }
    let waiter = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    world.supply(&vmo, 0, 1).unwrap();
    assert_eq!(waiter.woken_with(), Ok(()));
    assert_eq!(now(vmo.fault(PageIndex(0), Access::Read)), Ok(()));
}

#[test]
fn what_is_queued_at_a_port_that_closes_gives_its_entries_back() {
    let world = World::new();
    let closed = Port::new(world.platform.clone());
    let vmo = world.pager.create_vmo(&closed, KEY, upager::VmoOptions::NONE, PAGE_SIZE).unwrap();
    // Nobody takes what comes and goes, until there is no room for more.
    let refused = loop {
        if let Some(outcome) = Task::new(vmo.fault(PageIndex(0), Access::Read)).poll() {
            break outcome;
        }
    };
    assert_eq!(refused, Err(Status::NoResources));
    drop(closed);
    let waiter = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    world.supply(&vmo, 0, 1).unwrap();
    assert_eq!(waiter.woken_with(), Ok(()));
}

#[test]
fn threads_queue_cancel_and_take_and_each_packet_has_one_end() {
    const QUEUERS: u64 = 3;
    const EACH: u64 = 4000;
    let world = World::new();
    let stop = u64::MAX;
    let (withdrawn, mut taken) = thread::scope(|scope| {
        let takers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut mine = Vec::new();
                    let mut some = [Packet::default(); 5];
                    loop {
                        let n = world.port.wait_until(Some(soon()), &mut some).expect("a packet comes");
                        mine.extend(some[..n].iter().map(number));
                        if mine.contains(&stop) {
                            world.port.queue(&numbered(stop, stop)).unwrap(); // for the next one
                            mine.retain(|n| *n != stop);
                            return mine;
                        }
                    }
                })
            })
            .collect();
        let queuers: Vec<_> = (0..QUEUERS)
            .map(|queuer| {
                let port = &world.port;
                scope.spawn(move || {
                    let mut withdrawn = Vec::new();
                    for n in (0..EACH).map(|n| queuer * EACH + n) {
                        while port.queue(&numbered(n, n)) == Err(Status::ShouldWait) {
                            thread::yield_now();
                        }
                        if n % 3 == 0 && port.cancel(n).is_ok() {
                            withdrawn.push(n);
                        }
                    }
                    withdrawn
                })
            })
            .collect();
        let withdrawn: Vec<u64> = queuers.into_iter().flat_map(|queuer| queuer.join().unwrap()).collect();
        world.port.queue(&numbered(stop, stop)).unwrap();
        let taken: Vec<u64> = takers
            .into_iter()
            .flat_map(|taker| {
                let mine = taker.join().unwrap();
                for queuer in 0..QUEUERS {
                    let of = mine.iter().filter(|n| *n / EACH == queuer);
                    assert!(of.is_sorted(), "one taker sees the packets of one queuer in order");
                }
                mine
            })
            .collect();
        (withdrawn, taken)
    });
    taken.extend(world.packets().iter().map(number).filter(|n| *n != stop));
    let mut ends = [withdrawn, taken].concat();
    ends.sort_unstable();
    assert_eq!(ends, (0..QUEUERS * EACH).collect::<Vec<_>>(), "delivered once, or withdrawn");
}
