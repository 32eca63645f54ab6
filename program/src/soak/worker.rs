//! A worker: draws operations, does them, and polls its accesses when they are woken.
//!
//! A worker never blocks for long: an access that has to wait becomes a [`Task`], of which it keeps some,
//! and goes on with the next operation. So every worker can do everything, the service's part too. A task
//! is polled when its waker was called, and most are not otherwise; so a wake-up that is lost is a task that
//! grows old.
//!
//! Of each task holds: it is woken no more often than it went to sleep, and it comes home before
//! [`PATIENCE`] is over; and if it began after a detach had returned, it does not wait.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt, SeedableRng};

use crate::failure::Failure;
use crate::soak::Soak;
use crate::soak::office::{Manner, Office, OpenPort};
use crate::soak::op::Op;
use crate::soak::subject::Subject;
use crate::soak::task::{Task, Temper};
use crate::soak::{housekeeping, service, users};

/// An access that is not home after so long hangs. Far more than any needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Accesses of one worker that wait at a time.
const MOST_TASKS: usize = 12;
/// Steps between two looks at the age of the tasks.
const LOOK_EVERY: u64 = 1024;

pub(crate) struct Worker {
    pub(crate) soak: Arc<Soak>,
    pub(crate) number: u64,
    pub(crate) rng: SmallRng,
    tasks: Vec<Task>,
    /// Waits at the ports that are served by who was woken: one an office.
    waits: Vec<Option<(Arc<OpenPort>, Task)>>,
    failure: Result<(), Failure>,
}

impl Worker {
    pub(crate) fn new(soak: Arc<Soak>, number: u64, seed: u64) -> Self {
        let waits = soak.offices.iter().map(|_| None).collect();
        Self { soak, number, rng: SmallRng::seed_from_u64(seed), tasks: Vec::new(), waits, failure: Ok(()) }
    }

    /// Works until it is told to stop, and then until no worker's access waits any more.
    pub(crate) fn run(mut self) -> Result<(), Failure> {
        let soak = self.soak.clone();
        let mut steps = 0u64;
        while !soak.is_over() && self.failure.is_ok() {
            let op = self.draw();
            soak.begins(self.number, op);
            self.perform(op);
            soak.books.figures.operations.0[op.row()].add(1);
            self.poll_woken();
            steps += 1;
            if steps.is_multiple_of(LOOK_EVERY) {
                self.look_for_hanging();
            }
            if self.rng.random_range(0..64) == 0 {
                thread::yield_now();
            }
        }
        while soak.waiting.load(SeqCst) > 0 && self.failure.is_ok() {
            soak.begins(self.number, Op::Serve);
            for office in &soak.offices {
                if office.manner != Manner::Asleep {
                    service::serve(&mut self.rng, &soak, office);
                }
                housekeeping::look(&soak, office);
            }
            self.wait_at_ports();
            self.poll_woken();
            self.look_for_hanging();
            thread::yield_now();
        }
        std::mem::replace(&mut self.failure, Ok(()))
    }

    fn draw(&mut self) -> Op {
        loop {
            let op = Op::draw(&mut self.rng);
            let begins_one = matches!(
                op,
                Op::Read
                    | Op::Write
                    | Op::WriteSpan
                    | Op::FaultRead
                    | Op::FaultWrite
                    | Op::Zero
                    | Op::Hint
                    | Op::ReadImpatiently
            );
            if !begins_one || self.tasks.len() < MOST_TASKS {
                return op;
            }
        }
    }

    fn perform(&mut self, op: Op) {
        match op {
            Op::Read => users::read(self),
            Op::Write => users::write(self),
            Op::WriteSpan => users::write_span(self),
            Op::FaultRead => users::fault(self, upager::Access::Read),
            Op::FaultWrite => users::fault(self, upager::Access::Write),
            Op::Lookup => users::lookup(self),
            Op::ReadImpatiently => users::read_impatiently(self),
            Op::GiveUp => self.give_up(),
            Op::PollWithoutCause => self.poll_without_cause(),
            Op::Zero => users::zero(self),
            Op::SetSize => users::set_size(self),
            Op::Hint => users::hint(self),
            Op::Serve => {
                let office = self.office();
                let office = &self.soak.offices[office];
                if office.manner != Manner::Asleep {
                    service::serve(&mut self.rng, &self.soak, office);
                }
            }
            Op::ServeAsleep => self.wait_at_ports(),
            Op::ServeUntil => {
                let office = self.office();
                service::serve_until(&mut self.rng, &self.soak, &self.soak.offices[office]);
            }
            Op::SupplyUnasked => service::supply_unasked(self),
            Op::Fail => service::fail(self),
            Op::Dirty => service::dirty(self),
            Op::WriteBack => service::write_back(self),
            Op::WriteBackZeros => service::write_back_zeros(self),
            Op::BeginOnly => service::begin_only(self),
            Op::Query => service::query(self),
            Op::Stats => service::statistics(self),
            Op::Counts => self.subject().judge_counts(),
            Op::Evict => housekeeping::evict(self),
            Op::EvictOfAll => housekeeping::evict_of_all(self),
            Op::Look => {
                let office = self.office();
                housekeeping::look(&self.soak, &self.soak.offices[office]);
            }
            Op::Queue => housekeeping::queue(self),
            Op::Cancel => housekeeping::cancel(self),
            Op::Stranger => housekeeping::stranger(self),
            Op::Detach => housekeeping::detach(self),
            Op::Replace => self.failure = housekeeping::replace(self),
            Op::ClosePager => self.failure = housekeeping::close_pager(self),
            Op::ClosePort => housekeeping::close_port(self),
        }
    }

