//! The packet, as a port delivers it: a page request, or what a user queued.

/// `ZX_PKT_TYPE_USER` (`zircon/syscalls/port.h`).
pub const PACKET_TYPE_USER: u32 = 0;
/// `ZX_PKT_TYPE_PAGE_REQUEST` (`zircon/syscalls/port.h`).
pub const PACKET_TYPE_PAGE_REQUEST: u32 = 9;

/// What a packet asks for (`ZX_PAGER_VMO_*` in `zircon/syscalls/pager.h`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u16)]
pub enum Command {
    /// Supply the pages of the range.
    Read = 0,
    /// The last packet of this VMO: query what is dirty and write it back.
    Complete = 1,
    /// Allow the pages of the range to become dirty.
    Dirty = 2,
}

impl Command {
    /// The command of a raw packet, if it is one.
    #[must_use]
    pub const fn from_raw(raw: u16) -> Option<Self> {
        match raw {
            0 => Some(Self::Read),
            1 => Some(Self::Complete),
            2 => Some(Self::Dirty),
            _ => None,
        }
    }
}

/// The page request inside a packet (`zx_packet_page_request_t`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(C)]
pub struct PageRequest {
    /// A [`Command`], raw.
    pub command: u16,
    /// 0.
    pub flags: u16,
    /// 0.
    pub reserved0: u32,
    /// First byte asked for; a multiple of the page size. 0 in COMPLETE.
    pub offset: u64,
    /// Bytes asked for; a multiple of the page size. 0 in COMPLETE.
    pub length: u64,
    /// 0.
    pub reserved1: u64,
}

/// One packet, 48 bytes, field for field Zircon's `zx_port_packet_t` with a page request in it.
///
/// In a user packet the 32 bytes of the page request are the user's: see
/// [`user_payload`](Self::user_payload). The default is a user packet of zeros.
///
/// ```
/// use upager::{Command, Packet};
/// let packet = Packet::page_request(7, Command::Read, 4096, 8192);
/// assert_eq!((packet.key, packet.command()), (7, Some(Command::Read)));
/// assert_eq!((packet.page_request.offset, packet.page_request.length), (4096, 8192));
/// assert_eq!(size_of::<Packet>(), 48);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(C)]
pub struct Packet {
    /// The key that the VMO was created with, or that the user chose.
    pub key: u64,
    /// [`PACKET_TYPE_PAGE_REQUEST`] or [`PACKET_TYPE_USER`].
    pub packet_type: u32,
    /// 0, `ZX_OK`, in a page request; what the user chose in a user packet.
    pub status: i32,
    /// What is asked for, if the packet is a page request.
    pub page_request: PageRequest,
}

impl Packet {
    /// A packet of the VMO created with `key`, asking for `length` bytes at `offset`.
    #[must_use]
    #[inline]
    pub const fn page_request(key: u64, command: Command, offset: u64, length: u64) -> Self {
        Self {
            key,
            packet_type: PACKET_TYPE_PAGE_REQUEST,
            status: 0,
            page_request: PageRequest { command: command as u16, flags: 0, reserved0: 0, offset, length, reserved1: 0 },
        }
    }

    /// A user packet, with status 0, for [`Port::queue`](crate::Port::queue).
    ///
    /// ```
    /// use upager::{PACKET_TYPE_USER, Packet};
    /// let packet = Packet::user(7, [0xaa; 32]);
    /// assert_eq!((packet.key, packet.packet_type, packet.status), (7, PACKET_TYPE_USER, 0));
    /// assert_eq!(packet.user_payload(), Some([0xaa; 32]));
    /// assert_eq!(packet.command(), None);
    /// ```
    #[must_use]
    pub fn user(key: u64, payload: [u8; 32]) -> Self {
        Self { key, packet_type: PACKET_TYPE_USER, status: 0, page_request: PageRequest::from_bytes(payload) }
    }

    /// The 32 bytes of a user packet (`zx_packet_user_t`). `None`: it is none.
    #[must_use]
    pub fn user_payload(&self) -> Option<[u8; 32]> {
        (self.packet_type == PACKET_TYPE_USER).then(|| self.page_request.to_bytes())
    }

    /// What a page request asks for. `None`: it is none, or has a command that is none.
    #[must_use]
    pub const fn command(&self) -> Option<Command> {
        if self.packet_type == PACKET_TYPE_PAGE_REQUEST { Command::from_raw(self.page_request.command) } else { None }
    }

    /// The bytes that a page request asks for; none, if it is no page request.
    #[must_use]
    #[inline]
    pub const fn range(&self) -> crate::ByteRange {
        if self.packet_type == PACKET_TYPE_PAGE_REQUEST {
            crate::ByteRange::new(self.page_request.offset, self.page_request.length)
        } else {
            crate::ByteRange::new(0, 0)
        }
    }
}

impl PageRequest {
    /// The field's bytes in memory, of which it has 32 and none between its parts.
    fn to_bytes(self) -> [u8; 32] {
        let Self { command, flags, reserved0, offset, length, reserved1 } = self;
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&command.to_ne_bytes());
        bytes[2..4].copy_from_slice(&flags.to_ne_bytes());
        bytes[4..8].copy_from_slice(&reserved0.to_ne_bytes());
        bytes[8..16].copy_from_slice(&offset.to_ne_bytes());
        bytes[16..24].copy_from_slice(&length.to_ne_bytes());
        bytes[24..].copy_from_slice(&reserved1.to_ne_bytes());
        bytes
    }

    fn from_bytes(bytes: [u8; 32]) -> Self {
        Self {
            command: u16::from_ne_bytes(part(&bytes, 0)),
            flags: u16::from_ne_bytes(part(&bytes, 2)),
            reserved0: u32::from_ne_bytes(part(&bytes, 4)),
            offset: u64::from_ne_bytes(part(&bytes, 8)),
            length: u64::from_ne_bytes(part(&bytes, 16)),
            reserved1: u64::from_ne_bytes(part(&bytes, 24)),
        }
    }
}

/// `N` bytes from `at` on; `at + N` is at most 32.
fn part<const N: usize>(bytes: &[u8; 32], at: usize) -> [u8; N] {
    core::array::from_fn(|nth| bytes[at + nth])
}

const _: () = assert!(size_of::<Packet>() == 48 && align_of::<Packet>() == 8);
