//! The mappings of this process, by their addresses.
//!
//! A table behind a mutex: mapping and unmapping are system calls. Who waits for pages holds no lock, and nobody
//! looks here when a thread faults.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use upager::{Result, Status, Vmo};
use upager_linux::{Error, Mapper, Mapping};

use crate::object::Host;

pub(crate) struct Mapped {
    pub(crate) mapping: Mapping,
    /// Whether the handle that it was made with could write.
    pub(crate) may_write: bool,
}

impl Mapped {
    fn addresses(&self) -> &Range<usize> {
        self.mapping.addresses()
    }
}

static MAPPER: OnceLock<Mapper> = OnceLock::new();
static MAPPINGS: Mutex<BTreeMap<usize, Arc<Mapped>>> = Mutex::new(BTreeMap::new());

/// Nothing panics while it is locked but for want of memory, and then the table is whole.
fn lock() -> MutexGuard<'static, BTreeMap<usize, Arc<Mapped>>> {
    MAPPINGS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What serves the faults. Made with the first mapping.
///
/// NOT_SUPPORTED: the system has no userfaultfd for us.
pub(crate) fn mapper() -> Result<&'static Mapper> {
    if let Some(mapper) = MAPPER.get() {
        return Ok(mapper);
    }
    let made = Mapper::new().map_err(|error| match status_of(&error) {
        Status::NoMemory => Status::NoMemory,
        _ => Status::NotSupported,
    })?;
    Ok(MAPPER.get_or_init(|| made))
}

/// What an error of the system is to who called.
pub(crate) fn status_of(error: &Error) -> Status {
    match error {
        Error::Pager(status) => *status,
        _ => match error.raw_os_error() {
            Some(libc::ENOMEM | libc::ENFILE | libc::EMFILE) => Status::NoMemory,
            _ => Status::Internal,
        },
    }
}

/// Adds a mapping, and returns where it begins.
pub(crate) fn add(mapped: Mapped) -> usize {
    let start = mapped.addresses().start;
    lock().insert(start, Arc::new(mapped));
    start
}

/// How many mappings a VMO has.
pub(crate) fn count(vmo: &Arc<Vmo<Host>>) -> usize {
    lock().values().filter(|mapped| Arc::ptr_eq(mapped.mapping.vmo(), vmo)).count()
}

/// The mappings that have an address of the range, ascending.
fn overlapping<'a>(
    all: &'a BTreeMap<usize, Arc<Mapped>>,
    range: &'a Range<usize>,
) -> impl Iterator<Item = &'a Arc<Mapped>> {
    let first = all.range(..range.start).next_back().filter(|(_, mapped)| mapped.addresses().end > range.start);
    first.into_iter().chain(all.range(range.clone())).map(|(_, mapped)| mapped)
}

/// Whether no mapping ends up in two parts.
fn are_whole(found: &[Arc<Mapped>], range: &Range<usize>) -> Result<()> {
    let is_inside =
        |mapped: &Arc<Mapped>| range.start <= mapped.addresses().start && mapped.addresses().end <= range.end;
    if found.iter().all(is_inside) { Ok(()) } else { Err(Status::NotSupported) }
}

/// Takes the mappings in the range out, and closes them.
///
/// NOT_FOUND: there is none. NOT_SUPPORTED: one lies in it only in part.
pub(crate) fn remove(range: &Range<usize>) -> Result<()> {
    let found: Vec<_> = {
        let mut all = lock();
        let found: Vec<_> = overlapping(&all, range).cloned().collect();
        if found.is_empty() {
            return Err(Status::NotFound);
        }
        are_whole(&found, range)?;
        for mapped in &found {
            all.remove(&mapped.addresses().start);
        }
        found
    };
    for mapped in &found {
        mapped.mapping.close(); // who is stopped in it, or works on it, is told; the addresses go with the last of them
    }
    Ok(())
}

/// The mappings that the range consists of, whole.
///
/// NOT_FOUND: an address has none. NOT_SUPPORTED: one lies in it only in part.
pub(crate) fn whole(range: &Range<usize>) -> Result<Vec<Arc<Mapped>>> {
    let found = covering(range)?;
    are_whole(&found, range)?;
    Ok(found)
}

/// The mappings that the range consists of, the first and the last perhaps in part.
///
/// NOT_FOUND: an address has none.
pub(crate) fn covering(range: &Range<usize>) -> Result<Vec<Arc<Mapped>>> {
    let found: Vec<_> = overlapping(&lock(), range).cloned().collect();
    let mut reached = range.start;
    for mapped in &found {
        if mapped.addresses().start > reached {
            return Err(Status::NotFound);
        }
        reached = mapped.addresses().end;
    }
    if reached < range.end || found.is_empty() { Err(Status::NotFound) } else { Ok(found) }
}
