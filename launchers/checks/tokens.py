"""Inspects training rows as the trainer tokenises them: which tokens have loss, and rows that must not be trained on.

A trainer's plugin tokenises rows with the trainer's own code, in its environment, and passes them to an Inspection.
Its tokens.json has the same format for every trainer and is shown by `python -m launchers tokens NAME` and the report.
Training does not start if it contains faults. Standard library only: every trainer's environment imports this module.
"""

import json
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

SETTINGS, FILE = "inspect.json", "tokens.json"  # in the folder of the trainer's config
ROWS_CHECKED = 1000  # evenly spread over the file
ROWS_SHOWN = 3
TOKENS_SHOWN = 1500  # of a row
_HEAD = 40  # characters of a completion that are compared with the start of the trained text
_EMPTY_THOUGHTS = ("<think></think>", "</think>")  # as trainers' templates of reasoning models write them
_MESSAGES: dict[str, dict[str, str]] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
Message = Mapping[str, str]
_Marks = tuple[tuple[str, bool], ...]  # (text, is one special token) of each


@dataclass(frozen=True)
class Rendered:
    """Token ids of one row, and which of them have loss."""

    ids: Sequence[int]
    loss: Sequence[bool]

    def spans(self) -> list[list[int]]:
        """The contiguous spans of tokens with loss."""
        runs = groupby(zip(self.ids, self.loss, strict=True), key=lambda pair: bool(pair[1]))
        return [[token for token, _ in run] for trained, run in runs if trained]


@dataclass(frozen=True)
class Vocabulary:
    """The parts of a tokenizer that are needed here. `ends`: the stop tokens of evaluation."""

    decode: Callable[[Sequence[int]], str]
    special: Container[int]
    ends: frozenset[int]
    bos: int | None = None


def spread(rows: int, most: int = ROWS_CHECKED) -> list[int]:
    """Indices of at most `most` evenly spaced rows, including the first ROWS_SHOWN."""
    if rows <= most:
        return list(range(rows))
    step = rows / (most - ROWS_SHOWN)
    return sorted({*range(ROWS_SHOWN), *(int(at * step) for at in range(most - ROWS_SHOWN))})


def settings(folder: Path) -> dict[str, Any]:
    """inspect.json of a training: {trainer, model, online, max_length, thinking, limit, systems}."""
    loaded: dict[str, Any] = json.loads((folder / SETTINGS).read_text())
    return loaded


def print_faults(faults: Sequence[str]) -> int:
    """Print one line per fault; returns the exit status."""
    for fault in faults:
        print(f"error: {fault}", flush=True)
    return 2 if faults else 0


def _texts(chat: Sequence[Message], role: str) -> list[str]:
    return [message["content"] for message in chat if message["role"] == role]


@dataclass(frozen=True)
class _Row:
    """An inspected row: its name in messages, its side of a pair, its chat messages, and the trainer's tokens."""

    name: str
    part: str
    chat: Sequence[Message]
    seen: Rendered

    @property
    def system(self) -> str:
        return next(iter(_texts(self.chat, "system")), "")


