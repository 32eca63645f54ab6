//! Zeros that are not stored: how they come, what is read and written in them, how they are written back.

use proptest::prelude::*;
use upager::{
    Access, ByteOffset, ByteRange, DirtyRange, HeapPlatform, PAGE_SIZE, PageCount, PageIndex, Status, Vmo, VmoOptions,
    Writeback,
};
use upager_tests::{Task, World, at, pages, pattern, read_packet};

const PAGE: usize = 4096;

/// Makes the range zeros, which waits for nobody where it is whole pages.
fn zero<P: upager::Platform>(vmo: &Vmo<P>, range: ByteRange) -> upager::Result<()> {
    Task::new(vmo.zero(range)).poll().expect("whole pages wait for nobody")
}

fn zeros(first: u64, count: u64) -> DirtyRange {
    DirtyRange { offset: first * PAGE_SIZE, length: count * PAGE_SIZE, options: DirtyRange::ZERO }
}

fn stored(first: u64, count: u64) -> DirtyRange {
    DirtyRange { options: 0, ..zeros(first, count) }
}

fn dirty(world: &World, vmo: &Vmo<upager::HeapPlatform>) -> Vec<DirtyRange> {
    let mut buffer = [DirtyRange::default(); 64];
    let found = world.pager.query_dirty_ranges(vmo, ByteRange::new(0, vmo.size()), &mut buffer).expect("in range");
    buffer[..found.available].to_vec()
}

#[test]
fn zeros_are_read_without_a_request_and_without_a_frame() {
    let world = World::new();
    let vmo = world.vmo(4);
    zero(&vmo, pages(0, 4)).unwrap();
    let mut bytes = [7; 3 * PAGE];
    assert_eq!(Task::new(vmo.read(at(0, 100), &mut bytes)).poll(), Some(Ok(())));
    assert!(bytes.iter().all(|byte| *byte == 0));
    assert_eq!(world.packets(), []);
    assert_eq!(world.platform.frames(), PageCount(0));
    let counts = vmo.counts();
    assert_eq!((counts.zero, counts.dirty, counts.resident), (PageCount(4), PageCount(0), PageCount(0)));
}

#[test]
fn a_query_shows_zeros_and_stored_pages_apart() {
    let world = World::new();
    let vmo = world.vmo(8);
    zero(&vmo, pages(1, 6)).unwrap();
    assert_eq!(Task::new(vmo.write(at(3, 5), b"x")).poll(), Some(Ok(())));
    assert_eq!(dirty(&world, &vmo), [zeros(1, 2), stored(3, 1), zeros(4, 3)]);
    let mut byte = [9; 6];
    assert_eq!(Task::new(vmo.read(at(3, 0), &mut byte)).poll(), Some(Ok(())));
    assert_eq!(&byte, b"\0\0\0\0\0x", "the page that is stored is of zeros but for what is written");
}

#[test]
fn a_fault_stores_a_page_so_that_there_is_a_frame_to_map() {
    let world = World::new();
    let vmo = world.vmo(2);
    zero(&vmo, pages(0, 2)).unwrap();
    assert!(!world.is_resident(&vmo, 0));
    assert_eq!(Task::new(vmo.fault(PageIndex(0), Access::Read)).poll(), Some(Ok(())));
    assert!(world.is_resident(&vmo, 0));
    assert_eq!(world.contents(&vmo, 0), [0; PAGE]);
    assert_eq!(dirty(&world, &vmo), [stored(0, 1), zeros(1, 1)]);
}

#[test]
fn zeros_replace_every_content_and_its_frame_is_freed() {
    let world = World::new();
    let vmo = world.vmo(5);
    world.supply(&vmo, 0, 1).unwrap();
    world.make_dirty(&vmo, 1, 2, 3);
    world.pager.writeback_begin(&vmo, pages(2, 1), Writeback::All).unwrap();
    zero(&vmo, pages(0, 5)).unwrap();
    assert_eq!(dirty(&world, &vmo), [zeros(0, 5)]);
    assert_eq!(vmo.counts().resident, PageCount(0));
    world.frames_become(0);
    // An END for what was begun before finds zeros, which are dirty.
    world.pager.writeback_end(&vmo, pages(2, 1)).unwrap();
    assert_eq!(dirty(&world, &vmo), [zeros(0, 5)]);
}

