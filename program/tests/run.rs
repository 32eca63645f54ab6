//! `upager run` as a user meets it: what it prints, and its exit status.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::NamedTempFile;

/// The figures that scripts rely on.
const FIGURES: [&str; 15] = [
    "faults",
    "requests",
    "joined",
    "supplied_pages",
    "evicted_pages",
    "written_back_pages",
    "in_flight_at_detach",
    "failed_at_detach",
    "hung_threads",
    "mismatched_bytes",
    "lost_dirty_bytes",
    "complete_packets",
    "packets_after_complete",
    "elapsed_s",
    "faults_per_s",
];

fn upager(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_upager"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn output(args: &[&str]) -> Output {
    upager(args).output().expect("the program starts")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs with --json, demands status 0, and returns the object.
fn holds(args: &[&str]) -> Value {
    let args = [&["run", "--json"], args].concat();
    let output = output(&args);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{args:?}\n{text}\n{}", stderr(&output));
    assert_eq!(text.lines().count(), 1, "one object and nothing else: {text}");
    let figures: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(figures["frames_left"], 0, "every frame comes back: {text}");
    figures
}

fn number(figures: &Value, name: &str) -> u64 {
    figures[name].as_u64().unwrap_or_else(|| panic!("{name} is a number: {figures}"))
}

/// A file of so many bytes, none of them zero, no two pages alike.
fn file_of(size: usize) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a temporary file");
    let bytes: Vec<u8> = (0..size).map(|n| u8::try_from((n / 4096 + n) % 251).expect("below 251") + 1).collect();
    file.write_all(&bytes).expect("room for it");
    file
}

fn path(file: &NamedTempFile) -> &str {
    file.path().to_str().expect("a temporary path is plain")
}

