//! What a complete exploration must come by, and in how many executions.

#![cfg(loom)]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize as Count, Ordering::Relaxed as Counted};
use std::sync::{Arc as StdArc, Mutex};

use loom::sync::Arc;
use loom::sync::atomic::{
    AtomicUsize,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
    fence,
};
use loom::thread;

/// All that the program comes to, and the number of executions.
fn explore<T: Ord + Send + 'static>(
    program: impl Fn() -> T + Send + Sync + 'static,
) -> (BTreeSet<T>, usize) {
    let (came, executions) = (StdArc::new(Mutex::new(BTreeSet::new())), StdArc::new(Count::new(0)));
    let (to, counter) = (came.clone(), executions.clone());
    loom::model::Builder::new().check(move || {
        counter.fetch_add(1, Counted);
        to.lock().unwrap().insert(program());
    });
    let came = std::mem::take(&mut *came.lock().unwrap());
    (came, executions.load(Counted))
}

fn words<const N: usize>() -> Arc<[AtomicUsize; N]> {
    Arc::new(std::array::from_fn(|_| AtomicUsize::new(0)))
}

/// Between the load and the change that it races with, the other thread loads the same word. The changed
/// value is an old one's double to nobody: both must be seen.
#[test]
fn a_load_hides_no_race() {
    let (came, _) = explore(|| {
        let [x] = [words::<1>()];
        let other = x.clone();
        let changes = thread::spawn(move || {
            other[0].load(Relaxed);
            other[0].fetch_add(1, Relaxed);
        });
        let seen = x[0].load(Relaxed);
        changes.join().unwrap();
        seen
    });
    assert_eq!(came, [0, 1].into());
}

/// The same of three threads, two of which only load.
#[test]
fn loads_of_two_threads_hide_no_race() {
    let (came, _) = explore(|| {
        let x = words::<1>();
        let (one, two) = (x.clone(), x.clone());
        let one = thread::spawn(move || one[0].load(Relaxed));
        let two = thread::spawn(move || two[0].load(Relaxed));
        x[0].load(Relaxed);
        x[0].store(1, Relaxed);
        (one.join().unwrap(), two.join().unwrap())
    });
    assert_eq!(came, [(0, 0), (0, 1), (1, 0), (1, 1)].into());
}

fn store_buffering(between: fn()) -> BTreeSet<(usize, usize)> {
    let (came, _) = explore(move || {
        let x = words::<2>();
        let other = x.clone();
        let other = thread::spawn(move || {
            other[1].store(1, Relaxed);
            between();
            other[0].load(Relaxed)
        });
        x[0].store(1, Relaxed);
        between();
        let seen = x[1].load(Relaxed);
        (seen, other.join().unwrap())
    });
    came
}

/// No order of the four steps gives (0, 0): that is what old values are still tried for.
#[test]
fn both_may_miss_the_others_store() {
    assert_eq!(store_buffering(|| ()), [(0, 0), (0, 1), (1, 0), (1, 1)].into());
}

#[test]
fn fences_have_one_see_the_other() {
    assert_eq!(store_buffering(|| fence(SeqCst)), [(0, 1), (1, 0), (1, 1)].into());
}

fn message(store: loom::sync::atomic::Ordering, load: loom::sync::atomic::Ordering) -> BTreeSet<(usize, usize)> {
    let (came, _) = explore(move || {
        let x = words::<2>();
        let sends = x.clone();
        let sends = thread::spawn(move || {
            sends[0].store(1, Relaxed);
            sends[1].store(1, store);
        });
        let flag = x[1].load(load);
        let data = x[0].load(Relaxed);
        sends.join().unwrap();
        (flag, data)
    });
    came
}

#[test]
fn a_flag_may_come_before_its_message() {
    assert_eq!(message(Relaxed, Relaxed), [(0, 0), (0, 1), (1, 0), (1, 1)].into());
}

#[test]
fn a_released_flag_comes_after_its_message() {
    assert_eq!(message(Release, Acquire), [(0, 0), (0, 1), (1, 1)].into());
}

/// Two threads that change the same words in the same order: each word has two orders, and they are free. The rest are
/// executions that are found to be doubles on the way, and end.
#[test]
fn few_orders_are_explored_twice() {
    let (_, executions) = explore(|| {
        let x = words::<6>();
        let other = x.clone();
        let other = thread::spawn(move || other.iter().map(|word| word.fetch_add(1, Relaxed)).collect::<Vec<_>>());
        let mine: Vec<_> = x.iter().map(|word| word.fetch_add(1, Relaxed)).collect();
        (mine, other.join().unwrap())
    });
    assert!((1 << 6..=3 << 6).contains(&executions), "{executions} executions");
}

/// A load has an execution before the store and one after it, and none besides in which it misses the store.
#[test]
fn an_old_value_that_an_order_gives_is_not_tried_again() {
    let (came, executions) = explore(|| {
        let x = words::<4>();
        let other = x.clone();
        let stores = thread::spawn(move || other.iter().for_each(|word| word.store(1, Relaxed)));
        let seen: Vec<_> = x.iter().rev().map(|word| word.load(Relaxed)).collect();
        stores.join().unwrap();
        seen
    });
    // Each word may be seen or not, whatever the others: the stores are relaxed.
    assert_eq!(came.len(), 1 << 4);
    assert!(executions <= 50, "{executions} executions");
}

/// Who drops the last reference comes after what the others did, and only that drop has an order.
#[test]
fn drops_that_do_not_release_have_no_order() {
    let (_, executions) = explore(|| {
        let held = words::<1>();
        let (one, two) = (held.clone(), held.clone());
        let one = thread::spawn(move || drop(one));
        drop(two);
        one.join().unwrap();
        drop(held);
    });
    assert_eq!(executions, 1);
}
