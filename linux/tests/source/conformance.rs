//! The contract of the module's documentation, sentence by sentence, for every kind of source.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::thread;

use futures_lite::future;
use upager::{PageCount, PageIndex, Status, block_on};
use upager_linux::source::{ErrorKind, Operation, PageBuf, PageSource};

use crate::kinds::{KINDS, Kind, of_any_bytes};
use crate::{PAGE, buffer, contents, pattern, read, write};

/// Lengths that meet every case of the end.
const LENGTHS: [usize; 7] = [0, 1, PAGE - 1, PAGE, PAGE + 1, 5 * PAGE, 70 * PAGE + 100];

/// Runs it for a kind and says which one failed.
fn each<'a>(kinds: impl IntoIterator<Item = &'a Kind>, test: impl Fn(&Kind)) {
    for kind in kinds {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| test(kind))) {
            eprintln!("this was the source: {}", kind.name);
            resume_unwind(panic);
        }
    }
}

/// The same for those that can be written.
fn each_writable(test: impl Fn(&Kind)) {
    each(of_any_bytes().filter(|kind| (kind.make)(&[]).capabilities().writable), test);
}

#[test]
fn every_page_is_read_where_it_lies_alone_and_with_others() {
    each(of_any_bytes(), |kind| {
        for len in LENGTHS {
            let bytes = pattern(len, 1);
            let source = (kind.make)(&bytes);
            assert_eq!((source.len(), source.is_empty()), (len as u64, len == 0));
            assert!(contents(&*source) == bytes, "{len}");
            for page in 0..bytes.len().div_ceil(PAGE) {
                let stored = &bytes[page * PAGE..(page * PAGE + PAGE).min(len)];
                let got = read(&*source, page as u64, 1).unwrap();
                assert!(got[..stored.len()] == *stored, "{len} {page}");
            }
        }
    });
}

#[test]
fn past_the_end_there_are_zeros() {
    each(KINDS, |kind| {
        for len in LENGTHS {
            let source = (kind.make)(&vec![0xFF; len]);
            let pages = len.div_ceil(PAGE) as u64;
            let got = read(&*source, 0, pages + 3).unwrap();
            assert!(got[len..].iter().all(|byte| *byte == 0), "{len}");
            for far in [pages, pages + 1, 1 << 40, 1 << 52, u64::MAX / 2, u64::MAX] {
                let got = read(&*source, far, 2).unwrap();
                assert!(got.iter().all(|byte| *byte == 0), "{len} {far}");
            }
        }
    });
}

#[test]
fn the_buffer_comes_back() {
    each(KINDS, |kind| {
        let source = (kind.make)(&[0; 3 * PAGE]);
        let buffer = PageBuf::new(PageCount(3));
        let address = buffer.as_ptr();
        let buffer = block_on(source.read_pages(PageIndex(0), buffer)).unwrap();
        assert_eq!((buffer.as_ptr(), buffer.pages()), (address, PageCount(3)));
    });
}

#[test]
fn an_empty_buffer_is_read_and_written_without_looking() {
    each(KINDS, |kind| {
        let source = (kind.make)(&[0; PAGE]);
        for first in [0, 1, u64::MAX] {
            assert!(read(&*source, first, 0).unwrap().is_empty());
            if source.capabilities().writable {
                write(&*source, first, &[]).unwrap();
            }
        }
    });
}

#[test]
fn what_was_written_is_read_and_nothing_else_changes() {
    each_writable(|kind| {
        for len in LENGTHS {
            let mut bytes = pattern(len, 1);
            let source = (kind.make)(&bytes);
            let pages = len.div_ceil(PAGE);
            for (first, count) in [(0, 1), (pages.saturating_sub(1), 1), (pages / 2, pages - pages / 2), (0, pages)] {
                if first + count > pages {
                    continue;
                }
                let new = pattern(count * PAGE, (first + count) as u64);
                write(&*source, first as u64, &new).unwrap();
                let stored = new.len().min(len - first * PAGE);
                bytes[first * PAGE..][..stored].copy_from_slice(&new[..stored]);
                assert!(contents(&*source) == bytes, "{len} {first} {count}");
            }
            block_on(source.sync()).unwrap();
            assert!(contents(&*source) == bytes, "{len}");
        }
    });
}

#[test]
fn a_write_drops_what_lies_past_the_end_in_the_last_page() {
    each_writable(|kind| {
        let source = (kind.make)(&[1; PAGE + 10]);
        write(&*source, 1, &[2; PAGE]).unwrap();
        assert_eq!(source.len(), (PAGE + 10) as u64);
        let got = read(&*source, 1, 2).unwrap();
        assert!(got[..10].iter().all(|byte| *byte == 2) && got[10..].iter().all(|byte| *byte == 0));
    });
}

