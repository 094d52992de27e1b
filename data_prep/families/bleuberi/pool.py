"""The prompt pool with its reference answers.

- reference_pool: {hub: yapeichang/BLEUBERI-Tulu3-50k, ref_models: [gold]}
- reference_pool: {path: a/folder/or/file, ref_models: [gold, o4-mini-2025-04-16]}

The pool has the original's columns: id, source, messages, optionally prompt, and `ref_output_<model>` for each
reference model. If the column `prompt` or `ref_output_gold` is missing, the first user or assistant message is used; a
null in an existing column drops the row. Instead of `ref_output_gold` a file may have `references` or
`reference`, a text or a list of texts. A row's references are gold, if requested, then the models in
the given order.
"""

from collections.abc import Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from data_prep.core.fingerprint import value_hash
from data_prep.core.step import Context, Drop, Output, Params, Row, Step
from data_prep.errors import DataError, nearest
from data_prep.sources.fetch import hub_records
from data_prep.sources.files import read_records
from data_prep.sources.messages import Unfit, chat
from data_prep.sources.origins import Origin
from data_prep.sources.taking import unique
from data_prep.sources.tasks import Hub
from rewards.text.tokenise import tokens_13a

PREFIX = "ref_output_"
GOLD = "gold"
OWN = ("references", "reference")  # columns of other files
LOOK_AT = 1000  # a column must occur in the first records


class PoolParams(Params):
    """revision: of the data set on the Hub; the original sets none."""

    hub: str | None = Field(None, pattern=r"^[\w.-]+/[\w.-]+$")
    revision: str = "main"
    path: str | None = None
    ref_models: tuple[str, ...] = Field((GOLD,), min_length=1)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.hub is None) == (self.path is None):
            raise ValueError("give one of hub, path")
        if len(set(self.ref_models)) < len(self.ref_models):
            raise ValueError("ref_models: a model is listed twice")
        return self

    @property
    def ordered(self) -> tuple[str, ...]:
        """Gold first, as the original orders references."""
        return tuple(sorted(self.ref_models, key=lambda model: model != GOLD))


class Pool(Step):
    """Source of prompts with `references`; `answer` is the gold one. Rows without a requested reference are dropped."""

    kind = "reference_pool"
    scope = "source"
    unkeyed: ClassVar[tuple[str, ...]] = ("path",)  # the files' content is in the fingerprint
    Params = PoolParams
    params: PoolParams

    def fingerprint(self, base: Path) -> dict[str, Any]:
        """The content of local files, or the name of a Hub data set. Raises DataError if a file is missing."""
        place = self._place(base)
        return {} if isinstance(place, Hub) else {"files": value_hash(Origin("pool", place).identity())}

    def reads(self, base: Path) -> str:
        return self.params.hub or str(self._place(base))

    def _place(self, base: Path) -> Path | Hub:
        given = self.params
        if given.hub:  # `Hub` requires a revision, and the original sets none
            return Hub.model_construct(id=given.hub, revision=given.revision, split="train", config=None, files=())
        path = base / Path(given.path or "").expanduser()
        return path / "train" if (path / "dataset_dict.json").is_file() else path

    def apply(self, rows: Sequence[Row], ctx: Context) -> Output:
        place = self._place(ctx.base)
        records = read_records(place) if isinstance(place, Path) else hub_records(place)
        head = list(islice(records, LOOK_AT))
        columns = {name for record in head if isinstance(record, dict) for name in record}
        self._check(columns)
        seen: dict[str, int] = {}
        for record in chain(head, records):
            made = record if isinstance(record, Drop) else self._row(record, columns)
            yield made if isinstance(made, Drop) else unique(made, seen)

    def _check(self, columns: set[str]) -> None:
        """Raises DataError for a model without a column, listing those that have one."""
        models = sorted(name.removeprefix(PREFIX) for name in columns if name.startswith(PREFIX))
        for model in self.params.ordered:
            if PREFIX + model not in columns and not (model == GOLD and columns & {"messages", *OWN}):
                own = f", {OWN[0]} or {OWN[1]}" if model == GOLD else ""
                there = nearest(model, models) or f"; there are {', '.join(sorted(columns))}"
                raise DataError(f"no column {PREFIX}{model}{own}{there}")

    def _row(self, record: Mapping[str, Any], columns: set[str]) -> Row | Drop:
        row_id = "" if record.get("id") is None else str(record["id"])
        messages = record.get("messages")
        given = record.get("prompt") if "prompt" in columns else messages
        prompt = _text(given) or _first(given, "user")
        if not prompt:
            return Drop("no prompt", row_id, bad=True)
        asked: list[dict[str, Any]] = [{"role": "user", "content": prompt}]
        if isinstance(given, list) and "prompt" in columns:  # a conversation: the reference answers its last message
            try:
                asked = chat(given)
            except Unfit as unfit:
                return Drop(unfit.reason, row_id, unfit.detail, bad=True)
            if asked[-1]["role"] != "user":
                return Drop("prompt does not end with the user", row_id, bad=True)
        golds = _golds(record, columns)
        references: list[str] = []
        for model in self.params.ordered:
            answers = golds if model == GOLD else [_text(record.get(PREFIX + model))]
            if not any(answers):
                return Drop(f"no reference {model}", row_id)
            if not tokens_13a(answers[0]):
                return Drop(f"reference {model} has no word", row_id, repr(answers[0][:20]))
            references += answers
        source = str(record.get("source") or "unknown")
        row: Row = {"id": row_id, "prompt": asked, "references": references, "source": source}
        if golds:
            row["answer"] = golds[0]
        if isinstance(messages, list) and messages != _conversation(prompt, *golds[:1]):
            row["meta"] = {"messages": messages}
        return row


def _text(value: Any) -> str:
    """A column's text; empty if it is null, NaN, blank or not a text."""
    return value if isinstance(value, str) and value.strip() else ""


def _golds(record: Mapping[str, Any], columns: set[str]) -> list[str]:
    """The non-blank gold references: one in the pool, any number in other files."""
    if PREFIX + GOLD in columns:
        given = record.get(PREFIX + GOLD)
    elif own := [name for name in OWN if name in columns]:
        given = record.get(own[0])
    else:
        given = _first(record.get("messages"), "assistant")
    texts = map(_text, given if isinstance(given, list) else [given])
    return [text for text in texts if tokens_13a(text)]


def _first(messages: Any, role: str) -> str:
    """The first message with this role."""
    turns = [turn for turn in messages if isinstance(turn, dict)] if isinstance(messages, list) else []
    return next((_text(turn.get("content")) for turn in turns if turn.get("role") == role), "")


def _conversation(prompt: str, answer: str = "") -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]


def messages_of(row: Row) -> list[dict[str, str]]:
    """A row's messages in the pool's format."""
    kept = row.get("meta", {}).get("messages")
    return kept if isinstance(kept, list) else _conversation(row["prompt"][-1]["content"], row.get("answer", ""))
