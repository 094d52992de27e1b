"""Records of other people's files as rows: by a column map, or by the shape that each record shows.

Shapes: chat messages (role/content or from/value), alpaca (instruction, input, output, history, system), a prompt with
a response, a solution or an answer under any of their usual names, GSM8K's question and answer, and preferences (chosen
and rejected as texts, as messages, with and without a prompt, and as LlamaFactory's ranking). What a row cannot hold
(images, tools, a system message among the turns) drops the record with a reason; nothing is cut away silently.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from data_prep.core.rows import FIELDS
from data_prep.core.step import Drop, Row
from data_prep.errors import DataError
from data_prep.sources.tasks import AnswerFrom

Record = Mapping[str, Any]
Convert = Callable[[Record], Row | Drop]
Message = dict[str, Any]

PROMPT = ("prompt", "question", "problem", "query", "instruction")
COMPLETION = ("completion", "response", "solution", "output")
ANSWER = ("answer", "final_answer", "ground_truth", "expected_answer", "reward_model.ground_truth")
SOURCE = ("source", "data_source")
LABELS = ("difficulty", "level", "subject", "subfield", "type")  # kept in meta
CHATS = ("messages", "conversations", "conversation", "prompt")
ROLES = {
    "human": "user", "user": "user", "prompter": "user",
    "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant", "bot": "assistant", "model": "assistant",
    "system": "system", "developer": "system",
}  # fmt: skip
TOOL_ROLES = ("tool", "function", "function_call", "observation", "tool_call", "tool_response")
MEDIA = ("images", "image", "videos", "video", "audios", "audio")
REASONING = ("reasoning_content", "reasoning", "thinking")
_HH_TURN = re.compile(r"\n\n(Human|Assistant):")

_PART = re.compile(r"([^.\[\]]+)|\[(\d+)\]")
_TARGETS = frozenset(FIELDS) - {"meta", "score", "outcome"}


class _Unfit(Exception):
    """Why a record is dropped: `reason` is what drops are counted by."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


def pick(record: Record, path: str) -> Any:
    """The value at `a`, `a.b` or `a[0]`; None when there is none. A column named so literally comes first."""
    if path in record:
        return record[path]
    value: Any = record
    for name, index in _PART.findall(path):
        if name and isinstance(value, Mapping):
            value = value.get(name)
        elif index and isinstance(value, list) and int(index) < len(value):
            value = value[int(index)]
        else:
            return None
    return value


def root(path: str) -> str:
    """The column that a path starts in."""
    return re.split(r"[.\[]", path, maxsplit=1)[0]


def check_columns(columns: Mapping[str, str]) -> None:
    """Raises ValueError for a target that rows do not have."""
    for target in columns:
        if target not in _TARGETS and not re.fullmatch(r"meta\.\w+", target):
            fields = ", ".join(sorted(_TARGETS))
            raise ValueError(f"rows have no field {target!r}; map {fields} or meta.<name> to columns")


def fits(columns: Mapping[str, str], found: Collection[str]) -> bool:
    """Whether all columns of a map are there."""
    return all(path in found or root(path) in found for path in columns.values())


def mapped(columns: Mapping[str, str], found: Collection[str], where: str) -> Convert:
    """Conversion by an explicit map. Raises DataError when a column is not there."""
    missing = [path for path in columns.values() if path not in found and root(path) not in found]
    if missing:
        raise DataError(f"{where}: no column {', '.join(missing)}; it has: {', '.join(found)}")

    def convert(record: Record) -> Row | Drop:
        record = _without_nan(record)
        row, meta = _labels(record)
        for target, path in columns.items():
            value = pick(record, path)
            if target.startswith("meta."):
                meta.update({target.removeprefix("meta."): value} if value is not None else {})
            elif value is None:
                return _absent(target, path, record)
            elif target == "prompt":
                row["prompt"] = _chat(value) if _is_chat(value) else _as_prompt(value)
            elif target in ("completion", "rejected") and _is_chat(value):
                row[target] = _answer(_chat(value))["content"]
            else:
                row[target] = value
        return _finish(row, meta)

    return lambda record: _fitting(convert, record)


