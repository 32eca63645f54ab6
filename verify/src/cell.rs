//! One cell of the race matrix: two operations on one page, or three, at once or partly, from one state.
//!
//! The model runs them on the shipped core under loom. What can be observed of it, the results
//! of each, the fate of everyone who waited, the counts, the packets and the page, must be what
//! the [specification](crate::spec) gives for *some* order of the same steps. Besides that, in
//! every execution: nobody is woken more often than he waited, no frame is used after it is freed
//! or freed twice, none is left in the end, and COMPLETE comes last and once.

use std::collections::HashSet;
use std::fmt;

use upager::sync::Arc;
use upager::sync::stopped::{self, Steps};
use upager::{
    ByteRange, Command, DirtyRange, Evict, Guard, PAGE_SIZE, PageCount, PageIndex, Pager, PagerOp, Platform, Port,
    Status, Vmo, VmoOptions, Writeback,
};

use crate::spec::{Access, Packet, Page, Spec, Waiter};
use crate::world::{ModelPlatform, Waiting, Watched, World, page, supply, zero_pages};

/// What a thread does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Op {
    /// A read fault. Where the page is requested, this is a join.
    Read,
    /// A write fault, and the write.
    Write,
    /// A waiter gives up.
    Leave,
    Supply,
    Fail,
    /// The service allows dirtying.
    Dirty,
    /// All pages become zeros.
    Zero,
    /// The VMO grows by pages of which some share words.
    Grow,
    /// The VMO shrinks to nothing.
    Shrink,
    WritebackBegin,
    WritebackEnd,
    Evict,
    /// The page is to stay.
    AlwaysNeed,
    /// The page may go.
    DontNeed,
    /// The page is to come.
    Commit,
    /// The service asks whether the page is dirty.
    QueryDirty,
    /// The service takes what the port has.
    PortTake,
    PortClose,
    Detach,
    PagerClose,
    VmoDrop,
}

impl Op {
    pub const ALL: [Self; 21] = [
        Self::Read,
        Self::Write,
        Self::Leave,
        Self::Supply,
        Self::Fail,
        Self::Dirty,
        Self::Zero,
        Self::Grow,
        Self::Shrink,
        Self::WritebackBegin,
        Self::WritebackEnd,
        Self::Evict,
        Self::AlwaysNeed,
        Self::DontNeed,
        Self::Commit,
        Self::QueryDirty,
        Self::PortTake,
        Self::PortClose,
        Self::Detach,
        Self::PagerClose,
        Self::VmoDrop,
    ];

    pub(crate) const fn uses_pager(self) -> bool {
        matches!(
            self,
            Self::Supply
                | Self::Fail
                | Self::Dirty
                | Self::WritebackBegin
                | Self::WritebackEnd
                | Self::QueryDirty
                | Self::Detach
        )
    }

    pub(crate) const fn uses_vmo(self) -> bool {
        !matches!(self, Self::PortTake | Self::PortClose | Self::PagerClose | Self::VmoDrop)
    }

    /// Whether it sets or clears that the page is always needed.
    const fn marks(self) -> bool {
        matches!(self, Self::AlwaysNeed | Self::DontNeed)
    }

    pub(crate) const fn resizes(self) -> bool {
        matches!(self, Self::Grow | Self::Shrink)
    }

    /// Whether everybody who waited for the service has been woken when it returns, whatever others do.
    pub(crate) const fn ends_waits(self) -> bool {
        matches!(self, Self::Detach | Self::PagerClose)
    }
}

/// What the threads do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Ops {
    /// One operation each.
    Two([Op; 2]),
    /// One operation each.
    Three([Op; 3]),
    /// The first thread makes the first call, the second the others, one after the other.
    Sequel([Op; 3]),
}

impl std::ops::Deref for Ops {
    type Target = [Op];

    fn deref(&self) -> &[Op] {
        match self {
            Self::Two(ops) => ops,
            Self::Three(ops) | Self::Sequel(ops) => ops,
        }
    }
}

/// What the page is when they begin.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Start {
    Absent,
    RequestedUndelivered,
    RequestedDelivered,
    Clean,
    /// In the grace period of an eviction, which ends after them.
    Evicting,
    Dirty,
    AwaitingClean,
    DetachedAbsent,
    DetachedDirty,
    DetachedAwaitingClean,
    /// From here on the VMO traps dirtying.
    TrapClean,
    TrapEvicting,
    /// A writer waits for the service to allow it.
    TrapAsked,
    TrapAskedDelivered,
    TrapAwaitingClean,
    TrapAwaitingAsked,
    /// Two pages of zeros, which share a word above them.
    Zero,
    ZeroAwaiting,
    DetachedZero,
}

impl Start {
    pub const ALL: [Self; 19] = [
        Self::Absent,
        Self::RequestedUndelivered,
        Self::RequestedDelivered,
        Self::Clean,
        Self::Evicting,
        Self::Dirty,
        Self::AwaitingClean,
        Self::DetachedAbsent,
        Self::DetachedDirty,
        Self::DetachedAwaitingClean,
        Self::TrapClean,
        Self::TrapEvicting,
        Self::TrapAsked,
        Self::TrapAskedDelivered,
        Self::TrapAwaitingClean,
        Self::TrapAwaitingAsked,
        Self::Zero,
        Self::ZeroAwaiting,
        Self::DetachedZero,
    ];

