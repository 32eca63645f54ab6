//! The port: where the service waits for the page requests of many VMOs.
//!
//! # Who is ready
//!
//! A VMO's entry in the port has two marks. *Ready* is set after a request was appended. A taker
//! that finds it sets *taking*, clears *ready*, takes from the queue, sets *ready* again if it left
//! anything, and clears *taking*. Others visit entries with either mark, but only the one who set
//! *taking* touches the marks. So an entry whose taker was stopped in the middle stays marked, and
//! the others go on serving it.
//!
//! # Fair
//!
//! Takers visit the marked entries in a circle and take one packet at each, more only where no
//! other VMO is ready. No VMO waits for more than one packet of each other one, and for each other
//! thread that takes at the same moment.
//!
//! # Who sleeps
//!
//! A sleeper announces itself, then looks at the marks once more; whoever marks looks for sleepers
//! after it. Between the two steps of each stands a `SeqCst` fence: in the order of the fences one
//! comes first, and the other then sees what was done before it. A waker is *called before* its
//! sleeper is taken off the list, so a thread stopped in the middle of a wake-up has either woken
//! it or left it to be woken by the next.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use crate::packet::Packet;
use crate::pager::Entry;
use crate::platform::Platform;
use crate::pool::{Mark, Pool};
use crate::queue::Taken;
use crate::status::{Result, Status};
use crate::sync::{AcqRel, Acquire, Arc, AtomicU32, Cell, Guard, Hint, Relaxed, Release, SeqCst, fence};
use crate::vmo::Inner;

const READY: Mark = Mark::First;
const TAKING: Mark = Mark::Second;

/// A port. Share it in an `Arc`; dropping it closes it.
///
/// The packets of a closed port are dropped: its VMOs' accesses wait until they are detached, or
/// their pager is closed, or they give up.
///
/// [`Pager`](crate::Pager) has an example.
pub struct Port<P: Platform> {
    shared: Arc<Shared<P>>,
}

/// What the VMOs hold of their port.
pub(crate) struct Shared<P: Platform> {
    platform: Arc<P>,
    vmos: Pool<Entry<P>>,
    /// Where the next round begins.
    turn: Hint,
    sleepers: Pool<Sleeper>,
    /// Not 0: nobody will take anything any more.
    closed: AtomicU32,
    /// How many sleepers may be armed. Never below the truth.
    armed: AtomicU32,
}

/// A thread or task that waits for packets.
struct Sleeper {
    state: AtomicU32,
    waker: Cell<Option<Waker>>,
}

const IDLE: u32 = 0;
const ARMED: u32 = 1;
const NOTIFIED: u32 = 2;

// SAFETY: the cell is written by the one who has claimed the sleeper before it is armed, and by
// the closure that releases it after the grace period; in between it is only read.
unsafe impl Sync for Sleeper {}
// SAFETY: a Waker is Send.
unsafe impl Send for Sleeper {}

impl Default for Sleeper {
    fn default() -> Self {
        Self { state: AtomicU32::new(IDLE), waker: Cell::new(None) }
    }
}

impl<P: Platform> fmt::Debug for Port<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port").finish_non_exhaustive()
    }
}

