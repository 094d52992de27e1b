"""`python -m rewards selfcheck`: is this machine's isolation sound, and do reference answers grade as correct?

python -m rewards selfcheck                                    # isolation level, a small set of attacks
python -m rewards selfcheck --input rows.jsonl --reward math   # every reference answer of a file against itself
"""

from __future__ import annotations

import shutil
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from rewards import sandbox
from rewards.base import Reward
from rewards.registry import load
from rewards.scorer import check_columns, read_lines

CALL: dict[str, Any] = {"kind": "call", "function": "f", "cases": [{"args": [1], "expected": 2}]}
# Of each kind: the reward, the row, and the completion that holds a program or answer.
KINDS: dict[str, tuple[str, dict[str, Any], str]] = {
    "python": ("code", {"tests": CALL}, "```python\n%s\n```"),
    "cpp": ("code", {"tests": {**CALL, "language": "cpp", "declaration": "int f(int x);"}}, "```cpp\n%s\n```"),
    "math": ("math", {"answer": "x^2+1"}, r"\boxed{%s}"),
}


def machine() -> tuple[list[str], bool]:
    """(report, whether all is well) of the sandbox, the code reward and the math workers."""
    level, tried = sandbox.selfcheck()
    kinds = [kind for kind in KINDS if kind != "cpp" or shutil.which("g++")]
    programs = tomllib.loads(Path(__file__).with_name("attacks.toml").read_text("utf-8"))
    attacks = list(tried)
    with tempfile.TemporaryDirectory() as folder:
        canary = Path(folder) / "canary"
        for attacked in kinds:
            for name, text in programs[attacked].items():
                stopped = _score(attacked, text.replace("CANARY", str(canary))) <= 0 and not canary.exists()
                attacks.append((f"{attacked}: {name}", stopped))
    lines = [f"isolation level: {level}"]
    if not tried:
        lines.append("SUCCEEDED: the attacks ended the process that runs them")
    lines += [f"SUCCEEDED: {name}" for name, stopped in attacks if not stopped]
    failed = [f"FAILED: a correct completion ({kind})" for kind in kinds if _score(kind, programs["honest"][kind]) != 1]
    held = sum(stopped for _, stopped in attacks)
    lines += [*failed, f"{held} of {len(attacks)} attacks stopped"]
    return lines, bool(tried) and held == len(attacks) and not failed


def _score(kind: str, text: str) -> float:
    reward, row, completion = KINDS[kind]
    return load(reward).score(row, completion % text).value


def references(reward: Reward, path: Path) -> tuple[list[str], bool]:
    """(report, whether all is well): every row's reference answer graded. Raises RewardError, OSError."""
    check_columns(reward, path)
    problems = {line.number: line.problem or reward.gold_problem(line.row) for line in read_lines(path)}
    lines = [f"{path}:{number}: {problem}" for number, problem in problems.items() if problem]
    correct, wrong = len(problems) - len(lines), len(lines)
    lines.append(f"{correct} of {len(problems)} reference answers grade as correct")
    return lines, correct > 0 and not wrong
