//! What a run has to say: one struct, as a JSON object or as a table.
//!
//! The meaning of each figure that is not plain is in `upager run --help`.

use std::fmt::Write;
use std::time::Duration;

use indicatif::{BinaryBytes, HumanCount, HumanFloatCount};
use serde::Serialize;
use upager::{Detached, PAGE_SIZE, VmoCounts};

use crate::args::Config;
use crate::run::Tally;

/// How long a run took.
#[derive(Clone, Copy, Default)]
pub(crate) struct Times {
    /// Until the detach; without one, until the time was over.
    pub(crate) attached: Duration,
    /// Until everyone was home.
    pub(crate) total: Duration,
}

#[derive(Default, Serialize)]
pub(crate) struct Report {
    file: String,
    size: u64,
    pages: u64,
    seed: u64,
    readers: u16,
    writers: u16,
    service_threads: u16,
    resident_bytes: u64,
    /// Whether readers and writers touched memory.
    mapped: bool,
    detached: bool,
    elapsed_s: f64,
    attached_s: f64,
    faults: u64,
    faults_per_s: f64,
    requests: u64,
    joined: u64,
    reads: u64,
    writes: u64,
    checked_bytes: u64,
    supplied_pages: u64,
    evicted_pages: u64,
    written_back_pages: u64,
    most_frames: u64,
    waits_for_memory: u64,
    in_flight_at_detach: u64,
    failed_at_detach: u64,
    dropped_at_detach: u64,
    dirty_at_detach: u64,
    late_supplies: u64,
    served_after_detach: u64,
    refused_after_detach: u64,
    hung_threads: u64,
    mismatched_bytes: u64,
    lost_dirty_bytes: u64,
    complete_packets: u64,
    packets_after_complete: u64,
    /// Frames that nobody gave back in the end.
    pub(crate) frames_left: u64,
    /// What is wrong, in words. Told on stderr.
    #[serde(skip)]
    pub(crate) findings: Vec<String>,
}

impl Report {
    pub(crate) fn new(config: &Config, times: Times, detached: Option<Detached>, hung: u64) -> Self {
        let found = detached.unwrap_or_default();
        Self {
            file: config.file.path().display().to_string(),
            size: config.file.size(),
            pages: config.file.pages(),
            seed: config.seed,
            readers: config.readers,
            writers: config.writers,
            service_threads: config.service_threads,
            resident_bytes: config.resident_pages * PAGE_SIZE,
            mapped: !config.api,
            detached: detached.is_some(),
            elapsed_s: times.total.as_secs_f64(),
            attached_s: times.attached.as_secs_f64(),
            in_flight_at_detach: found.failed_requests,
            dropped_at_detach: found.dropped_pages.0,
            hung_threads: hung,
            ..Self::default()
        }
    }

    /// Takes over the figures that the VMO keeps itself.
    #[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 52 bits")]
    pub(crate) fn count_vmo(&mut self, counts: &VmoCounts) {
        self.requests = counts.requests;
        self.joined = counts.joins;
        self.faults = counts.requests + counts.joins;
        self.faults_per_s = self.faults as f64 / self.attached_s;
    }

    /// Takes over what the threads counted.
    pub(crate) fn count(&mut self, tally: &Tally) {
        self.reads = tally.reads.get();
        self.writes = tally.writes.get();
        self.checked_bytes = tally.checked_bytes.get();
        self.supplied_pages = tally.supplied_pages.get();
        self.evicted_pages = tally.evicted_pages.get();
        self.written_back_pages = tally.written_back_pages.get();
        self.most_frames = tally.most_frames.get();
        self.waits_for_memory = tally.waits_for_memory.get();
        self.failed_at_detach = tally.failed_at_detach.get();
        self.dirty_at_detach = tally.dirty_at_detach.get();
        self.late_supplies = tally.late_supplies.get();
        self.served_after_detach = tally.served_after_detach.get();
        self.refused_after_detach = tally.refused_after_detach.get();
        self.mismatched_bytes = tally.mismatched_bytes.get();
        self.lost_dirty_bytes = tally.lost_dirty_bytes.get();
        self.complete_packets = tally.complete_packets.get();
        self.packets_after_complete = tally.packets_after_complete.get();
        self.findings = tally.findings();
    }

    /// Whether nothing hung, nothing was wrong, nothing was lost, and COMPLETE came once and last.
    pub(crate) fn holds(&self) -> bool {
        self.promises().iter().all(|(_, is, must_be)| is == must_be)
    }

