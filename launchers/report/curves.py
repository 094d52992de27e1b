"""Merges the metric logs of a training, one file per attempt, into curves.

metrics/<attempt>.jsonl    {"step": n, "data": {metric: value}}; step 0 is the validation before training
planned.json, stopped.json, notes.json    planned steps; why it stopped early; notes for the report
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Point = tuple[float, float]  # step, value
Measure = Literal["acc", "reward"]
# Metrics that a report shows, by name (KEPT) or prefix (KEPT_BELOW). The RL trainer logs about a hundred more per step.
WAITED = "timing_s/agent_loop/compute_score/mean"  # mean seconds that a completion waits for its score
KEPT = frozenset({
    "accuracy/train", "groups/zero_variance", "critic/score/mean", "critic/rewards/mean", "critic/vf_loss",
    "actor/pg_loss", "actor/kl_loss", "actor/reward_kl_penalty", "actor/entropy", "actor/entropy_loss",
    "actor/grad_norm", "actor/pg_clipfrac", "response_length/mean", "response_length/right", "response_length/wrong",
    "response_length/clip_ratio", "perf/throughput", "sampler/log_prob_difference",
    "sampler/effective_sample_size", "reward/length_correlation", WAITED,
    "loss", "eval_loss", "rewards/margins", "accuracy",  # SFT and DPO
})  # fmt: skip
KEPT_BELOW = re.compile(r"reward/part/|outcome/|val-core/|timing_s/[^/]+$")
VALIDATION = re.compile(r"val-core/(.+)/(acc|reward)/mean@\d+", re.DOTALL)


@dataclass
class Training:
    """Curves of one training by metric, in the trainer's units, with ascending steps and finite values.

    resumed: first step of each attempt after the first. broken: metric to (non-finite steps, logged steps).
    """

    curves: dict[str, list[Point]] = field(default_factory=dict)
    resumed: list[float] = field(default_factory=list)
    broken: dict[str, tuple[int, int]] = field(default_factory=dict)
    planned: float | None = None
    stopped: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def last(self) -> float:
        """The last logged step."""
        return max((points[-1][0] for points in self.curves.values()), default=0)

    def first_of(self, *metrics: str) -> list[Point]:
        """The curve of the first of these metrics that was logged; [] if none was."""
        return next((self.curves[metric] for metric in metrics if metric in self.curves), [])

    def below(self, prefix: str) -> dict[str, list[Point]]:
        """Curves of the metrics with this prefix, by the rest of their names."""
        return {key.removeprefix(prefix): points for key, points in self.curves.items() if key.startswith(prefix)}

    def validations(self, measure: Measure = "acc") -> dict[str, list[Point]]:
        """Validation curves by benchmark: accuracy, or mean reward if the reward is not an accuracy."""
        matches = ((VALIDATION.fullmatch(key), points) for key, points in self.curves.items())
        return {match[1]: points for match, points in matches if match and match[2] == measure}


def merged(attempts: Iterable[Iterable[Mapping[str, Any]]]) -> Training:
    """Merge the log entries of a training's attempts, oldest attempt first.

    A resumed run repeats the steps after its checkpoint, so an attempt replaces earlier entries after its first step.
    At that step itself entries are merged: an attempt may begin with a validation of the step it resumes from.
    """
    values: dict[str, dict[float, float]] = {}
    ignored: set[str] = set()
    training = Training()
    for entries in attempts:
        started = False
        for entry in entries:
            step, data = number(entry.get("step")), entry.get("data")
            if step is None or not math.isfinite(step) or not isinstance(data, dict):
                continue
            if not started:
                started = True
                if values:
                    training.resumed.append(step)
                for known in values.values():
                    for late in [at for at in known if at > step]:
                        del known[late]
            for key, value in data.items():
                if key in ignored:
                    continue
                if key not in values and key not in KEPT and not KEPT_BELOW.match(key):
                    ignored.add(key)  # cached, since a long run logs millions of values
                elif (point := number(value)) is not None:
                    values.setdefault(key, {})[step] = point
    for key, known in values.items():
        finite = sorted((step, value) for step, value in known.items() if math.isfinite(value))
        if finite:
            training.curves[key] = finite
        if len(finite) < len(known):
            training.broken[key] = (len(known) - len(finite), len(known))
    return training


def number(value: Any) -> float | None:
    """A JSON number as a float (infinite if out of range); None for other values."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