def recognised(sample: Record, where: str, thinking: str | None = None) -> Convert:
    """Conversion by the shape that each record shows. Raises DataError that lists the columns of `sample`.

    thinking: the format (rewards/thinking.py) that writes a message's `reasoning_content` and content into one
    completion; without it such records are dropped.
    """
    if not _has_prompt(sample) and "chosen" not in sample:
        raise DataError(
            f"{where}: cannot tell the prompt among the columns {', '.join(sample) or '(none)'}; "
            "say it: `columns: {prompt: <column>, completion: <column>, answer: <column>}`"
        )
    learnt = next((name for name in (*COMPLETION, *ANSWER) if pick(sample, name) is not None), None)
    return lambda record: _fitting(lambda one: _recognised(_without_nan(one), thinking, learnt), record)


def _fitting(convert: Convert, record: Record) -> Row | Drop:
    try:
        return convert(record)
    except _Unfit as unfit:
        return Drop(unfit.reason, as_text(record.get("id")) or "", unfit.detail, bad=True)


def _without_nan(record: Record) -> Record:
    """NaN is how tables say that a value is missing."""
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in record.items()}


def _has_prompt(record: Record) -> bool:
    return any(isinstance(record.get(name), list) for name in CHATS) or any(
        isinstance(record.get(name), str) for name in PROMPT
    )


def _recognised(record: Record, thinking: str | None, learnt: str | None) -> Row | Drop:
    """learnt: the column that other records of the file have their completion or answer in."""
    for name in MEDIA:
        if record.get(name):
            raise _Unfit("images, video or audio", f"column {name}")
    if record.get("tools") not in (None, "", "[]", []):
        raise _Unfit("tools", "column tools: rows hold no tool definitions")
    row, meta = _labels(record)
    prompt, answer = _conversation(record)
    if "chosen" in record and "rejected" in record:
        prompt, row["completion"], row["rejected"] = _preference(prompt, record)
    elif answer is not None:
        row["completion"] = _written(answer, thinking)
    if not prompt:
        raise _Unfit("empty prompt")
    if record.get("system") and prompt[0]["role"] != "system":
        prompt = [{"role": "system", "content": record["system"]}, *prompt]
    row["prompt"] = prompt
    if "completion" not in row:
        completion = next((record[name] for name in COMPLETION if record.get(name) is not None), None)
        if completion is not None:
            row["completion"] = _written(_answer(_chat(completion)), thinking) if _is_chat(completion) else completion
    given = next((value for name in ANSWER if (value := pick(record, name)) is not None), None)
    if isinstance(given, str) and "####" in given and "completion" not in row:
        row["completion"], given = given, final_answer({"answer": given}, "gsm8k")  # GSM8K: the solution and its number
    if given is None and "completion" not in row and learnt is not None:
        return _absent("completion" if learnt in COMPLETION else "answer", learnt, record)
    row["answer"] = given if as_text(given) is None or isinstance(as_text(given), str) else None
    return _finish(row, meta)


def _conversation(record: Record) -> tuple[list[Message], Message | None]:
    """The prompt's messages, and the assistant's last one where the record's conversation ends with it."""
    chat = next((name for name in CHATS if isinstance(record.get(name), list)), None)
    if chat is not None:
        messages = _chat(record[chat])
        if chat != "prompt" and messages and messages[-1]["role"] == "assistant":
            return messages[:-1], messages[-1]
        return messages, None
    name = next((name for name in PROMPT if isinstance(record.get(name), str)), None)
    if name is None:
        absent = next((name for name in (*CHATS, *PROMPT) if name in record), None)
        if absent is None and "chosen" in record:
            return [], None
        if absent and record[absent] is not None:
            raise _Unfit("prompt is neither a text nor messages", f"found {type(record[absent]).__name__}")
        raise _Unfit("null prompt" if absent else "missing prompt", f"column {absent or 'prompt'}")
    text, extra = record[name], record.get("input") if name == "instruction" else None
    if isinstance(extra, str) and extra:
        text = f"{text}\n{extra}"
    history = record.get("history") or []
    if not all(isinstance(turn, list | tuple) and len(turn) == 2 for turn in history):
        raise _Unfit("history is not pairs of texts")
    earlier = [
        {"role": role, "content": content}
        for turn in history
        for role, content in zip(("user", "assistant"), turn, strict=True)
    ]
    return [*earlier, {"role": "user", "content": text}], None


