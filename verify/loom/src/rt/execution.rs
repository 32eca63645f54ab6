use crate::rt::alloc::Allocation;
use crate::rt::object::Operation;
use crate::rt::{atomic, lazy_static, object, thread, Access, Path, MAX_THREADS};

use std::collections::HashMap;
use std::fmt;

use tracing::info;

pub(crate) struct Execution {
    /// Uniquely identifies an execution
    pub(super) id: Id,

    /// Execution path taken
    pub(crate) path: Path,

    pub(crate) threads: thread::Set,

    pub(crate) lazy_statics: lazy_static::Set,

    /// All loom aware objects part of this execution run.
    pub(super) objects: object::Store,

    /// The object that stands for all `SeqCst` fences.
    pub(super) fences: object::Ref<atomic::Fences>,

    /// Maps raw allocations to LeakTrack objects
    pub(super) raw_allocations: HashMap<usize, Allocation>,

    pub(crate) arc_objs: HashMap<*const (), std::sync::Arc<super::Arc>>,

    /// Maximum number of concurrent threads
    pub(super) max_threads: usize,

    pub(super) max_history: usize,

    /// Capture locations for significant events
    pub(crate) location: bool,

    /// Log execution output to STDOUT
    pub(crate) log: bool,
}

#[derive(Debug, Eq, PartialEq, Hash, Clone, Copy)]
pub(crate) struct Id(usize);

impl Execution {
    /// Create a new execution.
    ///
    /// This is only called at the start of a fuzz run. The same instance is
    /// reused across permutations.
    pub(crate) fn new(
        max_threads: usize,
        max_branches: usize,
        preemption_bound: Option<usize>,
        exploring: bool,
    ) -> Execution {
        let id = Id::new();
        let threads = thread::Set::new(id, max_threads);

        let preemption_bound =
            preemption_bound.map(|bound| bound.try_into().expect("preemption_bound too big"));

        let mut objects = object::Store::with_capacity(max_branches);
        let fences = objects.insert(atomic::Fences::new());

        Execution {
            id,
            path: Path::new(max_branches, preemption_bound, exploring),
            threads,
            lazy_statics: lazy_static::Set::new(),
            objects,
            fences,
            raw_allocations: HashMap::new(),
            arc_objs: HashMap::new(),
            max_threads,
            max_history: 7,
            location: false,
            log: false,
        }
    }

    /// Create state to track a new thread
    pub(crate) fn new_thread(&mut self) -> thread::Id {
        let thread_id = self.threads.new_thread();
        let active_id = self.threads.active_id();

        let (active, new) = self.threads.active2_mut(thread_id);

        new.causality.join(&active.causality);
        new.dpor_vv.join(&active.dpor_vv);

        // Bump causality in order to ensure CausalCell accurately detects
        // incorrect access when first action.
        new.causality[thread_id] += 1;
        active.causality[active_id] += 1;

        thread_id
    }

    /// Resets the execution state for the next execution run
    pub(crate) fn step(self) -> Option<Self> {
        let id = Id::new();
        let max_threads = self.max_threads;
        let max_history = self.max_history;
        let location = self.location;
        let log = self.log;
        let mut path = self.path;
        let mut objects = self.objects;
        let mut lazy_statics = self.lazy_statics;
        let mut raw_allocations = self.raw_allocations;
        let mut arc_objs = self.arc_objs;

        let mut threads = self.threads;

        if !path.step() {
            return None;
        }

        objects.clear();
        let fences = objects.insert(atomic::Fences::new());
        lazy_statics.reset();
        raw_allocations.clear();
        arc_objs.clear();

        threads.clear(id);

        Some(Execution {
            id,
            path,
            threads,
            objects,
            fences,
            lazy_statics,
            raw_allocations,
            arc_objs,
            max_threads,
            max_history,
            location,
            log,
        })
    }

