//! What may go wrong at the border besides a death.

use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use upager::{ByteOffset, ByteRange, PAGE_SIZE, PageCount, PageIndex, Status, block_on};
use upager_linux::remote::{Listener, Remote, Traffic};
use upager_linux::service::Writes;
use upager_linux::source::{ErrorKind, Fault, Injector, Memory, Operation, PageBuf, PageSource};
use upager_linux::{Error, Protection};

use crate::eager;
use crate::process::{PagerProcess, connect};
use crate::world::{come_home, mapper, store, try_load, try_store, until};

/// A pager that is a thread.
fn serve(source: impl PageSource + 'static) -> (tempfile::TempDir, Remote, Arc<Traffic>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pager");
    let listener = Listener::bind(&path).unwrap();
    let traffic = Arc::new(Traffic::default());
    let counts = traffic.clone();
    std::thread::spawn(move || listener.accept().unwrap().serve(&source, &counts));
    let remote = Remote::connect(path).unwrap();
    (folder, remote, traffic)
}

#[test]
fn errors_cross_with_their_kind_and_reason() {
    let source = Injector::new(Memory::new(vec![1; 8192]), 1);
    source.script([Some(Fault::Error(ErrorKind::Corrupt)), Some(Fault::Error(ErrorKind::NoSpace))]);
    let (_folder, remote, traffic) = serve(source);
    let error = block_on(remote.read_pages(PageIndex(1), PageBuf::new(PageCount(1)))).unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Corrupt, Operation::Read));
    assert_eq!(error.range(), Some(ByteRange::new(4096, 4096)));
    let reason = std::error::Error::source(&error).unwrap().to_string();
    assert!(reason.contains("injected"), "{reason}");
    let error = block_on(remote.write_pages(PageIndex(0), Arc::new(PageBuf::new(PageCount(1))))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace);
    block_on(remote.sync()).unwrap();
    let counts = traffic.counts();
    assert_eq!((counts.read, counts.written, counts.syncs, counts.errors), (0, 0, 1, 2));
}

#[test]
fn more_calls_than_slots_and_calls_that_are_given_up() {
    let source = Injector::new(Memory::new(vec![5; 4096]), 1).with_latency(Duration::from_millis(1), Duration::ZERO);
    let (_folder, remote, _) = serve(source);
    block_on(async {
        for _ in 0..3 {
            let calls = (0..100).map(|_| remote.read_pages(PageIndex(0), PageBuf::new(PageCount(1))));
            let mut calls: Vec<_> = calls.collect();
            // Half of them are begun, and dropped.
            for call in calls.drain(..50) {
                drop(futures_lite::future::poll_once(call).await); // mostly not answered yet
            }
            for call in calls {
                assert!(call.await.unwrap().iter().all(|byte| *byte == 5));
            }
        }
    });
}

#[test]
fn a_pager_that_does_not_answer_can_be_given_up() {
    let Some(mapper) = mapper() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (socket, file) = (folder.path().join("pager"), folder.path().join("file"));
    std::fs::write(&file, vec![3; 64 << 12]).unwrap();
    let mut pager = PagerProcess::start(&socket, &file);
    let service = eager().start().unwrap();
    let remote = Arc::new(connect(&socket));
    let vmo = service.open(remote.clone(), Writes::WriteBack).unwrap();
    let mapping = Arc::new(mapper.map(&vmo, ByteRange::new(0, vmo.size()), Protection::ReadWrite).unwrap());
    assert_eq!(try_load(&mapping, 0, 0), Some(u64::from_ne_bytes([3; 8])));
    pager.signal(Signal::STOP);
    store(&mapping, 0, 0, 7);
    let waiters: Vec<_> = (1..40)
        .map(|page| {
            let mapping = mapping.clone();
            std::thread::spawn(move || try_load(&mapping, page, 0))
        })
        .collect();
    until("they wait", || vmo.counts().in_flight > 0);
    assert_eq!(remote.gone(), None);
    remote.hang_up();
    assert!(come_home(waiters).iter().all(Option::is_none));
    until("it is known", || remote.gone().is_some());
    assert_eq!(try_load(&mapping, 0, 0), Some(7), "what is dirty is there still");
    // The next one.
    pager.kill();
    let mut pager = PagerProcess::start(&socket, &file);
    let next = service.reopen(&vmo, connect(&socket)).unwrap();
    assert!(!try_store(&mapping, 0, 0, 8), "it has moved");
    let mut word = [0; 8];
    block_on(next.read(ByteOffset(0), &mut word)).unwrap();
    assert_eq!(u64::from_ne_bytes(word), 7);
    block_on(next.read(ByteOffset(5 * PAGE_SIZE), &mut word)).unwrap();
    assert_eq!(word, [3; 8]);
    let (_, unwritten) = block_on(service.flush(&next)).unwrap();
    assert!(unwritten.is_empty());
    assert_eq!(std::fs::read(&file).unwrap()[..9], [7, 0, 0, 0, 0, 0, 0, 0, 3]);
    pager.kill();
}

#[test]
fn what_is_kept_moves_too_and_a_source_of_another_length_is_refused() {
    let service = eager().start().unwrap();
    let (_folder, remote, _) = serve(Memory::new(vec![1; 3 * 4096]));
    let vmo = service.open(remote, Writes::Keep).unwrap();
    block_on(vmo.write(ByteOffset(4096), b"mine")).unwrap();
    block_on(vmo.zero(ByteRange::new(8192, 4096))).unwrap();
    let short = Arc::new(Memory::new(vec![2; 4096]));
    assert!(matches!(service.reopen(&vmo, short), Err(Error::Pager(Status::InvalidArgs))));
    let mut bytes = vec![0; 3 * 4096];
    block_on(vmo.read(ByteOffset(0), &mut bytes)).unwrap();
    let other = Arc::new(Memory::new(vec![2; 3 * 4096]));
    let next = service.reopen(&vmo, other.clone()).unwrap();
    block_on(next.read(ByteOffset(0), &mut bytes)).unwrap();
    assert!(bytes[..4096].iter().all(|byte| *byte == 2));
    assert_eq!((&bytes[4096..4100], bytes[4100]), (&b"mine"[..], 1));
    assert!(bytes[8192..].iter().all(|byte| *byte == 0));
    assert!(other.to_vec().iter().all(|byte| *byte == 2), "kept, and not written");
    assert_eq!(block_on(vmo.read(ByteOffset(0), &mut [0])), Err(Status::BadState));
}

#[test]
fn who_is_no_pager_is_refused_and_what_a_dead_one_left_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pager");
    assert_eq!(Remote::connect(&path).unwrap_err().raw_os_error(), Some(libc::ENOENT));
    let stream = UnixListener::bind(&path).unwrap();
    assert_eq!(Remote::connect(&path).unwrap_err().raw_os_error(), Some(libc::EPROTOTYPE));
    let taken = Listener::bind(&path).unwrap_err();
    assert_eq!(taken.raw_os_error(), Some(libc::EADDRINUSE), "somebody listens there");
    drop(stream);
    std::fs::remove_file(&path).unwrap();

    let file = folder.path().join("file");
    std::fs::write(&file, [1; 4096]).unwrap();
    let mut pager = PagerProcess::start(&path, &file);
    connect(&path);
    let taken = Listener::bind(&path).unwrap_err();
    assert_eq!(taken.raw_os_error(), Some(libc::EADDRINUSE), "a pager listens there");
    pager.kill();
    assert!(path.exists());
    Listener::bind(&path).unwrap();
    assert!(!path.exists(), "it goes with the listener");
}
