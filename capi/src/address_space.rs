//! The address space of the process: VMARs, and what is mapped in them.
//!
//! ```text
//!   root            all addresses; the system says where what is made in it goes
//!     child         a reservation
//!       grandchild  a part of it
//! ```
//!
//! A mapping may be unmapped in part. So what is mapped is kept by *pieces*, each of one mapping, which ends
//! with its last piece. Until then the addresses of the pieces that went stay the mapping's.
//!
//! A tree behind a mutex: mapping and unmapping are system calls. Who waits for pages holds no lock, and nobody
//! looks here when a thread faults.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use upager::{ByteRange, Result, Status, Vmo};
use upager_linux::{Error, Mapper, Mapping, Protection, Reservation};

use crate::object::Host;
use crate::types::{ZX_VM_CAN_MAP_READ, ZX_VM_CAN_MAP_SPECIFIC, ZX_VM_CAN_MAP_WRITE, zx_vm_option_t};

/// How long the threads of the mapper may take to be done with a mapping that has ended: some milliseconds, if they run.
const SETTLES_WITHIN: Duration = Duration::from_secs(10);

/// Addresses in which VMARs and mappings can be made.
pub(crate) struct Vmar {
    addresses: Range<usize>,
    /// Its permissions, of `ZX_VM_CAN_MAP_*`.
    can: zx_vm_option_t,
    /// What its addresses are in. The root has none.
    reservation: Option<Arc<Reservation>>,
    /// Changed and read with the tree locked.
    destroyed: AtomicBool,
}

/// All addresses of the process. To be made once.
pub(crate) fn root() -> Arc<Vmar> {
    Arc::new(Vmar {
        addresses: 0..usize::MAX,
        can: ZX_VM_CAN_MAP_READ | ZX_VM_CAN_MAP_WRITE | ZX_VM_CAN_MAP_SPECIFIC,
        reservation: None,
        destroyed: AtomicBool::new(false),
    })
}

/// Where something is to go.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    Anywhere,
    /// So far from the start of the VMAR.
    At(u64),
}

/// Whether a call may concern the VMARs in that of its handle.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Children {
    Yes,
    No,
}

struct Mapped {
    mapping: Mapping,
    /// Whether the handles that it was made with, and its VMAR, can write.
    may_write: bool,
}

#[derive(Clone)]
struct Piece {
    end: usize,
    mapped: Arc<Mapped>,
}

/// A part of a mapping.
struct Part {
    mapped: Arc<Mapped>,
    addresses: Range<usize>,
}

struct Tree {
    /// By where they begin.
    pieces: BTreeMap<usize, Piece>,
    /// But for the root; each with its parent.
    vmars: Vec<(Arc<Vmar>, Arc<Vmar>)>,
}

static MAPPER: OnceLock<Mapper> = OnceLock::new();
static TREE: Mutex<Tree> = Mutex::new(Tree { pieces: BTreeMap::new(), vmars: Vec::new() });

/// Nothing panics while it is locked but for want of memory, and then the tree is whole.
fn lock() -> MutexGuard<'static, Tree> {
    TREE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What serves the faults. Made with the first mapping.
///
/// NOT_SUPPORTED: the system has no userfaultfd for us.
fn mapper() -> Result<&'static Mapper> {
    if let Some(mapper) = MAPPER.get() {
        return Ok(mapper);
    }
    let made = Mapper::new().map_err(|error| match status_of(&error) {
        Status::NoMemory => Status::NoMemory,
        _ => Status::NotSupported,
    })?;
    Ok(MAPPER.get_or_init(|| made))
}

/// What an error of the system is to who called.
fn status_of(error: &Error) -> Status {
    match error {
        Error::Pager(status) => *status,
        _ => match error.raw_os_error() {
            Some(libc::ENOMEM | libc::ENFILE | libc::EMFILE) => Status::NoMemory,
            _ => Status::Internal,
        },
    }
}

fn overlap(one: &Range<usize>, other: &Range<usize>) -> Range<usize> {
    one.start.max(other.start)..one.end.min(other.end)
}

fn do_overlap(one: &Range<usize>, other: &Range<usize>) -> bool {
    !overlap(one, other).is_empty()
}

fn has_all_of(one: &Range<usize>, other: &Range<usize>) -> bool {
    one.start <= other.start && other.end <= one.end
}

