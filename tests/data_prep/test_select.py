"""Selection: kept rows, drop reasons, and independence of the input order."""

import random

import making
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.core.step import Context, Drop
from data_prep.steps.select import Select


def samples(prompts: int = 20, each: int = 4) -> list[dict]:
    """Prompt p passes with its first p % (each + 1) samples; later samples are shorter."""
    return [
        {
            "id": f"p{p}/{k}",
            "prompt": [{"role": "user", "content": f"question {p}"}],
            "completion": "x" * (100 - k),
            "score": float(k < p % (each + 1)),
            "outcome": "scored" if p % 6 else "no_answer",
            "source": "even" if p % 2 == 0 else "odd",
            "meta": {
                "prompt_id": f"p{p}",
                "sample": k,
                "level": p % 3 + 1,
                "difficulty": "easy" if p < 5 else "hard",
            },
        }
        for p in range(prompts)
        for k in range(each)
    ]


def select(rows: list[dict], **params) -> tuple[list[dict], dict[str, int]]:
    step = Select(Select.Params(**params))
    kept, drops = [], {}
    for output in step.apply(rows, Context(None, None)):
        if isinstance(output, Drop):
            drops[output.reason] = drops.get(output.reason, 0) + 1
        else:
            kept.append(output)
    assert len(kept) + sum(drops.values()) == len(rows)
    return kept, drops


def test_filters_and_their_reasons():
    rows = samples()
    kept, drops = select(rows, outcome="scored", min_score=1, level=[2, 3], meta={"difficulty": "hard"})
    assert all(
        row["outcome"] == "scored"
        and row["score"] == 1
        and row["meta"]["level"] >= 2
        and row["meta"]["difficulty"] == "hard"
        for row in kept
    )
    assert set(drops) == {
        "outcome no_answer",
        "score below minimum",
        "level outside range",
        "difficulty not wanted",
    }


@pytest.mark.parametrize(("level", "kept"), [(3, True), ("3", True), ("Level 3", True), (None, False), ("x", False)])
def test_levels_in_all_spellings(level, kept):
    row = {**samples()[0], "meta": {"level": level}}
    assert bool(select([row], level=[3, 5])[0]) == kept


def test_a_row_without_the_field_is_not_reported_as_out_of_range():
    rows = [{**samples()[0], "meta": meta} for meta in ({}, {"difficulty": None}, {"difficulty": 9}, {"difficulty": 3})]
    kept, drops = select(rows, between={"difficulty": [2, 4]})
    assert kept == rows[3:]
    assert drops == {"no difficulty": 2, "difficulty outside range": 1}


def test_pass_rate_uses_all_samples_of_a_prompt():
    kept, drops = select(samples(), pass_rate=[0.25, 0.75], min_score=1)
    assert {row["meta"]["prompt_id"] for row in kept} == {f"p{p}" for p in range(20) if 1 <= p % 5 <= 3}
    assert drops == {"score below minimum": 40, "pass rate outside range": 16}


def test_per_prompt_and_its_orders():
    rows = samples()
    first, _ = select(rows, per_prompt=2)
    assert [row["id"] for row in first[:4]] == ["p0/0", "p0/1", "p1/0", "p1/1"]
    shortest, drops = select(rows, per_prompt=1, order="shortest")
    assert {row["meta"]["sample"] for row in shortest} == {3}
    assert drops == {"over per_prompt": 60}
    a, b, again = (select(rows, per_prompt=1, order="random", seed=seed)[0] for seed in (1, 2, 1))
    assert a == again != b


def test_n_rows_are_sampled():
    rows = samples()
    kept, drops = select(rows, n=10, seed=3)
    assert (len(kept), drops) == (10, {"not drawn": 70})


def test_rows_without_a_score_are_bad():
    rows = samples()
    del rows[0]["score"]
    outputs = list(Select(Select.Params(min_score=1)).apply(rows, Context(None, None)))
    assert outputs[0] == Drop("missing score", "p0/0", bad=True)


@settings(max_examples=60, deadline=None)
@given(
    st.randoms(use_true_random=False),
    st.fixed_dictionaries(
        {"n": st.integers(1, 40), "seed": st.integers(0, 5)},
        optional={
            "per_prompt": st.integers(1, 3),
            "order": st.sampled_from(["first", "shortest", "random"]),
            "pass_rate": st.just([0.2, 0.8]),
        },
    ),
)
def test_selection_is_independent_of_row_order(rng: random.Random, params):
    rows = samples()
    shuffled = rng.sample(rows, len(rows))
    chosen, other = select(rows, **params)[0], select(shuffled, **params)[0]
    assert {row["id"] for row in chosen} == {row["id"] for row in other}
    assert [row["id"] for row in other] == [row["id"] for row in shuffled if row in chosen]


def test_in_a_pipeline(tmp_path):
    making.write_jsonl(tmp_path / "in.jsonl", samples())
    manifest, found = making.run(
        tmp_path, ("load", {"path": "in.jsonl"}), ("select", {"min_score": 1, "per_prompt": 1})
    )
    assert len(found) == 16
    assert manifest.drops == {"score below minimum": 40, "over per_prompt": 24}