#[test]
fn without_arguments_it_runs_over_its_own_file_and_prints_a_table() {
    let output = output(&["run"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(table.contains(env!("CARGO_BIN_EXE_upager")), "{table}");
    assert!(table.contains("requests in flight"), "{table}");
    assert!(table.ends_with("Everything held.\n"), "{table}");
    assert_eq!(stderr(&output), "", "no progress line where stderr is no terminal");
}

#[test]
fn json_has_every_figure_and_requests_are_in_flight_at_the_detach() {
    let figures = holds(&["--seconds", "1", "--seed", "7", "--resident", "4MiB"]);
    for name in FIGURES {
        assert!(figures[name].is_number(), "{name}: {figures}");
    }
    assert_eq!(figures["seed"], 7);
    assert_eq!(number(&figures, "faults"), number(&figures, "requests") + number(&figures, "joined"));
    for name in ["in_flight_at_detach", "failed_at_detach", "requests", "evicted_pages", "written_back_pages"] {
        assert!(number(&figures, name) > 0, "{name}: {figures}");
    }
}

#[test]
fn it_holds_for_several_seeds() {
    for seed in 1..=4 {
        let figures = holds(&["--seconds", "1", "--seed", &seed.to_string()]);
        assert_eq!(figures["mapped"], true);
        assert!(number(&figures, "in_flight_at_detach") > 0, "{figures}");
    }
}

#[test]
fn by_calls_it_holds_too() {
    let small = file_of(100 * 4096 + 5);
    for args in [&["--seconds", "1", "--seed", "3"][..], &[path(&small), "--seconds", "0.5", "--resident", "4096"]] {
        let figures = holds(&[&["--api"], args].concat());
        assert_eq!(figures["mapped"], false);
        assert!(number(&figures, "in_flight_at_detach") > 0, "{figures}");
        assert!(number(&figures, "failed_at_detach") > 0, "{figures}");
    }
}

#[test]
fn everything_resident_or_almost_nothing_it_holds() {
    let file = file_of(100 * 4096);
    for resident in ["1GiB", "4096"] {
        let figures = holds(&[path(&file), "--seconds", "0.5", "--resident", resident]);
        assert!(number(&figures, "in_flight_at_detach") > 0, "{figures}");
    }
}

#[test]
fn without_a_detach_complete_comes_from_dropping_the_vmo() {
    let figures = holds(&["--seconds", "0.5", "--no-detach"]);
    assert_eq!(figures["detached"], false);
    assert_eq!(number(&figures, "complete_packets"), 1);
    assert_eq!(number(&figures, "in_flight_at_detach"), 0);
    assert!(number(&figures, "written_back_pages") > 0, "{figures}");
}

#[test]
fn files_of_odd_sizes_hold() {
    for size in [1, 7, 4095, 4097, 5 * 4096 + 1] {
        let file = file_of(size);
        let figures = holds(&[path(&file), "--seconds", "0.3", "--writers", "3"]);
        assert_eq!(number(&figures, "size"), size as u64);
    }
}

#[test]
fn readers_only_writers_only_and_nobody_hold() {
    holds(&["--seconds", "0.3", "--writers", "0"]);
    holds(&["--seconds", "0.3", "--readers", "0", "--service-threads", "1"]);
    let figures = holds(&["--seconds", "0.3", "--readers", "0", "--writers", "0"]);
    assert_eq!(number(&figures, "faults"), 0);
}

#[test]
fn requests_that_are_not_answered_in_time_are_warned_of() {
    let output = output(&["run", "--seconds", "1", "--warn-after", "0"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let warning = "WARN upager: the service has not answered a page request";
    assert!(stderr(&output).contains(warning), "{}", stderr(&output));
}

#[test]
fn the_file_is_not_written_to() {
    let file = file_of(64 * 4096 + 17);
    let before = fs::read(file.path()).expect("readable");
    holds(&[path(&file), "--seconds", "0.3", "--readers", "1", "--writers", "3"]);
    assert!(before == fs::read(file.path()).expect("readable"));
}

#[test]
fn a_file_that_will_not_do_is_status_2_and_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let missing = folder.path().join("missing");
    let empty = NamedTempFile::new().expect("a temporary file");
    let cases: [(&Path, &str); 4] = [
        (&missing, "No such file"),
        (folder.path(), "is a directory"),
        (empty.path(), "is empty"),
        (Path::new("/dev/zero"), "is a device"),
    ];
    for (file, complaint) in cases {
        let name = file.to_str().expect("a temporary path is plain");
        let output = output(&["run", name, "--json"]);
        let error = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{name}: {error}");
        assert!(error.contains(complaint) && error.contains(name), "{name}: {error}");
        assert!(output.stdout.is_empty());
    }
}

#[cfg(unix)]
#[test]
fn a_file_that_may_not_be_read_is_status_2() {
    use std::os::unix::fs::PermissionsExt;
    let file = file_of(4096);
    fs::set_permissions(file.path(), fs::Permissions::from_mode(0o000)).expect("it is ours");
    if fs::File::open(file.path()).is_ok() {
        return; // root may read anything
    }
    let output = output(&["run", path(&file)]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("ermission denied"), "{}", stderr(&output));
}

#[test]
fn a_file_that_shrinks_stops_the_run_with_status_2() {
    for left in [4 << 20, 100, 0] {
        let file = file_of(8 << 20);
        let running = upager(&["run", path(&file), "--seconds", "30"]).spawn().expect("the program starts");
        std::thread::sleep(Duration::from_millis(400));
        file.as_file().set_len(left).expect("it is ours");
        let shrunk = Instant::now();
        let output = running.wait_with_output().expect("it ends");
        assert!(shrunk.elapsed() < Duration::from_secs(10), "no thread waits for what is gone");
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains("shrank while upager ran"), "{}", stderr(&output));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn arguments_that_will_not_do_are_status_2_and_explained() {
    let cases: [(&[&str], &str); 10] = [
        (&["--resident", "much"], "64MiB"),
        (&["--resident", "12"], "one page"),
        (&["--readers", "many"], "--readers"),
        (&["--service-threads", "0"], "--service-threads"),
        (&["--seconds", "0"], "--seconds"),
        (&["--seconds", "-1"], "--seconds"),
        (&["--warn-after", "soon"], "--warn-after"),
        (&["--seconds", "1", "--detach-after", "2s"], "--detach-after"),
        (&["--no-detach", "--detach-after", "1s"], "--no-detach"),
        (&["--frobnicate"], "--frobnicate"),
    ];
    for (args, complaint) in cases {
        let output = output(&[&["run"], args].concat());
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).contains(complaint), "{args:?}: {}", stderr(&output));
    }
    assert_eq!(output(&[]).status.code(), Some(2), "a command is needed");
    let help = output(&["run", "--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&help.stdout).contains("faults                  accesses that waited for a page"));
}
