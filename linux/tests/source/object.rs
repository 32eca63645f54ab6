//! Object stores: what lies in them, who may change it, and what happens when somebody does.

use std::sync::Arc;

use tempfile::TempDir;
use upager::{PageCount, block_on};
use upager_linux::source::object_store::local::LocalFileSystem;
use upager_linux::source::object_store::memory::InMemory;
use upager_linux::source::object_store::path::Path;
use upager_linux::source::object_store::{ObjectStore, ObjectStoreExt};
use upager_linux::source::{
    ErrorKind, Object, Operation, PackOptions, PageSource, Parts, SeekableZstd, SourceError, pack,
};

use crate::{PAGE, contents, pattern, read, write};

fn at(path: &str) -> Path {
    Path::from(path)
}

fn put(store: &Arc<dyn ObjectStore>, path: &str, bytes: &[u8]) {
    block_on(store.put(&at(path), bytes.to_vec().into())).unwrap();
}

/// Each store, and the folder of it that must outlive it.
fn stores() -> [(Arc<dyn ObjectStore>, Option<TempDir>); 2] {
    let dir = TempDir::new().unwrap();
    let local = LocalFileSystem::new_with_prefix(dir.path()).unwrap().with_fsync(true);
    [(Arc::new(InMemory::new()), None), (Arc::new(local), Some(dir))]
}

fn open_object(store: &Arc<dyn ObjectStore>, path: &str) -> Result<Object, SourceError> {
    block_on(Object::open(store.clone(), at(path)))
}

fn create(store: &Arc<dyn ObjectStore>, len: usize, part: u64) -> Result<Parts, SourceError> {
    block_on(Parts::create(store.clone(), at("vmo"), len as u64, PageCount(part)))
}

fn open_parts(store: &Arc<dyn ObjectStore>) -> Result<Parts, SourceError> {
    block_on(Parts::open(store.clone(), at("vmo")))
}

fn names(store: &Arc<dyn ObjectStore>) -> Vec<String> {
    use futures_lite::StreamExt;
    let mut names: Vec<_> = block_on(store.list(None).map(|meta| meta.unwrap().location.to_string()).collect());
    names.sort();
    names
}

#[test]
fn a_long_read_is_many_gets_and_one_answer() {
    for (store, _dir) in stores() {
        let bytes = pattern(5 << 20, 1);
        put(&store, "image", &bytes);
        let source = open_object(&store, "image").unwrap();
        assert!(contents(&source) == bytes);
        let got = read(&source, 250, 600).unwrap();
        assert!(got[..] == bytes[250 * PAGE..850 * PAGE]);
    }
}

#[test]
fn what_is_not_there_is_gone() {
    for (store, _dir) in stores() {
        for error in [open_object(&store, "image").unwrap_err(), open_parts(&store).unwrap_err()] {
            assert_eq!((error.kind(), error.operation()), (ErrorKind::Gone, Operation::Open));
        }
    }
}

#[test]
fn an_object_that_is_replaced_or_deleted_is_gone() {
    for (store, _dir) in stores() {
        put(&store, "image", &[1; 3 * PAGE]);
        let source = open_object(&store, "image").unwrap();
        read(&source, 0, 3).unwrap();
        put(&store, "image", &[2; 3 * PAGE + 1]);
        assert_eq!(read(&source, 0, 1).unwrap_err().kind(), ErrorKind::Gone);
        block_on(store.delete(&at("image"))).unwrap();
        assert_eq!(read(&source, 0, 1).unwrap_err().kind(), ErrorKind::Gone);
    }
}

#[test]
fn parts_that_were_never_written_are_zeros_and_not_there() {
    for (store, _dir) in stores() {
        let source = create(&store, 1 << 40, 1024).unwrap();
        assert!(read(&source, 1 << 27, 2000).unwrap().iter().all(|byte| *byte == 0));
        assert_eq!(names(&store), ["vmo/parts"]);
        write(&source, 1 << 27, &[7; PAGE]).unwrap();
        assert_eq!(names(&store), ["vmo/131072", "vmo/parts"]);
        assert_eq!(block_on(store.head(&at("vmo/131072"))).unwrap().size, 1024 * PAGE as u64);
        let got = read(&open_parts(&store).unwrap(), (1 << 27) - 1, 3).unwrap();
        assert!(got.iter().enumerate().all(|(at, byte)| *byte == if at / PAGE == 1 { 7 } else { 0 }));
    }
}