    const fn is_requested(self) -> bool {
        matches!(self, Self::RequestedUndelivered | Self::RequestedDelivered)
    }

    const fn is_dirty(self) -> bool {
        matches!(self, Self::Dirty | Self::DetachedDirty) || self.is_awaiting()
    }

    const fn is_awaiting(self) -> bool {
        matches!(
            self,
            Self::AwaitingClean | Self::DetachedAwaitingClean | Self::TrapAwaitingClean | Self::TrapAwaitingAsked
        )
    }

    const fn is_evicting(self) -> bool {
        matches!(self, Self::Evicting | Self::TrapEvicting)
    }

    const fn is_resident(self) -> bool {
        !self.is_requested() && !self.is_zero() && !matches!(self, Self::Absent | Self::DetachedAbsent)
    }

    pub(crate) const fn is_zero(self) -> bool {
        matches!(self, Self::Zero | Self::ZeroAwaiting | Self::DetachedZero)
    }

    pub(crate) const fn pages(self) -> u64 {
        if self.is_zero() { 2 } else { 1 }
    }

    pub(crate) const fn traps(self) -> bool {
        matches!(self, Self::TrapClean | Self::TrapEvicting | Self::TrapAwaitingClean) || self.is_asked()
    }

    /// Whether writers wait for leave.
    const fn is_asked(self) -> bool {
        matches!(self, Self::TrapAsked | Self::TrapAskedDelivered | Self::TrapAwaitingAsked)
    }

    const fn is_delivered(self) -> bool {
        matches!(self, Self::RequestedDelivered | Self::TrapAskedDelivered)
    }

    pub(crate) const fn has_waiters(self) -> bool {
        self.is_requested() || self.is_asked()
    }

    const fn is_detached(self) -> bool {
        matches!(self, Self::DetachedAbsent | Self::DetachedDirty | Self::DetachedAwaitingClean | Self::DetachedZero)
    }

    /// The state in the specification's words, and as many waiters as the operations use.
    fn spec(self, waiters: usize) -> (Spec, Vec<Waiter>) {
        let mut spec = if self.traps() { Spec::trapping(1) } else { Spec::new(self.pages() as usize) };
        let mut waiting = Vec::new();
        if self.is_zero() {
            (0..2).for_each(|page| spec.zero(page));
            if self == Self::ZeroAwaiting {
                (0..2).for_each(|page| spec.writeback_begin(page));
            }
        }
        if self.is_resident() {
            spec.supply(0, FIRST).expect("attached");
        }
        if self.is_dirty() {
            if self.traps() {
                spec.dirty(0, 1).expect("clean");
            }
            spec.write(0, 1, FIRST);
        }
        if self.is_awaiting() {
            spec.writeback_begin(0);
        }
        if self.has_waiters() {
            for _ in 0..waiters {
                let access = if self.is_asked() { spec.write(0, 1, WAITED) } else { spec.read(0, 1) };
                if let Access::Waits(waiter) = access {
                    waiting.push(waiter);
                }
            }
        }
        if self.is_delivered() {
            spec.take();
        }
        if self.is_evicting() {
            spec.evict(0);
        }
        if self.is_detached() {
            spec.detach();
        }
        (spec, waiting)
    }
}

/// The byte that the page has in the beginning.
const FIRST: u8 = 1;
/// The size that `Grow` sets.
const GROWN: u64 = 6;
/// The byte that those write who wait from the beginning.
const WAITED: u8 = 0xc;
/// The bytes that the threads write or supply.
const BYTES: [u8; 3] = [0xa, 0xb, 0xd];

/// What an operation came to.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Came {
    Byte(u8),
    Failed(Status),
    StillWaits,
    Nothing,
    Evicted(u64),
    Packets(Vec<Packet>),
    /// Runs of dirty pages, as [`Spec::dirty_runs`].
    Runs(Vec<(u64, u64, bool)>),
}

impl From<Result<(), Status>> for Came {
    fn from(result: Result<(), Status>) -> Self {
        result.map_or_else(Self::Failed, |()| Self::Nothing)
    }
}

/// All that can be observed of one execution.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Observed {
    pub came: Vec<Came>,
    /// Those who waited from the beginning and did not leave.
    pub waiters: Vec<Came>,
    /// Resident, dirty, in flight, zero. `None`: there is no VMO any more.
    pub counts: Option<(u64, u64, u64, u64)>,
    pub packets: Vec<Packet>,
    pub byte: Option<u8>,
    /// Dirty pages after one more WRITEBACK_END.
    pub dirty_after_end: Option<u64>,
    /// Whether the page is clean then, and an evictor of what is unused passes it by. `None`: it was not
    /// asked, as no operation has to do with it, or there is no VMO any more.
    pub spared: Option<bool>,
}

/// One cell.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Cell {
    pub start: Start,
    pub ops: Ops,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: ", self.start)?;
        for (i, op) in self.ops.iter().enumerate() {
            let before = match i {
                0 => "",
                _ if self.follows(i) => ", then ",
                _ => " / ",
            };
            write!(f, "{before}{op:?}")?;
        }
        Ok(())
    }
}

