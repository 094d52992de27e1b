"""Where an online RL run on this CPU spends its time: until its first step, in a step, in our reward.

    make bench/verl            (that is: PYTHONPATH=. $(make -s python) tests/bench/verl_step.py)

min_o1/grpo at mini scale as its user starts it; then the same config in verl's v1 trainer, started as verl's own
command does it; then 64 × 8 completions a step, for the reward. Steps are counted after the second, as medians.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from data_prep.core.guard import descendants
from launchers import envs
from launchers.run.supervise import Guarded
from rewards.serving.verl import compute_score_async
from tests.bench.tables import cpu_now, show
from tests.conftest import REPO

RECIPE, PROMPTS, SAMPLES = "min_o1/grpo", 64, 8
SMALL = {"train.steps": 7, "validation.limit": 100}
LARGE = {
    "rollout.prompts": PROMPTS, "rollout.samples": SAMPLES, "train.global_batch": PROMPTS * SAMPLES, "train.steps": 4,
    "eval": "null", "validation": "null",
}  # fmt: skip
LIMIT = 0.01  # our reward's share of a step
# What has been done once the output says this. The last two are said by both trainers.
MARKS = {
    "imports and check": r"ray init kwargs",
    "Ray": r"Started a local Ray instance",
    "data and workers": r"test_gen_batch meta info",
    "validation": r"step:0 - ",
    "first step": r"step:1 - ",
}
PARTS = {
    "rollout, with the reward inside": ("gen", "reward"),
    "reference log-probabilities": ("ref", "old_log_prob"),
    "advantages": ("adv",),
    "update": ("update_actor",),
    "weights to the rollout": ("update_weights",),
}
V1_NEEDS = "TransferQueue==0.1.11"  # which the environment verl does without
COMPOSE_V1 = """
import sys
from pathlib import Path
from launchers.plugins.verl import check
from omegaconf import OmegaConf
config = check.compose(Path(sys.argv[1]))
config.trainer.use_v1 = True
config.trainer.default_local_dir = f"{sys.argv[2]}/c"
OmegaConf.save(config, f"{sys.argv[2]}/whole.yaml")
"""


@dataclass
class Run:
    """A training that has ended: seconds and CPU seconds until each of MARKS, most memory, metrics by step.

    step_cpu: the CPU seconds that the whole family has used when a step is done.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)
    step_cpu: dict[int, float] = field(default_factory=dict)
    peak_gb: float = 0.0
    steps: dict[int, dict[str, Any]] = field(default_factory=dict)

    def median(self, *names: str) -> float:
        """Seconds that a step spends in these of verl's timers."""
        counted = [metrics for step, metrics in self.steps.items() if step > 2]
        return statistics.median(sum(metrics.get(f"timing_s/{name}", 0.0) for name in names) for metrics in counted)


def rendered(folder: Path, settings: Mapping[str, object]) -> Path:
    """The run directory of the recipe with these settings, its data made."""
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    launch = [sys.executable, "-m", "launchers", "render", RECIPE, "--scale", "mini", *words, "--out", str(folder)]
    done = subprocess.run(launch, check=True, stdout=subprocess.PIPE, text=True, cwd=REPO)
    run = Path(done.stdout.strip())
    subprocess.run(["bash", str(run / "local.sh"), "data"], check=True, stdout=subprocess.DEVNULL)
    return run


def environment(run: Path) -> dict[str, str]:
    """What local.sh gives a training."""
    script = (run / "local.sh").read_text()
    (training,) = re.findall(r"^.*launchers\.plugins\.verl\.train.*$", script, re.M)
    exported = re.findall(r"^export (\w+)=(?:'(.*)'|(.*))$", script, re.M)
    return {
        **os.environ,
        **{name: quoted or plain for name, quoted, plain in exported},
        **dict(re.findall(r" ([A-Za-z_]+)=(\S+)", training)),
        "PYTHONUNBUFFERED": "1",
    }


def ours(run: Path, python: Path) -> Run:
    """The rendered training, by the command of its script."""
    argv = [str(python), "-m", "launchers.plugins.verl.train", str(run / "train")]
    return watched(argv, environment(run), run / "train" / "metrics")


