// zx_port_*().

#include "world.h"

using namespace conformance;

namespace {
zx_port_packet_t user_packet(uint64_t key, uint8_t byte = 0) {
  zx_port_packet_t packet;
  std::memset(&packet, 0, sizeof(packet));
  packet.key = key;
  packet.type = ZX_PKT_TYPE_USER;
  std::memset(packet.user.c8, byte, sizeof(packet.user.c8));
  return packet;
}
void queue(const World& world, uint64_t key, uint8_t byte = 0) {
  const zx_port_packet_t packet = user_packet(key, byte);
  CHECK_OK(zx_port_queue(world.port.get(), &packet));
}
}  // namespace

CASE(ports, a_user_packet_arrives_as_it_was_queued) {
  const World world;
  zx_port_packet_t packet = user_packet(UINT64_MAX, 0xc3);
  packet.status = -77;
  CHECK_OK(zx_port_queue(world.port.get(), &packet));
  const zx_port_packet_t got = world.next();
  CHECK(std::memcmp(&got, &packet, sizeof(packet)) == 0);
}

CASE(ports, user_packets_arrive_in_order) {
  const World world;
  for (uint64_t key = 0; key < 100; key++) queue(world, key);
  for (uint64_t key = 0; key < 100; key++) CHECK_EQ(world.next().key, key);
  world.expect_nothing();
}

CASE(ports, a_wait_with_a_deadline_that_is_past_looks_once) {
  const World world;
  queue(world, 3);
  zx_port_packet_t packet;
  CHECK_OK(zx_port_wait(world.port.get(), 0, &packet));
  CHECK_EQ(packet.key, 3u);
  CHECK_STATUS(zx_port_wait(world.port.get(), 0, &packet), ZX_ERR_TIMED_OUT);
  CHECK_STATUS(zx_port_wait(world.port.get(), ZX_TIME_INFINITE_PAST, &packet), ZX_ERR_TIMED_OUT);
}

CASE(ports, a_wait_times_out_at_its_deadline_and_not_before) {
  const World world;
  zx_port_packet_t packet;
  const zx_time_t deadline = in_ms(20);
  CHECK_STATUS(zx_port_wait(world.port.get(), deadline, &packet), ZX_ERR_TIMED_OUT);
  CHECK(zx_clock_get_monotonic() >= deadline);
}

CASE(ports, a_wait_that_times_out_leaves_the_packet_alone) {
  const World world;
  zx_port_packet_t packet, before;
  std::memset(&packet, 0x5a, sizeof(packet));
  std::memcpy(&before, &packet, sizeof(packet));
  CHECK_STATUS(zx_port_wait(world.port.get(), in_ms(1), &packet), ZX_ERR_TIMED_OUT);
  CHECK(std::memcmp(&packet, &before, sizeof(packet)) == 0);
}

CASE(ports, a_packet_wakes_who_waits) {
  const World world;
  Task sender([&] {
    zx_nanosleep(in_ms(10));
    queue(world, 5);
  });
  zx_port_packet_t packet;
  CHECK_OK(zx_port_wait(world.port.get(), ZX_TIME_INFINITE, &packet));
  CHECK_EQ(packet.key, 5u);
}

CASE(ports, only_user_packets_can_be_queued) {
  const World world;
  zx_port_packet_t packet = user_packet(1);
  for (const uint32_t type : {1u, 8u, uint32_t{ZX_PKT_TYPE_PAGE_REQUEST}, UINT32_MAX}) {
    packet.type = type;
    CHECK_STATUS(zx_port_queue(world.port.get(), &packet), ZX_ERR_INVALID_ARGS);
  }
  world.expect_nothing();
}

CASE(ports, hold_so_many_user_packets) {
  const World world;
  const zx_port_packet_t packet = user_packet(1);
  for (int n = 0; n < 2048; n++) CHECK_OK(zx_port_queue(world.port.get(), &packet));
  CHECK_STATUS(zx_port_queue(world.port.get(), &packet), ZX_ERR_SHOULD_WAIT);
  world.next();
  CHECK_OK(zx_port_queue(world.port.get(), &packet));
}

CASE(ports, user_packets_and_page_requests_do_not_starve_each_other) {
  const World world;
  const Handle vmo = world.vmo(1);
  for (int n = 0; n < 50; n++) queue(world, 100);
  Later reader = read_pages_later(vmo, 0);
  CHECK(reader.waits(40));
  // Should its thread be late, it meets those that are queued meanwhile.
  int before = 0;
  for (; world.next().type != ZX_PKT_TYPE_PAGE_REQUEST; before++) queue(world, 100);
  CHECK(before < 2000);
  world.supply(vmo, 0, 1);
  CHECK_OK(reader.status());
  for (int n = 0; n < 50; n++) CHECK_EQ(world.next().key, 100u);
  world.expect_nothing();
}

