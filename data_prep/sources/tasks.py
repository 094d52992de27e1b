"""Tasks: the benchmarks and data sets that recipes name, one YAML file each in `configs/tasks`.

A task says where its rows come from (a pinned Hub revision, a pinned file, or a step that makes them), which columns
hold what (or whose programs they are, or which hold a question's options), which system prompt it is asked with, and
which reward grades it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, model_validator

import rewards
from data_prep.core import documents
from data_prep.core.registry import STEPS, kind_fault, step_class
from data_prep.core.step import Params, Step
from data_prep.core.validation import Place, checked, find_faults
from data_prep.errors import DataError, nearest
from data_prep.sources.columns import AnswerFrom, ColumnMap, Columns
from data_prep.sources.files import suffix
from rewards.model.http import SERVICE

ROOT = Path(__file__).resolve().parents[2]
TASKS = ROOT / "configs" / "tasks"
FAMILIES = ROOT / "recipes"  # a family's own tasks are in recipes/<family>/tasks
PROMPTS = ROOT / "templates" / "prompts"

Programs = Literal["humaneval", "mbpp", "apps", "taco", "livecodebench"]  # data_prep/sources/benchmarks.py
Unanswered = Literal["bad", "drop"]  # a row without the asked answer: at fault, or merely left out
Scalar = str | int | float | bool


def names() -> list[str]:
    """All tasks."""
    return sorted(_files_of(TASKS, FAMILIES))


@cache
def _files_of(ours: Path, families: Path) -> Mapping[str, Path]:
    """Task files by name. Raises DataError where two have the same name."""
    files: dict[str, Path] = {}
    for path in (*ours.glob("*.yaml"), *families.glob("*/tasks/*.yaml")):
        if other := files.get(path.stem):
            raise DataError(f"two tasks are named {path.stem!r}: {other} and {path}; rename one")
        files[path.stem] = path
    return files


def known(name: str) -> None:
    """Raise ValueError naming the nearest task when there is none of this name."""
    if name not in names():
        raise ValueError(f"no task {name!r} in configs/tasks{nearest(name, names())}")


def prompts() -> list[str]:
    """All system prompts."""
    return sorted(path.stem for path in PROMPTS.glob("*.txt"))


def known_prompt(name: str) -> None:
    """Raise ValueError naming the nearest prompt when there is none of this name."""
    if name not in prompts():
        raise ValueError(f"no prompt {name!r} in templates/prompts{nearest(name, prompts())}")


TaskName = Annotated[str | None, checked(known)]
TaskNames = Annotated[tuple[str, ...], checked(known)]
PromptName = Annotated[str | None, checked(known_prompt)]  # a file of templates/prompts


class Hub(Params):
    """A dataset on the Hugging Face Hub at one commit: one of its splits, or files of its repository.

    files: names or globs; of a dataset whose loading script is not run, or whose splits are not what is wanted.
    """

    id: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    revision: str = Field(pattern=r"^([0-9a-f]{40}|main)$")
    split: str | None = None
    config: str | None = None
    files: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_part(self) -> Hub:
        check_part(self.split, self.config, self.files)
        return self

    @property
    def is_test(self) -> bool:
        """Whether this is a test split, by its name or its files'."""
        names = [self.split] if self.split else [PurePosixPath(name).name for name in self.files]
        return all(name.startswith("test") for name in names)


def check_part(split: str | None, config: str | None, files: Sequence[str]) -> None:
    """Raises ValueError unless this is one readable part of a Hub's data set."""
    if (split is None) == (not files):
        raise ValueError("say which part of the data set, with one of split, files")
    if files and config:
        raise ValueError("files are read as they are: leave out config")
    for name in files:
        try:
            suffix(Path(name))
        except DataError as error:
            raise ValueError(f"files: {error}") from None


class Remote(Params):
    """A file at a URL, pinned by its content."""

    url: str = Field(pattern=r"^https?://[^\s/]+/\S+$")
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    git_blob: str | None = Field(None, pattern=r"^[0-9a-f]{40}$")
    columns: Columns | None = None

    @model_validator(mode="after")
    def _pinned(self) -> Remote:
        if (self.sha256 is None) == (self.git_blob is None):
            raise ValueError("pin the file's content with one of sha256, git_blob")
        return self


class Match(Params):
    """What a column must be: a text with this in it, or none of these values."""

    contains: str | None = None
    is_not: Scalar | tuple[Scalar, ...] | None = None

    @model_validator(mode="after")
    def _one(self) -> Match:
        if (self.contains is None) == (self.is_not is None):
            raise ValueError("give one of contains, is_not")
        return self

    def __call__(self, value: Any) -> bool:
        if self.contains is not None:
            return isinstance(value, str) and self.contains in value
        return value not in (self.is_not if isinstance(self.is_not, tuple) else (self.is_not,))


class Choices(Params):
    """Columns of a question with options: `options` and `answer` (its place among them, or its letter), or `correct`
    and `wrong`, which are shuffled by the row's id alone."""

    question: str
    options: str | None = None
    answer: str | None = None
    correct: str | None = None
    wrong: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _whole(self) -> Choices:
        listed, apart = (self.options, self.answer), (self.correct, self.wrong)
        if not (all(listed) and not any(apart)) and not (all(apart) and not any(listed)):
            raise ValueError("say either options and answer, or correct and wrong")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """All that a record must have."""
        return tuple(filter(None, (self.question, self.options, self.answer, self.correct, *self.wrong)))


