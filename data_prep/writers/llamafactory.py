"""A row as LlamaFactory reads it in its format `sharegpt`: messages, or for pairs messages and two answers.

Each line also says where the row came from, in the columns `category` (`meta.category`, of a `mix`) and `source`, which
LlamaFactory does not read.
"""

from __future__ import annotations

from collections.abc import Callable
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


def records(pairs: bool) -> Callable[[Row], dict[str, Any]]:
    """Makes records of rows, all of which have the columns `category` and `source` that the first one has.

    Arrow wants the same columns in all rows, and a text in the first that it sees: where a later row lacks one, null.
    """
    columns: list[str] | None = None

    def record(row: Row) -> dict[str, Any]:
        nonlocal columns
        values = {"category": row.get("meta", {}).get("category"), "source": row.get("source")}
        texts = {name: value for name, value in values.items() if isinstance(value, str)}
        if columns is None:
            columns = list(texts)
        messages = conversation(row, row["completion"])
        rejected = {"role": "assistant", "content": row.get("rejected")}
        pair = {"messages": messages[:-1], "chosen": messages[-1], "rejected": rejected}
        return (pair if pairs else {"messages": messages}) | {name: texts.get(name) for name in columns}

    return record
