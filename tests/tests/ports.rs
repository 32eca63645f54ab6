//! The port: who gets which packets, in which order, and who is woken for them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use upager::{Access, Command, PAGE_SIZE, Packet, PageCount, PageIndex, Status, Vmo, VmoOptions, block_on_until};
use upager_tests::{KEY, SetOnDrop, Task, Wakes, World, complete_packet, pages, read_packet, soon};

#[test]
fn an_empty_port_gives_nothing() {
    let world = World::new();
    let _vmo = world.vmo(1);
    assert_eq!(world.port.take(&mut [Packet::default(); 4]), 0);
}

#[test]
fn an_empty_buffer_takes_nothing_and_loses_nothing() {
    let world = World::new();
    let vmo = world.vmo(1);
    let _waiter = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    assert_eq!(world.port.take(&mut []), 0);
    assert_eq!(upager_tests::now(world.port.wait(&mut [])), 0);
    assert_eq!(world.packets(), [read_packet(0, 1)]);
}

#[test]
fn adjacent_reads_taken_together_come_as_one_packet() {
    let world = World::new();
    let vmo = world.vmo(20);
    let _waiters: Vec<_> = [(3, 1), (4, 2), (6, 1), (8, 1), (9, 1), (2, 1), (0, 2)]
        .into_iter()
        .map(|(first, run)| Task::pending(vmo.fault_run(PageIndex(first), PageCount(run), Access::Read)))
        .collect();
    let mut packets = [Packet::default(); 16];
    assert_eq!(world.port.take(&mut packets), 4);
    assert_eq!(packets[..4], [read_packet(3, 4), read_packet(8, 2), read_packet(2, 1), read_packet(0, 2)]);
}

#[test]
fn a_merged_packet_is_answered_like_any_other() {
    let world = World::new();
    let vmo = world.vmo(8);
    let waiters: Vec<_> = (0..8).map(|page| Task::pending(vmo.fault(PageIndex(page), Access::Read))).collect();
    let mut packets = [Packet::default(); 16];
    assert_eq!(world.port.take(&mut packets), 1);
    assert_eq!(packets[0], read_packet(0, 8));
    world.pager.supply_frames(&vmo, packets[0].range(), world.frames(0, 8)).unwrap();
    for waiter in waiters {
        assert_eq!(waiter.woken_with(), Ok(()));
    }
}

#[test]
fn reads_of_different_vmos_are_never_merged() {
    let world = World::new();
    let vmos = [world.vmo(2), world.vmo(2)];
    let _waiters = [
        Task::pending(vmos[0].fault(PageIndex(0), Access::Read)),
        Task::pending(vmos[1].fault(PageIndex(1), Access::Read)),
    ];
    let mut packets = world.packets();
    packets.sort_by_key(|packet| packet.page_request.offset);
    assert_eq!(packets, [read_packet(0, 1), read_packet(1, 1)]);
}

#[test]
fn what_does_not_fit_stays_for_the_next_take() {
    let world = World::new();
    let vmo = world.vmo(40);
    let _waiters: Vec<_> = (0..20).map(|n| Task::pending(vmo.fault(PageIndex(2 * n), Access::Read))).collect();
    let mut all = Vec::new();
    let mut some = [Packet::default(); 3];
    loop {
        let taken = world.port.take(&mut some);
        if taken == 0 {
            break;
        }
        assert!(taken <= 3);
        all.extend_from_slice(&some[..taken]);
    }
    assert_eq!(all, (0..20).map(|n| read_packet(2 * n, 1)).collect::<Vec<_>>());
}

/// So many VMOs, with room for `each` requests that are not adjacent.
fn busy(world: &World, count: u64, each: u64) -> Vec<Vmo<upager::HeapPlatform>> {
    (0..count).map(|key| world.vmo_with_key(2 * each, key)).collect()
}

/// Opens `each` requests in each VMO, all in the VMO's own order.
fn waiters(vmos: &[Vmo<upager::HeapPlatform>], each: u64) -> Vec<Task<'_, upager::Result<()>>> {
    let of = |vmo| (0..each).map(move |n| Task::pending(Vmo::fault(vmo, PageIndex(2 * n), Access::Read)));
    vmos.iter().flat_map(of).collect()
}

