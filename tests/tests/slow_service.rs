//! A service that does not answer: warnings, time-outs, and who hears of them.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use upager::{
    Access, ByteOffset, Command, Event, HeapPlatform, PageCount, PageIndex, SlowRequest, Status, SwapObserver,
    TracingObserver, Watch, WatchLimits, block_on_until,
};
use upager_tests::{KEY, Task, World, complete_packet, now, pages, pattern, read_packet, soon};

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn limits(warn_after: Option<u64>, time_out: Option<u64>) -> WatchLimits {
    WatchLimits { warn_after: warn_after.map(s), time_out: time_out.map(s) }
}

/// What was told.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<Event>>>);

impl Told {
    fn observer(&self) -> impl Fn(&Event) + Send + Sync + 'static {
        let told = self.0.clone();
        move |event: &Event| told.lock().expect("no test panics here").push(*event)
    }

    fn watch(&self, world: &World, limits: WatchLimits) -> Watch<HeapPlatform> {
        Watch::new(&world.pager, limits, Box::new(self.observer()))
    }

    /// What was told since the last call.
    fn take(&self) -> Vec<Event> {
        std::mem::take(&mut *self.0.lock().expect("no test panics here"))
    }
}

fn parts(request: &SlowRequest) -> (u64, Command, upager::ByteRange, Duration) {
    (request.key, request.command, request.range, request.age)
}

/// The one event, which must be a warning.
fn slow(events: &[Event]) -> SlowRequest {
    let [Event::Slow(request)] = events else { panic!("{events:?}") };
    *request
}

/// The one event, which must be a time-out.
fn timed_out(events: &[Event]) -> SlowRequest {
    let [Event::TimedOut(request)] = events else { panic!("{events:?}") };
    *request
}

#[test]
fn by_default_it_warns_after_20_seconds_and_times_nothing_out() {
    assert_eq!(WatchLimits::default(), limits(Some(20), None));
    let (world, told) = (World::new(), Told::default());
    let vmo = world.vmo(1);
    let mut waiter = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    let mut watch = told.watch(&world, WatchLimits::default());
    watch.look(s(0));
    watch.look(s(19));
    assert_eq!(told.take(), []);
    watch.look(s(20));
    slow(&told.take());
    watch.look(s(1_000_000));
    assert_eq!(told.take(), []);
    assert_eq!((waiter.wakes(), waiter.poll()), (0, None));
}

#[test]
fn a_warning_names_vmo_range_command_and_age() {
    let (world, told) = (World::new(), Told::default());
    let vmo = world.vmo_with_key(16, 99);
    let _waiter = Task::pending(vmo.fault_run(PageIndex(3), PageCount(4), Access::Write));
    let mut watch = told.watch(&world, limits(Some(5), None));
    watch.look(s(100));
    watch.look(s(107));
    let request = slow(&told.take());
    assert_eq!(request.vmo, vmo.id());
    assert_eq!(parts(&request), (99, Command::Read, pages(3, 4), s(7)));
}

#[test]
fn it_warns_of_each_request_once_delivered_or_not() {
    let (world, told) = (World::new(), Told::default());
    let (one, other) = (world.vmo_with_key(4, 1), world.vmo_with_key(4, 2));
    let _delivered = Task::pending(one.fault(PageIndex(0), Access::Read));
    assert_eq!(world.packets().len(), 1);
    let _queued = Task::pending(one.fault(PageIndex(2), Access::Read));
    let mut watch = told.watch(&world, limits(Some(5), None));
    watch.look(s(0));
    let _later = Task::pending(other.fault(PageIndex(1), Access::Read));
    watch.look(s(3));
    watch.look(s(5));
    let mut first: Vec<_> = told.take().iter().map(|event| slow(&[*event]).range).collect();
    first.sort_by_key(|range| range.offset);
    assert_eq!(first, [pages(0, 1), pages(2, 1)]);
    watch.look(s(7));
    assert_eq!(told.take(), []);
    watch.look(s(8));
    assert_eq!(parts(&slow(&told.take())), (2, Command::Read, pages(1, 1), s(5)));
    assert_eq!((watch.counts().slow, watch.counts().timed_out, watch.counts().in_flight), (3, 0, 3));
    assert_eq!(watch.counts().oldest, s(8));
}

