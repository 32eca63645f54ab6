//! Every public call against every other, one of them stopped for ever.
//!
//! One thread stops in its call before a store or read-modify-write, its first or its second and so on to
//! its last, and stays there. Meanwhile the other makes its own call, which must end: a call that waits for
//! the stopped thread takes more steps than any call has, or is a deadlock, and loom says so. Where
//! the other call is a detach or closes the pager, everybody who waited for the service must have
//! been woken by its end. In the end the stopped one goes on after all, so that the model ends. What comes
//! of both must then be right: where the [specification](crate::spec) has both calls, it must allow it, as in
//! the race matrix; elsewhere nobody may wait after a detach, and no frame may be lost.

use std::fmt;

use upager::sync::Arc;
use upager::sync::stopped::Steps;
use upager::{
    AnonymousVmo, ByteOffset, ByteRange, Evict, OwnedFrame, PAGE_SIZE, PageCount, PageIndex, Pager, Platform, Port,
    Status, Vmo, VmoOp, VmoOptions, VmoStatsOptions, Writeback,
};

use crate::cell::{Actor, Cell, Observed, Op, Ops, Stage, Start, beside_a_stop};
use crate::world::{KEY, ModelPlatform, Waiting, page, supply, take_all, time_out_all, user_packet};

/// A public call, or several that are one but for an argument.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Call {
    /// One of the race matrix.
    Of(Op),
    Fault,
    /// A fault that asks for the page after its own too.
    FaultRun,
    /// Supply of two pages.
    SupplyRun,
    /// Two pages fail.
    FailRun,
    /// The service allows the dirtying of two pages.
    DirtyRun,
    WritebackBeginRun,
    WritebackEndRun,
    CommitRun,
    /// A commit that gives up if it waits.
    CommitLeave,
    PrefetchRun,
    DontNeedRun,
    /// A hint for two pages, by the one call for all of them.
    OpRange,
    /// Supply out of an anonymous VMO.
    SupplyPages,
    /// Eviction of any VMO of the pager's.
    EvictAll,
    QueryStats,
    ResetStats,
    LookUp,
    /// The same, with a pin of its own.
    PinLookUp,
    /// A mapped write: the page is held dirty, and let go.
    Hold,
    /// What a VMO says of itself.
    Counts,
    CreateVmo,
    /// A look of the watch on the service, with a time-out that has passed.
    Watch,
    Queue,
    /// Cancels user packets.
    Cancel,
    /// Cancels the VMO's packets.
    CancelRequests,
    /// The service begins to wait, and gives up.
    PortWait,
    AuxRead,
    AuxWrite,
    AuxCommit,
    AuxDecommit,
    AuxZero,
    AuxPin,
    AuxCommitted,
    AuxDrop,
}

