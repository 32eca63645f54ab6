//! Reading and writing bytes.

use upager::{Access, ByteOffset, PAGE_SIZE, PageCount, PageIndex, Status};
use upager_tests::{Task, World, at, bytes_of, dirty_ranges, now, pages, pattern, read_packet};

#[test]
fn bytes_are_those_that_were_supplied_at_every_alignment() {
    let world = World::new();
    let vmo = world.vmo(3);
    world.supply(&vmo, 0, 3).unwrap();
    for offset in [0, 1, 7, 8, 9, 4088, 4095, 4096, 4097, 8191] {
        for len in [0, 1, 7, 8, 9, 63, 4095, 4096] {
            let mut bytes = vec![0; len];
            now(vmo.read(ByteOffset(offset), &mut bytes)).unwrap();
            assert_eq!(bytes, bytes_of(offset..offset + len as u64), "{len} bytes at {offset}");
        }
    }
    let mut all = vec![0; 3 * 4096];
    now(vmo.read(at(0, 0), &mut all)).unwrap();
    assert_eq!(all, bytes_of(0..3 * PAGE_SIZE));
}

#[test]
fn a_write_changes_its_bytes_and_no_others() {
    let world = World::new();
    let vmo = world.vmo(3);
    world.supply(&vmo, 0, 3).unwrap();
    let mut expected = bytes_of(0..3 * PAGE_SIZE);
    for (n, offset) in [0usize, 1, 8, 100, 4090, 4095, 8000, 12_287].into_iter().enumerate() {
        for len in [1usize, 2, 8, 13, 4099] {
            let len = len.min(3 * 4096 - offset);
            let bytes: Vec<u8> = (0..len).map(|i| u8::try_from((i * 7 + n) % 251).unwrap()).collect();
            now(vmo.write(ByteOffset(offset as u64), &bytes)).unwrap();
            expected[offset..offset + len].copy_from_slice(&bytes);
        }
    }
    let mut all = vec![0; 3 * 4096];
    now(vmo.read(at(0, 0), &mut all)).unwrap();
    assert_eq!(all, expected);
}

#[test]
fn a_read_of_an_absent_page_asks_for_it_and_waits() {
    let world = World::new();
    let vmo = world.vmo(2);
    let mut bytes = [0; 5];
    let mut reader = Task::new(vmo.read(at(1, 10), &mut bytes));
    assert_eq!(world.packets(), [], "nothing happens before the first poll");
    assert_eq!(reader.poll(), None);
    assert_eq!(world.packets(), [read_packet(1, 1)]);
    world.supply(&vmo, 1, 1).unwrap();
    assert_eq!(reader.woken_with(), Ok(()));
    assert_eq!(bytes[..], pattern(1)[10..15]);
    assert_eq!(vmo.counts().dirty, PageCount(0), "reading does not dirty");
}

#[test]
fn a_write_to_an_absent_page_reads_it_first_and_then_dirties_it() {
    let world = World::new();
    let vmo = world.vmo(2);
    let writer = Task::pending(vmo.write(at(1, 10), &[1, 2, 3]));
    assert_eq!(world.packets(), [read_packet(1, 1)]);
    assert_eq!(dirty_ranges(&world.pager, &vmo), [], "not before the bytes are in");
    world.supply(&vmo, 1, 1).unwrap();
    assert_eq!(writer.woken_with(), Ok(()));
    let mut expected = pattern(1);
    expected[10..13].copy_from_slice(&[1, 2, 3]);
    assert_eq!(world.contents(&vmo, 1), expected);
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(1, 1)]);
    assert_eq!(world.packets(), [], "no DIRTY request: this VMO does not trap");
}

#[test]
fn a_write_dirties_the_pages_it_touches_and_no_others() {
    let world = World::new();
    let vmo = world.vmo(6);
    world.supply(&vmo, 0, 6).unwrap();
    now(vmo.write(at(1, 4095), &[1, 2])).unwrap();
    now(vmo.write(at(4, 0), &vec![0; 4096])).unwrap();
    now(vmo.write(at(5, 0), &[])).unwrap();
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(1, 2), (4, 1)]);
    assert_eq!(vmo.counts().dirty, PageCount(3));
}

#[test]
fn no_bytes_need_no_page() {
    let world = World::new();
    let vmo = world.vmo(1);
    for offset in [0, 5, PAGE_SIZE] {
        assert_eq!(now(vmo.read(ByteOffset(offset), &mut [])), Ok(()));
        assert_eq!(now(vmo.write(ByteOffset(offset), &[])), Ok(()));
    }
    assert_eq!(world.packets(), []);
    let empty = world.vmo(0);
    assert_eq!(now(empty.read(at(0, 0), &mut [])), Ok(()));
    assert_eq!(now(empty.read(at(0, 0), &mut [0])), Err(Status::OutOfRange));
}

#[test]
fn the_last_byte_can_be_read_and_written() {
    let world = World::new();
    let vmo = world.vmo(5);
    world.supply(&vmo, 4, 1).unwrap();
    let mut byte = [0];
    now(vmo.read(at(4, 4095), &mut byte)).unwrap();
    assert_eq!(byte[0], pattern(4)[4095]);
    now(vmo.write(at(4, 4095), &[!byte[0]])).unwrap();
    assert_eq!(world.contents(&vmo, 4)[4095], !byte[0]);
}

