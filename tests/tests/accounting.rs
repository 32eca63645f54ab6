//! What each call does to memory that other threads use: how often it loads, stores, and reads,
//! modifies and writes (RMW) a word, and of which lines of 64 bytes.
//!
//! Only with `--cfg accounting`; `ci/full` runs it so. A call that writes to no shared line costs the same
//! however many processors make it. Which lines the others write to is asserted here, so that no
//! change adds one unnoticed. With the variable ACCOUNTING_JSON the table is left in the file
//! that it names, for docs/PERFORMANCE.md.

#![cfg(accounting)]

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use serde_json::{Value, json};
use upager::sync::accounting::{Kind, record};
use upager::{
    Access, ByteOffset, DirtyRange, Evict, Fault, HeapPlatform, Packet, PageCount, PageIndex, Platform, Status, Vmo,
    VmoOptions, Writeback,
};
use upager_tests::{World, pages};

/// What a call did to one line.
#[derive(Clone, Debug, Default)]
struct Line {
    /// The words on it that it accessed.
    names: Vec<&'static str>,
    contenders: Vec<&'static str>,
    loads: u64,
    stores: u64,
    rmws: u64,
}

/// What a call did.
#[derive(Clone, Debug)]
struct Account {
    call: &'static str,
    lines: Vec<Line>,
}

impl Account {
    fn sum(&self, of: impl Fn(&Line) -> u64) -> u64 {
        self.lines.iter().map(of).sum()
    }

    /// What it writes to, and how often, in alphabetical order.
    fn written(&self) -> Vec<(String, u64)> {
        let mut written = BTreeMap::new();
        for line in self.lines.iter().filter(|line| line.stores + line.rmws > 0) {
            *written.entry(line.names.join(" and ")).or_default() += line.stores + line.rmws;
        }
        written.into_iter().collect()
    }

    fn to_json(&self) -> Value {
        let line = |line: &Line| {
            json!({
                "name": line.names.join(" and "), "contenders": line.contenders.join("; "),
                "loads": line.loads, "stores": line.stores, "rmws": line.rmws,
            })
        };
        let (loads, stores, rmws) =
            (self.sum(|line| line.loads), self.sum(|line| line.stores), self.sum(|line| line.rmws));
        let lines: Vec<_> = self.lines.iter().map(line).collect();
        json!({ "call": self.call, "loads": loads, "stores": stores, "rmws": rmws, "lines": lines })
    }
}

/// The calls of the table, made one after the other on one VMO of 4096 pages, of which the first 1024 are
/// resident.
struct Calls {
    world: World,
    vmo: Arc<Vmo<HeapPlatform>>,
    made: Vec<Account>,
}

impl Calls {
    fn count<R>(&mut self, call: &'static str, f: impl FnOnce(&World, &Vmo<HeapPlatform>) -> R) -> R {
        // What is ripe goes before; and inside another pin nothing ripens, be it of this VMO or of another test's.
        (0..16).for_each(|_| self.world.platform.pin().flush());
        let pinned = self.world.platform.pin();
        let (result, accesses) = record(|| f(&self.world, &self.vmo));
        drop(pinned);
        let (of_vmo, of_port) = (self.vmo.lines(), self.world.port.lines());
        let mut lines = BTreeMap::<usize, Line>::new();
        for access in accesses {
            let word = of_vmo.of(access.address).or_else(|| of_port.of(access.address));
            let word = word.unwrap_or_else(|| panic!("{call}: a word without a name"));
            let line = lines.entry(access.address / 64).or_default();
            if !line.names.contains(&word.name) {
                line.names.push(word.name);
                line.contenders.push(word.contenders);
            }
            match access.kind {
                Kind::Load => line.loads += 1,
                Kind::Store => line.stores += 1,
                Kind::Rmw => line.rmws += 1,
            }
        }
        self.made.push(Account { call, lines: lines.into_values().collect() });
        result
    }
}

fn poll(fault: &mut Fault<'_, HeapPlatform>) -> Poll<upager::Result<()>> {
    Future::poll(Pin::new(fault), &mut Context::from_waker(Waker::noop()))
}

fn mark_dirty(vmo: &Vmo<HeapPlatform>, page: u64) {
    assert_eq!(poll(&mut vmo.fault(PageIndex(page), Access::Write)), Poll::Ready(Ok(())));
}

fn poll_now<F: Future>(future: F) -> F::Output {
    match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it was to be ready"),
    }
}

