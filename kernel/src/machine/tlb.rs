//! Shootdown: no processor translates an address any more as it did before.
//!
//! A processor gathers the pages whose entries it has changed, in a mailbox of its own. Then it sets its bit
//! at every other processor, sends them an interrupt, and waits until the bits are gone. While it waits it
//! serves its own bits, since its interrupts are off: two that wait for each other both go on.
//!
//! An interrupt may strike between gathering and shooting down, gather for itself, and shoot down both.

use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicU64, AtomicUsize};

use x86_64::VirtAddr;
use x86_64::instructions::interrupts::without_interrupts;
use x86_64::instructions::tlb::flush;

use super::cpu::{self, Cpu, cpu};
use super::trap;

/// Pages that a processor gathers at most.
const MOST: usize = 32;

#[derive(Default)]
pub(crate) struct Mailbox {
    /// What this processor asks of the others. Relaxed throughout: the bits publish it.
    pages: [AtomicU64; MOST],
    len: AtomicUsize,
    /// Who asks this processor: a bit for each.
    asked_by: AtomicU64,
    /// How often this processor has asked.
    pub(crate) asked: AtomicU64,
}

/// Adds a page, by its address, to what will be shot down.
pub(crate) fn gather(page: u64) {
    without_interrupts(|| {
        let mailbox = &cpu().mailbox;
        if mailbox.len.load(Relaxed) == MOST {
            shoot_down();
        }
        let len = mailbox.len.fetch_add(1, Relaxed);
        mailbox.pages[len].store(page, Relaxed);
    });
}

/// Has every processor forget its translations of the pages gathered here.
pub(crate) fn shoot_down() {
    without_interrupts(|| {
        let me = cpu();
        if me.mailbox.len.load(Relaxed) == 0 {
            return;
        }
        forget(&me.mailbox);
        me.mailbox.asked.fetch_add(1, Relaxed); // Relaxed: a figure
        let bit = 1 << me.index;
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
        me.mailbox.len.store(0, Relaxed);
    });
}

/// Does what others ask of this processor. Interrupts are off.
pub(crate) fn serve(me: &Cpu) {
    let asked_by = me.mailbox.asked_by.load(Acquire); // Acquire: for the pages
    for other in (0..cpu::MOST).filter(|other| asked_by & 1 << other != 0).filter_map(cpu::find) {
        forget(&other.mailbox);
    }
    me.mailbox.asked_by.fetch_and(!asked_by, Release); // Release: after the flushes
}

fn forget(mailbox: &Mailbox) {
    for page in &mailbox.pages[..mailbox.len.load(Relaxed)] {
        flush(VirtAddr::new(page.load(Relaxed)));
    }
}
