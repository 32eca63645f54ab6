//! Injected faults: each does what it says, and the same seed does the same again.

use std::time::{Duration, Instant};

use futures_lite::future;
use upager::{ByteRange, PageCount, PageIndex, block_on};
use upager_linux::source::{ErrorKind, Fault, Injector, Memory, Operation, PageBuf, PageSource, Rule};

use crate::{PAGE, contents, read, write};

fn memory(pages: usize) -> Injector<Memory> {
    Injector::new(Memory::new(vec![0; pages * PAGE]), 7)
}

#[test]
fn half_of_the_pages_are_written_of_a_short_write() {
    let source = memory(5);
    source.script([Some(Fault::Half(ErrorKind::Unavailable))]);
    assert!(write(&source, 0, &[1; 5 * PAGE]).unwrap_err().is_transient());
    let bytes = contents(&source);
    assert!(bytes[..2 * PAGE].iter().all(|byte| *byte == 1) && bytes[2 * PAGE..].iter().all(|byte| *byte == 0));
}

#[test]
fn all_is_written_where_the_answer_was_lost_and_nothing_where_it_failed() {
    for (fault, written) in [(Fault::Unheard(ErrorKind::Io), 1), (Fault::Error(ErrorKind::Io), 0)] {
        let source = memory(1);
        source.script([Some(fault)]);
        assert_eq!(write(&source, 0, &[1; PAGE]).unwrap_err().kind(), ErrorKind::Io);
        assert!(contents(&source).iter().all(|byte| *byte == written));
    }
}

#[test]
fn one_bit_is_flipped() {
    let source = memory(3);
    source.script([Some(Fault::Flip)]);
    let flipped: u32 = read(&source, 0, 3).unwrap().iter().map(|byte| byte.count_ones()).sum();
    assert_eq!(flipped, 1);
    source.script([Some(Fault::Flip)]);
    assert!(read(&source, 0, 0).unwrap().is_empty());
}

#[test]
fn the_script_goes_before_the_rules_and_spares_from_them() {
    let source = memory(1);
    source.add(Rule::always(Fault::Error(ErrorKind::Io)));
    source.script([None, Some(Fault::Error(ErrorKind::Gone))]);
    assert!(read(&source, 0, 1).is_ok());
    assert_eq!(read(&source, 0, 1).unwrap_err().kind(), ErrorKind::Gone);
    assert_eq!(read(&source, 0, 1).unwrap_err().kind(), ErrorKind::Io);
    source.clear();
    assert!(read(&source, 0, 1).is_ok());
    assert_eq!((source.calls(), source.faults()), (4, 2));
}

#[test]
fn rules_hold_for_their_range_operation_and_times() {
    let source = memory(10);
    source.add(Rule {
        operation: Some(Operation::Read),
        range: Some(ByteRange::new(2 * PAGE as u64, PAGE as u64)),
        times: Some(2),
        ..Rule::always(Fault::Error(ErrorKind::Io))
    });
    assert!(read(&source, 0, 2).is_ok() && read(&source, 3, 7).is_ok() && read(&source, 2, 0).is_ok());
    assert!(write(&source, 2, &[1; PAGE]).is_ok() && block_on(source.sync()).is_ok());
    assert!(read(&source, 2, 1).is_err() && read(&source, 0, 10).is_err());
    assert!(read(&source, 2, 1).is_ok(), "twice, and no more");
}

#[test]
fn a_sync_can_fail_too() {
    let source = memory(1);
    let all = [Fault::Error(ErrorKind::Io), Fault::Half(ErrorKind::Io), Fault::Unheard(ErrorKind::Io)];
    source.script(all.map(Some));
    for _ in all {
        assert_eq!(block_on(source.sync()).unwrap_err().operation(), Operation::Sync);
    }
    block_on(source.sync()).unwrap();
}

#[test]
fn a_stalled_call_waits_for_release_and_no_other_does() {
    let source = memory(2);
    source.script([Some(Fault::Stall)]);
    let mut stalled = source.read_pages(PageIndex(0), PageBuf::new(PageCount(1)));
    assert!(block_on(future::poll_once(&mut stalled)).is_none());
    read(&source, 1, 1).unwrap();
    assert!(block_on(future::poll_once(&mut stalled)).is_none());
    source.release();
    block_on(stalled).unwrap();
}

#[test]
fn latency_is_at_least_what_was_asked_for_and_side_by_side() {
    let source = memory(64).with_latency(Duration::from_millis(20), Duration::from_millis(1));
    let begun = Instant::now();
    let reads = (0..64).map(|page| source.read_pages(PageIndex(page), PageBuf::new(PageCount(1))));
    for result in block_on(futures_util::future::join_all(reads)) {
        result.unwrap();
    }
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(20), "{took:?}");
    assert!(took < Duration::from_millis(640), "they waited for each other: {took:?}");
    source.script([Some(Fault::Delay(Duration::from_millis(60)))]);
    let begun = Instant::now();
    read(&source, 0, 1).unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(80));
}

#[test]
fn the_same_seed_does_the_same() {
    let fates = |seed| {
        let source = Injector::new(Memory::new(vec![0; PAGE]), seed);
        source.add(Rule { probability: 0.5, ..Rule::always(Fault::Error(ErrorKind::Io)) });
        (0..100).map(|_| read(&source, 0, 1).is_ok()).collect::<Vec<_>>()
    };
    assert_eq!(fates(1), fates(1));
    assert_ne!(fates(1), fates(2));
    let failed = fates(3).iter().filter(|ok| !**ok).count();
    assert!((25..75).contains(&failed), "{failed}");
}
