//! A pager small enough to explore: one VMO of one or two pages, and a platform that notices
//! every misuse of a frame.
//!
//! A frame holds one byte. Its memory is an atomic of the explorer's, read and written `Relaxed`: if the page
//! word fails to order a frame's bytes before their readers, loom hands a reader the old ones, and
//! the model sees the wrong byte. Whether a frame is allocated is checked before and after each
//! access. And every use of a frame must *happen before* it is freed, not only come before by luck of this
//! execution: what a processor delays would else land in the frame's next life.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc as StdArc, Mutex, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use upager::sync::Arc;
use upager::sync::explorer::sync::Mutex as ModelMutex;
use upager::sync::explorer::sync::atomic::{AtomicU8, AtomicUsize as ModelAtomicUsize, Ordering as ModelOrdering};
use upager::{
    Access, AnonymousVmo, ByteOffset, ByteRange, Collector, Command, Event, Evict, Frame, Guard, OwnedFrame, PAGE_SIZE,
    Packet, PageCount, PageIndex, Pager, PagerOp, Platform, Port, Result, Status, Vmo, VmoId, VmoOp, VmoOptions, Watch,
    WatchLimits, Writeback,
};

/// Loom pays for each, in every execution. In a schedule a pinned thread may be kept from running for as long as
/// the others have anything to do, and every page evicted meanwhile keeps its frame: there are more than all
/// its calls can ask for.
const FRAMES: usize = if cfg!(loom) { 6 } else { 1 << 14 };

/// The platform of the models.
#[derive(Debug)]
pub struct ModelPlatform {
    collector: Collector,
    memory: Box<[AtomicU8]>,
    allocated: Mutex<Box<[bool]>>,
    /// How many frames were freed. The list above is nothing that the explorer sees: this tells it that an
    /// allocation may get what was freed before it, and not what is freed after. It orders nothing.
    freed: ModelAtomicUsize,
    /// Of each frame that is allocated, what tells whether its uses happen before its end.
    #[cfg(loom)]
    lives: Mutex<[Option<StdArc<Life>>; FRAMES]>,
    /// Whether stores go through a mapping, if there is one. A store looks at this and is made in one step,
    /// as a processor's does: hence the lock.
    mapping: OnceLock<ModelMutex<Stores>>,
    /// Whether a run of `unmap` has no end yet: stores go through until then.
    unmapping: AtomicBool,
}

/// One life of a frame, from its allocation on. To loom, users read this cell, whatever they do with the
/// byte, and the end writes it: so it panics at a use that is not ordered after the allocation, or at an end
/// that is not ordered after a use. That is no step to explore.
#[cfg(loom)]
#[derive(Debug)]
struct Life(upager::sync::explorer::cell::UnsafeCell<()>);

// SAFETY: nothing is in the cell, and loom has its own account of who accesses it.
#[cfg(loom)]
unsafe impl Send for Life {}
// SAFETY: as for Send.
#[cfg(loom)]
unsafe impl Sync for Life {}

/// What a store to a mapped page does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stores {
    GoThrough,
    Fault,
}

impl ModelPlatform {
    fn new() -> Self {
        Self {
            collector: Collector::new(),
            memory: (0..FRAMES).map(|_| AtomicU8::new(0)).collect(),
            allocated: Mutex::new(vec![false; FRAMES].into()),
            freed: ModelAtomicUsize::new(0),
            #[cfg(loom)]
            lives: Mutex::default(),
            mapping: OnceLock::new(),
            unmapping: AtomicBool::new(false),
        }
    }

    fn set_mapping(&self, stores: Stores) {
        if let Some(mapping) = self.mapping.get() {
            *mapping.lock().expect("no model panics here") = stores;
        }
    }

    /// A store to the mapped page. False: it faults.
    fn store(&self, frame: Frame, byte: u8) -> bool {
        let mapping = self.mapping.get().expect("it is mapped");
        let mapping = mapping.lock().expect("no model panics here");
        if *mapping == Stores::GoThrough {
            self.byte(frame).store(byte, ModelOrdering::Relaxed);
            self.used(frame);
        }
        *mapping == Stores::GoThrough
    }

