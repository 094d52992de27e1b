"""Where the rows of a `load` come from: one origin is a place, and how the records there become rows."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic_core import to_jsonable_python

from data_prep.core.fingerprint import file_hash
from data_prep.core.step import Context, Drop, Row, Step
from data_prep.errors import DataError
from data_prep.sources import benchmarks, tasks
from data_prep.sources.columns import AnswerFrom, Columns, Convert, final_answer, mapped, missing, pick
from data_prep.sources.fetch import fetch, hub_files, hub_records
from data_prep.sources.files import Records, files_of, read_records, suffix
from data_prep.sources.messages import is_blank
from data_prep.sources.names import root
from data_prep.sources.shapes import recognised
from data_prep.sources.tasks import Choices, Hub, Match, Programs, Remote, Unanswered

LOOK_AT = 100  # records that show the columns
LOOK_AT_MOST = 10_000  # where the first ones do not
Place = Path | Hub | Remote | Step


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
        if isinstance(place, Step):
            return place.reads(tasks.ROOT) or f"the step {place.kind}"
        return place.id if isinstance(place, Hub) else place.url if isinstance(place, Remote) else str(place)

    def identity(self) -> dict[str, Any]:
        """What of an origin can change the rows. Raises DataError when a file is missing."""
        facts = {name: value for name, value in vars(self).items() if name not in ("place", "task", "foreign")}
        prompts = {name: prompt_hash(getattr(self, name)) for name in ("system", "instructions")}
        plain: dict[str, Any] = to_jsonable_python({**facts, **prompts, "place": _place_identity(self.place)})
        return plain

    def rows(self, ctx: Context, head: int | None) -> Iterator[Row | Drop]:
        """All rows of the place; `head`: that no more than so many are wanted. Raises DataError."""
        if isinstance(self.place, Step):
            yield from self.place.apply([], ctx)
            return
        records = _records(self.place, ctx.dir.parent / "downloads", head)
        first, sample, convert = self.look(records)
        own = any(not missing(columns, sample) for columns in self.columns)
        for record in chain(first, records):
            if isinstance(record, Drop) or convert is None:
                yield record
            elif all(_matches(pick(record, path), expected) for path, expected in self.filter.items()):
                made = convert(record)
                yield made if isinstance(made, Drop) else self._answered(made, own)
            else:
                yield Drop("filtered out", str(record.get("id", "")))

    def look(self, records: Records) -> tuple[list[dict[str, Any] | Drop], dict[str, Any], Convert | None]:
        """The first records, all their columns with a value of each, and how they become rows, None without any record.

        Where they are all of another shape, more are looked at. Raises DataError where those become no rows either.
        """
        first: list[dict[str, Any] | Drop] = []
        sample: dict[str, Any] = {}
        fault: DataError | None = None
        while (not sample or len(first) <= LOOK_AT_MOST) and (more := list(islice(records, LOOK_AT))):
            first += more
            for record in more:
                if not isinstance(record, Drop):
                    sample.update({name: value for name, value in record.items() if is_blank(sample.get(name))})
            try:
                if sample:
                    return first, sample, self.conversion(sample)
            except DataError as error:
                fault = error
        if fault:
            raise fault
        return first, sample, None

    def names(self) -> list[str]:
        """The columns of a local file's first records, none where a map names those to read."""
        if self.columns or not isinstance(self.place, Path):
            return []
        return list(self.look(read_records(self.place))[1])

    def conversion(self, sample: Mapping[str, Any]) -> Convert:
        """How records of these columns become rows. Raises DataError for columns that are not there."""
        absent = [path for path in self.filter if root(path) not in sample and path not in sample]
        if absent:
            raise DataError(f"{self.name}: filter: no column {', '.join(absent)}; it has: {', '.join(sample)}")
        if form := self.programs or self.choices:
            beside = self.columns[0] if self.columns else {}
            if lacks := benchmarks.missing(form, sample):
                what = self.programs or self.source
                raise DataError(f"{self.name}: {what} has a column {', '.join(lacks)}; this has: {', '.join(sample)}")
            return lambda record: benchmarks.convert(record, form, beside)
        fitting = next((columns for columns in self.columns if not missing(columns, sample)), None)
        if fitting is None and self.columns and not self.foreign:
            fitting = self.columns[0]  # `mapped` names the column that is not there
        if fitting is None:
            return recognised(sample, self.name, self.thinking)
        return mapped(fitting, sample, self.name, self.thinking)

    def _answered(self, row: Row, own: bool) -> Row | Drop:
        """The row with the short answer that stands inside its long one. `own`: its columns are the origin's."""
        if not self.answer_from:
            return row
        answer = final_answer(row, self.answer_from)
        if answer is None and self.foreign and not own:
            answer = row.get("answer")  # a user's file may hold the short answer already
        if answer is None:
            text, bad = str(row.get("answer") or row.get("completion") or ""), self.unanswered == "bad"
            return Drop(f"no {self.answer_from} answer", str(row.get("id", "")), text[-60:], bad=bad)
        return {**row, "answer": answer}


def prompt_hash(name: str | None) -> str | None:
    """Of a file of templates/prompts."""
    return file_hash(tasks.PROMPTS / f"{name}.txt") if name else None


def _place_identity(place: Place) -> Any:
    """Of a file its content; of a folder or glob its files' names and contents. Raises DataError."""
    if isinstance(place, Path):
        paths = files_of(place)
        if paths != [place]:
            return {"files": [[path.name, file_hash(path)] for path in paths]}
        if not place.is_file():
            raise DataError(f"no file {place}")
        return {"sha256": file_hash(place), "suffix": suffix(place)}
    if isinstance(place, Remote):
        return {"pin": place.sha256 or place.git_blob, "suffix": suffix(Path(urlsplit(place.url).path))}
    if isinstance(place, Step):
        params = place.params.model_dump(mode="json", exclude=set(place.unkeyed))
        return {"kind": place.kind, "params": params, **place.fingerprint(tasks.ROOT)}
    return place


def _records(place: Path | Hub | Remote, downloads: Path, head: int | None) -> Records:
    if isinstance(place, Hub) and not place.files:
        yield from hub_records(place, streaming=head is not None)
        return
    paths = hub_files(place) if isinstance(place, Hub) else [place]
    for path in paths:
        yield from read_records(fetch(path, downloads) if isinstance(path, Remote) else path)


def _matches(value: Any, expected: Any) -> bool:
    if isinstance(expected, Match):
        return expected(value)
    return value in expected if isinstance(expected, list | tuple) else bool(value == expected)
