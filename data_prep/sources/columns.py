"""Values of a record by column, and rows by a column map: `{prompt: problem, answer: solution, meta.level: level}`."""

import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from decimal import Decimal
from fnmatch import filter as matching
from functools import cache
from typing import Annotated, Any, Literal

from data_prep.core.rows import FIELDS
from data_prep.core.step import Drop, Row
from data_prep.core.validation import checked
from data_prep.errors import DataError
from data_prep.sources import messages
from data_prep.sources.messages import Message, Unfit, is_blank, is_chat
from data_prep.sources.names import COLUMNS, Layout, layout_of, root

Record = Mapping[str, Any]
Convert = Callable[[Record], Row | Drop]
Columns = dict[str, str | tuple[str, ...]]  # field of a row (meta.x allowed) -> column (a.b and a[0] allowed)
AnswerFrom = Literal["gsm8k", "boxed", "boxed_or_short"]

_INSIDE = ("input", "chat_template_kwargs")  # columns that hold an object of such columns
_PART = re.compile(r"([^.\[\]]+)|\[(\d+)\]")
_TARGETS = frozenset(FIELDS) - {"meta", "score", "outcome"}


def pick(record: Record, path: str) -> Any:
    """The value at `a`, `a.b` or `a[0]`; None when there is none. A column named so literally comes first."""
    if path in record:
        return record[path]
    value: Any = record
    parts = _parts(path)
    if not parts or parts[0][0] not in record:
        return None
    for name, index in parts:
        value = decoded(value, "{")
        if name and isinstance(value, dict):
            value = value.get(name)
        elif index and isinstance(value, list) and int(index) < len(value):
            value = value[int(index)]
        else:
            return None
    return value


@cache
def _parts(path: str) -> list[tuple[str, str]]:
    return _PART.findall(path)


def check_columns(columns: Columns) -> None:
    """Raise ValueError for a target that rows do not have, or several columns where one is meant."""
    for target, paths in columns.items():
        if target not in _TARGETS and not re.fullmatch(r"meta\.\w+", target):
            fields = ", ".join(sorted(_TARGETS))
            raise ValueError(f"rows have no field {target!r}; map {fields} or meta.<name> to columns")
        if target != "references" and not isinstance(paths, str):
            raise ValueError(f"{target}: give one column; only references are read from several")


ColumnMap = Annotated[Columns, checked(check_columns)]


def _paths(columns: Columns) -> list[str]:
    return [path for given in columns.values() for path in ((given,) if isinstance(given, str) else given)]


def missing(columns: Columns, names: Collection[str]) -> list[str]:
    """Columns of a map that are not among `names`; `ref_*` needs one that matches."""
    return [
        path for path in _paths(columns) if path not in names and root(path) not in names and not matching(names, path)
    ]


def mapped(columns: Columns, names: Collection[str], where: str, thinking: str | None = None) -> Convert:
    """Conversion by an explicit map. Raises DataError when a column is not there."""
    if absent := missing(columns, names):
        raise DataError(f"{where}: no column {', '.join(absent)}; it has: {', '.join(names)}")

    used = set(map(root, _paths(columns)))

    def convert(record: Record, layout: Layout) -> Row:
        row, meta = labels(record)
        if "rejected" in columns:
            messages.refuse_thought(record, used)
        thought = messages.thought_of(record, used) if "completion" in columns else ""
        for target, path in columns.items():
            value: Any = pick(record, path) if isinstance(path, str) else None
            if target == "references" and not isinstance(value, list):
                value = list(_texts(record, (path,) if isinstance(path, str) else path)) or None
            if target.startswith("meta."):
                meta.update({target.removeprefix("meta."): value} if value is not None else {})
            elif value in (None, [None]):
                raise absent_value(target, str(path), record)
            elif target == "prompt":
                value = messages.unpacked(value)
                if not isinstance(value, str) and not is_chat(value):
                    raise Unfit("prompt is neither a text nor messages", f"found {type(value).__name__}")
                row["prompt"] = messages.chat(value if is_chat(value) else {"role": "user", "content": value})
            elif target in ("completion", "rejected"):
                own = thought if target == "completion" else ""
                row[target] = messages.completion(messages.unpacked(value), thinking, own)
            else:
                row[target] = value
        if "prompt" in row:
            row["prompt"] = after_system(record, layout, row["prompt"])
        return finish(row, meta)

    return lambda record: fitting(convert, record)


def _texts(record: Record, paths: tuple[str, ...]) -> Iterator[str]:
    """Texts of columns, names with `*` included, and of the lists in them; empty and absent ones left out."""
    for path in paths:
        for name in matching(record, path) or [path]:
            value = pick(record, name)
            for text in value if isinstance(value, list) else [value]:
                if isinstance(text, str) and text.strip():
                    yield text


def fitting(convert: Callable[[Record, Layout], Row], record: Record) -> Row | Drop:
    """The record converted; a drop for an unfit one."""
    layout = layout_of(record)
    try:
        messages.refuse_media(record)
        row = convert(record, layout)
        _refuse_lost(record, layout, row)
        return row
    except Unfit as unfit:
        return Drop(unfit.reason, as_text(record.get("id")) or "", unfit.detail, bad=True)


