"""Records of other people's files as rows, by the shape that each record shows.

Shapes: chat messages, alpaca (instruction, input, output, history, system), a prompt with a response, a solution or an
answer under any of their usual names, GSM8K's question and answer, KTO's labels, and preferences (chosen and rejected
as texts, as messages, with and without a prompt, as LlamaFactory's ranking, as OpenAI's, and as two answers of which
a column names the preferred one). `names.toml` is the table of their columns. What a row cannot hold
(images, tools, a system message among the turns) drops the record with a reason; nothing is cut away silently.
"""

import math
import re
from typing import Any

from data_prep.core.rows import MAX_TEXT_BYTES
from data_prep.core.step import Row
from data_prep.errors import DataError
from data_prep.sources import columns, messages
from data_prep.sources.columns import Convert, Record, pick
from data_prep.sources.messages import Message, Unfit, is_blank, is_chat, unpacked
from data_prep.sources.names import COLUMNS, Layout, layout_of

SINGLE = ("prompt", "input")  # columns that may be a text, and whose messages end with the user
OTHER_GOLDS = ("references", "tests")
HH = "\n\nHuman:"  # the start of a conversation of Anthropic's HH
_HH_TURN = re.compile(r"\n\n(Human|Assistant):")


def recognised(sample: Record, where: str, thinking: str | None = None) -> Convert:
    """Conversion by the shape that each record shows. Raises DataError that lists the columns of `sample`.

    thinking: the format (rewards/thinking.py) that writes a message's `reasoning_content` and content into one
    completion, or the content alone where it has no thought; without a format such records are dropped.
    """
    sample = _respelled(sample)
    layout = layout_of(sample)
    try:
        named = _chat_of(sample, layout) or any(_pair_of(sample, layout))
        named = named or any(isinstance(sample.get(name), str) for name in layout.paths["prompt"])
    except Unfit:  # each record says it for itself
        named = True
    if not named:
        raise DataError(
            f"{where}: cannot tell the prompt among the columns {', '.join(sample) or '(none)'}; "
            "say it: `columns: {prompt: <column>, completion: <column>, answer: <column>}`"
        )
    answers = (*layout.paths["completion"], *layout.paths["answer"])
    learnt = next((name for name in answers if pick(sample, name) is not None), None)

    def convert(record: Record, layout: Layout) -> Row:
        return _recognised(record, layout, thinking, learnt)

    return lambda record: columns.fitting(convert, _respelled(record))


def _respelled(record: Record) -> Record:
    """The record with columns such as `Question` and `Final Answer` under the names that are known here."""
    names = layout_of(record).renamed
    return {names.get(name, name): value for name, value in record.items()} if names else record


def _first(record: Record, paths: tuple[str, ...]) -> Any:
    """The first value that is there, messages in JSON text as messages."""
    for path in paths:
        if (value := pick(record, path)) not in (None, [], [None]):
            return unpacked(value)
    return None


def _chat_of(record: Record, layout: Layout) -> tuple[str, Any] | None:
    """The column of a record's conversation, and that; None without one. Objects of another kind are none."""
    for name in layout.paths["chats"]:
        value = unpacked(pick(record, name))
        value = value if name.startswith(SINGLE) else messages.by_turns(value)
        if isinstance(value, list) and value and (is_chat(value) or not isinstance(value[0], dict)):
            return name, value
    return None


