//! A look of the watch on the service, against the next life of a request's entry.
//!
//! Threads: one looks, and warns of all it sees; the other's request ends, and he asks for another page.
//!
//! Danger: the watch sees a request open, and then reads the pages of the next one in its entry: that one is warned of
//! under the name of the first, and again under its own.
//!
//! Must hold: each request is told of once.
#![cfg(loom)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use upager::{ByteRange, Event, Watch, WatchLimits};
use upager_verify::race::{Depth, explore_pages, settled};
use upager_verify::world::{ModelPlatform, World};

type Told = Arc<Mutex<Vec<ByteRange>>>;

/// A watch that warns at first sight, and what it has warned of.
fn watch(pager: &upager::Pager<ModelPlatform>) -> (Watch<ModelPlatform>, Told) {
    let told = Told::default();
    let observer = {
        let told = told.clone();
        move |event: &Event| {
            let Event::Slow(request) = event else { panic!("{event:?}") };
            told.lock().expect("no model panics here").push(request.range);
        }
    };
    let limits = WatchLimits { warn_after: Some(Duration::ZERO), time_out: None };
    (Watch::new(pager, limits, Box::new(observer)), told)
}

#[test]
fn watch_against_the_next_life_of_a_request() {
    explore_pages("watch against a request's next life", Depth::Whole, 2, |world: World| {
        let (mut first, mut other) = (world.read(0), world.read(1));
        assert_eq!((first.poll(), other.poll()), (None, None));
        assert_eq!(world.take_all().len(), 1, "of two pages"); // the queue keeps the entry of the second
        let _: usize = other.leave();
        let asks = world.spawn(move |world| {
            let _: usize = first.leave();
            settled(world.read(1))
        });
        let (mut watch, told) = watch(&world.pager);
        watch.look(Duration::ZERO);
        let asked = asks.join().expect("the reader ends");
        watch.look(Duration::ZERO);
        let told = told.lock().expect("no model panics here").clone();
        let second = told.iter().filter(|range| range.offset > 0).count();
        assert_eq!((second, watch.counts().in_flight), (1, 1), "the second request is told of once: {told:?}");
        assert!(told.len() - second <= 1, "the first is told of once: {told:?}");
        drop((asked, watch));
        world.end_of_the_world();
    });
}