#[test]
fn a_write_of_a_page_past_the_end_writes_nothing() {
    each_writable(|kind| {
        let bytes = pattern(2 * PAGE + 1, 3);
        let source = (kind.make)(&bytes);
        for (first, pages) in [(3, 1), (2, 2), (0, 4), (u64::MAX, 1)] {
            let error = write(&*source, first, &vec![9; pages * PAGE]).unwrap_err();
            assert_eq!((error.kind(), error.operation()), (ErrorKind::PastEnd, Operation::Write));
            assert_eq!(error.status(), Status::NoSpace);
        }
        assert!(contents(&*source) == bytes);
    });
}

#[test]
fn a_source_that_is_not_writable_answers_read_only_always() {
    each(KINDS.iter().filter(|kind| !(kind.make)(&[]).capabilities().writable), |kind| {
        let source = (kind.make)(&[0; PAGE]);
        for first in [0, 5] {
            let error = write(&*source, first, &[1; PAGE]).unwrap_err();
            assert_eq!((error.kind(), error.is_transient()), (ErrorKind::ReadOnly, false));
        }
        block_on(source.sync()).unwrap();
        assert!(contents(&*source).iter().all(|byte| *byte == 0));
    });
}

#[test]
fn the_buffer_of_a_write_is_free_after_the_answer() {
    each_writable(|kind| {
        let source = (kind.make)(&[0; 3 * PAGE + 7]);
        for (first, pages) in [(0, 1), (3, 1), (1, 3)] {
            let from = Arc::new(PageBuf::new(PageCount(pages)));
            block_on(source.write_pages(PageIndex(first), from.clone())).unwrap();
            assert!(Arc::into_inner(from).is_some(), "{first} {pages}");
        }
    });
}

#[test]
fn capabilities_are_sane() {
    each(KINDS, |kind| {
        let capabilities = (kind.make)(&[0; 10 * PAGE]).capabilities();
        assert!(capabilities.preferred_read.0 >= 1 && capabilities.preferred_write.0 >= 1);
        assert_eq!(capabilities, (kind.make)(&[0; 10 * PAGE]).capabilities());
    });
}

#[test]
fn a_future_does_nothing_before_it_is_polled() {
    each_writable(|kind| {
        let bytes = pattern(2 * PAGE, 1);
        let source = (kind.make)(&bytes);
        drop(source.write_pages(PageIndex(0), Arc::new(PageBuf::new(PageCount(1)))));
        drop(source.read_pages(PageIndex(0), PageBuf::new(PageCount(1))));
        assert!(contents(&*source) == bytes);
    });
}

#[test]
fn a_future_may_be_dropped_at_any_time() {
    each_writable(|kind| {
        let bytes = pattern(64 * PAGE, 1);
        let source = (kind.make)(&bytes);
        for round in 0..200u64 {
            let first = PageIndex(round % 60);
            let mut reading = source.read_pages(first, PageBuf::new(PageCount(4)));
            // Writes the bytes that are there, so that it does not matter when they land.
            let there = buffer(&bytes[first.0 as usize * PAGE..][..4 * PAGE]);
            let mut writing = source.write_pages(first, Arc::new(there));
            block_on(async {
                let _ = future::poll_once(&mut reading).await;
                let _ = future::poll_once(&mut writing).await;
            });
            if round % 3 == 0 {
                thread::yield_now();
            }
        }
        assert!(contents(&*source) == bytes);
    });
}

#[test]
fn neighbours_are_read_and_written_by_many_threads_at_once() {
    each_writable(|kind| {
        const THREADS: usize = 6;
        const ROUNDS: usize = 20;
        // The last page is not whole, and nobody's.
        let source = (kind.make)(&vec![0; THREADS * 8 * PAGE + 5]);
        let mine = |thread: usize, slot: usize| (slot * THREADS + thread) as u64;
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let source = &*source;
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let slot = (round * 3) % 8;
                        let new = pattern(PAGE, (thread * ROUNDS + round) as u64);
                        write(source, mine(thread, slot), &new).unwrap();
                        assert!(read(source, mine(thread, slot), 1).unwrap()[..] == new[..]);
                        if round % 7 == 0 {
                            block_on(source.sync()).unwrap();
                        }
                    }
                });
            }
        });
        for thread in 0..THREADS {
            for round in ROUNDS - 8..ROUNDS {
                let expected = pattern(PAGE, (thread * ROUNDS + round) as u64);
                assert!(read(&*source, mine(thread, (round * 3) % 8), 1).unwrap()[..] == expected[..]);
            }
        }
    });
}

#[test]
fn many_operations_are_in_flight_on_one_thread() {
    each(of_any_bytes(), |kind| {
        let bytes = pattern(1000 * PAGE, 5);
        let source = (kind.make)(&bytes);
        let reads: Vec<_> =
            (0..1000).map(|page| source.read_pages(PageIndex(page), PageBuf::new(PageCount(1)))).collect();
        for (page, got) in block_on(futures_util::future::join_all(reads)).into_iter().enumerate() {
            assert!(got.unwrap()[..] == bytes[page * PAGE..][..PAGE], "{page}");
        }
    });
}