    fn allocated(&self) -> std::sync::MutexGuard<'_, Box<[bool]>> {
        self.allocated.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The byte of a frame that must be allocated.
    fn byte(&self, frame: Frame) -> &AtomicU8 {
        self.check(frame);
        &self.memory[frame.number() as usize]
    }

    #[cfg(loom)]
    fn lives(&self) -> std::sync::MutexGuard<'_, [Option<StdArc<Life>>; FRAMES]> {
        self.lives.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The frame was used just now.
    #[cfg(loom)]
    fn used(&self, frame: Frame) {
        let life = self.lives()[frame.number() as usize].clone();
        life.expect("it is allocated").0.with(|_| ());
    }

    #[cfg(not(loom))]
    #[allow(clippy::unused_self)] // as under loom
    const fn used(&self, _: Frame) {}

    fn check(&self, frame: Frame) {
        assert!(self.is_allocated(frame), "use after free of {frame:?}");
    }

    /// Whether the frame is allocated.
    #[must_use]
    pub fn is_allocated(&self, frame: Frame) -> bool {
        self.allocated()[frame.number() as usize]
    }

    /// Accesses the frame through the mapping, if there still is one.
    ///
    /// # Panics
    /// If the frame is not allocated.
    pub fn access_mapped(&self, frame: Frame) {
        let _: bool = self.store(frame, 0); // false: it faults
    }

    /// Lets the epoch move on as far as it can. The modelled one needs no help.
    #[cfg_attr(not(crossbeam_loom), allow(clippy::unused_self))]
    pub fn turn_epoch(&self) {
        #[cfg(crossbeam_loom)]
        for _ in 0..5 {
            self.pin().flush();
        }
    }

    /// How many frames are allocated.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.allocated().iter().filter(|allocated| **allocated).count()
    }

    /// Checks, when everything has ended, that no frame is allocated and no reclaim is owed. The real
    /// epoch first needs some turns, since what it frees may defer again.
    ///
    /// # Panics
    /// When something is left.
    pub fn check_nothing_left(&self) {
        #[cfg(crossbeam_loom)]
        {
            for _ in 0..12 {
                self.pin().flush();
            }
            leave_epoch();
        }
        #[cfg(not(crossbeam_loom))]
        assert_eq!(self.collector.pending(), 0, "a reclaim that never runs");
        assert_eq!(self.frames(), 0, "a leaked frame");
    }
}

#[cfg(crossbeam_loom)]
loom::thread_local! {
    static HANDLE: std::cell::RefCell<Option<std::rc::Rc<upager::LocalHandle>>> = std::cell::RefCell::new(None);
}

/// The thread takes no part in the epoch any more. Loom does not count on thread-local destructors.
#[cfg(crossbeam_loom)]
pub(crate) fn leave_epoch() {
    let handle = HANDLE.with(|handle| handle.borrow_mut().take());
    drop(handle);
}

/// The modelled epoch knows guards only.
#[cfg(all(loom, not(crossbeam_loom)))]
pub(crate) const fn leave_epoch() {}

impl Platform for ModelPlatform {
    #[cfg(not(crossbeam_loom))]
    fn pin(&self) -> Guard {
        self.collector.register().pin()
    }

    #[cfg(crossbeam_loom)]
    fn pin(&self) -> Guard {
        let register = || std::rc::Rc::new(self.collector.register());
        // Pinning may reclaim, and reclaiming pins: the cell is not borrowed meanwhile.
        let handle = HANDLE.with(|handle| handle.borrow_mut().get_or_insert_with(register).clone());
        handle.pin()
    }

    fn allocate(&self) -> Result<Frame> {
        self.freed.load(ModelOrdering::Relaxed);
        let mut allocated = self.allocated();
        let number = allocated.iter().position(|allocated| !allocated).ok_or(Status::NoMemory)?;
        allocated[number] = true;
        drop(allocated);
        // By a read-modify-write, so that what the frame held in an earlier life is not read any more: the
        // list above is no step that loom sees.
        self.memory[number].swap(0, ModelOrdering::AcqRel);
        #[cfg(loom)]
        {
            let life = Life(upager::sync::explorer::cell::UnsafeCell::new(()));
            self.lives()[number] = Some(StdArc::new(life));
        }
        Frame::new(number as u64).ok_or(Status::NoMemory)
    }

