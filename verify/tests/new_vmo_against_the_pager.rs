//! A VMO that is made against what its pager does to all its VMOs, and against another that is made.
//!
//! Threads: one makes a VMO, and one evicts through the pager; or each makes one.
//!
//! Danger: the registry shows the VMO before it is made, and the evictor walks a table that is not there yet;
//! or two VMOs get the same number, and the watch takes the requests of one for those of the other.
//!
//! Must hold: who finds the new VMO finds it whole; and the watch warns of the request of each.
#![cfg(loom)]

use std::sync::Arc as StdArc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use loom::thread;
use upager::sync::Arc;
use upager::{Event, PAGE_SIZE, Pager, Port, Vmo, VmoOptions, Watch, WatchLimits};
use upager_verify::race::{Depth, explore, leave};
use upager_verify::world::{KEY, ModelPlatform, Waiting, World};

fn another(pager: &Pager<ModelPlatform>, port: &Port<ModelPlatform>) -> Arc<Vmo<ModelPlatform>> {
    Arc::new(pager.create_vmo(port, KEY + 1, VmoOptions::NONE, PAGE_SIZE).expect("there is room"))
}

#[test]
fn pager_evict_against_a_new_vmo() {
    explore("pager evict against a new vmo", Depth::Whole, |world: World| {
        let maker = world.spawn(|world| drop(another(&world.pager, &world.port)));
        let evicting = world.pager.clone();
        assert_eq!(evicting.evict(upager::PageCount(1), upager::Evict::Any).0, 0, "no VMO has a page");
        drop(evicting);
        maker.join().expect("the maker ends");
        world.end_of_the_world();
    });
}

#[test]
fn two_new_vmos() {
    explore("two new vmos", Depth::Whole, |world: World| {
        let World { platform, pager, port, vmo } = world;
        drop(vmo);
        let made = {
            let (pager, port) = (pager.clone(), port.clone());
            thread::spawn(move || {
                let vmo = another(&pager, &port);
                drop((pager, port));
                leave();
                vmo
            })
        };
        let mut vmos = vec![another(&pager, &port)];
        vmos.push(made.join().expect("the maker ends"));
        // Each waits for a page, in its first request.
        let mut waiting: Vec<Waiting> = vmos.iter().map(|vmo| Waiting::read(vmo.clone(), 0)).collect();
        assert!(waiting.iter_mut().all(|waiting| waiting.poll().is_none()));
        let warned = StdArc::new(AtomicUsize::new(0));
        let observer = {
            let warned = warned.clone();
            move |event: &Event| {
                assert!(matches!(event, Event::Slow(_)));
                warned.fetch_add(1, Ordering::Relaxed);
            }
        };
        let limits = WatchLimits { warn_after: Some(Duration::ZERO), time_out: None };
        Watch::new(&pager, limits, Box::new(observer)).look(Duration::ZERO);
        assert_eq!(warned.load(Ordering::Relaxed), 2, "of the request of each");
        drop((waiting, vmos, pager, port));
        platform.check_nothing_left();
    });
}
