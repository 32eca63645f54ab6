// zx_pager_query_vmo_stats(), and what zx_object_get_info() says of a VMO's pages.

#include "world.h"

using namespace conformance;

namespace {
zx_status_t query(const World& world, const Handle& vmo, uint32_t options, void* buffer, size_t size) {
  return zx_pager_query_vmo_stats(world.pager.get(), vmo.get(), options, buffer, size);
}
}  // namespace

CASE(stats, a_new_vmo_is_not_modified) {
  const World world;
  const Handle vmo = world.vmo(1);
  CHECK(!world.is_modified(vmo));
}

CASE(stats, a_write_sets_modified) {
  const World world;
  const Handle vmo = world.full(1);
  write(vmo, 0, Bytes(1));
  CHECK(world.is_modified(vmo));
  CHECK(world.is_modified(vmo));
}

CASE(stats, supply_and_reads_do_not) {
  const World world;
  const Handle vmo = world.full(2);
  CHECK_EQ(read_pages(vmo, 0, 2), content(0, 2));
  CHECK(!world.is_modified(vmo));
}

CASE(stats, a_resize_sets_modified) {
  const World world;
  const Handle vmo = world.vmo(1, ZX_VMO_RESIZABLE);
  CHECK_OK(zx_vmo_set_size(vmo.get(), 2 * kPage));
  CHECK(world.is_modified(vmo, ZX_PAGER_RESET_VMO_STATS));
  CHECK_OK(zx_vmo_set_size(vmo.get(), kPage));
  CHECK(world.is_modified(vmo));
}

CASE(stats, reset_clears_it_in_the_same_step) {
  const World world;
  const Handle vmo = world.full(1);
  write(vmo, 0, Bytes(1));
  CHECK(world.is_modified(vmo, ZX_PAGER_RESET_VMO_STATS));
  CHECK(!world.is_modified(vmo, ZX_PAGER_RESET_VMO_STATS));
  write(vmo, 0, Bytes(1));
  CHECK(world.is_modified(vmo));
}

CASE(stats, writeback_does_not_clear_it) {
  const World world;
  const Handle vmo = world.full(1);
  write(vmo, 0, Bytes(1));
  CHECK_OK(world.begin(vmo, 0, 1));
  CHECK_OK(world.end(vmo, 0, 1));
  CHECK(world.is_modified(vmo));
}

CASE(stats, a_write_that_fails_before_it_begins_does_not_set_it) {
  const World world;
  const Handle vmo = world.vmo(1);
  CHECK_STATUS(write_status(vmo, kPage, 1), ZX_ERR_OUT_OF_RANGE);
  CHECK_OK(world.detach(vmo));
  CHECK_STATUS(write_status(vmo, 0, 1), ZX_ERR_BAD_STATE);
  CHECK(!world.is_modified(vmo));
}

CASE(stats, unknown_options_are_invalid) {
  const World world;
  const Handle vmo = world.full(1);
  write(vmo, 0, Bytes(1));
  zx_pager_vmo_stats_t stats;
  for (const uint32_t options : {2u, 3u, 0x80000000u}) {
    CHECK_STATUS(query(world, vmo, options, &stats, sizeof(stats)), ZX_ERR_INVALID_ARGS);
  }
  CHECK(world.is_modified(vmo));
}

CASE(stats, a_buffer_that_is_too_small_resets_nothing) {
  const World world;
  const Handle vmo = world.full(1);
  write(vmo, 0, Bytes(1));
  zx_pager_vmo_stats_t stats;
  CHECK_STATUS(query(world, vmo, ZX_PAGER_RESET_VMO_STATS, &stats, sizeof(stats) - 1), ZX_ERR_BUFFER_TOO_SMALL);
  CHECK_STATUS(query(world, vmo, ZX_PAGER_RESET_VMO_STATS, nullptr, sizeof(stats)), ZX_ERR_INVALID_ARGS);
  CHECK(world.is_modified(vmo));
}

CASE(stats, of_another_pagers_vmo_are_invalid) {
  const World world, other;
  const Handle vmo = other.vmo(1), plain = anonymous(1);
  zx_pager_vmo_stats_t stats;
  CHECK_STATUS(query(world, vmo, 0, &stats, sizeof(stats)), ZX_ERR_INVALID_ARGS);
  CHECK_STATUS(query(world, plain, 0, &stats, sizeof(stats)), ZX_ERR_INVALID_ARGS);
}

CASE(stats, work_after_detach) {
  const World world;
  const Handle vmo = world.full(1);
  write(vmo, 0, Bytes(1));
  CHECK_OK(world.detach(vmo));
  CHECK(world.is_modified(vmo, ZX_PAGER_RESET_VMO_STATS));
  write(vmo, 0, Bytes(1));
  CHECK(world.is_modified(vmo));
}

CASE(stats, info_counts_the_pages_that_are_there) {
  const World world;
  const Handle vmo = world.vmo(4);
  CHECK_EQ(info_of(vmo).committed_bytes, 0u);
  world.supply(vmo, 1, 2);
  const zx_info_vmo_t info = info_of(vmo);
  CHECK_EQ(info.committed_bytes, 2 * kPage);
  CHECK_EQ(info.populated_bytes, 2 * kPage);
  CHECK_EQ(info.size_bytes, 4 * kPage);
}

CASE(stats, info_flags_tell_a_pagers_vmo_and_a_resizable_one) {
  const World world;
  const Handle fixed = world.vmo(1), resizable = world.vmo(1, ZX_VMO_RESIZABLE), plain = anonymous(1);
  const uint32_t always = ZX_INFO_VMO_TYPE_PAGED | ZX_INFO_VMO_VIA_HANDLE;
  CHECK_EQ(info_of(fixed).flags, always | ZX_INFO_VMO_PAGER_BACKED);
  CHECK_EQ(info_of(resizable).flags, always | ZX_INFO_VMO_PAGER_BACKED | ZX_INFO_VMO_RESIZABLE);
  CHECK_EQ(info_of(plain).flags, always);
}

CASE(stats, info_has_koid_name_rights_and_policy) {
  const World world;
  const Handle vmo = world.vmo(1);
  CHECK_OK(zx_object_set_property(vmo.get(), ZX_PROP_NAME, "file", 4));
  const Handle twin = vmo.duplicate(ZX_RIGHT_READ | ZX_RIGHT_INSPECT);
  const zx_info_vmo_t info = info_of(twin);
  CHECK_EQ(info.koid, basic_of(vmo.get()).koid);
  CHECK_EQ(std::string(info.name), "file");
  CHECK_EQ(info.handle_rights, ZX_RIGHT_READ | ZX_RIGHT_INSPECT);
  CHECK_EQ(info.cache_policy, ZX_CACHE_POLICY_CACHED);
  CHECK_EQ(info.parent_koid, ZX_KOID_INVALID);
  CHECK_EQ(info.num_children, 0u);
}
