"""`Sandbox`, the public interface: selects an isolation level, and keeps a zygote for programs and one for builds.

Runs in the caller's process. Programs, and all bytes that come back from them, are untrusted.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import logging
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rewards.errors import RewardError
from rewards.forks import once_per_process
from rewards.sandbox import environment, probe
from rewards.sandbox.inside import restrict
from rewards.sandbox.levels import LEVELS, Level, Start, build_start, python_start
from rewards.sandbox.supervisor import Runner, built, compile_error, memfd, run_case, run_tests
from rewards.sandbox.types import BUILD_LIMITS, Built, Case, Limits, Program, Ran

LIMITS = Limits()
KeepGoing = Callable[[int, Ran], bool]
_log = logging.getLogger(__name__)


class Sandbox:
    """Runs untrusted programs at the strongest isolation that this machine supports. Thread-safe, usable after fork.

    level: default: the strongest that stops a small set of attacks, which are tried here (a tenth of a second).
    Raises RewardError if no level can be used. Methods that run a program or a compiler raise NotGraded if
    its process is lost repeatedly.
    """

    def __init__(self, level: Level | None = None) -> None:
        self._programs = Runner(lambda: python_start(self.level))
        self._builds = Runner(self._build_start)
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self.level: Level
        problems = {}
        for self.level in [level] if level else LEVELS:
            problems[self.level] = self._problem(self.level)
            if not problems[self.level]:
                break
        else:
            reasons = "; ".join(f"{level}: {problem}" for level, problem in problems.items())
            raise RewardError(f"sandbox: this machine cannot isolate untrusted code ({reasons})")
        _log.info("sandbox isolation level: %s", self.level)

    def _problem(self, level: Level) -> str:
        """Why this level cannot be used, and what to do about it; "" if it can."""
        if level not in LEVELS:
            return f"unknown isolation level; levels: {', '.join(LEVELS)}"
        if level == "namespaces" and shutil.which("bwrap") is None:
            return "bwrap is missing: install bubblewrap"
        if level == "landlock" and restrict.landlock_version() == 0:
            return "the kernel has no Landlock: boot kernel 5.13 or newer with lsm=landlock"
        try:
            attacks = probe.attack(self)
        except RewardError as problem:  # libseccomp is missing, or programs do not run
            self._programs.close()
            return str(problem)
        successful = [name for name, stopped in attacks if not stopped]
        if attacks and not successful:
            return ""
        self._programs.close()
        return f"attacks that succeeded: {', '.join(successful)}" if successful else "programs do not run"

    def python(
        self, code: str, cases: Sequence[Case], limits: Limits = LIMITS, keep_going: KeepGoing | None = None,
        preamble: str = "",
    ) -> Program:  # fmt: skip
        """Run a Python solution on each case, each in a fresh process. keep_going(index, run): whether to continue.

        preamble: trusted source, executed once in the program's namespace before the program. A call's result should
        be JSON, but a hostile program may write any bytes.
        """
        request = {"kind": "python", "compile_cpu_s": limits.compile_cpu_s, "preamble": preamble}
        with memfd(code.encode("utf-8", "surrogatepass")) as payload:
            return self._run_cases(request, payload, cases, limits, keep_going)

    def execute(
        self, binary: bytes, argv: Sequence[str], cases: Sequence[Case], limits: Limits = LIMITS,
        keep_going: KeepGoing | None = None,
    ) -> list[Ran]:  # fmt: skip
        """Run a compiled program on each case, each in a fresh process with an empty environment."""
        with memfd(binary, executable=True) as payload:
            return self._run_cases({"kind": "binary", "argv": list(argv)}, payload, cases, limits, keep_going).runs

    def _run_cases(
        self, request: Mapping[str, Any], payload: int, cases: Sequence[Case], limits: Limits,
        keep_going: KeepGoing | None,
    ) -> Program:  # fmt: skip
        """Run all cases in order; if the job is lost, another one continues at the current case."""
        runs: list[Ran] = []

        def run() -> Program:
            with self._programs.job(request, payload) as sock:
                if request["kind"] == "python" and (problem := compile_error(sock, limits)):
                    return Program(problem, [])
                while len(runs) < len(cases):
                    ran = run_case(sock, cases[len(runs)], limits)
                    runs.append(ran if ran.status == "ok" else replace(ran, result=b""))
                    if keep_going is not None and not keep_going(len(runs) - 1, runs[-1]):
                        break
                return Program(None, runs)

        return self._programs.retry(run)

    def run_tests(self, program: str, tests: str, settings: Mapping[str, Any], limits: Limits) -> Program:
        """Run tests (see inside/judge.py for `settings`) against a program. Each of the two has its own process, limits
        and job, and they communicate over a channel.
        """
        request = {"kind": "python", "compile_cpu_s": limits.compile_cpu_s}

        def run(code: int, source: int) -> Program:
            with self._programs.job(request, code) as candidate, self._programs.job(request, source) as judge:
                if problem := compile_error(candidate, limits):
                    return Program(problem, [])
                if problem := compile_error(judge, limits):
                    return Program(None, [], Ran("exit", message=problem))
                with contextlib.ExitStack() as files:
                    return run_tests(files, candidate, judge, settings, limits)

        with memfd(program.encode("utf-8", "surrogatepass")) as code, memfd(tests.encode()) as source:
            return self._programs.retry(lambda: run(code, source))

    def build(
        self, files: Mapping[str, bytes], argv: Sequence[str], limits: Limits = BUILD_LIMITS,
        outputs: Sequence[str] = ("a.out",),
    ) -> Built:  # fmt: skip
        """Run a compiler (argv[0]: absolute path) in a new directory with `files`, and read `outputs`.

        Names are relative paths. No network, no files except the toolchain's and its own, limits per process. Raises
        RewardError for a missing compiler or a name outside the directory.
        """
        compiler = os.path.realpath(argv[0])
        if not os.access(compiler, os.X_OK) or not compiler.startswith("/usr/"):
            raise RewardError(f"sandbox: no compiler {argv[0]!r} under /usr/")
        for name in (*files, *outputs):
            if name.startswith("/") or ".." in name.split("/") or "\0" in name or not name:
                raise RewardError(f"sandbox: {name!r} is not a path inside the build directory")
        request = {"kind": "build", "argv": [compiler, *argv[1:]], "outputs": list(outputs), **vars(limits)}
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))

        def run() -> Built:
            with self._builds.job(request, payload) as sock:
                return built(sock, limits)

        with memfd(archive.getvalue()) as payload:
            return self._builds.retry(run)

    def _build_start(self) -> Start:
        """How to start the zygote for builds; without namespaces, its scratch folder is in the temporary directory."""
        if self.level == "namespaces":
            return build_start(self.level, "/build")
        self._scratch = self._scratch or tempfile.TemporaryDirectory(prefix="build-", ignore_cleanup_errors=True)
        return build_start(self.level, self._scratch.name)

    def close(self) -> None:
        """End every process. The sandbox can be used again afterwards."""
        self._programs.close()
        self._builds.close()
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = None

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@once_per_process
def shared() -> Sandbox:
    """This process's sandbox, at the strongest level. Closed at exit.

    Raises RewardError if no level can be used, or the environment of Python programs is not built.
    """
    environment.packages()
    sandbox = Sandbox()
    atexit.register(sandbox.close)
    return sandbox


def selfcheck() -> tuple[Level, list[tuple[str, bool]]]:
    """The level, and (name, stopped) for each attack. Raises RewardError as Sandbox does."""
    with Sandbox() as sandbox:
        return sandbox.level, probe.attack(sandbox, build=True)
