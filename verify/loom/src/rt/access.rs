use crate::rt::{thread, VersionVec, MAX_THREADS};

#[derive(Debug, Clone)]
pub(crate) struct Access {
    path_id: usize,
    dpor_vv: VersionVec,
}

impl Access {
    pub(crate) fn new(path_id: usize, version: &VersionVec) -> Access {
        Access {
            path_id,
            dpor_vv: *version,
        }
    }

    pub(crate) fn set(&mut self, path_id: usize, version: &VersionVec) {
        self.path_id = path_id;
        self.dpor_vv = *version;
    }

    pub(crate) fn set_or_create(access: &mut Option<Self>, path_id: usize, version: &VersionVec) {
        if let Some(access) = access.as_mut() {
            access.set(path_id, version);
        } else {
            *access = Some(Access::new(path_id, version));
        }
    }

    /// Location in the path
    pub(crate) fn path_id(&self) -> usize {
        self.path_id
    }

    pub(crate) fn version(&self) -> &VersionVec {
        &self.dpor_vv
    }

    pub(crate) fn happens_before(&self, version: &VersionVec) -> bool {
        self.dpor_vv <= *version
    }
}

/// The last accesses of an object: of each kind, and by each thread.
///
/// One for all threads would not do: where two accesses of other threads do not depend on each
/// other, as two loads, the later one would hide that the earlier one races.
#[derive(Debug)]
pub(crate) struct Accesses<const KINDS: usize> {
    /// `None`: there was no access. Most objects that a model makes are never touched.
    last: Option<Box<[[Option<Access>; MAX_THREADS]; KINDS]>>,
}

impl<const KINDS: usize> Accesses<KINDS> {
    pub(crate) fn new() -> Self {
        Accesses { last: None }
    }

    /// The last accesses of some kinds.
    pub(crate) fn of<'a>(&'a self, kinds: &'a [usize]) -> impl Iterator<Item = &'a Access> {
        let last = self.last.iter();
        last.flat_map(move |last| kinds.iter().flat_map(|&kind| last[kind].iter().flatten()))
    }

    pub(crate) fn set(
        &mut self,
        kind: usize,
        thread: thread::Id,
        path_id: usize,
        version: &VersionVec,
    ) {
        const NONE: Option<Access> = None;
        const NONES: [Option<Access>; MAX_THREADS] = [NONE; MAX_THREADS];

        let last = self.last.get_or_insert_with(|| Box::new([NONES; KINDS]));
        Access::set_or_create(&mut last[kind][thread.as_usize()], path_id, version);
    }
}
