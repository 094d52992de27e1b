"""`length`, `repetition` and `language_mix`: values computed by hand, and robustness on any text."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rewards
from rewards.text.base import TextReward
from rewards.text.repetition import find_loop, repeated_share


def value(name: str, text: str, row: dict[str, object] | None = None, **params: object) -> float:
    return rewards.load(name, **params).score(row or {}, text).value


@pytest.mark.parametrize(("words", "wanted"), [(0, 0), (5, 0), (6, 0.2), (10, 1), (15, 1), (20, 1), (22, 0.6), (30, 0)])
def test_band(words: int, wanted: float) -> None:
    assert value("length", "w " * words, low=10, high=20, margin=5) == pytest.approx(wanted)


def test_band_without_a_margin_is_a_step() -> None:
    got = [value("length", "x" * n, unit="characters", low=2, high=3, margin=0) for n in range(6)]
    assert got == [0, 0, 1, 1, 0, 0]


@pytest.mark.parametrize(("tokens", "wanted"), [(0, 0), (80, 0), (90, -0.5), (100, -1), (5000, -1)])
def test_soft_overlong_punishment_of_dapo(tokens: int, wanted: float) -> None:
    row: dict[str, object] = {"meta": {"tokens": tokens}}
    assert value("length", "text", row, shape="overlong", unit="tokens", high=100, margin=20) == pytest.approx(wanted)


def test_linear_and_cosine_run_from_start_to_end() -> None:
    for shape, middle in (("linear", 3.5), ("cosine", 5.0)):
        got = [value("length", "w " * n, shape=shape, low=0, high=20, end=10.0) for n in (0, 10, 20, 40)]
        assert got == pytest.approx([0, 5, 10, 10])
        quarter = value("length", "w " * 7, shape=shape, low=0, high=20, end=10.0)
        assert (quarter < 5, quarter == pytest.approx(middle)) == (True, shape == "linear")


@pytest.mark.parametrize("meta", [None, 3, {}, {"tokens": "7"}, {"tokens": True}, {"tokens": [7]}, {"tokens": -1}])
def test_tokens_that_were_not_counted_are_an_error(meta: object) -> None:
    score = rewards.load("length", unit="tokens").score({"meta": meta}, "text")
    assert (score.outcome, "meta.tokens" in score.details["problem"]) == ("error", True)


def test_length_counts_what_is_in_the_tags() -> None:
    score = rewards.load("length", unit="words").score({}, "<think>a b c</think><answer>d e</answer>")
    assert score.details == {"length": 2, "unit": "words"}
    with pytest.raises(rewards.RewardError, match="low 600 is above high 512"):
        rewards.load("length", low=600)


def test_repeated_ngrams() -> None:
    assert repeated_share("a b c d", 2) == 0
    assert repeated_share("a b A B a b", 2) == pytest.approx(1 - 2 / 5)
    assert repeated_share("a b", 3) == 0
    assert value("repetition", "a b a b a b", kind="ngrams", n=2, penalty=-10.0) == pytest.approx(-6)
    assert value("repetition", "all is said once", kind="both") == 0


def test_loops() -> None:
    reward = rewards.load("repetition", kind="loop")
    assert reward.score({}, "so" + " wait," * 5 + "!").details == {"loop": " wait,"}
    assert reward.score({}, "so " + "wait, " * 4 + "what").value == 0
    lines = "again and\n" * 5 + "so on"
    assert reward.score({}, lines).value == -1
    assert value("repetition", lines, kind="loop", within_lines=True) == 0
    assert value("repetition", "x" * 24, kind="loop") == 0
    assert value("repetition", "x" * 25, kind="loop") == -1


@settings(max_examples=500)
@given(
    st.text("ab", max_size=9), st.text("ab", min_size=1, max_size=12), st.integers(0, 90), st.text("ab", max_size=9),
    st.sampled_from(((5, 5), (1, 5), (2, 6), (8, 5))),
)  # fmt: skip
def test_loops_match_the_pattern(before: str, unit: str, length: int, after: str, sizes: tuple[int, int]) -> None:
    text = before + (unit * 90)[:length] + after
    found = find_loop(text, *sizes)
    assert (found is None) == (re.search(rf"(.{{{sizes[0]},}}?)\1{{{sizes[1] - 1},}}", text) is None)
    assert found is None or (len(found) >= sizes[0] and found * sizes[1] in text)


def test_loop_search_is_fast() -> None:
    one, other = "a", "ab"
    while len(other) < 200_000:
        one, other = other, other + one  # Fibonacci's word: squares everywhere, no fifth power
    began = time.process_time()
    assert find_loop(other) is None
    assert find_loop("".join("a" * 24 + chr(1000 + i) for i in range(8000))) is None
    assert find_loop("x" * 7 + "y" * 100_000) == "yyyyy"
    assert time.process_time() - began < 20  # the pattern itself would need years


def test_letters_of_other_scripts() -> None:
    assert value("language_mix", "Hello, αβ 3² ½ 𝑥 → world!") == 0
    assert value("language_mix", "ab 中文") == pytest.approx(-0.5)
    assert value("language_mix", "中文 ab", expected=["han"], graded=False) == -1
    assert value("language_mix", "中文中文中文中文中 a", expected=["han"], tolerance=0.1) == 0
    assert value("language_mix", "かな カナ 漢字", expected=["kana", "han"]) == 0
    assert value("language_mix", "123 !?") == 0
    score = rewards.load("language_mix").score({}, "так and so")
    assert score.details == {"foreign_share": pytest.approx(3 / 8), "foreign": "так"}


def test_min_o1_valid_characters() -> None:
    assert value("language_mix", "if x ≤ 3 ∧ y:\n\t~`|\\", kind="min_o1") == 0
    assert value("language_mix", "é中ab", kind="min_o1") == pytest.approx(-0.5)


@given(st.text(), st.sampled_from(("length", "repetition", "language_mix")))
def test_any_text_has_a_value(text: str, name: str) -> None:
    score = rewards.load(name).score({}, text)
    assert score.outcome == "scored"
    assert -1 <= score.value <= 1


@pytest.mark.parametrize("name", ["length", "repetition", "language_mix"])
def test_non_text_is_an_error(name: str) -> None:
    assert rewards.load(name).score({}, None).outcome == "error"  # type: ignore[arg-type]


class Steps(TextReward):
    """The README's example."""

    def grade_text(self, row: Any, text: str) -> rewards.Score:
        return rewards.Score(float(sum(line[:1].isdigit() for line in text.splitlines())))


