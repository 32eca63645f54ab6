//! Reading ahead: in order, complete, and as many in flight as asked for.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use futures_lite::{Stream, StreamExt, future};
use upager::{ByteRange, PageCount, PageIndex, block_on};
use upager_linux::source::{ErrorKind, Fault, Injector, Memory, PageBuf, PageSource, ReadAhead, Rule, SourceError};

use crate::{PAGE, pattern};

fn window(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap()
}

fn all(mut pages: impl Stream<Item = Result<(PageIndex, PageBuf), SourceError>> + Unpin) -> Vec<(u64, PageBuf)> {
    let mut got = Vec::new();
    while let Some(item) = block_on(pages.next()) {
        let (first, buffer) = item.unwrap();
        got.push((first.0, buffer));
    }
    got
}

#[test]
fn all_pages_come_in_order_whatever_the_window() {
    let bytes = pattern(100 * PAGE, 1);
    // With so much jitter they finish in any order.
    let source = Injector::new(Memory::new(bytes.clone()), 1).with_latency(Duration::ZERO, Duration::from_millis(2));
    for (chunk, in_flight) in [(1, 1), (1, 64), (7, 4), (1000, 3)] {
        for (start, end) in [(0, 100), (5, 93), (50, 50), (99, 100)] {
            let range = ByteRange::new(start * PAGE as u64, (end - start) * PAGE as u64);
            let pages = ReadAhead::new(&source, range).with_window(PageCount(chunk), window(in_flight));
            let mut next = start;
            for (first, buffer) in all(pages) {
                assert_eq!(first, next);
                assert!(buffer[..] == bytes[first as usize * PAGE..][..buffer.len()]);
                assert!(buffer.pages().0 <= chunk && (first % chunk) + buffer.pages().0 <= chunk);
                next += buffer.pages().0;
            }
            assert_eq!(next, end.max(start));
        }
    }
}

#[test]
fn a_range_is_rounded_out_to_pages() {
    let source = Memory::new(vec![0; 10 * PAGE]);
    let got = all(ReadAhead::new(&source, ByteRange::new(PAGE as u64 + 1, PAGE as u64)));
    assert_eq!(got.iter().map(|(first, _)| *first).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn so_many_are_in_flight_and_no_more() {
    let source = Injector::new(Memory::new(vec![0; 100 * PAGE]), 1);
    source.add(Rule::always(Fault::Stall));
    let mut pages = ReadAhead::new(&source, ByteRange::new(0, 100 * PAGE as u64)).with_window(PageCount(1), window(9));
    assert!(block_on(future::poll_once(pages.next())).is_none());
    assert_eq!(source.calls(), 9);
    source.release();
    let (_, buffer) = block_on(pages.next()).unwrap().unwrap();
    pages.recycle(buffer);
    assert!(block_on(future::poll_once(pages.next())).is_some());
    assert!(source.calls() <= 11);
}

#[test]
fn an_error_is_an_item_in_its_place() {
    let source = Injector::new(Memory::new(vec![0; 10 * PAGE]), 1);
    let third = Some(ByteRange::new(3 * PAGE as u64, PAGE as u64));
    source.add(Rule { range: third, ..Rule::always(Fault::Error(ErrorKind::Corrupt)) });
    let mut pages = ReadAhead::new(&source, ByteRange::new(0, 10 * PAGE as u64)).with_window(PageCount(1), window(4));
    for page in 0..10 {
        let item = block_on(pages.next()).unwrap();
        match page {
            3 => assert_eq!(item.unwrap_err().range(), third),
            _ => assert_eq!(item.unwrap().0, PageIndex(page)),
        }
    }
    assert!(block_on(pages.next()).is_none());
}

#[test]
fn latency_is_hidden() {
    let source =
        Injector::new(Memory::new(vec![0; 64 * PAGE]), 1).with_latency(Duration::from_millis(10), Duration::ZERO);
    let begun = Instant::now();
    let pages = ReadAhead::new(&source, ByteRange::new(0, 64 * PAGE as u64)).with_window(PageCount(1), window(32));
    assert_eq!(all(pages).len(), 64);
    assert!(begun.elapsed() < Duration::from_millis(320), "64 reads of 10 ms, 32 at once: {:?}", begun.elapsed());
    assert_eq!(source.len(), 64 * PAGE as u64);
}
