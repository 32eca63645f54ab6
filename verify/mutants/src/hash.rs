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
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    };
    for file in &files {
        let name = file.strip_prefix(root).unwrap_or(file);
        add(name.to_string_lossy().as_bytes());
        add(&fs::read(file).map_err(|error| Failure::file(file, &error))?);
    }
    Ok(format!("{hash:016x}"))
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
