"""Questions with tests about tuples of skills, written by a model behind an OpenAI-compatible endpoint.

- synthesize: {model: gpt-4o, base_url: https://api.openai.com/v1, api_key_env: KEY, critic_rounds: 2}

Rows are those of `skill_tuples`; of each come `meta.questions` questions, the second and later ones asked for as
distinct from those before. A model is asked turn by turn: an exercise, critique, revision, test cases; each is
checked, sent back once where it cannot be used, and dropped with a reason then. Whether a question is right is for
`verify_questions` to say.

A conversation is a generator: it yields what to ask and is sent the reply, so that the conversations of many tuples
go on side by side, a request of each at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from pydantic import Field, model_validator

from data_prep.core.step import Drop, Output, Row
from data_prep.families.skill_mix.cases import EXCEPTIONS, TestCase, suite
from data_prep.families.skill_mix.questions import Question, render
from data_prep.families.skill_mix.replies import (
    Critique,
    Draft,
    Read,
    ReplyError,
    read_critique,
    read_draft,
    read_test_cases,
)
from data_prep.families.skill_mix.signatures import USABLE, Language, Signature
from data_prep.inference.api.params import EndpointParams, EndpointStep, refuse_failures
from data_prep.inference.api.replies import Failed, as_drop
from data_prep.inference.api.requests import Request
from data_prep.inference.sampling import Sample, Sampling, prompt_seed

if TYPE_CHECKING:
    from data_prep.inference.api.client import ChatClient

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


class SynthesizeParams(EndpointParams):
    """Who writes, how it is drawn, and what is asked for; critiques and test cases are drawn greedily."""

    critic_rounds: int = Field(2, ge=0)  # most rounds of critique and revision, 0 for none
    cases: int = Field(8, ge=1)  # test cases asked for
    least_cases: int = Field(5, ge=1)  # and needed
    lines: str = "10 to 40"  # of a reference solution
    temperature: float = Field(0.8, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(4096, ge=1)  # per reply
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if self.cases < self.least_cases:
            raise ValueError(f"cases: {self.cases} asked for, and least_cases {self.least_cases} are needed")
        return self

    @property
    def decoding(self) -> Sampling:
        return Sampling(1, self.temperature, self.top_p, 0, self.max_tokens, (), self.seed)


class Synthesize(EndpointStep):
    """Tuples to questions, shard by shard."""

    kind = "synthesize"
    prompts = "skill_mix"
    needs: ClassVar[tuple[str, ...]] = ("meta",)
    packages: ClassVar[tuple[str, ...]] = ("openai",)
    shard_rows = 32  # tuples whose conversations go on side by side, and what a kill costs
    shards_at_once = 1
    growth = 64.0
    Params = SynthesizeParams
    params: SynthesizeParams

    def answered(self, rows: Sequence[Row], asker: ChatClient) -> Output:
        fit = [row for row in rows if _is_tuple(row)]
        results = iter(make_questions(fit, self.params, lambda turns: self._ask(turns, asker)))
        made: list[Row | Drop] = []
        for row in rows:
            why = "rows of `skill_tuples` have skills, descriptions, language, split and questions"
            made += next(results) if _is_tuple(row) else [Drop("not a tuple of skills", row["id"], why, bad=True)]
        refuse_failures(made, len(made), self.params, "questions had no reply")
        return made

    def _ask(self, turns: Sequence[Turn], asker: ChatClient) -> list[Reply]:
        """The replies to one turn of each conversation, in order."""
        decoding = self.params.decoding
        replies: dict[int, Reply] = {}
        for greedy in (False, True):
            places = [at for at, turn in enumerate(turns) if turn.greedy == greedy]
            sampling = replace(decoding, temperature=0.0) if greedy else decoding
            requests = [Request(turns[at].messages, prompt_seed(sampling.seed, turns[at].key)) for at in places]
            for at, reply in zip(places, asker.ask(requests, sampling) if places else (), strict=True):
                replies[at] = as_drop(reply, turns[at].key) if isinstance(reply, Failed) else reply[0]
        return [replies[at] for at in range(len(turns))]


def _is_tuple(row: Row) -> bool:
    return set(row["meta"]) >= {"skills", "descriptions", "language", "split", "questions"}


class Unusable(Exception):
    """A question that comes to nothing, and why."""

    def __init__(self, reason: str, detail: str, bad: bool = False) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail, self.bad = reason, detail, bad


@dataclass
class _Tuple:
    """What is asked about, and the author's chat so far: of each question only what came of it."""

    row: Row
    params: SynthesizeParams
    chat: Messages = field(default_factory=list)

    @property
    def language(self) -> Language:
        language: Language = self.row["meta"]["language"]
        return language

    @property
    def skills(self) -> list[dict[str, str]]:
        meta = self.row["meta"]
        pairs = zip(meta["skills"], meta["descriptions"], strict=True)
        return [{"name": name, "description": description} for name, description in pairs]

    def prompt(self, name: str, **values: Any) -> str:
        return render(name, self.language, **values)


