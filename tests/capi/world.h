// What the cases have in common: handles that close themselves, a pager with a port, content that tells pages apart,
// and calls that wait in a thread.

#ifndef UPAGER_TESTS_CAPI_WORLD_H_
#define UPAGER_TESTS_CAPI_WORLD_H_

#include <cstring>
#include <memory>

#include "harness.h"

namespace conformance {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kKey = 7;
using Bytes = std::vector<uint8_t>;

class Handle {
 public:
  Handle() = default;
  explicit Handle(zx_handle_t value) : value_(value) {}
  Handle(Handle&& other) noexcept : value_(other.release()) {}
  Handle& operator=(Handle&& other) noexcept {
    if (this != &other) {
      reset();
      value_ = other.release();
    }
    return *this;
  }
  ~Handle() { reset(); }

  zx_handle_t get() const { return value_; }
  zx_handle_t release() { return std::exchange(value_, ZX_HANDLE_INVALID); }
  void reset() {
    if (value_ != ZX_HANDLE_INVALID) CHECK_NOTED_OK(zx_handle_close(release()));
  }
  // A place for a new one.
  zx_handle_t* out() {
    reset();
    return &value_;
  }
  Handle duplicate(zx_rights_t rights = ZX_RIGHT_SAME_RIGHTS) const {
    Handle other;
    CHECK_OK(zx_handle_duplicate(value_, rights, other.out()));
    return other;
  }

