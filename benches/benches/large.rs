//! What must not depend on the size of a VMO.
//!
//! - `large/query`: a query of the dirty runs of a VMO of 1 TiB that has grown twice, with three pages stored.
//! - `detach/requests`: detach with so many requests in flight, each with one waiter, for a VMO of 1 GiB.
//!   Per request it is to be the same.
//! - `detach/size`: detach with 10,000 requests in flight, for a VMO of 1 GiB and one of 1 TiB. It is to
//!   be the same.
//!
//! A detach is measured without what its waiters do afterwards, and without making the VMO.

use std::hint::black_box;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use upager::{Access, ByteRange, DirtyRange, PAGE_SIZE, PageIndex, Pager, Port, VmoOptions, block_on};
use upager_benches::{Numbers, Wakes};

const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

fn query(criterion: &mut Criterion) {
    let platform = Arc::new(Numbers::default());
    let (pager, port) = (Pager::new(platform.clone()), Port::new(platform));
    let vmo = pager.create_vmo(&port, 1, VmoOptions::RESIZABLE, TIB).expect("memory for a VMO");
    vmo.set_size(TIB + 5 * PAGE_SIZE).expect("memory for the table");
    vmo.set_size(2 * TIB + 777 * PAGE_SIZE).expect("memory for the table");
    for page in [TIB / PAGE_SIZE, TIB / PAGE_SIZE * 3 / 2, 2 * TIB / PAGE_SIZE] {
        block_on(vmo.fault(PageIndex(page), Access::Write)).expect("zeros are stored");
    }
    let mut runs = [DirtyRange::default(); 16];
    let mut group = criterion.benchmark_group("large/query");
    group.bench_function("upager", |bencher| {
        bencher.iter(|| {
            let found = pager.query_dirty_ranges(&vmo, ByteRange::new(0, vmo.size()), black_box(&mut runs));
            assert_eq!(found.map(|found| found.available), Ok(6));
        });
    });
}

/// One detach of a VMO of this size with so many requests in flight, spread over it.
fn detach(size: u64, requests: u64, woken: &Arc<Wakes>) -> Duration {
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
    let start = Instant::now();
    let detached = pager.detach_vmo(&vmo);
    let elapsed = start.elapsed();
    assert_eq!(detached.map(|detached| detached.failed_requests), Ok(requests));
    elapsed
}

fn detaches(criterion: &mut Criterion) {
    let woken = Wakes::new();
    let mut group = criterion.benchmark_group("detach/requests");
    for requests in [1_000, 10_000, 100_000] {
        group.throughput(Throughput::Elements(requests));
        group.bench_function(BenchmarkId::from_parameter(requests), |bencher| {
            bencher.iter_custom(|rounds| (0..rounds).map(|_| detach(GIB, requests, &woken)).sum());
        });
    }
    group.finish();
    let mut group = criterion.benchmark_group("detach/size");
    for (name, size) in [("1 GiB", GIB), ("1 TiB", TIB)] {
        group.throughput(Throughput::Elements(10_000));
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|rounds| (0..rounds).map(|_| detach(size, 10_000, &woken)).sum());
        });
    }
}

criterion_group! {
    name = large;
    config = Criterion::default().sample_size(20).warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3)).without_plots();
    targets = query, detaches
}
criterion_main!(large);
