//! A userfaultfd, by typed calls. The only module that knows the kernel's structures.
//!
//! The numbers are those of `linux/userfaultfd.h`. Poison came with Linux 6.6, and older system
//! headers do not have it, hence our own.
//!
//! Addresses are plain numbers here: nothing is read or written through them. What a call does to the
//! memory there is the affair of the [`Region`](crate::region::Region) that owns the addresses.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::ioctl::{Opcode, Setter, Updater, opcode};
use rustix::mm::{UserfaultfdFlags, userfaultfd};

use crate::error::{Error, Result};

const GROUP: u8 = 0xaa;
const API: Opcode = opcode::read_write::<Api>(GROUP, 0x3f);
const REGISTER: Opcode = opcode::read_write::<Register>(GROUP, 0x00);
const WAKE: Opcode = opcode::read::<Span>(GROUP, 0x02);
const WRITE_PROTECT: Opcode = opcode::read_write::<WriteProtect>(GROUP, 0x06);
const CONTINUE: Opcode = opcode::read_write::<Fill>(GROUP, 0x07);
const POISON: Opcode = opcode::read_write::<Fill>(GROUP, 0x08);

const VERSION: u64 = 0xaa;
const USER_MODE_ONLY: u32 = 1;

const FEATURE_PAGEFAULT_FLAG_WP: u64 = 1 << 0;
const FEATURE_MISSING_SHMEM: u64 = 1 << 5;
const FEATURE_MINOR_SHMEM: u64 = 1 << 10;
const FEATURE_WP_SHMEM: u64 = 1 << 12;
const FEATURE_POISON: u64 = 1 << 14;
/// All of them are there since Linux 6.6.
const FEATURES: u64 =
    FEATURE_PAGEFAULT_FLAG_WP | FEATURE_MISSING_SHMEM | FEATURE_MINOR_SHMEM | FEATURE_WP_SHMEM | FEATURE_POISON;

const MODE_MISSING: u64 = 1 << 0;
const MODE_WP: u64 = 1 << 1;
const MODE_MINOR: u64 = 1 << 2;

const EVENT_PAGEFAULT: u8 = 0x12;
const FLAG_WRITE: u64 = 1 << 0;
const FLAG_WP: u64 = 1 << 1;

#[repr(C)]
struct Api {
    version: u64,
    features: u64,
    ioctls: u64,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Span {
    start: u64,
    len: u64,
}

#[repr(C)]
struct Register {
    span: Span,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct WriteProtect {
    span: Span,
    mode: u64,
}

/// `uffdio_continue` and `uffdio_poison`.
#[repr(C)]
struct Fill {
    span: Span,
    mode: u64,
    /// Bytes done, or the error negated.
    done: i64,
}

/// `uffd_msg`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Message {
    event: u8,
    reserved: [u8; 7],
    flags: u64,
    address: u64,
    thread: u64,
}

/// Why a thread is stopped at a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stopped {
    /// It reads, and the page is not mapped.
    Reading,
    /// It writes, and the page is not mapped.
    Writing,
    /// It writes, and the page is mapped and write-protected.
    Protected,
}

impl Message {
    /// Where a thread is stopped, and why.
    pub(crate) fn page_fault(&self) -> Option<(usize, Stopped)> {
        let stopped = match self.flags {
            _ if self.event != EVENT_PAGEFAULT => return None,
            flags if flags & FLAG_WP != 0 => Stopped::Protected,
            flags if flags & FLAG_WRITE != 0 => Stopped::Writing,
            _ => Stopped::Reading,
        };
        Some((usize::try_from(self.address).ok()?, stopped))
    }
}

/// How a page is mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stores {
    /// The first store faults.
    Fault,
    GoThrough,
}

/// Whether a call wakes the threads that are stopped at its pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wake {
    Yes,
    No,
}

/// Who may be served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Privilege {
    /// Every access, those that the kernel makes for a system call too.
    Full,
    /// Accesses in user mode. A system call that is given memory which is not there gets `EFAULT`.
    UserModeOnly,
}

#[derive(Debug)]
pub(crate) struct Uffd {
    fd: OwnedFd,
    privilege: Privilege,
}

fn span(range: &Range<usize>) -> Span {
    Span { start: range.start as u64, len: range.len() as u64 }
}