#[test]
fn zeros_answer_the_request_for_the_page() {
    let world = World::new();
    let vmo = world.vmo(1);
    let mut byte = [1];
    let mut reader = Task::pending(vmo.read(at(0, 0), &mut byte));
    zero(&vmo, pages(0, 1)).unwrap();
    assert_eq!(reader.wakes(), 1);
    assert_eq!(reader.poll(), Some(Ok(())));
    drop(reader);
    assert_eq!(byte, [0]);
    assert_eq!(world.packets(), [], "nobody waits for the packet any more");
}

#[test]
fn supply_leaves_zeros_as_they_are() {
    let world = World::new();
    let vmo = world.vmo(2);
    zero(&vmo, pages(0, 2)).unwrap();
    world.supply(&vmo, 0, 2).unwrap();
    assert_eq!(dirty(&world, &vmo), [zeros(0, 2)]);
    world.frames_become(0);
}

/// Zeros that share a word, and no slot has been made for any of them.
#[test]
fn a_supply_over_zeros_gives_every_other_page_its_own_frame() {
    let world = World::new();
    let vmo = world.vmo(1024);
    zero(&vmo, pages(0, 512)).unwrap();
    world.supply(&vmo, 510, 4).unwrap();
    assert_eq!((world.contents(&vmo, 512), world.contents(&vmo, 513)), (pattern(512), pattern(513)));
    assert_eq!(dirty(&world, &vmo), [zeros(0, 512)]);
    assert_eq!(world.platform.frames(), PageCount(2));
}

#[test]
fn zeros_that_are_written_back_are_the_services() {
    let world = World::new();
    let vmo = world.vmo(4);
    zero(&vmo, pages(0, 4)).unwrap();
    world.pager.writeback_begin(&vmo, pages(1, 2), Writeback::ZeroRanges).unwrap();
    assert_eq!(dirty(&world, &vmo), [zeros(0, 4)], "those being written back are shown too");
    world.pager.writeback_end(&vmo, pages(0, 4)).unwrap();
    assert_eq!(dirty(&world, &vmo), [zeros(0, 1), zeros(3, 1)]);
    let reader = Task::pending(vmo.fault(PageIndex(1), Access::Read));
    assert_eq!(world.packets(), [read_packet(1, 1)], "the service has them now");
    drop(reader);
}

#[test]
fn begin_of_zero_ranges_leaves_stored_pages_dirty() {
    let world = World::new();
    let vmo = world.vmo(3);
    zero(&vmo, pages(0, 3)).unwrap();
    assert_eq!(Task::new(vmo.write(at(1, 0), b"x")).poll(), Some(Ok(())));
    world.pager.writeback_begin(&vmo, pages(0, 3), Writeback::ZeroRanges).unwrap();
    world.pager.writeback_end(&vmo, pages(0, 3)).unwrap();
    assert_eq!(dirty(&world, &vmo), [stored(1, 1)]);
}

#[test]
fn a_write_between_begin_and_end_keeps_its_page_dirty() {
    let world = World::new();
    let vmo = world.vmo(2);
    zero(&vmo, pages(0, 2)).unwrap();
    world.pager.writeback_begin(&vmo, pages(0, 2), Writeback::ZeroRanges).unwrap();
    assert_eq!(Task::new(vmo.write(at(0, 0), b"x")).poll(), Some(Ok(())));
    world.pager.writeback_end(&vmo, pages(0, 2)).unwrap();
    assert_eq!(dirty(&world, &vmo), [stored(0, 1)]);
}

#[test]
fn a_range_that_ends_within_a_page_writes_there() {
    let world = World::new();
    let vmo = world.vmo(3);
    world.supply(&vmo, 0, 3).unwrap();
    let before = world.contents(&vmo, 0);
    assert_eq!(Task::new(vmo.zero(ByteRange::new(4000, 2 * PAGE_SIZE))).poll(), Some(Ok(())));
    assert_eq!(dirty(&world, &vmo), [stored(0, 1), zeros(1, 1), stored(2, 1)]);
    let now = world.contents(&vmo, 0);
    assert_eq!(now[..4000], before[..4000]);
    assert_eq!(now[4000..], [0; 96]);
    assert_eq!(Task::new(vmo.zero(ByteRange::new(2 * PAGE_SIZE + 4000, 10))).poll(), Some(Ok(())), "within one page");
    assert_eq!(world.contents(&vmo, 2)[4000..4010], [0; 10]);
}

