//! Many models, some at a time.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::progress::Progress;

/// Has so many threads explore all of these, and tells how far they are. `failure`: why a model failed, if it
/// did; it is printed, and with `fail_fast` none is begun after it. Returns those that were begun, in
/// their order. `explore` is told how many came before.
///
/// # Panics
/// If `explore` does.
pub fn explore_all<T: Display + Sync, R: Send>(
    all: Vec<T>,
    jobs: usize,
    fail_fast: bool,
    explore: impl Fn(usize, &T) -> R + Sync,
    failure: impl Fn(&R) -> Option<&str> + Sync,
) -> Vec<(T, R)> {
    let next = AtomicUsize::new(0);
    let over = AtomicBool::new(false);
    let progress = Progress::new(all.len());
    let done: Mutex<BTreeMap<usize, R>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(one) = all.get(at).filter(|_| !over.load(Ordering::Relaxed)) else { return };
                    let explored = explore(at, one);
                    if let Some(why) = failure(&explored) {
                        eprintln!("FAILED {one}\n{why}");
                        over.store(fail_fast, Ordering::Relaxed);
                    }
                    done.lock().expect("no panic while held").insert(at, explored);
                    progress.one();
                }
            });
        }
    });
    let mut done = done.into_inner().expect("no panic while held");
    all.into_iter().enumerate().filter_map(|(at, one)| Some((one, done.remove(&at)?))).collect()
}

/// What a panic said.
#[must_use]
pub fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{explore_all, said};

    #[test]
    fn all_are_explored_and_come_back_in_order() {
        let done = explore_all((0..100).collect(), 3, false, |at, one: &i32| (at, one * 2), |_| None);
        assert_eq!(done.len(), 100);
        for (at, (one, (told, twice))) in done.into_iter().enumerate() {
            assert_eq!((one, told, twice), (i32::try_from(at).unwrap(), at, one * 2));
        }
    }

    #[test]
    fn nothing_is_begun_after_a_failure_if_so_wished() {
        fn fails(one: &i32) -> Option<&str> {
            (*one == 3).then_some("three")
        }
        let explore = |_: usize, one: &i32| *one;
        assert_eq!(explore_all((0..9).collect(), 1, true, explore, fails).len(), 4);
        assert_eq!(explore_all((0..9).collect(), 1, false, explore, fails).len(), 9);
    }

    #[test]
    fn a_panic_says_what_it_was_given() {
        assert_eq!(said(&"a word"), "a word");
        assert_eq!(said(&String::from("a text")), "a text");
        assert_eq!(said(&7), "");
    }
}
