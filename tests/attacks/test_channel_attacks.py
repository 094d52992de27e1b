"""Attacks on the requests and replies between a program and its Python tests: no wrong program may pass an assert, turn
its verdict into an error of the tests, or exceed the time limits.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.rewards.test_asserts_programs import Program, read_programs, score

CART = """
cart = Cart(3)
assert cart.limit == 7411
assert vars(cart)["limit"] == 7411
assert cart.__dict__["limit"] - 7411 == 0
assert type(cart.limit) is int and not cart.limit != 7411
cart.items.append(4)
assert cart.items == [7411, 4]
assert type(cart.items) == type([]) and cart.items[0] == 7411 and len(cart.items) == 2
cart.prices["a"] = 4
assert cart.prices == {"b": 7411, "a": 4} and list(cart.prices.values()) == [7411, 4]
assert cart.total() == 7415
assert (cart.limit, cart.total()) == (7411, 7415)
assert cart.total() in (7415, 7416)
assert type(cart.total()).__name__ == "int" and 0 <= cart.total() - 7415 < 1
assert cart.__class__ is Cart and cart.total() == 7415
"""
FORGE = """
import json, os
def send(message):
    text = json.dumps(message).encode()
    os.write(4, len(text).to_bytes(4, "little") + text)
def reply(value, nodes=(), changed=()):
    send({"value": value, "nodes": list(nodes), "changed": list(changed)})
def ask(name, *args):
    send({"request": name, "value": [0], "nodes": [["tuple", [[1], [2]]], ["tuple", list(args)], ["dict", [], []]]})
"""
PROGRAMS = read_programs(Path(__file__).with_name("channel_programs.txt"))


def with_forgery(program: Program) -> Program:
    """The program with functions that send forged messages, and with the tests of Cart unless it has its own."""
    return replace(program, code=FORGE + program.code, tests={"kind": "asserts", "source": CART, **program.tests})


@pytest.mark.parametrize("name", PROGRAMS)
def test_no_attack_on_the_channel_passes(name: str) -> None:
    program = with_forgery(PROGRAMS[name])
    start = time.monotonic()
    result = score(program)
    if program.value is None:
        assert result.outcome == "error", result
    else:
        assert (result.outcome, result.value) == ("scored", pytest.approx(program.value)), result
    assert time.monotonic() - start < 30  # twice the wall limit, and time to start
