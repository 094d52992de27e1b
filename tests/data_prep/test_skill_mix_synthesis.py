"""Synthesis with a scripted endpoint over real HTTP: the whole pipeline, bad replies, failures, and `kill -9`."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from killing import kill_when
from pydantic import ValidationError

from data_prep.core import pipeline
from data_prep.core.step import Row
from data_prep.errors import LimitExceeded
from data_prep.families.skill_mix.replies import Draft, ReplyError, read_test_cases
from data_prep.families.skill_mix.signatures import read
from data_prep.families.skill_mix.synthesis import SynthesizeParams
from data_prep.inference.api.objects import NoObject, extract_object
from tests.fakes.openai_server import Cut, Fault, Finish, OpenAIServer, Raw, Request, Status

SETTINGS = ("a lighthouse", "a bakery", "an observatory", "a quarry", "a ferry", "an orchard", "a printing house")

PYTHON = {
    "signature": "def {name}(xs: list[int], n: int) -> int",
    "solution": (
        "def {name}(xs: list[int], n: int) -> int:\n    if n < 0:\n        raise ValueError('n')\n"
        "    total = {number}\n    for x in xs:\n        if x > n:\n            total += x - n\n    return total\n"
    ),
}
CPP = {
    "signature": "int {name}(const std::vector<int>& xs, int n)",
    "solution": (
        "#include <stdexcept>\n#include <vector>\nint {name}(const std::vector<int>& xs, int n) {{\n"
        '  if (n < 0) throw std::invalid_argument("n");\n  int total = {number};\n'
        "  for (int x : xs) {{\n    if (x > n) total += x - n;\n  }}\n  return total;\n}}\n"
    ),
}


def words(prompt: str) -> str:
    """Sixty words unique to this question."""
    return " ".join(hashlib.sha256(f"{prompt}{n}".encode()).hexdigest()[:7] for n in range(60))


def exercise(request: Request) -> dict[str, Any]:
    """A good author's replies, deterministic per request."""
    said = json.dumps([one["content"] for one in request.body["messages"]])
    number = int(hashlib.sha256(said.encode()).hexdigest()[:4], 16)
    made = CPP if "C++" in request.body["messages"][0]["content"] else PYTHON
    name = f"over_{number}"
    return {
        "function_name": name,
        "function_signature": made["signature"].format(name=name),
        "function_docstring": "xs: numbers. n: not negative. Returns an int.",
        "problem_statement": f"At {SETTINGS[number % 7]}: {words(said)}",
        "solution": made["solution"].format(name=name, number=number),
    }


def cases_of(prompt: str) -> dict[str, Any]:
    base = int(re.findall(r"total = (\d+)", prompt)[-1])
    cases: list[dict[str, Any]] = [{"args": [[], 0], "expected": base}, {"args": [[1], -1], "raises": "ValueError"}]
    cases += [{"args": [[k, 2 * k, 1], 1], "expected": base + 3 * k - 2} for k in range(2, 7)]
    return {"cases": cases}


def kind(request: Request) -> str:
    system = request.body["messages"][0]["content"]
    return "author" if "You set" in system else "critic" if "You review" in system else "tester"


def said(value: Any) -> Finish:
    return Finish(content=value if isinstance(value, str) else json.dumps(value))


def good(request: Request) -> Fault:
    if kind(request) == "critic":
        return said({"verdict": "pass", "feedback": ""})
    return said(exercise(request) if kind(request) == "author" else cases_of(request.body["messages"][1]["content"]))


@dataclass
class Odd:
    """A good model, except for the n-th request of a kind, which gets another reply."""

    replies: dict[tuple[str, int], Fault | Callable[[Request], Fault]]
    seen: dict[str, int] = field(default_factory=dict)

    def __call__(self, request: Request) -> Fault:
        number = self.seen[kind(request)] = self.seen.get(kind(request), 0) + 1
        found = self.replies.get((kind(request), number))
        return good(request) if found is None else found(request) if callable(found) else found


