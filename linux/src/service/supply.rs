//! READ: from the source into the VMO.

use std::sync::Arc;

use tracing::{Instrument, debug_span};
use upager::{ByteOffset, ByteRange, PAGE_SIZE, PageCount, Status};

use super::Inner;
use super::served::Served;
use crate::latency::Stage;
use crate::platform::Filled;
use crate::source::{PageSource, merge_ranges};

/// Answers a request: reads its pieces, several at a time.
pub(super) async fn supply(inner: Arc<Inner>, served: Arc<Served>, asked: ByteRange) {
    let around = inner.options.read_around.0 * PAGE_SIZE;
    let start = asked.offset - asked.offset % around;
    let end = (asked.offset + asked.length).next_multiple_of(around).min(served.vmo.size());
    let most = served.pages_a_read().min(inner.pages_at_once());
    let mut pieces = merge_ranges([ByteRange::new(start, end - start)], PageCount(0), most);
    let last = pieces.pop();
    for piece in pieces {
        let turn = served.reads.acquire_arc().await;
        let (on, of) = (inner.clone(), served.clone());
        inner.spawn(&served, async move {
            read(&on, &of, piece).await;
            drop(turn);
        });
    }
    // The last one, mostly the only one, needs no task of its own.
    if let Some(piece) = last {
        let _turn = served.reads.acquire().await;
        read(&inner, &served, piece).await;
    }
}

async fn read(inner: &Inner, served: &Served, piece: ByteRange) {
    let pages = PageCount(piece.length / PAGE_SIZE);
    let _room = inner.room_for(pages).await;
    let mut buffer = inner.buffers.take(pages);
    loop {
        let reading = match served.order.begin_read(piece) {
            Ok(reading) => reading,
            Err(write) => {
                write.await;
                continue;
            }
        };
        let begun = inner.latencies.begin();
        let span = debug_span!("read", vmo = served.vmo.key(), offset = piece.offset, length = piece.length);
        let answer = served.source.read_pages(ByteOffset(piece.offset).page(), buffer).instrument(span).await;
        inner.latencies.end(Stage::Read, begun);
        buffer = match answer {
            Ok(buffer) => buffer,
            Err(error) => {
                inner.figures.read_errors.add(1);
                let error = served.note(error);
                return inner.refuse(served, piece, error.status());
            }
        };
        // The frames first: what is done under the order's lock is only to move them in.
        let Some(Filled { frames, arrivals }) =
            inner.platform.fill(&served.vmo, ByteOffset(piece.offset).page(), &buffer)
        else {
            return inner.refuse(served, piece, Status::Io);
        };
        let supplied = reading.end(|| inner.pager.supply_frames(&served.vmo, piece, frames));
        drop(arrivals);
        match supplied {
            Some(Ok(())) => {
                inner.figures.read.add(pages.0);
                return inner.buffers.give(buffer);
            }
            // Detached meanwhile: who waited has been told.
            Some(Err(Status::BadState)) => return,
            Some(Err(_)) => return inner.refuse(served, piece, Status::Io),
            None => {} // void
        }
    }
}
