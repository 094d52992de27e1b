"""Grades C++17 solutions. Solutions and tests are compiled and run in the sandbox, each test in its own process.

    toolchain.py    compiler, linker, precompiled headers; builds programs for stdio tests and for tests as data, whose
                    driver (driver.cpp) reads arguments and writes results; results are compared in the caller's process
    declaration.py  types of tests as data
    values.py       their values: validation, the driver's input, and its output, which is untrusted
    source.py       tests as source (GoogleTest, programs with asserts); they share a process with the solution, which
                    can forge their verdicts, so each such score has `isolation: shared` in its details

Compiler and linker are trusted not to have exploitable bugs.
"""
