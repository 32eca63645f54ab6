//! A lookup against a supply, and an eviction.
//!
//! Threads: one pins, looks a page up and copies out of its frame; the other supplies the page and evicts it.
//!
//! Danger: the lookup sees the page before its bytes; or the frame is freed while it is copied. A lookup
//! is no fault: it takes one load of the page's word, and changes nothing.
//!
//! Must hold: the reader finds the page with its byte, or does not find it.
#![cfg(loom)]

use upager_verify::race::{Depth, explore};
use upager_verify::world::World;

/// Absent, but with a word of its own.
fn absent(world: &World) {
    world.supply(0, 4).expect("attached");
    assert_eq!(world.evict(), 1);
    world.turn_epoch();
    assert_eq!(world.look_up(0), None);
}

#[test]
fn lookup_against_supply_and_evict() {
    explore("lookup against supply and evict", Depth::Whole, |world: World| {
        absent(&world);
        let reader = world.spawn(|world| world.look_up(0).map(Ok));
        world.supply(0, 5).expect("attached");
        world.evict();
        world.turn_epoch();
        let seen = reader.join().expect("the reader ends");
        assert!(matches!(seen, None | Some(Ok(5))), "{seen:?}");
        world.end_of_the_world();
    });
}

/// The threads exchanged: what loom tries of two accesses depends on who comes first.
#[test]
fn supply_and_evict_against_lookup() {
    explore("supply and evict against lookup", Depth::Whole, |world: World| {
        absent(&world);
        let service = world.spawn(|world| {
            world.supply(0, 5).expect("attached");
            world.evict();
            world.turn_epoch();
        });
        let seen = world.look_up(0);
        service.join().expect("the service ends");
        assert!(matches!(seen, None | Some(5)), "{seen:?}");
        world.end_of_the_world();
    });
}