impl Cell {
    /// Every cell of the matrix, the meaningless ones included.
    #[must_use]
    pub fn pairs() -> Vec<Self> {
        Self::all(|a, b| Ops::Two([a, b]))
    }

    /// Every pair together with `third`, the meaningless ones included.
    #[must_use]
    pub fn triples(third: Op) -> Vec<Self> {
        Self::all(|a, b| Ops::Three([a, b, third]))
    }

    /// Every operation beside `second` and, after that, every operation; the meaningless ones included. What
    /// comes after a call that has returned must come after it in the specification too.
    #[must_use]
    pub fn sequels(second: Op) -> Vec<Self> {
        let from = |start, a| Op::ALL.into_iter().map(move |b| Self { start, ops: Ops::Sequel([a, second, b]) });
        Start::ALL.into_iter().flat_map(|start| Op::ALL.into_iter().flat_map(move |a| from(start, a))).collect()
    }

    /// Whether it is in this row and this column.
    #[must_use]
    pub fn is_of(&self, row: Op, column: Op) -> bool {
        match self.ops {
            Ops::Two([a, b]) | Ops::Three([a, b, _]) | Ops::Sequel([a, _, b]) => (a, b) == (row, column),
        }
    }

    /// Whether the operation begins only when the one before it has ended.
    const fn follows(&self, side: usize) -> bool {
        matches!(self.ops, Ops::Sequel(_)) && side == 2
    }

    fn all(ops: impl Fn(Op, Op) -> Ops) -> Vec<Self> {
        let mut cells = Vec::new();
        for start in Start::ALL {
            for (i, a) in Op::ALL.into_iter().enumerate() {
                cells.extend(Op::ALL[i..].iter().map(|b| Self { start, ops: ops(a, *b) }));
            }
        }
        cells
    }

