"""Preview of the first rows of a user's file, before anything runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import making
import pytest

from data_prep.errors import DataError
from data_prep.steps.export import Export, ExportParams
from data_prep.steps.load import Load, LoadParams
from tests.conftest import OUTER_MAKE, REPO


def preview(path: Path) -> str:
    return Load(LoadParams(path=str(path))).preview(path.parent)


def shared(problem: str, answer: str) -> dict:
    return {"conversations": [{"from": "human", "value": problem}, {"from": "gpt", "value": answer}]}


def test_rows_drops_and_fields_are_counted(tmp_path):
    rows = [shared(f"What is {n} + {n}?", f"It is {2 * n}.") for n in range(5)]
    rows[2] = shared("", "It is 4.")
    path = making.write_jsonl(tmp_path / "mine.jsonl", rows)
    expected = "of the first 5 records 4 become rows with prompt, completion, source; dropped: 1 empty prompt"
    assert preview(path) == expected


def test_only_the_first_hundred_are_read(tmp_path):
    rows = [shared(f"What is {n} + {n}?", f"It is {2 * n}.") for n in range(150)]
    path = making.write_jsonl(tmp_path / "mine.jsonl", rows)
    assert preview(path).startswith("of the first 100 records 100 become rows")


def test_a_file_without_usable_rows_is_an_error(tmp_path):
    path = making.write_jsonl(tmp_path / "mine.jsonl", [shared("", "It is 4.")] * 3)
    with pytest.raises(DataError, match=r"none of the first 3 records becomes a row; dropped: 3 empty prompt"):
        preview(path)
    with pytest.raises(DataError, match="holds no records"):
        preview(making.write_jsonl(path, []))
    path.write_text("Entry not found")
    with pytest.raises(DataError, match=r"holds no records: line 1: not JSON .*Entry not found"):
        Load(LoadParams(path=str(path))).peek(tmp_path)


ASKED, ANSWERED = {"role": "user", "content": "What is 2 + 2?"}, {"role": "assistant", "content": "It is 4."}


@pytest.mark.parametrize(
    ("record", "export", "dropped"),
    [
        ({"prompt": "What is 2 + 2?"}, {}, "missing completion .set `columns: {completion: "),
        ({"messages": [ASKED, ASKED, ANSWERED]}, {}, "roles do not alternate"),
        ({"messages": [ASKED, ANSWERED]}, {"preference": True}, "missing rejected"),
        ({"prompt": "Hi", "chosen": "4", "rejected": "4"}, {"preference": True}, "rejected equals completion"),
        ({"messages": [ASKED, ANSWERED]}, {"format": "verl"}, "no gold"),
    ],
)
def test_rows_that_the_trainer_cannot_use_are_counted(record, export, dropped, tmp_path):
    path = making.write_jsonl(tmp_path / "mine.jsonl", [record] * 2)
    with pytest.raises(DataError, match=f"none of the first 2 records becomes a row; dropped: 2 {dropped}"):
        Load(LoadParams(path=str(path))).preview(tmp_path, Export(ExportParams(**export)))


@pytest.mark.parametrize(
    ("record", "export", "named"),
    [
        ({"query": "2 + 2?", "pos": ["4"], "neg": ["5"]}, {}, "query, pos, neg; columns not read: pos, neg"),
        ({"question": "2 + 2?", "answer": "4"}, {}, "question, answer$"),
        ({"instruction": "2 + 2?", "generations": ["4", "5"]}, {}, "columns not read: generations"),
        ({"prompt": "2 + 2?", "good": "4", "bad": "5"}, {"preference": True}, "columns not read: good, bad"),
        ({"prompt": "2 + 2?", "response_1": "4", "response_2": "5"}, {"preference": True}, "response_1, response_2"),
        ({"prompt": "2 + 2?", "target": 4, "input_output": "{}"}, {"format": "verl"}, "columns not read: input_output"),
    ],
)
def test_columns_that_may_hold_what_rows_lack_are_named(record, export, named, tmp_path):
    path = making.write_jsonl(tmp_path / "mine.jsonl", [record])
    with pytest.raises(DataError, match=named):
        Load(LoadParams(path=str(path))).preview(tmp_path, Export(ExportParams.model_validate(export)))


def test_a_filter_that_takes_none_of_the_first_rows_is_no_error(tmp_path):
    path = making.write_jsonl(tmp_path / "mine.jsonl", [{"prompt": "1", "answer": "1", "kind": "x"}] * 3)
    line = Load(LoadParams(path=str(path), filter={"kind": "y"})).preview(tmp_path)
    assert line == "of the first 3 records 0 become rows; dropped: 3 filtered out; columns not read: kind"


def test_check_of_a_recipe_reports_it(tmp_path):
    path = making.write_jsonl(tmp_path / "mine.jsonl", [shared("What is 2 + 2?", "It is 4.")])
    environ = {key: value for key, value in os.environ.items() if key not in OUTER_MAKE}
    command = [sys.executable, "-m", "launchers", "check", "min_o1/sft_short", "--set", f"data={path}", "--json"]
    done = subprocess.run(command, cwd=REPO, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (line,) = json.loads(done.stdout)["data"]
    assert line.startswith(f"{path}: of the first 1 records 1 become rows with")
    making.write_jsonl(path, [{"prompt": "What is 2 + 2?", "reply_text": "It is 4."}])
    command[3] = "plan"  # which does not look at a preview
    done = subprocess.run(command, cwd=REPO, env=environ, capture_output=True, text=True)
    assert (done.returncode, "columns not read: reply_text" in done.stdout + done.stderr) == (2, True)