#[test]
fn zeros_for_which_there_is_no_frame_stay_as_they_are() {
    let world = World::on(HeapPlatform::new().with_limit(PageCount(0)));
    let vmo = world.vmo(2);
    zero(&vmo, pages(0, 2)).unwrap();
    assert_eq!(Task::new(vmo.read(at(0, 0), &mut [0])).poll(), Some(Ok(())));
    let before = vmo.counts();
    for _ in 0..2 {
        assert_eq!(Task::new(vmo.write(at(0, 0), b"x")).poll(), Some(Err(Status::NoMemory)));
        assert_eq!(vmo.counts(), before);
    }
    assert_eq!(dirty(&world, &vmo), [zeros(0, 2)]);
}

#[test]
fn a_range_outside_is_refused_and_changes_nothing() {
    let world = World::new();
    let vmo = world.vmo(2);
    for range in [pages(1, 2), pages(3, 0), ByteRange::new(u64::MAX, 2), ByteRange::new(0, u64::MAX)] {
        assert_eq!(zero(&vmo, range), Err(Status::OutOfRange));
    }
    assert_eq!(vmo.counts().zero, PageCount(0));
    assert_eq!(zero(&vmo, pages(1, 0)), Ok(()), "an empty range is none");
    assert_eq!(vmo.counts().zero, PageCount(0));
}

#[test]
fn zeros_outlive_detach_until_they_are_written_back() {
    let world = World::new();
    let vmo = world.vmo(3);
    zero(&vmo, pages(0, 2)).unwrap();
    world.pager.detach_vmo(&vmo).unwrap();
    let mut byte = [1];
    assert_eq!(Task::new(vmo.read(at(1, 0), &mut byte)).poll(), Some(Ok(())));
    assert_eq!(Task::new(vmo.write(at(1, 0), b"x")).poll(), Some(Ok(())), "it is content of the VMO's own");
    assert_eq!(zero(&vmo, pages(2, 1)), Ok(()), "nobody has to be asked");
    assert_eq!(dirty(&world, &vmo), [zeros(0, 1), stored(1, 1), zeros(2, 1)]);
    world.write_back(&vmo, 0, 3);
    assert_eq!(dirty(&world, &vmo), []);
    assert_eq!(Task::new(vmo.read(at(0, 0), &mut byte)).poll(), Some(Err(Status::BadState)));
}

#[test]
fn dirtying_is_not_asked_for_zeros_but_for_zeros_being_written_back() {
    let world = World::new();
    let vmo = world.vmo_with(VmoOptions::TRAP_DIRTY, 2);
    zero(&vmo, pages(0, 2)).unwrap();
    assert_eq!(Task::new(vmo.write(at(0, 0), b"x")).poll(), Some(Ok(())));
    world.pager.writeback_begin(&vmo, pages(1, 1), Writeback::ZeroRanges).unwrap();
    let mut writer = Task::pending(vmo.write(at(1, 0), b"y"));
    assert_eq!(world.packets().len(), 1, "DIRTY");
    assert_eq!(world.pager.dirty_range(&vmo, pages(0, 2)), Ok(()));
    assert_eq!(writer.poll(), Some(Ok(())));
}

#[test]
fn no_memory_for_a_frame_is_said_and_the_zeros_stay() {
    let world = World::on(upager::HeapPlatform::new().with_limit(PageCount(0)));
    let vmo = world.vmo(2);
    zero(&vmo, pages(0, 2)).unwrap();
    assert_eq!(Task::new(vmo.write(at(0, 0), b"x")).poll(), Some(Err(Status::NoMemory)));
    assert_eq!(Task::new(vmo.fault(PageIndex(1), Access::Read)).poll(), Some(Err(Status::NoMemory)));
    assert_eq!(dirty(&world, &vmo), [zeros(0, 2)]);
}

