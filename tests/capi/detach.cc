// zx_pager_detach_vmo(), and what ends with a pager, a VMO or a port.

#include "world.h"

using namespace conformance;

CASE(detach, sends_complete_as_the_last_packet) {
  const World world;
  const Handle vmo = world.vmo(1);
  CHECK_OK(world.detach(vmo));
  world.expect_complete();
  CHECK_STATUS(read_status(vmo, 0, 1), ZX_ERR_BAD_STATE);
  world.expect_nothing(5);
}

CASE(detach, again_is_no_error_and_sends_nothing) {
  const World world;
  const Handle vmo = world.vmo(1);
  CHECK_OK(world.detach(vmo));
  world.expect_complete();
  CHECK_OK(world.detach(vmo));
  world.expect_nothing(5);
}

CASE(detach, fails_requests_in_flight) {
  const World world;
  const Handle vmo = world.vmo(2);
  Later reader = read_pages_later(vmo, 0), writer = write_later(vmo, kPage, Bytes(1));
  world.next();
  world.next();
  CHECK_OK(world.detach(vmo));
  CHECK_STATUS(reader.status(), ZX_ERR_BAD_STATE);
  CHECK_STATUS(writer.status(), ZX_ERR_BAD_STATE);
  world.expect_complete();
  world.expect_nothing();
}

CASE(detach, fails_requests_nobody_has_taken_yet) {
  const World world;
  const Handle vmo = world.vmo(1);
  Later reader = read_pages_later(vmo, 0);
  CHECK(reader.waits());
  CHECK_OK(world.detach(vmo));
  CHECK_STATUS(reader.status(), ZX_ERR_BAD_STATE);
  zx_port_packet_t packet = world.next();
  if (packet.page_request.command == ZX_PAGER_VMO_READ) packet = world.next();  // may still come
  CHECK_EQ(packet.page_request.command, ZX_PAGER_VMO_COMPLETE);
  world.expect_nothing();
}

CASE(detach, fails_dirty_requests) {
  const World world;
  const Handle vmo = world.full(1, ZX_VMO_TRAP_DIRTY);
  Later writer = write_later(vmo, 0, Bytes(1));
  world.expect_dirty(0);
  CHECK_OK(world.detach(vmo));
  CHECK_STATUS(writer.status(), ZX_ERR_BAD_STATE);
  world.expect_complete();
}

CASE(detach, later_accesses_that_need_the_pager_fail) {
  const World world;
  const Handle vmo = world.vmo(2);
  CHECK_OK(world.detach(vmo));
  CHECK_STATUS(read_status(vmo, 0, 1), ZX_ERR_BAD_STATE);
  CHECK_STATUS(write_status(vmo, kPage, 1), ZX_ERR_BAD_STATE);
  CHECK_STATUS(op(vmo, ZX_VMO_OP_COMMIT, 0, 2), ZX_ERR_BAD_STATE);
  world.expect_complete();
  world.expect_nothing();
}

CASE(detach, drops_clean_pages_at_once) {
  const World world;
  const Handle vmo = world.full(4);
  CHECK_OK(world.detach(vmo));
  CHECK_EQ(committed_pages(vmo), 0u);
  CHECK_STATUS(read_status(vmo, 0, 1), ZX_ERR_BAD_STATE);
}

CASE(detach, keeps_dirty_pages_readable_and_writable) {
  const World world;
  const Handle vmo = world.full(3);
  write(vmo, kPage, content(1, 1, 4));
  CHECK_OK(world.detach(vmo));
  CHECK_EQ(committed_pages(vmo), 1u);
  CHECK_EQ(read_pages(vmo, 1), content(1, 1, 4));
  write(vmo, kPage, content(1, 1, 5));
  CHECK_EQ(read_pages(vmo, 1), content(1, 1, 5));
}

