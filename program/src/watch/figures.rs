//! What is known of a program at one time.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};
use upager::{PAGE_SIZE, VmoCounts};
use upager_linux::StageLatency;

#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// The command that it runs.
    pub(crate) command: String,
    /// What it pages from.
    pub(crate) source: String,
    pub(crate) pid: u32,
    pub(crate) up_s: f64,
    /// Counted since it began, by name.
    pub(crate) totals: BTreeMap<String, u64>,
    /// As it is now, by name.
    pub(crate) levels: BTreeMap<String, u64>,
    pub(crate) vmos: Vec<VmoFigures>,
    pub(crate) latencies: Vec<LatencyFigures>,
}

#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct VmoFigures {
    pub(crate) key: u64,
    pub(crate) size: u64,
    pub(crate) resident_bytes: u64,
    pub(crate) dirty_bytes: u64,
    pub(crate) in_flight: u64,
    pub(crate) requests: u64,
    pub(crate) joined: u64,
    pub(crate) evictions: u64,
    pub(crate) rescues: u64,
}

#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct LatencyFigures {
    pub(crate) stage: String,
    pub(crate) count: u64,
    pub(crate) median_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) longest_us: f64,
}

/// A figure of a VMO for Prometheus: its name, its kind, what it is, and where to find it.
type OfVmo = (&'static str, &'static str, &'static str, fn(&VmoFigures) -> u64);

impl VmoFigures {
    pub(crate) fn new(key: u64, size: u64, counts: &VmoCounts) -> Self {
        Self {
            key,
            size,
            resident_bytes: counts.resident.0 * PAGE_SIZE,
            dirty_bytes: counts.dirty.0 * PAGE_SIZE,
            in_flight: counts.in_flight,
            requests: counts.requests,
            joined: counts.joins,
            evictions: counts.evictions,
            rescues: counts.rescues,
        }
    }
}

impl From<&StageLatency> for LatencyFigures {
    fn from(of: &StageLatency) -> Self {
        let us = |time: std::time::Duration| (time.as_secs_f64() * 1e7).round() / 10.0;
        Self {
            stage: of.stage.to_string(),
            count: of.count,
            median_us: us(of.median),
            p99_us: us(of.p99),
            p999_us: us(of.p999),
            longest_us: us(of.longest),
        }
    }
}

impl Figures {
    /// In Prometheus's text format.
    pub(crate) fn prometheus(&self) -> String {
        let mut text = Text(String::new());
        let program =
            [("command", self.command.clone()), ("source", self.source.clone()), ("pid", self.pid.to_string())];
        text.family("info", "gauge", "What runs.", [(&program[..], 1.0)]);
        text.family("up_seconds", "gauge", "Since it began.", [(&[][..], self.up_s)]);
        for (name, total) in &self.totals {
            text.family(&format!("{name}_total"), "counter", "Since it began.", [(&[][..], number(*total))]);
        }
        for (name, level) in &self.levels {
            text.family(name, "gauge", "Now.", [(&[][..], number(*level))]);
        }
        let of_vmos: [OfVmo; 8] = [
            ("vmo_size_bytes", "gauge", "Size of a VMO.", |vmo| vmo.size),
            ("vmo_resident_bytes", "gauge", "What of it is in memory.", |vmo| vmo.resident_bytes),
            ("vmo_dirty_bytes", "gauge", "What of that is not written back.", |vmo| vmo.dirty_bytes),
            ("vmo_requests_in_flight", "gauge", "Page requests that are not answered.", |vmo| vmo.in_flight),
            ("vmo_requests_total", "counter", "Page requests made.", |vmo| vmo.requests),
            ("vmo_joined_total", "counter", "Faults that joined a request.", |vmo| vmo.joined),
            ("vmo_evictions_total", "counter", "Pages evicted.", |vmo| vmo.evictions),
            ("vmo_rescues_total", "counter", "Evicted pages that were kept after all.", |vmo| vmo.rescues),
        ];
        let keys: Vec<_> = self.vmos.iter().map(|vmo| [("vmo", vmo.key.to_string())]).collect();
        for (name, kind, help, figure) in of_vmos {
            let samples = self.vmos.iter().zip(&keys).map(|(vmo, key)| (&key[..], number(figure(vmo))));
            text.family(name, kind, help, samples);
        }
        let quantiles: Vec<_> = self
            .latencies
            .iter()
            .flat_map(|of| {
                let at = |quantile: &str, us: f64| {
                    ([("stage", of.stage.clone()), ("quantile", quantile.to_owned())], us / 1e6)
                };
                [at("0.5", of.median_us), at("0.99", of.p99_us), at("0.999", of.p999_us), at("1", of.longest_us)]
            })
            .collect();
        let help = "How long a stage takes, while it is watched.";
        text.family("latency_seconds", "gauge", help, quantiles.iter().map(|(labels, time)| (&labels[..], *time)));
        text.0
    }
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus has floating point numbers")]
fn number(count: u64) -> f64 {
    count as f64
}

struct Text(String);

impl Text {
    fn family<'a>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        samples: impl IntoIterator<Item = (&'a [(&'a str, String)], f64)>,
    ) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "# HELP upager_{name} {help}\n# TYPE upager_{name} {kind}");
        for (labels, value) in samples {
            let escaped = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            let _ = writeln!(self.0, "upager_{name}{labels} {value}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prometheus_reads_each_family_once_and_names_are_escaped() {
        let figures = Figures {
            command: "serve".into(),
            source: "a \"file\"\n".into(),
            totals: [("pages_read".to_owned(), 7)].into(),
            vmos: vec![
                VmoFigures { key: 1, size: 4096, ..VmoFigures::default() },
                VmoFigures { key: 2, ..VmoFigures::default() },
            ],
            latencies: vec![LatencyFigures { stage: "read".into(), median_us: 1500.0, ..LatencyFigures::default() }],
            ..Figures::default()
        };
        let text = figures.prometheus();
        assert!(text.contains("upager_info{command=\"serve\",source=\"a \\\"file\\\"\\n\",pid=\"0\"} 1\n"), "{text}");
        assert!(text.contains("# TYPE upager_pages_read_total counter\nupager_pages_read_total 7\n"), "{text}");
        assert!(text.contains("upager_vmo_size_bytes{vmo=\"1\"} 4096\nupager_vmo_size_bytes{vmo=\"2\"} 0\n"), "{text}");
        assert!(text.contains("upager_latency_seconds{stage=\"read\",quantile=\"0.5\"} 0.0015\n"), "{text}");
        let families: Vec<_> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
        let mut once = families.clone();
        once.dedup();
        assert_eq!(families, once);
    }
}
