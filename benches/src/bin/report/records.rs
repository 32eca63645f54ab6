//! What a run has recorded: for each function of each group, one figure a round.
//!
//! A round is a run of all benches, with a folder of its own, so ours and the peers of one round have
//! met the same weather. Ratios are taken within a round.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

/// By group and function, and then by round.
#[derive(Debug, Default)]
pub(crate) struct Records(BTreeMap<String, BTreeMap<String, BTreeMap<String, f64>>>);

/// A figure of several rounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Figure {
    fn of(mut rounds: Vec<f64>) -> Option<Self> {
        rounds.sort_by(f64::total_cmp);
        let (least, most) = (*rounds.first()?, *rounds.last()?);
        Some(Self { median: middle(&rounds), least, most })
    }

    /// Half of what lies between the least and the most, as a part of the median.
    pub(crate) fn spread(&self) -> f64 {
        (self.most - self.least) / 2.0 / self.median
    }
}

fn middle(sorted: &[f64]) -> f64 {
    let (half, odd) = (sorted.len() / 2, sorted.len() % 2 == 1);
    if odd { sorted[half] } else { f64::midpoint(sorted[half - 1], sorted[half]) }
}

impl Records {
    /// Those in the folders `round-*` of `folder`.
    pub(crate) fn read(folder: &Path) -> Self {
        let mut records = Self::default();
        for round in folders(folder) {
            let name = round.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with("round-") {
                records.collect(&name, &round);
            }
        }
        records
    }

    /// Adds the results found in a folder `new`, and in all folders below any other.
    fn collect(&mut self, round: &str, folder: &Path) {
        for below in folders(folder) {
            if !below.ends_with("new") {
                self.collect(round, &below);
            } else if let Some((group, function, figure)) = read(&below) {
                self.0.entry(group).or_default().entry(function).or_default().insert(round.to_owned(), figure);
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn groups(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// How many rounds there are at most.
    pub(crate) fn rounds(&self) -> usize {
        self.0.values().flat_map(BTreeMap::values).map(BTreeMap::len).max().unwrap_or(0)
    }

    /// The functions of a group.
    pub(crate) fn functions(&self, group: &str) -> impl Iterator<Item = &str> {
        self.0.get(group).into_iter().flat_map(BTreeMap::keys).map(String::as_str)
    }

    fn of(&self, group: &str, function: &str) -> Option<&BTreeMap<String, f64>> {
        self.0.get(group)?.get(function)
    }

    pub(crate) fn figure(&self, group: &str, function: &str) -> Option<Figure> {
        Figure::of(self.of(group, function)?.values().copied().collect())
    }

    /// One function by another, within rounds. Each is named by group and function.
    pub(crate) fn ratio(&self, of: (&str, &str), by: (&str, &str)) -> Option<Figure> {
        let (of, by) = (self.of(of.0, of.1)?, self.of(by.0, by.1)?);
        Figure::of(of.iter().filter_map(|(round, of)| Some(of / by.get(round)?)).collect())
    }
}

fn folders(folder: &Path) -> impl Iterator<Item = std::path::PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir())
}

/// One result of criterion's: what an element took, in nanoseconds; the median of its samples.
fn read(folder: &Path) -> Option<(String, String, f64)> {
    let json = |name| serde_json::from_str::<Value>(&fs::read_to_string(folder.join(name)).ok()?).ok();
    let (about, sample) = (json("benchmark.json")?, json("sample.json")?);
    let name = |key: &str| about[key].as_str().map(str::to_owned);
    let elements = about["throughput"]["Elements"].as_f64()?;
    let numbers = |key: &str| sample[key].as_array().into_iter().flatten().filter_map(Value::as_f64);
    let mut each: Vec<f64> = numbers("times").zip(numbers("iters")).map(|(time, rounds)| time / rounds).collect();
    each.sort_by(f64::total_cmp);
    (!each.is_empty()).then_some((name("group_id")?, name("function_id")?, middle(&each) / elements))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is(figure: f64, expected: f64) -> bool {
        (figure - expected).abs() < 1e-9
    }

    #[test]
    fn a_figure_is_the_median_of_its_rounds() {
        let figure = Figure::of(vec![4.0, 1.0, 2.0]).unwrap();
        assert!(is(figure.median, 2.0) && is(figure.least, 1.0) && is(figure.most, 4.0));
        assert!(is(Figure::of(vec![1.0, 2.0]).unwrap().median, 1.5));
        assert!(Figure::of(Vec::new()).is_none());
    }

    #[test]
    fn a_ratio_is_taken_within_each_round() {
        let mut records = Records::default();
        for (round, weather) in [("round-1", 1.0), ("round-2", 10.0), ("round-3", 2.0)] {
            let mut add = |function: &str, figure| {
                let group = records.0.entry("group".to_owned()).or_default();
                group.entry(function.to_owned()).or_default().insert(round.to_owned(), figure * weather);
            };
            add("ours", 3.0);
            add("floor", 2.0);
        }
        let ratio = records.ratio(("group", "ours"), ("group", "floor")).unwrap();
        assert!(is(ratio.least, 1.5) && is(ratio.most, 1.5));
        assert!(records.figure("group", "ours").unwrap().spread() > 1.0);
    }
}
