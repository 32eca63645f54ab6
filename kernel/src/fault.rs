//! A page fault, and what it comes to.
//!
//! *Minor*: the page is resident. It is mapped, by the trap's own epoch handle, and the instruction runs again.
//! *Major*: it is not. The interrupted task waits for it on its own stack, as it would in a call, and then
//! runs the instruction again. A task that is pinned, or has its interrupts off, must not wait: its access
//! fails, and it does what it must to be able to.
//!
//! # Mapping
//!
//! Between the look at the page and the store into the page table the page may leave, and whoever unmaps it
//! finds nothing. So after the store comes a second look, and if the page has left the mapping is taken
//! back; the pin covers all of that. A page is mapped for writing while it is held.

use upager::{Access, PageCount, PageIndex, Platform, Status};
use x86_64::structures::idt::PageFaultErrorCode;

use crate::load::{View, world};
use crate::machine::cpu::cpu;
use crate::machine::task;
use crate::machine::tlb;
use crate::machine::trap::Saved;
use crate::machine::window::Refused;

/// Pages that a fault asks for, if they are absent.
const RUN: PageCount = PageCount(4);

/// What the page of an address is part of, and what is wanted of it.
struct Fault {
    view: &'static View,
    page: PageIndex,
    access: Access,
}

impl Fault {
    fn new(saved: &Saved, address: u64) -> Option<Self> {
        let (view, page) = world()?.views.iter().find_map(|view| Some((view, view.window().page_of(address)?)))?;
        let write = PageFaultErrorCode::from_bits_truncate(saved.error).contains(PageFaultErrorCode::CAUSED_BY_WRITE);
        Some(Self { view, page, access: if write { Access::Write } else { Access::Read } })
    }
}

/// Called by the trap handler.
pub(crate) fn on_page_fault(saved: &mut Saved, address: u64) {
    let Some(fault) = Fault::new(saved, address).filter(|_| saved.accessed_window()) else {
        panic!("a fault at {address:#x} outside the windows, error {:#x}", saved.error);
    };
    let tally = &fault.view.world().tally;
    let pinned = cpu().for_tasks.is_pinned();
    tally.faults.add(1);
    tally.faults_while_pinned.add(pinned.into());
    match map(&fault) {
        Ok(true) => tally.minor_faults.add(1),
        Ok(false) if pinned || !saved.could_be_interrupted() => saved.refuse(Refused::WouldWait as u32),
        Ok(false) => {
            tally.major_faults.add(1);
            saved.remember(address);
            // SAFETY: it was a task that accessed a window, through trap.s, which leaves its stack alone.
            unsafe { saved.wait_before_going_on() };
        }
        Err(_) => saved.refuse(Refused::Failed as u32),
    }
}

/// Maps the page, if it is resident.
fn map(fault: &Fault) -> upager::Result<bool> {
    let Fault { view, page, access } = *fault;
    let (vmo, window) = (&view.vmo, view.window());
    let guard = view.world().board.pin();
    let frame = match access {
        Access::Read => {
            let Some(frame) = vmo.lookup(&guard, page) else { return Ok(false) };
            window.map(page, frame);
            frame
        }
        Access::Write => {
            let Some(held) = vmo.hold(&guard, page)? else { return Ok(false) };
            window.map_writable(page, held.frame());
            held.frame()
        }
    };
    let stays = vmo.lookup(&guard, page) == Some(frame);
    if !stays {
        window.unmap(page);
        tlb::shoot_down();
    }
    Ok(stays)
}

/// What a task does on its own stack when its access has to wait.
#[unsafe(no_mangle)]
extern "C" fn wait_for_page(saved: &mut Saved) -> *mut Saved {
    let Some(fault) = Fault::new(saved, saved.remembered()) else { unreachable!("it was looked at before") };
    let waited = task::block_on(fault.view.vmo.fault_run(fault.page, RUN, fault.access));
    match waited {
        Ok(()) => {}
        Err(Status::BadState) => saved.refuse(Refused::Detached as u32),
        Err(_) => saved.refuse(Refused::Failed as u32),
    }
    saved
}
