//! Mappings, pagers and mappers that end while threads are stopped in them.

#![cfg(target_arch = "x86_64")] // where there are guards
#![allow(clippy::cast_possible_truncation)] // 64 bits

mod world;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use upager::{PageCount, VmoOptions};
use upager_linux::{Mapper, MapperOptions, Mapping};
use world::{Reads, World, come_home, load, mapper, mapper_with, pages, pattern, store, try_load, try_store, until};

#[test]
fn threads_that_are_stopped_in_a_mapping_come_home_when_it_is_closed() {
    const THREADS: u64 = 64;
    let Some(mapper) = mapper() else { return };
    let world = World::new(THREADS);
    *world.store.reads.lock().unwrap() = Reads::Ignore;
    let (closing, staying) = (Arc::new(world.map(&mapper)), world.map(&mapper));
    let threads: Vec<_> = (0..THREADS)
        .map(|page| {
            let mapping = closing.clone();
            std::thread::spawn(move || try_load(&mapping, page, 0))
        })
        .collect();
    until("all are stopped", || mapper.counts().faults >= THREADS);
    closing.close();
    assert!(come_home(threads).iter().all(Option::is_none));
    assert_eq!(try_load(&closing, 0, 0), None);
    assert!(!try_store(&closing, 0, 0, 1));
    closing.close();
    until("nobody waits any more", || world.vmo.counts().in_flight == 0);
    *world.store.reads.lock().unwrap() = Reads::Supply;
    assert_eq!(load(&staying, 5, 0), pattern(5), "the other mapping goes on");
}

#[test]
fn mappings_come_and_go_under_load() {
    let Some(mapper) = mapper_with(MapperOptions::default().loops(2)) else { return };
    let world = Arc::new(World::with(64, VmoOptions::NONE, 2));
    *world.store.reads.lock().unwrap() = Reads::Late(Duration::from_micros(200));
    let stop = Arc::new(AtomicBool::new(false));
    let mut threads = Vec::new();
    for n in 0..4_u64 {
        let (world, mapper, stop) = (world.clone(), mapper.clone(), stop.clone());
        threads.push(std::thread::spawn(move || {
            let mut rounds = 0;
            while !stop.load(SeqCst) {
                let mapping = Arc::new(world.map(&mapper));
                let user = {
                    let mapping = mapping.clone();
                    std::thread::spawn(move || {
                        let mut page = n * 13;
                        loop {
                            page = (page * 5 + 7) % 64;
                            match try_load(&mapping, page, 0) {
                                Some(loaded) => assert_eq!(loaded, pattern(page)),
                                None => return,
                            }
                            if !try_store(&mapping, page, 1 + n as usize, page) {
                                return;
                            }
                        }
                    })
                };
                std::thread::sleep(Duration::from_micros(300 + n * 200));
                mapping.close();
                come_home(vec![user]);
                rounds += 1;
            }
            rounds
        }));
    }
    for _ in 0..200 {
        world.write_back();
        world::evict_all(&world);
        world.settle();
        std::thread::sleep(Duration::from_millis(5));
    }
    stop.store(true, SeqCst);
    let rounds: u64 = come_home(threads).iter().sum();
    println!("{rounds} mappings, {:?}", mapper.counts());
    assert!(rounds > 20);
}

#[test]
fn everything_may_be_dropped_while_threads_are_stopped() {
    for round in 0..20 {
        let Some(mapper) = mapper() else { return };
        let world = World::new(32);
        *world.store.reads.lock().unwrap() = if round % 2 == 0 { Reads::Ignore } else { Reads::Supply };
        let mappings: Vec<Arc<Mapping>> = (0..3).map(|_| Arc::new(world.map(&mapper))).collect();
        let threads: Vec<_> = (0..24_u64)
            .map(|n| {
                let mapping = mappings[n as usize % 3].clone();
                std::thread::spawn(move || {
                    let loaded = try_load(&mapping, n, 0);
                    assert!(loaded.is_none() || loaded == Some(pattern(n)), "{loaded:?}");
                })
            })
            .collect();
        std::thread::sleep(Duration::from_micros(round * 150));
        let platform = world.platform.clone();
        let closing = mappings.clone();
        let closer = std::thread::spawn(move || closing.iter().for_each(|mapping| mapping.close()));
        world.end();
        drop(mapper);
        come_home(threads);
        come_home(vec![closer]);
        drop(mappings);
        until("every frame comes back", || {
            use upager::Platform;
            platform.pin().flush();
            platform.counts().frames == PageCount(0)
        });
    }
}

#[test]
fn a_mapper_without_mappings_ends() {
    for loops in 1..4 {
        let Some(mapper) = mapper_with(MapperOptions::default().loops(loops)) else { return };
        let world = World::new(2);
        let mapping = world.map(&mapper);
        store(&mapping, 0, 0, 1);
        drop(mapping);
        drop(mapper);
    }
}

/// Children do not have the mappings: what is not there would be zeros to them.
#[test]
fn a_child_has_no_mapping() {
    let Some(mapper) = mapper() else { return };
    let world = World::new(2);
    let mapping = world.map(&mapper);
    load(&mapping, 0, 0);
    let at = world::word_at(&mapping, 0, 0);
    // SAFETY: the child does nothing but touch the address, and end by the signal that comes of it.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: it is not the child's, which is the point: SIGSEGV, by its default, ends it.
        unsafe {
            libc::signal(libc::SIGSEGV, libc::SIG_DFL);
            at.read_volatile();
            libc::_exit(0);
        }
    }
    let mut status = 0;
    // SAFETY: a child of ours, and a place for its status.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSEGV, "{status:#x}");
}

/// A system call may be given memory that is not there, where the process may have that served.
#[test]
fn a_system_call_waits_for_a_page_or_says_that_it_may_not() {
    let Some(mapper) = mapper() else { return };
    let world = World::new(4);
    let part = mapper.map(&world.vmo, pages(1, 2), upager_linux::Protection::ReadWrite).unwrap();
    let mut ends = [0; 2];
    // SAFETY: a place for two descriptors.
    assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
    // SAFETY: eight bytes of the mapping, which lives.
    let written = unsafe { libc::write(ends[1], part.as_ptr().cast(), 8) };
    match mapper.privilege() {
        upager_linux::Privilege::Full => assert_eq!(written, 8),
        upager_linux::Privilege::UserModeOnly => {
            assert_eq!((written, std::io::Error::last_os_error().raw_os_error()), (-1, Some(libc::EFAULT)));
        }
    }
    assert_eq!(load(&part, 0, 0), pattern(1));
    // SAFETY: descriptors of ours.
    unsafe { (libc::close(ends[0]), libc::close(ends[1])) };
    let _: Mapper = mapper;
}
