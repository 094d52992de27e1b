"""A row as LlamaFactory reads it in its format `sharegpt`: messages, or for pairs messages and two answers.

Each line also says where the row came from, in the columns `category` (`meta.category`, of a `mix`) and `source`, which
LlamaFactory does not read.
"""

from __future__ import annotations

from typing import Any

from data_prep.core.step import Row
from data_prep.writers.torchtune import conversation

TAGS = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant",
        "system_tag": "system"}  # fmt: skip


def entry(file_name: str, pairs: bool) -> dict[str, Any]:
    """The file's entry in dataset_info.json."""
    columns = {"messages": "messages"} | ({"chosen": "chosen", "rejected": "rejected"} if pairs else {})
    ranking = {"ranking": True} if pairs else {}
    return {"file_name": file_name, "formatting": "sharegpt", "columns": columns, "tags": TAGS, **ranking}


class Records:
    """Rows as records, all of which have the columns `category` and `source` that the first one has.

    Arrow wants the same columns in all rows, and a text in the first that it sees: where a later row lacks one, null.
    """

    def __init__(self, pairs: bool) -> None:
        self._pairs, self._columns = pairs, list[str]()
        self._first = True

    def __call__(self, row: Row) -> dict[str, Any]:
        values = {"category": row.get("meta", {}).get("category"), "source": row.get("source")}
        texts = {name: value for name, value in values.items() if isinstance(value, str)}
        if self._first:
            self._columns, self._first = list(texts), False
        return _record(row, self._pairs) | {name: texts.get(name) for name in self._columns}


def _record(row: Row, pairs: bool) -> dict[str, Any]:
    messages = conversation(row, row["completion"])
    if not pairs:
        return {"messages": messages}
    rejected = {"role": "assistant", "content": row["rejected"]}
    return {"messages": messages[:-1], "chosen": messages[-1], "rejected": rejected}
