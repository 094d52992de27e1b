"""Files of all kinds are read or reported: compressed, in folders, tables, copies of Hub repositories."""

import gzip
import json
from datetime import date
from pathlib import Path

import making
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from pyarrow import feather
from test_shapes import ANSWERED, ASKED, BAD, GOOD, QUESTION

from data_prep.core import pipeline
from data_prep.core.step import Drop
from data_prep.errors import DataError
from data_prep.sources.files import read_records


def read(folder: Path, path: str) -> int:
    spec = making.spec(folder, ("load", {"path": path}))
    return pipeline.run(spec)[0].rows_out


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
def test_a_repeated_column_is_not_overwritten(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "1+1?", "completion": "2", "prompt": "2+2?"}\n' * 2)
    (tmp_path / "a.csv").write_text("prompt,completion,completion\n1+1?,2,3\n")
    columns = [pa.array([QUESTION]), pa.array([GOOD]), pa.array([BAD])]
    pq.write_table(pa.Table.from_arrays(columns, ["prompt", "completion", "completion"]), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"2 not JSON|several columns are named completion"):
        read(tmp_path, name)


def test_quotes_do_not_swallow_lines(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('prompt,completion\nq1,a1\nq2,"a2\nq3,a3\n')
    with pytest.raises(DataError, match=r"a\.csv: a quote that is not closed.* begins at line 3"):
        read(tmp_path, "a.csv")
    (tmp_path / "a.tsv").write_text('prompt\tcompletion\n"Hi" she said.\t"a ""b"""\nq2\t"a2\nq3\ta3\n')
    _, rows = making.run(tmp_path, ("load", {"path": "a.tsv"}))
    assert [row["completion"] for row in rows] == ['a "b"', '"a2', "a3"]


def test_files_compressed_in_folders_and_by_globs(tmp_path: Path) -> None:
    line = json.dumps({"messages": [ASKED, ANSWERED]}) + "\n"
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "A.JSONL").write_text(line)
    (tmp_path / "all" / "b.ndjson.gz").write_bytes(gzip.compress((line * 2).encode()))
    (tmp_path / "c.tsv").write_text(f"question\tanswer\n{QUESTION}\t24\n")
    (tmp_path / "d.json").write_text(json.dumps({"version": 1, "data": [{"messages": [ASKED, ANSWERED]}] * 3}))
    (tmp_path / "e.csv").write_text(f"prompt;completion\r\n{QUESTION};24\r\n")  # as table programs write it
    (tmp_path / "f.jsonl").write_text(json.dumps([{"messages": [ASKED, ANSWERED]}] * 2, indent=1))  # JSON, not lines
    (tmp_path / "g.json").write_text(json.dumps({"prompt": [QUESTION] * 2, "completion": [GOOD, BAD]}))
    pretty = json.dumps({"messages": [ASKED, ANSWERED]}, indent=1)
    (tmp_path / "h.jsonl").write_text(f"{pretty}\n{pretty}\n")
    (tmp_path / "i.jsonl").write_text(f"\ufeff[{pretty}]")
    row = {"row_idx": 0, "row": {"messages": [ASKED, ANSWERED]}, "truncated_cells": []}
    (tmp_path / "j.json").write_text(json.dumps({"features": [{"name": "messages"}], "rows": [row]}))
    making.write_jsonl(tmp_path / "k.jsonl", [[ASKED, ANSWERED]] * 2)  # conversations by themselves
    (tmp_path / "l.json").write_text(json.dumps([[ASKED, ANSWERED]] * 2))
    paths = ("all", "all/*.gz", *(next(tmp_path.glob(f"{name}.*")).name for name in "cdefghijkl"))
    assert [read(tmp_path, path) for path in paths] == [3, 2, 1, 3, 1, 2, 2, 2, 1, 1, 2, 2]


def test_a_folder_of_several_splits_is_refused(tmp_path: Path) -> None:
    for name in ("train-00000-of-00002", "train-00001-of-00002", "validation-00000-of-00001"):
        (tmp_path / "data").mkdir(exist_ok=True)
        making.write_jsonl(tmp_path / "data" / f"{name}.jsonl", [{"messages": [ASKED, ANSWERED]}])
    with pytest.raises(DataError, match=r"several splits \(train, validation\)"):
        read(tmp_path, "data")
    assert read(tmp_path, "data/train*") == 2


