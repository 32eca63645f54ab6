//! The evictor: keeps the number of frames in use below the wish.
//!
//! A page that was evicted gives its frame back only after a grace period, when every thread that may
//! be looking at it has moved on. So after evicting the evictor pushes the grace period along, and does
//! not evict more for frames that are on their way.

use std::thread;
use std::time::Duration;

use upager::{Evict, PageCount, Platform};
use upager_linux::LinuxPlatform;

use crate::failure::Failure;
use crate::run::engine::Engine;

/// How long the evictor sleeps when nobody rings.
const PATIENCE: Duration = Duration::from_millis(5);
/// How often it pushes the grace period along before it looks anew.
const PUSHES: usize = 32;

#[expect(clippy::unnecessary_wraps, reason = "as every thread of the crew")]
pub(crate) fn run(engine: &Engine) -> Result<(), Failure> {
    let mut heard = 0;
    let wish = engine.resident_pages;
    while !engine.signals.helpers_stop.is_up() {
        let in_use = engine.platform.counts().frames.0;
        engine.tally.most_frames.raise_to(in_use);
        if in_use <= wish {
            engine.signals.memory.wait(&mut heard, PATIENCE);
            continue;
        }
        // A sixteenth below the wish, so as not to be called for every page.
        let too_many = in_use - (wish - wish / 16);
        if evict(engine, too_many) == 0 {
            // What is left is dirty, or on its way.
            engine.throttle.want_writeback();
            engine.signals.memory.wait(&mut heard, Duration::from_millis(1));
        }
        free(&engine.platform, wish);
    }
    Ok(())
}

fn evict(engine: &Engine, pages: u64) -> u64 {
    let mut evicted = engine.vmo.evict(PageCount(pages), Evict::Unused);
    if evicted == PageCount(0) {
        evicted = engine.vmo.evict(PageCount(pages), Evict::Any);
    }
    engine.tally.evicted_pages.add(evicted.0);
    evicted.0
}

/// Evicts whatever is clean, so that the next access needs the pager.
pub(crate) fn evict_all(engine: &Engine) {
    let evicted = engine.vmo.evict(PageCount(u64::MAX), Evict::Any);
    engine.tally.evicted_pages.add(evicted.0);
}

/// Pushes the grace period along until at most `wish` frames are in use, for a while.
pub(crate) fn free(platform: &LinuxPlatform, wish: u64) {
    for _ in 0..PUSHES {
        if platform.counts().frames.0 <= wish {
            break;
        }
        platform.pin().flush();
        thread::yield_now();
    }
}
