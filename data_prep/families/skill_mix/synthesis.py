"""Questions about a tuple of skills, asked of a model turn by turn: an exercise, critique, revision, test cases.

A conversation is a generator: it yields what to ask and is sent the reply, so that the conversations of many tuples
go on side by side, a request of each at a time, and each reads like a story.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self, TypeVar

from pydantic import Field, model_validator

from data_prep.core.step import Drop, Params, Row
from data_prep.families.skill_mix.cases import EXCEPTIONS, TestCase, suite
from data_prep.families.skill_mix.prompts import render
from data_prep.families.skill_mix.questions import Question
from data_prep.families.skill_mix.replies import (
    Critique,
    Draft,
    Read,
    ReplyError,
    read_cases,
    read_critique,
    read_draft,
)
from data_prep.families.skill_mix.signatures import USABLE, Language, Signature
from data_prep.inference.sampling import Sample

Messages = list[dict[str, str]]
T = TypeVar("T")


@dataclass(frozen=True)
class Turn:
    """A request: messages, how it is drawn, and a key of its own from which its seed comes."""

    key: str
    messages: Messages
    greedy: bool = False


Reply = Sample | Drop
Talk = Generator[Turn, Reply, T]
Ask = Callable[[Sequence[Turn]], Sequence[Reply]]


class Wishes(Params):
    """What is asked for."""

    critic_rounds: int = Field(2, ge=0)  # most rounds of critique and revision, 0 for none
    cases: int = Field(8, ge=1)  # test cases asked for
    least_cases: int = Field(5, ge=1)  # and needed
    lines: str = "10 to 40"  # of a reference solution

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if self.cases < self.least_cases:
            raise ValueError(f"cases: {self.cases} asked for, and least_cases {self.least_cases} are needed")
        return self


class Unusable(Exception):
    """A question that comes to nothing, and why."""

    def __init__(self, reason: str, detail: str, bad: bool = False) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail, self.bad = reason, detail, bad


@dataclass
class _Tuple:
    """What is asked about, and the author's chat so far: of each question only what came of it."""

    row: Row
    wishes: Wishes
    chat: Messages = field(default_factory=list)

    @property
    def language(self) -> Language:
        found: Language = self.row["meta"]["language"]
        return found

    @property
    def skills(self) -> list[dict[str, str]]:
        meta = self.row["meta"]
        pairs = zip(meta["skills"], meta["descriptions"], strict=True)
        return [{"name": name, "description": description} for name, description in pairs]

    def prompt(self, name: str, **values: Any) -> str:
        return render(name, self.language, **values)


def make_questions(rows: Sequence[Row], wishes: Wishes, ask: Ask) -> list[list[Row | Drop]]:
    """For each tuple's row its questions and drops, `meta.questions` in all, in order."""
    talks = [_about(row, wishes) for row in rows]
    results: list[list[Row | Drop]] = [[] for _ in rows]
    waiting: dict[int, Turn] = {at: next(talk) for at, talk in enumerate(talks)}
    while waiting:
        places = sorted(waiting)
        replies = ask([waiting[at] for at in places])
        for at, reply in zip(places, replies, strict=True):
            try:
                waiting[at] = talks[at].send(reply)
            except StopIteration as done:
                results[at] = done.value
                del waiting[at]
    return results


def _about(row: Row, wishes: Wishes) -> Talk[list[Row | Drop]]:
    """All questions of one tuple, each distinct from those before it."""
    about = _Tuple(row, wishes)
    made: list[Row | Drop] = []
    for number in range(row["meta"]["questions"]):
        name = f"{row['id']}/{number}"
        try:
            made.append((yield from _question(about, name, number)))
        except Unusable as problem:
            made.append(Drop(problem.reason, name, problem.detail[:500], bad=problem.bad))
    return made


