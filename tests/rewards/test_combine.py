"""Combined rewards: sums, products and gates by hand, scaling within groups, details of parts, failures."""

from __future__ import annotations

import json
import math
import pickle
import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards import RewardError, load
from rewards.combine import CombineReward, scale
from rewards.thinking import thinking
from tests.fakes.openai_server import Status
from tests.fakes.reward_server import RewardServer

RIGHT, WRONG, LOOSE = r"<think>a</think>\boxed{4}", r"<think>a</think>\boxed{5}", r"\boxed{4}"
ROW: dict[str, Any] = {
    "id": "q",
    "answer": "4",
    "prompt": [{"role": "user", "content": "2+2?"}],
    "references": ["it is 4"],
}


def combine(*parts: dict[str, Any], **params: Any) -> CombineReward:
    # through JSON, as YAML files and command lines give it
    reward = load("combine", **json.loads(json.dumps({"parts": list(parts), **params})))
    assert isinstance(reward, CombineReward)
    return reward


def test_a_weighted_sum_and_its_parts() -> None:
    reward = combine({"reward": "math"}, {"reward": "format", "weight": 0.25, "params": {"bad": -1}})
    scores = reward.score_many([ROW] * 3, [RIGHT, WRONG, LOOSE])
    assert [score.value for score in scores] == [1.25, 0.25, 0.75]
    assert {score.outcome for score in scores} == {"scored"}
    parts = scores[2].details["parts"]
    assert (parts["math"]["value"], parts["format"]["value"], parts["format"]["outcome"]) == (1.0, -1.0, "bad_format")
    assert parts["math"]["details"]["answer"] == "4"
    json.dumps([score.as_json() for score in scores])


def test_a_product() -> None:
    reward = combine({"reward": "math"}, {"reward": "format", "params": {"good": 0.5, "bad": 0.1}}, mode="product")
    assert [reward.score(ROW, text).value for text in (RIGHT, WRONG, LOOSE)] == [0.5, 0.0, 0.1]


def test_parts_after_a_failed_gate_are_not_computed() -> None:
    with RewardServer() as server:
        model = {"reward": "model", "params": {"url": server.url}, "weight": 2}
        reward = combine({"reward": "format"}, model, {"reward": "math"}, mode="gate", floor=-3)
        out, through = reward.score_many([ROW] * 2, [LOOSE, RIGHT])
        assert len(server.bodies) == 1
        seen = len(server.texts[0])
    assert (out.value, out.outcome, list(out.details["parts"])) == (-3.0, "bad_format", ["format"])
    assert (through.value, through.outcome) == (2 * seen + 1, "scored")
    assert reward.parts[1].made.counts.total() == 1


def test_clipping_of_parts_and_result() -> None:
    with RewardServer(value=lambda text: 100 * len(text)) as server:
        model = {"reward": "model", "params": {"url": server.url}, "clip": [-2, 3]}
        assert combine(model).score(ROW, RIGHT).value == 3
        assert combine(model, clip=[-1, 1.5]).score(ROW, RIGHT).value == 1.5
        assert combine(model).score(ROW, RIGHT).details["parts"]["model"]["value"] > 100


def test_z_scores_are_taken_within_the_group_of_one_prompt() -> None:
    texts = ["a", "abc", "abcde", "x" * 30, "x" * 31]
    rows = [{**ROW, "id": 1}] * 3 + [{**ROW, "id": 2}] * 2
    with RewardServer() as server:
        part = {"reward": "model", "params": {"url": server.url}}
        scaled = combine({**part, "scale": "zscore"})
        assert scaled.grouped
        edge = math.sqrt(1.5)
        assert [s.value for s in scaled.score_many(rows, texts)] == pytest.approx([-edge, 0, edge, -1, 1])
        mixed = [0, 3, 1, 4, 2]  # siblings need not stand together
        again = scaled.score_many([rows[i] for i in mixed], [texts[i] for i in mixed])
        assert [s.value for s in again] == pytest.approx([-edge, -1, 0, 1, edge])
        ranged = combine({**part, "scale": "minmax"})
        assert [s.value for s in ranged.score_many(rows, texts)] == [0, 0.5, 1, 0, 1]
        grouped = [{**row, "group": "all"} for row in rows]  # `group` goes before `id`
        assert len({s.value for s in ranged.score_many(grouped, texts)}) == 5
        assert scaled.score(rows[0], "a").value == 0  # alone
        assert ranged.score(rows[0], "a").value == 0.5


