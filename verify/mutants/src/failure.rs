//! What keeps the program from its work.

use std::fmt;
use std::path::Path;

/// A sentence for whoever ran the program.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl Failure {
    pub(crate) const fn new(what: String) -> Self {
        Self(what)
    }

    /// A file that could not be read or written.
    pub(crate) fn file(path: &Path, error: &std::io::Error) -> Self {
        Self(format!("{}: {error}", path.display()))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
