//! The rows of the page: what is measured, against what, and what it is to reach.

/// What a row is to reach. Others are named by function, or by group and function.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// Ours takes at most this many times what the other takes.
    AtMost(f64, &'static str),
    /// The other takes at least this many times what ours takes.
    Faster(f64, &'static str),
    /// Ours takes at most so much.
    Within(f64),
}
use Goal::{AtMost, Faster, Within};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Nanoseconds,
    Bytes,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) what: &'static str,
    pub(crate) group: &'static str,
    pub(crate) ours: &'static str,
    /// What nothing that does the job can be faster than.
    pub(crate) floor: Option<&'static str>,
    pub(crate) goals: &'static [Goal],
    pub(crate) unit: Unit,
    /// Shown if a goal is missed: why, and what was tried.
    pub(crate) missed: &'static str,
}

/// Functions that are measured beside ours and are no peers of it: see the text of their bench.
pub(crate) const UNLIKE: &[&str] = &["moka", "quick_cache", "mmap"];

const fn row(what: &'static str, group: &'static str, ours: &'static str) -> Row {
    Row { what, group, ours, floor: None, goals: &[], unit: Unit::Nanoseconds, missed: "" }
}

impl Row {
    const fn floor(self, floor: &'static str) -> Self {
        Self { floor: Some(floor), ..self }
    }

    const fn goals(self, goals: &'static [Goal]) -> Self {
        Self { goals, ..self }
    }

    const fn bytes(self) -> Self {
        Self { unit: Unit::Bytes, ..self }
    }

    const fn missed(self, missed: &'static str) -> Self {
        Self { missed, ..self }
    }
}

const PINNED: &str = "upager_pinned";
const OWN_PIN: &str = "upager_own_pin";
const UPAGER: &str = "upager";

/// Why lookups are not as near to the array as they are to be.
const LOADS: &str = "A lookup loads three words where the array loads one: the node's entry, the page's word, and the VMO's mark, \
    which nobody writes until it is detached and which makes a detach one step. The instructions are counted below. Tried: the frame on top of the word (kept), \
    asking for the slot before the pin (kept), LTO (no gain). Page words of 32 bits, which were nearest to the array, have no room for 40 bits of frame or for a request.";
/// Why marks, counts and supply are not as quick as a bitmap.
const SWAPS: &str = "Each page is one compare-and-swap of its own word, which is what lets it race with faults, detach and eviction; a store for each page or one `or` for 64 would not see them. \
    Supply counts a group of 64 pages with one addition where it was one a page, and makes a leaf of 512 pages by one swap where there is none yet. To go below, where there is one, needs claims of 64 slots at once, with a protocol for whoever meets a claimed page, and its model.";
const MARKS: &str = "A first mark is two read-modify-writes: the group's count, which a scan relies on, and the page's word. Marking again writes nothing.";
/// Why a query is slower than a bitmap's.
const WORDS: &str = "A query reads the word of each page in the groups that have a dirty one: 64 bits a page, where a bitmap reads one; eight words with nothing, eight that are all dirty, and 16 counts of nothing are each told by one test. \
    Counts say which groups to look into, since they are safe where bits are not: a bit that is cleared late hides a page that was dirtied anew. A bitmap beside the counts needs a protocol for its clearing. \
    Tried: to ask for the next leaf while one is read (no gain), to keep a line's words for a second look (a fifth slower where few are dirty).";
const FAULT: &str = "A fault, its packet and its answer are about 17 read-modify-writes and two full fences, see the table of shared memory, at 2.5 to 6 ns each, by the processor, and some 1,600 instructions: \
    the fault 7, the take 4, the supply 5 or more, each end 1 or more. They are what lets a waiter leave, a request fail and a taker stop in the middle, which the stacks do not have. It allocates nothing. \
    Tried, and kept: a waiter that keeps a reference to its entry, a hint that is written only when it changes, a first segment in the pool itself, taking from the queue without an array (1,910 instructions before).";
const DETACH: &str = "The walk makes three read-modify-writes a request: it seals the fate; takes the waker, and with it the list of the others; lets go. \
    The peers' figure is without the last, and is no detach.";
