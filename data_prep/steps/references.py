"""Converts completions to references, and references to completions.

- add_reference                   appends a strong model's completion to the row's references
- references_sft: {only: [0]}     an SFT row per reference, or only for these indices
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import AfterValidator, NonNegativeInt

from data_prep.core.rows import META_OF_A_COMPLETION, OF_A_COMPLETION, prompt_of, without
from data_prep.core.step import Context, Drop, Output, Params, Row, Step
from rewards.text.tokenise import tokens_13a


def without_sample(row: Row) -> Row:
    """The prompt's row, without the sampled completion."""
    meta = without(row.get("meta", {}), ("prompt_id", *META_OF_A_COMPLETION))
    return {**without(row, OF_A_COMPLETION), "id": prompt_of(row), "meta": meta}


class AddReference(Step):
    """Appends the row's completion, sampled from a strong model, to its references."""

    kind = "add_reference"
    needs: ClassVar[tuple[str, ...]] = ("prompt",)
    present: ClassVar[tuple[str, ...]] = ("completion",)

    def apply(self, rows: Sequence[Row], ctx: Context) -> Output:
        """Prompts with references; truncated and empty completions are dropped."""
        for row in rows:
            if row.get("meta", {}).get("finish_reason") == "length":
                yield Drop("truncated reference", row["id"])
            elif not tokens_13a(row["completion"]):
                yield Drop("empty reference", row["id"])
            else:
                yield {**without_sample(row), "references": [*row.get("references", []), row["completion"]]}


def _distinct(indices: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(indices)) < len(indices):
        raise ValueError("an index is given twice")
    return indices


Indices = Annotated[tuple[NonNegativeInt, ...], AfterValidator(_distinct)]  # of references; empty: all of them


class ReferencesSftParams(Params):
    """only: indices of the references to use (default: all, as in the original)."""

    only: Indices = ()


class ReferencesSft(Step[ReferencesSftParams]):
    """SFT rows: reference j of row x is the completion of row x_j."""

    kind = "references_sft"
    needs: ClassVar[tuple[str, ...]] = ("prompt", "references")
    growth = 6.0

    def apply(self, rows: Sequence[Row], ctx: Context) -> Output:
        """A row per requested reference; an index without a reference is a drop."""
        for row in map(without_sample, rows):
            references = row.pop("references")
            for place in self.params.only or range(len(references)):
                if place >= len(references):
                    yield Drop("no such reference", row["id"], f"index {place}, {len(references)} references", bad=True)
                else:
                    yield {**row, "id": f"{row['id']}_{place}", "completion": references[place]}
