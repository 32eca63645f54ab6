//! What the threads do.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker};
use std::{future::Future, hint, pin::Pin};

use clap::ValueEnum;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;
use upager::{
    Access, ByteRange, Frame, Guard, OwnedFrame, PAGE_SIZE, Packet, PageIndex, Pager, Platform, Port, Result, Status,
    Vmo, VmoOptions, Writeback,
};

use crate::failure::Failure;

/// One kind of operation, by all threads at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Load {
    /// Look up random pages of one VMO, 64 in a pin
    Lookup,
    /// Look up random pages of one VMO, each with a pin of its own
    LookupOwnPin,
    /// Write to random pages of one VMO that are dirty already
    Write,
    /// Make 64 pages dirty, and begin and end their writeback: each thread in a part of one VMO
    Writeback,
    /// A missing page, its packet and its answer: each thread with a VMO and a port of its own
    FaultOwnVmo,
    /// The same, each thread at a page of its own in one VMO, all serving its port
    FaultOneVmo,
}

/// Operations between two looks at whether the time is over.
const TURN: usize = 64;

impl Load {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lookup => "lookup",
            Self::LookupOwnPin => "lookup-own-pin",
            Self::Write => "write",
            Self::Writeback => "writeback",
            Self::FaultOwnVmo => "fault-own-vmo",
            Self::FaultOneVmo => "fault-one-vmo",
        }
    }
}

/// Frames that are numbers, with no memory behind them: only the pager is measured.
#[derive(Debug, Default)]
struct Numbers(AtomicU64);

impl Platform for Numbers {
    fn pin(&self) -> Guard {
        crossbeam_epoch::pin()
    }

    fn allocate(&self) -> Result<Frame> {
        Frame::new(self.0.fetch_add(1, Relaxed)).ok_or(Status::NoMemory) // Relaxed: only unique
    }

    unsafe fn free(&self, _frame: Frame) {}

    unsafe fn copy_out(&self, _frame: Frame, _offset: usize, _to: &mut [u8]) {}

    unsafe fn copy_in(&self, _frame: Frame, _offset: usize, _from: &[u8]) {}
}

/// A pager, a port and a VMO.
struct Set {
    pager: Pager<Numbers>,
    port: Port<Numbers>,
    vmo: Vmo<Numbers>,
}

impl Set {
    fn absent(count: u64) -> std::result::Result<Self, Failure> {
        let platform = Arc::<Numbers>::default();
        let (pager, port) = (Pager::new(platform.clone()), Port::new(platform));
        match pager.create_vmo(&port, 0, VmoOptions::NONE, count * PAGE_SIZE) {
            Ok(vmo) => Ok(Self { pager, port, vmo }),
            Err(status) => Err(Failure::pager("creating a VMO")(status)),
        }
    }

    fn resident(pages: u64) -> std::result::Result<Self, Failure> {
        let set = Self::absent(pages)?;
        let supply = |first: u64, count: u64| {
            let frames = (0..count).map(|_| OwnedFrame::new(&**set.vmo.platform())).collect::<Result<Vec<_>>>()?;
            set.pager.supply_frames(&set.vmo, ByteRange::new(first * PAGE_SIZE, count * PAGE_SIZE), frames)
        };
        for first in (0..pages).step_by(TURN) {
            supply(first, (pages - first).min(TURN as u64)).map_err(Failure::pager("supplying the pages"))?;
        }
        Ok(set)
    }

    /// A write to a page that is there.
    fn write(&self, page: u64) {
        let mut fault = self.vmo.fault(PageIndex(page), Access::Write);
        let ready = Pin::new(&mut fault).poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(ready, Poll::Ready(Ok(()))), "the page is resident");
    }

    /// A fault at a page that is not there, which is answered with an error, so that it is missing again. Its
    /// packet may be taken by another thread that does the same, and the other's by this one.
    fn miss(&self, page: u64) {
        let mut task = Context::from_waker(Waker::noop());
        let mut fault = self.vmo.fault(PageIndex(page), Access::Read);
        while Pin::new(&mut fault).poll(&mut task).is_pending() {
            let mut packets = [Packet::default()];
            if self.port.take(&mut packets) == 1 {
                let failed = self.pager.fail_range(&self.vmo, packets[0].range(), Status::Io);
                assert_eq!(failed, Ok(()), "the VMO is attached");
            } else {
                hint::spin_loop(); // another thread has it
            }
        }
    }
}

