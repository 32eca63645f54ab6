//! Eviction in two phases, and the end of every frame.
//!
//! 1. The page goes to `Evicting` and out of every mapping. Whoever reads its frame now is pinned.
//!    An access that meets it rescues it: nothing is lost but the evictor's trouble.
//! 2. After the grace period, when no thread that was pinned at the first step still is, the page
//!    goes to `Empty` and its frame is freed, unless it was rescued.
//!
//! Detach and the end of a VMO retire their pages the same way. How a rescued page that is evicted
//! again gets a whole grace period is told in [`slot`](crate::slot), "reclaim pending".
//!
//! # Which pages go
//!
//! Second chance, by a hand that goes round the resident pages (Corbató, 1968, "clock"). It is
//! published, needs no store on a lookup and no list; an access marks the page, the hand takes the
//! mark the first time and the page the second time. So a page's age is one bit: used since the hand
//! last came by, or not. A page that was just supplied is marked, so whoever waited for it has a full
//! turn of the hand to use it. [`Vmo::lookup`] leaves no mark: whoever keeps a frame mapped, and so
//! comes back without a fault, is known to the hand only by what it faulted.
//!
//! Each VMO has a hand of its own, and the pager has one that goes round its VMOs, see
//! [`Pager::evict`]. The hints of [`hints`](crate::hints) bend the order: DONT_NEED takes the mark and
//! puts both hands at the page, and a page that is always needed is spared until nothing else is left.

use core::ops::ControlFlow;

use crate::counts::Kind;
use crate::pager::Pager;
use crate::platform::Platform;
use crate::slot::{Clean, DirtyRequested, OwesReclaim, Reclaimed, State, Wanted};
use crate::status::Status;
use crate::sync::{Arc, Guard};
use crate::table::{At, Left};
use crate::trap::Trapped;
use crate::units::{PageCount, PageIndex, PageRange};
use crate::vmo::{Inner, Vmo};

/// Which pages an eviction may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Evict {
    /// Clean pages that were not accessed since the hand last came by, and that nobody waits to write.
    /// Never one that is [always needed](Vmo::always_need).
    Unused,
    /// Any clean page; those that are always needed last of all. Whoever waits to write one asks for
    /// it anew.
    Any,
}

/// What the hand takes on one turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pass {
    /// What is not marked; it takes the marks.
    Unused,
    /// What is not always needed.
    Any,
    /// What is.
    Last,
}

impl Evict {
    const fn passes(self) -> [Pass; 2] {
        match self {
            Self::Unused => [Pass::Unused, Pass::Unused],
            Self::Any => [Pass::Any, Pass::Last],
        }
    }
}

/// What a turn of the hand came to.
#[derive(Clone, Copy, Default)]
struct Turn {
    evicted: u64,
    /// Whether it passed by a page only because that is always needed.
    spared: bool,
}

impl Turn {
    fn add(&mut self, other: Self) {
        self.evicted += other.evicted;
        self.spared |= other.spared;
    }
}

/// What the hand did with a page.
enum Met {
    Evicted,
    Spared,
    Passed,
}

/// Pages that wait for their grace period, in batches, so that one deferral serves many.
///
/// The grace period begins with the deferral, after the page went to `Evicting`: whoever is pinned
/// later has not seen it before.
///
/// # Mappings
///
/// From the page's step to `Evicting` until no processor has it mapped, we are pinned. That matters where
/// an earlier eviction owes the reclaim: its deferral may run at once, see that the page was evicted again, and defer
/// anew. That grace period begins after our step, so it ends after our pin, and the frame outlives its
/// mappings.
pub(crate) struct Retired<'a, P: Platform> {
    vmo: &'a Arc<Inner<P>>,
    batch: Batch,
    /// While pages leave, and may be mapped.
    leaving: Option<Guard>,
    /// Steps since that began: pages that the hand met.
    met: usize,
    /// Pages that are counted as resident still.
    left: Left<'a>,
    /// Not told to the VMO's figures yet.
    evicted: usize,
}

/// So many runs of pages, and so many pages in all: few enough for a length to be a byte.
const RUNS: usize = 30;
const BATCH: usize = 128;
/// Pages that the hand meets in one pin, at most.
const AT_ONCE: usize = 128;

struct Batch {
    starts: [PageIndex; RUNS],
    lengths: [u8; RUNS],
    runs: usize,
    pages: usize,
}

impl Batch {
    const EMPTY: Self = Self { starts: [PageIndex(0); RUNS], lengths: [0; RUNS], runs: 0, pages: 0 };

