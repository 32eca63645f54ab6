//! Decommit of a page of an anonymous VMO, which others read and write.
//!
//! Threads: one decommits the page; the other reads it, writes to it, or decommits it too. Or two commit it, by writing.
//!
//! Danger: the frame is freed under a reader or a writer, or twice. A writer's byte lands in a freed frame,
//! and he is told that it is written. A page that two commit has two frames, or is counted twice.
//!
//! Must hold: a reader gets the byte or zero. A writer's byte is there, or went with the page, in one piece.
#![cfg(loom)]

use upager::Status;
use upager_verify::race::{Depth, explore};
use upager_verify::world::World;

#[test]
fn decommit_against_read() {
    explore("decommit against read", Depth::Whole, |world: World| {
        let aux = world.aux(1);
        aux.write(0, 1).expect("memory");
        let reader = world.spawn({
            let aux = aux.clone();
            move |_| aux.read(0)
        });
        aux.decommit(0).expect("nobody holds it");
        world.turn_epoch();
        world.use_a_frame();
        let read = reader.join().expect("the reader ends");
        assert!(matches!(read, 0 | 1), "{read}");
        assert_eq!((aux.read(0), aux.committed()), (0, 0));
        drop(aux);
        world.end_of_the_world();
    });
}

#[test]
fn decommit_against_write() {
    explore("decommit against write", Depth::Whole, |world: World| {
        let aux = world.aux(1);
        aux.write(0, 1).expect("memory");
        let writer = world.spawn({
            let aux = aux.clone();
            move |_| aux.write(0, 2)
        });
        let decommitted = aux.decommit(0);
        writer.join().expect("the writer ends").expect("memory");
        match decommitted {
            Ok(()) => assert!(matches!((aux.read(0), aux.committed()), (0, 0) | (2, 1))),
            Err(status) => assert_eq!((status, aux.read(0)), (Status::BadState, 2), "it was being written"),
        }
        drop(aux);
        world.end_of_the_world();
    });
}

#[test]
fn decommit_against_decommit() {
    explore("decommit against decommit", Depth::Whole, |world: World| {
        let aux = world.aux(1);
        aux.write(0, 1).expect("memory");
        let other = world.spawn({
            let aux = aux.clone();
            move |_| aux.decommit(0)
        });
        aux.decommit(0).expect("nobody holds it");
        other.join().expect("the other ends").expect("nobody holds it");
        assert_eq!((aux.read(0), aux.committed()), (0, 0));
        drop(aux);
        world.end_of_the_world();
    });
}

#[test]
fn commit_against_commit() {
    explore("commit against commit", Depth::Bounded, |world: World| {
        let aux = world.aux(1);
        let other = world.spawn({
            let aux = aux.clone();
            move |_| aux.write(0, 1)
        });
        aux.write(0, 2).expect("memory");
        other.join().expect("the other ends").expect("memory");
        assert!(matches!(aux.read(0), 1 | 2), "one of them was the last");
        assert_eq!(aux.committed(), 1);
        drop(aux);
        world.end_of_the_world();
    });
}
