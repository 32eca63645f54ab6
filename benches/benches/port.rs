//! A port with many VMOs; time by packet.
//!
//! - `port/all_N`: each of N VMOs has one request; the service takes them all, 16 at a time.
//! - `port/one_of_N`: one of N VMOs has a request; a take finds it. Another one each time.
//!
//! Unlike the peers it is fair: it goes round the VMOs. `crossbeam_channel` and `mutex_deque` are one
//! queue for all. What is measured is the taking, not the faults.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use upager::{Access, PAGE_SIZE, Packet, PageIndex, Pager, Port, Vmo, VmoOptions};
use upager_benches::{Numbers, Path, config, shuffled, timed};

struct Many {
    port: Port<Numbers>,
    vmos: Vec<Vmo<Numbers>>,
    order: Vec<u32>,
    _pager: Pager<Numbers>,
}

impl Many {
    fn new(vmos: u32) -> Self {
        let platform = Arc::new(Numbers::default());
        let (pager, port) = (Pager::new(platform.clone()), Port::new(platform));
        let vmo = |key| pager.create_vmo(&port, key, VmoOptions::NONE, PAGE_SIZE).expect("memory for a VMO");
        let vmos = (0..u64::from(vmos)).map(vmo).collect::<Vec<_>>();
        Self { order: shuffled(u32::try_from(vmos.len()).unwrap_or(0)), port, vmos, _pager: pager }
    }

    /// A request in each of these VMOs, for as long as `take` runs.
    fn with_requests(&self, vmos: &[u32], take: impl FnOnce() -> Duration) -> Duration {
        let mut task = Context::from_waker(Waker::noop());
        let mut faults: Vec<_> =
            vmos.iter().map(|vmo| self.vmos[*vmo as usize].fault(PageIndex(0), Access::Read)).collect();
        for fault in &mut faults {
            assert_eq!(Pin::new(fault).poll(&mut task), Poll::Pending);
        }
        take() // the faults leave then, which withdraws the requests
    }

    fn take(&self, requests: u32) -> Duration {
        let mut packets = [Packet::default(); 16];
        let (taken, elapsed) = timed(|| {
            let mut taken = 0;
            while taken < requests as usize {
                taken += self.port.take(&mut packets);
            }
            taken
        });
        assert_eq!(taken, requests as usize);
        elapsed
    }
}

/// Requests that `port/one_of_N` takes in a round, one after the other.
const ONES: u32 = 64;

fn ports(criterion: &mut Criterion) {
    for vmos in [1, 10, 100, 1_000, 10_000] {
        let mut path = Path::new(criterion, &format!("port/all_{vmos}"), vmos.into());
        path.measure("upager", || Many::new(vmos), |many| many.with_requests(&many.order, || many.take(vmos)));
        path.measure("crossbeam_channel", crossbeam_channel::unbounded, |(sender, receiver)| {
            (0..vmos).for_each(|vmo| sender.send(packet(vmo)).expect("the receiver is here"));
            timed(|| (0..vmos).for_each(|_| assert!(receiver.try_recv().is_ok()))).1
        });
        path.measure("mutex_deque", Mutex::<VecDeque<Packet>>::default, |queue| {
            let queue = &*queue;
            let lock = || queue.lock().unwrap_or_else(PoisonError::into_inner);
            lock().extend((0..vmos).map(packet));
            timed(|| (0..vmos).for_each(|_| assert!(lock().pop_front().is_some()))).1
        });
        drop(path);

        let mut path = Path::new(criterion, &format!("port/one_of_{vmos}"), ONES.into());
        let mut turn = 0;
        path.measure(
            "upager",
            || Many::new(vmos),
            |many| {
                let one = |_| {
                    turn = (turn + 1) % many.vmos.len();
                    many.with_requests(&many.order[turn..=turn], || many.take(1))
                };
                (0..ONES).map(one).sum()
            },
        );
    }
}

fn packet(vmo: u32) -> Packet {
    Packet::page_request(vmo.into(), upager::Command::Read, 0, PAGE_SIZE)
}

criterion_group! {
    name = takes;
    config = config();
    targets = ports
}
criterion_main!(takes);
