//! What a holder of the VMO says of a range beforehand: bring it in, keep it, or let it go.
//!
//! | call | pages that are absent | pages that are there |
//! | --- | --- | --- |
//! | [`commit`](Vmo::commit) | are asked for, and waited for | count as used |
//! | [`prefetch`](Vmo::prefetch) | the same, but no failure is told | count as used |
//! | [`always_need`](Vmo::always_need) | are asked for, and waited for | count as used, and get the mark *always needed* |
//! | [`dont_need`](Vmo::dont_need) | - | lose that mark and the mark of use, and are next for the evictors |
//!
//! Zeros that are not stored are content: there is nothing to ask for, nothing to keep from eviction, and
//! nothing to evict. So every hint leaves them as they are.
//!
//! # One request a run
//!
//! The first poll goes over the range and asks for each run of absent pages, before it waits for any:
//! the service sees all of them at once. A request in flight is joined where it is met. Then the runs are
//! waited for in the order of the range, and only the one at the front wakes the task: a wake-up for
//! each run that was not there yet when the task came to it.
//!
//! At most [`AT_ONCE`] runs are in flight for one call, so that a range full of holes does not use up
//! the VMO's requests. The rest is asked for as those in front arrive.
//!
//! A page has arrived when its request was answered; whether it was evicted since is no matter to a
//! commit, which would else never end where the range is larger than memory. ALWAYS_NEED looks again, and
//! asks again, until it has put its mark on the page.
//!
//! # The mark
//!
//! *Always needed* is a bit of the page word, set and cleared by a compare-and-swap like any arrow, so
//! an eviction either comes before it, and the page is rescued or asked for again, or sees it. It
//! belongs to the frame: what drops the page, a detach, a shrink, or [`Evict::Any`](crate::Evict::Any) at
//! last, or makes it zeros, ends it.
//!
//! # While the VMO shrinks
//!
//! A call looks at the size again with each page that it asks for, and with each run that has come. So it
//! fails with OUT_OF_RANGE when the shrink was first, whether its request failed or was only cut.

use alloc::collections::VecDeque;
use core::fmt;
use core::future::Future;
use core::ops::ControlFlow;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use crate::platform::Platform;
use crate::request::{Kind, Outcome, Wait};
use crate::slot::{Slot, State, Wanted};
use crate::source::Asked;
use crate::status::{Result, Status};
use crate::units::{ByteRange, PageIndex, PageRange};
use crate::vmo::{Readable, Vmo};

/// The most requests that one call waits for at a time: one in 64 of those that a VMO has room for.
const AT_ONCE: usize = 1 << 11;

/// What [`Vmo::op_range`] does to a range (`op` of `zx_vmo_op_range()`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum VmoOp {
    /// `ZX_VMO_OP_COMMIT`, see [`Vmo::commit`].
    Commit,
    /// `ZX_VMO_OP_DECOMMIT`. A VMO that is backed by a pager does not have it.
    Decommit,
    /// `ZX_VMO_OP_ZERO`, see [`Vmo::zero`].
    Zero,
    /// `ZX_VMO_OP_DONT_NEED`, see [`Vmo::dont_need`].
    DontNeed,
    /// `ZX_VMO_OP_ALWAYS_NEED`, see [`Vmo::always_need`].
    AlwaysNeed,
    /// `ZX_VMO_OP_PREFETCH`, see [`Vmo::prefetch`].
    Prefetch,
}

impl VmoOp {
    /// The operation of a raw `op`, as `zx_vmo_op_range()` takes it.
    ///
    /// Errors: [`InvalidArgs`](Status::InvalidArgs) for any other.
    ///
    /// ```
    /// use upager::{Status, VmoOp};
    /// assert_eq!(VmoOp::from_raw(13), Ok(VmoOp::AlwaysNeed));
    /// assert_eq!(VmoOp::from_raw(0), Err(Status::InvalidArgs));
    /// ```
    pub const fn from_raw(op: u32) -> Result<Self> {
        Ok(match op {
            1 => Self::Commit,
            2 => Self::Decommit,
            10 => Self::Zero,
            12 => Self::DontNeed,
            13 => Self::AlwaysNeed,
            14 => Self::Prefetch,
            _ => return Err(Status::InvalidArgs),
        })
    }
}

/// What a call wants of the pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Want {
    /// That they arrive.
    Arrived,
    /// The same, as far as it goes.
    AsFarAsItGoes,
    /// That they arrive, and stay.
    Marked,
}

