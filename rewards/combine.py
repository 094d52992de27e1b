"""Reward `combine`: several rewards in one value, each part's own value and outcome kept in `details["parts"]`.

    reward: combine
    params:
      mode: gate                                     # format first; without it the rest is not computed
      floor: -1
      parts:
        - {reward: format, params: {thinking: think}}
        - {reward: math, weight: 1.0}
        - {reward: model, params: {url: "http://…"}, weight: 0.1, scale: zscore, clip: [-2, 2]}

Modes: `sum` of weight × value, `product` of values, `gate` (the first part lets the sum of the others through).
`scale` is taken within a group, the completions of one prompt: rows with the same `group`, or else `id`, or else
prompt. `bleu_rm` is BLEUBERI's mean of z(BLEU) and z(reward model).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from rewards.base import Outcome, Reward, Row, Score, group_of
from rewards.errors import RewardError, nearest
from rewards.params import RewardParams, checked
from rewards.registry import reward_class

Scale = Literal["none", "zscore", "minmax"]
Mode = Literal["sum", "product", "gate"]


class PartParams(RewardParams):
    """One part as written. clip: (low, high) of the scaled value, before the weight."""

    reward: str = ""
    name: str = ""
    weight: float = 1.0
    scale: Scale = "none"
    clip: tuple[float, ...] = ()


class CombineParams(RewardParams):
    """parts: mappings with reward, params, weight, name, scale and clip. threshold: what the gate's value must
    reach. floor: the value where it does not. clip: (low, high) of the whole. failed: a part with outcome error
    or timeout makes the whole so ("error"), or is left out ("skip").
    """

    parts: tuple[Any, ...] = ()
    mode: Mode = "sum"
    threshold: float = 0.5
    floor: float = 0.0
    clip: tuple[float, ...] = ()
    failed: Literal["error", "skip"] = "error"


@dataclass(frozen=True)
class Part:
    """A part that can be asked."""

    spec: PartParams
    reward: Reward

    def scaled(self, values: Sequence[float], groups: Sequence[str]) -> list[float]:
        """Values after scale and clip; groups[i] names the group of values[i]."""
        return [_clipped(value, self.spec.clip) for value in _SCALERS[self.spec.scale](values, groups)]


class CombineReward(Reward):
    """Weighted sum, product or gate of other rewards, scaled within groups and clipped as asked.

    details: parts, by name: value, scaled, outcome, details. A part that a gate kept from being computed is not
    there."""

    Params = CombineParams
    params: CombineParams

    def __init__(self, name: str, params: CombineParams) -> None:
        super().__init__(name, params)
        self._clip = _range(params.clip, f"reward {name!r}: clip")
        self.parts = _parts(name, params)
        self.needs = tuple(dict.fromkeys(column for part in self.parts for column in part.reward.needs))  # type: ignore[misc]

    @property
    def grouped(self) -> bool:
        """Whether a value depends on the other completions of its group, so that they must be scored together."""
        return any(part.spec.scale != "none" or part.reward.grouped for part in self.parts)

    def check_ready(self) -> None:
        """Raise RewardError unless the parts' servers are ready."""
        for part in self.parts:
            part.reward.check_ready()

    def grade(self, row: Row, completion: str) -> Score:
        return self.grade_many([row], [completion])[0]

    def grade_many(self, rows: Sequence[Row], completions: Sequence[str], workers: int | None = None) -> list[Score]:
        found: list[dict[str, dict[str, Any]]] = [{} for _ in rows]
        scores: list[Score | None] = [None] * len(rows)
        rest = self.parts
        if self.params.mode == "gate":
            gate, *rest = self.parts
            self._ask(gate, range(len(rows)), rows, completions, workers, found)
            scores = [self._at_gate(gate, parts) for parts in found]
        through = [i for i, score in enumerate(scores) if score is None]
        for part in rest:
            self._ask(part, through, rows, completions, workers, found)
        for i in through:
            scores[i] = self._whole(rest, found[i])
        return [replace(score, details={"parts": parts}) for score, parts in zip(scores, found, strict=True) if score]

    def _ask(
        self,
        part: Part,
        places: Sequence[int],
        rows: Sequence[Row],
        completions: Sequence[str],
        workers: int | None,
        found: list[dict[str, dict[str, Any]]],
    ) -> None:
        """Put the part's view of the completions at `places` into `found`."""
        scores = part.reward.score_many([rows[i] for i in places], [completions[i] for i in places], workers)
        valued = [(i, score.value) for i, score in zip(places, scores, strict=True) if not _failed(score.outcome)]
        groups = [group_of(rows[i]) or f"row at {id(rows[i])}" if part.spec.scale != "none" else "" for i, _ in valued]
        scaled = dict(zip((i for i, _ in valued), part.scaled([value for _, value in valued], groups), strict=True))
        for i, score in zip(places, scores, strict=True):
            found[i][part.spec.name] = score.as_json() | ({"scaled": scaled[i]} if i in scaled else {})

    def _at_gate(self, gate: Part, parts: Mapping[str, Any]) -> Score | None:
        """None for who may pass."""
        own = parts[gate.spec.name]
        if _failed(own["outcome"]):
            return Score(0.0, own["outcome"])
        return None if own["scaled"] >= self.params.threshold else Score(self.params.floor, own["outcome"])

    def _whole(self, asked: Sequence[Part], parts: Mapping[str, Any]) -> Score:
        outcomes: list[Outcome] = [parts[part.spec.name]["outcome"] for part in asked]
        for bad in ("error", "timeout"):
            if bad in outcomes and (self.params.failed == "error" or all(map(_failed, outcomes))):
                return Score(0.0, bad)
        valued = [(part.spec.weight, parts[part.spec.name].get("scaled")) for part in asked]
        terms = [weight * value for weight, value in valued if value is not None]
        value = math.prod(terms) if self.params.mode == "product" else math.fsum(terms)
        said = [outcome for outcome in outcomes if not _failed(outcome)]
        return Score(_clipped(value, self._clip), "scored" if "scored" in said else said[0])


