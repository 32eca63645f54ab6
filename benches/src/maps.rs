//! The maps from page to frame that a user would otherwise pick, each used as its documentation says
//! is fastest: a guard held over all lookups where it has guards, room made beforehand where it can
//! be, and the same fast hash in all that hash.
//!
//! They can hold any keys, and upager and the flat array only such as are page numbers. That is what
//! they are compared for: this is the price of not knowing.

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::sync::{PoisonError, RwLock};

use congee::{Congee, DefaultAllocator};
use dashmap::DashMap;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use scc::{Guard, HashIndex};

use crate::Pages;

/// A peer as a map that also gains and loses pages.
pub trait Maps: Pages {
    /// An empty one, with room for so many.
    fn with_room(pages: usize) -> Self;

    /// Puts a page in that is not there; a run of calls holds whatever it may hold.
    fn supplier(&self) -> impl Fn(u32, u64);

    /// Takes every page out.
    fn empty(&mut self, pages: u32);
}

/// Something to do with a peer.
pub trait Visit {
    /// Does it. `name` is the peer's.
    fn visit<M: Maps>(&mut self, name: &'static str);
}

/// Visits all peers.
pub fn visit_maps(visit: &mut impl Visit) {
    visit.visit::<Dash>("dashmap");
    visit.visit::<Papaya>("papaya");
    visit.visit::<Scc>("scc");
    visit.visit::<Radix>("congee");
    visit.visit::<Sharded>("sharded_hashbrown");
    visit.visit::<Tree>("rwlock_btreemap");
}

fn filled<M: Maps>(frames: &[u64]) -> M {
    let map = M::with_room(frames.len());
    {
        let supply = map.supplier();
        for (page, frame) in (0..).zip(frames) {
            supply(page, *frame);
        }
    }
    map
}

type Dash = DashMap<u32, u64, FixedState>;

impl Pages for Dash {
    fn of(frames: &[u64]) -> Self {
        filled(frames)
    }

    fn reader(&self) -> impl Fn(u32) -> Option<u64> {
        |page| self.get(&page).map(|frame| *frame)
    }

    fn writer(&self) -> impl Fn(u32) {
        |page| {
            if let Some(mut frame) = self.get_mut(&page) {
                *frame = std::hint::black_box(*frame);
            }
        }
    }
}

impl Maps for Dash {
    fn with_room(pages: usize) -> Self {
        Self::with_capacity_and_hasher(pages, FixedState::default())
    }

    fn supplier(&self) -> impl Fn(u32, u64) {
        |page, frame| {
            self.insert(page, frame);
        }
    }

    fn empty(&mut self, _pages: u32) {
        self.clear();
    }
}

type Papaya = papaya::HashMap<u32, u64, FixedState>;

impl Pages for Papaya {
    fn of(frames: &[u64]) -> Self {
        filled(frames)
    }

    fn reader(&self) -> impl Fn(u32) -> Option<u64> {
        let map = self.pin();
        move |page| map.get(&page).copied()
    }

    fn writer(&self) -> impl Fn(u32) {
        |page| {
            self.pin().update(page, |frame| std::hint::black_box(*frame));
        }
    }
}

impl Maps for Papaya {
    fn with_room(pages: usize) -> Self {
        Self::with_capacity_and_hasher(pages, FixedState::default())
    }

    fn supplier(&self) -> impl Fn(u32, u64) {
        let map = self.pin();
        move |page, frame| {
            map.insert(page, frame);
        }
    }

    fn empty(&mut self, _pages: u32) {
        self.pin().clear();
    }
}

type Scc = HashIndex<u32, u64, FixedState>;

impl Pages for Scc {
    fn of(frames: &[u64]) -> Self {
        filled(frames)
    }

    fn reader(&self) -> impl Fn(u32) -> Option<u64> {
        let guard = Guard::new();
        move |page| self.peek(&page, &guard).copied()
    }

    fn writer(&self) -> impl Fn(u32) {
        |page| {
            if let Some(mut entry) = self.get_sync(&page) {
                let frame = std::hint::black_box(*entry.get());
                entry.update(frame);
            }
        }
    }
}

impl Maps for Scc {
    fn with_room(pages: usize) -> Self {
        Self::with_capacity_and_hasher(pages, FixedState::default())
    }