/// Waits until the pages of a range have come in. See [`Vmo::commit`].
#[must_use = "nothing is asked for until it is polled"]
pub struct Commit<'v, P: Platform> {
    vmo: &'v Vmo<P>,
    want: Want,
    /// What has not been asked for yet. An error: the arguments were wrong.
    rest: Result<PageRange>,
    /// What has, in ascending order.
    runs: VecDeque<Run<'v>>,
}

/// Pages that a request is to bring.
struct Run<'v> {
    pages: PageRange,
    /// Where those end that it was asked for. Before the end of `pages`: what it was to bring had to be
    /// asked for anew, and became several runs; the others come after it.
    asked: u64,
    wait: Wait<'v>,
}

impl<P: Platform> fmt::Debug for Commit<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Commit")
            .field("want", &self.want)
            .field("rest", &self.rest)
            .field("waits_for", &self.runs.len())
            .finish_non_exhaustive()
    }
}

impl<P: Platform> Vmo<P> {
    /// Brings the pages of `range` in, and waits until each has come (`ZX_VMO_OP_COMMIT`).
    ///
    /// Every run of absent pages is one request, or joins the requests that are in flight for it, and
    /// up to 2,048 runs are asked for before the first is waited for. Ready with `Ok` says that each
    /// page was there at some moment since the call; it may be evicted again in the next. No page becomes
    /// dirty, and zeros that are not stored stay so.
    ///
    /// Dropping the future leaves all its requests, and those that nobody else waits for are withdrawn.
    ///
    /// Units: bytes; the ends are rounded out to pages, as Zircon does, and an empty range does nothing.
    /// Errors: [`OutOfRange`](Status::OutOfRange): the range does not lie inside the VMO, or does not any
    /// more; [`BadState`](Status::BadState): a page is absent, and the pager is detached or closed;
    /// [`NoMemory`](Status::NoMemory) and [`NoResources`](Status::NoResources) when no request can be
    /// made, and none of this call's is in flight; and what the service failed a request with, of
    /// several the first in the order of the range. After a failure the rest is not waited for.
    ///
    /// Polling is lock-free. The first poll costs a load a page, but for zeros, and, for each run, what a
    /// [fault](Self::fault) costs, with 48 bytes; each later one the runs that have come.
    ///
    /// ```
    /// # use upager::*;
    /// # use std::sync::Arc;
    /// # let platform = Arc::new(HeapPlatform::new());
    /// # let (pager, port) = (Pager::new(platform.clone()), Port::new(platform.clone()));
    /// # let vmo = pager.create_vmo(&port, 1, VmoOptions::NONE, 3 * 4096)?;
    /// pager.supply_frames(&vmo, ByteRange::new(4096, 4096), [OwnedFrame::new(&*platform)?])?;
    /// std::thread::scope(|s| {
    ///     let commit = s.spawn(|| block_on(vmo.commit(ByteRange::new(0, 3 * 4096))));
    ///     let mut left = 2;
    ///     while left > 0 {
    ///         let mut packets = [Packet::default(); 8];
    ///         let taken = port.wait_until(None, &mut packets)?;
    ///         for packet in &packets[..taken] {
    ///             pager.supply_frames(&vmo, packet.range(), [OwnedFrame::new(&*platform)?])?;
    ///             left -= 1;
    ///         }
    ///     }
    ///     commit.join().unwrap()
    /// })?;
    /// assert_eq!(vmo.counts().resident, PageCount(3));
    /// # Ok::<(), Status>(())
    /// ```
    pub fn commit(&self, range: ByteRange) -> Commit<'_, P> {
        self.bring(range, Want::Arrived)
    }

    /// As [`commit`](Self::commit), as far as it goes (`ZX_VMO_OP_PREFETCH`): it fails for its arguments
    /// only. What cannot be asked for, is failed by the service, or is cut off by a detach or a shrink is
    /// left out.
    ///
    /// It waits, since a request that nobody waits for is withdrawn. Whoever does not want to wait
    /// polls it beside his work, and drops it when he has no use for the pages any more.
    ///
    /// Errors: [`OutOfRange`](Status::OutOfRange).
    ///
    /// ```
    /// # use upager::*;
    /// # use std::sync::Arc;
    /// # let platform = Arc::new(HeapPlatform::new());
    /// # let (pager, port) = (Pager::new(platform.clone()), Port::new(platform.clone()));
    /// # let vmo = pager.create_vmo(&port, 1, VmoOptions::NONE, 4096)?;
    /// pager.detach_vmo(&vmo)?;
    /// let page = ByteRange::new(0, 4096);
    /// assert_eq!(block_on(vmo.commit(page)), Err(Status::BadState));
    /// assert_eq!(block_on(vmo.prefetch(page)), Ok(()));
    /// # Ok::<(), Status>(())
    /// ```
    pub fn prefetch(&self, range: ByteRange) -> Commit<'_, P> {
        self.bring(range, Want::AsFarAsItGoes)
    }

    /// Brings the pages of `range` in, and keeps them from eviction (`ZX_VMO_OP_ALWAYS_NEED`), until
    /// [`dont_need`](Self::dont_need) takes that back.
    ///
    /// [`Evict::Unused`](crate::Evict::Unused) never takes such a page,
    /// [`Evict::Any`](crate::Evict::Any) only when nothing else is left. It stays always needed while it
    /// is written, written back and cleaned. A page that goes nevertheless, by `Evict::Any`, a detach or a
    /// shrink, is like any other when it comes again. Zeros that are not stored get no mark, since no
    /// eviction takes them; what is stored in their place is like any other page too.
    ///
    /// Ready with `Ok` says that each page was there, marked or zeros, at some moment since the call. One
    /// that is evicted before it could be marked is asked for again. When it fails, pages that were
    /// there or came before keep their mark. (Zircon takes the hint as best effort, and does not
    /// tell of failures.)
    ///
    /// Units, errors, progress and cost: as of [`commit`](Self::commit), and a swap a page.
    ///
    /// ```
    /// # use upager::*;
    /// # use std::sync::Arc;
    /// # let platform = Arc::new(HeapPlatform::new());
    /// # let (pager, port) = (Pager::new(platform.clone()), Port::new(platform.clone()));
    /// # let vmo = pager.create_vmo(&port, 1, VmoOptions::NONE, 4096)?;
    /// let page = ByteRange::new(0, 4096);
    /// pager.supply_frames(&vmo, page, [OwnedFrame::new(&*platform)?])?;
    /// block_on(vmo.always_need(page))?;
    /// assert_eq!(vmo.evict(PageCount(1), Evict::Unused), PageCount(0));
    /// vmo.dont_need(page)?;
    /// assert_eq!(vmo.evict(PageCount(1), Evict::Unused), PageCount(1));
    /// # Ok::<(), Status>(())
    /// ```
    pub fn always_need(&self, range: ByteRange) -> Commit<'_, P> {
        self.bring(range, Want::Marked)
    }

    /// Says that the pages of `range` may go before others (`ZX_VMO_OP_DONT_NEED`). It takes back
    /// [`always_need`](Self::always_need).
    ///
    /// Nothing is evicted by this call. It clears the marks of use, so that the pages have no second
    /// chance, and puts the hands of the evictors at the range: the next eviction, of this VMO or of
    /// the pager's, begins there. The last range so hinted comes first; an earlier one has only lost its
    /// second chance. A dirty page goes when it has been written back. Whoever uses the page meanwhile
    /// marks it again.
    ///
    /// Units: bytes; the ends are rounded out to pages, as Zircon does.
    /// Errors: [`OutOfRange`](Status::OutOfRange): the range does not lie inside the VMO.
    ///
    /// Lock-free. Costs the parts of the table that were made, 512 pages each, and a swap a page that is
    /// there.
    ///
    /// ```
    /// # use upager::*;
    /// # use std::sync::Arc;
    /// # let platform = Arc::new(HeapPlatform::new());
    /// # let (pager, port) = (Pager::new(platform.clone()), Port::new(platform.clone()));
    /// # let vmo = pager.create_vmo(&port, 1, VmoOptions::NONE, 2 * 4096)?;
    /// let frames = [OwnedFrame::new(&*platform)?, OwnedFrame::new(&*platform)?];
    /// pager.supply_frames(&vmo, ByteRange::new(0, 2 * 4096), frames)?;
    /// vmo.dont_need(ByteRange::new(4096, 4096))?;
    /// assert_eq!(vmo.evict(PageCount(1), Evict::Unused), PageCount(1));
    /// assert!(vmo.pin_lookup(PageIndex(0)).is_some() && vmo.pin_lookup(PageIndex(1)).is_none());
    /// # Ok::<(), Status>(())
    /// ```
    pub fn dont_need(&self, range: ByteRange) -> Result<()> {
        let inner = self.inner();
        let pages = self.pages_hinted(range)?;
        if pages.is_empty() {
            return Ok(());
        }
        let _: ControlFlow<()> = inner.table.scan_pages(Wanted::Any, pages, |_, at, mut state| {
            loop {
                let done = match (state, state.stored()) {
                    // A rescue would bring the mark back.
                    (State::Evicting(evicting), _) => evicting.dont_need(at.slot()),
                    (_, Some(stored)) => stored.dont_need(at.slot()),
                    _ => Ok(()),
                };
                match done {
                    Ok(()) => return ControlFlow::Continue(()),
                    Err(now) => state = now,
                }
            }
        });
        inner.hand.set(pages.start as usize);
        inner.pager.begin_at(inner.entry);
        Ok(())
    }

    /// One call for the operations on a range (`zx_vmo_op_range()`).
    ///
    /// Errors: those of the operation; [`NotSupported`](Status::NotSupported) for
    /// [`VmoOp::Decommit`], whatever the range.
    ///
    /// ```
    /// # use upager::*;
    /// # use std::sync::Arc;
    /// # let platform = Arc::new(HeapPlatform::new());
    /// # let (pager, port) = (Pager::new(platform.clone()), Port::new(platform.clone()));
    /// # let vmo = pager.create_vmo(&port, 1, VmoOptions::NONE, 4096)?;
    /// let range = ByteRange::new(0, 4096);
    /// assert_eq!(block_on(vmo.op_range(VmoOp::Decommit, range)), Err(Status::NotSupported));
    /// assert_eq!(block_on(vmo.op_range(VmoOp::DontNeed, range)), Ok(()));
    /// # Ok::<(), Status>(())
    /// ```
    pub async fn op_range(&self, op: VmoOp, range: ByteRange) -> Result<()> {
        match op {
            VmoOp::Commit => self.commit(range).await,
            VmoOp::Decommit => Err(Status::NotSupported),
            VmoOp::Zero => self.zero(range).await,
            VmoOp::DontNeed => self.dont_need(range),
            VmoOp::AlwaysNeed => self.always_need(range).await,
            VmoOp::Prefetch => self.prefetch(range).await,
        }
    }

    /// The pages of a hint's range, which lies inside the VMO. None, if it has no bytes.
    fn pages_hinted(&self, range: ByteRange) -> Result<PageRange> {
        let pages = range.pages_touched(self.inner().pages())?;
        Ok(if range.length == 0 { PageRange { start: pages.start, end: pages.start } } else { pages })
    }

    fn bring(&self, range: ByteRange, want: Want) -> Commit<'_, P> {
        Commit { vmo: self, want, rest: self.pages_hinted(range), runs: VecDeque::new() }
    }

    /// Marks the page as always needed, if it is stored.
    fn mark_always_needed(&self, page: PageIndex) -> Readable {
        loop {
            // Also rescues it, and drops it if it only seems to be there.
            let found = self.read_access(page);
            let (Readable::Frame(_), Some(at)) = (&found, self.inner().table.find(page)) else { return found };
            // Otherwise it has moved, or is on its way out: look again.
            if at.slot().load().stored().is_some_and(|stored| stored.always_need(at.slot()).is_ok()) {
                return found;
            }
        }
    }
}

