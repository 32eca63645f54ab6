//! The errors, with Zircon's names and values.

use core::fmt;

/// Why a call failed. The discriminant is Zircon's `zx_status_t` (`zircon/errors.h`).
///
/// ```
/// use upager::Status;
/// assert_eq!(Status::BadState as i32, -20);
/// assert_eq!(Status::BadState.to_string(), "the object is detached from its pager, or the pager is gone");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(i32)]
#[non_exhaustive]
pub enum Status {
    /// Something is wrong inside the pager itself.
    Internal = -1,
    /// The operation is unknown, or this object does not have it.
    NotSupported = -2,
    /// A fixed limit (requests in flight, writers of one page, objects of one port) is reached.
    NoResources = -3,
    /// Memory for a frame, a node or a request could not be had.
    NoMemory = -4,
    /// An argument is malformed, misaligned, or names an object of another pager.
    InvalidArgs = -10,
    /// Not a handle.
    BadHandle = -11,
    /// A handle of another kind.
    WrongType = -12,
    /// The range does not lie inside the object.
    OutOfRange = -14,
    /// The buffer is too small; as an answer of the service, its own reason to fail.
    BufferTooSmall = -15,
    /// The object is detached, or its pager closed, and the access needed the pager.
    BadState = -20,
    /// The deadline passed.
    TimedOut = -21,
    /// Nothing to take yet, or no room to queue it: try again later.
    ShouldWait = -22,
    /// The wait was cancelled.
    Canceled = -23,
    /// A page of the range is not there, or nothing is queued under the key.
    NotFound = -25,
    /// It exists already.
    AlreadyExists = -26,
    /// The object was not made for this call.
    Unavailable = -28,
    /// A right is missing.
    AccessDenied = -30,
    /// The service could not read or write the page.
    Io = -40,
    /// The service read the page and found it corrupt.
    IoDataIntegrity = -42,
    /// The service has no space to write the page back to.
    NoSpace = -54,
}

impl Status {
    /// The reasons a service may give when it fails a range: IO, `IO_DATA_INTEGRITY`, `BAD_STATE`,
    /// `NO_SPACE` and `BUFFER_TOO_SMALL` (`zx_pager_op_range()`, `ZX_PAGER_OP_FAIL`).
    #[must_use]
    pub const fn may_fail_a_request(self) -> bool {
        matches!(self, Self::Io | Self::IoDataIntegrity | Self::BadState | Self::NoSpace | Self::BufferTooSmall)
    }

    /// The status with this value, if it is one of these.
    ///
    /// ```
    /// use upager::Status;
    /// assert_eq!(Status::from_raw(-40), Some(Status::Io));
    /// assert_eq!(Status::from_raw(0), None); // ZX_OK is no error
    /// ```
    #[must_use]
    pub const fn from_raw(raw: i32) -> Option<Self> {
        Some(match raw {
            -1 => Self::Internal,
            -2 => Self::NotSupported,
            -3 => Self::NoResources,
            -4 => Self::NoMemory,
            -10 => Self::InvalidArgs,
            -11 => Self::BadHandle,
            -12 => Self::WrongType,
            -14 => Self::OutOfRange,
            -15 => Self::BufferTooSmall,
            -20 => Self::BadState,
            -21 => Self::TimedOut,
            -22 => Self::ShouldWait,
            -23 => Self::Canceled,
            -25 => Self::NotFound,
            -26 => Self::AlreadyExists,
            -28 => Self::Unavailable,
            -30 => Self::AccessDenied,
            -40 => Self::Io,
            -42 => Self::IoDataIntegrity,
            -54 => Self::NoSpace,
            _ => return None,
        })
    }

    const fn sentence(self) -> &'static str {
        match self {
            Self::Internal => "the pager found itself in an impossible state",
            Self::NotSupported => "the operation is not supported here",
            Self::NoResources => "a fixed limit is reached",
            Self::NoMemory => "no memory",
            Self::InvalidArgs => "an argument is invalid",
            Self::BadHandle => "not a valid handle",
            Self::WrongType => "the handle is of another type",
            Self::OutOfRange => "the range lies outside the object",
            Self::BufferTooSmall => "the buffer is too small",
            Self::BadState => "the object is detached from its pager, or the pager is gone",
            Self::TimedOut => "the deadline passed",
            Self::ShouldWait => "not now: try again later",
            Self::Canceled => "the wait was cancelled",
            Self::NotFound => "what was asked for is not there",
            Self::AlreadyExists => "it exists already",
            Self::Unavailable => "the object was not made for this",
            Self::AccessDenied => "a right is missing",
            Self::Io => "the service could not read or write the page",
            Self::IoDataIntegrity => "the service found the page corrupt",
            Self::NoSpace => "no space to write the page back to",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sentence())
    }
}

impl core::error::Error for Status {}

/// What every call of this crate returns.
pub type Result<T, E = Status> = core::result::Result<T, E>;
