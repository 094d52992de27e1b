"""What the graders of programs give: a verdict per test, and the whole."""

from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal[
    "passed",
    "failed",  # it ran to its end, and the output or result is another
    "runtime_error",  # an exception, a signal, an exit code other than 0, or no result
    "timeout",
    "memory",
    "output_limit",
    "not_run",  # an earlier test failed and one failure decides
]

# How runs of the sandbox end, as verdicts.
ENDINGS: dict[str, Verdict] = {
    "exit": "runtime_error", "signal": "runtime_error", "timeout": "timeout", "memory": "memory",
    "output_limit": "output_limit",
}  # fmt: skip


@dataclass(frozen=True)
class Tested:
    """One test of one program. cpu_s: of its process; 0 where it has none of its own. name: if it has one."""

    status: Verdict
    cpu_s: float = 0.0
    message: str = ""
    name: str = ""

    def as_json(self) -> dict[str, Any]:
        shown: dict[str, Any] = {"status": self.status, "cpu_s": round(self.cpu_s, 4)}
        if self.name:
            shown = {"name": self.name[:100], **shown}
        if self.message:
            shown["message"] = self.message[:200]
        return shown


@dataclass(frozen=True)
class Graded:
    """One program against all its tests, in their order.

    compile_error: the compiler's words; then there are no tests. compile_status: how the compiler ended where it was
    not by itself: timeout, memory or output_limit.
    """

    tests: list[Tested] = field(default_factory=list)
    compile_error: str | None = None
    compile_status: str = ""
    compile_cpu_s: float = 0.0
    run_cpu_s: float = 0.0
