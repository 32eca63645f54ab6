//! The service: answers packets, supplies, gives leave, writes back.
//!
//! What it owes to the content is in [`store`](crate::soak::store); what it owes to the waiters, in
//! [`Manner`]. A range that a shrink has cut is answered as far as the VMO goes.

use std::future::poll_fn;
use std::ops::{Deref, Range};
use std::pin::pin;
use std::sync::Arc;

use rand::RngExt;
use rand::rngs::SmallRng;
use upager::{
    AnonymousVmo, ByteOffset, ByteRange, Command, DirtyRange, OwnedFrame, PAGE_SIZE, Packet, PageCount, PagerOp,
    Status, VmoStatsOptions, Writeback, block_on_until,
};

use crate::soak::Soak;
use crate::soak::memory::dawdle;
use crate::soak::office::{Manner, Office, OpenPager, OpenPort};
use crate::soak::subject::Subject;
use crate::soak::users::REASONS;
use crate::soak::worker::{PATIENCE, Worker, soon};
use crate::store::PAGE;

/// Packets taken by one call.
const PACKETS: usize = 4;
/// Pages supplied, or written back, by one call.
const BATCH: u64 = 16;

fn range(pages: &Range<u64>) -> ByteRange {
    ByteRange::new(pages.start * PAGE_SIZE, (pages.end - pages.start) * PAGE_SIZE)
}

/// Takes what is there, and answers it.
pub(crate) fn serve(rng: &mut SmallRng, soak: &Soak, office: &Office) {
    let mut packets = [Packet::default(); PACKETS];
    let port = office.port();
    let since = soak.books.ledger.now();
    let size = rng.random_range(1..=PACKETS);
    let taken = port.port.take(&mut packets[..size]);
    answer(rng, soak, &packets[..taken], since);
}

/// The same, and blocks for a moment if there is nothing.
pub(crate) fn serve_until(rng: &mut SmallRng, soak: &Soak, office: &Office) {
    let mut packets = [Packet::default(); PACKETS];
    let port = office.port();
    let since = soak.books.ledger.now();
    if let Ok(taken) = port.port.wait_until(Some(soon(rng)), &mut packets) {
        answer(rng, soak, &packets[..taken], since);
    }
}

/// The same, when it has been woken.
pub(crate) async fn serve_when_woken(rng: &mut SmallRng, soak: &Soak, port: &OpenPort) {
    let mut packets = [Packet::default(); PACKETS];
    let mut since = 0;
    let taken = {
        let mut wait = pin!(port.port.wait(&mut packets));
        poll_fn(|cx| {
            since = soak.books.ledger.now();
            wait.as_mut().poll(cx)
        })
        .await
    };
    answer(rng, soak, &packets[..taken], since);
}

/// Notes packets that a call brought which began at `since`, and answers them.
pub(crate) fn answer(rng: &mut SmallRng, soak: &Soak, packets: &[Packet], since: u64) {
    for wrong in soak.books.ledger.note(packets, since) {
        soak.books.find(wrong);
    }
    for packet in packets {
        let Some(command) = packet.command() else {
            soak.books.figures.user_packets.add(1);
            continue;
        };
        soak.books.figures.packets.add(1);
        // `None`: it has ended, and nobody waits. Its pager is closed: the waiters have failed.
        let Some(subject) = soak.find_subject(packet.key) else { continue };
        let Some(open) = subject.pager() else { continue };
        let ignores = subject.manner == Manner::Rough && rng.random_range(0..16) == 0 && !soak.is_over();
        if command == Command::Complete || ignores {
            continue;
        }
        let asked = packet.range();
        let pages = asked.offset / PAGE_SIZE..(asked.offset + asked.length) / PAGE_SIZE;
        if rng.random_range(0..32) == 0 {
            fail_pages(rng, &subject, &open, pages);
        } else if command == Command::Read {
            answer_read(rng, &subject, &open, pages);
        } else {
            answer_dirty(rng, &subject, &open, pages);
        }
    }
}

/// Calls `call` for the pages that the VMO has, again if it shrank meanwhile.
fn clipped(
    subject: &Subject,
    pages: &Range<u64>,
    mut call: impl FnMut(ByteRange) -> Result<(), Status>,
) -> Result<(), Status> {
    loop {
        let end = pages.end.min(subject.pages());
        if pages.start >= end {
            return Ok(());
        }
        match call(range(&(pages.start..end))) {
            Err(Status::OutOfRange) if subject.resizable => {}
            came => return came,
        }
    }
}

