//! A fault loop: takes messages of the userfaultfd, and brings the tasks that they begin to their end.
//!
//! One turn does a bounded amount of each kind of work, so that no region and no task keeps the others waiting: tasks that
//! were woken, then new messages, then tasks that met another thread at work. When there is nothing to do it
//! looks for a while, which is cheaper than sleeping if something comes soon, and then sleeps.

use std::collections::VecDeque;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use upager::PageIndex;

use crate::address_map::{AddressMap, find};
use crate::error::{Error, Result};
use crate::latency::{Latencies, Stage};
use crate::mapper::MapperOptions;
use crate::region::Region;
use crate::sequence::Wish;
use crate::task::{Notes, Step, Task};
use crate::uffd::{Message, Stopped, Uffd};
use crate::wakers::{Bell, Place};

/// Messages taken in one turn.
const MESSAGES: usize = 64;
/// Tasks polled in one turn.
const POLLED: usize = 128;
/// How long a loop sleeps at most: what others have retired is freed by whoever comes by.
const NAP: Duration = Duration::from_millis(50);
/// Places from here on are those of the service's work, which has no slots.
const HELPS: u32 = u32::MAX - 7;
/// What an epoll says has something.
const USERFAULTFD: u64 = 0;
const BELL: u64 = 1;

/// What all loops of a mapper share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) uffd: Arc<Uffd>,
    /// An empty file, for addresses at which there is nothing any more.
    pub(crate) nothing: OwnedFd,
    pub(crate) regions: AddressMap,
    pub(crate) options: MapperOptions,
    pub(crate) bells: Vec<Arc<Bell>>,
    pub(crate) stop: AtomicBool,
    /// Mappings that were closed so far, and parts of them.
    pub(crate) closed: AtomicU64,
    pub(crate) figures: Figures,
    pub(crate) latencies: Arc<Latencies>,
}

/// What the loops have done. Relaxed throughout: a figure orders nothing.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) messages: AtomicU64,
    pub(crate) asked: AtomicU64,
    pub(crate) mapped: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) again: AtomicU64,
}

impl Shared {
    /// Ends a mapping: threads that are stopped in it get SIGBUS.
    pub(crate) fn close(&self, region: &Arc<Region>) {
        region.close(&self.nothing);
        if region.is_closed() {
            self.regions.remove(region);
            self.drop_tasks();
        }
    }

    /// Ends a part of a mapping, in the same way.
    pub(crate) fn cut(&self, region: &Region, addresses: &Range<usize>) -> Result<()> {
        region.cut(addresses, &self.nothing)?;
        self.drop_tasks();
        Ok(())
    }

    /// So that tasks of what is closed let go of the VMO, and of the addresses.
    fn drop_tasks(&self) {
        self.closed.fetch_add(1, Release); // Release: the loops see that it is closed
        self.ring();
    }

    /// Has the loops end.
    pub(crate) fn end(&self) {
        self.stop.store(true, SeqCst); // SeqCst: see `Mapper::map`
        self.ring();
    }

    fn ring(&self) {
        for bell in &self.bells {
            bell.ring();
        }
    }
}

/// What a loop leaves. If it panics, nobody would answer the faults it has taken; so it ends all loops, and closes their
/// mappings.
struct Legacy(Arc<Shared>);

impl Drop for Legacy {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.end();
            for region in self.0.regions.load().iter() {
                self.0.close(region);
            }
        }
    }
}

/// A page that was failed, until the next touch may ask again.
struct Failure {
    until: Instant,
    region: Arc<Region>,
    page: PageIndex,
}

struct Slot {
    waker: Waker,
    place: Arc<Place>,
    task: Option<Task>,
}

struct Notebook<'a> {
    shared: &'a Shared,
    failures: &'a mut VecDeque<Failure>,
}

