//! Loom's look at the table: calls against close, duplicate, replace and reuse of slots.
//!
//! The object of every model tells when it is used after it was dropped, and is dropped twice or never.

use loom::sync::atomic::AtomicU32;
use loom::sync::atomic::Ordering::SeqCst;
use loom::sync::{Arc, mpsc};
use loom::thread;

use super::*;

const ALL: u32 = 7;

/// Tells its drops, and that it is used only before. The cell has loom check that each use and the drop are
/// ordered.
struct Object {
    drops: Arc<AtomicU32>,
    alive: loom::cell::UnsafeCell<bool>,
}

impl Object {
    fn new() -> (Self, Arc<AtomicU32>) {
        let drops = Arc::new(AtomicU32::new(0));
        (Self { drops: drops.clone(), alive: loom::cell::UnsafeCell::new(true) }, drops)
    }

    fn use_it(&self) {
        // SAFETY: read only, but for the drop.
        assert!(self.alive.with(|alive| unsafe { *alive }), "used after its drop");
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        // SAFETY: exclusive.
        self.alive.with_mut(|alive| unsafe { *alive = false });
        self.drops.fetch_add(1, SeqCst);
    }
}

// SAFETY: the cell is only read before the drop.
unsafe impl Sync for Object {}

type Handles = Arc<Table<Object>>;

fn table() -> Handles {
    Arc::new(Table::new(0x1234_5678_9abc_def1))
}

fn insert(table: &Handles) -> (u32, Arc<AtomicU32>) {
    let (object, drops) = Object::new();
    (table.reserve().unwrap().fill(object, ALL), drops)
}

fn use_handle(table: &Handles, value: u32) -> Result<(), BadHandle> {
    let record = table.records().take();
    let used = table.call(record, [value]).get(0).map(|(object, rights)| {
        assert_eq!(rights, ALL);
        object.use_it();
    });
    record.release();
    used
}

/// A thread beside, with the table.
fn beside<R: 'static>(table: &Handles, act: impl FnOnce(&Handles) -> R + 'static) -> thread::JoinHandle<R> {
    let table = table.clone();
    thread::spawn(move || act(&table))
}

fn explore(threads: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = std::env::var("HANDLE_BOUND").ok().and_then(|bound| bound.parse().ok());
    model.check(threads);
}

/// A call and a close: the call finds the object or not, the object goes once, and is gone when both are over.
#[test]
fn a_close_beside_a_call() {
    explore(|| {
        let table = table();
        let (value, drops) = insert(&table);
        let caller = beside(&table, move |table| use_handle(table, value));
        assert_eq!(table.close(value), Ok(()));
        let _: Result<(), BadHandle> = caller.join().unwrap();
        assert_eq!(drops.load(SeqCst), 1);
        assert_eq!(use_handle(&table, value), Err(BadHandle));
    });
}

/// Two closes of one handle: one wins.
#[test]
fn two_closes() {
    explore(|| {
        let table = table();
        let (value, drops) = insert(&table);
        let other = beside(&table, move |table| table.close(value));
        let here = table.close(value);
        assert!(here.is_ok() != other.join().unwrap().is_ok());
        assert_eq!(drops.load(SeqCst), 1);
    });
}

/// Two handles closed at once, beside a call by one of them: the second close must see the call.
#[test]
fn closes_of_two_handles_beside_a_call() {
    explore(|| {
        let table = table();
        let (first, drops) = insert(&table);
        let second = duplicate(&table, first).unwrap();
        let closer = beside(&table, move |table| table.close(first));
        let caller = beside(&table, move |table| use_handle(table, first));
        assert_eq!(table.close(second), Ok(()));
        assert_eq!(closer.join().unwrap(), Ok(()));
        let _: Result<(), BadHandle> = caller.join().unwrap();
        assert_eq!(drops.load(SeqCst), 1);
    });
}

fn duplicate(table: &Handles, value: u32) -> Result<u32, BadHandle> {
    let record = table.records().take();
    let call = table.call(record, [value]);
    let made = call.get(0).and_then(|_| table.reserve().map_err(|Full| BadHandle)?.duplicate(&call, 0, ALL));
    drop(call);
    record.release();
    made
}

/// A duplicate beside the close of the only handle: there is a second handle, and the object lives; or there is
/// none, and it goes.
#[test]
fn a_close_beside_a_duplicate() {
    explore(|| {
        let table = table();
        let (value, drops) = insert(&table);
        let other = beside(&table, move |table| duplicate(table, value));
        assert_eq!(table.close(value), Ok(()));
        if let Ok(second) = other.join().unwrap() {
            assert_eq!(drops.load(SeqCst), 0);
            assert_eq!(use_handle(&table, second), Ok(()));
            assert_eq!(table.close(second), Ok(()));
        }
        assert_eq!(drops.load(SeqCst), 1);
    });
}