impl Uffd {
    /// Opens one that serves whatever the process may have served.
    pub(crate) fn open() -> Result<Self> {
        let flags = UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK;
        let user_mode = flags | UserfaultfdFlags::from_bits_retain(USER_MODE_ONLY);
        // SAFETY: the descriptor is used by this module only, which registers nothing but what a
        // `Region` owns.
        let (fd, privilege) = match unsafe { userfaultfd(flags) } {
            Ok(fd) => (fd, Privilege::Full),
            Err(Errno::PERM) => {
                // SAFETY: as above.
                let fd = unsafe { userfaultfd(user_mode) }.map_err(Error::system("opening a userfaultfd"))?;
                (fd, Privilege::UserModeOnly)
            }
            Err(errno) => return Err(Error::system("opening a userfaultfd")(errno)),
        };
        let mut api = Api { version: VERSION, features: FEATURES, ioctls: 0 };
        // SAFETY: the structure is the kernel's `uffdio_api`, as the opcode says.
        unsafe { rustix::ioctl::ioctl(&fd, Updater::<API, _>::new(&mut api)) }
            .map_err(Error::system("asking for the features of userfaultfd (Linux 6.6 has them)"))?;
        Ok(Self { fd, privilege })
    }

    pub(crate) const fn privilege(&self) -> Privilege {
        self.privilege
    }

    /// Has faults in the range stop their threads, and be told of by messages.
    ///
    /// # Safety
    /// The range is a shared mapping of a memfd, owned by the caller, and nobody has been given its
    /// address yet.
    pub(crate) unsafe fn register(&self, range: &Range<usize>) -> Result<()> {
        let mode = MODE_MISSING | MODE_WP | MODE_MINOR;
        let mut register = Register { span: span(range), mode, ioctls: 0 };
        // SAFETY: the structure is `uffdio_register`; the rest is the caller's promise.
        unsafe { rustix::ioctl::ioctl(&self.fd, Updater::<REGISTER, _>::new(&mut register)) }
            .map_err(Error::system("registering a mapping with userfaultfd"))
    }

    /// Takes messages. None: there are none.
    pub(crate) fn read(&self, messages: &mut [Message]) -> io::Result<usize> {
        let len = size_of_val(messages);
        // SAFETY: a message is plain integers without padding, for which any bytes will do.
        let bytes = unsafe { std::slice::from_raw_parts_mut(messages.as_mut_ptr().cast::<u8>(), len) };
        match rustix::io::read(&self.fd, bytes) {
            Ok(read) => Ok(read / size_of::<Message>()),
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Has the threads that are stopped in the range try again.
    pub(crate) fn wake(&self, range: &Range<usize>) {
        // SAFETY: the structure is `uffdio_range`. Waking changes no memory.
        let woken = unsafe { rustix::ioctl::ioctl(&self.fd, Setter::<WAKE, _>::new(span(range))) };
        debug_assert!(woken.is_ok(), "a range of pages: {woken:?}");
    }

    /// Maps pages of the file that are there. Returns how many bytes from the start on it did; the error is
    /// that of the first page.
    pub(crate) fn map(&self, range: &Range<usize>, stores: Stores, wake: Wake) -> Result<usize, Errno> {
        let mode = u64::from(wake == Wake::No) | u64::from(stores == Stores::Fault) << 1;
        self.fill::<CONTINUE>(range, mode)
    }

    /// Has accesses to pages that are not mapped raise SIGBUS, and wakes who waits for them. Otherwise
    /// as [`map`](Self::map).
    pub(crate) fn poison(&self, range: &Range<usize>) -> Result<usize, Errno> {
        self.fill::<POISON>(range, 0)
    }

    fn fill<const CALL: Opcode>(&self, range: &Range<usize>, mode: u64) -> Result<usize, Errno> {
        loop {
            let mut fill = Fill { span: span(range), mode, done: 0 };
            // SAFETY: the structure is that of the call, which changes how pages of the range are
            // mapped: pages of a region, which the kernel checks that it was registered with.
            match unsafe { rustix::ioctl::ioctl(&self.fd, Updater::<CALL, _>::new(&mut fill)) } {
                Ok(()) => return Ok(range.len()),
                Err(Errno::AGAIN) if fill.done > 0 => return Ok(usize::try_from(fill.done).unwrap_or(0)),
                Err(Errno::AGAIN | Errno::INTR) => {} // the address space is changing
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Takes write access from the pages of the range, or gives it back.
    pub(crate) fn protect(&self, range: &Range<usize>, stores: Stores, wake: Wake) -> Result<(), Errno> {
        let protect = u64::from(stores == Stores::Fault);
        // Protecting wakes nobody anyway, and refuses to be told so.
        let silent = u64::from(stores == Stores::GoThrough && wake == Wake::No) << 1;
        loop {
            let mut call = WriteProtect { span: span(range), mode: protect | silent };
            // SAFETY: as in `fill`.
            match unsafe { rustix::ioctl::ioctl(&self.fd, Updater::<WRITE_PROTECT, _>::new(&mut call)) } {
                Err(Errno::AGAIN | Errno::INTR) => {}
                done => return done,
            }
        }
    }
}

impl AsFd for Uffd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