    unsafe fn free(&self, frame: Frame) {
        self.freed.fetch_add(1, ModelOrdering::Relaxed);
        #[cfg(loom)]
        {
            let life = self.lives()[frame.number() as usize].take();
            life.unwrap_or_else(|| panic!("double free of {frame:?}")).0.with_mut(|_| ());
        }
        let was = std::mem::replace(&mut self.allocated()[frame.number() as usize], false);
        assert!(was, "double free of {frame:?}");
    }

    unsafe fn copy_out(&self, frame: Frame, _offset: usize, to: &mut [u8]) {
        to[0] = self.byte(frame).load(ModelOrdering::Relaxed);
        self.check(frame);
        self.used(frame);
    }

    unsafe fn copy_in(&self, frame: Frame, _offset: usize, from: &[u8]) {
        self.byte(frame).store(from[0], ModelOrdering::Relaxed);
        self.check(frame);
        self.used(frame);
    }

    fn unmap(&self, _: VmoId, _: PageIndex) {
        self.unmapping.store(true, Ordering::Relaxed);
    }

    fn unmapped(&self) {
        if self.unmapping.swap(false, Ordering::Relaxed) {
            self.set_mapping(Stores::Fault);
        }
    }

    fn write_protect(&self, _: VmoId, _: PageIndex) {
        self.set_mapping(Stores::Fault);
    }
}

/// A waker that counts.
#[derive(Debug, Default)]
pub struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: StdArc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// An access that may have to wait, polled by hand.
#[allow(missing_debug_implementations)] // a future says nothing of itself
pub struct Waiting {
    future: Pin<Box<dyn Future<Output = Result<u8>>>>,
    wakes: StdArc<Wakes>,
    /// Times it said that it waits.
    pending: usize,
    /// It may be woken while it still looks, before it says that it waits.
    looks: bool,
}

// SAFETY: loom runs one thread at a time, and the future is moved only between polls; what it
// holds between polls is an Arc and a place in a request. (A loom Arc is not Send for want of a
// declaration, not of a reason.)
unsafe impl Send for Waiting {}

impl Waiting {
    fn new(future: impl Future<Output = Result<u8>> + 'static) -> Self {
        Self { future: Box::pin(future), wakes: StdArc::default(), pending: 0, looks: false }
    }

    /// Begins to read the first byte of a page.
    #[must_use]
    pub fn read(vmo: Arc<Vmo<ModelPlatform>>, page: u64) -> Self {
        Self::new(async move {
            let mut byte = [0];
            vmo.read(ByteOffset(page * PAGE_SIZE), &mut byte).await?;
            Ok(byte[0])
        })
    }

    /// Begins to wait for a page. Comes to 0, not a byte.
    #[must_use]
    pub fn fault(vmo: Arc<Vmo<ModelPlatform>>, page: u64) -> Self {
        Self::new(async move { vmo.fault(PageIndex(page), Access::Read).await.map(|()| 0) })
    }

    /// Begins to wait for a page, with one request for it and those after it, `run` in all. Comes to
    /// 0, not a byte.
    #[must_use]
    pub fn fault_run(vmo: Arc<Vmo<ModelPlatform>>, page: u64, run: u64) -> Self {
        Self::new(async move { vmo.fault_run(PageIndex(page), PageCount(run), Access::Read).await.map(|()| 0) })
    }

    /// As [`fault_run`](Self::fault_run), for a page that is to become dirty.
    #[must_use]
    pub fn dirty_run(vmo: Arc<Vmo<ModelPlatform>>, page: u64, run: u64) -> Self {
        Self::new(async move { vmo.fault_run(PageIndex(page), PageCount(run), Access::Write).await.map(|()| 0) })
    }

    /// Begins to have pages always needed. Comes to 0, not a byte.
    #[must_use]
    pub fn always_need(vmo: Arc<Vmo<ModelPlatform>>, page: u64, count: u64) -> Self {
        let range = ByteRange::new(page * PAGE_SIZE, count * PAGE_SIZE);
        Self::new(async move { vmo.always_need(range).await.map(|()| 0) })
    }

