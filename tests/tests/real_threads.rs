//! Everything at once, with real threads: many short rounds with small VMOs.
//!
//! What must hold in each round: every thread comes home before its deadline; a byte that is read
//! is one that was supplied or written; no write that reported success is lost while its page is
//! in the VMO or in the store; no page of a VMO that traps becomes dirty without leave; and in the
//! end every frame is freed.
//!
//! The pages are written in words of eight bytes, each by one thread only, with numbers that grow.
//! A reader may thus check a page without knowing how far its writers are.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use upager::{
    Access, ByteOffset, ByteRange, Command, DirtyRange, Evict, HeapPlatform, OwnedFrame, PAGE_SIZE, Packet, PageCount,
    PageIndex, Pager, Port, Result, Status, Vmo, VmoOptions, Writeback, block_on, block_on_until,
};
use upager_tests::{Random, SetOnDrop, World, at, pages, soon, threads};

const PAGE: usize = 4096;

/// What the service keeps: the content of each page, words of zero at first.
struct Store(Vec<Mutex<Vec<u8>>>);

impl Store {
    fn new(pages: u64) -> Self {
        Self((0..pages).map(|_| Mutex::new(vec![0; PAGE])).collect())
    }

    fn page(&self, page: u64) -> &Mutex<Vec<u8>> {
        &self.0[usize::try_from(page).unwrap()]
    }

    fn word(&self, page: u64, word: u64) -> u64 {
        word_of(&self.page(page).lock(), word)
    }
}

fn word_of(bytes: &[u8], word: u64) -> u64 {
    let start = usize::try_from(word * 8).unwrap();
    u64::from_le_bytes(bytes[start..start + 8].try_into().unwrap())
}

/// One round's world: VMO, store, and what the writers know they wrote.
struct Round<'a> {
    world: &'a World,
    vmo: &'a Vmo<HeapPlatform>,
    size: u64,
    store: Store,
    /// By page and writer: the last number whose write reported success.
    written: Vec<Vec<AtomicU64>>,
    traps: bool,
    /// By page, where the VMO traps dirtying: whether the page may be dirty. Only who has the store's
    /// page locked looks or changes it.
    leave: Vec<AtomicBool>,
    over: AtomicBool,
    /// Threads that may still wait for the service.
    users: AtomicU64,
}

/// A thread that waits for the service, until it is dropped: also by a panic.
struct User<'a>(&'a AtomicU64);

impl Drop for User<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

const WRITERS: u64 = 2;

/// An access that must end before its deadline.
fn comes_home(access: impl Future<Output = Result<()>>) -> Result<()> {
    block_on_until(access, Some(soon())).expect("a thread did not come home")
}

impl<'a> Round<'a> {
    fn new(world: &'a World, vmo: &'a Vmo<HeapPlatform>, options: VmoOptions) -> Self {
        let size = vmo.size() / PAGE_SIZE;
        let written = (0..size).map(|_| (0..WRITERS).map(|_| AtomicU64::new(0)).collect()).collect();
        Self {
            world,
            vmo,
            size,
            store: Store::new(size),
            written,
            traps: options == VmoOptions::TRAP_DIRTY,
            leave: (0..size).map(|_| AtomicBool::new(false)).collect(),
            over: AtomicBool::new(false),
            users: AtomicU64::new(0),
        }
    }

    fn user(&self) -> User<'_> {
        self.users.fetch_add(1, Ordering::SeqCst);
        User(&self.users)
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    fn written(&self, page: u64, writer: u64) -> &AtomicU64 {
        &self.written[usize::try_from(page).unwrap()][usize::try_from(writer).unwrap()]
    }

    fn leave(&self, page: u64) -> &AtomicBool {
        &self.leave[usize::try_from(page).unwrap()]
    }

    /// Whether a query finds the page dirty. If so, it had leave. Only for who has the store's page
    /// locked, so that nobody gives or takes leave meanwhile.
    fn is_dirty(&self, page: u64) -> bool {
        let mut run = [DirtyRange::default()];
        let dirty = self.world.pager.query_dirty_ranges(self.vmo, pages(page, 1), &mut run).unwrap().actual == 1;
        assert!(!dirty || !self.traps || self.leave(page).load(Ordering::SeqCst), "page {page} is dirty without leave");
        dirty
    }

