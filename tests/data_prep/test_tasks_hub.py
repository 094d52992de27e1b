"""Files of a Hub repository: fetched at their commit from a server with the Hub's protocol, then offline."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import unquote, urlsplit

import making
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.errors import DataError
from data_prep.sources import tasks

COMMIT = "c" * 40


class Hub(http.server.BaseHTTPRequestHandler):
    """The Hub's responses for a repository's listing at a commit and for its files."""

    folder: Path
    asked: list[str]

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self._file()

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        if not path.startswith("/api/datasets/"):
            self._file()
        elif not path.endswith(f"/{COMMIT}"):
            self._say(404, {}, {"X-Error-Code": "RevisionNotFound"})
        elif "/tree/" in path:
            names = [path for path in sorted(self.folder.rglob("*")) if path.is_file()]
            self._say(200, [self._entry(name) for name in names])
        else:
            self._say(200, {"id": "our/set", "sha": COMMIT, "siblings": []})

    def _entry(self, path: Path) -> dict:
        name = str(path.relative_to(self.folder))
        return {"type": "file", "path": name, "size": path.stat().st_size, "oid": self._etag(path)}

    def _etag(self, path: Path) -> str:
        return hashlib.sha1(path.read_bytes()).hexdigest()

    def _file(self):
        name = unquote(urlsplit(self.path).path).partition(f"/resolve/{COMMIT}/")[2]
        path = self.folder / name
        if not name or not path.is_file():
            self._say(404, {}, {"X-Error-Code": "EntryNotFound"})
            return
        if self.command == "GET":
            self.asked.append(name)
        head = {"X-Repo-Commit": COMMIT, "ETag": f'"{self._etag(path)}"', "Accept-Ranges": "bytes"}
        self._say(200, path.read_bytes(), head)

    def _say(self, status: int, body, head=None):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(data)),
            **(head or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)


@pytest.fixture
def hub(tmp_path):
    """The repository's folder, the requested paths, and a function that runs a load against it."""
    Hub.folder, Hub.asked = tmp_path / "repository", []
    Hub.folder.mkdir()
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    env = {**os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{httpd.server_port}", "HF_HOME": str(tmp_path / "hf")}
    env |= {"HF_HUB_DISABLE_XET": "1", "no_proxy": "*"}

    def run(files: list[str], **environ: str) -> tuple[list[dict], str]:
        params = {"hub": "our/set", "revision": COMMIT, "files": files}
        spec = making.spec(tmp_path, ("load", params), cache=f"cache{len(list(tmp_path.iterdir()))}")
        path = tmp_path / "spec.json"
        path.write_text(spec.model_dump_json())
        command = [sys.executable, "-m", "data_prep", "run", str(path)]
        done = subprocess.run(command, cwd=tasks.ROOT, env=env | environ, capture_output=True, text=True)
        out = [
            json.loads(line) for file in sorted(spec.cache.glob("load-*/shards/*[0-9].jsonl")) for line in file.open()
        ]
        return out, done.stderr

    yield Hub.folder, Hub.asked, run
    httpd.shutdown()
    httpd.server_close()


def test_files_are_fetched_once_at_their_commit(hub):
    folder, asked, run = hub
    rows = [{"id": name, "question": f"{name}?", "answer": name} for name in "abcd"]
    (folder / "ALL").mkdir()
    for number, row in enumerate(rows[:2]):
        pq.write_table(pa.Table.from_pylist([row]), folder / f"ALL/train-{number}.parquet")
    making.write_jsonl(folder / "more.jsonl", rows[2:3])
    making.write_jsonl(folder / "test.jsonl", rows[3:])
    (folder / "loader.py").write_text("raise SystemExit('a loading script was run')")
    found, said = run(["more.jsonl", "ALL/train-*.parquet"])
    assert [row["id"] for row in found] == ["c", "a", "b"], said
    assert sorted(asked) == ["ALL/train-0.parquet", "ALL/train-1.parquet", "more.jsonl"]
    shutil.rmtree(folder)
    folder.mkdir()
    again, said = run(["more.jsonl", "ALL/train-*.parquet"], HF_HUB_OFFLINE="1")
    assert again == found, said
    assert len(asked) == 3


def test_missing_files_are_a_one_line_error(hub):
    folder, _, run = hub
    making.write_jsonl(folder / "test.jsonl", [{"question": "q", "answer": "a"}])
    _, said = run(["train*.jsonl"])
    assert "our/set at cccccccccccc has no file 'train*.jsonl'" in said
    _, said = run(["test.jsonl"], HF_HUB_OFFLINE="1", HF_HOME=str(folder / "elsewhere"))
    assert "our/set at cccccccccccc cannot be fetched from the Hub" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"files": ["apps.py"]}, r"files: apps.py: rows are read from .arrow"),
        ({"files": ["a.jsonl"], "config": "main"}, "files are read as they are: leave out config"),
        ({"files": ["a.jsonl"], "split": "test"}, "one of split, files"),
        ({}, "one of split, files"),
    ],
)
def test_an_invalid_split_or_config(tmp_path, monkeypatch, part, message):
    monkeypatch.setattr(tasks, "TASKS", tmp_path)
    hub = {"id": "our/set", "revision": COMMIT, **part}
    text = f"about: x\nhub: {json.dumps(hub)}\ncolumns: {{prompt: question}}\nreward: {{name: math}}\n"
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(DataError, match=message):
        tasks.read("mine")
    if part:
        with pytest.raises(DataError, match=message):
            making.run(tmp_path, ("load", {"hub": "our/set", "revision": COMMIT, **part}))
