"""Rows per second and peak memory of data steps, each beside the straightforward script, on rows of about 1 kB.

PYTHONPATH=. python tests/bench/data_steps.py [rows ...]        by default 100,000 and 1,000,000

Every contender is a process of its own that reads the same rows: ours is one step of a pipeline, with its manifest,
its reasons for each row left out and its shards on disk; the script reads all rows into a list, loops and dumps.
Peak memory is the process's largest resident set.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data_prep.core import pipeline
from data_prep.core.step import Context, Output, Params, Row, Step
from tests.bench.tables import show

SIZES = (100_000, 1_000_000)
SOURCES = ("apps", "taco", "math", "olympiads", "puzzles")
QUESTIONS = 500
READ = "import json, random, sys\nrows = [json.loads(line) for line in open(sys.argv[1])]\n"
DUMP = "open(sys.argv[2], 'w').writelines(json.dumps(row) + '\\n' for row in rows)\n"
SCRIPTS = {
    "select": "rows = [row for row in rows if row['score'] >= 1 and row['outcome'] == 'scored']\n",
    "dedup": """
seen, kept = set(), []
for row in rows:
    text = row["prompt"][0]["content"]
    if text not in seen:
        seen.add(text)
        kept.append(row)
rows = kept
""",
    "dedup near": None,
    "mix": """
by = {}
for row in rows:
    by.setdefault(row["source"], []).append(row)
rows = [row for found in by.values() for row in random.sample(found, len(found) // 2)]
random.shuffle(rows)
""",
    "decontaminate": """
def grams(text, size):
    words = text.lower().split()
    return {tuple(words[at:at + size]) for at in range(len(words) - size + 1)}
known = set()
for line in open(sys.argv[3]):
    known |= grams(json.loads(line)["problem"], 13)
rows = [row for row in rows if not grams(row["prompt"][0]["content"], 13) & known]
""",
    "export": """
rows = [{"conversations": [{"from": "human", "value": row["prompt"][0]["content"]},
                           {"from": "gpt", "value": row["completion"]}]} for row in rows]
""",
}
STEPS: dict[str, tuple[str, dict[str, Any]]] = {
    "select": ("select", {"min_score": 1, "outcome": "scored"}),
    "dedup": ("dedup", {}),
    "dedup near": ("dedup", {"near": 0.8}),
    "mix": ("mix", {}),
    "decontaminate": ("decontaminate", {"against": ["math500"], "paths": {"math500": "bench.jsonl"}}),
    "export": ("export", {"style": "conversations"}),
}


class Null(Step):
    """Passes rows on."""

    kind = "null"
    passes = True
    Params = Params

    def processes(self) -> None:
        """Any number."""

    def apply(self, rows: Sequence[Row], ctx: Context) -> Output:
        return rows


class Used(NamedTuple):
    """Of one process: seconds of wall time and of CPU, and its largest resident set in MB."""

    wall: float
    cpu: float
    peak: float


def main(sizes: Sequence[int]) -> None:
    for size in sizes:
        with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
            measure(Path(folder), size)


def measure(folder: Path, size: int) -> None:
    write(folder, size)
    spec = chain(folder, size)
    (folder / "spec.json").write_text(spec.model_dump_json())
    loaded = used([sys.executable, "-m", "data_prep", "run", str(folder / "spec.json"), "--steps", "load"])
    table = [line("load", "ours", size, loaded)]
    for name, loop in SCRIPTS.items():
        step = used([sys.executable, "-m", "data_prep", "run", str(folder / "spec.json"), "--steps", name])
        table.append(line(name, "ours", size, step))
        shutil.rmtree(pipeline.find(spec, name))
        if loop is not None:
            words = [str(folder / one) for one in ("rows.jsonl", "out.jsonl", "bench.jsonl")]
            table.append(line("", "script", size, used([sys.executable, "-c", READ + loop + DUMP, *words])))
    show(f"{size:,} rows, {(folder / 'rows.jsonl').stat().st_size / size:,.0f} bytes each", table)


def line(name: str, who: str, size: int, cost: Used) -> dict[str, str]:
    return {
        "step": name, "by": who, "rows/s": f"{size / cost.wall:,.0f}", "wall s": f"{cost.wall:.1f}",
        "CPU s": f"{cost.cpu:.1f}", "peak MB": f"{cost.peak:,.0f}",
    }  # fmt: skip


def used(command: list[str]) -> Used:
    began = time.monotonic()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"status {os.waitstatus_to_exitcode(status)}: {' '.join(command)[:300]}")
    return Used(time.monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def chain(folder: Path, size: int) -> pipeline.Spec:
    half = {source: {"sources": {source: size // len(SOURCES) // 2}} for source in SOURCES}
    steps = [{"name": "load", "kind": "load", "params": {"path": "rows.jsonl"}}]
    for name, (kind, params) in STEPS.items():
        given = {"parts": half, "distinct": "nothing", "least": 0.5} if kind == "mix" else params
        steps.append({"name": name, "kind": kind, "params": given, "inputs": ["load"]})
    document = {"name": "bench", "base": str(folder), "cache": str(folder / "steps"), "steps": steps}
    return pipeline.Spec.model_validate(document)


def write(folder: Path, size: int) -> None:
    """Rows of which one in twenty repeats the one before it, and one in a hundred holds a benchmark's question."""
    rng = random.Random(1)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(20_000)]

    def text(count: int) -> str:
        return " ".join(rng.choices(words, k=count))

    questions = [text(40) for _ in range(QUESTIONS)]
    with (folder / "bench.jsonl").open("w") as file:
        file.writelines(json.dumps({"problem": one, "answer": "1"}) + "\n" for one in questions)
    pick: Callable[[], str] = lambda: text(20) + " " + rng.choice(questions)  # noqa: E731
    with (folder / "rows.jsonl").open("w") as file:
        prompt = text(50)
        for at in range(size):
            if at % 20:
                prompt = pick() if at % 100 == 50 else text(50)
            row = {
                "id": f"r{at}", "prompt": [{"role": "user", "content": prompt}], "completion": text(85),
                "source": rng.choice(SOURCES), "score": float(rng.random() < 0.6), "outcome": "scored",
            }  # fmt: skip
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main([int(one) for one in sys.argv[1:]] or SIZES)