    /// Lets pages become dirty, or, when one of them was evicted, finds that none has.
    fn give_leave(&self, asked: ByteRange) {
        let first = asked.offset / PAGE_SIZE;
        let all = first..first + asked.length / PAGE_SIZE;
        let _locked: Vec<_> = all.clone().map(|page| self.store.page(page).lock()).collect();
        match self.world.pager.dirty_range(self.vmo, asked) {
            Ok(()) => all.for_each(|page| {
                self.leave(page).store(true, Ordering::SeqCst);
                assert!(self.is_dirty(page), "page {page} is not dirty after all");
            }),
            Err(status) => {
                assert!(matches!(status, Status::NotFound | Status::BadState), "{status}");
                all.for_each(|page| _ = self.is_dirty(page));
            }
        }
    }

    /// Answers READs from the store, and DIRTYs, until the round is over and nobody can wait any more. Now and
    /// then it fails a request.
    fn serve(&self, mut random: Random, fails: bool) {
        let mut packets = [Packet::default(); 4];
        while !self.is_over() || self.users.load(Ordering::SeqCst) > 0 {
            let deadline = Instant::now() + Duration::from_millis(5);
            let Ok(taken) = self.world.port.wait_until(Some(deadline), &mut packets) else { continue };
            for packet in &packets[..taken] {
                let asked = packet.range();
                if packet.command() == Some(Command::Complete) {
                    continue;
                }
                if fails && random.below(20) == 0 {
                    self.world.pager.fail_range(self.vmo, asked, Status::Io).unwrap();
                    continue;
                }
                if packet.command() == Some(Command::Dirty) {
                    if random.below(4) == 0 {
                        self.vmo.evict(PageCount(1 + random.below(2)), Evict::Any); // so that one may be missing
                    }
                    self.give_leave(asked);
                    continue;
                }
                let first = asked.offset / PAGE_SIZE;
                for page in first..first + asked.length / PAGE_SIZE {
                    // The store's page is locked until it is supplied: a writeback that came in
                    // between would have its bytes overtaken by older ones.
                    let stored = self.store.page(page).lock();
                    let frame = OwnedFrame::new(&*self.world.platform).unwrap();
                    frame.write(0, &stored).unwrap();
                    let supplied = self.world.pager.supply_frames(self.vmo, pages(page, 1), [frame]);
                    assert!(matches!(supplied, Ok(()) | Err(Status::BadState)), "{supplied:?}");
                }
            }
        }
    }

    /// Writes back everything that is dirty now.
    fn write_back(&self) {
        let mut runs = [DirtyRange::default(); 8];
        let whole = ByteRange::new(0, self.vmo.size());
        let found = self.world.pager.query_dirty_ranges(self.vmo, whole, &mut runs).unwrap();
        for run in &runs[..found.actual] {
            let first = run.offset / PAGE_SIZE;
            for page in first..first + run.length / PAGE_SIZE {
                let mut stored = self.store.page(page).lock();
                if !self.is_dirty(page) {
                    continue; // another writeback came first
                }
                self.world.pager.writeback_begin(self.vmo, pages(page, 1), Writeback::All).unwrap();
                // Still there: only the one who holds the store's page may clean it.
                block_on(self.vmo.read(at(page, 0), &mut stored)).unwrap();
                self.world.pager.writeback_end(self.vmo, pages(page, 1)).unwrap();
                // Still dirty if a writer held it at BEGIN, or, in a VMO that does not trap, came since.
                let dirty = self.is_dirty(page);
                self.leave(page).store(dirty, Ordering::SeqCst);
            }
        }
    }

    /// Writes growing numbers to its own words until the round is over or the VMO is cut off.
    fn write(&self, writer: u64, mut random: Random) {
        let mut number = 0u64;
        while !self.is_over() {
            let page = random.below(self.size);
            number += 1;
            match comes_home(self.vmo.write(at(page, writer * 8), &number.to_le_bytes())) {
                Ok(()) => self.written(page, writer).store(number, Ordering::SeqCst),
                Err(Status::Io) => {}
                Err(status) => {
                    assert_eq!(status, Status::BadState);
                    thread::yield_now();
                }
            }
        }
    }

    /// Reads pages, and checks that no writer's number is older than what that writer had written
    /// before the read, nor newer than anybody wrote.
    fn read(&self, mut random: Random) {
        let mut bytes = vec![0; PAGE];
        while !self.is_over() {
            let page = random.below(self.size);
            let before: Vec<_> = (0..WRITERS).map(|writer| self.written(page, writer).load(Ordering::SeqCst)).collect();
            match comes_home(self.vmo.read(at(page, 0), &mut bytes)) {
                Ok(()) => {
                    for (writer, before) in (0..).zip(before) {
                        let found = word_of(&bytes, writer);
                        assert!(found >= before, "page {page}: {found} was read after {before} was written");
                    }
                    assert!(bytes[usize::try_from(WRITERS * 8).unwrap()..].iter().all(|byte| *byte == 0));
                }
                Err(Status::Io) => {}
                Err(status) => {
                    assert_eq!(status, Status::BadState);
                    thread::yield_now();
                }
            }
        }
    }

