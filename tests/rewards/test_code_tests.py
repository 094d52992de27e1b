"""Tests of programs: our format and other data sets' formats are read, anything else is a one-line error."""

from __future__ import annotations

import base64
import contextlib
import json
import pickle
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.code.suites import (
    Item,
    from_apps,
    from_humaneval,
    from_livecodebench,
    from_mbpp,
    pickled_text,
    read,
    unpack_text,
)
from rewards.errors import RewardError


def pack(value: Any, protocol: int = 4) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(value, protocol))).decode()


def test_own_formats() -> None:
    stdio = read({"kind": "stdio", "cases": [{"input": "1", "output": "2", "weight": 3}]})
    assert (stdio.kind, stdio.language, stdio.items) == ("stdio", "python", (Item("1", "2", weight=3.0),))
    call = read({"kind": "call", "function": "f", "cases": [{"args": [1], "expected": None}]})
    assert (call.function, call.items) == ("f", (Item(args=(1,), expected=None),))
    assert read({"kind": "asserts", "source": "assert f()"}).language == "python"
    assert read({"kind": "gtest", "source": "TEST"}).language == "cpp"
    assert read({"kind": "stdio", "language": "cpp", "cases": [{"input": "", "output": ""}]}).language == "cpp"
    assert (
        read('{"kind": "asserts", "source": "assert f()"}').key == read({"source": "assert f()", "kind": "asserts"}).key
    )


@pytest.mark.parametrize(
    ("tests", "says"),
    [
        (None, "they are None, not an object"),
        ([], "they are list, not an object"),
        ("[", "tests is not JSON"),
        ("[" * 100_000, "tests is not JSON"),
        ({}, "kind is None; kinds: stdio, call, asserts, gtest"),
        ({"kind": "stdin"}, "kind is 'stdin', did you mean 'stdio'?"),
        ({"kind": ["stdio"]}, "kind is list"),
        ({"kind": "gtest", "source": "TEST", "language": "python"}, "kind 'gtest' needs language cpp, not 'python'"),
        ({"kind": "stdio", "language": "rust"}, "needs language python or cpp, not 'rust'"),
        ({"kind": "stdio", "cases": []}, "cases are list, not a list with a case"),
        ({"kind": "stdio", "cases": {}}, "cases are dict"),
        ({"kind": "stdio", "cases": [3]}, "case 0 is 3, not an object with input and output"),
        ({"kind": "stdio", "cases": [{"input": "", "output": 3}]}, "case 0: output is 3, not a text"),
        ({"kind": "stdio", "cases": [{"input": "", "output": "", "weight": 0}]}, "weight is 0, not a number above 0"),
        ({"kind": "stdio", "cases": [{"input": "", "output": "", "weight": True}]}, "weight is True"),
        ({"kind": "call", "cases": [{"args": [], "expected": 1}]}, "function is None, not a text"),
        ({"kind": "call", "function": "f", "cases": [{"args": 1, "expected": 1}]}, "args are 1, not a list"),
        ({"kind": "asserts", "source": " "}, "source is ' ', not a text"),
        ({"kind": "gtest", "source": "x", "declarations": 3}, "declarations is 3, not a text"),
        ({"kind": "gtest", "source": "int three = 3;"}, "the source has no TEST"),
        ({"kind": "gtest", "source": 3}, "source is 3, not a text"),
        ({"kind": "asserts", "sauce": ""}, "unknown key 'sauce', did you mean 'source'?"),
        ({"inputs": ["1"], "outputs": []}, "two lists of the same length"),
    ],
)
def test_invalid_tests_are_a_one_line_error(tests: Any, says: str) -> None:
    with pytest.raises(RewardError) as caught:
        read(tests)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(
                ["kind", "cases", "inputs", "outputs", "fn_name", "args", "expected", "testtype", "source"]
            ),
            inner,
        )
    ),
)


@given(json_values)
def test_any_json_is_read_or_rejected(tests: Any) -> None:
    with contextlib.suppress(RewardError):
        read(tests)


