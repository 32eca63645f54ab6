//! The pager: it creates VMOs, is the only one to act for their service, and detaches them.

use core::fmt;
use core::ops::BitOr;
use core::ptr;

use crate::platform::Platform;
use crate::pool::Pool;
use crate::port::Port;
use crate::reclaim::Retired;
use crate::resize::Extent;
use crate::source::Source;
use crate::stats::Figures;
use crate::status::{Result, Status};
use crate::sync::{AcqRel, Acquire, Arc, AtomicPtr, AtomicU64, Guard, Hint, Relaxed, Release, SeqCst, Tally, fence};
use crate::table::Table;
use crate::units::{ByteRange, MAX_VMO_SIZE, PAGE_SIZE, PageCount, PageRange};
use crate::vmo::{Inner, Vmo};
use crate::writeback::Writeback;

/// A pager. Share it in an `Arc`; dropping it closes it.
///
/// Closing drops no page. What is in flight fails, with [`BadState`](Status::BadState), as does
/// every later access that needs the pager; packets that were not delivered are withdrawn.
///
/// ```
/// use std::sync::Arc;
/// use upager::*;
///
/// let platform = Arc::new(HeapPlatform::new());
/// let pager = Pager::new(platform.clone());
/// let port = Port::new(platform.clone());
/// let vmo = pager.create_vmo(&port, 7, VmoOptions::NONE, 2 * PAGE_SIZE)?;
///
/// std::thread::scope(|s| {
///     let reader = s.spawn(|| {
///         let mut text = [0; 5];
///         block_on(vmo.read(ByteOffset(4096), &mut text)).map(|()| text)
///     });
///     let mut packets = [Packet::default(); 8];
///     port.wait_until(None, &mut packets)?;
///     assert_eq!(packets[0], Packet::page_request(7, Command::Read, 4096, 4096));
///     let frame = OwnedFrame::new(&*platform)?;
///     frame.write(0, b"hello")?;
///     pager.supply_frames(&vmo, packets[0].range(), [frame])?;
///     assert_eq!(reader.join().unwrap(), Ok(*b"hello"));
///     Ok::<(), Status>(())
/// })?;
///
/// pager.detach_vmo(&vmo)?;
/// assert_eq!(block_on(vmo.read(ByteOffset(0), &mut [0])), Err(Status::BadState));
/// # Ok::<(), Status>(())
/// ```
pub struct Pager<P: Platform> {
    shared: Arc<Shared<P>>,
}

/// What the pager's VMOs hold of it.
pub(crate) struct Shared<P: Platform> {
    platform: Arc<P>,
    vmos: Pool<Entry<P>>,
    /// How many VMOs have been made.
    made: AtomicU64,
    /// The VMO at which the next eviction over all of them begins.
    hand: Hint,
    /// Passes over all of them so far.
    passes: Tally,
}

/// A place for one VMO in a registry: a port's or a pager's. Owns one reference to it.
pub(crate) struct Entry<P: Platform>(AtomicPtr<Inner<P>>);

impl<P: Platform> Default for Entry<P> {
    fn default() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }
}

impl<P: Platform> Entry<P> {
    pub(crate) fn put(&self, vmo: &Arc<Inner<P>>) {
        let at = Arc::into_raw(vmo.clone()).cast_mut();
        self.0.store(at, Release); // Release: the VMO is made before it is found
    }

