"""lm-evaluation-harness: its prompts, removal of thoughts, grading equal to the harness's own evaluator."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import making
import pytest

from data_prep.core import pipeline
from data_prep.errors import DataError
from data_prep.inference.interpreters import run_with
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
    (place / "lacking.py").write_text(
        "import nltk\ndef process_results(doc, results):\n    nltk.data.find('tokenizers/no_such_data')\n"
    )
    lacking = FOLLOWED_TASK.replace("task: following", "task: lacking").replace("following.process", "lacking.process")
    tasks = {"sums500": SUMS_TASK, "following": FOLLOWED_TASK, "choosing": CHOSEN_TASK, "lacking": lacking}
    for name, text in tasks.items():
        (place / f"{name}.yaml").write_text(text.format(folder=place))
    return place


def spec(folder: Path, names: list[str], answers: Path | None = None, **grade) -> pipeline.Spec:
    """Prompts, and grades of the completions in a file."""
    tasks = {"tasks": names, "paths": {name: str(folder / f"{name}.yaml") for name in names}}
    steps: list[dict] = [{"name": "prompts", "kind": lm_eval.PROMPTS, "params": tasks}]
    if answers is not None:
        steps.append({"name": "answers", "kind": "load", "params": {"path": str(answers)}})
        steps.append({"name": "grade", "kind": lm_eval.GRADE, "params": {**tasks, **grade}, "inputs": ["answers"]})
    return pipeline.Spec.model_validate(
        {"name": "test", "base": str(folder), "cache": str(folder.parent / "cache/steps"), "steps": steps}
    )


def step(made: pipeline.Spec, name: str, python: Path | None = None) -> list[dict]:
    """The rows of a step, run in its environment."""
    if python is None:
        pipeline.run(made, [name])
    else:
        run_with(made, [name], python)
    return list(pipeline.read_rows(pipeline.find(made, name)))


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


def test_grades_equal_the_harnesss_without_thoughts(folder: Path, harness: Path) -> None:
    names = ["sums500", "following"]
    prompts = step(spec(folder, names), "prompts", harness)
    assert [row["prompt"] for row in prompts[:6]] == [[{"role": "user", "content": row["problem"]}] for row in SUMS]
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
            "is not a mean over questions: choose one of",
        ),
        (
            ["sums500"],
            {"metrics": {"sums500": "bleu"}},
            "bleu is not among its metrics: choose one of exact_match,boxed",
        ),
        (["lacking"], {}, "lm_eval's lacking: NLTK's no_such_data is missing"),
    ],
)
def test_unusable_metrics_are_a_one_line_error(folder: Path, harness: Path, capfd, names, grade, problem) -> None:
    about = {"task": names[0], "number": 0, "until": []}
    row = {"id": "a", "prompt": [{"role": "user", "content": "x"}], "completion": "y", "source": names[0]}
    answers = making.write_jsonl(folder / "answers.jsonl", [{**row, "meta": {"lm_eval": about}}])
    made = spec(folder, names, answers, **grade)
    step(made, "answers")
    with pytest.raises(DataError):
        step(made, "grade", harness)
    assert problem in capfd.readouterr().err


def test_missing_and_changed_task_files(folder: Path) -> None:
    made = spec(folder, ["sums500"])
    key = pipeline.jobs(made)[0].key
    assert pipeline.jobs(made)[0].key == key
    (folder / "sums500.yaml").write_text((folder / "sums500.yaml").read_text() + "num_fewshot: 0\n")
    assert pipeline.jobs(made)[0].key != key
    with pytest.raises(DataError, match="paths: absent: no such file"):
        pipeline.jobs(spec(folder, ["absent"]))


GRID = {"header": ["House", "Name", "Drink"], "rows": [["1", "Ann", "tea"], ["2", "Bo", "milk"]]}
GRID_RIGHT = '{"House 1": {"Name": "ann", "Drink": "Tea "}, "House 2": {"Name": "Bo", "Drink": "milk"}}'


def _ifbench(number: int, check: str, **given: object) -> dict:
    return {"key": str(number), "prompt": check, "instruction_id_list": [check], "kwargs": [given]}


# Rows in a benchmark's columns, and answers: to which row, the text, its score.
OURS: dict[str, tuple[list, list[tuple[int, str, int]]]] = {
    "popqa": (
        [
            {"id": 1, "question": "Capital of what is Paris?", "possible_answers": '["France", "French Republic"]'},
            {"id": 2, "question": "Who wrote Emma?", "possible_answers": '["Jane Austen", "Austen"]'},
        ],
        [(0, "It is the french republic.", 1), (1, "Charlotte Brontë", 0)],
    ),
    "ifbench": (
        [_ifbench(1, "format:no_whitespace"), _ifbench(2, "format:quote_unquote"),
         _ifbench(3, "count:keywords_multiple", **{f"keyword{n}": letter for n, letter in enumerate("abcde", 1)})],
        [(0, "Here\nlikethis", 1), (0, "like this", 0), (1, "!!", 0), (1, 'I "quote" it.', 1),
         (2, "abbcccdddddeeeeeee", 1), (2, "abbccc", 0)],
    ),
    "zebralogic": (
        [{"id": "z1", "size": "2*2", "puzzle": "Two houses. Ann drinks tea.", "solution": GRID}],
        [(0, f"First {{}}.\n```json\n{GRID_RIGHT}\n```", 1),
         (0, f'{{"reasoning": "a\nb", "solution": {GRID_RIGHT}}}', 1),
         (0, GRID_RIGHT.replace("milk", "tea"), 0), (0, f"{GRID_RIGHT} No: {{}}", 0), (0, '{"a":' * 30_000, 0),
         (0, "Ann, tea; Bo, milk", 0), (0, '{"House 1": ["Ann", "tea"], "solution": 3}', 0)],
    ),
}  # fmt: skip


def test_task_files_of_ours(folder: Path, harness: Path) -> None:
    """The family's own task files, with their data replaced by rows in its columns."""
    source = REPO / "recipes/long_cot/tasks/lm_eval"
    for name, (rows, _) in OURS.items():
        making.write_jsonl(folder / f"{name}.jsonl", rows)
        data = f"dataset_path: json\ndataset_kwargs: {{data_files: {{SPLIT: {folder}/{name}.jsonl}}}}"
        lines = (source / f"{name}.yaml").read_text().splitlines()
        (split,) = (line.partition(": ")[2] for line in lines if line.startswith("test_split"))
        lines = [line for line in lines if not line.startswith("dataset_")]
        (folder / f"{name}.yaml").write_text("\n".join([*lines, data.replace("SPLIT", split)]))
        (folder / f"{name}.py").write_text((source / f"{name}.py").read_text())
    prompts = step(spec(folder, [*OURS]), "prompts", harness)
    completed, expected = [], []
    for name, (rows, answers) in OURS.items():
        own = [row for row in prompts if row["source"] == name]
        assert len(own) == len(rows)
        completed += [{**own[at], "id": f"{name}/{n}", "completion": text} for n, (at, text, _) in enumerate(answers)]
        expected += [(name, score) for _, _, score in answers]
    made = spec(folder, [*OURS], making.write_jsonl(folder / "answers.jsonl", completed))
    step(made, "answers")
    assert [(row["source"], row["score"]) for row in step(made, "grade", harness)] == expected
