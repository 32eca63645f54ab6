//! Pages that one thread takes back one after the other, ended by one system call a run.
//!
//! The pager names pages one by one, and says when a run of calls is over ([`unmapped`](upager::Platform::unmapped),
//! [`freed`](upager::Platform::freed)). Until then a thread keeps the pages that follow one another: those that are to leave every mapping,
//! and those whose memory is to go. The kernel takes a run of 128 for little more than one page.
//!
//! When a thread ends, what it keeps such runs in may be gone already, and frames are freed still: then each page is a run.

use std::cell::RefCell;
use std::sync::Arc;
use std::thread::LocalKey;

use upager::{PageCount, PageIndex, VmoId};

use crate::frames::Frames;
use crate::platform::LinuxPlatform;
use crate::space::Space;

/// Pages of a space that follow one another.
struct Run<T> {
    of: T,
    space: Arc<Space>,
    first: PageIndex,
    count: PageCount,
}

/// What a thread keeps.
type Kept<T> = RefCell<Option<Run<T>>>;

thread_local! {
    /// By what the pager names their space: to look it up for each page would cost more than the rest.
    static UNMAPPING: Kept<(*const LinuxPlatform, VmoId)> = const { RefCell::new(None) };
    static EMPTYING: Kept<Arc<Frames>> = const { RefCell::new(None) };
}

/// Adds a page to the thread's run, if that is the `same` and the page follows it; if not, it `begins` another. Returns the run that is
/// to be ended now. Not under the borrow: what goes with it may end a VMO, which comes here again.
fn add<T>(
    kept: &'static LocalKey<Kept<T>>,
    page: PageIndex,
    same: impl Fn(&Run<T>) -> bool,
    begin: impl Fn() -> Option<Run<T>>,
) -> Option<Run<T>> {
    let added = kept.try_with(|kept| {
        let mut kept = kept.borrow_mut();
        match &mut *kept {
            Some(run) if run.first.0 + run.count.0 == page.0 && same(run) => {
                run.count.0 += 1;
                None
            }
            kept => std::mem::replace(kept, begin()),
        }
    });
    added.unwrap_or_else(|_| begin())
}

fn take<T>(kept: &'static LocalKey<Kept<T>>) -> Option<Run<T>> {
    kept.try_with(RefCell::take).ok().flatten()
}

impl Run<(*const LinuxPlatform, VmoId)> {
    fn end(self) {
        self.space.unmap(self.first, self.count);
    }
}

impl Run<Arc<Frames>> {
    fn end(self) {
        self.space.end_vacating(self.first, self.count);
        self.of.gone(self.count);
    }
}

/// Takes a page out of every mapping, at the latest with [`unmapped`].
pub(crate) fn unmap(platform: &LinuxPlatform, vmo: VmoId, page: PageIndex) {
    let of = (std::ptr::from_ref(platform), vmo);
    let begin = || Some(Run { of, space: platform.find(vmo)?, first: page, count: PageCount(1) });
    if let Some(run) = add(&UNMAPPING, page, |run| run.of == of, begin) {
        run.end();
    }
}

/// Ends what the thread has begun to unmap.
pub(crate) fn unmapped() {
    if let Some(run) = take(&UNMAPPING) {
        run.end();
    }
}

/// Gives the memory of a place back that the caller has [begun to vacate](Space::begin_vacating), at the latest with [`emptied`].
pub(crate) fn empty(frames: &Arc<Frames>, space: &Arc<Space>, page: PageIndex) {
    let same = |run: &Run<Arc<Frames>>| Arc::ptr_eq(&run.of, frames) && Arc::ptr_eq(&run.space, space);
    let begin = || Some(Run { of: frames.clone(), space: space.clone(), first: page, count: PageCount(1) });
    if let Some(run) = add(&EMPTYING, page, same, begin) {
        run.end();
    }
}

/// Ends what the thread has begun to give back.
pub(crate) fn emptied() {
    if let Some(run) = take(&EMPTYING) {
        run.end();
    }
}