    /// The VMO, while the guard lives.
    pub(crate) fn get<'g>(&self, guard: &'g Guard) -> Option<&'g Inner<P>> {
        let _ = guard;
        let at = self.0.load(Acquire); // Acquire: pairs with `put`
        // SAFETY: the entry's reference keeps the VMO; `clear`, which gives it up, does so only
        // after every guard that is live now has been dropped.
        unsafe { at.as_ref() }
    }

    /// As [`get`](Self::get), for longer than a guard.
    fn share(&self, guard: &Guard) -> Option<Arc<Inner<P>>> {
        let at = ptr::from_ref(self.get(guard)?);
        // SAFETY: `put` made the pointer from an Arc, and its reference is not given up while the
        // guard lives, see `get`.
        unsafe { Arc::increment_strong_count(at) };
        // SAFETY: the reference counted just now becomes this one.
        Some(unsafe { Arc::from_raw(at) })
    }

    /// Gives up the entry's reference to this VMO, after the grace period. False: it has none.
    /// Another VMO that the entry serves meanwhile is left alone.
    pub(crate) fn clear(&self, vmo: &Inner<P>, guard: &Guard) -> bool {
        let at = ptr::from_ref(vmo).cast_mut();
        // AcqRel: exactly one caller gets the pointer; what it names was made before
        if self.0.compare_exchange(at, ptr::null_mut(), AcqRel, Acquire).is_err() {
            return false;
        }
        // SAFETY: `put` made the pointer from an Arc, and this swap took it from the entry.
        let vmo = unsafe { Arc::from_raw(at.cast_const()) };
        guard.defer(move || drop(vmo));
        true
    }
}

/// How a VMO is made (`options` of `zx_pager_create_vmo()`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct VmoOptions(u32);

impl VmoOptions {
    /// Of fixed size, its pages made dirty by the first write.
    pub const NONE: Self = Self(0);
    /// `ZX_VMO_RESIZABLE`: [`Vmo::set_size`] works.
    pub const RESIZABLE: Self = Self(1 << 1);
    /// `ZX_VMO_TRAP_DIRTY`: the service is asked before a page becomes dirty, and answers with
    /// [`Pager::dirty_range`].
    pub const TRAP_DIRTY: Self = Self(1 << 3);

    /// The options with these bits.
    ///
    /// Errors: [`InvalidArgs`](Status::InvalidArgs) for a bit that means nothing.
    pub const fn from_bits(bits: u32) -> Result<Self> {
        if bits & !(Self::RESIZABLE.0 | Self::TRAP_DIRTY.0) == 0 { Ok(Self(bits)) } else { Err(Status::InvalidArgs) }
    }

    const fn has(self, option: Self) -> bool {
        self.0 & option.0 != 0
    }
}

/// ```
/// # use upager::VmoOptions;
/// let both = VmoOptions::RESIZABLE | VmoOptions::TRAP_DIRTY;
/// assert_eq!(VmoOptions::from_bits(1 << 1 | 1 << 3), Ok(both));
/// ```
impl BitOr for VmoOptions {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What [`Pager::op_range`] does to a range.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PagerOp {
    /// `ZX_PAGER_OP_FAIL`, see [`Pager::fail_range`].
    Fail(Status),
    /// `ZX_PAGER_OP_DIRTY`, see [`Pager::dirty_range`].
    Dirty,
    /// `ZX_PAGER_OP_WRITEBACK_BEGIN`, see [`Pager::writeback_begin`].
    WritebackBegin(Writeback),
    /// `ZX_PAGER_OP_WRITEBACK_END`, see [`Pager::writeback_end`].
    WritebackEnd,
}

impl PagerOp {
    /// The operation of a raw `op` and `data`, as `zx_pager_op_range()` takes them.
    ///
    /// Errors: [`NotSupported`](Status::NotSupported) for an unknown `op`,
    /// [`InvalidArgs`](Status::InvalidArgs) for `data` that does not go with it.
    ///
    /// ```
    /// use upager::{PagerOp, Status};
    /// assert_eq!(PagerOp::from_raw(1, -40i64 as u64), Ok(PagerOp::Fail(Status::Io)));
    /// assert_eq!(PagerOp::from_raw(1, -2i64 as u64), Err(Status::InvalidArgs));
    /// assert_eq!(PagerOp::from_raw(5, 0), Err(Status::NotSupported));
    /// ```
    pub fn from_raw(op: u32, data: u64) -> Result<Self> {
        match (op, data) {
            (1, _) => {
                let status = i32::try_from(data.cast_signed()).ok().and_then(Status::from_raw);
                status.filter(|status| status.may_fail_a_request()).map(Self::Fail).ok_or(Status::InvalidArgs)
            }
            (2, 0) => Ok(Self::Dirty),
            (3, 0) => Ok(Self::WritebackBegin(Writeback::All)),
            (3, 1) => Ok(Self::WritebackBegin(Writeback::ZeroRanges)),
            (4, 0) => Ok(Self::WritebackEnd),
            (2..=4, _) => Err(Status::InvalidArgs),
            _ => Err(Status::NotSupported),
        }
    }
}

/// What a detach found in flight.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub struct Detached {
    /// Requests that this call failed.
    pub failed_requests: u64,
    /// Clean pages that this call dropped.
    pub dropped_pages: PageCount,
}

