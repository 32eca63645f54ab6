// Wrong arguments, generated: for each call every combination of what may be wrong about each of its arguments. The call
// must say so, by Zircon's order of checks, and nothing must have changed.
//
// Handles are checked first, in the order of the arguments: the first that is wrong decides. Of what else is wrong any may
// decide.

#include <algorithm>
#include <deque>

#include "world.h"

using namespace conformance;

namespace {

constexpr uint64_t kPages = 8;

// One value of an argument, or of several that go together, and what is wrong with it.
struct Choice {
  std::string what;
  std::vector<uint64_t> values;
  zx_status_t error = ZX_OK;
  bool by_handle = false;
};

// Values for some neighbouring arguments.
struct Argument {
  Choice good;
  // As good, but with no right that is not needed.
  std::vector<uint64_t> least;
  std::vector<Choice> wrong;
};

struct Call {
  std::string name;
  std::vector<Argument> arguments;
  std::function<zx_status_t(const std::vector<uint64_t>&)> make;
  // Of one that fails whatever it is given.
  zx_status_t otherwise = ZX_OK;
};

// What calls write to. Its bytes are not zero.
struct Buffers {
  alignas(8) uint8_t out[512];
  Buffers() { std::memset(out, 0xd7, sizeof(out)); }
};

template <typename T>
uint64_t address(T* at) {
  return reinterpret_cast<uintptr_t>(at);
}
template <typename T>
T* pointer(uint64_t at) {
  return reinterpret_cast<T*>(static_cast<uintptr_t>(at));
}

// Objects in every state, and a way to see whether any has changed.
class Scene {
 public:
  World world, other;
  Handle vmo, trapped, fixed, detached, orphan, others, aux, empty_port;
  std::deque<Handle> handles;  // what the arguments have made
  Buffers buffers;
  zx_handle_t stale;

  Scene() {
    vmo = world.vmo(kPages, ZX_VMO_RESIZABLE, 1);
    world.supply(vmo, 0, 4);
    write(vmo, 2 * kPage, content(2, 2, 1));
    CHECK_OK(world.begin(vmo, 3, 1));
    CHECK_OK(op(vmo, ZX_VMO_OP_ZERO, 6, 1));
    trapped = world.vmo(4, ZX_VMO_TRAP_DIRTY, 2);
    world.supply(trapped, 0, 2);
    CHECK_OK(world.dirty(trapped, 1, 1));
    fixed = world.full(2, 0, 3);
    detached = world.vmo(kPages, 0, 4);
    world.supply(detached, 0, 2);
    write(detached, kPage, content(1, 1, 1));
    CHECK_OK(world.detach(detached));
    world.expect_complete(4);
    {
      World gone;
      orphan = gone.full(1, 0, 5);
    }
    others = other.full(4, 0, 6);
    aux = anonymous(4);
    write(aux, 0, content(0, 4, 3));
    stale = anonymous(1).get();  // closed at once
    CHECK_OK(zx_port_create(0, empty_port.out()));
    CHECK_OK(zx_object_set_property(vmo.get(), ZX_PROP_NAME, "scene", 5));
  }

  ~Scene() {
    if (mapping_ != 0) zx_vmar_unmap(zx_vmar_root_self(), mapping_, 2 * kPage);  // a call may have done so
    if (vmar_.get() != ZX_HANDLE_INVALID) zx_vmar_destroy(vmar_.get());         // as above
  }

  // A VMAR of four pages, of which one is mapped and one another VMAR's.
  zx_handle_t vmar() {
    if (vmar_.get() == ZX_HANDLE_INVALID) {
      constexpr zx_vm_option_t options = ZX_VM_CAN_MAP_READ | ZX_VM_CAN_MAP_WRITE | ZX_VM_CAN_MAP_SPECIFIC;
      zx_vaddr_t at;
      CHECK_OK(zx_vmar_allocate(zx_vmar_root_self(), options, 0, 4 * kPage, vmar_.out(), &at));
      CHECK_OK(zx_vmar_map(vmar_.get(), ZX_VM_PERM_READ | ZX_VM_SPECIFIC, 2 * kPage, fixed.get(), 0, kPage, &at));
      CHECK_OK(zx_vmar_allocate(vmar_.get(), options | ZX_VM_SPECIFIC, 3 * kPage, kPage, inner_.out(), &at));
    }
    return vmar_.get();
  }

  // Where the first pages of a VMO are mapped.
  zx_vaddr_t mapping() {
    if (mapping_ == 0) {
      CHECK_OK(zx_vmar_map(zx_vmar_root_self(), ZX_VM_PERM_READ | ZX_VM_PERM_WRITE, 0, vmo.get(), 0, 2 * kPage,
                           &mapping_));
    }
    return mapping_;
  }

  // Everything that can be asked of the objects without changing them, but for the bytes of their pages.
  std::string figures() const {
    std::string state;
    for (const Handle* handle : {&vmo, &trapped, &fixed, &detached, &orphan, &others, &aux}) {
      const zx_info_vmo_t info = info_of(*handle);
      append(state, &info, sizeof(info));
    }
    for (const Handle* handle : {&world.port, &world.pager, &other.port, &other.pager}) {
      const zx_info_handle_basic_t info = basic_of(handle->get());
      append(state, &info, sizeof(info));
    }
    for (const Handle* handle : {&vmo, &trapped, &fixed, &detached}) pagers(state, world, *handle);
    pagers(state, other, others);
    world.expect_nothing();
    other.expect_nothing();
    append(state, buffers.out, sizeof(buffers.out));
    return state;
  }
  // With their bytes.
  std::string state() const {
    std::string state = figures();
    pages(state, vmo, 0, 4);
    pages(state, vmo, 6, 1);
    pages(state, trapped, 0, 2);
    pages(state, fixed, 0, 2);
    pages(state, detached, 1, 1);
    pages(state, orphan, 0, 1);
    pages(state, others, 0, 4);
    pages(state, aux, 0, 4);
    return state;
  }

 private:
  zx_vaddr_t mapping_ = 0;
  Handle vmar_, inner_;

