//! Guards, and what is deferred until those are gone that were there: what `loom::sync::Grace` is to loom.

use alloc::vec::Vec;
extern crate std;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::super::explorer::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// How many guards there were before, and things that were deferred.
pub(super) type Name = usize;

#[derive(Default)]
struct State {
    next: Name,
    pinned: Vec<Name>,
    /// Each with the guards that it still waits for.
    deferred: Vec<(Name, Vec<Name>)>,
}

pub(super) struct Grace {
    /// A step for the explorer at each call; the state is nothing that it sees.
    step: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug)]
pub(super) struct Guard(Name);

impl State {
    fn name(&mut self) -> Name {
        self.next += 1;
        self.next
    }
}

impl Grace {
    pub(super) fn new() -> Self {
        Self { step: AtomicUsize::new(0), state: Mutex::default() }
    }

    fn step(&self) -> MutexGuard<'_, State> {
        self.step.fetch_add(1, SeqCst); // SeqCst: shuttle has no other
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn pin(&self) -> Guard {
        let mut state = self.step();
        let guard = state.name();
        state.pinned.push(guard);
        Guard(guard)
    }

    pub(super) fn defer(&self) -> Name {
        let mut state = self.step();
        let name = state.name();
        let waits = state.pinned.clone();
        state.deferred.push((name, waits));
        name
    }

    /// Returns what has become ready.
    pub(super) fn unpin(&self, guard: &Guard) -> Vec<Name> {
        let mut state = self.step();
        state.pinned.retain(|other| *other != guard.0);
        let mut ready = Vec::new();
        state.deferred.retain_mut(|(name, waits)| {
            waits.retain(|other| *other != guard.0);
            if waits.is_empty() {
                ready.push(*name);
            }
            !waits.is_empty()
        });
        ready
    }
}