    /// Why there is nothing to explore, if so.
    #[must_use]
    pub fn skipped(&self) -> Option<&'static str> {
        let has = |op| self.has(op);
        let twice = |op| self.ops.iter().filter(|one| **one == op).count() > 1;
        if has(Op::Leave) && !self.start.has_waiters() {
            return Some("nobody waits");
        }
        if self.ops.iter().filter(|op| op.resizes()).count() > 1 {
            return Some("resizes exclude each other");
        }
        if has(Op::Dirty) && !self.start.traps() {
            return Some("the VMO does not trap dirtying");
        }
        if has(Op::VmoDrop) {
            if twice(Op::VmoDrop) {
                return Some("the last handle is dropped once");
            }
            if self.start.has_waiters() {
                return Some("a waiter holds the VMO");
            }
            if self.ops.iter().any(|op| op.uses_vmo()) {
                return Some("the other call holds the VMO");
            }
        }
        if has(Op::PagerClose) {
            if twice(Op::PagerClose) {
                return Some("the last handle is closed once");
            }
            if self.ops.iter().any(|op| op.uses_pager()) {
                return Some("the other call holds the pager");
            }
        }
        if has(Op::PortClose) {
            if twice(Op::PortClose) {
                return Some("the last handle is closed once");
            }
            if has(Op::PortTake) {
                return Some("the other call holds the port");
            }
        }
        self.takes_effect_late()
    }

    /// Why the first call of a sequel may take effect after the detach that it raced with has returned, and
    /// what comes then sees it.
    fn takes_effect_late(&self) -> Option<&'static str> {
        let Ops::Sequel([first, Op::Detach, after]) = self.ops else { return None };
        match (first, after) {
            // It holds the page, and then copies; and it may have to rescue it before.
            (Op::Write, Op::Read | Op::Write | Op::WritebackBegin) if self.start == Start::Clean => {}
            (Op::Write, Op::Read | Op::Write | Op::WritebackBegin | Op::QueryDirty)
                if self.start == Start::Evicting => {}
            // Only an access that fails makes it too late for a page that the detach leaves as it is.
            (Op::Dirty, Op::WritebackBegin | Op::QueryDirty) if self.start.is_evicting() => {}
            (Op::Dirty, Op::WritebackBegin) if self.start == Start::TrapAwaitingClean => {}
            // END makes the page clean before it drops it.
            (Op::Evict, Op::WritebackEnd) if self.start.is_awaiting() && !self.start.is_detached() => {}
            _ => return None,
        }
        Some("what began before the detach may take effect after it")
    }

    fn waiters(&self) -> usize {
        self.ops.iter().filter(|op| **op == Op::Leave).count().max(1)
    }

    fn has(&self, op: Op) -> bool {
        self.ops.contains(&op)
    }

    /// What the specification allows.
    #[must_use]
    pub fn allowed(&self) -> HashSet<Observed> {
        let (spec, mut waiters) = self.start.spec(self.waiters());
        let mut leaving = vec![None; self.ops.len()];
        for (op, leaving) in self.ops.iter().zip(&mut leaving) {
            if *op == Op::Leave {
                *leaving = waiters.pop();
            }
        }
        let sides = self.ops.len();
        let (came, evicted, placed) = (vec![None; sides], vec![false; sides], vec![None; sides]);
        let run = SpecRun { cell: *self, spec, waiters, leaving, came, evicted, placed };
        let mut allowed = HashSet::new();
        run.orders(&vec![0; sides], &mut allowed);
        allowed
    }

    /// In how many steps an operation is done.
    fn steps(&self, op: Op) -> usize {
        self.parts(op) + usize::from(self.looks_first(op)) + usize::from(self.drops_first(op))
    }

    /// Whether the operation is a detach of which the cell can tell that it dropped the clean page before what still
    /// comes before it: the other two had looked whether there is a pager, one puts a page there again and the other makes that dirty.
    /// To all others that is an eviction and then a detach.
    fn drops_first(&self, op: Op) -> bool {
        op == Op::Detach && matches!(self.ops, Ops::Three(_)) && self.has(Op::Supply) && self.has(Op::Dirty)
    }

    /// Whether the operation is one that looks at the size before all else, and the cell can tell: a shrink comes
    /// after that, and what is then looked for may have gone, or failed. Of a supply and a dirty that shows only if a
    /// detach comes between the shrink and the rest.
    fn looks_first(&self, op: Op) -> bool {
        let shows = match op {
            Op::Fail | Op::QueryDirty => true,
            Op::Supply | Op::Dirty => matches!(self.ops, Ops::Three(_)),
            _ => false,
        };
        shows && self.has(Op::Shrink)
    }

    fn parts(&self, op: Op) -> usize {
        match op {
            // The second step is the end of the grace period. In `Evicting` that is the end of the
            // guard which everyone waits for.
            Op::Evict if !self.start.is_evicting() => 2 + usize::from(self.start.traps()),
            Op::Evict | Op::Zero => 1 + usize::from(self.start.traps()),
            // The page is there, and then its request is told. What is seen of the page goes on in between,
            // and a detach still fails the request.
            Op::Supply if self.ops.len() > 2 && self.start.is_requested() => 2,
            // The page is rescued, and then asked for: another eviction may come in between.
            Op::Write if self.start == Start::TrapEvicting => 2,
            // The same, and then marked.
            Op::AlwaysNeed if self.start.is_evicting() => 2,
            // The service takes until it finds nothing: what comes in between is taken too. Those who wait
            // for leave are told after the pages are dirty.
            Op::PortTake | Op::Dirty => 2,
            // What is in flight fails for whoever looks, and then COMPLETE is there. A third thread may take in between.
            Op::Detach if matches!(self.ops, Ops::Three(_)) => 2,
            _ => 1,
        }
    }

    /// Runs the cell once. Under loom, that is one execution.
    ///
    /// # Panics
    /// When the execution is not allowed.
    pub fn run(&self, allowed: &HashSet<Observed>) {
        let mut stage = self.stage();
        let actor = |side| stage.actor(self.ops[side], BYTES[side]);
        let mut actors: Vec<Actor> = (0..self.ops.len()).rev().map(actor).collect();
        let first = actors.pop().expect("a cell has operations");
        let mut threads = Vec::new();
        for side in (1..self.ops.len()).filter(|side| !self.follows(*side)) {
            let calls = 1 + usize::from(self.follows(side + 1));
            let own: Vec<Actor> = (0..calls).filter_map(|_| actors.pop()).collect();
            threads.push(loom::thread::spawn(move || own.into_iter().map(Actor::act).collect::<Vec<_>>()));
        }
        let mut acted = vec![first.act()];
        acted.extend(threads.into_iter().flat_map(|thread| thread.join().expect("the other thread ends")));
        self.check(stage, acted, allowed);
    }

    /// Runs a cell of two operations, of which the first stops for ever before a step: the other must end
    /// meanwhile. Then it goes on after all, and what comes of both must be allowed. Returns whether it had
    /// stopped: it has fewer steps otherwise.
    ///
    /// # Panics
    /// When the execution is not allowed.
    #[must_use]
    pub fn run_stopped(&self, stop: (usize, Steps), allowed: &HashSet<Observed>) -> bool {
        let mut stage = self.stage();
        let [mine, others] = [0, 1].map(|side| stage.actor(self.ops[side], BYTES[side]));
        let waits = if self.ops[1].ends_waits() { stage.waits() } else { Vec::new() };
        let met = beside_a_stop(stop, waits, || mine.act(), || others.act());
        assert!(met.all_woken, "{self}: one who waited is not woken, though the VMO is detached");
        self.check(stage, vec![met.mine, met.others], allowed);
        met.has_stopped
    }

    fn stage(&self) -> Stage {
        Stage::new(self.start, self.ops.iter().any(|op| op.resizes()), self.waiters(), 1)
    }

    fn check(&self, stage: Stage, acted: Vec<Acted>, allowed: &HashSet<Observed>) {
        let observed = stage.observe(self, acted);
        assert!(allowed.contains(&observed), "{self}: {observed:#?}\nis none of\n{allowed:#?}");
    }
}

/// What came of two calls, of which one stopped.
pub(crate) struct Met<M, O> {
    pub(crate) mine: M,
    pub(crate) others: O,
    /// Whether those who waited had been woken when the other call had ended, before the stopped one went on.
    pub(crate) all_woken: bool,
    pub(crate) has_stopped: bool,
}

