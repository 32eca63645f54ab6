//! Calls with arbitrary arguments, each on its own: none panics, each comes to what its arguments and
//! the plainest state (size, detached or not) say, and one that fails has changed nothing.
//!
//! `tests/properties.rs` makes the calls by proptest, `ci/fuzz` from the bytes of a fuzzer. Every public call of
//! [`Pager`], [`Vmo`], [`AnonymousVmo`], [`Port`] and [`Watch`] is here, in a VMO that is plain and in one that traps dirtying and
//! is resizable. Closing is at the end of each.
//!
//! What a call that fails may change all the same is what its documentation says: an access that had
//! to wait, or failed for a page in the middle, has done a prefix; and leave that is refused has told those
//! who wait to look again, and kept pages that were on their way out.

use std::cell::Cell;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use upager::{
    Access, AnonymousVmo, ByteOffset, ByteRange, Command, DirtyRange, Evict, Frame, Guard, HeapPlatform, MAX_VMO_SIZE,
    OwnedFrame, PACKET_TYPE_USER, PAGE_SIZE, Packet, PageCount, PageIndex, PageRequest, Pager, PagerOp, Platform, Port,
    Result, Status, Vmo, VmoCounts, VmoOp, VmoOptions, VmoStats, VmoStatsOptions, Watch, WatchLimits, Writeback,
};

use crate::task::Task;
use crate::world::{pages, soon};

/// Pages of each VMO at first.
pub const SCENE: u64 = 6;
/// Pages of the aux VMO.
const AUX: u64 = 4;
/// The page of it that is pinned.
const PINNED: u64 = 2;
/// The keys of the VMOs; the next is that of those that are created and dropped.
const KEYS: [u64; 2] = [1, 2];

/// One call. Numbers stand for what the call takes, raw.
#[derive(Clone, Debug)]
pub enum Call {
    Read(u64, usize),
    Write(u64, usize),
    Fault {
        page: u64,
        run: u64,
        access: Access,
    },
    Lookup(u64),
    PinLookup(u64),
    Zero(ByteRange),
    SetSize(u64),
    Evict(u64, Evict),
    Supply(ByteRange, usize),
    Fail(ByteRange, i32),
    Dirty(ByteRange),
    Begin(ByteRange, Writeback),
    End(ByteRange),
    Op {
        op: u32,
        data: u64,
        range: ByteRange,
    },
    Query(ByteRange, usize),
    Stats(u32),
    Detach,
    EvictOfAll(u64, Evict),
    Hint(u32, ByteRange),
    /// From the aux, at this offset.
    SupplyPages(ByteRange, u64),
    AuxRead(u64, usize),
    AuxWrite(u64, usize),
    AuxCommit(ByteRange),
    AuxDecommit(ByteRange),
    AuxZero(ByteRange),
    /// And lets it go at once.
    AuxPin(ByteRange),
    AuxNew(u64),
    Create {
        options: u32,
        size: u64,
    },
    Queue {
        key: u64,
        packet_type: u32,
        status: i32,
    },
    Cancel(u64),
    Take(usize),
    WaitInThePast(usize),
    Look {
        now: u64,
        time_out: Option<u64>,
    },
    FrameWrite(u64, usize),
    Numbers(u64),
}

/// Two VMOs with a page in each state: absent, requested, clean, dirty, awaiting clean, evicting. In the
/// one that traps dirtying a writer waits for the clean page.
struct Scene {
    platform: Arc<HeapPlatform>,
    pager: Pager<HeapPlatform>,
    stranger: Pager<HeapPlatform>,
    port: Port<HeapPlatform>,
    /// Its page 1 has content, its page 2 is pinned.
    aux: AnonymousVmo<HeapPlatform>,
    /// How often COMPLETE came, of each VMO.
    completes: [Cell<u64>; 2],
    detached: [Cell<bool>; 2],
    /// Keeps the pages that are being evicted.
    _guard: Guard,
}

