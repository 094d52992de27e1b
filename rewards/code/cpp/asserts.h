// Placed before C++ tests with asserts (source.py): a failed assert ends the test instead of the process.
#undef assert
#define assert(...) ((__VA_ARGS__) ? void() : graded_assert_failed(#__VA_ARGS__, __LINE__))
static void graded_assert_failed(const char* what, int line) {
  ADD_FAILURE_AT("test.cpp", line) << what;
  throw std::runtime_error("an assertion failed");
}
