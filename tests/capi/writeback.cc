// ZX_PAGER_OP_WRITEBACK_BEGIN and _END.

#include "world.h"

using namespace conformance;

CASE(writeback, begin_and_end_clean_a_page) {
  const World world;
  const Handle vmo = world.full(1);
  write(vmo, 0, content(0, 1, 2));
  CHECK_OK(world.begin(vmo, 0, 1));
  CHECK_EQ(world.dirty_ranges(vmo), (Ranges{{0, 1}}));
  CHECK_OK(world.end(vmo, 0, 1));
  CHECK_EQ(world.dirty_ranges(vmo), Ranges{});
  CHECK_EQ(read_pages(vmo, 0), content(0, 1, 2));
}

CASE(writeback, a_write_in_between_keeps_the_page_dirty) {
  const World world;
  const Handle vmo = world.full(2);
  write(vmo, 0, Bytes(2 * kPage, 0xaa));
  CHECK_OK(world.begin(vmo, 0, 2));
  write(vmo, kPage, Bytes(1, 0xbb));
  CHECK_OK(world.end(vmo, 0, 2));
  CHECK_EQ(world.dirty_ranges(vmo), (Ranges{{1, 1}}));
}

CASE(writeback, end_without_begin_does_nothing) {
  const World world;
  const Handle vmo = world.full(2);
  write(vmo, 0, Bytes(1));
  CHECK_OK(world.end(vmo, 0, 2));
  CHECK_EQ(world.dirty_ranges(vmo), (Ranges{{0, 1}}));
}

CASE(writeback, begin_of_clean_and_absent_pages_does_nothing) {
  const World world;
  const Handle vmo = world.vmo(2);
  world.supply(vmo, 0, 1);
  CHECK_OK(world.begin(vmo, 0, 2));
  CHECK_OK(world.end(vmo, 0, 2));
  CHECK_EQ(world.dirty_ranges(vmo), Ranges{});
  CHECK_EQ(read_pages(vmo, 0), content(0));
}

CASE(writeback, a_second_begin_changes_nothing) {
  const World world;
  const Handle vmo = world.full(1);
  write(vmo, 0, Bytes(1));
  CHECK_OK(world.begin(vmo, 0, 1));
  CHECK_OK(world.begin(vmo, 0, 1));
  CHECK_OK(world.end(vmo, 0, 1));
  CHECK_EQ(world.dirty_ranges(vmo), Ranges{});
}

CASE(writeback, a_part_can_be_ended) {
  const World world;
  const Handle vmo = world.full(4);
  write(vmo, 0, Bytes(4 * kPage));
  CHECK_OK(world.begin(vmo, 0, 4));
  CHECK_OK(world.end(vmo, 1, 2));
  CHECK_EQ(world.dirty_ranges(vmo), (Ranges{{0, 1}, {3, 1}}));
}

CASE(writeback, a_part_can_be_begun) {
  const World world;
  const Handle vmo = world.full(4);
  write(vmo, 0, Bytes(4 * kPage));
  CHECK_OK(world.begin(vmo, 1, 2));
  CHECK_OK(world.end(vmo, 0, 4));
  CHECK_EQ(world.dirty_ranges(vmo), (Ranges{{0, 1}, {3, 1}}));
}

CASE(writeback, begin_takes_zero_or_is_zero_as_data) {
  const World world;
  const Handle vmo = world.full(1);
  CHECK_OK(world.begin(vmo, 0, 1, 0));
  CHECK_OK(world.begin(vmo, 0, 1, ZX_VMO_DIRTY_RANGE_IS_ZERO));
  CHECK_STATUS(world.begin(vmo, 0, 1, 2), ZX_ERR_INVALID_ARGS);
  CHECK_STATUS(world.begin(vmo, 0, 1, 3), ZX_ERR_INVALID_ARGS);
}

CASE(writeback, end_takes_no_data) {
  const World world;
  const Handle vmo = world.full(1);
  CHECK_STATUS(world.op_range(vmo, ZX_PAGER_OP_WRITEBACK_END, 0, 1, 1), ZX_ERR_INVALID_ARGS);
}

CASE(writeback, not_aligned_is_invalid) {
  const World world;
  const Handle vmo = world.full(2);
  for (const uint32_t op : {ZX_PAGER_OP_WRITEBACK_BEGIN, ZX_PAGER_OP_WRITEBACK_END}) {
    CHECK_STATUS(zx_pager_op_range(world.pager.get(), op, vmo.get(), 1, kPage, 0), ZX_ERR_INVALID_ARGS);
    CHECK_STATUS(zx_pager_op_range(world.pager.get(), op, vmo.get(), 0, 1, 0), ZX_ERR_INVALID_ARGS);
  }
}