/// Where ranges begin and end in the large VMO: around slots, leaves and nodes of its table.
const CUTS: [u64; 14] = [
    0,
    1,
    511,
    512,
    513,
    1024,
    32_767,
    32_768,
    32_769,
    1 << 21,
    (1 << 21) + 512,
    (1 << 22) - 1,
    1 << 22,
    (1 << 22) + 7,
];
const UNITS: usize = CUTS.len() - 1;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Unit {
    Absent,
    Zero,
    Awaiting,
    Stored,
    StoredAwaiting,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Zero(usize, usize),
    BeginZeros(usize, usize),
    Begin(usize, usize),
    End(usize, usize),
    /// Only units of one page.
    Write(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let range = || (0..=UNITS, 0..=UNITS).prop_map(|(a, b)| (a.min(b), a.max(b)));
    prop_oneof![
        3 => range().prop_map(|(a, b)| Step::Zero(a, b)),
        2 => range().prop_map(|(a, b)| Step::BeginZeros(a, b)),
        1 => range().prop_map(|(a, b)| Step::Begin(a, b)),
        2 => range().prop_map(|(a, b)| Step::End(a, b)),
        3 => (0..UNITS).prop_map(Step::Write),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whole words of the table stand for pages here, and are divided and put together.
    #[test]
    fn ranges_of_every_size_are_divided_where_they_must_be(steps in prop::collection::vec(step(), 1..40)) {
        let world = World::new();
        let vmo = world.vmo(CUTS[UNITS]);
        let mut units = [Unit::Absent; UNITS];
        for step in steps {
            match step {
                Step::Zero(a, b) => {
                    zero(&vmo, pages(CUTS[a], CUTS[b] - CUTS[a])).unwrap();
                    units[a..b].fill(Unit::Zero);
                }
                Step::BeginZeros(a, b) | Step::Begin(a, b) => {
                    let zeros_only = matches!(step, Step::BeginZeros(..));
                    let which = if zeros_only { Writeback::ZeroRanges } else { Writeback::All };
                    world.pager.writeback_begin(&vmo, pages(CUTS[a], CUTS[b] - CUTS[a]), which).unwrap();
                    for unit in &mut units[a..b] {
                        *unit = match *unit {
                            Unit::Zero => Unit::Awaiting,
                            Unit::Stored if !zeros_only => Unit::StoredAwaiting,
                            other => other,
                        };
                    }
                }
                Step::End(a, b) => {
                    world.pager.writeback_end(&vmo, pages(CUTS[a], CUTS[b] - CUTS[a])).unwrap();
                    for unit in &mut units[a..b] {
                        if matches!(unit, Unit::Awaiting | Unit::StoredAwaiting) {
                            *unit = Unit::Absent; // or clean, which a query does not tell apart
                        }
                    }
                }
                Step::Write(unit) => {
                    if CUTS[unit + 1] - CUTS[unit] == 1 && units[unit] != Unit::Absent {
                        let write = Task::new(vmo.write(ByteOffset(CUTS[unit] * PAGE_SIZE), b"x")).poll();
                        prop_assert_eq!(write, Some(Ok(())));
                        units[unit] = Unit::Stored;
                    }
                }
            }
            let mut expected: Vec<DirtyRange> = Vec::new();
            for (unit, state) in units.iter().enumerate() {
                let (first, count) = (CUTS[unit], CUTS[unit + 1] - CUTS[unit]);
                let run = match state {
                    Unit::Absent => continue,
                    Unit::Zero | Unit::Awaiting => zeros(first, count),
                    Unit::Stored | Unit::StoredAwaiting => stored(first, count),
                };
                match expected.last_mut() {
                    Some(last) if last.offset + last.length == run.offset && last.options == run.options => {
                        last.length += run.length;
                    }
                    _ => expected.push(run),
                }
            }
            prop_assert_eq!(dirty(&world, &vmo), expected);
            let in_zeros = |unit: usize| matches!(units[unit], Unit::Zero | Unit::Awaiting);
            let count: u64 = (0..UNITS).filter(|unit| in_zeros(*unit)).map(|unit| CUTS[unit + 1] - CUTS[unit]).sum();
            prop_assert_eq!(vmo.counts().zero, PageCount(count));
        }
    }
}
