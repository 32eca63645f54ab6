//! A mapping of a VMO, as its user has it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use rustix::mm::{MprotectFlags, ProtFlags, mprotect};
use upager::{ByteOffset, ByteRange, PAGE_SIZE, Status, Vmo, block_on};

#[cfg(target_arch = "x86_64")]
use crate::bus::{self, BusError};
use crate::bytes::PAGE;
use crate::error::{Error, Result};
use crate::mapper::{Crew, Mapper};
use crate::platform::LinuxPlatform;
use crate::region::Region;

/// What may be done to a mapping.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Protection {
    /// Stores raise SIGSEGV.
    ReadOnly,
    /// Loads and stores.
    ReadWrite,
}

impl Protection {
    pub(crate) const fn flags(self) -> ProtFlags {
        match self {
            Self::ReadOnly => ProtFlags::READ,
            Self::ReadWrite => ProtFlags::READ.union(ProtFlags::WRITE),
        }
    }
}

/// Pages of a VMO at addresses of this process.
///
/// [`read`](Self::read), [`write`](Self::write) and [`copy_to`](Self::copy_to) give a result and never a signal. Who uses
/// the [address](Self::as_ptr) instead gets the bytes by loads and stores; when the pager fails a page,
/// SIGBUS, which [`guard`](Self::guard) turns into an error.
///
/// # What a fault comes to
///
/// | the pager | the thread |
/// | --- | --- |
/// | supplies the page | goes on |
/// | fails it, is detached or closed, or runs out of time | SIGBUS, and so whoever touches the page in the next [20 ms](crate::MapperOptions::heal_after); then the pager is asked again |
/// | shrinks the VMO below the page | SIGBUS, as past the end of a file |
/// | fails the *dirtying* of a page | the same, for readers of this mapping too |
///
/// Dropping the mapping, or [closing](Self::close) it, is safe while threads are stopped in it: they get SIGBUS. The addresses
/// are given back to the system when the last thread of ours that may look at them is done.
pub struct Mapping {
    region: Arc<Region>,
    crew: Arc<Crew>,
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapping").field("range", &self.range()).finish_non_exhaustive()
    }
}

impl Mapping {
    pub(crate) const fn new(region: Arc<Region>, crew: Arc<Crew>) -> Self {
        Self { region, crew }
    }

