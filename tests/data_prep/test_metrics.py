"""Evaluation numbers against figures computed by hand, by enumeration and from tables."""

from __future__ import annotations

import itertools
import json
import math
import random
import subprocess
import sys
from pathlib import Path
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep import metrics
from data_prep.errors import DataError


def row(prompt, k, score, *, task="arithmetic", level=None, **meta):
    outcome = meta.pop("outcome", "scored")
    meta = {"prompt_id": prompt, "sample": k, **({} if level is None else {"level": level}), **meta}
    return {"id": f"{prompt}/{k}", "source": task, "score": score, "outcome": outcome, "meta": meta}


def write_rows(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return str(path)


@given(st.data())
def test_pass_at_k_is_the_share_of_draws_with_a_right_sample(data):
    n = data.draw(st.integers(1, 9))
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    draws = list(itertools.combinations([1] * c + [0] * (n - c), k))
    assert metrics.pass_at_k(n, c, k) == pytest.approx(fmean(any(d) for d in draws))


@given(st.integers(1, 200), st.data())
def test_pass_at_k_is_bounded_grows_with_k_and_at_one_is_the_share(n, data):
    c = data.draw(st.integers(0, n))
    values = [metrics.pass_at_k(n, c, k) for k in range(1, n + 1)]
    assert values[0] == pytest.approx(c / n)
    assert values[-1] == (1 if c else 0)
    assert all(0 <= a <= b <= 1 for a, b in itertools.pairwise(values))


@pytest.mark.parametrize(("n", "c", "k"), [(4, 5, 1), (4, -1, 1), (4, 2, 0), (4, 2, 5)])
def test_pass_at_k_refuses_impossible_counts(n, c, k):
    with pytest.raises(ValueError, match="pass@k needs"):
        metrics.pass_at_k(n, c, k)


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        ([("7", 1), ("7", 1), ("9", 0), ("3", 0)], 1.0),
        ([("7", 1), ("9", 0), ("9", 0), ("3", 0)], 0.0),
        ([("7", 1), ("7", 1), ("9", 0), ("9", 0)], 0.5),  # two tied answers, one right
        ([("7", 1), ("8", 0), ("9", 0)], 1 / 3),
        ([(None, 0), (None, 0), ("7", 1)], 1.0),  # who has no answer does not vote
        ([(None, 0), (None, 0)], 0.0),
    ],
)
def test_majority(votes, expected):
    assert metrics.majority(votes) == pytest.approx(expected)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), min_size=1), st.randoms())
def test_majority_does_not_depend_on_order(votes, rng):
    right = {"a": 1.0, "b": 0.0, "c": 0.0}
    votes = [(answer, right[answer]) for answer, _ in votes]
    shuffled = rng.sample(votes, len(votes))
    assert metrics.majority(votes) == metrics.majority(shuffled)


@pytest.mark.parametrize(
    ("df", "table"),
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (30, 2.042), (120, 1.980), (10**6, 1.960)],
)
def test_t_quantile_agrees_with_the_printed_table(df, table):
    assert metrics.t_quantile(df) == pytest.approx(table, abs=5e-4)


def test_wilson_agrees_with_a_published_example():
    # Newcombe 1998 (Statistics in Medicine 17:857), table I, method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29
    z = 1.959964
    for right, n, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        assert metrics.wilson(right / n, n, z) == pytest.approx((low, high), abs=5e-5)


def test_interval_by_hand():
    # means 0, 0, 1, 1: mean 0.5, sd sqrt(1/3), stderr sqrt(1/12) = 0.288675, effective n = .25 / (1/12) = 3,
    # t(3) = 3.18245; Wilson: centre 0.5, half = t/(1+t²/3) · sqrt(.25/3 + t²/36) = 0.439170
    found = metrics.interval([0, 0, 1, 1])
    assert found["mean"] == 50
    assert found["stderr"] == pytest.approx(28.8675, abs=1e-3)
    assert found["ci95"] == pytest.approx([6.083, 93.917], abs=1e-3)


def test_interval_in_the_middle_is_mean_plus_minus_two_stderr():
    means = [1.0] * 540 + [0.0] * 460
    found = metrics.interval(means)
    assert found["ci95"][0] == pytest.approx(54 - 1.96 * found["stderr"], abs=0.05)
    assert found["ci95"][1] == pytest.approx(54 + 1.96 * found["stderr"], abs=0.05)