/// The first addresses, so many, that none of these has.
fn gap(within: &Range<usize>, len: usize, mut taken: Vec<Range<usize>>) -> Option<usize> {
    taken.sort_by_key(|range| range.start);
    let mut at = within.start;
    for range in taken.iter().filter(|range| do_overlap(range, within)) {
        if range.start > at && range.start - at >= len {
            break;
        }
        at = at.max(range.end);
    }
    (at <= within.end && within.end - at >= len).then_some(at)
}

impl Vmar {
    pub(crate) const fn can(&self) -> zx_vm_option_t {
        self.can
    }

    pub(crate) const fn start(&self) -> usize {
        self.addresses.start
    }

    pub(crate) const fn is_root(&self) -> bool {
        self.reservation.is_none()
    }

    /// BAD_STATE: it was destroyed. INVALID_ARGS: it does not have these addresses.
    fn check(&self, range: &Range<usize>) -> Result<()> {
        // Relaxed: the lock orders it
        if self.destroyed.load(Relaxed) {
            return Err(Status::BadState);
        }
        if has_all_of(&self.addresses, range) { Ok(()) } else { Err(Status::InvalidArgs) }
    }

    /// Addresses in it.
    fn at(&self, offset: u64, len: usize) -> Result<Range<usize>> {
        let start = usize::try_from(offset).ok().and_then(|offset| self.addresses.start.checked_add(offset));
        let start = start.ok_or(Status::InvalidArgs)?;
        Ok(start..start.checked_add(len).ok_or(Status::InvalidArgs)?)
    }
}

impl Tree {
    fn children<'a>(&'a self, vmar: &'a Arc<Vmar>) -> impl Iterator<Item = &'a Arc<Vmar>> {
        self.vmars.iter().filter(|(_, parent)| Arc::ptr_eq(parent, vmar)).map(|(child, _)| child)
    }

    /// The pieces that have an address of the range, ascending.
    fn overlapping<'a>(&'a self, range: &'a Range<usize>) -> impl Iterator<Item = (usize, &'a Piece)> {
        let first = self.pieces.range(..range.start).next_back().filter(|(_, piece)| piece.end > range.start);
        first.into_iter().chain(self.pieces.range(range.clone())).map(|(&start, piece)| (start, piece))
    }

    /// Where something in a VMAR goes that has a place there. `taken`: addresses that cannot be had besides, of use only if
    /// any place will do.
    fn place(&self, vmar: &Arc<Vmar>, place: Place, len: usize, taken: Vec<Range<usize>>) -> Result<Range<usize>> {
        match place {
            Place::At(offset) => {
                let range = vmar.at(offset, len)?;
                vmar.check(&range)?;
                let is_taken = self.overlapping(&range).next().is_some()
                    || self.children(vmar).any(|child| do_overlap(&child.addresses, &range));
                if is_taken { Err(Status::AlreadyExists) } else { Ok(range) }
            }
            Place::Anywhere => {
                vmar.check(&vmar.addresses)?;
                let children = self.children(vmar).map(|child| child.addresses.clone());
                let pieces = self.overlapping(&vmar.addresses).map(|(start, piece)| start..piece.end);
                let taken = taken.into_iter().chain(children).chain(pieces).collect();
                let start = gap(&vmar.addresses, len, taken).ok_or(Status::NoMemory)?;
                Ok(start..start + len)
            }
        }
    }

    fn insert(&mut self, mapping: Mapping, may_write: bool) -> usize {
        let Range { start, end } = mapping.addresses().clone();
        self.pieces.insert(start, Piece { end, mapped: Arc::new(Mapped { mapping, may_write }) });
        start
    }

    /// Takes what is mapped in the range away. Returns the mappings that it was of, for the caller to drop when the tree is not locked.
    fn unmap(&mut self, range: &Range<usize>) -> Result<Vec<Arc<Mapped>>> {
        let found: Vec<_> = self.overlapping(range).map(|(start, piece)| (start, piece.clone())).collect();
        let mut ended = Vec::new();
        for (start, piece) in found {
            let part = overlap(&(start..piece.end), range);
            let whole = piece.mapped.mapping.addresses();
            let pieces =
                self.pieces.range(whole.clone()).filter(|(_, other)| Arc::ptr_eq(&other.mapped, &piece.mapped));
            if pieces.count() == 1 && part == (start..piece.end) {
                // Who is stopped in it, or works on it, is told. The addresses go with the last of them.
                piece.mapped.mapping.close();
            } else {
                let cut = piece.mapped.mapping.cut(part.start - whole.start, part.len());
                cut.map_err(|error| status_of(&error))?;
            }
            self.pieces.remove(&start);
            if part.end < piece.end {
                self.pieces.insert(part.end, piece.clone());
            }
            if start < part.start {
                self.pieces.insert(start, Piece { end: part.start, ..piece.clone() });
            }
            ended.push(piece.mapped);
        }
        Ok(ended)
    }

    /// Destroys a VMAR and all in it. As `unmap`.
    fn destroy(&mut self, vmar: &Arc<Vmar>) -> Result<Vec<Arc<Mapped>>> {
        let ended = self.unmap(&vmar.addresses)?; // none of those above it has pieces there
        let mut gone = vec![vmar.clone()];
        let mut nth = 0;
        while let Some(parent) = gone.get(nth).cloned() {
            gone.extend(self.children(&parent).cloned());
            nth += 1;
        }
        self.vmars.retain(|(vmar, _)| !gone.iter().any(|gone| Arc::ptr_eq(gone, vmar)));
        for vmar in gone {
            vmar.destroyed.store(true, Relaxed); // Relaxed: the lock orders it
        }
        Ok(ended)
    }

    /// Whether the call may go on, with what it finds in the children.
    fn check_children(&self, vmar: &Arc<Vmar>, range: &Range<usize>, children: Children) -> Result<()> {
        vmar.check(range)?;
        let concerns = self.children(vmar).any(|child| do_overlap(&child.addresses, range));
        if children == Children::No && concerns { Err(Status::AccessDenied) } else { Ok(()) }
    }

    /// The parts of mappings that the range consists of. None: an address has none.
    fn covering(&self, range: &Range<usize>) -> Option<Vec<Part>> {
        let mut reached = range.start;
        let mut parts = Vec::new();
        for (start, piece) in self.overlapping(range) {
            if start > reached {
                return None;
            }
            reached = piece.end;
            parts.push(Part { mapped: piece.mapped.clone(), addresses: overlap(&(start..piece.end), range) });
        }
        (reached >= range.end).then_some(parts)
    }
}