    /// Where it begins in memory. It is valid for [`len`](Self::len) bytes, until the mapping is dropped or closed.
    ///
    /// Other mappings of the VMO, and its pager, may change the bytes at any time.
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(self.addresses().start)
    }

    /// How many bytes it has.
    #[must_use]
    #[allow(clippy::len_without_is_empty)] // it never is
    pub fn len(&self) -> usize {
        self.addresses().len()
    }

    /// Its addresses.
    #[must_use]
    pub fn addresses(&self) -> &Range<usize> {
        self.region.addresses()
    }

    /// Which bytes of the VMO it has.
    #[must_use]
    pub fn range(&self) -> ByteRange {
        ByteRange::new(self.region.first().offset().0, self.region.count().0 * PAGE_SIZE)
    }

    /// The VMO.
    #[must_use]
    pub fn vmo(&self) -> &Arc<Vmo<LinuxPlatform>> {
        self.region.vmo()
    }

    /// The mapper whose threads answer its faults.
    #[must_use]
    pub fn mapper(&self) -> Mapper {
        Mapper::of(self.crew.clone())
    }

    /// Where a part of the mapping lies in the VMO.
    fn place(&self, offset: usize, len: usize) -> Result<ByteOffset> {
        if self.region.is_closed() {
            return Err(Status::BadState.into());
        }
        match offset.checked_add(len) {
            Some(end) if end <= self.len() => Ok(ByteOffset(self.region.first().offset().0 + offset as u64)),
            _ => Err(Status::OutOfRange.into()),
        }
    }

    /// Reads bytes from `offset` of the mapping on, and waits for pages that are not there.
    ///
    /// Errors: [`OutOfRange`](Status::OutOfRange): not all of it lies in the mapping, or in the VMO by now;
    /// [`BadState`](Status::BadState): closed; and those of [`Vmo::read`].
    pub fn read(&self, offset: usize, to: &mut [u8]) -> Result<()> {
        let place = self.place(offset, to.len())?;
        Ok(block_on(self.vmo().read(place, to))?)
    }

    /// Writes bytes at `offset` of the mapping on, and waits for pages that are not there. It may be a read-only one:
    /// that is about stores.
    ///
    /// Errors: as for [`read`](Self::read), and those of [`Vmo::write`].
    pub fn write(&self, offset: usize, from: &[u8]) -> Result<()> {
        let place = self.place(offset, from.len())?;
        Ok(block_on(self.vmo().write(place, from))?)
    }

    /// Copies `len` bytes from `offset` on to another mapping, at `to_offset`. Where the two are of the same bytes of
    /// one VMO, the copy may mix them.
    ///
    /// Errors: as for [`read`](Self::read) and [`write`](Self::write). A part has been copied then.
    pub fn copy_to(&self, offset: usize, to: &Self, to_offset: usize, len: usize) -> Result<()> {
        let mut buffer = [0; 16 << 10];
        self.place(offset, len)?;
        to.place(to_offset, len)?;
        let mut done = 0;
        while done < len {
            let part = (len - done).min(buffer.len());
            self.read(offset + done, &mut buffer[..part])?;
            to.write(to_offset + done, &buffer[..part])?;
            done += part;
        }
        Ok(())
    }

    /// Runs `f` with the address of the mapping. If an access of `f` to the mapping raises SIGBUS, `f` ends there, and the
    /// answer tells at which address.
    ///
    /// Installs a handler of SIGBUS, the first time in the process. Every other SIGBUS goes to who had it before.
    ///
    /// # Safety
    /// `f` may end at any of its accesses to the mapping, without what comes after: nothing that is alive in `f`
    /// at such an access may need to be dropped, or leave something broken, a lock held or a count raised, say.
    /// What it does with the address is its affair.
    ///
    /// ```no_run
    /// # fn f(mapping: &upager_linux::Mapping) {
    /// // SAFETY: the closure only loads a byte of the mapping.
    /// match unsafe { mapping.guard(|at| at.read_volatile()) } {
    ///     Ok(byte) => println!("{byte}"),
    ///     Err(bus) => println!("the page at {:#x} could not be had", bus.address),
    /// }
    /// # }
    /// ```
    #[cfg(target_arch = "x86_64")]
    pub unsafe fn guard<R>(&self, f: impl FnOnce(*mut u8) -> R) -> Result<R, BusError> {
        let at = self.as_ptr();
        // SAFETY: the caller's promise.
        unsafe { bus::guard(self.addresses(), || f(at)) }
    }

    /// Changes what may be done to it.
    ///
    /// Errors: [`BadState`](Status::BadState): closed; [`Error::System`].
    pub fn protect(&self, protection: Protection) -> Result<()> {
        self.protect_part(0, self.len(), protection)
    }

    /// Changes what may be done to a part of it. A fault that brings in pages on both sides of such a border maps them one by one.
    ///
    /// Errors: [`InvalidArgs`](Status::InvalidArgs): not whole pages, or none; [`OutOfRange`](Status::OutOfRange): not a part;
    /// and those of [`protect`](Self::protect).
    pub fn protect_part(&self, offset: usize, len: usize, protection: Protection) -> Result<()> {
        let part = self.part(offset, len)?;
        let flags = MprotectFlags::from_bits_retain(protection.flags().bits());
        let at = std::ptr::with_exposed_provenance_mut(part.start);
        // SAFETY: addresses of the region. Who stores to a mapping that is read-only now gets SIGSEGV; stores that
        // userfaultfd does not let through still fault when they may be made again.
        unsafe { mprotect(at, part.len(), flags) }.map_err(Error::system("protecting a mapping"))
    }

    /// Ends a part of the mapping, as [`close`](Self::close) does with all of it. Its addresses are given back with those of the whole.
    /// Cutting the same part again does nothing.
    ///
    /// Errors: as for [`protect_part`](Self::protect_part).
    pub fn cut(&self, offset: usize, len: usize) -> Result<()> {
        self.crew.shared.cut(&self.region, &self.part(offset, len)?)
    }

    /// The addresses of whole pages.
    fn part(&self, offset: usize, len: usize) -> Result<Range<usize>> {
        self.place(offset, len)?;
        if len == 0 || !offset.is_multiple_of(PAGE) || !len.is_multiple_of(PAGE) {
            return Err(Status::InvalidArgs.into());
        }
        let start = self.addresses().start + offset;
        Ok(start..start + len)
    }

    /// Ends the mapping while others may have it still: from now on its addresses raise SIGBUS, also for threads that are
    /// stopped in it. Closing again does nothing.
    pub fn close(&self) {
        self.crew.shared.close(&self.region);
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.close();
    }
}
