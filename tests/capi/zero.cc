// ZX_VMO_OP_ZERO, and ranges that are known to be zeros.

#include "world.h"

using namespace conformance;

CASE(zero, of_absent_pages_asks_for_nothing) {
  const World world;
  const Handle vmo = world.vmo(4);
  CHECK_OK(op(vmo, ZX_VMO_OP_ZERO, 1, 2));
  CHECK_EQ(read_pages(vmo, 1, 2), zeros(2));
  CHECK_EQ(world.dirty_ranges(vmo), (Ranges{{1, 2, true}}));
  world.expect_nothing();
}

CASE(zero, of_stored_pages_frees_them) {
  const World world;
  const Handle vmo = world.full(3);
  write(vmo, kPage, Bytes(1));
  CHECK_OK(op(vmo, ZX_VMO_OP_ZERO, 0, 2));
  CHECK_EQ(read_pages(vmo, 0, 3), joined(zeros(2), content(2)));
  CHECK_EQ(committed_pages(vmo), 1u);
  CHECK_EQ(world.dirty_ranges(vmo), (Ranges{{0, 2, true}}));
}

CASE(zero, of_a_part_of_a_page_keeps_the_rest) {
  const World world;
  const Handle vmo = world.full(1);
  CHECK_OK(zx_vmo_op_range(vmo.get(), ZX_VMO_OP_ZERO, 100, 200, nullptr, 0));
  Bytes page = content(0);
  std::fill(page.begin() + 100, page.begin() + 300, uint8_t{0});
  CHECK_EQ(read_pages(vmo, 0), page);
  CHECK_EQ(world.dirty_ranges(vmo), (Ranges{{0, 1}}));
}

CASE(zero, ranges_are_not_merged_with_stored_pages) {
  const World world;
  const Handle vmo = world.full(4);
  write(vmo, 0, Bytes(4 * kPage, 0xaa));
  CHECK_OK(op(vmo, ZX_VMO_OP_ZERO, 1, 2));
  CHECK_EQ(world.dirty_ranges(vmo), (Ranges{{0, 1}, {1, 2, true}, {3, 1}}));
}

CASE(zero, that_is_written_back_is_the_services_and_asked_for) {
  const World world;
  const Handle vmo = world.vmo(4);
  CHECK_OK(op(vmo, ZX_VMO_OP_ZERO, 0, 4));
  CHECK_OK(world.begin(vmo, 0, 2, ZX_VMO_DIRTY_RANGE_IS_ZERO));
  CHECK_EQ(world.dirty_ranges(vmo), (Ranges{{0, 4, true}}));
  CHECK_OK(world.end(vmo, 0, 4));
  CHECK_EQ(world.dirty_ranges(vmo), (Ranges{{2, 2, true}}));
  Later reader = read_pages_later(vmo, 1);
  world.expect_read(1);
  world.supply(vmo, 1, 1);
  CHECK_OK(reader.status());
}

CASE(zero, a_write_between_begin_and_end_leaves_its_page_dirty) {
  const World world;
  const Handle vmo = world.vmo(3);
  CHECK_OK(op(vmo, ZX_VMO_OP_ZERO, 0, 3));
  CHECK_OK(world.begin(vmo, 0, 3, ZX_VMO_DIRTY_RANGE_IS_ZERO));
  write(vmo, kPage, Bytes(1, 0xaa));
  CHECK_OK(world.end(vmo, 0, 3));
  CHECK_EQ(world.dirty_ranges(vmo), (Ranges{{1, 1}}));
}

CASE(zero, supply_over_zeros_keeps_them) {
  const World world;
  const Handle vmo = world.vmo(1);
  CHECK_OK(op(vmo, ZX_VMO_OP_ZERO, 0, 1));
  world.supply(vmo, 0, 1);
  CHECK_EQ(read_pages(vmo, 0), zeros(1));
}

CASE(zero, survives_detach) {
  const World world;
  const Handle vmo = world.full(2);
  CHECK_OK(op(vmo, ZX_VMO_OP_ZERO, 0, 1));
  CHECK_OK(world.detach(vmo));
  CHECK_EQ(read_pages(vmo, 0), zeros(1));
  CHECK_EQ(world.dirty_ranges(vmo), (Ranges{{0, 1, true}}));
}

CASE(zero, answers_who_waits_for_the_page_or_leaves_him_waiting_for_the_supply) {
  const World world;
  const Handle vmo = world.vmo(1);
  Later reader = read_pages_later(vmo, 0);
  world.expect_read(0);
  Later zero = op_later(vmo, ZX_VMO_OP_ZERO, 0, 1);
  zx_nanosleep(in_ms(10));
  world.supply(vmo, 0, 1);
  CHECK_OK(reader.status());
  CHECK_OK(zero.status());
  CHECK(reader.bytes() == zeros(1) || reader.bytes() == content(0));
  CHECK_EQ(read_pages(vmo, 0), zeros(1));
}

CASE(zero, outside_the_vmo_is_out_of_range) {
  const World world;
  const Handle vmo = world.full(2);
  CHECK_STATUS(op(vmo, ZX_VMO_OP_ZERO, 1, 2), ZX_ERR_OUT_OF_RANGE);
  CHECK_STATUS(zx_vmo_op_range(vmo.get(), ZX_VMO_OP_ZERO, UINT64_MAX, 2, nullptr, 0), ZX_ERR_OUT_OF_RANGE);
  CHECK_EQ(read_pages(vmo, 0, 2), content(0, 2));
}

CASE(zero, needs_to_write) {
  const World world;
  const Handle vmo = world.full(1);
  const Handle reads = vmo.duplicate(ZX_RIGHT_READ);
  CHECK_STATUS(op(reads, ZX_VMO_OP_ZERO, 0, 1), ZX_ERR_ACCESS_DENIED);
  CHECK_EQ(read_pages(vmo, 0), content(0));
}

CASE(zero, of_an_anonymous_vmo_frees_its_pages) {
  const Handle vmo = anonymous(3);
  write(vmo, 0, content(0, 3));
  CHECK_OK(op(vmo, ZX_VMO_OP_ZERO, 1, 1));
  CHECK_EQ(read_pages(vmo, 0, 3), joined(joined(content(0), zeros(1)), content(2)));
  CHECK_EQ(committed_pages(vmo), 2u);
}

CASE(zero, sets_modified) {
  const World world;
  const Handle vmo = world.full(1);
  CHECK(!world.is_modified(vmo));
  CHECK_OK(op(vmo, ZX_VMO_OP_ZERO, 0, 1));
  CHECK(world.is_modified(vmo));
}