def make_spec(
    folder: Path, url: str, names: int = 1, k: Any = 1, verify: bool = False, language: str = "python", **params: Any
) -> pipeline.Spec:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "skills.txt").write_text("".join(f"skill{n:02d} | about number {n}\n" for n in range(names)))
    per_tuple = params.pop("per_tuple", 1)
    given = {"skills": "skills.txt", "language": language, "k": k, "per_tuple": per_tuple, "held_out": 0.2}
    steps: list[dict[str, Any]] = [
        {"name": "tuples", "kind": "skill_tuples", "params": given},
        {"name": "synthesize", "kind": "synthesize", "inputs": ["tuples"],
         "params": {"model": "m", "base_url": url, "seed": 1, **params}},
    ]  # fmt: skip
    if verify:
        steps += [
            {"name": "verify", "kind": "verify_questions", "inputs": ["synthesize"],
             "params": {"runs": 1, "mutants": 1, "killed": 0}},
            {"name": "dedup", "kind": "dedup", "params": {"fields": ["prompt"], "near": 0.6}, "inputs": ["verify"]},
        ]  # fmt: skip
    spec = {"name": "test", "base": str(folder), "cache": str(folder / "cache"), "steps": steps}
    (folder / "spec.json").write_text(json.dumps(spec))
    return pipeline.Spec.read(folder / "spec.json")


def outcome(spec: pipeline.Spec) -> tuple[list[Row], dict[str, str]]:
    """The rows of `synthesize`, and its drops as id -> (reason, detail)."""
    directory = pipeline.find(spec, "synthesize")
    lines = [line for path in sorted(directory.glob("shards/*.drops.jsonl")) for line in path.read_text().splitlines()]
    drops = {drop["row_id"]: f"{drop['reason']}: {drop['detail']}" for drop in map(json.loads, lines)}
    return list(pipeline.read_rows(directory)), drops


def synthesize(folder: Path, script: Any, **params: Any) -> tuple[list[Row], dict[str, str], list[Request]]:
    with OpenAIServer(script=script) as server:
        spec = make_spec(folder, server.url, **params)
        pipeline.run(spec)
        return *outcome(spec), server.requests


@pytest.mark.parametrize(
    ("language", "names"), [("python", ["skill00", "skill01", "skill00+skill01"]), ("cpp", ["skill00"])]
)
def test_the_whole_pipeline(tmp_path: Path, language: str, names: list[str]) -> None:
    """Tuples, synthesis, verification by execution, deduplication. A repeated exercise is a duplicate."""
    tuples = len(names)

    def repeats(request: Request) -> Fault:
        if kind(request) == "author" and "another exercise" in request.prompt:
            return said({"ideas": ["a"] * 5, **json.loads(request.body["messages"][2]["content"])})
        return good(request)

    with OpenAIServer(script=repeats) as server:
        given: dict[str, Any] = {"names": 2, "k": [1, 2]} if tuples == 3 else {"names": 1, "k": [1]}
        spec = make_spec(tmp_path, server.url, verify=True, language=language, per_tuple=2, critic_rounds=1, **given)
        manifests = pipeline.run(spec)
    counts = {one.name: (one.rows_in, one.rows_out) for one in manifests}
    assert counts == {
        "tuples": (tuples, tuples),
        "synthesize": (tuples, 2 * tuples),
        "verify": (2 * tuples, 2 * tuples),
        "dedup": (2 * tuples, tuples),
    }
    assert manifests[-1].drops == {"duplicate": tuples}
    rows = list(pipeline.read_rows(pipeline.find(spec)))
    assert [row["id"] for row in rows] == [f"{language}/{name}/0" for name in names]
    for row in rows:
        assert row["meta"]["critic_passed"] is True
        assert row["meta"]["verified"]["tests"] == 7
        assert row["tests"]["kind"] == ("asserts" if language == "python" else "call")
        assert row["meta"]["split"] == ("held_out" if row["meta"]["k"] == 2 else "train")


