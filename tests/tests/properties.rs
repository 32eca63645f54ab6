//! Random histories of one thread, compared after each step with the specification; and calls with
//! arbitrary arguments, which never panic and, when they fail, change nothing (`src/calls.rs`).
//!
//! `PROPTEST_CASES` sets how many of each. A history that fails is shrunk to a short one.

use std::thread;
use std::time::Instant;

use proptest::prelude::*;
use proptest::sample::Index;
use upager::{
    Access, ByteRange, Command, DirtyRange, Evict, Guard, HeapPlatform, MAX_VMO_SIZE, OwnedFrame, PAGE_SIZE, Packet,
    PageCount, PageIndex, Pager, Platform, Port, Result, Status, Vmo, VmoOp, VmoOptions, Writeback,
};
use upager_tests::{Call, KEY, SCENE, Task, World, at, make_calls, pages, soon};
use upager_verify::spec::{self, Page, Spec, Waiter};

fn config(cases: u32) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(cases);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// The first byte of a page that a lookup finds.
fn byte_of(platform: &HeapPlatform, vmo: &Vmo<HeapPlatform>, page: u64) -> Option<u8> {
    let guard = platform.pin();
    let frame = vmo.lookup(&guard, PageIndex(page))?;
    let mut byte = [0];
    // SAFETY: the guard, from before the lookup, keeps the frame allocated; one byte lies within.
    unsafe { platform.copy_out(frame, 0, &mut byte) };
    Some(byte[0])
}

/// Waits until so many frames are left: what was retired is freed after a grace period.
fn frames_become(platform: &HeapPlatform, frames: u64) {
    let deadline = soon();
    while platform.frames() != PageCount(frames) {
        platform.pin().flush();
        assert!(Instant::now() < deadline, "{:?} are left, not {frames}", platform.frames());
        thread::yield_now();
    }
}

// Histories.

const PAGES: u64 = 8;

#[derive(Clone, Debug)]
enum Step {
    Read {
        page: u64,
        run: u64,
    },
    Write {
        page: u64,
        run: u64,
        byte: u8,
    },
    Poll(Index),
    Leave(Index),
    Supply {
        start: u64,
        end: u64,
        byte: u8,
    },
    Fail {
        start: u64,
        end: u64,
        status: Status,
    },
    Dirty {
        start: u64,
        end: u64,
    },
    Zero {
        start: u64,
        end: u64,
    },
    SetSize {
        pages: u64,
    },
    /// A fault that wants a frame.
    Store {
        page: u64,
    },
    Begin {
        start: u64,
        end: u64,
        zeros: bool,
    },
    End {
        start: u64,
        end: u64,
    },
    Evict,
    EvictUnused,
    AlwaysNeed {
        page: u64,
    },
    /// COMMIT or PREFETCH.
    Commit {
        page: u64,
        op: VmoOp,
    },
    DontNeed {
        start: u64,
        end: u64,
    },
    /// Keeps what is evicted from now on from being reclaimed, so that it can be rescued.
    Pin,
    Unpin,
    Query {
        offset: u64,
        length: u64,
        buffer: usize,
    },
    Take,
    Detach,
    Close,
}

/// A run of pages inside the VMO, which may be empty.
fn run() -> impl Strategy<Value = (u64, u64)> {
    (0..=PAGES, 0..=4u64).prop_map(|(start, count)| (start, (start + count).min(PAGES)))
}

