"""Difficulty of problems by a model's judgement, on the scale of mathematics contests: `meta.difficulty`.

- label: {model: gpt-4o-mini, base_url: https://api.openai.com/v1, api_key_env: KEY}        1 to 10
- label: {model: …, most: 9, field: difficulty_by_model}

A reply that holds no number of the scale is asked for again with another seed, `tries` times in all; a row that then
has none goes on without the field, and the manifest counts it as `unlabelled`. What a model can solve is measured by
`difficulty` instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator

from data_prep.core.step import Apply, Context, Drop, Output, Row
from data_prep.inference import prompts
from data_prep.inference.api.objects import NoObject, found_object
from data_prep.inference.api.params import EndpointParams, EndpointStep, endpoint, refuse_failures
from data_prep.inference.api.replies import Failed, as_drop
from data_prep.inference.api.requests import Request
from data_prep.inference.sampling import Sampling, prompt_seed
from data_prep.text.normalise import text_of

if TYPE_CHECKING:
    from data_prep.inference.api.client import ChatClient


class LabelParams(EndpointParams):
    """Who judges, on which scale, and where the judgement is kept."""

    least: int = Field(1, ge=0)
    most: int = Field(10, ge=1)
    field: str = Field("difficulty", pattern=r"^\w+$")  # of meta
    temperature: float = Field(0.0, ge=0)
    max_tokens: int = Field(256, ge=1)
    tries: int = Field(2, ge=1)
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _scale(self) -> Self:
        if self.least >= self.most:
            raise ValueError(f"a scale from {self.least} to {self.most} holds no two levels")
        return self


class Label(EndpointStep):
    """Rows in, the same rows with a difficulty out."""

    kind = "label"
    Params = LabelParams
    params: LabelParams

    def fingerprint(self, base: Path) -> dict[str, Any]:
        """The prompt; an endpoint's model is known by its name only."""
        return {"prompts": prompts.content_hash("label"), **self.params.identity(base)}

    def tally(self, row: Row) -> str:
        """Whether the model's judgement could be read."""
        return "labelled" if self.params.field in row.get("meta", {}) else "unlabelled"

    @contextmanager
    def open(self, ctx: Context) -> Iterator[Apply]:
        """Make the client, once for all shards."""
        with endpoint(self.params, ctx) as asker:
            yield lambda rows, shard: self._labelled(rows, asker)

    def _labelled(self, rows: Sequence[Row], asker: ChatClient) -> Output:
        given = self.params
        labels: dict[int, int] = {}
        drops: dict[int, Drop] = {}
        for attempt in range(given.tries):
            todo = [at for at in range(len(rows)) if at not in labels and at not in drops]
            # A second greedy reply would be the same.
            sampling = Sampling(1, max(given.temperature, 0.7 if attempt else 0.0), max_tokens=given.max_tokens)
            replies = asker.ask([self._request(rows[at], attempt) for at in todo], sampling) if todo else []
            for at, reply in zip(todo, replies, strict=True):
                if isinstance(reply, Failed):
                    drops[at] = as_drop(reply, rows[at]["id"])
                elif (label := self._read(reply[0].text)) is not None:
                    labels[at] = label
        refuse_failures(list(drops.values()), len(rows), given, "rows had no reply")
        for at, row in enumerate(rows):
            yield drops.get(at) or self._with(row, labels.get(at))

    def _request(self, row: Row, attempt: int) -> Request:
        text = prompts.render(
            "label/label", least=self.params.least, most=self.params.most, problem=text_of(row, ("prompt",))
        )
        seed = prompt_seed(self.params.seed, f"{row['id']}\0{attempt}")
        return Request([{"role": "user", "content": text}], seed)

    def _read(self, text: str) -> int | None:
        """The level in a reply, None where there is none of the scale."""
        try:
            level: Any = found_object(text).get("difficulty")
        except NoObject:
            return None
        if isinstance(level, float) and level.is_integer():
            level = int(level)
        fits = isinstance(level, int) and not isinstance(level, bool)
        return level if fits and self.params.least <= level <= self.params.most else None

    def _with(self, row: Row, label: int | None) -> Row:
        if label is None:
            return row
        return {**row, "meta": {**row.get("meta", {}), self.params.field: label}}
