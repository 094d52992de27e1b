"""Early stopping in verl, by the rules of stop.json or because the job is about to end
(launchers/plugins/stop_asked.py). Also writes the number of steps to planned.json, and a note to notes.json if no
group's rewards ever differed.

stop.json: patience, min_gain, collapse, idle (launchers/recipe/schema.py, Stop) and the benchmarks' metric; without it
only the job's end stops the training. The validation score is the mean over the benchmarks of
val-core/<benchmark>/acc/mean@<n>, or of reward/mean@<n> if the reward is not an accuracy, in the metric's unit
(percentage points for percent). The state for resumed runs is in validations.json:
{"validations": {step: score}, "zero_variance": {step: share}}.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import wrapt

from launchers.plugins.stop_asked import stop_asked
from launchers.plugins.verl.measures import scores_of, zero_variance
from launchers.render import write

FOLDER = "POSTTRAIN_TRAINING"  # environment variable with the training's folder
SCORE = re.compile(r"val-core/.+/(?:acc|reward)/mean@\d+")
ACCURACY = {"name": "accuracy", "unit": "%", "higher_is_better": True}
NOT_BY_GROUP = ("gae", "adv_none")  # estimators for which this note is not written
NOTHING = "learned nothing: "


@dataclass(frozen=True)
class Verdict:
    """why: a sentence for the user. best_step: the best validated step, if validations ended the training."""

    why: str
    best_step: int | None = None


@dataclass(frozen=True)
class Rules:
    """Stopping rules; None disables a rule. min_gain and collapse are in the metric's unit (percentage points for
    percent).

    patience: consecutive validations without a gain of min_gain over the best earlier one. collapse: how much worse
    than the best the last validation may be. idle: consecutive steps in which no group's scores differ.
    """

    patience: int | None = None
    min_gain: float = 0.5
    collapse: float | None = None
    idle: int | None = None
    metric: Mapping[str, Any] = field(default_factory=lambda: ACCURACY)

    @property
    def scale(self) -> int:
        """Factor from verl's scores, where accuracies are fractions, to the metric's unit."""
        return 100 if self.metric["unit"] == "%" else 1

    def verdict(self, validations: Mapping[int, float], zero_variance: Mapping[int, float]) -> Verdict | None:
        """validations: scores by step. zero_variance: fraction of groups with equal scores, by step."""
        return self._of_validations(sorted(validations.items())) or self._of_groups(sorted(zero_variance.items()))

    def _of_validations(self, validations: list[tuple[int, float]]) -> Verdict | None:
        if len(validations) < 2:
            return None
        step, last = validations[-1]
        sign = 1 if self.metric["higher_is_better"] else -1
        best_step, best = max(validations, key=lambda one: sign * one[1])
        if self.collapse is not None and sign * (best - last) > self.collapse:
            return Verdict(
                f"{self._shown(best, last)}, more than stop.collapse {self.collapse:g} worse than the best "
                f"(step {best_step})",
                best_step,
            )
        mark_step, mark, since = *validations[0], 0
        for at, score in validations[1:]:
            gain = sign * (score - mark)
            if gain > 0 and gain >= self.min_gain:
                mark_step, mark, since = at, score, 0
            else:
                since += 1
        if self.patience is None or since < self.patience:
            return None
        return Verdict(
            f"{self._shown(mark, last)} (steps {mark_step} and {step}), without a gain of stop.min_gain "
            f"{self.min_gain:g} in {since} validations (stop.patience {self.patience})",
            best_step,
        )

    def _shown(self, before: float, after: float) -> str:
        digits = 1 if self.scale == 100 else 4
        unit = f" {self.metric['unit']}".rstrip()
        return f"{self.metric['name']} went from {before:.{digits}f} to {after:.{digits}f}{unit} in validation"

    def _of_groups(self, zero_variance: list[tuple[int, float]]) -> Verdict | None:
        last = zero_variance[-self.idle :] if self.idle else []
        if self.idle is None or len(last) < self.idle or any(share < 1 for _, share in last):
            return None
        since = last[0][0]
        return Verdict(f"no group's rewards have differed since step {since} (stop.idle {self.idle}): nothing to learn")


class Stopping:
    """The state of one training's early stopping."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rules = Rules(**read(folder / "stop.json"))
        self._validations: dict[int, float] = {}
        self._zero_variance: dict[int, float] = {}
        self._share: float | None = None  # of the current step
        self._saved: int | None = None
        self.stopped = False

    def start(self) -> None:
        """Discard an earlier attempt's stop: this attempt may have other rules."""
        self.stopped = False
        (self._folder / "stopped.json").unlink(missing_ok=True)

    def planned(self, trainer: Any) -> None:
        """Write the number of steps, which verl knows after dropping prompts that are too long."""
        steps = {"steps": trainer.total_training_steps, "steps_per_pass": len(trainer.train_dataloader)}
        _write(self._folder / "planned.json", steps)

    def resumed(self, step: int) -> None:
        """Load the state of earlier attempts up to `step`."""
        kept = read(self._folder / "validations.json")
        self._validations = _until(step, kept.get("validations", {}))
        self._zero_variance = _until(step, kept.get("zero_variance", {}))

    def validated(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record a validation, if it has benchmark scores."""
        scores = [self._rules.scale * value for key, value in metrics.items() if SCORE.fullmatch(key)]
        if scores:
            self._validations[step] = sum(scores) / len(scores)
            self._keep()

    def scored(self, share: float | None) -> None:
        """Set the current step's fraction of groups without variance."""
        self._share = share

    def saved(self, step: int) -> None:
        """Record that verl has saved this step."""
        self._saved = step

    def step_ended(self, trainer: Any) -> None:
        """Decide whether to stop. The step's update, checkpoint and validation, if any, are done."""
        step = trainer.global_steps
        if self._share is not None:
            self._zero_variance[step] = self._share
            self._keep()
        verdict = self._rules.verdict(self._validations, self._zero_variance)
        if step >= trainer.total_training_steps or not (verdict or stop_asked()):
            return
        if self._saved != step:
            trainer.checkpoint_manager.sleep_replicas()  # as before verl's own saves: frees the rollout engine's memory
            trainer._save_checkpoint()
        if verdict:
            best = {} if verdict.best_step is None else {"best_step": verdict.best_step}
            _write(self._folder / "stopped.json", {"step": step, "why": verdict.why, **best})
        else:
            print(f"stopped on request, with a checkpoint at step {step}", flush=True)
        self.stopped = True

    def ended(self, by_group: bool) -> None:
        """Write notes at the end of the training. by_group: advantages are relative to the group."""
        path = self._folder / "notes.json"
        before = read(path) or []
        notes = [note for note in before if not note.startswith(NOTHING)]
        if by_group and self._zero_variance and all(share == 1 for share in self._zero_variance.values()):
            notes.append(f"{NOTHING}in all {len(self._zero_variance)} steps the rewards of every group were equal")
            print(notes[-1], flush=True)
        if notes != before:
            _write(path, notes)

    def _keep(self) -> None:
        _write(
            self._folder / "validations.json",
            {"validations": self._validations, "zero_variance": self._zero_variance},
        )


class Batches(wrapt.ObjectProxy):
    """A wrapper of verl's data loader that yields no more batches once the training should stop."""

    def __init__(self, loader: Any, stopping: Stopping) -> None:
        super().__init__(loader)
        self._self_stopping = stopping

    def __iter__(self) -> Iterator[Any]:
        if self._self_stopping.stopped:  # verl still iterates over its remaining epochs
            return
        for batch in self.__wrapped__:
            yield batch
            if self._self_stopping.stopped:
                return


def install(ray_trainer: ModuleType) -> None:
    """Hook into verl's trainer after scoring, validation, saving, resuming and each step."""
    stopping, trainer = Stopping(Path(os.environ[FOLDER])), ray_trainer.RayPPOTrainer

    @wrapt.patch_function_wrapper(ray_trainer, "compute_advantage")
    def compute_and_note(compute: Any, _: None, args: tuple[Any], kwargs: dict[str, Any]) -> Any:
        stopping.scored(zero_variance(scores_of(args[0]), args[0].non_tensor_batch["uid"]))
        return compute(*args, **kwargs)

    @wrapt.patch_function_wrapper(trainer, "fit")
    def fit_until_stopped(fit: Any, self: Any, *_: Any) -> None:
        stopping.start()
        self.train_dataloader = Batches(self.train_dataloader, stopping)
        fit()
        stopping.ended(self.config.algorithm.adv_estimator not in NOT_BY_GROUP)

    _after(trainer, "_create_dataloader", lambda self, _: stopping.planned(self))
    _after(trainer, "_load_checkpoint", lambda self, _: stopping.resumed(self.global_steps))
    _after(trainer, "_validate", lambda self, metrics: stopping.validated(self.global_steps, metrics))
    _after(trainer, "_save_checkpoint", lambda self, _: stopping.saved(self.global_steps))
    # the only method that verl calls exactly once at the end of every step, with or without profiling
    _after(trainer, "_stop_profiling", lambda self, _: stopping.step_ended(self))


def _after(cls: type, name: str, action: Callable[[Any, Any], None]) -> None:
    """Call action(self, result) after each call of the method."""

    @wrapt.patch_function_wrapper(cls, name)
    def with_action(method: Any, self: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = method(*args, **kwargs)
        action(self, result)
        return result


def _until(step: int, entries: Mapping[str, float]) -> dict[int, float]:
    return {int(at): value for at, value in entries.items() if int(at) <= step}


def read(path: Path) -> Any:
    """The content of a JSON file; {} if it is missing or incomplete."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}


def _write(path: Path, value: Any) -> None:
    write(path, json.dumps(value, indent=1) + "\n")