#[test]
fn no_vmo_waits_for_more_than_one_packet_of_each_other() {
    const VMOS: u64 = 50;
    const EACH: u64 = 20;
    let world = World::new();
    let vmos = busy(&world, VMOS, EACH);
    let _waiters = waiters(&vmos, EACH);
    for room in [1, 7] {
        // In any window of VMOS packets, each VMO that is still busy has exactly one.
        let mut buffer = vec![Packet::default(); room];
        let mut window = Vec::new();
        while window.len() < usize::try_from(2 * VMOS).unwrap() {
            let taken = world.port.take(&mut buffer);
            assert!(taken > 0);
            window.extend(buffer[..taken].iter().map(|packet| packet.key));
        }
        for part in window.windows(usize::try_from(VMOS).unwrap()) {
            let mut keys = part.to_vec();
            keys.sort_unstable();
            assert_eq!(keys, (0..VMOS).collect::<Vec<_>>(), "one of each");
        }
    }
}

#[test]
fn thousands_of_vmos_and_the_user_packets_have_their_turns() {
    const VMOS: u64 = 3000;
    const EACH: u64 = 5;
    let world = World::new();
    let vmos = busy(&world, VMOS, EACH);
    let _waiters = waiters(&vmos, EACH);
    for _ in 0..EACH {
        world.port.queue(&Packet::user(VMOS, [1; 32])).unwrap();
    }
    // Each VMO, and the user packets as one more, comes once in every round, whatever the buffer.
    let mut last = BTreeMap::new();
    let mut at = 0;
    for room in [1, 7, 16, 64, 1000].into_iter().cycle() {
        let mut buffer = vec![Packet::default(); room];
        let taken = world.port.take(&mut buffer);
        if taken == 0 {
            break;
        }
        for packet in &buffer[..taken] {
            let waited = at - last.insert(packet.key, at).unwrap_or(0);
            assert!(waited <= VMOS + 1, "key {} waited for {waited} packets", packet.key);
            at += 1;
        }
    }
    assert_eq!(at, (VMOS + 1) * EACH, "all of them came");
}

#[test]
fn one_quiet_vmo_is_served_beside_a_flood() {
    let world = World::new();
    let flood = world.vmo_with_key(20_000, 1);
    let quiet = world.vmo_with_key(1, 2);
    let _flood: Vec<_> = (0..2000).map(|n| Task::pending(flood.fault(PageIndex(2 * n), Access::Read))).collect();
    let _quiet = Task::pending(quiet.fault(PageIndex(0), Access::Read));
    let mut two = [Packet::default(); 2];
    assert_eq!(world.port.take(&mut two), 2);
    assert!(two.iter().any(|packet| packet.key == 2), "{two:?}");
}

#[test]
fn order_within_a_vmo_holds_beside_others() {
    let world = World::new();
    let vmos = busy(&world, 10, 30);
    let waiters: Vec<_> = (0..30)
        .flat_map(|n| vmos.iter().map(move |vmo| Task::pending(vmo.fault(PageIndex(2 * n), Access::Read))))
        .collect();
    let mut next = BTreeMap::new();
    for packet in world.packets() {
        let expected = next.entry(packet.key).or_insert(0);
        assert_eq!(packet.page_request.offset, *expected);
        *expected += 2 * PAGE_SIZE;
    }
    assert!(next.len() == 10 && next.values().all(|end| *end == 60 * PAGE_SIZE));
    drop(waiters);
    for vmo in &vmos {
        world.pager.detach_vmo(vmo).unwrap();
    }
    let mut completed: Vec<_> = world.packets().iter().map(|packet| (packet.key, packet.command())).collect();
    completed.sort_by_key(|(key, _)| *key);
    assert_eq!(completed, (0..10).map(|key| (key, Some(Command::Complete))).collect::<Vec<_>>());
}

