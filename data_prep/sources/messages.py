"""Chat messages of other people's files as ours, and an assistant's message as a completion.

Role names and spellings vary (role/content, from/value; human, gpt, prompter, developer), and a message may hold more
than a text: parts, a thought, tool calls, a loss weight. What a row cannot hold drops the record with a reason.
"""

import json
import re
from ast import literal_eval
from collections.abc import Collection, Mapping
from typing import Any

from data_prep.core.rows import ROLES as OURS
from data_prep.sources.names import ROLES, kinds, layout_of

Message = dict[str, Any]

FLAGS = ("on", "off", "true", "false", "yes", "no", "none", "low", "medium", "high", "enabled", "disabled")
# Messages as a text that is neither JSON nor Python, such as numpy's `array([{'content': …, 'role': …} {…}])`.
WRITTEN = re.compile(
    r"""\s*(array\()?\[?\{\s*['"]((role|from)|(content|value)['"]\s*:.*?['"](role|from))['"]\s*:""", re.DOTALL
)
CONTENT = {"content", "value", "parts"}  # names of what a message says
OF_A_TURN = {**ROLES, "input": "user", "output": "assistant"}  # names of a turn's texts
PACKED = re.compile(r'\s*"?(array\()?\[?(\s|\\n)*\{')  # how messages in a text begin
TEXTS = ("text", "input_text", "output_text")  # types of a part that is text
# A place in a text that an image stands at; with a closing tag it is code about one, or Qwen-VL's own tag.
PLACEHOLDER = re.compile(
    r"<\|?(image|video|audio)(_pad|[ _]?\d+)?\|?>(?!.*</\1>)|<(img|audio|video)>[^\s<]+</\3>", re.DOTALL | re.IGNORECASE
)

# What chat templates write between turns: a prompt with it is a whole conversation, and would be framed twice.
TEMPLATED = re.compile(
    r"<\|(im_start|start_header_id)\|>|<start_of_turn>|<extra_id_1>|\[/INST\]"
    r"|[<\[]\|([Uu]ser|[Hh]uman|[Aa]ssistant|AI|[Bb]ot)\|[>\]]"
)


