//! The command line: what may be asked for, and what is taken when nothing is said.
//!
//! [`RunArgs`] is what was typed; [`Config`] is what the run uses, with every default filled in
//! and every contradiction refused.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand, ValueEnum};
use upager::PAGE_SIZE;

use crate::failure::Failure;
use crate::scale::Load;
use crate::store::SourceFile;

/// Of the time of a run, what passes before the detach, when nothing else is said.
const ATTACHED: f64 = 0.6;
/// The least that is kept resident when nothing else is said.
const LEAST_RESIDENT: u64 = 16 * PAGE_SIZE;

/// A pager in user space, put to the test.
#[derive(Parser)]
#[command(version, about, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Page a file in and out under load, detach it in the middle, and check every byte
    #[command(after_long_help = AFTER_HELP)]
    Run(RunArgs),
    /// Do everything at once, on many VMOs that come and go, and check what must hold
    #[command(after_long_help = AFTER_SOAK_HELP)]
    Soak(SoakArgs),
    /// Be the pager process: serve a file to other processes, by a socket, until killed
    #[command(after_long_help = AFTER_SERVE_HELP)]
    Serve(ServeArgs),
    /// Map what a pager process serves, read it by touching memory, and check or show it
    #[command(after_long_help = AFTER_ATTACH_HELP)]
    Attach(AttachArgs),
    /// Show what a running run, serve or attach does
    #[command(after_long_help = AFTER_TOP_HELP)]
    Top(TopArgs),
    /// Measure this machine
    #[command(subcommand)]
    Bench(BenchCommand),
}

#[derive(Subcommand)]
pub(crate) enum BenchCommand {
    /// Measure how throughput grows with threads, from one to all processors
    #[command(after_long_help = AFTER_SCALE_HELP)]
    Scale(ScaleArgs),
}

const AFTER_SCALE_HELP: &str = "\
The machine should be quiet: a thread that has no processor for a moment looks like one that does not
scale. More threads than processors may be asked for; they take turns.

Exit status:
  0  measured
  2  the arguments are no good, FILE cannot be written, or memory or a thread is missing";

const AFTER_SERVE_HELP: &str = "\
It may be killed at any instant: what it has acknowledged to a client is in the file. Its clients see
that it is gone, and detach; nobody waits for it. A socket that a killed one has left is replaced.

Example:
  upager serve --socket /tmp/pager --source image --figures /tmp/figures &
  upager attach --socket /tmp/pager --compare image
  upager top /tmp/figures

With --firecracker the socket is for the backend_path of a snapshot's mem_backend of type Uffd.

Exit status:
  2  the arguments or FILE are no good, the socket cannot be had, or a thread is missing";

const AFTER_ATTACH_HELP: &str = "\
It reads all bytes in order, and reports their hash (xxHash, 64 bits), how long it took, and latencies.
Nothing is written to the pager.

Exit status:
  0  everything was read, and is that of --compare
  1  a byte could not be had, as when the pager is killed, or differs
  2  the arguments are no good, or nobody serves at the socket";

const AFTER_TOP_HELP: &str = "\
FIGURES is the socket that run, serve or attach was given as --figures. Latencies are measured from the
first look on, until ten seconds after the last.

Keys: q quits.

Exit status:
  0  shown
  2  nobody posts figures there, or the terminal is of no use";

const AFTER_SOAK_HELP: &str = "\
What happens:
  Threads draw from all operations of the pager and do them: they read, write, fault, give up, zero
  and resize, serve, fail, ignore and time out, write back, evict, detach, close and create anew. Frames
  are refused at random.

What must hold, and is checked on the way and when a VMO ends:
  Every access comes home within 30 s, woken no more often than it slept. Every byte is what was
  written last, or was zeroed. Nothing follows COMPLETE, and it comes once. What is dirty, clean,
  awaiting and zero adds up. No frame is used after it is freed, freed twice, or left.