def test_the_next_question_sees_the_earlier_ones(tmp_path: Path) -> None:
    rows, drops, requests = synthesize(tmp_path, good, names=1, per_tuple=3, critic_rounds=0)
    assert [row["id"] for row in rows] == ["python/skill00/0", "python/skill00/1", "python/skill00/2"]
    assert drops == {}
    authors = [one.body["messages"] for one in requests if kind(one) == "author"]
    assert [len(messages) for messages in authors] == [2, 4, 6]
    assert "skill00: about number 0" in authors[0][1]["content"]
    third = authors[2]
    assert [one["role"] for one in third] == ["system", "user", "assistant", "user", "assistant", "user"]
    for row, place in zip(rows, (2, 4), strict=False):
        assert json.loads(third[place]["content"])["problem_statement"] == row["meta"]["statement"]
    assert "earlier 2 as you can go" in third[-1]["content"]
    assert [one.body["temperature"] for one in requests if kind(one) == "author"] == [0.8] * 3
    assert {one.body["temperature"] for one in requests if kind(one) == "tester"} == {0.0}


def test_critic_rounds(tmp_path: Path) -> None:
    revise = said({"verdict": "revise", "feedback": "Make it harder."})
    rows, _, requests = synthesize(tmp_path / "a", Odd({("critic", 1): revise}))
    assert [kind(one) for one in requests] == ["author", "critic", "author", "critic", "tester"]
    assert "Make it harder." in requests[2].prompt
    assert (rows[0]["meta"]["critic_rounds"], rows[0]["meta"]["critic_passed"]) == (2, True)
    assert exercise(requests[2])["problem_statement"] == rows[0]["meta"]["statement"]
    rows, _, requests = synthesize(tmp_path / "b", Odd({("critic", n): revise for n in (1, 2)}))
    assert [kind(one) for one in requests] == ["author", "critic", "author", "critic", "author", "tester"]
    assert (rows[0]["meta"]["critic_rounds"], rows[0]["meta"]["critic_passed"]) == (2, False)
    _, _, requests = synthesize(tmp_path / "c", good, critic_rounds=0)
    assert [kind(one) for one in requests] == ["author", "tester"]


def half(request: Request) -> Fault:
    return said(json.dumps(exercise(request))[:-40])


def fenced(request: Request) -> Fault:
    made = exercise(request)
    code = f"```python\n{made['solution']}```"
    return said(f"Here {{it}} is:\n```json\n{json.dumps({**made, 'solution': code}, indent=1)}\n```\nGood luck!")


def without(name: str) -> Callable[[Request], Fault]:
    return lambda request: said({key: value for key, value in exercise(request).items() if key != name})


def changed(**parts: Any) -> Callable[[Request], Fault]:
    return lambda request: said({**exercise(request), **parts})


MALFORMED = [
    (half, "not JSON"),
    (said("I cannot do that."), "it contains no JSON object"),
    (said('["a"]'), "it contains no JSON object"),
    (said("[" * 100_000), "it contains no JSON object"),
    (said('{"a": ' * 100_000), "not JSON"),
    (said('{"function_name": NaN}'), "not JSON: NaN is not JSON"),
    (without("solution"), "solution: Field required"),
    (changed(function_docstring=None), "function_docstring: Input should be a valid string"),
    (changed(problem_statement="  "), "problem_statement: String should have at least 1 character"),
    (changed(function_name="other"), "function_signature: it declares 'over_"),
    (changed(function_signature="def f(x: Node) -> int"), "type 'Node' cannot be tested by values"),
    (changed(solution="def over("), "solution: not Python"),
    (changed(solution="x = 1"), "solution: no function 'over_"),
    (Finish(reason="length", content='{"function_name": "a'), "it was truncated"),
]


