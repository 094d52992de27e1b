"""Questions with tests about tuples of skills, written by a model behind an OpenAI-compatible endpoint.

- synthesize: {model: gpt-4o, base_url: https://api.openai.com/v1, api_key_env: KEY, critic_rounds: 2}

Rows are those of `skill_tuples`; of each come `meta.questions` questions, the second and later ones asked for as
distinct from those before. Exercise, critique and test cases are each checked, sent back once where they cannot be
used, and dropped with a reason then. Whether a question is right is for `verify_questions` to say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from data_prep.errors import LimitPassed
from data_prep.llm import ChatClient, Failed, Request, as_drop, key_source, read_keys
from data_prep.sampling import Sampling, prompt_seed
from data_prep.skill_mix.prompts import content_hash
from data_prep.skill_mix.synthesis import Reply, Turn, Wishes, make_questions
from data_prep.step import Apply, Context, Drop, Output, Params, Row, Step


class SynthesizeParams(Params):
    """Who writes, how it is drawn, and what is asked for; critiques and test cases are drawn greedily."""

    model: str = Field(min_length=1)
    base_url: str = Field(pattern=r"^https?://")
    api_key_env: str | None = None  # name of an environment variable, or a path (with a /) to a key per line
    concurrency: int = Field(64, ge=1)
    temperature: float = Field(0.8, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(4096, ge=1)  # per reply
    seed: int = Field(0, ge=0)
    critic_rounds: int = Field(2, ge=0)  # most rounds of critique and revision, 0 for none
    cases: int = Field(8, ge=1)  # test cases asked for
    least_cases: int = Field(5, ge=1)  # and needed
    lines: str = "10 to 40"  # of a reference solution
    max_error_share: float = Field(0.02, ge=0, le=1)  # of a shard's questions that may fail for want of a reply

    @field_validator("api_key_env")
    @classmethod
    def _names_a_place(cls, value: str | None) -> str | None:
        return value if value is None else key_source(value)

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if self.cases < self.least_cases:
            raise ValueError(f"cases: {self.cases} asked for, and least_cases {self.least_cases} are needed")
        return self

    @property
    def wishes(self) -> Wishes:
        return Wishes(self.critic_rounds, self.cases, self.least_cases, self.lines)

    @property
    def sampling(self) -> Sampling:
        return Sampling(1, self.temperature, self.top_p, 0, self.max_tokens, (), self.seed)


class Synthesize(Step):
    """Tuples to questions, shard by shard."""

    kind = "synthesize"
    needs: ClassVar[tuple[str, ...]] = ("meta",)
    uses: ClassVar[tuple[str, ...]] = (
        "data_prep.llm", "data_prep.sampling", "data_prep.skill_mix.cases", "data_prep.skill_mix.prompts",
        "data_prep.skill_mix.questions", "data_prep.skill_mix.replies", "data_prep.skill_mix.signatures",
        "data_prep.skill_mix.synthesis", "rewards.cpp.interface",
    )  # fmt: skip
    unkeyed: ClassVar[tuple[str, ...]] = ("api_key_env", "concurrency", "max_error_share")
    packages: ClassVar[tuple[str, ...]] = ("openai",)
    shard_rows = 32  # tuples whose conversations go on side by side, and what a kill costs
    growth = 64.0
    Params = SynthesizeParams
    params: SynthesizeParams

    def fingerprint(self, base: Path) -> dict[str, Any]:
        """The prompts; an endpoint's model is known by its name only."""
        return {"prompts": content_hash()}

    @contextmanager
    def open(self, ctx: Context) -> Iterator[Apply]:
        """Make the client, once for all shards."""
        p = self.params
        client = ChatClient(p.base_url, p.model, read_keys(p.api_key_env, ctx.base), concurrency=p.concurrency)
        yield lambda rows, shard: self._made(rows, client)

    def _made(self, rows: Sequence[Row], client: ChatClient) -> Output:
        fit = [row for row in rows if _is_tuple(row)]
        results = iter(make_questions(fit, self.params.wishes, lambda turns: self._ask(turns, client)))
        made: list[Row | Drop] = []
        for row in rows:
            why = "rows of `skill_tuples` have skills, descriptions, language, split and questions"
            made += next(results) if _is_tuple(row) else [Drop("not a tuple of skills", row["id"], why, bad=True)]
        self._judge(made)
        return made

    def _ask(self, turns: Sequence[Turn], client: ChatClient) -> list[Reply]:
        """The replies to one turn of each conversation, in order."""
        replies: dict[int, Reply] = {}
        for greedy in (False, True):
            places = [at for at, turn in enumerate(turns) if turn.greedy == greedy]
            if not places:
                continue
            sampling = replace(self.params.sampling, temperature=0.0) if greedy else self.params.sampling
            requests = [Request(turns[at].messages, prompt_seed(sampling.seed, turns[at].key)) for at in places]
            for at, reply in zip(places, asyncio.run(client.ask(requests, sampling)), strict=True):
                replies[at] = as_drop(reply, turns[at].key) if isinstance(reply, Failed) else reply[0]
        return [replies[at] for at in range(len(turns))]

    def _judge(self, made: Sequence[Row | Drop]) -> None:
        """Refuse a shard of which too much failed: it is then asked again by the next run. Raises LimitPassed."""
        drops = [one for one in made if isinstance(one, Drop) and one.reason.startswith("api_error")]
        if len(drops) > self.params.max_error_share * len(made):
            raise LimitPassed(
                f"{self.params.base_url}: {len(drops):,} of {len(made):,} questions had no reply after all retries, "
                f"more than max_error_share {self.params.max_error_share:g} allows; the last: {drops[-1].reason} "
                f"({drops[-1].detail})"
            )


def _is_tuple(row: Row) -> bool:
    return set(row["meta"]) >= {"skills", "descriptions", "language", "split", "questions"}
