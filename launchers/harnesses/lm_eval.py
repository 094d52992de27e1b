"""EleutherAI's lm-evaluation-harness: its generative tasks by name, and task files in its format (`eval.paths`)."""

from collections.abc import Iterator, Sequence
from typing import Any

from launchers.errors import Fault
from launchers.harnesses import Kind, chosen
from launchers.plan.pipelines import paths_of
from launchers.recipe.compose import Resolved

PROMPTS = "data_prep.steps.lm_eval:LmEvalPrompts"
GRADE = "data_prep.steps.lm_eval:LmEvalGrade"


def faults(resolved: Resolved, names: Sequence[str]) -> Iterator[Fault]:
    """None: task names are known only in the harness's environment; its first step rejects unknown ones."""
    return iter(())


def prompts(resolved: Resolved, names: Sequence[str]) -> Kind:
    """The tasks' questions with the harness's prompts."""
    return Kind(PROMPTS, _tasks(resolved, names) | chosen(resolved))


def grade(resolved: Resolved, names: Sequence[str]) -> Kind:
    """Grade answers with the tasks' own metrics."""
    metrics = {name: metric for name, metric in resolved.eval.metrics.items() if name in names}
    thinking = resolved.recipe.thinking or "none"
    return Kind(GRADE, _tasks(resolved, names) | {"metrics": metrics, "thinking": thinking})


def _tasks(resolved: Resolved, names: Sequence[str]) -> dict[str, Any]:
    return {"tasks": list(names), "paths": paths_of(resolved, names)}
