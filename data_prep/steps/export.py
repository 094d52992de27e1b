"""Writes training files for LlamaFactory, torchtune or verl, or a Hugging Face data set.

- export: {format: sharegpt, dataset: train}      export/train.jsonl, export/dataset_info.json (LlamaFactory)
- export: {format: torchtune, preference: true}   export/train.jsonl: pairs (with sharegpt: ranking data)
- export: {format: verl, dataset: train}          export/train.parquet: prompts with their reference answers
- export: {format: huggingface, dataset: mine}    export/mine: Parquet with a card for the Hub; export/mine.saved

Line n of a file is row n of the step. Texts are not truncated here; the trainer truncates them at its `max_length`,
unless `token_limit` dropped long ones before.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from data_prep.core.files import sweep, whole_file, write_atomic
from data_prep.core.rows import lacking
from data_prep.core.step import Context, Drop, Output, Params, Row, Step
from data_prep.writers import huggingface, llamafactory, torchtune, verl
from data_prep.writers.parquet import parquet

_LINE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
PAIRED = ("sharegpt", "torchtune", "huggingface")  # formats that hold pairs


class ExportParams(Params):
    """golds: whether verl's rows must have a reference answer (not for a reward model). split: of verl's rows.

    preference: whether rows are pairs with `completion` preferred to `rejected`.
    """

    format: Literal["sharegpt", "torchtune", "verl", "huggingface"] = "sharegpt"
    preference: bool = False
    split: verl.Split = "train"
    golds: bool = True
    dataset: str = Field("train", pattern=r"^[A-Za-z0-9_-]+$")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.preference and self.format not in PAIRED:
            raise ValueError(f"preference: pairs need format {' or '.join(PAIRED)}, not {self.format}")
        return self


class Export(Step[ExportParams]):
    """Passes rows through unchanged and writes all of them to files in `export/` in the step's directory."""

    kind = "export"
    scope = "whole"
    passes = True
    needs: ClassVar[tuple[str, ...]] = ("prompt",)
    growth = 3.0  # the rows again, and the files

    def apply(self, rows: Sequence[Row], ctx: Context) -> Output:
        """Write each valid row while passing it on, in one pass without holding rows in memory."""
        folder = ctx.dir / "export"
        folder.mkdir(exist_ok=True)
        sweep(folder)
        with self._writer(folder) as write:
            prompts: dict[str, bytes] = {}
            for row in rows:
                if fault := self.fault(row, prompts):
                    yield fault
                else:
                    write(row)
                    yield row

    def fault(self, row: Row, prompts: dict[str, bytes]) -> Drop | None:
        """Why no trainer can use a row, or None. prompts: see verl.fault."""
        given, row_id = self.params, str(row.get("id", ""))
        needs = () if given.format == "verl" else ("completion", "rejected") if given.preference else ("completion",)
        if fault := lacking(row, needs):
            return replace(fault, detail="set `columns: {completion: …, rejected: …}` of a load")
        if not alternates(row):
            return Drop("roles do not alternate", row_id, bad=True)
        if given.preference and row["completion"] == row["rejected"]:
            return Drop("rejected equals completion", row_id, "a pair needs two different completions", bad=True)
        return verl.fault(row, prompts, given.golds) if given.format == "verl" else None

    def _writer(self, folder: Path) -> AbstractContextManager[Callable[[Row], object]]:
        given = self.params
        path = folder / f"{given.dataset}.jsonl"
        if given.format == "sharegpt":
            info = {given.dataset: llamafactory.entry(path.name, given.preference)}
            write_atomic(folder / "dataset_info.json", [json.dumps(info, indent=2).encode(), b"\n"])
            return _json_lines(path, llamafactory.records(given.preference))
        if given.format == "torchtune":
            return _json_lines(path, torchtune.pair if given.preference else torchtune.chat)
        if given.format == "huggingface":
            return huggingface.dataset(folder, given.dataset, given.preference)
        places = count()
        return parquet(path.with_suffix(".parquet"), lambda row: verl.record(row, next(places), given.split))


@contextmanager
def _json_lines(path: Path, record: Callable[[Row], dict[str, Any]]) -> Iterator[Callable[[Row], object]]:
    with whole_file(path) as file:
        yield lambda row: file.write(_LINE.encode(record(row)).encode() + b"\n")


def alternates(row: Row) -> bool:
    """Whether the prompt is an optional system message, then alternating user and assistant turns, ending with user.

    Trainers reject or silently skip anything else.
    """
    roles = [message["role"] for message in row["prompt"]]
    turns = roles[1:] if roles[0] == "system" else roles
    half = len(turns) // 2
    return turns == ["user", "assistant"] * half + ["user"]
