//! What the threads of a run tell each other: when to stop, when the detach is, who is to work now.
//!
//! Flags go up once and stay up, save that of [`Hold`]. They are `SeqCst`, because what they order is
//! not one piece of data but "before" and "after" in the story of the run, and they cost nothing
//! beside a fault. The order in which they go up: detaching, detached, workers stop, helpers stop.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A flag that goes up once.
#[derive(Default)]
pub(crate) struct Flag(AtomicBool);

impl Flag {
    pub(crate) fn raise(&self) {
        self.0.store(true, SeqCst);
    }

    pub(crate) fn is_up(&self) -> bool {
        self.0.load(SeqCst)
    }
}

#[derive(Default)]
pub(crate) struct Signals {
    /// Detach is about to be called: from here on an access may fail with `BAD_STATE`.
    pub(crate) detaching: Flag,
    /// Detach has returned: from here on no clean page can be read.
    pub(crate) detached: Flag,
    /// Readers and writers go home.
    pub(crate) workers_stop: Flag,
    /// Everyone else goes home.
    pub(crate) helpers_stop: Flag,
    /// The evictor is wanted: memory is short.
    pub(crate) memory: Bell,
    pub(crate) hold: Hold,
}

/// Wakes those who wait for it. A ring between two waits of one thread is not lost to it.
#[derive(Default)]
pub(crate) struct Bell {
    rings: Mutex<u64>,
    rang: Condvar,
}

impl Bell {
    fn lock(&self) -> MutexGuard<'_, u64> {
        self.rings.lock().unwrap_or_else(PoisonError::into_inner) // a counter is right whoever panicked
    }

    pub(crate) fn ring(&self) {
        *self.lock() += 1;
        self.rang.notify_all();
    }

    /// Waits until the bell has rung more often than `heard`, or the time is over, and notes how
    /// often it has.
    pub(crate) fn wait(&self, heard: &mut u64, at_most: Duration) {
        let waited = self.rang.wait_timeout_while(self.lock(), at_most, |rings| *rings == *heard);
        *heard = *waited.unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// Has one service thread sit on the packets it was handed, so that a detach finds some.
#[derive(Default)]
pub(crate) struct Hold {
    wanted: AtomicBool,
    held: AtomicU64,
}

impl Hold {
    pub(crate) fn ask(&self) {
        self.wanted.store(true, SeqCst);
    }

    pub(crate) fn end(&self) {
        self.wanted.store(false, SeqCst);
    }

    /// How many packets are being held.
    pub(crate) fn held(&self) -> u64 {
        self.held.load(SeqCst)
    }

    /// Called by the service thread with its packets in hand: returns when they may be answered.
    pub(crate) fn sit_on(&self, packets: usize) {
        if !self.wanted.load(SeqCst) {
            return;
        }
        self.held.store(packets as u64, SeqCst);
        while self.wanted.load(SeqCst) {
            std::thread::sleep(Duration::from_micros(200));
        }
        self.held.store(0, SeqCst);
    }
}

/// Keeps the number of dirty pages bounded: writers wait when too many writes were made since the
/// last writeback.
///
/// A write makes at most one page dirty. So the pages that are dirty are at most the writes begun
/// since the last finished round of writeback began, and one more for each writer whose page that
/// round passed over because the write was under way.
pub(crate) struct Throttle {
    most: u64,
    begun: AtomicU64,
    written_back: AtomicU64,
    /// The writeback thread is wanted.
    wanted: Bell,
    /// A round of writeback is over.
    done: Bell,
}

impl Throttle {
    /// Lets at most `most` pages become dirty.
    pub(crate) fn new(most: u64) -> Self {
        Self { most, begun: 0.into(), written_back: 0.into(), wanted: Bell::default(), done: Bell::default() }
    }

    /// Announces a write, and waits for its turn unless `given_up`.
    pub(crate) fn begin_write(&self, given_up: impl Fn() -> bool) {
        let mut heard = 0;
        // After the count of what was written back, which is never more than what was begun.
        while self.written_back.load(SeqCst) + self.most <= self.begun.load(SeqCst) && !given_up() {
            self.wanted.ring();
            self.done.wait(&mut heard, Duration::from_millis(5));
        }
        let begun = self.begun.fetch_add(1, SeqCst) + 1;
        if begun == self.written_back.load(SeqCst) + self.most.div_ceil(2) {
            self.wanted.ring(); // half the room is taken: in good time, so that nobody has to wait
        }
    }

    /// Waits until writeback is wanted, or it is time for a round anyway.
    pub(crate) fn wait_for_work(&self, heard: &mut u64, at_most: Duration) {
        self.wanted.wait(heard, at_most);
    }

    /// Asks for a round of writeback: clean pages are needed.
    pub(crate) fn want_writeback(&self) {
        self.wanted.ring();
    }

    /// A round of writeback begins; its end is told to [`end_round`](Self::end_round).
    pub(crate) fn begin_round(&self) -> u64 {
        self.begun.load(SeqCst)
    }

    pub(crate) fn end_round(&self, begun: u64) {
        self.written_back.store(begun, SeqCst);
        self.done.ring();
    }
}
