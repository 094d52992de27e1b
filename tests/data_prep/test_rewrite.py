"""Thought and solution: split at the text's own boundary, or rewritten by a model over HTTP and validated."""

import random
import time

import making
import pytest

from data_prep.errors import DataError
from data_prep.text.thoughts import explanation, split, words
from rewards.code.fences import blocks
from rewards.thinking import thinking
from tests.fakes.openai_server import Finish, OpenAIServer, Request, Status

SKY = thinking("sky_t1")
PROGRAM = "```python\nprint(int(input()) * 2)\n```"


def rewrite(folder, completions, *after, share=0.05, **params):
    rows = [{"id": f"r{n}", "prompt": f"question {n}", "answer": "42", **one} for n, one in enumerate(completions)]
    making.write_jsonl(folder / "in.jsonl", rows)
    return making.run(folder, ("load", {"path": "in.jsonl"}), ("rewrite", params), *after, max_drop_share=share)


@pytest.mark.parametrize(
    ("text", "code", "thought", "solution"),
    [
        ("So 6*7.\n\n**Final Answer**\n\n\\boxed{42}", False, "So 6*7.", "**Final Answer**\n\n\\boxed{42}"),
        ("Try 41.\nNo.\n### Solution:\nIt is \\boxed{42}.", False, "Try 41.\nNo.", "### Solution:\nIt is \\boxed{42}."),
        ("Perhaps \\boxed{41}? No.\n\nIt is \\boxed{42}.", False, "Perhaps \\boxed{41}? No.", "It is \\boxed{42}."),
        ("Solution\nis what I want.\n\n6*7\n\n\\boxed{42}", False, "Solution\nis what I want.\n\n6*7", "\\boxed{42}"),
        ("12+34:2+4=6\n\\boxed{46}", False, "12+34:2+4=6", "\\boxed{46}"),
        ("<think>\nhm\n</think>\n\nIt is 42", False, "hm", "It is 42"),
        (f"Double it:\n```python\nprint(1)\n```\nno:\n{PROGRAM}\nDone.", True,
         "Double it:\n```python\nprint(1)\n```\nno:", f"{PROGRAM}\nDone."),
        (f"Hm.\n{PROGRAM}\nOutput:\n```\n84\n```", True, "Hm.", f"{PROGRAM}\nOutput:\n```\n84\n```"),
    ],
)  # fmt: skip
def test_boundaries(text, code, thought, solution):
    assert split(text, code, 0.6) == (thought, solution)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("\\boxed{42}", False),  # nothing before it
        ("It is 42.", False),
        ("one\n\n\\boxed{42} it was.\n\nBut is it?", False),  # and it goes on
        ("<think>\nhm", False),
        ("<think>a</think>b<think>c</think>d", False),
        ("no program", True),
        ("Hm.\n```python\nprint(1)", True),  # cut off
        (PROGRAM, True),
    ],
)
def test_texts_without_a_boundary(text, code):
    assert split(text, code, 0.6) is None


LONG = "```python\ndef double(number):\n    return number * 2\n\nprint(double(int(input())))\n```"
EXAMPLE = "```python\nprint(double(3))  # 6\n```"
TALK = "Wait, is that right? " * 20


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (f"So:\n{LONG}\nFor example:\n{EXAMPLE}", True),
        (f"So: {LONG}\nFor example:\n{EXAMPLE}", True),  # a fence that opens in running text
        (f"So:\n{LONG.replace('python', '', 1)}\nFor example:\n{EXAMPLE}", True),
        (f"So:\n{LONG.replace('```', '~~~')}\nFor example:\n{EXAMPLE}", True),
        (f"So:\n~~~\n{LONG}\n~~~", True),
        (f"So:\n{LONG}\n{TALK}", True),
        (f"{TALK}\n    ```python\n    print(1)\n    ```", True),  # out of its list, its end would be no end
        (f"We try A.\n\n## Solution\n\n{TALK}\n\n\\boxed{{5}}", False),
        (f"We try A.\n\n**Final Answer**\n\\boxed{{5}}\n{TALK}", False),
        (f"We try A.\n\n{TALK}\\boxed{{5}}", False),
    ],
)
def test_an_ambiguous_boundary_is_not_used(text, code):
    assert split(text, code, 0.6) is None


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (f"{TALK}\n{LONG}\nbetter:\n{LONG.replace('number', 'n')}", True),  # polished, and a little shorter
        (f"Double it.\n{LONG}\nIt doubles what it reads.", True),
        (f"{TALK}\n\n## Solution\n\nTwice the number is meant.\n\n\\boxed{{5}}", False),
        (f"{TALK}\n\n**Final Answer**\n\\boxed{{{'5 + ' * 200}}}", False),  # the box is no explanation
    ],
)
def test_an_unambiguous_boundary(text, code):
    assert split(text, code, 0.6)


