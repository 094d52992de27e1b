"""Extracting a program from a completion: formats that models write, and robustness on any text."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.code.fences import Block, Choice, blocks, choose

CODE = "def f(x):\n    return x"


def code_of(text: str, language: str = "python", choice: Choice = "prefer") -> str | None:
    block = choose(blocks(text), language, choice)
    return None if block is None else block.code


@pytest.mark.parametrize(
    "text",
    [
        f"```python\n{CODE}\n```",
        f"Sure.\n\n```py\n{CODE}\n```\nThat is all.",
        f"```Python3\r\n{CODE}\r\n```\r\n".replace("\r\n    ", "\r\n    "),
        f"~~~python\n{CODE}\n~~~",
        f"````python\n{CODE}\n````",
        f"```{{.python .numberLines}}\n{CODE}\n```",
        f"Here it is: ```python\n{CODE}\n```",
        f"```python\n{CODE}",
        f"```python\n{CODE}```\nIt prints\n```\n5\n```",
        f"```python:solution.py\n{CODE}\n```\n```\n5\n```",
        f"```python3.11\n{CODE}\n```\n```pycon\n>>> f(5)\n5\n```",
        f"```python\nbroken(\n```python\n{CODE}\n```",
        f"```python\nold\n```\nBetter:\n```python\n{CODE}\n```",
        f"```python\n{CODE}\n```\nIt prints\n```\n5\n```\nor\n```text\n6\n```\n```bash\npython x.py\n```",
        "1. Do\n   ```python\n   def f(x):\n       return x\n   ```\n2. Done",
        "-\t```python\n\tdef f(x):\n\t    return x\n\t```"[1:],
        f"Use ```print``` or `x`, never ```this one```.\n```\n{CODE}\n```",
    ],
)
def test_the_code_is_found(text: str) -> None:
    assert code_of(text) == CODE


def test_a_docstring_may_hold_a_fence() -> None:
    code = 'def f():\n    """\n    ```python\n    f()\n    ```\n    """'
    assert code_of(f"```python\n{code}\n```") == code


def test_a_longer_fence_may_hold_a_shorter_one() -> None:
    inner = "# a title\n```python\nf()\n```"
    assert blocks(f"````markdown\n{inner}\n````") == [Block(inner, "markdown", True)]


@pytest.mark.parametrize("text", ["", "no code", "`x`", "``x``", "a ```b``` c", "```\n\n```", "```python\n   \n"])
def test_no_code(text: str) -> None:
    assert code_of(text) is None


def test_the_language_decides_where_the_text_has_several() -> None:
    for mark in ("cpp", "C++", "c++2b", "gnu++20", "cpp:main.cpp"):
        text = f"```{mark}\nint f();\n```\n```python\nf()\n```\n```\n5\n```"
        assert code_of(text, "cpp") == "int f();", mark
    assert code_of(text, "python") == "f()"
    assert code_of(text, "python", "any") == "5"
    assert code_of("```java\nx\n```", "python") == "x"
    assert code_of("```java\nx\n```", "python", "require") is None


def test_which_of_several() -> None:
    found = blocks("```\na\n```\n```\nbbb\n```\n```\ncc")
    picked = [choose(found, "python", which=which) for which in ("first", "last", "longest")]
    assert [block and block.code for block in picked] == ["a", "cc", "bbb"]
    whole = choose(found, "python", unclosed=False)
    assert whole is not None
    assert whole.code == "bbb"


@given(st.text(alphabet="`~ \t\nab#{}.", max_size=200))
def test_any_text_can_be_read(text: str) -> None:
    for block in blocks(text):
        for line in block.code.replace("\t", "    ").split("\n"):
            assert line.strip() in text.replace("\t", "    ")


@given(st.text(alphabet="ab`\n =()", max_size=80))
def test_fenced_code_round_trips(code: str) -> None:
    mark = "`" * (max((len(run) for run in code.replace("\n", " ").split()), default=0) + 3)
    assert blocks(f"{mark}python\n{code}\n{mark}\n") == [Block(code, "python", True)]


@pytest.mark.parametrize("piece", ["`", "~", "``` ", "` ", "```\n", "```a\n", " ", "    ```\n"])
def test_time_is_linear_in_the_text(piece: str) -> None:
    began = time.process_time()
    blocks("x`" + piece * 200_000 + "x`")
    assert time.process_time() - began < 5
