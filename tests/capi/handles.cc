// Handles: what their values are, and what they let do.

#include <algorithm>
#include <set>

#include "world.h"

using namespace conformance;

CASE(handles, have_their_low_two_bits_set) {
  const World world;
  const Handle vmo = world.vmo(1), plain = anonymous(1), twin = vmo.duplicate();
  for (const zx_handle_t handle : {world.port.get(), world.pager.get(), vmo.get(), plain.get(), twin.get()}) {
    CHECK_EQ(handle & ZX_HANDLE_FIXED_BITS_MASK, ZX_HANDLE_FIXED_BITS_MASK);
  }
}

CASE(handles, are_bad_once_closed) {
  Handle vmo = anonymous(1);
  const zx_handle_t stale = vmo.get();
  vmo.reset();
  uint64_t size = 0;
  CHECK_STATUS(zx_vmo_get_size(stale, &size), ZX_ERR_BAD_HANDLE);
  CHECK_STATUS(zx_handle_close(stale), ZX_ERR_BAD_HANDLE);
}

CASE(handles, values_do_not_come_again_soon) {
  std::set<zx_handle_t> seen;
  for (int round = 0; round < 20000; round++) {
    const Handle vmo = anonymous(1);
    CHECK(seen.insert(vmo.get()).second);
  }
}

CASE(handles, forged_values_are_bad) {
  const Handle vmo = anonymous(1);
  uint64_t size = 0;
  for (uint32_t bit = 0; bit < 32; bit++) {
    CHECK_STATUS(zx_vmo_get_size(vmo.get() ^ 1u << bit, &size), ZX_ERR_BAD_HANDLE);
  }
  for (const zx_handle_t value : {0u, 1u, 2u, 4u, UINT32_MAX - 1}) {
    CHECK_STATUS(zx_vmo_get_size(value, &size), ZX_ERR_BAD_HANDLE);
  }
}

CASE(handles, closing_the_invalid_handle_is_no_error) {
  CHECK_OK(zx_handle_close(ZX_HANDLE_INVALID));
  const zx_handle_t none[3] = {ZX_HANDLE_INVALID, ZX_HANDLE_INVALID, ZX_HANDLE_INVALID};
  CHECK_OK(zx_handle_close_many(none, 3));
  CHECK_OK(zx_handle_close_many(nullptr, 0));
}

CASE(handles, close_many_closes_all_that_it_can) {
  Handle one = anonymous(1), two = anonymous(1), three = anonymous(1);
  const zx_handle_t values[5] = {one.release(), 4, two.release(), ZX_HANDLE_INVALID, three.release()};
  CHECK_STATUS(zx_handle_close_many(values, 5), ZX_ERR_BAD_HANDLE);
  for (const zx_handle_t value : {values[0], values[2], values[4]}) {
    CHECK_STATUS(zx_handle_close(value), ZX_ERR_BAD_HANDLE);
  }
}

CASE(handles, a_duplicate_names_the_same_object) {
  const Handle vmo = anonymous(1), twin = vmo.duplicate();
  CHECK(vmo.get() != twin.get());
  CHECK_EQ(basic_of(twin.get()).koid, basic_of(vmo.get()).koid);
  write(vmo, 0, content(0));
  CHECK_EQ(read_pages(twin, 0), content(0));
}

CASE(handles, a_duplicate_outlives_the_original) {
  Handle vmo = anonymous(1);
  write(vmo, 0, content(0));
  const Handle twin = vmo.duplicate();
  vmo.reset();
  CHECK_EQ(read_pages(twin, 0), content(0));
}

CASE(handles, a_duplicate_can_have_fewer_rights_and_not_more) {
  const Handle vmo = anonymous(1), reads = vmo.duplicate(ZX_RIGHT_READ | ZX_RIGHT_DUPLICATE | ZX_RIGHT_INSPECT);
  CHECK_EQ(basic_of(reads.get()).rights, ZX_RIGHT_READ | ZX_RIGHT_DUPLICATE | ZX_RIGHT_INSPECT);
  CHECK_STATUS(write_status(reads, 0, 1), ZX_ERR_ACCESS_DENIED);
  Handle more;
  CHECK_STATUS(zx_handle_duplicate(reads.get(), ZX_RIGHT_READ | ZX_RIGHT_WRITE, more.out()), ZX_ERR_INVALID_ARGS);
  CHECK_STATUS(zx_handle_duplicate(reads.get(), ZX_RIGHT_SAME_RIGHTS | ZX_RIGHT_READ, more.out()),
               ZX_ERR_INVALID_ARGS);
}

