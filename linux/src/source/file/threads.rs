//! The engine that is always there: threads that block in pread and pwrite.
//!
//! The threads are those of the crate `blocking`: made when needed, shared by the process, gone when idle.

use super::transfer::{Next, Transfer};

/// Begins the operation on a thread that may block.
pub(super) fn submit(mut transfer: Transfer) {
    let carry_out = move || {
        loop {
            let result = transfer.step();
            match transfer.advance(result) {
                Next::Again(on) => transfer = on,
                Next::Over => return,
            }
        }
    };
    blocking::unblock(carry_out).detach();
}