fn fail_pages(rng: &mut SmallRng, subject: &Subject, open: &OpenPager, pages: Range<u64>) {
    let reason = REASONS[rng.random_range(0..REASONS.len())];
    let failed = clipped(subject, &pages, |range| open.pager.fail_range(&subject.vmo, range, reason));
    subject.judge("a failure", failed, &[]);
}

fn answer_read(rng: &mut SmallRng, subject: &Subject, open: &OpenPager, pages: Range<u64>) {
    // Now and then more than was asked for.
    let end = if rng.random_range(0..16) == 0 { (pages.end + 3).min(subject.most) } else { pages.end };
    let mut from = pages.start;
    while from < end {
        let to = (from + rng.random_range(1..=BATCH)).min(end);
        let part = from..to;
        let mut supplied = supply(subject, open, &part);
        if supplied == Err(Status::NoMemory) && rng.random_bool(0.5) {
            supplied = supply(subject, open, &part);
        }
        if supplied == Err(Status::NoMemory) {
            fail_pages(rng, subject, open, from..end);
            return;
        }
        if !subject.judge("a supply", supplied, &[]) {
            return;
        }
        from = to;
    }
}

/// Supplies what the store holds.
fn supply(subject: &Subject, open: &OpenPager, pages: &Range<u64>) -> Result<(), Status> {
    let stored = subject.store.read(pages.clone());
    let platform = subject.vmo.platform();
    clipped(subject, pages, |range| {
        if pages.start.is_multiple_of(2) {
            return supply_by_moving(subject, open, range, &stored);
        }
        let mut frames = Vec::new();
        for bytes in &stored[..(range.length / PAGE_SIZE) as usize] {
            let frame = OwnedFrame::new(&**platform)?;
            frame.write(0, &bytes[..])?;
            frames.push(frame);
        }
        let supplied = open.pager.supply_frames(&subject.vmo, range, frames.into_iter().inspect(|_| dawdle(4)));
        if supplied.is_ok() {
            subject.books.figures.supplied_pages.add(range.length / PAGE_SIZE);
        }
        supplied
    })
}

/// Supplies through an anonymous VMO.
fn supply_by_moving(
    subject: &Subject,
    open: &OpenPager,
    range: ByteRange,
    stored: &[impl Deref<Target = Box<[u8; PAGE]>>],
) -> Result<(), Status> {
    let aux = AnonymousVmo::new(subject.vmo.platform().clone(), range.length)?;
    for (page, bytes) in stored[..(range.length / PAGE_SIZE) as usize].iter().enumerate() {
        // A page of zeros need not be there.
        if ***bytes != [0; PAGE] {
            aux.write(ByteOffset(page as u64 * PAGE_SIZE), &bytes[..])?;
        }
    }
    let supplied = open.pager.supply_pages(&subject.vmo, range, &aux, ByteOffset(0));
    if supplied.is_ok() {
        subject.books.figures.supplied_pages.add(range.length / PAGE_SIZE);
        if aux.committed() != PageCount(0) {
            subject.find("a supply left pages in its aux");
        }
    }
    supplied
}

fn answer_dirty(rng: &mut SmallRng, subject: &Subject, open: &OpenPager, pages: Range<u64>) {
    let answered = clipped(subject, &pages, |range| open.pager.dirty_range(&subject.vmo, range));
    if answered == Err(Status::NoMemory) {
        fail_pages(rng, subject, open, pages);
        return;
    }
    // A page has gone: the waiters look again.
    subject.judge("leave", answered, &[Status::NotFound]);
}

/// Some pages of a VMO whose pager is open.
fn some_pages(worker: &mut Worker, most: u64) -> Option<(Arc<Subject>, Arc<OpenPager>, Range<u64>)> {
    let subject = worker.subject();
    let open = subject.pager()?;
    let pages = subject.pages();
    if pages == 0 {
        return None;
    }
    let first = worker.page_below(pages);
    let count = worker.rng.random_range(1..=most.min(pages - first));
    Some((subject, open, first..first + count))
}

/// Pages that perhaps nobody asked for. Not where the service sleeps: it would hide a packet that is lost.
pub(crate) fn supply_unasked(worker: &mut Worker) {
    let Some((subject, open, pages)) = some_pages(worker, 4) else { return };
    if subject.manner == Manner::Asleep {
        return;
    }
    subject.judge("a supply", supply(&subject, &open, &pages), &[]);
}

