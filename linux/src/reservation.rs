//! Addresses that are kept for mappings of the caller's places.
//!
//! They are mapped, as nothing that can be accessed, so that nobody else in the process gets them. A mapping is put over its
//! part of them, and when the last thread has done with it, nothing is put over the mapping.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use upager::{PAGE_SIZE, Status};

use crate::error::{Error, Result};

/// Addresses of this process that are kept for [mappings](crate::Mapper::map_at) at places of the caller's choice.
///
/// They are given back to the system when the reservation is dropped, and with it every mapping in it.
///
/// ```
/// use upager_linux::Reservation;
/// let reservation = Reservation::new(1 << 30)?; // takes no memory
/// assert_eq!(reservation.addresses().len(), 1 << 30);
/// assert!(reservation.taken().is_empty());
/// # Ok::<(), upager_linux::Error>(())
/// ```
#[derive(Debug)]
pub struct Reservation {
    addresses: Range<usize>,
    /// Where a mapping is, or may still be looked at: its end, by its start.
    taken: Mutex<BTreeMap<usize, usize>>,
    given_back: Condvar,
}

/// A part of a reservation, until it is dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    reservation: Arc<Reservation>,
    addresses: Range<usize>,
}

const NOTHING: ProtFlags = ProtFlags::empty();

impl Reservation {
    /// Keeps so many bytes of addresses, at least one and whole pages.
    ///
    /// Errors: [`InvalidArgs`](Status::InvalidArgs); [`Error::System`].
    pub fn new(len: usize) -> Result<Arc<Self>> {
        if len == 0 || !(len as u64).is_multiple_of(PAGE_SIZE) {
            return Err(Status::InvalidArgs.into());
        }
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address of the system's choice touches no other.
        let at = unsafe { mmap_anonymous(std::ptr::null_mut(), len, NOTHING, flags) };
        let at = at.map_err(Error::system("reserving addresses"))?.expose_provenance();
        Ok(Arc::new(Self { addresses: at..at + len, taken: Mutex::default(), given_back: Condvar::new() }))
    }

    /// Its addresses.
    #[must_use]
    pub const fn addresses(&self) -> &Range<usize> {
        &self.addresses
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner) // nothing panics meanwhile
    }

    /// Where mappings are, ascending; and where one was, at which a thread of its mapper may still be at work.
    #[must_use]
    pub fn taken(&self) -> Vec<Range<usize>> {
        self.lock().iter().map(|(&start, &end)| start..end).collect()
    }

    /// Waits until there is nothing at these addresses any more, for so long at most. It takes some milliseconds from the
    /// [close](crate::Mapping::close) of a mapping. False: there still is.
    #[must_use]
    pub fn wait_until_free(&self, addresses: &Range<usize>, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut taken = self.lock();
        while has(&taken, addresses) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.given_back.wait_timeout(taken, left);
            taken = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Takes a part of it.
    ///
    /// Errors: [`OutOfRange`](Status::OutOfRange): it is none; [`AlreadyExists`](Status::AlreadyExists).
    pub(crate) fn take(self: &Arc<Self>, addresses: Range<usize>) -> Result<Taken> {
        if addresses.start < self.addresses.start || addresses.end > self.addresses.end {
            return Err(Status::OutOfRange.into());
        }
        let mut taken = self.lock();
        if has(&taken, &addresses) {
            return Err(Status::AlreadyExists.into());
        }
        taken.insert(addresses.start, addresses.end);
        drop(taken);
        Ok(Taken { reservation: self.clone(), addresses })
    }
}

fn has(taken: &BTreeMap<usize, usize>, addresses: &Range<usize>) -> bool {
    taken.range(..addresses.end).next_back().is_some_and(|(_, &end)| end > addresses.start)
}

impl Taken {
    pub(crate) const fn addresses(&self) -> &Range<usize> {
        &self.addresses
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
        let at = std::ptr::with_exposed_provenance_mut(self.addresses.start);
        // SAFETY: a part of the reservation, which is this object's own; what was there is not used any more.
        let emptied = unsafe { mmap_anonymous(at, self.addresses.len(), NOTHING, flags) };
        if emptied.is_err() {
            return; // without memory for it: what is there stays, and nobody gets the part
        }
        self.reservation.lock().remove(&self.addresses.start);
        self.reservation.given_back.notify_all();
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let at = std::ptr::with_exposed_provenance_mut(self.addresses.start);
        // SAFETY: the reservation's own. Whoever has a part of it has the reservation.
        let unmapped = unsafe { munmap(at, self.addresses.len()) };
        debug_assert!(unmapped.is_ok(), "a mapping of ours: {unmapped:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_taken_once_and_given_back() {
        let page = PAGE_SIZE as usize;
        let reservation = Reservation::new(4 * page).unwrap();
        let start = reservation.addresses().start;
        let part = |first: usize, end: usize| start + first * page..start + end * page;
        let taken = reservation.take(part(1, 3)).unwrap();
        for other in [part(0, 2), part(1, 2), part(2, 4), part(0, 4), part(1, 3)] {
            let refused = reservation.take(other).map(drop);
            assert!(matches!(refused, Err(Error::Pager(Status::AlreadyExists))), "{refused:?}");
        }
        let outside = reservation.take(part(3, 5)).map(drop);
        assert!(matches!(outside, Err(Error::Pager(Status::OutOfRange))), "{outside:?}");
        let beside = [reservation.take(part(0, 1)).unwrap(), reservation.take(part(3, 4)).unwrap()];
        assert_eq!(reservation.taken(), [part(0, 1), part(1, 3), part(3, 4)]);
        assert!(!reservation.wait_until_free(&part(2, 3), Duration::ZERO));
        drop(taken);
        assert!(reservation.wait_until_free(&part(1, 3), Duration::ZERO));
        drop(beside);
        assert!(reservation.take(part(0, 4)).is_ok());
    }
}
