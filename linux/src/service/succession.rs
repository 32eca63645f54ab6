//! From a detached VMO to its successor, whose pages come from another source.
//!
//! What is dirty moves, in two steps. First every dirty page is copied, and is dirty in the successor from then on: whatever may
//! fail, fails here, and then nothing has moved. Then each is moved: BEGIN, which takes write access from
//! mapped writers, copy, END. A store before BEGIN is in the copy; one between BEGIN and END keeps the page dirty, and it is moved
//! again; one after END finds no page, and fails, since a detached VMO drops what is clean. So every store either is in the
//! successor or has failed. No page becomes dirty that was not, since there are no others any more.

use upager::{ByteOffset, ByteRange, DirtyRange, PAGE_SIZE, Status, Writeback};

use super::served::Served;
use super::{Inner, Writes};
use crate::source::PageBuf;

impl Inner {
    /// Moves what is dirty in the former one, which is detached, to the next one, which nobody has yet.
    pub(super) async fn succeed(&self, former: &Served, next: &Served) -> Result<(), Status> {
        // No round cleans pages meanwhile.
        let _rounds = former.round.lock().await;
        let mut page = [0; PageBuf::PAGE];
        for range in self.dirty(former) {
            for at in pages(range) {
                match former.vmo.read(at, &mut page).await {
                    Ok(()) => {}
                    Err(Status::BadState) => continue, // a writeback of before has ended just now
                    Err(status) => return Err(status),
                }
                // Zeros first, which need no pager, and are not evicted.
                next.vmo.zero(ByteRange::new(at.0, PAGE_SIZE)).await?;
                // Where writes are refused, zeros are all that is ever dirty.
                if next.writes != Writes::Refuse {
                    next.vmo.write(at, &page).await?;
                }
            }
        }
        loop {
            let dirty = self.dirty(former);
            if dirty.is_empty() {
                return Ok(());
            }
            for at in dirty.into_iter().flat_map(pages) {
                let one = ByteRange::new(at.0, PAGE_SIZE);
                self.pager.writeback_begin(&former.vmo, one, Writeback::All)?;
                former.vmo.read(at, &mut page).await?;
                if next.writes != Writes::Refuse {
                    next.vmo.write(at, &page).await?;
                }
                self.pager.writeback_end(&former.vmo, one)?;
            }
        }
    }

    /// What is dirty of a VMO.
    pub(super) fn dirty(&self, served: &Served) -> Vec<ByteRange> {
        let (mut from, size) = (0, served.vmo.size());
        let mut ranges = [DirtyRange::default(); 64];
        let mut dirty = Vec::new();
        while from < size {
            let found = self.pager.query_dirty_ranges(&served.vmo, ByteRange::new(from, size - from), &mut ranges);
            let found = &ranges[..found.map_or(0, |found| found.actual)];
            let Some(last) = found.last() else { break };
            from = last.offset + last.length;
            dirty.extend(found.iter().map(DirtyRange::range));
        }
        dirty
    }
}

fn pages(range: ByteRange) -> impl Iterator<Item = ByteOffset> {
    (range.offset..range.offset + range.length).step_by(PageBuf::PAGE).map(ByteOffset)
}
