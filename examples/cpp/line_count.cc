// Counts the lines of a file with several threads, which see it as a VMO, served by several threads more.
//
//   line_count [--threads N] [--servers N] [--map] [--detach-after MILLISECONDS] FILE
//
// --map            counts in a mapping of the VMO, and not by zx_vmo_read()
// --detach-after   detaches the VMO while everything is under way: who waits for a page is told at once, nobody hangs, and the
//                  program says how far it came. Not with --map, where the failure would be a SIGBUS.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <upager.h>

namespace {

// A call that failed.
class Error : public std::runtime_error {
 public:
  Error(const std::string& what, zx_status_t status)
      : std::runtime_error(what + ": " + zx_status_get_string(status)), status_(status) {}
  zx_status_t status() const { return status_; }

 private:
  zx_status_t status_;
};

void check(const char* what, zx_status_t status) {
  if (status != ZX_OK) throw Error(what, status);
}

// A handle that closes itself.
class Handle {
 public:
  Handle() = default;
  Handle(Handle&& other) noexcept : value_(std::exchange(other.value_, ZX_HANDLE_INVALID)) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(value_, other.value_);
    return *this;
  }
  ~Handle() { zx_handle_close(value_); }
  zx_handle_t get() const { return value_; }
  zx_handle_t* out() { return &value_; }

 private:
  zx_handle_t value_ = ZX_HANDLE_INVALID;
};

class File {
 public:
  explicit File(const char* path) : fd_(open(path, O_RDONLY | O_CLOEXEC)) {
    struct stat stat;
    if (fd_ < 0 || fstat(fd_, &stat) != 0) {
      throw std::runtime_error(std::string(path) + ": " + std::strerror(errno));
    }
    size_ = static_cast<uint64_t>(stat.st_size);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() {
    if (fd_ >= 0) close(fd_);
  }
  uint64_t size() const { return size_; }
  // Reads as much as there is; false: it cannot be read.
  bool read(char* to, size_t length, uint64_t offset) const {
    std::memset(to, 0, length);
    for (size_t done = 0; done < length;) {
      const ssize_t n = pread(fd_, to + done, length - done, static_cast<off_t>(offset + done));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return false;
      if (n == 0) break;
      done += static_cast<size_t>(n);
    }
    return true;
  }

 private:
  int fd_;
  uint64_t size_ = 0;
};

// A file as a VMO. Its threads answer page requests until the VMO is COMPLETE.
class PagedFile {
 public:
  PagedFile(const char* path, unsigned servers) : file_(path) {
    check("creating a port", zx_port_create(0, port_.out()));
    check("creating a pager", zx_pager_create(0, pager_.out()));
    check("creating a VMO", zx_pager_create_vmo(pager_.get(), 0, port_.get(), kKey, file_.size(), vmo_.out()));
    for (unsigned n = 0; n < servers; n++) servers_.emplace_back([this] { serve(); });
  }
  PagedFile(const PagedFile&) = delete;
  PagedFile& operator=(const PagedFile&) = delete;
  ~PagedFile() {
    detach();
    for (std::thread& server : servers_) server.join();
  }

  // Ends the service. Whoever waits for a page gets ZX_ERR_BAD_STATE. It may be called again.
  void detach() { zx_pager_detach_vmo(pager_.get(), vmo_.get()); }
  zx_handle_t vmo() const { return vmo_.get(); }
  uint64_t size() const { return file_.size(); }
  uint64_t requests() const { return requests_; }

 private:
  static constexpr uint64_t kKey = 1;
  static constexpr size_t kChunk = 64 << 10;

  void serve() {
    std::vector<char> buffer(kChunk);
    Handle aux;
    if (zx_vmo_create(kChunk, 0, aux.out()) != ZX_OK) return;
    for (;;) {
      zx_port_packet_t packet;
      if (zx_port_wait(port_.get(), ZX_TIME_INFINITE, &packet) != ZX_OK) return;
      const bool is_over = packet.type == ZX_PKT_TYPE_USER || packet.page_request.command == ZX_PAGER_VMO_COMPLETE;
      if (is_over) {
        // COMPLETE comes to one of us, who tells the next, and so on.
        std::memset(&packet, 0, sizeof(packet));
        packet.type = ZX_PKT_TYPE_USER;
        zx_port_queue(port_.get(), &packet);
        return;
      }
      if (packet.page_request.command == ZX_PAGER_VMO_READ) answer(packet.page_request, buffer, aux);
    }
  }

  void answer(const zx_packet_page_request_t& request, std::vector<char>& buffer, const Handle& aux) {
    requests_++;
    for (uint64_t done = 0; done < request.length;) {
      const size_t part = static_cast<size_t>(std::min<uint64_t>(request.length - done, kChunk));
      const uint64_t offset = request.offset + done;
      zx_status_t status = file_.read(buffer.data(), part, offset) ? ZX_OK : ZX_ERR_IO;
      if (status == ZX_OK) status = zx_vmo_write(aux.get(), buffer.data(), 0, part);
      if (status == ZX_OK) status = zx_pager_supply_pages(pager_.get(), vmo_.get(), offset, part, aux.get(), 0);
      if (status == ZX_ERR_BAD_STATE) return;  // detached: the request is over
      if (status != ZX_OK) {
        zx_pager_op_range(pager_.get(), ZX_PAGER_OP_FAIL, vmo_.get(), offset, request.length - done,
                          static_cast<uint64_t>(int64_t{ZX_ERR_IO}));
        return;
      }
      done += part;
    }
  }

