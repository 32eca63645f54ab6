//! What a worker does next: one of these, drawn by weight.
//!
//! An operation is a variant here with its row in [`WEIGHTS`], and an arm in
//! [`Worker::perform`](crate::soak::worker::Worker::perform). Nothing else knows how many there are.

use rand::RngExt;
use rand::rngs::SmallRng;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Op {
    // Who uses the memory.
    Read,
    Write,
    WriteSpan,
    FaultRead,
    FaultWrite,
    Lookup,
    ReadImpatiently,
    GiveUp,
    PollWithoutCause,
    Zero,
    SetSize,
    Hint,
    // The service.
    Serve,
    ServeAsleep,
    ServeUntil,
    SupplyUnasked,
    Fail,
    Dirty,
    WriteBack,
    WriteBackZeros,
    BeginOnly,
    Query,
    Stats,
    Counts,
    // Who keeps the house.
    Evict,
    EvictOfAll,
    Look,
    Queue,
    Cancel,
    Stranger,
    Detach,
    Replace,
    ClosePager,
    ClosePort,
}

/// How often each comes, in proportion to the others.
pub(crate) const WEIGHTS: [(Op, u32); 34] = [
    (Op::Read, 12_000),
    (Op::Write, 14_000),
    (Op::WriteSpan, 4_000),
    (Op::FaultRead, 3_000),
    (Op::FaultWrite, 3_000),
    (Op::Lookup, 5_000),
    (Op::ReadImpatiently, 300),
    (Op::GiveUp, 2_000),
    (Op::PollWithoutCause, 2_000),
    (Op::Zero, 1_500),
    (Op::SetSize, 1_500),
    (Op::Hint, 2_000),
    (Op::Serve, 10_000),
    (Op::ServeAsleep, 4_000),
    (Op::ServeUntil, 100),
    (Op::SupplyUnasked, 3_000),
    (Op::Fail, 400),
    (Op::Dirty, 2_000),
    (Op::WriteBack, 4_000),
    (Op::WriteBackZeros, 1_500),
    (Op::BeginOnly, 500),
    (Op::Query, 1_000),
    (Op::Stats, 1_500),
    (Op::Counts, 1_000),
    (Op::Evict, 4_000),
    (Op::EvictOfAll, 400),
    (Op::Look, 1_000),
    (Op::Queue, 1_500),
    (Op::Cancel, 300),
    (Op::Stranger, 300),
    (Op::Detach, 3),
    (Op::Replace, 5),
    (Op::ClosePager, 1),
    (Op::ClosePort, 1),
];

impl Op {
    pub(crate) fn draw(rng: &mut SmallRng) -> Self {
        let all: u32 = WEIGHTS.iter().map(|(_, weight)| weight).sum();
        let mut left = rng.random_range(0..all);
        for (op, weight) in WEIGHTS {
            if left < weight {
                return op;
            }
            left -= weight;
        }
        Self::Read
    }

    /// Its row in [`WEIGHTS`].
    pub(crate) fn row(self) -> usize {
        WEIGHTS.iter().position(|(op, _)| *op == self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn every_operation_has_one_row_and_is_drawn() {
        let mut rng = SmallRng::seed_from_u64(1);
        let mut drawn = [0u32; WEIGHTS.len()];
        for _ in 0..1_000_000 {
            drawn[Op::draw(&mut rng).row()] += 1;
        }
        assert!(drawn.iter().all(|times| *times > 0), "{drawn:?}");
        for (row, (op, _)) in WEIGHTS.into_iter().enumerate() {
            assert_eq!(op.row(), row, "{op:?} has two rows");
        }
    }
}
