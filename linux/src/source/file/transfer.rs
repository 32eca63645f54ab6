//! One operation on a file, whoever carries it out: how far it has come, and who waits for it.
//!
//! The engines do one thing: [`Transfer::step`] or its io_uring twin, then [`Transfer::advance`], again and
//! again until it is over. So the rules of short counts are here once, for both.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use futures_channel::oneshot;
use rustix::io::Errno;

use super::PageBuf;

/// What is done with the file, the memory for it, and who waits.
pub(super) enum Work {
    /// Fill the buffer.
    Read(PageBuf, oneshot::Sender<Result<PageBuf, io::Error>>),
    /// Write the buffer.
    Write(Arc<PageBuf>, oneshot::Sender<Result<(), io::Error>>),
    /// Make what was written safe from a crash.
    Sync(oneshot::Sender<Result<(), io::Error>>),
}

/// An operation between its beginning and its end.
///
/// Invariant: `done <= need <= want <=` bytes of the buffer; a sync has zero of each.
pub(super) struct Transfer {
    pub(super) file: Arc<OwnedFd>,
    pub(super) work: Work,
    /// Where the buffer's first byte lies in the file.
    pub(super) offset: u64,
    /// Bytes done, from the buffer's first on.
    pub(super) done: usize,
    /// Bytes to ask for. More than are needed where O_DIRECT wants a whole block.
    pub(super) want: usize,
    /// Bytes without which it is not over.
    pub(super) need: usize,
}

/// Whether there is more to do.
pub(super) enum Next {
    /// Carry out another step.
    Again(Transfer),
    /// It is over, and whoever waits knows.
    Over,
}

/// The most that is asked for in one step. Linux does 2 GiB less a page; this is a round number below, and fits an io_uring's u32.
const STEP: usize = 1 << 30;

impl Transfer {
    /// The bytes that the next step is about, as `start..end` of the buffer.
    pub(super) fn next_bytes(&self) -> std::ops::Range<usize> {
        self.done..self.want.min(self.done + STEP)
    }

    /// Where the next step begins in the file.
    pub(super) fn next_offset(&self) -> u64 {
        self.offset + self.done as u64
    }

    /// One system call. It may block.
    pub(super) fn step(&mut self) -> Result<usize, Errno> {
        let (bytes, offset) = (self.next_bytes(), self.next_offset());
        match &mut self.work {
            Work::Read(buffer, _) => rustix::io::pread(self.file.as_fd(), &mut buffer[bytes], offset),
            Work::Write(buffer, _) => rustix::io::pwrite(self.file.as_fd(), &buffer[bytes], offset),
            Work::Sync(_) => rustix::fs::fdatasync(self.file.as_fd()).map(|()| 0),
        }
    }

    /// Takes the result of a step, and answers whoever waits if that was the last.
    pub(super) fn advance(mut self, result: Result<usize, Errno>) -> Next {
        match result {
            Err(Errno::INTR) => return Next::Again(self),
            Err(error) => return self.end(Err(error.into())),
            Ok(count) => self.done += count,
        }
        if self.done >= self.need {
            return self.end(Ok(()));
        }
        match (&self.work, result) {
            (Work::Read(..), Ok(0)) => self.end(Err(io::ErrorKind::UnexpectedEof.into())),
            (_, Ok(0)) => self.end(Err(io::ErrorKind::WriteZero.into())),
            // O_DIRECT stops inside a block only at the end of the file; going on from there would be refused as misaligned.
            (Work::Read(..), _) if self.want > self.need && !self.done.is_multiple_of(PageBuf::PAGE) => {
                self.end(Err(io::ErrorKind::UnexpectedEof.into()))
            }
            _ => Next::Again(self),
        }
    }

    /// Answers. That nobody waits any more is nobody's business.
    fn end(self, result: Result<(), io::Error>) -> Next {
        match self.work {
            Work::Read(mut buffer, reply) => {
                buffer[self.need..].fill(0);
                let _ = reply.send(result.map(|()| buffer));
            }
            Work::Write(buffer, reply) => {
                drop(buffer); // before the answer: whoever waits may want it for himself
                let _ = reply.send(result);
            }
            Work::Sync(reply) => {
                let _ = reply.send(result);
            }
        }
        Next::Over
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use upager::PageCount;

    fn read(need: usize, want: usize) -> (Transfer, oneshot::Receiver<Result<PageBuf, io::Error>>) {
        let (reply, answer) = oneshot::channel();
        let mut buffer = PageBuf::new(PageCount(3));
        buffer.fill(1);
        let file = Arc::new(OwnedFd::from(tempfile::tempfile().unwrap()));
        (Transfer { file, work: Work::Read(buffer, reply), offset: 0, done: 0, want, need }, answer)
    }

    fn again(next: Next) -> Transfer {
        match next {
            Next::Again(transfer) => transfer,
            Next::Over => panic!("it is over"),
        }
    }

    #[test]
    fn short_counts_and_interruptions_go_on_to_the_end() {
        let (transfer, mut answer) = read(5000, 5000);
        let transfer = again(transfer.advance(Ok(4000)));
        let transfer = again(transfer.advance(Err(Errno::INTR)));
        assert_eq!((transfer.next_bytes(), transfer.next_offset()), (4000..5000, 4000));
        assert!(matches!(transfer.advance(Ok(1000)), Next::Over));
        let buffer = answer.try_recv().unwrap().unwrap().unwrap();
        assert!(buffer[..5000].iter().all(|byte| *byte == 1) && buffer[5000..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_file_that_ends_too_early_has_shrunk() {
        for (want, count) in [(5000, 0), (8192, 0), (8192, 4500)] {
            let (transfer, mut answer) = read(5000, want);
            assert!(matches!(transfer.advance(Ok(count)), Next::Over));
            let error = answer.try_recv().unwrap().unwrap().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{want} {count}");
        }
    }

    #[test]
    fn the_buffer_of_a_write_is_free_when_the_answer_comes() {
        let (reply, mut answer) = oneshot::channel();
        let buffer = Arc::new(PageBuf::new(PageCount(1)));
        let file = Arc::new(OwnedFd::from(tempfile::tempfile().unwrap()));
        let work = Work::Write(buffer.clone(), reply);
        let transfer = Transfer { file, work, offset: 0, done: 0, want: 4096, need: 4096 };
        assert!(matches!(transfer.advance(Ok(4096)), Next::Over));
        answer.try_recv().unwrap().unwrap().unwrap();
        assert!(Arc::into_inner(buffer).is_some());
    }
}
