"""A torchtune metric_logger component that writes trainer_log.jsonl, which the launcher reads, and other loggers."""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from launchers.render import write

LOG = "trainer_log.jsonl"
_COMPONENTS = {"tensorboard": "TensorBoardLogger", "wandb": "WandBLogger"}


class Metrics:
    """Writes one line per logged step, with LlamaFactory's names for common metrics. `plan` must be set first."""

    def __init__(self, folder: str, loggers: Sequence[str] = ()) -> None:
        from torchtune.training import metric_logging

        self._path = Path(folder) / LOG
        self._others = []
        for name in loggers:
            made = getattr(metric_logging, _COMPONENTS[name])
            own = {"organize_logs": False} if name == "tensorboard" else {"project": os.environ["WANDB_PROJECT"]}
            self._others.append(made(log_dir=str(Path(folder) / name), **own))
        self.plan: Any = None
        self.corrections: Any = None

    def log_config(self, config: Any) -> None:
        """Does nothing: the resolved config is already in the folder."""

    def log(self, name: str, data: Any, step: int) -> None:
        """Log one value."""
        self.log_dict({name: data}, step)

    def log_dict(self, payload: Mapping[str, Any], step: int) -> None:
        """Log a step's values; those from `corrections` replace torchtune's."""
        measured = {**payload, **self.corrections(payload, step)}
        values = {key: float(value) for key, value in measured.items()}
        passes = step / self.plan.per_pass
        line = {"current_steps": step, "total_steps": self.plan.steps, "epoch": round(passes, 4), **values}
        if "rewards/accuracies" in values:
            line["accuracy"] = values["rewards/accuracies"]
        with self._path.open("ab", buffering=0) as log:  # a single write, so that lines are complete
            log.write((json.dumps(line) + "\n").encode())
        print(f"step {step} of {self.plan.steps}: loss {values.get('loss', float('nan')):.4f}", flush=True)
        for other in self._others:
            other.log_dict(values, step)

    def close(self) -> None:
        """Close the other loggers."""
        for other in self._others:
            other.close()


def cut(folder: Path, step: int) -> None:
    """Remove log entries of an interrupted attempt after the step that training resumes from."""
    path = folder / LOG
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines(keepends=True):
        with suppress(ValueError):  # an incomplete line
            if json.loads(line)["current_steps"] <= step:
                kept.append(line)
    write(path, "".join(kept))
