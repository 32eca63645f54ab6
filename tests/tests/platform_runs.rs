//! What the platform is told after a run of pages: that it may finish what it has left over.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use upager::{Access, Evict, PAGE_SIZE, PageCount, PageIndex, Platform, Vmo, VmoOptions};
use upager_tests::{Hooked, Runs, Task, World, at, now, pages};

fn all(world: &World<Hooked>, pages: u64) -> Vmo<Hooked> {
    let vmo = world.vmo_with(VmoOptions::RESIZABLE, pages);
    world.make_dirty(&vmo, 0, pages / 2, 1);
    world.supply(&vmo, pages / 2, pages - pages / 2).unwrap();
    vmo
}

/// Turns the epoch until it is so, for some seconds at most. What was deferred may run in the thread of another test, since
/// all share one epoch, and that may be in the middle of it, or keep it from running for a while.
fn comes_to(world: &World<Hooked>, is_so: impl Fn() -> bool) -> bool {
    (0..20_000).any(|turn| {
        if turn > 0 {
            thread::sleep(Duration::from_millis(1));
        }
        world.platform.turn_epoch();
        is_so()
    })
}

/// The runs that are open once what was deferred has run.
fn at_rest(world: &World<Hooked>) -> Runs {
    comes_to(world, || world.platform.open_runs() == Runs::default());
    world.platform.open_runs()
}

/// Waits until so many frames are left, and checks that no run is open then.
fn frames_become(world: &World<Hooked>, frames: u64) {
    assert!(comes_to(world, || world.platform.frames() == PageCount(frames)), "{:?}", world.platform.frames());
    assert_eq!(at_rest(world), Runs::default());
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
    frames_become(&world, 20);
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
    frames_become(&world, 0);
}

#[test]
fn a_page_that_a_writer_waits_for_goes_in_a_run_that_has_its_end() {
    let world = World::on(Hooked::default());
    let vmo = world.trapping(1);
    let writer = Task::pending(vmo.fault(PageIndex(0), Access::Write));
    assert_eq!(vmo.evict(PageCount(1), Evict::Any), PageCount(1));
    assert!(!world.platform.open_runs().unmaps);
    assert_eq!(writer.wakes(), 1);
}

/// So many pages, and so many runs of them, wait for one grace period: the last of them is the one in question.
#[test]
fn a_batch_that_is_full_leaves_no_run_of_unmaps_open() {
    for (size, every) in [(128, 1), (60, 2)] {
        let world = World::on(Hooked::default());
        let vmo = world.vmo(size);
        for page in (0..size).step_by(every) {
            world.supply(&vmo, page, 1).unwrap();
        }
        let there = vmo.counts().resident;
        assert_eq!(vmo.evict(PageCount(size), Evict::Any), there);
        assert_eq!(world.platform.unmapped().len() as u64, there.0);
        assert!(!world.platform.open_runs().unmaps, "{there:?}");
        frames_become(&world, 0);
    }
}

#[test]
fn pages_apart_and_pages_in_a_row_go_as_many_as_there_are() {
    for (size, every) in [(80, 2), (300, 1)] {
        let world = World::on(Hooked::default());
        let vmo = world.vmo(size);
        for page in (0..size).step_by(every) {
            world.supply(&vmo, page, 1).unwrap();
        }
        vmo.evict(PageCount(size), Evict::Any);
        frames_become(&world, 0);
    }
}

/// Who takes pages away is pinned for so many of them at most.
const AT_ONCE: usize = 129;

/// Pages that are there after they were evicted: that a reclaim is on its way for each already ends no run before its time.
#[test]
fn who_takes_many_pages_away_does_not_stay_pinned() {
    const PAGES: u64 = 300;
    let removals: [Removal; 3] = [
        |_, vmo| assert_eq!(vmo.evict(PageCount(PAGES), Evict::Any), PageCount(PAGES)),
        |world, vmo| assert_eq!(world.pager.detach_vmo(&vmo).unwrap().dropped_pages, PageCount(PAGES)),
        |_, vmo| {
            for page in 0..PAGES {
                now(vmo.write(at(page, 0), &[7])).unwrap();
            }
            drop(vmo);
        },
    ];
    for (number, remove) in removals.into_iter().enumerate() {
        let world = World::on(Hooked::default());
        let vmo = world.vmo(PAGES);
        world.supply(&vmo, 0, PAGES).unwrap();
        let guard = world.platform.pin();
        assert_eq!(vmo.evict(PageCount(PAGES), Evict::Any), PageCount(PAGES));
        for page in 0..PAGES {
            now(vmo.read(at(page, 0), &mut [0])).unwrap();
        }
        assert_eq!(world.platform.unmapped().len() as u64, PAGES);
        let longest = Arc::new(AtomicUsize::new(0));
        let (platform, run) = (Arc::downgrade(&world.platform), longest.clone());
        world.platform.at_each_unmapped(move || {
            run.fetch_max(platform.upgrade().expect("it tells us").unmapped().len(), Ordering::Relaxed);
        });
        remove(&world, vmo);
        let longest = longest.load(Ordering::Relaxed);
        assert!((1..=AT_ONCE).contains(&longest), "removal {number}: {longest}");
        drop(guard);
        world.platform.at_each_unmapped(|| ());
        frames_become(&world, 0);
    }
}
