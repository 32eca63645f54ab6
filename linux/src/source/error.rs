//! What can go wrong in a source, and what that means to the pager and to a retry.

use std::error::Error;
use std::fmt;
use std::io;

use thiserror::Error;
use upager::{ByteRange, Status};

/// What was being done.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Operation {
    /// Making the source ready.
    Open,
    /// [`PageSource::read_pages`](super::PageSource::read_pages).
    Read,
    /// [`PageSource::write_pages`](super::PageSource::write_pages).
    Write,
    /// [`PageSource::sync`](super::PageSource::sync).
    Sync,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Read => "read",
            Self::Write => "write",
            Self::Sync => "sync",
        })
    }
}

/// The kinds of error, told apart by what somebody would do about them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// It may pass by itself: busy, throttled, timed out, out of reach, out of memory. The only kind that is transient.
    #[error("the source is not available now")]
    Unavailable,
    /// The device or the store says no, for good.
    #[error("the source failed")]
    Io,
    /// What was read is not what was stored.
    #[error("the source is corrupt")]
    Corrupt,
    /// The source has fewer bytes than when it was opened.
    #[error("the source shrank")]
    Shrank,
    /// No space, or over a quota.
    #[error("the source has no space left")]
    NoSpace,
    /// A page to be written lies wholly past the end.
    #[error("the page lies past the end of the source")]
    PastEnd,
    /// The source has no writes.
    #[error("the source is read-only")]
    ReadOnly,
    /// The source is there no more, was replaced by another, or may not be used any more.
    #[error("the source is gone")]
    Gone,
    /// The source cannot be what it was asked to be: a pipe, a format of another kind, an option its file system does not have.
    #[error("the source is not supported")]
    Unsupported,
}

impl ErrorKind {
    /// All of them. Another process knows them by their places here, so a new one goes to the end.
    pub(crate) const ALL: [Self; 9] = [
        Self::Unavailable,
        Self::Io,
        Self::Corrupt,
        Self::Shrank,
        Self::NoSpace,
        Self::PastEnd,
        Self::ReadOnly,
        Self::Gone,
        Self::Unsupported,
    ];

    /// What the pager shall tell whoever waits: always a status that
    /// [may fail a request](Status::may_fail_a_request).
    ///
    /// ```
    /// use upager::Status;
    /// use upager_linux::source::ErrorKind;
    /// assert_eq!(ErrorKind::Corrupt.status(), Status::IoDataIntegrity);
    /// ```
    #[must_use]
    pub const fn status(self) -> Status {
        match self {
            Self::Unavailable | Self::Io | Self::Shrank => Status::Io,
            Self::Corrupt => Status::IoDataIntegrity,
            Self::NoSpace | Self::PastEnd => Status::NoSpace,
            Self::ReadOnly | Self::Gone | Self::Unsupported => Status::BadState,
        }
    }

    /// What kind of error the system's is. An input or output error (EIO) is not held to be transient: the
    /// kernel and the device have tried again already.
    #[must_use]
    pub fn of(error: &io::Error) -> Self {
        match rustix::io::Errno::from_io_error(error) {
            Some(rustix::io::Errno::BADMSG | rustix::io::Errno::UCLEAN | rustix::io::Errno::ILSEQ) => {
                return Self::Corrupt;
            }
            Some(rustix::io::Errno::CANCELED | rustix::io::Errno::NOBUFS) => return Self::Unavailable,
            _ => {}
        }
        match error.kind() {
            io::ErrorKind::Interrupted
            | io::ErrorKind::WouldBlock
            | io::ErrorKind::TimedOut
            | io::ErrorKind::ResourceBusy
            | io::ErrorKind::OutOfMemory
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::NotConnected
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown => Self::Unavailable,
            io::ErrorKind::InvalidData => Self::Corrupt,
            io::ErrorKind::UnexpectedEof => Self::Shrank,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => Self::NoSpace,
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::StaleNetworkFileHandle => {
                Self::Gone
            }
            io::ErrorKind::Unsupported => Self::Unsupported,
            _ => Self::Io,
        }
    }
}