fn step() -> impl Strategy<Value = Step> {
    let status = prop::sample::select(vec![Status::Io, Status::BadState, Status::NoSpace]);
    let bring = prop::sample::select(vec![VmoOp::Commit, VmoOp::Prefetch]);
    // One page past the end too, and a run that goes on there.
    prop_oneof![
        12 => (0..=PAGES, 1..=4u64).prop_map(|(page, run)| Step::Read { page, run }),
        12 => (0..=PAGES, 1..=4u64, any::<u8>()).prop_map(|(page, run, byte)| Step::Write { page, run, byte }),
        12 => any::<Index>().prop_map(Step::Poll),
        4 => any::<Index>().prop_map(Step::Leave),
        14 => (run(), any::<u8>()).prop_map(|((start, end), byte)| Step::Supply { start, end, byte }),
        3 => (run(), status).prop_map(|((start, end), status)| Step::Fail { start, end, status }),
        8 => run().prop_map(|(start, end)| Step::Dirty { start, end }),
        6 => run().prop_map(|(start, end)| Step::Zero { start, end }),
        3 => (0..PAGES).prop_map(|page| Step::Store { page }),
        4 => (0..=PAGES + 1).prop_map(|pages| Step::SetSize { pages }),
        6 => (run(), any::<bool>()).prop_map(|((start, end), zeros)| Step::Begin { start, end, zeros }),
        6 => run().prop_map(|(start, end)| Step::End { start, end }),
        6 => Just(Step::Evict),
        4 => Just(Step::EvictUnused),
        6 => (0..=PAGES).prop_map(|page| Step::AlwaysNeed { page }),
        4 => (0..=PAGES, bring).prop_map(|(page, op)| Step::Commit { page, op }),
        3 => run().prop_map(|(start, end)| Step::DontNeed { start, end }),
        3 => Just(Step::Pin),
        3 => Just(Step::Unpin),
        5 => (0..=PAGES * PAGE_SIZE, 0..=PAGES * PAGE_SIZE, 0..=5usize)
            .prop_map(|(offset, length, buffer)| Step::Query { offset, length, buffer }),
        8 => Just(Step::Take),
        1 => Just(Step::Detach),
        1 => Just(Step::Close),
    ]
}

/// An access that waits, here and in the specification.
struct Waiting<'v> {
    task: Task<'v, Result<u8>>,
    waiter: Waiter,
    /// How often it has gone to sleep.
    sleeps: usize,
    /// The page, if it is read. Its fault wants a frame.
    reads: Option<u64>,
}

/// The pager and the specification, side by side.
struct Pair<'v> {
    spec: Spec,
    traps: bool,
    resizes: bool,
    platform: &'v HeapPlatform,
    pager: Option<Pager<HeapPlatform>>,
    port: &'v Port<HeapPlatform>,
    vmo: &'v Vmo<HeapPlatform>,
    waiting: Vec<Waiting<'v>>,
    guard: Option<Guard>,
}