/// What the threads work on, made once.
pub(crate) struct Stage {
    clean: Set,
    dirty: Set,
    missing: Set,
    /// Of which each thread has a part, [`Self::PART`] pages long.
    parts: Set,
    pages: u64,
}

impl Stage {
    /// A leaf of the table, so that no two threads count in the same line.
    const PART: u64 = 512;

    /// Errors: no memory.
    pub(crate) fn new(pages: u64, threads: u16) -> std::result::Result<Self, Failure> {
        let threads = u64::from(threads);
        let stage = Self {
            clean: Set::resident(pages)?,
            dirty: Set::resident(pages)?,
            missing: Set::absent(threads * Self::PART)?,
            parts: Set::resident(threads * Self::PART)?,
            pages,
        };
        (0..pages).for_each(|page| stage.dirty.write(page));
        Ok(stage)
    }
}

/// One thread's work.
pub(crate) struct Worker<'s> {
    stage: &'s Stage,
    load: Load,
    rng: SmallRng,
    own: Set,
    /// Where its part begins.
    page: u64,
}

impl<'s> Worker<'s> {
    pub(crate) fn new(stage: &'s Stage, load: Load, nth: u16) -> std::result::Result<Self, Failure> {
        let page = u64::from(nth) * Stage::PART;
        Ok(Self { stage, load, rng: SmallRng::seed_from_u64(nth.into()), own: Set::absent(1)?, page })
    }

    /// Does some operations, and says how many.
    pub(crate) fn turn(&mut self) -> u64 {
        let Self { stage, rng, page, .. } = self;
        match self.load {
            Load::Lookup => {
                let vmo = &stage.clean.vmo;
                let guard = vmo.platform().pin();
                for _ in 0..TURN {
                    let page = PageIndex(rng.random_range(0..stage.pages));
                    assert!(hint::black_box(vmo.lookup(&guard, page)).is_some(), "the page is resident");
                }
            }
            Load::LookupOwnPin => {
                for _ in 0..TURN {
                    let page = PageIndex(rng.random_range(0..stage.pages));
                    assert!(hint::black_box(stage.clean.vmo.pin_lookup(page)).is_some(), "the page is resident");
                }
            }
            Load::Write => (0..TURN).for_each(|_| stage.dirty.write(rng.random_range(0..stage.pages))),
            Load::Writeback => {
                let Set { pager, vmo, .. } = &stage.parts;
                (*page..*page + TURN as u64).for_each(|page| stage.parts.write(page));
                let range = ByteRange::new(*page * PAGE_SIZE, TURN as u64 * PAGE_SIZE);
                let begun = pager.writeback_begin(vmo, range, Writeback::All);
                let ended = begun.and_then(|()| pager.writeback_end(vmo, range));
                assert_eq!(ended, Ok(()), "the pages are dirty, and the VMO is attached");
            }
            Load::FaultOwnVmo => (0..TURN).for_each(|_| self.own.miss(0)),
            Load::FaultOneVmo => (0..TURN).for_each(|_| stage.missing.miss(*page)),
        }
        TURN as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_load_does_what_it_says() {
        let stage = Stage::new(128, 2).expect("memory");
        for load in Load::value_variants() {
            let mut worker = Worker::new(&stage, *load, 1).expect("memory");
            assert_eq!(worker.turn(), TURN as u64, "{load:?}");
            assert_eq!(worker.turn(), TURN as u64, "{load:?}, again");
            assert_eq!(load.to_possible_value().expect("not hidden").get_name(), load.name());
        }
        assert_eq!(stage.dirty.vmo.counts().dirty.0, 128);
        assert_eq!(stage.parts.vmo.counts().dirty.0, 0, "what was begun was ended");
        assert_eq!(stage.missing.vmo.counts().requests, 2 * TURN as u64);
    }
}
