//! Detach, which must cost what is in flight and not the size of the VMO; and a query, which must not
//! either.
//!
//! - `detach/in_flight_N`: with N requests in flight, each with one waiter, spread over a VMO of 1 GiB;
//!   by request.
//! - `detach/size_S`: with 100 requests in flight, for a VMO of 1 MiB, 1 GiB and 1 TiB; by request. It
//!   is to be the same for all three.
//! - `detach/query`: not a detach: a query of the dirty runs of a VMO of 1 TiB that has grown twice, with
//!   three pages stored; by run.
//!
//! A detach is measured without what its waiters do afterwards, and without making the VMO. The peers
//! are the [pagers from parts](upager_benches::Misses), which cannot be detached: for each of their
//! requests they set its outcome and wake its faulter, and then they are empty. A request that
//! comes meanwhile would be lost.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use upager::{Access, ByteRange, DirtyRange, PAGE_SIZE, PageIndex, Pager, Port, VmoOptions, block_on};
use upager_benches::{Locked, Misses, Numbers, Path, Stack, Wakes, config, timed};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// One detach of a VMO of this size with so many requests in flight, spread over it.
fn upager(size: u64, requests: u64, woken: &Arc<Wakes>) -> Duration {
    let platform = Arc::new(Numbers::default());
    let (pager, port) = (Pager::new(platform.clone()), Port::new(platform));
    let vmo = pager.create_vmo(&port, 1, VmoOptions::NONE, size).expect("memory for a VMO");
    let waker = woken.waker();
    let mut task = Context::from_waker(&waker);
    // Two pages apart, in groups as dense in the one VMO as in the other: the table's leaves are the same.
    let mut faults: Vec<_> = (0..requests).map(|nth| vmo.fault(PageIndex(nth * 2), Access::Read)).collect();
    for fault in &mut faults {
        assert_eq!(Pin::new(fault).poll(&mut task), Poll::Pending);
    }
    let (detached, elapsed) = timed(|| pager.detach_vmo(&vmo));
    assert_eq!(detached.map(|detached| detached.failed_requests), Ok(requests));
    assert_eq!(woken.take() as u64, requests);
    elapsed
}

fn peer<M: Misses>(requests: u64, woken: &Arc<Wakes>) -> Duration {
    let waker = woken.waker();
    let pager = M::new(std::iter::empty());
    let faults: Vec<_> = (0..requests).map(|nth| pager.fault(nth * 2, &waker)).collect();
    let (failed, elapsed) = timed(|| pager.detach());
    assert_eq!(failed, requests);
    drop(faults);
    woken.take();
    elapsed
}

fn detach(criterion: &mut Criterion) {
    let woken = Wakes::new();
    for requests in [1, 10, 100, 1_000, 10_000, 100_000] {
        let mut path = Path::new(criterion, &format!("detach/in_flight_{requests}"), requests);
        path.measure("upager", || (), |()| upager(GIB, requests, &woken));
        path.measure("dashmap_channel", || (), |()| peer::<Stack<Waker>>(requests, &woken));
        path.measure("btreemap_mpsc", || (), |()| peer::<Locked>(requests, &woken));
    }
    for (name, size) in [("1_mib", MIB), ("1_gib", GIB), ("1_tib", TIB)] {
        let mut path = Path::new(criterion, &format!("detach/size_{name}"), 100);
        path.measure("upager", || (), |()| upager(size, 100, &woken));
    }
}

fn query(criterion: &mut Criterion) {
    let large = || {
        let platform = Arc::new(Numbers::default());
        let (pager, port) = (Pager::new(platform.clone()), Port::new(platform));
        let vmo = pager.create_vmo(&port, 1, VmoOptions::RESIZABLE, TIB).expect("memory for a VMO");
        vmo.set_size(TIB + 5 * PAGE_SIZE).expect("memory for the table");
        vmo.set_size(2 * TIB + 777 * PAGE_SIZE).expect("memory for the table");
        for page in [TIB / PAGE_SIZE, TIB / PAGE_SIZE * 3 / 2, 2 * TIB / PAGE_SIZE] {
            block_on(vmo.fault(PageIndex(page), Access::Write)).expect("zeros are stored");
        }
        (pager, port, vmo)
    };
    let mut runs = [DirtyRange::default(); 16];
    let mut path = Path::new(criterion, "detach/query", 6);
    path.measure("upager", large, |(pager, _, vmo)| {
        let all = ByteRange::new(0, vmo.size());
        let (found, elapsed) = timed(|| pager.query_dirty_ranges(vmo, all, std::hint::black_box(&mut runs)));
        assert_eq!(found.map(|found| found.available), Ok(6));
        elapsed
    });
}

criterion_group! {
    name = detaches;
    config = config();
    targets = detach, query
}
criterion_main!(detaches);