impl<'v, P: Platform> Commit<'v, P> {
    /// Does what is wanted of a page that is there, and returns the next to look at. `None`: it must be
    /// asked for.
    fn pass(&self, page: u64) -> Option<u64> {
        let found = match self.want {
            Want::Arrived | Want::AsFarAsItGoes => self.vmo.read_access(PageIndex(page)),
            Want::Marked => self.vmo.mark_always_needed(PageIndex(page)),
        };
        match found {
            Readable::Frame(_) => Some(page + 1),
            Readable::Zeros => Some(self.vmo.inner().table.zeros_end(PageIndex(page)).max(page + 1)),
            Readable::Absent => None,
        }
    }

    /// Asks for the first absent page of `pages`, and for the absent ones after it. The run ends where
    /// `pages` does. `None`: there is none.
    fn ask(&self, mut pages: PageRange) -> Result<Option<Run<'v>>> {
        let inner = self.vmo.inner();
        while !pages.is_empty() {
            // With each page anew: the VMO may have shrunk.
            let end = pages.end.min(inner.pages().0);
            if pages.start >= end {
                return Err(Status::OutOfRange);
            }
            if let Some(next) = self.pass(pages.start) {
                pages.start = next;
                continue;
            }
            // Not to be woken yet: only the run in front wakes the task.
            let count = end - pages.start;
            match inner.source.ask(inner, Kind::Read, PageIndex(pages.start), count, Waker::noop())? {
                Asked::Asleep(wait) | Asked::Resolved(wait) => {
                    let covers = |page: &u64| {
                        let state = inner.table.slot(PageIndex(*page)).map(Slot::load);
                        matches!(state, Some(State::Requested(page)) if page.id() == wait.id())
                    };
                    let more = (pages.start + 1..pages.end).take_while(covers).count() as u64;
                    return Ok(Some(Run { pages, asked: pages.start + 1 + more, wait }));
                }
                Asked::Moved => {}
            }
        }
        Ok(None)
    }

    /// Asks for all that has not been asked for, as far as there is room for it.
    fn ask_for_the_rest(&mut self) -> Result<()> {
        let mut rest = self.rest?;
        while !rest.is_empty() && self.runs.len() < AT_ONCE {
            let asked = self.runs.try_reserve(1).map_err(|_| Status::NoMemory).and_then(|()| self.ask(rest));
            match asked {
                Ok(Some(mut run)) => {
                    run.pages.end = run.asked;
                    rest.start = run.asked;
                    self.runs.push_back(run);
                }
                Ok(None) => rest.start = rest.end,
                // When one in front has come there will be room.
                Err(Status::NoMemory | Status::NoResources) if !self.runs.is_empty() => break,
                Err(_) if self.want == Want::AsFarAsItGoes => rest.start = rest.end,
                Err(status) => return Err(status),
            }
            self.rest = Ok(rest);
        }
        self.rest = Ok(rest);
        Ok(())
    }

    /// How the run in front ended. `None`: it has not, and will wake the task. Or there is none.
    fn front(&self, cx: &Context<'_>) -> Option<Outcome> {
        let wait = &self.runs.front()?.wait;
        let outcome = wait.outcome();
        if outcome.is_none() && !wait.rearm(cx.waker()) {
            return wait.outcome(); // woken in between: the outcome is there
        }
        outcome
    }

    /// Leaves the run in front. Returns its pages, and where those end that were asked for.
    fn leave_front(&mut self) -> Option<(PageRange, u64)> {
        let Run { pages, asked, wait } = self.runs.pop_front()?;
        self.vmo.inner().source.leave(&self.vmo.inner().table, wait);
        Some((pages, asked))
    }

    /// The run in front has ended: asks for what it still lacks.
    fn settle_front(&mut self, outcome: Outcome) -> Result<()> {
        let Some((mut pages, asked)) = self.leave_front() else { return Ok(()) };
        let best_effort = self.want == Want::AsFarAsItGoes;
        match outcome {
            Outcome::Failed(status) if !best_effort => return Err(status),
            Outcome::Failed(_) => pages.start = asked,
            // The request was cut, and none of its pages beyond came.
            Outcome::Supplied if !best_effort && asked > self.vmo.inner().pages().0 => return Err(Status::OutOfRange),
            Outcome::Supplied | Outcome::Granted if self.want != Want::Marked => pages.start = asked,
            Outcome::Supplied | Outcome::Granted | Outcome::Withdrawn => {} // look at each again
        }
        match self.ask(pages) {
            Ok(Some(run)) => self.runs.push_front(run), // there is room: one was taken out
            Ok(None) => {}
            Err(_) if best_effort => {}
            Err(status) => return Err(status),
        }
        Ok(())
    }
}

impl<P: Platform> Future for Commit<'_, P> {
    type Output = Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let result = loop {
            if let Err(status) = this.ask_for_the_rest() {
                break Err(status);
            }
            if this.runs.is_empty() {
                break Ok(());
            }
            let Some(outcome) = this.front(cx) else { return Poll::Pending };
            if let Err(status) = this.settle_front(outcome) {
                break Err(status);
            }
        };
        while this.leave_front().is_some() {}
        Poll::Ready(result)
    }
}

impl<P: Platform> Drop for Commit<'_, P> {
    fn drop(&mut self) {
        while self.leave_front().is_some() {}
    }
}