impl std::fmt::Debug for Scene {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scene").finish_non_exhaustive()
    }
}

/// All of a VMO that a call could change.
#[derive(PartialEq, Debug)]
struct Snapshot {
    size: u64,
    counts: VmoCounts,
    content: Vec<Option<Vec<u8>>>,
    dirty: Vec<DirtyRange>,
    stats: VmoStats,
    committed: PageCount,
    frames: PageCount,
    wakes: Vec<usize>,
}

/// How much of a snapshot a failed call must leave as it was.
#[derive(Clone, Copy, PartialEq)]
enum Same {
    All,
    /// What is dirty, the size, the statistics, and the bytes that were there.
    Content,
    Size,
}

type Waiters<'v> = Vec<Task<'v, Result<()>>>;

fn content_of(platform: &HeapPlatform, vmo: &Vmo<HeapPlatform>, page: u64) -> Option<Vec<u8>> {
    let guard = platform.pin();
    let frame = vmo.lookup(&guard, PageIndex(page))?;
    let mut bytes = vec![0; 4096];
    // SAFETY: the guard, from before the lookup, keeps the frame allocated; the copy is a page.
    unsafe { platform.copy_out(frame, 0, &mut bytes) };
    Some(bytes)
}

/// What the range of a call comes to, in a VMO of this size.
fn verdict(range: ByteRange, size: u64, aligned: bool) -> Result<()> {
    let misaligned = !range.offset.is_multiple_of(PAGE_SIZE) || !range.length.is_multiple_of(PAGE_SIZE);
    if aligned && misaligned {
        Err(Status::InvalidArgs)
    } else if u128::from(range.offset) + u128::from(range.length) > u128::from(size) {
        Err(Status::OutOfRange)
    } else {
        Ok(())
    }
}

fn touches_the_pinned(range: ByteRange) -> bool {
    range.offset < (PINNED + 1) * PAGE_SIZE && PINNED * PAGE_SIZE < range.offset.saturating_add(range.length)
}

fn writeback(data: u64) -> Writeback {
    if data == 0 { Writeback::All } else { Writeback::ZeroRanges }
}

impl Scene {
    fn new() -> (Self, [Vmo<HeapPlatform>; 2]) {
        let platform = Arc::new(HeapPlatform::new());
        let [pager, stranger] = [(); 2].map(|()| Pager::new(platform.clone()));
        let port = Port::new(platform.clone());
        let both = VmoOptions::RESIZABLE | VmoOptions::TRAP_DIRTY;
        let vmos = [(KEYS[0], VmoOptions::NONE), (KEYS[1], both)]
            .map(|(key, options)| pager.create_vmo(&port, key, options, SCENE * PAGE_SIZE).expect("a VMO"));
        let guard = platform.pin();
        let (completes, detached) = Default::default();
        let aux = AnonymousVmo::new(platform.clone(), AUX * PAGE_SIZE).expect("memory");
        aux.write(ByteOffset(PAGE_SIZE), &[9; 8]).expect("memory");
        let scene = Self { platform, pager, stranger, port, aux, completes, detached, _guard: guard };
        for vmo in &vmos {
            let supply = |first, count: u64| {
                scene.supply(&scene.pager, vmo, pages(first, count), usize::try_from(count).expect("few"))
            };
            supply(5, 1).expect("attached");
            vmo.evict(PageCount(1), Evict::Any);
            supply(3, 2).expect("attached");
            for page in 3..5 {
                let _ = Task::new(vmo.fault(PageIndex(page), Access::Write)).poll();
            }
            let _ = scene.pager.dirty_range(vmo, pages(3, 2)); // where it traps
            scene.pager.writeback_begin(vmo, pages(4, 1), Writeback::All).expect("in range");
            supply(2, 1).expect("attached");
        }
        (scene, vmos)
    }

