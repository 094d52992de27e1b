// Placed before the tests' source (source.py). Death tests fork, which the sandbox does not allow.

#undef EXPECT_DEATH
#undef ASSERT_DEATH
#undef EXPECT_EXIT
#undef ASSERT_EXIT
#define EXPECT_DEATH(...) static_assert(false, "death tests are not supported")
#define ASSERT_DEATH(...) EXPECT_DEATH()
#define EXPECT_EXIT(...) EXPECT_DEATH()
#define ASSERT_EXIT(...) EXPECT_DEATH()
