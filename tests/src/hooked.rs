//! A platform that lets a test act in the middle of a copy, and that notes what it is told.

use std::fmt;
use std::sync::Mutex;

use upager::{Frame, Guard, HeapPlatform, PageCount, PageIndex, Platform, Result, VmoId};

type Hook = Box<dyn FnOnce() + Send>;

/// The heap, watched. `allocate`, `copy_in`, `copy_out` and `unmap` call a hook once, before they act.
#[derive(Default)]
pub struct Hooked {
    heap: HeapPlatform,
    before_allocate: Mutex<Option<Hook>>,
    before_copy_in: Mutex<Option<Hook>>,
    before_copy_out: Mutex<Option<Hook>>,
    before_unmap: Mutex<Option<Hook>>,
    at_each_unmapped: Mutex<Option<Box<dyn FnMut() + Send>>>,
    unmapped: Mutex<Vec<(VmoId, PageIndex)>>,
    write_protected: Mutex<Vec<(VmoId, PageIndex)>>,
    protected_runs: Mutex<Vec<(PageIndex, PageCount)>>,
    runs: Mutex<Runs>,
}

/// Runs of calls that the last step of is still to come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Runs {
    pub unmaps: bool,
    pub frees: bool,
}

impl fmt::Debug for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooked").field("heap", &self.heap).finish_non_exhaustive()
    }
}

fn call(hook: &Mutex<Option<Hook>>) {
    let hook = hook.lock().expect("no test panics here").take();
    if let Some(hook) = hook {
        hook();
    }
}

fn taken<T>(list: &Mutex<Vec<T>>) -> Vec<T> {
    std::mem::take(&mut *list.lock().expect("no test panics here"))
}

impl Hooked {
    /// Has the next allocation of a frame call `hook` first.
    pub fn before_allocate(&self, hook: impl FnOnce() + Send + 'static) {
        *self.before_allocate.lock().expect("no test panics here") = Some(Box::new(hook));
    }

    /// Has the next copy into a frame call `hook` first.
    pub fn before_copy_in(&self, hook: impl FnOnce() + Send + 'static) {
        *self.before_copy_in.lock().expect("no test panics here") = Some(Box::new(hook));
    }

    /// Has the next copy out of a frame call `hook` first.
    pub fn before_copy_out(&self, hook: impl FnOnce() + Send + 'static) {
        *self.before_copy_out.lock().expect("no test panics here") = Some(Box::new(hook));
    }

    /// Has the next removal of a page from the mappings call `hook` first.
    pub fn before_unmap(&self, hook: impl FnOnce() + Send + 'static) {
        *self.before_unmap.lock().expect("no test panics here") = Some(Box::new(hook));
    }

    /// Has each end of a run of such removals call `hook` first.
    pub fn at_each_unmapped(&self, hook: impl FnMut() + Send + 'static) {
        *self.at_each_unmapped.lock().expect("no test panics here") = Some(Box::new(hook));
    }

    /// What was unmapped since the last call.
    pub fn unmapped(&self) -> Vec<(VmoId, PageIndex)> {
        taken(&self.unmapped)
    }

    /// What was write-protected since the last call.
    pub fn write_protected(&self) -> Vec<(VmoId, PageIndex)> {
        taken(&self.write_protected)
    }

    /// The runs of pages that were write-protected in one call since this was asked last.
    pub fn protected_runs(&self) -> Vec<(PageIndex, PageCount)> {
        taken(&self.protected_runs)
    }

    /// The runs of `unmap` and of `free` that have no end yet.
    pub fn open_runs(&self) -> Runs {
        *self.runs.lock().expect("no test panics here")
    }

    fn change_runs(&self, change: impl FnOnce(&mut Runs)) {
        change(&mut self.runs.lock().expect("no test panics here"));
    }

    /// Frees what no guard keeps.
    pub fn turn_epoch(&self) {
        for _ in 0..8 {
            self.pin().flush();
        }
    }

    /// How many frames are allocated now.
    pub fn frames(&self) -> PageCount {
        self.heap.frames()
    }
}

impl Platform for Hooked {
    fn pin(&self) -> Guard {
        self.heap.pin()
    }

    fn allocate(&self) -> Result<Frame> {
        call(&self.before_allocate);
        self.heap.allocate()
    }

    unsafe fn free(&self, frame: Frame) {
        self.change_runs(|runs| runs.frees = true);
        // SAFETY: the caller's promise is the heap's, which allocated the frame.
        unsafe { self.heap.free(frame) };
    }

    fn freed(&self) {
        self.change_runs(|runs| runs.frees = false);
    }

    unsafe fn copy_out(&self, frame: Frame, offset: usize, to: &mut [u8]) {
        call(&self.before_copy_out);
        // SAFETY: the caller's promise is the heap's.
        unsafe { self.heap.copy_out(frame, offset, to) };
    }

    unsafe fn copy_in(&self, frame: Frame, offset: usize, from: &[u8]) {
        call(&self.before_copy_in);
        // SAFETY: the caller's promise is the heap's.
        unsafe { self.heap.copy_in(frame, offset, from) };
    }

    fn unmap(&self, vmo: VmoId, page: PageIndex) {
        call(&self.before_unmap);
        self.unmapped.lock().expect("no test panics here").push((vmo, page));
        self.change_runs(|runs| runs.unmaps = true);
    }

    fn unmapped(&self) {
        if let Some(hook) = &mut *self.at_each_unmapped.lock().expect("no test panics here") {
            hook();
        }
        self.change_runs(|runs| runs.unmaps = false);
    }

    fn write_protect(&self, vmo: VmoId, page: PageIndex) {
        self.write_protected.lock().expect("no test panics here").push((vmo, page));
    }

    fn write_protect_run(&self, vmo: VmoId, first: PageIndex, count: PageCount) {
        self.protected_runs.lock().expect("no test panics here").push((first, count));
        (first.0..first.0 + count.0).for_each(|page| self.write_protect(vmo, PageIndex(page)));
    }
}
