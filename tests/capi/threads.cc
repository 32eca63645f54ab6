// Threads that meet in calls. Each case repeats its race some times.

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <set>

#include "world.h"

using namespace conformance;

namespace {

// Releases several threads at once.
class Gate {
 public:
  explicit Gate(int threads) : missing_(threads) {}
  void pass() {
    missing_.fetch_sub(1);
    while (missing_.load() > 0) std::this_thread::yield();
  }

 private:
  std::atomic<int> missing_;
};

void both(const std::function<void()>& one, const std::function<void()>& two) {
  Gate gate(2);
  Task task([&] {
    gate.pass();
    one();
  });
  gate.pass();
  two();
  task.join();
}

using Tasks = std::vector<std::unique_ptr<Task>>;
void start(Tasks& tasks, std::function<void()> body) { tasks.push_back(std::make_unique<Task>(std::move(body))); }

}  // namespace

CASE(threads, many_readers_of_a_page_cause_one_packet) {
  const World world;
  for (int round = 0; round < 20; round++) {
    const Handle vmo = world.vmo(1);
    Tasks readers;
    for (int n = 0; n < 8; n++) start(readers, [&] { CHECK_EQ(read_pages(vmo, 0), content(0)); });
    world.expect_read(0);
    world.supply(vmo, 0, 1);
    readers.clear();
    world.expect_nothing();
    CHECK_OK(world.detach(vmo));
    world.expect_complete();
  }
}

CASE(threads, readers_and_writers_all_get_through) {
  const World world;
  Handle vmo = world.vmo(64);
  Service service(world, vmo);
  Tasks tasks;
  for (int n = 0; n < 4; n++) {
    start(tasks, [&, n] {
      for (uint64_t step = 0; step < 64; step++) {
        const uint64_t page = (step * 7 + static_cast<uint64_t>(n) * 13) % 64;
        if (n % 2 == 0) {
          Bytes bytes = read_pages(vmo, page);
          bytes[0] = content(page)[0];
          CHECK_EQ(bytes, content(page));
        } else {
          write(vmo, page * kPage, Bytes(1, static_cast<uint8_t>(n)));
        }
      }
    });
  }
  tasks.clear();
  CHECK_OK(world.detach(vmo));
  service.join();
}

CASE(threads, trapped_writers_all_get_leave) {
  const World world;
  const Handle vmo = world.vmo(16, ZX_VMO_TRAP_DIRTY);
  Service service(world, vmo);
  Tasks writers;
  for (uint64_t n = 0; n < 4; n++) {
    start(writers, [&, n] {
      for (uint64_t page = 0; page < 16; page++) write(vmo, page * kPage + n, Bytes(1, static_cast<uint8_t>(n + 1)));
    });
  }
  writers.clear();
  for (uint64_t page = 0; page < 16; page++) CHECK_EQ(read(vmo, page * kPage, 4), (Bytes{1, 2, 3, 4}));
  CHECK_EQ(world.dirty_ranges(vmo), (Ranges{{0, 16}}));
  CHECK_OK(world.detach(vmo));
  service.join();
}

CASE(threads, a_detach_ends_every_call_with_success_or_bad_state) {
  for (int round = 0; round < 20; round++) {
    const World world;
    const Handle vmo = world.vmo(32);
    Service service(world, vmo);
    Tasks tasks;
    std::atomic<int> refused{0};
    for (uint64_t n = 0; n < 4; n++) {
      start(tasks, [&, n] {
        for (uint64_t page = n;; page = (page + 5) % 32) {
          const zx_status_t status = n % 2 ? read_status(vmo, page * kPage, 2) : write_status(vmo, page * kPage, 2);
          if (status == ZX_ERR_BAD_STATE && ++refused) break;
          CHECK_OK(status);
          if (refused > 0 && page == n) break;  // all of its pages may be dirty
        }
      });
    }
    zx_nanosleep(in_ms(round % 4));
    CHECK_OK(world.detach(vmo));
    refused++;
    tasks.clear();
    service.join();
    world.expect_nothing();
  }
}

CASE(threads, two_who_detach_send_one_complete) {
  const World world;
  for (int round = 0; round < 100; round++) {
    const Handle vmo = world.vmo(1);
    both([&] { CHECK_OK(world.detach(vmo)); }, [&] { CHECK_OK(world.detach(vmo)); });
    world.expect_complete();
    world.expect_nothing();
  }
}

