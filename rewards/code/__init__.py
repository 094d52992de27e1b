"""Grades the program in a completion: extract it, read the row's tests, run it in the sandbox, compare the outputs."""
