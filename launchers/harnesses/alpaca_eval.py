"""AlpacaEval 2: `eval.judge` compares each answer with a baseline's (`eval.paths`: another file of the same shape)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from launchers.errors import Fault
from launchers.harnesses.base import Kind
from launchers.plan.pipelines import paths_of
from launchers.recipe.compose import Resolved

# the benchmark's 805 instructions with gpt4_1106_preview's answers; its repository has no releases to pin
BASELINE = {"hub": "tatsu-lab/alpaca_eval", "revision": "main", "files": ["alpaca_eval_gpt4_baseline.json"]}
COLUMNS = {"prompt": "instruction", "answer": "output"}


class AlpacaEval:
    """One task, whose name is the recipe's to choose."""

    def faults(self, resolved: Resolved, names: Sequence[str]) -> Iterator[Fault]:
        given = resolved.recipe.eval
        assert given is not None
        if given.judge is None:
            yield resolved.fault("eval.judge", "missing: alpaca_eval asks a model which of two answers is better")
        if given.n > 1:
            yield resolved.fault("eval.n", f"alpaca_eval judges one answer to a question, not {given.n}: give 1")
        if len(names) > 1:
            yield resolved.fault("eval.tasks", f"alpaca_eval has one task, not {', '.join(names)}")
        if given.limit and given.judge and given.judge.length_controlled:
            needed = "length control needs all questions: leave out eval.limit, or eval.judge.length_controlled=false"
            yield resolved.fault("eval.limit", needed)

    def prompts(self, resolved: Resolved, names: Sequence[str]) -> Kind:
        given, system = resolved.recipe.eval, resolved.recipe.system_prompt
        assert given is not None
        paths = paths_of(resolved, names)
        where: dict[str, Any] = {"path": paths[names[0]]} if paths else BASELINE
        chosen = {"limit": given.limit, "seed": given.seed} if given.limit else {}
        named = {"columns": COLUMNS, "source": names[0], **({"system": system} if system else {})}
        return Kind("load", where | named | chosen)

    def grade(self, resolved: Resolved, names: Sequence[str]) -> Kind:
        given = resolved.recipe.eval
        assert given is not None
        assert given.judge is not None
        return Kind(
            "data_prep.steps.alpaca_eval:AlpacaEvalGrade",
            {**given.judge.model_dump(), "thinking": resolved.recipe.thinking or "none"},
        )


HARNESS = AlpacaEval()