def v1(run: Path, python: Path) -> Run:
    """The same config but for `trainer.use_v1`, by verl's own command."""
    folder, environ = run / "v1", environment(run)
    del environ["CUDA_VISIBLE_DEVICES"]  # an empty list contradicts the GPUs that Ray only counts
    (folder / "metrics").mkdir(parents=True)
    package = [
        "python3",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(folder / "packages"),
        V1_NEEDS,
    ]
    subprocess.run(package, check=True)
    environ["PYTHONPATH"] += f":{folder}/packages"
    compose = [str(python), "-c", COMPOSE_V1, str(run / "train"), str(folder)]
    subprocess.run(compose, check=True, env=environ, cwd=REPO, capture_output=True)
    words = ["--config-path", str(folder), "--config-name", "whole", f"hydra.run.dir={folder}/hydra"]
    environ["VERL_FILE_LOGGER_PATH"] = str(folder / "metrics" / "only.jsonl")
    return watched([str(python), "-m", "verl.trainer.main_ppo", *words], environ, folder / "metrics")


def watched(argv: Sequence[str], environ: dict[str, str], metrics: Path) -> Run:
    """Run a training to its end. Raises RuntimeError with the last of its output if it fails."""
    run, said, over = Run(), list[str](), threading.Event()
    began = time.monotonic()
    guarded = Guarded(argv, environ)

    def watch() -> None:
        while not over.wait(1.0):
            run.peak_gb = max(run.peak_gb, sum(map(_memory_gb, descendants(guarded.process.pid))))

    watcher = threading.Thread(target=watch)
    watcher.start()
    assert guarded.process.stdout is not None
    for line in guarded.process.stdout:
        said.append(line.decode(errors="replace"))
        for name in (name for name, mark in MARKS.items() if name not in run.seconds and re.search(mark, said[-1])):
            run.seconds[name] = time.monotonic() - began
            run.cpu[name] = sum(map(_cpu_s, descendants(guarded.process.pid)))
        if done := re.search(r"step:(\d+) - ", said[-1]):
            run.step_cpu[int(done[1])] = sum(map(_cpu_s, descendants(guarded.process.pid)))
    status = guarded.process.wait()
    over.set()
    watcher.join()
    if status:
        raise RuntimeError(f"exit {status} of {' '.join(argv)}\n{''.join(said)[-6000:]}")
    for line in (line for path in metrics.glob("*.jsonl") for line in path.read_text().splitlines()):
        run.steps[json.loads(line)["step"]] = json.loads(line)["data"]
    return run


def _memory_gb(process: int) -> float:
    """Proportional set size: a page that several share counts once over all of them."""
    try:
        rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
    except OSError:
        return 0.0  # it has ended
    return sum(int(kb) for kb in re.findall(r"^Pss:\s+(\d+)", rollup, re.M)) / 1024**2


