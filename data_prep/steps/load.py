"""Rows from a local file, a Hub dataset, a pinned URL, or the tasks of `configs/tasks`.

- load: {path: rows.jsonl}
- load: {hub: openai/gsm8k, config: main, split: train, revision: <40 hex digits>, answer_from: gsm8k}
- load: {path: rows.jsonl, check_gold: {name: math}}
- load: {tasks: [gsm8k, amc23], paths: {gsm8k: GSM8k.jsonl}}
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

import rewards
from data_prep import tasks
from data_prep.errors import DataError
from data_prep.fetch import Unreachable, fetch, hub_records
from data_prep.fingerprint import file_hash
from data_prep.rows import MAX_TEXT_BYTES, check, check_size, content_id
from data_prep.step import Context, Drop, Output, Params, Row, Step
from data_prep.steps import programs, shapes
from data_prep.steps.curriculum import Curriculum as CurriculumStep
from data_prep.steps.files import SUFFIXES, read_records
from data_prep.tasks import AnswerFrom, Columns, Curriculum, Hub, Programs, Questions, Remote, Reward, Scalar

NEEDS = ("prompt",)
LOOK_AT = 100  # records that show the columns


class LoadParams(Params):
    """One source: `path`, `hub`, `url`, `task` or `tasks`; the rest says what of it becomes rows."""

    path: str | None = None
    hub: str | None = Field(None, pattern=r"^[\w.-]+/[\w.-]+$")
    revision: str | None = Field(None, pattern=r"^[0-9a-f]{40}$")
    split: str = "train"
    config: str | None = None
    url: str | None = None
    sha256: str | None = None
    git_blob: str | None = None
    task: str | None = None
    tasks: tuple[str, ...] = ()
    paths: dict[str, str] = Field(default_factory=dict)  # task -> local file to read in its place
    mirror: bool = False  # read tasks from their mirror instead of the Hub
    source: str | None = None
    columns: Columns = Field(default_factory=dict)
    filter: dict[str, Scalar | tuple[Scalar, ...]] = Field(default_factory=dict)  # column -> value or values
    answer_from: AnswerFrom | None = None
    system: str | None = None  # a file of templates/prompts
    limit: int | None = Field(None, ge=1)  # rows per source: the first ones, or with a seed a sample
    seed: int | None = None
    check_gold: Reward | None = None  # a reward that must give each row's own gold full marks
    max_text_bytes: int = Field(MAX_TEXT_BYTES, ge=1)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("path", "hub", "url", "task", "tasks") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(f"give one of path, hub, url, task, tasks; found {' and '.join(given) or 'none'}")
        if self.hub and not self.revision:
            raise ValueError("pin the dataset: `revision: <40 hex digits>`, the commit shown on its Hub page")
        if self.url:
            Remote(url=self.url, sha256=self.sha256, git_blob=self.git_blob)
        for name in self.paths:
            if name not in self.names:
                raise ValueError(f"paths: {name!r} is not among the tasks")
        return self

    @field_validator("task")
    @classmethod
    def _known_task(cls, value: str | None) -> str | None:
        return value if value is None else tasks.known(value)

    @field_validator("tasks")
    @classmethod
    def _known_tasks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(tasks.known(name) for name in value)

    @field_validator("system")
    @classmethod
    def _known_system(cls, value: str | None) -> str | None:
        return value if value is None else tasks.known_prompt(value)

    @field_validator("columns")
    @classmethod
    def _known_targets(cls, value: Columns) -> Columns:
        shapes.check_columns(value)
        return value

    @property
    def names(self) -> tuple[str, ...]:
        """The tasks to load."""
        return (self.task,) if self.task else self.tasks


Place = Path | Hub | Remote | Curriculum | Questions


@dataclass(frozen=True)
class Origin:
    """One source, resolved: where its records lie and how they become rows."""

    source: str
    place: Place
    columns: tuple[Columns, ...] = ()  # maps to try; all of a map's columns must be there
    filter: Mapping[str, Any] = field(default_factory=dict)
    answer_from: AnswerFrom | None = None
    system: str | None = None
    programs: Programs | None = None
    foreign: bool = False  # a user's file in place of a task's own: its columns may be named otherwise


class Load(Step):
    """Source of rows from files, the Hub, URLs and tasks."""

    kind = "load"
    scope = "source"
    uses: ClassVar[tuple[str, ...]] = (
        "data_prep.rows",
        "data_prep.steps.shapes",
        "data_prep.steps.files",
        "data_prep.steps.programs",
        "data_prep.steps.curriculum",
        "data_prep.mini.curriculum",
        "data_prep.mini.functions",
        "data_prep.steps.questions",
        "data_prep.skill_mix.questions",
        "data_prep.skill_mix.cases",
        "data_prep.skill_mix.signatures",
        "data_prep.skill_mix.prompts",
        "data_prep.skill_mix.skills",
        "rewards.extract",
        "rewards.programs.tests",
    )
    # Origins are in the fingerprint, files by their content: moving a file changes nothing.
    unkeyed: ClassVar[tuple[str, ...]] = ("path", "paths", "mirror", "url", "task", "tasks")
    growth = 2.0
    Params = LoadParams
    params: LoadParams

    def fingerprint(self, base: Path) -> dict[str, Any]:
        """Each origin by its content or its pin. Raises DataError when a file is missing."""
        origins: dict[str, Any] = {"origins": [_identity(origin) for origin in self.origins(base)]}
        return {**origins, "rewards": rewards.code_hash()} if self.params.check_gold else origins

    def reads(self, base: Path) -> str:
        """The files and other origins, by name."""
        return ", ".join(_name(origin.place) for origin in self.origins(base))

    def peek(self, base: Path) -> None:
        """Look at the first records of local files. Raises DataError where they cannot become rows."""
        for origin in self.origins(base):
            if isinstance(origin.place, Path):
                _, sample = _look(read_records(origin.place))
                if not sample:
                    raise DataError(f"{_name(origin.place)} holds no records", "load")
                _conversion(sample, origin, _name(origin.place))

    def source_bytes(self, base: Path) -> int:
        """Size of the local files."""
        paths = (origin.place for origin in self.origins(base) if isinstance(origin.place, Path))
        return sum(path.stat().st_size for path in paths)

    def origins(self, base: Path) -> list[Origin]:
        """What the parameters name, tasks resolved. Raises DataError."""
        if self.params.names:
            return [self._task_origin(name, base) for name in self.params.names]
        given = self.params
        place: Path | Hub | Remote
        if given.path:
            place, source = base / given.path, Path(given.path).stem
        elif given.hub:
            place = Hub(id=given.hub, revision=str(given.revision), split=given.split, config=given.config)
            source = given.hub
        else:
            assert given.url is not None
            place = Remote(url=given.url, sha256=given.sha256, git_blob=given.git_blob)
            source = Path(urlsplit(given.url).path).stem
        columns = (given.columns,) if given.columns else ()
        return [Origin(given.source or source, place, columns, given.filter, given.answer_from, given.system)]

    def _task_origin(self, name: str, base: Path) -> Origin:
        task, given = tasks.read(name), self.params
        columns = tuple(one for one in (task.columns, task.mirror and task.mirror.columns) if one)
        place: Place | None = task.curriculum or task.hub or task.questions
        if name in given.paths:
            place = base / given.paths[name]
            place = task.questions.model_copy(update={"path": str(place)}) if task.questions else place
        elif given.mirror:
            place = task.mirror or place
        assert place is not None
        return Origin(
            source=given.source or name,
            place=place,
            columns=(given.columns,) if given.columns else columns,
            filter=given.filter or task.filter,
            answer_from=given.answer_from or task.answer_from,
            system=given.system or task.system,
            programs=task.programs,
            foreign=name in given.paths and not given.columns,
        )

    def apply(self, rows: Sequence[Row], ctx: Context) -> Output:
        """All origins' rows, one after the other; `rows` is empty."""
        seen: dict[str, int] = {}
        for origin in self.origins(ctx.base):
            made = self._rows(origin, ctx)
            for output in _limited(made, self.params.limit, self.params.seed):
                yield output if isinstance(output, Drop) else _unique(output, seen)

    def _rows(self, origin: Origin, ctx: Context) -> Iterator[Row | Drop]:
        place = origin.place
        if isinstance(place, Curriculum):
            made: Iterable[Row | Drop] = CurriculumStep(place).apply([], ctx)
        elif isinstance(place, Questions):
            made = _questions(place).apply([], ctx)
        else:
            made = _converted(self._records(place, ctx), origin, _name(place))
        render = _system(origin.system)
        fault = _gold_check(self.params.check_gold)
        for output in made:
            done = output if isinstance(output, Drop) else self._finished(output, origin, render)
            yield done if isinstance(done, Drop) else fault(done) or done

    def _records(self, place: Path | Hub | Remote, ctx: Context) -> Iterator[dict[str, Any] | Drop]:
        try:
            if isinstance(place, Hub):
                yield from hub_records(place)
            else:
                yield from read_records(fetch(place, ctx.downloads) if isinstance(place, Remote) else place)
        except Unreachable as error:
            raise DataError(f"{error}; {self._elsewhere()}") from error

    def _elsewhere(self) -> str:
        if not self.params.names:
            return "download it where there is a network, and give its `path`"
        mirror = "" if self.params.mirror else "`mirror: true`, or "
        return f"try {mirror}`paths: {{{self.params.names[0]}: <local file>}}`"

    def _finished(self, row: Row, origin: Origin, render: Callable[[Row], str] | None) -> Row | Drop:
        given = row.get("id")
        if self.params.names and isinstance(given, str) and not given.startswith(f"{origin.source}/"):
            row["id"] = f"{origin.source}/{given}"  # tasks number their problems alike
        named = self.params.names or self.params.source
        row["source"] = origin.source if named else row.get("source") or origin.source
        if origin.answer_from:
            answer = shapes.final_answer(row, origin.answer_from)
            if answer is None and origin.foreign:
                answer = row.get("answer")  # a user's file may hold the short answer already
            if answer is None:
                text = str(row.get("answer") or row.get("completion") or "")
                return Drop(f"no {origin.answer_from} answer", str(row.get("id", "")), text[-60:], bad=True)
            row["answer"] = answer
        if fault := check(row, NEEDS) or check_size(row, self.params.max_text_bytes):
            return fault
        if render and row["prompt"][0]["role"] != "system":
            row["prompt"] = [{"role": "system", "content": render(row)}, *row["prompt"]]
        return row