/// Maps a part of a VMO, and returns where.
///
/// BAD_STATE: the VMAR was destroyed. INVALID_ARGS: it is not so large. ALREADY_EXISTS: there is something. NO_MEMORY: there is no
/// room. NOT_SUPPORTED: places in the root; a place that a part of a mapping had of which another part is there still; no userfaultfd.
pub(crate) fn map(
    vmar: &Arc<Vmar>,
    place: Place,
    vmo: &Arc<Vmo<Host>>,
    range: ByteRange,
    protection: Protection,
    may_write: bool,
) -> Result<usize> {
    let may_write = may_write && vmar.can & ZX_VM_CAN_MAP_WRITE != 0;
    let Some(reservation) = &vmar.reservation else {
        let Place::Anywhere = place else { return Err(Status::NotSupported) };
        let mapping = mapper()?.map(vmo, range, protection).map_err(|error| status_of(&error))?;
        return Ok(lock().insert(mapping, may_write));
    };
    let len = usize::try_from(range.length).map_err(|_| Status::OutOfRange)?;
    loop {
        let mut tree = lock();
        let at = tree.place(vmar, place, len, reservation.taken())?;
        match mapper()?.map_at(reservation, at.start, vmo, range, protection) {
            Ok(mapping) => return Ok(tree.insert(mapping, may_write)),
            Err(Error::Pager(Status::AlreadyExists)) => {}
            Err(error) => return Err(status_of(&error)),
        }
        // What was there has ended, all of it or a part.
        if tree.pieces.values().any(|piece| do_overlap(piece.mapped.mapping.addresses(), &at)) {
            return Err(Status::NotSupported);
        }
        drop(tree);
        if !reservation.wait_until_free(&at, SETTLES_WITHIN) {
            return Err(Status::NoMemory);
        }
    }
}

/// Makes a VMAR in another one.
///
/// BAD_STATE, INVALID_ARGS, ALREADY_EXISTS, NO_MEMORY, NOT_SUPPORTED: as for [`map`].
pub(crate) fn allocate(parent: &Arc<Vmar>, place: Place, len: usize, can: zx_vm_option_t) -> Result<Arc<Vmar>> {
    let destroyed = AtomicBool::new(false);
    let (child, mut tree) = if let Some(reservation) = &parent.reservation {
        let tree = lock();
        let addresses = tree.place(parent, place, len, Vec::new())?;
        (Vmar { addresses, can, reservation: Some(reservation.clone()), destroyed }, tree)
    } else {
        let Place::Anywhere = place else { return Err(Status::NotSupported) };
        let reservation = Reservation::new(len).map_err(|error| status_of(&error))?;
        (Vmar { addresses: reservation.addresses().clone(), can, reservation: Some(reservation), destroyed }, lock())
    };
    let child = Arc::new(child);
    tree.vmars.push((child.clone(), parent.clone()));
    Ok(child)
}

