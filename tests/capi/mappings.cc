// zx_vmar_*(): mapped access, SIGBUS, and what there is not.

#include <algorithm>
#include <csetjmp>
#include <csignal>

#include "world.h"

using namespace conformance;

namespace {

constexpr zx_vm_option_t kRead = ZX_VM_PERM_READ;
constexpr zx_vm_option_t kWrite = ZX_VM_PERM_READ | ZX_VM_PERM_WRITE;

// Where the thread goes on when a mapped access fails.
thread_local sigjmp_buf* volatile way_out;  // volatile: the handler reads it

void on_signal(int signal) {
  if (sigjmp_buf* const way = way_out) siglongjmp(*way, signal);
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

// Makes an access, and returns the signal that it raised, or 0.
template <typename Access>
int signal_of(Access access) {
  static const bool installed = [] {
    struct sigaction action;
    std::memset(&action, 0, sizeof(action));
    action.sa_handler = on_signal;
    return sigaction(SIGBUS, &action, nullptr) == 0 && sigaction(SIGSEGV, &action, nullptr) == 0;
  }();
  CHECK(installed);
  sigjmp_buf here;
  const int signal = sigsetjmp(here, 1);
  if (signal == 0) {
    way_out = &here;
    access();
  }
  way_out = nullptr;
  return signal;
}

zx_status_t try_map(const Handle& vmo, zx_vm_option_t options, uint64_t offset, uint64_t length, zx_vaddr_t* at) {
  return zx_vmar_map(zx_vmar_root_self(), options, 0, vmo.get(), offset, length, at);
}

// A mapping of pages of a VMO, that ends with it.
class Mapping {
 public:
  Mapping(const Handle& vmo, zx_vm_option_t options, uint64_t first, uint64_t pages) : length_(pages * kPage) {
    CHECK_OK(try_map(vmo, options, first * kPage, length_, &at_));
    CHECK_EQ(at_ % kPage, 0u);
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() {
    if (at_ != 0 && zx_vmar_unmap(zx_vmar_root_self(), at_, length_) != ZX_OK) note(__FILE__, __LINE__, "not unmapped");
  }
  void unmap() { CHECK_OK(zx_vmar_unmap(zx_vmar_root_self(), std::exchange(at_, 0), length_)); }
  zx_vaddr_t at() const { return at_; }
  volatile uint8_t& operator[](uint64_t offset) const { return reinterpret_cast<volatile uint8_t*>(at_)[offset]; }
  // The signal that a load or a store raises.
  int load(uint64_t offset) const {
    return signal_of([&] { [[maybe_unused]] const uint8_t byte = (*this)[offset]; });
  }
  int store(uint64_t offset, uint8_t byte) const {
    return signal_of([&] { (*this)[offset] = byte; });
  }
  Bytes bytes(uint64_t first, uint64_t pages = 1) const {
    Bytes bytes(pages * kPage);
    for (size_t at = 0; at < bytes.size(); at++) bytes[at] = (*this)[first * kPage + at];
    return bytes;
  }

 private:
  zx_vaddr_t at_ = 0;
  uint64_t length_;
};

// A VMAR in the root, or in another one, that ends with it.
class Vmar {
 public:
  static constexpr zx_vm_option_t kAll = ZX_VM_CAN_MAP_READ | ZX_VM_CAN_MAP_WRITE | ZX_VM_CAN_MAP_SPECIFIC;

  explicit Vmar(uint64_t pages, zx_vm_option_t options = kAll) {
    CHECK_OK(zx_vmar_allocate(zx_vmar_root_self(), options, 0, pages * kPage, handle_.out(), &at_));
    CHECK_EQ(at_ % kPage, 0u);
  }
  Vmar(const Vmar& parent, uint64_t first, uint64_t pages, zx_vm_option_t options = kAll) {
    CHECK_OK(parent.try_allocate(options | ZX_VM_SPECIFIC, first, pages, handle_.out(), &at_));
    CHECK_EQ(at_, parent.at() + first * kPage);
  }
  Vmar(const Vmar&) = delete;
  Vmar& operator=(const Vmar&) = delete;
  ~Vmar() {
    const zx_status_t status = zx_vmar_destroy(handle_.get());  // it may be destroyed with another
    if (status != ZX_OK && status != ZX_ERR_BAD_STATE) note(__FILE__, __LINE__, "not destroyed");
  }
  zx_handle_t handle() const { return handle_.get(); }
  zx_vaddr_t at() const { return at_; }
  zx_vaddr_t at(uint64_t page) const { return at_ + page * kPage; }
  zx_status_t try_allocate(zx_vm_option_t options, uint64_t first, uint64_t pages, zx_handle_t* out,
                           zx_vaddr_t* at) const {
    return zx_vmar_allocate(handle(), options, first * kPage, pages * kPage, out, at);
  }
  // Pages of a VMO from its first on, at a page of the VMAR.
  zx_status_t try_map(const Handle& vmo, zx_vm_option_t options, uint64_t at, uint64_t pages, uint64_t first = 0) const {
    zx_vaddr_t address = 0;
    const zx_status_t status = zx_vmar_map(handle(), options | ZX_VM_SPECIFIC, at * kPage, vmo.get(), first * kPage,
                                           pages * kPage, &address);
    CHECK_EQ(address, status == ZX_OK ? this->at(at) : 0u);
    return status;
  }
  void map(const Handle& vmo, zx_vm_option_t options, uint64_t at, uint64_t pages, uint64_t first = 0) const {
    CHECK_OK(try_map(vmo, options, at, pages, first));
  }
  zx_status_t unmap(uint64_t first, uint64_t pages) const { return zx_vmar_unmap(handle(), at(first), pages * kPage); }
  zx_status_t protect(zx_vm_option_t options, uint64_t first, uint64_t pages) const {
    return zx_vmar_protect(handle(), options, at(first), pages * kPage);
  }
  volatile uint8_t& operator[](uint64_t page) const { return *reinterpret_cast<volatile uint8_t*>(at(page)); }
  int load(uint64_t page) const {
    return signal_of([&] { [[maybe_unused]] const uint8_t byte = (*this)[page]; });
  }
  int store(uint64_t page) const {
    return signal_of([&] { (*this)[page] = 1; });
  }

 private:
  Handle handle_;
  zx_vaddr_t at_ = 0;
};

zx_status_t op_of(const Mapping& mapping, uint32_t op, uint64_t first, uint64_t pages) {
  return zx_vmar_op_range(zx_vmar_root_self(), op, mapping.at() + first * kPage, pages * kPage, nullptr, 0);
}

// Fails the first page until the access to it has failed. A thread that does not run for 20 ms after its page was failed
// finds that the page is to be asked for again.
void fail_until_done(const World& world, const Handle& vmo, const Task& access) {
  CHECK_OK(world.fail(vmo, 0, 1, ZX_ERR_IO));
  while (!access.is_done()) {
    zx_port_packet_t packet;
    if (zx_port_wait(world.port.get(), in_ms(5), &packet) == ZX_OK) CHECK_OK(world.fail(vmo, 0, 1, ZX_ERR_IO));
  }
}

}  // namespace

CASE(mappings, a_load_of_a_page_that_is_there_needs_no_packet) {
  const World world;
  const Handle vmo = world.full(3);
  const Mapping mapping(vmo, kRead, 0, 3);
  CHECK_EQ(mapping.bytes(0, 3), content(0, 3));
  world.expect_nothing();
}

CASE(mappings, a_load_of_an_absent_page_asks_and_waits) {
  const World world;
  const Handle vmo = world.vmo(2);
  const Mapping mapping(vmo, kRead, 0, 2);
  Task reader([&] { CHECK_EQ(mapping.bytes(1), content(1)); });
  world.expect_read(1);
  zx_nanosleep(in_ms(10));
  CHECK(!reader.is_done());
  world.supply(vmo, 1, 1);
}

CASE(mappings, begin_anywhere_in_the_vmo) {
  const World world;
  const Handle vmo = world.full(8);
  const Mapping mapping(vmo, kRead, 5, 2);
  CHECK_EQ(mapping.bytes(0, 2), content(5, 2));
}

CASE(mappings, a_store_makes_the_page_dirty_and_is_read_by_calls) {
  const World world;
  const Handle vmo = world.full(2);
  const Mapping mapping(vmo, kWrite, 0, 2);
  mapping[kPage + 3] = 0xaa;
  CHECK_EQ(read(vmo, kPage + 3, 1), (Bytes{0xaa}));
  CHECK_EQ(world.dirty_ranges(vmo), (Ranges{{1, 1}}));
  CHECK(world.is_modified(vmo));
}

CASE(mappings, a_write_by_call_is_loaded) {
  const World world;
  const Handle vmo = world.full(1);
  const Mapping mapping(vmo, kRead, 0, 1);
  CHECK_EQ(mapping.bytes(0), content(0));
  write(vmo, 0, content(0, 1, 8));
  CHECK_EQ(mapping.bytes(0), content(0, 1, 8));
}

CASE(mappings, of_one_vmo_show_the_same_bytes) {
  const World world;
  const Handle vmo = world.full(2);
  const Mapping one(vmo, kWrite, 0, 2), two(vmo, kRead, 1, 1);
  CHECK(one.at() != two.at());
  one[kPage] = 0x77;
  CHECK_EQ(two[0], 0x77);
}

CASE(mappings, a_trapped_store_asks_for_leave) {
  const World world;
  const Handle vmo = world.full(1, ZX_VMO_TRAP_DIRTY);
  const Mapping mapping(vmo, kWrite, 0, 1);
  Task writer([&] { mapping[0] = 0xaa; });
  world.expect_dirty(0);
  CHECK(!writer.is_done());
  CHECK_OK(world.dirty(vmo, 0, 1));
  writer.join();
  CHECK_EQ(read(vmo, 0, 1), (Bytes{0xaa}));
}

CASE(mappings, a_page_that_the_service_fails_is_sigbus) {
  const World world;
  const Handle vmo = world.vmo(1);
  const Mapping mapping(vmo, kRead, 0, 1);
  Task reader([&] { CHECK_EQ(mapping.load(0), SIGBUS); });
  world.expect_read(0);
  fail_until_done(world, vmo, reader);
}

CASE(mappings, a_page_that_failed_is_asked_for_again_later) {
  const World world;
  const Handle vmo = world.vmo(1);
  const Mapping mapping(vmo, kRead, 0, 1);
  {
    Task reader([&] { CHECK_EQ(mapping.load(0), SIGBUS); });
    world.expect_read(0);
    fail_until_done(world, vmo, reader);
  }
  zx_nanosleep(in_ms(60));
  Task reader([&] { CHECK_EQ(mapping.bytes(0), content(0)); });
  world.expect_read(0);
  world.supply(vmo, 0, 1);
}

CASE(mappings, detach_gives_sigbus_to_who_waits_and_who_comes_later) {
  const World world;
  const Handle vmo = world.vmo(2);
  const Mapping mapping(vmo, kWrite, 0, 2);
  Task reader([&] { CHECK_EQ(mapping.load(0), SIGBUS); });
  world.expect_read(0);
  CHECK_OK(world.detach(vmo));
  reader.join();
  CHECK_EQ(mapping.load(0), SIGBUS);
  CHECK_EQ(mapping.store(kPage, 1), SIGBUS);
}

CASE(mappings, detach_takes_clean_pages_and_leaves_dirty_ones) {
  const World world;
  const Handle vmo = world.full(2);
  const Mapping mapping(vmo, kWrite, 0, 2);
  mapping[kPage] = 0xaa;
  CHECK_EQ(mapping[0], content(0)[0]);
  CHECK_OK(world.detach(vmo));
  CHECK_EQ(mapping.load(0), SIGBUS);
  CHECK_EQ(mapping[kPage], 0xaa);
  mapping[kPage] = 0xbb;
  CHECK_EQ(read(vmo, kPage, 1), (Bytes{0xbb}));
}

CASE(mappings, closing_the_pager_gives_sigbus_to_who_waits) {
  World world;
  const Handle vmo = world.vmo(1);
  const Mapping mapping(vmo, kRead, 0, 1);
  Task reader([&] { CHECK_EQ(mapping.load(0), SIGBUS); });
  world.expect_read(0);
  world.pager.reset();
}

CASE(mappings, shrinking_gives_sigbus_beyond_the_end) {
  const World world;
  Handle vmo = world.full(3, ZX_VMO_RESIZABLE);
  const Mapping mapping(vmo, kRead, 0, 3);
  CHECK_EQ(mapping.bytes(0, 3), content(0, 3));
  CHECK_OK(zx_vmo_set_size(vmo.get(), kPage));
  CHECK_EQ(mapping[0], content(0)[0]);
  CHECK_EQ(mapping.load(2 * kPage), SIGBUS);
}

CASE(mappings, a_store_between_begin_and_end_keeps_the_page_dirty) {
  const World world;
  const Handle vmo = world.full(1);
  const Mapping mapping(vmo, kWrite, 0, 1);
  mapping[0] = 1;
  CHECK_OK(world.begin(vmo, 0, 1));
  mapping[0] = 2;
  CHECK_OK(world.end(vmo, 0, 1));
  CHECK_EQ(world.dirty_ranges(vmo), (Ranges{{0, 1}}));
}

CASE(mappings, zeroed_pages_load_as_zeros) {
  const World world;
  const Handle vmo = world.full(1);
  const Mapping mapping(vmo, kWrite, 0, 1);
  mapping[5] = 1;
  CHECK_OK(op_of(mapping, ZX_VMAR_OP_ZERO, 0, 1));
  CHECK_EQ(mapping.bytes(0), zeros(1));
}

CASE(mappings, keep_the_vmo_when_its_handles_are_closed) {
  const World world;
  Handle vmo = world.full(1);
  Mapping mapping(vmo, kRead, 0, 1);
  vmo.reset();
  world.expect_nothing(2);
  CHECK_EQ(mapping.bytes(0), content(0));
  mapping.unmap();
  world.expect_complete();
}

CASE(mappings, read_only_stores_are_sigsegv) {
  const World world;
  const Handle vmo = world.full(1);
  const Mapping mapping(vmo, kRead, 0, 1);
  CHECK_EQ(mapping.store(0, 1), SIGSEGV);
  CHECK_EQ(read_pages(vmo, 0), content(0));
}

CASE(mappings, can_be_protected_and_unprotected) {
  const World world;
  const Handle vmo = world.full(1);
  const Mapping mapping(vmo, kWrite, 0, 1);
  mapping[0] = 1;
  CHECK_OK(zx_vmar_protect(zx_vmar_root_self(), kRead, mapping.at(), kPage));
  CHECK_EQ(mapping.store(0, 2), SIGSEGV);
  CHECK_OK(zx_vmar_protect(zx_vmar_root_self(), kWrite, mapping.at(), kPage));
  mapping[0] = 3;
  CHECK_EQ(read(vmo, 0, 1), (Bytes{3}));
}

CASE(mappings, of_a_handle_that_cannot_write_cannot_be_written) {
  const World world;
  const Handle vmo = world.full(1), reads = vmo.duplicate(ZX_RIGHT_READ | ZX_RIGHT_MAP);
  zx_vaddr_t at = 0;
  CHECK_STATUS(try_map(reads, kWrite, 0, kPage, &at), ZX_ERR_ACCESS_DENIED);
  const Mapping mapping(reads, kRead, 0, 1);
  CHECK_STATUS(zx_vmar_protect(zx_vmar_root_self(), kWrite, mapping.at(), kPage), ZX_ERR_ACCESS_DENIED);
  CHECK_STATUS(op_of(mapping, ZX_VMAR_OP_COMMIT, 0, 1), ZX_ERR_ACCESS_DENIED);
  CHECK_OK(op_of(mapping, ZX_VMAR_OP_DONT_NEED, 0, 1));
}

CASE(mappings, need_the_right_to_map) {
  const World world;
  const Handle vmo = world.full(1), bare = vmo.duplicate(ZX_RIGHTS_IO);
  zx_vaddr_t at = 0;
  CHECK_STATUS(try_map(bare, kRead, 0, kPage, &at), ZX_ERR_ACCESS_DENIED);
}

CASE(mappings, commit_by_address_asks_for_the_pages_and_waits) {
  const World world;
  const Handle vmo = world.vmo(4);
  const Mapping mapping(vmo, kWrite, 1, 3);
  Task commit([&] { CHECK_OK(op_of(mapping, ZX_VMAR_OP_COMMIT, 1, 2)); });
  world.expect_read(2, 2);
  world.supply(vmo, 2, 2);
}

CASE(mappings, map_range_and_hints_are_taken) {
  const World world;
  const Handle vmo = world.full(2);
  const Mapping mapping(vmo, kRead | ZX_VM_MAP_RANGE | ZX_VM_ALLOW_FAULTS, 0, 2);
  for (const uint32_t op : {ZX_VMAR_OP_MAP_RANGE, ZX_VMAR_OP_PREFETCH, ZX_VMAR_OP_ALWAYS_NEED, ZX_VMAR_OP_DONT_NEED}) {
    CHECK_OK(op_of(mapping, op, 0, 2));
  }
  CHECK_STATUS(op_of(mapping, 99, 0, 2), ZX_ERR_INVALID_ARGS);
}

CASE(mappings, what_is_not_mapped_is_told) {
  const World world;
  const Handle vmo = world.full(1);
  Mapping mapping(vmo, kRead, 0, 1);
  const zx_vaddr_t at = mapping.at();
  const zx_handle_t root = zx_vmar_root_self();
  mapping.unmap();
  CHECK_STATUS(zx_vmar_unmap(root, at, kPage), ZX_ERR_NOT_FOUND);
  CHECK_STATUS(zx_vmar_protect(root, kRead, at, kPage), ZX_ERR_NOT_FOUND);
  CHECK_STATUS(zx_vmar_op_range(root, ZX_VMAR_OP_COMMIT, at, kPage, nullptr, 0), ZX_ERR_BAD_STATE);
}

CASE(mappings, unmapping_gives_sigbus_or_sigsegv_to_who_waits) {
  const World world;
  const Handle vmo = world.vmo(1);
  Mapping mapping(vmo, kRead, 0, 1);
  const zx_vaddr_t at = mapping.at();
  Task reader([&] {
    const int signal = signal_of([&] {
      [[maybe_unused]] const uint8_t byte = *reinterpret_cast<volatile uint8_t*>(at);
    });
    CHECK(signal == SIGBUS || signal == SIGSEGV);
  });
  world.expect_read(0);
  mapping.unmap();
}

CASE(mappings, a_part_is_unmapped_and_the_rest_stays) {
  const World world;
  const Handle vmo = world.full(5);
  const zx_handle_t root = zx_vmar_root_self();
  zx_vaddr_t at = 0;
  CHECK_OK(try_map(vmo, kWrite, 0, 5 * kPage, &at));
  const auto load = [&](uint64_t page) {
    return signal_of([&] { [[maybe_unused]] const uint8_t byte = *reinterpret_cast<volatile uint8_t*>(at + page * kPage); });
  };
  CHECK_OK(zx_vmar_unmap(root, at + 2 * kPage, kPage));
  CHECK_EQ(info_of(vmo).num_mappings, 2u);
  CHECK_EQ(load(2), SIGBUS);
  for (const uint64_t page : {0, 1, 3, 4}) CHECK_EQ(load(page), 0);
  CHECK_STATUS(zx_vmar_unmap(root, at + 2 * kPage, kPage), ZX_ERR_NOT_FOUND);
  CHECK_STATUS(zx_vmar_protect(root, kRead, at, 5 * kPage), ZX_ERR_NOT_FOUND);
  CHECK_STATUS(zx_vmar_op_range(root, ZX_VMAR_OP_ZERO, at, 5 * kPage, nullptr, 0), ZX_ERR_BAD_STATE);
  // A store beside the part that went is noted as ever.
  *reinterpret_cast<volatile uint8_t*>(at + 3 * kPage) = 7;
  CHECK_OK(world.begin(vmo, 0, 5));
  CHECK_OK(world.end(vmo, 0, 5));
  CHECK_EQ(world.dirty_ranges(vmo), Ranges{});
  *reinterpret_cast<volatile uint8_t*>(at + 3 * kPage) = 8;
  CHECK_EQ(world.dirty_ranges(vmo), (Ranges{{3, 1}}));
  // Over the gap, and parts of both pieces.
  CHECK_OK(zx_vmar_unmap(root, at + kPage, 3 * kPage));
  CHECK_EQ(load(1), SIGBUS);
  CHECK_EQ(load(0), 0);
  CHECK_EQ(load(4), 0);
  CHECK_OK(zx_vmar_unmap(root, at, 5 * kPage));
  CHECK_EQ(info_of(vmo).num_mappings, 0u);
  CHECK_STATUS(zx_vmar_unmap(root, at, 5 * kPage), ZX_ERR_NOT_FOUND);
}

CASE(mappings, unmapping_a_part_gives_sigbus_to_who_waits_there_only) {
  const World world;
  const Handle vmo = world.vmo(2);
  zx_vaddr_t at = 0;
  CHECK_OK(try_map(vmo, kRead, 0, 2 * kPage, &at));
  const auto load = [&](uint64_t page) {
    return signal_of([&] { [[maybe_unused]] const uint8_t byte = *reinterpret_cast<volatile uint8_t*>(at + page * kPage); });
  };
  Task first([&] { CHECK_EQ(load(0), 0); });
  world.expect_read(0);
  Task second([&] { CHECK_EQ(load(1), SIGBUS); });
  world.expect_read(1);
  CHECK_OK(zx_vmar_unmap(zx_vmar_root_self(), at + kPage, kPage));
  second.join();
  CHECK(!first.is_done());
  world.supply(vmo, 0, 1);
  first.join();
  CHECK_OK(zx_vmar_unmap(zx_vmar_root_self(), at, kPage));
}

CASE(mappings, a_part_is_protected) {
  const World world;
  const Handle vmo = world.full(4);
  const Mapping mapping(vmo, kWrite, 0, 4);
  CHECK_OK(zx_vmar_protect(zx_vmar_root_self(), kRead, mapping.at() + kPage, 2 * kPage));
  CHECK_EQ(mapping.store(0, 1), 0);
  CHECK_EQ(mapping.store(kPage, 1), SIGSEGV);
  CHECK_EQ(mapping.store(2 * kPage, 1), SIGSEGV);
  CHECK_EQ(mapping.store(3 * kPage, 1), 0);
  CHECK_EQ(mapping.bytes(1, 2), content(1, 2));
  CHECK_OK(zx_vmar_protect(zx_vmar_root_self(), kWrite, mapping.at() + 2 * kPage, 2 * kPage));
  CHECK_EQ(mapping.store(2 * kPage, 1), 0);
  CHECK_EQ(world.dirty_ranges(vmo), (Ranges{{0, 1}, {2, 2}}));
}

CASE(mappings, one_call_protects_several) {
  const World world;
  const Handle one = world.full(1, 0, 1), two = world.full(1, 0, 2);
  const Vmar vmar(2);
  vmar.map(one, kWrite, 0, 1);
  vmar.map(two, kWrite, 1, 1);
  CHECK_OK(zx_vmar_protect(vmar.handle(), kRead, vmar.at(), 2 * kPage));
  CHECK_EQ(vmar.store(0), SIGSEGV);
  CHECK_EQ(vmar.store(1), SIGSEGV);
}

CASE(mappings, what_there_is_not_is_not_supported) {
  const World world;
  const Handle vmo = world.full(1), plain = anonymous(1), resizable = world.vmo(1, ZX_VMO_RESIZABLE);
  zx_vaddr_t at = 0;
  CHECK_STATUS(try_map(plain, kRead, 0, kPage, &at), ZX_ERR_NOT_SUPPORTED);
  CHECK_STATUS(try_map(vmo, kRead | ZX_VM_SPECIFIC, 0, kPage, &at), ZX_ERR_NOT_SUPPORTED);
  CHECK_STATUS(try_map(vmo, 0, 0, kPage, &at), ZX_ERR_NOT_SUPPORTED);
  CHECK_STATUS(try_map(vmo, kRead | ZX_VM_ALLOW_FAULTS, 0, 2 * kPage, &at), ZX_ERR_NOT_SUPPORTED);
  CHECK_STATUS(try_map(resizable, kRead | ZX_VM_REQUIRE_NON_RESIZABLE, 0, kPage, &at), ZX_ERR_NOT_SUPPORTED);
  CHECK_STATUS(try_map(vmo, kRead | ZX_VM_OFFSET_IS_UPPER_LIMIT, 0, kPage, &at), ZX_ERR_NOT_SUPPORTED);
  Handle child;
  const auto allocate = [&](zx_vm_option_t options) {
    return zx_vmar_allocate(zx_vmar_root_self(), options, 0, kPage, child.out(), &at);
  };
  CHECK_STATUS(allocate(ZX_VM_CAN_MAP_EXECUTE), ZX_ERR_NOT_SUPPORTED);
  CHECK_STATUS(allocate(ZX_VM_SPECIFIC), ZX_ERR_NOT_SUPPORTED);
  CHECK_STATUS(allocate(ZX_VM_OFFSET_IS_UPPER_LIMIT), ZX_ERR_NOT_SUPPORTED);
  CHECK_STATUS(zx_vmar_destroy(zx_vmar_root_self()), ZX_ERR_NOT_SUPPORTED);
  CHECK_EQ(at, 0u);
}

CASE(mappings, wrong_ranges_are_told) {
  const World world;
  const Handle vmo = world.full(2);
  zx_vaddr_t at = 0;
  CHECK_STATUS(try_map(vmo, kRead, 0, 0, &at), ZX_ERR_INVALID_ARGS);
  CHECK_STATUS(try_map(vmo, kRead, 1, kPage, &at), ZX_ERR_INVALID_ARGS);
  CHECK_STATUS(try_map(vmo, ZX_VM_PERM_WRITE, 0, kPage, &at), ZX_ERR_INVALID_ARGS);
  CHECK_STATUS(try_map(vmo, kRead, kPage, 2 * kPage, &at), ZX_ERR_BUFFER_TOO_SMALL);
  CHECK_STATUS(try_map(vmo, kRead, kPage, UINT64_MAX - kPage + 1, &at), ZX_ERR_OUT_OF_RANGE);
  CHECK_STATUS(zx_vmar_map(zx_vmar_root_self(), kRead, kPage, vmo.get(), 0, kPage, &at), ZX_ERR_INVALID_ARGS);
}

CASE(mappings, a_length_is_rounded_up_to_pages) {
  const World world;
  const Handle vmo = world.full(2);
  zx_vaddr_t at = 0;
  CHECK_OK(try_map(vmo, kRead, 0, kPage + 1, &at));
  CHECK_EQ(*reinterpret_cast<volatile uint8_t*>(at + 2 * kPage - 1), content(1)[kPage - 1]);
  CHECK_OK(zx_vmar_unmap(zx_vmar_root_self(), at, 2 * kPage));
}

CASE(mappings, are_counted) {
  const World world;
  const Handle vmo = world.full(2);
  CHECK_EQ(info_of(vmo).num_mappings, 0u);
  const Mapping one(vmo, kRead, 0, 1);
  {
    const Mapping two(vmo, kRead, 0, 2);
    CHECK_EQ(info_of(vmo).num_mappings, 2u);
  }
  CHECK_EQ(info_of(vmo).num_mappings, 1u);
}

CASE(mappings, the_root_is_one_handle_of_its_type) {
  CHECK_EQ(zx_vmar_root_self(), zx_vmar_root_self());
  CHECK_EQ(basic_of(zx_vmar_root_self()).type, ZX_OBJ_TYPE_VMAR);
  CHECK_EQ(basic_of(zx_vmar_root_self()).rights, ZX_ROOT_VMAR_RIGHTS);
}

CASE(mappings, a_vmo_is_read_into_a_mapping_that_is_not_there_yet) {
  const World world;
  const Handle source = world.full(1, 0, 1), target = world.vmo(1, 0, 2);
  const Mapping mapping(target, kWrite, 0, 1);
  Task reader([&] {
    CHECK_OK(zx_vmo_read(source.get(), reinterpret_cast<void*>(mapping.at()), 0, kPage));
  });
  world.expect_read(0, 1, 2);
  world.supply(target, 0, 1, 9);
  reader.join();
  CHECK_EQ(read_pages(target, 0), content(0));
}

CASE(mappings, many_threads_touch_many_pages) {
  const World world;
  const Handle vmo = world.vmo(64);
  {
    const Mapping mapping(vmo, kWrite, 0, 64);
    Service service(world, vmo);
    std::vector<std::unique_ptr<Task>> tasks;
    for (uint64_t n = 0; n < 4; n++) {
      tasks.push_back(std::make_unique<Task>([&, n] {
        for (uint64_t step = 0; step < 64; step++) {
          const uint64_t page = (step * 11 + n * 17) % 64;
          CHECK_EQ(mapping[page * kPage + 100], content(page)[100]);
          mapping[page * kPage + n] = static_cast<uint8_t>(n);
        }
      }));
    }
    tasks.clear();
    for (uint64_t page = 0; page < 64; page++) CHECK_EQ(read(vmo, page * kPage, 4), (Bytes{0, 1, 2, 3}));
    CHECK_OK(world.detach(vmo));
    service.join();
  }
}

CASE(mappings, go_to_the_place_that_was_asked_for) {
  const World world;
  const Handle vmo = world.full(4);
  const Vmar vmar(8);
  vmar.map(vmo, kWrite, 5, 2, 1);
  vmar.map(vmo, kRead, 0, 1, 3);
  CHECK_EQ(vmar[5], content(1)[0]);
  CHECK_EQ(vmar[6], content(2)[0]);
  CHECK_EQ(vmar[0], content(3)[0]);
  vmar[6] = 9;
  CHECK_EQ(read(vmo, 2 * kPage, 1), (Bytes{9}));
  for (const uint64_t page : {1, 4, 7}) CHECK(vmar.load(page) != 0);
}

CASE(mappings, without_a_place_go_where_there_is_room) {
  const World world;
  const Handle vmo = world.full(4);
  const Vmar vmar(6);
  vmar.map(vmo, kRead, 1, 1);
  const Vmar child(vmar, 2, 1);
  const auto map = [&](uint64_t pages, zx_vaddr_t* at) {
    return zx_vmar_map(vmar.handle(), kRead, 0, vmo.get(), 0, pages * kPage, at);
  };
  zx_vaddr_t first = 0, second = 0, third = 0;
  CHECK_OK(map(3, &first));
  CHECK_EQ(first, vmar.at(3));
  CHECK_STATUS(map(2, &second), ZX_ERR_NO_MEMORY);
  CHECK_OK(map(1, &second));
  CHECK_EQ(second, vmar.at());
  CHECK_STATUS(map(1, &third), ZX_ERR_NO_MEMORY);
  Handle none;
  CHECK_STATUS(vmar.try_allocate(0, 0, 1, none.out(), &third), ZX_ERR_NO_MEMORY);
  CHECK_EQ(third, 0u);
}

CASE(mappings, do_not_overlap_what_is_there) {
  const World world;
  const Handle vmo = world.full(4);
  const Vmar vmar(8);
  vmar.map(vmo, kRead, 2, 2);
  const Vmar child(vmar, 5, 2);
  for (const auto& [at, pages] : {std::pair{2, 1}, {1, 2}, {3, 2}, {0, 4}, {5, 1}, {6, 2}, {4, 4}}) {
    CHECK_STATUS(vmar.try_map(vmo, kRead, at, pages), ZX_ERR_ALREADY_EXISTS);
    Handle none;
    zx_vaddr_t address = 0;
    CHECK_STATUS(vmar.try_allocate(ZX_VM_SPECIFIC, at, pages, none.out(), &address), ZX_ERR_ALREADY_EXISTS);
  }
  CHECK_STATUS(vmar.try_map(vmo, kRead, 7, 2), ZX_ERR_INVALID_ARGS);
  CHECK_STATUS(vmar.try_map(vmo, kRead, 8, 1), ZX_ERR_INVALID_ARGS);
  CHECK_STATUS(vmar.try_map(vmo, kRead | ZX_VM_SPECIFIC_OVERWRITE, 2, 1), ZX_ERR_NOT_SUPPORTED);
  vmar.map(vmo, kRead, 4, 1);
  vmar.map(vmo, kRead, 7, 1);
}

CASE(mappings, are_made_again_at_once_where_one_was) {
  const World world;
  const Handle one = world.full(2, 0, 1), two = world.full(2, 0, 2);
  const Vmar vmar(2);
  for (uint8_t round = 0; round < 20; round++) {
    const Handle& vmo = round % 2 ? one : two;
    vmar.map(vmo, kWrite, 0, 2);
    vmar[1] = round;
    CHECK_EQ(read(vmo, kPage, 1), (Bytes{round}));
    CHECK_OK(vmar.unmap(0, 2));
  }
  CHECK_EQ(read(two, kPage, 1), (Bytes{18}));
}

CASE(mappings, are_made_where_a_part_was_when_the_rest_is_gone) {
  const World world;
  const Handle vmo = world.full(3);
  const Vmar vmar(3);
  vmar.map(vmo, kRead, 0, 3);
  CHECK_OK(vmar.unmap(1, 1));
  CHECK_STATUS(vmar.try_map(vmo, kRead, 1, 1), ZX_ERR_NOT_SUPPORTED);
  CHECK_STATUS(vmar.try_map(vmo, kRead, 0, 1), ZX_ERR_ALREADY_EXISTS);
  CHECK_OK(vmar.unmap(0, 1));
  CHECK_OK(vmar.unmap(2, 1));
  vmar.map(vmo, kRead, 1, 1);
  CHECK_EQ(vmar[1], content(0)[0]);
}

CASE(mappings, of_a_vmar_have_its_permissions_at_most) {
  const World world;
  const Handle vmo = world.full(1);
  const Vmar reads(2, ZX_VM_CAN_MAP_READ | ZX_VM_CAN_MAP_SPECIFIC), anywhere(1, ZX_VM_CAN_MAP_READ), neither(1, 0);
  CHECK_EQ(basic_of(reads.handle()).rights, ZX_DEFAULT_VMAR_RIGHTS | ZX_RIGHT_READ);
  CHECK_EQ(basic_of(neither.handle()).rights, ZX_DEFAULT_VMAR_RIGHTS);
  CHECK_EQ(basic_of(Vmar(1).handle()).rights, ZX_DEFAULT_VMAR_RIGHTS | ZX_RIGHTS_IO);
  CHECK_STATUS(reads.try_map(vmo, kWrite, 0, 1), ZX_ERR_ACCESS_DENIED);
  CHECK_STATUS(anywhere.try_map(vmo, kRead, 0, 1), ZX_ERR_ACCESS_DENIED);
  CHECK_STATUS(neither.try_map(vmo, kRead, 0, 1), ZX_ERR_ACCESS_DENIED);
  reads.map(vmo, kRead, 0, 1);
  CHECK_STATUS(reads.protect(kWrite, 0, 1), ZX_ERR_ACCESS_DENIED);
  // Nor by way of the root.
  CHECK_STATUS(zx_vmar_protect(zx_vmar_root_self(), kWrite, reads.at(), kPage), ZX_ERR_ACCESS_DENIED);
  CHECK_STATUS(zx_vmar_op_range(zx_vmar_root_self(), ZX_VMAR_OP_ZERO, reads.at(), kPage, nullptr, 0),
               ZX_ERR_ACCESS_DENIED);
  CHECK_EQ(reads.store(0), SIGSEGV);
  // A child has no more than its parent.
  Handle none;
  zx_vaddr_t at = 0;
  CHECK_STATUS(reads.try_allocate(ZX_VM_CAN_MAP_WRITE, 0, 1, none.out(), &at), ZX_ERR_ACCESS_DENIED);
  CHECK_STATUS(neither.try_allocate(ZX_VM_CAN_MAP_READ, 0, 1, none.out(), &at), ZX_ERR_ACCESS_DENIED);
  CHECK_STATUS(anywhere.try_allocate(ZX_VM_SPECIFIC, 0, 1, none.out(), &at), ZX_ERR_ACCESS_DENIED);
  CHECK_OK(reads.try_allocate(ZX_VM_CAN_MAP_READ, 0, 1, none.out(), &at));
  CHECK_EQ(at, reads.at(1));
}

CASE(mappings, vmars_lie_in_one_another) {
  const World world;
  const Handle vmo = world.full(4);
  const Vmar outer(8, Vmar::kAll | ZX_VM_COMPACT), inner(outer, 2, 4), innermost(inner, 0, 4), twin(innermost, 0, 4);
  CHECK_EQ(twin.at(), outer.at(2));
  twin.map(vmo, kWrite, 1, 2);
  CHECK_EQ(outer[3], content(0)[0]);
  CHECK_OK(outer.protect(kRead, 3, 1));
  CHECK_EQ(twin.store(1), SIGSEGV);
  CHECK_EQ(twin.store(2), 0);
  CHECK_OK(zx_vmar_op_range(inner.handle(), ZX_VMAR_OP_ZERO, inner.at(2), kPage, nullptr, 0));
  CHECK_EQ(read_pages(vmo, 1), zeros(1));
}

CASE(mappings, children_need_the_right_to_be_operated_on) {
  const World world;
  const Handle vmo = world.full(1);
  const Vmar outer(2), inner(outer, 0, 1);
  inner.map(vmo, kRead, 0, 1);
  outer.map(vmo, kRead, 1, 1);
  Handle bare;
  CHECK_OK(zx_handle_duplicate(outer.handle(), ZX_RIGHT_READ, bare.out()));
  CHECK_STATUS(zx_vmar_protect(bare.get(), kRead, outer.at(), 2 * kPage), ZX_ERR_ACCESS_DENIED);
  CHECK_STATUS(zx_vmar_op_range(bare.get(), ZX_VMAR_OP_DONT_NEED, outer.at(), kPage, nullptr, 0), ZX_ERR_ACCESS_DENIED);
  CHECK_STATUS(zx_vmar_unmap(bare.get(), outer.at(), 2 * kPage), ZX_ERR_ACCESS_DENIED);
  CHECK_EQ(inner.load(0), 0);
  CHECK_OK(zx_vmar_protect(bare.get(), kRead, outer.at(1), kPage));
  CHECK_OK(zx_vmar_unmap(bare.get(), outer.at(1), kPage));
}

CASE(mappings, unmapping_destroys_whole_vmars_in_the_range) {
  const World world;
  const Handle vmo = world.full(1);
  const Vmar outer(4), inner(outer, 1, 2);
  inner.map(vmo, kRead, 0, 1);
  CHECK_STATUS(outer.unmap(0, 2), ZX_ERR_INVALID_ARGS);
  CHECK_STATUS(outer.unmap(2, 2), ZX_ERR_INVALID_ARGS);
  CHECK_STATUS(outer.unmap(3, 2), ZX_ERR_INVALID_ARGS);  // beyond its end
  CHECK_STATUS(outer.unmap(0, 1), ZX_ERR_NOT_FOUND);
  CHECK_EQ(inner.load(0), 0);
  CHECK_OK(outer.unmap(0, 3));
  CHECK(outer.load(1) != 0);
  CHECK_STATUS(inner.try_map(vmo, kRead, 0, 1), ZX_ERR_BAD_STATE);
  outer.map(vmo, kRead, 1, 1);
}

CASE(mappings, a_destroyed_vmar_is_in_a_bad_state) {
  const World world;
  const Handle vmo = world.full(2);
  const Vmar outer(4), inner(outer, 0, 2), innermost(inner, 1, 1);
  outer.map(vmo, kRead, 3, 1);
  innermost.map(vmo, kRead, 0, 1);
  CHECK_OK(zx_vmar_destroy(inner.handle()));
  CHECK_EQ(info_of(vmo).num_mappings, 1u);
  for (const Vmar* gone : {&inner, &innermost}) {
    Handle none;
    zx_vaddr_t at = 0;
    CHECK(gone->load(0) != 0);
    CHECK_STATUS(gone->try_map(vmo, kRead, 0, 1), ZX_ERR_BAD_STATE);
    CHECK_STATUS(zx_vmar_map(gone->handle(), kRead, 0, vmo.get(), 0, kPage, &at), ZX_ERR_BAD_STATE);
    CHECK_STATUS(gone->unmap(0, 1), ZX_ERR_BAD_STATE);
    CHECK_STATUS(gone->protect(kRead, 0, 1), ZX_ERR_BAD_STATE);
    CHECK_STATUS(zx_vmar_op_range(gone->handle(), ZX_VMAR_OP_COMMIT, gone->at(), kPage, nullptr, 0), ZX_ERR_BAD_STATE);
    CHECK_STATUS(gone->try_allocate(0, 0, 1, none.out(), &at), ZX_ERR_BAD_STATE);
    CHECK_STATUS(zx_vmar_destroy(gone->handle()), ZX_ERR_BAD_STATE);
  }
  CHECK_EQ(outer.load(3), 0);
  outer.map(vmo, kRead, 0, 2);
  CHECK_OK(zx_vmar_destroy(outer.handle()));
  CHECK_EQ(info_of(vmo).num_mappings, 0u);
}

CASE(mappings, destroying_a_vmar_gives_a_signal_to_who_waits) {
  const World world;
  const Handle vmo = world.vmo(1);
  const Vmar vmar(1);
  vmar.map(vmo, kRead, 0, 1);
  Task reader([&] {
    const int signal = vmar.load(0);
    CHECK(signal == SIGBUS || signal == SIGSEGV);
  });
  world.expect_read(0);
  CHECK_OK(zx_vmar_destroy(vmar.handle()));
}

CASE(mappings, a_vmar_outlives_its_handle) {
  const World world;
  const Handle vmo = world.full(1);
  const Vmar outer(2);
  zx_vaddr_t at = 0, mapped = 0;
  {
    Handle inner;
    CHECK_OK(outer.try_allocate(ZX_VM_CAN_MAP_READ, 0, 1, inner.out(), &at));
    CHECK_OK(zx_vmar_map(inner.get(), kRead, 0, vmo.get(), 0, kPage, &mapped));
  }
  CHECK_EQ(outer[0], content(0)[0]);
  CHECK_STATUS(outer.try_map(vmo, kRead, 0, 1), ZX_ERR_ALREADY_EXISTS);
  CHECK_OK(outer.unmap(0, 1));
}

CASE(mappings, wrong_arguments_of_vmars_are_told) {
  const World world;
  const Handle vmo = world.full(1);
  const Vmar vmar(2);
  Handle none;
  zx_vaddr_t at = 0;
  const auto allocate = [&](zx_vm_option_t options, uint64_t offset, uint64_t size) {
    return zx_vmar_allocate(vmar.handle(), options, offset, size, none.out(), &at);
  };
  CHECK_STATUS(allocate(0, 0, 0), ZX_ERR_INVALID_ARGS);
  CHECK_STATUS(allocate(0, 0, kPage - 1), ZX_ERR_INVALID_ARGS);
  CHECK_STATUS(allocate(0, kPage, kPage), ZX_ERR_INVALID_ARGS);
  CHECK_STATUS(allocate(ZX_VM_SPECIFIC, 1, kPage), ZX_ERR_INVALID_ARGS);
  CHECK_STATUS(allocate(ZX_VM_SPECIFIC, kPage, 2 * kPage), ZX_ERR_INVALID_ARGS);
  CHECK_STATUS(allocate(ZX_VM_SPECIFIC, UINT64_MAX - kPage + 1, kPage), ZX_ERR_INVALID_ARGS);
  CHECK_STATUS(allocate(0, 0, UINT64_MAX - kPage + 1), ZX_ERR_NO_MEMORY);
  CHECK_STATUS(allocate(ZX_VM_PERM_READ, 0, kPage), ZX_ERR_INVALID_ARGS);
  CHECK_STATUS(zx_vmar_map(vmar.handle(), kRead | ZX_VM_SPECIFIC, 1, vmo.get(), 0, kPage, &at), ZX_ERR_INVALID_ARGS);
  CHECK_STATUS(zx_vmar_map(vmar.handle(), kRead, kPage, vmo.get(), 0, kPage, &at), ZX_ERR_INVALID_ARGS);
  CHECK_EQ(at, 0u);
}

CASE(mappings, many_threads_map_and_unmap_in_one_vmar) {
  constexpr uint64_t kThreads = 4;
  const World world;
  const Handle vmo = world.full(kThreads);
  const Vmar vmar(kThreads);
  {
    std::vector<std::unique_ptr<Task>> tasks;
    for (uint64_t thread = 0; thread < kThreads; thread++) {
      tasks.push_back(std::make_unique<Task>([&, thread] {
        for (int round = 0; round < 25; round++) {
          vmar.map(vmo, kRead, thread, 1, thread);
          CHECK_EQ(vmar[thread], content(thread)[0]);
          CHECK_OK(vmar.unmap(thread, 1));
        }
      }));
    }
  }
  CHECK_EQ(info_of(vmo).num_mappings, 0u);
}

// Steps in no order, beside a model of what is mapped where.
CASE(mappings, of_parts_are_as_a_model_says) {
  constexpr uint64_t kPages = 12;
  struct Page {
    int mapping = -1;  // which has it
    uint64_t of = 0;
    bool writable = false;
  };
  struct Whole {
    uint64_t first, pages;
  };
  const World world;
  const Handle vmo = world.full(kPages);
  const Vmar vmar(kPages);
  Page model[kPages];
  std::vector<Whole> wholes;
  uint64_t state = 1;
  const auto any = [&](uint64_t below) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (state >> 33) % below;
  };
  // Whether another piece of a mapping keeps one of these addresses, of which a part was unmapped.
  const auto is_kept = [&](uint64_t first, uint64_t pages) {
    for (const Page& page : model) {
      if (page.mapping < 0) continue;
      const Whole& whole = wholes[static_cast<size_t>(page.mapping)];
      if (whole.first < first + pages && first < whole.first + whole.pages) return true;
    }
    return false;
  };
  for (int step = 0; step < 400; step++) {
    const uint64_t first = any(kPages), pages = 1 + any(std::min<uint64_t>(kPages - first, 5));
    const auto all = [&](auto holds) { return std::all_of(model + first, model + first + pages, holds); };
    const bool is_free = all([](const Page& page) { return page.mapping < 0; });
    const bool is_mapped = all([](const Page& page) { return page.mapping >= 0; });
    const bool writable = any(2) != 0;
    switch (any(3)) {
      case 0: {
        const uint64_t of = any(kPages - pages + 1);
        const zx_status_t status = vmar.try_map(vmo, writable ? kWrite : kRead, first, pages, of);
        CHECK_STATUS(status, !is_free ? ZX_ERR_ALREADY_EXISTS : is_kept(first, pages) ? ZX_ERR_NOT_SUPPORTED : ZX_OK);
        if (status != ZX_OK) break;
        for (uint64_t n = 0; n < pages; n++) model[first + n] = {static_cast<int>(wholes.size()), of + n, writable};
        wholes.push_back({first, pages});
        break;
      }
      case 1:
        CHECK_STATUS(vmar.unmap(first, pages), is_free ? ZX_ERR_NOT_FOUND : ZX_OK);
        for (uint64_t n = 0; n < pages; n++) model[first + n] = {};
        break;
      default:
        CHECK_STATUS(vmar.protect(writable ? kWrite : kRead, first, pages), is_mapped ? ZX_OK : ZX_ERR_NOT_FOUND);
        for (uint64_t n = 0; is_mapped && n < pages; n++) model[first + n].writable = writable;
    }
    for (uint64_t page = 0; page < kPages; page++) {
      const Page& is = model[page];
      CHECK_EQ(vmar.load(page) == 0, is.mapping >= 0);
      if (is.mapping < 0) continue;
      write(vmo, is.of * kPage, {static_cast<uint8_t>(step)});
      CHECK_EQ(vmar[page], static_cast<uint8_t>(step));
      CHECK_EQ(vmar.store(page), is.writable ? 0 : SIGSEGV);
    }
  }
  CHECK(wholes.size() > 30);
}