def _preference(prompt: list[Message], record: Record) -> tuple[list[Message], str, str]:
    """(prompt, chosen, rejected) of the public shapes of preferences."""
    sides = [_side(record[name], prompt) for name in ("chosen", "rejected")]
    (before, chosen), (other, rejected) = sides
    if before != other:
        raise _Unfit("chosen and rejected answer different prompts")
    return before, chosen, rejected


def _side(value: Any, prompt: list[Message]) -> tuple[list[Message], str]:
    """One answer of a preference, and the messages that it answers."""
    if isinstance(value, Mapping):  # LlamaFactory's ranking: one message
        value = [value]
    if _is_chat(value):
        messages = _chat(value)
        answer = _answer(messages)["content"]
        before = messages[:-1]
        if prompt and before and before != prompt and [one for one in prompt if one["role"] != "system"] != before:
            raise _Unfit("the prompt is not what chosen answers")
        return prompt or before, answer
    if not isinstance(value, str):
        raise _Unfit("chosen or rejected is neither a text nor messages", f"found {type(value).__name__}")
    if prompt:
        return prompt, value
    if value.startswith("\n\nHuman:"):  # Anthropic's HH: the whole conversation as one text
        parts = _HH_TURN.split(value)[1:]
        turns = [
            {"role": "user" if speaker == "Human" else "assistant", "content": text.strip()}
            for speaker, text in zip(parts[::2], parts[1::2], strict=True)
        ]
        return turns[:-1], _answer(turns)["content"]
    raise _Unfit("missing prompt", "chosen and rejected are texts, and nothing says what they answer")


def _answer(messages: list[Message]) -> Message:
    if not messages or messages[-1]["role"] != "assistant":
        raise _Unfit("the conversation does not end with the assistant")
    return messages[-1]


def _written(message: Message, thinking: str | None) -> str:
    """A message as a completion, its thought in the thinking format."""
    thought = message.get("thought")
    if not thought:
        return str(message["content"])
    if thinking is None:
        raise _Unfit("reasoning_content", "say `thinking: <format>` to keep it as the thought, e.g. think")
    from rewards.errors import RewardError
    from rewards.thinking import thinking as format_of

    try:
        return format_of(thinking).render(thought, message["content"])
    except RewardError as error:
        raise _Unfit("the thought does not fit the thinking format", str(error)) from None


def _absent(field: str, path: str, record: Record) -> Drop:
    how = "null" if root(path) in record else "missing"
    return Drop(f"{how} {field}", as_text(record.get("id")) or "", f"column {path}", bad=True)


def _labels(record: Record) -> tuple[Row, dict[str, Any]]:
    """A new row with what keeps its name everywhere, and its meta."""
    given = record.get("meta")
    meta = dict(given) if isinstance(given, dict) else {}
    meta.update({name: record[name] for name in LABELS if record.get(name) is not None})
    row: Row = {"id": record.get("id")}
    row["source"] = next((record[name] for name in SOURCE if isinstance(record.get(name), str)), None)
    # Other people's columns of these names may hold anything; ours hold what a row can.
    own = {name: record.get(name) for name in ("rejected", "references", "tests", "score", "outcome")}
    own["tests"] = _parsed(own["tests"])
    row.update({name: value for name, value in own.items() if isinstance(value, FIELDS[name])})
    return row, meta


def _parsed(tests: Any) -> Any:
    """Tests that are an object as JSON text."""
    if not isinstance(tests, str) or not tests.lstrip().startswith("{"):
        return tests
    try:
        return json.loads(tests)
    except (ValueError, RecursionError):
        return None


