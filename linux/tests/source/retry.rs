//! Retries: only what may pass by itself, and not for ever.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use upager::block_on;
use upager_linux::source::{ErrorKind, Fault, Injector, Memory, PageSource, Retry, RetryPolicy, Rule};

use crate::{PAGE, contents, read, write};

const QUICK: RetryPolicy = RetryPolicy {
    attempts: NonZeroU32::new(4).unwrap(),
    first_wait: Duration::from_micros(100),
    longest_wait: Duration::from_millis(1),
};

fn over(policy: RetryPolicy, faults: impl IntoIterator<Item = Option<Fault>>) -> Retry<Injector<Memory>> {
    let source = Injector::new(Memory::new(vec![0; 4 * PAGE]), 1);
    source.script(faults);
    Retry::new(source, policy)
}

const BUSY: Option<Fault> = Some(Fault::Error(ErrorKind::Unavailable));

#[test]
fn a_call_is_made_until_it_succeeds() {
    let source = over(QUICK, [BUSY, BUSY, BUSY, None, Some(Fault::Half(ErrorKind::Unavailable))]);
    let buffer = read(&source, 1, 3).unwrap();
    assert!(buffer.len() == 3 * PAGE && buffer.iter().all(|byte| *byte == 0));
    assert_eq!((source.retries(), source.get_ref().calls()), (3, 4));
    write(&source, 0, &[1; 4 * PAGE]).unwrap();
    assert!(contents(&source).iter().all(|byte| *byte == 1));
}

#[test]
fn after_the_last_attempt_the_last_error_is_returned() {
    let source = over(QUICK, [BUSY; 5]);
    assert_eq!(read(&source, 0, 1).unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!((source.retries(), source.get_ref().calls()), (3, 4));
}

#[test]
fn what_will_not_pass_is_not_tried_again() {
    for kind in [ErrorKind::Io, ErrorKind::Corrupt, ErrorKind::NoSpace, ErrorKind::Gone, ErrorKind::Shrank] {
        let source = over(QUICK, [Some(Fault::Error(kind))]);
        assert_eq!(write(&source, 0, &[1; PAGE]).unwrap_err().kind(), kind);
        assert_eq!((source.retries(), source.get_ref().calls()), (0, 1));
    }
    let source = over(QUICK, []);
    assert_eq!(write(&source, 4, &[1; PAGE]).unwrap_err().kind(), ErrorKind::PastEnd);
    assert_eq!(source.get_ref().calls(), 1);
}

#[test]
fn a_failed_sync_is_not_made_good_by_a_second_one() {
    let source = over(QUICK, [BUSY, None]);
    assert!(block_on(source.sync()).unwrap_err().is_transient());
    assert_eq!(source.get_ref().calls(), 1);
}

#[test]
fn it_waits_longer_each_time() {
    let policy =
        RetryPolicy { first_wait: Duration::from_millis(20), longest_wait: Duration::from_millis(40), ..QUICK };
    let source = over(policy, []);
    source.get_ref().add(Rule::always(Fault::Error(ErrorKind::Unavailable)));
    let begun = Instant::now();
    read(&source, 0, 1).unwrap_err();
    assert!(begun.elapsed() >= Duration::from_millis(10 + 20 + 20), "{:?}", begun.elapsed());
}
