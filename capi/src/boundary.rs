//! Where C calls come in: panics stop here, and pointers are checked.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;

use upager::{Result, Status};

use crate::types::{ZX_OK, zx_status_t};

/// Runs the body of a call. A panic becomes INTERNAL and an event.
#[inline]
pub(crate) fn boundary(call: &'static str, body: impl FnOnce() -> Result<()>) -> zx_status_t {
    // Unwind safe: what is shared with other threads is changed by single steps, and is whole between any two.
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => ZX_OK,
        Ok(Err(status)) => status as zx_status_t,
        Err(panic) => report(call, panic),
    }
}

#[cold]
fn report(call: &'static str, panic: Box<dyn Any + Send>) -> zx_status_t {
    // Who listens to events, and what was thrown, may panic themselves.
    let told = catch_unwind(AssertUnwindSafe(|| {
        let what = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
        tracing::error!(target: "upager", call, what, "a call panicked");
        drop(panic);
    }));
    std::mem::forget(told); // with what it may have thrown
    Status::Internal as zx_status_t
}

/// A place of the caller's for a value: neither null nor misaligned.
pub(crate) struct Out<T>(*mut T);

impl<T> Out<T> {
    pub(crate) fn new(at: *mut T) -> Result<Self> {
        if at.is_null() || !at.is_aligned() { Err(Status::InvalidArgs) } else { Ok(Self(at)) }
    }

    /// One that may be null.
    pub(crate) fn optional(at: *mut T) -> Result<Option<Self>> {
        if at.is_null() { Ok(None) } else { Self::new(at).map(Some) }
    }

    pub(crate) fn set(&self, value: T) {
        // SAFETY: neither null nor misaligned, and the caller of the C function says that it may be written to.
        unsafe { self.0.write(value) };
    }
}

/// The caller's value.
pub(crate) fn value<T: Copy>(at: *const T) -> Result<T> {
    if at.is_null() || !at.is_aligned() {
        return Err(Status::InvalidArgs);
    }
    // SAFETY: neither null nor misaligned, and the caller of the C function says that it may be read.
    Ok(unsafe { at.read() })
}

/// The caller's values, to read.
///
/// # Safety
/// They may be read as long as the result lives, and nobody writes to them.
pub(crate) unsafe fn items<'a, T>(at: *const T, count: usize) -> Result<&'a [T]> {
    if at.is_null() || !at.is_aligned() || is_too_long::<T>(count) {
        return Err(Status::InvalidArgs);
    }
    // SAFETY: neither null nor misaligned nor too long; the rest is the caller's.
    Ok(unsafe { slice::from_raw_parts(at, count) })
}

/// The caller's values, to write.
///
/// # Safety
/// They may be written to as long as the result lives, and nobody else reads or writes them.
pub(crate) unsafe fn items_mut<'a, T>(at: *mut T, count: usize) -> Result<&'a mut [T]> {
    if at.is_null() || !at.is_aligned() || is_too_long::<T>(count) {
        return Err(Status::InvalidArgs);
    }
    // SAFETY: as in `items`.
    Ok(unsafe { slice::from_raw_parts_mut(at, count) })
}

/// Whether no object of the language can have so many.
fn is_too_long<T>(count: usize) -> bool {
    count.checked_mul(size_of::<T>()).is_none_or(|bytes| isize::try_from(bytes).is_err())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::{Debug, Write};
    use std::sync::{Arc, Mutex};
    use tracing::field::{Field, Visit};

    /// Notes the events of a thread.
    #[derive(Clone, Default)]
    struct Notes(Arc<Mutex<Vec<String>>>);

    impl tracing::Subscriber for Notes {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }
        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn event(&self, event: &tracing::Event<'_>) {
            struct Text(String);
            impl Visit for Text {
                fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
                    let _ = write!(self.0, "{field}={value:?} ");
                }
            }
            let mut text = Text(format!("{} ", event.metadata().level()));
            event.record(&mut text);
            self.0.lock().unwrap().push(text.0);
        }
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }

    // One test, since an event of another thread that nobody listens to may have this one's be taken for such.
    #[test]
    fn a_panic_is_internal_and_an_event_and_its_drop_may_panic() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                assert!(std::thread::panicking(), "again");
            }
        }
        let notes = Notes::default();
        let status = tracing::subscriber::with_default(notes.clone(), || boundary("zx_test", || panic!("on purpose")));
        assert_eq!(status, -1);
        let notes = notes.0.lock().unwrap();
        assert_eq!(notes.len(), 1);
        assert!(notes[0].starts_with("ERROR ") && notes[0].contains("zx_test"), "{notes:?}");
        assert!(notes[0].contains("on purpose") && notes[0].contains("a call panicked"), "{notes:?}");
        assert_eq!(boundary("zx_test", || std::panic::panic_any(Bomb)), -1);
    }

    #[test]
    fn results_pass() {
        assert_eq!(boundary("zx_test", || Ok(())), 0);
        assert_eq!(boundary("zx_test", || Err(Status::NotFound)), -25);
    }

    #[test]
    fn pointers_are_checked() {
        let mut words = [0u64; 2];
        let at = words.as_mut_ptr();
        let odd = at.wrapping_byte_add(1);
        for bad in [std::ptr::null_mut(), odd] {
            assert!(Out::new(bad).is_err());
            assert_eq!(value(bad.cast_const()), Err(Status::InvalidArgs));
            // SAFETY: refused before anything is read.
            assert!(unsafe { items::<u64>(bad, 1) }.is_err() && unsafe { items_mut::<u64>(bad, 1) }.is_err());
        }
        // SAFETY: refused before anything is read.
        assert!(unsafe { items::<u64>(at, usize::MAX / 8) }.is_err());
        Out::new(at).unwrap().set(7);
        assert_eq!(value(at.cast_const()), Ok(7));
        assert!(Out::<u64>::optional(std::ptr::null_mut()).unwrap().is_none());
        assert!(Out::optional(odd).is_err());
    }
}
