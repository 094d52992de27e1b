"""Writes training files beside the rows: ShareGPT with `dataset_info.json`, or chat Parquet.

- export: {format: sharegpt, dataset: train}      export/train.jsonl, export/dataset_info.json (LlamaFactory)
- export: {format: parquet, dataset: train}       export/train.parquet: messages, id, source, answer

Texts are written whole: what to do about long ones is the trainer's `max_length`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from data_prep.errors import explain
from data_prep.files import sync_dir, write_atomic
from data_prep.step import Context, Drop, Output, Params, Row, Step

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
    """`style` matters for sharegpt only: role/content messages, or from/value conversations."""

    format: Literal["sharegpt", "parquet"] = "sharegpt"
    style: Style = "messages"
    dataset: str = Field("train", pattern=r"^[A-Za-z0-9_-]+$")


class Export(Step):
    """Passes rows on unchanged; the files of all of them lie in `export/` in the step's directory."""

    kind = "export"
    scope = "whole"
    needs: ClassVar[tuple[str, ...]] = ("prompt", "completion")
    growth = 3.0  # the rows again, and the files
    Params = ExportParams
    params: ExportParams

    def apply(self, rows: Sequence[Row], ctx: Context) -> Output:
        """Write the files, then pass on the rows that are in them."""
        good = [row for row in rows if alternates(row)]
        folder = ctx.dir / "export"
        folder.mkdir(exist_ok=True)
        if self.params.format == "parquet":
            self._parquet(good, folder)
        else:
            self._sharegpt(good, folder)
        for row in rows:
            yield row if alternates(row) else Drop("roles do not alternate", str(row.get("id", "")), bad=True)

    def _sharegpt(self, rows: Sequence[Row], folder: Path) -> None:
        style, name = self.params.style, f"{self.params.dataset}.jsonl"
        tags = STYLES[style]
        write_atomic(folder / name, (_line({style: list(_messages(row, tags))}) for row in rows))
        entry = {"file_name": name, "formatting": "sharegpt", "columns": {"messages": style}, "tags": tags}
        text = json.dumps({self.params.dataset: entry}, indent=2)
        write_atomic(folder / "dataset_info.json", [text.encode(), b"\n"])

    def _parquet(self, rows: Sequence[Row], folder: Path) -> None:
        from pyarrow.lib import Table
        from pyarrow.parquet import write_table

        tags = STYLES["messages"]
        table = Table.from_pylist(
            [
                {
                    "messages": list(_messages(row, tags)),
                    "id": str(row["id"]),
                    "source": str(row.get("source", "")),
                    "answer": str(row.get("answer", "")),
                }
                for row in rows
            ]
        )
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
