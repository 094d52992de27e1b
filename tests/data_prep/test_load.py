"""Loading: files of every kind and shape, hostile rows, tasks."""

import csv
import json
import re
from functools import partial
from pathlib import Path

import making
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.core import pipeline, rows
from data_prep.core.step import Drop
from data_prep.errors import DataError, LimitExceeded
from data_prep.sources import tasks
from data_prep.sources.columns import as_text, final_answer, pick

QUESTION, ANSWER = "What is 2 + 3?", "2 + 3 = \\boxed{5}"
USER = {"role": "user", "content": QUESTION}


def load(folder: Path, **params):
    limit = params.pop("max_drop_share", 0.05)
    return making.run(folder, ("load", params), max_drop_share=limit)


def load_one(folder: Path, record: dict, **params) -> dict:
    making.write_jsonl(folder / "in.jsonl", [record])
    return load(folder, path="in.jsonl", **params)[1][0]


@pytest.mark.parametrize(
    "record",
    [
        {"conversations": [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": ANSWER}]},
        {"messages": [USER, {"role": "assistant", "content": ANSWER}]},
        {"conversations": [USER, {"role": "assistant", "content": ANSWER}]},
        {"instruction": QUESTION, "input": "", "output": ANSWER},
        {"prompt": QUESTION, "response": ANSWER},
        {"prompt": [USER], "completion": ANSWER},
        {"question": QUESTION, "solution": ANSWER},
        {"problem": QUESTION, "solution": ANSWER, "answer": 5.0},
        {"prompt": QUESTION, "solution": ANSWER, "answer": "5", "meta": {"difficulty": "easy"}},
    ],
    ids=lambda record: "+".join(record),
)
def test_shapes_are_recognised(tmp_path, record):
    row = load_one(tmp_path, record)
    assert row["prompt"] == [USER]
    assert row["completion"] == ANSWER
    assert row.get("answer") == ("5" if "answer" in record else None)
    assert row.get("meta") == record.get("meta")
    assert re.fullmatch("[0-9a-f]{16}", row["id"])


def test_more_chat_and_alpaca_rows(tmp_path):
    turns = [USER, {"role": "assistant", "content": "5"}, {"role": "user", "content": "And 2 × 3?"}]
    row = load_one(tmp_path, {"messages": [*turns, {"role": "assistant", "content": "6"}], "system": "Be brief."})
    assert row["prompt"] == [{"role": "system", "content": "Be brief."}, *turns]
    assert row["completion"] == "6"
    row = load_one(tmp_path, {"instruction": "Add.", "input": "2, 3", "output": "5"})
    assert row["prompt"][0]["content"] == "Add.\n2, 3"


def test_question_and_verifiable_answer(tmp_path):
    nested = {"prompt": [USER], "data_source": "made", "reward_model": {"ground_truth": 5}}
    row = load_one(tmp_path, nested)
    assert (row["answer"], row["source"]) == ("5", "made")


def test_unrecognised_rows_list_the_columns(tmp_path):
    with pytest.raises(DataError, match=r"among the columns frage, antwort; say it: `columns: \{prompt: <column>"):
        load_one(tmp_path, {"frage": QUESTION, "antwort": "5"})
    columns = {"prompt": "frage", "answer": "antwort.zahl[1]", "meta.level": "stufe"}
    row = load_one(tmp_path, {"frage": QUESTION, "antwort": {"zahl": [4, 5]}, "stufe": 2}, columns=columns)
    assert (row["prompt"], row["answer"], row["meta"]) == ([USER], "5", {"level": 2})
    with pytest.raises(DataError, match=r"no column fragen; it has: frage, antwort"):
        load_one(tmp_path, {"frage": QUESTION, "antwort": "5"}, columns={"prompt": "fragen"})


def test_a_column_missing_in_the_first_row_is_still_seen(tmp_path):
    making.write_jsonl(tmp_path / "in.jsonl", [{"prompt": QUESTION}, *making.rows(40)])
    manifest, found = load(tmp_path, path="in.jsonl")
    assert manifest.drops == {"missing completion": 1}
    assert len(found) == 40


HOSTILE = [
    (b'{"prompt": "p", "completion": null}', "null completion"),
    (b'{"completion": "c"}', "missing prompt"),
    (b'{"prompt": null, "completion": "c"}', "null prompt"),
    (b'{"prompt": "  ", "completion": "c"}', "empty prompt"),
    (b'{"prompt": 5, "completion": "c"}', "prompt is neither a text nor messages"),
    (b'{"prompt": [{"role": "wizard", "content": "x"}], "completion": "c"}', "unknown role in prompt"),
    (b'{"prompt": [{"role": ["user"], "content": "x"}], "completion": "c"}', "unknown role in prompt"),
    (b'{"prompt": [{"role": "user", "content": "x"}, 7], "completion": "c"}', "prompt is not chat messages"),
    (b'{"prompt": "p", "completion": ["c", "d"]}', "completion is not a string"),
    (b'{"prompt": "p", "completion": "c"', "not JSON"),
    (b'{"prompt": "p", "completion": NaN}', "null completion"),
    (b'{"prompt": "p", "completion": "c", "score": 1e999}', "number is not finite"),
    (b'{"prompt": "p", "completion": "\\ud800"}', "not Unicode"),
    (b'{"prompt": "p", "completion": "\xff\xfe"}', "not UTF-8"),
    (b'["prompt", "completion"]', "not an object"),
    (b"[" * 100_000, "not JSON"),
    (b"1" * 5_000, "not JSON"),
    (b'{"prompt": "p", "completion": "' + b"x" * 5_000_000 + b'"}', "string too long"),
]


def test_hostile_rows_affect_only_themselves(tmp_path):
    good = [json.dumps(row).encode() for row in making.rows(500)]
    # U+2028 and U+0085 inside strings are no ends of lines, nor is a carriage return before one.
    good += [
        '{"prompt": "a\u2028b\x85c", "completion": "d"}'.encode(),
        b'{"prompt":"p","completion":"c"}\r',
        b"",
        b"  ",
    ]
    lines = good + [line for line, _ in HOSTILE]
    (tmp_path / "in.jsonl").write_bytes(b"\xef\xbb\xbf" + b"\n".join(lines))
    manifest, found = load(tmp_path, path="in.jsonl")
    expected = [reason for _, reason in HOSTILE]
    assert manifest.drops == {reason: expected.count(reason) for reason in expected}
    assert (manifest.rows_in, manifest.rows_out, manifest.bad) == (502 + len(HOSTILE), 502, len(HOSTILE))
    assert found[500]["prompt"][0]["content"] == "a\u2028b\x85c"
    assert manifest.examples["not an object"] == [
        {"row_id": "line 519", "detail": 'a JSON list: b\'["prompt", "completion"]\''}
    ]


def test_too_many_hostile_rows_abort(tmp_path):
    (tmp_path / "in.jsonl").write_text('{"prompt": "p"}\n' * 90 + "no\n" * 10)
    with pytest.raises(LimitExceeded, match=r"10 of 100 rows are unusable \(10 not JSON\)"):
        load(tmp_path, path="in.jsonl")
    assert load(tmp_path, path="in.jsonl", max_drop_share=0.1)[0].rows_out == 90


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.text(max_size=100).map(lambda text: json.dumps({"a": text}).encode())))
def test_any_line_is_an_object_or_a_drop(line):
    found = rows.decode(line)
    assert isinstance(found, Drop | dict)
    if isinstance(found, dict):
        encoded = rows.encode(found)
        assert isinstance(encoded, Drop) or (rows.decode(encoded) == found and encoded.count(b"\n") == 1)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from([*rows.FIELDS, "question", "messages", "output"]), json_values, max_size=6))
