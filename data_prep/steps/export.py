"""Writes training files beside the rows: for LlamaFactory, torchtune or verl, or a Hugging Face data set.

- export: {format: sharegpt, dataset: train}      export/train.jsonl, export/dataset_info.json (LlamaFactory)
- export: {format: torchtune, shape: instruct}    export/train.jsonl: prompt and response (`export_torchtune`)
- export: {format: torchtune, preference: true}   export/train.jsonl: pairs; sharegpt has them too, as its ranking data
- export: {format: verl, dataset: train}          export/train.parquet: prompts with their golds (`export_verl`)
- export: {format: huggingface, dataset: mine}    export/mine: Parquet with a card for the Hub; export/mine.saved

Line n of a file is row n of the step. Texts are written whole: what to do about long ones is the trainer's
`max_length`. LlamaFactory's files also say where a row came from, in the columns `category` (`meta.category`, of a
`mix`) and `source`, which it does not read.
"""

from __future__ import annotations

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
from data_prep.writers import huggingface
from data_prep.writers import torchtune as export_torchtune
from data_prep.writers import verl as export_verl
from data_prep.writers.parquet import parquet

Write = Callable[[Row], object]
Writing = AbstractContextManager[Write]
Record = Callable[[Row], dict[str, Any]]
Style = Literal["messages", "conversations"]

# Per style: the column, the keys of a message, and the names of the roles.
STYLES: dict[Style, dict[str, str]] = {
    "messages": {
        "role_tag": "role",
        "content_tag": "content",
        "user_tag": "user",
        "assistant_tag": "assistant",
        "system_tag": "system",
    },
    "conversations": {
        "role_tag": "from",
        "content_tag": "value",
        "user_tag": "human",
        "assistant_tag": "gpt",
        "system_tag": "system",
    },
}

_LINE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
PAIRED = ("sharegpt", "torchtune", "huggingface")  # formats that hold pairs


class ExportParams(Params):
    """`style` matters for sharegpt only: role/content messages, or from/value conversations; `split` for verl only.

    golds: whether verl's rows must have a gold (a reward model needs none); shape: of torchtune's files; preference:
    whether rows are pairs, whose `completion` is preferred to `rejected`.
    """

    format: Literal["sharegpt", "torchtune", "verl", "huggingface"] = "sharegpt"
    style: Style = "messages"
    shape: export_torchtune.Shape = "chat"
    preference: bool = False
    split: export_verl.Split = "train"
    golds: bool = True
    dataset: str = Field("train", pattern=r"^[A-Za-z0-9_-]+$")
    license: str | None = None  # for the card of a Hugging Face data set

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.preference and self.format not in PAIRED:
            raise ValueError(f"preference: pairs are written as {' or '.join(PAIRED)}, not {self.format}")
        if self.shape == "instruct" and (self.format != "torchtune" or self.preference):
            raise ValueError("shape: instruct is for torchtune's SFT data; pairs and other formats are conversations")
        return self


