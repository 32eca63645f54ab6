//! One VMO of a service, and its source.

use std::num::NonZeroUsize;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use async_lock::Semaphore;
use event_listener::Event;
use upager::{PageCount, Vmo};

use super::Writes;
use super::order::Order;
use crate::platform::LinuxPlatform;
use crate::source::{PageSource, Retry, RetryPolicy, SourceError};

/// Pages that are read or written by one call, at most and, where the source does not mind, at least.
pub(super) const LONGEST: u64 = 1024;
const SHORTEST: u64 = 64;

pub(super) type Source = Retry<Arc<dyn PageSource>>;

#[derive(Debug)]
pub(super) struct Served {
    pub(super) vmo: Arc<Vmo<LinuxPlatform>>,
    pub(super) source: Source,
    pub(super) writes: Writes,
    pub(super) order: Order,
    /// Reads in flight, so that their buffers have a bound.
    pub(super) reads: Arc<Semaphore>,
    /// Whoever writes back. One at a time: a page is not written twice at once.
    pub(super) round: async_lock::Mutex<()>,
    /// Somebody wants a round.
    pub(super) wanted: AtomicBool,
    pub(super) kick: Event,
    /// What was written is not all safe yet.
    pub(super) unsynced: AtomicBool,
    /// The source has panicked. It is left alone from then on.
    pub(super) broken: AtomicBool,
    last_error: Mutex<Option<Arc<SourceError>>>,
    /// Why the last round could not write everything.
    write_error: Mutex<Option<Arc<SourceError>>>,
}

impl Served {
    pub(super) fn new(
        vmo: Arc<Vmo<LinuxPlatform>>,
        source: Arc<dyn PageSource>,
        writes: Writes,
        retry: RetryPolicy,
    ) -> Self {
        // Twice as many as are of use: one lot is on its way into the VMO.
        let reads = source.capabilities().concurrency.get().saturating_mul(2).clamp(4, 256);
        Self {
            vmo,
            source: Retry::new(source, retry),
            writes,
            order: Order::default(),
            reads: Arc::new(Semaphore::new(reads)),
            round: async_lock::Mutex::new(()),
            wanted: AtomicBool::new(false),
            kick: Event::new(),
            unsynced: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            last_error: Mutex::new(None),
            write_error: Mutex::new(None),
        }
    }

    pub(super) fn pages_a_read(&self) -> PageCount {
        PageCount(self.source.capabilities().preferred_read.0.clamp(SHORTEST, LONGEST))
    }

    pub(super) fn pages_a_write(&self) -> PageCount {
        PageCount(self.source.capabilities().preferred_write.0.clamp(SHORTEST, LONGEST))
    }

    pub(super) fn writes_in_flight(&self) -> NonZeroUsize {
        self.source.capabilities().concurrency.min(const { NonZeroUsize::new(32).unwrap() })
    }

    pub(super) fn note(&self, error: SourceError) -> Arc<SourceError> {
        let error = Arc::new(error);
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
        error
    }

    pub(super) fn last_error(&self) -> Option<Arc<SourceError>> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_write_error(&self, error: Option<Arc<SourceError>>) {
        *self.write_error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    pub(super) fn write_error(&self) -> Option<Arc<SourceError>> {
        self.write_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
