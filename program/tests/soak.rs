//! `upager soak` as a user meets it.

use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn soak(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_upager"));
    command.arg("soak").args(args).stdin(Stdio::null()).output().expect("the program starts")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn it_holds_and_every_operation_was_done() {
    let output = soak(&["--seconds", "2", "--seed", "7", "--json"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}\n{}", stderr(&output));
    assert_eq!(text.lines().count(), 1, "one object and nothing else: {text}");
    let figures: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((&figures["seed"], &figures["frames_left"]), (&7.into(), &0.into()));
    let figure = |name: &str| figures[name].as_u64().unwrap_or_else(|| panic!("{name} is a number: {text}"));
    for name in ["accesses", "accesses_slept", "packets", "checked_lanes", "compared_pages", "refused_frames", "vmos"] {
        assert!(figure(name) > 0, "{name}: {text}");
    }
    assert_eq!(figure("violations"), 0);
    assert_eq!(figures["replay"], "upager soak --seconds 2 --threads 8 --vmos 6 --seed 7");
}

#[test]
fn one_thread_and_many_threads_hold() {
    for (threads, vmos) in [("1", "1"), ("1", "3"), ("32", "2")] {
        let output = soak(&["--seconds", "0.5", "--threads", threads, "--vmos", vmos]);
        let table = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(0), "{table}\n{}", stderr(&output));
        assert!(table.ends_with("Everything held.\n"), "{table}");
    }
}

#[test]
fn arguments_that_will_not_do_are_status_2_and_explained() {
    let cases: [(&[&str], &str); 4] = [
        (&["--seconds", "0"], "--seconds"),
        (&["--threads", "0"], "--threads"),
        (&["--vmos", "none"], "--vmos"),
        (&["--frobnicate"], "--frobnicate"),
    ];
    for (args, complaint) in cases {
        let output = soak(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).contains(complaint), "{args:?}: {}", stderr(&output));
    }
    let help = soak(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&help.stdout).contains("What must hold"));
}
