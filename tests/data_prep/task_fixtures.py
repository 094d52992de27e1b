"""A few invented rows in every task's own schema, each with a right and a wrong completion."""

from __future__ import annotations

import base64
import json
import pickle
import zlib
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Case:
    """A record, what the prompt must contain, the short answer if there is one, and completions that score 1 and 0."""

    record: dict[str, Any]
    asked: str
    gold: str
    wrong: str
    answer: str | None = None


@dataclass(frozen=True)
class Fixture:
    """Records that become rows, and records that are dropped, by reason."""

    cases: tuple[Case, ...]
    dropped: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


def pack(value: Any) -> str:
    """Encodes tests like LiveCodeBench's private tests."""
    return base64.b64encode(zlib.compress(pickle.dumps(value))).decode()


def fenced(code: str) -> str:
    return f"Here is the program.\n\n```python\n{code.strip()}\n```\n"


def maths(record: dict[str, Any], answer: str, wrong: str = "-17") -> Case:
    asked = next(record[name] for name in ("problem", "question") if name in record)
    return Case(record, asked, f"So it is \\boxed{{{answer}}}.", f"So it is \\boxed{{{wrong}}}.", answer)


def choice(record: dict[str, Any], text: str, letter: str) -> Case:
    other = "A" if letter != "A" else "B"
    return Case(record, f"{letter}) {text}", f"\\boxed{{{letter}}}", f"\\boxed{{{other}}}", letter)


LARGER = "print(max(map(int, input().split())))"
SMALLER = "print(min(map(int, input().split())))"
MIRROR = "def mirror(text):\n    return text[::-1]"
SAME = "def mirror(text):\n    return text"
STDIN = {"inputs": ["3 9\n", "12 -4\n", ["7 7"]], "outputs": ["9\n", "12\n", ["7"]]}
CALL = {"fn_name": "mirror", "inputs": [["moor"], ["ab"]], "outputs": [["room"], ["ba"]]}


def contest_row(number: int, tests: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "id": number,
        "question": "A line holds two whole numbers. Print the larger one.",
        "solutions": json.dumps([LARGER]),
        "input_output": json.dumps(tests),
        "difficulty": "MEDIUM",
        "url": "https://example.com/larger",
        "starter_code": "",
        **more,
    }


MIRRORED = {
    "question": "Return the text backwards.",
    "solutions": json.dumps([MIRROR]),
    "starter_code": "def mirror(text):\n\t",
}
CONTEST = Fixture(
    cases=(
        Case(contest_row(0, STDIN), "Print the larger one.", fenced(LARGER), fenced(SMALLER)),
        Case(contest_row(1, CALL, **MIRRORED), "def mirror(text):", fenced(MIRROR), fenced(SAME)),
    ),
    dropped={
        "no tests": [
            contest_row(2, {}),
            contest_row(3, {"inputs": [], "outputs": []}),
            contest_row(4, {}, input_output=""),
        ],
        "tests cannot be read": [
            contest_row(5, {"inputs": ["1"], "outputs": []}),
            contest_row(6, {}, input_output="{'inputs': []}"),
            contest_row(7, {"inputs": [{"a": 1}], "outputs": ["1"]}),
            contest_row(8, {"fn_name": "f", "inputs": ["1"], "outputs": [1]}),
            contest_row(9, {}, input_output='{"fn_name": "f", "inputs": [[' + "9" * 5000 + ']], "outputs": [1]}'),
            contest_row(10, {}, input_output="[" * 100_000),
        ],
        "no prompt": [contest_row(11, STDIN, question=" ")],
    },
)


def live_row(number: int, difficulty: str = "easy", private: Any = None, **more: Any) -> dict[str, Any]:
    public = [{"input": "3 9\n", "output": "9\n", "testtype": "stdin"}]
    hidden = [{"input": "12 -4\n", "output": "12\n", "testtype": "stdin"}]
    return {
        "question_title": "Larger",
        "question_content": "A line holds two whole numbers. Print the larger one.",
        "platform": "atcoder",
        "question_id": f"abc{number}_a",
        "contest_date": "2023-08-12T00:00:00",
        "starter_code": "",
        "difficulty": difficulty,
        "public_test_cases": json.dumps(public),
        "private_test_cases": pack(json.dumps(hidden)) if private is None else private,
        "metadata": "{}",
        **more,
    }


