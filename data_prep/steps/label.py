"""Difficulty of problems as judged by a model, on the scale of mathematics contests: `meta.difficulty`.

- label: {model: gpt-4o-mini, base_url: https://api.openai.com/v1, api_key_env: KEY}        1 to 10

If a reply has no number on the scale, the request is repeated with another seed, up to `tries` times; a row without
a label is kept without the field and counted as `unlabelled`. `difficulty` measures a model's pass rate
instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from data_prep.core.rows import with_meta
from data_prep.core.step import Output, Row
from data_prep.inference import prompts
from data_prep.inference.api.objects import NoObject, extract_object
from data_prep.inference.api.params import EndpointStep, RepeatedParams, refuse_failures
from data_prep.inference.sampling import Sample
from data_prep.text.normalise import text_of

if TYPE_CHECKING:
    from data_prep.inference.api.client import ChatClient


LEAST, MOST = 1, 10


class LabelParams(RepeatedParams):
    """The judging model."""

    max_tokens: int = Field(256, ge=1)


class Label(EndpointStep[LabelParams]):
    """Adds a difficulty to rows."""

    kind = "label"
    prompts = "label"

    def tally(self, row: Row) -> str:
        """Whether the model's reply could be parsed."""
        return "labelled" if "difficulty" in row.get("meta", {}) else "unlabelled"

    def answered(self, rows: Sequence[Row], client: ChatClient) -> Output:
        ids = {at: str(row["id"]) for at, row in enumerate(rows)}
        labels, failed = self.params.ask(client, ids, lambda at: self._message(rows[at]), self._read)
        refuse_failures(list(failed.values()), len(rows), self.params, "rows had no reply")
        for at, row in enumerate(rows):
            yield failed.get(at) or (with_meta(row, difficulty=labels[at]) if at in labels else row)

    def _message(self, row: Row) -> str:
        return prompts.render("label/label", least=LEAST, most=MOST, problem=text_of(row, ("prompt",)))

    def _read(self, at: int, sample: Sample) -> int | None:
        try:
            level: Any = extract_object(sample.text).get("difficulty")
        except NoObject:
            return None
        if isinstance(level, float) and level.is_integer():
            level = int(level)
        fits = isinstance(level, int) and not isinstance(level, bool)
        return level if fits and LEAST <= level <= MOST else None