#[test]
fn age_is_counted_from_first_sight() {
    let (world, told) = (World::new(), Told::default());
    let vmo = world.vmo(1);
    let _waiter = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    let mut watch = told.watch(&world, limits(Some(5), Some(9)));
    watch.look(s(1000));
    assert_eq!((watch.counts().in_flight, watch.counts().oldest), (1, s(0)));
    watch.look(s(1004));
    assert_eq!(told.take(), []);
    watch.look(s(1005));
    assert_eq!(slow(&told.take()).age, s(5));
}

#[test]
fn what_was_answered_in_time_is_forgotten_and_the_next_request_is_young() {
    let (world, told) = (World::new(), Told::default());
    let vmo = world.vmo(1);
    let mut watch = told.watch(&world, limits(Some(5), Some(10)));
    for round in 0..20 {
        let waiter = Task::pending(vmo.fault(PageIndex(0), Access::Read));
        watch.look(s(4 * round));
        assert_eq!(watch.counts().oldest, s(0), "the entry of the pool is the same, the request is not");
        world.supply(&vmo, 0, 1).unwrap();
        assert_eq!(waiter.woken_with(), Ok(()));
        world.evict_now(&vmo, 0);
    }
    watch.look(s(1000));
    assert_eq!((told.take(), watch.counts().in_flight), (vec![], 0));
}

#[test]
fn a_request_of_a_new_vmo_is_not_taken_for_one_of_a_vmo_that_is_gone() {
    let (world, told) = (World::new(), Told::default());
    let mut watch = told.watch(&world, limits(None, Some(5)));
    for round in 0..50 {
        let vmo = world.vmo(1);
        let mut waiter = Task::pending(vmo.fault(PageIndex(0), Access::Read));
        watch.look(s(4 * round));
        assert_eq!(watch.counts().oldest, s(0));
        assert_eq!(waiter.poll(), None);
        drop(waiter);
        drop(vmo);
        world.packets();
        for _ in 0..10 {
            upager::Platform::pin(&*world.platform).flush(); // so that its place is used again
        }
    }
    assert_eq!(told.take(), []);
}

#[test]
fn a_timed_out_request_fails_each_waiter_once_and_is_over() {
    let (world, told) = (World::new(), Told::default());
    let vmo = world.vmo(4);
    let first = Task::pending(vmo.fault(PageIndex(1), Access::Read));
    let joined = Task::pending(vmo.fault(PageIndex(1), Access::Write));
    let mut bytes = [0];
    let reader = Task::pending(vmo.read(ByteOffset(4096), &mut bytes));
    assert_eq!(world.packets(), [read_packet(1, 1)]);
    let mut watch = told.watch(&world, limits(None, Some(10)));
    watch.look(s(0));
    watch.look(s(9));
    assert_eq!((first.wakes(), told.take()), (0, vec![]));
    watch.look(s(10));
    let request = timed_out(&told.take());
    assert_eq!(request.vmo, vmo.id());
    assert_eq!(parts(&request), (KEY, Command::Read, pages(1, 1), s(10)));
    assert_eq!(first.woken_with(), Err(Status::TimedOut));
    assert_eq!(joined.woken_with(), Err(Status::TimedOut));
    assert_eq!(reader.woken_with(), Err(Status::TimedOut));
    assert_eq!(vmo.counts().in_flight, 0);
    assert_eq!((watch.counts().timed_out, watch.counts().in_flight), (1, 0));
    watch.look(s(30));
    assert_eq!(told.take(), []);
}

#[test]
fn a_request_that_is_late_for_both_is_warned_of_and_then_timed_out() {
    let (world, told) = (World::new(), Told::default());
    let vmo = world.vmo(1);
    let waiter = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    let mut watch = told.watch(&world, limits(Some(1), Some(2)));
    watch.look(s(0));
    watch.look(s(60));
    let events = told.take();
    assert_eq!(slow(&events[..1]), timed_out(&events[1..]));
    assert_eq!(waiter.woken_with(), Err(Status::TimedOut));
    assert_eq!((watch.counts().slow, watch.counts().timed_out), (1, 1));
}

