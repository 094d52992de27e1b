"""Questions from a file: our JSON lines, a finished pipeline's rows, or the original's questions.json unchanged.

- questions: {path: questions.json}                                           asked directly
- questions: {path: sample/questions.jsonl, prompt: cot, split: held_out, held_out: 0.2}
- questions: {path: questions.json, generations: training_data/cache/Llama3.1-8B-Instruct/core_N=50.json}

A record has the original's field names (function_name, function_signature, function_docstring,
problem_statement, gold_solution, unit_tests) or those of our rows' meta (function, signature, docstring, statement),
the gold solution in `gold_solution`, `solution` or `references`, and its tests as `unit_tests` (source text), `tests`
(a suite, rewards/code/suites.py) or `cases` (data, skill_mix/cases.py). GoogleTest source is converted to calls if
possible (skill_mix/assertions.py). A split in the file is kept. Questions without one are split by their skill pairs: a
share `held_out` of the pairs, and all questions with such a pair, are held out.

With `generations` the rows are samples of these questions written by the original's generate_solutions.py:
{question id: {system, user, responses: [{raw_output, code}]}}, with scores ({solution: {raw_output, code}, score}) or
without. raw_output is graded, since `code` is only the first fence, which in a chain of thought is often a fragment.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from data_prep.core.fingerprint import file_hash
from data_prep.core.step import Context, Drop, Output, Params, Row, Step
from data_prep.errors import DataError, nearest
from data_prep.families.skill_mix.assertions import NotConvertible, cases
from data_prep.families.skill_mix.cases import read_cases, suite
from data_prep.families.skill_mix.signatures import Language, SignatureError, read
from data_prep.families.skill_mix.skills import held_out_pairs, is_held_out, pairs_of
from data_prep.inference import prompts
from data_prep.sources.files import read_json, read_records
from data_prep.sources.messages import Unfit
from rewards.code.cpp.declaration import DeclarationError, read_declaration
from rewards.code.suites import read as read_suite
from rewards.errors import RewardError

Style = Literal["direct", "cot"]
Named = tuple[str, dict[str, Any]]

SOURCE = "skill_mix"
LANGUAGES: Mapping[str, Language] = {
    "python": "python", "python3": "python", "py": "python",
    "cpp": "cpp", "c++": "cpp", "cc": "cpp", "cxx": "cpp", "c++17": "cpp",
}  # fmt: skip
# Field -> accepted names; messages use the first.
NAMES: Mapping[str, tuple[str, ...]] = {
    "function": ("function_name", "function"),
    "signature": ("function_signature", "signature"),
    "docstring": ("function_docstring", "docstring"),
    "statement": ("problem_statement", "statement"),
    "gold": ("gold_solution", "solution", "references"),
}
WORDS: Mapping[Language, Mapping[str, str]] = {  # in prompts
    "python": {"language": "Python", "fence": "python", "include": "import"},
    "cpp": {"language": "C++17", "fence": "cpp", "include": "#include"},
}


def render(name: str, language: Language, **values: Any) -> str:
    """Render the prompt templates/prompts/skill_mix/<name>."""
    return prompts.render(f"skill_mix/{name}", **WORDS[language], **values)


@dataclass(frozen=True)
class Question:
    """gold: code without a fence. tests: as in a row. split: "train", "held_out", or "" if the file has none."""

    id: str
    language: Language
    skills: tuple[str, ...]
    function: str
    signature: str
    docstring: str
    statement: str
    gold: str
    tests: dict[str, Any]
    split: str = ""

    def as_row(self, style: Style) -> Row:
        """The question as a row: answer instructions as the system message, the question as the user message."""
        texts = {name: getattr(self, name) for name in ("function", "signature", "docstring", "statement")}
        about = {"k": len(self.skills), "skills": list(self.skills), "language": self.language}
        return {
            "id": self.id,
            "prompt": [
                {"role": "system", "content": render(style, self.language)},
                {"role": "user", "content": render("question", self.language, **texts)},
            ],
            "references": [self.gold],
            "tests": self.tests,
            "source": SOURCE,
            "meta": {**about, **texts, "split": self.split},
        }


class QuestionsParams(Params):
    """Which file, which of its questions, and how they are asked."""

    path: str = Field(min_length=1)  # .json or .jsonl
    prompt: Style = "direct"
    split: Literal["train", "held_out", "all"] = "all"
    held_out: float = Field(0.1, ge=0, le=0.9)  # share of skill pairs, for questions without a split
    seed: int = 0
    generations: str | None = None  # a file of samples in the original's format


class Questions(Step):
    """Source of question rows, or of samples; an invalid record is dropped with its id and field."""

    kind = "questions"
    scope = "source"
    unkeyed: ClassVar[tuple[str, ...]] = ("path", "generations")  # the files' content is in the fingerprint
    Params = QuestionsParams
    params: QuestionsParams

    def fingerprint(self, base: Path) -> dict[str, Any]:
        """Content hashes of the files and prompts. Raises DataError if a file is missing."""
        files = self._files(base)
        for name, path in files.items():
            if not path.is_file():
                raise DataError(f"{path}: no such file; `{name}` must be a file of questions or samples")
        hashes = {name: [file_hash(path), path.suffix] for name, path in files.items()}
        return {"files": hashes, "prompts": prompts.content_hash("skill_mix")}

    def reads(self, base: Path) -> str:
        return ", ".join(map(str, self._files(base).values()))

    def _files(self, base: Path) -> dict[str, Path]:
        given = {"path": self.params.path, "generations": self.params.generations}
        return {name: base / file for name, file in given.items() if file}

    def apply(self, rows: Sequence[Row], ctx: Context) -> Output:
        files = self._files(ctx.base)
        questions = self._rows(files["path"])
        return samples(questions, files["generations"]) if "generations" in files else questions

    def _rows(self, path: Path) -> Iterator[Row | Drop]:
        p = self.params
        outcomes = [item if isinstance(item, Drop) else read_question(item[1], item[0]) for item in read_named(path)]
        unsplit = [item for item in outcomes if isinstance(item, Question) and not item.split]
        held = held_out_pairs((pair for item in unsplit for pair in pairs_of(item.skills)), p.held_out, p.seed)
        seen: set[str] = set()
        for item in outcomes:
            if isinstance(item, Drop):
                yield item
            elif item.id in seen:
                yield Drop("duplicate id", item.id, f"question {item.id} occurs twice in the file", bad=True)
            else:
                seen.add(item.id)
                split = item.split or ("held_out" if is_held_out(item.skills, held) else "train")
                in_split = p.split in ("all", split)
                yield replace(item, split=split).as_row(p.prompt) if in_split else Drop("another split", item.id, split)


def read_named(path: Path) -> Iterator[Named | Drop]:
    """Records with their names: the object's keys, or each record's id or number. Raises DataError."""
    if path.suffix not in (".json", ".jsonl"):
        raise DataError(f"{path}: questions must be .json or .jsonl, not {path.suffix or 'this'!r}")
    if path.suffix == ".json" and (keyed := _keyed(path)) is not None:
        for key, value in keyed.items():
            wrong = Drop("not an object", key, f"question {key}: a JSON {type(value).__name__}", bad=True)
            yield (key, value) if isinstance(value, dict) else wrong
        return
    for number, record in enumerate(read_records(path), 1):
        yield (record if isinstance(record, Drop) else (str(record.get("id") or record.get("qid") or number), record))


def _keyed(path: Path) -> dict[str, Any] | None:
    """The questions of a single JSON object by name, the original's format; None for any other file."""
    try:
        value = json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return None  # JSON lines in a .json file, or an error that `read_records` reports
    return value if isinstance(value, dict) and not {"function_name", "meta"} & value.keys() else None