    fn supplier(&self) -> impl Fn(u32, u64) {
        |page, frame| assert!(self.insert_sync(page, frame).is_ok())
    }

    fn empty(&mut self, _pages: u32) {
        self.clear_sync();
    }
}

type Radix = Congee<usize, usize, DefaultAllocator>;

impl Pages for Radix {
    fn of(frames: &[u64]) -> Self {
        filled(frames)
    }

    fn reader(&self) -> impl Fn(u32) -> Option<u64> {
        let guard = self.pin();
        move |page| self.get(&(page as usize), &guard).map(|frame| frame as u64)
    }

    fn writer(&self) -> impl Fn(u32) {
        |page| {
            self.compute_if_present(&(page as usize), |frame| Some(std::hint::black_box(frame)), &self.pin());
        }
    }
}

impl Maps for Radix {
    fn with_room(_pages: usize) -> Self {
        Self::default()
    }

    fn supplier(&self) -> impl Fn(u32, u64) {
        let guard = self.pin();
        move |page, frame| {
            let frame = usize::try_from(frame).expect("frames are page numbers");
            self.insert(page as usize, frame, &guard).expect("memory for a node");
        }
    }

    fn empty(&mut self, pages: u32) {
        let guard = self.pin();
        for page in 0..pages {
            self.remove(&(page as usize), &guard);
        }
    }
}

const SHARDS: usize = 64;

/// 64 hash tables, each behind a lock for many readers, on lines of its own.
#[derive(Debug)]
struct Sharded {
    hash: FixedState,
    shards: Box<[Shard]>,
}

#[derive(Debug)]
#[repr(align(128))]
struct Shard(RwLock<HashMap<u32, u64, FixedState>>);

impl Sharded {
    fn shard(&self, page: u32) -> &RwLock<HashMap<u32, u64, FixedState>> {
        // The table uses the low and the highest bits of the hash.
        &self.shards[(self.hash.hash_one(page) >> 40) as usize % SHARDS].0
    }
}

impl Pages for Sharded {
    fn of(frames: &[u64]) -> Self {
        filled(frames)
    }

    fn reader(&self) -> impl Fn(u32) -> Option<u64> {
        |page| self.shard(page).read().unwrap_or_else(PoisonError::into_inner).get(&page).copied()
    }

    fn writer(&self) -> impl Fn(u32) {
        |page| {
            if let Some(frame) = self.shard(page).write().unwrap_or_else(PoisonError::into_inner).get_mut(&page) {
                *frame = std::hint::black_box(*frame);
            }
        }
    }
}

impl Maps for Sharded {
    fn with_room(pages: usize) -> Self {
        let hash = FixedState::default();
        let shard = || Shard(RwLock::new(HashMap::with_capacity_and_hasher(pages / SHARDS, hash.clone())));
        let shards = std::iter::repeat_with(shard).take(SHARDS).collect();
        Self { hash, shards }
    }

    fn supplier(&self) -> impl Fn(u32, u64) {
        |page, frame| {
            self.shard(page).write().unwrap_or_else(PoisonError::into_inner).insert(page, frame);
        }
    }

    fn empty(&mut self, _pages: u32) {
        for shard in &mut self.shards {
            shard.0.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }
}

type Tree = RwLock<BTreeMap<u32, u64>>;

impl Pages for Tree {
    fn of(frames: &[u64]) -> Self {
        filled(frames)
    }

    fn reader(&self) -> impl Fn(u32) -> Option<u64> {
        |page| self.read().unwrap_or_else(PoisonError::into_inner).get(&page).copied()
    }

    fn writer(&self) -> impl Fn(u32) {
        |page| {
            if let Some(frame) = self.write().unwrap_or_else(PoisonError::into_inner).get_mut(&page) {
                *frame = std::hint::black_box(*frame);
            }
        }
    }
}

impl Maps for Tree {
    fn with_room(_pages: usize) -> Self {
        Self::default()
    }

    fn supplier(&self) -> impl Fn(u32, u64) {
        |page, frame| {
            self.write().unwrap_or_else(PoisonError::into_inner).insert(page, frame);
        }
    }

    fn empty(&mut self, _pages: u32) {
        self.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