#[test]
fn a_timed_out_request_that_was_not_delivered_is_not_delivered_later() {
    let (world, told) = (World::new(), Told::default());
    let vmo = world.vmo(8);
    let late = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    let mut watch = told.watch(&world, limits(None, Some(0)));
    watch.look(s(0));
    assert_eq!(late.woken_with(), Err(Status::TimedOut));
    let in_time = Task::pending(vmo.fault(PageIndex(5), Access::Read));
    assert_eq!(world.packets(), [read_packet(5, 1)]);
    world.supply(&vmo, 5, 1).unwrap();
    assert_eq!(in_time.woken_with(), Ok(()));
}

#[test]
fn a_late_answer_to_a_timed_out_request_makes_its_pages_resident() {
    let (world, told) = (World::new(), Told::default());
    let vmo = world.vmo(4);
    let waiter = Task::pending(vmo.fault_run(PageIndex(0), PageCount(4), Access::Read));
    assert_eq!(world.packets(), [read_packet(0, 4)]);
    world.supply(&vmo, 0, 1).unwrap();
    told.watch(&world, limits(None, Some(0))).look(s(0));
    assert_eq!(timed_out(&told.take()).range, pages(0, 4), "also what was answered of it");
    assert_eq!(waiter.woken_with(), Err(Status::TimedOut));
    world.supply(&vmo, 0, 4).unwrap();
    assert_eq!(world.resident(&vmo, 4), [0, 1, 2, 3]);
    assert_eq!(world.contents(&vmo, 3), pattern(3));
}

#[test]
fn after_a_time_out_the_page_can_be_asked_for_again() {
    let (world, told) = (World::new(), Told::default());
    let vmo = world.vmo(2);
    let first = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    assert_eq!(world.packets(), [read_packet(0, 1)]);
    let mut watch = told.watch(&world, limits(None, Some(5)));
    watch.look(s(0));
    watch.look(s(5));
    assert_eq!(first.woken_with(), Err(Status::TimedOut));
    let second = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    assert_eq!(world.packets(), [read_packet(0, 1)]);
    watch.look(s(6));
    assert_eq!(watch.counts().oldest, s(0), "a request of its own, with an age of its own");
    world.supply(&vmo, 0, 1).unwrap();
    assert_eq!(second.woken_with(), Ok(()));
}

#[test]
fn one_who_left_is_not_woken_by_a_time_out() {
    let (world, told) = (World::new(), Told::default());
    let vmo = world.vmo(1);
    let gone = upager_tests::Wakes::new();
    let mut leaver = Task::new(vmo.fault(PageIndex(0), Access::Read));
    assert_eq!(leaver.poll_with(&gone.waker()), None);
    let stays = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    drop(leaver);
    told.watch(&world, limits(None, Some(0))).look(s(0));
    assert_eq!((gone.count(), stays.woken_with()), (0, Err(Status::TimedOut)));
}

#[test]
fn detach_fails_what_was_warned_of_and_not_what_was_timed_out() {
    let (world, told) = (World::new(), Told::default());
    let vmo = world.vmo(4);
    let old = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    let mut watch = told.watch(&world, limits(Some(5), Some(10)));
    watch.look(s(0));
    let young = Task::pending(vmo.fault(PageIndex(1), Access::Read));
    watch.look(s(5));
    watch.look(s(10));
    assert_eq!(told.take().len(), 3, "two warnings and a time-out");
    assert_eq!(world.pager.detach_vmo(&vmo).unwrap().failed_requests, 1);
    assert_eq!(old.woken_with(), Err(Status::TimedOut));
    assert_eq!(young.woken_with(), Err(Status::BadState));
    watch.look(s(100));
    assert_eq!(told.take(), []);
    assert_eq!(world.packets(), [complete_packet()]);
}

