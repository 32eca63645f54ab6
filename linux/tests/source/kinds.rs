//! All kinds of source that there are, each made with given bytes.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use upager::{Access, PageCount, block_on};
use upager_linux::source::{
    Caching, Engine, File, FileOptions, Injector, Memory, PackOptions, PageSource, Retry, RetryPolicy, SeekableZstd,
    Zero, pack,
};

/// A kind: its name, and how to make one. Zeros are for all of them; other bytes not for all.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) make: fn(&[u8]) -> Arc<dyn PageSource>,
    /// Whether it can have any bytes.
    pub(crate) any_bytes: bool,
}

pub(crate) const KINDS: &[Kind] = &[
    Kind { name: "zero", make: |bytes| Arc::new(Zero::new(bytes.len() as u64)), any_bytes: false },
    Kind { name: "memory", make: |bytes| Arc::new(Memory::new(bytes.to_vec())), any_bytes: true },
    Kind { name: "file, read-only", make: |bytes| file(bytes, FileOptions::default()), any_bytes: true },
    Kind {
        name: "file, cached, auto",
        make: |bytes| file(bytes, writes(Caching::Cached, Engine::Auto)),
        any_bytes: true,
    },
    Kind {
        name: "file, cached, threads",
        make: |bytes| file(bytes, writes(Caching::Cached, Engine::Threads)),
        any_bytes: true,
    },
    Kind {
        name: "file, direct, auto",
        make: |bytes| file(bytes, writes(Caching::Direct, Engine::Auto)),
        any_bytes: true,
    },
    Kind {
        name: "file, direct, threads",
        make: |bytes| file(bytes, writes(Caching::Direct, Engine::Threads)),
        any_bytes: true,
    },
    Kind { name: "seekable zstd, small frames", make: |bytes| seekable(bytes, PageCount(1)), any_bytes: true },
    Kind { name: "seekable zstd, large frames", make: |bytes| seekable(bytes, PageCount(5)), any_bytes: true },
    #[cfg(feature = "object-store")]
    Kind { name: "object", make: objects::object, any_bytes: true },
    #[cfg(feature = "object-store")]
    Kind { name: "object, in a directory", make: objects::object_in_directory, any_bytes: true },
    #[cfg(feature = "object-store")]
    Kind { name: "parts of one page", make: |bytes| objects::parts(bytes, PageCount(1)), any_bytes: true },
    #[cfg(feature = "object-store")]
    Kind { name: "parts of five pages", make: |bytes| objects::parts(bytes, PageCount(5)), any_bytes: true },
    Kind {
        name: "retry over injector over memory",
        make: |bytes| {
            let slow = Injector::new(Memory::new(bytes.to_vec()), 1)
                .with_latency(Duration::from_micros(20), Duration::from_micros(200));
            Arc::new(Retry::new(slow, RetryPolicy::default()))
        },
        any_bytes: true,
    },
];

/// Those that can have any bytes.
pub(crate) fn of_any_bytes() -> impl Iterator<Item = &'static Kind> {
    KINDS.iter().filter(|kind| kind.any_bytes)
}

pub(crate) fn writes(caching: Caching, engine: Engine) -> FileOptions {
    FileOptions { access: Access::Write, caching, engine }
}

/// A temporary file with these bytes. The source keeps it open; its name goes.
pub(crate) fn file(bytes: &[u8], options: FileOptions) -> Arc<dyn PageSource> {
    // In the build's folder and not in /tmp, which may be without O_DIRECT.
    let mut named = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    named.write_all(bytes).unwrap();
    Arc::new(File::open_with(named.path(), options).unwrap())
}

fn seekable(bytes: &[u8], frame: PageCount) -> Arc<dyn PageSource> {
    let mut image = Vec::new();
    pack(bytes, &mut image, PackOptions { level: 1, frame }).unwrap();
    Arc::new(block_on(SeekableZstd::open(Memory::new(image))).unwrap())
}

#[cfg(feature = "object-store")]
mod objects {
    use std::sync::Arc;

    use upager::{PageCount, PageIndex, block_on};
    use upager_linux::source::object_store::local::LocalFileSystem;
    use upager_linux::source::object_store::memory::InMemory;
    use upager_linux::source::object_store::path::Path;
    use upager_linux::source::object_store::{ObjectStore, ObjectStoreExt};
    use upager_linux::source::{Capabilities, Object, PageBuf, PageSource, Parts, SourceFuture};

    pub(super) fn object(bytes: &[u8]) -> Arc<dyn PageSource> {
        Arc::new(in_store(Arc::new(InMemory::new()), bytes))
    }

    pub(super) fn object_in_directory(bytes: &[u8]) -> Arc<dyn PageSource> {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(LocalFileSystem::new_with_prefix(dir.path()).unwrap());
        Arc::new(Kept { source: in_store(store, bytes), _dir: dir })
    }

    fn in_store(store: Arc<dyn ObjectStore>, bytes: &[u8]) -> Object {
        block_on(store.put(&Path::from("image"), bytes.to_vec().into())).unwrap();
        block_on(Object::open(store, Path::from("image"))).unwrap()
    }

    pub(super) fn parts(bytes: &[u8], part: PageCount) -> Arc<dyn PageSource> {
        let store = Arc::new(InMemory::new());
        let source = block_on(Parts::create(store, Path::from("a/b"), bytes.len() as u64, part)).unwrap();
        block_on(source.write_pages(PageIndex(0), Arc::new(crate::buffer(bytes)))).unwrap();
        Arc::new(source)
    }

    /// A source, and the folder that it is in.
    #[derive(Debug)]
    struct Kept<S> {
        source: S,
        _dir: tempfile::TempDir,
    }

    impl<S: PageSource> PageSource for Kept<S> {
        fn len(&self) -> u64 {
            self.source.len()
        }

        fn capabilities(&self) -> Capabilities {
            self.source.capabilities()
        }

        fn read_pages(&self, first: PageIndex, into: PageBuf) -> SourceFuture<'_, PageBuf> {
            self.source.read_pages(first, into)
        }

        fn write_pages(&self, first: PageIndex, from: Arc<PageBuf>) -> SourceFuture<'_, ()> {
            self.source.write_pages(first, from)
        }

        fn sync(&self) -> SourceFuture<'_, ()> {
            self.source.sync()
        }
    }
}
