//! Faults on purpose, for tests: latency, errors, half-done work, silence, flipped bits.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_io::Timer;
use event_listener::Event;
use upager::{ByteRange, PageCount, PageIndex};

use super::{Capabilities, ErrorKind, Operation, PageBuf, PageSource, SourceError, SourceFuture, Span};

/// What shall go wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Nothing is done, and the call fails.
    Error(ErrorKind),
    /// A short transfer: the first half of the pages is done, rounded down, and the call fails.
    Half(ErrorKind),
    /// All is done, and the call fails: the answer was lost.
    Unheard(ErrorKind),
    /// The call waits until [`Injector::release`], and goes on then.
    Stall,
    /// It takes so much longer.
    Delay(Duration),
    /// One bit of what was read is not what was stored. On a write or sync: nothing.
    Flip,
}

/// When it shall go wrong: where all of the fields fit.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Rule {
    /// What goes wrong.
    pub fault: Fault,
    /// In this operation only; `None`: in any.
    pub operation: Option<Operation>,
    /// Only where pages of this range are read or written; `None`: anywhere, sync too.
    pub range: Option<ByteRange>,
    /// How often of the times that the rest fits: 0 never, 1 always.
    pub probability: f64,
    /// So many times, then never again; `None`: for ever.
    pub times: Option<u64>,
}

impl Rule {
    /// The fault, always and everywhere; to be narrowed by struct update.
    #[must_use]
    pub const fn always(fault: Fault) -> Self {
        Self { fault, operation: None, range: None, probability: 1.0, times: None }
    }

    fn fits(&self, operation: Operation, range: Option<ByteRange>) -> bool {
        let touches = |rule: ByteRange| {
            range.is_some_and(|range| {
                range.offset < rule.offset.saturating_add(rule.length)
                    && rule.offset < range.offset.saturating_add(range.length)
            })
        };
        self.times != Some(0) && self.operation.is_none_or(|only| only == operation) && self.range.is_none_or(touches)
    }
}

/// Another source, with faults: by a script, then by rules, the first that fits; each call takes one fault at most. All calls
/// also take the latency. What is drawn at random comes from the seed, in the order in which the calls begin.
///
/// ```
/// use std::time::Duration;
/// use upager::{ByteRange, PageCount, PageIndex, Status, block_on};
/// use upager_linux::source::{ErrorKind, Fault, Injector, PageBuf, PageSource, Rule, Zero};
/// let source = Injector::new(Zero::new(1 << 20), 42).with_latency(Duration::from_micros(50), Duration::from_micros(10));
/// source.add(Rule { range: Some(ByteRange::new(4096, 4096)), ..Rule::always(Fault::Error(ErrorKind::Corrupt)) });
/// let read = |page| block_on(source.read_pages(PageIndex(page), PageBuf::new(PageCount(1))));
/// assert!(read(0).is_ok());
/// assert_eq!(read(1).unwrap_err().status(), Status::IoDataIntegrity);
/// assert_eq!(source.faults(), 1);
/// ```
#[derive(Debug)]
pub struct Injector<S> {
    inner: S,
    latency: Duration,
    jitter: Duration,
    plan: Mutex<Plan>,
    released: Event,
    calls: AtomicU64,
    faults: AtomicU64,
}

#[derive(Debug)]
struct Plan {
    random: fastrand::Rng,
    script: VecDeque<Option<Fault>>,
    rules: Vec<Rule>,
}

/// What was drawn for one call.
struct Fate {
    latency: Duration,
    fault: Option<Fault>,
    /// Which bit, if one is flipped.
    bit: u64,
}

impl<S: PageSource> Injector<S> {
    /// Lays nothing over a source yet.
    #[must_use]
    pub fn new(inner: S, seed: u64) -> Self {
        let plan = Plan { random: fastrand::Rng::with_seed(seed), script: VecDeque::new(), rules: Vec::new() };
        Self {
            inner,
            latency: Duration::ZERO,
            jitter: Duration::ZERO,
            plan: Mutex::new(plan),
            released: Event::new(),
            calls: AtomicU64::new(0),
            faults: AtomicU64::new(0),
        }
    }

    /// Every call takes `latency` longer, and up to `jitter` more.
    #[must_use]
    pub fn with_latency(self, latency: Duration, jitter: Duration) -> Self {
        Self { latency, jitter, ..self }
    }

    /// Appends to the script: what happens to the next calls, in the order in which they begin. A call that takes `None` from it succeeds, whatever the rules.
    pub fn script(&self, faults: impl IntoIterator<Item = Option<Fault>>) {
        self.plan().script.extend(faults);
    }

    /// Adds a rule after those that are there.
    pub fn add(&self, rule: Rule) {
        self.plan().rules.push(rule);
    }