finite = st.floats(-1e6, 1e6)


@given(st.lists(st.tuples(finite, st.sampled_from("abc")), min_size=1, max_size=20))
def test_scale_properties(items: list[tuple[float, str]]) -> None:
    values, groups = [value for value, _ in items], [group for _, group in items]
    zscores, shares = scale("zscore", values, groups), scale("minmax", values, groups)
    for name in set(groups):
        members = [i for i, group in enumerate(groups) if group == name]
        group_values, z, share = ([items[i] for i in members] for items in (values, zscores, shares))
        assert all(math.isfinite(value) for value in z)
        if statistics.pstdev(group_values) > 1e-6 * (1 + max(map(abs, group_values))):
            assert math.fsum(z) == pytest.approx(0, abs=1e-5)
            assert math.fsum(value * value for value in z) == pytest.approx(len(z))
        assert all(0 <= value <= 1 for value in share)
        if min(group_values) < max(group_values):
            assert {min(share), max(share)} == {0, 1}


def test_equal_values_have_z_score_zero_despite_rounding() -> None:
    assert scale("zscore", [0.1] * 10, ["a"] * 10) == [0.0] * 10
    assert scale("zscore", [1.0, 1.0 + 2**-52, 1.0], ["a"] * 3) == [0.0] * 3


@pytest.mark.parametrize("kind", ["zscore", "minmax"])
def test_a_row_without_a_group_cannot_be_scaled(kind: str) -> None:
    reward = combine({"reward": "length", "scale": kind})
    texts = ["a", "b " * 9, "c " * 99]
    for score in reward.score_many([{}, {"answer": "4"}, {"meta": {}}], texts):
        assert (score.value, score.outcome) == (0.0, "error")
        assert "the row has none of group" in score.details["parts"]["length"]["details"]["problem"]
    mixed = reward.score_many([{"id": 1}, {}, {"id": 1}], texts)
    assert [score.outcome for score in mixed] == ["scored", "error", "scored"]
    assert reward.score({}, "a").outcome == "error"
    assert combine({"reward": "length"}).score({}, "a").outcome == "scored"


@pytest.mark.parametrize(
    "rows",
    [
        [{"group": "g", "id": 1}, {"group": "g", "id": 2}],
        [{"meta": {"prompt_id": 7}, "id": 1}, {"meta": {"prompt_id": 7}, "id": 2}],
        [{"id": 0}, {"id": 0}],
        [{"prompt": ROW["prompt"]}, {"prompt": ROW["prompt"]}],
    ],
)
def test_group_keys(rows: list[dict[str, Any]]) -> None:
    reward = combine({"reward": "length", "scale": "zscore", "params": {"high": 4, "margin": 4}})
    assert [score.value for score in reward.score_many(rows, ["a b c", "a " * 30])] == [1.0, -1.0]


def test_bleu_rm_is_the_mean_of_two_z_scores() -> None:
    texts = ["it is 4", "four", "it is five or so"]
    with RewardServer(value=lambda text: -len(text)) as server:
        reward = load("bleu_rm", model={"url": server.url})
        scores = reward.score_many([ROW] * 3, texts)
    parts = [score.details["parts"] for score in scores]
    for name in ("bleu", "model"):
        values = [part[name]["value"] for part in parts]
        mean, deviation = statistics.mean(values), statistics.pstdev(values)
        assert [part[name]["scaled"] for part in parts] == pytest.approx([(v - mean) / deviation for v in values])
    assert [s.value for s in scores] == [
        pytest.approx((part["bleu"]["scaled"] + part["model"]["scaled"]) / 2) for part in parts
    ]
    assert pickle.loads(pickle.dumps(reward)).parts == reward.parts
    assert set(reward.needs) == {"references", "prompt"}


