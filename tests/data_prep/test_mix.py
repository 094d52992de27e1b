"""Mixtures: counts per part, no duplicate prompts, labels, seeded order."""

import random

import making
import pytest

from data_prep.core import pipeline
from data_prep.errors import DataError

SOURCES = {"apps": 40, "taco": 30, "algebra": 60, "puzzles": 10}
PARTS = {
    "code": {"sources": ["apps", "taco"], "n": 50},
    "math": {"sources": {"algebra": 20}},
    "puzzle": {"sources": ["puzzles"]},
}


def rows() -> list[dict]:
    return [
        {"id": str(n), "prompt": f"{source} {n}", "completion": "c", "source": source, "meta": {"prompt_id": f"p{n}"}}
        for source, count in SOURCES.items()
        for n in range(count)
    ]


def mix(folder, given=None, **params):
    """A file and a `load` per source; as in real sources, ids are unique only within a source."""
    given = rows() if given is None else given
    names = list(dict.fromkeys(row["source"] for row in given))
    for name in names:
        making.write_jsonl(folder / f"{name}.jsonl", [row for row in given if row["source"] == name])
    steps = [{"name": name, "kind": "load", "params": {"path": f"{name}.jsonl"}} for name in names]
    steps.append({"name": "mix", "kind": "mix", "params": {"parts": PARTS, **params}, "inputs": names})
    chain = making.spec(folder).model_copy(update={"steps": tuple(map(pipeline.StepSpec.model_validate, steps))})
    manifest = pipeline.run(chain)[-1]
    return manifest, list(pipeline.read_rows(pipeline.find(chain)))


def test_parts_have_their_counts_and_rows_their_labels(tmp_path):
    manifest, found = mix(tmp_path, seed=3)
    assert sum(count for label, count in manifest.counts.items() if label.startswith("code: ")) == 50
    assert manifest.counts["math: algebra"] == 20
    assert manifest.counts["puzzle: puzzles"] == 10
    assert manifest.drops == {"not drawn": 60}
    assert len({row["id"] for row in found}) == 80, "ids that sources share are told apart"
    for row in found:
        source, at = row["id"].split(":")
        assert row["meta"]["provenance"] == {"source": source, "id": at}
        assert row["meta"]["prompt_id"] == f"{source}:p{at}"
        assert row["meta"]["category"] == {"apps": "code", "taco": "code", "algebra": "math"}.get(source, "puzzle")
    assert [row["source"] for row in found[:20]] != sorted(row["source"] for row in found[:20]), "shuffled"


def test_selection_and_order_depend_only_on_the_seed(tmp_path):
    shuffled = rows()
    random.Random(5).shuffle(shuffled)
    runs = []
    for name, given, seed in (("a", rows(), 1), ("b", shuffled, 1), ("c", rows(), 2)):
        (tmp_path / name).mkdir()
        runs.append([row["id"] for row in mix(tmp_path / name, given, seed=seed)[1]])
    assert runs[0] == runs[1]
    assert set(runs[0]) != set(runs[2])


@pytest.mark.parametrize(("distinct", "left"), [("prompt", 1), ("text", 2), ("nothing", 3)])
def test_a_shared_prompt_goes_to_the_first_part(tmp_path, distinct, left):
    given = [
        {"id": "1", "prompt": "Same  question", "completion": "one", "source": "b"},
        {"id": "1", "prompt": "same question", "completion": "one", "source": "a"},
        {"id": "2", "prompt": "SAME question", "completion": "two", "source": "b"},
    ]
    parts = {"first": {"sources": ["a"]}, "second": {"sources": ["b"]}}
    manifest, found = mix(tmp_path, given, parts=parts, distinct=distinct)
    assert len(found) == left
    assert "a:1" in {row["id"] for row in found}
    if distinct == "prompt":
        assert manifest.drops == {"duplicate": 2}
        assert manifest.examples["duplicate"][0] == {"row_id": "1", "detail": "repeats a:1"}


def test_rows_of_no_part_are_counted(tmp_path):
    parts = {name: part for name, part in PARTS.items() if name != "puzzle"}
    manifest, _ = mix(tmp_path, parts=parts)
    assert manifest.drops["source in no part"] == 10


def test_a_part_with_too_few_rows_is_an_error_unless_least_allows_it(tmp_path):
    parts = {**PARTS, "code": {"sources": ["apps", "taco"], "n": 75}}
    assert sum(mix(tmp_path, parts=parts)[0].counts.values()) == 100, "70 of 75 are more than nine tenths"
    with pytest.raises(DataError, match=r"part 'code': apps, taco have 70 rows, but 75 are requested"):
        mix(tmp_path, parts=parts, least=1.0)


def test_a_source_without_rows_is_named_with_the_nearest(tmp_path):
    with pytest.raises(DataError, match=r"no row has source 'algebr'.*'algebra'"):
        mix(tmp_path, parts={"math": {"sources": ["algebr"]}})


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"a": {"sources": ["x"]}, "b": {"sources": ["x"]}}, "'x' is in parts 'a' and 'b'"),
        ({"a": {"sources": {"x": 3}, "n": 4}}, "not both"),
        ({"a": {"sources": []}}, "at least 1"),
        ({"a": {"sources": {"x": 0}}}, "greater than 0"),
        ({}, "at least 1"),
    ],
)
def test_invalid_parts(tmp_path, parts, said):
    with pytest.raises(DataError, match=said):
        mix(tmp_path, parts=parts)
