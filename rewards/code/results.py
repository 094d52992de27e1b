"""Results of grading a program: a verdict per test, and the compiler's error if there is one."""

from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal[
    "passed",
    "failed",  # the program ended normally with a wrong output or result
    "runtime_error",  # an exception, a signal, an exit code other than 0, or no result
    "timeout",
    "memory",
    "output_limit",
    "not_run",  # the run stopped at an earlier test
]

# Status of a sandbox run (rewards.sandbox.Ran) -> verdict; "ok" is decided by comparison.
ENDINGS: dict[str, Verdict] = {
    "exit": "runtime_error", "signal": "runtime_error", "timeout": "timeout", "memory": "memory",
    "output_limit": "output_limit",
}  # fmt: skip


@dataclass(frozen=True)
class Tested:
    """Result of one test. cpu_s: of the test's process, 0 if it shares one. name: "" if the test has none."""

    status: Verdict
    cpu_s: float = 0.0
    message: str = ""
    name: str = ""

    def as_json(self) -> dict[str, Any]:
        """JSON object for a score's details, with name and message truncated."""
        fields: dict[str, Any] = {"status": self.status, "cpu_s": round(self.cpu_s, 4)}
        if self.name:
            fields = {"name": self.name[:100], **fields}
        if self.message:
            fields["message"] = self.message[:200]
        return fields


@dataclass(frozen=True)
class Graded:
    """One program's results for all its tests, in order.

    compile_error: the compiler's message; `tests` is empty then. compile_status: how the compiler ended, as in
    rewards.sandbox.Built; "" if it succeeded or the program is Python.
    """

    tests: list[Tested] = field(default_factory=list)
    compile_error: str | None = None
    compile_status: str = ""
    compile_cpu_s: float = 0.0
    run_cpu_s: float = 0.0
