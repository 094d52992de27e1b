"""`eval.harness`: whose a task is, the steps of an evaluation, what is refused, a run of lm_eval on a CPU."""

from __future__ import annotations

import json
from pathlib import Path
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
from tests.conftest import Repo


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


TASK = """
task: sums500
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
output_type: generate_until
test_split: test
doc_to_text: "{{{{problem}}}}"
doc_to_target: answer
generation_kwargs: {{until: []}}
filter_list:
  - name: last
    filter: [{{function: regex, regex_pattern: "(-?[0-9]+)", group_select: -1}}, {{function: take_first}}]
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""


def test_a_run_has_both_kinds_of_tasks_in_one_report(repo: Repo, tmp_path: Path) -> None:
    """The mini model as it is, on sums of ours and on a task file of the harness's format."""
    sums = [{"problem": f"{a}+{b}=?", "answer": str(a + b)} for a, b in [(14, 52), (22, 30), (83, 53), (27, 22)]]
    data = repo.write("tasks/sums.jsonl", "".join(json.dumps(row) + "\n" for row in sums))
    file = repo.write("tasks/sums500.yaml", TASK.format(file=data))
    words = ["eval.harness=lm_eval", "eval.tasks=[arithmetic, sums500]", "eval.limit=4", f"eval.paths.sums500={file}"]
    given = " ".join(f"'{word}'" for word in words)
    done = repo.make("eval/min_o1/sft_short", "SCALE=mini", "MODEL=recipes/mini/model", f"SET={given}")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    run = next(repo.path.glob("runs/min_o1/sft_short/*/eval/after.json")).parents[1]
    made = json.loads((run / "eval/after.json").read_text())["tasks"]
    assert {task: one["prompts"] for task, one in made.items()} == {"arithmetic": 4, "sums500": 4}
    assert made["sums500"]["metric"]["name"] == "exact_match"
    low, high = made["sums500"]["ci95"]
    assert low < made["sums500"]["mean"] <= high
    page = (run / "report.html").read_text()
    assert "sums500" in page
    assert "exact_match" in page
