//! A VMO of the soak, with all that is known of it; and the comparison at its end.
//!
//! A VMO ends when the last of its users lets go of it: its accesses are home then, and nobody works on
//! it. That is when it is compared with the model, which is the lanes, the store, and what the pager says is
//! dirty ([`compare`](Subject::compare)):
//!
//! - nothing is in flight;
//! - the query's runs ascend, do not touch where they are alike, and add up to the counts: stored pages
//!   to `dirty`, zeros to `zero`; `awaiting <= dirty <= resident`; and as many pages can be looked up as are
//!   `resident`;
//! - a page of a run of zeros reads as zeros, and is not resident; a page of another run is resident;
//! - a page of no run that can be read is clean, and has the bytes of the store, all 4096;
//! - each page, from the VMO if it is there and else from the store, is what the rule of [`lanes`] says;
//! - if a write came after the last reset of the statistics, they say "modified".
//!
//! When the pager is closed nobody can ask what is dirty. Then the lanes are compared, and that a page that
//! is in the VMO can be read.
//!
//! [`lanes`]: crate::soak::lanes

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use upager::{
    ByteOffset, ByteRange, DirtyRange, PAGE_SIZE, PageIndex, Platform, Status, Vmo, VmoOptions, VmoStatsOptions,
};

use crate::soak::books::Books;
use crate::soak::lanes::Lanes;
use crate::soak::ledger::Account;
use crate::soak::memory::Memory;
use crate::soak::office::{Manner, Office, OpenPager};
use crate::soak::store::Store;
use crate::store::PAGE;

pub(crate) struct Subject {
    pub(crate) key: u64,
    pub(crate) vmo: Vmo<Memory>,
    pub(crate) traps: bool,
    pub(crate) resizable: bool,
    pub(crate) manner: Manner,
    /// As many pages as it may come to have.
    pub(crate) most: u64,
    pub(crate) lanes: Lanes,
    pub(crate) store: Store,
    pub(crate) books: Arc<Books>,
    /// A detach is about to begin; one has returned.
    pub(crate) detaching: AtomicBool,
    pub(crate) detached: AtomicBool,
    pager: Weak<OpenPager>,
    closed: Arc<AtomicBool>,
    modified: Modified,
}

/// What statistics must say. A write that began after one reset returned, and returned before the next
/// begins, is reported by the next.
#[derive(Default)]
struct Modified {
    /// Resets that have returned. One at a time.
    resets: AtomicU64,
    reset: Mutex<()>,
    /// One more than the most resets that had returned when a write began that has returned `OK`.
    written: AtomicU64,
}

/// What a VMO is like.
pub(crate) struct Shape {
    pub(crate) traps: bool,
    pub(crate) resizable: bool,
    pub(crate) pages: u64,
    pub(crate) most: u64,
}

impl Subject {
    /// Creates a VMO at an office. `tail`: bytes of the last page that it is short of.
    pub(crate) fn new(
        key: u64,
        office: &Office,
        shape: &Shape,
        tail: u64,
        workers: u64,
        books: &Arc<Books>,
    ) -> Result<Self, Status> {
        let &Shape { traps, resizable, pages, most } = shape;
        let (pager, port) = (office.pager(), office.port());
        let excuses = [pager.closed.clone(), port.closed.clone()];
        books.ledger.open(key, Account::new(most, traps, excuses));
        let options = VmoOptions::from_bits(u32::from(resizable) << 1 | u32::from(traps) << 3)?;
        let vmo = pager.pager.create_vmo(&port.port, key, options, pages * PAGE_SIZE - tail)?;
        let lanes = Lanes::new(key, workers, pages, most);
        Ok(Self {
            key,
            vmo,
            traps,
            resizable,
            manner: office.manner,
            most,
            store: Store::new(&lanes, most),
            lanes,
            books: books.clone(),
            detaching: AtomicBool::new(false),
            detached: AtomicBool::new(false),
            closed: pager.closed.clone(),
            pager: Arc::downgrade(&pager),
            modified: Modified::default(),
        })
    }

    /// Its pager, unless that is closed.
    pub(crate) fn pager(&self) -> Option<Arc<OpenPager>> {
        self.pager.upgrade()
    }

