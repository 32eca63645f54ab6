use crate::rt;

use std::fmt;

/// What a model of reclamation by grace periods stands on: guards, and what is deferred until the
/// guards that were there then have ended. It becomes ready at once then, which no real one does
/// sooner.
///
/// Two pins commute, and the ends of two guards unless something waits for both, and two things that are
/// deferred. What became ready happens after the ends of all guards that were there as it was
/// deferred, or had been before; a pin happens after all that was deferred before it. There is no
/// other order.
pub struct Grace {
    object: rt::Grace,
}

/// A guard of [`Grace`].
#[derive(Debug)]
pub struct Guard(usize);

/// Names what was deferred: by which thread of the model, and how many it deferred before.
pub type Name = (usize, usize);

impl Grace {
    /// Without guards.
    pub fn new() -> Grace {
        Grace {
            object: rt::Grace::new(),
        }
    }

    /// Makes a guard.
    #[track_caller]
    pub fn pin(&self) -> Guard {
        Guard(self.object.pin(location!()))
    }

    /// Defers something until the guards that are there have ended.
    #[track_caller]
    pub fn defer(&self) -> Name {
        self.object.defer(location!())
    }

    /// Ends a guard. Returns what has become ready by that.
    #[track_caller]
    pub fn unpin(&self, guard: &Guard) -> Vec<Name> {
        self.object.unpin(guard.0, location!())
    }
}

impl Default for Grace {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Grace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grace").finish_non_exhaustive()
    }
}
