//! How a service is set up.

use std::thread;
use std::time::Duration;

use upager::{Observer, PAGE_SIZE, PageCount, WatchLimits};

use super::Service;
use crate::error::{Error, Result};
use crate::source::RetryPolicy;

/// When dirty pages are written back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WritebackPolicy {
    /// A round begins when a VMO has been dirty for so long. By default a second.
    pub age: Duration,
    /// A round begins at once when so many pages of a VMO are dirty. By default 16,384 (64 MiB).
    pub amount: PageCount,
    /// Bytes a second, of all VMOs together, that rounds write at most; `None`: as fast as the sources go. Flushing and shutting down know no
    /// limit.
    pub rate: Option<u64>,
    /// When what was written is made safe.
    pub sync: SyncPolicy,
}

impl Default for WritebackPolicy {
    fn default() -> Self {
        Self { age: Duration::from_secs(1), amount: PageCount(16_384), rate: None, sync: SyncPolicy::BeforeClean }
    }
}

/// When [`PageSource::sync`](crate::source::PageSource::sync) is called.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SyncPolicy {
    /// In every round, after its writes and before its pages become clean: a clean page is safe from a crash, and a page whose
    /// sync failed is still dirty, and written again.
    #[default]
    BeforeClean,
    /// Only when flushing and shutting down. Pages are clean when they are written, and if the system
    /// crashes, or the sync fails, what was written since the last one may be lost.
    WhenFlushed,
}

/// How much memory the VMOs of a service have. Dirty pages are not evicted, so they may exceed it until they
/// are written back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryLimit {
    /// Above so many bytes pages are evicted, and reads wait for it a while.
    pub high: u64,
    /// Until it is so many.
    pub low: u64,
}

impl MemoryLimit {
    /// At most so many bytes, and a sixteenth less when pages are evicted.
    #[must_use]
    pub const fn bytes(high: u64) -> Self {
        Self { high, low: high - high / 16 }
    }

    pub(super) const fn pages(self) -> (u64, u64) {
        let low = if self.low < self.high { self.low } else { self.high };
        (self.high / PAGE_SIZE, low / PAGE_SIZE)
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    pub(super) writeback: WritebackPolicy,
    pub(super) limit: Option<MemoryLimit>,
    pub(super) retry: RetryPolicy,
    pub(super) read_around: PageCount,
}

/// Sets up a [`Service`].
pub struct Builder {
    pub(super) options: Options,
    pub(super) threads: usize,
    pub(super) watch: Option<(WatchLimits, Box<dyn Observer>)>,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder")
            .field("options", &self.options)
            .field("threads", &self.threads)
            .finish_non_exhaustive()
    }
}

impl Default for Builder {
    fn default() -> Self {
        let options = Options {
            writeback: WritebackPolicy::default(),
            limit: None,
            retry: RetryPolicy::default(),
            read_around: PageCount(1),
        };
        Self { options, threads: thread::available_parallelism().map_or(1, usize::from).min(4), watch: None }
    }
}

impl Builder {
    /// With so many threads, at least one. They poll; what a source waits for does not occupy them. By default one for
    /// each processor, at most four.
    #[must_use]
    pub fn threads(self, threads: usize) -> Self {
        Self { threads: threads.max(1), ..self }
    }

    /// Dirty pages are written back like this.
    #[must_use]
    pub fn writeback(mut self, policy: WritebackPolicy) -> Self {
        self.options.writeback = policy;
        self
    }

    /// Keeps memory under a limit. By default there is none.
    #[must_use]
    pub fn memory(mut self, limit: MemoryLimit) -> Self {
        self.options.limit = Some(limit);
        self
    }

    /// Calls of sources that fail, and may succeed later, are made again like this.
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.options.retry = policy;
        self
    }

    /// A page that is missing is read with its neighbours: blocks of so many pages, that begin at multiples of it. By
    /// default 1, the page alone. For sources that read many pages for the price of one
    /// ([`preferred_read`](crate::source::Capabilities::preferred_read)), and users who will want them.
    #[must_use]
    pub fn read_around(mut self, pages: PageCount) -> Self {
        self.options.read_around = PageCount(pages.0.clamp(1, 1024));
        self
    }

    /// Requests that are left unanswered are watched: see [`upager::Watch`]. By default they are not, and a source
    /// that does not answer has its readers wait.
    #[must_use]
    pub fn watch(self, limits: WatchLimits, observer: impl Observer) -> Self {
        Self { watch: Some((limits, Box::new(observer))), ..self }
    }

    /// Starts it.
    ///
    /// Errors: [`Error::System`]: there is no thread to be had.
    pub fn start(self) -> Result<Service> {
        Service::start(self).map_err(Error::system("starting a thread"))
    }
}