/// Why a source could not do it: the kind, what was being done and where, and the cause, if there is one beneath.
///
/// ```
/// use upager::{ByteRange, Status};
/// use upager_linux::source::{ErrorKind, Operation, SourceError};
/// let error = SourceError::new(ErrorKind::NoSpace, Operation::Write, ByteRange::new(8192, 4096));
/// assert_eq!(error.to_string(), "cannot write 4096 bytes at 8192: the source has no space left");
/// assert_eq!(error.status(), Status::NoSpace);
/// ```
#[derive(Debug, Error)]
#[error("cannot {operation}{}: {kind}", Place(*.range))]
pub struct SourceError {
    kind: ErrorKind,
    operation: Operation,
    range: Option<ByteRange>,
    #[source]
    cause: Option<Box<dyn Error + Send + Sync>>,
}

struct Place(Option<ByteRange>);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(range) => write!(f, " {} bytes at {}", range.length, range.offset),
            None => Ok(()),
        }
    }
}

impl SourceError {
    /// An error without a cause beneath.
    #[must_use]
    pub fn new(kind: ErrorKind, operation: Operation, range: impl Into<Option<ByteRange>>) -> Self {
        Self { kind, operation, range: range.into(), cause: None }
    }

    /// The same, because of `cause`.
    #[must_use]
    pub fn because(self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { cause: Some(cause.into()), ..self }
    }

    /// The system's error, of the kind that it is.
    #[must_use]
    pub fn io(error: impl Into<io::Error>, operation: Operation, range: impl Into<Option<ByteRange>>) -> Self {
        let error = error.into();
        Self::new(ErrorKind::of(&error), operation, range).because(error)
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What was being done.
    #[must_use]
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// The bytes of the source that it is about, if it is about some.
    #[must_use]
    pub fn range(&self) -> Option<ByteRange> {
        self.range
    }

    /// What the pager shall tell whoever waits: see [`ErrorKind::status`].
    #[must_use]
    pub fn status(&self) -> Status {
        self.kind.status()
    }

    /// Whether the same call may succeed later, without anybody doing anything about it.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.kind == ErrorKind::Unavailable
    }
}

impl From<&SourceError> for Status {
    fn from(error: &SourceError) -> Self {
        error.status()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_may_fail_a_request() {
        for kind in ErrorKind::ALL {
            assert!(kind.status().may_fail_a_request(), "{kind:?}");
        }
    }

    #[test]
    fn the_systems_errors_have_their_kinds() {
        use rustix::io::Errno;
        for (errno, kind) in [
            (Errno::IO, ErrorKind::Io),
            (Errno::AGAIN, ErrorKind::Unavailable),
            (Errno::NOMEM, ErrorKind::Unavailable),
            (Errno::TIMEDOUT, ErrorKind::Unavailable),
            (Errno::NOSPC, ErrorKind::NoSpace),
            (Errno::DQUOT, ErrorKind::NoSpace),
            (Errno::FBIG, ErrorKind::NoSpace),
            (Errno::BADMSG, ErrorKind::Corrupt),
            (Errno::UCLEAN, ErrorKind::Corrupt),
            (Errno::STALE, ErrorKind::Gone),
            (Errno::NOENT, ErrorKind::Gone),
            (Errno::ACCESS, ErrorKind::Gone),
            (Errno::ROFS, ErrorKind::ReadOnly),
            (Errno::OPNOTSUPP, ErrorKind::Unsupported),
        ] {
            let error = SourceError::io(errno, Operation::Read, None);
            assert_eq!(error.kind(), kind, "{errno:?}");
            assert_eq!(error.to_string(), format!("cannot read: {kind}"));
            assert!(error.source().is_some());
        }
    }
}
