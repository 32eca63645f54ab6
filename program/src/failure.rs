//! Why a run could not be carried to its end.
//!
//! A run that was carried to its end has a [`Report`](crate::report::Report) instead, good or bad.

use std::io;
use std::path::PathBuf;

use thiserror::Error;
use upager::Status;

/// What went wrong, in a sentence for a person.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    /// FILE is not there, or may not be read.
    #[error("cannot open {}: {source}", path.display())]
    Open { path: PathBuf, source: io::Error },
    /// FILE is a directory, a pipe, a device.
    #[error("{} is {kind}; upager needs a regular file", path.display())]
    NotAFile { path: PathBuf, kind: &'static str },
    /// FILE has no bytes.
    #[error("{} is empty; upager needs a file with at least one byte", path.display())]
    Empty { path: PathBuf },
    /// FILE became shorter than it was at the start.
    #[error(
        "{} shrank while upager ran: it had {size} bytes and has {now} now; the run was stopped, its result is void",
        path.display()
    )]
    Shrank { path: PathBuf, size: u64, now: u64 },
    /// FILE could not be read any more.
    #[error("cannot read {} at byte {offset}: {source}", path.display())]
    Read { path: PathBuf, offset: u64, source: io::Error },
    /// The copy or the shadow could not be made, read or written.
    #[error("cannot use a temporary file in {}: {source}", path.display())]
    Temporary { path: PathBuf, source: io::Error },
    /// The program does not know where it lies.
    #[error("cannot find this program's own file ({source}); name a FILE")]
    NoDefaultFile { source: io::Error },
    /// An option does not fit the others, or FILE.
    #[error("{0}")]
    Option(String),
    /// The plot could not be written.
    #[error("cannot write the plot to {}: {problem}", path.display())]
    Plot { path: PathBuf, problem: String },
    /// The system refused a thread.
    #[error("cannot start the thread {name}: {source}")]
    Thread { name: String, source: io::Error },
    /// A thread of the run panicked: a defect of this program or of the pager.
    #[error("the thread {name} panicked")]
    Panicked { name: String },
    /// The VMO could not be mapped.
    #[error("{error}{}; --api reads and writes by calls instead", because(error))]
    Map { error: upager_linux::Error },
    /// A touch of the mapping raised SIGBUS, before the detach and without a reason.
    #[error("{doing} raised SIGBUS, which it must not")]
    Signal { doing: &'static str },
    /// The pager answered with a status that it must not give there.
    #[error("{doing} failed with {status:?} ({status}), which it must not")]
    Pager { doing: &'static str, status: Status },
}

/// What the system said, if it did.
fn because(error: &upager_linux::Error) -> String {
    std::error::Error::source(error).map_or_else(String::new, |source| format!(": {source}"))
}

impl From<upager_linux::Error> for Failure {
    fn from(error: upager_linux::Error) -> Self {
        Self::Map { error }
    }
}

impl Failure {
    /// The exit status: 1 where the pager or the program is to blame, 2 where the surroundings are.
    pub(crate) fn exit_status(&self) -> u8 {
        match self {
            Self::Panicked { .. } | Self::Pager { .. } | Self::Signal { .. } => 1,
            _ => 2,
        }
    }

    /// For `map_err`: the pager refused `doing`.
    pub(crate) fn pager(doing: &'static str) -> impl Fn(Status) -> Self {
        move |status| Self::Pager { doing, status }
    }
}