/// A failure of what perhaps nobody asked for. Not where the service sleeps, as above.
pub(crate) fn fail(worker: &mut Worker) {
    let Some((subject, open, pages)) = some_pages(worker, 8) else { return };
    if subject.manner == Manner::Asleep {
        return;
    }
    fail_pages(&mut worker.rng, &subject, &open, pages);
}

pub(crate) fn dirty(worker: &mut Worker) {
    let Some((subject, open, pages)) = some_pages(worker, 8) else { return };
    let came = open.pager.op_range(&subject.vmo, PagerOp::Dirty, range(&pages));
    if subject.traps {
        subject.judge("leave", came, &[Status::NotFound]);
    } else if came != Err(Status::NotSupported) {
        subject.find(format_args!("leave, which it does not trap: {came:?}"));
    }
}

pub(crate) fn write_back(worker: &mut Worker) {
    let Some((subject, open, pages)) = some_pages(worker, BATCH) else { return };
    clean(&subject, &open, &pages, Writeback::All);
}

pub(crate) fn write_back_zeros(worker: &mut Worker) {
    let Some((subject, open, pages)) = some_pages(worker, 4 * BATCH) else { return };
    clean(&subject, &open, &pages, Writeback::ZeroRanges);
}

/// Begins, and leaves it at that: another one ends it.
pub(crate) fn begin_only(worker: &mut Worker) {
    let Some((subject, open, pages)) = some_pages(worker, BATCH) else { return };
    let _locked = subject.store.write(pages.clone());
    let begun = open.pager.writeback_begin(&subject.vmo, range(&pages), Writeback::All);
    subject.judge("the begin of a writeback", begun, &[]);
}

/// Writes pages back: BEGIN, read, keep, END, and END of nothing else than was kept.
fn clean(subject: &Subject, open: &OpenPager, pages: &Range<u64>, which: Writeback) {
    let mut stored = subject.store.write(pages.clone());
    if !subject.judge("the begin of a writeback", open.pager.writeback_begin(&subject.vmo, range(pages), which), &[]) {
        return;
    }
    let mut runs = vec![DirtyRange::default(); (pages.end - pages.start) as usize];
    let found = match open.pager.query_dirty_ranges(&subject.vmo, range(pages), &mut runs) {
        Ok(found) => &runs[..found.actual],
        Err(status) => {
            subject.judge("a query of dirty ranges", Err(status), &[]);
            return;
        }
    };
    for run in found {
        if which == Writeback::ZeroRanges && run.options != DirtyRange::ZERO {
            continue;
        }
        let mut kept = true;
        for page in run.offset / PAGE_SIZE..(run.offset + run.length) / PAGE_SIZE {
            let place = &mut stored[(page - pages.start) as usize];
            if run.options == DirtyRange::ZERO {
                place.fill(0);
            } else {
                kept &= keep(subject, page, place);
            }
        }
        if kept {
            let ended = open.pager.writeback_end(&subject.vmo, run.range());
            subject.judge("the end of a writeback", ended, &[]);
            subject.books.figures.written_back_pages.add(run.length / PAGE_SIZE);
        }
    }
}

/// Reads a page that is dirty, or has been replaced by zeros, or is past the end by now. False: it could
/// not be read.
fn keep(subject: &Subject, page: u64, place: &mut [u8; PAGE]) -> bool {
    let mut bytes = [0; PAGE];
    let sure = subject.lanes.sure(page..page + 1);
    let deadline = std::time::Instant::now() + PATIENCE;
    match block_on_until(subject.vmo.read(ByteOffset(page * PAGE_SIZE), &mut bytes), Some(deadline)) {
        Some(Ok(())) => {
            subject.judge_bytes("a writeback", page * PAGE_SIZE, &bytes, Some(&sure));
            *place = bytes;
            return true;
        }
        Some(Err(Status::OutOfRange)) if subject.resizable => {}
        Some(Err(status)) => subject.find(format_args!("dirty page {page} could not be read: {status:?}")),
        None => subject.find(format_args!("the read of dirty page {page} hangs")),
    }
    false
}

pub(crate) fn query(worker: &mut Worker) {
    let subject = worker.subject();
    if let Some(pager) = subject.pager() {
        subject.dirty_runs(&pager);
    }
}

pub(crate) fn statistics(worker: &mut Worker) {
    let subject = worker.subject();
    let options = if worker.rng.random_bool(0.5) { VmoStatsOptions::Reset } else { VmoStatsOptions::Keep };
    if let Some(pager) = subject.pager() {
        subject.statistics(&pager, options);
    }
}
