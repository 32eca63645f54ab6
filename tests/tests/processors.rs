//! Two processors with a handle on the epoch each, as a kernel has them: what one has given up, any may free, though
//! the one does nothing more.
//!
//! All is one thread, which says where it runs. So nothing here depends on luck, or on the tests beside it.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use upager::{
    Access, AnonymousVmo, Collector, Event, Evict, LocalHandle, PAGE_SIZE, PageCount, PageIndex, Platform, Vmo,
    VmoOptions, Watch, WatchLimits,
};
use upager_tests::{OwnEpoch, Task, World, at, now, pages};

thread_local! {
    static HANDLES: [LocalHandle; 2] = {
        let collector = Collector::new();
        [collector.register(), collector.register()]
    };
    /// Where this thread runs.
    static HERE: Cell<usize> = const { Cell::new(0) };
}

/// Two processors, on one of which this thread runs.
fn processors() -> World<OwnEpoch> {
    World::on(OwnEpoch::new(|| HANDLES.with(|handles| handles[HERE.get()].pin())))
}

/// How many frames are left when the other processor has gone on, and this one has not.
fn left_beside(platform: &OwnEpoch) -> u64 {
    let here = HERE.replace(1 - HERE.get());
    for _ in 0..8 {
        platform.pin().flush();
    }
    HERE.set(here);
    platform.frames().0
}

type Removal = fn(&World<OwnEpoch>, &Vmo<OwnEpoch>, &AnonymousVmo<OwnEpoch>);

/// Of a VMO of 20 dirty and 20 clean pages, and an anonymous one of 40; how many frames are left then.
const REMOVALS: [(Removal, u64); 7] = [
    (|_, vmo, _| assert_eq!(vmo.evict(PageCount(40), Evict::Any), PageCount(20)), 60),
    (|world, vmo, _| assert_eq!(world.pager.detach_vmo(vmo).unwrap().dropped_pages, PageCount(20)), 60),
    (|_, vmo, _| now(vmo.zero(pages(0, 40))).unwrap(), 40),
    (|_, vmo, _| vmo.set_size(PAGE_SIZE).unwrap(), 41),
    (|_, _, aux| aux.decommit(pages(0, 10)).unwrap(), 70),
    (|_, _, aux| aux.zero(pages(0, 40)).unwrap(), 40),
    (|world, vmo, aux| world.pager.supply_pages(vmo, pages(0, 40), aux, at(0, 0)).unwrap(), 40),
];

#[test]
fn frames_that_one_processor_gave_up_another_frees() {
    for (number, (remove, left)) in REMOVALS.into_iter().enumerate() {
        let world = processors();
        let (vmo, aux) = (world.vmo_with(VmoOptions::RESIZABLE, 40), world.aux(40));
        world.make_dirty(&vmo, 0, 20, 1);
        world.supply(&vmo, 20, 20).unwrap();
        aux.commit(pages(0, 40)).unwrap();
        remove(&world, &vmo, &aux);
        assert_eq!(left_beside(&world.platform), left, "removal {number}");
    }
}

#[test]
fn a_vmo_that_one_processor_dropped_another_frees() {
    let world = processors();
    let others = Arc::strong_count(&world.platform);
    let vmo = world.vmo(40);
    world.supply(&vmo, 0, 40).unwrap();
    drop(vmo);
    assert_eq!(world.packets().len(), 1, "COMPLETE");
    assert_eq!((left_beside(&world.platform), Arc::strong_count(&world.platform)), (0, others));
}

#[test]
fn an_observer_that_takes_its_time_keeps_no_frame() {
    let world = processors();
    let vmo = Arc::new(world.vmo(2));
    world.supply(&vmo, 0, 1).unwrap();
    let _waiter = Task::pending(vmo.fault(PageIndex(1), Access::Read));
    let evicted = vmo.clone();
    let observer = move |_: &Event| {
        assert_eq!(evicted.evict(PageCount(1), Evict::Any), PageCount(1));
        assert_eq!(left_beside(evicted.platform()), 0);
    };
    let limits = WatchLimits { warn_after: Some(Duration::ZERO), time_out: None };
    let mut watch = Watch::new(&world.pager, limits, Box::new(observer));
    watch.look(Duration::ZERO);
    assert_eq!(watch.counts().slow, 1);
}
