"""Where the rows of a `load` come from: one origin is a place, and how the records there become rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from data_prep.core.fingerprint import file_hash, known_hash
from data_prep.core.step import Drop, Row, Step
from data_prep.errors import DataError
from data_prep.sources import choices, programs, shapes, tasks
from data_prep.sources.fetch import fetch, hub_files, hub_records
from data_prep.sources.files import files_of, read_records, suffix
from data_prep.sources.tasks import (
    AnswerFrom,
    Choices,
    Columns,
    Curriculum,
    Hub,
    Match,
    Programs,
    Questions,
    Remote,
    Unanswered,
)

LOOK_AT = 100  # records that show the columns
Place = Path | Hub | Remote | Curriculum | Questions
Records = Iterator[dict[str, Any] | Drop]


@dataclass(frozen=True)
class Origin:
    """One source, resolved: where its records lie and how they become rows."""

    source: str
    place: Place
    columns: tuple[Columns, ...] = ()  # maps to try; all of a map's columns must be there
    filter: Mapping[str, Any] = field(default_factory=dict)
    answer_from: AnswerFrom | None = None
    unanswered: Unanswered = "bad"
    system: str | None = None
    instructions: str | None = None  # a prompt that stands at the head of the user's message
    programs: Programs | None = None
    choices: Choices | None = None
    task: str = ""  # the one whose rows these are
    thinking: str | None = None  # the format of completions whose thought stands in a field of its own
    foreign: bool = False  # a user's file in place of a task's own: its columns may be named otherwise

    @property
    def name(self) -> str:
        """The place, for a message."""
        place = self.place
        if isinstance(place, Curriculum):
            return "the curriculum"
        if isinstance(place, Questions):
            return place.path
        return place.id if isinstance(place, Hub) else place.url if isinstance(place, Remote) else str(place)

    def identity(self) -> dict[str, Any]:
        """What of an origin can change the rows. Raises DataError when a file is missing."""
        found: dict[str, Any] = {
            "source": self.source,
            "place": _place_identity(self.place),
            "columns": list(self.columns),
            "filter": {
                column: wanted.model_dump(mode="json") if isinstance(wanted, Match) else wanted
                for column, wanted in self.filter.items()
            },
            "answer_from": self.answer_from,
            "system": prompt_hash(self.system),
        }
        rest = {
            "programs": self.programs,
            "choices": self.choices and self.choices.model_dump(mode="json"),
            "instructions": prompt_hash(self.instructions),
            "unanswered": self.unanswered if self.unanswered != "bad" else None,
            "thinking": self.thinking,
        }
        return found | {name: value for name, value in rest.items() if value}


def prompt_hash(name: str | None) -> str | None:
    """Of a file of templates/prompts."""
    return file_hash(tasks.PROMPTS / f"{name}.txt") if name else None


def _place_identity(place: Place) -> dict[str, Any]:
    if isinstance(place, Path):
        return _files_identity(place)
    if isinstance(place, Remote):
        return {"pin": place.sha256 or place.git_blob, "suffix": suffix(Path(urlsplit(place.url).path))}
    if isinstance(place, Questions):
        return {**place.model_dump(exclude={"path"}), **questions_step(place).fingerprint(tasks.ROOT)}
    return place.model_dump(mode="json")


def _files_identity(place: Path) -> dict[str, Any]:
    """Of a file by its content; of a folder or glob by its files' names and contents."""
    if place.is_dir() and (place / "dataset_info.json").is_file():
        paths = sorted(place.glob("*.arrow"))
    else:
        paths = files_of(place)
    if paths == [place]:
        if not place.is_file():
            raise DataError(f"no file {place}")
        return {"sha256": known_hash(place), "suffix": suffix(place)}
    return {"files": [[path.name, known_hash(path)] for path in paths]}


def questions_step(place: Questions) -> Step:
    """The step that reads them."""
    from data_prep.families.skill_mix.steps import questions

    given = {**place.model_dump(), "path": str(tasks.ROOT / place.path)}
    return questions.Questions(questions.QuestionsParams.model_validate(given))


def records(place: Path | Hub | Remote, downloads: Path) -> Records:
    """All records of a place. Raises DataError."""
    if isinstance(place, Hub) and not place.files:
        yield from hub_records(place)
        return
    paths = hub_files(place) if isinstance(place, Hub) else [place]
    for path in paths:
        yield from read_records(fetch(path, downloads) if isinstance(path, Remote) else path)


def converted(found: Records, origin: Origin) -> Iterator[Row | Drop]:
    """Records as rows, by the first column map that fits or by their shape."""
    head, sample = look(found)
    if not sample:
        yield from head
        return
    convert = conversion(sample, origin)
    own = any(shapes.fits(columns, sample) for columns in origin.columns)
    for record in chain(head, found):
        if isinstance(record, Drop):
            yield record
        elif all(_matches(shapes.pick(record, path), wanted) for path, wanted in origin.filter.items()):
            made = convert(record)
            yield made if isinstance(made, Drop) else _answered(made, origin, own)
        else:
            yield Drop("filtered out", str(record.get("id", "")))


def _answered(row: Row, origin: Origin, own: bool) -> Row | Drop:
    """The row with the short answer that stands inside its long one. `own`: its columns are the origin's."""
    if not origin.answer_from:
        return row
    answer = shapes.final_answer(row, origin.answer_from)
    if answer is None and origin.foreign and not own:
        answer = row.get("answer")  # a user's file may hold the short answer already
    if answer is None:
        text = str(row.get("answer") or row.get("completion") or "")
        bad = origin.unanswered == "bad"
        return Drop(f"no {origin.answer_from} answer", str(row.get("id", "")), text[-60:], bad=bad)
    return {**row, "answer": answer}


def look(found: Records) -> tuple[list[dict[str, Any] | Drop], dict[str, Any]]:
    """The first records, and all their columns with a value of each: any single one may lack some."""
    head: list[dict[str, Any] | Drop] = []
    sample: dict[str, Any] = {}
    looked = 0
    for record in found:
        head.append(record)
        if isinstance(record, Drop):
            continue
        sample.update({name: value for name, value in record.items() if sample.get(name) in (None, [], "")})
        looked += 1
        if looked == LOOK_AT:
            break
    return head, sample


def conversion(sample: Mapping[str, Any], origin: Origin) -> Callable[[Mapping[str, Any]], Row | Drop]:
    """How records of these columns become rows. Raises DataError for columns that are not there."""
    where = origin.name
    absent = [path for path in origin.filter if shapes.root(path) not in sample and path not in sample]
    if absent:
        raise DataError(f"{where}: filter: no column {', '.join(absent)}; it has: {', '.join(sample)}")
    if kind := origin.programs:
        if lacks := programs.missing(kind, sample):
            raise DataError(f"{where}: {kind} has a column {', '.join(lacks)}; this has: {', '.join(sample)}")
        return lambda record: programs.convert(record, kind)
    if asked := origin.choices:
        beside = origin.columns[0] if origin.columns else {}
        if lacks := choices.missing(asked, sample):
            raise DataError(f"{where}: {origin.source} has a column {', '.join(lacks)}; this has: {', '.join(sample)}")
        return lambda record: choices.convert(record, asked, beside)
    for columns in origin.columns:
        if shapes.fits(columns, sample):
            return shapes.mapped(columns, sample, where)
    if origin.columns and not origin.foreign:
        return shapes.mapped(origin.columns[0], sample, where)  # says which column is not there
    return shapes.recognised(sample, where, origin.thinking)


def _matches(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, Match):
        return wanted(value)
    return value in wanted if isinstance(wanted, list | tuple) else bool(value == wanted)
