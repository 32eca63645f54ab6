//! A pager in another process: it is killed, stopped and given up, and nobody hangs, and nothing is lost.

#![cfg(target_arch = "x86_64")] // where there are guards
#![allow(clippy::cast_possible_truncation)] // 64 bits

#[path = "../world/mod.rs"]
mod world;

mod border;
mod killed;
mod process;

use std::time::Duration;

use upager_linux::service::{Builder, Service, WritebackPolicy};
use upager_linux::source::RetryPolicy;

/// A service that writes back soon.
fn eager() -> Builder {
    let writeback = WritebackPolicy { age: Duration::from_millis(10), ..WritebackPolicy::default() };
    let retry = RetryPolicy { first_wait: Duration::from_micros(200), ..RetryPolicy::default() };
    Service::builder().writeback(writeback).retry(retry)
}
