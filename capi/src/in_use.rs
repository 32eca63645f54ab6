//! What every thread is using at the moment, so that an object outlives the calls on it.
//!
//! A call may run while another thread closes the last handle to its object. What a closed object does
//! is seen by others: a pager fails the requests in flight, a VMO says COMPLETE to its service. So it must
//! happen as soon as nobody uses the object any more: by the closing thread, or by the call that is the last
//! to leave. And a call must not count itself in a word that others write to, or the lookup of handles would
//! not scale. A grace period of epochs gives the second but not the first: it ends when every thread has gone on,
//! whatever it is doing, and somebody looks.
//!
//! So every thread has a *record*, on a line of its own, of the objects that its call is about:
//!
//! ```text
//!   call:   objects, state := in call (swap), is the handle still good? ... use ... state := idle (swap)
//!   close:  the handle is gone, no handle is left, fence, for each record in a call on the object: state |= owed
//! ```
//!
//! Either the call finds the handle gone, or the close finds the record. In that case it marks the record:
//! the call then *owes* the object, and finds the mark as it leaves. An object counts those who owe it, the closer
//! included; whoever brings the count to zero drops it. Nobody waits for anybody.
//!
//! A record is marked by a compare-and-swap of its state, which has the number of the call, so the mark never lands
//! in a later call. Records are made as threads need them, are never freed while the table lives, and are used
//! again when their thread has ended.

use core::ptr;

use crate::sync::{
    AcqRel, Acquire, AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Relaxed, Release, SeqCst, after_seq_cst_rmw, fence,
};

/// The most handles that one call has.
pub(crate) const MOST: usize = 3;

const OWED: u64 = (1 << MOST) - 1;
const IN_CALL: u64 = 1 << MOST;
/// One call more, idle.
const NEXT: u64 = IN_CALL << 1;

/// An object, with those who hold it.
pub(crate) struct Node<T> {
    /// Handles to it. From zero on nobody finds it any more.
    handles: AtomicUsize,
    /// Once there are no handles: the closer, and the calls that owe it.
    owed: AtomicUsize,
    pub(crate) value: T,
}

impl<T> Node<T> {
    /// With one handle, which the caller gives it.
    pub(crate) fn new(value: T) -> Self {
        Self { handles: AtomicUsize::new(1), owed: AtomicUsize::new(1), value }
    }

    /// One handle more. False: there is none any more, and there will be none.
    pub(crate) fn add_handle(&self) -> bool {
        let mut handles = self.handles.load(Relaxed); // Relaxed: the swap below decides
        while handles > 0 {
            // Relaxed: the count orders nothing while it grows; the caller has found the object already
            match self.handles.compare_exchange_weak(handles, handles + 1, Relaxed, Relaxed) {
                Ok(_) => return true,
                Err(now) => handles = now,
            }
        }
        false
    }

    /// # Safety
    /// The caller owes the object, or is its closer, and says so once. It does not use `node` after.
    unsafe fn let_go(node: *mut Self) {
        // SAFETY: what is owed is not freed.
        let owed = unsafe { &(*node).owed };
        // AcqRel: whatever any of those who owed it did with the object comes before its drop
        if owed.fetch_sub(1, AcqRel) == 1 {
            // SAFETY: made by `Box::into_raw`. No handle is left, so nobody finds it; every call that
            // had found it was marked, has left and has let go.
            drop(unsafe { Box::from_raw(node) });
        }
    }
}

/// What one thread is using.
#[repr(align(128))]
pub(crate) struct Record<T> {
    /// The number of the call, whether it runs, and a mark for each object that it owes.
    state: AtomicU64,
    objects: [AtomicPtr<Node<T>>; MOST],
    /// Whether a thread has it.
    taken: AtomicBool,
    next: *mut Record<T>,
}

/// All records.
pub(crate) struct Records<T> {
    first: AtomicPtr<Record<T>>,
}

impl<T> Records<T> {
    pub(crate) fn new() -> Self {
        Self { first: AtomicPtr::new(ptr::null_mut()) }
    }

    fn iter(&self) -> impl Iterator<Item = &Record<T>> {
        // SeqCst: in the story at the head, a record that this does not see has a call that finds the handle gone
        let mut at = self.first.load(SeqCst);
        core::iter::from_fn(move || {
            // SAFETY: records are published whole, and freed only with all of them.
            let record = unsafe { at.as_ref() }?;
            at = record.next;
            Some(record)
        })
    }

    /// A record for the calling thread, until it is [released](Record::release).
    pub(crate) fn take(&self) -> &Record<T> {
        // Acquire: the thread that had it has done with it
        let free = |record: &&Record<T>| record.taken.compare_exchange(false, true, Acquire, Relaxed).is_ok();
        if let Some(record) = self.iter().find(free) {
            return record;
        }
        let fresh = Box::into_raw(Box::new(Record {
            state: AtomicU64::new(0),
            objects: core::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
            taken: AtomicBool::new(true),
            next: ptr::null_mut(),
        }));
        let mut first = self.first.load(Acquire); // Acquire: the record behind ours is followed by who follows ours
        loop {
            // SAFETY: nobody else has it yet.
            unsafe { (*fresh).next = first };
            // SeqCst: see `iter`
            match self.first.compare_exchange(first, fresh, SeqCst, Acquire) {
                // SAFETY: it lives as long as all of them.
                Ok(_) => return unsafe { &*fresh },
                Err(now) => first = now,
            }
        }
    }

