"""What the launcher asks of an evaluation harness: the steps that make its prompts and grade completions of them.

Between the two the recipe's model is sampled as for our own tasks, so that decoding, engines, resuming and thinking
format are the same. The scored rows become the same figures, intervals and report.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from launchers.errors import Fault
from launchers.recipe.compose import Resolved


@dataclass(frozen=True)
class Kind:
    """A data step's kind and its parameters."""

    kind: str
    params: dict[str, Any]


class Harness(Protocol):
    """One harness."""

    def faults(self, resolved: Resolved, names: Sequence[str]) -> Iterator[Fault]:
        """What is wrong with the recipe where these of `eval.tasks` are the harness's."""
        ...

    def prompts(self, resolved: Resolved, names: Sequence[str]) -> Kind:
        """The step that makes rows whose `source` is one of these names."""
        ...

    def grade(self, resolved: Resolved, names: Sequence[str]) -> Kind:
        """The step that scores completions of those rows."""
        ...