    /// One of the VMOs.
    pub(crate) fn subject(&mut self) -> Arc<Subject> {
        let slot = self.rng.random_range(0..self.soak.slots.len());
        self.soak.subject(slot)
    }

    /// One of so many pages. Often one of the first few, so that many meet there.
    pub(crate) fn page_below(&mut self, pages: u64) -> u64 {
        let hot = if self.rng.random_bool(0.5) { 3 } else { u64::MAX };
        self.rng.random_range(0..pages.clamp(1, hot))
    }

    /// The number of one of the offices.
    pub(crate) fn office(&mut self) -> usize {
        self.rng.random_range(0..self.soak.offices.len())
    }

    /// Begins an access to a VMO.
    pub(crate) fn begin(&mut self, what: &str, subject: &Arc<Subject>, access: impl Future<Output = ()> + 'static) {
        let was_detached = subject.detached.load(SeqCst); // SeqCst: as all flags of the program
        let temper = match self.rng.random_range(0..8) {
            0 => Temper::Restless,
            1 => Temper::Fickle,
            _ => Temper::Patient,
        };
        let mut task = Task::new(format!("worker {}, VMO {}, {what}", self.number, subject.key), temper, access);
        if task.poll() {
            self.come_home(&task);
            return;
        }
        if was_detached {
            subject.find(format_args!("{what} waits, though the detach had returned"));
        }
        self.soak.waiting.fetch_add(1, SeqCst); // SeqCst: as all flags of the program
        self.tasks.push(task);
    }

    fn come_home(&self, task: &Task) {
        let books = &self.soak.books;
        books.figures.came_home.add(1);
        books.figures.slept.add(task.sleeps);
        if task.wakes() > task.sleeps {
            books.find(format!("woken too often: {}", task.story()));
        }
    }

    /// Takes a task out, at its end or before.
    fn take(&mut self, nth: usize) -> Task {
        self.soak.waiting.fetch_sub(1, SeqCst); // SeqCst: as in `begin`
        self.tasks.swap_remove(nth)
    }

    fn poll(&mut self, nth: usize) {
        if self.tasks[nth].poll() {
            let task = self.take(nth);
            self.come_home(&task);
        }
    }

    fn poll_woken(&mut self) {
        for nth in (0..self.tasks.len()).rev() {
            if self.tasks[nth].is_woken() {
                self.poll(nth);
            }
        }
        for wait in &mut self.waits {
            if let Some((_, task)) = wait
                && task.is_woken()
                && task.poll()
            {
                *wait = None;
            }
        }
    }

    fn any_task(&mut self, temper: Temper) -> Option<usize> {
        let of_this = |(nth, task): (usize, &Task)| (task.temper == temper).then_some(nth);
        let all: Vec<_> = self.tasks.iter().enumerate().filter_map(of_this).collect();
        all.choose(&mut self.rng).copied()
    }

    fn poll_without_cause(&mut self) {
        if let Some(nth) = self.any_task(Temper::Restless) {
            self.poll(nth);
        }
    }

    /// Drops an access that waits.
    fn give_up(&mut self) {
        if let Some(nth) = self.any_task(Temper::Fickle) {
            drop(self.take(nth));
            self.soak.books.figures.gave_up.add(1);
        }
    }

    fn look_for_hanging(&mut self) {
        for nth in (0..self.tasks.len()).rev() {
            if self.tasks[nth].age() > PATIENCE {
                let task = self.take(nth);
                self.soak.books.find(format!("an access hangs: {}", task.story()));
            }
        }
    }

    /// Sleeps at every port whose service is to be woken, and where this worker does not yet. Now and
    /// then it leaves instead.
    fn wait_at_ports(&mut self) {
        let soak = self.soak.clone();
        for (number, office) in soak.offices.iter().enumerate() {
            let wait = &mut self.waits[number];
            if office.manner != Manner::Asleep {
                continue;
            }
            let leaves = self.rng.random_range(0..16) == 0;
            if wait.as_ref().is_some_and(|(port, _)| leaves || !office.has_port(port)) {
                *wait = None;
            }
            if wait.is_none() {
                *wait = sleep(&soak, office, SmallRng::seed_from_u64(self.rng.next_u64()));
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // After a panic, or a failure: the others must not wait for what is dropped here.
        self.soak.waiting.fetch_sub(self.tasks.len() as u64, SeqCst); // SeqCst: as in `begin`
    }
}

/// Waits at a port, and serves. `None`: there was something at once.
fn sleep(soak: &Arc<Soak>, office: &Office, mut rng: SmallRng) -> Option<(Arc<OpenPort>, Task)> {
    let port = office.port();
    let wait = {
        let (soak, port) = (soak.clone(), port.clone());
        async move { service::serve_when_woken(&mut rng, &soak, &port).await }
    };
    let mut task = Task::new("a wait at a port".into(), Temper::Patient, wait);
    if task.poll() { None } else { Some((port, task)) }
}

/// Deadlines of waits that block.
pub(crate) fn soon(rng: &mut SmallRng) -> Instant {
    Instant::now() + Duration::from_micros(rng.random_range(0..300))
}
