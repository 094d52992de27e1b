"""What many workers and preemptions cost: measured with a step that does nothing, and simulated from there.

    PYTHONPATH=. python tests/bench/scale.py rows [ROWS …]   executors; by default 10,000, 100,000 and 1,000,000 rows;
                                                              more than that are done serially only
    PYTHONPATH=. python tests/bench/scale.py preemption [STEP_S SAVE_S RESTART_S MTBF_H STEPS]

`rows`: rows per second and overhead a shard in this process, in one and two processes and on Ray; with more workers, by
simulation: the time that the engine itself needs for a shard limits them all. `preemption`: the best `train.save_every`
for a mean time between failures, by simulation, beside Young's (1974) and Daly's (2006) formulas.
"""

from __future__ import annotations

import heapq
import json
import math
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from data_prep.core import pipeline
from launchers import envs
from tests.bench.data_steps import line, used
from tests.bench.tables import show

ROWS = (10_000, 100_000, 1_000_000)
ENGINES = (("serial", 1), ("processes", 1), ("processes", 2), ("ray", 2))
MANY = (8, 64, 512, 4096)
SHARD_S = 30.0  # that a worker needs for a shard of real work: 1,000 answers graded in a sandbox
EXAMPLE = (12.0, 90.0, 300.0, 6.0, 2000)  # a 32B SFT on 16 GPUs: step, checkpoint, restart in s; MTBF in h; steps
RUNS = 400


def rows(sizes: Sequence[int]) -> None:
    """Measure each engine on each size, and say what the engine's own time allows."""
    table, own = [], 0.0
    for size in sizes:
        with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as name:
            folder = Path(name)
            with (folder / "rows.jsonl").open("w") as file:
                file.writelines(
                    json.dumps({"id": f"r{at}", "prompt": f"What is {at} + 1?"}) + "\n" for at in range(size)
                )
            steps = [
                {"name": "load", "kind": "load", "params": {"path": "rows.jsonl"}},
                {"name": "null", "kind": "tests.bench.data_steps:Null", "inputs": ["load"]},
            ]
            document = {"name": "bench", "base": str(folder), "cache": str(folder / "steps"), "steps": steps}
            spec = pipeline.Spec.model_validate(document)
            (folder / "spec.json").write_text(spec.model_dump_json())
            run = ["-m", "data_prep", "run", str(folder / "spec.json")]
            used([sys.executable, *run, "--steps", "load"])
            for engine, workers in ENGINES if size <= max(ROWS) else ENGINES[:1]:
                python = envs.ensure("ray") if engine == "ray" else sys.executable
                words = [*run, "--workers", str(workers), "--steps", "null", "--engine", engine]
                cost = used([str(python), *words])
                manifest = pipeline.read_manifest(pipeline.find(spec, "null"))
                assert manifest is not None
                each = (cost.wall * workers - manifest.seconds) / manifest.shards
                if engine == "ray":
                    own = cost.wall / manifest.shards  # of the last and largest size, start included
                row = line(engine, str(workers), size, cost) | {"overhead ms a shard": f"{each * 1000:.1f}"}
                table.append({"rows": f"{size:,}", "engine": row.pop("step"), "workers": row.pop("by"), **row})
                shutil.rmtree(pipeline.find(spec, "null"))
    show("a null step", table)
    if not own:
        return
    busy = [{"workers": f"{count:,}", "rows/s": f"{rate(count, own) * 1000:,.0f}", "of them busy":
             f"{rate(count, own) * SHARD_S / count:.0%}"} for count in MANY]  # fmt: skip
    show(f"simulated on Ray: {SHARD_S:g} s of work a shard of 1,000 rows, {own * 1000:.1f} ms of the engine's", busy)


def rate(workers: int, own_s: float, work_s: float = SHARD_S, shards: int = 20_000, seed: int = 0) -> float:
    """Shards per second of workers that one engine hands out to: it serves one at a time, for `own_s` seconds."""
    rng = random.Random(seed)
    free, engine = [rng.random() * work_s for _ in range(workers)], 0.0
    heapq.heapify(free)
    for _ in range(shards):
        engine = max(engine, heapq.heappop(free)) + own_s
        heapq.heappush(free, engine + rng.uniform(0.5, 1.5) * work_s)
    return shards / engine


def young(save_s: float, mtbf_s: float) -> float:
    """Seconds of work between checkpoints, to first order."""
    return math.sqrt(2 * save_s * mtbf_s)


def daly(save_s: float, mtbf_s: float) -> float:
    """The same with Daly's higher-order terms (equation 37); mtbf_s where a checkpoint takes half as long as that."""
    if save_s >= 2 * mtbf_s:
        return mtbf_s
    part = save_s / (2 * mtbf_s)
    return young(save_s, mtbf_s) * (1 + math.sqrt(part) / 3 + part / 9) - save_s


def simulated(
    every: int, step_s: float, save_s: float, restart_s: float, mtbf_s: float, steps: int, seed: int
) -> float:
    """Wall seconds of one run of `steps` that failures, exponentially distributed, throw back to its checkpoint."""
    rng = random.Random(seed)
    now, done, failure = 0.0, 0, rng.expovariate(1 / mtbf_s)
    while done < steps:
        block = min(every, steps - done)
        end = now + block * step_s + save_s
        if end <= failure:
            now, done = end, done + block
            continue
        now = failure + restart_s
        failure = now + rng.expovariate(1 / mtbf_s)
    return now


def recommended(
    step_s: float, save_s: float, restart_s: float, mtbf_s: float, steps: int
) -> tuple[int, dict[int, float]]:
    """The best number of steps between checkpoints, and the mean wall seconds of each number that was tried."""
    middle = daly(save_s, mtbf_s) / step_s
    tried = sorted({min(steps, max(1, round(middle * 2 ** (power / 4)))) for power in range(-12, 13)})
    means = {
        every: fmean(simulated(every, step_s, save_s, restart_s, mtbf_s, steps, seed) for seed in range(RUNS))
        for every in tried
    }
    return min(means, key=lambda every: means[every]), means


def preemption(step_s: float, save_s: float, restart_s: float, mtbf_h: float, steps: int) -> None:
    """Print the recommendation, beside the formulas' and what other numbers would cost."""
    mtbf_s = mtbf_h * 3600
    best, means = recommended(step_s, save_s, restart_s, mtbf_s, steps)
    table = [
        {"train.save_every": f"{every}{' (best)' if every == best else ''}", "wall h": f"{seconds / 3600:.2f}",
         "over undisturbed": f"{seconds / (steps * step_s) - 1:.1%}"}
        for every, seconds in means.items()
    ]  # fmt: skip
    show(
        f"{steps} steps of {step_s:g} s, checkpoints of {save_s:g} s, restarts of {restart_s:g} s, MTBF {mtbf_h:g} h",
        table,
    )
    print(
        f"train.save_every={best}; Young {young(save_s, mtbf_s) / step_s:.0f}, Daly {daly(save_s, mtbf_s) / step_s:.0f}"
    )


if __name__ == "__main__":
    what, given = sys.argv[1:2], sys.argv[2:]
    if what in ([], ["rows"]):
        rows([int(one) for one in given] or ROWS)
    if what in ([], ["preemption"]):
        step, save, restart, mtbf, count = [*map(float, given), *EXAMPLE[len(given) :]]
        preemption(step, save, restart, mtbf, int(count))
