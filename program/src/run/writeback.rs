//! Writeback: dirty pages go to the copy and become clean.
//!
//! The order is the whole point: BEGIN, read the pages through the VMO, write them to the copy, and
//! only then END. A page that is written to after BEGIN stays dirty and comes round again.
//!
//! One thread at a time writes back: the writeback thread, and after it came home the main thread.

use std::time::Duration;

use upager::{ByteOffset, ByteRange, DirtyRange, PAGE_SIZE, PageIndex, Writeback, block_on};

use crate::failure::Failure;
use crate::run::engine::Engine;
use crate::store::PAGE;

/// A round comes at least so often. Rarely: so that there are dirty pages when the detach comes.
const EVERY: Duration = Duration::from_millis(200);
/// Ranges asked for at a time.
const RANGES: usize = 256;
/// Pages between one BEGIN and its END. Few: a page that is being written back cannot be evicted.
const BATCH_PAGES: u64 = 64;

/// The writeback thread. It starts no round after the detach: what is dirty then stays, and is written
/// back after COMPLETE.
pub(crate) fn run(engine: &Engine) -> Result<(), Failure> {
    let mut heard = 0;
    while !engine.signals.helpers_stop.is_up() && !engine.signals.detached.is_up() {
        let begun = engine.throttle.begin_round();
        round(engine)?;
        engine.throttle.end_round(begun);
        engine.throttle.wait_for_work(&mut heard, EVERY);
    }
    Ok(())
}

/// Writes back all pages that were dirty at its beginning. Returns how many pages it wrote.
pub(crate) fn round(engine: &Engine) -> Result<u64, Failure> {
    let size = engine.vmo.size();
    let mut ranges = [DirtyRange::default(); RANGES];
    let mut bytes = Vec::new();
    let mut written = 0;
    let mut from = 0;
    loop {
        let found = engine
            .pager
            .query_dirty_ranges(&engine.vmo, ByteRange::new(from, size - from), &mut ranges)
            .map_err(Failure::pager("asking for dirty ranges"))?;
        for range in &ranges[..found.actual] {
            let mut start = range.offset;
            from = range.offset + range.length;
            while start < from {
                let length = (from - start).min(BATCH_PAGES * PAGE_SIZE);
                clean(engine, ByteRange::new(start, length), &mut bytes)?;
                start += length;
                written += length / PAGE_SIZE;
            }
        }
        if found.available == found.actual {
            engine.tally.written_back_pages.add(written);
            return Ok(written);
        }
    }
}

fn clean(engine: &Engine, range: ByteRange, bytes: &mut Vec<u8>) -> Result<(), Failure> {
    let (pager, vmo) = (&engine.pager, &engine.vmo);
    bytes.resize(range.length as usize, 0);
    pager.writeback_begin(vmo, range, Writeback::All).map_err(Failure::pager("beginning writeback"))?;
    // Dirty pages are neither evicted nor dropped by a detach: this read never waits and never fails.
    block_on(vmo.read(ByteOffset(range.offset), bytes)).map_err(Failure::pager("reading dirty pages"))?;
    let first = ByteOffset(range.offset).page();
    for (n, page) in bytes.chunks_exact(PAGE).enumerate() {
        engine.copy.write(PageIndex(first.0 + n as u64), page)?;
    }
    pager.writeback_end(vmo, range).map_err(Failure::pager("ending writeback"))
}