@pytest.mark.parametrize(("reply", "problem"), MALFORMED)
def test_a_malformed_exercise_is_requested_again_once(tmp_path: Path, reply: Any, problem: str) -> None:
    rows, drops, requests = synthesize(tmp_path / "mended", Odd({("author", 1): reply}), critic_rounds=0)
    assert [kind(one) for one in requests] == ["author", "author", "tester"]
    assert problem in requests[1].prompt
    assert len(rows) == 1
    assert drops == {}
    # Twice malformed is a drop with its reason; the other question of the tuple is made all the same.
    bad = Odd({("author", 1): reply, ("author", 2): reply})
    rows, drops, _ = synthesize(tmp_path / "dropped", bad, critic_rounds=0, per_tuple=2)
    assert [row["id"] for row in rows] == ["python/skill00/1"]
    assert drops["python/skill00/0"].startswith("malformed exercise: ")
    assert problem in drops["python/skill00/0"]


def test_an_exercise_in_a_fence_within_text_is_accepted(tmp_path: Path) -> None:
    rows, _, requests = synthesize(tmp_path, Odd({("author", 1): fenced}), critic_rounds=0)
    assert len(requests) == 2
    assert rows[0]["references"][0].startswith("def over_")


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (said({"cases": []}), "cases: List should have at least 1 item"),
        (said({"cases": [{"args": [[1], 1], "expected": 1}] * 9}), "1 usable cases with distinct arguments"),
        (said({"cases": [{"args": [[1]], "expected": 1}]}), "cases[0]: 1 arguments, but over_"),
        (said({"cases": [{"args": [["a"], 1], "expected": 1}]}), 'xs[0]: "a" is not a value of type int'),
        (said({"cases": [{"args": [[1], 1], "expected": 1, "raises": "any"}]}), 'either "expected" or "raises"'),
        (said("assert f([1], 1) == 1"), "it contains no JSON object"),
    ],
)
def test_malformed_tests(tmp_path: Path, reply: Any, problem: str) -> None:
    rows, drops, requests = synthesize(tmp_path / "mended", Odd({("tester", 1): reply}), critic_rounds=0)
    assert problem in requests[-1].prompt
    assert (len(rows), drops) == (1, {})
    twice = Odd({("tester", 1): reply, ("tester", 2): reply})
    rows, drops, _ = synthesize(tmp_path / "dropped", twice, critic_rounds=0, per_tuple=2)
    assert [row["id"] for row in rows] == ["python/skill00/1"]
    assert drops["python/skill00/0"].startswith("malformed tests: ")


def test_a_malformed_critique(tmp_path: Path) -> None:
    mute = said({"verdict": "revise", "feedback": " "})
    rows, _, requests = synthesize(tmp_path / "a", Odd({("critic", 1): mute}))
    assert [kind(one) for one in requests] == ["author", "critic", "critic", "tester"]
    assert len(rows) == 1
    odd = Odd({("critic", 1): said("fine"), ("critic", 2): said({"verdict": "maybe"})})
    _, drops, _ = synthesize(tmp_path / "b", odd, per_tuple=2)
    assert drops["python/skill00/0"].startswith("malformed critique: verdict: ")


def test_server_faults_are_retried(tmp_path: Path) -> None:
    faults = {
        ("author", 1): Status(429, {"Retry-After": "0"}),
        ("author", 2): Status(500),
        ("critic", 1): Cut(0.5),
        ("tester", 1): Raw(b"<html>"),
        ("tester", 2): Status(503),
    }
    rows, drops, requests = synthesize(tmp_path / "faults", Odd(faults))
    clean, _, _ = synthesize(tmp_path / "clean", good)
    assert rows == clean
    assert drops == {}
    assert len(requests) == 3 + len(faults)


