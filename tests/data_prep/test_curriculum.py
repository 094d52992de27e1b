"""The curriculum: right sums, disjoint splits, deterministic rows."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from data_prep.core.registry import step_class
from data_prep.core.step import Context
from data_prep.families.mini import arithmetic, curriculum
from data_prep.families.mini.arithmetic import Problem

two_digits = st.integers(10, 99)
problems = st.one_of(
    st.tuples(st.integers(0, 9), st.integers(0, 9)).map(lambda terms: Problem(1, terms)),
    st.lists(two_digits, min_size=2, max_size=5).map(lambda terms: Problem(len(terms), tuple(terms))),
)
chains = st.sampled_from(["short", "long"])
ADDITION = re.compile(r"(\d+)\+(\d+):(.+)>(\d+)")


def checked_total(line: str) -> int:
    """The total of one written addition, after its columns were checked against plain arithmetic."""
    match = ADDITION.fullmatch(line)
    assert match, line
    a, b, columns, total = match.groups()
    carry, digits = 0, ""
    for place, column in enumerate(columns.split(",")):
        left, value = column.split("=")
        parts = [int(part) for part in left.split("+")]
        expected = [int(a[::-1][place : place + 1] or 0), int(b[::-1][place : place + 1] or 0)] + [1] * carry
        assert parts == expected
        assert int(value) == sum(parts)
        carry, digits = int(value) // 10, str(int(value) % 10) + digits
    assert int(f"{carry}{digits}") == int(total) == int(a) + int(b)
    return int(total)


@given(problems, chains)
def test_every_line_of_a_chain_is_right_and_ends_in_the_answer(problem, chain):
    *lines, box = arithmetic.solve(problem, chain).split("\n")
    assert problem.answer == str(sum(problem.terms))
    assert box == f"\\boxed{{{problem.answer}}}"
    additions = [line for line in lines if ">" in line]
    rounds = 2 if chain == "long" else 1
    assert len(additions) == rounds * (len(problem.terms) - 1)
    totals = [checked_total(line) for line in additions]
    assert totals == list(itertools.accumulate(problem.terms))[1:] * rounds


@given(problems)
def test_a_long_chain_is_the_short_one_with_a_check_before_the_box(problem):
    *short, box = arithmetic.solve(problem, "short").split("\n")
    long = arithmetic.solve(problem, "long").split("\n")
    assert long[: len(short)] == short
    assert long[len(short)] == "check"
    assert long[-2:] == [f"{problem.answer}={problem.answer}", box]


@given(problems, st.randoms())
def test_a_reordered_question_stays_in_its_split(problem, rng):
    terms = list(problem.terms)
    rng.shuffle(terms)
    assert Problem(problem.level, tuple(terms)).split == problem.split


@settings(deadline=None, max_examples=15)
@given(st.dictionaries(st.integers(2, 5), st.integers(1, 60), min_size=1), st.integers(0, 2**32), chains)
def test_rows_are_deterministic_distinct_and_of_the_requested_levels(levels, seed, chain):
    train = curriculum.questions(levels, "train", seed=seed, chain=chain)
    assert train == curriculum.questions(levels, "train", seed=seed, chain=chain)
    test = curriculum.questions(levels, "test", seed=seed, chain=chain)
    ids = [row["id"] for row in train + test]
    assert len(set(ids)) == len(ids) == 2 * sum(levels.values())
    for split in (train, test):
        assert {n: sum(row["meta"]["level"] == n for row in split) for n in levels} == levels
    for row in train:
        assert row["answer"] == row["completion"].rsplit("\\boxed{", 1)[1].removesuffix("}")
        assert row["prompt"] == [{"role": "user", "content": row["id"].removeprefix("arithmetic/") + "=?"}]


def test_seeds_differ():
    assert curriculum.questions({3: 20}, seed=0) != curriculum.questions({3: 20}, seed=1)


def test_repeated_questions_have_distinct_ids():
    rows = curriculum.questions({1: 500}, distinct=False)
    assert len({row["id"] for row in rows}) == 500
    assert len({row["prompt"][0]["content"] for row in rows}) <= arithmetic.capacity(1, "train")


def test_both_splits_partition_an_enumerated_level():
    both = arithmetic.listed(2, "train") + arithmetic.listed(2, "test")
    assert len(set(both)) == 90 * 90
    assert 0.08 < len(arithmetic.listed(2, "test")) / len(both) < 0.12


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ({6: 1}, "no level 6; levels are 1 to 5"),
        ({3: 0}, "level 3 has count 0"),
        ({1: 1000}, "level 1: 1000 distinct train questions requested, only "),
        ({3: 700_000}, "level 3: 700000 distinct"),
    ],
)
def test_impossible_levels_are_named(levels, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        curriculum.questions(levels)
    with pytest.raises(ValidationError, match=re.escape(message)):
        step_class("curriculum").Params(levels=levels)


def test_the_step_gives_the_curriculum(tmp_path):
    cls = step_class("curriculum")
    step = cls(cls.Params.model_validate({"levels": {"2": 3, "4": 2}, "split": "test", "chain": "long", "seed": 5}))
    assert step.scope == "source"
    with step.open(Context(tmp_path, tmp_path)) as apply:
        found = list(apply([], 0))
    assert found == curriculum.questions({2: 3, 4: 2}, "test", chain="long", seed=5)
