//! What the service of one VMO keeps: the content of each page, and a lock for each.
//!
//! The locks are the order that SPEC asks of a service: who supplies a page holds its lock, with others who
//! do, from before the bytes are read here until the page is supplied; and who writes one back holds it
//! alone, from before BEGIN until after END. So a page that is absent has its last bytes here. Everything
//! else that happens to a page happens without them.

use std::ops::Range;

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::soak::lanes::Lanes;
use crate::store::PAGE;

type Page = Box<[u8; PAGE]>;

pub(crate) struct Store(Vec<RwLock<Page>>);

impl Store {
    pub(crate) fn new(lanes: &Lanes, pages: u64) -> Self {
        Self((0..pages).map(|page| RwLock::new(lanes.fresh(page))).collect())
    }

    fn pages(&self, pages: Range<u64>) -> impl Iterator<Item = &RwLock<Page>> {
        self.0[pages.start as usize..pages.end as usize].iter() // ascending, as everyone locks them
    }

    /// Locks pages against those who write back.
    pub(crate) fn read(&self, pages: Range<u64>) -> Vec<RwLockReadGuard<'_, Page>> {
        self.pages(pages).map(|page| page.read()).collect()
    }

    /// Locks pages against everyone.
    pub(crate) fn write(&self, pages: Range<u64>) -> Vec<RwLockWriteGuard<'_, Page>> {
        self.pages(pages).map(|page| page.write()).collect()
    }
}
