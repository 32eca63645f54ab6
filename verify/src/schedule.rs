//! Long histories of many threads, in one random schedule each.
//!
//! A [`Scenario`] is drawn from a seed, and so is everything that it does; with the scheduler's seed an
//! execution is the same each time. Shuttle's atomics are sequentially consistent: what this finds is
//! wrong logic in long histories, never a wrong order. That is for the matrix and the races.
//!
//! Two kinds:
//! - *rounds*: in each, all threads make a call or two at once, and then rest. The VMO may have been
//!   whatever the rounds before leave possible in the [specification](crate::spec), and some order of its
//!   steps must [explain](crate::history) the round. In the end the VMO is detached and dropped, and the
//!   next one has the same pager and port.
//! - *service*: readers and writers wait for what they ask, a service answers from a store, and another
//!   thread writes back and evicts. Nobody may wait for ever, and no page may lose what was written.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc as StdArc, Mutex};

use shuttle::future::block_on;
use shuttle::sync::Barrier;
use shuttle::thread;
use upager::sync::Arc;
use upager::{
    ByteOffset, ByteRange, Command, Evict, PAGE_SIZE, Packet, PageCount, PageIndex, Platform, Status, Vmo, VmoOptions,
    Writeback,
};

use crate::history::{Came, Event, History, Op};
use crate::spec::Spec;
use crate::world::{ModelPlatform, Waiting, World};

/// Numbers drawn one after the other (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of the first `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// What an execution does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scenario {
    Rounds { threads: u64, pages: u64, traps: bool, calls: u64, script: u64 },
    Service { threads: u64, pages: u64, traps: bool, calls: u64, script: u64 },
}

impl Scenario {
    /// One of those with about so many calls.
    #[must_use]
    pub fn of(seed: u64, calls: u64) -> Self {
        let mut random = Random::new(seed);
        let (threads, traps) = (4 + random.below(5), random.below(2) == 0);
        let rounds = random.below(2) == 0;
        let script = random.next();
        if rounds {
            Self::Rounds { threads, pages: 1 + random.below(2), traps, calls, script }
        } else {
            Self::Service { threads, pages: 2 + random.below(5), traps, calls, script }
        }
    }

    /// Runs it, in a thread of shuttle's. Returns the number of calls.
    ///
    /// # Panics
    /// That is its verdict.
    #[must_use]
    pub fn run(self) -> u64 {
        match self {
            Self::Rounds { threads, pages, traps, calls, script } => {
                Rounds::new(threads, pages, traps, script).run(calls)
            }
            Self::Service { threads, pages, traps, calls, script } => service(threads, pages, traps, calls, script),
        }
    }
}

const fn options(traps: bool) -> VmoOptions {
    if traps { VmoOptions::TRAP_DIRTY } else { VmoOptions::NONE }
}

// Rounds.

/// What a thread does next: `None`, nothing any more.
type Task = Option<(Arc<Vmo<ModelPlatform>>, Vec<Op>)>;

/// What the threads share.
struct Stage {
    world: World,
    /// Where all threads meet, before and after each round.
    meeting: Barrier,
    tasks: Mutex<Vec<Task>>,
    events: Mutex<Vec<Event>>,
    clock: AtomicU64,
}

// SAFETY: shuttle runs all its threads in one, and the VMO's own handles are Send.
unsafe impl Send for Stage {}
// SAFETY: as above.
unsafe impl Sync for Stage {}

struct Rounds {
    stage: StdArc<Stage>,
    threads: usize,
    pages: u64,
    traps: bool,
    random: Random,
    byte: u8,
}

impl Rounds {
    fn new(threads: u64, pages: u64, traps: bool, script: u64) -> Self {
        let threads = threads as usize;
        let stage = Stage {
            world: World::with(options(traps), pages),
            meeting: Barrier::new(threads + 1),
            tasks: Mutex::new(vec![None; threads]),
            events: Mutex::default(),
            clock: AtomicU64::new(0),
        };
        Self { stage: StdArc::new(stage), threads, pages, traps, random: Random::new(script), byte: 0 }
    }

