//! What a record is valid for: a number for the contents of some files.

use std::fs;
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// FNV-1a of the names and contents of all files below the given paths, in hexadecimal. It tells
/// versions apart, and need not withstand malice.
pub(crate) fn of(root: &Path, paths: &[&str]) -> Result<String, Failure> {
    let mut files = Vec::new();
    for path in paths {
        collect(&root.join(path), &mut files)?;
    }
    files.sort();
    let mut hash = NOTHING;
    for file in &files {
        let name = file.strip_prefix(root).unwrap_or(file);
        hash = with(hash, name.to_string_lossy().as_bytes());
        hash = with(hash, &fs::read(file).map_err(|error| Failure::file(file, &error))?);
    }
    Ok(format!("{hash:016x}"))
}

/// The hash of no bytes.
pub(crate) const NOTHING: u64 = 0xcbf2_9ce4_8422_2325;

/// The hash of what had this one, and of these bytes after it.
pub(crate) fn with(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
    if !path.is_dir() {
        files.push(path.to_path_buf());
        return Ok(());
    }
    for entry in fs::read_dir(path).map_err(|error| Failure::file(path, &error))? {
        collect(&entry.map_err(|error| Failure::file(path, &error))?.path(), files)?;
    }
    Ok(())
}