def test_a_failed_part_fails_the_result_and_is_excluded_from_its_group() -> None:
    def refuse(body: dict[str, Any]) -> Status | None:
        return Status(400) if "bad" in body["messages"][-1]["content"] else None

    texts = [r"\boxed{4}", r"\boxed{4} bad", r"\boxed{4} good"]
    with RewardServer(refuse) as server:
        parts = [{"reward": "math"}, {"reward": "model", "params": {"url": server.url}, "scale": "zscore"}]
        strict, lenient = combine(*parts), combine(*parts, failed="skip")
        scores = strict.score_many([ROW] * 3, texts)
        assert [(s.value, s.outcome) for s in scores] == [(0.0, "scored"), (0.0, "error"), (2.0, "scored")]
        assert "scaled" not in scores[1].details["parts"]["model"]
        assert strict.counts == {"scored": 2, "error": 1}
        skipped = lenient.score_many([ROW] * 3, texts)[1]
        assert (skipped.value, skipped.outcome) == (1.0, "scored")
        assert skipped.details["parts"]["model"]["outcome"] == "error"
        alone = combine(parts[1], failed="skip").score(ROW, "bad")
        assert alone.outcome == "error"  # nothing is left that could be a value


def test_an_error_in_the_gate_is_not_a_format_verdict() -> None:
    score = combine({"reward": "math"}, {"reward": "format"}, mode="gate", floor=-5).score({"answer": None}, RIGHT)
    assert (score.value, score.outcome) == (0.0, "error")


def test_outcomes_of_the_result() -> None:
    reward = combine({"reward": "math"}, {"reward": "format", "weight": 0})
    assert reward.score(ROW, "<think>a</think>no box").outcome == "scored"
    assert reward.score(ROW, "nothing").outcome == "no_answer"
    assert combine({"reward": "format"}).score(ROW, "nothing").outcome == "bad_format"


