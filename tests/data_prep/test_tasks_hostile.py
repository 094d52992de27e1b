"""Records with arbitrary content give a well-formed row or a drop with a reason."""

from __future__ import annotations

import json

import pytest
import task_fixtures as ours
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.core import rows
from data_prep.core.step import Drop
from data_prep.sources import benchmarks, tasks
from rewards.code.suites import read

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
SUITES = st.fixed_dictionaries(
    {"inputs": st.lists(VALUES, max_size=3), "outputs": st.lists(VALUES, max_size=3)},
    optional={"fn_name": VALUES},
)
CASES = st.lists(
    st.fixed_dictionaries(
        {"input": VALUES, "output": VALUES}, optional={"testtype": st.sampled_from(["stdin", "functional", 3])}
    ),
    max_size=3,
)
TEXTS = VALUES | VALUES.map(json.dumps)


def sound(made: object) -> None:
    if isinstance(made, Drop):
        assert made.reason
        return
    assert isinstance(made, dict)
    assert rows.check({**made, "source": "s"}, ("prompt",)) is None
    if "tests" in made:
        read(made["tests"])


@pytest.mark.parametrize("kind", ["apps", "taco"])
@settings(max_examples=200, deadline=None)
@given(st.data())
def test_apps_and_taco(kind, data):
    tests = data.draw(SUITES | VALUES)
    given_tests = data.draw(st.sampled_from([tests, json.dumps(tests)]))
    record = ours.contest_row(1, {}, input_output=given_tests)
    record |= data.draw(st.dictionaries(st.sampled_from(sorted(set(record) - {"input_output"})), TEXTS, max_size=3))
    sound(benchmarks.convert(record, kind, {}))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_livecodebench(data):
    cases = data.draw(CASES | VALUES)
    packed = data.draw(st.sampled_from([cases, json.dumps(cases), ours.pack(json.dumps(cases)), ours.pack(cases)]))
    record = ours.live_row(1, private=packed)
    record |= data.draw(st.dictionaries(st.sampled_from(sorted(record)), TEXTS, max_size=3))
    sound(benchmarks.convert(record, "livecodebench", {}))


@pytest.mark.parametrize("name", ["gpqa_diamond", "mmlu", "mmlu_pro"])
@settings(max_examples=100, deadline=None)
@given(st.data())
def test_options(name, data):
    task, fixture = tasks.read(name), ours.FIXTURES[name]
    assert task.choices is not None
    assert fixture is not None
    record = dict(fixture.cases[0].record)
    record |= data.draw(st.dictionaries(st.sampled_from(sorted(record)), VALUES, max_size=3))
    made = benchmarks.convert(record, task.choices, task.columns)
    sound(made)
    if not isinstance(made, Drop):
        assert f"\n{made['answer']}) " in made["prompt"][0]["content"]
