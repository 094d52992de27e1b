"""`eval.harness`: whose a task is, the steps of an evaluation, what is refused. test_own.py runs one."""

from __future__ import annotations

from typing import Any

import pytest

from data_prep.core import pipeline
from launchers import harnesses
from launchers.checks import preflight
from launchers.harnesses import lm_eval
from launchers.plan import plan
from launchers.recipe import compose
from launchers.recipe.compose import Overrides, parse_settings
from rewards.thinking import PRESETS


def resolved(*settings: str, name: str = "long_cot/sft_llama_base_think") -> compose.Resolved:
    return compose.resolve(name, Overrides(None, tuple(parse_settings(settings))))


def steps(*settings: str, **given: str) -> dict[str, tuple[str, tuple[str, ...], dict[str, Any]]]:
    spec = plan.eval_spec(resolved(*settings, **given), "after", "/model", None)
    return {step.name: (step.kind, step.inputs, step.params) for step in spec.steps}


def test_whose_a_task_is() -> None:
    asked = "eval.tasks=[math500, ifeval, lm_eval/gsm8k, alpaca_eval/ours]"
    given = resolved("eval.harness=lm_eval", asked).recipe.eval
    assert harnesses.by_harness(given) == {
        "ours": ["math500"], "lm_eval": ["ifeval", "lm_eval/gsm8k"], "alpaca_eval": ["alpaca_eval/ours"],
    }  # fmt: skip
    assert harnesses.ours(given) == ["math500"]
    assert harnesses.measured(["ifeval", "math500"]).name == "accuracy"


def test_one_generation_serves_all_and_each_grades_its_own() -> None:
    made = steps("eval=_eval_rules.yaml")
    assert [(name, kind) for name, (kind, _, _) in made.items()] == [
        ("load", "load"), ("load_lm_eval", lm_eval.PROMPTS), ("generate", "generate"), ("select_0", "select"),
        ("score_0", "score"), ("select_lm_eval", "select"), ("score_lm_eval", lm_eval.GRADE),
    ]  # fmt: skip
    assert made["generate"][1] == ("load", "load_lm_eval")
    assert {key: made["generate"][2][key] for key in ("temperature", "top_p", "max_tokens")} == {
        "temperature": 0.7, "top_p": 0.95, "max_tokens": 8192,
    }  # fmt: skip
    assert made["score_lm_eval"][2]["thinking"] == "think"
    assert made["select_lm_eval"][2]["source"] == [
        "ifeval", "ifbench", "mmlu_redux_generative", "popqa", "zebralogic",
    ]  # fmt: skip
    alone = steps("eval.harness=lm_eval", "eval.tasks=[ifeval]")
    assert list(alone) == ["load_lm_eval", "generate", "score_lm_eval"]


@pytest.mark.parametrize("thinking", [*PRESETS, None])
@pytest.mark.parametrize("file", ["_eval_rules.yaml", "_eval_alpaca.yaml"])
def test_every_thinking_format_is_graded(file: str, thinking: str | None) -> None:
    made = resolved(f"eval={file}", f"thinking={thinking or 'null'}", name="long_cot/sft_llama_base_nothink")
    spec = plan.eval_spec(made, "after", "/model", None)
    assert pipeline.check(spec.steps) == []
    params = {step.name: step.params for step in spec.steps}
    assert params["generate"]["max_tokens"] == 4096
    assert params["score_lm_eval" if "score_lm_eval" in params else "score_alpaca_eval"]["thinking"] == (
        thinking or "none"
    )


def test_alpaca_eval_has_a_baseline_and_a_judge() -> None:
    made = steps("eval=_eval_alpaca.yaml")
    assert list(made) == ["load_alpaca_eval", "generate", "score_alpaca_eval"]
    assert made["load_alpaca_eval"][2]["hub"] == "tatsu-lab/alpaca_eval"
    assert made["score_alpaca_eval"][2] == {
        "model": "gpt-4o", "base_url": "https://api.openai.com/v1", "api_key_env": "OPENAI_API_KEY",
        "length_controlled": True, "thinking": "think",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (("eval.tasks=[ifeval]",), "no task 'ifeval' in configs/tasks"),
        (("eval.harness=lm_evl",), "'lm_evl' is not one of ours, lm_eval, alpaca_eval; did you mean 'lm_eval'?"),
        (
            ("eval=_eval_rule.yaml",),
            "no such file in recipes/long_cot: _eval_rule.yaml; did you mean '_eval_rules.yaml'?",
        ),
        (("eval.harness=alpaca_eval", "eval.tasks=[alpaca_eval]"), "eval.judge: missing"),
        (("eval=_eval_alpaca.yaml", "eval.n=2"), "alpaca_eval judges one answer per question, not 2"),
        (("eval=_eval_alpaca.yaml", "eval.limit=10"), "length control needs all questions"),
        (("eval=_eval_alpaca.yaml", "eval.tasks=[a, b]"), "alpaca_eval has one task, not a, b"),
        (("eval.harness=lm_eval", "eval.tasks=[x]", "eval.paths.x=nowhere.yaml"), "no such file"),
        (("eval=_eval_alpaca.yaml", "eval.judge.base_url=api.openai.com"), "base_url: String should match pattern"),
    ],
)
def test_what_cannot_be_is_said_before_anything_starts(settings: tuple[str, ...], problem: str) -> None:
    try:
        _, faults = preflight.check(resolved(*settings))
    except compose.UserError as error:
        faults = list(error.faults)
    assert any(problem in str(fault) for fault in faults), [str(fault) for fault in faults]


def test_online_rl_validates_on_tasks_of_ours_and_evaluates_on_both() -> None:
    name = "long_cot/grpo_llama_base_think"
    both = "eval.tasks=[wildchat_if_val, ifeval]"
    _, faults = preflight.check(resolved("eval.harness=lm_eval", both, name=name))
    assert not faults
    _, faults = preflight.check(resolved("eval.harness=lm_eval", "eval.tasks=[ifeval]", name=name))
    assert "needs a task of configs/tasks in eval.tasks" in str(faults)
    _, faults = preflight.check(resolved("eval=_eval_rules.yaml", name=name), trains=False)
    assert not faults  # a model as it is
