//! How a path is measured: in rounds, each of which times itself and leaves the world as it was.
//!
//! Whatever a round needs is made once, the first time it runs: a run that measures one function of
//! one group does not build the peers of all the others.

use std::fmt;
use std::fs;
use std::path::{Path as File, PathBuf};
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};
use serde_json::json;

/// The long form. The options of a run, which `ci/bench` gives, take precedence.
#[must_use]
pub fn config() -> Criterion {
    Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .nresamples(10_000)
        .without_plots()
}

/// A path: ours, the floor and the peers, in one group.
pub struct Path<'a> {
    group: BenchmarkGroup<'a, WallTime>,
}

impl fmt::Debug for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Path").finish_non_exhaustive()
    }
}

impl<'a> Path<'a> {
    /// Rounds of this path do the same thing `elements` times.
    pub fn new(criterion: &'a mut Criterion, name: &str, elements: u64) -> Self {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(elements));
        Self { group }
    }

    /// Measures the rounds of one function. Each returns the time that counts.
    pub fn measure<T>(&mut self, name: &str, make: impl FnOnce() -> T, mut round: impl FnMut(&mut T) -> Duration) {
        let mut make = Some(make);
        let mut fixture = None;
        self.group.bench_function(name, |bencher| {
            if let Some(make) = make.take() {
                fixture = Some(make());
            }
            let Some(fixture) = &mut fixture else { return };
            bencher.iter_custom(|rounds| (0..rounds).map(|_| round(fixture)).sum());
        });
    }
}

/// How long it takes.
pub fn timed<R>(work: impl FnOnce() -> R) -> (R, Duration) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed())
}

/// Where a run leaves its records: where criterion does.
#[must_use]
pub fn record_folder() -> PathBuf {
    let target = || std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let workspace = || File::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let criterion = || target().unwrap_or_else(workspace).join("criterion");
    std::env::var_os("CRITERION_HOME").map_or_else(criterion, PathBuf::from)
}

/// Records a figure that criterion cannot take, such as bytes, in criterion's form.
///
/// # Errors
/// The folder cannot be written to.
pub fn record_single(group: &str, function: &str, figure: f64) -> std::io::Result<()> {
    let folder = record_folder().join(group.replace('/', "_")).join(function).join("new");
    fs::create_dir_all(&folder)?;
    let about = json!({ "group_id": group, "function_id": function, "throughput": { "Elements": 1 } });
    fs::write(folder.join("benchmark.json"), about.to_string())?;
    fs::write(folder.join("sample.json"), json!({ "iters": [1.0], "times": [figure] }).to_string())
}