CASE(threads, a_supply_beside_a_detach_leaves_no_clean_page) {
  const World world;
  for (int round = 0; round < 100; round++) {
    const Handle vmo = world.vmo(4), aux = anonymous(4);
    write(aux, 0, content(0, 4));
    zx_status_t supplied = ZX_OK;
    both([&] { supplied = zx_pager_supply_pages(world.pager.get(), vmo.get(), 0, 4 * kPage, aux.get(), 0); },
         [&] { CHECK_OK(world.detach(vmo)); });
    CHECK(supplied == ZX_OK || supplied == ZX_ERR_BAD_STATE);
    CHECK_EQ(committed_pages(vmo), 0u);
    CHECK_STATUS(read_status(vmo, 0, 1), ZX_ERR_BAD_STATE);
    world.expect_complete();
  }
}

CASE(threads, a_supply_beside_a_failure_gives_the_reader_one_of_them) {
  const World world;
  for (int round = 0; round < 100; round++) {
    const Handle vmo = world.vmo(1), aux = anonymous(1);
    write(aux, 0, content(0));
    Later reader = read_pages_later(vmo, 0);
    world.expect_read(0);
    both([&] { CHECK_OK(zx_pager_supply_pages(world.pager.get(), vmo.get(), 0, kPage, aux.get(), 0)); },
         [&] { CHECK_OK(world.fail(vmo, 0, 1, ZX_ERR_IO)); });
    CHECK(reader.status() == ZX_OK || reader.status() == ZX_ERR_IO);
    if (reader.status() == ZX_OK) CHECK_EQ(reader.bytes(), content(0));
    CHECK_EQ(read_pages(vmo, 0), content(0));
    CHECK_OK(world.detach(vmo));
    world.expect_complete();
  }
}

CASE(threads, no_write_is_lost_to_a_writeback) {
  const World world;
  const Handle vmo = world.full(4);
  Bytes file = content(0, 4);
  std::atomic<bool> stop{false};
  Tasks writers;
  for (uint64_t n = 0; n < 2; n++) {
    start(writers, [&, n] {
      for (uint64_t step = 1; step <= 3000; step++) {
        write(vmo, step % 4 * kPage + n * 8, Bytes(8, static_cast<uint8_t>(step)));
      }
    });
  }
  const auto write_back = [&] {
    for (const Range& range : world.dirty_ranges(vmo)) {
      CHECK_OK(world.begin(vmo, range.first, range.pages));
      const Bytes bytes = read_pages(vmo, range.first, range.pages);
      std::copy(bytes.begin(), bytes.end(), file.begin() + static_cast<std::ptrdiff_t>(range.first * kPage));
      CHECK_OK(world.end(vmo, range.first, range.pages));
    }
  };
  Task writeback([&] {
    while (!stop) write_back();
  });
  writers.clear();
  stop = true;
  writeback.join();
  write_back();
  CHECK_EQ(world.dirty_ranges(vmo), Ranges{});
  CHECK_EQ(read_pages(vmo, 0, 4), file);
}

CASE(threads, no_write_is_missed_by_the_statistics) {
  const World world;
  const Handle vmo = world.full(1);
  for (int round = 0; round < 200; round++) {
    bool seen = false;
    both([&] { write(vmo, 0, Bytes(1)); },
         [&] { seen = world.is_modified(vmo, ZX_PAGER_RESET_VMO_STATS); });
    CHECK(world.is_modified(vmo, ZX_PAGER_RESET_VMO_STATS) || seen);
  }
}

CASE(threads, a_read_beside_a_resize_succeeds_or_is_out_of_range) {
  const World world;
  const Handle vmo = world.vmo(8, ZX_VMO_RESIZABLE);
  Service service(world, vmo);
  std::atomic<bool> stop{false};
  Tasks readers;
  for (uint64_t n = 0; n < 2; n++) {
    start(readers, [&, n] {
      for (uint64_t page = n; !stop; page = (page + 1) % 8) {
        const zx_status_t status = read_status(vmo, page * kPage, 1);
        CHECK(status == ZX_OK || status == ZX_ERR_OUT_OF_RANGE);
      }
    });
  }
  for (uint64_t step = 0; step < 300; step++) CHECK_OK(zx_vmo_set_size(vmo.get(), (1 + step * 5 % 8) * kPage));
  stop = true;
  readers.clear();
  CHECK_OK(world.detach(vmo));
  service.join();
}

