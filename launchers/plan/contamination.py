"""Training on a benchmark's test split: a warning, or an error if the recipe evaluates on the same data.

A task declares whether it is a test split (`Task.is_test`); for a Hub data set the names of its split and files decide.
Rows that repeat a benchmark question are removed by the data step `decontaminate`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_prep.core.pipeline import Spec
from data_prep.sources import tasks
from data_prep.sources.tasks import Hub
from data_prep.steps.load import LoadParams


@dataclass(frozen=True)
class Source:
    """Data to train or evaluate on: a task, or a part of a Hub data set."""

    name: str
    hub: Hub | None
    filter: Mapping[str, Any]
    is_test: bool

    def holds(self, other: Source) -> bool:
        """Whether both may have the same rows, judged by names and filters."""
        if self.name == other.name:
            return True
        if self.hub is None or other.hub is None or self.hub.id != other.hub.id:
            return False
        same = all(getattr(self.hub, key) == getattr(other.hub, key) for key in ("config", "split", "files"))
        return (same or (self.is_test and other.is_test)) and not (
            self.filter and other.filter and self.filter != other.filter
        )


def _task(name: str, filter_: Mapping[str, Any] | None = None) -> Source:
    task = tasks.read(name)
    return Source(name, task.hub, filter_ or task.filter, task.is_test)


def _loaded(given: LoadParams) -> Iterator[Source]:
    """The tasks and Hub data sets that a step `load` reads."""
    for name in given.names:
        yield _task(name, given.filter)
    if given.hub and given.revision:
        hub = Hub(id=given.hub, revision=given.revision, split=given.part, config=given.config, files=given.files)
        yield Source(given.hub, hub, given.filter, hub.is_test)


def trained(spec: Spec) -> set[str]:
    """Names of the steps whose rows reach the last step, the trainer's export."""
    names = {spec.steps[-1].name}
    for step in reversed(spec.steps):  # inputs come before the steps that read them
        if step.name in names:
            names |= set(step.inputs)
    return names


def warnings(specs: Iterable[Spec]) -> list[str]:
    """One line for each test split that training data are loaded from."""
    sources = {
        source.name: source
        for spec in specs
        for step in spec.steps
        if step.kind == "load" and step.name in trained(spec)
        for source in _loaded(LoadParams.model_validate(step.params))
        if source.is_test
    }
    return [
        f"{name}: trained on its test split; do not evaluate on {source.hub.id if source.hub else name} afterwards"
        for name, source in sources.items()
    ]


def clash(given: LoadParams, evaluated: Sequence[str]) -> str | None:
    """Why training data must not include this, given the evaluated tasks; None if they may."""
    for source in _loaded(given) if evaluated else ():
        for name in evaluated:
            if name in tasks.names() and source.holds(_task(name)):
                which = "" if name == source.name else f" as {name}"
                return f"trains on {source.name}, which is in eval.tasks{which}: remove one of the two"
    return None