def _question(about: _Tuple, name: str, number: int) -> Talk[Row]:
    """One question. Raises Unusable; the chat then does not remember it."""
    past = (len(about.chat) - 1) // 2 if about.chat else 0
    opening = about.prompt("next", skills=about.skills, number=past) if past else _opening(about)
    start: Messages = [*about.chat] or [{"role": "system", "content": about.prompt("author")}]
    start.append({"role": "user", "content": opening})
    draft, signature = yield from _draft(about, f"{name}:draft", start)
    passed = False
    rounds = 0
    while not passed and rounds < about.wishes.critic_rounds:
        verdict = yield from _critique(about, f"{name}:critic{rounds}", draft)
        passed = verdict.verdict == "pass"
        if not passed:
            revision = about.prompt("revise", feedback=verdict.feedback)
            messages = [*start, _said(draft.as_json()), {"role": "user", "content": revision}]
            draft, signature = yield from _draft(about, f"{name}:revision{rounds}", messages)
        rounds += 1
    cases = yield from _cases(about, f"{name}:tests", draft, signature)
    about.chat[:] = [*start, _said(draft.as_json())]
    return _row(about, name, draft, signature, cases, {"critic_rounds": rounds, "critic_passed": passed})


def _opening(about: _Tuple) -> str:
    return about.prompt("generate", skills=about.skills, types=USABLE[about.language], lines=about.wishes.lines)


def _draft(about: _Tuple, key: str, messages: Messages) -> Talk[tuple[Draft, Signature]]:
    return _repaired(about, Turn(key, messages), partial(read_draft, language=about.language), "malformed exercise")


def _critique(about: _Tuple, key: str, draft: Draft) -> Talk[Critique]:
    asked = about.prompt("critique", skills=about.skills, draft=draft)
    messages = [{"role": "system", "content": about.prompt("critic")}, {"role": "user", "content": asked}]
    return _repaired(about, Turn(key, messages, greedy=True), read_critique, "malformed critique")


def _cases(about: _Tuple, key: str, draft: Draft, signature: Signature) -> Talk[list[TestCase]]:
    wishes = about.wishes
    asked = about.prompt(
        "tests",
        draft=draft,
        wanted=max(wishes.cases, wishes.least_cases),
        params=", ".join(f"{name}: {kind}" for name, kind in signature.params) or "none",
        result=signature.result,
        raises=", ".join(EXCEPTIONS),
    )
    messages = [{"role": "system", "content": about.prompt("tester")}, {"role": "user", "content": asked}]
    read = partial(read_cases, signature=signature, least=wishes.least_cases)
    return _repaired(about, Turn(key, messages, greedy=True), read, "malformed tests")


def _repaired(about: _Tuple, turn: Turn, read: Read[T], reason: str) -> Talk[T]:
    """What a reply says; one that cannot be used is sent back once. Raises Unusable."""
    reply = yield from _reply(turn)
    try:
        return _understood(reply, read)
    except ReplyError as error:
        mend = about.prompt("repair", problems=error.problems)
    messages = [*turn.messages, _said(reply.text), {"role": "user", "content": mend}]
    reply = yield from _reply(Turn(f"{turn.key}:repair", messages, turn.greedy))
    try:
        return _understood(reply, read)
    except ReplyError as error:
        raise Unusable(reason, str(error)) from error


def _reply(turn: Turn) -> Talk[Sample]:
    """The reply. Raises Unusable for a request that failed."""
    reply = yield turn
    if isinstance(reply, Drop):
        raise Unusable(reply.reason, reply.detail, reply.bad)
    return reply


def _understood(reply: Sample, read: Read[T]) -> T:
    if reply.finish_reason == "length":
        raise ReplyError(["it was truncated: be shorter"])
    return read(reply.text)


def _said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def _row(
    about: _Tuple, name: str, draft: Draft, signature: Signature, cases: Sequence[TestCase], how: Mapping[str, Any]
) -> Row:
    meta = about.row["meta"]
    question = Question(
        id=name,
        language=about.language,
        skills=tuple(meta["skills"]),
        function=draft.function_name,
        signature=draft.function_signature,
        docstring=draft.function_docstring,
        statement=draft.problem_statement,
        gold=draft.solution,
        tests=suite(draft.function_name, signature, cases, about.language),
        split=meta["split"],
    )
    row = question.as_row("direct")
    return {**row, "meta": {**row["meta"], "cases": [case.as_json() for case in cases], **how}}
