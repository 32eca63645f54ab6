//! The close of a port against the end of a VMO that is delivered to it.
//!
//! Threads: one drops the last handle of the VMO, one that of the port.
//!
//! Danger: a VMO that has ended is kept until its COMPLETE has been taken. Nobody takes it if the port
//! closes. If the VMO sees the port open, and the port sees the VMO not ended, nobody forgets it, and it
//! stays until its pager goes.
//!
//! Must hold: the VMO is gone, with its pager still there; no frame is left and none is freed twice.
#![cfg(loom)]

use upager::sync::Arc;
use upager_verify::race::{Depth, explore, leave};
use upager_verify::world::World;

#[test]
fn port_close_against_vmo_drop() {
    explore("port close against VMO drop", Depth::Bounded, |world: World| {
        world.supply(0, 5).expect("attached");
        let World { platform, pager, port, vmo } = world;
        let closer = loom::thread::spawn(move || {
            drop(port);
            leave();
        });
        drop(vmo);
        closer.join().expect("the closer ends");
        platform.turn_epoch();
        assert_eq!(Arc::strong_count(&platform), 2, "ours and the pager's: the VMO has gone");
        drop(pager);
        platform.check_nothing_left();
    });
}
