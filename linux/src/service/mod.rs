//! A pager that is ready to use: it serves VMOs from [sources](crate::source), writes dirty pages back, and keeps
//! memory under a limit.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//! use upager::{ByteOffset, block_on};
//! use upager_linux::service::{MemoryLimit, Service, Writes};
//! use upager_linux::source::Memory;
//!
//! let service = Service::builder().memory(MemoryLimit::bytes(64 << 20)).start()?;
//! let source = Arc::new(Memory::new(b"hello".to_vec()));
//! let vmo = service.open(source.clone(), Writes::WriteBack)?; // to be mapped: `Mapper::map`
//!
//! let mut bytes = [0; 5];
//! block_on(vmo.read(ByteOffset(0), &mut bytes))?;
//! block_on(vmo.write(ByteOffset(0), b"j"))?;
//!
//! let end = service.shutdown(Duration::from_secs(5)); // takes the pager away, and writes back
//! assert!(end.unwritten.is_empty());
//! assert_eq!(source.to_vec(), b"jello");
//! # Ok::<(), upager_linux::Error>(())
//! ```
//!
//! # Nobody hangs
//!
//! - A source that fails has its readers get an error, after [retries](Builder::retry). One that panics, or [ends](crate::source::PageSource::ended),
//!   has its VMO detached; another one can be [put in its place](Service::reopen).
//! - A source that never answers has its readers wait, unless there is a [watch](Builder::watch), or somebody
//!   [detaches](Service::detach) the VMO or drops the service. None of that waits for the source.
//! - If the limit is reached and nothing can be evicted, reads go on above it: at once if nothing is to be written back
//!   either, else after a second in which nothing was.
//! - If all threads of the service are stuck or gone, detaching, dropping and shutting down work still: they are done by who calls them.
//!
//! # How it hangs together
//!
//! | file | idea |
//! | --- | --- |
//! | builder | how it is set up |
//! | served | one VMO and its source |
//! | supply, buffers | READ: from the source into the VMO |
//! | order | no read brings back what a write has replaced |
//! | writeback, pace | dirty pages, back to the source; not more than so many bytes a second |
//! | succession | dirty pages, into a VMO of another source |
//! | memory | evicting under a limit |

mod buffers;
mod builder;
mod memory;
mod order;
mod pace;
mod served;
mod succession;
mod supply;
mod writeback;

use std::collections::HashMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Waker};
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use async_executor::Executor;
use async_io::Timer;
use event_listener::Event;
use futures_util::FutureExt;
use futures_util::future::{join_all, select};
use upager::{ByteRange, Command, Packet, PageCount, Pager, Port, Status, Vmo, VmoCounts, VmoOptions, Watch, Watcher};

use self::buffers::Buffers;
use self::builder::Options;
pub use self::builder::{Builder, MemoryLimit, SyncPolicy, WritebackPolicy};
use self::pace::Pace;
use self::served::Served;
use self::writeback::Round;
use crate::error::Result;
use crate::fault_loop::Help;
use crate::latency::{Latencies, LatencyWatch, Stage};
use crate::platform::LinuxPlatform;
use crate::source::{PageSource, SourceError};

/// What becomes of writes to a VMO.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Writes {
    /// They are written back to the source.
    WriteBack,
    /// They stay in memory, and are never evicted; they go with the VMO. So a snapshot is used without being
    /// changed.
    Keep,
    /// They fail, as does mapping for writing. Only [zeros](upager::Vmo::zero) are not asked about, and are kept.
    Refuse,
}

/// A page range that was not written back. It is dirty still, and can be read from the VMO.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Unwritten {
    /// The VMO.
    pub vmo: Arc<Vmo<LinuxPlatform>>,
    /// The bytes.
    pub range: ByteRange,
    /// Why. `None`: there was no time.
    pub error: Option<Arc<SourceError>>,
}

/// What a [shutdown](Service::shutdown) came to.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Shutdown {
    /// Pages that were written back meanwhile.
    pub written: PageCount,
    /// What it could not.
    pub unwritten: Vec<Unwritten>,
}

/// Figures of a [`Service`], of all its VMOs since it was started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct ServiceCounts {
    /// Pages that were read and supplied.
    pub read: u64,
    /// Pages that were written back.
    pub written: u64,
    /// Pages that were evicted to keep the limit.
    pub evicted: u64,
    /// Reads that failed, after all retries.
    pub read_errors: u64,
    /// Writes and syncs that failed, after all retries.
    pub write_errors: u64,
    /// Reads that went on above the limit.
    pub over_limit: u64,
}

