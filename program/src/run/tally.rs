//! The figures of a run, counted by many threads, and the findings: sentences about what is wrong.
//!
//! Relaxed throughout: a figure orders nothing, and the report is made after the threads that count
//! have been joined. The one exception is [`Tally::completed`], which says what came after COMPLETE.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Mutex, PoisonError};

use upager::{Command, Packet};

/// Findings beyond these are only counted.
const MOST_FINDINGS: usize = 8;

/// One figure.
#[derive(Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, by: u64) {
        self.0.fetch_add(by, Relaxed);
    }

    pub(crate) fn raise_to(&self, at_least: u64) {
        self.0.fetch_max(at_least, Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) reads: Count,
    pub(crate) writes: Count,
    pub(crate) checked_bytes: Count,
    pub(crate) supplied_pages: Count,
    pub(crate) evicted_pages: Count,
    pub(crate) written_back_pages: Count,
    pub(crate) waits_for_memory: Count,
    pub(crate) most_frames: Count,
    /// Pages that were dirty when the detach returned.
    pub(crate) dirty_at_detach: Count,
    /// Accesses begun before the detach that it brought home.
    pub(crate) failed_at_detach: Count,
    /// Accesses begun after it that needed the pager.
    pub(crate) refused_after_detach: Count,
    /// Accesses that succeeded after it.
    pub(crate) served_after_detach: Count,
    /// Supplies that came after the detach and were refused.
    pub(crate) late_supplies: Count,
    pub(crate) mismatched_bytes: Count,
    pub(crate) lost_dirty_bytes: Count,
    pub(crate) complete_packets: Count,
    pub(crate) packets_after_complete: Count,
    completed: AtomicBool,
    findings: Mutex<Vec<String>>,
}

impl Tally {
    /// Whether COMPLETE has been taken. Whatever a call to the port that begins after that brings,
    /// came after COMPLETE.
    pub(crate) fn completed(&self) -> bool {
        self.completed.load(SeqCst) // SeqCst: it is about before and after, between threads
    }

    /// Counts packets as the port gave them; `completed` was asked for before the port was.
    pub(crate) fn packets(&self, packets: &[Packet], completed: bool) {
        let mut completed = completed;
        for packet in packets {
            self.packets_after_complete.add(completed.into());
            if packet.command() == Some(Command::Complete) {
                self.complete_packets.add(1);
                self.completed.store(true, SeqCst); // SeqCst: as in `completed`
                completed = true;
            }
        }
    }

    /// Notes something wrong, in words, for whoever has to find out why.
    pub(crate) fn find(&self, finding: impl FnOnce() -> String) {
        let mut findings = self.findings.lock().unwrap_or_else(PoisonError::into_inner);
        if findings.len() < MOST_FINDINGS {
            findings.push(finding());
        }
    }

    pub(crate) fn findings(&self) -> Vec<String> {
        self.findings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_complete_is_counted() {
        let read = Packet::page_request(1, Command::Read, 0, 4096);
        let complete = Packet::page_request(1, Command::Complete, 0, 0);
        let tally = Tally::default();
        tally.packets(&[read, complete], tally.completed());
        assert_eq!((tally.complete_packets.get(), tally.packets_after_complete.get()), (1, 0));
        tally.packets(&[read, complete, read], tally.completed());
        assert_eq!((tally.complete_packets.get(), tally.packets_after_complete.get()), (2, 3));
    }
}