impl<'v> Pair<'v> {
    fn step(&mut self, step: &Step) {
        match *step {
            Step::Read { page, run } => {
                let vmo = self.vmo;
                let task = Task::new(async move {
                    vmo.fault_run(PageIndex(page), PageCount(run), Access::Read).await?;
                    let mut byte = [0];
                    vmo.read(at(page, 0), &mut byte).await.map(|()| byte[0])
                });
                let expected = self.spec.read(page, run);
                self.poll(task, expected, 1, Some(page));
            }
            Step::Write { page, run, byte } => {
                let vmo = self.vmo;
                // Where nobody is asked, the fault must not dirty the page before the write.
                let access = if self.traps { Access::Write } else { Access::Read };
                let task = Task::new(async move {
                    vmo.fault_run(PageIndex(page), PageCount(run), access).await?;
                    vmo.write(at(page, 0), &[byte]).await.map(|()| byte)
                });
                let expected = self.spec.write(page, run, byte);
                self.poll(task, expected, 1, None);
            }
            Step::Poll(which) if !self.waiting.is_empty() => {
                let Waiting { task, waiter, sleeps, reads } = self.waiting.remove(which.index(self.waiting.len()));
                let sleeps = sleeps + usize::from(self.spec.is_woken(&waiter));
                let expected = self.spec.resume(waiter);
                self.poll(task, expected, sleeps, reads);
            }
            Step::Leave(which) if !self.waiting.is_empty() => {
                let left = self.waiting.remove(which.index(self.waiting.len()));
                self.spec.leave(&left.waiter);
            }
            Step::Evict => {
                let size = self.spec.size();
                let clean = (0..size).filter(|page| self.spec.evict(*page)).count();
                self.spec.tell(0, size);
                assert_eq!(self.vmo.evict(PageCount(size), Evict::Any), PageCount(clean as u64));
                self.reclaim();
            }
            Step::EvictUnused => {
                let size = self.spec.size();
                let gone = (0..size).filter(|page| !self.spec.is_spared(*page) && self.spec.evict(*page)).count();
                assert_eq!(self.vmo.evict(PageCount(size), Evict::Unused), PageCount(gone as u64));
                self.reclaim();
            }
            Step::AlwaysNeed { page } => {
                let vmo = self.vmo;
                let task = Task::new(async move { vmo.always_need(pages(page, 1)).await.map(|()| 0) });
                let expected = self.spec.always_need(page);
                self.poll(task, expected, 1, None);
            }
            Step::Commit { page, op } => {
                let vmo = self.vmo;
                let task = Task::new(async move { vmo.op_range(op, pages(page, 1)).await.map(|()| 0) });
                let expected = if op == VmoOp::Commit { self.spec.commit(page) } else { self.spec.prefetch(page) };
                self.poll(task, expected, 1, None);
            }
            Step::DontNeed { start, end } if end > self.spec.size() => {
                assert_eq!(self.vmo.dont_need(pages(start, end - start)), Err(Status::OutOfRange));
            }
            Step::DontNeed { start, end } => {
                (start..end).for_each(|page| self.spec.dont_need(page));
                assert_eq!(self.vmo.dont_need(pages(start, end - start)), Ok(()));
            }
            Step::Pin => self.guard = self.guard.take().or_else(|| Some(self.platform.pin())),
            Step::Unpin => {
                self.guard = None;
                self.reclaim();
            }
            Step::SetSize { pages } if self.resizes => {
                self.spec.set_size(pages);
                assert_eq!(self.vmo.set_size(pages * PAGE_SIZE), Ok(()));
            }
            Step::SetSize { pages } => {
                assert_eq!(self.vmo.set_size(pages * PAGE_SIZE), Err(Status::Unavailable));
            }
            Step::Zero { start, end } if end > self.spec.size() => {
                let zeroed = Task::new(self.vmo.zero(pages(start, end - start))).poll();
                assert_eq!(zeroed, Some(Err(Status::OutOfRange)));
            }
            Step::Zero { start, end } => {
                (start..end).for_each(|page| self.spec.zero(page));
                self.spec.tell(start, end);
                assert_eq!(Task::new(self.vmo.zero(pages(start, end - start))).poll(), Some(Ok(())));
            }
            Step::Store { page } if matches!(self.spec.page(page), Page::Zero | Page::ZeroAwaiting) => {
                self.spec.store(page);
                assert_eq!(Task::new(self.vmo.fault(PageIndex(page), Access::Read)).poll(), Some(Ok(())));
            }
            Step::Take => self.take(),
            Step::Close => {
                if self.pager.take().is_some() {
                    self.spec.close_pager();
                }
            }
            _ => self.call_pager(step),
        }
    }

    /// The calls that need a pager.
    fn call_pager(&mut self, step: &Step) {
        let Some(pager) = &self.pager else { return };
        match *step {
            Step::Supply { start, end, .. }
            | Step::Fail { start, end, .. }
            | Step::Dirty { start, end }
            | Step::Begin { start, end, .. }
            | Step::End { start, end }
                if end > self.spec.size() =>
            {
                self.refuses(pager, step, pages(start, end - start));
            }
            Step::Supply { start, end, byte } => {
                let frames: Vec<_> = (start..end)
                    .map(|_| {
                        let frame = OwnedFrame::new(self.platform).expect("a frame");
                        frame.write(0, &[byte]).expect("fits");
                        frame
                    })
                    .collect();
                let expected = if self.spec.is_detached() { Err(Status::BadState) } else { Ok(()) };
                for page in start..end {
                    assert_eq!(self.spec.supply(page, byte), expected);
                }
                assert_eq!(pager.supply_frames(self.vmo, pages(start, end - start), frames), expected);
            }
            Step::Fail { start, end, status } => {
                self.spec.fail(start, end, status);
                assert_eq!(pager.fail_range(self.vmo, pages(start, end - start), status), Ok(()));
            }
            Step::Dirty { start, end } => {
                let expected = self.spec.dirty(start, end);
                self.spec.tell(start, end);
                assert_eq!(pager.dirty_range(self.vmo, pages(start, end - start)), expected);
            }
            Step::Begin { start, end, zeros } => {
                for page in start..end {
                    if zeros {
                        self.spec.writeback_begin_zeros(page);
                    } else {
                        self.spec.writeback_begin(page);
                    }
                }
                let which = if zeros { Writeback::ZeroRanges } else { Writeback::All };
                assert_eq!(pager.writeback_begin(self.vmo, pages(start, end - start), which), Ok(()));
            }
            Step::End { start, end } => {
                (start..end).for_each(|page| self.spec.writeback_end(page));
                assert_eq!(pager.writeback_end(self.vmo, pages(start, end - start)), Ok(()));
            }
            Step::Query { offset, length, buffer } => self.query(pager, ByteRange::new(offset, length), buffer),
            Step::Detach => {
                self.spec.detach();
                assert!(pager.detach_vmo(self.vmo).is_ok());
            }
            _ => {}
        }
    }

