"""What the two chat families do to whole pools: choosing and saving, preparing prompts, and a served reward model.

    $(python3 -m launchers.envs core) -m tests.bench.chat [wildchat-if_train.parquet]

Each is timed beside what the original does, or does without what is claimed, in the same run.
"""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from launchers import envs
from tests.bench.tables import cpu_now, show
from tests.bench.texts import groups

POOL, CHOSEN = 50_000, 5_000
ANSWERS = 512
REPO = Path(__file__).parents[2]


def apart(function: str, *words: str) -> dict[str, float]:
    """CPU seconds and memory of a function of this file in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.chat", function, *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPO,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def told(work: Callable[[], object]) -> None:
    """Print what a call costs. The floor is what the process has used before it."""
    began, clock = cpu_now(), time.monotonic()
    work()
    memory = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024
    print(json.dumps({"cpu": cpu_now() - began, "wall": time.monotonic() - clock, "mb": memory}))


def write_pool(path: Path) -> None:
    """Scored rows with one reference each."""
    made, draw = groups(200, 1, completions=10), random.Random(0)
    texts = [text for group in made for text in (*group.references, *group.completions)]
    with path.open("w") as file:
        for at in range(POOL):
            row = {
                "id": f"q{at}/0", "prompt": [{"role": "user", "content": f"Question {at}: {draw.choice(texts)[:300]}"}],
                "completion": draw.choice(texts), "references": [draw.choice(texts)], "answer": draw.choice(texts),
                "source": "ab"[at % 2], "score": draw.random(), "outcome": "scored",
                "meta": {"prompt_id": f"q{at}", "finish_reason": "stop"},
            }  # fmt: skip
            file.write(json.dumps(row) + "\n")


def choose(pool: str, folder: str, guarded: str) -> None:
    """Ours: the step, and the folder for `load_from_disk`."""
    from data_prep.core import pipeline
    from data_prep.families.bleuberi import build

    out = Path(folder)
    steps = [
        {"name": "load", "kind": "load", "params": {"path": pool}},
        {"name": "choose", "kind": "choose_by_likeness", "params": {"n": CHOSEN, "guarded": guarded == "guarded"},
         "inputs": ["load"]},
    ]  # fmt: skip
    spec = pipeline.Spec.model_validate({"name": "x", "base": folder, "cache": str(out / "steps"), "steps": steps})
    pipeline.run(spec, ["load"])

    def records() -> Any:
        for row in pipeline.read_rows(pipeline.find(spec)):
            yield {"id": row["id"], "source": row["source"], "prompt": row["prompt"][-1]["content"],
                   "references": row["references"], "bleu_score": row["meta"]["likeness"]}  # fmt: skip

    def work() -> None:
        pipeline.run(spec, ["choose"])
        build.save(out / "saved", records, lambda _: "card", guarded)

    told(work)


def choose_in_memory(pool: str, folder: str, _: str) -> None:
    """The original's way: all rows in a list, sorted, `Dataset.from_list`."""
    from datasets import Dataset, DatasetDict

    rows = [json.loads(line) for line in Path(pool).read_text().splitlines()]

    def work() -> None:
        chosen = sorted(rows, key=lambda row: row["score"])[:CHOSEN]
        kept = [
            {"id": row["id"], "source": row["source"], "prompt": row["prompt"][-1]["content"],
             "references": row["references"], "bleu_score": row["score"]}
            for row in sorted(chosen, key=lambda row: row["score"], reverse=True)
        ]  # fmt: skip
        DatasetDict({"train": Dataset.from_list(kept)}).save_to_disk(str(Path(folder) / "plain"))

    told(work)


def prepare(prompts: str, folder: str, _: str) -> None:
    """Ours: the command, then the filters of `chat_prompts` on what it wrote."""
    from data_prep.core import pipeline
    from data_prep.families.long_cot.__main__ import main as command

    def work() -> None:
        assert (
            command(["prepare", "--input_json", prompts, "--local_dir", folder, "--num_validation_examples", "250"])
            == 0
        )
        steps = [
            {"name": "load", "kind": "load", "params": {"path": f"{folder}/wildchat_train.parquet"}},
            {"name": "filter", "kind": "chat_prompts", "params": {}, "inputs": ["load"]},
        ]
        made = {"name": "x", "base": folder, "cache": f"{folder}/steps", "steps": steps}
        pipeline.run(pipeline.Spec.model_validate(made))

    told(work)


def prepare_by_datasets(prompts: str, folder: str, _: str) -> None:
    """The original's way, `datasets.map` and `to_parquet`, with the same language filter in `datasets.filter`."""
    from datasets import Dataset

    from data_prep.families.long_cot.prompts import language

    def row(entry: dict[str, Any], at: int) -> dict[str, Any]:
        chat = [{"role": "user", "content": entry["instruction"]}]
        reward = {"style": "model", "ground_truth": ""}
        about = {"split": "train", "index": at}
        return {
            "data_source": "wildchat",
            "prompt": chat,
            "ability": "chat",
            "reward_model": reward,
            "extra_info": about,
        }

    def work() -> None:
        data = Dataset.from_list(json.loads(Path(prompts).read_text())).shuffle(seed=42)
        data = data.map(row, with_indices=True, remove_columns=data.column_names)
        data.filter(lambda one: language(one["prompt"][0]["content"]) == "en").to_parquet(f"{folder}/plain.parquet")

    told(work)


