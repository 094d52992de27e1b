"""EleutherAI's lm-evaluation-harness: its generative tasks by name, and task files of its format (`eval.paths`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from launchers.errors import Fault
from launchers.harnesses.base import Kind
from launchers.plan.pipelines import paths_of
from launchers.recipe.compose import Resolved

PROMPTS = "data_prep.steps.lm_eval:LmEvalPrompts"
GRADE = "data_prep.steps.lm_eval:LmEvalGrade"


class LmEval:
    """Which tasks there are, only its own environment knows: an unknown one ends the evaluation's first step."""

    def faults(self, resolved: Resolved, names: Sequence[str]) -> Iterator[Fault]:
        return iter(())

    def prompts(self, resolved: Resolved, names: Sequence[str]) -> Kind:
        given, system = resolved.recipe.eval, resolved.recipe.system_prompt
        assert given is not None
        chosen = {"limit": given.limit, "seed": given.seed} if given.limit else {}
        return Kind(PROMPTS, _tasks(resolved, names) | chosen | ({"system": system} if system else {}))

    def grade(self, resolved: Resolved, names: Sequence[str]) -> Kind:
        given = resolved.recipe.eval
        assert given is not None
        metrics = {name: metric for name, metric in given.metrics.items() if name in names}
        return Kind(
            GRADE, _tasks(resolved, names) | {"metrics": metrics, "thinking": resolved.recipe.thinking or "none"}
        )


def _tasks(resolved: Resolved, names: Sequence[str]) -> dict[str, Any]:
    return {"tasks": list(names), "paths": paths_of(resolved, names)}


HARNESS = LmEval()
