// What makes a page dirty, ZX_VMO_TRAP_DIRTY with ZX_PAGER_OP_DIRTY, and zx_pager_query_dirty_ranges().

#include "world.h"

using namespace conformance;

namespace {
constexpr uint32_t kTrap = ZX_VMO_TRAP_DIRTY;
}

CASE(dirty, the_first_write_makes_a_page_dirty_and_no_other) {
  const World world;
  const Handle vmo = world.full(3);
  write(vmo, kPage + 17, Bytes(1, 0xaa));
  CHECK_EQ(world.dirty_ranges(vmo), (Ranges{{1, 1}}));
  world.expect_nothing();
}

CASE(dirty, where_it_is_not_trapped_there_is_no_packet_and_op_dirty_is_not_supported) {
  const World world;
  const Handle vmo = world.full(1);
  write(vmo, 0, Bytes(1));
  world.expect_nothing();
  CHECK_STATUS(world.dirty(vmo, 0, 1), ZX_ERR_NOT_SUPPORTED);
}

CASE(dirty, a_trapped_write_asks_and_waits) {
  const World world;
  const Handle vmo = world.full(2, kTrap);
  Later writer = write_later(vmo, kPage, Bytes(1, 0xaa));
  world.expect_dirty(1);
  CHECK(writer.waits());
  CHECK_EQ(world.dirty_ranges(vmo), Ranges{});
  CHECK_OK(world.dirty(vmo, 1, 1));
  CHECK_OK(writer.status());
  CHECK_EQ(world.dirty_ranges(vmo), (Ranges{{1, 1}}));
}

CASE(dirty, reads_go_on_under_a_dirty_request) {
  const World world;
  const Handle vmo = world.full(1, kTrap);
  Later writer = write_later(vmo, 0, Bytes(1, 0xaa));
  world.expect_dirty(0);
  CHECK_EQ(read_pages(vmo, 0), content(0));
  CHECK_OK(world.dirty(vmo, 0, 1));
  CHECK_OK(writer.status());
}

CASE(dirty, a_trapped_write_to_an_absent_page_asks_for_it_first) {
  const World world;
  const Handle vmo = world.vmo(1, kTrap);
  Later writer = write_later(vmo, 0, Bytes(1, 0xaa));
  world.expect_read(0);
  world.supply(vmo, 0, 1);
  world.expect_dirty(0);
  CHECK_OK(world.dirty(vmo, 0, 1));
  CHECK_OK(writer.status());
}

CASE(dirty, a_second_writer_joins) {
  const World world;
  const Handle vmo = world.full(1, kTrap);
  Later one = write_later(vmo, 0, Bytes(1, 1));
  world.expect_dirty(0);
  Later two = write_later(vmo, 1, Bytes(1, 2));
  CHECK(two.waits());
  world.expect_nothing();
  CHECK_OK(world.dirty(vmo, 0, 1));
  CHECK_OK(one.status());
  CHECK_OK(two.status());
  CHECK_EQ(read(vmo, 0, 2), (Bytes{1, 2}));
}

CASE(dirty, a_dirty_page_is_written_without_asking) {
  const World world;
  const Handle vmo = world.full(1, kTrap);
  CHECK_OK(world.dirty(vmo, 0, 1));
  write(vmo, 0, Bytes(kPage, 0xaa));
  world.expect_nothing();
}

CASE(dirty, one_dirty_request_covers_a_run) {
  const World world;
  const Handle vmo = world.full(4, kTrap);
  Later writer = write_later(vmo, kPage, Bytes(2 * kPage, 0xaa));
  world.expect_dirty(1, 2);
  CHECK_OK(world.dirty(vmo, 1, 2));
  CHECK_OK(writer.status());
}

CASE(dirty, op_dirty_of_an_absent_page_is_not_found_and_changes_nothing) {
  const World world;
  const Handle vmo = world.vmo(3, kTrap);
  world.supply(vmo, 0, 2);
  CHECK_STATUS(world.dirty(vmo, 0, 3), ZX_ERR_NOT_FOUND);
  CHECK_EQ(world.dirty_ranges(vmo), Ranges{});
}

CASE(dirty, when_op_dirty_fails_the_writers_ask_again) {
  const World world;
  const Handle vmo = world.vmo(2, kTrap);
  world.supply(vmo, 0, 1);
  Later writer = write_later(vmo, 0, Bytes(1, 0xaa));
  world.expect_dirty(0);
  CHECK_STATUS(world.dirty(vmo, 0, 2), ZX_ERR_NOT_FOUND);
  world.expect_dirty(0);
  CHECK_OK(world.dirty(vmo, 0, 1));
  CHECK_OK(writer.status());
}

