//! Who keeps the house: evicts, watches the service, queues and cancels; detaches, closes, and
//! replaces what has been closed.

use std::sync::atomic::Ordering::SeqCst;

use rand::RngExt;
use upager::{ByteRange, DirtyRange, Evict, OwnedFrame, PAGE_SIZE, PageCount, Status, VmoStatsOptions, Writeback};

use crate::failure::Failure;
use crate::soak::Soak;
use crate::soak::ledger::USER;
use crate::soak::office::{Manner, Office};
use crate::soak::worker::Worker;

pub(crate) fn evict(worker: &mut Worker) {
    let subject = worker.subject();
    let max = match worker.rng.random_range(0..16) {
        0 => u64::MAX,
        _ => worker.rng.random_range(0..=4),
    };
    let which = if worker.rng.random_bool(0.5) { Evict::Any } else { Evict::Unused };
    let evicted = subject.vmo.evict(PageCount(max), which);
    if evicted.0 > max {
        subject.find(format_args!("{evicted:?} were evicted, and {max} wanted"));
    }
    subject.books.figures.evicted_pages.add(evicted.0);
}

/// Evicts pages of any VMO that the pager has.
pub(crate) fn evict_of_all(worker: &mut Worker) {
    let office = worker.office();
    let max = worker.rng.random_range(0..=8);
    let which = if worker.rng.random_bool(0.5) { Evict::Any } else { Evict::Unused };
    let books = &worker.soak.books;
    let _not_at_an_end = books.strangers.read();
    let evicted = worker.soak.offices[office].pager().pager.evict(PageCount(max), which);
    if evicted.0 > max {
        books.find(format!("{evicted:?} were evicted of all VMOs, and {max} wanted"));
    }
    books.figures.evicted_pages.add(evicted.0);
}

/// Looks at the requests in flight.
pub(crate) fn look(soak: &Soak, office: &Office) {
    soak.books.figures.timed_out.add(office.pager().look(soak.started));
}

pub(crate) fn queue(worker: &mut Worker) {
    let office = worker.office();
    let key = USER | (office as u64) << 8 | worker.rng.random_range(0..4);
    let port = worker.soak.offices[office].port();
    let ledger = &worker.soak.books.ledger;
    let (packet, number) = ledger.user_packet(key, port.closed.clone());
    match port.port.queue(&packet) {
        Ok(()) => {}
        Err(Status::ShouldWait) => ledger.take_back(number),
        Err(status) => worker.soak.books.find(format!("a user packet could not be queued: {status:?}")),
    }
}

/// Cancels user packets, or the requests of a VMO. Of rough offices only.
pub(crate) fn cancel(worker: &mut Worker) {
    let office = worker.office();
    if worker.soak.offices[office].manner != Manner::Rough {
        return;
    }
    let subject = worker.subject();
    let key = if worker.rng.random_bool(0.5) {
        USER | (office as u64) << 8 | worker.rng.random_range(0..4)
    } else if subject.manner == Manner::Rough {
        subject.key
    } else {
        return;
    };
    worker.soak.books.ledger.cancel(key);
    let cancelled = worker.soak.offices[office].port().port.cancel(key);
    if !matches!(cancelled, Ok(()) | Err(Status::NotFound)) {
        worker.soak.books.find(format!("cancel came to {cancelled:?}"));
    }
}

/// Calls that a pager of another office makes: all of them are refused.
pub(crate) fn stranger(worker: &mut Worker) {
    let subject = worker.subject();
    let office = worker.office();
    let stranger = worker.soak.offices[office].pager();
    if subject.pager().is_some_and(|own| std::sync::Arc::ptr_eq(&own, &stranger)) {
        return;
    }
    let (pager, vmo, page) = (&stranger.pager, &subject.vmo, ByteRange::new(0, PAGE_SIZE));
    let frames = OwnedFrame::new(&**vmo.platform()).into_iter().collect::<Vec<_>>();
    let came = [
        pager.supply_frames(vmo, ByteRange::new(0, frames.len() as u64 * PAGE_SIZE), frames),
        pager.fail_range(vmo, page, Status::Io),
        pager.dirty_range(vmo, page),
        pager.writeback_begin(vmo, page, Writeback::All),
        pager.writeback_end(vmo, page),
        pager.query_dirty_ranges(vmo, page, &mut [DirtyRange::default()]).map(drop),
        pager.query_vmo_stats(vmo, VmoStatsOptions::Reset).map(drop),
        pager.detach_vmo(vmo).map(drop),
    ];
    if came != [Err(Status::InvalidArgs); 8] {
        subject.find(format_args!("another pager's calls came to {came:?}"));
    }
}

pub(crate) fn detach(worker: &mut Worker) {
    let subject = worker.subject();
    let Some(pager) = subject.pager() else { return };
    subject.detaching.store(true, SeqCst); // SeqCst: as all flags of the program
    match pager.pager.detach_vmo(&subject.vmo) {
        Ok(_) => subject.detached.store(true, SeqCst),
        Err(status) => subject.find(format_args!("detach failed with {status:?}")),
    }
    let counts = subject.vmo.counts();
    if counts.resident != counts.dirty {
        subject.find(format_args!("clean pages are resident after the detach: {counts:?}"));
    }
}

/// Lets go of a VMO, and creates another in its place.
pub(crate) fn replace(worker: &mut Worker) -> Result<(), Failure> {
    let slot = worker.rng.random_range(0..worker.soak.slots.len());
    let fresh = worker.soak.make(&mut worker.rng)?;
    drop(worker.soak.put(slot, fresh));
    Ok(())
}

pub(crate) fn close_pager(worker: &mut Worker) -> Result<(), Failure> {
    let office = worker.office();
    worker.soak.offices[office].close_pager(&worker.soak.memory)
}

/// Closes a port of a rough office: elsewhere nobody would time the requests out that are left.
pub(crate) fn close_port(worker: &mut Worker) {
    let office = worker.office();
    if worker.soak.offices[office].manner == Manner::Rough {
        worker.soak.offices[office].close_port(&worker.soak.memory);
    }
}
