// Runs one GoogleTest test of a program and reports its verdict; compiled once per toolchain (source.py).
//
// Standard input holds a nonce and the name of a test (no name: list the tests). Both are read before constructors of
// the program run. The verdict is written to descriptor 3, after the nonce unless the test failed. The program under
// test shares this process: code that searches memory for the nonce can forge a verdict, so scores have `isolation:
// shared`.

#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include <gtest/gtest.h>

namespace {

constexpr std::size_t kNonce = 32;
constexpr int kVerdict = 3;
std::string* order;
int verdict_fd;

// Reads nonce and test name, and moves descriptor 3 to another number.
__attribute__((constructor(101))) void take_order() {
  order = new std::string(4096, '\0');
  std::size_t size = 0;
  for (ssize_t more; (more = read(0, &(*order)[size], order->size() - size)) > 0;) size += static_cast<std::size_t>(more);
  if (size < kNonce) _exit(101);
  order->resize(size);
  close(0);  // otherwise the program could read it again
  open("/dev/null", O_RDONLY);
  verdict_fd = dup2(kVerdict, 8 + static_cast<unsigned char>((*order)[0]) % 16);  // a different number in each run
  close(kVerdict);
}

// Writes "P" (passed), "F" and a message (failed) or "L" and the tests' names (listing), and ends the process.
[[noreturn]] void report(const std::string& verdict) {
  const std::string text = verdict[0] == 'F' ? verdict : order->substr(0, kNonce) + verdict;
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t written = write(verdict_fd, text.data() + done, text.size() - done);
    if (written <= 0) _exit(102);
    done += static_cast<std::size_t>(written);
  }
  _exit(0);
}

// Records the test that ran, and its first failure.
class Watcher : public testing::EmptyTestEventListener {
 public:
  int ended = 0;
  bool failed = false;
  std::string name, message;

  void OnTestPartResult(const testing::TestPartResult& part) override {
    if (!part.failed() || failed) return;
    failed = true;
    message = part.file_name() ? "line " + std::to_string(part.line_number()) + ": " + part.message() : part.message();
  }
  void OnTestEnd(const testing::TestInfo& test) override {
    ++ended;
    name = std::string(test.test_suite_name()) + "." + test.name();
    failed = failed || !test.result()->Passed() || test.result()->Skipped();
  }
};

// "L" and the names of all registered tests, one per line.
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

int main() {
  clearenv();  // a constructor may have set GTEST_… variables
  int argc = 1;
  char program[] = "tests";
  char* argv[] = {program, nullptr};
  testing::InitGoogleTest(&argc, argv);
  const std::string test = order->substr(kNonce);
  if (test.empty()) report(listing());

  testing::GTEST_FLAG(filter) = test;
  auto& listeners = testing::UnitTest::GetInstance()->listeners();
  delete listeners.Release(listeners.default_result_printer());
  auto* watcher = new Watcher;
  listeners.Append(watcher);
  const bool all_passed = RUN_ALL_TESTS() == 0;
  if (watcher->ended != 1 || watcher->name != test) report("Fthe test did not run");
  report(all_passed && !watcher->failed ? "P" : "F" + watcher->message);
}
