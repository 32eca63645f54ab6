//! What a complete exploration must come by, and in how many executions.

#![cfg(loom)]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize as Count, Ordering::Relaxed as Counted};
use std::sync::{Arc as StdArc, Mutex};

use loom::cell::UnsafeCell;
use loom::sync::{Arc, Grace};
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

/// A message that is passed on: the second thread tells the third that there is one, and has not acquired it. Whether the
/// third finds the `flag`, which it reads with this order and a fence after it, and the message.
fn message_that_is_passed_on(flag: usize, order: loom::sync::atomic::Ordering) -> BTreeSet<(bool, usize)> {
    let (came, _) = explore(move || {
        let x = words::<3>();
        let (sends, passes) = (x.clone(), x.clone());
        let sends = thread::spawn(move || {
            sends[0].store(1, Relaxed);
            sends[1].store(1, Release);
        });
        let passes = thread::spawn(move || {
            if passes[1].load(Relaxed) == 1 {
                passes[2].store(1, Release);
            }
        });
        let has_come = x[flag].load(order) == 1;
        fence(Acquire);
        let data = x[0].load(Relaxed);
        sends.join().unwrap();
        passes.join().unwrap();
        (has_come, data)
    });
    came
}

#[test]
fn a_fence_acquires_what_its_thread_has_read() {
    assert_eq!(message_that_is_passed_on(1, Relaxed), [(false, 0), (false, 1), (true, 1)].into());
}

/// The read of another thread is not sequenced before the fence, even if it comes before it.
#[test]
fn a_fence_does_not_acquire_what_another_thread_has_read() {
    let came = message_that_is_passed_on(2, Acquire);
    assert_eq!(came, [(false, 0), (false, 1), (true, 0), (true, 1)].into());
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

/// A join waits for the end of the thread, whenever it began to.
#[test]
fn an_end_and_its_join_have_no_order() {
    let (_, executions) = explore(|| {
        let words = words::<2>();
        let other = words.clone();
        let other = thread::spawn(move || other[0].store(1, Relaxed));
        words[1].store(1, Relaxed);
        other.join().unwrap();
        assert_eq!(words[0].load(Relaxed), 1);
    });
    assert_eq!(executions, 1);
}

#[test]
fn guards_have_no_order() {
    let (_, executions) = explore(|| {
        let grace = Arc::new(Grace::new());
        let other = grace.clone();
        let other = thread::spawn(move || assert!(other.unpin(&other.pin()).is_empty()));
        assert!(grace.unpin(&grace.pin()).is_empty());
        other.join().unwrap();
    });
    assert_eq!(executions, 1);
}

/// The other guard ends before something is deferred, or begins after it, or ends before the one that deferred
/// it, or after.
#[test]
fn the_last_guard_makes_ready() {
    let (came, executions) = explore(|| {
        let grace = Arc::new(Grace::new());
        let other = grace.clone();
        let other = thread::spawn(move || other.unpin(&other.pin()).len());
        let guard = grace.pin();
        grace.defer();
        let own = grace.unpin(&guard).len();
        (own, other.join().unwrap())
    });
    assert_eq!(came, [(1, 0), (0, 1)].into());
    assert_eq!(executions, 5); // and one is a double
}

/// Each waits for both guards, or for its own.
#[test]
fn two_that_defer_have_no_order() {
    let (came, executions) = explore(|| {
        let grace = Arc::new(Grace::new());
        let (guard, others) = (grace.pin(), grace.pin());
        let other = grace.clone();
        let other = thread::spawn(move || {
            other.defer();
            others
        });
        grace.defer();
        let others = other.join().unwrap();
        (grace.unpin(&guard).len(), grace.unpin(&others).len())
    });
    assert_eq!(came, [(0, 2)].into());
    assert_eq!(executions, 1);
}

/// Frees a cell that a thread with a guard reads, in its guard or after it.
fn free_beside_a_reader(in_guard: bool) {
    loom::model(move || {
        let grace = Arc::new(Grace::new());
        let shared = Arc::new((AtomicUsize::new(1), UnsafeCell::new(0)));
        let (there, reads) = (grace.clone(), shared.clone());
        let reader = thread::spawn(move || {
            let guard = there.pin();
            let is_there = reads.0.load(Acquire) == 1;
            let read = || {
                if is_there {
                    reads.1.with(|_| ());
                }
            };
            if in_guard {
                read();
            }
            if !there.unpin(&guard).is_empty() {
                reads.1.with_mut(|_| ());
            }
            if !in_guard {
                read();
            }
        });
        let guard = grace.pin();
        shared.0.store(0, Release);
        grace.defer();
        if !grace.unpin(&guard).is_empty() {
            shared.1.with_mut(|_| ());
        }
        reader.join().unwrap();
    });
}

#[test]
fn what_becomes_ready_comes_after_the_guards() {
    free_beside_a_reader(true);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn what_becomes_ready_does_not_come_after_more() {
    free_beside_a_reader(false);
}

/// Who pins after something was deferred sees what was done before that.
#[test]
fn a_pin_comes_after_what_was_deferred() {
    let (came, _) = explore(|| {
        let grace = Arc::new(Grace::new());
        let x = words::<1>();
        let (there, reads) = (grace.clone(), x.clone());
        let reader = thread::spawn(move || {
            let guard = there.pin();
            let seen = reads[0].load(Relaxed);
            (seen, there.unpin(&guard).len())
        });
        let guard = grace.pin();
        x[0].store(1, Relaxed);
        grace.defer();
        let own = grace.unpin(&guard).len();
        let (seen, others) = reader.join().unwrap();
        (seen, own, others)
    });
    // The reader's guard is not waited for: it had ended, or began after. Or it is, and was the last or not.
    assert_eq!(came, [(0, 1, 0), (1, 1, 0), (0, 0, 1), (1, 0, 1)].into());
}