    pub(crate) fn pages(&self) -> u64 {
        self.vmo.size() / PAGE_SIZE
    }

    /// Whether an access may need a pager that is not there.
    fn is_cut_off(&self) -> bool {
        self.detaching.load(SeqCst) || self.closed.load(SeqCst) // SeqCst: as all flags of the program
    }

    /// Notes something wrong with it.
    pub(crate) fn find(&self, finding: impl std::fmt::Display) {
        let size = self.pages();
        let options = match (self.traps, self.resizable) {
            (false, false) => "plain",
            (true, false) => "TRAP_DIRTY",
            (false, true) => "RESIZABLE",
            (true, true) => "TRAP_DIRTY, RESIZABLE",
        };
        let cut = match (self.detaching.load(SeqCst), self.closed.load(SeqCst)) {
            (false, false) => "attached",
            (true, _) => "detached",
            (false, true) => "pager closed",
        };
        let manner = self.manner;
        self.books.find(format!("VMO {} ({options}, {size} pages, {manner:?}, {cut}): {finding}", self.key));
    }

    /// Whether a call succeeded. A status that it must not give is a finding.
    pub(crate) fn judge(&self, what: &str, result: Result<(), Status>, expected: &[Status]) -> bool {
        let Err(status) = result else { return true };
        let may_be = match status {
            Status::BadState => self.is_cut_off(),
            Status::OutOfRange => self.resizable,
            Status::TimedOut => self.manner == Manner::Rough,
            Status::NoMemory => true,
            status => expected.contains(&status),
        };
        if !may_be {
            self.find(format_args!("{what} failed with {status:?}"));
        }
        false
    }

    /// Looks at what was read. `sure`: as [`Lanes::judge`] takes it.
    pub(crate) fn judge_bytes(&self, what: &str, offset: u64, bytes: &[u8], sure: Option<&[u64]>) {
        match self.lanes.judge(offset, bytes, sure) {
            Ok(lanes) => self.books.figures.checked_lanes.add(lanes),
            Err(wrong) => self.find(format_args!("{what}: {wrong}")),
        }
    }

    /// Before a write, for [`was_modified`](Self::was_modified).
    pub(crate) fn resets(&self) -> u64 {
        self.modified.resets.load(SeqCst) // SeqCst: before and after, between threads
    }

    /// A write that began after so many resets has returned `OK`.
    pub(crate) fn was_modified(&self, resets: u64) {
        self.modified.written.fetch_max(resets + 1, SeqCst); // SeqCst: as in `resets`
    }

    /// Asks for the statistics, and checks what they say.
    pub(crate) fn statistics(&self, pager: &OpenPager, options: VmoStatsOptions) {
        let _one_at_a_time = self.modified.reset.lock();
        let must_be = self.modified.written.load(SeqCst) > self.resets();
        match pager.pager.query_vmo_stats(&self.vmo, options) {
            Ok(stats) if must_be && !stats.is_modified() => self.find("a write was not reported as a modification"),
            Ok(_) => {}
            Err(status) => self.find(format_args!("the query of the statistics failed with {status:?}")),
        }
        if options == VmoStatsOptions::Reset {
            self.modified.resets.fetch_add(1, SeqCst); // SeqCst: as in `resets`
        }
    }