def test_the_minimum_thought_length_applies_to_boundaries_and_models(tmp_path):
    rows = [{"completion": "one two three\n\nfour five \\boxed{42}"}]
    assert rewrite(tmp_path, rows, shortest=0.5)[0].counts == {"rewritten by boundary": 1}
    with pytest.raises(DataError, match="keeps none of 1 rows: 1 no boundary between thought and solution"):
        rewrite(tmp_path, rows, shortest=0.9)


@pytest.mark.parametrize(
    ("solution", "count"),
    [
        ("**Final Answer** \\boxed{400}", 0),
        ("**Final Answer**\n\n\\[ \\boxed{\\frac{1}{2} and more} \\]", 0),
        ("## Solution\n\nIt is twice $200$: \\boxed{400}.", 4),
        ("no box: 400", 3),
    ],
)
def test_explanation_words_of_a_solution(solution, count):
    assert words(explanation(solution)) == count


def test_a_bare_answer_goes_to_the_model_if_an_explanation_is_required(tmp_path):
    told = "It is twice two hundred, so \\boxed{400}."
    rows = [
        {"completion": f"{THOUGHT}\n\n**Final Answer**\n\n\\[ \\boxed{{400}} \\]"},
        {"completion": f"{THOUGHT}\n\n**Final Answer**\n\n{told}"},
        {"completion": f"Hm.\n{PROGRAM}", "tests": {"kind": "stdin", "cases": [{"input": "2", "output": "4"}]}},
    ]
    manifest, found = rewrite(tmp_path, rows, explained=5)
    assert [row["id"] for row in found] == ["r1", "r2"]
    assert manifest.drops == {"solution without explanation": 1}
    with OpenAIServer(lambda request: Finish(content=SKY.render(THOUGHT, told))) as server:
        _, found = rewrite(tmp_path, rows, explained=5, model="m", base_url=server.url)
        assert len(server.answered) == 1
    assert [row["meta"]["rewritten_by"] for row in found] == ["model", "boundary", "boundary"]
    assert SKY.parse(found[0]["completion"]).answer == told


def test_every_split_keeps_the_text():
    rng = random.Random(1)
    pieces = ["**Final Answer**\n", "\\boxed{1}", "\n\n", "word ", PROGRAM + "\n", "```\n", "## Solution\n", "\n"]
    found = 0
    for _ in range(2000):
        text = "".join(rng.choices(pieces, k=rng.randint(1, 9)))
        for code in (False, True):
            if parts := split(text, code, 0.6):
                found += 1
                assert "".join(text.split()) == "".join("".join(parts).split())
    assert found > 500


def test_a_solution_is_never_a_fragment_of_the_program():
    rng = random.Random(2)
    pieces = [
        LONG + "\n",
        LONG.replace("```", "~~~") + "\n",
        f"So: {LONG}\n",
        EXAMPLE + "\n",
        "```\n",
        "word ",
        TALK,
        "\n",
    ]
    found = 0
    for _ in range(2000):
        text = "".join(rng.choices(pieces, k=rng.randint(2, 6)))
        if parts := split(text, True, 0.6):
            found += 1
            first, *_ = blocks(parts.solution)
            assert len(first.code) >= 0.8 * max(len(one.code) for one in blocks(text))
            assert TALK.strip() not in parts.solution.split(first.code)[1]
    assert found > 100


@pytest.mark.parametrize("piece", ["```python x\n", "```\n", "```\nx\n", "## Solution\n", "\\boxed{", "\n\n"])
def test_a_looping_text_is_parsed_quickly(piece):
    started = time.process_time()
    for code in (False, True):
        split(piece * 20_000 + "\n\n\\boxed{1}", code, 0.6)
    assert time.process_time() - started < 2


def test_by_boundary_alone(tmp_path):
    completions = [
        {"completion": "So 6*7.\n\n**Final Answer**\n\n\\boxed{42}", "meta": {"tokens": 9, "finish_reason": "stop"}},
        {"completion": f"Hm.\n{PROGRAM}", "tests": {"kind": "stdin", "cases": [{"input": "2", "output": "4"}]}},
        {"completion": "It is 42."},
        {"completion": "So\n\n\\boxed{42}", "meta": {"finish_reason": "length"}},
        {"completion": "I write <|end_of_thought|> and go on\n\n\\boxed{42}"},
    ]
    manifest, rows = rewrite(tmp_path, completions, system="boxed")
    assert [row["id"] for row in rows] == ["r0", "r1"]
    assert SKY.parse(rows[0]["completion"]) == ("So 6*7.", "**Final Answer**\n\n\\boxed{42}", ())
    assert SKY.parse(rows[1]["completion"]) == ("Hm.", PROGRAM, ())
    assert rows[0]["prompt"][0]["role"] == "system"
    assert "boxed" in rows[0]["prompt"][0]["content"]
    assert rows[0]["meta"] == {"finish_reason": "stop", "rewritten_by": "boundary"}
    assert manifest.counts == {"rewritten by boundary": 2}
    assert manifest.drops == {"no boundary between thought and solution": 2, "truncated sample": 1}


