// zx_vmar_*(): mapped access, SIGBUS, and what there is not.

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

CASE(mappings, cannot_be_unmapped_or_protected_in_part) {
  const World world;
  const Handle vmo = world.full(3);
  const Mapping mapping(vmo, kRead, 0, 3);
  const zx_handle_t root = zx_vmar_root_self();
  CHECK_STATUS(zx_vmar_unmap(root, mapping.at(), kPage), ZX_ERR_NOT_SUPPORTED);
  CHECK_STATUS(zx_vmar_unmap(root, mapping.at() + kPage, 2 * kPage), ZX_ERR_NOT_SUPPORTED);
  CHECK_STATUS(zx_vmar_protect(root, kRead, mapping.at(), 2 * kPage), ZX_ERR_NOT_SUPPORTED);
  CHECK_EQ(mapping.bytes(0, 3), content(0, 3));
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
  Handle child;
  CHECK_STATUS(zx_vmar_allocate(zx_vmar_root_self(), ZX_VM_CAN_MAP_READ, 0, kPage, child.out(), &at),
               ZX_ERR_NOT_SUPPORTED);
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