CASE(writeback, outside_the_vmo_is_out_of_range) {
  const World world;
  const Handle vmo = world.full(2);
  write(vmo, 0, Bytes(2 * kPage));
  CHECK_STATUS(world.begin(vmo, 1, 2), ZX_ERR_OUT_OF_RANGE);
  CHECK_STATUS(world.end(vmo, 0, 3), ZX_ERR_OUT_OF_RANGE);
  CHECK_OK(world.end(vmo, 0, 2));
  CHECK_EQ(world.dirty_ranges(vmo), (Ranges{{0, 2}}));
}

CASE(writeback, of_another_pagers_vmo_is_invalid) {
  const World world, other;
  const Handle vmo = other.full(1);
  write(vmo, 0, Bytes(1));
  CHECK_STATUS(world.begin(vmo, 0, 1), ZX_ERR_INVALID_ARGS);
  CHECK_STATUS(world.end(vmo, 0, 1), ZX_ERR_INVALID_ARGS);
  CHECK_EQ(other.dirty_ranges(vmo), (Ranges{{0, 1}}));
}

CASE(writeback, the_bytes_to_write_are_those_at_begin_or_newer_and_dirty) {
  const World world;
  const Handle vmo = world.full(1);
  write(vmo, 0, Bytes(kPage, 1));
  CHECK_OK(world.begin(vmo, 0, 1));
  const Bytes written = read_pages(vmo, 0);
  write(vmo, 0, Bytes(kPage, 2));
  CHECK_OK(world.end(vmo, 0, 1));
  CHECK_EQ(written, Bytes(kPage, 1));
  CHECK_EQ(world.dirty_ranges(vmo), (Ranges{{0, 1}}));
  CHECK_OK(world.begin(vmo, 0, 1));
  CHECK_EQ(read_pages(vmo, 0), Bytes(kPage, 2));
  CHECK_OK(world.end(vmo, 0, 1));
  CHECK_EQ(world.dirty_ranges(vmo), Ranges{});
}

CASE(writeback, a_cleaned_page_is_dirtied_by_the_next_write) {
  const World world;
  const Handle vmo = world.full(1);
  write(vmo, 0, Bytes(1));
  CHECK_OK(world.begin(vmo, 0, 1));
  CHECK_OK(world.end(vmo, 0, 1));
  write(vmo, 0, Bytes(1));
  CHECK_EQ(world.dirty_ranges(vmo), (Ranges{{0, 1}}));
}

CASE(writeback, a_cleaned_page_that_is_trapped_asks_again) {
  const World world;
  const Handle vmo = world.full(1, ZX_VMO_TRAP_DIRTY);
  CHECK_OK(world.dirty(vmo, 0, 1));
  CHECK_OK(world.begin(vmo, 0, 1));
  CHECK_OK(world.end(vmo, 0, 1));
  Later writer = write_later(vmo, 0, Bytes(1));
  world.expect_dirty(0);
  CHECK_OK(world.dirty(vmo, 0, 1));
  CHECK_OK(writer.status());
}

CASE(writeback, is_zero_leaves_stored_pages_dirty) {
  const World world;
  const Handle vmo = world.full(3);
  write(vmo, kPage, Bytes(1, 0xaa));
  CHECK_OK(op(vmo, ZX_VMO_OP_ZERO, 0, 1));
  CHECK_OK(op(vmo, ZX_VMO_OP_ZERO, 2, 1));
  CHECK_OK(world.begin(vmo, 0, 3, ZX_VMO_DIRTY_RANGE_IS_ZERO));
  CHECK_OK(world.end(vmo, 0, 3));
  CHECK_EQ(world.dirty_ranges(vmo), (Ranges{{1, 1}}));
}

CASE(writeback, after_detach_cleaned_pages_may_go_but_dirty_ones_stay) {
  const World world;
  const Handle vmo = world.full(2);
  write(vmo, 0, Bytes(2 * kPage, 0xaa));
  CHECK_OK(world.detach(vmo));
  CHECK_OK(world.begin(vmo, 0, 1));
  CHECK_OK(world.end(vmo, 0, 1));
  CHECK(committed_pages(vmo) >= 1);
  CHECK_EQ(read_pages(vmo, 1), Bytes(kPage, 0xaa));
  const zx_status_t cleaned = read_status(vmo, 0, 1);
  CHECK(cleaned == ZX_OK || cleaned == ZX_ERR_BAD_STATE);
}
