"""Skills files, tuples of skills, and what is held out."""

from __future__ import annotations

import json
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.core import pipeline
from data_prep.core.step import Row
from data_prep.errors import DataError
from data_prep.families.skill_mix.skills import (
    held_out_pairs,
    is_held_out,
    pairs_of,
    read_exclusions,
    read_skills,
    tuples,
)

REPO = Path(__file__).resolve().parents[2]
FAMILY = REPO / "recipes" / "skill_mix"
SIX = "".join(f"{name} | about {name}\n" for name in ("sorting", "graphs", "strings", "maps", "bits", "dates"))


def skills_file(folder: Path, text: str) -> Path:
    path = folder / "skills.txt"
    path.write_text(text)
    return path


def make_tuples(folder: Path, text: str = SIX, **params: Any) -> list[Row]:
    skills_file(folder, text)
    given = {"skills": "skills.txt", "language": "python", **params}
    step = pipeline.StepSpec(name="skill_tuples", kind="skill_tuples", params=given)
    spec = pipeline.Spec(name="test", base=folder, cache=folder / "cache", steps=(step,))
    pipeline.run(spec)
    return list(pipeline.read_rows(pipeline.find(spec)))


def test_comments_blank_lines_and_spaces(tmp_path: Path) -> None:
    path = skills_file(tmp_path, "# ours\n\n  sorting | put in order | and keep ties \nbits|flags\n")
    assert read_skills([path]) == {"bits": "flags", "sorting": "put in order | and keep ties"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sorting | order\nhashing\n", ":2: 'hashing' has no description; write `hashing | what a question"),
        ("sorting |  \n", ":1: 'sorting' has no description"),
        (" | order\n", ":1: no name before the |"),
        ("sorting | a\n\nSorting | b\n", ":3: 'Sorting' is already in"),
        ("two words | a\ntwo_words | b\n", ":2: 'two_words' is already in"),
        ("a, b | both\n", ":1: 'a, b' has a comma or a plus"),
        ("# nothing\n", "no skills found; write one per line"),
    ],
)
def test_bad_skills_files(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(DataError, match=r"skills\.txt") as caught:
        read_skills([skills_file(tmp_path, text)])
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"sorting": ["graps"]}', "no skill 'graps' in the skills files; did you mean 'graphs'?"),
        ('{"sortin": ["graphs"]}', "no skill 'sortin' in the skills files; did you mean 'sorting'?"),
        ('{"sorting": "graphs"}', "sorting: Input should be a valid list"),
        ('{"sorting": ["sorting"]}', "excludes itself"),
        ('["sorting"]', "Input should be a valid dictionary"),
        ('{"sorting": [', "not JSON"),
    ],
)
def test_bad_exclusions(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "not.json").write_text(text)
    with pytest.raises(DataError, match=r"not\.json") as caught:
        read_exclusions(tmp_path / "not.json", ["sorting", "graphs"])
    assert said in str(caught.value)


def test_dense_tuples_exclude_pairs_at_every_size() -> None:
    names = ["a", "b", "c", "d"]
    excluded = frozenset({("a", "b")})
    assert len(tuples(names, 2, excluded, None, 0)) == 5
    assert tuples(names, 3, excluded, None, 0) == [("a", "c", "d"), ("b", "c", "d")]
    assert tuples(names, 4, excluded, None, 0) == []


def test_samples_depend_only_on_the_seed() -> None:
    names = [f"s{i:02d}" for i in range(30)]
    first = tuples(names, 3, frozenset(), 50, 7)
    assert first == tuples(list(reversed(names)), 3, frozenset(), 50, 7)
    assert first != tuples(names, 3, frozenset(), 50, 8)
    assert len(set(first)) == 50


def test_too_many_tuples_are_refused() -> None:
    names = [f"s{i:03d}" for i in range(200)]
    with pytest.raises(DataError, match="64,684,950 tuples of 4 out of 200 skills, more than 1,000,000: lower k"):
        tuples(names, 4, frozenset(), 20, 0)


@given(st.integers(2, 12), st.floats(0.05, 0.9), st.integers(0, 1000))
@settings(max_examples=50)
def test_a_held_out_pair_is_in_no_training_tuple(size: int, share: float, seed: int) -> None:
    names = [f"s{i:02d}" for i in range(size)]
    held = held_out_pairs(combinations(names, 2), share, seed)
    assert held
    for k in (1, 2, 3, 4):
        for one in tuples(names, min(k, size), frozenset(), None, seed):
            if not is_held_out(one, held):
                assert not held.intersection(pairs_of(one))


def test_rows_of_the_step(tmp_path: Path) -> None:
    rows = make_tuples(tmp_path, k=[1, 2, 3], n={3: 4}, per_tuple=5, held_out=0.2, seed=3)
    assert Counter(row["meta"]["k"] for row in rows) == {1: 6, 2: 15, 3: 4}
    assert rows[0] == {
        "id": "python/bits",
        "source": "skill_mix",
        "meta": {
            "k": 1,
            "skills": ["bits"],
            "descriptions": ["about bits"],
            "language": "python",
            "split": "train",
            "questions": 5,
        },
    }
    held = {tuple(row["meta"]["skills"]) for row in rows if row["meta"]["split"] == "held_out"}
    assert sum(len(one) == 2 for one in held) == 3
    train = [row["meta"]["skills"] for row in rows if row["meta"]["split"] == "train"]
    assert not held & {pair for skills in train for pair in pairs_of(skills)}


def test_sampled_and_held_out_tuples_differ(tmp_path: Path) -> None:
    text = "".join(f"s{i:02d} | about it\n" for i in range(30))
    rows = make_tuples(tmp_path, text, k=2, n=100, held_out=0.1, seed=1)
    held = sum(row["meta"]["split"] == "held_out" for row in rows)
    assert len(rows) == 100
    assert 1 <= held <= 25


def test_faults_are_reported_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"step 'skill_tuples': .*'hashing' has no description"):
        make_tuples(tmp_path, "sorting | a\nhashing\n")
    with pytest.raises(DataError, match="2 skills, fewer than k = 3"):
        make_tuples(tmp_path, "sorting | a\nbits | b\n", k=3)


def test_our_own_lists_can_be_read() -> None:
    paths = sorted((FAMILY / "skills").glob("*.txt"))
    skills = read_skills(paths)
    assert len(skills) >= 40
    excluded = read_exclusions(FAMILY / "skills" / "not_together.json", skills)
    assert len(excluded) == sum(map(len, json.loads((FAMILY / "skills" / "not_together.json").read_text()).values()))
