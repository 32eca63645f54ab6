//! The core in a program without `std`, without libc, and with an allocator and an epoch of its own.
//!
//! It creates a VMO, faults, answers, writes, writes back and detaches, by hand and on one thread,
//! and exits with 0 if all went as it must, through the system call itself.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::sync::Arc;
use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::future::Future;
use core::pin::pin;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::task::{Context, Poll, Waker};

use upager::{
    ByteOffset, ByteRange, Collector, Command, DirtyRange, Frame, Guard, LocalHandle, OwnedFrame, PAGE_SIZE, Packet,
    Pager, Platform, Port, Result, Status, VmoOptions, Writeback,
};

/// Memory that is handed out and never taken back.
struct Arena {
    memory: UnsafeCell<[u8; SIZE]>,
    used: AtomicUsize,
}

const SIZE: usize = 1 << 20;

// SAFETY: each byte of the memory is handed out once, by an atomic addition.
unsafe impl Sync for Arena {}

#[global_allocator]
static ARENA: Arena = Arena { memory: UnsafeCell::new([0; SIZE]), used: AtomicUsize::new(0) };

// SAFETY: the memory handed out lies within the arena, is aligned, and is handed out once.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        let start = self.used.fetch_add(size + align, Ordering::Relaxed);
        if start + size + align > SIZE {
            return core::ptr::null_mut();
        }
        let base = self.memory.get().cast::<u8>();
        // SAFETY: within the arena, checked above.
        let at = unsafe { base.add(start) };
        // SAFETY: the alignment costs at most `align` bytes, which were taken too.
        unsafe { at.add(at.align_offset(align)) }
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

/// Frames by number, and one epoch handle, as for a machine of one processor.
struct Board {
    frames: UnsafeCell<[[u8; PAGE_SIZE as usize]; 4]>,
    next: AtomicUsize,
    handle: LocalHandle,
}

// SAFETY: there is one thread.
unsafe impl Sync for Board {}
// SAFETY: as for Sync.
unsafe impl Send for Board {}

impl Platform for Board {
    fn pin(&self) -> Guard {
        self.handle.pin()
    }

    fn allocate(&self) -> Result<Frame> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Frame::new(number as u64).filter(|_| number < 4).ok_or(Status::NoMemory)
    }

    unsafe fn free(&self, _: Frame) {}

    unsafe fn copy_out(&self, frame: Frame, offset: usize, to: &mut [u8]) {
        // SAFETY: one thread, and a frame of ours.
        let page = unsafe { &(*self.frames.get())[frame.number() as usize] };
        to.copy_from_slice(&page[offset..offset + to.len()]);
    }

    unsafe fn copy_in(&self, frame: Frame, offset: usize, from: &[u8]) {
        // SAFETY: one thread, and a frame of ours.
        let page = unsafe { &mut (*self.frames.get())[frame.number() as usize] };
        page[offset..offset + from.len()].copy_from_slice(from);
    }
}

fn life() -> Result<bool> {
    let handle = Collector::new().register();
    let frames = UnsafeCell::new([[0; PAGE_SIZE as usize]; 4]);
    let board = Arc::new(Board { frames, next: AtomicUsize::new(0), handle });
    let (pager, port) = (Pager::new(board.clone()), Port::new(board.clone()));
    let vmo = pager.create_vmo(&port, 1, VmoOptions::NONE, PAGE_SIZE)?;
    let mut cx = Context::from_waker(Waker::noop());
    let page = ByteRange::new(0, PAGE_SIZE);

    let mut write = pin!(vmo.write(ByteOffset(5), b"bare"));
    let waits = write.as_mut().poll(&mut cx).is_pending();
    let mut packets = [Packet::default(); 2];
    let asked = port.take(&mut packets) == 1 && packets[0].command() == Some(Command::Read);
    pager.supply_frames(&vmo, page, [OwnedFrame::new(&*board)?])?;
    let written = write.as_mut().poll(&mut cx) == Poll::Ready(Ok(()));

    pager.detach_vmo(&vmo)?;
    let mut dirty = [DirtyRange::default(); 1];
    let found = pager.query_dirty_ranges(&vmo, page, &mut dirty)?.actual == 1;
    pager.writeback_begin(&vmo, page, Writeback::All)?;
    let mut text = [0; 4];
    let kept = {
        let mut read = pin!(vmo.read(ByteOffset(5), &mut text));
        read.as_mut().poll(&mut cx) == Poll::Ready(Ok(()))
    } && text == *b"bare";
    pager.writeback_end(&vmo, page)?;
    let gone = {
        let mut read = pin!(vmo.read(ByteOffset(5), &mut text));
        read.as_mut().poll(&mut cx) == Poll::Ready(Err(Status::BadState))
    };
    let complete = port.take(&mut packets) == 1 && packets[0].command() == Some(Command::Complete);
    Ok(waits && asked && written && found && kept && gone && complete)
}

fn exit(status: usize) -> ! {
    // SAFETY: exit_group does not return and touches no memory of ours.
    unsafe {
        core::arch::asm!("syscall", in("rax") 231, in("rdi") status, options(noreturn));
    }
}

core::arch::global_asm!(
    // The stack is aligned for a call, which pushes eight bytes more.
    ".globl _start",
    "_start:",
    "and rsp, -16",
    "call {start}",
    "ud2",
    start = sym start,
);

// What the compiler takes for granted below `core`, in assembly so that no loop of it is compiled
// into a call of itself. memcmp and bcmp compare bytes; unwinding never happens, since the program
// aborts on panic.
core::arch::global_asm!(
    ".globl memcpy",
    "memcpy:",
    "mov rax, rdi",
    "mov rcx, rdx",
    "rep movsb",
    "ret",
    ".globl memmove",
    "memmove:",
    "mov rax, rdi",
    "mov rcx, rdx",
    "cmp rdi, rsi",
    "jbe 2f",
    "lea rdi, [rdi + rcx - 1]",
    "lea rsi, [rsi + rcx - 1]",
    "std",
    "rep movsb",
    "cld",
    "ret",
    "2: rep movsb",
    "ret",
    ".globl memset",
    "memset:",
    "mov r8, rdi",
    "mov eax, esi",
    "mov rcx, rdx",
    "rep stosb",
    "mov rax, r8",
    "ret",
    ".globl memcmp",
    ".globl bcmp",
    "memcmp:",
    "bcmp:",
    "xor eax, eax",
    "mov rcx, rdx",
    "cmp rcx, rcx",
    "repe cmpsb",
    "je 3f",
    "movzx eax, byte ptr [rdi - 1]",
    "movzx ecx, byte ptr [rsi - 1]",
    "sub eax, ecx",
    "3: ret",
    ".globl rust_eh_personality",
    ".globl _Unwind_Resume",
    "rust_eh_personality:",
    "_Unwind_Resume:",
    "ud2",
);

extern "C" fn start() -> ! {
    exit(match life() {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(_) => 2,
    })
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    exit(3)
}
