use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use super::*;

struct Object {
    drops: Arc<AtomicUsize>,
    name: u64,
}

impl Drop for Object {
    fn drop(&mut self) {
        self.name = 0;
        self.drops.fetch_add(1, Relaxed);
    }
}

fn insert(table: &Table<Object>, drops: &Arc<AtomicUsize>, name: u64) -> u32 {
    table.reserve().unwrap().fill(Object { drops: drops.clone(), name }, 3)
}

fn name(table: &Table<Object>, value: u32) -> Result<u64, BadHandle> {
    let record = table.records().take();
    let name = table.call(record, [value]).get(0).map(|(object, _)| object.name);
    record.release();
    name
}

#[test]
fn values_are_not_used_again_soon() {
    let (table, drops) = (Table::new(99), Arc::default());
    let mut seen = HashSet::new();
    for round in 0..100_000 {
        let value = insert(&table, &drops, round);
        assert!(seen.insert(value), "{value:x} came again in round {round}");
        assert_eq!(table.close(value), Ok(()));
        assert_eq!(table.close(value), Err(BadHandle));
    }
    assert_eq!(drops.load(Relaxed), 100_000);
    for &value in &seen {
        assert_eq!(name(&table, value), Err(BadHandle));
    }
}

#[test]
fn a_full_table_refuses_and_recovers() {
    let (table, drops) = (Table::new(5), Arc::default());
    let values: Vec<u32> = (1..=MAX_HANDLES as u64).map(|n| insert(&table, &drops, n)).collect();
    assert!(table.reserve().is_err());
    assert_eq!(values.iter().collect::<HashSet<_>>().len(), MAX_HANDLES);
    for (n, &value) in values.iter().enumerate().step_by(1013) {
        assert_eq!(name(&table, value), Ok(n as u64 + 1));
    }
    assert_eq!(table.close(values[77]), Ok(()));
    let again = insert(&table, &drops, 5);
    assert_eq!(name(&table, again), Ok(5));
    assert_eq!(name(&table, values[77]), Err(BadHandle));
    drop(table);
    assert_eq!(drops.load(Relaxed), MAX_HANDLES + 1);
}

#[test]
fn a_place_that_is_not_filled_is_given_back() {
    let (table, drops) = (Table::new(5), Arc::default());
    for _ in 0..2 * MAX_HANDLES {
        drop(table.reserve().unwrap());
    }
    assert_eq!(table.used.load(Relaxed), 0);
    let value = insert(&table, &drops, 1);
    assert_eq!(name(&table, value), Ok(1));
}

#[test]
fn a_made_up_value_names_nothing() {
    let (table, drops) = (Table::new(0x5eed), Arc::default());
    let mine: HashSet<u32> = (1..=100).map(|n| insert(&table, &drops, n)).collect();
    let mut state = 1u64;
    let mut hits = 0;
    for _ in 0..1_000_000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let value = (state >> 32) as u32;
        hits += u32::from(!mine.contains(&value) && name(&table, value).is_ok());
    }
    assert_eq!(hits, 0);
}

/// Threads that use, duplicate and close the same handles: each object goes once, when its last handle and its last
/// call have gone, and nobody finds another's.
#[test]
fn everything_at_once() {
    const THREADS: usize = 4;
    const ROUNDS: u64 = 3_000;
    let (table, drops) = (Arc::new(Table::<Object>::new(7)), Arc::<AtomicUsize>::default());
    let shared: Arc<Vec<AtomicU64>> = Arc::new((0..4).map(|_| AtomicU64::new(0)).collect());
    let done = Arc::new(AtomicBool::new(false));
    let found = Arc::new(AtomicUsize::new(0));
    let users: Vec<_> = (0..THREADS)
        .map(|_| {
            let (table, shared, done, found) = (table.clone(), shared.clone(), done.clone(), found.clone());
            thread::spawn(move || {
                let record = table.records().take();
                let mut made = Vec::new();
                while !done.load(Relaxed) {
                    for place in shared.iter() {
                        let pair = place.load(Relaxed);
                        let (value, expected) = (pair as u32, pair >> 32);
                        let call = table.call(record, [value]);
                        if let Ok((object, rights)) = call.get(0) {
                            assert_eq!((object.name, rights), (expected, 3));
                            found.fetch_add(1, Relaxed);
                            if let Ok(second) = table.reserve().unwrap().duplicate(&call, 0, 3) {
                                made.push(second);
                            }
                            assert_eq!(object.name, expected);
                        }
                    }
                    for second in made.drain(..) {
                        assert_eq!(table.close(second), Ok(()));
                    }
                }
                record.release();
            })
        })
        .collect();
    let mut live = [0u32; 4];
    for round in 1..=ROUNDS {
        let at = round as usize % 4;
        let value = insert(&table, &drops, round);
        let old = core::mem::replace(&mut live[at], value);
        shared[at].store(round << 32 | u64::from(value), Relaxed);
        assert_eq!(table.close(old).is_ok(), old != 0);
        if round % 64 == 0 {
            thread::yield_now();
        }
    }
    while found.load(Relaxed) < THREADS && !users.iter().any(thread::JoinHandle::is_finished) {
        thread::yield_now(); // it may be that none of them has run yet
    }
    done.store(true, Relaxed);
    for user in users {
        user.join().unwrap();
    }
    assert_eq!(drops.load(Relaxed), ROUNDS as usize - 4);
    for value in live {
        assert_eq!(table.close(value), Ok(()));
    }
    assert_eq!(drops.load(Relaxed), ROUNDS as usize);
}
