"""lm-evaluation-harness: its prompts, the removed thought, its grading equal to its own evaluator's, the mini model."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import making
import pytest

from data_prep.core import pipeline
from data_prep.errors import DataError
from data_prep.evaluation import metrics
from data_prep.inference.apart import run_apart
from launchers import envs
from launchers.harnesses import lm_eval
from tests.conftest import REPO

# MATH-500's columns
SUMS = [
    {
        "problem": f"{a}+{b}=?",
        "solution": "",
        "answer": str(a + b),
        "subject": "sums",
        "level": 2,
        "unique_id": f"s/{a}",
    }
    for a, b in [(14, 52), (22, 30), (83, 53), (27, 22), (45, 54), (61, 17)]
]
SUMS_TASK = """
task: sums500
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/sums.jsonl}}}}
output_type: generate_until
test_split: test
doc_to_text: "{{{{problem}}}}"
doc_to_target: answer
generation_kwargs: {{until: ["\\n\\n"], max_gen_toks: 64}}
filter_list:
  - name: boxed
    filter: [{{function: regex, regex_pattern: 'boxed\\{{(-?[0-9]+)\\}}'}}, {{function: take_first}}]
  - name: last_number
    filter: [{{function: regex, regex_pattern: '(-?[0-9]+)', group_select: -1}}, {{function: take_first}}]
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
"""
# IFEval's columns and its own checks
FOLLOWED = [
    {"key": n, "prompt": text, "instruction_id_list": names, "kwargs": kwargs}
    for n, (text, names, kwargs) in enumerate(
        [
            ("Greet me without a comma.", ["punctuation:no_comma"], [{}]),
            ("Answer in lower case, in Spanish.", ["change_case:english_lowercase"], [{}]),
            ("Name the sea. Say the word blue twice.", ["keywords:frequency"],
             [{"relation": "at least", "keyword": "blue", "frequency": 2}]),
        ]
    )
]  # fmt: skip
FOLLOWED_TASK = """
task: following
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/following.jsonl}}}}
output_type: generate_until
test_split: test
num_fewshot: 0
doc_to_text: prompt
doc_to_target: 0
generation_kwargs: {{until: [], max_gen_toks: 1280}}
process_results: !function following.process_results
metric_list:
  - {{metric: prompt_level_strict_acc, aggregation: mean, higher_is_better: true}}
  - {{metric: inst_level_strict_acc, aggregation: !function following.agg_inst_level_acc, higher_is_better: true}}
  - {{metric: prompt_level_loose_acc, aggregation: mean, higher_is_better: true}}
  - {{metric: inst_level_loose_acc, aggregation: !function following.agg_inst_level_acc, higher_is_better: true}}
