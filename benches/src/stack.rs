//! The pager that a user would build from parts: a concurrent map from page to frame or request, a
//! channel to the service, and a request of its own, with a mutex, for each missing page.
//!
//! It is built to be quick: the map's hash is the fastest there is, a fault looks into the map
//! once, and a faulter that was woken finds the frame in its request. It does less than upager: a
//! request can be neither withdrawn nor failed, and nothing can be detached.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::Waker;

use crossbeam_channel::{Receiver, Sender};
use dashmap::{DashMap, Entry};
use foldhash::fast::FixedState;

/// How a faulter is woken.
pub trait Sleeper {
    /// For a faulter whose task has this waker.
    fn new(waker: &Waker) -> Self;
    /// Wakes it.
    fn wake(&self);
}

/// A task.
impl Sleeper for Waker {
    fn new(waker: &Waker) -> Self {
        waker.clone()
    }

    fn wake(&self) {
        self.wake_by_ref();
    }
}

/// A thread.
impl Sleeper for Condvar {
    fn new(_waker: &Waker) -> Self {
        Self::new()
    }

    fn wake(&self) {
        self.notify_one();
    }
}

/// A request in flight.
#[derive(Debug)]
pub struct Request<S> {
    page: u64,
    frame: Mutex<Option<u64>>,
    sleeper: S,
}

#[derive(Debug)]
enum Page<S> {
    Requested(Arc<Request<S>>),
    Resident(u64),
}

/// The whole of it: faulters' side and service's side.
#[derive(Debug)]
pub struct Stack<S> {
    pages: DashMap<u64, Page<S>, FixedState>,
    to_service: Sender<Arc<Request<S>>>,
    from_faulters: Receiver<Arc<Request<S>>>,
}

impl<S> Request<S> {
    /// The frame, once the service has answered.
    pub fn frame(&self) -> Option<u64> {
        *self.frame.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Sleeper> Stack<S> {
    /// With these pages resident.
    pub fn new(resident: impl Iterator<Item = u64>) -> Self {
        let (to_service, from_faulters) = crossbeam_channel::unbounded();
        let pages = resident.map(|page| (page, Page::Resident(page))).collect();
        Self { pages, to_service, from_faulters }
    }

    /// The frame of a resident page.
    ///
    /// # Errors
    /// The request to wait for, if the page is absent.
    pub fn fault(&self, page: u64, waker: &Waker) -> Result<u64, Arc<Request<S>>> {
        match self.pages.entry(page) {
            Entry::Occupied(here) => match here.get() {
                Page::Requested(request) => Err(request.clone()),
                Page::Resident(frame) => Ok(*frame),
            },
            Entry::Vacant(absent) => {
                let request = Arc::new(Request { page, frame: Mutex::new(None), sleeper: S::new(waker) });
                drop(absent.insert(Page::Requested(request.clone())));
                // The receiver is in `self`: sending does not fail.
                self.to_service.send(request.clone()).ok();
                Err(request)
            }
        }
    }

    /// What the service finds in the channel.
    pub fn take(&self) -> impl Iterator<Item = Arc<Request<S>>> {
        self.from_faulters.try_iter()
    }

    /// Puts the page in and wakes its faulter.
    pub fn supply(&self, request: &Request<S>, frame: u64) {
        self.pages.insert(request.page, Page::Resident(frame));
        *request.frame.lock().unwrap_or_else(PoisonError::into_inner) = Some(frame);
        request.sleeper.wake();
    }

    /// Makes a page absent.
    pub fn evict(&self, page: u64) {
        self.pages.remove(&page);
    }
}
