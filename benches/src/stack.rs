//! The pagers that a user would build from parts: a map from page to frame or request, a channel to
//! the service, and for each missing page a request of its own with the faulters who wait for it.
//!
//! - [`Stack`] is built to be quick: a sharded concurrent map with the fastest hash there is, into which
//!   a fault looks once, and crossbeam's channel.
//! - [`Locked`] has the shape of Zircon's: one lock for a VMO's pages, an ordered map, one lock for
//!   its source's queue.
//!
//! In both a faulter that was woken finds the frame in its request. They do less than upager: a
//! request can be neither withdrawn nor failed, and nothing can be detached.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::task::Waker;
use std::thread::{self, Thread};

use crossbeam_channel::{Receiver, Sender};
use dashmap::{DashMap, Entry};
use foldhash::fast::FixedState;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How a faulter is woken.
pub trait Sleeper: Send + Sync + 'static {
    /// For a faulter whose task has this waker.
    fn new(waker: &Waker) -> Self;
    /// Wakes it.
    fn wake(&self);
    /// Sleeps until the request has its frame; for a thread.
    fn sleep(request: &Request<Self>) -> u64
    where
        Self: Sized;
}

/// A task.
impl Sleeper for Waker {
    fn new(waker: &Waker) -> Self {
        waker.clone()
    }

    fn wake(&self) {
        self.wake_by_ref();
    }

    fn sleep(request: &Request<Self>) -> u64 {
        loop {
            if let Some(frame) = request.frame() {
                return frame;
            }
            std::hint::spin_loop();
        }
    }
}

/// A thread that parks.
impl Sleeper for Thread {
    fn new(_waker: &Waker) -> Self {
        thread::current()
    }

    fn wake(&self) {
        self.unpark();
    }

    fn sleep(request: &Request<Self>) -> u64 {
        loop {
            if let Some(frame) = request.frame() {
                return frame;
            }
            thread::park();
        }
    }
}

/// A thread that waits for a condition.
impl Sleeper for Condvar {
    fn new(_waker: &Waker) -> Self {
        Self::new()
    }

    fn wake(&self) {
        self.notify_one();
    }