Exit status:
  0  all of that held
  1  it did not: the first violations are on stderr, with the command that runs the same again
  2  the arguments are no good, or a thread is missing";

const AFTER_HELP: &str = "\
What happens:
  A VMO of FILE's size is paged from FILE, and mapped. Readers read all over it and check each byte.
  Writers own every fourth page, write to them, and note what they wrote. They touch memory, and
  so fault; what they may not have raises SIGBUS. With --api they call the VMO instead.
  Service threads answer page requests, a writeback thread copies dirty pages to a temporary
  file, and an evictor keeps the residency low. FILE itself is never written to, and must not
  change meanwhile.

  Then the VMO is detached while requests are in flight. (One service thread holds on to what
  it has just been handed, so that there are some.) From then on every access that needs the
  pager must fail, and those on dirty pages must go on. At the end what is still dirty is
  written back, and the copy is compared with what the writers noted.

Figures of --json that need a word:
  faults                  accesses that waited for a page: requests + joined
  requests                page requests made
  joined                  faults that joined a request made by another
  faults_per_s            faults by the seconds until the detach
  in_flight_at_detach     requests that the detach found in flight, and failed
  failed_at_detach        reads and writes begun before the detach that failed because of it
  hung_threads            threads not home 10 s after they were told to stop
  mismatched_bytes        bytes that a reader, or a page's owner, found to be wrong
  lost_dirty_bytes        bytes written through the VMO that the copy lacks in the end
  packets_after_complete  packets delivered after COMPLETE, which must be the last
  frames_left             frames of memory not given back in the end

Exit status:
  0  nothing hung, mismatched or was lost, and COMPLETE came once and last
  1  one of these does not hold
  2  the arguments or FILE are no good, FILE shrank meanwhile, or a resource is missing";

