"""Made-up run directories for the report: realistic figures, long names, hostile text."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from data_prep.evaluation import metrics

HOSTILE = (
    "</style></pre></svg><script>document.title='owned'</script><img src=x onerror=alert(1)>\u202e\x1b[31m {{7*7}}"
)
CONTROL = "ungraded_samples_of_the_same_length_and_steps"
TASKS = ("gsm8k", "math500", "amc23", "olympiadbench")
RUN = {
    "recipe": "sft_short",
    "scale": "mini",
    "created": "2026-01-31T09:30:00+00:00",
    "status": "done",
    "git_commit": "a4c5585f0e1d2c3b4a59687786950a1b2c3d4e5f",
    "overrides": ["train.learning_rate=5e-4", "eval.n=4"],
    "versions": {"llamafactory-cpu": {"llamafactory": "0.9.5", "torch": "2.11.0+cpu", "transformers": "5.6.2"}},
}
PLAN = {
    "recipe": "sft_short",
    "family": "min_o1",
    "scale": "mini",
    "model": "recipes/mini/model",
    "trainer": "llamafactory",
    "method": "sft",
    "rows": 1058,
    "hardware": {"device": "cpu", "accelerator": "CPU", "gpus_per_node": 0, "nodes": 1, "memory_gb": 16},
    "batch": {"global": 64, "micro": 16, "accumulation": 4, "world": 1},
    "steps": {"planned": 136},
    "commands": [
        {"phase": "train", "label": "after", "line": "llamafactory-cli train train/config.yaml"},
        {"phase": "eval", "label": "after", "line": "python -m data_prep.evaluation.metrics evaluate --label after"},
    ],
}
RESOLVED = {
    "model": "recipes/mini/model",
    "trainer": "llamafactory",
    "method": "sft",
    "hardware": "cpu",
    "data": "math3k_cot",
    "eval": {"tasks": ["arithmetic"], "n": 4},
    "controls": {CONTROL: {}},
    "train": {
        "global_batch": 64,
        "micro_batch": 16,
        "learning_rate": 5e-4,
        "schedule": "cosine",
        "epochs": 8.0,
        "max_length": 512,
        "precision": "fp32",
    },
    "expect": dict(zip(TASKS, (71.6, 44.0, 30, 9.6), strict=True)),
    "reference": {
        name: dict(zip(TASKS, values, strict=True))
        for name, values in {
            "course short CoT": (71.6, 44.0, 30, 9.6),
            "course long CoT": (66.5, 40.4, 20, 11.5),
            "course GRPO": (74.1, 61.3, 50, 17.4),
            "student short CoT (batch 512, 2e-5, 6 epochs)": (70.7, 41.2, 40, 10.8),
        }.items()
    },
}


def put(path: Path, value: Any) -> None:
    """Write JSON, or JSON lines where the file is so called."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.suffix == ".jsonl"
    path.write_text("".join(json.dumps(v) + "\n" for v in value) if lines else json.dumps(value, indent=1))


def mini_run(run: Path) -> None:
    """A whole mini run: hostile completions, long names, a torn event, a training resumed after a kill."""
    facts(run)
    data(run)
    log = training_log(random.Random(1), 0.21)
    put(run / "train/trainer_log.jsonl", [*log[:80], *log[60:]])
    put(run / f"controls/{CONTROL}/train/trainer_log.jsonl", training_log(random.Random(2), 0.42))
    evaluate(run, "before", (0.97, 0.5, 0.25, 0.03, 0.01))
    evaluate(run, CONTROL, (0.98, 0.66, 0.36, 0.06, 0.01))
    evaluate(run, "after", (0.99, 0.8, 0.55, 0.12, 0.01), hostile=True)
    compare(run, "after", "before")
    compare(run, "after", CONTROL)
    phase(run, "data", "rejection_sampling", 74.2, 1480)
    phase(run, "data", CONTROL, 2.1, 210)
    phase(run, "train", "", 96.0, 1720)
    phase(run, "train", CONTROL, 94.1, 1705)
    for label in ("before", CONTROL, "after"):
        phase(run, "eval", label, 32.2, 1398)
    with (run / "events.jsonl").open("a") as file:
        file.write('{"event": "phase_st')
    for name in ("model.safetensors", "optimizer.pt"):
        path = run / f"train/checkpoint-136/{name}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(1_940_000))


