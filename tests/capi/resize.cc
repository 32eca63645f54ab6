// zx_vmo_get_size() and zx_vmo_set_size().

#include "world.h"

using namespace conformance;

namespace {
constexpr uint32_t kResizable = ZX_VMO_RESIZABLE;
zx_status_t set_pages(const Handle& vmo, uint64_t pages) { return zx_vmo_set_size(vmo.get(), pages * kPage); }
}  // namespace

CASE(resize, sets_the_size_rounded_up_to_pages) {
  const World world;
  const Handle vmo = world.vmo(2, kResizable);
  CHECK_OK(zx_vmo_set_size(vmo.get(), 3 * kPage + 1));
  CHECK_EQ(size_of(vmo), 4 * kPage);
  CHECK_OK(zx_vmo_set_size(vmo.get(), 0));
  CHECK_EQ(size_of(vmo), 0u);
}

CASE(resize, of_a_vmo_of_fixed_size_is_unavailable) {
  const World world;
  const Handle vmo = world.vmo(2), plain = anonymous(2);
  CHECK_STATUS(set_pages(vmo, 3), ZX_ERR_UNAVAILABLE);
  CHECK_STATUS(set_pages(plain, 3), ZX_ERR_UNAVAILABLE);
  CHECK_EQ(size_of(vmo), 2 * kPage);
  CHECK_EQ(size_of(plain), 2 * kPage);
}

CASE(resize, growing_adds_a_dirty_zero_range) {
  const World world;
  const Handle vmo = world.vmo(1, kResizable);
  CHECK_OK(set_pages(vmo, 4));
  CHECK_EQ(world.dirty_ranges(vmo), (Ranges{{1, 3, true}}));
  CHECK_EQ(committed_pages(vmo), 0u);
}

CASE(resize, what_was_grown_reads_as_zeros_without_a_packet) {
  const World world;
  const Handle vmo = world.vmo(1, kResizable);
  CHECK_OK(set_pages(vmo, 3));
  CHECK_EQ(read_pages(vmo, 1, 2), zeros(2));
  world.expect_nothing();
}

CASE(resize, a_write_to_what_was_grown_stores_a_dirty_page) {
  const World world;
  const Handle vmo = world.vmo(1, kResizable);
  CHECK_OK(set_pages(vmo, 4));
  write(vmo, 2 * kPage + 1, Bytes(1, 0xaa));
  CHECK_EQ(world.dirty_ranges(vmo), (Ranges{{1, 1, true}, {2, 1}, {3, 1, true}}));
  Bytes page = zeros(1);
  page[1] = 0xaa;
  CHECK_EQ(read_pages(vmo, 2), page);
}

CASE(resize, shrinking_drops_pages_dirty_ones_too) {
  const World world;
  const Handle vmo = world.full(4, kResizable);
  write(vmo, 3 * kPage, Bytes(1));
  CHECK_OK(set_pages(vmo, 2));
  CHECK_EQ(committed_pages(vmo), 2u);
  CHECK_EQ(world.dirty_ranges(vmo), Ranges{});
  CHECK_STATUS(read_status(vmo, 2 * kPage, 1), ZX_ERR_OUT_OF_RANGE);
}

CASE(resize, growing_again_shows_zeros_and_not_the_old_pages) {
  const World world;
  const Handle vmo = world.full(3, kResizable);
  CHECK_OK(set_pages(vmo, 1));
  CHECK_OK(set_pages(vmo, 3));
  CHECK_EQ(read_pages(vmo, 0, 3), joined(content(0), zeros(2)));
  world.expect_nothing();
}

CASE(resize, shrinking_fails_requests_beyond_with_out_of_range) {
  const World world;
  const Handle vmo = world.vmo(4, kResizable);
  Later reader = read_pages_later(vmo, 3);
  world.expect_read(3);
  CHECK_OK(set_pages(vmo, 2));
  CHECK_STATUS(reader.status(), ZX_ERR_OUT_OF_RANGE);
}

CASE(resize, shrinking_leaves_requests_below_alone) {
  const World world;
  const Handle vmo = world.vmo(4, kResizable);
  Later reader = read_pages_later(vmo, 0);
  world.expect_read(0);
  CHECK_OK(set_pages(vmo, 2));
  CHECK(reader.waits());
  world.supply(vmo, 0, 1);
  CHECK_OK(reader.status());
}

CASE(resize, a_supply_beyond_the_new_end_is_out_of_range) {
  const World world;
  const Handle vmo = world.vmo(4, kResizable);
  CHECK_OK(set_pages(vmo, 2));
  CHECK_STATUS(world.try_supply(vmo, 2, content(2)), ZX_ERR_OUT_OF_RANGE);
}

CASE(resize, a_supply_over_the_grown_range_keeps_zeros) {
  const World world;
  const Handle vmo = world.vmo(1, kResizable);
  CHECK_OK(set_pages(vmo, 2));
  world.supply(vmo, 0, 2);
  CHECK_EQ(read_pages(vmo, 0, 2), joined(content(0), zeros(1)));
}

CASE(resize, needs_the_right_to_resize_and_to_write) {
  const World world;
  const Handle vmo = world.vmo(1, kResizable);
  const zx_rights_t rights = basic_of(vmo.get()).rights;
  CHECK((rights & ZX_RIGHT_RESIZE) != 0);
  const Handle no_resize = vmo.duplicate(rights & ~ZX_RIGHT_RESIZE), no_write = vmo.duplicate(rights & ~ZX_RIGHT_WRITE);
  CHECK_STATUS(set_pages(no_resize, 2), ZX_ERR_ACCESS_DENIED);
  CHECK_STATUS(set_pages(no_write, 2), ZX_ERR_ACCESS_DENIED);
  CHECK_EQ(size_of(vmo), kPage);
}

CASE(resize, a_vmo_of_fixed_size_has_no_right_to_resize) {
  const World world;
  const Handle vmo = world.vmo(1);
  CHECK_EQ(basic_of(vmo.get()).rights & ZX_RIGHT_RESIZE, 0u);
}

CASE(resize, beyond_the_largest_vmo_is_out_of_range) {
  const World world;
  const Handle vmo = world.vmo(1, kResizable);
  CHECK_STATUS(zx_vmo_set_size(vmo.get(), UINT64_MAX), ZX_ERR_OUT_OF_RANGE);
  CHECK_EQ(size_of(vmo), kPage);
  Handle huge;
  CHECK_STATUS(zx_pager_create_vmo(world.pager.get(), 0, world.port.get(), kKey, UINT64_MAX, huge.out()),
               ZX_ERR_OUT_OF_RANGE);
  CHECK_STATUS(zx_vmo_create(UINT64_MAX, 0, huge.out()), ZX_ERR_OUT_OF_RANGE);
}

CASE(resize, of_a_detached_vmo_drops_what_is_cut_off) {
  const World world;
  const Handle vmo = world.full(3, kResizable);
  write(vmo, 0, Bytes(3 * kPage, 0xaa));
  CHECK_OK(world.detach(vmo));
  CHECK_OK(set_pages(vmo, 1));
  CHECK_EQ(world.dirty_ranges(vmo), (Ranges{{0, 1}}));
}
