//! Workers: readers, writers, and readers that are pinned, all over the windows, checking every word.

use core::sync::atomic::Ordering::SeqCst;

use upager::{ByteOffset, PAGE_SIZE, PageIndex, Platform, Status};

use super::plan::{self, OWNED, PAGES, VMOS, WORDS};
use super::{MOST_DIRTY, View, World, ring};
use crate::machine::memory::{self, PAGE};
use crate::machine::task;
use crate::machine::window::Refused;

/// Workers of a processor.
pub(crate) const EACH: usize = 6;

struct Worker {
    world: &'static World,
    /// Which of how many.
    number: u64,
    of: u64,
    random: u64,
    scan: u64,
    stamps: u32,
}

/// What a step came to.
type Step = Result<(), Refused>;

pub(crate) fn run(world: &'static World, number: u64, of: u64, seed: u64) {
    let random = plan::mix(seed ^ plan::mix(number + 1));
    let mut worker = Worker { world, number, of, random, scan: random % PAGES, stamps: 0 };
    while !world.workers_stop.is_up() {
        let view = &world.views[worker.below(VMOS as u64) as usize];
        let before = view.detaching.is_up();
        let step = match (worker.number / 2 % 3, worker.below(16)) {
            (0, _) => worker.read(view),
            (1, 0) => worker.write_bytes(view),
            (1, _) => worker.write(view),
            (_, 0..4) => worker.read_bytes(view),
            (_, _) => worker.read_pinned(view),
        };
        worker.judge(view, step, before);
        task::yield_now();
    }
}

impl Worker {
    fn below(&mut self, end: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        plan::mix(self.random) % end
    }

    /// A page: the next of a scan, one of the few that are used most, or any.
    fn page(&mut self) -> u64 {
        match self.below(8) {
            0..2 => {
                self.scan = (self.scan + 1) % PAGES;
                self.scan
            }
            2..6 => self.below(PAGES / 8),
            _ => self.below(PAGES),
        }
    }

    /// The number of a page of this worker's own.
    fn owned(&mut self) -> u64 {
        let n = self.page() % OWNED;
        let n = n / self.of * self.of + self.number;
        if n < OWNED { n } else { self.number }
    }

    fn check(&self, view: &View, page: u64, word: u64, value: u64) {
        self.world.tally.checked_words.add(1);
        if !plan::is_right(view.number, page, word, value) {
            self.world.tally.wrong_words.add(1);
        }
    }

    fn read(&mut self, view: &'static View) -> Step {
        let (page, word, pattern) = (self.page(), self.below(WORDS), self.below(u64::MAX));
        let value = view.window().probe(page, word, pattern)?;
        self.check(view, page, word, value);
        for _ in 0..4 {
            let word = self.below(WORDS);
            let value = view.window().load(page, word)?;
            self.check(view, page, word, value);
        }
        Ok(())
    }

    /// Through the pager's own copying call.
    fn read_bytes(&mut self, view: &'static View) -> Step {
        let page = self.page();
        let mut bytes = [0; PAGE];
        task::block_on(view.vmo.read(ByteOffset(page * PAGE_SIZE), &mut bytes)).map_err(refused)?;
        for (word, bytes) in (0..).zip(bytes.chunks_exact(8)) {
            self.check(view, page, word, u64::from_le_bytes(*bytes.first_chunk().expect("eight")));
        }
        Ok(())
    }

    /// Reads a frame that it found while pinned, after a fault that struck meanwhile: it must be what it was.
    fn read_pinned(&mut self, view: &'static View) -> Step {
        let (page, other) = (self.page(), self.page());
        let mut bytes = [0; PAGE / 8];
        let copied = {
            let guard = self.world.board.pin();
            let frame = view.vmo.lookup(&guard, PageIndex(page));
            let copied = view.window().copy(other, &mut bytes);
            if let Some(frame) = frame {
                for word in (0..WORDS).step_by(16) {
                    // SAFETY: the guard keeps the frame; it is in the kernel's own mapping.
                    let value = unsafe { memory::words(frame).add(word as usize).read_volatile() };
                    self.check(view, page, word, value);
                }
            }
            copied
        };
        if copied == Err(Refused::WouldWait) {
            self.world.tally.failed_while_pinned.add(1);
            return self.read(view); // not pinned: it may wait
        }
        copied?;
        for (word, value) in (0..).zip(bytes) {
            self.check(view, other, word, value);
        }
        Ok(())
    }

    /// Waits for its turn to make a page dirty.
    fn begin_store(&self, view: &View) {
        let world = self.world;
        let is_room = || world.stores_begun.load(SeqCst) < world.stores_written_back.load(SeqCst) + MOST_DIRTY;
        while !is_room() && !view.detaching.is_up() && !world.workers_stop.is_up() {
            ring(&world.writeback);
            task::sleep(1);
        }
        world.stores_begun.fetch_add(1, SeqCst);
    }

    fn write(&mut self, view: &'static View) -> Step {
        let n = self.owned();
        let page = plan::owned(n);
        let first = self.below(WORDS - 8);
        self.read_own(view, n, first)?;
        self.begin_store(view);
        self.stamps += 1;
        for word in first..first + 1 + self.below(8) {
            view.window().store(page, word, plan::stamp(view.number, page, word, self.stamps))?;
            view.shadow.set(n, word, self.stamps);
            self.world.tally.stored_words.add(1);
        }
        self.read_own(view, n, first)
    }

    /// Through the pager's own copying call.
    fn write_bytes(&mut self, view: &'static View) -> Step {
        let n = self.owned();
        let page = plan::owned(n);
        let first = self.below(WORDS - 8);
        self.begin_store(view);
        self.stamps += 1;
        let mut bytes = [0; 64];
        for (word, bytes) in (first..).zip(bytes.chunks_exact_mut(8)) {
            bytes.copy_from_slice(&plan::stamp(view.number, page, word, self.stamps).to_le_bytes());
        }
        let offset = ByteOffset(page * PAGE_SIZE + first * 8);
        task::block_on(view.vmo.write(offset, &bytes)).map_err(refused)?;
        for word in first..first + 8 {
            view.shadow.set(n, word, self.stamps);
        }
        self.world.tally.stored_words.add(8);
        self.read_own(view, n, first)
    }

    /// Nobody else writes there: it must be what was written, to the last bit.
    fn read_own(&mut self, view: &'static View, n: u64, first: u64) -> Step {
        for word in first..first + 8 {
            let value = view.window().load(plan::owned(n), word)?;
            self.world.tally.checked_words.add(1);
            if value != view.shadow.word(view.number, n, word) {
                self.world.tally.wrong_words.add(1);
            }
        }
        Ok(())
    }

    /// Tells what must be from what must not. `before`: whether the detach was about to come when it began.
    fn judge(&self, view: &View, step: Step, before: bool) {
        let tally = &self.world.tally;
        tally.accesses.add(1);
        match step {
            Ok(()) if view.detached.is_up() => tally.served_after_detach.add(before.into()),
            Ok(()) => {}
            Err(Refused::Detached) if view.detaching.is_up() => {
                let figure = if before { &tally.refused_after_detach } else { &tally.failed_at_detach };
                figure.add(1);
                task::sleep(u64::from(before)); // others have work to do
            }
            Err(Refused::RedZone) => tally.clobbered_red_zones.add(1),
            Err(Refused::Register) => tally.clobbered_registers.add(1),
            Err(_) => tally.unexpected_errors.add(1),
        }
    }
}

fn refused(status: Status) -> Refused {
    if status == Status::BadState { Refused::Detached } else { Refused::Failed }
}