    fn snapshot(&self, vmo: &Vmo<HeapPlatform>, waiters: &Waiters<'_>) -> Snapshot {
        let mut dirty = vec![DirtyRange::default(); 64];
        let whole = ByteRange::new(0, vmo.size());
        let found = self.pager.query_dirty_ranges(vmo, whole, &mut dirty).expect("in range");
        dirty.truncate(found.actual);
        Snapshot {
            size: vmo.size(),
            counts: vmo.counts(),
            content: (0..SCENE + 2).map(|page| content_of(&self.platform, vmo, page)).collect(),
            dirty,
            stats: self.pager.query_vmo_stats(vmo, VmoStatsOptions::Keep).expect("its pager"),
            committed: self.aux.committed(),
            frames: self.platform.frames(),
            wakes: waiters.iter().map(Task::wakes).collect(),
        }
    }

    fn supply(&self, pager: &Pager<HeapPlatform>, vmo: &Vmo<HeapPlatform>, to: ByteRange, frames: usize) -> Result<()> {
        let frames: Vec<_> = (0..frames).map(|_| OwnedFrame::new(&*self.platform).expect("a frame")).collect();
        pager.supply_frames(vmo, to, frames)
    }

    /// What an access comes to, unless it waits.
    fn access(&self, which: usize, in_range: Result<()>, came: Option<Result<()>>) -> Result<()> {
        let Some(came) = came else {
            assert!(!self.detached[which].get(), "it waits, though the VMO is detached");
            assert_eq!(in_range, Ok(()));
            return Ok(());
        };
        if in_range == Ok(()) && self.detached[which].get() {
            assert!(matches!(came, Ok(()) | Err(Status::BadState)), "{came:?}");
        } else {
            assert_eq!(came, in_range);
        }
        came
    }

    /// Makes the call, and checks its result where arguments, size and detach decide it.
    fn call(&self, which: usize, vmo: &Vmo<HeapPlatform>, call: &Call) -> Result<()> {
        let size = vmo.size();
        match *call {
            Call::Read(offset, length) => {
                let mut bytes = vec![0; length];
                let came = Task::new(vmo.read(ByteOffset(offset), &mut bytes)).poll();
                self.access(which, verdict(ByteRange::new(offset, length as u64), size, false), came)
            }
            Call::Write(offset, length) => {
                let came = Task::new(vmo.write(ByteOffset(offset), &vec![7; length])).poll();
                self.access(which, verdict(ByteRange::new(offset, length as u64), size, false), came)
            }
            Call::Zero(range) => {
                let came = Task::new(vmo.zero(range)).poll();
                self.access(which, verdict(range, size, false), came)
            }
            Call::Fault { page, run, access } => {
                let came = if run == 1 {
                    Task::new(vmo.fault(PageIndex(page), access)).poll()
                } else {
                    Task::new(vmo.fault_run(PageIndex(page), PageCount(run), access)).poll()
                };
                let in_range = if page < size / PAGE_SIZE { Ok(()) } else { Err(Status::OutOfRange) };
                self.access(which, in_range, came)
            }
            Call::Lookup(page) => {
                let found = vmo.lookup(&self.platform.pin(), PageIndex(page)).is_some();
                assert!(!found || page < size / PAGE_SIZE);
                found.then_some(()).ok_or(Status::NotFound)
            }
            Call::PinLookup(page) => {
                let found = vmo.pin_lookup(PageIndex(page)).map(|(_, frame)| frame);
                assert_eq!(found, vmo.lookup(&self.platform.pin(), PageIndex(page)));
                found.map(drop).ok_or(Status::NotFound)
            }
            Call::SetSize(to) => {
                let came = vmo.set_size(to);
                let expected = match which {
                    0 => Err(Status::Unavailable),
                    _ if to > MAX_VMO_SIZE => Err(Status::OutOfRange),
                    _ => Ok(()),
                };
                assert_eq!(came, expected);
                assert_eq!(vmo.size(), if came.is_ok() { to.next_multiple_of(PAGE_SIZE) } else { size });
                came
            }
            Call::Evict(max, which) => {
                assert!(vmo.evict(PageCount(max), which).0 <= max);
                Ok(())
            }
            Call::Hint(raw, range) => {
                let op = VmoOp::from_raw(raw)?;
                let came = Task::new(vmo.op_range(op, range)).poll();
                match op {
                    VmoOp::Decommit => assert_eq!(came, Some(Err(Status::NotSupported))),
                    // Best effort: it fails for its range only.
                    VmoOp::Prefetch if came.is_some() => assert_eq!(came, Some(verdict(range, size, false))),
                    VmoOp::DontNeed => assert_eq!(came, Some(verdict(range, size, false))),
                    _ => return self.access(which, verdict(range, size, false), came),
                }
                came.unwrap_or(Ok(()))
            }
            _ => self.call_pager(which, vmo, call),
        }
    }

