"""Functions composed of skills: golds that pass in the sandbox, tests that catch near misses, disjoint splits."""

from __future__ import annotations

import itertools
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

import rewards
from data_prep.core.registry import step_class
from data_prep.core.rows import check
from data_prep.core.step import Context
from data_prep.families.mini import curriculum, functions
from data_prep.families.mini.functions import SKILLS, Problem, Use

EVERY = {1: 20, 2: 60, 3: 60}


def rows(split: str, chain: str = "short", levels: dict[int, int] | None = None, seed: int = 0) -> list[dict]:
    return curriculum.questions(levels or EVERY, split, chain=chain, seed=seed, subject="functions")


def problem(text: str) -> Problem:
    """`add 3; even` as a problem."""
    by_phrase = {
        skill.phrase.format(n=n): Use(name, n if skill.numbered else 0)
        for name, skill in SKILLS.items()
        for n in skill.numbers
    }
    return Problem(tuple(by_phrase[part] for part in text.split("; ")))


@pytest.mark.parametrize(("split", "chain"), [("train", "short"), ("test", "long")])
def test_golds_pass_their_tests_in_the_sandbox_and_stubs_do_not(split, chain):
    found = rows(split, chain, {1: 5, 2: 20, 3: 25})
    golds = rewards.load("code").score_many(found, [row["completion"] for row in found], 2)
    assert {(score.value, score.outcome) for score in golds} == {(1.0, "scored")}
    for stub in ("return xs", "return 0", "return []", "pass"):
        program = f"```python\ndef f(xs):\n    {stub}\n```"
        stubs = rewards.load("code", value="all").score_many(found[:10], [program] * 10, 2)
        assert {score.value for score in stubs} == {0.0}, stub


def test_every_skill_as_python_means_what_the_interpreter_says():
    by_skill = {p.uses[0].skill: p for p in functions.listed(1, "train")}
    found = [functions.row(p, "short") for p in by_skill.values()]
    assert {row["meta"]["skills"][0] for row in found} == set(SKILLS)
    scores = rewards.load("code").score_many(found, [row["completion"] for row in found], 2)
    assert all(score.value == 1 for score in scores)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_row_is_a_question_with_its_gold(split):
    for row in rows(split):
        assert check(row, ("prompt", "completion", "tests", "references")) is None
        assert row["completion"] == f"```python\n{row['references'][0]}\n```"
        assert row["meta"]["split"] == {"train": "train", "test": "held_out"}[split]
        assert row["meta"]["k"] == row["meta"]["level"] == len(row["meta"]["skills"])
        cases = row["tests"]["cases"]
        assert len(cases) >= functions.CASES
        assert [] in [case["args"][0] for case in cases]
        assert min(number for case in cases for number in case["args"][0]) < 0


def test_a_long_chain_plans_before_the_same_program():
    short, long = rows("test"), rows("test", "long")
    for a, b in zip(short, long, strict=True):
        plan, _, fence = b["completion"].partition("```")
        assert "```" + fence == a["completion"]
        assert [line.split(". ")[1] for line in plan.splitlines()] == a["id"].removeprefix("functions/").split("; ")
        assert a["tests"] == b["tests"]


def test_no_train_question_has_a_held_out_pair_in_that_order_or_a_held_out_number():
    pairs = {
        kind: {pair for row in rows(kind, levels={1: 30, 2: 300, 3: 300}) for pair in _pairs(row)}
        for kind in ("train", "test")
    }
    assert not any(functions.held_out(*pair) for pair in pairs["train"])
    assert len(pairs["test"] - pairs["train"]) > 15
    train_numbers = {use for row in rows("train", levels={1: 150, 2: 200}) for use in _uses(row)}
    assert not any(use.held_out for use in train_numbers)
    for row in rows("test"):
        assert any(functions.held_out(*pair) for pair in _pairs(row)) or any(use.held_out for use in _uses(row))


def _pairs(row):
    return list(itertools.combinations(row["meta"]["skills"], 2))


def _uses(row):
    return problem(row["id"].removeprefix("functions/").split("#")[0]).uses


def test_both_orders_of_a_pair_can_be_on_different_sides():
    names = [name for name, skill in SKILLS.items() if not skill.ends]
    split = [(a, b) for a, b in itertools.permutations(names, 2) if functions.held_out(a, b)]
    assert any(not functions.held_out(b, a) for a, b in split)
    share = len(split) / (len(names) * (len(names) - 1))
    assert 0.1 < share < 0.25


@settings(deadline=None, max_examples=8)
@given(st.dictionaries(st.integers(1, 3), st.integers(1, 30), min_size=1), st.integers(0, 2**32))
def test_rows_are_deterministic_distinct_and_of_the_requested_levels(levels, seed):
    for split in ("train", "test"):
        found = rows(split, levels=levels, seed=seed)
        assert found == rows(split, levels=levels, seed=seed)
        assert len({row["id"] for row in found}) == len(found) == sum(levels.values())
        assert {n: sum(row["meta"]["level"] == n for row in found) for n in levels} == levels


def test_seeds_differ_and_repetitions_have_distinct_ids():
    assert rows("train", seed=0) != rows("train", seed=1)
    found = curriculum.questions({1: 600}, distinct=False, subject="functions")
    assert len({row["id"] for row in found}) == 600
    assert len({row["prompt"][0]["content"] for row in found}) <= functions.capacity(1, "train")


@pytest.mark.parametrize(
    "text", ["sort; sum", "even; even", "negate; count", "above 50; below 20", "sort; reverse; max"]
)
def test_questions_with_a_redundant_skill_are_rejected(text):
    assert not functions.makes_sense(problem(text))


def test_near_misses_fail_a_test():
    """A skill omitted, two swapped, a number off by one: nearly every mutant that differs at all fails a test."""
    rng = random.Random(3)
    caught, differing = 0, 0
    for _ in range(60):
        one = curriculum.drawn(functions, rng.choice([2, 3]), "test", 1, rng, True)[0]
        cases = functions.cases(one)
        probes = [functions.drawn_list(rng, one, 9) for _ in range(80)]
        for slip in functions.neighbours(one):
            if any(functions.run(slip, probe) != functions.run(one.uses, probe) for probe in probes):
                differing += 1
                caught += any(functions.run(slip, case["args"][0]) != case["expected"] for case in cases)
    assert differing > 200
    assert caught / differing > 0.95


def test_impossible_levels_are_named():
    for levels, message in (
        ({4: 1}, "no level 4; levels are 1 to 3"),
        ({1: 5000}, "distinct test questions requested, only"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            rows("test", levels=levels)
        with pytest.raises(ValidationError, match=re.escape(message)):
            step_class("curriculum").Params(subject="functions", split="test", levels=levels)


def test_the_step_gives_the_subject(tmp_path):
    cls = step_class("curriculum")
    given_params = {"subject": "functions", "levels": {"2": 3}, "split": "test", "chain": "long", "seed": 5}
    step = cls(cls.Params.model_validate(given_params))
    with step.open(Context(tmp_path, tmp_path)) as apply:
        assert list(apply([], 0)) == rows("test", "long", {2: 3}, seed=5)