    /// Reads ranges that span pages, and gives up now and then.
    fn read_impatiently(&self, mut random: Random) {
        let mut bytes = vec![0; 3 * PAGE];
        while !self.is_over() {
            let offset = random.below(self.vmo.size() - 3 * PAGE_SIZE + 1);
            let patience = Duration::from_micros(random.below(300));
            let read = self.vmo.read(ByteOffset(offset), &mut bytes);
            match block_on_until(read, Some(Instant::now() + patience)) {
                None | Some(Ok(()) | Err(Status::Io)) => {}
                Some(Err(status)) => {
                    assert_eq!(status, Status::BadState);
                    thread::yield_now();
                }
            }
        }
    }

    fn evict(&self, mut random: Random) {
        while !self.is_over() {
            let which = if random.below(2) == 0 { Evict::Any } else { Evict::Unused };
            self.vmo.evict(PageCount(1 + random.below(self.size)), which);
            thread::yield_now();
        }
    }

    /// No write that reported success is missing from the VMO or, if the page is not there, from
    /// the store.
    fn nothing_is_lost(&self) {
        for page in 0..self.size {
            let mut bytes = vec![0; PAGE];
            // Only resident pages can be read without the service, which is gone.
            let resident = self.vmo.lookup(&upager::Platform::pin(&*self.world.platform), PageIndex(page)).is_some();
            if resident {
                block_on(self.vmo.read(at(page, 0), &mut bytes)).unwrap();
            }
            for writer in 0..WRITERS {
                let found = if resident { word_of(&bytes, writer) } else { self.store.word(page, writer) };
                let expected = self.written(page, writer).load(Ordering::SeqCst);
                assert!(found >= expected, "page {page}: {found} is left of {expected}");
            }
        }
    }
}

