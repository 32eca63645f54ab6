//! SIGBUS as an error, for who asks for it.
//!
//! A guarded call notes, for its thread, the addresses that it is about and where to go on if they fail. The handler
//! looks there: if the signal is about such an address, it has the thread go on at that place, as if the
//! call had returned; otherwise it does what would have been done without it.
//!
//! The way back is not an unwinding: what the call had on its stack is forgotten. Hence the contract of
//! [`Mapping::guard`](crate::Mapping::guard).

use std::cell::Cell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::OnceLock;
use std::{mem, ptr};

/// An access to a mapping raised SIGBUS.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the page at {address:#x} could not be had")]
#[non_exhaustive]
pub struct BusError {
    /// The address of the access, perhaps only that of its page.
    pub address: usize,
}

/// Where a guarded call goes on if an address of its range fails.
#[repr(C)]
struct Way {
    /// The stack pointer, and the place in the code. Written by [`enter`].
    stack: usize,
    place: usize,
    range: Range<usize>,
    /// The address that failed.
    failed: usize,
    /// That of the guarded call around this one.
    outer: *mut Way,
}

thread_local! {
    static INNERMOST: Cell<*mut Way> = const { Cell::new(ptr::null_mut()) };
}

/// Who had the signal before us; and that we have it.
static FORMER: OnceLock<libc::sigaction> = OnceLock::new();
static INSTALLED: OnceLock<()> = OnceLock::new();

/// Calls `call(data)`, and returns 0; or 1, if the handler has sent the thread here.
#[unsafe(naked)]
unsafe extern "C" fn enter(call: unsafe extern "C" fn(*mut u8), data: *mut u8, way: *mut Way) -> u32 {
    std::arch::naked_asm!(
        // What the caller must find again, and the stack aligned for a call.
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "sub rsp, 8",
        "mov [rdx], rsp",
        "lea rax, [rip + 2f]",
        "mov [rdx + 8], rax",
        "mov rax, rdi",
        "mov rdi, rsi",
        "call rax",
        "xor eax, eax",
        "jmp 3f",
        // The handler comes here, with the stack pointer from above.
        "2:",
        "cld",
        "mov eax, 1",
        "3:",
        "add rsp, 8",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
    )
}

/// The address of a SIGBUS that an access raised, if it did.
unsafe fn address_of(info: *const libc::siginfo_t) -> Option<usize> {
    // SAFETY: the kernel's structure, given to a handler.
    let info = unsafe { &*info };
    matches!(info.si_code, libc::BUS_ADRERR | libc::BUS_MCEERR_AR)
        // SAFETY: these codes come with an address.
        .then(|| unsafe { info.si_addr() }.addr())
}

unsafe extern "C" fn on_bus(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel's structure.
    if let Some(address) = unsafe { address_of(info) } {
        let mut way = INNERMOST.get();
        while !way.is_null() {
            // SAFETY: a way is in the list only while its call is on this thread's stack.
            let the_way = unsafe { &mut *way };
            // An access may begin before the page that fails: the kernel may name the page only.
            if the_way.range.contains(&address) {
                the_way.failed = address;
                // SAFETY: the kernel's structure, of this architecture. Going on there is what `enter` is made for.
                let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
                registers[libc::REG_RSP as usize] = the_way.stack.cast_signed() as libc::greg_t;
                registers[libc::REG_RIP as usize] = the_way.place.cast_signed() as libc::greg_t;
                return;
            }
            way = the_way.outer;
        }
    }
    // SAFETY: as we were called.
    unsafe { pass_on(signal, info, context) };
}

/// Does what would have been done without our handler.
unsafe fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let former = FORMER.get().map_or(libc::SIG_DFL, |former| former.sa_sigaction);
    // SIGBUS of an access cannot be ignored: the kernel kills then too.
    if former == libc::SIG_DFL || former == libc::SIG_IGN {
        // SAFETY: a plain system call. The access is repeated when we return, and kills; a signal
        // that was sent is sent once more.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
            if (*info).si_code <= 0 {
                libc::raise(signal);
            }
        }
        return;
    }
    let takes_info = FORMER.get().is_some_and(|former| former.sa_flags & libc::SA_SIGINFO != 0);
    if takes_info {
        // SAFETY: installed with SA_SIGINFO, so it is such a function.
        let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
            unsafe { mem::transmute(former) };
        handler(signal, info, context);
    } else {
        // SAFETY: installed without it, so it is such a function.
        let handler: extern "C" fn(libc::c_int) = unsafe { mem::transmute(former) };
        handler(signal);
    }
}

/// Installs the handler, once.
fn install() {
    FORMER.get_or_init(|| {
        // SAFETY: a structure of integers, for which zeros will do, filled by the system; then our handler, which does only
        // what a handler may.
        unsafe {
            let mut former: libc::sigaction = mem::zeroed();
            libc::sigaction(libc::SIGBUS, ptr::null(), &raw mut former);
            former
        }
    });
    INSTALLED.get_or_init(|| {
        // SAFETY: as above. Who had the signal is known by now.
        unsafe {
            let mut ours: libc::sigaction = mem::zeroed();
            let handler: unsafe extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_bus;
            ours.sa_sigaction = handler as usize;
            ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigemptyset(&raw mut ours.sa_mask);
            let installed = libc::sigaction(libc::SIGBUS, &raw const ours, ptr::null_mut());
            debug_assert_eq!(installed, 0, "a signal that can be handled");
        }
    });
}

struct Call<F, R> {
    f: Option<F>,
    result: Option<std::thread::Result<R>>,
}

unsafe extern "C" fn run<F: FnOnce() -> R, R>(data: *mut u8) {
    // SAFETY: from `guard`, which lends it for the call.
    let call = unsafe { &mut *data.cast::<Call<F, R>>() };
    if let Some(f) = call.f.take() {
        call.result = Some(catch_unwind(AssertUnwindSafe(f)));
    }
}

/// Calls `f`, and comes back at the latest with the first of its accesses to the range that raises SIGBUS.
///
/// # Safety
/// See [`Mapping::guard`](crate::Mapping::guard).
pub(crate) unsafe fn guard<F: FnOnce() -> R, R>(range: &Range<usize>, f: F) -> Result<R, BusError> {
    install();
    let outer = INNERMOST.get();
    let mut way = Way { stack: 0, place: 0, range: range.clone(), failed: 0, outer };
    let mut call = Call { f: Some(f), result: None };
    let way_at = &raw mut way;
    INNERMOST.set(way_at);
    // SAFETY: `run` is for a call like this one; the way lives until `enter` has come back. That `f` may
    // be left in its middle is the caller's promise.
    let failed = unsafe { enter(run::<F, R>, (&raw mut call).cast(), way_at) };
    INNERMOST.set(outer);
    if failed == 1 {
        mem::forget(call);
        // SAFETY: on this stack; the handler, which wrote it, is done.
        return Err(BusError { address: unsafe { (*way_at).failed } });
    }
    match call.result {
        Some(Ok(result)) => Ok(result),
        Some(Err(panic)) => resume_unwind(panic),
        None => unreachable!("it was run"),
    }
}
