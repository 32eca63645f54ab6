//! The conductor: detaches, brings everyone home, takes what is left, compares, and reports.

use alloc::boxed::Box;
use core::fmt::Write;
use core::ptr;
use core::sync::atomic::Ordering::{AcqRel, Relaxed, SeqCst};

use upager::{Packet, Platform};

use super::plan::{self, OWNED, VMOS, WORDS};
use super::writeback::{self, Round};
use super::{View, WORLD, World, evictor, ring, service};
use crate::machine::boot;
use crate::machine::console::{Console, Exit, exit};
use crate::machine::cpu::{self, cpu};
use crate::machine::memory::{self, PAGE};
use crate::machine::task::{self, Task};

/// Ticks that anything may take.
const PATIENCE: u64 = 60_000;
/// Ticks that everyone goes on after the last detach.
const AFTERMATH: u64 = 100;

pub(crate) fn run(processors: usize, seed: u64, workers: &[&'static Task], helpers: &[&'static Task]) {
    let world = super::world().expect("made before the tasks");
    let tally = &world.tally;
    let begun = cpu().ticks.load(Relaxed);
    let faults = boot::option("faults").unwrap_or(100_000);
    let evictions = boot::option("evictions").unwrap_or(10_000);
    let evicted = || tally.evicted_by_task.get() + tally.evicted_by_interrupts.get();
    wait_until(|| tally.faults.get() >= faults && evicted() >= evictions);
    for view in &world.views {
        detach(world, view);
        let more = tally.faults.get() + faults / 20;
        wait_until(|| tally.faults.get() >= more || world.views.iter().all(|view| view.detached.is_up()));
    }
    task::sleep(AFTERMATH);

    world.workers_stop.raise();
    come_home(world, workers);
    world.helpers_stop.raise();
    ring(&world.writeback);
    ring(&world.evictor);
    for service in &helpers[..2] {
        // One after the other: a service takes what there is.
        let _ = world.port.queue(&Packet::user(service::STOP, [0; 32]));
        let others = helpers[..2].iter().filter(|other| other.is_home()).count();
        wait_until(|| helpers[..2].iter().filter(|other| other.is_home()).count() > others || service.is_home());
    }
    come_home(world, helpers);
    world.interrupts_evict.store(false, SeqCst);
    task::sleep(10); // an interrupt that has begun ends

    drain(world);
    for view in &world.views {
        writeback::round(view, Round::All);
        tally.dirty_in_the_end.add(writeback::round(view, Round::All));
        compare(view);
    }
    let ticks = cpu().ticks.load(Relaxed) - begun;
    report(processors, seed, ticks);
}

/// Waits, for a while: whoever comes next finds out what was not reached.
fn wait_until(reached: impl Fn() -> bool) {
    let begun = cpu().ticks.load(Relaxed);
    while !reached() && cpu().ticks.load(Relaxed) - begun < PATIENCE {
        task::sleep(1);
    }
}

/// Detaches while a service sits on requests.
fn detach(world: &'static World, view: &View) {
    world.hold.store(view.number as u64 + 1, SeqCst);
    wait_until(|| {
        // More than one: the evictor, when it tells of an access, may have one that nobody waits for.
        let waited_for = view.vmo.counts().in_flight > 1;
        if !waited_for {
            evictor::evict_all(world); // perhaps everything that is looked at is resident
        }
        let is_sure = view.number > 0 || world.answering.load(SeqCst) == 0;
        world.held.load(SeqCst) > 0 && is_sure && waited_for
    });
    view.detaching.raise();
    let detached = world.pager.detach_vmo(&view.vmo);
    view.detached.raise();
    world.hold.store(0, SeqCst);
    let tally = &world.tally;
    match detached {
        Ok(found) => {
            tally.detaches.add(1);
            tally.first_detach_without_requests.add((view.number == 0 && found.failed_requests == 0).into());
            tally.in_flight_at_detach.add(found.failed_requests);
            tally.dropped_at_detach.add(found.dropped_pages.0);
            tally.dirty_at_detach.add(view.vmo.counts().dirty.0);
        }
        Err(_) => tally.unexpected_errors.add(1),
    }
}

