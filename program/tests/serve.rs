//! `upager serve`, `attach` and `top` as a user meets them.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const BYTES: usize = (3 << 20) + 100;

/// A byte of the file.
#[expect(clippy::cast_possible_truncation, reason = "a byte of a number")]
fn byte(n: usize) -> u8 {
    (n / 7 + n / 4096) as u8
}

fn upager(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_upager")).args(args).output().expect("the program starts")
}

/// A program in the background, until it is dropped.
struct Background(Child);

impl Background {
    fn start(args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_upager"));
        Self(command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts"))
    }

    /// Waits for its first line.
    fn line(&mut self) -> String {
        let mut line = String::new();
        let stdout = self.0.stdout.as_mut().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        line
    }

    fn kill(&mut self) {
        self.0.kill().expect("it runs");
        self.0.wait().expect("it ends");
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Place {
    _folder: tempfile::TempDir,
    socket: String,
    file: String,
    figures: String,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
        let (socket, file, figures) = (path("pager"), path("file"), path("figures"));
        let bytes: Vec<_> = (0..BYTES).map(byte).collect();
        std::fs::write(&file, bytes).expect("the file");
        Self { _folder: folder, socket, file, figures }
    }
}

fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
}

fn wait_for(path: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !PathBuf::from(path).exists() {
        assert!(Instant::now() < deadline, "{path} does not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether there is a userfaultfd here.
fn there_is_one() -> bool {
    let runs = upager_linux::Mapper::new().is_ok();
    if !runs {
        println!("skipped: no userfaultfd here");
    }
    runs
}

#[test]
fn a_file_is_served_attached_to_and_watched() {
    if !there_is_one() {
        return;
    }
    let place = Place::new();
    let Place { socket, file, figures, .. } = &place;
    let mut pager = Background::start(&["serve", "--socket", socket, "--source", file, "--figures", figures, "--json"]);
    let ready: Value = serde_json::from_str(&pager.line()).expect("JSON");
    assert_eq!(ready["bytes"], BYTES);

    let looked = upager(&["attach", "--socket", socket, "--compare", file, "--json"]);
    assert_eq!(looked.status.code(), Some(0));
    let looked = json(&looked);
    assert_eq!((&looked["bytes_read"], &looked["pages_read"]), (&BYTES.into(), &BYTES.div_ceil(4096).into()));
    assert!(looked["faults"].as_u64() > Some(0) && looked["latencies"][0]["count"].as_u64() > Some(0), "{looked}");

    // The hash is that of the bytes, also in little memory, and read by few.
    let again = upager(&["attach", "--socket", socket, "--resident", "256KiB", "--read-ahead", "8", "--json"]);
    assert_eq!(json(&again)["hash"], looked["hash"]);
    assert!(json(&again)["pages_evicted"].as_u64() > Some(0));

    let shown = upager(&["attach", "--socket", socket, "--look", "4090:8"]);
    let text = String::from_utf8_lossy(&shown.stdout);
    let expected: Vec<_> = (4090..4098).map(|n| format!("{:02x}", byte(n))).collect();
    assert!(text.contains(&format!("00000ffa  {}", expected.join(" "))), "{text}");

    let top = json(&upager(&["top", figures, "--json"]));
    assert_eq!((&top["command"], &top["totals"]["clients_served"]), (&"serve".into(), &3.into()));
    assert!(top["totals"]["pages_read"].as_u64() > Some(1000), "{top}");
    let text = upager(&["top", figures, "--prometheus"]).stdout;
    let text = String::from_utf8_lossy(&text);
    assert!(text.contains("# TYPE upager_pages_read_total counter\nupager_pages_read_total "), "{text}");
    let text = upager(&["top", figures, "--once"]).stdout;
    assert!(String::from_utf8_lossy(&text).contains("pages read"));
}

#[test]
fn a_client_whose_pager_is_killed_says_so_and_ends() {
    if !there_is_one() {
        return;
    }
    let place = Place::new();
    let Place { socket, file, figures, .. } = &place;
    let mut pager = Background::start(&["serve", "--socket", socket, "--source", file]);
    pager.line();
    let attach = ["attach", "--socket", socket, "--seconds", "60", "--figures", figures, "--json"];
    let mut client = Background::start(&attach);
    wait_for(figures);
    let deadline = Instant::now() + Duration::from_secs(20);
    let top = loop {
        let top = json(&upager(&["top", figures, "--json"]));
        if top["totals"]["pages_read"].as_u64() > Some(2000) && top["latencies"][0]["count"].as_u64() > Some(0) {
            break top;
        }
        assert!(Instant::now() < deadline, "{top}");
    };
    assert_eq!(
        (&top["vmos"][0]["size"], &top["levels"]["pager_gone"]),
        (&BYTES.next_multiple_of(4096).into(), &0.into())
    );
    pager.kill();
    while client.0.try_wait().expect("a child").is_none() {
        assert!(Instant::now() < deadline, "it hangs");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(client.0.wait().expect("it has ended").code(), Some(1));
    let text = std::io::read_to_string(client.0.stdout.take().expect("piped")).expect("UTF-8");
    let report: Value = serde_json::from_str(&text).expect("JSON");
    assert!(report["refused_at"].is_u64() && report["pager_gone"].is_string(), "{report}");
    let told = std::io::read_to_string(client.0.stderr.take().expect("piped")).expect("UTF-8");
    assert!(told.contains("could not be had: the pager is gone"), "{told}");

    // The next one takes the socket over.
    assert!(Path::new(socket).exists());
    let mut next = Background::start(&["serve", "--socket", socket, "--source", file]);
    next.line();
    assert_eq!(upager(&["attach", "--socket", socket, "--compare", file]).status.code(), Some(0));
}

#[test]
fn a_run_can_be_watched() {
    if !there_is_one() {
        return;
    }
    let place = Place::new();
    let Place { file, figures, .. } = &place;
    let mut run = Background::start(&["run", file, "--seconds", "2", "--figures", figures, "--json"]);
    wait_for(figures);
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let top = json(&upager(&["top", figures, "--json"]));
        assert_eq!((&top["command"], &top["vmos"][0]["size"]), (&"run".into(), &BYTES.next_multiple_of(4096).into()));
        if top["totals"]["faults"].as_u64() > Some(0) && top["latencies"][0]["count"].as_u64() > Some(0) {
            break;
        }
        assert!(Instant::now() < deadline, "{top}");
    }
    assert_eq!(run.0.wait().expect("it ends").code(), Some(0));
    assert!(!Path::new(figures).exists(), "the socket goes with it");
}

#[test]
fn what_cannot_be_is_refused_in_a_sentence() {
    let place = Place::new();
    let Place { socket, file, figures, .. } = &place;
    for (args, says) in [
        (&["attach", "--socket", socket][..], "cannot connect to a pager"),
        (&["top", figures][..], "cannot look at"),
        (&["serve", "--socket", socket, "--source", "/nowhere"][..], "cannot serve /nowhere"),
        (&["serve", "--socket", "/nowhere/x", "--source", file][..], "cannot listen at a socket"),
        (&["serve", "--socket", socket, "--source", file, "--zstd"][..], "cannot serve"),
        (&["attach", "--socket", socket, "--look", "1"][..], "--look"),
    ] {
        let output = upager(args);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && told.contains(says), "{args:?}: {told}");
    }
}