#[test]
fn a_write_over_parts_changes_no_byte_beside_it() {
    for (store, _dir) in stores() {
        let source = create(&store, 10 * PAGE + 50, 3).unwrap();
        let mut bytes = pattern(11 * PAGE, 1);
        write(&source, 0, &bytes).unwrap();
        let new = pattern(6 * PAGE, 2);
        write(&source, 2, &new).unwrap();
        bytes[2 * PAGE..8 * PAGE].copy_from_slice(&new);
        bytes.truncate(10 * PAGE + 50);
        drop(source);
        assert!(contents(&open_parts(&store).unwrap()) == bytes);
        let last = block_on(store.head(&at("vmo/3"))).unwrap();
        assert_eq!(last.size, PAGE as u64 + 50, "the last part has what is left");
    }
}

#[test]
fn writers_of_one_part_lose_nothing_of_each_other() {
    for (store, _dir) in stores() {
        let source = create(&store, 64 * PAGE, 64).unwrap();
        std::thread::scope(|scope| {
            for page in 0..64u8 {
                let source = &source;
                scope.spawn(move || write(source, u64::from(page), &[page + 1; PAGE]).unwrap());
            }
        });
        let got = contents(&source);
        assert!(got.iter().enumerate().all(|(at, byte)| usize::from(*byte) == at / PAGE + 1));
    }
}

#[test]
fn one_is_not_made_over_another() {
    for (store, _dir) in stores() {
        write(&create(&store, 2 * PAGE, 1).unwrap(), 0, &[1; PAGE]).unwrap();
        assert_eq!(create(&store, 5 * PAGE, 1).unwrap_err().kind(), ErrorKind::Io);
        assert_eq!(open_parts(&store).unwrap().len(), 2 * PAGE as u64);
        for part in [0, 1 << 20] {
            assert_eq!(create(&store, PAGE, part).unwrap_err().kind(), ErrorKind::Unsupported);
        }
    }
}

#[test]
fn a_foreign_description_is_refused_and_a_part_of_another_size_is_not_believed() {
    for (store, _dir) in stores() {
        let source = create(&store, 8 * PAGE, 2).unwrap();
        put(&store, "vmo/1", &[1; PAGE]);
        assert_eq!(read(&source, 2, 2).unwrap_err().kind(), ErrorKind::Shrank);
        assert_eq!(write(&source, 2, &[1; PAGE]).unwrap_err().kind(), ErrorKind::Corrupt);
        write(&source, 2, &[1; 2 * PAGE]).unwrap();
        assert!(read(&source, 2, 2).is_ok(), "a whole part mends it");
        put(&store, "vmo/parts", b"something else");
        assert_eq!(open_parts(&store).unwrap_err().kind(), ErrorKind::Unsupported);
    }
}

#[test]
fn a_compressed_image_may_lie_in_an_object() {
    for (store, _dir) in stores() {
        let bytes = pattern(1 << 20, 4);
        let mut image = Vec::new();
        pack(&bytes[..], &mut image, PackOptions::default()).unwrap();
        put(&store, "image.zst", &image);
        let source = block_on(SeekableZstd::open(open_object(&store, "image.zst").unwrap())).unwrap();
        assert!(contents(&source) == bytes);
    }
}

#[test]
fn a_source_works_inside_a_runtime_and_outlives_none() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    put(&store, "image", &[1; PAGE]);
    let source = runtime.block_on(Object::open(store.clone(), at("image"))).unwrap();
    assert!(read(&source, 0, 1).is_ok());
    drop(runtime);
    assert_eq!(read(&source, 0, 1).unwrap_err().kind(), ErrorKind::Gone);
    assert!(read(&open_object(&store, "image").unwrap(), 0, 1).is_ok(), "a new one is on the shared runtime");
}
