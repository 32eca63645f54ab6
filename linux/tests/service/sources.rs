//! Sources for these tests.
#![allow(unreachable_pub)] // each test uses its part

use std::num::NonZeroUsize;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use upager::{PAGE_SIZE, PageCount, PageIndex};
use upager_linux::source::{Capabilities, Memory, PageBuf, PageSource, SourceFuture};

use crate::world::{PAGE, pattern};

/// Pages, each with its pattern in the first word.
pub fn patterns(pages: u64) -> Memory {
    let mut bytes = vec![0; pages as usize * PAGE];
    for page in 0..pages {
        bytes[page as usize * PAGE..][..8].copy_from_slice(&pattern(page).to_ne_bytes());
    }
    Memory::new(bytes)
}

pub fn word_of(memory: &Memory, page: u64) -> u64 {
    u64::from_ne_bytes(memory.to_vec()[page as usize * PAGE..][..8].try_into().unwrap())
}

/// A source of patterns that notes what is done to it.
#[derive(Debug)]
pub struct Noting {
    pub memory: Memory,
    /// Writes (the first page) and syncs (`None`) that were answered, in order.
    pub done: Mutex<Vec<Option<u64>>>,
    reading: AtomicUsize,
    pub most_reading: AtomicUsize,
}

impl Noting {
    pub fn new(pages: u64) -> Arc<Self> {
        let (done, reading, most_reading) = (Mutex::default(), AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { memory: patterns(pages), done, reading, most_reading })
    }

    pub fn syncs(&self) -> usize {
        self.done.lock().unwrap().iter().filter(|done| done.is_none()).count()
    }

    pub fn writes(&self) -> usize {
        self.done.lock().unwrap().iter().filter(|done| done.is_some()).count()
    }
}

impl PageSource for Noting {
    fn len(&self) -> u64 {
        self.memory.len()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { concurrency: const { NonZeroUsize::new(8).unwrap() }, ..self.memory.capabilities() }
    }

    fn read_pages(&self, first: PageIndex, into: PageBuf) -> SourceFuture<'_, PageBuf> {
        Box::pin(async move {
            self.most_reading.fetch_max(self.reading.fetch_add(1, SeqCst) + 1, SeqCst);
            async_io::Timer::after(Duration::from_millis(5)).await;
            let read = self.memory.read_pages(first, into).await;
            self.reading.fetch_sub(1, SeqCst);
            read
        })
    }

    fn write_pages(&self, first: PageIndex, from: Arc<PageBuf>) -> SourceFuture<'_, ()> {
        Box::pin(async move {
            self.memory.write_pages(first, from).await?;
            self.done.lock().unwrap().push(Some(first.0));
            Ok(())
        })
    }

    fn sync(&self) -> SourceFuture<'_, ()> {
        Box::pin(async move {
            self.done.lock().unwrap().push(None);
            Ok(())
        })
    }
}

/// What a [`Bad`] source does in its reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Badness {
    Panic,
    /// Blocks the thread that polls it, against all rules.
    Block,
}

/// A source that misbehaves from page 8 on.
#[derive(Debug)]
pub struct Bad {
    memory: Memory,
    how: Badness,
    released: Mutex<bool>,
    release: Condvar,
    pub blocked: AtomicUsize,
}

impl Bad {
    pub fn new(how: Badness) -> Arc<Self> {
        let memory = patterns(1024);
        let (released, release) = (Mutex::new(false), Condvar::new());
        Arc::new(Self { memory, how, released, release, blocked: AtomicUsize::new(0) })
    }

    pub fn release(&self) {
        *self.released.lock().unwrap() = true;
        self.release.notify_all();
    }

    fn misbehave(&self) {
        assert_ne!(self.how, Badness::Panic, "on purpose");
        self.blocked.fetch_add(1, SeqCst);
        drop(self.release.wait_while(self.released.lock().unwrap(), |released| !*released).unwrap());
    }
}

impl PageSource for Bad {
    fn len(&self) -> u64 {
        self.memory.len()
    }

    fn capabilities(&self) -> Capabilities {
        self.memory.capabilities()
    }

    fn read_pages(&self, first: PageIndex, into: PageBuf) -> SourceFuture<'_, PageBuf> {
        Box::pin(async move {
            if first.offset().0 + into.len() as u64 > 8 * PAGE_SIZE {
                self.misbehave();
            }
            self.memory.read_pages(first, into).await
        })
    }

    fn write_pages(&self, first: PageIndex, from: Arc<PageBuf>) -> SourceFuture<'_, ()> {
        self.memory.write_pages(first, from)
    }

    fn sync(&self) -> SourceFuture<'_, ()> {
        self.memory.sync()
    }
}

/// All pages of a VMO.
pub fn pages_of(source: &impl PageSource) -> PageCount {
    PageCount(source.len() / PAGE_SIZE)
}
