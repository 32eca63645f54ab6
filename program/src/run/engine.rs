//! What the threads of a run share: the pager's objects, the stores, the plan, signals and figures.
//!
//! Who uses what: readers and writers access the [`Vmo`]; the service threads wait at the [`Port`] and
//! answer through the [`Pager`]; the writeback thread and the evictor act on both. The copy is written
//! by writeback only, the shadow by writers only.

use std::sync::{Arc, OnceLock};

use upager::{ByteOffset, HeapPlatform, PageCount, Pager, Port, Status, Vmo, VmoOptions, block_on};

use crate::args::Config;
use crate::failure::Failure;
use crate::plan::Plan;
use crate::run::signals::{Signals, Throttle};
use crate::run::tally::Tally;
use crate::store::{Overlay, SourceFile};

/// The key of the VMO's packets. There is one VMO, so any number would do.
const KEY: u64 = 1;

pub(crate) struct Engine {
    pub(crate) platform: Arc<HeapPlatform>,
    pub(crate) pager: Pager<HeapPlatform>,
    pub(crate) port: Port<HeapPlatform>,
    pub(crate) vmo: Vmo<HeapPlatform>,
    pub(crate) file: Arc<SourceFile>,
    /// FILE as the service knows it: with what was written back.
    pub(crate) copy: Overlay,
    /// FILE as the writers know it: with what they wrote.
    pub(crate) shadow: Overlay,
    pub(crate) plan: Plan,
    /// Frames that may be in use before the evictor starts.
    pub(crate) resident_pages: u64,
    pub(crate) signals: Signals,
    pub(crate) throttle: Throttle,
    pub(crate) tally: Tally,
    pub(crate) failure: OnceLock<Failure>,
}

/// How an access to the VMO ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Done,
    /// It needed the pager, from which the VMO is detached.
    Refused,
    /// The run is over before its time.
    Stop,
}

impl Engine {
    pub(crate) fn new(config: &Config) -> Result<Self, Failure> {
        let file = config.file.clone();
        let platform = Arc::new(HeapPlatform::new().with_limit(PageCount(config.frame_limit())));
        let pager = Pager::new(platform.clone());
        let port = Port::new(platform.clone());
        let vmo =
            pager.create_vmo(&port, KEY, VmoOptions::NONE, file.size()).map_err(Failure::pager("creating the VMO"))?;
        Ok(Self {
            copy: Overlay::new(file.clone())?,
            shadow: Overlay::new(file.clone())?,
            plan: Plan::new(file.size(), config.writers, config.seed),
            resident_pages: config.resident_pages,
            signals: Signals::default(),
            // A quarter: the rest is for what readers look at.
            throttle: Throttle::new((config.resident_pages / 4).max(1)),
            tally: Tally::default(),
            failure: OnceLock::new(),
            platform,
            pager,
            port,
            vmo,
            file,
        })
    }

    /// Ends the run before its time. The first failure is the one that is told.
    pub(crate) fn fail(&self, failure: Failure) {
        let _ = self.failure.set(failure);
        self.signals.workers_stop.raise();
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failure.get().is_some()
    }

    pub(crate) fn read(&self, offset: u64, to: &mut [u8]) -> Result<Access, Failure> {
        let before = self.signals.detaching.is_up();
        let read = block_on(self.vmo.read(ByteOffset(offset), to));
        self.tally.reads.add(1);
        self.judge(read, before, "a read of the VMO")
    }

    pub(crate) fn write(&self, offset: u64, from: &[u8]) -> Result<Access, Failure> {
        let before = self.signals.detaching.is_up();
        let written = block_on(self.vmo.write(ByteOffset(offset), from));
        self.tally.writes.add(1);
        self.judge(written, before, "a write to the VMO")
    }

    /// Tells the failures that must be from those that must not. `detaching`: whether the detach was
    /// about to come when the access began.
    fn judge(&self, result: upager::Result<()>, detaching: bool, doing: &'static str) -> Result<Access, Failure> {
        match result {
            Ok(()) => {
                self.tally.served_after_detach.add(self.signals.detached.is_up().into());
                Ok(Access::Done)
            }
            Err(Status::BadState) if self.signals.detaching.is_up() => {
                let figure = if detaching { &self.tally.refused_after_detach } else { &self.tally.failed_at_detach };
                figure.add(1);
                Ok(Access::Refused)
            }
            // The service fails a request only after it has noted why.
            Err(Status::Io) if self.has_failed() => Ok(Access::Stop),
            Err(status) => Err(Failure::Pager { doing, status }),
        }
    }
}
