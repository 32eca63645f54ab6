//! A pager in a process of its own: this program, started once more.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use upager::Access;
use upager_linux::remote::{Listener, Remote, Traffic};
use upager_linux::source::{File, FileOptions};

/// What tells the program that it is to be a pager: where it listens, and what it serves.
const SOCKET: &str = "UPAGER_TEST_SOCKET";
const FILE: &str = "UPAGER_TEST_FILE";

/// Not a test of its own: the pager of the others.
#[test]
fn pager_process() {
    let (Some(socket), Some(file)) = (std::env::var_os(SOCKET), std::env::var_os(FILE)) else { return };
    set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    let options = FileOptions { access: Access::Write, ..FileOptions::default() };
    let source = Arc::new(File::open_with(file, options).unwrap());
    let listener = Listener::bind(socket).unwrap();
    loop {
        let (client, source) = (listener.accept().unwrap(), source.clone());
        std::thread::spawn(move || client.serve(&*source, &Traffic::default()));
    }
}

/// A pager, until it is killed.
pub(crate) struct PagerProcess(Child);

impl PagerProcess {
    pub(crate) fn start(socket: &Path, file: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "process::pager_process", "--nocapture"]);
        command.env(SOCKET, socket).env(FILE, file).stdout(Stdio::null());
        Self(command.spawn().unwrap())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    pub(crate) fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for PagerProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Connects as soon as it listens.
pub(crate) fn connect(socket: &Path) -> Remote {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match Remote::connect(socket) {
            Ok(remote) => return remote,
            Err(error) => assert!(Instant::now() < deadline, "{error}: {:?}", error.raw_os_error()),
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
