//! Long histories of many threads, in one random schedule each.
//!
//! A [`Scenario`] is drawn from a seed, and so is everything that it does; with the scheduler's seed an
//! execution is the same each time. Shuttle's atomics are sequentially consistent: what this finds is
//! wrong logic in long histories, never a wrong order. That is for the matrix and the races.
//!
//! Two kinds:
//! - *rounds*: in each, all threads make a call or two at once, and then rest. The VMO may have been
//!   whatever the rounds before leave possible in the [specification](crate::spec), and some order of its
//!   steps must [explain](crate::history) the round. In the end the VMO is detached and dropped, and the
//!   next one has the same pager and port.
//! - *service*: users wait for what they ask, a service answers from a store, and a keeper writes back,
//!   evicts and sets the size. Nobody may wait for ever, and no page may lose what was written.

mod rounds;
mod service;

use upager::VmoOptions;

use rounds::Rounds;
use service::Service;

/// Numbers drawn one after the other (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of the first `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// What an execution does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scenario {
    Rounds(Rounds),
    Service(Service),
}

impl Scenario {
    /// One of those with about so many calls.
    #[must_use]
    pub fn of(seed: u64, calls: u64) -> Self {
        let mut random = Random::new(seed);
        let (threads, traps) = (4 + random.below(5), random.below(2) == 0);
        let rounds = random.below(2) == 0;
        let script = random.next();
        if rounds {
            Self::Rounds(Rounds { threads, pages: 1 + random.below(2), traps, calls, script })
        } else {
            let (pages, tail, zeroes) = (2 + random.below(5), random.below(3), random.below(2) == 0);
            Self::Service(Service { threads, pages, tail, traps, zeroes, calls, script })
        }
    }

    /// Runs it, in a thread of shuttle's. Returns the number of calls.
    ///
    /// # Panics
    /// That is its verdict.
    #[must_use]
    pub fn run(self) -> u64 {
        match self {
            Self::Rounds(rounds) => rounds.run(),
            Self::Service(service) => service.run(),
        }
    }
}

const fn options(traps: bool) -> VmoOptions {
    if traps { VmoOptions::TRAP_DIRTY } else { VmoOptions::NONE }
}
