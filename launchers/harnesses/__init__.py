"""External evaluation harnesses: one module and one locked environment (configs/envs) each.

Tasks in configs/tasks are generated and scored by our own steps. Any other name in `eval.tasks` is a task of
`eval.harness`; `<harness>/<task>` selects a harness explicitly.

A harness writes prompts and grades completions. Sampling is the same as for our own tasks (parameters, engines,
resuming, thinking format), and the scored rows get the same statistics and report.
"""

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
    """Parameters of the prompt step that come from the recipe: number of prompts, and system prompt."""
    given, system = resolved.eval, resolved.recipe.system_prompt
    limit = {"limit": given.limit, "seed": given.seed} if given.limit else {}
    return limit | ({"system": system} if system else {})


class Harness(Protocol):
    """One harness: the functions of its module."""

    def faults(self, resolved: Resolved, names: Sequence[str]) -> Iterator[Fault]:
        """Faults of the recipe, given that `names` are this harness's tasks."""
        ...

    def prompts(self, resolved: Resolved, names: Sequence[str]) -> Kind:
        """The step that writes the prompts; each row's `source` is one of these names."""
        ...

    def grade(self, resolved: Resolved, names: Sequence[str]) -> Kind:
        """The step that scores completions of those rows."""
        ...


def load(name: str) -> Harness:
    """The harness of this name."""
    return cast(Harness, importlib.import_module(f"launchers.harnesses.{name}"))


def harness_of(given: Eval, task: str) -> str:
    """The harness of a task, or "ours"."""
    first, slash, _ = task.partition("/")
    if slash and first in HARNESSES:
        return first
    return OURS if task in tasks.names() else given.harness


def by_harness(given: Eval | None) -> dict[str, list[str]]:
    """The tasks of an evaluation, grouped by harness."""
    tasks_of: dict[str, list[str]] = {}
    if given is not None:
        for task in given.tasks:
            tasks_of.setdefault(harness_of(given, task), []).append(task)
    return tasks_of


def ours(given: Eval | None) -> list[str]:
    """The tasks that our own steps evaluate; only these can be used for validation during training."""
    return by_harness(given).get(OURS, [])


def measured(names: Sequence[str]) -> Metric:
    """The metric of the first of our own tasks among these; the default metric if there is none."""
    known = [name for name in names if name in tasks.names()]
    return tasks.read(known[0]).measured if known else Metric()
