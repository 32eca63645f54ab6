//! A service, a keeper, and the users of a VMO.
//!
//! - *Users* read, write and zero pages, and give hints. They wait for what they ask. Each page has one
//!   user who writes it, so that he knows what is in it.
//! - A *service* answers from a store, by single frames or out of an anonymous VMO, and now and then fails
//!   what it is asked.
//! - The *keeper* writes back, evicts, and sets the size. Pages that may come and go with the size, the
//!   *tail*, are written by everybody, always with the same byte.

use std::sync::Arc as StdArc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use shuttle::future::block_on;
use shuttle::sync::{Mutex, MutexGuard};
use shuttle::thread;
use upager::{
    ByteOffset, ByteRange, Command, DirtyRange, Evict, PAGE_SIZE, Packet, PageCount, PageIndex, PagerOp, Platform,
    Status, VmoOp, VmoOptions,
};

use super::{Random, options};
use crate::world::{World, page};

/// What a scenario may contain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Service {
    pub threads: u64,
    pub pages: u64,
    /// Pages at the end that may be cut off; none where the VMO is not resizable.
    pub tail: u64,
    pub traps: bool,
    pub zeroes: bool,
    pub calls: u64,
    pub script: u64,
}

/// What the threads share.
struct Site {
    world: World,
    pages: u64,
    tail: u64,
    zeroes: bool,
    /// The bytes that the service has of each page.
    store: Mutex<Vec<u8>>,
    /// The users have ended.
    quiet: AtomicBool,
    /// Calls of users that have come home.
    made: AtomicU64,
}

// SAFETY: shuttle runs all its threads in one, and the VMO's own handles are Send.
unsafe impl Send for Site {}
// SAFETY: as above.
unsafe impl Sync for Site {}

/// So many turns the keeper makes while no call comes home.
const IDLE: usize = 20_000;

/// The key of the packet that ends a service.
const STOP: u64 = 1;

/// What is written to a page of the tail.
const TAIL: u8 = 100;

/// What a thread does.
type Act = Box<dyn FnOnce(&Site, Random) + Send>;

impl Service {
    /// Runs it. Returns the number of calls.
    pub(super) fn run(self) -> u64 {
        let Self { threads, pages, tail, traps, zeroes, calls, script } = self;
        let resizable = if tail > 0 { VmoOptions::RESIZABLE } else { VmoOptions::NONE };
        let all = pages + tail;
        let world = World::with(options(traps) | resizable, all);
        let store = Mutex::new(vec![0; all as usize]);
        let (quiet, made) = (AtomicBool::new(false), AtomicU64::new(0));
        let site = StdArc::new(Site { world, pages, tail, zeroes, store, quiet, made });
        let mut random = Random::new(script);
        let services = 1 + random.below(2);
        let users = threads - 1 - services;
        let each = (calls / users).min(200 * pages.div_ceil(users));
        let mut spawn_one = |act: Act| {
            let (site, mine) = (site.clone(), Random::new(random.next()));
            thread::spawn(move || act(&site, mine))
        };
        let answering: Vec<_> = (0..services).map(|_| spawn_one(Box::new(Site::answer))).collect();
        let keeper = spawn_one(Box::new(Site::keep));
        let using: Vec<_> = (0..users)
            .map(|user| spawn_one(Box::new(move |site, random| User::new(site, random, user, users).run(each))))
            .collect();
        for user in using {
            user.join().expect("a user ends");
        }
        site.quiet.store(true, Ordering::Relaxed);
        keeper.join().expect("the keeper ends");
        site.world.pager.detach_vmo(&site.world.vmo).expect("the pager's own VMO");
        for _ in 0..services {
            site.world.queue(STOP).expect("there is room");
        }
        for service in answering {
            service.join().expect("a service ends");
        }
        let site = StdArc::into_inner(site).expect("the threads have ended");
        assert_eq!(site.world.vmo.counts().in_flight, 0);
        site.world.end_of_the_world();
        users * each
    }
}