#[test]
fn a_watch_keeps_neither_pager_nor_vmo_and_outlives_both() {
    let (world, told) = (World::new(), Told::default());
    let vmo = world.vmo(4);
    world.supply(&vmo, 0, 1).unwrap();
    let waiter = Task::pending(vmo.fault(PageIndex(1), Access::Read));
    let mut watch = told.watch(&world, limits(Some(0), None));
    watch.look(s(0));
    slow(&told.take());
    let World { platform, pager, port } = world;
    drop(pager);
    assert_eq!(waiter.woken_with(), Err(Status::BadState));
    watch.look(s(100));
    assert_eq!((told.take(), watch.counts().in_flight), (vec![], 0));
    drop((vmo, port));
    let deadline = soon();
    while platform.frames() != PageCount(0) {
        upager::Platform::pin(&*platform).flush();
        assert!(Instant::now() < deadline, "the watch keeps frames");
    }
    watch.look(s(200));
}

#[test]
fn a_port_that_closed_leaves_its_requests_to_the_time_out() {
    let (world, told) = (World::new(), Told::default());
    let vmo = world.vmo(1);
    let mut watch = told.watch(&world, limits(None, Some(10)));
    let waiter = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    let World { platform: _platform, pager: _pager, port } = world;
    drop(port);
    watch.look(s(0));
    watch.look(s(10));
    assert_eq!(waiter.woken_with(), Err(Status::TimedOut));
}

#[test]
fn another_pagers_requests_are_not_looked_at() {
    let (world, other, told) = (World::new(), World::new(), Told::default());
    let vmo = other.vmo(1);
    let mut waiter = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    let mut watch = told.watch(&world, limits(Some(0), Some(0)));
    watch.look(s(0));
    assert_eq!((told.take(), watch.counts().in_flight, waiter.poll()), (vec![], 0, None));
}

#[test]
fn limits_can_be_set_while_it_watches() {
    let (world, told) = (World::new(), Told::default());
    let vmo = world.vmo(1);
    let waiter = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    let mut watch = told.watch(&world, limits(None, None));
    watch.look(s(0));
    watch.look(s(100));
    assert_eq!(told.take(), []);
    watch.set_limits(limits(Some(50), None));
    watch.look(s(101));
    assert_eq!(slow(&told.take()).age, s(101));
    watch.set_limits(limits(Some(10), Some(200)));
    watch.look(s(102));
    assert_eq!(told.take(), [], "warned of once");
    watch.look(s(200));
    timed_out(&told.take());
    assert_eq!(waiter.woken_with(), Err(Status::TimedOut));
}

#[test]
fn a_clock_that_goes_back_makes_nothing_old() {
    let (world, told) = (World::new(), Told::default());
    let vmo = world.vmo(1);
    let mut waiter = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    let mut watch = told.watch(&world, limits(Some(1), Some(1)));
    for time in [Duration::MAX, s(0), Duration::MAX] {
        watch.look(time);
        assert_eq!((told.take(), waiter.poll(), watch.counts().oldest), (vec![], None, s(0)));
    }
}

#[test]
fn thousands_of_requests_are_each_told_once() {
    let (world, told) = (World::new(), Told::default());
    let vmos: Vec<_> = (0..10).map(|key| world.vmo_with_key(1000, key)).collect();
    let waiters: Vec<_> = vmos
        .iter()
        .flat_map(|vmo| (0..500).map(move |n| Task::pending(vmo.fault(PageIndex(2 * n), Access::Read))))
        .collect();
    let mut watch = told.watch(&world, limits(Some(1), Some(2)));
    for time in 0..4 {
        watch.look(s(time));
    }
    let mut events: Vec<_> = told
        .take()
        .into_iter()
        .map(|event| match event {
            Event::Slow(request) => (0, request.key, request.range.offset),
            Event::TimedOut(request) => (1, request.key, request.range.offset),
            other => panic!("{other:?}"),
        })
        .collect();
    events.sort_unstable();
    events.dedup();
    assert_eq!(events.len(), 10_000);
    assert_eq!((watch.counts().slow, watch.counts().timed_out), (5000, 5000));
    for waiter in waiters {
        assert_eq!(waiter.woken_with(), Err(Status::TimedOut));
    }
    assert_eq!(world.packets(), []);
}

