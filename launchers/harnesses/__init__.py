"""Evaluation harnesses of other people, by name: a module here for each, and a locked environment (configs/envs).

A task of configs/tasks is ours: generated and scored by our own steps. Any other name in `eval.tasks` is a task of
`eval.harness`, and `<harness>/<task>` one of that harness, whatever else has its name.

A harness makes prompts and grades completions. Between the two the recipe's model is sampled as for our own tasks, so
that decoding, engines, resuming and thinking format are the same. The scored rows become the same figures and report.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from data_prep.sources import tasks
from data_prep.sources.tasks import Metric
from launchers.errors import Fault
from launchers.recipe.compose import Resolved
from launchers.recipe.schema import HARNESSES, OURS, Eval


@dataclass(frozen=True)
class Kind:
    """A data step's kind and its parameters."""

    kind: str
    params: dict[str, Any]


def chosen(resolved: Resolved) -> dict[str, Any]:
    """Parameters of a harness's prompts that follow from the recipe: how many are drawn, and the system prompt."""
    given, system = resolved.eval, resolved.recipe.system_prompt
    drawn = {"limit": given.limit, "seed": given.seed} if given.limit else {}
    return drawn | ({"system": system} if system else {})


class Harness(Protocol):
    """One harness: the functions of its module."""

    def faults(self, resolved: Resolved, names: Sequence[str]) -> Iterator[Fault]:
        """What is wrong with the recipe where these of `eval.tasks` are the harness's."""
        ...

    def prompts(self, resolved: Resolved, names: Sequence[str]) -> Kind:
        """The step that makes rows whose `source` is one of these names."""
        ...

    def grade(self, resolved: Resolved, names: Sequence[str]) -> Kind:
        """The step that scores completions of those rows."""
        ...


def load(name: str) -> Harness:
    """The harness of this name."""
    return cast(Harness, importlib.import_module(f"launchers.harnesses.{name}"))


def harness_of(given: Eval, task: str) -> str:
    """Who evaluates a task: "ours", or a harness."""
    first, slash, _ = task.partition("/")
    if slash and first in HARNESSES:
        return first
    return OURS if task in tasks.names() else given.harness


def by_harness(given: Eval | None) -> dict[str, list[str]]:
    """The tasks of an evaluation, by who evaluates them."""
    tasks_of: dict[str, list[str]] = {}
    if given is not None:
        for task in given.tasks:
            tasks_of.setdefault(harness_of(given, task), []).append(task)
    return tasks_of


def ours(given: Eval | None) -> list[str]:
    """The tasks that our own steps evaluate, and that a training can validate on."""
    return by_harness(given).get(OURS, [])


def measured(names: Sequence[str]) -> Metric:
    """What the first of these tasks measures; of a harness's task that is known once it has been graded."""
    known = [name for name in names if name in tasks.names()]
    return tasks.read(known[0]).measured if known else Metric()