fn random(round: u64, thread: u64) -> Random {
    Random((round + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (thread + 1).wrapping_mul(0xbf58_476d_1ce4_e5b9))
}

/// What ends a round.
#[derive(Clone, Copy, PartialEq)]
enum End {
    /// The threads stop; the VMO is still attached.
    Stop,
    /// Detach, in the middle of everything, by two threads at once.
    Detach,
}

fn round(number: u64, size: u64, end: End, options: VmoOptions) {
    let world = World::new();
    let vmo = world.vmo_with(options, size);
    let round = Round::new(&world, &vmo, options);
    threads(|scope| {
        let _over = SetOnDrop(&round.over);
        let round = &round;
        for n in 0..2 {
            scope.spawn(move || round.serve(random(number, n), n == 0));
        }
        for writer in 0..WRITERS {
            let user = round.user();
            scope.spawn(move || {
                let _user = user;
                round.write(writer, random(number, 10 + writer));
            });
        }
        let (reader, impatient) = (round.user(), round.user());
        scope.spawn(move || {
            let _user = reader;
            round.read(random(number, 20));
        });
        scope.spawn(move || {
            let _user = impatient;
            round.read_impatiently(random(number, 30));
        });
        scope.spawn(move || round.evict(random(number, 40)));
        scope.spawn(move || {
            while !round.is_over() {
                round.write_back();
                thread::yield_now();
            }
        });
        thread::sleep(Duration::from_millis(3 + number % 7));
        if end == End::Detach {
            let detachers = [(); 2].map(|()| scope.start(|| round.world.pager.detach_vmo(round.vmo).unwrap()));
            for detacher in detachers {
                detacher.join().unwrap();
            }
            thread::sleep(Duration::from_millis(1));
        }
    });
    assert_eq!(vmo.counts().in_flight, 0, "nobody waits, so nothing is in flight");
    round.nothing_is_lost();
    if end == End::Detach {
        while vmo.counts().dirty != PageCount(0) {
            round.write_back();
        }
        assert_eq!(vmo.counts().resident, PageCount(0));
        for page in 0..size {
            assert_eq!(block_on(vmo.read(at(page, 0), &mut [0])), Err(Status::BadState));
            for writer in 0..WRITERS {
                let expected = round.written(page, writer).load(Ordering::SeqCst);
                assert!(round.store.word(page, writer) >= expected, "all of it was written back");
            }
        }
    }
    drop(vmo);
    let left = world.packets();
    let completes = left.iter().filter(|packet| packet.command() == Some(Command::Complete)).count();
    match end {
        // The service may have taken it.
        End::Detach => assert!(completes <= 1),
        End::Stop => assert_eq!(completes, 1),
    }
    world.end();
}

#[test]
fn readers_writers_service_and_evictor_share_a_vmo() {
    for number in 0..30 {
        round(number, [4, 3, 8, 64][usize::try_from(number % 4).unwrap()], End::Stop, VmoOptions::NONE);
    }
}

#[test]
fn detach_comes_into_the_middle_of_everything() {
    for number in 0..60 {
        round(number, [4, 3, 8, 64][usize::try_from(number % 4).unwrap()], End::Detach, VmoOptions::NONE);
    }
}

#[test]
fn no_page_that_traps_becomes_dirty_without_leave_whatever_else_happens() {
    for number in 0..30 {
        round(number, [4, 3, 8, 64][usize::try_from(number % 4).unwrap()], End::Stop, VmoOptions::TRAP_DIRTY);
    }
}

#[test]
fn detach_comes_into_the_middle_of_everything_that_is_trapped() {
    for number in 0..60 {
        round(number, [4, 3, 8, 64][usize::try_from(number % 4).unwrap()], End::Detach, VmoOptions::TRAP_DIRTY);
    }
}

/// Ranges that overlap, from threads that do not wait for each other, while pages go.
#[test]
fn calls_of_op_dirty_for_the_same_pages_all_come_home() {
    const PAGES: u64 = 12;
    let world = World::new();
    let vmo = world.trapping(PAGES);
    let (done, over) = (AtomicU64::new(0), AtomicBool::new(false));
    threads(|scope| {
        let _over = SetOnDrop(&over);
        let services: Vec<_> = (0..3)
            .map(|n| {
                let (world, vmo, done) = (&world, &vmo, &done);
                scope.start(move || {
                    let mut random = random(1, n);
                    for _ in 0..3000 {
                        let first = random.below(PAGES);
                        let count = 1 + random.below(PAGES - first);
                        match world.let_dirty(vmo, first, count) {
                            Ok(()) => _ = done.fetch_add(1, Ordering::SeqCst),
                            Err(status) => assert_eq!(status, Status::NotFound),
                        }
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                vmo.evict(PageCount(1), Evict::Any);
                world.write_back(&vmo, 0, PAGES);
                world.supply(&vmo, 0, PAGES).unwrap();
            }
        });
        let deadline = soon();
        while !services.iter().all(thread::ScopedJoinHandle::is_finished) {
            assert!(Instant::now() < deadline, "a call did not come home");
            thread::yield_now();
        }
        for service in services {
            service.join().unwrap();
        }
    });
    assert!(done.load(Ordering::SeqCst) > 0);
    world.let_dirty(&vmo, 0, PAGES).unwrap();
    assert_eq!(vmo.counts().dirty, PageCount(PAGES));
    drop(vmo);
    world.end();
}

#[test]
fn every_waiter_comes_home_from_a_detach_that_meets_it_anywhere() {
    for number in 0..150u64 {
        let world = World::new();
        let vmo = world.vmo(8);
        let failed = AtomicU64::new(0);
        threads(|scope| {
            for n in 0..4 {
                let (vmo, failed) = (&vmo, &failed);
                scope.spawn(move || {
                    let mut random = random(number, n);
                    loop {
                        let page = PageIndex(random.below(8));
                        let fault = block_on_until(vmo.fault(page, Access::Read), Some(soon()));
                        if fault.expect("did not come home") == Err(Status::BadState) {
                            failed.fetch_add(1, Ordering::SeqCst);
                            return;
                        }
                    }
                });
            }
            scope.spawn(|| {
                let mut packets = [Packet::default(); 2];
                loop {
                    let taken = world.port.wait_until(Some(soon()), &mut packets).expect("COMPLETE comes");
                    for packet in &packets[..taken] {
                        if packet.command() == Some(Command::Complete) {
                            return;
                        }
                        let first = packet.page_request.offset / PAGE_SIZE;
                        let count = packet.page_request.length / PAGE_SIZE;
                        let frames: Vec<_> = (0..count).map(|_| world.frame()).collect();
                        let _ = world.pager.supply_frames(&vmo, pages(first, count), frames);
                        vmo.evict(PageCount(1), Evict::Any);
                    }
                }
            });
            for _ in 0..number * 20 {
                std::hint::spin_loop();
            }
            world.pager.detach_vmo(&vmo).unwrap();
        });
        assert_eq!(failed.load(Ordering::SeqCst), 4);
        assert_eq!(world.packets(), [], "nothing after COMPLETE");
        drop(vmo);
        world.end();
    }
}

#[test]
fn every_waiter_comes_home_when_the_pager_is_closed() {
    for number in 0..150u64 {
        let platform = std::sync::Arc::new(HeapPlatform::new());
        let (pager, port) = (Pager::new(platform.clone()), Port::new(platform.clone()));
        let vmos: Vec<_> =
            (0..3).map(|key| pager.create_vmo(&port, key, VmoOptions::NONE, 4 * PAGE_SIZE).unwrap()).collect();
        threads(|scope| {
            for n in 0..4u64 {
                let vmos = &vmos;
                scope.spawn(move || {
                    let mut random = random(number, n);
                    let fault = vmos[usize::try_from(n % 3).unwrap()].fault(PageIndex(random.below(4)), Access::Read);
                    let outcome = block_on_until(fault, Some(soon())).expect("did not come home");
                    assert_eq!(outcome, Err(Status::BadState));
                });
            }
            for _ in 0..number * 20 {
                std::hint::spin_loop();
            }
            drop(pager);
        });
        assert_eq!(port.take(&mut [Packet::default(); 8]), 0);
    }
}

#[test]
fn writers_of_one_page_lose_nothing_to_writeback() {
    let world = World::new();
    let vmo = world.vmo(1);
    world.supply(&vmo, 0, 1).unwrap();
    let mut saved = vec![0; PAGE];
    let over = AtomicBool::new(false);
    threads(|scope| {
        let _over = SetOnDrop(&over);
        let writers: Vec<_> = (0..2u64)
            .map(|writer| {
                let vmo = &vmo;
                scope.start(move || {
                    for number in 1..=5000u64 {
                        block_on(vmo.write(at(0, writer * 8), &number.to_le_bytes())).unwrap();
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) || vmo.counts().dirty != PageCount(0) {
                world.pager.writeback_begin(&vmo, pages(0, 1), Writeback::All).unwrap();
                block_on(vmo.read(at(0, 0), &mut saved)).unwrap();
                world.pager.writeback_end(&vmo, pages(0, 1)).unwrap();
            }
        });
        for writer in writers {
            writer.join().unwrap();
        }
    });
    // The page is clean, so what the service saved last is what the page has.
    assert_eq!([word_of(&saved, 0), word_of(&saved, 1)], [5000, 5000]);
    drop(vmo);
    world.end();
}

#[test]
fn vmos_come_and_go_on_one_port() {
    let world = World::new();
    let completes = AtomicU64::new(0);
    let over = AtomicBool::new(false);
    threads(|scope| {
        let _over = SetOnDrop(&over);
        let users: Vec<_> = (0..3u64)
            .map(|n| {
                let world = &world;
                scope.start(move || {
                    for number in 0..200 {
                        let vmo = world.vmo_with_key(2, n);
                        let patience = Duration::from_micros(number % 50);
                        let fault = vmo.fault(PageIndex(0), Access::Read);
                        assert_eq!(block_on_until(fault, Some(Instant::now() + patience)), None);
                        if number % 2 == 0 {
                            world.supply(&vmo, 0, 2).unwrap();
                        }
                        if number % 3 == 0 {
                            world.pager.detach_vmo(&vmo).unwrap();
                        }
                    }
                })
            })
            .collect();
        for _ in 0..2 {
            scope.spawn(|| {
                let mut packets = [Packet::default(); 3];
                while !over.load(Ordering::SeqCst) {
                    let deadline = Instant::now() + Duration::from_millis(5);
                    let taken = world.port.wait_until(Some(deadline), &mut packets).unwrap_or(0);
                    let complete = packets[..taken].iter().filter(|packet| packet.command() == Some(Command::Complete));
                    completes.fetch_add(complete.count() as u64, Ordering::SeqCst);
                }
            });
        }
        for user in users {
            user.join().unwrap();
        }
    });
    let rest = world.packets().iter().filter(|packet| packet.command() == Some(Command::Complete)).count();
    assert_eq!(completes.load(Ordering::SeqCst) + rest as u64, 600, "one COMPLETE for each VMO");
    world.end();
}
