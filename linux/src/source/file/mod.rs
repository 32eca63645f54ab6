//! A file or a block device as a source.
//!
//! A read of what the page cache holds is done at once, by whoever polls it: `preadv2(RWF_NOWAIT)`. All
//! else goes to an *engine*: an io_uring where the kernel has one for us, threads where it has not.

mod threads;
mod transfer;
mod uring;

use std::fmt;
use std::io::{self, IoSliceMut, Seek, SeekFrom};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_channel::oneshot;
use rustix::fs::{AtFlags, OFlags, StatxFlags};
use rustix::io::{Errno, ReadWriteFlags};
use upager::{Access, ByteRange, PageCount, PageIndex};

use self::transfer::{Transfer, Work};
use super::{Capabilities, ErrorKind, Operation, PageBuf, PageSource, SourceError, SourceFuture, Span, read_only};

/// Whether the kernel keeps a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Caching {
    /// Through the page cache: what was read lately is read again without the device, and what is written is written later.
    #[default]
    Cached,
    /// Past the page cache (O_DIRECT): the pager's memory is the only copy. Buffers and pages are aligned for devices with blocks of up
    /// to 4096 bytes. The end of a file that is no multiple of 4096 bytes goes through the cache.
    Direct,
}

/// Who carries out what cannot be done at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Engine {
    /// io_uring if the kernel has it for us, else threads.
    #[default]
    Auto,
    /// io_uring: one thread for the process, hundreds of operations in flight.
    IoUring,
    /// A thread for each operation in flight.
    Threads,
}

/// How a [`File`] is opened.
///
/// ```no_run
/// use upager::Access;
/// use upager_linux::source::{Caching, File, FileOptions};
/// let options = FileOptions { access: Access::Write, caching: Caching::Direct, ..FileOptions::default() };
/// let disk = File::open_with("/dev/vdb", options)?;
/// # Ok::<(), upager_linux::source::SourceError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileOptions {
    /// [`Access::Write`] to write as well as to read.
    pub access: Access,
    /// Whether the kernel keeps a copy.
    pub caching: Caching,
    /// Who carries out what cannot be done at once.
    pub engine: Engine,
}

impl Default for FileOptions {
    /// Reading only, cached, by the best engine there is.
    fn default() -> Self {
        Self { access: Access::Read, caching: Caching::Cached, engine: Engine::Auto }
    }
}

/// A regular file or a block device.
///
/// Its length is what it was when it was opened, and stays: writes never make the file longer. If somebody else makes it
/// shorter, reads of what is missing fail with [`Shrank`](ErrorKind::Shrank). `sync` is `fdatasync`.
///
/// ```
/// use upager::{PageCount, PageIndex, block_on};
/// use upager_linux::source::{File, PageBuf, PageSource};
/// let this = File::open(std::env::current_exe().unwrap())?;
/// let page = block_on(this.read_pages(PageIndex(0), PageBuf::new(PageCount(1))))?;
/// assert_eq!(&page[..4], b"\x7fELF");
/// # Ok::<(), upager_linux::source::SourceError>(())
/// ```
pub struct File {
    path: PathBuf,
    descriptor: Arc<OwnedFd>,
    /// For the end that O_DIRECT cannot write: the same file, cached.
    end: Option<Arc<OwnedFd>>,
    len: u64,
    options: FileOptions,
    /// The ring, or threads if there is none.
    ring: Option<&'static uring::Ring>,
    /// Whether the file system is worth asking for what it can give at once.
    at_once: AtomicBool,
}

/// Bytes that are copied out of the page cache by whoever polls, at most: 20 to 60 us of copying, less than the hop to an engine and back costs.
const AT_ONCE: usize = 256 << 10;

impl File {
    /// Opens it for reading, with the default [`FileOptions`].
    ///
    /// # Errors
    ///
    /// As [`open_with`](Self::open_with).
    pub fn open(path: impl AsRef<Path>) -> Result<Self, SourceError> {
        Self::open_with(path, FileOptions::default())
    }

