//! The line that shows how a run is going, on a terminal only.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{BinaryBytes, HumanCount, ProgressBar, ProgressStyle};
use upager::PAGE_SIZE;

use crate::args::Config;
use crate::run::engine::Engine;

pub(crate) struct Progress {
    /// `None`: stderr is no terminal.
    bar: Option<ProgressBar>,
    started: Instant,
}

impl Progress {
    pub(crate) fn new(config: &Config, started: Instant) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(millis(config.time));
            let style = ProgressStyle::with_template("{bar:24} {percent:>3}%  {msg}");
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { bar, started }
    }

    pub(crate) fn show(&self, engine: &Engine) {
        let Some(bar) = &self.bar else { return };
        let counts = engine.vmo.counts();
        bar.set_position(millis(self.started.elapsed()));
        bar.set_message(format!(
            "{}  {} faults  {} in flight  {} resident  {} dirty",
            if engine.signals.detached.is_up() { "detached" } else { "attached" },
            HumanCount(counts.requests + counts.joins),
            counts.in_flight,
            BinaryBytes(counts.resident.0 * PAGE_SIZE),
            BinaryBytes(counts.dirty.0 * PAGE_SIZE),
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
