//! Loom's atomics, with a thread that may stop for ever.
//!
//! That a call is lock-free means that a thread which is stopped anywhere inside another call delays
//! nobody. A model of it tells a thread to [stop](stop_before) before one of its steps, has the others
//! make their calls, which must end meanwhile, and lets it [go on](resume) only so that the model
//! ends: what comes of that must be right too.
//!
//! Where nobody is told to stop, these are loom's atomics and nothing more.

use core::cell::RefCell;
use core::sync::atomic::Ordering;
extern crate std;

use loom::thread::Thread;

/// Which steps count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Steps {
    /// Stores and read-modify-writes. To others, a thread that is stopped before a load is stopped
    /// before its next change.
    Changes,
    /// Loads as well.
    All,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Load,
    Change,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// It stops before the step after so many more.
    Runs(usize),
    Stopped,
    /// It goes on to its end.
    Resumed,
    /// The others had ended before it stopped.
    Spared,
}

struct Marked {
    thread: Thread,
    steps: Steps,
    progress: Progress,
}

// All threads of a model are one of the system's.
std::thread_local! {
    static MARKED: RefCell<Option<Marked>> = const { RefCell::new(None) };
}

/// The calling thread stops before its step number `number`, counted from 0, until [`resume`].
pub fn stop_before(number: usize, steps: Steps) {
    let marked = Marked { thread: loom::thread::current(), steps, progress: Progress::Runs(number) };
    MARKED.set(Some(marked));
}

/// Lets the thread go on that has stopped, and stop no more.
pub fn resume() {
    MARKED.with_borrow_mut(|marked| {
        if let Some(marked) = marked {
            if marked.progress == Progress::Stopped {
                marked.progress = Progress::Resumed;
                marked.thread.unpark();
            } else {
                marked.progress = Progress::Spared;
            }
        }
    });
}

/// Whether a thread has stopped, and not gone on.
#[must_use]
pub fn one_has() -> bool {
    MARKED.with_borrow(|marked| marked.as_ref().is_some_and(|marked| marked.progress == Progress::Stopped))
}

/// The calling thread has made its call, and stops no more. Returns whether it had stopped.
#[must_use]
pub fn over() -> bool {
    MARKED.take().is_some_and(|marked| marked.progress == Progress::Resumed)
}

/// A step of the calling thread comes next.
fn before(kind: Kind) {
    let is = |progress| MARKED.with_borrow(|marked| marked.as_ref().is_some_and(|marked| marked.progress == progress));
    let stops = MARKED.with_borrow_mut(|marked| {
        let Some(marked) = marked else { return false };
        let Progress::Runs(left) = marked.progress else { return false };
        if kind == Kind::Load && marked.steps == Steps::Changes || loom::thread::current().id() != marked.thread.id() {
            return false;
        }
        marked.progress = left.checked_sub(1).map_or(Progress::Stopped, Progress::Runs);
        left == 0
    });
    while stops && is(Progress::Stopped) {
        loom::thread::park();
    }
}

/// A step of the epoch's model comes next.
#[cfg(not(crossbeam_loom))]
pub(super) fn before_change() {
    before(Kind::Change);
}

macro_rules! methods {
    ($t:ty) => {
        #[track_caller]
        pub(crate) fn load(&self, order: Ordering) -> $t {
            before(Kind::Load);
            self.0.load(order)
        }

        #[track_caller]
        pub(crate) fn store(&self, value: $t, order: Ordering) {
            before(Kind::Change);
            self.0.store(value, order);
        }

        #[allow(dead_code)] // not every size needs every method
        #[track_caller]
        pub(crate) fn swap(&self, value: $t, order: Ordering) -> $t {
            before(Kind::Change);
            self.0.swap(value, order)
        }

        #[allow(dead_code)]
        #[track_caller]
        pub(crate) fn compare_exchange(&self, from: $t, to: $t, ok: Ordering, failed: Ordering) -> Result<$t, $t> {
            before(Kind::Change);
            self.0.compare_exchange(from, to, ok, failed)
        }
    };
}

macro_rules! number {
    ($name:ident, $number:ty) => {
        #[derive(Debug, Default)]
        pub(crate) struct $name(loom::sync::atomic::$name);

        #[allow(dead_code)]
        impl $name {
            #[track_caller]
            pub(crate) fn new(value: $number) -> Self {
                Self(loom::sync::atomic::$name::new(value))
            }

            methods!($number);

            #[track_caller]
            pub(crate) fn fetch_add(&self, value: $number, order: Ordering) -> $number {
                before(Kind::Change);
                self.0.fetch_add(value, order)
            }

            #[track_caller]
            pub(crate) fn fetch_sub(&self, value: $number, order: Ordering) -> $number {
                before(Kind::Change);
                self.0.fetch_sub(value, order)
            }

            #[track_caller]
            pub(crate) fn fetch_or(&self, value: $number, order: Ordering) -> $number {
                before(Kind::Change);
                self.0.fetch_or(value, order)
            }

            #[track_caller]
            pub(crate) fn fetch_and(&self, value: $number, order: Ordering) -> $number {
                before(Kind::Change);
                self.0.fetch_and(value, order)
            }

            #[track_caller]
            pub(crate) fn fetch_update(
                &self,
                ok: Ordering,
                failed: Ordering,
                f: impl FnMut($number) -> Option<$number>,
            ) -> Result<$number, $number> {
                before(Kind::Change);
                self.0.fetch_update(ok, failed, f)
            }
        }
    };
}

number!(AtomicU16, u16);
number!(AtomicU32, u32);
number!(AtomicU64, u64);

#[derive(Debug)]
pub(crate) struct AtomicPtr<T>(loom::sync::atomic::AtomicPtr<T>);

impl<T> AtomicPtr<T> {
    #[track_caller]
    pub(crate) fn new(value: *mut T) -> Self {
        Self(loom::sync::atomic::AtomicPtr::new(value))
    }

    methods!(*mut T);
}