def read_question(record: Mapping[str, Any], name: str) -> Question | Drop:
    """The question in the record `name`; the language is C++ if the record does not say."""
    flat = {**record, **meta} if isinstance(meta := record.get("meta"), dict) else dict(record)
    if flat.get("verification_status") is False and not flat.get("unit_tests"):
        return Drop("unverified", name, "the original's own verification_status is false, and there are no tests")
    try:
        written = str(flat.get("language") or "cpp").lower()
        if written not in LANGUAGES:
            raise Unfit("unknown language", f"{written!r}{nearest(written, LANGUAGES)}")
        language = LANGUAGES[written]
        texts = {field: _text(flat, names) for field, names in NAMES.items()}
        skills, tests = _skills(flat.get("skills")), _tests(flat, language, texts)
    except Unfit as unfit:
        return Drop(unfit.reason, name, f"question {name}: {unfit.detail}", bad=True)
    split = flat["split"] if flat.get("split") in ("train", "held_out") else ""
    return Question(id=name, language=language, skills=skills, tests=tests, split=split, **texts)


def _text(flat: Mapping[str, Any], names: Sequence[str]) -> str:
    key = next((key for key in names if flat.get(key)), "")
    if not key:
        raise Unfit(f"missing {names[0]}", f"no {' or '.join(names)}")
    value = flat[key][0] if key == "references" and isinstance(flat[key], list) else flat[key]
    if not isinstance(value, str) or not value.strip():
        raise Unfit(f"{names[0]} is not a text", type(value).__name__)
    return value


