"""Writes training files beside the rows: for LlamaFactory, torchtune or verl, or chat Parquet.

- export: {format: sharegpt, dataset: train}      export/train.jsonl, export/dataset_info.json (LlamaFactory)
- export: {format: torchtune, shape: instruct}    export/train.jsonl: prompt and response (`export_torchtune`)
- export: {format: torchtune, preference: true}   export/train.jsonl: pairs; sharegpt has them too, as its ranking data
- export: {format: parquet, dataset: train}       export/train.parquet: messages, id, source, answer
- export: {format: verl, dataset: train}          export/train.parquet: prompts with their golds (`export_verl`)

Line n of a file is row n of the step. Texts are written whole: what to do about long ones is the trainer's
`max_length`. LlamaFactory's files also say where a row came from, in the columns `category` (`meta.category`, of a
`mix`) and `source`, which it does not read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from data_prep.errors import explain
from data_prep.files import sync_dir, write_atomic
from data_prep.rows import check
from data_prep.step import Context, Drop, Output, Params, Row, Step
from data_prep.steps import export_torchtune, export_verl

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


ROW_GROUP = 10_000  # rows that are written to Parquet at once
PAIRED = ("sharegpt", "torchtune")  # formats that hold pairs


class ExportParams(Params):
    """`style` matters for sharegpt only: role/content messages, or from/value conversations; `split` for verl only.

    shape: of torchtune's files; preference: whether rows are pairs, whose `completion` is preferred to `rejected`.
    """

    format: Literal["sharegpt", "torchtune", "parquet", "verl"] = "sharegpt"
    style: Style = "messages"
    shape: export_torchtune.Shape = "chat"
    preference: bool = False
    split: export_verl.Split = "train"
    dataset: str = Field("train", pattern=r"^[A-Za-z0-9_-]+$")

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
    uses: ClassVar[tuple[str, ...]] = (
        "data_prep.rows", "data_prep.steps.export_torchtune", "data_prep.steps.export_verl", "data_prep.steps.select",
    )  # fmt: skip
    growth = 3.0  # the rows again, and the files
    Params = ExportParams
    params: ExportParams

    def apply(self, rows: Sequence[Row], ctx: Context) -> Output:
        """Write the files of the rows that are fit, then pass these on. Nothing is held: rows are read twice."""
        folder = ctx.dir / "export"
        folder.mkdir(exist_ok=True)
        writers = {
            "sharegpt": self._sharegpt, "torchtune": self._torchtune, "parquet": self._chats, "verl": self._prompts
        }  # fmt: skip
        writers[self.params.format]((one for one in self._judged(rows) if not isinstance(one, Drop)), folder)
        yield from self._judged(rows)

    def _judged(self, rows: Sequence[Row]) -> Output:
        """Each row, or why no trainer can use it."""
        prompts: dict[str, bytes] = {}
        for row in rows:
            yield self._fault(row, prompts) or row

    def _fault(self, row: Row, prompts: dict[str, bytes]) -> Drop | None:
        given, row_id = self.params, str(row.get("id", ""))
        needs = () if given.format == "verl" else ("completion", "rejected") if given.preference else ("completion",)
        if fault := check(row, needs):
            return fault
        if not alternates(row):
            return Drop("roles do not alternate", row_id, bad=True)
        if given.preference and row["completion"] == row["rejected"]:
            return Drop("rejected equals completion", row_id, "a pair needs two different completions", bad=True)
        if given.shape == "instruct":
            return export_torchtune.instruct_fault(row)
        return export_verl.fault(row, prompts) if given.format == "verl" else None

    def _sharegpt(self, rows: Iterable[Row], folder: Path) -> None:
        style, name = self.params.style, f"{self.params.dataset}.jsonl"
        tags, pairs = STYLES[style], self.params.preference
        columns = {"messages": style} | ({"chosen": "chosen", "rejected": "rejected"} if pairs else {})
        entry: dict[str, Any] = {"file_name": name, "formatting": "sharegpt", "columns": columns, "tags": tags}
        if pairs:
            entry["ranking"] = True
        record = _ranking if pairs else _turns
        write_atomic(folder / name, (_line(record(row, style) | told) for row, told in _with_origin(rows)))
        text = json.dumps({self.params.dataset: entry}, indent=2)
        write_atomic(folder / "dataset_info.json", [text.encode(), b"\n"])

    def _torchtune(self, rows: Iterable[Row], folder: Path) -> None:
        record = export_torchtune.pair if self.params.preference else export_torchtune.RECORDS[self.params.shape]
        write_atomic(folder / f"{self.params.dataset}.jsonl", (_line(record(row)) for row in rows))

    def _chats(self, rows: Iterable[Row], folder: Path) -> None:
        tags = STYLES["messages"]
        self._parquet(
            folder,
            (
                {
                    "messages": list(_messages(row, tags)),
                    "id": str(row["id"]),
                    "source": str(row.get("source", "")),
                    "answer": str(row.get("answer", "")),
                }
                for row in rows
            ),
        )

    def _prompts(self, rows: Iterable[Row], folder: Path) -> None:
        split = self.params.split
        self._parquet(folder, (export_verl.record(row, index, split) for index, row in enumerate(rows)))

    def _parquet(self, folder: Path, records: Iterable[dict[str, Any]]) -> None:
        from pyarrow.lib import Table
        from pyarrow.parquet import ParquetWriter

        path = folder / f"{self.params.dataset}.parquet"
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        rows = iter(records)
        try:
            first = Table.from_pylist(list(islice(rows, ROW_GROUP)))
            with ParquetWriter(temporary, first.schema) as writer:  # type: ignore[no-untyped-call]  # pyarrow has none
                writer.write_table(first)
                while batch := list(islice(rows, ROW_GROUP)):
                    writer.write_table(Table.from_pylist(batch, first.schema))
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.rename(path)
            sync_dir(folder)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise explain(error, path) from error


def alternates(row: Row) -> bool:
    """Whether the prompt is a system message or none, then user and assistant in turn, the user last.

    Trainers refuse, or silently skip, anything else.
    """
    roles = [message["role"] for message in row["prompt"]]
    turns = roles[1:] if roles[0] == "system" else roles
    return len(turns) % 2 == 1 and all(role == ("assistant" if at % 2 else "user") for at, role in enumerate(turns))


def _with_origin(rows: Iterable[Row]) -> Iterator[tuple[Row, dict[str, Any]]]:
    """Each row, with its category and source: of these, all have what the first one has.

    Arrow wants the same columns in all rows, and a text in the first that it sees: where a later row lacks one, null.
    """
    columns: list[str] | None = None
    for row in rows:
        said = {"category": row.get("meta", {}).get("category"), "source": row.get("source")}
        told = {name: value for name, value in said.items() if isinstance(value, str)}
        columns = list(told) if columns is None else columns
        yield row, {name: told.get(name) for name in columns}


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


def _line(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