impl Call {
    /// Those that the race matrix does not have.
    pub const MORE: [Self; 34] = [
        Self::Fault,
        Self::FaultRun,
        Self::SupplyRun,
        Self::FailRun,
        Self::DirtyRun,
        Self::WritebackBeginRun,
        Self::WritebackEndRun,
        Self::CommitRun,
        Self::CommitLeave,
        Self::PrefetchRun,
        Self::DontNeedRun,
        Self::OpRange,
        Self::SupplyPages,
        Self::EvictAll,
        Self::QueryStats,
        Self::ResetStats,
        Self::LookUp,
        Self::PinLookUp,
        Self::Hold,
        Self::Counts,
        Self::CreateVmo,
        Self::Watch,
        Self::Queue,
        Self::Cancel,
        Self::CancelRequests,
        Self::PortWait,
        Self::AuxRead,
        Self::AuxWrite,
        Self::AuxCommit,
        Self::AuxDecommit,
        Self::AuxZero,
        Self::AuxPin,
        Self::AuxCommitted,
        Self::AuxDrop,
    ];

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        Op::ALL.into_iter().map(Self::Of).chain(Self::MORE)
    }

    const fn uses_pager(self) -> bool {
        match self {
            Self::Of(op) => op.uses_pager(),
            _ => matches!(
                self,
                Self::SupplyRun
                    | Self::FailRun
                    | Self::DirtyRun
                    | Self::WritebackBeginRun
                    | Self::WritebackEndRun
                    | Self::SupplyPages
                    | Self::EvictAll
                    | Self::QueryStats
                    | Self::ResetStats
                    | Self::CreateVmo
                    | Self::Watch
            ),
        }
    }

    const fn uses_vmo(self) -> bool {
        match self {
            Self::Of(op) => op.uses_vmo(),
            _ => matches!(
                self,
                Self::Fault
                    | Self::FaultRun
                    | Self::SupplyRun
                    | Self::FailRun
                    | Self::DirtyRun
                    | Self::WritebackBeginRun
                    | Self::WritebackEndRun
                    | Self::CommitRun
                    | Self::CommitLeave
                    | Self::PrefetchRun
                    | Self::DontNeedRun
                    | Self::OpRange
                    | Self::SupplyPages
                    | Self::QueryStats
                    | Self::ResetStats
                    | Self::LookUp
                    | Self::PinLookUp
                    | Self::Hold
                    | Self::Counts
            ),
        }
    }

    const fn uses_port(self) -> bool {
        matches!(
            self,
            Self::Of(Op::PortTake)
                | Self::CreateVmo
                | Self::Queue
                | Self::Cancel
                | Self::CancelRequests
                | Self::PortWait
        )
    }

    const fn uses_aux(self) -> bool {
        matches!(
            self,
            Self::SupplyPages
                | Self::AuxRead
                | Self::AuxWrite
                | Self::AuxCommit
                | Self::AuxDecommit
                | Self::AuxZero
                | Self::AuxPin
                | Self::AuxCommitted
        )
    }

    /// May take the first page of the anonymous VMO away.
    const fn takes_aux(self) -> bool {
        matches!(self, Self::SupplyPages | Self::AuxDecommit | Self::AuxZero)
    }

    /// Ends the last handle of something.
    const fn ends(self) -> bool {
        matches!(self, Self::Of(Op::PagerClose | Op::VmoDrop | Op::PortClose) | Self::AuxDrop)
    }

    const fn resizes(self) -> bool {
        matches!(self, Self::Of(op) if op.resizes())
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Of(op) => write!(f, "{op:?}"),
            other => write!(f, "{other:?}"),
        }
    }
}

/// The pages of the VMO, where the call is none of the race matrix. The second is clean where dirtying is
/// trapped, and nobody has touched it otherwise.
const PAGES: u64 = 2;

/// The pages of the anonymous VMO, all of them committed at first. The calls are about the first.
const AUX_PAGES: u64 = 2;

/// One thread stops in a call, and another makes its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Stop {
    pub start: Start,
    pub stopped: Call,
    pub other: Call,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {} beside a stopped {}", self.start, self.other, self.stopped)
    }
}

/// What the specification allows of a [`Stop`], if it has both calls.
pub type Allowed = Option<std::collections::HashSet<Observed>>;