def full_run(run: Path) -> None:
    """A run at full scale on four tasks, with several GPUs and without a control."""
    hardware = {
        "accelerator": "H800",
        "gpus_per_node": 4,
        "nodes": 1,
        "memory_gb": 80,
        "interconnect": "NVLink",
    }
    batch = {"global": 64, "micro": 4, "accumulation": 4, "world": 4}
    model = {"model": "Qwen/Qwen2.5-Math-1.5B", "scale": None, "hardware": hardware, "batch": batch}
    put(run / "plan.json", {**PLAN, **model})
    put(run / "run.json", {**RUN, "scale": None, "overrides": []})
    put(run / "resolved.json", {**RESOLVED, "model": model["model"], "eval": {"tasks": TASKS}, "controls": {}})
    evaluate(run, "before", (0.3, 0.2), TASKS, prompts=100, k=1)
    evaluate(run, "after", (0.7, 0.4), TASKS, prompts=100, k=1)
    compare(run, "after", "before")


def online_run(run: Path, control: bool = False, attempts: Sequence[tuple[int, int]] = ((0, 34), (31, 60))) -> None:
    """A GRPO run that learned: validated from step 0, killed after step 34 and resumed from step 30."""
    algorithm = {"loss": "clip_higher", "advantages": "group", "clip_low": 0.2, "clip_high": 0.28}
    algorithm |= {"kl": "loss", "kl_coef": 0.01, "truncated": "penalise", "truncated_penalty": -1.0}
    rl = {"trainer": "verl", "method": "grpo", "algorithm": algorithm, "expect": {}, "reference": {}}
    parts = [{"reward": "math"}, {"reward": "format", "weight": 0.2}, {"reward": "repetition", "weight": 0.0}]
    rl |= {
        "rollout": {"prompts": 16, "samples": 8, "max_response_length": 104, "engine": "transformers"},
        "reward": {"name": "combine", "params": {"parts": parts}, "acc": "math"},
        "train": {"global_batch": 64, "learning_rate": 2e-4, "schedule": "constant", "max_grad_norm": 1.0},
        "controls": {CONTROL: {}} if control else {},
    }
    put(run / "run.json", {**RUN, "recipe": "grpo", "versions": {"verl-cpu": {"verl": "0.9.1"}}})
    put(run / "plan.json", {**PLAN, "recipe": "grpo", "trainer": "verl", "method": "grpo", "steps": {"planned": 60}})
    put(run / "resolved.json", {**RESOLVED, **rl})
    tasks = ("arithmetic",) if control else TASKS
    online_log(run / "train", 0.7, tasks, attempts)
    if control:
        online_log(run / f"controls/{CONTROL}/train", 0.45, tasks, [(0, 60)])
    put(run / "train/planned.json", {"steps": 80})
    put(run / "train/stopped.json", {"step": 60, "why": f"accuracy has not risen {HOSTILE}", "best_step": 50})
    evaluate(run, "before", (0.97, 0.5, 0.25, 0.03, 0.01), prompts=100)
    evaluate(run, "after", (0.99, 0.8, 0.55, 0.12, 0.01), prompts=100, hostile=True)
    compare(run, "after", "before")
    phase(run, "train", "after", 402.0, 3720)


def online_log(folder: Path, top: float, tasks: Sequence[str], attempts: Sequence[tuple[int, int]]) -> None:
    """metrics/<attempt>.jsonl of a training whose accuracy rises from 0.3 towards `top`; (first, last) step of each."""
    for number, (first, last) in enumerate(attempts):
        rng = random.Random(f"{folder.name} {top} {number}")
        entries = [{"step": step, "data": online_step(rng, step, top, tasks)} for step in range(first, last + 1)]
        put(folder / f"metrics/20260131T{number:06}.jsonl", entries)