@dataclass
class Inspection:
    """Checks rows as a trainer tokenised them. `template`: the trainer's name of its chat template."""

    settings: Mapping[str, Any]
    template: str
    vocabulary: Vocabulary
    rows: int
    counts: Counter[str] = field(default_factory=Counter)
    problems: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # kind to the rows that have it
    notes: dict[str, str] = field(default_factory=dict)
    shown: list[dict[str, Any]] = field(default_factory=list)
    systems: Counter[str] = field(default_factory=Counter)
    compared: int = 0
    chosen: list[list[int]] = field(default_factory=list)  # tokens with loss of the pair's chosen side

    @property
    def compares(self) -> bool:
        """Whether to render the next row with the model's own chat template too (until ROWS_SHOWN are compared)."""
        return self.compared < ROWS_SHOWN

    def add(
        self, row: int, chat: Sequence[Message], seen: Rendered, part: str = "", own: Rendered | None = None
    ) -> None:
        """Check a row as the trainer tokenises it (`own`: with the model's chat template); part: chosen or rejected."""
        checked = _Row(f"row {row + 1}{f' ({part})' if part else ''}", part, chat, seen)
        length, trained, decode = len(seen.ids), sum(map(bool, seen.loss)), self.vocabulary.decode
        if part != "rejected":
            self.systems[checked.system] += 1
        self.counts.update(sequences=1, tokens=length, trained=trained)
        self.counts["longest"] = max(self.counts["longest"], length)
        if self.vocabulary.bos is not None and list(seen.ids[:2]) == [self.vocabulary.bos] * 2:
            self.problems["doubled"].append(checked.name)
        if not self.settings["online"]:
            self._trained(checked)
        elif self.settings["thinking"]:
            self._prefill(decode(seen.ids), checked.name)
        if own is not None and not self._is_full(seen):
            self.compared += 1
            self._compare(checked, own)
        if len(self.shown) < ROWS_SHOWN:
            tokens = list(pieces(seen, self.vocabulary))[:TOKENS_SHOWN]
            self.shown.append({"row": row + 1, "part": part, "length": length, "trained": trained, "tokens": tokens})

    def add_fault(self, message: str) -> None:
        """Add a fault that concerns no single row."""
        if message not in self.problems["other"]:
            self.problems["other"].append(message)

    def add_template_fault(self, chat: Sequence[Message], problem: Exception) -> None:
        """Add the fault that the model's own chat template rejects a row."""
        system = next(iter(_texts(chat, "system")), "")
        hint = f"; it has the system message {system[:60]!r}: move it into the user message" if system else ""
        self.add_fault(f"the chat template of {self.settings['model']!r} rejects a row ({problem}){hint}")

    def _note(self, kind: str, **values: str) -> None:
        self.notes[kind] = _MESSAGES["noted"][kind].format_map(values)

    def _is_full(self, seen: Rendered) -> bool:
        """Whether max_length may have truncated a row."""
        return bool(self.settings["max_length"]) and len(seen.ids) >= self.settings["max_length"]

    def _trained(self, row: _Row) -> None:
        spans, answers = row.seen.spans(), _texts(row.chat, "assistant")
        if not spans:
            self.problems["untrained"].append(row.name)
            return
        texts = [_bare(self.vocabulary.decode(span)) for span in spans]
        cut = self._is_full(row.seen) and _bare(answers[-1]) not in texts[-1]
        self.counts["cut"] += cut
        for trained, answer in zip(texts, answers, strict=False):
            head = _bare(answer)[:_HEAD]
            if not trained.startswith(head[: len(trained)]):
                before = trained.find(head)
                kind = "prompt" if before > 0 or len(spans) < len(answers) else "altered"
                self.problems["empty" if trained[: max(before, 0)] in _EMPTY_THOUGHTS else kind].append(row.name)
                break
        ended = next((token for token in reversed(spans[-1]) if self.vocabulary.decode([token]).strip()), None)
        if not cut and ended not in self.vocabulary.ends:
            self.problems["endless"].append(row.name)
        if row.part == "chosen":
            self.chosen = spans
        elif row.part == "rejected" and spans == self.chosen:
            self.problems["equal"].append(row.name)
        self._thought(row, answers[-1], texts[-1] if cut else None)

    def _thought(self, row: _Row, answer: str, cut: str | None) -> None:
        """Check an answer for the tags of the thinking format; `cut`: its text, if max_length truncated it."""
        thinking = self.settings["thinking"]
        if not thinking:
            if row.part != "rejected" and "</think>" in answer:
                self._note("thinking")
        elif thinking["close"]:
            tags = thinking["tags"][1:] if thinking["prefilled"] else thinking["tags"]
            positions = [answer.find(tag) for tag in tags]
            repeated = any(answer.count(tag) > 1 for tag in thinking["tags"])
            if repeated or -1 in positions or positions != sorted(positions):
                if row.part != "rejected":  # a rejected answer may be malformed
                    self.problems["unformatted"].append(f"{row.name}, {answer[:_HEAD]!r},")
            elif cut is not None and _bare(thinking["close"]) not in cut:
                self.problems["thoughts"].append(row.name)

    def _prefill(self, prompt: str, name: str) -> None:
        thinking = self.settings["thinking"]
        opens = bool(thinking["open"]) and prompt.rstrip().endswith(thinking["open"])
        if opens != bool(thinking["prefilled"]):
            self.problems["prefill"].append(name)

    def _compare(self, row: _Row, own: Rendered) -> None:
        """Compare the row with its rendering by the model's own chat template, which evaluation uses."""
        text = self.vocabulary.decode(row.seen.ids)
        words = " ".join(text.split())
        contents = [message["content"] for message in row.chat]
        if any(_bare(content) in _bare(text) and " ".join(content.split()) not in words for content in contents):
            self.problems["spaces"].append(row.name)
        difference = differences(row.chat, row.seen, own, self.vocabulary)
        if difference and row.name not in self.problems["empty"]:
            self.problems["template"].append(f"{row.name}: {difference}")
        if not self.settings["online"] and not self.problems["spaces"]:
            if (thinking := self.settings["thinking"]) and thinking["close"] and row.part != "rejected":
                self._own_thought(row, own, thinking["close"])
            self._around(row, own)

    def _own_thought(self, row: _Row, own: Rendered, close: str) -> None:
        decode = self.vocabulary.decode
        self._prefill(decode([token for token, loss in zip(own.ids, own.loss, strict=True) if not loss]), row.name)
        written = max(decode(row.seen.ids).count(close), close in row.chat[-1]["content"])
        if decode(own.ids).count(close) < written:
            self.problems["dropped"].append(row.name)

    def _around(self, row: _Row, own: Rendered) -> None:
        """Compare both renderings around the system message, before the question, and between question and answer."""
        texts = [self.vocabulary.decode(rendered.ids) for rendered in (row.seen, own)]
        asked = _texts(row.chat, "user")
        heads = [text.partition(asked[0])[0] for text in texts]
        marks = [_bare(head).rpartition(_bare(row.system)) if row.system else ("", "", "") for head in heads]
        shown = _MESSAGES["noted"]["shown"].format(seen=heads[0][:160], own=heads[1][:160])
        # Some templates write text (such as a date) before the system message; it is not a control token.
        extra = marks[1][0].removeprefix(marks[0][0])
        if marks[0][2] != marks[1][2] or not marks[1][0].startswith(marks[0][0]) or "<|" in extra:
            self.problems["template"].append(f"{row.name}: around the system message {shown}")
        elif heads[0] != heads[1]:
            self._note("head", shown=shown)
        question, answer = asked[-1][-_HEAD:].strip(), row.chat[-1]["content"].strip()[:_HEAD]
        seen_gap, own_gap = (text.rpartition(question)[2].partition(answer)[0] for text in texts)
        if seen_gap != own_gap and _bare(seen_gap) == _bare(own_gap):
            self._note("gap", seen=seen_gap, own=own_gap)

    def faults(self) -> list[str]:
        """Why these rows must not be trained on, one line per fault."""
        thinking, key = self.settings["thinking"] or {}, self.settings["template_key"]
        differing = self.problems.get("template")
        values = {
            "model": self.settings["model"],
            "template": self.template,
            "max_length": self.settings["max_length"],
            "thinking": thinking.get("name"),
            "prompt_ends": "does not end in" if thinking.get("prefilled") else "ends in",
            "ends": " or ".join(sorted(repr(self.vocabulary.decode([token])) for token in self.vocabulary.ends)),
            "share": float(self.settings["limit"]),
        }
        checked, lines = self.counts["sequences"], list(self.problems.get("other", ()))
        for section, share in (("refused", 0.0), ("refused_beyond_a_share", values["share"])):
            for kind, text in _MESSAGES[section].items():
                if len(names := self.problems.get(kind, [])) > share * checked:
                    lines.append(f"{_rows(names, checked)} {text.format_map(values)}")
        if differing:
            hint = f"; {key} names another" if key else ""
            lines.append(f"{_MESSAGES['differing']['template'].format_map(values)}: {differing[0]}{hint}")
        return lines

    def result(self) -> dict[str, Any]:
        """tokens.json."""
        if altered := self.problems.get("altered"):
            self._note("altered", rows=_rows(altered, self.counts["sequences"]))
        asked = [text for text in self.settings["systems"] if text]
        if asked and not self.settings["online"] and not set(self.systems) & set(asked):
            usual = self.systems.most_common(1)[0][0] if self.systems else ""
            self._note("system", usual=usual[:80], asked=asked[0][:80])
        return {
            "trainer": self.settings["trainer"], "model": self.settings["model"], "template": self.template,
            "max_length": self.settings["max_length"], "rows": self.rows, "counts": dict(self.counts),
            "thinking": (self.settings["thinking"] or {}).get("name"),
            "faults": self.faults(), "notes": list(self.notes.values()), "shown": self.shown,
        }  # fmt: skip

    def write(self, folder: Path) -> list[str]:
        """Write tokens.json to a training's folder; returns the faults."""
        result = self.result()
        (folder / FILE).write_text(json.dumps(result, ensure_ascii=False) + "\n")
        return list(result["faults"])