    /// Begins to bring pages in. Comes to 0, not a byte.
    #[must_use]
    pub fn commit(vmo: Arc<Vmo<ModelPlatform>>, page: u64, count: u64) -> Self {
        let range = ByteRange::new(page * PAGE_SIZE, count * PAGE_SIZE);
        Self::new(async move { vmo.commit(range).await.map(|()| 0) })
    }

    /// Begins to bring pages in, as far as it goes. Comes to 0, not a byte.
    #[must_use]
    pub fn prefetch(vmo: Arc<Vmo<ModelPlatform>>, page: u64, count: u64) -> Self {
        let range = ByteRange::new(page * PAGE_SIZE, count * PAGE_SIZE);
        Self::new(async move { vmo.prefetch(range).await.map(|()| 0) })
    }

    /// Begins what a range asks for by [`Vmo::op_range`]. Comes to 0, not a byte.
    #[must_use]
    pub fn op_range(vmo: Arc<Vmo<ModelPlatform>>, op: VmoOp, page: u64, count: u64) -> Self {
        let range = ByteRange::new(page * PAGE_SIZE, count * PAGE_SIZE);
        Self::new(async move { vmo.op_range(op, range).await.map(|()| 0) })
    }

    /// Begins to write the first byte of a page.
    #[must_use]
    pub fn write(vmo: Arc<Vmo<ModelPlatform>>, page: u64, byte: u8) -> Self {
        Self::new(async move { vmo.write(ByteOffset(page * PAGE_SIZE), &[byte]).await.map(|()| byte) })
    }

    /// Begins to wait for a packet. Comes to its key, not a byte. Unlike an access it announces
    /// itself and then looks once more, so it may be woken without having waited.
    #[must_use]
    pub fn packet(port: Arc<Port<ModelPlatform>>) -> Self {
        let waiting = Self::new(async move {
            let mut packets = [Packet::default()];
            port.wait(&mut packets).await;
            Ok(packets[0].key as u8)
        });
        Self { looks: true, ..waiting }
    }

    /// For another thread, which wants to know whether it has been woken.
    #[must_use]
    pub fn watched(&self) -> Watched {
        Watched { wakes: self.wakes.clone(), pending: self.pending }
    }

    /// Whether nobody keeps its waker.
    #[must_use]
    pub fn is_forgotten(&self) -> bool {
        StdArc::strong_count(&self.wakes) == 1
    }

    fn check_wakes(&self) {
        assert!(self.looks || self.wakes() <= self.pending, "woken twice");
    }

    /// How often it was woken.
    #[must_use]
    pub fn wakes(&self) -> usize {
        self.wakes.0.load(Ordering::Relaxed)
    }

    /// Polls it, and checks that it is not woken more often than it waited.
    pub fn poll(&mut self) -> Option<Result<u8>> {
        let waker = Waker::from(self.wakes.clone());
        match self.future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(result) => {
                self.check_wakes();
                Some(result)
            }
            Poll::Pending => {
                self.pending += 1;
                None
            }
        }
    }

    /// Gives up. Returns how often it had been woken.
    #[must_use]
    pub fn leave(self) -> usize {
        let Self { future, wakes, pending, looks } = self;
        drop(future);
        let wakes = wakes.0.load(Ordering::Relaxed);
        assert!(looks || wakes <= pending, "woken twice");
        wakes
    }

    /// Polls it as an executor would: only when it has been woken since it last said that it
    /// waits. `None`: it still waits.
    pub fn settle(&mut self) -> Option<Result<u8>> {
        self.check_wakes();
        if self.wakes() >= self.pending { self.poll() } else { None }
    }
}

/// An access that waits, as others see it.
#[derive(Debug)]
pub struct Watched {
    wakes: StdArc<Wakes>,
    pending: usize,
}

impl Watched {
    /// Whether it was woken since it said that it waits.
    #[must_use]
    pub fn is_woken(&self) -> bool {
        self.wakes.0.load(Ordering::Relaxed) >= self.pending
    }
}

