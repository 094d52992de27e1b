"""A row as torchtune's data sets read it, one JSON object a line.

- chat_dataset (conversation_column messages, conversation_style openai): {"messages": [...]}
- instruct_dataset (column_map input: prompt, output: response): {"prompt", "response"}
- preference_dataset: {"chosen_conversations": [...], "rejected_conversations": [...]}, whole conversations
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from data_prep.core.step import Drop, Row

Shape = Literal["chat", "instruct"]


def instruct_fault(row: Row) -> Drop | None:
    """Why the prompt is not one text, which is all that instruct data can hold; None when it is."""
    roles = [message["role"] for message in row["prompt"]]
    if roles == ["user"]:
        return None
    why = "a system message" if roles == ["system", "user"] else f"{len(roles)} messages"
    return Drop("prompt is not one message", str(row.get("id", "")), f"{why}: `shape: chat` holds it", bad=True)


def chat(row: Row) -> dict[str, Any]:
    """The prompt's messages and the completion as the assistant's."""
    return {"messages": _conversation(row, row["completion"])}


def instruct(row: Row) -> dict[str, Any]:
    """The user's text and the completion."""
    return {"prompt": row["prompt"][0]["content"], "response": row["completion"]}


def pair(row: Row) -> dict[str, Any]:
    """Two conversations that differ in their last message."""
    return {
        "chosen_conversations": _conversation(row, row["completion"]),
        "rejected_conversations": _conversation(row, row["rejected"]),
    }


RECORDS: Mapping[Shape, Callable[[Row], dict[str, Any]]] = {"chat": chat, "instruct": instruct}


def _conversation(row: Row, answer: str) -> list[dict[str, str]]:
    said = (*row["prompt"], {"role": "assistant", "content": answer})
    return [{"role": one["role"], "content": one["content"]} for one in said]