    /// Adds a page to a batch that is not full.
    #[inline]
    fn push(&mut self, page: PageIndex) {
        self.pages += 1;
        if let Some(last) = self.runs.checked_sub(1)
            && self.starts[last].0 + u64::from(self.lengths[last]) == page.0
        {
            self.lengths[last] += 1;
            return;
        }
        self.starts[self.runs] = page;
        self.lengths[self.runs] = 1;
        self.runs += 1;
    }

    const fn is_full(&self) -> bool {
        self.runs == RUNS || self.pages == BATCH
    }

    fn pages(&self) -> impl Iterator<Item = PageIndex> {
        let runs = self.starts.iter().zip(self.lengths).take(self.runs);
        runs.flat_map(|(start, length)| start.0..start.0 + u64::from(length)).map(PageIndex)
    }
}

impl<'a, P: Platform> Retired<'a, P> {
    pub(crate) fn new(vmo: &'a Arc<Inner<P>>) -> Self {
        Self { vmo, batch: Batch::EMPTY, leaving: None, met: 0, left: Left::new(Kind::Resident), evicted: 0 }
    }

    /// Takes the duty to reclaim a page after the grace period.
    #[inline]
    fn push(&mut self, page: PageIndex) {
        self.batch.push(page);
        if self.batch.is_full() {
            self.defer();
        }
    }

    /// A page may be about to leave.
    fn begin_leaving(&mut self) {
        if self.leaving.is_none() {
            self.leaving = Some(self.vmo.platform.pin());
            self.met = 0;
        }
    }

    /// The pages that have left are mapped nowhere. Returns what has kept us pinned.
    fn end_leaving(&mut self) -> Option<Guard> {
        self.leaving.take().inspect(|_| self.vmo.platform.unmapped())
    }

    /// The hand goes on to another page: we do not stay pinned for a long way.
    fn go_on(&mut self) {
        self.met += 1;
        if self.met > AT_ONCE {
            drop(self.end_leaving());
        }
    }

    fn defer(&mut self) {
        let leaving = self.end_leaving();
        if self.batch.runs == 0 {
            return;
        }
        let batch = core::mem::replace(&mut self.batch, Batch::EMPTY);
        let vmo = self.vmo.clone();
        let guard = leaving.unwrap_or_else(|| self.vmo.platform.pin());
        guard.defer(move || {
            let mut again = Retired::new(&vmo);
            batch.pages().for_each(|page| again.reclaim(page));
            vmo.platform.freed();
        });
        guard.flush(); // so that any thread's pin may run it, not only one of ours
    }

    fn reclaim(&mut self, page: PageIndex) {
        let Some(slot) = self.vmo.table.slot(page) else { return };
        match slot.reclaim() {
            // SAFETY: the frame came from the platform with the page's supply; the page is empty,
            // so nobody finds it any more; and whoever found it before was pinned, and has
            // unpinned since, because this runs after the grace period.
            Reclaimed::Frame(frame) => unsafe { self.vmo.platform.free(frame) },
            Reclaimed::Again => self.push(page),
            Reclaimed::Rescued => {}
        }
    }

    /// Phase 1 for one page. False: it is not what it was.
    #[inline]
    pub(crate) fn evict(&mut self, page: PageIndex, at: At<'a>, clean: Clean) -> bool {
        self.begin_leaving();
        let Ok(owes) = clean.evict(at.slot()) else { return false };
        self.left(page, at, owes);
        true
    }

    /// A clean page has begun to leave.
    #[inline]
    fn left(&mut self, page: PageIndex, at: At<'a>, owes: OwesReclaim) {
        self.left.add(at);
        self.evicted += 1;
        self.retire(page, owes);
    }

    /// As [`evict`](Self::evict), of a page under a DIRTY request, whose waiters look again.
    fn evict_asked(&mut self, page: PageIndex, at: At<'a>, seen: DirtyRequested) -> bool {
        self.begin_leaving();
        let Ok(owes) = seen.evict(at.slot()) else { return false };
        self.left(page, at, owes);
        self.vmo.source.left(&self.vmo.table, seen.index());
        true
    }

    /// Phase 1 for a page under a DIRTY request or a permit, in a VMO that is detached or gone, or past a new end. False:
    /// it is not what it was.
    fn drop_trapped(&mut self, page: PageIndex, at: At<'a>) -> bool {
        if self.vmo.source.is_detached() {
            self.vmo.turn_back(at);
            return false;
        }
        match self.vmo.trapped(at) {
            None => false,
            // The request may have pages before the end.
            Some(Trapped::Asked(seen, _)) => self.evict_asked(page, at, seen),
            Some(Trapped::Permitted(_, permit)) => {
                self.vmo.refuse(permit, Status::OutOfRange);
                false
            }
        }
    }

