//! What the two sides say to each other, and how descriptors go along.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bytemuck::{Pod, Zeroable};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};

use crate::source::ErrorKind;

pub(super) const MAGIC: [u8; 8] = *b"upager\0\0";
pub(super) const VERSION: u32 = 1;

/// Pages of a slot, and slots of a client.
pub(super) const SLOT_PAGES: u64 = 256;
pub(super) const SLOTS: u32 = 32;
/// Bytes of a reason that are sent.
const REASON: usize = 128;

/// The client's first message. The memfd comes with it.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Hello {
    pub(super) magic: [u8; 8],
    pub(super) version: u32,
    pub(super) slots: u32,
    pub(super) slot_pages: u64,
}

/// The answer. The pager's pidfd comes with it, where there are any.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Welcome {
    pub(super) magic: [u8; 8],
    pub(super) version: u32,
    pub(super) writable: u32,
    pub(super) len: u64,
    pub(super) preferred_read: u64,
    pub(super) preferred_write: u64,
    pub(super) concurrency: u64,
}

pub(super) const READ: u32 = 1;
pub(super) const WRITE: u32 = 2;
pub(super) const SYNC: u32 = 3;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Request {
    pub(super) id: u64,
    pub(super) operation: u32,
    pub(super) slot: u32,
    pub(super) first: u64,
    pub(super) pages: u64,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Reply {
    pub(super) id: u64,
    /// 0: it was done. Else one more than the place of the error's kind in [`ErrorKind::ALL`].
    outcome: u32,
    reason_length: u32,
    reason: [u8; REASON],
}

#[allow(clippy::cast_possible_truncation)] // a few kinds, and a reason that is cut
impl Reply {
    pub(super) fn done(id: u64) -> Self {
        Self { id, outcome: 0, reason_length: 0, reason: [0; REASON] }
    }

    pub(super) fn failed(id: u64, kind: ErrorKind, why: &str) -> Self {
        let mut length = why.len().min(REASON);
        while !why.is_char_boundary(length) {
            length -= 1;
        }
        let mut reason = [0; REASON];
        reason[..length].copy_from_slice(&why.as_bytes()[..length]);
        let outcome = ErrorKind::ALL.iter().position(|known| *known == kind).map_or(2, |at| at as u32 + 1);
        Self { id, outcome, reason_length: length as u32, reason }
    }

    /// `Err`: the kind, and why.
    pub(super) fn outcome(&self) -> Result<(), (ErrorKind, String)> {
        if self.outcome == 0 {
            return Ok(());
        }
        let kind = ErrorKind::ALL.get(self.outcome as usize - 1).copied().unwrap_or(ErrorKind::Io);
        let reason = &self.reason[..(self.reason_length as usize).min(REASON)];
        Err((kind, String::from_utf8_lossy(reason).into_owned()))
    }
}

/// Sends one message, and a descriptor with it. Never waits.
pub(super) fn send<T: Pod>(socket: impl AsFd, message: &T, with: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let bytes = bytemuck::bytes_of(message);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = with.map(|fd| [fd]);
    if let Some(descriptors) = &descriptors {
        ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    loop {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        match rustix::net::sendmsg(&socket, &[IoSlice::new(bytes)], &mut ancillary, flags) {
            Err(Errno::INTR) => {}
            sent => return Ok(sent.map(drop)?),
        }
    }
}

/// What came.
pub(super) enum Received<T> {
    Message(T, Option<OwnedFd>),
    /// The other side has hung up, or sends what is no such message.
    End(&'static str),
}

/// Takes one message, if there is one: else `WouldBlock`.
pub(super) fn receive<T: Pod>(socket: impl AsFd) -> io::Result<Received<T>> {
    let mut message = T::zeroed();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut parts = [IoSliceMut::new(bytemuck::bytes_of_mut(&mut message))];
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC | RecvFlags::TRUNC;
        match rustix::net::recvmsg(&socket, &mut parts, &mut ancillary, flags) {
            Err(Errno::INTR) => {}
            Err(Errno::CONNRESET) => return Ok(Received::End("it has hung up")),
            received => break received?,
        }
    };
    let mut with = None;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            with = with.or_else(|| descriptors.into_iter().next()); // the others are closed
        }
    }
    Ok(match received.bytes {
        0 => Received::End("it has hung up"),
        bytes if bytes == size_of::<T>() => Received::Message(message, with),
        _ => Received::End("it speaks another language"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_error_crosses_and_a_long_reason_is_cut_between_letters() {
        for kind in ErrorKind::ALL {
            let reply = Reply::failed(3, kind, "no");
            assert_eq!((reply.id, reply.outcome()), (3, Err((kind, "no".into()))));
        }
        assert_eq!(Reply::done(1).outcome(), Ok(()));
        let (_, reason) = Reply::failed(1, ErrorKind::Io, &"\u{e4}".repeat(100)).outcome().unwrap_err();
        assert_eq!(reason, "\u{e4}".repeat(REASON / 2));
        let (_, reason) = Reply::failed(1, ErrorKind::Io, &format!("x{}", "\u{e4}".repeat(100))).outcome().unwrap_err();
        assert_eq!(reason.chars().count(), 1 + (REASON - 1) / 2);
    }
}
