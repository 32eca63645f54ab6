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
//! Which pages go: second chance, by a hand that goes round the resident pages (Corbató, 1968,
//! "clock"). It is published, needs no store on a lookup and no list; an access marks the page,
//! the hand takes the mark the first time and the page the second time. A page that was just
//! supplied is marked, so whoever waited for it has a full turn of the hand to use it.

use core::ops::ControlFlow;

use crate::counts::Kind;
use crate::platform::Platform;
use crate::slot::{Clean, DirtyRequested, OwesReclaim, Reclaimed, State};
use crate::status::Status;
use crate::sync::Arc;
use crate::table::At;
use crate::trap::Trapped;
use crate::units::{PageCount, PageIndex, PageRange};
use crate::vmo::{Inner, Vmo};

/// Which pages an eviction may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Evict {
    /// Clean pages that were not accessed since the hand last came by, and that nobody waits to write.
    Unused,
    /// Any clean page. Whoever waits to write one asks for it anew.
    Any,
}

/// Pages that wait for their grace period, in batches, so that one deferral serves many.
///
/// The grace period begins with the deferral, after the page went to `Evicting`: whoever is pinned
/// later has not seen it before.
pub(crate) struct Retired<'a, P: Platform> {
    vmo: &'a Arc<Inner<P>>,
    batch: Batch,
    /// Not told to the VMO's figures yet.
    evicted: usize,
}

const BATCH: usize = 30;

#[derive(Clone, Copy)]
struct Batch {
    pages: [PageIndex; BATCH],
    len: usize,
}

impl Batch {
    const EMPTY: Self = Self { pages: [PageIndex(0); BATCH], len: 0 };

    fn pages(&self) -> &[PageIndex] {
        &self.pages[..self.len]
    }
}

impl<'a, P: Platform> Retired<'a, P> {
    pub(crate) fn new(vmo: &'a Arc<Inner<P>>) -> Self {
        Self { vmo, batch: Batch::EMPTY, evicted: 0 }
    }

    /// Takes the duty to reclaim a page after the grace period.
    fn push(&mut self, page: PageIndex) {
        self.batch.pages[self.batch.len] = page;
        self.batch.len += 1;
        if self.batch.len == BATCH {
            self.defer();
        }
    }

