//! A reset of the statistics against a write.
//!
//! Threads: one writes to a page; one, the service, asks whether the VMO was modified, resets that,
//! and reads the page.
//!
//! Danger: the write looks at the word just before the reset clears it, leaves it alone, and its
//! byte is not there yet when the service reads; or the reset takes the word of a write whose byte
//! is still to come. Then nobody is ever told of the byte.
//!
//! A fault for writing has no byte to order, and no fence: what it has done is the page's step to dirty.
//!
//! Must hold: a write that has returned is reported by the next query, or the service saw its byte
//! after a reset that said "modified". Who is told of a fault for writing, by a query that resets or keeps, finds its
//! page dirty.
#![cfg(loom)]

use upager::VmoStatsOptions::{self, Keep, Reset};
use upager::{DirtyRange, PAGE_SIZE};
use upager_verify::race::{Depth, explore, settled};
use upager_verify::world::{World, page};

fn race(world: World, modified_before: bool) {
    world.supply(0, 1).expect("attached");
    if modified_before {
        assert_eq!(world.write(0, 2).poll(), Some(Ok(2)));
    }
    let query = |world: &World| world.pager.query_vmo_stats(&world.vmo, Reset).expect("the pager's own VMO");
    let writer = world.spawn(|world| settled(world.write(0, 3)));
    let first = query(&world).is_modified();
    let seen = world.read(0).poll();
    assert_eq!(writer.join().expect("the writer ends").now(), Some(Ok(3)));
    let second = query(&world).is_modified();
    assert!(first || !modified_before, "the write from before the race is not reported");
    assert!(second || (first && seen == Some(Ok(3))), "nobody is told of the byte: {first}, {seen:?}, {second}");
    assert!(!query(&world).is_modified(), "reported twice");
    world.end_of_the_world();
}

#[test]
fn reset_against_write_to_a_vmo_that_was_modified() {
    explore("reset against write, modified before", Depth::Whole, |world| race(world, true));
}

#[test]
fn reset_against_write_to_a_vmo_that_was_not() {
    explore("reset against write, not modified before", Depth::Whole, |world| race(world, false));
}

fn told_of_a_fault(world: World, options: VmoStatsOptions) {
    world.supply(0, 1).expect("attached");
    let writer = world.spawn(|world| settled(world.mapped_write(0)));
    let asker = world.spawn(move |world| {
        let told = world.pager.query_vmo_stats(&world.vmo, options).expect("the pager's own VMO").is_modified();
        let mut runs = [DirtyRange::default()];
        let found = world.pager.query_dirty_ranges(&world.vmo, page(0), &mut runs).expect("a page of the VMO");
        assert!(!told || (found.actual, runs[0].length) == (1, PAGE_SIZE), "modified, and no page is dirty");
    });
    asker.join().expect("who asks ends");
    assert_eq!(writer.join().expect("the writer ends").now(), Some(Ok(0)));
    world.end_of_the_world();
}

#[test]
fn query_against_a_fault_for_writing() {
    explore("query against a fault for writing", Depth::Whole, |world| told_of_a_fault(world, Keep));
}

#[test]
fn reset_against_a_fault_for_writing() {
    explore("reset against a fault for writing", Depth::Whole, |world| told_of_a_fault(world, Reset));
}