    /// Returns `true` if a switch is required
    pub(crate) fn schedule(&mut self) -> bool {
        use crate::rt::path::Thread;

        if self.threads.is_alone() {
            return false;
        }

        // Implementation of the DPOR algorithm.

        let curr_thread = self.threads.active_id();

        for (th_id, th) in self.threads.iter() {
            let operation = match th.operation {
                Some(operation)
                    if !self.path.is_double()
                        && self.objects.may_race(operation)
                        && !self.is_settled_later(operation) =>
                {
                    operation
                }
                _ => continue,
            };

            let path = &mut self.path;

            self.objects.each_dependent_access(operation, |access| {
                if access.happens_before(&th.dpor_vv) {
                    // The previous access happened before this access, thus
                    // there is no race.
                    return;
                }

                // Get the point to backtrack to
                let point = access.path_id();

                // Track backtracking point
                path.backtrack(point, th_id);
            });
        }

        // It's important to avoid pre-emption as much as possible
        let mut initial = Some(self.threads.active_id());

        // If the thread is not runnable, then we can pick any arbitrary other
        // runnable thread.
        if !self.threads.active().is_runnable() {
            initial = None;

            for (i, th) in self.threads.iter() {
                if !th.is_runnable() {
                    continue;
                }

                if let Some(ref mut init) = initial {
                    if th.yield_count < self.threads[*init].yield_count {
                        *init = i;
                    }
                } else {
                    initial = Some(i)
                }
            }
        }

        let path_id = self.path.pos();

        let mut operations = [None; MAX_THREADS];
        for (id, th) in self.threads.iter() {
            operations[id.as_usize()] = th.operation;
        }

        let objects = &self.objects;
        let is_independent = |done: &_, next: &_| objects.is_independent(done, next);

        let next = self.path.branch_thread(self.id, operations, is_independent, {
            self.threads.iter().map(|(i, th)| {
                if initial.is_none() && th.is_runnable() {
                    initial = Some(i);
                }

                if initial == Some(i) {
                    Thread::Active
                } else if th.is_yield() {
                    Thread::Yield
                } else if !th.is_runnable() {
                    Thread::Disabled
                } else {
                    Thread::Skip
                }
            })
        });

        let switched = Some(self.threads.active_id()) != next;

        self.threads.set_active(next);

        // There is no active thread. Unless all threads have terminated, the
        // test has deadlocked.
        if !self.threads.is_active() {
            let terminal = self.threads.iter().all(|(_, th)| th.is_terminated());

            assert!(
                terminal,
                "deadlock; threads = {:?}",
                self.threads
                    .iter()
                    .map(|(i, th)| { (i, th.state) })
                    .collect::<Vec<_>>()
            );

            return true;
        }

        // TODO: refactor
        let operation = self.threads.active().operation;
        self.threads.active_mut().dpor_before = self.threads.active().dpor_vv;

        if operation.map_or(false, |operation| operation.may_fail()) {
            self.threads.active_mut().unsettled = operation.map(|operation| (operation, path_id));
        } else {
            self.settle_active(operation, path_id, false);
        }

        // Reactivate yielded threads, but only if the current active thread is
        // not yielded.
        for (id, th) in self.threads.iter_mut() {
            if th.is_yield() && Some(id) != next {
                th.set_runnable();
            }
        }

        if switched {
            info!("~~~~~~~~ THREAD {} ~~~~~~~~", self.threads.active_id());
        }

        curr_thread != self.threads.active_id()
    }

    /// Whether the races of an operation are looked for when it is done, and not while it is to come:
    /// what blocks is done when nothing is in its way any more.
    fn is_settled_later(&self, operation: Operation) -> bool {
        !self.objects.may_block(operation)
    }

    /// Settles the active thread's operation that has just been done, if only that shows what it
    /// was. One that has failed was a load.
    pub(super) fn settle(&mut self, has_failed: bool) {
        if let Some((operation, path_id)) = self.threads.active_mut().unsettled.take() {
            let operation = if has_failed { operation.failed() } else { operation };

            self.settle_active(Some(operation), path_id, has_failed);
        }
    }

    /// Notes that the active thread's operation comes after those that it depends on, and has the
    /// orders be explored in which it comes before one of them.
    fn settle_active(&mut self, operation: Option<Operation>, path_id: usize, has_failed: bool) {
        let th_id = self.threads.active_id();
        let before = self.threads.active().dpor_before;
        let mut version = before;

        let seeks_races = operation.map_or(false, |operation| self.is_settled_later(operation))
            && !self.path.is_double()
            && !self.path.is_repeated(path_id);
        let mut racing = Vec::new();

        if let Some(operation) = operation {
            self.objects.each_dependent_access(operation, |access| {
                version.join(access.version());

                if seeks_races && !access.happens_before(&before) {
                    racing.push(access);
                }
            });
        }

        version[th_id] += 1;
        self.threads.active_mut().dpor_vv = version;
        self.path.settle(path_id, operation, has_failed, &version);

        for access in &racing {
            // One that comes before another of them could not come after it only
            let is_last = |other: &&Access| {
                other.path_id() == access.path_id() || !access.happens_before(other.version())
            };

            if self.path.is_bounded() {
                self.path.backtrack(access.path_id(), th_id);
            } else if racing.iter().all(is_last) {
                self.path.reverse(access.path_id(), path_id, th_id, &version);
            }
        }

        if let Some(operation) = operation {
            self.objects.set_last_access(operation, th_id, path_id, &version);
        }
    }

    /// Panics if any leaks were detected
    pub(crate) fn check_for_leaks(&self) {
        self.objects.check_for_leaks();
    }
}

impl fmt::Debug for Execution {
    fn fmt(&self, fmt: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt.debug_struct("Execution")
            .field("path", &self.path)
            .field("threads", &self.threads)
            .finish()
    }
}

impl Id {
    pub(crate) fn new() -> Id {
        use std::sync::atomic::AtomicUsize;
        use std::sync::atomic::Ordering::Relaxed;

        // The number picked here is arbitrary. It is mostly to avoid collision
        // with "zero" to aid with debugging.
        static NEXT_ID: AtomicUsize = AtomicUsize::new(46_413_762);

        let next = NEXT_ID.fetch_add(1, Relaxed);

        Id(next)
    }
}
