//! The port: where the service waits for the page requests of many VMOs.
//!
//! # Who is ready
//!
//! A VMO's entry in the port has a mark, which is set, or set anew, after a request was appended. A taker
//! sees the mark and its version, and then takes from the queue. If it found the end, it clears the
//! mark, unless that was set anew since it saw it. So whatever was marked before it looked, it has found in
//! the queue, or another one has; and what was marked after is marked still, be it of a VMO that has got
//! the entry since. A taker that is stopped in the middle has cleared nothing, and the others go on serving
//! the entry.
//!
//! A taker that sees no mark sees an instant at which the queue was empty, but for what is not marked yet: the
//! clearing of it.
//!
//! The [user packets](crate::user) of the port have such an entry too, without a VMO.
//!
//! # Fair
//!
//! Takers visit the marked entries in a circle and take one packet at each, more only where no
//! other entry is ready. No VMO waits for more than one packet of each other one, one user packet,
//! and as much again for each other thread that takes at the same moment; and no user packet, once
//! it is the first, for more than one packet of each VMO.
//!
//! Who sleeps, and how one is woken, is in [`sleep`](crate::sleep).

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

use crate::packet::{PACKET_TYPE_USER, Packet};
use crate::pager::Entry;
use crate::platform::Platform;
use crate::pool::{Marked, Pool};
use crate::queue::Taken;
use crate::sleep::Sleepers;
use crate::status::{Result, Status};
#[cfg(accounting)]
use crate::sync::accounting::Lines;
use crate::sync::{Arc, Guard, Hint, SeqCst, fence};
use crate::user::{UserPackets, UserQueue};
use crate::vmo::Inner;

/// A port. Share it in an `Arc`; dropping it closes it.
///
/// It carries the page requests of VMOs, which come of themselves, and the user packets that anyone
/// [queues](Self::queue), both under keys.
///
/// The packets of a closed port are dropped, those that are queued and those that would come: its
/// VMOs' accesses wait until they are supplied or detached, or their pager is closed, or they give
/// up.
///
/// [`Pager`](crate::Pager) has an example with a service; this is the port alone:
///
/// ```
/// use std::sync::Arc;
/// use upager::*;
///
/// let port = Port::new(Arc::new(HeapPlatform::new()));
/// port.queue(&Packet::user(3, [1; 32]))?;
/// port.queue(&Packet::user(4, [2; 32]))?;
/// port.cancel(3)?;
/// let mut packets = [Packet::default(); 8];
/// assert_eq!(port.wait_until(None, &mut packets), Ok(1));
/// assert_eq!((packets[0].key, packets[0].user_payload()), (4, Some([2; 32])));
/// # Ok::<(), Status>(())
/// ```
pub struct Port<P: Platform> {
    shared: Arc<Shared<P>>,
    user: UserPackets,
}

/// What the VMOs hold of their port.
pub(crate) struct Shared<P: Platform> {
    platform: Arc<P>,
    /// The VMOs, and the user packets as one more.
    vmos: Pool<Entry<P>>,
    /// Where the next round begins.
    turn: Hint,
    sleepers: Sleepers,
}

impl<P: Platform> fmt::Debug for Port<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port").finish_non_exhaustive()
    }
}

impl<P: Platform> Shared<P> {
    pub(crate) fn is_closed(&self) -> bool {
        self.sleepers.is_closed()
    }

    /// Gives up the VMO's entry.
    pub(crate) fn forget(&self, index: u32, vmo: &Inner<P>, guard: &Guard) {
        if self.vmos.get(index).is_some_and(|entry| entry.clear(vmo, guard)) {
            self.vmos.release(index);
        }
    }

    /// Gives the VMO that `make` makes an entry, whose number `make` is told.
    pub(crate) fn register(&self, make: impl FnOnce(u32) -> Result<Arc<Inner<P>>>) -> Result<Arc<Inner<P>>> {
        let (index, entry) = self.vmos.claim()?;
        let vmo = make(index).inspect_err(|_| self.vmos.release(index))?;
        entry.put(&vmo);
        Ok(vmo)
    }

    /// The entry's queue has something. False: the port is closed, and nobody will take it.
    #[inline]
    pub(crate) fn ready(&self, entry: u32) -> bool {
        if let Some(spot) = self.vmos.spot(entry) {
            spot.mark();
        }
        self.notify()
    }

    /// Wakes a sleeper, if there is one. False: the port is closed.
    #[inline]
    fn notify(&self) -> bool {
        !self.sleepers.looked_for() || self.wake_one()
    }

    #[cold]
    fn wake_one(&self) -> bool {
        if self.is_closed() {
            return false;
        }
        self.sleepers.wake_one(&self.platform.pin());
        true
    }

    fn is_any_ready(&self) -> bool {
        self.vmos.next_marked(0).is_some()
    }
}

