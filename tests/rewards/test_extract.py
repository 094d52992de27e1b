"""Extraction: the last balanced box after the thought, and final answers of golds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.extract import FALLBACKS, box_span, find_answer, gold_text, last_box, parts

plain = st.text(alphabet=st.characters(exclude_characters="{}\\"), max_size=30)
nested = st.recursive(plain, lambda inner: st.tuples(plain, inner, plain).map(lambda t: f"{t[0]}{{{t[1]}}}{t[2]}"))


@given(plain, nested, plain)
def test_a_box_with_balanced_content_is_found_whole(before: str, content: str, after: str) -> None:
    assert last_box(rf"{before}\boxed{{{content}}}{after}") == content


@given(nested, nested)
def test_the_last_box_counts(first: str, last: str) -> None:
    expected = last if last.strip() or not first.strip() else first  # "the answer is given in \boxed{}"
    assert last_box(rf"\boxed{{{first}}} then \fbox{{{last}}}") == expected


def test_rejected_and_empty_boxes_are_no_answer() -> None:
    assert last_box(r"It is \boxed{6}, not \boxed{5}, nor \boxed{}.") == "6"
    assert last_box("not \\boxed{5} " * 3000) is None
    assert find_answer("\\boxed{} " * 3000) == (None, "")


soup = st.lists(st.sampled_from([r"\boxed{", r"\fbox{", "{", "}", r"\{", r"\}", "1", " "]), max_size=60).map("".join)


@given(soup)
def test_any_braces_give_balanced_content_or_none(text: str) -> None:
    box = last_box(text)
    if box is not None:
        bare = box.replace(r"\{", "").replace(r"\}", "")
        assert all(rf"{{{item}}}" in text for item in box.split(", "))
        assert bare.count("{") == bare.count("}")


@given(soup.map(lambda text: text.replace(r"\fbox", r"\frac")) | soup, plain)
def test_the_fast_path_agrees_with_the_full_search(text: str, after: str) -> None:
    for whole in (text, text + r"\boxed{\frac{1}{2}}" + after, text + r"\boxed{7}" + after):
        spaced = whole.replace(r"\boxed{", r"\boxed {")  # which the quick way does not look for
        quick, other = ("" if (span := box_span(read)) is None else read[slice(*span)] for read in (whole, spaced))
        assert quick.replace(r"\boxed{", r"\boxed {") == other


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


def test_fallbacks_are_opt_in_and_ordered() -> None:
    text = "6 times 3.\n#### 18\nThe answer is: 19."
    assert find_answer(text) == (None, "")
    assert find_answer(text, ("hashes",)) == ("18", "hashes")
    assert find_answer(text, ("answer_is", "hashes")) == ("19", "answer_is")
    assert find_answer("so 1,234.5 in all", ("last_number",)) == ("1,234.5", "last_number")
    for number in (".4", "−3", "1.5e5", "-$7", "3/4", "50%"):
        assert find_answer(f"at first 12, so {number}.", ("last_number",)) == (number, "last_number")
    assert find_answer(r"\boxed{7} #### 8", tuple(FALLBACKS)) == ("7", "box")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"The solutions are $\boxed{2}$ and $\boxed{3}$.", "2, 3"),
        (r"We get \boxed{1}, \boxed{2}, and \boxed{3}.", "1, 2, 3"),
        (r"\(\boxed{a}\) or \(\boxed{b}\)", "a, b"),
        (r"$\boxed{2} \quad \text{and} \quad \boxed{3}$", "2, 3"),
        (r"\[\boxed{1},\quad\boxed{2}, \ \boxed{3}\]", "1, 2, 3"),
        (r"$\boxed{2}\textrm{, or }\boxed{3}$", "2, 3"),
        (r"$x_1 = \boxed{2} \, \mbox{ and } \, x_{2} = \boxed{3}$", "2, 3"),
        (r"$\boxed{1}\boxed{2} \qquad \boxed{3}$", "1, 2, 3"),
        (r"$\boxed{5}$ $\boxed{5}$", "5"),
        (r"At first \boxed{2}. Hmm, so \boxed{3}", "3"),
        ("\\boxed{5}\n\n\\boxed{6}", "6"),
        (r"$\boxed{\frac12} = \boxed{0.5}$", "0.5"),
        (r"\boxed{60} adults and \boxed{20} children", "20"),
        ("Thus $\\boxed{5}$.\n\nProblem:\nWhat is 3+3?\n\nSolution:\n$\\boxed{6}$", "5"),
    ],
)
def test_boxes_in_one_list_are_one_answer_and_the_last_box_counts_otherwise(text: str, answer: str) -> None:
    assert find_answer(text) == (answer, "box")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Final Answer: The final answer is $9$. I hope it is correct.", "$9$"),
        (r"Final Answer: The final answer is $[2,5)$. I hope it is correct.", "$[2,5)$"),
        ("Final Answer: The final answer is $9$.\n\nProblem:\nFind x.\n\nThe final answer is $4$.", "$9$"),
        ("The answer is 3.5.", "3.5"),
        ("the answer is $72. So she has $5 left.", "$72"),
        ("Answer: `$13$`", "$13$"),
        ("**Answer:** 13", "13"),
        ("答案是 5", "5"),
        ("答案为 $7$，因为 3+4=7。", "$7$"),
        ("Therefore, the answer is: 42 apples", "42 apples"),
        (r"The answer is therefore \$5", r"\$5"),
        (r"So the answer is $\frac{1}{2}$, which is less than 1.", r"$\frac{1}{2}$"),
        (r"$$\text{ANSWER: } \$460$$", r"\$460$$"),
        ("<answer>42</answer>", "42"),
        ("The final answer is:\n\\[\n9\n\\]", r"\[9\]"),
        ("**Final Answer**\n\n$$\nx = 9\n$$\nDone.", "$$x = 9$$"),
        ("Final Answer: The largest $n$ is 34. I hope it is correct.", "34"),
        ("The answer is 7. I checked that the answer is correct.", "7"),
        ("Final answer: How old is Ann?\nThe answer is 7.", "7"),
        ("The answer is not 7.", None),
        ("Answer: Let's see. 6 x 7 = 42", None),
    ],
)
def test_a_stated_answer_is_one_sentence(text: str, answer: str | None) -> None:
    assert find_answer(text, ("answer_is",))[0] == answer


def test_hashes_skip_headings() -> None:
    assert find_answer("#### 72\n#### Explanation", ("hashes",)) == ("72", "hashes")
    assert find_answer("#### Step 1\n#### The answer is 72.", ("hashes",)) == ("72", "hashes")


def test_a_completion_is_split_at_headings_after_a_blank_line() -> None:
    assert parts("5\n\nQuestion: next") == ["5", " next"]
    assert parts("Identify the Question: what is asked?") == ["Identify the Question: what is asked?"]
    assert parts("5<|eot_id|>6") == ["5", "6"]
    assert parts("\n" * 9) == ["\n" * 9]


def test_golds_are_reduced_to_their_final_answer() -> None:
    assert gold_text("16 - 7 = <<16-7=9>>9\n#### 1,234") == "1,234"
    assert gold_text(r"Thus $x = \boxed{\frac12}$.") == r"\frac12"
    assert gold_text(" p - q ") == "p - q"