impl Notes for Notebook<'_> {
    fn mapped(&mut self, pages: u64) {
        self.shared.figures.mapped.fetch_add(pages, Relaxed);
    }

    fn asked(&mut self) -> Option<Instant> {
        self.shared.figures.asked.fetch_add(1, Relaxed);
        self.shared.latencies.begin()
    }

    fn took(&mut self, stage: Stage, begun: Option<Instant>) {
        self.shared.latencies.end(stage, begun);
    }

    fn failed(&mut self, region: &Arc<Region>, page: PageIndex) {
        self.shared.figures.failed.fetch_add(1, Relaxed);
        let until = Instant::now() + self.shared.options.heal_after;
        self.failures.push_back(Failure { until, region: region.clone(), page });
    }
}

/// A message, made out.
#[derive(Clone)]
struct Touch {
    region: Arc<Region>,
    page: PageIndex,
    stopped: Stopped,
}

/// Work of a service that a loop does besides its own, until that is over.
pub(crate) type Help = Pin<Box<dyn Future<Output = ()> + Send>>;

pub(crate) struct FaultLoop {
    shared: Arc<Shared>,
    helps: Vec<Option<(Help, Waker, Arc<Place>)>>,
    bell: Arc<Bell>,
    epoll: OwnedFd,
    slots: Vec<Slot>,
    free: Vec<u32>,
    again: VecDeque<u32>,
    failures: VecDeque<Failure>,
    messages: Vec<Message>,
    touches: Vec<Touch>,
    /// Closed mappings that it knows of.
    closed: u64,
}

impl FaultLoop {
    pub(crate) fn new(shared: &Arc<Shared>, number: usize, helps: Vec<Help>) -> Result<Self> {
        let bell = shared.bells[number].clone();
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(Error::system("creating an epoll"))?;
        // Exclusive: one message does not wake all loops.
        let flags = epoll::EventFlags::IN | epoll::EventFlags::EXCLUSIVE;
        epoll::add(&epoll, &shared.uffd, epoll::EventData::new_u64(USERFAULTFD), flags)
            .and_then(|()| epoll::add(&epoll, &bell, epoll::EventData::new_u64(BELL), epoll::EventFlags::IN))
            .map_err(Error::system("watching a userfaultfd"))?;
        let with_a_place = |(place, help)| {
            let (waker, place) = bell.waker(place);
            waker.wake_by_ref(); // its first turn
            Some((help, waker, place))
        };
        let helps = (HELPS..).zip(helps).map(with_a_place).collect();
        Ok(Self {
            shared: shared.clone(),
            helps,
            bell,
            epoll,
            slots: Vec::new(),
            free: Vec::new(),
            again: VecDeque::new(),
            failures: VecDeque::new(),
            messages: vec![Message::default(); MESSAGES],
            touches: Vec::new(),
            closed: 0,
        })
    }

    /// Works until the mapper ends.
    pub(crate) fn run(mut self) {
        let _legacy = Legacy(self.shared.clone());
        let mut idle_since = None;
        while !self.shared.stop.load(Acquire) {
            // Acquire: pairs with the end of the mapper
            if self.turn() {
                idle_since = None;
                continue;
            }
            let now = Instant::now();
            if now.duration_since(*idle_since.get_or_insert(now)) < self.shared.options.spin {
                std::hint::spin_loop();
                continue;
            }
            self.sleep();
            idle_since = None;
        }
    }

    /// Does some of everything. False: there was nothing to do.
    fn turn(&mut self) -> bool {
        let mut worked = false;
        let closed = self.shared.closed.load(Acquire); // Acquire: pairs with `Mapping::close`
        if closed != self.closed {
            self.closed = closed;
            self.drop_lost();
        }
        for _ in 0..POLLED {
            let Some(place) = self.bell.next() else { break };
            worked = true;
            if place < HELPS { self.poll(place) } else { self.help(place) }
        }
        worked |= self.take_messages();
        if !self.again.is_empty() {
            worked = true;
            for _ in 0..self.again.len().min(POLLED) {
                let Some(place) = self.again.pop_front() else { break };
                self.poll(place);
            }
            if !self.again.is_empty() {
                std::thread::yield_now(); // those that it met at work are to get on with it
            }
        }
        self.heal();
        worked
    }

