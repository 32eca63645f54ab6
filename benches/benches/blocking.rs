//! Missing faults with somebody asleep: there and back between two threads.
//!
//! One thread faults pages, one after the other, and blocks on each. Another is the service: it waits
//! for requests and answers them.
//!
//! | group | where the two run |
//! | --- | --- |
//! | `blocking/one_core` | both on one processor: each must sleep for the other to go on |
//! | `blocking/two_cores` | each on a processor of its own: both sleep |
//! | `blocking/spinning` | the same, and neither sleeps: each looks until there is something |
//!
//! The floor is `futex`: two threads that pass a word to and fro by bare system calls, and with
//! `blocking/spinning` two words without any. It wakes without looking whether anybody sleeps, since
//! here somebody always does. The peers are the [pagers from parts](upager_benches::Misses):
//! `dashmap_channel_park` and `btreemap_mpsc`, whose threads wait on condition variables. With one
//! processor only the first group is measured.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::task::{Context, Poll, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use upager::{Access, OwnedFrame, PACKET_TYPE_USER, Packet, PageIndex, block_on};
use upager_benches::{Locked, Misses, Path, Processor, Sleeper, Stack, World, config, timed};

/// Faults in a round.
const FAULTS: u32 = 256;

/// How the two threads run.
#[derive(Clone, Copy, Debug)]
struct Where {
    faulter: Processor,
    service: Processor,
    spins: bool,
}

/// Runs the two, and returns how long the faulter took.
fn both(at: Where, faulter: impl FnOnce() + Send, service: impl FnOnce() + Send) -> Duration {
    thread::scope(|scope| {
        scope.spawn(|| {
            at.service.keep_to();
            service();
        });
        let faulter = scope.spawn(|| {
            at.faulter.keep_to();
            timed(faulter).1
        });
        faulter.join().expect("it does not panic")
    })
}

fn upager(world: &World, at: Where) -> Duration {
    let service = || {
        let mut packets = [Packet::default()];
        loop {
            if at.spins {
                while world.port.take(&mut packets) == 0 {
                    std::hint::spin_loop();
                }
            } else {
                assert_eq!(world.port.wait_until(None, &mut packets), Ok(1));
            }
            if packets[0].packet_type == PACKET_TYPE_USER {
                return;
            }
            let frame = OwnedFrame::new(&*world.platform).expect("frames are numbers");
            assert_eq!(world.pager.supply_frames(&world.vmo, packets[0].range(), [frame]), Ok(()));
        }
    };
    let faulter = || {
        for page in 0..FAULTS {
            let mut fault = world.vmo.fault(PageIndex(page.into()), Access::Read);
            if at.spins {
                let mut task = Context::from_waker(Waker::noop());
                while Pin::new(&mut fault).poll(&mut task) == Poll::Pending {
                    std::hint::spin_loop();
                }
            } else {
                assert_eq!(block_on(fault), Ok(()));
            }
        }
        world.port.queue(&Packet::user(0, [0; 32])).expect("memory for a packet");
    };
    let elapsed = both(at, faulter, service);
    world.evict(FAULTS as usize);
    elapsed
}

fn peer<M: Misses>(pager: &M, at: Where) -> Duration {
    let service = || {
        for frame in 0..FAULTS {
            let request = loop {
                match pager.take() {
                    Some(request) => break request,
                    None if at.spins => std::hint::spin_loop(),
                    None => break pager.wait(),
                }
            };
            pager.supply(&request, frame.into());
        }
    };
    let faulter = || {
        for page in 0..FAULTS {
            let request = pager.fault(page.into(), Waker::noop()).expect_err("the page is absent");
            if at.spins {
                while request.frame().is_none() {
                    std::hint::spin_loop();
                }
            } else {
                M::Sleeper::sleep(&request);
            }
        }
    };
    let elapsed = both(at, faulter, service);
    (0..FAULTS).for_each(|page| pager.evict(page.into()));
    elapsed
}

/// Two words, each of which one of the two threads counts up.
#[derive(Default)]
struct Words {
    there: Line,
    back: Line,
}

#[derive(Default)]
#[repr(align(128))]
struct Line(AtomicU32);

impl Line {
    fn set(&self, to: u32, spins: bool) {
        self.0.store(to, Release);
        if !spins {
            let wake = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
            // SAFETY: the word outlives the call.
            unsafe { libc::syscall(libc::SYS_futex, self.0.as_ptr(), wake, 1) };
        }
    }

    fn wait_for(&self, value: u32, spins: bool) {
        while self.0.load(Acquire) != value {
            if spins {
                std::hint::spin_loop();
                continue;
            }
            let wait = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
            let forever: *const libc::timespec = std::ptr::null();
            // SAFETY: the word outlives the call.
            unsafe { libc::syscall(libc::SYS_futex, self.0.as_ptr(), wait, value.wrapping_sub(1), forever) };
        }
    }
}

fn futex(words: &Words, at: Where) -> Duration {
    let begin = words.there.0.load(Relaxed); // Relaxed: nobody else is here yet
    let turns = begin + 1..=begin + FAULTS;
    let service = || {
        for turn in turns.clone() {
            words.there.wait_for(turn, at.spins);
            words.back.set(turn, at.spins);
        }
    };
    let faulter = || {
        for turn in turns.clone() {
            words.there.set(turn, at.spins);
            words.back.wait_for(turn, at.spins);
        }
    };
    both(at, faulter, service)
}

fn group(criterion: &mut Criterion, name: &str, at: Where) {
    let mut path = Path::new(criterion, name, FAULTS.into());
    path.measure("futex", Words::default, |words| futex(words, at));
    path.measure("upager", || World::empty(FAULTS), |world| upager(world, at));
    path.measure("dashmap_channel_park", || Stack::<Thread>::new(std::iter::empty()), |pager| peer(pager, at));
    path.measure("btreemap_mpsc", || Locked::new(std::iter::empty()), |pager| peer(pager, at));
}

fn blocking(criterion: &mut Criterion) {
    let processors = Processor::all();
    let &[faulter, ref rest @ ..] = &processors[..] else { return };
    group(criterion, "blocking/one_core", Where { faulter, service: faulter, spins: false });
    if let &[service, ..] = rest {
        group(criterion, "blocking/two_cores", Where { faulter, service, spins: false });
        group(criterion, "blocking/spinning", Where { faulter, service, spins: true });
    }
}

criterion_group! {
    name = sleeps;
    config = config();
    targets = blocking
}
criterion_main!(sleeps);
