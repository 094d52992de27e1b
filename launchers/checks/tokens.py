"""What a trainer sees of its rows: tokens with and without loss, and what must never be trained on.

A trainer's plugin tokenises rows by the trainer's own code, in the trainer's own environment, and hands them to an
Inspection; `python -m launchers tokens NAME` and the report show its tokens.json, the same for every trainer. A
training refuses to start while it holds faults. Standard library only: every trainer's environment imports it.
"""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SETTINGS, FILE = "inspect.json", "tokens.json"  # beside the trainer's config
ROWS_CHECKED = 1000  # evenly spread over the file
ROWS_SHOWN = 3
TOKENS_SHOWN = 1500  # of a row
_HEAD = 40  # characters of a completion that must open what is trained
_EMPTY_THOUGHTS = ("<think></think>", "</think>")  # as reasoning templates of trainers write them
_MESSAGES: dict[str, dict[str, str]] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
Message = Mapping[str, str]


@dataclass(frozen=True)
class Rendered:
    """Token ids of one row, and which of them carry loss."""

    ids: Sequence[int]
    loss: Sequence[bool]

    def spans(self) -> list[list[int]]:
        """The contiguous stretches of tokens with loss."""
        runs: list[list[int]] = []
        before = False
        for token, trained in zip(self.ids, self.loss, strict=True):
            if trained and not before:
                runs.append([])
            if trained:
                runs[-1].append(token)
            before = trained
        return runs


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer as far as it is needed here. `ends`: the tokens at which evaluation stops a completion."""

    decode: Callable[[Sequence[int]], str]
    special: Container[int]
    ends: frozenset[int]
    bos: int | None = None


def spread(rows: int, most: int = ROWS_CHECKED) -> list[int]:
    """Indices of at most `most` rows, evenly spread, the first ones of the file among them."""
    if rows <= most:
        return list(range(rows))
    step = rows / (most - ROWS_SHOWN)
    return sorted({*range(ROWS_SHOWN), *(int(at * step) for at in range(most - ROWS_SHOWN))})


def settings(folder: Path) -> dict[str, Any]:
    """What the launcher says of a training: {trainer, model, online, max_length, thinking, limit, systems}."""
    loaded: dict[str, Any] = json.loads((folder / SETTINGS).read_text())
    return loaded


def tell(faults: Sequence[str]) -> int:
    """Print a line per fault; returns the exit status."""
    for fault in faults:
        print(f"error: {fault}", flush=True)
    return 2 if faults else 0


@dataclass
class Inspection:
    """Collects rows as a trainer tokenised them. `template`: the trainer's name of its template."""

    settings: Mapping[str, Any]
    template: str
    vocabulary: Vocabulary
    rows: int
    counts: Counter[str] = field(default_factory=Counter)
    problems: dict[str, list[str]] = field(default_factory=dict)  # kind to the rows that have it
    notes: dict[str, str] = field(default_factory=dict)
    shown: list[dict[str, Any]] = field(default_factory=list)
    systems: Counter[str] = field(default_factory=Counter)
    compared: int = 0
    chosen: list[list[int]] = field(default_factory=list)  # tokens with loss of the pair's chosen side

    @property
    def compares(self) -> bool:
        """Whether the next row is to be rendered by the model's own template, too: until some whole rows were."""
        return self.compared < ROWS_SHOWN

    def add(
        self, row: int, chat: Sequence[Message], seen: Rendered, part: str = "", own: Rendered | None = None
    ) -> None:
        """One row as the trainer sees it, `part` chosen or rejected; `own`: by the model's own chat template."""
        name = f"row {row + 1}{f' ({part})' if part else ''}"
        if part != "rejected":
            self.systems[next((message["content"] for message in chat if message["role"] == "system"), "")] += 1
        self.counts["sequences"] += 1
        self.counts["tokens"] += len(seen.ids)
        self.counts["trained"] += sum(map(bool, seen.loss))
        self.counts["longest"] = max(self.counts["longest"], len(seen.ids))
        vocabulary = self.vocabulary
        if vocabulary.bos is not None and list(seen.ids[:2]) == [vocabulary.bos] * 2:
            self._problem("doubled", name)
        if not self.settings["online"]:
            self._trained(name, part, chat, seen)
        elif self.settings["thinking"]:
            self._prefill(vocabulary.decode(seen.ids), name)
        if own is not None and not (self.settings["max_length"] and len(seen.ids) >= self.settings["max_length"]):
            self.compared += 1
            self._spaces(chat, vocabulary.decode(seen.ids), name)
            difference = differences(chat, seen, own, vocabulary)
            if difference and name not in self.problems.get("empty", ()):
                self._problem("template", f"{name}: {difference}")
            if not self.settings["online"] and "spaces" not in self.problems:
                self._own(name, part, chat, seen, own)
        if len(self.shown) < ROWS_SHOWN:
            trained = sum(map(bool, seen.loss))
            shown = list(pieces(seen, vocabulary))[:TOKENS_SHOWN]
            self.shown.append(
                {"row": row + 1, "part": part, "length": len(seen.ids), "trained": trained, "tokens": shown}
            )

    def refuse(self, message: str) -> None:
        """A fault of no single row."""
        if message not in self.problems.setdefault("other", []):
            self.problems["other"].append(message)

    def refuse_row(self, chat: Sequence[Message], problem: Exception) -> None:
        """The model's own chat template does not take a row."""
        system = next((message["content"] for message in chat if message["role"] == "system"), None)
        hint = f"; it has the system message {system[:60]!r}: give that in the user's text" if system else ""
        self.refuse(f"the chat template of {self.settings['model']!r} refuses a row ({problem}){hint}")

    def _problem(self, kind: str, name: str) -> None:
        self.problems.setdefault(kind, []).append(name)

    def _trained(self, name: str, part: str, chat: Sequence[Message], seen: Rendered) -> None:
        spans, answers = seen.spans(), [message["content"] for message in chat if message["role"] == "assistant"]
        if not spans:
            self._problem("untrained", name)
            return
        texts = [self.vocabulary.decode(span) for span in spans]
        limit = self.settings["max_length"]
        cut = bool(limit) and len(seen.ids) >= limit and _bare(answers[-1]) not in _bare(texts[-1])
        self.counts["cut"] += cut
        for text, answer in zip(texts, answers, strict=False):
            head, trained = _bare(answer)[:_HEAD], _bare(text)
            if not trained.startswith(head[: len(trained)]):
                before = trained.find(head)
                kind = "prompt" if before > 0 or len(spans) < len(answers) else "altered"
                self._problem("empty" if trained[: max(before, 0)] in _EMPTY_THOUGHTS else kind, name)
                break
        ended = next((token for token in reversed(spans[-1]) if self.vocabulary.decode([token]).strip()), None)
        if not cut and ended not in self.vocabulary.ends:
            self._problem("endless", name)
        if part == "chosen":
            self.chosen = spans
        elif part == "rejected" and spans == self.chosen:
            self._problem("equal", name)
        if thinking := self.settings["thinking"]:
            opened = thinking["prefilled"] or not thinking["open"] or thinking["open"] in answers[-1]
            if thinking["close"] and not (opened and thinking["close"] in answers[-1]):
                if part != "rejected":  # a rejected answer may be malformed
                    self._problem("unformatted", name)
            elif thinking["close"] and cut and _bare(thinking["close"]) not in _bare(texts[-1]):
                self._problem("thoughts", name)
        elif part != "rejected" and "</think>" in answers[-1]:
            self.notes["thinking"] = (
                "completions hold <think> marks and the recipe names no format: set `thinking: think`"
            )

    def _prefill(self, prompt: str, name: str) -> None:
        thinking = self.settings["thinking"]
        opens = bool(thinking["open"]) and prompt.rstrip().endswith(thinking["open"])
        if opens != bool(thinking["prefilled"]):
            self._problem("prefill", name)

    def _spaces(self, chat: Sequence[Message], text: str, name: str) -> None:
        """Whether a row, as text, has its messages' words apart."""
        words = " ".join(text.split())
        for content in (message["content"] for message in chat):
            if _bare(content) in _bare(text) and " ".join(content.split()) not in words:
                self._problem("spaces", name)
                break

    def _own(self, name: str, part: str, chat: Sequence[Message], seen: Rendered, own: Rendered) -> None:
        """What the model's own template, by which evaluation asks, makes of the row besides its marks."""
        decode, thinking = self.vocabulary.decode, self.settings["thinking"]
        text = decode(own.ids)
        if thinking and thinking["close"] and part != "rejected":
            self._prefill(decode([token for token, loss in zip(own.ids, own.loss, strict=True) if not loss]), name)
            written = max(decode(seen.ids).count(thinking["close"]), thinking["close"] in chat[-1]["content"])
            if text.count(thinking["close"]) < written:
                self._problem("dropped", name)
        asked = next(message["content"] for message in chat if message["role"] == "user")
        system = next((message["content"] for message in chat if message["role"] == "system"), "")
        heads = [decode(rendered.ids).partition(asked)[0] for rendered in (seen, own)]
        marks = [_bare(head).rpartition(_bare(system)) if system else ("", "", "") for head in heads]
        shown = f"the trainer writes {heads[0][:160]!r} and the model's own template, by which evaluation "
        shown += f"asks, {heads[1][:160]!r}"
        # What some templates write before a system message (a date, for one) is no mark.
        extra = marks[1][0].removeprefix(marks[0][0])
        if marks[0][2] != marks[1][2] or not marks[1][0].startswith(marks[0][0]) or "<|" in extra:
            self._problem("template", f"{name}: around the system message {shown}")
        elif heads[0] != heads[1]:
            self.notes["head"] = f"before the user's text {shown}"
        question = next(message["content"] for message in reversed(chat) if message["role"] == "user")[-_HEAD:].strip()
        answer = chat[-1]["content"].strip()[:_HEAD]
        gaps = [decode(rendered.ids).rpartition(question)[2].partition(answer)[0] for rendered in (seen, own)]
        if gaps[0] != gaps[1] and _bare(gaps[0]) == _bare(gaps[1]):
            self.notes["gap"] = (
                f"between question and answer the trainer writes {gaps[0]!r} and the model's own template, by which "
                f"evaluation asks, {gaps[1]!r}"
            )

    def faults(self) -> list[str]:
        """Why this must not be trained on, a line each."""
        checked, share, key = self.counts["sequences"], float(self.settings["limit"]), self.settings["template_key"]
        thinking = self.settings["thinking"] or {}
        values = {
            "model": self.settings["model"],
            "template": self.template,
            "max_length": self.settings["max_length"],
            "thinking": thinking.get("name"),
            "prompt_ends": "does not end in" if thinking.get("prefilled") else "ends in",
            "ends": " or ".join(sorted(repr(self.vocabulary.decode([token])) for token in self.vocabulary.ends)),
        }
        counts = [
            f"{_rows(names, checked)} {text.format_map(values)}"
            for kind, text in _MESSAGES["refused"].items()
            if (names := self.problems.get(kind, []))
        ]
        counts += [
            f"{_rows(names, checked)} {text.format_map(values)} (more than limits.thoughts, {share:g})"
            for kind, text in _MESSAGES["refused_beyond_a_share"].items()
            if len(names := self.problems.get(kind, [])) > share * checked
        ]
        if differing := self.problems.get("template"):
            counts.append(
                f"the trainer's template {self.template!r} and the chat template of {self.settings['model']!r} differ: "
                f"{differing[0]}" + (f"; {key} names another" if key else "")
            )
        return [*self.problems.get("other", ()), *counts]

    def result(self) -> dict[str, Any]:
        """tokens.json."""
        notes = dict(self.notes)
        if altered := self.problems.get("altered"):
            notes["altered"] = f"{_rows(altered, self.counts['sequences'])} do not decode to the text that was written"
        asked = [text for text in self.settings["systems"] if text]
        if asked and not self.settings["online"] and not set(self.systems) & set(asked):
            usual = self.systems.most_common(1)[0][0] if self.systems else ""
            notes["system"] = (
                f"rows are trained with the system prompt {usual[:80]!r}, and benchmarks are asked with "
                f"{asked[0][:80]!r}"
            )
        return {
            "trainer": self.settings["trainer"], "model": self.settings["model"], "template": self.template,
            "max_length": self.settings["max_length"], "rows": self.rows, "counts": dict(self.counts),
            "thinking": (self.settings["thinking"] or {}).get("name"),
            "faults": self.faults(), "notes": list(notes.values()), "shown": self.shown,
        }  # fmt: skip

    def write(self, folder: Path) -> list[str]:
        """Leave tokens.json in a training's folder; returns the faults."""
        result = self.result()
        (folder / FILE).write_text(json.dumps(result, ensure_ascii=False) + "\n")
        return list(result["faults"])


