//! Posts the figures of this program at a socket.

use std::io::{self, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::watch::figures::Figures;

/// How long latencies are measured after somebody has looked.
const WATCHED: Duration = Duration::from_secs(10);
/// How often it is looked whether somebody has come.
const TICK: Duration = Duration::from_millis(20);
/// How long one who has come may take to read.
const PATIENCE: Duration = Duration::from_secs(1);

/// Listens. A socket that nobody listens at is left from a program that was killed, and is replaced.
pub(crate) fn listen(path: &Path) -> io::Result<UnixListener> {
    if UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
        std::fs::remove_file(path)?;
    }
    UnixListener::bind(path)
}

/// What has figures.
pub(crate) trait Subject: Send + Sync + 'static {
    /// What has latencies be measured, as long as it lives.
    type Watch;

    fn watch(&self) -> Self::Watch;

    fn figures(&self, watch: &Self::Watch) -> Figures;
}

/// The thread that posts, until it is dropped.
pub(crate) struct Post {
    path: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Post {
    pub(crate) fn start<S: Subject>(path: &Path, subject: Arc<S>) -> Result<Self, Failure> {
        let refused = |source| Failure::Socket { doing: "post figures at", path: path.to_owned(), source };
        let listener = listen(path).map_err(refused)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        listener.set_nonblocking(true).map_err(refused)?;
        let run = move || {
            let begun = Instant::now();
            let mut watch: Option<(S::Watch, Instant)> = None;
            while !stopped.load(SeqCst) {
                // SeqCst: as all flags of the program
                watch = watch.filter(|(_, looked)| looked.elapsed() < WATCHED);
                let Ok((mut client, _)) = listener.accept() else {
                    thread::sleep(TICK); // nobody is there, mostly
                    continue;
                };
                let (watching, looked) = watch.get_or_insert_with(|| (subject.watch(), Instant::now()));
                *looked = Instant::now();
                let mut figures = subject.figures(watching);
                (figures.pid, figures.up_s) = (std::process::id(), begun.elapsed().as_secs_f64());
                let timed = client.set_nonblocking(false).and_then(|()| client.set_write_timeout(Some(PATIENCE)));
                if let (Ok(()), Ok(text)) = (timed, serde_json::to_string(&figures)) {
                    let _ = writeln!(client, "{text}"); // he is gone: his affair
                }
            }
        };
        let name = "figures".to_owned();
        let thread = thread::Builder::new().name(name.clone()).spawn(run);
        let thread = thread.map_err(|source| Failure::Thread { name, source })?;
        Ok(Self { path: path.to_owned(), stop, thread: Some(thread) })
    }
}

impl Drop for Post {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst); // SeqCst: as all flags of the program
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = std::fs::remove_file(&self.path); // best effort: the next one replaces what is left
    }
}