    fn take_messages(&mut self) -> bool {
        let taken = self.shared.uffd.read(&mut self.messages).unwrap_or(0);
        if taken == 0 {
            return false;
        }
        self.shared.figures.messages.fetch_add(taken as u64, Relaxed);
        let taken_at = self.shared.latencies.begin();
        let regions = self.shared.regions.load();
        for message in &self.messages[..taken] {
            let Some((address, stopped)) = message.page_fault() else { continue };
            match find(&regions, address) {
                Some(region) => {
                    self.touches.push(Touch { region: region.clone(), page: region.page_of(address), stopped });
                }
                // Of a mapping that has been closed: who is stopped there finds out what is there now.
                None => self.shared.uffd.wake(&crate::stage::page_at(address & !(crate::bytes::PAGE - 1))),
            }
        }
        drop(regions);
        let mut touches = std::mem::take(&mut self.touches);
        // Neighbours come to stand beside each other, and make one task.
        touches.sort_by_key(|touch| (Arc::as_ptr(&touch.region).addr(), touch.stopped != Stopped::Reading, touch.page));
        let mut touches_left = touches.drain(..).peekable();
        while let Some(touch) = touches_left.next() {
            let mut wanted = 1;
            while let Some(next) = touches_left.next_if(|next| {
                let same = Arc::ptr_eq(&next.region, &touch.region) && next.stopped == touch.stopped;
                same && next.page.0 <= touch.page.0 + wanted
            }) {
                wanted = next.page.0 - touch.page.0 + 1;
            }
            self.begin(touch, wanted, taken_at);
        }
        drop(touches_left);
        self.touches = touches;
        true
    }

    fn begin(&mut self, touch: Touch, wanted: u64, taken_at: Option<Instant>) {
        let Touch { region, page, stopped } = touch;
        let end = region.first().0 + region.count().0;
        let wish = if stopped == Stopped::Protected {
            Wish::Alone
        } else {
            let limit = region.vmo().platform().most_ahead();
            let most = self.shared.options.read_ahead.min(limit);
            region.sequences.wish(page, most.0, limit.0.saturating_mul(2))
        };
        let (window, ahead) = match wish {
            Wish::Alone => (1, 0..0),
            Wish::Window(window, ahead) => (window, ahead),
            // If a task is at work there, it brings the rest.
            Wish::Within(_) if self.is_at_work(&region, page) => (1, 0..0),
            Wish::Within(rest) => (region.absent(page, rest.min(end - page.0)).max(1), 0..0),
        };
        let run = window.max(wanted).min(end - page.0);
        // Who reads on finds the next windows near when it comes there. Each is asked for by itself, so that one does not wait for
        // another.
        let (mut near, last) = (ahead.start.max(page.0 + run), ahead.end.min(end));
        let bring_near = region.clone();
        self.enter(Task::new(region, page, wanted, run, stopped, taken_at));
        while near < last {
            let count = window.min(last - near);
            self.enter(Task::ahead(bring_near.clone(), PageIndex(near), count));
            near += count;
        }
    }

    /// Whether a task of this loop is about to map the page.
    fn is_at_work(&self, region: &Arc<Region>, page: PageIndex) -> bool {
        self.slots.iter().filter_map(|slot| slot.task.as_ref()).any(|task| task.will_map(region, page))
    }

    /// Gives a task a place, and its first turn.
    fn enter(&mut self, task: Task) {
        let place = self.free.pop().unwrap_or_else(|| {
            let number = self.slots.len() as u32;
            let (waker, place) = self.bell.waker(number);
            self.slots.push(Slot { waker, place, task: None });
            number
        });
        self.slots[place as usize].task = Some(task);
        self.poll(place);
    }