/// All calls of the table.
fn calls() -> Vec<Account> {
    let world = World::new();
    let vmo = Arc::new(world.vmo_with(VmoOptions::NONE, 4096));
    world.supply(&vmo, 0, 1024).unwrap();
    world.supply(&vmo, 2047, 1).unwrap(); // so that the leaf is there
    let mut calls = Calls { world, vmo: vmo.clone(), made: Vec::new() };
    let mut bytes = [0; 64];
    let mut packets = [Packet::default(); 4];
    let mut runs = [DirtyRange::default(); 4];

    let guard = calls.world.platform.pin();
    calls.count("lookup in the caller's pin", |_, vmo| assert!(vmo.lookup(&guard, PageIndex(1)).is_some()));
    drop(guard);
    calls.count("lookup with its own pin", |_, vmo| assert!(vmo.pin_lookup(PageIndex(1)).is_some()));
    calls.count("fault of a resident page", |_, vmo| {
        assert_eq!(poll(&mut vmo.fault(PageIndex(1), Access::Read)), Poll::Ready(Ok(())));
    });
    poll_now(vmo.read(ByteOffset(4096), &mut bytes)).unwrap();
    calls.count("read of 64 bytes", |_, vmo| poll_now(vmo.read(ByteOffset(4096), &mut bytes)).unwrap());
    calls.count("mark dirty, the VMO's first", |_, vmo| mark_dirty(vmo, 1));
    calls.count("mark dirty, beside dirty pages", |_, vmo| mark_dirty(vmo, 2));
    calls.count("mark dirty again", |_, vmo| mark_dirty(vmo, 2));
    calls.count("write of 64 bytes, dirty page", |_, vmo| poll_now(vmo.write(ByteOffset(4096), &bytes)).unwrap());
    calls.count("query of the dirty ranges", |world, vmo| {
        world.pager.query_dirty_ranges(vmo, pages(0, 64), &mut runs).unwrap();
    });
    calls.count("writeback begin, two pages", |world, vmo| {
        world.pager.writeback_begin(vmo, pages(1, 2), Writeback::All).unwrap();
    });
    calls.count("writeback end, two pages", |world, vmo| world.pager.writeback_end(vmo, pages(1, 2)).unwrap());

    // Twice: the first time makes nodes and segments.
    for warm in [true, false] {
        let page = if warm { 2000 } else { 2020 };
        let made = calls.made.len();
        let (mut first, mut second) =
            (vmo.fault(PageIndex(page), Access::Read), vmo.fault(PageIndex(page), Access::Read));
        calls.count("missing fault, until it waits", |_, _| assert!(poll(&mut first).is_pending()));
        calls.count("fault that joins another", |_, _| assert!(poll(&mut second).is_pending()));
        calls.count("take of one packet", |world, _| assert_eq!(world.port.take(&mut packets), 1));
        calls.count("supply of a page, waking two", |world, vmo| world.supply(vmo, page, 1).unwrap());
        calls.count("end of a fault that was woken", |_, _| assert!(poll(&mut first).is_ready()));
        calls.count("end of the last that was woken", |_, _| assert!(poll(&mut second).is_ready()));
        let mut fault = vmo.fault(PageIndex(page + 1), Access::Read);
        assert!(poll(&mut fault).is_pending());
        assert_eq!(calls.world.port.take(&mut packets), 1);
        calls.count("failing of a range", |world, vmo| {
            world.pager.fail_range(vmo, pages(page + 1, 1), Status::Io).unwrap();
        });
        drop(fault);
        let mut fault = vmo.fault(PageIndex(page + 1), Access::Read);
        assert!(poll(&mut fault).is_pending());
        calls.count("leaving of the only waiter", |_, _| drop(fault));
        if warm {
            calls.made.truncate(made);
            assert_eq!(calls.world.port.take(&mut packets), 0);
        }
    }
    assert_eq!(calls.world.port.take(&mut packets), 0);
    calls.count("take that finds nothing", |world, _| assert_eq!(world.port.take(&mut packets), 0));
    calls.count("supply of a leaf that is not there", |world, vmo| world.supply(vmo, 3072, 512).unwrap());
    calls.count("supply of 64 pages unasked", |world, vmo| world.supply(vmo, 1920, 64).unwrap());
    calls.count("evict, 64 pages", |_, vmo| assert_eq!(vmo.evict(PageCount(64), Evict::Any), PageCount(64)));
    calls.made
}

