//! Keeping memory under a limit: by evicting clean pages, and by having dirty ones written back so that they can be.

use std::sync::TryLockError;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

use async_io::Timer;
use upager::{Evict, PageCount, Platform};

use super::{Inner, MemoryLimit, Writes};

/// How often a read that waits for memory looks for it.
const STEP: Duration = Duration::from_micros(200);
/// Times that a look pushes the epoch on. A grace period is three steps, if nobody is in the way, and each step
/// also frees a part of what has waited for it.
const PUSHES: usize = 8;
/// How long it waits while nothing is evicted and nothing is written back. Then it goes on above the limit: to wait
/// longer for what may never be written back would be to hang.
const PATIENCE: Duration = Duration::from_secs(1);

/// The window of a sequence under a limit, at most: with what is ahead of it, an eighth of all.
pub(super) fn most_ahead(limit: MemoryLimit) -> PageCount {
    PageCount((limit.pages().0 / 16).max(1))
}

/// Whether waiting for memory may be of use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Hope {
    Some,
    /// Nothing can be evicted, and nothing is to be written back.
    None,
}

/// Room for pages that are about to come. They count as if they were there, until it is dropped.
pub(super) struct Room<'a> {
    inner: &'a Inner,
    pages: u64,
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.inner.coming.fetch_sub(self.pages, Release); // Release: after the frames are counted; pairs with `room_now`
    }
}

impl Inner {
    /// Pages that may come by one read: a part of all that there may be.
    pub(super) fn pages_at_once(&self) -> PageCount {
        PageCount(self.options.limit.map_or(u64::MAX, |limit| (limit.pages().0 / 4).max(1)))
    }

    /// Waits until so many pages may come, but not for ever.
    pub(super) async fn room_for(&self, pages: PageCount) -> Room<'_> {
        let progress = || (self.figures.evicted.get(), self.figures.written.get());
        let (mut seen, mut since) = (progress(), Instant::now());
        while since.elapsed() < PATIENCE {
            let mut room = self.room_now(pages.0);
            let hope = if room.is_some() { Hope::Some } else { self.trim_for(pages.0) };
            for _ in 0..PUSHES {
                if room.is_some() {
                    break;
                }
                // What was evicted is freed after a grace period. This hurries it on.
                self.platform.pin().flush();
                room = self.room_now(pages.0);
            }
            if let Some(room) = room {
                // For the next read, which then need not wait for a grace period: that goes by during this one.
                self.trim_for(pages.0);
                return room;
            }
            if hope == Hope::None {
                break;
            }
            Timer::after(STEP).await;
            if progress() != seen {
                (seen, since) = (progress(), Instant::now());
            }
        }
        self.figures.over_limit.add(1);
        self.take_room(pages.0)
    }

    /// What waits does not count, so that what can go on does.
    fn room_now(&self, pages: u64) -> Option<Room<'_>> {
        let high = self.options.limit.map_or(u64::MAX, |limit| limit.pages().0);
        let fits = |more: u64| {
            // Acquire, and first: pairs with the drop of a room, so that its pages are counted here or there
            let coming = self.coming.load(Acquire);
            self.platform.counts().frames.0.saturating_add(coming + more) <= high
        };
        if !fits(pages) {
            return None;
        }
        let room = self.take_room(pages);
        // Others may have looked at the same time. Then none of them may have it, and they look again.
        fits(0).then_some(room)
    }

    fn take_room(&self, pages: u64) -> Room<'_> {
        self.coming.fetch_add(pages, AcqRel); // AcqRel: of two who take room, the second sees both when it looks
        Room { inner: self, pages }
    }

    /// Evicts, if there are too many.
    pub(super) fn trim(&self) {
        let _: Hope = self.trim_for(0);
    }

    /// Evicts, if so many more would be too many.
    fn trim_for(&self, pages: u64) -> Hope {
        let Some((high, low)) = self.options.limit.map(MemoryLimit::pages) else { return Hope::Some };
        let others = self.coming.load(Relaxed); // Relaxed: a figure
        let coming = others + pages;
        if self.platform.counts().frames.0 + coming <= high {
            return Hope::Some;
        }
        // One at a time, or each would evict for all.
        let hope = match self.trimming.try_lock() {
            Ok(_) | Err(TryLockError::Poisoned(_)) => self.evict(high, low.min(high.saturating_sub(pages)), coming),
            Err(TryLockError::WouldBlock) => Hope::Some,
        };
        self.platform.pin().flush(); // towards the end of the grace period
        if others > 0 { Hope::Some } else { hope } // theirs can be evicted when they are there
    }

    /// Evicts down to `low`, if what is there and what is coming is more than `high`.
    fn evict(&self, high: u64, low: u64, coming: u64) -> Hope {
        let served = self.served.load();
        // Before anything is evicted: what becomes clean meanwhile is found neither by that nor by a look after it.
        let (mut resident, mut dirty) = (0, 0);
        for served in served.values() {
            let counts = served.vmo.counts();
            resident += counts.resident.0;
            dirty += if served.writes == Writes::WriteBack { counts.dirty.0 } else { 0 };
        }
        if resident + coming <= high {
            return Hope::Some; // the rest is on its way out
        }
        let wanted = (resident + coming).saturating_sub(low);
        let mut evicted = self.pager.evict(PageCount(wanted), Evict::Unused).0;
        if evicted < wanted {
            evicted += self.pager.evict(PageCount(wanted - evicted), Evict::Any).0;
        }
        self.figures.evicted.add(evicted);
        if (resident + coming).saturating_sub(evicted) <= high {
            return Hope::Some;
        }
        // Dirty pages are in the way.
        let mut hope = if evicted > 0 || dirty > 0 { Hope::Some } else { Hope::None };
        for served in served.values() {
            if served.writes == Writes::WriteBack && served.vmo.counts().dirty.0 > 0 {
                served.wanted.store(true, Relaxed); // Relaxed: the event orders it
                served.kick.notify(1);
                hope = Hope::Some;
            }
        }
        hope
    }
}
