"""Extraction: the last balanced box after the thought, and golds reduced to their final answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.extract import FALLBACKS, box_span, find_answer, last_box, nested_span, reduce_gold

plain = st.text(alphabet=st.characters(exclude_characters="{}\\"), max_size=30)
nested = st.recursive(plain, lambda inner: st.tuples(plain, inner, plain).map(lambda t: f"{t[0]}{{{t[1]}}}{t[2]}"))


@given(plain, nested, plain)
def test_a_box_with_balanced_content_is_found_whole(before: str, content: str, after: str) -> None:
    assert last_box(rf"{before}\boxed{{{content}}}{after}") == content


@given(nested, nested)
def test_the_last_box_counts(first: str, last: str) -> None:
    assert last_box(rf"\boxed{{{first}}} then \fbox{{{last}}}") == last


soup = st.lists(st.sampled_from([r"\boxed{", r"\fbox{", "{", "}", r"\{", r"\}", "1", " "]), max_size=60).map("".join)


@given(soup)
def test_any_soup_of_braces_gives_a_balanced_content_or_none(text: str) -> None:
    box = last_box(text)
    if box is not None:
        bare = box.replace(r"\{", "").replace(r"\}", "")
        assert rf"{{{box}}}" in text
        assert bare.count("{") == bare.count("}")


@given(soup.map(lambda text: text.replace(r"\fbox", r"\frac")) | soup, plain)
def test_the_quick_way_finds_what_the_whole_way_finds(text: str, after: str) -> None:
    for whole in (text, text + r"\boxed{\frac{1}{2}}" + after, text + r"\boxed{7}" + after):
        assert box_span(whole) == nested_span(whole)


@pytest.mark.parametrize(
    ("text", "box"),
    [
        (r"\boxed{5} and then \boxed{6", "5"),
        (r"\boxed {5}", "5"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{1, \boxed{2}}", r"1, \boxed{2}"),
        (r"\framebox[1.5\width]{096.}", "096."),
        (r"\boxed 5", None),
        (r"boxed{5}", None),
        ("", None),
        (r"\boxed{" * 20_000, None),
    ],
)
def test_boxes(text: str, box: str | None) -> None:
    assert last_box(text) == box


def test_fallbacks_are_off_unless_asked_for_and_keep_their_order() -> None:
    text = "6 times 3.\n#### 18\nThe answer is: 19."
    assert find_answer(text) == (None, "")
    assert find_answer(text, ("hashes",)) == ("18", "hashes")
    assert find_answer(text, ("answer_is", "hashes")) == ("19", "answer_is")
    assert find_answer("so 1,234.5 in all", ("last_number",)) == ("1,234.5", "last_number")
    assert find_answer(r"\boxed{7} #### 8", tuple(FALLBACKS)) == ("7", "box")


def test_golds_are_reduced_to_their_final_answer() -> None:
    assert reduce_gold("16 - 7 = <<16-7=9>>9\n#### 1,234") == "1,234"
    assert reduce_gold(r"Thus $x = \boxed{\frac12}$.") == r"\frac12"
    assert reduce_gold(" p - q ") == "p - q"
