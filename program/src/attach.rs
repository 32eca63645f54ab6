//! `upager attach`: a client of a pager process, which maps what it has, and looks at it by touching it.

use std::fs;
use std::hash::Hasher;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{BinaryBytes, HumanCount};
use serde::Serialize;
use twox_hash::XxHash64;
use upager::{ByteRange, PageCount, Vmo};
use upager_linux::remote::Remote;
use upager_linux::service::{MemoryLimit, Service, Writes};
use upager_linux::{LatencyWatch, LinuxPlatform, Mapper, MapperOptions, Mapping, Protection};

use crate::args::AttachArgs;
use crate::failure::Failure;
use crate::run::touch;
use crate::watch::figures::{Figures, LatencyFigures, VmoFigures};
use crate::watch::post::{Post, Subject};

/// Bytes that are touched by one guarded call.
const PART: u64 = 256 << 10;

/// What was seen.
#[derive(Default, Serialize)]
pub(crate) struct Looked {
    socket: String,
    bytes: u64,
    /// Times that all of it was read.
    rounds: u64,
    bytes_read: u64,
    elapsed_s: f64,
    megabytes_per_s: f64,
    /// xxHash, 64 bits, of all of it.
    hash: Option<String>,
    /// The first byte that is not that of the file it was compared with.
    differs_at: Option<u64>,
    faults: u64,
    pages_read: u64,
    pages_evicted: u64,
    latencies: Vec<LatencyFigures>,
    /// Why the pager is gone, if it is, and the byte that could not be had any more.
    pager_gone: Option<String>,
    refused_at: Option<u64>,
    /// The bytes that were asked for by --look.
    look: Option<String>,
}

impl Looked {
    pub(crate) fn holds(&self) -> bool {
        self.differs_at.is_none() && self.refused_at.is_none()
    }

    pub(crate) fn json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    pub(crate) fn table(&self) -> String {
        let mut lines = vec![format!("{:14}{}, {}", "pager", self.socket, BinaryBytes(self.bytes))];
        let mut line = |name: &str, value: String| lines.push(format!("{name:14}{value}"));
        line(
            "read",
            format!("{} in {:.2} s, {:.0} MB/s", BinaryBytes(self.bytes_read), self.elapsed_s, self.megabytes_per_s),
        );
        let (faults, pages) = (HumanCount(self.faults), HumanCount(self.pages_read));
        line("faults", format!("{faults}, for {pages} pages; {} evicted", HumanCount(self.pages_evicted)));
        for of in self.latencies.iter().filter(|of| of.count > 0) {
            let text = format!(
                "{} times, median {} us, 99 % {} us, longest {} us",
                of.count, of.median_us, of.p99_us, of.longest_us
            );
            line(&of.stage, text);
        }
        if let Some(hash) = &self.hash {
            line("xxh64", hash.clone());
        }
        if let Some(look) = &self.look {
            lines.push(look.clone());
        }
        lines.join("\n")
    }

    pub(crate) fn findings(&self) -> Vec<String> {
        let gone = self.pager_gone.as_deref().unwrap_or("the pager is there, and says no");
        let refused = self.refused_at.map(|at| format!("byte {at} could not be had: {gone}"));
        let differs = self.differs_at.map(|at| format!("byte {at} is not that of the file"));
        refused.into_iter().chain(differs).collect()
    }
}

/// What the pager serves, mapped.
struct Client {
    socket: String,
    remote: Arc<Remote>,
    service: Service,
    mapper: Mapper,
    vmo: Arc<Vmo<LinuxPlatform>>,
    mapping: Mapping,
}

impl Subject for Client {
    type Watch = [LatencyWatch; 2];

    fn watch(&self) -> Self::Watch {
        [self.mapper.watch_latencies(), self.service.watch_latencies()]
    }

    fn figures(&self, watch: &Self::Watch) -> Figures {
        let (service, mapper) = (self.service.counts(), self.mapper.counts());
        let totals = [
            ("faults", mapper.faults),
            ("pages_mapped", mapper.mapped),
            ("faults_failed", mapper.failed),
            ("pages_read", service.read),
            ("pages_written", service.written),
            ("pages_evicted", service.evicted),
            ("read_errors", service.read_errors),
            ("write_errors", service.write_errors),
        ];
        Figures {
            command: "attach".into(),
            source: self.socket.clone(),
            totals: totals.map(|(name, total)| (name.to_owned(), total)).into(),
            levels: [("pager_gone".to_owned(), u64::from(self.remote.gone().is_some()))].into(),
            vmos: self.service.vmos().iter().map(|(key, size, counts)| VmoFigures::new(*key, *size, counts)).collect(),
            latencies: watch.iter().flat_map(LatencyWatch::read).map(|of| LatencyFigures::from(&of)).collect(),
            ..Figures::default()
        }
    }
}