#[cfg(accounting)]
impl<P: Platform> Port<P> {
    /// The names of the words of the port that its VMOs do not know.
    #[doc(hidden)]
    #[must_use]
    pub fn lines(&self) -> Lines {
        let mut lines = Lines::default();
        lines.add(&self.user, "port's user packets", "nobody: written with the first of them");
        lines
    }
}

#[cfg(accounting)]
impl<P: Platform> Shared<P> {
    pub(crate) fn lines(&self, lines: &mut Lines) {
        lines.add(&self.turn, "port's turn", "the port's service threads");
        let names = [
            ("port's segments", "nobody: written when it gets more VMOs than ever"),
            ("port's hint", "who makes or drops a VMO of this port, if it has more than eight"),
            ("port's marks", "faulters that make a request, in 64 VMOs each, and the port's service threads"),
            ("port's entries", "who makes or drops a VMO of this port"),
        ];
        self.vmos.lines(lines, names);
        self.sleepers.lines(lines);
    }
}

impl<P: Platform> Port<P> {
    /// A port. `platform` is that of the pagers whose VMOs it will serve (`zx_port_create()`).
    #[must_use]
    pub fn new(platform: Arc<P>) -> Self {
        let shared = Shared { platform, vmos: Pool::new(), turn: Hint::default(), sleepers: Sleepers::new() };
        Self { shared: Arc::new(shared), user: UserPackets::new() }
    }

    pub(crate) const fn shared(&self) -> &Arc<Shared<P>> {
        &self.shared
    }

    /// Queues a user packet (`zx_port_queue()`): key, status and payload are the caller's and arrive
    /// as they are. User packets are taken first in, first out, in turn with the VMOs' requests.
    ///
    /// Errors: [`InvalidArgs`](Status::InvalidArgs): the packet's type is not [`PACKET_TYPE_USER`];
    /// [`ShouldWait`](Status::ShouldWait): [`MAX_USER_PACKETS`](crate::MAX_USER_PACKETS) wait already,
    /// those included that other threads are queueing; [`NoMemory`](Status::NoMemory);
    /// [`NoResources`](Status::NoResources): the first one, at a port with 2^17 VMOs. A call that
    /// fails changes nothing.
    ///
    /// Lock-free. Costs a copy, and waking a thread if one sleeps. Memory: 64 bytes a packet, kept
    /// until the port closes. (A packet that was cancelled behind one that waits keeps its place until
    /// that is taken; with 2^17 of those the answer is `ShouldWait` too.)
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use upager::*;
    /// # let port = Port::new(Arc::new(HeapPlatform::new()));
    /// let mut stop = Packet::user(7, *b"stop, and write back what's left");
    /// stop.status = -23;
    /// port.queue(&stop)?;
    /// let mut packets = [Packet::default()];
    /// assert_eq!(port.take(&mut packets), 1);
    /// assert_eq!(packets, [stop]);
    /// let request = Packet::page_request(1, Command::Read, 0, 4096);
    /// assert_eq!(port.queue(&request), Err(Status::InvalidArgs));
    /// # Ok::<(), Status>(())
    /// ```
    pub fn queue(&self, packet: &Packet) -> Result<()> {
        if packet.packet_type != PACKET_TYPE_USER {
            return Err(Status::InvalidArgs);
        }
        let user = self.user_queue()?;
        user.append(packet)?;
        self.shared.ready(user.entry());
        Ok(())
    }

    /// Withdraws what is queued under `key` (`zx_port_cancel_key()`): user packets, and READ, DIRTY and
    /// COMPLETE of every VMO that was created with it.
    ///
    /// What was queued before the call has then been taken by somebody or will never be delivered;
    /// what is queued during the call may be either. A request whose packet is withdrawn stays in
    /// flight, as if a service had taken the packet and ignored it: it waits for a supply, a failure,
    /// detach or close. A withdrawn COMPLETE does not come again.
    ///
    /// Errors: [`NotFound`](Status::NotFound): nothing is queued under the key. Nothing has changed
    /// then.
    ///
    /// Lock-free. Costs a look at each VMO of the port and at each place that user packets hold (see
    /// [`queue`](Self::queue)), and what it withdraws.
    pub fn cancel(&self, key: u64) -> Result<()> {
        let guard = self.shared.platform.pin();
        let mut found = self.user.get().is_some_and(|user| user.cancel(key));
        self.shared.vmos.glance(|_, entry| {
            if let Some(vmo) = entry.get(&guard)
                && vmo.source.key() == key
            {
                let (withdrawn, left) = vmo.source.discard();
                found |= withdrawn > 0;
                if left == Taken::Closed {
                    vmo.forget();
                }
            }
        });
        if found { Ok(()) } else { Err(Status::NotFound) }
    }

