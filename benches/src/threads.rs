//! Threads that begin at one moment, and threads that keep to one processor.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{AcqRel, Acquire};
use std::thread;
use std::time::{Duration, Instant};

/// Runs `work` in so many threads, which all begin at one moment, and returns the longest time that
/// one of them took.
///
/// # Panics
/// If one of them does.
pub fn in_step<F: Fn(usize) + Sync>(threads: usize, work: F) -> Duration {
    let ready = AtomicUsize::new(0);
    thread::scope(|scope| {
        let run = |nth| {
            let (ready, work) = (&ready, &work);
            move || {
                ready.fetch_add(1, AcqRel); // AcqRel: the last one's comes after all the others'
                while ready.load(Acquire) < threads {
                    std::hint::spin_loop();
                }
                let start = Instant::now();
                work(nth);
                start.elapsed()
            }
        };
        let running: Vec<_> = (0..threads).map(|nth| scope.spawn(run(nth))).collect();
        running.into_iter().map(|thread| thread.join().expect("it does not panic")).max().unwrap_or_default()
    })
}

/// A processor that the program may run on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Processor(usize);

impl Processor {
    /// Those there are.
    #[must_use]
    pub fn all() -> Vec<Self> {
        // SAFETY: a set of bits, for which zeros are a value.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: the set is ours, and its size is its own.
        let got = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
        if got != 0 {
            return Vec::new();
        }
        // SAFETY: reads one bit of the set, inside it.
        (0..libc::CPU_SETSIZE as usize).filter(|at| unsafe { libc::CPU_ISSET(*at, &set) }).map(Self).collect()
    }

    /// The calling thread keeps to it from now on.
    ///
    /// # Panics
    /// If it may no longer run there.
    pub fn keep_to(self) {
        // SAFETY: as in `all`.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: `self.0` is below CPU_SETSIZE, and the set is ours.
        let kept = unsafe {
            libc::CPU_SET(self.0, &mut set);
            libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
        };
        assert_eq!(kept, 0, "a processor that we may run on");
    }
}