/// A slot that is used again at once: the old value never finds the new object.
#[test]
fn a_stale_value_beside_a_new_object() {
    explore(|| {
        let table = table();
        let (old, drops) = insert(&table);
        let (passed, _) = insert(&table);
        assert_eq!(table.close(passed), Ok(())); // so that the slot that is closed is taken again
        let caller = beside(&table, move |table| use_handle(table, old));
        assert_eq!(table.close(old), Ok(()));
        let (object, new_drops) = Object::new();
        let new = table.reserve().unwrap().fill(object, 1);
        let _: Result<(), BadHandle> = caller.join().unwrap();
        assert_ne!(old, new);
        assert_eq!(use_handle(&table, old), Err(BadHandle));
        assert_eq!((drops.load(SeqCst), new_drops.load(SeqCst)), (1, 0));
        assert_eq!(table.close(new), Ok(()));
        assert_eq!(new_drops.load(SeqCst), 1);
    });
}

/// A replaced handle beside a call: the object stays.
#[test]
fn a_replace_beside_a_call() {
    struct Any;
    impl From<BadHandle> for Any {
        fn from(_: BadHandle) -> Self {
            Self
        }
    }
    impl From<Full> for Any {
        fn from(_: Full) -> Self {
            Self
        }
    }
    explore(|| {
        let table = table();
        let (value, drops) = insert(&table);
        let caller = beside(&table, move |table| use_handle(table, value));
        let new = table.replace::<Any>(value, Ok).ok().unwrap();
        let _: Result<(), BadHandle> = caller.join().unwrap();
        assert_eq!(drops.load(SeqCst), 0);
        assert_eq!(use_handle(&table, value), Err(BadHandle));
        assert_eq!(use_handle(&table, new), Ok(()));
        assert_eq!(table.close(new), Ok(()));
        assert_eq!(drops.load(SeqCst), 1);
    });
}

/// A call that waits, and is told to go on only after the close has returned: the close waits for nobody, and the object
/// goes with the call.
#[test]
fn a_call_that_outlasts_the_close() {
    explore(|| {
        let table = table();
        let (value, drops) = insert(&table);
        let (entered, has_entered) = mpsc::channel();
        let (go_on, may_go_on) = mpsc::channel();
        let caller = {
            let (table, drops) = (table.clone(), drops.clone());
            thread::spawn(move || {
                let record = table.records().take();
                let call = table.call(record, [value, value]);
                assert!(call.get(1).is_ok());
                entered.send(()).unwrap();
                may_go_on.recv().unwrap();
                call.get(0).unwrap().0.use_it();
                assert_eq!(drops.load(SeqCst), 0);
                drop(call);
                assert_eq!(drops.load(SeqCst), 1);
                record.release();
            })
        };
        has_entered.recv().unwrap();
        assert_eq!(table.close(value), Ok(()));
        go_on.send(()).unwrap();
        caller.join().unwrap();
    });
}

/// A record goes from one call to another object's: a close marks the call that it saw, or none.
#[test]
fn a_close_beside_two_calls_in_a_row() {
    explore(|| {
        let table = table();
        let (first, first_drops) = insert(&table);
        let (second, second_drops) = insert(&table);
        let caller = beside(&table, move |table| {
            let _: Result<(), BadHandle> = use_handle(table, first);
            assert_eq!(use_handle(table, second), Ok(()));
        });
        assert_eq!(table.close(first), Ok(()));
        caller.join().unwrap();
        assert_eq!((first_drops.load(SeqCst), second_drops.load(SeqCst)), (1, 0));
    });
}

/// A close beside the making of an object that takes the slot as soon as it is free: each handle has its own object.
#[test]
fn a_close_beside_a_new_object() {
    explore(|| {
        let table = table();
        let (old, old_drops) = insert(&table);
        let (passed, _) = insert(&table);
        assert_eq!(table.close(passed), Ok(())); // so that the search begins at the slot that is closed
        let maker = beside(&table, move |table| {
            let (object, drops) = Object::new();
            (table.reserve().unwrap().fill(object, ALL), drops)
        });
        assert_eq!(table.close(old), Ok(()));
        let (new, new_drops) = maker.join().unwrap();
        assert_eq!(old_drops.load(SeqCst), 1);
        assert_eq!(new_drops.load(SeqCst), 0);
        assert_eq!(use_handle(&table, new), Ok(()));
        assert_eq!(table.close(new), Ok(()));
        assert_eq!(new_drops.load(SeqCst), 1);
    });
}