def _rows(names: Sequence[str], of: int) -> str:
    return f"{len(names)} of {of} rows looked at ({names[0]} first)" if len(names) > 1 else names[0]


def _bare(text: str) -> str:
    """A text without its white space, which tokenizers move around."""
    return "".join(text.split())


def pieces(seen: Rendered, vocabulary: Vocabulary) -> Iterator[tuple[str, bool, bool]]:
    """(text, has loss, is special) of each token; tokens that make one character only together are one piece."""
    held: list[int] = []
    before: list[int] = []  # what decodes alone may lose the space that it starts with
    for at, (token, loss) in enumerate(zip(seen.ids, seen.loss, strict=True)):
        held.append(token)
        text = vocabulary.decode([*before, *held]).removeprefix(vocabulary.decode(before))
        changes = at + 1 == len(seen.ids) or seen.loss[at + 1] != loss
        if "\ufffd" not in text or len(held) == 4 or changes:
            yield text, bool(loss), token in vocabulary.special
            before, held = held, []


def differences(chat: Sequence[Message], seen: Rendered, own: Rendered, vocabulary: Vocabulary) -> str | None:
    """How the trainer's rendering of a row and the model's own differ in marks and end token; None if they agree.

    Compared are the first token, what stands between the last question and its answer, and the mark that follows the
    answer: any at which evaluation stops will do. White space and system messages may differ.
    """
    ours, own_marks = _marks(chat, seen, vocabulary), _marks(chat, own, vocabulary)
    ends = {(vocabulary.decode([token]).strip(), True) for token in vocabulary.ends}
    for name, trainer_mark, yours in zip(
        ("at its beginning", "before the answer", "after the answer"), ours, own_marks, strict=True
    ):
        ended = name == "after the answer" and (trainer_mark[:1] == yours[:1] or ends.issuperset(trainer_mark[:1]))
        if trainer_mark != yours and not ended:
            return f"{name} the trainer writes {_shown(trainer_mark)}, the model's own template {_shown(yours)}"
    return None


