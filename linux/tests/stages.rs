//! Stores at every stage of a writeback, eviction and refault, in every order that chance finds, against a model.
//!
//! One thread does all, so each step is over before the next: what is loaded must be what was stored last, and what
//! the service has of a page that is not dirty must be what the page has.

#![cfg(target_arch = "x86_64")] // where there are guards
#![allow(clippy::cast_possible_truncation)] // 64 bits

mod world;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use upager::{ByteOffset, DirtyRange, Evict, PAGE_SIZE, PageCount, VmoOptions, Writeback, block_on};
use upager_linux::{Mapper, Mapping};
use world::{PAGE, World, load, mapper, pages, pattern, store};

const PAGES: u64 = 4;
const WORDS: usize = 2;

#[derive(Clone, Debug)]
enum Step {
    /// Through one of three mappings, or as bytes.
    Store(usize, u64, usize),
    Load(usize, u64, usize),
    /// The service's steps, of a run of pages.
    Begin(u64, u64),
    Copy(u64, u64),
    End(u64, u64),
    Evict(u64),
    Zero(u64),
    /// A mapping is closed, and another one made in its place.
    Remap(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let page = 0..PAGES;
    let run = (0..PAGES, 1..=PAGES).prop_map(|(first, count)| (first, count.min(PAGES - first)));
    prop_oneof![
        6 => (0..4_usize, page.clone(), 0..WORDS).prop_map(|(by, page, word)| Step::Store(by, page, word)),
        3 => (0..4_usize, page.clone(), 0..WORDS).prop_map(|(by, page, word)| Step::Load(by, page, word)),
        3 => run.clone().prop_map(|(first, count)| Step::Begin(first, count)),
        3 => run.clone().prop_map(|(first, count)| Step::Copy(first, count)),
        3 => run.prop_map(|(first, count)| Step::End(first, count)),
        2 => (1..=PAGES).prop_map(Step::Evict),
        1 => page.prop_map(Step::Zero),
        1 => (0..3_usize).prop_map(Step::Remap),
    ]
}

struct Model {
    world: World,
    mappings: Vec<Mapping>,
    words: [[u64; WORDS]; PAGES as usize],
    /// Pages that a BEGIN took, and that were read and stored by the service after that: END may clean them. A service that
    /// ends what it has not copied loses it, and is not tried here.
    began: [bool; PAGES as usize],
    copied: [bool; PAGES as usize],
    count: u64,
}

impl Model {
    fn new(mapper: &Mapper, options: VmoOptions) -> Self {
        let world = World::with(PAGES, options, 1);
        let mappings = (0..3).map(|_| world.map(mapper)).collect();
        let words = std::array::from_fn(|page| [pattern(page as u64); WORDS]);
        Self { world, mappings, words, began: Default::default(), copied: Default::default(), count: 0 }
    }

    fn load(&self, by: usize, page: u64, word: usize) -> u64 {
        if let Some(mapping) = self.mappings.get(by) {
            return load(mapping, page, word);
        }
        let mut bytes = [0; 8];
        block_on(self.world.vmo.read(ByteOffset(page * PAGE_SIZE + word as u64 * 8), &mut bytes)).unwrap();
        u64::from_ne_bytes(bytes)
    }