impl<P: Platform> fmt::Debug for Pager<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pager").finish_non_exhaustive()
    }
}

impl<P: Platform> Shared<P> {
    /// Calls `f` with each VMO once, from the hand on and around, until it returns false. The next round
    /// begins after the last one called.
    pub(crate) fn round(&self, mut f: impl FnMut(&Arc<Inner<P>>) -> bool) {
        let hand = self.hand.get() as u32;
        let mut goes_on = true;
        for ahead in [true, false] {
            self.vmos.glance(|index, entry| {
                if !goes_on || (index >= hand) != ahead {
                    return;
                }
                // Pinned only to get hold of the VMO, so that a long round delays no frame.
                let vmo = entry.share(&self.platform.pin());
                if let Some(vmo) = vmo {
                    goes_on = f(&vmo);
                    self.hand.set(index as usize + 1);
                }
            });
        }
    }

    /// A number for a pass of rounds, never 0.
    pub(crate) fn new_pass(&self) -> usize {
        self.passes.number() + 1
    }

    /// Has the next round begin at this VMO.
    pub(crate) fn begin_at(&self, entry: u32) {
        self.hand.set(entry as usize);
    }

    /// Gives up the VMO's entry.
    pub(crate) fn forget(&self, index: u32, vmo: &Inner<P>, guard: &Guard) {
        if self.vmos.get(index).is_some_and(|entry| entry.clear(vmo, guard)) {
            self.vmos.release(index);
        }
    }

    pub(crate) fn pin(&self) -> Guard {
        self.platform.pin()
    }

    /// Calls `f` with every VMO that was made before and is not gone.
    pub(crate) fn for_each_vmo(&self, guard: &Guard, mut f: impl FnMut(&Inner<P>)) {
        self.vmos.glance(|_, entry| {
            if let Some(vmo) = entry.get(guard) {
                f(vmo);
            }
        });
    }
}

impl<P: Platform> Pager<P> {
    /// A pager over the platform's frames (`zx_pager_create()`).
    #[must_use]
    pub fn new(platform: Arc<P>) -> Self {
        let (hand, passes) = (Hint::default(), Tally::default());
        Self { shared: Arc::new(Shared { platform, vmos: Pool::new(), made: AtomicU64::new(0), hand, passes }) }
    }

    /// Creates a VMO of `size` bytes, rounded up to pages. Its page requests arrive at `port`,
    /// under `key` (`zx_pager_create_vmo()`).
    ///
    /// Errors: [`OutOfRange`](Status::OutOfRange): larger than [`MAX_VMO_SIZE`]; [`NoMemory`](Status::NoMemory); [`NoResources`](Status::NoResources): the pager or the port
    /// has 2^17 VMOs.
    ///
    /// Lock-free. Memory: under 2 KiB, and 12 bytes for each 2 MiB up to 8 GiB.
    pub fn create_vmo(&self, port: &Port<P>, key: u64, options: VmoOptions, size: u64) -> Result<Vmo<P>> {
        if size > MAX_VMO_SIZE {
            return Err(Status::OutOfRange);
        }
        let pages = PageCount(size.div_ceil(PAGE_SIZE));
        let resizable = options.has(VmoOptions::RESIZABLE);
        let table = if resizable { Table::growing(pages)? } else { Table::new(pages)? };
        let vmos = &self.shared.vmos;
        let (entry, place) = vmos.claim()?;
        let made = port.shared().register(|port_entry| {
            let source = Source::new(port.shared().clone(), port_entry, key)?;
            let ours = &self.shared;
            Ok(Arc::new(Inner {
                table,
                source,
                platform: ours.platform.clone(),
                extent: Extent::new(pages, resizable),
                traps: options.has(VmoOptions::TRAP_DIRTY),
                hand: Hint::default(),
                dry: Hint::default(),
                figures: Figures::new(),
                pager: ours.clone(),
                entry,
                number: ours.made.fetch_add(1, Relaxed), // Relaxed: that no two get the same is all
            }))
        });
        let inner = made.inspect_err(|_| vmos.release(entry))?;
        place.put(&inner);
        Ok(Vmo::new(inner))
    }

