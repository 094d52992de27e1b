"""Rows from a local file, a Hub dataset, a pinned URL, or the tasks of `configs/tasks`.

- load: {path: rows.jsonl}
- load: {hub: openai/gsm8k, config: main, split: train, revision: <40 hex digits>, answer_from: gsm8k}
- load: {path: rows.jsonl, check_gold: {name: math}}
- load: {tasks: [gsm8k, amc23], paths: {gsm8k: GSM8k.jsonl}}
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

import rewards
from data_prep.core.manifest import counts_line
from data_prep.core.rows import FIELDS, check, check_size, without
from data_prep.core.step import Context, Drop, Output, Params, Row, Step
from data_prep.errors import DataError
from data_prep.inference import prompts
from data_prep.sources import tasks
from data_prep.sources.columns import AnswerFrom, ColumnMap
from data_prep.sources.fetch import Unreachable
from data_prep.sources.files import files_of, read_records
from data_prep.sources.names import layout_of
from data_prep.sources.origins import Origin, Place
from data_prep.sources.taking import limited, unique
from data_prep.sources.tasks import Hub, Match, PromptName, Remote, Reward, Scalar, TaskName, TaskNames, Unanswered
from data_prep.steps.export import Export

Heads = tuple[prompts.Head | None, prompts.Head | None]  # system prompt and instructions
NO_TASK = tasks.Task.model_construct()
FIRST = 100  # records that a preview shows
SHOWN = 30  # columns that it names
MAX_TEST_BYTES = 64_000_000  # of one input or output of a program's tests: contest inputs have megabytes


class LoadParams(Params):
    """One source: `path`, `hub`, `url`, `task` or `tasks`; the rest says what of it becomes rows."""

    path: str | None = None
    hub: str | None = Field(None, pattern=r"^[\w.-]+/[\w.-]+$")
    revision: str | None = Field(None, pattern=r"^([0-9a-f]{40}|main)$")  # main floats: its rows may change
    split: str | None = None  # of a Hub's data set; by default train
    config: str | None = None
    files: tuple[str, ...] = ()  # of the Hub's repository, names or globs, in place of a split
    url: str | None = None
    sha256: str | None = None
    git_blob: str | None = None
    task: TaskName = None
    tasks: TaskNames = ()
    paths: dict[str, str] = Field(default_factory=dict)  # task -> local file to read in its place
    mirror: bool = False  # read tasks from their mirror instead of the Hub
    thinking: str | None = None  # format of rows with a thought (`reasoning_content`, `thought`); null drops them
    source: str | None = None
    note: str | None = None  # for people, shown by `plan`: where the rows are from, what they cost or save
    id_prefix: str | None = None  # put before the rows' own ids; those of tasks have the task's name
    columns: ColumnMap = Field(default_factory=dict)
    filter: dict[str, Scalar | tuple[Scalar, ...] | Match] = Field(default_factory=dict)  # column -> value or values
    answer_from: AnswerFrom | None = None
    unanswered: Unanswered | None = None  # what a row without that answer is; by default bad
    system: PromptName = None  # a file of templates/prompts
    instructions: Literal["system", "user"] = "system"  # where a task's own prompt stands
    limit: int | None = Field(None, ge=1)  # rows per source: the first ones, or with a seed a sample
    seed: int | None = None
    check_gold: Reward | None = None  # a reward that must give each row's own gold full marks

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("path", "hub", "url", "task", "tasks") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(f"give one of path, hub, url, task, tasks; found {' and '.join(given) or 'none'}")
        if self.instructions == "user" and not self.names:
            raise ValueError("instructions: only a task has a prompt of its own to put there; say `task` or `tasks`")
        if self.hub and not self.revision:
            raise ValueError("pin the dataset: `revision: <40 hex digits>`, the commit on its Hub page; main moves")
        if self.hub:
            tasks.check_part(self.part, self.config, self.files)
        if self.url:
            Remote(url=self.url, sha256=self.sha256, git_blob=self.git_blob)
        for name in self.paths:
            if name not in self.names:
                raise ValueError(f"paths: {name!r} is not among the tasks")
        return self

    @property
    def part(self) -> str | None:
        """The split of a Hub's data set, where no files are named."""
        return self.split or (None if self.files else "train")

    @property
    def names(self) -> tuple[str, ...]:
        """The tasks to load."""
        return (self.task,) if self.task else self.tasks


