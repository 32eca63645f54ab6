//! The users of the memory: they read, write, fault, look up, zero, and change the size.

use std::ops::Range;
use std::sync::Arc;

use rand::RngExt;
use upager::{
    Access, ByteOffset, ByteRange, Frame, PAGE_SIZE, PageCount, PageIndex, Platform, Status, Vmo, VmoOp, block_on_until,
};

use crate::soak::lanes::{Lanes, WORD};
use crate::soak::memory::Memory;
use crate::soak::subject::Subject;
use crate::soak::worker::{Worker, soon};
use crate::store::PAGE;

/// The reasons that a service here gives when it fails a request. Not BAD_STATE, which is left for what is cut
/// off.
pub(crate) const REASONS: [Status; 4] = [Status::Io, Status::IoDataIntegrity, Status::NoSpace, Status::BufferTooSmall];

/// Whether an access to bytes before `end` succeeded.
fn ended(subject: &Subject, what: &str, end: u64, result: Result<(), Status>) -> bool {
    let figures = &subject.books.figures;
    let past_the_end = end > subject.vmo.size();
    if !subject.resizable && past_the_end != (result == Err(Status::OutOfRange)) {
        subject.find(format_args!("{what} up to byte {end} came to {result:?}"));
    }
    if !subject.resizable && past_the_end {
        return false;
    }
    figures.failed.add(result.is_err().into());
    figures.failed_by_detach.add((result == Err(Status::BadState)).into());
    subject.judge(what, result, &REASONS)
}

/// A page, of a VMO that can have so many. Now and then the one past the end.
fn any_page(worker: &mut Worker, subject: &Subject) -> u64 {
    let pages = if worker.rng.random_range(0..32) == 0 { subject.most + 1 } else { subject.pages() };
    worker.page_below(pages)
}

/// The pages that these bytes touch.
fn touched(offset: u64, length: u64) -> Range<u64> {
    offset / PAGE_SIZE..(offset + length).div_ceil(PAGE_SIZE)
}

/// Where to read: a page, some of it, or several.
fn any_bytes(worker: &mut Worker, subject: &Subject) -> (u64, usize) {
    let page = any_page(worker, subject) * PAGE_SIZE;
    match worker.rng.random_range(0..4) {
        0 => (page, PAGE * worker.rng.random_range(1..=5)),
        1 => (page + worker.rng.random_range(0..PAGE_SIZE), worker.rng.random_range(1..3 * PAGE)),
        _ => (page, PAGE),
    }
}

pub(crate) fn read(worker: &mut Worker) {
    let subject = worker.subject();
    let (offset, length) = any_bytes(worker, &subject);
    worker.begin(&format!("a read of {length} bytes at {offset}"), &subject.clone(), async move {
        let sure = subject.lanes.sure(touched(offset, length as u64));
        let mut bytes = vec![0; length];
        let read = subject.vmo.read(ByteOffset(offset), &mut bytes).await;
        if ended(&subject, "a read", offset + length as u64, read) {
            subject.judge_bytes("a read", offset, &bytes, Some(&in_whole(&subject, offset, length, sure)));
        }
    });
}

/// `sure` of the pages that exist, and zeros for those that do not, so that each page has its place.
fn in_whole(subject: &Subject, offset: u64, length: usize, mut sure: Vec<u64>) -> Vec<u64> {
    let pages = touched(offset, length as u64);
    sure.resize((pages.end - pages.start) as usize * subject.lanes.in_a_page(), 0);
    sure
}

pub(crate) fn read_impatiently(worker: &mut Worker) {
    let subject = worker.subject();
    let (offset, length) = any_bytes(worker, &subject);
    let sure = subject.lanes.sure(touched(offset, length as u64));
    let mut bytes = vec![0; length];
    let deadline = soon(&mut worker.rng);
    match block_on_until(subject.vmo.read(ByteOffset(offset), &mut bytes), Some(deadline)) {
        None => subject.books.figures.gave_up.add(1),
        Some(read) => {
            if ended(&subject, "a read", offset + length as u64, read) {
                subject.judge_bytes("a read", offset, &bytes, Some(&in_whole(&subject, offset, length, sure)));
            }
        }
    }
}

pub(crate) fn write(worker: &mut Worker) {
    let subject = worker.subject();
    let page = any_page(worker, &subject);
    let lane = Lanes::own(worker.number);
    worker.begin(&format!("a write to page {page}"), &subject.clone(), async move {
        let Some(writing) = subject.lanes.begin(page, lane, false) else { return };
        let resets = subject.resets();
        let at = ByteOffset(page * PAGE_SIZE + subject.lanes.place(lane) as u64);
        let written = subject.vmo.write(at, &writing.bytes()).await;
        if ended(&subject, "a write", at.0 + WORD as u64, written) {
            writing.done();
            subject.was_modified(resets);
        }
    });
}

/// The end of one page and the beginning of the next, at once.
pub(crate) fn write_span(worker: &mut Worker) {
    let subject = worker.subject();
    let workers = worker.soak.workers;
    // The first that is this worker's to write, from any on.
    let any = any_page(worker, &subject);
    let page = any + (workers + worker.number - any % workers) % workers;
    worker.begin(&format!("a write to pages {page} and {}", page + 1), &subject.clone(), async move {
        let (end, beginning) = subject.lanes.span();
        let Some(second) = subject.lanes.begin(page + 1, beginning, false) else { return };
        let Some(first) = subject.lanes.begin(page, end, true) else { return };
        let resets = subject.resets();
        let at = ByteOffset(page * PAGE_SIZE + subject.lanes.place(end) as u64);
        let written = subject.vmo.write(at, &[first.bytes(), second.bytes()].concat()).await;
        if ended(&subject, "a write", at.0 + 2 * WORD as u64, written) {
            first.done();
            second.done();
            subject.was_modified(resets);
        }
    });
}