    #[inline]
    fn retire(&mut self, page: PageIndex, owes: OwesReclaim) {
        self.vmo.platform.unmap(self.vmo.id(), page);
        if owes == OwesReclaim::Yes {
            self.push(page);
        }
    }

    /// Evicts every clean page of the range, which is past a new end, or of a VMO that is detached or gone. Returns how many.
    pub(crate) fn evict_clean(&mut self, range: PageRange) -> u64 {
        let mut evicted = 0;
        let vmo = self.vmo;
        let _: ControlFlow<()> = vmo.table.scan_pages(Wanted::Clean, range, |page, at, mut state| {
            loop {
                let gone = match state {
                    State::Clean(clean) => self.evict(page, at, clean),
                    State::DirtyRequested(trapped) if !trapped.is_awaiting() => self.drop_trapped(page, at),
                    _ => break,
                };
                if gone {
                    evicted += 1;
                    break;
                }
                state = at.slot().load();
            }
            self.go_on();
            ControlFlow::Continue(())
        });
        evicted
    }

    /// Retires every page, dirty or not. Only when nobody can access the VMO any more.
    pub(crate) fn discard_all(&mut self) {
        self.evict_clean(PageRange::ALL);
        let vmo = self.vmo;
        let mut dirty = Left::new(Kind::Dirty);
        let _: ControlFlow<()> = vmo.table.scan_pages(Wanted::Dirty, PageRange::ALL, |page, at, mut state| {
            #[cfg(loom)]
            state.check_no_writers();
            loop {
                self.begin_leaving();
                let discarded = match state {
                    State::Dirty(dirty) => dirty.discard(at.slot()),
                    State::AwaitingClean(awaiting) => awaiting.discard(at.slot()),
                    State::DirtyRequested(trapped) => trapped.discard(at.slot()),
                    _ => break,
                };
                match discarded {
                    Ok(owes) => {
                        dirty.add(at);
                        self.left.add(at);
                        self.retire(page, owes);
                        break;
                    }
                    // Who closes the pager, or evicts over all its VMOs, may still be here, and has turned the
                    // page back from a request that was over.
                    Err(now) => state = now,
                }
            }
            self.go_on();
            ControlFlow::Continue(())
        });
    }

    /// One turn of the VMO's hand, until it has evicted `max` pages.
    fn turn(&mut self, max: u64, pass: Pass) -> Turn {
        let inner = self.vmo;
        let mut turn = Turn::default();
        if inner.source.is_detached() {
            return turn; // what is clean has gone with the detach
        }
        let end = inner.pages().0;
        let hand = (inner.hand.get() as u64).min(end); // the VMO may have shrunk
        for part in [PageRange { start: hand, end }, PageRange { start: 0, end: hand }] {
            if turn.evicted == max {
                break;
            }
            let stopped = inner.table.scan_pages(Wanted::Clean, part, |page, at, state| {
                if turn.evicted == max {
                    return ControlFlow::Break(page);
                }
                match self.meet(page, at, state, pass) {
                    Met::Evicted => turn.evicted += 1,
                    Met::Spared => turn.spared = true,
                    Met::Passed => {}
                }
                self.go_on();
                ControlFlow::Continue(())
            });
            inner.hand.set(match stopped {
                ControlFlow::Break(page) => page.0 as usize,
                ControlFlow::Continue(()) if part.end == end => 0,
                ControlFlow::Continue(()) => part.end as usize,
            });
        }
        turn
    }

    /// The hand comes to a page.
    #[inline]
    fn meet(&mut self, page: PageIndex, at: At<'a>, mut state: State, pass: Pass) -> Met {
        loop {
            let gone = match state {
                State::Clean(clean) if clean.is_always_needed() && pass != Pass::Last => return Met::Spared,
                State::Clean(clean) if pass == Pass::Unused && clean.accessed() => {
                    let _ = clean.age(at.slot()); // failing: the page is in use
                    return Met::Passed;
                }
                State::Clean(clean) => self.evict(page, at, clean),
                State::DirtyRequested(_) => match self.vmo.trapped(at) {
                    Some(Trapped::Asked(seen, _)) if pass != Pass::Unused && !seen.is_awaiting() => {
                        if seen.is_always_needed() && pass != Pass::Last {
                            return Met::Spared;
                        }
                        self.evict_asked(page, at, seen)
                    }
                    Some(_) => return Met::Passed,
                    None => false,
                },
                _ => return Met::Passed,
            };
            if gone {
                return Met::Evicted;
            }
            state = at.slot().load();
        }
    }
}

impl<P: Platform> Drop for Retired<'_, P> {
    fn drop(&mut self) {
        self.defer();
        if self.evicted > 0 {
            self.vmo.figures.evictions.add(self.evicted);
        }
    }
}

