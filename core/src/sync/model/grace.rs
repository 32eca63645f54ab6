//! Guards, and what is deferred until those are gone that were there: what `loom::sync::Grace` is to loom.

use alloc::vec::Vec;
extern crate std;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::super::explorer::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// How many were deferred before.
pub(super) type Name = usize;

#[derive(Default)]
struct State {
    next: usize,
    count: Name,
    pinned: Vec<usize>,
    /// Each with the guards that it still waits for.
    deferred: Vec<(Name, Vec<usize>)>,
}

pub(super) struct Grace {
    /// A step for the explorer at each call; the state is nothing that it sees.
    step: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug)]
pub(super) struct Guard(usize);

impl Grace {
    pub(super) fn new() -> Self {
        Self { step: AtomicUsize::new(0), state: Mutex::default() }
    }

    fn step(&self) -> MutexGuard<'_, State> {
        self.step.fetch_add(1, SeqCst);
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn pin(&self) -> Guard {
        let mut state = self.step();
        let guard = state.next;
        state.next += 1;
        state.pinned.push(guard);
        Guard(guard)
    }

    pub(super) fn defer(&self) -> Name {
        let mut state = self.step();
        let name = state.count;
        state.count += 1;
        let waits = state.pinned.clone();
        state.deferred.push((name, waits));
        name
    }

    /// Returns what has become ready.
    pub(super) fn unpin(&self, guard: &Guard) -> Vec<Name> {
        let mut state = self.step();
        state.pinned.retain(|other| *other != guard.0);
        for (_, waits) in &mut state.deferred {
            waits.retain(|other| *other != guard.0);
        }
        let (ready, rest) = core::mem::take(&mut state.deferred).into_iter().partition(|(_, waits)| waits.is_empty());
        state.deferred = rest;
        let ready: Vec<(Name, Vec<usize>)> = ready;
        ready.into_iter().map(|(name, _)| name).collect()
    }
}
