"""Rows in the formats of torchtune's data sets, one JSON object per line.

- chat_dataset (conversation_column messages, conversation_style openai): {"messages": [...]}
- preference_dataset: {"chosen_conversations": [...], "rejected_conversations": [...]}, whole conversations
"""

from typing import Any

from data_prep.core.step import Row


def chat(row: Row) -> dict[str, Any]:
    """The prompt's messages and the completion as the assistant's message."""
    return {"messages": conversation(row, row["completion"])}


def pair(row: Row) -> dict[str, Any]:
    """Two conversations that differ in their last message."""
    sides = {"chosen": row["completion"], "rejected": row["rejected"]}
    return {f"{name}_conversations": conversation(row, text) for name, text in sides.items()}


def conversation(row: Row, answer: str) -> list[dict[str, str]]:
    """The prompt's messages (role and content only) and the answer."""
    messages = (*row["prompt"], {"role": "assistant", "content": answer})
    return [{"role": message["role"], "content": message["content"]} for message in messages]
