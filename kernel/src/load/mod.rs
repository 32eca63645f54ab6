//! The load: two VMOs larger than the memory that there is for them, which are detached one after the other
//! while everyone is at work.
//!
//! [`workers`] access the windows, [`service`] supplies, [`writeback`] and [`evictor`] do what they are
//! called; the timer's interrupts evict too. [`conductor`] detaches, brings everyone home, and compares. The
//! checks are those of `upager run`.

mod conductor;
mod evictor;
pub(crate) mod plan;
mod service;
pub(crate) mod stepping;
mod store;
pub(crate) mod tally;
mod workers;
mod writeback;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ptr;
use core::sync::atomic::Ordering::{Acquire, SeqCst};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64};

use once_cell::race::OnceBox;
use upager::{Evict, PAGE_SIZE, PageCount, Pager, Platform, Port, Vmo, VmoOptions};

use crate::board;
use crate::machine::task::Task;
use crate::machine::window::Window;
use crate::machine::{boot, memory};
use plan::{PAGES, VMOS};
use store::{Copy, Shadow};
use tally::Tally;

pub(crate) type Board = board::Board<VMOS>;

/// Frames that there are. The VMOs have more than three times as many pages.
const FRAMES: u32 = 640;
/// Frames in use that the evictor leaves alone.
const WISH: u64 = 512;
/// Pages that writers may make dirty between two rounds of writeback.
const MOST_DIRTY: u64 = 128;

/// A flag that goes up once. SeqCst: it is about before and after in the story of a run.
#[derive(Default)]
pub(crate) struct Flag(AtomicBool);

impl Flag {
    fn raise(&self) {
        self.0.store(true, SeqCst);
    }

    fn is_up(&self) -> bool {
        self.0.load(SeqCst)
    }
}

/// A VMO, and all that has to do with it.
pub(crate) struct View {
    number: usize,
    pub(crate) vmo: Vmo<Board>,
    copy: Copy,
    shadow: Shadow,
    /// A detach is about to come: accesses may fail from here on.
    detaching: Flag,
    /// It has come.
    detached: Flag,
    /// COMPLETE was taken.
    completed: Flag,
}

pub(crate) struct World {
    pub(crate) board: Arc<Board>,
    pager: Pager<Board>,
    port: Port<Board>,
    pub(crate) views: [View; VMOS],
    pub(crate) tally: Tally,
    workers_stop: Flag,
    helpers_stop: Flag,
    interrupts_evict: AtomicBool,
    /// The VMO of which no request is answered, by its number from 1 on; 0: none.
    hold: AtomicU64,
    /// Services that are sitting on a request.
    held: AtomicU64,
    /// Services that are answering one.
    answering: AtomicU64,
    /// Stores begun, and how many of them had begun when the last finished round of writeback did.
    stores_begun: AtomicU64,
    stores_written_back: AtomicU64,
    evictor: OnceBox<&'static Task>,
    writeback: OnceBox<&'static Task>,
}

static WORLD: AtomicPtr<World> = AtomicPtr::new(ptr::null_mut());

/// The load, from when it begins until the conductor ends it.
pub(crate) fn world() -> Option<&'static World> {
    // SAFETY: `make` leaked it, and the conductor takes it when all others are home, and interrupts have been
    // told. Acquire: it is made before it is found.
    unsafe { WORLD.load(Acquire).as_ref() }
}

impl World {
    /// Whose COMPLETE was taken before.
    fn completed(&self) -> [bool; VMOS] {
        self.views.each_ref().map(|view| view.completed.is_up())
    }
}

impl View {
    pub(crate) fn window(&self) -> &'static Window {
        &self.world().board.windows[self.number]
    }

    #[allow(clippy::unused_self)] // there is no view without its world
    pub(crate) fn world(&self) -> &'static World {
        world().expect("the world of a view")
    }
}

fn seed() -> u64 {
    boot::option("seed").unwrap_or(1)
}

fn ring(task: &OnceBox<&'static Task>) {
    if let Some(task) = task.get() {
        task.wake();
    }
}

/// Makes the load, and its tasks for each of the processors.
pub(crate) fn make(processors: usize) -> Vec<Vec<&'static Task>> {
    let board = Board::new(FRAMES, PAGES as usize);
    let (pager, port) = (Pager::new(board.clone()), Port::new(board.clone()));
    let views = core::array::from_fn(|number| View {
        number,
        vmo: pager.create_vmo(&port, number as u64, VmoOptions::NONE, PAGES * PAGE_SIZE).expect("a VMO"),
        copy: Copy::new(number, memory::pages(PAGES as usize)),
        shadow: Shadow::new(),
        detaching: Flag::default(),
        detached: Flag::default(),
        completed: Flag::default(),
    });
    board.open(views.each_ref().map(|view| &view.vmo));
    let world = Box::leak(Box::new(World {
        board,
        pager,
        port,
        views,
        tally: Tally::default(),
        workers_stop: Flag::default(),
        helpers_stop: Flag::default(),
        interrupts_evict: AtomicBool::new(true),
        hold: AtomicU64::new(0),
        held: AtomicU64::new(0),
        answering: AtomicU64::new(0),
        stores_begun: AtomicU64::new(0),
        stores_written_back: AtomicU64::new(0),
        evictor: OnceBox::new(),
        writeback: OnceBox::new(),
    }));
    WORLD.store(world, SeqCst);
    tasks(world, processors, seed())
}

fn tasks(world: &'static World, processors: usize, seed: u64) -> Vec<Vec<&'static Task>> {
    let mut tasks: Vec<Vec<&'static Task>> = (0..processors).map(|_| Vec::new()).collect();
    let mut helpers = Vec::new();
    let mut workers = Vec::new();
    let last = processors - 1;
    helpers.push(Task::new("service 0", 0, move || service::run(world, service::Role::Holds)));
    helpers.push(Task::new("service 1", last, move || service::run(world, service::Role::GoesOn)));
    helpers.push(Task::new("writeback", 0, move || writeback::run(world)));
    helpers.push(Task::new("evictor", last, move || evictor::run(world)));
    let _ = world.writeback.set(Box::new(helpers[2]));
    let _ = world.evictor.set(Box::new(helpers[3]));
    for n in 0..processors * workers::EACH {
        let all = (processors * workers::EACH) as u64;
        workers.push(Task::new("worker", n % processors, move || workers::run(world, n as u64, all, seed)));
    }
    for task in helpers.iter().chain(&workers) {
        tasks[task.cpu].push(task);
    }
    tasks[0].push(Task::new("conductor", 0, move || conductor::run(processors, seed, &workers, &helpers)));
    tasks
}

/// Before the tasks begin: tries interrupts in the middle of the pager.
pub(crate) fn try_interrupts() {
    let world = world().expect("made before");
    world.interrupts_evict.store(false, SeqCst);
    stepping::run(world, seed());
    world.interrupts_evict.store(true, SeqCst);
}

/// What the timer's interrupt does, wherever it strikes: also in the middle of the pager.
pub(crate) fn on_tick() {
    let Some(world) = world().filter(|world| world.interrupts_evict.load(SeqCst)) else { return };
    if world.board.frames.used() > WISH {
        let evicted = world.pager.evict(PageCount(2), Evict::Unused);
        world.tally.evicted_by_interrupts.add(evicted.0);
    }
    world.board.pin().flush();
}