CASE(handles, without_the_right_there_is_no_duplicate) {
  const Handle vmo = anonymous(1), alone = vmo.duplicate(ZX_RIGHT_READ);
  Handle more;
  CHECK_STATUS(zx_handle_duplicate(alone.get(), ZX_RIGHT_READ, more.out()), ZX_ERR_ACCESS_DENIED);
}

CASE(handles, replace_gives_a_new_value_with_fewer_rights) {
  Handle vmo = anonymous(1), fresh;
  const zx_koid_t koid = basic_of(vmo.get()).koid;
  const zx_handle_t old = vmo.release();
  CHECK_OK(zx_handle_replace(old, ZX_RIGHT_READ, fresh.out()));
  CHECK_STATUS(zx_handle_close(old), ZX_ERR_BAD_HANDLE);
  CHECK_EQ(basic_of(fresh.get()).koid, koid);
  CHECK_EQ(basic_of(fresh.get()).rights, ZX_RIGHT_READ);
}

CASE(handles, replace_that_fails_closes_the_handle) {
  Handle vmo = anonymous(1).duplicate(ZX_RIGHT_READ), fresh;
  const zx_handle_t old = vmo.release();
  CHECK_STATUS(zx_handle_replace(old, ZX_RIGHT_WRITE, fresh.out()), ZX_ERR_INVALID_ARGS);
  CHECK_STATUS(zx_handle_close(old), ZX_ERR_BAD_HANDLE);
}

CASE(handles, replace_of_the_only_handle_keeps_the_object) {
  const World world;
  Handle vmo = world.full(1), fresh;
  CHECK_OK(zx_handle_replace(vmo.release(), ZX_RIGHT_SAME_RIGHTS, fresh.out()));
  CHECK_EQ(read_pages(fresh, 0), content(0));
  world.expect_nothing();
}

CASE(handles, basic_info_has_type_rights_and_koid) {
  const World world;
  const Handle vmo = world.vmo(1);
  CHECK_EQ(basic_of(vmo.get()).type, ZX_OBJ_TYPE_VMO);
  CHECK_EQ(basic_of(world.port.get()).type, ZX_OBJ_TYPE_PORT);
  CHECK_EQ(basic_of(world.pager.get()).type, ZX_OBJ_TYPE_PAGER);
  CHECK_EQ(basic_of(vmo.get()).rights, ZX_DEFAULT_VMO_RIGHTS);
  CHECK_EQ(basic_of(world.port.get()).rights, ZX_DEFAULT_PORT_RIGHTS);
  CHECK_EQ(basic_of(world.pager.get()).rights, ZX_DEFAULT_PAGER_RIGHTS);
  CHECK(basic_of(vmo.get()).koid >= ZX_KOID_FIRST);
  CHECK_EQ(basic_of(vmo.get()).related_koid, ZX_KOID_INVALID);
}

CASE(handles, koids_are_never_used_again) {
  std::set<zx_koid_t> seen;
  for (int round = 0; round < 1000; round++) {
    const Handle vmo = anonymous(1);
    CHECK(seen.insert(basic_of(vmo.get()).koid).second);
  }
}

CASE(handles, info_with_a_small_buffer_says_how_many_there_are) {
  const Handle vmo = anonymous(1);
  zx_info_handle_basic_t info;
  size_t actual = 9, avail = 9;
  CHECK_STATUS(zx_object_get_info(vmo.get(), ZX_INFO_HANDLE_BASIC, &info, sizeof(info) - 1, &actual, &avail),
               ZX_ERR_BUFFER_TOO_SMALL);
  CHECK_EQ(actual, 0u);
  CHECK_EQ(avail, 1u);
  CHECK_OK(zx_object_get_info(vmo.get(), ZX_INFO_HANDLE_BASIC, &info, sizeof(info), &actual, &avail));
  CHECK_EQ(actual, 1u);
}