#[test]
fn the_observer_can_be_swapped_while_it_watches() {
    let world = World::new();
    let vmo = world.vmo(4);
    let (first, second) = (Told::default(), Told::default());
    let observer = SwapObserver::new(first.observer());
    let mut watch = Watch::new(&world.pager, limits(Some(0), None), Box::new(observer.clone()));
    let _a = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    watch.look(s(0));
    observer.swap(second.observer());
    let _b = Task::pending(vmo.fault(PageIndex(2), Access::Read));
    watch.look(s(1));
    assert_eq!(slow(&first.take()).range, pages(0, 1));
    assert_eq!(slow(&second.take()).range, pages(2, 1));
    assert_eq!(Arc::strong_count(&first.0), 1, "the first one is dropped");
}

#[test]
fn an_observer_may_act_on_the_vmo() {
    let world = World::new();
    let vmo = Arc::new(world.vmo(1));
    let pager = Arc::new(world.pager);
    let (p, v) = (pager.clone(), vmo.clone());
    let observer = move |_: &Event| assert_eq!(p.detach_vmo(&v).unwrap().failed_requests, 1);
    let mut watch = Watch::new(&pager, limits(Some(0), None), Box::new(observer));
    let waiter = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    watch.look(s(0));
    assert_eq!(waiter.woken_with(), Err(Status::BadState));
}

#[test]
fn an_observer_that_panics_was_told_and_is_not_told_again() {
    let world = World::new();
    let vmo = world.vmo(1);
    let _waiter = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    let mut watch = Watch::new(&world.pager, limits(Some(0), None), Box::new(|_: &Event| resume_unwind(Box::new(()))));
    assert!(catch_unwind(AssertUnwindSafe(|| watch.look(s(0)))).is_err());
    assert_eq!(watch.counts().slow, 1);
    watch.look(s(1));
    assert_eq!((watch.counts().slow, watch.counts().in_flight), (1, 1));
}

#[test]
fn a_watcher_needs_a_period() {
    let (world, told) = (World::new(), Told::default());
    let watch = told.watch(&world, WatchLimits::default());
    assert_eq!(watch.spawn(Duration::ZERO).map(drop), Err(Status::InvalidArgs));
    assert_eq!(Arc::strong_count(&told.0), 1, "nothing is left of it");
}

#[test]
fn a_watchers_thread_warns_times_out_and_stops_when_it_is_dropped() {
    let (world, told) = (World::new(), Told::default());
    let vmo = world.vmo(1);
    let limits = WatchLimits { warn_after: Some(Duration::from_millis(1)), time_out: None };
    let watcher = told.watch(&world, limits).spawn(Duration::from_millis(1)).unwrap();
    thread::scope(|s| {
        let reader = s.spawn(|| block_on_until(vmo.read(ByteOffset(0), &mut [0]), Some(soon())));
        while watcher.counts().slow == 0 {
            assert!(!reader.is_finished());
            thread::yield_now();
        }
        assert_eq!(watcher.counts().in_flight, 1);
        watcher.set_limits(WatchLimits { warn_after: None, time_out: Some(Duration::from_millis(1)) });
        assert_eq!(reader.join().unwrap(), Some(Err(Status::TimedOut)));
    });
    drop(watcher);
    assert_eq!(Arc::strong_count(&told.0), 1, "its thread has ended");
    let events = told.take();
    assert_eq!(slow(&events[..1]).range, timed_out(&events[1..]).range);
}

#[test]
fn dropping_a_watcher_does_not_wait_for_its_period() {
    let (world, told) = (World::new(), Told::default());
    let begun = Instant::now();
    for period in [s(3600), Duration::MAX] {
        drop(told.watch(&world, WatchLimits::default()).spawn(period).unwrap());
    }
    assert!(begun.elapsed() < s(20));
}

