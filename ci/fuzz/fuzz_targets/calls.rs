//! Sequences of calls with arbitrary arguments, made from the fuzzer's bytes, and checked as the property tests
//! check theirs: `make_calls` in `tests/src/calls.rs` says how.

#![no_main]

use arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use upager::{Access, ByteRange, Evict, MAX_VMO_SIZE, PAGE_SIZE, Writeback};
use upager_tests::{Call, SCENE, make_calls};

/// Calls of one sequence: as many as leave a fuzzer thousands of sequences a second.
const MOST: usize = 40;

/// A number near one of those where something may go wrong, or any other. Often it takes two bytes.
fn number(u: &mut Unstructured) -> Result<u64> {
    const EDGES: [u64; 7] = [PAGE_SIZE, 2 * PAGE_SIZE, SCENE * PAGE_SIZE, MAX_VMO_SIZE, 1 << 32, 1 << 63, u64::MAX];
    Ok(match u.int_in_range(0..=7)? {
        0..=4 => u.int_in_range(0..=SCENE)? * PAGE_SIZE,
        5 => u.choose(&EDGES)?.wrapping_add_signed(u.int_in_range(-2..=2)?),
        6 => u64::from(u.arbitrary::<u16>()?),
        _ => u.arbitrary()?,
    })
}

fn range(u: &mut Unstructured) -> Result<ByteRange> {
    Ok(ByteRange::new(number(u)?, number(u)?))
}

fn page(u: &mut Unstructured) -> Result<u64> {
    if u.ratio(7, 8)? { u.int_in_range(0..=SCENE + 1) } else { number(u) }
}

/// So many bytes to read or write.
fn length(u: &mut Unstructured) -> Result<usize> {
    Ok(match u.int_in_range(0..=2)? {
        0 => u.int_in_range(0..=8)?,
        1 => u.int_in_range(4090..=4100)?,
        _ => u.int_in_range(0..=20_000)?,
    })
}

/// A raw number that means something where it is below `end`.
fn raw(u: &mut Unstructured, end: u32) -> Result<u32> {
    if u.ratio(7, 8)? { u.int_in_range(0..=end) } else { u.arbitrary() }
}

fn status(u: &mut Unstructured) -> Result<i32> {
    if u.ratio(7, 8)? { u.int_in_range(-60..=1) } else { u.arbitrary() }
}

fn call(u: &mut Unstructured) -> Result<Call> {
    Ok(match u.int_in_range(0..=34)? {
        0 => Call::Read(number(u)?, length(u)?),
        1 => Call::Write(number(u)?, length(u)?),
        2 => {
            let access = if u.arbitrary()? { Access::Read } else { Access::Write };
            let run = if u.arbitrary()? { 1 } else { number(u)? };
            Call::Fault { page: page(u)?, run, access }
        }
        3 => Call::Lookup(page(u)?),
        4 => Call::PinLookup(page(u)?),
        5 => Call::Zero(range(u)?),
        6 => Call::SetSize(number(u)?),
        7 => Call::Evict(number(u)?, if u.arbitrary()? { Evict::Any } else { Evict::Unused }),
        8 => Call::Supply(range(u)?, u.int_in_range(0..=6)?),
        9 => Call::Fail(range(u)?, status(u)?),
        10 => Call::Dirty(range(u)?),
        11 => Call::Begin(range(u)?, if u.arbitrary()? { Writeback::All } else { Writeback::ZeroRanges }),
        12 => Call::End(range(u)?),
        13 => {
            let data = if u.arbitrary()? { i64::from(status(u)?).cast_unsigned() } else { number(u)? };
            Call::Op { op: raw(u, 6)?, data, range: range(u)? }
        }
        14 => Call::Query(range(u)?, u.int_in_range(0..=3)?),
        15 => Call::Stats(raw(u, 3)?),
        16 if u.ratio(1, 4)? => Call::Detach,
        16 | 17 => Call::Take(u.int_in_range(0..=3)?),
        18 => Call::Create { options: raw(u, 16)?, size: number(u)? },
        19 => {
            let packet_type = if u.ratio(3, 4)? { 0 } else { u.arbitrary()? };
            Call::Queue { key: page(u)?, packet_type, status: u.arbitrary()? }
        }
        20 => Call::Cancel(page(u)?),
        21 => Call::WaitInThePast(u.int_in_range(0..=3)?),
        22 => Call::Look { now: number(u)?, time_out: if u.arbitrary()? { Some(number(u)?) } else { None } },
        23 => Call::FrameWrite(number(u)?, length(u)?),
        24 => Call::EvictOfAll(number(u)?, if u.arbitrary()? { Evict::Any } else { Evict::Unused }),
        25 => Call::Hint(raw(u, 16)?, range(u)?),
        26 => Call::SupplyPages(range(u)?, number(u)?),
        27 => Call::AuxRead(number(u)?, length(u)?),
        28 => Call::AuxWrite(number(u)?, length(u)?),
        29 => Call::AuxCommit(range(u)?),
        30 => Call::AuxDecommit(range(u)?),
        31 => Call::AuxZero(range(u)?),
        32 => Call::AuxPin(range(u)?),
        33 => Call::AuxNew(number(u)?),
        _ => Call::Numbers(number(u)?),
    })
}

fuzz_target!(|bytes: &[u8]| {
    let mut u = Unstructured::new(bytes);
    let mut calls = Vec::new();
    while !u.is_empty() && calls.len() < MOST {
        // The end of the bytes is the end of the calls.
        let (Ok(which), Ok(call)) = (u.arbitrary::<u8>(), call(&mut u)) else { break };
        calls.push((which, call));
    }
    make_calls(&calls);
});