    fn defer(&mut self) {
        if self.batch.len == 0 {
            return;
        }
        let batch = core::mem::replace(&mut self.batch, Batch::EMPTY);
        let vmo = self.vmo.clone();
        let guard = self.vmo.platform.pin();
        guard.defer(move || {
            let mut again = Retired::new(&vmo);
            for page in batch.pages() {
                again.reclaim(*page);
            }
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
    pub(crate) fn evict(&mut self, page: PageIndex, at: At<'_>, clean: Clean) -> bool {
        let Ok(owes) = clean.evict(at.slot()) else { return false };
        self.left(page, at, owes);
        true
    }

    /// A clean page has begun to leave.
    fn left(&mut self, page: PageIndex, at: At<'_>, owes: OwesReclaim) {
        at.lower(Kind::Resident);
        self.evicted += 1;
        self.retire(page, owes);
    }

    /// As [`evict`](Self::evict), of a page under a DIRTY request, whose waiters look again.
    fn evict_asked(&mut self, page: PageIndex, at: At<'_>, seen: DirtyRequested) -> bool {
        let Ok(owes) = seen.evict(at.slot()) else { return false };
        self.left(page, at, owes);
        self.vmo.source.left(&self.vmo.table, seen.index());
        true
    }

    /// Phase 1 for a page under a DIRTY request or a permit, in a VMO that is detached or gone. Such a
    /// page counts as absent unless its permit was granted. False: it is not what it was.
    pub(crate) fn drop_trapped(&mut self, page: PageIndex, at: At<'_>) -> bool {
        match self.vmo.trapped(at) {
            None => false,
            Some(Trapped::Asked(seen, _)) => self.evict_asked(page, at, seen),
            Some(Trapped::Permitted(_, permit)) => {
                self.vmo.refuse(permit, Status::BadState);
                false
            }
        }
    }

    fn retire(&mut self, page: PageIndex, owes: OwesReclaim) {
        self.vmo.platform.unmap(self.vmo.id(), page);
        if owes == OwesReclaim::Yes {
            self.push(page);
        }
    }

    /// Evicts every clean page of the range of a VMO that is detached or gone. Returns how many.
    pub(crate) fn evict_clean(&mut self, range: PageRange) -> u64 {
        let mut evicted = 0;
        let vmo = self.vmo;
        let _: ControlFlow<()> = vmo.table.scan_pages(Kind::Resident, range, |page, at| {
            loop {
                let gone = match at.slot().load() {
                    State::Clean(clean) => self.evict(page, at, clean),
                    State::DirtyRequested(trapped) if !trapped.is_awaiting() => self.drop_trapped(page, at),
                    _ => break,
                };
                evicted += u64::from(gone);
            }
            ControlFlow::Continue(())
        });
        evicted
    }

    /// Retires every page, dirty or not. Only when nobody can access the VMO any more.
    pub(crate) fn discard_all(&mut self) {
        self.evict_clean(PageRange::ALL);
        let vmo = self.vmo;
        let _: ControlFlow<()> = vmo.table.scan_pages(Kind::Dirty, PageRange::ALL, |page, at| {
            let discarded = match at.slot().load() {
                State::Dirty(dirty) => dirty.discard(at.slot()),
                State::AwaitingClean(awaiting) => awaiting.discard(at.slot()),
                State::DirtyRequested(trapped) => trapped.discard(at.slot()),
                _ => return ControlFlow::Continue(()),
            };
            if let Ok(owes) = discarded {
                at.lower(Kind::Dirty);
                at.lower(Kind::Resident);
                self.retire(page, owes);
            }
            ControlFlow::Continue(())
        });
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
    /// Lock-free. Costs the resident pages that the hand passes: at most two turns for
    /// [`Evict::Unused`], one for [`Evict::Any`].
    #[allow(clippy::must_use_candidate)] // how many may be of no interest
    pub fn evict(&self, max: PageCount, which: Evict) -> PageCount {
        let inner = self.inner();
        if inner.source.is_detached() {
            return PageCount(0); // what is clean has gone with the detach
        }
        let mut retired = Retired::new(inner);
        let hand = inner.hand.get() as u64;
        let end = inner.pages().0;
        let hand = hand.min(end);
        let ahead = PageRange { start: hand, end };
        let behind = PageRange { start: 0, end: hand };
        let turns: &[PageRange] = match which {
            Evict::Unused => &[ahead, behind, ahead, behind],
            Evict::Any => &[ahead, behind],
        };
        let mut evicted = 0;
        for part in turns {
            if evicted == max.0 {
                break;
            }
            let stopped = inner.table.scan_pages(Kind::Resident, *part, |page, at| {
                if evicted == max.0 {
                    return ControlFlow::Break(page);
                }
                loop {
                    let gone = match at.slot().load() {
                        State::Clean(clean) if which == Evict::Unused && clean.accessed() => {
                            let _ = clean.age(at.slot()); // failing: the page is in use
                            break;
                        }
                        State::Clean(clean) => retired.evict(page, at, clean),
                        State::DirtyRequested(_) => match inner.trapped(at) {
                            Some(Trapped::Asked(seen, _)) if which == Evict::Any && !seen.is_awaiting() => {
                                retired.evict_asked(page, at, seen)
                            }
                            Some(_) => break,
                            None => false,
                        },
                        _ => break,
                    };
                    if gone {
                        evicted += 1;
                        break;
                    }
                }
                ControlFlow::Continue(())
            });
            inner.hand.set(match stopped {
                ControlFlow::Break(page) => page.0 as usize,
                ControlFlow::Continue(()) if part.end == end => 0,
                ControlFlow::Continue(()) => part.end as usize,
            });
        }
        PageCount(evicted)
    }
}
