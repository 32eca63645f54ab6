//! Numbers for histories that differ from round to round and not from run to run.

/// A small random number generator (Marsaglia's xorshift): the same numbers in each run, from a seed
/// that is not 0.
#[derive(Debug)]
pub struct Random(pub u64);

impl Random {
    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}