CASE(handles, info_of_unknown_topics_is_not_supported) {
  const Handle vmo = anonymous(1);
  zx_info_vmo_t info;
  for (const uint32_t topic : {0u, 1u, 23u, 99u}) {
    CHECK_STATUS(zx_object_get_info(vmo.get(), topic, &info, sizeof(info), nullptr, nullptr), ZX_ERR_NOT_SUPPORTED);
  }
}

CASE(handles, vmo_info_needs_a_vmo_and_the_right_to_inspect) {
  const World world;
  const Handle vmo = world.vmo(1), blind = vmo.duplicate(ZX_RIGHT_READ);
  zx_info_vmo_t info;
  CHECK_STATUS(zx_object_get_info(world.port.get(), ZX_INFO_VMO, &info, sizeof(info), nullptr, nullptr),
               ZX_ERR_WRONG_TYPE);
  CHECK_STATUS(zx_object_get_info(blind.get(), ZX_INFO_VMO, &info, sizeof(info), nullptr, nullptr),
               ZX_ERR_ACCESS_DENIED);
}

CASE(handles, names_are_cut_and_end_with_a_nul) {
  const Handle vmo = anonymous(1);
  char name[ZX_MAX_NAME_LEN];
  CHECK_OK(zx_object_get_property(vmo.get(), ZX_PROP_NAME, name, sizeof(name)));
  CHECK_EQ(std::string(name), "");
  const std::string longest(31, 'n'), longer(40, 'n');
  CHECK_OK(zx_object_set_property(vmo.get(), ZX_PROP_NAME, longer.data(), longer.size()));
  CHECK_OK(zx_object_get_property(vmo.get(), ZX_PROP_NAME, name, sizeof(name)));
  CHECK_EQ(std::string(name), longest);
  CHECK_OK(zx_object_set_property(vmo.get(), ZX_PROP_NAME, "a\0b", 3));
  CHECK_OK(zx_object_get_property(vmo.get(), ZX_PROP_NAME, name, sizeof(name)));
  CHECK(std::all_of(name + 1, name + sizeof(name), [](char byte) { return byte == '\0'; }));
  CHECK_EQ(std::string(name), "a");
}

CASE(handles, names_are_of_the_object_and_not_of_the_handle) {
  const World world;
  for (const Handle* handle : {&world.port, &world.pager}) {
    const Handle twin = handle->duplicate();
    if (handle == &world.port) {
      char name[ZX_MAX_NAME_LEN];
      CHECK_STATUS(zx_object_get_property(twin.get(), ZX_PROP_NAME, name, sizeof(name)), ZX_ERR_ACCESS_DENIED);
      continue;
    }
    CHECK_OK(zx_object_set_property(handle->get(), ZX_PROP_NAME, "one", 3));
    char name[ZX_MAX_NAME_LEN];
    CHECK_OK(zx_object_get_property(twin.get(), ZX_PROP_NAME, name, sizeof(name)));
    CHECK_EQ(std::string(name), "one");
  }
}

CASE(handles, properties_need_their_rights_and_room) {
  const Handle vmo = anonymous(1), bare = vmo.duplicate(ZX_RIGHT_READ);
  char name[ZX_MAX_NAME_LEN] = "x";
  CHECK_STATUS(zx_object_get_property(bare.get(), ZX_PROP_NAME, name, sizeof(name)), ZX_ERR_ACCESS_DENIED);
  CHECK_STATUS(zx_object_set_property(bare.get(), ZX_PROP_NAME, name, 1), ZX_ERR_ACCESS_DENIED);
  CHECK_STATUS(zx_object_get_property(vmo.get(), ZX_PROP_NAME, name, sizeof(name) - 1), ZX_ERR_BUFFER_TOO_SMALL);
  CHECK_STATUS(zx_object_get_property(vmo.get(), ZX_PROP_NAME + 1, name, sizeof(name)), ZX_ERR_NOT_SUPPORTED);
}