def online_step(rng: random.Random, step: int, top: float, tasks: Sequence[str]) -> dict[str, float]:
    """What verl and our plugin log in a step; 0 is the validation before training."""

    def near(value: float, spread: float = 0.1) -> float:
        return value * (1 + rng.gauss(0, spread))

    done = 1 - math.exp(-step / 25)
    right = 0.3 + (top - 0.3) * done
    data = {
        f"val-core/{task}/acc/mean@4": near((right if step else 0.3) * (1 - i / 8), 0.02)
        for i, task in enumerate(tasks)
        if step % 10 == 0
    }
    if not step:
        return data
    cut, badly = near(0.03 * (1 - done)), near(0.08 * (1 - done))
    data |= {"timing_s/testing": near(1.4)} if data else {}
    data |= {"timing_s/save_checkpoint": near(0.05)} if step % 20 == 0 else {}
    timing = {"gen": near(2.0), "reward": 2e-5, "old_log_prob": near(0.3), "ref": near(0.6), "update_actor": near(2.1)}
    timing |= {"update_weights": near(0.03), "agent_loop/compute_score/mean": near(0.02)}
    return data | {f"timing_s/{name}": seconds for name, seconds in timing.items()} | {
        "timing_s/step": sum(timing.values()) + 0.1, "timing_s/agent_loop/generate_sequences/max": near(2.0),
        "perf/throughput": near(2000.0), "training/global_step": step,
        "critic/score/mean": near(right) - cut, "critic/rewards/mean": near(right) - cut, "accuracy/train": near(right),
        "reward/part/math": near(right), "reward/part/format": near(0.9 + 0.08 * done, 0.01),
        "reward/part/repetition": -near(0.05 * (1 - done)),
        "actor/kl_loss": near(0.02 * done), "actor/entropy": near(0.06 - 0.03 * done), "actor/grad_norm": near(0.3),
        "actor/pg_clipfrac": near(0.002 * done), "actor/lr": 2e-4, "groups/zero_variance": near(0.2 + 0.3 * done),
        "response_length/mean": near(62 - 5 * done, 0.06), "response_length/right": near(50, 0.05),
        "response_length/wrong": near(70, 0.05), "outcome/at_limit": cut, "outcome/truncated": cut,
        "outcome/no_answer": badly, "outcome/bad_format": 0.0, "outcome/scored": 1 - cut - badly,
    }  # fmt: skip


def facts(run: Path) -> None:
    """What was asked for and what it became."""
    for name, value in (("run", RUN), ("plan", PLAN), ("resolved", RESOLVED)):
        put(run / f"{name}.json", value)


def data(run: Path) -> None:
    """Manifests of rejection sampling and of its control."""
    examples = [{"row_id": "q-17/2", "detail": HOSTILE}, {"row_id": "q-18/0", "detail": "the box holds 143"}]
    below, duplicates = (
        {"score below 1": 4012, "no_answer": 198},
        {"exact duplicate": 701, "near duplicate": 31},
    )
    manifest(run, "rejection_sampling", 0, "questions", "curriculum", 0, 1500)
    manifest(run, "rejection_sampling", 1, "samples", "generate", 1500, 6000)
    manifest(run, "rejection_sampling", 2, "score", "score", 6000, 6000)
    manifest(run, "rejection_sampling", 3, "right", "select", 6000, 1790, below, {"score below 1": examples})
    manifest(run, "rejection_sampling", 4, "distinct", "dedup", 1790, 1058, duplicates)
    manifest(run, "rejection_sampling", 5, "export", "export", 1058, 1058)
    manifest(run, CONTROL, 0, "any", "select", 6000, 1058, {"not drawn": 4942})


def manifest(
    run: Path,
    pipeline: str,
    number: int,
    name: str,
    kind: str,
    rows_in: int,
    rows_out: int,
    drops: dict[str, int] | None = None,
    examples: dict[str, Any] | None = None,
) -> None:
    counts = {"rows_in": rows_in, "rows_out": rows_out, "drops": drops or {}, "examples": examples or {}}
    put(run / f"manifests/{pipeline}/{number:02}-{name}.json", {"name": name, "kind": kind, **counts})


