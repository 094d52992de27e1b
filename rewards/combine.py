"""Reward `combine`: combines several rewards into one value and keeps each part's score in `details["parts"]`.

    reward: combine
    params:
      mode: gate                    # if the first part is below the threshold, the others are not computed
      floor: -1
      parts:
        - {reward: format, params: {thinking: think}}
        - {reward: math, weight: 1.0}
        - {reward: model, params: {url: "http://…"}, weight: 0.1, scale: zscore, clip: [-2, 2]}

`scale` is computed within a group, the completions of one prompt: rows with the same `group`, or else meta.prompt_id,
`id` or `prompt`. A row without any of these has no group, and scaling it is an error. `bleu_rm` is BLEUBERI's mean of
z(BLEU) and z(reward model).
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, model_validator

from rewards.base import Outcome, Reward, Row, Score, error, group_of
from rewards.params import RewardParams, checked
from rewards.registry import reward_class

NO_GROUP = "the row has none of group, meta.prompt_id, id, prompt: scaling needs one to identify the row's group"
Results = dict[str, dict[str, Any]]  # per part of one completion: value, outcome, details, scaled


def _ordered(limits: tuple[float, float]) -> tuple[float, float]:
    if limits[0] > limits[1]:
        raise ValueError("must be [low, high]")
    return limits


Limits = Annotated[tuple[float, float], AfterValidator(_ordered)]


class Part(RewardParams):
    """One part. name: its key in details (default: the reward's). clip: range of the scaled, unweighted value."""

    reward: str
    params: dict[str, Any] = {}
    name: str = ""
    weight: float = 1.0
    scale: Literal["none", "zscore", "minmax"] = "none"
    clip: Limits | None = None

    @model_validator(mode="after")
    def _is_a_reward(self) -> Self:
        _ = self.made
        return self

    @property
    def key(self) -> str:
        return self.name or self.reward

    @cached_property
    def made(self) -> Reward:
        """The part's reward. Raises RewardError."""
        return reward_class(self.reward).create(self.reward, self.params)

    def graded(self, rows: Sequence[Row], completions: Sequence[str], workers: int | None) -> list[dict[str, Any]]:
        """The value, outcome and details of each completion, and the scaled value if the part did not fail."""
        groups = ["" if self.scale == "none" else group_of(row) for row in rows]
        with_group = [i for i, group in enumerate(groups) if group is not None]
        results = [error(NO_GROUP).as_json() for _ in rows]
        graded = self.made.score_many([rows[i] for i in with_group], [completions[i] for i in with_group], workers)
        for i, score in zip(with_group, graded, strict=True):
            results[i] = score.as_json()
        valued = [i for i, result in enumerate(results) if not _failed(result["outcome"])]
        scaled = scale(self.scale, [results[i]["value"] for i in valued], [groups[i] for i in valued])
        for i, value in zip(valued, scaled, strict=True):
            results[i]["scaled"] = _clipped(value, self.clip)
        return results


class CombineReward(Reward):
    """Weighted sum, product or gate of other rewards, optionally scaled within groups and clipped.

    details: parts, by name: value, scaled, outcome, details; without parts skipped by a gate.

    mode: `sum` of weight × value, `product` of the values, or `gate`: the sum of all parts but the first if the
    first reaches `threshold`, else `floor`. clip: range of the result. failed: if a part has outcome error or
    timeout, the result has that outcome ("error"), or the part is skipped ("skip").
    """

    parts: tuple[Part, ...] = ()
    mode: Literal["sum", "product", "gate"] = "sum"
    threshold: float = 0.5
    floor: float = 0.0
    clip: Limits | None = None
    failed: Literal["error", "skip"] = "error"

    @model_validator(mode="after")
    def _parts_fit_the_mode(self) -> Self:
        if len(self.parts) < (2 if self.mode == "gate" else 1):
            raise ValueError(f"mode {self.mode} needs more than {len(self.parts)} parts")
        key, count = Counter(part.key for part in self.parts).most_common(1)[0]
        if count > 1:
            raise ValueError(f"two parts are named {key!r}: set a different `name` for one of them")
        if self.mode == "product" and any(part.weight != 1 for part in self.parts):
            raise ValueError("mode product does not use weights")
        if self.mode == "gate" and self.parts[0].scale != "none":
            raise ValueError("the gate, the first part, cannot be scaled within a group")
        columns = (column for part in self.parts for column in part.made.needs)
        self.__dict__["needs"] = tuple(dict.fromkeys(columns))  # overrides the class variable
        return self

    @property
    def grouped(self) -> bool:
        return any(part.scale != "none" or part.made.grouped for part in self.parts)

    def check_ready(self) -> None:
        for part in self.parts:
            part.made.check_ready()

    def grade_many(self, rows: Sequence[Row], completions: Sequence[str], workers: int | None = None) -> list[Score]:
        results: list[Results] = [{} for _ in rows]
        stopped: dict[int, Score] = {}  # completions that fail the gate
        for number, part in enumerate(self.parts):
            indices = [i for i in range(len(rows)) if i not in stopped]
            graded = part.graded([rows[i] for i in indices], [completions[i] for i in indices], workers)
            for i, result in zip(indices, graded, strict=True):
                results[i][part.key] = result
                if number == 0 and self.mode == "gate":
                    if _failed(result["outcome"]):
                        stopped[i] = Score(0.0, result["outcome"])
                    elif result["scaled"] < self.threshold:
                        stopped[i] = Score(self.floor, result["outcome"])
        return [replace(stopped.get(i) or self._total(r), details={"parts": r}) for i, r in enumerate(results)]

    def _total(self, results: Results) -> Score:
        """The score of one completion from the results of its parts, without the gate."""
        combined = self.parts[1 if self.mode == "gate" else 0 :]
        outcomes: list[Outcome] = [results[part.key]["outcome"] for part in combined]
        decided = [outcome for outcome in outcomes if not _failed(outcome)]
        if len(decided) < len(outcomes) and (self.failed == "error" or not decided):
            return Score(0.0, "error" if "error" in outcomes else "timeout")
        terms = [part.weight * results[part.key]["scaled"] for part in combined if "scaled" in results[part.key]]
        value = math.prod(terms) if self.mode == "product" else math.fsum(terms)
        return Score(_clipped(value, self.clip), "scored" if "scored" in decided else decided[0])


class BleuRmParams(RewardParams):
    bleu: Any = None
    model: Any = None


class BleuRm(CombineReward):
    """The mean of z(BLEU) and z(reward model) within each group. bleu, model: parameters of the two rewards.

    BLEUBERI (arXiv 2505.11080) computes z over all completions scored in one call; here z is over one prompt's group.
    """

    @classmethod
    def create(cls, name: str, params: Mapping[str, Any]) -> Self:
        if "parts" not in params:  # present when unpickling
            checked(BleuRmParams, params, f"reward {name!r}")
            half = {"weight": 0.5, "scale": "zscore"}
            params = {"parts": [{"reward": part, "params": params.get(part, {}), **half} for part in ("bleu", "model")]}
        return super().create(name, params)


def _failed(outcome: str) -> bool:
    return outcome in ("error", "timeout")


def _clipped(value: float, limits: tuple[float, float] | None) -> float:
    return min(max(value, limits[0]), limits[1]) if limits else value


def _zscores(values: Sequence[float]) -> list[float]:
    """(value - mean) / population standard deviation; 0 if all are equal or there is only one."""
    mean = math.fsum(values) / len(values)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
    # smaller deviations relative to the mean are rounding errors
    return [(value - mean) / deviation if deviation > 1e-9 * abs(mean) else 0.0 for value in values]


def _minmax(values: Sequence[float]) -> list[float]:
    """(value - minimum) / (maximum - minimum); 0.5 if all are equal or there is only one."""
    low, high = min(values), max(values)
    return [(value - low) / (high - low) if high > low else 0.5 for value in values]


_SCALES: dict[str, Callable[[Sequence[float]], list[float]]] = {"none": list, "zscore": _zscores, "minmax": _minmax}


def scale(name: str, values: Sequence[float], groups: Sequence[Any]) -> list[float]:
    """`values` scaled within groups, in order; groups[i] is the group of values[i]."""
    members: defaultdict[Any, list[float]] = defaultdict(list)
    for value, group in zip(values, groups, strict=True):
        members[group].append(value)
    scaled = {group: iter(_SCALES[name](group_values)) for group, group_values in members.items()}
    return [next(scaled[group]) for group in groups]
