"""Preference pairs: score order, bounds, balanced lengths."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scored_samples import block, build, code, sample, samples
from tokenizers import Tokenizer

from data_prep.core.fingerprint import REPO
from data_prep.core.step import Context, Drop
from data_prep.errors import DataError
from data_prep.steps.pairs import Pairs, PairsParams
from data_prep.text.chat_template import ChatTemplate


def made(rows: list[dict], **params) -> tuple[list[dict], list[Drop]]:
    """The step's output for rows."""
    outputs = list(Pairs(PairsParams(**params)).apply(rows, Context("", "")))
    return [one for one in outputs if not isinstance(one, Drop)], [one for one in outputs if isinstance(one, Drop)]


def ids(rows: list[dict]) -> list[tuple[str, str]]:
    return [(row["meta"]["chosen_id"], row["meta"]["rejected_id"]) for row in rows]


def test_one_pair_per_question_with_its_lineage(tmp_path):
    rows = samples({"q1": [0.2, 1, 0.6], "q2": [1, 1], "q3": [0, 0], "q4": [1, 0.8]})
    manifest, (pair,) = build(tmp_path, rows, "pairs", max_dispreferred=0.6)
    assert manifest.drops == {"question without spread": 2, "question without a pair within bounds": 1}
    assert pair["id"] == "q1/1>q1/0"
    assert (pair["completion"], pair["rejected"]) == (rows[1]["completion"], rows[0]["completion"])
    assert pair["score"] == 1
    assert pair["meta"] == {
        "prompt_id": "q1", "skills": ["a", "b"], "chosen_id": "q1/1", "rejected_id": "q1/0", "rejected_score": 0.2,
        "margin": 0.8,
    }  # fmt: skip
    assert (pair["prompt"], pair["tests"]) == (rows[0]["prompt"], rows[0]["tests"])


def test_code_only_or_the_whole_completion(tmp_path):
    (pair,) = build(tmp_path, samples({"q": [0, 1]}), "pairs", column="code")[1]
    assert (pair["completion"], pair["rejected"]) == (block(code("x + 1")), block(code("x + 0")))


def test_bounds():
    rows = samples({"q": [1.0, 0.8, 0.6, 0.4, 0.2, 0.0]})
    assert ids(made(rows, per_prompt=3, max_dispreferred=0.6)[0]) == [("q/0", "q/5"), ("q/1", "q/4"), ("q/2", "q/3")]
    everything = {tuple(pair) for pair in ids(made(rows, per_prompt=99, max_dispreferred=0.6)[0])}
    assert len(everything) == 14  # 15, without 1.0 over 0.8
    assert {b for _, b in everything} == {"q/2", "q/3", "q/4", "q/5"}
    assert {a for a, _ in ids(made(rows, per_prompt=99, min_preferred=0.8)[0])} == {"q/0", "q/1"}
    assert ids(made(rows, per_prompt=99, margin=0.9)[0]) == [("q/0", "q/5")]
    assert len(made(rows, per_prompt=99)[0]) == 15


def test_the_same_code_is_never_on_both_sides():
    rows = [sample("q", 0, 1, "x + 1"), sample("q", 1, 0, "x + 1"), sample("q", 2, 1, "y"), sample("q", 3, 0, "z")]
    found, drops = made(rows, per_prompt=9)
    assert ids(found) == [("q/2", "q/3")]
    assert [drop.reason for drop in drops] == ["same code, other score"] * 2


def test_identical_samples_give_no_pair(tmp_path):
    with pytest.raises(DataError, match="1 question without spread"):
        build(tmp_path, [sample("q", n, 1, "x + 1") for n in range(4)], "pairs")


def test_samples_of_two_runs_may_share_ids():
    rows = [sample("q", 0, score, body) for score, body in ((1, "x + 1"), (0, "x"))]
    for row, by in zip(rows, ("generate-aaa", "generate-bbb"), strict=True):
        row["meta"]["generated_by"] = by
    assert ids(made(rows)[0]) == [("generate-aaa:q/0", "generate-bbb:q/0")]
    for row in rows:
        del row["meta"]["generated_by"]
    assert [drop.reason for drop in made(rows)[1]] == ["id of another sample", "question without spread"]


question = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 60)), min_size=1, max_size=8)


@settings(max_examples=60)
@given(st.lists(question, min_size=1, max_size=5), st.integers(1, 4), st.randoms())
def test_pairs_satisfy_their_parameters(questions, per_prompt, order):
    rows = [
        sample(f"q{q}", n, fifths / 5, f"{what}" + " " * pad + "# c")
        for q, found in enumerate(questions)
        for n, (fifths, what, pad) in enumerate(found)
    ]
    found, drops = made(rows, per_prompt=per_prompt, margin=0.4, max_dispreferred=0.6)
    scores = {row["id"]: row["score"] for row in rows}
    for row in found:
        good, bad = scores[row["meta"]["chosen_id"]], scores[row["meta"]["rejected_id"]]
        assert good - bad >= 0.4 - 1e-9
        assert bad <= 0.6
        assert row["completion"] != row["rejected"]
        assert (row["score"], row["meta"]["rejected_score"]) == (good, bad)
    assert len(ids(found)) == len(set(ids(found)))
    per_question = [sum(row["meta"]["prompt_id"] == f"q{q}" for row in found) for q in range(len(questions))]
    assert max(per_question) <= per_prompt
    shuffled = order.sample(rows, len(rows))
    again = made(shuffled, per_prompt=per_prompt, margin=0.4, max_dispreferred=0.6)
    assert again == (found, drops)


def test_too_long_and_equal_pairs_are_dropped(tmp_path):
    chat = [{"role": "user", "content": "What is 6 x 7?"}]
    texts = {"fits": ("It is 42.", "It is 41."), "long": ("It is 42.", "It is" + " 41 or" * 90), "same": ("42", "42")}
    rows = [{"id": name, "prompt": chat, "completion": a, "rejected": b} for name, (a, b) in texts.items()]
    given = {"model": str(REPO / "recipes/mini/model"), "max_tokens": 128}
    manifest, kept = build(tmp_path, rows, "token_limit", **given)
    assert [row["id"] for row in kept] == ["fits"]
    assert manifest.drops == {"longer than max_tokens": 1, "rejected equals completion in tokens": 1}
    with pytest.raises(DataError, match="no_such"):
        build(tmp_path, rows, "token_limit", **{**given, "model": "./no_such"})


def test_the_limit_counts_as_the_chat_template_writes_a_row(tmp_path):
    row = {"id": "a", "prompt": [{"role": "user", "content": "What is 6 x 7?"}], "completion": "42", "rejected": "4"}
    whole = [*row["prompt"], {"role": "assistant", "content": "42"}]
    model = REPO / "recipes/mini/model"
    text = ChatTemplate(model).render(whole)
    length = len(Tokenizer.from_file(str(model / "tokenizer.json")).encode(text, add_special_tokens=False).ids)
    assert build(tmp_path, [row], "token_limit", model=str(model), max_tokens=length)[1]
    with pytest.raises(DataError, match=f"longer than max_tokens; for example a: {length} of {length - 1} tokens"):
        build(tmp_path, [row], "token_limit", model=str(model), max_tokens=length - 1)