def phase(run: Path, name: str, label: str, seconds: float, peak: float, **more: Any) -> None:
    """A phase's start and end in events.jsonl."""
    start = {"event": "phase_start", "phase": name, "label": label}
    end = {**start, "event": "phase_end", "seconds": seconds, "peak_rss_mb": peak, "status": 0, **more}
    with (run / "events.jsonl").open("a") as file:
        file.writelines(json.dumps(event) + "\n" for event in (start, end))


def training_log(rng: random.Random, last: float, steps: int = 136) -> list[dict[str, Any]]:
    """What LlamaFactory logs, one entry a step."""
    losses = [last + 1.6 * math.exp(-step / 18) + rng.gauss(0, 0.02) for step in range(1, steps + 1)]
    return [
        {"current_steps": step, "total_steps": steps, "loss": round(loss, 4), "lr": 5e-4, "epoch": step / 17}
        for step, loss in enumerate(losses, 1)
    ]


def evaluate(
    run: Path,
    label: str,
    rates: Sequence[float],
    tasks: Sequence[str] = ("arithmetic",),
    prompts: int = 400,
    k: int = 4,
    hostile: bool = False,
) -> None:
    """Count made-up scored rows with the real thing. `rates` are the chances of being right, by level."""
    rng = random.Random(label)
    rows, out = run / "scored.jsonl", run / f"eval/{label}.json"
    put(rows, [row for task in tasks for row in scored_rows(rng, task, rates, prompts, k, hostile)])
    decoding = json.dumps({"n": k, "temperature": 1.0, "top_p": 1.0, "max_tokens": 256, "seed": 0})
    argv = [
        "--rows",
        str(rows),
        "--label",
        label,
        "--model",
        "mini",
        "--decoding",
        decoding,
        "--out",
        str(out),
    ]
    assert metrics.main(["evaluate", *argv]) == 0
    put(out, {**json.loads(out.read_text()), "versions": {"vllm": "0.32.0"}})  # as a pipeline's manifests tell them
    rows.unlink()


def compare(run: Path, a: str, b: str) -> None:
    """Paired differences with the real thing."""
    pair = ["--a", str(run / f"eval/{a}.json"), "--b", str(run / f"eval/{b}.json")]
    assert metrics.main(["compare", *pair, "--out", str(run / "compare.json")]) == 0


def scored_rows(
    rng: random.Random, task: str, rates: Sequence[float], prompts: int, k: int, hostile: bool
) -> Iterator[dict[str, Any]]:
    for i in range(prompts):
        level = i % len(rates) + 1
        a, b = rng.randrange(10, 99), rng.randrange(10, 99)
        luck = rng.betavariate(4 * rates[level - 1] + 0.05, 4 * (1 - rates[level - 1]) + 0.05)
        for sample in range(k):
            right = rng.random() < luck
            said = a + b if right else a + b + rng.choice([1, 10, -10])
            text = f"{a % 10} + {b % 10} = {a % 10 + b % 10}, write the last digit, carry.\n\\boxed{{{said}}}"
            if hostile and i % 5 == 0:
                text = f"{HOSTILE}\n{text}"
            if hostile and i % 7 == 0:
                text += "\n" + "Wait, let me check that again, digit by digit. " * 400 + "x" * 3000
            question = f"What is {a} + {b}?" + (HOSTILE if hostile and i % 3 == 0 else "")
            yield {
                "id": f"{task}-{i}/{sample}",
                "source": task,
                "score": float(right),
                "outcome": "scored",
                "prompt": [{"role": "user", "content": question}],
                "completion": text,
                "answer": str(a + b),
                "meta": {
                    "prompt_id": f"{task}-{i}",
                    "sample": sample,
                    "level": level,
                    "tokens": 40 + 9 * level,
                    "finish_reason": "stop" if right or rng.random() > 0.1 else "length",
                    "score_details": {"answer": str(said)},
                },
            }
