//! Traps: page faults, interrupts, and what should not happen.
//!
//! The compiled code below us keeps values under its stack pointer, and in vector registers. So every trap
//! comes in on a stack of its own (an entry of the interrupt stack table), and saves and restores those
//! registers. Interrupts are off in a handler: only a fault could come in between, and handlers touch no
//! window.

use alloc::boxed::Box;
use core::sync::atomic::Ordering::Relaxed;

use x86_64::VirtAddr;
use x86_64::registers::control::Cr2;
use x86_64::registers::rflags::RFlags;
use x86_64::structures::idt::InterruptDescriptorTable;

use super::cpu::cpu;
use super::tlb;
use crate::fault;
use crate::load::{self, stepping};

const DEBUG: u8 = 1;
const DOUBLE_FAULT: u8 = 8;
const PAGE_FAULT: u8 = 14;
pub(crate) const TIMER: u8 = 32;
pub(crate) const SHOOT_DOWN: u8 = 33;
pub(crate) const WAKE: u8 = 34;
pub(crate) const APIC_ERROR: u8 = 46;
pub(crate) const SPURIOUS: u8 = 47;

/// Interrupt stacks of a processor.
pub(crate) const STACKS: usize = 4;
const FOR_PAGE_FAULTS: u16 = 0;
const FOR_DEBUG: u16 = 1;
const FOR_INTERRUPTS: u16 = 2;
const FOR_THE_REST: u16 = 3;

/// What trap.s saves of the interrupted code, and restores.
#[repr(C, align(16))]
pub(crate) struct Saved {
    vectors: [u8; 512],
    r15_to_r8: [u64; 8],
    rdi: u64,
    rsi_to_rcx: [u64; 5],
    rax: u64,
    vector: u64,
    pub(crate) error: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

const RED_ZONE: u64 = 128;

unsafe extern "C" {
    fn trap_stubs();
    fn wait_then_restore();
    fn window_begin();
    fn window_end();
    fn window_failed();
}

impl Saved {
    /// Whether interrupts were on.
    pub(crate) fn could_be_interrupted(&self) -> bool {
        RFlags::from_bits_truncate(self.rflags).contains(RFlags::INTERRUPT_FLAG)
    }

    /// Whether the instruction is one that may access a window.
    pub(crate) fn accessed_window(&self) -> bool {
        (window_begin as *const () as u64..window_end as *const () as u64).contains(&self.rip)
    }

    /// Has the access return `why`.
    pub(crate) fn refuse(&mut self, why: u32) {
        self.rax = why.into();
        self.rip = window_failed as *const () as u64;
    }

    /// Keeps the address of a fault, which the processor forgets with the next. The vector has done its work.
    pub(crate) fn remember(&mut self, address: u64) {
        self.vector = address;
    }

    pub(crate) fn remembered(&self) -> u64 {
        self.vector
    }

    /// Has the code go on without a trap after each instruction.
    pub(crate) fn stop_stepping(&mut self) {
        self.rflags &= !RFlags::TRAP_FLAG.bits();
    }

    /// Has the interrupted task call `wait_for_page` on its own stack, with a copy of this, before it goes on.
    ///
    /// # Safety
    /// The task's stack is sound at the interrupted rsp, and has room.
    pub(crate) unsafe fn wait_before_going_on(&mut self) {
        let copy = (self.rsp - RED_ZONE - size_of::<Self>() as u64) & !15;
        let to = core::ptr::with_exposed_provenance_mut::<Self>(copy as usize);
        // SAFETY: below the red zone the stack is free, by the caller's word.
        unsafe { core::ptr::copy(self, to, 1) };
        self.rdi = copy;
        self.rsp = copy;
        self.rip = wait_then_restore as *const () as u64;
    }
}

/// Loads a table of handlers into the calling processor.
pub(crate) fn load() {
    let table = Box::leak(Box::new(InterruptDescriptorTable::new()));
    let stub = |vector: u8| VirtAddr::new(trap_stubs as *const () as u64 + 16 * u64::from(vector));
    // SAFETY: the stubs save and restore everything, and each stack has one use at a time.
    unsafe {
        table.debug.set_handler_addr(stub(DEBUG)).set_stack_index(FOR_DEBUG);
        table.page_fault.set_handler_addr(stub(PAGE_FAULT)).set_stack_index(FOR_PAGE_FAULTS);
        table.double_fault.set_handler_addr(stub(DOUBLE_FAULT)).set_stack_index(FOR_THE_REST);
        table.general_protection_fault.set_handler_addr(stub(13)).set_stack_index(FOR_THE_REST);
        table.invalid_opcode.set_handler_addr(stub(6)).set_stack_index(FOR_THE_REST);
        for vector in [TIMER, SHOOT_DOWN, WAKE, APIC_ERROR, SPURIOUS] {
            table[vector].set_handler_addr(stub(vector)).set_stack_index(FOR_INTERRUPTS);
        }
    }
    table.load();
}

/// Handles what trap.s has saved, and returns what it is to restore.
#[unsafe(no_mangle)]
extern "C" fn on_trap(saved: &mut Saved) -> *mut Saved {
    let cpu = cpu();
    let outer = cpu.in_trap.replace(true);
    // SAFETY: only called in a handler of an interrupt of the APIC.
    let end = || cpu.with_apic(|apic| unsafe { apic.end_of_interrupt() });
    match saved.vector as u8 {
        PAGE_FAULT if !outer => {
            cpu.in_fault.set(true);
            fault::on_page_fault(saved, Cr2::read_raw());
            cpu.in_fault.set(false);
        }
        DEBUG => stepping::on_step(saved),
        TIMER => {
            end();
            cpu.ticks.fetch_add(1, Relaxed); // Relaxed: a clock
            load::on_tick();
        }
        SHOOT_DOWN => {
            tlb::serve(cpu);
            end();
        }
        WAKE => end(),
        SPURIOUS => {}
        vector => panic!(
            "trap {vector}, error {:#x}, at {:#x}, rsp {:#x}, address {:#x}, processor {}",
            saved.error,
            saved.rip,
            saved.rsp,
            Cr2::read_raw(),
            cpu.index
        ),
    }
    cpu.in_trap.set(outer);
    saved
}
