//! A reader: reads all over the VMO, in many sizes, and checks every byte.
//!
//! Most reads are small and at random; some span pages; some follow one another, as a scan does.
//! What it must find is told by the [`plan`](crate::plan).

use std::thread;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::failure::Failure;
use crate::plan::WORD;
use crate::run::engine::{Access, Engine};
use crate::store::PAGE;

const SMALL: usize = PAGE;
const LARGE: usize = 16 * PAGE;

/// After a refusal: nothing else will come of it soon, and others have work to do.
pub(crate) const AFTER_REFUSAL: Duration = Duration::from_micros(100);

pub(crate) fn run(engine: &Engine, seed: u64) -> Result<(), Failure> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let size = engine.file.size();
    let mut scan = rng.random_range(0..size);
    // Rounding out to words adds less than a word at each end.
    let mut read = vec![0; LARGE + 2 * size_of::<u64>()];
    let mut file = read.clone();
    while !engine.signals.workers_stop.is_up() {
        let (offset, length) = match rng.random_range(0..10) {
            0 => {
                let length = rng.random_range(1..=LARGE);
                let offset = scan;
                scan = (scan + length as u64) % size;
                (offset, length)
            }
            1 | 2 => (rng.random_range(0..size), rng.random_range(1..=LARGE)),
            _ => (rng.random_range(0..size), rng.random_range(1..=SMALL)),
        };
        let (offset, end) = engine.plan.checkable(offset, (offset + length as u64).min(size));
        debug_assert!(end - offset <= LARGE as u64 + 2 * WORD);
        let length = (end - offset) as usize;
        let (read, file) = (&mut read[..length], &mut file[..length]);
        match engine.read(offset, read)? {
            Access::Stop => break,
            Access::Refused => thread::sleep(AFTER_REFUSAL),
            Access::Done => {
                engine.file.read(offset, file)?;
                check(engine, offset, read, file);
            }
        }
    }
    Ok(())
}

fn check(engine: &Engine, offset: u64, read: &[u8], file: &[u8]) {
    engine.tally.checked_bytes.add(read.len() as u64);
    if let Some(wrong) = engine.plan.check(offset, read, file) {
        engine.tally.mismatched_bytes.add(wrong.bytes);
        engine.tally.find(|| {
            let (bytes, first) = (wrong.bytes, wrong.offset);
            format!("a read of {} bytes at {offset} found {bytes} wrong, the first at {first}", read.len())
        });
    }
}