def test_any_record_is_a_row_or_a_drop(record):
    from data_prep.sources.shapes import recognised

    try:
        convert = recognised(record, "here")
    except DataError:
        return
    found = convert(record)
    if isinstance(found, dict) and rows.check(found, ("prompt",)) is None:
        assert all(isinstance(message["content"], str) for message in found["prompt"])


def test_json_csv_and_parquet_give_the_same_rows(tmp_path):
    records = [{"question": f'{n}, "quoted"\nline é', "answer": str(n)} for n in range(30)]
    making.write_jsonl(tmp_path / "a.jsonl", records)
    (tmp_path / "a.json").write_text(json.dumps(records, indent=1))
    making.write_jsonl(tmp_path / "lines.json", records)
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "a.parquet")
    with (tmp_path / "a.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["question", "answer"])
        writer.writeheader()
        writer.writerows(records)
    found = [
        load(tmp_path, path=name, source="s")[1] for name in ("a.jsonl", "a.json", "lines.json", "a.parquet", "a.csv")
    ]
    assert len(found[0]) == 30
    assert all(one == found[0] for one in found)


def test_a_broken_csv_row_is_a_drop(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"question,answer\n" + b"q,1\n" * 50 + b"q,1,2\nonly\nb\xff,1\n")
    manifest, _ = load(tmp_path, path="a.csv", max_drop_share=0.1)
    assert manifest.drops == {"wrong number of columns": 2, "not UTF-8": 1}
    assert manifest.rows_out == 50


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b'[{"prompt": "p"},', "not JSON"),
        ("a.json", b'[{"prompt": "\xff"}]', "not UTF-8 at byte 13"),
        ("a.parquet", b"PAR0", "not Parquet"),
        ("a.txt", b"x", r"rows are read from \.arrow, .*\*\.zst, not '\.txt'"),
        ("a.jsonl", b"", r"step 'load' keeps none of 0 rows from /.*/a\.jsonl$"),
        ("a.json", b" ", r"keeps none of 0 rows from /.*/a\.json$"),
        ("a.csv", b"question,answer\n", r"keeps none of 0 rows from /.*/a\.csv$"),
    ],
)
def test_an_unreadable_file_is_a_one_line_error(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path, path=name)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_found_before_running(tmp_path):
    with pytest.raises(DataError, match=r"step 'load': no file .*absent\.jsonl"):
        pipeline.plan(making.spec(tmp_path, ("load", {"path": "absent.jsonl"})))


