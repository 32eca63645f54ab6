//! A pager, a port and a VMO over frames without memory, in a steady state.

use std::sync::Arc;

use upager::{
    Access, ByteRange, Evict, OwnedFrame, PAGE_SIZE, PageCount, PageIndex, Pager, Platform, Port, Vmo, VmoOptions,
    block_on,
};

use crate::Numbers;

/// One VMO, its service's end, and what they stand on.
#[derive(Debug)]
pub struct World {
    /// The platform of all of them.
    pub platform: Arc<Numbers>,
    /// The VMO's pager.
    pub pager: Pager<Numbers>,
    /// Where its requests arrive.
    pub port: Port<Numbers>,
    /// The VMO.
    pub vmo: Vmo<Numbers>,
}

impl World {
    /// A VMO of `count` pages that are all absent.
    ///
    /// # Panics
    /// When memory runs out.
    #[must_use]
    pub fn empty(count: u32) -> Self {
        let platform = Arc::new(Numbers::default());
        let pager = Pager::new(platform.clone());
        let port = Port::new(platform.clone());
        let size = u64::from(count) * PAGE_SIZE;
        let vmo = pager.create_vmo(&port, 1, VmoOptions::NONE, size).expect("memory for a VMO");
        Self { platform, pager, port, vmo }
    }

    /// All pages of the VMO, `count` of them, are resident and clean.
    ///
    /// # Panics
    /// When memory runs out.
    #[must_use]
    pub fn resident(count: u32) -> Self {
        let world = Self::empty(count);
        let frames = (0..count).map(|_| OwnedFrame::new(&*world.platform).expect("frames are numbers"));
        let all = ByteRange::new(0, world.vmo.size());
        world.pager.supply_frames(&world.vmo, all, frames).expect("memory for the table");
        world
    }

    /// The page with number n is resident, clean and has `frames[n]`; these are all numbers below
    /// their count, in some order.
    ///
    /// # Panics
    /// When memory runs out, or a number is missing.
    #[must_use]
    pub fn with_frames(frames: &[u64]) -> Self {
        let world = Self::empty(u32::try_from(frames.len()).expect("a page number"));
        let mut fresh: Vec<_> = frames.iter().map(|_| OwnedFrame::new(&*world.platform).ok()).collect();
        let frames = frames.iter().map(|frame| {
            let place = fresh.get_mut(usize::try_from(*frame).expect("a page number"));
            place.and_then(Option::take).expect("each number once")
        });
        let all = ByteRange::new(0, world.vmo.size());
        world.pager.supply_frames(&world.vmo, all, frames).expect("memory for the table");
        drop(fresh);
        world
    }

    /// Of the VMO's pages, `count` of them, those in `absent` are absent, and the others dirty, so
    /// that they are never evicted.
    ///
    /// # Panics
    /// When memory runs out.
    #[must_use]
    pub fn absent(count: u32, absent: &[PageIndex]) -> Self {
        let world = Self::resident(count);
        let mut stays = vec![true; count as usize];
        for page in absent {
            stays[usize::try_from(page.0).expect("a page of the VMO")] = false;
        }
        for (page, _) in (0..).zip(stays).filter(|(_, stays)| *stays) {
            block_on(world.vmo.fault(PageIndex(page), Access::Write)).expect("the page is resident");
        }
        world.evict(absent.len());
        world
    }

    /// Makes the clean pages absent, of which there are `clean`: they are evicted, and their grace
    /// period is over.
    ///
    /// # Panics
    /// If there are not as many.
    pub fn evict(&self, clean: usize) {
        let clean = PageCount(clean as u64);
        let left = PageCount(self.platform.frames().0 - clean.0);
        assert_eq!(self.vmo.evict(clean, Evict::Any), clean);
        while self.platform.frames() != left {
            self.platform.pin().flush();
        }
    }
}