#[test]
fn each_call_writes_to_the_lines_of_the_table_and_to_no_other() {
    let made = calls();
    for account in &made {
        let (loads, stores, rmws) = (account.sum(|l| l.loads), account.sum(|l| l.stores), account.sum(|l| l.rmws));
        println!("{}: {loads} loads, {stores} stores, {rmws} RMWs; writes {:?}", account.call, account.written());
    }
    if let Some(file) = std::env::var_os("ACCOUNTING_JSON") {
        let table = Value::from(made.iter().map(Account::to_json).collect::<Vec<_>>());
        std::fs::write(file, table.to_string()).unwrap();
    }
    let expected: &[(&str, &[(&str, u64)])] = &[
        ("lookup in the caller's pin", &[]),
        ("lookup with its own pin", &[]),
        ("fault of a resident page", &[]),
        ("read of 64 bytes", &[]),
        (
            "mark dirty, the VMO's first",
            &[("leaf's counts", 1), ("mark of modification", 1), ("node's counts", 1), ("page words", 1)],
        ),
        ("mark dirty, beside dirty pages", &[("leaf's counts", 1), ("page words", 1)]),
        ("mark dirty again", &[]),
        ("write of 64 bytes, dirty page", &[("page words", 2)]),
        ("query of the dirty ranges", &[]),
        ("writeback begin, two pages", &[("page words", 2)]),
        ("writeback end, two pages", &[("leaf's counts", 1), ("node's counts", 1), ("page words", 2)]),
        (
            "missing fault, until it waits",
            &[
                ("page words", 1),
                ("port's marks", 1),
                ("queue's tail", 1),
                ("request", 9), // its own, and the link of the one before
                ("requests' bits", 1),
            ],
        ),
        ("fault that joins another", &[("count of joins", 1), ("request", 5), ("requests' bits", 1)]),
        (
            "take of one packet",
            &[("port's marks", 1), ("port's turn", 1), ("queue's head", 1), ("request", 1), ("requests' bits", 1)],
        ),
        ("supply of a page, waking two", &[("leaf's counts", 1), ("page words", 1), ("request", 6)]),
        ("end of a fault that was woken", &[("request", 1)]),
        ("end of the last that was woken", &[("request", 1)]),
        ("failing of a range", &[("page words", 1), ("request", 4)]),
        ("leaving of the only waiter", &[("count of waiters that left", 2), ("page words", 1), ("request", 6)]),
        ("take that finds nothing", &[]),
        ("supply of a leaf that is not there", &[("node's counts", 1), ("table's node", 1)]),
        ("supply of 64 pages unasked", &[("leaf's counts", 1), ("node's counts", 1), ("page words", 64)]),
        (
            "evict, 64 pages",
            &[
                ("count of evictions", 1),
                ("evictor's hand", 1),
                ("leaf's counts", 1),
                ("node's counts", 1),
                ("page words", 64),
            ],
        ),
    ];
    for (call, lines) in expected {
        let account = made.iter().find(|account| account.call == *call).unwrap();
        let lines: Vec<_> = lines.iter().map(|(name, writes)| ((*name).to_owned(), *writes)).collect();
        assert_eq!(account.written(), lines, "{call}");
    }
    assert_eq!(expected.len(), made.len());
}

/// Words that some thread writes often, and that must share a line with no other word: not with one of
/// another writer, and not with one that lookups read.
const HOT: &[&str] = &[
    "requests' hint",
    "requests' bits",
    "request",
    "queue's head",
    "queue's tail",
    "count of joins",
    "count of waiters that left",
    "count of evictions",
    "count of rescues",
    "evictor's hand",
    "port's turn",
    "port's hint",
    "port's marks",
    "sleepers' hint",
    "sleepers' bits",
];

#[test]
fn words_of_different_writers_are_on_different_lines() {
    let world = World::new();
    let vmo = world.vmo_with(VmoOptions::NONE, 4096);
    world.supply(&vmo, 0, 1024).unwrap();
    let mut fault = vmo.fault(PageIndex(2000), Access::Read);
    assert!(poll(&mut fault).is_pending());
    let lines = vmo.lines();
    let of = |place: &std::ops::Range<usize>| place.start / 64..place.end.div_ceil(64);
    for hot in lines.iter().filter(|named| HOT.contains(&named.name)) {
        for other in lines.iter().filter(|other| other.place != hot.place) {
            let (a, b) = (of(&hot.place), of(&other.place));
            assert!(a.end <= b.start || b.end <= a.start, "{} and {} share a line", hot.name, other.name);
        }
    }
    for name in HOT {
        assert!(lines.iter().any(|named| named.name == *name), "{name}");
    }
}
