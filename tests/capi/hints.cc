// ZX_VMO_OP_COMMIT, _PREFETCH, _ALWAYS_NEED, _DONT_NEED and _DECOMMIT.

#include "world.h"

using namespace conformance;

CASE(hints, commit_asks_for_all_runs_at_once_and_waits) {
  const World world;
  const Handle vmo = world.vmo(5);
  world.supply(vmo, 2, 1);
  Later commit = op_later(vmo, ZX_VMO_OP_COMMIT, 0, 5);
  world.expect_read(0, 2);
  world.expect_read(3, 2);
  world.supply(vmo, 0, 2);
  CHECK(commit.waits());
  world.supply(vmo, 3, 2);
  CHECK_OK(commit.status());
  CHECK_EQ(committed_pages(vmo), 5u);
}

CASE(hints, commit_of_what_is_there_returns_at_once) {
  const World world;
  const Handle vmo = world.full(3);
  CHECK_OK(op(vmo, ZX_VMO_OP_COMMIT, 0, 3));
  world.expect_nothing();
}

CASE(hints, commit_joins_a_request_in_flight) {
  const World world;
  const Handle vmo = world.vmo(1);
  Later reader = read_pages_later(vmo, 0);
  world.expect_read(0);
  Later commit = op_later(vmo, ZX_VMO_OP_COMMIT, 0, 1);
  CHECK(commit.waits());
  world.expect_nothing();
  world.supply(vmo, 0, 1);
  CHECK_OK(commit.status());
  CHECK_OK(reader.status());
}

CASE(hints, commit_fails_with_the_services_error) {
  const World world;
  const Handle vmo = world.vmo(2);
  Later commit = op_later(vmo, ZX_VMO_OP_COMMIT, 0, 2);
  world.expect_read(0, 2);
  CHECK_OK(world.fail(vmo, 0, 2, ZX_ERR_IO_DATA_INTEGRITY));
  CHECK_STATUS(commit.status(), ZX_ERR_IO_DATA_INTEGRITY);
}

CASE(hints, commit_rounds_out_to_pages) {
  const World world;
  const Handle vmo = world.vmo(3);
  const zx_handle_t handle = vmo.get();
  Later commit({[=](Bytes&) { return zx_vmo_op_range(handle, ZX_VMO_OP_COMMIT, kPage - 1, 2, nullptr, 0); }}, {});
  world.expect_read(0, 2);
  world.supply(vmo, 0, 2);
  CHECK_OK(commit.status());
}

CASE(hints, commit_does_not_make_pages_dirty) {
  const World world;
  const Handle vmo = world.vmo(1);
  Later commit = op_later(vmo, ZX_VMO_OP_COMMIT, 0, 1);
  world.expect_read(0);
  world.supply(vmo, 0, 1);
  CHECK_OK(commit.status());
  CHECK_EQ(world.dirty_ranges(vmo), Ranges{});
  CHECK(!world.is_modified(vmo));
}

CASE(hints, prefetch_brings_pages_in) {
  const World world;
  const Handle vmo = world.vmo(3);
  Later prefetch = op_later(vmo, ZX_VMO_OP_PREFETCH, 0, 3);
  world.expect_read(0, 3);
  world.supply(vmo, 0, 3);
  CHECK_OK(prefetch.status());
  CHECK_EQ(committed_pages(vmo), 3u);
}

CASE(hints, prefetch_does_not_fail_when_the_service_does) {
  const World world;
  const Handle vmo = world.vmo(1);
  Later prefetch = op_later(vmo, ZX_VMO_OP_PREFETCH, 0, 1);
  world.expect_read(0);
  CHECK_OK(world.fail(vmo, 0, 1, ZX_ERR_IO));
  CHECK_OK(prefetch.status());
}

CASE(hints, prefetch_of_a_detached_vmo_is_no_error) {
  const World world;
  const Handle vmo = world.vmo(1);
  CHECK_OK(world.detach(vmo));
  CHECK_OK(op(vmo, ZX_VMO_OP_PREFETCH, 0, 1));
}

CASE(hints, always_need_brings_pages_in) {
  const World world;
  const Handle vmo = world.vmo(2);
  Later hint = op_later(vmo, ZX_VMO_OP_ALWAYS_NEED, 0, 2);
  world.expect_read(0, 2);
  world.supply(vmo, 0, 2);
  CHECK_OK(hint.status());
  CHECK_EQ(read_pages(vmo, 0, 2), content(0, 2));
}