METHOD = "class Solution:\n    def mirror(self, text: str) -> str:\n        return text[::-1]"
FUNCTIONAL = {
    "question_content": "Return the text backwards.",
    "starter_code": "class Solution:\n    def mirror(self, text: str) -> str:\n        ",
    "public_test_cases": json.dumps([{"input": '"moor"', "output": '"room"', "testtype": "functional"}]),
    "metadata": json.dumps({"func_name": "mirror"}),
}


def bomb() -> str:
    """2 MB that decompress to 300 MB."""
    squeeze = zlib.compressobj(1)
    parts = [squeeze.compress(bytes(1 << 20)) for _ in range(300)]
    return base64.b64encode(b"".join([*parts, squeeze.flush()])).decode()


class Planted:
    """A pickle that would run a program when loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("raise SystemExit('a pickle was loaded')",)


def live(difficulty: str) -> Fixture:
    hidden = pack(json.dumps([{"input": '"ab"', "output": '"ba"', "testtype": "functional"}]))
    text = pickle.dumps("[]")
    hostile = [
        pack(Planted()),
        pack(["[]"]),
        base64.b64encode(zlib.compress(text[:-1] + b"0" + text)).decode(),
        pack("not JSON"),
        pack(json.dumps([{"input": "1", "output": 1, "testtype": "stdin"}])),
        pack(json.dumps([{"input": "1", "output": "1", "testtype": "functional"}])),
        "plain words",
    ]
    return Fixture(
        cases=(
            Case(live_row(1, difficulty), "Print the larger one.", fenced(LARGER), fenced("print(9)")),
            Case(live_row(2, difficulty, hidden, **FUNCTIONAL), "class Solution:", fenced(METHOD), fenced(SAME)),
        ),
        dropped={"tests cannot be read": [live_row(number, difficulty, one) for number, one in enumerate(hostile, 3)]},
    )


def live_part(difficulty: str, other: str) -> Fixture:
    whole = live(difficulty)
    return Fixture(whole.cases, {**whole.dropped, "filtered out": [live_row(20, other)]})


def gpqa(record_id: str) -> dict[str, Any]:
    return {
        "Record ID": record_id,
        "Question": "Which of these is a noble gas?",
        "Correct Answer": "Argon\n",
        "Incorrect Answer 1": "Chlorine",
        "Incorrect Answer 2": "Oxygen",
        "Incorrect Answer 3": "Iron",
        "High-level domain": "Chemistry",
    }


def mmlu(answer: Any, **more: Any) -> dict[str, Any]:
    options = ["Madrid", "Lisbon", "Rome", "Bern"]
    return {
        "question": "What is Portugal's capital?",
        "subject": "geography",
        "choices": options,
        "answer": answer,
        **more,
    }


def mmlu_pro(count: int, answer: int) -> dict[str, Any]:
    options = [f"{number} chairs" for number in range(count)]
    return {
        "question_id": count,
        "question": "Seven of ten chairs are taken away. How many stay?",
        "options": options,
        "answer": "ABCDEFGHIJ"[answer],
        "answer_index": answer,
        "category": "math",
        "src": "ours",
    }


def numina(source: str) -> Fixture:
    row = {
        "source": source,
        "problem": "A box holds 3 rows of 4 eggs. How many eggs?",
        "solution": "First \\boxed{3} rows; then $3 \\cdot 4 = \\boxed{12}$.",
        "messages": [{"role": "user", "content": "A box"}, {"role": "assistant", "content": "12"}],
    }
    return Fixture(
        cases=(maths(row, "12"),),
        dropped={"filtered out": [{**row, "source": "cn_k12"}], "no boxed answer": [{**row, "solution": "See above."}]},
    )


HALVES = {
    "problem": "What is half of $\\frac{2}{3}$?",
    "solution": "It is \\boxed{\\frac13}.",
    "answer": "\\frac{1}{3}",
}
SEVEN = {"question": "What is 10 - 3?", "answer": "7"}
THOUGHT = (
    "<|begin_of_thought|>\n\nAn hour has 60 minutes, so half of it has 30.\n\n<|end_of_thought|>\n\n"
    "<|begin_of_solution|>\n\n30 minutes.\n\n<|end_of_solution|>"
)
STILL = {"question": "How many minutes has half an hour?", "combined_text": THOUGHT, "domain": "puzzle"}
PLUS = """import numpy as np

