"""A sandbox for model-written programs: Python solutions, C++ builds and compiled programs.

    with Sandbox() as box:
        box.python("print(int(input()) + 1)", [Case(b"1\\n")]).runs[0].stdout

    supervisor   this process: hands out cases and collects bytes. It never runs a candidate's code, and the processes
      |          below never get an expected output: the caller compares
      |  exec    (not fork: a fork's memory could be searched) python -I -S -B, empty environment
    zygote       one for programs, one for builds, in bubblewrap's namespaces with a read-only root
      |  fork
    job          one per solution: Landlock, no new privileges, a user id of its own when started as root;
      |          compiles, and keeps the limits of
      |  fork
    process      one per test: stdin and stdout in memory files, every other descriptor closed, rlimits, a
                 seccomp allow-list, CPU time read from a clock that it cannot stop, SIGKILL at its limits; for a
                 program that uses tempfile a folder of its own, behind namespaces only

Isolation levels (`Sandbox.level`): "namespaces" is all of this; "landlock" does without namespaces. A small set of
attacks decides which level is used (probe.py).

What this does not stop:
- bugs in the kernel's part that a test process can still reach (about 120 system calls), in bubblewrap, in the
  compiler, and in CPython's parser, which runs on hostile text in the job (behind Landlock, but without seccomp);
- side channels: timing, caches, load; a program can tell how busy the machine is;
- use of CPU and memory up to the limits of every process that runs at once; there is no total, but for the 1 GB that
  temporary files of all programs share, which one that writes many can take from the others;
- at level "landlock": seeing whether a path exists and its size, names in the folders of installed packages, the host's
  name and load; a build there writes below the machine's temporary directory, which a killed supervisor leaves behind;
- reading the standard library and the system's shared libraries, and for builds all of /usr but installed packages;
- a program that answers by other means than its own work, e.g. a table of known answers in its source.
"""

from __future__ import annotations

from rewards.sandbox.box import Sandbox, selfcheck, shared
from rewards.sandbox.levels import LEVELS, Level
from rewards.sandbox.types import BUILD_LIMITS, Built, Case, Limits, Program, Ran

__all__ = [
    "BUILD_LIMITS", "LEVELS", "Built", "Case", "Level", "Limits", "Program", "Ran", "Sandbox",
    "selfcheck", "shared",
]  # fmt: skip
