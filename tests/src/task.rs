//! Futures polled by hand, and wakers that count.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// Counts how often it was woken.
#[derive(Debug, Default)]
pub struct Wakes(AtomicUsize);

impl Wakes {
    /// A new one, woken never.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// How often it was woken.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    /// A waker that counts here.
    pub fn waker(self: &Arc<Self>) -> Waker {
        Waker::from(self.clone())
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A future that moves only when the test polls it. It has a counting waker of its own.
pub struct Task<'a, T> {
    future: Pin<Box<dyn Future<Output = T> + 'a>>,
    wakes: Arc<Wakes>,
}

impl<T> std::fmt::Debug for Task<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Task").field("wakes", &self.wakes()).finish_non_exhaustive()
    }
}

impl<'a, T> Task<'a, T> {
    /// Not polled yet.
    pub fn new(future: impl Future<Output = T> + 'a) -> Self {
        Self { future: Box::pin(future), wakes: Wakes::new() }
    }

    /// Polled once, and not ready.
    pub fn pending(future: impl Future<Output = T> + 'a) -> Self {
        let mut task = Self::new(future);
        assert!(task.poll().is_none(), "was to wait, and did not");
        task
    }

    /// Polls once.
    pub fn poll(&mut self) -> Option<T> {
        let waker = self.wakes.waker();
        self.poll_with(&waker)
    }

    /// Polls once, with another waker.
    pub fn poll_with(&mut self, waker: &Waker) -> Option<T> {
        match self.future.as_mut().poll(&mut Context::from_waker(waker)) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }

    /// How often its own waker was woken.
    pub fn wakes(&self) -> usize {
        self.wakes.count()
    }

    /// Woken exactly once, and ready at the poll that follows.
    pub fn woken_with(mut self) -> T {
        assert_eq!(self.wakes(), 1, "woken exactly once");
        let output = self.poll().expect("woken, so ready");
        assert_eq!(self.wakes(), 1, "not woken again");
        output
    }
}

/// The output of a future that must be ready at its first poll.
pub fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(&Wakes::new().waker())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("had to wait"),
    }
}
