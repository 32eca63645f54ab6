//! `upager bench scale` as a user meets it.

use std::process::{Command, Output};

use serde_json::Value;

fn scale(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_upager")).args(["bench", "scale"]).args(args).output().expect("the program starts")
}

#[test]
fn each_load_is_measured_with_each_number_of_threads() {
    let plot = tempfile::NamedTempFile::new().expect("a temporary file");
    let file = plot.path().to_str().expect("UTF-8");
    let args = ["--threads", "2,1", "--seconds", "0.01", "--rounds", "2", "--pages", "4096", "--json", "--svg", file];
    let output = scale(&args);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_str(&text).expect("one JSON object");
    let points = report["points"].as_array().expect("a list");
    let found: Vec<_> = points.iter().map(|point| (point["load"].as_str().unwrap_or(""), &point["threads"])).collect();
    let loads = ["lookup", "lookup-own-pin", "write", "writeback", "fault-own-vmo", "fault-one-vmo"];
    let expected: Vec<_> = loads.iter().flat_map(|load| [(*load, 1), (*load, 2)]).collect();
    assert_eq!(found.len(), expected.len());
    for ((load, threads), expected) in found.iter().zip(expected) {
        assert_eq!((*load, threads.as_u64()), (expected.0, Some(expected.1)));
    }
    for point in points {
        assert!(point["operations_per_s"].as_f64() > Some(0.0), "{point}");
        assert_eq!(point["rounds"].as_array().map(Vec::len), Some(2), "{point}");
        if point["threads"] == 1 {
            assert_eq!(point["speed_up"], 1.0, "{point}");
        }
    }
    let svg = std::fs::read_to_string(plot.path()).expect("the plot");
    assert!(svg.starts_with("<svg") && svg.contains("fault-one-vmo"), "a plot of all loads");
}

#[test]
fn what_cannot_be_is_refused() {
    let refused = [
        (vec!["--threads", "0"], "0 is not in 1..=1024"),
        (vec!["--seconds", "0"], "--seconds must be more than 0"),
        (vec!["--only", "sleep"], "fault-own-vmo"),
        (vec!["--pages", "0"], "0 is not in 1..="),
    ];
    for (args, says) in refused {
        let output = scale(&args);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
        assert!(text.contains(says), "{args:?}: {text}");
    }
    let args = ["--only", "lookup", "--threads", "1", "--seconds", "0.01", "--rounds", "1", "--pages", "64"];
    let output = scale(&[&args[..], &["--svg", "/nowhere/plot.svg"]].concat());
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(text.contains("cannot write the plot to /nowhere/plot.svg"), "{text}");
}