impl Site {
    fn store(&self) -> MutexGuard<'_, Vec<u8>> {
        self.store.lock().expect("no thread panics")
    }

    /// Answers what the port brings, until it is told to stop.
    fn answer(&self, mut random: Random) {
        let World { pager, port, vmo, .. } = &self.world;
        let mut packets = [Packet::default(); 4];
        loop {
            let taken = block_on(port.wait(&mut packets));
            let (stops, requests): (Vec<&Packet>, Vec<&Packet>) =
                packets[..taken].iter().partition(|packet| packet.key == STOP);
            for packet in requests {
                let range = packet.range();
                match packet.command() {
                    Some(Command::Read | Command::Dirty) if random.below(16) == 0 => {
                        answer_all(range, |range| {
                            let failed = pager.op_range(vmo, PagerOp::Fail(Status::Io), range);
                            self.check_answer(range, failed);
                            failed
                        });
                    }
                    Some(Command::Read) => self.supply(range, random.below(2) == 0),
                    // A page of it that was evicted meanwhile makes the writers ask again.
                    Some(Command::Dirty) => answer_all(range, |range| pager.dirty_range(vmo, range)),
                    _ => {}
                }
            }
            if !stops.is_empty() {
                // Each service needs one.
                stops[1..].iter().for_each(|_| self.world.queue(STOP).expect("there is room"));
                return;
            }
        }
    }

    fn check_answer(&self, range: ByteRange, answered: Result<(), Status>) {
        let may_be_cut = (range.offset + range.length) / PAGE_SIZE > self.pages;
        match answered {
            Ok(()) | Err(Status::BadState) => {}
            Err(Status::OutOfRange) if may_be_cut => {}
            Err(status) => panic!("{range:?}: {status:?}"),
        }
    }

    /// Supplies from the store, page by page or all at once.
    fn supply(&self, range: ByteRange, at_once: bool) {
        let (first, count) = (range.offset / PAGE_SIZE, range.length / PAGE_SIZE);
        // Zeros, once written back, leave no page. What is read of the store before must not come after.
        let held = self.zeroes.then(|| self.store());
        let byte = |page: u64| held.as_ref().map_or_else(|| self.store()[page as usize], |held| held[page as usize]);
        if at_once {
            let aux = self.world.aux(count);
            (0..count).for_each(|n| aux.write(n, byte(first + n)).expect("a page of its own"));
            let supplied = self.world.supply_pages(first, count, &aux, 0);
            self.check_answer(range, supplied);
            if supplied != Err(Status::OutOfRange) {
                return;
            }
        }
        for at in first..first + count {
            self.check_answer(page(at), self.world.supply(at, byte(at)));
        }
    }

    /// Writes pages back, evicts, and sets the size. The only one who does, so what it stores is the
    /// last that was written back.
    fn keep(&self, mut random: Random) {
        let World { pager, vmo, .. } = &self.world;
        let (mut made, mut idle) = (0, 0);
        // Where nobody comes home any more it ends too, so that shuttle finds everybody waiting.
        while !self.quiet.load(Ordering::Relaxed) && idle < IDLE {
            thread::yield_now(); // nothing waits for it, so it must not be preferred for ever
            let now = self.made.load(Ordering::Relaxed);
            idle = if now == made { idle + 1 } else { 0 };
            made = now;
            let some = PageCount(1 + random.below(2));
            match random.below(10) {
                0 => drop(vmo.evict(some, Evict::Any)),
                1 => drop(vmo.evict(some, Evict::Unused)),
                2 => drop(pager.evict(some, Evict::Any)),
                3 if self.tail > 0 => {
                    let size = (self.pages + random.below(self.tail + 1)) * PAGE_SIZE;
                    assert_eq!(vmo.set_size(size), Ok(()), "nobody else sets it");
                }
                _ => self.write_back(random.below(vmo.size() / PAGE_SIZE)),
            }
        }
    }

    fn write_back(&self, at: u64) {
        let mut held = self.zeroes.then(|| self.store());
        self.world.begin(at).expect("a page of the VMO");
        if let Some(byte) = self.byte(at) {
            match &mut held {
                Some(held) => held[at as usize] = byte,
                None => self.store()[at as usize] = byte,
            }
        }
        self.world.end(at).expect("a page of the VMO");
    }

    /// What a page has that is being written back, if it is still.
    fn byte(&self, at: u64) -> Option<u8> {
        let World { platform, pager, vmo, .. } = &self.world;
        let mut runs = [DirtyRange::default()];
        let found = pager.query_dirty_ranges(vmo, page(at), &mut runs).expect("a page of the VMO");
        if found.actual == 1 && runs[0].options == DirtyRange::ZERO {
            return Some(0);
        }
        let guard = platform.pin();
        let frame = vmo.lookup(&guard, PageIndex(at))?;
        let mut byte = [0];
        // SAFETY: the guard, from before the lookup, keeps the frame; one byte lies within.
        unsafe { platform.copy_out(frame, 0, &mut byte) };
        Some(byte[0])
    }
}

/// Gives an answer to a range, and to each page of it if the end was cut off: what is left is still asked.
fn answer_all(range: ByteRange, answer: impl Fn(ByteRange) -> Result<(), Status>) {
    if answer(range) == Err(Status::OutOfRange) {
        let first = range.offset / PAGE_SIZE;
        for at in first..first + range.length / PAGE_SIZE {
            let _: Result<(), Status> = answer(page(at)); // the last ones may still be off
        }
    }
}

