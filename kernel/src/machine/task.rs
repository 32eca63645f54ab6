//! Tasks, each on one processor and on a stack of its own, and the scheduler of a processor.
//!
//! A task runs until it waits or yields. A waiting task *is* its [`Waker`]: waking sets its flag, and
//! sends its processor an interrupt if that sleeps. No task may wait while it is pinned: the handle is
//! its processor's, and frames would wait for it.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::task::Wake;
use alloc::vec::Vec;
use core::cell::{Cell, UnsafeCell};
use core::future::Future;
use core::pin::pin;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use core::sync::atomic::{AtomicBool, AtomicU64};
use core::task::{Context, Poll, Waker};

use once_cell::race::OnceBox;
use x86_64::instructions::interrupts;

use super::cpu::{self, Cpu, cpu};
use super::trap;

const STACK: usize = 64 * 1024;

core::arch::global_asm!(include_str!("trap.s"));

unsafe extern "C" {
    fn switch(save: *mut usize, to: usize);
    fn first_switch();
}

pub(crate) struct Task {
    pub(crate) name: &'static str,
    pub(crate) cpu: usize,
    body: Cell<Option<Box<dyn FnOnce()>>>,
    /// Where its stack stands while it does not run.
    stack: UnsafeCell<usize>,
    waker: OnceBox<Waker>,
    ready: AtomicBool,
    home: AtomicBool,
    /// The tick at which it is woken if nothing else does.
    alarm: AtomicU64,
}

// SAFETY: body and stack are touched on the task's processor only.
unsafe impl Sync for Task {}
// SAFETY: as for Sync; before the task starts there is nobody else.
unsafe impl Send for Task {}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        Task::wake(self);
    }
}

impl Task {
    /// A task that runs `body` when its processor schedules.
    pub(crate) fn new(name: &'static str, cpu: usize, body: impl FnOnce() + Send + 'static) -> &'static Self {
        // Of words of 16 bytes, since its end must be aligned to that.
        let stack = alloc::vec![0u128; STACK / 16].leak();
        let top: *mut usize = stack.as_mut_ptr_range().end.cast();
        let task = Arc::new(Self {
            name,
            cpu,
            body: Cell::new(Some(Box::new(body))),
            stack: UnsafeCell::new(0),
            waker: OnceBox::new(),
            ready: AtomicBool::new(true),
            home: AtomicBool::new(false),
            alarm: AtomicU64::new(u64::MAX),
        });
        // What `switch` pops: r15, r14, r13, r12, rbx, rbp, and where to.
        // SAFETY: within the stack, which is larger, and nobody else has the task yet.
        unsafe {
            top.sub(1).write(first_switch as *const () as usize);
            top.sub(3).write(Arc::as_ptr(&task).expose_provenance());
            *task.stack.get() = top.sub(7).expose_provenance();
        }
        let _ = task.waker.set(Box::new(Waker::from(task.clone())));
        // SAFETY: the task's waker keeps one reference for ever.
        unsafe { &*Arc::as_ptr(&task) }
    }

    pub(crate) fn is_home(&self) -> bool {
        self.home.load(SeqCst)
    }

    /// Has it run.
    pub(crate) fn wake(&self) {
        // SeqCst: pairs with `sleep`: either it sees the flag, or we see it asleep
        self.ready.store(true, SeqCst);
        let Some(its) = cpu::find(self.cpu) else { return };
        if its.asleep.load(SeqCst) && its.index != cpu().index {
            its.interrupt(trap::WAKE);
        }
    }
}

/// The task that calls.
pub(crate) fn current() -> &'static Task {
    cpu().running.get().expect("a task")
}

#[unsafe(no_mangle)]
extern "C" fn task_main(task: &'static Task) -> ! {
    interrupts::enable();
    if let Some(body) = task.body.take() {
        body();
    }
    task.home.store(true, SeqCst);
    loop {
        park();
    }
}

/// Waits until somebody wakes the task.
pub(crate) fn park() {
    let (cpu, task) = (cpu(), current());
    assert!(!cpu.for_tasks.is_pinned(), "{} waits while it is pinned", task.name);
    // SAFETY: the scheduler's stack stands where it switched to this task.
    interrupts::without_interrupts(|| unsafe { switch(task.stack.get(), *cpu.scheduler.get()) });
}

/// Lets others run.
pub(crate) fn yield_now() {
    current().ready.store(true, SeqCst);
    park();
}

/// Waits for this many ticks of the timer, or until somebody wakes the task.
pub(crate) fn sleep(ticks: u64) {
    current().alarm.store(cpu().ticks.load(Relaxed) + ticks, Relaxed); // Relaxed, all: this processor only
    park();
    current().alarm.store(u64::MAX, Relaxed);
}

/// Waits until the future is ready.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = current().waker.get().expect("made with the task");
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(waker)) {
            return output;
        }
        park();
    }
}

/// Runs the processor's tasks for ever.
pub(crate) fn schedule(cpu: &'static Cpu, tasks: &Vec<&'static Task>) -> ! {
    loop {
        let mut idle = true;
        for task in tasks {
            let now = cpu.ticks.load(Relaxed); // Relaxed: this processor's
            if task.ready.swap(false, SeqCst) || task.alarm.load(Relaxed) <= now {
                idle = false;
                cpu.running.set(Some(task));
                // SAFETY: the task's stack stands where it was switched away from, and it runs nowhere else.
                interrupts::without_interrupts(|| unsafe { switch(cpu.scheduler.get(), *task.stack.get()) });
                cpu.running.set(None);
            }
        }
        if idle {
            rest(cpu, tasks);
        }
    }
}

/// Halts until an interrupt comes, unless there is something to do.
fn rest(cpu: &Cpu, tasks: &[&'static Task]) {
    interrupts::disable();
    cpu.asleep.store(true, SeqCst); // SeqCst: pairs with `Task::wake`
    if tasks.iter().any(|task| task.ready.load(SeqCst)) {
        interrupts::enable();
    } else {
        interrupts::enable_and_hlt(); // in one step: the interrupt cannot come in between
    }
    cpu.asleep.store(false, SeqCst);
}
