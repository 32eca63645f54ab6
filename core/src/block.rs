//! Blocking the calling thread on a future, for programs with `std`.

extern crate std;

use alloc::sync::Arc;
use alloc::task::Wake;
use core::future::Future;
use core::pin::pin;
use core::task::{Context, Poll, Waker};
use std::thread::{self, Thread};
use std::time::Instant;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

std::thread_local! {
    static WAKER: Waker = Waker::from(Arc::new(Unpark(thread::current())));
}

/// Blocks the calling thread until the future is ready.
///
/// ```
/// assert_eq!(upager::block_on(async { 1 + 1 }), 2);
/// ```
#[inline]
pub fn block_on<F: Future>(future: F) -> F::Output {
    match block_on_until(future, None) {
        Some(output) => output,
        None => unreachable!("without a deadline only readiness ends the wait"),
    }
}

/// Blocks the calling thread until the future is ready, or the deadline has passed. Then it drops
/// the future and returns `None`: a fault thereby leaves its request.
///
/// ```
/// use std::time::{Duration, Instant};
/// let soon = Instant::now() + Duration::from_millis(1);
/// assert_eq!(upager::block_on_until(std::future::pending::<()>(), Some(soon)), None);
/// ```
#[inline]
pub fn block_on_until<F: Future>(future: F, deadline: Option<Instant>) -> Option<F::Output> {
    // Pinned where it was made, and not moved into the closure: to copy what was just written, in larger words, takes longer
    // than a read of a page that is there.
    let mut future = pin!(future);
    WAKER.with(|waker| {
        let mut cx = Context::from_waker(waker);
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
                return Some(output);
            }
            // Parking may end without cause: polling again is the answer to that too.
            match deadline {
                None => thread::park(),
                Some(deadline) => {
                    let left = deadline.checked_duration_since(Instant::now())?;
                    thread::park_timeout(left);
                }
            }
        }
    })
}
