//! What the platform is told after a run of pages: that it may finish what it has left over.

use std::sync::Arc;

use upager::{Evict, PAGE_SIZE, PageCount, Vmo, VmoOptions};
use upager_tests::{Hooked, Runs, World, now, pages};

fn all(world: &World<Hooked>, pages: u64) -> Vmo<Hooked> {
    let vmo = world.vmo_with(VmoOptions::RESIZABLE, pages);
    world.make_dirty(&vmo, 0, pages / 2, 1);
    world.supply(&vmo, pages / 2, pages - pages / 2).unwrap();
    vmo
}

/// The runs that are open once what was deferred has run: maybe in the thread of another test, since all share one
/// epoch, and that may be in the middle of it.
fn at_rest(world: &World<Hooked>) -> Runs {
    let runs = || {
        world.platform.turn_epoch();
        world.platform.open_runs()
    };
    (0..10_000).map(|_| runs()).find(|runs| *runs == Runs::default()).unwrap_or_else(runs)
}

type Removal = fn(&World<Hooked>, Vmo<Hooked>);

/// Whatever takes pages away.
fn removals() -> Vec<Removal> {
    vec![
        |_, vmo| assert_eq!(vmo.evict(PageCount(40), Evict::Any), PageCount(20)),
        |_, vmo| now(vmo.zero(pages(0, 40))).unwrap(),
        |_, vmo| vmo.set_size(PAGE_SIZE).unwrap(),
        |world, vmo| assert_eq!(world.pager.detach_vmo(&vmo).unwrap().dropped_pages, PageCount(20)),
        |world, vmo| world.supply(&vmo, 0, 40).unwrap(), // none is needed
        |_, vmo| drop(vmo),
    ]
}

#[test]
fn every_run_of_unmaps_and_of_frees_has_its_end() {
    for (number, remove) in removals().into_iter().enumerate() {
        let world = World::on(Hooked::default());
        let vmo = all(&world, 40);
        remove(&world, vmo);
        assert!(!world.platform.open_runs().unmaps, "removal {number}");
        assert_eq!(at_rest(&world), Runs::default(), "after the grace period, removal {number}");
    }
}

#[test]
fn every_run_of_frees_of_an_anonymous_vmo_has_its_end() {
    let world = World::on(Hooked::default());
    let aux = world.aux(40);
    aux.commit(pages(0, 40)).unwrap();
    aux.decommit(pages(0, 20)).unwrap();
    assert_eq!(at_rest(&world), Runs::default());
    assert_eq!(world.platform.frames(), PageCount(20));
    drop(aux);
    assert_eq!(world.platform.open_runs(), Runs::default());
    assert_eq!(world.platform.frames(), PageCount(0));
}

#[test]
fn a_frame_that_is_given_up_is_a_run_of_its_own() {
    let world = World::on(Hooked::default());
    drop(world.frame());
    assert_eq!((world.platform.open_runs(), world.platform.frames()), (Runs::default(), PageCount(0)));
}

/// So many frames go to the epoch at a time: the last page of them is the one in question.
const BATCH: u64 = 30;

#[test]
fn no_frame_goes_before_the_end_of_the_run_that_unmaps_its_page() {
    let world = World::on(Hooked::default());
    let vmo = world.vmo(BATCH);
    world.supply(&vmo, 0, BATCH).unwrap();
    let platform = Arc::downgrade(&world.platform);
    world.platform.at_each_unmapped(move || {
        let platform = platform.upgrade().expect("it tells us");
        platform.turn_epoch();
        assert_eq!(platform.frames(), PageCount(BATCH), "its frame is there yet, and that of each other page");
    });
    now(vmo.zero(pages(0, BATCH))).unwrap();
    world.platform.at_each_unmapped(|| ());
    world.platform.turn_epoch();
    assert_eq!(world.platform.frames(), PageCount(0));
}
