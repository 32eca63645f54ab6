//! The pager task: takes page requests from the port and answers them from the image and what was written back.

use alloc::vec::Vec;

use core::sync::atomic::Ordering::SeqCst;

use upager::{ByteRange, Command, OwnedFrame, PAGE_SIZE, Packet, Platform, Status};

use super::plan::VMOS;
use super::{View, WISH, World, ring};
use crate::machine::memory::PAGE;
use crate::machine::task;

/// The key of the packet that sends a service home.
pub(crate) const STOP: u64 = u64::MAX;
const PACKETS: usize = 8;

/// What a service does when it is asked to hold, so that a detach finds requests.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Sits on what it has.
    Holds,
    /// Does so before the first detach, which is sure to find requests then. The second finds it in the
    /// middle of its work.
    GoesOn,
}

/// Waits while the VMO's requests are held, and then answers until [`end_answer`]. So when the hold has been asked for and
/// nobody is answering, nobody will.
fn begin_answer(view: &View, role: Role) {
    let world = view.world();
    let holds = || (role == Role::Holds || view.number == 0) && world.hold.load(SeqCst) == view.number as u64 + 1;
    world.answering.fetch_add(1, SeqCst); // SeqCst: pairs with the conductor's store and look
    if holds() {
        world.answering.fetch_sub(1, SeqCst);
        world.held.fetch_add(1, SeqCst);
        while holds() {
            task::sleep(1);
        }
        world.held.fetch_sub(1, SeqCst);
        world.answering.fetch_add(1, SeqCst);
    }
}

fn end_answer(view: &View) {
    view.world().answering.fetch_sub(1, SeqCst);
}

pub(crate) fn run(world: &'static World, role: Role) {
    let mut packets = [Packet::default(); PACKETS];
    while !world.helpers_stop.is_up() {
        let completed = world.completed();
        let taken = task::block_on(world.port.wait(&mut packets));
        let taken = &packets[..taken];
        note(world, taken, completed);
        let reads = taken.iter().filter(|packet| packet.command() == Some(Command::Read));
        for packet in reads {
            let view = &world.views[packet.key as usize];
            if answer(view, packet.range(), role).is_err() {
                world.tally.unexpected_errors.add(1);
                let _ = world.pager.fail_range(&view.vmo, packet.range(), Status::Io);
            }
        }
    }
}

/// Counts COMPLETE, and what comes after it. `completed` was asked for before the port was.
pub(crate) fn note(world: &World, packets: &[Packet], mut completed: [bool; VMOS]) {
    for packet in packets.iter().filter(|packet| packet.key != STOP) {
        let vmo = packet.key as usize;
        world.tally.packets_after_complete.add(completed[vmo].into());
        if packet.command() == Some(Command::Complete) {
            world.tally.complete_packets.add(1);
            world.views[vmo].completed.raise();
            completed[vmo] = true;
        }
    }
}

/// Supplies the range, as many pages at a time as there are frames.
fn answer(view: &'static View, range: ByteRange, role: Role) -> upager::Result<()> {
    let world = view.world();
    let mut page = range.offset / PAGE_SIZE;
    let end = page + range.length / PAGE_SIZE;
    let mut bytes = [0; PAGE];
    while page < end {
        begin_answer(view, role);
        let mut frames = Vec::new();
        for page in page..end {
            let Ok(frame) = OwnedFrame::new(&*world.board) else { break };
            view.copy.read(page, &mut bytes);
            frame.write(0, &bytes).expect("a page is a page");
            frames.push(frame);
        }
        if world.board.frames.used() > WISH {
            ring(&world.evictor);
        }
        if frames.is_empty() {
            end_answer(view);
            if view.detaching.is_up() {
                return Ok(()); // nobody waits for it any more, or soon will not
            }
            world.tally.waits_for_memory.add(1);
            world.board.pin().flush();
            task::sleep(1);
            continue;
        }
        let count = frames.len() as u64;
        let part = ByteRange::new(page * PAGE_SIZE, count * PAGE_SIZE);
        let supplied = world.pager.supply_frames(&view.vmo, part, frames);
        end_answer(view);
        match supplied {
            Ok(()) => world.tally.supplied_pages.add(count),
            Err(Status::BadState) if view.detaching.is_up() => {
                world.tally.late_supplies.add(1);
                return Ok(());
            }
            Err(status) => return Err(status),
        }
        page += count;
    }
    Ok(())
}