#[derive(Args)]
pub(crate) struct RunArgs {
    /// File to page from [default: this program's own file]
    file: Option<PathBuf>,
    /// Threads that read and check
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(..=1024))]
    readers: u16,
    /// Threads that write, each to pages of its own
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(..=1024))]
    writers: u16,
    /// Threads that answer page requests
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    service_threads: u16,
    /// Memory for pages, like 64MiB, 1GiB or 4194304 [default: a quarter of FILE]
    ///
    /// The evictor keeps below it. An eighth more, and at least some pages for each service thread,
    /// is the hard limit, at which allocation fails and the service waits for the evictor.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    resident: Option<u64>,
    /// When to detach, like 2s, 500ms or 1.5 [default: after 60% of --seconds]
    #[arg(long, value_name = "TIME", value_parser = parse_time, allow_negative_numbers = true, conflicts_with = "no_detach")]
    detach_after: Option<Duration>,
    /// Do not detach: stop, write everything back, and drop the VMO
    #[arg(long)]
    no_detach: bool,
    /// How long to run in all, like 5, 0.5 or 1m
    #[arg(long, value_name = "TIME", default_value = "5", value_parser = parse_time, allow_negative_numbers = true)]
    seconds: Duration,
    /// Warn on stderr of a page request that is not answered for so long
    #[arg(long, value_name = "TIME", default_value = "5", value_parser = parse_time, allow_negative_numbers = true)]
    warn_after: Duration,
    /// Read and write by calls of the VMO, and not by touching memory that it is mapped to
    #[arg(long)]
    api: bool,
    /// Post figures at this socket, for upager top
    #[arg(long, value_name = "SOCKET")]
    figures: Option<PathBuf>,
    /// Seed of the access patterns and of what is written [default: drawn, and reported]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Print one JSON object instead of the table
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(crate) struct ServeArgs {
    /// Where clients connect to
    #[arg(long, value_name = "SOCKET")]
    pub(crate) socket: PathBuf,
    /// File whose pages are served, and written
    #[arg(long, value_name = "FILE")]
    pub(crate) source: PathBuf,
    /// Refuse writes
    #[arg(long)]
    pub(crate) read_only: bool,
    /// FILE is a seekable zstd image: serve what is in it; implies --read-only
    #[arg(long)]
    pub(crate) zstd: bool,
    /// Read and write FILE past the page cache (O_DIRECT)
    #[arg(long)]
    pub(crate) direct: bool,
    /// Wait for so long before each read and write, as if FILE were far away
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = parse_time, allow_negative_numbers = true)]
    pub(crate) latency: Duration,
    /// Serve the memory of a snapshot, which FILE is, to Firecrackers that connect; implies --read-only
    #[arg(long)]
    pub(crate) firecracker: bool,
    /// Memory for pages of the snapshot, like 64MiB, for all guests together
    #[arg(long, value_name = "BYTES", default_value = "256MiB", value_parser = parse_resident, requires = "firecracker")]
    pub(crate) resident: u64,
    /// Post figures at this socket, for upager top
    #[arg(long, value_name = "SOCKET")]
    pub(crate) figures: Option<PathBuf>,
    /// Say by a JSON object, and not by a sentence, that clients may come
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct AttachArgs {
    /// Where the pager serves
    #[arg(long, value_name = "SOCKET")]
    pub(crate) socket: PathBuf,
    /// Compare each byte with FILE's
    #[arg(long, value_name = "FILE", conflicts_with = "look")]
    pub(crate) compare: Option<PathBuf>,
    /// Show LENGTH bytes from OFFSET on, and read no others
    #[arg(long, value_name = "OFFSET:LENGTH", value_parser = parse_look)]
    pub(crate) look: Option<(u64, u64)>,
    /// Read all of it again and again for so long; once at least
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = parse_time, allow_negative_numbers = true)]
    pub(crate) seconds: Duration,
    /// Memory for pages, like 64MiB [default: no limit]
    #[arg(long, value_name = "BYTES", value_parser = parse_resident)]
    pub(crate) resident: Option<u64>,
    /// The most pages that one fault brings in when the reading is sequential
    #[arg(long, value_name = "PAGES", default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=65535))]
    pub(crate) read_ahead: u64,
    /// Pages that are read with a page that is missing, in blocks of so many
    #[arg(long, value_name = "PAGES", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub(crate) read_around: u64,
    /// Post figures at this socket, for upager top
    #[arg(long, value_name = "SOCKET")]
    pub(crate) figures: Option<PathBuf>,
    /// Print one JSON object instead of the table
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct TopArgs {
    /// Where the figures are posted
    #[arg(value_name = "FIGURES")]
    pub(crate) figures: PathBuf,
    /// Look once, and print a table; so it is also where stdout is no terminal
    #[arg(long)]
    pub(crate) once: bool,
    /// Look once, and print one JSON object
    #[arg(long, conflicts_with = "prometheus")]
    pub(crate) json: bool,
    /// Look once, and print Prometheus's text format
    #[arg(long)]
    pub(crate) prometheus: bool,
    /// How often to look
    #[arg(long, value_name = "TIME", default_value = "1", value_parser = parse_interval, allow_negative_numbers = true)]
    pub(crate) interval: Duration,
}

#[derive(Args)]
pub(crate) struct SoakArgs {
    /// How long, like 5, 0.5 or 1m
    #[arg(long, value_name = "TIME", default_value = "300", value_parser = parse_time, allow_negative_numbers = true)]
    seconds: Duration,
    /// Threads that do everything
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// VMOs at a time
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=1024))]
    vmos: u16,
    /// Seed of what the threads draw, not of how they meet [default: drawn, and reported]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Print one JSON object instead of the table
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct ScaleArgs {
    /// Numbers of threads, like 1,2,4 [default: 1, 2, 4 and so on, and all processors]
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Vec<u16>,
    /// What to measure [default: everything]
    #[arg(long, value_name = "LOAD,...", value_delimiter = ',')]
    only: Vec<Load>,
    /// How long each point takes in each round, like 1, 0.2 or 500ms
    #[arg(long, value_name = "TIME", default_value = "0.5", value_parser = parse_time, allow_negative_numbers = true)]
    seconds: Duration,
    /// Rounds, of which the median counts
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// Pages of the VMO that is looked up and written to
    #[arg(long, value_name = "N", default_value_t = 1 << 20, value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    pages: u64,
    /// Plot the speed-up into FILE, as SVG
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Print one JSON object instead of the table
    #[arg(long)]
    pub(crate) json: bool,
}

