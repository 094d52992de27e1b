// Runs one GoogleTest test in a process of its own and says how it ended; compiled once per toolchain, linked into
// every program that rewards/cpp grades.
//
// Standard input holds a secret and the name of a test (no name: list the tests). It is taken at the entry point,
// before any constructor of the candidate runs. The verdict goes to what was descriptor 3, a pipe, after the secret.
// What remains possible is said in rewards/cpp/__init__.py.

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

#include <gtest/gtest.h>

#define UNWATCHED __attribute__((no_instrument_function))

namespace {

constexpr std::size_t kSecret = 32;
constexpr std::size_t kPage = 4096;
constexpr int kVerdict = 3;

struct Order {
  unsigned char secret[kSecret];
  char test[kPage - kSecret - 16];
  int verdict_fd;
};
static_assert(sizeof(Order) <= kPage);

std::uintptr_t disguised_order;  // neither the secret nor a pointer to it lies about while the candidate runs
std::uintptr_t disguise;
std::atomic<long> inside{0};  // functions of the tests' source that were entered and not left

[[noreturn]] void give_up(int code) { _exit(code); }

void say(int fd, const std::string& text) {
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t written = write(fd, text.data() + done, text.size() - done);
    if (written <= 0) give_up(101);
    done += static_cast<std::size_t>(written);
  }
}

// Nothing is left to read on standard input, and the pipe stands at a number that differs from run to run.
int hide_descriptors(int least) {
  const int null = open("/dev/null", O_RDONLY);
  if (null < 0 || dup2(null, 0) < 0) give_up(102);
  const int verdict = fcntl(kVerdict, F_DUPFD, least);
  if (verdict < 0) give_up(107);
  close(null);
  close(kVerdict);
  return verdict;
}

const Order& open_order() {
  void* page = reinterpret_cast<void*>(disguised_order ^ disguise);
  if (mprotect(page, kPage, PROT_READ) != 0) give_up(103);
  return *static_cast<const Order*>(page);
}

void close_order() { mprotect(reinterpret_cast<void*>(disguised_order ^ disguise), kPage, PROT_NONE); }

[[noreturn]] void report(const std::string& verdict) {
  const Order& order = open_order();
  say(order.verdict_fd, std::string(reinterpret_cast<const char*>(order.secret), kSecret) + verdict);
  _exit(0);  // nothing of the candidate runs after the verdict
}

// One test, watched from gtest's side; gtest's own result has to agree with it.
class Watcher : public testing::EmptyTestEventListener {
 public:
  int started = 0, ended = 0;
  bool failed = false, skipped = false, passed = false;
  std::string name, message;

  void OnTestStart(const testing::TestInfo&) override { ++started; }
  void OnTestPartResult(const testing::TestPartResult& part) override {
    skipped = skipped || part.skipped();
    if (!part.failed()) return;
    if (!failed && part.file_name() != nullptr) {
      message = "line " + std::to_string(part.line_number()) + ": " + part.message();
    } else if (!failed) {
      message = part.message();
    }
    failed = true;
  }
  void OnTestEnd(const testing::TestInfo& test) override {
    ++ended;
    name = std::string(test.test_suite_name()) + "." + test.name();
    passed = test.result()->Passed() && !test.result()->Skipped();
  }
};

std::string verdict(const Watcher& seen, const char* wanted, bool all_passed) {
  if (seen.failed) return "F" + seen.message;
  if (inside != 0) return "Fthe test was left without returning from it";
  if (seen.skipped) return "Fthe test was skipped";
  if (seen.started != 1 || seen.ended != 1 || seen.name != wanted) return "Fthe test did not run";
  return seen.passed && all_passed ? "P" : "Ffailed";
}

std::string listing() {
  std::string names = "L";
  const auto& unit = *testing::UnitTest::GetInstance();
  for (int i = 0; i < unit.total_test_suite_count(); ++i) {
    const auto& suite = *unit.GetTestSuite(i);
    for (int j = 0; j < suite.total_test_count(); ++j) {
      names += std::string(suite.name()) + "." + suite.GetTestInfo(j)->name() + "\n";
    }
  }
  return names;
}

}  // namespace

// The tests' source is compiled with -finstrument-functions. A candidate that unwinds its caller's frame, so that a
// test seems to end without another assertion, leaves these two out of balance; an exception does not.
extern "C" {
UNWATCHED void __cyg_profile_func_enter(void*, void*) { ++inside; }
UNWATCHED void __cyg_profile_func_exit(void*, void*) { --inside; }

void graded_take_order() {
  void* page = mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) give_up(104);
  auto* order = static_cast<Order*>(page);
  auto* bytes = static_cast<unsigned char*>(page);
  std::size_t got = 0;
  for (ssize_t more; got < kSecret + sizeof order->test - 1; got += static_cast<std::size_t>(more)) {
    more = read(0, bytes + got, kSecret + sizeof order->test - 1 - got);
    if (more < 0) give_up(105);
    if (more == 0) break;
  }
  if (got < kSecret) give_up(106);
  order->verdict_fd = hide_descriptors(8 + order->secret[0] % 32);
  std::memcpy(&disguise, order->secret + 8, sizeof disguise);
  disguised_order = reinterpret_cast<std::uintptr_t>(page) ^ disguise;
  if (mprotect(page, kPage, PROT_NONE) != 0) give_up(108);
}
}

// The entry point. Registers that the C runtime's _start expects are kept.
#if defined(__x86_64__)
__asm__(
    ".text\n.globl graded_entry\n.type graded_entry, @function\n"
    "graded_entry:\n push %rdx\n push %rdx\n call graded_take_order\n pop %rdx\n pop %rdx\n jmp _start\n");
#elif defined(__aarch64__)
__asm__(
    ".text\n.globl graded_entry\n.type graded_entry, @function\n"
    "graded_entry:\n stp x0, x30, [sp, #-16]!\n bl graded_take_order\n ldp x0, x30, [sp], #16\n b _start\n");
#else
#error "no entry point for this processor: x86-64 and aarch64 are supported"
#endif

int main() {
  clearenv();  // a constructor may have set GTEST_… variables
  int argc = 1;
  char name[] = "tests";
  char* argv[] = {name, nullptr};
  testing::InitGoogleTest(&argc, argv);
  const std::string wanted = open_order().test;
  close_order();
  if (wanted.empty()) report(listing());

  testing::GTEST_FLAG(filter) = wanted;
  testing::GTEST_FLAG(output) = "";
  testing::GTEST_FLAG(repeat) = 1;
  testing::GTEST_FLAG(shuffle) = false;
  testing::GTEST_FLAG(catch_exceptions) = true;
  testing::GTEST_FLAG(break_on_failure) = false;
  testing::GTEST_FLAG(throw_on_failure) = false;
  auto& listeners = testing::UnitTest::GetInstance()->listeners();
  delete listeners.Release(listeners.default_result_printer());
  auto* watcher = new Watcher;
  listeners.Append(watcher);
  const bool all_passed = RUN_ALL_TESTS() == 0;
  report(verdict(*watcher, wanted.c_str(), all_passed));
}
