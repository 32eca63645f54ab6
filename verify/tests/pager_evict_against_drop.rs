//! Eviction over all VMOs of a pager against the end of one of them.
//!
//! Threads: one drops the last handle of a VMO with a page; one evicts through the pager. The page is clean, or
//! dirty.
//!
//! Danger: the evictor finds the VMO in the pager's registry while its pages are discarded, and it is
//! forgotten by the registry. A page is freed twice or not at all; or the evictor walks the table of a VMO
//! that is freed.
//!
//! Must hold: no frame is left and none is freed twice; COMPLETE comes once; who evicts counts no more pages than
//! were clean.
#![cfg(loom)]

use upager::{Evict, PageCount};
use upager_verify::race::{Depth, explore, leave};
use upager_verify::world::{World, take_all};

fn drop_while_the_pager_evicts(world: World, which: Evict, clean: PageCount) {
    let World { platform, pager, port, vmo } = world;
    let evicting = pager.clone();
    let evictor = loom::thread::spawn(move || {
        let evicted = evicting.evict(PageCount(2), which);
        drop(evicting);
        leave();
        evicted
    });
    drop(vmo);
    let evicted = evictor.join().expect("the evictor ends");
    assert!(evicted <= clean, "of {clean:?} clean, {evicted:?} were evicted");
    World::check_complete_is_last_of(&take_all(&port));
    drop((pager, port));
    platform.check_nothing_left();
}

#[test]
fn pager_evict_against_drop() {
    explore("pager evict of any page against drop", Depth::Whole, |world: World| {
        world.supply(0, 5).expect("attached");
        drop_while_the_pager_evicts(world, Evict::Any, PageCount(1));
    });
}

#[test]
fn pager_evict_of_what_is_unused_against_drop() {
    explore("pager evict of what is unused against drop", Depth::Whole, |world: World| {
        world.supply(0, 5).expect("attached");
        drop_while_the_pager_evicts(world, Evict::Unused, PageCount(1));
    });
}

#[test]
fn pager_evict_of_a_dirty_page_against_drop() {
    explore("pager evict of a dirty page against drop", Depth::Whole, |world: World| {
        world.supply(0, 5).expect("attached");
        assert_eq!(world.write(0, 7).poll(), Some(Ok(7)));
        drop_while_the_pager_evicts(world, Evict::Any, PageCount(0));
    });
}
