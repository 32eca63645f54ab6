//! What each processor has of its own.
//!
//! Two epoch handles among it: one for tasks and one for traps. A trap strikes anywhere, also in the middle
//! of a pin or a deferral, and neither may be entered a second time through the same handle.

use alloc::boxed::Box;
use core::cell::{Cell, UnsafeCell};
use core::ptr;
use core::sync::atomic::Ordering::{Acquire, Release};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize};
use core::time::Duration;

use once_cell::race::OnceBox;
use upager::{Collector, Guard, LocalHandle};
use x2apic::lapic::{LocalApic, LocalApicBuilder, TimerDivide, TimerMode, xapic_base};
use x86_64::VirtAddr;
use x86_64::instructions::interrupts::without_interrupts;
use x86_64::instructions::segmentation::{CS, SS, Segment};
use x86_64::instructions::tables::load_tss;
use x86_64::registers::model_specific::GsBase;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable};
use x86_64::structures::tss::TaskStateSegment;

use super::task::Task;
use super::{tlb, trap};

/// As many as boot.s has stacks for.
pub(crate) const MOST: usize = 8;
/// Between two interrupts of a processor's timer.
pub(crate) const TICK: Duration = Duration::from_millis(1);
/// QEMU's local APIC counts nanoseconds.
const TIMER_COUNT: u32 = TICK.as_nanos() as u32;
const TRAP_STACK: usize = 32 * 1024;

/// How many have started.
pub(crate) static STARTED: AtomicUsize = AtomicUsize::new(0);
static CPUS: [AtomicPtr<Cpu>; MOST] = [const { AtomicPtr::new(ptr::null_mut()) }; MOST];
/// In the place of a `Cpu` while there is none.
static NOBODY: AtomicPtr<Cpu> = AtomicPtr::new(ptr::null_mut());
static COLLECTOR: OnceBox<Collector> = OnceBox::new();

/// Reached through the base of gs. Cells are touched by this processor only.
#[repr(C)]
pub(crate) struct Cpu {
    this: *const Self,
    pub(crate) index: usize,
    /// Whether a trap is being handled.
    pub(crate) in_trap: Cell<bool>,
    /// Whether it is a page fault.
    pub(crate) in_fault: Cell<bool>,
    pub(crate) for_tasks: LocalHandle,
    pub(crate) for_traps: LocalHandle,
    pub(crate) running: Cell<Option<&'static Task>>,
    /// Where the scheduler's stack stands while a task runs.
    pub(crate) scheduler: UnsafeCell<usize>,
    /// Set when the processor is about to halt: whoever has work for it sends an interrupt.
    pub(crate) asleep: AtomicBool,
    /// Interrupts of the timer so far.
    pub(crate) ticks: AtomicU64,
    pub(crate) mailbox: tlb::Mailbox,
    apic: UnsafeCell<LocalApic>,
    /// Where interrupts for this processor are sent.
    apic_id: u32,
}

// SAFETY: what is not atomic is touched by its own processor only: `cpu()` gives nobody else's, and
// `find` is used for the atomics.
unsafe impl Sync for Cpu {}

/// This processor's.
#[inline]
pub(crate) fn cpu() -> &'static Cpu {
    match set_up() {
        Some(cpu) => cpu,
        None => unreachable!("the processor is not set up"),
    }
}

/// This processor's, if it is set up.
#[inline]
pub(crate) fn set_up() -> Option<&'static Cpu> {
    let this: *const Cpu;
    // SAFETY: the base of gs is a `Cpu`, which begins with its own address, or `NOBODY`.
    unsafe { core::arch::asm!("mov {}, gs:[0]", out(reg) this, options(pure, readonly, nostack, preserves_flags)) };
    // SAFETY: it is never freed.
    unsafe { this.as_ref() }
}

