//! Which region an address belongs to: a snapshot, read without a lock for each fault, and replaced when a mapping
//! comes or goes.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use crate::region::Region;

/// Regions by their addresses, ascending.
pub(crate) type Snapshot = Vec<Arc<Region>>;

#[derive(Debug, Default)]
pub(crate) struct AddressMap(ArcSwap<Snapshot>);

impl AddressMap {
    pub(crate) fn load(&self) -> Guard<Arc<Snapshot>> {
        self.0.load()
    }

    pub(crate) fn add(&self, region: &Arc<Region>) {
        self.0.rcu(|regions| {
            let mut regions = Snapshot::clone(regions);
            let at = regions.partition_point(|other| other.addresses().start < region.addresses().start);
            regions.insert(at, region.clone());
            regions
        });
    }

    pub(crate) fn remove(&self, region: &Arc<Region>) {
        self.0.rcu(|regions| regions.iter().filter(|other| !Arc::ptr_eq(other, region)).cloned().collect::<Snapshot>());
    }
}

/// The region that an address belongs to.
pub(crate) fn find(regions: &Snapshot, address: usize) -> Option<&Arc<Region>> {
    let after = regions.partition_point(|region| region.addresses().start <= address);
    regions[..after].last().filter(|region| region.addresses().contains(&address))
}