def _shown(marks: tuple[tuple[str, bool], ...]) -> str:
    return " ".join(f"{text}{'' if special else ' as plain text'}" for text, special in marks) or "nothing"


def _marks(chat: Sequence[Message], seen: Rendered, vocabulary: Vocabulary) -> tuple[tuple[tuple[str, bool], ...], ...]:
    """BOS, the marks before the last answer, and those after it, each as (text, is one special token)."""
    parts = list(pieces(seen, vocabulary))
    asked = next(message["content"] for message in reversed(chat) if message["role"] == "user")
    answer = chat[-1]["content"] if chat[-1]["role"] == "assistant" else ""
    text, owner = "", []
    for at, (piece, _, _) in enumerate(parts):
        for character in piece:
            if not character.isspace():
                text += character
                owner.append(at)
    trained = next((at for at, owned in enumerate(owner) if parts[owned][1]), len(text))
    start = text.rfind(_bare(asked)[-_HEAD:], 0, trained)
    after_question = start + len(_bare(asked)[-_HEAD:]) if start >= 0 else 0
    begin = text.find(_bare(answer)[:_HEAD], after_question) if answer else len(text)
    stop = text.rfind(_bare(answer)[-_HEAD:]) + len(_bare(answer)[-_HEAD:]) if answer else len(text)
    first = parts[:1] if parts and parts[0][2] and _is_bos(seen, vocabulary) else []
    before = _between(parts, owner, text, after_question, begin)
    after = _between(parts, owner, text, stop, len(text))
    return tuple((text, special) for text, _, special in first), before, after


def _is_bos(seen: Rendered, vocabulary: Vocabulary) -> bool:
    return bool(seen.ids) and seen.ids[0] == vocabulary.bos


def _between(
    parts: Sequence[tuple[str, bool, bool]], owner: Sequence[int], text: str, start: int, stop: int
) -> tuple[tuple[str, bool], ...]:
    """What stands in a stretch of the text: each special token, and the plain text between them."""
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
