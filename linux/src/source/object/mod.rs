//! Object stores as sources: S3 and its like, a directory, memory; whatever the crate `object_store` speaks to.
//!
//! | source | in the store | writes |
//! | --- | --- | --- |
//! | [`Object`] | one object, as anybody made it | no |
//! | [`Parts`] | many objects of one size, of which absent ones are zeros | yes |
//!
//! An object can only be written as a whole, also by a multipart upload: a terabyte again for one dirty page.
//! So what is written lies in parts of a fixed size, each an object that is replaced in one step.
//!
//! A read is cut into GETs of at most 1 MiB, up to 16 at a time, and joined again; nothing is kept.
//! Short reads cost as much as long ones here: ask for [`preferred_read`](super::Capabilities::preferred_read)
//! pages, several at once ([`ReadAhead`](super::ReadAhead)).

mod parts;
mod single;

use std::error::Error;
use std::io;
use std::num::NonZeroUsize;
use std::ops::{Deref, Range};
use std::sync::{Arc, LazyLock};

use futures_util::StreamExt;
use futures_util::stream;
use object_store::path::Path;
use object_store::{GetOptions, ObjectStore};
use tokio::runtime::{Builder, Handle, Runtime};
use upager::ByteRange;

use super::{ErrorKind, Operation, PageBuf, SourceError, Span};

pub use parts::Parts;
pub use single::Object;

/// Bytes of a GET at most: enough that latency does not rule, and little enough that one page does not wait long for its neighbours.
const GET: u64 = 1 << 20;

/// GETs, or PUTs, of one call at a time.
const AT_ONCE: usize = 16;

/// Calls of the preferred size in flight beyond which there is no gain: 16 MiB in flight give 500 MB/s at up to 32 ms.
const CONCURRENCY: NonZeroUsize = NonZeroUsize::new(16).unwrap();

/// A store, and where the work for it is done.
#[derive(Clone, Debug)]
struct Store {
    store: Arc<dyn ObjectStore>,
    runtime: Handle,
}

/// A range of an object, and where it goes in the buffer.
struct Piece {
    path: Path,
    range: Range<u64>,
    at: usize,
    /// The version of the object, if it must be one.
    version: Option<String>,
}

/// What an object that is not there means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Absent {
    /// It is gone.
    Error,
    /// It was never written.
    Zeros,
}

impl Store {
    fn new(store: Arc<dyn ObjectStore>) -> Result<Self, SourceError> {
        static SHARED: LazyLock<io::Result<Runtime>> = LazyLock::new(|| {
            Builder::new_multi_thread().worker_threads(2).thread_name("upager-objects").enable_all().build()
        });
        let runtime = match (Handle::try_current(), &*SHARED) {
            (Ok(current), _) => current,
            (Err(_), Ok(shared)) => shared.handle().clone(),
            (Err(_), Err(error)) => {
                return Err(SourceError::new(ErrorKind::of(error), Operation::Open, None).because(error.to_string()));
            }
        };
        Ok(Self { store, runtime })
    }

    /// Does the work on the runtime. It goes on if the caller does not wait.
    async fn run<T: Send + 'static>(
        &self,
        operation: Operation,
        range: Option<ByteRange>,
        work: impl Future<Output = Result<T, SourceError>> + Send + 'static,
    ) -> Result<T, SourceError> {
        match self.runtime.spawn(work).await {
            Ok(result) => result,
            // The runtime was shut down, or the store panicked.
            Err(error) => Err(SourceError::new(ErrorKind::Gone, operation, range).because(error)),
        }
    }

    /// Fills the buffer from the pieces, several at a time, and with zeros past what is stored.
    async fn fill(
        self,
        pieces: Vec<Piece>,
        absent: Absent,
        span: Span,
        mut into: PageBuf,
    ) -> Result<PageBuf, SourceError> {
        into[span.stored..].fill(0);
        let gets = pieces.into_iter().map(|piece| self.get(piece, absent, span));
        let mut gets = stream::iter(gets).buffer_unordered(AT_ONCE);
        while let Some(got) = gets.next().await {
            let (piece, bytes) = got?;
            let to = &mut into[piece.at..piece.at + (piece.range.end - piece.range.start) as usize];
            match bytes {
                Some(bytes) => to.copy_from_slice(&bytes),
                None => to.fill(0),
            }
        }
        drop(gets);
        Ok(into)
    }

    /// The piece's bytes: all of them, or `None` if the object is absent and may be.
    async fn get(
        &self,
        piece: Piece,
        absent: Absent,
        span: Span,
    ) -> Result<(Piece, Option<impl Deref<Target = [u8]> + use<>>), SourceError> {
        let options = GetOptions {
            range: Some(piece.range.clone().into()),
            if_match: piece.version.clone(),
            ..GetOptions::default()
        };
        let got = match self.store.get_opts(&piece.path, options).await {
            Ok(got) => got.bytes().await,
            Err(error) => Err(error),
        };
        match got {
            Ok(bytes) if bytes.len() as u64 == piece.range.end - piece.range.start => Ok((piece, Some(bytes))),
            Ok(_) => Err(SourceError::new(ErrorKind::Shrank, Operation::Read, span.range())
                .because(format!("{} is shorter than it was made", piece.path))),
            Err(object_store::Error::NotFound { .. }) if absent == Absent::Zeros => Ok((piece, None)),
            Err(error) => Err(failed(error, Operation::Read, Some(span.range()))),
        }
    }
}

