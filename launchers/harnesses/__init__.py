"""Evaluation harnesses of other people, by name: a module here for each, and a locked environment (configs/envs).

A task of configs/tasks is ours: generated and scored by our own steps. Any other name in `eval.tasks` is a task of
`eval.harness`, and `<harness>/<task>` one of that harness, whatever else has its name.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import cast

from data_prep.sources import tasks
from data_prep.sources.tasks import Metric
from launchers.harnesses.base import Harness
from launchers.recipe.schema import HARNESSES, OURS, Eval


def load(name: str) -> Harness:
    """The harness of this name."""
    return cast(Harness, importlib.import_module(f"launchers.harnesses.{name}").HARNESS)


def harness_of(given: Eval, task: str) -> str:
    """Who evaluates a task: "ours", or a harness."""
    first, slash, _ = task.partition("/")
    if slash and first in HARNESSES:
        return first
    return OURS if task in tasks.names() else given.harness


def by_harness(given: Eval | None) -> dict[str, list[str]]:
    """The tasks of an evaluation, by who evaluates them."""
    tasks_of: dict[str, list[str]] = {}
    for task in given.tasks if given else ():
        assert given is not None
        tasks_of.setdefault(harness_of(given, task), []).append(task)
    return tasks_of


def ours(given: Eval | None) -> list[str]:
    """The tasks that our own steps evaluate, and that a training can validate on."""
    return by_harness(given).get(OURS, [])


def measured(names: Sequence[str]) -> Metric:
    """What the first of these tasks measures; of a harness's task that is known once it has been graded."""
    known = [name for name in names if name in tasks.names()]
    return tasks.read(known[0]).measured if known else Metric()
