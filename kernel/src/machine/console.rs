//! QEMU's debug console, to say something, and its exit device, to end.

use core::fmt::{self, Write};

use x86_64::instructions::port::Port;

/// What QEMU is told; it exits with `2 * n + 1`. So success is 33, and no failure of QEMU's own is.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(crate) enum Exit {
    Success = 16,
    Failure = 17,
    Panic = 18,
}

pub(crate) struct Console;

impl Write for Console {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for byte in s.bytes() {
            // SAFETY: the debug console; it has no effect on memory.
            unsafe { Port::<u8>::new(0xe9).write(byte) };
        }
        Ok(())
    }
}

pub(crate) fn exit(how: Exit) -> ! {
    loop {
        // SAFETY: QEMU's exit device; it does not return, unless QEMU was started without it.
        unsafe { Port::<u32>::new(0xf4).write(how as u32) };
        x86_64::instructions::hlt();
    }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let _ = writeln!(Console, "{info}");
    exit(Exit::Panic)
}
