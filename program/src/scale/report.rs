//! What was measured: for a person, for a script, and as a picture.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use crate::args::ScaleConfig;
use crate::failure::Failure;
use crate::scale::load::Load;
use crate::scale::plot;

/// One load with one number of threads.
#[derive(Serialize)]
pub(crate) struct Point {
    pub(crate) load: Load,
    pub(crate) threads: u16,
    /// Of each round.
    operations_per_s: Vec<f64>,
}

impl Point {
    pub(crate) fn new(load: Load, threads: u16) -> Self {
        Self { load, threads, operations_per_s: Vec::new() }
    }

    pub(crate) fn add(&mut self, operations_per_s: f64) {
        self.operations_per_s.push(operations_per_s);
    }

    /// The median of the rounds; of two in the middle the upper.
    fn figure(&self) -> f64 {
        let mut sorted = self.operations_per_s.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    }

    /// Half of what lies between the best and the worst round, in parts of the figure.
    fn spread(&self) -> f64 {
        let most = self.operations_per_s.iter().copied().fold(0.0, f64::max);
        let least = self.operations_per_s.iter().copied().fold(f64::INFINITY, f64::min);
        (most - least) / 2.0 / self.figure()
    }
}

#[derive(Serialize)]
struct Row {
    load: Load,
    threads: u16,
    operations_per_s: f64,
    spread: f64,
    /// In times what the fewest threads do.
    speed_up: f64,
    rounds: Vec<f64>,
}

/// All points.
#[derive(Serialize)]
pub(crate) struct ScaleReport {
    processors: u16,
    pages: u64,
    seconds: f64,
    points: Vec<Row>,
}

impl ScaleReport {
    pub(crate) fn new(config: &ScaleConfig, points: &[Point]) -> Self {
        let base = |load| points.iter().find(|point| point.load == load).map_or(0.0, Point::figure);
        let row = |point: &Point| Row {
            load: point.load,
            threads: point.threads,
            operations_per_s: point.figure(),
            spread: point.spread(),
            speed_up: point.figure() / base(point.load),
            rounds: point.operations_per_s.clone(),
        };
        Self {
            processors: config.processors,
            pages: config.pages,
            seconds: config.time.as_secs_f64(),
            points: points.iter().map(row).collect(),
        }
    }

    pub(crate) fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
    }

    /// For a person.
    pub(crate) fn table(&self) -> String {
        let mut text =
            format!("{} processors, {} pages; millions of operations a second\n\n", self.processors, self.pages);
        // Writing to a string does not fail.
        let _ = writeln!(text, "{:16} {:>8} {:>12} {:>8} {:>10}", "load", "threads", "in all", "spread", "speed-up");
        for row in &self.points {
            let millions = row.operations_per_s / 1e6;
            let (name, threads, spread) = (row.load.name(), row.threads, row.spread * 100.0);
            let _ = writeln!(text, "{name:16} {threads:>8} {millions:>12.2} {spread:>7.0}% {:>10.2}", row.speed_up);
        }
        text.push_str("\nspeed-up: times what the fewest threads do.");
        if self.points.iter().any(|row| row.threads > self.processors) {
            text.push_str(" More threads than processors take turns.");
        }
        text
    }

    /// Writes the plot.
    ///
    /// Errors: `file` cannot be written.
    pub(crate) fn plot(&self, file: &Path) -> Result<(), Failure> {
        let mut lines: Vec<(&str, Vec<(f64, f64)>)> = Vec::new();
        for row in &self.points {
            let at = (f64::from(row.threads), row.speed_up);
            match lines.last_mut() {
                Some((name, points)) if *name == row.load.name() => points.push(at),
                _ => lines.push((row.load.name(), vec![at])),
            }
        }
        plot::write(file, &lines).map_err(|problem| Failure::Plot { path: file.to_owned(), problem })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_the_median_and_the_spread_half_of_the_range() {
        let mut point = Point::new(Load::Lookup, 1);
        for figure in [30.0, 10.0, 20.0] {
            point.add(figure);
        }
        assert_eq!(point.figure().to_bits(), 20.0_f64.to_bits());
        assert_eq!(point.spread().to_bits(), 0.5_f64.to_bits());
    }
}
