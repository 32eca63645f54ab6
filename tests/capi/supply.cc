// zx_pager_supply_pages().

#include "world.h"

using namespace conformance;

CASE(supply, unasked_makes_pages_clean) {
  const World world;
  const Handle vmo = world.vmo(4);
  world.supply(vmo, 1, 2);
  CHECK_EQ(read_pages(vmo, 1, 2), content(1, 2));
  CHECK_EQ(committed_pages(vmo), 2u);
  CHECK_EQ(world.dirty_ranges(vmo), Ranges{});
  world.expect_nothing();
}

CASE(supply, takes_the_pages_out_of_the_aux_vmo) {
  const World world;
  const Handle vmo = world.vmo(2), aux = anonymous(4);
  write(aux, 0, content(0, 4));
  CHECK_OK(zx_pager_supply_pages(world.pager.get(), vmo.get(), 0, 2 * kPage, aux.get(), kPage));
  CHECK_EQ(read_pages(vmo, 0, 2), content(1, 2));
  CHECK_EQ(committed_pages(aux), 2u);
  CHECK_EQ(read_pages(aux, 0, 4), joined(joined(content(0), zeros(2)), content(3)));
}

CASE(supply, keeps_clean_pages_and_decommits_what_was_offered) {
  const World world;
  const Handle vmo = world.vmo(2), aux = anonymous(2);
  world.supply(vmo, 0, 1);
  write(aux, 0, content(0, 2, 9));
  CHECK_OK(zx_pager_supply_pages(world.pager.get(), vmo.get(), 0, 2 * kPage, aux.get(), 0));
  CHECK_EQ(read_pages(vmo, 0, 2), joined(content(0), content(1, 1, 9)));
  CHECK_EQ(committed_pages(aux), 0u);
}

CASE(supply, keeps_dirty_pages) {
  const World world;
  const Handle vmo = world.full(1);
  write(vmo, 0, content(0, 1, 5));
  world.supply(vmo, 0, 1, 9);
  CHECK_EQ(read_pages(vmo, 0), content(0, 1, 5));
  CHECK_EQ(world.dirty_ranges(vmo), (Ranges{{0, 1}}));
}

CASE(supply, keeps_pages_awaiting_clean) {
  const World world;
  const Handle vmo = world.full(1);
  write(vmo, 0, content(0, 1, 5));
  CHECK_OK(world.begin(vmo, 0, 1));
  world.supply(vmo, 0, 1, 9);
  CHECK_OK(world.end(vmo, 0, 1));
  CHECK_EQ(read_pages(vmo, 0), content(0, 1, 5));
  CHECK_EQ(world.dirty_ranges(vmo), Ranges{});
}

CASE(supply, of_uncommitted_aux_pages_is_zeros) {
  const World world;
  const Handle vmo = world.vmo(3), aux = anonymous(3);
  write(aux, kPage, content(1));
  Later reader = read_pages_later(vmo, 0, 3);
  world.expect_read(0, 3);
  CHECK_OK(zx_pager_supply_pages(world.pager.get(), vmo.get(), 0, 3 * kPage, aux.get(), 0));
  CHECK_OK(reader.status());
  CHECK_EQ(reader.bytes(), joined(joined(zeros(1), content(1)), zeros(1)));
  CHECK_EQ(world.dirty_ranges(vmo), Ranges{});
}

CASE(supply, in_parts_resolves_a_request_with_the_last_one) {
  const World world;
  const Handle vmo = world.vmo(3);
  Later reader = read_pages_later(vmo, 0, 3);
  world.expect_read(0, 3);
  world.supply(vmo, 2, 1);
  world.supply(vmo, 0, 1);
  CHECK(reader.waits());
  world.supply(vmo, 1, 1);
  CHECK_OK(reader.status());
  CHECK_EQ(reader.bytes(), content(0, 3));
  world.expect_nothing();
}

CASE(supply, of_more_than_was_asked_is_kept) {
  const World world;
  const Handle vmo = world.vmo(8);
  Later reader = read_pages_later(vmo, 3);
  world.expect_read(3);
  world.supply(vmo, 0, 8);
  CHECK_OK(reader.status());
  CHECK_EQ(read_pages(vmo, 0, 8), content(0, 8));
  world.expect_nothing();
}

CASE(supply, resolves_several_requests_at_once) {
  const World world;
  const Handle vmo = world.vmo(4);
  Later one = read_pages_later(vmo, 0);
  world.expect_read(0);
  Later two = read_pages_later(vmo, 2);
  world.expect_read(2);
  world.supply(vmo, 0, 4);
  CHECK_OK(one.status());
  CHECK_OK(two.status());
}