    /// Opens it. It must exist. Blocks for as long as the file system takes.
    ///
    /// # Errors
    ///
    /// `Unsupported`: neither a regular file nor a block device; or the file system has no O_DIRECT for blocks of 4096
    /// bytes; or there is no io_uring, and nothing else would do. `Gone`: it is not there, or may not be opened. Others
    /// as the system says.
    pub fn open_with(path: impl AsRef<Path>, options: FileOptions) -> Result<Self, SourceError> {
        let path = path.as_ref();
        Self::try_open(path, options).map_err(|error| {
            let named = io::Error::new(error.kind(), format!("{}: {error}", path.display()));
            SourceError::new(ErrorKind::of(&error), Operation::Open, None).because(named)
        })
    }

    fn try_open(path: &Path, options: FileOptions) -> io::Result<Self> {
        // Before it is opened: opening a pipe would wait for a writer.
        let kind = std::fs::metadata(path)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(unsupported("it is neither a regular file nor a block device"));
        }
        let ring = match options.engine {
            Engine::Auto => uring::ring(),
            Engine::IoUring => {
                Some(uring::ring().ok_or_else(|| unsupported("the kernel has no io_uring for this process"))?)
            }
            Engine::Threads => None,
        };
        let open = |flags: OFlags| {
            let writes = options.access == Access::Write;
            std::fs::OpenOptions::new().read(true).write(writes).custom_flags(flags.bits().cast_signed()).open(path)
        };
        let mut file = match options.caching {
            Caching::Cached => open(OFlags::empty())?,
            Caching::Direct => match open(OFlags::DIRECT) {
                Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => return Err(unsupported(NO_DIRECT)),
                file => file?,
            },
        };
        let len = length(&mut file)?;
        let mut end = None;
        if options.caching == Caching::Direct {
            check_alignment(&file)?;
            if options.access == Access::Write && !len.is_multiple_of(PageBuf::PAGE as u64) {
                end = Some(Arc::new(open(OFlags::empty())?.into()));
            }
        }
        Ok(Self {
            path: path.to_owned(),
            descriptor: Arc::new(file.into()),
            end,
            len,
            options,
            ring,
            at_once: AtomicBool::new(options.caching == Caching::Cached),
        })
    }

    /// The engine that it has: never `Auto`.
    #[must_use]
    pub fn engine(&self) -> Engine {
        if self.ring.is_some() { Engine::IoUring } else { Engine::Threads }
    }

    /// Fills what it can of the buffer without waiting for the device. How much is not said to be final.
    fn read_at_once(&self, span: Span, into: &mut PageBuf) -> usize {
        // Relaxed: a hint, about nothing but itself.
        if span.stored > AT_ONCE || !self.at_once.load(Ordering::Relaxed) {
            return 0;
        }
        let mut bytes = [IoSliceMut::new(&mut into[..span.stored])];
        match rustix::io::preadv2(self.descriptor.as_fd(), &mut bytes, span.offset, ReadWriteFlags::NOWAIT) {
            Ok(count) => count,
            Err(Errno::AGAIN | Errno::INTR) => 0,
            // The file system has no such thing; if it is another error, the engine will meet it too.
            Err(_) => {
                self.at_once.store(false, Ordering::Relaxed);
                0
            }
        }
    }

    /// Hands the operation to the engine and waits for its answer.
    async fn carry_out<T>(
        &self,
        transfer: Transfer,
        answer: oneshot::Receiver<io::Result<T>>,
        operation: Operation,
        range: Option<ByteRange>,
    ) -> Result<T, SourceError> {
        match self.ring {
            Some(ring) => ring.submit(transfer),
            None => threads::submit(transfer),
        }
        match answer.await {
            Ok(result) => result.map_err(|error| SourceError::io(error, operation, range)),
            Err(oneshot::Canceled) => {
                Err(SourceError::new(ErrorKind::Io, operation, range).because("the engine is gone"))
            }
        }
    }

    /// Writes `bytes` of the buffer.
    async fn write(
        &self,
        file: &Arc<OwnedFd>,
        span: Span,
        from: Arc<PageBuf>,
        bytes: std::ops::Range<usize>,
    ) -> Result<(), SourceError> {
        let (reply, answer) = oneshot::channel();
        let transfer = Transfer {
            file: file.clone(),
            work: Work::Write(from, reply),
            offset: span.offset,
            done: bytes.start,
            want: bytes.end,
            need: bytes.end,
        };
        self.carry_out(transfer, answer, Operation::Write, Some(span.range())).await
    }
}