/// Ends a VMAR, those in it, and all that is mapped there.
///
/// BAD_STATE: it was destroyed.
pub(crate) fn destroy(vmar: &Arc<Vmar>) -> Result<()> {
    let mut tree = lock();
    vmar.check(&vmar.addresses)?;
    let ended = tree.destroy(vmar)?;
    drop(tree);
    drop(ended);
    Ok(())
}

/// Takes what is mapped in the range away, and destroys the VMARs in it.
///
/// BAD_STATE: the VMAR was destroyed. INVALID_ARGS: it does not have the range, or a VMAR lies in it only in part. ACCESS_DENIED:
/// there is one, and children are not the call's. NOT_FOUND: there is nothing. NO_MEMORY: for want of it a part may be there still.
pub(crate) fn unmap(vmar: &Arc<Vmar>, range: &Range<usize>, children: Children) -> Result<()> {
    let mut tree = lock();
    tree.check_children(vmar, range, children)?;
    let inside: Vec<_> = tree.children(vmar).filter(|child| do_overlap(&child.addresses, range)).cloned().collect();
    if !inside.iter().all(|child| has_all_of(range, &child.addresses)) {
        return Err(Status::InvalidArgs);
    }
    if inside.is_empty() && tree.overlapping(range).next().is_none() {
        return Err(Status::NotFound);
    }
    let mut ended = Vec::new();
    for child in inside {
        ended.extend(tree.destroy(&child)?);
    }
    ended.extend(tree.unmap(range)?);
    drop(tree);
    drop(ended);
    Ok(())
}

/// Changes what may be done to all of the range.
///
/// BAD_STATE, ACCESS_DENIED: as for [`unmap`]; ACCESS_DENIED: a part may not be written to. NOT_FOUND: an address has no mapping.
pub(crate) fn protect(
    vmar: &Arc<Vmar>,
    range: &Range<usize>,
    protection: Protection,
    children: Children,
) -> Result<()> {
    let tree = lock();
    tree.check_children(vmar, range, children)?;
    let parts = tree.covering(range).ok_or(Status::NotFound)?;
    if protection == Protection::ReadWrite && !parts.iter().all(|part| part.mapped.may_write) {
        return Err(Status::AccessDenied);
    }
    for part in &parts {
        let (mapping, addresses) = (&part.mapped.mapping, &part.addresses);
        let offset = addresses.start - mapping.addresses().start;
        mapping.protect_part(offset, addresses.len(), protection).map_err(|error| status_of(&error))?;
    }
    Ok(())
}

/// What is mapped in all of the range: bytes of VMOs. `writes`: they must be such as may be written to.
///
/// BAD_STATE: the VMAR was destroyed, or an address has no mapping. ACCESS_DENIED: as for [`protect`].
pub(crate) fn mapped(
    vmar: &Arc<Vmar>,
    range: &Range<usize>,
    children: Children,
    writes: bool,
) -> Result<Vec<(Arc<Vmo<Host>>, ByteRange)>> {
    let tree = lock();
    tree.check_children(vmar, range, children)?;
    let parts = tree.covering(range).ok_or(Status::BadState)?;
    if writes && !parts.iter().all(|part| part.mapped.may_write) {
        return Err(Status::AccessDenied);
    }
    let bytes = |part: &Part| {
        let mapping = &part.mapped.mapping;
        let offset = mapping.range().offset + (part.addresses.start - mapping.addresses().start) as u64;
        (mapping.vmo().clone(), ByteRange::new(offset, part.addresses.len() as u64))
    };
    // Not the mappings: the call may take long, and would keep their addresses.
    Ok(parts.iter().map(bytes).collect())
}

/// How many mappings a VMO has. One that was cut into pieces is so many.
pub(crate) fn count(vmo: &Arc<Vmo<Host>>) -> usize {
    lock().pieces.values().filter(|piece| Arc::ptr_eq(piece.mapped.mapping.vmo(), vmo)).count()
}