    /// The user packets, which get their place and their entry with the first of them.
    fn user_queue(&self) -> Result<&UserQueue> {
        if let Some(user) = self.user.get() {
            return Ok(user);
        }
        let vmos = &self.shared.vmos;
        let (entry, _) = vmos.claim()?;
        let user = UserQueue::new(entry).and_then(|fresh| self.user.get_or_put(fresh));
        // Ours is not needed if there is no memory, or if another thread's came first.
        if !user.as_ref().is_ok_and(|user| user.entry() == entry) {
            vmos.release(entry);
        }
        user
    }

    /// Fills `packets` with what is there now, and returns how many it filled. READs for adjacent
    /// pages of one VMO, taken together, come as one packet, and so do DIRTYs.
    ///
    /// Lock-free. Costs what it takes, and a look at one bit for each VMO of the port, each time that
    /// it has been round those that are ready.
    pub fn take(&self, packets: &mut [Packet]) -> usize {
        let filled = self.take_rounds(packets);
        // If there is work for another one, and one who sleeps. Who is not seen to sleep looks at the port
        // before it does.
        if filled > 0 && self.shared.sleepers.has_some() && self.shared.is_any_ready() {
            self.shared.notify();
        }
        filled
    }

    fn take_rounds(&self, packets: &mut [Packet]) -> usize {
        let shared = &self.shared;
        let guard = shared.platform.pin();
        let mut filled = 0;
        let mut turn = shared.turn.get() as u32;
        // An entry whose mark was not cleared for a neighbour's sake stays marked though it has nothing. So the
        // end is a whole round that brought nothing: from `start`, once around the end, and back. What was ready when the
        // last packet was taken is met in it, so each search follows the visit before it.
        let (mut start, mut around) = (turn, false);
        while filled < packets.len() {
            let Some(marked) = shared.vmos.next_marked(turn) else { break };
            let entry = marked.index;
            let wraps = entry < turn;
            if around && (wraps || entry >= start) {
                break;
            }
            around |= wraps;
            turn = entry + 1;
            shared.turn.set(turn as usize);
            let taken = self.visit(&marked, &mut packets[filled..], &guard);
            if taken > 0 {
                filled += taken;
                (start, around) = (turn, false);
            }
        }
        filled
    }

    fn visit(&self, marked: &Marked<'_, Entry<P>>, packets: &mut [Packet], guard: &Guard) -> usize {
        let index = marked.index;
        let is_alone = packets.len() > 1 && !self.shared.vmos.has_other_marked(index);
        let packets = if is_alone { packets } else { &mut packets[..1] };
        let vmo = marked.spot.entry.get(guard);
        let (filled, taken) = match vmo {
            Some(vmo) => vmo.source.take(packets),
            None => self.user_at(index).map_or((0, Taken::All), |user| user.take(packets)),
        };
        if taken != Taken::Some {
            marked.unmark();
        }
        if let (Taken::Closed, Some(vmo)) = (taken, vmo) {
            vmo.forget();
        }
        filled
    }

    /// The user packets, if the entry is theirs.
    fn user_at(&self, index: u32) -> Option<&UserQueue> {
        self.user.get().filter(|user| user.entry() == index)
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
        let notified = self.shared.sleepers.end(index);
        let shared = self.shared.clone();
        // SAFETY: the closure runs once, a grace period after the end of the sleep; and a `Wait` names
        // its sleeper here once, since it takes the number out of itself.
        self.shared.platform.pin().defer(move || unsafe { shared.sleepers.release(index) });
        notified
    }
}

impl<P: Platform> Drop for Port<P> {
    fn drop(&mut self) {
        let shared = &self.shared;
        shared.sleepers.close();
        // Pairs with the fence in `Sleepers::looked_for`: either the VMO sees the port closed, or we
        // see that it has ended, and what it has appended.
        fence(SeqCst);
        let guard = shared.platform.pin();
        shared.vmos.for_each_claimed(|_, entry| {
            if let Some(vmo) = entry.get(&guard) {
                vmo.source.discard();
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
        match shared.sleepers.begin(cx.waker()) {
            Ok(sleeper) => this.asleep = Some(sleeper),
            Err(_) => cx.waker().wake_by_ref(),
        }
        // Pairs with the fence in `Sleepers::looked_for`: either it sees us, or we see its mark.
        fence(SeqCst);
        let taken = this.port.take(this.packets);
        if taken == 0 {
            return Poll::Pending;
        }
        this.get_up();
        Poll::Ready(taken)
    }
}

impl<P: Platform> Drop for Wait<'_, P> {
    fn drop(&mut self) {
        self.get_up();
    }
}

impl<P: Platform> Wait<'_, P> {
    /// Ends the sleep of one who takes nothing any more. If he was woken meanwhile, that was meant for whoever takes
    /// the packet.
    fn get_up(&mut self) {
        if let Some(sleeper) = self.asleep.take()
            && self.port.wake_up(sleeper)
            && self.port.shared.is_any_ready()
        {
            self.port.shared.notify();
        }
    }
}