#[test]
fn thousands_of_vmos_share_a_port() {
    const VMOS: u64 = 4000;
    let world = World::new();
    let vmos = busy(&world, VMOS, 1);
    let waiters: Vec<_> = vmos.iter().map(|vmo| Task::pending(vmo.fault(PageIndex(0), Access::Read))).collect();
    let mut keys = Vec::new();
    let mut buffer = [Packet::default(); 100];
    loop {
        let taken = world.port.take(&mut buffer);
        if taken == 0 {
            break;
        }
        keys.extend(buffer[..taken].iter().map(|packet| packet.key));
    }
    keys.sort_unstable();
    assert_eq!(keys, (0..VMOS).collect::<Vec<_>>());
    for (vmo, waiter) in vmos.iter().zip(waiters) {
        world.pager.supply_frames(vmo, pages(0, 1), [world.frame()]).unwrap();
        assert_eq!(waiter.woken_with(), Ok(()));
    }
    drop(vmos);
    assert_eq!(world.packets().len() as u64, VMOS, "COMPLETE of each");
    world.end();
}

#[test]
fn a_wait_is_ready_at_once_when_something_is_there() {
    let world = World::new();
    let vmo = world.vmo(1);
    let _waiter = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    let mut packets = [Packet::default()];
    assert_eq!(upager_tests::now(world.port.wait(&mut packets)), 1);
    assert_eq!(packets, [read_packet(0, 1)]);
}

#[test]
fn a_wait_is_woken_by_the_packet() {
    let world = World::new();
    let vmo = world.vmo(1);
    let mut packets = [Packet::default()];
    let mut service = Task::pending(world.port.wait(&mut packets));
    for _ in 0..5 {
        assert_eq!(service.poll(), None, "polls without cause change nothing");
    }
    let _waiter = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    assert_eq!(service.woken_with(), 1);
    assert_eq!(packets, [read_packet(0, 1)]);
}

#[test]
fn joining_wakes_no_service() {
    let world = World::new();
    let vmo = world.vmo(1);
    let _first = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    world.packets();
    let mut packets = [Packet::default()];
    let mut service = Task::pending(world.port.wait(&mut packets));
    let _second = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    assert_eq!((service.wakes(), service.poll()), (0, None));
}

#[test]
fn the_waker_of_the_last_poll_of_a_wait_counts() {
    let world = World::new();
    let vmo = world.vmo(1);
    let wakes = [Wakes::new(), Wakes::new()];
    let mut packets = [Packet::default()];
    let mut service = Task::new(world.port.wait(&mut packets));
    for each in &wakes {
        assert_eq!(service.poll_with(&each.waker()), None);
    }
    let _waiter = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    assert_eq!(wakes.each_ref().map(|each| each.count()), [0, 1]);
    assert_eq!(service.poll(), Some(1));
}

#[test]
fn each_of_several_waits_gets_a_packet_of_its_own() {
    let world = World::new();
    let vmo = world.vmo(20);
    let mut buffers = vec![[Packet::default()]; 5];
    let mut services: Vec<_> = buffers.iter_mut().map(|buffer| Task::pending(world.port.wait(buffer))).collect();
    let _waiters: Vec<_> = (0..5).map(|n| Task::pending(vmo.fault(PageIndex(2 * n), Access::Read))).collect();
    assert_eq!(services.iter().filter(|service| service.wakes() > 0).count(), 5, "five packets, five awake");
    for service in &mut services {
        assert_eq!(service.poll(), Some(1));
    }
    drop(services);
    let mut offsets: Vec<_> = buffers.iter().map(|[packet]| packet.page_request.offset / PAGE_SIZE).collect();
    offsets.sort_unstable();
    assert_eq!(offsets, [0, 2, 4, 6, 8]);
}

#[test]
fn a_wait_that_is_dropped_after_it_was_notified_passes_it_on() {
    let world = World::new();
    let vmo = world.vmo(1);
    let mut buffers = [[Packet::default()]; 3];
    let [first, second, third] = &mut buffers;
    let mut services = vec![
        Task::pending(world.port.wait(first)),
        Task::pending(world.port.wait(second)),
        Task::pending(world.port.wait(third)),
    ];
    let _waiter = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    while services.len() > 1 {
        let awake: Vec<_> = (0..services.len()).filter(|n| services[*n].wakes() > 0).collect();
        assert_eq!(awake.len(), 1, "one packet, one awake");
        drop(services.remove(awake[0]));
    }
    assert_eq!(services.remove(0).woken_with(), 1);
}