/// Makes a call that stops before a step, and beside it another, at whose end it goes on.
pub(crate) fn beside_a_stop<M, O: 'static>(
    (number, steps): (usize, Steps),
    waits: Vec<Watched>,
    mine: impl FnOnce() -> M,
    others: impl FnOnce() -> O + 'static,
) -> Met<M, O> {
    let thread = loom::thread::spawn(move || {
        let came = others();
        let all_woken = waits.iter().all(Watched::is_woken);
        stopped::resume();
        (came, all_woken)
    });
    stopped::stop_before(number, steps);
    let mine = mine();
    let has_stopped = stopped::over();
    let (others, all_woken) = thread.join().expect("the other thread ends");
    Met { mine, others, all_woken, has_stopped }
}

/// The specification, part of the way through one order.
#[derive(Clone)]
struct SpecRun {
    cell: Cell,
    spec: Spec,
    waiters: Vec<Waiter>,
    leaving: Vec<Option<Waiter>>,
    came: Vec<Option<Result<Came, Waiter>>>,
    evicted: Vec<bool>,
    placed: Vec<Option<usize>>,
}

impl SpecRun {
    /// Follows every order of the steps that are left.
    fn orders(self, done: &[usize], allowed: &mut HashSet<Observed>) {
        let mut over = true;
        for side in 0..done.len() {
            let is_over = |side: usize| done[side] == self.cell.steps(self.cell.ops[side]);
            if !is_over(side) {
                over = false;
                if self.cell.follows(side) && !is_over(side - 1) {
                    continue;
                }
                let mut next = self.clone();
                next.step(side, done[side]);
                let mut done = done.to_vec();
                done[side] += 1;
                next.orders(&done, allowed);
            }
        }
        if over {
            allowed.insert(self.observe());
        }
    }

    /// A step of an operation that has several. False: it is done in one.
    fn part(&mut self, side: usize, step: usize) -> bool {
        let spec = &mut self.spec;
        let op = self.cell.ops[side];
        if step == 1 && matches!(op, Op::Dirty | Op::Zero | Op::Evict) && self.cell.start.traps() {
            spec.tell(0, 1);
            return true;
        }
        if op == Op::Detach && step == 1 {
            spec.complete();
            return true;
        }
        if op == Op::Supply && step == 1 {
            if let Some(request) = self.placed[side] {
                spec.arrived_for(request, 0);
            }
            return true;
        }
        if op == Op::Supply && self.cell.parts(op) == 2 && spec.size() > 0 {
            let came = spec.place(0, BYTES[side]).map(|request| self.placed[side] = request);
            self.came[side] = Some(Ok(came.into()));
            return true;
        }
        let rescues = matches!(op, Op::Write | Op::AlwaysNeed);
        if rescues && self.cell.parts(op) == 2 && step == 0 {
            if spec.size() > 0 {
                spec.rescue(0);
            }
            return true;
        }
        if step > 0 && !rescues {
            if self.evicted[side] && spec.size() > 0 {
                spec.reclaim(0);
            }
            if let Some(Ok(Came::Packets(packets))) = &mut self.came[side] {
                packets.extend(spec.take());
            }
            return true;
        }
        false
    }

    /// The look at the size that comes before all else. What comes of the call, if that is clear by it.
    fn look(&mut self, side: usize, is_first: bool) -> Option<Came> {
        let out = self.spec.size() == 0;
        match self.cell.ops[side] {
            _ if is_first => out.then_some(Came::Failed(Status::OutOfRange)),
            _ if !out => None,
            // The page has gone since.
            Op::Fail => Some(Came::Nothing),
            Op::QueryDirty => Some(Came::Runs(self.spec.dirty_runs(0, 1))),
            _ if self.spec.is_detached() => Some(Came::Failed(Status::BadState)),
            Op::Supply => Some(Came::Nothing),
            _ => None,
        }
    }

    /// The number of a step without what comes before all else. `None`: it was that, or what comes of the call is clear
    /// by it.
    fn after_the_first(&mut self, side: usize, step: usize) -> Option<usize> {
        let op = self.cell.ops[side];
        if self.cell.drops_first(op) && step == 0 {
            self.spec.evict(0);
            self.spec.reclaim(0);
            return None;
        }
        if !self.cell.looks_first(op) {
            return Some(step - usize::from(self.cell.drops_first(op)));
        }
        if step < 2
            && self.came[side].is_none()
            && let Some(came) = self.look(side, step == 0)
        {
            self.came[side] = Some(Ok(came));
        }
        if step == 0 || (step == 1 && self.came[side].is_some()) { None } else { Some(step - 1) }
    }

