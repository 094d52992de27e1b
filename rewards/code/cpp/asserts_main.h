
// Placed after C++ tests with asserts (source.py): runs their main function as a GoogleTest test.
extern "C" int graded_main(int, char**);
TEST(Asserts, main) {
  char name[] = "tests";
  char* argv[] = {name, nullptr};
  EXPECT_EQ(graded_main(1, argv), 0);
}