    /// See the module's text.
    fn compare(&self) {
        let counts = self.vmo.counts();
        if counts.in_flight != 0 {
            self.find(format_args!("nobody waits, and {} requests are in flight", counts.in_flight));
        }
        let pager = self.pager();
        let runs = pager.as_ref().map(|pager| self.dirty_runs(pager));
        if let Some(pager) = &pager {
            self.statistics(pager, VmoStatsOptions::Keep);
        }
        let (mut resident, mut dirty, mut zeros) = (0, 0, 0);
        for page in 0..self.pages() {
            let run = runs.as_ref().and_then(|runs| runs.iter().find(|run| holds(run, page)));
            let is_resident = self.vmo.lookup(&self.vmo.platform().pin(), PageIndex(page)).is_some();
            resident += u64::from(is_resident);
            dirty += u64::from(run.is_some_and(|run| run.options == 0));
            zeros += u64::from(run.is_some_and(|run| run.options == DirtyRange::ZERO));
            let bytes = self.read_at_once(page);
            if is_resident && bytes.is_none() {
                self.find(format_args!("page {page} is resident and cannot be read"));
            }
            let stored = self.store.read(page..page + 1);
            match (run, &bytes) {
                (Some(run), bytes) if run.options == DirtyRange::ZERO => {
                    let zeros = bytes.as_ref().is_some_and(|bytes| **bytes == [0; PAGE]);
                    if is_resident || !zeros {
                        self.find(format_args!("page {page} of a run of zeros is stored, or not zero"));
                    }
                }
                (Some(_), _) if !is_resident => self.find(format_args!("dirty page {page} is not there")),
                (None, Some(bytes)) if runs.is_some() && **bytes != **stored[0] => {
                    self.find(format_args!("clean page {page} is not what was written back"));
                }
                _ => {}
            }
            if let Err(wrong) = self.lanes.judge_finally(page, bytes.as_ref().map_or(&**stored[0], |bytes| &**bytes)) {
                let place = if bytes.is_some() { "in the VMO" } else { "in the store" };
                self.find(format_args!("at its end, {place}: {wrong}"));
            }
            self.books.figures.compared_pages.add(1);
        }
        if counts.resident.0 != resident {
            self.find(format_args!("{resident} pages are resident, {counts:?}"));
        }
        if runs.is_some() && (counts.dirty.0 != dirty || counts.zero.0 != zeros) {
            self.find(format_args!("{dirty} pages are dirty and {zeros} zeros, {counts:?}"));
        }
        self.judge_counts();
    }

    /// What holds of the counts at any time.
    pub(crate) fn judge_counts(&self) {
        let counts = self.vmo.counts();
        if !(counts.awaiting <= counts.dirty && counts.dirty <= counts.resident && counts.resident.0 <= self.most) {
            self.find(format_args!("impossible counts: {counts:?}"));
        }
    }

    /// What the pager says is dirty. Checks that the runs ascend and are merged.
    pub(crate) fn dirty_runs(&self, pager: &OpenPager) -> Vec<DirtyRange> {
        let mut runs = vec![DirtyRange::default(); self.most as usize + 1];
        let size = self.vmo.size();
        match pager.pager.query_dirty_ranges(&self.vmo, ByteRange::new(0, size), &mut runs) {
            Ok(found) => runs.truncate(found.actual),
            Err(status) => {
                self.judge("a query of dirty ranges", Err(status), &[]);
                runs.clear();
            }
        }
        for pair in runs.windows(2) {
            let end = pair[0].offset + pair[0].length;
            if pair[1].offset < end || pair[1].offset == end && pair[1].options == pair[0].options {
                self.find(format_args!("dirty runs overlap or are not merged: {pair:?}"));
            }
        }
        if runs.iter().any(|run| run.length == 0 || run.offset + run.length > size || run.options > DirtyRange::ZERO) {
            self.find(format_args!("impossible dirty runs: {runs:?}"));
        }
        runs
    }

    /// A page, if it is there.
    fn read_at_once(&self, page: u64) -> Option<Box<[u8; PAGE]>> {
        let mut bytes = Box::new([0; PAGE]);
        let read = {
            let read = pin!(self.vmo.read(ByteOffset(page * PAGE_SIZE), &mut *bytes));
            read.poll(&mut Context::from_waker(Waker::noop()))
        };
        match read {
            Poll::Ready(Ok(())) => Some(bytes),
            Poll::Ready(Err(Status::BadState)) if self.is_cut_off() => None,
            Poll::Ready(Err(status)) => {
                self.find(format_args!("page {page} cannot be read at the end: {status:?}"));
                None
            }
            Poll::Pending if self.is_cut_off() => {
                self.find(format_args!("a read of page {page} waits for nobody"));
                None
            }
            Poll::Pending => None,
        }
    }
}

fn holds(run: &DirtyRange, page: u64) -> bool {
    (run.offset..run.offset + run.length).contains(&(page * PAGE_SIZE))
}

impl Drop for Subject {
    fn drop(&mut self) {
        let books = self.books.clone();
        let _alone = books.strangers.write();
        self.compare();
    }
}
