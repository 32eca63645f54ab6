//! One fault on its way: from the message to the page that is mapped, or to SIGBUS.
//!
//! A task is about a run of pages of one region. It maps what is there; for the first page that is not, it asks
//! the pager, by one request for the rest of the run, and goes on when that is answered. It never
//! blocks: each step either ends it, or says what wakes it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use upager::{Access, ByteRange, PAGE_SIZE, PageCount, PageIndex, Platform, Result, Status};

use crate::latency::Stage;
use crate::region::{Mapped, Region};
use crate::uffd::Stopped;

/// Pages that are mapped, or moved, by one turn.
const AT_ONCE: u64 = 512;
/// Turns of one step. More would let a task that is under pressure of eviction keep the others from theirs.
const TURNS: usize = 8;

type Fault = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

pub(crate) struct Task {
    region: Arc<Region>,
    /// The next page, and how many from there on somebody waits for.
    page: PageIndex,
    wanted: u64,
    /// How many from there on are mapped with it, at most.
    run: u64,
    stopped: Stopped,
    /// It only brings pages near that will be wanted soon.
    ahead: bool,
    /// It has asked for pages that nobody waits for.
    in_advance: bool,
    fault: Option<Fault>,
    /// When the loop took it, and when the pager was asked, if somebody wants to know.
    begun: Option<Instant>,
    asked: Option<Instant>,
    /// The pager said no, and the page could not be failed yet.
    refused: Option<Status>,
}

/// What a step came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// It has ended.
    Done,
    /// Its waker wakes it.
    Waits,
    /// It is to be tried again soon.
    Again,
}

/// What a task has its loop note.
pub(crate) trait Notes {
    fn mapped(&mut self, pages: u64);
    fn asked(&mut self) -> Option<Instant>;
    fn took(&mut self, stage: Stage, begun: Option<Instant>);
    fn failed(&mut self, region: &Arc<Region>, page: PageIndex);
}

impl Task {
    pub(crate) fn new(
        region: Arc<Region>,
        page: PageIndex,
        wanted: u64,
        run: u64,
        stopped: Stopped,
        begun: Option<Instant>,
    ) -> Self {
        let (run, ahead, in_advance) = (run.max(wanted), false, false);
        Self { region, page, wanted, run, stopped, ahead, in_advance, fault: None, begun, asked: None, refused: None }
    }

    /// Brings pages near that nobody waits for yet: into the VMO, and to their places there. They are not mapped, so the first
    /// touch of one of them tells that the reading goes on, and has more be brought near.
    pub(crate) fn ahead(region: Arc<Region>, page: PageIndex, run: u64) -> Self {
        let mut task = Self::new(region, page, 0, run, Stopped::Reading, None);
        let (vmo, range) = (task.region.vmo().clone(), ByteRange::new(page.offset().0, run * PAGE_SIZE));
        task.ahead = true;
        task.fault = Some(Box::pin(async move { vmo.prefetch(range).await }));
        task
    }

    /// The key of its VMO.
    pub(crate) fn vmo(&self) -> u64 {
        self.region.vmo().key()
    }

    pub(crate) const fn page(&self) -> PageIndex {
        self.page
    }

    /// Whether it is about to map a page.
    pub(crate) fn will_map(&self, region: &Arc<Region>, page: PageIndex) -> bool {
        !self.ahead && Arc::ptr_eq(&self.region, region) && (self.page.0..self.page.0 + self.run).contains(&page.0)
    }

    /// Whether there is nothing any more where it is at work.
    pub(crate) fn is_lost(&self) -> bool {
        self.region.has_lost(self.page)
    }

    /// Ends it: whoever waits finds out what is there now.
    pub(crate) fn end(self) {
        self.region.wake(self.page, self.wanted);
    }

    pub(crate) fn step(&mut self, waker: &Waker, notes: &mut impl Notes) -> Step {
        for _ in 0..TURNS {
            if self.is_lost() {
                self.region.wake(self.page, self.wanted);
                return Step::Done;
            }
            if self.in_advance {
                // Answered, or nearly. It is not asked again: what was evicted since is not to come back for nobody.
                self.fault = None;
            }
            if let Some(fault) = &mut self.fault {
                match fault.as_mut().poll(&mut Context::from_waker(waker)) {
                    Poll::Pending => {
                        self.in_advance = self.wanted == 0;
                        return Step::Waits;
                    }
                    Poll::Ready(result) => {
                        self.fault = None;
                        notes.took(Stage::Request, self.asked.take());
                        self.refused = result.err();
                    }
                }
            }
            if self.ahead {
                match self.region.bring_near(self.page, self.run.min(AT_ONCE)) {
                    0 => return Step::Done,
                    pages => self.advance(pages),
                }
                if self.run == 0 {
                    return Step::Done;
                }
                continue;
            }
            if self.refused.is_some() {
                if self.wanted == 0 {
                    return Step::Done; // what is read ahead fails when somebody wants it
                }
                if !self.fail(notes) {
                    return Step::Again;
                }
                self.is_home(notes);
            } else {
                match self.map() {
                    Mapped::Pages(pages) => {
                        notes.mapped(pages);
                        self.advance(pages);
                        self.is_home(notes);
                    }
                    Mapped::Absent if self.run > 0 && !self.in_advance => {
                        self.asked = notes.asked();
                        self.ask();
                        continue;
                    }
                    Mapped::Failed(status) => {
                        self.refused = Some(status);
                        continue;
                    }
                    Mapped::Busy if self.wanted == 0 => return Step::Done,
                    Mapped::Busy => return Step::Again,
                    Mapped::Absent | Mapped::Gone => return Step::Done,
                }
            }
            if self.run == 0 || (self.wanted == 0 && self.stopped != Stopped::Reading) {
                return Step::Done;
            }
        }
        Step::Again
    }

    /// Notes the time, if nobody waits any more: what is read ahead is for later.
    fn is_home(&mut self, notes: &mut impl Notes) {
        if self.wanted == 0 {
            notes.took(Stage::Fault, self.begun.take());
        }
    }

    fn advance(&mut self, pages: u64) {
        self.page.0 += pages;
        self.wanted = self.wanted.saturating_sub(pages);
        self.run = self.run.saturating_sub(pages);
    }

    fn map(&self) -> Mapped {
        let count = if self.stopped == Stopped::Reading { self.run.min(AT_ONCE) } else { 1 };
        let Some(claim) = self.region.claim(self.page, count) else { return Mapped::Busy };
        match self.stopped {
            Stopped::Reading => self.region.map_for_reading(&claim, self.page, count),
            stopped => self.region.map_for_writing(&claim, self.page, stopped),
        }
    }

    fn ask(&mut self) {
        let (vmo, page) = (self.region.vmo().clone(), self.page);
        // Leave to make pages dirty is asked for those only that somebody writes to.
        let dirties = self.stopped != Stopped::Reading && vmo.lookup(&vmo.platform().pin(), page).is_some();
        let (run, access) = if dirties { (self.wanted, Access::Write) } else { (self.run, Access::Read) };
        self.fault = Some(Box::pin(async move { vmo.fault_run(page, PageCount(run), access).await }));
    }

    /// Fails the first page. False: not now.
    fn fail(&mut self, notes: &mut impl Notes) -> bool {
        let Some(claim) = self.region.claim(self.page, 1) else { return false };
        if self.region.fail(&claim, self.page) {
            notes.failed(&self.region, self.page);
        }
        drop(claim);
        self.refused = None;
        self.advance(1);
        true
    }
}