def test_requests_without_a_reply_give_no_text(tmp_path: Path) -> None:
    def refused(request: Request) -> Fault:
        skills = "".join(one["content"] for one in request.body["messages"])
        return Status(400) if "skill01:" in skills else good(request)

    with OpenAIServer(script=refused) as server:
        spec = make_spec(tmp_path, server.url, names=3, critic_rounds=0)
        with pytest.raises(LimitExceeded, match="1 of 3 questions had no reply after all retries"):
            pipeline.run(spec)
        lenient = make_spec(tmp_path, server.url, names=3, critic_rounds=0, max_error_share=0.5)
        lenient = lenient.model_copy(update={"max_drop_share": 0.5})
        pipeline.run(lenient)
    rows, drops = outcome(lenient)
    assert [row["id"] for row in rows] == ["python/skill00/0", "python/skill02/0"]
    assert list(drops) == ["python/skill01/0"]
    assert drops["python/skill01/0"].startswith("api_error: bad_request")


def test_output_is_independent_of_reply_order(tmp_path: Path) -> None:
    digests = []
    for concurrency in (1, 16):
        with OpenAIServer(script=good) as server:
            spec = make_spec(tmp_path / str(concurrency), server.url, names=8, concurrency=concurrency)
            digests.append(pipeline.run(spec)[-1].sha256)
    assert digests[0] == digests[1]


def test_killed_and_resumed_makes_the_same_bytes(tmp_path: Path) -> None:
    """40 tuples are two shards; replies of the first one are not requested again."""
    with OpenAIServer(script=good) as server:
        expected = pipeline.run(make_spec(tmp_path / "whole", server.url, names=40, critic_rounds=1))[-1].sha256
        before = len(server.requests)
        spec = make_spec(tmp_path / "killed", server.url, names=40, critic_rounds=1)
        kill_when(tmp_path / "killed", lambda: len(server.requests) >= before + 32 * 3 + 5)
        asked = len(server.requests)
        assert asked < before + 40 * 3
        assert pipeline.run(spec)[-1].sha256 == expected
        assert len(server.requests) <= asked + 8 * 3 + 8  # at most one turn was still on its way


def test_a_key_given_as_its_name_is_rejected_without_being_shown() -> None:
    with pytest.raises(ValidationError) as caught:
        SynthesizeParams(model="m", base_url="http://x/v1", api_key_env="sk-secret")
    assert "must be the name of an environment variable" in str(caught.value)
    assert "sk-secret" not in str(caught.value)


def test_rows_that_are_not_tuples(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"id": "a", "prompt": "x", "level": 3}\n')
    with OpenAIServer(script=good) as server:
        steps = (
            pipeline.StepSpec(name="load", kind="load", params={"path": "rows.jsonl"}),
            pipeline.StepSpec(
                name="make", kind="synthesize", params={"model": "m", "base_url": server.url}, inputs=("load",)
            ),
        )
        spec = pipeline.Spec(name="test", base=tmp_path, cache=tmp_path / "cache", steps=steps)
        with pytest.raises(LimitExceeded, match="not a tuple of skills"):
            pipeline.run(spec)
        assert server.requests == []


def test_reply_parsing() -> None:
    assert extract_object('So {"a": {"b": "}"}} it is') == {"a": {"b": "}"}}
    assert extract_object('First:\n```json\n{"a": 1}\n```\nthen\n```\n{"a": 2}\n```') == {"a": 2}
    for text in ("no", "{", '["a"]', '{"a": NaN}'):
        with pytest.raises(NoObject):
            extract_object(text)
    with pytest.raises(ReplyError):
        Draft.read("no", "cpp")
    with pytest.raises(ReplyError):
        Draft.read("{}", "cpp")
    signature = read("int f(int x)", "cpp")
    with pytest.raises(ReplyError) as caught:
        read_test_cases(json.dumps({"cases": [{"args": ["a"], "expected": 1}] * 50}), signature, 5)
    assert len(caught.value.problems) == 8