#[test]
fn a_wait_that_is_dropped_unnotified_is_not_woken() {
    let world = World::new();
    let vmo = world.vmo(1);
    let gone = Wakes::new();
    let mut packets = [Packet::default()];
    let mut service = Task::new(world.port.wait(&mut packets));
    assert_eq!(service.poll_with(&gone.waker()), None);
    drop(service);
    let _waiter = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    assert_eq!(gone.count(), 0);
    assert_eq!(world.packets(), [read_packet(0, 1)]);
}

#[test]
fn the_waker_of_a_wait_that_is_over_is_dropped() {
    let world = World::new();
    let gone = Wakes::new();
    let mut packets = [Packet::default()];
    let mut service = Task::new(world.port.wait(&mut packets));
    assert_eq!(service.poll_with(&gone.waker()), None);
    drop(service);
    let deadline = soon();
    while Arc::strong_count(&gone) > 1 {
        upager::Platform::pin(&*world.platform).flush();
        assert!(Instant::now() < deadline, "the port has it still");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_taker_that_leaves_nothing_wakes_nobody() {
    let world = World::new();
    let vmo = world.vmo(1);
    let mut buffers = [[Packet::default()]; 2];
    let [first, second] = &mut buffers;
    let services = [Task::pending(world.port.wait(first)), Task::pending(world.port.wait(second))];
    let _waiter = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    let (woken, asleep): (Vec<_>, Vec<_>) = services.into_iter().partition(|service| service.wakes() > 0);
    for service in woken {
        assert_eq!(service.woken_with(), 1);
    }
    assert_eq!(asleep.iter().map(Task::wakes).collect::<Vec<_>>(), [0]);
}

#[test]
fn one_taker_that_leaves_work_wakes_the_next() {
    let world = World::new();
    let vmo = world.vmo(8);
    let waiters: Vec<_> = (0..3).map(|n| Task::pending(vmo.fault(PageIndex(2 * n), Access::Read))).collect();
    let mut buffers = [[Packet::default()]; 2];
    let [first, second] = &mut buffers;
    assert_eq!(upager_tests::now(world.port.wait(first)), 1);
    // Nobody slept when the packets came. Now somebody does, in the end.
    assert_eq!(upager_tests::now(world.port.wait(second)), 1);
    let mut last = [Packet::default()];
    assert_eq!(upager_tests::now(world.port.wait(&mut last)), 1);
    assert_eq!(last, [read_packet(4, 1)]);
    drop(waiters);
}

#[test]
fn a_wait_times_out_at_its_deadline_and_not_before() {
    let world = World::new();
    let mut packets = [Packet::default()];
    let begun = Instant::now();
    let deadline = begun + Duration::from_millis(30);
    assert_eq!(world.port.wait_until(Some(deadline), &mut packets), Err(Status::TimedOut));
    assert!(Instant::now() >= deadline);
    // The one that timed out is out of the way: the next packet goes to who waits now.
    let vmo = world.vmo(1);
    let service = Task::pending(world.port.wait(&mut packets));
    let _waiter = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    assert_eq!(service.woken_with(), 1);
}

#[test]
fn a_blocked_service_thread_is_woken() {
    let world = World::new();
    let vmo = world.vmo(1);
    thread::scope(|scope| {
        let service = scope.spawn(|| {
            let mut packets = [Packet::default()];
            world.port.wait_until(Some(soon()), &mut packets).map(|_| packets[0])
        });
        thread::sleep(Duration::from_millis(20));
        let _waiter = Task::pending(vmo.fault(PageIndex(0), Access::Read));
        assert_eq!(service.join().unwrap(), Ok(read_packet(0, 1)));
    });
}

#[test]
fn several_service_threads_share_the_work() {
    const SERVICES: usize = 4;
    const FAULTERS: u64 = 3;
    const ROUNDS: u64 = 300;
    let world = World::new();
    let vmos: Vec<_> = (0..FAULTERS).map(|key| world.vmo_with_key(ROUNDS, key)).collect();
    let asked = AtomicUsize::new(0);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let _over = SetOnDrop(&over);
        for _ in 0..SERVICES {
            scope.spawn(|| {
                let mut packets = [Packet::default(); 2];
                while !over.load(Ordering::SeqCst) {
                    let soon = Instant::now() + Duration::from_millis(20);
                    let Ok(taken) = world.port.wait_until(Some(soon), &mut packets) else { continue };
                    for packet in &packets[..taken] {
                        let vmo = &vmos[usize::try_from(packet.key).unwrap()];
                        let count = packet.page_request.length / PAGE_SIZE;
                        asked.fetch_add(usize::try_from(count).unwrap(), Ordering::SeqCst);
                        let frames = world.frames(packet.page_request.offset / PAGE_SIZE, count);
                        world.pager.supply_frames(vmo, packet.range(), frames).unwrap();
                    }
                }
            });
        }
        let faulters: Vec<_> = vmos
            .iter()
            .map(|vmo| {
                scope.spawn(|| {
                    for page in 0..ROUNDS {
                        let fault = block_on_until(vmo.fault(PageIndex(page), Access::Read), Some(soon()));
                        assert_eq!(fault, Some(Ok(())), "page {page} of {}", vmo.key());
                    }
                })
            })
            .collect();
        for faulter in faulters {
            faulter.join().unwrap();
        }
    });
    assert_eq!(asked.load(Ordering::SeqCst) as u64, FAULTERS * ROUNDS, "each page was asked for once");
}