def _identity(origin: Origin) -> dict[str, Any]:
    """What of an origin can change the rows."""
    place = origin.place
    if isinstance(place, Path):
        if place.is_dir():
            raise DataError(f"{place} is a folder; name a file")
        if not place.is_file():
            raise DataError(f"no file {place}")
        where: dict[str, Any] = {"sha256": file_hash(place), "suffix": _suffix(place)}
    elif isinstance(place, Remote):
        where = {"pin": place.sha256 or place.git_blob, "suffix": _suffix(Path(urlsplit(place.url).path))}
    elif isinstance(place, Questions):
        where = {**place.model_dump(exclude={"path"}), **_questions(place).fingerprint(tasks.ROOT)}
    else:
        where = place.model_dump(mode="json")
    prompt = file_hash(tasks.PROMPTS / f"{origin.system}.txt") if origin.system else None
    return {
        "source": origin.source,
        "place": where,
        "columns": list(origin.columns),
        "filter": dict(origin.filter),
        "answer_from": origin.answer_from,
        "system": prompt,
        **({"programs": origin.programs} if origin.programs else {}),
    }


def _name(place: Place) -> str:
    if isinstance(place, Curriculum):
        return "the curriculum"
    if isinstance(place, Questions):
        return place.path
    return place.id if isinstance(place, Hub) else place.url if isinstance(place, Remote) else str(place)