/// Relaxed: it orders nothing.
#[derive(Debug, Default)]
struct Figure(AtomicU64);

impl Figure {
    fn add(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

#[derive(Debug, Default)]
struct Figures {
    read: Figure,
    written: Figure,
    evicted: Figure,
    read_errors: Figure,
    write_errors: Figure,
    over_limit: Figure,
}

/// What the service's tasks share.
struct Inner {
    platform: Arc<LinuxPlatform>,
    pager: Pager<LinuxPlatform>,
    port: Port<LinuxPlatform>,
    options: Options,
    /// The VMOs, by their keys.
    served: ArcSwap<HashMap<u64, Arc<Served>>>,
    next_key: AtomicU64,
    /// Weak: its tasks have this.
    executor: Weak<Executor<'static>>,
    pace: Pace,
    buffers: Buffers,
    /// Pages that are being read.
    coming: AtomicU64,
    trimming: Mutex<()>,
    /// No packet is taken any more.
    over: AtomicBool,
    figures: Figures,
    latencies: Arc<Latencies>,
}

/// Who takes packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum By {
    /// A task of the service. What a packet asks for is another's work, on any thread: a source that blocks, against its
    /// contract, is not to keep the packets of others waiting.
    ATask,
    /// A fault loop, where there are no threads.
    ALoop,
}

/// The end of the threads.
#[derive(Debug, Default)]
struct Stop {
    asked: AtomicBool,
    event: Event,
}

impl Stop {
    fn ask(&self) {
        self.asked.store(true, SeqCst); // SeqCst: with the event's own fence, either a thread sees it or is notified
        self.event.notify(usize::MAX);
    }

    async fn wait(&self) {
        loop {
            let asked = self.event.listen();
            if self.asked.load(SeqCst) {
                return;
            }
            asked.await;
        }
    }
}

/// A pager with its threads. See [the module](self).
///
/// Dropping it detaches all its VMOs at once, and writes nothing back: what is dirty stays in the VMOs. [`shutdown`](Self::shutdown)
/// writes it back.
pub struct Service {
    inner: Arc<Inner>,
    /// Here too, so that it lives where there is no thread.
    executor: Arc<Executor<'static>>,
    stop: Arc<Stop>,
    /// Whether there are threads, which take the packets then.
    threads: bool,
    _watcher: Option<Watcher>,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

impl Inner {
    /// Runs a task for a VMO. If it panics, which is the source's doing, the VMO is detached.
    fn spawn(self: &Arc<Self>, served: &Arc<Served>, task: impl Future<Output = ()> + Send + 'static) {
        let Some(executor) = self.executor.upgrade() else { return }; // the service is over, and all is detached
        executor.spawn(self.clone().contain(served.clone(), task)).detach();
    }

    /// As [`spawn`](Self::spawn), but the caller goes as far with it as he comes at once.
    fn spawn_or_do(self: &Arc<Self>, served: &Arc<Served>, task: impl Future<Output = ()> + Send + 'static) {
        let mut task = Box::pin(self.clone().contain(served.clone(), task));
        // Whatever would wake it is asked again in its first turn as a task.
        if task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending()
            && let Some(executor) = self.executor.upgrade()
        {
            executor.spawn(task).detach();
        }
    }

    async fn contain(self: Arc<Self>, served: Arc<Served>, task: impl Future<Output = ()>) {
        if AssertUnwindSafe(task).catch_unwind().await.is_err() {
            served.broken.store(true, SeqCst);
            self.detach(&served.vmo);
        }
    }

    fn detach(&self, vmo: &Vmo<LinuxPlatform>) {
        let detached = self.pager.detach_vmo(vmo);
        debug_assert!(detached.is_ok(), "a VMO of this pager: {detached:?}");
    }

    fn detach_all(&self) {
        for served in self.served.load().values() {
            self.detach(&served.vmo);
        }
    }

    fn refuse(&self, served: &Served, range: ByteRange, why: Status) {
        let refused = self.pager.fail_range(&served.vmo, range, why);
        debug_assert!(refused.is_ok(), "pages of the VMO, and a status that may be given: {refused:?}");
    }

