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
