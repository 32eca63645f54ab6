//! Files: how they are opened, what else may happen to them, and that nothing is left behind.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::sync::Arc;

use tempfile::{NamedTempFile, TempDir};
use upager::{Access, Status, block_on};
use upager_linux::source::{Caching, Engine, ErrorKind, File, FileOptions, Operation, PageSource};

use crate::kinds::writes;
use crate::{PAGE, contents, pattern, read, write};

fn named(bytes: &[u8]) -> NamedTempFile {
    let mut named = NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    named.write_all(bytes).unwrap();
    named
}

const ALL: [(Caching, Engine); 4] = [
    (Caching::Cached, Engine::Auto),
    (Caching::Cached, Engine::Threads),
    (Caching::Direct, Engine::Auto),
    (Caching::Direct, Engine::Threads),
];

#[test]
fn what_is_no_file_is_refused_and_named() {
    let dir = TempDir::new().unwrap();
    let pipe = dir.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
    for (path, kind) in [
        (dir.path().join("nowhere"), ErrorKind::Gone),
        (dir.path().to_owned(), ErrorKind::Unsupported),
        (pipe, ErrorKind::Unsupported),
        (Path::new("/dev/null").to_owned(), ErrorKind::Unsupported),
    ] {
        let error = File::open(&path).unwrap_err();
        assert_eq!((error.kind(), error.operation()), (kind, Operation::Open), "{path:?}");
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.starts_with(path.to_str().unwrap()), "{cause}");
    }
}

#[test]
fn a_file_system_without_o_direct_is_told_apart() {
    // No file of /proc has it.
    let options = FileOptions { caching: Caching::Direct, ..FileOptions::default() };
    let error = File::open_with("/proc/self/status", options).unwrap_err();
    assert_eq!((error.kind(), error.status()), (ErrorKind::Unsupported, Status::BadState));
}

#[test]
fn a_symbolic_link_is_followed() {
    let dir = TempDir::new().unwrap();
    let file = named(&[5; 10]);
    symlink(file.path(), dir.path().join("link")).unwrap();
    assert_eq!(contents(&File::open(dir.path().join("link")).unwrap()), [5; 10]);
}

#[test]
fn what_is_written_is_in_the_file_and_the_file_is_no_longer_than_before() {
    for (caching, engine) in ALL {
        let mut bytes = pattern(3 * PAGE + 123, 1);
        let file = named(&bytes);
        let source = File::open_with(file.path(), writes(caching, engine)).unwrap();
        let new = pattern(4 * PAGE, 2);
        write(&source, 0, &new).unwrap();
        block_on(source.sync()).unwrap();
        bytes = new[..bytes.len()].to_vec();
        assert!(fs::read(file.path()).unwrap() == bytes, "{caching:?} {engine:?}");
    }
}

#[test]
fn a_file_that_shrank_gives_an_error_and_not_zeros() {
    for (caching, engine) in ALL {
        let file = named(&pattern(4 * PAGE, 1));
        let source = File::open_with(file.path(), writes(caching, engine)).unwrap();
        for (len, whole) in [(2 * PAGE + 600, 2), (512, 0)] {
            file.as_file().set_len(len as u64).unwrap();
            assert!(whole == 0 || read(&source, 0, whole).is_ok());
            for (first, pages) in [(0, 4), (whole, 1), (3, 1)] {
                let error = read(&source, first, pages).unwrap_err();
                assert_eq!((error.kind(), error.status()), (ErrorKind::Shrank, Status::Io), "{caching:?} {engine:?}");
            }
        }
        assert_eq!(source.len(), 4 * PAGE as u64);
    }
}

#[test]
fn a_file_that_grew_is_read_to_its_old_end() {
    for (caching, engine) in ALL {
        let file = named(&[1; PAGE + 100]);
        let source = File::open_with(file.path(), writes(caching, engine)).unwrap();
        file.as_file().write_all_at(&[2; 3 * PAGE], PAGE as u64 + 50).unwrap();
        let got = read(&source, 0, 4).unwrap();
        assert!(got[PAGE..PAGE + 50].iter().all(|byte| *byte == 1));
        assert!(got[PAGE + 50..PAGE + 100].iter().all(|byte| *byte == 2));
        assert!(got[PAGE + 100..].iter().all(|byte| *byte == 0), "{caching:?} {engine:?}");
    }
}