/// One pager, one port, one VMO.
#[derive(Debug)]
pub struct World {
    pub platform: Arc<ModelPlatform>,
    pub pager: Arc<Pager<ModelPlatform>>,
    pub port: Arc<Port<ModelPlatform>>,
    pub vmo: Arc<Vmo<ModelPlatform>>,
}

impl Clone for World {
    fn clone(&self) -> Self {
        Self {
            platform: self.platform.clone(),
            pager: self.pager.clone(),
            port: self.port.clone(),
            vmo: self.vmo.clone(),
        }
    }
}

/// An anonymous VMO, of which each page's first byte is looked at.
#[derive(Debug)]
pub struct Aux(Arc<AnonymousVmo<ModelPlatform>>);

impl Clone for Aux {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl Aux {
    /// Reads the first byte of a page.
    #[must_use]
    pub fn read(&self, page: u64) -> u8 {
        let mut byte = [0];
        self.0.read(ByteOffset(page * PAGE_SIZE), &mut byte).expect("a page of the VMO");
        byte[0]
    }

    /// Writes the first byte of a page.
    pub fn write(&self, page: u64, byte: u8) -> Result<()> {
        self.0.write(ByteOffset(page * PAGE_SIZE), &[byte])
    }

    /// Decommits a page.
    pub fn decommit(&self, at: u64) -> Result<()> {
        self.0.decommit(page(at))
    }

    /// How many pages have frames.
    #[must_use]
    pub fn committed(&self) -> u64 {
        self.0.committed().0
    }
}

/// The key of the world's VMO.
pub const KEY: u64 = 7;

/// Requests of which the first segment of a VMO's pool has room: in the models it has four entries, and one is the queue's.
pub const FULL: u64 = 3;

/// A user packet, of which all is told by its key.
#[must_use]
pub fn user_packet(key: u64) -> Packet {
    Packet { status: key as i32, ..Packet::user(key, [key as u8; 32]) }
}

/// The bytes of a page.
#[must_use]
pub const fn page(page: u64) -> ByteRange {
    ByteRange::new(page * PAGE_SIZE, PAGE_SIZE)
}

impl World {
    /// A VMO of so many pages.
    #[must_use]
    pub fn new(pages: u64) -> Self {
        Self::with(VmoOptions::NONE, pages)
    }

    /// A VMO of so many pages that traps dirtying.
    #[must_use]
    pub fn trapping(pages: u64) -> Self {
        Self::with(VmoOptions::TRAP_DIRTY, pages)
    }

    /// A VMO of so many pages with options.
    #[must_use]
    pub fn with(options: VmoOptions, pages: u64) -> Self {
        let platform = Arc::new(ModelPlatform::new());
        let pager = Pager::new(platform.clone());
        let port = Port::new(platform.clone());
        let vmo = pager.create_vmo(&port, KEY, options, pages * PAGE_SIZE).expect("a new VMO");
        Self { platform, pager: Arc::new(pager), port: Arc::new(port), vmo: Arc::new(vmo) }
    }

    /// Begins to read the first byte of a page.
    #[must_use]
    pub fn read(&self, page: u64) -> Waiting {
        Waiting::read(self.vmo.clone(), page)
    }

    /// Reads of the first so many pages, all of which are absent: they wait.
    ///
    /// # Panics
    /// One does not.
    #[must_use]
    pub fn reads_that_wait(&self, count: u64) -> Vec<Waiting> {
        let mut waiting: Vec<Waiting> = (0..count).map(|page| self.read(page)).collect();
        for read in &mut waiting {
            assert_eq!(read.poll(), None);
        }
        waiting
    }

    /// Begins to wait for a packet of the port.
    #[must_use]
    pub fn packet(&self) -> Waiting {
        Waiting::packet(self.port.clone())
    }

    /// Queues a user packet, of which all is told by its key.
    pub fn queue(&self, key: u64) -> Result<()> {
        self.port.queue(&user_packet(key))
    }

    /// Begins to write the first byte of a page.
    #[must_use]
    pub fn write(&self, page: u64, byte: u8) -> Waiting {
        Waiting::write(self.vmo.clone(), page, byte)
    }

    /// Begins to make a page dirty, as for a mapping. Comes to 0, not a byte.
    #[must_use]
    pub fn mapped_write(&self, page: u64) -> Waiting {
        Waiting::dirty_run(self.vmo.clone(), page, 1)
    }