/// What is measured, with nothing left open.
#[derive(Debug)]
pub(crate) struct ScaleConfig {
    /// In order, each once.
    pub(crate) threads: Vec<u16>,
    pub(crate) loads: Vec<Load>,
    pub(crate) time: Duration,
    pub(crate) rounds: u16,
    pub(crate) pages: u64,
    /// That this program may use.
    pub(crate) processors: u16,
}

impl ScaleConfig {
    /// Fills in what was not said.
    pub(crate) fn new(args: &ScaleArgs) -> Result<Self, Failure> {
        if args.seconds.is_zero() {
            return Err(Failure::Option("--seconds must be more than 0".into()));
        }
        let all = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let processors = u16::try_from(all).unwrap_or(u16::MAX);
        let mut threads = args.threads.clone();
        if threads.is_empty() {
            threads = (0..16).map(|power| 1 << power).take_while(|threads| *threads < processors).collect();
            threads.push(processors.min(1024));
        }
        threads.sort_unstable();
        threads.dedup();
        let loads = Load::value_variants().iter().copied();
        let loads = loads.filter(|load| args.only.is_empty() || args.only.contains(load)).collect();
        Ok(Self { threads, loads, time: args.seconds, rounds: args.rounds, pages: args.pages, processors })
    }
}

/// What a soak does, with nothing left open.
#[derive(Debug)]
pub(crate) struct SoakConfig {
    pub(crate) time: Duration,
    pub(crate) threads: u16,
    pub(crate) vmos: u64,
    pub(crate) seed: u64,
}

impl SoakConfig {
    /// Fills in what was not said.
    pub(crate) fn new(args: &SoakArgs) -> Result<Self, Failure> {
        if args.seconds.is_zero() {
            return Err(Failure::Option("--seconds must be more than 0".into()));
        }
        Ok(Self {
            time: args.seconds,
            threads: args.threads,
            vmos: args.vmos.into(),
            seed: args.seed.unwrap_or_else(rand::random),
        })
    }
}

/// What a run does, with nothing left open.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) file: Arc<SourceFile>,
    pub(crate) readers: u16,
    pub(crate) writers: u16,
    pub(crate) service_threads: u16,
    /// Pages that the evictor leaves resident.
    pub(crate) resident_pages: u64,
    /// `None`: no detach.
    pub(crate) detach_after: Option<Duration>,
    pub(crate) time: Duration,
    pub(crate) warn_after: Duration,
    /// Readers and writers call the VMO; else it is mapped, and they touch memory.
    pub(crate) api: bool,
    /// Where figures are posted.
    pub(crate) figures: Option<PathBuf>,
    pub(crate) seed: u64,
}