def _questions(place: Questions) -> Step:
    """The step that reads them."""
    from data_prep.steps import questions

    given = {**place.model_dump(), "path": str(tasks.ROOT / place.path)}
    return questions.Questions(questions.QuestionsParams.model_validate(given))


def _suffix(path: Path) -> str:
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path}: rows are read from {', '.join(sorted(SUFFIXES))}, not {path.suffix or 'this'!r}")
    return path.suffix


def _converted(records: Iterator[dict[str, Any] | Drop], origin: Origin, where: str) -> Iterator[Row | Drop]:
    """Records as rows, by the first column map that fits or by their shape."""
    head, sample = _look(records)
    if not sample:
        yield from head
        return
    convert = _conversion(sample, origin, where)
    for record in chain(head, records):
        if isinstance(record, Drop):
            yield record
        elif all(_matches(shapes.pick(record, path), wanted) for path, wanted in origin.filter.items()):
            yield convert(record)
        else:
            yield Drop("filtered out", str(record.get("id", "")))


def _look(records: Iterator[dict[str, Any] | Drop]) -> tuple[list[dict[str, Any] | Drop], dict[str, Any]]:
    """The first records, and all their columns with a value of each: any single one may lack some."""
    head: list[dict[str, Any] | Drop] = []
    sample: dict[str, Any] = {}
    looked = 0
    for record in records:
        head.append(record)
        if isinstance(record, Drop):
            continue
        sample.update({name: value for name, value in record.items() if sample.get(name) is None})
        looked += 1
        if looked == LOOK_AT:
            break
    return head, sample