    /// Supplies a page whose first byte is `byte`.
    pub fn supply(&self, at: u64, byte: u8) -> Result<()> {
        supply(&self.pager, &self.vmo, at, byte)
    }

    /// Allocates the first frame that is free, and frees it: a step that loom sees in a frame that was freed
    /// before, after which its users are found out.
    pub fn use_a_frame(&self) {
        drop(OwnedFrame::new(&*self.platform));
    }

    /// An anonymous VMO of so many pages, on the same platform.
    #[must_use]
    pub fn aux(&self, pages: u64) -> Aux {
        Aux(Arc::new(AnonymousVmo::new(self.platform.clone(), pages * PAGE_SIZE).expect("a new VMO")))
    }

    /// Supplies `count` pages from `at` on, out of `aux` from its page `from` on.
    pub fn supply_pages(&self, at: u64, count: u64, aux: &Aux, from: u64) -> Result<()> {
        let range = ByteRange::new(at * PAGE_SIZE, count * PAGE_SIZE);
        self.pager.supply_pages(&self.vmo, range, &aux.0, ByteOffset(from * PAGE_SIZE))
    }

    /// Fails a page's request.
    pub fn fail(&self, at: u64, status: Status) -> Result<()> {
        self.pager.op_range(&self.vmo, PagerOp::Fail(status), page(at))
    }

    /// Lets `count` pages from `at` on become dirty.
    pub fn dirty(&self, at: u64, count: u64) -> Result<()> {
        self.pager.dirty_range(&self.vmo, ByteRange::new(at * PAGE_SIZE, count * PAGE_SIZE))
    }

    /// Makes `count` pages from `at` on zeros.
    pub fn zero(&self, at: u64, count: u64) -> Result<()> {
        zero_pages(&self.vmo, ByteRange::new(at * PAGE_SIZE, count * PAGE_SIZE))
    }

    /// Begins writeback of a page.
    pub fn begin(&self, at: u64) -> Result<()> {
        self.pager.writeback_begin(&self.vmo, page(at), Writeback::All)
    }

    /// Ends writeback of a page.
    pub fn end(&self, at: u64) -> Result<()> {
        self.pager.writeback_end(&self.vmo, page(at))
    }

    /// Looks at what is in flight, as the watch on the service, with a time-out that has passed
    /// already. Returns how many requests it timed out.
    #[allow(clippy::must_use_candidate)] // how many may be of no interest
    pub fn time_out_all(&self) -> usize {
        time_out_all(&self.pager)
    }

    /// Everything that the port has now.
    #[must_use]
    pub fn take_all(&self) -> Vec<Packet> {
        take_all(&self.port)
    }

    /// What one take brings.
    #[must_use]
    pub fn take(&self) -> Vec<Packet> {
        let mut packets = [Packet::default(); 4];
        let n = self.port.take(&mut packets);
        packets[..n].to_vec()
    }

    /// Evicts a page, if one is clean.
    #[allow(clippy::must_use_candidate)] // how many may be of no interest
    pub fn evict(&self) -> u64 {
        self.vmo.evict(PageCount(1), Evict::Any).0
    }

    /// Evicts a page, if one is clean and neither in use nor always needed.
    #[allow(clippy::must_use_candidate)] // how many may be of no interest
    pub fn evict_unused(&self) -> u64 {
        self.vmo.evict(PageCount(1), Evict::Unused).0
    }

    /// Maps the page. The mapping is writable, as that of a dirty page may be.
    ///
    /// # Panics
    /// If it is mapped already.
    pub fn map(&self) {
        self.platform.mapping.set(ModelMutex::new(Stores::GoThrough)).expect("mapped once");
    }

    /// Stores a byte through the mapping, and has its faults answered as whoever maps the page does.
    /// False: the page has gone, and the store waits.
    #[must_use]
    pub fn store(&self, at: u64, frame: Frame, byte: u8) -> bool {
        while !self.platform.store(frame, byte) {
            let guard = self.platform.pin();
            let held = self.vmo.hold(&guard, PageIndex(at)).expect("a page with few writers");
            let Some(held) = held else { return false };
            assert_eq!(held.frame(), frame, "nobody replaces it");
            self.platform.set_mapping(Stores::GoThrough);
            drop(held);
        }
        true
    }

