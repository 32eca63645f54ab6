//! Options of a VMO, and the packets that its requests come in.

use std::mem::offset_of;

use upager::{
    Access, Command, MAX_VMO_SIZE, PACKET_TYPE_PAGE_REQUEST, PAGE_SIZE, Packet, PageCount, PageIndex, PageRequest,
    Pager, Status, VmoOptions,
};
use upager_tests::{KEY, Task, World, at, complete_packet, now, read_packet};

#[test]
fn options_have_zircons_bits_and_no_others() {
    assert_eq!(VmoOptions::from_bits(0), Ok(VmoOptions::NONE));
    assert_eq!(VmoOptions::from_bits(2), Ok(VmoOptions::RESIZABLE));
    assert_eq!(VmoOptions::from_bits(8), Ok(VmoOptions::TRAP_DIRTY));
    assert!(VmoOptions::from_bits(2 | 8).is_ok());
    for bit in (0..32).filter(|bit| ![1, 3].contains(bit)) {
        assert_eq!(VmoOptions::from_bits(1 << bit), Err(Status::InvalidArgs), "bit {bit}");
        assert_eq!(VmoOptions::from_bits(1 << bit | 2), Err(Status::InvalidArgs), "bit {bit} beside a good one");
    }
}

#[test]
fn commands_have_zircons_numbers_and_no_others() {
    assert_eq!((Command::Read as u16, Command::Complete as u16, Command::Dirty as u16), (0, 1, 2));
    for raw in 0..3 {
        assert_eq!(Command::from_raw(raw).map(|command| command as u16), Some(raw));
    }
    for raw in 3..=u16::MAX {
        assert_eq!(Command::from_raw(raw), None);
    }
}

#[test]
fn a_packet_has_zircons_layout_and_is_48_bytes() {
    assert_eq!((size_of::<Packet>(), align_of::<Packet>()), (48, 8));
    assert_eq!(offset_of!(Packet, key), 0);
    assert_eq!(offset_of!(Packet, packet_type), 8);
    assert_eq!(offset_of!(Packet, status), 12);
    assert_eq!(offset_of!(Packet, page_request), 16);
    assert_eq!(offset_of!(PageRequest, command), 0);
    assert_eq!(offset_of!(PageRequest, flags), 2);
    assert_eq!(offset_of!(PageRequest, reserved0), 4);
    assert_eq!(offset_of!(PageRequest, offset), 8);
    assert_eq!(offset_of!(PageRequest, length), 16);
    assert_eq!(offset_of!(PageRequest, reserved1), 24);
    assert_eq!(size_of::<PageRequest>(), 32);
    assert_eq!(PACKET_TYPE_PAGE_REQUEST, 9);
}

#[test]
fn a_read_packet_names_vmo_type_status_and_whole_pages() {
    let world = World::new();
    let vmo = world.vmo(8);
    let mut some = [0; 10];
    let _waiter = Task::pending(vmo.read(at(3, 4090), &mut some));
    let packets = world.packets();
    assert_eq!(packets.len(), 1);
    let Packet { key, packet_type, status, page_request } = packets[0];
    assert_eq!((key, packet_type, status), (KEY, 9, 0));
    assert_eq!((page_request.command, page_request.flags), (0, 0));
    assert_eq!((page_request.reserved0, page_request.reserved1), (0, 0));
    assert_eq!((page_request.offset, page_request.length), (3 * PAGE_SIZE, 2 * PAGE_SIZE));
    assert_eq!(packets[0].range(), upager_tests::pages(3, 2));
}

#[test]
fn complete_has_neither_offset_nor_length() {
    let world = World::new();
    let vmo = world.vmo(8);
    world.pager.detach_vmo(&vmo).unwrap();
    let packets = world.packets();
    assert_eq!(packets.len(), 1);
    let Packet { key, packet_type, status, page_request } = packets[0];
    assert_eq!((key, packet_type, status), (KEY, 9, 0));
    let expected = PageRequest { command: 1, flags: 0, reserved0: 0, offset: 0, length: 0, reserved1: 0 };
    assert_eq!(page_request, expected);
}

#[test]
fn reads_come_in_the_order_in_which_they_were_asked_for() {
    let world = World::new();
    let vmo = world.vmo(64);
    let order = [9, 3, 40, 1, 22, 63, 0, 17];
    let _waiters: Vec<_> = order.map(|page| Task::pending(vmo.fault(PageIndex(page), Access::Read))).into();
    assert_eq!(world.packets(), order.map(|page| read_packet(page, 1)));
}