CASE(dirty, op_dirty_takes_no_data) {
  const World world;
  const Handle vmo = world.full(1, kTrap);
  CHECK_STATUS(world.op_range(vmo, ZX_PAGER_OP_DIRTY, 0, 1, 1), ZX_ERR_INVALID_ARGS);
}

CASE(dirty, op_dirty_of_dirty_pages_changes_nothing) {
  const World world;
  const Handle vmo = world.full(2, kTrap);
  CHECK_OK(world.dirty(vmo, 0, 2));
  write(vmo, 0, Bytes(1, 0xaa));
  CHECK_OK(world.dirty(vmo, 0, 2));
  CHECK_EQ(read(vmo, 0, 1), (Bytes{0xaa}));
  CHECK_EQ(world.dirty_ranges(vmo), (Ranges{{0, 2}}));
}

CASE(dirty, a_trapped_write_to_a_page_awaiting_clean_asks) {
  const World world;
  const Handle vmo = world.full(1, kTrap);
  CHECK_OK(world.dirty(vmo, 0, 1));
  CHECK_OK(world.begin(vmo, 0, 1));
  Later writer = write_later(vmo, 0, Bytes(1, 0xaa));
  world.expect_dirty(0);
  CHECK_OK(world.dirty(vmo, 0, 1));
  CHECK_OK(writer.status());
  CHECK_OK(world.end(vmo, 0, 1));
  CHECK_EQ(world.dirty_ranges(vmo), (Ranges{{0, 1}}));
}

CASE(dirty, query_merges_neighbours_and_ascends) {
  const World world;
  const Handle vmo = world.full(8);
  for (const uint64_t page : {6u, 1u, 2u, 4u}) write(vmo, page * kPage, Bytes(1));
  CHECK_OK(world.begin(vmo, 2, 1));
  CHECK_EQ(world.dirty_ranges(vmo), (Ranges{{1, 2}, {4, 1}, {6, 1}}));
}

CASE(dirty, query_rounds_its_bounds_out_to_pages) {
  const World world;
  const Handle vmo = world.full(4);
  write(vmo, 0, Bytes(4 * kPage));
  CHECK_EQ(world.dirty_ranges(vmo, kPage + 1, kPage), (Ranges{{1, 2}}));
  CHECK_EQ(world.dirty_ranges(vmo, 2 * kPage, 0), Ranges{});
}

CASE(dirty, query_outside_the_vmo_is_out_of_range) {
  const World world;
  const Handle vmo = world.vmo(2);
  for (const uint64_t offset : {kPage, UINT64_MAX}) {
    CHECK_STATUS(zx_pager_query_dirty_ranges(world.pager.get(), vmo.get(), offset, 2 * kPage, nullptr, 0, nullptr,
                                             nullptr),
                 ZX_ERR_OUT_OF_RANGE);
  }
}

CASE(dirty, query_with_a_small_buffer_tells_how_many_there_are) {
  const World world;
  const Handle vmo = world.full(6);
  for (const uint64_t page : {0u, 2u, 4u}) write(vmo, page * kPage, Bytes(1));
  zx_vmo_dirty_range_t buffer[2];
  std::memset(buffer, 0x77, sizeof(buffer));
  size_t actual = 0, avail = 0;
  // Room for one, and some bytes more.
  CHECK_OK(zx_pager_query_dirty_ranges(world.pager.get(), vmo.get(), 0, 6 * kPage, buffer, sizeof(buffer) - 1, &actual,
                                       &avail));
  CHECK_EQ(actual, 1u);
  CHECK_EQ(avail, 3u);
  CHECK_EQ(buffer[0].offset, 0u);
  CHECK_EQ(buffer[1].offset, 0x7777777777777777u);
}

CASE(dirty, query_without_a_buffer_counts) {
  const World world;
  const Handle vmo = world.full(3);
  write(vmo, kPage, Bytes(1));
  size_t actual = 9, avail = 9;
  CHECK_OK(zx_pager_query_dirty_ranges(world.pager.get(), vmo.get(), 0, 3 * kPage, nullptr, 0, &actual, &avail));
  CHECK_EQ(actual, 0u);
  CHECK_EQ(avail, 1u);
  CHECK_OK(zx_pager_query_dirty_ranges(world.pager.get(), vmo.get(), 0, 3 * kPage, nullptr, 0, nullptr, nullptr));
}
