//! Trying again what may pass by itself.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_io::Timer;
use upager::{PageCount, PageIndex};

use super::{Capabilities, PageBuf, PageSource, SourceError, SourceFuture};

/// How often to try, and how long to wait in between.
///
/// The wait before the `n`th retry is drawn at random from the upper half of `0..=first_wait * 2^(n-1)`,
/// which `longest_wait` bounds: so that many who failed together do not come back together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RetryPolicy {
    /// Calls at most, the first one included.
    pub attempts: NonZeroU32,
    /// The longest wait before the first retry.
    pub first_wait: Duration,
    /// The longest wait before any retry.
    pub longest_wait: Duration,
}

impl Default for RetryPolicy {
    /// Six calls, the waits up to 10, 20, 40, 80 and 160 ms, none over a second.
    fn default() -> Self {
        Self {
            attempts: const { NonZeroU32::new(6).unwrap() },
            first_wait: Duration::from_millis(10),
            longest_wait: Duration::from_secs(1),
        }
    }
}

impl RetryPolicy {
    /// The wait before retry `n`, counted from one, given a random fraction from 0 to 1.
    fn wait(&self, n: u32, fraction: f64) -> Duration {
        let doubled = 1u32.checked_shl(n - 1).unwrap_or(u32::MAX);
        let longest = self.first_wait.saturating_mul(doubled).min(self.longest_wait);
        longest / 2 + (longest / 2).mul_f64(fraction)
    }
}

/// Another source, each call of which is made again while it fails with an
/// error that [may pass by itself](SourceError::is_transient). The last error is the one that is returned.
///
/// A write that is tried again writes the same bytes to the same place, so it does not matter whether the first try got through.
/// It sets no time limit to a call: a write that was given up but went on would overwrite a later one.
/// What hangs is for the pager's watch to say.
///
/// ```
/// use std::time::Duration;
/// use upager::{PageCount, PageIndex, block_on};
/// use upager_linux::source::{ErrorKind, Fault, Injector, PageBuf, PageSource, Retry, RetryPolicy, Zero};
/// let flaky = Injector::new(Zero::new(4096), 1);
/// flaky.script([Some(Fault::Error(ErrorKind::Unavailable)), None]); // the first call fails, the second does not
/// let policy = RetryPolicy { first_wait: Duration::from_micros(10), ..RetryPolicy::default() };
/// let source = Retry::new(flaky, policy);
/// block_on(source.read_pages(PageIndex(0), PageBuf::new(PageCount(1))))?;
/// assert_eq!(source.retries(), 1);
/// # Ok::<(), upager_linux::source::SourceError>(())
/// ```
#[derive(Debug)]
pub struct Retry<S> {
    inner: S,
    policy: RetryPolicy,
    retries: AtomicU64,
}

impl<S: PageSource> Retry<S> {
    /// Lays retries over a source.
    #[must_use]
    pub const fn new(inner: S, policy: RetryPolicy) -> Self {
        Self { inner, policy, retries: AtomicU64::new(0) }
    }

    /// Calls that were made again, so far.
    #[must_use]
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed) // a figure, about nothing but itself
    }

    /// The source beneath.
    #[must_use]
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Whether to call again after this error of the `n`th call; waits before it says yes.
    async fn again(&self, n: u32, error: SourceError) -> Result<(), SourceError> {
        if !error.is_transient() || n >= self.policy.attempts.get() {
            return Err(error);
        }
        Timer::after(self.policy.wait(n, fastrand::f64())).await;
        self.retries.fetch_add(1, Ordering::Relaxed); // a figure
        Ok(())
    }
}

impl<S: PageSource> PageSource for Retry<S> {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn read_pages(&self, first: PageIndex, into: PageBuf) -> SourceFuture<'_, PageBuf> {
        Box::pin(async move {
            let pages: PageCount = into.pages();
            let mut buffer = into;
            for n in 1.. {
                match self.inner.read_pages(first, buffer).await {
                    Ok(buffer) => return Ok(buffer),
                    Err(error) => self.again(n, error).await?,
                }
                buffer = PageBuf::new(pages);
            }
            unreachable!("the attempts are fewer than a u32 counts")
        })
    }

    fn write_pages(&self, first: PageIndex, from: Arc<PageBuf>) -> SourceFuture<'_, ()> {
        Box::pin(async move {
            for n in 1.. {
                match self.inner.write_pages(first, from.clone()).await {
                    Ok(()) => return Ok(()),
                    Err(error) => self.again(n, error).await?,
                }
            }
            unreachable!("the attempts are fewer than a u32 counts")
        })
    }

    /// A `sync` that failed is **not** tried again: after a failure nothing is known of the writes before it, and a second call may
    /// say `Ok` of pages that the kernel has dropped. The error tells the service to write them again.
    fn sync(&self) -> SourceFuture<'_, ()> {
        self.inner.sync()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_never_overflow() {
        let policy = RetryPolicy { longest_wait: Duration::from_millis(50), ..RetryPolicy::default() };
        let ends = |n| (policy.wait(n, 0.0).as_millis(), policy.wait(n, 1.0).as_millis());
        assert_eq!([1, 2, 3, 4, 40, u32::MAX].map(ends), [(5, 10), (10, 20), (20, 40), (25, 50), (25, 50), (25, 50)]);
    }
}