def test_a_custom_reward_is_named_by_module_and_class() -> None:
    mine = rewards.load(f"{__name__}:Steps", thinking="think")
    assert mine.score({}, "<think>1. no</think>1. a\n2. b").value == 2.0
    both = rewards.load("combine", parts=[{"reward": f"{__name__}:Steps", "weight": 0.5}, {"reward": "length"}])
    assert both.score({}, "1. a").value == 1.5
    for name, message in (
        ("nowhere.at:All", "No module named 'nowhere'"), (f"{__name__}:Stps", "has no attribute 'Stps'"),
        (f"{__name__}:find_loop", "is not a subclass of rewards.base.Reward"),
    ):  # fmt: skip
        with pytest.raises(rewards.RewardError, match=message):
            rewards.load(name)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("class Mine(Reward)\n    pass\n", r"expected ':' (mine.py, line 2)"),
        ("scale = numpyy.pi\n", "name 'numpyy' is not defined (mine.py, line 2)"),
        ("raise SystemExit(3)\n", "3 (mine.py, line 2)"),
        ("class Mine(Reward):\n    def __init__(self, scale):\n        pass\n", "declare parameters as fields"),
    ],
)
def test_a_custom_reward_that_fails_to_load_is_a_one_line_error(
    code: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(f"from rewards.base import Reward\n{code}")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    with pytest.raises(rewards.RewardError, match=re.escape(message)):
        rewards.load("mine:Mine")
