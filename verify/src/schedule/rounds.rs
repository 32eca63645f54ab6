//! Rounds: all threads make a call or two at once, and then rest.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc as StdArc, Mutex};

use shuttle::sync::Barrier;
use shuttle::thread;
use upager::sync::Arc;
use upager::{ByteRange, Evict, PAGE_SIZE, PageCount, PageIndex, Platform, Status, Vmo, Writeback};

use super::{Random, options};
use crate::history::{Came, Event, History, Op};
use crate::spec::Spec;
use crate::world::{ModelPlatform, Waiting, World};

/// What a scenario may contain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rounds {
    pub threads: u64,
    pub pages: u64,
    pub traps: bool,
    pub calls: u64,
    pub script: u64,
}

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

/// A scenario under way.
struct Running {
    stage: StdArc<Stage>,
    threads: usize,
    pages: u64,
    traps: bool,
    random: Random,
    byte: u8,
}

impl Rounds {
    /// Runs it. Returns the number of calls.
    pub(super) fn run(self) -> u64 {
        let Self { pages, traps, calls, script, .. } = self;
        let threads = self.threads as usize;
        let stage = Stage {
            world: World::with(options(traps), pages),
            meeting: Barrier::new(threads + 1),
            tasks: Mutex::new(vec![None; threads]),
            events: Mutex::default(),
            clock: AtomicU64::new(0),
        };
        let stage = StdArc::new(stage);
        Running { stage, threads, pages, traps, random: Random::new(script), byte: 0 }.run(calls)
    }
}

impl Running {
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