def test_a_separate_thought_needs_no_boundary(tmp_path):
    rows = [{"completion": "It is \\boxed{42}.", "meta": {"reasoning": "So 6*7."}}]
    _, (row,) = rewrite(tmp_path, rows)
    assert SKY.parse(row["completion"]) == ("So 6*7.", "It is \\boxed{42}.", ())
    assert row["meta"] == {"rewritten_by": "boundary"}


THOUGHT = " ".join(f"step{n}" for n in range(100))
CASES = {
    "good": (SKY.render(THOUGHT, "It is \\boxed{42}."), "stop", None),
    "fixed on the second try": ("no marks", "stop", "rewriting: no close"),
    "cut": (SKY.render(THOUGHT, "It is \\boxed{42}."), "length", "rewriting truncated"),
    "twice": (SKY.render(THOUGHT, "a") + SKY.render(THOUGHT, "b"), "stop", "rewriting: repeated"),
    "no end": (SKY.render(THOUGHT, "a").replace(SKY.end, ""), "stop", "rewriting: no end"),
    "disorder": (f"{SKY.delimiter}\na\n{SKY.end}\n{SKY.open}\n{THOUGHT}\n{SKY.close}", "stop", "rewriting: disorder"),
    "shortened": (SKY.render(THOUGHT[:200], "a"), "stop", "rewriting: length of the thought"),
    "padded": (SKY.render(f"{THOUGHT} {THOUGHT}", "a"), "stop", "rewriting: length of the thought"),
    "retold": (SKY.render("x" * len(THOUGHT), "a"), "stop", "rewriting: thought changed"),
    "shuffled": (SKY.render(" ".join(reversed(THOUGHT.split())), "a"), "stop", "rewriting: thought changed"),
    "chatter": (f"Sure!\n{SKY.render(THOUGHT, 'a')}", "stop", "rewriting: text before"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_models_rewriting_passes_the_checks_or_is_dropped(tmp_path, case):
    text, finish, reason = CASES[case]
    asked = []

    def script(request: Request):
        asked.append(request)
        second = case.startswith("fixed") and len(asked) > 1
        return Finish(finish, content=CASES["good"][0] if second else text)

    with OpenAIServer(script) as server:
        given = {"model": "m", "base_url": server.url}
        rows = [{"completion": f"{THOUGHT} and so it is 42"}, {"completion": "6*7\n\n\\boxed{42}"}]
        manifest, found = rewrite(tmp_path, rows, **given)
    kept = reason is None or case.startswith("fixed")
    assert [row["meta"]["rewritten_by"] for row in found] == (["model", "boundary"] if kept else ["boundary"])
    assert manifest.drops == ({} if kept else {reason: 1})
    assert len(asked) == (1 if reason is None else 2)
    assert THOUGHT in asked[0].prompt
    assert SKY.open in asked[0].prompt
    assert "question 0" in asked[0].prompt


def test_a_failed_request_is_never_text(tmp_path):
    with OpenAIServer(lambda request: Status(400)) as server:
        given = {"model": "m", "base_url": server.url, "max_error_share": 1}
        rows = [{"completion": "It is 42."}, {"completion": "6*7\n\n\\boxed{42}"}]
        manifest, found = rewrite(tmp_path, rows, share=1, **given)
    assert [row["id"] for row in found] == ["r1"]
    assert manifest.drops == {"api_error: bad_request": 1}


def test_the_rewritten_text_is_graded(tmp_path):
    rows = [
        {"completion": "I think \\boxed{42}.\n\n**Final Answer**\n\\boxed{41}"},  # right in the thought alone
        {"completion": "I think \\boxed{41}.\n\n**Final Answer**\n\\boxed{42}"},
    ]
    grade = ("score", {"reward": "math", "params": {"thinking": "sky_t1"}})
    _, found = rewrite(tmp_path, rows, grade)
    assert [row["score"] for row in found] == [0, 1]


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"format": "sky_t2"}, "unknown thinking format 'sky_t2'.*'sky_t1'"),
        ({"format": "none"}, "no place for a thought"),
        ({"base_url": "http://x/v1"}, "base_url needs model"),
        ({"system": "boxd"}, "no prompt 'boxd'.*'boxed'"),
    ],
)
def test_invalid_parameters(tmp_path, params, said):
    with pytest.raises(DataError, match=said):
        rewrite(tmp_path, [{"completion": "a"}], **params)