def reward_model(folder: Path) -> None:
    """Answers of the mini world's reward model behind vLLM: one by one, and side by side, the longest first."""
    import rewards
    from data_prep.inference.vllm.server import serve
    from data_prep.inference.vllm.settings import EngineOptions

    draw = random.Random(1)
    texts = [text for group in groups(8, 1, completions=64) for text in group.completions]
    answers = [text[: int(len(text) * draw.random() ** 2 / 6) + 4] for text in texts]  # many short, few long
    rows = [{"prompt": [{"role": "user", "content": f"{at}+{at}=?"}]} for at in range(len(answers))]
    model = REPO / "recipes" / "mini" / "reward_model"
    costs: dict[int, list[tuple[float, float]]] = {1: [], 32: [], 128: []}  # CPU and wall seconds by requests at once
    values: dict[int, list[float]] = {}
    with serve(
        str(model), python=envs.ensure("vllm"), options=EngineOptions(dtype="float32"), log=folder / "log"
    ) as endpoint:
        for _ in range(4):
            for at_once, taken in costs.items():
                reward = rewards.load("model", url=endpoint.base_url, thinking="none", concurrency=at_once)
                began, used = time.monotonic(), family_cpu(endpoint.servers[0].process.pid) + cpu_now()
                values[at_once] = [score.value for score in reward.score_many(rows, answers)]
                cpu = family_cpu(endpoint.servers[0].process.pid) + cpu_now() - used
                taken.append((cpu, time.monotonic() - began))
    best = {at_once: (min(c for c, _ in taken[1:]), min(w for _, w in taken[1:])) for at_once, taken in costs.items()}
    differ = max(abs(a - b) for a, b in zip(values[1], values[32], strict=True))
    shown = [
        {"requests at once": at_once, "answers per CPU second": f"{len(rows) / cpu:.0f}",
         "× one by one": f"{best[1][0] / cpu:.1f}", "answers/s": f"{len(rows) / wall:.0f}",
         "× one by one ": f"{best[1][1] / wall:.1f}"}
        for at_once, (cpu, wall) in best.items()
    ]  # fmt: skip
    longest = max(map(len, answers))
    show(
        f"{len(rows)} answers of up to {longest} characters, mini reward model on a CPU; values differ by {differ:.1g}",
        shown,
    )


def family_cpu(pid: int) -> float:
    """CPU seconds of a process that runs, and of its descendants (client and server share the machine)."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    pairs = [tuple(map(int, line.split())) for line in listed.splitlines()]
    family, size = {pid}, 0
    while len(family) > size:
        size = len(family)
        family |= {child for child, parent in pairs if parent in family}
    ticks = 0
    for one in family:
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def beside(title: str, contenders: dict[str, tuple[str, ...]]) -> None:
    """A table of functions that each run in a process of their own."""
    found = {name: apart(*words) for name, words in contenders.items()}
    rows = [
        {
            "what": name,
            "CPU seconds": f"{one['cpu']:.1f}",
            "wall seconds": f"{one['wall']:.1f}",
            "MB at most": f"{one['mb']:.0f}",
        }
        for name, one in found.items()
    ]
    show(title, rows)


def main(argv: list[str]) -> None:
    """Print the tables."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pool = folder / "pool.jsonl"
        write_pool(pool)
        beside(
            f"Choosing {CHOSEN:,} of {POOL:,} scored rows and saving them",
            {
                "hard, as the original chooses": ("choose", str(pool), _made(folder / "a"), "plain"),
                "hard, guarded": ("choose", str(pool), _made(folder / "b"), "guarded"),
                "the original's way, in memory": ("choose_in_memory", str(pool), _made(folder / "c"), ""),
            },
        )
        if argv:
            import pyarrow.parquet as pq

            entries = [{"instruction": row["prompt"][0]["content"]} for row in pq.read_table(argv[0]).to_pylist()]
            prompts = folder / "prompts.json"
            prompts.write_text(json.dumps(entries))
            beside(
                f"Preparing {len(entries):,} prompts of WildChat, language filter included",
                {
                    "prepare and chat_prompts": ("prepare", str(prompts), _made(folder / "d"), ""),
                    "datasets.map and filter": ("prepare_by_datasets", str(prompts), _made(folder / "e"), ""),
                },
            )
        reward_model(folder)


def _made(folder: Path) -> str:
    folder.mkdir()
    return str(folder)


if __name__ == "__main__":
    alone = {one.__name__: one for one in (choose, choose_in_memory, prepare, prepare_by_datasets)}  # in a process each
    if sys.argv[1:2] and sys.argv[1] in alone:
        alone[sys.argv[1]](*sys.argv[2:])
    else:
        main(sys.argv[1:])