    fn step(&mut self, side: usize, step: usize) {
        let Some(step) = self.after_the_first(side, step) else { return };
        let op = self.cell.ops[side];
        if self.part(side, step) {
            return;
        }
        let spec = &mut self.spec;
        let access = |access| match access {
            Access::Done(byte) => Ok(Came::Byte(byte)),
            Access::Failed(status) => Ok(Came::Failed(status)),
            Access::Waits(waiter) => Err(waiter),
        };
        let out = spec.size() == 0;
        let came = match op {
            Op::Supply
            | Op::Fail
            | Op::Dirty
            | Op::Zero
            | Op::WritebackBegin
            | Op::WritebackEnd
            | Op::DontNeed
            | Op::QueryDirty
                if out =>
            {
                Ok(Came::Failed(Status::OutOfRange))
            }
            Op::Evict if out => Ok(Came::Evicted(0)),
            Op::Grow => {
                spec.set_size(GROWN);
                Ok(Came::Nothing)
            }
            Op::Shrink => {
                spec.set_size(0);
                Ok(Came::Nothing)
            }
            Op::Read => access(spec.read(0, 1)),
            Op::Write => access(spec.write(0, 1, BYTES[side])),
            Op::Leave => {
                if let Some(waiter) = self.leaving[side].take() {
                    spec.leave(&waiter);
                }
                Ok(Came::Nothing)
            }
            Op::Supply => Ok(spec.supply(0, BYTES[side]).into()),
            Op::Fail => {
                spec.fail(0, 1, Status::Io);
                Ok(Came::Nothing)
            }
            Op::Dirty => Ok(spec.dirty(0, 1).into()),
            Op::Zero => {
                (0..self.cell.start.pages()).for_each(|page| spec.zero(page));
                Ok(Came::Nothing)
            }
            Op::WritebackBegin => {
                spec.writeback_begin(0);
                Ok(Came::Nothing)
            }
            Op::WritebackEnd => {
                spec.writeback_end(0);
                Ok(Came::Nothing)
            }
            Op::Evict => {
                self.evicted[side] = spec.evict(0);
                Ok(Came::Evicted(u64::from(self.evicted[side])))
            }
            Op::AlwaysNeed => access(spec.always_need(0)),
            Op::DontNeed => {
                spec.dont_need(0);
                Ok(Came::Nothing)
            }
            Op::Commit => access(spec.commit(0)),
            Op::QueryDirty => Ok(Came::Runs(spec.dirty_runs(0, 1))),
            Op::PortTake => Ok(Came::Packets(spec.take())),
            Op::PortClose => {
                spec.close_port();
                Ok(Came::Nothing)
            }
            Op::Detach if self.cell.parts(op) > 1 => {
                spec.begin_detach();
                spec.fail_all();
                Ok(Came::Nothing)
            }
            Op::Detach => {
                spec.detach();
                Ok(Came::Nothing)
            }
            Op::PagerClose => {
                spec.close_pager();
                Ok(Came::Nothing)
            }
            Op::VmoDrop => {
                spec.drop_vmo();
                Ok(Came::Nothing)
            }
        };
        self.came[side] = Some(came);
    }

    fn observe(mut self) -> Observed {
        if self.cell.start.is_evicting() && self.spec.size() > 0 {
            self.spec.reclaim(0);
        }
        let mut all: Vec<Result<Came, Waiter>> = self.waiters.into_iter().map(Err).collect();
        all.extend(self.came.into_iter().flatten());
        while let Some(woken) = all.iter().position(|one| matches!(one, Err(waiter) if self.spec.is_woken(waiter))) {
            let Err(waiter) = all.remove(woken) else { unreachable!() };
            let came = match self.spec.resume(waiter) {
                Access::Done(byte) => Ok(Came::Byte(byte)),
                Access::Failed(status) => Ok(Came::Failed(status)),
                Access::Waits(waiter) => Err(waiter),
            };
            all.insert(woken, came);
        }
        let all: Vec<Came> = all.into_iter().map(|one| one.unwrap_or(Came::StillWaits)).collect();
        let (waiters, came) = all.split_at(all.len() - self.cell.ops.len());
        let vmo = !self.cell.has(Op::VmoDrop);
        let counts = vmo.then(|| {
            let (resident, dirty, in_flight) = self.spec.counts();
            (resident, dirty, in_flight, self.spec.zeros())
        });
        let packets = self.spec.take();
        let byte = match self.spec.page(0) {
            Page::Clean(byte) | Page::Dirty(byte) | Page::AwaitingClean(byte) => Some(byte),
            Page::Absent | Page::Evicting(_) | Page::Zero | Page::ZeroAwaiting => None,
        };
        let dirty_after_end = (vmo && !self.cell.has(Op::PagerClose)).then(|| {
            if self.spec.size() > 0 {
                self.spec.writeback_end(0);
            }
            self.spec.counts().1 + self.spec.zeros()
        });
        let spared = (vmo && self.cell.ops.iter().any(|op| op.marks())).then(|| self.spec.is_spared(0));
        let (came, waiters) = (came.to_vec(), waiters.to_vec());
        Observed { came, waiters, counts, packets, byte, dirty_after_end, spared }
    }
}

/// The model of one execution.
pub(crate) struct Stage {
    start: Start,
    pub(crate) platform: Arc<ModelPlatform>,
    /// The last handles are given away to the thread that ends them.
    pub(crate) port: Option<Arc<Port<ModelPlatform>>>,
    pub(crate) pager: Option<Arc<Pager<ModelPlatform>>>,
    pub(crate) vmo: Option<Arc<Vmo<ModelPlatform>>>,
    pub(crate) waiters: Vec<Waiting>,
    pub(crate) guard: Option<Guard>,
}

