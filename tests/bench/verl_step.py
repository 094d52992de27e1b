"""Where a GRPO step of verl goes on this CPU: rollout, reward, update, waiting; and how long the start takes.

    PYTHONPATH=. $(make -s python) tests/bench/verl_step.py [vllm]

16 prompts × 8 samples of the shipped mini model, medians over the steps after the second.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

from launchers import envs
from tests.conftest import REPO
from tests.plugins import verl_run
from tests.plugins.verl_run import POLICY, ROLLOUT

STEPS, BATCH, SAMPLES = 8, 16, 8
PARTS = {
    "rollout": ["gen"],
    "old and reference log-probabilities": ["old_log_prob", "ref"],
    "advantages": ["adv"],
    "update": ["update_actor", "update_critic"],
    "weights to the rollout": ["update_weights"],
}


def run(rollout: str, folder: Path) -> tuple[verl_run.Watched, float]:
    """The run, and the seconds from its start to the end of its first step."""
    verl_run.write_data(folder)
    words = [
        *verl_run.overrides(folder, folder / "out", REPO / "recipes" / "mini" / "model", ranks=1),
        *(verl_run.VLLM if rollout == "vllm" else [f"{ROLLOUT}.name=transformers"]),
        *(f"data.train_batch_size={BATCH}", f"{ROLLOUT}.n={SAMPLES}", f"{POLICY}.ppo_mini_batch_size={BATCH}"),
        *(f"{POLICY}.ppo_micro_batch_size_per_gpu={BATCH * SAMPLES}", f"trainer.total_training_steps={STEPS}"),
        *(f"{POLICY}.optim.lr=1e-5", "algorithm.rollout_correction.bypass_mode=True", "trainer.total_epochs=9"),
    ]
    started, first = time.monotonic(), [0.0]

    def note(log: str, _: list[Path]) -> bool:
        first[0] = time.monotonic() - started
        return "step:1 - " in log

    return verl_run.train(envs.ensure("verl", "cpu"), folder, folder / "out", words, note), first[0]


def main() -> int:
    rollout = sys.argv[1] if len(sys.argv) > 1 else "transformers"
    with tempfile.TemporaryDirectory() as folder:
        found, start = run(rollout, Path(folder))
    if found.status:
        print(found.log[-3000:], file=sys.stderr)
        return 1
    steps = [metrics for step, metrics in sorted(found.metrics.items()) if step > 2]

    def median(key: str) -> float:
        return statistics.median(metrics.get(f"timing_s/{key}", 0.0) for metrics in steps)

    whole = median("step")
    rows = {name: sum(median(key) for key in keys) for name, keys in PARTS.items()}
    rows["waiting and the rest"] = whole - sum(rows.values())
    print(f"{rollout} rollouts, {BATCH} × {SAMPLES}: {start:.0f} s to the first step, peak {found.peak_gb:.1f} GB")
    for name, seconds in {**rows, "step": whole}.items():
        print(f"  {name:<38}{seconds:8.3f} s{100 * seconds / whole:8.1f} %")
    per_sample = median("agent_loop/compute_score/mean")
    print(f"  a sample waits for its reward, mean   {per_sample:8.3f} s (inside the rollout, while others are scored)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