const NO_DIRECT: &str = "the file system has no O_DIRECT for blocks of 4096 bytes";

fn unsupported(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, why)
}

/// Bytes of the file; a device has them at its end only.
fn length(file: &mut std::fs::File) -> io::Result<u64> {
    let metadata = file.metadata()?;
    if metadata.is_file() { Ok(metadata.len()) } else { file.seek(SeekFrom::End(0)) }
}

/// Whether 4096 bytes are aligned enough (statx(2), STATX_DIOALIGN; Linux 6.1). An older kernel does not say: then the first read will.
fn check_alignment(file: &std::fs::File) -> io::Result<()> {
    let Ok(stat) = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN) else {
        return Ok(());
    };
    let said = stat.stx_mask & StatxFlags::DIOALIGN.bits() != 0;
    let fits = |align: u32| (1..=PageBuf::PAGE as u32).contains(&align);
    if said && !(fits(stat.stx_dio_mem_align) && fits(stat.stx_dio_offset_align)) {
        return Err(unsupported(NO_DIRECT));
    }
    Ok(())
}

impl PageSource for File {
    fn len(&self) -> u64 {
        self.len
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            writable: self.options.access == Access::Write,
            preferred_read: PageCount(32),
            preferred_write: PageCount(32),
            concurrency: const { NonZeroUsize::new(32).unwrap() },
        }
    }

    fn read_pages(&self, first: PageIndex, mut into: PageBuf) -> SourceFuture<'_, PageBuf> {
        Box::pin(async move {
            let span = Span::new(self.len, first, &into);
            let done = self.read_at_once(span, &mut into);
            if done == span.stored {
                into[done..].fill(0);
                return Ok(into);
            }
            let want = match self.options.caching {
                Caching::Cached => span.stored,
                Caching::Direct => span.stored.next_multiple_of(PageBuf::PAGE),
            };
            let (reply, answer) = oneshot::channel();
            let transfer = Transfer {
                file: self.descriptor.clone(),
                work: Work::Read(into, reply),
                offset: span.offset,
                done,
                want,
                need: span.stored,
            };
            self.carry_out(transfer, answer, Operation::Read, Some(span.range())).await
        })
    }

    fn write_pages(&self, first: PageIndex, from: Arc<PageBuf>) -> SourceFuture<'_, ()> {
        if self.options.access != Access::Write {
            return read_only(first, &from);
        }
        Box::pin(async move {
            let span = Span::of_write(self.len, first, &from)?;
            // Whole pages and the end go apart where O_DIRECT can write only the former.
            let whole = match &self.end {
                Some(_) => span.stored - span.stored % PageBuf::PAGE,
                None => span.stored,
            };
            if whole > 0 {
                self.write(&self.descriptor, span, from.clone(), 0..whole).await?;
            }
            if let Some(end) = &self.end
                && whole < span.stored
            {
                self.write(end, span, from, whole..span.stored).await?;
            }
            Ok(())
        })
    }

    fn sync(&self) -> SourceFuture<'_, ()> {
        Box::pin(async move {
            if self.options.access != Access::Write {
                return Ok(());
            }
            let (reply, answer) = oneshot::channel();
            let transfer = Transfer {
                file: self.descriptor.clone(),
                work: Work::Sync(reply),
                offset: 0,
                done: 0,
                want: 0,
                need: 0,
            };
            self.carry_out(transfer, answer, Operation::Sync, None).await
        })
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File")
            .field("path", &self.path)
            .field("len", &self.len)
            .field("options", &self.options)
            .field("engine", &self.engine())
            .finish_non_exhaustive()
    }
}