def test_arrow_files_and_a_copy_of_a_hub_repository(tmp_path: Path) -> None:
    table = pa.table({"problem": [QUESTION] * 3, "solution": [GOOD] * 3})
    Dataset(table).save_to_disk(tmp_path / "saved")
    feather.write_feather(table, tmp_path / "a.feather")
    (tmp_path / "copy" / "data").mkdir(parents=True)
    (tmp_path / "copy" / "dataset_infos.json").write_text('{"default": {"features": {}}}')
    (tmp_path / "copy" / "README.md").write_text("# A card")
    pq.write_table(table, tmp_path / "copy" / "data" / "train-00000-of-00001.parquet")
    assert [read(tmp_path, path) for path in ("saved", "a.feather", "copy")] == [3, 3, 3]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer.*git lfs pull"),
        ('{"a": 1}\n'.encode("utf-16"), "UTF-16.*iconv"),
        ('{"a": 1}\n'.encode("utf-16-le"), "UTF-16.*iconv"),
        (gzip.compress(b'{"a": 1}\n', mtime=0), "gzip data: let its name end in .gz"),
        (b"PAR1\x15\x04", "a Parquet file"),
        (b'<?xml version="1.0"?><Error/>', "XML, mostly a server's error"),
        (b"<!DOCTYPE html><html></html>", "a web page"),
        (b"\xef\xbb\xbf<!-- Sign in -->\n<head></head>", "a web page"),
    ],
)
def test_files_of_other_types_are_named(content: bytes, what: str, tmp_path: Path) -> None:
    for name in ("in.jsonl", "in.jsonl.gz", "in.csv.zst"):
        (tmp_path / name).write_bytes(content)
        if name == "in.jsonl" or content.lower().startswith((b"version", b"<!", b"\xef\xbb\xbf<")):
            with pytest.raises(DataError, match=what):
                read(tmp_path, name)


def changed(content: bytes, at: int) -> bytes:
    return content[:at] + b"\xff" + content[at + 1 :]


def test_damaged_files_are_named_in_one_line(tmp_path: Path) -> None:
    table = pa.table({"prompt": [QUESTION] * 50, "completion": [GOOD] * 50})
    pq.write_table(table, tmp_path / "whole.parquet", compression="none")
    whole = (tmp_path / "whole.parquet").read_bytes()
    (tmp_path / "text.parquet").write_bytes(changed(whole, whole.index(b"spiders")))
    (tmp_path / "footer.parquet").write_bytes(whole[:-200] + b"\x00" * 100 + whole[-100:])
    packed = gzip.compress(json.dumps([QUESTION, GOOD] * 50).encode())
    (tmp_path / "in.jsonl.gz").write_bytes(changed(packed, len(packed) // 2))
    (tmp_path / "head.csv").write_text('prompt,"completion\n')
    for name in ("text.parquet", "footer.parquet", "in.jsonl.gz", "head.csv"):
        with pytest.raises(DataError, match=rf"^.*{name}: (not|a quote).*$") as caught:
            read(tmp_path, name)
        assert "\n" not in str(caught.value)


TABLE = {"prompt": {"0": "1 + 1?", "1": "2 + 2?"}, "completion": {"0": "2", "1": "4"}}


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(TABLE),
        json.dumps({at: {name: column[at] for name, column in TABLE.items()} for at in ("0", "1")}),
        '\ufeff{"prompt": "1 + 1?", "completion": "2"}\n\ufeff{"prompt": "2 + 2?", "completion": "4"}\n',
    ],
    ids=["pandas", "pandas by index", "two files with byte order marks"],
)
def test_tables_of_other_tools(content: str, tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text(content, "utf-8")
    expected = [{"prompt": "1 + 1?", "completion": "2"}, {"prompt": "2 + 2?", "completion": "4"}]
    assert list(read_records(tmp_path / "in.json")) == expected


LINES = [json.dumps({"prompt": f"{n} + {n}?", "completion": str(2 * n)}) for n in range(3)]
ARRAY = ",\n".join(LINES).join("[]")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cr.jsonl", "\r".join(LINES)),
        ("mixed.jsonl", f"{LINES[0]}\r{LINES[1]}\r\n{LINES[2]}\n"),
        ("cr.csv", "prompt,completion\r0 + 0?,0\r1 + 1?,2\r2 + 2?,4\r"),
        ("mixed.csv", "prompt,completion\r\n0 + 0?,0\n1 + 1?,2\r2 + 2?,4"),
        ("comma.jsonl", "\n".join(LINES).replace("?", ",] // '")),
    ],
)
def test_lines_end_in_any_way(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content.encode())
    assert [record["completion"] for record in read_records(tmp_path / name)] == ["0", "2", "4"]


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("nul.jsonl", LINES[0] + "\n" + "\0" * 900, "NUL bytes"),
        ("text.jsonl", LINES[0] + "\n" + LINES[1].replace("?", "\0?"), "NUL bytes"),
        ("all.jsonl", "\0" * 900, "NUL bytes"),
        ("nul.csv", "prompt,completion\n1 + 1?,\0\n", "NUL bytes"),
        ("nul.json", ARRAY + "\0" * 9, "NUL bytes"),
        ("early.json", ARRAY[: ARRAY.rindex(",")], "ends early"),
        ("string.json", ARRAY[: ARRAY.rindex(":") + 3], "ends early"),
        ("comma.json", ARRAY[: ARRAY.index("\n")], "ends early"),
        ("early.jsonl", ARRAY[: ARRAY.rindex(",")], "ends early"),
        ("object.json", f'{{"data": {ARRAY}', "ends early"),
        ("line.jsonl", "\n".join(LINES)[:-9], "ends early"),
        ("above.json", f"// by a tool\n{ARRAY}", "a comment"),
        ("inside.json", ARRAY.replace("\n", "/* next */\n"), "a comment"),
        ("hash.jsonl", "# by a tool\n" + LINES[0], "a comment"),
        ("array.json", ARRAY.replace("]", ",\n]"), "a trailing comma"),
        ("member.json", ARRAY.replace("}", ",}"), "a trailing comma"),
        ("lines.jsonl", ",\n".join(LINES) + ",", "a trailing comma"),
        ("python.jsonl", str(json.loads(LINES[0])), "Python's notation"),
        ("none.json", ARRAY.replace('"0"', "None"), "Python's notation"),
        ("two.jsonl", LINES[0] + LINES[1] + "\n" + LINES[2], "another value after the first"),
    ],
)
def test_what_is_wrong_with_a_text_is_said(name: str, content: str, what: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content.encode())
    try:
        faults = [f"{record.reason} {record.detail}" for record in read_records(tmp_path / name)
                  if isinstance(record, Drop)]  # fmt: skip
    except DataError as error:
        faults = [str(error)]
    assert any(what in fault for fault in faults), faults