CASE(detach, a_read_over_a_dirty_and_a_dropped_page_fails) {
  const World world;
  const Handle vmo = world.full(2);
  write(vmo, 0, content(0, 1, 4));
  CHECK_OK(world.detach(vmo));
  CHECK_STATUS(read_status(vmo, 0, 2 * kPage), ZX_ERR_BAD_STATE);
}

CASE(detach, a_read_half_of_which_was_supplied_fails) {
  const World world;
  const Handle vmo = world.vmo(2);
  Later reader = read_pages_later(vmo, 0, 2);
  world.expect_read(0, 2);
  world.supply(vmo, 0, 1);
  CHECK_OK(world.detach(vmo));
  CHECK_STATUS(reader.status(), ZX_ERR_BAD_STATE);
}

CASE(detach, dirty_pages_are_queried_and_written_back_after_complete) {
  const World world;
  const Handle vmo = world.full(3);
  write(vmo, kPage, Bytes(2 * kPage, 0xaa));
  CHECK_OK(world.detach(vmo));
  world.expect_complete();
  CHECK_EQ(world.dirty_ranges(vmo), (Ranges{{1, 2}}));
  CHECK_OK(world.begin(vmo, 1, 2));
  CHECK_EQ(read_pages(vmo, 1, 2), Bytes(2 * kPage, 0xaa));
  CHECK_OK(world.end(vmo, 1, 2));
  CHECK_EQ(world.dirty_ranges(vmo), Ranges{});
}

CASE(detach, a_write_to_a_page_awaiting_clean_dirties_it_again) {
  const World world;
  const Handle vmo = world.full(1);
  write(vmo, 0, Bytes(kPage, 0xaa));
  CHECK_OK(world.detach(vmo));
  CHECK_OK(world.begin(vmo, 0, 1));
  write(vmo, 0, Bytes(1, 0xbb));
  CHECK_OK(world.end(vmo, 0, 1));
  CHECK_EQ(world.dirty_ranges(vmo), (Ranges{{0, 1}}));
}

CASE(detach, a_write_that_needs_leave_fails) {
  const World world;
  const Handle vmo = world.full(1, ZX_VMO_TRAP_DIRTY);
  CHECK_OK(world.dirty(vmo, 0, 1));
  CHECK_OK(world.begin(vmo, 0, 1));
  CHECK_OK(world.detach(vmo));
  CHECK_STATUS(write_status(vmo, 0, 1), ZX_ERR_BAD_STATE);
  CHECK_EQ(read_pages(vmo, 0), content(0));
}

CASE(detach, of_a_vmo_of_another_pager_is_invalid_and_does_nothing) {
  const World world, other;
  const Handle vmo = other.full(1), plain = anonymous(1);
  CHECK_STATUS(world.detach(vmo), ZX_ERR_INVALID_ARGS);
  CHECK_STATUS(world.detach(plain), ZX_ERR_INVALID_ARGS);
  CHECK_EQ(read_pages(vmo, 0), content(0));
  other.expect_nothing();
}

CASE(detach, handles_are_checked_in_order) {
  const World world;
  const Handle vmo = world.vmo(1);
  CHECK_STATUS(zx_pager_detach_vmo(0, 0), ZX_ERR_BAD_HANDLE);
  CHECK_STATUS(zx_pager_detach_vmo(world.port.get(), 0), ZX_ERR_WRONG_TYPE);
  CHECK_STATUS(zx_pager_detach_vmo(world.pager.get(), 0), ZX_ERR_BAD_HANDLE);
  CHECK_STATUS(zx_pager_detach_vmo(world.pager.get(), world.port.get()), ZX_ERR_WRONG_TYPE);
  CHECK_STATUS(zx_pager_detach_vmo(vmo.get(), world.pager.get()), ZX_ERR_WRONG_TYPE);
  world.expect_nothing();
}

CASE(detach, works_for_handles_without_any_right) {
  const World world;
  const Handle vmo = world.vmo(1);
  const Handle pager = world.pager.duplicate(0), bare = vmo.duplicate(0);
  CHECK_OK(zx_pager_detach_vmo(pager.get(), bare.get()));
  world.expect_complete();
}

