//! Threads that come home one by one.

use std::cell::RefCell;
use std::thread::{self, Scope, ScopedJoinHandle};

/// The threads of a [`threads`] block.
#[derive(Debug)]
pub struct Threads<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    started: RefCell<Vec<ScopedJoinHandle<'scope, ()>>>,
}

impl<'scope> Threads<'scope, '_> {
    /// Starts a thread that is joined at the end of the block.
    pub fn spawn(&self, body: impl FnOnce() + Send + 'scope) {
        self.started.borrow_mut().push(self.scope.spawn(body));
    }

    /// Starts a thread that the caller joins, for what it comes to.
    pub fn start<T: Send + 'scope>(&self, body: impl FnOnce() -> T + Send + 'scope) -> ScopedJoinHandle<'scope, T> {
        self.scope.spawn(body)
    }
}

/// As [`std::thread::scope`], but every thread is joined. A scope that is left to wait for its threads does
/// so inside the standard library, where ThreadSanitizer does not see that they have ended.
pub fn threads<'env>(body: impl for<'scope> FnOnce(&Threads<'scope, 'env>)) {
    thread::scope(|scope| {
        let threads = Threads { scope, started: RefCell::default() };
        body(&threads);
        for thread in threads.started.into_inner() {
            thread.join().expect("the thread ends");
        }
    });
}
