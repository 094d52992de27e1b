"""Groups for off-line GRPO: every sample of a question, its advantage in the group; no spread, no group."""

import pytest
from scored_samples import build, sample, samples


def test_advantages_are_normalised_in_the_group(tmp_path):
    manifest, found = build(tmp_path, samples({"q1": [1, 0, 0, 1], "q2": [1, 1], "q0": [0.5]}), "groups")
    assert manifest.drops == {"group without spread": 1, "question with too few samples": 1}
    assert [row["id"] for row in found] == [f"q1/{n}" for n in range(4)]
    std = (1 / 3) ** 0.5
    wanted = [0.5 / (std + 1e-6) * sign for sign in (1, -1, -1, 1)]
    assert [row["meta"]["advantage"] for row in found] == pytest.approx(wanted, abs=1e-8)
    assert sum(row["meta"]["advantage"] for row in found) == pytest.approx(0, abs=1e-7)
    assert found[2]["meta"]["group"] == {"size": 4, "place": 2, "mean": 0.5, "std": pytest.approx(std)}
    (_, raw) = build(tmp_path / "raw", samples({"q": [1, 0, 0.5]}), "groups", scale="mean")
    assert [row["meta"]["advantage"] for row in raw] == [0.5, -0.5, 0]


def test_truncated_samples_count_and_faults_of_the_grader_do_not(tmp_path):
    rows = samples({"q": [1, 0, 0, 0]})
    rows[1] |= {"outcome": "truncated"}
    rows[2] |= {"outcome": "no_answer", "completion": "I give up."}
    rows[3] |= {"outcome": "error"}
    manifest, found = build(tmp_path, rows, "groups")
    assert [row["id"] for row in found] == ["q/0", "q/1", "q/2"]
    assert manifest.drops == {"outcome error": 1}


def test_equal_answers_stay_in_their_group(tmp_path):
    rows = [sample("q", n, float(n > 1), "x + 1" if n > 1 else "x") for n in range(4)]
    assert len(build(tmp_path, rows, "groups")[1]) == 4


def test_the_order_of_rows_changes_no_byte(tmp_path):
    rows = samples({f"q{n}": [((n * 3 + k * k) % 7) / 7 for k in range(9)] for n in range(12)})
    results = {build(tmp_path / str(seed), rows, "groups", seed)[0].sha256 for seed in range(4)}
    assert len(results) == 1
