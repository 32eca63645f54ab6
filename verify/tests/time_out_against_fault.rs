//! The watch's time-out against the fault that is just making the request.
//!
//! Threads: one reads an absent page; one looks at the requests in flight and times out what it sees.
//!
//! Danger: the request is timed out while it is being built: its page goes on naming it, its packet
//! is delivered though it is over, or its maker sleeps and nobody wakes it.
//!
//! Must hold: if the watch timed it out the reader gets TIMED_OUT and nothing is delivered; else it
//! waits, its packet is delivered, and a supply brings it home. The page can be asked for again.
#![cfg(loom)]

use upager::Status;
use upager_verify::race::{Depth, Home, explore, settled};
use upager_verify::world::World;

#[test]
fn time_out_against_fault() {
    explore("time-out against fault", Depth::Whole, |world: World| {
        let reader = world.spawn(|world| settled(world.read(0)));
        let timed_out = world.time_out_all();
        let read = reader.join().expect("the reader ends");
        if timed_out == 1 {
            assert_eq!(read.now(), Some(Err(Status::TimedOut)));
            assert_eq!(world.take_all(), []);
            let mut again = world.read(0);
            assert_eq!(again.poll(), None);
            assert_eq!(world.take_all().len(), 1);
        } else {
            assert_eq!(read.now(), None);
            assert_eq!(world.take_all().len(), 1);
            world.supply(0, 5).expect("attached");
            assert_eq!(read.home().now(), Some(Ok(5)));
        }
        world.end_of_the_world();
    });
}
