//! A kernel that pages through the core: it boots on several processors, takes page faults, evicts, writes
//! back and detaches in the middle of it all, and reports as JSON.
//!
//! [`machine`] is what any kernel has, [`board`] the pager's platform on it, [`fault`] what a page fault comes
//! to, and [`load`] what the kernel does. docs/EMBEDDING.md goes through it.

#![no_std]
#![no_main]
#![allow(clippy::cast_possible_truncation)] // 64 bits, and figures that fit

extern crate alloc;

mod board;
mod fault;
mod load;
mod machine;

use alloc::vec::Vec;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::{Acquire, Release};

use once_cell::race::OnceBox;
use x86_64::instructions::interrupts;

use machine::task::{self, Task};
use machine::{boot, cpu, memory};

/// The tasks of each processor.
static TASKS: OnceBox<Vec<Vec<&'static Task>>> = OnceBox::new();
static BEGIN: AtomicBool = AtomicBool::new(false);

/// Called by boot.s on every processor, on a stack of its own, with its number.
#[unsafe(no_mangle)]
extern "C" fn start(index: usize) -> ! {
    if index == 0 {
        memory::init();
        boot::mask_old_interrupts();
    }
    let cpu = cpu::init(index);
    if index == 0 {
        let processors = boot::option("processors").map_or(1, |processors| processors as usize);
        boot::start_others(cpu, processors);
        let _ = TASKS.set(load::make(processors).into());
        interrupts::enable();
        load::try_interrupts();
        BEGIN.store(true, Release); // Release: all is made
    }
    while !BEGIN.load(Acquire) {
        interrupts::enable_and_hlt(); // until the timer's next interrupt
    }
    interrupts::enable();
    task::schedule(cpu, &TASKS.get().expect("set before")[index])
}