def _conversion(sample: Mapping[str, Any], origin: Origin, where: str) -> shapes.Convert:
    absent = [path for path in origin.filter if shapes.root(path) not in sample and path not in sample]
    if absent:
        raise DataError(f"{where}: filter: no column {', '.join(absent)}; it has: {', '.join(sample)}")
    if kind := origin.programs:
        if lacks := programs.missing(kind, sample):
            raise DataError(f"{where}: {kind} has a column {', '.join(lacks)}; this has: {', '.join(sample)}")
        return lambda record: programs.convert(record, kind)
    for columns in origin.columns:
        if shapes.fits(columns, sample):
            return shapes.mapped(columns, sample, where)
    if origin.columns and not origin.foreign:
        return shapes.mapped(origin.columns[0], sample, where)  # says which column is not there
    return shapes.recognised(sample, where)


def _matches(value: Any, wanted: Any) -> bool:
    return value in wanted if isinstance(wanted, list | tuple) else bool(value == wanted)


def _gold_check(reward: Reward | None) -> Callable[[Row], Drop | None]:
    """What is wrong with a row's gold by `reward`; a gold that does not equal itself can only mislead."""
    if reward is None:
        return lambda row: None
    grader = rewards.load(reward.name, **reward.params)

    def fault(row: Row) -> Drop | None:
        _, problem = grader.check_gold(row)
        return Drop("gold does not equal itself", str(row.get("id", "")), problem, bad=True) if problem else None

    return fault


def _system(name: str | None) -> Callable[[Row], str] | None:
    """Renders a system prompt with the row's `source` and `meta`, in Jinja's sandbox."""
    if name is None:
        return None
    from jinja2 import StrictUndefined
    from jinja2.exceptions import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    path = tasks.PROMPTS / f"{name}.txt"
    try:
        template = ImmutableSandboxedEnvironment(undefined=StrictUndefined).from_string(path.read_text("utf-8"))
    except TemplateError as error:
        raise DataError(f"{path}: {error}") from error

    def render(row: Row) -> str:
        try:
            return template.render(source=row["source"], meta=row.get("meta", {})).strip()
        except TemplateError as error:
            raise DataError(f"{path}: {error}") from error

    return render


def _limited(rows: Iterator[Row | Drop], limit: int | None, seed: int | None) -> Iterator[Row | Drop]:
    """The first `limit` rows, or with a seed a sample of them in their order; the rest as drops."""
    if limit is None:
        yield from rows
        return
    if seed is not None:
        every = list(rows)
        ranks = [(_rank(seed, row), index) for index, row in enumerate(every) if not isinstance(row, Drop)]
        chosen = {index for _, index in islice(sorted(ranks), limit)}
        for index, row in enumerate(every):
            if isinstance(row, Drop) or index in chosen:
                yield row
            else:
                yield Drop("beyond limit", str(row.get("id", "")))
        return
    taken = 0
    for row in rows:
        if isinstance(row, Drop) or taken < limit:
            taken += not isinstance(row, Drop)
            yield row
        else:
            yield Drop("beyond limit", str(row.get("id", "")))


def _rank(seed: int, row: Row | Drop) -> str:
    assert not isinstance(row, Drop)
    return hashlib.sha256(f"{seed}:{content_id(row)}".encode()).hexdigest()


def _unique(row: Row, seen: dict[str, int]) -> Row:
    """The row with its id first, made from its content if absent; ids that come again get `-2`, `-3` …"""
    given = row.get("id") or content_id(row)
    times = seen[given] = seen.get(given, 0) + 1
    row.pop("id", None)
    return {"id": given if times == 1 else f"{given}-{times}", **row}