    /// The calls that a pager makes.
    fn call_pager(&self, which: usize, vmo: &Vmo<HeapPlatform>, call: &Call) -> Result<()> {
        let (size, detached) = (vmo.size(), self.detached[which].get());
        let attached = if detached { Err(Status::BadState) } else { Ok(()) };
        match *call {
            Call::Supply(range, frames) => {
                let came = self.supply(&self.pager, vmo, range, frames);
                let fits = range.length / PAGE_SIZE == frames as u64;
                let fits = if fits { Ok(()) } else { Err(Status::InvalidArgs) };
                assert_eq!(came, verdict(range, size, true).and(fits).and(attached));
                came
            }
            Call::Fail(range, raw) => {
                let Some(status) = Status::from_raw(raw) else { return Ok(()) };
                let came = self.pager.fail_range(vmo, range, status);
                let expected = if status.may_fail_a_request() { Ok(()) } else { Err(Status::InvalidArgs) };
                assert_eq!(came, expected.and(verdict(range, size, true)));
                came
            }
            Call::Dirty(range) => self.leave(which, vmo, range, |pager| pager.dirty_range(vmo, range)),
            Call::Begin(range, which) => {
                let came = self.pager.writeback_begin(vmo, range, which);
                assert_eq!(came, verdict(range, size, true));
                came
            }
            Call::End(range) => {
                let came = self.pager.writeback_end(vmo, range);
                assert_eq!(came, verdict(range, size, true));
                came
            }
            Call::Op { op: raw, data, range } => {
                let op = PagerOp::from_raw(raw, data)?;
                let expected = match op {
                    PagerOp::Dirty => return self.leave(which, vmo, range, |pager| pager.op_range(vmo, op, range)),
                    PagerOp::Fail(status) => {
                        assert_eq!((raw, status as i64), (1, data.cast_signed()));
                        verdict(range, size, true)
                    }
                    PagerOp::WritebackBegin(which) => {
                        assert_eq!((raw, which), (3, writeback(data)));
                        verdict(range, size, true)
                    }
                    PagerOp::WritebackEnd => verdict(range, size, true),
                };
                let came = self.pager.op_range(vmo, op, range);
                assert_eq!(came, expected);
                came
            }
            Call::Query(range, room) => {
                let mut buffer = vec![DirtyRange::default(); room];
                let came = self.pager.query_dirty_ranges(vmo, range, &mut buffer);
                assert_eq!(came.map(drop), verdict(range, size, false));
                if let Ok(found) = came {
                    assert_eq!(found.actual, found.available.min(room));
                }
                came.map(drop)
            }
            Call::Stats(raw) => {
                let options = VmoStatsOptions::from_bits(raw)?;
                let before = self.pager.query_vmo_stats(vmo, VmoStatsOptions::Keep).expect("its pager");
                assert_eq!(self.pager.query_vmo_stats(vmo, options), Ok(before));
                let after = self.pager.query_vmo_stats(vmo, VmoStatsOptions::Keep).expect("its pager");
                assert_eq!(after.is_modified(), before.is_modified() && options == VmoStatsOptions::Keep);
                Ok(())
            }
            Call::Detach => {
                let found = self.pager.detach_vmo(vmo).expect("its pager");
                assert!(!detached || (found.failed_requests, found.dropped_pages) == (0, PageCount(0)));
                self.detached[which].set(true);
                assert_eq!(vmo.counts().in_flight, 0);
                Ok(())
            }
            Call::EvictOfAll(max, which) => {
                assert!(self.pager.evict(PageCount(max), which).0 <= max);
                Ok(())
            }
            Call::SupplyPages(to, from) => {
                let came = self.pager.supply_pages(vmo, to, &self.aux, ByteOffset(from));
                let from = ByteRange::new(from, to.length);
                let inside = verdict(to, size, true).and(verdict(from, self.aux.size(), true));
                let misaligned = [to, from].iter().any(|range| verdict(*range, size, true) == Err(Status::InvalidArgs));
                let aligned = if misaligned { Err(Status::InvalidArgs) } else { Ok(()) };
                let unpinned = if touches_the_pinned(from) { Err(Status::BadState) } else { Ok(()) };
                assert_eq!(came, aligned.and(inside).and(attached).and(unpinned));
                came
            }
            _ => self.call_aux(call),
        }
    }