/// Another processor's, for its atomics.
pub(crate) fn find(index: usize) -> Option<&'static Cpu> {
    // SAFETY: `init` put it there, and it is never freed. Acquire pairs with that.
    unsafe { CPUS[index].load(Acquire).as_ref() }
}

impl Cpu {
    pub(crate) fn with_apic<R>(&self, f: impl FnOnce(&mut LocalApic) -> R) -> R {
        // SAFETY: only this processor gets here, and no interrupt comes in between.
        without_interrupts(|| f(unsafe { &mut *self.apic.get() }))
    }

    /// Sends this processor an interrupt.
    pub(crate) fn interrupt(&self, vector: u8) {
        // SAFETY: each vector that is sent has a handler.
        cpu().with_apic(|apic| unsafe { apic.send_ipi(vector, self.apic_id) });
    }

    /// Pins whoever is running here, by the handle for that.
    #[inline]
    pub(crate) fn pin(&self) -> Guard {
        if self.in_trap.get() { self.for_traps.pin() } else { self.for_tasks.pin() }
    }
}

/// Sets the calling processor up.
pub(crate) fn init(index: usize) -> &'static Cpu {
    GsBase::write(VirtAddr::from_ptr(&raw const NOBODY));
    let stack = || VirtAddr::from_ptr(alloc::vec![0u128; TRAP_STACK / 16].leak().as_ptr_range().end);
    let tss = Box::leak(Box::new(TaskStateSegment::new()));
    for entry in 0..trap::STACKS {
        tss.interrupt_stack_table[entry] = stack();
    }
    let gdt = Box::leak(Box::new(GlobalDescriptorTable::new()));
    let (code, data) = (gdt.append(Descriptor::kernel_code_segment()), gdt.append(Descriptor::kernel_data_segment()));
    let task = gdt.append(Descriptor::tss_segment(tss));
    gdt.load();
    // SAFETY: the segments are flat, as those of boot.s were.
    unsafe {
        CS::set_reg(code);
        SS::set_reg(data);
        load_tss(task);
    }
    trap::load();

    // SAFETY: it only reads the register.
    let base = unsafe { xapic_base() };
    let mut apic = LocalApicBuilder::new()
        .timer_vector(trap::TIMER.into())
        .error_vector(trap::APIC_ERROR.into())
        .spurious_vector(trap::SPURIOUS.into())
        .timer_mode(TimerMode::Periodic)
        .timer_divide(TimerDivide::Div1)
        .timer_initial(TIMER_COUNT)
        .set_xapic_base(base)
        .build()
        .expect("an APIC");
    // SAFETY: the vectors have handlers, and interrupts are off still.
    let apic_id = unsafe {
        apic.enable();
        apic.id()
    };

    let collector = COLLECTOR.get_or_init(|| Box::new(Collector::new()));
    let cpu = Box::leak(Box::new(Cpu {
        this: ptr::null(),
        index,
        in_trap: Cell::new(false),
        in_fault: Cell::new(false),
        for_tasks: collector.register(),
        for_traps: collector.register(),
        running: Cell::new(None),
        scheduler: UnsafeCell::new(0),
        asleep: AtomicBool::new(false),
        ticks: AtomicU64::new(0),
        mailbox: tlb::Mailbox::default(),
        apic: UnsafeCell::new(apic),
        apic_id,
    }));
    cpu.this = ptr::from_ref(cpu);
    GsBase::write(VirtAddr::from_ptr(cpu));
    CPUS[index].store(ptr::from_mut(cpu), Release); // Release: it is made before it is found
    STARTED.fetch_add(1, Release);
    cpu
}

/// The time stamp counter counts nanoseconds under emulation, or faster on real machines: good enough for
/// the waits of boot.
pub(crate) fn spin_for(time: Duration) {
    // SAFETY: reading the counter has no effect.
    let now = || unsafe { core::arch::x86_64::_rdtsc() };
    let start = now();
    while u128::from(now() - start) < time.as_nanos() {
        core::hint::spin_loop();
    }
}
