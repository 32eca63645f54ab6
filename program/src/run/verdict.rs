//! The end of a run: the last packets, the last writeback, and the comparison.
//!
//! All threads are home, unless one hangs; so nothing here races with anything.

use std::sync::Arc;

use upager::{Detached, Packet, Port};
use upager_linux::LinuxPlatform;

use crate::args::Config;
use crate::failure::Failure;
use crate::report::{Report, Times};
use crate::run::engine::Engine;
use crate::run::tally::Tally;
use crate::run::{evictor, writeback};
use crate::store::PAGE;

/// Brings the run to its end and reports.
pub(crate) fn reach(
    engine: Arc<Engine>,
    config: &Config,
    times: Times,
    detached: Option<Detached>,
    hung: u64,
) -> Result<Report, Failure> {
    // Without a failure so far FILE was whole; what follows reads it again.
    if !engine.has_failed()
        && let Err(failure) = engine.file.check_size().and_then(|()| settle(&engine))
    {
        engine.fail(failure);
    }
    let mut report = Report::new(config, times, detached, hung);
    report.count_vmo(&engine.vmo.counts());
    match Arc::try_unwrap(engine) {
        Ok(engine) => close(engine, &mut report)?,
        // A thread that hangs has it: the VMO cannot be dropped.
        Err(engine) => report.count(&engine.tally),
    }
    Ok(report)
}

/// Takes the packets that are left, as a service would, writes back what is dirty, and compares.
fn settle(engine: &Engine) -> Result<(), Failure> {
    drain(&engine.port, &engine.tally);
    writeback::round(engine)?;
    let dirty = writeback::round(engine)?;
    if dirty > 0 {
        engine.tally.find(|| format!("{dirty} pages are dirty though they were written back and nobody writes"));
    }
    compare(engine)
}

/// Counts the bytes in which the copy and the shadow differ. Pages that are in neither are FILE's in
/// both.
fn compare(engine: &Engine) -> Result<(), Failure> {
    let (mut is, mut must_be) = ([0; PAGE], [0; PAGE]);
    for page in engine.copy.pages_of_either(&engine.shadow) {
        engine.copy.read(page, &mut is)?;
        engine.shadow.read(page, &mut must_be)?;
        let lost = is.iter().zip(&must_be).filter(|(is, must_be)| is != must_be).count();
        if lost > 0 {
            engine.tally.lost_dirty_bytes.add(lost as u64);
            engine.tally.find(|| format!("page {} was written back with {lost} bytes wrong", page.0));
        }
    }
    Ok(())
}

/// Drops the VMO, takes what that sends, and sees whether every frame comes back.
fn close(engine: Engine, report: &mut Report) -> Result<(), Failure> {
    let Engine { platform, pager, port, vmo, mapping, tally, failure, .. } = engine;
    drop(mapping); // it has the VMO too
    drop(vmo);
    drain(&port, &tally);
    drop((pager, port));
    evictor::free(&platform, 0);
    report.count(&tally);
    report.frames_left = platform.counts().frames.0;
    failure.into_inner().map_or(Ok(()), Err)
}

fn drain(port: &Port<LinuxPlatform>, tally: &Tally) {
    let mut packets = [Packet::default(); 64];
    loop {
        let completed = tally.completed();
        match port.take(&mut packets) {
            0 => return,
            taken => tally.packets(&packets[..taken], completed),
        }
    }
}