def test_maps_are_objects(tmp_path: Path) -> None:
    messages = pa.array([[[("role", "user"), ("content", "1 + 1?")]]], pa.list_(pa.map_(pa.string(), pa.string())))
    pq.write_table(pa.table({"messages": messages}), tmp_path / "in.parquet")
    assert list(read_records(tmp_path / "in.parquet")) == [{"messages": [{"role": "user", "content": "1 + 1?"}]}]


@pytest.mark.parametrize(
    ("value", "params"),
    [
        ({"answer": float("nan")}, {}),
        ({"answer": [float("nan")]}, {}),
        ({"reward_model": {"ground_truth": float("nan")}}, {}),
        ({"s": {"a": float("nan")}}, {"columns": {"prompt": "problem", "answer": "s.a"}}),
    ],
)
def test_nan_is_a_missing_value(value: dict, params: dict, tmp_path: Path) -> None:
    good = json.loads(json.dumps(value).replace("NaN", "0.1"))
    table = pa.Table.from_pylist([{"problem": QUESTION, **each} for each in (value, good)])
    pq.write_table(table, tmp_path / "in.parquet")
    (tmp_path / "in.csv").write_text("problem,answer\n1+1?,nan\n2+2?,0.1\n")
    for path, given in (("in.parquet", params), ("in.csv", {})):
        spec = making.spec(tmp_path, ("load", {"path": path, **given}), max_drop_share=1.0)
        assert pipeline.run(spec)[0].drops == {"null answer": 1}
        assert [row["answer"] for row in pipeline.read_rows(pipeline.find(spec))] == ["0.1"]


def test_values_of_tables_are_texts_as_they_were_written(tmp_path: Path) -> None:
    table = {"problem": [QUESTION], "answer": pa.array([0.1], pa.float32()), "level": [date(2024, 1, 1)]}
    pq.write_table(pa.table(table), tmp_path / "in.parquet")
    _, rows = making.run(tmp_path, ("load", {"path": "in.parquet"}))
    assert (rows[0]["answer"], rows[0]["meta"]) == ("0.1", {"level": "2024-01-01"})


def test_a_number_too_large_for_a_float_is_not_a_gold(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"problem": "10^400?", "answer": 1e400}\n')
    _, rows = making.run(tmp_path, ("load", {"path": "in.jsonl"}))
    assert "answer" not in rows[0]