    fn sleep(request: &Request<Self>) -> u64 {
        let mut state = lock(&request.state);
        loop {
            if let Some(frame) = state.frame {
                return frame;
            }
            state = request.sleeper.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A request in flight.
#[derive(Debug)]
pub struct Request<S> {
    page: u64,
    state: Mutex<State<S>>,
    /// Its first faulter.
    sleeper: S,
}

#[derive(Debug)]
struct State<S> {
    frame: Option<u64>,
    /// The faulters after the first.
    others: Vec<S>,
}

impl<S: Sleeper> Request<S> {
    fn new(page: u64, waker: &Waker) -> Arc<Self> {
        let state = Mutex::new(State { frame: None, others: Vec::new() });
        Arc::new(Self { page, state, sleeper: S::new(waker) })
    }

    /// The frame, once the service has answered.
    pub fn frame(&self) -> Option<u64> {
        lock(&self.state).frame
    }

    /// One faulter more.
    pub fn join(&self, waker: &Waker) {
        let mut state = lock(&self.state);
        if state.frame.is_none() {
            state.others.push(S::new(waker));
        }
    }

    fn resolve(&self, frame: u64) {
        let others = {
            let mut state = lock(&self.state);
            state.frame = Some(frame);
            std::mem::take(&mut state.others)
        };
        self.sleeper.wake();
        others.iter().for_each(S::wake);
    }

    /// Nobody will answer: wakes everyone.
    pub fn fail(&self) {
        self.resolve(u64::MAX);
    }
}

/// A pager built from parts: faulters' side and service's side.
pub trait Misses: Sync {
    /// How its faulters are woken.
    type Sleeper: Sleeper;

    /// With these pages resident.
    fn new(resident: impl Iterator<Item = u64>) -> Self;

    /// The frame of a resident page.
    ///
    /// # Errors
    /// The request to wait for, if the page is absent.
    fn fault(&self, page: u64, waker: &Waker) -> Result<u64, Arc<Request<Self::Sleeper>>>;

    /// Puts the page in and wakes its faulters.
    fn supply(&self, request: &Request<Self::Sleeper>, frame: u64);

    /// Makes a page absent.
    fn evict(&self, page: u64);

    /// The next request, if there is one.
    fn take(&self) -> Option<Arc<Request<Self::Sleeper>>>;

    /// The next request, for which the calling thread sleeps.
    fn wait(&self) -> Arc<Request<Self::Sleeper>>;

    /// Fails every request in flight. Returns how many.
    fn detach(&self) -> u64;
}

#[derive(Debug)]
enum Page<S> {
    Requested(Arc<Request<S>>),
    Resident(u64),
}

/// dashmap and crossbeam-channel.
#[derive(Debug)]
pub struct Stack<S> {
    pages: DashMap<u64, Page<S>, FixedState>,
    to_service: Sender<Arc<Request<S>>>,
    from_faulters: Receiver<Arc<Request<S>>>,
}

impl<S: Sleeper> Misses for Stack<S> {
    type Sleeper = S;

    fn new(resident: impl Iterator<Item = u64>) -> Self {
        let (to_service, from_faulters) = crossbeam_channel::unbounded();
        let pages = resident.map(|page| (page, Page::Resident(page))).collect();
        Self { pages, to_service, from_faulters }
    }

    fn fault(&self, page: u64, waker: &Waker) -> Result<u64, Arc<Request<S>>> {
        match self.pages.entry(page) {
            Entry::Occupied(here) => match here.get() {
                Page::Requested(request) => {
                    request.join(waker);
                    Err(request.clone())
                }
                Page::Resident(frame) => Ok(*frame),
            },
            Entry::Vacant(absent) => {
                let request = Request::new(page, waker);
                drop(absent.insert(Page::Requested(request.clone())));
                // The receiver is in `self`: sending does not fail.
                self.to_service.send(request.clone()).ok();
                Err(request)
            }
        }
    }

    fn supply(&self, request: &Request<S>, frame: u64) {
        self.pages.insert(request.page, Page::Resident(frame));
        request.resolve(frame);
    }

    fn evict(&self, page: u64) {
        self.pages.remove(&page);
    }

    fn take(&self) -> Option<Arc<Request<S>>> {
        self.from_faulters.try_recv().ok()
    }

    fn wait(&self) -> Arc<Request<S>> {
        self.from_faulters.recv().expect("the sender is in `self`")
    }

    fn detach(&self) -> u64 {
        let mut failed = 0;
        self.pages.retain(|_, page| {
            if let Page::Requested(request) = page {
                request.fail();
                failed += 1;
            }
            false
        });
        failed
    }
}

/// One lock for the pages, one for the queue.
#[derive(Debug)]
pub struct Locked {
    pages: Mutex<BTreeMap<u64, Page<Condvar>>>,
    to_service: mpsc::Sender<Arc<Request<Condvar>>>,
    from_faulters: Mutex<mpsc::Receiver<Arc<Request<Condvar>>>>,
}

impl Misses for Locked {
    type Sleeper = Condvar;

    fn new(resident: impl Iterator<Item = u64>) -> Self {
        let (to_service, from_faulters) = mpsc::channel();
        let pages = resident.map(|page| (page, Page::Resident(page))).collect();
        Self { pages: Mutex::new(pages), to_service, from_faulters: Mutex::new(from_faulters) }
    }

    fn fault(&self, page: u64, waker: &Waker) -> Result<u64, Arc<Request<Condvar>>> {
        let request = {
            let mut pages = lock(&self.pages);
            match pages.get(&page) {
                Some(Page::Resident(frame)) => return Ok(*frame),
                Some(Page::Requested(request)) => {
                    request.join(waker);
                    return Err(request.clone());
                }
                None => {}
            }
            let request = Request::new(page, waker);
            pages.insert(page, Page::Requested(request.clone()));
            request
        };
        // The receiver is in `self`: sending does not fail.
        self.to_service.send(request.clone()).ok();
        Err(request)
    }

    fn supply(&self, request: &Request<Condvar>, frame: u64) {
        lock(&self.pages).insert(request.page, Page::Resident(frame));
        request.resolve(frame);
    }

    fn evict(&self, page: u64) {
        lock(&self.pages).remove(&page);
    }

    fn take(&self) -> Option<Arc<Request<Condvar>>> {
        lock(&self.from_faulters).try_recv().ok()
    }

    fn wait(&self) -> Arc<Request<Condvar>> {
        lock(&self.from_faulters).recv().expect("the sender is in `self`")
    }

    fn detach(&self) -> u64 {
        let pages = std::mem::take(&mut *lock(&self.pages));
        let mut failed = 0;
        for page in pages.values() {
            if let Page::Requested(request) = page {
                request.fail();
                failed += 1;
            }
        }
        failed
    }
}
