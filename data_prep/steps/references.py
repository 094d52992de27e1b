"""Completions that become references, and references that become completions.

- add_reference                   the completion, of a strong model, becomes one more of the row's references
- references_sft: {only: [0]}     a row for SFT of each reference, or of those at these places
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from data_prep.core.rows import META_OF_A_COMPLETION, OF_A_COMPLETION, prompt_of, without
from data_prep.core.step import Context, Drop, Output, Params, Row, Step
from rewards.text.tokenise import tokens_13a


def without_sample(row: Row) -> Row:
    """The prompt's own row, without the completion that was sampled for it."""
    meta = without(row.get("meta", {}), ("prompt_id", *META_OF_A_COMPLETION))
    return {**without(row, OF_A_COMPLETION), "id": prompt_of(row), "meta": meta}


class AddReference(Step):
    """The completion of a row, sampled from a strong model, becomes the last of its references."""

    kind = "add_reference"
    needs: ClassVar[tuple[str, ...]] = ("prompt",)
    present: ClassVar[tuple[str, ...]] = ("completion",)

    def apply(self, rows: Sequence[Row], ctx: Context) -> Output:
        """Prompts with references; truncated and empty completions are drops."""
        for row in rows:
            if row.get("meta", {}).get("finish_reason") == "length":
                yield Drop("truncated reference", row["id"])
            elif not tokens_13a(row["completion"]):
                yield Drop("empty reference", row["id"])
            else:
                yield {**without_sample(row), "references": [*row.get("references", []), row["completion"]]}


class ReferencesSftParams(Params):
    """only: places of the references to take, from 0; all by default, as in the original."""

    only: tuple[int, ...] = ()


class ReferencesSft(Step[ReferencesSftParams]):
    """SFT rows: reference j of row x is the completion of row x_j."""

    kind = "references_sft"
    needs: ClassVar[tuple[str, ...]] = ("prompt", "references")
    growth = 6.0

    def apply(self, rows: Sequence[Row], ctx: Context) -> Output:
        """As many rows as references were asked for; a place without one is a drop."""
        for row in map(without_sample, rows):
            references = row.pop("references")
            for place in self.params.only or range(len(references)):
                if not 0 <= place < len(references):
                    yield Drop("no such reference", row["id"], f"place {place} of {len(references)}", bad=True)
                else:
                    yield {**row, "id": f"{row['id']}_{place}", "completion": references[place]}