impl Stop {
    /// All of them, the meaningless ones included.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for start in Start::ALL {
            for stopped in Call::all() {
                all.extend(Call::all().map(|other| Self { start, stopped, other }));
            }
        }
        all
    }

    /// As a cell of the race matrix, if it is one.
    fn cell(&self) -> Option<Cell> {
        match (self.stopped, self.other) {
            (Call::Of(a), Call::Of(b)) => Some(Cell { start: self.start, ops: Ops::Two([a, b]) }),
            _ => None,
        }
    }

    /// Why there is nothing to explore, if so.
    #[must_use]
    pub fn skipped(&self) -> Option<&'static str> {
        if let Some(cell) = self.cell() {
            return cell.skipped();
        }
        let both = [self.stopped, self.other];
        let has = |call| both.contains(&call);
        let is = |op| has(Call::Of(op));
        if self.stopped == self.other && self.stopped.ends() {
            return Some("the last handle is ended once");
        }
        if is(Op::Leave) && !self.start.has_waiters() {
            return Some("nobody waits");
        }
        if (is(Op::Dirty) || has(Call::DirtyRun)) && !self.start.traps() {
            return Some("the VMO does not trap dirtying");
        }
        if is(Op::VmoDrop) && self.start.has_waiters() {
            return Some("a waiter holds the VMO");
        }
        let holds = |uses: fn(Call) -> bool| both.into_iter().any(uses);
        if is(Op::VmoDrop) && holds(Call::uses_vmo) {
            return Some("the other call holds the VMO");
        }
        if is(Op::PagerClose) && holds(Call::uses_pager) {
            return Some("the other call holds the pager");
        }
        if is(Op::PortClose) && holds(Call::uses_port) {
            return Some("the other call holds the port");
        }
        if has(Call::AuxDrop) && holds(Call::uses_aux) {
            return Some("the other call holds the anonymous VMO");
        }
        None
    }

    /// Whether it is one of the race matrix.
    #[must_use]
    pub fn is_a_cell(&self) -> bool {
        self.cell().is_some()
    }

    /// What the specification allows.
    #[must_use]
    pub fn allowed(&self) -> Allowed {
        self.cell().map(|cell| cell.allowed())
    }

    /// One execution, with a stop before the step of this number. Returns whether the call had so many.
    ///
    /// # Panics
    /// That is its verdict.
    #[must_use]
    pub fn run(&self, stop: (usize, Steps), allowed: &Allowed) -> bool {
        match (self.cell(), allowed) {
            (Some(cell), Some(allowed)) => cell.run_stopped(stop, allowed),
            _ => self.run_calls(stop),
        }
    }

    fn run_calls(&self, stop: (usize, Steps)) -> bool {
        let both = [self.stopped, self.other];
        let waiting = both.iter().filter(|call| **call == Call::Of(Op::Leave)).count().max(1);
        let mut stage = Stage::new(self.start, both.into_iter().any(Call::resizes), waiting, PAGES);
        if let (true, Some(pager), Some(vmo)) = (self.start.traps(), &stage.pager, &stage.vmo) {
            supply(pager, vmo, 1, 2).expect("attached");
        }
        let needs_aux = both.into_iter().any(|call| call.uses_aux() || call == Call::AuxDrop);
        let mut aux = needs_aux.then(|| {
            let bytes = AUX_PAGES * PAGE_SIZE;
            let aux = AnonymousVmo::new(stage.platform.clone(), bytes).expect("a new VMO");
            aux.commit(ByteRange::new(0, bytes)).expect("memory");
            Arc::new(aux)
        });
        let mut hands = |call, beside, byte| Hands::new(&mut stage, &mut aux, call, beside, byte);
        let (mine, others) = (hands(self.stopped, self.other, 0xa), hands(self.other, self.stopped, 0xb));
        let Stage { platform, pager, port, vmo, waiters, guard, .. } = stage;
        let ends = matches!(self.other, Call::Of(op) if op.ends_waits());
        let waits = if ends { waiters.iter().map(Waiting::watched).collect() } else { Vec::new() };
        let met = beside_a_stop(stop, waits, || mine.call(), || others.call());
        assert!(met.all_woken, "{self}: one who waited is not woken, though the VMO is detached");
        drop(guard);
        // The end for those who wait.
        if let (Some(pager), Some(vmo)) = (&pager, &vmo) {
            pager.detach_vmo(vmo).expect("the pager's own VMO");
        }
        let last = (pager.is_some() && vmo.is_some()) || both.contains(&Call::Of(Op::PagerClose));
        for mut one in waiters.into_iter().chain(met.mine).chain(met.others) {
            let came = one.settle();
            assert!(came.is_some() || !last, "{self}: one waits after a detach");
        }
        drop((aux, vmo, pager));
        if let Some(port) = &port {
            let _: Vec<upager::Packet> = take_all(port);
        }
        drop(port);
        platform.check_nothing_left();
        met.has_stopped
    }
}

/// What one thread has in its hands.
struct Hands {
    call: Call,
    /// What the other thread calls.
    beside: Call,
    byte: u8,
    /// For a call of the race matrix.
    actor: Option<Actor>,
    port: Option<Arc<Port<ModelPlatform>>>,
    pager: Option<Arc<Pager<ModelPlatform>>>,
    vmo: Option<Arc<Vmo<ModelPlatform>>>,
    aux: Option<Arc<AnonymousVmo<ModelPlatform>>>,
}

