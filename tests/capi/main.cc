// Runs the cases:
//   conformance [--list] [--filter TEXT]... [--repeat N] [--timeout SECONDS] [--quiet]
// A case runs if its "group.name" has one of the texts in it.

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <tuple>

#include "harness.h"

namespace conformance {

std::vector<Case>& cases() {
  static std::vector<Case> all;
  return all;
}

namespace {

std::mutex mutex;
std::string running;
uint64_t failures;      // of the case that runs
uint64_t combinations;  // of all cases

// Ends the program if a case takes too long.
class Watchdog {
 public:
  explicit Watchdog(std::chrono::seconds limit) : limit_(limit), thread_([this] { run(); }) {}
  ~Watchdog() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      ends_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  void begin() {
    std::lock_guard<std::mutex> lock(mutex_);
    round_++;
    changed_.notify_all();
  }

 private:
  void run() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (!ends_) {
      const uint64_t round = round_;
      if (!changed_.wait_for(lock, limit_, [&] { return ends_ || round_ != round; })) {
        std::lock_guard<std::mutex> names(mutex);
        std::fprintf(stderr, "%s hangs\n", running.c_str());
        _exit(3);
      }
    }
  }

  std::chrono::seconds limit_;
  std::mutex mutex_;
  std::condition_variable changed_;
  uint64_t round_ = 0;
  bool ends_ = false;
  std::thread thread_;
};

bool run(const Case& one) {
  {
    std::lock_guard<std::mutex> lock(mutex);
    running = std::string(one.group) + "." + one.name;
    failures = 0;
  }
  try {
    one.run();
  } catch (const Failed&) {
  } catch (const std::exception& error) {
    note(one.file, one.line, std::string("threw: ") + error.what());
  }
  std::lock_guard<std::mutex> lock(mutex);
  return failures == 0;
}

[[noreturn]] void usage(const char* program) {
  std::fprintf(stderr, "usage: %s [--list] [--filter TEXT]... [--repeat N] [--timeout SECONDS] [--quiet]\n", program);
  std::exit(2);
}

}  // namespace

void note(const char* file, int line, const std::string& what) {
  std::lock_guard<std::mutex> lock(mutex);
  failures++;
  std::fprintf(stderr, "%s:%d: %s: %s\n", file, line, running.c_str(), what.c_str());
}

void count(uint64_t more) {
  std::lock_guard<std::mutex> lock(mutex);
  combinations += more;
}

}  // namespace conformance

int main(int argc, char** argv) {
  using namespace conformance;
  std::vector<std::string> filters;
  uint64_t repeat = 1, timeout = 120;
  bool list = false, quiet = false;
  for (int at = 1; at < argc; at++) {
    const std::string option = argv[at];
    const auto number = [&]() -> uint64_t {
      char* end = nullptr;
      const uint64_t value = at + 1 < argc ? std::strtoull(argv[++at], &end, 10) : 0;
      if (value == 0 || *end != '\0') usage(argv[0]);
      return value;
    };
    if (option == "--list") {
      list = true;
    } else if (option == "--quiet") {
      quiet = true;
    } else if (option == "--filter" && at + 1 < argc) {
      filters.emplace_back(argv[++at]);
    } else if (option == "--repeat") {
      repeat = number();
    } else if (option == "--timeout") {
      timeout = number();
    } else {
      usage(argv[0]);
    }
  }

  std::vector<Case> chosen;
  for (const Case& one : cases()) {
    const std::string name = std::string(one.group) + "." + one.name;
    const auto has = [&](const std::string& filter) { return name.find(filter) != std::string::npos; };
    if (filters.empty() || std::any_of(filters.begin(), filters.end(), has)) {
      chosen.push_back(one);
    }
  }
  std::sort(chosen.begin(), chosen.end(), [](const Case& a, const Case& b) {
    const int files = std::strcmp(a.file, b.file);
    return std::tie(files, a.line) < std::make_tuple(0, b.line);
  });
  if (list) {
    for (const Case& one : chosen) std::printf("%s.%s\n", one.group, one.name);
    std::printf("%zu cases\n", chosen.size());
    return 0;
  }
  if (chosen.empty()) {
    std::fprintf(stderr, "no case has that in its name\n");
    return 2;
  }

  const auto begun = std::chrono::steady_clock::now();
  Watchdog watchdog{std::chrono::seconds(timeout)};
  uint64_t passed = 0, failed = 0;
  for (uint64_t round = 0; round < repeat; round++) {
    for (const Case& one : chosen) {
      watchdog.begin();
      const bool ok = run(one);
      (ok ? passed : failed)++;
      if (!ok || !quiet) {
        std::printf("%s %s.%s\n", ok ? "ok    " : "FAILED", one.group, one.name);
        std::fflush(stdout);
      }
    }
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begun;
  std::printf("%zu cases, %llu times, with %llu combinations of arguments: %llu passed, %llu failed, %.1f s\n",
              chosen.size(), static_cast<unsigned long long>(repeat), static_cast<unsigned long long>(combinations),
              static_cast<unsigned long long>(passed), static_cast<unsigned long long>(failed), took.count());
  return failed == 0 ? 0 : 1;
}
