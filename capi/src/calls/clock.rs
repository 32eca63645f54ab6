//! Time, and the names of errors.

use std::ffi::{CStr, c_char};
use std::thread;
use std::time::{Duration, Instant};

use crate::boundary::boundary;
use crate::types::{ZX_TIME_INFINITE, zx_duration_t, zx_status_t, zx_time_t};

/// A deadline, as this process's clock has it.
pub(crate) enum Deadline {
    Past,
    At(Instant),
    Never,
}

impl Deadline {
    pub(crate) fn of(time: zx_time_t) -> Self {
        if time == ZX_TIME_INFINITE {
            return Self::Never;
        }
        if time <= 0 {
            return Self::Past; // without a look at the clock, which counts from 0
        }
        let left = u64::try_from(time.saturating_sub(now())).unwrap_or(0);
        match left {
            0 => Self::Past,
            // None: farther than the clock will ever come
            _ => Instant::now().checked_add(Duration::from_nanos(left)).map_or(Self::Never, Self::At),
        }
    }
}

fn now() -> zx_time_t {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` can be written to. The call does not fail: the clock exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// `zx_clock_get_monotonic()`: nanoseconds of the system's monotonic clock.
#[unsafe(no_mangle)]
pub extern "C" fn zx_clock_get_monotonic() -> zx_time_t {
    now()
}

/// `zx_deadline_after()`. A time that is too far, or too long ago, becomes infinite.
#[unsafe(no_mangle)]
pub extern "C" fn zx_deadline_after(nanoseconds: zx_duration_t) -> zx_time_t {
    now().saturating_add(nanoseconds)
}

/// `zx_nanosleep()`: until the deadline. One that is past lets others run.
#[unsafe(no_mangle)]
pub extern "C" fn zx_nanosleep(deadline: zx_time_t) -> zx_status_t {
    boundary("zx_nanosleep", || {
        match Deadline::of(deadline) {
            Deadline::Past => thread::yield_now(),
            Deadline::At(instant) => {
                while let Some(left) = instant.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
                    thread::sleep(left);
                }
            }
            Deadline::Never => loop {
                thread::park(); // it may return without cause
            },
        }
        Ok(())
    })
}

/// `zx_status_get_string()`: the name of an error, without an end.
#[unsafe(no_mangle)]
pub extern "C" fn zx_status_get_string(status: zx_status_t) -> *const c_char {
    name(status).as_ptr()
}

const fn name(status: zx_status_t) -> &'static CStr {
    match status {
        0 => c"ZX_OK",
        -1 => c"ZX_ERR_INTERNAL",
        -2 => c"ZX_ERR_NOT_SUPPORTED",
        -3 => c"ZX_ERR_NO_RESOURCES",
        -4 => c"ZX_ERR_NO_MEMORY",
        -6 => c"ZX_ERR_INTERNAL_INTR_RETRY",
        -10 => c"ZX_ERR_INVALID_ARGS",
        -11 => c"ZX_ERR_BAD_HANDLE",
        -12 => c"ZX_ERR_WRONG_TYPE",
        -13 => c"ZX_ERR_BAD_SYSCALL",
        -14 => c"ZX_ERR_OUT_OF_RANGE",
        -15 => c"ZX_ERR_BUFFER_TOO_SMALL",
        -20 => c"ZX_ERR_BAD_STATE",
        -21 => c"ZX_ERR_TIMED_OUT",
        -22 => c"ZX_ERR_SHOULD_WAIT",
        -23 => c"ZX_ERR_CANCELED",
        -24 => c"ZX_ERR_PEER_CLOSED",
        -25 => c"ZX_ERR_NOT_FOUND",
        -26 => c"ZX_ERR_ALREADY_EXISTS",
        -27 => c"ZX_ERR_ALREADY_BOUND",
        -28 => c"ZX_ERR_UNAVAILABLE",
        -30 => c"ZX_ERR_ACCESS_DENIED",
        -40 => c"ZX_ERR_IO",
        -41 => c"ZX_ERR_IO_REFUSED",
        -42 => c"ZX_ERR_IO_DATA_INTEGRITY",
        -43 => c"ZX_ERR_IO_DATA_LOSS",
        -44 => c"ZX_ERR_IO_NOT_PRESENT",
        -45 => c"ZX_ERR_IO_OVERRUN",
        -46 => c"ZX_ERR_IO_MISSED_DEADLINE",
        -47 => c"ZX_ERR_IO_INVALID",
        -50 => c"ZX_ERR_BAD_PATH",
        -51 => c"ZX_ERR_NOT_DIR",
        -52 => c"ZX_ERR_NOT_FILE",
        -53 => c"ZX_ERR_FILE_BIG",
        -54 => c"ZX_ERR_NO_SPACE",
        -55 => c"ZX_ERR_NOT_EMPTY",
        -60 => c"ZX_ERR_STOP",
        -61 => c"ZX_ERR_NEXT",
        -62 => c"ZX_ERR_ASYNC",
        -70 => c"ZX_ERR_PROTOCOL_NOT_SUPPORTED",
        -71 => c"ZX_ERR_ADDRESS_UNREACHABLE",
        -72 => c"ZX_ERR_ADDRESS_IN_USE",
        -73 => c"ZX_ERR_NOT_CONNECTED",
        -74 => c"ZX_ERR_CONNECTION_REFUSED",
        -75 => c"ZX_ERR_CONNECTION_RESET",
        -76 => c"ZX_ERR_CONNECTION_ABORTED",
        _ => c"(UNKNOWN)",
    }
}