    /// A call for pages past the end.
    fn refuses(&self, pager: &Pager<HeapPlatform>, step: &Step, range: ByteRange) {
        let refused = match step {
            Step::Supply { start, end, .. } => {
                let frames: Vec<_> = (*start..*end).map(|_| OwnedFrame::new(self.platform).expect("a frame")).collect();
                pager.supply_frames(self.vmo, range, frames)
            }
            Step::Fail { status, .. } => pager.fail_range(self.vmo, range, *status),
            Step::Dirty { .. } if !self.traps => return,
            Step::Dirty { .. } => pager.dirty_range(self.vmo, range),
            Step::Begin { .. } => pager.writeback_begin(self.vmo, range, Writeback::All),
            _ => pager.writeback_end(self.vmo, range),
        };
        assert_eq!(refused, Err(Status::OutOfRange));
    }

    /// Polls an access, which has been sent to sleep so often if it is to wait now.
    fn poll(&mut self, mut task: Task<'v, Result<u8>>, expected: spec::Access, sleeps: usize, reads: Option<u64>) {
        if let (spec::Access::Done(_), Some(page)) = (&expected, reads) {
            self.spec.store(page);
        }
        match (task.poll(), expected) {
            (Some(Ok(byte)), spec::Access::Done(expected)) => assert_eq!(byte, expected),
            (Some(Err(status)), spec::Access::Failed(expected)) => assert_eq!(status, expected),
            (None, spec::Access::Waits(waiter)) => self.waiting.push(Waiting { task, waiter, sleeps, reads }),
            (came, expected) => panic!("{came:?}, not {expected:?}"),
        }
    }

    fn reclaim(&mut self) {
        if self.guard.is_none() {
            (0..self.spec.size()).for_each(|page| self.spec.reclaim(page));
        }
    }

    fn take(&mut self) {
        let expected: Vec<Packet> = self
            .spec
            .take()
            .into_iter()
            .map(|(command, start, count)| match command {
                Command::Read | Command::Dirty => {
                    Packet::page_request(KEY, command, start * PAGE_SIZE, count * PAGE_SIZE)
                }
                Command::Complete => Packet::page_request(KEY, command, 0, 0),
            })
            .collect();
        let mut packets = [Packet::default(); 64];
        let taken = self.port.take(&mut packets);
        assert_eq!(packets[..taken], expected);
    }

    fn query(&self, pager: &Pager<HeapPlatform>, range: ByteRange, size: usize) {
        let mut buffer = vec![DirtyRange::default(); size];
        let found = pager.query_dirty_ranges(self.vmo, range, &mut buffer);
        let end = range.offset + range.length;
        if end > self.spec.size() * PAGE_SIZE {
            assert_eq!(found, Err(Status::OutOfRange));
            return;
        }
        let found = found.expect("in range");
        let runs = self.spec.dirty_runs(range.offset / PAGE_SIZE, end.div_ceil(PAGE_SIZE));
        assert_eq!((found.actual, found.available), (runs.len().min(size), runs.len()));
        for (entry, (start, count, zero)) in buffer[..found.actual].iter().zip(runs) {
            let options = if zero { DirtyRange::ZERO } else { 0 };
            let expected = DirtyRange { offset: start * PAGE_SIZE, length: count * PAGE_SIZE, options };
            assert_eq!(*entry, expected);
        }
    }