impl<P: Platform> Shared<P> {
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Acquire) != 0 // Acquire: pairs with Port's Drop
    }

    /// Gives up the VMO's entry.
    pub(crate) fn forget(&self, index: u32, vmo: &Inner<P>, guard: &Guard) {
        if self.vmos.get(index).is_some_and(|entry| entry.clear(vmo, guard)) {
            self.vmos.release(index);
        }
    }

    /// Gives the VMO that `make` makes an entry, whose number `make` is told.
    pub(crate) fn register(&self, make: impl FnOnce(u32) -> Result<Arc<Inner<P>>>) -> Result<Arc<Inner<P>>> {
        let index = self.vmos.claim()?;
        let vmo = make(index).inspect_err(|_| self.vmos.release(index))?;
        if let Some(entry) = self.vmos.get(index) {
            entry.put(&vmo);
        }
        Ok(vmo)
    }

    /// The VMO's queue has something.
    #[inline]
    pub(crate) fn ready(&self, entry: u32) {
        self.vmos.mark(entry, READY);
        self.notify();
    }

    /// Wakes a sleeper, if there is one.
    #[inline]
    fn notify(&self) {
        // Pairs with the fence in `Wait::poll`: either the sleeper sees the mark that was set
        // before this, or we see the sleeper.
        fence(SeqCst);
        // Relaxed: the fence orders it
        if self.armed.load(Relaxed) != 0 {
            self.wake_one();
        }
    }

    #[cold]
    fn wake_one(&self) {
        let _guard = self.platform.pin();
        let mut woken = false;
        self.sleepers.glance(|_, sleeper| {
            // Acquire: pairs with `sleep`, for the waker
            if woken || sleeper.state.load(Acquire) != ARMED {
                return;
            }
            sleeper.waker.with(|cell| {
                // SAFETY: armed, and we are pinned: the cell is written again only after the grace
                // period that follows the end of this sleep, so for now it is only read.
                if let Some(waker) = unsafe { &*cell } {
                    waker.wake_by_ref();
                }
            });
            // AcqRel: exactly one takes the sleeper out of `armed`
            if sleeper.state.compare_exchange(ARMED, NOTIFIED, AcqRel, Acquire).is_ok() {
                self.armed.fetch_sub(1, AcqRel); // AcqRel: after the state
            }
            woken = true;
        });
    }

    fn sleep(&self, waker: &Waker) -> Result<u32> {
        let index = self.sleepers.claim()?;
        let sleeper = self.sleepers.get(index).ok_or(Status::Internal)?;
        // SAFETY: claimed and idle: only we touch the cell until it is armed.
        sleeper.waker.with_mut(|cell| unsafe { *cell = Some(waker.clone()) });
        self.armed.fetch_add(1, AcqRel); // AcqRel: before the state
        sleeper.state.store(ARMED, Release); // Release: publishes the waker to `notify`
        Ok(index)
    }

    fn is_any_ready(&self) -> bool {
        self.vmos.next_marked(0).is_some()
    }

    /// Fills `packets` with what is there now.
    fn take(&self, packets: &mut [Packet]) -> usize {
        let guard = self.platform.pin();
        let mut filled = 0;
        let mut turn = self.turn.get() as u32;
        // An entry whose taker is elsewhere stays marked though it has nothing. So the end is a
        // whole round that brought nothing: from `start`, once around the end, and back.
        let (mut start, mut around) = (turn, false);
        while filled < packets.len() {
            let Some(entry) = self.vmos.next_marked(turn) else { break };
            let wraps = entry < turn;
            if around && (wraps || entry >= start) {
                break;
            }
            around |= wraps;
            turn = entry + 1;
            self.turn.set(turn as usize);
            let taken = self.visit(entry, &mut packets[filled..], &guard);
            if taken > 0 {
                filled += taken;
                (start, around) = (turn, false);
            }
        }
        filled
    }

    fn visit(&self, index: u32, packets: &mut [Packet], guard: &Guard) -> usize {
        let Some(entry) = self.vmos.get(index) else { return 0 };
        let keeps_marks = self.vmos.mark(index, TAKING);
        if keeps_marks {
            self.vmos.unmark(index, READY);
        }
        let alone = self.vmos.next_marked(index + 1).is_none_or(|next| next == index);
        let room = if alone { packets.len() } else { 1 };
        let vmo = entry.get(guard);
        let (filled, taken) = vmo.map_or((0, Taken::All), |vmo| vmo.source.take(&mut packets[..room]));
        if taken == Taken::Some {
            self.vmos.mark(index, READY);
        }
        if keeps_marks {
            self.vmos.unmark(index, TAKING);
        }
        if let (Taken::Closed, Some(vmo)) = (taken, vmo) {
            vmo.forget();
        }
        filled
    }
}

