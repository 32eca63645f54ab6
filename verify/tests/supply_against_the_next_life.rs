//! A supplier who has resolved a request and not woken anybody yet, against the next life of its entry.
//!
//! Threads: one supplies a page; the reader who waits for it looks before he is woken; another one asks for another page.
//!
//! Danger: the entry of the request is given back while the supplier has yet to wake its waiters, and he ends the wait of
//! whoever has it by then: that one is not woken when his own page comes.
//!
//! Must hold: both come home.
#![cfg(loom)]

use loom::thread;
use upager_verify::race::{Depth, explore_pages, leave, settled};
use upager_verify::world::World;

#[test]
fn supply_against_the_next_life() {
    explore_pages("supply against the next life", Depth::Bounded, 2, |world: World| {
        let (mut first, mut other) = (world.read(0), world.read(1));
        assert_eq!((first.poll(), other.poll()), (None, None));
        assert_eq!(world.take_all().len(), 1, "of two pages"); // the queue keeps the entry of the second
        let _: usize = other.leave();
        let looks = thread::spawn(move || {
            let read = first.poll();
            leave();
            (first, read)
        });
        let asks = world.spawn(|world| settled(world.read(1)));
        assert_eq!(world.supply(0, 5), Ok(()));
        let (mut first, read) = looks.join().expect("the reader ends");
        assert_eq!(read.or_else(|| first.poll()), Some(Ok(5)));
        let asked = asks.join().expect("the other reader ends");
        assert_eq!(world.supply(1, 6), Ok(()));
        let asked = asked.again();
        assert_eq!(asked.now(), Some(Ok(6)), "his own page has come");
        drop((first, asked));
        world.end_of_the_world();
    });
}
