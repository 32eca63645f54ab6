//! The engine for many operations in flight: one io_uring and one thread for the process.
//!
//! The thread alone touches the ring. Others put operations into a list and ring the bell, an
//! eventfd that the ring reads as one more operation; so the thread waits in one place, and hands over
//! and takes back in batches, with one system call a turn.
//!
//! Why the submission is not made by the caller, without the hop: the kernel ties an operation to the thread
//! that submitted it. It interrupts that thread to finish it, and cancels it when that thread ends.
//! Reads that hit the page cache do not come here.
//!
//! # Memory
//!
//! **Axiom**: the kernel reads or writes the memory named by an entry from when it is submitted until its
//! completion is taken from the ring, and not after. So an operation lies in `in_flight`, which owns its buffer,
//! exactly while that may be; and `in_flight` is never dropped, not even when the thread panics.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::mem::{self, ManuallyDrop};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use io_uring::{IoUring, Probe, opcode, squeue, types};
use rustix::event::EventfdFlags;
use rustix::io::Errno;

use super::transfer::{Next, Transfer, Work};

/// Operations at the kernel at most; the bell is one more, and the completion queue has twice as many places.
const IN_FLIGHT: usize = 255;

/// The user data of the bell's entry. Operations count from zero.
const BELL: u64 = u64::MAX;

/// Where operations wait for the thread.
pub(super) struct Ring {
    waiting: Mutex<Vec<Transfer>>,
    bell: OwnedFd,
}

/// The process's ring, if the kernel has one for us. Probed once, on first use. Containers often forbid it.
pub(super) fn ring() -> Option<&'static Ring> {
    static RING: LazyLock<Option<Arc<Ring>>> = LazyLock::new(|| Ring::start().ok());
    RING.as_deref()
}

impl Ring {
    fn start() -> io::Result<Arc<Self>> {
        let uring = IoUring::new(IN_FLIGHT as u32 + 1)?;
        let mut probe = Probe::new();
        uring.submitter().register_probe(&mut probe)?;
        let wanted = [opcode::Read::CODE, opcode::Write::CODE, opcode::Fsync::CODE];
        if !wanted.iter().all(|code| probe.is_supported(*code)) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let bell = rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?;
        let ring = Arc::new(Self { waiting: Mutex::new(Vec::new()), bell });
        let turns = Turns {
            uring,
            ring: ring.clone(),
            bell_count: Box::new(0),
            bell_listens: false,
            pending: VecDeque::new(),
            in_flight: ManuallyDrop::new(HashMap::new()),
            next: 0,
        };
        thread::Builder::new().name("upager-io-uring".into()).spawn(move || turns.run())?;
        Ok(ring)
    }

    /// Begins the operation.
    pub(super) fn submit(&self, transfer: Transfer) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push(transfer);
        // The thread takes all of them after it has read the bell, so one ring is enough for many.
        if waiting.len() == 1 {
            // Adding one to an eventfd fails only when 2^64 - 2 others were not read.
            let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
        }
    }

    fn take_waiting(&self) -> Vec<Transfer> {
        mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What the thread owns.
struct Turns {
    uring: IoUring,
    ring: Arc<Ring>,
    /// Where the kernel puts what it read from the bell. On the heap: it must not move.
    bell_count: Box<u64>,
    bell_listens: bool,
    /// Operations that wait for a place.
    pending: VecDeque<Transfer>,
    /// Operations at the kernel, by user data: see the axiom.
    in_flight: ManuallyDrop<HashMap<u64, Transfer>>,
    next: u64,
}

impl Turns {
    fn run(mut self) {
        loop {
            self.listen();
            self.pending.extend(self.ring.take_waiting());
            while self.in_flight.len() < IN_FLIGHT
                && let Some(transfer) = self.pending.pop_front()
            {
                self.begin(transfer);
            }
            match self.uring.submit_and_wait(1) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // No memory for it now, or completions must be taken first. Whatever it is: not at full speed.
                Err(_) => thread::sleep(Duration::from_millis(1)),
            }
            self.take_completions();
        }
    }

    /// Has the ring read the bell, if it does not yet.
    fn listen(&mut self) {
        if self.bell_listens {
            return;
        }
        let to = (&raw mut *self.bell_count).cast();
        let entry = opcode::Read::new(types::Fd(self.ring.bell.as_raw_fd()), to, 8).build().user_data(BELL);
        // SAFETY: the entry names 8 bytes of `bell_count`, which nobody reads or moves, and a descriptor that is
        // open as long as `ring` is; both live as long as `uring`, whose thread never ends but by a panic, and
        // then the bell is not written to memory that was freed: `Turns::drop` leaks it.
        self.bell_listens = unsafe { self.uring.submission().push(&entry) }.is_ok();
    }

    /// Puts the operation's next step into the submission queue.
    fn begin(&mut self, mut transfer: Transfer) {
        let (bytes, offset) = (transfer.next_bytes(), transfer.next_offset());
        let file = types::Fd(transfer.file.as_raw_fd());
        let length = bytes.len() as u32; // at most STEP
        let entry: squeue::Entry = match &mut transfer.work {
            Work::Read(buffer, _) => opcode::Read::new(file, buffer[bytes].as_mut_ptr(), length).offset(offset).build(),
            Work::Write(buffer, _) => opcode::Write::new(file, buffer[bytes].as_ptr(), length).offset(offset).build(),
            Work::Sync(_) => opcode::Fsync::new(file).flags(types::FsyncFlags::DATASYNC).build(),
        };
        let number = self.next;
        self.next += 1;
        self.in_flight.insert(number, transfer);
        // SAFETY: the entry's descriptor and memory are the transfer's: the file is held open by it, the memory is
        // the heap of its `PageBuf`, at a fixed address, ours alone for a read and immutable for a write. By the
        // axiom it stays in `in_flight` until the completion.
        if unsafe { self.uring.submission().push(&entry.user_data(number)) }.is_err()
            && let Some(transfer) = self.in_flight.remove(&number)
        {
            self.pending.push_front(transfer); // no place, so the kernel never saw it
        }
    }

    fn take_completions(&mut self) {
        let Self { uring, pending, in_flight, bell_listens, .. } = self;
        for completion in uring.completion() {
            let Some(transfer) = in_flight.remove(&completion.user_data()) else {
                *bell_listens = false; // the only entry that is not an operation's
                continue;
            };
            let result = completion.result();
            let result = usize::try_from(result).map_err(|_| Errno::from_raw_os_error(-result));
            if let Next::Again(transfer) = transfer.advance(result) {
                pending.push_back(transfer);
            }
        }
    }
}

impl Drop for Turns {
    /// Only a panic comes here.
    fn drop(&mut self) {
        mem::forget(mem::take(&mut self.bell_count));
    }
}
