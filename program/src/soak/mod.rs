//! `upager soak`: every operation of the pager, from many threads at once, on VMOs that come and go; and
//! whether everything held.
//!
//! - [`worker`]s draw [operations](op) and do them: those of the [`users`] of the memory, of the
//!   [`service`], and of who [keeps the house](housekeeping).
//! - The VMOs are [`subject`]s. Some trap dirtying, some are resizable, some both. Each is served
//!   at one of the [offices](office), in one of three manners.
//! - [`memory`] refuses frames at random, and watches those that were freed.
//! - What must hold is said where it is checked: of bytes in [`lanes`], of a VMO at its end in [`subject`],
//!   of packets in [`ledger`], of accesses in [`worker`], of frames in [`memory`].
//!
//! When the time is over, the workers begin nothing more, and serve until every access is home. Then all
//! VMOs are dropped and compared, the ports emptied, pagers and ports closed, and the frames counted.
//! The first violation ends the soak.
//!
//! A seed fixes what each worker draws, not how they meet: a violation that depends on that
//! may need several runs to come again.

mod books;
mod housekeeping;
mod lanes;
mod ledger;
mod memory;
mod office;
mod op;
mod report;
mod service;
mod store;
mod subject;
mod task;
mod users;
mod worker;

use std::collections::HashMap;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};
use upager::{PAGE_SIZE, Packet};

use crate::args::SoakConfig;
use crate::failure::Failure;
use crate::soak::books::Books;
use crate::soak::memory::Memory;
use crate::soak::office::{Manner, Office};
use crate::soak::op::{Op, WEIGHTS};
use crate::soak::subject::{Shape, Subject};
use crate::soak::worker::{PATIENCE, Worker};

pub(crate) use report::SoakReport;

/// How often the main thread looks.
const TICK: Duration = Duration::from_millis(50);
/// How long the frames may take to come back.
const SETTLES_WITHIN: Duration = Duration::from_secs(20);
/// Frames for each VMO; fewer than the largest have pages.
const FRAMES: u64 = 64;
const MANNERS: [Manner; 4] = [Manner::Asleep, Manner::Prompt, Manner::Prompt, Manner::Rough];

/// What the workers share.
pub(crate) struct Soak {
    pub(crate) workers: u64,
    pub(crate) books: Arc<Books>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) offices: Vec<Office>,
    pub(crate) slots: Vec<Mutex<Option<Arc<Subject>>>>,
    pub(crate) started: Instant,
    /// Accesses that wait, of all workers.
    pub(crate) waiting: AtomicU64,
    subjects: Mutex<HashMap<u64, Weak<Subject>>>,
    keys: AtomicU64,
    over: AtomicBool,
    /// By worker: how many operations it has begun, and the last one's row.
    steps: Vec<(AtomicU64, AtomicU64)>,
}

impl Soak {
    fn new(config: &SoakConfig) -> Result<Self, Failure> {
        let books = Arc::<Books>::default();
        let memory = Arc::new(Memory::new(config.vmos * FRAMES, config.seed, books.clone()));
        let mut rng = SmallRng::seed_from_u64(config.seed);
        let soak = Self {
            workers: config.threads.into(),
            offices: MANNERS.iter().map(|manner| Office::new(*manner, &memory)).collect::<Result<_, _>>()?,
            slots: (0..config.vmos).map(|_| Mutex::new(None)).collect(),
            books,
            memory,
            started: Instant::now(),
            waiting: AtomicU64::new(0),
            subjects: Mutex::default(),
            keys: AtomicU64::new(1),
            over: AtomicBool::new(false),
            steps: (0..config.threads).map(|_| Default::default()).collect(),
        };
        for slot in 0..soak.slots.len() {
            let subject = soak.make(&mut rng)?;
            soak.put(slot, subject);
        }
        Ok(soak)
    }

    /// A new VMO, of any kind.
    pub(crate) fn make(&self, rng: &mut SmallRng) -> Result<Arc<Subject>, Failure> {
        let key = self.keys.fetch_add(1, SeqCst); // SeqCst: any order would do
        let office = &self.offices[rng.random_range(0..self.offices.len())];
        let pages = match rng.random_range(0..8) {
            0 => 1,
            1 => rng.random_range(65..=600),
            _ => rng.random_range(2..=48),
        };
        let resizable = rng.random_bool(0.5);
        let shape =
            Shape { traps: rng.random_bool(0.5), resizable, pages, most: if resizable { pages * 2 } else { pages } };
        let tail = rng.random_range(0..PAGE_SIZE);
        let subject = Subject::new(key, office, &shape, tail, self.workers, &self.books);
        let subject = Arc::new(subject.map_err(Failure::pager("creating a VMO"))?);
        let mut subjects = self.subjects.lock();
        subjects.insert(key, Arc::downgrade(&subject));
        subjects.retain(|_, subject| subject.strong_count() > 0);
        self.books.figures.vmos.add(1);
        Ok(subject)
    }

    /// Puts a VMO in the place of another.
    pub(crate) fn put(&self, slot: usize, subject: Arc<Subject>) -> Option<Arc<Subject>> {
        self.slots[slot].lock().replace(subject)
    }