def make_questions(rows: Sequence[Row], params: SynthesizeParams, ask: Ask) -> list[list[Row | Drop]]:
    """For each tuple's row its questions and drops, `meta.questions` in all, in order."""
    talks = [_about(row, params) for row in rows]
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


def _about(row: Row, params: SynthesizeParams) -> Talk[list[Row | Drop]]:
    """All questions of one tuple, each distinct from those before it."""
    about = _Tuple(row, params)
    made: list[Row | Drop] = []
    for number in range(row["meta"]["questions"]):
        name = f"{row['id']}/{number}"
        try:
            made.append((yield from _question(about, name)))
        except Unusable as problem:
            made.append(Drop(problem.reason, name, problem.detail[:500], bad=problem.bad))
    return made


def _question(about: _Tuple, name: str) -> Talk[Row]:
    """One question. Raises Unusable; the chat then does not remember it."""
    past = (len(about.chat) - 1) // 2 if about.chat else 0
    if past:
        opening = about.prompt("next", skills=about.skills, number=past)
    else:
        opening = about.prompt("generate", skills=about.skills, types=USABLE[about.language], lines=about.params.lines)
    start: Messages = [*about.chat] or [{"role": "system", "content": about.prompt("author")}]
    start.append({"role": "user", "content": opening})
    draft, signature = yield from _draft(about, f"{name}:draft", start)
    passed = False
    rounds = 0
    while not passed and rounds < about.params.critic_rounds:
        verdict = yield from _critique(about, f"{name}:critic{rounds}", draft)
        passed = verdict.verdict == "pass"
        if not passed:
            revision = about.prompt("revise", feedback=verdict.feedback)
            messages = [*start, _said(draft.as_json()), {"role": "user", "content": revision}]
            draft, signature = yield from _draft(about, f"{name}:revision{rounds}", messages)
        rounds += 1
    cases = yield from _cases(about, f"{name}:tests", draft, signature)
    about.chat[:] = [*start, _said(draft.as_json())]
    question = Question(
        id=name,
        language=about.language,
        skills=tuple(about.row["meta"]["skills"]),
        function=draft.function_name,
        signature=draft.function_signature,
        docstring=draft.function_docstring,
        statement=draft.problem_statement,
        gold=draft.solution,
        tests=suite(draft.function_name, signature, cases, about.language),
        split=about.row["meta"]["split"],
    )
    row = question.as_row("direct")
    how = {"cases": [case.as_json() for case in cases], "critic_rounds": rounds, "critic_passed": passed}
    return {**row, "meta": {**row["meta"], **how}}


def _draft(about: _Tuple, key: str, messages: Messages) -> Talk[tuple[Draft, Signature]]:
    return _repaired(about, Turn(key, messages), partial(read_draft, language=about.language), "malformed exercise")


def _critique(about: _Tuple, key: str, draft: Draft) -> Talk[Critique]:
    asked = about.prompt("critique", skills=about.skills, draft=draft)
    messages = [{"role": "system", "content": about.prompt("critic")}, {"role": "user", "content": asked}]
    return _repaired(about, Turn(key, messages, greedy=True), read_critique, "malformed critique")


def _cases(about: _Tuple, key: str, draft: Draft, signature: Signature) -> Talk[list[TestCase]]:
    params = about.params
    asked = about.prompt(
        "tests",
        draft=draft,
        wanted=max(params.cases, params.least_cases),
        params=", ".join(f"{name}: {kind}" for name, kind in signature.params) or "none",
        result=signature.result,
        raises=", ".join(EXCEPTIONS),
    )
    messages = [{"role": "system", "content": about.prompt("tester")}, {"role": "user", "content": asked}]
    read = partial(read_test_cases, signature=signature, least=params.least_cases)
    return _repaired(about, Turn(key, messages, greedy=True), read, "malformed tests")


def _repaired(about: _Tuple, turn: Turn, read: Read[T], reason: str) -> Talk[T]:
    """What a reply says; one that cannot be used is sent back once. Raises Unusable."""
    messages, why = turn.messages, ""
    for key in (turn.key, f"{turn.key}:repair"):
        reply = yield Turn(key, messages, turn.greedy)
        if isinstance(reply, Drop):
            raise Unusable(reply.reason, reply.detail, reply.bad)
        try:
            if reply.finish_reason == "length":
                raise ReplyError(["it was truncated: be shorter"])
            return read(reply.text)
        except ReplyError as error:
            why, repair = str(error), about.prompt("repair", problems=error.problems)
        messages = [*messages, _said(reply.text), {"role": "user", "content": repair}]
    raise Unusable(reason, why)


def _said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}
