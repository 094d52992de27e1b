"""Remote loading: pinned downloads, the Hub's layout, and errors without a network."""

import hashlib
import http.server
import os
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import ClassVar

import making
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_load import FIXTURES, load

from data_prep.core.fingerprint import git_blob
from data_prep.errors import DataError
from data_prep.sources.fetch import fetch, hub_records
from data_prep.sources.tasks import Hub, Remote


class Server(http.server.SimpleHTTPRequestHandler):
    fail_first = 0
    asked: ClassVar[list[str]] = []

    def log_message(self, *args):
        pass

    def do_GET(self):
        Server.asked.append(self.path)
        if Server.fail_first > 0:
            Server.fail_first -= 1
            self.send_error(503)
        else:
            super().do_GET()


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()
    Server.asked = []
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Server, directory=str(folder)))
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()


def test_a_pinned_url_is_fetched_once_and_verified(tmp_path, server):
    folder, url = server
    path = making.write_jsonl(folder / "rows.jsonl", making.rows(5))
    Server.fail_first = 1
    pin = {"git_blob": git_blob(path)}
    for limit in (5, 3):  # two steps, one download, though the server failed at first
        manifest, _ = load(tmp_path, url=f"{url}/rows.jsonl", limit=limit, **pin)
        assert manifest.rows_out == limit
    assert Server.asked == ["/rows.jsonl"] * 2
    by_sha = Remote(url=f"{url}/rows.jsonl", sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    assert fetch(by_sha, tmp_path / "d").read_bytes() == path.read_bytes()


def test_wrong_content_and_missing_files_are_rejected(tmp_path, server):
    folder, url = server
    making.write_jsonl(folder / "rows.jsonl", making.rows(5))
    with pytest.raises(DataError, match="the content is not what was pinned"):
        load(tmp_path, url=f"{url}/rows.jsonl", sha256="0" * 64)
    with pytest.raises(DataError, match="the server answers 404 File not found"):
        load(tmp_path, url=f"{url}/absent.jsonl", sha256="0" * 64)
    assert list((tmp_path / "cache" / "downloads").iterdir()) == []


OFFLINE = """
from pathlib import Path
from data_prep.errors import DataError
from data_prep.core.step import Context
from data_prep.steps.load import Load, LoadParams

for given in ({"task": "gsm8k"}, {"tasks": ["gsm8k", "numina_math"], "paths": {"gsm8k": "in.jsonl"}, "mirror": True},
              {"task": "numina_math"}, {"hub": "a/b", "revision": "0" * 40}):
    try:
        list(Load(LoadParams(**given)).apply([], Context(Path(), Path())))
    except DataError as error:
        print(str(error).split("; ")[-1])
"""


def test_without_a_network_the_error_says_what_to_do(tmp_path):
    """The error offers a mirror to tasks that have one, and names the file of the failing task."""
    making.write_jsonl(tmp_path / "in.jsonl", FIXTURES["gsm8k"])
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", OFFLINE], cwd=tmp_path, env=env, capture_output=True, text=True)
    file = "download it where there is a network, and give its "
    assert done.stdout.splitlines() == [
        "try `mirror: true`, or `paths: {gsm8k: <local file>}`",
        file + "file: `paths: {numina_math: <local file>}`",
        file + "file: `paths: {numina_math: <local file>}`",
        file + "`path`",
    ], done.stderr


def test_git_blob_equals_gits(tmp_path):
    (tmp_path / "x").write_bytes(b"content\n")
    said = subprocess.run(["git", "hash-object", str(tmp_path / "x")], capture_output=True, text=True, check=True)
    assert git_blob(tmp_path / "x") == said.stdout.strip()


def test_a_dataset_is_read_by_the_datasets_library(tmp_path):
    """The Hub's layout (data/<split>-*.parquet) in a local folder, through the call that reads the Hub."""
    data = tmp_path / "set" / "data"
    data.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(FIXTURES["gsm8k"]), data / "test-00000-of-00001.parquet")
    hub = Hub.model_construct(id=str(tmp_path / "set"), revision="0" * 40, split="test", config=None)
    assert list(hub_records(hub)) == FIXTURES["gsm8k"]
    with pytest.raises(DataError, match="cannot be loaded from the Hub"):
        list(hub_records(hub.model_copy(update={"split": "train"})))
