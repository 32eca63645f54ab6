//! What a soak has to say: while it runs, and in the end.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::args::SoakConfig;
use crate::soak::Soak;
use crate::soak::books::Books;
use crate::soak::op::WEIGHTS;

#[derive(Serialize)]
pub(crate) struct SoakReport {
    seed: u64,
    threads: u16,
    vmos_at_a_time: u64,
    seconds: f64,
    elapsed_s: f64,
    operations: u64,
    operations_per_s: u64,
    accesses: u64,
    accesses_failed: u64,
    accesses_given_up: u64,
    accesses_slept: u64,
    failed_by_detach_or_close: u64,
    timed_out: u64,
    packets: u64,
    user_packets: u64,
    supplied_pages: u64,
    written_back_pages: u64,
    evicted_pages: u64,
    refused_frames: u64,
    vmos: u64,
    checked_lanes: u64,
    compared_pages: u64,
    frames_left: u64,
    by_operation: BTreeMap<String, u64>,
    violations: u64,
    /// The first of them, in words.
    findings: Vec<String>,
    replay: String,
}

impl SoakReport {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "a rate needs no more than 52 bits, and is not negative"
    )]
    pub(crate) fn new(config: &SoakConfig, books: &Books, elapsed: Duration, frames_left: u64) -> Self {
        let figures = &books.figures;
        let rows = WEIGHTS.iter().zip(&figures.operations.0);
        let by_operation: BTreeMap<_, _> = rows.map(|((op, _), count)| (format!("{op:?}"), count.get())).collect();
        let operations = by_operation.values().sum();
        let seconds = config.time.as_secs_f64();
        Self {
            seed: config.seed,
            threads: config.threads,
            vmos_at_a_time: config.vmos,
            seconds,
            elapsed_s: elapsed.as_secs_f64(),
            operations,
            operations_per_s: (operations as f64 / elapsed.as_secs_f64()) as u64,
            accesses: figures.came_home.get(),
            accesses_failed: figures.failed.get(),
            accesses_given_up: figures.gave_up.get(),
            accesses_slept: figures.slept.get(),
            failed_by_detach_or_close: figures.failed_by_detach.get(),
            timed_out: figures.timed_out.get(),
            packets: figures.packets.get(),
            user_packets: figures.user_packets.get(),
            supplied_pages: figures.supplied_pages.get(),
            written_back_pages: figures.written_back_pages.get(),
            evicted_pages: figures.evicted_pages.get(),
            refused_frames: figures.refused_frames.get(),
            vmos: figures.vmos.get(),
            checked_lanes: figures.checked_lanes.get(),
            compared_pages: figures.compared_pages.get(),
            frames_left,
            by_operation,
            violations: books.violations.get(),
            findings: books.findings(),
            replay: format!(
                "upager soak --seconds {seconds} --threads {} --vmos {} --seed {}",
                config.threads, config.vmos, config.seed
            ),
        }
    }

    /// Whether nothing was violated.
    pub(crate) fn holds(&self) -> bool {
        self.violations == 0
    }

    pub(crate) fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
    }

    /// For a person.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        let mut row = |name: &str, value: String| {
            let _ = writeln!(text, "  {name:28} {value}"); // writing to a string does not fail
        };
        row("time", format!("{:.1} s", self.elapsed_s));
        row("threads, VMOs at a time", format!("{}, {}", self.threads, self.vmos_at_a_time));
        row("seed", self.seed.to_string());
        let figures = [
            ("operations", self.operations),
            ("a second", self.operations_per_s),
            ("accesses that came home", self.accesses),
            ("of them failed", self.accesses_failed),
            ("for a detach or a close", self.failed_by_detach_or_close),
            ("went to sleep", self.accesses_slept),
            ("accesses given up", self.accesses_given_up),
            ("requests timed out", self.timed_out),
            ("page requests taken", self.packets),
            ("user packets taken", self.user_packets),
            ("pages supplied", self.supplied_pages),
            ("pages written back", self.written_back_pages),
            ("pages evicted", self.evicted_pages),
            ("frames refused", self.refused_frames),
            ("VMOs", self.vmos),
            ("words checked on the way", self.checked_lanes),
            ("pages compared at the end", self.compared_pages),
            ("frames left", self.frames_left),
            ("violations", self.violations),
        ];
        for (name, figure) in figures {
            row(name, HumanCount(figure).to_string());
        }
        if self.holds() {
            text.push_str("\nEverything held.");
        } else {
            let _ = write!(text, "\nSomething did not hold. Again: {}", self.replay);
        }
        text
    }

    /// What is wrong, in words.
    pub(crate) fn findings(&self) -> &[String] {
        &self.findings
    }
}

/// The line that shows how it goes, on a terminal only.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    started: Instant,
}

impl Progress {
    pub(crate) fn new(time: Duration) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(millis(time));
            let style = ProgressStyle::with_template("{bar:24} {percent:>3}%  {msg}");
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { bar, started: Instant::now() }
    }

    pub(crate) fn show(&self, soak: &Soak) {
        let Some(bar) = &self.bar else { return };
        bar.set_position(millis(self.started.elapsed()));
        let waiting = soak.waiting.load(std::sync::atomic::Ordering::SeqCst); // SeqCst: a figure, any order would do
        bar.set_message(format!(
            "{} operations  {waiting} accesses wait  {} VMOs  {} frames",
            HumanCount(soak.begun()),
            HumanCount(soak.books.figures.vmos.get()),
            HumanCount(soak.memory.frames()),
        ));
    }

    pub(crate) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