#[test]
fn a_failed_read_has_filled_a_prefix() {
    let world = World::new();
    let vmo = world.vmo(3);
    world.supply(&vmo, 0, 1).unwrap();
    world.supply(&vmo, 2, 1).unwrap();
    let mut bytes = vec![0xee; 3 * 4096 - 8];
    let reader = Task::pending(vmo.read(at(0, 4), &mut bytes));
    assert_eq!(world.packets(), [read_packet(1, 1)]);
    world.pager.fail_range(&vmo, pages(1, 1), Status::IoDataIntegrity).unwrap();
    assert_eq!(reader.woken_with(), Err(Status::IoDataIntegrity));
    assert_eq!(bytes[..4092], bytes_of(4..PAGE_SIZE)[..]);
    assert!(bytes[4092..].iter().all(|byte| *byte == 0xee), "nothing behind the page that failed");
}

#[test]
fn a_failed_write_has_written_a_prefix() {
    let world = World::new();
    let vmo = world.vmo(3);
    world.supply(&vmo, 0, 1).unwrap();
    world.supply(&vmo, 2, 1).unwrap();
    let bytes = vec![0xee; 3 * 4096];
    let writer = Task::pending(vmo.write(at(0, 0), &bytes));
    world.pager.fail_range(&vmo, pages(1, 1), Status::NoSpace).unwrap();
    assert_eq!(writer.woken_with(), Err(Status::NoSpace));
    assert_eq!(world.contents(&vmo, 0), bytes[..4096]);
    assert_eq!(world.contents(&vmo, 2), pattern(2));
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(0, 1)]);
}

#[test]
fn an_abandoned_write_has_written_a_prefix() {
    let world = World::new();
    let vmo = world.vmo(2);
    world.supply(&vmo, 0, 1).unwrap();
    drop(Task::pending(vmo.write(at(0, 4094), &[1, 2, 3, 4])));
    world.supply(&vmo, 1, 1).unwrap();
    assert_eq!(world.contents(&vmo, 0)[4094..], [1, 2]);
    assert_eq!(world.contents(&vmo, 1), pattern(1));
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(0, 1)]);
}

#[test]
fn a_fault_makes_the_page_resident_or_dirty_and_changes_no_byte() {
    let world = World::new();
    let vmo = world.vmo(2);
    let read = Task::pending(vmo.fault(PageIndex(0), Access::Read));
    let write = Task::pending(vmo.fault(PageIndex(1), Access::Write));
    assert_eq!(world.packets(), [read_packet(0, 2)]);
    world.supply(&vmo, 0, 2).unwrap();
    assert_eq!(dirty_ranges(&world.pager, &vmo), [], "the writer has not run yet");
    assert_eq!(read.woken_with(), Ok(()));
    assert_eq!(write.woken_with(), Ok(()));
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(1, 1)]);
    assert_eq!(world.contents(&vmo, 0), pattern(0));
    assert_eq!(world.contents(&vmo, 1), pattern(1));
    assert_eq!(now(vmo.fault(PageIndex(0), Access::Write)), Ok(()));
    assert_eq!(dirty_ranges(&world.pager, &vmo), [(0, 2)]);
}

#[test]
fn readers_and_writers_of_one_absent_page_share_its_request() {
    let world = World::new();
    let vmo = world.vmo(1);
    let (mut first, mut second) = ([0; 1], [0; 4096]);
    let one = Task::pending(vmo.read(at(0, 0), &mut first));
    let two = Task::pending(vmo.write(at(0, 1), &[9]));
    let three = Task::pending(vmo.read(at(0, 0), &mut second));
    assert_eq!(world.packets(), [read_packet(0, 1)]);
    world.supply(&vmo, 0, 1).unwrap();
    assert_eq!(one.woken_with(), Ok(()));
    assert_eq!(two.woken_with(), Ok(()));
    assert_eq!(three.woken_with(), Ok(()));
    assert_eq!((first[0], second[1]), (pattern(0)[0], 9), "the last one to run sees the write");
}

#[test]
fn a_long_access_goes_on_where_it_stopped() {
    let world = World::new();
    let vmo = world.vmo(40);
    world.supply(&vmo, 10, 10).unwrap();
    let mut bytes = vec![0; 40 * 4096];
    let mut reader = Task::new(vmo.read(at(0, 0), &mut bytes));
    assert_eq!(reader.poll(), None);
    assert_eq!(world.packets(), [read_packet(0, 10)]);
    world.supply(&vmo, 0, 10).unwrap();
    assert_eq!(reader.poll(), None);
    assert_eq!(world.packets(), [read_packet(20, 20)]);
    world.supply(&vmo, 20, 20).unwrap();
    assert_eq!(reader.poll(), Some(Ok(())));
    assert_eq!(reader.wakes(), 2);
    drop(reader);
    assert_eq!(bytes, bytes_of(0..40 * PAGE_SIZE));
}