"""
CHOSEN_TASK = """
task: choosing
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/sums.jsonl}}}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{problem}}}}"
doc_to_choice: ["66", "52"]
doc_to_target: 0
metric_list: [{{metric: acc}}]
"""


@pytest.fixture(scope="module")
def harness() -> Path:
    return envs.ensure("lm_eval")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "tasks"
    place.mkdir()
    making.write_jsonl(place / "sums.jsonl", SUMS)
    making.write_jsonl(place / "following.jsonl", FOLLOWED)
    (place / "following.py").write_text(
        "from lm_eval.tasks.ifeval.utils import agg_inst_level_acc, process_results\n"
        '__all__ = ["agg_inst_level_acc", "process_results"]\n'
    )
    for name, text in (("sums500", SUMS_TASK), ("following", FOLLOWED_TASK), ("choosing", CHOSEN_TASK)):
        (place / f"{name}.yaml").write_text(text.format(folder=place))
    return place


def spec(folder: Path, names: list[str], answers: Path | None = None, **grade) -> pipeline.Spec:
    """Prompts, completions (of a file, or of the mini model), grades."""
    tasks = {"tasks": names, "paths": {name: str(folder / f"{name}.yaml") for name in names}}
    sampled = {"model": str(REPO / "recipes/mini/model"), "temperature": 0, "max_tokens": 64}
    steps = [
        {"name": "prompts", "kind": lm_eval.PROMPTS, "params": tasks},
        {"name": "generate", "kind": "generate", "params": sampled, "inputs": ["prompts"]}
        if answers is None
        else {"name": "answers", "kind": "load", "params": {"path": str(answers)}},
        {"name": "grade", "kind": lm_eval.GRADE, "params": {**tasks, **grade},
         "inputs": ["generate" if answers is None else "answers"]},
    ]  # fmt: skip
    return pipeline.Spec.model_validate(
        {"name": "test", "base": str(folder), "cache": str(folder.parent / "cache/steps"), "steps": steps}
    )


def step(made: pipeline.Spec, name: str, python: Path | None = None) -> list[dict]:
    """The rows of a step, run where its environment is."""
    if python is None:
        pipeline.run(made, [name])
    else:
        run_apart(made, [name], python)
    return list(pipeline.read_rows(pipeline.find(made, name)))


def test_the_mini_model_is_graded_and_counted_with_an_interval(folder: Path, harness: Path, vllm_python: Path) -> None:
    made = spec(folder, ["sums500"])
    prompts = step(made, "prompts", harness)
    assert [row["prompt"] for row in prompts] == [[{"role": "user", "content": row["problem"]}] for row in SUMS]
    step(made, "generate", vllm_python)
    rows = step(made, "grade", harness)
    file = folder / "spec.json"
    file.write_text(made.model_dump_json())
    assert metrics.main(["evaluate", "--spec", str(file), "--label", "after", "--model", "mini",
                         "--out", str(folder / "after.json")]) == 0  # fmt: skip
    result = json.loads((folder / "after.json").read_text())["tasks"]["sums500"]
    right = sum(row["completion"].endswith(f"boxed{{{sum_['answer']}}}") for row, sum_ in zip(rows, SUMS, strict=True))
    assert right >= 4  # of 6: the mini model adds two numbers
    assert result["mean"] == pytest.approx(100 * right / 6, abs=0.1)
    assert result["ci95"][0] < result["mean"] <= result["ci95"][1]
    assert result["metric"]["name"] == "exact_match"
    assert result["mean_tokens"] > 0


SAID = {
    "14+52=?": "<think>4+2=6\n\n1+5</think>It is \\boxed{66}.",
    "22+30=?": "<think>so \\boxed{52}",  # the thought never ends: it has no answer
    "83+53=?": "<think>x</think>136",  # for the second filter only
    "27+22=?": "<think>49</think>\\boxed{48}",  # wrong, though the thought is right
    "45+54=?": "<think></think>I add.\n\n\\boxed{99}",  # stops before its answer
    "61+17=?": "no thought \\boxed{78}",
    FOLLOWED[0]["prompt"]: "<think>A comma, here</think>Good morning!",
    FOLLOWED[1]["prompt"]: "<think>Hola</think>hello there, how are you today",
    FOLLOWED[2]["prompt"]: "<think>blue blue</think>The blue sea is deep.",
}
ANSWERS = {"22+30=?": "", "45+54=?": "I add.", "61+17=?": "no thought \\boxed{78}"}


def test_grades_are_the_harnesss_own_and_the_thought_is_in_none(folder: Path, harness: Path) -> None:
    names = ["sums500", "following"]
    prompts = step(spec(folder, names), "prompts", harness)
    about = {"22+30=?": {"finish_reason": "length"}}
    rows = []
    for row in prompts:
        asked = row["prompt"][-1]["content"]
        meta = {**row["meta"], "prompt_id": row["id"], **about.get(asked, {})}
        said = ANSWERS.get(asked, SAID[asked].rpartition("</think>")[2])
        rows.append({**row, "id": f"{row['id']}/0", "completion": SAID[asked], "said": said, "meta": meta})
    answers = making.write_jsonl(folder / "answers.jsonl", rows)
    made = spec(folder, names, answers, thinking="think")
    step(made, "answers")
    graded = step(made, "grade", harness)
    assert [(row["score"], row["outcome"]) for row in graded[:6]] == [
        (1, "scored"), (0, "truncated"), (0, "scored"), (0, "scored"), (0, "scored"), (1, "scored"),
    ]  # fmt: skip
    assert [row["score"] for row in graded[6:]] == [1, 1, 0]
    command = [str(harness), str(Path(__file__).with_name("lm_eval_itself.py")), str(folder), str(answers), *names]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(REPO)}, check=True
    )
    itself = json.loads(done.stdout.splitlines()[-1])
    ours = {
        name: [row["meta"]["score_details"]["metrics"] for row in graded if row["source"] == name] for name in names
    }
    for name, keys in {
        "sums500": ("exact_match,boxed", "exact_match,last_number"),
        "following": ("prompt_level_strict_acc,none", "prompt_level_loose_acc,none"),
    }.items():
        for key in keys:
            assert sum(row[key] for row in ours[name]) / len(ours[name]) == pytest.approx(itself[name][key]), key


@pytest.mark.parametrize(
    ("names", "grade", "problem"),
    [
        (["choosing"], {}, "choosing compares log-likelihoods of options (multiple_choice)"),
        (
            ["following"],
            {"metrics": {"following": "inst_level_strict_acc"}},
            "is no mean over questions: choose one of",
        ),
        (
            ["sums500"],
            {"metrics": {"sums500": "bleu"}},
            "bleu is not among its metrics: choose one of exact_match,boxed",
        ),
    ],
)
def test_what_cannot_be_counted_is_one_line(folder: Path, harness: Path, capfd, names, grade, problem) -> None:
    about = {"task": names[0], "number": 0, "until": []}
    row = {"id": "a", "prompt": [{"role": "user", "content": "x"}], "completion": "y", "source": names[0]}
    answers = making.write_jsonl(folder / "answers.jsonl", [{**row, "meta": {"lm_eval": about}}])
    made = spec(folder, names, answers, **grade)
    step(made, "answers")
    with pytest.raises(DataError):
        step(made, "grade", harness)
    assert problem in capfd.readouterr().err


def test_a_task_file_that_is_not_there_and_a_changed_one(folder: Path) -> None:
    made = spec(folder, ["sums500"])
    key = pipeline.jobs(made)[0].key
    assert pipeline.jobs(made)[0].key == key
    (folder / "sums500.yaml").write_text((folder / "sums500.yaml").read_text() + "num_fewshot: 0\n")
    assert pipeline.jobs(made)[0].key != key
    with pytest.raises(DataError, match="paths: absent: no file"):
        pipeline.jobs(spec(folder, ["absent"]))


def test_popqa_counts_any_of_its_answers(folder: Path, harness: Path) -> None:
    """The family's own task file, with its data replaced by two questions in PopQA's columns."""
    source = REPO / "recipes/long_cot/tasks/lm_eval"
    rows = [
        {"id": 1, "question": "What is Paris the capital of?", "possible_answers": '["France", "French Republic"]'},
        {"id": 2, "question": "Who wrote Emma?", "possible_answers": '["Jane Austen", "Austen"]'},
    ]
    making.write_jsonl(folder / "popqa.jsonl", rows)
    data = f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {folder}/popqa.jsonl}}}}"
    (folder / "popqa.yaml").write_text(
        (source / "popqa.yaml").read_text().replace("dataset_path: akariasai/PopQA", data)
    )
    (folder / "popqa.py").write_text((source / "popqa.py").read_text())
    prompts = step(spec(folder, ["popqa"]), "prompts", harness)
    said = ["It is the french republic.", "Charlotte Brontë"]
    answers = [{**row, "completion": text} for row, text in zip(prompts, said, strict=True)]
    made = spec(folder, ["popqa"], making.write_jsonl(folder / "answers.jsonl", answers))
    step(made, "answers")
    assert [row["score"] for row in step(made, "grade", harness)] == [1, 0]
