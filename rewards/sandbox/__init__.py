"""A sandbox for model-written programs: Python solutions, C++ builds and compiled programs.

    with Sandbox() as box:
        box.python("print(int(input()) + 1)", [Case(b"1\\n")]).runs[0].stdout

    supervisor   this process: sends cases and collects output bytes. It never runs a candidate's code, and the
      |          processes below never receive an expected output: the caller compares. (Exception: Python test code
      |          runs in a process of its own, inside/judge.py, connected to the candidate's process by a channel)
      |  exec    python -I -S -B with an empty environment (not fork: a fork's memory could be searched)
    zygote       one for programs, one for builds, in bubblewrap's namespaces with a read-only root
      |  fork
    job          one per solution: Landlock, no new privileges, its own user id if started as root;
      |          compiles the solution and enforces the limits of
      |  fork
    process      one per test: stdin and stdout in memory files, all other descriptors closed, rlimits, a
                 seccomp allow-list, CPU time measured from outside, SIGKILL at its limits; its own folder
                 if the program uses tempfile (level "namespaces" only)

Isolation levels (`Sandbox.level`): "namespaces" is all of this, "landlock" is the same without namespaces. The
strongest level that stops a small set of attacks (probe.py) is used.

What the sandbox does not prevent:
- exploits of bugs in the about 120 system calls that a test process can make, in bubblewrap, in the
  compiler, or in CPython's parser, which parses untrusted text in the job (under Landlock, but without seccomp);
- side channels: timing, caches, load; a program can measure how busy the machine is;
- use of CPU and memory up to each process's limits; there is no total limit except 1 GB for the
  temporary files of all programs, which one program can use up;
- at level "landlock": finding out whether a path exists and its size, names in the folders of installed packages, and
  the host's name and load; a build writes to the machine's temporary directory, and a killed supervisor leaves files;
- reading the standard library, the pinned packages and the system's shared libraries, and in builds all of /usr except
  installed packages;
- programs that do not compute their answers, e.g. with a table of known answers in the source.
"""

from rewards.sandbox.box import Sandbox, selfcheck, shared
from rewards.sandbox.levels import LEVELS, Level
from rewards.sandbox.types import BUILD_LIMITS, Built, Case, Limits, Program, Ran

__all__ = [
    "BUILD_LIMITS", "LEVELS", "Built", "Case", "Level", "Limits", "Program", "Ran", "Sandbox",
    "selfcheck", "shared",
]  # fmt: skip