def _cpu_s(process: int) -> float:
    """Of the process, and of those of its children that it has waited for."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def reward_seconds(run: Path, steps: Sequence[int]) -> list[tuple[float, float]]:
    """Wall and CPU seconds of these steps; the one before them is scored first, uncounted, as in the run."""
    return [_reward_seconds(run, step) for step in (steps[0] - 1, *steps)][1:]


def _reward_seconds(run: Path, step: int) -> tuple[float, float]:
    """For a step's completions, scored again by the function and settings that scored them.

    Raises RuntimeError where a score is not the recorded one: then it is not the same work.
    """
    folder = run / "train"
    samples = [json.loads(line) for line in (folder / "samples" / f"{step}.jsonl").read_text().splitlines()]
    (file,) = re.findall(r'train_files: "?([^"\n]+)', (folder / "verl.yaml").read_text())
    rows = {row["extra_info"]["id"]: row for row in pq.read_table(file).to_pylist()}

    async def score_all() -> list[dict[str, Any]]:
        return await asyncio.gather(*(score(rows[sample["id"]], sample["output"]) for sample in samples))

    async def score(row: dict[str, Any], text: str) -> dict[str, Any]:
        gold, config = row["reward_model"]["ground_truth"], str(folder / "reward.json")
        return await compute_score_async(row["data_source"], text, gold, row["extra_info"], config=config)

    wall, cpu = time.monotonic(), cpu_now()
    scores = asyncio.run(score_all())
    wall, cpu = time.monotonic() - wall, cpu_now() - cpu
    if [told["score"] for told in scores] != [sample["score"] for sample in samples]:
        raise RuntimeError(f"the scores of step {step} are not those of the run")
    return wall, cpu


def start_table(runs: Mapping[str, Run]) -> list[dict[str, str]]:
    """Seconds for each stage of the start; a stage that a trainer does not tell of counts with the next."""
    rows, before = [], dict.fromkeys(runs, (0.0, 0.0))
    for mark in MARKS:
        row = {"until its first step": mark}
        for name, run in runs.items():
            if mark in run.seconds:
                seconds, cpu = before[name]
                row[name] = f"{run.seconds[mark] - seconds:.1f} s ({run.cpu[mark] - cpu:.1f} CPU)"
                before[name] = (run.seconds[mark], run.cpu[mark])
            else:
                row[name] = "told with the next"
        rows.append(row)
    whole = {name: f"{seconds:.1f} s ({cpu:.1f} CPU)" for name, (seconds, cpu) in before.items()}
    peak = {name: f"{run.peak_gb:.1f} GB" for name, run in runs.items()}
    return [*rows, {"until its first step": "together", **whole}, {"until its first step": "peak memory", **peak}]


def step_table(runs: Mapping[str, Run]) -> list[dict[str, str]]:
    """Seconds and share of a step's parts."""

    def cell(run: Run, seconds: float) -> str:
        return f"{seconds:.2f} s {seconds / run.median('step'):6.1%}"

    parts = {part: {name: run.median(*timers) for name, run in runs.items()} for part, timers in PARTS.items()}
    rest = {name: run.median("step") - sum(part[name] for part in parts.values()) for name, run in runs.items()}
    rows = {**parts, "waiting and the rest": rest, "step": {name: run.median("step") for name, run in runs.items()}}
    return [
        {"in a step": row, **{name: cell(runs[name], seconds) for name, seconds in by_name.items()}}
        for row, by_name in rows.items()
    ]


def judge(run: Path, trained: Run) -> None:
    """Print our reward's share of a step. By CPU time: what else runs on the machine stretches the wall's."""
    counted = range(2, max(trained.steps) + 1)
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as fresh:  # it remembers what it has seen
        scored = [one for taken in fresh.map(reward_seconds, [run] * 5, [counted] * 5) for one in taken]
    wall, cpu = (statistics.median(column) for column in zip(*scored, strict=True))
    whole = statistics.median(trained.step_cpu[step] - trained.step_cpu[step - 1] for step in counted)
    step, verdict = trained.median("step"), "PASS" if cpu / whole < LIMIT else "over"
    print(
        f"our reward, {PROMPTS} × {SAMPLES} completions: {cpu:.3f} of a step's {whole:.1f} CPU seconds, "
        f"{cpu / whole:.2%}: {verdict} (limit {LIMIT:.0%}); {wall:.3f} of its {step:.1f} s, {wall / step:.2%}"
    )


def main() -> int:
    """Three trainings, one after the other: about six minutes on two busy cores."""
    python = envs.ensure("verl", "cpu")
    folder = Path(tempfile.mkdtemp(prefix="bench-verl-"))
    try:
        small, large = rendered(folder, SMALL), rendered(folder, LARGE)
        runs = {"as rendered": ours(small, python), "verl's v1 trainer": v1(small, python)}
        show(f"{RECIPE} at mini scale, 16 × 8, {SMALL['validation.limit']} validated", start_table(runs))
        show("medians", step_table(runs))
        polled = [
            metrics.get("timing_s/gen", 0.0)
            for step, metrics in sorted(runs["verl's v1 trainer"].steps.items())
            if step
        ]
        print(
            f"v1 looks every 2 s whether a rollout is done; its rollouts: {' '.join(f'{one:.2f}' for one in polled)} s"
        )
        judge(large, ours(large, python))
    finally:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