CASE(ports, cancel_key_withdraws_what_is_queued_under_the_key) {
  const World world;
  queue(world, 1);
  queue(world, 2);
  queue(world, 1);
  CHECK_OK(zx_port_cancel_key(world.port.get(), 0, 1));
  CHECK_EQ(world.next().key, 2u);
  world.expect_nothing();
  CHECK_STATUS(zx_port_cancel_key(world.port.get(), 0, 1), ZX_ERR_NOT_FOUND);
}

CASE(ports, cancel_key_withdraws_a_page_request_which_stays_in_flight) {
  const World world;
  const Handle vmo = world.vmo(1);
  Later reader = read_pages_later(vmo, 0);
  const zx_time_t deadline = in_ms(20'000);
  zx_status_t status = ZX_ERR_NOT_FOUND;
  while (status == ZX_ERR_NOT_FOUND && zx_clock_get_monotonic() < deadline) {
    status = zx_port_cancel_key(world.port.get(), 0, kKey);  // its thread may not have asked yet
  }
  CHECK_OK(status);
  world.expect_nothing();
  CHECK(reader.waits());
  world.supply(vmo, 0, 1);
  CHECK_OK(reader.status());
}

CASE(ports, cancel_key_takes_no_options) {
  const World world;
  queue(world, 1);
  CHECK_STATUS(zx_port_cancel_key(world.port.get(), 1, 1), ZX_ERR_INVALID_ARGS);
  CHECK_EQ(world.next().key, 1u);
}

CASE(ports, cancel_of_a_source_finds_nothing) {
  const World world;
  const Handle vmo = world.vmo(1);
  queue(world, kKey);
  CHECK_STATUS(zx_port_cancel(world.port.get(), vmo.get(), kKey), ZX_ERR_NOT_FOUND);
  CHECK_EQ(world.next().key, kKey);
}

CASE(ports, need_to_read_to_wait_and_to_write_to_queue_and_cancel) {
  const World world;
  const Handle reads = world.port.duplicate(ZX_RIGHT_READ), writes = world.port.duplicate(ZX_RIGHT_WRITE);
  zx_port_packet_t packet = user_packet(1);
  CHECK_STATUS(zx_port_queue(reads.get(), &packet), ZX_ERR_ACCESS_DENIED);
  CHECK_OK(zx_port_queue(writes.get(), &packet));
  CHECK_STATUS(zx_port_wait(writes.get(), 0, &packet), ZX_ERR_ACCESS_DENIED);
  CHECK_STATUS(zx_port_cancel_key(reads.get(), 0, 1), ZX_ERR_ACCESS_DENIED);
  CHECK_OK(zx_port_wait(reads.get(), 0, &packet));
}

CASE(ports, a_pagers_vmo_needs_a_port_that_can_be_written) {
  const World world;
  const Handle reads = world.port.duplicate(ZX_RIGHT_READ), writes = world.port.duplicate(ZX_RIGHT_WRITE);
  Handle vmo;
  CHECK_STATUS(zx_pager_create_vmo(world.pager.get(), 0, reads.get(), 1, kPage, vmo.out()), ZX_ERR_ACCESS_DENIED);
  CHECK_OK(zx_pager_create_vmo(world.pager.get(), 0, writes.get(), 1, kPage, vmo.out()));
}

CASE(ports, take_no_options) {
  Handle port;
  for (const uint32_t options : {1u, 2u, UINT32_MAX}) {
    CHECK_STATUS(zx_port_create(options, port.out()), ZX_ERR_INVALID_ARGS);
  }
}

CASE(ports, closing_a_port_under_a_wait_lets_the_wait_go_on_to_its_deadline) {
  for (int round = 0;; round++) {
    World world;
    const zx_handle_t port = world.port.get();
    Later wait([=](Bytes&) {
      zx_port_packet_t packet;
      return zx_port_wait(port, in_ms(40), &packet);
    }, {});
    CHECK(wait.waits(5));
    world.port.reset();
    zx_port_packet_t packet;
    CHECK_STATUS(zx_port_wait(port, 0, &packet), ZX_ERR_BAD_HANDLE);
    // Its thread may have been too late to wait before the port was closed.
    if (wait.status() == ZX_ERR_BAD_HANDLE && round < 50) continue;
    CHECK_STATUS(wait.status(), ZX_ERR_TIMED_OUT);
    break;
  }
}

CASE(ports, adjacent_reads_may_be_merged_but_cover_what_was_asked) {
  const World world;
  const Handle vmo = world.vmo(2);
  Later one = read_pages_later(vmo, 0), two = read_pages_later(vmo, 1);
  CHECK(one.waits() && two.waits());
  uint64_t pages = 0;
  while (pages < 2) {
    const zx_packet_page_request_t request = world.next().page_request;
    CHECK_EQ(request.command, ZX_PAGER_VMO_READ);
    pages += request.length / kPage;
  }
  CHECK_EQ(pages, 2u);
  world.expect_nothing();
  world.supply(vmo, 0, 2);
  CHECK_OK(one.status());
  CHECK_OK(two.status());
}