def test_a_folder_is_not_a_file(tmp_path):
    (tmp_path / "rows.jsonl").mkdir()
    with pytest.raises(DataError, match=r"step 'load': /.*/rows\.jsonl: no data file in this folder") as caught:
        pipeline.plan(making.spec(tmp_path, ("load", {"path": "rows.jsonl"})))
    assert caught.value.step == "load"


def test_no_rows_left_names_files_and_reasons(tmp_path):
    making.write_jsonl(tmp_path / "a.jsonl", making.rows(4))
    with pytest.raises(DataError, match=r"keeps none of 4 rows from /.*/a\.jsonl: 4 filtered out$"):
        load(tmp_path, path="a.jsonl", filter={"completion": "none"})


def test_the_key_depends_on_content_not_location(tmp_path):
    making.write_jsonl(tmp_path / "a.jsonl", making.rows(3))
    (tmp_path / "b").mkdir()
    making.write_jsonl(tmp_path / "b" / "a.jsonl", making.rows(3))
    key = partial(lambda **params: pipeline.jobs(making.spec(tmp_path, ("load", params)))[0].key)
    assert key(path="a.jsonl") == key(path="b/a.jsonl")
    assert key(path="a.jsonl") != key(path="a.jsonl", system="boxed") != key(path="a.jsonl", limit=2)
    making.write_jsonl(tmp_path / "b" / "a.jsonl", making.rows(4))
    assert key(path="a.jsonl") != key(path="b/a.jsonl")


def test_filter_limit_and_sample(tmp_path):
    levels = [{**row, "level": n % 4} for n, row in enumerate(making.rows(100))]
    making.write_jsonl(tmp_path / "in.jsonl", levels)
    manifest, found = load(tmp_path, path="in.jsonl", filter={"level": [1, 2]}, limit=20)
    assert manifest.drops == {"filtered out": 19}
    assert [row["meta"]["level"] for row in found[:3]] == [1, 2, 1]
    _, sample = load(tmp_path, path="in.jsonl", limit=20, seed=1)
    _, again = load(tmp_path, path="in.jsonl", limit=20, seed=1)
    _, other = load(tmp_path, path="in.jsonl", limit=20, seed=2)
    assert sample == again != other
    making.write_jsonl(tmp_path / "in.jsonl", levels[::-1])
    _, backwards = load(tmp_path, path="in.jsonl", limit=20, seed=1)
    assert sample == backwards[::-1]
    with pytest.raises(DataError, match="filter: no column lvl; it has: prompt, completion"):
        load(tmp_path, path="in.jsonl", filter={"lvl": 1})


def test_ids_are_unique(tmp_path):
    making.write_jsonl(tmp_path / "in.jsonl", [{"prompt": "p", "id": 7}] * 3 + [{"prompt": "q"}] * 2)
    ids = [row["id"] for row in load(tmp_path, path="in.jsonl")[1]]
    assert ids[:3] == ["7", "7-2", "7-3"]
    assert ids[4] == f"{ids[3]}-2"


def test_system_prompt(tmp_path):
    row = load_one(tmp_path, {"prompt": QUESTION}, system="boxed")
    assert row["prompt"][0]["role"] == "system"
    assert "\\boxed{}" in row["prompt"][0]["content"]
    own = load_one(tmp_path, {"prompt": [{"role": "system", "content": "mine"}, USER]}, system="boxed")
    assert own["prompt"][0]["content"] == "mine"


def test_final_answers():
    assert final_answer({"answer": "So 3 + 4 = <<3+4=7>>7\n#### 1,234,567"}, "gsm8k") == "1234567"
    assert final_answer({"answer": "no mark"}, "gsm8k") is None
    assert final_answer({"completion": "\\boxed{1}, so it is \\boxed{\\frac{1}{2}}"}, "boxed") == "\\frac{1}{2}"
    assert [as_text(value) for value in (27.0, 2.5, 3, True, " x ", ["7"])] == [
        "27",
        "2.5",
        "3",
        "True",
        "x",
        "7",
    ]
    assert pick({"a.b": 1, "a": {"b": 2}}, "a.b") == 1
    assert pick({"a": [{"b": 2}]}, "a[0].b") == 2
    assert pick({"a": []}, "a[0].b") is None