class Unfit(Exception):
    """Why a record is dropped: `reason` is what drops are counted by."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


def is_chat(value: Any) -> bool:
    """Whether a value is a list of messages, or one message by itself."""
    first = value[0] if isinstance(value, list) and value else value
    return isinstance(first, dict) and bool(first.keys() & {"role", "from"} and first.keys() & CONTENT)


def unpacked(value: Any) -> Any:
    """Messages as tables hold them: as text (JSON's or Python's), a list of such texts, or an object of lists.

    Anything else as it is. Raises Unfit.
    """
    if isinstance(value, list) and value and isinstance(value[0], str) and PACKED.match(value[0]):
        items = [unpacked(item) for item in value]
        return items if all(map(is_chat, items)) else value
    if isinstance(value, dict) and is_chat(value) and isinstance(value.get("role", value.get("from")), list):
        fields = {name: items for name, items in value.items() if items is not None}
        try:
            return [dict(zip(fields, items, strict=True)) for items in zip(*fields.values(), strict=True)]
        except (TypeError, ValueError):  # not one item for each message
            return value
    if not isinstance(value, str) or not PACKED.match(value):
        return value
    for read in (json.loads, literal_eval):
        try:
            messages = unpacked(read(value.strip()))  # it may be encoded twice
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            continue
        return messages if is_chat(messages) else value
    if WRITTEN.match(value):
        raise Unfit("messages that are no JSON", f"{value[:60]!r}…: write them with json.dumps")
    return value


def chat(value: Any) -> list[Message]:
    """Messages with our roles; system messages at the start are one. Raises Unfit."""
    messages = [_message(message) for message in (value if isinstance(value, list) else [value])]
    start = next((at for at, message in enumerate(messages) if message["role"] != "system"), len(messages))
    for at, message in enumerate(messages[start:], start):
        if message["role"] == "system":
            where = f"message {at + 1} of {len(messages)}: move it to the start, or into the user's next message"
            raise Unfit("system message among the turns", where)
        if at < len(messages) - 1 and "thought" in message:
            raise Unfit("reasoning_content of an earlier turn", f"message {at + 1} of {len(messages)}")
    return with_system(messages[:start], messages[start:])


def by_turns(turns: Any) -> Any:
    """Messages of turns without roles: texts of user and assistant by turns, pairs of them, or inputs with outputs."""
    if not isinstance(turns, list) or is_chat(turns):
        return turns
    if all(isinstance(turn, dict) and turn.keys() <= OF_A_TURN.keys() for turn in turns):
        parts = ((OF_A_TURN[name], text) for turn in turns for name, text in turn.items())
        return [{"role": role, "content": text} for role, text in parts if text not in (None, "")]
    pairs = all(isinstance(turn, list | tuple) and len(turn) == 2 for turn in turns)
    texts = [text for pair in turns for text in pair] if pairs else turns
    if not all(isinstance(text, str) for text in texts):
        return turns
    return [{"role": "assistant" if at % 2 else "user", "content": text} for at, text in enumerate(texts)]


def with_system(system: list[Message], rest: list[Message]) -> list[Message]:
    """The messages after one system message of all the texts in `system`, each once."""
    texts = dict.fromkeys(message["content"] for message in system if message["content"])
    return [{"role": "system", "content": "\n\n".join(map(str, texts))}, *rest] if texts else rest


def _message(given: Any) -> Message:
    if not isinstance(given, dict):
        raise Unfit("prompt is not chat messages", f"found {type(given).__name__}")
    role = given.get("role", given.get("from"))
    if isinstance(role, str) and role not in OURS:
        role = ROLES.get(role.strip().lower(), role.strip().lower())
    fields = layout_of(given).fields
    if role == "tool" or any(not is_blank(given[name]) for name in fields["tool_calls"]):
        raise Unfit("tool calls", "rows hold texts only")
    refuse_media(given)
    if given.get("channel") in ("analysis", "commentary"):  # of OpenAI's harmony
        raise Unfit("reasoning_content", "a message of its own: write it as `reasoning_content` of the answer")
    text, thought = _parts(given.get("content", given.get("value", given.get("parts"))))
    if not isinstance(text, str | None):
        raise Unfit("content that is no text", f"found {type(text).__name__}")
    message: Message = {"role": role, "content": text}
    if role == "assistant":
        refuse_weight(given)
        if not isinstance(text, str):
            raise Unfit("refusal" if given.get("refusal") else "null content", "an answer without text")
        if not text.strip():
            raise Unfit("empty answer", "an assistant's turn without text")
        if thought := thought or thought_of(given):
            message["thought"] = thought
    return message


def refuse_weight(given: Mapping[str, Any], kept: Collection[str] = ()) -> None:
    """Raise Unfit where a record or message, but for the fields `kept`, has no loss or another weight than 1."""
    if _without_loss(given, kept):
        raise Unfit("an answer of weight 0", "trainers give the same loss to all answers of a conversation")


def _without_loss(given: Mapping[str, Any], kept: Collection[str] = ()) -> bool:
    """Whether these fields, or those of a part, say that it is not to be trained on, or with another weight than 1."""
    fields = layout_of(given).fields
    for name in (*fields["masked"], *fields["weight"]):
        if name in kept:
            continue
        values = given[name] if isinstance(given[name], list) else [given[name]]
        texts = {str(item).strip().lower().removesuffix(".0") for item in values if not isinstance(item, Mapping)}
        if name in fields["masked"]:
            odd = texts & {"1", "true", "yes"}
        elif name.lower().endswith("weight"):
            odd = texts - {"1", "true", "none", ""}
        else:
            odd = texts & {"0", "false", "no"}
        if odd or any(_without_loss(item) for item in values if isinstance(item, Mapping)):
            return True
    return False


def is_blank(value: Any) -> bool:
    """Whether a value says nothing: null, false, an empty text (JSON text too), or a list or an object of only such."""
    if isinstance(value, str):
        text = value.strip()
        return len(text) < 10 and "".join(text.split()).lower() in ("", "null", "none", "nan", "[]", "{}")
    if isinstance(value, Mapping | list):
        return all(map(is_blank, value.values() if isinstance(value, Mapping) else value))
    return value is None or value is False or value != value


def is_thought(name: str) -> bool:
    """Whether a field, column or part of this name holds a thought."""
    return "thought" in kinds(name)


def thought_of(given: Mapping[str, Any], used: Collection[str] = ()) -> str:
    """The thought that stands in a field of its own, not in `used`; "" without one. Raises Unfit."""
    fields = {name: given[name] for name in layout_of(given).fields["thought"] if name not in used}
    if not fields:
        return ""
    texts = [text for value in fields.values() if (text := _thought(value))]
    longest = max(texts, key=len, default="")
    if any(" ".join(text.split()) not in " ".join(longest.split()) for text in texts if text is not longest):
        raise Unfit("reasoning_content", f"several thoughts ({', '.join(fields)}): write the one you mean")
    if longest:
        return longest
    if name := next((name for name, value in fields.items() if isinstance(value, Mapping | list) and _says(value)), ""):
        raise Unfit("reasoning_content", f"no text in {name}: write the thought as one text")
    return ""


def refuse_thought(given: Mapping[str, Any], used: Collection[str] = ()) -> None:
    """Raise Unfit for a thought beside a pair: nothing says which answer it led to."""
    if thought_of(given, used):
        raise Unfit("reasoning_content", "a thought beside chosen and rejected: write it into the answer it led to")


def _thought(value: Any) -> str:
    """The text of a thought, or of its parts; "" of a flag ("reasoning": "off")."""
    if isinstance(value, Mapping):
        value = [part for name, part in value.items() if name in (*TEXTS, *CONTENT, "summary") or is_thought(name)]
    if isinstance(value, list):
        return ("\n" if all(isinstance(part, str) for part in value) else "").join(map(_thought, value))
    return value if isinstance(value, str) and _says(value) else ""


def _says(value: Any) -> bool:
    """Whether a value is more than flags and numbers."""
    if isinstance(value, Mapping | list):
        return any(map(_says, value.values() if isinstance(value, Mapping) else value))
    return not is_blank(value) and not isinstance(value, int | float) and str(value).strip().lower() not in FLAGS


def refuse_media(given: Mapping[str, Any]) -> None:
    """Raise Unfit where a record or a message has images, video or audio beside its text."""
    for name in layout_of(given).fields["media"]:  # a number counts them, or says that there are some
        if not is_blank(given[name]) and not isinstance(given[name], int | float):
            raise Unfit("images, video or audio", f"column {name}")


def _parts(content: Any) -> tuple[Any, str]:
    """The text and the thought of a message whose content may be a list of parts."""
    if not isinstance(content, list):
        return content, ""
    texts: list[str] = []
    thoughts: list[str] = []
    for part in content:
        part = {"text": part} if isinstance(part, str) else part if isinstance(part, Mapping) else {}
        refuse_media(part)
        kind = str(part.get("type", "text"))
        text = _thought(part) if is_thought(kind) else part.get("text", part.get(kind, part.get("value")))
        if not (kind in TEXTS or is_thought(kind)) or not isinstance(text, str):
            media = any(word in kind for word in ("image", "video", "audio"))
            raise Unfit("images, video or audio" if media else "content that is no text", f"a part of type {kind!r}")
        (texts if kind in TEXTS else thoughts).append(text)
    return "".join(texts), "".join(thoughts)


def completion(value: Any, thinking: str | None, thought: str = "") -> Any:
    """An answer (a text, a message, or messages that end with it) as a completion in the format `thinking`.

    thought: of an answer that has none of its own. Raises Unfit.
    """
    if not is_chat(value):
        value = value[0] if isinstance(value, list) and len(value) == 1 else value
        if isinstance(value, str) and value.isspace():
            raise Unfit("empty answer", "only white space")
        return written({"content": value, "thought": thought}, thinking)
    messages = chat(value)
    if any(message["role"] == "assistant" for message in messages[:-1]):
        raise Unfit("several answers in one completion", f"of {len(messages)} messages only the last can be one")
    return written({"thought": thought, **answer(messages)}, thinking)


def written(message: Message, thinking: str | None) -> Any:
    """The text of one of our messages, its thought in the format `thinking`, or left out where that has none.

    Raises Unfit.
    """
    text, thought = message["content"], message.get("thought")
    if not thought or not isinstance(text, str):
        return text
    before, held, after = "".join(text.split()).partition("".join(thought.split()))
    if held and before.endswith((">", "]", "▷")) and after.startswith(("<", "[", "◁")):  # it is there, between marks
        return text
    if thinking is None:
        raise Unfit("reasoning_content", "say `thinking: <format>` to keep it as the thought, e.g. think")
    from rewards.errors import RewardError
    from rewards.thinking import thinking as format_of

    try:
        form = format_of(thinking)
        return form.render(thought if form.close else "", text)
    except RewardError as error:
        raise Unfit("the thought does not fit the thinking format", str(error)) from None


def answer(messages: list[Message]) -> Message:
    """The assistant's message at the end. Raises Unfit."""
    if not messages or messages[-1]["role"] != "assistant":
        raise Unfit("the conversation does not end with the assistant")
    return messages[-1]