#[test]
fn a_full_device_says_no_space() {
    // A limit on the size of files is the full device that needs no device: EFBIG is of the same kind. It holds for
    // the process, so this is in one of its own.
    const LIMITED: &str = "UPAGER_TEST_FILE";
    if let Some(path) = std::env::var_os(LIMITED) {
        let source = File::open_with(path, writes(Caching::Cached, Engine::Threads)).unwrap();
        let limit = rustix::process::Rlimit { current: Some(2 * PAGE as u64), maximum: None };
        rustix::process::setrlimit(rustix::process::Resource::Fsize, limit).unwrap();
        write(&source, 0, &[1; PAGE]).unwrap();
        let error = write(&source, 2, &[1; PAGE]).unwrap_err();
        assert_eq!((error.kind(), error.status()), (ErrorKind::NoSpace, Status::NoSpace));
        return;
    }
    let file = named(&[]);
    file.as_file().set_len(4 * PAGE as u64).unwrap();
    // SIGXFSZ would end the process before the error: the shell ignores it, and children inherit that.
    let output = std::process::Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" --exact file::a_full_device_says_no_space"])
        .arg(std::env::current_exe().unwrap())
        .env(LIMITED, file.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn the_descriptor_is_closed_when_the_last_operation_is_over() {
    let open = |name: &str| {
        fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
            .filter(|target| target.to_string_lossy().contains(name))
            .count()
    };
    for (caching, engine) in ALL {
        let file = named(&pattern(100, 1));
        let name = file.path().file_name().unwrap().to_str().unwrap().to_owned();
        let before = open(&name);
        let source = File::open_with(file.path(), writes(caching, engine)).unwrap();
        write(&source, 0, &[1; PAGE]).unwrap();
        read(&source, 0, 1).unwrap();
        drop(source);
        // The engine lets go of it just after the answer.
        let begun = std::time::Instant::now();
        while open(&name) > before {
            assert!(begun.elapsed().as_secs() < 10, "{caching:?} {engine:?}");
            std::thread::yield_now();
        }
    }
}

#[test]
fn files_share_the_ring() {
    let sources: Vec<_> = (0..50u8)
        .map(|n| {
            let file = named(&vec![n; 3 * PAGE]);
            Arc::new(
                File::open_with(file.path(), FileOptions { caching: Caching::Direct, ..Default::default() }).unwrap(),
            )
        })
        .collect();
    std::thread::scope(|scope| {
        for (n, source) in sources.iter().enumerate() {
            scope.spawn(move || {
                for round in 0..20 {
                    assert!(read(&**source, round % 3, 1).unwrap().iter().all(|byte| usize::from(*byte) == n));
                }
            });
        }
    });
}

#[test]
fn it_says_what_it_is() {
    let file = named(&[0; 5]);
    let source = File::open_with(file.path(), FileOptions { engine: Engine::Threads, ..Default::default() }).unwrap();
    assert_eq!(source.engine(), Engine::Threads);
    let text = format!("{source:?}");
    assert!(text.contains("Threads") && text.contains(file.path().to_str().unwrap()), "{text}");
    let uring = io_uring::IoUring::new(8).is_ok();
    let auto = File::open(file.path()).unwrap().engine();
    assert_eq!(auto, if uring { Engine::IoUring } else { Engine::Threads });
    let asked = File::open_with(file.path(), FileOptions { engine: Engine::IoUring, ..Default::default() });
    assert_eq!(asked.map_err(|error| error.kind()).err(), (!uring).then_some(ErrorKind::Unsupported));
    assert!(!File::open(file.path()).unwrap().capabilities().writable);
    let options = FileOptions { access: Access::Write, ..FileOptions::default() };
    assert!(File::open_with(file.path(), options).unwrap().capabilities().writable);
}
