"""Questions with tests about tuples of skills, written by a model behind an OpenAI-compatible endpoint.

- synthesize: {model: gpt-4o, base_url: https://api.openai.com/v1, api_key_env: KEY, critic_rounds: 2}

Rows are those of `skill_tuples`; of each come `meta.questions` questions, the second and later ones asked for as
distinct from those before. Exercise, critique and test cases are each checked, sent back once where they cannot be
used, and dropped with a reason then. Whether a question is right is for `verify_questions` to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from data_prep.core.step import Drop, Output, Row
from data_prep.families.skill_mix.synthesis import Reply, Turn, Wishes, make_questions
from data_prep.inference.api.params import EndpointParams, EndpointStep, refuse_failures
from data_prep.inference.api.replies import Failed, as_drop
from data_prep.inference.api.requests import Request
from data_prep.inference.sampling import Sampling, prompt_seed

if TYPE_CHECKING:
    from data_prep.inference.api.client import ChatClient


class SynthesizeParams(Wishes, EndpointParams):
    """Who writes, how it is drawn, and what is asked for; critiques and test cases are drawn greedily."""

    temperature: float = Field(0.8, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(4096, ge=1)  # per reply
    seed: int = Field(0, ge=0)

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
        p = self.params
        refuse_failures(made, len(made), p, "questions had no reply")
        return made

    def _ask(self, turns: Sequence[Turn], asker: ChatClient) -> list[Reply]:
        """The replies to one turn of each conversation, in order."""
        replies: dict[int, Reply] = {}
        for greedy in (False, True):
            places = [at for at, turn in enumerate(turns) if turn.greedy == greedy]
            if not places:
                continue
            sampling = replace(self.params.decoding, temperature=0.0) if greedy else self.params.decoding
            requests = [Request(turns[at].messages, prompt_seed(sampling.seed, turns[at].key)) for at in places]
            for at, reply in zip(places, asker.ask(requests, sampling), strict=True):
                replies[at] = as_drop(reply, turns[at].key) if isinstance(reply, Failed) else reply[0]
        return [replies[at] for at in range(len(turns))]


def _is_tuple(row: Row) -> bool:
    return set(row["meta"]) >= {"skills", "descriptions", "language", "split", "questions"}