  File file_;
  Handle port_, pager_, vmo_;
  std::atomic<uint64_t> requests_{0};
  std::vector<std::thread> servers_;
};

// The whole VMO, mapped for reading.
class Mapping {
 public:
  explicit Mapping(const PagedFile& file) : length_(file.size()) {
    check("mapping the VMO", zx_vmar_map(zx_vmar_root_self(), ZX_VM_PERM_READ, 0, file.vmo(), 0, length_, &at_));
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() {
    const uint64_t page = zx_system_get_page_size();
    zx_vmar_unmap(zx_vmar_root_self(), at_, (length_ + page - 1) / page * page);
  }
  const char* bytes() const { return reinterpret_cast<const char*>(at_); }

 private:
  zx_vaddr_t at_ = 0;
  uint64_t length_;
};

struct Options {
  unsigned threads = 4;
  unsigned servers = 2;
  bool map = false;
  long detach_after = -1;
  const char* path = nullptr;
};

struct Result {
  std::atomic<uint64_t> lines{0}, bytes{0}, refused{0}, failed{0};
};

// Counts parts of the file, as long as there are any that nobody has taken.
void count(const PagedFile& file, const char* mapped, std::atomic<uint64_t>& next, Result& result) {
  constexpr uint64_t kPart = 256 << 10;
  std::vector<char> buffer(mapped ? 0 : kPart);
  for (uint64_t at = next.fetch_add(kPart); at < file.size(); at = next.fetch_add(kPart)) {
    const size_t part = static_cast<size_t>(std::min(kPart, file.size() - at));
    const char* bytes = mapped + at;
    if (mapped == nullptr) {
      const zx_status_t status = zx_vmo_read(file.vmo(), buffer.data(), at, part);
      if (status != ZX_OK) {
        (status == ZX_ERR_BAD_STATE ? result.refused : result.failed)++;
        continue;
      }
      bytes = buffer.data();
    }
    result.lines += static_cast<uint64_t>(std::count(bytes, bytes + part, '\n'));
    result.bytes += part;
  }
}

int run(const Options& options) {
  PagedFile file(options.path, options.servers);
  Result result;
  {
    std::unique_ptr<Mapping> mapping;
    if (options.map && file.size() > 0) mapping = std::make_unique<Mapping>(file);
    std::atomic<uint64_t> next{0};
    std::vector<std::thread> threads;
    for (unsigned n = 0; n < options.threads; n++) {
      threads.emplace_back([&] { count(file, mapping ? mapping->bytes() : nullptr, next, result); });
    }
    if (options.detach_after >= 0) {
      zx_nanosleep(zx_deadline_after(ZX_MSEC(options.detach_after)));
      file.detach();
    }
    for (std::thread& thread : threads) thread.join();
  }
  std::printf("%llu lines in %llu of %llu bytes, %llu page requests\n",
              static_cast<unsigned long long>(result.lines), static_cast<unsigned long long>(result.bytes),
              static_cast<unsigned long long>(file.size()), static_cast<unsigned long long>(file.requests()));
  if (result.refused > 0) {
    std::printf("%llu reads were refused after the detach\n", static_cast<unsigned long long>(result.refused));
  }
  if (result.failed > 0) {
    std::fprintf(stderr, "line_count: %llu reads failed\n", static_cast<unsigned long long>(result.failed));
    return 1;
  }
  return 0;
}

[[noreturn]] void usage() {
  std::fprintf(stderr, "usage: line_count [--threads N] [--servers N] [--map] [--detach-after MILLISECONDS] FILE\n");
  std::exit(2);
}

Options parse(int argc, char** argv) {
  Options options;
  for (int at = 1; at < argc; at++) {
    const std::string option = argv[at];
    const auto number = [&](long least) {
      char* end = nullptr;
      const long value = at + 1 < argc ? std::strtol(argv[++at], &end, 10) : -1;
      if (end == nullptr || *end != '\0' || value < least || value > 1'000'000) usage();
      return value;
    };
    if (option == "--threads") {
      options.threads = static_cast<unsigned>(number(1));
    } else if (option == "--servers") {
      options.servers = static_cast<unsigned>(number(1));
    } else if (option == "--detach-after") {
      options.detach_after = number(0);
    } else if (option == "--map") {
      options.map = true;
    } else if (option.rfind("--", 0) == 0 || options.path != nullptr) {
      usage();
    } else {
      options.path = argv[at];
    }
  }
  if (options.path == nullptr || (options.map && options.detach_after >= 0)) usage();
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  try {
    return run(options);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "line_count: %s\n", error.what());
    return 1;
  }
}
