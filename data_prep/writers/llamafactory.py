"""Rows in LlamaFactory's format `sharegpt`: messages, or for pairs messages and two answers.

Each line also has the columns `category` (`meta.category`, from `mix`) and `source`, which LlamaFactory ignores.
"""

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
    """Converts rows to records; all have the columns `category` and `source` if the first one has them.

    Arrow needs the same columns in all rows, with a text in the first; later rows without a value get null.
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