def _recognised(record: Record, layout: Layout, thinking: str | None, learnt: str | None) -> Row:
    """learnt: the column that other records of the file have their completion or answer in."""
    row, meta = columns.labels(record)
    chosen, rejected = _pair_of(record, layout)
    prompt, last = _conversation(record, layout, chosen)
    if chosen is None and isinstance(rejected, str | list | dict):  # ms-swift: the record's answer is the chosen one
        chosen = [last] if last else _first(record, layout.paths["completion"])
    is_pair = chosen is not None and rejected is not None
    if is_pair:
        prompt, (row["completion"], row["rejected"]) = _preference(prompt, (chosen, rejected), thinking)
        messages.refuse_thought(record)
    # `thought` and `response` may hold another answer than the one that the conversation ends with.
    elif last is not None and not ("thought" in record and isinstance(record.get("response"), str)):
        row["completion"] = messages.written({"thought": messages.thought_of(record), **last}, thinking)
    else:
        row["completion"] = None
    if not prompt:
        raise Unfit("empty prompt")
    row["prompt"] = columns.after_system(record, layout, prompt)
    if row["completion"] is None:
        row["completion"] = _completion(record, layout, thinking, "finish_reason" in meta)
    completed = row["completion"] is not None
    if not is_pair and completed and any(_undesirable(record[name]) for name in layout.paths["labelled"]):
        raise Unfit("undesirable completion", "its label is false: KTO's wrong half of a pair")
    given = _first(record, layout.paths["answer"])
    if isinstance(given, str) and "####" in given:  # GSM8K: the solution and its number
        row["completion"], completed = row["completion"] if completed else given, True
        given = columns.final_answer({"answer": given}, "gsm8k")
    for start in ('["', "{"):  # a list of texts, or an object, as JSON
        given = given if (read := columns.decoded(given, start)) is None else read
    if given is None and not completed and learnt is not None:
        raise columns.absent_value("completion" if learnt in COLUMNS["completion"] else "answer", learnt, record)
    short, longest = columns.as_text(given), MAX_TEXT_BYTES if completed else math.inf
    row["answer"] = short if isinstance(short, str) and len(short) <= longest else None  # no gold is that long
    if isinstance(given, list | dict) and short is given and given and not completed and not row.keys() & OTHER_GOLDS:
        raise Unfit("answer is not one text", f"{str(given)[:80]}: `columns: {{references: …}}` reads a list of texts")
    return columns.finish(row, meta)


def _completion(record: Record, layout: Layout, thinking: str | None, sampled: bool) -> Any:
    """The completion in a column of its own, None without one. `sampled`: an empty one is there to be graded."""
    given = _first(record, layout.paths["completion"])
    several = isinstance(given, list) and len(given) > 1 and isinstance(given[0], str)
    if several and _first(record, layout.paths["answer"]) is not None:
        given = None  # several solutions of a problem with one answer
    names = ("content", "answer") if thinking else ("content",)
    if given is None and any(name in record for name in names) and messages.thought_of(record):
        given = _first(record, names)  # that the thought led to
    if given is None or isinstance(given, int | float) or (isinstance(given, str) and not given.strip()):
        return given if sampled and isinstance(given, str) else None
    return messages.completion(given, thinking, messages.thought_of(record))


def _undesirable(label: Any) -> bool:
    return str(label).strip().lower().removesuffix(".0") in ("false", "0", "no", "undesirable", "bad", "rejected")


def _pair_of(record: Record, layout: Layout) -> tuple[Any, Any]:
    """The chosen and the rejected answer, None for what is not there. Raises Unfit where none of two is preferred."""
    chosen, rejected = _first(record, layout.paths["chosen"]), _first(record, layout.paths["rejected"])
    if layout.pair is None or chosen is not None or rejected is not None:
        return chosen, rejected
    sides, columns_of = list(layout.pair.sides), (*layout.pair.choices, *layout.pair.signed)
    given = {name: columns.as_text(record[name]) for name in columns_of if not is_blank(record[name])}
    sided = {name: _side_of(text, sides, name in layout.pair.signed) for name, text in given.items()}
    preferred = set(sided.values())
    if len(preferred) != 1 or None in preferred:
        named = " or ".join(layout.pair.sides.values())
        raise Unfit("no preference", f"{named}: {', '.join(f'{name} is {given[name]}' for name in given) or 'null'}")
    first = sides.index(str(preferred.pop()))
    answers = [unpacked(record[name]) for name in layout.pair.sides.values()]
    return answers[first], answers[1 - first]


def _side_of(text: Any, sides: list[str], signed: bool) -> str | None:
    """Which of two sides a preference names (`2`, `B`, `model_a`), or by its sign; None for a tie or another value."""
    if not signed:
        match = re.fullmatch(r"\W*(?:[a-z]+[\s_])?(\w)\W*", str(text).lower())
        return match[1] if match and match[1] in sides else None
    number = float(text) if re.fullmatch(r"[-+]?\d+(\.\d+)?", str(text)) else 0
    return sides[number > 0] if number else None


