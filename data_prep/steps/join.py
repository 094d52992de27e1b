"""Copies meta fields from other rows with the same problem, such as published labels.

- load: {name: labels, hub: NovaSky-AI/labeled_numina_difficulty_859K, revision: main, source: labels,
         columns: {prompt: problem, meta.difficulty: gpt_difficulty_parsed}}
- join: {inputs: [problems, labels], labels: labels, fields: [difficulty]}

labels: source of the rows with the fields; these rows are not output. Problems match by their text, ignoring
case and spacing; an instruction may precede it, separated by a blank line. Of several labels the last one counts.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from pydantic import Field

from data_prep.core.rows import with_meta
from data_prep.core.step import Context, Drop, Output, Params, Row, Step
from data_prep.errors import DataError
from data_prep.text.normalise import normalised_text, text_of


class JoinParams(Params):
    labels: str
    fields: tuple[str, ...] = Field(min_length=1)


class Join(Step[JoinParams]):
    """Adds labels to rows."""

    kind = "join"
    scope = "whole"
    needs: ClassVar[tuple[str, ...]] = ("prompt", "source")
    allows_repeated_ids: ClassVar[bool] = True

    def apply(self, rows: Sequence[Row], ctx: Context) -> Output:
        """Rows in input order. Raises DataError if there are no labels."""
        known: dict[bytes, tuple[Any, ...]] = {}
        for row in rows:
            if row["source"] == self.params.labels:
                known[_key(text_of(row, ("prompt",)))] = tuple(row.get("meta", {}).get(f) for f in self.params.fields)
        if not known:
            raise DataError(f"labels: no row has source {self.params.labels!r}; set `source` of that load")
        for row in rows:
            if row["source"] != self.params.labels:
                yield self._labelled(row, known)

    def _labelled(self, row: Row, known: dict[bytes, tuple[Any, ...]]) -> Row | Drop:
        values = next((known[key] for key in map(_key, _texts(row)) if key in known), (None,) * len(self.params.fields))
        fields = {name: value for name, value in zip(self.params.fields, values, strict=True) if value is not None}
        if len(fields) < len(values):
            return Drop("problem without a label", row["id"])
        return with_meta(row, **fields)


def _texts(row: Row) -> Iterator[str]:
    """The prompt, and the text after each of its blank lines."""
    rest: str | None = text_of(row, ("prompt",))
    while rest:
        yield rest
        rest = rest.partition("\n\n")[2]


def _key(text: str) -> bytes:
    return hashlib.sha256(normalised_text(text).encode("utf-8", "surrogatepass")).digest()[:16]