impl Client {
    fn new(args: &AttachArgs) -> Result<Self, Failure> {
        if cfg!(not(target_arch = "x86_64")) {
            return Err(Failure::Option("it needs an x86-64 processor".into()));
        }
        let failed = |doing| move |error| Failure::linux(doing, error);
        let remote = Remote::connect(&args.socket).map_err(failed("connect to a pager"))?;
        let remote = Arc::new(remote);
        let mut builder = Service::builder().read_around(PageCount(args.read_around));
        if let Some(resident) = args.resident {
            builder = builder.memory(MemoryLimit::bytes(resident));
        }
        let service = builder.start().map_err(failed("start the service"))?;
        let vmo = service.open(remote.clone(), Writes::Keep).map_err(failed("make a VMO of the pager's bytes"))?;
        if vmo.size() == 0 {
            return Err(Failure::Option("the pager has no bytes".into()));
        }
        let mapper = Mapper::with(MapperOptions::default().read_ahead(PageCount(args.read_ahead)))?;
        let mapping = mapper.map(&vmo, ByteRange::new(0, vmo.size()), Protection::ReadOnly)?;
        Ok(Self { socket: args.socket.display().to_string(), remote, service, mapper, vmo, mapping })
    }

    /// Reads all of it once, in order. The error is the byte that could not be had.
    fn read(
        &self,
        looked: &mut Looked,
        mut with: impl FnMut(u64, &[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut bytes = vec![0; PART as usize];
        let mut at = 0;
        while at < looked.bytes {
            let part = PART.min(looked.bytes - at) as usize;
            if touch::load(&self.mapping, at, &mut bytes[..part]).is_err() {
                looked.refused_at = Some(at);
                return Ok(());
            }
            with(at, &bytes[..part])?;
            looked.bytes_read += part as u64;
            at += part as u64;
        }
        looked.rounds += 1;
        Ok(())
    }
}

/// A file that what is read is compared with.
fn compare(path: &Path, looked: &mut Looked, bytes: &[u8], at: u64, file: &mut fs::File) -> Result<(), Failure> {
    let mut expected = vec![0; bytes.len()];
    let read = file.read_exact(&mut expected);
    read.map_err(|source| Failure::Read { path: path.to_owned(), offset: at, source })?;
    let differs = bytes.iter().zip(&expected).position(|(is, must)| is != must);
    looked.differs_at = looked.differs_at.or(differs.map(|n| at + n as u64));
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a rate")]
pub(crate) fn attach(args: &AttachArgs) -> Result<Looked, Failure> {
    let client = Arc::new(Client::new(args)?);
    let watch = client.watch();
    let _post = args.figures.as_deref().map(|path| Post::start(path, client.clone())).transpose()?;
    let bytes = upager_linux::source::PageSource::len(&*client.remote);
    let mut looked = Looked { socket: client.socket.clone(), bytes, ..Looked::default() };
    let begun = Instant::now();
    if let Some(look) = args.look {
        look_at(&client, look, &mut looked)?;
    } else {
        loop {
            let mut hash = XxHash64::with_seed(0);
            let mut file = match &args.compare {
                Some(path) => {
                    Some(fs::File::open(path).map_err(|source| Failure::Open { path: path.clone(), source })?)
                }
                None => None,
            };
            let mut differs = Looked::default();
            client.read(&mut looked, |at, bytes| {
                hash.write(bytes);
                match (&args.compare, &mut file) {
                    (Some(path), Some(file)) => compare(path, &mut differs, bytes, at, file),
                    _ => Ok(()),
                }
            })?;
            looked.differs_at = looked.differs_at.or(differs.differs_at);
            looked.hash = looked.refused_at.is_none().then(|| format!("{:016x}", hash.finish()));
            if !looked.holds() || begun.elapsed() >= args.seconds {
                break;
            }
            // Again, out of the pager and not out of memory.
            client.vmo.evict(PageCount(u64::MAX), upager::Evict::Any);
        }
    }
    looked.elapsed_s = begun.elapsed().as_secs_f64();
    looked.megabytes_per_s = looked.bytes_read as f64 / 1e6 / looked.elapsed_s;
    let (service, mapper) = (client.service.counts(), client.mapper.counts());
    (looked.faults, looked.pages_read, looked.pages_evicted) =
        (mapper.faults, service.read, client.vmo.counts().evictions);
    looked.latencies = watch.iter().flat_map(LatencyWatch::read).map(|of| LatencyFigures::from(&of)).collect();
    // It may be refused a moment before it is known why.
    let patience = Instant::now() + Duration::from_millis(200);
    while looked.refused_at.is_some() && client.remote.gone().is_none() && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(5));
    }
    looked.pager_gone = client.remote.gone().map(|why| format!("the pager is gone, {why}"));
    Ok(looked)
}

fn look_at(client: &Client, (offset, length): (u64, u64), looked: &mut Looked) -> Result<(), Failure> {
    if offset >= looked.bytes {
        return Err(Failure::Option(format!("--look {offset}: the pager has {} bytes", looked.bytes)));
    }
    let mut bytes = vec![0; length.min(looked.bytes - offset) as usize];
    if touch::load(&client.mapping, offset, &mut bytes).is_err() {
        looked.refused_at = Some(offset);
        return Ok(());
    }
    looked.bytes_read = bytes.len() as u64;
    let lines = bytes.chunks(16).enumerate().map(|(n, line)| {
        let hex: Vec<_> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let text: String =
            line.iter().map(|byte| if (32..127).contains(byte) { char::from(*byte) } else { '.' }).collect();
        format!("{:08x}  {:47}  {text}", offset + n as u64 * 16, hex.join(" "))
    });
    looked.look = Some(lines.collect::<Vec<_>>().join("\n"));
    Ok(())
}
