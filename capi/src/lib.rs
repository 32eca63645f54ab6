//! Zircon's calls for pagers, VMOs and ports, as a C library: `libupager`.
//!
//! A program that was written for Zircon's pager is built against `capi/include` and runs, unchanged but for what
//! has no meaning here. The calls are those of `zircon/syscalls.h`; their contract is Zircon's.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `value` | the number that a program knows a handle by |
//! | `in_use` | what every thread is using, so that an object outlives the calls on it |
//! | `table` | from a value to an object and its rights, without locks |
//! | `object` | what a handle names |
//! | `boundary` | panics stop here, and pointers are checked |
//! | `types` | types and numbers |
//! | `address_space` | VMARs, and the mappings in them |
//! | `calls` | the calls, a file an object |
//!
//! # Processes
//!
//! Handles are those of the process. After a `fork` the child must not use those of its parent. A signal handler must
//! not call what allocates or blocks, and so none of these.

#![allow(clippy::cast_possible_truncation)] // words are taken apart into the fields they are made of
#![cfg_attr(loom, allow(dead_code))] // the calls, which use the table, are not there

mod in_use;
mod sync;
mod table;
mod value;

#[cfg(not(loom))]
mod address_space;
#[cfg(not(loom))]
mod boundary;
#[cfg(not(loom))]
pub mod calls;
#[cfg(not(loom))]
mod object;
#[cfg(not(loom))]
pub mod types;
