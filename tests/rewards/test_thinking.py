"""Thinking formats: rendered texts parse back, and an answer never contains text of a thought."""

from __future__ import annotations

import json

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from rewards import RewardError
from rewards.thinking import PRESETS, Parsed, Thinking, thinking

MARKS = sorted({mark for preset in PRESETS.values() for mark in preset.tags})
# Text with marks, halves of marks and white space of every kind in it.
PIECES = st.sampled_from(
    [*MARKS, *(mark[:-1] for mark in MARKS), *(mark[1:] for mark in MARKS), "<", ">", "\n", " ", "2"]
)
MARKED = st.lists(st.one_of(PIECES, st.text(max_size=5)), max_size=14).map("".join)
FORMATS = st.sampled_from([*PRESETS.values(), *(thinking({"preset": name, "at": "first"}) for name in PRESETS)])
# Tags that overlap themselves and each other, which parsers often get wrong.
NASTY = Thinking(open="a", close="bb", delimiter="cbc", end="dd", inner="", outer="")


@given(FORMATS | st.just(NASTY), MARKED, MARKED)
@example(NASTY, "b", "x")
@example(PRESETS["think"], "", "4")
def test_rendered_texts_parse_back(form: Thinking, thought: str, answer: str) -> None:
    try:
        text = form.render(thought, answer)
    except RewardError:
        return
    assert form.parse(text) == Parsed(thought.strip(), answer.strip(), ())
    assert form.answer_of(text) == answer.strip()


@given(FORMATS, st.text(), st.text())
def test_text_without_tags_always_renders(form: Thinking, thought: str, answer: str) -> None:
    assume(answer.strip() and thought.strip() and not any(mark in thought or mark in answer for mark in MARKS))
    thought = thought if form.close else ""
    assert form.parse(form.render(thought, answer)).problems == ()


@pytest.mark.parametrize("name", PRESETS)
def test_a_tag_inside_either_part_is_rejected(name: str) -> None:
    form = PRESETS[name]
    for mark in form.tags:
        with pytest.raises(RewardError, match="contains the tag"):
            form.render("2 and 2" if form.close else "", f"so {mark} 4")
        if form.close:
            with pytest.raises(RewardError, match="contains the tag"):
                form.render(f"so {mark}", "4")
    with pytest.raises(RewardError, match="the answer is empty"):
        form.render("", " \n")
    with pytest.raises(RewardError, match="the thought is empty" if form.close else "has no thought"):
        form.render("" if form.close else "2 and 2", "4")


@given(FORMATS | st.just(NASTY), MARKED)
def test_answer_of_agrees_with_parse(form: Thinking, text: str) -> None:
    assert form.answer_of(text) == form.parse(text).answer


@given(FORMATS, st.lists(st.sampled_from(["T", "A"]), max_size=6), MARKED)
def test_no_text_of_a_tagged_thought_is_in_the_answer(form: Thinking, blocks: list[str], noise: str) -> None:
    assume(form.close and not any(mark in noise for mark in MARKS))
    secret = "SECRET"
    text = "".join(f"{form.open}{noise}{secret}{noise}{form.close}" if b == "T" else f"{noise}A" for b in blocks)
    if form.prefilled:
        text = f"{secret}{form.close}" + text
    assert secret not in form.answer_of(text)
    assert secret not in form.answer_of(text + form.open + noise + secret)  # cut short in a thought


@given(MARKED)
def test_texts_without_problems_render_back_up_to_white_space(text: str) -> None:
    for form in PRESETS.values():
        thought, answer, problems = form.parse(text)
        if not problems:
            assert "".join(form.render(thought, answer).split()) == "".join(text.split())


@pytest.mark.parametrize(
    ("name", "text", "parsed"),
    [
        ("think", "<think>\na\n</think>\n\nb", Parsed("a", "b", ())),
        ("think", "<think>a</think>b", Parsed("a", "b", ())),
        ("think", "b", Parsed("", "b", ("no_open", "no_close"))),
        ("think", "<think>a", Parsed("a", "", ("no_close", "empty_answer"))),
        ("think", "x<think>a</think>b", Parsed("a", "b", ("text_before",))),
        ("think", "a</think>b", Parsed("a", "b", ("no_open",))),
        ("think", "a</think>b<think>c", Parsed("a", "b", ("disorder", "text_after"))),
        ("think_prefilled", "a</think>b", Parsed("a", "b", ())),
        ("think_prefilled", "a", Parsed("a", "", ("no_close", "empty_answer"))),
        ("think_prefilled", "<think>a</think>b", Parsed("<think>a", "b", ("repeated",))),
        ("think", "<think></think>b", Parsed("", "b", ("empty_thought",))),
        ("think_prefilled", " \n</think>b", Parsed("", "b", ("empty_thought",))),
        ("zero", "<think> </think><response></response>", Parsed("", "", ("empty_thought", "empty_answer"))),
        ("zero", "<think>a</think><response>b</response>", Parsed("a", "b", ())),
        ("zero", "<think>a</think><response>b", Parsed("a", "b", ("no_end",))),
        ("zero", "<think>a</think>b", Parsed("a", "b", ("no_delimiter", "no_end"))),
        (
            "zero",
            "<think>a <response> b",
            Parsed("a <response> b", "", ("no_close", "disorder", "no_end", "empty_answer")),
        ),
        (
            "zero",
            "<response>b</response><think>a</think>",
            Parsed("a", "", ("disorder", "disorder", "text_before", "empty_answer")),
        ),
        ("zero", "<think>a</think>x<response>b</response>y", Parsed("a", "b", ("text_between", "text_after"))),
        ("zero_nothink", "<response>b</response>", Parsed("", "b", ())),
        ("answer_tags", "<think>a\na</think>\n<answer>b\nb</answer>", Parsed("a\na", "b\nb", ())),
        ("none", "<think>a</think>b", Parsed("", "<think>a</think>b", ())),
    ],
)
def test_violations_are_named(name: str, text: str, parsed: Parsed) -> None:
    assert thinking(name).parse(text) == parsed