    /// Takes packets, for ever; if it panics, nobody would take packets any more.
    async fn serve(self: Arc<Self>, by: By) {
        let _: thread::Result<()> = AssertUnwindSafe(self.clone().take_packets(by)).catch_unwind().await;
        self.over.store(true, SeqCst); // SeqCst: see `Service::open`
        self.detach_all();
    }

    async fn take_packets(self: Arc<Self>, by: By) {
        let mut packets = [Packet::default(); 32];
        loop {
            let taken = self.port.wait(&mut packets).await;
            let served = self.served.load_full();
            for packet in &packets[..taken] {
                let Some(served) = served.get(&packet.key) else { continue }; // nobody has it any more
                match packet.command() {
                    Some(Command::Read) => {
                        let supply = supply::supply(self.clone(), served.clone(), packet.range());
                        match by {
                            By::ATask => self.spawn(served, supply),
                            By::ALoop => self.spawn_or_do(served, supply),
                        }
                    }
                    // Only a VMO that refuses writes asks.
                    Some(Command::Dirty) => self.refuse(served, packet.range(), Status::BadState),
                    Some(Command::Complete) => {
                        served.wanted.store(true, Relaxed); // Relaxed: the event orders it
                        served.kick.notify(1);
                    }
                    None => {}
                }
            }
        }
    }

    /// Keeps the limit for pages that come without being read, and has old frames freed.
    async fn trim_now_and_then(self: Arc<Self>) {
        loop {
            Timer::after(writeback::TICK).await;
            self.trim();
        }
    }

    fn forget(&self, served: &Served) {
        self.served.rcu(|all| {
            let mut all = HashMap::clone(all);
            all.remove(&served.vmo.key());
            all
        });
    }
}

impl Service {
    /// The work of a thread of it, until it is over.
    fn help(&self) -> Help {
        let (executor, stop) = (self.executor.clone(), self.stop.clone());
        Box::pin(async move { executor.run(stop.wait()).await })
    }

    /// What a fault loop does for it: the work of a thread; and packets, if there are no threads. Apart, since a packet that is
    /// answered at once needs nothing of the rest.
    pub(crate) fn helps(&self) -> Vec<Help> {
        let mut helps = vec![self.help()];
        if !self.threads {
            let (serve, stop) = (Box::pin(self.inner.clone().serve(By::ALoop)), self.stop.clone());
            helps.push(Box::pin(async move { drop(select(serve, Box::pin(stop.wait())).await) }));
        }
        helps
    }

    /// To set one up.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    fn start(builder: Builder) -> std::io::Result<Self> {
        let platform = Arc::new(LinuxPlatform::new());
        if let Some(limit) = builder.options.limit {
            platform.set_most_ahead(memory::most_ahead(limit));
        }
        let executor = Arc::new(Executor::new());
        let inner = Arc::new(Inner {
            pager: Pager::new(platform.clone()),
            port: Port::new(platform.clone()),
            platform,
            pace: Pace::new(builder.options.writeback.rate),
            buffers: Buffers::new(builder.options.limit.map(|limit| PageCount(limit.pages().0))),
            options: builder.options,
            served: ArcSwap::default(),
            next_key: AtomicU64::new(0),
            executor: Arc::downgrade(&executor),
            coming: AtomicU64::new(0),
            trimming: Mutex::new(()),
            over: AtomicBool::new(false),
            figures: Figures::default(),
            latencies: Latencies::new(&[Stage::Read, Stage::Write, Stage::Sync]),
        });
        let threads = builder.threads > 0;
        if threads {
            executor.spawn(inner.clone().serve(By::ATask)).detach();
        }
        if inner.options.limit.is_some() {
            executor.spawn(inner.clone().trim_now_and_then()).detach();
        }
        let watcher = match builder.watch {
            None => None,
            Some((limits, observer)) => {
                let shortest = [limits.warn_after, limits.time_out].into_iter().flatten().min();
                let period =
                    shortest.map_or(Duration::from_secs(1), |shortest| shortest / 10).max(Duration::from_millis(1));
                let watcher = Watch::new(&inner.pager, limits, observer).spawn(period);
                Some(watcher.map_err(|_| std::io::Error::from(std::io::ErrorKind::WouldBlock))?)
            }
        };
        // Made before the threads: dropped, it ends those that are there.
        let stop = Arc::new(Stop::default());
        let service = Self { inner, executor: executor.clone(), stop, threads, _watcher: watcher };
        for number in 0..builder.threads {
            let help = service.help();
            let run = move || async_io::block_on(help);
            thread::Builder::new().name(format!("upager-service-{number}")).spawn(run)?;
        }
        Ok(service)
    }

