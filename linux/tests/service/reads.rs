//! READ.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::task::{Context, Waker};
use std::time::Duration;

use upager::{Access, ByteRange, Event, PAGE_SIZE, PageCount, PageIndex, Platform, Status, WatchLimits, block_on};
use upager_linux::service::{Service, Writes};
use upager_linux::source::{
    Capabilities, ErrorKind, Fault, File, Injector, PageBuf, PageSource, Rule, SourceFuture, Zero,
};

use crate::sources::{Noting, pages_of, patterns};
use crate::world::{PAGE, evict_vmo, load, mapper, pattern, until};
use crate::{map, quick, quiet, set_word, word};

#[test]
fn pages_come_from_the_source_when_they_are_touched() {
    let Some(mapper) = mapper() else { return };
    let service = quiet().start().unwrap();
    let vmo = service.open(patterns(300), Writes::WriteBack).unwrap();
    assert_eq!(vmo.size(), 300 * PAGE_SIZE);
    let mapping = map(&mapper, &vmo);
    for page in [299, 0, 7, 128, 8] {
        assert_eq!(load(&mapping, page, 0), pattern(page));
    }
    until("they are counted", || service.counts().read >= 5);
}

#[test]
fn a_file_is_served_to_its_last_byte() {
    let Some(mapper) = mapper() else { return };
    let file = tempfile::NamedTempFile::new().unwrap();
    let bytes: Vec<u8> = (0..5 * PAGE + 100).map(|n| (n / 7) as u8).collect();
    std::fs::write(file.path(), &bytes).unwrap();
    let service = Service::builder().start().unwrap();
    let vmo = service.open(File::open(file.path()).unwrap(), Writes::Keep).unwrap();
    let mapping = map(&mapper, &vmo);
    assert_eq!(mapping.len(), 6 * PAGE);
    // SAFETY: all of the mapping, which lives, and nobody writes to it.
    let touched = unsafe { std::slice::from_raw_parts(mapping.as_ptr(), mapping.len()) };
    assert_eq!(&touched[..bytes.len()], bytes);
    assert!(touched[bytes.len()..].iter().all(|byte| *byte == 0));
}