class Load(Step[LoadParams]):
    """Source of rows from files, the Hub, URLs and tasks."""

    kind = "load"
    scope = "source"
    # Origins are in the fingerprint, files by their content: moving a file changes nothing.
    unkeyed: ClassVar[tuple[str, ...]] = ("path", "paths", "mirror", "url", "task", "tasks", "note")
    growth = 2.0

    def __init__(self, params: LoadParams) -> None:
        super().__init__(params)
        if any(tasks.read(name).programs for name in params.names):
            self.shard_rows = 50  # a shard is held in memory, and a contest's tests can have 50 MB a row

    def fingerprint(self, base: Path) -> dict[str, Any]:
        """Each origin by its content or its pin. Raises DataError when a file is missing."""
        return {"origins": [origin.identity() for origin in self.origins(base)]}

    def modules(self) -> tuple[str, ...]:
        """Those of the steps that make a task's rows, and the grader's, where reference answers are checked."""
        made = [task.made() for name in self.params.names if (task := tasks.read(name)).step]
        steps = [module for step in made for module in (type(step).__module__, *step.modules())]
        graders = rewards.REGISTRY.values() if self.params.check_gold else ()
        return (*dict.fromkeys(steps), *(place.partition(":")[0] for place in graders))

    def reads(self, base: Path) -> str:
        return ", ".join(origin.name for origin in self.origins(base))

    def peek(self, base: Path) -> None:
        """Look at the first records of local files. Raises DataError where they cannot become rows."""
        for origin in self.origins(base):
            if not isinstance(origin.place, Path):
                continue
            first, _, convert = origin.look(read_records(origin.place))
            if convert is None:
                drop = first[0] if first else None  # all are drops, or there are none
                why = f": {drop.row_id}: {drop.reason} ({drop.detail})" if isinstance(drop, Drop) else ""
                raise DataError(f"{origin.name} holds no records{why}", "load")

    def preview(self, base: Path, export: Export | None = None) -> str:
        """What the first records of local files become: rows that `export` writes, their fields, and drops by reason.

        Raises DataError where none becomes a row.
        """
        local = [origin for origin in self.origins(base) if isinstance(origin.place, Path)]
        ctx = Context(dir=base, base=base)
        outputs = [output for origin in local for output in islice(self._rows(origin, ctx), FIRST)]
        if export:
            seen: dict[str, int] = {}
            prompts: dict[str, bytes] = {}
            for at, row in enumerate(outputs):
                if not isinstance(row, Drop):
                    outputs[at] = export.fault(unique(dict(row), seen), prompts) or row
        if not outputs:
            raise DataError(f"{self.reads(base)} holds no records")
        rows = [output for output in outputs if not isinstance(output, Drop)]
        drops = [output for output in outputs if isinstance(output, Drop)]
        dropped = f"; dropped: {counts_line(Counter(drop.reason for drop in drops))}" if drops else ""
        names = [name for origin in local for name in origin.names()]
        unread = layout_of(dict.fromkeys(names)).unread
        ignored = f"; columns not read: {_listed(unread)}" if unread else ""
        if all(drop.bad for drop in drops) and not rows:
            detail = next((f" ({drop.detail})" for drop in drops if drop.detail), "")
            found = f"; its columns: {_listed(names)}" if names else ""
            none = f"none of the first {len(outputs):,} records becomes a row"
            raise DataError(f"{self.reads(base)}: {none}{dropped}{detail}{found}{ignored}")
        fields = ", ".join(name for name in FIELDS if any(name in row for row in rows))
        written = f"{len(rows):,} become rows" + (f" with {fields}" if rows else "")
        return f"of the first {len(outputs):,} records {written}{dropped}{ignored}"

    def source_bytes(self, base: Path) -> int:
        paths = (origin.place for origin in self.origins(base) if isinstance(origin.place, Path))
        return sum(file.stat().st_size for path in paths for file in files_of(path))

    def origins(self, base: Path) -> list[Origin]:
        """What the parameters name, tasks resolved. Raises DataError."""
        return [self._origin(name, base) for name in self.params.names or (None,)]

    def _origin(self, name: str | None, base: Path) -> Origin:
        given, task = self.params, tasks.read(name) if name else NO_TASK
        local = base / given.paths[name] if name in given.paths else None
        place, source = (_place(task, local, given.mirror), name) if name else self._own_place(base)
        maps = (given.columns,) if given.columns else (task.columns, task.mirror and task.mirror.columns)
        above = given.instructions == "user"
        return Origin(
            source=given.source or str(source),
            place=place,
            columns=tuple(columns for columns in maps if columns),
            filter=given.filter or task.filter,
            answer_from=given.answer_from or task.answer_from,
            unanswered=given.unanswered or task.unanswered,
            system=given.system or (None if above else task.system),
            instructions=task.system if above and task.system != given.system else None,
            programs=task.programs,
            choices=task.choices,
            task=name or "",
            thinking=None if name else given.thinking,
            foreign=local is not None and not given.columns,
        )

    def _own_place(self, base: Path) -> tuple[Place, str]:
        """The path, Hub id or URL, and the source that its rows are of."""
        given = self.params
        if given.path:
            return base / Path(given.path).expanduser(), Path(given.path).stem
        if given.hub:
            part = {"split": given.part, "config": given.config, "files": given.files}
            return Hub.model_validate({"id": given.hub, "revision": given.revision, **part}), given.hub
        remote = Remote(url=str(given.url), sha256=given.sha256, git_blob=given.git_blob)
        return remote, Path(urlsplit(remote.url).path).stem

    def apply(self, rows: Sequence[Row], ctx: Context) -> Output:
        """All origins' rows, one after the other; `rows` is empty."""
        seen: dict[str, int] = {}
        for origin in self.origins(ctx.base):
            made = self._rows(origin, ctx)
            for output in limited(made, self.params.limit, self.params.seed):
                yield output if isinstance(output, Drop) else unique(output, seen)

    def _rows(self, origin: Origin, ctx: Context) -> Iterator[Row | Drop]:
        heads = prompts.head(origin.system), prompts.head(origin.instructions)
        reward = self.params.check_gold
        grader = rewards.load(reward.name, **reward.params) if reward else None
        try:
            for output in origin.rows(ctx, self.params.limit if self.params.seed is None else None):
                yield output if isinstance(output, Drop) else self._finished(output, origin, heads, grader)
        except Unreachable as error:
            raise DataError(f"{error}; {self._elsewhere(origin.task)}") from error

    def _elsewhere(self, task: str) -> str:
        advice = "download it where there is a network, and give its"
        if not task:
            return f"{advice} `path`"
        if self.params.mirror or not tasks.read(task).mirror:
            return f"{advice} file: `paths: {{{task}: <local file>}}`"
        return f"try `mirror: true`, or `paths: {{{task}: <local file>}}`"

    def _finished(self, row: Row, origin: Origin, heads: Heads, grader: rewards.Reward | None) -> Row | Drop:
        given = row.get("id")
        named = self.params.names or self.params.source
        row["source"] = origin.source if named else row.get("source") or origin.source
        prefix = origin.source if self.params.names else self.params.id_prefix
        if prefix and isinstance(given, str) and not given.startswith(f"{prefix}/"):
            row["id"] = f"{prefix}/{given}"  # sources number their rows alike
        if fault := check(row, ("prompt",)) or _too_long(row):
            return fault
        prompts.put(row, *heads)
        if grader and (problem := grader.gold_problem(row)):
            return Drop("reference answer fails its own grader", str(row.get("id", "")), problem, bad=True)
        return row


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _too_long(row: Row) -> Drop | None:
    """The drop of a row with a string that is too long; a program's tests may have longer ones."""
    if "tests" not in row:
        return check_size(row)
    tests = {"id": row.get("id", ""), "tests": row["tests"]}
    return check_size(without(row, ("tests",))) or check_size(tests, MAX_TEST_BYTES)


def _place(task: tasks.Task, local: Path | None, mirror: bool) -> Place:
    """Where a task's rows are, or are to be read from instead."""
    if task.step:
        ((_, params),) = task.step.items()
        path = {"path": str(local or tasks.ROOT / params["path"])} if "path" in params else {}
        return task.made(**path)
    place = local or (mirror and task.mirror) or task.hub or task.file or (task.path and Path(task.path))
    assert place
    return place
