//! Page sources against what they stand on: a file against plain `pread`, a directory of objects 5 ms away.
//!
//! `cargo bench -p upager-linux --features object-store --bench source [-- GROUP]`. `UPAGER_BENCH_DIR` says where the
//! files go; the default is the build's own folder.

use std::fs;
use std::hint::black_box;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures_util::StreamExt;
use tempfile::TempDir;
use upager::{ByteRange, PageCount, PageIndex, block_on};
use upager_linux::source::{Caching, Engine, File, FileOptions, PageBuf, PageSource, ReadAhead};

const PAGE: usize = PageBuf::PAGE;
const SIZE: usize = 64 << 20;

fn folder() -> TempDir {
    let parent = std::env::var_os("UPAGER_BENCH_DIR").map_or(PathBuf::from(env!("CARGO_TARGET_TMPDIR")), Into::into);
    TempDir::new_in(parent).unwrap()
}

fn file(folder: &TempDir) -> PathBuf {
    let path = folder.path().join("file");
    let mut bytes = vec![0; SIZE];
    fastrand::Rng::with_seed(1).fill(&mut bytes);
    fs::write(&path, bytes).unwrap();
    fs::File::open(&path).unwrap().sync_all().unwrap();
    path
}

/// Reads the whole source in order.
fn sequential(source: &dyn PageSource, pages: u64, in_flight: usize) {
    let range = ByteRange::new(0, source.len());
    let mut ahead = ReadAhead::new(source, range).with_window(PageCount(pages), NonZeroUsize::new(in_flight).unwrap());
    block_on(async {
        while let Some(item) = ahead.next().await {
            let (_, buffer) = item.unwrap();
            ahead.recycle(black_box(buffer));
        }
    });
}

/// Reads single pages here and there, so many in flight.
fn random(source: &dyn PageSource, reads: usize, in_flight: usize) {
    let pages = source.len() / PAGE as u64;
    let mut random = fastrand::Rng::with_seed(7);
    let mut buffers: Vec<_> = (0..in_flight).map(|_| PageBuf::new(PageCount(1))).collect();
    block_on(async {
        for _ in 0..reads / in_flight {
            let batch = buffers.drain(..).map(|buffer| source.read_pages(PageIndex(random.u64(0..pages)), buffer));
            buffers = futures_util::future::join_all(batch).await.into_iter().map(|got| got.unwrap()).collect();
        }
    });
}

const KINDS: [(&str, Caching, Engine); 4] = [
    ("cached, auto", Caching::Cached, Engine::Auto),
    ("cached, threads", Caching::Cached, Engine::Threads),
    ("direct, auto", Caching::Direct, Engine::Auto),
    ("direct, threads", Caching::Direct, Engine::Threads),
];

fn file_sequential(c: &mut Criterion) {
    let folder = folder();
    let path = file(&folder);
    let mut group = c.benchmark_group("file, sequential");
    group.sample_size(10).throughput(Throughput::Bytes(SIZE as u64));
    for pages in [1, 32, 256] {
        group.bench_function(BenchmarkId::new("pread", pages), |b| {
            let file = fs::File::open(&path).unwrap();
            let mut buffer = PageBuf::new(PageCount(pages));
            b.iter(|| {
                for at in (0..SIZE).step_by(buffer.len()) {
                    file.read_exact_at(&mut buffer, at as u64).unwrap();
                    black_box(&buffer);
                }
            });
        });
        for (name, caching, engine) in KINDS {
            let options = FileOptions { caching, engine, ..FileOptions::default() };
            let source = File::open_with(&path, options).unwrap();
            for in_flight in [1, 8] {
                // A page at a time past the cache takes too long to be of interest.
                if pages > 1 || caching == Caching::Cached {
                    group.bench_function(BenchmarkId::new(format!("{name}, {in_flight} in flight"), pages), |b| {
                        b.iter(|| sequential(&source, pages, in_flight));
                    });
                }
            }
        }
    }
    group.finish();
}

fn file_random(c: &mut Criterion) {
    let folder = folder();
    let path = file(&folder);
    let mut group = c.benchmark_group("file, random pages");
    let reads = 4096;
    group.sample_size(10).throughput(Throughput::Elements(reads as u64));
    group.bench_function("pread", |b| {
        let file = fs::File::open(&path).unwrap();
        let mut buffer = PageBuf::new(PageCount(1));
        b.iter(|| {
            let mut random = fastrand::Rng::with_seed(7);
            for _ in 0..reads {
                file.read_exact_at(&mut buffer, (random.usize(0..SIZE / PAGE) * PAGE) as u64).unwrap();
                black_box(&buffer);
            }
        });
    });
    for (name, caching, engine) in KINDS {
        let options = FileOptions { caching, engine, ..FileOptions::default() };
        let source = File::open_with(&path, options).unwrap();
        for in_flight in [1, 32] {
            group.bench_function(format!("{name}, {in_flight} in flight"), |b| {
                b.iter(|| random(&source, reads, in_flight));
            });
        }
    }
    group.finish();
}

#[cfg(feature = "object-store")]
fn objects(c: &mut Criterion) {
    use std::sync::Arc;

    use upager_linux::source::object_store::local::LocalFileSystem;
    use upager_linux::source::object_store::path::Path;
    use upager_linux::source::{Injector, Object};

    const BYTES: u64 = 256 << 20;

    let folder = folder();
    let image = fs::File::create(folder.path().join("image")).unwrap();
    let mut bytes = vec![0; 1 << 20];
    fastrand::Rng::with_seed(1).fill(&mut bytes);
    for at in (0..BYTES).step_by(bytes.len()) {
        image.write_all_at(&bytes, at).unwrap();
    }
    image.sync_all().unwrap();
    let store = Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap());
    let object = block_on(Object::open(store, Path::from("image"))).unwrap();
    let source = Injector::new(object, 1).with_latency(Duration::from_millis(5), Duration::ZERO);
    let mut group = c.benchmark_group("objects 5 ms away, sequential");
    group.sample_size(10).measurement_time(Duration::from_secs(3)).throughput(Throughput::Bytes(BYTES));
    for (pages, windows) in [(32, &[8, 32, 64][..]), (256, &[1, 2, 3, 4, 6, 8, 16][..])] {
        for in_flight in windows {
            group.bench_function(format!("{} KiB, {in_flight} in flight", pages * 4), |b| {
                b.iter(|| sequential(&source, pages, *in_flight));
            });
        }
    }
    group.finish();
}

#[cfg(not(feature = "object-store"))]
fn objects(_: &mut Criterion) {}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = file_sequential, file_random, objects
}
criterion_main!(benches);
