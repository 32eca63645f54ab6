//! The service: pages from sources, dirty pages back to them, under a limit; and that nobody hangs, whatever becomes of the
//! source, the threads or the service.

#![cfg(target_arch = "x86_64")] // where there are guards
#![allow(clippy::cast_possible_truncation)] // 64 bits

#[path = "../world/mod.rs"]
mod world;

mod end;
mod limit;
mod reads;
mod sources;
mod writes;

use std::sync::Arc;
use std::time::Duration;

use upager::{ByteOffset, ByteRange, PAGE_SIZE, Vmo, block_on};
use upager_linux::service::{Builder, Service, SyncPolicy, WritebackPolicy};
use upager_linux::source::RetryPolicy;
use upager_linux::{LinuxPlatform, Mapper, Mapping, Protection};

/// One that does nothing by itself for a long time.
fn quiet() -> Builder {
    let writeback = WritebackPolicy { age: Duration::from_secs(3600), ..WritebackPolicy::default() };
    Service::builder().writeback(writeback).retry(quick())
}

/// One that writes back soon.
fn eager() -> Builder {
    let writeback = WritebackPolicy { age: Duration::from_millis(20), ..WritebackPolicy::default() };
    Service::builder().writeback(writeback).retry(quick())
}

fn quick() -> RetryPolicy {
    RetryPolicy { first_wait: Duration::from_micros(200), ..RetryPolicy::default() }
}

const fn when_flushed(age: Duration) -> WritebackPolicy {
    WritebackPolicy { age, amount: upager::PageCount(u64::MAX), rate: None, sync: SyncPolicy::WhenFlushed }
}

fn map(mapper: &Mapper, vmo: &Arc<Vmo<LinuxPlatform>>) -> Mapping {
    mapper.map(vmo, ByteRange::new(0, vmo.size()), Protection::ReadWrite).unwrap()
}

fn word(vmo: &Vmo<LinuxPlatform>, page: u64) -> upager::Result<u64> {
    let mut bytes = [0; 8];
    block_on(vmo.read(ByteOffset(page * PAGE_SIZE), &mut bytes)).map(|()| u64::from_ne_bytes(bytes))
}

fn set_word(vmo: &Vmo<LinuxPlatform>, page: u64, value: u64) -> upager::Result<()> {
    block_on(vmo.write(ByteOffset(page * PAGE_SIZE), &value.to_ne_bytes()))
}