impl<P: Platform> Port<P> {
    /// A port. `platform` is that of the pagers whose VMOs it will serve (`zx_port_create()`).
    #[must_use]
    pub fn new(platform: Arc<P>) -> Self {
        let shared = Shared {
            platform,
            vmos: Pool::new(),
            turn: Hint::default(),
            sleepers: Pool::new(),
            closed: AtomicU32::new(0),
            armed: AtomicU32::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    pub(crate) const fn shared(&self) -> &Arc<Shared<P>> {
        &self.shared
    }

    /// Fills `packets` with what is there now, and returns how many it filled. READs for adjacent
    /// pages of one VMO, taken together, come as one packet, and so do DIRTYs.
    ///
    /// Lock-free. Costs what it takes, and a bit for each VMO of the port.
    pub fn take(&self, packets: &mut [Packet]) -> usize {
        let filled = self.shared.take(packets);
        if filled > 0 && self.shared.is_any_ready() {
            self.shared.notify(); // there is work for another one
        }
        filled
    }

    /// Waits until there is something, and [takes](Self::take) it: a future with the number of
    /// packets filled, which is not 0 unless `packets` is empty.
    ///
    /// Polling is lock-free. If no sleeper can be registered, for want of memory, the future wakes
    /// its own task, and so polls until it can.
    pub fn wait<'a>(&'a self, packets: &'a mut [Packet]) -> Wait<'a, P> {
        Wait { port: self, packets, asleep: None }
    }

    /// Blocks until there is something to [take](Self::take), or the deadline has passed
    /// (`zx_port_wait()`). No deadline: for ever.
    ///
    /// Errors: [`TimedOut`](Status::TimedOut).
    #[cfg(feature = "std")]
    pub fn wait_until(&self, deadline: Option<std::time::Instant>, packets: &mut [Packet]) -> Result<usize> {
        crate::block::block_on_until(self.wait(packets), deadline).ok_or(Status::TimedOut)
    }

    /// The sleep is over. True if somebody had ended it.
    fn wake_up(&self, index: u32) -> bool {
        let shared = &self.shared;
        let Some(sleeper) = shared.sleepers.get(index) else { return false };
        // AcqRel: exactly one takes the sleeper out of `armed`
        let was = sleeper.state.swap(IDLE, AcqRel);
        if was == ARMED {
            shared.armed.fetch_sub(1, AcqRel); // AcqRel: after the state
        }
        let shared = shared.clone();
        self.shared.platform.pin().defer(move || {
            if let Some(sleeper) = shared.sleepers.get(index) {
                // SAFETY: after the grace period nobody who saw it armed still reads it, and the
                // entry is still claimed, by us.
                sleeper.waker.with_mut(|cell| drop(unsafe { (*cell).take() }));
            }
            shared.sleepers.release(index);
        });
        was == NOTIFIED
    }
}

impl<P: Platform> Drop for Port<P> {
    fn drop(&mut self) {
        let shared = &self.shared;
        shared.closed.store(1, Release); // Release: before what a VMO that sees it goes on to do
        // Pairs with the fence in `Source::end`: either the VMO sees the port closed, or we see
        // that it has ended.
        fence(SeqCst);
        let guard = shared.platform.pin();
        shared.vmos.for_each_claimed(|_, entry| {
            if let Some(vmo) = entry.get(&guard) {
                if vmo.source.has_ended() {
                    vmo.forget();
                } else {
                    entry.clear(vmo, &guard);
                }
            }
        });
    }
}

/// Waits for packets. See [`Port::wait`].
#[must_use = "a wait does nothing until it is polled"]
pub struct Wait<'a, P: Platform> {
    port: &'a Port<P>,
    packets: &'a mut [Packet],
    asleep: Option<u32>,
}

impl<P: Platform> fmt::Debug for Wait<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wait").field("asleep", &self.asleep.is_some()).finish_non_exhaustive()
    }
}

impl<P: Platform> Future for Wait<'_, P> {
    type Output = usize;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<usize> {
        let this = self.get_mut();
        let shared = &this.port.shared;
        if let Some(sleeper) = this.asleep.take() {
            this.port.wake_up(sleeper);
        }
        if this.packets.is_empty() {
            return Poll::Ready(0);
        }
        let taken = this.port.take(this.packets);
        if taken > 0 {
            return Poll::Ready(taken);
        }
        match shared.sleep(cx.waker()) {
            Ok(sleeper) => this.asleep = Some(sleeper),
            Err(_) => cx.waker().wake_by_ref(),
        }
        // Pairs with the fence in `notify`: either it sees us, or we see its mark.
        fence(SeqCst);
        let taken = this.port.take(this.packets);
        if taken == 0 {
            return Poll::Pending;
        }
        if let Some(sleeper) = this.asleep.take() {
            this.port.wake_up(sleeper);
        }
        Poll::Ready(taken)
    }
}

impl<P: Platform> Drop for Wait<'_, P> {
    fn drop(&mut self) {
        if let Some(sleeper) = self.asleep.take()
            && self.port.wake_up(sleeper)
            && self.port.shared.is_any_ready()
        {
            self.port.shared.notify(); // the wake-up was meant for whoever takes the packet
        }
    }
}