    /// Everything that can be seen is as the specification says.
    fn compare(&self) {
        let (resident, dirty, in_flight) = self.spec.counts();
        let counts = self.vmo.counts();
        assert_eq!((counts.resident.0, counts.dirty.0, counts.in_flight), (resident, dirty, in_flight), "counts");
        assert_eq!(counts.zero.0, self.spec.zeros());
        for page in 0..=PAGES {
            let expected = match self.spec.page(page) {
                Page::Clean(byte) | Page::Dirty(byte) | Page::AwaitingClean(byte) => Some(byte),
                Page::Absent | Page::Evicting(_) | Page::Zero | Page::ZeroAwaiting => None,
            };
            assert_eq!(byte_of(self.platform, self.vmo, page), expected, "page {page}");
        }
        if let Some(pager) = &self.pager {
            self.query(pager, ByteRange::new(0, self.spec.size() * PAGE_SIZE), 8);
        }
        for Waiting { task, waiter, sleeps, .. } in &self.waiting {
            assert_eq!(task.wakes(), sleeps - usize::from(!self.spec.is_woken(waiter)), "woken once each sleep");
        }
        if self.guard.is_none() {
            frames_become(self.platform, resident);
        }
    }
}

/// Runs a history.
fn run_history(steps: &[Step], traps: bool, resizes: bool) {
    let world = World::new();
    let options = VmoOptions::from_bits(u32::from(traps) << 3 | u32::from(resizes) << 1).expect("options");
    let vmo = world.vmo_with(options, PAGES);
    let spec = if traps { Spec::trapping } else { Spec::new };
    let World { platform, pager, port } = world;
    let mut pair = Pair {
        spec: spec(usize::try_from(PAGES).expect("few")),
        traps,
        resizes,
        platform: &platform,
        pager: Some(pager),
        port: &port,
        vmo: &vmo,
        waiting: Vec::new(),
        guard: None,
    };
    for step in steps {
        pair.step(step);
        pair.compare();
    }
    drop(pair);
    drop(vmo);
    drop(port);
    frames_become(&platform, 0);
}

// Arguments.

/// A number near one of those where something may go wrong, or any other.
fn number() -> impl Strategy<Value = u64> {
    let edges = vec![0, PAGE_SIZE, 2 * PAGE_SIZE, SCENE * PAGE_SIZE, MAX_VMO_SIZE, 1 << 32, 1 << 63, u64::MAX];
    prop_oneof![
        3 => (0..=SCENE).prop_map(|page| page * PAGE_SIZE),
        2 => (prop::sample::select(edges), -2..=2i64).prop_map(|(edge, by)| edge.wrapping_add_signed(by)),
        1 => any::<u64>().prop_map(|any| any / PAGE_SIZE * PAGE_SIZE),
        1 => any::<u64>(),
    ]
}

fn range() -> impl Strategy<Value = ByteRange> {
    (number(), number()).prop_map(|(offset, length)| ByteRange::new(offset, length))
}