// SAFETY: as for `Waiting`: loom's Arc lacks the declaration, not the reason.
unsafe impl Send for Hands {}
impl Hands {
    fn new(
        stage: &mut Stage,
        aux: &mut Option<Arc<AnonymousVmo<ModelPlatform>>>,
        call: Call,
        beside: Call,
        byte: u8,
    ) -> Self {
        let actor = match call {
            Call::Of(Op::PortTake) => None, // it may meet packets that the matrix does not have
            Call::Of(op) => Some(stage.actor(op, byte)),
            _ => None,
        };
        let more = actor.is_none();
        Self {
            call,
            beside,
            byte,
            actor,
            port: stage.port.clone().filter(|_| more && call.uses_port()),
            pager: stage.pager.clone().filter(|_| more && call.uses_pager()),
            vmo: stage.vmo.clone().filter(|_| more && call.uses_vmo()),
            aux: if call == Call::AuxDrop { aux.take() } else { aux.clone().filter(|_| call.uses_aux()) },
        }
    }

    /// Makes the call. Returns the access, if it waits.
    fn call(self) -> Option<Waiting> {
        let Self { call, beside, byte, actor, port, pager, vmo, aux } = self;
        let all = ByteRange::new(0, PAGES * PAGE_SIZE);
        let wait = |mut waiting: Waiting| {
            let Some(came) = waiting.poll() else { return Some(waiting) };
            accessed(came);
            None
        };
        match (call, port, pager, vmo, aux) {
            (Call::Fault, _, _, Some(vmo), _) => return wait(Waiting::fault(vmo, 0)),
            (Call::FaultRun, _, _, Some(vmo), _) => return wait(Waiting::fault_run(vmo, 0, PAGES)),
            (Call::CommitRun, _, _, Some(vmo), _) => return wait(Waiting::commit(vmo, 0, PAGES)),
            (Call::CommitLeave, _, _, Some(vmo), _) => {
                let _: Option<usize> = wait(Waiting::commit(vmo, 0, PAGES)).map(Waiting::leave);
            }
            (Call::PrefetchRun, _, _, Some(vmo), _) => return wait(Waiting::prefetch(vmo, 0, PAGES)),
            (Call::DontNeedRun, _, _, Some(vmo), _) => out_of_range(vmo.dont_need(all)),
            (Call::OpRange, _, _, Some(vmo), _) => return wait(Waiting::op_range(vmo, VmoOp::AlwaysNeed, 0, PAGES)),
            (Call::SupplyRun, _, Some(pager), Some(vmo), _) => {
                let frame = || OwnedFrame::new(&**vmo.platform()).expect("memory");
                detached(pager.supply_frames(&vmo, all, [frame(), frame()]));
            }
            (Call::FailRun, _, Some(pager), Some(vmo), _) => detached(pager.fail_range(&vmo, all, Status::Io)),
            (Call::DirtyRun, _, Some(pager), Some(vmo), _) => {
                let came = pager.dirty_range(&vmo, all);
                let absent = matches!(came, Err(Status::NotFound));
                assert!(
                    absent || matches!(came, Ok(()) | Err(Status::OutOfRange | Status::BadState)),
                    "leave: {came:?}"
                );
            }
            (Call::WritebackBeginRun, _, Some(pager), Some(vmo), _) => {
                out_of_range(pager.writeback_begin(&vmo, all, Writeback::ZeroRanges));
            }
            (Call::WritebackEndRun, _, Some(pager), Some(vmo), _) => out_of_range(pager.writeback_end(&vmo, all)),
            (Call::LookUp, _, _, Some(vmo), _) => {
                let guard = vmo.platform().pin();
                if let Some(frame) = vmo.lookup(&guard, PageIndex(0)) {
                    // SAFETY: the guard, from before the lookup, keeps the frame; one byte lies within.
                    unsafe { vmo.platform().copy_out(frame, 0, &mut [0]) };
                }
            }
            (Call::PinLookUp, _, _, Some(vmo), _) => {
                if let Some((_guard, frame)) = vmo.pin_lookup(PageIndex(0)) {
                    // SAFETY: the guard came with the frame; one byte lies within.
                    unsafe { vmo.platform().copy_out(frame, 0, &mut [0]) };
                }
            }
            (Call::Hold, _, _, Some(vmo), _) => {
                let guard = vmo.platform().pin();
                drop(vmo.hold(&guard, PageIndex(0)).expect("a page with few writers"));
            }
            (Call::Counts, _, _, Some(vmo), _) => {
                let _: upager::VmoCounts = vmo.counts();
                let size = vmo.size();
                assert!(size.is_multiple_of(PAGE_SIZE) && vmo.key() == KEY, "{size} bytes, key {}", vmo.key());
                let _: upager::VmoId = vmo.id();
            }
            (Call::SupplyPages, _, Some(pager), Some(vmo), Some(aux)) => {
                detached(pager.supply_pages(&vmo, page(0), &aux, ByteOffset(0)));
            }
            (Call::EvictAll, _, Some(pager), ..) => {
                let _: PageCount = pager.evict(PageCount(1), Evict::Any);
            }
            (Call::QueryStats, _, Some(pager), Some(vmo), _) => {
                pager.query_vmo_stats(&vmo, VmoStatsOptions::Keep).expect("the pager's own VMO");
            }
            (Call::ResetStats, _, Some(pager), Some(vmo), _) => {
                pager.query_vmo_stats(&vmo, VmoStatsOptions::Reset).expect("the pager's own VMO");
            }
            (Call::CreateVmo, Some(port), Some(pager), ..) => {
                drop(pager.create_vmo(&port, 2, VmoOptions::NONE, PAGE_SIZE).expect("memory"));
            }
            (Call::Watch, _, Some(pager), ..) => {
                let _: usize = time_out_all(&pager);
            }
            (Call::Queue, Some(port), ..) => port.queue(&user_packet(9)).expect("there is room"),
            (Call::Cancel, Some(port), ..) => not_found(port.cancel(9)),
            (Call::CancelRequests, Some(port), ..) => not_found(port.cancel(KEY)),
            (Call::PortWait, Some(port), ..) => {
                let mut waiting = Waiting::packet(port);
                let _: Option<upager::Result<u8>> = waiting.poll();
                let _: usize = waiting.leave();
            }
            (call, _, None, None, Some(aux)) => anonymous(call, beside, byte, aux),
            (Call::Of(Op::PortTake), Some(port), ..) => {
                let _: usize = port.take(&mut [upager::Packet::default(); 4]);
            }
            (Call::Of(_), ..) => return actor.expect("a call of the matrix has an actor").act().err(),
            (call, ..) => unreachable!("{call} lacks something"),
        }
        None
    }
}