/// One who uses the VMO.
struct User<'a> {
    site: &'a Site,
    random: Random,
    /// The pages that it alone writes.
    own: Vec<u64>,
    /// Of each page, what it wrote last, or the most it has seen.
    seen: Vec<u8>,
    /// The last byte that it wrote to each: each is written only once.
    last: Vec<u8>,
}

impl<'a> User<'a> {
    fn new(site: &'a Site, random: Random, user: u64, users: u64) -> Self {
        let own = (0..site.pages).filter(|page| page % users == user).collect();
        let none = vec![0; site.pages as usize];
        Self { site, random, own, seen: none.clone(), last: none }
    }

    fn run(mut self, calls: u64) {
        for _ in 0..calls {
            self.site.made.fetch_add(1, Ordering::Relaxed);
            match self.random.below(16) {
                0 | 1 => self.hint(),
                2 if self.site.tail > 0 => self.access_tail(),
                3 if self.site.zeroes => self.zero(),
                4..=9 => self.write(),
                _ => self.read(),
            }
        }
    }

    /// What comes of a call that is made again while the service fails it.
    fn until_served<T>(mut call: impl FnMut() -> Result<T, Status>) -> Result<T, Status> {
        loop {
            match call() {
                Err(Status::Io) => {}
                came => return came,
            }
        }
    }

    fn write_byte(&self, page: u64, byte: u8) -> Result<(), Status> {
        let vmo = &self.site.world.vmo;
        Self::until_served(|| block_on(vmo.write(ByteOffset(page * PAGE_SIZE), &[byte])))
    }

    fn read_byte(&self, page: u64) -> Result<u8, Status> {
        let vmo = &self.site.world.vmo;
        let mut byte = [0];
        Self::until_served(|| block_on(vmo.read(ByteOffset(page * PAGE_SIZE), &mut byte)))?;
        Ok(byte[0])
    }

    fn own_page(&mut self) -> Option<u64> {
        let len = self.own.len() as u64;
        (len > 0).then(|| self.own[self.random.below(len) as usize])
    }

    fn write(&mut self) {
        let Some(page) = self.own_page() else { return self.read() };
        let last = &mut self.last[page as usize];
        if *last == u8::MAX {
            return;
        }
        *last += 1;
        let byte = *last;
        self.seen[page as usize] = byte;
        assert_eq!(self.write_byte(page, byte), Ok(()));
    }

    fn zero(&mut self) {
        let Some(at) = self.own_page() else { return };
        self.seen[at as usize] = 0;
        assert_eq!(self.site.world.zero(at, 1), Ok(()));
    }

    fn read(&mut self) {
        let page = self.random.below(self.site.pages);
        let byte = self.read_byte(page).expect("nobody detaches yet");
        let seen = &mut self.seen[page as usize];
        if self.own.contains(&page) {
            assert_eq!(byte, *seen, "page {page} lost what its writer wrote");
        } else if !(self.site.zeroes && byte == 0) {
            assert!(byte >= *seen, "page {page} went back from {seen} to {byte}");
            *seen = byte;
        }
    }

    /// A page that may be cut off at any time, and comes back as zeros.
    fn access_tail(&mut self) {
        let page = self.site.pages + self.random.below(self.site.tail);
        if self.random.below(2) == 0 {
            let written = self.write_byte(page, TAIL);
            assert!(matches!(written, Ok(()) | Err(Status::OutOfRange)), "{written:?}");
        } else {
            let read = self.read_byte(page);
            assert!(matches!(read, Ok(0 | TAIL) | Err(Status::OutOfRange)), "{read:?}");
        }
    }

    fn hint(&mut self) {
        let first = self.random.below(self.site.pages);
        let count = 1 + self.random.below(self.site.pages + self.site.tail - first);
        let range = ByteRange::new(first * PAGE_SIZE, count * PAGE_SIZE);
        let op = match self.random.below(4) {
            0 => VmoOp::Commit,
            1 => VmoOp::Prefetch,
            2 => VmoOp::AlwaysNeed,
            _ => VmoOp::DontNeed,
        };
        let came = block_on(self.site.world.vmo.op_range(op, range));
        match came {
            Ok(()) => {}
            Err(Status::Io) if matches!(op, VmoOp::Commit | VmoOp::AlwaysNeed) => {}
            Err(Status::OutOfRange) if first + count > self.site.pages => {}
            Err(status) => panic!("{op:?} of {range:?}: {status:?}"),
        }
    }
}