fn call() -> impl Strategy<Value = Call> {
    let length = || prop_oneof![0..=2usize, 4094..=4098usize, 0..=20_000usize];
    let access = prop::sample::select(vec![Access::Read, Access::Write]);
    let evict = || prop::sample::select(vec![Evict::Any, Evict::Unused]);
    let writeback = prop::sample::select(vec![Writeback::All, Writeback::ZeroRanges]);
    let data = prop_oneof![number(), (-60..=2i64).prop_map(i64::cast_unsigned)];
    let page = || prop_oneof![0..=SCENE + 1, number()];
    let run = prop_oneof![Just(1), number()];
    let key = || prop_oneof![0..=4u64, number()];
    let of_the_vmo = prop_oneof![
        (number(), length()).prop_map(|(offset, length)| Call::Read(offset, length)),
        (number(), length()).prop_map(|(offset, length)| Call::Write(offset, length)),
        (page(), run, access).prop_map(|(page, run, access)| Call::Fault { page, run, access }),
        page().prop_map(Call::Lookup),
        page().prop_map(Call::PinLookup),
        range().prop_map(Call::Zero),
        number().prop_map(Call::SetSize),
        (number(), evict()).prop_map(|(max, which)| Call::Evict(max, which)),
        (prop_oneof![0..=16u32, any::<u32>()], range()).prop_map(|(op, range)| Call::Hint(op, range)),
    ];
    let of_the_pager = prop_oneof![
        2 => (range(), 0..=6usize).prop_map(|(range, frames)| Call::Supply(range, frames)),
        2 => (range(), prop_oneof![-60..=1i32, any::<i32>()]).prop_map(|(range, status)| Call::Fail(range, status)),
        2 => range().prop_map(Call::Dirty),
        2 => (range(), writeback).prop_map(|(range, which)| Call::Begin(range, which)),
        2 => range().prop_map(Call::End),
        2 => (prop_oneof![0..=6u32, any::<u32>()], data, range())
            .prop_map(|(op, data, range)| Call::Op { op, data, range }),
        2 => (range(), 0..=3usize).prop_map(|(range, size)| Call::Query(range, size)),
        2 => prop_oneof![0..=3u32, any::<u32>()].prop_map(Call::Stats),
        1 => Just(Call::Detach),
        2 => (number(), evict()).prop_map(|(max, which)| Call::EvictOfAll(max, which)),
        2 => (range(), number()).prop_map(|(to, from)| Call::SupplyPages(to, from)),
        2 => (prop_oneof![0..=16u32, any::<u32>()], number())
            .prop_map(|(options, size)| Call::Create { options, size }),
    ];
    let of_the_rest = prop_oneof![
        (key(), prop_oneof![2 => Just(0), 1 => any::<u32>()], any::<i32>())
            .prop_map(|(key, packet_type, status)| Call::Queue { key, packet_type, status }),
        key().prop_map(Call::Cancel),
        (0..=3usize).prop_map(Call::Take),
        (0..=3usize).prop_map(Call::WaitInThePast),
        (number(), prop::option::of(number())).prop_map(|(now, time_out)| Call::Look { now, time_out }),
        (number(), length()).prop_map(|(offset, length)| Call::FrameWrite(offset, length)),
        number().prop_map(Call::Numbers),
    ];
    let of_the_aux = prop_oneof![
        (number(), length()).prop_map(|(offset, length)| Call::AuxRead(offset, length)),
        (number(), length()).prop_map(|(offset, length)| Call::AuxWrite(offset, length)),
        range().prop_map(Call::AuxCommit),
        range().prop_map(Call::AuxDecommit),
        range().prop_map(Call::AuxZero),
        range().prop_map(Call::AuxPin),
        number().prop_map(Call::AuxNew),
    ];
    prop_oneof![8 => of_the_vmo, 10 => of_the_pager, 4 => of_the_aux, 5 => of_the_rest]
}

proptest! {
    #![proptest_config(config(256))]

    #[test]
    fn a_history_of_one_thread_is_that_of_the_specification(steps in prop::collection::vec(step(), 1..100)) {
        run_history(&steps, false, false);
    }

    #[test]
    fn so_is_a_history_of_a_vmo_that_traps_dirtying(steps in prop::collection::vec(step(), 1..100)) {
        run_history(&steps, true, false);
    }

    #[test]
    fn so_is_a_history_of_a_vmo_that_is_resized(
        steps in prop::collection::vec(step(), 1..100),
        traps in any::<bool>(),
    ) {
        run_history(&steps, traps, true);
    }

    #[test]
    fn no_argument_panics_and_no_failed_call_changes_anything(
        calls in prop::collection::vec((any::<u8>(), call()), 1..40),
    ) {
        make_calls(&calls);
    }
}
