"""Records of benchmarks whose rows are more than a column map: programs with their tests, and multiple choice.

A task says `programs: apps`, or in `choices` which columns hold a question's options; local files of the same columns
are read alike.
"""

import hashlib
from collections.abc import Callable, Mapping
from string import ascii_uppercase
from typing import Any

from data_prep.core.step import Drop, Row
from data_prep.sources.columns import Columns, Record, as_text, decoded, pick
from data_prep.sources.messages import Unfit
from data_prep.sources.tasks import Choices, Programs
from rewards.code.suites import from_apps, from_humaneval, from_livecodebench, from_mbpp, read
from rewards.errors import RewardError

Form = Programs | Choices

IDS = ("task_id", "question_id", "problem_id", "id")
LABELS = ("difficulty", "platform", "contest_date", "url")  # kept in meta


def missing(form: Form, names: Record) -> list[str]:
    """Columns that a file of that form would have and this one lacks."""
    absent = [name for name in (form.columns if isinstance(form, Choices) else _PROGRAMS[form][1]) if name not in names]
    return absent + (["prompt"] if form == "mbpp" and not {"prompt", "text"} & set(names) else [])


def convert(record: Record, form: Form, beside: Columns) -> Row | Drop:
    """The record as a row, or why it is none; `beside` maps the id and meta of a question with options."""
    if isinstance(form, Choices):
        given: Any = pick(record, str(beside.get("id", "id")))
    else:
        given = next((record[name] for name in IDS if record.get(name) is not None), None)
    row_id = as_text(given)
    row_id = row_id if isinstance(row_id, str) else ""
    try:
        row = _choice(record, form, beside, row_id) if isinstance(form, Choices) else _PROGRAMS[form][0](record)
    except RewardError as problem:
        return Drop("tests cannot be read", row_id, str(problem), bad=True)
    except Unfit as unfit:
        return Drop(unfit.reason, row_id, unfit.detail, bad=unfit.reason != "no tests")
    return {"id": row_id, **row} if row_id else row


def _text(record: Record, *columns: str) -> str:
    text = next((record[name] for name in columns if record.get(name)), None)
    if not isinstance(text, str) or not text.strip():
        raise Unfit("no prompt", f"column {' or '.join(columns)}")
    return text


def _user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def _choice(record: Record, choices: Choices, beside: Columns, row_id: str) -> Row:
    """The options as lettered lines, the letter of the right one as answer."""
    question = _text(record, choices.question)
    options, answer = _listed(record, choices) if choices.options else _apart(record, choices, row_id or question)
    lines = [f"{letter}) {option}" for letter, option in zip(ascii_uppercase, options, strict=False)]
    meta = {name[5:]: pick(record, str(path)) for name, path in beside.items() if name.startswith("meta.")}
    meta = {name: value for name, value in meta.items() if value is not None}
    prompt = _user("\n".join([question.strip(), "", *lines]))
    return {"prompt": prompt, "answer": ascii_uppercase[answer], **({"meta": meta} if meta else {})}


def _listed(record: Record, choices: Choices) -> tuple[list[str], int]:
    """Options in a list, and the place of the right one, which may be given by its letter."""
    options, answer = record.get(str(choices.options)), record.get(str(choices.answer))
    if not isinstance(options, list):
        raise Unfit("no choices", f"column {choices.options} is {type(options).__name__}, not a list")
    texts = _options(options)
    if isinstance(answer, str) and len(answer.strip()) == 1:
        answer = ascii_uppercase.find(answer.strip().upper())
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(texts):
        given = repr(record.get(str(choices.answer)))[:60]
        raise Unfit("no choices", f"column {choices.answer} names none of {len(texts)} options: {given}")
    return texts, answer


def _apart(record: Record, choices: Choices, key: str) -> tuple[list[str], int]:
    """Options in columns of their own, shuffled by the row's id alone, and the place of the right one."""
    texts = _options([record.get(name) for name in (str(choices.correct), *choices.wrong)])
    order = sorted(range(len(texts)), key=lambda place: hashlib.sha256(f"{place}:{key}".encode()).digest())
    return [texts[place] for place in order], order.index(0)


def _options(values: list[Any]) -> list[str]:
    texts = [as_text(value) for value in values]
    if not 2 <= len(texts) <= len(ascii_uppercase):
        raise Unfit("no choices", f"{len(texts)} options")
    for place, text in enumerate(texts, 1):
        if not isinstance(text, str) or not text.strip():
            raise Unfit("no choices", f"option {place} is {text!r:.60}")
    return texts


def _humaneval(record: Record) -> Row:
    """The prompt is a program's beginning; the reference is all of it."""
    prompt, tests, solution = _text(record, "prompt"), from_humaneval(record), record.get("canonical_solution")
    references = [prompt + solution] if isinstance(solution, str) else None
    return _program(f"```python\n{prompt.rstrip()}\n```", tests, references, {"function": tests["function"]})


def _mbpp(record: Record) -> Row:
    """The task with its tests, as Austin et al. 2021 (arXiv 2108.07732, section 3) ask it: they name the function."""
    tests, prompt, code = from_mbpp(record), _text(record, "prompt", "text"), record.get("code")
    asked = "\n".join([prompt.strip(), "", "It must pass these tests:", "", *record["test_list"]])
    return _program(asked, tests, [code] if isinstance(code, str) else None)


def _apps(record: Record) -> Row:
    """APPS's columns, which are TACO's too. Of many solutions the first is the reference."""
    tests = from_apps(record) if record["input_output"] not in (None, "", "{}") else {"cases": []}
    if not tests["cases"]:
        raise Unfit("no tests")  # the record says so itself: it cannot be judged
    return _contest(record, "question", tests, _first(record.get("solutions")))


def _livecodebench(record: Record) -> Row:
    """Public and private tests; the metadata names a function where one is to be written."""
    return _contest(record, "question_content", from_livecodebench(record))


def _contest(record: Record, column: str, tests: dict[str, Any], references: list[str] | None = None) -> Row:
    """A problem of a contest, with the code that it wants to be continued."""
    function = read(tests).function  # a test that cannot be run is found here, before anything is generated
    question, starter = _text(record, column).strip(), record.get("starter_code")
    if isinstance(starter, str) and starter.strip():
        question += f"\n\nContinue from this code:\n\n```python\n{starter.rstrip()}\n```"
    labels = {name: record[name] for name in LABELS if isinstance(record.get(name), str) and record[name]}
    return _program(question, tests, references, ({"function": function} if function else {}) | labels)


def _program(
    asked: str, tests: dict[str, Any], references: list[str] | None, meta: Mapping[str, str] | None = None
) -> Row:
    row: Row = {"prompt": _user(asked), "tests": tests, "meta": {"language": "python", **(meta or {})}}
    return row | ({"references": references} if references else {})


def _first(solutions: Any) -> list[str] | None:
    """The first of solutions, a list or its JSON text; a question without one is a question too."""
    solutions = decoded(solutions, "[")
    first = solutions[0] if isinstance(solutions, list) and solutions else None
    return [first] if isinstance(first, str) else None


# How a record becomes a row, and the columns that it must have; of MBPP its sanitized config calls the task `prompt`,
# the full one `text`.
_PROGRAMS: dict[Programs, tuple[Callable[[Record], Row], tuple[str, ...]]] = {
    "humaneval": (_humaneval, ("prompt", "test", "entry_point")),
    "mbpp": (_mbpp, ("test_list",)),
    "apps": (_apps, ("question", "input_output")),
    "taco": (_apps, ("question", "input_output")),
    "livecodebench": (_livecodebench, ("question_content", "public_test_cases", "private_test_cases")),
}