    pub(crate) fn shared(&self) -> &Arc<Shared<P>> {
        &self.shared
    }

    pub(crate) fn owns(&self, vmo: &Vmo<P>) -> Result<()> {
        if vmo.is_of(&self.shared) { Ok(()) } else { Err(Status::InvalidArgs) }
    }

    /// Detaches the VMO from the pager (`zx_pager_detach_vmo()`).
    ///
    /// - No page request is made any more. The last packet is COMPLETE.
    /// - Requests in flight, delivered or not, fail with [`BadState`](Status::BadState), each
    ///   waiter exactly once; so does every later access that would have made one.
    /// - Clean pages are gone. Dirty pages stay, and can be read and written, until they have been
    ///   [queried](Self::query_dirty_ranges) and [written](Self::writeback_begin)
    ///   [back](Self::writeback_end). A write, or a [leave to dirty](Self::dirty_range), that began before
    ///   may make a page dirty after it, one that was just being evicted or awaited clean, as long as no
    ///   access has failed on that page.
    ///
    /// Detaching again is no error and does nothing, except to finish for a detacher that was
    /// stopped in the middle.
    ///
    /// Errors: [`InvalidArgs`](Status::InvalidArgs): the VMO is not this pager's.
    ///
    /// Lock-free, and waits for nobody: threads that are stopped inside a fault, a supply or a
    /// writeback delay only the freeing of memory. Costs the requests in flight and the clean
    /// pages, not the size of the VMO.
    pub fn detach_vmo(&self, vmo: &Vmo<P>) -> Result<Detached> {
        self.owns(vmo)?;
        let inner = vmo.inner();
        let failed_requests = inner.source.detach(&inner.table);
        // Pairs with the fences in `supply_frames` and `writeback_end`: a page that they put or
        // leave here is seen by the sweep below, or they see the mark that `detach` has made.
        fence(SeqCst);
        let dropped = Retired::new(inner).evict_clean(PageRange::ALL);
        Ok(Detached { failed_requests, dropped_pages: PageCount(dropped) })
    }

    /// One call for the operations on a range (`zx_pager_op_range()`).
    ///
    /// Errors: those of the operation.
    pub fn op_range(&self, vmo: &Vmo<P>, op: PagerOp, range: ByteRange) -> Result<()> {
        match op {
            PagerOp::Fail(status) => self.fail_range(vmo, range, status),
            PagerOp::Dirty => self.dirty_range(vmo, range),
            PagerOp::WritebackBegin(which) => self.writeback_begin(vmo, range, which),
            PagerOp::WritebackEnd => self.writeback_end(vmo, range),
        }
    }
}

impl<P: Platform> Drop for Pager<P> {
    fn drop(&mut self) {
        let guard = self.shared.platform.pin();
        self.shared.vmos.for_each_claimed(|_, entry| {
            if let Some(vmo) = entry.get(&guard) {
                vmo.source.close(&vmo.table);
                entry.clear(vmo, &guard);
            }
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::{HeapPlatform, Packet};

    #[test]
    fn a_vmo_that_is_gone_leaves_its_entry_to_another() {
        let platform = Arc::new(HeapPlatform::new());
        let (pager, port) = (Pager::new(platform.clone()), Port::new(platform.clone()));
        let entries = || {
            let mut entries = 0;
            pager.shared.vmos.glance(|_, _| entries += 1);
            entries
        };
        let vmo = pager.create_vmo(&port, 1, VmoOptions::NONE, PAGE_SIZE).unwrap();
        assert_eq!(entries(), 1);
        drop(vmo);
        assert_eq!(port.take(&mut [Packet::default(); 2]), 1, "COMPLETE");
        assert_eq!(entries(), 0);
    }
}
