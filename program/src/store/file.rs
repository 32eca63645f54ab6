//! FILE: opened once, read by position, never written.
//!
//! It is read by `pread` and not mapped: a mapping of a file that shrinks ends in SIGBUS, a
//! `pread` of it ends in a short read, which becomes [`Failure::Shrank`].

use std::fs::{self, File, FileType};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};

use upager::PAGE_SIZE;

use crate::failure::Failure;

/// FILE, and the size that it had when it was opened.
#[derive(Debug)]
pub(crate) struct SourceFile {
    file: File,
    path: PathBuf,
    size: u64,
}

impl SourceFile {
    /// Opens a regular file with at least one byte.
    pub(crate) fn open(path: PathBuf) -> Result<Self, Failure> {
        // Before it is opened: opening a pipe would wait for a writer.
        let kind = match fs::metadata(&path) {
            Ok(metadata) => metadata.file_type(),
            Err(source) => return Err(Failure::Open { path, source }),
        };
        if !kind.is_file() {
            return Err(Failure::NotAFile { path, kind: name_of(kind) });
        }
        let opened = File::open(&path).and_then(|file| Ok((file.metadata()?.len(), file)));
        match opened {
            Err(source) => Err(Failure::Open { path, source }),
            Ok((0, _)) => Err(Failure::Empty { path }),
            Ok((size, file)) => Ok(Self { file, path, size }),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes, at least one.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Pages, the last of which may be filled in part.
    pub(crate) fn pages(&self) -> u64 {
        self.size.div_ceil(PAGE_SIZE)
    }

    /// Fills `to` with the bytes from `offset` on, and with zeros past the end, as the VMO has them.
    pub(crate) fn read(&self, offset: u64, to: &mut [u8]) -> Result<(), Failure> {
        let left = self.size.saturating_sub(offset);
        let (bytes, past) = to.split_at_mut(to.len().min(left as usize));
        past.fill(0);
        match self.file.read_exact_at(bytes, offset) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(self.shrank()),
            Err(source) => Err(Failure::Read { path: self.path.clone(), offset, source }),
        }
    }

    /// Whether FILE still has all its bytes.
    pub(crate) fn check_size(&self) -> Result<(), Failure> {
        match self.file.metadata() {
            Ok(now) if now.len() < self.size => Err(self.shrank()),
            Ok(_) => Ok(()),
            Err(source) => Err(Failure::Read { path: self.path.clone(), offset: 0, source }),
        }
    }

    fn shrank(&self) -> Failure {
        let now = self.file.metadata().map_or(0, |metadata| metadata.len());
        Failure::Shrank { path: self.path.clone(), size: self.size, now }
    }
}

fn name_of(kind: FileType) -> &'static str {
    match kind {
        _ if kind.is_dir() => "a directory",
        _ if kind.is_fifo() => "a pipe",
        _ if kind.is_socket() => "a socket",
        _ if kind.is_block_device() || kind.is_char_device() => "a device",
        _ => "no regular file",
    }
}
