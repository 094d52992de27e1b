"""AlpacaEval 2: `eval.judge` compares each answer with a baseline answer (`eval.paths` sets another baseline file)."""

from collections.abc import Iterator, Sequence
from typing import Any

from launchers.errors import Fault
from launchers.harnesses import Kind, chosen
from launchers.plan.pipelines import paths_of
from launchers.recipe.compose import Resolved

# the benchmark's 805 instructions with gpt4_1106_preview's answers; its repository has no releases to pin
BASELINE = {"hub": "tatsu-lab/alpaca_eval", "revision": "main", "files": ["alpaca_eval_gpt4_baseline.json"]}
COLUMNS = {"prompt": "instruction", "answer": "output"}


def faults(resolved: Resolved, names: Sequence[str]) -> Iterator[Fault]:
    """Faults of the recipe. The benchmark is one task with any name."""
    given = resolved.eval
    if given.judge is None:
        yield resolved.fault("eval.judge", "missing: alpaca_eval needs a judge model")
    if given.n > 1:
        yield resolved.fault("eval.n", f"alpaca_eval judges one answer per question, not {given.n}: use 1")
    if len(names) > 1:
        yield resolved.fault("eval.tasks", f"alpaca_eval has one task, not {', '.join(names)}")
    if given.limit and given.judge and given.judge.length_controlled:
        needed = "length control needs all questions: remove eval.limit, or set eval.judge.length_controlled=false"
        yield resolved.fault("eval.limit", needed)


def prompts(resolved: Resolved, names: Sequence[str]) -> Kind:
    """Load the benchmark's questions, or those of a local file."""
    paths = paths_of(resolved, names)
    where: dict[str, Any] = {"path": paths[names[0]]} if paths else BASELINE
    return Kind("load", where | {"columns": COLUMNS, "source": names[0]} | chosen(resolved))


def grade(resolved: Resolved, names: Sequence[str]) -> Kind:
    """Compare each answer with the baseline's."""
    assert resolved.eval.judge is not None
    thinking = resolved.recipe.thinking or "none"
    return Kind(
        "data_prep.steps.alpaca_eval:AlpacaEvalGrade", {**resolved.eval.judge.model_dump(), "thinking": thinking}
    )
