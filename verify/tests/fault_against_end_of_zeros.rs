//! A fault against zeros that come and go.
//!
//! Threads: one makes two pages zeros, writes them to the store, and ends the writeback; one reads a page of them; a
//! service takes requests.
//!
//! Danger: the reader has looked before the pages became zeros, and asks after they are gone again: by a swap of the
//! word that they share, which says the same as before. The service that gets his READ finds the store of before.
//!
//! Must hold: who gets a READ that was made after an END sees what was done before that END.
#![cfg(loom)]

use loom::sync::atomic::{AtomicU8, Ordering::Relaxed};
use upager::sync::Arc;
use upager::{ByteRange, PAGE_SIZE, Packet, Writeback};
use upager_verify::race::{Depth, explore_pages, leave};
use upager_verify::world::World;

const ZEROS: ByteRange = ByteRange::new(0, 2 * PAGE_SIZE);

fn asks_for_the_page(packets: &[Packet]) -> bool {
    packets.iter().any(|packet| packet.page_request.offset == 0)
}

#[test]
fn fault_against_end_of_zeros() {
    explore_pages("fault against END of zeros", Depth::Bounded, 4, |world: World| {
        // It is queued, so a service that is no sleeper comes by before the reader has woken one.
        let mut other = world.read(2);
        assert_eq!(other.poll(), None);
        let store = Arc::new(AtomicU8::new(1));
        let (taker, stored) = (world.clone(), store.clone());
        let service = loom::thread::spawn(move || {
            let packets: Vec<Packet> = taker.take();
            let answer = stored.load(Relaxed);
            drop((taker, stored));
            leave();
            asks_for_the_page(&packets).then_some(answer)
        });
        let cleaner = world.spawn(move |world| {
            world.zero(0, 2).expect("memory");
            world.pager.writeback_begin(&world.vmo, ZEROS, Writeback::ZeroRanges).expect("memory");
            store.store(2, Relaxed);
            world.pager.writeback_end(&world.vmo, ZEROS).expect("memory");
        });
        let mut read = world.read(0);
        let came = read.poll();
        cleaner.join().expect("the cleaner ends");
        let answer = service.join().expect("the service ends");
        match came {
            Some(came) => assert_eq!(came, Ok(0), "they were zeros"),
            // What was asked for before has been answered by the zeros, and perhaps asked for anew.
            None if read.wakes() == 1 || asks_for_the_page(&world.take_all()) => {}
            None => assert_ne!(answer, Some(1), "the store of before"),
        }
        drop((read, other));
        world.end_of_the_world();
    });
}