    /// See [`ModelPlatform::turn_epoch`].
    pub fn turn_epoch(&self) {
        self.platform.turn_epoch();
    }

    /// See [`ModelPlatform::access_mapped`].
    ///
    /// # Panics
    /// If the frame is not allocated.
    pub fn access_mapped(&self, frame: Frame) {
        self.platform.access_mapped(frame);
    }

    /// Looks a page up, and unpins.
    #[must_use]
    pub fn look_up_unpinned(&self, page: u64) -> Option<Frame> {
        self.vmo.lookup(&self.platform.pin(), PageIndex(page))
    }

    /// Looks a page up, and reads its byte, pinned.
    #[must_use]
    pub fn look_up(&self, page: u64) -> Option<u8> {
        let guard = self.platform.pin();
        self.vmo.lookup(&guard, PageIndex(page)).map(|frame| self.copy_out(frame))
    }

    /// Copies out of a frame, allowed or not.
    #[must_use]
    pub fn copy_out(&self, frame: Frame) -> u8 {
        let mut byte = [0];
        // SAFETY: none where the caller is not pinned. That is the mistake that a model must notice,
        // and the platform checks for it.
        unsafe { self.platform.copy_out(frame, 0, &mut byte) };
        byte[0]
    }

    /// Reads a page as nobody may: looks the frame up, unpins, and then copies.
    #[must_use]
    pub fn read_unpinned(&self, page: u64) -> Option<Result<u8>> {
        let frame = self.look_up_unpinned(page)?;
        Some(Ok(self.copy_out(frame)))
    }

    /// Takes what the port has, and checks that COMPLETE is there, once and last.
    pub fn check_complete_is_last(&self) {
        Self::check_complete_is_last_of(&self.take_all());
    }

    /// Checks that COMPLETE is in `packets`, once and last.
    ///
    /// # Panics
    /// If it is not.
    pub fn check_complete_is_last_of(packets: &[Packet]) {
        let completes = packets.iter().filter(|packet| packet.command() == Some(Command::Complete)).count();
        assert_eq!(completes, 1, "COMPLETE comes once: {packets:?}");
        let last = packets.last().and_then(Packet::command);
        assert_eq!(last, Some(Command::Complete), "COMPLETE comes last: {packets:?}");
    }

    /// Ends everything, and checks that no frame is left.
    pub fn end_of_the_world(self) {
        let Self { platform, pager, port, vmo } = self;
        drop((vmo, pager, port));
        platform.check_nothing_left();
    }
}

/// Supplies a page whose first byte is `byte`.
pub(crate) fn supply(pager: &Pager<ModelPlatform>, vmo: &Vmo<ModelPlatform>, at: u64, byte: u8) -> Result<()> {
    let frame = OwnedFrame::new(&**vmo.platform())?;
    frame.write(0, &[byte])?;
    pager.supply_frames(vmo, page(at), [frame])
}

/// One look of the watch on the service. Returns how many requests it timed out.
pub(crate) fn time_out_all(pager: &Pager<ModelPlatform>) -> usize {
    let mut watch = Watch::new(pager, WatchLimits::default(), Box::new(|_: &Event| {}));
    watch.set_limits(WatchLimits { warn_after: None, time_out: Some(Duration::ZERO) });
    watch.look(Duration::ZERO);
    usize::try_from(watch.counts().timed_out).expect("a few")
}

/// Everything that the port has now.
#[must_use]
pub fn take_all(port: &Port<ModelPlatform>) -> Vec<Packet> {
    let mut packets = [Packet::default(); 4];
    let mut all = Vec::new();
    loop {
        let n = port.take(&mut packets);
        if n == 0 {
            return all;
        }
        all.extend_from_slice(&packets[..n]);
    }
}

/// Makes whole pages of a VMO zeros.
pub(crate) fn zero_pages(vmo: &Vmo<ModelPlatform>, range: ByteRange) -> Result<()> {
    match std::pin::pin!(vmo.zero(range)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => unreachable!("whole pages wait for nobody"),
    }
}