/// Cuts `range`, whose first byte goes to `at`, into pieces that end at multiples of [`GET`].
fn cut(path: &Path, version: Option<&str>, range: Range<u64>, at: usize) -> impl Iterator<Item = Piece> {
    let first = range.start;
    let mut start = range.start;
    std::iter::from_fn(move || {
        (start < range.end).then(|| {
            let end = range.end.min(start - start % GET + GET);
            let piece = start..end;
            start = end;
            Piece {
                path: path.clone(),
                at: at + (piece.start - first) as usize,
                range: piece,
                version: version.map(Into::into),
            }
        })
    })
}

/// The store's error, of the kind that it is.
///
/// A store over a network has tried again for a while itself, and says `Generic` when it gives up: out of reach, throttled, or a reason that
/// it does not know. That is taken for transient, unless there is a system's error beneath that is not.
fn failed(error: object_store::Error, operation: Operation, range: Option<ByteRange>) -> SourceError {
    use object_store::Error as Said;
    let kind = match &error {
        Said::NotFound { .. }
        | Said::Precondition { .. }
        | Said::PermissionDenied { .. }
        | Said::Unauthenticated { .. } => ErrorKind::Gone,
        Said::NotSupported { .. } | Said::NotImplemented { .. } | Said::InvalidPath { .. } => ErrorKind::Unsupported,
        Said::Generic { source, .. } => beneath(&**source).map_or(ErrorKind::Unavailable, ErrorKind::of),
        _ => ErrorKind::Io,
    };
    SourceError::new(kind, operation, range).because(error)
}

/// The system's error beneath, if there is one.
fn beneath<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    match error.downcast_ref() {
        Some(error) => Some(error),
        None => beneath(error.source()?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt;

    #[derive(Debug)]
    struct Outer(io::Error);

    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("outer")
        }
    }

    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn a_stores_errors_have_their_kinds() {
        let generic = |source| object_store::Error::Generic { store: "test", source };
        let path = || String::from("a");
        for (error, kind) in [
            (generic("503".into()), ErrorKind::Unavailable),
            (generic(Box::new(Outer(io::ErrorKind::StorageFull.into()))), ErrorKind::NoSpace),
            (generic(Box::new(Outer(io::ErrorKind::ConnectionReset.into()))), ErrorKind::Unavailable),
            (object_store::Error::NotFound { path: path(), source: "".into() }, ErrorKind::Gone),
            (object_store::Error::Precondition { path: path(), source: "".into() }, ErrorKind::Gone),
            (object_store::Error::PermissionDenied { path: path(), source: "".into() }, ErrorKind::Gone),
            (object_store::Error::AlreadyExists { path: path(), source: "".into() }, ErrorKind::Io),
            (object_store::Error::NotSupported { source: "".into() }, ErrorKind::Unsupported),
        ] {
            let text = format!("{error:?}");
            assert_eq!(failed(error, Operation::Read, None).kind(), kind, "{text}");
        }
    }

    #[test]
    fn a_range_is_cut_at_multiples() {
        let pieces: Vec<_> = cut(&Path::from("a"), None, GET - 1..2 * GET + 5, 7).collect();
        let ranges: Vec<_> = pieces.iter().map(|piece| (piece.range.clone(), piece.at)).collect();
        assert_eq!(ranges, [(GET - 1..GET, 7), (GET..2 * GET, 8), (2 * GET..2 * GET + 5, 8 + GET as usize)]);
        assert_eq!(cut(&Path::from("a"), None, 5..5, 0).count(), 0);
    }
}
