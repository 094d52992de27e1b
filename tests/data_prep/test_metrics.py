"""Evaluation metrics against values computed by hand, by enumeration and from tables."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.errors import DataError
from data_prep.evaluation import metrics


def row(prompt, k, score, *, task="arithmetic", level=None, **meta):
    outcome = meta.pop("outcome", "scored")
    meta = {"prompt_id": prompt, "sample": k, **({} if level is None else {"level": level}), **meta}
    return {"id": f"{prompt}/{k}", "source": task, "score": score, "outcome": outcome, "meta": meta}


def write_rows(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return str(path)


def test_task_result_by_hand():
    def answered(prompt, k, answer, right, tokens, **more):
        details = {"score_details": {"answer": answer}} if answer else {"outcome": "no_answer"}
        return row(prompt, k, float(right), tokens=tokens, **details, **more)

    rows = [
        answered("p", 0, "7", True, 10, level=2),
        answered("p", 1, " 7", True, 10, level=2),
        answered("p", 2, "8", False, 10, level=2),
        answered("p", 3, None, False, 30, level=2, finish_reason="length"),
        *(answered("q", k, "5", False, 10, level=10) for k in range(4)),
    ]
    random.Random(1).shuffle(rows)
    tasks, prompts, shown = metrics.evaluate(rows)
    found = tasks["arithmetic"]
    assert (found["prompts"], found["samples"]) == (2, 4)
    assert found["mean"] == 25
    assert found["pass_at"] == {"1": 25, "2": pytest.approx(50 * 5 / 6, abs=1e-3), "4": 50}
    assert found["maj_at"] == {"2": 50, "4": 50}  # p's 7 beats 8 by 2:1, q is wrong throughout
    assert found["outcomes"] == {"no_answer": 1, "scored": 7}
    assert found["truncated"] == 12.5
    assert found["mean_tokens"] == 12.5
    assert list(found["by"]["level"]) == ["2", "10"]
    assert found["by"]["level"]["2"]["mean"] == 50
    assert prompts[0] == {
        "task": "arithmetic", "prompt_id": "p", "mean": 50, "level": "2", "samples": 4, "right": 2, "tokens": 15
    }  # fmt: skip
    assert [r["score"] for r in shown] == [1, 1, 0, 0, 0, 0, 0, 0]


def test_majority_is_omitted_if_votes_are_unknown():
    tasks, _, _ = metrics.evaluate([row("p", k, 1.0) for k in range(4)])
    assert tasks["arithmetic"]["maj_at"] == {}
    assert tasks["arithmetic"]["pass_at"] == {"1": 100, "2": 100, "4": 100}


@pytest.mark.parametrize(
    ("answers", "right", "majority"),
    [
        (["0.5", r"\frac12", "1/2", "7", "7"], 3, 100),  # three spellings of the reference answer
        (["3", "3", r"\frac{1}{3}", "1/3", r"\dfrac13"], 2, 0),  # three spellings of one wrong answer
    ],
)
def test_majority_is_over_answers_not_spellings(answers, right, majority):
    rows = [
        row("p", k, float(k < right), task="math500", score_details={"answer": answer})
        for k, answer in enumerate(answers)
    ]
    assert metrics.evaluate(rows)[0]["math500"]["maj_at"]["5"] == majority


def test_a_partial_score_counts_in_the_mean_but_not_as_a_pass():
    tasks, _, _ = metrics.evaluate([row("p", 0, 0.5), row("q", 0, 1.0)])
    assert tasks["arithmetic"]["mean"] == 75
    assert tasks["arithmetic"]["pass_at"] == {"1": 50}


def test_pass_at_k_stops_at_the_smallest_number_of_samples():
    tasks, _, _ = metrics.evaluate([*(row("p", k, 1.0) for k in range(6)), *(row("q", k, 0.0) for k in range(3))])
    assert list(tasks["arithmetic"]["pass_at"]) == ["1", "2", "3"]


@given(st.integers(0, 2**32))
def test_shown_rows_do_not_depend_on_order(seed):
    rows = [row(f"p{i}", 0, float(i % 3 == 0)) for i in range(40)]
    shuffled = random.Random(seed).sample(rows, len(rows))
    assert metrics.evaluate(rows)[2] == metrics.evaluate(shuffled)[2]
    assert [r["score"] for r in metrics.evaluate(rows)[2]] == [1.0] * 6 + [0.0] * 6


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (row("p", 0, None), "score None"),
        (row("p", 0, math.nan), "score nan"),
        (row("p", 0, True), "score True"),
        ({**row("p", 0, 1.0), "source": ""}, "no source"),
        ({"id": "", "source": "t", "score": 1.0, "meta": 3}, "no meta.prompt_id"),
    ],
)
def test_invalid_rows_are_named(bad, message):
    with pytest.raises(DataError, match=message):
        metrics.evaluate([bad])


def test_a_repeated_row_is_rejected():
    with pytest.raises(DataError, match="rows given twice"):
        metrics.evaluate([row("p", 0, 1.0), row("p", 0, 1.0)])


def test_command_line_evaluates_and_compares(tmp_path, capsys):
    rng = random.Random(0)
    for label, rate in [("before", 0.3), ("after", 0.6), ("control", 0.4)]:
        rows = [row(f"p{i}", k, float(rng.random() < rate)) for i in range(80) for k in range(2)]
        half = len(rows) // 2
        paths = [write_rows(tmp_path / f"{label}{i}.jsonl", part) for i, part in enumerate((rows[:half], rows[half:]))]
        out = str(tmp_path / f"eval/{label}.json")
        argv = [
            "evaluate",
            "--rows",
            *paths,
            "--label",
            label,
            "--model",
            "m",
            "--decoding",
            '{"n": 2}',
            "--out",
            out,
        ]
        assert metrics.main(argv) == 0
    after = json.loads((tmp_path / "eval/after.json").read_text())
    assert after["label"] == "after"
    assert after["decoding"] == {"n": 2}
    assert after["tasks"]["arithmetic"]["prompts"] == 80
    assert len((tmp_path / "eval/after.prompts.jsonl").read_text().splitlines()) == 80
    assert len((tmp_path / "eval/after.samples.jsonl").read_text().splitlines()) == 12

    out = tmp_path / "compare.json"
    for other in ("before", "control", "before"):  # the second time in place of the first
        argv = [
            "compare",
            "--a",
            str(tmp_path / "eval/after.json"),
            "--b",
            str(tmp_path / f"eval/{other}.json"),
        ]
        assert metrics.main([*argv, "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert [(c["a"], c["b"]) for c in found] == [("after", "before"), ("after", "control")]
    assert found[0]["ci95"][0] > 0
    assert not list(tmp_path.glob("**/.*")), "temporary files stay behind"

    torn = tmp_path / "torn.jsonl"
    torn.write_text('{"id": "p/0"')
    assert metrics.main(["evaluate", "--rows", str(torn), "--label", "x", "--model", "m", "--out", str(out)]) == 2
    assert capsys.readouterr().err.startswith(f"{torn}: line 1: not JSON")
    assert json.loads(out.read_text()) == found


def test_the_command_imports_no_heavy_libraries():
    heavy = ("numpy", "jinja2", "sympy")
    code = f"import sys, data_prep.evaluation.metrics; print([m for m in {heavy} if m in sys.modules])"
    root = Path(__file__).parents[2]
    assert subprocess.check_output([sys.executable, "-c", code], text=True, cwd=root).strip() == "[]"


def test_questions_of_code_are_counted_by_skills_with_pass_at_k():
    pair, alone = {"k": 2, "skills": ["add", "sort"]}, {"k": 1, "skills": ["sort"]}
    asked = {"p": (pair, [1.0, 0.5, 0.0, 0.0]), "q": (pair, [1.0] * 4), "r": (alone, [0.0] * 4)}
    rows = [row(name, at, score) for name, (_, scores) in asked.items() for at, score in enumerate(scores)]
    for one in rows:
        one["meta"] |= asked[one["meta"]["prompt_id"]][0]
    found = metrics.evaluate(rows)[0]["arithmetic"]
    assert found["by"]["skills"]["add, sort"]["pass_at"] == {"1": 62.5, "2": 75.0, "4": 100.0}
    assert found["by"]["skills"]["sort"]["pass_at"]["4"] == 0
    assert list(found["by"]["level"]) == ["1", "2"]  # levels are the numbers of skills where rows name no other
    assert found["by"]["level"]["2"]["prompts"] == 2
    low, high = found["pass_ci95"]["1"]
    assert low < found["pass_at"]["1"] < high
    assert list(found["pass_ci95"]) == list(found["pass_at"])


def test_lengths_are_compared_if_both_evaluations_have_them(tmp_path):
    def evaluated(label, tokens):
        rows = [row(f"p{i}", k, 1.0, **({"tokens": tokens(i)} if tokens else {})) for i in range(20) for k in range(2)]
        out = str(tmp_path / f"{label}.json")
        rows = write_rows(tmp_path / f"{label}.jsonl", rows)
        assert metrics.main(["evaluate", "--rows", rows, "--label", label, "--model", "m", "--out", out]) == 0
        return Path(out)

    long, short = evaluated("before", lambda i: 100 + i), evaluated("after", lambda i: 50 + i)
    (found,) = metrics.compare(short, long)
    assert (found["tokens"]["a"], found["tokens"]["b"]) == (59.5, 109.5)
    assert found["tokens"]["change"] == pytest.approx(100 * (59.5 / 109.5 - 1), abs=1e-3)
    assert found["tokens"]["ci95"][0] < found["tokens"]["change"] < found["tokens"]["ci95"][1] < -40
    assert "tokens" not in metrics.compare(short, evaluated("untold", None))[0]
