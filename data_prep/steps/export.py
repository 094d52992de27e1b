"""Writes training files beside the rows: ShareGPT with `dataset_info.json`, chat Parquet, or prompts for verl.

- export: {format: sharegpt, dataset: train}      export/train.jsonl, export/dataset_info.json (LlamaFactory)
- export: {format: parquet, dataset: train}       export/train.parquet: messages, id, source, answer
- export: {format: verl, dataset: train}          export/train.parquet: prompts with their golds (`export_verl`)

Texts are written whole: what to do about long ones is the trainer's `max_length`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from data_prep.errors import explain
from data_prep.files import sync_dir, write_atomic
from data_prep.rows import check
from data_prep.step import Context, Drop, Output, Params, Row, Step
from data_prep.steps import export_verl

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


class ExportParams(Params):
    """`style` matters for sharegpt only: role/content messages, or from/value conversations; `split` for verl only."""

    format: Literal["sharegpt", "parquet", "verl"] = "sharegpt"
    style: Style = "messages"
    split: export_verl.Split = "train"
    dataset: str = Field("train", pattern=r"^[A-Za-z0-9_-]+$")


class Export(Step):
    """Passes rows on unchanged; the files of all of them lie in `export/` in the step's directory."""

    kind = "export"
    scope = "whole"
    needs: ClassVar[tuple[str, ...]] = ("prompt",)
    uses: ClassVar[tuple[str, ...]] = ("data_prep.rows", "data_prep.steps.export_verl", "data_prep.steps.select")
    growth = 3.0  # the rows again, and the files
    Params = ExportParams
    params: ExportParams

    def apply(self, rows: Sequence[Row], ctx: Context) -> Output:
        """Write the files, then pass on the rows that are in them."""
        outputs = list(self._judged(rows))
        folder = ctx.dir / "export"
        folder.mkdir(exist_ok=True)
        write = {"sharegpt": self._sharegpt, "parquet": self._chats, "verl": self._prompts}[self.params.format]
        write([one for one in outputs if not isinstance(one, Drop)], folder)
        return outputs

    def _judged(self, rows: Sequence[Row]) -> Output:
        """Each row, or why no trainer can use it."""
        prompts: dict[str, Any] = {}
        for row in rows:
            fault = None if self.params.format == "verl" else check(row, ("completion",))
            if fault is None and not alternates(row):
                fault = Drop("roles do not alternate", str(row.get("id", "")), bad=True)
            if fault is None and self.params.format == "verl":
                fault = export_verl.fault(row, prompts)
            yield fault or row

    def _sharegpt(self, rows: Sequence[Row], folder: Path) -> None:
        style, name = self.params.style, f"{self.params.dataset}.jsonl"
        tags = STYLES[style]
        write_atomic(folder / name, (_line({style: list(_messages(row, tags))}) for row in rows))
        entry = {"file_name": name, "formatting": "sharegpt", "columns": {"messages": style}, "tags": tags}
        text = json.dumps({self.params.dataset: entry}, indent=2)
        write_atomic(folder / "dataset_info.json", [text.encode(), b"\n"])

    def _chats(self, rows: Sequence[Row], folder: Path) -> None:
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

    def _prompts(self, rows: Sequence[Row], folder: Path) -> None:
        split = self.params.split
        self._parquet(folder, (export_verl.record(row, index, split) for index, row in enumerate(rows)))

    def _parquet(self, folder: Path, records: Iterable[dict[str, Any]]) -> None:
        from pyarrow.lib import Table
        from pyarrow.parquet import write_table

        table = Table.from_pylist(list(records))
        path = folder / f"{self.params.dataset}.parquet"
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            write_table(table, temporary)  # type: ignore[no-untyped-call]  # pyarrow has none
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


def _messages(row: Row, tags: dict[str, str]) -> Iterator[dict[str, str]]:
    for message in (*row["prompt"], {"role": "assistant", "content": row["completion"]}):
        yield {tags["role_tag"]: tags[f"{message['role']}_tag"], tags["content_tag"]: message["content"]}


def _line(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