    fn run(mut self, calls: u64) -> u64 {
        let spawn = |number| {
            let stage = self.stage.clone();
            thread::spawn(move || stage.act(number))
        };
        let threads: Vec<_> = (0..self.threads).map(spawn).collect();
        let mut made = 0;
        let mut key = 100;
        while made < calls {
            key += 1;
            made += self.life(key);
        }
        self.round(None); // everybody goes home
        for thread in threads {
            thread.join().expect("the thread ends");
        }
        let stage = StdArc::into_inner(self.stage).expect("the threads have ended");
        let World { platform, pager, port, vmo } = stage.world;
        drop((vmo, pager, port));
        platform.check_nothing_left();
        made
    }

    /// A VMO from its first call to its last. Returns the number of calls.
    fn life(&mut self, key: u64) -> u64 {
        let world = &self.stage.world;
        let vmo = world.pager.create_vmo(&world.port, key, options(self.traps), self.pages * PAGE_SIZE);
        let vmo = Arc::new(vmo.expect("a new VMO"));
        let spec = if self.traps { Spec::trapping(self.pages as usize) } else { Spec::new(self.pages as usize) };
        let mut possible = HashSet::from([spec]);
        let (mut all, mut before): (Vec<Event>, Vec<String>) = Default::default();
        let rounds = 5 + self.random.below(20);
        let detached_in = rounds - 1 - self.random.below(3);
        for round in 0..rounds {
            self.byte = 0;
            let history = self.one_round(&vmo, round == detached_in);
            let ends = history.ends(&possible);
            assert!(
                !ends.is_empty(),
                "no order explains {history:#?}\nfrom any of {possible:#?}\nafter\n{}",
                before.join("\n")
            );
            before.push(format!("{:?}\n  left {:?}, {ends:?}", history.events, history.counts));
            possible = ends;
            all.extend(history.events);
        }
        drop(vmo); // the last handle, but for those of the requests
        let mut packets = self.stage.world.take_all();
        packets.retain(|packet| packet.key == key);
        let bytes = vec![None; self.pages as usize];
        let history = History { traps: self.traps, events: all, counts: (0, 0, 0), bytes, packets };
        assert_eq!(history.check_packets(), Ok(()), "{history:#?}");
        history.events.len() as u64
    }

    fn one_round(&mut self, vmo: &Arc<Vmo<ModelPlatform>>, detaches: bool) -> History {
        // A few calls of all threads together, or a search for their order would take too long.
        let busy = 2 + self.random.below(self.threads as u64 - 1);
        let each = if busy <= 3 { 1 + self.random.below(2) } else { 1 };
        let mut tasks = vec![None; self.threads];
        for number in 0..busy {
            let script: Vec<Op> = (0..each).map(|_| self.op(false)).collect();
            let thread = (number + self.random.below(2)) as usize % self.threads;
            tasks[thread] = Some((vmo.clone(), script));
        }
        if detaches {
            tasks[0] = Some((vmo.clone(), vec![self.op(true)]));
        }
        self.round(Some(tasks));
        let mut events = std::mem::take(&mut *self.stage.events.lock().expect("no thread panics"));
        events.sort_by_key(|event| event.returned);
        let counts = vmo.counts();
        let platform = &self.stage.world.platform;
        let byte = |page| {
            let guard = platform.pin();
            let frame = vmo.lookup(&guard, PageIndex(page))?;
            let mut byte = [0];
            // SAFETY: the guard, from before the lookup, keeps the frame; one byte lies within.
            unsafe { platform.copy_out(frame, 0, &mut byte) };
            Some(byte[0])
        };
        History {
            traps: self.traps,
            events,
            counts: (counts.resident.0, counts.dirty.0, counts.in_flight),
            bytes: (0..self.pages).map(byte).collect(),
            packets: Vec::new(),
        }
    }

    /// Has the threads do their tasks, and waits for them. `None`: they end.
    fn round(&self, tasks: Option<Vec<Task>>) {
        *self.stage.tasks.lock().expect("no thread panics") = tasks.unwrap_or_default();
        self.stage.meeting.wait();
        self.stage.meeting.wait();
    }

    fn op(&mut self, detach: bool) -> Op {
        self.byte += 1;
        let (page, byte) = (self.random.below(self.pages), self.byte);
        match self.random.below(if self.traps { 24 } else { 20 }) {
            _ if detach => Op::Detach,
            0..=3 => Op::Read(page),
            4..=7 => Op::Write(page, byte),
            8..=11 => Op::Supply(page, byte),
            12 => Op::Fail,
            13..=14 => Op::Begin,
            15..=16 => Op::End,
            17..=18 => Op::Evict,
            19 => Op::Take,
            _ => Op::Dirty,
        }
    }
}