CASE(supply, not_aligned_is_invalid) {
  const World world;
  const Handle vmo = world.vmo(4), aux = anonymous(4);
  const auto supply = [&](uint64_t offset, uint64_t length, uint64_t aux_offset) {
    return zx_pager_supply_pages(world.pager.get(), vmo.get(), offset, length, aux.get(), aux_offset);
  };
  CHECK_STATUS(supply(1, kPage, 0), ZX_ERR_INVALID_ARGS);
  CHECK_STATUS(supply(0, kPage - 1, 0), ZX_ERR_INVALID_ARGS);
  CHECK_STATUS(supply(0, kPage, 512), ZX_ERR_INVALID_ARGS);
  CHECK_EQ(committed_pages(vmo), 0u);
}

CASE(supply, outside_either_vmo_is_out_of_range) {
  const World world;
  const Handle vmo = world.vmo(4), aux = anonymous(2);
  write(aux, 0, content(0, 2));
  const auto supply = [&](uint64_t offset, uint64_t length, uint64_t aux_offset) {
    return zx_pager_supply_pages(world.pager.get(), vmo.get(), offset, length, aux.get(), aux_offset);
  };
  CHECK_STATUS(supply(3 * kPage, 2 * kPage, 0), ZX_ERR_OUT_OF_RANGE);
  CHECK_STATUS(supply(0, 2 * kPage, kPage), ZX_ERR_OUT_OF_RANGE);
  CHECK_STATUS(supply(UINT64_MAX - kPage + 1, kPage, 0), ZX_ERR_OUT_OF_RANGE);
  CHECK_EQ(committed_pages(aux), 2u);
  CHECK_EQ(committed_pages(vmo), 0u);
}

CASE(supply, of_nothing_is_no_error) {
  const World world;
  const Handle vmo = world.vmo(1), aux = anonymous(1);
  CHECK_OK(zx_pager_supply_pages(world.pager.get(), vmo.get(), 0, 0, aux.get(), 0));
  CHECK_OK(zx_pager_supply_pages(world.pager.get(), vmo.get(), kPage, 0, aux.get(), kPage));
}

CASE(supply, after_detach_is_bad_state) {
  const World world;
  const Handle vmo = world.vmo(1);
  CHECK_OK(world.detach(vmo));
  CHECK_STATUS(world.try_supply(vmo, 0, content(0)), ZX_ERR_BAD_STATE);
  CHECK_EQ(committed_pages(vmo), 0u);
}

CASE(supply, of_another_pagers_vmo_is_invalid) {
  const World world, other;
  const Handle vmo = other.vmo(1), plain = anonymous(1);
  CHECK_STATUS(world.try_supply(vmo, 0, content(0)), ZX_ERR_INVALID_ARGS);
  CHECK_STATUS(world.try_supply(plain, 0, content(0)), ZX_ERR_INVALID_ARGS);
}

CASE(supply, out_of_a_pagers_vmo_is_bad_state) {
  const World world;
  const Handle vmo = world.vmo(1), aux = world.full(1);
  CHECK_STATUS(zx_pager_supply_pages(world.pager.get(), vmo.get(), 0, kPage, aux.get(), 0), ZX_ERR_BAD_STATE);
  CHECK_STATUS(zx_pager_supply_pages(world.pager.get(), vmo.get(), 0, kPage, vmo.get(), 0), ZX_ERR_BAD_STATE);
  CHECK_EQ(read_pages(aux, 0), content(0));
}

CASE(supply, needs_to_read_and_write_the_aux_vmo) {
  const World world;
  const Handle vmo = world.vmo(1), aux = anonymous(1);
  const Handle reads = aux.duplicate(ZX_DEFAULT_VMO_RIGHTS & ~ZX_RIGHT_WRITE);
  const Handle writes = aux.duplicate(ZX_DEFAULT_VMO_RIGHTS & ~ZX_RIGHT_READ);
  for (const Handle* handle : {&reads, &writes}) {
    CHECK_STATUS(zx_pager_supply_pages(world.pager.get(), vmo.get(), 0, kPage, handle->get(), 0),
                 ZX_ERR_ACCESS_DENIED);
  }
  const Handle both = aux.duplicate(ZX_RIGHTS_IO);
  CHECK_OK(zx_pager_supply_pages(world.pager.get(), vmo.get(), 0, kPage, both.get(), 0));
}

CASE(supply, after_the_vmo_was_read_by_another_handle_serves_both) {
  const World world;
  const Handle vmo = world.vmo(1), twin = vmo.duplicate();
  Later one = read_pages_later(vmo, 0);
  world.expect_read(0);
  Later two = read_pages_later(twin, 0);
  CHECK(two.waits());
  CHECK_OK(world.try_supply(twin, 0, content(0)));
  CHECK_OK(one.status());
  CHECK_OK(two.status());
}