 private:
  // A destructor must not throw.
  static void CHECK_NOTED_OK(zx_status_t status) {
    if (status != ZX_OK) note(__FILE__, __LINE__, "zx_handle_close() is " + text(status));
  }
  zx_handle_t value_ = ZX_HANDLE_INVALID;
};

// Bytes that tell a page from every other, and what was written from what was supplied.
inline Bytes content(uint64_t first, uint64_t pages = 1, uint8_t salt = 0) {
  Bytes bytes(pages * kPage);
  for (size_t at = 0; at < bytes.size(); at++) {
    const uint64_t page = first + at / kPage;
    bytes[at] = static_cast<uint8_t>(page * 37 + at % kPage * 11 + at % kPage / 256 + salt * 101 + 1);
  }
  return bytes;
}
inline Bytes zeros(uint64_t pages) { return Bytes(pages * kPage); }
inline Bytes joined(Bytes first, const Bytes& second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

inline zx_time_t in_ms(int64_t ms) { return zx_deadline_after(ZX_MSEC(ms)); }

inline Handle anonymous(uint64_t pages) {
  Handle vmo;
  CHECK_OK(zx_vmo_create(pages * kPage, 0, vmo.out()));
  return vmo;
}
inline void write(const Handle& vmo, uint64_t offset, const Bytes& bytes) {
  CHECK_OK(zx_vmo_write(vmo.get(), bytes.data(), offset, bytes.size()));
}
// What is there. The pages must be.
inline Bytes read(const Handle& vmo, uint64_t offset, uint64_t length) {
  Bytes bytes(length, 0xee);
  CHECK_OK(zx_vmo_read(vmo.get(), bytes.data(), offset, length));
  return bytes;
}
inline Bytes read_pages(const Handle& vmo, uint64_t first, uint64_t pages = 1) {
  return read(vmo, first * kPage, pages * kPage);
}
inline zx_status_t read_status(const Handle& vmo, uint64_t offset, uint64_t length) {
  Bytes bytes(length ? length : 1);
  return zx_vmo_read(vmo.get(), bytes.data(), offset, length);
}
inline zx_status_t write_status(const Handle& vmo, uint64_t offset, uint64_t length, uint8_t byte = 0xab) {
  Bytes bytes(length ? length : 1, byte);
  return zx_vmo_write(vmo.get(), bytes.data(), offset, length);
}
inline uint64_t size_of(const Handle& vmo) {
  uint64_t size = 0;
  CHECK_OK(zx_vmo_get_size(vmo.get(), &size));
  return size;
}
inline zx_info_vmo_t info_of(const Handle& vmo) {
  zx_info_vmo_t info;
  CHECK_OK(zx_object_get_info(vmo.get(), ZX_INFO_VMO, &info, sizeof(info), nullptr, nullptr));
  return info;
}
inline uint64_t committed_pages(const Handle& vmo) { return info_of(vmo).committed_bytes / kPage; }
inline zx_info_handle_basic_t basic_of(zx_handle_t handle) {
  zx_info_handle_basic_t info;
  CHECK_OK(zx_object_get_info(handle, ZX_INFO_HANDLE_BASIC, &info, sizeof(info), nullptr, nullptr));
  return info;
}
inline zx_status_t op(const Handle& vmo, uint32_t op, uint64_t first, uint64_t pages) {
  return zx_vmo_op_range(vmo.get(), op, first * kPage, pages * kPage, nullptr, 0);
}

// A call that waits, in a thread of its own.
class Later {
 public:
  Later(std::function<zx_status_t(Bytes&)> call, Bytes bytes)
      : state_(std::make_shared<State>()), task_(std::make_unique<Task>([state = state_, call = std::move(call), bytes]() mutable {
          state->status = call(bytes);
          state->bytes = std::move(bytes);
        })) {}
  // Whether it is still waiting, a while from now.
  bool waits(int64_t ms = 15) const {
    zx_nanosleep(in_ms(ms));
    return !task_->is_done();
  }
  bool is_done() const { return task_->is_done(); }
  // What it returns, when it does.
  zx_status_t status() {
    task_->join();
    return state_->status;
  }
  const Bytes& bytes() {
    task_->join();
    return state_->bytes;
  }

 private:
  struct State {
    zx_status_t status = ZX_OK;
    Bytes bytes;
  };
  std::shared_ptr<State> state_;
  std::unique_ptr<Task> task_;
};
inline Later read_later(const Handle& vmo, uint64_t offset, uint64_t length) {
  const zx_handle_t handle = vmo.get();
  return {[=](Bytes& bytes) { return zx_vmo_read(handle, bytes.data(), offset, bytes.size()); }, Bytes(length)};
}
inline Later read_pages_later(const Handle& vmo, uint64_t first, uint64_t pages = 1) {
  return read_later(vmo, first * kPage, pages * kPage);
}
inline Later write_later(const Handle& vmo, uint64_t offset, Bytes bytes) {
  const zx_handle_t handle = vmo.get();
  return {[=](Bytes& from) { return zx_vmo_write(handle, from.data(), offset, from.size()); }, std::move(bytes)};
}
inline Later op_later(const Handle& vmo, uint32_t op, uint64_t first, uint64_t pages) {
  const zx_handle_t handle = vmo.get();
  return {[=](Bytes&) { return zx_vmo_op_range(handle, op, first * kPage, pages * kPage, nullptr, 0); }, {}};
}

struct Range {
  uint64_t first;
  uint64_t pages;
  bool zero = false;
  bool operator==(const Range& other) const {
    return first == other.first && pages == other.pages && zero == other.zero;
  }
};
using Ranges = std::vector<Range>;
inline std::string text(const Ranges& ranges) {
  std::string out = "[";
  for (const Range& range : ranges) {
    out += (out.size() > 1 ? " " : "") + std::to_string(range.first) + "+" + std::to_string(range.pages);
    out += range.zero ? "z" : "";
  }
  return out + "]";
}
// A pager and its port.
struct World {
  Handle port;
  Handle pager;

  World() {
    CHECK_OK(zx_port_create(0, port.out()));
    CHECK_OK(zx_pager_create(0, pager.out()));
  }

  Handle vmo(uint64_t pages, uint32_t options = 0, uint64_t key = kKey) const {
    Handle vmo;
    CHECK_OK(zx_pager_create_vmo(pager.get(), options, port.get(), key, pages * kPage, vmo.out()));
    return vmo;
  }
  // One whose pages are all there.
  Handle full(uint64_t pages, uint32_t options = 0, uint64_t key = kKey) const {
    Handle made = vmo(pages, options, key);
    supply(made, 0, pages);
    return made;
  }

  zx_status_t try_supply(const Handle& vmo, uint64_t first, const Bytes& bytes) const {
    const Handle aux = anonymous(bytes.size() / kPage);
    write(aux, 0, bytes);
    return zx_pager_supply_pages(pager.get(), vmo.get(), first * kPage, bytes.size(), aux.get(), 0);
  }
  void supply(const Handle& vmo, uint64_t first, uint64_t pages, uint8_t salt = 0) const {
    CHECK_OK(try_supply(vmo, first, content(first, pages, salt)));
  }
  zx_status_t op_range(const Handle& vmo, uint32_t op, uint64_t first, uint64_t pages, uint64_t data = 0) const {
    return zx_pager_op_range(pager.get(), op, vmo.get(), first * kPage, pages * kPage, data);
  }
  zx_status_t fail(const Handle& vmo, uint64_t first, uint64_t pages, zx_status_t error) const {
    return op_range(vmo, ZX_PAGER_OP_FAIL, first, pages, static_cast<uint64_t>(static_cast<int64_t>(error)));
  }
  zx_status_t dirty(const Handle& vmo, uint64_t first, uint64_t pages) const {
    return op_range(vmo, ZX_PAGER_OP_DIRTY, first, pages);
  }
  zx_status_t begin(const Handle& vmo, uint64_t first, uint64_t pages, uint64_t data = 0) const {
    return op_range(vmo, ZX_PAGER_OP_WRITEBACK_BEGIN, first, pages, data);
  }
  zx_status_t end(const Handle& vmo, uint64_t first, uint64_t pages) const {
    return op_range(vmo, ZX_PAGER_OP_WRITEBACK_END, first, pages);
  }
  zx_status_t detach(const Handle& vmo) const { return zx_pager_detach_vmo(pager.get(), vmo.get()); }

  Ranges dirty_ranges(const Handle& vmo) const { return dirty_ranges(vmo, 0, size_of(vmo)); }
  Ranges dirty_ranges(const Handle& vmo, uint64_t offset, uint64_t length) const {
    zx_vmo_dirty_range_t buffer[64];
    size_t actual = 0, avail = 0;
    CHECK_OK(zx_pager_query_dirty_ranges(pager.get(), vmo.get(), offset, length, buffer, sizeof(buffer), &actual,
                                         &avail));
    CHECK_EQ(actual, avail);
    Ranges ranges;
    for (size_t at = 0; at < actual; at++) {
      CHECK_EQ(buffer[at].offset % kPage, 0u);
      CHECK_EQ(buffer[at].length % kPage, 0u);
      CHECK((buffer[at].options & ~ZX_VMO_DIRTY_RANGE_IS_ZERO) == 0);
      ranges.push_back({buffer[at].offset / kPage, buffer[at].length / kPage, buffer[at].options != 0});
    }
    return ranges;
  }
  bool is_modified(const Handle& vmo, uint32_t options = 0) const {
    zx_pager_vmo_stats_t stats;
    CHECK_OK(zx_pager_query_vmo_stats(pager.get(), vmo.get(), options, &stats, sizeof(stats)));
    CHECK(stats.modified == 0 || stats.modified == ZX_PAGER_VMO_STATS_MODIFIED);
    return stats.modified != 0;
  }

  // The next packet, within a time in which it must come.
  zx_port_packet_t next() const {
    zx_port_packet_t packet;
    CHECK_OK(zx_port_wait(port.get(), in_ms(20'000), &packet));
    return packet;
  }
  void expect(uint16_t command, uint64_t first, uint64_t pages, uint64_t key = kKey) const {
    const zx_port_packet_t packet = next();
    CHECK_EQ(packet.type, ZX_PKT_TYPE_PAGE_REQUEST);
    CHECK_EQ(packet.key, key);
    CHECK_STATUS(packet.status, ZX_OK);
    CHECK_EQ(packet.page_request.command, command);
    CHECK_EQ(packet.page_request.offset, first * kPage);
    CHECK_EQ(packet.page_request.length, pages * kPage);
  }
  void expect_read(uint64_t first, uint64_t pages = 1, uint64_t key = kKey) const {
    expect(ZX_PAGER_VMO_READ, first, pages, key);
  }
  void expect_dirty(uint64_t first, uint64_t pages = 1, uint64_t key = kKey) const {
    expect(ZX_PAGER_VMO_DIRTY, first, pages, key);
  }
  void expect_complete(uint64_t key = kKey) const { expect(ZX_PAGER_VMO_COMPLETE, 0, 0, key); }
  // There is no packet, nor does one come at once.
  void expect_nothing(int64_t ms = 0) const {
    zx_port_packet_t packet;
    CHECK_STATUS(zx_port_wait(port.get(), ms == 0 ? 0 : in_ms(ms), &packet), ZX_ERR_TIMED_OUT);
  }
};

// Serves a VMO in a thread until it is COMPLETE: supplies and grants whatever is asked for.
class Service {
 public:
  Service(const World& world, const Handle& vmo, uint64_t key = kKey)
      : task_([&world, handle = vmo.get(), key] { serve(world, handle, key); }) {}
  void join() { task_.join(); }

 private:
  static void serve(const World& world, zx_handle_t vmo, uint64_t key) {
    for (;;) {
      zx_port_packet_t packet;
      CHECK_OK(zx_port_wait(world.port.get(), ZX_TIME_INFINITE, &packet));
      CHECK_EQ(packet.key, key);
      const zx_packet_page_request_t& request = packet.page_request;
      zx_status_t status = ZX_OK;
      if (request.command == ZX_PAGER_VMO_READ) {
        const Handle aux = anonymous(request.length / kPage);
        write(aux, 0, content(request.offset / kPage, request.length / kPage));
        status = zx_pager_supply_pages(world.pager.get(), vmo, request.offset, request.length, aux.get(), 0);
      } else if (request.command == ZX_PAGER_VMO_DIRTY) {
        status = zx_pager_op_range(world.pager.get(), ZX_PAGER_OP_DIRTY, vmo, request.offset, request.length, 0);
        if (status == ZX_ERR_NOT_FOUND) status = ZX_OK;  // it retries
      } else {
        return;
      }
      // Detached, or made smaller meanwhile: the answer is late.
      CHECK(status == ZX_OK || status == ZX_ERR_BAD_STATE || status == ZX_ERR_OUT_OF_RANGE);
    }
  }
  Task task_;
};

}  // namespace conformance

#endif  // UPAGER_TESTS_CAPI_WORLD_H_