class Export(Step):
    """Passes rows on unchanged; the files of all of them lie in `export/` in the step's directory."""

    kind = "export"
    scope = "whole"
    passes = True
    needs: ClassVar[tuple[str, ...]] = ("prompt",)
    growth = 3.0  # the rows again, and the files
    Params = ExportParams
    params: ExportParams

    def apply(self, rows: Sequence[Row], ctx: Context) -> Output:
        """Write each row that is fit as it is passed on: nothing is held, and all is read once."""
        folder = ctx.dir / "export"
        folder.mkdir(exist_ok=True)
        sweep(folder)
        with self._writer(folder) as write:
            prompts: dict[str, bytes] = {}
            for row in rows:
                if fault := self._fault(row, prompts):
                    yield fault
                else:
                    write(row)
                    yield row

    def _fault(self, row: Row, prompts: dict[str, bytes]) -> Drop | None:
        """Why no trainer can use a row."""
        given, row_id = self.params, str(row.get("id", ""))
        needs = () if given.format == "verl" else ("completion", "rejected") if given.preference else ("completion",)
        if fault := lacking(row, needs):
            return replace(fault, detail="`columns: {completion: …, rejected: …}` of a load says which columns")
        if not alternates(row):
            return Drop("roles do not alternate", row_id, bad=True)
        if given.preference and row["completion"] == row["rejected"]:
            return Drop("rejected equals completion", row_id, "a pair needs two different completions", bad=True)
        if given.shape == "instruct":
            return export_torchtune.instruct_fault(row)
        return export_verl.fault(row, prompts, given.golds) if given.format == "verl" else None

    def _writer(self, folder: Path) -> Writing:
        """Writes rows to the files of the format."""
        given, path = self.params, folder / f"{self.params.dataset}.parquet"
        if given.format == "sharegpt":
            return self._sharegpt(folder)
        if given.format == "torchtune":
            record = export_torchtune.pair if given.preference else export_torchtune.RECORDS[given.shape]
            return _json_lines(path.with_suffix(".jsonl"), record)
        if given.format == "huggingface":
            return huggingface.dataset(folder, given.dataset, given.license, given.preference)
        places = count()
        return parquet(path, lambda row: export_verl.record(row, next(places), given.split))

    @contextmanager
    def _sharegpt(self, folder: Path) -> Iterator[Write]:
        style, name = self.params.style, f"{self.params.dataset}.jsonl"
        tags, pairs = STYLES[style], self.params.preference
        columns = {"messages": style} | ({"chosen": "chosen", "rejected": "rejected"} if pairs else {})
        entry: dict[str, Any] = {"file_name": name, "formatting": "sharegpt", "columns": columns, "tags": tags}
        if pairs:
            entry["ranking"] = True
        record, origin = _ranking if pairs else _turns, _Origin()
        with _json_lines(folder / name, lambda row: record(row, style) | origin(row)) as write:
            yield write
        text = json.dumps({self.params.dataset: entry}, indent=2)
        write_atomic(folder / "dataset_info.json", [text.encode(), b"\n"])


@contextmanager
def _json_lines(path: Path, record: Record) -> Iterator[Write]:
    with whole_file(path) as file:
        yield lambda row: file.write(_LINE.encode(record(row)).encode() + b"\n")


def alternates(row: Row) -> bool:
    """Whether the prompt is a system message or none, then user and assistant in turn, the user last.

    Trainers refuse, or silently skip, anything else.
    """
    roles = [message["role"] for message in row["prompt"]]
    turns = roles[1:] if roles[0] == "system" else roles
    half = len(turns) // 2
    return turns == ["user", "assistant"] * half + ["user"]


class _Origin:
    """A row's category and source: of these, all rows have what the first one has.

    Arrow wants the same columns in all rows, and a text in the first that it sees: where a later row lacks one, null.
    """

    def __init__(self) -> None:
        self._columns: list[str] | None = None

    def __call__(self, row: Row) -> dict[str, Any]:
        said = {"category": row.get("meta", {}).get("category"), "source": row.get("source")}
        told = {name: value for name, value in said.items() if isinstance(value, str)}
        self._columns = list(told) if self._columns is None else self._columns
        return {name: told.get(name) for name in self._columns}


def _turns(row: Row, style: Style) -> dict[str, Any]:
    return {style: list(_messages(row, STYLES[style]))}


def _ranking(row: Row, style: Style) -> dict[str, Any]:
    """LlamaFactory's pair: the messages up to the user's last one, and two answers to it."""
    answers = {"chosen": row["completion"], "rejected": row["rejected"]}
    said = {name: _message("assistant", text, STYLES[style]) for name, text in answers.items()}
    return {style: [_message(one["role"], one["content"], STYLES[style]) for one in row["prompt"]], **said}


def _messages(row: Row, tags: dict[str, str]) -> Iterator[dict[str, str]]:
    for message in (*row["prompt"], {"role": "assistant", "content": row["completion"]}):
        yield _message(message["role"], message["content"], tags)


def _message(role: str, content: str, tags: dict[str, str]) -> dict[str, str]:
    return {tags["role_tag"]: tags[f"{role}_tag"], tags["content_tag"]: content}
