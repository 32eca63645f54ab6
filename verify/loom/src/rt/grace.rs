use crate::rt::object;
use crate::rt::{
    self, thread, Access, Accesses, Location, Synchronize, VersionVec, MAX_THREADS,
};

use std::sync::atomic::Ordering::{Acquire, Release};

use tracing::trace;

/// Guards, and what is deferred until those are gone that were there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grace {
    state: object::Ref<State>,
}

#[derive(Debug)]
pub(super) struct State {
    /// The number of the next guard
    next: usize,

    /// The guards that are there
    pinned: Vec<usize>,

    /// How many things each thread deferred
    counts: [usize; MAX_THREADS],

    /// What has not become ready
    deferred: Vec<Deferred>,

    /// What happened before something was deferred. Each pin comes after it.
    retired: Synchronize,

    /// What happened before the end of a guard. What is deferred later becomes ready after it.
    unpinned: Synchronize,

    /// Whether something waited for the guard that ended last
    last_was_waited_for: bool,

    /// Tracks access to the object
    accesses: Accesses<4>,
}

#[derive(Debug)]
struct Deferred {
    name: Name,

    /// The guards that it waits for
    waits_for: Vec<usize>,

    /// What has to have happened before it becomes ready
    after: Synchronize,
}

/// What was deferred, by whom it was and how many he deferred before: the same whatever others do.
pub(crate) type Name = (usize, usize);

/// What is deferred changes places with no pin and no end of a guard, since it waits for that guard
/// or does not. Two guards' ends change places unless something may wait for both: the last makes
/// it ready. All else has no order.
#[derive(Debug, Copy, Clone, PartialEq)]
pub(super) enum Action {
    Pin,
    Defer,
    /// The end of this guard
    Unpin(usize),
}

const PIN: usize = 0;
const DEFER: usize = 1;
const UNPIN: usize = 2;
const WAITED_FOR: usize = 3;

impl Grace {
    pub(crate) fn new() -> Grace {
        rt::execution(|execution| {
            let state = execution.objects.insert(State {
                next: 0,
                pinned: Vec::new(),
                counts: [0; MAX_THREADS],
                deferred: Vec::new(),
                retired: Synchronize::new(),
                unpinned: Synchronize::new(),
                last_was_waited_for: false,
                accesses: Accesses::new(),
            });

            trace!(?state, "Grace::new");

            Grace { state }
        })
    }

    /// Makes a guard.
    pub(crate) fn pin(&self, location: Location) -> usize {
        self.state.branch_action(Action::Pin, location);

        rt::execution(|execution| {
            let state = self.state.get_mut(&mut execution.objects);
            let guard = state.next;

            state.next += 1;
            state.pinned.push(guard);
            state.retired.sync_load(&mut execution.threads, Acquire);

            guard
        })
    }

    /// Defers something until the guards that are there have ended.
    pub(crate) fn defer(&self, location: Location) -> Name {
        self.state.branch_action(Action::Defer, location);

        rt::execution(|execution| {
            let state = self.state.get_mut(&mut execution.objects);
            let thread = execution.threads.active_id().as_usize();
            let name = (thread, state.counts[thread]);
            let mut after = state.unpinned;

            state.counts[thread] += 1;
            after.sync_store(&mut execution.threads, Release);
            state.retired.sync_store(&mut execution.threads, Release);
            state.deferred.push(Deferred {
                name,
                waits_for: state.pinned.clone(),
                after,
            });

            name
        })
    }

    /// Ends a guard. Returns what has become ready by that.
    pub(crate) fn unpin(&self, guard: usize, location: Location) -> Vec<Name> {
        self.state.branch_action(Action::Unpin(guard), location);

        rt::execution(|execution| {
            let threads = &mut execution.threads;
            let state = self.state.get_mut(&mut execution.objects);
            let mut ready = Vec::new();

            state.last_was_waited_for = state.is_waited_for(guard);
            state.pinned.retain(|&pinned| pinned != guard);
            state.unpinned.sync_store(threads, Release);

            state.deferred.retain_mut(|deferred| {
                if let Some(at) = deferred.waits_for.iter().position(|&other| other == guard) {
                    deferred.waits_for.swap_remove(at);
                    deferred.after.sync_store(threads, Release);
                }
                if deferred.waits_for.is_empty() {
                    deferred.after.sync_load(threads, Acquire);
                    ready.push(deferred.name);
                }
                !deferred.waits_for.is_empty()
            });

            // Two that were deferred may have changed places
            ready.sort_unstable();
            ready
        })
    }
}

impl State {
    /// Whether the end of this guard may make something ready, or may keep another's from it.
    fn is_waited_for(&self, guard: usize) -> bool {
        self.deferred
            .iter()
            .any(|deferred| deferred.waits_for.contains(&guard))
    }

    pub(super) fn dependent_accesses(&self, action: Action) -> impl Iterator<Item = &Access> {
        self.accesses.of(match action {
            Action::Pin => &[DEFER],
            Action::Defer => &[PIN, UNPIN, WAITED_FOR],
            Action::Unpin(guard) if self.is_waited_for(guard) => &[DEFER, WAITED_FOR],
            Action::Unpin(_) => &[DEFER],
        })
    }

    /// Whether the order of two actions by different threads makes no difference, when one of
    /// them is done and the other is not.
    pub(super) fn is_independent(&self, done: Action, next: Action) -> bool {
        match (done, next) {
            (Action::Pin, Action::Defer) | (Action::Defer, Action::Pin) => false,
            (Action::Unpin(_), Action::Defer) | (Action::Defer, Action::Unpin(_)) => false,
            // What waited for both still waits for the one that is there
            (Action::Unpin(_), Action::Unpin(guard)) => {
                !(self.last_was_waited_for && self.is_waited_for(guard))
            }
            _ => true,
        }
    }

    pub(super) fn set_last_access(
        &mut self,
        action: Action,
        thread: thread::Id,
        path_id: usize,
        version: &VersionVec,
    ) {
        let kind = match action {
            Action::Pin => PIN,
            Action::Defer => DEFER,
            Action::Unpin(guard) if self.is_waited_for(guard) => WAITED_FOR,
            Action::Unpin(_) => UNPIN,
        };
        self.accesses.set(kind, thread, path_id, version);
    }
}