  static void append(std::string& state, const void* at, size_t size) {
    state.append(static_cast<const char*>(at), size);
  }
  static void pages(std::string& state, const Handle& vmo, uint64_t first, uint64_t count) {
    const Bytes bytes = read_pages(vmo, first, count);
    append(state, bytes.data(), bytes.size());
  }
  static void pagers(std::string& state, const World& world, const Handle& vmo) {
    state += text(world.dirty_ranges(vmo));
    state += world.is_modified(vmo) ? "m" : "-";
  }
};

struct Named {
  const char* name;
  zx_obj_type_t type;
  zx_handle_t handle;
};

// Every kind of object.
std::vector<Named> kinds(const Scene& scene) {
  return {{"a pager", ZX_OBJ_TYPE_PAGER, scene.world.pager.get()},
          {"a port", ZX_OBJ_TYPE_PORT, scene.world.port.get()},
          {"a pager's VMO", ZX_OBJ_TYPE_VMO, scene.vmo.get()},
          {"an anonymous VMO", ZX_OBJ_TYPE_VMO, scene.aux.get()},
          {"the root VMAR", ZX_OBJ_TYPE_VMAR, zx_vmar_root_self()}};
}

// A handle of a type, or of any (NONE), which must have the rights.
Argument handle(Scene& scene, zx_handle_t good, zx_obj_type_t type, zx_rights_t needed, bool zero_is_none = true) {
  const zx_rights_t there = basic_of(good).rights;
  const auto with = [&](zx_rights_t rights) -> uint64_t {
    Handle fresh;
    CHECK_OK(zx_handle_duplicate(good, rights, fresh.out()));
    scene.handles.push_back(std::move(fresh));
    return scene.handles.back().get();
  };
  Argument argument{{"good", {good}}, {with(needed)}, {}};
  const auto wrong = [&](std::string what, uint64_t value, zx_status_t error) {
    argument.wrong.push_back({std::move(what), {value}, error, true});
  };
  if (zero_is_none) wrong("no handle", ZX_HANDLE_INVALID, ZX_ERR_BAD_HANDLE);
  wrong("a closed handle", scene.stale, ZX_ERR_BAD_HANDLE);
  wrong("a handle without its low bits", good & ~ZX_HANDLE_FIXED_BITS_MASK, ZX_ERR_BAD_HANDLE);
  wrong("a forged handle", good ^ 0x40000000u, ZX_ERR_BAD_HANDLE);
  for (const Named& kind : kinds(scene)) {
    if (type != ZX_OBJ_TYPE_NONE && kind.type != type) wrong(kind.name, kind.handle, ZX_ERR_WRONG_TYPE);
  }
  for (uint32_t bit = 0; bit < 31; bit++) {
    const zx_rights_t right = zx_rights_t{1} << bit;
    if ((needed & right) != 0) wrong("without right " + std::to_string(bit), with(there & ~right), ZX_ERR_ACCESS_DENIED);
  }
  if (needed != 0) wrong("without any right", with(0), ZX_ERR_ACCESS_DENIED);
  return argument;
}
Argument pager(Scene& scene) { return handle(scene, scene.world.pager.get(), ZX_OBJ_TYPE_PAGER, 0); }
Argument vmo(Scene& scene, const Handle& good, zx_rights_t needed) {
  return handle(scene, good.get(), ZX_OBJ_TYPE_VMO, needed);
}
// A VMO of the pager; others are refused, after all handles have been looked at.
Argument pagers_vmo(Scene& scene, const Handle& good) {
  Argument argument = vmo(scene, good, 0);
  for (const auto& [what, handle] : {std::pair<const char*, const Handle*>{"another pager's VMO", &scene.others},
                                     {"a VMO whose pager is closed", &scene.orphan},
                                     {"a VMO without a pager", &scene.aux}}) {
    argument.wrong.push_back({what, {handle->get()}, ZX_ERR_INVALID_ARGS});
  }
  return argument;
}

Argument of(std::vector<uint64_t> good, std::vector<Choice> wrong = {}) {
  return {{"good", good}, std::move(good), std::move(wrong)};
}
Choice bad(std::string what, std::vector<uint64_t> values, zx_status_t error) {
  return {std::move(what), std::move(values), error};
}
// A place for a value that is aligned so.
Argument out(Scene& scene, uint64_t alignment) {
  Argument argument = of({address(scene.buffers.out)}, {bad("null", {0}, ZX_ERR_INVALID_ARGS)});
  for (uint64_t by = 1; by < alignment; by *= 2) {
    argument.wrong.push_back(bad("misaligned", {address(scene.buffers.out) + by}, ZX_ERR_INVALID_ARGS));
  }
  return argument;
}
// One that may be null.
Argument optional_out(Scene& scene) {
  Argument argument = of({0});
  for (uint64_t by = 1; by < 8; by *= 2) {
    argument.wrong.push_back(bad("misaligned", {address(scene.buffers.out) + by}, ZX_ERR_INVALID_ARGS));
  }
  return argument;
}
// A buffer of whole values, and its size.
Argument buffer(Scene& scene, uint64_t size, uint64_t alignment, bool can_be_small) {
  Argument argument = of({address(scene.buffers.out), size}, {bad("null", {0, size}, ZX_ERR_INVALID_ARGS)});
  for (uint64_t by = 1; by < alignment; by *= 2) {
    argument.wrong.push_back(bad("misaligned", {address(scene.buffers.out) + by, size}, ZX_ERR_INVALID_ARGS));
  }
  if (!can_be_small) {
    argument.wrong.push_back(bad("small", {address(scene.buffers.out), size - 1}, ZX_ERR_BUFFER_TOO_SMALL));
    argument.wrong.push_back(bad("empty", {address(scene.buffers.out), 0}, ZX_ERR_BUFFER_TOO_SMALL));
  }
  return argument;
}
// Bytes of a VMO of so many pages.
Argument range(uint64_t offset, uint64_t length, uint64_t pages, bool is_aligned) {
  const uint64_t size = pages * kPage;
  Argument argument = of({offset, length});
  const auto outside = [&](const char* what, uint64_t at, uint64_t bytes) {
    argument.wrong.push_back(bad(what, {at, bytes}, ZX_ERR_OUT_OF_RANGE));
  };
  outside("past the end", size, kPage);
  outside("over the end", size - kPage, 2 * kPage);
  outside("too long", 0, size + kPage);
  outside("far", uint64_t{1} << 60, kPage);
  outside("overflowing", UINT64_MAX - kPage + 1, 2 * kPage);
  outside("overflowing by its length", kPage, UINT64_MAX - kPage + 1);
  if (is_aligned) {
    argument.wrong.push_back(bad("offset misaligned", {offset + 1, length}, ZX_ERR_INVALID_ARGS));
    argument.wrong.push_back(bad("length misaligned", {offset, length - 1}, ZX_ERR_INVALID_ARGS));
    argument.wrong.push_back(bad("both misaligned", {offset + 512, length - 512}, ZX_ERR_INVALID_ARGS));
  } else {
    outside("overflowing at the last byte", UINT64_MAX, UINT64_MAX);
  }
  return argument;
}

std::vector<Call> handle_calls(Scene& s) {
  const auto any = [&](zx_rights_t needed, bool zero_is_none = true) {
    return handle(s, s.vmo.get(), ZX_OBJ_TYPE_NONE, needed, zero_is_none);
  };
  Argument closes = any(0, false);
  closes.good = bad("a forged handle", {s.vmo.get() ^ 4u}, ZX_ERR_BAD_HANDLE);  // there is no good one that changes nothing
  const Argument rights = of({ZX_RIGHT_SAME_RIGHTS}, {bad("more rights", {ZX_RIGHT_EXECUTE}, ZX_ERR_INVALID_ARGS),
                                                      bad("two wishes", {ZX_RIGHT_SAME_RIGHTS | ZX_RIGHT_READ},
                                                          ZX_ERR_INVALID_ARGS)});
  const Argument property = of({ZX_PROP_NAME}, {bad("no property", {0}, ZX_ERR_NOT_SUPPORTED),
                                                bad("another property", {4}, ZX_ERR_NOT_SUPPORTED)});
  const auto info = [](uint32_t topic) {
    return [=](const std::vector<uint64_t>& a) {
      return zx_object_get_info(static_cast<zx_handle_t>(a[0]), topic, pointer<void>(a[1]), a[2], pointer<size_t>(a[3]),
                                pointer<size_t>(a[4]));
    };
  };
  std::vector<Call> calls{
      {"zx_handle_close", {closes},
       [](const auto& a) { return zx_handle_close(static_cast<zx_handle_t>(a[0])); }, ZX_ERR_BAD_HANDLE},
      {"zx_handle_close_many", {out(s, 4)},
       [](const auto& a) { return zx_handle_close_many(pointer<zx_handle_t>(a[0]), 2); }, ZX_ERR_BAD_HANDLE},
      {"zx_handle_duplicate", {any(ZX_RIGHT_DUPLICATE), rights, out(s, 4)},
       [](const auto& a) {
         return zx_handle_duplicate(static_cast<zx_handle_t>(a[0]), static_cast<zx_rights_t>(a[1]),
                                    pointer<zx_handle_t>(a[2]));
       }},
      // A good handle is closed: it gets a duplicate each time.
      {"zx_handle_replace", {any(0), rights, out(s, 4)},
       [vmo = s.vmo.get()](const auto& a) {
         zx_handle_t handle = static_cast<zx_handle_t>(a[0]);
         if (handle == vmo) CHECK_OK(zx_handle_duplicate(vmo, ZX_RIGHT_SAME_RIGHTS, &handle));
         return zx_handle_replace(handle, static_cast<zx_rights_t>(a[1]), pointer<zx_handle_t>(a[2]));
       }},
      {"zx_object_get_info(BASIC)",
       {any(0), buffer(s, sizeof(zx_info_handle_basic_t), 8, false), optional_out(s), optional_out(s)},
       info(ZX_INFO_HANDLE_BASIC)},
      {"zx_object_get_info(VMO)",
       {vmo(s, s.vmo, ZX_RIGHT_INSPECT), buffer(s, sizeof(zx_info_vmo_t), 8, false), optional_out(s), optional_out(s)},
       info(ZX_INFO_VMO)},
      {"zx_object_get_info(no topic)", {any(0), buffer(s, 176, 8, true), optional_out(s), optional_out(s)}, info(0),
       ZX_ERR_NOT_SUPPORTED},
      {"zx_object_get_property", {any(ZX_RIGHT_GET_PROPERTY), property, buffer(s, ZX_MAX_NAME_LEN, 1, false)},
       [](const auto& a) {
         return zx_object_get_property(static_cast<zx_handle_t>(a[0]), static_cast<uint32_t>(a[1]), pointer<void>(a[2]),
                                       a[3]);
       }},
      {"zx_object_set_property",
       {any(ZX_RIGHT_SET_PROPERTY), property,
        of({address("x"), 1}, {bad("null", {0, 1}, ZX_ERR_INVALID_ARGS)})},
       [](const auto& a) {
         return zx_object_set_property(static_cast<zx_handle_t>(a[0]), static_cast<uint32_t>(a[1]), pointer<void>(a[2]),
                                       a[3]);
       }},
  };
  return calls;
}

std::vector<Call> pager_calls(Scene& s) {
  const Argument no_options =
      of({0}, {bad("an option", {1}, ZX_ERR_INVALID_ARGS), bad("all options", {UINT32_MAX}, ZX_ERR_INVALID_ARGS)});
  std::vector<Call> calls{
      {"zx_pager_create", {no_options, out(s, 4)},
       [](const auto& a) { return zx_pager_create(static_cast<uint32_t>(a[0]), pointer<zx_handle_t>(a[1])); }},
      {"zx_pager_create_vmo",
       {pager(s),
        of({0}, {bad("option 0", {1}, ZX_ERR_INVALID_ARGS), bad("DISCARDABLE", {4}, ZX_ERR_INVALID_ARGS),
                 bad("UNBOUNDED", {16}, ZX_ERR_INVALID_ARGS), bad("the last option", {0x80000000u}, ZX_ERR_INVALID_ARGS)}),
        handle(s, s.world.port.get(), ZX_OBJ_TYPE_PORT, ZX_RIGHT_WRITE),
        of({9, kPage}, {bad("huge", {9, (uint64_t{1} << 52) + 1}, ZX_ERR_OUT_OF_RANGE),
                        bad("most", {9, UINT64_MAX}, ZX_ERR_OUT_OF_RANGE)}),
        out(s, 4)},
       [](const auto& a) {
         return zx_pager_create_vmo(static_cast<zx_handle_t>(a[0]), static_cast<uint32_t>(a[1]),
                                    static_cast<zx_handle_t>(a[2]), a[3], a[4], pointer<zx_handle_t>(a[5]));
       }},
      {"zx_pager_detach_vmo", {pager(s), pagers_vmo(s, s.vmo)},
       [](const auto& a) {
         return zx_pager_detach_vmo(static_cast<zx_handle_t>(a[0]), static_cast<zx_handle_t>(a[1]));
       }},
      {"zx_pager_query_dirty_ranges",
       {pager(s), pagers_vmo(s, s.vmo), range(0, 8 * kPage, kPages, false),
        buffer(s, 5 * sizeof(zx_vmo_dirty_range_t), 8, true), optional_out(s), optional_out(s)},
       [](const auto& a) {
         return zx_pager_query_dirty_ranges(static_cast<zx_handle_t>(a[0]), static_cast<zx_handle_t>(a[1]), a[2], a[3],
                                            pointer<void>(a[4]), a[5], pointer<size_t>(a[6]), pointer<size_t>(a[7]));
       }},
      {"zx_pager_query_vmo_stats",
       {pager(s), pagers_vmo(s, s.vmo),
        of({ZX_PAGER_RESET_VMO_STATS}, {bad("an unknown option", {2}, ZX_ERR_INVALID_ARGS),
                                        bad("more options", {3}, ZX_ERR_INVALID_ARGS)}),
        buffer(s, sizeof(zx_pager_vmo_stats_t), 4, false)},
       [](const auto& a) {
         return zx_pager_query_vmo_stats(static_cast<zx_handle_t>(a[0]), static_cast<zx_handle_t>(a[1]),
                                         static_cast<uint32_t>(a[2]), pointer<void>(a[3]), a[4]);
       }},
  };

  Argument supplied = pagers_vmo(s, s.vmo);
  supplied.wrong.push_back(bad("a detached VMO", {s.detached.get()}, ZX_ERR_BAD_STATE));
  Argument aux = vmo(s, s.aux, ZX_RIGHT_READ | ZX_RIGHT_WRITE);
  aux.wrong.push_back(bad("a pager's VMO as aux", {s.vmo.get()}, ZX_ERR_BAD_STATE));
  Argument where = range(4 * kPage, kPage, kPages, true);
  calls.push_back({"zx_pager_supply_pages",
                   {pager(s), supplied, where, aux,
                    of({0}, {bad("aux offset misaligned", {1}, ZX_ERR_INVALID_ARGS),
                             bad("aux offset far", {kPage << 40}, ZX_ERR_OUT_OF_RANGE),
                             bad("aux offset overflowing", {UINT64_MAX - kPage + 1}, ZX_ERR_OUT_OF_RANGE)})},
                   [](const auto& a) {
                     return zx_pager_supply_pages(static_cast<zx_handle_t>(a[0]), static_cast<zx_handle_t>(a[1]), a[2],
                                                  a[3], static_cast<zx_handle_t>(a[4]), a[5]);
                   }});

  const auto op_range = [&](const char* name, uint32_t op, const Handle& good, Argument where, Argument data,
                            std::vector<Choice> more, zx_status_t otherwise = ZX_OK) {
    Argument target = pagers_vmo(s, good);
    target.wrong.insert(target.wrong.end(), more.begin(), more.end());
    calls.push_back({name, {pager(s), target, where, data},
                     [op](const auto& a) {
                       return zx_pager_op_range(static_cast<zx_handle_t>(a[0]), op, static_cast<zx_handle_t>(a[1]),
                                                a[2], a[3], a[4]);
                     },
                     otherwise});
  };
  Argument errors = of({static_cast<uint64_t>(int64_t{ZX_ERR_IO})});
  for (const int64_t error : {0, -1, -2, -3, -4, -10, -11, -14, -21, -25, 1, 40}) {
    errors.wrong.push_back(bad("fail with " + std::to_string(error), {static_cast<uint64_t>(error)}, ZX_ERR_INVALID_ARGS));
  }
  errors.wrong.push_back(bad("not sign-extended", {static_cast<uint32_t>(ZX_ERR_IO)}, ZX_ERR_INVALID_ARGS));
  const Argument none = of({0}, {bad("data 1", {1}, ZX_ERR_INVALID_ARGS), bad("data", {UINT64_MAX}, ZX_ERR_INVALID_ARGS)});
  const Argument zero = of({0}, {bad("data 2", {2}, ZX_ERR_INVALID_ARGS), bad("data", {UINT64_MAX}, ZX_ERR_INVALID_ARGS)});
  op_range("zx_pager_op_range(FAIL)", ZX_PAGER_OP_FAIL, s.vmo, range(0, kPage, kPages, true), errors, {});
  Argument dirtied = range(0, kPage, 4, true);
  dirtied.wrong.push_back(bad("absent", {2 * kPage, kPage}, ZX_ERR_NOT_FOUND));
  dirtied.wrong.push_back(bad("partly absent", {0, 4 * kPage}, ZX_ERR_NOT_FOUND));
  op_range("zx_pager_op_range(DIRTY)", ZX_PAGER_OP_DIRTY, s.trapped, dirtied, none, {});
  op_range("zx_pager_op_range(DIRTY, not trapped)", ZX_PAGER_OP_DIRTY, s.fixed, range(0, kPage, 2, true), none, {},
           ZX_ERR_NOT_SUPPORTED);
  op_range("zx_pager_op_range(BEGIN)", ZX_PAGER_OP_WRITEBACK_BEGIN, s.vmo, range(2 * kPage, kPage, kPages, true), zero,
           {});
  op_range("zx_pager_op_range(END)", ZX_PAGER_OP_WRITEBACK_END, s.vmo, range(3 * kPage, kPage, kPages, true), none, {});
  op_range("zx_pager_op_range(0)", 0, s.vmo, range(0, kPage, kPages, true), of({0}), {}, ZX_ERR_NOT_SUPPORTED);
  op_range("zx_pager_op_range(5)", 5, s.vmo, range(0, kPage, kPages, true), of({0}), {}, ZX_ERR_NOT_SUPPORTED);
  return calls;
}

std::vector<Call> vmo_calls(Scene& s) {
  std::vector<Call> calls{
      {"zx_vmo_create",
       {of({kPage}, {bad("huge", {(uint64_t{1} << 52) + 1}, ZX_ERR_OUT_OF_RANGE),
                     bad("most", {UINT64_MAX}, ZX_ERR_OUT_OF_RANGE)}),
        of({0}, {bad("TRAP_DIRTY", {8}, ZX_ERR_INVALID_ARGS), bad("option 0", {1}, ZX_ERR_INVALID_ARGS),
                 bad("RESIZABLE", {2}, ZX_ERR_NOT_SUPPORTED), bad("DISCARDABLE", {4}, ZX_ERR_NOT_SUPPORTED),
                 bad("UNBOUNDED", {16}, ZX_ERR_NOT_SUPPORTED)}),
        out(s, 4)},
       [](const auto& a) { return zx_vmo_create(a[0], static_cast<uint32_t>(a[1]), pointer<zx_handle_t>(a[2])); }},
      {"zx_vmo_get_size", {vmo(s, s.vmo, 0), out(s, 8)},
       [](const auto& a) { return zx_vmo_get_size(static_cast<zx_handle_t>(a[0]), pointer<uint64_t>(a[1])); }},
      {"zx_vmo_create_child",
       {vmo(s, s.vmo, ZX_RIGHT_DUPLICATE | ZX_RIGHT_READ),
        of({ZX_VMO_CHILD_SLICE}, {bad("no option", {0}, ZX_ERR_INVALID_ARGS),
                                  bad("unknown option", {0x80000000u}, ZX_ERR_INVALID_ARGS)}),
        of({0, kPage}, {bad("misaligned", {1, kPage}, ZX_ERR_INVALID_ARGS)}), out(s, 4)},
       [](const auto& a) {
         return zx_vmo_create_child(static_cast<zx_handle_t>(a[0]), static_cast<uint32_t>(a[1]), a[2], a[3],
                                    pointer<zx_handle_t>(a[4]));
       },
       ZX_ERR_NOT_SUPPORTED},
  };

  Argument resized = vmo(s, s.vmo, ZX_RIGHT_WRITE | ZX_RIGHT_RESIZE);
  resized.wrong.push_back(bad("a VMO of fixed size", {s.fixed.get()}, ZX_ERR_UNAVAILABLE));
  resized.wrong.push_back(bad("an anonymous VMO", {s.aux.get()}, ZX_ERR_UNAVAILABLE));
  calls.push_back({"zx_vmo_set_size",
                   {resized, of({2 * kPage}, {bad("huge", {(uint64_t{1} << 52) + 1}, ZX_ERR_OUT_OF_RANGE),
                                              bad("most", {UINT64_MAX}, ZX_ERR_OUT_OF_RANGE)})},
                   [](const auto& a) { return zx_vmo_set_size(static_cast<zx_handle_t>(a[0]), a[1]); }});

  const Argument bytes = of({address(s.buffers.out)}, {bad("null", {0}, ZX_ERR_INVALID_ARGS)});
  const auto unreadable = [&](Argument argument) {
    argument.wrong.push_back(bad("a detached VMO", {s.detached.get()}, ZX_ERR_BAD_STATE));
    return argument;
  };
  const Argument part = range(100, 8, kPages, false);
  calls.push_back({"zx_vmo_read", {unreadable(vmo(s, s.vmo, ZX_RIGHT_READ)), bytes, part}, [](const auto& a) {
                     return zx_vmo_read(static_cast<zx_handle_t>(a[0]), pointer<void>(a[1]), a[2], a[3]);
                   }});
  calls.push_back({"zx_vmo_write", {unreadable(vmo(s, s.vmo, ZX_RIGHT_WRITE)), bytes, part}, [](const auto& a) {
                     return zx_vmo_write(static_cast<zx_handle_t>(a[0]), pointer<void>(a[1]), a[2], a[3]);
                   }});
  calls.push_back({"zx_vmo_read(anonymous)", {vmo(s, s.aux, ZX_RIGHT_READ), bytes, range(100, 8, 4, false)},
                   [](const auto& a) {
                     return zx_vmo_read(static_cast<zx_handle_t>(a[0]), pointer<void>(a[1]), a[2], a[3]);
                   }});
  calls.push_back({"zx_vmo_write(anonymous)", {vmo(s, s.aux, ZX_RIGHT_WRITE), bytes, range(100, 8, 4, false)},
                   [](const auto& a) {
                     return zx_vmo_write(static_cast<zx_handle_t>(a[0]), pointer<void>(a[1]), a[2], a[3]);
                   }});

  const auto op_range = [&](const std::string& name, uint32_t op, Argument target, uint64_t pages,
                            zx_status_t otherwise = ZX_OK) {
    Argument where = range(kPage, kPage, pages, op == ZX_VMO_OP_DECOMMIT);
    calls.push_back({"zx_vmo_op_range(" + name + ")", {std::move(target), std::move(where)},
                     [op](const auto& a) {
                       return zx_vmo_op_range(static_cast<zx_handle_t>(a[0]), op, a[1], a[2], nullptr, 0);
                     },
                     otherwise});
  };
  op_range("COMMIT", ZX_VMO_OP_COMMIT, vmo(s, s.vmo, ZX_RIGHT_WRITE), kPages);
  op_range("ZERO", ZX_VMO_OP_ZERO, vmo(s, s.vmo, ZX_RIGHT_WRITE), kPages);
  op_range("DONT_NEED", ZX_VMO_OP_DONT_NEED, vmo(s, s.vmo, ZX_RIGHT_READ), kPages);
  op_range("ALWAYS_NEED", ZX_VMO_OP_ALWAYS_NEED, vmo(s, s.vmo, ZX_RIGHT_READ), kPages);
  op_range("PREFETCH", ZX_VMO_OP_PREFETCH, vmo(s, s.vmo, ZX_RIGHT_READ), kPages);
  op_range("DECOMMIT", ZX_VMO_OP_DECOMMIT, vmo(s, s.vmo, ZX_RIGHT_WRITE), kPages, ZX_ERR_NOT_SUPPORTED);
  for (const uint32_t op : {ZX_VMO_OP_COMMIT, ZX_VMO_OP_ZERO, ZX_VMO_OP_DECOMMIT}) {
    op_range("anonymous, " + std::to_string(op), op, vmo(s, s.aux, ZX_RIGHT_WRITE), 4);
  }
  for (const uint32_t op : {ZX_VMO_OP_DONT_NEED, ZX_VMO_OP_ALWAYS_NEED, ZX_VMO_OP_PREFETCH}) {
    op_range("anonymous, " + std::to_string(op), op, vmo(s, s.aux, ZX_RIGHT_READ), 4);
  }
  for (const uint32_t op : {0u, 3u, 9u, 11u, 15u, UINT32_MAX}) {
    op_range("unknown, " + std::to_string(op), op, vmo(s, s.vmo, 0), kPages, ZX_ERR_INVALID_ARGS);
  }
  return calls;
}

std::vector<Call> port_calls(Scene& s) {
  const auto port = [&](zx_rights_t needed) { return handle(s, s.empty_port.get(), ZX_OBJ_TYPE_PORT, needed); };
  const Argument no_options =
      of({0}, {bad("an option", {1}, ZX_ERR_INVALID_ARGS), bad("all options", {UINT32_MAX}, ZX_ERR_INVALID_ARGS)});
  // A packet of the user's, and one that is none.
  static zx_port_packet_t user, none;
  user.type = ZX_PKT_TYPE_USER;
  none.type = ZX_PKT_TYPE_PAGE_REQUEST;
  Argument packet = of({address(&user)}, {bad("null", {0}, ZX_ERR_INVALID_ARGS),
                                          bad("not a user packet", {address(&none)}, ZX_ERR_INVALID_ARGS)});
  for (uint64_t by = 1; by < 8; by *= 2) {
    packet.wrong.push_back(bad("misaligned", {address(&user) + by}, ZX_ERR_INVALID_ARGS));
  }
  return {
      {"zx_port_create", {no_options, out(s, 4)},
       [](const auto& a) { return zx_port_create(static_cast<uint32_t>(a[0]), pointer<zx_handle_t>(a[1])); }},
      {"zx_port_queue", {port(ZX_RIGHT_WRITE), packet},
       [](const auto& a) { return zx_port_queue(static_cast<zx_handle_t>(a[0]), pointer<zx_port_packet_t>(a[1])); }},
      {"zx_port_wait",
       {port(ZX_RIGHT_READ), of({0}, {bad("the farthest past", {uint64_t{1} << 63}, ZX_ERR_TIMED_OUT)}), out(s, 8)},
       [](const auto& a) {
         return zx_port_wait(static_cast<zx_handle_t>(a[0]), static_cast<zx_time_t>(a[1]),
                             pointer<zx_port_packet_t>(a[2]));
       },
       ZX_ERR_TIMED_OUT},
      {"zx_port_cancel", {port(ZX_RIGHT_WRITE), handle(s, s.vmo.get(), ZX_OBJ_TYPE_NONE, 0), of({1})},
       [](const auto& a) {
         return zx_port_cancel(static_cast<zx_handle_t>(a[0]), static_cast<zx_handle_t>(a[1]), a[2]);
       },
       ZX_ERR_NOT_FOUND},
      {"zx_port_cancel_key", {port(ZX_RIGHT_WRITE), no_options, of({1})},
       [](const auto& a) {
         return zx_port_cancel_key(static_cast<zx_handle_t>(a[0]), static_cast<uint32_t>(a[1]), a[2]);
       },
       ZX_ERR_NOT_FOUND},
  };
}

// The mapping is made by the scene's first call that asks for it, and ends with it.
std::vector<Call> vmar_calls(Scene& s) {
  const auto root = [&](zx_rights_t needed) { return handle(s, zx_vmar_root_self(), ZX_OBJ_TYPE_VMAR, needed); };
  const zx_vaddr_t at = s.mapping(), far = 0x1000;  // which nobody has
  Argument mapped = of({at, 2 * kPage}, {bad("no length", {at, 0}, ZX_ERR_INVALID_ARGS),
                                         bad("address misaligned", {at + 8, 2 * kPage}, ZX_ERR_INVALID_ARGS),
                                         bad("length misaligned", {at, 100}, ZX_ERR_INVALID_ARGS),
                                         bad("overflowing", {at, UINT64_MAX - kPage + 1}, ZX_ERR_INVALID_ARGS)});
  Argument whole = mapped, any = mapped;
  whole.wrong.push_back(bad("nothing mapped", {far, kPage}, ZX_ERR_NOT_FOUND));
  any.wrong.push_back(bad("nothing mapped", {far, kPage}, ZX_ERR_BAD_STATE));
  // With the same permissions, by which the rights go.
  const auto protections = [](zx_vm_option_t good) {
    return of({good}, {bad("unknown options", {0x80000000u | good}, ZX_ERR_INVALID_ARGS),
                       bad("executable", {ZX_VM_PERM_EXECUTE | good}, ZX_ERR_NOT_SUPPORTED)});
  };
  std::vector<Call> calls{
      {"zx_vmar_unmap", {root(0), whole},
       [](const auto& a) { return zx_vmar_unmap(static_cast<zx_handle_t>(a[0]), a[1], a[2]); }},
      {"zx_vmar_destroy", {root(0)}, [](const auto& a) { return zx_vmar_destroy(static_cast<zx_handle_t>(a[0])); },
       ZX_ERR_NOT_SUPPORTED},
  };
  // Places in a VMAR of four pages, of which one is mapped and one another VMAR's.
  const auto in_vmar = [&](zx_rights_t needed) { return handle(s, s.vmar(), ZX_OBJ_TYPE_VMAR, needed); };
  const Argument free = of({0}, {bad("mapped", {2 * kPage}, ZX_ERR_ALREADY_EXISTS),
                                 bad("a VMAR", {3 * kPage}, ZX_ERR_ALREADY_EXISTS),
                                 bad("beyond", {4 * kPage}, ZX_ERR_INVALID_ARGS),
                                 bad("far", {uint64_t{1} << 60}, ZX_ERR_INVALID_ARGS),
                                 bad("overflowing", {UINT64_MAX - kPage + 1}, ZX_ERR_INVALID_ARGS),
                                 bad("misaligned", {8}, ZX_ERR_INVALID_ARGS)});
  const auto allocate = [](zx_vm_option_t options) {
    return [options](const std::vector<uint64_t>& a) {
      return zx_vmar_allocate(static_cast<zx_handle_t>(a[0]),
                              options | ZX_VM_SPECIFIC | static_cast<zx_vm_option_t>(a[1]), a[2], a[3],
                              pointer<zx_handle_t>(a[4]), pointer<zx_vaddr_t>(a[5]));
    };
  };
  const Argument options = of({0}, {bad("an unknown option", {0x80000000u}, ZX_ERR_INVALID_ARGS),
                                    bad("a permission", {ZX_VM_PERM_READ}, ZX_ERR_INVALID_ARGS),
                                    bad("OVERWRITE", {ZX_VM_SPECIFIC_OVERWRITE}, ZX_ERR_NOT_SUPPORTED),
                                    bad("UPPER_LIMIT", {ZX_VM_OFFSET_IS_UPPER_LIMIT}, ZX_ERR_NOT_SUPPORTED),
                                    bad("EXECUTE", {ZX_VM_CAN_MAP_EXECUTE}, ZX_ERR_NOT_SUPPORTED)});
  const Argument size = of({kPage}, {bad("no size", {0}, ZX_ERR_INVALID_ARGS),
                                     bad("part of a page", {100}, ZX_ERR_INVALID_ARGS),
                                     bad("too large", {5 * kPage}, ZX_ERR_INVALID_ARGS),
                                     bad("overflowing", {UINT64_MAX - kPage + 1}, ZX_ERR_INVALID_ARGS)});
  const Argument none = of({0}), page = of({kPage}), to = of({address(s.buffers.out)});
  // Not all of it with all of it: that would be 150,000.
  calls.push_back({"zx_vmar_allocate", {in_vmar(0), none, free, page, out(s, 4), out(s, 8)}, allocate(0)});
  calls.push_back({"zx_vmar_allocate", {in_vmar(ZX_RIGHT_READ), options, free, size, to, to}, allocate(ZX_VM_CAN_MAP_READ)});
  calls.push_back({"zx_vmar_allocate", {in_vmar(ZX_RIGHTS_IO), options, none, size, to, to},
                   allocate(ZX_VM_CAN_MAP_READ | ZX_VM_CAN_MAP_WRITE)});
  calls.push_back({"zx_vmar_map(SPECIFIC)",
                   {in_vmar(ZX_RIGHT_READ), of({0}, {bad("OVERWRITE", {ZX_VM_SPECIFIC_OVERWRITE}, ZX_ERR_NOT_SUPPORTED)}), free,
                    vmo(s, s.fixed, ZX_RIGHT_READ | ZX_RIGHT_MAP),
                    of({0, kPage}, {bad("no length", {0, 0}, ZX_ERR_INVALID_ARGS)}), to},
                   [](const auto& a) {
                     return zx_vmar_map(static_cast<zx_handle_t>(a[0]),
                                        ZX_VM_PERM_READ | ZX_VM_SPECIFIC | static_cast<zx_vm_option_t>(a[1]), a[2],
                                        static_cast<zx_handle_t>(a[3]), a[4], a[5], pointer<zx_vaddr_t>(a[6]));
                   }});
  calls.push_back({"zx_vmar_destroy(a VMAR)", {in_vmar(0)},
                   [](const auto& a) { return zx_vmar_destroy(static_cast<zx_handle_t>(a[0])); }});
  for (const zx_vm_option_t options : {ZX_VM_PERM_READ, ZX_VM_PERM_READ | ZX_VM_PERM_WRITE}) {
    const bool writes = (options & ZX_VM_PERM_WRITE) != 0;
    const zx_rights_t rights = ZX_RIGHT_READ | (writes ? ZX_RIGHT_WRITE : 0);
    const std::string name = writes ? "(writable)" : "(readable)";
    Argument target = vmo(s, s.fixed, rights | ZX_RIGHT_MAP);
    target.wrong.push_back(bad("an anonymous VMO", {s.aux.get()}, ZX_ERR_NOT_SUPPORTED));
    calls.push_back({"zx_vmar_map" + name,
                     {root(rights),
                      of({0}, {bad("SPECIFIC in the root", {ZX_VM_SPECIFIC}, ZX_ERR_NOT_SUPPORTED),
                               bad("an alignment", {uint64_t{12} << 24}, ZX_ERR_NOT_SUPPORTED),
                               bad("an unknown option", {0x80000000u}, ZX_ERR_INVALID_ARGS)}),
                      of({0}, {bad("a place", {kPage}, ZX_ERR_INVALID_ARGS)}), target,
                      of({0, kPage}, {bad("no length", {0, 0}, ZX_ERR_INVALID_ARGS),
                                      bad("misaligned", {1, kPage}, ZX_ERR_INVALID_ARGS),
                                      bad("over the end", {0, 64 * kPage}, ZX_ERR_BUFFER_TOO_SMALL),
                                      bad("overflowing", {kPage, UINT64_MAX - kPage + 1}, ZX_ERR_OUT_OF_RANGE),
                                      bad("too long", {0, UINT64_MAX}, ZX_ERR_OUT_OF_RANGE)}),
                      out(s, 8)},
                     [options](const auto& a) {
                       return zx_vmar_map(static_cast<zx_handle_t>(a[0]), options | static_cast<zx_vm_option_t>(a[1]),
                                          a[2], static_cast<zx_handle_t>(a[3]), a[4], a[5], pointer<zx_vaddr_t>(a[6]));
                     }});
    calls.push_back({"zx_vmar_protect" + name, {root(rights), protections(options), whole}, [](const auto& a) {
                       return zx_vmar_protect(static_cast<zx_handle_t>(a[0]), static_cast<zx_vm_option_t>(a[1]), a[2],
                                              a[3]);
                     }});
  }
  for (const uint32_t op : {ZX_VMAR_OP_COMMIT, ZX_VMAR_OP_MAP_RANGE, ZX_VMAR_OP_ZERO, ZX_VMAR_OP_DONT_NEED,
                            ZX_VMAR_OP_ALWAYS_NEED, ZX_VMAR_OP_PREFETCH, uint32_t{77}}) {
    calls.push_back({"zx_vmar_op_range(" + std::to_string(op) + ")", {root(0), any},
                     [op](const auto& a) {
                       return zx_vmar_op_range(static_cast<zx_handle_t>(a[0]), op, a[1], a[2], nullptr, 0);
                     },
                     op == 77 ? ZX_ERR_INVALID_ARGS : ZX_OK});
  }
  return calls;
}

// Makes the call with every combination in which something is wrong.
uint64_t sweep(const Scene& scene, const Call& call) {
  const std::string figures = scene.figures(), before = scene.state();
  uint64_t made = 0;
  std::vector<size_t> at(call.arguments.size(), 0);  // 0: the good one
  for (;;) {
    std::vector<uint64_t> values;
    zx_status_t by_handle = ZX_OK;
    std::vector<zx_status_t> allowed;
    std::string what = call.name;
    for (size_t n = 0; n < at.size(); n++) {
      const Argument& argument = call.arguments[n];
      const Choice& choice = at[n] == 0 ? argument.good : argument.wrong[at[n] - 1];
      values.insert(values.end(), choice.values.begin(), choice.values.end());
      if (at[n] != 0) what += (allowed.empty() && by_handle == ZX_OK ? " with " : ", ") + choice.what;
      if (choice.by_handle && by_handle == ZX_OK) by_handle = choice.error;
      if (!choice.by_handle && choice.error != ZX_OK) allowed.push_back(choice.error);
    }
    if (call.otherwise != ZX_OK) allowed.push_back(call.otherwise);
    if (by_handle != ZX_OK) allowed = {by_handle};
    if (!allowed.empty()) {
      const zx_status_t status = call.make(values);
      made++;
      if (std::find(allowed.begin(), allowed.end(), status) == allowed.end()) {
        fail(__FILE__, __LINE__, what + " is " + text(status) + ", not " + text(allowed[0]));
      }
      const bool is_same = made % 64 == 0 ? scene.state() == before : scene.figures() == figures;
      if (!is_same) fail(__FILE__, __LINE__, what + (made % 64 ? " has" : ", or one of 63 before it, has") + " changed something");
    }
    size_t n = 0;
    while (n < at.size() && ++at[n] > call.arguments[n].wrong.size()) at[n++] = 0;
    if (n < at.size()) continue;
    if (scene.state() != before) fail(__FILE__, __LINE__, call.name + " has changed something");
    return made;
  }
}

void sweep_all(std::vector<Call> (*calls)(Scene&), uint64_t at_least) {
  Scene scene;
  const std::vector<Call> all = calls(scene);
  uint64_t made = 0;
  for (const Call& call : all) made += sweep(scene, call);
  count(made);
  CHECK(made >= at_least);
}

// Makes each call that can succeed, in a scene of its own, with nothing more than it needs.
void least_rights(std::vector<Call> (*calls)(Scene&)) {
  size_t number = 0;
  for (;; number++) {
    Scene scene;
    const std::vector<Call> all = calls(scene);
    if (number == all.size()) break;
    const Call& call = all[number];
    if (call.otherwise != ZX_OK) continue;
    std::vector<uint64_t> values;
    for (const Argument& argument : call.arguments) {
      values.insert(values.end(), argument.least.begin(), argument.least.end());
    }
    const zx_status_t status = call.make(values);
    if (status != ZX_OK) fail(__FILE__, __LINE__, call.name + " with the least rights is " + text(status));
    count(1);
    // What it has made is ours to end.
    if (call.name.rfind("zx_vmar_map(SPECIFIC)", 0) == 0) continue;  // with its VMAR
    if (call.name.rfind("zx_vmar_map", 0) == 0) {
      zx_vaddr_t at = 0;
      std::memcpy(&at, scene.buffers.out, sizeof(at));
      CHECK_OK(zx_vmar_unmap(zx_vmar_root_self(), at, kPage));
    }
    for (const char* maker : {"zx_handle_duplicate", "zx_handle_replace", "zx_pager_create", "zx_pager_create_vmo",
                              "zx_vmo_create", "zx_port_create", "zx_vmar_allocate"}) {
      if (call.name != maker) continue;
      zx_handle_t made = ZX_HANDLE_INVALID;
      std::memcpy(&made, scene.buffers.out, sizeof(made));
      CHECK_OK(zx_handle_close(made));
    }
    // One that it has replaced is not ours to close.
    if (call.name == "zx_handle_replace") {
      for (Handle& handle : scene.handles) {
        if (handle.get() == values[0]) handle.release();
      }
    }
  }
}

}  // namespace

CASE(sweep, wrong_arguments_of_handle_and_object_calls) { sweep_all(handle_calls, 500); }
CASE(sweep, wrong_arguments_of_pager_calls) { sweep_all(pager_calls, 5000); }
CASE(sweep, wrong_arguments_of_vmo_calls) { sweep_all(vmo_calls, 500); }
CASE(sweep, wrong_arguments_of_port_calls) { sweep_all(port_calls, 100); }
CASE(sweep, wrong_arguments_of_mapping_calls) { sweep_all(vmar_calls, 500); }
CASE(sweep, handle_and_object_calls_need_no_more_rights) { least_rights(handle_calls); }
CASE(sweep, pager_calls_need_no_more_rights) { least_rights(pager_calls); }
CASE(sweep, vmo_calls_need_no_more_rights) { least_rights(vmo_calls); }
CASE(sweep, port_calls_need_no_more_rights) { least_rights(port_calls); }
CASE(sweep, mapping_calls_need_no_more_rights) { least_rights(vmar_calls); }