    /// A VMO of the source's pages. It is served as long as the service lives; when nobody has it any more, what is dirty is
    /// written back, and it goes.
    ///
    /// Errors: [`NotSupported`](Status::NotSupported): the source cannot be written to, and is to be; those of
    /// [`Pager::create_vmo`].
    pub fn open(&self, source: impl PageSource + 'static, writes: Writes) -> Result<Arc<Vmo<LinuxPlatform>>> {
        let served = self.make(Arc::new(source), writes)?;
        self.begin(&served);
        Ok(served.vmo.clone())
    }

    /// A VMO that nobody tends yet.
    fn make(&self, source: Arc<dyn PageSource>, writes: Writes) -> Result<Arc<Served>> {
        let inner = &self.inner;
        if writes == Writes::WriteBack && !source.capabilities().writable {
            return Err(Status::NotSupported.into());
        }
        let options = if writes == Writes::Refuse { VmoOptions::TRAP_DIRTY } else { VmoOptions::NONE };
        let key = inner.next_key.fetch_add(1, Relaxed); // Relaxed: only uniqueness matters
        let vmo = Arc::new(inner.pager.create_vmo(&inner.port, key, options, source.len())?);
        Ok(Arc::new(Served::new(vmo, source, writes, inner.options.retry)))
    }

    fn begin(&self, served: &Arc<Served>) {
        let inner = &self.inner;
        inner.served.rcu(|all| {
            let mut all = HashMap::clone(all);
            all.insert(served.vmo.key(), served.clone());
            all
        });
        // After it was added: either we see that the service is over, or its end sees the VMO.
        if inner.over.load(SeqCst) {
            inner.detach(&served.vmo);
        }
        let (on, of) = (inner.clone(), served.clone());
        let ended = async move {
            of.source.ended().await;
            on.detach(&of.vmo);
            std::future::pending::<()>().await; // what is dirty is tended still
        };
        let (tend, ended) = (Box::pin(inner.clone().tend(served.clone())), Box::pin(ended));
        inner.spawn(served, async move { drop(select(tend, ended).await) });
    }

    /// Takes the VMO's pager away, if it has one still, and goes on with another source of the same pages: makes a VMO
    /// of that source, into which all moves that is dirty in the first one. Stores to the first one, by who has it mapped
    /// still, either move along or fail. Map the new one then.
    ///
    /// It writes nothing to the new source, and reads nothing from it: that is what the new VMO's life does. A write
    /// that the former source was told of must have ended, or never come to pass: where that was a [`Remote`](crate::remote::Remote), end
    /// its process. It waits for a round of writeback that is under way, and so for the former source's answer or end.
    ///
    /// Errors: nothing has moved then. [`InvalidArgs`](Status::InvalidArgs): the VMO is not this service's, or the
    /// source has another length; [`NoMemory`](Status::NoMemory); those of [`open`](Self::open).
    pub fn reopen(
        &self,
        vmo: &Vmo<LinuxPlatform>,
        source: impl PageSource + 'static,
    ) -> Result<Arc<Vmo<LinuxPlatform>>> {
        let former = self.served(vmo)?;
        if source.len() != former.source.len() {
            return Err(Status::InvalidArgs.into());
        }
        let next = self.make(Arc::new(source), former.writes)?;
        self.inner.detach(vmo);
        async_io::block_on(self.inner.succeed(&former, &next))?;
        self.begin(&next);
        Ok(next.vmo.clone())
    }

    fn served(&self, vmo: &Vmo<LinuxPlatform>) -> Result<Arc<Served>> {
        let served = self.inner.served.load().get(&vmo.key()).filter(|served| served.vmo.id() == vmo.id()).cloned();
        Ok(served.ok_or(Status::InvalidArgs)?)
    }

    /// Writes back what is dirty now, and makes it safe. Returns how many pages that were, and what could not be.
    ///
    /// Errors: [`InvalidArgs`](Status::InvalidArgs): the VMO is not this service's.
    pub async fn flush(&self, vmo: &Vmo<LinuxPlatform>) -> Result<(PageCount, Vec<Unwritten>)> {
        let served = self.served(vmo)?;
        if served.writes != Writes::WriteBack {
            return Ok((PageCount(0), Vec::new()));
        }
        let outcome = self.inner.round(&served, Round::Flush).await;
        let unwritten = |(range, error)| Unwritten { vmo: served.vmo.clone(), range, error: Some(error) };
        Ok((PageCount(outcome.written), outcome.failed.into_iter().map(unwritten).collect()))
    }

