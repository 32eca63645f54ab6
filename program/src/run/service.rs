//! A service thread: takes page requests from the port and answers them from the copy.
//!
//! Invariants:
//! - A packet that was taken is answered: supplied, or failed after the reason was noted. Only after the
//!   detach may it be dropped, since the detach has failed its requests.
//! - A page is read from the copy while it is requested. It cannot become resident meanwhile, since
//!   only this thread has the packet; so the copy cannot change under the reader, and what is supplied
//!   is what was last written back.
//! - Nothing is held while waiting for memory: the frames that could be had are supplied first.

use std::time::{Duration, Instant};

use upager::{ByteOffset, ByteRange, Command, OwnedFrame, PAGE_SIZE, Packet, PageIndex, Platform, Status};

use crate::failure::Failure;
use crate::run::engine::Engine;
use crate::store::PAGE;

/// Pages supplied by one call.
pub(crate) const BATCH_PAGES: usize = 16;
/// Packets taken by one call. More would leave one thread with work that another one waits for.
const PACKETS: usize = 16;
/// How long a thread waits for packets before it looks whether it should stop.
const PATIENCE: Duration = Duration::from_millis(10);

/// What a service thread does when it is asked to [hold](crate::run::signals::Hold).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Sits on what it has.
    Holds,
    /// Goes on: a detach finds it in the middle of its work.
    GoesOn,
}

pub(crate) fn run(engine: &Engine, role: Role) -> Result<(), Failure> {
    let mut packets = [Packet::default(); PACKETS];
    let mut bytes = vec![0; BATCH_PAGES * PAGE];
    while !engine.signals.helpers_stop.is_up() {
        let completed = engine.tally.completed();
        let taken = match engine.port.wait_until(Some(Instant::now() + PATIENCE), &mut packets) {
            Ok(taken) => &packets[..taken],
            Err(Status::TimedOut) => continue,
            Err(status) => return Err(Failure::Pager { doing: "waiting at the port", status }),
        };
        engine.tally.packets(taken, completed);
        let reads = taken.iter().filter(|packet| packet.command() == Some(Command::Read));
        if role == Role::Holds && reads.clone().next().is_some() {
            engine.signals.hold.sit_on(reads.clone().count());
        }
        for packet in reads {
            if let Err(failure) = answer(engine, packet.range(), &mut bytes) {
                // First the reason, then the failure: see `Engine::judge`.
                engine.fail(failure);
                let failed = engine.pager.fail_range(&engine.vmo, packet.range(), Status::Io);
                failed.map_err(Failure::pager("failing a request"))?;
            }
        }
    }
    Ok(())
}

/// Supplies the range, batch by batch.
fn answer(engine: &Engine, range: ByteRange, bytes: &mut [u8]) -> Result<(), Failure> {
    let mut page = ByteOffset(range.offset).page();
    let end = ByteOffset(range.offset + range.length).page();
    let mut frames = Vec::with_capacity(BATCH_PAGES);
    while page < end {
        let wanted = BATCH_PAGES.min((end.0 - page.0) as usize);
        while frames.len() < wanted {
            match OwnedFrame::new(&*engine.platform) {
                Ok(frame) => frames.push(frame),
                Err(_) => break,
            }
        }
        if frames.is_empty() {
            if engine.signals.detaching.is_up() {
                return Ok(()); // nobody waits for it any more, or soon will not
            }
            wait_for_memory(engine);
            continue;
        }
        let count = frames.len();
        let bytes = &mut bytes[..count * PAGE];
        engine.copy.read(page, bytes)?;
        for (frame, bytes) in frames.iter().zip(bytes.chunks_exact(PAGE)) {
            frame.write(0, bytes).map_err(Failure::pager("filling a frame"))?;
        }
        let part = ByteRange::new(page.offset().0, count as u64 * PAGE_SIZE);
        match engine.pager.supply_frames(&engine.vmo, part, frames.drain(..)) {
            Ok(()) => engine.tally.supplied_pages.add(count as u64),
            Err(Status::BadState) if engine.signals.detaching.is_up() => {
                engine.tally.late_supplies.add(1);
                return Ok(());
            }
            Err(status) => return Err(Failure::Pager { doing: "supplying pages", status }),
        }
        page = PageIndex(page.0 + count as u64);
    }
    let in_use = engine.platform.counts().frames.0;
    engine.tally.most_frames.raise_to(in_use);
    if in_use > engine.resident_pages {
        engine.signals.memory.ring();
    }
    Ok(())
}

/// The limit is reached. Frames come back when the evictor has evicted and every thread that might
/// look at them has moved on; this thread shows that it has.
fn wait_for_memory(engine: &Engine) {
    engine.tally.waits_for_memory.add(1);
    engine.signals.memory.ring();
    engine.platform.pin().flush();
    std::thread::sleep(Duration::from_micros(50));
}