const WAKE: &str = "Beside the futex's two system calls there is the work of the fault itself, see missing faults.";
const SPARSE: &str =
    "A leaf has words for 512 pages, and is made for the first. A smaller leaf for sparse regions is not built.";
const CREATE: &str = "A VMO comes with the root of its table, room for its first eight requests, and entries in its port and its pager, in four allocations; its end is told to the service, \
    and its parts wait for a grace period, which each end pushes along. A quarter of the instructions move the VMO into its place. A map begins as one empty allocation, or none.";
const FAIR: &str = "A taker goes round the VMOs so that none waits for another, and looks at the mark of each; the peers are one queue for all. \
    Tried: to look for the next ready VMO before the visit, where it is asked anyway whether there is another; a round is then not whole, and the models of a take beside a detach noticed.";
const GRACE: &str = "An evicted page leaves in two steps, so that an access in between can have it back: a swap here and a count for each group of 64, and a swap after the grace period. The peers drop it at once.";

pub(crate) const ROWS: &[Row] = &[
    row("lookup, in order, in the caller's pin", "resident/in_order", PINNED).floor("flat").missed(LOADS),
    row("lookup, random, in the caller's pin", "resident/random", PINNED)
        .floor("flat")
        .goals(&[AtMost(1.3, "flat"), Faster(10.0, "dashmap"), Faster(20.0, "papaya")])
        .missed(LOADS),
    row("lookup, random, with its own pin", "resident/random", OWN_PIN)
        .floor("flat")
        .goals(&[AtMost(2.2, "flat")])
        .missed(LOADS),
    row("lookup, hot set of 4 Ki pages", "resident/hot", PINNED)
        .floor("flat")
        .goals(&[AtMost(1.5, "flat")])
        .missed(LOADS),
    row("lookup, dependent chain", "resident/chain", PINNED).floor("flat").goals(&[AtMost(1.15, "flat")]).missed(LOADS),
    row("lookup, two threads", "resident/two_threads", PINNED)
        .floor("flat")
        .goals(&[AtMost(1.05, "resident/random/upager_pinned")])
        .missed(LOADS),
    row("95 lookups to 5 changes, two threads", "resident/mix", PINNED).floor("flat").missed(LOADS),
    row("lookup beside a churning writer", "resident/churn", PINNED)
        .floor("flat")
        .goals(&[AtMost(1.7, "flat"), Faster(12.0, "sharded_hashbrown")])
        .missed(LOADS),
    row("lookup beside missing faults of the VMO", "resident/beside_faults", PINNED)
        .goals(&[AtMost(1.1, "resident/random/upager_pinned")])
        .missed(LOADS),
    row("missing fault, one at a time", "missing/one", UPAGER)
        .goals(&[Within(20.0), Faster(4.0, "dashmap_channel")])
        .missed(FAULT),
    row("missing faults, bursts of 64 scattered", "missing/scattered", UPAGER)
        .goals(&[Faster(2.5, "dashmap_channel"), Faster(2.5, "dashmap_channel_condvar")])
        .missed(FAULT),
    row("missing faults, bursts of 64 adjacent", "missing/adjacent", UPAGER).missed(FAULT),
    row("fault joined by 8, by faulter", "missing/join_8", UPAGER).missed(FAULT),
    row("fault joined by 64, by faulter", "missing/join_64", UPAGER).missed(FAULT),
    row("blocking fault, one processor", "blocking/one_core", UPAGER)
        .floor("futex")
        .goals(&[AtMost(1.03, "futex")])
        .missed(WAKE),
    row("blocking fault, two processors", "blocking/two_cores", UPAGER)
        .floor("futex")
        .goals(&[AtMost(1.03, "futex")])
        .missed(WAKE),
    row("fault across processors, both spin", "blocking/spinning", UPAGER).floor("futex").missed(WAKE),
    row("supply, a page a call", "supply/1", UPAGER).floor("flat").missed(SWAPS),
    row("supply, 64 pages a call", "supply/64", UPAGER).floor("flat").missed(SWAPS),
    row("supply, 512 pages a call", "supply/512", UPAGER)
        .floor("flat")
        .goals(&[Within(0.6), Faster(30.0, "congee"), Faster(50.0, "dashmap")])
        .missed(SWAPS),
    row("supply, 64 Ki pages a call", "supply/65536", UPAGER)
        .floor("flat")
        .goals(&[Within(0.6), Faster(30.0, "congee"), Faster(50.0, "dashmap")])
        .missed(SWAPS),
    row("supply, 512 pages a call, new VMO", "supply/new_512", UPAGER).floor("flat").missed(SWAPS),
    row("mark dirty", "dirty/mark", UPAGER).floor("flat_bitmap").goals(&[Faster(5.0, "roaring")]).missed(MARKS),
    row("mark dirty again", "dirty/again", UPAGER).floor("flat_bitmap").missed(MARKS),
    row("writeback, begin and end, by page", "dirty/begin_end", UPAGER).floor("flat_bitmap").missed(SWAPS),
    row("enumerate 1 Mi dirty in one run, by page", "dirty/enumerate_dense", UPAGER)
        .floor("flat_bitmap")
        .goals(&[AtMost(1.4, "flat_bitmap")])
        .missed(WORDS),
    row("enumerate 2048 runs of 16, by run", "dirty/enumerate_runs", UPAGER).floor("flat_bitmap").missed(WORDS),
    row("enumerate 32 Ki single pages, by run", "dirty/enumerate_isolated", UPAGER).floor("flat_bitmap").missed(WORDS),
    row("enumerate 64 pages of 1 Mi, by run", "dirty/enumerate_few", UPAGER)
        .floor("flat_bitmap")
        .goals(&[AtMost(1.2, "roaring")])
        .missed(WORDS),
    row("evict clean pages", "evict/all", UPAGER).floor("flat_clock").missed(GRACE),
    row("evict, second chance", "evict/second_chance", UPAGER).floor("flat_clock").missed(GRACE),
    row("evict one in 64 among dirty, by page gone", "evict/among_dirty", UPAGER).floor("flat_clock").missed(GRACE),
    row("detach, 100 in flight, by request", "detach/in_flight_100", UPAGER).goals(&[Within(10.0)]).missed(DETACH),
    row("detach, 10,000 in flight, by request", "detach/in_flight_10000", UPAGER).goals(&[Within(10.0)]).missed(DETACH),
    row("detach, 100,000 in flight, by request", "detach/in_flight_100000", UPAGER)
        .goals(&[Within(10.0)])
        .missed(DETACH),
    row("detach, 100 in flight, 1 TiB, by request", "detach/size_1_tib", UPAGER)
        .goals(&[AtMost(1.1, "detach/size_1_mib/upager")])
        .missed(DETACH),
    row("create and drop, 1 GiB", "create/1_gib", UPAGER).floor("flat").missed(CREATE),
    row("create and drop, 1 TiB", "create/1_tib", UPAGER).missed(CREATE),
    row("take, 1 VMO, by packet", "port/all_1", UPAGER).missed(FAIR),
    row("take, 1000 ready VMOs, by packet", "port/all_1000", UPAGER).missed(FAIR),
    row("take, 10,000 ready VMOs, by packet", "port/all_10000", UPAGER).missed(FAIR),
    row("take, one of 10,000 VMOs ready", "port/one_of_10000", UPAGER).missed(FAIR),
    row("metadata, dense, a page", "memory/dense", UPAGER).bytes().floor("flat").goals(&[Within(8.6)]),
    row("metadata, one page in 64, a page", "memory/one_in_64", UPAGER).bytes().floor("flat").missed(SPARSE),
    row("metadata, clusters of 16, a page", "memory/clusters", UPAGER).bytes().floor("flat").missed(SPARSE),
];

/// Goals for what other benches measure.
pub(crate) const ELSEWHERE: &[(&str, &str)] = &[(
    "mapped fault on Linux by userfaultfd",
    "at most 1.15 x a handler loop that only copies; batches at least 0.9 x the bandwidth of bare UFFDIO_COPY",
)];
