//! A writer: writes stamps to pages that it owns, notes what it wrote, and reads its pages back.
//!
//! Each write lies within one page. By a call it is done wholly or not at all; stores that the detach interrupts are counted. So
//! the shadow is exact also about the last write. Nobody else writes to the page, so what the owner reads
//! back must be what the shadow has, byte for byte, whatever was evicted, written back and supplied
//! again in between.

use std::thread;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use upager::PageIndex;

use crate::failure::Failure;
use crate::plan::WORD;
use crate::run::engine::{Access, Engine};
use crate::run::reader::AFTER_REFUSAL;
use crate::store::PAGE;

pub(crate) fn run(engine: &Engine, writer: u64, seed: u64) -> Result<(), Failure> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let pages = engine.plan.pages_of(writer);
    if pages == 0 {
        return Ok(()); // FILE is too small for so many writers
    }
    let signals = &engine.signals;
    for number in 0.. {
        if signals.workers_stop.is_up() {
            break;
        }
        let page = engine.plan.page_of(writer, rng.random_range(0..pages));
        let ended =
            if rng.random_bool(0.5) { write(engine, page, number, &mut rng)? } else { read_back(engine, page)? };
        match ended {
            Access::Done => {}
            Access::Refused => thread::sleep(AFTER_REFUSAL),
            Access::Stop => break,
        }
    }
    Ok(())
}

fn write(engine: &Engine, page: PageIndex, number: u32, rng: &mut SmallRng) -> Result<Access, Failure> {
    let words = engine.plan.words_in(page);
    if words == 0 {
        return Ok(Access::Done); // FILE ends in the page's first word
    }
    let first = rng.random_range(0..words);
    let count = rng.random_range(1..=words - first);
    let bytes: Vec<u8> = engine.plan.stamps(page, first, count, number).collect();
    let within = first * WORD;
    let signals = &engine.signals;
    engine.throttle.begin_write(|| signals.detached.is_up() || signals.workers_stop.is_up());
    let (ended, written) = engine.write(page.offset().0 + within, &bytes)?;
    if written > 0 {
        engine.shadow.patch(page, within as usize, &bytes[..written])?;
    }
    Ok(ended)
}

fn read_back(engine: &Engine, page: PageIndex) -> Result<Access, Failure> {
    let (mut is, mut must_be) = ([0; PAGE], [0; PAGE]);
    let ended = engine.read(page.offset().0, &mut is)?;
    if ended == Access::Done {
        engine.shadow.read(page, &mut must_be)?;
        engine.tally.checked_bytes.add(PAGE as u64);
        let wrong = is.iter().zip(&must_be).filter(|(is, must_be)| is != must_be).count();
        if wrong > 0 {
            engine.tally.mismatched_bytes.add(wrong as u64);
            engine.tally.find(|| format!("the owner of page {} found {wrong} bytes of it wrong", page.0));
        }
    }
    Ok(ended)
}