    /// Detaches a VMO, at once: [`Pager::detach_vmo`]. What is dirty is written back then.
    ///
    /// Errors: [`InvalidArgs`](Status::InvalidArgs): the VMO is not this service's.
    pub fn detach(&self, vmo: &Vmo<LinuxPlatform>) -> Result<()> {
        self.inner.detach(&self.served(vmo)?.vmo);
        Ok(())
    }

    /// Why a call of the VMO's source failed last.
    #[must_use]
    pub fn last_error(&self, vmo: &Vmo<LinuxPlatform>) -> Option<Arc<SourceError>> {
        self.served(vmo).ok()?.last_error()
    }

    /// The platform that has the frames.
    #[must_use]
    pub fn platform(&self) -> &Arc<LinuxPlatform> {
        &self.inner.platform
    }

    /// What was done so far.
    #[must_use]
    pub fn counts(&self) -> ServiceCounts {
        let figures = &self.inner.figures;
        ServiceCounts {
            read: figures.read.get(),
            written: figures.written.get(),
            evicted: figures.evicted.get(),
            read_errors: figures.read_errors.get(),
            write_errors: figures.write_errors.get(),
            over_limit: figures.over_limit.get(),
        }
    }

    /// Has it be measured how long the sources take, as long as the answer lives.
    #[must_use]
    pub fn watch_latencies(&self) -> LatencyWatch {
        LatencyWatch::new(&self.inner.latencies)
    }

    /// The VMOs that are served: the key of each, its size in bytes, and its figures.
    #[must_use]
    pub fn vmos(&self) -> Vec<(u64, u64, VmoCounts)> {
        let served = self.inner.served.load();
        let mut vmos: Vec<_> =
            served.values().map(|served| (served.vmo.key(), served.vmo.size(), served.vmo.counts())).collect();
        vmos.sort_by_key(|(key, ..)| *key);
        vmos
    }

    /// Detaches all VMOs, so that nobody waits any more, and writes back what is dirty. Ends when all is safe, or the sources
    /// fail, or after `patience`; and says what is not written.
    ///
    /// It writes by itself, also if the service's threads are stuck.
    #[must_use = "it says what was lost"]
    pub fn shutdown(self, patience: Duration) -> Shutdown {
        let inner = &self.inner;
        let all: Vec<_> = inner.served.load().values().cloned().collect();
        for served in &all {
            inner.detach(&served.vmo);
        }
        let before = inner.figures.written.get();
        let unsafe_yet = Mutex::new(Vec::new());
        let finish = join_all(all.iter().filter(|served| served.writes == Writes::WriteBack).map(|served| {
            let unsafe_yet = &unsafe_yet;
            async move {
                // Again, while stores to pages that are there still make them dirty.
                loop {
                    let outcome = inner.round(served, Round::Flush).await;
                    let counts = served.vmo.counts();
                    if counts.dirty.0 + counts.zero.0 == 0 {
                        // Written, and clean, but not synced.
                        let unsynced = outcome.failed.into_iter();
                        let unwritten = unsynced.map(|(range, error)| Unwritten {
                            vmo: served.vmo.clone(),
                            range,
                            error: Some(error),
                        });
                        unsafe_yet.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend(unwritten);
                        return;
                    }
                    if !outcome.failed.is_empty() {
                        return;
                    }
                }
            }
        }));
        let until = Timer::at(Instant::now() + patience);
        async_io::block_on(async { drop(select(Box::pin(finish), until).await) });
        let mut unwritten = unsafe_yet.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        for served in all.iter().filter(|served| served.writes == Writes::WriteBack) {
            inner.report_dirty(served, &mut unwritten);
        }
        Shutdown { written: PageCount(inner.figures.written.get() - before), unwritten }
    }
}

impl Inner {
    /// Reports what is dirty still.
    fn report_dirty(&self, served: &Served, unwritten: &mut Vec<Unwritten>) {
        let error = served.write_error();
        let unwritten_of = |range| Unwritten { vmo: served.vmo.clone(), range, error: error.clone() };
        unwritten.extend(self.dirty(served).into_iter().map(unwritten_of));
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // First this, so that nobody waits for threads that have ended.
        self.inner.detach_all();
        self.inner.served.store(Arc::default());
        self.stop.ask();
    }
}
