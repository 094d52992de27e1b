"""Output comparison: equal and different outputs, and no exception on any bytes."""

from __future__ import annotations

import json
import math
import tracemalloc
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.code.compare import Spacing, same_output, same_result


@pytest.mark.parametrize(
    ("got", "wanted"),
    [
        (b"1\n2\n3\n", "1\n2\n3"),
        (b"1  \n2\t\r\n\n\n", "1\n2\n"),
        (b"", "\n"),
        ("ß\n".encode(), "ß"),
        (b"1\r\n2", "1\n2"),
    ],
)
def test_same_output(got: bytes, wanted: str) -> None:
    assert same_output(got, wanted)


@pytest.mark.parametrize(
    ("got", "wanted"),
    [
        (b"1", "1\n2\n3"),  # a comparison that stops at the shorter side takes this for right
        (b"1\n2\n3\n4", "1\n2\n3"),
        (b"", "0"),
        (b"1 2", "1  2"),
        (b" 1", "1"),
        (b"\n1", "1"),
        (b"1.0", "1"),
        (b"2\n1", "1\n2"),
        (b"a\x0bb", "a\nb"),
        (b"\xff", "\ufffd"),
        (b"YES", "Yes"),
    ],
)
def test_other_output(got: bytes, wanted: str) -> None:
    assert not same_output(got, wanted)


@pytest.mark.parametrize(
    ("got", "wanted", "spacing", "tolerance", "same"),
    [
        (b"1\n 2", "1 2", "tokens", 0.0, True),
        (b"12", "1 2", "tokens", 0.0, False),
        (b"2\n1\n", "1\n2", "unordered", 0.0, True),
        (b"2\n2\n1\n", "1\n2\n1", "unordered", 0.0, False),
        (b"x 0.3333334", "x 0.3333333", "lines", 1e-6, True),
        (b"x 0.3334", "x 0.3333333", "lines", 1e-6, False),
        (b"3", "3.0", "lines", 1e-9, True),
        (b"1000000007", "1000000008", "lines", 1e-6, False),
        (b"+07", "7", "lines", 1e-6, True),
        (b"nan", "0.5", "lines", 1e6, False),
        (b"1e9999", "0.5", "lines", 1e6, False),
        (b"0.5 0.5", "0.5", "lines", 1e-6, False),
        (b"7.0", "1e999", "lines", 1e-6, False),
        (b"1e998", "1e999", "lines", 1e-6, True),  # both are infinity
        (b"\n  1\n2 ", "1\n2", "stripped", 0.0, True),
        (b"1\n\n2", "1\n2", "stripped", 0.0, False),
        (b"1\n \n\n2\n", "\n1\n2", "nonblank", 0.0, True),
        (b"1 2", "1\n2", "nonblank", 0.0, False),
        (b"1\n0.50000001", "1\n0.5", "tokens", 1e-6, True),
    ],
)
def test_lenient_comparison_is_opt_in(got: bytes, wanted: str, spacing: Spacing, tolerance: float, same: bool) -> None:
    assert same_output(got, wanted, spacing, tolerance) is same


@pytest.mark.parametrize(
    ("got", "wanted", "same"),
    [
        (b"0.50", "0.5", True),
        (b"2.0 3", "2 3", True),
        (b"1e3", "1000", True),
        (b"a 2.0", "a 2", False),  # a line of text is text
        (b"0.30000000000000004", "0.3", False),
        (b"12345678901234567891", "12345678901234567890", False),
        (b"1" * 100_000 + b".0", "1" * 100_000, True),
        (b"nan", "nan", True),
        (b"1_0", "10", False),
    ],
)
def test_numbers_by_value(got: bytes, wanted: str, same: bool) -> None:
    assert same_output(got, wanted, numbers="value") is same


@pytest.mark.parametrize("spacing", get_args(Spacing))
@pytest.mark.parametrize("part", [b"\n", b"1\n", b" ", b"1 ", b"x", b" \n"])
def test_large_outputs_take_little_memory(spacing: Spacing, part: bytes) -> None:
    output = part * (8_000_000 // len(part))
    tracemalloc.start()
    assert not same_output(output, "1\n2\n3\n", spacing, 1e-6, "value")
    assert not same_result(b"[" + output.replace(b"\n", b",") + b"1]", [1, 2, 3], 1e-6, "equal")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 * len(output)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(values)
def test_a_value_equals_its_json(value: Any) -> None:
    assert same_result(json.dumps(value).encode(), json.loads(json.dumps(value)))


@given(values, values)
def test_equality_is_pythons_if_types_agree(a: Any, b: Any) -> None:
    a, b = json.loads(json.dumps(a)), json.loads(json.dumps(b))
    if same_result(json.dumps(a).encode(), b):
        assert json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True) or a == b
        assert same_result(json.dumps(b).encode(), a)


@pytest.mark.parametrize(
    ("got", "wanted", "tolerance", "same"),
    [
        (b"true", 1, 0.0, False),
        (b"1", True, 0.0, False),
        (b"2", 2.0, 0.0, False),
        (b"2.0", 2, 0.0, False),
        (b"2", 2.0, 1e-6, True),
        (b"true", 1.0, 1e-6, False),
        (b"[0.1, [0.30000000000000004]]", [0.1, [0.3]], 1e-9, True),
        (b"[1, 2]", [2, 1], 0.0, False),
        (b"[1]", [1, 1], 0.0, False),
        (b'"1"', 1, 0.0, False),
        (b"null", None, 0.0, True),
        (b"", None, 0.0, False),
        (b"{}", [], 0.0, False),
        (b"10" + b"0" * 400, 1e300, 1e-6, False),
        (b"[" * 100_000 + b"]" * 100_000, [], 0.0, False),
        (b"1" * 100_000, 1, 0.0, False),
        (b"\xff", "x", 0.0, False),
        (b"7.0", math.inf, 1e-6, False),
        (b"Infinity", math.inf, 1e-6, True),
        (b"1e999", 10**400, 1e-6, False),
        (b"-Infinity", math.inf, 1e-6, False),
        (b"NaN", math.nan, 1e-6, True),
    ],
)
def test_results(got: bytes, wanted: Any, tolerance: float, same: bool) -> None:
    assert same_result(got, wanted, tolerance) is same


@pytest.mark.parametrize(
    ("got", "wanted", "same"),
    [
        (b"2.0", 2, True),
        (b"[true, 0]", [1, False], True),
        (b"2.5", 2, False),
        (b'"2"', 2, False),
        (b'{"a":[1.0]}', {"a": [1]}, True),
        (b"null", 0, False),
    ],
)
def test_results_with_types_equal(got: bytes, wanted: Any, same: bool) -> None:
    assert same_result(got, wanted, types="equal") is same


@given(st.binary(max_size=50), st.text(max_size=50), st.sampled_from(get_args(Spacing)))
def test_no_bytes_raise(got: bytes, wanted: str, spacing: Spacing) -> None:
    assert same_output(got, wanted, spacing, 1e-6, "value") in (True, False)
    assert same_result(got, wanted, 1e-6) in (True, False)