    /// A handle to the object is gone. If it was the last, the object is dropped, now or by the last call on it.
    ///
    /// # Safety
    /// The handle is the caller's to take, from a [`Node::new`] or a [`Node::add_handle`], and nobody finds the
    /// object by it any more.
    pub(crate) unsafe fn remove_handle(&self, node: *mut Node<T>) {
        // SAFETY: the caller's handle holds it.
        let object = unsafe { &*node };
        // AcqRel: the other handles were gone before, and their slots empty
        if object.handles.fetch_sub(1, AcqRel) != 1 {
            return;
        }
        // Pairs with the swap in `enter`: either that call finds its handle gone, or we find its record.
        fence(SeqCst);
        for record in self.iter() {
            record.mark(node);
        }
        // SAFETY: this is the closer.
        unsafe { Node::let_go(node) };
    }
}

impl<T> Drop for Records<T> {
    fn drop(&mut self) {
        let mut at = self.first.load(Relaxed); // Relaxed: nobody else has them any more
        while !at.is_null() {
            // SAFETY: made by `Box::into_raw`, and all of them go together.
            let record = unsafe { Box::from_raw(at) };
            at = record.next;
        }
    }
}

impl<T> Record<T> {
    /// The thread has done with it.
    pub(crate) fn release(&self) {
        self.taken.store(false, Release); // Release: pairs with `take`
    }

    /// Whether no call has it. Asked by the thread that has it.
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        self.state.load(Relaxed) & IN_CALL == 0 // Relaxed: nobody else changes that
    }

    /// A call begins, on these objects; null for none. Whether they are there is not known before the caller has looked
    /// at their handles again, by a `SeqCst` load.
    ///
    /// The record must be idle.
    #[inline]
    pub(crate) fn enter<const N: usize>(&self, objects: [*mut Node<T>; N]) {
        const { assert!(N <= MOST) };
        for (nth, place) in self.objects.iter().enumerate() {
            let object = objects.get(nth).copied().unwrap_or(ptr::null_mut());
            place.store(object, Release); // Release: see `mark`; for those of this call, the swap would do
        }
        let idle = self.state.load(Relaxed); // Relaxed: nobody changes it while it is idle
        // SeqCst: before the look at the handles; pairs with the fence in `remove_handle`. A swap and not a
        // store with a fence, which takes longer.
        self.state.swap(idle | IN_CALL, SeqCst);
        after_seq_cst_rmw();
    }

    /// The call is over.
    #[inline]
    pub(crate) fn leave(&self) {
        let state = self.state.load(Relaxed); // Relaxed: its number is ours, and the swap tells the marks
        // AcqRel: the call is over before anybody sees that it is; who marked it had counted it before
        let marks = self.state.swap((state & !(OWED | IN_CALL)) + NEXT, AcqRel) & OWED;
        if marks != 0 {
            self.let_go(marks);
        }
    }

    #[cold]
    fn let_go(&self, marks: u64) {
        // All before the first is dropped: the record is idle, and a drop may make a call of its own.
        let nodes = self.objects.each_ref().map(|place| place.load(Relaxed)); // Relaxed: only this thread writes them
        for (nth, node) in nodes.into_iter().enumerate() {
            if marks & 1 << nth != 0 {
                // SAFETY: the mark says that this call owes it.
                unsafe { Node::let_go(node) };
            }
        }
    }

    /// Has a call that runs on the object owe it.
    fn mark(&self, node: *mut Node<T>) {
        // SeqCst: see `remove_handle`
        let mut state = self.state.load(SeqCst);
        if state & IN_CALL == 0 {
            return;
        }
        let call = state & !OWED;
        for (nth, place) in self.objects.iter().enumerate() {
            // Acquire: it may be a later call's, and then the call on the object was over before we let go of it.
            // If so and the object is the same, the swap below fails.
            if place.load(Acquire) != node {
                continue;
            }
            // SAFETY: the caller, its closer, has not let go of it.
            let owed = unsafe { &(*node).owed };
            owed.fetch_add(1, Relaxed); // Relaxed: the caller's own is counted still
            while state & !OWED == call {
                // AcqRel: the count is up before the mark is seen
                match self.state.compare_exchange(state, state | 1 << nth, AcqRel, Acquire) {
                    Ok(_) => break,
                    Err(now) => state = now,
                }
            }
            if state & !OWED != call {
                owed.fetch_sub(1, Relaxed); // Relaxed: the caller's own is counted still
                return; // the call is over
            }
        }
    }
}