def _skills(given: Any) -> tuple[str, ...]:
    names = given.split(",") if isinstance(given, str) else given
    texts = isinstance(names, list) and all(isinstance(name, str) for name in names)
    skills = tuple(filter(None, map(str.strip, names))) if texts else ()
    if not skills:
        raise Unfit("missing skills", "must be a list of names, or names separated by commas")
    return skills


def _tests(flat: Mapping[str, Any], language: Language, texts: Mapping[str, str]) -> dict[str, Any]:
    """A suite. Raises Unfit."""
    tests, source = flat.get("tests"), flat.get("unit_tests")
    if tests is None and source:
        if not isinstance(source, str):
            raise Unfit("unusable tests", f"unit_tests must be a text, got {type(source).__name__}")
        as_source = {"kind": "gtest" if language == "cpp" else "asserts", "language": language, "source": source}
        tests = (_calls(source, texts) if language == "cpp" else None) or as_source
    elif tests is None and flat.get("cases"):
        tests = _from_cases(flat["cases"], language, texts)
    if tests is None:
        raise Unfit("missing unit_tests", "no unit_tests, tests or cases")
    try:
        given = read_suite(tests).language
    except RewardError as problem:
        raise Unfit("unusable tests", str(problem)) from None
    if given != language:
        raise Unfit("unusable tests", f"the tests are in {given}, but the question's language is {language}")
    return dict(tests)


def _calls(source: str, texts: Mapping[str, str]) -> dict[str, Any] | None:
    """GoogleTest source as calls, None if it cannot be converted."""
    structs = re.finditer(r"\bstruct\s+(\w+)\s*\{[^{}()]*\};", texts["gold"])
    used = [match.group() for match in structs if re.search(rf"\b{match[1]}\b", texts["signature"])]
    declaration = "\n".join([*used, f"{texts['signature'].rstrip(';{ ')};"])
    function = texts["function"]
    try:
        declared = read_declaration(declaration)
        made = cases(source, declared)
    except (DeclarationError, NotConvertible):
        return None
    calls = {"kind": "call", "language": "cpp", "declaration": declaration, "function": function, "cases": made}
    return calls if declared.function == function else None


def _from_cases(given: Any, language: Language, texts: Mapping[str, str]) -> dict[str, Any]:
    if not isinstance(given, list):
        raise Unfit("unusable tests", "cases must be a list")
    try:
        made, problems = read_cases(given, read(texts["signature"], language))
        if not problems:
            return suite(texts["function"], texts["signature"], made, language)
    except SignatureError as error:
        problems = [f"function_signature: {error}"]
    raise Unfit("unusable tests", problems[0])


def samples(questions: Iterator[Row | Drop], path: Path) -> Iterator[Row | Drop]:
    """The samples of a file in the original's format, in order, as rows of their questions. Raises DataError."""
    given = read_json(path)
    if not isinstance(given, dict):
        shape = "{question id: {system, user, responses: [{raw_output, code}]}}"
        raise DataError(f"{path}: expected {shape}, got a JSON {type(given).__name__}; rows of samples must be .jsonl")
    known: dict[str, Row] = {}
    for row in questions:
        if isinstance(row, Drop):
            yield row
        else:
            known[row["id"]] = row
    for name, answered in given.items():
        if name not in known:
            detail = f"{name!r} is in the generations but not in the questions{nearest(name, known)}"
            yield Drop("no such question", name, detail[:300], bad=True)
        elif not isinstance(answered, dict) or not isinstance(answered.get("responses"), list):
            yield Drop("no responses", name, f"{path.name}: {name!r} has no list `responses`", bad=True)
        else:
            yield from _samples(known[name], answered)
    if silent := [name for name in known if name not in given]:
        yield Drop("questions without responses", "", f"{len(silent):,}: {', '.join(silent)}"[:200])


def _samples(question: Row, answered: Mapping[str, Any]) -> Iterator[Row | Drop]:
    roles = [role for role in ("system", "user") if isinstance(answered.get(role), str)]
    prompt = [{"role": role, "content": answered[role]} for role in roles] if "user" in roles else question["prompt"]
    for number, response in enumerate(answered["responses"]):
        name = f"{question['id']}/{number}"
        scored = response.get("solution") if isinstance(response, dict) else None
        given = scored if isinstance(scored, dict) else response
        text = given.get("raw_output") if isinstance(given, dict) else None
        if not isinstance(text, str):
            yield Drop("no raw_output", name, f"responses[{number}] of {question['id']!r} has no text", bad=True)
            continue
        meta = {**question["meta"], "prompt_id": question["id"], "sample": number}
        yield {**question, "id": name, "prompt": prompt, "completion": text, "meta": meta}