    fn step(&mut self, mapper: &Mapper, step: &Step) {
        let World { pager, vmo, .. } = &self.world;
        match *step {
            Step::Store(by, page, word) => {
                self.count += 1;
                if let Some(mapping) = self.mappings.get(by) {
                    store(mapping, page, word, self.count);
                } else {
                    let offset = ByteOffset(page * PAGE_SIZE + word as u64 * 8);
                    block_on(vmo.write(offset, &self.count.to_ne_bytes())).unwrap();
                }
                self.words[page as usize][word] = self.count;
            }
            Step::Load(by, page, word) => {
                assert_eq!(self.load(by, page, word), self.words[page as usize][word], "page {page}, word {word}");
            }
            Step::Begin(first, count) => {
                pager.writeback_begin(vmo, pages(first, count), Writeback::All).unwrap();
                for page in first..first + count {
                    (self.began[page as usize], self.copied[page as usize]) = (true, false);
                }
            }
            Step::Copy(first, count) => {
                let mut bytes = [0; PAGE];
                for page in (first..first + count).filter(|page| self.began[*page as usize]) {
                    block_on(vmo.read(ByteOffset(page * PAGE_SIZE), &mut bytes)).unwrap();
                    self.world.store.write(page, &bytes);
                    self.copied[page as usize] = true;
                }
            }
            Step::End(first, count) => {
                for page in first..first + count {
                    if !self.copied[page as usize] {
                        continue;
                    }
                    pager.writeback_end(vmo, pages(page, 1)).unwrap();
                    (self.began[page as usize], self.copied[page as usize]) = (false, false);
                }
            }
            Step::Evict(count) => {
                vmo.evict(PageCount(count), Evict::Any);
            }
            Step::Zero(page) => {
                block_on(vmo.zero(pages(page, 1))).unwrap();
                self.words[page as usize] = [0; WORDS];
            }
            Step::Remap(which) => self.mappings[which] = self.world.map(mapper),
        }
        self.check_what_is_clean();
    }

    /// A page that is not dirty is in the store as it is.
    fn check_what_is_clean(&self) {
        let mut ranges = [DirtyRange::default(); PAGES as usize];
        let found = self.world.pager.query_dirty_ranges(&self.world.vmo, pages(0, PAGES), &mut ranges).unwrap();
        let dirty = |page: u64| {
            ranges[..found.actual]
                .iter()
                .any(|range| (range.offset..range.offset + range.length).contains(&(page * PAGE_SIZE)))
        };
        for page in (0..PAGES).filter(|page| !dirty(*page)) {
            for word in 0..WORDS {
                let stored = self.world.store.word(page, word);
                assert_eq!(stored, self.words[page as usize][word], "page {page} is clean, word {word} is not stored");
            }
        }
    }

    fn end(self) {
        for page in 0..PAGES {
            for (word, expected) in self.words[page as usize].iter().enumerate() {
                for by in 0..4 {
                    assert_eq!(self.load(by, page, word), *expected, "page {page}, word {word}, at the end");
                }
            }
        }
        self.world.write_back_all();
        self.check_what_is_clean();
    }
}

fn no_store_is_lost(cases: u32, options: VmoOptions) {
    let Some(mapper) = mapper() else { return };
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let steps = prop::collection::vec(step(), 1..60);
    let run = TestRunner::new(config).run(&steps, |steps| {
        let mut model = Model::new(&mapper, options);
        for step in &steps {
            model.step(&mapper, step);
        }
        model.end();
        Ok(())
    });
    assert!(run.is_ok(), "{}", run.unwrap_err());
}

#[test]
fn no_store_is_lost_at_any_stage() {
    no_store_is_lost(1500, VmoOptions::NONE);
}

#[test]
fn no_store_is_lost_at_any_stage_where_dirtying_is_asked_for() {
    no_store_is_lost(1500, VmoOptions::TRAP_DIRTY);
}

/// The model itself notices a store that no writeback takes along.
#[test]
#[should_panic(expected = "is not stored")]
fn a_lost_store_is_noticed() {
    let Some(mapper) = mapper() else { panic!("is not stored: skipped, no userfaultfd here") };
    let mut model = Model::new(&mapper, VmoOptions::NONE);
    model.step(&mapper, &Step::Store(0, 1, 0));
    model.step(&mapper, &Step::Begin(1, 1));
    model.copied[1] = true; // it was not
    model.step(&mapper, &Step::End(1, 1));
}

#[test]
fn a_store_after_begin_keeps_its_page_dirty() {
    let Some(mapper) = mapper() else { return };
    let mut model = Model::new(&mapper, VmoOptions::NONE);
    for by in 0..4 {
        for step in [
            Step::Store(by, 1, 0),
            Step::Begin(0, 4),
            Step::Store((by + 1) % 4, 1, 1),
            Step::Copy(0, 4),
            Step::Store((by + 2) % 4, 1, 0),
            Step::End(0, 4),
        ] {
            model.step(&mapper, &step);
        }
        assert_eq!(model.world.vmo.counts().dirty, PageCount(1));
    }
    model.end();
}
