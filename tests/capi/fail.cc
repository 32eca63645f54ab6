// ZX_PAGER_OP_FAIL.

#include "world.h"

using namespace conformance;

CASE(fail, gives_the_waiter_the_error) {
  const World world;
  const Handle vmo = world.vmo(1);
  for (const zx_status_t error :
       {ZX_ERR_IO, ZX_ERR_IO_DATA_INTEGRITY, ZX_ERR_BAD_STATE, ZX_ERR_NO_SPACE, ZX_ERR_BUFFER_TOO_SMALL}) {
    Later reader = read_pages_later(vmo, 0);
    world.expect_read(0);
    CHECK_OK(world.fail(vmo, 0, 1, error));
    CHECK_STATUS(reader.status(), error);
  }
}

CASE(fail, fails_every_waiter_of_the_request) {
  const World world;
  const Handle vmo = world.vmo(1);
  Later one = read_pages_later(vmo, 0);
  world.expect_read(0);
  Later two = read_pages_later(vmo, 0), three = write_later(vmo, 0, Bytes(1));
  CHECK(two.waits(40) && !three.is_done());
  CHECK_OK(world.fail(vmo, 0, 1, ZX_ERR_IO));
  // Who was too late to join has asked anew.
  while (!two.is_done() || !three.is_done()) {
    zx_port_packet_t packet;
    if (zx_port_wait(world.port.get(), in_ms(5), &packet) == ZX_OK) CHECK_OK(world.fail(vmo, 0, 1, ZX_ERR_IO));
  }
  CHECK_STATUS(one.status(), ZX_ERR_IO);
  CHECK_STATUS(two.status(), ZX_ERR_IO);
  CHECK_STATUS(three.status(), ZX_ERR_IO);
}

CASE(fail, a_later_access_asks_anew) {
  const World world;
  const Handle vmo = world.vmo(1);
  Later first = read_pages_later(vmo, 0);
  world.expect_read(0);
  CHECK_OK(world.fail(vmo, 0, 1, ZX_ERR_IO));
  CHECK_STATUS(first.status(), ZX_ERR_IO);
  Later second = read_pages_later(vmo, 0);
  world.expect_read(0);
  world.supply(vmo, 0, 1);
  CHECK_OK(second.status());
}

CASE(fail, of_any_part_fails_the_whole_request) {
  const World world;
  const Handle vmo = world.vmo(4);
  Later reader = read_pages_later(vmo, 0, 4);
  world.expect_read(0, 4);
  CHECK_OK(world.fail(vmo, 3, 1, ZX_ERR_IO_DATA_INTEGRITY));
  CHECK_STATUS(reader.status(), ZX_ERR_IO_DATA_INTEGRITY);
}

CASE(fail, keeps_what_was_supplied_before) {
  const World world;
  const Handle vmo = world.vmo(2);
  Later reader = read_pages_later(vmo, 0, 2);
  world.expect_read(0, 2);
  world.supply(vmo, 0, 1);
  CHECK_OK(world.fail(vmo, 1, 1, ZX_ERR_IO));
  CHECK_STATUS(reader.status(), ZX_ERR_IO);
  CHECK_EQ(read_pages(vmo, 0), content(0));
}

CASE(fail, does_not_touch_pages_that_are_there) {
  const World world;
  const Handle vmo = world.full(2);
  write(vmo, 0, content(0, 1, 3));
  CHECK_OK(world.fail(vmo, 0, 2, ZX_ERR_IO));
  CHECK_EQ(read_pages(vmo, 0, 2), joined(content(0, 1, 3), content(1)));
  CHECK_EQ(world.dirty_ranges(vmo), (Ranges{{0, 1}}));
}

CASE(fail, without_a_request_does_nothing) {
  const World world;
  const Handle vmo = world.vmo(2);
  CHECK_OK(world.fail(vmo, 0, 2, ZX_ERR_IO));
  Later reader = read_pages_later(vmo, 0);
  world.expect_read(0);
  world.supply(vmo, 0, 1);
  CHECK_OK(reader.status());
}

CASE(fail, leaves_other_requests_alone) {
  const World world;
  const Handle vmo = world.vmo(4);
  Later one = read_pages_later(vmo, 0);
  world.expect_read(0);
  Later two = read_pages_later(vmo, 2);
  world.expect_read(2);
  CHECK_OK(world.fail(vmo, 0, 2, ZX_ERR_IO));
  CHECK_STATUS(one.status(), ZX_ERR_IO);
  CHECK(two.waits());
  world.supply(vmo, 2, 1);
  CHECK_OK(two.status());
}

CASE(fail, takes_five_errors_only) {
  const World world;
  const Handle vmo = world.vmo(1);
  for (const zx_status_t error : {ZX_OK, ZX_ERR_INTERNAL, ZX_ERR_NOT_FOUND, ZX_ERR_OUT_OF_RANGE, ZX_ERR_TIMED_OUT}) {
    CHECK_STATUS(world.fail(vmo, 0, 1, error), ZX_ERR_INVALID_ARGS);
  }
}

CASE(fail, data_must_be_sign_extended) {
  const World world;
  const Handle vmo = world.vmo(1);
  CHECK_STATUS(world.op_range(vmo, ZX_PAGER_OP_FAIL, 0, 1, static_cast<uint32_t>(ZX_ERR_IO)), ZX_ERR_INVALID_ARGS);
}

CASE(fail, after_detach_does_nothing) {
  const World world;
  const Handle vmo = world.vmo(1);
  CHECK_OK(world.detach(vmo));
  CHECK_OK(world.fail(vmo, 0, 1, ZX_ERR_IO));
}

CASE(fail, unknown_operations_are_not_supported) {
  const World world;
  const Handle vmo = world.vmo(1);
  for (const uint32_t op : {0u, 5u, 6u, 100u, UINT32_MAX}) {
    CHECK_STATUS(world.op_range(vmo, op, 0, 1), ZX_ERR_NOT_SUPPORTED);
  }
}

CASE(fail, of_a_dirty_request_fails_the_writer_and_keeps_the_page) {
  const World world;
  const Handle vmo = world.full(1, ZX_VMO_TRAP_DIRTY);
  Later writer = write_later(vmo, 0, Bytes(1, 0xaa));
  world.expect_dirty(0);
  CHECK_OK(world.fail(vmo, 0, 1, ZX_ERR_NO_SPACE));
  CHECK_STATUS(writer.status(), ZX_ERR_NO_SPACE);
  CHECK_EQ(read_pages(vmo, 0), content(0));
  CHECK_EQ(world.dirty_ranges(vmo), Ranges{});
}