CASE(hints, dont_need_drops_nothing_by_itself) {
  const World world;
  const Handle vmo = world.full(2);
  write(vmo, 0, Bytes(1, 0xaa));
  CHECK_OK(op(vmo, ZX_VMO_OP_DONT_NEED, 0, 2));
  CHECK_EQ(read(vmo, 0, 1), (Bytes{0xaa}));
  CHECK_EQ(world.dirty_ranges(vmo), (Ranges{{0, 1}}));
}

CASE(hints, decommit_of_a_pagers_vmo_is_not_supported) {
  const World world;
  const Handle vmo = world.full(1);
  CHECK_STATUS(op(vmo, ZX_VMO_OP_DECOMMIT, 0, 1), ZX_ERR_NOT_SUPPORTED);
  CHECK_EQ(read_pages(vmo, 0), content(0));
}

CASE(hints, decommit_of_an_anonymous_vmo_frees_its_pages) {
  const Handle vmo = anonymous(3);
  write(vmo, 0, content(0, 3));
  CHECK_OK(op(vmo, ZX_VMO_OP_DECOMMIT, 1, 1));
  CHECK_EQ(committed_pages(vmo), 2u);
  CHECK_EQ(read_pages(vmo, 1), zeros(1));
}

CASE(hints, commit_of_an_anonymous_vmo_gives_it_pages) {
  const Handle vmo = anonymous(3);
  CHECK_OK(op(vmo, ZX_VMO_OP_COMMIT, 1, 2));
  CHECK_EQ(committed_pages(vmo), 2u);
  CHECK_EQ(read_pages(vmo, 0, 3), zeros(3));
}

CASE(hints, of_an_anonymous_vmo_are_accepted) {
  const Handle vmo = anonymous(2);
  for (const uint32_t hint : {ZX_VMO_OP_DONT_NEED, ZX_VMO_OP_ALWAYS_NEED, ZX_VMO_OP_PREFETCH}) {
    CHECK_OK(op(vmo, hint, 0, 2));
    CHECK_STATUS(op(vmo, hint, 1, 2), ZX_ERR_OUT_OF_RANGE);
  }
  CHECK_EQ(committed_pages(vmo), 0u);
}

CASE(hints, unknown_operations_are_invalid) {
  const World world;
  const Handle vmo = world.vmo(1), plain = anonymous(1);
  for (const uint32_t unknown : {0u, 3u, 4u, 5u, 6u, 9u, 11u, 15u, UINT32_MAX}) {
    CHECK_STATUS(op(vmo, unknown, 0, 1), ZX_ERR_INVALID_ARGS);
    CHECK_STATUS(op(plain, unknown, 0, 1), ZX_ERR_INVALID_ARGS);
  }
}

CASE(hints, outside_the_vmo_are_out_of_range_and_ask_for_nothing) {
  const World world;
  const Handle vmo = world.vmo(2);
  for (const uint32_t hint :
       {ZX_VMO_OP_COMMIT, ZX_VMO_OP_DONT_NEED, ZX_VMO_OP_ALWAYS_NEED, ZX_VMO_OP_PREFETCH}) {
    CHECK_STATUS(op(vmo, hint, 1, 2), ZX_ERR_OUT_OF_RANGE);
    CHECK_STATUS(zx_vmo_op_range(vmo.get(), hint, UINT64_MAX, UINT64_MAX, nullptr, 0), ZX_ERR_OUT_OF_RANGE);
  }
  world.expect_nothing();
}

CASE(hints, commit_needs_to_write_and_the_others_to_read) {
  const World world;
  const Handle vmo = world.full(1);
  const Handle reads = vmo.duplicate(ZX_RIGHT_READ), writes = vmo.duplicate(ZX_RIGHT_WRITE);
  CHECK_STATUS(op(reads, ZX_VMO_OP_COMMIT, 0, 1), ZX_ERR_ACCESS_DENIED);
  CHECK_OK(op(writes, ZX_VMO_OP_COMMIT, 0, 1));
  for (const uint32_t hint : {ZX_VMO_OP_DONT_NEED, ZX_VMO_OP_ALWAYS_NEED, ZX_VMO_OP_PREFETCH}) {
    CHECK_OK(op(reads, hint, 0, 1));
    CHECK_STATUS(op(writes, hint, 0, 1), ZX_ERR_ACCESS_DENIED);
  }
}

CASE(hints, commit_of_zeros_asks_for_nothing) {
  const World world;
  const Handle vmo = world.vmo(1, ZX_VMO_RESIZABLE);
  CHECK_OK(zx_vmo_set_size(vmo.get(), 4 * kPage));
  CHECK_OK(op(vmo, ZX_VMO_OP_COMMIT, 1, 3));
  world.expect_nothing();
}
