//! Loads and stores in a mapping, by readers and writers that touch it.
//!
//! Words of eight bytes are loaded and stored in one piece, as the [plan](crate::plan) needs it. An access that the
//! pager refuses raises SIGBUS; the guard ends the copy there, and what was copied before stays so.

/// The pager refused a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Refused;

#[cfg(target_arch = "x86_64")]
#[allow(clippy::cast_ptr_alignment)] // a word is aligned: it is asked for, or asserted
mod guarded {
    use std::ptr;

    use upager_linux::Mapping;

    use super::Refused;

    const WORD: usize = size_of::<u64>();

    /// Fills `to` from `offset` of the mapping on.
    pub(crate) fn load(mapping: &Mapping, offset: u64, to: &mut [u8]) -> Result<(), Refused> {
        assert!(offset as usize + to.len() <= mapping.len(), "within the mapping");
        let (to, length) = (to.as_mut_ptr(), to.len());
        let copy = |from: *mut u8| {
            let from = from.wrapping_add(offset as usize);
            let mut at = 0;
            while at < length {
                let whole = length - at >= WORD && from.wrapping_add(at).addr().is_multiple_of(WORD);
                // SAFETY: within the mapping, as asserted, and within `to`; a word is aligned in the
                // mapping. Volatile, since others store there, by whole words or through the pager.
                unsafe {
                    if whole {
                        let word = from.add(at).cast::<u64>().read_volatile();
                        to.add(at).cast::<u64>().write_unaligned(word);
                    } else {
                        *to.add(at) = from.add(at).read_volatile();
                    }
                }
                at += if whole { WORD } else { 1 };
            }
        };
        // SAFETY: at its loads the closure has nothing to drop, and leaves nothing broken: what it fills is bytes.
        unsafe { mapping.guard(copy) }.map_err(|_| Refused)
    }

    /// Stores whole words from `offset` of the mapping on. Returns how many bytes it stored: fewer than all if
    /// the pager has refused the page.
    pub(crate) fn store(mapping: &Mapping, offset: u64, from: &[u8]) -> (usize, Result<(), Refused>) {
        assert!(offset as usize + from.len() <= mapping.len(), "within the mapping");
        assert!(offset.is_multiple_of(WORD as u64) && from.len().is_multiple_of(WORD), "whole words");
        let mut stored = 0;
        let stored_at = &raw mut stored;
        let copy = |to: *mut u8| {
            for (n, word) in from.as_chunks::<WORD>().0.iter().enumerate() {
                let at = to.wrapping_add(offset as usize + n * WORD).cast::<u64>();
                // SAFETY: a word within the mapping, as asserted, and aligned: the mapping begins at a page. Others load
                // there; only we store to this page. Volatile, so that the count is right where the copy ends.
                unsafe {
                    at.write_volatile(u64::from_ne_bytes(*word));
                    stored_at.write_volatile((n + 1) * WORD);
                }
            }
        };
        // SAFETY: at its stores the closure has nothing to drop, and the count is what it says.
        let ended = unsafe { mapping.guard(copy) };
        // SAFETY: ours; the closure, which wrote it, is over.
        (unsafe { ptr::read_volatile(stored_at) }, ended.map_err(|_| Refused))
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use guarded::{load, store};

/// Without guards nothing is mapped: [`Engine::new`](crate::run::engine::Engine::new) refuses it.
#[cfg(not(target_arch = "x86_64"))]
mod unguarded {
    use upager_linux::Mapping;

    use super::Refused;

    pub(crate) fn load(_: &Mapping, _: u64, _: &mut [u8]) -> Result<(), Refused> {
        Err(Refused)
    }

    pub(crate) fn store(_: &Mapping, _: u64, _: &[u8]) -> (usize, Result<(), Refused>) {
        (0, Err(Refused))
    }
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) use unguarded::{load, store};
