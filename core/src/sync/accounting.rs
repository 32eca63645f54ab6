//! The facade that counts: with `--cfg accounting`, every load, store and read-modify-write that a
//! call makes is noted, with its address.
//!
//! So what a call does to memory that other threads use can be asserted, on any machine:
//! `tests/tests/accounting.rs`. A build without the cfg has none of this. The types have the layout of
//! those they stand for, so the lines are those of an ordinary build.
//!
//! Each part of the pager names its own words, to [`Lines`]: what they are, and who contends for them.
//!
//! Not counted: the epoch's own words, the reference counts of wakers and of [`Arc`](super::Arc), and
//! the platform's.

use alloc::vec::Vec;
use core::cell::RefCell;
use core::ops::Range;
use core::sync::atomic::{self, Ordering};
extern crate std;

/// How a word was accessed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Load,
    Store,
    /// A read-modify-write, whether it changed the word or not.
    Rmw,
}

/// One access to one word.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    pub kind: Kind,
    pub address: usize,
}

std::thread_local! {
    static NOTES: RefCell<Option<Vec<Access>>> = const { RefCell::new(None) };
}

/// Makes a call, and says which words the calling thread accessed in it, in order.
pub fn record<R>(call: impl FnOnce() -> R) -> (R, Vec<Access>) {
    NOTES.set(Some(Vec::new()));
    let result = call();
    (result, NOTES.take().unwrap_or_default())
}

#[inline]
fn note<T>(kind: Kind, word: *const T) {
    let note = |notes: &RefCell<Option<Vec<Access>>>| {
        if let Some(notes) = &mut *notes.borrow_mut() {
            notes.push(Access { kind, address: word.addr() });
        }
    };
    let _ = NOTES.try_with(note); // failing: the thread is ending
}

/// The methods that all counted words have. `$t`: what the word holds.
macro_rules! counted_methods {
    ($t:ty) => {
        #[inline]
        pub(crate) fn load(&self, order: Ordering) -> $t {
            note(Kind::Load, self);
            self.0.load(order)
        }

        #[inline]
        pub(crate) fn store(&self, value: $t, order: Ordering) {
            note(Kind::Store, self);
            self.0.store(value, order);
        }

        #[allow(dead_code)]
        #[inline]
        pub(crate) fn swap(&self, value: $t, order: Ordering) -> $t {
            note(Kind::Rmw, self);
            self.0.swap(value, order)
        }

        #[allow(dead_code)]
        #[inline]
        pub(crate) fn compare_exchange(&self, from: $t, to: $t, ok: Ordering, failed: Ordering) -> Result<$t, $t> {
            note(Kind::Rmw, self);
            self.0.compare_exchange(from, to, ok, failed)
        }
    };
}

macro_rules! counted_number {
    ($name:ident, $number:ty) => {
        #[derive(Debug, Default)]
        #[repr(transparent)]
        pub(crate) struct $name(atomic::$name);

        #[allow(dead_code)] // not every size needs every method
        impl $name {
            pub(crate) const fn new(value: $number) -> Self {
                Self(atomic::$name::new(value))
            }

            counted_methods!($number);

            #[inline]
            pub(crate) fn fetch_add(&self, value: $number, order: Ordering) -> $number {
                note(Kind::Rmw, self);
                self.0.fetch_add(value, order)
            }

            #[inline]
            pub(crate) fn fetch_sub(&self, value: $number, order: Ordering) -> $number {
                note(Kind::Rmw, self);
                self.0.fetch_sub(value, order)
            }

            #[inline]
            pub(crate) fn fetch_or(&self, value: $number, order: Ordering) -> $number {
                note(Kind::Rmw, self);
                self.0.fetch_or(value, order)
            }

            #[inline]
            pub(crate) fn fetch_and(&self, value: $number, order: Ordering) -> $number {
                note(Kind::Rmw, self);
                self.0.fetch_and(value, order)
            }

            pub(crate) fn fetch_update(
                &self,
                ok: Ordering,
                failed: Ordering,
                mut f: impl FnMut($number) -> Option<$number>,
            ) -> Result<$number, $number> {
                let mut seen = self.load(failed);
                while let Some(to) = f(seen) {
                    match self.compare_exchange(seen, to, ok, failed) {
                        Ok(seen) => return Ok(seen),
                        Err(now) => seen = now,
                    }
                }
                Err(seen)
            }
        }
    };
}

counted_number!(AtomicU16, u16);
counted_number!(AtomicU32, u32);
counted_number!(AtomicU64, u64);
counted_number!(AtomicUsize, usize);

#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct AtomicPtr<T>(atomic::AtomicPtr<T>);

impl<T> AtomicPtr<T> {
    pub(crate) const fn new(value: *mut T) -> Self {
        Self(atomic::AtomicPtr::new(value))
    }

    counted_methods!(*mut T);
}

/// The [cell](super::Cell) of an ordinary build. Lending it mutably counts as a store.
#[derive(Debug, Default)]
#[repr(transparent)]
pub(crate) struct Cell<T>(core::cell::UnsafeCell<T>);

impl<T> Cell<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(core::cell::UnsafeCell::new(value))
    }

    pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        note(Kind::Load, self);
        f(self.0.get())
    }

    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        note(Kind::Store, self);
        f(self.0.get())
    }
}

/// Some words of the pager, and who uses them.
#[derive(Clone, Debug)]
pub struct Named {
    /// What they are.
    pub name: &'static str,
    /// Who accesses their lines at the same time, and how.
    pub contenders: &'static str,
    /// Where they are.
    pub place: Range<usize>,
}

/// The names of all words of one VMO, its port and its pager.
#[derive(Debug, Default)]
pub struct Lines(Vec<Named>);

impl Lines {
    pub(crate) fn add<T: ?Sized>(&mut self, words: &T, name: &'static str, contenders: &'static str) {
        let start = core::ptr::from_ref(words).addr();
        self.0.push(Named { name, contenders, place: start..start + size_of_val(words) });
    }

    /// The smallest place that has this word.
    #[must_use]
    pub fn of(&self, address: usize) -> Option<&Named> {
        self.0.iter().filter(|named| named.place.contains(&address)).min_by_key(|named| named.place.len())
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Named> {
        self.0.iter()
    }
}
