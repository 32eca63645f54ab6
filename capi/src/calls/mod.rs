//! Zircon's calls, a file an object. Each checks its handles first, in the order of the arguments, and then the rest;
//! a call that fails changes nothing, but for `zx_handle_replace`, which says so.

pub mod clock;
pub mod handle;
pub mod object;
pub mod pager;
pub mod port;
pub mod vmar;
pub mod vmo;
