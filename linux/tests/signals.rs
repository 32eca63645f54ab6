//! SIGBUS: ours becomes an error, every other goes to who had it. One test in a process: the handler is the process's.

#![cfg(target_arch = "x86_64")] // where there are guards
#![allow(clippy::cast_possible_truncation, clippy::cast_ptr_alignment)] // 64 bits; whole words of pages

mod world;

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;

use upager::Status;
use world::{PAGE, Reads, World, mapper, pattern};

static OTHERS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn others(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel's structure.
    let at = unsafe { (*info).si_addr() };
    OTHERS.fetch_add(1, SeqCst);
    // Put a page there, so that the access goes on.
    // SAFETY: the page is that of the access below, which is the test's own.
    unsafe {
        let page = at.map_addr(|at| at & !(PAGE - 1));
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        libc::mmap(page, PAGE, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
    }
}

/// A page of a file that has none.
fn beyond_the_end() -> *mut u8 {
    // SAFETY: a new file, and a new mapping of it at an address of the system's choice.
    unsafe {
        let file = libc::memfd_create(c"empty".as_ptr(), 0);
        assert!(file >= 0);
        let at = libc::mmap(std::ptr::null_mut(), PAGE, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, file, 0);
        assert_ne!(at, libc::MAP_FAILED);
        at.cast()
    }
}

#[test]
fn ours_becomes_an_error_and_others_go_to_who_had_it() {
    let Some(mapper) = mapper() else { return };
    // SAFETY: a structure of integers, filled here; the handler does only what one may.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = others;
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO;
        assert_eq!(libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()), 0);
    }
    let world = World::new(8);
    let mapping = world.map(&mapper);
    let other = world.map(&mapper);
    // SAFETY: as of all guards below, loads of words within; nothing in the closures needs to be dropped.
    let first = unsafe { mapping.guard(|at| at.cast::<u64>().read_volatile()) };
    assert_eq!(first, Ok(pattern(0)));

    *world.store.reads.lock().unwrap() = Reads::Fail(Status::Io);
    // SAFETY: as above.
    let failed = unsafe { mapping.guard(|at| at.add(5 * PAGE + 40).cast::<u64>().read_volatile()) };
    let address = failed.unwrap_err().address;
    assert_eq!(address & !(PAGE - 1), mapping.addresses().start + 5 * PAGE);

    // A copy that meets the page in its middle.
    let mut bytes = vec![0; 8 * PAGE];
    let to = bytes.as_mut_ptr();
    // SAFETY: as above; the bytes are not the closure's.
    let copied = unsafe { mapping.guard(|at| at.copy_to_nonoverlapping(to, 8 * PAGE)) };
    assert!(copied.is_err());

    // Guards within guards: each gets its own.
    // SAFETY: as above.
    let outer = unsafe {
        mapping.guard(|at| {
            let inner = other.guard(|at| at.add(6 * PAGE).read_volatile());
            assert!(inner.is_err());
            at.cast::<u64>().read_volatile()
        })
    };
    assert_eq!(outer, Ok(pattern(0)));
    // SAFETY: as above.
    let through = unsafe { mapping.guard(|at| other.guard(|_| at.add(6 * PAGE).read_volatile())) };
    assert!(through.is_err(), "the inner guard is not about these addresses, the outer is");

    assert_eq!(OTHERS.load(SeqCst), 0);
    let foreign = beyond_the_end();
    // SAFETY: a load of a page that the other handler puts there; as above.
    let zero = unsafe { mapping.guard(|_| foreign.read_volatile()) };
    assert_eq!((zero, OTHERS.load(SeqCst)), (Ok(0), 1), "not ours, though in a guard");
    // SAFETY: as above, without a guard.
    assert_eq!(unsafe { beyond_the_end().read_volatile() }, 0);
    assert_eq!(OTHERS.load(SeqCst), 2);

    // A panic in a guard is the caller's.
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        // SAFETY: as above.
        unsafe { mapping.guard(|_| panic!("on purpose")) }
    }));
    assert!(panicked.is_err());
    // SAFETY: as above.
    assert_eq!(unsafe { mapping.guard(|at| at.cast::<u64>().read_volatile()) }, Ok(pattern(0)));
}
