//! The threads of a run, and the watch on their coming home.
//!
//! Threads are not scoped: a scope would wait for ever for a thread that hangs, and finding such a
//! thread is what the run is for. Each thread shares the engine by reference count.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::run::engine::Engine;

/// A thread that is not home so long after it was told to stop counts as hung.
pub(crate) const HOME_WITHIN: Duration = Duration::from_secs(10);

/// Threads that are told to stop, and come home, together.
#[derive(Default)]
pub(crate) struct Crew {
    threads: Vec<(String, JoinHandle<()>)>,
}

impl Crew {
    /// Starts a thread. What fails in it is noted with the engine.
    pub(crate) fn start(
        &mut self,
        engine: &Arc<Engine>,
        name: String,
        work: impl FnOnce(&Engine) -> Result<(), Failure> + Send + 'static,
    ) -> Result<(), Failure> {
        let engine = engine.clone();
        let body = move || {
            if let Err(failure) = work(&engine) {
                engine.fail(failure);
            }
        };
        match thread::Builder::new().name(name.clone()).spawn(body) {
            Ok(thread) => self.threads.push((name, thread)),
            Err(source) => return Err(Failure::Thread { name, source }),
        }
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        self.threads.len()
    }

    /// Waits for the threads, which have been told to stop. Returns how many hang.
    pub(crate) fn come_home(self, engine: &Engine) -> u64 {
        let deadline = Instant::now() + HOME_WITHIN;
        let mut hung = 0;
        for (name, thread) in self.threads {
            while !thread.is_finished() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(1));
            }
            if !thread.is_finished() {
                hung += 1;
                engine.tally.find(|| format!("the thread {name} hangs"));
            } else if thread.join().is_err() {
                engine.fail(Failure::Panicked { name });
            }
        }
        hung
    }
}
