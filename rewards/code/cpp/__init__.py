"""Grades C++17 solutions. Everything compiles and runs in the sandbox, each test in a process of its own.

    toolchain.py  compiler, linker, precompiled headers; programs for stdio tests, and for tests as data: the driver
                  reads arguments and writes results, comparison happens in our process
    declaration.py, values.py  the types of such tests; their values checked, packed and read
    source.py     tests as source (GoogleTest, programs with asserts), which share a process with the solution: what
                  grades them can be forged by it, and every such score has `isolation: shared` in its details

Compiler and linker are trusted not to have exploitable bugs.
"""