class BleuRm(CombineReward):
    """The mean of z(BLEU) and z(reward model) within each group; parameters: bleu and model, mappings of theirs.

    BLEUBERI (arXiv 2505.11080) took z over whatever was scored in one call; here it is one prompt's group."""

    @classmethod
    def create(cls, name: str, params: Mapping[str, Any]) -> Reward:
        if "parts" in params:
            return super().create(name, params)
        for key, value in params.items():
            if key not in ("bleu", "model"):
                raise RewardError(f"reward {name!r}: unknown parameter {key!r}{nearest(key, ('bleu', 'model'))}")
            if not isinstance(value, Mapping):
                raise RewardError(f"reward {name!r}: {key} must be a mapping of {key}'s parameters, not {value!r}")
        halves = [{"reward": part, "params": params.get(part, {}), "weight": 0.5} for part in ("bleu", "model")]
        return super().create(name, {"parts": [{**half, "scale": "zscore"} for half in halves]})


def _failed(outcome: str) -> bool:
    return outcome in ("error", "timeout")


def _parts(name: str, params: CombineParams) -> list[Part]:
    where = f"reward {name!r}"
    parts = [_part(given, f"{where}: part {number}") for number, given in enumerate(params.parts, 1)]
    names = [part.spec.name for part in parts]
    if len(parts) < (2 if params.mode == "gate" else 1):
        raise RewardError(f"{where}: mode {params.mode} needs more parts than {len(parts)}")
    if twice := next((one for one in names if names.count(one) > 1), None):
        raise RewardError(f"{where}: two parts are called {twice!r}; give one another name")
    if params.mode == "product" and any(part.spec.weight != 1 for part in parts):
        raise RewardError(f"{where}: weights have no meaning in a product")
    if params.mode == "gate" and parts[0].spec.scale != "none":
        raise RewardError(f"{where}: the gate, its first part, cannot be scaled within a group")
    return parts


def _part(given: Any, where: str) -> Part:
    if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
        raise RewardError(f"{where} must be a mapping such as {{reward: math, weight: 1.0}}, not {given!r}")
    words = dict(given)
    params = words.pop("params", {})
    if not isinstance(params, Mapping) or not all(isinstance(key, str) for key in params):
        raise RewardError(f"{where}: params must be a mapping, not {params!r}")
    known = [*PartParams.model_fields, "params"]
    for word in words:
        if word not in known:
            raise RewardError(f"{where}: unknown key {word!r}{nearest(word, known)}; keys: {', '.join(known)}")
    spec = checked(PartParams, words, where)
    if not spec.reward:
        raise RewardError(f"{where} names no reward")
    if not math.isfinite(spec.weight):
        raise RewardError(f"{where}: weight must be finite, not {spec.weight}")
    spec = spec.model_copy(update={"name": spec.name or spec.reward, "clip": _range(spec.clip, f"{where}: clip")})
    try:
        return Part(spec, reward_class(spec.reward).create(spec.reward, params))
    except RewardError as problem:
        raise RewardError(f"{where}: {problem}") from None


def _range(given: Sequence[Any], where: str) -> tuple[float, ...]:
    """(low, high) as floats, or () for none."""
    numbers = all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in given)
    if not given:
        return ()
    if not numbers or len(given) != 2 or not given[0] <= given[1]:
        raise RewardError(f"{where} must be [low, high], not {list(given)!r}")
    return float(given[0]), float(given[1])


def _clipped(value: float, limits: Sequence[float]) -> float:
    return min(max(value, limits[0]), limits[1]) if limits else value


def _zscores(values: Sequence[float], groups: Sequence[str]) -> list[float]:
    """(value - mean) / population standard deviation of its group; 0 where all are equal, or alone."""

    def of(group: list[float]) -> tuple[float, float]:
        mean = math.fsum(group) / len(group)
        return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in group) / len(group))

    # below this share of the mean a deviation is rounding
    return _per_group(values, groups, of, lambda v, mean, std: (v - mean) / std if std > 1e-9 * abs(mean) else 0.0)


def _minmax(values: Sequence[float], groups: Sequence[str]) -> list[float]:
    """(value - least) / (greatest - least) of its group; 0.5 where all are equal, or alone."""
    return _per_group(
        values, groups, lambda g: (min(g), max(g)), lambda v, low, high: (v - low) / (high - low) if high > low else 0.5
    )


def _per_group(values: Sequence[float], groups: Sequence[str], of: Any, apply: Any) -> list[float]:
    members: defaultdict[str, list[float]] = defaultdict(list)
    for value, group in zip(values, groups, strict=True):
        members[group].append(value)
    known = {group: of(held) for group, held in members.items()}
    return [apply(value, *known[group]) for value, group in zip(values, groups, strict=True)]


_SCALERS: dict[str, Any] = {"none": lambda values, groups: list(values), "zscore": _zscores, "minmax": _minmax}
