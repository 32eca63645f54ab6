//! Copies to and from memory that others access meanwhile.
//!
//! Every access is an atomic one of a machine word, or of a byte at the ends: a reader beside a writer
//! sees each aligned word old or new. Programs that have the same page mapped access it in their own
//! way, outside of what the language says of this process's memory.

#![allow(clippy::cast_ptr_alignment)] // brought about by the heads of the copies

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU8, AtomicU64};

use upager::PAGE_SIZE;

/// Bytes in a page.
pub(crate) const PAGE: usize = PAGE_SIZE as usize;
const WORD: usize = size_of::<u64>();

// Relaxed throughout: the page's word, or the record of its frame, orders the bytes.

/// # Safety
/// `from` is memory that lives for the length of `to`, and is written, if at all, by atomic accesses
/// or through another mapping.
pub(crate) unsafe fn copy_out(from: *const u8, to: &mut [u8]) {
    let head = from.align_offset(WORD).min(to.len());
    let (head, rest) = to.split_at_mut(head);
    let mut at = from;
    let byte = |to: &mut u8, at: &mut *const u8| {
        // SAFETY: within the length of `to`, by the contract.
        *to = unsafe { &*at.cast::<AtomicU8>() }.load(Relaxed);
        // SAFETY: at most one past the end.
        *at = unsafe { at.add(1) };
    };
    for to in head {
        byte(to, &mut at);
    }
    let mut words = rest.chunks_exact_mut(WORD);
    for to in &mut words {
        // SAFETY: as above, and aligned: the head has brought us to a word.
        let word = unsafe { &*at.cast::<AtomicU64>() }.load(Relaxed);
        to.copy_from_slice(&word.to_ne_bytes());
        // SAFETY: at most one past the end.
        at = unsafe { at.add(WORD) };
    }
    for to in words.into_remainder() {
        byte(to, &mut at);
    }
}

/// # Safety
/// `to` is memory that lives for the length of `from`, and is accessed, if at all, by atomic accesses or
/// through another mapping.
pub(crate) unsafe fn copy_in(to: *mut u8, from: &[u8]) {
    let head = to.align_offset(WORD).min(from.len());
    let (head, rest) = from.split_at(head);
    let mut at = to;
    let byte = |from: u8, at: &mut *mut u8| {
        // SAFETY: within the length of `from`, by the contract.
        unsafe { &*at.cast::<AtomicU8>() }.store(from, Relaxed);
        // SAFETY: at most one past the end.
        *at = unsafe { at.add(1) };
    };
    for from in head {
        byte(*from, &mut at);
    }
    let (words, tail) = rest.as_chunks::<WORD>();
    for from in words {
        // SAFETY: as above, and aligned: the head has brought us to a word.
        unsafe { &*at.cast::<AtomicU64>() }.store(u64::from_ne_bytes(*from), Relaxed);
        // SAFETY: at most one past the end.
        at = unsafe { at.add(WORD) };
    }
    for from in tail {
        byte(*from, &mut at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_head_and_tail_is_copied_and_nothing_else() {
        let source: Vec<u8> = (1..=64).collect();
        for start in 0..16 {
            for len in 0..40 {
                let mut memory = [0u64; 8];
                let at = memory.as_mut_ptr().cast::<u8>();
                // SAFETY: 64 bytes, of which at most 16 + 40 are touched.
                unsafe { copy_in(at.add(start), &source[..len]) };
                let mut back = vec![0; 64];
                // SAFETY: as above.
                unsafe { copy_out(at, &mut back) };
                let mut expected = vec![0; 64];
                expected[start..start + len].copy_from_slice(&source[..len]);
                assert_eq!(back, expected);
                let mut part = vec![0; len];
                // SAFETY: as above.
                unsafe { copy_out(at.add(start), &mut part) };
                assert_eq!(part, source[..len]);
            }
        }
    }
}