    /// What was promised: its name, what was found, and what must be.
    fn promises(&self) -> [(&'static str, u64, u64); 5] {
        [
            ("threads that hang", self.hung_threads, 0),
            ("bytes read wrong", self.mismatched_bytes, 0),
            ("dirty bytes lost", self.lost_dirty_bytes, 0),
            ("COMPLETE packets", self.complete_packets, 1),
            ("packets after COMPLETE", self.packets_after_complete, 0),
        ]
    }

    pub(crate) fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
    }

    /// The table for a person.
    pub(crate) fn table(&self) -> String {
        let mut table = Table::default();
        table.head(&format!("upager run {}", self.file));
        table.row("file", format!("{}, {} pages", BinaryBytes(self.size), HumanCount(self.pages)));
        table.row(
            "threads",
            format!("{} readers, {} writers, {} service", self.readers, self.writers, self.service_threads),
        );
        table.row("access", if self.mapped { "by touching memory" } else { "by calls" });
        table.row("resident, wish", BinaryBytes(self.resident_bytes));
        table.row("resident, most", BinaryBytes(self.most_frames * PAGE_SIZE));
        table.row("time", format!("{:.2} s, {:.2} s of it attached", self.elapsed_s, self.attached_s));
        table.row("seed", self.seed);

        table.head("Faults");
        table.row("faults", HumanCount(self.faults));
        table.row("a second", HumanFloatCount(self.faults_per_s.round()));
        table.row("requests made", HumanCount(self.requests));
        table.row("requests joined", HumanCount(self.joined));

        table.head("Pages");
        table.row("supplied", HumanCount(self.supplied_pages));
        table.row("evicted", HumanCount(self.evicted_pages));
        table.row("written back", HumanCount(self.written_back_pages));
        table.row("waits for memory", HumanCount(self.waits_for_memory));

        table.head("Load");
        table.row("reads", HumanCount(self.reads));
        table.row("writes", HumanCount(self.writes));
        table.row("checked", BinaryBytes(self.checked_bytes));

        if self.detached {
            table.head("Detach");
            table.row("requests in flight", HumanCount(self.in_flight_at_detach));
            table.row("accesses it failed", HumanCount(self.failed_at_detach));
            table.row("clean pages dropped", HumanCount(self.dropped_at_detach));
            table.row("dirty pages kept", HumanCount(self.dirty_at_detach));
            table.row("supplied too late", HumanCount(self.late_supplies));
            table.row("served after it", HumanCount(self.served_after_detach));
            table.row("refused after it", HumanCount(self.refused_after_detach));
        }

        table.head("Verdict");
        for (name, is, must_be) in self.promises() {
            table.row(name, format!("{}  {}", HumanCount(is), if is == must_be { "ok" } else { "WRONG" }));
        }
        table.end(if self.holds() { "Everything held." } else { "Something did not hold." })
    }
}

/// Two columns under headings.
#[derive(Default)]
struct Table(String);

const INDENT: usize = 2;
const NAMES: usize = 24;
const WIDTH: usize = 60;

impl Table {
    fn line(&mut self, text: &str) {
        self.0.push_str(text.trim_end());
        self.0.push('\n');
    }

    fn head(&mut self, title: &str) {
        if !self.0.is_empty() {
            self.line("");
        }
        let rule = "─".repeat(WIDTH.saturating_sub(title.chars().count() + 1));
        self.line(&format!("{title} {rule}"));
    }

    fn row(&mut self, name: &str, value: impl std::fmt::Display) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "{:INDENT$}{name:NAMES$} {value}", "");
    }

    fn end(mut self, verdict: &str) -> String {
        self.line("");
        self.0.push_str(verdict);
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_promise_counts() {
        let good = || Report { complete_packets: 1, ..Report::default() };
        assert!(good().holds());
        let broken: [fn(&mut Report); 6] = [
            |report| report.hung_threads = 1,
            |report| report.mismatched_bytes = 1,
            |report| report.lost_dirty_bytes = 1,
            |report| report.complete_packets = 0,
            |report| report.complete_packets = 2,
            |report| report.packets_after_complete = 1,
        ];
        for breaks in broken {
            let mut report = good();
            breaks(&mut report);
            assert!(!report.holds());
            assert!(report.table().contains("WRONG"));
        }
    }
}