impl Stage {
    /// A thread, from round to round.
    fn act(&self, number: usize) {
        loop {
            self.meeting.wait();
            let task = {
                let mut tasks = self.tasks.lock().expect("no thread panics");
                tasks.get_mut(number).map(Option::take)
            };
            if let Some(Some((vmo, script))) = &task {
                for op in script {
                    let called = self.clock.fetch_add(1, Ordering::Relaxed);
                    let came = self.call(vmo, *op);
                    let returned = self.clock.fetch_add(1, Ordering::Relaxed);
                    let event = Event { op: *op, came, called, returned };
                    self.events.lock().expect("no thread panics").push(event);
                }
            }
            let over = task.is_none();
            drop(task);
            self.meeting.wait();
            if over {
                return;
            }
        }
    }

    fn call(&self, vmo: &Arc<Vmo<ModelPlatform>>, op: Op) -> Came {
        let world = World { vmo: vmo.clone(), ..self.world.clone() };
        let all = ByteRange::new(0, vmo.size());
        let access = |mut waiting: Waiting| {
            waiting.poll().map_or(Came::Waited, |came| came.map_or_else(Came::Failed, Came::Byte))
        };
        match op {
            Op::Read(page) => access(world.read(page)),
            Op::Write(page, byte) => access(world.write(page, byte)),
            Op::Supply(page, byte) => world.supply(page, byte).into(),
            Op::Fail => world.pager.fail_range(vmo, all, Status::Io).into(),
            Op::Dirty => world.pager.dirty_range(vmo, all).into(),
            Op::Begin => world.pager.writeback_begin(vmo, all, Writeback::All).into(),
            Op::End => world.pager.writeback_end(vmo, all).into(),
            Op::Evict => Came::Evicted(vmo.evict(PageCount(8), Evict::Any).0),
            Op::Detach => world.pager.detach_vmo(vmo).map(drop).into(),
            Op::Take => Came::Packets(world.take_all()),
        }
    }
}

// Service.

/// What the threads of a service scenario share.
struct Site {
    world: World,
    /// The bytes that the service has of each page.
    store: Mutex<Vec<u8>>,
    /// The readers and writers have ended.
    quiet: AtomicBool,
    /// Accesses that have come home.
    made: AtomicU64,
}

// SAFETY: shuttle runs all its threads in one, and the VMO's own handles are Send.
unsafe impl Send for Site {}
// SAFETY: as above.
unsafe impl Sync for Site {}

/// So many turns the keeper makes while no access comes home.
const IDLE: usize = 20_000;

/// The key of the packet that ends a service.
const STOP: u64 = 1;

fn spawn(site: &StdArc<Site>, act: impl FnOnce(&Site) + Send + 'static) -> thread::JoinHandle<()> {
    let site = site.clone();
    thread::spawn(move || act(&site))
}

fn service(threads: u64, pages: u64, traps: bool, calls: u64, script: u64) -> u64 {
    let site = StdArc::new(Site {
        world: World::with(options(traps), pages),
        store: Mutex::new(vec![0; pages as usize]),
        quiet: AtomicBool::new(false),
        made: AtomicU64::new(0),
    });
    let mut random = Random::new(script);
    let services = 1 + random.below(2);
    let users = threads - 1 - services;
    let each = (calls / users).min(200 * pages.div_ceil(users));
    let answering: Vec<_> = (0..services).map(|_| spawn(&site, Site::answer)).collect();
    let mut seed = || Random::new(random.next());
    let keeping = seed();
    let keeper = spawn(&site, move |site| site.keep(keeping));
    let using: Vec<_> = (0..users)
        .map(|user| {
            let mine = seed();
            spawn(&site, move |site| site.access(mine, user, users, each))
        })
        .collect();
    for user in using {
        user.join().expect("a user ends");
    }
    site.quiet.store(true, Ordering::Relaxed);
    keeper.join().expect("the keeper ends");
    site.world.pager.detach_vmo(&site.world.vmo).expect("the pager's own VMO");
    for _ in 0..services {
        site.world.queue(STOP).expect("there is room");
    }
    for service in answering {
        service.join().expect("a service ends");
    }
    let site = StdArc::into_inner(site).expect("the threads have ended");
    assert_eq!(site.world.vmo.counts().in_flight, 0);
    site.world.end_of_the_world();
    users * each
}

