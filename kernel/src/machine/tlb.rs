//! Shootdown: no processor translates an address any more as it did before.
//!
//! A processor that wants it writes the range into its own mailbox, sets its bit at every other, sends
//! them an interrupt, and waits until the bits are gone. While it waits it serves its own bits, since its
//! interrupts are off: two that wait for each other both go on.

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use x86_64::VirtAddr;
use x86_64::instructions::interrupts::without_interrupts;
use x86_64::instructions::tlb::flush;

use super::cpu::{self, Cpu, cpu};
use super::memory::PAGE;
use super::trap;

#[derive(Default)]
pub(crate) struct Mailbox {
    /// What this processor asks of the others.
    first: AtomicU64,
    pages: AtomicU64,
    /// Who asks this processor: a bit for each.
    asked_by: AtomicU64,
    /// How often this processor has asked.
    pub(crate) asked: AtomicU64,
}

/// Has every processor forget its translations of these pages.
pub(crate) fn shoot_down(first: u64, pages: u64) {
    without_interrupts(|| {
        let me = cpu();
        let bit = 1 << me.index;
        forget(first, pages);
        me.mailbox.first.store(first, Relaxed); // Relaxed, both: the bits publish them
        me.mailbox.pages.store(pages, Relaxed);
        me.mailbox.asked.fetch_add(1, Relaxed); // Relaxed: a figure
        let others = || (0..cpu::MOST).filter(|other| *other != me.index).filter_map(cpu::find);
        for other in others() {
            other.mailbox.asked_by.fetch_or(bit, AcqRel); // AcqRel: pairs with `serve`
            other.interrupt(trap::SHOOT_DOWN);
        }
        for other in others() {
            // Acquire: pairs with `serve`, so that what comes next comes after it
            while other.mailbox.asked_by.load(Acquire) & bit != 0 {
                serve(me);
                core::hint::spin_loop();
            }
        }
    });
}

/// Does what others ask of this processor. Interrupts are off.
pub(crate) fn serve(me: &Cpu) {
    let asked_by = me.mailbox.asked_by.load(Acquire); // Acquire: for the ranges
    if asked_by == 0 {
        return;
    }
    for other in (0..cpu::MOST).filter(|other| asked_by & 1 << other != 0).filter_map(cpu::find) {
        forget(other.mailbox.first.load(Relaxed), other.mailbox.pages.load(Relaxed)); // Relaxed: see above
    }
    me.mailbox.asked_by.fetch_and(!asked_by, Release); // Release: after the flushes
}

fn forget(first: u64, pages: u64) {
    for page in 0..pages {
        flush(VirtAddr::new(first + page * PAGE as u64));
    }
}