def test_combined_rewards_combine_and_pickle() -> None:
    inner = {"reward": "combine", "name": "both", "params": {"parts": [{"reward": "math"}, {"reward": "format"}]}}
    reward = combine(inner, {"reward": "math", "weight": 10})
    assert reward.score(ROW, RIGHT).value == 12
    again = pickle.loads(pickle.dumps(reward))
    assert again.score(ROW, RIGHT).as_json() == reward.score(ROW, RIGHT).as_json()
    assert reward.needs == ("answer",)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "'combine': mode sum needs more than 0 parts"),
        ({"parts": ["math"]}, "parts.0: Input should be a valid dictionary .*, not 'math'"),
        ({"parts": [{"params": {}}]}, "parts.0.reward: Field required"),
        ({"parts": [{"reward": "maths"}]}, "parts.0: unknown reward 'maths', did you mean 'math'"),
        ({"parts": [{"reward": "math", "wieght": 1}]}, "parts.0: unknown parameter 'wieght', did you mean 'weight'"),
        ({"parts": [{"reward": "math", 5: 1}]}, "parts.0: unknown parameter 5"),
        ({"parts": [{"reward": "math", "params": {"fallback": []}}]}, "parts.0: .*did you mean 'fallbacks'"),
        ({"parts": [{"reward": "math", "params": 3}]}, "parts.0.params: Input should be a valid dictionary, not 3"),
        ({"parts": [{"reward": "math", "scale": "z"}]}, "parts.0.scale: Input should be 'none', 'zscore' or 'minmax'"),
        ({"parts": [{"reward": "math", "clip": [2, 1]}]}, r"parts.0.clip: must be \[low, high\], not \(2, 1\)"),
        ({"parts": [{"reward": "math", "weight": float("nan")}]}, "weight: Input should be a finite number, not nan"),
        ({"parts": [{"reward": "math"}, {"reward": "math"}]}, "two parts are named 'math'"),
        ({"parts": [{"reward": "math"}], "mode": "gate"}, "mode gate needs more than 1 parts"),
        ({"parts": [{"reward": "math"}], "mode": "max"}, "mode: Input should be 'sum', 'product' or 'gate', not 'max'"),
        ({"parts": [{"reward": "math", "weight": 2}], "mode": "product"}, "mode product does not use weights"),
        ({"parts": [{"reward": "math", "scale": "zscore"}, {"reward": "format"}], "mode": "gate"}, "cannot be scaled"),
        ({"parts": [{"reward": "math"}], "clip": [1]}, "clip.1: Field required"),
        ({"parts": [{"reward": "math"}], "clip": [0, "1"]}, "clip.1: Input should be a valid number, not '1'"),
        ({"parts": {"reward": "math"}}, "parts: Input should be a valid tuple"),
    ],
)
def test_wrong_parameters_are_a_one_line_error(params: dict[str, Any], message: str) -> None:
    with pytest.raises(RewardError, match=message) as caught:
        load("combine", **params)
    assert "\n" not in str(caught.value)
    with pytest.raises(RewardError, match="unknown parameter 'modle', did you mean 'model'"):
        load("bleu_rm", modle={})
    with pytest.raises(RewardError, match=r"parts.1.params: Input should be a valid dictionary, not 3"):
        load("bleu_rm", model=3)


# Format, the usual gate.


SKY_T1 = thinking("sky_t1").render("a", "b")


@pytest.mark.parametrize(
    ("params", "text", "value", "outcome"),
    [
        ({}, "<think>a</think>b", 1.0, "scored"),
        ({}, "<think>a</think>b<|im_end|>\n", 1.0, "scored"),
        ({}, "b", 0.0, "bad_format"),
        ({"thinking": "answer_tags"}, "<think>a\na</think>\n<answer>b\nb</answer>", 1.0, "scored"),
        ({"thinking": "sky_t1"}, SKY_T1, 1.0, "scored"),
        ({"thinking": "sky_t1"}, SKY_T1 + "\n<|im_end|>", 1.0, "scored"),
        ({"thinking": "sky_t1"}, SKY_T1.removesuffix("<|end_of_solution|>"), 0.0, "bad_format"),
        ({"ignore": ["no_open"]}, "a</think>b", 1.0, "scored"),
        ({"boxed": True}, RIGHT, 1.0, "scored"),
        ({"boxed": True}, r"<think>\boxed{4}</think>four", 0.0, "bad_format"),
        ({"boxed": True}, r"<think>a</think>\boxed{4", 0.0, "bad_format"),
        ({"min_thought": 2, "bad": -1}, "<think>a</think>b", -1.0, "bad_format"),
        ({"thinking": {"preset": "think", "prefilled": True}, "good": 2}, "a</think>b", 2.0, "scored"),
    ],
)
def test_format(params: dict[str, Any], text: str, value: float, outcome: str) -> None:
    score = pickle.loads(pickle.dumps(load("format", **params))).score({}, text)
    assert (score.value, score.outcome) == (value, outcome)


def test_format_of_a_truncated_completion() -> None:
    score = load("format").score({"meta": {"finish_reason": "length"}}, "<think>a")
    assert (score.outcome, score.details["problems"]) == ("truncated", ["no_close", "empty_answer"])


def test_format_lists_violations() -> None:
    with pytest.raises(RewardError, match=r"ignore.0: Input should be 'text_before', .*, not 'no_box'"):
        load("format", ignore=["no_box"])
