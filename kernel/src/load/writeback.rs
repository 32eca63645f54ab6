//! Writeback: dirty pages go to the copy and become clean. BEGIN, read, write, END, in this order.
//!
//! A page that the dirty bit shows to be written to just now is passed over once: it would be dirty again at
//! once.

use core::ops::Range;
use core::sync::atomic::Ordering::SeqCst;

use upager::{ByteOffset, ByteRange, DirtyRange, PAGE_SIZE, PageIndex, Writeback};

use super::{MOST_DIRTY, View, World};
use crate::machine::memory::PAGE;
use crate::machine::task;

/// Ticks after which a round comes anyway.
const EVERY: u64 = 50;
const RANGES: usize = 64;

/// Which pages a round is about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Round {
    /// Those that are not being written to.
    Quiet,
    All,
}

pub(crate) fn run(world: &'static World) {
    while !world.helpers_stop.is_up() {
        let begun = world.stores_begun.load(SeqCst);
        // A round that must bring room takes all.
        let pressing = begun - world.stores_written_back.load(SeqCst) >= MOST_DIRTY;
        // What is dirty at a detach stays so until the end.
        for view in world.views.iter().filter(|view| !view.detaching.is_up()) {
            round(view, if pressing { Round::All } else { Round::Quiet });
        }
        world.stores_written_back.store(begun, SeqCst);
        task::sleep(EVERY);
    }
}

/// Writes back what is dirty. Returns how many pages.
pub(crate) fn round(view: &'static View, which: Round) -> u64 {
    let world = view.world();
    let mut ranges = [DirtyRange::default(); RANGES];
    let (mut from, mut written) = (0, 0);
    let size = view.vmo.size();
    loop {
        let range = ByteRange::new(from, size - from);
        let Ok(found) = world.pager.query_dirty_ranges(&view.vmo, range, &mut ranges) else {
            world.tally.unexpected_errors.add(1);
            return written;
        };
        for range in &ranges[..found.actual] {
            from = range.offset + range.length;
            let mut run = range.offset / PAGE_SIZE..range.offset / PAGE_SIZE;
            while run.end < from / PAGE_SIZE {
                let busy = view.window().take_dirty(PageIndex(run.end)) && which == Round::Quiet;
                run.end += 1;
                if busy {
                    world.tally.found_dirty.add(1);
                    written += clean(view, run.start..run.end - 1);
                    run.start = run.end;
                }
            }
            written += clean(view, run);
        }
        if found.available == found.actual {
            world.tally.written_back_pages.add(written);
            return written;
        }
    }
}

/// Writes back a run of pages. Returns how many.
fn clean(view: &'static View, pages: Range<u64>) -> u64 {
    let (world, count) = (view.world(), pages.end - pages.start);
    let range = ByteRange::new(pages.start * PAGE_SIZE, count * PAGE_SIZE);
    let mut bytes = [0; PAGE];
    let mut written = world.pager.writeback_begin(&view.vmo, range, Writeback::All);
    for page in pages {
        let read = task::block_on(view.vmo.read(ByteOffset(page * PAGE_SIZE), &mut bytes));
        written = written.and(read);
        view.copy.write(page, &bytes);
    }
    if written.and_then(|()| world.pager.writeback_end(&view.vmo, range)).is_err() {
        world.tally.unexpected_errors.add(1);
    }
    count
}
