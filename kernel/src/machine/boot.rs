//! What the loader tells, and the start of the other processors.

use core::ffi::CStr;
use core::ptr;
use core::sync::atomic::Ordering::Acquire;
use core::time::Duration;

use x86_64::instructions::port::Port;

use super::cpu::{self, Cpu};

core::arch::global_asm!(include_str!("boot.s"), options(att_syntax));

/// Where the other processors begin: a page below 1 MiB, as boot.s has it.
const TRAMPOLINE: usize = 0x8000;

unsafe extern "C" {
    static start_info: u32;
    static trampoline: u8;
    static trampoline_end: u8;
    static kernel_end: u8;
}

/// The head of PVH's `hvm_start_info`.
#[repr(C)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    modules: u32,
    module_list: u64,
    command_line: u64,
    rsdp: u64,
    memory_map: u64,
    memory_entries: u32,
}

#[repr(C)]
struct MemoryEntry {
    start: u64,
    size: u64,
    kind: u32,
    reserved: u32,
}

const RAM: u32 = 1;
/// Of a command line that is looked at.
const LONGEST_LINE: usize = 256;

fn info() -> &'static StartInfo {
    // SAFETY: boot.s stored the loader's pointer, and nobody writes to it or to what it names.
    let info = unsafe { &*ptr::with_exposed_provenance::<StartInfo>(start_info as usize) };
    assert!(info.magic == 0x336e_c578 && info.version >= 1, "not started through PVH");
    info
}

/// A number from the command line: `name=number`.
pub(crate) fn option(name: &str) -> Option<u64> {
    let at = ptr::with_exposed_provenance(info().command_line as usize);
    // SAFETY: PVH's command line is a string that ends with a zero, and stays; memory goes on behind it.
    let line = unsafe { core::slice::from_raw_parts(at, LONGEST_LINE) };
    let options = CStr::from_bytes_until_nul(line).ok()?.to_str().ok()?.split_whitespace();
    options.filter_map(|option| option.split_once('=')).find(|(key, _)| *key == name)?.1.parse().ok()
}

/// The memory behind the kernel, by its first and last address.
pub(crate) fn memory_behind_kernel() -> (usize, usize) {
    let start = (&raw const kernel_end).addr();
    let info = info();
    // SAFETY: PVH's memory map has this many entries, and stays.
    let map = unsafe {
        core::slice::from_raw_parts(
            ptr::with_exposed_provenance::<MemoryEntry>(info.memory_map as usize),
            info.memory_entries as usize,
        )
    };
    let within =
        |entry: &&MemoryEntry| entry.kind == RAM && (entry.start..entry.start + entry.size).contains(&(start as u64));
    let end = map.iter().find(within).map_or(0, |entry| entry.start + entry.size);
    (start, end.min(1 << 32) as usize)
}

/// Masks the old interrupt controllers: only local APICs interrupt.
pub(crate) fn mask_old_interrupts() {
    for port in [0x21, 0xa1] {
        // SAFETY: the mask of a controller that nobody uses.
        unsafe { Port::<u8>::new(port).write(0xff) };
    }
}

/// Starts the other processors, until as many are there as must be.
pub(crate) fn start_others(cpu: &Cpu, processors: usize) {
    let (begin, end) = (&raw const trampoline, &raw const trampoline_end);
    let to = ptr::with_exposed_provenance_mut::<u8>(TRAMPOLINE);
    // SAFETY: the trampoline fits a page, and nothing else uses that page.
    unsafe { ptr::copy_nonoverlapping(begin, to, end.addr() - begin.addr()) };
    cpu.with_apic(|apic| {
        // SAFETY: the other processors have nothing to lose yet, and the trampoline is in its place.
        unsafe {
            apic.send_init_ipi_all();
            cpu::spin_for(Duration::from_millis(10));
            apic.send_sipi_all((TRAMPOLINE >> 12) as u8);
        }
    });
    for _ in 0..5000 {
        if cpu::STARTED.load(Acquire) == processors {
            return;
        }
        cpu::spin_for(Duration::from_millis(1));
    }
    panic!("{} processors of {processors} have started", cpu::STARTED.load(Acquire));
}