def test_sky_t1_parses_published_rows() -> None:
    text = "<|begin_of_thought|>\n\nOkay\n\n<|end_of_thought|>\n\n<|begin_of_solution|>\n\n4\n\n<|end_of_solution|>"
    assert PRESETS["sky_t1"].parse(text) == Parsed("Okay", "4", ())
    assert PRESETS["sky_t1"].render("Okay", "4") == text


def test_first_or_last_delimiter_is_configurable() -> None:
    text = "a</think>b</think>c"
    assert thinking({"preset": "think", "at": "first"}).answer_of(text) == "b</think>c"
    assert thinking({"preset": "think", "at": "last"}).answer_of(text) == "c"
    assert thinking("think").parse(text).problems == ("no_open", "repeated")


@pytest.mark.parametrize(
    ("name", "completion"),
    [("zero", "<think>a</think>\n<response>REAL</response>"), ("zero_nothink", "<response>REAL</response>")],
)
@pytest.mark.parametrize("invented", ["<think>b</think>\n<response>FAKE</response>", "<think>b</think>"])
def test_a_follow_up_question_of_a_zero_model_is_not_in_its_answer(name: str, completion: str, invented: str) -> None:
    form = thinking(name)
    assert form.answer_of(f"{completion}\n<query>\nmade up\n</query>\n{invented}") == "REAL"
    assert "text_after" in form.parse(f"{completion}\n<query>\nmade up\n</query>\n{invented}").problems


def test_strict_replaces_malformed_answers() -> None:
    strict = thinking({"preset": "zero", "strict": True, "malformed": "[NULL]"})
    assert strict.answer_of("<think>a</think><response>b</response>") == "b"
    assert strict.answer_of("<think>a</think><response>b") == "[NULL]"
    assert strict.parse("b").answer == "[NULL]"
    assert strict.answer_of("<think></think><response>b</response>") == "[NULL]"


@given(MARKED)
def test_the_answer_is_what_follows_the_last_thought(text: str) -> None:
    _, mark, behind = text.rpartition("</think>")
    answer = behind.partition("<think>")[0].strip() if mark else None
    assert thinking("think_prefilled").answer_of(text) == (answer or "")
    assert thinking("think").answer_of(text) == (answer if mark else "" if "<think>" in text else text.strip())
    assert thinking("none").answer_of(text) == text.strip()


def test_a_prefilled_tag_is_only_in_the_prompt() -> None:
    form = thinking("think_prefilled")
    assert form.prefill == "<think>\n"
    assert form.prefill + form.render("a", "b") == thinking("think").render("a", "b")


@pytest.mark.parametrize(
    ("given_format", "message"),
    [
        ("thnk", "did you mean 'think'"),
        ({"preset": "zzz"}, "unknown thinking format 'zzz'"),
        ({"open": "<t>"}, "open needs close"),
        ({"clse": "<t>"}, "did you mean 'close'"),
        ({"preset": "think", "prefilled": 1}, "prefilled: Input should be a valid boolean"),
        ({"close": "</t>", "at": "middle"}, "at: Input should be 'first' or 'last'"),
        ({"open": "<t>", "close": "x<t>"}, "is repeated or part of another"),
        ({"open": "<t>", "close": "<t>"}, "is repeated or part of another"),
        ({"open": "<t>\n", "close": "</t>"}, "surrounding white space"),
        ({"preset": "think", "inner": "--"}, "must be white space"),
        ('{"close": ', "is not JSON"),
    ],
)
def test_a_wrong_format_is_a_one_line_error(given_format: object, message: str) -> None:
    with pytest.raises(RewardError, match=message) as caught:
        thinking(given_format)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_format_given_as_json_text_is_the_same_format() -> None:
    fields = {"preset": "zero", "prefilled": True}
    assert thinking(json.dumps(fields)) == thinking(fields)
    assert (form := thinking(fields)) is thinking(form)