CASE(threads, closing_the_pager_ends_every_wait) {
  for (int round = 0; round < 30; round++) {
    World world;
    const Handle vmo = world.vmo(8);
    Tasks readers;
    for (uint64_t n = 0; n < 4; n++) {
      start(readers, [&, n] { CHECK_STATUS(read_status(vmo, n * 2 * kPage, 1), ZX_ERR_BAD_STATE); });
    }
    zx_nanosleep(in_ms(round % 3));
    world.pager.reset();
    readers.clear();
    world.expect_nothing();
  }
}

CASE(threads, of_two_who_close_a_handle_one_succeeds) {
  for (int round = 0; round < 500; round++) {
    const zx_handle_t handle = anonymous(1).release();
    zx_status_t one = ZX_OK, two = ZX_OK;
    both([&] { one = zx_handle_close(handle); }, [&] { two = zx_handle_close(handle); });
    CHECK((one == ZX_OK) != (two == ZX_OK));
    CHECK_STATUS(one == ZX_OK ? two : one, ZX_ERR_BAD_HANDLE);
  }
}

CASE(threads, a_duplicate_beside_a_close_works_or_is_bad_handle) {
  for (int round = 0; round < 500; round++) {
    const Handle keeps = anonymous(1);
    write(keeps, 0, Bytes(1, 0x42));
    const zx_handle_t handle = keeps.duplicate().release();
    Handle twin;
    zx_status_t status = ZX_OK;
    both([&] { status = zx_handle_duplicate(handle, ZX_RIGHT_SAME_RIGHTS, twin.out()); },
         [&] { CHECK_OK(zx_handle_close(handle)); });
    CHECK(status == ZX_OK || status == ZX_ERR_BAD_HANDLE);
    if (status == ZX_OK) CHECK_EQ(read(twin, 0, 1), (Bytes{0x42}));
  }
}

CASE(threads, of_two_who_replace_a_handle_one_succeeds) {
  for (int round = 0; round < 500; round++) {
    const zx_handle_t handle = anonymous(1).release();
    Handle a, b;
    zx_status_t one = ZX_OK, two = ZX_OK;
    both([&] { one = zx_handle_replace(handle, ZX_RIGHT_SAME_RIGHTS, a.out()); },
         [&] { two = zx_handle_replace(handle, ZX_RIGHT_SAME_RIGHTS, b.out()); });
    CHECK((one == ZX_OK) != (two == ZX_OK));
    CHECK_STATUS(one == ZX_OK ? two : one, ZX_ERR_BAD_HANDLE);
  }
}

CASE(threads, a_call_beside_a_close_works_or_is_bad_handle) {
  const World world;
  for (int round = 0; round < 300; round++) {
    Handle vmo = world.full(1);
    const zx_handle_t handle = vmo.release();
    both(
        [&] {
          for (int call = 0; call < 20; call++) {
            uint8_t byte = 0;
            const zx_status_t status = zx_vmo_read(handle, &byte, 0, 1);
            CHECK(status == ZX_OK || status == ZX_ERR_BAD_HANDLE);
            if (status == ZX_OK) CHECK_EQ(byte, content(0)[0]);
          }
        },
        [&] { CHECK_OK(zx_handle_close(handle)); });
    world.expect_complete();
  }
}

CASE(threads, a_stale_handle_never_names_another_object) {
  std::atomic<bool> stop{false};
  std::atomic<zx_handle_t> shared{0};
  std::atomic<zx_koid_t> koid{0};
  Task prober([&] {
    while (!stop) {
      const zx_handle_t handle = shared.load();
      if (handle == 0) continue;
      zx_info_handle_basic_t info;
      const zx_status_t status =
          zx_object_get_info(handle, ZX_INFO_HANDLE_BASIC, &info, sizeof(info), nullptr, nullptr);
      CHECK(status == ZX_OK || status == ZX_ERR_BAD_HANDLE);
      // If it was shared all the while, so was its number.
      const zx_koid_t was = koid.load();
      if (status == ZX_OK && shared.load() == handle) CHECK_EQ(info.koid, was);
    }
  });
  std::map<zx_handle_t, zx_koid_t> all;
  for (int round = 0; round < 5000; round++) {
    const Handle vmo = anonymous(1);
    shared = 0;
    koid = basic_of(vmo.get()).koid;
    shared = vmo.get();
    CHECK(all.emplace(vmo.get(), koid.load()).second);
  }
  stop = true;
  prober.join();
  for (const auto& [handle, was] : all) CHECK_STATUS(zx_handle_close(handle), ZX_ERR_BAD_HANDLE);
}