CASE(detach, other_vmos_of_the_pager_go_on) {
  const World world;
  const Handle one = world.full(1, 0, 1), two = world.full(1, 0, 2);
  CHECK_OK(world.detach(one));
  world.expect_complete(1);
  CHECK_EQ(read_pages(two, 0), content(0));
  CHECK_OK(zx_vmo_op_range(two.get(), ZX_VMO_OP_COMMIT, 0, kPage, nullptr, 0));
}

CASE(detach, closing_the_pager_fails_requests_and_sends_no_complete) {
  World world;
  const Handle vmo = world.vmo(2);
  world.supply(vmo, 1, 1);
  Later reader = read_pages_later(vmo, 0);
  world.expect_read(0);
  world.pager.reset();
  CHECK_STATUS(reader.status(), ZX_ERR_BAD_STATE);
  world.expect_nothing(5);
  CHECK_EQ(read_pages(vmo, 1), content(1));
  CHECK_STATUS(read_status(vmo, 0, 1), ZX_ERR_BAD_STATE);
}

CASE(detach, closing_one_of_two_pager_handles_changes_nothing) {
  World world;
  const Handle vmo = world.vmo(1);
  Handle twin = world.pager.duplicate();
  world.pager.reset();
  Later reader = read_pages_later(vmo, 0);
  world.expect_read(0);
  world.pager = std::move(twin);
  world.supply(vmo, 0, 1);
  CHECK_OK(reader.status());
}

CASE(detach, closing_the_pager_withdraws_queued_packets) {
  World world;
  const Handle vmo = world.vmo(1);
  Later reader = read_pages_later(vmo, 0);
  CHECK(reader.waits());
  world.pager.reset();
  CHECK_STATUS(reader.status(), ZX_ERR_BAD_STATE);
  world.expect_nothing(5);
}

CASE(detach, a_write_that_needs_leave_fails_without_its_pager) {
  World world;
  const Handle vmo = world.full(1, ZX_VMO_TRAP_DIRTY);
  world.pager.reset();
  CHECK_STATUS(write_status(vmo, 0, 1), ZX_ERR_BAD_STATE);
  CHECK_EQ(read_pages(vmo, 0), content(0));
}

CASE(detach, closing_the_last_handle_of_a_vmo_sends_complete) {
  const World world;
  Handle vmo = world.full(1), twin = vmo.duplicate();
  vmo.reset();
  world.expect_nothing(2);
  twin.reset();
  world.expect_complete();
  world.expect_nothing();
}

CASE(detach, closing_a_detached_vmo_sends_no_second_complete) {
  const World world;
  Handle vmo = world.vmo(1);
  CHECK_OK(world.detach(vmo));
  world.expect_complete();
  vmo.reset();
  world.expect_nothing(5);
}

CASE(detach, without_its_port_a_vmo_works_until_it_needs_a_page) {
  World world;
  const Handle vmo = world.full(2);
  world.port.reset();
  CHECK_EQ(read_pages(vmo, 0, 2), content(0, 2));
  write(vmo, 0, content(0, 1, 3));
  CHECK_EQ(world.dirty_ranges(vmo), (Ranges{{0, 1}}));
  CHECK_OK(world.detach(vmo));
}

CASE(detach, ends_the_wait_for_a_service_that_never_comes) {
  World world;
  const Handle vmo = world.vmo(1);
  world.port.reset();
  Later reader = read_pages_later(vmo, 0);
  CHECK(reader.waits());
  CHECK_OK(world.detach(vmo));
  CHECK_STATUS(reader.status(), ZX_ERR_BAD_STATE);
}

CASE(detach, without_its_port_pages_can_still_be_supplied) {
  World world;
  const Handle vmo = world.vmo(1);
  world.port.reset();
  Later reader = read_pages_later(vmo, 0);
  CHECK(reader.waits());
  world.supply(vmo, 0, 1);
  CHECK_OK(reader.status());
}
