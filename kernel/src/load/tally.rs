//! The figures of a run. Relaxed: they order nothing, and are told when nobody counts any more.

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

#[derive(Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, by: u64) {
        self.0.fetch_add(by, Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

macro_rules! tally {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        #[derive(Default)]
        pub(crate) struct Tally {
            $($(#[$doc])* pub(crate) $name: Count,)*
        }

        impl Tally {
            /// Calls `f` with the name of each figure, and the figure.
            pub(crate) fn each(&self, mut f: impl FnMut(&'static str, u64)) {
                $(f(stringify!($name), self.$name.get());)*
            }
        }
    };
}

tally! {
    /// Page faults of the processors.
    faults,
    minor_faults,
    major_faults,
    /// Faults of tasks that were pinned.
    faults_while_pinned,
    /// Of these, those that had to wait, and so failed.
    failed_while_pinned,
    accesses,
    checked_words,
    stored_words,
    supplied_pages,
    written_back_pages,
    /// Pages that the evictor's tasks, and the timer's interrupts, evicted.
    evicted_by_task,
    evicted_by_interrupts,
    /// Pages that the accessed bits told the pager of.
    found_accessed,
    /// Dirty pages that a writeback passed over since they were being written to.
    found_dirty,
    waits_for_memory,
    /// Instructions of the pager at which an interrupt was tried.
    stepped_interrupts,
    /// Accesses begun before a detach that it brought home.
    failed_at_detach,
    served_after_detach,
    refused_after_detach,
    late_supplies,
    detaches,
    /// Requests that the detaches failed.
    in_flight_at_detach,
    first_detach_without_requests,
    dirty_at_detach,
    dropped_at_detach,
    complete_packets,
    packets_after_complete,
    // From here on nothing may be counted.
    wrong_words,
    lost_words,
    unexpected_errors,
    clobbered_red_zones,
    clobbered_registers,
    hung_tasks,
    frames_lost_by_interrupts,
    dirty_in_the_end,
}
