//! What the threads of a run share: the pager's objects, the stores, the plan, signals and figures.
//!
//! Who uses what: readers and writers access the [`Vmo`]; the service threads wait at the [`Port`] and
//! answer through the [`Pager`]; the writeback thread and the evictor act on both. The copy is written
//! by writeback only, the shadow by writers only.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use upager::{ByteOffset, ByteRange, PageCount, Pager, Port, Status, Vmo, VmoOptions, block_on};
use upager_linux::{LatencyWatch, LinuxPlatform, Mapper, MapperOptions, Mapping, Protection};

use crate::args::Config;
use crate::failure::Failure;
use crate::plan::Plan;
use crate::run::signals::{Signals, Throttle};
use crate::run::tally::Tally;
use crate::run::touch::{self, Refused};
use crate::store::{Overlay, SourceFile};
use crate::watch::figures::{Figures, LatencyFigures, VmoFigures};
use crate::watch::post::Subject;

/// The key of the VMO's packets. There is one VMO, so any number would do.
const KEY: u64 = 1;

pub(crate) struct Engine {
    pub(crate) platform: Arc<LinuxPlatform>,
    pub(crate) pager: Pager<LinuxPlatform>,
    pub(crate) port: Port<LinuxPlatform>,
    pub(crate) vmo: Arc<Vmo<LinuxPlatform>>,
    /// What readers and writers touch. `None`: they call the VMO.
    pub(crate) mapping: Option<Mapping>,
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

/// Why an access was refused.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Status(Status),
    /// By SIGBUS, which does not say why.
    Signal,
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl From<Refused> for Refusal {
    fn from(Refused: Refused) -> Self {
        Self::Signal
    }
}

/// Maps the VMO, with read-ahead that leaves room for the others.
fn map(vmo: &Arc<Vmo<LinuxPlatform>>, config: &Config) -> Result<Mapping, Failure> {
    if cfg!(not(target_arch = "x86_64")) {
        return Err(Failure::Option("without --api it needs an x86-64 processor".into()));
    }
    let options = MapperOptions::default();
    let most = (config.resident_pages / 32).clamp(1, options.read_ahead.0);
    let mapper = Mapper::with(options.read_ahead(PageCount(most)))?;
    Ok(mapper.map(vmo, ByteRange::new(0, vmo.size()), Protection::ReadWrite)?)
}

impl Subject for Engine {
    type Watch = Option<LatencyWatch>;

    fn watch(&self) -> Self::Watch {
        self.mapping.as_ref().map(|mapping| mapping.mapper().watch_latencies())
    }

    fn figures(&self, watch: &Self::Watch) -> Figures {
        let tally = &self.tally;
        let mut totals: BTreeMap<String, u64> = [
            ("reads", &tally.reads),
            ("writes", &tally.writes),
            ("pages_supplied", &tally.supplied_pages),
            ("pages_evicted", &tally.evicted_pages),
            ("pages_written_back", &tally.written_back_pages),
        ]
        .map(|(name, total)| (name.to_owned(), total.get()))
        .into();
        if let Some(mapping) = &self.mapping {
            totals.insert("faults".into(), mapping.mapper().counts().faults);
        }
        Figures {
            command: "run".into(),
            source: self.file.path().display().to_string(),
            totals,
            levels: [("detached".to_owned(), self.signals.detached.is_up().into())].into(),
            vmos: vec![VmoFigures::new(KEY, self.vmo.size(), &self.vmo.counts())],
            latencies: watch.iter().flat_map(LatencyWatch::read).map(|of| LatencyFigures::from(&of)).collect(),
            ..Figures::default()
        }
    }
}

impl Engine {
    pub(crate) fn new(config: &Config) -> Result<Self, Failure> {
        let file = config.file.clone();
        let platform = Arc::new(LinuxPlatform::new().with_limit(PageCount(config.frame_limit())));
        let pager = Pager::new(platform.clone());
        let port = Port::new(platform.clone());
        let vmo =
            pager.create_vmo(&port, KEY, VmoOptions::NONE, file.size()).map_err(Failure::pager("creating the VMO"))?;
        let vmo = Arc::new(vmo);
        let mapping = if config.api { None } else { Some(map(&vmo, config)?) };
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
            mapping,
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
        let read = match &self.mapping {
            Some(mapping) => touch::load(mapping, offset, to).map_err(Refusal::from),
            None => block_on(self.vmo.read(ByteOffset(offset), to)).map_err(Refusal::from),
        };
        self.tally.reads.add(1);
        self.judge(read, before, "a read of the VMO")
    }

    /// Writes whole words within one page. Returns also how many of its bytes were written: all or none by a call; but
    /// stores that the detach interrupts may be some.
    pub(crate) fn write(&self, offset: u64, from: &[u8]) -> Result<(Access, usize), Failure> {
        let before = self.signals.detaching.is_up();
        let (bytes, written) = if let Some(mapping) = &self.mapping {
            let (bytes, stored) = touch::store(mapping, offset, from);
            (bytes, stored.map_err(Refusal::from))
        } else {
            let written = block_on(self.vmo.write(ByteOffset(offset), from)).map_err(Refusal::from);
            (if written.is_ok() { from.len() } else { 0 }, written)
        };
        self.tally.writes.add(1);
        Ok((self.judge(written, before, "a write to the VMO")?, bytes))
    }

    /// Tells the failures that must be from those that must not. `detaching`: whether the detach was
    /// about to come when the access began.
    fn judge(&self, result: Result<(), Refusal>, detaching: bool, doing: &'static str) -> Result<Access, Failure> {
        match result {
            Ok(()) => {
                self.tally.served_after_detach.add(self.signals.detached.is_up().into());
                Ok(Access::Done)
            }
            Err(Refusal::Status(Status::BadState) | Refusal::Signal) if self.signals.detaching.is_up() => {
                let figure = if detaching { &self.tally.refused_after_detach } else { &self.tally.failed_at_detach };
                figure.add(1);
                Ok(Access::Refused)
            }
            // The service fails a request only after it has noted why.
            Err(Refusal::Status(Status::Io) | Refusal::Signal) if self.has_failed() => Ok(Access::Stop),
            Err(Refusal::Status(status)) => Err(Failure::Pager { doing, status }),
            Err(Refusal::Signal) => Err(Failure::Signal { doing }),
        }
    }
}