    fn poll(&mut self, place: u32) {
        let slot = &mut self.slots[place as usize];
        slot.place.polled();
        let Some(task) = &mut slot.task else { return }; // woken after its end
        let _span = tracing::trace_span!("fault", vmo = task.vmo(), page = task.page().0).entered();
        let mut notebook = Notebook { shared: &self.shared, failures: &mut self.failures };
        match task.step(&slot.waker, &mut notebook) {
            Step::Waits => {}
            Step::Again => {
                self.shared.figures.again.fetch_add(1, Relaxed);
                self.again.push_back(place);
            }
            Step::Done => {
                slot.task = None;
                self.free.push(place);
            }
        }
    }

    /// Does some of the service's work. What that wakes of ours is in the bell's queue then.
    fn help(&mut self, place: u32) {
        let work = &mut self.helps[(place - HELPS) as usize];
        let Some((help, waker, place)) = work else { return };
        place.polled();
        if help.as_mut().poll(&mut Context::from_waker(waker)).is_ready() {
            *work = None;
        }
    }

    /// Lets pages that were failed be asked for again, when their time has come.
    fn heal(&mut self) {
        if self.failures.is_empty() {
            return;
        }
        let now = Instant::now();
        for _ in 0..POLLED {
            let Some(failure) = self.failures.front().filter(|failure| failure.until <= now) else { break };
            let Some(claim) = failure.region.claim(failure.page, 1) else { break };
            failure.region.heal(&claim, failure.page);
            drop(claim);
            self.failures.pop_front();
        }
    }

    fn sleep(&mut self) {
        crossbeam_epoch::pin().flush(); // frames that wait for a grace period are freed by whoever comes by
        let mut timeout = NAP;
        if let Some(failure) = self.failures.front() {
            timeout = timeout.min(failure.until.saturating_duration_since(Instant::now()));
        }
        if !self.bell.fall_asleep() {
            return;
        }
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(timeout.subsec_nanos()) };
        let mut events = [const { std::mem::MaybeUninit::uninit() }; 2];
        // Whatever it was, or none: the next turn looks.
        if let Ok((events, _)) = epoll::wait(&self.epoll, &mut events, Some(&timeout))
            && events.iter().any(|event| event.data.u64() == BELL)
        {
            self.bell.silence();
        }
        self.bell.awake();
    }

    /// Drops the tasks of mappings, and of parts of them, that were closed, and what is noted of them.
    fn drop_lost(&mut self) {
        for (place, slot) in self.slots.iter_mut().enumerate() {
            if let Some(task) = slot.task.take_if(|task| task.is_lost()) {
                task.end();
                self.free.push(place as u32);
                self.again.retain(|again| *again as usize != place);
            }
        }
        self.failures.retain(|failure| !failure.region.is_closed());
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use std::thread;

    use upager::{ByteRange, PAGE_SIZE, Pager, Port, Status, VmoOptions};

    use super::*;
    use crate::{LinuxPlatform, Mapper, Protection};

    #[test]
    fn threads_come_home_when_a_loop_panics() {
        let Ok(mapper) = Mapper::new() else { return println!("skipped: no userfaultfd here") };
        let platform = Arc::new(LinuxPlatform::new());
        let (pager, port) = (Pager::new(platform.clone()), Port::new(platform.clone()));
        let vmo = Arc::new(pager.create_vmo(&port, 1, VmoOptions::NONE, 4 * PAGE_SIZE).unwrap());
        let mapping = mapper.map(&vmo, ByteRange::new(0, 4 * PAGE_SIZE), Protection::ReadWrite).unwrap();
        thread::scope(|s| {
            // SAFETY: one load, of a byte within.
            let stopped = s.spawn(|| unsafe { mapping.guard(|at| at.read_volatile()) });
            while vmo.counts().in_flight == 0 {
                thread::yield_now(); // nobody supplies it
            }
            let legacy = Legacy(mapper.shared().clone());
            let panicked = s.spawn(move || {
                let _legacy = legacy;
                panic!("on purpose");
            });
            assert!(panicked.join().is_err());
            assert!(stopped.join().unwrap().is_err());
        });
        let refused = mapper.map(&vmo, ByteRange::new(0, PAGE_SIZE), Protection::ReadOnly);
        assert!(matches!(refused, Err(Error::Pager(Status::BadState))), "{refused:?}");
    }
}
