//! `upager serve`: the pager process, for clients of [`upager_linux::remote`] and for Firecracker.
//!
//! It serves until it is killed, and can be killed at any instant: what it has acknowledged is in the file.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use upager::{Access, PAGE_SIZE, PageCount, Vmo};
use upager_linux::firecracker::{Guest, GuestCounts};
use upager_linux::remote::{Listener, Traffic};
use upager_linux::service::{MemoryLimit, Service, Writes};
use upager_linux::source::{Caching, File, FileOptions, Injector, PageSource, SeekableZstd};
use upager_linux::{LatencyWatch, LinuxPlatform};

use crate::args::ServeArgs;
use crate::failure::Failure;
use crate::watch::figures::{Figures, LatencyFigures, VmoFigures};
use crate::watch::post::{Post, Subject, listen};

/// Opens what is to be served.
fn source(args: &ServeArgs) -> Result<Arc<dyn PageSource>, Failure> {
    let options = FileOptions {
        access: if args.read_only || args.zstd || args.firecracker { Access::Read } else { Access::Write },
        caching: if args.direct { Caching::Direct } else { Caching::Cached },
        ..FileOptions::default()
    };
    let refused = |error| Failure::Source { path: args.source.clone(), error };
    let file = File::open_with(&args.source, options).map_err(refused)?;
    let source: Arc<dyn PageSource> =
        if args.zstd { Arc::new(upager::block_on(SeekableZstd::open(file)).map_err(refused)?) } else { Arc::new(file) };
    Ok(if args.latency.is_zero() {
        source
    } else {
        Arc::new(Injector::new(source, 0).with_latency(args.latency, std::time::Duration::ZERO))
    })
}

/// A client may be there: who waits for the line can connect.
fn ready(args: &ServeArgs, bytes: u64) {
    let (socket, source) = (args.socket.display(), args.source.display());
    if args.json {
        let line = serde_json::json!({ "socket": socket.to_string(), "source": source.to_string(), "bytes": bytes });
        crate::print(&line.to_string(), &[]);
    } else {
        crate::print(&format!("serving {source}, {bytes} bytes, at {socket}"), &[]);
    }
}

/// Never comes back but for a failure.
pub(crate) fn serve(args: &ServeArgs) -> Result<(), Failure> {
    let source = source(args)?;
    if args.firecracker { serve_guests(args, source) } else { serve_clients(args, &source) }
}

/// What was done for clients.
#[derive(Default)]
struct Clients {
    source: String,
    traffic: Traffic,
    now: AtomicU64,
    ever: AtomicU64,
}

impl Subject for Clients {
    type Watch = ();

    fn watch(&self) -> Self::Watch {}

    fn figures(&self, (): &()) -> Figures {
        let counts = self.traffic.counts();
        let totals = [
            ("pages_read", counts.read),
            ("pages_written", counts.written),
            ("syncs", counts.syncs),
            ("errors", counts.errors),
            ("clients_served", self.ever.load(Relaxed)), // Relaxed: figures
        ];
        Figures {
            command: "serve".into(),
            source: self.source.clone(),
            totals: totals.map(|(name, total)| (name.to_owned(), total)).into(),
            levels: [("clients".to_owned(), self.now.load(Relaxed))].into(),
            ..Figures::default()
        }
    }
}

fn serve_clients(args: &ServeArgs, source: &Arc<dyn PageSource>) -> Result<(), Failure> {
    let clients = Arc::new(Clients { source: args.source.display().to_string(), ..Clients::default() });
    let listener = Listener::bind(&args.socket).map_err(|error| Failure::linux("listen at a socket", error))?;
    let _post = args.figures.as_deref().map(|path| Post::start(path, clients.clone())).transpose()?;
    ready(args, source.len());
    loop {
        let client = listener.accept().map_err(|error| Failure::linux("accept a client", error))?;
        let (source, of) = (source.clone(), clients.clone());
        let name = "client".to_owned();
        clients.ever.fetch_add(1, Relaxed); // Relaxed, all: figures
        clients.now.fetch_add(1, Relaxed);
        let run = move || {
            if let Err(error) = client.serve(&*source, &of.traffic) {
                crate::complain(&Failure::linux("go on with a client", error));
            }
            of.now.fetch_sub(1, Relaxed);
        };
        thread::Builder::new().name(name.clone()).spawn(run).map_err(|source| Failure::Thread { name, source })?;
    }
}

/// The snapshot, and its guests.
struct Guests {
    source: String,
    service: Service,
    vmo: Arc<Vmo<LinuxPlatform>>,
    now: AtomicU64,
    /// Of guests that have ended.
    ended: Mutex<(u64, GuestCounts)>,
}

impl Subject for Guests {
    type Watch = LatencyWatch;

    fn watch(&self) -> LatencyWatch {
        self.service.watch_latencies()
    }

    fn figures(&self, watch: &LatencyWatch) -> Figures {
        let (guests, of_guests) = *self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = self.service.counts();
        let totals = [
            ("guests_ended", guests),
            ("faults_of_ended_guests", of_guests.faults),
            ("pages_poisoned", of_guests.poisoned),
            ("pages_read", counts.read),
            ("pages_evicted", counts.evicted),
            ("read_errors", counts.read_errors),
        ];
        Figures {
            command: "serve --firecracker".into(),
            source: self.source.clone(),
            totals: totals.map(|(name, total)| (name.to_owned(), total)).into(),
            levels: [("guests".to_owned(), self.now.load(Relaxed))].into(), // Relaxed: a figure
            vmos: self.service.vmos().iter().map(|(key, size, counts)| VmoFigures::new(*key, *size, counts)).collect(),
            latencies: watch.read().iter().map(LatencyFigures::from).collect(),
            ..Figures::default()
        }
    }
}

fn serve_guests(args: &ServeArgs, source: Arc<dyn PageSource>) -> Result<(), Failure> {
    let bytes = source.len();
    let builder = Service::builder().memory(MemoryLimit::bytes(args.resident)).read_around(PageCount(16));
    let service = builder.start().map_err(|error| Failure::linux("start the service", error))?;
    let vmo =
        service.open(source, Writes::Refuse).map_err(|error| Failure::linux("make a VMO of the snapshot", error))?;
    let (source, now, ended) = (args.source.display().to_string(), AtomicU64::new(0), Mutex::default());
    let guests = Arc::new(Guests { source, service, vmo, now, ended });
    let refused = |source| Failure::Socket { doing: "listen at", path: args.socket.clone(), source };
    let listener = listen(&args.socket).map_err(refused)?;
    let _post = args.figures.as_deref().map(|path| Post::start(path, guests.clone())).transpose()?;
    ready(args, bytes.next_multiple_of(PAGE_SIZE));
    loop {
        let (socket, _) = listener.accept().map_err(refused)?;
        let (of, name) = (guests.clone(), "guest".to_owned());
        let run = move || {
            of.now.fetch_add(1, Relaxed); // Relaxed: a figure
            match Guest::accept(socket).and_then(|guest| guest.serve(&of.vmo)) {
                Ok(counts) => {
                    let mut ended = of.ended.lock().unwrap_or_else(PoisonError::into_inner);
                    ended.0 += 1;
                    ended.1.faults += counts.faults;
                    ended.1.poisoned += counts.poisoned;
                }
                Err(error) => crate::complain(&Failure::linux("serve a guest", error)),
            }
            of.now.fetch_sub(1, Relaxed); // Relaxed: as above
        };
        thread::Builder::new().name(name.clone()).spawn(run).map_err(|source| Failure::Thread { name, source })?;
    }
}
