// Cases by group, checks that name their place, and a program that runs them.
//
//   CASE(read, a_page_that_is_there_is_read_without_a_packet) { CHECK_OK(...); }
//
// A check that fails ends its case, from whatever thread. A case that takes too long ends the program.

#ifndef UPAGER_TESTS_CAPI_HARNESS_H_
#define UPAGER_TESTS_CAPI_HARNESS_H_

#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <upager.h>

namespace conformance {

struct Case {
  const char* group;
  const char* name;
  const char* file;
  int line;
  void (*run)();
};

// In the order of the files' names, and of their lines.
std::vector<Case>& cases();

struct Register {
  Register(const char* group, const char* name, const char* file, int line, void (*run)()) {
    cases().push_back({group, name, file, line, run});
  }
};

// Thrown by a check that has failed, which is noted already.
struct Failed {};

// Notes a failure of the case that runs. Any thread may.
void note(const char* file, int line, const std::string& what);
[[noreturn]] inline void fail(const char* file, int line, const std::string& what) {
  note(file, line, what);
  throw Failed{};
}

// How many single checks of the case that runs were made in a loop: a sweep says so.
void count(uint64_t combinations);

// The status as Zircon names it, and anything else as a number.
inline std::string text(zx_status_t status) {
  return std::string(zx_status_get_string(status)) + " (" + std::to_string(status) + ")";
}
inline std::string text(const std::vector<uint8_t>& bytes) {
  std::ostringstream out;
  out << bytes.size() << " bytes:" << std::hex;
  for (size_t at = 0; at < bytes.size() && at < 16; at++) out << ' ' << unsigned{bytes[at]};
  return out.str();
}
template <typename T>
std::string text(const T& value) {
  std::ostringstream out;
  out << value;
  return out.str();
}

template <typename A, typename B>
void check_equal(const char* file, int line, const char* what, const A& is, const B& should) {
  if (!(is == should)) {
    fail(file, line, std::string(what) + " is " + text(is) + ", not " + text(should));
  }
}

// A thread of a case. What it throws fails the case, and it is joined in any event.
class Task {
 public:
  explicit Task(std::function<void()> body) : done_(false) {
    thread_ = std::thread([this, body = std::move(body)] {
      try {
        body();
      } catch (const Failed&) {
      } catch (const std::exception& error) {
        note(__FILE__, __LINE__, std::string("a thread threw: ") + error.what());
      }
      done_.store(true);
    });
  }
  Task(const Task&) = delete;
  Task& operator=(const Task&) = delete;
  ~Task() { join(); }

  void join() {
    if (thread_.joinable()) {
      thread_.join();
    }
  }
  bool is_done() const { return done_.load(); }

 private:
  std::atomic<bool> done_;
  std::thread thread_;
};

}  // namespace conformance

#define CASE(group, name)                                                                                      \
  static void group##_##name();                                                                                \
  static const ::conformance::Register register_##group##_##name{#group, #name, __FILE__, __LINE__,            \
                                                                 group##_##name};                              \
  static void group##_##name()

#define CHECK(condition)                                     \
  do {                                                       \
    if (!(condition)) {                                      \
      ::conformance::fail(__FILE__, __LINE__, #condition);   \
    }                                                        \
  } while (false)
#define CHECK_EQ(is, should) ::conformance::check_equal(__FILE__, __LINE__, #is, (is), (should))
// Of a status, which is printed by name.
#define CHECK_STATUS(call, should)                                                                        \
  ::conformance::check_equal(__FILE__, __LINE__, #call, static_cast<zx_status_t>(call),                   \
                             static_cast<zx_status_t>(should))
#define CHECK_OK(call) CHECK_STATUS(call, ZX_OK)

#endif  // UPAGER_TESTS_CAPI_HARNESS_H_