def _refuse_lost(record: Record, layout: Layout, row: Row) -> None:
    """Raise Unfit for what the record has and the row cannot hold: images in its text, or columns such as tools."""
    for message in row.get("prompt", ()):
        text = message["content"] if message["role"] == "user" else None
        if not isinstance(text, str) or not ("<" in text or "[" in text):
            continue
        if mark := messages.PLACEHOLDER.search(text):
            raise Unfit("images, video or audio", f"the prompt has {mark[0]}")
        if mark := messages.TEMPLATED.search(text):
            raise Unfit("a chat template in the prompt", f"{mark[0]}: write its turns as messages")
    messages.refuse_weight(record, row.get("meta", ()))
    unheld = [(name, reason, record[name]) for name, reason in layout.unheld]
    for columns in (record[name] for name in _INSIDE if isinstance(record.get(name), dict)):
        unheld += [(name, reason, columns[name]) for name, reason in layout_of(columns).unheld]
    held = " ".join(_leaves(row)) if unheld else ""
    for name, reason, value in unheld:
        if is_blank(value) or (reason != "choices" and isinstance(value, int | float)):
            continue
        leaves, gold = list(_leaves(value)), str(row.get("answer", ""))
        index = reason == "choices" and gold.isdecimal() and int(gold) <= len(leaves)  # of one of them
        if index or not all(re.search(rf"(?<!\w){re.escape(text)}(?!\w)", held) for text in leaves):
            raise Unfit(reason, f"column {name}: rows hold messages only; `columns: {{meta.{name}: {name}}}` keeps it")


def _leaves(value: Any) -> Iterator[str]:
    """The texts and numbers inside a value, or the JSON text of pairs, with single spaces."""
    value = value if (listed := decoded(value, "[[")) is None else listed
    if isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _leaves(item)
    elif not is_blank(value):
        yield " ".join(str(value).split())


def after_system(record: Record, layout: Layout, prompt: list[Message]) -> list[Message]:
    """The prompt after the system prompt that stands in a column of its own, beside one that it may begin with."""
    values = [record[name] for name in layout.fields["system"]]
    if "chat_template_kwargs" in record:
        values.append(pick(record, "chat_template_kwargs.custom_instructions"))
    systems: list[Message] = []
    for value in values:
        if is_blank(value):
            continue
        value = value.get("parts", value) if isinstance(value, Mapping) else value  # Gemini's
        parts = isinstance(value, list) and isinstance(value[0], Mapping)  # such as Anthropic's
        if not isinstance(value, str) and not parts and not is_chat(value):
            raise Unfit("system prompt is not a text", f"found {type(value).__name__}")
        systems += messages.chat(value if is_chat(value) else {"role": "system", "content": value})
    start = 1 if systems and prompt and prompt[0]["role"] == "system" else 0
    return messages.with_system([*systems, *prompt[:start]], prompt[start:]) if systems else prompt


def absent_value(field: str, path: str, record: Record) -> Unfit:
    """What is wrong with a record that has no value in a column that is needed."""
    return Unfit(f"{'null' if root(path) in record else 'missing'} {field}", f"column {path}")


def labels(record: Record) -> tuple[Row, dict[str, Any]]:
    """A new row with what keeps its name everywhere, and its meta."""
    given = record.get("meta")
    meta = dict(given) if isinstance(given, dict) else {}
    meta.update({name: record[name] for name in COLUMNS["labels"] if record.get(name) is not None})
    source = next((record[name] for name in COLUMNS["source"] if isinstance(record.get(name), str)), None)
    references = record.get("references")
    references = record.get("reference") if references is None else references
    references = [references] if isinstance(references, str) else references
    if isinstance(references, list) and not all(isinstance(text, str) for text in references):
        references = None
    own = {name: record.get(name) for name in ("rejected", "references", "tests", "score", "outcome")}
    own |= {"references": references, "tests": decoded(own["tests"], "{")}
    # Other people's columns of these names may hold anything; ours hold what a row can.
    held = {name: value for name, value in own.items() if isinstance(value, FIELDS[name])}
    return {"id": record.get("id"), "source": source, **held}, meta


def decoded(value: Any, start: str) -> Any:
    """What a text that begins with `start` is as JSON, None where it is none; any other value as it is."""
    if not isinstance(value, str) or not value.lstrip().startswith(start):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None


def finish(row: Row, meta: dict[str, Any]) -> Row:
    """Scalars as text, absent fields out, meta in as JSON has it (dates as texts); an id that is no scalar is out."""
    row["answer"], name = as_text(row.get("answer")), as_text(row.get("id"))
    row["id"] = name if isinstance(name, str) else None
    if any(not isinstance(value, str | int) for value in meta.values()):
        meta = json.loads(json.dumps(meta, default=str), parse_constant=lambda constant: None)
    done = {field: value for field, value in row.items() if value is not None}
    return {**done, "meta": meta} if meta else done


def as_text(value: Any) -> Any:
    """A scalar as text, whole floats without their point (27.0 is "27"); lists of one as their item."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if value is None or isinstance(value, str):
        return value and value.strip()
    if isinstance(value, bool):
        return str(value)
    value = float(value) if isinstance(value, Decimal) else value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, int | float):
        return None if value in (math.inf, -math.inf) else repr(value)  # 1e400, which JSON reads as infinity
    return value


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
        box = last_box(text)
        return (box if box is not None else short or "").strip() or None
    texts = (text, row.get("completion") or "")
    _, mark, tail = next((part for part in texts if "####" in part), "").rpartition("####")
    return re.sub(r"(?<=\d),(?=\d{3})", "", tail.strip()) or None if mark else None