impl<P: Platform> Vmo<P> {
    /// Evicts up to `max` clean pages, and returns how many it did. Their frames are freed after a
    /// grace period; an access before that keeps the page after all.
    ///
    /// Dirty pages, and pages that are being written back, are never evicted.
    ///
    /// Lock-free. Costs the resident pages that the hand passes: at most two turns.
    #[allow(clippy::must_use_candidate)] // how many may be of no interest
    pub fn evict(&self, max: PageCount, which: Evict) -> PageCount {
        let mut retired = Retired::new(self.inner());
        let mut all = Turn::default();
        for pass in which.passes() {
            if all.evicted < max.0 && (pass != Pass::Last || all.spared) {
                all.add(retired.turn(max.0 - all.evicted, pass));
            }
        }
        PageCount(all.evicted)
    }
}

/// Pages that the first round takes of a VMO: as many as two groups of slots that share their counts.
const PORTION: u64 = 128;

impl<P: Platform> Pager<P> {
    /// Evicts up to `max` clean pages of the pager's VMOs, and returns how many it did. As
    /// [`Vmo::evict`] in each of them: their frames are freed after a grace period, an access before
    /// that keeps the page after all, and dirty pages stay.
    ///
    /// Fair: it goes round the VMOs, by a hand that the next call takes up where this one left it. A
    /// round takes at most 128 pages of each VMO, and each further round at most twice as many as the
    /// one before, until no VMO has more to give. So no VMO gives a second portion before each that has
    /// pages to give has given one. Shares are of VMOs, not by their size. A page in use goes only when the
    /// hand of its VMO comes by a second time; a VMO that has none but such pages gives none before the
    /// others have run dry; and a page that is always needed goes after all that are not.
    ///
    /// A VMO that is made or dropped meanwhile may be passed over. One whose last handle goes meanwhile
    /// may have a page [unmapped](Platform::unmap) a moment later.
    ///
    /// Lock-free. A round costs a step for each place that the pager has for a VMO, and there are about
    /// log2(`max` / 128) of them, twice that at most. Besides, it costs the pages that the hands of the VMOs
    /// pass: those that it takes, those between, and two turns at most of a VMO that has nothing to give.
    ///
    /// ```
    /// # use upager::*;
    /// # use std::sync::Arc;
    /// # let platform = Arc::new(HeapPlatform::new());
    /// # let (pager, port) = (Pager::new(platform.clone()), Port::new(platform.clone()));
    /// let vmos = [1, 2].map(|key| pager.create_vmo(&port, key, VmoOptions::NONE, 8192).unwrap());
    /// for vmo in &vmos {
    ///     let frames = [OwnedFrame::new(&*platform)?, OwnedFrame::new(&*platform)?];
    ///     pager.supply_frames(vmo, ByteRange::new(0, 8192), frames)?;
    /// }
    /// assert_eq!(pager.evict(PageCount(1), Evict::Any), PageCount(1));
    /// assert_eq!(pager.evict(PageCount(1), Evict::Any), PageCount(1));
    /// assert_eq!(vmos.each_ref().map(|vmo| vmo.counts().resident), [PageCount(1); 2]); // one of each
    /// # Ok::<(), Status>(())
    /// ```
    #[allow(clippy::must_use_candidate)] // as of `Vmo::evict`
    pub fn evict(&self, max: PageCount, which: Evict) -> PageCount {
        let mut all = Turn::default();
        for pass in which.passes() {
            if pass == Pass::Last && !all.spared {
                break;
            }
            let (number, mut portion) = (self.shared().new_pass(), PORTION);
            while all.evicted < max.0 {
                let round = self.round(number, max.0 - all.evicted, portion, pass);
                all.add(round);
                if round.evicted == 0 {
                    break;
                }
                portion = portion.saturating_mul(2);
            }
        }
        PageCount(all.evicted)
    }

    /// One turn of the pager's hand, until `max` pages are evicted. Of each VMO at most `portion`, and
    /// nothing of one that has run dry in an earlier round of this pass: another turn of its hand would
    /// take the pages that the last one has only taken the marks of.
    fn round(&self, number: usize, max: u64, portion: u64, pass: Pass) -> Turn {
        let mut round = Turn::default();
        self.shared().round(|vmo| {
            if vmo.dry.get() != number {
                let wanted = portion.min(max - round.evicted);
                let turn = Retired::new(vmo).turn(wanted, pass);
                if turn.evicted < wanted {
                    vmo.dry.set(number);
                }
                round.add(turn);
            }
            round.evicted < max
        });
        round
    }
}