/// A mapped access: fault, and look at the frame under a guard. With [`Access::Write`] the page becomes
/// dirty, and its bytes stay.
pub(crate) fn fault(worker: &mut Worker, access: Access) {
    let subject = worker.subject();
    let page = any_page(worker, &subject);
    let run = worker.rng.random_range(1..=8);
    worker.begin(&format!("a fault on page {page}, {access:?}"), &subject.clone(), async move {
        let resets = subject.resets();
        let sure = subject.lanes.sure(page..page + 1);
        let faulted = subject.vmo.fault_run(PageIndex(page), PageCount(run), access).await;
        if ended(&subject, "a fault", (page + 1) * PAGE_SIZE, faulted) {
            if access == Access::Write {
                subject.was_modified(resets);
            }
            let guard = subject.vmo.platform().pin();
            if let Some(frame) = subject.vmo.lookup(&guard, PageIndex(page)) {
                // SAFETY: the guard is from before the lookup.
                unsafe { look_at(&subject, page, frame, Some(&sure)) };
            }
        }
    });
}

pub(crate) fn lookup(worker: &mut Worker) {
    let subject = worker.subject();
    let page = any_page(worker, &subject);
    let sure = subject.lanes.sure(page..page + 1);
    let found = if worker.rng.random_bool(0.5) {
        subject.vmo.pin_lookup(PageIndex(page))
    } else {
        let guard = subject.vmo.platform().pin();
        let found = subject.vmo.lookup(&guard, PageIndex(page));
        found.map(|frame| (guard, frame))
    };
    let Some((_guard, frame)) = found else { return };
    // SAFETY: the guard is from before the lookup.
    unsafe { look_at(&subject, page, frame, Some(&sure)) };
    if worker.rng.random_range(0..8) == 0 {
        std::thread::yield_now(); // evicted, replaced, resized meanwhile; and the frame still there
        // SAFETY: the guard lives.
        unsafe { look_at(&subject, page, frame, None) };
    }
}

/// Looks at a frame that a lookup gave.
///
/// # Safety
/// A guard from before the lookup lives.
unsafe fn look_at(subject: &Subject, page: u64, frame: Frame, sure: Option<&[u64]>) {
    let mut bytes = [0; PAGE];
    // SAFETY: the guard keeps the frame allocated, and the copy is a page.
    unsafe { subject.vmo.platform().copy_out(frame, 0, &mut bytes) };
    // Past the end of a VMO that shrinks a lookup may find what is old.
    let sure = sure.filter(|_| !subject.resizable);
    subject.judge_bytes("a lookup", page * PAGE_SIZE, &bytes, sure);
}

/// Zeroes pages, or words.
pub(crate) fn zero(worker: &mut Worker) {
    let subject = worker.subject();
    let first = any_page(worker, &subject) * PAGE_SIZE;
    let pages = worker.rng.random_range(0..=4) * PAGE_SIZE;
    let range = if worker.rng.random_range(0..4) == 0 {
        let words = |worker: &mut Worker| worker.rng.random_range(0..512) * WORD as u64;
        ByteRange::new(first + words(worker), pages + words(worker))
    } else {
        ByteRange::new(first, pages)
    };
    worker.begin(&format!("the zeroing of {range:?}"), &subject.clone(), async move {
        let end = range.offset + range.length;
        let wipe = subject.lanes.wipe(touched(range.offset, range.length));
        let resets = subject.resets();
        let zeroed = subject.vmo.zero(range).await;
        if ended(&subject, "zeroing", end, zeroed) {
            wipe.done(&(range.offset.div_ceil(PAGE_SIZE)..end / PAGE_SIZE));
            if range.length > 0 {
                subject.was_modified(resets);
            }
        }
    });
}

/// Says that pages are wanted, or are not.
pub(crate) fn hint(worker: &mut Worker) {
    const OPS: [VmoOp; 4] = [VmoOp::Commit, VmoOp::Prefetch, VmoOp::AlwaysNeed, VmoOp::DontNeed];
    let subject = worker.subject();
    let op = OPS[worker.rng.random_range(0..OPS.len())];
    let first = any_page(worker, &subject) * PAGE_SIZE;
    let range = ByteRange::new(first, worker.rng.random_range(1..=6 * PAGE_SIZE));
    worker.begin(&format!("{op:?} of {range:?}"), &subject.clone(), async move {
        let hinted = subject.vmo.op_range(op, range).await;
        ended(&subject, "a hint", range.offset + range.length, hinted);
    });
}

pub(crate) fn set_size(worker: &mut Worker) {
    let subject: Arc<Subject> = worker.subject();
    let pages = worker.rng.random_range(0..=subject.most);
    let vmo: &Vmo<Memory> = &subject.vmo;
    if !subject.resizable {
        if vmo.set_size(pages * PAGE_SIZE) != Err(Status::Unavailable) {
            subject.find("a VMO that is not resizable was resized");
        }
        return;
    }
    let wipe = subject.lanes.wipe(pages..subject.most);
    let resets = subject.resets();
    if subject.judge("a change of size", vmo.set_size(pages * PAGE_SIZE), &[Status::ShouldWait]) {
        wipe.done(&(pages..subject.most));
        subject.was_modified(resets);
    }
}