    pub(crate) fn subject(&self, slot: usize) -> Arc<Subject> {
        self.slots[slot].lock().clone().expect("the slots are filled at first, and emptied when the workers are home")
    }

    /// The VMO with this key, if anybody has it.
    pub(crate) fn find_subject(&self, key: u64) -> Option<Arc<Subject>> {
        self.subjects.lock().get(&key)?.upgrade()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(SeqCst) || self.books.has_findings() // SeqCst: as all flags of the program
    }

    /// A worker begins an operation.
    pub(crate) fn begins(&self, worker: u64, op: Op) {
        let (steps, last) = &self.steps[worker as usize];
        last.store(op.row() as u64, Relaxed); // Relaxed, both: for who looks whether a worker is stuck
        steps.fetch_add(1, Relaxed);
    }

    /// How many operations have begun.
    fn begun(&self) -> u64 {
        self.steps.iter().map(|(steps, _)| steps.load(Relaxed)).sum() // Relaxed: as in `begins`
    }

    /// After the workers: drops all VMOs, empties the ports, closes everything, and counts what is left.
    fn finish(&self) {
        self.memory.calm_down();
        for slot in &self.slots {
            let subject = slot.lock().take();
            drop(subject); // which compares it
        }
        for office in &self.offices {
            let mut packets = [Packet::default(); 16];
            loop {
                let since = self.books.ledger.now();
                let taken = office.port().port.take(&mut packets);
                if taken == 0 {
                    break;
                }
                for wrong in self.books.ledger.note(&packets[..taken], since) {
                    self.books.find(wrong);
                }
            }
        }
        for missing in self.books.ledger.missing() {
            self.books.find(missing);
        }
    }
}

/// A worker that hangs: which, and in what.
struct Watchman {
    seen: Vec<(u64, Instant)>,
}

impl Watchman {
    fn new(soak: &Soak) -> Self {
        Self { seen: soak.steps.iter().map(|_| (0, Instant::now())).collect() }
    }

    /// Finds workers that have begun nothing for too long. True: there is one.
    fn look(&mut self, soak: &Soak, workers: &[JoinHandle<Result<(), Failure>>]) -> bool {
        let mut stuck = false;
        for (number, (before, since)) in self.seen.iter_mut().enumerate() {
            let (steps, last) = &soak.steps[number];
            let now = steps.load(Relaxed); // Relaxed: as in `Soak::begins`
            if now != *before {
                (*before, *since) = (now, Instant::now());
            } else if since.elapsed() > 2 * PATIENCE && !workers[number].is_finished() {
                let (op, _) = WEIGHTS[last.load(Relaxed) as usize];
                soak.books.find(format!("worker {number} hangs in {op:?}"));
                stuck = true;
            }
        }
        stuck
    }
}

/// Soaks, and reports.
///
/// Errors: it could not be carried to its end, for want of a thread, or by a panic.
pub(crate) fn soak(config: &SoakConfig) -> Result<SoakReport, Failure> {
    let soak = Arc::new(Soak::new(config)?);
    let mut seeds = SmallRng::seed_from_u64(config.seed ^ 1);
    let mut workers = Vec::new();
    for number in 0..soak.workers {
        let (soak, seed) = (soak.clone(), seeds.next_u64());
        let name = format!("worker {number}");
        let thread = thread::Builder::new().name(name.clone());
        let started = thread.spawn(move || Worker::new(soak, number, seed).run());
        workers.push(started.map_err(|source| Failure::Thread { name, source })?);
    }

    let progress = report::Progress::new(config.time);
    let mut watchman = Watchman::new(&soak);
    let mut stuck = false;
    while !stuck && workers.iter().any(|worker| !worker.is_finished()) {
        if soak.started.elapsed() >= config.time || soak.is_over() || workers.iter().any(JoinHandle::is_finished) {
            soak.over.store(true, SeqCst); // SeqCst: as all flags of the program
        }
        progress.show(&soak);
        thread::sleep(TICK.min(config.time));
        stuck = watchman.look(&soak, &workers);
    }
    progress.end();
    let elapsed = soak.started.elapsed();
    if stuck {
        return Ok(SoakReport::new(config, &soak.books, elapsed, soak.memory.frames()));
    }
    for (number, worker) in workers.into_iter().enumerate() {
        worker.join().map_err(|_| Failure::Panicked { name: format!("worker {number}") })??;
    }
    soak.finish();
    let (memory, books) = (soak.memory.clone(), soak.books.clone());
    drop(soak); // the last one: pagers and ports are closed
    let left = memory.settle(SETTLES_WITHIN);
    if left > 0 {
        books.find(format!("{left} frames have not come back"));
    }
    Ok(SoakReport::new(config, &books, elapsed, left))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_soak_holds() {
        let config = SoakConfig { time: Duration::from_millis(300), threads: 4, vmos: 4, seed: 7 };
        let report = soak(&config).expect("carried to its end");
        assert!(report.holds(), "{}", report.table());
    }
}