def _is_chat(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and isinstance(value[0], dict)
        and ({"role", "content"} <= value[0].keys() or {"from", "value"} <= value[0].keys())
    )


def _as_prompt(value: Any) -> Any:
    return [{"role": "user", "content": value}] if isinstance(value, str) else value


def _chat(value: list[Any]) -> list[Message]:
    """Messages with our roles; system messages at the start are one. Raises _Unfit."""
    messages = [_message(one) for one in value]
    start = next((at for at, one in enumerate(messages) if one["role"] != "system"), len(messages))
    for at, one in enumerate(messages[start:], start):
        if one["role"] == "system":
            where = f"message {at + 1} of {len(messages)}: move it to the start, or into the user's next message"
            raise _Unfit("system message among the turns", where)
        if one.pop("weight", 1) == 0:
            raise _Unfit("an answer of weight 0", "trainers give loss to all answers of a conversation")
        if at < len(messages) - 1 and one.pop("thought", None):
            raise _Unfit("reasoning_content of an earlier turn")
    if start > 1:
        joined = "\n\n".join(one["content"] for one in messages[:start])
        messages[:start] = [{"role": "system", "content": joined}]
    for one in messages:
        one.pop("weight", None)
    return messages


def _message(one: Any) -> Message:
    if not isinstance(one, Mapping):
        raise _Unfit("prompt is not chat messages", f"found {type(one).__name__}")
    role = one.get("role", one.get("from"))
    if one.get("tool_calls") or one.get("function_call") or role in TOOL_ROLES:
        raise _Unfit("tool calls", "rows hold texts only")
    message: Message = {"role": ROLES.get(role, role) if isinstance(role, str) else role}
    message["content"] = _text(one.get("content", one.get("value")))
    if message["role"] == "assistant":
        if thought := next((one[name] for name in REASONING if isinstance(one.get(name), str) and one[name]), None):
            message["thought"] = thought
        if one.get("weight") is not None:
            message["weight"] = one["weight"]
    return message


def _text(content: Any) -> Any:
    """The text of a message whose content may be a list of parts."""
    if not isinstance(content, list):
        return content
    texts = []
    for part in content:
        kind = part.get("type", "text") if isinstance(part, Mapping) else "text"
        text = part if isinstance(part, str) else part.get("text") if isinstance(part, Mapping) else None
        if kind not in ("text", "input_text", "output_text") or not isinstance(text, str):
            media = any(word in str(kind) for word in ("image", "video", "audio"))
            raise _Unfit("images, video or audio" if media else "content that is no text", f"a part of type {kind!r}")
        texts.append(text)
    return "".join(texts)


def _finish(row: Row, meta: dict[str, Any]) -> Row | Drop:
    """Scalars as text, absent fields out, meta in."""
    for field in ("id", "answer"):
        row[field] = as_text(row.get(field))
    done = {field: value for field, value in row.items() if value is not None}
    if meta:
        done["meta"] = meta
    return done


def as_text(value: Any) -> Any:
    """A scalar as text, whole floats without their point (27.0 is "27"); lists of one as their item."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, int | float):
        return repr(value)
    return value.strip() if isinstance(value, str) else value


def final_answer(row: Row, how: AnswerFrom) -> str | None:
    """The short answer inside the answer (or else the completion); None when it is not there.

    gsm8k: what follows the last `####`, without thousands' commas. boxed: the last balanced box. boxed_or_short: that,
    and where nothing is boxed the whole answer, but never a whole completion.
    """
    from rewards.extract import last_box

    text = row.get("answer") or row.get("completion") or ""
    if not isinstance(text, str):
        return None
    if how != "gsm8k":
        short = row.get("answer") if how == "boxed_or_short" else None
        found = last_box(text)
        return (found if found is not None else short or "").strip() or None
    texts = (text, row.get("completion") or "")
    _, mark, tail = next((one for one in texts if "####" in one), "").rpartition("####")
    return re.sub(r"(?<=\d),(?=\d{3})", "", tail.strip()) or None if mark else None
