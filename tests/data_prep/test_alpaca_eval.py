"""AlpacaEval 2's own annotator with a scripted endpoint: verdicts, order, missing ones, length control, thoughts."""

from __future__ import annotations

import json
import math
from pathlib import Path

import making
import pytest

from data_prep.core import pipeline
from data_prep.errors import DataError
from data_prep.inference.interpreters import run_with
from launchers import envs
from tests.fakes.openai_server import OpenAIServer, Raw

CITIES = {"France": "Paris", "Spain": "Madrid", "Italy": "Rome", "Japan": "Tokyo", "Peru": "Lima", "Kenya": "Nairobi",
          "Chad": "N'Djamena", "Cuba": "Havana", "Iran": "Tehran", "Iraq": "Baghdad"}  # fmt: skip

GRADE = "data_prep.steps.alpaca_eval:AlpacaEvalGrade"


def judge(request):
    """Prefers the answer that names the capital, at odds of 9 to 1; gives no verdict about Peru."""
    asked, rest = request.prompt.split('"m",', 1)
    first, second = rest.split('"M"', 1)
    country = next(name for name in CITIES if name in asked)
    right = [CITIES[country] in side for side in (first, second)]
    chance = 0.5 if right[0] == right[1] else 0.9 if right[0] else 0.1
    top = [{"token": "m", "logprob": math.log(chance)}, {"token": "M", "logprob": math.log(1 - chance)}]
    if country == "Peru":
        top = [{"token": "Beide", "logprob": -0.1}]
    top = [{**token, "bytes": None} for token in top]
    logprobs = {"content": [{**top[0], "top_logprobs": top}]}
    message = {"role": "assistant", "content": top[0]["token"]}
    choice = {"index": 0, "finish_reason": "length", "message": message, "logprobs": logprobs}
    usage = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}
    answer = {"id": "x", "object": "chat.completion", "created": 0, "model": "judge", "choices": [choice]}
    return Raw(json.dumps({**answer, "usage": usage}).encode())


def spec(folder: Path, url: str, rows: list[dict], **params) -> pipeline.Spec:
    grade = {"model": "judge", "base_url": url, "thinking": "think", **params}
    file = making.write_jsonl(folder / "rows.jsonl", rows)
    return making.spec(folder, ("load", {"path": str(file)}), (GRADE, grade), max_drop_share=0.2)


def rows() -> list[dict]:
    """Our answers are right except for Cuba, the baseline's only for Spain; every thought names the wrong city."""
    made = []
    for country, city in CITIES.items():
        ours = "Lyon." if country == "Cuba" else f"The capital is {city}."
        asked = {"role": "user", "content": f"Name the capital of {country}."}
        theirs = "Madrid." if country == "Spain" else "Oz."
        made.append({"id": f"q/{country}", "prompt": [asked], "completion": f"<think>Atlantis?</think>{ours}",
                     "answer": theirs, "source": "alpaca_eval", "meta": {}})  # fmt: skip
    return made


def graded(made: pipeline.Spec) -> list[dict]:
    pipeline.run(made, ["load"])
    run_with(made, [GRADE], envs.ensure("alpaca_eval"))
    return list(pipeline.read_rows(pipeline.find(made)))


@pytest.fixture
def regression(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An invented length-control file of the Hub for the questions here."""
    lines = ["index,std_delta_len,preference,instruction_difficulty,not_gamed_baseline,model"]
    for length, preference in ((1.0, 0.2), (-1.0, 0.8)):  # two baselines, of long and of short answers
        lines += [f"{at},{length},{preference},{at / 10},False,gamed" for at in range(len(CITIES))]
    hub = tmp_path / "hub" / "datasets--tatsu-lab--alpaca_eval"
    (hub / "refs").mkdir(parents=True)
    (hub / "refs/main").write_text("0" * 40)
    (hub / "snapshots" / ("0" * 40)).mkdir(parents=True)
    (hub / "snapshots" / ("0" * 40) / "df_gamed.csv").write_text("\n".join(lines) + "\n")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return hub


def test_verdicts_are_parsed_and_missing_ones_excluded_from_the_mean(tmp_path: Path, regression: Path) -> None:
    with OpenAIServer(judge) as server:
        made = spec(tmp_path, server.url, rows())
        done = graded(made)
        asked = list(server.requests)
    plain = {row["id"]: row["score"] for row in done if row["source"] == "alpaca_eval"}
    assert "q/Peru" not in plain
    assert [drop["reason"] for drop in pipeline.drops(made, made.steps[-1])] == ["the judge gave no verdict"]
    assert plain.pop("q/Cuba") == plain.pop("q/Spain") == pytest.approx(0.5)
    assert list(plain.values()) == pytest.approx([0.9] * len(plain))
    equal = [row["score"] for row in done if row["source"] == "alpaca_eval_lc"]
    assert len(equal) == len(plain) + 2
    assert all(0 < value < 1 for value in equal)
    assert {row["meta"]["metric"]["name"] for row in done} == {"win rate", "length-controlled win rate"}
    assert len(asked) == len(CITIES)
    sides = ["The capital is" in request.prompt.split('"m",')[1].split('"M"')[0] for request in asked]
    assert len(set(sides)) == 2  # ours stands first in some, second in others
    assert not any("Atlantis" in json.dumps(request.body) for request in asked)
    assert all(request.key == "none" for request in asked)


def test_length_control_needs_all_questions(tmp_path: Path, regression: Path, capfd) -> None:
    with OpenAIServer(judge) as server:
        with pytest.raises(DataError):
            graded(spec(tmp_path, server.url, rows()[:3]))
        assert "length control needs all of its 10 questions, got 3" in capfd.readouterr().err
        assert not server.requests  # nothing has been paid for
        done = graded(spec(tmp_path, server.url, rows()[:3], length_controlled=False))
        assert [row["score"] for row in done] == pytest.approx([0.9, 0.5, 0.9])
        assert len(server.requests) == 3


def test_two_answers_to_a_question_are_rejected(tmp_path: Path, capfd) -> None:
    twice = [{**row, "id": f"{row['id']}/{k}"} for row in rows()[:1] for k in range(2)]
    with pytest.raises(DataError):
        graded(spec(tmp_path, "http://127.0.0.1:1", twice))
    assert "set eval.n to 1" in capfd.readouterr().err