    /// The calls of the anonymous VMO.
    fn call_aux(&self, call: &Call) -> Result<()> {
        let (aux, size) = (&self.aux, self.aux.size());
        match *call {
            Call::AuxRead(offset, length) => {
                let came = aux.read(ByteOffset(offset), &mut vec![0; length]);
                assert_eq!(came, verdict(ByteRange::new(offset, length as u64), size, false));
                came
            }
            Call::AuxWrite(offset, length) => {
                let came = aux.write(ByteOffset(offset), &vec![3; length]);
                assert_eq!(came, verdict(ByteRange::new(offset, length as u64), size, false));
                came
            }
            Call::AuxCommit(range) => {
                let came = aux.commit(range);
                assert_eq!(came, verdict(range, size, false));
                came
            }
            Call::AuxDecommit(range) => {
                let came = aux.decommit(range);
                let unpinned = if touches_the_pinned(range) { Err(Status::BadState) } else { Ok(()) };
                assert_eq!(came, verdict(range, size, true).and(unpinned));
                came
            }
            Call::AuxZero(range) => {
                let came = aux.zero(range);
                assert_eq!(came, verdict(range, size, false));
                came
            }
            Call::AuxPin(range) => {
                let came = aux.pin(range).map(|pinned| assert_eq!(pinned.range(), range));
                assert_eq!(came, verdict(range, size, true));
                came
            }
            Call::AuxNew(size) => {
                let made = AnonymousVmo::new(self.platform.clone(), size)?;
                assert!(size <= MAX_VMO_SIZE);
                assert_eq!((made.size(), made.committed()), (size.next_multiple_of(PAGE_SIZE), PageCount(0)));
                Ok(())
            }
            _ => self.call_another(call),
        }
    }

    /// Gives leave, by one of two calls.
    fn leave(
        &self,
        which: usize,
        vmo: &Vmo<HeapPlatform>,
        range: ByteRange,
        call: impl FnOnce(&Pager<HeapPlatform>) -> Result<()>,
    ) -> Result<()> {
        let came = call(&self.pager);
        if which == 0 {
            assert_eq!(came, Err(Status::NotSupported));
            return came;
        }
        let attached = if self.detached[which].get() { Err(Status::BadState) } else { Ok(()) };
        match verdict(range, vmo.size(), true).and(attached) {
            Ok(()) => assert!(matches!(came, Ok(()) | Err(Status::NotFound)), "{came:?}"),
            expected => assert_eq!(came, expected),
        }
        came
    }