def is_floats(x):
    return isinstance(x, float) or isinstance(x, (list, tuple)) and all(isinstance(i, float) for i in x)

def assertion(out, exp, atol):
    if atol == 0 and is_floats(exp):
        atol = 1e-6
    if out != exp and atol != 0:
        assert np.allclose(out, exp, rtol=1e-07, atol=atol)
    else:
        assert out == exp, f"out: {out}, exp: {exp}"

"""


def plus_loop(function: str, args: list[Any], result: Any, indent: str = "") -> str:
    """Inputs and results in the format of EvalPlus's test files."""
    lines = [f"inputs = [{args!r}]", f"results = [{result!r}]", "for i, (inp, exp) in enumerate(zip(inputs, results)):"]
    return "".join(f"{indent}{line}\n" for line in [*lines, f"    assertion({function}(*inp), exp, 0)"])


DOUBLED = "def doubled(xs):\n    return [2 * x for x in xs]"

# None: the task's rows are in this repository, and carry their gold.
FIXTURES: dict[str, Fixture | None] = {
    "aime24": Fixture(
        (maths({"id": 60, **HALVES, "answer": "204", "url": "https://example.com/2024_AIME_I_Problems/1"}, "204"),),
        {"filtered out": [{"id": 0, **HALVES, "answer": "1", "url": "https://example.com/2022_AIME_I_Problems/1"}]},
    ),
    "aime25": Fixture((maths(SEVEN, "7"),)),
    "amc23": Fixture((maths({"id": 0, "question": "What is 1 + 5?", "answer": 6.0, "url": "x"}, "6"),)),
    "apps": CONTEST,
    "apps_train": CONTEST,
    "arithmetic": None,
    "sums_bleu": None,
    "sums_chat": None,
    "wildchat_if_val": Fixture((Case({"prompt": [{"role": "user", "content": "Write a haiku."}]}, "haiku", "", ""),)),
    "no_robots": Fixture(
        (
            Case(
                {
                    "prompt": "Name a river that flows through Vienna.",
                    "prompt_id": "a1",
                    "messages": [
                        {"role": "user", "content": "Name a river that flows through Vienna."},
                        {"role": "assistant", "content": "The Danube flows through Vienna."},
                    ],
                    "category": "Closed QA",
                },
                "a river",
                "The Danube flows through Vienna.",
                "Nobody knows",
                None,
            ),
        )
    ),
    "functions": None,
    "functions_plan": None,
    "gpqa_diamond": Fixture(
        (choice(gpqa("recA"), "Argon", "D"), choice(gpqa("recC"), "Argon", "C")),
        {"no choices": [{**gpqa("recX"), "Incorrect Answer 2": None}], "no prompt": [{**gpqa("recY"), "Question": ""}]},
    ),
    "gsm8k": Fixture((maths({"question": "Two bags of 3 apples?", "answer": "2*3 = <<2*3=6>>6\n#### 6"}, "6"),)),
    "humaneval": Fixture(
        (
            Case(
                {
                    "task_id": "HumanEval/900",
                    "prompt": 'def widest(gaps: list[int]) -> int:\n    """ The widest gap. """\n',
                    "canonical_solution": "    return max(gaps, default=0)\n",
                    "test": "def check(f):\n    assert f([1, 5, 2]) == 5\n    assert f([]) == 0\n",
                    "entry_point": "widest",
                },
                "The widest gap.",
                fenced("def widest(gaps):\n    return max(gaps, default=0)"),
                fenced("def widest(gaps):\n    return 5"),
            ),
        )
    ),
    "humaneval_plus": Fixture(
        (
            Case(
                {
                    "task_id": "HumanEval/900",
                    "prompt": 'def mean(xs: list[float]) -> float:\n    """ The mean. """\n',
                    "canonical_solution": "    return sum(xs) / len(xs)\n",
                    "test": PLUS + "def check(candidate):\n" + plus_loop("candidate", [[0.1, 0.2]], 0.15, "    "),
                    "entry_point": "mean",
                },
                "The mean.",
                fenced("def mean(xs):\n    return (xs[0] + xs[1]) * 0.5"),
                fenced("def mean(xs):\n    return 0.1501"),
            ),
        )
    ),
    "livecodebench": live("hard"),
    "livecodebench_easy": live_part("easy", "hard"),
    "livecodebench_hard": live_part("hard", "medium"),
    "livecodebench_medium": live_part("medium", "easy"),
    "math500": Fixture((maths({**HALVES, "subject": "Prealgebra", "level": 2, "unique_id": "x"}, "\\frac{1}{3}"),)),
    "mbpp": Fixture(
        (
            Case(
                {
                    "task_id": 900,
                    "prompt": "Write a function that doubles each number.",
                    "code": DOUBLED,
                    "test_imports": [],
                    "test_list": ["assert doubled([1, 2]) == [2, 4]", "assert doubled([]) == []"],
                },
                "assert doubled([]) == []",
                fenced(DOUBLED),
                fenced("def doubled(xs):\n    return xs"),
            ),
        )
    ),
    "mbpp_plus": Fixture(
        (
            Case(
                {
                    "task_id": 900,
                    "prompt": "Write a function that doubles each number.",
                    "code": DOUBLED,
                    "source_file": "x",
                    "test_imports": [],
                    "test_list": ["assert doubled([1, 2]) == [2, 4]"],
                    "test": PLUS + plus_loop("doubled", [[3]], [6]),
                },
                "assert doubled([1, 2]) == [2, 4]",
                fenced(DOUBLED),
                fenced("def doubled(xs):\n    return [2, 4]"),
            ),
        )
    ),
    "minervamath": Fixture(
        (
            maths({"question": "A lamp of 60 W burns for 2 s. Its energy in J?", "answer": "120"}, "120"),
            maths({"question": "And in 4 s?", "answer": "It takes \\boxed{240} J."}, "240"),
        )
    ),
    "mmlu": Fixture(
        (choice(mmlu(1), "Lisbon", "B"), choice(mmlu("B"), "Lisbon", "B")),
        {"no choices": [mmlu(4), mmlu("Z"), mmlu(None), mmlu(1, choices=["Lisbon"]), mmlu(1, choices="ABCD")]},
    ),
    "mmlu_pro": Fixture((choice(mmlu_pro(10, 3), "3 chairs", "D"), choice(mmlu_pro(4, 3), "3 chairs", "D"))),
    "numina_amc_aime": numina("amc_aime"),
    "numina_math": numina("math"),
    "numina_olympiads": numina("olympiads"),
    "olympiadbench": Fixture(
        (maths({"id": 1606, "subfield": "Algebra", "question": "1+5?", "solution": ["6"], "final_answer": ["6"]}, "6"),)
    ),
    "omni_math": Fixture(
        (maths({**HALVES, "domain": ["Mathematics -> Algebra"], "difficulty": 4.5, "source": "ours"}, "\\frac{1}{3}"),)
    ),
    "prm800k": Fixture((maths({**HALVES, "subject": "Prealgebra", "level": 2, "unique_id": "x"}, "\\frac{1}{3}"),)),
    "skill_mix": None,
    "skill_mix_cot": None,
    "still_2": Fixture(
        (Case(STILL, STILL["question"], THOUGHT, "30 minutes."),),
        {"filtered out": [{**STILL, "domain": "code"}]},
    ),
    "taco": Fixture(CONTEST.cases, {**CONTEST.dropped, "filtered out": [contest_row(20, STDIN, difficulty="EASY")]}),
}  # fmt: skip
