//! A watch that outlives its pager, against an access to one of its VMOs.
//!
//! Threads: one looks at what is in flight, after the pager was closed; one reads a page that is absent.
//!
//! Danger: the VMO is in the closed pager's registry still, and the watch sees a request that its opener is about to
//! give up, since nobody can be asked: it reports, or times out, what nobody will ever wait for.
//!
//! Must hold: nothing is in flight, and the reader gets BAD_STATE.
#![cfg(loom)]

use std::time::Duration;

use loom::thread;
use upager::{Event, Status, Watch, WatchLimits};
use upager_verify::race::{Depth, explore, leave};
use upager_verify::world::World;

#[test]
fn watch_of_a_closed_pager_against_fault() {
    explore("watch of a closed pager against fault", Depth::Whole, |world: World| {
        let mut access = world.read(0);
        let World { platform, pager, port, vmo } = world;
        let limits = WatchLimits { warn_after: Some(Duration::ZERO), time_out: Some(Duration::ZERO) };
        let mut watch = Watch::new(&pager, limits, Box::new(|event: &Event| panic!("it tells of {event:?}")));
        drop(pager);
        let reader = thread::spawn(move || {
            let read = access.poll();
            drop(access);
            leave();
            read
        });
        watch.look(Duration::ZERO);
        assert_eq!(watch.counts().in_flight, 0);
        assert_eq!(reader.join().expect("the reader ends"), Some(Err(Status::BadState)));
        drop((watch, vmo, port));
        platform.check_nothing_left();
    });
}
