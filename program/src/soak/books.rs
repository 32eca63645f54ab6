//! What the threads of a soak write down: figures, and findings.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;

use parking_lot::{Mutex, RwLock};

use crate::run::Count;
use crate::soak::ledger::Ledger;
use crate::soak::op::WEIGHTS;

/// Findings beyond these are only counted.
const MOST_FINDINGS: usize = 8;

#[derive(Default)]
pub(crate) struct Books {
    pub(crate) figures: Figures,
    pub(crate) ledger: Ledger,
    findings: Mutex<Vec<String>>,
    /// Held by who acts on VMOs that are not his, and altogether by who compares one at its end.
    pub(crate) strangers: RwLock<()>,
    pub(crate) violations: Count,
    found: AtomicBool,
}

/// A figure for each row of [`WEIGHTS`].
pub(crate) struct ByOperation(pub(crate) [Count; WEIGHTS.len()]);

impl Default for ByOperation {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Count::default()))
    }
}

/// Counted by many threads, read when they are home.
#[derive(Default)]
pub(crate) struct Figures {
    /// How often each was done.
    pub(crate) operations: ByOperation,
    /// Accesses that ended, well or not.
    pub(crate) came_home: Count,
    /// Of those, how many failed.
    pub(crate) failed: Count,
    pub(crate) gave_up: Count,
    pub(crate) slept: Count,
    pub(crate) packets: Count,
    pub(crate) user_packets: Count,
    pub(crate) supplied_pages: Count,
    pub(crate) written_back_pages: Count,
    pub(crate) evicted_pages: Count,
    pub(crate) timed_out: Count,
    pub(crate) failed_by_detach: Count,
    pub(crate) checked_lanes: Count,
    pub(crate) vmos: Count,
    /// Pages compared with the model when their VMO ended.
    pub(crate) compared_pages: Count,
    pub(crate) refused_frames: Count,
}

impl Books {
    /// Notes what must not be, for whoever has to find out why. It ends the soak.
    pub(crate) fn find(&self, finding: impl Into<String>) {
        self.violations.add(1);
        let mut findings = self.findings.lock();
        if findings.len() < MOST_FINDINGS {
            findings.push(finding.into());
        }
        self.found.store(true, SeqCst); // SeqCst: as all flags of the program; it orders nothing
    }

    pub(crate) fn has_findings(&self) -> bool {
        self.found.load(SeqCst) // SeqCst: as in `find`
    }

    pub(crate) fn findings(&self) -> Vec<String> {
        self.findings.lock().clone()
    }
}