CASE(threads, every_packet_is_delivered_once) {
  const World world;
  std::mutex mutex;
  std::set<uint64_t> got;
  std::atomic<int> left{800};
  Tasks waiters, senders;
  for (int n = 0; n < 3; n++) {
    start(waiters, [&] {
      while (left > 0) {
        zx_port_packet_t packet;
        const zx_status_t status = zx_port_wait(world.port.get(), in_ms(2), &packet);
        if (status == ZX_ERR_TIMED_OUT) continue;
        CHECK_OK(status);
        left--;
        std::lock_guard<std::mutex> lock(mutex);
        CHECK(got.insert(packet.key).second);
      }
    });
  }
  for (uint64_t n = 0; n < 2; n++) {
    start(senders, [&, n] {
      for (uint64_t key = 0; key < 400; key++) {
        zx_port_packet_t packet;
        std::memset(&packet, 0, sizeof(packet));
        packet.key = n * 1000 + key;
        CHECK_OK(zx_port_queue(world.port.get(), &packet));
      }
    });
  }
  senders.clear();
  waiters.clear();
  CHECK_EQ(got.size(), 800u);
  world.expect_nothing();
}

CASE(threads, a_packet_is_delivered_or_withdrawn_and_not_both) {
  const World world;
  for (int round = 0; round < 300; round++) {
    zx_port_packet_t packet, got;
    std::memset(&packet, 0, sizeof(packet));
    packet.key = 9;
    CHECK_OK(zx_port_queue(world.port.get(), &packet));
    zx_status_t cancelled = ZX_OK, taken = ZX_OK;
    both([&] { cancelled = zx_port_cancel_key(world.port.get(), 0, 9); },
         [&] { taken = zx_port_wait(world.port.get(), 0, &got); });
    CHECK((cancelled == ZX_OK) != (taken == ZX_OK));
    CHECK(cancelled == ZX_OK || cancelled == ZX_ERR_NOT_FOUND);
    world.expect_nothing();
  }
}

CASE(threads, vmos_come_and_go_in_many_threads) {
  const World world;
  Tasks tasks;
  for (uint64_t n = 0; n < 4; n++) {
    start(tasks, [&, n] {
      Handle port;
      CHECK_OK(zx_port_create(0, port.out()));
      for (int round = 0; round < 100; round++) {
        Handle vmo;
        CHECK_OK(zx_pager_create_vmo(world.pager.get(), 0, port.get(), n, 2 * kPage, vmo.out()));
        world.supply(vmo, 0, 2, static_cast<uint8_t>(n));
        CHECK_EQ(read_pages(vmo, 0, 2), content(0, 2, static_cast<uint8_t>(n)));
        vmo.reset();
        zx_port_packet_t packet;
        CHECK_OK(zx_port_wait(port.get(), in_ms(10'000), &packet));
        CHECK_EQ(packet.page_request.command, ZX_PAGER_VMO_COMPLETE);
      }
    });
  }
}

CASE(threads, zero_beside_writes_leaves_either_and_stays_dirty) {
  const World world;
  for (int round = 0; round < 100; round++) {
    const Handle vmo = world.full(1);
    both([&] { CHECK_OK(op(vmo, ZX_VMO_OP_ZERO, 0, 1)); }, [&] { write(vmo, 0, Bytes(1, 0xaa)); });
    const uint8_t first = read(vmo, 0, 1)[0];
    CHECK(first == 0 || first == 0xaa);
    CHECK_EQ(read(vmo, 1, kPage - 1), Bytes(kPage - 1));
    CHECK_EQ(world.dirty_ranges(vmo).size(), 1u);
    CHECK_OK(world.detach(vmo));
    world.expect_complete();
  }
}