#[test]
fn a_watcher_may_be_dropped_by_its_own_observer() {
    let world = World::new();
    let vmo = world.vmo(1);
    let place: Arc<Mutex<Option<upager::Watcher>>> = Arc::default();
    let (inside, dropped) = (place.clone(), Arc::new(Mutex::new(false)));
    let flag = dropped.clone();
    let observer = move |_: &Event| {
        while inside.lock().expect("no test panics here").take().is_none() {
            thread::yield_now();
        }
        *flag.lock().expect("no test panics here") = true;
    };
    let watch = Watch::new(&world.pager, limits(Some(0), None), Box::new(observer));
    let _waiter = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    *place.lock().expect("no test panics here") = Some(watch.spawn(s(3600)).unwrap());
    let deadline = soon();
    while !*dropped.lock().expect("no test panics here") {
        assert!(Instant::now() < deadline, "the thread waits for itself");
        thread::yield_now();
    }
}

#[test]
fn many_threads_time_out_or_are_served_and_each_comes_home() {
    let world = World::new();
    let vmo = world.vmo(64);
    let limits = WatchLimits { warn_after: None, time_out: Some(Duration::from_micros(200)) };
    let watch = Watch::new(&world.pager, limits, Box::new(|_: &Event| {}));
    let watcher = watch.spawn(Duration::from_micros(100)).unwrap();
    thread::scope(|s| {
        let readers: Vec<_> = (0..4)
            .map(|thread| {
                let vmo = &vmo;
                s.spawn(move || {
                    let mut timed_out = 0;
                    for n in 0..300 {
                        let page = PageIndex((thread + n * 7) % 64);
                        match block_on_until(vmo.fault(page, Access::Read), Some(soon())) {
                            Some(Ok(())) => {}
                            Some(Err(Status::TimedOut)) => timed_out += 1,
                            other => panic!("{other:?}"),
                        }
                    }
                    timed_out
                })
            })
            .collect();
        let mut round = 0;
        while readers.iter().any(|reader| !reader.is_finished()) {
            round += 1;
            for packet in world.packets() {
                if round % 3 > 0 {
                    let (first, count) = (packet.range().offset / 4096, packet.range().length / 4096);
                    world.supply(&vmo, first, count).unwrap();
                }
            }
            vmo.evict(PageCount(64), upager::Evict::Any);
            thread::sleep(Duration::from_micros(100));
        }
        let timed_out: u64 = readers.into_iter().map(|reader| reader.join().expect("the reader ends")).sum();
        assert!(timed_out > 0, "nothing timed out");
    });
    drop(watcher);
    assert_eq!(vmo.counts().in_flight, 0);
    drop(vmo);
    world.end();
}

/// A place that a subscriber writes to.
#[derive(Clone, Default)]
struct Text(Arc<Mutex<Vec<u8>>>);

impl Write for Text {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no test panics here").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn tracing_gets_the_events_with_their_fields() {
    let text = Text::default();
    let writer = text.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(subscriber, || {
        let world = World::new();
        let vmo = world.vmo_with_key(4, 77);
        let _waiter = Task::pending(vmo.fault_run(PageIndex(1), PageCount(2), Access::Read));
        let mut watch = Watch::new(&world.pager, limits(Some(5), Some(9)), Box::new(TracingObserver));
        for time in [0, 6, 9] {
            watch.look(s(time));
        }
    });
    let text = String::from_utf8(text.0.lock().expect("no test panics here").clone()).expect("text");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    for (line, level, age) in [(lines[0], "WARN", "age=6s"), (lines[1], "ERROR", "age=9s")] {
        for part in [level, "key=77", "command=Read", "offset=4096", "length=8192", "vmo=VmoId(", age] {
            assert!(line.contains(part), "{part} in {line}");
        }
    }
}

#[test]
fn a_supply_between_two_looks_is_in_time() {
    let (world, told) = (World::new(), Told::default());
    let vmo = world.vmo(1);
    let waiter = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    let mut watch = told.watch(&world, limits(Some(1), Some(1)));
    watch.look(s(0));
    world.supply(&vmo, 0, 1).unwrap();
    watch.look(s(1));
    assert_eq!((waiter.woken_with(), told.take()), (Ok(()), vec![]));
    now(vmo.fault(PageIndex(0), Access::Read)).unwrap();
}