#[test]
fn any_number_of_reads_then_one_complete_then_nothing() {
    let world = World::new();
    let vmo = world.vmo(64);
    let waiters: Vec<_> = (0..32).map(|page| Task::pending(vmo.fault(PageIndex(2 * page), Access::Read))).collect();
    assert_eq!(world.packets(), (0..32).map(|page| read_packet(2 * page, 1)).collect::<Vec<_>>());
    world.pager.detach_vmo(&vmo).unwrap();
    assert_eq!(world.packets(), [complete_packet()]);
    drop(waiters);
    for page in 0..64 {
        assert_eq!(now(vmo.fault(PageIndex(page), Access::Read)), Err(Status::BadState));
    }
    world.pager.detach_vmo(&vmo).unwrap();
    drop(vmo);
    assert_eq!(world.packets(), []);
}

#[test]
fn complete_comes_at_most_once_though_the_buffer_has_room_for_one_packet() {
    let world = World::new();
    let vmo = world.vmo(4);
    let waiters = [0, 2].map(|page| Task::pending(vmo.fault(PageIndex(page), Access::Read)));
    let mut one = [Packet::default()];
    for expected in [read_packet(0, 1), read_packet(2, 1)] {
        assert_eq!(world.port.take(&mut one), 1);
        assert_eq!(one[0], expected);
    }
    drop(waiters);
    world.pager.detach_vmo(&vmo).unwrap();
    assert_eq!(world.port.take(&mut []), 0);
    assert_eq!(world.port.take(&mut one), 1);
    assert_eq!(one[0], complete_packet());
    assert_eq!(world.port.take(&mut one), 0);
}

#[test]
fn keys_tell_the_vmos_of_several_pagers_on_one_port_apart() {
    let world = World::new();
    let other = Pager::new(world.platform.clone());
    let first = world.vmo_with_key(1, 0);
    let second = world.vmo_with_key(1, u64::MAX);
    let third = other.create_vmo(&world.port, 77, VmoOptions::NONE, PAGE_SIZE).unwrap();
    assert_eq!([first.key(), second.key(), third.key()], [0, u64::MAX, 77]);
    let _waiters = [&third, &first, &second].map(|vmo| Task::pending(vmo.fault(PageIndex(0), Access::Read)));
    let mut keys: Vec<_> = world.packets().iter().map(|packet| packet.key).collect();
    keys.sort_unstable();
    assert_eq!(keys, [0, 77, u64::MAX]);
}

#[test]
fn two_vmos_may_have_the_same_key() {
    let world = World::new();
    let vmos = [world.vmo(1), world.vmo(1)];
    let _waiters = vmos.each_ref().map(|vmo| Task::pending(vmo.fault(PageIndex(0), Access::Read)));
    assert_eq!(world.packets(), [read_packet(0, 1), read_packet(0, 1)]);
}

#[test]
fn a_vmo_is_as_large_as_asked_for_rounded_up_to_pages() {
    let world = World::new();
    for (asked, size) in [(0, 0), (1, 4096), (4095, 4096), (4096, 4096), (4097, 8192), (MAX_VMO_SIZE - 1, MAX_VMO_SIZE)]
    {
        let vmo = world.pager.create_vmo(&world.port, KEY, VmoOptions::NONE, asked).unwrap();
        assert_eq!(vmo.size(), size);
        let last = size / PAGE_SIZE;
        assert_eq!(now(vmo.fault(PageIndex(last), Access::Read)), Err(Status::OutOfRange));
        if let Some(page) = last.checked_sub(1) {
            drop(Task::pending(vmo.fault(PageIndex(page), Access::Read)));
        }
    }
}

#[test]
fn a_new_vmo_is_empty_and_asks_for_nothing() {
    let world = World::new();
    let vmo = world.vmo(16);
    let counts = vmo.counts();
    assert_eq!((counts.resident, counts.dirty), (PageCount(0), PageCount(0)));
    assert_eq!((counts.in_flight, counts.requests, counts.joins), (0, 0, 0));
    assert_eq!(world.packets(), []);
    assert!(std::sync::Arc::ptr_eq(vmo.platform(), &world.platform));
    assert_ne!(vmo.id(), world.vmo(16).id());
}