    /// Drops the script and the rules. Calls that are stalled stay so.
    pub fn clear(&self) {
        let mut plan = self.plan();
        plan.script.clear();
        plan.rules.clear();
    }

    /// Lets all calls that are stalled now go on.
    pub fn release(&self) {
        self.released.notify(usize::MAX);
    }

    /// Calls that were begun.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed) // a figure, about nothing but itself
    }

    /// Calls that took a fault.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed) // a figure
    }

    /// The source beneath.
    #[must_use]
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn draw(&self, operation: Operation, range: Option<ByteRange>) -> Fate {
        let mut plan = self.plan();
        let Plan { random, script, rules } = &mut *plan;
        let fault = script.pop_front().unwrap_or_else(|| {
            let rule = rules.iter_mut().find(|rule| rule.fits(operation, range) && random.f64() < rule.probability)?;
            rule.times = rule.times.map(|left| left - 1);
            Some(rule.fault)
        });
        let fate = Fate { latency: self.latency + self.jitter.mul_f64(random.f64()), fault, bit: random.u64(..) };
        drop(plan);
        self.calls.fetch_add(1, Ordering::Relaxed); // a figure
        self.faults.fetch_add(u64::from(fault.is_some()), Ordering::Relaxed); // a figure
        fate
    }

    /// Everything that happens before the call goes on to the source beneath.
    async fn before(&self, operation: Operation, range: Option<ByteRange>) -> Result<Fate, SourceError> {
        let fate = self.draw(operation, range);
        let stalled = (fate.fault == Some(Fault::Stall)).then(|| self.released.listen());
        if !fate.latency.is_zero() {
            Timer::after(fate.latency).await;
        }
        if let Some(released) = stalled {
            released.await;
        }
        match fate.fault {
            Some(Fault::Delay(longer)) => {
                Timer::after(longer).await;
            }
            Some(Fault::Error(kind)) => return Err(injected(kind, operation, range)),
            _ => {}
        }
        Ok(fate)
    }
}

fn injected(kind: ErrorKind, operation: Operation, range: Option<ByteRange>) -> SourceError {
    SourceError::new(kind, operation, range).because("injected")
}

impl<S: PageSource> PageSource for Injector<S> {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn read_pages(&self, first: PageIndex, mut into: PageBuf) -> SourceFuture<'_, PageBuf> {
        Box::pin(async move {
            let range = Some(ByteRange::new(first.offset().0, into.len() as u64));
            let fate = self.before(Operation::Read, range).await?;
            if let Some(Fault::Half(kind)) = fate.fault {
                into.resize(PageCount(into.pages().0 / 2));
                self.inner.read_pages(first, into).await?;
                return Err(injected(kind, Operation::Read, range));
            }
            let mut buffer = self.inner.read_pages(first, into).await?;
            match fate.fault {
                Some(Fault::Unheard(kind)) => return Err(injected(kind, Operation::Read, range)),
                Some(Fault::Flip) if !buffer.is_empty() => {
                    let bit = fate.bit % (buffer.len() as u64 * 8);
                    buffer[(bit / 8) as usize] ^= 1 << (bit % 8);
                }
                _ => {}
            }
            Ok(buffer)
        })
    }

    fn write_pages(&self, first: PageIndex, from: Arc<PageBuf>) -> SourceFuture<'_, ()> {
        Box::pin(async move {
            let range = Some(ByteRange::new(first.offset().0, from.len() as u64));
            let fate = self.before(Operation::Write, range).await?;
            if let Some(Fault::Half(kind)) = fate.fault {
                Span::of_write(self.inner.len(), first, &from)?; // what would write nothing writes no half of it
                let mut half = PageBuf::new(PageCount(from.pages().0 / 2));
                let bytes = half.len();
                half.copy_from_slice(&from[..bytes]);
                self.inner.write_pages(first, Arc::new(half)).await?;
                return Err(injected(kind, Operation::Write, range));
            }
            self.inner.write_pages(first, from).await?;
            match fate.fault {
                Some(Fault::Unheard(kind)) => Err(injected(kind, Operation::Write, range)),
                _ => Ok(()),
            }
        })
    }

    fn sync(&self) -> SourceFuture<'_, ()> {
        Box::pin(async move {
            let fate = self.before(Operation::Sync, None).await?;
            if let Some(Fault::Half(kind)) = fate.fault {
                return Err(injected(kind, Operation::Sync, None));
            }
            self.inner.sync().await?;
            match fate.fault {
                Some(Fault::Unheard(kind)) => Err(injected(kind, Operation::Sync, None)),
                _ => Ok(()),
            }
        })
    }
}