SERVED = "${reward_model.url}"


class Reward(Params):
    """A reward and its parameters."""

    name: str
    params: dict[str, JsonValue] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _loads(self) -> Reward:
        # a value that the recipe fills in: the address of its reward model's server
        given = {key: f"{SERVICE}task" if value == SERVED else value for key, value in self.params.items()}
        rewards.reward_class(self.name).create(self.name, given)
        return self


class Metric(Params):
    """What the mean score of a benchmark is called and measured in. Of unit "%" the scores are fractions."""

    name: str = "accuracy"
    unit: str = "%"
    higher_is_better: bool = True


class Task(Params):
    """One file of `configs/tasks` or of a family's `tasks`. path: a local file of rows, relative to the task's file."""

    about: str
    hub: Hub | None = None
    file: Remote | None = None
    mirror: Remote | None = None
    path: str | None = None
    step: dict[str, dict[str, Any]] | None = Field(None, min_length=1, max_length=1)  # kind -> its parameters
    columns: ColumnMap = Field(default_factory=dict)
    filter: dict[str, Scalar | list[Scalar] | Match] = Field(default_factory=dict)
    answer_from: AnswerFrom | None = None
    unanswered: Unanswered = "bad"
    programs: Programs | None = None
    choices: Choices | None = None
    system: PromptName = None
    gated: bool = False  # the Hub gives it to those who have accepted its terms, by their token
    split: Literal["train", "test"] | None = None  # of its benchmark, where the names of its origin do not tell
    reward: Reward
    metric: Metric | None = None  # null: accuracy in percent, or of another reward its own name and scale

    @property
    def measured(self) -> Metric:
        """What an evaluation with this task's reward measures."""
        if self.metric is not None:
            return self.metric
        return Metric() if self.reward.name in rewards.ACCURACIES else Metric(name=self.reward.name, unit="")

    @property
    def is_test(self) -> bool:
        """Whether a benchmark tests with these problems: what is trained on them must not be evaluated on them."""
        if self.split is not None:
            return self.split == "test"
        if self.hub is not None:
            return self.hub.is_test
        return any(params.get("split") in ("test", "held_out") for params in (self.step or {}).values())

    @model_validator(mode="after")
    def _one_source(self) -> Task:
        if [self.hub, self.file, self.path, self.step].count(None) != 3:
            raise ValueError("a task has one of hub, file, path, step")
        if self.step and self.split is None and all("split" not in params for params in self.step.values()):
            raise ValueError("say the split of the step's rows: its parameter `split`, or the task's own")
        if self.gated and not self.hub:
            raise ValueError("gated is of a hub's data set: leave it out")
        if self.programs and (self.columns or self.answer_from or self.choices or not self.hub):
            raise ValueError(
                "programs says what every column of a hub's data set is: leave out columns, answer_from, choices"
            )
        if self.choices and (self.answer_from or any(name != "id" and name[:5] != "meta." for name in self.columns)):
            raise ValueError(
                "choices makes prompt and answer: leave out answer_from, and of columns all but id, meta.*"
            )
        return self

    def made(self, **params: Any) -> Step:
        """The step that makes the task's rows, with these parameters in place of the task's."""
        ((kind, given),) = (self.step or {}).items()
        cls = step_class(kind)
        return cls(cls.Params.model_validate({**given, **params}))


def read(name: str) -> Task:
    """The task called `name`, read once a process. Raises DataError with all that is wrong, a line for each fault."""
    files = _files_of(TASKS, FAMILIES)
    if name not in files:
        raise DataError(f"no task {name!r} in configs/tasks{nearest(name, files)}")
    return _read(files[name])


@cache
def _read(path: Path) -> Task:
    document = documents.read_yaml(path)
    if not isinstance(document, dict):
        kind = "empty" if document is None else f"of type {type(document).__name__}"
        raise DataError(f"{path}: a task is a mapping of {', '.join(Task.model_fields)}; this is {kind}")
    faults = [*find_faults(Task, document, "key"), *_step_faults(document.get("step"))]
    if faults:
        lines = [": ".join(filter(None, (".".join(map(str, place)), message))) for place, message in faults]
        raise DataError("\n".join(f"{path}: {line}" for line in lines))
    task = Task.model_validate(document)
    return task if task.path is None else task.model_copy(update={"path": str(path.parent / task.path)})


def _step_faults(given: Any) -> Iterator[tuple[Place, str]]:
    for kind, params in given.items() if isinstance(given, dict) else ():
        if kind_fault(str(kind)) or step_class(str(kind)).scope != "source":
            sources = [name for name in STEPS if step_class(name).scope == "source"]
            yield ("step", kind), f"no step of that kind makes rows{nearest(str(kind), sources)}"
            continue
        for place, message in find_faults(step_class(kind).Params, params, "parameter"):
            yield ("step", kind, *place), message
