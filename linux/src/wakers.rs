//! How the tasks of one fault loop are woken: each has a place, and a woken place is put in a queue. If the
//! loop sleeps, it is woken through an eventfd.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, fence};
use std::task::{Wake, Waker};

use crossbeam_queue::SegQueue;
use rustix::event::{EventfdFlags, eventfd};

use crate::error::{Error, Result};

/// What wakes one loop.
#[derive(Debug)]
pub(crate) struct Bell {
    woken: SegQueue<u32>,
    asleep: AtomicBool,
    fd: OwnedFd,
}

impl Bell {
    pub(crate) fn new() -> Result<Arc<Self>> {
        let fd =
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(Error::system("creating an eventfd"))?;
        Ok(Arc::new(Self { woken: SegQueue::new(), asleep: AtomicBool::new(false), fd }))
    }

    /// A waker for a place.
    pub(crate) fn waker(self: &Arc<Self>, place: u32) -> (Waker, Arc<Place>) {
        let place = Arc::new(Place { bell: self.clone(), number: place, queued: AtomicBool::new(false) });
        (Waker::from(place.clone()), place)
    }

    /// The next place that was woken.
    pub(crate) fn next(&self) -> Option<u32> {
        self.woken.pop()
    }

    /// The loop is about to sleep. False: it must not, something has come.
    pub(crate) fn fall_asleep(&self) -> bool {
        self.asleep.store(true, Relaxed); // Relaxed: the fence orders it
        // Pairs with the fence in `ring`: either we see what was put in the queue, or it sees us asleep.
        fence(SeqCst);
        if self.woken.is_empty() {
            return true;
        }
        self.awake();
        false
    }

    /// The loop is awake again.
    pub(crate) fn awake(&self) {
        self.asleep.store(false, Relaxed); // Relaxed: who still sees it asleep rings once too often
    }

    /// Takes back what was written to wake the loop.
    pub(crate) fn silence(&self) {
        let mut count = [0; 8];
        let _: rustix::io::Result<usize> = rustix::io::read(&self.fd, &mut count); // AGAIN: there was nothing
    }

    /// Wakes the loop, if it sleeps.
    pub(crate) fn ring(&self) {
        fence(SeqCst); // pairs with the fence in `fall_asleep`
        // Relaxed: only a look; AcqRel: one of those who ring writes
        if self.asleep.load(Relaxed) && self.asleep.swap(false, AcqRel) {
            let written = rustix::io::write(&self.fd, &1_u64.to_ne_bytes());
            debug_assert!(written.is_ok(), "a count far from its limit: {written:?}");
        }
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The place of a task.
#[derive(Debug)]
pub(crate) struct Place {
    bell: Arc<Bell>,
    number: u32,
    queued: AtomicBool,
}

impl Place {
    /// The place's task is about to be polled: it can be woken anew.
    pub(crate) fn polled(&self) {
        self.queued.store(false, Release); // Release: comes before the poll, pairs with `wake_by_ref`
        fence(SeqCst); // a wake that finds it queued came before, so its cause is seen by the poll
    }
}

impl Wake for Place {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        fence(SeqCst); // pairs with the fence in `polled`
        if !self.queued.swap(true, AcqRel) {
            self.bell.woken.push(self.number);
            self.bell.ring();
        }
    }
}