/// What one thread has in its hands.
pub(crate) struct Actor {
    op: Op,
    byte: u8,
    pages: u64,
    port: Option<Arc<Port<ModelPlatform>>>,
    pager: Option<Arc<Pager<ModelPlatform>>>,
    vmo: Option<Arc<Vmo<ModelPlatform>>>,
    waiter: Option<Waiting>,
}

// SAFETY: as for `Waiting`: loom's Arc lacks the declaration, not the reason.
unsafe impl Send for Actor {}

pub(crate) type Acted = Result<Came, Waiting>;

impl Stage {
    /// So many waiters, where the state has any, and at least so many pages.
    pub(crate) fn new(start: Start, resizes: bool, waiting: usize, pages: u64) -> Self {
        let options = u32::from(start.traps()) << 3 | u32::from(resizes) << 1;
        let world = World::with(VmoOptions::from_bits(options).expect("options"), start.pages().max(pages));
        let mut waiters = Vec::new();
        if start.is_zero() {
            world.zero(0, 2).expect("memory");
            if start == Start::ZeroAwaiting {
                let all = ByteRange::new(0, 2 * PAGE_SIZE);
                world.pager.writeback_begin(&world.vmo, all, Writeback::ZeroRanges).expect("pages of the VMO");
            }
        }
        if start.is_resident() {
            world.supply(0, FIRST).expect("attached");
        }
        if start.is_dirty() {
            if start.traps() {
                world.dirty(0, 1).expect("clean");
            }
            assert_eq!(world.write(0, FIRST).poll(), Some(Ok(FIRST)));
        }
        if start.is_awaiting() {
            world.begin(0).expect("a page of the VMO");
        }
        if start.has_waiters() {
            for _ in 0..waiting {
                let mut waiter = if start.is_asked() { world.write(0, WAITED) } else { world.read(0) };
                assert_eq!(waiter.poll(), None);
                waiters.push(waiter);
            }
        }
        if start.is_delivered() {
            assert_eq!(world.take_all().len(), 1);
        }
        if start.is_detached() {
            world.pager.detach_vmo(&world.vmo).expect("the pager's own VMO");
        }
        let guard = start.is_evicting().then(|| {
            let guard = world.platform.pin();
            assert_eq!(world.vmo.evict(PageCount(1), Evict::Any), PageCount(1));
            guard
        });
        let World { platform, pager, port, vmo } = world;
        Self { start, platform, port: Some(port), pager: Some(pager), vmo: Some(vmo), waiters, guard }
    }

    pub(crate) fn actor(&mut self, op: Op, byte: u8) -> Actor {
        let pager = if op == Op::PagerClose { self.pager.take() } else { self.pager.clone() };
        let vmo = if op == Op::VmoDrop { self.vmo.take() } else { self.vmo.clone() };
        let port = if op == Op::PortClose { self.port.take() } else { self.port.clone() };
        Actor {
            op,
            byte,
            pages: self.start.pages(),
            port: port.filter(|_| matches!(op, Op::PortTake | Op::PortClose)),
            pager: pager.filter(|_| op.uses_pager() || op == Op::PagerClose),
            vmo: vmo.filter(|_| op.uses_vmo() || op == Op::VmoDrop),
            waiter: if op == Op::Leave { self.waiters.pop() } else { None },
        }
    }

    /// Those who wait.
    pub(crate) fn waits(&self) -> Vec<Watched> {
        self.waiters.iter().map(Waiting::watched).collect()
    }

    fn observe(self, cell: &Cell, acted: Vec<Acted>) -> Observed {
        drop(self.guard);
        let mut all: Vec<Acted> = self.waiters.into_iter().map(Err).collect();
        all.extend(acted);
        let mut moved = true;
        while moved {
            moved = false;
            for one in &mut all {
                if let Err(waiting) = one
                    && let Some(result) = waiting.settle()
                {
                    *one = Ok(result.map_or_else(Came::Failed, Came::Byte));
                    moved = true;
                }
            }
        }
        let counts = |vmo: &Arc<Vmo<ModelPlatform>>| {
            let counts = vmo.counts();
            (counts.resident.0, counts.dirty.0, counts.in_flight, counts.zero.0)
        };
        let before = self.vmo.as_ref().map(counts);
        let packets = self.port.as_ref().map(|port| take_all(port)).unwrap_or_default();
        let byte = self.vmo.as_ref().and_then(|vmo| {
            let guard = self.platform.pin();
            let frame = vmo.lookup(&guard, PageIndex(0))?;
            let mut byte = [0];
            // SAFETY: the guard keeps the frame.
            unsafe { self.platform.copy_out(frame, 0, &mut byte) };
            Some(byte[0])
        });
        let dirty_after_end = self.pager.as_ref().zip(self.vmo.as_ref()).map(|(pager, vmo)| {
            if vmo.size() > 0 {
                pager.writeback_end(vmo, page(0)).expect("a page of the VMO");
            }
            let counts = counts(vmo);
            counts.1 + counts.3
        });
        let spared = self.vmo.as_ref().filter(|_| cell.ops.iter().any(|op| op.marks())).map(|vmo| {
            let (resident, dirty, ..) = counts(vmo);
            resident > dirty && vmo.evict(PageCount(1), Evict::Unused) == PageCount(0)
        });
        let all: Vec<Came> = all.into_iter().map(|one| one.unwrap_or(Came::StillWaits)).collect();
        let (waiters, came) = all.split_at(all.len() - cell.ops.len());
        let (came, waiters) = (came.to_vec(), waiters.to_vec());
        let observed = Observed { came, waiters, counts: before, packets, byte, dirty_after_end, spared };
        drop((self.vmo, self.pager, self.port));
        self.platform.check_nothing_left();
        observed
    }
}

