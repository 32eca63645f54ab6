//! What the VMOs hold, who writes where, and how a reader knows a written word from a wrong one.
//!
//! A page holds words out of a dictionary, by a hash of their place, so that the image can be compressed and
//! each word be told without it. Sixteen pages of each 64 have an owner among the writers, who writes *stamps*: a
//! number, and a hash of it and the word's place. So a word of an owned page is the image's or a stamp that
//! belongs there; any other word is the image's.

pub(crate) const VMOS: usize = 2;
/// Pages of a VMO.
pub(crate) const PAGES: u64 = 1024;
/// Words of a page.
pub(crate) const WORDS: u64 = 512;
/// Of so many pages, the first so many have an owner.
const BLOCK: u64 = 64;
const OWNED_OF_BLOCK: u64 = 16;
/// Pages of a VMO that have an owner.
pub(crate) const OWNED: u64 = PAGES / BLOCK * OWNED_OF_BLOCK;

/// Spreads every bit over all of them (the finaliser of splitmix64, Steele et al., 2014).
pub(crate) const fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

const fn place(vmo: usize, page: u64, word: u64) -> u64 {
    (vmo as u64 * PAGES + page) * WORDS + word
}

/// The image's word.
pub(crate) const fn original(vmo: usize, page: u64, word: u64) -> u64 {
    mix(mix(place(vmo, page, word) + 1) % 256 + 1)
}

/// A writer's word.
pub(crate) const fn stamp(vmo: usize, page: u64, word: u64, number: u32) -> u64 {
    (number as u64) << 32 | mix(mix(place(vmo, page, word)) ^ number as u64) >> 32
}

/// The page that is the owner's number `n` of all owned ones.
pub(crate) const fn owned(n: u64) -> u64 {
    n / OWNED_OF_BLOCK * BLOCK + n % OWNED_OF_BLOCK
}

/// Whether a word may be there.
pub(crate) const fn is_right(vmo: usize, page: u64, word: u64, value: u64) -> bool {
    value == original(vmo, page, word)
        || page % BLOCK < OWNED_OF_BLOCK && value == stamp(vmo, page, word, (value >> 32) as u32)
}