impl Config {
    /// Opens FILE and fills in what was not said.
    pub(crate) fn new(args: RunArgs) -> Result<Self, Failure> {
        let path = match args.file {
            Some(path) => path,
            None => std::env::current_exe().map_err(|source| Failure::NoDefaultFile { source })?,
        };
        let file = SourceFile::open(path)?;
        let resident = args.resident.unwrap_or_else(|| (file.size() / 4).max(LEAST_RESIDENT));
        if resident < PAGE_SIZE {
            return Err(Failure::Option(format!("--resident {resident} is less than one page, {PAGE_SIZE} bytes")));
        }
        if args.seconds.is_zero() {
            return Err(Failure::Option("--seconds must be more than 0".into()));
        }
        let detach_after = match args.detach_after {
            _ if args.no_detach => None,
            None => Some(args.seconds.mul_f64(ATTACHED)),
            Some(after) if after < args.seconds => Some(after),
            Some(after) => {
                let (after, time) = (humantime::format_duration(after), humantime::format_duration(args.seconds));
                let text = format!("--detach-after {after} is not before the end of the run, --seconds {time}");
                return Err(Failure::Option(text));
            }
        };
        Ok(Self {
            file: Arc::new(file),
            readers: args.readers,
            writers: args.writers,
            service_threads: args.service_threads,
            resident_pages: resident / PAGE_SIZE,
            detach_after,
            time: args.seconds,
            warn_after: args.warn_after,
            api: args.api,
            figures: args.figures,
            seed: args.seed.unwrap_or_else(rand::random),
        })
    }

    /// The hard limit of frames. Above what is kept resident there is room for a burst, and for
    /// the pages that each service thread has in hand.
    pub(crate) fn frame_limit(&self) -> u64 {
        let in_hand = u64::from(self.service_threads) * crate::run::BATCH_PAGES as u64;
        self.resident_pages.saturating_add((self.resident_pages / 8).max(in_hand))
    }
}

fn parse_bytes(text: &str) -> Result<u64, String> {
    let size: ByteSize = text.parse().map_err(|_| "not a number of bytes; write 64MiB, 1GiB or 4194304".to_owned())?;
    Ok(size.as_u64())
}

fn parse_resident(text: &str) -> Result<u64, String> {
    let bytes = parse_bytes(text)?;
    if bytes < LEAST_RESIDENT {
        return Err(format!("less than {LEAST_RESIDENT} bytes"));
    }
    Ok(bytes)
}

fn parse_look(text: &str) -> Result<(u64, u64), String> {
    let number = |text: &str| match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => parse_bytes(text).ok(),
    };
    let parts = text.split_once(':').and_then(|(offset, length)| Some((number(offset)?, number(length)?)));
    match parts {
        // What a person looks at fits memory.
        Some((offset, length)) if (1..=1 << 24).contains(&length) => Ok((offset, length)),
        _ => Err("not an offset and a length of at most 16MiB; write 0:64, 1MiB:4KiB or 0x1000:32".to_owned()),
    }
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let time = parse_time(text)?;
    if time < Duration::from_millis(50) {
        return Err("less than 50ms".to_owned());
    }
    Ok(time)
}

/// A plain number is seconds; otherwise a number needs its unit.
fn parse_time(text: &str) -> Result<Duration, String> {
    let time = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => humantime::parse_duration(text).ok(),
    };
    // A day: more than anyone runs, and far from any overflow of the clock.
    let day = Duration::from_secs(24 * 60 * 60);
    time.filter(|time| *time <= day).ok_or_else(|| "not a time of at most a day; write 2s, 500ms or 1.5".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn bytes_and_times_are_read_as_people_write_them() {
        assert_eq!(parse_bytes("64MiB"), Ok(64 << 20));
        assert_eq!(parse_bytes("1GiB"), Ok(1 << 30));
        assert_eq!(parse_bytes("4194304"), Ok(4 << 20));
        assert!(parse_bytes("much").is_err());
        assert_eq!(parse_look("0:64"), Ok((0, 64)));
        assert_eq!(parse_look("1MiB:0x10"), Ok((1 << 20, 16)));
        for bad in ["", "1", "1:", ":1", "1:0", "0:1GiB", "x:1"] {
            assert!(parse_look(bad).is_err(), "{bad}");
        }
        assert!(parse_interval("1ms").is_err() && parse_resident("1").is_err());
        assert_eq!(parse_time("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(parse_time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_time("1.5"), Ok(Duration::from_millis(1500)));
        for bad in ["soon", "-1", "nan", "inf", "1e300", ""] {
            assert!(parse_time(bad).is_err(), "{bad}");
        }
    }
}
