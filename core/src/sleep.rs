//! Who sleeps at a port, and how one of them is woken.
//!
//! A sleeper announces itself, then looks at the port once more; whoever brings something looks for
//! sleepers after it. Between the two steps of each stands a `SeqCst` fence: in the order of the
//! fences one comes first, and the other then sees what was done before it. A waker is *called
//! before* its sleeper is taken off the list, so a thread stopped in the middle of a wake-up has
//! either woken it or left it to be woken by the next.
//!
//! That the port is closed stands in the same word as the number of sleepers, so that who brings
//! something looks at one word for both.

use core::task::Waker;

use crate::pool::Pool;
use crate::status::Result;
#[cfg(accounting)]
use crate::sync::accounting::Lines;
use crate::sync::{Acquire, AtomicU32, Cell, Guard, Relaxed, Release, SeqCst, fence};

/// A thread or task that waits for packets.
struct Sleeper {
    state: AtomicU32,
    waker: Cell<Option<Waker>>,
}

const IDLE: u32 = 0;
const ARMED: u32 = 1;
const NOTIFIED: u32 = 2;

/// Nobody will take anything any more.
const CLOSED: u32 = 1 << 31;

// SAFETY: the cell is written by the one who has claimed the sleeper before it is armed, and by
// the one who releases it after the grace period; in between it is only read.
unsafe impl Sync for Sleeper {}
// SAFETY: a Waker is Send.
unsafe impl Send for Sleeper {}

impl Default for Sleeper {
    fn default() -> Self {
        Self { state: AtomicU32::new(IDLE), waker: Cell::new(None) }
    }
}

/// The sleepers of a port.
pub(crate) struct Sleepers {
    pool: Pool<Sleeper>,
    /// How many sleepers may be armed, never below the truth; and whether the port is closed.
    ///
    /// Each sleeper is counted before it is armed, and discounted once after that, by whoever has seen it armed
    /// (or by itself): so in the order of this word's changes its two come in this order, whatever their own
    /// orders are. That who looks sees the first is the fences' doing.
    armed: AtomicU32,
}

impl Sleepers {
    pub(crate) fn new() -> Self {
        Self { pool: Pool::new(), armed: AtomicU32::new(0) }
    }

    /// Whether somebody may sleep, or the port is closed, seen from after what the caller did.
    #[inline]
    pub(crate) fn looked_for(&self) -> bool {
        // Pairs with the fence in `Wait::poll` and with that in Port's Drop: either they see what
        // was done before this, or we see them.
        fence(SeqCst);
        self.armed.load(Relaxed) != 0 // Relaxed: the fence orders it
    }

    /// Whether somebody was seen to sleep, or the port to be closed. Unlike [`looked_for`](Self::looked_for)
    /// it may miss who begins to.
    #[inline]
    pub(crate) fn has_some(&self) -> bool {
        self.armed.load(Relaxed) != 0 // Relaxed: may be old, see above
    }

    /// The port is being closed: it has no sleepers, and will have none.
    pub(crate) fn close(&self) {
        self.armed.fetch_or(CLOSED, Relaxed); // Relaxed: the fence that follows it orders it, see `looked_for`
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.armed.load(Relaxed) & CLOSED != 0 // Relaxed: who must see it has come by the fence in `looked_for`
    }

    /// Wakes one, if there is one.
    pub(crate) fn wake_one(&self, guard: &Guard) {
        let _ = guard;
        let mut woken = false;
        self.pool.glance(|_, sleeper| {
            // Acquire: pairs with `begin`, for the waker
            if woken || sleeper.state.load(Acquire) != ARMED {
                return;
            }
            sleeper.waker.with(|cell| {
                // SAFETY: armed, and the caller is pinned: the cell is written again only after the
                // grace period that follows the end of this sleep, so for now it is only read.
                if let Some(waker) = unsafe { &*cell } {
                    waker.wake_by_ref();
                }
            });
            // Release: what the caller brought comes before, and who finds himself notified, in `end`, sees it.
            // Exactly one takes the sleeper out of `armed`. Failing: another one woke it, for something else;
            // or it leaves and believes itself unnotified, so it will not pass on what it was woken for. Then
            // the next one must be woken. Relaxed, then: that is all that is learnt.
            if sleeper.state.compare_exchange(ARMED, NOTIFIED, Release, Relaxed).is_ok() {
                self.armed.fetch_sub(1, Relaxed); // Relaxed: see `armed`
                woken = true;
            }
        });
    }

    /// A sleep begins. The caller then fences, and looks at the port once more.
    pub(crate) fn begin(&self, waker: &Waker) -> Result<u32> {
        let (index, sleeper) = self.pool.claim()?;
        // SAFETY: claimed and idle: only we touch the cell until it is armed.
        sleeper.waker.with_mut(|cell| unsafe { *cell = Some(waker.clone()) });
        self.armed.fetch_add(1, Relaxed); // Relaxed: see `armed`
        // Release: publishes the waker to `wake_one`, and that this sleeper is counted
        sleeper.state.store(ARMED, Release);
        Ok(index)
    }

    /// The sleep is over. True if somebody had ended it. The caller [releases](Self::release) the
    /// place after a grace period.
    pub(crate) fn end(&self, index: u32) -> bool {
        let Some(sleeper) = self.pool.get(index) else { return false };
        // Exactly one takes the sleeper out of `armed`. Acquire: what he was woken for, see `wake_one`.
        let was = sleeper.state.swap(IDLE, Acquire);
        if was == ARMED {
            self.armed.fetch_sub(1, Relaxed); // Relaxed: see `armed`
        }
        was == NOTIFIED
    }

    /// Drops the waker and gives the place back.
    ///
    /// # Safety
    /// A grace period has passed since the caller [ended](Self::end) the sleep that began here, and
    /// nobody released the place before.
    pub(crate) unsafe fn release(&self, index: u32) {
        if let Some(sleeper) = self.pool.get(index) {
            // SAFETY: after the grace period nobody who saw it armed still reads it, and the entry
            // is still claimed, by the caller.
            sleeper.waker.with_mut(|cell| drop(unsafe { (*cell).take() }));
        }
        self.pool.release(index);
    }
}

/// In a model every sleep has ended in the end, is counted no more, and has given its place back.
#[cfg(loom)]
impl Drop for Sleepers {
    fn drop(&mut self) {
        assert_eq!(self.armed.load(Relaxed) & !CLOSED, 0, "a sleeper is counted still"); // Relaxed: as below
        // Relaxed: `&mut self` comes after all
        self.pool.glance(|_, sleeper| panic!("a place of a sleeper in {} is left", sleeper.state.load(Relaxed)));
    }
}

#[cfg(accounting)]
impl Sleepers {
    pub(crate) fn lines(&self, lines: &mut Lines) {
        lines.add(&self.armed, "port's sleepers", "service threads that go to sleep, and who wakes one");
        let names = [
            ("sleepers' segments", "nobody: written when more sleep than ever"),
            ("sleepers' hint", "service threads that go to sleep or wake up, if more than eight sleep"),
            ("sleepers' bits", "service threads that go to sleep or wake up"),
            ("sleeper", "a service thread that sleeps, and who wakes it"),
        ];
        self.pool.lines(lines, names);
    }
}
