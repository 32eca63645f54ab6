//! The machine: processors, traps, memory, page tables, tasks. Nothing here knows of the pager, but for
//! the epoch handles that each processor keeps.

pub(crate) mod boot;
pub(crate) mod console;
pub(crate) mod cpu;
pub(crate) mod memory;
pub(crate) mod task;
pub(crate) mod tlb;
pub(crate) mod trap;
pub(crate) mod window;