def test_rows_without_the_required_answer_are_bad(tmp_path):
    records = [{"question": "q", "answer": f"#### {n}"} for n in range(50)] + [{"question": "q", "answer": "none"}]
    making.write_jsonl(tmp_path / "in.jsonl", records)
    manifest, found = load(tmp_path, path="in.jsonl", answer_from="gsm8k")
    assert manifest.drops == {"no gsm8k answer": 1}
    assert found[49]["answer"] == "49"


# Rows made for this test in the columns of each original: as on the Hub, and as in the mirror's file.
FIXTURES = {
    "gsm8k": [{"question": "Two bags of 3 apples?", "answer": "2*3 = <<2*3=6>>6\n#### 6", "idx": 0}],
    "math500": [
        {
            "problem": "1+5?",
            "solution": "\\boxed{6}",
            "answer": "6",
            "subject": "Algebra",
            "level": 2,
            "unique_id": "x",
        },
        {"question": "1+5?", "answer": "6"},
    ],
    "amc23": [{"id": 0, "problem": "1+5?", "question": "1+5?", "answer": 6.0, "url": "https://example.com/2023"}],
    "olympiadbench": [
        {
            "id": 1606,
            "subfield": "Algebra",
            "context": None,
            "question": "1+5?",
            "solution": ["6"],
            "final_answer": ["6"],
        }
    ],
}


@pytest.mark.parametrize(("name", "record"), [(name, one) for name, each in FIXTURES.items() for one in each])
def test_tasks_read_the_columns_of_their_originals(tmp_path, name, record):
    making.write_jsonl(tmp_path / "rows.jsonl", [record] * 2)
    manifest, found = load(tmp_path, task=name, paths={name: "rows.jsonl"})
    assert manifest.rows_out == 2
    row = found[0]
    assert (row["answer"], row["source"]) == ("6", name)
    assert [message["role"] for message in row["prompt"]] == ["system", "user"]
    assert row.get("meta", {}).get("level") == record.get("level")
    assert ("id" not in record) or row["id"] == f"{name}/{record['id']}"


def test_a_local_file_for_a_task_may_hold_short_answers(tmp_path):
    making.write_jsonl(tmp_path / "rows.jsonl", [{"prompt": "1+5?", "answer": 6, "source": "elsewhere"}])
    _, found = load(tmp_path, task="gsm8k", paths={"gsm8k": "rows.jsonl"})
    assert (found[0]["answer"], found[0]["source"]) == ("6", "gsm8k")


def test_arithmetic_comes_from_the_curriculum(tmp_path):
    manifest, found = load(tmp_path, task="arithmetic")
    levels = tasks.read("arithmetic").step["curriculum"]["levels"]
    assert manifest.rows_out == sum(levels.values())
    assert {row["meta"]["level"] for row in found} == set(levels)


def test_several_tasks_stay_separate(tmp_path):
    making.write_jsonl(tmp_path / "g.jsonl", FIXTURES["gsm8k"])
    making.write_jsonl(tmp_path / "a.jsonl", FIXTURES["amc23"])
    _, found = load(tmp_path, tasks=["gsm8k", "amc23"], paths={"gsm8k": "g.jsonl", "amc23": "a.jsonl"})
    assert [row["source"] for row in found] == ["gsm8k", "amc23"]


def test_every_task_is_valid_and_pinned():
    for name in tasks.names():
        task = tasks.read(name)
        assert task.step or task.file or (task.hub and len(task.hub.revision) == 40)
        for remote in (task.file, task.mirror):
            assert remote is None or remote.sha256 or remote.git_blob
    assert {"gsm8k", "math500", "amc23", "olympiadbench", "arithmetic"} <= set(tasks.names())


def test_golds_that_do_not_grade_as_correct_are_dropped(tmp_path):
    golds = ["12", r"\frac{1}{2}", "", "3,5"]
    making.write_jsonl(
        tmp_path / "in.jsonl", [{"id": f"q{n}", "prompt": "q", "answer": a} for n, a in enumerate(golds)]
    )
    load = {"path": "in.jsonl", "check_gold": {"name": "math"}}
    with pytest.raises(LimitExceeded, match="reference answer fails its own grader"):
        making.run(tmp_path, ("load", load))
    manifest, rows = making.run(tmp_path, ("load", load), max_drop_share=0.5)
    assert [row["id"] for row in rows] == ["q0", "q1", "q3"]
    assert manifest.drops == {"reference answer fails its own grader": 1}


def test_an_unknown_reward_for_golds_is_rejected(tmp_path):
    with pytest.raises(DataError, match="did you mean 'math'"):
        making.run(tmp_path, ("load", {"path": "in.jsonl", "check_gold": {"name": "meth"}}))
