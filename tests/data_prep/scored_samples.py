"""Scored samples of questions, as produced by `generate` and `score`, for tests of the builders."""

import random

import making

from data_prep.core import pipeline
from data_prep.core.manifest import Manifest

TESTS = {"kind": "call", "function": "f", "cases": [{"args": [1], "expected": 2}]}
FENCE = "```"


def code(body: str) -> str:
    return f"def f(x):\n    return {body}"


def block(text: str, language: str = "python") -> str:
    return f"{FENCE}{language}\n{text}\n{FENCE}"


def sample(question: str, number: int, score: float, body: str | None = None, **more) -> dict:
    """One row; its completion reasons, shows a partial program, and ends with the whole program."""
    text = code(body if body is not None else f"x + {number}")
    row = {
        "id": f"{question}/{number}",
        "prompt": [{"role": "user", "content": f"Question {question}"}],
        "completion": f"First a part:\n{block('x = 1')}\nNow all of it:\n{block(text)}\n",
        "tests": TESTS,
        "score": score,
        "outcome": "scored",
        "meta": {
            "prompt_id": question, "sample": number, "finish_reason": "stop", "tokens": 9, "skills": ["a", "b"],
            "score_details": {"passed": 1},
        },
    }  # fmt: skip
    return {**row, **more}


def samples(scores: dict[str, list[float]]) -> list[dict]:
    return [sample(name, at, score) for name, found in scores.items() for at, score in enumerate(found)]


def build(folder, rows: list[dict], kind: str, shuffle: int | None = None, **params) -> tuple[Manifest, list[dict]]:
    """A builder's manifest and rows; the input rows do not go through `load`."""
    folder.mkdir(exist_ok=True)
    if shuffle is not None:
        rows = random.Random(shuffle).sample(rows, len(rows))
    making.write_jsonl(folder / "in.jsonl", rows)
    columns = {field: field for field in rows[0] if field not in ("meta", "score", "outcome")}
    chain = making.spec(folder, ("load", {"path": "in.jsonl", "columns": columns}), (kind, params), max_drop_share=0.5)
    manifest = pipeline.run(chain)[-1]
    return manifest, list(pipeline.read_rows(pipeline.find(chain)))
