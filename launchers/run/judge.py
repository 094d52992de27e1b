"""Scores the validation samples of an online RL training with a second reward model, and records the best checkpoint.

    python -m launchers.run.judge RUN/train      (with the second judge's server running: launchers/run/service.py)

RUN/train contains judge.json (validation rows, parameters of reward `model`) and validation/<step>.jsonl, the samples
of each validation. Writes judged.json: {"means": {step: mean}, "samples": number scored, "best_step": step}. Only steps
with a checkpoint can be the best.
"""

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rewards
from launchers.render import write

JUDGED = "judged.json"
ERRORS = 0.02  # failure limit: fraction of samples without a score


def main(argv: Sequence[str]) -> int:
    """Exit status 1 if too many samples could not be scored."""
    folder = Path(argv[0])
    means: dict[int, float] = {}
    settings = json.loads((folder / "judge.json").read_text())
    reward = rewards.load("model", **settings["params"])
    prompts = _prompts(Path(settings["validation"]), settings["tasks"])
    samples = 0
    for file in sorted(folder.glob("validation/*.jsonl"), key=lambda file: int(file.stem)):
        rows = [row for row in map(json.loads, file.read_text().splitlines()) if row["id"] in prompts]
        scores = reward.score_many([{"prompt": prompts[row["id"]]} for row in rows], [row["output"] for row in rows])
        failed = [score for score in scores if score.outcome in ("error", "timeout")]
        if len(failed) > ERRORS * len(scores):
            why = (failed[0].details or {}).get("problem", failed[0].outcome)
            print(f"error: second judge: {len(failed)} of {len(scores)} samples were not scored: {why}")
            return 1
        values = [score.value for score in scores if score not in failed]
        means[int(file.stem)] = statistics.fmean(values)
        samples = len(values)
        print(f"step {file.stem}: {means[int(file.stem)]:.4f} over {len(values)} samples", flush=True)
    saved = [step for step in means if (folder / "checkpoints" / f"global_step_{step}" / "actor").is_dir()]
    best = max(saved, key=lambda step: means[step], default=None)
    print(f"best checkpoint: step {best} of {', '.join(map(str, saved))}" if saved else "no validated checkpoint")
    write(folder / JUDGED, json.dumps({"means": means, "samples": samples, "best_step": best}))
    return 0


def _prompts(path: Path, tasks: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    import pyarrow.parquet

    rows = pyarrow.parquet.read_table(path, columns=["data_source", "prompt", "extra_info"]).to_pylist()  # type: ignore[no-untyped-call]
    return {row["extra_info"]["id"]: row["prompt"] for row in rows if row["data_source"] in tasks}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