def _conversation(record: Record, layout: Layout, chosen: Any) -> tuple[list[Message], Message | None]:
    """The prompt's messages, and the assistant's last one where the record's conversation ends with it."""
    if (named := _chat_of(record, layout)) is not None:
        given = unpacked(record.get("completion")) if named[0] == "prompt" else None
        answered = given if is_chat(given) and isinstance(given, list) else []
        dialogue = messages.chat([*named[1], *answered])
        if (answered or named[0] not in SINGLE) and dialogue and dialogue[-1]["role"] == "assistant":
            return dialogue[:-1], dialogue[-1]
        return dialogue, None
    texts = [name for name in layout.paths["prompt"] if isinstance(record.get(name), str)]
    name = next((name for name in texts if record[name].strip()), texts[0] if texts else None)
    if name is None:
        absent = next((name for name in (*layout.paths["chats"], *layout.paths["prompt"]) if name in record), None)
        if is_chat(chosen) or (chosen is not None and (absent is None or record[absent] is None)):
            return [], None
        if absent and record[absent] is not None:
            if is_blank(record[absent]):
                raise Unfit("empty prompt", f"column {absent}")
            raise Unfit("prompt is neither a text nor messages", f"found {type(record[absent]).__name__}")
        raise Unfit("null prompt" if absent else "missing prompt", f"column {absent or 'prompt'}")
    text = record[name]
    if isinstance(columns.decoded(text, '["'), list):
        raise Unfit("prompt is a list of texts", text[:60])
    if text.startswith(HH):
        return [turn for turn in _hh_turns(text) if turn["content"]], None
    for extra in layout.paths["beside"]:
        given = record.get(extra)
        if is_blank(given) or extra == name or (extra == "query" and name != "prompt"):
            continue
        if not isinstance(given, str):
            raise Unfit("context that is no text", f"column {extra} is {type(given).__name__}")
        text = text if given in text else f"{text}\n{given}"
    return [*_history(record.get("history")), {"role": "user", "content": text}], None


def _history(turns: Any) -> list[Message]:
    """Alpaca's earlier turns, pairs of texts, or messages, as a list or its JSON text. Raises Unfit."""
    turns = messages.by_turns(columns.decoded(turns, "["))
    if is_blank(turns) or is_chat(turns):
        return [] if is_blank(turns) else messages.chat(turns)
    raise Unfit("history is not pairs of texts")


def _hh_turns(text: str) -> list[Message]:
    """The turns of Anthropic's HH, a whole conversation as one text."""
    parts, roles = _HH_TURN.split(text)[1:], {"Human": "user", "Assistant": "assistant"}
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return [{"role": roles[speaker], "content": content.strip()} for speaker, content in pairs]


def _preference(prompt: list[Message], pair: tuple[Any, Any], thinking: str | None) -> tuple[list[Message], list[Any]]:
    sides = [_side(value, prompt, thinking) for value in pair]
    if sides[0][0] != sides[1][0]:
        raise Unfit("chosen and rejected answer different prompts")
    return sides[0][0], [text for _, text in sides]


def _turns(dialogue: list[Message]) -> list[Message]:
    return [message for message in dialogue if message["role"] != "system"]


def _side(value: Any, prompt: list[Message], thinking: str | None) -> tuple[list[Message], Any]:
    """One answer of a preference, and the messages that it answers."""
    if is_chat(value):
        dialogue = messages.chat(value)
        last, before = messages.answer(dialogue), dialogue[:-1]
        if dialogue[0]["role"] == "assistant":  # it goes on from the prompt
            before = [*prompt, *before]
        elif any(turn not in before for turn in _turns(prompt)):  # it may be one of several turns
            raise Unfit("the prompt is not what chosen answers")
        systems = [message for message in (*prompt, *before) if message["role"] == "system"]
        return messages.with_system(systems, _turns(before)), messages.written(last, thinking)
    if not isinstance(value, str):
        raise Unfit("chosen or rejected is neither a text nor messages", f"found {type(value).__name__}")
    if prompt:
        return prompt, messages.completion(value, thinking)
    if value.startswith(HH):
        *before, last = _hh_turns(value)
        return before, messages.answer([last])["content"]
    raise Unfit("missing prompt", "chosen and rejected are texts, and nothing says what they answer")