def _rows(names: Sequence[str], of: int) -> str:
    return f"{len(names)} of {of} inspected rows ({names[0]} first)" if len(names) > 1 else names[0]


def _bare(text: str) -> str:
    """A text without white space, which tokenizers may move."""
    return "".join(text.split())


def pieces(seen: Rendered, vocabulary: Vocabulary) -> Iterator[tuple[str, bool, bool]]:
    """(text, has loss, is special) of each token; tokens that form a single character together are one piece."""
    held: list[int] = []
    before: list[int] = []  # decoded without its predecessor, a token may lose its leading space
    for at, (token, loss) in enumerate(zip(seen.ids, seen.loss, strict=True)):
        held.append(token)
        text = vocabulary.decode([*before, *held]).removeprefix(vocabulary.decode(before))
        changes = at + 1 == len(seen.ids) or seen.loss[at + 1] != loss
        if "\ufffd" not in text or len(held) == 4 or changes:
            yield text, bool(loss), token in vocabulary.special
            before, held = held, []


def differences(chat: Sequence[Message], seen: Rendered, own: Rendered, vocabulary: Vocabulary) -> str | None:
    """How the trainer's and the model's own rendering of a row differ in control tokens; None if they agree.

    Compared are the first token, the text between the last question and its answer, and the token that follows the
    answer (any stop token of evaluation is accepted). White space and system messages may differ.
    """
    places = ("at its beginning", "before the answer", "after the answer")
    ends = {(vocabulary.decode([token]).strip(), True) for token in vocabulary.ends}
    for place, trainers, models in zip(
        places, _marks(chat, seen, vocabulary), _marks(chat, own, vocabulary), strict=True
    ):
        ended = place == "after the answer" and (trainers[:1] == models[:1] or ends.issuperset(trainers[:1]))
        if trainers != models and not ended:
            return f"{place} the trainer writes {_shown(trainers)}, the model's own template {_shown(models)}"
    return None