fn come_home(world: &World, tasks: &[&'static Task]) {
    wait_until(|| tasks.iter().all(|task| task.is_home()));
    for task in tasks.iter().filter(|task| !task.is_home()) {
        world.tally.hung_tasks.add(1);
        let _ = writeln!(Console, "{} hangs", task.name);
    }
}

fn drain(world: &World) {
    let mut packets = [Packet::default(); 16];
    loop {
        let completed = world.completed();
        match world.port.take(&mut packets) {
            0 => return,
            taken => service::note(world, &packets[..taken], completed),
        }
    }
}

/// Counts the words in which what was written back is not what was written.
fn compare(view: &View) {
    let mut bytes = [0; PAGE];
    for n in 0..OWNED {
        view.copy.read(plan::owned(n), &mut bytes);
        let words = bytes.chunks_exact(8).map(|bytes| u64::from_le_bytes(*bytes.first_chunk().expect("eight")));
        let lost = (0..WORDS).zip(words).filter(|(word, is)| *is != view.shadow.word(view.number, n, *word));
        view.world().tally.lost_words.add(lost.count() as u64);
    }
}

/// Ends the load, sees whether every frame comes back, says what there is to say, and ends the kernel.
fn report(processors: usize, seed: u64, ticks: u64) -> ! {
    let world = WORLD.swap(ptr::null_mut(), AcqRel);
    // SAFETY: `make` leaked it; everyone else is home or hangs for ever, and interrupts leave it alone.
    let World { board, pager, port, views, tally, .. } = *unsafe { Box::from_raw(world) };
    let sums = views.each_ref().map(|view| view.vmo.counts());
    let sum = |of: fn(&upager::VmoCounts) -> u64| sums.iter().map(of).sum::<u64>();
    if tally.hung_tasks.get() == 0 {
        drop((views, pager, port));
    } else {
        core::mem::forget((views, pager, port));
    }
    for _ in 0..64 {
        board.pin().flush();
    }
    let shootdowns = (0..cpu::MOST).filter_map(cpu::find).map(|cpu| cpu.mailbox.asked.load(Relaxed)).sum::<u64>();
    let interrupts = (0..cpu::MOST).filter_map(cpu::find).map(|cpu| cpu.ticks.load(Relaxed)).sum::<u64>();
    let mut holds = true;
    let mut json = Json(true);
    json.put("processors", processors as u64);
    json.put("seed", seed);
    json.put("ticks", ticks);
    json.put("requests", sum(|vmo| vmo.requests));
    json.put("joins", sum(|vmo| vmo.joins));
    json.put("evictions", sum(|vmo| vmo.evictions));
    json.put("rescues", sum(|vmo| vmo.rescues));
    json.put("shootdowns", shootdowns);
    json.put("timer_interrupts", interrupts);
    json.put("allocations_in_faults", memory::allocations_in_faults());
    json.put("frames", board.frames.count());
    let mut must_be_none = false;
    tally.each(|name, figure| {
        must_be_none |= name == "wrong_words";
        holds &= !must_be_none || figure == 0;
        json.put(name, figure);
    });
    let frames_left = board.frames.used();
    holds &= frames_left == 0;
    json.put("frames_left", frames_left);
    holds &= tally.complete_packets.get() == VMOS as u64 && tally.packets_after_complete.get() == 0;
    holds &= tally.detaches.get() == VMOS as u64 && tally.first_detach_without_requests.get() == 0;
    let _ = writeln!(Console, ",\"holds\":{holds}}}");
    exit(if holds { Exit::Success } else { Exit::Failure })
}

/// An object of numbers, written as they come. True: nothing was written yet.
struct Json(bool);

impl Json {
    fn put(&mut self, name: &str, figure: u64) {
        let separator = if core::mem::take(&mut self.0) { '{' } else { ',' };
        let _ = write!(Console, "{separator}\"{name}\":{figure}");
    }
}