#[test]
fn several_reads_are_in_flight_and_one_source_does_not_wait_for_another() {
    let service = quiet().threads(1).start().unwrap();
    let slow = Noting::new(2048);
    let vmo = service.open(slow.clone(), Writes::WriteBack).unwrap();
    block_on(vmo.commit(ByteRange::new(0, vmo.size()))).unwrap();
    assert_eq!(vmo.counts().resident, pages_of(&*slow));
    assert!((2..=16).contains(&slow.most_reading.load(SeqCst)), "{slow:?}");

    let stalled = Arc::new(Injector::new(patterns(4), 1));
    stalled.add(Rule::always(Fault::Stall));
    let hanging = service.open(stalled.clone(), Writes::WriteBack).unwrap();
    let mut waiting = pin!(hanging.fault(PageIndex(0), Access::Read));
    assert!(waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    until("it is asked", || stalled.calls() == 1);
    let other = service.open(patterns(4), Writes::WriteBack).unwrap();
    assert_eq!(word(&other, 3), Ok(pattern(3)));
    stalled.clear();
    stalled.release();
    assert_eq!(block_on(waiting), Ok(()));
}

#[test]
fn neighbours_are_read_along_if_wanted() {
    let service = quiet().read_around(PageCount(16)).start().unwrap();
    let vmo = service.open(patterns(40), Writes::WriteBack).unwrap();
    assert_eq!(word(&vmo, 20), Ok(pattern(20)));
    assert_eq!(vmo.counts().resident, PageCount(16));
    assert_eq!(word(&vmo, 39), Ok(pattern(39)));
    assert_eq!(vmo.counts().resident, PageCount(24), "to the end");
}

#[test]
fn what_fails_and_may_pass_is_tried_again_and_what_does_not_is_an_error() {
    let service = quiet().retry(quick()).start().unwrap();
    let source = Arc::new(Injector::new(patterns(64), 1));
    source.script([Some(Fault::Error(ErrorKind::Unavailable)), Some(Fault::Half(ErrorKind::Unavailable)), None]);
    let vmo = service.open(source.clone(), Writes::WriteBack).unwrap();
    assert_eq!(word(&vmo, 0), Ok(pattern(0)));
    assert_eq!(source.calls(), 3);
    source.add(Rule { range: Some(ByteRange::new(4096, 4096)), ..Rule::always(Fault::Error(ErrorKind::Corrupt)) });
    assert_eq!(word(&vmo, 1), Err(Status::IoDataIntegrity));
    assert_eq!(service.last_error(&vmo).unwrap().kind(), ErrorKind::Corrupt);
    assert_eq!(word(&vmo, 2), Ok(pattern(2)));
    source.clear();
    assert_eq!(word(&vmo, 1), Ok(pattern(1)));
    assert_eq!(service.counts().read_errors, 1);
}

#[test]
fn a_source_that_does_not_answer_is_timed_out_by_the_watch() {
    let limits = WatchLimits { time_out: Some(Duration::from_millis(50)), ..WatchLimits::default() };
    let service = quiet().watch(limits, |_: &Event| {}).start().unwrap();
    let source = Arc::new(Injector::new(patterns(4), 1));
    source.add(Rule::always(Fault::Stall));
    let vmo = service.open(source.clone(), Writes::WriteBack).unwrap();
    assert_eq!(word(&vmo, 0), Err(Status::TimedOut));
    source.clear();
    source.release();
    until("it comes after all", || word(&vmo, 0) == Ok(pattern(0)));
}

/// A slow read that was given up, and ends after its page was read anew, written to, written back and evicted.
#[test]
fn a_late_read_does_not_bring_back_what_was_replaced() {
    let service = quiet().start().unwrap();
    // The first read has its bytes, and is slow to say so.
    let slow = SlowAnswer::new(patterns(4));
    let vmo = service.open(slow.clone(), Writes::WriteBack).unwrap();
    {
        let mut given_up = pin!(vmo.fault(PageIndex(1), Access::Read));
        assert!(given_up.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        until("it has been read", || slow.held() == 1);
    }
    set_word(&vmo, 1, 77).unwrap();
    assert!(block_on(service.flush(&vmo)).unwrap().1.is_empty());
    evict_vmo(&vmo);
    until("it is out of reach of a rescue", || {
        service.platform().pin().flush();
        service.platform().counts().frames == PageCount(0)
    });
    slow.let_go();
    until("the late read is over", || slow.held() == 0);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(word(&vmo, 1), Ok(77));
}

/// Holds back the answer of its first read until it is let go.
#[derive(Debug)]
struct SlowAnswer<S> {
    source: S,
    first: std::sync::atomic::AtomicBool,
    held: std::sync::atomic::AtomicUsize,
    go: event_listener::Event,
}

impl<S: PageSource> SlowAnswer<S> {
    fn new(source: S) -> Arc<Self> {
        let (first, held) = (true.into(), 0.into());
        Arc::new(Self { source, first, held, go: event_listener::Event::new() })
    }

    fn held(&self) -> usize {
        self.held.load(SeqCst)
    }

    fn let_go(&self) {
        self.go.notify(usize::MAX);
    }
}

impl<S: PageSource> PageSource for SlowAnswer<S> {
    fn len(&self) -> u64 {
        self.source.len()
    }

    fn capabilities(&self) -> Capabilities {
        self.source.capabilities()
    }

    fn read_pages(&self, first: PageIndex, into: PageBuf) -> SourceFuture<'_, PageBuf> {
        Box::pin(async move {
            let read = self.source.read_pages(first, into).await;
            if self.first.swap(false, SeqCst) {
                let go = self.go.listen();
                self.held.fetch_add(1, SeqCst);
                go.await;
                self.held.fetch_sub(1, SeqCst);
            }
            read
        })
    }

    fn write_pages(&self, first: PageIndex, from: Arc<PageBuf>) -> SourceFuture<'_, ()> {
        self.source.write_pages(first, from)
    }

    fn sync(&self) -> SourceFuture<'_, ()> {
        self.source.sync()
    }
}

#[test]
fn a_source_without_bytes_has_a_vmo_without_pages() {
    let service = quiet().start().unwrap();
    let vmo = service.open(Zero::new(0), Writes::Keep).unwrap();
    assert_eq!((vmo.size(), word(&vmo, 0)), (0, Err(Status::OutOfRange)));
    assert!(service.shutdown(Duration::from_secs(5)).unwritten.is_empty());
}
