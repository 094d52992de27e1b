"""Synthesises questions with tests for tuples of skills, using a model behind an OpenAI-compatible endpoint.

- synthesize: {model: gpt-4o, base_url: https://api.openai.com/v1, api_key_env: KEY, critic_rounds: 2}

Input rows are those of `skill_tuples`; each gives `meta.questions` questions, later ones requested to differ from
earlier ones. The model writes an exercise, critiques and revises it, and writes test cases, turn by turn. Each reply is
validated, requested again once if unusable, then dropped with a reason. `verify_questions` checks whether a question is
correct.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from pydantic import Field, model_validator

from data_prep.core.step import Apply, Context, Drop, Row
from data_prep.families.skill_mix.cases import EXCEPTIONS, Case, suite
from data_prep.families.skill_mix.questions import read_question, render
from data_prep.families.skill_mix.replies import Critique, Draft, ReplyError, read_test_cases
from data_prep.families.skill_mix.signatures import USABLE, Language, read
from data_prep.inference.api.params import EndpointParams, EndpointStep, endpoint, refuse_failures
from data_prep.inference.api.replies import Failed, as_drop
from data_prep.inference.api.requests import Request
from data_prep.inference.sampling import Sampling, prompt_seed

if TYPE_CHECKING:
    from data_prep.inference.api.client import ChatClient

Message = dict[str, str]
T = TypeVar("T")


class SynthesizeParams(EndpointParams):
    """The model, its sampling, and what is requested; critiques and test cases are decoded greedily."""

    critic_rounds: int = Field(2, ge=0)  # maximum rounds of critique and revision
    cases: int = Field(8, ge=1)  # requested test cases
    least_cases: int = Field(5, ge=1)  # required test cases
    lines: str = "10 to 40"  # length of a reference solution
    temperature: float = Field(0.8, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(4096, ge=1)  # per reply
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if self.cases < self.least_cases:
            raise ValueError(f"cases: {self.cases} is less than least_cases {self.least_cases}")
        return self


class Synthesize(EndpointStep):
    """Maps tuples to questions."""

    kind = "synthesize"
    prompts = "skill_mix"
    needs: ClassVar[tuple[str, ...]] = ("meta",)
    packages: ClassVar[tuple[str, ...]] = ("openai",)
    shard_rows = 32  # tuples processed concurrently, and lost by a kill
    shards_at_once = 1
    growth = 64.0
    Params = SynthesizeParams
    params: SynthesizeParams

    @contextmanager
    def open(self, ctx: Context) -> Iterator[Apply]:
        """Open the client and threads. The client closes first: on an error, that ends what the threads wait for."""
        with ThreadPoolExecutor(self.shard_rows) as threads, endpoint(self.params, ctx) as client:
            yield lambda rows, shard: self._questions(rows, client, threads)

    def _questions(self, rows: Sequence[Row], client: ChatClient, threads: ThreadPoolExecutor) -> list[Row | Drop]:
        by_row = threads.map(lambda row: _about(row, self.params, client), rows)
        made = list(chain.from_iterable(by_row))
        refuse_failures(made, len(made), self.params, "questions had no reply")
        return made


class Unusable(Exception):
    """A question that is given up."""

    def __init__(self, drop: Drop) -> None:
        super().__init__(drop.reason)
        self.drop = drop


def _about(row: Row, params: SynthesizeParams, client: ChatClient) -> list[Row | Drop]:
    """All questions for one tuple, each distinct from the earlier ones."""
    if not set(row["meta"]) >= {"skills", "descriptions", "language", "split", "questions"}:
        why = "rows of `skill_tuples` have skills, descriptions, language, split and questions"
        return [Drop("not a tuple of skills", row["id"], why, bad=True)]
    author = _Author(row["meta"], params, client)
    return [author.question(f"{row['id']}/{number}") for number in range(row["meta"]["questions"])]


class _Author:
    """Requests questions for one tuple. chat: the author's conversation, with only the last draft of each question."""

    def __init__(self, meta: dict[str, Any], params: SynthesizeParams, client: ChatClient) -> None:
        self.params, self.client, self.meta = params, client, meta
        self.language: Language = meta["language"]
        pairs = zip(meta["skills"], meta["descriptions"], strict=True)
        self.skills = [{"name": name, "description": description} for name, description in pairs]
        self.prompt = partial(render, language=self.language)
        self.chat: list[Message] = []

    def question(self, name: str) -> Row | Drop:
        """One question; a dropped one is removed from the chat."""
        try:
            return self._question(name)
        except Unusable as problem:
            return replace(problem.drop, row_id=name, detail=problem.drop.detail[:500])

    def _question(self, name: str) -> Row:
        """Raises Unusable."""
        if self.chat:
            opening = self.prompt("next", skills=self.skills, number=len(self.chat) // 2)
        else:
            types = USABLE[self.language]
            opening = self.prompt("generate", skills=self.skills, types=types, lines=self.params.lines)
        start = [*(self.chat or [_message("system", self.prompt("author"))]), _message("user", opening)]
        draft = self._draft(f"{name}:draft", start)
        passed, rounds = False, 0
        while not passed and rounds < self.params.critic_rounds:
            critique = self._critique(f"{name}:critic{rounds}", draft)
            passed = critique.verdict == "pass"
            if not passed:
                revision = _message("user", self.prompt("revise", feedback=critique.feedback))
                draft = self._draft(f"{name}:revision{rounds}", [*start, _reply(draft), revision])
            rounds += 1
        cases = self._cases(f"{name}:tests", draft)
        self.chat = [*start, _reply(draft)]
        tests = suite(draft.function_name, draft.function_signature, cases, self.language)
        question = read_question({**self.meta, **draft.model_dump(), "tests": tests}, name)
        if isinstance(question, Drop):
            raise Unusable(replace(question, bad=False))
        row = question.as_row("direct")
        return {**row, "meta": {**row["meta"], "cases": cases, "critic_rounds": rounds, "critic_passed": passed}}

    def _draft(self, key: str, messages: list[Message]) -> Draft:
        read_draft = partial(Draft.read, language=self.language)
        return self._usable(key, messages, self.params.temperature, read_draft, "malformed exercise")

    def _critique(self, key: str, draft: Draft) -> Critique:
        request = self.prompt("critique", skills=self.skills, draft=draft)
        messages = [_message("system", self.prompt("critic")), _message("user", request)]
        return self._usable(key, messages, 0.0, Critique.read, "malformed critique")

    def _cases(self, key: str, draft: Draft) -> list[Case]:
        signature = read(draft.function_signature, self.language)
        request = self.prompt(
            "tests",
            draft=draft,
            wanted=self.params.cases,
            params=", ".join(f"{param.name}: {param.type}" for param in signature.params) or "none",
            result=signature.result,
            raises=", ".join(EXCEPTIONS),
        )
        messages = [_message("system", self.prompt("tester")), _message("user", request)]
        read_cases = partial(read_test_cases, signature=signature, least=self.params.least_cases)
        return self._usable(key, messages, 0.0, read_cases, "malformed tests")

    def _usable(
        self, key: str, messages: list[Message], temperature: float, read: Callable[[str], T], reason: str
    ) -> T:
        """The parsed reply; an unusable one is requested again once. key: determines the seed. Raises Unusable."""
        params, detail = self.params, ""
        sampling = Sampling(1, temperature, params.top_p, 0, params.max_tokens)
        for turn in (key, f"{key}:repair"):
            (reply,) = self.client.ask([Request(messages, prompt_seed(params.seed, turn))], sampling)
            if isinstance(reply, Failed):
                raise Unusable(as_drop(reply, turn))
            (sample,) = reply
            try:
                if sample.finish_reason == "length":
                    raise ReplyError(["it was truncated: write less"])
                return read(sample.text)
            except ReplyError as error:
                detail, repair = str(error), self.prompt("repair", problems=error.problems)
            messages = [*messages, _message("assistant", sample.text), _message("user", repair)]
        raise Unusable(Drop(reason, detail=detail))


def _reply(draft: Draft) -> Message:
    return _message("assistant", draft.model_dump_json())


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}
