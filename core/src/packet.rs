//! The page-request packet, as a port delivers it.

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
    /// The key that the VMO was created with.
    pub key: u64,
    /// [`PACKET_TYPE_PAGE_REQUEST`].
    pub packet_type: u32,
    /// 0, `ZX_OK`.
    pub status: i32,
    /// What is asked for.
    pub page_request: PageRequest,
}

impl Packet {
    /// A packet of the VMO created with `key`, asking for `length` bytes at `offset`.
    #[must_use]
    pub const fn page_request(key: u64, command: Command, offset: u64, length: u64) -> Self {
        Self {
            key,
            packet_type: PACKET_TYPE_PAGE_REQUEST,
            status: 0,
            page_request: PageRequest { command: command as u16, flags: 0, reserved0: 0, offset, length, reserved1: 0 },
        }
    }

    /// What the packet asks for.
    #[must_use]
    pub const fn command(&self) -> Option<Command> {
        Command::from_raw(self.page_request.command)
    }

    /// The bytes it asks for.
    #[must_use]
    pub const fn range(&self) -> crate::ByteRange {
        crate::ByteRange::new(self.page_request.offset, self.page_request.length)
    }
}

const _: () = assert!(size_of::<Packet>() == 48 && align_of::<Packet>() == 8);