CASE(handles, closing_a_vmo_under_a_read_lets_the_read_end) {
  const World world;
  Handle vmo = world.vmo(1);
  const Handle twin = vmo.duplicate();
  Later reader = read_pages_later(vmo, 0);
  world.expect_read(0);
  vmo.reset();
  CHECK(reader.waits());
  world.supply(twin, 0, 1);
  CHECK_OK(reader.status());
  CHECK_EQ(reader.bytes(), content(0));
}

CASE(handles, closing_the_last_handle_under_a_read_keeps_the_vmo_until_it_ends) {
  World world;
  Handle vmo = world.vmo(1);
  Later reader = read_pages_later(vmo, 0);
  world.expect_read(0);
  vmo.reset();
  CHECK(reader.waits());
  world.expect_nothing();
  world.pager.reset();  // ends the read
  CHECK_STATUS(reader.status(), ZX_ERR_BAD_STATE);
}

CASE(handles, options_of_vmos_are_checked) {
  const World world;
  Handle vmo;
  for (const uint32_t options : {1u, uint32_t{ZX_VMO_DISCARDABLE}, uint32_t{ZX_VMO_UNBOUNDED}, 32u, 0x80000000u}) {
    CHECK_STATUS(zx_pager_create_vmo(world.pager.get(), options, world.port.get(), 1, kPage, vmo.out()),
                 ZX_ERR_INVALID_ARGS);
  }
  CHECK_STATUS(zx_vmo_create(kPage, ZX_VMO_RESIZABLE, vmo.out()), ZX_ERR_NOT_SUPPORTED);
  CHECK_STATUS(zx_vmo_create(kPage, ZX_VMO_DISCARDABLE | ZX_VMO_UNBOUNDED, vmo.out()), ZX_ERR_NOT_SUPPORTED);
  CHECK_STATUS(zx_vmo_create(kPage, ZX_VMO_TRAP_DIRTY, vmo.out()), ZX_ERR_INVALID_ARGS);
  CHECK_STATUS(zx_vmo_create(kPage, 1, vmo.out()), ZX_ERR_INVALID_ARGS);
  CHECK_STATUS(zx_pager_create(1, vmo.out()), ZX_ERR_INVALID_ARGS);
}

CASE(handles, there_are_no_children) {
  const World world;
  const Handle vmo = world.full(1), bare = vmo.duplicate(ZX_RIGHT_READ);
  Handle child;
  CHECK_STATUS(zx_vmo_create_child(vmo.get(), ZX_VMO_CHILD_SNAPSHOT_AT_LEAST_ON_WRITE, 0, kPage, child.out()),
               ZX_ERR_NOT_SUPPORTED);
  CHECK_STATUS(zx_vmo_create_child(vmo.get(), 0, 0, kPage, child.out()), ZX_ERR_INVALID_ARGS);
  CHECK_STATUS(zx_vmo_create_child(bare.get(), ZX_VMO_CHILD_SLICE, 0, kPage, child.out()), ZX_ERR_ACCESS_DENIED);
}

CASE(handles, status_names_and_clock) {
  CHECK_EQ(std::string(zx_status_get_string(ZX_OK)), "ZX_OK");
  CHECK_EQ(std::string(zx_status_get_string(ZX_ERR_IO_DATA_INTEGRITY)), "ZX_ERR_IO_DATA_INTEGRITY");
  CHECK_EQ(std::string(zx_status_get_string(12345)), "(UNKNOWN)");
  const zx_time_t before = zx_clock_get_monotonic();
  const zx_time_t deadline = zx_deadline_after(ZX_MSEC(3));
  CHECK_OK(zx_nanosleep(deadline));
  CHECK(zx_clock_get_monotonic() >= deadline && deadline >= before + ZX_MSEC(3));
  CHECK_OK(zx_nanosleep(ZX_TIME_INFINITE_PAST));
  CHECK_EQ(zx_deadline_after(INT64_MAX), ZX_TIME_INFINITE);
  CHECK_EQ(zx_system_get_page_size(), kPage);
}