def test_interval_claims_no_certainty_when_all_prompts_agree():
    assert metrics.interval([1.0] * 40)["ci95"] == pytest.approx([90.72, 100], abs=0.01)
    assert metrics.interval([0.0] * 40)["ci95"] == pytest.approx([0, 9.28], abs=0.01)
    assert metrics.interval([1.0])["ci95"][0] < 25


def test_interval_of_rewards_outside_zero_to_one_is_not_squeezed():
    found = metrics.interval([-1.0, 1.0, -1.0, -1.0])
    assert found["mean"] == -50
    assert found["ci95"][0] == pytest.approx(-50 - 3.18245 * 50, abs=0.01)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60))
def test_interval_holds_its_mean_and_stays_within_bounds(means):
    found = metrics.interval(means)
    low, high = found["ci95"]
    assert 0 <= low <= found["mean"] + 1e-3
    assert found["mean"] - 1e-3 <= high <= 100
    assert low < high


def test_interval_covers_the_truth_19_times_in_20_with_clustered_samples():
    # 60 prompts of very different difficulty, 8 samples each: as 480 independent ones they would cover 64 %.
    rng, hits, trials = random.Random(0), 0, 1500
    for _ in range(trials):
        truth = [rng.betavariate(0.3, 0.7) for _ in range(60)]
        means = [fmean(rng.random() < p for _ in range(8)) for p in truth]
        low, high = metrics.interval(means)["ci95"]
        hits += low <= 30 <= high
    assert 0.93 <= hits / trials <= 0.97


def test_paired_by_hand():
    # differences 100, 0, 0, 50: mean 37.5, sd 47.871, stderr 23.936, t(3) = 3.18245
    found = metrics.paired({"p": 100, "q": 50, "r": 0, "s": 100, "x": 1}, {"p": 0, "q": 50, "r": 0, "s": 50})
    assert found["prompts"] == 4
    assert found["difference"] == 37.5
    assert found["stderr"] == pytest.approx(23.936, abs=1e-3)
    assert found["ci95"] == pytest.approx([max(-100, 37.5 - 76.174), 100], abs=0.01)


def test_paired_without_change_keeps_room_for_what_was_not_seen():
    same = {str(i): 100.0 for i in range(40)}
    assert metrics.paired(same, same)["ci95"] == pytest.approx([-9.28, 9.28], abs=0.01)


@given(st.dictionaries(st.text("pq", min_size=1), st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=1))
def test_paired_is_antisymmetric(values):
    a, b = ({p: v[i] for p, v in values.items()} for i in (0, 1))
    forth, back = metrics.paired(a, b), metrics.paired(b, a)
    assert forth["difference"] == -back["difference"]
    assert forth["ci95"] == [-back["ci95"][1], -back["ci95"][0]]


def test_paired_without_a_common_prompt_is_refused():
    with pytest.raises(DataError, match="no prompt in common"):
        metrics.paired({"a": 1.0}, {"b": 1.0})


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
        "task": "arithmetic", "prompt_id": "p", "mean": 50, "level": "2", "samples": 4, "right": 2
    }  # fmt: skip
    assert [r["score"] for r in shown] == [1, 1, 0, 0, 0, 0, 0, 0]


def test_majority_is_left_out_where_votes_are_unknown():
    tasks, _, _ = metrics.evaluate([row("p", k, 1.0) for k in range(4)])
    assert tasks["arithmetic"]["maj_at"] == {}
    assert tasks["arithmetic"]["pass_at"] == {"1": 100, "2": 100, "4": 100}


def test_a_partial_score_counts_in_the_mean_but_is_no_pass():
    tasks, _, _ = metrics.evaluate([row("p", 0, 0.5), row("q", 0, 1.0)])
    assert tasks["arithmetic"]["mean"] == 75
    assert tasks["arithmetic"]["pass_at"] == {"1": 50}


def test_pass_at_k_goes_no_further_than_the_prompt_with_fewest_samples():
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
def test_rows_that_cannot_be_counted_are_named(bad, message):
    with pytest.raises(DataError, match=message):
        metrics.evaluate([bad])


def test_a_row_given_twice_is_refused():
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
    assert capsys.readouterr().err.startswith(f"metrics evaluate: {torn}:1: not JSON")
    assert json.loads(out.read_text()) == found


def test_standard_library_only():
    heavy = ("numpy", "pydantic", "jinja2")
    code = f"import sys, data_prep.metrics; print([m for m in {heavy} if m in sys.modules])"
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