impl Actor {
    pub(crate) fn act(self) -> Acted {
        let Self { op, byte, pages, port, pager, vmo, waiter } = self;
        let both = |pager: Option<Arc<Pager<ModelPlatform>>>, vmo: Option<Arc<Vmo<ModelPlatform>>>| {
            (pager.expect("the operation has the pager"), vmo.expect("the operation has the VMO"))
        };
        let poll = |mut waiting: Waiting| match waiting.poll() {
            Some(result) => Ok(result.map_or_else(Came::Failed, Came::Byte)),
            None => Err(waiting),
        };
        match op {
            Op::Read => poll(Waiting::read(vmo.expect("the operation has the VMO"), 0)),
            Op::Write => poll(Waiting::write(vmo.expect("the operation has the VMO"), 0, byte)),
            Op::Leave => {
                drop(waiter);
                Ok(Came::Nothing)
            }
            Op::Supply => {
                let (pager, vmo) = both(pager, vmo);
                Ok(supply(&pager, &vmo, 0, byte).into())
            }
            Op::Fail => {
                let (pager, vmo) = both(pager, vmo);
                Ok(pager.op_range(&vmo, PagerOp::Fail(Status::Io), page(0)).into())
            }
            Op::Dirty => {
                let (pager, vmo) = both(pager, vmo);
                Ok(pager.dirty_range(&vmo, page(0)).into())
            }
            Op::Zero => {
                let all = ByteRange::new(0, pages * PAGE_SIZE);
                Ok(zero_pages(&vmo.expect("the operation has the VMO"), all).into())
            }
            Op::Grow => Ok(vmo.expect("the operation has the VMO").set_size(GROWN * PAGE_SIZE).into()),
            Op::Shrink => Ok(vmo.expect("the operation has the VMO").set_size(0).into()),
            Op::WritebackBegin => {
                let (pager, vmo) = both(pager, vmo);
                Ok(pager.writeback_begin(&vmo, page(0), Writeback::All).into())
            }
            Op::WritebackEnd => {
                let (pager, vmo) = both(pager, vmo);
                Ok(pager.writeback_end(&vmo, page(0)).into())
            }
            Op::Evict => {
                let evicted = vmo.expect("the operation has the VMO").evict(PageCount(1), Evict::Any);
                Ok(Came::Evicted(evicted.0))
            }
            Op::AlwaysNeed => poll(Waiting::always_need(vmo.expect("the operation has the VMO"), 0, 1)),
            Op::DontNeed => Ok(vmo.expect("the operation has the VMO").dont_need(page(0)).into()),
            Op::Commit => poll(Waiting::commit(vmo.expect("the operation has the VMO"), 0, 1)),
            Op::QueryDirty => {
                let (pager, vmo) = both(pager, vmo);
                let mut runs = [DirtyRange::default()];
                let found = pager.query_dirty_ranges(&vmo, page(0), &mut runs);
                let in_words = |run: &DirtyRange| {
                    (run.offset / PAGE_SIZE, run.length / PAGE_SIZE, run.options == DirtyRange::ZERO)
                };
                Ok(found
                    .map_or_else(Came::Failed, |found| Came::Runs(runs[..found.actual].iter().map(in_words).collect())))
            }
            Op::PortTake => Ok(Came::Packets(take(&port.expect("the operation has the port")))),
            Op::PortClose => {
                drop(port);
                Ok(Came::Nothing)
            }
            Op::Detach => {
                let (pager, vmo) = both(pager, vmo);
                Ok(pager.detach_vmo(&vmo).map(drop).into())
            }
            Op::PagerClose => {
                drop(pager);
                Ok(Came::Nothing)
            }
            Op::VmoDrop => {
                drop(vmo);
                Ok(Came::Nothing)
            }
        }
    }
}

/// Everything that the port has, in the specification's words.
///
/// # Panics
/// When something follows COMPLETE.
fn take_all(port: &Port<ModelPlatform>) -> Vec<Packet> {
    in_words(&crate::world::take_all(port))
}

/// What one call takes.
fn take(port: &Port<ModelPlatform>) -> Vec<Packet> {
    let mut packets = [upager::Packet::default(); 4];
    let taken = port.take(&mut packets);
    in_words(&packets[..taken])
}

fn in_words(packets: &[upager::Packet]) -> Vec<Packet> {
    let mut all: Vec<Packet> = Vec::new();
    for packet in packets {
        assert!(!matches!(all.last(), Some((Command::Complete, _, _))), "a packet after COMPLETE");
        let range = packet.range();
        all.push((packet.command().expect("a command"), range.offset / PAGE_SIZE, range.length / PAGE_SIZE));
    }
    all
}
