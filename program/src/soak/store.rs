//! What the service of one VMO keeps: the content of each page, and a lock for each.
//!
//! The locks are the order that SPEC asks of a service: who supplies a page holds its lock from before
//! the bytes are read here until the page is supplied, and who writes one back from before BEGIN until after
//! END. So a page that is absent has its last bytes here. Everything else that happens to a page happens
//! without them.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard};

use crate::soak::books::lock;
use crate::soak::lanes::Lanes;
use crate::store::PAGE;

type Page = Box<[u8; PAGE]>;

pub(crate) struct Store(Vec<Mutex<Page>>);

impl Store {
    pub(crate) fn new(lanes: &Lanes, pages: u64) -> Self {
        Self((0..pages).map(|page| Mutex::new(lanes.fresh(page))).collect())
    }

    /// Locks pages, in ascending order as everyone does.
    pub(crate) fn lock(&self, pages: Range<u64>) -> Vec<MutexGuard<'_, Page>> {
        self.0[pages.start as usize..pages.end as usize].iter().map(lock).collect()
    }
}