def test_apps() -> None:
    stdio = {"inputs": ["1\n", ["1", "2"]], "outputs": ["1\n", ["3", "4"]]}
    cases = [{"input": "1\n", "output": "1\n"}, {"input": "1\n2", "output": "3\n4"}]
    assert from_apps({"input_output": json.dumps(stdio)}) == {"kind": "stdio", "cases": cases}
    assert [item.input for item in read(stdio).items] == ["1\n", "1\n2"]
    call = {"fn_name": "f", "inputs": [[1], [2], [3]], "outputs": [[5], [[6]], [6, 7]]}
    suite = read(call)
    assert [suite.accepted(item) for item in suite.items] == [([5], 5), ([[6]], [6]), ([6, 7],)]


@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
def test_livecodebench(protocol: int) -> None:
    public = [{"input": "1\n2", "output": "3\n", "testtype": "stdin"}]
    private = [{"input": "é\ud800", "output": "5", "testtype": "stdin"}]
    row = {
        "public_test_cases": json.dumps(public),
        "private_test_cases": pack(json.dumps(private), protocol),
        "metadata": "{}",
    }
    cases = [{"input": "1\n2", "output": "3\n"}, {"input": "é\ud800", "output": "5"}]
    assert from_livecodebench(row) == {"kind": "stdio", "cases": cases}
    assert len(read(public).items) == 1


def test_livecodebench_functions() -> None:
    row = {
        "public_test_cases": [{"input": '[1, 2]\n"a\\n"\n', "output": "[true]", "testtype": "functional"}],
        "metadata": json.dumps({"func_name": "solve"}),
    }
    assert from_livecodebench(row) == {
        "kind": "call",
        "function": "solve",
        "cases": [{"args": [[1, 2], "a\n"], "expected": [True]}],
    }
    with pytest.raises(RewardError, match="metadata has no func_name"):
        from_livecodebench({**row, "metadata": "{}"})
    with pytest.raises(RewardError, match="testtype is missing"):
        from_livecodebench({})


def test_mbpp_and_humaneval() -> None:
    mbpp = {"test_list": ["assert f(1) == 2"], "test_setup_code": "x = 1", "test_imports": ["import math"]}
    assert from_mbpp(mbpp)["source"] == "import math\nx = 1\nassert f(1) == 2"
    assert from_mbpp({**mbpp, "test": "assert f(2) == 3"})["source"] == "import math\nx = 1\nassert f(2) == 3"
    humaneval = {"test": "def check(candidate):\n    assert candidate(1) == 2", "entry_point": "f"}
    prompt = 'import math\n\n\ndef f(x):\n    """One more."""\n'
    continued = read(from_humaneval({**humaneval, "prompt": prompt}))
    assert continued.program("    return x + 1\n") == prompt + "    return x + 1\n"
    assert continued.program("def f(x): return x + 1\n") == "def f(x): return x + 1\n"
    with pytest.raises(RewardError, match="test_list is None"):
        from_mbpp({})


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("unpickled",)


@pytest.mark.parametrize(
    ("value", "instruction"),
    [
        (Evil(), "texts? |STACK_GLOBAL|cut short"),
        (["[]"], "EMPTY_LIST"),
        (7, "BININT1"),
        (b"[]", "SHORT_BINBYTES"),
        ({}, "EMPTY_DICT"),
    ],
)
def test_any_other_pickle_is_rejected(value: Any, instruction: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RewardError, match=f"packed tests: .*({instruction})"):
        unpack_text(pack(value))
    assert capsys.readouterr().out == ""


@given(st.text(alphabet=st.characters(codec="utf-8") | st.just("\ud800")), st.integers(1, 5))
def test_any_text_round_trips(text: str, protocol: int) -> None:
    assert pickled_text(pickle.dumps(text, protocol)) == text


@given(st.binary(max_size=60))
def test_any_bytes_give_text_or_reward_error(data: bytes) -> None:
    for read_it in (lambda: pickled_text(data), lambda: unpack_text(base64.b64encode(zlib.compress(data)).decode())):
        with contextlib.suppress(RewardError):
            read_it()


def test_a_decompression_bomb_is_rejected_early() -> None:
    with pytest.raises(RewardError, match="more than 1000 bytes"):
        unpack_text(pack("0" * 10_000_000), most_bytes=1000)
    with pytest.raises(RewardError, match="cut short"):
        unpack_text(pack("0" * 1000)[:-8])
    with pytest.raises(RewardError, match="neither JSON nor base64"):
        unpack_text("ß")