/// Makes a call of the anonymous VMO.
fn anonymous(call: Call, beside: Call, byte: u8, aux: Arc<AnonymousVmo<ModelPlatform>>) {
    match call {
        Call::AuxDrop => drop(aux),
        Call::AuxRead => aux.read(ByteOffset(0), &mut [0]).expect("a page of the VMO"),
        Call::AuxWrite => aux.write(ByteOffset(0), &[byte]).expect("memory"),
        Call::AuxCommit => aux.commit(page(0)).expect("memory"),
        Call::AuxDecommit => pinned(aux.decommit(page(0))),
        Call::AuxZero => pinned(aux.zero(page(0))),
        Call::AuxPin => drop(aux.pin(page(0)).expect("memory")),
        Call::AuxCommitted => {
            let least = AUX_PAGES - u64::from(beside.takes_aux());
            let committed = aux.committed().0;
            assert!((least..=AUX_PAGES).contains(&committed), "{committed} pages are committed");
        }
        call => unreachable!("{call} is none of the anonymous VMO"),
    }
}

/// An access may fail with what a service that fails it says, or a watch, or a detach, or a shrink.
fn accessed(came: upager::Result<u8>) {
    let failed = came.err();
    let expected = matches!(failed, None | Some(Status::Io | Status::TimedOut | Status::BadState | Status::OutOfRange));
    assert!(expected, "it fails with {failed:?}");
}

/// A VMO may have shrunk, or be detached.
fn detached(came: upager::Result<()>) {
    assert!(matches!(came, Ok(()) | Err(Status::OutOfRange | Status::BadState)), "it comes to {came:?}");
}

/// A VMO may have shrunk.
fn out_of_range(came: upager::Result<()>) {
    assert!(matches!(came, Ok(()) | Err(Status::OutOfRange)), "it comes to {came:?}");
}

/// There may be no such packet.
fn not_found(came: upager::Result<()>) {
    assert!(matches!(came, Ok(()) | Err(Status::NotFound)), "it comes to {came:?}");
}

/// A page may be pinned.
fn pinned(came: upager::Result<()>) {
    assert!(matches!(came, Ok(()) | Err(Status::BadState)), "it comes to {came:?}");
}
