"""Hostile solutions of skill-mix questions in one batch with honest ones, through the step that scores them.

What each trick does inside of the sandbox stands in the other files here; this shows that a batch holds: every row is
there, none has more than it earned, honest rows beside it have all that they earned, and it ends in time.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from data_prep.core import pipeline

RIGHT = "int twice(int x) { return x + x; }"
WRONG = "int twice(int x) { return 77; }"
THIRD = "int twice(int x) { return 2; }"
CALL = {"kind": "call", "function": "twice", "cases": [{"args": [n], "expected": 2 * n} for n in (1, 5, -4)]}
CPP_CALL = {**CALL, "language": "cpp", "declaration": "int twice(int x);"}
SOURCE = {
    "kind": "gtest",
    "source": '#include <gtest/gtest.h>\n#include "../solution/solution.cpp"\n'
    "TEST(Twice, One) { EXPECT_EQ(twice(1), 2); }\n"
    "TEST(Twice, Many) { for (int i = 5; i < 9; i++) ASSERT_EQ(twice(i), i + i); }\n"
    'TEST(Twice, Minus) { EXPECT_EQ(twice(-4), -8) << "of -4"; }\n',
}
PYTHON = "def twice(x):\n    return x + x"


def cpp(code: str) -> str:
    return f"```cpp\n{code}\n```"


def python(code: str) -> str:
    return f"```python\n{code}\n```"


@dataclass(frozen=True)
class Candidate:
    """earned: the share of tests that its code passes by answering."""

    name: str
    completion: str
    earned: float = 0.0
    outcome: str = "scored"
    tests: str = "cpp"


HONEST = [
    Candidate("right", cpp(RIGHT), 1.0),
    Candidate("a third right", cpp(THIRD), 1 / 3),
    Candidate("wrong", cpp(WRONG)),
    Candidate("right in Python", python(PYTHON), 1.0, tests="call"),
]
HOSTILE = [
    Candidate("no fence", RIGHT, outcome="no_answer"),
    Candidate("two fences, wrong last", f"{cpp(RIGHT)}\nor rather\n{cpp(WRONG)}"),
    Candidate("two fences, right last", f"{cpp('int part();')}\nin all\n{cpp(RIGHT)}", 1.0),
    Candidate("a fence of another language last", f"{cpp(RIGHT)}\nprints\n```text\n77\n```", 1.0),
    Candidate("right in the thought only", f"<think>{cpp(RIGHT)}</think>\n{cpp(WRONG)}"),
    Candidate("endless text", f"```cpp\n{WRONG}\n" + "int f();\n" * 100_000),
    Candidate("endless output", cpp('#include <cstdio>\nint twice(int) { for (;;) puts("[  PASSED  ] 3 tests."); }')),
    Candidate("endless loop", cpp("int twice(int) { for (volatile int i = 0;; i++); }")),
    Candidate("includes the tests", cpp(f'#include "../tests/test.cpp"\n{WRONG}')),
    Candidate("includes itself by the original's path", cpp(f'#include "../solution/solution.cpp"\n{WRONG}')),
    Candidate("includes itself", cpp(f"#include __FILE__\n{WRONG}")),
    Candidate("includes the machine", cpp(f'#include "/proc/self/environ"\n#include "/dev/zero"\n{WRONG}')),
    Candidate("a static initialiser exits", cpp(f"#include <cstdlib>\nint a = (exit(0), 1);\n{WRONG}")),
    Candidate("an early constructor exits",
              cpp(f"#include <unistd.h>\n__attribute__((constructor(101))) void f() {{ _exit(0); }}\n{WRONG}")),
    Candidate("exits in the function", cpp("#include <unistd.h>\nint twice(int) { _exit(0); }")),
    Candidate("pragma redefines names", cpp(f"#pragma redefine_extname twice main\n{WRONG}")),
    Candidate("pragma poisons the tests", cpp(f"{WRONG}\n#pragma GCC poison EXPECT_EQ ASSERT_EQ TEST")),
    Candidate("pragma weak", cpp(f"#pragma weak graded_entry = twice\n{WRONG}")),
    Candidate("pragma names a file", cpp(f'#pragma GCC optimize("O3")\n#pragma GCC dependency "/etc/passwd"\n{WRONG}')),
    Candidate("assembler jumps out", cpp('int twice(int) { __asm__("leave\\nret"); return 0; }')),
    Candidate("assembler exits",
              cpp('int twice(int) { __asm__("mov $231, %eax\\nxor %edi, %edi\\nsyscall"); return 0; }')),
    Candidate("assembler defines main",
              cpp(f'__asm__(".globl main\\nmain: ret\\n.globl graded_entry\\ngraded_entry: ret");\n{WRONG}')),
    Candidate("assembler takes the tests in", cpp(f'__asm__(".incbin \\"tests/test.cpp\\"");\n{WRONG}')),
    Candidate("macros of the tests",
              cpp(f"#define EXPECT_EQ(a, b) SUCCEED()\n#define ASSERT_EQ(a, b) SUCCEED()\n{WRONG}")),
    Candidate("a main of its own", cpp(f"{WRONG}\nint main() {{ return 0; }}")),
    Candidate("template bomb", cpp(
        "template <int N, int M> struct A { static const long v = A<N - 1, M>::v + A<N - 1, M + 1>::v; };\n"
        "template <int M> struct A<0, M> { static const long v = M; };\n"
        f"long all = A<900, 0>::v;\n{WRONG}")),
    Candidate("constexpr bomb", cpp(
        "constexpr long f(long n) { long s = 0; for (long i = 0; i < n; i++) for (long j = 0; j < n; j++) s += i ^ j;"
        f" return s; }}\nconstexpr long all = f(100000);\n{WRONG}")),
    Candidate("macro bomb", cpp(
        "#define A B B B B B B B B\n#define B C C C C C C C C\n#define C D D D D D D D D\n#define D E E E E E E E E\n"
        f"#define E F F F F F F F F\n#define F G G G G G G G G\n#define G \"0123456789\"\n"
        f"const char* all = A A A A;\n{WRONG}")),
    Candidate("object bomb", cpp(f"char all[1L << 32] = {{1}};\n{WRONG}")),
    Candidate("writes the report", cpp(
        "#include <cstdio>\n#include <cstdlib>\n#include <string>\nint twice(int) {\n"
        '  for (std::string name : {"test_detail.xml", "report.xml", "../tests/test_detail.xml"})\n'
        '    if (FILE* f = fopen(name.c_str(), "w")) {\n'
        '      fputs("<testsuites tests=\\"3\\" failures=\\"0\\" disabled=\\"0\\" errors=\\"0\\"/>", f); fclose(f); }\n'
        "  exit(0);\n}")),
    Candidate("writes to every descriptor", cpp(
        "#include <unistd.h>\nint twice(int) { for (int fd = 0; fd < 64; fd++) write(fd, \"P\", 1); _exit(0); }")),
    Candidate("fork bomb", cpp("#include <unistd.h>\nint twice(int) { for (;;) fork(); }")),
    Candidate("thread bomb", cpp(
        "#include <thread>\nint twice(int) { for (;;) std::thread([] { for (;;); }).detach(); }")),
    Candidate("kills its parent", cpp(
        "#include <signal.h>\n#include <unistd.h>\nint twice(int) { kill(getppid(), 9); kill(-1, 9); return 0; }")),
    Candidate("no text", cpp("\0\ud800".encode("utf-8", "replace").decode() + WRONG + "\0")),
    Candidate("exits, in Python", python("import os\ndef twice(x): os._exit(0)"), tests="call"),
    Candidate("fork bomb, in Python", python("import os\ndef twice(x):\n  while True: os.fork()"), tests="call"),
    Candidate("endless output, in Python", python("def twice(x):\n  while True: print('x' * 9999)"), tests="call"),
    Candidate("equal to all, in Python", python(
        "class All:\n  def __eq__(self, other): return True\ndef twice(x): return All()"), tests="call"),
    Candidate("no language", RIGHT.join(["```", "```"]), outcome="no_answer"),
]  # fmt: skip


def honest(number: int) -> Candidate:
    """One of them, unlike all others, so that it is really run."""
    one = HONEST[number % len(HONEST)]
    mark = f"# {number}" if one.tests == "call" else f"// {number}"
    return replace(one, completion=one.completion[:-3] + f"{mark}\n```")


@pytest.mark.parametrize("source", [False, pytest.param(True, marks=pytest.mark.full)])
def test_a_batch_of_candidates_gets_what_each_has_earned(tmp_path: Path, source: bool) -> None:
    tests = {"cpp": SOURCE if source else CPP_CALL, "call": CALL}
    batch = []
    for number, one in enumerate(HOSTILE):
        batch += [one, honest(number // 2)] if number % 2 else [one]
    rows = [
        {"id": f"{number}", "prompt": "Twice.", "completion": one.completion, "tests": tests[one.tests]}
        for number, one in enumerate(batch)
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    limits = {"cpu_s": 0.5, "output_kb": 256, "compile_cpu_s": 5 if source else 3, "most_timeouts": 1}
    steps = [
        {"name": "load", "kind": "load", "params": {"path": "in.jsonl"}},
        {
            "name": "score", "kind": "score", "inputs": ["load"],
            "params": {"reward": "code", "params": limits, "workers": 2, "cache": True, "max_error_share": 0},
        },
    ]  # fmt: skip
    spec = pipeline.Spec.model_validate(
        {"name": "candidates", "base": str(tmp_path), "cache": str(tmp_path / "cache"), "steps": steps}
    )
    manifest = pipeline.run(spec)[-1]
    found = list(pipeline.read_rows(pipeline.find(spec)))
    assert (manifest.drops, [row["id"] for row in found]) == ({}, [row["id"] for row in rows])
    wrong = [
        (one.name, got["score"], got["outcome"], got["meta"].get("score_details") if "meta" in got else None)
        for one, got in zip(batch, found, strict=True)
        if (got["score"], got["outcome"]) != (pytest.approx(one.earned), one.outcome)
    ]
    assert wrong == []