    /// The calls that are about no VMO.
    fn call_another(&self, call: &Call) -> Result<()> {
        match *call {
            Call::Create { options, size } => {
                let options = VmoOptions::from_bits(options)?;
                let made = self.pager.create_vmo(&self.port, KEYS[1] + 1, options, size)?;
                assert!(size <= MAX_VMO_SIZE);
                assert_eq!((made.size(), made.key()), (size.next_multiple_of(PAGE_SIZE), KEYS[1] + 1));
                Ok(())
            }
            Call::Queue { key, packet_type, status } => {
                let packet = Packet { key, packet_type, status, page_request: PageRequest::default() };
                let came = self.port.queue(&packet);
                assert_eq!(came == Err(Status::InvalidArgs), packet_type != PACKET_TYPE_USER, "{came:?}");
                came
            }
            Call::Cancel(key) => {
                let came = self.port.cancel(key);
                assert!(matches!(came, Ok(()) | Err(Status::NotFound)));
                assert_eq!(self.port.cancel(key), Err(Status::NotFound));
                came
            }
            Call::Take(size) => {
                let mut packets = vec![Packet::default(); size];
                let taken = self.port.take(&mut packets);
                self.note(&packets[..taken]);
                Ok(())
            }
            Call::WaitInThePast(size) => {
                let mut packets = vec![Packet::default(); size];
                let came = self.port.wait_until(Some(Instant::now()), &mut packets);
                self.note(&packets[..came.unwrap_or(0)]);
                assert!(came.is_ok() || size > 0);
                came.map(drop)
            }
            Call::Look { now, time_out } => {
                let limits = WatchLimits { warn_after: None, time_out: time_out.map(Duration::from_nanos) };
                let mut watch = Watch::new(&self.pager, limits, Box::new(|_: &upager::Event| {}));
                watch.look(Duration::from_nanos(now));
                watch.look(Duration::from_nanos(now / 2));
                watch.look(Duration::from_secs(now));
                Ok(())
            }
            Call::FrameWrite(offset, length) => {
                let frame = OwnedFrame::new(&*self.platform).expect("a frame");
                let offset = usize::try_from(offset).unwrap_or(usize::MAX);
                let came = frame.write(offset, &vec![1; length]);
                let fits = offset.checked_add(length).is_some_and(|end| end as u64 <= PAGE_SIZE);
                assert_eq!(came.is_ok(), fits);
                came
            }
            Call::Numbers(number) => {
                assert_eq!(Frame::new(number).map(Frame::number), (number < 1 << 40).then_some(number));
                let page = ByteOffset(number).page();
                assert!(page.offset().0 <= number && number - page.offset().0 < PAGE_SIZE);
                assert_eq!(PageIndex(number).offset().0, number.saturating_mul(PAGE_SIZE));
                let [raw, ..] = number.to_le_bytes().map(u16::from);
                let command = Command::from_raw(raw);
                assert!(command.is_none_or(|command| command as u16 == raw));
                let packet = Packet::page_request(number, command.unwrap_or(Command::Read), number, number);
                assert_eq!((packet.range(), packet.user_payload()), (ByteRange::new(number, number), None));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Per VMO: any number of READ and DIRTY, then at most one COMPLETE, then nothing.
    fn note(&self, packets: &[Packet]) {
        for packet in packets {
            let Some(which) = KEYS.iter().position(|key| *key == packet.key) else { continue };
            let Some(command) = packet.command() else { continue };
            assert_eq!(self.completes[which].get(), 0, "{packet:?} after COMPLETE");
            assert!(command != Command::Dirty || which == 1, "it does not trap");
            self.completes[which].set(u64::from(command == Command::Complete));
        }
    }

    /// Makes the call for a pager that the VMO is not of, if a pager makes it.
    fn call_as_a_stranger(&self, vmo: &Vmo<HeapPlatform>, call: &Call) -> Option<Result<()>> {
        let pager = &self.stranger;
        Some(match *call {
            Call::Supply(range, frames) => self.supply(pager, vmo, range, frames),
            Call::Fail(range, raw) => pager.fail_range(vmo, range, Status::from_raw(raw)?),
            Call::Dirty(range) => pager.dirty_range(vmo, range),
            Call::Begin(range, which) => pager.writeback_begin(vmo, range, which),
            Call::End(range) => pager.writeback_end(vmo, range),
            Call::Op { op, data, range } => pager.op_range(vmo, PagerOp::from_raw(op, data).ok()?, range),
            Call::Query(range, room) => {
                pager.query_dirty_ranges(vmo, range, &mut vec![DirtyRange::default(); room]).map(drop)
            }
            Call::Stats(raw) => pager.query_vmo_stats(vmo, VmoStatsOptions::from_bits(raw).ok()?).map(drop),
            Call::Detach => pager.detach_vmo(vmo).map(drop),
            Call::SupplyPages(to, from) => pager.supply_pages(vmo, to, &self.aux, ByteOffset(from)),
            _ => return None,
        })
    }
}

impl Call {
    /// How much must be the same when it has failed so.
    fn same(&self, status: Status) -> Same {
        match (self, status) {
            (Self::Write(..) | Self::Zero(_), Status::BadState) => Same::Size, // a prefix is done
            (Self::Hint(raw, _), Status::BadState) if VmoOp::from_raw(*raw) == Ok(VmoOp::Zero) => Same::Size,
            (Self::Read(..) | Self::Fault { .. } | Self::Hint(..), Status::BadState)
            | (Self::Dirty(_) | Self::Op { .. }, Status::NotFound) => Same::Content,
            _ => Same::All,
        }
    }
}

impl Snapshot {
    fn assert_same(&self, after: &Self, same: Same, what: &str) {
        assert_eq!(self.size, after.size, "{what}");
        if same == Same::All {
            assert_eq!(self, after, "{what}");
        }
        if same == Same::Content {
            assert_eq!((&self.dirty, self.stats), (&after.dirty, after.stats), "{what}");
            for (before, after) in self.content.iter().zip(&after.content) {
                assert!(before.is_none() || before == after, "{what}");
            }
        }
    }
}

/// Makes the calls one after the other, each on the VMO whose number comes with it (modulo two), and checks
/// each.
pub fn make_calls(calls: &[(u8, Call)]) {
    let (scene, vmos) = Scene::new();
    let platform = scene.platform.clone();
    let pinned = scene.aux.pin(pages(PINNED, 1)).expect("memory");
    let waiters: [Waiters<'_>; 2] = [
        vec![Task::pending(vmos[0].fault(PageIndex(1), Access::Read))],
        vec![
            Task::pending(vmos[1].fault(PageIndex(1), Access::Read)),
            Task::pending(vmos[1].fault(PageIndex(2), Access::Write)),
        ],
    ];
    for (which, call) in calls {
        let which = usize::from(which % 2);
        let (vmo, waiters) = (&vmos[which], &waiters[which]);
        let before = scene.snapshot(vmo, waiters);
        if let Some(came) = scene.call_as_a_stranger(vmo, call) {
            assert_eq!(came, Err(Status::InvalidArgs), "a stranger");
            before.assert_same(&scene.snapshot(vmo, waiters), Same::All, "a stranger changed something");
        }
        let came = scene.call(which, vmo, call);
        let after = scene.snapshot(vmo, waiters);
        if let Err(status) = came {
            let what = format!("{call:?} changed something, though it failed with {status:?}");
            before.assert_same(&after, call.same(status), &what);
        }
        assert!(after.counts.awaiting <= after.counts.dirty && after.counts.dirty <= after.counts.resident);
        assert!(after.wakes.iter().all(|wakes| *wakes <= 1), "woken more often than it slept");
        assert!(!scene.detached[which].get() || after.counts.resident == after.counts.dirty);
    }
    drop(waiters);
    drop((vmos, pinned));
    drop(scene);
    let deadline = soon();
    while platform.frames() != PageCount(0) {
        platform.pin().flush();
        assert!(Instant::now() < deadline, "{:?} leaked", platform.frames());
        thread::yield_now();
    }
}