impl Site {
    fn pages(&self) -> u64 {
        self.world.vmo.size() / PAGE_SIZE
    }

    /// Answers what the port brings, until it is told to stop.
    fn answer(&self) {
        let World { pager, port, vmo, .. } = &self.world;
        let mut packets = [Packet::default(); 4];
        loop {
            let taken = block_on(port.wait(&mut packets));
            let (stops, requests): (Vec<&Packet>, Vec<&Packet>) =
                packets[..taken].iter().partition(|packet| packet.key == STOP);
            for packet in requests {
                let range = packet.range();
                let pages = range.offset / PAGE_SIZE..(range.offset + range.length) / PAGE_SIZE;
                match packet.command() {
                    Some(Command::Read) => {
                        for page in pages {
                            let byte = self.store.lock().expect("no thread panics")[page as usize];
                            let supplied = self.world.supply(page, byte);
                            assert!(matches!(supplied, Ok(()) | Err(Status::BadState)), "{supplied:?}");
                        }
                    }
                    Some(Command::Dirty) => {
                        // A page of it that was evicted meanwhile makes the writers ask again.
                        let _: Result<(), Status> = pager.dirty_range(vmo, range);
                    }
                    _ => {}
                }
            }
            if !stops.is_empty() {
                // Each service needs one.
                stops[1..].iter().for_each(|_| self.world.queue(STOP).expect("there is room"));
                return;
            }
        }
    }

    /// Writes pages back and evicts them. The only one who does, so what it stores is the last that
    /// was written back.
    fn keep(&self, mut random: Random) {
        let World { platform, pager, vmo, .. } = &self.world;
        let (mut made, mut idle) = (0, 0);
        // Where nobody comes home any more it ends too, so that shuttle finds everybody waiting.
        while !self.quiet.load(Ordering::Relaxed) && idle < IDLE {
            thread::yield_now(); // nothing waits for it, so it must not be preferred for ever
            let now = self.made.load(Ordering::Relaxed);
            idle = if now == made { idle + 1 } else { 0 };
            made = now;
            if random.below(3) == 0 {
                vmo.evict(PageCount(1 + random.below(2)), Evict::Any);
                continue;
            }
            let page = random.below(self.pages());
            let range = ByteRange::new(page * PAGE_SIZE, PAGE_SIZE);
            pager.writeback_begin(vmo, range, Writeback::All).expect("a page of the VMO");
            let guard = platform.pin();
            if let Some(frame) = vmo.lookup(&guard, PageIndex(page)) {
                let mut byte = [0];
                // SAFETY: the guard, from before the lookup, keeps the frame; one byte lies within.
                unsafe { platform.copy_out(frame, 0, &mut byte) };
                self.store.lock().expect("no thread panics")[page as usize] = byte[0];
            }
            drop(guard);
            pager.writeback_end(vmo, range).expect("a page of the VMO");
        }
    }

    /// Reads any page and writes its own: the bytes of a page only grow.
    fn access(&self, mut random: Random, user: u64, users: u64, calls: u64) {
        let vmo = &self.world.vmo;
        let mut seen = vec![0_u8; self.pages() as usize];
        let own: Vec<u64> = (0..self.pages()).filter(|page| page % users == user).collect();
        for _ in 0..calls {
            self.made.fetch_add(1, Ordering::Relaxed);
            let writes = !own.is_empty() && random.below(2) == 0;
            if writes {
                let page = own[random.below(own.len() as u64) as usize];
                let last = &mut seen[page as usize];
                if *last == u8::MAX {
                    continue;
                }
                *last += 1;
                let written = block_on(vmo.write(ByteOffset(page * PAGE_SIZE), &[*last]));
                assert_eq!(written, Ok(()), "nobody fails requests here");
            } else {
                let page = random.below(self.pages());
                let mut byte = [0];
                let read = block_on(vmo.read(ByteOffset(page * PAGE_SIZE), &mut byte));
                assert_eq!(read, Ok(()), "nobody fails requests here");
                let last = &mut seen[page as usize];
                if own.contains(&page) {
                    assert_eq!(byte[0], *last, "page {page} lost what its writer wrote");
                } else {
                    assert!(byte[0] >= *last, "page {page} went back from {last} to {}", byte[0]);
                    *last = byte[0];
                }
            }
        }
    }
}