def _shown(marks: _Marks) -> str:
    return " ".join(f"{text}{'' if special else ' as plain text'}" for text, special in marks) or "nothing"


def _marks(chat: Sequence[Message], seen: Rendered, vocabulary: Vocabulary) -> tuple[_Marks, _Marks, _Marks]:
    """BOS, the control text before the last answer, and that after it, each as (text, is one special token)."""
    parts = list(pieces(seen, vocabulary))
    asked = _texts(chat, "user")[-1]
    answer = chat[-1]["content"] if chat[-1]["role"] == "assistant" else ""
    owned = [
        (character, at) for at, (piece, _, _) in enumerate(parts) for character in piece if not character.isspace()
    ]
    text, owner = "".join(character for character, _ in owned), [at for _, at in owned]
    trained = next((at for at, owned in enumerate(owner) if parts[owned][1]), len(text))
    question, tail = _bare(asked)[-_HEAD:], _bare(answer)[-_HEAD:]
    start = text.rfind(question, 0, trained)
    after_question = start + len(question) if start >= 0 else 0
    begin = text.find(_bare(answer)[:_HEAD], after_question) if answer else len(text)
    stop = text.rfind(tail) + len(tail) if answer else len(text)
    first = ((parts[0][0], True),) if parts and parts[0][2] and seen.ids[0] == vocabulary.bos else ()
    before = _between(parts, owner, text, after_question, begin)
    return first, before, _between(parts, owner, text, stop, len(text))


def _between(parts: Sequence[tuple[str, bool, bool]], owner: Sequence[int], text: str, start: int, stop: int) -> _Marks:
    """The special tokens in text[start:stop], and the plain text between them."""
    pieces: list[tuple[str, bool]] = []
    for at in range(start, max(start, stop)):
        piece, _, special = parts[owner[at]]
        if special and (at == start or owner[at] != owner[at - 1]):
            pieces.append((piece.strip(), True))
        elif not special and pieces and not pieces[-1][1]:
            pieces[-1] = (pieces[-1][0] + text[at], False)
        elif not special:
            pieces.append((text[at], False))
    return tuple(pieces)
