//! What can go wrong besides the pager's own [`Status`].

use std::io;

use upager::Status;

/// Why a call of this crate failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The pager says no.
    #[error(transparent)]
    Pager(#[from] Status),
    /// The system says no.
    #[error("{doing}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn system<E: Into<io::Error>>(doing: &'static str) -> impl Fn(E) -> Self {
        move |source| Self::System { doing, source: source.into() }
    }

    /// What the system said, if it was the system.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Self::System { source, .. } => source.raw_os_error(),
            Self::Pager(_) => None,
        }
    }
}

/// What most calls of this crate return.
pub type Result<T, E = Error> = std::result::Result<T, E>;
