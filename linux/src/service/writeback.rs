//! Dirty pages, back to the source.
//!
//! A *round* goes through the dirty pages of a VMO once, in ascending order, in batches: BEGIN, read, and write each piece of a
//! batch, several at a time; then sync; then END those that are written. What fails is not ended, and so stays dirty. A
//! store that falls in between keeps its page dirty too.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::{Duration, Instant};

use async_io::Timer;
use futures_util::future::select;
use futures_util::stream::{self, StreamExt};
use upager::{ByteOffset, ByteRange, DirtyRange, PAGE_SIZE, PageCount, Writeback};

use super::served::Served;
use super::{Inner, SyncPolicy, Writes};
use crate::source::{ErrorKind, Operation, PageBuf, PageSource, SourceError, merge_ranges};

/// Bytes that are written between two syncs, and become clean together.
const BATCH: u64 = 64 << 20;
/// How often it is looked what is dirty.
pub(super) const TICK: Duration = Duration::from_millis(10);
/// How long a VMO whose source has failed is left alone: from the first to the longest, doubling.
const LEFT_ALONE: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(10)];

/// Who pays for a round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Round {
    /// The service, of its own accord: at its rate, with its policy of syncs.
    Background,
    /// Somebody waits for it, and wants it safe.
    Flush,
}

/// What a round came to.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) written: u64,
    pub(super) failed: Vec<(ByteRange, Arc<SourceError>)>,
}

impl Inner {
    /// Goes through the dirty pages once.
    pub(super) async fn round(&self, served: &Served, round: Round) -> Outcome {
        let mut outcome = Outcome::default();
        // Not behind a round that keeps to the rate.
        let _hurry = (round == Round::Flush).then(|| self.pace.hurry());
        let _one = served.round.lock().await;
        let size = served.vmo.size();
        let mut from = 0;
        loop {
            let (batch, next) = self.batch(served, from);
            if batch.is_empty() {
                break;
            }
            self.write(served, &batch, round, &mut outcome).await;
            from = next;
        }
        // Relaxed: written under the lock of rounds
        if round == Round::Flush && served.unsynced.load(Relaxed) && !served.broken.load(SeqCst) {
            match served.source.sync().await {
                Ok(()) => served.unsynced.store(false, Relaxed),
                Err(error) => outcome.failed.push((ByteRange::new(0, size), self.write_failed(served, error))),
            }
        }
        served.set_write_error(outcome.failed.last().map(|(_, error)| error.clone()));
        outcome
    }

    /// The next dirty ranges, up to the size of a batch, and where to go on.
    fn batch(&self, served: &Served, from: u64) -> (Vec<ByteRange>, u64) {
        let mut ranges = [DirtyRange::default(); 64];
        let rest = ByteRange::new(from, served.vmo.size() - from);
        let found = self.pager.query_dirty_ranges(&served.vmo, rest, &mut ranges);
        let (mut batch, mut left, mut next) = (Vec::new(), BATCH, from);
        for range in &ranges[..found.map_or(0, |found| found.actual)] {
            let length = range.length.min(left);
            if length > 0 {
                batch.push(ByteRange::new(range.offset, length));
                (left, next) = (left - length, range.offset + length);
            }
        }
        (batch, next)
    }

    async fn write(&self, served: &Served, batch: &[ByteRange], round: Round, outcome: &mut Outcome) {
        let pieces = merge_ranges(batch.iter().copied(), PageCount(0), served.pages_a_write());
        let writes =
            pieces.into_iter().map(|piece| async move { (piece, self.write_piece(served, piece, round).await) });
        let results: Vec<_> = stream::iter(writes).buffer_unordered(served.writes_in_flight().get()).collect().await;
        let mut written = Vec::new();
        for (piece, result) in results {
            match result {
                Ok(()) => written.push(piece),
                Err(error) => outcome.failed.push((piece, self.write_failed(served, error))),
            }
        }
        if written.is_empty() {
            return;
        }
        if round == Round::Background && self.options.writeback.sync == SyncPolicy::WhenFlushed {
            served.unsynced.store(true, Relaxed); // Relaxed: under the lock of rounds
        } else if let Err(error) = served.source.sync().await {
            let error = self.write_failed(served, error);
            outcome.failed.extend(written.into_iter().map(|piece| (piece, error.clone())));
            return;
        }
        for piece in written {
            let ended = self.pager.writeback_end(&served.vmo, piece);
            debug_assert!(ended.is_ok(), "pages of the VMO: {ended:?}");
            outcome.written += piece.length / PAGE_SIZE;
            self.figures.written.add(piece.length / PAGE_SIZE);
        }
    }

    async fn write_piece(&self, served: &Served, piece: ByteRange, round: Round) -> Result<(), SourceError> {
        let failed = |kind| SourceError::new(kind, Operation::Write, piece);
        if served.broken.load(SeqCst) {
            return Err(failed(ErrorKind::Gone).because("the source has panicked"));
        }
        if round == Round::Background {
            self.pace.take(piece.length).await;
        }
        let mut pages = PageBuf::new(PageCount(piece.length / PAGE_SIZE));
        self.pager
            .writeback_begin(&served.vmo, piece, Writeback::All)
            .map_err(|status| failed(ErrorKind::Gone).because(status))?;
        // They are dirty, and nobody else cleans them; so they are there, and nothing is waited for.
        let read = served.vmo.read(ByteOffset(piece.offset), &mut pages).await;
        read.map_err(|status| failed(ErrorKind::Gone).because(status))?;
        let _writing = served.order.begin_write(piece);
        served.source.write_pages(ByteOffset(piece.offset).page(), Arc::new(pages)).await
    }

    fn write_failed(&self, served: &Served, error: SourceError) -> Arc<SourceError> {
        self.figures.write_errors.add(1);
        served.note(error)
    }

    /// Sees to a VMO until it is over: nobody else has it, and nothing is dirty.
    pub(super) async fn tend(self: Arc<Self>, served: Arc<Served>) {
        let mut dirty_since = None;
        let mut alone = LEFT_ALONE[0];
        let mut not_before = Instant::now();
        loop {
            let kicked = served.kick.listen();
            if !served.wanted.load(Relaxed) {
                drop(select(kicked, Timer::after(TICK)).await);
            }
            // First this: if nobody has it, nobody makes it dirty any more.
            let ours_alone = Arc::strong_count(&served.vmo) == 1;
            let counts = served.vmo.counts();
            let dirty = counts.dirty.0 + counts.zero.0;
            if ours_alone && (dirty == 0 || served.writes != Writes::WriteBack) {
                return self.forget(&served);
            }
            let now = Instant::now();
            if dirty == 0 || served.writes != Writes::WriteBack || served.broken.load(SeqCst) {
                dirty_since = None;
                served.wanted.store(false, Relaxed); // Relaxed: looked at here only
                continue;
            }
            let since = *dirty_since.get_or_insert(now);
            let policy = &self.options.writeback;
            let due =
                served.wanted.load(Relaxed) || ours_alone || dirty >= policy.amount.0 || now - since >= policy.age;
            if !due {
                continue;
            }
            if now < not_before {
                Timer::at(not_before).await;
                continue;
            }
            served.wanted.store(false, Relaxed); // Relaxed: as above
            dirty_since = None;
            if self.round(&served, Round::Background).await.failed.is_empty() {
                alone = LEFT_ALONE[0];
            } else {
                not_before = Instant::now() + alone;
                alone = (alone * 2).min(LEFT_ALONE[1]);
            }
        }
    }
}
