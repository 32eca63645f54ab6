//! Pagers and their ports, in three manners. Each VMO is of one of them.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use upager::{Event, Pager, Port, TracingObserver, Watch, WatchLimits, Watcher};

use crate::failure::Failure;
use crate::soak::memory::Memory;

/// How its service behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Manner {
    /// Answers every packet, with pages, leave or a failure, and does nothing unasked; and takes packets only when
    /// it was woken. So a packet that is lost, or a wake-up of the port, is an access that hangs.
    Asleep,
    /// Answers every packet, and looks for them without having been woken.
    Prompt,
    /// Ignores some packets, cancels some, closes its port now and then. Requests that are left
    /// are timed out.
    Rough,
}

/// After how long a rough office times a request out.
const TIME_OUT: Duration = Duration::from_millis(3);
/// After how long the others warn of one.
const SLOW: Duration = Duration::from_secs(10);

pub(crate) struct Office {
    pub(crate) manner: Manner,
    pager: Mutex<Arc<OpenPager>>,
    port: Mutex<Arc<OpenPort>>,
}

/// A pager. Closed when the last who uses it has done so.
pub(crate) struct OpenPager {
    pub(crate) pager: Pager<Memory>,
    pub(crate) closed: Arc<AtomicBool>,
    watch: Mutex<Watch<Memory>>,
    /// The ready thread, where nobody is timed out.
    _watcher: Option<Watcher>,
}

pub(crate) struct OpenPort {
    pub(crate) port: Port<Memory>,
    pub(crate) closed: Arc<AtomicBool>,
}

impl OpenPager {
    fn new(manner: Manner, memory: &Arc<Memory>) -> Result<Arc<Self>, Failure> {
        let pager = Pager::new(memory.clone());
        let limits = match manner {
            Manner::Rough => WatchLimits { warn_after: None, time_out: Some(TIME_OUT) },
            Manner::Asleep | Manner::Prompt => WatchLimits { warn_after: Some(SLOW), time_out: None },
        };
        let watcher = if manner == Manner::Asleep {
            let watch = Watch::new(&pager, limits, Box::new(TracingObserver));
            let no_thread = |status| Failure::Thread { name: "watch".into(), source: std::io::Error::other(status) };
            Some(watch.spawn(SLOW / 4).map_err(no_thread)?)
        } else {
            None
        };
        let watch = Mutex::new(Watch::new(&pager, limits, Box::new(|_: &Event| {})));
        Ok(Arc::new(Self { pager, closed: Arc::default(), watch, _watcher: watcher }))
    }

    /// Looks at the requests in flight, unless somebody does. Returns how many it timed out.
    pub(crate) fn look(&self, started: Instant) -> u64 {
        let Some(mut watch) = self.watch.try_lock() else { return 0 };
        let before = watch.counts().timed_out;
        watch.look(started.elapsed());
        watch.counts().timed_out - before
    }
}

impl Drop for OpenPager {
    fn drop(&mut self) {
        self.closed.store(true, SeqCst); // before the pager is; SeqCst: as all flags of the program
    }
}

impl Drop for OpenPort {
    fn drop(&mut self) {
        self.closed.store(true, SeqCst); // before the port is; SeqCst: as all flags of the program
    }
}

impl Office {
    pub(crate) fn new(manner: Manner, memory: &Arc<Memory>) -> Result<Self, Failure> {
        let pager = Mutex::new(OpenPager::new(manner, memory)?);
        Ok(Self { manner, pager, port: Mutex::new(Self::open_port(memory)) })
    }

    fn open_port(memory: &Arc<Memory>) -> Arc<OpenPort> {
        Arc::new(OpenPort { port: Port::new(memory.clone()), closed: Arc::default() })
    }

    pub(crate) fn pager(&self) -> Arc<OpenPager> {
        self.pager.lock().clone()
    }

    pub(crate) fn port(&self) -> Arc<OpenPort> {
        self.port.lock().clone()
    }

    /// Whether this is its port still.
    pub(crate) fn has_port(&self, port: &Arc<OpenPort>) -> bool {
        Arc::ptr_eq(&self.port.lock(), port)
    }

    /// Closes the pager, and opens another.
    pub(crate) fn close_pager(&self, memory: &Arc<Memory>) -> Result<(), Failure> {
        let fresh = OpenPager::new(self.manner, memory)?;
        let old = std::mem::replace(&mut *self.pager.lock(), fresh);
        drop(old); // not under the lock
        Ok(())
    }

    /// Closes the port, and opens another. The VMOs of the old one have none from now on.
    pub(crate) fn close_port(&self, memory: &Arc<Memory>) {
        let old = std::mem::replace(&mut *self.port.lock(), Self::open_port(memory));
        drop(old); // not under the lock
    }
}