#[test]
fn each_packet_goes_to_one_of_several_takers() {
    const PAGES: u64 = 2000;
    let world = World::new();
    let vmo = world.vmo(2 * PAGES);
    let waiters: Vec<_> = (0..PAGES).map(|n| Task::pending(vmo.fault(PageIndex(2 * n), Access::Read))).collect();
    let mut taken: Vec<u64> = thread::scope(|scope| {
        let takers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut mine = Vec::new();
                    let mut some = [Packet::default(); 3];
                    let mut idle = 0;
                    while idle < 50 {
                        let n = world.port.take(&mut some);
                        mine.extend(some[..n].iter().map(|packet| packet.page_request.offset / PAGE_SIZE));
                        idle = if n == 0 { idle + 1 } else { 0 };
                        thread::yield_now();
                    }
                    mine
                })
            })
            .collect();
        takers.into_iter().flat_map(|taker| taker.join().unwrap()).collect()
    });
    taken.extend(world.packets().iter().map(|packet| packet.page_request.offset / PAGE_SIZE));
    taken.sort_unstable();
    assert_eq!(taken, (0..PAGES).map(|n| 2 * n).collect::<Vec<_>>());
    drop(waiters);
}

#[test]
fn complete_goes_to_one_of_several_takers_and_wakes_one() {
    let world = World::new();
    let vmo = world.vmo(1);
    let mut buffers = [[Packet::default()]; 2];
    let [first, second] = &mut buffers;
    let mut services = [Task::pending(world.port.wait(first)), Task::pending(world.port.wait(second))];
    world.pager.detach_vmo(&vmo).unwrap();
    let outcomes = services.each_mut().map(Task::poll);
    assert_eq!(outcomes.iter().flatten().count(), 1, "{outcomes:?}");
    drop(services);
    assert!(buffers.iter().flatten().any(|packet| *packet == complete_packet()));
}

#[test]
fn a_port_serves_new_vmos_after_old_ones_have_ended() {
    let world = World::new();
    for round in 0..200 {
        let vmo = world.vmo_with_key(1, round);
        let waiter = Task::pending(vmo.fault(PageIndex(0), Access::Read));
        assert_eq!(world.packets(), [Packet::page_request(round, Command::Read, 0, PAGE_SIZE)]);
        world.supply(&vmo, 0, 1).unwrap();
        assert_eq!(waiter.woken_with(), Ok(()));
        drop(vmo);
        assert_eq!(world.packets(), [Packet::page_request(round, Command::Complete, 0, 0)]);
    }
    world.frames_become(0);
}

#[test]
fn a_closed_ports_vmos_do_not_reach_another_port() {
    let world = World::new();
    let closed = upager::Port::new(world.platform.clone());
    let vmo = world.pager.create_vmo(&closed, KEY, VmoOptions::NONE, PAGE_SIZE).unwrap();
    drop(closed);
    let waiter = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    let deadline = Some(Instant::now() + Duration::from_millis(5));
    assert_eq!(world.port.wait_until(deadline, &mut [Packet::default()]), Err(Status::TimedOut));
    world.pager.detach_vmo(&vmo).unwrap();
    assert_eq!(waiter.woken_with(), Err(Status::BadState));
    assert_eq!(world.packets(), []);
}
